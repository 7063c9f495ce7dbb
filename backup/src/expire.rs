//! What the configuration means for the points that there are: which ones a vault is to be given, and which ones stay in each tier of a
//! group. All verbs ask here, so that what is shown beforehand is what is done.
//!
//! A point is taken once. Its copy in staging is of the local tier, its copies in vaults are of the online tier, and each tier expires
//! by its own rules; a point that is in neither any more is gone. Only points of this machine are looked at.

use std::collections::BTreeMap;

use holdfast_store::clock::Timestamp;
use holdfast_store::point::{PointState, SourceName};
use holdfast_store::store::StoredPoint;
use jiff::tz::TimeZone;

use crate::config::{Group, Tier};
use crate::online::{self, OnlineFacts, Rhythm};
use crate::schedule::jitter;

/// What there is, as far as the catalog knows.
#[derive(Clone, Debug)]
pub struct Tiers<'a> {
    /// All points, ascending by start.
    pub points: &'a [StoredPoint],
    /// This machine.
    pub host: &'a str,
    /// Where days are counted.
    pub zone: TimeZone,
}

/// Seconds by which this machine comes later than a tier's schedule says.
pub fn lateness(host: &str, group: &str, tier: &Tier) -> u32 {
    jitter(&format!("{host} {group}"), tier.jitter)
}

impl<'a> Tiers<'a> {
    /// What a vault is to be given of a group, oldest first.
    pub fn pending(&self, group: &Group, vault: &str) -> Vec<&'a StoredPoint> {
        let Some(tier) = &group.online else { return Vec::new() };
        let lateness = lateness(self.host, &group.name, tier);
        let rhythm = Rhythm { schedule: &tier.schedule, jitter: lateness, zone: &self.zone };
        let sources = self.sources(group);
        let mut pending: Vec<_> =
            sources.values().flat_map(|points| pending_of_source(points, vault, &rhythm)).collect();
        // Stays in the order of its source whatever its time is.
        pending.sort_by_key(|(place, _)| *place);
        pending.into_iter().map(|(_, stored)| stored).collect()
    }

    /// Points of a group that were taken on this machine, by data source.
    fn sources(&self, group: &Group) -> BTreeMap<&'a SourceName, Vec<&'a StoredPoint>> {
        let mut sources: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let is_ours = |source: &SourceName| source.group == group.name && source.host == self.host;
        for stored in self.points.iter().filter(|stored| is_ours(&stored.point.source)) {
            sources.entry(&stored.point.source).or_default().push(stored);
        }
        sources
    }
}

/// With places among other sources that never go back.
fn pending_of_source<'a>(
    points: &[&'a StoredPoint],
    vault: &str,
    rhythm: &Rhythm<'_>,
) -> Vec<(Timestamp, &'a StoredPoint)> {
    let facts: Vec<OnlineFacts> = points.iter().map(|stored| online_facts(stored, vault)).collect();
    let mut latest = None;
    let place = |id| {
        let stored = *points.iter().find(|stored| stored.point.id == id)?;
        let place = latest.max(Some(stored.point.started))?;
        latest = Some(place);
        Some((place, stored))
    };
    online::pending(&facts, rhythm).into_iter().filter_map(place).collect()
}

fn online_facts(stored: &StoredPoint, vault: &str) -> OnlineFacts {
    let point = &stored.point;
    OnlineFacts {
        id: point.id,
        sequence: point.sequence,
        started: point.started,
        complete: point.state == PointState::Complete,
        staged: stored.local,
        vaulted: stored.vaults.iter().any(|address| address == vault),
    }
}

#[cfg(test)]
mod tests;
