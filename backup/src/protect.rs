//! Taking a recovery point: one walk over a data source, and what is new of it in the store.
//!
//! The walk (`scan`, on the caller's thread) tells the tree in order. What must be read goes in batches of neighbouring files to a few readers
//! (`read`), who cut, name, compress and hand over what is new, so that the files of a directory lie together in the store. One
//! thread (`assemble`) takes everything in the order of the walk again and writes the directories. Every queue is bounded: memory
//! does not depend on the size of the tree.

mod assemble;
mod batch;
mod compare;
mod read;
mod scan;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::bounded;
use holdfast_store::StoreError;
use holdfast_store::clock::Timestamp;
use holdfast_store::id::{RecoveryPointId, SourceTag};
use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::point::{
    Consistency, Counts, PagePlace, PointError, PointState, RecoveryPoint, SourceName, Witness,
};
use holdfast_store::store::{Session, Store, StoredPoint};
use holdfast_store::tree::Node;

use crate::error::SourceError;
use crate::source::{DataSource, Walked};

/// Errors listed in a point; all are counted.
const ERRORS_LISTED: usize = 10_000;
/// Bytes of their paths and reasons, of which a path alone can have a million: a point's object has room for no more.
const ERRORS_BYTES: usize = 8 << 20;
/// Entries between the walk and the assembly of directories.
const EVENTS_WAITING: usize = 4096;

/// What to protect and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Host, group and name of the source.
    pub source: SourceName,
    /// Absolute path of the source, raw bytes.
    pub path: Vec<u8>,
    /// Words of the user's.
    pub tags: Vec<String>,
    /// Read everything, also what looks unchanged.
    pub read_all: bool,
    /// How the source's files relate to each other in time.
    pub consistency: Consistency,
    /// From when on the point may expire, in seconds since 1970, if no rules are to say that.
    pub expires: Option<i64>,
    /// Threads that read and compress; 0 for as many as there are processors.
    pub readers: usize,
    /// Tool and version for the point.
    pub tool: String,
}

/// Why no point was taken.
#[derive(Debug, thiserror::Error)]
pub enum ProtectError {
    /// The source as a whole cannot be read.
    #[error("cannot read the data source: {0}")]
    Source(SourceError),
    /// The store cannot take it.
    #[error("{0}")]
    Store(StoreError),
    /// The caller asked to stop.
    #[error("interrupted; what is complete is kept and the next run goes on from there")]
    Cancelled,
}

/// A point that was taken.
#[derive(Clone, Debug)]
pub struct Protected {
    /// The point, durable in staging.
    pub stored: StoredPoint,
    /// Files read that the point before does not have.
    pub files_new: u64,
    /// Files read that the point before has otherwise.
    pub files_changed: u64,
}

/// Takes a recovery point and returns it once it is durable in staging.
pub fn protect(
    session: Session<'_>,
    source: &dyn DataSource,
    request: &Request,
    monitor: &dyn Monitor,
) -> Result<Protected, ProtectError> {
    let (store, id) = (session.store(), session.id());
    let tag = store.sealer().source_tag(&request.source.host, &request.source.group, &request.source.source);
    store.prove_numbered(&tag).map_err(ProtectError::Store)?;
    let previous = store.newest_point(&tag).map_err(ProtectError::Store)?;
    let started = store.clock().now();
    let work = Work::new(&session, request, previous.as_ref(), started, monitor);
    monitor.event(Event::Stage { name: "backup", files_total: 0, bytes_total: 0 });
    let mut taken = match work.run(source) {
        Ok(root) => work.into_taken(root),
        Err(e) => return Err(reason(session, e)),
    };
    let (files_new, files_changed) = (taken.files_new, taken.files_changed);
    let witness = witness(store, &tag).map_err(ProtectError::Store)?;
    let after = number_after(store, &tag, previous.as_ref());
    let ended = store.clock().now();
    let point = |done: &holdfast_store::chunk_store::Ingested| {
        taken.counts.bytes_new = done.bytes_new;
        taken.counts.bytes_stored = done.bytes_stored;
        let summary = summary(store, &taken.root);
        taken.into_point(request, (id, tag), after, witness, summary, ended)
    };
    let stored = session.commit(point).map_err(ProtectError::Store)?;
    Ok(Protected { stored, files_new, files_changed })
}

/// Whoever delivers to a session that has failed only learns that it has; the session knows why.
fn reason(session: Session<'_>, error: ProtectError) -> ProtectError {
    match (error, session.abandon()) {
        (ProtectError::Store(_), Some(why)) => ProtectError::Store(why),
        (error, _) => error,
    }
}

fn witness(store: &Store, tag: &SourceTag) -> Result<Vec<Witness>, StoreError> {
    let others = store.catalog().heads()?.into_iter().filter(|(other, _, _)| other != tag);
    Ok(others.map(|(source, sequence, hash)| Witness { source, sequence, hash }).collect())
}

/// Number and hash of the point after which a new one comes: the newest of the source that is known, or that was ever seen in a vault.
fn number_after(store: &Store, tag: &SourceTag, previous: Option<&StoredPoint>) -> (u64, [u8; 32]) {
    let known = previous.map_or((0, [0; 32]), |stored| (stored.point.sequence, stored.hash));
    store.newest_remembered(tag).filter(|seen| seen.0 > known.0).unwrap_or(known)
}

/// Where the root's page lies; a point is good without it.
fn summary(store: &Store, root: &Node) -> Vec<PagePlace> {
    let page = root.subtree.map(|s| store.page_place(&s.tree));
    page.and_then(Result::ok).flatten().into_iter().collect()
}

/// Counters that several threads add to.
#[derive(Debug, Default)]
struct Tally {
    files: AtomicU64,
    directories: AtomicU64,
    others: AtomicU64,
    bytes: AtomicU64,
    files_read: AtomicU64,
    bytes_read: AtomicU64,
    files_new: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// What of the source could not be read: all of it counted, as much listed as a point has room for.
#[derive(Debug, Default)]
struct Troubles {
    total: u64,
    listed: Vec<PointError>,
    listed_bytes: usize,
}

impl Troubles {
    fn add(&mut self, path: Vec<u8>, reason: &str) {
        self.total += 1;
        let reason: String = reason.chars().take(1000).collect();
        let bytes = self.listed_bytes + path.len() + reason.len();
        if self.listed.len() < ERRORS_LISTED && bytes <= ERRORS_BYTES {
            self.listed_bytes = bytes;
            self.listed.push(PointError { path, reason });
        }
    }
}

/// What all threads of one run share.
struct Work<'a> {
    session: &'a Session<'a>,
    previous: Option<&'a StoredPoint>,
    request: &'a Request,
    started: Timestamp,
    monitor: &'a dyn Monitor,
    tally: Tally,
    troubles: Mutex<Troubles>,
    failure: Mutex<Option<StoreError>>,
    failed: AtomicBool,
}

impl<'a> Work<'a> {
    fn new(
        session: &'a Session<'a>,
        request: &'a Request,
        previous: Option<&'a StoredPoint>,
        started: Timestamp,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self {
            session,
            previous,
            request,
            started,
            monitor,
            tally: Tally::default(),
            troubles: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// Walks, reads and assembles; the root when all of it is in the session.
    fn run(&self, source: &dyn DataSource) -> Result<Node, ProtectError> {
        let readers = match self.request.readers {
            0 => std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 16),
            n => n,
        };
        let (events, to_assemble) = bounded(EVENTS_WAITING / scan::STEPS);
        let (batches, to_read) = bounded(readers);
        let (walked, root) = std::thread::scope(|scope| {
            for _ in 0..readers {
                let to_read = to_read.clone();
                scope.spawn(move || self.noting(read::read_batches(self, &to_read)));
            }
            drop(to_read);
            let assembler = scope.spawn(move || self.noting(assemble::assemble(self, &to_assemble)));
            let mut scanner = scan::Scanner::new(self, events, batches);
            let walked = source.walk(&mut scanner);
            scanner.finish();
            (walked, assembler.join().ok().flatten().flatten())
        });
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(e) = failure {
            return Err(if matches!(e, StoreError::Cancelled) {
                ProtectError::Cancelled
            } else {
                ProtectError::Store(e)
            });
        }
        match walked.map_err(ProtectError::Source)? {
            Walked::Stopped => Err(ProtectError::Cancelled),
            Walked::Whole if self.monitor.cancelled() => Err(ProtectError::Cancelled),
            Walked::Whole => {
                let lost = || StoreError::invalid("a thread of the backup panicked; see the log");
                root.ok_or_else(|| ProtectError::Store(lost()))
            }
        }
    }

    /// Keeps the first error of the store and lets all threads stop.
    fn noting<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        result
            .map_err(|e| {
                self.failed.store(true, Ordering::SeqCst);
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            })
            .ok()
    }

    fn stopping(&self) -> bool {
        self.failed.load(Ordering::SeqCst) || self.monitor.cancelled()
    }

    /// Something of the source could not be read: the point is partial and names it.
    fn trouble(&self, path: Vec<u8>, reason: String) {
        self.monitor.event(Event::Problem { path: path.clone(), reason: reason.clone() });
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).add(path, &reason);
    }

    fn into_taken(self, root: Node) -> Taken {
        let troubles = self.troubles.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (errors_total, mut errors) = (troubles.total, troubles.listed);
        errors.sort_by(|a, b| a.path.cmp(&b.path));
        let counts = Counts {
            files: self.tally.files.into_inner(),
            directories: self.tally.directories.into_inner(),
            others: self.tally.others.into_inner(),
            bytes: self.tally.bytes.into_inner(),
            files_read: self.tally.files_read.into_inner(),
            bytes_read: self.tally.bytes_read.into_inner(),
            ..Counts::default()
        };
        let files_new = self.tally.files_new.into_inner();
        let files_changed = counts.files_read.saturating_sub(files_new);
        Taken { root, counts, errors_total, errors, files_new, files_changed, started: self.started }
    }
}

/// What a run found.
struct Taken {
    root: Node,
    counts: Counts,
    errors_total: u64,
    errors: Vec<PointError>,
    files_new: u64,
    files_changed: u64,
    started: Timestamp,
}

impl Taken {
    fn into_point(
        self,
        request: &Request,
        (id, tag): (RecoveryPointId, SourceTag),
        (sequence, previous): (u64, [u8; 32]),
        witness: Vec<Witness>,
        summary: Vec<PagePlace>,
        ended: Timestamp,
    ) -> RecoveryPoint {
        let mut point = RecoveryPoint {
            id,
            source_tag: tag,
            source: request.source.clone(),
            path: request.path.clone(),
            sequence: sequence.saturating_add(1),
            previous,
            started: self.started,
            ended,
            state: if self.errors_total == 0 { PointState::Complete } else { PointState::Partial },
            consistency: request.consistency,
            root: self.root,
            counts: self.counts,
            summary,
            packs: Vec::new(),
            errors_total: self.errors_total,
            errors: self.errors,
            witness,
            tags: request.tags.clone(),
            writer: Vec::new(),
            tool: request.tool.clone(),
            extensions: Vec::new(),
            signature: Vec::new(),
        };
        if let Some(seconds) = request.expires {
            point.set_expires(seconds);
        }
        point
    }
}

/// Shared by the files of one batch and whoever waits for them.
type SharedBatch = Arc<batch::Batch>;
