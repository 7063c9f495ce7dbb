//! Bringing recovery points into a vault, and a store's catalog out of one.
//!
//! The order is what makes a crash harmless: session, packs, index, and the recovery point last. A pack counts as sent when
//! the vault confirmed it, and that is recorded pack by pack: the next run goes on where this one ended.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;

use crate::catalog::{Mark, PackNo, PackRow, PointRow, VaultNo};
use crate::chunk_store::write_index_to;
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{IndexId, PackId, RecoveryPointId, SlotId};
use crate::index::Index;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::{self, PACK_LIMIT, PackEntry, PackedChunk};
use crate::point::{self, Session as VaultSession};
use crate::store::{POINT_LIMIT, Store, StoreHead};
use crate::transfer::Transfer;
use crate::tree::reach::reachable;
use crate::vault::{ObjectInfo, ObjectName, VaultError};

/// Packs on their way at once: each is held in memory while it is sent.
const PACKS_AT_ONCE: usize = 4;
/// Limit of config and slot objects.
const SMALL_OBJECT: u64 = 64 << 10;

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Packs sent.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packs of the point that the vault had already.
    pub packs_there: u64,
}

fn of_vault(transfer: &Transfer) -> impl Fn(VaultError) -> StoreError {
    let vault = transfer.address();
    move |source| StoreError::Vault { vault: vault.clone(), source }
}

/// Makes a vault ready for a store: containers, a proof of its promises, config and key slots. A vault that
/// belongs to another store is refused.
pub fn prepare_vault(
    store: &Store,
    slots: &[(SlotId, Vec<u8>)],
    transfer: &Transfer,
) -> Result<(), StoreError> {
    let failed = of_vault(transfer);
    transfer.prepare().map_err(&failed)?;
    if let Some(config) = read_small(transfer, &names::config())? {
        let theirs =
            crate::format::config::StoreConfig::peek_vault_id(&config).map_err(|e| e.of("config"))?;
        if theirs != *store.id() {
            let detail = format!("the vault holds store {theirs}, this is {}", store.id());
            return Err(StoreError::NotOurs { object: transfer.address(), detail });
        }
    } else {
        transfer.probe().map_err(&failed)?;
    }
    for (id, bytes) in slots {
        transfer.put_new(&names::slot(id), bytes.clone().into()).map_err(&failed)?;
    }
    let config = Bytes::copy_from_slice(store.config_object());
    transfer.put_new(&names::config(), config).map_err(&failed).map(drop)
}

fn read_small(transfer: &Transfer, name: &ObjectName) -> Result<Option<Vec<u8>>, StoreError> {
    match transfer.get(name, SMALL_OBJECT) {
        Ok(bytes) => Ok(Some(bytes.to_vec())),
        Err(VaultError::NotFound { .. }) => Ok(None),
        Err(e) => Err(of_vault(transfer)(e)),
    }
}

/// What a vault shows without a key: the beginning of a recovery on a machine that has nothing.
pub fn vault_head(transfer: &Transfer) -> Result<StoreHead, StoreError> {
    let config = read_small(transfer, &names::config())?
        .ok_or_else(|| StoreError::NotFound { what: format!("a store in vault {}", transfer.address()) })?;
    let vault = crate::format::config::StoreConfig::peek_vault_id(&config).map_err(|e| e.of("config"))?;
    let mut slots = Vec::new();
    for object in transfer.list_all("keys/").map_err(of_vault(transfer))? {
        if let (Some(id), Some(bytes)) = (names::slot_of(&object.name), read_small(transfer, &object.name)?) {
            slots.push((id, bytes));
        }
    }
    Ok(StoreHead { vault, config, slots })
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

/// Puts a point into a vault with everything it needs that is not there.
pub fn push_point(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    id: &RecoveryPointId,
    monitor: &dyn Monitor,
) -> Result<Pushed, StoreError> {
    let row = store
        .catalog()
        .point(id)?
        .ok_or_else(|| StoreError::NotFound { what: format!("recovery point {id}") })?;
    if row.vaults.contains(&no) {
        return Ok(Pushed::default());
    }
    let _lock = store.lock_uploads()?;
    let needed = packs_needed(store, no, &row)?;
    let (there, missing): (Vec<_>, Vec<_>) = needed.into_iter().partition(|pack| pack.vaults.contains(&no));
    let failed = of_vault(transfer);
    let session = VaultSession {
        id: row.id,
        source_tag: row.tag,
        started: store.clock().now().seconds,
        writer: Vec::new(),
        signature: Vec::new(),
    };
    // A session of this name that is there already is ours, from a run that was cut off.
    if transfer.stat(&names::session(id)).map_err(&failed)?.is_none() {
        let object = point::object::seal_session(&session, store.sealer())?;
        transfer.put_new(&names::session(id), object.into()).map_err(&failed)?;
    }
    let mut pushed = send_packs(store, no, transfer, &missing, monitor)?;
    pushed.packs_there = there.len() as u64;
    index_vault(store, no, transfer)?;
    transfer.put_new(&names::point(&row.tag, id), row.object.clone().into()).map_err(&failed)?;
    store.catalog().set_proven_point(no, &row.tag, &row.id)?;
    store.catalog().add_point(&PointRow { staged: false, vaults: vec![no], ..row })?;
    Ok(pushed)
}

/// The packs that hold what a point needs. Directories that the last point of the same source that this store pushed has as
/// well need no look: that point is whole there, unless the vault lost something since.
fn packs_needed(store: &Store, no: VaultNo, row: &PointRow) -> Result<Vec<PackRow>, StoreError> {
    let mut seen = HashSet::new();
    let base = store.catalog().proven_point(no, &row.tag)?;
    let base = base.map(|id| store.catalog().point(&id)).transpose()?.flatten();
    if let Some(base) = base.filter(|base| base.vaults.contains(&no)) {
        let base = store.point(&base.id)?;
        reachable(store.reader().as_ref(), &base.point.root, &mut seen, &mut |_, _| Ok(()))?;
    }
    let mut packs = BTreeSet::new();
    let point = store.point(&row.id)?;
    reachable(store.reader().as_ref(), &point.point.root, &mut seen, &mut |_, id| {
        let found = store.catalog().locate(id)?;
        // Only damaged copies are left: the vault may have a good one; else sending it names the pack.
        let found = match found {
            None => store.catalog().locate_all(id)?.first().copied(),
            found => found,
        };
        let location = found.ok_or_else(|| StoreError::NotFound { what: format!("chunk {id}") })?;
        packs.insert(location.pack);
        Ok(())
    })?;
    packs.into_iter().filter_map(|pack: PackNo| store.catalog().pack(pack).transpose()).collect()
}

fn send_packs(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    missing: &[PackRow],
    monitor: &dyn Monitor,
) -> Result<Pushed, StoreError> {
    let bytes_total = missing.iter().map(|p| p.entry.len).sum();
    monitor.event(Event::Stage { name: "upload", files_total: missing.len() as u64, bytes_total });
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failure = std::sync::Mutex::new(None);
    let done = std::sync::Mutex::new(Pushed::default());
    std::thread::scope(|scope| {
        for _ in 0..PACKS_AT_ONCE.min(missing.len()) {
            scope.spawn(|| {
                while let Some(pack) = missing.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let failed = || failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if failed().is_some() {
                        return;
                    }
                    let sent = if monitor.cancelled() {
                        Err(StoreError::Cancelled)
                    } else {
                        send_pack(store, no, transfer, pack)
                    };
                    if let Err(e) = sent {
                        failed().get_or_insert(e);
                        return;
                    }
                    let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    done.packs += 1;
                    done.bytes += pack.entry.len;
                    monitor.event(Event::Done { files: 1, bytes: pack.entry.len });
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)),
    }
}

/// Sends a pack as the bytes it is, checked against its name first: what the local disk damaged must not go out.
fn send_pack(store: &Store, no: VaultNo, transfer: &Transfer, pack: &PackRow) -> Result<(), StoreError> {
    let name = names::pack(&pack.entry.id);
    let right = |bytes: &Bytes| *blake3::hash(bytes).as_bytes() == pack.entry.id.0;
    let staged = store.staging().read_all(&name, PACK_LIMIT)?.map(Bytes::from);
    if staged.as_ref().is_some_and(|bytes| !right(bytes)) {
        store.catalog().set_bad(pack.no, true)?;
        if pack.vaults.is_empty() {
            let detail = "its bytes in the staging directory do not have its name";
            return Err(StoreError::corrupt(name.as_str(), detail));
        }
    }
    let bytes = match staged.filter(right) {
        Some(bytes) => bytes,
        None => store.fetch_pack(pack)?,
    };
    if !right(&bytes) {
        return Err(StoreError::corrupt(name.as_str(), "its bytes in another vault do not have its name"));
    }
    transfer.put_new(&name, bytes).map_err(of_vault(transfer))?;
    store.catalog().set_confirmed(pack.no, no, true)
}

/// Covers the vault's packs that no index object there covers by a new one.
fn index_vault(store: &Store, no: VaultNo, transfer: &Transfer) -> Result<(), StoreError> {
    let mut index = Index::default();
    for pack in store.catalog().packs_without_index(Some(no))? {
        if let Some(row) = store.catalog().pack(pack)? {
            index.add(row.entry, &store.catalog().chunks_of(pack)?);
        }
    }
    if index.packs.is_empty() {
        return Ok(());
    }
    write_index_to(store.sealer(), store.catalog(), index, Some(no), |name, bytes| {
        transfer.put_new(name, bytes).map_err(of_vault(transfer)).map(drop)
    })
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
