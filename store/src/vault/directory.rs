//! A vault in a directory: local disk, NFS, a USB disk.
//!
//! How an object comes to be: its bytes go to a file in `.tmp/` of the same tree, are synced, and the file gets
//! its name by a hard link, which fails if the name is taken (`rename` would replace it). Then the directory is
//! synced, and so is each directory above it, once per process: whoever made it may have crashed before doing
//! so. Where a file system has no hard links (FAT, exFAT), `renameat2` with `RENAME_NOREPLACE` takes their place.
//!
//! Unfinished files hold a lock while they are written; `prepare` removes those that nobody holds.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::memory::check_range;
use super::{IsObject, ListPage, NoObject, ObjectName, PAGE_LEN, PutNew, Vault, VaultError};
use crate::pace::Pacer;

mod list;
mod paced;
#[cfg(test)]
mod tests;
mod unfinished;

use unfinished::Unfinished;

/// Where unfinished objects lie; no object name may begin with it.
const TMP: &str = ".tmp";

/// Objects as files below a directory.
#[derive(Debug)]
pub struct DirectoryVault {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    page_len: usize,
    /// Directories of which this process knows that they outlive a crash.
    durable: Mutex<HashSet<PathBuf>>,
}

impl DirectoryVault {
    /// The vault below `root`, which need not exist before `prepare`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::with_page_len(root, PAGE_LEN)
    }

    /// The same, listing at most `page_len` objects at a time (at least one).
    pub fn with_page_len(root: impl Into<PathBuf>, page_len: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                root: root.into(),
                page_len: page_len.max(1),
                durable: Mutex::default(),
            }),
        }
    }

    /// Does blocking work on a thread that may block. A caller that goes away leaves it to finish.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(e) => Err(VaultError::invalid(format!("file work broke off: {e}"))),
        }
    }
}

#[async_trait]
impl Vault for DirectoryVault {
    fn address(&self) -> String {
        self.inner.root.display().to_string()
    }

    async fn prepare(&self) -> Result<(), VaultError> {
        self.blocking(Inner::prepare).await
    }

    async fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<PutNew, VaultError> {
        let name = name.clone();
        self.blocking(move |inner| inner.put_new(&name, &body)).await
    }

    async fn put_paced(
        &self,
        name: &ObjectName,
        body: Bytes,
        pacer: &Arc<Pacer>,
    ) -> Result<PutNew, VaultError> {
        paced::put(self, name, body, pacer).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, VaultError> {
        let name = name.clone();
        self.blocking(move |inner| inner.get_range(&name, range)).await
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
        let name = name.clone();
        self.blocking(move |inner| inner.stat(&name)).await
    }

    async fn list(&self, prefix: &str, from: Option<&str>) -> Result<ListPage, VaultError> {
        let (prefix, from) = (prefix.to_owned(), from.map(str::to_owned));
        self.blocking(move |inner| list::page(&inner.root, inner.page_len, &prefix, from.as_deref())).await
    }

    async fn no_objects(&self, prefix: &str, is_object: IsObject) -> Result<Vec<NoObject>, VaultError> {
        let prefix = prefix.to_owned();
        self.blocking(move |inner| list::no_objects(&inner.root, &prefix, is_object)).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        let name = name.clone();
        self.blocking(move |inner| inner.delete(&name)).await
    }

    async fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<bool, VaultError> {
        let (name, bytes) = (name.clone(), bytes.clone());
        self.blocking(move |inner| inner.delete_exactly(&name, &bytes)).await
    }
}

impl Inner {
    fn prepare(&self) -> Result<(), VaultError> {
        let missing: Vec<_> =
            self.root.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
        fs::create_dir_all(&self.root).map_err(|e| failed("make", &self.root, e))?;
        for made in missing {
            sync_dir(parent(made))?;
        }
        let tmp = self.root.join(TMP);
        self.make_dir(&tmp)?;
        sweep(&tmp);
        Ok(())
    }

    fn put_new(&self, name: &ObjectName, body: &[u8]) -> Result<PutNew, VaultError> {
        match self.begin(name)? {
            Ok((unfinished, path)) => unfinished.add(body, false)?.finish(&path),
            Err(there) => Ok(there),
        }
    }

    /// A file for an object and the path that it is to have, or what is there already.
    fn begin(&self, name: &ObjectName) -> Result<Result<(Unfinished, PathBuf), PutNew>, VaultError> {
        let path = self.path(name)?;
        let dir = parent(&path);
        self.make_dirs_below_root(dir)?;
        if fs::symlink_metadata(&path).is_ok() {
            // Whoever put it may have crashed before syncing the directory; who hears "already there" relies on it.
            sync_dir(dir)?;
            return already_there(&path).map(Err);
        }
        let unfinished = Unfinished::create(&self.root.join(TMP)).or_else(|e| match e {
            // Somebody emptied the vault by hand, or it was prepared by another tool.
            VaultError::NotFound { .. } => {
                self.make_dir(&self.root.join(TMP))?;
                Unfinished::create(&self.root.join(TMP))
            }
            e => Err(e),
        })?;
        Ok(Ok((unfinished, path)))
    }

    fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, VaultError> {
        let path = self.path(name)?;
        let open = open_without_waiting(&path);
        let file = open.map_err(|e| self.missing(name, failed("open", &path, e)))?;
        let meta = file.metadata().map_err(|e| failed("read", &path, e))?;
        if !meta.is_file() {
            return Err(not_an_object(&path));
        }
        check_range(name, meta.len(), &range)?;
        let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(|_| too_large(name))?];
        match file.read_exact_at(&mut bytes, range.start) {
            Ok(()) => Ok(bytes.into()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(VaultError::WrongAnswer { detail: format!("{name} became shorter while it was read") })
            }
            Err(e) => Err(failed("read", &path, e)),
        }
    }

    fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
        let path = self.path(name)?;
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
            Ok(_) => Ok(None),
            Err(e) if is_no_object(&e) => self.check_root().map(|()| None),
            Err(e) => Err(failed("read", &path, e)),
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(parent(&path)).map(|()| true),
            Err(e) if is_no_object(&e) => self.check_root().map(|()| false),
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => Ok(false),
            Err(e) => Err(failed("delete", &path, e)),
        }
    }

    /// A file system removes names, whatever they name by then: the file that was compared is looked for under its name once more, and nothing but
    /// the time from there to the removal is left to who replaces it meanwhile.
    fn delete_exactly(&self, name: &ObjectName, bytes: &[u8]) -> Result<bool, VaultError> {
        let path = self.path(name)?;
        let read = |e| self.missing(name, failed("read", &path, e));
        let it_stays = |e| match e {
            VaultError::NotFound { .. } => Ok(false),
            e => Err(e),
        };
        let (file, compared) = match open_without_waiting(&path).and_then(|file| Ok((file.metadata()?, file)))
        {
            Ok((meta, file)) => (file, meta),
            Err(e) => return it_stays(read(e)),
        };
        if !compared.is_file() || compared.len() != bytes.len() as u64 {
            return Ok(false);
        }
        let mut there = vec![0; bytes.len()];
        match file.read_exact_at(&mut there, 0) {
            Ok(()) if there != bytes => return Ok(false),
            Ok(()) => {}
            Err(e) => return Err(failed("read", &path, e)),
        }
        match fs::symlink_metadata(&path) {
            Ok(now) if (now.dev(), now.ino()) == (compared.dev(), compared.ino()) => self.delete(name),
            Ok(_) => Ok(false),
            Err(e) => it_stays(read(e)),
        }
    }

    fn path(&self, name: &ObjectName) -> Result<PathBuf, VaultError> {
        if name.as_str().split('/').next() == Some(TMP) {
            return Err(VaultError::invalid(format!("{TMP} is no name for an object")));
        }
        Ok(self.root.join(name.as_str()))
    }

    /// Tells an object that is missing from a vault that is.
    fn missing(&self, name: &ObjectName, error: VaultError) -> VaultError {
        match error {
            VaultError::NotFound { .. } => {
                self.check_root().err().unwrap_or_else(|| VaultError::NotFound { what: name.to_string() })
            }
            error => error,
        }
    }

    fn check_root(&self) -> Result<(), VaultError> {
        let is_dir = fs::metadata(&self.root).map_err(|e| failed("open", &self.root, e))?.is_dir();
        if is_dir {
            Ok(())
        } else {
            Err(VaultError::invalid(format!("{} is not a directory", self.root.display())))
        }
    }

    /// Makes the directories between the root and `dir`. The root itself must be there: a disk that is not mounted must not be written around.
    fn make_dirs_below_root(&self, dir: &Path) -> Result<(), VaultError> {
        let below_root: Vec<_> = dir.ancestors().take_while(|d| *d != self.root).collect();
        below_root.into_iter().rev().try_for_each(|d| self.make_dir(d))
    }

    fn make_dir(&self, dir: &Path) -> Result<(), VaultError> {
        if self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(dir) && dir.is_dir() {
            return Ok(());
        }
        match fs::create_dir(dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(VaultError::invalid(format!(
                    "{} is a file where a directory should be",
                    dir.display()
                )));
            }
            Err(e) => return Err(failed("make", dir, e)),
        }
        sync_dir(parent(dir))?;
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_path_buf());
        Ok(())
    }
}

/// Removes unfinished files whose writers are gone. Failing to is no failure: they are only litter.
fn sweep(tmp: &Path) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let abandoned = open_without_waiting(&entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Opens what is there, also if it is a FIFO without a writer, and follows no link. Whoever reads asks what it is.
fn open_without_waiting(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(path)
}

fn already_there(path: &Path) -> Result<PutNew, VaultError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => Err(not_an_object(path)),
        Ok(_) => Ok(PutNew::AlreadyThere),
        Err(e) => Err(VaultError::unavailable(format!("{} came and went: {e}", path.display()))),
    }
}

fn sync_dir(dir: &Path) -> Result<(), VaultError> {
    let synced = File::open(dir).and_then(|file| file.sync_all());
    match synced {
        // Some file systems in user space cannot sync a directory, and say so; they have nothing to lose by it.
        Err(e) if matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::EINVAL | Errno::ENOSYS)) => {
            Ok(())
        }
        synced => synced.map_err(|e| failed("sync", dir, e)),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => path,
    }
}

/// A file system without hard links says so in one of these ways (`man 2 link`).
fn lacks_hard_links(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error().map(Errno::from_raw),
        Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK)
    )
}

fn is_no_object(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn not_an_object(path: &Path) -> VaultError {
    VaultError::invalid(format!("{} is not a file", path.display()))
}

fn too_large(name: &ObjectName) -> VaultError {
    VaultError::invalid(format!("the range of {name} does not fit in memory"))
}

/// What an error of the file system means to someone who writes or reads objects.
pub(super) fn failed(action: &str, path: &Path, e: io::Error) -> VaultError {
    use io::ErrorKind as K;
    let detail = format!("cannot {action} {}: {e}", path.display());
    match e.kind() {
        K::NotFound => VaultError::NotFound { what: path.display().to_string() },
        K::PermissionDenied | K::ReadOnlyFilesystem => VaultError::Denied { detail },
        K::StorageFull | K::QuotaExceeded => VaultError::Full { detail },
        K::NotADirectory => {
            VaultError::invalid(format!("{detail} (a file lies where a directory should be)"))
        }
        K::IsADirectory | K::InvalidFilename | K::FileTooLarge | K::CrossesDevices | K::InvalidInput => {
            VaultError::invalid(detail)
        }
        _ => match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => VaultError::invalid(format!("{detail} (a symbolic link is no object)")),
            _ => VaultError::unavailable(detail),
        },
    }
}
