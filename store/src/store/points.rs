//! Recovery points out of the catalog, decoded once.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use super::{Store, StoredPoint};
use crate::catalog::{PointRow, VaultNo};
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SourceTag};

impl Store {
    /// All points, ascending by start. Decoded points are kept as long as the catalog knows them.
    pub fn points(&self) -> Result<Vec<StoredPoint>, StoreError> {
        let ids = self.catalog.point_ids()?;
        let known: HashSet<_> = ids.iter().map(|(id, _, _)| *id).collect();
        self.decoded.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| known.contains(id));
        let mut points = Vec::with_capacity(ids.len());
        for (id, _, _) in ids {
            if let Some(row) = self.catalog.point(&id)? {
                points.push(self.stored(row)?);
            }
        }
        // The catalog knows full seconds only.
        points.sort_by_key(|stored| (stored.point.started, stored.point.id));
        Ok(points)
    }

    /// One point.
    pub fn point(&self, id: &RecoveryPointId) -> Result<StoredPoint, StoreError> {
        let row = self.catalog.point(id)?;
        self.stored(row.ok_or_else(|| StoreError::NotFound { what: format!("recovery point {id}") })?)
    }

    /// The newest point of a source.
    pub fn newest_point(&self, tag: &SourceTag) -> Result<Option<StoredPoint>, StoreError> {
        self.catalog.newest_point(tag)?.map(|row| self.stored(row)).transpose()
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
