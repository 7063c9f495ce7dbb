//! Recovery points without what grows in them: a mount of ten thousand must neither decode nor keep them all.

use std::sync::{Arc, PoisonError};

use super::look::Look;
use super::{PointBrief, Store};
use crate::catalog::{PointLine, PointRow};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SourceTag};
use crate::names;
use crate::point::{self, RecoveryPoint, SourceName};

impl Store {
    /// All points, in no order. One is decoded for each source, the others are told by the catalog. One whose row is damaged, and cannot be
    /// put right with what is on this machine, may be the newest of its source, and so it is told; its time is not known. If its source
    /// is not known either, it is one of its own.
    pub fn point_briefs(&self) -> Result<Vec<PointBrief>, StoreError> {
        let ids = self.catalog.damaged_points(false)?.into_iter().filter_map(|row| row.id());
        let (mut lines, mut look) = (Vec::new(), Look::here(self));
        for id in ids.collect::<Vec<_>>() {
            match self.sound_row(&id, &mut look) {
                Err(e @ StoreError::Corrupt { .. }) => {
                    tracing::warn!("{e}");
                    let tag = self.doubtful(id, e)?.tag.unwrap_or(SourceTag(id.0));
                    lines.push(PointLine { id, tag, sequence: u64::MAX, started: 0 });
                }
                row => drop(row?),
            }
        }
        lines.extend(self.catalog.point_lines()?);
        for line in &lines {
            if let Err(e) = self.source_of(&line.tag, &line.id) {
                tracing::warn!("recovery point {}: {e}", line.id);
            }
        }
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let brief = |line: PointLine| PointBrief {
            id: line.id,
            source: sources.get(&line.tag).cloned().unwrap_or_else(|| unknown_source(&line.tag)),
            tag: line.tag,
            sequence: line.sequence,
            started: line.started,
        };
        Ok(lines.into_iter().map(brief).collect())
    }

    /// A point, decoded for the caller alone, with what is on this machine.
    pub fn decode_point(&self, id: &RecoveryPointId) -> Result<RecoveryPoint, StoreError> {
        self.load(id, &mut Look::here(self), |row| self.open_row(&row))
    }

    /// The same; where its row is damaged, vaults are asked for it, too, until then.
    pub fn decode_point_from_anywhere(
        &self,
        id: &RecoveryPointId,
        until: Deadline,
    ) -> Result<RecoveryPoint, StoreError> {
        self.load(id, &mut Look::far(self, until), |row| self.open_row(&row))
    }

    /// `Corrupt` also if the row says something else of the point than its object.
    pub(super) fn open_row(&self, row: &PointRow) -> Result<RecoveryPoint, StoreError> {
        let name = names::point(&row.tag, &row.id);
        let opened = point::object::open_point(&row.object, &self.sealer, &row.tag, &row.id);
        let point = opened.map_err(|e| e.of(name.as_str()))?;
        if (point.sequence, point.started.seconds) != (row.sequence, row.started) {
            return Err(StoreError::corrupt(name.as_str(), "the catalog says something else of it"));
        }
        Ok(point)
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

/// Stands for the source of points of which none can be decoded.
fn unknown_source(tag: &SourceTag) -> Arc<SourceName> {
    let [host, group] = ["unknown"; 2].map(str::to_owned);
    Arc::new(SourceName { host, group, source: tag.to_string() })
}
