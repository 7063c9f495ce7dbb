//! Blocks in memory, the least recently used out first.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;

use super::Key;

#[derive(Debug)]
pub(super) struct MemoryBlocks {
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    blocks: LruCache<Key, Bytes>,
    bytes: u64,
}

impl MemoryBlocks {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, state: Mutex::new(State { blocks: LruCache::unbounded(), bytes: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        self.lock().blocks.get(key).cloned()
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.lock().blocks.contains(key)
    }

    pub(super) fn put(&self, key: Key, bytes: &Bytes) {
        if bytes.len() as u64 > self.limit {
            return;
        }
        // It may be a part of what came with one request, which would be kept as long as this is.
        let own = Bytes::copy_from_slice(bytes);
        let mut state = self.lock();
        state.bytes += own.len() as u64;
        if let Some(old) = state.blocks.put(key, own) {
            state.bytes -= old.len() as u64;
        }
        while state.bytes > self.limit {
            let Some((_, gone)) = state.blocks.pop_lru() else { break };
            state.bytes -= gone.len() as u64;
        }
    }

    pub(super) fn remove(&self, key: &Key) {
        let mut state = self.lock();
        if let Some(gone) = state.blocks.pop(key) {
            state.bytes -= gone.len() as u64;
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }
}
