//! How new chunks become packs: many threads compress, one seals and one proves and writes.
//!
//! A chunk is new if the catalog does not know it in a pack that this session has seen whole (`Store::begin` compares
//! with listings of staging and of the vaults first) and nobody in this session has claimed it. Whoever claims a chunk must deliver it. A finished pack is opened
//! again, decoded and hashed before it is written: memory and compressors do fail in the field (restic's issues 4523 and
//! 4529), and a defect found now costs a retry instead of a restore. After every error the session is over and nothing
//! of it counts but the packs that are complete.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::catalog::{Catalog, PackNo, PackRow, Relied, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{ChunkId, PackId};
use crate::index::Index;
use crate::names;
use crate::pack::{self, FinishedPack, FrameBuilder, FrameGroup, PackFiller, PackKind};
use crate::reader::Reader;
use crate::seal::{ChunkType, Compression, Sealer};
use crate::staging::Staging;
use crate::tree::ChunkSink;
use crate::vault::ObjectName;

#[cfg(test)]
mod tests;

/// Groups that may wait for the packer: enough to keep it busy, little enough to be forgotten in the memory bound.
const GROUPS_WAITING: usize = 4;
/// Content collected before it is handed to the packer.
pub const GROUP_LEN: u64 = 1 << 20;
/// How hard to compress what is written anew.
pub(crate) const REWRITTEN: Compression = Compression::Zstd(3);
/// Packs per index object: each is held in memory when it is written and when it is read.
pub(crate) const PACKS_PER_INDEX: usize = 256;

/// What an ingest needs of a store.
#[derive(Clone, Debug)]
pub struct IngestParts {
    /// Keys.
    pub sealer: Arc<Sealer>,
    /// Where packs are recorded.
    pub catalog: Arc<Catalog>,
    /// Where they are written.
    pub staging: Staging,
    /// Length at which a pack is closed.
    pub pack_len: usize,
    /// Length of a frame's content.
    pub frame_len: usize,
    /// How hard to compress.
    pub compression: Compression,
    /// On what new points may rely beside staging, which always counts.
    pub relied: Relied,
}

/// What came of an ingest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// New packs in the order of their completion.
    pub packs: Vec<PackId>,
    /// Bytes of new chunks before compression.
    pub bytes_new: u64,
    /// Bytes of the new packs.
    pub bytes_stored: u64,
}

/// A session that adds chunks. Shared by the threads that cut and compress. Dropping it ends it as `finish` does: what was
/// delivered is kept, so that an interrupted run need not be done again.
#[derive(Debug)]
pub struct Ingest {
    parts: IngestParts,
    claimed: Arc<Mutex<HashSet<ChunkId>>>,
    groups: Option<Sender<(PackKind, FrameGroup)>>,
    threads: Option<Threads>,
    failure: Arc<Mutex<Option<String>>>,
    bytes_new: AtomicU64,
}

#[derive(Debug)]
struct Threads {
    packer: JoinHandle<Result<(), StoreError>>,
    finisher: JoinHandle<Result<Ingested, StoreError>>,
}

impl Ingest {
    /// Begins; threads for packing and for writing start at once.
    pub fn begin(parts: IngestParts) -> Self {
        let (groups, incoming) = bounded(GROUPS_WAITING);
        // A rendezvous: at most one pack is being written while the next is filled.
        let (finished, to_write) = bounded(0);
        let claimed: Arc<Mutex<HashSet<ChunkId>>> = Arc::default();
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let packer = {
            let (parts, failure) = (parts.clone(), failure.clone());
            std::thread::spawn(move || noting(&failure, pack_groups(&parts, &incoming, &finished)))
        };
        let finisher = {
            let (parts, claimed, failure) = (parts.clone(), claimed.clone(), failure.clone());
            std::thread::spawn(move || noting(&failure, write_packs(&parts, &claimed, &to_write)))
        };
        let (groups, threads) = (Some(groups), Some(Threads { packer, finisher }));
        Self { parts, claimed, groups, threads, failure, bytes_new: AtomicU64::new(0) }
    }

    /// Names a chunk.
    pub fn name(&self, of: ChunkType, plain: &[u8]) -> ChunkId {
        self.parts.sealer.chunk_id(of, plain)
    }

    /// Whether the store has the chunk, from before or by this session.
    pub fn has(&self, id: &ChunkId) -> Result<bool, StoreError> {
        Ok(self.lock_claimed().contains(id) || self.is_stored(id)?)
    }

    /// `true` if the chunk is new: the caller must deliver it.
    pub fn claim(&self, id: &ChunkId) -> Result<bool, StoreError> {
        if !self.lock_claimed().insert(*id) {
            return Ok(false);
        }
        // The order matters: a claim is given up only after the catalog knows the chunk.
        if self.is_stored(id)? {
            self.lock_claimed().remove(id);
            return Ok(false);
        }
        Ok(true)
    }

    fn is_stored(&self, id: &ChunkId) -> Result<bool, StoreError> {
        self.parts.catalog.is_in(id, &self.parts.relied)
    }

    /// An empty builder of frames as this store wants them.
    pub fn frames(&self) -> FrameBuilder {
        FrameBuilder::new(self.parts.frame_len, self.parts.compression)
    }

    /// Hands over claimed chunks; waits while the packer is behind.
    pub fn deliver(&self, kind: PackKind, group: FrameGroup) -> Result<(), StoreError> {
        if group.chunks.is_empty() {
            return Ok(());
        }
        self.bytes_new.fetch_add(group.raw_len(), Ordering::Relaxed);
        let sent = self.groups.as_ref().map(|groups| groups.send((kind, group)));
        sent.and_then(Result::ok).ok_or_else(|| self.failed())
    }

    fn failed(&self) -> StoreError {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StoreError::Ended { detail: failure.unwrap_or_else(|| "it was finished".into()) }
    }

    fn lock_claimed(&self) -> std::sync::MutexGuard<'_, HashSet<ChunkId>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything delivered is durable and indexed. The first error of any stage is told.
    pub fn finish(mut self) -> Result<Ingested, StoreError> {
        self.join()
    }

    fn join(&mut self) -> Result<Ingested, StoreError> {
        self.groups = None;
        let Some(Threads { packer, finisher }) = self.threads.take() else { return Ok(Ingested::default()) };
        let packed = packer.join().unwrap_or_else(|_| Err(panicked()));
        let written = finisher.join().unwrap_or_else(|_| Err(panicked()));
        // When writing fails the packer only sees a closed channel: the writer knows why.
        let done = match (packed, written) {
            (_, Err(e)) | (Err(e), Ok(_)) => return Err(e),
            (Ok(()), Ok(done)) => done,
        };
        Ok(Ingested { bytes_new: self.bytes_new.load(Ordering::Relaxed), ..done })
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Whoever wanted to know called `finish`.
        let _ = self.join();
    }
}

fn panicked() -> StoreError {
    StoreError::invalid("a thread of the session panicked; see the log")
}

fn noting<T>(failure: &Mutex<Option<String>>, result: Result<T, StoreError>) -> Result<T, StoreError> {
    if let Err(e) = &result {
        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| e.to_string());
    }
    result
}

fn pack_groups(
    parts: &IngestParts,
    incoming: &Receiver<(PackKind, FrameGroup)>,
    finished: &Sender<FinishedPack>,
) -> Result<(), StoreError> {
    let mut send = |pack: FinishedPack| {
        finished.send(pack).map_err(|_| StoreError::Ended { detail: "the pack writer has ended".into() })
    };
    let [mut data, mut tree] =
        [PackKind::Data, PackKind::Tree].map(|kind| PackFiller::new(&parts.sealer, kind, parts.pack_len));
    for (kind, group) in incoming {
        let filler = if kind == PackKind::Data { &mut data } else { &mut tree };
        filler.push(group, &mut send)?;
    }
    data.finish(&mut send)?;
    tree.finish(&mut send)
}

fn write_packs(
    parts: &IngestParts,
    claimed: &Mutex<HashSet<ChunkId>>,
    to_write: &Receiver<FinishedPack>,
) -> Result<Ingested, StoreError> {
    let mut done = Ingested::default();
    let mut index = Index::default();
    for pack in to_write {
        let id = pack.entry.id;
        pack::verify(&parts.sealer, id, &pack.bytes).map_err(|e| e.of(format!("pack {id}, just made")))?;
        if let Some(annex) = parts.staging.put_somewhere(&names::pack(&id), &pack.bytes)? {
            parts.catalog.add_to_annex(&annex, &id, pack.entry.len)?;
        }
        parts.catalog.add_packs(&[(&pack.entry, &pack.chunks)], true, None)?;
        let mut claimed = claimed.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in &pack.chunks {
            claimed.remove(&chunk.id);
        }
        drop(claimed);
        done.packs.push(id);
        done.bytes_stored += pack.entry.len;
        index.add(pack.entry, &pack.chunks);
        if index.packs.len() == PACKS_PER_INDEX {
            write_index(parts, std::mem::take(&mut index))?;
        }
    }
    if !index.packs.is_empty() {
        write_index(parts, index)?;
    }
    Ok(done)
}

fn write_index(parts: &IngestParts, index: Index) -> Result<(), StoreError> {
    write_index_to(&parts.sealer, &parts.catalog, index, None, |name, bytes| parts.staging.put(name, &bytes))
}

/// Makes an index object durable by `put` and then known, as one of `vault` if one is given.
pub fn write_index_to(
    sealer: &Sealer,
    catalog: &Catalog,
    index: Index,
    vault: Option<VaultNo>,
    put: impl FnOnce(&ObjectName, Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let packs: Vec<PackId> = index.packs.iter().map(|p| p.id).collect();
    let (id, bytes) = index.seal(sealer);
    put(&names::index(&id), bytes)?;
    catalog.add_index(&id, &packs, vault)
}

/// What came of packs that were to be written anew.
#[derive(Debug, Default)]
pub struct Rewritten {
    /// Bytes of the new packs.
    pub bytes: u64,
    /// Packs of which something that is needed cannot be read anywhere, with the first reason.
    pub unreadable: Vec<(PackNo, PackId, StoreError)>,
}

/// Copies the live chunks of thin packs into new ones, which are durable when this returns. What another pack that stays in
/// staging has whole, which is proven by reading it, is not copied. Each chunk has a deadline of its own: what vaults do not give `by` then cannot be read.
pub fn rewrite_packs(
    parts: &IngestParts,
    reader: &Reader,
    kind: PackKind,
    thin: &[&PackRow],
    live: &HashSet<ChunkId>,
    by: &dyn Fn() -> Deadline,
) -> Result<Rewritten, StoreError> {
    let ingest = Ingest::begin(parts.clone());
    let mut frames = ingest.frames();
    let (mut moved, mut unreadable) = (HashSet::new(), Vec::new());
    let stay = Stay { catalog: &parts.catalog, bad: parts.catalog.bad_packs()?, thin };
    for row in thin {
        let mut failure = None;
        for chunk in parts.catalog.chunks_of(row.no)? {
            if !live.contains(&chunk.id) || moved.contains(&chunk.id) || stay.has(reader, kind, &chunk.id)? {
                continue;
            }
            match reader.whole_chunk(kind, &chunk.id, by()) {
                Ok(plain) => frames.push(chunk.id, &plain),
                Err(e @ (StoreError::Cancelled | StoreError::Catalog { .. })) => return Err(e),
                Err(e) => {
                    // It stays as it is, with whatever else is in it.
                    failure = Some(e);
                    break;
                }
            }
            moved.insert(chunk.id);
            if frames.raw_len() >= GROUP_LEN {
                ingest.deliver(kind, frames.take())?;
            }
        }
        unreadable.extend(failure.map(|e| (row.no, row.entry.id, e)));
    }
    ingest.deliver(kind, frames.take())?;
    Ok(Rewritten { bytes: ingest.finish()?.bytes_stored, unreadable })
}

/// Packs in staging that are not written anew.
struct Stay<'a> {
    catalog: &'a Catalog,
    bad: HashSet<PackNo>,
    thin: &'a [&'a PackRow],
}

impl Stay<'_> {
    fn has(&self, reader: &Reader, kind: PackKind, id: &ChunkId) -> Result<bool, StoreError> {
        for location in self.catalog.locate_all(id)? {
            let no = location.pack;
            let goes = self.bad.contains(&no) || self.thin.iter().any(|row| row.no == no);
            let stays = !goes && self.catalog.pack(no)?.is_some_and(|row| row.staged);
            if stays && reader.is_whole_in(kind, id, &location)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Puts tree pages and content lists into an ingest.
#[derive(Debug)]
pub struct TreeSink<'a> {
    ingest: &'a Ingest,
    frames: FrameBuilder,
}

impl<'a> TreeSink<'a> {
    /// A sink of its own for one thread.
    pub fn new(ingest: &'a Ingest) -> Self {
        Self { ingest, frames: ingest.frames() }
    }

    /// Hands over what is left; without it nothing is durable.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.ingest.deliver(PackKind::Tree, self.frames.take())
    }
}

impl ChunkSink for TreeSink<'_> {
    fn put(&mut self, of: ChunkType, plain: &[u8]) -> Result<ChunkId, StoreError> {
        let id = self.ingest.name(of, plain);
        if self.ingest.claim(&id)? {
            self.frames.push(id, plain);
            if self.frames.raw_len() >= GROUP_LEN {
                self.ingest.deliver(PackKind::Tree, self.frames.take())?;
            }
        }
        Ok(id)
    }
}
