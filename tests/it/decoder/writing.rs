//! The rules that only writers need: where chunks, pages and list pages end (sections 9.1 to 9.3 of the format). Two
//! writers that follow them cut the same data alike, so what one stored, the other need not store again.

use super::content::{Content, Extent};
use super::fields::{Fields, Read};
use super::pack::{Id, Type};
use super::slot::Config;
use super::store::Store;
use super::tree::{Entry, Page, read_owners, read_page};

const LEAF_MIN: usize = 8 << 10;
const LEAF_MAX: usize = 64 << 10;
const INNER_MIN: usize = 8;
const INNER_MAX: usize = 1024;
const LIST_MIN: usize = 64;
const LIST_MAX: usize = 4096;

/// Whether a page of `level` may end after `name`.
pub fn border(level: u8, name: &[u8]) -> bool {
    let hash = blake3::hash(&[b"holdfast border", &[level][..], name].concat());
    first_u32(hash.as_bytes()) < 1 << 25
}

fn first_u32(hash: &[u8; 32]) -> u32 {
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// Keyed FastCDC.
struct Chunker<'a> {
    gear: Vec<u64>,
    config: &'a Config,
}

impl<'a> Chunker<'a> {
    fn new(store: &'a Store) -> Self {
        let subkey = store.ring.subkey(store.config.identity, "chunker").unwrap();
        let mut bytes = [0; 2048];
        blake3::Hasher::new_derive_key("holdfast v1 gear").update(&subkey).finalize_xof().fill(&mut bytes);
        let (words, _) = bytes.as_chunks::<8>();
        Self { gear: words.iter().map(|word| u64::from_le_bytes(*word)).collect(), config: &store.config }
    }

    /// The length of the chunk at the beginning of `data`.
    fn cut(&self, data: &[u8]) -> usize {
        let Config { min, average, max, normalization, .. } = *self.config;
        let end = data.len().min(max as usize);
        let (bits, level) = (average.ilog2(), u32::from(normalization));
        let mut hash = 0u64;
        for (at, byte) in data.iter().enumerate().take(end).skip(min as usize) {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(*byte)]);
            let needed = if at < average as usize { bits + level } else { bits - level };
            if hash >> (64 - needed) == 0 {
                return at + 1;
            }
        }
        end
    }
}

/// The lengths of the chunks of each stretch of bytes between holes, stored and as they should be.
fn chunk_lengths(store: &Store, chunker: &Chunker<'_>, extents: &[Extent]) -> (Vec<usize>, Vec<usize>) {
    let (mut stored, mut wanted) = (Vec::new(), Vec::new());
    for stretch in extents.split(|extent| matches!(extent, Extent::Hole { .. })) {
        let mut bytes = Vec::new();
        for extent in stretch {
            let Extent::Data { id, len } = extent else { continue };
            bytes.extend_from_slice(store.chunk(Type::Data, id).unwrap());
            stored.push(*len as usize);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = chunker.cut(rest);
            wanted.push(len);
            rest = &rest[len..];
        }
    }
    (stored, wanted)
}

/// Checks that the pages of a directory end where they should; returns how many there are on each level.
fn check_pages(store: &Store, tree: &Id) -> Vec<usize> {
    let chunk = |of, id: &Id| store.chunk(of, id);
    let (mut level, mut counts) = (vec![*tree], Vec::new());
    loop {
        let mut below = Vec::new();
        for (n, id) in level.iter().enumerate() {
            let bytes = store.chunk(Type::Page, id).unwrap();
            let ends = match read_page(id, &chunk).unwrap() {
                Page::Leaf(_) => leaf_ends(bytes).unwrap(),
                Page::Inner { level, items } => {
                    below.extend(items.iter().map(|item| item.page));
                    let end =
                        |at: usize| at >= INNER_MIN && border(level, &items[at - 1].first) || at >= INNER_MAX;
                    (1..=items.len()).map(end).collect()
                }
            };
            assert_ends(&ends, n + 1 == level.len());
        }
        counts.push(level.len());
        if below.is_empty() {
            break counts;
        }
        assert!(level.len() > 1 || below.len() > 1, "the root has more than one item");
        level = below;
    }
}

/// A page ends where its first end is, the last of a level maybe before.
fn assert_ends(ends: &[bool], is_last: bool) {
    let first = ends.iter().position(|end| *end);
    assert!(first.map_or(is_last, |at| at + 1 == ends.len()), "{first:?} of {}", ends.len());
}

/// Whether a leaf has to end after each of its items.
fn leaf_ends(bytes: &[u8]) -> Read<Vec<bool>> {
    let mut fields = Fields::new(bytes);
    fields.take(4)?;
    let owners = read_owners(&mut fields)?;
    let (count, begin) = (fields.u32()?, fields.left());
    let end = |_| {
        let name = Entry::read(&mut fields, &owners)?.name;
        let len = begin - fields.left();
        Ok(len >= LEAF_MIN && border(0, &name) || len >= LEAF_MAX)
    };
    (0..count).map(end).collect()
}

/// Whether a list page has to end after each of its items.
fn list_ends(content: &Content) -> Vec<bool> {
    let firsts: Vec<u32> = match content {
        Content::Extents(extents) => extents
            .iter()
            .map(|extent| match extent {
                Extent::Data { id, .. } => first_u32(id),
                Extent::Hole { .. } => 0,
            })
            .collect(),
        Content::Pages { pages, .. } => pages.iter().map(|(id, _)| first_u32(id)).collect(),
    };
    let end = |(n, first): (usize, u32)| n + 1 >= LIST_MIN && first < 1 << 23 || n + 1 >= LIST_MAX;
    firsts.into_iter().enumerate().map(end).collect()
}

/// Checks that list pages end where they should; returns how many there are on each level.
fn check_lists(store: &Store, content: Content) -> Vec<usize> {
    let (mut level, mut counts) = (vec![content], Vec::new());
    loop {
        let mut below = Vec::new();
        for content in &level {
            let Content::Pages { pages, .. } = content else { return counts };
            let read = |id: &Id| Content::read_page(store.chunk(Type::List, id).unwrap()).unwrap();
            below.extend(pages.iter().map(|(id, _)| read(id)));
        }
        for (n, page) in below.iter().enumerate() {
            assert_ends(&list_ends(page), n + 1 == below.len());
        }
        counts.push(below.len());
        level = below;
    }
}

/// What [`check_store`] saw, so that a test knows that there was something to see.
#[derive(Default)]
pub struct Seen {
    pub chunks: usize,
    /// The most levels of pages of a directory, and of list pages of a file.
    pub page_levels: usize,
    pub list_levels: usize,
}

/// The Padmé length of section 7.
pub fn padme(len: u64) -> u64 {
    let exponent = len.ilog2();
    let significant = exponent.ilog2() + 1;
    len.next_multiple_of(1 << (exponent - significant))
}

/// Checks that the packs that a point first used are as long as the format says.
pub fn check_pack_lengths(store: &Store, packs: &[Id]) {
    for kind in [1, 2] {
        let of_kind = packs.iter().map(|name| &store.packs[name]).filter(|pack| pack.kind == kind);
        let lens: Vec<u64> = of_kind
            .map(|pack| {
                assert_eq!(pack.frames.last().map(|fill| fill.raw_len), Some(0), "a pack ends with fill");
                pack.len
            })
            .collect();
        let Some((last, full)) = lens.split_last() else { continue };
        let pack_len = u64::from(store.config.pack_len);
        assert!(full.iter().all(|len| *len == pack_len), "{lens:?}");
        let sum: u64 = lens.iter().sum();
        assert!(*last >= 32 << 10 && (sum == padme(sum) || *last == pack_len), "{lens:?}");
    }
}

/// Checks that everything in the tree is cut where the format says.
pub fn check_store(store: &Store, tree: &Id, seen: &mut Seen) {
    let chunk = |of, id: &Id| store.chunk(of, id);
    seen.page_levels = seen.page_levels.max(check_pages(store, tree).len());
    let chunker = Chunker::new(store);
    for entry in super::tree::read_directory(tree, &chunk).unwrap() {
        if let Some(content) = entry.content {
            let extents = content.clone().extents(&chunk).unwrap();
            let two_holes = |w: &[Extent]| matches!(w, [Extent::Hole { .. }, Extent::Hole { .. }]);
            assert!(!extents.windows(2).any(two_holes), "holes are merged");
            assert_eq!(extents.len() > LIST_MIN, matches!(content, Content::Pages { .. }));
            seen.list_levels = seen.list_levels.max(check_lists(store, content).len());
            let (stored, wanted) = chunk_lengths(store, &chunker, &extents);
            assert_eq!(stored, wanted, "{}", entry.name.escape_ascii());
            seen.chunks += stored.len();
        }
        if let Some(subtree) = entry.subtree {
            check_store(store, &subtree.tree, seen);
        }
    }
}
