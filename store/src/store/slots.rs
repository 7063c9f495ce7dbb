//! The key slots that people have, in staging and in vaults: without one, what a vault holds is of no use to a machine that has nothing.

use bytes::Bytes;

use super::{Proven, Reads, Store, of_vault, put_proven};
use crate::error::StoreError;
use crate::format::config::StoreConfig;
use crate::id::SlotId;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::seal::slots::{KeySlot, SlotError, SlotKind};
use crate::transfer::Transfer;
use crate::vault::{ObjectName, VaultError};

impl Store {
    /// Slots in staging that are whole and that a passphrase or a recovery key opens. Those of machines open nothing elsewhere.
    pub(crate) fn slots_of_people(&self) -> Result<Vec<(SlotId, Vec<u8>)>, StoreError> {
        let of_people =
            |bytes: &[u8]| KeySlot::read(bytes, self.id()).is_ok_and(|slot| slot.kind != SlotKind::Machine);
        let slots = Self::head(&self.dir)?.slots;
        Ok(slots.into_iter().filter(|(_, bytes)| of_people(bytes)).collect())
    }
}

/// Puts the slots into a vault that lists none, and tells each. One of several that is missing may have been removed by another
/// machine, on purpose: it stays away.
pub(super) fn put_back(store: &Store, transfer: &Transfer, monitor: &dyn Monitor) -> Result<(), StoreError> {
    let listed = transfer.list_all(names::SLOTS).map_err(of_vault(transfer))?;
    if listed.iter().any(|object| names::slot_of(&object.name).is_some()) {
        return Ok(());
    }
    for (id, bytes) in store.slots_of_people()? {
        put_slot(store, transfer, (&id, bytes), monitor)?;
        let reason =
            format!("it was missing from vault {}, as were all, and was put back", transfer.address());
        monitor.event(Event::Problem { path: names::slot(&id).as_str().into(), reason });
    }
    Ok(())
}

/// Puts a slot into a vault, and the whole one in the place of one that is damaged there.
///
/// # Errors
/// `Conflict` if another one is there that reads as well.
pub fn put_slot(
    store: &Store,
    transfer: &Transfer,
    (id, bytes): (&SlotId, Vec<u8>),
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let is_whole = KeySlot::read(&bytes, store.id()).is_ok_and(|slot| slot.id == *id);
    let name = names::slot(id);
    let is_damage = |e: &SlotError| matches!(e, SlotError::Damaged(_) | SlotError::NotOurs(_));
    let reads = |there: &[u8]| match KeySlot::read(there, store.id()) {
        Err(e) if is_whole && is_damage(&e) => Reads::Damaged,
        // What is sealed in one only its secret proves, and no two slots have the same id.
        _ => Reads::Unclear,
    };
    match put_proven(transfer, &name, &bytes.into(), &reads, monitor)? {
        Proven::Ours => Ok(()),
        Proven::Theirs => Err(other_bytes(transfer, &name)),
    }
}

/// Puts the config into a vault, and the whole one in the place of one of this store that is damaged there: without it nobody recovers
/// anything.
///
/// # Errors
/// `Conflict` if there is another thing in its place, which may be another store's.
pub(crate) fn put_config(
    store: &Store,
    transfer: &Transfer,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    match config_is_put_right(store, transfer, monitor)? {
        true => Ok(()),
        false => Err(other_bytes(transfer, &names::config())),
    }
}

/// The same; `false` if there is another thing in its place.
pub(super) fn config_is_put_right(
    store: &Store,
    transfer: &Transfer,
    monitor: &dyn Monitor,
) -> Result<bool, StoreError> {
    let is_of_ours =
        |there: &[u8]| StoreConfig::peek_vault_id(there).is_ok_and(|theirs| theirs == *store.id());
    let reads = |there: &[u8]| match StoreConfig::decode(there, store.sealer()) {
        Ok(_) => Reads::Whole,
        Err(e) if e.is_damage() && is_of_ours(there) => Reads::Damaged,
        Err(_) => Reads::Foreign,
    };
    let ours = Bytes::copy_from_slice(store.config_object());
    let put = put_proven(transfer, &names::config(), &ours, &reads, monitor)?;
    Ok(matches!(put, Proven::Ours))
}

fn other_bytes(transfer: &Transfer, name: &ObjectName) -> StoreError {
    let detail = "its bytes are others; if nobody uses the vault, remove it by hand".to_owned();
    of_vault(transfer)(VaultError::Conflict { what: name.to_string(), detail })
}
