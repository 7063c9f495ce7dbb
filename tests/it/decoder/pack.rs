//! Packs and the index objects that repeat their directories (sections 7 to 9 of the format).

use super::fields::{Fields, Read, Refused, hex, must};
use super::seal::{FRAME_LIMIT, Header, INDEX, PACK, Place, Ring};

pub type Id = [u8; 32];

const PACK_LIMIT: usize = 1 << 30;
const CHUNK_LIMIT: u32 = 16 << 20;
const COUNT_LIMIT: usize = 1 << 20;
const FOOTER_LEN: usize = 128;
const PAGE_LIMIT: u32 = 2048;

/// The three kinds of chunks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Type {
    Data = 1,
    Page = 2,
    List = 3,
}

#[derive(PartialEq, Eq, Debug)]
pub struct Frame {
    pub position: u64,
    pub block_len: u32,
    pub raw_len: u32,
}

/// A chunk in the raw stream of its pack.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Chunk {
    pub id: Id,
    pub start: u32,
    pub len: u32,
}

/// A pack, wholly decoded and checked.
pub struct Pack {
    pub name: Id,
    pub header: Header,
    pub len: u64,
    /// 1 data, 2 tree.
    pub kind: u32,
    pub frames: Vec<Frame>,
    /// In the order of the raw stream, with their types.
    pub chunks: Vec<(Chunk, Type)>,
    pub stream: Vec<u8>,
}

/// A chunk's id and length, as a directory has them.
type Named = (Id, u32);

struct Footer {
    kind: u32,
    frames: u32,
    chunks: u32,
    directory: std::ops::Range<usize>,
    raw_len: u64,
}

impl Pack {
    /// Reads a pack that lies under `name`; chunk ids are of the generation `identity`.
    pub fn read(name: Id, bytes: &[u8], ring: &Ring, identity: u32) -> Read<Self> {
        must(bytes.len() <= PACK_LIMIT, "a pack is at most 1 GiB")?;
        must(*blake3::hash(bytes).as_bytes() == name, "a pack's name is the hash of its bytes")?;
        let header = Header::read(bytes, PACK, &ring.vault)?;
        let footer = Footer::read(bytes, &header, ring)?;
        let place = Place { kind: 3, position: footer.directory.start as u64 };
        let directory = ring.open(&header, place, &bytes[footer.directory.clone()])?;
        let (frames, lens) = read_directory(&directory, &footer)?;
        let stream = read_frames(bytes, &header, footer.kind, &frames, ring)?;
        must(stream.len() as u64 == footer.raw_len, "the frames make up the raw stream")?;
        let key = ring.subkey(identity, "chunk id")?;
        let chunks = name_chunks(&key, footer.kind, &lens, &stream)?;
        Ok(Self { name, header, len: bytes.len() as u64, kind: footer.kind, frames, chunks, stream })
    }

    pub fn bytes_of(&self, chunk: &Chunk) -> &[u8] {
        &self.stream[chunk.start as usize..][..chunk.len as usize]
    }

    /// Where the content of the frame at `position` begins in the raw stream, and the frame.
    pub fn frame_at(&self, position: u64) -> Option<(u64, &Frame)> {
        let at = self.frames.iter().position(|frame| frame.position == position)?;
        Some((self.frames[..at].iter().map(|f| u64::from(f.raw_len)).sum(), &self.frames[at]))
    }
}

impl Footer {
    fn read(bytes: &[u8], header: &Header, ring: &Ring) -> Read<Self> {
        must(bytes.len() >= 64 + FOOTER_LEN, "a pack has a header and a footer")?;
        let at = bytes.len() - FOOTER_LEN;
        let content = ring.open(header, Place { kind: 4, position: at as u64 }, &bytes[at..])?;
        let mut fields = Fields::new(&content);
        let (kind, frames, chunks) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (len, offset, raw_len) = (fields.u32()? as usize, fields.u64()?, fields.u64()?);
        fields.take(32)?;
        fields.end()?;
        must(kind == 1 || kind == 2, "a pack is a data or a tree pack")?;
        must(raw_len < 1 << 32, "the raw stream is below 2^32")?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        must(start.checked_add(len) == Some(at), "the directory lies right before the footer")?;
        Ok(Self { kind, frames, chunks, directory: start..at, raw_len })
    }
}

fn read_directory(content: &[u8], footer: &Footer) -> Read<(Vec<Frame>, Vec<Named>)> {
    let mut fields = Fields::new(content);
    let frames = read_frame_list(&mut fields)?;
    let mut chunks = Vec::new();
    for _ in 0..fields.count(36, COUNT_LIMIT)? {
        chunks.push((fields.array()?, fields.u32()?));
    }
    fields.end()?;
    must(frames.len() == footer.frames as usize, "directory and footer count the same frames")?;
    must(chunks.len() == footer.chunks as usize, "directory and footer count the same chunks")?;
    let frames_end = frames.last().map_or(64, |f| f.position + u64::from(f.block_len));
    must(frames_end == footer.directory.start as u64, "the frames reach to the directory")?;
    let raw: u64 = frames.iter().map(|f| u64::from(f.raw_len)).sum();
    must(raw == footer.raw_len, "the frames' raw lengths add up")?;
    let cut: u64 = chunks.iter().map(|(_, len)| u64::from(*len)).sum();
    must(cut == footer.raw_len, "the chunks' lengths add up")?;
    must(chunks.iter().all(|(_, len)| *len <= CHUNK_LIMIT), "a chunk is at most 16 MiB")?;
    Ok((frames, chunks))
}

/// `u32` count and the frames, as a pack's directory and an index's pack page have them.
fn read_frame_list(fields: &mut Fields<'_>) -> Read<Vec<Frame>> {
    let (mut frames, mut position) = (Vec::new(), 64);
    for _ in 0..fields.count(8, COUNT_LIMIT)? {
        let (units, raw_len) = (fields.u32()?, fields.u32()?);
        must((1..=PACK_LIMIT as u32 / 64).contains(&units), "a frame's block has 64 bytes to 1 GiB")?;
        must(raw_len as usize <= FRAME_LIMIT, "a frame's content is at most 4 MiB")?;
        let block_len = units * 64;
        frames.push(Frame { position, block_len, raw_len });
        position += u64::from(block_len);
    }
    Ok(frames)
}

fn read_frames(bytes: &[u8], header: &Header, kind: u32, frames: &[Frame], ring: &Ring) -> Read<Vec<u8>> {
    let mut stream = Vec::new();
    for Frame { position, block_len, raw_len } in frames {
        let sealed = &bytes[*position as usize..][..*block_len as usize];
        let content = ring.open(header, Place { kind: kind as u8, position: *position }, sealed)?;
        must(content.len() == *raw_len as usize, "a frame has the raw length its directory says")?;
        stream.extend(content);
    }
    Ok(stream)
}

fn name_chunks(key: &[u8; 32], kind: u32, lens: &[Named], stream: &[u8]) -> Read<Vec<(Chunk, Type)>> {
    let types: &[Type] = if kind == 1 { &[Type::Data] } else { &[Type::Page, Type::List] };
    let (mut chunks, mut start) = (Vec::new(), 0);
    for (id, len) in lens {
        let plain = &stream[start..][..*len as usize];
        let Some(of) = types.iter().find(|of| chunk_id(key, **of, plain) == *id) else {
            return Err(Refused::new(format!("chunk {} is not what its id says", hex(id))));
        };
        chunks.push((Chunk { id: *id, start: start as u32, len: *len }, *of));
        start += plain.len();
    }
    Ok(chunks)
}

fn chunk_id(key: &[u8; 32], of: Type, plain: &[u8]) -> Id {
    *blake3::Hasher::new_keyed(key).update(&[of as u8]).update(plain).finalize().as_bytes()
}

/// What an index object says of one pack.
pub struct Indexed {
    pub name: Id,
    pub object_id: [u8; 16],
    pub generation: u32,
    pub kind: u32,
    pub len: u64,
    pub frames: Vec<Frame>,
    /// Ascending by id.
    pub chunks: Vec<Chunk>,
}

impl Indexed {
    /// Whether this is what the pack itself says.
    pub fn agrees(&self, pack: &Pack) -> bool {
        let mut chunks: Vec<&Chunk> = pack.chunks.iter().map(|(chunk, _)| chunk).collect();
        chunks.sort();
        self.name == pack.name
            && self.object_id == pack.header.object_id
            && self.generation == pack.header.generation
            && (self.kind, self.len) == (pack.kind, pack.len)
            && self.frames == pack.frames
            && self.chunks.iter().eq(chunks)
    }
}

/// An index object, wholly decoded and checked.
pub struct Index {
    pub packs: Vec<Indexed>,
    pub superseded: Vec<Id>,
}

/// Blocks of an index object, which must follow each other without gaps.
struct Blocks<'a> {
    bytes: &'a [u8],
    header: Header,
    ring: &'a Ring,
    next: u64,
}

impl Blocks<'_> {
    fn open(&mut self, kind: u8, offset: u64, len: u32) -> Read<Vec<u8>> {
        must(offset == self.next, "each block begins at the end of the one before")?;
        self.next += u64::from(len);
        let mut rest = Fields::new(self.bytes);
        rest.take(offset as usize)?;
        self.ring.open(&self.header, Place { kind, position: offset }, rest.take(len as usize)?)
    }
}

/// What the root says of one chunk page.
struct PageEntry {
    first: Id,
    offset: u64,
    block_len: u32,
    count: u32,
}

impl Index {
    /// Reads an index object that lies under `name`.
    pub fn read(name: Id, bytes: &[u8], ring: &Ring) -> Read<Self> {
        must(*blake3::hash(bytes).as_bytes() == name, "an index's name is the hash of its bytes")?;
        let header = Header::read(bytes, INDEX, &ring.vault)?;
        let end =
            bytes.len().checked_sub(FOOTER_LEN).ok_or_else(|| Refused::new("no room for a footer"))? as u64;
        let mut blocks = Blocks { bytes, header, ring, next: end };
        let footer = blocks.open(8, end, FOOTER_LEN as u32)?;
        let mut fields = Fields::new(&footer);
        let (root_offset, root_len, pack_count) = (fields.u64()?, fields.u32()?, fields.u32()?);
        let chunk_count = fields.u64()?;
        fields.take(40)?;
        fields.end()?;
        blocks.next = root_offset;
        let root = blocks.open(7, root_offset, root_len)?;
        must(blocks.next == end, "the root reaches to the footer")?;
        blocks.next = 64;
        let index = Self::read_pages(&root, &mut blocks)?;
        must(blocks.next == root_offset, "the pages reach to the root")?;
        must(index.packs.len() == pack_count as usize, "footer and pages count the same packs")?;
        let chunks: usize = index.packs.iter().map(|pack| pack.chunks.len()).sum();
        must(chunks as u64 == chunk_count, "footer and pages count the same chunks")?;
        Ok(index)
    }

    fn read_pages(root: &[u8], blocks: &mut Blocks<'_>) -> Read<Self> {
        let mut root = Fields::new(root);
        let mut chunks = Vec::new();
        for _ in 0..root.count(48, usize::MAX)? {
            let (first, offset) = (root.array()?, root.u64()?);
            let entry = PageEntry { first, offset, block_len: root.u32()?, count: root.u32()? };
            read_chunk_page(&entry, blocks, &mut chunks)?;
        }
        let ascending =
            chunks.is_sorted_by(|(a, pack_a), (b, pack_b)| (a.id, pack_a, a.start) < (b.id, pack_b, b.start));
        must(ascending, "the chunks of an index ascend by id, pack and offset")?;
        let mut packs: Vec<Indexed> = Vec::new();
        for _ in 0..root.count(16, usize::MAX)? {
            must(root.u32()? as usize == packs.len(), "a pack page begins with the ordinal the root says")?;
            let (offset, len) = (root.u64()?, root.u32()?);
            read_pack_page(&blocks.open(6, offset, len)?, &mut packs)?;
        }
        let superseded = (0..root.count(32, usize::MAX)?).map(|_| root.array()).collect::<Read<_>>()?;
        root.end()?;
        for (chunk, ordinal) in chunks {
            let pack = packs.get_mut(ordinal as usize).ok_or_else(|| Refused::new("a chunk in no pack"))?;
            let raw: u64 = pack.frames.iter().map(|frame| u64::from(frame.raw_len)).sum();
            must(u64::from(chunk.start) + u64::from(chunk.len) <= raw, "a chunk lies inside its pack")?;
            pack.chunks.push(chunk);
        }
        Ok(Self { packs, superseded })
    }
}

fn read_chunk_page(entry: &PageEntry, blocks: &mut Blocks<'_>, chunks: &mut Vec<(Chunk, u32)>) -> Read<()> {
    let content = blocks.open(5, entry.offset, entry.block_len)?;
    let mut fields = Fields::new(&content);
    let count = fields.u32()?;
    must((1..=PAGE_LIMIT).contains(&count), "a chunk page has 1 to 2,048 chunks")?;
    must(count == entry.count, "a chunk page has as many chunks as the root says")?;
    for n in 0..count {
        let (id, ordinal) = (fields.array()?, fields.u32()?);
        must(n > 0 || id == entry.first, "a chunk page begins with the id the root says")?;
        chunks.push((Chunk { id, start: fields.u32()?, len: fields.u32()? }, ordinal));
    }
    fields.end()
}

fn read_pack_page(content: &[u8], packs: &mut Vec<Indexed>) -> Read<()> {
    let mut fields = Fields::new(content);
    for _ in 0..fields.count(72, usize::MAX)? {
        packs.push(Indexed {
            name: fields.array()?,
            object_id: fields.array()?,
            generation: fields.u32()?,
            kind: fields.u32()?,
            len: fields.u64()?,
            frames: read_frame_list(&mut fields)?,
            chunks: Vec::new(),
        });
    }
    fields.end()
}
