//! What a person set for a store and no object tells: the addresses of its vaults. A small JSON file in its directory.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;

const FILE: &str = "settings.json";
const LIMIT: u64 = 1 << 20;

/// A vault of the store. Credentials are never written here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSetting {
    /// Its address.
    pub url: String,
}

/// Settings of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Vaults in the order in which they are asked.
    #[serde(default)]
    pub vaults: Vec<VaultSetting>,
}

impl Settings {
    /// Reads the settings of the store in `dir`; none written are the default ones.
    pub fn load(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let bytes = match std::fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(StoreError::io("read", &path)(e)),
            // A pipe would wait for a writer.
            Ok(meta) if !meta.is_file() => {
                return Err(StoreError::corrupt(path.display().to_string(), "it is not a file"));
            }
            Ok(meta) if meta.len() > LIMIT => {
                return Err(StoreError::corrupt(path.display().to_string(), "too long"));
            }
            Ok(_) => std::fs::read(&path).map_err(StoreError::io("read", &path))?,
        };
        Self::parse(&bytes).map_err(|detail| StoreError::corrupt(path.display().to_string(), detail))
    }

    /// Objects alone: a list in the place of one would pass for an object without fields, and no vault would be asked.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let vaults = value.get("vaults").and_then(|vaults| vaults.as_array()).into_iter().flatten();
        if !value.is_object() || !vaults.into_iter().all(serde_json::Value::is_object) {
            return Err("it is not of the form {\"vaults\": [{\"url\": ADDRESS}]}".to_owned());
        }
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    /// Replaces the settings, durably and atomically.
    pub fn save(&self, dir: &Path) -> Result<(), StoreError> {
        let (path, temp) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        let text = serde_json::to_vec_pretty(self).map_err(|e| StoreError::invalid(e.to_string()))?;
        let write = || -> std::io::Result<()> {
            // Whatever lies under the temporary name is of a run that was cut off, or a trap.
            match std::fs::remove_file(&temp) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
            std::io::Write::write_all(&mut file, &text)?;
            file.sync_all()?;
            std::fs::rename(&temp, &path)?;
            std::fs::File::open(dir)?.sync_all()
        };
        write().map_err(StoreError::io("write", &path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_what_was_never_saved_names_no_vault() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Settings::load(dir.path()).unwrap(), Settings::default());
        let settings = Settings { vaults: vec![VaultSetting { url: "/mnt/usb".into() }] };
        settings.save(dir.path()).unwrap();
        assert_eq!(Settings::load(dir.path()).unwrap(), settings);
    }

    #[test]
    fn settings_of_another_shape_are_damaged_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        for text in
            ["", "[]", "null", "7", "[[]]", "{\"vaults\":[[\"/a\"]]}", "{\"vaults\":{}}", "{\"other\":1}"]
        {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert!(matches!(Settings::load(dir.path()), Err(StoreError::Corrupt { .. })), "{text}");
        }
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        nix::unistd::mkfifo(&dir.path().join(FILE), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Settings::load(dir.path()), Err(StoreError::Corrupt { .. })), "a pipe");
    }
}
