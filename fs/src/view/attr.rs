//! What `stat` shows.

use holdfast_store::clock::Timestamp;
use holdfast_store::tree::{Node, NodeKind};

use crate::layout::{Folder, Link};

/// What programs are told to read at once: a frame of a chunk, about.
pub const BLOCK_SIZE: u32 = 128 * 1024;

/// Bytes in which file systems give room to files, nearly all of them: `du` says of a point what it said of the source.
const ROOM_UNIT: u64 = 4096;

/// Attributes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Number.
    pub ino: u64,
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u16,
    /// Link count.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device, else zeros.
    pub device: (u32, u32),
    /// Length in bytes.
    pub size: u64,
    /// Bytes outside holes, rounded up to whole 4,096, in units of 512.
    pub blocks: u64,
    /// Last change of content; also shown as the time of last access, which is not kept.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
}

impl Attr {
    /// Of a node inside a point, of whose bytes `stored` do not lie in holes.
    pub fn of_node(ino: u64, node: &Node, stored: u64) -> Self {
        Self {
            ino,
            kind: node.kind,
            mode: node.mode & 0o7777,
            links: node.links.max(1),
            uid: node.uid,
            gid: node.gid,
            device: node.device.unwrap_or_default(),
            size: node.size,
            blocks: stored.div_ceil(ROOM_UNIT).saturating_mul(ROOM_UNIT / 512),
            mtime: node.mtime,
            ctime: node.ctime,
        }
    }

    /// Of a directory of the layout.
    pub fn of_folder(ino: u64, folder: &Folder, owner: (u32, u32)) -> Self {
        let base = Self::of_layout(ino, NodeKind::Directory, 0o555, folder.changed, owner);
        Self { links: folder.links(), ..base }
    }

    /// Of a link of the layout.
    pub fn of_link(ino: u64, link: &Link, owner: (u32, u32)) -> Self {
        let base = Self::of_layout(ino, NodeKind::Symlink, 0o777, link.changed, owner);
        Self { size: link.target.len() as u64, ..base }
    }

    fn of_layout(ino: u64, kind: NodeKind, mode: u16, changed: Timestamp, (uid, gid): (u32, u32)) -> Self {
        let (mtime, ctime) = (changed, changed);
        Self { ino, kind, mode, links: 1, uid, gid, device: (0, 0), size: 0, blocks: 0, mtime, ctime }
    }
}
