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
    let linked = table.remember(&Identity::of_node(&root, (7, 9), &node), &place(&root, 9));
    assert_eq!(table.len(), 3);
    assert_eq!(table.place(inos[0]).unwrap().ordinal, SEGMENT - 1);
    assert_eq!(table.place(other).unwrap().ordinal, SEGMENT + 5);
    assert_eq!(table.place(linked).unwrap().ordinal, 9);
    inos.iter().skip(1).for_each(|ino| table.forget(*ino, 1));
    assert_eq!(table.len(), 3);
    table.forget(inos[0], 1);
    assert_eq!(table.len(), 2);
    assert_eq!(table.place(inos[3]).unwrap().ordinal, SEGMENT - 4);
}

#[test]
fn the_oldest_record_is_named_once_until_the_kernel_is_told_of_it_again() {
    let root = root(1);
    let mut table = Table::default();
    let identity = |n: u64| Identity::of_node(&root, (7, n), &file("f", b""));
    let inos: Vec<u64> =
        (0..4).map(|n| n * SEGMENT).map(|n| table.remember(&identity(n), &place(&root, n))).collect();
    table.forget(inos[1], 1);
    let oldest = |table: &mut Table| table.pop_oldest().map(|(_, place, _)| place.ordinal / SEGMENT);
    assert_eq!(oldest(&mut table), Some(0));
    table.remember(&identity(1), &place(&root, 1));
    assert_eq!(oldest(&mut table), Some(2));
    assert_eq!(oldest(&mut table), Some(3));
    assert_eq!(oldest(&mut table), Some(0));
    assert_eq!(oldest(&mut table), None);
    for n in (0..10_000).map(|n| n * SEGMENT) {
        let ino = table.remember(&identity(n), &place(&root, n));
        table.forget(ino, 2);
    }
    assert!(table.queue.len() < 100, "{}", table.queue.len());
}

#[test]
fn a_record_that_comes_and_goes_is_queued_once() {
    let root = root(1);
    let mut table = Table::default();
    let identity = |n: u64| Identity::of_node(&root, (7, n), &file("f", b""));
    let tell = |table: &mut Table, n: u64| table.remember(&identity(n * SEGMENT), &place(&root, n * SEGMENT));
    for n in 0..100 {
        tell(&mut table, n);
    }
    for _ in 0..1000 {
        let ino = tell(&mut table, 100);
        table.forget(ino, 1);
    }
    assert!(table.queue.len() <= 102, "{}", table.queue.len());
    tell(&mut table, 100);
    let named = std::iter::from_fn(|| table.pop_oldest().map(|(_, place, _)| place.ordinal / SEGMENT));
    assert_eq!(named.collect::<Vec<_>>(), (0..=100).collect::<Vec<_>>());
    let ino = tell(&mut table, 100);
    table.forget(ino, 2);
    assert_eq!(table.pop_oldest().map(|(key, ..)| key), None, "the kernel has forgotten it");
    tell(&mut table, 100);
    let (key, ..) = table.pop_oldest().unwrap();
    table.put_back(key);
    table.put_back(key);
    assert_eq!((table.pop_oldest().map(|(key, ..)| key), table.pop_oldest().is_none()), (Some(key), true));
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
