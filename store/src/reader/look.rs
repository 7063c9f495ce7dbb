//! Where a chunk lies, as far as the catalog or memory tells: in which pack and frames, in which tier, in which vault.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::pack_map::PackMap;
use super::{Limits, Reader, Tier};
use crate::catalog::{Location, PackNo, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::id::ChunkId;
use crate::pack::PagePlace;

/// What a look for a place and its pack finds: one of them may be out of date, and is forgotten then. The next look finds both as they are.
fn up_to_date<T>(look: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    look().or_else(|e| if e.is_of_changed_catalog() { look() } else { Err(e) })
}

impl Reader {
    /// Where a page of a tree lies, if it lies in one frame.
    pub fn page_place(&self, id: &ChunkId) -> Result<Option<PagePlace>, StoreError> {
        let look = || {
            let at = self.locate(id)?;
            at.map(|at| Ok((at, self.map_of(id, &at, Deadline::NEVER)?))).transpose()
        };
        let Some((location, map)) = up_to_date(look)? else { return Ok(None) };
        let start = u64::from(location.start);
        let frames = map.frames_of(start, start + u64::from(location.len));
        let n = frames.start;
        Ok((frames.len() == 1).then(|| {
            let (entry, block) = (&map.row.entry, map.block_of(n));
            PagePlace {
                chunk: *id,
                pack: entry.id,
                object_id: entry.object_id,
                generation: entry.generation,
                offset: block.start,
                block_len: (block.end - block.start) as u32,
                start: (start - map.raw[n]) as u32,
                len: location.len,
            }
        }))
    }

    /// The pack from which a chunk is read, as far as it can be had; `NotFound` if none has it.
    pub fn pack_of(&self, id: &ChunkId) -> Result<PackNo, StoreError> {
        Ok(self.find(id)?.pack)
    }

    /// The best tier that has the whole chunk, without reading it; `NotFound` if none has it.
    pub fn tier(&self, id: &ChunkId) -> Result<Tier, StoreError> {
        Ok(self.tier_and_vault(id, None)?.0)
    }

    /// The best tier that has all that is needed to read `range` of a chunk, or all of it, without reading it; and the vault that is asked first, if one
    /// has it, for what turns out not to be nearer. `NotFound` if none has it.
    pub fn tier_and_vault(
        &self,
        id: &ChunkId,
        range: Option<Range<u32>>,
    ) -> Result<(Tier, Option<VaultNo>), StoreError> {
        let (location, map) = self.placed(id)?;
        let mut frames = self.needed(id, &location, &map, range);
        let tier = if frames.clone().all(|n| self.frames.has(&(map.row.entry.id, n as u32))) {
            Tier::Memory
        } else if map.row.staged {
            Tier::Staging
        } else if frames.all(|n| self.fetcher.is_cached(&map.row.entry, &map.block_of(n))) {
            Tier::Cache
        } else {
            Tier::Vault
        };
        Ok((tier, self.fetcher.best_first(&map.row.vaults).first().copied()))
    }

    /// Whether all that is needed to read `range` of a chunk, or all of it, is in memory and known to be: nobody has to wait for a disk to
    /// hear that, not even for the catalog's.
    pub fn is_warm(&self, id: &ChunkId, range: Option<Range<u32>>) -> bool {
        let Some(location) = self.places.get(id) else { return false };
        let Some(map) = self.known_map(location.pack) else { return false };
        let pack = map.row.entry.id;
        if !location.is_of(id, &pack) {
            return false;
        }
        self.needed(id, &location, &map, range).all(|n| self.frames.has(&(pack, n as u32)))
    }

    /// The bytes of a chunk that lie in the same frame as the one at `at`, and so are decoded with it.
    pub fn decoded_with(&self, id: &ChunkId, at: u32) -> Result<Range<u32>, StoreError> {
        let (location, map) = self.placed(id)?;
        let start = u64::from(location.start);
        let frames = map.frames_of(start + u64::from(at), start + u64::from(at) + 1);
        let (from, to) = (map.raw[frames.start], map.raw[frames.end]);
        let within = |raw: u64| raw.saturating_sub(start).min(u64::from(location.len)) as u32;
        Ok(within(from)..within(to))
    }

    /// The best place of a chunk: one in a pack with damage somewhere only where there is no other.
    pub(super) fn find(&self, id: &ChunkId) -> Result<Location, StoreError> {
        match self.locate(id) {
            Ok(Some(good)) => return Ok(good),
            // Of the packs without damage the catalog knows no place any more; it may of the others.
            Err(e) if e.class() != ErrorClass::Corrupt => return Err(e),
            _ => {}
        }
        self.catalog.locate_all(id)?.first().copied().ok_or_else(|| self.missing(id))
    }

    /// The same, with its pack.
    pub(super) fn placed(&self, id: &ChunkId) -> Result<(Location, Arc<PackMap>), StoreError> {
        up_to_date(|| {
            let at = self.find(id)?;
            Ok((at, self.map_of(id, &at, Deadline::NEVER)?))
        })
    }

    /// The place of a chunk in a pack without damage, best tier first.
    pub(super) fn locate(&self, id: &ChunkId) -> Result<Option<Location>, StoreError> {
        if let Some(known) = self.places.get(id) {
            return Ok(Some(known));
        }
        let found = self.catalog.locate(id)?;
        found.iter().for_each(|at| self.places.put(*id, *at));
        Ok(found)
    }

    pub(super) fn learn_places(&self, no: PackNo) -> Result<(), StoreError> {
        self.places.learn(&self.catalog.places_in(no)?);
        Ok(())
    }

    /// What is known of a pack without asking the catalog. Nobody holds that lock while he asks.
    pub(super) fn known_map(&self, no: PackNo) -> Option<Arc<PackMap>> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).get(&no).cloned()
    }

    /// The pack of a place, which must be the one that was meant when the place was written down.
    pub(super) fn map_of(
        &self,
        id: &ChunkId,
        at: &Location,
        limits: impl Into<Limits>,
    ) -> Result<Arc<PackMap>, StoreError> {
        let limits = limits.into();
        let map = self.map_within(at.pack, limits)?;
        if at.is_of(id, &map.row.entry.id) {
            return Ok(map);
        }
        // One of the two is out of date: whoever asks next looks both up.
        self.places.forget(id);
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).pop(&at.pack);
        if limits.farthest == Tier::Memory {
            return Err(StoreError::not_in_memory());
        }
        Err(StoreError::Catalog {
            detail: format!("pack number {} is another than it was", at.pack.0),
            class: ErrorClass::Corrupt,
        })
    }

    pub(super) fn map_within(&self, no: PackNo, limits: Limits) -> Result<Arc<PackMap>, StoreError> {
        match limits.farthest {
            Tier::Memory => self.known_map(no).ok_or_else(StoreError::not_in_memory),
            Tier::Staging | Tier::Cache | Tier::Vault => self.pack_map(no),
        }
    }

    pub(super) fn pack_map(&self, no: PackNo) -> Result<Arc<PackMap>, StoreError> {
        if let Some(map) = self.known_map(no) {
            return Ok(map);
        }
        let row = self
            .catalog
            .pack(no)?
            .ok_or_else(|| StoreError::NotFound { what: format!("pack number {}", no.0) })?;
        let map = Arc::new(PackMap::new(row));
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).put(no, map.clone());
        Ok(map)
    }

    /// Forgets what is known of places, after packs moved or went.
    pub fn forget_places(&self) {
        self.places.clear();
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
