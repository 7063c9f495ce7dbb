//! Numbers of nodes: the same for ever, without a table that grows for ever.
//!
//! A number is derived by BLAKE3 from what a node *is*, so that a remount, a server of NFS or an overlay finds it
//! again. Two spaces are told apart by bit 61: nodes of the layout (and the roots of points), which [`crate::layout`]
//! knows by heart, and nodes inside points, for which the kernel's own reference counts decide how long the table
//! here remembers where they lie. All numbers are below 2^62, as overlayfs with `xino` needs the upper two bits.
//!
//! What identifies a node inside a point:
//!
//! - a node with several links (not a directory): point, source file system and source inode, **and all that its
//!   attributes and content say**. A file that changed between the readings of two of its names is then two
//!   files, each with its own bytes, whichever name is asked for first;
//! - any other: the number of its directory and its position there. Inode numbers that the source reused while it was read do no harm.
//!
//! Numbers of these ascend with the names, a *segment* of [`SEGMENT`] entries of a directory at a time: `cp`, `du` and others sort a directory by
//! number before they read it, and so read it in the order in which its contents lie in the store.
//!
//! A record says where nodes lie, not what they are: one for each segment of which the kernel has any node, some 160 bytes with the directory, and
//! one for each node with several links. So a directory of a million entries takes 250 records. What the kernel counts is added up for a
//! segment. Records that the kernel has forgotten move to a bounded trail, since a file handle held by NFS or an overlay outlives the kernel's inode.
//!
//! Two segments can have the same 48 bits by chance (about 2 * 10^-3 for a million directories in use). The table
//! keeps 64 more bits of each identity and gives the second one its next candidate.
//!
//! The kernel keeps nodes as long as it has memory for them, which may be for ever. What it was told first it can be asked to forget
//! ([`Table::pop_oldest`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use holdfast_store::id::ChunkId;
use holdfast_store::tree::{Content, Extent, Node, NodeKind};
use lru::LruCache;

use crate::layout::Root;

/// The root of the mount.
pub const ROOT: u64 = 1;

const LAYOUT_BIT: u64 = 1 << 61;
/// Of the number of a node with several links.
const LINKED_BIT: u64 = 1 << 60;
const LOW_BITS: u64 = LINKED_BIT - 1;

/// Entries of a directory with numbers in a row.
const SEGMENT: u64 = 1 << 12;

/// Forgotten records whose nodes can still be found by number: about 5 MB.
const TRAIL_RECORDS: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();

type Key = [u8; 32];

/// A key for each kind of identity, derived once.
static LAYOUT_NODE: LazyLock<Key> = LazyLock::new(|| blake3::derive_key("holdfast mount: layout node", &[]));
static LINKED_NODE: LazyLock<Key> = LazyLock::new(|| blake3::derive_key("holdfast mount: linked node", &[]));
static SEGMENT_BEGIN: LazyLock<Key> = LazyLock::new(|| blake3::derive_key("holdfast mount: segment", &[]));

/// Whether a number is one of the layout's (or of a point's root).
pub fn is_layout(ino: u64) -> bool {
    ino == ROOT || ino & LAYOUT_BIT != 0
}

/// What a node is, hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    check: u64,
    seed: [u8; 32],
    /// Bit of its kind of number.
    space: u64,
    /// Position in its segment, for those that are numbered by segments.
    offset: Option<u64>,
}

impl Identity {
    fn new(hash: blake3::Hash, space: u64, offset: Option<u64>) -> Self {
        let seed = *hash.as_bytes();
        Self { check: word(&seed, 8), seed, space, offset }
    }

    /// Of a directory or link above the points.
    pub fn of_layout(path: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&LAYOUT_NODE);
        path.iter().for_each(|part| put(&mut hasher, part));
        Self::new(hasher.finalize(), LAYOUT_BIT, None)
    }

    /// Of a node inside a point: the entry with `ordinal` before it in the directory with the number `parent`.
    pub fn of_node(root: &Root, (parent, ordinal): (u64, u64), node: &Node) -> Self {
        if node.links > 1 && node.kind != NodeKind::Directory && node.inode != 0 {
            let mut hasher = blake3::Hasher::new_keyed(&LINKED_NODE);
            put_linked(&mut hasher, root, node);
            return Self::new(hasher.finalize(), LINKED_BIT, None);
        }
        // All at once: a listing does this for each entry, and a hasher is 2 KB to set up.
        let segment = [parent.to_le_bytes(), (ordinal / SEGMENT).to_le_bytes()].concat();
        Self::new(blake3::keyed_hash(&SEGMENT_BEGIN, &segment), 0, Some(ordinal % SEGMENT))
    }

    /// The `n`-th number this identity would like to have; 0 and [`ROOT`] never.
    pub fn candidate(&self, n: u32) -> u64 {
        let low = if n == 0 { word(&self.seed, 0) } else { self.rehashed(n) } & LOW_BITS;
        let low = self.offset.map_or(low, |offset| low & !(SEGMENT - 1) | offset);
        // Nobody's first segment: it would hold the root of the mount.
        if low < SEGMENT { self.candidate(n.wrapping_add(1)) } else { low | self.space }
    }

    fn rehashed(&self, n: u32) -> u64 {
        let hash = blake3::keyed_hash(&self.seed, &n.to_le_bytes());
        word(hash.as_bytes(), 0)
    }
}

fn word(bytes: &[u8; 32], at: usize) -> u64 {
    bytes.iter().skip(at).take(8).fold(0, |sum, b| sum << 8 | u64::from(*b))
}

fn put(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

/// Everything but the name: names of one file agree in all of it.
fn put_linked(hasher: &mut blake3::Hasher, root: &Root, node: &Node) {
    hasher.update(&root.ino.to_le_bytes());
    hasher.update(&node.filesystem.to_le_bytes()).update(&node.inode.to_le_bytes());
    hasher.update(&[node.kind as u8]).update(&node.mode.to_le_bytes());
    for number in [node.uid, node.gid, node.flags, node.links, node.mtime.nanos, node.ctime.nanos] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&node.mtime.seconds.to_le_bytes()).update(&node.ctime.seconds.to_le_bytes());
    hasher.update(&node.size.to_le_bytes());
    put(hasher, node.target.as_deref().unwrap_or_default());
    let (major, minor) = node.device.unwrap_or_default();
    hasher.update(&major.to_le_bytes()).update(&minor.to_le_bytes());
    for xattr in &node.xattrs {
        put(hasher, &xattr.name);
        put(hasher, &xattr.value);
    }
    if let Some(content) = &node.content {
        put_content(hasher, content);
    }
}

fn put_content(hasher: &mut blake3::Hasher, content: &Content) {
    match content {
        Content::Inline(extents) => extents.iter().for_each(|extent| match extent {
            Extent::Data { id, len } => {
                hasher.update(&[0]).update(&id.0).update(&len.to_le_bytes());
            }
            Extent::Hole { len } => {
                hasher.update(&[1]).update(&len.to_le_bytes());
            }
        }),
        Content::Paged { depth, pages } => {
            hasher.update(&[2, *depth]);
            for (id, bytes) in pages {
                hasher.update(&id.0).update(&bytes.to_le_bytes());
            }
        }
    }
}

/// A directory in which nodes were found; shared by those that were found together.
#[derive(Debug)]
pub struct Folder {
    /// The point, as entered through one of its doors.
    pub root: Arc<Root>,
    /// Number of the directory.
    pub parent: u64,
    /// Its tree.
    pub tree: ChunkId,
}

/// Where a node lies.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory.
    pub folder: Arc<Folder>,
    /// Position among its entries.
    pub ordinal: u64,
}

/// A segment, or a node with several links: the place of the first number, and what the kernel counts of all.
#[derive(Debug)]
struct Record {
    place: Place,
    check: u64,
    lookups: u64,
    queued: bool,
}

/// Under which number a node's record is kept.
fn key(ino: u64) -> u64 {
    if ino & LINKED_BIT == 0 { ino & !(SEGMENT - 1) } else { ino }
}

/// Which numbers the kernel knows, and where their nodes lie.
#[derive(Debug)]
pub struct Table {
    live: HashMap<u64, Record, lru::DefaultHasher>,
    trail: LruCache<u64, Record>,
    /// Keys in the order in which the kernel was told of them; those of records that are gone are among them.
    queue: VecDeque<u64>,
}

impl Default for Table {
    fn default() -> Self {
        Self { live: HashMap::default(), trail: LruCache::new(TRAIL_RECORDS), queue: VecDeque::new() }
    }
}

impl Table {
    /// The number of an identity: its first candidate that nobody else has.
    pub fn number(&self, identity: &Identity) -> u64 {
        (0..).map(|n| identity.candidate(n)).find(|ino| self.is_free_for(*ino, identity)).unwrap_or_default()
    }

    fn is_free_for(&self, ino: u64, identity: &Identity) -> bool {
        self.record(ino).is_none_or(|record| record.check == identity.check)
    }

    fn record(&self, ino: u64) -> Option<&Record> {
        let key = key(ino);
        self.live.get(&key).or_else(|| self.trail.peek(&key))
    }

    /// Notes that the kernel was told this node once more, and returns its number.
    pub fn remember(&mut self, identity: &Identity, place: &Place) -> u64 {
        let ino = self.number(identity);
        let key = key(ino);
        let trail = &mut self.trail;
        let record = self.live.entry(key).or_insert_with(|| {
            trail.pop(&key).unwrap_or_else(|| Record {
                place: Place { folder: place.folder.clone(), ordinal: place.ordinal - (ino - key) },
                check: identity.check,
                lookups: 0,
                queued: false,
            })
        });
        record.lookups = record.lookups.saturating_add(1);
        if !record.queued {
            record.queued = true;
            self.queue.push_back(key);
            self.tidy_queue();
        }
        ino
    }

    /// Takes back `lookups` of what [`remember`](Self::remember) counted.
    pub fn forget(&mut self, ino: u64, lookups: u64) {
        let key = key(ino);
        let Some(record) = self.live.get_mut(&key) else { return };
        record.lookups = record.lookups.saturating_sub(lookups);
        if record.lookups == 0
            && let Some(record) = self.live.remove(&key)
        {
            self.trail.put(key, record);
        }
    }

    /// The number of an identity, if nobody but it and its neighbours can have it in the kernel.
    pub fn known(&self, identity: &Identity) -> Option<u64> {
        let ino = self.number(identity);
        self.live.contains_key(&key(ino)).then_some(ino)
    }

    /// Where the node with this number lies, if it is or was lately known.
    pub fn place(&self, ino: u64) -> Option<Place> {
        let ordinal = |record: &Record| record.place.ordinal + (ino - key(ino));
        self.record(ino).map(|r| Place { folder: r.place.folder.clone(), ordinal: ordinal(r) })
    }

    /// Of the records that were not named since the kernel was told of one of their nodes, the one that was told first: its key, where
    /// its nodes begin, and how many they may be.
    pub fn pop_oldest(&mut self) -> Option<(u64, Place, usize)> {
        while let Some(key) = self.queue.pop_front() {
            if let Some(record) = self.trail.peek_mut(&key) {
                record.queued = false;
            }
            if let Some(record) = self.live.get_mut(&key).filter(|record| record.queued) {
                record.queued = false;
                let most = if key & LINKED_BIT == 0 { SEGMENT as usize } else { 1 };
                return Some((key, record.place.clone(), most));
            }
        }
        None
    }

    /// What [`pop_oldest`](Self::pop_oldest) named could not be let go.
    pub fn put_back(&mut self, key: u64) {
        if let Some(record) = self.live.get_mut(&key).filter(|record| !record.queued) {
            record.queued = true;
            self.queue.push_back(key);
        }
    }

    /// The queue does not grow with what came and went: it is gone through when half of it may be that, and then it is not.
    fn tidy_queue(&mut self) {
        if self.queue.len() <= 2 * self.live.len() + 64 {
            return;
        }
        let mut seen = HashSet::new();
        let (live, trail) = (&self.live, &mut self.trail);
        self.queue.retain(|key| {
            if let Some(record) = trail.peek_mut(key) {
                record.queued = false;
            }
            live.get(key).is_some_and(|record| record.queued) && seen.insert(*key)
        });
    }

    /// Records of what the kernel knows.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether the kernel knows none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

#[cfg(test)]
mod tests;
