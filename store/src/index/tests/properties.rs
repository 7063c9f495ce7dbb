//! An index object beside an ordinary map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Packs as lists of chunks: the number in a chunk's id, and its length. Few numbers, so that a chunk lies in several packs.
fn packs() -> impl Strategy<Value = Vec<Vec<(u32, u32)>>> {
    prop::collection::vec(prop::collection::vec((0..300u32, 1..5000u32), 0..40), 0..12)
}

fn built(packs: &[Vec<(u32, u32)>]) -> Index {
    let mut index = Index::default();
    for (n, chunks) in packs.iter().enumerate() {
        let chunks: Vec<_> =
            chunks.iter().map(|(id, len)| PackedChunk { id: chunk_id(*id), len: *len }).collect();
        let raw_len = chunks.iter().map(|chunk| chunk.len).sum();
        let entry = PackEntry {
            id: PackId([n as u8; 32]),
            object_id: ObjectId([n as u8; 16]),
            generation: 1,
            kind: PackKind::Data,
            len: 64 + 640 + 128 + 128,
            frames: vec![Frame { units: 10, raw_len }],
        };
        index.add(entry, &chunks);
    }
    index
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_index_object_finds_what_a_map_finds_and_nothing_else(packs in packs()) {
        let mut map: BTreeMap<u32, Vec<(PackId, u32, u32)>> = BTreeMap::new();
        for (n, chunks) in packs.iter().enumerate() {
            let mut start = 0;
            for (id, len) in chunks {
                map.entry(*id).or_default().push((PackId([n as u8; 32]), start, *len));
                start += len;
            }
        }
        let sealer = sealer();
        let (id, bytes) = built(&packs).seal(&sealer);
        let read = |range| slice(&bytes, range);
        let reader = IndexReader::open(&sealer, bytes.len() as u64, read).unwrap();
        for n in 0..300 {
            let found = reader.lookup(&chunk_id(n), read).unwrap();
            let found = found.map(|(entry, chunk)| (entry.id, chunk.start, chunk.len));
            prop_assert_eq!(found.is_some(), map.contains_key(&n));
            prop_assert!(found.is_none_or(|found| map[&n].contains(&found)));
        }
        let whole = Index::open(&sealer, id, &bytes).unwrap();
        prop_assert!(whole.chunks.is_sorted());
        prop_assert_eq!(whole.chunks.len(), map.values().map(Vec::len).sum::<usize>());
        for (at, (entry, chunks)) in whole.packs_with_chunks().into_iter().enumerate() {
            prop_assert_eq!(entry.id, PackId([at as u8; 32]));
            let wanted = packs[at].iter().map(|(id, len)| PackedChunk { id: chunk_id(*id), len: *len });
            prop_assert_eq!(chunks, wanted.collect::<Vec<_>>());
        }
    }
}
