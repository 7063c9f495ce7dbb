//! Writes the content list of one file while its chunks appear.

use crate::error::StoreError;
use crate::id::ChunkId;
use crate::seal::ChunkType;
use crate::tree::content::{MAX_DEPTH, MAX_INLINE, MAX_PAGE_ITEMS, check_extent};
use crate::tree::{ChunkSink, Content, Extent};

/// A page ends no earlier.
const MIN_PAGE_ITEMS: usize = 64;
/// A page ends after an item whose id begins with a number below this: 1 in 512.
const BORDER: u32 = 1 << 23;

/// Turns a stream of extents into a [`Content`]. Pages are put as they fill; at most one page per level is in memory.
///
/// Equal streams give equal contents, whatever came before. Adjacent holes become one.
#[derive(Debug, Default)]
pub struct ContentBuilder {
    extents: Level<Extent>,
    above: Vec<Level<(ChunkId, u64)>>,
    hole: u64,
    len: u64,
}

impl ContentBuilder {
    /// For an empty file so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends an extent. `Invalid` if it is empty, longer than a chunk can be, or makes the file longer than 2^64 bytes;
    /// other errors are the sink's.
    pub fn push(&mut self, extent: Extent, sink: &mut dyn ChunkSink) -> Result<(), StoreError> {
        if extent.is_empty() {
            return Err(StoreError::invalid("an extent of no bytes"));
        }
        check_extent(&extent).map_err(|e| StoreError::invalid(e.to_string()))?;
        let len = self
            .len
            .checked_add(extent.len())
            .ok_or_else(|| StoreError::invalid("a file above 2^64 bytes"))?;
        match extent {
            Extent::Hole { len } => self.hole += len,
            Extent::Data { .. } => {
                self.put_hole(sink)?;
                self.append(extent, sink)?;
            }
        }
        self.len = len;
        Ok(())
    }

    /// Puts what is left and returns the list for the entry.
    pub fn finish(mut self, sink: &mut dyn ChunkSink) -> Result<Content, StoreError> {
        self.put_hole(sink)?;
        if self.extents.is_whole() {
            return Ok(Content::Inline(self.extents.items));
        }
        let rest = Content::Inline(std::mem::take(&mut self.extents.items));
        self.put_page(0, &rest, sink)?;
        let mut depth = 1;
        loop {
            let level = &mut self.above[depth - 1];
            let pages = std::mem::take(&mut level.items);
            let content = Content::Paged { depth: depth as u8, pages };
            if level.cuts == 0 && content.items() <= MAX_INLINE {
                return Ok(content);
            }
            self.put_page(depth, &content, sink)?;
            depth += 1;
        }
    }

    fn put_hole(&mut self, sink: &mut dyn ChunkSink) -> Result<(), StoreError> {
        match std::mem::take(&mut self.hole) {
            0 => Ok(()),
            len => self.append(Extent::Hole { len }, sink),
        }
    }

    fn append(&mut self, extent: Extent, sink: &mut dyn ChunkSink) -> Result<(), StoreError> {
        if self.extents.at_border {
            let page = Content::Inline(self.extents.cut());
            self.put_page(0, &page, sink)?;
        }
        let mark = match extent {
            Extent::Data { id, .. } => first_u32(&id),
            Extent::Hole { .. } => 0,
        };
        self.extents.push(extent, mark);
        Ok(())
    }

    /// Puts a page of `depth` and enters it in the level above, which may fill a page there, and so on.
    fn put_page(&mut self, depth: usize, page: &Content, sink: &mut dyn ChunkSink) -> Result<(), StoreError> {
        if depth >= usize::from(MAX_DEPTH) {
            return Err(StoreError::invalid("a content list deeper than 8 levels"));
        }
        let id = sink.put(ChunkType::List, &page.encode())?;
        if self.above.len() == depth {
            self.above.push(Level::default());
        }
        if self.above[depth].at_border {
            let pages = self.above[depth].cut();
            self.put_page(depth + 1, &Content::Paged { depth: depth as u8 + 1, pages }, sink)?;
        }
        self.above[depth].push((id, page.len()), first_u32(&id));
        Ok(())
    }
}

fn first_u32(id: &ChunkId) -> u32 {
    let [a, b, c, d, ..] = id.0;
    u32::from_le_bytes([a, b, c, d])
}

/// The open page of a level. It is cut when the next item comes, not before: only then it is known that the list goes on.
#[derive(Debug)]
struct Level<T> {
    items: Vec<T>,
    at_border: bool,
    cuts: u64,
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self { items: Vec::new(), at_border: false, cuts: 0 }
    }
}

impl<T> Level<T> {
    fn push(&mut self, item: T, mark: u32) {
        self.items.push(item);
        let n = self.items.len();
        self.at_border = n >= MAX_PAGE_ITEMS || (n >= MIN_PAGE_ITEMS && mark < BORDER);
    }

    fn cut(&mut self) -> Vec<T> {
        self.at_border = false;
        self.cuts += 1;
        std::mem::take(&mut self.items)
    }

    /// Whether the whole list is here and short enough for the entry.
    fn is_whole(&self) -> bool {
        self.cuts == 0 && self.items.len() <= MAX_INLINE
    }
}
