//! Chunks that lie where a pack says something else than is there: sealed with the right key, by who has it. And what it costs to look.

use super::*;
use crate::catalog::Location;
use crate::error::ErrorClass;
use crate::pack::{FrameBuilder, PackBuilder};

const NOW: Limits = Limits { farthest: Tier::Memory, deadline: Deadline::NEVER };

impl World {
    /// The place of a chunk in a further pack of the vault, whose directory gives it these bytes.
    fn forge(&self, chunk: usize, bytes: &[u8]) -> Location {
        let (id, sealer) = (&self.chunks[chunk].0, &self.parts.sealer);
        let mut frames = FrameBuilder::new(self.parts.frame_len, Compression::None);
        frames.push(ChunkId([1; 32]), b"something before it");
        frames.push(*id, bytes);
        let mut pack = PackBuilder::new(sealer, PackKind::Data, 0);
        pack.push(sealer, frames.take());
        let pack = pack.finish(sealer);
        self.memory.replace(&crate::names::pack(&pack.entry.id), pack.bytes.clone());
        let catalog = &self.parts.catalog;
        catalog.add_packs(&[(&pack.entry, &pack.chunks)], false, Some(self.vault_no)).unwrap();
        let no = catalog.pack_by_id(&pack.entry.id).unwrap().unwrap().no;
        catalog.locate_all(id).unwrap().into_iter().find(|at| at.pack == no).unwrap()
    }

    /// Other bytes than those of a chunk: all, the last one, too few, too many.
    fn lies(&self, chunk: usize) -> [Vec<u8>; 4] {
        let plain = &self.chunks[chunk].1;
        let mut last = plain.clone();
        *last.last_mut().unwrap() ^= 1;
        [vec![b'!'; plain.len()], last, plain[..60_000].to_vec(), [&plain[..], b"!"].concat()]
    }
}

/// Chunks that follow neither each other nor what is before them in the pack, so that nothing is read ahead.
fn here_and_there() -> impl Iterator<Item = usize> {
    (0..100).map(|n| n * 37 % 100)
}

#[test]
fn a_place_where_a_chunk_is_other_bytes_is_passed_over_by_range_as_by_whole() {
    let world = World::new();
    let (id, plain) = &world.chunks[40];
    for lie in world.lies(40) {
        let at = world.forge(40, &lie);
        // As it is where that place was found first.
        let misled = || {
            let reader = world.reader();
            reader.places.put(*id, at);
            reader
        };
        let reader = misled();
        assert!(reader.chunk_within(ChunkType::Data, id, Deadline::NEVER).unwrap() == *plain);
        for range in [0..10, 65_000..66_000, 99_990..100_000, 0..100_000] {
            let reader = misled();
            let read = |range: Range<u32>| reader.chunk_range(id, range, Deadline::NEVER).unwrap();
            assert!(read(range.clone()) == plain[range.start as usize..range.end as usize], "{range:?}");
            assert_eq!(reader.stats().failovers, 1);
            // Who goes on does not come there again, and nor is he sent away for it.
            assert!(read(20_000..20_010) == plain[20_000..20_010]);
            assert_eq!(reader.stats().failovers, 1);
            assert!(reader.chunk_range(id, 5..9, NOW).unwrap() == plain[5..9]);
            // Who may not wait is not told that all is lost.
            reader.places.put(*id, at);
            assert!(matches!(reader.chunk_range(id, 5..9, NOW), Err(StoreError::Timeout { .. })));
            reader.places.put(*id, at);
            let whole = reader.chunk_within(ChunkType::Data, id, NOW);
            assert!(matches!(whole, Err(StoreError::Timeout { .. })), "{whole:?}");
            assert!(read(5..9) == plain[5..9]);
        }
    }
}

#[test]
fn a_chunk_that_is_right_in_no_place_is_an_error_by_range_as_by_whole() {
    let world = World::new();
    let (id, honest) = (&world.chunks[40].0, world.row().no);
    let lies = world.lies(40);
    for lie in &lies {
        world.forge(40, lie);
    }
    world.parts.catalog.set_confirmed(honest, world.vault_no, false).unwrap();
    world.only_in_vault();
    assert_eq!(world.parts.catalog.locate_all(id).unwrap().len(), lies.len());
    let reader = world.reader();
    // Once more when all of it is in memory, and what was found out is known.
    for _ in 0..3 {
        let whole = reader.chunk_within(ChunkType::Data, id, Deadline::NEVER);
        assert_eq!(whole.unwrap_err().class(), ErrorClass::Corrupt);
        for range in [0..10, 30_000..30_010, 99_990..100_000, 0..60_000] {
            let error = reader.chunk_range(id, range, Deadline::NEVER).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Corrupt, "{error}");
        }
    }
}

#[test]
fn a_chunk_is_compared_once_and_of_one_whose_frames_leave_memory_each_frame_for_itself() {
    let world = World::new();
    let reader = world.reader();
    let (id, plain) = &world.chunks[5];
    let decoded = |range: Range<u32>| {
        let before = reader.stats().frames_decoded;
        let bytes = reader.chunk_range(id, range.clone(), Deadline::NEVER).unwrap();
        assert!(bytes == plain[range.start as usize..range.end as usize]);
        reader.stats().frames_decoded - before
    };
    let read_others = || here_and_there().filter(|n| *n != 5).for_each(|n| world.assert_reads(&reader, n));
    assert!(!reader.is_warm(id, Some(10..20)));
    assert_eq!((decoded(10..20), decoded(10..20), decoded(99_000..99_100)), (2, 0, 0));
    assert!(reader.is_warm(id, Some(10..20)) && reader.is_warm(id, None));
    read_others();
    assert!(!reader.is_warm(id, Some(10..20)));
    assert_eq!((decoded(10..20), decoded(70_000..80_000)), (2, 0), "compared a second time");
    read_others();
    assert_eq!((decoded(10..20), decoded(10..20)), (1, 0), "from now on by pieces");
    assert!(reader.is_warm(id, Some(0..100)) && !reader.is_warm(id, None));
    assert!(reader.chunk_range(id, 0..100, NOW).is_ok() && reader.chunk_range(id, 0..70_000, NOW).is_err());
    assert_eq!((decoded(60_000..70_000), decoded(0..100_000)), (1, 0));
}

#[test]
fn a_part_of_a_chunk_costs_one_request_to_a_vault_and_the_next_one_none() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    for (reads, n) in here_and_there().enumerate() {
        let (id, plain) = &world.chunks[n];
        let before = reader.stats();
        assert!(reader.chunk_range(id, 10..20, Deadline::NEVER).unwrap() == plain[10..20]);
        let stats = reader.stats();
        assert!(stats.vault_requests <= before.vault_requests + 1, "chunk {n}, read {reads}: {stats:?}");
        assert!(stats.vault_bytes <= before.vault_bytes + 2 * GRID, "chunk {n}, read {reads}: {stats:?}");
        // Of the same frame: who comes to the next one reads on, and has more fetched.
        assert!(reader.chunk_range(id, 30_000..30_009, Deadline::NEVER).unwrap() == plain[30_000..30_009]);
        assert_eq!(reader.stats(), stats);
    }
}
