//! Recovery points without what grows in them: a mount of ten thousand must neither decode nor keep them all.

use std::sync::{Arc, PoisonError};

use super::{PointBrief, Store};
use crate::catalog::PointRow;
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SourceTag};
use crate::names;
use crate::point::{self, RecoveryPoint, SourceName};

impl Store {
    /// All points, in no order. One is decoded for each source, the others are told by the catalog. A source of which none can be
    /// decoded is left out, with a warning.
    pub fn point_briefs(&self) -> Result<Vec<PointBrief>, StoreError> {
        let mut briefs = Vec::new();
        for line in self.catalog.point_lines()? {
            match self.source_of(&line.tag, &line.id) {
                Ok(source) => briefs.push(PointBrief {
                    id: line.id,
                    source,
                    tag: line.tag,
                    sequence: line.sequence,
                    started: line.started,
                }),
                Err(e) => tracing::warn!("recovery point {}: {e}", line.id),
            }
        }
        Ok(briefs)
    }

    /// A point, decoded for the caller alone.
    pub fn decode_point(&self, id: &RecoveryPointId) -> Result<RecoveryPoint, StoreError> {
        let row = self.catalog.point(id)?;
        self.open_row(&row.ok_or_else(|| StoreError::NotFound { what: format!("recovery point {id}") })?)
    }

    pub(super) fn open_row(&self, row: &PointRow) -> Result<RecoveryPoint, StoreError> {
        let opened = point::object::open_point(&row.object, &self.sealer, &row.tag, &row.id);
        opened.map_err(|e| e.of(names::point(&row.tag, &row.id).as_str()))
    }

    fn source_of(&self, tag: &SourceTag, id: &RecoveryPointId) -> Result<Arc<SourceName>, StoreError> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sources.get(tag) {
            return Ok(known.clone());
        }
        let source = Arc::new(self.decode_point(id)?.source);
        sources.insert(*tag, source.clone());
        Ok(source)
    }
}
