//! What a file contains (section 9.3 of the format).

use super::fields::{Fields, Read, hex, must};
use super::pack::{Id, Type};

const INLINE_LIMIT: usize = 64;
const PAGE_LIMIT: usize = 4096;
const DEPTH_LIMIT: u8 = 8;
const CHUNK_LIMIT: u32 = 16 << 20;

/// One stretch of a file.
#[derive(Clone)]
pub enum Extent {
    Data { id: Id, len: u32 },
    Hole { len: u64 },
}

impl Extent {
    pub fn len(&self) -> u64 {
        match self {
            Self::Data { len, .. } => u64::from(*len),
            Self::Hole { len } => *len,
        }
    }
}

/// One *Content*: extents, or list pages with the bytes below each.
#[derive(Clone)]
pub enum Content {
    Extents(Vec<Extent>),
    Pages { depth: u8, pages: Vec<(Id, u64)> },
}

impl Content {
    /// The content inside an entry.
    pub fn read_inline(fields: &mut Fields<'_>) -> Read<Self> {
        Self::read(fields, INLINE_LIMIT)
    }

    fn read(fields: &mut Fields<'_>, limit: usize) -> Read<Self> {
        let depth = fields.u8()?;
        must(depth <= DEPTH_LIMIT, "content is at most 8 levels deep")?;
        let content = if depth == 0 {
            let count = fields.count(9, limit)?;
            Self::Extents((0..count).map(|_| read_extent(fields)).collect::<Read<_>>()?)
        } else {
            let count = fields.count(40, limit)?;
            must(count > 0, "content of a depth above 0 has items")?;
            let pages = (0..count).map(|_| Ok((fields.array()?, fields.u64()?))).collect::<Read<_>>()?;
            Self::Pages { depth, pages }
        };
        content.len()?;
        Ok(content)
    }

    /// A list page: a *Content* of its own.
    pub fn read_page(bytes: &[u8]) -> Read<Self> {
        let mut fields = Fields::new(bytes);
        let content = Self::read(&mut fields, PAGE_LIMIT)?;
        fields.end()?;
        must(content.len()? > 0, "a list page has items")?;
        Ok(content)
    }

    fn depth(&self) -> u8 {
        match self {
            Self::Extents(_) => 0,
            Self::Pages { depth, .. } => *depth,
        }
    }

    /// The number of bytes in it, no part of which may be 0.
    pub fn len(&self) -> Read<u64> {
        let lens: Vec<u64> = match self {
            Self::Extents(extents) => extents.iter().map(Extent::len).collect(),
            Self::Pages { pages, .. } => pages.iter().map(|(_, len)| *len).collect(),
        };
        must(lens.iter().all(|len| *len > 0), "no length in a content is 0")?;
        let sum = lens.iter().try_fold(0u64, |sum, len| sum.checked_add(*len));
        must(sum.is_some(), "lengths do not exceed 2^64 - 1")?;
        Ok(sum.unwrap_or(0))
    }

    /// All extents in order; `chunk` fetches chunks.
    pub fn extents<'a>(self, chunk: &dyn Fn(Type, &Id) -> Read<&'a [u8]>) -> Read<Vec<Extent>> {
        let mut all = Vec::new();
        self.extents_into(chunk, &mut all)?;
        Ok(all)
    }

    fn extents_into<'a>(
        self,
        chunk: &dyn Fn(Type, &Id) -> Read<&'a [u8]>,
        all: &mut Vec<Extent>,
    ) -> Read<()> {
        match self {
            Self::Extents(extents) => all.extend(extents),
            Self::Pages { depth, pages } => {
                for (id, len) in pages {
                    let page = Self::read_page(chunk(Type::List, &id)?).map_err(|e| e.of(hex(&id)))?;
                    must(page.depth() == depth - 1, "a list page is one level lower")?;
                    must(page.len()? == len, "a list page has the bytes said above it")?;
                    page.extents_into(chunk, all)?;
                }
            }
        }
        Ok(())
    }
}

fn read_extent(fields: &mut Fields<'_>) -> Read<Extent> {
    match fields.u8()? {
        0 => {
            let (id, len) = (fields.array()?, fields.u32()?);
            must(len <= CHUNK_LIMIT, "a chunk is at most 16 MiB")?;
            Ok(Extent::Data { id, len })
        }
        1 => Ok(Extent::Hole { len: fields.u64()? }),
        kind => Err(super::fields::Refused::new(format!("unknown kind of extent {kind}"))),
    }
}
