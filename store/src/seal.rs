//! Sealing: subkeys, chunk ids and the one kind of encrypted block that everything is made of.

mod block;
pub mod keys;
pub mod machine;
pub mod sheet;
pub mod slots;
mod squeeze;
#[cfg(test)]
mod tests;
pub mod writer;
pub mod writer_file;
mod xaes;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::chance::{Chance, SystemChance};
use crate::format::{FormatError, Put};
use crate::id::{ChunkId, ObjectId, RecoveryPointId, SourceTag, VaultId};
use block::{Binding, With};
pub use block::{Prepared, prepare, uncompressed_len};
use keys::{Key, KeyRing, subkey};
use xaes::Xaes256Gcm;

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
    /// Body of a hold.
    Hold = 13,
    /// Body of a generation.
    Generation = 14,
    /// Body of a revocation.
    Revocation = 15,
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

/// The keys that one generation seals with, expanded.
struct GenerationKeys {
    generation: u32,
    data: Xaes256Gcm,
    tree: Xaes256Gcm,
    index: Xaes256Gcm,
    point: Xaes256Gcm,
    config: Xaes256Gcm,
    nonce: Key,
}

impl GenerationKeys {
    fn derive(vault: &VaultId, generation: u32, master: &[u8; 32]) -> Self {
        let cipher = |purpose| Xaes256Gcm::new(&subkey(vault, master, purpose));
        Self {
            generation,
            data: cipher("data"),
            tree: cipher("tree"),
            index: cipher("index"),
            point: cipher("point"),
            config: cipher("config"),
            nonce: subkey(vault, master, "nonce"),
        }
    }

    fn cipher(&self, kind: BlockKind) -> &Xaes256Gcm {
        match kind {
            BlockKind::DataFrame => &self.data,
            BlockKind::TreeFrame => &self.tree,
            BlockKind::PackDirectory
            | BlockKind::PackFooter
            | BlockKind::IndexChunks
            | BlockKind::IndexPacks
            | BlockKind::IndexRoot
            | BlockKind::IndexFooter => &self.index,
            BlockKind::Point
            | BlockKind::Session
            | BlockKind::Hold
            | BlockKind::Generation
            | BlockKind::Revocation => &self.point,
            BlockKind::Config => &self.config,
        }
    }
}

/// Everything that needs the keys of one store: sealing, opening, naming. Shared by all threads; wiped when dropped.
pub struct Sealer {
    vault: VaultId,
    newest: u32,
    generations: Vec<GenerationKeys>,
    chunk_ids: Key,
    chunker: Key,
    names: Key,
    chance: Arc<dyn Chance>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(vault {}, generation {})", self.vault, self.newest)
    }
}

/// The name of a chunk in the making: what [`Sealer::chunk_id`] gives, of pieces one after the other.
#[derive(Debug)]
pub struct Naming(blake3::Hasher);

impl Naming {
    /// Goes on with this piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The name of all pieces.
    pub fn finish(self) -> ChunkId {
        ChunkId(self.0.finalize().into())
    }
}

/// Biggest scratch buffer that a thread keeps between blocks; frames need at most 4 MiB.
const SCRATCH_KEPT: usize = 8 << 20;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Sealer {
    /// Derives all subkeys. `identity_generation` makes chunk ids, gear table and source tags; the newest generation seals.
    ///
    /// # Errors
    /// `NoKey` when the ring has no key of the identity generation.
    pub fn new(vault: VaultId, ring: &KeyRing, identity_generation: u32) -> Result<Self, FormatError> {
        let identity = ring.key(identity_generation).ok_or_else(|| no_key(identity_generation))?;
        let generations = ring
            .generations()
            .filter_map(|g| Some(GenerationKeys::derive(&vault, g, ring.key(g)?)))
            .collect();
        Ok(Self {
            vault,
            newest: ring.newest(),
            generations,
            chunk_ids: subkey(&vault, identity, "chunk id"),
            chunker: subkey(&vault, identity, "chunker"),
            names: subkey(&vault, identity, "names"),
            chance: Arc::new(SystemChance),
        })
    }

    /// The same, with another chance than the system's.
    pub fn with_chance(self, chance: Arc<dyn Chance>) -> Self {
        Self { chance, ..self }
    }

    /// The id of a new object.
    pub fn new_object(&self) -> ObjectId {
        ObjectId(self.chance.id())
    }

    /// The id of a new recovery point, or of a session.
    pub fn new_point(&self) -> RecoveryPointId {
        RecoveryPointId(self.chance.id())
    }

    /// The store's id.
    pub fn vault(&self) -> &VaultId {
        &self.vault
    }

    /// The generation that new objects are sealed with.
    pub fn generation(&self) -> u32 {
        self.newest
    }

    /// Whether what is sealed with a generation can be opened.
    pub fn has_generation(&self, generation: u32) -> bool {
        self.keys(generation).is_ok()
    }

    /// Name of a chunk.
    pub fn chunk_id(&self, of: ChunkType, plain: &[u8]) -> ChunkId {
        let mut naming = self.name_chunk(of);
        naming.update(plain);
        naming.finish()
    }

    /// Begins to name a chunk that is at hand in pieces.
    pub fn name_chunk(&self, of: ChunkType) -> Naming {
        let mut hasher = blake3::Hasher::new_keyed(&self.chunk_ids);
        hasher.update(&[of as u8]);
        Naming(hasher)
    }

    /// Name of a source.
    ///
    /// # Panics
    /// When one of the three has 64 KiB or more.
    pub fn source_tag(&self, host: &str, group: &str, source: &str) -> SourceTag {
        let mut named = Vec::with_capacity(6 + host.len() + group.len() + source.len());
        for name in [host, group, source] {
            named.bytes16(name.as_bytes());
        }
        let mut tag = [0; SourceTag::LEN];
        tag.copy_from_slice(&blake3::keyed_hash(&self.names, &named).as_bytes()[..SourceTag::LEN]);
        SourceTag(tag)
    }

    /// The secret gear table of the chunker.
    pub fn gear_table(&self) -> [u64; 256] {
        let mut bytes = Zeroizing::new([0; 2048]);
        self.chunker_secret("holdfast v1 gear").fill(&mut *bytes);
        let mut table = [0; 256];
        for (entry, eight) in table.iter_mut().zip(bytes.as_chunks().0) {
            *entry = u64::from_le_bytes(*eight);
        }
        table
    }

    /// The stream of bytes that a chunker takes its secrets from.
    pub fn chunker_secret(&self, use_of_it: &str) -> blake3::OutputReader {
        blake3::Hasher::new_derive_key(use_of_it).update(&*self.chunker).finalize_xof()
    }

    /// Compresses (stored raw when zstd gains under 3 %, or when no smaller block could come of it), pads to a multiple
    /// of 64 (and to at least `min_len`), seals. Appends the block to `out` and returns its length. zstd levels above 19
    /// count as 19, whose window is the biggest that the format allows.
    ///
    /// # Panics
    /// When the ring has no key of the place's generation, or `content` comes near 4 GiB: whoever writes takes the
    /// generation from [`Self::generation`] and keeps to the limits of the format.
    pub fn seal(
        &self,
        place: &BlockPlace,
        content: &[u8],
        compression: Compression,
        min_len: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        block::seal(self.with(place), &self.binding(place), content, compression, min_len, out)
    }

    /// Seals what [`prepare`] made, as [`Self::seal`] would have. Appends the block to `out` and returns its length.
    ///
    /// # Panics
    /// When the ring has no key of the place's generation.
    pub fn seal_prepared(&self, place: &BlockPlace, prepared: &Prepared, out: &mut Vec<u8>) -> usize {
        block::seal_prepared(self.with(place), &self.binding(place), prepared, out)
    }

    fn with(&self, place: &BlockPlace) -> With<'_> {
        let keys = self.keys(place.generation).expect("blocks are sealed with a generation of the ring");
        With { cipher: keys.cipher(place.kind), nonce_key: &keys.nonce, chance: &*self.chance }
    }

    /// Opens a block and decodes its content of at most `limit` bytes; allocates nothing bigger. `Damaged` if the seal does not
    /// hold, `NoKey` if its key generation is not in the ring.
    pub fn open(&self, place: &BlockPlace, sealed: &[u8], limit: usize) -> Result<Vec<u8>, FormatError> {
        let mut content = Vec::new();
        let mut scratch = SCRATCH.take();
        scratch.clear();
        scratch.extend_from_slice(sealed);
        let opened = self.open_in_place(place, &mut scratch, limit, &mut content);
        if scratch.capacity() <= SCRATCH_KEPT {
            SCRATCH.set(scratch);
        }
        opened.map(|()| content)
    }

    /// As [`Self::open`], into a buffer that is used again: what is in `out` is replaced by the content, or by nothing after
    /// an error. What is in `block` is of no use afterwards.
    pub fn open_in_place(
        &self,
        place: &BlockPlace,
        block: &mut [u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        out.clear();
        let keys = self.keys(place.generation)?;
        block::open(keys.cipher(place.kind), &self.binding(place), block, limit, out)
    }

    fn keys(&self, generation: u32) -> Result<&GenerationKeys, FormatError> {
        self.generations.iter().rev().find(|k| k.generation == generation).ok_or_else(|| no_key(generation))
    }

    fn binding(&self, place: &BlockPlace) -> Binding<'_> {
        Binding {
            vault: &self.vault,
            object_id: place.object_id,
            kind: place.kind as u8,
            generation: place.generation,
            position: place.position,
        }
    }
}

/// A header's checksum holds and it names a key that is not here: the ring is older than the object.
fn no_key(generation: u32) -> FormatError {
    FormatError::NoKey(generation)
}
