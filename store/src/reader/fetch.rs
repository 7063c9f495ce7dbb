//! Ranges of packs from vaults, by way of the local cache: on a grid, joined where they touch, each fetched by one
//! thread while the others that want it wait.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::cache::{BlockCache, GRID};
use crate::catalog::{PackRow, VaultNo};
use crate::clock::{Clock, Deadline};
use crate::error::StoreError;
use crate::id::PackId;
use crate::pack::PackEntry;
use crate::transfer::Transfer;
use crate::vault::ObjectName;

/// A waiting reader looks at its deadline this often.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Fetcher {
    vaults: Vec<(VaultNo, Arc<Transfer>)>,
    cache: Arc<BlockCache>,
    clock: Arc<dyn Clock>,
    /// Blocks on their way.
    flying: Mutex<HashSet<(PackId, u32)>>,
    landed: Condvar,
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// Blocks that this thread fetches; nobody else does until it is dropped.
pub(super) struct Flight<'a> {
    fetcher: &'a Fetcher,
    pack: PackId,
    blocks: Range<u32>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flying = self.fetcher.flying();
        flying.retain(|(pack, n)| *pack != self.pack || !self.blocks.contains(n));
        self.fetcher.landed.notify_all();
    }
}

fn blocks_of(range: &Range<u64>) -> Range<u32> {
    (range.start / GRID) as u32..range.end.div_ceil(GRID) as u32
}

impl Fetcher {
    pub(super) fn new(
        vaults: Vec<(VaultNo, Arc<Transfer>)>,
        cache: Arc<BlockCache>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (flying, landed) = (Mutex::default(), Condvar::new());
        let (requests, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { vaults, cache, clock, flying, landed, requests, bytes }
    }

    fn flying(&self) -> MutexGuard<'_, HashSet<(PackId, u32)>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests and bytes so far.
    pub(super) fn stats(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Most bytes that the cache may hold, and how many it does.
    pub(super) fn cache_room(&self) -> (u64, u64) {
        (self.cache.limit(), self.cache.bytes())
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

    /// Bytes `range` of a pack, and whether they had to be waited for.
    pub(super) fn fetch(
        &self,
        vault: VaultNo,
        name: &ObjectName,
        pack: &PackEntry,
        range: Range<u64>,
        deadline: Deadline,
    ) -> Result<(Vec<u8>, bool), StoreError> {
        let wanted = blocks_of(&range);
        let mut blocks: Vec<Option<Bytes>> = vec![None; wanted.len()];
        let mut waited = false;
        while let Some(first) = self.take_cached(pack, &wanted, &mut blocks) {
            waited = true;
            let Some(flight) = self.claim(pack, first..wanted.end, deadline)? else { continue };
            let run = flight.blocks.clone();
            for (n, bytes) in run.clone().zip(self.fetch_blocks(vault, name, pack, run, deadline)?) {
                if let Some(i) = n.checked_sub(wanted.start)
                    && let Some(block) = blocks.get_mut(i as usize)
                {
                    *block = Some(bytes);
                }
            }
        }
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        for (n, block) in wanted.zip(blocks.into_iter().flatten()) {
            let at = u64::from(n) * GRID;
            let from = range.start.saturating_sub(at) as usize;
            let to = (range.end - at).min(block.len() as u64) as usize;
            out.extend_from_slice(block.get(from..to).unwrap_or_default());
        }
        if out.len() as u64 != range.end - range.start {
            return Err(StoreError::corrupt(name.as_str(), "it is shorter than it should be"));
        }
        Ok((out, waited))
    }

    /// Brings blocks into the cache that are neither there nor on their way.
    pub(super) fn fetch_ahead(
        &self,
        vault: VaultNo,
        name: &ObjectName,
        pack: &PackEntry,
        bytes: Range<u64>,
    ) -> Result<(), StoreError> {
        let mut wanted = blocks_of(&bytes);
        while let Some(first) = wanted.clone().find(|n| !self.cache.has(&pack.id, *n)) {
            let flight = self.claim_free(pack, first..wanted.end);
            wanted.start = flight.as_ref().map_or(first + 1, |flight| flight.blocks.end);
            if let Some(flight) = &flight {
                self.fetch_blocks(vault, name, pack, flight.blocks.clone(), Deadline::NEVER)?;
            }
        }
        Ok(())
    }

    /// Waits until none of these bytes are on their way by another thread's doing.
    pub(super) fn settle(&self, pack: &PackEntry, bytes: &Range<u64>) {
        let mut flying = self.flying();
        while blocks_of(bytes).any(|n| flying.contains(&(pack.id, n))) {
            flying = self.landed.wait_timeout(flying, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Fills in what the cache has, and names the first block that is missing.
    fn take_cached(
        &self,
        pack: &PackEntry,
        wanted: &Range<u32>,
        blocks: &mut [Option<Bytes>],
    ) -> Option<u32> {
        for (n, block) in wanted.clone().zip(blocks.iter_mut()).filter(|(_, block)| block.is_none()) {
            *block = self.cache.get(&pack.id, n);
        }
        blocks.iter().position(Option::is_none).map(|i| wanted.start + i as u32)
    }

    /// Blocks to fetch, from the first of `must` on; nothing if another thread was fetching that, and has done.
    fn claim(
        &self,
        pack: &PackEntry,
        must: Range<u32>,
        deadline: Deadline,
    ) -> Result<Option<Flight<'_>>, StoreError> {
        let first = (pack.id, must.start);
        let mut flying = self.flying();
        if !flying.contains(&first) {
            drop(flying);
            return Ok(self.claim_free(pack, self.widen(pack, must)));
        }
        while flying.contains(&first) {
            if deadline.passed(&*self.clock) {
                return Err(StoreError::Timeout { what: format!("block {} of pack {}", first.1, pack.id) });
            }
            flying = self.landed.wait_timeout(flying, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(None)
    }

    /// The first blocks of a run up to one that is there or on its way; nothing if the very first is.
    pub(super) fn claim_free(&self, pack: &PackEntry, run: Range<u32>) -> Option<Flight<'_>> {
        let mut flying = self.flying();
        let taken = |n: &u32| flying.contains(&(pack.id, *n)) || self.cache.has(&pack.id, *n);
        let end = run.clone().find(taken).unwrap_or(run.end);
        let blocks = run.start..end;
        if blocks.is_empty() {
            return None;
        }
        flying.extend(blocks.clone().map(|n| (pack.id, n)));
        Some(Flight { fetcher: self, pack: pack.id, blocks })
    }

    /// A pack of which more than a quarter is wanted is fetched to its end.
    fn widen(&self, pack: &PackEntry, must: Range<u32>) -> Range<u32> {
        let all = pack.len.div_ceil(GRID) as u32;
        if (must.end - must.start) * 4 > all { must.start..all } else { must }
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
