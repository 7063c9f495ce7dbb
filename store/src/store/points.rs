//! Recovery points out of the catalog, decoded once.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use super::mend::{DoubtfulPoint, Far};
use super::{Store, StoredPoint};
use crate::catalog::{PointRow, VaultNo};
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SourceTag};

impl Store {
    /// All points, ascending by start. Decoded points are kept as long as the catalog knows them. Those that cannot be had are told in
    /// the log and left out.
    pub fn points(&self) -> Result<Vec<StoredPoint>, StoreError> {
        Ok(self.points_and_doubtful()?.0)
    }

    /// The same with those that are told.
    pub fn points_and_doubtful(&self) -> Result<(Vec<StoredPoint>, Vec<DoubtfulPoint>), StoreError> {
        let (points, doubtful) = self.look_at_points()?;
        doubtful.iter().for_each(|doubt| tracing::error!("{}", doubt.error));
        Ok((points, doubtful))
    }

    /// The same, untold: who asks which is the newest must not pass over those that cannot be had.
    pub fn look_at_points(&self) -> Result<(Vec<StoredPoint>, Vec<DoubtfulPoint>), StoreError> {
        let ids = self.catalog.point_ids()?;
        let known: HashSet<_> = ids.iter().map(|(id, _)| *id).collect();
        self.decoded.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| known.contains(id));
        let (mut points, mut doubtful) = (Vec::with_capacity(ids.len()), Vec::new());
        for (id, _) in ids {
            match self.point(&id) {
                Ok(point) => points.push(point),
                // It was forgotten meanwhile.
                Err(StoreError::NotFound { .. }) => {}
                Err(e @ StoreError::Corrupt { .. }) => doubtful.push(self.doubtful(id, e)?),
                Err(e) => return Err(e),
            }
        }
        // The catalog knows full seconds only.
        points.sort_by_key(|stored| (stored.point.started, stored.point.id));
        Ok((points, doubtful))
    }

    /// One point.
    pub fn point(&self, id: &RecoveryPointId) -> Result<StoredPoint, StoreError> {
        let row = self.sound_row(id, Far::Vaults)?;
        let row = row.ok_or_else(|| StoreError::NotFound { what: format!("recovery point {id}") })?;
        match self.stored(row) {
            // The row is as it was written, and not what the object says.
            Err(e @ StoreError::Corrupt { .. }) => {
                let row = self.mend_point(id, Far::Vaults)?;
                row.map_or(Err(e), |row| self.stored(row))
            }
            stored => stored,
        }
    }

    /// The newest point of a source. An error if it cannot be told which that is: what comes after would be numbered wrongly for good.
    pub fn newest_point(&self, tag: &SourceTag) -> Result<Option<StoredPoint>, StoreError> {
        for damaged in self.catalog.damaged_points(false)? {
            if let Some(id) = damaged.id()
                && let Err(e @ StoreError::Corrupt { .. }) = self.sound_row(&id, Far::Vaults)
            {
                let doubt = self.doubtful(id, e)?;
                if doubt.tag.is_none_or(|of| of == *tag) {
                    return Err(doubt.error);
                }
            }
        }
        let newest = self.catalog.newest_id(tag)?;
        newest.map(|id| self.point(&id)).transpose()
    }

    pub(super) fn stored(&self, row: PointRow) -> Result<StoredPoint, StoreError> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        let point = match decoded.get(&row.id) {
            Some(point) => point.clone(),
            None => {
                let point = Arc::new(self.open_row(&row)?);
                decoded.insert(row.id, point.clone());
                point
            }
        };
        let address = |no: &VaultNo| self.vaults.iter().find(|v| v.0 == *no).map(|v| v.1.clone());
        let vaults = row
            .vaults
            .iter()
            .map(|no| address(no).unwrap_or_else(|| self.catalog.vault_address(*no)))
            .collect();
        Ok(StoredPoint { point, hash: row.hash, local: row.staged, vaults })
    }
}
