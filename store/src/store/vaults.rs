//! What the catalog believes of vaults: filled from what a vault holds when it is first met, compared with its listings later.
//!
//! A vault may lose what it confirmed, or show what nobody put there. Only what was listed counts, and what was missed
//! once casts doubt on all that relied on it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::{POINT_LIMIT, Store};
use crate::catalog::{Mark, PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::id::{IndexId, PackId};
use crate::index::Index;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::{self, PACK_LIMIT, PackEntry, PackedChunk};
use crate::point;
use crate::transfer::Transfer;
use crate::vault::{ObjectInfo, ObjectName, VaultError};

/// A vault that does not list its packs within this time is away, as far as a backup is concerned.
const LISTING_WAIT: Duration = Duration::from_secs(30);
/// A vault that was never looked at answers within this time, or the next command asks it again.
const MEETING_WAIT: Duration = Duration::from_secs(10);

impl Store {
    /// Fills a catalog that was made anew, from staging and from the vaults; also one whose filling was cut off. What it
    /// does not tell of is not there for anybody, so an error, and another process at work, are told.
    pub(super) fn fill_catalog(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        if self.read_only {
            self.read_staging(monitor)?;
        } else {
            self.fill_from_staging(monitor)?;
        }
        for (no, address, transfer) in &self.vaults {
            if self.catalog.has_mark(Mark::FilledFrom(*no))? {
                continue;
            }
            if let Err(e) = self.meet(*no, transfer, monitor) {
                if e.class() == ErrorClass::Cancelled {
                    return Err(e);
                }
                let reason = format!("what it holds is not known yet: {e}");
                monitor.event(Event::Problem { path: address.clone().into_bytes(), reason });
            }
        }
        Ok(())
    }

    fn fill_from_staging(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        let filled = self.catalog.has_mark(Mark::Filled)?;
        // Whoever holds the lock knows of the points it makes.
        let lock = if filled && self.knows_staged_points()? { None } else { Some(self.lock()) };
        let lock = if filled { lock.and_then(Result::ok) } else { lock.transpose()? };
        if lock.is_some() {
            self.reconcile(monitor)?;
            // What was lost before, this catalog cannot know.
            if !self.catalog.point_ids()?.is_empty() {
                self.catalog.set_mark(Mark::Doubtful, true)?;
            }
            self.catalog.set_mark(Mark::Filled, true)?;
        }
        Ok(())
    }

    /// Learns what a vault holds that was never looked at. It must answer soon: until then nobody is kept from the lock, and
    /// whoever opens the store does not wait for a vault that is away.
    fn meet(&self, no: VaultNo, transfer: &Transfer, monitor: &dyn Monitor) -> Result<(), StoreError> {
        let soon = Deadline::after(self.clock.as_ref(), MEETING_WAIT);
        transfer.list_all_by("keys/", soon).map_err(of_vault(transfer))?;
        match self.lock() {
            // Nobody can have the lock of a store that cannot be written.
            Err(_) if self.read_only => load_catalog(self, no, transfer, monitor),
            Ok(_lock) => load_catalog(self, no, transfer, monitor),
            // Whoever holds the lock met the vault when it opened the store.
            Err(_) => Ok(()),
        }
    }

    /// Whether the catalog tells of every point in staging. One that lost its last commits, with the file of its log say, does not.
    pub(crate) fn knows_staged_points(&self) -> Result<bool, StoreError> {
        let known = self.catalog.point_ids()?.into_iter().filter(|point| point.1).map(|(id, _, _)| id);
        let known: HashSet<_> = known.collect();
        let listed = self.staging.list("rp")?;
        Ok(listed.iter().filter_map(|o| names::point_of(&o.name)).all(|(_, id)| known.contains(&id)))
    }

    /// Asks the vaults that alone hold something what they hold: new points rely on nothing that was not seen. One that does
    /// not answer soon is left out, for a backup goes on when a vault is away; whether there is such a one.
    pub(super) fn see_vaults(&self, monitor: &dyn Monitor) -> Result<(Vec<VaultNo>, bool), StoreError> {
        let alone = self.catalog.vaults_that_alone_hold()?;
        let mut seen = Vec::new();
        for (no, address, transfer) in &self.vaults {
            if !alone.contains(no) {
                continue;
            }
            let deadline = Deadline::after(self.clock.as_ref(), LISTING_WAIT);
            match refresh_vault_by(self, *no, transfer, deadline, monitor) {
                Ok(()) => seen.push(*no),
                Err(e) if e.class() == ErrorClass::Cancelled => return Err(e),
                Err(e) => tracing::warn!("vault {address}: {e}; nothing new relies on what it holds"),
            }
        }
        let unseen = alone.iter().any(|no| !seen.contains(no));
        Ok((seen, unseen))
    }
}

/// An error of this vault, named.
pub(crate) fn of_vault(transfer: &Transfer) -> impl Fn(VaultError) -> StoreError {
    let vault = transfer.address();
    move |source| StoreError::Vault { vault: vault.clone(), source }
}

/// Makes the catalog agree with listings of the vault: only packs that are there with the right length count, and only points that
/// are there. After a loss nothing in the vault is taken for whole until it was looked up pack by pack.
pub fn refresh_vault(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    refresh_vault_by(store, no, transfer, Deadline::NEVER, monitor)
}

/// The same, unless the deadline passes before the vault has listed what it holds.
pub fn refresh_vault_by(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    deadline: Deadline,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let listed = listed_packs(transfer, deadline)?;
    let points = transfer.list_all_by(names::POINTS, deadline).map_err(of_vault(transfer))?;
    let mut lost = false;
    for row in store.catalog().packs()? {
        let there = listed.get(&row.entry.id) == Some(&row.entry.len);
        let known = row.vaults.contains(&no);
        if known && !there {
            let reason = format!("the pack is missing from vault {}", transfer.address());
            monitor.event(Event::Problem { path: names::pack(&row.entry.id).as_str().into(), reason });
            store.catalog().forget_proven(no)?;
            store.catalog().set_mark(Mark::Doubtful, true)?;
            lost = true;
        }
        if known != there {
            store.catalog().set_confirmed(row.no, no, there)?;
        }
    }
    store.reader().forget_places();
    refresh_points(store, no, &points, lost, monitor)
}

/// A point that a vault no longer shows is no longer in it. After a loss of packs no point is taken for whole: each that
/// staging holds is put again, which sends what it misses.
fn refresh_points(
    store: &Store,
    no: VaultNo,
    listed: &[ObjectInfo],
    lost: bool,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let listed: HashSet<_> = listed.iter().map(|object| &object.name).collect();
    for row in store.catalog().points()?.into_iter().filter(|row| row.vaults.contains(&no)) {
        let name = names::point(&row.tag, &row.id);
        let there = listed.contains(&name);
        if !there {
            let reason = "the recovery point is missing from the vault".to_owned();
            monitor.event(Event::Problem { path: name.as_str().into(), reason });
        }
        if row.staged && (lost || !there) {
            store.catalog().remove_point(&row.id, Some(no))?;
        }
    }
    Ok(())
}

fn listed_packs(transfer: &Transfer, deadline: Deadline) -> Result<BTreeMap<PackId, u64>, StoreError> {
    let listed = transfer.list_all_by(names::PACKS, deadline).map_err(of_vault(transfer))?;
    Ok(listed.iter().filter_map(|o| Some((names::pack_of(&o.name)?, o.len))).collect())
}

/// Fills the catalog with what a vault holds: index objects first, packs that none covers by their own
/// directories, then the points. What does not open is told and left out.
pub fn load_catalog(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let failed = of_vault(transfer);
    let listed = listed_packs(transfer, Deadline::NEVER)?;
    let known: BTreeSet<_> = store.catalog().index_objects(Some(no))?.into_iter().collect();
    let objects = transfer.list_all("idx/").map_err(&failed)?;
    monitor.event(Event::Stage { name: "index", files_total: objects.len() as u64, bytes_total: 0 });
    for object in objects {
        let Some(id) = names::index_of(&object.name).filter(|id| !known.contains(id)) else { continue };
        match open_index(store, transfer, &object.name, id)? {
            Ok(index) => adopt_index(store, no, &id, &index, &listed)?,
            Err(e) => monitor.event(Event::Problem { path: object.name.as_str().into(), reason: e }),
        }
        monitor.event(Event::Done { files: 1, bytes: object.len });
    }
    load_uncovered_packs(store, no, transfer, &listed, monitor)?;
    load_points(store, no, transfer, monitor)?;
    // Whether all that these points need was found, nobody has looked.
    if !store.catalog().point_ids()?.is_empty() {
        store.catalog().set_mark(Mark::Doubtful, true)?;
    }
    store.catalog().set_mark(Mark::FilledFrom(no), true)
}

/// Twice if need be: the way from the vault may have flipped a bit. One that cannot be had is as good as damaged: packs tell
/// the same.
fn open_index(
    store: &Store,
    transfer: &Transfer,
    name: &ObjectName,
    id: IndexId,
) -> Result<Result<Index, String>, StoreError> {
    let open = || match transfer.get(name, PACK_LIMIT) {
        Ok(bytes) => Ok(Index::open(store.sealer(), id, &bytes).map_err(|e| e.to_string())),
        Err(e @ (VaultError::NotFound { .. } | VaultError::TooShort { .. } | VaultError::Invalid { .. })) => {
            Ok(Err(e.to_string()))
        }
        Err(e) => Err(of_vault(transfer)(e)),
    };
    match open()? {
        Err(_) => open(),
        opened => Ok(opened),
    }
}

fn adopt_index(
    store: &Store,
    no: VaultNo,
    id: &IndexId,
    index: &Index,
    listed: &BTreeMap<PackId, u64>,
) -> Result<(), StoreError> {
    let packs = index.packs_with_chunks();
    let there: Vec<(&PackEntry, &[PackedChunk])> = packs
        .iter()
        .filter(|(entry, _)| listed.get(&entry.id) == Some(&entry.len))
        .map(|(entry, chunks)| (*entry, chunks.as_slice()))
        .collect();
    store.catalog().add_packs(&there, false, Some(no))?;
    let ids: Vec<PackId> = there.iter().map(|(entry, _)| entry.id).collect();
    store.catalog().add_index(id, &ids, Some(no))
}

fn load_uncovered_packs(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    listed: &BTreeMap<PackId, u64>,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    for (id, len) in listed {
        if store.catalog().pack_by_id(id)?.is_some_and(|row| row.vaults.contains(&no)) {
            continue;
        }
        let name = names::pack(id);
        let read = |offset: u64, n: usize| {
            transfer
                .get_range(&name, offset..offset + n as u64, crate::clock::Deadline::NEVER)
                .map(|bytes| bytes.to_vec())
                .map_err(|e| PackError::Store(of_vault(transfer)(e)))
        };
        let opened = match pack::read_entry(store.sealer(), *id, *len, read) {
            Err(PackError::Format(_)) => pack::read_entry(store.sealer(), *id, *len, read),
            opened => opened,
        };
        match opened {
            Ok((entry, chunks)) => store.catalog().add_packs(&[(&entry, &chunks)], false, Some(no))?,
            Err(PackError::Store(e)) => return Err(e),
            Err(PackError::Format(e)) => {
                monitor.event(Event::Problem { path: name.as_str().into(), reason: e.to_string() });
            }
        }
    }
    Ok(())
}

/// A damaged pack is told and left out; a vault that fails ends the loading.
enum PackError {
    Format(crate::format::FormatError),
    Store(StoreError),
}

impl From<crate::format::FormatError> for PackError {
    fn from(e: crate::format::FormatError) -> Self {
        Self::Format(e)
    }
}

/// Makes sure that the catalog knows every point that a vault shows, also those that came there in other ways. One that
/// cannot be opened is an error: what it needs is unknown.
pub fn learn_points(store: &Store, no: VaultNo, transfer: &Transfer) -> Result<(), StoreError> {
    let known = store.catalog().points()?.into_iter().filter(|row| row.vaults.contains(&no));
    let known: HashSet<_> = known.map(|row| row.id).collect();
    for object in transfer.list_all(names::POINTS).map_err(of_vault(transfer))? {
        let Some((tag, id)) = names::point_of(&object.name).filter(|(_, id)| !known.contains(id)) else {
            continue;
        };
        let bytes = transfer.get(&object.name, POINT_LIMIT).map_err(of_vault(transfer))?;
        let point = point::object::open_point(&bytes, store.sealer(), &tag, &id);
        let point = point.map_err(|e| e.of(object.name.as_str()))?;
        store.catalog().add_point(&vaulted_row(no, &point, bytes.to_vec()))?;
    }
    Ok(())
}

fn vaulted_row(no: VaultNo, point: &point::RecoveryPoint, object: Vec<u8>) -> PointRow {
    PointRow {
        id: point.id,
        tag: point.source_tag,
        sequence: point.sequence,
        started: point.started.seconds,
        hash: *blake3::hash(&object).as_bytes(),
        object,
        staged: false,
        vaults: vec![no],
    }
}

fn load_points(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let objects = transfer.list_all("rp/").map_err(of_vault(transfer))?;
    monitor.event(Event::Stage { name: "points", files_total: objects.len() as u64, bytes_total: 0 });
    let points: Vec<_> = objects.iter().filter_map(|o| Some((names::point_of(&o.name)?, o))).collect();
    for some in points.chunks(64) {
        let wanted = some.iter().map(|(_, o)| (o.name.clone(), 0..o.len.min(POINT_LIMIT))).collect();
        let answers = transfer.get_many(wanted, crate::clock::Deadline::NEVER);
        for (((tag, id), object), bytes) in some.iter().zip(answers) {
            let bytes = bytes.map_err(of_vault(transfer))?;
            let open = |bytes: &[u8]| point::object::open_point(bytes, store.sealer(), tag, id);
            let opened = open(&bytes).map(|point| (point, bytes.clone())).or_else(|_| {
                let again = transfer.get(&object.name, POINT_LIMIT).unwrap_or(bytes);
                open(&again).map(|point| (point, again))
            });
            match opened {
                Ok((point, bytes)) => store.catalog().add_point(&vaulted_row(no, &point, bytes.to_vec()))?,
                Err(e) => {
                    monitor.event(Event::Problem { path: object.name.as_str().into(), reason: e.to_string() })
                }
            }
            monitor.event(Event::Done { files: 1, bytes: object.len });
        }
    }
    Ok(())
}
