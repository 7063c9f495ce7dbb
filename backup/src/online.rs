//! Which points of a data source are to go into a vault: a pure function from facts and the online tier's schedule to the points that
//! are pending. Nothing about it is recorded.
//!
//! Between two moments of the schedule, as they come on this machine (its jitter later), lies a span. Of each span after that of the
//! newest point which the vault has, the first complete point goes there, and a partial one only where the span has no complete one. A
//! vault that has none of the source begins with the newest span.
//!
//! Nothing here asks a clock, and none is believed much: which point came after which their sequence numbers say, and where a clock was
//! put back a new span begins. So a wrong clock sends a point more, and never keeps back what comes after. Points are gone through and
//! not moments, so that a schedule of every minute costs no more over years than over a day.

use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use jiff::tz::TimeZone;

use crate::schedule::Schedule;

/// What needs to be known of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnlineFacts {
    /// The point.
    pub id: RecoveryPointId,
    /// Its number within its data source.
    pub sequence: u64,
    /// Begin of the point.
    pub started: Timestamp,
    /// Whether everything of the source could be read.
    pub complete: bool,
    /// Whether staging has it.
    pub staged: bool,
    /// Whether the vault has it.
    pub vaulted: bool,
}

/// When points go online.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm<'a> {
    /// The online tier's.
    pub schedule: &'a Schedule,
    /// So many seconds after each moment of it.
    pub jitter: u32,
    /// Where its days are counted.
    pub zone: &'a TimeZone,
}

impl Rhythm<'_> {
    /// Whether no moment lies between two points of which `b` was taken after `a`.
    fn is_one_span(&self, a: &OnlineFacts, b: &OnlineFacts) -> bool {
        let earlier = |time: Timestamp| Timestamp {
            seconds: time.seconds.saturating_sub(self.jitter.into()),
            nanos: time.nanos,
        };
        let next = || self.schedule.next_after(earlier(a.started), self.zone);
        a.started <= b.started && next().is_none_or(|moment| moment > earlier(b.started))
    }
}

/// The points of one data source that one vault is to be given, oldest first. What neither of the two places has is not looked at.
pub fn pending(points: &[OnlineFacts], rhythm: &Rhythm<'_>) -> Vec<RecoveryPointId> {
    let mut points: Vec<&OnlineFacts> = points.iter().filter(|point| point.staged || point.vaulted).collect();
    points.sort_by_key(|point| (point.sequence, point.started, point.id));
    let is_one_span = |a: &&OnlineFacts, b: &&OnlineFacts| rhythm.is_one_span(a, b);
    let is_border = |pair: &[&OnlineFacts]| matches!(pair, [a, b] if !is_one_span(a, b));
    let (from, spans_served) = match points.iter().rposition(|point| point.vaulted) {
        Some(newest) => (newest, 1),
        None => (points.windows(2).rposition(is_border).map_or(0, |before| before + 1), 0),
    };
    let later = points.get(from..).unwrap_or_default();
    let first_of = |span: &[&OnlineFacts]| {
        span.iter().find(|point| point.complete).or_else(|| span.first()).map(|point| point.id)
    };
    later.chunk_by(is_one_span).skip(spans_served).filter_map(first_of).collect()
}

#[cfg(test)]
mod tests;
