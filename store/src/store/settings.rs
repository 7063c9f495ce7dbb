//! What a person set for a store and no object tells: the addresses of its vaults, and the annexes of its staging. A small JSON file in its
//! directory, which is replaced as a whole; whoever changes it does so under a lock, for a change that is lost would leave packs behind.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StoreLock;
use crate::error::StoreError;
use crate::id::{AnnexId, StagingId, VaultId};
use crate::staging::{Holder, give_up_reserve};
use crate::vault::keeper::LockTerms;

/// Its name.
pub(super) const FILE: &str = "settings.json";
const LIMIT: u64 = 1 << 20;

/// A vault of the store. Credentials are never written here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSetting {
    /// Its address.
    pub url: String,
    /// For how many days what stays is locked there when it is put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_days: Option<u16>,
    /// Whether nobody can shorten that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lock_for_good: bool,
}

impl VaultSetting {
    /// The vault of an address, without locks.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// How what stays is locked there when it is put.
    pub fn lock(&self) -> Option<LockTerms> {
        let days = self.lock_days.filter(|days| (1..=LockTerms::DAYS_MAX).contains(days))?;
        Some(LockTerms { days, for_good: self.lock_for_good })
    }
}

/// An annex of the store's staging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnexSetting {
    /// Where it is; absolute.
    pub path: PathBuf,
    /// Its id.
    pub id: AnnexId,
    /// Whether its packs move elsewhere, after which it is none any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// Settings of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Vaults in the order in which they are asked.
    #[serde(default)]
    pub vaults: Vec<VaultSetting>,
    /// The annexes of staging.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staging: Vec<AnnexSetting>,
    /// Which directory of the store this is, as the markers of its annexes say, too; made with the first annex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging_id: Option<StagingId>,
}

impl Settings {
    /// Reads the settings of the store in `dir`; none written are the default ones.
    pub fn load(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let bytes = match std::fs::metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::default()),
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
        let of = |list: &str| value.get(list).and_then(|list| list.as_array()).into_iter().flatten();
        if !value.is_object() || !of("vaults").chain(of("staging")).all(serde_json::Value::is_object) {
            return Err("it is not of the form {\"vaults\": [{\"url\": ADDRESS}]}".to_owned());
        }
        let settings: Self = serde_json::from_value(value).map_err(|e| e.to_string())?;
        match settings.staging.iter().find(|annex| !annex.path.is_absolute()) {
            Some(annex) => Err(format!("the path {:?} of an annex is not absolute", annex.path)),
            None => Ok(settings),
        }
    }

    /// Reads the settings, lets `change` change them, and replaces them if it did. Nobody else changes them meanwhile.
    pub fn change<T>(
        dir: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _lock = StoreLock::wait(dir, "lock.settings")?;
        let before = Self::load(dir)?;
        let mut settings = before.clone();
        let done = change(&mut settings)?;
        if settings != before {
            settings.save(dir)?;
        }
        Ok(done)
    }

    /// Whose annexes there are, of the store of this id.
    pub fn holder(&self, store: VaultId) -> Holder {
        Holder { store, staging: self.staging_id }
    }

    /// Makes sure, durably, that the directory has an id.
    pub(super) fn identify(dir: &Path) -> Result<(), StoreError> {
        Self::change(dir, |settings| {
            settings.staging_id.get_or_insert_with(StagingId::random);
            Ok(())
        })
    }

    /// Replaces the settings, durably and atomically.
    fn save(&self, dir: &Path) -> Result<(), StoreError> {
        let (path, temp) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        let text = serde_json::to_vec_pretty(self).map_err(|e| StoreError::invalid(e.to_string()))?;
        let write = || -> std::io::Result<()> {
            // Whatever lies under the temporary name is of a run that was cut off, or a trap.
            match std::fs::remove_file(&temp) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
            std::io::Write::write_all(&mut file, &text)?;
            file.sync_all()?;
            std::fs::rename(&temp, &path)?;
            std::fs::File::open(dir)?.sync_all()
        };
        // Where the disk is full: what is written here may name another one.
        let is_full =
            |e: &std::io::Error| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let written = write();
        let again = written.as_ref().is_err_and(is_full) && give_up_reserve(dir);
        if again { write() } else { written }.map_err(StoreError::io("write", &path))
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
        let mut settings = Settings { vaults: vec![VaultSetting::new("/mnt/usb")], ..Settings::default() };
        settings.save(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let newer = text.contains("staging") || text.contains("lock");
        assert!(!newer, "a program that knows neither annexes nor locks reads what has none: {text}");
        assert_eq!(Settings::load(dir.path()).unwrap(), settings);
        settings.vaults.push(VaultSetting { lock_days: Some(30), ..VaultSetting::new("azure://a/b") });
        for leaving in [false, true] {
            settings.staging.push(AnnexSetting { path: "/mnt/b".into(), id: AnnexId([7; 16]), leaving });
            settings.staging_id = Some(StagingId([8; 16]));
            settings.save(dir.path()).unwrap();
            assert_eq!(Settings::load(dir.path()).unwrap(), settings);
        }
    }

    #[test]
    fn no_change_is_lost_when_several_change_the_settings_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let dir = dir.path();
                scope.spawn(move || {
                    let vault = VaultSetting::new(format!("/vault{n}"));
                    let add = |settings: &mut Settings| {
                        settings.vaults.push(vault);
                        Ok(())
                    };
                    Settings::change(dir, add).unwrap();
                });
            }
        });
        assert_eq!(Settings::load(dir.path()).unwrap().vaults.len(), 8);
    }

    #[test]
    fn settings_of_another_shape_are_damaged_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "[]",
            "null",
            "7",
            "[[]]",
            "{\"vaults\":[[\"/a\"]]}",
            "{\"vaults\":{}}",
            "{\"other\":1}",
            "{\"staging\":[[\"/a\",\"00\"]]}",
            "{\"staging\":[{\"path\":\"/a\",\"id\":\"00\"}]}",
            "{\"staging_id\":\"00\"}",
            "{\"staging\":[{\"path\":\"a\",\"id\":\"00000000000000000000000000000000\"}]}",
        ] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert!(matches!(Settings::load(dir.path()), Err(StoreError::Corrupt { .. })), "{text}");
        }
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        nix::unistd::mkfifo(&dir.path().join(FILE), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Settings::load(dir.path()), Err(StoreError::Corrupt { .. })), "a pipe");
    }
}
