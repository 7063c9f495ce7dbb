//! Builds one pack in memory: seals frames at their places, then directory and footer.

use bytes::Bytes;

use crate::format::{HEADER_LEN, Header, ObjectKind, Put, STEP};
use crate::id::PackId;
use crate::seal::{BlockKind, BlockPlace, Compression, Sealer};

use super::{CHUNKS_LIMIT, FRAMES_LIMIT, Frame, FrameGroup, PackEntry, PackKind, PackedChunk, RAW_LIMIT};

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
    fn has_room_for(&self, group: &FrameGroup) -> bool {
        self.raw_len + group.raw_len() <= RAW_LIMIT
            && self.entry.frames.len() + group.frames.len() <= FRAMES_LIMIT
            && self.chunks.len() + group.chunks.len() <= CHUNKS_LIMIT
    }

    /// Whether it is to be finished before the group is added, because it would be longer than `pack_len`.
    pub fn is_full_for(&self, group: &FrameGroup, pack_len: usize) -> bool {
        !self.is_empty() && (self.len() + group.packed_len() > pack_len || !self.has_room_for(group))
    }

    /// Seals the group's frames at the end of the pack.
    pub fn push(&mut self, sealer: &Sealer, group: FrameGroup) {
        for prepared in group.frames {
            let raw_len = prepared.raw_len();
            let place = self.entry.place(self.bytes.len() as u64);
            let block_len = sealer.seal_prepared(&place, &prepared, &mut self.bytes);
            self.raw_len += u64::from(raw_len);
            self.entry.frames.push(Frame { units: (block_len / STEP) as u32, raw_len });
        }
        self.chunks.extend(group.chunks);
    }

    fn place(&self, kind: BlockKind) -> BlockPlace {
        let PackEntry { object_id, generation, .. } = self.entry;
        BlockPlace { kind, object_id, generation, position: self.bytes.len() as u64 }
    }

    /// Adds directory and footer and names the pack.
    pub fn finish(mut self, sealer: &Sealer) -> FinishedPack {
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

fn encode_directory(frames: &[Frame], chunks: &[PackedChunk]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + frames.len() * 8 + chunks.len() * 36);
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
