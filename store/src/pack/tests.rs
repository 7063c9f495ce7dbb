//! Tests of packs: what goes in comes out, and no damaged or hostile pack passes for a whole one.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::format::FormatError;
use crate::id::VaultId;
use crate::seal::keys::KeyRing;
use crate::seal::{ChunkType, Compression, Sealer};

fn sealer() -> Sealer {
    Sealer::new(VaultId([1; 16]), &KeyRing::generate(0), 1).unwrap()
}

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut out);
    out
}

/// Chunks of many lengths around the frame length, compressible and not.
fn plains() -> Vec<Vec<u8>> {
    let lens = [0, 1, 63, 64, 1000, 4095, 4096, 4097, 9000, 12_288, 50_000, 3];
    lens.iter()
        .enumerate()
        .map(|(i, len)| if i % 2 == 0 { noise(&format!("chunk {i}"), *len) } else { vec![i as u8; *len] })
        .collect()
}

fn build(sealer: &Sealer, kind: PackKind, plains: &[Vec<u8>]) -> FinishedPack {
    builder(sealer, kind, plains).finish(sealer)
}

fn builder(sealer: &Sealer, kind: PackKind, plains: &[Vec<u8>]) -> PackBuilder {
    let of = kind.chunk_types()[0];
    let mut frames = FrameBuilder::new(4096, Compression::Zstd(3));
    let mut pack = PackBuilder::new(sealer, kind, 0);
    for (i, plain) in plains.iter().enumerate() {
        frames.push(sealer.chunk_id(of, plain), plain);
        if i % 3 == 2 {
            pack.push(sealer, frames.take());
        }
    }
    pack.push(sealer, frames.take());
    pack
}

#[test]
fn a_pack_is_read_back_with_all_its_chunks() {
    let sealer = sealer();
    for kind in [PackKind::Data, PackKind::Tree] {
        let plains = plains();
        let made = build(&sealer, kind, &plains);
        let (entry, chunks) = verify(&sealer, made.entry.id, &made.bytes).unwrap();
        assert_eq!((&entry, &chunks), (&made.entry, &made.chunks));
        assert_eq!(entry.len, made.bytes.len() as u64);
        let lens: Vec<usize> = chunks.iter().map(|c| c.len as usize).collect();
        assert_eq!(lens, plains.iter().map(Vec::len).collect::<Vec<_>>());
    }
}

#[test]
fn a_chunk_that_fits_in_a_frame_lies_in_one_frame_and_frames_are_at_steps_of_64_bytes() {
    let sealer = sealer();
    let made = build(&sealer, PackKind::Data, &plains());
    let mut ends = vec![0_u64];
    for frame in &made.entry.frames {
        ends.push(ends.last().unwrap() + u64::from(frame.raw_len));
    }
    let mut start = 0_u64;
    for chunk in &made.chunks {
        let end = start + u64::from(chunk.len);
        if chunk.len <= 4096 && chunk.len > 0 {
            let first = ends.partition_point(|e| *e <= start);
            assert!(end <= ends[first], "chunk {start}..{end} is cut by {ends:?}");
        }
        start = end;
    }
    assert_eq!(made.bytes.len() % 64, 0);
}

#[test]
fn no_plaintext_and_no_border_is_seen_outside() {
    let sealer = sealer();
    let made = build(&sealer, PackKind::Data, &[vec![b'A'; 100_000]]);
    assert!(!made.bytes.windows(16).any(|w| w == [b'A'; 16]));
    let again = build(&sealer, PackKind::Data, &[vec![b'A'; 100_000]]);
    assert_ne!(made.entry.id, again.entry.id, "two packs of the same chunks share no bytes");
}

#[test]
fn every_flipped_byte_and_every_truncation_of_a_pack_is_noticed() {
    let sealer = sealer();
    // With little fill, for the time it takes; what more there may be is sealed in the same block.
    let made =
        builder(&sealer, PackKind::Data, &[noise("flip", 300), vec![7; 9000]]).finish_at(&sealer, 2048);
    assert!(made.entry.frames.last().is_some_and(|fill| (fill.units, fill.raw_len) > (1, 0)));
    for at in 0..made.bytes.len() {
        let mut bad = made.bytes.to_vec();
        bad[at] ^= 1 << (at % 8);
        assert!(verify(&sealer, made.entry.id, &bad).is_err(), "byte {at}: by its name");
        // Even under the name that the damaged bytes have, its seals do not hold.
        let name = PackId(*blake3::hash(&bad).as_bytes());
        assert!(verify(&sealer, name, &bad).is_err(), "byte {at}: by its seals");
        assert!(verify(&sealer, made.entry.id, &made.bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_pack_of_another_store_or_a_file_of_something_else_is_called_so() {
    let (ours, other) = (sealer(), Sealer::new(VaultId([2; 16]), &KeyRing::generate(0), 1).unwrap());
    let theirs = build(&other, PackKind::Data, &plains());
    assert!(matches!(verify(&ours, theirs.entry.id, &theirs.bytes), Err(FormatError::NotOurs(_))));
    let junk = noise("junk", 5000);
    let name = PackId(*blake3::hash(&junk).as_bytes());
    assert!(matches!(verify(&ours, name, &junk), Err(FormatError::NotOurs(_))));
}

#[test]
fn frames_moved_within_a_pack_do_not_open() {
    let sealer = sealer();
    let made = build(&sealer, PackKind::Data, &[noise("a", 4096), noise("b", 4096)]);
    let [a, b] = [0, 1].map(|i| units_to_len(made.entry.frames[i].units) as usize);
    assert_eq!(a, b);
    let mut swapped = made.bytes.to_vec();
    swapped[64..64 + a].copy_from_slice(&made.bytes[64 + a..64 + a + b]);
    swapped[64 + a..64 + a + b].copy_from_slice(&made.bytes[64..64 + a]);
    let name = PackId(*blake3::hash(&swapped).as_bytes());
    assert!(verify(&sealer, name, &swapped).is_err());
}

#[test]
fn a_directory_that_lies_is_refused() {
    use crate::format::Put;
    let hostile = |frames: u32, frame_len: u32, chunks: u32| {
        let mut out = Vec::new();
        out.u32(frames);
        out.u32(2);
        out.u32(frame_len);
        out.u32(chunks);
        decode_directory(&out)
    };
    assert!(hostile(1, 100, 0).is_ok());
    assert!(hostile(u32::MAX, 100, 0).is_err(), "a count beyond the bytes");
    assert!(hostile(1, u32::MAX, 0).is_err(), "a frame beyond the limit");
    assert!(hostile(1, 100, 1 << 30).is_err(), "chunks beyond the bytes");
}

#[test]
fn a_wrong_chunk_id_in_a_well_sealed_pack_is_noticed() {
    let sealer = sealer();
    let mut frames = FrameBuilder::new(4096, Compression::None);
    frames.push(sealer.chunk_id(ChunkType::Data, b"this"), b"that");
    let mut pack = PackBuilder::new(&sealer, PackKind::Data, 0);
    pack.push(&sealer, frames.take());
    let made = pack.finish(&sealer);
    let error = verify(&sealer, made.entry.id, &made.bytes).unwrap_err().to_string();
    assert!(error.contains("other content"), "{error}");
}
