//! Tests of bringing what is wanted into the cache: that it is all there in the end.

use super::*;

fn wanted_of<'a>(world: &World, reader: &'a Reader, chunks: impl IntoIterator<Item = usize>) -> Wanted<'a> {
    let mut wanted = reader.wanted();
    for n in chunks {
        wanted.add(&world.chunks[n].0).unwrap();
    }
    wanted
}

fn fetch_all(reader: &Reader, wanted: &Wanted<'_>) -> Brought {
    let mut brought = Brought::default();
    wanted.requests().iter().for_each(|request| reader.fetch(request, &mut brought).unwrap());
    brought
}

fn are_here(reader: &Reader, wanted: &Wanted<'_>) -> bool {
    wanted.all().iter().all(|request| reader.is_fetched(request).unwrap())
}

#[test]
fn what_is_wanted_and_here_stays_while_the_rest_is_fetched() {
    let world = World::new();
    world.only_in_vault();
    let dir = tempfile::tempdir().unwrap();
    let open = || BlockCache::open(dir.path(), 5 << 20, world.clock.clone()).unwrap();
    let reader = world.reader_with(Arc::new(open()));
    for chunks in [0..20, 30..50] {
        world.clock.advance(Duration::from_secs(10));
        fetch_all(&reader, &wanted_of(&world, &reader, chunks));
    }
    world.clock.advance(Duration::from_secs(10));
    // 20 chunks are here, and were used before the 20 that have to go.
    let mut wanted = wanted_of(&world, &reader, (0..20).chain(70..90));
    let [all, to_come] = [wanted.all(), wanted.requests()].map(|stretches| {
        let lens = stretches.iter().map(Request::cache_len);
        lens.sum::<u64>()
    });
    assert!(to_come < 3 << 20 && (4_000_000..5 << 20).contains(&all), "{to_come} of {all}");
    wanted.touch();
    fetch_all(&reader, &wanted);
    assert!(reader.cache_bytes() <= 5 << 20);
    assert!(are_here(&reader, &wanted));
    assert!(!are_here(&reader, &wanted_of(&world, &reader, 30..50)));
}

#[test]
fn what_went_before_it_was_touched_is_fetched_too() {
    let world = World::new();
    world.only_in_vault();
    let cache = Arc::new(BlockCache::in_memory(64 << 20));
    let reader = world.reader_with(cache.clone());
    fetch_all(&reader, &wanted_of(&world, &reader, 0..20));
    let mut wanted = wanted_of(&world, &reader, 0..20);
    assert_eq!(wanted.requests(), []);
    cache.remove(&world.row().entry.id, 3);
    wanted.touch();
    assert_eq!(wanted.requests().iter().map(Request::len).sum::<u64>(), GRID);
    fetch_all(&reader, &wanted);
    assert!(are_here(&reader, &wanted));
}

#[test]
fn decoding_ahead_reads_a_block_of_the_cache_once_for_all_frames_in_it() {
    let world = World::new();
    world.only_in_vault();
    let cache = Arc::new(BlockCache::in_memory(64 << 20));
    let reader = world.reader_with(cache.clone());
    fetch_all(&reader, &wanted_of(&world, &reader, 0..20));
    let before = cache.gets();
    reader.decode_ahead(world.row().no, 0..4).unwrap();
    let (gets, decoded) = (cache.gets() - before, reader.stats().frames_decoded);
    assert!(decoded == 4 && gets <= 2, "{gets} blocks for {decoded} frames of 64 KiB");
}

/// The one pack's frames of these chunks, opened after all was fetched.
fn open_all(reader: &Reader, wanted: &Wanted<'_>) -> (Option<Damaged>, Brought) {
    let mut brought = Brought::default();
    let damaged = reader.open_fetched(&wanted.frames()[0], &mut brought, || true).unwrap();
    (damaged, brought)
}

#[test]
fn what_is_damaged_in_the_cache_is_fetched_again_and_what_is_everywhere_is_told() {
    let world = World::new();
    world.only_in_vault();
    let dir = tempfile::tempdir().unwrap();
    let cache = Arc::new(BlockCache::open(dir.path(), 64 << 20, world.clock.clone()).unwrap());
    let reader = world.reader_with(cache.clone());
    let wanted = wanted_of(&world, &reader, 20..60);
    fetch_all(&reader, &wanted);
    let (damaged, brought) = open_all(&reader, &wanted);
    assert!(damaged.is_none() && brought == Brought::default());
    assert!(reader.stats().frames_decoded >= 4_000_000 / (64 << 10), "{:?}", reader.stats());
    // Whole by its checksum, and yet wrong.
    let pack = world.row().entry.id;
    let block = cache.get(&pack, 12).unwrap();
    cache.remove(&pack, 12);
    cache.put_and_settle(&pack, 12, &block.slice(..1000));
    // Cut short behind the cache's back.
    let hex = pack.hex();
    let path = dir.path().join(&hex[..2]).join(format!("{hex}-14"));
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(5000).unwrap();
    let (damaged, brought) = open_all(&reader, &wanted);
    assert!(damaged.is_none() && brought.requests == 2, "{damaged:?} {brought:?}");
    assert!(brought.bytes <= 4 * GRID, "no frame is in more than two blocks: {brought:?}");
    assert_eq!(cache.get(&pack, 12), Some(block));
    assert!(are_here(&reader, &wanted));
    // A reader gets past a block that is too short, too.
    let short = cache.get(&pack, 15).unwrap().slice(..1000);
    cache.remove(&pack, 15);
    cache.put_and_settle(&pack, 15, &short);
    (20..60).for_each(|n| world.assert_reads(&reader, n));
}

#[test]
fn what_a_vault_has_damaged_is_counted_and_the_rest_is_opened() {
    let world = World::new();
    world.only_in_vault();
    let mut bytes = world.parts.staging.read_all(&world.pack_name(), 1 << 30).unwrap().unwrap();
    for at in [3_000_000, 5_000_000] {
        bytes[at] ^= 1;
    }
    world.memory.replace(&world.pack_name(), bytes.into());
    let reader = world.reader();
    let wanted = wanted_of(&world, &reader, 20..60);
    fetch_all(&reader, &wanted);
    let (damaged, brought) = open_all(&reader, &wanted);
    let damaged = damaged.unwrap();
    assert_eq!(damaged.frames, 2);
    assert!(damaged.first.to_string().contains(&world.row().entry.id.to_string()), "{}", damaged.first);
    assert!(brought.requests >= 2);
    let none = reader.open_fetched(&wanted.frames()[0], &mut Brought::default(), || false).unwrap();
    assert!(none.is_none(), "somebody stopped it");
}

#[test]
fn what_the_cache_does_not_keep_is_no_damage_of_the_vault() {
    let world = World::new();
    world.only_in_vault();
    let dir = tempfile::tempdir().unwrap();
    let open = |limit| Arc::new(BlockCache::open(dir.path(), limit, world.clock.clone()).unwrap());
    fetch_all(&world.reader_with(open(64 << 20)), &wanted_of(&world, &world.reader(), 20..60));
    // It keeps nothing more, as on a disk that takes no writes.
    let reader = world.reader_with(open(GRID / 2));
    let wanted = wanted_of(&world, &reader, 20..60);
    assert!(wanted.requests().is_empty() && open_all(&reader, &wanted).0.is_none());
    let hex = world.row().entry.id.hex();
    std::fs::write(dir.path().join(&hex[..2]).join(format!("{hex}-14")), vec![7; GRID as usize]).unwrap();
    let opened = reader.open_fetched(&wanted.frames()[0], &mut Brought::default(), || true);
    assert!(matches!(opened, Err(StoreError::NotKept)), "{opened:?}");
}

/// A vault that lies, asked before one that is honest, and how many bytes the pack has.
fn with_a_liar(world: &World) -> (Arc<Reader>, Arc<FaultyVault>, u64) {
    let (reader, honest) = with_second_vault(world);
    world.vault.fail_from(Verb::Get, 1, Fault::Lie);
    (reader, honest, world.row().entry.len)
}

#[test]
fn a_vault_that_lies_is_read_a_few_blocks_of_and_the_honest_one_gives_the_rest() {
    let world = World::new();
    let (reader, honest, len) = with_a_liar(&world);
    (0..100).for_each(|n| world.assert_reads(&reader, n));
    let (lies, truth) = (world.vault.bytes(Verb::Get), honest.bytes(Verb::Get));
    assert!(lies <= 5 << 20, "{lies} of {len}");
    // Blocks that were read ahead from the liar are found out frame by frame.
    assert!(truth <= len + 2 * lies, "{truth} of {len}, {lies} lies");
}

#[test]
fn what_was_fetched_from_a_vault_that_lies_is_fetched_once_more_from_an_honest_one() {
    let world = World::new();
    let (reader, honest, len) = with_a_liar(&world);
    let wanted = wanted_of(&world, &reader, 0..100);
    fetch_all(&reader, &wanted);
    let (damaged, _) = open_all(&reader, &wanted);
    assert!(damaged.is_none(), "{damaged:?}");
    let (lies, truth) = (world.vault.bytes(Verb::Get), honest.bytes(Verb::Get));
    assert!(lies <= len + 4 * GRID, "{lies} of {len}");
    assert!(truth <= 2 * len, "{truth} of {len}");
}

#[test]
fn a_vault_that_lied_is_asked_first_again_after_a_minute_and_while_the_others_are_away() {
    let world = World::new();
    let (reader, honest, _) = with_a_liar(&world);
    world.assert_reads(&reader, 0);
    let first_asked = || reader.fetcher.best_first(&world.row().vaults)[0];
    assert_ne!(first_asked(), world.vault_no);
    world.vault.heal();
    honest.fail_from(Verb::Get, 1, Fault::FailBefore);
    world.assert_reads(&reader, 99);
    assert_eq!(first_asked(), world.vault_no, "the other is away");
    honest.heal();
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(first_asked(), world.vault_no, "its time is over");
}
