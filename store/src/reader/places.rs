//! Where chunks lie, as far as somebody asked lately: a look in the catalog takes longer than answering from memory.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::catalog::Location;
use crate::id::ChunkId;

/// Places kept: about 5 MB.
const KEPT: NonZeroUsize = NonZeroUsize::new(32_768).expect("not zero");

/// The places used last. One that is out of date leads to a pack that is gone, never to other bytes: packs do not change, their numbers
/// are not used again, and a place knows its pack ([`Location::is_of`]).
#[derive(Debug)]
pub(super) struct Places(Mutex<LruCache<ChunkId, Location>>);

impl Places {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<ChunkId, Location>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: &ChunkId) -> Option<Location> {
        self.lock().get(id).copied()
    }

    pub(super) fn put(&self, id: ChunkId, at: Location) {
        self.lock().put(id, at);
    }

    /// Adds places of which some may be known; those stay.
    pub(super) fn learn(&self, places: &[(ChunkId, Location)]) {
        let mut known = self.lock();
        for (id, at) in places {
            if !known.contains(id) {
                known.put(*id, *at);
            }
        }
    }

    pub(super) fn forget(&self, id: &ChunkId) {
        self.lock().pop(id);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}
