//! A file on its way to become an object: it grows under a temporary name, and has its own only when all of it is on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{already_there, failed, lacks_hard_links, parent, sync_dir};
use crate::id;
use crate::vault::{PutNew, VaultError};

/// A file in `.tmp/` that is being written and has no name yet; dropping it removes the temporary name.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) path: PathBuf,
    file: File,
}

impl Unfinished {
    pub(super) fn create(tmp: &Path) -> Result<Self, VaultError> {
        let path = tmp.join(id::to_hex(&id::random_bytes::<16>()));
        let created = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path);
        let file = created.map_err(|e| failed("make", &path, e))?;
        let unfinished = Self { path, file };
        // Not every network file system has locks; without one `prepare` cannot lock it either and leaves it.
        let _ = unfinished.file.try_lock();
        Ok(unfinished)
    }

    /// Writes what comes next, and has all of it be on the disk if `sync` says so.
    pub(super) fn add(mut self, bytes: &[u8], sync: bool) -> Result<Self, VaultError> {
        let written = self.file.write_all(bytes);
        let written = written.and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        written.map_err(|e| failed("write", &self.path, e))?;
        Ok(self)
    }

    /// Gives it its name when all of it is on the disk.
    pub(super) fn finish(self, path: &Path) -> Result<PutNew, VaultError> {
        self.file.sync_all().map_err(|e| failed("write", &self.path, e))?;
        let put = self.take_name(path)?;
        drop(self);
        sync_dir(parent(path))?;
        Ok(put)
    }

    pub(super) fn take_name(&self, path: &Path) -> Result<PutNew, VaultError> {
        match fs::hard_link(&self.path, path) {
            Ok(()) => Ok(PutNew::Created),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.name_is_taken(path),
            Err(e) if lacks_hard_links(&e) => self.rename(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(VaultError::unavailable(format!(
                "{} was removed before it was finished",
                self.path.display()
            ))),
            Err(e) => Err(failed("name", path, e)),
        }
    }

    /// An NFS server whose answer was lost is asked again and says "exists" of a link it made itself.
    fn name_is_taken(&self, path: &Path) -> Result<PutNew, VaultError> {
        let ours = self.file.metadata().map_err(|e| failed("read", &self.path, e))?;
        let there = fs::symlink_metadata(path).map_err(|e| failed("read", path, e))?;
        if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
            Ok(PutNew::Created)
        } else {
            already_there(path)
        }
    }

    pub(super) fn rename(&self, path: &Path) -> Result<PutNew, VaultError> {
        match renameat2(AT_FDCWD, &self.path, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => Ok(PutNew::Created),
            Err(Errno::EEXIST) => already_there(path),
            Err(Errno::EINVAL | Errno::ENOSYS) => Err(VaultError::invalid(format!(
                "the file system of {} can neither link nor rename without replacing",
                path.display()
            ))),
            Err(e) => Err(failed("name", path, e.into())),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What stays behind is found by `prepare`; after `rename` there is nothing to remove.
        let _ = fs::remove_file(&self.path);
    }
}
