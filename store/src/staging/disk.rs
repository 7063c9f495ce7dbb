//! Real files below a directory, with a few kept open for reading.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::files::{FileEntry, Files, Identity, Room};

/// Files kept open: opening costs about as much as reading a frame. Of what a process may have open they take a quarter at most, for
/// the catalog, connections and whoever reads at the moment need some, too.
const OPEN_FILES: usize = 64;

fn open_files(limit: u64) -> NonZeroUsize {
    let quarter = usize::try_from(limit / 4).unwrap_or(usize::MAX);
    NonZeroUsize::new(quarter.min(OPEN_FILES)).unwrap_or(NonZeroUsize::MIN)
}

/// Files below a directory of a local file system.
#[derive(Debug)]
pub struct DiskFiles {
    root: PathBuf,
    open: Mutex<Opened>,
}

/// Files that are kept open.
#[derive(Debug)]
struct Opened {
    files: LruCache<String, Arc<File>>,
    /// How often a name ceased to mean what it did: what was opened before is not kept after.
    forgotten: u64,
}

impl DiskFiles {
    /// Files below `root`.
    pub fn new(root: &Path) -> Self {
        Self::one_of(root, 1)
    }

    /// The same for one of so many roots, which together keep as many files open as one would.
    pub fn one_of(root: &Path, roots: usize) -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let share = NonZeroUsize::new(open_files(limit).get() / roots.max(1)).unwrap_or(NonZeroUsize::MIN);
        let files = LruCache::new(share);
        Self { root: root.to_path_buf(), open: Mutex::new(Opened { files, forgotten: 0 }) }
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// The file, opened outside the lock: a disk that hesitates holds up nobody who reads another file.
    fn opened(&self, path: &str) -> io::Result<Arc<File>> {
        let forgotten = {
            let mut kept = self.kept();
            if let Some(file) = kept.files.get(path) {
                return Ok(file.clone());
            }
            kept.forgotten
        };
        let file = Arc::new(open_regular(&self.path(path))?);
        let mut kept = self.kept();
        if kept.forgotten == forgotten {
            kept.files.put(path.to_owned(), file.clone());
        }
        Ok(file)
    }

    fn kept(&self) -> MutexGuard<'_, Opened> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, path: &str) {
        let mut kept = self.kept();
        kept.files.pop(path);
        kept.forgotten += 1;
    }
}

/// Opens a file for reading and nothing else: who opens a FIFO would wait for its writer, a link could lead anywhere.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, "it is not a file"))
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

    fn sync_file(&self, path: &str) -> io::Result<()> {
        open_regular(&self.path(path))?.sync_all()
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

    fn read_small(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match open_regular(&self.path(path)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn let_go(&self, path: &str, bytes: Range<u64>) {
        if let (Ok(file), Ok(start), Ok(len)) =
            (self.opened(path), i64::try_from(bytes.start), i64::try_from(bytes.end - bytes.start))
        {
            // Advice: what comes of it changes no byte.
            let _ = posix_fadvise(&*file, start, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    fn close_replaced(&self) {
        let open: Vec<_> =
            self.kept().files.iter().map(|(path, file)| (path.clone(), file.clone())).collect();
        for (path, file) in open {
            let there = fs::symlink_metadata(self.path(&path));
            let is_other = match (file.metadata(), &there) {
                (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) != (there.dev(), there.ino()),
                (_, Err(e)) => e.kind() == ErrorKind::NotFound,
                (Err(_), _) => false,
            };
            if is_other {
                self.forget(&path);
            }
        }
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

    fn refuse_links(&self, dir: &str) -> io::Result<()> {
        let mut path = self.root.clone();
        for part in dir.split('/').filter(|part| !part.is_empty()) {
            path.push(part);
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => {
                    return Err(io::Error::new(ErrorKind::NotADirectory, "it is a link, or no directory"));
                }
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn identity(&self, path: &str) -> io::Result<Option<Identity>> {
        match fs::metadata(self.path(path)) {
            Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.forget(path);
        fs::remove_file(self.path(path))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        fs::remove_dir(self.path(dir))
    }

    fn room(&self) -> io::Result<Room> {
        let (disk, of) = (statvfs(&self.root)?, fs::metadata(&self.root)?);
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        let refuses = access(&self.root, AccessFlags::W_OK).err().map(|errno| io::Error::from(errno).kind());
        Ok(Room {
            free: bytes(disk.blocks_available()),
            total: bytes(disk.blocks()),
            disk: of.dev(),
            refuses,
        })
    }

    fn describe(&self, path: &str) -> PathBuf {
        self.path(path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_others_removed_or_replaced_is_closed_and_what_is_there_stays_open() {
        let dir = tempfile::tempdir().unwrap();
        let files = DiskFiles::new(dir.path());
        for name in ["stays", "goes", "other"] {
            files.write_synced(name, b"bytes").unwrap();
            files.read_exact_at(name, 0, &mut [0; 5]).unwrap();
        }
        fs::remove_file(dir.path().join("goes")).unwrap();
        files.write_synced("right", b"right").unwrap();
        fs::rename(dir.path().join("right"), dir.path().join("other")).unwrap();
        files.close_replaced();
        let kept: Vec<_> = files.kept().files.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(kept, ["stays"]);
        assert!(files.read_exact_at("goes", 0, &mut [0; 5]).is_err());
        let mut bytes = [0; 5];
        files.read_exact_at("other", 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"right");
    }

    #[test]
    fn files_kept_open_leave_most_of_what_may_be_open_to_others() {
        for (limit, kept) in [(u64::MAX, 64), (1024, 64), (256, 64), (64, 16), (4, 1), (0, 1)] {
            assert_eq!(open_files(limit).get(), kept, "of {limit}");
        }
    }
}
