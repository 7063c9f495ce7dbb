//! Collects chunks into frames and compresses them, before anybody knows which pack they will lie in.

use crate::id::ChunkId;
use crate::seal::{Compression, Prepared, prepare};

use super::PackedChunk;
use super::writer::directory_len;

/// Compressed frames with the chunks that their contents, one after the other, consist of.
#[derive(Debug, Default)]
pub struct FrameGroup {
    /// Compressed contents, ready to be sealed.
    pub frames: Vec<Prepared>,
    /// Chunks in order; their lengths add up to the frames' raw lengths.
    pub chunks: Vec<PackedChunk>,
}

impl FrameGroup {
    /// Bytes of content before compression.
    pub fn raw_len(&self) -> u64 {
        self.frames.iter().map(|f| u64::from(f.raw_len())).sum()
    }

    /// Bytes that it takes in a pack, in its directory as well.
    pub fn packed_len(&self) -> usize {
        let blocks: usize = self.frames.iter().map(Prepared::block_len).sum();
        blocks + directory_len(self.frames.len(), self.chunks.len())
    }

    /// The smallest parts in which it can go into several packs: stretches of whole frames that hold whole chunks.
    pub fn into_parts(self) -> Vec<Self> {
        let (mut parts, mut part) = (Vec::new(), Self::default());
        let mut chunks = self.chunks.into_iter().peekable();
        let (mut framed, mut cut) = (0, 0);
        for frame in self.frames {
            framed += u64::from(frame.raw_len());
            part.frames.push(frame);
            while let Some(chunk) = chunks.next_if(|chunk| cut + u64::from(chunk.len) <= framed) {
                cut += u64::from(chunk.len);
                part.chunks.push(chunk);
            }
            if cut == framed {
                parts.push(std::mem::take(&mut part));
            }
        }
        part.chunks.extend(chunks);
        if !part.frames.is_empty() || !part.chunks.is_empty() {
            parts.push(part);
        }
        parts
    }
}

/// Fills frames of about `frame_len` bytes.
#[derive(Debug)]
pub struct FrameBuilder {
    frame_len: usize,
    compression: Compression,
    open: Vec<u8>,
    group: FrameGroup,
}

impl FrameBuilder {
    /// An empty builder.
    pub fn new(frame_len: usize, compression: Compression) -> Self {
        Self { frame_len, compression, open: Vec::with_capacity(frame_len), group: FrameGroup::default() }
    }

    /// Adds a chunk. One that fits in a frame lies in one frame; a longer one is cut into frames of its own.
    pub fn push(&mut self, id: ChunkId, plain: &[u8]) {
        if !self.open.is_empty() && self.open.len() + plain.len() > self.frame_len {
            self.close_frame();
        }
        self.group.chunks.push(PackedChunk { id, len: plain.len() as u32 });
        if plain.len() <= self.frame_len {
            self.open.extend_from_slice(plain);
            return;
        }
        for piece in plain.chunks(self.frame_len) {
            self.group.frames.push(prepare(piece, self.compression));
        }
    }

    /// Bytes of content collected so far.
    pub fn raw_len(&self) -> u64 {
        self.group.raw_len() + self.open.len() as u64
    }

    /// Hands out what was collected and begins anew.
    pub fn take(&mut self) -> FrameGroup {
        self.close_frame();
        std::mem::take(&mut self.group)
    }

    fn close_frame(&mut self) {
        if !self.open.is_empty() {
            self.group.frames.push(prepare(&self.open, self.compression));
            self.open.clear();
        }
    }
}
