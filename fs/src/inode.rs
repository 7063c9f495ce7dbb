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
//! A record says where nodes lie, not what they are: one for each segment of which the kernel has any node, some 200 bytes with the directory, and
//! one for each node with several links. So a directory of a million entries takes 250 records. What the kernel counts is added up for a
//! segment. Records that the kernel has forgotten move to a bounded trail, since a file handle held by NFS or an overlay outlives the kernel's inode.
//!
//! Two segments can have the same 48 bits by chance (about 2 * 10^-3 for a million directories in use). The table
//! keeps 64 more bits of each identity and gives the second one its next candidate.
//!
//! The kernel keeps nodes as long as it has memory for them, which may be for ever. What it was told first it can be asked to forget
//! ([`Table::take_turn`]), by the names that it was told, a segment at a time. It keeps a node with several links by any of its names, so the segments in
//! which these lie have records, too, until their turn has come: nothing else says where a name was told.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
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
        Self::of_position(parent, ordinal)
    }

    /// Of whatever has this position in its directory, by that alone.
    fn of_position(parent: u64, ordinal: u64) -> Self {
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
    /// When the turn of a segment comes to be forgotten; none if nothing of it was told since its last turn.
    turn: Option<NonZeroU64>,
    /// Whether names of nodes with several links were told since then, which count elsewhere.
    links: bool,
}

fn is_linked(ino: u64) -> bool {
    ino & LINKED_BIT != 0
}

/// Under which number a node's record is kept.
fn key(ino: u64) -> u64 {
    if is_linked(ino) { ino } else { ino & !(SEGMENT - 1) }
}

/// Which numbers the kernel knows, and where their nodes lie.
#[derive(Debug)]
pub struct Table {
    /// Not by hash: a table that doubles and shrinks leaves an allocator with holes of megabytes.
    live: BTreeMap<u64, Record>,
    /// How many of these are nodes with several links.
    linked: usize,
    trail: LruCache<u64, Record>,
    /// Keys of segments by their turns, all of them live.
    turns: BTreeMap<NonZeroU64, u64>,
    next: NonZeroU64,
}

impl Default for Table {
    fn default() -> Self {
        let (trail, next) = (LruCache::new(TRAIL_RECORDS), NonZeroU64::MIN);
        Self { live: BTreeMap::new(), linked: 0, trail, turns: BTreeMap::new(), next }
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

    /// Notes that the kernel was told this node once more, by the name at `place`, and returns its number.
    pub fn remember(&mut self, identity: &Identity, place: &Place) -> u64 {
        let (ino, record) = self.record_of(identity, place);
        record.lookups = record.lookups.saturating_add(1);
        if !is_linked(ino) {
            self.queue(key(ino));
            return ino;
        }
        let position = Identity::of_position(place.folder.parent, place.ordinal);
        let (neighbour, segment) = self.record_of(&position, place);
        segment.links = true;
        self.queue(key(neighbour));
        ino
    }

    /// The live record of an identity, with its number.
    fn record_of(&mut self, identity: &Identity, place: &Place) -> (u64, &mut Record) {
        let ino = self.number(identity);
        let key = key(ino);
        let (trail, linked) = (&mut self.trail, &mut self.linked);
        let record = self.live.entry(key).or_insert_with(|| {
            *linked += usize::from(is_linked(key));
            let place = || Place { folder: place.folder.clone(), ordinal: place.ordinal - (ino - key) };
            let (check, lookups, turn, links) = (identity.check, 0, None, false);
            trail.pop(&key).unwrap_or_else(|| Record { place: place(), check, lookups, turn, links })
        });
        (ino, record)
    }

    /// Takes back `lookups` of what [`remember`](Self::remember) counted.
    pub fn forget(&mut self, ino: u64, lookups: u64) {
        let key = key(ino);
        if let Some(record) = self.live.get_mut(&key) {
            record.lookups = record.lookups.saturating_sub(lookups);
            self.settle(key);
        }
    }

    /// A record that stands for nothing in the kernel moves to the trail.
    fn settle(&mut self, key: u64) {
        let stands = |record: &Record| record.lookups > 0 || record.links;
        if self.live.get(&key).is_none_or(stands) {
            return;
        }
        self.dequeue(key);
        let Some(record) = self.live.remove(&key) else { return };
        self.linked -= usize::from(is_linked(key));
        self.trail.put(key, record);
    }

    /// The number of an identity, if nobody but it and its neighbours can have it in the kernel.
    pub fn known(&self, identity: &Identity) -> Option<u64> {
        let ino = self.number(identity);
        self.live.get(&key(ino)).is_some_and(|record| record.lookups > 0).then_some(ino)
    }

    /// Where the node with this number lies, if it is or was lately known.
    pub fn place(&self, ino: u64) -> Option<Place> {
        let ordinal = |record: &Record| record.place.ordinal + (ino - key(ino));
        self.record(ino).map(|r| Place { folder: r.place.folder.clone(), ordinal: ordinal(r) })
    }

    /// A turn that comes after those of all that was told until now.
    pub fn next_turn(&self) -> NonZeroU64 {
        self.next
    }

    /// Of the segments with a turn before `end`, the one that was told first: its key, where its entries begin, and how many they may be. It comes
    /// last from now on, unless [`had_turn`](Self::had_turn) says that it was done. None if no more than `most` records are live, or so few of them can be
    /// forgotten that it does not help.
    ///
    /// A segment that had its turn and is still live has nodes in use, or directories, of which nobody can say when they go. What
    /// can be forgotten has a quarter of `most` beside them: or it would have to go as soon as it came.
    pub fn take_turn(&mut self, most: usize, end: NonZeroU64) -> Option<(u64, Place, usize)> {
        if self.live.len() <= most || self.turns.len() + self.linked <= most / 4 {
            return None;
        }
        let (_, key) = self.turns.range(..end).next()?;
        let key = *key;
        self.dequeue(key);
        self.queue(key);
        self.live.get(&key).map(|record| (key, record.place.clone(), SEGMENT as usize))
    }

    /// All names of this segment are about to be named to the kernel, those that it will be told from now on excepted.
    pub fn had_turn(&mut self, key: u64) {
        self.dequeue(key);
        if let Some(record) = self.live.get_mut(&key) {
            record.links = false;
            self.settle(key);
        }
    }

    /// Gives a segment a turn after all others, unless it has one.
    fn queue(&mut self, key: u64) {
        if let Some(record) = self.live.get_mut(&key).filter(|record| record.turn.is_none()) {
            record.turn = Some(self.next);
            self.turns.insert(self.next, key);
            self.next = self.next.saturating_add(1);
        }
    }

    fn dequeue(&mut self, key: u64) {
        if let Some(turn) = self.live.get_mut(&key).and_then(|record| record.turn.take()) {
            self.turns.remove(&turn);
        }
    }

    /// Records of what the kernel knows, or may know.
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
