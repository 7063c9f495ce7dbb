//! Rows of recovery points in the catalog that are not what was written. The object of a point says all that its row does, so the
//! row is put right from it: the copy in the row itself, else the one in staging, else one in a vault.
//!
//! A row that cannot be put right now stays and is told: its point may be whole in a vault that is away. Only a point that was looked
//! for in every place where it may be, and is in none, is forgotten.

use super::vaults::{MEETING_WAIT, of_vault, prove_ours};
use super::{POINT_LIMIT, Store};
use crate::catalog::{DamagedPoint, PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SourceTag};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::point::{RecoveryPoint, object};
use crate::transfer::Transfer;
use crate::vault::ObjectName;

/// A point whose row is damaged, and of which no whole copy can be had now.
#[derive(Debug)]
pub struct DoubtfulPoint {
    /// Its id.
    pub id: RecoveryPointId,
    /// Its source; `None` if that is not known for sure.
    pub tag: Option<SourceTag>,
    /// Why.
    pub error: StoreError,
}

/// What became of a look for a point's object.
enum Found {
    Whole(Box<RecoveryPoint>, Vec<u8>),
    /// Not to be had now: a place does not answer, or what is there does not open.
    Away,
    Nowhere,
}

/// How far a look goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// On this machine.
    Here,
    /// Into the vaults as well.
    Vaults,
}

impl Store {
    /// Puts damaged rows right, and tells of each. With `objects` what guards the sealed objects is looked at, too. Whoever holds the
    /// store's lock says so: rows are added and removed only then.
    pub(crate) fn mend_rows(
        &self,
        objects: bool,
        locked: bool,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        for damaged in self.catalog.damaged_points(objects)? {
            let name = damaged.id().map_or_else(|| "without a name".to_owned(), |id| id.to_string());
            let tell = |reason: &str| {
                let path = format!("the catalog's row of recovery point {name}").into_bytes();
                monitor.event(Event::Problem { path, reason: reason.to_owned() });
            };
            match self.find_object(&damaged, Far::Vaults)? {
                Found::Whole(point, bytes) if damaged.id() == Some(point.id) => {
                    self.catalog.mend_point(&row_right(&damaged, &point, bytes))?;
                    monitor.event(Event::Note(mended(&point.id)));
                }
                Found::Whole(point, bytes) if locked => {
                    self.rename_row(&damaged, &point, bytes)?;
                    monitor.event(Event::Note(mended(&point.id)));
                }
                Found::Nowhere if locked => {
                    tell("it is damaged, and the point is in no place any more; it is forgotten");
                    self.catalog.drop_damaged_point(&damaged)?;
                }
                _ => tell("it is damaged, and no whole copy of the point can be reached"),
            }
        }
        Ok(())
    }

    /// The row of a point, put right if it is damaged; `Corrupt` if that cannot be done now.
    pub(super) fn sound_row(&self, id: &RecoveryPointId, far: Far) -> Result<Option<PointRow>, StoreError> {
        match self.catalog.point(id) {
            Err(e) if e.is_of_changed_catalog() => self.mend_point(id, far),
            // A row whose key one bit made text is not found by the id.
            Ok(None) => self.mend_point(id, far),
            row => row,
        }
    }

    pub(super) fn mend_point(&self, id: &RecoveryPointId, far: Far) -> Result<Option<PointRow>, StoreError> {
        let Some(damaged) = self.catalog.damaged_point(id)? else { return Ok(None) };
        match self.find_object(&damaged, far)? {
            Found::Whole(point, bytes) if point.id == *id => {
                let row = row_right(&damaged, &point, bytes);
                tracing::warn!("{}", mended(id));
                // Whoever only reads goes on if the disk of the catalog takes nothing.
                if let Err(e) = self.catalog.mend_point(&row) {
                    tracing::warn!("recovery point {id}: {e}");
                }
                Ok(Some(row))
            }
            _ => Err(StoreError::corrupt(
                format!("the catalog's row of recovery point {id}"),
                "no whole copy of the point can be reached that would put it right",
            )),
        }
    }

    /// What is known of a point that cannot be had. The source that its row names counts if its row is not to blame, or if other
    /// points are of it: no damage makes one source's name of another's.
    pub(super) fn doubtful(
        &self,
        id: RecoveryPointId,
        error: StoreError,
    ) -> Result<DoubtfulPoint, StoreError> {
        let named = self.catalog.damaged_point(&id)?.and_then(|row| row.tag);
        let lines = self.catalog.point_lines()?;
        let tag = named.filter(|tag| lines.iter().any(|line| line.tag == *tag));
        Ok(DoubtfulPoint { id, tag, error })
    }

    /// Its name is what is damaged: the object says the right one, and the places that are said of the wrong one are not its own.
    fn rename_row(
        &self,
        damaged: &DamagedPoint,
        point: &RecoveryPoint,
        bytes: Vec<u8>,
    ) -> Result<(), StoreError> {
        let staged = self.staging.len(&names::point(&point.source_tag, &point.id))?.is_some();
        self.catalog.add_point(&row_of(point, bytes, staged, Vec::new()))?;
        self.catalog.drop_damaged_point(damaged)
    }

    fn find_object(&self, damaged: &DamagedPoint, far: Far) -> Result<Found, StoreError> {
        let id = damaged.id();
        if let Ok(point) = object::open_point_as_named_inside(&damaged.object, &self.sealer)
            // Another point's object in this one's row says nothing of this one.
            && (id == Some(point.id) || !self.has_sound_row(&point.id)?)
        {
            return Ok(Found::Whole(Box::new(point), damaged.object.clone()));
        }
        // Without an id it is nobody's whom anybody could look for, but what lies in a place that is away may be it.
        let (mut away, id) = (false, id.unwrap_or(RecoveryPointId([0; 16])));
        for name in self.staging.list("rp")?.into_iter().map(|object| object.name) {
            if is_of(&name, &id) {
                match self
                    .staging
                    .read_all(&name, POINT_LIMIT)
                    .map(|bytes| self.open_as(&bytes.unwrap_or_default(), &id))
                {
                    Ok(Some((point, bytes))) => return Ok(Found::Whole(Box::new(point), bytes)),
                    Ok(None) | Err(_) => away = true,
                }
            }
        }
        away |= damaged.vaults.iter().any(|no| self.vault(*no).is_err());
        for (_, address, transfer) in &self.vaults {
            match self.find_in_vault(transfer, &id, far) {
                Ok(Some((point, bytes))) => return Ok(Found::Whole(Box::new(point), bytes)),
                Ok(None) => {}
                Err(e) => {
                    tracing::warn!("vault {address}: {e}");
                    away = true;
                }
            }
        }
        Ok(if away { Found::Away } else { Found::Nowhere })
    }

    fn has_sound_row(&self, id: &RecoveryPointId) -> Result<bool, StoreError> {
        match self.catalog.point(id) {
            Err(e) if e.is_of_changed_catalog() => Ok(false),
            row => Ok(row?.is_some()),
        }
    }

    fn find_in_vault(
        &self,
        transfer: &Transfer,
        id: &RecoveryPointId,
        far: Far,
    ) -> Result<Option<(RecoveryPoint, Vec<u8>)>, StoreError> {
        if far == Far::Here {
            return Err(StoreError::not_in_memory());
        }
        let soon = Deadline::after(self.clock.as_ref(), MEETING_WAIT);
        prove_ours(self, transfer, soon)?;
        let listed = transfer.list_all_by(names::POINTS, soon).map_err(of_vault(transfer))?;
        let Some(object) = listed.into_iter().find(|object| is_of(&object.name, id)) else { return Ok(None) };
        // Twice if need be: the way from the vault may have flipped a bit.
        for _ in 0..2 {
            let bytes = transfer.get_by(&object.name, POINT_LIMIT, soon).map_err(of_vault(transfer))?;
            if let Some(found) = self.open_as(&bytes, id) {
                return Ok(Some(found));
            }
        }
        Err(StoreError::corrupt(object.name.as_str(), "it does not open"))
    }

    fn open_as(&self, bytes: &[u8], id: &RecoveryPointId) -> Option<(RecoveryPoint, Vec<u8>)> {
        let point = object::open_point_as_named_inside(bytes, &self.sealer).ok()?;
        (point.id == *id).then(|| (point, bytes.to_vec()))
    }
}

/// The row of a point that was opened from these bytes.
pub(super) fn row_of(point: &RecoveryPoint, object: Vec<u8>, staged: bool, vaults: Vec<VaultNo>) -> PointRow {
    PointRow {
        id: point.id,
        tag: point.source_tag,
        sequence: point.sequence,
        started: point.started.seconds,
        hash: object::object_hash(&object),
        object,
        staged,
        vaults,
    }
}

fn row_right(damaged: &DamagedPoint, point: &RecoveryPoint, object: Vec<u8>) -> PointRow {
    row_of(point, object, damaged.staged, damaged.vaults.clone())
}

fn is_of(name: &ObjectName, id: &RecoveryPointId) -> bool {
    names::point_of(name).is_some_and(|(_, of)| of == *id)
}

fn mended(id: &RecoveryPointId) -> String {
    format!("the catalog's row of recovery point {id} was damaged; it is put right from the point itself")
}
