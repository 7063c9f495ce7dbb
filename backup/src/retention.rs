//! Which recovery points stay and which go: a pure function from facts and a policy to a plan with reasons.
//!
//! Nothing here asks a clock. Spans and periods reach back from the newest point of a series, not from now: a machine that was off for
//! a year still has its last month of points. What is newest within a data source its sequence numbers say, not its times,
//! and points whose time cannot be right are counted apart from the others; so a wrong clock, then or now, cannot make a
//! policy remove more of the points that a right clock dated. A series to which no more points come is the exception: its rules reach back from
//! now.
//!
//! A period (hour, day, week, month, year, in the calendar of the given time zone) is kept by its newest complete point;
//! a partial point stands in only where a period has no complete one. If a rule has room for more periods than there are,
//! the oldest point stays too, so that a long rule has something to begin with.
//!
//! Whatever the policy, three guards hold: the newest complete point of a data source stays, its last three points stay,
//! and a held point stays.
//!
//! A point may have an expiry of its own. Until then it stays whatever the policy says, also without one, and then it goes, but for the
//! guards. It takes no part in the rules: it stands for no period, so that no other point goes that would be missed after it. A clock
//! that is ahead lets it go too early, as nothing else says what time it is.
//!
//! A point that is not by whom it says is kept beside all that: it stands for no period and takes no guard, else who makes points up would push
//! out those that they look like. It stays, whatever expiry it names, until a person removes it by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::SourceName;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Points of a source that no policy removes.
const LAST_POINTS_KEPT: usize = 3;
/// A wrong clock is wrong by more seconds than this; less is how clocks are set right.
const CLOCK_SLACK: i64 = 600;
/// A plan over this many points or fewer that removes so many of them needs somebody's consent; one over more …
const BRAKE_POINTS_MIN: usize = 10;
const BRAKE_REMOVED_OF_FEW: usize = 5;
/// … if it removes more than this part of them.
const BRAKE_PERCENT: usize = 30;

/// What to keep of each series. A count of `u32::MAX` means all of that kind; 0 means that the rule keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// The newest points.
    pub last: u32,
    /// One for each of the newest hours that have points.
    pub hourly: u32,
    /// One for each day.
    pub daily: u32,
    /// One for each week, from Monday on.
    pub weekly: u32,
    /// One for each month.
    pub monthly: u32,
    /// One for each year.
    pub yearly: u32,
    /// All within this span before the newest point of the series.
    pub within: Option<jiff::Span>,
    /// No more points come: what reaches back does so from now, and not from the newest point, so that all of them go in the end but those
    /// that `last`, an endless rule or a guard keeps.
    pub ends: bool,
}

impl Retention {
    /// Whether no rule keeps anything: a policy that was forgotten, not one that was meant.
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.iter().all(|count| *count == 0) && self.within.is_none()
    }
}

/// What retention needs to know of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointFacts {
    /// The point.
    pub id: RecoveryPointId,
    /// Its data source, for the guards.
    pub source: SourceName,
    /// Points of one series are counted together; any text.
    pub series: String,
    /// Its number within its data source: the order in which points were taken, whatever the clock said.
    pub sequence: u64,
    /// Begin of the point.
    pub started: Timestamp,
    /// Whether everything of the source could be read.
    pub complete: bool,
    /// Whether somebody asked to keep it whatever happens.
    pub held: bool,
    /// From when on it may expire, in seconds since 1970, if it has a time of its own.
    pub expires: Option<i64>,
    /// Whether it is known not to be by whom it says.
    pub forged: bool,
}

/// Why a point stays or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Among the newest.
    Last,
    /// Stands for its hour.
    Hourly,
    /// Stands for its day.
    Daily,
    /// Stands for its week.
    Weekly,
    /// Stands for its month.
    Monthly,
    /// Stands for its year.
    Yearly,
    /// Oldest of a series that is shorter than a rule.
    Oldest,
    /// Within the span.
    Within,
    /// Guard: newest complete point of its data source.
    NewestComplete,
    /// Guard: among the last three of its data source.
    LastOfSource,
    /// Guard: held.
    Held,
    /// It has an expiry of its own, in seconds since 1970, which is not reached.
    Until(i64),
    /// It is not by whom it says, and takes no part in the rules.
    Forged,
    /// Somebody else takes points of its source, which one is not told apart yet.
    Forked,
    /// Its group takes no more points and keeps those that it has.
    Stopped,
    /// A vault that is to have it has it not.
    WaitsForVault,
    /// There are no rules.
    NoRules,
    /// Nobody named it (when points are removed by name).
    NotNamed,
    /// No rule keeps it.
    NoRule,
    /// Its own expiry, in seconds since 1970, is reached.
    Over(i64),
    /// It was named.
    Named,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_its_own = |f: &mut fmt::Formatter<'_>, words: &str, seconds: i64| {
            let time = on_calendar(Timestamp::from_seconds(seconds));
            write!(f, "{words} {}", time.strftime("%Y-%m-%d %H:%M:%S UTC"))
        };
        f.write_str(match self {
            Self::Until(seconds) => return of_its_own(f, "kept until", *seconds),
            Self::Over(seconds) => return of_its_own(f, "was kept until", *seconds),
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Oldest => "oldest",
            Self::Within => "within",
            Self::NewestComplete => "newest complete",
            Self::LastOfSource => "among the last three",
            Self::Held => "held",
            Self::Forged => "not by whom it says, goes by name only",
            Self::Forked => "chain-forked, nothing of its source goes",
            Self::Stopped => "protection is stopped",
            Self::WaitsForVault => "waits for a vault",
            Self::NoRules => "everything is kept",
            Self::NotNamed => "not named",
            Self::NoRule => "no rule keeps it",
            Self::Named => "named",
        })
    }
}

/// A point with why it stays or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The point.
    pub id: RecoveryPointId,
    /// Reasons, in the order of [`Reason`], each once; never empty.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// All reasons, for people.
    pub fn why(&self) -> String {
        let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
        reasons.join(", ")
    }
}

/// What would be done. Together the lists hold every point once, each ascending by time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// Points that stay.
    pub keep: Vec<Decision>,
    /// Points that go.
    pub remove: Vec<Decision>,
}

impl RetentionPlan {
    /// Whether so much would go that somebody should be asked: more than 30 % of more than ten points, or
    /// five or more of ten or fewer.
    pub fn removes_much(&self) -> bool {
        self.removes_much_for(|_| false)
    }

    /// The same where some of the points have just come. For each of them one may go, for so it is in a tier of which nothing is wrong, also
    /// if many come at once because it was not served for a while; what is judged is what goes besides. Points that are not by whom they say
    /// do not count: many of them would let as many others go.
    pub fn removes_much_for(&self, is_new: impl Fn(RecoveryPointId) -> bool) -> bool {
        let kept = self.keep.iter().filter(|decision| !decision.reasons.contains(&Reason::Forged));
        let counted: Vec<&Decision> = kept.chain(&self.remove).collect();
        let new = counted.iter().filter(|decision| is_new(decision.id)).count();
        let removed = self.remove.len().saturating_sub(new);
        let total = counted.len() - new;
        if total <= BRAKE_POINTS_MIN {
            return removed >= BRAKE_REMOVED_OF_FEW;
        }
        removed * 100 > total * BRAKE_PERCENT
    }
}

/// Applies a policy to each series of points. Periods are those of `zone`. An empty policy keeps everything. `now` is only
/// held against points that claim to be from the future, and against expiries of points' own; of those without one a `now` that is wrong
/// itself removes nothing more.
pub fn plan(points: &[PointFacts], policy: &Retention, zone: &TimeZone, now: Timestamp) -> RetentionPlan {
    plan_and_keep(points, policy, zone, now, &[])
}

/// The same, and these stay, too.
pub fn plan_and_keep(
    points: &[PointFacts],
    policy: &Retention,
    zone: &TimeZone,
    now: Timestamp,
    kept: &[(RecoveryPointId, Reason)],
) -> RetentionPlan {
    let mut reasons = guards(points);
    kept.iter().for_each(|(id, reason)| reasons.add_id(*id, *reason));
    let mut series: BTreeMap<&str, Vec<&PointFacts>> = BTreeMap::new();
    for point in points {
        match point.expires {
            _ if point.forged => reasons.add(point, Reason::Forged),
            Some(expires) if expires > now.seconds => reasons.add(point, Reason::Until(expires)),
            Some(_) => {}
            None if policy.is_empty() => reasons.set(point, Reason::NoRules),
            None => series.entry(&point.series).or_default().push(point),
        }
    }
    for points in series.into_values() {
        apply(&newest_first(points, now), policy, zone, now, &mut reasons);
    }
    from_reasons(points, &reasons, |point| point.expires.map_or(Reason::NoRule, Reason::Over))
}

/// Keeps all of them.
pub fn plan_to_keep(points: &[PointFacts], reason: Reason) -> RetentionPlan {
    decide(points, |_| vec![reason], |_| true)
}

/// Removes exactly the named points, but for held ones and, unless `allow_newest`, the newest complete point of a source.
pub fn plan_named(points: &[PointFacts], named: &[RecoveryPointId], allow_newest: bool) -> RetentionPlan {
    let mut reasons = Reasons::default();
    for point in points {
        if !named.contains(&point.id) {
            reasons.add(point, Reason::NotNamed);
        }
        if point.held {
            reasons.add(point, Reason::Held);
        }
    }
    if !allow_newest {
        by_source(honest(points)).values().for_each(|points| guard_newest_complete(points, &mut reasons));
    }
    from_reasons(points, &reasons, |_| Reason::Named)
}

/// Reasons to stay, by point.
#[derive(Default)]
struct Reasons(HashMap<RecoveryPointId, BTreeSet<Reason>>);

impl Reasons {
    fn add(&mut self, point: &PointFacts, reason: Reason) {
        self.add_id(point.id, reason);
    }

    /// The only one.
    fn set(&mut self, point: &PointFacts, reason: Reason) {
        self.0.insert(point.id, BTreeSet::from([reason]));
    }

    fn add_id(&mut self, id: RecoveryPointId, reason: Reason) {
        self.0.entry(id).or_default().insert(reason);
    }
}

fn from_reasons(
    points: &[PointFacts],
    reasons: &Reasons,
    otherwise: impl Fn(&PointFacts) -> Reason,
) -> RetentionPlan {
    let of = |point: &PointFacts| reasons.0.get(&point.id);
    let list = |point: &PointFacts| {
        of(point).map_or_else(|| vec![otherwise(point)], |set| set.iter().copied().collect())
    };
    decide(points, list, |point| of(point).is_some())
}

fn decide(
    points: &[PointFacts],
    reasons: impl Fn(&PointFacts) -> Vec<Reason>,
    stays: impl Fn(&PointFacts) -> bool,
) -> RetentionPlan {
    let mut sorted: Vec<&PointFacts> = points.iter().collect();
    sorted.sort_by_key(|point| age_key(point));
    let (keep, remove): (Vec<&PointFacts>, Vec<&PointFacts>) =
        sorted.into_iter().partition(|point| stays(point));
    let decisions = |points: Vec<&PointFacts>| {
        points.into_iter().map(|point| Decision { id: point.id, reasons: reasons(point) }).collect()
    };
    RetentionPlan { keep: decisions(keep), remove: decisions(remove) }
}

/// Time, and the id for points of the same moment, so that a plan never depends on the order it was given.
fn age_key(point: &PointFacts) -> (Timestamp, RecoveryPointId) {
    (point.started, point.id)
}

/// The order in which points of one source were taken. Equal numbers are of a store that was set back to an older copy.
fn sequence_key(point: &PointFacts) -> (u64, Timestamp, RecoveryPointId) {
    (point.sequence, point.started, point.id)
}

/// The points that are by whom they say, as far as that is known.
fn honest(points: &[PointFacts]) -> impl Iterator<Item = &PointFacts> {
    points.iter().filter(|point| !point.forged)
}

/// Points of each source, newest first.
fn by_source<'a>(
    points: impl IntoIterator<Item = &'a PointFacts>,
) -> BTreeMap<&'a SourceName, Vec<&'a PointFacts>> {
    let mut sources: BTreeMap<&SourceName, Vec<&PointFacts>> = BTreeMap::new();
    for point in points {
        sources.entry(&point.source).or_default().push(point);
    }
    for points in sources.values_mut() {
        points.sort_by_key(|point| std::cmp::Reverse(sequence_key(point)));
    }
    sources
}

/// A point with its place among the points of its series.
struct Aged<'a> {
    point: &'a PointFacts,
    /// Time that orders it among other sources: its begin, or that of a point before it where its begin cannot be right.
    place: Timestamp,
    /// Whether its begin fits neither its sequence number nor the present.
    misdated: bool,
}

/// The points of a series, newest first: within a source by sequence, across sources by time.
fn newest_first(points: Vec<&PointFacts>, now: Timestamp) -> Vec<Aged<'_>> {
    // Where all are from the future, it is the present that is wrong.
    let now_is_wrong = points.iter().all(|point| is_after(point.started, now));
    let now = if now_is_wrong { Timestamp { seconds: i64::MAX, nanos: 0 } } else { now };
    let mut aged: Vec<Aged<'_>> =
        by_source(points).into_values().flat_map(|points| placed(points, now)).collect();
    aged.sort_by_key(|aged| {
        std::cmp::Reverse((aged.place, aged.point.source.clone(), sequence_key(aged.point)))
    });
    aged
}

/// Gives the points of one source, newest first, places that never go back.
fn placed(points: Vec<&PointFacts>, now: Timestamp) -> Vec<Aged<'_>> {
    let begins = points.iter().rev().map(|point| point.started);
    let mut place = begins.into_iter().find(|begin| !is_after(*begin, now)).unwrap_or(now);
    let place_next = |point| {
        let &PointFacts { started, .. } = point;
        let misdated = is_after(started, now) || is_after(place, started);
        if !misdated {
            place = place.max(started);
        }
        Aged { point, place, misdated }
    };
    points.into_iter().rev().map(place_next).collect()
}

/// Whether `a` is after `b` by more than clocks differ.
pub(crate) fn is_after(a: Timestamp, b: Timestamp) -> bool {
    a > Timestamp { seconds: b.seconds.saturating_add(CLOCK_SLACK), ..b }
}

/// What stays of these points whatever the policy.
pub fn guarded(points: &[PointFacts]) -> Vec<(RecoveryPointId, Reason)> {
    let reasons = guards(points).0.into_iter();
    reasons.flat_map(|(id, reasons)| reasons.into_iter().map(move |reason| (id, reason))).collect()
}

fn guards(points: &[PointFacts]) -> Reasons {
    let mut reasons = Reasons::default();
    for points in by_source(honest(points)).values() {
        guard_newest_complete(points, &mut reasons);
        points.iter().take(LAST_POINTS_KEPT).for_each(|point| reasons.add(point, Reason::LastOfSource));
    }
    points.iter().filter(|point| point.held).for_each(|point| reasons.add(point, Reason::Held));
    reasons
}

fn guard_newest_complete(newest_first: &[&PointFacts], reasons: &mut Reasons) {
    if let Some(newest) = newest_first.iter().find(|point| point.complete) {
        reasons.add(newest, Reason::NewestComplete);
    }
}

/// Applies all rules to one series, newest first.
fn apply(points: &[Aged<'_>], policy: &Retention, zone: &TimeZone, now: Timestamp, reasons: &mut Reasons) {
    points.iter().take(policy.last as usize).for_each(|aged| reasons.add(aged.point, Reason::Last));
    // Those with a wrong time have periods of their own, so that they take no right one's place.
    let (misdated, dated): (Vec<&Aged<'_>>, Vec<&Aged<'_>>) = points.iter().partition(|aged| aged.misdated);
    let [dated, misdated] =
        [dated, misdated].map(|list| list.into_iter().map(|aged| aged.point).collect::<Vec<_>>());
    for (reason, count) in [
        (Reason::Hourly, policy.hourly),
        (Reason::Daily, policy.daily),
        (Reason::Weekly, policy.weekly),
        (Reason::Monthly, policy.monthly),
        (Reason::Yearly, policy.yearly),
    ] {
        // Those that passed without a point count, too, if no more come.
        let newest = dated.first().filter(|_| policy.ends && count != u32::MAX);
        let passed = newest.map_or(0, |newest| periods_between(newest.started, now, reason, zone));
        let count = (count as usize).saturating_sub(passed);
        keep_periods(&misdated, reason, count, zone, reasons);
        let periods = keep_periods(&dated, reason, count, zone, reasons);
        if let (true, Some(oldest)) = (periods < count, dated.last()) {
            reasons.add(oldest, Reason::Oldest);
        }
    }
    if let Some(span) = policy.within {
        let newest = points.iter().map(|aged| aged.point.started).find(|begin| !is_after(*begin, now));
        let from = newest.filter(|_| !policy.ends).map_or(now, |newest| newest.min(now));
        let begin = reach_back(from, span, zone);
        let within = points.iter().filter(|aged| begin.is_none_or(|begin| aged.point.started >= begin));
        within.for_each(|aged| reasons.add(aged.point, Reason::Within));
    }
}

/// Keeps one point of each of the newest `count` periods, and says how many periods there are.
fn keep_periods(
    points: &[&PointFacts],
    reason: Reason,
    count: usize,
    zone: &TimeZone,
    reasons: &mut Reasons,
) -> usize {
    if count == 0 {
        return 0;
    }
    let periods: Vec<&[&PointFacts]> =
        points.chunk_by(|a, b| period(a.started, reason, zone) == period(b.started, reason, zone)).collect();
    for points in periods.iter().take(count) {
        let stands_in = points.iter().find(|point| point.complete).or_else(|| points.first());
        stands_in.iter().for_each(|point| reasons.add(point, reason));
    }
    periods.len()
}

/// What two moments of the same period have in common. An hour goes with its offset from UTC, so that the hour which a
/// clock repeats in autumn is two hours.
#[derive(PartialEq, Eq)]
enum Period {
    Hour(i64, i32),
    Day(Date),
    Week(Option<Date>),
    Month(i16, i8),
    Year(i16),
}

fn period(time: Timestamp, reason: Reason, zone: &TimeZone) -> Period {
    let local = zone.to_datetime(on_calendar(time));
    match reason {
        Reason::Hourly => {
            let offset = zone.to_offset(on_calendar(time)).seconds();
            // Zones of half an hour have hours of their own; two offsets never share one.
            Period::Hour(time.seconds.saturating_add(offset.into()).div_euclid(3600), offset)
        }
        Reason::Weekly => {
            let monday = i64::from(local.weekday().to_monday_zero_offset());
            Period::Week(local.date().checked_sub(jiff::Span::new().days(monday)).ok())
        }
        Reason::Monthly => Period::Month(local.year(), local.month()),
        Reason::Yearly => Period::Year(local.year()),
        _ => Period::Day(local.date()),
    }
}

/// How many periods began after that of `from`, up to that of `to`; 0 if `to` is before.
fn periods_between(from: Timestamp, to: Timestamp, reason: Reason, zone: &TimeZone) -> usize {
    let number = |time: Timestamp| match period(time, reason, zone) {
        Period::Hour(..) => time.seconds.div_euclid(3600),
        Period::Day(date) => day_number(date),
        Period::Week(monday) => monday.map_or(0, day_number).div_euclid(7),
        Period::Month(year, month) => i64::from(year) * 12 + i64::from(month),
        Period::Year(year) => year.into(),
    };
    usize::try_from(number(to).saturating_sub(number(from))).unwrap_or(0)
}

fn day_number(date: Date) -> i64 {
    (date - Date::ZERO).get_days().into()
}

/// The calendar ends at the years -9999 and 9999; a time beyond stands at its end.
pub(crate) fn on_calendar(time: Timestamp) -> jiff::Timestamp {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    let end = if time.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::new(time.seconds, nanos).unwrap_or(end)
}

/// `None` if the span reaches beyond the calendar, and so to everything.
fn reach_back(from: Timestamp, span: jiff::Span, zone: &TimeZone) -> Option<Timestamp> {
    let begin = on_calendar(from).to_zoned(zone.clone()).checked_sub(span).ok()?.timestamp();
    let nanos = begin.subsec_nanosecond();
    // jiff counts nanoseconds towards zero, we count them upwards.
    let (seconds, nanos) =
        if nanos < 0 { (begin.as_second() - 1, nanos + 1_000_000_000) } else { (begin.as_second(), nanos) };
    Some(Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0) })
}

#[cfg(test)]
mod tests;
