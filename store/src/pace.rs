//! A bound on bytes a second that goes by the time of day, for uploads that must leave something of a line to others.
//!
//! All uploads of a process share one [`Pace`]. Each has a [`Pacer`], which lets it have bytes in small pieces: whoever wants some books
//! a piece at the end of a line and waits until it is due. Nothing is held meanwhile, so that an upload which is given up, or stuck in a
//! connection, keeps the others from nothing. While they wait all look whether another limit holds by now; then what was booked is void
//! and everybody books again.
//!
//! Time that was spent so is known ([`Pacer::waited`]), because it tells nothing of a vault: no time limit counts it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// What may pass at once after a pause.
const BURST: Duration = Duration::from_millis(250);
/// A piece is what may pass in this time …
const PIECE: Duration = Duration::from_millis(125);
/// … and no more than this.
pub const PIECE_MAX: usize = 64 << 10;
/// Between two looks at whether another limit holds.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// When bytes are due that pass one after the other at some rate. Moments are those of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// When the next byte is due.
    due: Duration,
}

impl Bucket {
    /// One from which nothing was taken yet.
    pub fn new(now: Duration) -> Self {
        Self { due: now }
    }

    /// Books bytes; the moment at which they are due. Time in which nothing was taken counts for one burst.
    pub fn book(&mut self, now: Duration, bytes: u64, bytes_per_second: u64) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
        self.due = self.due.max(now.saturating_sub(BURST)).saturating_add(cost);
        self.due
    }
}

/// What holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// How many bytes a second; as many as there are, if it says nothing.
    pub bytes_per_second: Option<u64>,
    /// It holds at least until then on the wall clock; for ever, if it says nothing.
    pub until: Option<Timestamp>,
}

type Limits = dyn Fn(Timestamp) -> Limit + Send + Sync;

/// A limit that all uploads share.
pub struct Pace {
    clock: Arc<dyn Clock>,
    limits: Box<Limits>,
    line: Mutex<Line>,
}

struct Line {
    bucket: Bucket,
    /// What holds, and since when that is known.
    limit: Option<(Timestamp, Limit)>,
    /// How often another limit came to hold.
    changes: u64,
}

/// A piece that is due at a moment, unless another limit comes to hold.
#[derive(Clone, Copy, Debug)]
struct Booking {
    bytes: usize,
    due: Duration,
    changes: u64,
}

impl Pace {
    /// One by `limits`, which tells what holds at any moment of the wall clock.
    pub fn new(
        clock: Arc<dyn Clock>,
        limits: impl Fn(Timestamp) -> Limit + Send + Sync + 'static,
    ) -> Arc<Self> {
        let bucket = Bucket::new(clock.monotonic());
        let line = Mutex::new(Line { bucket, limit: None, changes: 0 });
        Arc::new(Self { clock, limits: Box::new(limits), line })
    }

    /// How many of `most` bytes may pass now; else when to look again.
    fn look(&self, most: usize, booking: &mut Option<Booking>) -> Result<usize, Duration> {
        let (now, shown) = (self.clock.monotonic(), self.clock.now());
        let mut line = self.line();
        let Some(rate) = line.limit_at(shown, now, &*self.limits) else { return Ok(most.min(PIECE_MAX)) };
        let booked = match *booking {
            Some(booked) if booked.changes == line.changes => booked,
            _ => {
                let bytes = most.min(piece(rate));
                let due = line.bucket.book(now, bytes as u64, rate);
                *booking.insert(Booking { bytes, due, changes: line.changes })
            }
        };
        match booked.due.saturating_sub(now) {
            Duration::ZERO => Ok(booked.bytes),
            left => Err(left.min(LOOK_EVERY)),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a piece at a rate.
fn piece(bytes_per_second: u64) -> usize {
    let bytes = bytes_per_second as f64 * PIECE.as_secs_f64();
    (bytes as usize).clamp(1, PIECE_MAX)
}

impl Line {
    fn limit_at(&mut self, shown: Timestamp, now: Duration, limits: &Limits) -> Option<u64> {
        if let Some((since, limit)) = self.limit
            && since <= shown
            && limit.until.is_none_or(|until| shown < until)
        {
            return limit.bytes_per_second;
        }
        let limit = limits(shown);
        if self.limit.is_none_or(|(_, before)| before.bytes_per_second != limit.bytes_per_second) {
            self.changes += 1;
            self.bucket = Bucket::new(now);
        }
        self.limit = Some((shown, limit));
        limit.bytes_per_second
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("limit", &self.line().limit).finish_non_exhaustive()
    }
}

/// One upload that keeps to a pace.
#[derive(Debug)]
pub struct Pacer {
    pace: Arc<Pace>,
    /// In nanoseconds.
    waited: AtomicU64,
}

impl Pacer {
    /// One that did not wait yet.
    pub fn new(pace: &Arc<Pace>) -> Arc<Self> {
        Arc::new(Self { pace: Arc::clone(pace), waited: AtomicU64::new(0) })
    }

    /// Waits until some of `most` bytes may pass; how many, at least one unless `most` is none.
    pub async fn take(&self, most: usize) -> usize {
        let mut booking = None;
        loop {
            let wait = match self.pace.look(most, &mut booking) {
                Ok(bytes) => return bytes,
                Err(wait) => wait,
            };
            self.pace.clock.sleep(wait).await;
            let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
            self.waited.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Waits until all of `bytes` may have passed.
    pub async fn take_all(&self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            left -= self.take(left).await.min(left);
        }
    }

    /// How long it waited so far.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// The clock by which it waits.
    pub fn clock(&self) -> &dyn Clock {
        &*self.pace.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    fn pacer(limits: impl Fn(Timestamp) -> Limit + Send + Sync + 'static) -> (ManualClock, Arc<Pacer>) {
        let clock = ManualClock::at(Timestamp::default());
        let pace = Pace::new(Arc::new(clock.clone()), limits);
        (clock, Pacer::new(&pace))
    }

    fn always(bytes_per_second: u64) -> impl Fn(Timestamp) -> Limit + Send + Sync {
        move |_| Limit { bytes_per_second: Some(bytes_per_second), until: None }
    }

    fn about(took: Duration, seconds: f64) {
        let part = took.as_secs_f64() / seconds;
        assert!((0.95..=1.05).contains(&part), "{took:?} and not {seconds} s");
    }

    #[tokio::test]
    async fn bytes_pass_at_their_rate_and_a_pause_is_good_for_one_burst() {
        for rate in [16 << 10, 1_000_000, 1 << 30] {
            let (clock, pacer) = pacer(always(rate));
            pacer.take_all(rate as usize * 4).await;
            about(clock.monotonic(), 4.0);
            assert_eq!(pacer.waited(), clock.monotonic());
            clock.advance(100 * SECOND);
            let before = clock.monotonic();
            pacer.take_all(rate as usize).await;
            about(clock.monotonic() - before, 0.75);
        }
    }

    #[tokio::test]
    async fn a_second_of_a_line_never_sees_much_more_than_a_second_is_worth() {
        let (clock, pacer) = pacer(always(100_000));
        let (mut passed, mut seen) = (0, Vec::new());
        while passed < 1_000_000 {
            passed += pacer.take(1_000_000 - passed).await;
            seen.push((clock.monotonic(), passed));
        }
        for (at, sum) in &seen {
            let later = seen.iter().filter(|(then, _)| *then <= *at + SECOND).map(|(_, sum)| sum).max();
            let within = later.unwrap_or(sum) - sum;
            assert!(within <= 130_000, "{within} bytes in the second from {at:?} on");
        }
    }

    #[tokio::test]
    async fn uploads_that_share_a_pace_share_what_it_gives() {
        let (clock, pacer) = pacer(always(1_000_000));
        let others: Vec<_> = (0..3).map(|_| Pacer::new(&pacer.pace)).collect();
        let all = others.iter().chain([&pacer]).map(|pacer| pacer.take_all(1_000_000));
        futures::future::join_all(all).await;
        about(clock.monotonic(), 4.0);
    }

    #[tokio::test]
    async fn another_limit_holds_at_once_for_who_waits_already() {
        // From the tenth second on, 100 times as fast; from the twentieth without limit.
        let limits = |now: Timestamp| match now.seconds {
            ..10 => Limit { bytes_per_second: Some(1_000), until: Some(Timestamp::from_seconds(10)) },
            10..20 => Limit { bytes_per_second: Some(100_000), until: Some(Timestamp::from_seconds(20)) },
            20.. => Limit::default(),
        };
        let (clock, pacer) = pacer(limits);
        pacer.take_all(10_000).await;
        about(clock.monotonic(), 10.0);
        pacer.take_all(500_000).await;
        about(clock.monotonic(), 15.0);
        pacer.take_all(1 << 30).await;
        about(clock.monotonic(), 20.0);
    }

    #[tokio::test]
    async fn a_piece_that_would_be_due_in_an_hour_is_due_when_a_higher_limit_holds() {
        let limits = |now: Timestamp| match now.seconds {
            ..5 => Limit { bytes_per_second: Some(1), until: Some(Timestamp::from_seconds(5)) },
            5.. => Limit { bytes_per_second: Some(1_000), until: None },
        };
        let (clock, pacer) = pacer(limits);
        // Others have booked before it.
        pacer.pace.line().limit_at(Timestamp::default(), Duration::ZERO, &limits);
        pacer.pace.line().bucket.book(Duration::ZERO, 3600, 1);
        pacer.take_all(7).await;
        about(clock.monotonic(), 5.0);
    }

    #[tokio::test]
    async fn a_wall_clock_that_is_put_back_has_the_limit_looked_up_again() {
        let limits = |now: Timestamp| Limit {
            bytes_per_second: (now.seconds < 0).then_some(1_000),
            until: (now.seconds < 0).then_some(Timestamp::default()),
        };
        let (_, pacer) = pacer(limits);
        let mut line = pacer.pace.line();
        let mut at = |seconds| line.limit_at(Timestamp::from_seconds(seconds), Duration::ZERO, &limits);
        assert_eq!([at(5), at(6), at(-1), at(0)], [None, None, Some(1_000), None]);
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let (clock, pacer) = pacer(|_| Limit::default());
        pacer.take_all(1 << 30).await;
        assert_eq!((clock.monotonic(), pacer.waited()), (Duration::ZERO, Duration::ZERO));
        assert_eq!(pacer.take(0).await, 0);
    }
}
