//! Builds one pack in memory: seals frames at their places, then fill, directory and footer.
//!
//! The fill is a frame without content, so that nobody reads it for what is in the pack; it is sealed as all frames are.

use bytes::Bytes;

use crate::format::{HEADER_LEN, Header, ObjectKind, Put, STEP};
use crate::id::PackId;
use crate::padding::{self, PACK_FLOOR};
use crate::seal::{BlockKind, BlockPlace, Compression, Prepared, Sealer, prepare, uncompressed_len};

use super::{
    CHUNKS_LIMIT, FOOTER_LEN, FRAMES_LIMIT, Frame, FrameGroup, PackEntry, PackKind, PackedChunk, RAW_LIMIT,
};

/// The two counts in a directory.
const DIRECTORY_COUNTS: usize = 8;

/// A pack under construction.
#[derive(Debug)]
pub struct PackBuilder {
    entry: PackEntry,
    bytes: Vec<u8>,
    chunks: Vec<PackedChunk>,
    raw_len: u64,
}

/// A complete pack.
#[derive(Clone, Debug)]
pub struct FinishedPack {
    /// What a reader must know of it.
    pub entry: PackEntry,
    /// Its chunks in order.
    pub chunks: Vec<PackedChunk>,
    /// All its bytes.
    pub bytes: Bytes,
}

impl PackBuilder {
    /// An empty pack sealed with the newest key generation; `capacity` is the length it will probably reach.
    pub fn new(sealer: &Sealer, kind: PackKind, capacity: usize) -> Self {
        let (object_id, generation) = (sealer.new_object(), sealer.generation());
        let header = Header { kind: ObjectKind::Pack, object_id, generation };
        let mut bytes = Vec::with_capacity(capacity);
        bytes.raw(&header.encode(sealer.vault()));
        let entry =
            PackEntry { id: PackId([0; 32]), object_id, generation, kind, len: 0, frames: Vec::new() };
        Self { entry, bytes, chunks: Vec::new(), raw_len: 0 }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Length so far, without directory and footer.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the group can still be added without breaking a limit of the format.
    pub(super) fn may_hold(&self, group: &FrameGroup) -> bool {
        self.raw_len + group.raw_len() <= RAW_LIMIT
            && self.entry.frames.len() + group.frames.len() < FRAMES_LIMIT
            && self.chunks.len() + group.chunks.len() <= CHUNKS_LIMIT
    }

    /// Length that it would have if it were finished now, with the least fill.
    pub fn finished_len(&self) -> usize {
        let directory = directory_len(self.entry.frames.len() + 1, self.chunks.len());
        self.bytes.len() + STEP + uncompressed_len(DIRECTORY_COUNTS + directory) + FOOTER_LEN as usize
    }

    /// How many bytes ([`FrameGroup::packed_len`]) can be added so that it is not longer than `pack_len`.
    pub(super) fn room(&self, pack_len: usize) -> usize {
        // The directory is rounded up to a step.
        pack_len.saturating_sub(self.finished_len() + STEP)
    }

    /// Seals the group's frames at the end of the pack.
    pub fn push(&mut self, sealer: &Sealer, group: FrameGroup) {
        for prepared in group.frames {
            self.seal_frame(sealer, &prepared);
        }
        self.chunks.extend(group.chunks);
    }

    fn seal_frame(&mut self, sealer: &Sealer, prepared: &Prepared) {
        let raw_len = prepared.raw_len();
        let place = self.entry.place(self.bytes.len() as u64);
        let block_len = sealer.seal_prepared(&place, prepared, &mut self.bytes);
        self.raw_len += u64::from(raw_len);
        self.entry.frames.push(Frame { units: (block_len / STEP) as u32, raw_len });
    }

    fn place(&self, kind: BlockKind) -> BlockPlace {
        let PackEntry { object_id, generation, .. } = self.entry;
        BlockPlace { kind, object_id, generation, position: self.bytes.len() as u64 }
    }

    /// Adds fill, directory and footer and names the pack, which gets a length of its own as [`padding`] says.
    pub fn finish(self, sealer: &Sealer) -> FinishedPack {
        let len = padding::padded((self.finished_len() as u64).max(PACK_FLOOR));
        self.finish_at(sealer, len)
    }

    /// The same, with a length of `len` bytes, rounded down to a step, if it is not longer already.
    pub(super) fn finish_at(mut self, sealer: &Sealer, len: u64) -> FinishedPack {
        let fill = (len as usize).saturating_sub(self.finished_len()) / STEP * STEP + STEP;
        self.seal_frame(sealer, &prepare(&[], Compression::None).lengthened(fill));
        let directory_offset = self.bytes.len();
        debug_assert!(directory_offset >= HEADER_LEN);
        let directory = encode_directory(&self.entry.frames, &self.chunks);
        let place = self.place(BlockKind::PackDirectory);
        let directory_len = sealer.seal(&place, &directory, Compression::None, 0, &mut self.bytes);
        let mut footer = Vec::with_capacity(64);
        footer.u32(self.entry.kind as u32);
        footer.u32(self.entry.frames.len() as u32);
        footer.u32(self.chunks.len() as u32);
        footer.u32(directory_len as u32);
        footer.u64(directory_offset as u64);
        footer.u64(self.raw_len);
        footer.raw(&[0; 32]);
        let place = self.place(BlockKind::PackFooter);
        sealer.seal(&place, &footer, Compression::None, 0, &mut self.bytes);
        self.entry.len = self.bytes.len() as u64;
        self.entry.id = PackId(*blake3::hash(&self.bytes).as_bytes());
        FinishedPack { entry: self.entry, chunks: self.chunks, bytes: self.bytes.into() }
    }
}

/// What so many frames and chunks take in a directory.
pub(super) fn directory_len(frames: usize, chunks: usize) -> usize {
    frames * 8 + chunks * 36
}

fn encode_directory(frames: &[Frame], chunks: &[PackedChunk]) -> Vec<u8> {
    let mut out = Vec::with_capacity(DIRECTORY_COUNTS + directory_len(frames.len(), chunks.len()));
    out.u32(frames.len() as u32);
    for frame in frames {
        out.u32(frame.units);
        out.u32(frame.raw_len);
    }
    out.u32(chunks.len() as u32);
    for chunk in chunks {
        out.raw(&chunk.id.0);
        out.u32(chunk.len);
    }
    out
}
