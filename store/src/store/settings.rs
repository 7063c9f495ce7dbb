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
            Ok(meta) if meta.len() > LIMIT => {
                return Err(StoreError::corrupt(path.display().to_string(), "too long"));
            }
            Ok(_) => std::fs::read(&path).map_err(StoreError::io("read", &path))?,
        };
        serde_json::from_slice(&bytes)
            .map_err(|e| StoreError::corrupt(path.display().to_string(), e.to_string()))
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
