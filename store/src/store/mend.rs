//! Rows of recovery points in the catalog that are not what was written. The object of a point says all that its row does, so the
//! row is put right from it: the copy in the row itself, else the one in staging, else one in a vault.
//!
//! A row that cannot be put right now stays and is told: its point may be whole in a vault that is away. Only a point that was looked
//! for in every place where it may be, and is in none, is forgotten.

use super::Store;
use super::look::{Found, Look};
use super::vaults::LISTING_WAIT;
use crate::catalog::{DamagedPoint, PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SourceTag};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::point::{RecoveryPoint, object};

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

impl Store {
    /// Puts damaged rows right, and tells of each. With `objects` what guards the sealed objects is looked at, too. Whoever holds the
    /// store's lock says so: rows are added and removed only then.
    pub(crate) fn mend_rows(
        &self,
        objects: bool,
        locked: bool,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        // Nobody is kept from the lock for long.
        let deadline = match locked {
            true => Deadline::after(self.clock.as_ref(), LISTING_WAIT),
            false => Deadline::NEVER,
        };
        self.put_rows_right(self.look_for_rows(objects, deadline)?, locked, monitor)
    }

    /// Damaged rows, and what became of the look for each.
    pub(super) fn look_for_rows(
        &self,
        objects: bool,
        deadline: Deadline,
    ) -> Result<Vec<(DamagedPoint, Found)>, StoreError> {
        let mut look = Look::far(self, deadline);
        let look_for = |row| look.object_of(&row).map(|found| (row, found));
        self.catalog.damaged_points(objects)?.into_iter().map(look_for).collect()
    }

    /// What somebody else put right meanwhile stays.
    pub(super) fn put_rows_right(
        &self,
        rows: Vec<(DamagedPoint, Found)>,
        locked: bool,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        for (damaged, found) in rows {
            if self.catalog.stands(&damaged)? {
                self.put_row_right(&damaged, found, locked, monitor)?;
            }
        }
        Ok(())
    }

    fn put_row_right(
        &self,
        damaged: &DamagedPoint,
        found: Found,
        locked: bool,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        let name = damaged.id().map_or_else(|| "without a name".to_owned(), |id| id.to_string());
        let tell = |reason: &str| {
            let path = format!("the catalog's row of recovery point {name}").into_bytes();
            monitor.event(Event::Problem { path, reason: reason.to_owned() });
        };
        match found {
            Found::Whole(point, bytes) if damaged.id() == Some(point.id) => {
                self.catalog.mend_point(&row_right(damaged, &point, bytes))?;
                monitor.event(Event::Note(mended(&point.id)));
            }
            Found::Whole(point, bytes) if locked => {
                self.rename_row(damaged, &point, bytes)?;
                monitor.event(Event::Note(mended(&point.id)));
            }
            Found::Nowhere if locked => {
                tell("it is damaged, and the point is in no place any more; it is forgotten");
                self.catalog.drop_damaged_point(damaged)?;
            }
            _ => tell("it is damaged, and no whole copy of the point can be reached"),
        }
        Ok(())
    }

    /// The row of a point, put right if it is damaged; `Corrupt` if that cannot be done now.
    pub(super) fn sound_row(
        &self,
        id: &RecoveryPointId,
        look: &mut Look<'_>,
    ) -> Result<Option<PointRow>, StoreError> {
        match self.catalog.point(id) {
            Err(e) if e.is_of_changed_catalog() => self.mend_point(id, look),
            // A row whose key one bit made text is not found by the id.
            Ok(None) => self.mend_point(id, look),
            row => row,
        }
    }

    /// What `open` makes of the row of a point, which is put right if it is damaged, or is as it was written and not what the object says.
    pub(super) fn load<T>(
        &self,
        id: &RecoveryPointId,
        look: &mut Look<'_>,
        open: impl Fn(PointRow) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let row = self.sound_row(id, look)?;
        match open(row.ok_or_else(|| StoreError::NotFound { what: format!("recovery point {id}") })?) {
            Err(e @ StoreError::Corrupt { .. }) => self.mend_point(id, look)?.map_or(Err(e), open),
            opened => opened,
        }
    }

    pub(super) fn mend_point(
        &self,
        id: &RecoveryPointId,
        look: &mut Look<'_>,
    ) -> Result<Option<PointRow>, StoreError> {
        let Some(damaged) = self.catalog.damaged_point(id)? else { return Ok(None) };
        match look.object_of(&damaged)? {
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

fn mended(id: &RecoveryPointId) -> String {
    format!("the catalog's row of recovery point {id} was damaged; it is put right from the point itself")
}
