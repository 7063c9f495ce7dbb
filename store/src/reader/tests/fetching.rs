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
