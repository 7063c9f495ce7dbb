//! Numbers: stable, shared by hard links, and never taken from anybody.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{file, point};

fn root(sequence: u64) -> Arc<Root> {
    let stored = point("h", "g", "s", 0, sequence);
    let layout = crate::layout::Layout::new(&[crate::testing::brief(&stored)]);
    layout.roots().find(|root| root.door == crate::layout::Door::Group).unwrap().clone()
}

fn place(root: &Arc<Root>, ordinal: u64) -> Place {
    let folder = Arc::new(Folder { root: root.clone(), parent: 7, tree: ChunkId([1; 32]) });
    Place { folder, ordinal }
}

fn linked(name: &str, bytes: &[u8]) -> Node {
    Node { links: 2, inode: 99, ..file(name, bytes) }
}

#[test]
fn a_number_is_the_same_whenever_it_is_asked_for() {
    let root = root(1);
    let node = file("a", b"x");
    let number = Table::default().number(&Identity::of_node(&root, (7, 0), &node));
    let mut other = Table::default();
    (0..100).for_each(|n| {
        let next = file(&format!("f{n}"), b"");
        other.remember(&Identity::of_node(&root, (7, n + 1), &next), &place(&root, n + 1));
    });
    assert_eq!(other.number(&Identity::of_node(&root, (7, 0), &node)), number);
    assert!(number > ROOT && number < 1 << 61 && !is_layout(number));
}

#[test]
fn numbers_of_a_directory_ascend_with_its_names() {
    let root = root(1);
    let number = |parent, n: u64| {
        let identity = Identity::of_node(&root, (parent, n), &file(&format!("{n:08}"), b""));
        Table::default().number(&identity)
    };
    let numbers: Vec<u64> = (0..SEGMENT).map(|n| number(7, n)).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    let others: Vec<u64> = (0..SEGMENT).map(|n| number(8, n)).collect();
    assert!(others.iter().all(|n| !numbers.contains(n)));
    assert!(!numbers.contains(&number(7, SEGMENT)), "the next ones of a long directory lie elsewhere");
}

#[test]
fn names_of_one_file_share_a_number_within_a_point_only() {
    let (one, two) = (root(1), root(2));
    let table = Table::default();
    let a = table.number(&Identity::of_node(&one, (7, 0), &linked("a", b"x")));
    assert_eq!(a, table.number(&Identity::of_node(&one, (8, 0), &linked("b", b"x"))));
    assert_ne!(a, table.number(&Identity::of_node(&two, (7, 0), &linked("a", b"x"))));
}

#[test]
fn a_linked_file_that_changed_between_its_names_is_two_files() {
    let root = root(1);
    let identity = |node: &Node| Identity::of_node(&root, (7, 0), node);
    let original = linked("a", b"x");
    let mut changed = vec![linked("b", b"y"), linked("b", b"xx")];
    changed.push(Node { mode: 0o600, ..original.clone() });
    changed.push(Node { filesystem: 5, ..original.clone() });
    changed.push(Node { kind: NodeKind::Fifo, ..original.clone() });
    for node in changed {
        assert_ne!(identity(&original), identity(&node), "{node:?}");
    }
}

#[test]
fn single_names_with_a_reused_inode_are_different_files() {
    let root = root(1);
    let a = Identity::of_node(&root, (7, 0), &Node { inode: 5, ..file("a", b"x") });
    let b = Identity::of_node(&root, (7, 1), &Node { inode: 5, ..file("b", b"x") });
    assert_ne!(a.candidate(0), b.candidate(0));
}

#[test]
fn who_comes_second_to_a_number_gets_the_next_one() {
    let root = root(1);
    let first = Identity::of_node(&root, (7, 0), &file("a", b""));
    let second = Identity { check: first.check + 1, ..first.clone() };
    let mut table = Table::default();
    let a = table.remember(&first, &place(&root, 0));
    let b = table.remember(&second, &place(&root, SEGMENT));
    assert_eq!(a, first.candidate(0));
    assert_eq!(b, second.candidate(1));
    assert_eq!((table.number(&first), table.number(&second)), (a, b));
    assert_eq!(table.place(b).unwrap().ordinal, SEGMENT);
}

#[test]
fn records_live_as_long_as_the_kernel_counts_and_are_found_afterwards() {
    let root = root(1);
    let mut table = Table::default();
    let identity = Identity::of_node(&root, (7, 3), &file("a", b""));
    let ino = table.remember(&identity, &place(&root, 3));
    table.remember(&identity, &place(&root, 3));
    table.forget(ino, 1);
    assert_eq!(table.len(), 1);
    table.forget(ino, 5);
    assert!(table.is_empty());
    assert_eq!(table.place(ino).unwrap().ordinal, 3);
    assert_eq!(table.remember(&identity, &place(&root, 3)), ino);
    assert_eq!(table.len(), 1);
    table.forget(12345, 1);
}

#[test]
fn a_segment_is_one_record_for_all_its_nodes_and_a_file_of_several_names_has_its_own() {
    let root = root(1);
    let mut table = Table::default();
    let mut tell =
        |n: u64| table.remember(&Identity::of_node(&root, (7, n), &file("f", b"")), &place(&root, n));
    let inos: Vec<u64> = (0..SEGMENT).rev().map(&mut tell).collect();
    let other = tell(SEGMENT + 5);
    assert_eq!(table.len(), 2);
    let node = linked("a", b"x");
    let linked = table.remember(&Identity::of_node(&root, (7, 9), &node), &place(&root, SEGMENT + 9));
    assert_eq!(table.len(), 3);
    assert_eq!(table.place(inos[0]).unwrap().ordinal, SEGMENT - 1);
    assert_eq!(table.place(other).unwrap().ordinal, SEGMENT + 5);
    assert_eq!(table.place(linked).unwrap().ordinal, SEGMENT + 9);
    inos.iter().skip(1).for_each(|ino| table.forget(*ino, 1));
    assert_eq!(table.len(), 3);
    table.forget(inos[0], 1);
    assert_eq!(table.len(), 2);
    assert_eq!(table.place(inos[3]).unwrap().ordinal, SEGMENT - 4);
}

/// Where the segments begin whose turns come, as long as more than `most` records are live; each has its turn.
fn turns(table: &mut Table, most: usize) -> Vec<(u64, u64)> {
    let end = table.next_turn();
    let next = || {
        let (key, place, _) = table.take_turn(most, end)?;
        table.had_turn(key);
        Some((place.folder.parent, place.ordinal / SEGMENT))
    };
    std::iter::from_fn(next).collect()
}

/// Tells the entry at `ordinal` of a directory.
fn tell(table: &mut Table, root: &Arc<Root>, (parent, ordinal): (u64, u64), node: &Node) -> u64 {
    let folder = Arc::new(Folder { root: root.clone(), parent, tree: ChunkId([1; 32]) });
    table.remember(&Identity::of_node(root, (parent, ordinal), node), &Place { folder, ordinal })
}

#[test]
fn a_segment_has_one_turn_until_the_kernel_is_told_of_it_again() {
    let (root, node) = (root(1), file("f", b""));
    let mut table = Table::default();
    let numbers = |table: &mut Table, ordinals: &[u64]| -> Vec<u64> {
        ordinals.iter().map(|n| tell(table, &root, (7, n * SEGMENT + 3), &node)).collect()
    };
    let inos = numbers(&mut table, &[0, 1, 2, 3]);
    table.forget(inos[1], 1);
    assert_eq!(turns(&mut table, 3), [], "no more than that are live");
    numbers(&mut table, &[2, 0]);
    assert_eq!(turns(&mut table, 0), [(7, 0), (7, 2), (7, 3)]);
    assert_eq!((turns(&mut table, 0), table.len()), (vec![], 3), "they are in use");
    numbers(&mut table, &[3, 1]);
    assert_eq!(turns(&mut table, 0), [(7, 3), (7, 1)]);
}

#[test]
fn a_turn_that_was_not_had_comes_again_after_all_others_and_in_another_round() {
    let (root, node) = (root(1), file("f", b""));
    let mut table = Table::default();
    (0..3).for_each(|n| _ = tell(&mut table, &root, (n, 0), &node));
    let end = table.next_turn();
    let taken = |table: &mut Table| table.take_turn(0, end).map(|(_, place, _)| place.folder.parent);
    let three: Vec<_> = (0..4).map(|_| taken(&mut table)).collect();
    assert_eq!(three, [Some(0), Some(1), Some(2), None]);
    assert_eq!(turns(&mut table, 0), [(0, 0), (1, 0), (2, 0)]);
}

#[test]
fn a_node_with_several_links_has_a_turn_in_each_segment_where_it_was_told() {
    let root = root(1);
    let mut table = Table::default();
    let places = [(7, 3), (7, 5), (8, 1), (7, SEGMENT + 1), (8, 1)];
    let told: Vec<u64> = places.iter().map(|at| tell(&mut table, &root, *at, &linked("a", b"x"))).collect();
    assert!(told.iter().all(|ino| *ino == told[0]));
    assert_eq!(table.len(), 4, "its own record, and those of three segments");
    assert_eq!(
        table.known(&Identity::of_node(&root, (7, 4), &file("b", b""))),
        None,
        "nobody was told a neighbour"
    );
    assert_eq!(turns(&mut table, 1), [(7, 0), (8, 0), (7, 1)]);
    assert_eq!((table.len(), turns(&mut table, 0)), (1, vec![]), "it is in use");
    tell(&mut table, &root, (8, 1), &linked("a", b"x"));
    assert_eq!(turns(&mut table, 1), [(8, 0)]);
    table.forget(told[0], 6);
    assert!(table.is_empty() && table.linked == 0 && table.turns.is_empty());
    assert_eq!(table.place(told[0]).unwrap().ordinal, 3);
}

#[test]
fn a_segment_of_linked_names_and_others_is_kept_for_either() {
    let root = root(1);
    let mut table = Table::default();
    let a = tell(&mut table, &root, (7, 0), &linked("a", b"x"));
    let b = tell(&mut table, &root, (7, 1), &file("b", b""));
    table.forget(b, 1);
    table.forget(a, 1);
    assert_eq!((table.len(), table.place(b).unwrap().ordinal), (1, 1), "a further name of it may be known");
    tell(&mut table, &root, (7, 1), &file("b", b""));
    assert_eq!((turns(&mut table, 0), table.len()), (vec![(7, 0)], 1));
    table.forget(b, 1);
    assert!(table.is_empty());
}

#[test]
fn beside_records_that_stay_others_have_a_quarter_of_the_room() {
    let (root, node) = (root(1), file("f", b""));
    let mut table = Table::default();
    let tell_all = |table: &mut Table, range: std::ops::Range<u64>| {
        range.for_each(|n| _ = tell(table, &root, (n, 0), &node));
    };
    tell_all(&mut table, 0..100);
    assert_eq!(turns(&mut table, 40).len(), 90, "nothing of them goes");
    tell_all(&mut table, 0..10);
    assert_eq!(turns(&mut table, 40).len(), 10);
    assert_eq!(turns(&mut table, 40), []);
}

#[test]
fn memory_of_forgotten_nodes_is_bounded() {
    let root = root(1);
    let mut table = Table::default();
    for n in 0..TRAIL_RECORDS.get() as u64 + 10 {
        let identity = Identity::of_node(&root, (n, 0), &file("f", b""));
        let ino = table.remember(&identity, &place(&root, 0));
        table.forget(ino, 1);
    }
    assert!(table.is_empty());
    assert_eq!(table.trail.len(), TRAIL_RECORDS.get());
}
