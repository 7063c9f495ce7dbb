//! Which points there are, and what all of them hold.

use std::sync::{Arc, PoisonError};

use holdfast_store::error::StoreError;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::SourceName;
use holdfast_store::store::PointBrief;

use super::View;
use crate::error::FsError;
use crate::layout::{Change, Layout};
use crate::lock::lock;
use crate::recovery::{Patience, Totals};

/// The recovery's stamp when its points were looked at, and what they held at another. Requests take its lock: nobody holds it over I/O.
#[derive(Default)]
pub(super) struct Known {
    stamp: Option<i64>,
    totals: Option<(i64, Totals)>,
}

/// The points that the layout shows, with what it shows of them: of one whose row was damaged that may become known. Whoever looks for
/// new ones keeps its lock meanwhile.
pub(super) type Shown = Vec<(RecoveryPointId, u64, i64, Arc<SourceName>)>;

/// Of a point of which it is not known any more where it belongs, that is what was shown: its place does not vanish under who reads there.
fn as_shown(shown: &Shown, point: &mut PointBrief) {
    if let Ok(at) = shown.binary_search_by_key(&point.id, |(id, ..)| *id) {
        let (_, sequence, started, source) = &shown[at];
        (point.sequence, point.started, point.source) = (*sequence, *started, source.clone());
    }
}

impl View {
    /// Looks for new and vanished points, and says what the kernel must be told.
    pub fn refresh(&self) -> Result<Vec<Change>, StoreError> {
        let stamp = self.recovery.stamp()?;
        let mut shown = lock(&self.shown);
        if { lock(&self.known).stamp } == Some(stamp) {
            return Ok(Vec::new());
        }
        let mut points = self.recovery.points()?;
        points.iter_mut().filter(|point| point.is_in_doubt()).for_each(|point| as_shown(&shown, point));
        let now = points.iter().map(|p| (p.id, p.sequence, p.started, p.source.clone()));
        let mut now: Shown = now.collect();
        now.sort_unstable_by_key(|(id, ..)| *id);
        lock(&self.known).stamp = Some(stamp);
        if *shown == now {
            return Ok(Vec::new());
        }
        *shown = now;
        let next = Arc::new(self.layout().next(&points));
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
        if let Some((of, totals)) = known
            && Some(of) == stamp
        {
            return Ok(totals);
        }
        let totals = self.recovery.totals(patience)?;
        lock(&self.known).totals = stamp.map(|stamp| (stamp, totals));
        Ok(totals)
    }
}
