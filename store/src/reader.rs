//! The read engine shared by mount, restore, dump, check and drills.
//!
//! A chunk is found by the catalog; the frames it lies in are decoded once and served from memory to all who ask
//! (`frames`); their sealed bytes come from staging, else from the local cache of vault ranges, else from a vault
//! (`fetch`). A frame that does not open in one place is tried in the next (`load`), and so is a chunk that is not what its id says, of which
//! no part leaves before all of it was compared (`compared`): nothing wrong is ever returned. Whoever reads on in order finds what comes
//! next decoded already (`ahead`). What is known of places without reading them stands in `look`.

mod ahead;
mod away;
mod budget;
mod compared;
mod fetch;
mod frames;
mod load;
mod look;
mod opening;
mod pack_map;
mod places;
mod rate;
mod wanted;

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;

use crate::cache::BlockCache;
use crate::catalog::{Catalog, Location, PackNo, PackRow, VaultNo};
use crate::clock::{Clock, Deadline};
use crate::error::{ErrorClass, StoreError};
use crate::id::ChunkId;
use crate::pack::PackKind;
use crate::seal::{ChunkType, Sealer};
use crate::staging::Staging;
use crate::transfer::Transfer;
use crate::tree::ChunkSource;
use ahead::Ahead;
use budget::Need;
use compared::Compared;
pub use fetch::Brought;
use fetch::Fetcher;
use frames::{AllSpares, FrameCache};
pub use load::Limits;
pub use opening::Damaged;
use pack_map::PackMap;
use places::Places;
pub use wanted::{BlockNo, Frames, Request, Wanted};

/// Packs whose frame tables are kept: some 4 KB each.
const PACK_MAPS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Whoever waits for another thread looks at his deadline this often.
const LOOK: Duration = Duration::from_millis(200);

/// Which tier would answer for a chunk, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Decoded, in memory.
    Memory,
    /// The staging directory.
    Staging,
    /// The local cache of vault ranges.
    Cache,
    /// A vault.
    Vault,
}

/// What the reader did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderStats {
    /// Frames decoded.
    pub frames_decoded: u64,
    /// Requests to vaults.
    pub vault_requests: u64,
    /// Bytes fetched from vaults.
    pub vault_bytes: u64,
    /// Frames that one tier could not give and another could.
    pub failovers: u64,
}

#[derive(Debug, Default)]
struct Counters {
    frames_decoded: AtomicU64,
    failovers: AtomicU64,
}

/// What a reader is made of.
#[derive(Debug, Clone)]
pub struct ReaderParts {
    /// Keys.
    pub sealer: Arc<Sealer>,
    /// Where chunks lie.
    pub catalog: Arc<Catalog>,
    /// The staging directory.
    pub staging: Staging,
    /// Vaults in the order in which they are asked.
    pub vaults: Vec<(VaultNo, Arc<Transfer>)>,
    /// Ranges fetched from vaults.
    pub cache: Arc<BlockCache>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Bound of decoded frames in memory, in bytes.
    pub memory: usize,
    /// Bound of what is on its way from vaults, in bytes.
    pub in_flight: u64,
}

/// Reads chunks from whichever tier has them. All methods may be called from many threads.
#[derive(Debug)]
pub struct Reader {
    sealer: Arc<Sealer>,
    catalog: Arc<Catalog>,
    staging: Staging,
    fetcher: Fetcher,
    frames: FrameCache,
    compared: Compared,
    spares: AllSpares,
    packs: Mutex<LruCache<PackNo, Arc<PackMap>>>,
    places: Places,
    ahead: Ahead,
    /// Not where requests to vaults are to come one by one.
    reads_ahead: bool,
    clock: Arc<dyn Clock>,
    counters: Counters,
}

impl Reader {
    /// A reader over these parts.
    pub fn new(parts: ReaderParts) -> Arc<Self> {
        Arc::new_cyclic(|reader| Self {
            ahead: Ahead::new(reader.clone(), (parts.cache.limit() / 4).min(parts.in_flight / 2)),
            reads_ahead: parts.vaults.iter().all(|(_, transfer)| transfer.at_once() > 1),
            places: Places::new(),
            fetcher: Fetcher::new(&parts),
            frames: FrameCache::new(parts.memory),
            compared: Compared::new(),
            spares: AllSpares::default(),
            packs: Mutex::new(LruCache::new(PACK_MAPS)),
            sealer: parts.sealer,
            catalog: parts.catalog,
            staging: parts.staging,
            clock: parts.clock,
            counters: Counters::default(),
        })
    }

    /// Bytes `range` of a data chunk, which is compared with its id before any of them leaves. That takes all of its frames, once: later
    /// ranges take those that they touch.
    pub fn chunk_range(
        &self,
        id: &ChunkId,
        range: Range<u32>,
        limits: impl Into<Limits>,
    ) -> Result<Bytes, StoreError> {
        self.in_any_place(id, limits.into(), |location, limits| {
            if range.start > range.end {
                return Err(StoreError::invalid(format!("range {range:?} of a chunk")));
            }
            let map = self.map_of(id, location, limits)?;
            if range.end > location.len {
                // In another place it may be as long as it should be.
                let detail = format!("chunk {id} has {} bytes, and {range:?} are wanted", location.len);
                return Err(StoreError::corrupt(format!("pack {}", map.row.entry.id), detail));
            }
            match range.is_empty() {
                true => Ok(Bytes::new()),
                false => self.read_part(id, location, &map, &range, limits),
            }
        })
    }

    /// A whole chunk, verified against its id.
    pub fn chunk_within(
        &self,
        of: ChunkType,
        id: &ChunkId,
        limits: impl Into<Limits>,
    ) -> Result<Bytes, StoreError> {
        self.in_any_place(id, limits.into(), |location, limits| {
            let start = u64::from(location.start);
            let map = self.map_of(id, location, limits)?;
            let plain = self.read_raw(&map, start, start + u64::from(location.len), limits)?;
            if self.sealer.chunk_id(of, &plain) != *id {
                return Err(Self::other_content(id, &map));
            }
            Ok(plain)
        })
    }

    /// A whole chunk of a pack of `kind`, verified against its id whichever type it has.
    pub fn whole_chunk(&self, kind: PackKind, id: &ChunkId, deadline: Deadline) -> Result<Bytes, StoreError> {
        let types = kind.chunk_types();
        let mut last = None;
        for of in types {
            match self.chunk(*of, id, deadline) {
                Ok(plain) => return Ok(plain),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| self.missing(id)))
    }

    /// The same, read from this pack in staging alone: whether it is whole there.
    pub fn is_whole_in(&self, kind: PackKind, id: &ChunkId, location: &Location) -> Result<bool, StoreError> {
        let map = self.map_of(id, location, Deadline::NEVER)?;
        let (start, end) = (u64::from(location.start), u64::from(location.start) + u64::from(location.len));
        let mut raw = Vec::new();
        for n in map.frames_of(start, end) {
            let Ok(frame) = self.load_staged(&map, n) else { return Ok(false) };
            raw.extend_from_slice(&map.cut(n, &frame, start, end));
        }
        Ok(kind.chunk_types().iter().any(|of| self.sealer.chunk_id(*of, &raw) == *id))
    }

    /// All bytes of a pack from the first vault that gives them, past the cache, unverified.
    pub fn fetch_pack(&self, row: &PackRow) -> Result<Bytes, StoreError> {
        self.fetcher.fetch_whole(row)
    }

    /// A vault that did not give something showed that it is there: it is not taken for away.
    pub(crate) fn vault_answers(&self, vault: VaultNo) {
        self.fetcher.answers(vault);
    }

    /// Bound of decoded frames, in bytes.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.frames.limit()
    }

    /// What the reader did so far.
    pub fn stats(&self) -> ReaderStats {
        let (vault_requests, vault_bytes) = self.fetcher.stats();
        ReaderStats {
            frames_decoded: self.counters.frames_decoded.load(Ordering::Relaxed),
            vault_requests,
            vault_bytes,
            failovers: self.counters.failovers.load(Ordering::Relaxed),
        }
    }

    /// Tries the places of a chunk one after the other and tells of the most telling failure if all fail.
    fn in_any_place(
        &self,
        id: &ChunkId,
        limits: Limits,
        read: impl Fn(&Location, Limits) -> Result<Bytes, StoreError>,
    ) -> Result<Bytes, StoreError> {
        if limits.farthest == Tier::Memory {
            let at = self.places.get(id).ok_or_else(StoreError::not_in_memory)?;
            // What is wrong there may be right elsewhere: who may wait finds out.
            return read(&at, limits).map_err(|e| match e {
                StoreError::Corrupt { .. } => StoreError::not_in_memory(),
                e => e,
            });
        }
        let first = self.find(id)?;
        let mut error = match read(&first, limits) {
            Ok(bytes) => return Ok(bytes),
            Err(e @ (StoreError::Invalid { .. } | StoreError::Cancelled)) => return Err(e),
            Err(e) => e,
        };
        // Whoever waited in vain has no time for another vault, but for what lies on this machine.
        let limits = match error {
            StoreError::Timeout { .. } => Limits { farthest: limits.farthest.min(Tier::Cache), ..limits },
            _ => limits,
        };
        self.places.forget(id);
        let Ok(places) = self.catalog.locate_all(id) else { return Err(error) };
        // Where a pack was out of date, its place may be the right one.
        let again = error.is_of_changed_catalog();
        for other in places.iter().filter(|other| again || **other != first) {
            match read(other, limits) {
                Ok(bytes) => {
                    self.counters.failovers.fetch_add(1, Ordering::Relaxed);
                    // Who reads on does not try what is wrong once more, part by part.
                    if error.class() == ErrorClass::Corrupt {
                        self.places.put(*id, *other);
                    }
                    return Ok(bytes);
                }
                // It is not lost as long as a vault may have it that is not to be waited for now.
                Err(another @ StoreError::Timeout { .. }) if !limits.may_wait() => error = another,
                Err(another) => error = load::more_telling(Some(error), another),
            }
        }
        Err(error)
    }

    /// Decodes frames that are here, and stops at one that is not.
    fn decode_ahead(&self, no: PackNo, frames: Range<usize>) -> Result<(), StoreError> {
        let map = self.pack_map(no)?;
        let (deadline, mut last) = (ahead::patience(&*self.clock), None);
        for n in frames.clone() {
            if !map.row.staged && !self.fetcher.is_cached(&map.row.entry, &map.block_of(n)) {
                return Ok(());
            }
            // It may have gone since; whoever needs it shall not wait for that.
            self.frame(&map, n..frames.end, Limits { farthest: Tier::Cache, deadline }, &mut last)?;
        }
        // The kernel is about to have the content. Without a sealed copy beside it, it has memory at hand that is warm.
        if map.row.staged && map.row.entry.kind == PackKind::Data {
            self.staging.let_go(&map.name, map.blocks[frames.start]..map.blocks[frames.end]);
        }
        Ok(())
    }

    /// Fetches bytes of a pack that only vaults have from one of them, if the cache can keep them.
    fn fetch_ahead(&self, vault: VaultNo, no: PackNo, bytes: Range<u64>) -> Result<(), StoreError> {
        if !self.fetcher.keeps() || self.fetcher.is_away(vault) {
            return Ok(());
        }
        let map = self.pack_map(no)?;
        let deadline = ahead::patience(&*self.clock);
        self.fetcher.bring(vault, &map, bytes, Need::Ahead, deadline, &mut Brought::default())
    }

    /// Raw bytes `start..end` of a pack.
    fn read_raw(&self, map: &PackMap, start: u64, end: u64, limits: Limits) -> Result<Bytes, StoreError> {
        if start == end {
            return Ok(Bytes::new());
        }
        let frames = map.frames_of(start, end);
        if self.reads_ahead {
            self.ahead.touched(map, &frames, &self.fetcher);
        }
        let mut last = None;
        if frames.len() == 1 {
            let n = frames.start;
            return Ok(map.cut(n, &self.frame(map, frames, limits, &mut last)?.bytes, start, end));
        }
        let mut out = self.spares.joined.take();
        out.clear();
        out.reserve_exact((end - start) as usize);
        for n in frames.clone() {
            let frame = self.frame(map, n..frames.end, limits, &mut last)?;
            out.extend_from_slice(&map.cut(n, &frame.bytes, start, end));
        }
        Ok(self.spares.joined.lend(out))
    }

    /// A chunk that is in no place, as far as is known.
    fn missing(&self, id: &ChunkId) -> StoreError {
        let what = format!("chunk {id}");
        match self.staging.first_away() {
            Some(annex) => StoreError::AnnexAway { what, annex },
            None => StoreError::NotFound { what },
        }
    }
}

impl ChunkSource for Reader {
    fn chunk(&self, of: ChunkType, id: &ChunkId, deadline: Deadline) -> Result<Bytes, StoreError> {
        self.chunk_within(of, id, deadline)
    }
}
