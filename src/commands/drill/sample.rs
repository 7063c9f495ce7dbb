//! Which files are read: any file of any point is as likely as any other of its point, and the same seed chooses the same ones.

use std::collections::HashSet;

use holdfast_backup::restore::TreeReader;
use holdfast_store::StoreError;
use holdfast_store::store::{Store, StoredPoint};
use holdfast_store::tree::{Node, NodeKind};

use crate::stored_tree::StoredTree;

/// One drill in so many reads a small source whole.
const WHOLE_EVERY: u64 = 4;
/// How often it is tried to meet a file: among entries there are directories and links.
const TRIES: u32 = 20;

/// Numbers by chance, the same for the same seed: splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Numbers {
    state: u64,
}

impl Numbers {
    /// One that begins anew.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// A file that is to be read.
#[derive(Debug)]
pub struct Chosen {
    /// Of which of the points.
    pub point: usize,
    /// Its path below the point's root.
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
    /// It is the last one of a point that is read whole.
    pub ends_whole: bool,
}

/// Chooses at most `files` files of at most `bytes` bytes together.
///
/// # Errors
/// A directory that cannot be read is one, whatever is wrong with it: what is below cannot be had back.
pub fn choose(
    store: &Store,
    points: &[StoredPoint],
    files: u32,
    bytes: u64,
    numbers: &mut Numbers,
) -> Result<Vec<Chosen>, StoreError> {
    let mut sample = Sample { chosen: Vec::new(), left: bytes, seen: HashSet::new() };
    if points.is_empty() {
        return Ok(sample.chosen);
    }
    if numbers.below(WHOLE_EVERY) == 0 {
        // Half of what may be read, so that others are not left out.
        let is_small =
            |point: &usize| points[*point].point.root.subtree.is_some_and(|tree| tree.bytes <= bytes / 2);
        let small: Vec<usize> = newest(points).into_iter().filter(is_small).collect();
        if let Some(point) = small.get(numbers.below(small.len() as u64) as usize) {
            let (tree, root) = StoredTree::at(store, &points[*point].point.root, b"")?;
            sample.all(&tree, *point, &root, &mut Vec::new())?;
            sample.chosen.last_mut().into_iter().for_each(|last| last.ends_whole = true);
        }
    }
    for _ in 0..files {
        let point = numbers.below(points.len() as u64) as usize;
        let root = &points[point].point.root;
        let entries = root.subtree.map_or(0, |tree| tree.entries);
        for _ in 0..TRIES.min(u32::try_from(entries).unwrap_or(TRIES)) {
            let (tree, root) = StoredTree::at(store, root, b"")?;
            let found = nth(&tree, &root, numbers.below(entries), Vec::new())?;
            let is_new = |path: &[u8]| !sample.seen.contains(&(point, path.to_vec()));
            let found = found.filter(|(path, node)| {
                node.kind == NodeKind::File && node.size <= sample.left && is_new(path)
            });
            if let Some((path, node)) = found {
                sample.add(point, path, node);
                break;
            }
        }
    }
    Ok(sample.chosen)
}

/// The newest point of each source.
fn newest(points: &[StoredPoint]) -> Vec<usize> {
    let mut newest = std::collections::BTreeMap::new();
    for (at, stored) in points.iter().enumerate() {
        let known = newest.entry(stored.point.source_tag).or_insert(at);
        if points[*known].point.sequence < stored.point.sequence {
            *known = at;
        }
    }
    newest.into_values().collect()
}

struct Sample {
    chosen: Vec<Chosen>,
    left: u64,
    /// Files that are chosen: none is read twice.
    seen: HashSet<(usize, Vec<u8>)>,
}

impl Sample {
    fn add(&mut self, point: usize, path: Vec<u8>, node: Node) {
        self.left -= node.size.min(self.left);
        self.seen.insert((point, path.clone()));
        self.chosen.push(Chosen { point, path, node, ends_whole: false });
    }

    fn all<R: TreeReader>(
        &mut self,
        tree: &R,
        point: usize,
        directory: &Node,
        path: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        for entry in tree.entries(directory)? {
            let (entry, before) = (entry?, path.len());
            step(path, &entry.name);
            match entry.kind {
                NodeKind::Directory => self.all(tree, point, &entry, path)?,
                NodeKind::File => self.add(point, path.clone(), entry),
                _ => {}
            }
            path.truncate(before);
        }
        Ok(())
    }
}

fn step(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// The entry number `n` below a directory, in the order in which a walk meets them. Directories say how many are in them, so no
/// others are read than those on its way.
fn nth<R: TreeReader>(
    tree: &R,
    directory: &Node,
    n: u64,
    mut path: Vec<u8>,
) -> Result<Option<(Vec<u8>, Node)>, StoreError> {
    let mut left = n;
    for entry in tree.entries(directory)? {
        let entry = entry?;
        let inside = entry.subtree.map_or(0, |tree| tree.entries);
        if left == 0 {
            step(&mut path, &entry.name);
            return Ok(Some((path, entry)));
        }
        if left <= inside {
            step(&mut path, &entry.name);
            return nth(tree, &entry, left - 1, path);
        }
        left -= 1 + inside;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_chooses_the_same_and_all_are_met() {
        let numbers = |seed| {
            let mut numbers = Numbers::new(seed);
            (0..1000).map(|_| numbers.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        let of = |n| numbers(7).into_iter().filter(|number| *number == n).count();
        assert!((0..10).all(|n| (60..140).contains(&of(n))), "{:?}", (0..10).map(of).collect::<Vec<_>>());
        assert_eq!(Numbers::new(1).below(0), 0);
    }
}
