//! A recovery in memory for tests: trees made by hand, and misbehaviour on demand.
//!
//! It stands in for the store wherever the file system above it is tested: warm, cold, failing, or hanging
//! without any respect for deadlines, separately for directories and for contents.

mod made;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_store::clock::{Deadline, Timestamp};
use holdfast_store::error::StoreError;
use holdfast_store::id::{ChunkId, RecoveryPointId};
use holdfast_store::reader::Tier;
use holdfast_store::store::{PointBrief, StoredPoint};
use holdfast_store::tree::{Content, Extent, Node, NodeKind, Subtree};

pub use made::{brief, file, link, node, point};

use crate::recovery::{Patience, Reach, Recovery, Refusal, Seek, Stored, Totals};

/// Whether this machine lets a test mount; says so if not.
#[allow(clippy::print_stdout)]
pub fn can_mount() -> bool {
    let can = nix::unistd::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !can {
        println!("SKIPPED: needs root and /dev/fuse");
    }
    can
}

/// How often what hangs looks whether anybody waits for it.
const LOOK: Duration = Duration::from_millis(20);

/// How a kind of request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// At once.
    #[default]
    Warm,
    /// Only on a second, patient request.
    Cold(Reach),
    /// Never; a patient request gets an error.
    Failing,
    /// A patient request hangs until the behaviour changes, deadline or not.
    Hanging,
    /// A patient request hangs until nobody waits for it any more.
    Away,
    /// The answer panics.
    Panicking,
}

/// Stretches of a file to be made.
#[derive(Clone, Debug)]
pub enum Part {
    /// Stored bytes.
    Data(Vec<u8>),
    /// A hole.
    Hole(u64),
}

#[derive(Default)]
struct State {
    points: Vec<StoredPoint>,
    stamp: i64,
    trees: HashMap<ChunkId, Vec<Node>>,
    chunks: HashMap<ChunkId, Bytes>,
    directories: Behaviour,
    contents: Behaviour,
    sums: Behaviour,
    pause: Option<usize>,
    points_list: Behaviour,
    reads: u64,
    at_once: u64,
    ahead: u64,
    asks: u64,
}

/// Points, trees and chunks in memory.
#[derive(Default)]
pub struct MemoryRecovery {
    state: Mutex<State>,
    changed: Condvar,
}

impl MemoryRecovery {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how requests for directories are answered.
    pub fn directories(&self, behaviour: Behaviour) {
        self.state().directories = behaviour;
        self.changed.notify_all();
    }

    /// Sets how requests for contents are answered.
    pub fn contents(&self, behaviour: Behaviour) {
        self.state().contents = behaviour;
        self.changed.notify_all();
    }

    /// Lets listings pause after so many entries.
    pub fn pause_after(&self, entries: usize) {
        self.state().pause = Some(entries);
    }

    /// Sets how requests for the sum of all points are answered.
    pub fn sums(&self, behaviour: Behaviour) {
        self.state().sums = behaviour;
        self.changed.notify_all();
    }

    /// Sets how the list of points is answered.
    pub fn lists(&self, behaviour: Behaviour) {
        self.state().points_list = behaviour;
        self.changed.notify_all();
    }

    /// Patient requests for contents so far.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Attempts at contents with what is in memory so far: one for each request of the kernel.
    pub fn attempts(&self) -> u64 {
        self.state().at_once
    }

    /// Contents looked for that nobody had asked for, so far.
    pub fn looked_ahead(&self) -> u64 {
        self.state().ahead
    }

    /// Requests for directories and contents so far, patient or not.
    pub fn asks(&self) -> u64 {
        self.state().asks
    }

    /// A file made of parts.
    pub fn file(&self, name: &str, parts: &[Part]) -> Node {
        let mut state = self.state();
        let extents = parts.iter().map(|part| match part {
            Part::Hole(len) => Extent::Hole { len: *len },
            Part::Data(bytes) => {
                let id = chunk_id(bytes);
                state.chunks.insert(id, Bytes::copy_from_slice(bytes));
                Extent::Data { id, len: bytes.len() as u32 }
            }
        });
        let extents: Vec<_> = extents.collect();
        let size = extents.iter().map(Extent::len).sum();
        Node { size, content: Some(Content::Inline(extents)), ..node(name, NodeKind::File) }
    }

    /// A directory of these entries.
    pub fn directory(&self, name: &str, mut entries: Vec<Node>) -> Node {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hasher = blake3::Hasher::new();
        entries.iter().for_each(|entry| {
            hasher.update(format!("{entry:?}").as_bytes());
        });
        let tree = ChunkId(*hasher.finalize().as_bytes());
        let bytes = entries.iter().map(|entry| entry.size).sum();
        let subtree = Some(Subtree { tree, entries: entries.len() as u64, bytes });
        self.state().trees.insert(tree, entries);
        Node { subtree, links: 2, mode: 0o755, ..node(name, NodeKind::Directory) }
    }

    /// Adds a point with this root directory.
    pub fn add(&self, mut stored: StoredPoint, root: Node) {
        Arc::make_mut(&mut stored.point).root = root;
        let mut state = self.state();
        state.points.push(stored);
        state.stamp += 1;
    }

    /// Removes a point.
    pub fn remove(&self, id: &RecoveryPointId) {
        let mut state = self.state();
        state.points.retain(|p| p.point.id != *id);
        state.stamp += 1;
    }

    /// Waits or refuses as the behaviour says.
    fn gate(
        &self,
        which: fn(&State) -> Behaviour,
        patience: Patience,
    ) -> Result<MutexGuard<'_, State>, Refusal> {
        let mut state = self.state();
        state.asks += 1;
        loop {
            let (behaviour, now) = (which(&state), !is_patient(which(&state), patience));
            match behaviour {
                Behaviour::Warm => return Ok(state),
                Behaviour::Cold(_) if !now => return Ok(state),
                Behaviour::Cold(reach) => return Err(Refusal::Later(reach)),
                Behaviour::Failing | Behaviour::Hanging | Behaviour::Away if now => {
                    return Err(Refusal::Later(Reach::VAULT));
                }
                Behaviour::Away if is_given_up(patience) => return Err(StoreError::Cancelled.into()),
                Behaviour::Away => {
                    let waited = self.changed.wait_timeout(state, LOOK);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Behaviour::Failing => return Err(StoreError::Timeout { what: "a test".into() }.into()),
                Behaviour::Hanging => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Behaviour::Panicking => {
                    drop(state);
                    std::panic::panic_any("a test asked for it");
                }
            }
        }
    }

    fn tree<T>(
        &self,
        tree: &ChunkId,
        patience: Patience,
        look: impl FnOnce(&[Node]) -> T,
    ) -> Result<T, Refusal> {
        let state = self.gate(|state| state.directories, patience)?;
        let entries = state.trees.get(tree);
        Ok(look(entries.ok_or_else(|| StoreError::NotFound { what: format!("tree {tree}") })?))
    }
}

impl Recovery for MemoryRecovery {
    fn stamp(&self) -> Result<i64, StoreError> {
        Ok(self.state().stamp)
    }

    fn points(&self) -> Result<Vec<PointBrief>, StoreError> {
        let state = self.gate(|state| state.points_list, Patience::Until(Deadline::NEVER));
        match state {
            Ok(state) => Ok(state.points.iter().map(brief).collect()),
            Err(Refusal::Failed(error)) => Err(error),
            Err(Refusal::Later(_)) => Err(StoreError::Cancelled),
        }
    }

    fn root(&self, point: &RecoveryPointId, _: Patience) -> Result<Node, Refusal> {
        let state = self.state();
        let found = state.points.iter().find(|stored| stored.point.id == *point);
        let missing = || StoreError::NotFound { what: format!("recovery point {point}") };
        Ok(found.ok_or_else(missing)?.point.root.clone())
    }

    fn totals(&self, patience: Patience) -> Result<Totals, Refusal> {
        let state = self.gate(|state| state.sums, patience)?;
        Ok(state.points.iter().fold(Totals::default(), |sum, p| sum.and(Totals::of(&p.point.counts))))
    }

    fn find(&self, tree: &ChunkId, name: &[u8], patience: Patience) -> Result<Option<(u64, Node)>, Refusal> {
        self.tree(tree, patience, |entries| {
            let at = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok()?;
            Some((at as u64, entries.get(at)?.clone()))
        })
    }

    fn list(&self, tree: &ChunkId, from: u64, most: usize, patience: Patience) -> Result<Vec<Node>, Refusal> {
        let most = self.state().pause.map_or(most, |pause| most.min(pause));
        self.tree(tree, patience, |entries| {
            entries.iter().skip(usize::try_from(from).unwrap_or(usize::MAX)).take(most).cloned().collect()
        })
    }

    fn read(&self, content: &Content, range: Range<u64>, patience: Patience) -> Result<Bytes, Refusal> {
        match patience {
            Patience::Now => self.state().at_once += 1,
            Patience::Here => self.state().ahead += 1,
            _ => self.state().reads += 1,
        }
        let state = self.gate(|state| state.contents, patience)?;
        let mut out = BytesMut::new();
        for (start, extent) in extents(content) {
            let (from, to) = (range.start.max(start), range.end.min(start + extent.len()));
            if from >= to {
                continue;
            }
            match extent {
                Extent::Hole { .. } => out.resize(out.len() + (to - from) as usize, 0),
                Extent::Data { id, .. } => {
                    let chunk = state.chunks.get(&id).ok_or(StoreError::NotFound { what: id.hex() })?;
                    out.extend_from_slice(&chunk[(from - start) as usize..(to - start) as usize]);
                }
            }
        }
        Ok(out.freeze())
    }

    fn stretch(&self, content: &Content, at: u64, patience: Patience) -> Result<Range<u64>, Refusal> {
        let _state = self.gate(|state| state.contents, patience)?;
        let found = extents(content).into_iter().rfind(|(start, _)| *start <= at);
        Ok(match found {
            Some((start, Extent::Data { len, .. })) => start..start + u64::from(len),
            _ => at..at + 1,
        })
    }

    fn seek(
        &self,
        content: &Content,
        offset: u64,
        seek: Seek,
        patience: Patience,
    ) -> Result<Option<u64>, Refusal> {
        let _state = self.gate(|state| state.contents, patience)?;
        let wanted = |extent: &Extent| matches!(extent, Extent::Hole { .. }) == (seek == Seek::Hole);
        let found = extents(content).into_iter().find(|(at, e)| at + e.len() > offset && wanted(e));
        Ok(found.map(|(at, _)| at.max(offset)))
    }

    fn stored(&self, content: &Content, _size: u64, _patience: Patience) -> Result<Stored, Refusal> {
        let data = extents(content).into_iter().filter(|(_, extent)| matches!(extent, Extent::Data { .. }));
        Ok(Stored { bytes: data.map(|(_, extent)| extent.len()).sum(), lasts: true })
    }

    fn verified(&self, content: &Content, _patience: Patience) -> Result<Option<Timestamp>, Refusal> {
        let any = extents(content).iter().any(|(_, extent)| matches!(extent, Extent::Data { .. }));
        Ok(any.then_some(Timestamp::from_seconds(1_700_000_000)))
    }

    fn tier(&self, content: &Content, _patience: Patience) -> Result<Option<Tier>, Refusal> {
        let any = extents(content).iter().any(|(_, extent)| matches!(extent, Extent::Data { .. }));
        Ok(any.then_some(Tier::Memory))
    }
}

/// Whether there is patience for what is answered like that.
fn is_patient(behaviour: Behaviour, patience: Patience) -> bool {
    match patience {
        Patience::Now | Patience::Here => false,
        Patience::Local(_) => behaviour == Behaviour::Cold(Reach::Local),
        Patience::Of(..) | Patience::Until(_) => true,
    }
}

fn is_given_up(patience: Patience) -> bool {
    matches!(patience, Patience::Until(deadline) if deadline.is_given_up())
}

/// Extents with the offsets at which they begin.
fn extents(content: &Content) -> Vec<(u64, Extent)> {
    let Content::Inline(extents) = content else { return Vec::new() };
    let starts = extents.iter().scan(0, |at, extent| {
        let start = *at;
        *at += extent.len();
        Some((start, *extent))
    });
    starts.collect()
}

fn chunk_id(bytes: &[u8]) -> ChunkId {
    ChunkId(*blake3::hash(bytes).as_bytes())
}
