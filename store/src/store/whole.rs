//! Packs of staging that were read and found damaged, or are missing or cut, and that a vault has whole: its bytes take their place.
//!
//! What was damaged keeps its bytes in `bad/`, and nothing goes there before the right bytes are in memory and were opened. Cut off in
//! between, the pack is missing here, which the next listing tells, and is read from the vault.

use super::Store;
use crate::catalog::{Mark, PackRow, Relied, VaultNo};
use crate::error::{ErrorClass, StoreError};
use crate::id::PackId;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::{self, PACK_LIMIT};

/// A pack of staging whose bytes are right again, and the vault that gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healed {
    /// The pack.
    pub pack: PackId,
    /// The vault.
    pub from: VaultNo,
}

impl Store {
    /// Puts right what it can. What no vault gives whole stays as it is. Nobody waits for a vault who has the store's lock.
    ///
    /// # Errors
    /// `Locked` while another process writes to the store.
    pub fn heal_staging(&self, monitor: &dyn Monitor) -> Result<Vec<Healed>, StoreError> {
        let (mut healed, mut away) = (Vec::new(), Vec::new());
        for row in self.wrong_here()? {
            if monitor.cancelled() {
                return Err(StoreError::Cancelled);
            }
            if let Some((from, bytes)) = self.whole_in_a_vault(&row, &mut away)?
                && self.put_in_place(&row, &bytes, from, monitor)?
            {
                healed.push(Healed { pack: row.entry.id, from });
            }
        }
        Ok(healed)
    }

    /// Packs of staging that are damaged as far as is known, or not there with their lengths. What lies in an annex that is away is out of sight.
    pub fn wrong_here(&self) -> Result<Vec<PackRow>, StoreError> {
        let (bad, staged) = (self.catalog.bad_packs()?, self.see_staging()?);
        let away = self.out_of_sight(&staged)?;
        let mut rows = self.catalog.packs()?;
        rows.retain(|row| {
            let is_wrong = bad.contains(&row.no) || staged.packs.get(&row.entry.id) != Some(&row.entry.len);
            row.staged && is_wrong && !away.contains(&row.entry.id)
        });
        rows.extend(self.missed_here()?);
        Ok(rows)
    }

    /// Packs that staging lost and a vault has, of which something lies in no other pack of staging.
    pub(crate) fn missed_here(&self) -> Result<Vec<PackRow>, StoreError> {
        let mut missed = Vec::new();
        for row in self.catalog.missed_here()? {
            let (chunks, here) = match self.catalog.chunks_of(row.no) {
                // Nobody knows what it holds: a check tells of that.
                Err(e) if e.is_of_changed_catalog() => continue,
                chunks => (chunks?, Relied::default()),
            };
            let mut is_here = true;
            for chunk in chunks {
                is_here = is_here && self.catalog.is_in(&chunk.id, &here)?;
            }
            missed.extend((!is_here).then_some(row));
        }
        Ok(missed)
    }

    /// Whether a pack is still damaged or missing in staging. The caller has the lock.
    fn is_wrong_here(&self, row: &PackRow) -> Result<bool, StoreError> {
        let id = &row.entry.id;
        match self.catalog.pack(row.no)? {
            None => Ok(false),
            Some(now) if now.staged => Ok(self.catalog.bad_packs()?.contains(&row.no)
                || self.staging.len(&names::pack(id))? != Some(row.entry.len)),
            Some(_) => self.catalog.has_mark(Mark::MissedHere(*id)),
        }
    }

    /// Whether a place (staging, if it is no vault) is said to have a pack that was not found damaged there.
    ///
    /// # Errors
    /// What the catalog says.
    pub fn is_sound_in(&self, place: Option<VaultNo>, id: &PackId) -> Result<bool, StoreError> {
        let Some(row) = self.catalog.pack_by_id(id)? else { return Ok(false) };
        Ok(match place {
            None => row.staged && !self.catalog.bad_packs()?.contains(&row.no),
            Some(no) => row.vaults.contains(&no) && !self.catalog.has_mark(Mark::BadIn(no, *id))?,
        })
    }

    /// All bytes of a pack from the first vault that gives them right. One that does not answer is asked once for all packs.
    fn whole_in_a_vault(
        &self,
        row: &PackRow,
        away: &mut Vec<VaultNo>,
    ) -> Result<Option<(VaultNo, Vec<u8>)>, StoreError> {
        for no in &row.vaults {
            if away.contains(no) || self.catalog.has_mark(Mark::BadIn(*no, row.entry.id))? {
                continue;
            }
            match self.fetch_pack(&PackRow { vaults: vec![*no], ..row.clone() }) {
                Ok(bytes) if pack::verify(&self.sealer, row.entry.id, &bytes).is_ok() => {
                    return Ok(Some((*no, bytes.to_vec())));
                }
                Err(e) if e.class() == ErrorClass::Cancelled => return Err(e),
                Err(e) if e.is_vault_away() => away.push(*no),
                // Of what a vault has damaged a check of it tells.
                _ => {}
            }
        }
        Ok(None)
    }

    /// `false` if somebody put it right meanwhile, or freed it.
    fn put_in_place(
        &self,
        row: &PackRow,
        good: &[u8],
        from: VaultNo,
        monitor: &dyn Monitor,
    ) -> Result<bool, StoreError> {
        let _lock = self.lock()?;
        if !self.is_wrong_here(row)? {
            return Ok(false);
        }
        let name = names::pack(&row.entry.id);
        // Of a bad sector nothing can be read, and its file can be moved all the same.
        let there = self.staging.read_all(&name, PACK_LIMIT).ok().flatten().unwrap_or_default();
        if there != good {
            let aside = names::bad(&name, blake3::hash(&there).as_bytes());
            let was = match self.staging.move_to(&name, &aside) {
                Err(StoreError::NotFound { .. }) => "it was missing".to_owned(),
                moved => moved.map(|()| format!("its bytes were damaged and are moved to {aside}"))?,
            };
            if let Some(annex) = self.staging.put_somewhere(&name, good)? {
                self.catalog.add_to_annex(&annex, &row.entry.id, row.entry.len)?;
            }
            let reason = format!("{was}; those of {} took their place", self.catalog.vault_address(from));
            monitor.event(Event::Problem { path: name.as_str().into(), reason });
        }
        self.catalog.set_staged(row.no, true)?;
        self.mark_staged(row, false)?;
        self.reader.forget_places();
        Ok(true)
    }
}
