//! Index objects: which packs hold which chunks, sorted, so that one chunk is found by a few range reads
//! (`docs/format.md`, section 8). They repeat what the packs' own directories say and can be made again from them.

use std::ops::Range;

use bytes::Bytes;

use crate::format::{FormatError, HEADER_LEN, Header, ObjectKind, Parser, Put};
use crate::id::{ChunkId, IndexId, ObjectId, PackId};
use crate::pack::{
    BLOCK_LIMIT, FOOTER_LEN, FRAMES_LIMIT, Frame, PACK_LIMIT, PackEntry, PackKind, PackedChunk,
};
use crate::padding;
use crate::seal::{BlockKind, BlockPlace, Compression, Sealer, uncompressed_len};

#[cfg(test)]
mod tests;

/// Bytes of a chunk in a page.
const CHUNK_LEN: usize = 32 + 3 * 4;
/// Bytes of a pack in a page, without its frames.
const PACK_LEN: usize = 32 + 16 + 2 * 4 + 8 + 4;
/// Bytes of a frame there.
const FRAME_LEN: usize = 8;
/// Chunks in a page: 45 KB, one request of any vault.
const PAGE_CHUNKS: usize = 1024;
/// A reader refuses pages with more.
const PAGE_CHUNKS_LIMIT: usize = 2048;
/// A pack page is closed when it is this long.
const PACK_PAGE_LEN: usize = 64 << 10;
/// A reader refuses longer index objects, and reads their packs' own directories: 256 packs of 32 MiB take some 6 MiB.
pub const INDEX_LIMIT: u64 = 256 << 20;
/// An index object has at least one in so many of the bytes of its packs: more than it needs for chunks of a megabyte, whose number
/// its length would tell, and too little to count.
const PACKS_SHARE: u64 = 2048;
/// Limit of what the pages of an object hold together, decoded. Pages that are squeezed, or to which the root points again and again, would
/// take any memory otherwise; written are some 6 MiB.
const CONTENT_LIMIT: usize = 256 << 20;
/// Limit of packs in one index object.
const PACKS_LIMIT: usize = 1 << 20;

/// Where a chunk lies, by an index object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexedChunk {
    /// Name.
    pub id: ChunkId,
    /// Ordinal of the pack in its index object.
    pub pack: u32,
    /// Offset in the pack's raw stream.
    pub start: u32,
    /// Length.
    pub len: u32,
}

/// A whole index object, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Packs by ordinal.
    pub packs: Vec<PackEntry>,
    /// Chunks, ascending by id, then by pack.
    pub chunks: Vec<IndexedChunk>,
    /// Index objects that this one replaces.
    pub supersedes: Vec<IndexId>,
}

impl Index {
    /// Adds a pack with its directory.
    pub fn add(&mut self, entry: PackEntry, chunks: &[PackedChunk]) {
        let pack = self.packs.len() as u32;
        let mut start = 0;
        for chunk in chunks {
            self.chunks.push(IndexedChunk { id: chunk.id, pack, start, len: chunk.len });
            start += chunk.len;
        }
        self.packs.push(entry);
    }

    /// Every pack with its chunks in the order of its raw stream: the directories that the object was made from.
    pub fn packs_with_chunks(&self) -> Vec<(&PackEntry, Vec<PackedChunk>)> {
        let mut by_pack: Vec<Vec<(u32, PackedChunk)>> = vec![Vec::new(); self.packs.len()];
        for c in &self.chunks {
            if let Some(chunks) = by_pack.get_mut(c.pack as usize) {
                chunks.push((c.start, PackedChunk { id: c.id, len: c.len }));
            }
        }
        let in_order = |mut chunks: Vec<(u32, PackedChunk)>| {
            chunks.sort_unstable_by_key(|(start, _)| *start);
            chunks.into_iter().map(|(_, chunk)| chunk).collect()
        };
        self.packs.iter().zip(by_pack.into_iter().map(in_order)).collect()
    }

    /// The sealed object and its name.
    pub fn seal(mut self, sealer: &Sealer) -> (IndexId, Bytes) {
        self.chunks.sort_unstable();
        let mut out = IndexWriter::new(sealer);
        let chunk_pages: Vec<_> = self.chunks.chunks(PAGE_CHUNKS).map(|page| out.chunk_page(page)).collect();
        let pack_pages = out.pack_pages(&self.packs);
        let least = self.packs.iter().map(|pack| pack.len).sum::<u64>() / PACKS_SHARE;
        let root = out.root(&encode_root(&chunk_pages, &pack_pages, &self.supersedes), least);
        let mut footer = Vec::with_capacity(64);
        footer.u64(root.start);
        footer.u32((root.end - root.start) as u32);
        footer.u32(self.packs.len() as u32);
        footer.u64(self.chunks.len() as u64);
        footer.raw(&[0; 40]);
        out.block(BlockKind::IndexFooter, &footer, Compression::None);
        let id = IndexId(*blake3::hash(&out.bytes).as_bytes());
        (id, out.bytes.into())
    }

    /// Decodes a whole object and checks its name and every rule of the format.
    pub fn open(sealer: &Sealer, id: IndexId, bytes: &[u8]) -> Result<Self, FormatError> {
        Self::open_within(sealer, id, bytes, CONTENT_LIMIT)
    }

    /// The same; `room` is how long all its pages may be together.
    fn open_within(sealer: &Sealer, id: IndexId, bytes: &[u8], mut room: usize) -> Result<Self, FormatError> {
        if *blake3::hash(bytes).as_bytes() != id.0 {
            return damaged("its bytes do not have its name");
        }
        let reader = IndexReader::open(sealer, bytes.len() as u64, |range| slice(bytes, range))?;
        let mut index = Self { supersedes: reader.root.supersedes.clone(), ..Self::default() };
        let mut takes = |len: usize| {
            room = room.checked_sub(len).ok_or_else(|| FormatError::damaged("its pages hold too much"))?;
            Ok::<(), FormatError>(())
        };
        for page in &reader.root.pack_pages {
            let packs = reader.pack_page(page, |range| slice(bytes, range))?;
            takes(packs.iter().map(|pack| PACK_LEN + pack.frames.len() * FRAME_LEN).sum())?;
            index.packs.extend(packs);
        }
        for page in &reader.root.chunk_pages {
            let chunks = reader.chunk_page(page, |range| slice(bytes, range))?;
            takes(chunks.len() * CHUNK_LEN)?;
            index.chunks.extend(chunks);
        }
        index.check(&reader)?;
        Ok(index)
    }

    fn check(&self, reader: &IndexReader<'_>) -> Result<(), FormatError> {
        if (self.packs.len() as u64, self.chunks.len() as u64)
            != (u64::from(reader.pack_count), reader.chunk_count)
        {
            return damaged("its counts do not agree with its footer");
        }
        if !self.chunks.is_sorted() {
            return damaged("its chunks are not in order");
        }
        let raw: Vec<u64> = self.packs.iter().map(PackEntry::raw_len).collect();
        let inside = |c: &IndexedChunk| {
            raw.get(c.pack as usize).is_some_and(|len| u64::from(c.start) + u64::from(c.len) <= *len)
        };
        if !self.chunks.iter().all(inside) {
            return damaged("a chunk lies outside of its pack");
        }
        Ok(())
    }
}

fn damaged<T>(detail: &str) -> Result<T, FormatError> {
    Err(FormatError::damaged(detail))
}

fn slice(bytes: &[u8], range: Range<u64>) -> Result<Vec<u8>, FormatError> {
    let range = range.start as usize..range.end as usize;
    bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| FormatError::damaged("it ends early"))
}

struct IndexWriter<'a> {
    sealer: &'a Sealer,
    object_id: ObjectId,
    bytes: Vec<u8>,
}

impl<'a> IndexWriter<'a> {
    fn new(sealer: &'a Sealer) -> Self {
        let object_id = sealer.new_object();
        let header = Header { kind: ObjectKind::Index, object_id, generation: sealer.generation() };
        Self { sealer, object_id, bytes: header.encode(sealer.vault()).to_vec() }
    }

    fn block(&mut self, kind: BlockKind, content: &[u8], compression: Compression) -> Range<u64> {
        let position = self.bytes.len() as u64;
        self.sealer.seal(&self.place(kind), content, compression, 0, &mut self.bytes);
        position..self.bytes.len() as u64
    }

    fn place(&self, kind: BlockKind) -> BlockPlace {
        let position = self.bytes.len() as u64;
        BlockPlace { kind, object_id: self.object_id, generation: self.sealer.generation(), position }
    }

    /// The root takes the fill that the object's length needs, which is to be `least` at least.
    fn root(&mut self, content: &[u8], least: u64) -> Range<u64> {
        let position = self.bytes.len() as u64;
        let after = position + FOOTER_LEN;
        let bare = after + uncompressed_len(content.len()) as u64;
        let len = padding::object_len(bare.max(least), INDEX_LIMIT) - after;
        let place = self.place(BlockKind::IndexRoot);
        self.sealer.seal(&place, content, Compression::None, len as usize, &mut self.bytes);
        position..self.bytes.len() as u64
    }

    fn chunk_page(&mut self, page: &[IndexedChunk]) -> ChunkPage {
        let mut content = Vec::with_capacity(4 + page.len() * 44);
        content.u32(page.len() as u32);
        for chunk in page {
            content.raw(&chunk.id.0);
            content.u32(chunk.pack);
            content.u32(chunk.start);
            content.u32(chunk.len);
        }
        let first = page.first().map_or(ChunkId([0; 32]), |c| c.id);
        let range = self.block(BlockKind::IndexChunks, &content, Compression::None);
        ChunkPage { first, range, count: page.len() as u32 }
    }

    fn pack_pages(&mut self, packs: &[PackEntry]) -> Vec<PackPage> {
        let mut pages = Vec::new();
        let mut content = Vec::new();
        let mut first = 0;
        for (i, pack) in packs.iter().enumerate() {
            encode_pack(pack, &mut content);
            if content.len() >= PACK_PAGE_LEN || i + 1 == packs.len() {
                let count = (i + 1 - first) as u32;
                content.splice(0..0, count.to_le_bytes());
                let range = self.block(BlockKind::IndexPacks, &content, Compression::Zstd(3));
                pages.push(PackPage { first: first as u32, range });
                content.clear();
                first = i + 1;
            }
        }
        pages
    }
}

fn encode_pack(pack: &PackEntry, out: &mut Vec<u8>) {
    out.raw(&pack.id.0);
    out.raw(&pack.object_id.0);
    out.u32(pack.generation);
    out.u32(pack.kind as u32);
    out.u64(pack.len);
    out.u32(pack.frames.len() as u32);
    for frame in &pack.frames {
        out.u32(frame.units);
        out.u32(frame.raw_len);
    }
}

fn encode_root(chunk_pages: &[ChunkPage], pack_pages: &[PackPage], supersedes: &[IndexId]) -> Vec<u8> {
    let mut out =
        Vec::with_capacity(12 + chunk_pages.len() * 48 + pack_pages.len() * 16 + supersedes.len() * 32);
    out.u32(chunk_pages.len() as u32);
    for page in chunk_pages {
        out.raw(&page.first.0);
        out.u64(page.range.start);
        out.u32((page.range.end - page.range.start) as u32);
        out.u32(page.count);
    }
    out.u32(pack_pages.len() as u32);
    for page in pack_pages {
        out.u32(page.first);
        out.u64(page.range.start);
        out.u32((page.range.end - page.range.start) as u32);
    }
    out.u32(supersedes.len() as u32);
    for id in supersedes {
        out.raw(&id.0);
    }
    out
}

/// Fence pointer to a page of chunks.
#[derive(Clone, Debug)]
struct ChunkPage {
    first: ChunkId,
    range: Range<u64>,
    count: u32,
}

/// Pointer to a page of packs.
#[derive(Clone, Debug)]
struct PackPage {
    first: u32,
    range: Range<u64>,
}

#[derive(Debug)]
struct Root {
    chunk_pages: Vec<ChunkPage>,
    pack_pages: Vec<PackPage>,
    supersedes: Vec<IndexId>,
}

/// Finds single chunks in an index object with a few range reads, holding only its root.
#[derive(Debug)]
pub struct IndexReader<'a> {
    sealer: &'a Sealer,
    header: Header,
    root: Root,
    pack_count: u32,
    chunk_count: u64,
}

impl<'a> IndexReader<'a> {
    /// Opens an object of `len` bytes; `read(range)` fetches exactly these bytes of it.
    pub fn open<E: From<FormatError>>(
        sealer: &'a Sealer,
        len: u64,
        mut read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        if len < HEADER_LEN as u64 + FOOTER_LEN {
            return Err(FormatError::damaged(format!("an index object of {len} bytes")).into());
        }
        let header = Header::decode(&read(0..HEADER_LEN as u64)?, ObjectKind::Index, Some(sealer.vault()))?;
        let at = len - FOOTER_LEN;
        let footer = sealer.open(&place(&header, BlockKind::IndexFooter, at), &read(at..len)?, 64)?;
        let (root_range, pack_count, chunk_count) = decode_footer(&footer)?;
        if root_range.end != at || root_range.start < HEADER_LEN as u64 {
            return Err(FormatError::damaged("place of the root").into());
        }
        let root_place = place(&header, BlockKind::IndexRoot, root_range.start);
        let root = decode_root(
            &sealer.open(&root_place, &read(root_range.clone())?, BLOCK_LIMIT)?,
            root_range.start,
        )?;
        Ok(Self { sealer, header, root, pack_count, chunk_count })
    }

    /// Where a chunk lies, with its pack; reads one page of chunks and one of packs.
    pub fn lookup<E: From<FormatError>>(
        &self,
        id: &ChunkId,
        mut read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
    ) -> Result<Option<(PackEntry, IndexedChunk)>, E> {
        let after = self.root.chunk_pages.partition_point(|page| page.first <= *id);
        let Some(page) = after.checked_sub(1).and_then(|i| self.root.chunk_pages.get(i)) else {
            return Ok(None);
        };
        let Some(chunk) = self.chunk_page(page, &mut read)?.into_iter().find(|c| c.id == *id) else {
            return Ok(None);
        };
        let after = self.root.pack_pages.partition_point(|page| page.first <= chunk.pack);
        let page = after.checked_sub(1).and_then(|i| self.root.pack_pages.get(i));
        let page = page.ok_or_else(|| FormatError::damaged("a pack ordinal before the first page"))?;
        let mut packs = self.pack_page(page, &mut read)?;
        let nth = (chunk.pack - page.first) as usize;
        if nth >= packs.len() {
            return Err(FormatError::damaged("a pack ordinal beyond its page").into());
        }
        Ok(Some((packs.swap_remove(nth), chunk)))
    }

    fn block<E: From<FormatError>>(
        &self,
        kind: BlockKind,
        range: &Range<u64>,
        mut read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let sealed = read(range.clone())?;
        Ok(self.sealer.open(&place(&self.header, kind, range.start), &sealed, BLOCK_LIMIT)?)
    }

    fn chunk_page<E: From<FormatError>>(
        &self,
        page: &ChunkPage,
        read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<IndexedChunk>, E> {
        let chunks = decode_chunk_page(&self.block(BlockKind::IndexChunks, &page.range, read)?)?;
        if chunks.len() != page.count as usize || chunks.first().is_none_or(|c| c.id != page.first) {
            return Err(FormatError::damaged("a page is not what its fence pointer says").into());
        }
        Ok(chunks)
    }

    fn pack_page<E: From<FormatError>>(
        &self,
        page: &PackPage,
        read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<PackEntry>, E> {
        Ok(decode_pack_page(&self.block(BlockKind::IndexPacks, &page.range, read)?)?)
    }
}

fn place(header: &Header, kind: BlockKind, position: u64) -> BlockPlace {
    BlockPlace { kind, object_id: header.object_id, generation: header.generation, position }
}

fn decode_footer(content: &[u8]) -> Result<(Range<u64>, u32, u64), FormatError> {
    let mut p = Parser::new(content);
    let (start, len) = (p.u64()?, p.u32()?);
    let (packs, chunks) = (p.u32()?, p.u64()?);
    p.take(40)?;
    p.end()?;
    Ok((start..start.saturating_add(u64::from(len)), packs, chunks))
}

fn decode_range(p: &mut Parser<'_>, end: u64) -> Result<Range<u64>, FormatError> {
    let (start, len) = (p.u64()?, u64::from(p.u32()?));
    let range = start..start.saturating_add(len);
    if range.start < HEADER_LEN as u64 || range.end > end || len > 2 * BLOCK_LIMIT as u64 {
        return damaged("a page lies outside of the object");
    }
    Ok(range)
}

fn decode_root(content: &[u8], end: u64) -> Result<Root, FormatError> {
    let mut p = Parser::new(content);
    let n = p.count("chunk pages", 48, usize::MAX)?;
    let mut chunk_pages = Vec::with_capacity(n);
    for _ in 0..n {
        let first = ChunkId(p.array()?);
        let range = decode_range(&mut p, end)?;
        chunk_pages.push(ChunkPage { first, range, count: p.u32()? });
    }
    let n = p.count("pack pages", 16, usize::MAX)?;
    let mut pack_pages = Vec::with_capacity(n);
    for _ in 0..n {
        let first = p.u32()?;
        pack_pages.push(PackPage { first, range: decode_range(&mut p, end)? });
    }
    let n = p.count("superseded index objects", 32, usize::MAX)?;
    let supersedes = (0..n).map(|_| Ok(IndexId(p.array()?))).collect::<Result<_, FormatError>>()?;
    p.end()?;
    if !chunk_pages.is_sorted_by(|a, b| a.first <= b.first)
        || !pack_pages.is_sorted_by(|a, b| a.first < b.first)
    {
        return damaged("its pages are not in order");
    }
    Ok(Root { chunk_pages, pack_pages, supersedes })
}

fn decode_chunk_page(content: &[u8]) -> Result<Vec<IndexedChunk>, FormatError> {
    let mut p = Parser::new(content);
    let n = p.count("chunks", CHUNK_LEN, PAGE_CHUNKS_LIMIT)?;
    let mut chunks = Vec::with_capacity(n);
    for _ in 0..n {
        chunks.push(IndexedChunk { id: ChunkId(p.array()?), pack: p.u32()?, start: p.u32()?, len: p.u32()? });
    }
    p.end()?;
    Ok(chunks)
}

fn decode_pack_page(content: &[u8]) -> Result<Vec<PackEntry>, FormatError> {
    let mut p = Parser::new(content);
    let n = p.count("packs", PACK_LEN, PACKS_LIMIT)?;
    let mut packs = Vec::with_capacity(n);
    for _ in 0..n {
        packs.push(decode_pack(&mut p)?);
    }
    p.end()?;
    Ok(packs)
}

fn decode_pack(p: &mut Parser<'_>) -> Result<PackEntry, FormatError> {
    let (id, object_id) = (PackId(p.array()?), ObjectId(p.array()?));
    let (generation, kind, len) = (p.u32()?, p.u32()?, p.u64()?);
    let kind = PackKind::from_number(kind).ok_or_else(|| FormatError::TooNew(format!("pack kind {kind}")))?;
    let n = p.count("frames", FRAME_LEN, FRAMES_LIMIT)?;
    let mut frames = Vec::with_capacity(n);
    for _ in 0..n {
        let frame = Frame { units: p.u32()?, raw_len: p.u32()? };
        if !frame.is_bounded() {
            return damaged("a frame's length");
        }
        frames.push(frame);
    }
    let entry = PackEntry { id, object_id, generation, kind, len, frames };
    let blocks: u64 = entry.frames.iter().map(|f| crate::pack::units_to_len(f.units)).sum();
    if entry.len > PACK_LIMIT
        || HEADER_LEN as u64 + blocks + FOOTER_LEN > entry.len
        || entry.raw_len() >= 1 << 32
    {
        return damaged("frames of a pack do not fit in it");
    }
    Ok(entry)
}
