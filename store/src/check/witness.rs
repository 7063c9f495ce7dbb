//! Is each vault still what it was? What it shows is held against what this machine remembers of it, and what other writers saw there
//! (`store/witness.rs`); and what only who reads can see: objects under the names of others, and points that do not follow each other.

use std::collections::BTreeMap;

use super::{Check, Depth};
use crate::catalog::{PointLine, VaultNo};
use crate::error::StoreError;
use crate::fence::Revocation;
use crate::id::SourceTag;
use crate::monitor::VoidMonitor;
use crate::names;
use crate::seal::slots::KeySlot;
use crate::store::{Alarm, AlarmKind, Evidence, Outcomes, POINT_LIMIT, of_vault, what_is_another};
use crate::transfer::Transfer;
use crate::vault::{ObjectInfo, ObjectName, VaultError};

/// A check reads the sessions of so many of the newest points of each source; one that reads all data, those of all.
const SESSIONS_OF_NEWEST: usize = 16;

impl Check<'_> {
    pub(super) fn witness(&mut self, depth: Depth) -> Result<(), StoreError> {
        let vaults = self.store.vaults();
        for (no, address, transfer) in vaults {
            let Some(listing) = self.listings.remove(no) else { continue };
            let Some(before) = self.remembered.remove(no).filter(|_| !self.away.contains(no)) else {
                continue;
            };
            let of_each = if depth == Depth::ReadData { usize::MAX } else { SESSIONS_OF_NEWEST };
            let looked = self.read_alarms(*no, transfer, &listing.points, of_each).and_then(|evidence| {
                self.store.look_back(*no, transfer, &before, &listing.points, evidence, &VoidMonitor)
            });
            match looked {
                Ok(alarms) => self.tell_of_vault(address, &alarms),
                Err(e) if e.is_vault_away() => self.leave_out(*no, &e),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn read_alarms(
        &mut self,
        no: VaultNo,
        transfer: &Transfer,
        points: &[ObjectInfo],
        of_each: usize,
    ) -> Result<Evidence, StoreError> {
        let (witnessed, mut alarms) = self.store.read_sessions(no, transfer, points, of_each)?;
        alarms.extend(self.store.broken_chains(no)?);
        alarms.extend(self.store.writer_alarms(no, |_| true)?);
        alarms.extend(self.swapped_heads(no, transfer, points)?);
        alarms.extend(self.swapped.remove(&no).unwrap_or_default());
        Ok(Evidence { witnessed, alarms, is_read: true, packs_missed: 0 })
    }

    /// The newest point of each source is read, whatever the depth: it is the one that a recovery begins with.
    fn swapped_heads(
        &mut self,
        no: VaultNo,
        transfer: &Transfer,
        points: &[ObjectInfo],
    ) -> Result<Vec<Alarm>, StoreError> {
        let mut newest: BTreeMap<SourceTag, PointLine> = BTreeMap::new();
        for (line, _) in self.store.catalog().lines_in(no)? {
            let head = newest.entry(line.tag).or_insert(line);
            if (line.sequence, line.id) > (head.sequence, head.id) {
                *head = line;
            }
        }
        let outcomes = Outcomes::of(points);
        let mut alarms = Vec::new();
        for line in newest.into_values() {
            self.goes_on()?;
            let held = outcomes.at(&line.tag, &line.id).iter().filter(|(_, len)| *len != Revocation::LEN);
            let Some(attempt) = held.map(|(attempt, _)| *attempt).max() else { continue };
            match transfer.get(&names::outcome(&line.tag, &attempt), POINT_LIMIT) {
                Err(VaultError::NotFound { .. }) => {}
                bytes => {
                    let bytes = bytes.map_err(of_vault(transfer))?;
                    let another = what_is_another(self.store.sealer(), (&line.tag, &attempt), &bytes);
                    if another.is_some() {
                        // A push puts the right one there.
                        self.store.doubt_points(no, &[line.id])?;
                    }
                    alarms.extend(another);
                }
            }
        }
        Ok(alarms)
    }

    pub(super) fn tell_of_vault(&mut self, address: &str, alarms: &[Alarm]) {
        for alarm in alarms {
            self.find(format!("vault {address}"), alarm.sentence(address));
        }
    }

    /// Of what lies under the name of a point and is not that.
    pub(super) fn look_for_another(&mut self, no: VaultNo, name: &ObjectName, bytes: &[u8]) {
        let Some((tag, attempt)) = names::outcome_of(name) else { return };
        let another = what_is_another(self.store.sealer(), (&tag, &attempt), bytes);
        self.swapped.entry(no).or_default().extend(another);
    }

    /// Of a slot in a vault: whether it is whole, and not the one that it is here, or lies under the name of another.
    pub(super) fn look_for_another_slot(
        &mut self,
        no: VaultNo,
        name: &ObjectName,
        bytes: &[u8],
        own: &BTreeMap<ObjectName, (String, Vec<u8>)>,
    ) {
        let Some(id) = names::slot_of(name) else { return };
        let Ok(slot) = KeySlot::read(bytes, self.store.id()) else { return };
        let detail = match own.get(name) {
            _ if slot.id != id => format!("under the name of key slot {id} lies slot {}", slot.id),
            Some((_, here)) if here != bytes => {
                format!("key slot {id} is not the one that lies in this store's directory")
            }
            _ => return,
        };
        let alarm = Alarm::read(AlarmKind::SlotSwapped, id.hex(), detail);
        self.swapped.entry(no).or_default().push(alarm);
    }
}
