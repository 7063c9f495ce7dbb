//! Directories as content-addressed trees of pages (`docs/format.md`, section 9): what a node is.

pub mod build;
pub mod content;
pub(crate) mod node;
pub mod page;
pub mod reach;
pub mod testing;
pub mod walk;

use bytes::Bytes;

use crate::clock::{Deadline, Timestamp};
use crate::error::StoreError;
use crate::id::ChunkId;
use crate::seal::ChunkType;

/// Kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
    /// Named pipe.
    Fifo = 4,
    /// Unix socket.
    Socket = 5,
    /// Character device.
    CharDevice = 6,
    /// Block device.
    BlockDevice = 7,
}

/// One stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Stored bytes.
    Data {
        /// Which chunk (type [`ChunkType::Data`]).
        id: ChunkId,
        /// Its whole length.
        len: u32,
    },
    /// A hole.
    Hole {
        /// Its length.
        len: u64,
    },
}

impl Extent {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match *self {
            Self::Data { len, .. } => u64::from(len),
            Self::Hole { len } => len,
        }
    }

    /// Whether it covers nothing; the format knows no such extents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a file contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All extents, in order.
    Inline(Vec<Extent>),
    /// List pages (type [`ChunkType::List`]) with the number of file bytes below each; `depth` at least 1.
    Paged {
        /// Levels of pages below.
        depth: u8,
        /// Pages of the first level below.
        pages: Vec<(ChunkId, u64)>,
    },
}

impl Default for Content {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

/// An extended attribute as the system calls show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Full name with its namespace, 1 to 255 bytes, no NUL.
    pub name: Vec<u8>,
    /// Value, up to 64 KiB.
    pub value: Vec<u8>,
}

/// What hangs below a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Root page of the directory.
    pub tree: ChunkId,
    /// Entries in the whole subtree.
    pub entries: u64,
    /// Bytes of files in the whole subtree.
    pub bytes: u64,
}

/// One entry of a directory with everything a restore needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Raw bytes of the name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits with set-id and sticky bits (0 to 0o7777).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name at the source, if it had one (1 to 255 bytes).
    pub user: Option<Vec<u8>>,
    /// Group's name at the source, if it had one (1 to 255 bytes).
    pub group: Option<Vec<u8>>,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the inode; for change detection.
    pub ctime: Timestamp,
    /// Length of a file in bytes, of a link's target; else 0.
    pub size: u64,
    /// Inode number at the source.
    pub inode: u64,
    /// File system at the source: 0 for the root's, else a stable hash of its mount point.
    pub filesystem: u32,
    /// Link count at the source.
    pub links: u32,
    /// Linux file flags that a copy can keep.
    pub flags: u32,
    /// Of a file.
    pub content: Option<Content>,
    /// Of a directory.
    pub subtree: Option<Subtree>,
    /// Of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Ascending by name.
    pub xattrs: Vec<Xattr>,
    /// Fields of later versions, kept as they came: tag and value.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

/// File flags that are kept (`docs/format.md`, section 9.2).
pub const KEPT_FLAGS: u32 = 0x01
    | 0x02
    | 0x04
    | 0x08
    | 0x10
    | 0x20
    | 0x40
    | 0x80
    | 0x8000
    | 0x1_0000
    | 0x2_0000
    | 0x80_0000
    | 0x2000_0000
    | 0x4000_0000;

/// Where whole, verified chunks come from.
pub trait ChunkSource: Send + Sync {
    /// The plaintext of a chunk whose id was recomputed; `Corrupt` names the pack when it is not what it must be.
    fn chunk(&self, of: ChunkType, id: &ChunkId, deadline: Deadline) -> Result<Bytes, StoreError>;
}

/// Where new chunks go.
pub trait ChunkSink {
    /// Stores a chunk unless the store has it, and names it. It is durable only when the sink is finished.
    fn put(&mut self, of: ChunkType, plain: &[u8]) -> Result<ChunkId, StoreError>;
}
