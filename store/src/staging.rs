//! The staging directory: objects on the local disk that survive a crash at any point.
//!
//! An object is written under a temporary name, its data synced, renamed to its final name, and the directory synced;
//! only then does anybody hear of it. A failed sync means that the file is lost: the kernel marks the pages clean and a
//! second sync would succeed without them ("Can Applications Recover from fsync Failures?", ATC 2020), so the temporary
//! file is removed and the error goes up. What a crash leaves is temporary files, which the next opener removes, and
//! complete objects that the catalog does not know yet, which it adopts.

pub(crate) mod disk;
mod files;
mod testing;

pub use disk::DiskFiles;
pub use files::Files;
pub use testing::{Fault, FaultyFiles, MemoryFiles};

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{ErrorClass, StoreError};
use crate::id::{self, ObjectId, to_hex};
use crate::vault::{ObjectInfo, ObjectName};

#[cfg(test)]
mod tests;

/// Where temporary files live.
pub const TEMP_DIR: &str = "tmp";
/// A file that is given up when the disk is full, so that the catalog can still record what happened. Of random bytes: a file
/// system that compresses would give back next to nothing for anything else.
const BALLAST: &str = "ballast";
const BALLAST_LEN: usize = 4 << 20;

/// Gives up the file in a store's directory that keeps room for what must be written on a full disk: the catalog, and what else lies there.
/// `false` if it was given up before. The next session makes it again when there is room.
pub fn give_up_reserve(store: &Path) -> bool {
    std::fs::remove_file(store.join(BALLAST)).is_ok()
}

/// Objects below one directory.
#[derive(Clone, Debug)]
pub struct Staging {
    files: Arc<dyn Files>,
    /// Directories whose entries, as far as they are directories, this process made sure of.
    synced: Arc<Mutex<HashSet<String>>>,
}

impl Staging {
    /// Objects in `files`.
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self { files, synced: Arc::default() }
    }

    /// Makes the directories that a staging area needs.
    pub fn prepare(&self) -> Result<(), StoreError> {
        for dir in [TEMP_DIR, "pack", "idx", "rp", "keys"] {
            self.files.make_dir(dir).map_err(self.error("make directory", dir))?;
        }
        self.files.sync_dir("").map_err(self.error("sync", ""))?;
        self.refill_ballast();
        Ok(())
    }

    /// Writes an object durably. Its bytes replace nothing: an object that is already there has the same bytes (content-addressed)
    /// or is an error of the caller's.
    pub fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        let put = self.try_put(name, bytes);
        if put.as_ref().is_err_and(|e| e.class() == ErrorClass::Full) {
            // One that is gone already was given up before.
            let _ = self.files.remove(BALLAST);
        }
        put
    }

    fn try_put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        let path = name.as_str();
        let parent = parent_of(path);
        let temp = format!("{TEMP_DIR}/{}", to_hex(&ObjectId::random().0));
        let written = self.files.write_synced(&temp, bytes).map_err(self.error("write", &temp));
        let written = written.and_then(|()| self.ensure_dir(parent));
        let written =
            written.and_then(|()| self.files.rename(&temp, path).map_err(self.error("rename to", path)));
        if let Err(e) = written {
            // Best effort: an orphan is removed by the next session, too.
            let _ = self.files.remove(&temp);
            return Err(e);
        }
        self.files.sync_dir(parent).map_err(self.error("sync", parent))
    }

    /// Makes a directory that outlives a crash. One that is there may be from a run that died, or whose sync failed, before it
    /// was durable: the directory above is synced once per process, and again after something was made in it.
    fn ensure_dir(&self, dir: &str) -> Result<(), StoreError> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        self.ensure_dir_in(dir, &mut synced)
    }

    fn ensure_dir_in(&self, dir: &str, synced: &mut HashSet<String>) -> Result<(), StoreError> {
        if dir.is_empty() {
            return Ok(());
        }
        let above = parent_of(dir);
        if self.files.make_dir(dir).map_err(self.error("make directory", dir))? {
            synced.remove(above);
        }
        if synced.contains(above) {
            return Ok(());
        }
        self.ensure_dir_in(above, synced)?;
        self.files.sync_dir(above).map_err(self.error("sync", above))?;
        synced.insert(above.to_owned());
        Ok(())
    }

    /// `len` bytes of an object from `offset`; exactly that many.
    pub fn read(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::new();
        self.read_into(name, offset, len, &mut out)?;
        Ok(out)
    }

    /// As [`Self::read`], into a buffer that is used again.
    pub fn read_into(
        &self,
        name: &ObjectName,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        out.resize(len, 0);
        self.files.read_exact_at(name.as_str(), offset, out).map_err(self.error("read", name.as_str()))
    }

    /// Closes what is kept open of packs that another process removed, or put others in the place of.
    pub fn close_replaced(&self) {
        self.files.close_replaced();
    }

    /// Bytes of an object will not be read again soon.
    pub fn let_go(&self, name: &ObjectName, bytes: Range<u64>) {
        self.files.let_go(name.as_str(), bytes);
    }

    /// A whole object of at most `limit` bytes; `None` if there is none.
    pub fn read_all(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(len) = self.len(name)? else { return Ok(None) };
        if len > limit {
            return Err(StoreError::corrupt(name.as_str(), format!("{len} bytes, more than {limit}")));
        }
        self.read(name, 0, len as usize).map(Some)
    }

    /// Length of an object; `None` if there is none.
    pub fn len(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.files.len(name.as_str()).map_err(self.error("stat", name.as_str()))
    }

    /// All objects whose names begin with the directory `prefix` (without a trailing `/`), ascending.
    pub fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut found = Vec::new();
        self.list_into(prefix, &mut found)?;
        found.sort_by(|a: &ObjectInfo, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn list_into(&self, dir: &str, found: &mut Vec<ObjectInfo>) -> Result<(), StoreError> {
        for entry in self.files.list(dir).map_err(self.error("list", dir))? {
            let path = format!("{dir}/{}", entry.name);
            match entry.len {
                None => self.list_into(&path, found)?,
                // What is not named like an object of ours is not ours to judge.
                Some(len) => {
                    found.extend(ObjectName::new(path).map(|name| ObjectInfo { name, len, put_at: None }))
                }
            }
        }
        Ok(())
    }

    /// Gives an object another name, durably. After a crash it has one of the two.
    pub fn move_to(&self, from: &ObjectName, to: &ObjectName) -> Result<(), StoreError> {
        let (old, new) = (from.as_str(), to.as_str());
        self.ensure_dir(parent_of(new))?;
        self.files.rename(old, new).map_err(self.error("rename", old))?;
        for dir in [parent_of(new), parent_of(old)] {
            self.files.sync_dir(dir).map_err(self.error("sync", dir))?;
        }
        Ok(())
    }

    /// Removes an object, durably; `false` if there was none.
    pub fn remove(&self, name: &ObjectName) -> Result<bool, StoreError> {
        let path = name.as_str();
        match self.files.remove(path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(self.error("remove", path)(e)),
        }
        self.files.sync_dir(parent_of(path)).map_err(self.error("sync", path))?;
        Ok(true)
    }

    /// Removes what a crashed writer left. Only the holder of the store's lock may call it.
    pub fn clear_temp(&self) -> Result<usize, StoreError> {
        let left = self.files.list(TEMP_DIR).map_err(self.error("list", TEMP_DIR))?;
        for entry in &left {
            let path = format!("{TEMP_DIR}/{}", entry.name);
            self.files.remove(&path).map_err(self.error("remove", &path))?;
        }
        self.refill_ballast();
        Ok(left.len())
    }

    /// Room kept for the catalog is made again when there is room; lacking it is no error.
    fn refill_ballast(&self) {
        if matches!(self.files.len(BALLAST), Ok(None))
            && self.files.write_synced(BALLAST, &id::random_vec(BALLAST_LEN)).is_err()
        {
            let _ = self.files.remove(BALLAST);
        }
    }

    fn error(&self, action: &'static str, path: &str) -> impl FnOnce(std::io::Error) -> StoreError + use<> {
        let path = self.files.describe(path);
        move |source| StoreError::Io { action, path, source }
    }
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
