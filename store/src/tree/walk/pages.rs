//! Where parsed pages come from: chunks, parsed once and kept while there is room.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::ChunkId;
use crate::seal::ChunkType;
use crate::tree::ChunkSource;
use crate::tree::page::Page;

/// Loads and parses pages of directories. Cheap to clone; clones share source and cache.
#[derive(Clone)]
pub struct Pages {
    source: Arc<dyn ChunkSource>,
    cache: Option<Arc<PageCache>>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl Pages {
    /// Without a cache, for walks that see each page once.
    pub fn new(source: Arc<dyn ChunkSource>) -> Self {
        Self { source, cache: None }
    }

    /// With a cache, which may be shared with others of the same store: pages are named by what they contain.
    pub fn cached(source: Arc<dyn ChunkSource>, cache: Arc<PageCache>) -> Self {
        Self { source, cache: Some(cache) }
    }

    /// A page. Errors are the source's, or `Corrupt` or `TooNew` with the page named.
    pub fn page(&self, id: &ChunkId, deadline: Deadline) -> Result<Arc<Page>, StoreError> {
        if let Some(page) = self.cache.as_ref().and_then(|cache| cache.get(id)) {
            return Ok(page);
        }
        let bytes = self.source.chunk(ChunkType::Tree, id, deadline)?;
        let page = Page::parse(&bytes).map_err(|e| e.of(format!("directory page {id}")))?;
        let page = Arc::new(page);
        if let Some(cache) = &self.cache {
            cache.insert(*id, page.clone());
        }
        Ok(page)
    }
}

/// Parsed pages, least recently used first out, bounded by the memory they take.
pub struct PageCache {
    limit: usize,
    state: Mutex<State>,
}

struct State {
    pages: LruCache<ChunkId, (Arc<Page>, usize)>,
    bytes: usize,
}

/// What a page takes besides what it holds: key, links of the list, counters.
const OVERHEAD: usize = 160;

impl fmt::Debug for PageCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageCache({} of {} bytes)", self.bytes(), self.limit)
    }
}

impl PageCache {
    /// Keeps pages of about `limit` bytes together.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::new(State { pages: LruCache::unbounded(), bytes: 0 }) }
    }

    /// A page, if it is kept.
    pub fn get(&self, id: &ChunkId) -> Option<Arc<Page>> {
        self.lock().pages.get(id).map(|(page, _)| page.clone())
    }

    /// Keeps a page and lets go of the longest unused ones for it. A page above the limit is not kept.
    pub fn insert(&self, id: ChunkId, page: Arc<Page>) {
        let size = page.memory() + OVERHEAD;
        if size > self.limit {
            return;
        }
        let mut state = self.lock();
        state.bytes += size;
        if let Some((_, before)) = state.pages.put(id, (page, size)) {
            state.bytes -= before;
        }
        while state.bytes > self.limit {
            let Some((_, (_, size))) = state.pages.pop_lru() else { break };
            state.bytes -= size;
        }
    }

    /// Memory that the kept pages take, about.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
