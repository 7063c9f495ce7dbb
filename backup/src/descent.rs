//! Going down a directory tree by file descriptors, so that paths may be longer than `PATH_MAX` and a symbolic
//! link that is swapped in never leads outside.
//!
//! Every step opens one name relative to an open directory with `O_NOFOLLOW`. Only the nearest directories stay
//! open, for a tree may be deeper than a process may have files. On the way back up, a directory that was closed
//! is opened again as `..` of its child and must have the device and inode number that it had: a directory that
//! was moved elsewhere meanwhile is noticed, and nothing is read or written at the wrong place.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

/// Directories that stay open at most; the nearest ones. A tree is rarely deeper; 1,024 is the usual limit of a process.
pub(crate) const OPEN_DIRECTORIES_MAX: usize = 128;

/// Which directory this is, while it exists.
/// Device and inode number of a directory.
pub type DirectoryId = (u64, u64);

/// Opens the directory `name` in `parent`, never through a symbolic link.
pub(crate) fn open_directory(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::openat(&parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner and root may leave the access time alone.
        Err(rustix::io::Errno::PERM) => Ok(rustix::fs::openat(&parent, name, flags, Mode::empty())?),
        other => Ok(other?),
    }
}

/// Device and inode number of an open directory.
pub(crate) fn directory_id(directory: impl AsFd) -> io::Result<DirectoryId> {
    let stat = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
    Ok((rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino))
}

/// Whether a directory, or one above it, is one of which `is_it` says so.
pub(crate) fn lies_in(directory: &OwnedFd, is_it: impl Fn(DirectoryId) -> bool) -> io::Result<bool> {
    let mut at = directory.try_clone()?;
    let mut id = directory_id(&at)?;
    while !is_it(id) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, c"..", flags, Mode::empty())?;
        let above = directory_id(&at)?;
        if above == id {
            return Ok(false);
        }
        id = above;
    }
    Ok(true)
}

/// The path by which calls without an fd form reach an open descriptor.
pub(crate) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

#[derive(Debug)]
struct Level {
    open: Option<Arc<OwnedFd>>,
    id: DirectoryId,
}

/// The chain of directories from the root to where one is.
#[derive(Debug)]
pub(crate) struct Descent {
    levels: Vec<Level>,
    open_max: usize,
}

impl Descent {
    /// Stands in `root`.
    pub(crate) fn new(root: OwnedFd, open_max: usize) -> io::Result<Self> {
        let id = directory_id(&root)?;
        Ok(Self { levels: vec![Level { open: Some(Arc::new(root)), id }], open_max: open_max.max(2) })
    }

    /// Where one stands; `None` after the way back was lost or the root was left.
    pub(crate) fn current(&self) -> Option<&Arc<OwnedFd>> {
        self.levels.last()?.open.as_ref()
    }

    /// Goes down into `directory`, an open child of the current one that is known as `id`.
    pub(crate) fn enter(&mut self, directory: OwnedFd, id: DirectoryId) {
        self.levels.push(Level { open: Some(Arc::new(directory)), id });
        if let Some(far) = self.levels.len().checked_sub(self.open_max + 1)
            && let Some(level) = self.levels.get_mut(far)
            && far > 0
        {
            level.open = None;
        }
    }

    /// Goes back up. When the directory above is no longer where it was, its level stays without a
    /// descriptor, and so do those above it until one that is still open: the error says so, once per level.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        let Some(left) = self.levels.pop() else { return Ok(()) };
        let Some(above) = self.levels.last_mut() else { return Ok(()) };
        if above.open.is_some() {
            return Ok(());
        }
        let lost = || io::Error::new(io::ErrorKind::NotFound, "directory was moved elsewhere meanwhile");
        let below = left.open.ok_or_else(lost)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&*below, c"..", flags, Mode::empty())?;
        if directory_id(&opened)? != above.id {
            return Err(lost());
        }
        above.open = Some(Arc::new(opened));
        Ok(())
    }

    /// Steps below the root.
    #[cfg(test)]
    fn depth(&self) -> usize {
        self.levels.len() - 1
    }
}

/// Where a directory lies, as a chain that its entries share: a path costs memory only when somebody asks for it.
#[derive(Debug, Default)]
pub struct Place {
    parent: Option<Arc<Place>>,
    name: Vec<u8>,
}

impl Place {
    /// The root.
    pub fn root() -> Arc<Self> {
        Arc::default()
    }

    /// The directory `name` in `parent`.
    pub fn below(parent: &Arc<Self>, name: &[u8]) -> Arc<Self> {
        Arc::new(Self { parent: Some(Arc::clone(parent)), name: name.to_vec() })
    }

    /// Names from the root downward; none for the root.
    pub fn components(&self) -> Vec<&[u8]> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(at.name.as_slice());
            at = parent;
        }
        names.reverse();
        names
    }

    /// Path of `name` in this directory, relative to the root.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        let mut components = self.components();
        if !name.is_empty() {
            components.push(name);
        }
        components.join(&b'/')
    }

    /// Path of this directory relative to the root, empty for the root.
    pub fn path(&self) -> Vec<u8> {
        self.join(b"")
    }
}

impl Drop for Place {
    /// One by one, for a chain of a hundred thousand directories would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut place) = next.and_then(Arc::into_inner) {
            next = place.parent.take();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn root(path: &std::path::Path) -> OwnedFd {
        open_directory(rustix::fs::CWD, path.as_os_str().as_encoded_bytes()).unwrap()
    }

    fn down(descent: &mut Descent, name: &[u8]) {
        let child = open_directory(descent.current().unwrap(), name).unwrap();
        let id = directory_id(&child).unwrap();
        descent.enter(child, id);
    }

    #[test]
    fn a_deep_tree_is_left_through_directories_that_were_closed_on_the_way_down() {
        let dir = tempfile::tempdir().unwrap();
        let mut descent = Descent::new(root(dir.path()), 4).unwrap();
        for _ in 0..50 {
            rustix::fs::mkdirat(descent.current().unwrap(), c"d", Mode::RWXU).unwrap();
            down(&mut descent, b"d");
        }
        assert!(descent.levels.iter().filter(|level| level.open.is_some()).count() <= 5);
        for depth in (0..50).rev() {
            descent.leave().unwrap();
            assert_eq!(descent.depth(), depth);
            let here = descent.current().unwrap();
            assert!(rustix::fs::statx(here, c"d", AtFlags::empty(), StatxFlags::INO).is_ok());
        }
    }

    #[test]
    fn a_directory_moved_away_meanwhile_is_not_taken_for_its_old_place() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b/c/d")).unwrap();
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        let mut descent = Descent::new(root(dir.path()), 2).unwrap();
        for name in [b"a", b"b", b"c", b"d"] {
            down(&mut descent, name);
        }
        std::fs::rename(dir.path().join("a/b/c"), dir.path().join("elsewhere/c")).unwrap();
        descent.leave().unwrap();
        assert!(descent.leave().is_err());
        assert!(descent.current().is_none());
        assert!(descent.leave().is_err());
        descent.leave().unwrap();
        assert!(descent.current().is_some());
    }

    #[test]
    fn a_symbolic_link_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        assert!(open_directory(root(dir.path()), b"link").is_err());
    }

    #[test]
    fn a_chain_of_a_million_places_is_dropped_without_recursion() {
        let mut place = Place::root();
        for _ in 0..1_000_000 {
            place = Place::below(&place, b"d");
        }
        drop(place);
        let place = Place::below(&Place::below(&Place::root(), b"a"), b"b");
        assert_eq!((place.path(), place.join(b"c")), (b"a/b".to_vec(), b"a/b/c".to_vec()));
    }
}
