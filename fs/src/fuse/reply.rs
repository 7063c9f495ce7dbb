//! Answers in the kernel's words.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, Generation, INodeNo};
use holdfast_store::clock::Timestamp;
use holdfast_store::tree::NodeKind;

use super::FOREVER;
use crate::error::FsError;
use crate::pool::Reply;
use crate::view::{Attr, BLOCK_SIZE, Entry, Lifetime, Listed, XattrAnswer};

/// Unit in which `statfs` counts.
pub const STATFS_BLOCK: u32 = 4096;

/// Numbers are never used twice.
const GENERATION: Generation = Generation(0);

macro_rules! replies {
    ($($reply:ident),*) => {
        $(impl Reply for fuser::$reply {
            fn refuse(self, error: FsError) {
                self.error(Errno::from_i32(error.errno() as i32));
            }
        })*
    };
}

replies!(
    ReplyEntry,
    ReplyAttr,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyXattr,
    ReplyLseek,
    ReplyIoctl,
    ReplyStatfs,
    ReplyEmpty
);

/// A lifetime in the kernel's unit.
pub fn seconds(lifetime: Lifetime) -> Duration {
    match lifetime {
        Lifetime::Forever => FOREVER,
        Lifetime::Brief => Duration::from_secs(1),
    }
}

/// A node found.
pub fn entry(reply: fuser::ReplyEntry, entry: &Entry) {
    let (attributes, name) = (seconds(entry.attr_lifetime), seconds(entry.name_lifetime));
    reply.entry_with_ttls(&attributes, &name, &attr(&entry.attr), GENERATION);
}

/// A name that leads nowhere, which the kernel may remember as well: number 0.
pub fn absent(reply: fuser::ReplyEntry, lifetime: Lifetime) {
    let zero = Timestamp::default();
    let (kind, device) = (NodeKind::File, (0, 0));
    let (mode, links, uid, gid, size, blocks) = (0, 0, 0, 0, 0, 0);
    let none = Attr { ino: 0, kind, mode, links, uid, gid, device, size, blocks, mtime: zero, ctime: zero };
    reply.entry(&seconds(lifetime), &attr(&none), GENERATION);
}

/// Adds an entry; true if it did not fit any more.
pub fn add_plus(reply: &mut fuser::ReplyDirectoryPlus, item: &Listed) -> bool {
    // One lifetime for both: the shorter one.
    let brief = [item.entry.name_lifetime, item.entry.attr_lifetime].contains(&Lifetime::Brief);
    let ttl = seconds(if brief { Lifetime::Brief } else { Lifetime::Forever });
    let name = OsStr::from_bytes(&item.name);
    reply.add(INodeNo(item.entry.attr.ino), item.position, name, &ttl, &attr(&item.entry.attr), GENERATION)
}

/// A value or its size.
pub fn xattr(reply: fuser::ReplyXattr, answer: XattrAnswer) {
    match answer {
        XattrAnswer::Size(size) => reply.size(size),
        XattrAnswer::Data(data) => reply.data(&data),
    }
}

/// Attributes.
pub fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.mtime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(attr.kind),
        perm: attr.mode,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device(attr.device),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The 32-bit form of a device number: 12 bits of the major and 20 of the minor one.
fn device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12
}

/// Seconds count from 1970 in both directions, nanoseconds always forward.
fn time(at: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(at.seconds.unsigned_abs());
    let whole =
        if at.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|t| t.checked_add(Duration::from_nanos(u64::from(at.nanos)))).unwrap_or(UNIX_EPOCH)
}

/// The kind of a node.
pub fn kind(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let at = time(Timestamp { seconds: -1, nanos: 250_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(at).ok(), Some(Duration::from_millis(750)));
        let far = time(Timestamp { seconds: 1 << 40, nanos: 7 });
        assert_eq!(far.duration_since(UNIX_EPOCH).ok(), Some(Duration::new(1 << 40, 7)));
        for seconds in [i64::MIN, i64::MAX] {
            time(Timestamp { seconds, nanos: 999_999_999 });
        }
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_unpacks_them() {
        for (major, minor) in [(1, 3), (8, 300), (0xfff, 0xfffff)] {
            let packed = device((major, minor));
            let unpacked = ((packed & 0xfff00) >> 8, (packed & 0xff) | ((packed >> 12) & 0xfff00));
            assert_eq!(unpacked, (major, minor));
        }
    }
}
