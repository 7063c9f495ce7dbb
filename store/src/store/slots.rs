//! The key slots that people have, in staging and in vaults: without one, what a vault holds is of no use to a machine that has nothing.

use bytes::Bytes;

use super::{Proven, Reads, SMALL_OBJECT, Store, of_vault, put_proven};
use crate::catalog::VaultNo;
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::format::config::StoreConfig;
use crate::id::SlotId;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::seal::slots::{KeySlot, SlotError, SlotKind};
use crate::transfer::Transfer;
use crate::vault::{ObjectInfo, ObjectName, VaultError};

impl Store {
    /// Slots in staging that are whole and that a passphrase or a recovery key opens. Those of machines open nothing elsewhere.
    pub(crate) fn slots_of_people(&self) -> Result<Vec<(SlotId, Vec<u8>)>, StoreError> {
        let of_people =
            |bytes: &[u8]| KeySlot::read(bytes, self.id()).is_ok_and(|slot| slot.kind != SlotKind::Machine);
        let slots = Self::head(&self.dir)?.slots;
        Ok(slots.into_iter().filter(|(_, bytes)| of_people(bytes)).collect())
    }
}

/// Remembers the slots that a vault lists, and tells of one that was removed and is there again. Into one where people have nothing that opens
/// what is sealed now their slots are put, and each is told. One of several that is missing may have been removed by another machine, on
/// purpose: it stays away.
pub(super) fn look_at_slots(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let listed = names::list(transfer, names::SLOTS, Deadline::NEVER).map_err(of_vault(transfer))?;
    let ours: Vec<_> =
        store.slots_of_people()?.into_iter().filter(|slot| opens_all(store, &slot.1)).collect();
    let is_ours = |object: &ObjectInfo| {
        let id = names::slot_of(&object.name);
        ours.iter().any(|(ours, bytes)| id == Some(*ours) && object.len == bytes.len() as u64)
    };
    if ours.is_empty() || listed.iter().any(is_ours) || others_open_all(store, transfer, &listed)? {
        let shown = listed.iter().filter_map(|object| names::slot_of(&object.name)).collect();
        return store.remember_slots(no, &shown, monitor).map(drop);
    }
    for (id, bytes) in ours {
        let what = match put_slot(store, transfer, (&id, bytes), monitor) {
            // Who may not write there leaves it to others. What is pushed opens here all the same.
            Err(e) if e.class() == ErrorClass::Denied => {
                format!(
                    "has no key slot with which people open what is sealed now, and this one cannot be put there: {e}"
                )
            }
            put => {
                put?;
                "had no key slot with which people open what is sealed now; this one was put there".to_owned()
            }
        };
        let reason = format!("vault {} {what}", transfer.address());
        monitor.event(Event::Problem { path: names::slot(&id).as_str().into(), reason });
    }
    Ok(())
}

/// Whether a slot is one of people and says that it opens what this machine seals now.
fn opens_all(store: &Store, bytes: &[u8]) -> bool {
    let slot = KeySlot::read(bytes, store.id()).ok().filter(|slot| slot.kind != SlotKind::Machine);
    slot.is_some_and(|slot| slot.newest() >= store.sealer().generation())
}

/// The same of slots in a vault that this machine does not have.
fn others_open_all(store: &Store, transfer: &Transfer, listed: &[ObjectInfo]) -> Result<bool, StoreError> {
    for object in listed.iter().filter(|object| names::slot_of(&object.name).is_some()) {
        match transfer.get(&object.name, SMALL_OBJECT) {
            Ok(bytes) if opens_all(store, &bytes) => return Ok(true),
            Ok(_) | Err(VaultError::NotFound { .. } | VaultError::Invalid { .. }) => {}
            Err(e) => return Err(of_vault(transfer)(e)),
        }
    }
    Ok(false)
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
