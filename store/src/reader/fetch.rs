//! Ranges of packs from vaults, by way of the local cache: on a grid, joined where they touch, and further ahead the
//! longer somebody reads on.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;

use super::ReaderParts;
use crate::cache::{BlockCache, GRID};
use crate::catalog::{Catalog, PackRow, VaultNo};
use crate::clock::{Clock, Deadline};
use crate::error::StoreError;
use crate::id::PackId;
use crate::pack::PackEntry;
use crate::transfer::Transfer;
use crate::vault::ObjectName;

/// Read-ahead within a pack doubles up to this many blocks while reading goes on where it ended.
const AHEAD_MAX: u32 = 16;
/// Packs whose last read is remembered.
const TRAILS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// A vault that did not answer is asked after the others for so long.
const AWAY_FOR: Duration = Duration::from_secs(60);
/// One of several vaults that have the same bytes is not waited for longer than this before the next is asked.
const SHARE_MAX: Duration = Duration::from_secs(30);

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
    catalog: Arc<Catalog>,
    cache: Arc<BlockCache>,
    clock: Arc<dyn Clock>,
    /// Vaults that did not answer, and until when they are asked last.
    away: Mutex<HashMap<VaultNo, Deadline>>,
    trails: Mutex<LruCache<PackId, Trail>>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

fn blocks_of(range: &Range<u64>) -> Range<u32> {
    (range.start / GRID) as u32..range.end.div_ceil(GRID) as u32
}

impl Fetcher {
    pub(super) fn new(parts: &ReaderParts) -> Self {
        Self {
            vaults: parts.vaults.clone(),
            catalog: parts.catalog.clone(),
            cache: parts.cache.clone(),
            clock: parts.clock.clone(),
            away: Mutex::default(),
            trails: Mutex::new(LruCache::new(TRAILS)),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
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
        for no in self.best_first(&row.vaults) {
            match self.get_range(no, &name, 0..row.entry.len, Deadline::NEVER) {
                Ok(bytes) => return Ok(bytes),
                Err(e) => drop(first_error.get_or_insert(e)),
            }
        }
        Err(first_error.unwrap_or_else(|| StoreError::NotFound { what: format!("{name} in any vault") }))
    }

    fn transfer(&self, vault: VaultNo) -> Result<&Arc<Transfer>, StoreError> {
        let found = self.vaults.iter().find(|(no, _)| *no == vault).map(|(_, transfer)| transfer);
        found.ok_or_else(|| StoreError::NoWay { address: self.catalog.vault_address(vault) })
    }

    /// These vaults in the order in which they are to be asked: those to which there is no way, and those that did not answer
    /// a short while ago, last.
    pub(super) fn best_first(&self, vaults: &[VaultNo]) -> Vec<VaultNo> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let is_away = |no: &VaultNo| away.get(no).is_some_and(|until| !until.passed(&*self.clock));
        let mut vaults = vaults.to_vec();
        vaults.sort_by_key(|no| (!self.vaults.iter().any(|known| known.0 == *no), is_away(no)));
        vaults
    }

    /// How long the first of several vaults that have the same bytes is waited for: the others are not to be left without time.
    pub(super) fn share(&self, vaults_left: usize, deadline: Deadline) -> Deadline {
        if vaults_left < 2 {
            return deadline;
        }
        let share = deadline.left(&*self.clock).map_or(SHARE_MAX, |left| left / vaults_left as u32);
        Deadline::after(&*self.clock, share.min(SHARE_MAX))
    }

    /// Bytes of an object in a vault, noting whether the vault answers.
    fn get_range(
        &self,
        vault: VaultNo,
        name: &ObjectName,
        range: Range<u64>,
        deadline: Deadline,
    ) -> Result<Bytes, StoreError> {
        let transfer = self.transfer(vault)?;
        let got = transfer.get_range(name, range, deadline);
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match got {
            Ok(bytes) => {
                away.remove(&vault);
                self.requests.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(bytes)
            }
            Err(source) => {
                if source.is_transient() {
                    away.insert(vault, Deadline::after(&*self.clock, AWAY_FOR));
                }
                Err(StoreError::Vault { vault: transfer.address(), source })
            }
        }
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
        let range = u64::from(run.start) * GRID..(u64::from(run.end) * GRID).min(pack.len);
        let whole = self.get_range(vault, name, range, deadline)?;
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
