//! Real files below a directory, with a few kept open for reading.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::files::{FileEntry, Files};

/// Files kept open: opening costs about as much as reading a frame.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Files below a directory of a local file system.
#[derive(Debug)]
pub struct DiskFiles {
    root: PathBuf,
    open: Mutex<LruCache<String, Arc<File>>>,
}

impl DiskFiles {
    /// Files below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), open: Mutex::new(LruCache::new(OPEN_FILES)) }
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    fn opened(&self, path: &str) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(path) {
            return Ok(file.clone());
        }
        let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        let file = Arc::new(OpenOptions::new().read(true).custom_flags(flags).open(self.path(path))?);
        open.put(path.to_owned(), file.clone());
        Ok(file)
    }

    fn forget(&self, path: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).pop(path);
    }
}

impl Files for DiskFiles {
    fn write_synced(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(path))?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let done = fs::rename(self.path(from), self.path(to));
        // Neither name means the file that was opened under it before.
        self.forget(from);
        self.forget(to);
        done
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }

    fn make_dir(&self, dir: &str) -> io::Result<bool> {
        let path = self.path(dir);
        if path.is_dir() {
            return Ok(false);
        }
        fs::create_dir_all(path)?;
        Ok(true)
    }

    fn read_exact_at(&self, path: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.opened(path)?.read_exact_at(out, offset)
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        match fs::symlink_metadata(self.path(path)) {
            Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<FileEntry>> {
        let entries = match fs::read_dir(self.path(dir)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if let Ok(name) = entry.file_name().into_string() {
                found.push(FileEntry { name, len: (!meta.is_dir()).then_some(meta.len()) });
            }
        }
        Ok(found)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.forget(path);
        fs::remove_file(self.path(path))
    }

    fn describe(&self, path: &str) -> PathBuf {
        self.path(path)
    }
}
