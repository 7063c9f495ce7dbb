//! Packs: many frames in one immutable object (`docs/format.md`, section 7).
//!
//! What is compressed and sealed together is a *frame* of about 128 KiB, the unit of random reading. Small chunks
//! that arrive one after another share a frame; a large chunk takes several of its own. Frames are compressed by many
//! threads ([`FrameBuilder`]) and sealed by the one that knows their place ([`PackBuilder`]).

mod fill;
mod frame;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use fill::PackFiller;
pub use frame::{FrameBuilder, FrameGroup};
pub use reader::{decode_directory, read_entry, verify};
pub use writer::{FinishedPack, PackBuilder};

use crate::format::STEP;
use crate::id::{ChunkId, ObjectId, PackId};
use crate::seal::{BlockKind, BlockPlace, ChunkType};

/// Length of the sealed footer, the last bytes of every pack and index object.
pub const FOOTER_LEN: u64 = 128;
/// Limit of a frame's content.
pub const FRAME_LIMIT: usize = 4 << 20;
/// Most that a frame's block is longer than its content may be.
const BLOCK_SLACK: usize = 64 << 10;
/// Limit of the content of every other block.
pub const BLOCK_LIMIT: usize = 64 << 20;
/// Limit of a chunk.
pub const CHUNK_LIMIT: usize = 16 << 20;
/// Limit of frames in a pack.
pub const FRAMES_LIMIT: usize = 1 << 20;
/// Limit of chunks in a pack.
pub const CHUNKS_LIMIT: usize = 1 << 20;
/// Limit of a pack object.
pub const PACK_LIMIT: u64 = 1 << 30;
/// Writers close a pack before its raw stream is longer than this (the format allows 2^32 - 1).
pub const RAW_LIMIT: u64 = 1 << 30;

/// What a pack's frames hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PackKind {
    /// Chunks of files.
    Data = 1,
    /// Tree pages and content lists.
    Tree = 2,
}

impl PackKind {
    /// From its number in the format.
    pub fn from_number(n: u32) -> Option<Self> {
        match n {
            1 => Some(Self::Data),
            2 => Some(Self::Tree),
            _ => None,
        }
    }

    /// Types of the chunks in it.
    pub fn chunk_types(self) -> &'static [ChunkType] {
        match self {
            Self::Data => &[ChunkType::Data],
            Self::Tree => &[ChunkType::Tree, ChunkType::List],
        }
    }

    /// The kind of its frames.
    pub fn frame_kind(self) -> BlockKind {
        match self {
            Self::Data => BlockKind::DataFrame,
            Self::Tree => BlockKind::TreeFrame,
        }
    }
}

/// One frame of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Length of its sealed block in steps of 64 bytes.
    pub units: u32,
    /// Length of its content.
    pub raw_len: u32,
}

impl Frame {
    /// Whether a reader can hold it: no more content than a frame may have, and a block that is not much longer.
    /// Padding, which has no content, is never read.
    pub(crate) fn is_bounded(&self) -> bool {
        let block_is = units_to_len(self.units) <= (FRAME_LIMIT + BLOCK_SLACK) as u64;
        self.units > 0 && self.raw_len as usize <= FRAME_LIMIT && (block_is || self.raw_len == 0)
    }
}

/// What one must know of a pack to read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// Name.
    pub id: PackId,
    /// Object id of its header.
    pub object_id: ObjectId,
    /// Key generation of its header.
    pub generation: u32,
    /// Data or tree.
    pub kind: PackKind,
    /// Length of the object in bytes.
    pub len: u64,
    /// Its frames in order, the first at byte 64.
    pub frames: Vec<Frame>,
}

impl PackEntry {
    /// Length of the raw stream.
    pub fn raw_len(&self) -> u64 {
        self.frames.iter().map(|f| u64::from(f.raw_len)).sum()
    }

    /// Place of frame `n`, whose block begins at `position`.
    pub fn place(&self, position: u64) -> BlockPlace {
        BlockPlace {
            kind: self.kind.frame_kind(),
            object_id: self.object_id,
            generation: self.generation,
            position,
        }
    }
}

/// A chunk in a pack's raw stream; chunks follow each other without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedChunk {
    /// Name.
    pub id: ChunkId,
    /// Length.
    pub len: u32,
}

/// Where the page of a tree lies, so that it can be read without an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagePlace {
    /// The page.
    pub chunk: ChunkId,
    /// Pack with the frame.
    pub pack: PackId,
    /// Object id of the pack.
    pub object_id: ObjectId,
    /// Key generation of the pack.
    pub generation: u32,
    /// Offset of the frame's block in the pack.
    pub offset: u64,
    /// Length of the frame's block.
    pub block_len: u32,
    /// Offset of the chunk in the frame's content.
    pub start: u32,
    /// Length of the chunk.
    pub len: u32,
}

pub(crate) fn units_to_len(units: u32) -> u64 {
    u64::from(units) * STEP as u64
}
