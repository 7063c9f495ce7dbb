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
    #[cfg(test)]
    gets: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            blocks: LruCache::unbounded(),
            bytes: 0,
            #[cfg(test)]
            gets: 0,
        }
    }
}

impl MemoryBlocks {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, state: Mutex::new(State::default()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        let mut state = self.lock();
        #[cfg(test)]
        {
            state.gets += 1;
        }
        state.blocks.get(key).cloned()
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.lock().blocks.contains(key)
    }

    pub(super) fn put(&self, key: Key, bytes: &[u8]) {
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

    /// How often a block was asked for.
    #[cfg(test)]
    pub(super) fn gets(&self) -> u64 {
        self.lock().gets
    }

    /// Whoever asks waits until what this gives is dropped.
    #[cfg(test)]
    pub(super) fn hang(&self) -> impl Sized {
        self.lock()
    }
}
