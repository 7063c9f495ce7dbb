//! The small objects: recovery points and key slots. A damaged pack costs files, a damaged point or slot costs everything
//! behind it on the day when there is no catalog, so they are looked at in every tier as packs are.

use std::collections::{BTreeMap, HashMap};

use super::{Check, Depth};
use crate::error::StoreError;
use crate::names;
use crate::point::object::open_point;
use crate::seal::slots::{KeySlot, SlotKind};
use crate::store::{POINT_LIMIT, SMALL_OBJECT};
use crate::vault::{ObjectInfo, ObjectName, VaultError};

impl Check<'_> {
    /// Every point is where the catalog says and, when data is read, is what it was.
    pub(super) fn point_objects(&mut self, depth: Depth) -> Result<(), StoreError> {
        let rows = self.store.catalog().points()?;
        let hashes: HashMap<ObjectName, [u8; 32]> =
            rows.iter().map(|row| (names::point(&row.tag, &row.id), row.hash)).collect();
        let staging = self.store.staging();
        let listed = staging.list("rp")?;
        let here = rows.iter().filter(|row| row.staged).map(|row| names::point(&row.tag, &row.id));
        self.missing("staging", here, &listed);
        for object in listed.iter().filter(|_| depth == Depth::ReadData) {
            let bytes = staging.read_all(&object.name, POINT_LIMIT).map_err(|e| e.to_string());
            self.prove_point("staging", &object.name, bytes.map(Option::unwrap_or_default), &hashes);
        }
        for (no, address, transfer) in self.store.vaults() {
            let listed = transfer.list_all(names::POINTS).map_err(|source| self.of_vault(address, source))?;
            let there =
                rows.iter().filter(|row| row.vaults.contains(no)).map(|row| names::point(&row.tag, &row.id));
            self.missing(address, there, &listed);
            for object in listed.iter().filter(|_| depth == Depth::ReadData) {
                let bytes = transfer.get(&object.name, POINT_LIMIT).map_err(|e| e.to_string());
                self.prove_point(address, &object.name, bytes.map(|b| b.to_vec()), &hashes);
            }
        }
        Ok(())
    }

    fn missing(&mut self, place: &str, expected: impl Iterator<Item = ObjectName>, listed: &[ObjectInfo]) {
        for name in expected {
            if !listed.iter().any(|object| object.name == name) {
                self.find(name.as_str(), format!("{place}: the recovery point is missing"));
            }
        }
    }

    fn prove_point(
        &mut self,
        place: &str,
        name: &ObjectName,
        bytes: Result<Vec<u8>, String>,
        hashes: &HashMap<ObjectName, [u8; 32]>,
    ) {
        let Some((tag, id)) = names::point_of(name) else { return };
        let wrong = match (&bytes, hashes.get(name)) {
            (Err(e), _) => Some(e.clone()),
            (Ok(bytes), Some(hash)) if blake3::hash(bytes).as_bytes() == hash => None,
            (Ok(bytes), known) => match open_point(bytes, self.store.sealer(), &tag, &id) {
                Err(e) => Some(e.to_string()),
                Ok(_) => known.map(|_| "it opens, and is another than the catalog knows".into()),
            },
        };
        match wrong {
            Some(wrong) => self.find(name.as_str(), format!("{place}: {wrong}")),
            None => self.report.bytes_read += bytes.map_or(0, |bytes| bytes.len() as u64),
        }
    }

    /// Every slot reads as one, its copies are the same, and one is the recovery sheet's: what is sealed in them only their
    /// secrets could prove.
    pub(super) fn slots(&mut self) -> Result<(), StoreError> {
        let mut first: BTreeMap<ObjectName, (String, Vec<u8>)> = BTreeMap::new();
        let staging = self.store.staging();
        for object in staging.list("keys")? {
            let bytes = staging.read_all(&object.name, SMALL_OBJECT)?.unwrap_or_default();
            self.look_at_slot("staging", object.name, bytes, &mut first);
        }
        let of_sheet = |bytes: &[u8]| {
            KeySlot::read(bytes, self.store.id()).is_ok_and(|slot| slot.kind == SlotKind::Recovery)
        };
        if !first.values().any(|(_, bytes)| of_sheet(bytes)) {
            self.find(names::SLOTS, "staging: there is no slot that a recovery sheet opens");
        }
        for (_, address, transfer) in self.store.vaults() {
            for object in transfer.list_all(names::SLOTS).map_err(|source| self.of_vault(address, source))? {
                match transfer.get(&object.name, SMALL_OBJECT) {
                    Ok(bytes) => self.look_at_slot(address, object.name, bytes.to_vec(), &mut first),
                    Err(e) => self.find(object.name.as_str(), format!("{address}: {e}")),
                }
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

    pub(super) fn of_vault(&self, address: &str, source: VaultError) -> StoreError {
        StoreError::Vault { vault: address.to_owned(), source }
    }
}
