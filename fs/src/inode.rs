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
//! - any other: the number of its directory and its name. Inode numbers that the source reused while it was read do no harm.
//!
//! Numbers of these ascend with the names, [`SEGMENT`] of a directory at a time: `cp`, `du` and others sort a directory by number before they read it,
//! and so read it in the order in which its contents lie in the store.
//!
//! Two segments can still have the same 49 bits by chance (about 10^-3 for a million directories in use). The table
//! keeps 64 more bits of each identity and gives the second one its next candidate.
//!
//! A record says where a node lies, not what it is: (directory, position), some 50 bytes. Records that the
//! kernel has forgotten move to a bounded trail, since a file handle held by NFS or an overlay outlives the kernel's inode.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use holdfast_store::id::ChunkId;
use holdfast_store::tree::{Content, Extent, Node, NodeKind};
use lru::LruCache;

use crate::layout::Root;

/// The root of the mount.
pub const ROOT: u64 = 1;

const LAYOUT_BIT: u64 = 1 << 61;
const LOW_BITS: u64 = LAYOUT_BIT - 1;

/// Entries of a directory with numbers in a row.
const SEGMENT: u64 = 1 << 12;

/// Forgotten nodes that can still be found by number: 65,536 records are about 6 MB.
const TRAIL_RECORDS: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

type Key = [u8; 32];

/// A key for each kind of identity, derived once.
static LAYOUT_NODE: LazyLock<Key> = LazyLock::new(|| blake3::derive_key("holdfast mount: layout node", &[]));
static LINKED_NODE: LazyLock<Key> = LazyLock::new(|| blake3::derive_key("holdfast mount: linked node", &[]));
static NODE: LazyLock<Key> = LazyLock::new(|| blake3::derive_key("holdfast mount: node", &[]));
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
    layout: u64,
    /// The number it would like to have.
    first: u64,
}

impl Identity {
    fn new(hash: blake3::Hash, layout: u64) -> Self {
        let seed = *hash.as_bytes();
        Self { check: word(&seed, 0), seed, layout, first: word(&seed, 8) & LOW_BITS }
    }

    /// Of a directory or link above the points.
    pub fn of_layout(path: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&LAYOUT_NODE);
        path.iter().for_each(|part| put(&mut hasher, part));
        Self::new(hasher.finalize(), LAYOUT_BIT)
    }

    /// Of a node inside a point: the entry with `ordinal` before it in the directory with the number `parent`.
    pub fn of_node(root: &Root, (parent, ordinal): (u64, u64), node: &Node) -> Self {
        if node.links > 1 && node.kind != NodeKind::Directory && node.inode != 0 {
            let mut hasher = blake3::Hasher::new_keyed(&LINKED_NODE);
            put_linked(&mut hasher, root, node);
            return Self::new(hasher.finalize(), 0);
        }
        // All at once: a listing does this for each entry, and a hasher is 2 KB to set up.
        let parent = parent.to_le_bytes();
        let segment = [parent, (ordinal / SEGMENT).to_le_bytes()].concat();
        let begin = word(blake3::keyed_hash(&SEGMENT_BEGIN, &segment).as_bytes(), 0);
        let begin = begin & LOW_BITS & !(SEGMENT - 1);
        let hash = blake3::keyed_hash(&NODE, &[parent.as_slice(), node.name.as_slice()].concat());
        Self { first: begin + ordinal % SEGMENT, ..Self::new(hash, 0) }
    }

    /// The `n`-th number this identity would like to have; 0 and [`ROOT`] never.
    pub fn candidate(&self, n: u32) -> u64 {
        let low = if n == 0 { self.first } else { self.rehashed(n) & LOW_BITS };
        if low <= ROOT { self.candidate(n.wrapping_add(1)) } else { low | self.layout }
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

/// 32 bytes: the kernel may hold a million.
#[derive(Debug)]
struct Record {
    place: Place,
    check: u64,
    lookups: u64,
}

/// Which numbers the kernel knows, and where their nodes lie.
#[derive(Debug)]
pub struct Table {
    live: HashMap<u64, Record, lru::DefaultHasher>,
    trail: LruCache<u64, Record>,
}

impl Default for Table {
    fn default() -> Self {
        Self { live: HashMap::default(), trail: LruCache::new(TRAIL_RECORDS) }
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
        self.live.get(&ino).or_else(|| self.trail.peek(&ino))
    }

    /// Notes that the kernel was told this node once more, and returns its number.
    pub fn remember(&mut self, identity: &Identity, place: &Place) -> u64 {
        let ino = self.number(identity);
        let trail = &mut self.trail;
        let record = self.live.entry(ino).or_insert_with(|| {
            trail.pop(&ino).unwrap_or_else(|| Record {
                place: place.clone(),
                check: identity.check,
                lookups: 0,
            })
        });
        record.lookups = record.lookups.saturating_add(1);
        ino
    }

    /// Takes back `lookups` of what [`remember`](Self::remember) counted.
    pub fn forget(&mut self, ino: u64, lookups: u64) {
        let Some(record) = self.live.get_mut(&ino) else { return };
        record.lookups = record.lookups.saturating_sub(lookups);
        if record.lookups == 0
            && let Some(record) = self.live.remove(&ino)
        {
            self.trail.put(ino, record);
        }
    }

    /// The number of an identity that the kernel knows by it.
    pub fn known(&self, identity: &Identity) -> Option<u64> {
        let ino = self.number(identity);
        self.live.contains_key(&ino).then_some(ino)
    }

    /// Where the node with this number lies, if it is or was lately known.
    pub fn place(&self, ino: u64) -> Option<Place> {
        self.record(ino).map(|record| record.place.clone())
    }

    /// Nodes that the kernel knows.
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
