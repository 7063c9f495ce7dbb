//! What a daemon is to do next, and when: a pure function from the configuration, from what was done before, and from a moment.
//!
//! There are no timers that could be lost: what is due follows from when each task last began and how that ended. So a restart, a
//! machine that slept and a clock that was put right are all the same thing. What was missed is done once.
//!
//! A group's points are *taken* at the moments of both of its tiers. Its points are *pushed* once a point was taken at or after a
//! moment of the online tier: a vault that is away keeps nobody from taking points, and what failed is tried again
//! ([`retry_after`]) until it is done.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use holdfast_store::clock::Timestamp;
use jiff::tz::TimeZone;

pub use crate::config::TierName;
use crate::config::{Config, Group, Stopped, Tier};
use crate::expire::lateness;
use crate::retention::is_after;
use crate::schedule::Schedule;

/// The first wait after a failure; each further one doubles it …
const RETRY_FIRST: i64 = 60;
/// … up to this.
const RETRY_MAX: i64 = 3600;
/// A tier is expired this long after the last time at the earliest. Much longer, and a tier that takes one each minute and keeps a few would
/// hold many more.
const EXPIRE_EVERY: i64 = 120;
/// One of a group that takes no more points, where nothing new says that something may go.
const EXPIRE_STOPPED_EVERY: i64 = 24 * 3600;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Takes a point of each source of a group.
    Take,
    /// Puts points of a group into vaults.
    Push,
    /// Removes local points of a group that its retention does not keep.
    ExpireLocal,
    /// The same in vaults.
    ExpireOnline,
    /// Frees what no point needs in the local store.
    Reclaim,
    /// The same in vaults, where nobody waits for it.
    ReclaimVaults,
    /// Looks whether everything is there.
    Check,
    /// Reads all of it besides, which is never done but by a person.
    CheckData,
    /// Reads some of it each day, so that all is read again and again.
    Scrub,
    /// Recovers some files from vaults alone, to see that it can be done.
    Drill,
}

/// Work and its words.
const WORDS: [(Work, &str); 10] = [
    (Work::Take, "backup"),
    (Work::Push, "push"),
    (Work::ExpireLocal, "expire-local"),
    (Work::ExpireOnline, "expire-online"),
    (Work::Reclaim, "reclaim"),
    (Work::ReclaimVaults, "reclaim-vaults"),
    (Work::Check, "check"),
    (Work::CheckData, "check-data"),
    (Work::Scrub, "scrub"),
    (Work::Drill, "drill"),
];

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS.iter().find(|(work, _)| work == self).map_or("", |(_, word)| word))
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = WORDS.iter().find(|(_, known)| *known == word);
        found.map(|(work, _)| *work).ok_or_else(|| format!("{word:?} is no work"))
    }
}

/// Works that may run beside each other are in different lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Writes to the store.
    Store,
    /// Frees space in the store, by turns with what writes there.
    Room,
    /// Waits for vaults.
    Vault,
    /// Frees space in vaults.
    Reclaim,
    /// Reads.
    Read,
}

impl Work {
    /// Where it runs, one after the other.
    pub fn lane(self) -> Lane {
        match self {
            Self::Take | Self::ExpireLocal => Lane::Store,
            Self::Reclaim => Lane::Room,
            Self::Push | Self::ExpireOnline => Lane::Vault,
            Self::ReclaimVaults => Lane::Reclaim,
            Self::Check | Self::CheckData | Self::Scrub | Self::Drill => Lane::Read,
        }
    }

    /// What of other lanes has to have ended when it begins. What is let go is let go before its space is freed; who lets points of vaults
    /// go has the lock of removals there alone, which whoever frees space there shares.
    pub fn begins_after(self) -> &'static [Self] {
        match self {
            Self::Reclaim => &[Self::Take, Self::ExpireLocal],
            Self::ReclaimVaults => &[Self::ExpireOnline],
            Self::ExpireOnline => &[Self::ReclaimVaults],
            _ => &[],
        }
    }
}

/// Work for a group, or for the whole store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// What. Of two that are due in the same lane the first one in this order is done first.
    pub work: Work,
    /// The group's name.
    pub group: Option<String>,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{} {group}", self.work),
            None => self.work.fmt(f),
        }
    }
}

/// What is known of a task that was done before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// When it last began.
    pub begun: Option<Timestamp>,
    /// When it last began and was then done, if only in part.
    pub good: Option<Timestamp>,
    /// When it last ended.
    pub ended: Option<Timestamp>,
    /// How often it failed since it was done.
    pub failures: u32,
    /// How the last one was cut off, if it was.
    pub cut: Option<Cut>,
}

/// Who cut off a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Somebody who wants none before its next moment.
    Cancelled,
    /// The end of the daemon or the machine, which says nothing of the job: it goes on soon after.
    Lost,
}

impl Past {
    /// Without what cannot have been yet.
    fn until(self, now: Timestamp) -> Self {
        let sane = |at: Option<Timestamp>| at.and_then(|at| until(at, now));
        let ended = sane(self.ended);
        let failures = if ended.is_some() { self.failures } else { 0 };
        let cut = ended.and(self.cut);
        Self { begun: sane(self.begun), good: sane(self.good), ended, failures, cut }
    }
}

/// What is said to have been after now was said by a clock that has been put right: when it was is not known.
fn until(at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (!is_after(at, now)).then_some(at)
}

/// Tells what is known of a task.
pub trait History {
    /// Nothing, if it was never done.
    fn past(&self, task: &Task) -> Past;
}

impl History for BTreeMap<Task, Past> {
    fn past(&self, task: &Task) -> Past {
        self.get(task).copied().unwrap_or_default()
    }
}

impl<F: Fn(&Task) -> Past> History for F {
    fn past(&self, task: &Task) -> Past {
        self(task)
    }
}

/// How long after so many failures it is tried again.
pub fn retry_after(failures: u32) -> Duration {
    let doubled = RETRY_FIRST.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(RETRY_MAX);
    Duration::from_secs(doubled.min(RETRY_MAX).unsigned_abs())
}

/// When the moments of a tier are, on this machine.
#[derive(Clone, Debug)]
struct Moments {
    schedule: Schedule,
    later: i64,
}

impl Moments {
    fn of(tier: &Tier, group: &str, host: &str) -> Self {
        let later = i64::from(lateness(host, group, tier));
        Self { schedule: tier.schedule.clone(), later }
    }

    fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let earlier = Timestamp { seconds: after.seconds.saturating_sub(self.later), ..after };
        let next = self.schedule.next_after(earlier, zone)?;
        Some(Timestamp::from_seconds(next.seconds.saturating_add(self.later)))
    }
}

#[derive(Clone, Debug)]
struct Plans {
    name: String,
    local: Option<Moments>,
    online: Option<Moments>,
    expires_local: bool,
    expires_online: bool,
    /// It takes no more points.
    is_stopped: bool,
}

impl Plans {
    fn of(group: &Group, host: &str) -> Self {
        let is_stopped = group.stopped.is_some();
        let tier = |tier: &Tier| Moments::of(tier, &group.name, host);
        let moments = |of: &Option<Tier>| of.as_ref().filter(|_| !is_stopped).map(tier);
        let lets_go = group.stopped != Some(Stopped::Keep);
        let expires = |of: &Option<Tier>| of.as_ref().is_some_and(|tier| lets_go && !tier.keep.is_empty());
        Self {
            name: group.name.clone(),
            local: moments(&group.local),
            online: moments(&group.online),
            expires_local: expires(&group.local),
            expires_online: expires(&group.online),
            is_stopped,
        }
    }

    fn tasks(&self) -> impl Iterator<Item = Task> + '_ {
        let works = [
            (Work::Take, !self.is_stopped),
            (Work::Push, self.online.is_some()),
            (Work::ExpireLocal, self.expires_local),
            (Work::ExpireOnline, self.expires_online),
        ];
        let task = |work| Task { work, group: Some(self.name.clone()) };
        works.into_iter().filter(|(_, is)| *is).map(move |(work, _)| task(work))
    }
}

/// All that is to be done again and again.
#[derive(Clone, Debug)]
pub struct Agenda {
    groups: Vec<Plans>,
    reclaim: Option<Moments>,
    reclaim_vaults: bool,
    check: Option<Moments>,
    scrub: Option<Moments>,
    drill: Option<Moments>,
    zone: TimeZone,
    /// What was never done and needs no beginning at once waits for its first moment after this one.
    since: Timestamp,
}

impl Agenda {
    /// What a configuration says for the machine `host`, from `since` on. Days are counted in its zone, or in `zone`.
    pub fn new(config: &Config, host: &str, zone: TimeZone, since: Timestamp) -> Self {
        let upkeep =
            |schedule: &Option<Schedule>| schedule.clone().map(|schedule| Moments { schedule, later: 0 });
        Self {
            groups: config.groups.iter().map(|group| Plans::of(group, host)).collect(),
            reclaim: upkeep(&config.reclaim),
            reclaim_vaults: config.reclaim_vaults,
            check: upkeep(&config.check),
            scrub: upkeep(&config.scrub),
            drill: upkeep(&config.drill),
            zone: config.zone.clone().unwrap_or(zone),
            since,
        }
    }

    /// All tasks, in the order in which they are done when they are due together.
    pub fn tasks(&self) -> Vec<Task> {
        let vaults = self.reclaim.as_ref().filter(|_| self.reclaim_vaults);
        let upkeep = [
            (Work::Reclaim, self.reclaim.as_ref()),
            (Work::ReclaimVaults, vaults),
            (Work::Check, self.check.as_ref()),
            (Work::Scrub, self.scrub.as_ref()),
            (Work::Drill, self.drill.as_ref()),
        ];
        let upkeep = upkeep.into_iter().filter(|(_, moments)| moments.is_some());
        let upkeep = upkeep.map(|(work, _)| Task { work, group: None });
        let mut tasks: Vec<Task> = self.groups.iter().flat_map(Plans::tasks).chain(upkeep).collect();
        tasks.sort();
        tasks
    }

    /// When a task is to begin: at `now` or before, if it is due. `None`: not before something else was done.
    pub fn next(&self, task: &Task, history: &dyn History, now: Timestamp) -> Option<Timestamp> {
        let past = history.past(task).until(now);
        let of_group = |work| history.past(&Task { work, group: task.group.clone() }).until(now);
        let due = match (task.work, self.plans(task)) {
            (Work::Take | Work::Push, Some(plans)) if plans.is_stopped => return None,
            (Work::Take, Some(plans)) => self.next_take(plans, &past, now),
            (Work::Push, Some(plans)) => self.next_push(plans, &past, &of_group(Work::Take)),
            (Work::ExpireLocal | Work::ExpireOnline, Some(plans)) if plans.is_stopped => {
                Some(past.begun.map_or(now, later_by(EXPIRE_STOPPED_EVERY)))
            }
            (Work::ExpireLocal, Some(_)) => next_expiry(&past, &of_group(Work::Take)),
            (Work::ExpireOnline, Some(_)) => next_expiry(&past, &of_group(Work::Push)),
            (Work::Reclaim | Work::ReclaimVaults, _) => self.next_upkeep(self.reclaim.as_ref()?, &past, now),
            (Work::Check, _) => self.next_upkeep(self.check.as_ref()?, &past, now),
            (Work::Scrub, _) => self.next_upkeep(self.scrub.as_ref()?, &past, now),
            (Work::Drill, _) => self.next_upkeep(self.drill.as_ref()?, &past, now),
            _ => None,
        };
        soonest(due, retry(&past))
    }

    /// The first moment after `after` of a tier of a group.
    pub fn moment_after(&self, group: &str, tier: TierName, after: Timestamp) -> Option<Timestamp> {
        let plans = self.groups.iter().find(|plans| plans.name == group)?;
        let moments = if tier == TierName::Local { &plans.local } else { &plans.online };
        moments.as_ref()?.next_after(after, &self.zone)
    }

    /// Whether a group takes no more points.
    pub fn is_stopped(&self, group: &str) -> bool {
        self.groups.iter().any(|plans| plans.name == group && plans.is_stopped)
    }

    fn plans(&self, task: &Task) -> Option<&Plans> {
        self.groups.iter().find(|plans| task.group.as_ref() == Some(&plans.name))
    }

    fn next_take(&self, plans: &Plans, past: &Past, now: Timestamp) -> Option<Timestamp> {
        let Some(last) = past.begun else { return Some(now) };
        let next = |moments: &Option<Moments>| moments.as_ref()?.next_after(last, &self.zone);
        soonest(next(&plans.local), next(&plans.online))
    }

    fn next_push(&self, plans: &Plans, past: &Past, taken: &Past) -> Option<Timestamp> {
        let taken = taken.good?;
        let last = if past.cut == Some(Cut::Cancelled) { past.begun } else { past.good };
        let moment = match last {
            None => taken,
            Some(last) => plans.online.as_ref()?.next_after(last, &self.zone)?,
        };
        // What failed or was lost is tried again at its time, and not before.
        (moment <= taken && retry(past).is_none()).then_some(moment)
    }

    fn next_upkeep(&self, moments: &Moments, past: &Past, now: Timestamp) -> Option<Timestamp> {
        match past.begun.or_else(|| until(self.since, now)) {
            Some(last) => moments.next_after(last, &self.zone),
            None => Some(now),
        }
    }
}

/// There is something to expire when there is something new.
fn next_expiry(past: &Past, news: &Past) -> Option<Timestamp> {
    let good = news.good?;
    let Some(last) = past.begun else { return Some(good) };
    (good > last).then(|| good.max(later_by(EXPIRE_EVERY)(last)))
}

fn later_by(seconds: i64) -> impl Fn(Timestamp) -> Timestamp {
    move |time| Timestamp { seconds: time.seconds.saturating_add(seconds), ..time }
}

fn retry(past: &Past) -> Option<Timestamp> {
    let wait = match past.cut {
        Some(Cut::Cancelled) => return None,
        Some(Cut::Lost) => RETRY_FIRST,
        None if past.failures == 0 => return None,
        None => retry_after(past.failures).as_secs().cast_signed(),
    };
    past.ended.map(later_by(wait))
}

fn soonest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
