//! Tests of reading: which tier answers, what it costs, and that nothing wrong is ever returned.
#![allow(clippy::unwrap_used)]

mod away;
mod compared;
mod fetching;
mod places;
mod waiting;

use std::time::Duration;

use super::*;
use crate::cache::GRID;
use crate::chunk_store::{Ingest, IngestParts};
use crate::clock::ManualClock;
use crate::id::VaultId;
use crate::seal::Compression;
use crate::seal::keys::KeyRing;
use crate::staging::MemoryFiles;
use crate::transfer::TransferPolicy;
use crate::vault::Verb;
use crate::vault::memory::MemoryVault;
use crate::vault::testing::{Fault, FaultyVault};

/// A store of one data pack of several MiB, in staging and in a vault.
struct World {
    files: Arc<MemoryFiles>,
    memory: Arc<MemoryVault>,
    vault: Arc<FaultyVault>,
    clock: Arc<ManualClock>,
    parts: IngestParts,
    vault_no: VaultNo,
    chunks: Vec<(ChunkId, Vec<u8>)>,
}

fn noise(n: usize, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key(&format!("noise {n}")).finalize_xof().fill(&mut out);
    out
}

impl World {
    fn new() -> Self {
        let (files, memory) = (Arc::new(MemoryFiles::default()), Arc::new(MemoryVault::new()));
        let clock = Arc::new(ManualClock::default());
        let vault = Arc::new(FaultyVault::new(memory.clone(), clock.clone()));
        let staging = Staging::new(files.clone());
        staging.prepare().unwrap();
        let id = VaultId([3; 16]);
        let parts = IngestParts {
            sealer: Arc::new(Sealer::new(id, &KeyRing::fixed([7; 32]), 1).unwrap()),
            catalog: Arc::new(Catalog::in_memory(&id.0).unwrap()),
            staging,
            pack_len: 64 << 20,
            frame_len: 64 << 10,
            compression: Compression::None,
            relied: crate::catalog::Relied::default(),
        };
        let vault_no = parts.catalog.vault_no("v").unwrap();
        let mut world = Self { files, memory, vault, clock, parts, vault_no, chunks: Vec::new() };
        world.fill();
        world
    }

    /// 100 chunks of 100 KB: two frames each.
    fn fill(&mut self) {
        let ingest = Ingest::begin(self.parts.clone());
        let mut frames = ingest.frames();
        for n in 0..100 {
            let plain = noise(n, 100_000);
            let id = ingest.name(ChunkType::Data, &plain);
            assert!(ingest.claim(&id).unwrap());
            frames.push(id, &plain);
            self.chunks.push((id, plain));
        }
        ingest.deliver(PackKind::Data, frames.take()).unwrap();
        let packs = ingest.finish().unwrap().packs;
        assert_eq!(packs.len(), 1);
        let row = self.row();
        let bytes = self.parts.staging.read_all(&crate::names::pack(&packs[0]), 1 << 30).unwrap().unwrap();
        self.memory.replace(&crate::names::pack(&packs[0]), bytes.into());
        self.parts.catalog.set_confirmed(row.no, self.vault_no, true).unwrap();
    }

    fn row(&self) -> PackRow {
        self.parts.catalog.packs().unwrap().remove(0)
    }

    fn pack_name(&self) -> crate::vault::ObjectName {
        crate::names::pack(&self.row().entry.id)
    }

    fn only_in_vault(&self) {
        self.parts.catalog.set_staged(self.row().no, false).unwrap();
    }

    fn reader(&self) -> Arc<Reader> {
        self.reader_with(Arc::new(BlockCache::in_memory(64 << 20)))
    }

    fn reader_with(&self, cache: Arc<BlockCache>) -> Arc<Reader> {
        self.reader_within(cache, 64 << 20)
    }

    fn reader_within(&self, cache: Arc<BlockCache>, in_flight: u64) -> Arc<Reader> {
        let policy = TransferPolicy { retry_budget: Duration::from_secs(1), ..TransferPolicy::default() };
        let transfer = Transfer::new(self.vault.clone(), self.clock.clone(), policy).unwrap();
        Reader::new(ReaderParts {
            sealer: self.parts.sealer.clone(),
            catalog: self.parts.catalog.clone(),
            staging: self.parts.staging.clone(),
            vaults: vec![(self.vault_no, transfer)],
            cache,
            clock: self.clock.clone(),
            memory: 1 << 20,
            in_flight,
        })
    }

    fn assert_reads(&self, reader: &Reader, n: usize) {
        let (id, plain) = &self.chunks[n];
        assert!(reader.chunk(ChunkType::Data, id, Deadline::NEVER).unwrap() == plain, "chunk {n}");
    }
}

#[test]
fn any_range_of_any_chunk_is_what_was_stored() {
    let world = World::new();
    let reader = world.reader();
    for (n, (id, plain)) in world.chunks.iter().enumerate() {
        let (from, to) = (n * 997 % 100_000, (n * 997 % 100_000 + n * 1009).min(100_000));
        let bytes = reader.chunk_range(id, from as u32..to as u32, Deadline::NEVER).unwrap();
        assert!(bytes == plain[from..to], "chunk {n}, {from}..{to}");
    }
    let (id, _) = &world.chunks[0];
    assert!(reader.chunk_range(id, 0..100_001, Deadline::NEVER).is_err());
    assert!(reader.chunk(ChunkType::Tree, id, Deadline::NEVER).is_err(), "another type has another name");
    let unknown = reader.chunk(ChunkType::Data, &ChunkId([0; 32]), Deadline::NEVER);
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
    assert_eq!(reader.stats().vault_requests, 0, "staging has all of it");
}

#[test]
fn a_range_decodes_no_more_frames_than_its_chunk_has_and_each_once() {
    let world = World::new();
    let reader = world.reader();
    let (id, _) = &world.chunks[5];
    for _ in 0..10 {
        reader.chunk_range(id, 10..20, Deadline::NEVER).unwrap();
    }
    assert_eq!(reader.stats().frames_decoded, 2);
    assert!(reader.is_warm(id, Some(0..100)) && reader.is_warm(id, None));
    world.assert_reads(&reader, 5);
    assert_eq!(reader.stats().frames_decoded, 2);
}

#[test]
fn the_tier_of_a_chunk_is_told_without_reading_it() {
    let world = World::new();
    let reader = world.reader();
    let (id, _) = &world.chunks[7];
    assert_eq!(reader.tier(id).unwrap(), Tier::Staging);
    world.assert_reads(&reader, 7);
    assert_eq!(reader.tier(id).unwrap(), Tier::Memory);
    world.only_in_vault();
    let reader = world.reader();
    assert_eq!(reader.tier(id).unwrap(), Tier::Vault);
    world.assert_reads(&reader, 7);
    for n in 30..60 {
        world.assert_reads(&reader, n);
    }
    assert_eq!(
        reader.tier(id).unwrap(),
        Tier::Cache,
        "decoded frames were pushed out of memory, ranges were not"
    );
}

#[test]
fn a_small_read_from_a_vault_fetches_blocks_of_the_grid_and_not_the_pack() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    world.assert_reads(&reader, 40);
    let stats = reader.stats();
    assert!(stats.vault_requests <= 2, "{stats:?}");
    assert!(stats.vault_bytes <= 3 * GRID, "{stats:?}");
    assert!(world.vault.requests().iter().all(|r| r.verb == Verb::Get), "{:?}", world.vault.requests());
    world.assert_reads(&reader, 40);
    assert_eq!(reader.stats(), stats, "the second time it is in memory");
}

#[test]
fn reading_on_fetches_further_and_further_ahead() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    for n in 0..100 {
        world.assert_reads(&reader, n);
    }
    let stats = reader.stats();
    assert!(stats.vault_requests <= 24, "10 MB in {stats:?}");
    assert!(stats.vault_bytes <= world.row().entry.len, "no byte twice: {stats:?}");
}

/// Waits until something that other threads do is done.
fn until(done: impl FnMut() -> bool) {
    assert!(comes_true(done), "not done within 10 s");
}

/// The same, and says whether it was: for whoever must first let go of those threads.
fn comes_true(mut done: impl FnMut() -> bool) -> bool {
    (0..2000).take_while(|_| !done()).for_each(|_| std::thread::sleep(Duration::from_millis(5)));
    done()
}

#[test]
fn whoever_reads_on_finds_the_next_frames_decoded_and_whoever_jumps_does_not() {
    let world = World::new();
    let reader = world.reader();
    (0..4).for_each(|n| world.assert_reads(&reader, n));
    until(|| reader.is_warm(&world.chunks[5].0, None));
    until(|| !world.files.what_was_let_go().is_empty());
    let (pack, len) = (world.pack_name(), world.row().entry.len);
    let gone = world.files.what_was_let_go();
    assert!(gone.iter().all(|(name, bytes)| name == pack.as_str() && bytes.end < len), "{gone:?}");
    let world = World::new();
    let reader = world.reader();
    for n in [90, 3, 60, 33, 71, 12] {
        world.assert_reads(&reader, n);
    }
    let decoded = reader.stats().frames_decoded;
    assert_eq!(world.files.what_was_let_go(), [], "who jumps may come back");
    assert!(decoded <= 18, "{decoded} frames for 6 chunks of at most 3");
}

#[test]
fn whoever_reads_on_in_a_vault_has_the_next_bytes_fetched() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    (0..6).for_each(|n| world.assert_reads(&reader, n));
    until(|| matches!(reader.tier(&world.chunks[12].0).unwrap(), Tier::Cache | Tier::Memory));
}

#[test]
fn many_who_want_the_same_range_of_a_vault_cause_one_request() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (world, reader, barrier) = (&world, &reader, &barrier);
            // Different frames of one block.
            scope.spawn(move || {
                barrier.wait();
                let from = 30_000 * (n % 2);
                let read =
                    reader.chunk_range(&world.chunks[40].0, from..from + 100, Deadline::NEVER).unwrap();
                assert!(read == world.chunks[40].1[from as usize..from as usize + 100]);
            });
        }
    });
    assert!(reader.stats().vault_requests <= 2, "{:?}", reader.stats());
}

#[test]
fn what_was_fetched_survives_a_restart() {
    let world = World::new();
    world.only_in_vault();
    let dir = tempfile::tempdir().unwrap();
    let open = || Arc::new(BlockCache::open(dir.path(), 64 << 20, world.clock.clone()).unwrap());
    world.assert_reads(&world.reader_with(open()), 40);
    world.vault.fail_any_from(1, Fault::FailBefore);
    let reader = world.reader_with(open());
    world.assert_reads(&reader, 40);
    assert_eq!(reader.stats().vault_requests, 0);
}

#[test]
fn a_cache_that_cannot_be_written_costs_no_more_than_what_is_read() {
    let world = World::new();
    world.only_in_vault();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let cache = Arc::new(BlockCache::open(&path, 64 << 20, world.clock.clone()).unwrap());
    let reader = world.reader_with(cache.clone());
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "in the way").unwrap();
    // What is read next knows how it went with what was read before.
    let read = |n| (world.assert_reads(&reader, n), cache.settle(&|| false));
    (0..60).for_each(|n| assert!(read(n).1));
    let stats = reader.stats();
    assert!(
        stats.vault_bytes <= stats.frames_decoded * 2 * GRID,
        "no frame is in more than two blocks: {stats:?}"
    );
    std::fs::remove_file(&path).unwrap();
    (60..66).for_each(|n| assert!(read(n).1));
    until(|| matches!(reader.tier(&world.chunks[72].0).unwrap(), Tier::Cache | Tier::Memory));
}

#[test]
fn damage_in_staging_is_read_past_while_a_vault_has_the_pack() {
    let world = World::new();
    let name = world.pack_name();
    world.files.damage(name.as_str(), |bytes| bytes[1_000_000..2_000_000].fill(0));
    let reader = world.reader();
    for n in 0..100 {
        world.assert_reads(&reader, n);
    }
    assert!(reader.stats().failovers > 0);
    world.files.damage(name.as_str(), |bytes| bytes.truncate(500));
    let reader = world.reader();
    (0..100).for_each(|n| world.assert_reads(&reader, n));
}

#[test]
fn damage_everywhere_is_an_error_that_names_the_pack_and_never_wrong_bytes() {
    let world = World::new();
    world.only_in_vault();
    let name = world.pack_name();
    let mut bytes = world.memory.object(&name).unwrap().to_vec();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    world.memory.replace(&name, bytes.into());
    let reader = world.reader();
    let mut bad = 0;
    for (id, plain) in &world.chunks {
        match reader.chunk(ChunkType::Data, id, Deadline::NEVER) {
            Ok(read) => assert!(read == plain),
            Err(e) => {
                assert!(e.to_string().contains(&world.row().entry.id.hex()), "{e}");
                bad += 1;
            }
        }
    }
    assert_eq!(bad, 1, "one frame, one chunk");
}

#[test]
fn a_bit_that_flips_on_the_way_costs_another_request_and_nothing_else() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    world.vault.fail(Verb::Get, 1, Fault::Flip);
    (0..100).for_each(|n| world.assert_reads(&reader, n));
}

#[test]
fn a_vault_that_is_gone_is_an_error_in_time_and_works_again_when_it_is_back() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    world.vault.fail_any_from(1, Fault::FailBefore);
    let deadline = Deadline::after(&*world.clock, Duration::from_secs(2));
    let error = reader.chunk(ChunkType::Data, &world.chunks[3].0, deadline).unwrap_err();
    assert_eq!(error.class(), crate::ErrorClass::Unavailable, "{error}");
    world.vault.heal();
    world.assert_reads(&reader, 3);
}

#[test]
fn what_a_read_would_take_is_known_before_and_is_what_a_fetch_takes() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    let mut wanted = reader.wanted();
    // Chunks 20 to 79 lie together, 95 apart from them; the same chunk twice costs nothing.
    for n in (20..80).chain([95, 30]) {
        let (tier, last) = wanted.add(&world.chunks[n].0).unwrap();
        assert_eq!(tier, Tier::Vault);
        assert!(last.is_some());
    }
    let requests = wanted.requests();
    let bytes: u64 = requests.iter().map(Request::len).sum();
    assert_eq!(requests.len(), 3, "6 MB in requests of 4 MiB, and one more: {requests:?}");
    assert!((6_000_000..6_000_000 + 5 * GRID).contains(&bytes), "{bytes}");
    assert_eq!(reader.stats().vault_requests, 0);
    assert!(requests.iter().is_sorted_by_key(Request::end));
    // What somebody read meanwhile need not be brought.
    world.assert_reads(&reader, 95);
    let read = reader.stats().vault_bytes;
    let mut brought = Brought::default();
    requests.iter().for_each(|request| reader.fetch(request, &mut brought).unwrap());
    assert_eq!(brought, Brought { requests: 2, bytes: bytes - read });
    let stats = reader.stats();
    assert_eq!((stats.vault_requests, stats.vault_bytes), (3, bytes));
    assert_eq!(reader.cache_bytes(), bytes);
    assert!(requests.iter().all(|request| reader.is_fetched(request).unwrap()));
    let mut again = reader.wanted();
    for n in 20..80 {
        assert_eq!(again.add(&world.chunks[n].0).unwrap(), (Tier::Cache, None));
    }
    assert_eq!(again.requests(), []);
    world.vault.fail_any_from(1, Fault::FailBefore);
    (20..80).for_each(|n| world.assert_reads(&reader, n));
}

#[test]
fn what_staging_has_needs_no_request_and_what_is_nowhere_is_an_error() {
    let world = World::new();
    let reader = world.reader();
    let mut wanted = reader.wanted();
    assert_eq!(wanted.add(&world.chunks[0].0).unwrap(), (Tier::Staging, None));
    assert_eq!(wanted.requests(), []);
    assert!(matches!(wanted.add(&ChunkId([9; 32])), Err(StoreError::NotFound { .. })));
    world.only_in_vault();
    let reader = world.reader();
    let mut wanted = reader.wanted();
    wanted.add(&world.chunks[0].0).unwrap();
    world.vault.fail_any_from(1, Fault::FailBefore);
    let error = reader.fetch(&wanted.requests()[0], &mut Brought::default()).unwrap_err();
    assert_eq!(error.class(), crate::ErrorClass::Unavailable, "{error}");
}

#[test]
fn a_fetch_waits_for_what_another_one_has_under_way_and_fetches_what_that_one_did_not_get() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    let mut wanted = reader.wanted();
    for (id, _) in &world.chunks {
        wanted.add(id).unwrap();
    }
    let requests = wanted.requests();
    let bytes = requests.iter().map(Request::len).sum::<u64>();
    std::thread::scope(|scope| {
        let entry = world.row().entry;
        // Somebody is about to fetch the first block, and then does not get it.
        let other = reader.fetcher.claim_free(world.vault_no, &entry, 0..1, Deadline::NEVER).unwrap();
        let fetching = scope.spawn(|| {
            requests.iter().for_each(|request| reader.fetch(request, &mut Brought::default()).unwrap());
            requests.iter().all(|request| reader.is_fetched(request).unwrap())
        });
        until(|| reader.stats().vault_requests > 0);
        drop(other);
        assert!(fetching.join().unwrap());
    });
    assert_eq!(reader.stats().vault_bytes, bytes);
}

#[test]
fn a_vault_that_is_away_costs_the_next_one_little_and_is_believed_as_soon_as_it_answers() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    let read = |n: usize, hangs: u64| {
        world.vault.heal();
        world.vault.fail_from(Verb::Get, 1, Fault::Hang(Duration::from_secs(hangs)));
        let (begin, deadline) =
            (world.clock.monotonic(), Deadline::after(&*world.clock, Duration::from_secs(600)));
        let result = reader.chunk(ChunkType::Data, &world.chunks[n].0, deadline);
        (result.is_ok(), (world.clock.monotonic() - begin).as_secs())
    };
    // Retries go on as long as somebody waits.
    assert_eq!((read(0, 900).0, read(1, 6)), (false, (false, 6)), "not 600");
    // Whoever waits for ever is not hurried.
    world.vault.heal();
    world.assert_reads(&reader, 2);
    let (ok, took) = read(50, 900);
    assert!(!ok && took >= 600, "it had answered: {took}");
    // And haste does not make it away for longer.
    assert_eq!(read(50, 6), (false, 6));
    world.clock.advance(Duration::from_secs(55));
    assert_eq!(read(50, 900), (false, 900));
}

/// A reader of a pack that is in the world's vault and in another, which is asked after it; and that other one.
fn with_second_vault(world: &World) -> (Arc<Reader>, Arc<FaultyVault>) {
    let no = world.parts.catalog.vault_no("w").unwrap();
    world.only_in_vault();
    world.parts.catalog.set_confirmed(world.row().no, no, true).unwrap();
    let second = Arc::new(FaultyVault::new(world.memory.clone(), world.clock.clone()));
    let way = |vault: &Arc<FaultyVault>| {
        Transfer::new(vault.clone(), world.clock.clone(), TransferPolicy::default()).unwrap()
    };
    let reader = Reader::new(ReaderParts {
        sealer: world.parts.sealer.clone(),
        catalog: world.parts.catalog.clone(),
        staging: world.parts.staging.clone(),
        vaults: vec![(world.vault_no, way(&world.vault)), (no, way(&second))],
        cache: Arc::new(BlockCache::in_memory(64 << 20)),
        clock: world.clock.clone(),
        memory: 1 << 20,
        in_flight: 64 << 20,
    });
    (reader, second)
}

#[test]
fn a_vault_that_hangs_leaves_the_next_one_its_time_and_is_then_asked_last() {
    let world = World::new();
    let (reader, second) = with_second_vault(&world);
    world.vault.fail_any_from(1, Fault::Hang(Duration::from_secs(31)));
    let (id, plain) = &world.chunks[3];
    let minute = Deadline::after(&*world.clock, Duration::from_secs(60));
    assert!(reader.chunk_range(id, 0..10, minute).unwrap() == plain[..10]);
    let asked = world.vault.requests().len();
    assert_eq!(asked, 1);
    // Other chunks come from the second at once, also for those who would wait for ever.
    for n in [50, 97] {
        world.assert_reads(&reader, n);
    }
    assert_eq!(world.vault.requests().len(), asked);
    assert!(second.requests().len() >= 2);
    // After a while it is asked first again.
    world.vault.heal();
    world.clock.advance(Duration::from_secs(3600));
    let before = second.requests().len();
    world.assert_reads(&reader, 20);
    assert_eq!(second.requests().len(), before);
}

#[test]
fn when_every_vault_is_slow_the_first_is_waited_for_after_all() {
    let world = World::new();
    let (reader, second) = with_second_vault(&world);
    world.vault.fail(Verb::Get, 1, Fault::Hang(Duration::from_secs(31)));
    second.fail_any_from(1, Fault::Deny);
    world.assert_reads(&reader, 8);
    assert_eq!(world.vault.requests().len(), 2);
}
