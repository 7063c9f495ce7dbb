//! The door to the store: what a file system asks of it.
//!
//! The first attempt at an answer is made on the thread that talks to the kernel and may only use what is
//! in memory ([`Patience::Now`]); what is not is refused with how far away it is, and asked again on a thread
//! that can afford to wait for a disk ([`Patience::Local`]) or for a vault ([`Patience::Of`], [`Patience::Until`]).

mod store;

use std::ops::Range;

use bytes::Bytes;
use holdfast_store::catalog::VaultNo;
use holdfast_store::clock::{Deadline, Timestamp};
use holdfast_store::error::StoreError;
use holdfast_store::id::{ChunkId, RecoveryPointId};
use holdfast_store::point::Counts;
use holdfast_store::reader::Tier;
use holdfast_store::store::PointBrief;
use holdfast_store::tree::{Content, Node};

pub use store::StoreRecovery;

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Only what is in memory: whatever lies on a disk, the catalog too, may hang with it.
    Now,
    /// Only what lies on this machine, a second at most: for what nobody has asked for yet.
    Here,
    /// What lies on this machine, until then: no vault is waited for.
    Local(Deadline),
    /// What lies on this machine or is asked of this vault first, until then: no other is waited for before it failed.
    Of(VaultNo, Deadline),
    /// Whatever it takes until then.
    Until(Deadline),
}

/// Size of everything in all points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of all files in all points.
    pub bytes: u64,
    /// Entries in all points.
    pub entries: u64,
}

impl Totals {
    /// Of one point.
    pub fn of(counts: &Counts) -> Self {
        let entries = counts.files.saturating_add(counts.directories).saturating_add(counts.others);
        Self { bytes: counts.bytes, entries }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            entries: self.entries.saturating_add(other.entries),
        }
    }
}

/// What a file takes without its holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes outside holes.
    pub bytes: u64,
    /// Whether it stays like that. Where it cannot be had now, it is told as somewhat less than the file's size, as of a file with a hole
    /// *somewhere*: so that `cp` and `tar` look for where.
    pub lasts: bool,
}

/// Where the nearest answer lies that is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// On this machine: reading and decoding.
    Local,
    /// In a vault: waiting for a network.
    Vault(Line),
}

impl Reach {
    /// In some vault, it is not known which.
    pub const VAULT: Self = Self::Vault(Line { vault: None, is_page: false });

    /// Whether a vault must be waited for.
    pub fn is_far(self) -> bool {
        self != Self::Local
    }
}

/// What is waited for in a vault: so that neither another vault nor what is more urgent waits behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// The vault that is asked first, if it is known.
    pub vault: Option<VaultNo>,
    /// Whether it is a page of a directory.
    pub is_page: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Refusal {
    /// It is farther away than asked for, or in another vault; never with [`Patience::Until`].
    Later(Reach),
    /// The store refused.
    Failed(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// What to seek for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next stored byte.
    Data,
    /// The next hole; the end of a file is one.
    Hole,
}

/// Everything a view asks of a store. Called from many threads at once; promises to give up at the deadline.
pub trait Recovery: Send + Sync + 'static {
    /// A number that moves when a point comes or goes. Asked about once a second, so it must cost next to nothing;
    /// the moment, too, to close what others removed or replaced.
    fn stamp(&self) -> Result<i64, StoreError>;

    /// All recovery points, in any order.
    fn points(&self) -> Result<Vec<PointBrief>, StoreError>;

    /// The root directory of a point. It lies on this machine, unless what tells of the point there is damaged.
    fn root(&self, point: &RecoveryPointId, patience: Patience) -> Result<Node, Refusal>;

    /// What all points hold. What was counted until the deadline passed need not be counted again.
    fn totals(&self, patience: Patience) -> Result<Totals, Refusal>;

    /// The entry called `name` of the directory `tree`, with its position among all entries (from 0).
    fn find(&self, tree: &ChunkId, name: &[u8], patience: Patience) -> Result<Option<(u64, Node)>, Refusal>;

    /// Up to `most` (at least 1) entries of the directory `tree` from position `from` on; fewer only at its end, or
    /// where the implementation finds it convenient to pause, but at least one if there is one.
    fn list(&self, tree: &ChunkId, from: u64, most: usize, patience: Patience) -> Result<Vec<Node>, Refusal>;

    /// Bytes `range` of a file, which lies within its size; holes are zeros.
    fn read(&self, content: &Content, range: Range<u64>, patience: Patience) -> Result<Bytes, Refusal>;

    /// What is decoded together with the byte of a file at `at`, which lies within its size: a stretch that holds it. In a hole
    /// that is nothing else.
    fn stretch(&self, content: &Content, at: u64, patience: Patience) -> Result<Range<u64>, Refusal>;

    /// Where the next data or hole begins, from `offset` on, which lies within the file; `None` if there is none.
    fn seek(
        &self,
        content: &Content,
        offset: u64,
        seek: Seek,
        patience: Patience,
    ) -> Result<Option<u64>, Refusal>;

    /// Bytes of a file of `size` bytes that do not lie in holes. No vault is waited for, whatever the patience; and damage is not
    /// this answer's trouble.
    fn stored(&self, content: &Content, size: u64, patience: Patience) -> Result<Stored, Refusal>;

    /// When every byte of the file was last read and proven, the pack that waits longest for it deciding; `None` if one never was, or it
    /// has no bytes.
    fn verified(&self, content: &Content, patience: Patience) -> Result<Option<Timestamp>, Refusal>;

    /// The farthest tier that a whole read of the file would reach for; `None` if it has no bytes.
    fn tier(&self, content: &Content, patience: Patience) -> Result<Option<Tier>, Refusal>;
}
