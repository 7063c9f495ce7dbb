//! What a file contains, as a list of extents that may be longer than memory (`docs/format.md`, section 9.3).
//!
//! A file of a terabyte has a million extents. So a list is a tree of pages too, cut where the ids of its items say so:
//! one changed extent rewrites one page per level. [`ContentBuilder`] writes such lists, [`ContentReader`] reads
//! them, both with no more than a page per level in memory.

mod build;
mod read;
#[cfg(test)]
mod tests;

pub use build::ContentBuilder;
pub use read::{ContentReader, Extents, extent_at};

use crate::format::{FormatError, Parser, Put};
use crate::id::ChunkId;
use crate::tree::{Content, Extent};

/// Most items of a list that stands in an entry.
pub const MAX_INLINE: usize = 64;
/// Most items of a list page.
pub const MAX_PAGE_ITEMS: usize = 4096;
/// Most levels of pages.
pub const MAX_DEPTH: u8 = 8;
/// Longest chunk.
pub const MAX_CHUNK: u32 = 16 * 1024 * 1024;
/// Shortest extent: a hole.
const EXTENT_MIN: usize = 9;
const PAGE_ITEM: usize = 32 + 8;
const DATA: u8 = 0;
const HOLE: u8 = 1;

impl Content {
    /// Number of bytes of the file.
    ///
    /// Lists of more than 2^64 bytes cannot be parsed; of one made by hand the sum saturates.
    pub fn len(&self) -> u64 {
        let sum = |lens: &mut dyn Iterator<Item = u64>| lens.fold(0u64, u64::saturating_add);
        match self {
            Self::Inline(extents) => sum(&mut extents.iter().map(Extent::len)),
            Self::Paged { pages, .. } => sum(&mut pages.iter().map(|(_, len)| *len)),
        }
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of items: extents or pages of the first level.
    pub fn items(&self) -> usize {
        match self {
            Self::Inline(extents) => extents.len(),
            Self::Paged { pages, .. } => pages.len(),
        }
    }

    /// Levels of pages below.
    pub fn depth(&self) -> u8 {
        match self {
            Self::Inline(_) => 0,
            Self::Paged { depth, .. } => *depth,
        }
    }

    /// A name of the content, made from the list alone: files with equal names hold the same bytes. Within a store, files
    /// with the same bytes and the same holes have equal names; those of other stores do not, since chunk ids are keyed.
    pub fn fingerprint(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }

    /// The bytes of a list page.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(5 + self.items() * (PAGE_ITEM + 1));
        put(&mut out, self);
        out
    }

    /// Reads a list page: 1 to 4,096 items and nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut p = Parser::new(bytes);
        let content = take(&mut p, MAX_PAGE_ITEMS)?;
        p.end()?;
        check(&content, MAX_PAGE_ITEMS)?;
        if content.items() == 0 {
            return Err(FormatError::damaged("a list page is empty"));
        }
        Ok(content)
    }
}

/// Appends a list.
pub(super) fn put(out: &mut Vec<u8>, content: &Content) {
    out.u8(content.depth());
    out.u32(content.items() as u32);
    match content {
        Content::Inline(extents) => extents.iter().for_each(|extent| put_extent(out, extent)),
        Content::Paged { pages, .. } => {
            for (id, len) in pages {
                out.raw(&id.0);
                out.u64(*len);
            }
        }
    }
}

fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    match extent {
        Extent::Data { id, len } => {
            out.u8(DATA);
            out.raw(&id.0);
            out.u32(*len);
        }
        Extent::Hole { len } => {
            out.u8(HOLE);
            out.u64(*len);
        }
    }
}

/// Takes a list of at most `limit` items; [`check`] has the rules about their lengths.
pub(super) fn take(p: &mut Parser<'_>, limit: usize) -> Result<Content, FormatError> {
    let depth = p.u8()?;
    if depth == 0 {
        let n = p.count("extents", EXTENT_MIN, limit)?;
        let mut extents = Vec::with_capacity(n);
        for _ in 0..n {
            extents.push(take_extent(p)?);
        }
        return Ok(Content::Inline(extents));
    }
    let n = p.count("list pages", PAGE_ITEM, limit)?;
    let mut pages = Vec::with_capacity(n);
    for _ in 0..n {
        pages.push((ChunkId(p.array()?), p.u64()?));
    }
    Ok(Content::Paged { depth, pages })
}

fn take_extent(p: &mut Parser<'_>) -> Result<Extent, FormatError> {
    match p.u8()? {
        DATA => Ok(Extent::Data { id: ChunkId(p.array()?), len: p.u32()? }),
        HOLE => Ok(Extent::Hole { len: p.u64()? }),
        other => Err(FormatError::damaged(format!("no kind of extent is {other}"))),
    }
}

/// The rules that a list must obey; returns the bytes of the file.
pub(super) fn check(content: &Content, limit: usize) -> Result<u64, FormatError> {
    let (items, depth) = (content.items(), content.depth());
    if items > limit {
        return Err(FormatError::damaged(format!("a content list of {items} items, above {limit}")));
    }
    match content {
        Content::Inline(extents) => {
            extents.iter().try_for_each(check_extent)?;
            total(extents.iter().map(Extent::len))
        }
        Content::Paged { pages, .. } => {
            if !(1..=MAX_DEPTH).contains(&depth) || items == 0 {
                return Err(FormatError::damaged(format!(
                    "a content list of depth {depth} and {items} pages"
                )));
            }
            total(pages.iter().map(|(_, len)| *len))
        }
    }
}

fn check_extent(extent: &Extent) -> Result<(), FormatError> {
    match extent {
        Extent::Data { len, .. } if *len > MAX_CHUNK => {
            Err(FormatError::damaged(format!("an extent of {len} bytes, above 16 MiB")))
        }
        _ => Ok(()),
    }
}

fn total(lens: impl Iterator<Item = u64>) -> Result<u64, FormatError> {
    let mut sum = 0u64;
    for len in lens {
        sum = sum
            .checked_add(len)
            .filter(|_| len > 0)
            .ok_or_else(|| FormatError::damaged("an item of a content list is empty or too long"))?;
    }
    Ok(sum)
}
