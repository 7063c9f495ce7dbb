//! The read engine shared by mount, restore, dump, check and drills: frames, caches, failover between tiers.

use std::ops::Range;

use bytes::Bytes;

use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::ChunkId;
use crate::seal::ChunkType;
use crate::tree::ChunkSource;

/// Which tier would answer for a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Decoded, in memory.
    Memory,
    /// The staging directory.
    Staging,
    /// The local cache of vault ranges.
    Cache,
    /// A vault.
    Vault,
}

/// Reads chunks from whichever tier has them. Cheap to share; all methods may be called from many threads.
#[derive(Debug)]
pub struct Reader {
    _private: (),
}

impl Reader {
    /// Bytes `range` of a data chunk, without decoding more frames than it touches. Each frame is vouched for by its seal.
    pub fn chunk_range(&self, _id: &ChunkId, _range: Range<u32>, _deadline: Deadline) -> Result<Bytes, StoreError> {
        todo!()
    }

    /// The best tier that has the chunk, without reading it; `NotFound` if none has it.
    pub fn tier(&self, _of: ChunkType, _id: &ChunkId) -> Result<Tier, StoreError> {
        todo!()
    }

    /// Asks for frames of these chunks to be decoded in the background, in order; may be ignored.
    pub fn prefetch(&self, _ids: &[ChunkId]) {}
}

impl ChunkSource for Reader {
    fn chunk(&self, _of: ChunkType, _id: &ChunkId, _deadline: Deadline) -> Result<Bytes, StoreError> {
        todo!()
    }
}
