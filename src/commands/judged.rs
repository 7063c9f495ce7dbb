//! Which points take no part in the rules of retention, for what is known of who made them: else who has a key of the store would make up points,
//! and have the rules remove those that they look like.

use std::collections::{BTreeSet, HashMap, HashSet};

use holdfast_backup::config::{Group, TierName};
use holdfast_backup::expire::{JudgedPoints, Tiers};
use holdfast_store::StoreError;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::SourceName;
use holdfast_store::store::{AlarmKind, Store, StoredPoint};

use super::Context;
use super::configured;
use crate::outcome::Failure;

/// Looks at the sources of which something is to go, and at no others: a signature takes longer to prove than a rule to apply.
pub struct Judging<'a> {
    store: &'a Store,
    points: &'a [StoredPoint],
    seen: HashSet<&'a SourceName>,
    /// What it found.
    pub judged: JudgedPoints,
}

impl<'a> Judging<'a> {
    /// Has looked at nothing yet but the alarms that stand.
    pub fn begin(store: &'a Store, points: &'a [StoredPoint]) -> Result<Self, StoreError> {
        let mut tags = BTreeSet::new();
        for (no, ..) in store.vaults() {
            let alarms = store.alarms(*no)?.into_iter();
            let forks = alarms.filter(|alarm| alarm.kind == AlarmKind::ChainForked);
            // The subject is the tag of the source and a number.
            tags.extend(forks.filter_map(|alarm| Some(alarm.subject.split_once(' ')?.0.to_owned())));
        }
        let mut judged = JudgedPoints::default();
        if !tags.is_empty() {
            let names: HashSet<&SourceName> = points.iter().map(|stored| &stored.point.source).collect();
            let is_forked = |name: &&&SourceName| {
                let tag = store.sealer().source_tag(&name.host, &name.group, &name.source);
                tags.contains(&tag.to_string())
            };
            judged.forked = names.iter().filter(is_forked).map(|name| (*name).clone()).collect();
        }
        Ok(Self { store, points, seen: HashSet::new(), judged })
    }

    /// Judges all points of the sources of these; `false` if that was done before.
    pub fn look_at(&mut self, ids: &HashSet<RecoveryPointId>) -> Result<bool, StoreError> {
        let of_these = self.points.iter().filter(|stored| ids.contains(&stored.point.id));
        let names = of_these.map(|stored| &stored.point.source);
        let new: HashSet<&SourceName> = names.filter(|name| !self.seen.contains(name)).collect();
        if new.is_empty() {
            return Ok(false);
        }
        let wanted = self.points.iter().filter(|stored| new.contains(&stored.point.source));
        let wanted: HashSet<RecoveryPointId> = wanted.map(|stored| stored.point.id).collect();
        let judged: HashMap<_, _> = self.store.judge(|id| wanted.contains(id))?;
        let forged = judged.into_iter().filter(|(_, judged)| judged.trust.alarm().is_some());
        self.judged.forged.extend(forged.map(|(id, _)| id));
        self.seen.extend(new);
        Ok(true)
    }
}

/// These points as the configuration sees them, with what is to be thought of those of sources of which something is to go, and without those
/// that staging lacks.
pub fn tiers<'a>(
    context: &'a Context<'_>,
    store: &'a Store,
    points: &'a [StoredPoint],
    groups: &[&Group],
) -> Result<Tiers<'a>, Failure> {
    let mut tiers = configured::tiers(context, store, points)?;
    tiers.absent = store.points_that_staging_lacks()?;
    let mut judging = Judging::begin(store, points)?;
    loop {
        tiers.judged = judging.judged.clone();
        let of_group = |group: &&Group| TierName::ALL.map(|name| tiers.plan(group, name));
        let plans = groups.iter().flat_map(of_group).flatten();
        let going: HashSet<_> = plans.flat_map(|plan| plan.remove).map(|decision| decision.id).collect();
        // Without points that are not by whom they say others may go; not of a source that nobody looked at.
        if !judging.look_at(&going)? {
            return Ok(tiers);
        }
    }
}
