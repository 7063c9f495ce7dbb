//! Removing a recovery point from a place. That it is to go is noted first, and the note is taken back with the row (`catalog/points.rs`):
//! whoever finds a point missing that was to go there ends what a crash cut off, and nobody is alarmed. A point that is held stays.

use super::{Outcomes, Store, of_vault};
use crate::catalog::{Mark, PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::fence::{Revocation, Why};
use crate::id::{Attempt, RecoveryPointId, SourceTag};
use crate::names;
use crate::vault::keeper::Lock;
use crate::vault::{ObjectInfo, VaultError};

impl Store {
    /// Removes a point from staging. The object goes before the catalog's word of it, because what the catalog still knows keeps its
    /// packs. The caller holds the store's lock.
    pub fn remove_staged_point(&self, row: &PointRow) -> Result<(), StoreError> {
        self.catalog.set_mark(Mark::Going(None, row.id), true)?;
        self.refuse_held(&row.id, None)?;
        self.staging.remove(&names::point(&row.tag, &row.id))?;
        self.catalog.remove_point(&row.id, None)
    }

    /// A point that somebody wants back is not on its way out of staging any more. Where its removal was cut off after the object went, it is put
    /// again: the catalog has it as it was. The caller has the lock of removals from vaults.
    ///
    /// # Errors
    /// Another process writes to the store, if the object is to be put.
    pub fn keep_staged_point(&self, id: &RecoveryPointId) -> Result<(), StoreError> {
        let Some(row) = self.catalog.point(id)?.filter(|row| row.staged) else { return Ok(()) };
        let name = names::point(&row.tag, id);
        if self.staging.len(&name)?.is_none() {
            let _lock = self.lock()?;
            self.staging.put(&name, &row.object)?;
        }
        self.are_not_going(None, [*id])
    }

    /// Removes a point from a vault, whichever attempt brought it there. The caller holds the lock of removals from vaults.
    pub fn remove_point_from_vault(&self, no: VaultNo, row: &PointRow) -> Result<(), StoreError> {
        let transfer = self.vault(no)?;
        let (failed, going) = (of_vault(transfer), Mark::Going(Some(no), row.id));
        let was_going = self.catalog.has_mark(going)?;
        self.catalog.set_mark(going, true)?;
        let listed = match self.look_before_removal(no, row) {
            // What is still there, and does not go now, is not on its way out.
            Err(e) if !was_going => return self.keep(&row.id, Some(no), e),
            listed => listed?,
        };
        let mut last = None;
        for (attempt, len) in Outcomes::of(&listed).at(&row.tag, &row.id) {
            let name = (&row.tag, attempt);
            if *len == Revocation::LEN && self.look_for_revocation(no, transfer, name)?.is_some() {
                continue;
            }
            let name = names::outcome(&row.tag, attempt);
            // Before anything is said of it: it would stay, with the word that it was to go.
            if let Some(lock) = transfer.lock_of(&name).map_err(&failed)? {
                let locked = failed(VaultError::Locked { what: name.to_string(), lock });
                return self.keep_in_vault(no, row, attempt, locked);
            }
            self.announce(no, row, attempt)?;
            match transfer.delete(&name) {
                Err(e @ (VaultError::Locked { .. } | VaultError::Denied { .. })) => {
                    return self.keep_in_vault(no, row, attempt, failed(e));
                }
                gone => gone.map_err(&failed)?,
            };
            // Another machine that put one just now may have seen the point, and said that it is held.
            if let Some(held) = self.hold_in(no, row)? {
                self.give_back(no, row, attempt)?;
                return self.keep_in_vault(no, row, attempt, held);
            }
            // A put of it that is still on its way, from a process that was held up, must not bring it back.
            last = Some(self.end_attempt(no, &row.tag, attempt)?.ok_or_else(|| came_back(row))?);
        }
        if last != Some(Why::Forgotten) && !self.forbid(no, (&row.tag, &row.id))? {
            return Err(came_back(row));
        }
        self.catalog.remove_point(&row.id, Some(no))
    }

    /// What keeps a point in a vault, if something does that shows.
    pub fn lock_of_point(&self, no: VaultNo, row: &PointRow) -> Result<Option<Lock>, StoreError> {
        let transfer = self.vault(no)?;
        if !transfer.is_kept() {
            return Ok(None);
        }
        let failed = of_vault(transfer);
        let listed = names::list(transfer, &names::points_of(&row.tag), Deadline::NEVER).map_err(&failed)?;
        for (attempt, len) in Outcomes::of(&listed).at(&row.tag, &row.id) {
            if *len == Revocation::LEN {
                continue;
            }
            if let Some(lock) = transfer.lock_of(&names::outcome(&row.tag, attempt)).map_err(&failed)? {
                return Ok(Some(lock));
            }
        }
        Ok(None)
    }

    /// What a vault has of a point's source, unless the point is held.
    fn look_before_removal(&self, no: VaultNo, row: &PointRow) -> Result<Vec<ObjectInfo>, StoreError> {
        if let Some(held) = self.hold_in(no, row)? {
            return self.keep(&row.id, Some(no), held);
        }
        let transfer = self.vault(no)?;
        names::list(transfer, &names::points_of(&row.tag), Deadline::NEVER).map_err(of_vault(transfer))
    }

    /// Points that a place shows are not on their way out of it any more, where a removal was cut off before they went. The caller keeps
    /// everybody from removing any there.
    pub fn are_not_going(
        &self,
        from: Option<VaultNo>,
        shown: impl IntoIterator<Item = RecoveryPointId>,
    ) -> Result<(), StoreError> {
        for id in shown {
            let going = Mark::Going(from, id);
            if !self.catalog.has_mark(going)? {
                continue;
            }
            if let (Some(no), Some(row)) = (from, self.catalog.point(&id)?) {
                let at = Attempt { point: id, number: self.catalog.seen_at(no, &id)? };
                self.put_behind_word(no, &row, &at)?;
            }
            self.catalog.set_mark(going, false)?;
        }
        Ok(())
    }

    /// Sees to it that nobody brings a point into a vault again who is not told to: the last word there is that it was forgotten. `false` if
    /// the point is there.
    fn forbid(&self, no: VaultNo, point: (&SourceTag, &RecoveryPointId)) -> Result<bool, StoreError> {
        let transfer = self.vault(no)?;
        loop {
            let next = self.next_attempt(no, transfer, point)?;
            let Some(attempt) = next.attempt else { return Ok(true) };
            let is_begun = || transfer.stat(&names::session(&attempt)).map_err(of_vault(transfer));
            if next.revoked == Some(Why::Forgotten) && !next.ended && is_begun()?.is_none() {
                return Ok(true);
            }
            match self.end_attempt(no, point.0, &attempt)? {
                None => return Ok(false),
                Some(Why::Forgotten) => return Ok(true),
                // Somebody took it for dead just now.
                Some(Why::Silent) => {}
            }
        }
    }

    /// Ends an attempt without a point, unless there is one. What the word there says.
    fn end_attempt(
        &self,
        no: VaultNo,
        tag: &SourceTag,
        attempt: &Attempt,
    ) -> Result<Option<Why>, StoreError> {
        let transfer = self.vault(no)?;
        let why = self.revoke(no, (tag, attempt), Why::Forgotten)?;
        if why.is_some() {
            match transfer.delete(&names::session(attempt)) {
                // Reclaim removes it later.
                Ok(_) | Err(VaultError::Locked { .. }) => {}
                Err(e) => return Err(of_vault(transfer)(e)),
            }
        }
        Ok(why)
    }

    /// Puts the word that a point was forgotten behind it, before it goes: whoever looks until the word stands in its own place, be it
    /// for ever, finds that one.
    fn announce(&self, no: VaultNo, row: &PointRow, attempt: &Attempt) -> Result<(), StoreError> {
        let Some(next) = attempt.next() else { return Ok(()) };
        self.revoke(no, (&row.tag, &next), Why::Forgotten)?.map(drop).ok_or_else(|| came_back(row))
    }

    /// Of a point that is there at an attempt and stays, though it was to go: why it does.
    fn keep_in_vault(
        &self,
        no: VaultNo,
        row: &PointRow,
        attempt: &Attempt,
        why: StoreError,
    ) -> Result<(), StoreError> {
        // While that fails the point is to go.
        match self.put_behind_word(no, row, attempt) {
            Ok(()) => self.keep(&row.id, Some(no), why),
            Err(e) => {
                tracing::debug!(
                    "recovery point {}: {e}; the word that it was to go stays the last",
                    row.id.short()
                );
                Err(why)
            }
        }
    }

    fn give_back(&self, no: VaultNo, row: &PointRow, attempt: &Attempt) -> Result<(), StoreError> {
        let (transfer, name) = (self.vault(no)?, names::outcome(&row.tag, attempt));
        let put = transfer.put_new(&name, row.object.clone().into());
        put.map(drop).map_err(|e| self.why_not_there(no, transfer, (&row.tag, attempt), e))
    }

    /// Of a point that is missing from staging or a vault: whether it was to go there. If so, it is gone there from now on, unless it is held:
    /// then it is there again, if it can be.
    pub(crate) fn end_removal(
        &self,
        id: &RecoveryPointId,
        from: Option<(VaultNo, &SourceTag)>,
    ) -> Result<bool, StoreError> {
        let vault = from.map(|(no, _)| no);
        if !self.catalog.has_mark(Mark::Going(vault, *id))? {
            return Ok(false);
        }
        if self.read_only {
            return Ok(true);
        }
        let left = match from {
            None if self.catalog.is_held(id)? => Ok(Left::Missing),
            None => Ok(Left::Gone),
            Some((no, tag)) => self.end_removal_from(no, (tag, id)),
        };
        match left {
            Ok(Left::Gone) => self.catalog.remove_point(id, vault)?,
            Ok(left) => {
                self.catalog.set_mark(Mark::Going(vault, *id), false)?;
                return Ok(left == Left::There);
            }
            // Who may not write there leaves it to others: until then it is on its way out.
            Err(e)
                if matches!(e.class(), ErrorClass::Denied | ErrorClass::Unavailable | ErrorClass::Full) =>
            {
                tracing::debug!("recovery point {}: {e}; its removal is not at its end", id);
            }
            Err(e) => return Err(e),
        }
        Ok(true)
    }

    fn end_removal_from(
        &self,
        no: VaultNo,
        point: (&SourceTag, &RecoveryPointId),
    ) -> Result<Left, StoreError> {
        let row = self.catalog.point(point.1)?;
        // Whoever held it may have seen it there.
        let held = row.map(|row| self.hold_in(no, &row).map(|held| held.map(|_| row))).transpose()?.flatten();
        let Some(row) = held else {
            let is_gone = self.forbid(no, point)?;
            return Ok(if is_gone { Left::Gone } else { Left::There });
        };
        let next = self.next_attempt(no, self.vault(no)?, point)?;
        // While no word stands there, nobody took the session for dead, and what the point needs is there.
        let seen = self.catalog.seen_at(no, &row.id)?;
        match next.attempt.filter(|attempt| attempt.number <= seen) {
            Some(attempt) => {
                if !next.ended {
                    self.give_back(no, &row, &attempt)?;
                }
                self.put_behind_word(no, &row, &attempt).map(|()| Left::There)
            }
            None => Ok(Left::Missing),
        }
    }
}

/// What became of a point whose removal was cut off.
#[derive(PartialEq, Eq)]
enum Left {
    Gone,
    /// It came again, or was given back because it is held.
    There,
    /// It is held and cannot be given back.
    Missing,
}

fn came_back(row: &PointRow) -> StoreError {
    let detail = "it came back while it was removed; forget it once more";
    StoreError::invalid(format!("recovery point {}: {detail}", row.id.short()))
}
