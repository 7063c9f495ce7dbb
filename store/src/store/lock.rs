//! One writer at a time: locks of whole processes, which the kernel takes back however a process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::StoreError;

/// Holds a store for writing until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct StoreLock {
    file: File,
}

impl Drop for StoreLock {
    /// Closing is not enough: a child that another thread is just starting has the file, too, until it becomes another program.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl StoreLock {
    /// Takes a lock that everybody holds for a moment only.
    pub(super) fn wait(dir: &Path, name: &str) -> Result<Self, StoreError> {
        let path = dir.join(name);
        let file = open(&path)?;
        file.lock().map_err(StoreError::io("lock", &path))?;
        Ok(Self { file })
    }

    /// Takes the lock of this name, alone or with others who do not want it alone; `Locked` if another process has it.
    pub(super) fn take(dir: &Path, name: &str, alone: bool) -> Result<Self, StoreError> {
        let path = dir.join(name);
        let file = open(&path)?;
        match if alone { file.try_lock() } else { file.try_lock_shared() } {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&path).ok().and_then(|t| t.trim().parse().ok());
                return Err(StoreError::Locked { path: dir.to_path_buf(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
        }
        // Who holds it is for people only; failing to say so is no reason to stop.
        let _ =
            file.set_len(0).and_then(|()| (&file).write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Self { file })
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    // A link in its place could lead anywhere, and the file is written to.
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    options.open(path).map_err(StoreError::io("open", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_dropped_although_a_child_still_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = StoreLock::take(dir.path(), "lock", true).unwrap();
        let inherited = lock.file.try_clone().unwrap();
        assert!(matches!(StoreLock::take(dir.path(), "lock", true), Err(StoreError::Locked { .. })));
        drop(lock);
        StoreLock::take(dir.path(), "lock", true).unwrap();
        drop(inherited);
    }
}
