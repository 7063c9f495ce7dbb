//! What the configuration means for the points that there are: which ones a vault is to be given, and which ones stay in each tier of a
//! group. All verbs ask here, so that what is shown beforehand is what is done.
//!
//! A point is taken once. Its copy in staging is of the local tier, its copies in vaults are of the online tier, and each tier expires
//! by its own rules; a point that is in neither any more is gone. A copy in staging stays as long as a vault is to have the point and is
//! not known to have it whole: what lacks something in a vault is pending there again, whatever the schedule says, until its own rules let it
//! go there. Of a group that is stopped nothing goes into vaults any more, so nothing waits for one but what a vault lost and none has whole. Only points
//! of this machine are looked at.

use std::collections::{BTreeMap, HashSet};

use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::{PointState, SourceName};
use holdfast_store::store::StoredPoint;
use jiff::tz::TimeZone;

use crate::config::{Group, Stopped, Tier, TierName};
use crate::online::{self, OnlineFacts, Rhythm};
use crate::retention::{PointFacts, Reason, Retention, RetentionPlan, guarded, plan_and_keep, plan_to_keep};
use crate::schedule::jitter;

/// What there is, as far as the catalog knows.
#[derive(Clone, Debug)]
pub struct Tiers<'a> {
    /// All points, ascending by start.
    pub points: &'a [StoredPoint],
    /// The vaults of the store.
    pub vaults: Vec<KnownVault<'a>>,
    /// This machine.
    pub host: &'a str,
    /// Where days are counted.
    pub zone: TimeZone,
    /// The present, which is only held against points that claim to be from the future.
    pub now: Timestamp,
    /// What is to be thought of who made the points.
    pub judged: JudgedPoints,
    /// Points of staging that are not there, or not whole anywhere: they serve no local rule in the place of what lies there.
    pub absent: HashSet<RecoveryPointId>,
}

/// What is known of who made points, of the sources that somebody looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JudgedPoints {
    /// Points that are not by whom they say: they are kept, and no rule counts them.
    pub forged: HashSet<RecoveryPointId>,
    /// Sources of which somebody else takes points as well: none of theirs goes by rules.
    pub forked: HashSet<SourceName>,
}

impl JudgedPoints {
    /// What retention needs to know of a point, with that.
    pub fn of(&self, facts: PointFacts) -> PointFacts {
        PointFacts { forged: self.forged.contains(&facts.id), ..facts }
    }

    /// Points that stay for what is known of their sources.
    pub fn kept(&self, points: &[PointFacts]) -> Vec<(RecoveryPointId, Reason)> {
        let forked = points.iter().filter(|point| self.forked.contains(&point.source));
        forked.map(|point| (point.id, Reason::Forked)).collect()
    }
}

/// A vault of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownVault<'a> {
    /// Its address, as points name it.
    pub address: &'a str,
    /// Whether the catalog knows what it holds: one that was made anew does not, until it saw the vault.
    pub is_known: bool,
}

/// Seconds by which this machine comes later than a tier's schedule says.
pub fn lateness(host: &str, group: &str, tier: &Tier) -> u32 {
    jitter(&format!("{host} {group}"), tier.jitter)
}

impl<'a> Tiers<'a> {
    /// What a vault is to be given of a group, oldest first; after that what it lacks of what it had.
    pub fn pending(&self, group: &Group, vault: &str) -> Vec<&'a StoredPoint> {
        let goes_on = group.stopped.is_none();
        let tier = group.online.as_ref().filter(|tier| goes_on && tier.is_for(vault));
        let Some(tier) = tier else { return Vec::new() };
        let lateness = lateness(self.host, &group.name, tier);
        let rhythm = Rhythm { schedule: &tier.schedule, jitter: lateness, zone: &self.zone };
        let mut sources = self.sources(group);
        // One that is not by whom it says serves no span.
        let is_honest = |stored: &&StoredPoint| !self.judged.forged.contains(&stored.point.id);
        sources.values_mut().for_each(|points| points.retain(is_honest));
        // What was there before waits for what is new.
        let mut pending = merged(sources.values().map(|points| pending_of_source(points, vault, &rhythm)));
        pending.extend(merged(sources.values().map(|points| doubted_of_source(points, vault))));
        pending
    }

    /// What stays and what goes in a tier of a group, and why; nothing if the group has no such tier. What cannot be read is in no list
    /// of points, and so in no plan.
    pub fn plan(&self, group: &Group, name: TierName) -> Option<RetentionPlan> {
        let keep = &group.tier(name)?.keep;
        let ours = self.sources(group).into_values().flatten();
        let is_there = |stored: &&StoredPoint| match name {
            TierName::Local => is_in(stored, name) && !self.absent.contains(&stored.point.id),
            TierName::Online => is_in(stored, name) || !stored.incomplete.is_empty(),
        };
        let there: Vec<&StoredPoint> = ours.filter(is_there).collect();
        let mut kept = match name {
            TierName::Local => self.waiting(group, &there),
            TierName::Online => self.guarded_in_each_vault(&there),
        };
        let facts = self.facts(there.iter().copied());
        kept.extend(self.judged.kept(&facts));
        if group.stopped == Some(Stopped::Keep) {
            return Some(plan_to_keep(&facts, Reason::Stopped));
        }
        let keep = Retention { ends: group.stopped.is_some(), ..keep.clone() };
        let plan = |facts: &[PointFacts], kept: &[_]| plan_and_keep(facts, &keep, &self.zone, self.now, kept);
        if name == TierName::Online && !there.iter().all(|stored| is_whole_online(stored)) {
            // What lacks something serves no rule in the place of what is whole.
            let whole = self.facts(there.iter().filter(|stored| is_whole_online(stored)).copied());
            let stays = plan(&whole, &kept).keep.into_iter();
            kept.extend(stays.flat_map(|one| one.reasons.into_iter().map(move |reason| (one.id, reason))));
        }
        Some(plan(&facts, &kept))
    }

    /// What a vault lacks that is to have it, and what a vault lost something of and no vault has whole, whoever is to send it.
    fn waiting(&self, group: &Group, there: &[&StoredPoint]) -> Vec<(RecoveryPointId, Reason)> {
        let alone = there.iter().filter(|stored| !stored.incomplete.is_empty() && !is_whole_online(stored));
        let ids = alone.map(|stored| stored.point.id).chain(self.wanted(group, there));
        ids.map(|id| (id, Reason::WaitsForVault)).collect()
    }

    /// What a vault lacks that is to have it. Of one of which nothing is known it may be any point, and so it is of one that is named and
    /// that the store does not have: it is still to be added, or its name is mistyped.
    fn wanted(&self, group: &Group, there: &[&StoredPoint]) -> Vec<RecoveryPointId> {
        if group.stopped.is_some() {
            return Vec::new();
        }
        let wants = |vault: &KnownVault<'_>| match vault.is_known {
            false if group.online.as_ref().is_some_and(|tier| tier.is_for(vault.address)) => {
                there.iter().filter(|stored| goes_by_rules(stored)).map(|stored| stored.point.id).collect()
            }
            _ => {
                let pending = self.pending(group, vault.address).into_iter();
                pending.filter(|stored| stored.local).map(|stored| stored.point.id).collect::<Vec<_>>()
            }
        };
        let is_missing = |address: &&str| !self.vaults.iter().any(|vault| vault.address == *address);
        let named = group.online.iter().flat_map(|tier| tier.vaults.iter().map(String::as_str));
        let missing = named.filter(is_missing).map(|address| KnownVault { address, is_known: false });
        let vaults = self.vaults.iter().copied().chain(missing);
        vaults.flat_map(|vault| wants(&vault)).collect()
    }

    /// A vault that was away has older points than the others, and keeps its newest whole one until it has newer ones; and its newest one, of
    /// which a push may find that it lacks little.
    fn guarded_in_each_vault(&self, there: &[&StoredPoint]) -> Vec<(RecoveryPointId, Reason)> {
        let guarded_in = |vault: &KnownVault<'_>| {
            let lacks = |stored: &StoredPoint| has(&stored.incomplete, vault.address);
            let has_whole = |stored: &&&StoredPoint| has(&stored.vaults, vault.address) && !lacks(stored);
            let has_some = |stored: &&&StoredPoint| has(&stored.vaults, vault.address) || lacks(stored);
            let mut found = guarded(&self.facts(there.iter().filter(has_whole).copied()));
            let of_some = guarded(&self.facts(there.iter().filter(has_some).copied()));
            found.extend(of_some.into_iter().filter(|one| !found.contains(one)).collect::<Vec<_>>());
            found
        };
        self.vaults.iter().flat_map(guarded_in).collect()
    }

    fn facts<'b>(&self, points: impl Iterator<Item = &'b StoredPoint>) -> Vec<PointFacts> {
        points.map(|stored| self.judged.of(facts_of_source(stored))).collect()
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

/// Whether a tier has a copy of a point.
pub fn is_in(stored: &StoredPoint, tier: TierName) -> bool {
    match tier {
        TierName::Local => stored.local,
        TierName::Online => !stored.vaults.is_empty(),
    }
}

/// What retention needs to know of a point in this series. Who made it is not looked at.
pub fn facts(stored: &StoredPoint, series: String) -> PointFacts {
    let point = &stored.point;
    PointFacts {
        id: point.id,
        source: point.source.clone(),
        series,
        sequence: point.sequence,
        started: point.started,
        complete: point.state == PointState::Complete,
        held: stored.held.is_some(),
        expires: point.expires(),
        forged: false,
    }
}

/// The same where each data source is a series.
pub fn facts_of_source(stored: &StoredPoint) -> PointFacts {
    let SourceName { host, group, source } = &stored.point.source;
    facts(stored, format!("{host}\0{group}\0{source}"))
}

/// One with an expiry of its own goes online only when somebody says so: it would be gone before those whose place it took.
fn goes_by_rules(stored: &StoredPoint) -> bool {
    stored.point.expires().is_none()
}

fn pending_of_source<'a>(points: &[&'a StoredPoint], vault: &str, rhythm: &Rhythm<'_>) -> Placed<'a> {
    let by_rules = points.iter().filter(|stored| goes_by_rules(stored));
    let facts: Vec<OnlineFacts> = by_rules.map(|stored| online_facts(stored, vault)).collect();
    let wanted = online::pending(&facts, rhythm);
    let stored = |id: &RecoveryPointId| points.iter().find(|stored| stored.point.id == *id).copied();
    in_order(wanted.iter().filter_map(stored).collect())
}

/// Points of one source that lack something in a vault, whatever the schedule says.
fn doubted_of_source<'a>(points: &[&'a StoredPoint], vault: &str) -> Placed<'a> {
    let mut doubted: Vec<_> =
        points.iter().filter(|stored| has(&stored.incomplete, vault)).copied().collect();
    doubted.sort_by_key(|stored| (stored.point.sequence, stored.point.started, stored.point.id));
    in_order(doubted)
}

/// Points of one source, with places among those of other sources.
type Placed<'a> = Vec<(Timestamp, &'a StoredPoint)>;

/// Points of all sources. Each stays in the order of its source whatever its time is.
fn merged<'a>(sources: impl Iterator<Item = Placed<'a>>) -> Vec<&'a StoredPoint> {
    let mut all: Placed<'a> = sources.flatten().collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, stored)| stored).collect()
}

/// With places that never go back.
fn in_order(points: Vec<&StoredPoint>) -> Placed<'_> {
    let mut latest = Timestamp::from_seconds(i64::MIN);
    let mut placed = Vec::with_capacity(points.len());
    for stored in points {
        latest = latest.max(stored.point.started);
        placed.push((latest, stored));
    }
    placed
}

/// Whether a vault has it and lacks nothing of it.
fn is_whole_online(stored: &StoredPoint) -> bool {
    stored.vaults.iter().any(|vault| !has(&stored.incomplete, vault))
}

fn has(addresses: &[String], vault: &str) -> bool {
    addresses.iter().any(|address| address == vault)
}

fn online_facts(stored: &StoredPoint, vault: &str) -> OnlineFacts {
    let point = &stored.point;
    OnlineFacts {
        id: point.id,
        sequence: point.sequence,
        started: point.started,
        complete: point.state == PointState::Complete,
        staged: stored.local,
        vaulted: has(&stored.vaults, vault) || has(&stored.incomplete, vault),
    }
}

#[cfg(test)]
mod tests;
