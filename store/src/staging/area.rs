//! One directory of staging: objects below it, each of which is there whole or not at all.
//!
//! An object is written under a temporary name, its data synced, renamed to its final name, and the directory synced;
//! only then does anybody hear of it. A failed sync means that the file is lost: the kernel marks the pages clean and a
//! second sync would succeed without them ("Can Applications Recover from fsync Failures?", ATC 2020), so the temporary
//! file is removed and the error goes up. What a crash leaves is temporary files, which the next opener removes, and
//! complete objects that the catalog does not know yet, which it adopts.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

use super::files::{Files, Room};
use crate::error::StoreError;
use crate::id::{ObjectId, to_hex};
use crate::vault::{ObjectInfo, ObjectName};

/// Where temporary files live.
pub const TEMP_DIR: &str = "tmp";

/// Objects below one directory.
#[derive(Debug)]
pub(crate) struct Area {
    pub(super) files: Arc<dyn Files>,
    /// Directories whose entries, as far as they are directories, this process made sure of.
    synced: Mutex<HashSet<String>>,
    /// Whether its directories may be links to others.
    links: bool,
}

impl Area {
    /// Objects in `files`. A directory may be a link to another one: people move `pack` to another disk that way.
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self { files, synced: Mutex::default(), links: true }
    }

    /// Objects in `files`, where a link in the place of a directory is an error: what is beyond it is not ours.
    pub fn without_links(files: Arc<dyn Files>) -> Self {
        Self { links: false, ..Self::new(files) }
    }

    /// An error if a directory is a link that may not be one.
    pub fn look_at(&self, dir: &str) -> Result<(), StoreError> {
        if self.links { Ok(()) } else { self.files.refuse_links(dir).map_err(self.error("use", dir)) }
    }

    /// Whether a file is the same one as that of another directory, so that who removes one has none.
    pub fn is_same_file(&self, path: &str, other: &Self, there: &str) -> Result<bool, StoreError> {
        let identity = |area: &Self, path: &str| area.files.identity(path).map_err(area.error("stat", path));
        let ours = identity(self, path)?;
        Ok(ours.is_some() && ours == identity(other, there)?)
    }

    /// Makes directories.
    pub fn prepare(&self, dirs: &[&str]) -> Result<(), StoreError> {
        for dir in dirs {
            self.files.make_dir(dir).map_err(self.error("make directory", dir))?;
        }
        self.files.sync_dir("").map_err(self.error("sync", ""))
    }

    /// Writes a file durably, in the place of one of this name.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let parent = parent_of(path);
        let temp = format!("{TEMP_DIR}/{}", to_hex(&ObjectId::random().0));
        self.look_at(TEMP_DIR)?;
        self.look_at(parent)?;
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

    /// Makes sure that an object outlives a crash which is there and which this process did not put: whoever did may have been cut off,
    /// or failed, before its name was durable.
    pub fn make_durable(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = name.as_str();
        self.look_at(parent_of(path))?;
        self.files.sync_file(path).map_err(self.error("sync", path))?;
        let mut dir = path;
        while !dir.is_empty() {
            dir = parent_of(dir);
            self.files.sync_dir(dir).map_err(self.error("sync", dir))?;
        }
        Ok(())
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

    /// Fills `out` from `offset` of an object.
    pub fn read_into(&self, name: &ObjectName, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.files.read_exact_at(name.as_str(), offset, out).map_err(self.error("read", name.as_str()))
    }

    /// A whole object; `None` if there is none.
    pub fn read_all(&self, name: &ObjectName) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(len) = self.len(name)? else { return Ok(None) };
        let mut out = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.read_into(name, 0, &mut out).map(|()| Some(out))
    }

    /// Length of an object; `None` if there is none.
    pub fn len(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.files.len(name.as_str()).map_err(self.error("stat", name.as_str()))
    }

    /// All objects whose names begin with the directory `prefix` (without a trailing `/`), ascending.
    pub fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut found = Vec::new();
        self.look_at(prefix)?;
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

    /// Gives an object another name, durably. After a crash it has one of the two. `false` if there is none.
    pub fn move_to(&self, from: &ObjectName, to: &ObjectName) -> Result<bool, StoreError> {
        let (old, new) = (from.as_str(), to.as_str());
        if self.len(from)?.is_none() {
            return Ok(false);
        }
        self.look_at(parent_of(old))?;
        self.look_at(parent_of(new))?;
        self.ensure_dir(parent_of(new))?;
        self.files.rename(old, new).map_err(self.error("rename", old))?;
        for dir in [parent_of(new), parent_of(old)] {
            self.files.sync_dir(dir).map_err(self.error("sync", dir))?;
        }
        Ok(true)
    }

    /// Removes a file, durably; `false` if there was none.
    pub fn remove(&self, path: &str) -> Result<bool, StoreError> {
        self.look_at(parent_of(path))?;
        match self.files.remove(path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(self.error("remove", path)(e)),
        }
        self.files.sync_dir(parent_of(path)).map_err(self.error("sync", path))?;
        Ok(true)
    }

    /// Removes what a crashed writer left, and nothing that is not named like that.
    pub fn clear_temp(&self) -> Result<usize, StoreError> {
        self.look_at(TEMP_DIR)?;
        let mut left = self.files.list(TEMP_DIR).map_err(self.error("list", TEMP_DIR))?;
        left.retain(|entry| entry.len.is_some() && is_temp(&entry.name));
        for entry in &left {
            let path = format!("{TEMP_DIR}/{}", entry.name);
            self.files.remove(&path).map_err(self.error("remove", &path))?;
        }
        Ok(left.len())
    }

    /// Removes a directory with those in it, as far as there is nothing else in them.
    pub fn remove_empty_dirs(&self, dir: &str) {
        for entry in self.files.list(dir).unwrap_or_default().iter().filter(|entry| entry.len.is_none()) {
            self.remove_empty_dirs(&format!("{dir}/{}", entry.name));
        }
        // What is not ours stays, and the directory around it.
        let _ = self.files.remove_dir(dir);
    }

    /// Room on its disk; none on one that does not say.
    pub fn room(&self) -> Room {
        self.files.room().unwrap_or(Room { free: 0, total: 0, disk: 0, refuses: None })
    }

    fn error(&self, action: &'static str, path: &str) -> impl FnOnce(std::io::Error) -> StoreError + use<> {
        let path = self.files.describe(path);
        move |source| StoreError::Io { action, path, source }
    }
}

/// Whether temporary files have such names.
pub(crate) fn is_temp(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(super) fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
