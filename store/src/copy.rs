//! Bringing recovery points into a vault, and what a vault shows to a machine that has nothing.
//!
//! The order is what makes a crash harmless: session, packs, index, and the recovery point last. A pack counts as sent when
//! the vault confirmed it, and that is recorded pack by pack: the next run goes on where this one ended.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;

use crate::catalog::{Mark, PackNo, PackRow, PointRow, VaultNo};
use crate::chunk_store::{PACKS_PER_INDEX, write_index_to};
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SlotId, VaultId};
use crate::index::Index;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::PACK_LIMIT;
use crate::point::{self, VaultSession};
use crate::seal::slots::KeySlot;
use crate::store::{SMALL_OBJECT, Store, StoreHead, of_vault, replace_in_vault};
use crate::transfer::Transfer;
use crate::tree::reach::reachable;
use crate::vault::{ObjectName, VaultError};

pub use crate::store::{learn_points, load_catalog, prove_ours, refresh_vault};

/// Packs on their way at once: each is held in memory while it is sent.
const PACKS_AT_ONCE: usize = 4;

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
    let (vault, config) = match read_config(transfer) {
        Err(StoreError::Corrupt { .. }) => read_config(transfer)?,
        read => read?,
    };
    let mut slots = Vec::new();
    for object in transfer.list_all(names::SLOTS).map_err(of_vault(transfer))? {
        let Some(id) = names::slot_of(&object.name) else { continue };
        slots.extend(read_slot(transfer, &vault, &object.name)?.map(|bytes| (id, bytes)));
    }
    Ok(StoreHead { vault, config, slots })
}

fn read_config(transfer: &Transfer) -> Result<(VaultId, Vec<u8>), StoreError> {
    let config = read_small(transfer, &names::config())?
        .ok_or_else(|| StoreError::NotFound { what: format!("a store in vault {}", transfer.address()) })?;
    let vault = crate::format::config::StoreConfig::peek_vault_id(&config).map_err(|e| e.of("config"))?;
    Ok((vault, config))
}

/// Twice if need be: the way from the vault may have flipped a bit. One that is too long to be a slot is empty: damaged, and
/// no reason to stop.
fn read_slot(transfer: &Transfer, vault: &VaultId, name: &ObjectName) -> Result<Option<Vec<u8>>, StoreError> {
    let read = || match transfer.get(name, SMALL_OBJECT) {
        Err(VaultError::Invalid { .. }) => Ok(Some(Bytes::new())),
        Err(VaultError::NotFound { .. }) => Ok(None),
        got => got.map(Some).map_err(of_vault(transfer)),
    };
    let whole = |bytes: &Option<Bytes>| bytes.as_ref().is_none_or(|b| KeySlot::read(b, vault).is_ok());
    let first = read()?;
    let bytes = if whole(&first) { first } else { read()? };
    Ok(bytes.map(|bytes| bytes.to_vec()))
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
    let bad = store.catalog().bad_in(no)?;
    let is_there = |pack: &PackRow| pack.vaults.contains(&no) && !bad.contains(&pack.entry.id);
    let (there, missing): (Vec<_>, Vec<_>) = needed.into_iter().partition(is_there);
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
        match transfer.put_new(&names::session(id), object.into()) {
            // So is one that came there just now, from another push of the same point: sealed anew it has other bytes.
            Ok(_) | Err(VaultError::Conflict { .. }) => {}
            Err(e) => return Err(failed(e)),
        }
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
                        send_pack(store, no, transfer, pack, monitor)
                    };
                    match sent {
                        Ok(true) => {
                            let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            done.packs += 1;
                            done.bytes += pack.entry.len;
                        }
                        Ok(false) => {}
                        Err(e) => {
                            failed().get_or_insert(e);
                            return;
                        }
                    }
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

/// Sends a pack as the bytes it is, checked against its name first: what the local disk damaged must not go out. Other bytes
/// under its name in the vault are replaced. `false` if the vault's copy is damaged and there is no better one.
fn send_pack(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    pack: &PackRow,
    monitor: &dyn Monitor,
) -> Result<bool, StoreError> {
    let name = names::pack(&pack.entry.id);
    // It was read and found damaged; a missing one is not confirmed.
    let damaged = pack.vaults.contains(&no);
    let bytes = match right_bytes(store, no, pack) {
        Err(StoreError::Corrupt { .. } | StoreError::NotFound { .. }) if damaged => {
            let reason = format!("vault {}: it is damaged there, and nowhere else whole", transfer.address());
            monitor.event(Event::Problem { path: name.as_str().into(), reason });
            return Ok(false);
        }
        bytes => bytes?,
    };
    let put = if damaged { None } else { Some(transfer.put_new(&name, bytes.clone())) };
    match put {
        None | Some(Err(VaultError::Conflict { .. })) => {
            replace_in_vault(store, no, transfer, pack, bytes, monitor)?;
        }
        Some(put) => {
            put.map_err(of_vault(transfer))?;
            // What was read there before is gone.
            store.catalog().set_mark(Mark::BadIn(no, pack.entry.id), false)?;
            store.catalog().set_confirmed(pack.no, no, true)?;
        }
    }
    Ok(true)
}

/// The bytes of a pack that have its name, from staging or from another vault than `not_from`.
fn right_bytes(store: &Store, not_from: VaultNo, pack: &PackRow) -> Result<Bytes, StoreError> {
    let name = names::pack(&pack.entry.id);
    let right = |bytes: &Bytes| *blake3::hash(bytes).as_bytes() == pack.entry.id.0;
    let mut wrong = None;
    match store.staging().read_all(&name, PACK_LIMIT).map(|read| read.map(Bytes::from)) {
        Ok(Some(bytes)) if right(&bytes) => return Ok(bytes),
        Ok(Some(_)) => {
            store.catalog().set_bad(pack.no, true)?;
            let detail = "its bytes in the staging directory do not have its name";
            wrong = Some(StoreError::corrupt(name.as_str(), detail));
        }
        Ok(None) => {}
        Err(e) => wrong = Some(e),
    }
    for vault in pack.vaults.iter().filter(|vault| **vault != not_from) {
        match store.fetch_pack(&PackRow { vaults: vec![*vault], ..pack.clone() }) {
            Ok(bytes) if right(&bytes) => return Ok(bytes),
            Ok(_) => {
                let detail = "its bytes in another vault do not have its name";
                wrong.get_or_insert(StoreError::corrupt(name.as_str(), detail));
            }
            Err(e) => drop(wrong.get_or_insert(e)),
        }
    }
    Err(wrong.unwrap_or_else(|| StoreError::NotFound { what: format!("a whole {name}") }))
}

/// Covers the vault's packs that no index object there covers by a new one.
fn index_vault(store: &Store, no: VaultNo, transfer: &Transfer) -> Result<(), StoreError> {
    for packs in store.catalog().packs_without_index(Some(no))?.chunks(PACKS_PER_INDEX) {
        let mut index = Index::default();
        for pack in packs {
            if let Some(row) = store.catalog().pack(*pack)? {
                index.add(row.entry, &store.catalog().chunks_of(*pack)?);
            }
        }
        write_index_to(store.sealer(), store.catalog(), index, Some(no), |name, bytes| {
            transfer.put_new(name, bytes).map_err(of_vault(transfer)).map(drop)
        })?;
    }
    Ok(())
}
