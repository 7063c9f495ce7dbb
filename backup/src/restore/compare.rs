//! Whether what is in the target is what the point has, as far as that shows without reading contents.
//!
//! A regular file counts as the same content if its kind, size and modification time are those of the point: a restore sets
//! the time of a file last, when all its bytes are written, so a half one never has it. Attributes are compared one by one.

use std::os::fd::{AsFd, OwnedFd};

use holdfast_store::clock::Timestamp;
use holdfast_store::tree::{KEPT_FLAGS, Node, NodeKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::attributes::{ACL_ACCESS, ACL_DEFAULT};
use super::links::has_names;
use crate::descent::{DirectoryId, proc_path};

/// Flags that `statx` shows as well: compressed, immutable, append-only, no dump.
const FLAGS_IN_STATX: u64 = 0x04 | 0x10 | 0x20 | 0x40;
/// Lists of names and values above this are refused by the kernel.
const XATTR_MAX: usize = 64 << 10;

/// How far something is what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It is something else.
    Different,
    /// The content is right, and something around it is not.
    Content,
    /// All of it is right.
    Same,
}

/// What has a name in the target.
#[derive(Debug, Clone, Copy)]
pub(super) struct There {
    pub(super) id: DirectoryId,
    pub(super) mtime: Timestamp,
    pub(super) likeness: Likeness,
}

/// Looks at what has a name; `None` if nothing has. Without privileges, what only root can set is not compared.
pub(super) fn look(
    directory: &OwnedFd,
    name: &[u8],
    node: &Node,
    privileged: bool,
) -> rustix::io::Result<Option<There>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = match rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let compared = Compared { node, stat: &stat, privileged };
    let open = || open_for_flags(directory, name);
    let path = [proc_path(directory).as_bytes(), b"/", name].concat();
    let likeness = if !compared.content(directory, name) {
        Likeness::Different
    } else if compared.attributes(&path, open).is_none() {
        Likeness::Same
    } else {
        Likeness::Content
    };
    let id = (rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino);
    Ok(Some(There { id, mtime: mtime(&stat), likeness }))
}

/// Which attribute of an open directory is not that of the node.
pub(super) fn directory_difference(
    directory: &OwnedFd,
    node: &Node,
    privileged: bool,
) -> Option<&'static str> {
    let path = [proc_path(directory).as_bytes(), b"/."].concat();
    match rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS) {
        Ok(stat) => {
            Compared { node, stat: &stat, privileged }.attributes(&path, || rustix::io::dup(directory))
        }
        Err(_) => Some("state"),
    }
}

/// What of an entry is not that of the node, but for the bytes of a file: nothing, or kind and length or an attribute. The
/// outer `None`: there is no such entry.
pub(super) fn look_closely(
    directory: &OwnedFd,
    name: &[u8],
    node: &Node,
    privileged: bool,
) -> rustix::io::Result<Option<Option<&'static str>>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = match rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let compared = Compared { node, stat: &stat, privileged };
    if FileType::from_raw_mode(stat.stx_mode.into()) != file_type(node.kind) {
        return Ok(Some(Some("kind")));
    }
    if node.kind == NodeKind::File && stat.stx_size != node.size {
        return Ok(Some(Some("length")));
    }
    if node.kind != NodeKind::File && !compared.content(directory, name) {
        return Ok(Some(Some("content")));
    }
    let path = [proc_path(directory).as_bytes(), b"/", name].concat();
    Ok(Some(compared.attributes(&path, || open_for_flags(directory, name))))
}

fn open_for_flags(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

fn mtime(stat: &Statx) -> Timestamp {
    Timestamp { seconds: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec }
}

/// The type that the file system has for a kind of node.
pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::Fifo,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharacterDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

struct Compared<'a> {
    node: &'a Node,
    stat: &'a Statx,
    privileged: bool,
}

impl Compared<'_> {
    fn content(&self, directory: &OwnedFd, name: &[u8]) -> bool {
        let (node, stat) = (self.node, self.stat);
        // A name that shares its file with others that the point does not know of would change them, too.
        let alone = stat.stx_nlink == 1 || has_names(node);
        alone
            && FileType::from_raw_mode(stat.stx_mode.into()) == file_type(node.kind)
            && match node.kind {
                NodeKind::File => stat.stx_size == node.size && mtime(stat) == node.mtime,
                NodeKind::Symlink => rustix::fs::readlinkat(directory, name, Vec::new())
                    .is_ok_and(|target| Some(target.as_bytes()) == node.target.as_deref()),
                NodeKind::CharDevice | NodeKind::BlockDevice => {
                    Some((stat.stx_rdev_major, stat.stx_rdev_minor)) == node.device
                }
                NodeKind::Fifo | NodeKind::Socket => true,
                NodeKind::Directory => false,
            }
    }

    /// The first attribute that is not that of the node.
    fn attributes(
        &self,
        path: &[u8],
        open: impl FnOnce() -> rustix::io::Result<OwnedFd>,
    ) -> Option<&'static str> {
        let (node, stat) = (self.node, self.stat);
        let bits: u16 = if self.privileged { 0o7777 } else { 0o1777 };
        let owned = |is: u32, wanted: u32| !self.privileged || wanted == u32::MAX || is == wanted;
        if node.kind != NodeKind::Symlink && (stat.stx_mode ^ node.mode) & bits != 0 {
            return Some("mode");
        }
        if !owned(stat.stx_uid, node.uid) || !owned(stat.stx_gid, node.gid) {
            return Some("owner");
        }
        if mtime(stat) != node.mtime {
            return Some("modification time");
        }
        if !self.flags(open) {
            return Some("set of file flags");
        }
        (!self.xattrs(path)).then_some("set of extended attributes")
    }

    fn flags(&self, open: impl FnOnce() -> rustix::io::Result<OwnedFd>) -> bool {
        let wanted = self.node.flags & KEPT_FLAGS;
        let shown = self.stat.stx_attributes.bits() & FLAGS_IN_STATX;
        let has_flags = matches!(self.node.kind, NodeKind::File | NodeKind::Directory);
        if !has_flags || !self.privileged || (wanted == 0 && shown == 0) {
            return true;
        }
        open()
            .and_then(|fd| rustix::fs::ioctl_getflags(&fd))
            .is_ok_and(|flags| flags.bits() & KEPT_FLAGS == wanted)
    }

    fn xattrs(&self, path: &[u8]) -> bool {
        let mut buffer = vec![0; 1024];
        let names = match listed(path, &mut buffer) {
            Ok(names) => names,
            Err(_) => return self.node.xattrs.is_empty(),
        };
        let known = |name: &[u8]| self.node.xattrs.iter().any(|xattr| xattr.name == name);
        let strange = names.split(|&byte| byte == 0).any(|name| is_ours_to_remove(name) && !known(name));
        let rooted = |name: &[u8]| name.starts_with(b"trusted.") || name.starts_with(b"security.");
        !strange
            && self.node.xattrs.iter().filter(|xattr| self.privileged || !rooted(&xattr.name)).all(|xattr| {
                let mut value = vec![0; xattr.value.len() + 1];
                rustix::fs::lgetxattr(path, xattr.name.as_slice(), value.as_mut_slice())
                    .is_ok_and(|len| value.get(..len) == Some(xattr.value.as_slice()))
            })
    }
}

/// Whether an extended attribute that the point does not have makes a difference. Labels come from the system's policy.
pub(super) fn is_ours_to_remove(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == ACL_ACCESS || name == ACL_DEFAULT
}

/// Names of the extended attributes of `path`, each ended by a zero.
fn listed<'a>(path: &[u8], buffer: &'a mut Vec<u8>) -> rustix::io::Result<&'a [u8]> {
    let len = match rustix::fs::llistxattr(path, buffer.as_mut_slice()) {
        Err(Errno::RANGE) => {
            buffer.resize(XATTR_MAX, 0);
            rustix::fs::llistxattr(path, buffer.as_mut_slice())?
        }
        other => other?,
    };
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Names of the extended attributes of something open, of which those that the point does not have may have to go.
pub(super) fn xattr_names(fd: impl AsFd) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; XATTR_MAX];
    let len = rustix::fs::flistxattr(fd, buffer.as_mut_slice()).unwrap_or(0);
    let names = buffer.get(..len).unwrap_or_default().split(|&byte| byte == 0);
    names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Whether two files have the same bytes, holes read as zeros.
pub(super) fn same_bytes(one: &OwnedFd, other: &OwnedFd) -> rustix::io::Result<bool> {
    let size = rustix::fs::fstat(one)?.st_size;
    if rustix::fs::fstat(other)?.st_size != size {
        return Ok(false);
    }
    let size = size.cast_unsigned();
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while let Some(next) = next_data(one, at)?.into_iter().chain(next_data(other, at)?).min() {
        let len = (size - next).min(a.len() as u64) as usize;
        let (a, b) = (a.get_mut(..len).unwrap_or_default(), b.get_mut(..len).unwrap_or_default());
        read_exact(one, next, a)?;
        read_exact(other, next, b)?;
        if a != b {
            return Ok(false);
        }
        at = next + len as u64;
    }
    Ok(true)
}

/// Where the next bytes that are not a hole begin, from `at` on.
pub(super) fn next_data(file: &OwnedFd, at: u64) -> rustix::io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(next) => Ok(Some(next)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads all of `into` from `offset`; an error if the file ends before.
pub(super) fn read_exact(file: &OwnedFd, offset: u64, into: &mut [u8]) -> rustix::io::Result<()> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, offset + done as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(len) => done += len,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
