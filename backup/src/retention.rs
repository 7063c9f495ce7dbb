//! Which recovery points stay and which go: a pure function from facts and a policy to a plan with reasons.
//!
//! Nothing here asks a clock. Spans reach back from the newest point of a series, not from now: a machine that was off for
//! a year still has its last month of points, and a wrong clock cannot make a policy remove more.
//!
//! A period (hour, day, week, month, year, in the calendar of the given time zone) is kept by its newest complete point;
//! a partial point stands in only where a period has no complete one. If a rule has room for more periods than there are,
//! the oldest point stays too, so that a long rule has something to begin with.
//!
//! Whatever the policy, three guards hold: the newest complete point of a data source stays, its last three points stay,
//! and a held point stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::SourceName;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Points of a source that no policy removes.
const LAST_POINTS_KEPT: usize = 3;
/// A plan over more points than this …
const BRAKE_POINTS_MIN: usize = 10;
/// … that removes more than this part of them needs somebody's consent.
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
    /// Begin of the point.
    pub started: Timestamp,
    /// Whether everything of the source could be read.
    pub complete: bool,
    /// Whether somebody asked to keep it whatever happens.
    pub held: bool,
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
    /// Nobody named it (when points are removed by name).
    NotNamed,
    /// No rule keeps it.
    NoRule,
    /// It was named.
    Named,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
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
    /// Whether so much would go that somebody should be asked: more than 30 % of more than ten points.
    pub fn removes_much(&self) -> bool {
        let total = self.keep.len() + self.remove.len();
        total > BRAKE_POINTS_MIN && self.remove.len() * 100 > total * BRAKE_PERCENT
    }
}

/// Applies a policy to each series of points. Periods are those of `zone`. An empty policy keeps everything.
pub fn plan(points: &[PointFacts], policy: &Retention, zone: &TimeZone) -> RetentionPlan {
    if policy.is_empty() {
        return decide(points, |_| vec![Reason::NoRule], |_| true);
    }
    let mut reasons = guards(points);
    let mut series: BTreeMap<&str, Vec<&PointFacts>> = BTreeMap::new();
    for point in points {
        series.entry(&point.series).or_default().push(point);
    }
    for mut points in series.into_values() {
        points.sort_by_key(|point| std::cmp::Reverse(age_key(point)));
        apply(&points, policy, zone, &mut reasons);
    }
    from_reasons(points, &reasons, Reason::NoRule)
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
        by_source(points).values().for_each(|points| guard_newest_complete(points, &mut reasons));
    }
    from_reasons(points, &reasons, Reason::Named)
}

/// Reasons to stay, by point.
#[derive(Default)]
struct Reasons(HashMap<RecoveryPointId, BTreeSet<Reason>>);

impl Reasons {
    fn add(&mut self, point: &PointFacts, reason: Reason) {
        self.0.entry(point.id).or_default().insert(reason);
    }
}

fn from_reasons(points: &[PointFacts], reasons: &Reasons, otherwise: Reason) -> RetentionPlan {
    let of = |point: &PointFacts| reasons.0.get(&point.id);
    let list =
        |point: &PointFacts| of(point).map_or_else(|| vec![otherwise], |set| set.iter().copied().collect());
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

/// Points of each source, newest first.
fn by_source(points: &[PointFacts]) -> BTreeMap<&SourceName, Vec<&PointFacts>> {
    let mut sources: BTreeMap<&SourceName, Vec<&PointFacts>> = BTreeMap::new();
    for point in points {
        sources.entry(&point.source).or_default().push(point);
    }
    for points in sources.values_mut() {
        points.sort_by_key(|point| std::cmp::Reverse(age_key(point)));
    }
    sources
}

fn guards(points: &[PointFacts]) -> Reasons {
    let mut reasons = Reasons::default();
    for points in by_source(points).values() {
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
fn apply(points: &[&PointFacts], policy: &Retention, zone: &TimeZone, reasons: &mut Reasons) {
    points.iter().take(policy.last as usize).for_each(|point| reasons.add(point, Reason::Last));
    for (reason, count) in [
        (Reason::Hourly, policy.hourly),
        (Reason::Daily, policy.daily),
        (Reason::Weekly, policy.weekly),
        (Reason::Monthly, policy.monthly),
        (Reason::Yearly, policy.yearly),
    ] {
        keep_periods(points, reason, count as usize, zone, reasons);
    }
    if let (Some(span), Some(newest)) = (policy.within, points.first()) {
        let begin = reach_back(newest.started, span, zone);
        let within = points.iter().filter(|point| begin.is_none_or(|begin| point.started >= begin));
        within.for_each(|point| reasons.add(point, Reason::Within));
    }
}

fn keep_periods(
    points: &[&PointFacts],
    reason: Reason,
    count: usize,
    zone: &TimeZone,
    reasons: &mut Reasons,
) {
    if count == 0 {
        return;
    }
    let periods: Vec<&[&PointFacts]> =
        points.chunk_by(|a, b| period(a.started, reason, zone) == period(b.started, reason, zone)).collect();
    for points in periods.iter().take(count) {
        let stands_in = points.iter().find(|point| point.complete).or_else(|| points.first());
        stands_in.iter().for_each(|point| reasons.add(point, reason));
    }
    if let (true, Some(oldest)) = (periods.len() < count, points.last()) {
        reasons.add(oldest, Reason::Oldest);
    }
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

/// The calendar ends at the years -9999 and 9999; a time beyond stands at its end.
fn on_calendar(time: Timestamp) -> jiff::Timestamp {
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
