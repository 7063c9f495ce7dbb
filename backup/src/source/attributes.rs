//! Attributes of source entries: one `statx`, extended attributes by descriptor, owners' names from a cache.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;

use holdfast_store::clock::Timestamp;
use holdfast_store::tree::{KEPT_FLAGS, Node, NodeKind, Xattr};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use crate::descent::proc_path;

/// Lists of names above this are refused by the kernel.
const XATTR_LIST_MAX: usize = 65_536;
/// Values above this are refused by the kernel.
const XATTR_VALUE_MAX: usize = 65_536;
/// The first guess: ACLs, capabilities and labels fit.
const XATTR_GUESS: usize = 512;

/// What `statx` is asked for.
pub(super) const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);

/// Attributes of `name` in `directory`, not following a symbolic link and not mounting anything.
pub(super) fn stat_name(directory: impl AsFd, name: &[u8]) -> rustix::io::Result<Statx> {
    rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, WANTED)
}

/// Attributes of an open descriptor.
pub(super) fn stat_open(file: impl AsFd) -> rustix::io::Result<Statx> {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, WANTED)
}

/// Device number of the file system that a thing lies on.
pub(super) fn device_of(stat: &Statx) -> u64 {
    rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

/// Kind of a thing, if the format knows it.
pub(super) fn kind_of(stat: &Statx) -> Option<NodeKind> {
    Some(match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::Unknown => return None,
    })
}

fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec }
}

/// A node with what `statx` knows.
pub(super) fn node(name: &[u8], kind: NodeKind, stat: &Statx, filesystem: u32, owners: &Owners) -> Node {
    Node {
        name: name.to_vec(),
        kind,
        mode: stat.stx_mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        user: owners.user(stat.stx_uid),
        group: owners.group(stat.stx_gid),
        mtime: timestamp(stat.stx_mtime),
        ctime: timestamp(stat.stx_ctime),
        size: if matches!(kind, NodeKind::File | NodeKind::Symlink) { stat.stx_size } else { 0 },
        inode: stat.stx_ino,
        filesystem,
        links: stat.stx_nlink,
        flags: 0,
        content: None,
        subtree: None,
        target: None,
        device: matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice)
            .then_some((stat.stx_rdev_major, stat.stx_rdev_minor)),
        xattrs: Vec::new(),
        extensions: Vec::new(),
    }
}

/// Flags of an open file or directory that a point keeps; none where the file system has no flags.
pub(super) fn flags(file: impl AsFd) -> io::Result<u32> {
    match rustix::fs::ioctl_getflags(file) {
        Ok(flags) => Ok(flags.bits() & KEPT_FLAGS),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// How extended attributes of an open thing are reached.
pub(super) enum Handle<F: AsFd> {
    /// Opened for reading.
    Open(F),
    /// Opened with `O_PATH`: symbolic links and special files. Their calls go through `/proc/self/fd`, whose
    /// links lead to the very inode, be it a symbolic link, and not on from there.
    Path(F),
}

impl<F: AsFd> Handle<F> {
    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::Path(fd) => rustix::fs::listxattr(proc_path(fd), buffer),
        }
    }

    fn get(&self, name: &[u8], buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Self::Path(fd) => rustix::fs::getxattr(proc_path(fd), name, buffer),
        }
    }
}

/// All extended attributes that this process may see, ascending by name.
pub(super) fn xattrs<F: AsFd>(of: &Handle<F>) -> io::Result<Vec<Xattr>> {
    let list = match grown(XATTR_LIST_MAX, |buffer| of.list(buffer)) {
        Ok(list) => list,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match grown(XATTR_VALUE_MAX, |buffer| of.get(name, buffer)) {
            Ok(value) => found.push(Xattr { name: name.to_vec(), value }),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Calls with a small buffer first, with the largest one when the kernel says that it was too small.
fn grown(max: usize, call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0_u8; XATTR_GUESS];
    match call(&mut small) {
        Ok(len) => Ok(small.get(..len).unwrap_or_default().to_vec()),
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; max];
            let len = call(&mut buffer)?;
            buffer.truncate(len);
            buffer.shrink_to_fit();
            Ok(buffer)
        }
        Err(error) => Err(error),
    }
}

/// Names of owners. A look-up may ask a directory server, so each id is asked for once.
#[derive(Debug, Default)]
pub(super) struct Owners {
    users: Mutex<HashMap<u32, Option<Vec<u8>>>>,
    groups: Mutex<HashMap<u32, Option<Vec<u8>>>>,
}

impl Owners {
    /// Name of a user, if it has one that fits the format.
    pub(super) fn user(&self, id: u32) -> Option<Vec<u8>> {
        cached(&self.users, id, |id| {
            nix::unistd::User::from_uid(id.into()).ok().flatten().map(|user| user.name)
        })
    }

    /// Name of a group, if it has one that fits the format.
    pub(super) fn group(&self, id: u32) -> Option<Vec<u8>> {
        cached(&self.groups, id, |id| {
            nix::unistd::Group::from_gid(id.into()).ok().flatten().map(|group| group.name)
        })
    }
}

type Names = Mutex<HashMap<u32, Option<Vec<u8>>>>;

fn cached(names: &Names, id: u32, look_up: impl FnOnce(u32) -> Option<String>) -> Option<Vec<u8>> {
    let mut names = names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let usable = |name: &String| (1..=255).contains(&name.len());
    names.entry(id).or_insert_with(|| look_up(id).filter(usable).map(String::into_bytes)).clone()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_larger_than_the_first_guess_is_read_whole() {
        let value: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
        let read = grown(XATTR_VALUE_MAX, |buffer| {
            let room = buffer.get_mut(..value.len()).ok_or(Errno::RANGE)?;
            room.copy_from_slice(&value);
            Ok(value.len())
        });
        assert_eq!(read.unwrap(), value);
    }

    #[test]
    fn an_owner_is_looked_up_once() {
        let names = Names::default();
        assert_eq!(cached(&names, 7, |_| Some("seven".into())).as_deref(), Some(&b"seven"[..]));
        assert_eq!(cached(&names, 7, |_| panic!("asked twice")).as_deref(), Some(&b"seven"[..]));
        assert_eq!(cached(&names, 8, |_| Some(String::new())), None);
        assert_eq!(Owners::default().user(0).as_deref(), Some(&b"root"[..]));
    }
}
