//! Removing a recovery point from a place. That it is to go is noted first, and the note is taken back with the row (`catalog/points.rs`):
//! whoever finds a point missing that was to go there ends what a crash cut off, and nobody is alarmed. A point that is held stays.

use super::{Store, of_vault};
use crate::catalog::{Mark, PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::fence::{Revocation, Why};
use crate::id::RecoveryPointId;
use crate::names;

impl Store {
    /// Removes a point from staging. The object goes before the catalog's word of it, because what the catalog still knows keeps its
    /// packs. The caller holds the store's lock.
    pub fn remove_staged_point(&self, row: &PointRow) -> Result<(), StoreError> {
        self.catalog.set_mark(Mark::Going(None, row.id), true)?;
        self.refuse_held(&row.id, None)?;
        self.staging.remove(&names::point(&row.tag, &row.id))?;
        self.catalog.remove_point(&row.id, None)
    }

    /// Removes a point from a vault. The caller holds the lock of removals from vaults.
    pub fn remove_point_from_vault(&self, no: VaultNo, row: &PointRow) -> Result<(), StoreError> {
        let transfer = self.vault(no)?;
        let failed = of_vault(transfer);
        self.catalog.set_mark(Mark::Going(Some(no), row.id), true)?;
        let hold = names::hold(&row.tag, &row.id);
        self.learn_hold(no, transfer, &hold, Deadline::NEVER)?;
        self.refuse_held(&row.id, Some(no))?;
        transfer.delete(&names::point(&row.tag, &row.id)).map_err(&failed)?;
        // Another machine that put one just now may have seen the point, and said that it is held.
        if self.learn_hold(no, transfer, &hold, Deadline::NEVER)? {
            self.give_back(no, row)?;
            self.refuse_held(&row.id, Some(no))?;
        }
        // A put of it that is still on its way, from a process that was held up, must not bring it back.
        let at = self.clock.now().seconds;
        let revocation = Revocation { id: row.id, tag: row.tag, why: Why::Forgotten, at };
        if !self.revoke(no, &revocation)? {
            let detail = "it came back while it was removed; forget it once more";
            return Err(StoreError::invalid(format!("recovery point {}: {detail}", row.id.short())));
        }
        transfer.delete(&names::session(&row.id)).map_err(&failed)?;
        self.catalog.remove_point(&row.id, Some(no))
    }

    fn give_back(&self, no: VaultNo, row: &PointRow) -> Result<(), StoreError> {
        let transfer = self.vault(no)?;
        let put = transfer.put_new(&names::point(&row.tag, &row.id), row.object.clone().into());
        put.map(drop).map_err(|e| self.why_not_there(no, transfer, row, e))
    }

    /// Of a point that is missing from staging or a vault: whether it was to go there. If so, it is gone there from now on.
    pub(crate) fn end_removal(
        &self,
        id: &RecoveryPointId,
        vault: Option<VaultNo>,
    ) -> Result<bool, StoreError> {
        let was_to_go = self.catalog.has_mark(Mark::Going(vault, *id))?;
        if was_to_go && !self.read_only {
            self.catalog.remove_point(id, vault)?;
        }
        Ok(was_to_go)
    }
}
