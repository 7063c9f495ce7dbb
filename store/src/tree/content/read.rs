//! Finds extents of a file by offset, loading only the list pages on the way.

use crate::clock::Deadline;
use crate::error::StoreError;
use crate::format::FormatError;
use crate::id::ChunkId;
use crate::seal::ChunkType;
use crate::tree::{ChunkSource, Content, Extent};

/// The extent that holds byte `offset` and where it begins; `None` at and after the end of the file.
///
/// For more than one question about a file a [`ContentReader`] loads fewer pages.
pub fn extent_at(
    source: &dyn ChunkSource,
    content: &Content,
    offset: u64,
    deadline: Deadline,
) -> Result<Option<(u64, Extent)>, StoreError> {
    ContentReader::new(content.clone()).extent_at(source, offset, deadline)
}

/// Reads the content list of one file. Remembers the pages that led to the last answer (one per level), so that reading on
/// costs nothing and a jump costs at most one page per level. The source is given with each question: a reader can
/// be kept in the handle of an open file.
#[derive(Debug)]
pub struct ContentReader {
    /// From the list in the entry down to the page of extents last used.
    path: Vec<ListPage>,
}

#[derive(Debug)]
struct ListPage {
    start: u64,
    /// Offset in the file where each item ends.
    ends: Vec<u64>,
    items: Content,
}

/// What stands at an offset of a list page, with its begin in the file.
enum Found {
    Extent(u64, Extent),
    Page { start: u64, len: u64, id: ChunkId, depth: u8 },
}

impl ListPage {
    fn new(start: u64, items: Content) -> Self {
        let mut end = start;
        let mut add = |len: u64| {
            end = end.saturating_add(len);
            end
        };
        let ends = match &items {
            Content::Inline(extents) => extents.iter().map(|extent| add(extent.len())).collect(),
            Content::Paged { pages, .. } => pages.iter().map(|(_, len)| add(*len)).collect(),
        };
        Self { start, ends, items }
    }

    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(self.start)
    }

    fn holds(&self, offset: u64) -> bool {
        (self.start..self.end()).contains(&offset)
    }

    fn find(&self, offset: u64) -> Option<Found> {
        let at = self.ends.partition_point(|end| *end <= offset);
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before).copied()).unwrap_or(self.start);
        match &self.items {
            Content::Inline(extents) => extents.get(at).map(|extent| Found::Extent(start, *extent)),
            Content::Paged { depth, pages } => {
                let (id, len) = *pages.get(at)?;
                Some(Found::Page { start, len, id, depth: depth.saturating_sub(1) })
            }
        }
    }
}

impl ContentReader {
    /// For the list of an entry.
    pub fn new(content: Content) -> Self {
        Self { path: vec![ListPage::new(0, content)] }
    }

    /// Length of the file.
    pub fn len(&self) -> u64 {
        self.path.first().map_or(0, ListPage::end)
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The extent that holds byte `offset` and where it begins; `None` at and after the end of the file. Errors are
    /// the source's, or `Corrupt` with the list page named.
    pub fn extent_at(
        &mut self,
        source: &dyn ChunkSource,
        offset: u64,
        deadline: Deadline,
    ) -> Result<Option<(u64, Extent)>, StoreError> {
        while self.path.len() > 1 && self.path.last().is_some_and(|page| !page.holds(offset)) {
            self.path.pop();
        }
        loop {
            match self.path.last().and_then(|page| page.find(offset)) {
                None => return Ok(None),
                Some(Found::Extent(start, extent)) => return Ok(Some((start, extent))),
                Some(Found::Page { start, len, id, depth }) => {
                    let items = load(source, &id, depth, len, deadline)?;
                    self.path.push(ListPage::new(start, items));
                }
            }
        }
    }

    /// All extents from the one that holds byte `offset` on, each with its begin. Ends after the first error.
    pub fn extents<'a>(
        &'a mut self,
        source: &'a dyn ChunkSource,
        offset: u64,
        deadline: Deadline,
    ) -> Extents<'a> {
        Extents { reader: self, source, next: Some(offset), deadline }
    }

    /// First byte of data at or after `offset`, as `lseek` with `SEEK_DATA`; `None` (`ENXIO`) if there is none.
    pub fn seek_data(
        &mut self,
        source: &dyn ChunkSource,
        offset: u64,
        deadline: Deadline,
    ) -> Result<Option<u64>, StoreError> {
        self.seek(source, offset, deadline, |extent| matches!(extent, Extent::Data { .. }))
    }

    /// First byte of a hole at or after `offset`, as `lseek` with `SEEK_HOLE`: the end of the file is one; `None`
    /// (`ENXIO`) if `offset` is there or beyond. In a long file without holes this reads the whole list.
    pub fn seek_hole(
        &mut self,
        source: &dyn ChunkSource,
        offset: u64,
        deadline: Deadline,
    ) -> Result<Option<u64>, StoreError> {
        let len = self.len();
        if offset >= len {
            return Ok(None);
        }
        let found = self.seek(source, offset, deadline, |extent| matches!(extent, Extent::Hole { .. }))?;
        Ok(Some(found.unwrap_or(len)))
    }

    fn seek(
        &mut self,
        source: &dyn ChunkSource,
        offset: u64,
        deadline: Deadline,
        wanted: fn(&Extent) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        for extent in self.extents(source, offset, deadline) {
            let (start, extent) = extent?;
            if wanted(&extent) {
                return Ok(Some(start.max(offset)));
            }
        }
        Ok(None)
    }
}

/// Loads a list page and holds it against what the page above says of it.
fn load(
    source: &dyn ChunkSource,
    id: &ChunkId,
    depth: u8,
    len: u64,
    deadline: Deadline,
) -> Result<Content, StoreError> {
    let bytes = source.chunk(ChunkType::List, id, deadline)?;
    let damaged = |e: FormatError| e.of(format!("list page {id}"));
    let content = Content::parse(&bytes).map_err(damaged)?;
    if content.depth() != depth || content.len() != len {
        let detail = format!(
            "depth {} and {} bytes where the page above says {depth} and {len}",
            content.depth(),
            content.len()
        );
        return Err(damaged(FormatError::Damaged(detail)));
    }
    Ok(content)
}

/// Extents in order; see [`ContentReader::extents`].
pub struct Extents<'a> {
    reader: &'a mut ContentReader,
    source: &'a dyn ChunkSource,
    next: Option<u64>,
    deadline: Deadline,
}

impl std::fmt::Debug for Extents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extents").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<(u64, Extent), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.next.take()?;
        match self.reader.extent_at(self.source, offset, self.deadline) {
            Ok(None) => None,
            Ok(Some((start, extent))) => {
                self.next = start.checked_add(extent.len());
                Some(Ok((start, extent)))
            }
            Err(error) => Some(Err(error)),
        }
    }
}
