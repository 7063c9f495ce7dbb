//! List pages for an answer that need not be exact: it is given up where it would read too many.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_store::clock::Deadline;
use holdfast_store::error::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::seal::ChunkType;
use holdfast_store::tree::ChunkSource;

/// Pages that are read for one answer: a file of about 2 TB without holes has as many.
pub const PAGES_MAX: u64 = 4096;

/// Pages out of a source, as long as they are few.
pub struct FewPages<'a> {
    source: &'a dyn ChunkSource,
    asked: AtomicU64,
}

impl<'a> FewPages<'a> {
    /// Out of `source`.
    pub fn new(source: &'a dyn ChunkSource) -> Self {
        Self { source, asked: AtomicU64::new(0) }
    }

    /// Whether a page was refused.
    pub fn gave_up(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > PAGES_MAX
    }
}

impl ChunkSource for FewPages<'_> {
    fn chunk(&self, of: ChunkType, id: &ChunkId, deadline: Deadline) -> Result<Bytes, StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
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

    #[test]
    fn a_page_too_many_ends_it() {
        let pages = FewPages::new(&Pages);
        let ask = || pages.chunk(ChunkType::List, &ChunkId([1; 32]), Deadline::NEVER).is_ok();
        assert!((0..PAGES_MAX).all(|_| ask()) && !pages.gave_up());
        assert!(!ask() && pages.gave_up());
    }
}
