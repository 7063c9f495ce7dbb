//! Reading directories and trees against plain maps, and what a hostile tree can do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;

use super::*;
use crate::seal::ChunkType;
use crate::tree::page::InnerItem;
use crate::tree::testing::{MemoryChunks, TestRandom, build_directory, sample_node};
use crate::tree::{ChunkSink, Node, NodeKind, Subtree};

const NEVER: Deadline = Deadline::NEVER;

fn names(n: usize) -> Vec<Vec<u8>> {
    // Only every second number: names in between do not exist.
    (0..n).map(|i| format!("{:07}", i * 2).into_bytes()).collect()
}

fn flat(n: usize) -> (MemoryChunks, ChunkId) {
    let mut chunks = MemoryChunks::new();
    let nodes: Vec<Node> = names(n).iter().map(|name| sample_node(name, NodeKind::Fifo)).collect();
    let tree = build_directory(&nodes, &mut chunks).unwrap().tree;
    (chunks, tree)
}

fn pages_of(chunks: &MemoryChunks) -> Pages {
    Pages::new(Arc::new(chunks.clone()))
}

fn open(chunks: &MemoryChunks, tree: &ChunkId) -> Directory {
    Directory::open(&pages_of(chunks), tree, NEVER).unwrap()
}

#[test]
fn entries_are_found_by_name_and_by_position() {
    for n in [0usize, 1, 100, 20_000] {
        let (chunks, tree) = flat(n);
        let directory = open(&chunks, &tree);
        assert_eq!(directory.len(), n as u64);
        let mut random = TestRandom::new(n as u64);
        let all = names(n);
        for _ in 0..200 {
            let at = random.below(2 * n as u64 + 4) as usize;
            let name = format!("{at:07}").into_bytes();
            let found = directory.lookup(&name, NEVER).unwrap().map(|node| node.name.clone());
            assert_eq!(found, (at.is_multiple_of(2) && at / 2 < n).then(|| name.clone()));
            let before = at.div_ceil(2).min(n);
            assert_eq!(directory.position(&name, NEVER).unwrap(), before as u64, "{at}");
            let by_position = directory.at(at as u64, NEVER).unwrap().map(|node| node.name.clone());
            assert_eq!(by_position.as_ref(), all.get(at));
            let first = |entries: Entries| {
                let position = entries.position();
                let names: Vec<_> = entries.take(3).map(|e| e.unwrap().name.clone()).collect();
                (position, names)
            };
            let want =
                |from: usize| (from as u64, all.iter().skip(from).take(3).cloned().collect::<Vec<_>>());
            assert_eq!(first(directory.entries_from(&name, NEVER).unwrap()), want(before));
            assert_eq!(first(directory.entries_at(at as u64, NEVER).unwrap()), want(at.min(n)));
        }
        assert_eq!(directory.position(b"", NEVER).unwrap(), 0);
        assert!(directory.at(u64::MAX, NEVER).unwrap().is_none());
    }
}

#[test]
fn a_listing_can_be_continued_at_any_leaf_border() {
    let (chunks, tree) = flat(3000);
    let directory = open(&chunks, &tree);
    let all = names(3000);
    for from in 0..3000u64 {
        let entry = directory.entries_at(from, NEVER).unwrap().next().unwrap().unwrap();
        assert_eq!(entry.name, all[from as usize]);
    }
}

#[test]
fn a_lookup_loads_one_page_per_level_and_a_listing_each_page_once() {
    let (chunks, tree) = flat(60_000);
    let directory = open(&chunks, &tree);
    let levels = u64::from(pages_of(&chunks).page(&tree, NEVER).unwrap().level()) + 1;
    assert!(levels >= 3, "{levels}");
    chunks.reset_counts();
    assert!(directory.lookup(b"0060000", NEVER).unwrap().is_some());
    assert_eq!(chunks.counts().gets, levels - 1);
    chunks.reset_counts();
    assert_eq!(directory.entries_at(0, NEVER).unwrap().count(), 60_000);
    assert_eq!(chunks.counts().gets, chunks.len() as u64 - 1);
}

#[test]
fn a_cache_answers_again_and_stays_below_its_limit() {
    let (chunks, tree) = flat(20_000);
    let cache = Arc::new(PageCache::new(16 << 20));
    let pages = Pages::cached(Arc::new(chunks.clone()), cache.clone());
    let list = |pages: &Pages| {
        let directory = Directory::open(pages, &tree, NEVER).unwrap();
        assert_eq!(directory.entries_at(0, NEVER).unwrap().filter(Result::is_ok).count(), 20_000);
    };
    list(&pages);
    chunks.reset_counts();
    list(&pages);
    assert_eq!(chunks.counts().gets, 0);
    assert!(cache.bytes() > 20_000 * size_of::<Node>());

    let small = Arc::new(PageCache::new(1 << 20));
    let pages = Pages::cached(Arc::new(chunks.clone()), small.clone());
    list(&pages);
    assert!((1..=1 << 20).contains(&small.bytes()), "{}", small.bytes());
    let none = PageCache::new(10);
    none.insert(tree, pages.page(&tree, NEVER).unwrap());
    assert!(none.get(&tree).is_none() && none.bytes() == 0);
}

#[test]
fn a_page_that_is_not_what_the_page_above_says_is_named() {
    let (chunks, tree) = flat(2000);
    let Page::Inner { items, .. } = &*pages_of(&chunks).page(&tree, NEVER).unwrap() else {
        panic!("two levels")
    };
    let id = items[1].page;
    let Page::Leaf(good) = &*pages_of(&chunks).page(&id, NEVER).unwrap() else { panic!("a leaf") };
    let with = |change: fn(&mut Vec<Node>)| {
        let mut nodes = good.clone();
        change(&mut nodes);
        Page::Leaf(nodes).encode().unwrap()
    };
    let inner = Page::Inner { level: 1, items: items.clone() }.encode().unwrap();
    let cases = [
        ("first name", with(|nodes| nodes[0].name.push(b'x'))),
        ("number", with(|nodes| drop(nodes.pop()))),
        ("last name", with(|nodes| nodes.last_mut().unwrap().name = b"z".to_vec())),
        ("level", inner),
        ("page version", vec![9; 50]),
    ];
    for (word, bytes) in cases {
        chunks.replace(ChunkType::Tree, &id, &bytes);
        let name = good[3].name.clone();
        let error = open(&chunks, &tree).lookup(&name, NEVER).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains(&id.hex()), "{word}: {error}");
        let listed: Vec<_> = open(&chunks, &tree).entries_at(0, NEVER).unwrap().collect();
        assert!(listed.last().unwrap().is_err() && listed.iter().filter(|e| e.is_err()).count() == 1);
    }
}

/// A tree in memory: what directories and walks are held against.
#[derive(Clone, Debug, PartialEq)]
enum Model {
    File(i64),
    Directory(BTreeMap<Vec<u8>, Model>),
}

fn put_model(entries: &BTreeMap<Vec<u8>, Model>, chunks: &mut MemoryChunks) -> Subtree {
    let nodes: Vec<Node> = entries
        .iter()
        .map(|(name, model)| match model {
            Model::File(mtime) => {
                let mut node = sample_node(name, NodeKind::File);
                node.mtime.seconds = *mtime;
                node
            }
            Model::Directory(below) => {
                let mut node = sample_node(name, NodeKind::Directory);
                node.subtree = Some(put_model(below, chunks));
                node
            }
        })
        .collect();
    build_directory(&nodes, chunks).unwrap().subtree()
}

fn random_model(random: &mut TestRandom, depth: u32, wide: u64) -> BTreeMap<Vec<u8>, Model> {
    (0..random.below(wide))
        .map(|_| {
            let name = format!("{:03x}", random.below(0x800)).into_bytes();
            if depth > 0 && random.below(8) == 0 {
                (name, Model::Directory(random_model(random, depth - 1, wide / 4 + 2)))
            } else {
                (name, Model::File(random.below(1000) as i64))
            }
        })
        .collect()
}

/// Paths of a model, a directory before what is in it; a file with its number.
fn paths(entries: &BTreeMap<Vec<u8>, Model>, prefix: &str, out: &mut Vec<(String, Option<i64>)>) {
    for (name, model) in entries {
        let path = format!("{prefix}{}", String::from_utf8_lossy(name));
        match model {
            Model::File(mtime) => out.push((path, Some(*mtime))),
            Model::Directory(below) => {
                out.push((path.clone(), None));
                paths(below, &format!("{path}/"), out);
            }
        }
    }
}

fn all_paths(entries: &BTreeMap<Vec<u8>, Model>) -> Vec<(String, Option<i64>)> {
    let mut out = Vec::new();
    paths(entries, "", &mut out);
    out
}

fn mutate(entries: &mut BTreeMap<Vec<u8>, Model>, random: &mut TestRandom) {
    let names: Vec<Vec<u8>> = entries.keys().cloned().collect();
    for name in names {
        match (random.below(40), entries.get_mut(&name)) {
            (0, _) => drop(entries.remove(&name)),
            (1, Some(Model::File(mtime))) => *mtime += 1,
            (2, Some(entry)) => {
                *entry = match entry {
                    Model::File(_) => Model::Directory(random_model(random, 1, 5)),
                    Model::Directory(_) => Model::File(7),
                }
            }
            (3, _) => drop(entries.insert([&name[..], b"+"].concat(), Model::File(1))),
            (4..12, Some(Model::Directory(below))) => mutate(below, random),
            _ => (),
        }
    }
}

#[test]
fn random_trees_are_walked_as_their_model() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut random = TestRandom::new(seed);
        let model = random_model(&mut random, 4, 300);
        let mut chunks = MemoryChunks::new();
        let subtree = put_model(&model, &mut chunks);
        let want = all_paths(&model);
        assert_eq!(subtree.entries, want.len() as u64);
        let mut got = Vec::new();
        let pages = pages_of(&chunks);
        let count = visit(&pages, &subtree.tree, subtree.entries, NEVER, &mut |path, node| {
            let file = (node.kind == NodeKind::File).then_some(node.mtime.seconds);
            got.push((String::from_utf8(path.to_vec()).unwrap(), file));
            Ok(Visit::Continue)
        });
        assert_eq!(count.unwrap(), subtree.entries);
        assert_eq!(got, want);
        for (path, file) in want.iter().step_by(17) {
            let node = lookup_path(&pages, &subtree.tree, path.as_bytes(), NEVER).unwrap().unwrap();
            assert_eq!(file.is_some(), node.kind == NodeKind::File);
            let below = format!("{path}/nothing");
            assert!(lookup_path(&pages, &subtree.tree, below.as_bytes(), NEVER).unwrap().is_none());
        }
    }
}

/// What must be reported, from two sorted lists of paths.
fn expected(old: &[(String, Option<i64>)], new: &[(String, Option<i64>)]) -> Vec<String> {
    let (a, b): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (old.iter().cloned().collect(), new.iter().cloned().collect());
    let mut out = Vec::new();
    for (path, old) in &a {
        match b.get(path) {
            Some(new) if old.is_some() == new.is_some() => {
                if old != new {
                    out.push(format!("changed {path}"));
                }
            }
            _ => out.push(format!("removed {path}")),
        }
    }
    for (path, new) in &b {
        if a.get(path).is_none_or(|old| old.is_some() != new.is_some()) {
            out.push(format!("added {path}"));
        }
    }
    out.sort();
    out
}

fn said(change: &Change) -> String {
    let path = String::from_utf8_lossy(&change.path);
    match &change.kind {
        ChangeKind::Added(_) => format!("added {path}"),
        ChangeKind::Removed(_) => format!("removed {path}"),
        ChangeKind::Changed { differs, .. } => {
            assert_eq!(*differs, Differences { mtime: true, ..Differences::default() });
            format!("changed {path}")
        }
    }
}

#[test]
fn comparisons_of_random_trees_say_what_their_models_say() {
    for seed in 100..130 {
        println!("seed {seed}");
        let mut random = TestRandom::new(seed);
        let old = random_model(&mut random, 4, 600);
        let mut new = old.clone();
        mutate(&mut new, &mut random);
        let mut chunks = MemoryChunks::new();
        let (a, b) = (put_model(&old, &mut chunks), put_model(&new, &mut chunks));
        let pages = pages_of(&chunks);
        for (from, to, old, new) in [(a, b, &old, &new), (b, a, &new, &old), (a, a, &old, &old)] {
            let changes = compare((&pages, &from.tree), (&pages, &to.tree), NEVER).unwrap();
            let mut got: Vec<String> = changes.map(|c| said(&c.unwrap())).collect();
            got.sort();
            assert_eq!(got, expected(&all_paths(old), &all_paths(new)), "seed {seed}");
        }
    }
}

#[test]
fn a_comparison_reads_only_what_differs() {
    let mut chunks = MemoryChunks::new();
    let mut nodes: Vec<Node> = names(50_000).iter().map(|name| sample_node(name, NodeKind::File)).collect();
    let old = build_directory(&nodes, &mut chunks).unwrap().tree;
    nodes[25_000].mode = 0o600;
    nodes.remove(40_000);
    let new = build_directory(&nodes, &mut chunks).unwrap().tree;
    let pages = pages_of(&chunks);
    chunks.reset_counts();
    let changes: Vec<Change> =
        compare((&pages, &old), (&pages, &new), NEVER).unwrap().map(Result::unwrap).collect();
    assert_eq!(changes.len(), 2);
    let ChangeKind::Changed { differs, .. } = &changes[0].kind else { panic!("{:?}", changes[0]) };
    assert!(differs.mode && !differs.mtime);
    assert!(matches!(&changes[1].kind, ChangeKind::Removed(node) if node.name == b"0080000"));
    assert!(chunks.counts().gets <= 40, "{:?}", chunks.counts());
}

#[test]
fn trees_of_different_height_share_their_pages_in_a_comparison() {
    let mut chunks = MemoryChunks::new();
    let nodes: Vec<Node> = names(60_000).iter().map(|name| sample_node(name, NodeKind::File)).collect();
    let small = build_directory(&nodes[..3_000], &mut chunks).unwrap().tree;
    let small_pages = chunks.len() as u64;
    chunks.reset_counts();
    let big = build_directory(&nodes, &mut chunks).unwrap().tree;
    let (big_pages, new_pages) = (chunks.counts().puts, chunks.counts().new);
    assert!(big_pages - new_pages >= small_pages - 3, "most leaves are shared");
    let pages = pages_of(&chunks);
    let level = |tree| pages.page(tree, NEVER).unwrap().level();
    assert!(level(&small) < level(&big));
    for (old, new) in [(&small, &big), (&big, &small)] {
        chunks.reset_counts();
        let changes = compare((&pages, old), (&pages, new), NEVER).unwrap();
        assert_eq!(changes.filter(|c| c.is_ok()).count(), 57_000);
        assert!(chunks.counts().gets <= new_pages + 3, "{} of {new_pages} new", chunks.counts().gets);
    }
}

/// A chain of directories, or of directories that each hold the next one `wide` times.
fn nested(deep: usize, wide: usize, chunks: &mut MemoryChunks) -> ChunkId {
    let mut tree = build_directory([], chunks).unwrap();
    for _ in 0..deep {
        let nodes: Vec<Node> = (0..wide)
            .map(|i| {
                let mut node = sample_node(format!("d{i:04}").as_bytes(), NodeKind::Directory);
                node.subtree = Some(tree.subtree());
                node
            })
            .collect();
        tree = build_directory(&nodes, chunks).unwrap();
    }
    tree.tree
}

#[test]
fn walks_end_at_4096_directories_and_at_their_budget() {
    let mut chunks = MemoryChunks::new();
    let all = &mut |_: &[u8], _: &NodeRef| Ok(Visit::Continue);
    let good = nested(4096, 1, &mut chunks);
    let empty = nested(0, 1, &mut chunks);
    let pages = pages_of(&chunks);
    assert_eq!(visit(&pages, &good, u64::MAX, NEVER, all).unwrap(), 4096);
    assert_eq!(
        compare((&pages, &empty), (&pages, &good), NEVER).unwrap().filter(|c| c.is_ok()).count(),
        4096
    );
    let deep = nested(4097, 1, &mut chunks);
    assert!(matches!(visit(&pages, &deep, u64::MAX, NEVER, all), Err(StoreError::Corrupt { .. })));
    let last = compare((&pages, &deep), (&pages, &empty), NEVER).unwrap().last();
    assert!(matches!(last, Some(Err(StoreError::Corrupt { .. }))));

    // Thirty levels of a hundred: few pages, 10^60 entries.
    let bomb = nested(30, 100, &mut chunks);
    assert!(matches!(visit(&pages, &bomb, 10_000, NEVER, all), Err(StoreError::Invalid { .. })));
    assert_eq!(visit(&pages, &bomb, 100, NEVER, &mut |_, _| Ok(Visit::SkipBelow)).unwrap(), 100);
    assert_eq!(visit(&pages, &bomb, 100, NEVER, &mut |_, _| Ok(Visit::Stop)).unwrap(), 1);
}

#[test]
fn a_root_that_names_missing_or_broken_pages_gives_errors() {
    let mut chunks = MemoryChunks::new();
    let item =
        |first: &[u8], n| InnerItem { first: first.to_vec(), page: ChunkId([n; 32]), entries: u64::MAX / 2 };
    let page = Page::Inner { level: 1, items: vec![item(b"a", 1), item(b"b", 2)] }.encode().unwrap();
    let tree = chunks.put(ChunkType::Tree, &page).unwrap();
    let directory = open(&chunks, &tree);
    assert_eq!(directory.len(), u64::MAX - 1);
    assert!(matches!(directory.at(u64::MAX / 2 + 5, NEVER), Err(StoreError::NotFound { .. })));
    assert!(directory.at(u64::MAX - 1, NEVER).unwrap().is_none());
    assert!(directory.lookup(b"a", NEVER).is_err());
    assert!(Directory::open(&pages_of(&chunks), &ChunkId([9; 32]), NEVER).is_err());
}

#[test]
fn a_budget_is_spent_to_the_last_entry_and_not_beyond() {
    let (chunks, tree) = flat(10);
    let mut calls = 0;
    let mut walk = |budget| {
        calls = 0;
        let result = visit(&pages_of(&chunks), &tree, budget, NEVER, &mut |_, _| {
            calls += 1;
            Ok(Visit::Continue)
        });
        (result.ok(), calls)
    };
    assert_eq!(walk(10), (Some(10), 10));
    assert_eq!(walk(9), (None, 9));
    assert_eq!(walk(0), (None, 0));
}
