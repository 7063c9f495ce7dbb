//! Borders, history and cost of directories.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::clock::Deadline;
use crate::tree::page::Page;
use crate::tree::testing::{MemoryChunks, TestRandom, build_directory, sample_node};
use crate::tree::walk::{Directory, Pages};
use crate::tree::{Content, Extent, NodeKind};

/// An entry with something random in it, so that sizes vary.
fn entry(name: &[u8], random: &mut TestRandom) -> Node {
    let mut node = sample_node(name, NodeKind::File);
    let extents = random.below(4);
    let extents: Vec<Extent> =
        (0..extents).map(|_| Extent::Data { id: ChunkId([random.next_u64() as u8; 32]), len: 10 }).collect();
    node.size = 10 * extents.len() as u64;
    node.content = Some(Content::Inline(extents));
    node
}

fn model(n: u64, seed: u64) -> BTreeMap<Vec<u8>, Node> {
    let mut random = TestRandom::new(seed);
    let mut model = BTreeMap::new();
    while (model.len() as u64) < n {
        let name = format!("file-{:x}.txt", random.next_u64() >> 20).into_bytes();
        let node = entry(&name, &mut random);
        model.insert(name, node);
    }
    model
}

fn build(model: &BTreeMap<Vec<u8>, Node>, chunks: &mut MemoryChunks) -> BuiltDirectory {
    build_directory(model.values(), chunks).unwrap()
}

/// Pages by level, found from the root.
fn pages_by_level(chunks: &MemoryChunks, tree: &ChunkId) -> Vec<Vec<Arc<Page>>> {
    let pages = Pages::new(Arc::new(chunks.clone()));
    let mut levels = vec![vec![pages.page(tree, Deadline::NEVER).unwrap()]];
    while let Some(Page::Inner { .. }) = levels.last().and_then(|l| l.first()).map(|p| &**p) {
        let mut below = Vec::new();
        for page in levels.last().unwrap() {
            let Page::Inner { items, .. } = &**page else { panic!("levels are even") };
            below.extend(items.iter().map(|i| pages.page(&i.page, Deadline::NEVER).unwrap()));
        }
        levels.push(below);
    }
    levels.reverse();
    levels
}

#[test]
fn an_empty_directory_is_one_empty_leaf() {
    let mut chunks = MemoryChunks::new();
    let built = DirectoryBuilder::new().finish(&mut chunks).unwrap();
    assert_eq!(built.subtree(), Subtree { tree: built.tree, entries: 0, bytes: 0 });
    assert_eq!(pages_by_level(&chunks, &built.tree), [[Arc::new(Page::Leaf(vec![]))]]);
}

#[test]
fn entries_out_of_order_or_broken_change_nothing() {
    let mut chunks = MemoryChunks::new();
    let good = [sample_node(b"b", NodeKind::Fifo), sample_node(b"c", NodeKind::Fifo)];
    let want = build_directory(&good, &mut chunks).unwrap();
    let mut builder = DirectoryBuilder::new();
    let mut broken = sample_node(b"bb", NodeKind::Fifo);
    broken.size = 1;
    builder.push(&good[0], &mut chunks).unwrap();
    for bad in [sample_node(b"b", NodeKind::Fifo), sample_node(b"a", NodeKind::Fifo), broken] {
        assert!(matches!(builder.push(&bad, &mut chunks), Err(StoreError::Invalid { .. })));
    }
    builder.push(&good[1], &mut chunks).unwrap();
    assert_eq!(builder.finish(&mut chunks).unwrap(), want);
}

#[test]
fn a_refused_entry_leaves_no_trace_even_at_a_border() {
    let model = model(2000, 10);
    let mut chunks = MemoryChunks::new();
    let want = build(&model, &mut chunks);
    let mut builder = DirectoryBuilder::new();
    for node in model.values() {
        builder.push(node, &mut chunks).unwrap();
        let mut broken = node.clone();
        broken.name.push(b'x');
        broken.size += 1;
        assert!(builder.push(&broken, &mut chunks).is_err());
    }
    // Had the last leaf been cut for the refused entry, the end of the directory would look otherwise.
    assert_eq!(builder.finish(&mut chunks).unwrap(), want);
    let up_to_border: BTreeMap<_, _> = model.into_iter().take(first_leaf(&chunks, &want.tree)).collect();
    let want = build(&up_to_border, &mut chunks);
    let mut builder = DirectoryBuilder::new();
    up_to_border.values().for_each(|node| builder.push(node, &mut chunks).unwrap());
    let mut broken = sample_node(b"zz", NodeKind::Fifo);
    broken.mode = u16::MAX;
    assert!(builder.push(&broken, &mut chunks).is_err());
    assert_eq!(builder.finish(&mut chunks).unwrap(), want);
}

/// Entries in the first leaf.
fn first_leaf(chunks: &MemoryChunks, tree: &ChunkId) -> usize {
    pages_by_level(chunks, tree)[0][0].entries() as usize
}

#[test]
fn of_several_names_of_one_owner_the_first_is_kept() {
    let mut nodes = [b"a", b"b", b"c"].map(|name| sample_node(name, NodeKind::Fifo));
    nodes[1].user = Some(b"first".to_vec());
    nodes[2].user = Some(b"second".to_vec());
    let Page::Leaf(got) = Page::parse(&Page::Leaf(nodes.to_vec()).encode().unwrap()).unwrap() else {
        panic!("a leaf")
    };
    assert!(got.iter().all(|node| node.user.as_deref() == Some(b"first") && node.group.is_none()));
}

#[test]
fn totals_count_the_whole_subtree() {
    let mut dir = sample_node(b"a", NodeKind::Directory);
    dir.subtree = Some(Subtree { tree: ChunkId([1; 32]), entries: 10, bytes: 100 });
    let mut file = sample_node(b"b", NodeKind::File);
    (file.size, file.content) = (7, Some(Content::Inline(vec![Extent::Hole { len: 7 }])));
    let link = sample_node(b"c", NodeKind::Symlink);
    let built = build_directory([&dir, &file, &link], &mut MemoryChunks::new()).unwrap();
    assert_eq!((built.entries_direct, built.entries, built.bytes), (3, 13, 107));
}

/// The document's words on borders, said once more and independently: each page but the last of a level ends at the first
/// item where it may.
#[test]
fn borders_are_where_the_document_says() {
    let mut chunks = MemoryChunks::new();
    let built = build(&model(20_000, 1), &mut chunks);
    let levels = pages_by_level(&chunks, &built.tree);
    assert!(levels.len() >= 3, "{} levels", levels.len());
    let hash = |level: u8, name: &[u8]| {
        let mut all = b"holdfast border".to_vec();
        all.push(level);
        all.extend(name);
        let hash = blake3::hash(&all);
        u32::from_le_bytes(hash.as_bytes()[..4].try_into().unwrap()) < u32::MAX / 128 + 1
    };
    let may_end = |page: &Page, n: usize| match page {
        Page::Leaf(nodes) => {
            let len = Page::Leaf(nodes[..n].to_vec()).encode().unwrap().len() - 10;
            len >= 65_536 || (len >= 8192 && hash(0, &nodes[n - 1].name))
        }
        Page::Inner { level, items } => n >= 1024 || (n >= 8 && hash(*level, &items[n - 1].first)),
    };
    for level in &levels {
        for (i, page) in level.iter().enumerate().take(60) {
            let n = match &**page {
                Page::Leaf(nodes) => nodes.len(),
                Page::Inner { items, .. } => items.len(),
            };
            assert!(i + 1 == level.len() || may_end(page, n), "page {i} ends too early");
            // Checking every shorter prefix of a leaf costs its square: the last ones must do.
            assert!((1..n).rev().take(40).all(|n| !may_end(page, n)), "page {i} ends too late");
        }
    }
    assert_eq!(levels.last().unwrap().len(), 1);
}

#[test]
fn one_changed_entry_of_a_hundred_thousand_rewrites_one_page_per_level() {
    let mut model = model(100_000, 2);
    let mut chunks = MemoryChunks::new();
    let built = build(&model, &mut chunks);
    let levels = pages_by_level(&chunks, &built.tree).len() as u64;
    assert!(levels >= 3, "{levels} levels");
    assert!(chunks.counts().longest < 80 * 1024);
    let names: Vec<Vec<u8>> = model.keys().cloned().collect();
    for at in [0, 1, 50_000, 99_999] {
        model.get_mut(&names[at]).unwrap().mtime.seconds += 1;
        chunks.reset_counts();
        let changed = build(&model, &mut chunks);
        assert_ne!(changed.tree, built.tree);
        assert_eq!(chunks.counts().new, levels, "changing {at}");
    }
}

#[test]
fn insertion_and_removal_shift_only_borders_nearby() {
    let mut model = model(50_000, 3);
    let mut chunks = MemoryChunks::new();
    let built = build(&model, &mut chunks);
    let levels = pages_by_level(&chunks, &built.tree).len() as u64;
    let mut random = TestRandom::new(4);
    let names: Vec<Vec<u8>> = model.keys().cloned().collect();
    let mut worst = 0;
    for _ in 0..8 {
        let removed = names[random.below(50_000) as usize].clone();
        model.remove(&removed);
        let name = format!("file-{:x}-new", random.next_u64() >> 20).into_bytes();
        let node = entry(&name, &mut random);
        model.insert(name, node);
        chunks.reset_counts();
        build(&model, &mut chunks);
        worst = worst.max(chunks.counts().new);
    }
    // Two places change; each may move a border or two before the old ones are met again, on each level.
    assert!(worst <= 2 * 4 * levels, "{worst} new pages at {levels} levels");
}

#[test]
fn the_same_entries_make_the_same_tree_whatever_came_before() {
    for n in [0, 1, 2, 100, 300, 3000] {
        let goal = model(n, 5);
        let (mut one, mut other) = (MemoryChunks::new(), MemoryChunks::new());
        let direct = build(&goal, &mut one);
        let mut detour = goal.clone();
        detour.insert(b"zz".to_vec(), sample_node(b"zz", NodeKind::Fifo));
        build(&detour, &mut other);
        detour.remove(&b"zz"[..]);
        assert_eq!(build(&detour, &mut other), direct, "{n}");
    }
}

#[test]
fn directories_read_back_as_their_model() {
    for (n, seed) in [(1u64, 6), (70, 7), (500, 8), (12_000, 9)] {
        let model = model(n, seed);
        let mut chunks = MemoryChunks::new();
        let built = build(&model, &mut chunks);
        let pages = Pages::new(Arc::new(chunks));
        let directory = Directory::open(&pages, &built.tree, Deadline::NEVER).unwrap();
        assert_eq!((directory.len(), built.entries_direct), (n, n));
        let got: Vec<Node> =
            directory.entries_at(0, Deadline::NEVER).unwrap().map(|e| e.unwrap().to_node()).collect();
        assert!(got.iter().eq(model.values()), "seed {seed}");
    }
}
