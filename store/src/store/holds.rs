//! Holds: a point of which any place has a hold that opens stays, in every tier. A hold lies in staging, where it was placed, and in each vault that
//! has the point.
//!
//! Placing takes no lock. A hold is known here before it is looked whether the point is to go, and that a point is to go is noted before
//! it is looked for holds (`store/forget.rs`): of two who meet, one sees the other. So it is in a vault: a hold is put before it is looked
//! whether the point is there, and a point is taken away before it is looked for a hold the last time.

use std::collections::{HashMap, HashSet};

use super::{Proven, Reads, SMALL_OBJECT, Store, of_vault, put_proven};
use crate::catalog::{HoldRow, Mark, PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::format::FormatError;
use crate::id::{RecoveryPointId, SourceTag};
use crate::monitor::{Event, Monitor, VoidMonitor};
use crate::names;
use crate::point::hold::Hold;
use crate::point::object::{open_hold, seal_hold};
use crate::transfer::Transfer;
use crate::vault::{ObjectName, VaultError};

impl Store {
    /// All points that are held. A hold that does not open holds all the same, without saying why.
    pub fn holds(&self) -> Result<HashMap<RecoveryPointId, Hold>, StoreError> {
        let opened = |row: HoldRow| (row.point, self.open_known(&row));
        Ok(self.catalog.holds()?.into_iter().map(opened).collect())
    }

    fn open_known(&self, row: &HoldRow) -> Hold {
        let reason = |e: FormatError| Hold { point: row.point, placed: 0, reason: format!("the hold: {e}") };
        open_hold(&row.object, &self.sealer, &row.point).unwrap_or_else(reason)
    }

    /// Holds a point here; [`Self::bring_holds`] tells the vaults. One that is held stays held as it was.
    ///
    /// # Errors
    /// `NotFound` if there is no such point; `Invalid` if it is just being removed, or for a reason that is too long.
    pub fn place_hold(&self, id: &RecoveryPointId, reason: &str) -> Result<Hold, StoreError> {
        let gone = || StoreError::NotFound { what: format!("recovery point {id}") };
        let point = self.catalog.point(id)?.ok_or_else(gone)?;
        let known = self.catalog.holds()?.into_iter().find(|hold| hold.point == *id);
        let row = match known {
            Some(row) if row.staged => return Ok(self.open_known(&row)),
            Some(row) => HoldRow { staged: true, ..row },
            None => {
                let hold = Hold { point: *id, placed: self.clock.now().seconds, reason: reason.to_owned() };
                let object = seal_hold(&hold, &self.sealer)?;
                HoldRow { point: *id, tag: point.tag, object, staged: true, vaults: Vec::new() }
            }
        };
        self.staging.put(&names::hold(&row.tag, id), &row.object)?;
        self.catalog.add_hold(&row)?;
        let mut places = point.vaults.iter().map(|no| Some(*no)).chain([None]);
        let is_going = places.try_fold(false, |going, place| {
            Ok::<_, StoreError>(going || self.catalog.has_mark(Mark::Going(place, *id))?)
        })?;
        if is_going || self.catalog.point(id)?.is_none() {
            self.release_here(&row)?;
            let detail = format!("recovery point {} is just being removed, and is not held", id.short());
            return Err(StoreError::invalid(detail));
        }
        Ok(self.open_known(&row))
    }

    /// Takes a hold away from staging.
    pub fn release_here(&self, row: &HoldRow) -> Result<(), StoreError> {
        self.staging.remove(&names::hold(&row.tag, &row.point))?;
        self.catalog.remove_hold(&row.point, None)
    }

    /// Takes the hold of a point away from a vault, also one that does not open; whether there was one.
    pub fn release_in_vault(
        &self,
        no: VaultNo,
        tag: &SourceTag,
        id: &RecoveryPointId,
    ) -> Result<bool, StoreError> {
        let (transfer, name) = (self.vault(no)?, names::hold(tag, id));
        if transfer.stat(&name).map_err(of_vault(transfer))?.is_none() {
            return self.catalog.remove_hold(id, Some(no)).map(|()| false);
        }
        transfer.delete(&name).map_err(of_vault(transfer))?;
        self.catalog.remove_hold(id, Some(no)).map(|()| true)
    }

    /// Tells a vault of what was held here of the points that it has; how many holds it was told of. A point that turns out not to be there
    /// any more is not held there.
    pub fn bring_holds(&self, no: VaultNo) -> Result<usize, StoreError> {
        let (transfer, mut brought) = (self.vault(no)?, 0);
        for row in self.catalog.holds()?.into_iter().filter(|row| row.staged && !row.vaults.contains(&no)) {
            let Some(point) = self.catalog.point(&row.point)? else { continue };
            if !self.vaults_of(&point)?.contains(&no) {
                continue;
            }
            let name = names::hold(&row.tag, &row.point);
            let is_whole = open_hold(&row.object, &self.sealer, &row.point).is_ok();
            let reads = |there: &[u8]| match open_hold(there, &self.sealer, &row.point) {
                // Another machine's, perhaps of a newer key, or one that was placed anew meanwhile: a hold is a hold, whatever it says.
                Ok(_) | Err(FormatError::NoKey(_)) => Reads::Whole,
                Err(e) if is_whole && e.is_damage() => Reads::Damaged,
                Err(_) => Reads::Unclear,
            };
            let put = put_proven(transfer, &name, &row.object.clone().into(), &reads, &VoidMonitor)?;
            // Else somebody else holds it, too.
            let is_ours = matches!(put, Proven::Ours);
            // Not before: who removes the point looks for a hold when it is gone.
            if !self.is_still_in(no, &point)? {
                if is_ours {
                    self.take_back(transfer, &name)?;
                }
                continue;
            }
            self.catalog.add_hold(&HoldRow { staged: false, vaults: vec![no], ..row })?;
            brought += 1;
        }
        Ok(brought)
    }

    /// A hold of nothing keeps nothing, so it may stay where nobody may remove it.
    fn take_back(&self, transfer: &Transfer, name: &ObjectName) -> Result<(), StoreError> {
        match transfer.delete(name).map(drop).map_err(of_vault(transfer)) {
            Err(e) if e.class() == ErrorClass::Cancelled => Err(e),
            Err(e) => {
                tracing::warn!("{name}: {e}; it is of a recovery point that is not there any more");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Makes the catalog know the holds that a vault shows, and no others of it. One that does not open is told in the log and keeps its point
    /// in that vault alone ([`Self::hold_in`]). The caller knows that the vault is ours.
    pub fn learn_holds(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        deadline: Deadline,
    ) -> Result<(), StoreError> {
        let known = self.catalog.holds()?.into_iter().filter(|row| row.vaults.contains(&no));
        let mut known: HashSet<RecoveryPointId> = known.map(|row| row.point).collect();
        for object in names::list(transfer, names::HOLDS, deadline).map_err(of_vault(transfer))? {
            let Some((_, point)) = names::hold_of(&object.name) else { continue };
            if known.remove(&point) {
                continue;
            }
            match self.learn_hold(no, transfer, &object.name, deadline) {
                Err(e @ (StoreError::Corrupt { .. } | StoreError::NoKey { .. })) => {
                    tracing::warn!("vault {}: {e}", transfer.address());
                }
                learnt => learnt?,
            }
        }
        // It was released there.
        known.iter().try_for_each(|point| self.catalog.remove_hold(point, Some(no)))
    }

    /// Makes the catalog know a hold in a vault, if there is one.
    fn learn_hold(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        name: &ObjectName,
        deadline: Deadline,
    ) -> Result<(), StoreError> {
        let Some((tag, point)) = names::hold_of(name) else { return Ok(()) };
        let read = || match transfer.get_by(name, SMALL_OBJECT, deadline) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            // It was released meanwhile, or is too long to be one.
            Err(VaultError::NotFound { .. }) => Ok(None),
            Err(VaultError::Invalid { .. }) => Ok(Some(Vec::new())),
            Err(e) => Err(of_vault(transfer)(e)),
        };
        let opens = |bytes: &Vec<u8>| open_hold(bytes, &self.sealer, &point).map(drop);
        let Some(bytes) = read()? else { return Ok(()) };
        // Twice if need be: the way from the vault may have flipped a bit.
        let again = if opens(&bytes).is_ok() { Some(bytes) } else { read()? };
        let Some(object) = again else { return Ok(()) };
        opens(&object).map_err(|e| match e {
            FormatError::NoKey(_) => e.of(name.as_str()),
            _ => StoreError::corrupt(name.as_str(), e.to_string()),
        })?;
        self.catalog.add_hold(&HoldRow { point, tag, object, staged: false, vaults: vec![no] })
    }

    /// Why a point is not to be removed from a vault: it is held, here or there. A hold there that does not open counts: another machine may
    /// have put it, and by it alone.
    pub(super) fn hold_in(&self, no: VaultNo, row: &PointRow) -> Result<Option<StoreError>, StoreError> {
        let name = names::hold(&row.tag, &row.id);
        match self.learn_hold(no, self.vault(no)?, &name, Deadline::NEVER) {
            Err(StoreError::Corrupt { object, detail }) => {
                let detail = format!("{detail}; the recovery point stays, unless you `release` it");
                Ok(Some(StoreError::corrupt(object, detail)))
            }
            learnt => learnt.and_then(|()| Ok(self.catalog.is_held(&row.id)?.then(|| held(&row.id)))),
        }
    }

    /// Makes the catalog know the holds in staging. One that does not open is told and holds all the same: nobody but the owner writes there.
    pub(super) fn adopt_holds(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        let known = self.catalog.holds()?.into_iter().filter(|row| row.staged);
        let known: HashSet<RecoveryPointId> = known.map(|row| row.point).collect();
        for object in self.staging.list("hold")? {
            let Some((tag, point)) = names::hold_of(&object.name).filter(|(_, id)| !known.contains(id))
            else {
                continue;
            };
            let Some(bytes) = self.read_object(&object.name, SMALL_OBJECT, monitor)? else { continue };
            if let Err(e) = open_hold(&bytes, &self.sealer, &point) {
                let path = object.name.as_str().into();
                monitor.event(Event::Problem { path, reason: e.to_string() });
            }
            if !self.read_only {
                // Whoever put it may have been cut off before its name was durable.
                self.staging.make_durable(&object.name)?;
            }
            self.catalog.add_hold(&HoldRow {
                point,
                tag,
                object: bytes,
                staged: true,
                vaults: Vec::new(),
            })?;
            // It was released just now.
            if self.staging.len(&object.name)?.is_none() {
                self.catalog.remove_hold(&point, None)?;
            }
        }
        Ok(())
    }

    /// Refuses to remove a point that is held here.
    pub(super) fn refuse_held(&self, id: &RecoveryPointId, place: Option<VaultNo>) -> Result<(), StoreError> {
        match self.catalog.is_held(id)? {
            true => self.keep(id, place, held(id)),
            false => Ok(()),
        }
    }

    /// Takes back that a point was to go, and says why.
    pub(super) fn keep<T>(
        &self,
        id: &RecoveryPointId,
        place: Option<VaultNo>,
        why: StoreError,
    ) -> Result<T, StoreError> {
        self.catalog.set_mark(Mark::Going(place, *id), false)?;
        Err(why)
    }
}

fn held(id: &RecoveryPointId) -> StoreError {
    StoreError::invalid(format!("recovery point {} is held; it stays", id.short()))
}
