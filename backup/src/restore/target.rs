//! Makes entries in an open target directory, and decides about what is in the way.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_store::clock::Timestamp;
use holdfast_store::tree::{Node, NodeKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::Overwrite;
use crate::descent::{DirectoryId, Place, open_directory};
use crate::error::TargetError;

/// Longest name that a directory holds.
const NAME_MAX: usize = 255;
/// Names tried for keeping both.
const KEEP_BOTH_MAX: u32 = 1_000;

/// A directory of the target.
#[derive(Clone, Copy)]
pub(super) struct TargetDir<'a> {
    pub(super) fd: &'a OwnedFd,
    pub(super) place: &'a Place,
    pub(super) overwrite: Overwrite,
}

/// Something that was made, under the name it got.
#[derive(Debug)]
pub(super) struct Made<T> {
    pub(super) name: Vec<u8>,
    pub(super) what: T,
}

/// A file that was made.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) fd: OwnedFd,
    /// The name it has until it is whole, if its own is taken.
    pub(super) temporary: Option<Vec<u8>>,
}

/// `None`: what was in the way stays, as the policy says.
pub(super) type MadeOrSkipped<T> = Result<Option<Made<T>>, TargetError>;

/// Whether a name can be given to an entry without leading anywhere else.
pub(super) fn is_valid_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_MAX
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

impl TargetDir<'_> {
    fn failed<E: Into<std::io::Error>>(
        &self,
        action: &'static str,
        name: &[u8],
    ) -> impl FnOnce(E) -> TargetError {
        TargetError::io(action, self.place.join(name))
    }

    /// A new, empty file for its owner alone. One that is to replace something lies under a temporary name until its
    /// content is known to be whole.
    pub(super) fn file(&self, node: &Node) -> MadeOrSkipped<NewFile> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |name: &[u8]| rustix::fs::openat(self.fd, name, flags, Mode::RUSR | Mode::WUSR);
        if !self.replaces() || !self.holds_no_directory(&node.name) {
            let made = self.make(node, open)?;
            return Ok(
                made.map(|Made { name, what: fd }| Made { name, what: NewFile { fd, temporary: None } })
            );
        }
        if self.overwrite == Overwrite::IfNewer && self.is_as_new(node)? {
            return Ok(None);
        }
        let (temporary, fd) = make_temporary(open).map_err(self.failed("create", &node.name))?;
        Ok(Some(Made { name: node.name.clone(), what: NewFile { fd, temporary: Some(temporary) } }))
    }

    /// Whether what is in the way may have to go.
    pub(super) fn replaces(&self) -> bool {
        matches!(self.overwrite, Overwrite::Always | Overwrite::IfNewer)
    }

    /// Whether something other than a directory has a name.
    pub(super) fn holds_no_directory(&self, name: &[u8]) -> bool {
        rustix::fs::statat(self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
    }

    /// A directory, open; new for its owner alone, or the one that is there (`false`).
    pub(super) fn directory(&self, node: &Node) -> MadeOrSkipped<(OwnedFd, bool)> {
        if let Ok(there) = open_directory(self.fd, &node.name) {
            return Ok(Some(Made { name: node.name.clone(), what: (there, false) }));
        }
        let made = self.make(node, |name| rustix::fs::mkdirat(self.fd, name, Mode::RWXU))?;
        let Some(Made { name, .. }) = made else { return Ok(None) };
        let open = open_directory(self.fd, &name).map_err(self.failed("open", &name))?;
        Ok(Some(Made { name, what: (open, true) }))
    }

    /// A symbolic link or special file, opened with `O_PATH`.
    pub(super) fn other(&self, node: &Node) -> MadeOrSkipped<OwnedFd> {
        let invalid =
            |detail: &str| TargetError::Invalid { path: self.place.join(&node.name), detail: detail.into() };
        let device = match node.device {
            Some((major, minor)) => rustix::fs::makedev(major, minor),
            None => 0,
        };
        let kind = match node.kind {
            NodeKind::Symlink => FileType::Symlink,
            NodeKind::Fifo => FileType::Fifo,
            NodeKind::Socket => FileType::Socket,
            NodeKind::CharDevice => FileType::CharacterDevice,
            NodeKind::BlockDevice => FileType::BlockDevice,
            NodeKind::File | NodeKind::Directory => return Err(invalid("it is no link and no special file")),
        };
        let made = if kind == FileType::Symlink {
            let target = node.target.as_deref().ok_or_else(|| invalid("the link has no target"))?;
            self.make(node, |name| rustix::fs::symlinkat(target, self.fd, name))?
        } else {
            self.make(node, |name| rustix::fs::mknodat(self.fd, name, kind, Mode::RUSR | Mode::WUSR, device))?
        };
        made.map(|Made { name, .. }| Ok(Made { what: self.handle(&name, Some(kind))?, name })).transpose()
    }

    /// A further name for the entry behind `first`, an `O_PATH` descriptor.
    pub(super) fn link(&self, node: &Node, first: &OwnedFd) -> MadeOrSkipped<()> {
        let from = crate::descent::proc_path(first);
        let follow = AtFlags::SYMLINK_FOLLOW;
        self.make(node, |name| rustix::fs::linkat(rustix::fs::CWD, &from, self.fd, name, follow))
    }

    /// Opens an entry with `O_PATH`, which reads nothing and blocks on nothing.
    pub(super) fn handle(&self, name: &[u8], kind: Option<FileType>) -> Result<OwnedFd, TargetError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(self.fd, name, flags, Mode::empty()).map_err(self.failed("open", name))?;
        let stat = rustix::fs::fstat(&fd).map_err(self.failed("stat", name))?;
        if kind.is_some_and(|kind| FileType::from_raw_mode(stat.st_mode) != kind) {
            let detail = "something of another kind has its name now".into();
            return Err(TargetError::Changed { path: self.place.join(name), detail });
        }
        Ok(fd)
    }

    /// Makes an entry; if one is in the way, as the policy says.
    fn make<T>(&self, node: &Node, make: impl Fn(&[u8]) -> rustix::io::Result<T>) -> MadeOrSkipped<T> {
        let name = node.name.as_slice();
        match make(name) {
            Ok(what) => return Ok(Some(Made { name: name.to_vec(), what })),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(self.failed("create", name)(error)),
        }
        match self.overwrite {
            Overwrite::Refuse => Err(TargetError::Exists { path: self.place.join(name) }),
            Overwrite::Never => Ok(None),
            Overwrite::IfNewer if self.is_as_new(node)? => Ok(None),
            Overwrite::Always | Overwrite::IfNewer => {
                self.clear(name)?;
                let what = make(name).map_err(self.failed("create", name))?;
                Ok(Some(Made { name: name.to_vec(), what }))
            }
            Overwrite::KeepBoth => self.make_beside(name, make),
        }
    }

    /// Whether what is there changed when `node` did, or later.
    fn is_as_new(&self, node: &Node) -> Result<bool, TargetError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statx(self.fd, node.name.as_slice(), flags, StatxFlags::MTIME);
        let mtime = stat.map_err(self.failed("stat", &node.name))?.stx_mtime;
        Ok(Timestamp { seconds: mtime.tv_sec, nanos: mtime.tv_nsec } >= node.mtime)
    }

    /// Removes what is in the way: anything but a directory with something in it.
    fn clear(&self, name: &[u8]) -> Result<(), TargetError> {
        match rustix::fs::unlinkat(self.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(self.fd, name, AtFlags::REMOVEDIR),
            other => other,
        }
        .map_err(self.failed("replace", name))
    }

    fn make_beside<T>(&self, name: &[u8], make: impl Fn(&[u8]) -> rustix::io::Result<T>) -> MadeOrSkipped<T> {
        for number in 1..=KEEP_BOTH_MAX {
            let end = if number == 1 { ".restored".to_owned() } else { format!(".restored-{number}") };
            let kept = name.len().min(NAME_MAX - end.len());
            let beside = [name.get(..kept).unwrap_or(name), end.as_bytes()].concat();
            match make(&beside) {
                Ok(what) => return Ok(Some(Made { name: beside, what })),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("create", &beside)(error)),
            }
        }
        Err(TargetError::Exists { path: self.place.join(name) })
    }
}

/// Makes something under a name that nothing has.
fn make_temporary<T>(make: impl Fn(&[u8]) -> rustix::io::Result<T>) -> rustix::io::Result<(Vec<u8>, T)> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    for _ in 0..KEEP_BOTH_MAX {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!(".holdfast-restore-{}-{number}", std::process::id()).into_bytes();
        match make(&name) {
            Ok(made) => return Ok((name, made)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}

/// The name that an incomplete file gets beside the one that stays.
pub(super) fn incomplete_name(name: &[u8]) -> Vec<u8> {
    let end = b".incomplete";
    let kept = name.len().min(NAME_MAX - end.len());
    [name.get(..kept).unwrap_or(name), end].concat()
}

/// Opens the directory at `place`, one name after the other from the target's root.
pub(super) fn open_place(root: &OwnedFd, place: &Place) -> std::io::Result<OwnedFd> {
    let mut at = root.try_clone()?;
    for name in place.components() {
        at = open_directory(&at, name)?;
    }
    Ok(at)
}

/// Device and inode number of anything that is open.
pub(super) fn identity(fd: impl AsFd) -> std::io::Result<DirectoryId> {
    crate::descent::directory_id(fd)
}
