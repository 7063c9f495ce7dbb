//! List pages for an answer that need not be exact: it is given up where it would fetch from a vault, or read too many.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_store::clock::Deadline;
use holdfast_store::error::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::seal::ChunkType;
use holdfast_store::tree::ChunkSource;

/// Pages that are read for one answer: a file of about 2 TB without holes has as many.
pub const PAGES_MAX: u64 = 4096;

/// Pages out of a source, as long as they are near and few.
pub struct NearPages<'a, F> {
    source: &'a dyn ChunkSource,
    is_far: F,
    /// Pages asked for; above [`PAGES_MAX`] once it was given up.
    asked: AtomicU64,
}

impl<'a, F: Fn(&ChunkId) -> bool> NearPages<'a, F> {
    /// Out of `source`, of which those that `is_far` says are left alone.
    pub fn new(source: &'a dyn ChunkSource, is_far: F) -> Self {
        Self { source, is_far, asked: AtomicU64::new(0) }
    }

    /// Whether a page was refused.
    pub fn gave_up(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > PAGES_MAX
    }
}

impl<F: Fn(&ChunkId) -> bool + Send + Sync> ChunkSource for NearPages<'_, F> {
    fn chunk(&self, of: ChunkType, id: &ChunkId, deadline: Deadline) -> Result<Bytes, StoreError> {
        let cost = if (self.is_far)(id) { PAGES_MAX + 1 } else { 1 };
        self.asked.fetch_add(cost, Ordering::Relaxed);
        if self.gave_up() { Err(StoreError::Cancelled) } else { self.source.chunk(of, id, deadline) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pages;

    impl ChunkSource for Pages {
        fn chunk(&self, _: ChunkType, _: &ChunkId, _: Deadline) -> Result<Bytes, StoreError> {
            Ok(Bytes::from_static(b"page"))
        }
    }

    fn ask<F: Fn(&ChunkId) -> bool + Send + Sync>(pages: &NearPages<'_, F>, id: u8) -> bool {
        pages.chunk(ChunkType::List, &ChunkId([id; 32]), Deadline::NEVER).is_ok()
    }

    #[test]
    fn a_page_that_is_far_ends_it() {
        let pages = NearPages::new(&Pages, |id| id.0[0] == 7);
        assert!(ask(&pages, 1) && ask(&pages, 2) && !pages.gave_up());
        assert!(!ask(&pages, 7) && pages.gave_up() && !ask(&pages, 1));
    }

    #[test]
    fn a_page_too_many_ends_it() {
        let pages = NearPages::new(&Pages, |_| false);
        assert!((0..PAGES_MAX).all(|_| ask(&pages, 1)) && !pages.gave_up());
        assert!(!ask(&pages, 1) && pages.gave_up());
    }
}
