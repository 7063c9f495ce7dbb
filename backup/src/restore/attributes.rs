//! Gives a restored entry its owner, extended attributes, times, mode and flags, in the order in which each survives the next.

use std::os::fd::{AsFd, BorrowedFd};

use holdfast_store::tree::{KEPT_FLAGS, Node, NodeKind};
use rustix::fs::{AtFlags, CWD, Gid, IFlags, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::compare::{is_ours_to_remove, xattr_names};
use super::report::Report;
use crate::descent::proc_path;
use crate::error::TargetError;

/// Append-only and immutable: nothing can be changed or linked after them.
pub(super) const LOCKING_FLAGS: u32 = 0x10 | 0x20;
/// Flags that only take effect on something empty: compression, no copy-on-write, casefold.
const EARLY_FLAGS: u32 = 0x04 | 0x80_0000 | 0x4000_0000;

pub(super) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

const NOT_ROOT: &str = "this process is not root";
const NOT_SUPPORTED: &str = "the target's file system does not support them";

/// The entry that gets attributes.
#[derive(Clone, Copy)]
pub(super) enum Handle<'a> {
    /// A file or directory, open for reading or writing.
    Open(BorrowedFd<'a>),
    /// A link or special file, opened with `O_PATH`.
    Path(BorrowedFd<'a>),
}

/// One entry on its way to its attributes.
pub(super) struct Dressing<'a> {
    pub(super) to: Handle<'a>,
    pub(super) node: &'a Node,
    /// Whether ACLs and flags may have come from the directory or from an earlier life, and must go if the node has none.
    pub(super) exact: bool,
    /// Whether what users set as extended attributes must go if the node does not have it.
    pub(super) strip: bool,
    /// Whether the modification time is that of the node; not for a file whose content is not.
    pub(super) times: bool,
    /// Flags that somebody else sets later.
    pub(super) flags_later: u32,
    /// Where it is, for messages.
    pub(super) path: &'a dyn Fn() -> Vec<u8>,
    pub(super) report: &'a Report<'a>,
}

impl Dressing<'_> {
    /// Applies everything; what cannot be applied is reported, the rest still is.
    pub(super) fn apply(&self) {
        let owned = self.owner();
        self.xattrs();
        if self.times {
            self.times();
        }
        // Last, for a directory that does not have its mode yet is known as one that is not done.
        if self.node.kind != NodeKind::Symlink {
            self.mode(owned);
        }
        if let Handle::Open(fd) = self.to {
            self.flags(fd);
        }
    }

    fn failed(&self, action: &'static str, error: Errno) {
        self.report.target(TargetError::io(action, (self.path)())(error));
    }

    /// Whether this is a lack of rights that everything of its class will meet.
    fn unprivileged(&self, error: Errno) -> bool {
        !self.report.privileged && matches!(error, Errno::PERM | Errno::ACCESS)
    }

    /// Returns whether owner and group are those of the node.
    fn owner(&self) -> bool {
        let (uid, gid) = (self.node.uid, self.node.gid);
        // The number that stands for "leave as it is" cannot be an owner.
        let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
        let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
        match self.chown(uid, gid) {
            Ok(()) => true,
            Err(error) if self.unprivileged(error) => {
                self.report.refused("owners", NOT_ROOT);
                // Its group may still be one of ours; if not, that was said.
                let _ = self.chown(None, gid);
                false
            }
            Err(error) => {
                self.failed("set owner of", error);
                false
            }
        }
    }

    fn chown(&self, uid: Option<Uid>, gid: Option<Gid>) -> rustix::io::Result<()> {
        match self.to {
            Handle::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            Handle::Path(fd) => rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn xattrs(&self) {
        for xattr in &self.node.xattrs {
            let set = match self.to {
                Handle::Open(fd) => {
                    rustix::fs::fsetxattr(fd, &xattr.name[..], &xattr.value, XattrFlags::empty())
                }
                Handle::Path(fd) => {
                    rustix::fs::setxattr(proc_path(fd), &xattr.name[..], &xattr.value, XattrFlags::empty())
                }
            };
            if let Err(error) = set {
                self.xattr_refused(&xattr.name, error);
            }
        }
        let known = |name: &[u8]| self.node.xattrs.iter().any(|xattr| xattr.name == name);
        if let (true, Handle::Open(fd)) = (self.strip, self.to) {
            xattr_names(fd)
                .iter()
                .filter(|name| is_ours_to_remove(name) && !known(name))
                .for_each(|name| self.remove_xattr(name));
        }
        if self.exact && self.node.kind != NodeKind::Symlink {
            [ACL_ACCESS, ACL_DEFAULT]
                .into_iter()
                .filter(|&name| !known(name))
                .for_each(|name| self.remove_xattr(name));
        }
    }

    fn remove_xattr(&self, name: &[u8]) {
        let removed = match self.to {
            Handle::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Handle::Path(fd) => rustix::fs::removexattr(proc_path(fd), name),
        };
        match removed {
            // Only directories have default ACLs, and some file systems no ACLs at all.
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS | Errno::INVAL) => {}
            Err(error) => self.failed("remove an inherited ACL of", error),
        }
    }

    fn xattr_refused(&self, name: &[u8], error: Errno) {
        let namespace = name.split(|&byte| byte == b'.').next().unwrap_or_default();
        let class = format!("extended attributes {}.*", String::from_utf8_lossy(namespace));
        if self.unprivileged(error) {
            self.report.refused(&class, NOT_ROOT);
        } else if error == Errno::OPNOTSUPP {
            self.report.refused(&class, NOT_SUPPORTED);
        } else {
            self.failed("set an extended attribute of", error);
        }
    }

    /// Set-id bits of a file that could not be given to its owner would give the rights of whoever restores it.
    fn mode(&self, owned: bool) {
        let bits = u32::from(self.node.mode) & if owned { 0o7777 } else { 0o1777 };
        let mode = Mode::from_raw_mode(bits);
        let set = match self.to {
            Handle::Open(fd) => rustix::fs::fchmod(fd, mode),
            Handle::Path(fd) => rustix::fs::chmodat(CWD, proc_path(fd), mode, AtFlags::empty()),
        };
        if let Err(error) = set {
            self.failed("set mode of", error);
        }
    }

    fn times(&self) {
        let mtime = self.node.mtime;
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
        };
        let set = match self.to {
            Handle::Open(fd) => rustix::fs::futimens(fd, &times),
            Handle::Path(fd) => rustix::fs::utimensat(CWD, proc_path(fd), &times, AtFlags::empty()),
        };
        if let Err(error) = set {
            self.failed("set times of", error);
        }
    }

    fn flags(&self, fd: BorrowedFd<'_>) {
        let wanted = self.node.flags & KEPT_FLAGS & !self.flags_later;
        if wanted == 0 && !self.exact {
            return;
        }
        match set_flags(fd, KEPT_FLAGS & !self.flags_later, wanted) {
            Ok(()) => {}
            Err(_) if wanted == 0 => {}
            Err(error) if self.unprivileged(error) => self.report.refused("file flags", NOT_ROOT),
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => {
                self.report.refused("file flags", NOT_SUPPORTED)
            }
            Err(error) => self.failed("set flags of", error),
        }
    }
}

/// Sets the flags in `mask` to `wanted`; if the file system does not take all of them together, each that it does take.
pub(super) fn set_flags(fd: impl AsFd, mask: u32, wanted: u32) -> rustix::io::Result<()> {
    let now = rustix::fs::ioctl_getflags(&fd)?.bits();
    let all = (now & !mask) | wanted;
    if all == now {
        return Ok(());
    }
    let result = rustix::fs::ioctl_setflags(&fd, IFlags::from_bits_retain(all));
    if result.is_err() && wanted.count_ones() > 1 {
        let bits = (0..32).map(|bit| 1_u32 << bit).filter(|bit| wanted & bit & !LOCKING_FLAGS != 0);
        let mut reached = now & !mask;
        for bit in bits.chain([wanted & LOCKING_FLAGS]) {
            if rustix::fs::ioctl_setflags(&fd, IFlags::from_bits_retain(reached | bit)).is_ok() {
                reached |= bit;
            }
        }
    }
    result
}

/// Sets those flags of a new, empty file or directory that would be too late afterwards. What fails is tried and told again at the end.
pub(super) fn set_early_flags(fd: impl AsFd, node: &Node) {
    let early = node.flags & EARLY_FLAGS;
    if early != 0 {
        let _ = set_flags(fd, early, early);
    }
}

/// Whether new entries of a directory come with ACLs or flags of its own.
pub(super) fn bequeaths(directory: impl AsFd) -> bool {
    let acl = rustix::fs::fgetxattr_query(&directory, ACL_DEFAULT).is_ok();
    acl || rustix::fs::ioctl_getflags(&directory).is_ok_and(|flags| flags.bits() & KEPT_FLAGS != 0)
}
