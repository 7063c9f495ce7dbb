//! Who waits for whom, and for how long: for what another one fetches, for a vault, and for nothing that nobody wants.

use super::ahead::{FETCHING, Job};
use super::*;
use crate::clock::Waiting;
use crate::staging::Files;

const MINUTE: Duration = Duration::from_secs(60);

impl World {
    fn hanging() -> Self {
        let world = Self::new();
        world.only_in_vault();
        world.vault.fail_from(Verb::Get, 1, Fault::Hang(Duration::ZERO));
        world
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(&*self.clock, MINUTE)
    }

    /// Has a chunk in another pack as well, which is in staging.
    fn stage_again(&self, chunk: usize) {
        let ingest = Ingest::begin(self.parts.clone());
        let mut frames = ingest.frames();
        let (id, plain) = &self.chunks[chunk];
        frames.push(*id, plain);
        ingest.deliver(PackKind::Data, frames.take()).unwrap();
        ingest.finish().unwrap();
    }
}

#[test]
fn a_reader_does_not_hang_on_what_another_one_fetches_by_a_way_that_is_dead() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    let row = world.row();
    let (waiting, minute) = (Waiting::begin(), world.deadline());
    let of_dead = Deadline::NEVER.of(&waiting);
    let dead = reader.fetcher.claim_free(world.vault_no, &row.entry, 0..4, of_dead).unwrap();
    let is_under_way =
        || reader.fetcher.claim_free(world.vault_no, &row.entry, 3..4, Deadline::NEVER).is_none();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| reader.chunk(ChunkType::Data, &world.chunks[0].0, minute));
        let waits = comes_true(|| of_dead.waiters() == 2);
        world.clock.advance(MINUTE / 2 - Duration::from_secs(1));
        let before = is_under_way();
        world.clock.advance(Duration::from_secs(1));
        // Whoever still waits then ends with his deadline, and in vain.
        comes_true(|| reading.is_finished());
        world.clock.advance(MINUTE);
        assert!(reading.join().unwrap().unwrap() == world.chunks[0].1);
        assert!(waits && before, "half of its time is for another");
    });
    assert!(!is_under_way(), "it was taken for lost");
    drop(dead);
    world.assert_reads(&reader, 1);
}

#[test]
fn half_of_the_time_is_for_others_however_many_of_them_are_dead() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    let (row, name) = (world.row(), world.pack_name());
    let claim = |n| reader.fetcher.claim_free(world.vault_no, &row.entry, n..n + 1, Deadline::NEVER).unwrap();
    let dead: Vec<_> = (0..8).map(claim).collect();
    let deadline = world.deadline();
    world.clock.advance(MINUTE / 2);
    // The clock stands still: none of the eight is waited for any longer.
    let fetch =
        |no, deadline| reader.fetcher.fetch(no, &name, &row.entry, 0..8 * GRID, 0, deadline).unwrap().0;
    let bytes = fetch(world.vault_no, reader.fetcher.share(world.vault_no, 2, deadline));
    assert!(bytes == world.memory.object(&name).unwrap()[..8 * GRID as usize]);
    drop(dead);
    assert_eq!(fetch(world.vault_no, Deadline::NEVER), bytes);
}

#[test]
fn what_was_taken_for_lost_takes_nothing_away_when_it_lands() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    let entry = world.row().entry;
    let claim = || reader.fetcher.claim_free(world.vault_no, &entry, 0..4, Deadline::NEVER).unwrap();
    let is_free = || reader.fetcher.claim_free(world.vault_no, &entry, 0..1, Deadline::NEVER).is_some();
    let lost = claim();
    let deadline = world.deadline();
    world.clock.advance(MINUTE / 2);
    let waited = || reader.fetcher.let_other(world.vault_no, &entry, 0, deadline).unwrap();
    assert_eq!((waited(), waited()), (true, false), "for half of the time");
    let second = claim();
    drop(lost);
    assert!(!is_free(), "the second is on its way");
    drop(second);
    assert!(is_free());
}

#[test]
fn of_those_who_waited_for_what_is_lost_one_asks_anew_and_the_others_wait_for_him() {
    let world = World::new();
    let reader = world.reader();
    let (entry, deadline) = (world.row().entry, world.deadline());
    let lost = reader.fetcher.claim_free(world.vault_no, &entry, 0..4, Deadline::NEVER).unwrap();
    world.clock.advance(MINUTE / 2);
    let let_other = || reader.fetcher.let_other(world.vault_no, &entry, 0, deadline).unwrap();
    assert!(let_other(), "it is lost");
    let asks = Waiting::begin();
    let of_new = Deadline::NEVER.of(&asks);
    let is_free = || reader.fetcher.claim_free(world.vault_no, &entry, 0..1, Deadline::NEVER).is_some();
    let new = reader.fetcher.claim_free(world.vault_no, &entry, 0..4, of_new).unwrap();
    std::thread::scope(|scope| {
        let others = [(); 3].map(|()| scope.spawn(let_other));
        until(|| of_new.waiters() == 4 || is_free());
        assert!(!is_free(), "they give it its time");
        world.clock.advance(MINUTE / 4);
        until(is_free);
        assert!(others.into_iter().all(|other| other.join().unwrap()), "which is not all of theirs");
    });
    drop((lost, new));
}

#[test]
fn a_read_that_nobody_waits_for_ends_and_is_not_held_against_the_vault() {
    let world = World::hanging();
    let reader = world.reader();
    let waiting = Waiting::begin();
    let deadline = world.deadline().of(&waiting);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| reader.chunk_range(&world.chunks[40].0, 0..100, deadline));
        until(|| world.vault.count(Verb::Get) > 0);
        drop(waiting);
        assert!(matches!(reading.join().unwrap(), Err(StoreError::Cancelled)));
    });
    assert!(!reader.fetcher.is_away(world.vault_no));
    world.vault.heal();
    world.assert_reads(&reader, 40);
}

#[test]
fn a_read_that_another_one_waits_for_goes_on_until_that_one_leaves_too() {
    // The same frame, and another one in the same block.
    for from in [0, 30_000] {
        let world = World::hanging();
        let reader = world.reader();
        let (first, second) = (Waiting::begin(), Waiting::begin());
        let of_first = world.deadline().of(&first);
        let of_second = world.deadline().of(&second);
        std::thread::scope(|scope| {
            let read = |from: u32, deadline| {
                let (id, reader) = (&world.chunks[40].0, &reader);
                scope.spawn(move || reader.chunk_range(id, from..from + 100, deadline).is_err())
            };
            let asks = read(0, of_first);
            until(|| world.vault.count(Verb::Get) > 0);
            let joins = read(from, of_second);
            until(|| of_first.waiters() == 2);
            drop(first);
            assert!(!of_first.is_given_up() && !asks.is_finished());
            drop(second);
            assert!(asks.join().unwrap() && joins.join().unwrap());
        });
        assert_eq!(world.vault.count(Verb::Get), 1);
    }
}

#[test]
fn who_may_not_wait_for_a_vault_is_told_so_when_staging_lost_a_pack() {
    let world = World::new();
    let name = world.pack_name();
    world.files.remove(name.as_str()).unwrap();
    let cache = Arc::new(BlockCache::in_memory(64 << 20));
    let reader = world.reader_with(cache.clone());
    let (id, plain) = &world.chunks[40];
    let here = Limits { farthest: Tier::Cache, deadline: Deadline::NEVER };
    assert_eq!(reader.tier(id).unwrap(), Tier::Staging, "it cannot know");
    assert!(matches!(reader.chunk_range(id, 0..10, here), Err(StoreError::Timeout { .. })));
    assert!(matches!(reader.chunk_within(ChunkType::Data, id, here), Err(StoreError::Timeout { .. })));
    assert_eq!(world.vault.requests(), []);
    world.assert_reads(&reader, 40);
    let later = world.reader_with(cache);
    world.vault.fail_any_from(1, Fault::FailBefore);
    assert!(later.chunk_within(ChunkType::Data, id, here).unwrap() == plain, "the cache has it");
    world.parts.catalog.set_confirmed(world.row().no, world.vault_no, false).unwrap();
    let error = world.reader().chunk_range(id, 0..10, here).unwrap_err();
    assert!(!matches!(error, StoreError::Timeout { .. }), "nobody has it: {error}");
}

#[test]
fn a_cached_block_that_is_wrong_and_cannot_be_deleted_is_read_past() {
    let world = World::new();
    world.only_in_vault();
    let dir = tempfile::tempdir().unwrap();
    let pack = world.row().entry.id.hex();
    for n in 0..50 {
        let path = dir.path().join(&pack[..2]).join(format!("{pack}-{n}/in the way"));
        std::fs::create_dir_all(path).unwrap();
    }
    let reader =
        world.reader_with(Arc::new(BlockCache::open(dir.path(), 64 << 20, world.clock.clone()).unwrap()));
    let (done, is_done) = std::sync::mpsc::channel();
    let (id, plain) = world.chunks[40].clone();
    std::thread::spawn(move || done.send(reader.chunk(ChunkType::Data, &id, Deadline::NEVER)));
    let read = is_done.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(read.unwrap() == plain);
}

#[test]
fn a_read_waits_for_room_until_its_deadline_and_is_then_not_held_against_the_vault() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader_within(Arc::new(BlockCache::in_memory(64 << 20)), 4 << 20);
    let room = reader.fetcher.budget().take(world.vault_no, 4 << 20, Need::Now, Deadline::NEVER).unwrap();
    let deadline = world.deadline();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| reader.chunk_range(&world.chunks[40].0, 0..100, deadline));
        world.clock.advance(MINUTE);
        assert!(matches!(reading.join().unwrap(), Err(StoreError::Timeout { .. })));
    });
    assert_eq!(world.vault.requests(), []);
    assert!(!reader.fetcher.is_away(world.vault_no));
    drop(room);
    world.assert_reads(&reader, 40);
}

#[test]
fn a_request_is_no_longer_than_it_may_be_unless_so_much_is_needed() {
    let world = World::new();
    world.only_in_vault();
    let (entry, name) = (world.row().entry, world.pack_name());
    let fetched = |in_flight, needed, more| {
        let reader = world.reader_within(Arc::new(BlockCache::in_memory(64 << 20)), in_flight);
        reader.fetcher.fetch(world.vault_no, &name, &entry, 0..needed, more, Deadline::NEVER).unwrap();
        (reader.stats().vault_requests, reader.stats().vault_bytes)
    };
    assert_eq!(fetched(64 << 20, GRID, 4 << 20), (1, 4 << 20), "not the whole pack");
    assert_eq!(fetched(4 << 20, GRID, 4 << 20), (1, 1 << 20));
    assert_eq!(fetched(4 << 20, 6 << 20, 0), (1, 6 << 20));
}

#[test]
fn who_reads_ahead_in_vain_asks_for_less_and_holds_nothing_against_the_vault() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    (0..4).for_each(|n| world.assert_reads(&reader, n));
    let (no, entry, name) = (world.row().no, world.row().entry, world.pack_name());
    let request_len = || reader.ahead.request_len(no, u64::MAX);
    let before = request_len();
    world.vault.fail_any_from(1, Fault::FailBefore);
    // A pack that nothing is fetched of yet, as far as this reader knows.
    let other = world.reader();
    (0..2).for_each(|_| drop(other.fetch_ahead(world.vault_no, no, 0..GRID).unwrap_err()));
    assert!(!other.fetcher.is_away(world.vault_no));
    for _ in 0..8 {
        reader.ahead.was_late(no);
    }
    assert!(before > GRID && request_len() == GRID && reader.ahead.request_len(no, GRID - 1) == 0);
    let fetch = |millis| {
        let deadline = Deadline::after(&*world.clock, Duration::from_millis(millis));
        other.fetcher.fetch(world.vault_no, &name, &entry, 0..GRID, 0, deadline).unwrap_err();
        other.fetcher.is_away(world.vault_no)
    };
    assert_eq!((fetch(10), fetch(20_000)), (false, true), "that had no time, and this had");
}

#[test]
fn who_waited_in_vain_for_one_pack_gets_the_chunk_out_of_another_that_is_here() {
    let world = World::new();
    world.only_in_vault();
    let (id, plain) = &world.chunks[3];
    let (row, far) = (world.row(), world.parts.catalog.locate(id).unwrap().unwrap());
    world.stage_again(3);
    let late = Deadline::after(&*world.clock, Duration::ZERO);
    let near = Limits { farthest: Tier::Cache, deadline: Deadline::NEVER };
    for limits in [Limits::from(late), near] {
        let reader = world.reader();
        let _dead = reader.fetcher.claim_free(world.vault_no, &row.entry, 0..9, Deadline::NEVER).unwrap();
        // As somebody knows it who looked before there was the other pack.
        reader.places.put(*id, far);
        assert!(reader.chunk_within(ChunkType::Data, id, limits).unwrap() == *plain);
        assert_eq!(reader.stats().failovers, 1);
    }
}

#[test]
fn a_damaged_row_of_the_catalog_keeps_nobody_from_another_pack_that_has_the_chunk() {
    let world = World::new();
    let first = world.row().no;
    world.stage_again(3);
    world.parts.catalog.damage_place(first, &world.chunks[3].0);
    world.assert_reads(&world.reader(), 3);
    world.parts.catalog.packs().unwrap().iter().filter(|row| row.no != first).for_each(|row| {
        world.parts.catalog.set_bad(row.no, true).unwrap();
    });
    world.assert_reads(&world.reader(), 3);
    // Of the first pack the rest is known as before.
    let reader = world.reader();
    reader.learn_places(first).unwrap();
    world.assert_reads(&reader, 4);
}

#[test]
fn what_is_in_memory_is_answered_while_the_disk_of_the_catalog_hangs() {
    let world = World::new();
    let reader = &world.reader();
    world.assert_reads(reader, 0);
    let ask = |n: usize| {
        let (id, plain) = &world.chunks[n];
        let now = Limits { farthest: Tier::Memory, deadline: Deadline::NEVER };
        let warm = reader.is_warm(id, None);
        let whole = reader.chunk_within(ChunkType::Data, id, now);
        let part = reader.chunk_range(id, 5..10, now);
        assert_eq!((whole.is_ok(), part.is_ok()), (warm, warm));
        assert!(whole.is_ok_and(|bytes| bytes == *plain) || !warm);
        warm
    };
    std::thread::scope(|scope| {
        let hanging = world.parts.catalog.writer();
        let (begun, begins) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel();
        // One who waits for the catalog, and may hold whatever he holds meanwhile.
        let waits = scope.spawn(move || {
            begun.send(()).unwrap();
            reader.pack_map(PackNo(999)).is_err()
        });
        begins.recv().unwrap();
        (0..1000).for_each(|_| std::thread::yield_now());
        scope.spawn(move || tell.send((ask(0), ask(70))));
        let answers = told.recv_timeout(MINUTE);
        assert!(!waits.is_finished());
        drop(hanging);
        assert_eq!(answers, Ok((true, false)), "chunk 70 nobody has read");
    });
}

#[test]
fn the_vault_that_is_asked_first_is_known_before() {
    let world = World::new();
    let vault_of = |reader: &Reader, n: usize, range| {
        let (tier, vault) = reader.tier_and_vault(&world.chunks[n].0, range).unwrap();
        vault.filter(|_| tier == Tier::Vault)
    };
    let staged = world.reader().tier_and_vault(&world.chunks[3].0, None).unwrap();
    assert_eq!(staged, (Tier::Staging, Some(world.vault_no)), "if staging lost it");
    let (reader, _second) = with_second_vault(&world);
    assert_eq!(vault_of(&reader, 3, None), Some(world.vault_no));
    world.vault.fail_any_from(1, Fault::Hang(Duration::from_secs(31)));
    reader.chunk_range(&world.chunks[3].0, 0..10, world.deadline()).unwrap();
    assert!(vault_of(&reader, 60, None).is_some_and(|no| no != world.vault_no), "the first is away");
    assert_eq!(vault_of(&reader, 4, None), None, "it came with the other one");
    let is_far = |n: usize, range| vault_of(&reader, n, range).is_some();
    assert!(
        (0..100)
            .all(|n| [0..10, 99_990..100_000].into_iter().all(|end| is_far(n, Some(end)) == is_far(n, None))),
        "a part of a chunk that nobody compared takes all of it"
    );
}

#[test]
fn a_disk_of_the_cache_that_hangs_keeps_nobody_from_asking_what_is_under_way() {
    let world = World::new();
    let cache = Arc::new(BlockCache::in_memory(64 << 20));
    let reader = world.reader_with(cache.clone());
    let entry = world.row().entry;
    cache.put_and_settle(&entry.id, 2, &Bytes::from_static(b"a block"));
    let claim = || reader.fetcher.claim_free(world.vault_no, &entry, 0..4, Deadline::NEVER);
    std::thread::scope(|scope| {
        let hanging = cache.hang();
        let claiming = scope.spawn(|| claim().map(|flight| (reader.fetcher.under_way(), drop(flight)).0));
        until(|| reader.fetcher.under_way() == Some(4));
        drop(hanging);
        assert_eq!(claiming.join().unwrap(), Some(Some(2)), "up to what is there");
    });
    assert_eq!(reader.fetcher.under_way(), Some(0));
    assert!(reader.fetcher.claim_free(world.vault_no, &entry, 2..4, Deadline::NEVER).is_none());
}

#[test]
fn who_waits_for_something_finds_a_turn_free_however_much_is_read_ahead() {
    let world = World::hanging();
    let reader = world.reader();
    assert!(2 * FETCHING <= TransferPolicy::default().concurrency);
    for n in 0..32 {
        reader.ahead.submit(Job::Fetch(world.vault_no, world.row().no, n * GRID..(n + 1) * GRID));
    }
    until(|| world.vault.count(Verb::Get) >= FETCHING as u64);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| reader.chunk(ChunkType::Data, &world.chunks[99].0, world.deadline()));
        let asks = comes_true(|| world.vault.count(Verb::Get) > FETCHING as u64);
        world.clock.advance(MINUTE);
        assert!(reading.join().unwrap().is_err() && asks);
    });
}

#[test]
fn whoever_waits_for_room_has_nothing_under_way_that_others_wait_for() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader_within(Arc::new(BlockCache::in_memory(64 << 20)), 4 << 20);
    let room = reader.fetcher.budget().take(world.vault_no, 4 << 20, Need::Now, Deadline::NEVER).unwrap();
    let (name, entry, deadline) = (world.pack_name(), world.row().entry, world.deadline());
    let fetch = |at| reader.fetcher.fetch(world.vault_no, &name, &entry, at..at + 9, 0, deadline).is_ok();
    std::thread::scope(|scope| {
        // Of one block.
        let both = [5, 5000].map(|at| {
            let fetch = &fetch;
            scope.spawn(move || fetch(at))
        });
        until(|| reader.fetcher.budget().waiting() == 2);
        world.clock.advance(MINUTE * 2 / 3);
        assert_eq!(reader.fetcher.under_way(), Some(0));
        drop(room);
        both.into_iter().for_each(|reading| assert!(reading.join().unwrap()));
    });
    assert_eq!(world.vault.count(Verb::Get), 1, "who stood in a queue does not ask twice");
}

#[test]
fn what_one_place_lost_and_only_a_vault_has_beside_it_is_far_away_and_not_lost() {
    let world = World::new();
    world.only_in_vault();
    world.stage_again(40);
    let staged = world.parts.catalog.packs().unwrap().into_iter().find(|row| row.staged).unwrap();
    world.files.remove(crate::names::pack(&staged.entry.id).as_str()).unwrap();
    let reader = world.reader();
    let near = Limits { farthest: Tier::Cache, deadline: world.deadline() };
    let read = reader.chunk_within(ChunkType::Data, &world.chunks[40].0, near);
    assert!(matches!(read, Err(StoreError::Timeout { .. })), "{read:?}");
    world.assert_reads(&reader, 40);
}

/// A reader with a cache on disk, and so many bytes on their way.
fn with_cache(world: &World, dir: &std::path::Path, in_flight: u64) -> (Arc<BlockCache>, Arc<Reader>) {
    let cache = Arc::new(BlockCache::open(dir, 64 << 20, world.clock.clone()).unwrap());
    (cache.clone(), world.reader_within(cache, in_flight))
}

#[test]
fn a_disk_of_the_cache_that_takes_nothing_keeps_nobody_from_what_a_vault_gives() {
    let world = Arc::new(World::new());
    world.only_in_vault();
    let dir = tempfile::tempdir().unwrap();
    let (cache, reader) = with_cache(&world, dir.path(), 4 << 20);
    let hanging = cache.hang_writes();
    let (done, is_done) = std::sync::mpsc::channel();
    for from in 0..4 {
        let (world, reader, done) = (world.clone(), reader.clone(), done.clone());
        std::thread::spawn(move || {
            // One in order, who reads ahead, and others here and there.
            let step = if from == 0 { 1 } else { 37 };
            (0..100).for_each(|n| world.assert_reads(&reader, (from * 20 + n * step) % 100));
            done.send(cache_free(&reader)).unwrap();
        });
    }
    for _ in 0..4 {
        assert!(is_done.recv_timeout(Duration::from_secs(60)).unwrap(), "room is left for who waits");
    }
    let waiting = cache.waiting();
    assert!((1..4 << 20).contains(&waiting), "{waiting}");
    drop(hanging);
    assert!(cache.settle(&|| false));
    (0..100).for_each(|n| world.assert_reads(&reader, n));
}

/// Whether somebody who waits may have half a mebibyte, at least when others have got theirs.
fn cache_free(reader: &Reader) -> bool {
    reader.fetcher.budget().take(VaultNo(1), 512 << 10, Need::Now, Deadline::NEVER).is_ok()
}

#[test]
fn a_block_that_waits_for_the_disk_is_not_fetched_again() {
    let world = World::new();
    world.only_in_vault();
    let dir = tempfile::tempdir().unwrap();
    let (cache, reader) = with_cache(&world, dir.path(), 64 << 20);
    let hanging = cache.hang_writes();
    world.assert_reads(&reader, 40);
    let other = world.reader_with(cache.clone());
    world.assert_reads(&other, 40);
    assert_eq!(other.stats().vault_requests, 0);
    assert!(cache.waiting() > 0);
    drop(hanging);
}

#[test]
fn who_closes_a_reader_waits_a_moment_for_the_disk_and_not_once_its_vault_was_cancelled() {
    for is_cancelled in [false, true] {
        let world = World::new();
        world.only_in_vault();
        let dir = tempfile::tempdir().unwrap();
        let (cache, reader) = with_cache(&world, dir.path(), 64 << 20);
        let hanging = cache.hang_writes();
        world.assert_reads(&reader, 40);
        if is_cancelled {
            reader.fetcher.cancel();
        }
        let began = world.clock.monotonic();
        let closing = std::thread::spawn(move || drop(reader));
        until(|| {
            // Who does not wait is gone before any time passes.
            if !is_cancelled {
                world.clock.advance(Duration::from_millis(100));
            }
            closing.is_finished()
        });
        let waited = world.clock.monotonic() - began;
        assert_eq!(waited >= Duration::from_secs(3), !is_cancelled, "{waited:?}");
        assert!(cache.waiting() > 0);
        drop(hanging);
    }
}

#[test]
fn what_was_fetched_to_be_kept_is_on_the_disk_then_or_it_is_said_that_it_is_not() {
    let world = World::new();
    world.only_in_vault();
    let dir = tempfile::tempdir().unwrap();
    let (cache, reader) = with_cache(&world, dir.path(), 64 << 20);
    let requests = requests_of_first(&reader, &world);
    let fetch = || requests.iter().try_for_each(|request| reader.fetch(request, &mut Brought::default()));
    let are_fetched = || requests.iter().all(|request| reader.is_fetched(request).unwrap());
    let hanging = cache.hang_writes();
    std::thread::scope(|scope| {
        let fetching = scope.spawn(fetch);
        until(|| {
            world.clock.advance(Duration::from_secs(1));
            fetching.is_finished()
        });
        fetching.join().unwrap().unwrap();
    });
    assert!(
        !are_fetched() && requests_of_first(&reader, &world).is_empty(),
        "it waits, and is not asked for again"
    );
    drop(hanging);
    fetch().unwrap();
    assert!(are_fetched() && reader.cache_bytes() > 2_000_000 * 9 / 10);
}

/// The requests that bring the first twenty chunks.
fn requests_of_first(reader: &Reader, world: &World) -> Vec<Request> {
    let mut wanted = reader.wanted();
    world.chunks[..20].iter().for_each(|(id, _)| assert!(wanted.add(id).is_ok()));
    wanted.requests()
}
