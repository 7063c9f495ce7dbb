//! Reads packs: footer, directory, and the proof that a whole pack holds what it says.

use crate::format::{FormatError, HEADER_LEN, Header, ObjectKind, Parser};
use crate::id::{ChunkId, PackId};
use crate::seal::{BlockKind, BlockPlace, Sealer};

use super::{
    BLOCK_LIMIT, CHUNK_LIMIT, CHUNKS_LIMIT, FOOTER_LEN, FRAMES_LIMIT, Frame, PACK_LIMIT, PackEntry, PackKind,
    PackedChunk, units_to_len,
};

struct Footer {
    kind: PackKind,
    frame_count: u32,
    chunk_count: u32,
    directory_len: u32,
    directory_offset: u64,
    raw_len: u64,
}

fn damaged<T>(detail: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError::damaged(detail))
}

fn decode_footer(content: &[u8]) -> Result<Footer, FormatError> {
    let mut p = Parser::new(content);
    let kind = p.u32()?;
    let kind = PackKind::from_number(kind).ok_or_else(|| FormatError::TooNew(format!("pack kind {kind}")))?;
    let footer = Footer {
        kind,
        frame_count: p.u32()?,
        chunk_count: p.u32()?,
        directory_len: p.u32()?,
        directory_offset: p.u64()?,
        raw_len: p.u64()?,
    };
    p.take(32)?;
    p.end()?;
    Ok(footer)
}

/// Frames and chunks of a pack from the content of its directory block.
pub fn decode_directory(content: &[u8]) -> Result<(Vec<Frame>, Vec<PackedChunk>), FormatError> {
    let mut p = Parser::new(content);
    let n = p.count("frames", 8, FRAMES_LIMIT)?;
    let mut frames = Vec::with_capacity(n);
    for _ in 0..n {
        let frame = Frame { units: p.u32()?, raw_len: p.u32()? };
        if !frame.is_bounded() {
            return damaged("a frame's length");
        }
        frames.push(frame);
    }
    let n = p.count("chunks", 36, CHUNKS_LIMIT)?;
    let mut chunks = Vec::with_capacity(n);
    for _ in 0..n {
        let chunk = PackedChunk { id: ChunkId(p.array()?), len: p.u32()? };
        if chunk.len as usize > CHUNK_LIMIT {
            return damaged("a chunk's length");
        }
        chunks.push(chunk);
    }
    p.end()?;
    Ok((frames, chunks))
}

/// Opens the directory of a pack of `len` bytes with few reads: `read(offset, length)` fetches bytes of it.
/// The name is taken on trust; [`verify`] checks it against all bytes.
pub fn read_entry<E: From<FormatError>>(
    sealer: &Sealer,
    id: PackId,
    len: u64,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<(PackEntry, Vec<PackedChunk>), E> {
    if len < HEADER_LEN as u64 + FOOTER_LEN || len > PACK_LIMIT {
        return Err(FormatError::damaged(format!("a pack of {len} bytes")).into());
    }
    let header = Header::decode(&read(0, HEADER_LEN)?, ObjectKind::Pack, Some(sealer.vault()))?;
    let place = |kind, position| BlockPlace {
        kind,
        object_id: header.object_id,
        generation: header.generation,
        position,
    };
    let at = len - FOOTER_LEN;
    let content = sealer.open(&place(BlockKind::PackFooter, at), &read(at, FOOTER_LEN as usize)?, 64)?;
    let footer = decode_footer(&content)?;
    let directory_len = footer.directory_len as usize;
    if footer.directory_offset.checked_add(directory_len as u64) != Some(at)
        || directory_len > BLOCK_LIMIT * 2
    {
        return Err(FormatError::damaged("place of the directory").into());
    }
    let sealed = read(footer.directory_offset, directory_len)?;
    let content =
        sealer.open(&place(BlockKind::PackDirectory, footer.directory_offset), &sealed, BLOCK_LIMIT)?;
    let (frames, chunks) = decode_directory(&content)?;
    check_sums(&footer, &frames, &chunks)?;
    let Header { object_id, generation, .. } = header;
    Ok((PackEntry { id, object_id, generation, kind: footer.kind, len, frames }, chunks))
}

fn check_sums(footer: &Footer, frames: &[Frame], chunks: &[PackedChunk]) -> Result<(), FormatError> {
    let blocks: u64 = frames.iter().map(|f| units_to_len(f.units)).sum();
    let raw: u64 = frames.iter().map(|f| u64::from(f.raw_len)).sum();
    let plain: u64 = chunks.iter().map(|c| u64::from(c.len)).sum();
    let counts = (footer.frame_count as usize, footer.chunk_count as usize) == (frames.len(), chunks.len());
    if !counts || HEADER_LEN as u64 + blocks != footer.directory_offset {
        return damaged("its directory and its footer do not agree");
    }
    if raw != footer.raw_len || plain != raw || raw >= 1 << 32 {
        return damaged("lengths of frames and chunks do not add up");
    }
    Ok(())
}

/// Proves a whole pack: its name, every seal, every length and every chunk id. This is what a finished pack goes through
/// before it counts, and what a full scrub does.
pub fn verify(
    sealer: &Sealer,
    id: PackId,
    bytes: &[u8],
) -> Result<(PackEntry, Vec<PackedChunk>), FormatError> {
    if *blake3::hash(bytes).as_bytes() != id.0 {
        return damaged("its bytes do not have its name");
    }
    let (entry, chunks) = read_entry(sealer, id, bytes.len() as u64, |offset, len| {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = start..start.saturating_add(len);
        bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| FormatError::damaged("it ends early"))
    })?;
    verify_chunks(sealer, &entry, &chunks, bytes)?;
    Ok((entry, chunks))
}

fn verify_chunks(
    sealer: &Sealer,
    entry: &PackEntry,
    chunks: &[PackedChunk],
    bytes: &[u8],
) -> Result<(), FormatError> {
    let mut position = HEADER_LEN;
    let mut frames = entry.frames.iter();
    let mut raw = Vec::new();
    let mut taken = 0;
    for chunk in chunks {
        while raw.len() - taken < chunk.len as usize {
            let Some(frame) = frames.next() else { return damaged("a chunk ends beyond the last frame") };
            raw.drain(..taken);
            taken = 0;
            let block = &bytes[position..position + units_to_len(frame.units) as usize];
            let content = sealer.open(&entry.place(position as u64), block, frame.raw_len as usize)?;
            if content.len() != frame.raw_len as usize {
                return damaged("a frame's content has another length than the directory says");
            }
            raw.extend_from_slice(&content);
            position += block.len();
        }
        let plain = &raw[taken..taken + chunk.len as usize];
        if !entry.kind.chunk_types().iter().any(|of| sealer.chunk_id(*of, plain) == chunk.id) {
            return damaged(format!("chunk {} has other content", chunk.id));
        }
        taken += chunk.len as usize;
    }
    for frame in frames {
        let block = &bytes[position..position + units_to_len(frame.units) as usize];
        sealer.open(&entry.place(position as u64), block, 0)?;
        position += block.len();
    }
    Ok(())
}
