//! The small objects: recovery points and key slots. A damaged pack costs files, a damaged point or slot costs everything
//! behind it on the day when there is no catalog, so they are looked at in every tier as packs are.

use std::collections::{BTreeMap, HashMap};

use super::{Check, Depth, Place};
use crate::catalog::{PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::fence::Revocation;
use crate::id::{RecoveryPointId, SourceTag};
use crate::monitor::VoidMonitor;
use crate::names;
use crate::point::object::open_point;
use crate::seal::slots::{KeySlot, SlotKind};
use crate::store::{Fate, NEWER_KEY, Outcomes, POINT_LIMIT, SMALL_OBJECT, of_vault};
use crate::vault::{ObjectInfo, ObjectName, VaultError};

/// What the object of each known point hashes to, by source and id.
type Hashes = HashMap<(SourceTag, RecoveryPointId), [u8; 32]>;

impl Check<'_> {
    /// Every point is where the catalog says and, when data is read, is what it was.
    pub(super) fn point_objects(&mut self, rows: &[PointRow], depth: Depth) -> Result<(), StoreError> {
        let hashes: Hashes = rows.iter().map(|row| ((row.tag, row.id), row.hash)).collect();
        let staging = self.store.staging();
        let listed = if self.looks_at(None) { staging.list("rp")? } else { Vec::new() };
        let rows_here = rows.iter().filter(|row| row.staged && self.looks_at(None));
        let rows_here: Vec<&PointRow> = rows_here.collect();
        self.missing("staging", Place::Staging, rows_here.into_iter(), &listed)?;
        let lengths: HashMap<_, u64> =
            rows.iter().map(|row| ((row.tag, row.id), row.object.len() as u64)).collect();
        // What has another length is another thing: of that each look tells.
        let is_read = |object: &&ObjectInfo| {
            let known = names::point_of(&object.name).and_then(|point| lengths.get(&point));
            depth == Depth::ReadData || known.is_some_and(|len| *len != object.len)
        };
        for object in listed.iter().filter(is_read) {
            let bytes = staging.read_all(&object.name, POINT_LIMIT).map_err(|e| e.to_string());
            // None: it was forgotten meanwhile, or told above.
            if !matches!(bytes, Ok(None)) {
                self.prove_point("staging", &object.name, bytes.map(Option::unwrap_or_default), &hashes);
            }
        }
        for (no, address, transfer) in self.store.vaults() {
            if self.away.contains(no) {
                continue;
            }
            let Some(listing) = self.listings.remove(no) else { continue };
            let there = rows.iter().filter(|row| row.vaults.contains(no));
            let mut wrong = self.missing(address, Place::Vault(*no), there, &listing.points)?;
            let (part, doubted) = (self.part, self.store.incomplete_in(*no)?);
            let outcomes = Outcomes::of(&listing.points);
            // What was found damaged before is told until it is put right, though it is not its turn.
            let is_doubted = |object: &ObjectInfo| {
                names::point_of(&object.name).is_some_and(|(_, id)| doubted.contains(&id))
            };
            let is_its_turn = |object: &&ObjectInfo| {
                is_doubted(object) || is_read(object) && part.has(object.name.as_str())
            };
            for object in listing.points.iter().filter(is_its_turn) {
                match transfer.get(&object.name, POINT_LIMIT) {
                    Err(e) if e.is_transient() => {
                        self.leave_out(*no, &of_vault(transfer)(e));
                        break;
                    }
                    Err(VaultError::NotFound { .. }) if !self.is_in(*no, &object.name)? => {}
                    Ok(bytes) if self.is_revoked(&object.name, &bytes) => {}
                    bytes => {
                        let bytes = bytes.map(|bytes| bytes.to_vec()).map_err(|e| e.to_string());
                        let shown = bytes.clone().unwrap_or_default();
                        let is_sound = self.is_of_newer_key(&object.name, &bytes, &hashes)
                            || self.prove_point(address, &object.name, bytes, &hashes);
                        if !is_sound {
                            self.look_for_another(*no, &object.name, &shown);
                        }
                        if !is_sound {
                            wrong.extend(self.point_at(&object.name, &outcomes)?);
                        }
                    }
                }
            }
            self.store.doubt_points(*no, &wrong)?;
            self.listings.insert(*no, listing);
        }
        Ok(())
    }

    /// Generations of reclaim in vaults, without which nothing new may rely on what is there.
    pub(super) fn generations(&mut self) -> Result<(), StoreError> {
        for (no, address, transfer) in self.store.vaults() {
            if self.away.contains(no) {
                continue;
            }
            match self.store.prove_generations(*no, transfer) {
                Ok(wrong) => wrong.into_iter().for_each(|(object, detail)| {
                    self.find(&object, format!("{address}: {detail}"));
                }),
                Err(e) if e.is_vault_away() => self.leave_out(*no, &e),
                Err(e @ StoreError::Vault { .. }) => self.find("gen/", format!("{address}: {e}")),
                Err(e @ StoreError::NoKey { .. }) => {
                    self.pass_over("gen/", format!("{address}: {e}; {NEWER_KEY}"));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether it is the word that a point is not to be there.
    fn is_revoked(&self, name: &ObjectName, bytes: &[u8]) -> bool {
        let opens = |(tag, attempt)| Revocation::open(self.store.sealer(), (&tag, &attempt), bytes).is_ok();
        names::outcome_of(name).is_some_and(opens)
    }

    fn is_in(&self, no: VaultNo, name: &ObjectName) -> Result<bool, StoreError> {
        names::point_of(name).map_or(Ok(false), |(_, id)| self.point_still_in(&id, Place::Vault(no)))
    }

    /// Points that are to be in a place and are not: each is told.
    fn missing<'a>(
        &mut self,
        place_name: &str,
        place: Place,
        expected: impl Iterator<Item = &'a PointRow>,
        listed: &[ObjectInfo],
    ) -> Result<Vec<RecoveryPointId>, StoreError> {
        let (listed, mut missing) = (Outcomes::of(listed), Vec::new());
        for row in expected {
            let from = place.vault().map(|no| (no, &row.tag));
            if listed.shown(row).is_some() || self.store.end_removal(&row.id, from)? {
                continue;
            }
            // In its place may be the word that it is not to be there.
            let is_there = match place {
                Place::Vault(no) => self.is_accounted_for(no, row, &listed)?,
                Place::Staging => !listed.at(&row.tag, &row.id).is_empty(),
            };
            if !is_there && self.point_still_in(&row.id, place)? {
                let name = names::point(&row.tag, &row.id);
                self.find(name.as_str(), format!("{place_name}: the recovery point is missing"));
                missing.push(row.id);
            }
        }
        Ok(missing)
    }

    /// The point that is lost if an object of a vault is damaged: none where it is not the one by which the vault has the point.
    pub(super) fn point_at(
        &self,
        name: &ObjectName,
        listed: &Outcomes,
    ) -> Result<Option<RecoveryPointId>, StoreError> {
        let Some((_, attempt)) = names::outcome_of(name) else { return Ok(None) };
        let row = match self.store.catalog().point(&attempt.point) {
            // A damaged row says nothing of it.
            Err(e) if e.class() == ErrorClass::Corrupt => None,
            row => row?,
        };
        let shown = row.and_then(|row| listed.shown(&row));
        Ok(Some(attempt.point).filter(|_| shown.is_none_or(|shown| shown == attempt)))
    }

    /// Whether a vault that does not show a point says what became of it, as far as can be told now.
    pub(super) fn is_accounted_for(
        &mut self,
        no: VaultNo,
        row: &PointRow,
        listed: &Outcomes,
    ) -> Result<bool, StoreError> {
        match self.store.fate_in(no, self.store.vault(no)?, row, listed) {
            Err(StoreError::NoKey { .. }) => Ok(true),
            Err(e) if e.class() == ErrorClass::Unavailable => {
                self.leave_out(no, &e);
                Ok(true)
            }
            fate => Ok(fate? != Fate::Missing),
        }
    }

    /// Whether an object is what another machine put after it rotated the keys: a point that is not known here, or the word that one is
    /// revoked. It was told of among the points of the vault.
    fn is_of_newer_key(&self, name: &ObjectName, bytes: &Result<Vec<u8>, String>, hashes: &Hashes) -> bool {
        let (Some((tag, attempt)), Ok(bytes)) = (names::outcome_of(name), bytes) else { return false };
        let sealer = self.store.sealer();
        let is_point = || open_point(bytes, sealer, &tag, &attempt.point).is_err_and(|e| e.is_newer_key());
        Revocation::open(sealer, (&tag, &attempt), bytes).is_err_and(|e| e.is_newer_key())
            || !hashes.contains_key(&(tag, attempt.point)) && is_point()
    }

    /// Whether an object is the point that it should be.
    fn prove_point(
        &mut self,
        place: &str,
        name: &ObjectName,
        bytes: Result<Vec<u8>, String>,
        hashes: &Hashes,
    ) -> bool {
        let Some((tag, id)) = names::point_of(name) else { return true };
        let wrong = match (&bytes, hashes.get(&(tag, id))) {
            (Err(e), _) => Some(e.clone()),
            (Ok(bytes), Some(hash)) if blake3::hash(bytes).as_bytes() == hash => None,
            (Ok(bytes), known) => match open_point(bytes, self.store.sealer(), &tag, &id) {
                Err(e) => Some(e.to_string()),
                Ok(_) => known.map(|_| "it opens, and is another than the catalog knows".into()),
            },
        };
        let is_sound = wrong.is_none();
        match wrong {
            Some(wrong) => self.find(name.as_str(), format!("{place}: {wrong}")),
            None => self.report.bytes_read += bytes.map_or(0, |bytes| bytes.len() as u64),
        }
        is_sound
    }

    /// Every slot reads as one, its copies are the same, and one is the recovery sheet's: what is sealed in them only their
    /// secrets could prove.
    pub(super) fn slots(&mut self) -> Result<(), StoreError> {
        let mut first: BTreeMap<ObjectName, (String, Vec<u8>)> = BTreeMap::new();
        let staging = self.store.staging();
        // These are few, and their copies are compared: staging is looked at whatever else is.
        for object in staging.list("keys")? {
            match staging.read_all(&object.name, SMALL_OBJECT) {
                Ok(bytes) => self.look_at_slot("staging", object.name, bytes.unwrap_or_default(), &mut first),
                Err(e) => self.find(object.name.as_str(), format!("staging: {e}")),
            }
        }
        let of_sheet = |bytes: &[u8]| {
            KeySlot::read(bytes, self.store.id()).is_ok_and(|slot| slot.kind == SlotKind::Recovery)
        };
        if !first.values().any(|(_, bytes)| of_sheet(bytes)) {
            self.find(names::SLOTS, "staging: there is no slot that a recovery sheet opens");
        }
        for (no, address, transfer) in self.store.vaults() {
            if self.away.contains(no) || !self.looks_at(Some(*no)) {
                continue;
            }
            let own = first.clone();
            let listed = match names::list(transfer, names::SLOTS, Deadline::NEVER) {
                Ok(listed) => listed,
                Err(e) => {
                    self.leave_out(*no, &of_vault(transfer)(e));
                    continue;
                }
            };
            let mut newest = 0;
            for object in &listed {
                match transfer.get(&object.name, SMALL_OBJECT) {
                    Ok(bytes) => {
                        self.look_for_another_slot(*no, &object.name, &bytes, &own);
                        newest = newest
                            .max(KeySlot::read(&bytes, self.store.id()).map_or(0, |slot| slot.newest()));
                        self.look_at_slot(address, object.name.clone(), bytes.to_vec(), &mut first);
                    }
                    Err(e) if e.is_transient() => {
                        self.leave_out(*no, &of_vault(transfer)(e));
                        break;
                    }
                    Err(e) => self.find(object.name.as_str(), format!("{address}: {e}")),
                }
            }
            if !self.away.contains(no) {
                self.slots_missing(address, &listed, newest)?;
                let shown = listed.iter().filter_map(|object| names::slot_of(&object.name)).collect();
                let back = self.store.remember_slots(*no, &shown, &VoidMonitor)?;
                self.tell_of_vault(address, &back);
            }
        }
        Ok(())
    }

    /// Slots that people have and a vault lacks: what opens the store here would not open it there. One that is older than what the vault has
    /// went when another machine rotated the keys.
    fn slots_missing(&mut self, place: &str, listed: &[ObjectInfo], newest: u32) -> Result<(), StoreError> {
        if newest > 0 && !self.store.sealer().has_generation(newest) {
            self.pass_over(names::SLOTS, format!("{place}: a slot has key generation {newest}; {NEWER_KEY}"));
        }
        for (id, bytes) in self.store.slots_of_people()? {
            let name = names::slot(&id);
            let is_older = KeySlot::read(&bytes, self.store.id()).is_ok_and(|slot| slot.newest() < newest);
            if !is_older && !listed.iter().any(|object| object.name == name) {
                self.find(name.as_str(), format!("{place}: the key slot is missing"));
            }
        }
        Ok(())
    }

    fn look_at_slot(
        &mut self,
        place: &str,
        name: ObjectName,
        bytes: Vec<u8>,
        first: &mut BTreeMap<ObjectName, (String, Vec<u8>)>,
    ) {
        let Some(id) = names::slot_of(&name) else { return };
        match KeySlot::read(&bytes, self.store.id()) {
            Err(e) => self.find(name.as_str(), format!("{place}: {e}")),
            Ok(slot) if slot.id != id => self.find(name.as_str(), format!("{place}: it is slot {}", slot.id)),
            Ok(_) => {}
        }
        match first.get(&name) {
            None => drop(first.insert(name, (place.to_owned(), bytes))),
            Some((_, known)) if *known == bytes => {}
            Some((other, _)) => {
                let detail = format!("{place}: it differs from the one in {other}; one of them is damaged");
                self.find(name.as_str(), detail);
            }
        }
    }
}
