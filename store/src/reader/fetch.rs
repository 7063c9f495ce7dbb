//! Ranges of packs from vaults, by way of the local cache: on a grid, joined where they touch, each fetched by one
//! thread while the others that want it wait.
//!
//! Whoever has a deadline waits for others for half of his time, however many blocks he wants. Then he takes what they had under
//! way for lost, to all who come after him, and asks himself: their connection may be dead. What somebody asked for anew a short
//! while ago is left a quarter of his time first: of many who waited for one dead request, one makes another. Who waits for another's
//! request joins those for whom it is made, so that it goes on when the other one is told to stop.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::away::AwayVaults;
use super::budget::{Budget, Need, Room};
use super::load::more_telling;
use super::{LOOK, PackMap, ReaderParts, ahead};
use crate::cache::{BlockCache, GRID};
use crate::catalog::{Catalog, PackRow, VaultNo};
use crate::clock::{Clock, Deadline};
use crate::error::StoreError;
use crate::id::PackId;
use crate::pack::{PackEntry, PackKind};
use crate::transfer::Transfer;
use crate::vault::ObjectName;

/// One of several vaults that have the same bytes is not waited for longer than this before the next is asked.
const SHARE_MAX: Duration = Duration::from_secs(30);

/// A block of a pack in a vault.
type Block = (VaultNo, PackId, u32);

/// A block of the cache that was read last, by its number.
pub(super) type Last = Option<(u32, Bytes)>;

/// With which flight a block is on its way.
#[derive(Clone, Copy, Debug)]
struct Aboard {
    flight: u64,
    /// When it began, on the monotonic clock.
    begun: Duration,
    /// That of the flight's request.
    deadline: Deadline,
}

#[derive(Debug)]
pub(super) struct Fetcher {
    vaults: Vec<(VaultNo, Arc<Transfer>)>,
    catalog: Arc<Catalog>,
    cache: Arc<BlockCache>,
    clock: Arc<dyn Clock>,
    budget: Arc<Budget>,
    away: AwayVaults,
    flying: Mutex<HashMap<Block, Aboard>>,
    flights: AtomicU64,
    landed: Condvar,
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// What came from vaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Requests that were answered.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Brought {
    fn add_assign(&mut self, more: Self) {
        self.requests += more.requests;
        self.bytes += more.bytes;
    }
}

/// Blocks that this thread fetches; nobody else does until it is dropped, or taken for lost.
pub(super) struct Flight<'a> {
    fetcher: &'a Fetcher,
    number: u64,
    blocks: Range<u32>,
}

impl Flight<'_> {
    /// Leaves the blocks from this one on to others.
    fn end_at(&mut self, end: u32) {
        self.blocks.end = end;
        self.fetcher.flying().retain(|(_, _, n), aboard| aboard.flight != self.number || *n < end);
        self.fetcher.landed.notify_all();
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.fetcher.flying().retain(|_, aboard| aboard.flight != self.number);
        self.fetcher.landed.notify_all();
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.cache.close(&|| self.is_cancelled());
    }
}

/// Blocks of the grid that bytes of a pack touch.
pub(super) fn blocks_of(range: &Range<u64>) -> Range<u32> {
    (range.start / GRID) as u32..range.end.div_ceil(GRID) as u32
}

/// Bytes of these blocks, at most.
fn len_of(blocks: &Range<u32>) -> u64 {
    u64::from(blocks.end - blocks.start) * GRID
}

/// Bytes `range` of a pack out of the blocks that it touches, in order.
fn joined(range: &Range<u64>, blocks: impl Iterator<Item = Bytes>) -> Vec<u8> {
    let mut out = Vec::with_capacity((range.end - range.start) as usize);
    for (n, block) in blocks_of(range).zip(blocks) {
        let at = u64::from(n) * GRID;
        let from = range.start.saturating_sub(at) as usize;
        let to = (range.end - at).min(block.len() as u64) as usize;
        out.extend_from_slice(block.get(from..to).unwrap_or_default());
    }
    out
}

impl Fetcher {
    pub(super) fn new(parts: &ReaderParts) -> Self {
        Self {
            vaults: parts.vaults.clone(),
            catalog: parts.catalog.clone(),
            cache: parts.cache.clone(),
            clock: parts.clock.clone(),
            budget: Budget::new(parts.in_flight, parts.vaults.len(), parts.clock.clone()),
            away: AwayVaults::new(parts.clock.clone()),
            flying: Mutex::default(),
            flights: AtomicU64::new(0),
            landed: Condvar::new(),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    fn flying(&self) -> MutexGuard<'_, HashMap<Block, Aboard>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody asked to stop.
    pub(super) fn is_cancelled(&self) -> bool {
        self.vaults.iter().any(|(_, transfer)| transfer.is_cancelled())
    }

    #[cfg(test)]
    pub(super) fn cancel(&self) {
        self.vaults.iter().for_each(|(_, transfer)| transfer.cancel());
    }

    /// Requests and bytes so far.
    pub(super) fn stats(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    #[cfg(test)]
    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// How many blocks are under way, if nobody keeps that from being told at once.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> Option<usize> {
        self.flying.try_lock().ok().map(|flying| flying.len())
    }

    pub(super) fn cache(&self) -> &BlockCache {
        &self.cache
    }

    /// Whether what is fetched beside what somebody waits for would stay in the cache: where its disk does not keep pace it would take the room of
    /// what is waited for.
    pub(super) fn keeps(&self) -> bool {
        self.cache.is_kept() && self.cache.waiting() <= self.budget.limit() / 4
    }

    pub(super) fn is_cached(&self, pack: &PackEntry, range: &Range<u64>) -> bool {
        blocks_of(range).all(|n| self.cache.has(&pack.id, n))
    }

    /// Whether all of it is in the cache for others, too.
    pub(super) fn is_stored(&self, pack: &PackEntry, range: &Range<u64>) -> bool {
        blocks_of(range).all(|n| self.cache.is_stored(&pack.id, n))
    }

    /// Takes note that a vault gave bytes which did not open, and drops them, so that the next vault is not taken for their giver.
    pub(super) fn gave_wrong_bytes(&self, vault: VaultNo, pack: &PackEntry, range: &Range<u64>) {
        self.away.gave_wrong_bytes(vault);
        self.forget(pack, range);
    }

    /// Drops the cached blocks of a range that proved wrong.
    pub(super) fn forget(&self, pack: &PackEntry, range: &Range<u64>) {
        for n in blocks_of(range) {
            self.cache.remove(&pack.id, n);
        }
    }

    /// Bytes `range` of a pack, and whether they had to be waited for.
    ///
    /// A request goes on for `more` bytes after the range: what somebody who reads in order wants next.
    pub(super) fn fetch(
        &self,
        vault: VaultNo,
        name: &ObjectName,
        pack: &PackEntry,
        range: Range<u64>,
        more: u64,
        mut deadline: Deadline,
    ) -> Result<(Vec<u8>, bool), StoreError> {
        let need = if pack.kind == PackKind::Tree { Need::Page } else { Need::Now };
        let wanted = blocks_of(&range);
        let mut blocks: Vec<Option<Bytes>> = vec![None; wanted.len()];
        let mut waited = false;
        while let Some(first) = self.take_cached(pack, &wanted, &mut blocks) {
            waited = true;
            let run = self.widen(vault, pack, first..wanted.end, more);
            if run.is_empty() {
                break;
            }
            if self.let_other(vault, pack, first, deadline)? {
                if deadline.passed(&*self.clock) {
                    return Err(StoreError::Timeout { what: name.to_string() });
                }
                continue;
            }
            // Before it is claimed: nobody shall wait for what only waits for room itself.
            let begin = self.clock.monotonic();
            let room = self.budget.take(vault, len_of(&run), need, deadline)?;
            deadline = deadline.not_counting(&*self.clock, begin);
            let Some(flight) = self.claim_free(vault, pack, run, deadline) else { continue };
            let run = flight.blocks.clone();
            let (came, room) = self.fetch_blocks(name, pack, run.clone(), need, deadline, room)?;
            self.cache.put(&pack.id, run.start, &came, self.budget.limit() / 2, room.clone());
            for (n, at) in run.zip((0..came.len()).step_by(GRID as usize)) {
                if let Some(i) = n.checked_sub(wanted.start)
                    && let Some(block) = blocks.get_mut(i as usize)
                {
                    // Not a part of what came, which would keep all of it.
                    *block = Some(Bytes::copy_from_slice(&came[at..(at + GRID as usize).min(came.len())]));
                }
            }
        }
        let out = joined(&range, blocks.into_iter().flatten());
        if out.len() as u64 != range.end - range.start {
            return Err(StoreError::corrupt(name.as_str(), "it is shorter than it should be"));
        }
        Ok((out, waited))
    }

    /// Bytes `range` of a pack, if the cache has them all. The last block is taken from `last` if it is there, and noted: frames
    /// that follow one another share one.
    pub(super) fn cached(&self, pack: &PackEntry, range: &Range<u64>, last: &mut Last) -> Option<Vec<u8>> {
        let mut get = |n| match last {
            Some((known, block)) if *known == n => Some(block.clone()),
            _ => last.insert((n, self.cache.get(&pack.id, n)?)).1.clone().into(),
        };
        let blocks: Option<Vec<_>> = blocks_of(range).map(&mut get).collect();
        let out = joined(range, blocks?.into_iter());
        (out.len() as u64 == range.end - range.start).then_some(out)
    }

    /// Brings blocks into the cache that are neither there nor on their way, and adds up what was brought, also before a failure.
    pub(super) fn bring(
        &self,
        vault: VaultNo,
        map: &PackMap,
        bytes: Range<u64>,
        need: Need,
        deadline: Deadline,
        brought: &mut Brought,
    ) -> Result<(), StoreError> {
        let pack = &map.row.entry;
        let mut wanted = blocks_of(&bytes);
        while let Some(first) = wanted.clone().find(|n| !self.cache.has(&pack.id, *n)) {
            // Nobody shall wait for what only waits for room itself.
            let room = match self.budget.take(vault, len_of(&(first..wanted.end)), need, deadline) {
                // Others have more need of it.
                Err(StoreError::Timeout { .. }) if need == Need::Ahead => return Ok(()),
                room => room?,
            };
            let deadline = if need == Need::Ahead { ahead::patience(&*self.clock) } else { deadline };
            let flight = self.claim_free(vault, pack, first..wanted.end, deadline);
            wanted.start = flight.as_ref().map_or(first + 1, |flight| flight.blocks.end);
            if let Some(flight) = &flight {
                let (came, room) =
                    self.fetch_blocks(&map.name, pack, flight.blocks.clone(), need, deadline, room)?;
                // What was fetched for the cache alone waits for its disk however long that takes; so does whoever wants room for more.
                self.cache.put(&pack.id, flight.blocks.start, &came, u64::MAX, room);
                let bytes = came.len() as u64;
                *brought += Brought { requests: 1, bytes };
            }
        }
        Ok(())
    }

    /// Waits until none of these bytes are on their way by another thread's doing.
    pub(super) fn settle(&self, vault: VaultNo, pack: &PackEntry, bytes: &Range<u64>) {
        let mut flying = self.flying();
        while blocks_of(bytes).any(|n| flying.contains_key(&(vault, pack.id, n))) {
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

    /// Waits until another thread that has a block under way has done with it; `false` if none has.
    pub(super) fn let_other(
        &self,
        vault: VaultNo,
        pack: &PackEntry,
        block: u32,
        deadline: Deadline,
    ) -> Result<bool, StoreError> {
        let first = (vault, pack.id, block);
        let mut flying = self.flying();
        let Some(ahead) = flying.get(&first).copied() else { return Ok(false) };
        let joined = ahead.deadline.join();
        while flying.get(&first).is_some_and(|now| now.flight == ahead.flight) {
            if deadline.passed(&*self.clock) {
                return Err(StoreError::Timeout { what: crate::names::pack(&pack.id).to_string() });
            }
            if deadline.is_overdue(&*self.clock, ahead.begun) {
                flying.retain(|_, aboard| aboard.flight != ahead.flight);
                self.landed.notify_all();
                break;
            }
            flying = self.landed.wait_timeout(flying, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop((flying, joined));
        Ok(true)
    }

    /// The first blocks of a run up to one that is there or on its way; nothing if the very first is.
    pub(super) fn claim_free(
        &self,
        vault: VaultNo,
        pack: &PackEntry,
        run: Range<u32>,
        deadline: Deadline,
    ) -> Option<Flight<'_>> {
        let mut flight = self.claim(vault, pack, run, deadline)?;
        // Whoever had a block under way put it into the cache before he let go of it. So it is looked for when the blocks are claimed; and
        // without the lock, which readers of all vaults need, for a disk may hang.
        let end = flight.blocks.clone().find(|n| self.cache.has(&pack.id, *n));
        if let Some(end) = end {
            flight.end_at(end);
        }
        (!flight.blocks.is_empty()).then_some(flight)
    }

    /// The first blocks of a run up to one that is on its way; nothing if the very first is.
    fn claim(
        &self,
        vault: VaultNo,
        pack: &PackEntry,
        run: Range<u32>,
        deadline: Deadline,
    ) -> Option<Flight<'_>> {
        let mut flying = self.flying();
        let end = run.clone().find(|n| flying.contains_key(&(vault, pack.id, *n))).unwrap_or(run.end);
        let blocks = run.start..end;
        if blocks.is_empty() {
            return None;
        }
        let number = self.flights.fetch_add(1, Ordering::Relaxed);
        let aboard = Aboard { flight: number, begun: self.clock.monotonic(), deadline };
        flying.extend(blocks.clone().map(|n| ((vault, pack.id, n), aboard)));
        Some(Flight { fetcher: self, number, blocks })
    }

    /// What is asked for when these blocks are needed: `more` bytes after them, and if that is more than a quarter of the pack,
    /// and the cache can keep it, all to its end; but no more than a request may have, unless so much is needed.
    fn widen(&self, vault: VaultNo, pack: &PackEntry, needed: Range<u32>, more: u64) -> Range<u32> {
        let all = pack.len.div_ceil(GRID) as u32;
        let far = needed.end + (more / GRID) as u32;
        let far = if (far - needed.start) * 4 > all && self.keeps() { all } else { far };
        let most = needed.start + (self.budget.request_max(vault) / GRID) as u32;
        needed.start..far.min(most).max(needed.end).min(all)
    }

    /// A whole pack, past the cache.
    pub(super) fn fetch_whole(&self, row: &PackRow) -> Result<Bytes, StoreError> {
        let name = crate::names::pack(&row.entry.id);
        let whole = |no| self.get_range(no, &name, 0..row.entry.len, Need::Now, Deadline::NEVER);
        self.of_any(&row.vaults, &name, whole)
    }

    /// What the first of these vaults gives that gives anything; else the error that says most.
    pub(super) fn of_any<T>(
        &self,
        vaults: &[VaultNo],
        name: &ObjectName,
        mut ask: impl FnMut(VaultNo) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut failure = None;
        for vault in self.best_first(vaults) {
            match ask(vault) {
                Ok(given) => return Ok(given),
                Err(e) => failure = Some(more_telling(failure, e)),
            }
        }
        Err(failure.unwrap_or_else(|| StoreError::NotFound { what: format!("{name} in any vault") }))
    }

    fn transfer(&self, vault: VaultNo) -> Result<&Arc<Transfer>, StoreError> {
        let found = self.vaults.iter().find(|(no, _)| *no == vault).map(|(_, transfer)| transfer);
        found.ok_or_else(|| StoreError::NoWay { address: self.catalog.vault_address(vault) })
    }

    /// Takes note that a vault answered somebody else.
    pub(super) fn answers(&self, vault: VaultNo) {
        self.away.answered(vault);
    }

    /// Whether a vault did not answer a short while ago.
    pub(super) fn is_away(&self, no: VaultNo) -> bool {
        self.away.is_away(no)
    }

    /// These vaults in the order in which they are to be asked: those to which there is no way, those that did not answer
    /// a short while ago, and those that gave wrong bytes, last.
    pub(super) fn best_first(&self, vaults: &[VaultNo]) -> Vec<VaultNo> {
        let mut vaults = vaults.to_vec();
        let has_way = |no: &VaultNo| self.vaults.iter().any(|known| known.0 == *no);
        vaults.sort_by_cached_key(|no| (!has_way(no), self.is_away(*no), self.away.is_wrong(*no)));
        vaults
    }

    /// From which of these vaults one may read ahead, and how much at once: what it gives in time.
    pub(super) fn ahead_from(&self, vaults: &[VaultNo]) -> Option<(VaultNo, u64)> {
        let first = *self.best_first(vaults).first()?;
        (self.keeps() && !self.is_away(first)).then(|| (first, self.budget.in_time(first)))
    }

    /// How long the first of several vaults that have the same bytes is waited for: the others are not to be left without time.
    pub(super) fn share(&self, vault: VaultNo, vaults_left: usize, deadline: Deadline) -> Deadline {
        // One that was given up takes no time of somebody who has no deadline.
        if vaults_left < 2 || (deadline.left(&*self.clock).is_none() && self.away.is_given_up(vault)) {
            return deadline;
        }
        let share = deadline.left(&*self.clock).map_or(SHARE_MAX, |left| left / vaults_left as u32);
        deadline.within(&*self.clock, share.min(SHARE_MAX))
    }

    /// Bytes of an object in a vault, noting whether the vault answers.
    fn get_range(
        &self,
        vault: VaultNo,
        name: &ObjectName,
        range: Range<u64>,
        need: Need,
        deadline: Deadline,
    ) -> Result<Bytes, StoreError> {
        let transfer = self.transfer(vault)?;
        let failed = |source| StoreError::Vault { vault: transfer.address(), source };
        let patience = self.away.patience(vault, deadline).map_err(failed)?;
        match transfer.get_range(name, range, patience.deadline) {
            Ok(bytes) => {
                self.away.answered(vault);
                self.requests.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(bytes)
            }
            // That nobody waits any more says nothing of the vault.
            Err(_) if deadline.is_given_up() => Err(StoreError::Cancelled),
            Err(source) => {
                // Who reads ahead asks a vault that is only slow for more than it can give.
                if source.is_transient() && need != Need::Ahead {
                    self.away.did_not_answer(vault, patience);
                }
                Err(failed(source))
            }
        }
    }

    /// Bytes of these blocks, with the room that they take.
    fn fetch_blocks(
        &self,
        name: &ObjectName,
        pack: &PackEntry,
        run: Range<u32>,
        need: Need,
        deadline: Deadline,
        mut room: Room,
    ) -> Result<(Bytes, Arc<Room>), StoreError> {
        let range = u64::from(run.start) * GRID..(u64::from(run.end) * GRID).min(pack.len);
        let came = self.get_range(room.vault(), name, range, need, deadline);
        room.ended(&came, |_| len_of(&run));
        Ok((came?, Arc::new(room)))
    }
}
