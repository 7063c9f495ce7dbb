//! The key slots that people have, in staging and in vaults: without one, what a vault holds is of no use to a machine that has nothing.

use std::collections::BTreeSet;

use super::{Store, of_vault};
use crate::catalog::VaultNo;
use crate::error::StoreError;
use crate::id::SlotId;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::seal::slots::{KeySlot, SlotKind};
use crate::transfer::Transfer;

impl Store {
    /// Slots in staging that are whole and that a passphrase or a recovery key opens. Those of machines open nothing elsewhere.
    pub(crate) fn slots_of_people(&self) -> Result<Vec<(SlotId, Vec<u8>)>, StoreError> {
        let of_people =
            |bytes: &[u8]| KeySlot::read(bytes, self.id()).is_ok_and(|slot| slot.kind != SlotKind::Machine);
        let slots = Self::head(&self.dir)?.slots;
        Ok(slots.into_iter().filter(|(_, bytes)| of_people(bytes)).collect())
    }
}

/// Remembers the slots that a vault lists, and tells of one that was removed and is there again. Into one that lists none they are put again,
/// and each is told. One of several that is missing may have been removed by another machine, on purpose: it stays away.
pub(super) fn look_at_slots(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let listed = transfer.list_all(names::SLOTS).map_err(of_vault(transfer))?;
    let shown: BTreeSet<SlotId> = listed.iter().filter_map(|object| names::slot_of(&object.name)).collect();
    if !shown.is_empty() {
        return store.remember_slots(no, &shown, monitor);
    }
    for (id, bytes) in store.slots_of_people()? {
        transfer.put_new(&names::slot(&id), bytes.into()).map_err(of_vault(transfer))?;
        let reason =
            format!("it was missing from vault {}, as were all, and was put back", transfer.address());
        monitor.event(Event::Problem { path: names::slot(&id).as_str().into(), reason });
    }
    Ok(())
}
