//! This machine's key in a file, while it is replaced: the next one is written beside it, takes its place once its slot is everywhere, and the
//! one before stays beside it until its slot is gone. So whatever is cut off, each slot of this machine has its key at hand.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use holdfast_store::StoreError;
use holdfast_store::id::VaultId;
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::slots::Secret;

use super::AtHand;
use crate::commands::Context;
use crate::create::make_private_dir;
use crate::outcome::Failure;

/// The file, and those beside it.
#[derive(Debug)]
pub(super) struct MachineFiles {
    file: PathBuf,
    next: PathBuf,
    old: PathBuf,
}

impl MachineFiles {
    pub fn of(context: &Context<'_>, vault: &VaultId) -> Self {
        let file = context.settings.secrets.machine_key_file(vault);
        Self { next: file.with_extension("key.next"), old: file.with_extension("key.old"), file }
    }

    /// All keys of this machine: what a service manager decrypted, and those in files. One that cannot be read is told.
    pub fn at_hand(&self, context: &Context<'_>, vault: &VaultId) -> Vec<AtHand> {
        let mut all = Vec::new();
        for found in context.settings.secrets.machine_keys(vault) {
            match found.key {
                Ok(key) => all.push(AtHand { secret: key.secret(), in_file: found.is_file, typed: false }),
                Err(e) => context.terminal.warn(&format!("this machine's key: {e}")),
            }
        }
        let beside = [&self.next, &self.old].into_iter().filter_map(|path| MachineKey::read(path).ok());
        all.extend(beside.map(|key| AtHand { secret: key.secret(), in_file: true, typed: false }));
        all
    }

    /// The next key: that of a run which was cut off, or a new one, in its file.
    pub fn next(&self, vault: &VaultId) -> Result<MachineKey, Failure> {
        match MachineKey::read(&self.next) {
            Ok(key) if key.vault == *vault => return Ok(key),
            Ok(_) | Err(StoreError::Corrupt { .. }) => remove(&self.next)?,
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        let Secret::Machine(key) = Secret::new_machine() else {
            return Err(Failure::failed("the machine key is of another kind"));
        };
        let key = MachineKey { vault: *vault, key };
        make_private_dir(self.file.parent().unwrap_or(Path::new("/")))?;
        key.create_at(&self.next)?;
        Ok(key)
    }

    /// The key before is of no use any more: its slot is gone.
    pub fn forget_old(&self) {
        // One that stays opens nothing.
        let _ = std::fs::remove_file(&self.old);
    }
}

/// Puts the next key, if there is one, into the place of the file's.
pub(super) fn replace(files: &MachineFiles) -> Result<(), Failure> {
    if !files.next.exists() {
        return Ok(());
    }
    if files.file.exists() {
        // What a run left that was cut off is the same key, or opens nothing any more.
        files.forget_old();
        std::fs::hard_link(&files.file, &files.old).map_err(|e| Failure::io("keep", &files.old, &e))?;
    }
    std::fs::rename(&files.next, &files.file).map_err(|e| Failure::io("replace", &files.file, &e))?;
    let dir = files.file.parent().unwrap_or(Path::new("/"));
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|e| Failure::io("sync", dir, &e))
}

fn remove(path: &Path) -> Result<(), Failure> {
    std::fs::remove_file(path).map_err(|e| Failure::io("remove", path, &e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STORE: VaultId = VaultId([7; 16]);

    fn files(dir: &Path) -> MachineFiles {
        let file = dir.join("store.key");
        MachineFiles { next: dir.join("store.key.next"), old: dir.join("store.key.old"), file }
    }

    fn key_in(path: &Path) -> [u8; 32] {
        *MachineKey::read(path).unwrap().key
    }

    #[test]
    fn the_key_before_stays_until_it_is_of_no_use_and_a_stale_one_does_not_keep_it_from_that() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        replace(&files).unwrap();
        assert!(!files.file.exists(), "there is no next one");
        let first = *files.next(&STORE).unwrap().key;
        assert_eq!(*files.next(&STORE).unwrap().key, first, "a run that was cut off goes on with its key");
        replace(&files).unwrap();
        assert_eq!(key_in(&files.file), first);
        assert!(!files.next.exists() && !files.old.exists());

        let second = *files.next(&STORE).unwrap().key;
        // Cut off before the rename.
        std::fs::hard_link(&files.file, &files.old).unwrap();
        replace(&files).unwrap();
        assert_eq!((key_in(&files.file), key_in(&files.old)), (second, first));
        // Cut off before the one before was removed, and rotated again.
        let third = *files.next(&STORE).unwrap().key;
        replace(&files).unwrap();
        assert_eq!((key_in(&files.file), key_in(&files.old)), (third, second));
        files.forget_old();
        assert!(!files.old.exists());
    }

    #[test]
    fn a_next_key_that_is_damaged_or_of_another_store_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let first = *files.next(&STORE).unwrap().key;
        let other = *files.next(&VaultId([8; 16])).unwrap().key;
        assert_ne!(first, other);
        std::fs::write(&files.next, "nonsense").unwrap();
        let third = files.next(&STORE).unwrap();
        assert!(third.vault == STORE && *third.key != other);
    }
}
