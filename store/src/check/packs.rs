//! Are the packs there, with their lengths, and are their bytes right?

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Check, Depth, Listing, Place};
use crate::catalog::{Mark, PackNo, PackRow, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::id::PackId;
use crate::monitor::Event;
use crate::names;
use crate::pack::{self, PACK_LIMIT, PackedChunk};
use crate::store::{LISTING_WAIT, Store, listed_packs, of_vault, prove_ours};
use crate::transfer::Transfer;
use crate::vault::ObjectInfo;

/// Packs that are noted as proven in one commit, which costs about as much as reading a pack.
pub(super) const NOTED_TOGETHER: usize = 64;
/// A vault that does not give so many packs, one after the other, is left out though it shows its config, which the kernel may
/// still have of a disk that was pulled out: each pack is tried for minutes.
const NOT_GIVEN_MAX: u32 = 3;

impl Check<'_> {
    /// Compares the catalog with listings of all tiers.
    pub(super) fn existence(&mut self, packs: &[PackRow], depth: Depth) -> Result<(), StoreError> {
        self.report.packs = packs.len() as u64;
        let staged = self.see_staging()?;
        let mut nowhere: BTreeMap<PackNo, usize> = BTreeMap::new();
        for row in packs.iter().filter(|row| row.staged && self.looks_at(None)).collect::<Vec<_>>() {
            if self.out_of_sight.contains(&row.entry.id) {
                continue;
            }
            let wrong = wrong_length(&staged, row).filter(|_| !self.moved_meanwhile(row));
            if let Some(wrong) = wrong.filter(|_| self.pack_still_in(row, Place::Staging).unwrap_or(true)) {
                self.store.catalog().clear_verified(row.no, None)?;
                self.find(names::pack(&row.entry.id).as_str(), format!("staging: {wrong}"));
                *nowhere.entry(row.no).or_default() += 1;
            }
        }
        for (no, address, transfer) in self.store.vaults() {
            if !self.looks_at(Some(*no)) {
                continue;
            }
            let listed = list(self.store, transfer).and_then(|shown| {
                // What another machine brought there since this one looked.
                self.store.learn_listed(*no, &shown.1, self.monitor)?;
                Ok(shown)
            });
            match listed {
                Ok((points, listed)) => {
                    match self.freed_meanwhile(*no, transfer, packs, &listed) {
                        // A generation that does not open: it is told as that, and so is what may have gone with it.
                        Err(e) if e.class() == ErrorClass::Corrupt => {}
                        Err(e) => {
                            self.leave_out(*no, &e);
                            continue;
                        }
                        Ok(()) => {}
                    }
                    let there = self.in_vault(*no, address, packs, &listed, &mut nowhere)?;
                    if depth == Depth::Structure {
                        self.known_damage(*no, address, packs, &there)?;
                    }
                    self.listings.insert(*no, Listing { points, packs: there });
                }
                // What it holds is not known; the other tiers are looked at all the same.
                Err(e) => self.leave_out(*no, &e),
            }
        }
        // Reading tells more: of a pack that is too short, the beginning is there.
        if depth == Depth::Structure {
            let tiers = |row: &PackRow| usize::from(row.staged) + row.vaults.len();
            let gone = packs.iter().filter(|row| nowhere.get(&row.no).is_some_and(|n| *n >= tiers(row)));
            let gone: BTreeSet<PackNo> = gone.map(|row| row.no).collect();
            gone.iter().try_for_each(|no| self.lose(*no, &gone))?;
        }
        Ok(())
    }

    /// The packs of staging with their lengths. An annex that is away is told once, and not what lies in it.
    fn see_staging(&mut self) -> Result<BTreeMap<PackId, u64>, StoreError> {
        let staged = self.store.see_staging()?;
        self.out_of_sight = self.store.out_of_sight(&staged)?;
        for annex in staged.away() {
            let (path, reason) = self.store.away(annex)?;
            self.annexes_away = true;
            self.pass_over(String::from_utf8_lossy(&path), reason);
        }
        Ok(staged.packs)
    }

    /// Whether a pack went from one directory of staging to another while they were listed.
    fn moved_meanwhile(&self, row: &PackRow) -> bool {
        let there = self.store.staging().len(&names::pack(&row.entry.id));
        there.is_ok_and(|len| len == Some(row.entry.len))
    }

    /// If packs are missing in a vault, learns first what was freed there since it was asked for that, if it answered then: another machine may
    /// be at it.
    fn freed_meanwhile(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        packs: &[PackRow],
        listed: &BTreeMap<PackId, u64>,
    ) -> Result<(), StoreError> {
        let mut missing =
            packs.iter().filter(|row| row.vaults.contains(&no) && wrong_length(listed, row).is_some());
        match missing.next() {
            Some(_) => self.store.follow_reclaim_in(no, transfer, Deadline::NEVER, self.monitor),
            None => Ok(()),
        }
    }

    /// The packs that a vault has with their lengths, also those that came since the check began: points that came are listed, too.
    fn in_vault(
        &mut self,
        no: VaultNo,
        address: &str,
        packs: &[PackRow],
        listed: &BTreeMap<PackId, u64>,
        nowhere: &mut BTreeMap<PackNo, usize>,
    ) -> Result<HashSet<PackNo>, StoreError> {
        for row in packs.iter().filter(|row| row.vaults.contains(&no)) {
            let Some(wrong) = wrong_length(listed, row) else { continue };
            if self.pack_still_in(row, Place::Vault(no))? {
                self.store.catalog().clear_verified(row.no, Some(no))?;
                self.store.catalog().set_mark(Mark::NotShown(no, row.entry.id), true)?;
                self.find(names::pack(&row.entry.id).as_str(), format!("{address}: {wrong}"));
                *nowhere.entry(row.no).or_default() += 1;
            }
        }
        for id in self.store.catalog().not_shown_in(no)? {
            let row = packs.iter().find(|row| row.entry.id == id && row.vaults.contains(&no));
            if row.is_none_or(|row| wrong_length(listed, row).is_none()) {
                self.store.catalog().set_mark(Mark::NotShown(no, id), false)?;
            }
        }
        let now = self.store.catalog().packs()?.into_iter();
        let there = now.filter(|row| row.vaults.contains(&no) && wrong_length(listed, row).is_none());
        Ok(there.map(|row| row.no).collect())
    }

    /// Copies that were read before and found damaged, which their lengths do not tell.
    pub(super) fn known_damage(
        &mut self,
        no: VaultNo,
        address: &str,
        packs: &[PackRow],
        there: &HashSet<PackNo>,
    ) -> Result<(), StoreError> {
        let bad = self.store.catalog().bad_in(no)?;
        for row in packs.iter().filter(|row| there.contains(&row.no) && bad.contains(&row.entry.id)) {
            if self.pack_still_in(row, Place::Vault(no))? {
                let detail = format!("{address}: it was read before and is damaged");
                self.find(names::pack(&row.entry.id).as_str(), detail);
            }
        }
        Ok(())
    }

    /// A pack that no tier can give: its chunks count as lost unless a pack that is not `gone` has them.
    fn lose(&mut self, no: PackNo, gone: &BTreeSet<PackNo>) -> Result<(), StoreError> {
        for chunk in self.store.catalog().chunks_of(no)? {
            let elsewhere =
                self.store.catalog().locate_all(&chunk.id)?.iter().any(|l| !gone.contains(&l.pack));
            if !elsewhere {
                self.bad_chunks.insert(chunk.id);
            }
        }
        Ok(())
    }

    pub(super) fn read_data(&mut self, packs: &[PackRow]) -> Result<(), StoreError> {
        let bytes_total = packs.iter().map(|p| p.entry.len).sum();
        self.monitor.event(Event::Stage { name: "read packs", files_total: packs.len() as u64, bytes_total });
        for row in packs {
            if self.monitor.cancelled() {
                self.note_proven()?;
                return Err(StoreError::Cancelled);
            }
            self.read_pack(row)?;
            if self.proven.len() >= NOTED_TOGETHER {
                self.note_proven()?;
            }
            self.monitor.event(Event::Done { files: 1, bytes: row.entry.len });
        }
        self.note_proven()
    }

    pub(super) fn note_proven(&mut self) -> Result<(), StoreError> {
        self.store.catalog().set_verified(&std::mem::take(&mut self.proven), self.store.clock().now())
    }

    /// Proves a pack in staging and in each vault; it is lost only when no tier gives it whole.
    fn read_pack(&mut self, row: &PackRow) -> Result<(), StoreError> {
        // What is out of sight is not lost.
        let mut whole = self.out_of_sight.contains(&row.entry.id) || row.staged && self.read_staged(row)?;
        for no in &row.vaults {
            if !self.away.contains(no) {
                whole |= self.read_vaulted(row, *no)?;
            }
        }
        // What a vault has that cannot be looked at is not lost.
        if whole || row.vaults.iter().any(|no| self.away.contains(no)) {
            return Ok(());
        }
        self.lose_unreadable(row)
    }

    pub(super) fn read_staged(&mut self, row: &PackRow) -> Result<bool, StoreError> {
        let name = names::pack(&row.entry.id);
        if self.store.staging().len(&name)? != Some(row.entry.len) {
            return Ok(false);
        }
        let bytes = self.store.staging().read_all(&name, PACK_LIMIT).map(Option::unwrap_or_default);
        let proof = bytes.map(|bytes| pack::verify(self.store.sealer(), row.entry.id, &bytes));
        if let Ok(Err(e)) = &proof
            && e.is_newer_key()
        {
            // Made by who rotated the keys since this check began.
            self.pass_over(name.as_str(), format!("staging: {e}"));
            return Ok(true);
        }
        match proof.map_err(|e| e.to_string()).and_then(|proof| proof.map_err(|e| e.to_string())) {
            Ok((entry, chunks)) => {
                self.report.bytes_read += row.entry.len;
                if self.store.put_right(row.no, &entry, &chunks)? {
                    self.find(name.as_str(), format!("staging: {OTHERWISE}"));
                }
                self.proven.push((row.no, None));
                if self.bad.contains(&row.no) {
                    self.store.mark_staged(row, false)?;
                }
                Ok(true)
            }
            Err(detail) if self.pack_still_in(row, Place::Staging)? => {
                self.store.mark_staged(row, true)?;
                self.store.catalog().clear_verified(row.no, None)?;
                self.find(name.as_str(), format!("staging: {detail}"));
                Ok(false)
            }
            // It was removed meanwhile, so nobody needs it.
            Err(_) => Ok(true),
        }
    }

    pub(super) fn read_vaulted(&mut self, row: &PackRow, no: VaultNo) -> Result<bool, StoreError> {
        let mark = Mark::BadIn(no, row.entry.id);
        let proof = prove_in_vault(self.store, row, no);
        if proof.is_ok() {
            self.not_given.remove(&no);
        }
        match proof {
            Err(e) => {
                self.not_given(row, no, &e);
                // What cannot be looked at is not lost.
                Ok(true)
            }
            Ok(Ok(contents)) => {
                self.report.bytes_read += row.entry.len;
                if contents.was_said_otherwise {
                    let address = self.store.catalog().vault_address(no);
                    self.find(names::pack(&row.entry.id).as_str(), format!("{address}: {OTHERWISE}"));
                }
                self.proven.push((row.no, Some(no)));
                self.store.catalog().set_mark(mark, false)?;
                Ok(true)
            }
            Ok(Err(detail)) if self.pack_still_in(row, Place::Vault(no))? => {
                // The next push replaces it, if there is a whole one.
                self.store.catalog().set_mark(mark, true)?;
                self.store.catalog().clear_verified(row.no, Some(no))?;
                let address = self.store.catalog().vault_address(no);
                self.find(names::pack(&row.entry.id).as_str(), format!("{address}: {detail}"));
                Ok(false)
            }
            Ok(Err(_)) => Ok(true),
        }
    }

    /// A vault did not give a pack, which says nothing of what it has there: it is told of the pack if the vault answers, else of
    /// the vault.
    fn not_given(&mut self, row: &PackRow, no: VaultNo, e: &StoreError) {
        let in_a_row = self.not_given.entry(no).or_default();
        *in_a_row += 1;
        if *in_a_row >= NOT_GIVEN_MAX || !self.answers(no) {
            return self.leave_out(no, e);
        }
        let address = self.store.catalog().vault_address(no);
        self.pass_over(
            names::pack(&row.entry.id).as_str(),
            format!("{address}: it cannot be read: {}", e.beside_vault()),
        );
    }

    /// Of a damaged pack, the chunks that are not in the damaged part can still be read.
    pub(super) fn lose_unreadable(&mut self, row: &PackRow) -> Result<(), StoreError> {
        for chunk in self.store.catalog().chunks_of(row.no)? {
            if self.store.reader().whole_chunk(row.entry.kind, &chunk.id, Deadline::NEVER).is_err() {
                self.bad_chunks.insert(chunk.id);
            }
        }
        Ok(())
    }
}

/// What is told of a pack of which the catalog said something else.
pub(crate) const OTHERWISE: &str = "it holds other things than the catalog said, or the index object of a vault that it had this from; the catalog is right now";

/// What a pack was seen to hold.
pub(crate) struct Contents {
    pub(crate) chunks: Vec<PackedChunk>,
    /// The catalog said something else of it.
    pub(crate) was_said_otherwise: bool,
}

/// What a vault's copy holds, which the catalog knows from then on, or what is wrong with it; an error if the vault does not give it, for want
/// of rights say, which tells nothing of it. Twice if need be: the way from the vault may have flipped a bit.
pub(crate) fn prove_in_vault(
    store: &Store,
    row: &PackRow,
    no: VaultNo,
) -> Result<Result<Contents, String>, StoreError> {
    let here = PackRow { vaults: vec![no], ..row.clone() };
    let prove = || match store.fetch_pack(&here) {
        Ok(bytes) => match pack::verify(store.sealer(), row.entry.id, &bytes) {
            Err(e) if e.is_newer_key() => Err(e.of(names::pack(&row.entry.id).as_str())),
            Ok((entry, chunks)) => {
                let was_said_otherwise = store.put_right(row.no, &entry, &chunks)?;
                Ok(Ok(Contents { chunks, was_said_otherwise }))
            }
            Err(e) => Ok(Err(e.to_string())),
        },
        // Where a disk was unplugged, or a container removed, nothing is there, and that is no damage of one pack.
        Err(e) if matches!(e.class(), ErrorClass::NotFound | ErrorClass::Corrupt) => {
            let soon = Deadline::after(store.clock().as_ref(), LISTING_WAIT);
            prove_ours(store, store.vault(no)?, soon).map(|()| Err(e.to_string()))
        }
        Err(e) => Err(e),
    };
    match prove()? {
        Ok(contents) => Ok(Ok(contents)),
        Err(_) => prove(),
    }
}

/// The points of a vault, then the lengths of its packs.
fn list(store: &Store, transfer: &Transfer) -> Result<(Vec<ObjectInfo>, BTreeMap<PackId, u64>), StoreError> {
    prove_ours(store, transfer, Deadline::NEVER)?;
    let points = names::list(transfer, names::POINTS, Deadline::NEVER).map_err(of_vault(transfer))?;
    Ok((points, listed_packs(transfer, Deadline::NEVER)?))
}

fn wrong_length(listed: &BTreeMap<PackId, u64>, row: &PackRow) -> Option<String> {
    match listed.get(&row.entry.id) {
        None => Some("the pack is missing".into()),
        Some(len) if *len != row.entry.len => Some(format!("{len} bytes instead of {}", row.entry.len)),
        Some(_) => None,
    }
}
