//! What a plan may rely on: what the places showed when they were listed for it, and packs that were read for it. The catalog's
//! word that a pack is somewhere is as old as the last look there.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;

use super::{Place, damaged};
use crate::catalog::{Mark, PackNo, PackRow, VaultNo};
use crate::check::{OTHERWISE, prove_in_vault};
use crate::clock::Deadline;
use crate::copy;
use crate::error::{ErrorClass, StoreError};
use crate::id::{ChunkId, RecoveryPointId};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::PackedChunk;
use crate::reader::{Limits, Reader, Tier};
use crate::seal::ChunkType;
use crate::store::{LISTING_WAIT, Store, see_vault};
use crate::tree::ChunkSource;
use crate::tree::reach::reachable;

/// The packs that a place shows now with their lengths. Of a vault that shows less than the catalog believed the catalog learns it.
pub(super) fn seen_in(
    store: &Store,
    place: Place,
    deadline: Deadline,
    monitor: &dyn Monitor,
) -> Result<Vec<PackRow>, StoreError> {
    let packs = |store: &Store| store.catalog().packs();
    match place {
        Place::Staging => {
            let listed = store.staged_packs()?;
            let there = |row: &PackRow| row.staged && listed.get(&row.entry.id) == Some(&row.entry.len);
            Ok(packs(store)?.into_iter().filter(there).collect())
        }
        Place::Vault(no) => {
            see_vault(store, no, store.vault(no)?, deadline, monitor)?;
            Ok(packs(store)?.into_iter().filter(|row| row.vaults.contains(&no)).collect())
        }
    }
}

/// Those of the packs that a place showed of which nothing says that they are damaged there, or are to go.
pub(super) fn sound(store: &Store, place: Place, rows: &[PackRow]) -> Result<HashSet<PackNo>, StoreError> {
    let mut unfit = damaged(store, place, rows)?;
    if let Place::Vault(no) = place {
        unfit.extend(store.condemned_in(no)?);
    }
    Ok(rows.iter().map(|row| row.no).filter(|no| !unfit.contains(no)).collect())
}

/// Those of these packs of which every byte was read and proven since they came there.
pub(super) fn proven_among(
    store: &Store,
    place: Place,
    packs: &HashSet<PackNo>,
) -> Result<HashSet<PackNo>, StoreError> {
    let vault = match place {
        Place::Staging => None,
        Place::Vault(no) => Some(no),
    };
    let copies = store.catalog().copies_in(vault)?.into_iter();
    let proven = copies.filter(|copy| copy.proven.is_some() && packs.contains(&copy.pack));
    Ok(proven.map(|copy| copy.pack).collect())
}

/// Points that are not of the place for which there is a plan. What they need may be freed there as far as another place
/// has it: one that was listed for this plan.
pub(super) struct Others {
    /// The place.
    place: Place,
    /// Nothing if that cannot be told: then all may be needed.
    needed: Option<HashSet<ChunkId>>,
    /// Packs that other places show, that were not found damaged there and are not to go.
    elsewhere: HashSet<PackNo>,
    /// Those of them that were read and proven there.
    proven: HashSet<PackNo>,
    /// When the other places were listed, by the clock of this machine.
    looked: Duration,
}

/// What other places showed is believed for so long.
pub(super) const BELIEVED: Duration = Duration::from_secs(60);

impl Others {
    /// Lists the other places, if there are such points or there may be. `pages` are those below which `own` points were looked at.
    pub(super) fn of(
        store: &Store,
        place: Place,
        own: &[RecoveryPointId],
        mut pages: HashSet<ChunkId>,
        monitor: &dyn Monitor,
    ) -> Result<Self, StoreError> {
        let all_known = know_others(store, place, monitor)?;
        let own: HashSet<_> = own.iter().collect();
        let mut points = store.catalog().points()?;
        points.retain(|row| !own.contains(&row.id));
        let mut others = Self {
            place,
            needed: Some(HashSet::new()),
            elsewhere: HashSet::new(),
            proven: HashSet::new(),
            looked: store.clock().monotonic(),
        };
        if !all_known {
            others.needed = None;
            others.look_elsewhere(store, place, monitor)?;
        }
        if points.is_empty() || !all_known {
            return Ok(others);
        }
        let all_answer = others.look_elsewhere(store, place, monitor)?;
        // Nobody waits for a vault that is away.
        let farthest = if all_answer { Tier::Vault } else { Tier::Cache };
        let source = Within { reader: store.reader(), farthest, by: &|| Deadline::NEVER };
        for row in points {
            let mut needed = others.needed.take().unwrap_or_default();
            let mut visit = |_: ChunkType, id: &ChunkId| {
                needed.insert(*id);
                Ok(())
            };
            let looked = store
                .point(&row.id)
                .and_then(|stored| reachable(&source, &stored.point.root, &mut pages, &mut visit));
            match looked {
                Ok(()) => others.needed = Some(needed),
                Err(e @ StoreError::Cancelled) => return Err(e),
                // It was forgotten, as a look at another place told.
                Err(_) if store.catalog().point(&row.id)?.is_none() => others.needed = Some(needed),
                Err(e) => {
                    let reason =
                        format!("what it needs is unknown, so only what another place has goes: {e}");
                    tell(monitor, names::point(&row.tag, &row.id).as_str(), reason);
                    break;
                }
            }
        }
        Ok(others)
    }

    /// What these points need, if that can be told.
    pub(super) fn needed(&self) -> Option<&HashSet<ChunkId>> {
        self.needed.as_ref()
    }

    /// Whether another place showed a pack, all of which was read and proven there.
    pub(super) fn has_proven(&self, pack: PackNo) -> bool {
        self.proven.contains(&pack)
    }

    /// Lists the other places again if that was a while ago: somebody had the store's lock for long, say, and one of them lost something meanwhile.
    pub(super) fn look_again(&mut self, store: &Store, monitor: &dyn Monitor) -> Result<(), StoreError> {
        if self.elsewhere.is_empty() || store.clock().monotonic() < self.looked + BELIEVED {
            return Ok(());
        }
        self.elsewhere.clear();
        self.proven.clear();
        self.look_elsewhere(store, self.place, monitor)?;
        self.looked = store.clock().monotonic();
        Ok(())
    }

    /// Whether all vaults answered. One that does not answer soon has nothing, as far as this plan is concerned.
    fn look_elsewhere(
        &mut self,
        store: &Store,
        place: Place,
        monitor: &dyn Monitor,
    ) -> Result<bool, StoreError> {
        let mut all = true;
        let vaults = store.vaults().iter().map(|vault| Place::Vault(vault.0));
        for other in std::iter::once(Place::Staging).chain(vaults).filter(|other| *other != place) {
            let soon = Deadline::after(store.clock().as_ref(), LISTING_WAIT);
            match seen_in(store, other, soon, monitor) {
                Ok(rows) => {
                    let sound = sound(store, other, &rows)?;
                    self.proven.extend(proven_among(store, other, &sound)?);
                    self.elsewhere.extend(sound);
                }
                Err(e) if e.class() == ErrorClass::Cancelled => return Err(e),
                Err(e) => {
                    let Place::Vault(no) = other else { return Err(e) };
                    let reason = format!("it is not counted on: {e}");
                    tell(monitor, &store.catalog().vault_address(no), reason);
                    all = false;
                }
            }
        }
        Ok(all)
    }

    /// Adds to `live` those of a pack's chunks that these points need and that no other place showed.
    pub(super) fn hold(
        &self,
        store: &Store,
        chunks: &[PackedChunk],
        live: &mut HashSet<ChunkId>,
    ) -> Result<(), StoreError> {
        let mut known = HashMap::new();
        for PackedChunk { id, .. } in chunks {
            let may_be_needed = self.needed.as_ref().is_none_or(|needed| needed.contains(id));
            if may_be_needed && !live.contains(id) {
                let places = store.catalog().locate_all(id)?;
                let mut is_elsewhere = false;
                for at in places {
                    is_elsewhere |= match known.get(&at.pack) {
                        Some(known) => *known,
                        None => *known.entry(at.pack).or_insert(self.is_elsewhere(store, at.pack)?),
                    };
                }
                if !is_elsewhere {
                    live.insert(*id);
                }
            }
        }
        Ok(())
    }

    /// Whether another place showed a pack, and nobody missed it there since or found it damaged.
    fn is_elsewhere(&self, store: &Store, pack: PackNo) -> Result<bool, StoreError> {
        if !self.elsewhere.contains(&pack) {
            return Ok(false);
        }
        let Some(row) = store.catalog().pack(pack)? else { return Ok(false) };
        if row.staged && self.place != Place::Staging {
            return Ok(true);
        }
        for no in row.vaults.iter().filter(|no| self.place != Place::Vault(**no)) {
            let (catalog, id) = (store.catalog(), row.entry.id);
            if !catalog.has_mark(Mark::BadIn(*no, id))? && !catalog.has_mark(Mark::NotShown(*no, id))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether it is known which points the other vaults have. Those that were away since the catalog was made anew are read now.
fn know_others(store: &Store, place: Place, monitor: &dyn Monitor) -> Result<bool, StoreError> {
    let mut all = true;
    for (no, address, transfer) in store.vaults().iter().filter(|vault| Place::Vault(vault.0) != place) {
        let known = || store.catalog().knows_all_in(*no);
        if known()? {
            continue;
        }
        let e = match copy::load_catalog(store, *no, transfer, monitor) {
            Err(e) if e.class() == ErrorClass::Cancelled => return Err(e),
            Err(e) => e.to_string(),
            Ok(()) if known()? => continue,
            Ok(()) => "not all of it can be read".to_owned(),
        };
        let reason =
            format!("what its recovery points need is unknown, so only what another place has goes: {e}");
        tell(monitor, address, reason);
        all = false;
    }
    Ok(all)
}

/// What can be read so far away, each chunk by a deadline of its own.
pub(super) struct Within<'a> {
    pub(super) reader: &'a Reader,
    pub(super) farthest: Tier,
    pub(super) by: &'a (dyn Fn() -> Deadline + Sync),
}

impl ChunkSource for Within<'_> {
    fn chunk(&self, of: ChunkType, id: &ChunkId, _: Deadline) -> Result<Bytes, StoreError> {
        self.reader.chunk_within(of, id, Limits { farthest: self.farthest, deadline: (self.by)() })
    }
}

/// What the packs of a vault hold for certain. A pack is fetched whole when somebody would rely on it, once for a plan: as many
/// bytes as these packs have, and only of packs that hold what a damaged one holds, too.
pub(super) struct Proofs<'a> {
    store: &'a Store,
    vault: VaultNo,
    monitor: &'a dyn Monitor,
    rows: HashMap<PackNo, PackRow>,
    /// Those that count as read, for they were when they were last proven.
    before: HashSet<PackNo>,
    read: HashMap<PackNo, HashSet<ChunkId>>,
}

impl<'a> Proofs<'a> {
    /// Of these packs, which the vault showed.
    pub(super) fn of(
        store: &'a Store,
        vault: VaultNo,
        rows: impl Iterator<Item = PackRow>,
        monitor: &'a dyn Monitor,
    ) -> Self {
        let rows = rows.map(|row| (row.no, row)).collect();
        Self { store, vault, monitor, rows, before: HashSet::new(), read: HashMap::new() }
    }

    /// The same, of which those that were read and proven since they came there need not be read again.
    pub(super) fn with_those_of_before(mut self) -> Result<Self, StoreError> {
        let all = self.rows.keys().copied().collect();
        self.before = proven_among(self.store, Place::Vault(self.vault), &all)?;
        Ok(self)
    }

    /// Whether each of these chunks was read in one of the packs. Nothing is fetched unless the catalog says so of all.
    pub(super) fn have(&mut self, chunks: &[PackedChunk]) -> Result<bool, StoreError> {
        let mut said = Vec::new();
        for PackedChunk { id, .. } in chunks {
            let places = self.store.catalog().locate_all(id)?;
            let packs: Vec<_> =
                places.iter().map(|at| at.pack).filter(|no| self.rows.contains_key(no)).collect();
            if packs.is_empty() {
                return Ok(false);
            }
            said.push((*id, packs));
        }
        for (id, packs) in said {
            if !self.is_in_one_of(&id, &packs)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_in_one_of(&mut self, id: &ChunkId, packs: &[PackNo]) -> Result<bool, StoreError> {
        if packs.iter().any(|no| self.before.contains(no)) {
            return Ok(true);
        }
        for no in packs {
            let Some(row) = self.rows.get(no) else { continue };
            let found = match self.read.get(no) {
                Some(found) => found,
                None => {
                    let found = self.read_pack(row)?;
                    self.read.entry(*no).or_insert(found)
                }
            };
            if found.contains(id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The chunks in a pack; nothing if it is damaged, which is noted.
    fn read_pack(&self, row: &PackRow) -> Result<HashSet<ChunkId>, StoreError> {
        let catalog = self.store.catalog();
        match prove_in_vault(self.store, row, self.vault)? {
            Ok(contents) => {
                if contents.was_said_otherwise {
                    tell(self.monitor, names::pack(&row.entry.id).as_str(), OTHERWISE.into());
                }
                catalog.set_verified(&[(row.no, Some(self.vault))], self.store.clock().now())?;
                Ok(contents.chunks.into_iter().map(|chunk| chunk.id).collect())
            }
            Err(detail) => {
                catalog.set_mark(Mark::BadIn(self.vault, row.entry.id), true)?;
                catalog.clear_verified(row.no, Some(self.vault))?;
                let reason = format!("{}: {detail}", catalog.vault_address(self.vault));
                tell(self.monitor, names::pack(&row.entry.id).as_str(), reason);
                Ok(HashSet::new())
            }
        }
    }
}

pub(super) fn tell(monitor: &dyn Monitor, object: &str, reason: String) {
    monitor.event(Event::Problem { path: object.into(), reason });
}
