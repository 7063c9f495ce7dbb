//! Tests of index objects.
#![allow(clippy::unwrap_used)]

mod properties;

use super::*;
use crate::id::VaultId;
use crate::seal::keys::KeyRing;

fn sealer() -> Sealer {
    Sealer::new(VaultId([1; 16]), &KeyRing::generate(0), 1).unwrap()
}

fn chunk_id(n: u32) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// `packs` packs of `chunks` chunks each, numbered through.
fn sample(packs: u32, chunks: u32) -> Index {
    let mut index = Index::default();
    for p in 0..packs {
        let packed: Vec<_> =
            (0..chunks).map(|c| PackedChunk { id: chunk_id(p * chunks + c), len: 100 + c }).collect();
        let raw: u32 = packed.iter().map(|c| c.len).sum();
        let entry = PackEntry {
            id: PackId([p as u8; 32]),
            object_id: ObjectId([p as u8; 16]),
            generation: 1,
            kind: if p % 2 == 0 { PackKind::Data } else { PackKind::Tree },
            len: 64 + 640 + 128 + 128,
            frames: vec![Frame { units: 10, raw_len: raw }],
        };
        index.add(entry, &packed);
    }
    index
}

#[test]
fn an_index_is_read_back_whole_with_the_directories_it_was_made_from() {
    let sealer = sealer();
    let mut index = sample(7, 500);
    index.supersedes = vec![IndexId([9; 32])];
    let (id, bytes) = index.clone().seal(&sealer);
    let back = Index::open(&sealer, id, &bytes).unwrap();
    assert_eq!(back.packs, index.packs);
    assert_eq!(back.supersedes, index.supersedes);
    for (p, (entry, chunks)) in back.packs_with_chunks().into_iter().enumerate() {
        assert_eq!(entry, &index.packs[p]);
        let expected: Vec<_> =
            (0..500).map(|c| PackedChunk { id: chunk_id(p as u32 * 500 + c), len: 100 + c }).collect();
        assert_eq!(chunks, expected);
    }
}

#[test]
fn a_chunk_is_found_with_two_small_reads_after_opening() {
    let sealer = sealer();
    let (_, bytes) = sample(40, 1000).seal(&sealer);
    let (mut reads, mut fetched) = (0, 0);
    let mut read = |range: Range<u64>| {
        reads += 1;
        fetched += range.end - range.start;
        slice(&bytes, range)
    };
    let reader = IndexReader::open(&sealer, bytes.len() as u64, &mut read).unwrap();
    let (entry, found) = reader.lookup(&chunk_id(12_345), &mut read).unwrap().unwrap();
    assert_eq!((entry.id, found.len), (PackId([12; 32]), 100 + 345));
    assert_eq!(reader.lookup(&ChunkId([0xee; 32]), &mut read).unwrap(), None);
    assert_eq!(reader.lookup(&ChunkId([0; 32]), &mut read).unwrap(), None);
    assert!(reads <= 8, "{reads} reads");
    assert!(fetched < bytes.len() as u64 / 8, "{fetched} of {} bytes", bytes.len());
}

#[test]
fn every_flipped_byte_and_every_truncation_is_noticed() {
    let sealer = sealer();
    let (id, bytes) = sample(2, 20).seal(&sealer);
    for at in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[at] ^= 1 << (at % 8);
        assert!(Index::open(&sealer, id, &bad).is_err(), "byte {at}");
        let name = IndexId(*blake3::hash(&bad).as_bytes());
        assert!(Index::open(&sealer, name, &bad).is_err(), "byte {at} under its own name");
        let name = IndexId(*blake3::hash(&bytes[..at]).as_bytes());
        assert!(Index::open(&sealer, name, &bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn chunks_outside_of_their_packs_are_refused() {
    let sealer = sealer();
    for change in [
        |index: &mut Index| index.chunks[3].pack = 2,
        |index: &mut Index| index.chunks[3].start = u32::MAX,
        |index: &mut Index| index.chunks[3].len = 1 << 30,
    ] {
        let mut index = sample(2, 20);
        change(&mut index);
        let (id, bytes) = index.seal(&sealer);
        assert!(Index::open(&sealer, id, &bytes).is_err());
    }
}

#[test]
fn frames_and_packs_that_no_reader_could_hold_are_refused() {
    let sealer = sealer();
    let opens = |frame: Frame, len: u64| {
        let mut index = sample(1, 1);
        index.packs[0].frames.push(frame);
        index.packs[0].len = len;
        let (id, bytes) = index.seal(&sealer);
        Index::open(&sealer, id, &bytes).is_ok()
    };
    let (mebibyte, most) = (1 << 20, 4 << 20);
    assert!(opens(Frame { units: most / 64, raw_len: most }, 1 << 30));
    assert!(opens(Frame { units: 16 * mebibyte / 64, raw_len: 0 }, 1 << 30), "padding");
    assert!(!opens(Frame { units: 10, raw_len: most + 1 }, 1 << 30), "what four gigabytes are decoded from");
    assert!(!opens(Frame { units: 16 * mebibyte / 64, raw_len: 100 }, 1 << 30));
    assert!(!opens(Frame { units: 0, raw_len: 100 }, 1 << 30));
    assert!(!opens(Frame { units: 10, raw_len: 100 }, (1 << 30) + 1), "a pack that is too long");
}

#[test]
fn an_empty_index_is_an_index() {
    let sealer = sealer();
    let (id, bytes) = Index::default().seal(&sealer);
    assert_eq!(Index::open(&sealer, id, &bytes).unwrap(), Index::default());
}

#[test]
fn pages_that_hold_too_much_together_are_refused_before_they_are_in_memory() {
    let sealer = sealer();
    let page = [IndexedChunk { id: chunk_id(1), pack: 0, start: 0, len: 1 }; PAGE_CHUNKS];
    let of = |pages: usize| {
        let mut out = IndexWriter::new(&sealer);
        let one = out.chunk_page(&page);
        let packs = out.pack_pages(&sample(1, 1).packs);
        // The root points to the one page again and again.
        let root = encode_root(&vec![one; pages], &packs, &[]);
        let root = out.block(BlockKind::IndexRoot, &root, Compression::Zstd(3));
        let mut footer = [root.start.to_le_bytes(), (root.end - root.start).to_le_bytes()].concat();
        footer.truncate(12);
        footer.u32(1);
        footer.u64((pages * PAGE_CHUNKS) as u64);
        footer.resize(64, 0);
        out.block(BlockKind::IndexFooter, &footer, Compression::None);
        (IndexId(*blake3::hash(&out.bytes).as_bytes()), out.bytes)
    };
    let (room, two) = (3 * PAGE_CHUNKS * CHUNK_LEN, of(2));
    assert!(Index::open_within(&sealer, two.0, &two.1, room).is_ok());
    let (id, bytes) = of(1000);
    assert!(bytes.len() < 60 << 10, "{} bytes", bytes.len());
    let error = Index::open_within(&sealer, id, &bytes, room).unwrap_err();
    assert!(error.to_string().contains("too much"), "{error}");
}
