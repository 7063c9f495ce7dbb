//! Ranges of packs from vaults, by way of the local cache: on a grid, joined where they touch, and further ahead the
//! longer somebody reads on.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lru::LruCache;

use crate::cache::{BlockCache, GRID};
use crate::catalog::{PackRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::PackId;
use crate::pack::PackEntry;
use crate::transfer::Transfer;
use crate::vault::ObjectName;

/// Read-ahead within a pack doubles up to this many blocks while reading goes on where it ended.
const AHEAD_MAX: u32 = 16;
/// Packs whose last read is remembered.
const TRAILS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

#[derive(Clone, Copy, Debug)]
struct Trail {
    /// Block after the last one fetched.
    next: u32,
    /// Blocks fetched ahead last time.
    ahead: u32,
}

#[derive(Debug)]
pub(super) struct Fetcher {
    vaults: Vec<(VaultNo, Arc<Transfer>)>,
    cache: Arc<BlockCache>,
    trails: Mutex<LruCache<PackId, Trail>>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

fn blocks_of(range: &Range<u64>) -> Range<u32> {
    (range.start / GRID) as u32..range.end.div_ceil(GRID) as u32
}

impl Fetcher {
    pub(super) fn new(vaults: Vec<(VaultNo, Arc<Transfer>)>, cache: Arc<BlockCache>) -> Self {
        let trails = Mutex::new(LruCache::new(TRAILS));
        Self { vaults, cache, trails, requests: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Requests and bytes so far.
    pub(super) fn stats(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    pub(super) fn is_cached(&self, pack: &PackEntry, range: &Range<u64>) -> bool {
        blocks_of(range).all(|n| self.cache.has(&pack.id, n))
    }

    /// Drops the cached blocks of a range that proved wrong.
    pub(super) fn forget(&self, pack: &PackEntry, range: &Range<u64>) {
        for n in blocks_of(range) {
            self.cache.remove(&pack.id, n);
        }
    }

    /// Bytes `range` of a pack.
    pub(super) fn fetch(
        &self,
        vault: VaultNo,
        name: &ObjectName,
        pack: &PackEntry,
        range: Range<u64>,
        deadline: Deadline,
    ) -> Result<Vec<u8>, StoreError> {
        let wanted = blocks_of(&range);
        let mut blocks: Vec<Option<Bytes>> = wanted.clone().map(|n| self.cache.get(&pack.id, n)).collect();
        let first_missing = blocks.iter().position(Option::is_none).map(|i| wanted.start + i as u32);
        if let Some(first) = first_missing {
            let run = self.plan(pack, first..wanted.end);
            let fetched = self.fetch_blocks(vault, name, pack, run.clone(), deadline)?;
            for (n, bytes) in run.zip(fetched) {
                if wanted.contains(&n) {
                    blocks[(n - wanted.start) as usize] = Some(bytes);
                }
            }
        }
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        for (n, block) in wanted.zip(blocks) {
            let block = block.ok_or_else(|| StoreError::NotFound { what: format!("block {n} of {name}") })?;
            let at = u64::from(n) * GRID;
            let from = range.start.saturating_sub(at) as usize;
            let to = (range.end - at).min(block.len() as u64) as usize;
            out.extend_from_slice(block.get(from..to).unwrap_or_default());
        }
        if out.len() as u64 != range.end - range.start {
            return Err(StoreError::corrupt(name.as_str(), "it is shorter than it should be"));
        }
        Ok(out)
    }

    /// A whole pack, past the cache.
    pub(super) fn fetch_whole(&self, row: &PackRow) -> Result<Bytes, StoreError> {
        let name = crate::names::pack(&row.entry.id);
        let mut first_error = None;
        for no in &row.vaults {
            let transfer = self.transfer(*no)?;
            match transfer.get_range(&name, 0..row.entry.len, Deadline::NEVER) {
                Ok(bytes) => {
                    self.requests.fetch_add(1, Ordering::Relaxed);
                    self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    return Ok(bytes);
                }
                Err(source) => {
                    first_error.get_or_insert(StoreError::Vault { vault: transfer.address(), source });
                }
            }
        }
        Err(first_error.unwrap_or_else(|| StoreError::NotFound { what: format!("{name} in any vault") }))
    }

    fn transfer(&self, vault: VaultNo) -> Result<&Arc<Transfer>, StoreError> {
        let found = self.vaults.iter().find(|(no, _)| *no == vault).map(|(_, transfer)| transfer);
        found.ok_or_else(|| StoreError::NotFound { what: format!("a way to vault number {}", vault.0) })
    }

    /// Widens what must be fetched by read-ahead, or to the whole pack where it is more than a quarter of it.
    fn plan(&self, pack: &PackEntry, must: Range<u32>) -> Range<u32> {
        let all = pack.len.div_ceil(GRID) as u32;
        let mut trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = match trails.get(&pack.id) {
            Some(trail) if trail.next == must.start => (trail.ahead * 2).clamp(1, AHEAD_MAX),
            _ => 0,
        };
        let mut run = must.start..(must.end + ahead).min(all);
        if (run.end - run.start) * 4 > all {
            run = 0..all;
        }
        // What is cached already is not fetched again; the run ends before it.
        let end = (must.end..run.end).find(|n| self.cache.has(&pack.id, *n)).unwrap_or(run.end);
        let start =
            (run.start..must.start).rev().find(|n| self.cache.has(&pack.id, *n)).map_or(run.start, |n| n + 1);
        trails.put(pack.id, Trail { next: end, ahead });
        start..end
    }

    fn fetch_blocks(
        &self,
        vault: VaultNo,
        name: &ObjectName,
        pack: &PackEntry,
        run: Range<u32>,
        deadline: Deadline,
    ) -> Result<Vec<Bytes>, StoreError> {
        let transfer = self.transfer(vault)?;
        let range = u64::from(run.start) * GRID..(u64::from(run.end) * GRID).min(pack.len);
        let whole = transfer
            .get_range(name, range.clone(), deadline)
            .map_err(|source| StoreError::Vault { vault: transfer.address(), source })?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(whole.len() as u64, Ordering::Relaxed);
        let mut blocks = Vec::with_capacity(run.len());
        for (i, n) in run.enumerate() {
            let from = i * GRID as usize;
            let block = whole.slice(from.min(whole.len())..(from + GRID as usize).min(whole.len()));
            self.cache.put(&pack.id, n, &block);
            blocks.push(block);
        }
        Ok(blocks)
    }
}
