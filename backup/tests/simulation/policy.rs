//! What rules say may go, told once more in few words: the oracle of retention, which shares nothing with the code that it judges.

use std::collections::BTreeSet;

use holdfast_backup::retention::Retention;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::tree::testing::TestRandom;

const DAY: i64 = 24 * 3600;
/// Points of a source that stay whatever the rules say.
const GUARDED: usize = 3;
/// Clocks differ by so many seconds without being wrong.
const SLACK: i64 = 600;

/// Rules of a tier. Without any all points stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The newest.
    last: usize,
    /// One for each of so many days.
    days: usize,
    /// All within so many hours.
    hours: i64,
    /// No more points come, and the rules reach back from now.
    ends: bool,
}

/// A point as the oracle knows it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The point.
    pub id: RecoveryPointId,
    /// When it was begun by its machine's clock, in seconds since 1970.
    pub started: i64,
    /// From when on it may go, if it has a time of its own.
    pub expires: Option<i64>,
    /// Somebody holds it.
    pub held: bool,
    /// It is not by whom it says.
    pub forged: bool,
}

impl Policy {
    /// One of many.
    pub fn draw(random: &mut TestRandom) -> Self {
        let mut some = |most: u64| if random.below(2) == 0 { 0 } else { random.below(most + 1) };
        let (last, days, hours) = (some(5) as usize, some(4) as usize, some(30).cast_signed());
        Self { last, days, hours, ends: some(4) > 0 }
    }

    /// As the program has them.
    pub fn rules(&self) -> Retention {
        Retention {
            last: self.last as u32,
            daily: self.days as u32,
            within: (self.hours > 0).then(|| jiff::Span::new().hours(self.hours)),
            ..Retention::default()
        }
    }

    /// Whether no more points come.
    pub fn ends(&self) -> bool {
        self.ends
    }

    /// The points of one source in one tier that may go at a moment; `points` in the order in which they were taken.
    pub fn may_go(&self, points: &[Known], now: i64) -> BTreeSet<RecoveryPointId> {
        let honest: Vec<&Known> = points.iter().filter(|point| !point.forged).collect();
        let guarded = honest.iter().rev().take(GUARDED).map(|point| point.id);
        let mut stay: BTreeSet<_> = guarded.collect();
        stay.extend(points.iter().filter(|point| point.forged || point.held).map(|point| point.id));
        let lasting =
            honest.iter().filter(|point| point.expires.is_some_and(|at| at > now)).map(|point| point.id);
        stay.extend(lasting);
        let ruled: Vec<&Known> = honest.into_iter().filter(|point| point.expires.is_none()).collect();
        stay.extend(self.kept(&ruled, now));
        points.iter().map(|point| point.id).filter(|id| !stay.contains(id)).collect()
    }

    fn kept(&self, ruled: &[&Known], now: i64) -> BTreeSet<RecoveryPointId> {
        let all = ruled.iter().map(|point| point.id);
        if *self == (Self { last: 0, days: 0, hours: 0, ends: self.ends }) {
            return all.collect();
        }
        let mut kept: BTreeSet<_> = all.rev().take(self.last).collect();
        let is_out_of_order = |pair: &[&Known]| pair[0].started > pair[1].started;
        // Of points with times that cannot be right only so much is promised.
        if ruled.windows(2).any(is_out_of_order) || ruled.iter().any(|point| point.started > now + SLACK) {
            return kept;
        }
        let Some(newest) = ruled.last() else { return kept };
        let day = |at: i64| at.div_euclid(DAY);
        let passed = if self.ends { (day(now) - day(newest.started)).max(0) as usize } else { 0 };
        let room = self.days.saturating_sub(passed);
        let days: BTreeSet<i64> = ruled.iter().map(|point| day(point.started)).collect();
        for kept_day in days.iter().rev().take(room) {
            kept.extend(ruled.iter().rfind(|point| day(point.started) == *kept_day).map(|point| point.id));
        }
        if days.len() < room {
            kept.extend(ruled.first().map(|point| point.id));
        }
        if self.hours > 0 {
            let from = if self.ends { now } else { newest.started.min(now) } - self.hours * 3600;
            kept.extend(ruled.iter().filter(|point| point.started > from).map(|point| point.id));
        }
        kept
    }
}
