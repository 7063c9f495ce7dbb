//! Looking for the object of a recovery point whose row in the catalog is damaged: in the row itself, in staging, then in the vaults.

use std::collections::{HashMap, HashSet};

use super::vaults::{MEETING_WAIT, of_vault, prove_ours};
use super::{POINT_LIMIT, Store};
use crate::catalog::{DamagedPoint, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::id::RecoveryPointId;
use crate::names;
use crate::point::{RecoveryPoint, object};
use crate::transfer::Transfer;
use crate::vault::ObjectName;

/// What became of a look for a point's object.
pub(super) enum Found {
    Whole(Box<RecoveryPoint>, Vec<u8>),
    /// Not to be had now: a place does not answer, or what is there does not open.
    Away,
    Nowhere,
}

/// One round of looks. Each vault lists its points once, and one that fails is not asked again: many rows may be damaged, and whoever wants
/// them waits for it.
pub(super) struct Look<'a> {
    store: &'a Store,
    until: Deadline,
    listed: HashMap<VaultNo, Vec<ObjectName>>,
    silent: HashSet<VaultNo>,
}

impl<'a> Look<'a> {
    /// On this machine.
    pub(super) fn here(store: &'a Store) -> Self {
        let silent = store.vaults.iter().map(|vault| vault.0).collect();
        Self { silent, ..Self::far(store, Deadline::NEVER) }
    }

    /// Into the vaults as well, each of which must answer soon, and before the deadline.
    pub(super) fn far(store: &'a Store, until: Deadline) -> Self {
        Self { store, until, listed: HashMap::new(), silent: HashSet::new() }
    }

    pub(super) fn object_of(&mut self, damaged: &DamagedPoint) -> Result<Found, StoreError> {
        let (store, id) = (self.store, damaged.id());
        if let Some(found) = self.in_row(damaged)? {
            return Ok(found);
        }
        let mut away = damaged.vaults.iter().any(|no| store.vault(*no).is_err());
        match self.in_staging(id)? {
            Found::Nowhere => {}
            Found::Away => away = true,
            whole => return Ok(whole),
        }
        for (no, address, transfer) in &store.vaults {
            match self.in_vault(*no, transfer, id) {
                Ok(Found::Nowhere) => {}
                Ok(Found::Away) => away = true,
                Ok(whole) => return Ok(whole),
                Err(e) if e.class() == ErrorClass::Cancelled => return Err(e),
                Err(e) => {
                    tracing::warn!("vault {address}: {e}");
                    self.silent.insert(*no);
                    away = true;
                }
            }
        }
        Ok(if away { Found::Away } else { Found::Nowhere })
    }

    /// Another point's object says nothing of this one. But where no other row has that point, its name is what is damaged here.
    fn in_row(&self, damaged: &DamagedPoint) -> Result<Option<Found>, StoreError> {
        let opened = object::open_point_as_named_inside(&damaged.object, &self.store.sealer);
        let Ok(point) = opened else { return Ok(None) };
        let elsewhere = match self.store.catalog.point(&point.id) {
            _ if damaged.id() == Some(point.id) => None,
            Err(e) if e.is_of_changed_catalog() => None,
            row => row?,
        };
        if elsewhere.is_some() {
            return Ok(None);
        }
        Ok(Some(Found::Whole(Box::new(point), damaged.object.clone())))
    }

    fn in_staging(&self, id: Option<RecoveryPointId>) -> Result<Found, StoreError> {
        let mut found = Found::Nowhere;
        for name in self.store.staging.list("rp")?.into_iter().map(|object| object.name) {
            if is_of(&name, id) {
                let bytes = self.store.staging.read_all(&name, POINT_LIMIT).ok().flatten();
                match self.open_as(&bytes.unwrap_or_default(), id) {
                    Some(whole) => return Ok(whole),
                    None => found = Found::Away,
                }
            }
        }
        Ok(found)
    }

    fn in_vault(
        &mut self,
        no: VaultNo,
        transfer: &Transfer,
        id: Option<RecoveryPointId>,
    ) -> Result<Found, StoreError> {
        if self.silent.contains(&no) {
            return Ok(Found::Away);
        }
        let soon = self.until.within(self.store.clock.as_ref(), MEETING_WAIT);
        if !self.listed.contains_key(&no) {
            prove_ours(self.store, transfer, soon)?;
            let listed = names::list(transfer, names::POINTS, soon).map_err(of_vault(transfer))?;
            self.listed.insert(no, listed.into_iter().map(|object| object.name).collect());
        }
        let mut found = Found::Nowhere;
        for name in self.listed.get(&no).into_iter().flatten().filter(|name| is_of(name, id)) {
            // Twice if need be: the way from the vault may have flipped a bit.
            for _ in 0..2 {
                let bytes = transfer.get_by(name, POINT_LIMIT, soon).map_err(of_vault(transfer))?;
                if let Some(whole) = self.open_as(&bytes, id) {
                    return Ok(whole);
                }
            }
            tracing::warn!("vault {}: {name} does not open", transfer.address());
            found = Found::Away;
        }
        Ok(found)
    }

    fn open_as(&self, bytes: &[u8], id: Option<RecoveryPointId>) -> Option<Found> {
        let point = object::open_point_as_named_inside(bytes, &self.store.sealer).ok()?;
        (Some(point.id) == id).then(|| Found::Whole(Box::new(point), bytes.to_vec()))
    }
}

fn is_of(name: &ObjectName, id: Option<RecoveryPointId>) -> bool {
    id.is_some() && names::point_of(name).map(|(_, of)| of) == id
}
