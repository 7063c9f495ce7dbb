//! Sealing: subkeys, chunk ids and the one kind of encrypted block that everything is made of.

pub mod keys;

use crate::format::FormatError;
use crate::id::{ChunkId, ObjectId, SourceTag, VaultId};
use keys::KeyRing;

/// What a chunk is of; part of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChunkType {
    /// Bytes of files.
    Data = 1,
    /// A page of a directory.
    Tree = 2,
    /// A page of a long content list.
    List = 3,
}

/// Kind of a sealed block (`docs/format.md`, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Frame of a data pack.
    DataFrame = 1,
    /// Frame of a tree pack.
    TreeFrame = 2,
    /// Directory of a pack.
    PackDirectory = 3,
    /// Footer of a pack.
    PackFooter = 4,
    /// Sorted chunks of an index object.
    IndexChunks = 5,
    /// Packs of an index object.
    IndexPacks = 6,
    /// Root of an index object.
    IndexRoot = 7,
    /// Footer of an index object.
    IndexFooter = 8,
    /// Body of a recovery point.
    Point = 9,
    /// Body of a session.
    Session = 10,
    /// Body of the config.
    Config = 11,
}

/// Where a block stands; bound to it by its seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// What it is.
    pub kind: BlockKind,
    /// Object id of its object's header.
    pub object_id: ObjectId,
    /// Key generation of its object's header.
    pub generation: u32,
    /// Its byte offset in the object.
    pub position: u64,
}

/// How hard to compress the content of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Store as it is.
    None,
    /// A zstd level.
    Zstd(i32),
}

/// Everything that needs the keys of one store: sealing, opening, naming.
#[derive(Debug)]
pub struct Sealer {
    _private: (),
}

impl Sealer {
    /// Derives all subkeys. `identity_generation` makes chunk ids, gear table and source tags; the newest generation seals.
    pub fn new(_vault: VaultId, _ring: &KeyRing, _identity_generation: u32) -> Result<Self, FormatError> {
        todo!()
    }

    /// The store's id.
    pub fn vault(&self) -> &VaultId {
        todo!()
    }

    /// The generation that new objects are sealed with.
    pub fn generation(&self) -> u32 {
        todo!()
    }

    /// Name of a chunk.
    pub fn chunk_id(&self, _of: ChunkType, _plain: &[u8]) -> ChunkId {
        todo!()
    }

    /// Name of a source.
    pub fn source_tag(&self, _host: &str, _group: &str, _source: &str) -> SourceTag {
        todo!()
    }

    /// The secret gear table of the chunker.
    pub fn gear_table(&self) -> [u64; 256] {
        todo!()
    }

    /// Compresses (stored raw when zstd gains under 3 %), pads to a multiple of 64 (and to at least `min_len`), seals.
    /// Appends the block to `out` and returns its length.
    pub fn seal(
        &self,
        _place: &BlockPlace,
        _content: &[u8],
        _compression: Compression,
        _min_len: usize,
        _out: &mut Vec<u8>,
    ) -> usize {
        todo!()
    }

    /// Opens a block and decodes its content of at most `limit` bytes; allocates nothing bigger. `Damaged` if the seal does not
    /// hold, `TooNew` if its key generation is not in the ring.
    pub fn open(&self, _place: &BlockPlace, _sealed: &[u8], _limit: usize) -> Result<Vec<u8>, FormatError> {
        todo!()
    }
}
