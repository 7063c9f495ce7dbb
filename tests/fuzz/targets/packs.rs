//! Packs and index objects: forged around frames, directories, pages and footers of any content.

use holdfast_store::format::{FormatError, ObjectKind};
use holdfast_store::id::{ChunkId, IndexId, PackId};
use holdfast_store::index::{Index, IndexReader};
use holdfast_store::pack::{self, PackKind, PackedChunk};
use holdfast_store::seal::{BlockKind, ChunkType};

use super::forge::{Input, OBJECT, SEALER, header, seal, seal_inner, subkey};

const FIX_COUNTS: u8 = 1;
const FIX_IDS: u8 = 2;
const TREE: u8 = 4;
const RAW: u8 = 8;
const OWN_DIRECTORY: u8 = 16;
const OWN_FOOTER: u8 = 32;
const OWN_BLOCK: u8 = 64;

/// The content of the directory block: what is taken is written back the same.
pub fn directory(data: &[u8]) {
    let Ok((frames, chunks)) = pack::decode_directory(data) else { return };
    let mut out = (frames.len() as u32).to_le_bytes().to_vec();
    frames
        .iter()
        .for_each(|frame| out.extend([frame.units.to_le_bytes(), frame.raw_len.to_le_bytes()].concat()));
    out.extend((chunks.len() as u32).to_le_bytes());
    chunks.iter().for_each(|chunk| out.extend([&chunk.id.0[..], &chunk.len.to_le_bytes()].concat()));
    assert_eq!(out, data);
}

fn named(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// A whole pack.
pub fn pack(data: &[u8]) {
    let mut input = Input(data);
    let way = input.u8();
    if way & RAW != 0 {
        let _ = pack::verify(&SEALER, PackId(named(input.0)), input.0);
        return;
    }
    let bytes = forged_pack(way, &mut input);
    let id = PackId(named(&bytes));
    let Ok((entry, chunks)) = pack::verify(&SEALER, id, &bytes) else {
        // It may be refused while its directory is taken: readers then rely on each frame's seal and each chunk's id.
        let _ = pack::read_entry(&SEALER, id, bytes.len() as u64, |offset, len| slice(&bytes, offset, len));
        return;
    };
    assert_eq!(entry.len, bytes.len() as u64);
    assert_eq!(entry.raw_len(), chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>());
    let mut index = Index::default();
    index.add(entry.clone(), &chunks);
    let (id, object) = index.seal(&SEALER);
    let back = Index::open(&SEALER, id, &object).expect("an index object of a sound pack is sound");
    let found: Vec<(_, Vec<PackedChunk>)> = back.packs_with_chunks();
    let (back, in_order) = &found[0];
    assert_eq!(*back, &entry);
    // Chunks without bytes share a place, and their order there says nothing.
    let some = |chunks: &[PackedChunk]| chunks.iter().filter(|c| c.len > 0).copied().collect::<Vec<_>>();
    assert_eq!(some(in_order), some(&chunks));
}

fn slice(bytes: &[u8], offset: u64, len: usize) -> Result<Vec<u8>, FormatError> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let found = bytes.get(start..start.saturating_add(len));
    found.map(<[u8]>::to_vec).ok_or_else(|| FormatError::damaged("it ends early"))
}

fn forged_pack(way: u8, input: &mut Input<'_>) -> Vec<u8> {
    let (kind, frame_kind, chunk_type) = match way & TREE {
        0 => (PackKind::Data, BlockKind::DataFrame, ChunkType::Data),
        _ => (PackKind::Tree, BlockKind::TreeFrame, ChunkType::List),
    };
    let mut out = header(ObjectKind::Pack, OBJECT);
    let (mut frames, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..input.u8() % 5 {
        let (begin, content) = (out.len(), input.part());
        if way & OWN_BLOCK == 0 {
            seal(&mut out, frame_kind, OBJECT, content);
        } else {
            let key = subkey(if way & TREE == 0 { "data" } else { "tree" });
            let block = seal_inner(&key, OBJECT, frame_kind as u8, 1, begin as u64, content);
            out.extend(block);
        }
        raw.extend_from_slice(content);
        frames.push(((out.len() - begin) as u32 / 64, content.len() as u32));
    }
    let mut chunks = Vec::new();
    let mut left = &raw[..];
    for _ in 0..input.u8() % 9 {
        let mut len = usize::from(input.u16());
        if way & FIX_COUNTS != 0 {
            len = len.min(left.len());
        }
        let (plain, rest) = left.split_at(len.min(left.len()));
        left = rest;
        let id =
            if way & FIX_IDS != 0 { SEALER.chunk_id(chunk_type, plain) } else { ChunkId([input.u8(); 32]) };
        chunks.push((id, len as u32));
    }
    if way & FIX_COUNTS != 0 && !left.is_empty() {
        chunks.push((SEALER.chunk_id(chunk_type, left), left.len() as u32));
    }
    let mut content = (frames.len() as u32).to_le_bytes().to_vec();
    frames.iter().for_each(|(units, len)| content.extend([units.to_le_bytes(), len.to_le_bytes()].concat()));
    content.extend((chunks.len() as u32).to_le_bytes());
    chunks.iter().for_each(|(id, len)| content.extend([&id.0[..], &len.to_le_bytes()].concat()));
    let at = out.len() as u64;
    seal(
        &mut out,
        BlockKind::PackDirectory,
        OBJECT,
        if way & OWN_DIRECTORY != 0 { input.part() } else { &content },
    );
    let len = out.len() as u64 - at;
    let mut footer = Vec::new();
    for field in [kind as u32, frames.len() as u32, chunks.len() as u32, len as u32] {
        footer.extend(field.to_le_bytes());
    }
    footer.extend(at.to_le_bytes());
    footer.extend((raw.len() as u64).to_le_bytes());
    footer.resize(64, 0);
    if way & OWN_FOOTER != 0 {
        let own = input.take(64);
        footer[..own.len()].copy_from_slice(own);
    }
    seal(&mut out, BlockKind::PackFooter, OBJECT, &footer);
    out
}

/// A whole index object: pages, root and footer of any content, or such that fit each other.
pub fn index(data: &[u8]) {
    let mut input = Input(data);
    let way = input.u8();
    if way & RAW != 0 {
        let _ = Index::open(&SEALER, IndexId(named(input.0)), input.0);
        return;
    }
    let bytes = forged_index(way, &mut input);
    let read = |range: std::ops::Range<u64>| slice(&bytes, range.start, (range.end - range.start) as usize);
    let opened = Index::open(&SEALER, IndexId(named(&bytes)), &bytes);
    if let Ok(reader) = IndexReader::open(&SEALER, bytes.len() as u64, read) {
        for first in [0, input.u8(), 255] {
            let _ = reader.lookup(&ChunkId([first; 32]), read);
        }
        for chunk in opened.iter().flat_map(|index| index.chunks.iter().take(8)) {
            let found = reader.lookup(&chunk.id, read);
            if let Ok(Some((_, found))) = found {
                assert_eq!(found.id, chunk.id);
            }
        }
    }
    let Ok(index) = opened else { return };
    let _ = index.packs_with_chunks();
    let (id, object) = index.clone().seal(&SEALER);
    assert_eq!(Index::open(&SEALER, id, &object).as_ref(), Ok(&index));
}

fn forged_index(way: u8, input: &mut Input<'_>) -> Vec<u8> {
    let mut out = header(ObjectKind::Index, OBJECT);
    let block = |out: &mut Vec<u8>, kind, content: &[u8]| {
        let begin = out.len();
        seal(out, kind, OBJECT, content);
        (begin as u64, (out.len() - begin) as u32)
    };
    let count = |content: &[u8]| {
        content.get(..4).map_or(0, |count| u32::from_le_bytes(count.try_into().expect("four bytes")))
    };
    let (mut root, mut chunk_count, mut pack_count) = (Vec::new(), 0u64, 0u32);
    let pages = input.u8() % 4;
    root.extend(u32::from(pages).to_le_bytes());
    for _ in 0..pages {
        let content = input.part();
        let (at, len) = block(&mut out, BlockKind::IndexChunks, content);
        let mut first = [0; 32];
        content.iter().skip(4).zip(&mut first).for_each(|(from, to)| *to = *from);
        root.extend(first);
        root.extend([&at.to_le_bytes()[..], &len.to_le_bytes(), &count(content).to_le_bytes()].concat());
        chunk_count = chunk_count.saturating_add(u64::from(count(content)));
    }
    let pages = input.u8() % 4;
    root.extend(u32::from(pages).to_le_bytes());
    for _ in 0..pages {
        let content = input.part();
        let (at, len) = block(&mut out, BlockKind::IndexPacks, content);
        root.extend([&pack_count.to_le_bytes()[..], &at.to_le_bytes(), &len.to_le_bytes()].concat());
        pack_count = pack_count.wrapping_add(count(content));
    }
    let others = input.u8() % 3;
    root.extend(u32::from(others).to_le_bytes());
    (0..others).for_each(|_| root.extend([input.u8(); 32]));
    let (at, len) =
        block(&mut out, BlockKind::IndexRoot, if way & OWN_DIRECTORY != 0 { input.part() } else { &root });
    let mut footer = [&at.to_le_bytes()[..], &len.to_le_bytes(), &pack_count.to_le_bytes()].concat();
    footer.extend(chunk_count.to_le_bytes());
    footer.resize(64, 0);
    if way & OWN_FOOTER != 0 {
        let own = input.take(64);
        footer[..own.len()].copy_from_slice(own);
    }
    block(&mut out, BlockKind::IndexFooter, &footer);
    out
}
