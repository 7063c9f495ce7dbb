//! Chunks in memory: the simplest [`ChunkSource`] and [`ChunkSink`], for tests of everything that stands on trees.
//!
//! It is public, not `#[cfg(test)]`, because the tests of other crates use it. Ids are plain BLAKE3 of the type byte
//! and the bytes: no key is needed, and equal chunks get equal ids in every run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::clock::{Deadline, Timestamp};
use crate::error::StoreError;
use crate::id::ChunkId;
use crate::seal::ChunkType;
use crate::tree::build::{BuiltDirectory, DirectoryBuilder};
use crate::tree::{ChunkSink, ChunkSource, Content, Node, NodeKind, Subtree};

/// What was asked of a [`MemoryChunks`] since it was made or [`MemoryChunks::reset_counts`] was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkCounts {
    /// Chunks put, known or not.
    pub puts: u64,
    /// Chunks put that were not there before.
    pub new: u64,
    /// Bytes of those.
    pub new_bytes: u64,
    /// Length of the longest chunk put.
    pub longest: usize,
    /// Chunks asked for, found or not.
    pub gets: u64,
}

#[derive(Debug, Default)]
struct State {
    chunks: HashMap<(ChunkType, ChunkId), Bytes>,
    counts: ChunkCounts,
}

/// Chunks in memory. A clone is another handle to the same chunks.
#[derive(Clone, Debug, Default)]
pub struct MemoryChunks {
    state: Arc<Mutex<State>>,
}

impl MemoryChunks {
    /// No chunks.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id a chunk gets here.
    pub fn id(of: ChunkType, plain: &[u8]) -> ChunkId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[of as u8]).update(plain);
        ChunkId(*hasher.finalize().as_bytes())
    }

    /// Number of different chunks.
    pub fn len(&self) -> usize {
        self.lock().chunks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was asked so far.
    pub fn counts(&self) -> ChunkCounts {
        self.lock().counts
    }

    /// Counts from zero again; the chunks stay.
    pub fn reset_counts(&self) {
        self.lock().counts = ChunkCounts::default();
    }

    /// Loses a chunk, as a broken vault would; whether it was there.
    pub fn forget(&self, of: ChunkType, id: &ChunkId) -> bool {
        self.lock().chunks.remove(&(of, *id)).is_some()
    }

    /// Puts other bytes under the id of a chunk, as no honest store would: what a hostile writer with the key can do.
    pub fn replace(&self, of: ChunkType, id: &ChunkId, plain: &[u8]) {
        self.lock().chunks.insert((of, *id), Bytes::copy_from_slice(plain));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkSource for MemoryChunks {
    fn chunk(&self, of: ChunkType, id: &ChunkId, _deadline: Deadline) -> Result<Bytes, StoreError> {
        let mut state = self.lock();
        state.counts.gets += 1;
        let found = state.chunks.get(&(of, *id)).cloned();
        found.ok_or_else(|| StoreError::NotFound { what: format!("chunk {id}") })
    }
}

impl ChunkSink for MemoryChunks {
    fn put(&mut self, of: ChunkType, plain: &[u8]) -> Result<ChunkId, StoreError> {
        let id = Self::id(of, plain);
        let mut state = self.lock();
        state.counts.puts += 1;
        state.counts.longest = state.counts.longest.max(plain.len());
        if !state.chunks.contains_key(&(of, id)) {
            state.counts.new += 1;
            state.counts.new_bytes += plain.len() as u64;
            state.chunks.insert((of, id), Bytes::copy_from_slice(plain));
        }
        Ok(id)
    }
}

/// Small deterministic random numbers for tests (xorshift64*); print the seed with every failure.
#[derive(Clone, Debug)]
pub struct TestRandom {
    state: u64,
}

impl TestRandom {
    /// Numbers that follow from the seed alone.
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is above 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit.max(1)
    }

    /// `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next_u64() as u8).collect()
    }
}

/// An entry of one link that has nothing: no content, no tree, no target. Owned by root, mode 0o644.
pub fn bare_node(name: &[u8], kind: NodeKind) -> Node {
    Node {
        name: name.to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        user: None,
        group: None,
        mtime: Timestamp { seconds: 1_700_000_000, nanos: 123 },
        ctime: Timestamp { seconds: 1_700_000_001, nanos: 456 },
        size: 0,
        inode: 42,
        filesystem: 0,
        links: 1,
        flags: 0,
        content: None,
        subtree: None,
        target: None,
        device: None,
        xattrs: Vec::new(),
        extensions: Vec::new(),
    }
}

/// A small valid entry: an empty file, an empty directory (with a tree id that names nothing), a link to `t`, a device
/// 1:3… Owned by 1000:100.
pub fn sample_node(name: &[u8], kind: NodeKind) -> Node {
    let is_device = matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice);
    Node {
        uid: 1000,
        gid: 100,
        size: u64::from(kind == NodeKind::Symlink),
        content: (kind == NodeKind::File).then(Content::default),
        subtree: (kind == NodeKind::Directory).then_some(Subtree {
            tree: ChunkId([0; 32]),
            entries: 0,
            bytes: 0,
        }),
        target: (kind == NodeKind::Symlink).then(|| b"t".to_vec()),
        device: is_device.then_some((1, 3)),
        ..bare_node(name, kind)
    }
}

/// A directory of `entries`, which ascend by name.
pub fn build_directory<'a>(
    entries: impl IntoIterator<Item = &'a Node>,
    sink: &mut dyn ChunkSink,
) -> Result<BuiltDirectory, StoreError> {
    let mut builder = DirectoryBuilder::new();
    for entry in entries {
        builder.push(entry, sink)?;
    }
    builder.finish(sink)
}
