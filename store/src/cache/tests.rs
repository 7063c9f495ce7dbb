//! Tests of the cache: what stays, what goes, and what it costs to open one.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::room::{Old, Room};
use super::*;
use crate::clock::{ManualClock, Timestamp};

/// Bytes of a block's file.
const LEN: u64 = 1016;

fn block(n: u32) -> Bytes {
    vec![n as u8; 1000].into()
}

const PACK: PackId = PackId([3; 32]);

/// A directory for caches, and the time in it.
struct World {
    dir: TempDir,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        // Long ago, so that a file which is being written, and still has the system's time, is not taken for an old one.
        let clock = ManualClock::at(Timestamp::from_seconds(1_000_000_000));
        Self { dir: tempfile::tempdir().unwrap(), clock: Arc::new(clock) }
    }

    fn open(&self, limit: u64) -> BlockCache {
        BlockCache::open(self.dir.path(), limit, self.clock.clone()).unwrap()
    }

    /// Reads a block, and waits until that is marked, which another thread does.
    fn read_and_marked(&self, cache: &BlockCache, n: u32) {
        assert_eq!(cache.get(&PACK, n), Some(block(n)));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(self.clock.now().seconds as u64);
        while fs::metadata(self.path(n)).unwrap().modified().unwrap() != now {
            std::thread::yield_now();
        }
    }

    /// Puts blocks, minutes apart.
    fn put(&self, cache: &BlockCache, blocks: impl IntoIterator<Item = u32>) {
        for n in blocks {
            self.clock.advance(Duration::from_secs(100));
            cache.put_and_settle(&PACK, n, &block(n));
        }
    }

    fn path(&self, block: u32) -> PathBuf {
        let hex = PACK.hex();
        self.dir.path().join(&hex[..2]).join(format!("{hex}-{block}"))
    }

    fn there(&self) -> Vec<u32> {
        (0..100).filter(|n| self.path(*n).exists()).collect()
    }
}

/// Waits until another thread has done it.
fn until(mut done: impl FnMut() -> bool) {
    let is_done = (0..2000).any(|_| done() || (std::thread::sleep(Duration::from_millis(5)), false).1);
    assert!(is_done, "not done within 10 s");
}

#[test]
fn the_least_recently_used_blocks_go_first_and_what_is_left_survives_a_restart() {
    let world = World::new();
    let cache = world.open(3 * LEN);
    world.put(&cache, 0..3);
    assert_eq!(cache.bytes(), 3 * LEN);
    world.clock.advance(Duration::from_secs(100));
    world.read_and_marked(&cache, 0);
    world.put(&cache, [3]);
    assert_eq!((cache.bytes(), world.there()), (3 * LEN, vec![0, 2, 3]));
    drop(cache);
    let again = world.open(3 * LEN);
    world.put(&again, [4]);
    assert_eq!((again.bytes(), world.there()), (3 * LEN, vec![0, 3, 4]));
    world.read_and_marked(&again, 0);
    let smaller = world.open(LEN + 100);
    assert_eq!((smaller.bytes(), world.there()), (LEN, vec![4]));
}

#[test]
fn a_block_that_was_used_since_it_was_noted_to_go_stays() {
    let world = World::new();
    let cache = world.open(3 * LEN);
    world.put(&cache, 0..3);
    cache.bytes();
    world.clock.advance(Duration::from_secs(100));
    world.read_and_marked(&cache, 0);
    // Nobody surveys again: of the noted ones, the next goes.
    world.put(&cache, [3]);
    assert_eq!(world.there(), [0, 2, 3]);
}

#[test]
fn a_use_is_marked_once_a_minute() {
    let world = World::new();
    let cache = world.open(1 << 20);
    world.put(&cache, [7]);
    let marked = || fs::metadata(world.path(7)).unwrap().modified().unwrap();
    let put = marked();
    world.clock.advance(Duration::from_secs(59));
    cache.get(&PACK, 7).unwrap();
    assert_eq!(marked(), put);
    world.clock.advance(Duration::from_secs(1));
    world.read_and_marked(&cache, 7);
    assert_eq!(marked(), put + Duration::from_secs(60));
}

#[test]
fn a_touch_marks_a_use_however_soon() {
    let world = World::new();
    let cache = world.open(3 * LEN);
    world.put(&cache, 0..3);
    world.clock.advance(Duration::from_secs(1));
    assert!(cache.touch(&PACK, 0) && !cache.touch(&PACK, 7));
    cache.bytes();
    world.put(&cache, [3]);
    assert_eq!(world.there(), [0, 2, 3]);
}

#[test]
fn what_a_wrong_clock_put_goes_first_unless_it_is_used() {
    let world = World::new();
    let cache = world.open(3 * LEN);
    world.put(&cache, 0..3);
    let late = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    [1, 2].iter().for_each(|n| File::open(world.path(*n)).unwrap().set_modified(late).unwrap());
    world.read_and_marked(&cache, 1);
    cache.bytes();
    world.put(&cache, [3]);
    assert_eq!(world.there(), [0, 1, 3]);
}

#[test]
fn opening_looks_at_nothing_and_a_block_that_is_put_has_the_rest_counted_when_that_is_due() {
    let world = World::new();
    world.put(&world.open(1 << 20), 0..6);
    let mut blocks = DiskBlocks::new(world.dir.path(), 3 * LEN, world.clock.clone());
    blocks.room = Room::noting(9, 3 * LEN, LEN);
    let blocks = Arc::new(blocks);
    let cache = BlockCache { limit: 3 * LEN, blocks: Blocks::OnDisk(blocks.clone()) };
    assert_eq!(world.there().len(), 6, "a smaller bound waits for a block");
    assert_eq!(cache.get(&PACK, 0), Some(block(0)));
    world.put(&cache, [6]);
    assert_eq!((world.there().len(), blocks.room.held()), (7, LEN), "a short command surveys nothing");
    world.put(&cache, [7]);
    until(|| world.there().len() <= 3);
    assert!(world.there().contains(&7));
}

#[test]
fn more_than_what_is_noted_at_once_goes_too() {
    let world = World::new();
    world.put(&world.open(1 << 20), 0..20);
    let mut blocks = DiskBlocks::new(world.dir.path(), 3 * LEN, world.clock.clone());
    blocks.room = Room::noting(4, 3 * LEN, 0);
    let blocks = Arc::new(blocks);
    assert_eq!((blocks.count(), world.there()), (3 * LEN, vec![17, 18, 19]));
}

#[test]
fn what_one_process_fetched_another_finds_and_what_it_let_go_is_gone() {
    let world = World::new();
    let [one, other] = [(); 2].map(|()| world.open(3 * LEN));
    world.put(&one, [1]);
    assert!(other.has(&PACK, 1) && !other.has(&PACK, 2));
    assert_eq!(other.get(&PACK, 1), Some(block(1)));
    assert_eq!(other.bytes(), one.bytes());
    world.put(&one, 2..5);
    assert_eq!(other.get(&PACK, 1), None, "the oldest of four went");
    assert_eq!(other.get(&PACK, 4), Some(block(4)));
    assert_eq!(other.bytes(), 3 * LEN);
}

#[test]
fn what_another_process_writes_is_left_alone_unless_it_ended_long_ago() {
    let world = World::new();
    let cache = world.open(1 << 20);
    world.put(&cache, [0]);
    let [writing, left] = ["1.77-0.part", "2.78-0.part"].map(|n| world.path(0).with_extension(n));
    for (path, seconds) in [(&writing, 3600), (&left, 3601)] {
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_100 - seconds);
        File::create(path).unwrap().set_modified(written).unwrap();
    }
    assert_eq!(world.open(1 << 20).bytes(), LEN);
    assert!(writing.exists() && !left.exists());
}

#[test]
fn a_damaged_block_is_dropped_and_never_returned() {
    let world = World::new();
    let cache = world.open(1 << 20);
    world.put(&cache, 0..3);
    let whole = fs::read(world.path(0)).unwrap();
    let mut flipped = whole.clone();
    flipped[500] ^= 1;
    let long = [whole.as_slice(), &[0; GRID as usize]].concat();
    for (n, bytes) in [&flipped[..], &whole[..10], &long].into_iter().enumerate() {
        let n = n as u32;
        fs::write(world.path(n), bytes).unwrap();
        assert_eq!(cache.get(&PACK, n), None);
        assert!(!world.path(n).exists() && !cache.has(&PACK, n));
    }
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn a_block_in_the_place_of_another_is_none() {
    let world = World::new();
    let cache = world.open(1 << 20);
    world.put(&cache, [1]);
    fs::copy(world.path(1), world.path(2)).unwrap();
    let other = PackId([4; 32]);
    let hex = other.hex();
    let path = world.dir.path().join(&hex[..2]).join(format!("{hex}-1"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(world.path(1), path).unwrap();
    assert!(cache.get(&PACK, 2).is_none() && cache.get(&other, 1).is_none());
    assert_eq!(cache.get(&PACK, 1), Some(block(1)));
}

#[test]
fn what_is_no_file_of_a_block_is_neither_opened_nor_counted_and_makes_way() {
    let world = World::new();
    let cache = world.open(1 << 20);
    world.put(&cache, [3]);
    let odd = || {
        nix::unistd::mkfifo(&world.path(0), nix::sys::stat::Mode::S_IRWXU).unwrap();
        File::create(world.path(1)).unwrap().set_len(4 << 40).unwrap();
        std::os::unix::fs::symlink(world.path(3), world.path(2)).unwrap();
    };
    odd();
    for n in 0..3 {
        assert!(!cache.has(&PACK, n) && !cache.touch(&PACK, n), "{n}");
        assert_eq!(cache.get(&PACK, n), None, "{n}");
        assert!(!world.path(n).exists(), "{n}");
    }
    odd();
    assert_eq!((cache.bytes(), world.there()), (LEN, vec![3]));
    odd();
    world.put(&cache, 0..3);
    (0..4).for_each(|n| assert_eq!(cache.get(&PACK, n), Some(block(n)), "{n}"));
}

#[test]
fn a_wrong_block_that_cannot_be_deleted_is_not_found_again_until_it_is_replaced() {
    let world = World::new();
    let cache = world.open(1 << 20);
    let path = world.path(9);
    // Neither read, deleted nor replaced, whoever runs this.
    fs::create_dir_all(path.join("in the way")).unwrap();
    assert_eq!(cache.get(&PACK, 9), None);
    assert!(!cache.has(&PACK, 9));
    cache.put_and_settle(&PACK, 9, &block(9));
    assert!(!cache.has(&PACK, 9));
    fs::remove_dir_all(&path).unwrap();
    cache.put_and_settle(&PACK, 9, &block(9));
    assert_eq!(cache.get(&PACK, 9), Some(block(9)));
}

#[test]
fn blocks_that_cannot_be_let_go_of_do_not_keep_anybody_busy() {
    let world = World::new();
    for n in 0..3 {
        fs::create_dir_all(world.path(n).join("in the way")).unwrap();
    }
    let cache = world.open(10);
    cache.bytes();
    assert_eq!(world.there(), [0, 1, 2]);
}

#[test]
fn copies_of_blocks_in_other_places_are_neither_counted_nor_let_go_of_nor_is_anything_in_their_stead() {
    let world = World::new();
    world.put(&world.open(1 << 20), 0..6);
    let shard = world.path(0).parent().unwrap().to_path_buf();
    let copy = shard.with_extension("old");
    fs::create_dir(&copy).unwrap();
    for n in 0..6 {
        let path = copy.join(world.path(n).file_name().unwrap());
        fs::copy(world.path(n), path).unwrap();
        let odd = shard.join(format!("{}-0{n}", PACK.hex()));
        fs::copy(world.path(n), odd).unwrap();
    }
    File::create(copy.join(format!("{}-0.1-1.part", PACK.hex())))
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(world.open(6 * LEN).bytes(), 6 * LEN);
    assert_eq!(world.there().len(), 6);
    assert_eq!(world.open(4 * LEN).bytes(), 4 * LEN);
    assert_eq!(world.there(), [2, 3, 4, 5]);
    assert_eq!((fs::read_dir(&copy).unwrap().count(), fs::read_dir(&shard).unwrap().count()), (7, 4 + 6));
}

/// A cache that notes two blocks with a survey.
fn noting_two(world: &World, limit: u64) -> Arc<DiskBlocks> {
    let mut blocks = DiskBlocks::new(world.dir.path(), limit, world.clock.clone());
    blocks.room = Room::noting(2, limit, LEN);
    Arc::new(blocks)
}

#[test]
fn a_survey_ends_though_more_blocks_than_can_be_noted_lie_elsewhere() {
    let world = World::new();
    world.put(&world.open(1 << 20), 0..6);
    let shard = world.path(0).parent().unwrap().to_path_buf();
    fs::rename(&shard, shard.with_extension("old")).unwrap();
    let blocks = noting_two(&world, LEN);
    let (done, ended) = std::sync::mpsc::channel();
    let surveyor = Arc::clone(&blocks);
    std::thread::spawn(move || done.send(surveyor.count()));
    let held = ended.recv_timeout(Duration::from_secs(20));
    blocks.end();
    assert_eq!(held, Ok(0));
}

#[test]
fn a_block_that_is_gone_already_is_none_that_was_let_go_of() {
    let world = World::new();
    world.put(&world.open(1 << 20), [0]);
    let blocks = noting_two(&world, LEN);
    let mut found = blocks.room.begin_survey();
    let used = fs::metadata(world.path(0)).unwrap().modified().unwrap();
    let used = used.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    [(used, 0), (1, 7)]
        .iter()
        .for_each(|(used, n)| found.add(Old { used: *used, key: (PACK, *n), len: 9999 }));
    blocks.room.end_survey(Some(found));
    assert_eq!((blocks.let_go(), world.there()), (1, vec![]));
}

#[test]
fn a_cache_that_cannot_be_written_says_so_until_it_can() {
    let world = World::new();
    let cache = world.open(1 << 20);
    let shard = world.path(0).parent().unwrap().to_path_buf();
    fs::write(&shard, "in the way").unwrap();
    assert!(cache.is_kept(), "nothing is known yet");
    cache.put_and_settle(&PACK, 0, &block(4));
    assert!(!cache.is_kept() && !cache.has(&PACK, 0));
    assert_eq!(cache.get(&PACK, 0), None);
    fs::remove_file(shard).unwrap();
    cache.put_and_settle(&PACK, 0, &block(4));
    assert!(cache.is_kept() && cache.has(&PACK, 0));
    assert!(!BlockCache::in_memory(GRID).is_kept(), "the next block would push it out");
}

#[test]
fn a_cache_in_memory_keeps_its_bound_too() {
    let cache = BlockCache::in_memory(2500);
    for n in 0..5 {
        cache.put_and_settle(&PackId([n; 32]), 0, &block(n.into()));
    }
    assert_eq!(cache.bytes(), 2000);
    assert_eq!(cache.get(&PackId([4; 32]), 0), Some(block(4)));
    cache.remove(&PackId([4; 32]), 0);
    assert!(cache.bytes() == 1000 && !cache.has(&PackId([4; 32]), 0));
}

#[test]
fn a_block_that_is_kept_in_memory_does_not_keep_what_came_with_it() {
    let cache = BlockCache::in_memory(1 << 20);
    let came = Bytes::from(vec![7; 4000]);
    (0..4).for_each(|n| {
        cache.put_and_settle(&PACK, n, &came.slice(n as usize * 1000..n as usize * 1000 + 1000))
    });
    assert!(came.is_unique(), "nobody else holds a part of it");
    assert!((0..4).all(|n| cache.get(&PACK, n) == Some(vec![7; 1000].into())));
}

#[test]
fn nobody_waits_for_a_disk_that_takes_no_blocks_and_what_waits_is_found_and_bounded() {
    let world = World::new();
    let cache = world.open(1 << 20);
    let run: Bytes = [vec![1; GRID as usize], vec![2; 1000]].concat().into();
    let [first, second, third] = [(); 3].map(|()| Arc::new(()));
    let hanging = cache.hang_writes();
    let most = 2 * run.len() as u64;
    cache.put(&PACK, 0, &run, most, first.clone());
    cache.put(&PACK, 2, &run, most, second.clone());
    cache.put(&PACK, 4, &run, most, third.clone());
    assert_eq!(cache.waiting(), most, "the third would be too much");
    assert_eq!([&first, &second, &third].map(Arc::strong_count), [2, 2, 1]);
    assert_eq!(
        (cache.get(&PACK, 0), cache.get(&PACK, 3)),
        (Some(run.slice(..GRID as usize)), Some(vec![2; 1000].into()))
    );
    assert!((0..4).all(|n| cache.has(&PACK, n) && cache.touch(&PACK, n) && !cache.is_stored(&PACK, n)));
    assert!(!cache.has(&PACK, 4) && world.there().is_empty());
    drop(hanging);
    assert!(cache.settle(&|| false));
    assert_eq!((cache.waiting(), world.there()), (0, vec![0, 1, 2, 3]));
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 1));
    assert_eq!(world.open(1 << 20).get(&PACK, 1), Some(vec![2; 1000].into()));
    assert!(run.is_unique(), "nobody keeps it");
}

#[test]
fn a_block_that_is_dropped_or_put_again_while_it_waits_or_is_written_is_what_it_was_last() {
    let world = World::new();
    let cache = world.open(1 << 20);
    let put = |n, bytes| cache.put(&PACK, n, &block(bytes), u64::MAX, Arc::new(()));
    let hanging = cache.hang_writes();
    // The thread has the first of them in its hands, some time.
    (0..3).for_each(|n| put(n, n));
    cache.remove(&PACK, 1);
    [0, 2].iter().for_each(|n| (cache.remove(&PACK, *n), put(*n, n + 10)).1);
    assert_eq!([0, 1, 2].map(|n| cache.get(&PACK, n)), [Some(block(10)), None, Some(block(12))]);
    drop(hanging);
    assert!(cache.settle(&|| false));
    assert_eq!([0, 1, 2].map(|n| cache.get(&PACK, n)), [Some(block(10)), None, Some(block(12))]);
    assert_eq!(world.there(), [0, 2]);
}

#[test]
fn a_disk_that_takes_nothing_for_long_is_told_and_waited_for_no_longer_until_it_does() {
    let world = World::new();
    let cache = Arc::new(world.open(1 << 20));
    let hanging = cache.hang_writes();
    cache.put(&PACK, 0, &block(0), u64::MAX, Arc::new(()));
    until(|| {
        world.clock.advance(Duration::from_secs(1));
        !cache.is_kept()
    });
    let (done, is_done) = std::sync::mpsc::channel();
    let waiting = Arc::clone(&cache);
    std::thread::spawn(move || done.send(waiting.settle(&|| false)));
    let mut settled = None;
    until(|| {
        world.clock.advance(Duration::from_secs(1));
        settled = is_done.try_recv().ok();
        settled.is_some()
    });
    assert_eq!(settled, Some(false));
    drop(hanging);
    assert!(cache.settle(&|| false) && cache.is_kept());
    assert_eq!(world.there(), [0]);
}

#[test]
fn to_open_a_cache_nothing_is_made_that_is_there_and_what_cannot_be_made_is_not_waited_for() {
    let world = World::new();
    let (limit, clock) = (1 << 20, world.clock.clone());
    let there = BlockCache::open_with(world.dir.path(), limit, clock, |_| panic!("nothing is to be made"));
    assert!(there.is_ok());
    let (clock, missing) = (world.clock.clone(), world.dir.path().join("missing"));
    let (never, comes) = std::sync::mpsc::channel::<()>();
    let hangs = move |_: &Path| {
        clock.advance(A_MOMENT);
        comes.recv().map_err(std::io::Error::other)
    };
    let error = BlockCache::open_with(&missing, limit, world.clock.clone(), hangs).unwrap_err();
    assert_eq!(error.to_string(), "its disk takes no writes");
    drop(never);
}
