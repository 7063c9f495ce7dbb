//! Which points there are, and what all of them hold.

use std::sync::{Arc, PoisonError};

use holdfast_store::error::StoreError;
use holdfast_store::id::RecoveryPointId;

use super::View;
use crate::error::FsError;
use crate::layout::{Change, Layout};
use crate::lock::lock;
use crate::recovery::{Patience, Reach, Totals};

/// The points as they were when the recovery's stamp was this.
#[derive(Default)]
pub(super) struct Known {
    stamp: Option<i64>,
    ids: Vec<RecoveryPointId>,
    totals: Option<(i64, Totals)>,
}

impl View {
    /// Looks for new and vanished points, and says what the kernel must be told.
    pub fn refresh(&self) -> Result<Vec<Change>, StoreError> {
        let stamp = self.recovery.stamp()?;
        let mut known = lock(&self.known);
        if known.stamp == Some(stamp) {
            return Ok(Vec::new());
        }
        let points = self.recovery.points()?;
        let mut ids: Vec<_> = points.iter().map(|p| p.id).collect();
        ids.sort_unstable();
        known.stamp = Some(stamp);
        if known.ids == ids {
            return Ok(Vec::new());
        }
        known.ids = ids;
        let next = Arc::new(Layout::new(&points));
        let changes = self.layout().changes(&next);
        *self.layout.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(changes)
    }

    /// The directories above the points, as they are now.
    pub fn layout(&self) -> Arc<Layout> {
        self.layout.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What all points hold.
    pub fn totals(&self, patience: Patience) -> Result<Totals, FsError> {
        let (stamp, known) = {
            let known = lock(&self.known);
            (known.stamp, known.totals)
        };
        match known {
            Some((of, totals)) if Some(of) == stamp => return Ok(totals),
            _ if patience == Patience::Now => return Err(FsError::Later(Reach::Local)),
            _ => {}
        }
        let totals = self.recovery.totals().map_err(FsError::Store)?;
        lock(&self.known).totals = stamp.map(|stamp| (stamp, totals));
        Ok(totals)
    }
}
