//! Making a store in a directory. With its config, which comes last, a directory is a store; what lies there before is of a run
//! that was cut off, and is in nobody's way.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use super::lock::STORE_LOCK;
use super::{Store, StoreLock, not_a_directory};
use crate::error::StoreError;
use crate::id::SlotId;
use crate::names;
use crate::staging::{DiskFiles, Staging, is_temp};
use crate::vault::ObjectName;

/// Lies in a store that was made from what a vault shows, until the points of a vault were read.
const ADOPTED: &str = "adopted";

impl Store {
    /// Whether a store can be made in `dir`: `AlreadyThere` unless it is missing, empty, or holds only what a run left that was cut
    /// off while it made one. Such a directory has no config yet, and no objects but key slots.
    pub fn may_be_made_in(dir: &Path) -> Result<(), StoreError> {
        if dir.exists() && !dir.is_dir() {
            return Err(not_a_directory("make directory", dir));
        }
        let Some(other) = names_in(dir)?.into_iter().find(|name| !is_left_over(dir, name)) else {
            return Ok(());
        };
        let what = if dir.join("config").exists() {
            "a store".to_owned()
        } else {
            format!("something else ({other})")
        };
        Err(StoreError::AlreadyThere { what: format!("{what} in {}", dir.display()) })
    }

    pub(super) fn place(
        dir: &Path,
        config: &[u8],
        slots: &[(SlotId, Vec<u8>)],
        is_adopted: bool,
    ) -> Result<(), StoreError> {
        if slots.is_empty() {
            return Err(StoreError::invalid("a store without a key slot could never be opened"));
        }
        Self::may_be_made_in(dir)?;
        make_dir(dir)?;
        // Nobody else makes a store here meanwhile: what lies here then is of a run that is no more.
        let _lock = StoreLock::take(dir, STORE_LOCK, true)?;
        Self::may_be_made_in(dir)?;
        let staging = Staging::new(Arc::new(DiskFiles::new(dir)));
        staging.prepare()?;
        staging.clear_temp()?;
        for left in staging.list("keys")? {
            staging.remove(&left.name)?;
        }
        for (id, bytes) in slots {
            staging.put(&names::slot(id), bytes)?;
        }
        let note = dir.join(ADOPTED);
        match is_adopted {
            true => std::fs::write(&note, b"").map_err(StoreError::io("write", &note))?,
            false if note.exists() => std::fs::remove_file(&note).map_err(StoreError::io("remove", &note))?,
            false => {}
        }
        // The config last: a directory with a config is a store.
        staging.put(&names::config(), config)
    }

    /// Whether the recovery that made this store has not ended, as far as this tells.
    pub(super) fn is_adopted(&self) -> bool {
        self.dir.join(ADOPTED).exists()
    }

    /// It has. That this cannot be noted is no reason to stop: who asks looks at the catalog, too.
    pub(super) fn end_adoption(&self) {
        if !self.read_only && self.is_adopted() {
            let _ = std::fs::remove_file(self.dir.join(ADOPTED));
        }
    }
}

/// Names in a directory; none if it is missing. One that is not UTF-8 is shown with `?` in it, as none of ours has.
pub(super) fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::io("read", dir))?,
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        Ok(entry?.file_name().into_string().unwrap_or_else(|_| "?".to_owned()))
    };
    entries.map(name).collect::<std::io::Result<_>>().map_err(StoreError::io("read", dir))
}

/// Whether this is what lies in a store before its config. Other people, too, call a directory `keys`.
fn is_left_over(dir: &Path, name: &str) -> bool {
    let all_in = |is_ours: fn(&str) -> bool| {
        names_in(&dir.join(name)).is_ok_and(|names| names.iter().all(|name| is_ours(name)))
    };
    match name {
        "lock" | "ballast" | ADOPTED => true,
        // The last one is of the disk.
        "pack" | "idx" | "rp" | "lost+found" => all_in(|_| false),
        "tmp" => all_in(is_temp),
        "keys" => all_in(|name| {
            ObjectName::new(format!("keys/{name}")).is_some_and(|name| names::slot_of(&name).is_some())
        }),
        _ => false,
    }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.exists() && !dir.is_dir() {
        return Err(not_a_directory("make directory", dir));
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(StoreError::io("make directory", dir))?;
    // An empty directory that was there may be open to others: what a store shows of itself is its owner's.
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(dir, private).map_err(StoreError::io("close to others", dir))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::StoreHead;

    fn head(slot: u8) -> StoreHead {
        StoreHead {
            vault: crate::id::VaultId([1; 16]),
            config: vec![7],
            slots: vec![(SlotId([slot; 16]), vec![1, 2, 3])],
        }
    }

    fn slots_in(dir: &Path) -> Vec<String> {
        names_in(&dir.join("keys")).unwrap()
    }

    #[test]
    fn what_a_run_left_that_was_cut_off_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        Store::adopt(dir.path(), &head(1)).unwrap();
        assert!(matches!(Store::adopt(dir.path(), &head(2)), Err(StoreError::AlreadyThere { .. })));
        std::fs::remove_file(dir.path().join("config")).unwrap();
        std::fs::write(dir.path().join("tmp").join("ab".repeat(16)), "half").unwrap();
        Store::adopt(dir.path(), &head(2)).unwrap();
        assert_eq!(slots_in(dir.path()), ["02".repeat(16)], "the slot of the other run opens nothing");
        assert!(names_in(&dir.path().join("tmp")).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_ours_or_may_be_needed_is_left_alone() {
        for name in
            ["notes", "catalog.db", "keys/0101.key", "tmp/letter.txt", "pack/ab/x", "rp/x", "settings.json"]
        {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "mine").unwrap();
            let error = Store::adopt(dir.path(), &head(1)).unwrap_err();
            assert!(matches!(error, StoreError::AlreadyThere { .. }), "{name}: {error}");
            assert_eq!(std::fs::read(&path).unwrap(), b"mine");
            assert!(!dir.path().join("lock").exists());
        }
    }

    #[test]
    fn two_runs_do_not_make_a_store_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let _other = StoreLock::take(dir.path(), "lock", true).unwrap();
        assert!(matches!(Store::adopt(dir.path(), &head(1)), Err(StoreError::Locked { .. })));
    }
}
