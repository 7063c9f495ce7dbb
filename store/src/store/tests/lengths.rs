//! What who keeps a vault learns from lengths and requests: the distinguishing game, with packs as they are and with what they would be
//! without fill, and that no request for a part of a pack is off the grid.
//!
//! The game: somebody knows two files of one length and sees what one of them became in a store with a key that nobody knows.
//! Who could tell them apart in no more than a part `p` of all keys guesses right in no more than `1/2 + p/2` of all
//! games, whatever he computes, and were the key of the chunker given to him: so `p` is what is measured. Of `d` in `n`
//! trials the bound is that of Clopper and Pearson, which holds in 99.9 % of such runs.
#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::ops::Range;

use super::forgotten::row;
use super::hostile::{prepared, push};
use super::losses::{faulty, open_on};
use super::*;
use crate::cache::GRID;
use crate::check::{self, Depth};
use crate::chunker::Chunker;
use crate::index::Index;
use crate::pack::{FinishedPack, FrameBuilder, PackFiller};
use crate::padding::padded;
use crate::scrub::ciphertext;
use crate::vault::testing::{FaultyVault, Request};
use crate::vault::{ObjectName, Verb};

/// A store's parameters, all divided by `scale`, and a file that is as long to them as 50 MB are to a real one.
#[derive(Clone, Copy)]
struct Scale(u32);

impl Scale {
    fn chunker(self) -> ChunkerParams {
        let ChunkerParams { kind, normalization, min, average, max } =
            StoreConfig::new(VaultId([0; 16]), 0).chunker;
        ChunkerParams { kind, normalization, min: min / self.0, average: average / self.0, max: max / self.0 }
    }

    fn pack_len(self) -> usize {
        StoreConfig::new(VaultId([0; 16]), 0).pack_len as usize / self.0 as usize
    }

    fn frame_len(self) -> usize {
        StoreConfig::new(VaultId([0; 16]), 0).frame_len as usize / self.0 as usize
    }
}

/// Lengths of what a file becomes, in order: its packs, and an index object of them.
#[derive(PartialEq, Eq)]
struct Seen(Vec<u64>);

/// What is seen of a file, with fill and without.
fn store_alone(scale: Scale, key: [u8; 32], file: &[u8]) -> [Seen; 2] {
    let sealer = Sealer::new(VaultId([3; 16]), &KeyRing::fixed(key), 1).unwrap();
    let chunker = Chunker::new(&scale.chunker(), &sealer);
    let mut frames = FrameBuilder::new(scale.frame_len(), Compression::None);
    let mut filler = PackFiller::new(&sealer, PackKind::Data, scale.pack_len());
    let (mut padded, mut bare, mut index) = (Vec::new(), Vec::new(), Index::default());
    let mut send = |pack: FinishedPack| {
        let fill = pack.entry.frames.last().filter(|frame| frame.raw_len == 0).unwrap();
        padded.push(pack.entry.len);
        bare.push(pack.entry.len - u64::from(fill.units) * 64);
        index.add(pack.entry, &pack.chunks);
        Ok::<_, ()>(())
    };
    let (mut rest, mut n) = (file, 0_u64);
    while !rest.is_empty() {
        let (plain, after) = rest.split_at(chunker.cut(rest));
        // Names of chunks do not change lengths; making them would take most of the time.
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        frames.push(ChunkId(id), plain);
        filler.push(frames.take(), &mut send).unwrap();
        (rest, n) = (after, n + 1);
    }
    filler.finish(&mut send).unwrap();
    padded.push(index.seal(&sealer).1.len() as u64);
    [Seen(padded), Seen(bare)]
}

/// In how many of `n` trials the two files were told apart, with fill and without. Each has a key and two files of its own.
fn told_apart(scale: Scale, seed: &str, n: u32, len: usize) -> [u32; 2] {
    let mut told = [0; 2];
    for trial in 0..n {
        let mut key = [0; 32];
        blake3::Hasher::new_derive_key("game")
            .update(format!("{seed} {trial}").as_bytes())
            .finalize_xof()
            .fill(&mut key);
        // Lengths differ from trial to trial, so that borders of classes are met as often as they are.
        let len = len + len / 4 * trial as usize / n as usize;
        let [one, other] =
            ["one", "other"].map(|of| store_alone(scale, key, &noise(&format!("{seed} {trial} {of}"), len)));
        for ((told, one), other) in told.iter_mut().zip(one).zip(other) {
            *told += u32::from(one != other);
        }
    }
    told
}

/// The greatest chance at which so few of `n` would be seen once in a thousand times.
fn upper_bound(seen: u32, n: u32) -> f64 {
    let at_most = |p: f64| {
        let term = |k: u32| {
            let ways: f64 = (0..k).map(|i| (f64::from(n - i) / f64::from(i + 1)).ln()).sum();
            (ways + f64::from(k) * p.ln() + f64::from(n - k) * (-p).ln_1p()).exp()
        };
        (0..=seen).map(term).sum::<f64>()
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let p = f64::midpoint(low, high);
        if at_most(p) > 0.001 { low = p } else { high = p }
    }
    high
}

fn play(scale: Scale, n: u32, len: usize, most: f64) {
    let seed = "lengths";
    let [with, without] = told_apart(scale, seed, n, len);
    let bound = upper_bound(with, n);
    let said = format!(
        "seed {seed:?}: told apart {with} of {n} (at most {:.2} % at 99.9 %), {without} without fill",
        bound * 100.0
    );
    println!("{said}");
    assert!(
        without * 100 >= n * 95,
        "who knows the key tells them apart without fill, or the game is too hard: {said}"
    );
    assert!(bound < most, "{said}");
}

#[test]
fn two_files_of_one_length_are_not_told_apart_by_lengths_also_by_who_knows_the_key_of_the_chunker() {
    play(Scale(16), 200, 3 << 20, 0.15);
}

#[test]
#[ignore = "a thousand files of 50 to 62 MB, twice: some minutes"]
fn two_files_of_fifty_megabytes_are_told_apart_in_less_than_one_in_ten_of_all_stores() {
    // One in a hundred was the goal, and is not reached: docs/decisions/size-privacy.md.
    play(Scale(1), 1000, 50_000_000, 0.10);
}

#[test]
fn the_bound_is_that_of_clopper_and_pearson() {
    // 1 - 0.001^(1/n) for none; for others from tables.
    for (seen, n, want) in [(0, 1000, 0.006_884), (0, 200, 0.033_94), (5, 100, 0.1560)] {
        let got = upper_bound(seen, n);
        assert!((got - want).abs() < want * 0.05, "{seen} of {n}: {got}, not {want}");
    }
}

#[test]
fn a_small_file_shows_nothing_of_its_length_below_the_floor_and_little_above() {
    let lens = |len| store_alone(Scale(1), [5; 32], &noise("small", len)).map(|seen| seen.0[0]);
    let [[one, bare], [other, other_bare]] = [lens(1000), lens(28_000)];
    assert!(one == other && bare != other_bare, "{one} {other}, without fill {bare} {other_bare}");
    let mut seen = BTreeSet::new();
    for len in (100_000..200_000).step_by(1000) {
        let [filled, _] = lens(len);
        assert_eq!(filled, padded(filled));
        seen.insert(filled);
    }
    assert!(seen.len() <= 33, "{}", seen.len());
}

/// Requests for parts of packs that are off the grid, and how many there were on it.
fn look_at(vault: &MemoryVault, asked: &FaultyVault) -> (Vec<Request>, usize) {
    let of_packs = |request: &Request| request.verb == Verb::Get && request.name.starts_with("pack/");
    let is_on = |request: &Request| {
        let Range { start, end } = request.range;
        let object = vault.object(&ObjectName::new(request.name.as_str()).unwrap());
        let is_end = object.is_none_or(|bytes| bytes.len() as u64 == end);
        start.is_multiple_of(GRID) && (end.is_multiple_of(GRID) || is_end)
    };
    let (on, off): (Vec<_>, Vec<_>) = asked.requests().into_iter().filter(of_packs).partition(is_on);
    (off, on.len())
}

#[test]
fn no_request_for_a_part_of_a_pack_is_off_the_grid_whatever_is_done() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let two = take_point(&store, &sample(2)).unwrap();
    drop(store);
    let mut each = Vec::new();
    let mut doing = |what: &str, work: &dyn Fn(&Store, &Arc<FaultyVault>), path: &std::path::Path| {
        let asked = faulty(&vault);
        // Opening one that knows nothing reads already.
        let store = open_on(&home, path, asked.clone());
        work(&store, &asked);
        let (off, on) = look_at(&vault, &asked);
        assert!(off.is_empty(), "{what}: {off:?}");
        each.push((what.to_owned(), on));
    };
    let here = home.path();
    let send = |store: &Store, _: &Arc<FaultyVault>| {
        let pushed = push(store, &two, &RecordingMonitor::default()).unwrap();
        assert!(pushed.packs > 0);
    };
    doing("push", &send, &here);
    // A machine that has nothing, and no index object to go by.
    let indexes: Vec<_> =
        vault.names().into_iter().filter(|name| name.as_str().starts_with("idx/")).collect();
    indexes.iter().for_each(|name| vault.lose(name));
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("new");
    Store::adopt(&there, &copy::vault_head(&transfer(&vault)).unwrap()).unwrap();
    let load = |store: &Store, _: &Arc<FaultyVault>| {
        let (no, _, way) = store.vaults()[0].clone();
        copy::load_catalog(store, no, &way, &VoidMonitor).unwrap();
    };
    doing("recover without index", &load, &there);
    let read_chunks = |store: &Store, _: &Arc<FaultyVault>| {
        for (point, version) in store.points().unwrap().iter().zip([1, 2]) {
            assert!(restore(store, point).unwrap() == sample(version));
        }
    };
    doing("restore", &read_chunks, &there);
    let read_parts = |store: &Store, _: &Arc<FaultyVault>| {
        let point = store.points().unwrap().remove(1);
        let read = |id: &ChunkId, len: u32| {
            for part in [0..1, len / 3..len / 2, len - 1..len] {
                store.reader().chunk_range(id, part, Deadline::NEVER)?;
            }
            store.reader().chunk(ChunkType::Data, id, Deadline::NEVER)
        };
        restore_by(store, &point, read).unwrap();
    };
    doing("reads of parts", &read_parts, &there);
    let fetch = |store: &Store, _: &Arc<FaultyVault>| {
        let mut wanted = store.reader().wanted();
        for pack in store.catalog().packs().unwrap() {
            for chunk in store.catalog().chunks_of(pack.no).unwrap().iter().step_by(3) {
                wanted.add(&chunk.id).unwrap();
            }
        }
        let mut brought = crate::reader::Brought::default();
        wanted.requests().iter().for_each(|request| store.reader().fetch(request, &mut brought).unwrap());
    };
    doing("fetch", &fetch, &there);
    doing("check", &|store, _| drop(check::check(store, Depth::ReadData, &VoidMonitor).unwrap()), &here);
    let prove = |_: &Store, asked: &Arc<FaultyVault>| {
        for rate in [None, Some(1000), Some(300_000)] {
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
            let way = Transfer::new(asked.clone(), clock.clone(), TransferPolicy::default()).unwrap();
            let scope = ciphertext::Scope { rate, ..ciphertext::Scope::default() };
            ciphertext::verify(&way, &clock, &scope, &VoidMonitor).unwrap();
        }
    };
    doing("scrub without a key", &prove, &here);
    // Something of each pack goes, and the rest is written anew, by who has nothing here.
    let free = |store: &Store, _: &Arc<FaultyVault>| {
        let no = store.vaults()[0].0;
        store.remove_point_from_vault(no, &row(store, &one)).unwrap();
        assert!(free_in_vault(store, no, &VoidMonitor).packs > 0);
    };
    doing("prune", &free, &there);
    for what in
        ["recover without index", "restore", "reads of parts", "fetch", "check", "scrub without a key"]
    {
        assert!(each.iter().any(|(done, on)| done == what && *on > 0), "{what} asked for nothing: {each:?}");
    }
}

#[test]
fn a_vault_and_the_log_of_a_restore_are_those_of_other_files_of_the_same_lengths() {
    let [one, other] = ["one", "other"].map(stored_and_restored);
    assert_eq!(one.0, other.0);
    assert!(one.1.len() == 3 && one.1 == other.1, "{:?}, {:?}", one.1, other.1);
}

/// Length of a pack, and blocks of it that were asked for.
type Asked = (u64, BTreeSet<u64>);

/// Kinds and lengths of all objects in a vault with files of these names and lengths, and which blocks of packs of which length were asked
/// for by who restored all of them.
fn stored_and_restored(of: &str) -> (Vec<(String, u64)>, Vec<Asked>) {
    let home = Home::of(StoreConfig::new(VaultId([4; 16]), 0), KeyRing::fixed([6; 32]));
    let (vault, store) = prepared(&home);
    let files: Tree = (0..6).map(|n| (format!("file{n}"), noise(&format!("{of} {n}"), 3_600_000))).collect();
    let point = take_point(&store, &files).unwrap();
    push(&store, &point, &RecordingMonitor::default()).unwrap();
    drop(store);
    let len = |name: &str| vault.object(&ObjectName::new(name).unwrap()).unwrap().len() as u64;
    let kind = |name: &str| name.split('/').next().unwrap().to_owned();
    let mut lens: Vec<_> =
        vault.names().iter().map(|name| (kind(name.as_str()), len(name.as_str()))).collect();
    lens.sort();
    let asked = faulty(&vault);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    Store::adopt(&path, &copy::vault_head(&transfer(&vault)).unwrap()).unwrap();
    let there = open_on(&home, &path, asked.clone());
    let (no, _, way) = there.vaults()[0].clone();
    copy::load_catalog(&there, no, &way, &VoidMonitor).unwrap();
    copy::learn_points(&there, no, &way).unwrap();
    assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == files);
    let mut blocks: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for request in asked.requests().into_iter().filter(|r| r.verb == Verb::Get && r.name.starts_with("pack/"))
    {
        blocks
            .entry(request.name)
            .or_default()
            .extend(request.range.start / GRID..request.range.end.div_ceil(GRID));
    }
    let mut log: Vec<_> = blocks.into_iter().map(|(name, blocks)| (len(&name), blocks)).collect();
    log.sort();
    (lens, log)
}
