//! The only place that asks the system for the time or sleeps, so that tests own both.

mod deadline;
mod within;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use deadline::{Deadline, Waiting};
pub use within::within;

/// A moment of the wall clock: seconds since 1970 (negative before) and nanoseconds (below 10^9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl Timestamp {
    /// A moment at a full second.
    pub fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }
}

/// Time as a service. Promises: `monotonic` never goes back; `now` may jump in any direction.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary start that never jumps.
    fn monotonic(&self) -> Duration;

    /// Completes when `duration` has passed on the monotonic clock.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Blocks the thread for `duration`.
    fn pause(&self, duration: Duration);

    /// What this clock showed when the system's showed that: for times that others noted.
    fn shown_at(&self, system: Timestamp) -> Timestamp {
        system
    }

    /// How long it takes on the monotonic clock until so much has passed on the wall clock, if nobody sets that.
    fn until_passed(&self, on_the_wall: Duration) -> Duration {
        on_the_wall
    }

    /// Completes when `duration` has passed, as `sleep` does, but never makes a manual clock move: the limit of
    /// something that is raced against it.
    fn limit(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.sleep(duration)
    }
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

fn process_start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(d) => Timestamp { seconds: d.as_secs().cast_signed(), nanos: d.subsec_nanos() },
            Err(_) => Timestamp::default(),
        }
    }

    fn monotonic(&self) -> Duration {
        process_start().elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A wall clock that goes faster than the system's, for rehearsals of what takes months. Waiting and time limits are those of the system.
#[derive(Debug, Clone, Copy)]
pub struct HurriedClock {
    /// What it shows …
    shown: i64,
    /// … when the system's clock shows this, both in seconds since 1970.
    when: i64,
    /// Seconds that pass on it in one second.
    rate: u32,
}

/// A text that describes no clock.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no clock: it has the form SHOWN@WHENxRATE, as in 1767225600@1795899600x1000")]
pub struct NoClock(String);

impl std::str::FromStr for HurriedClock {
    type Err = NoClock;

    fn from_str(text: &str) -> Result<Self, NoClock> {
        let read = || {
            let (shown, rest) = text.split_once('@')?;
            let (when, rate) = rest.split_once('x')?;
            let clock =
                Self { shown: shown.parse().ok()?, when: when.parse().ok()?, rate: rate.parse().ok()? };
            (clock.rate > 0).then_some(clock)
        };
        read().ok_or_else(|| NoClock(text.to_owned()))
    }
}

impl HurriedClock {
    fn at(&self, system: Timestamp) -> Timestamp {
        let seconds = i128::from(system.seconds.saturating_sub(self.when)) * 1_000_000_000;
        let shown = (seconds + i128::from(system.nanos)) * i128::from(self.rate);
        let passed = i64::try_from(shown.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
        let nanos = shown.rem_euclid(1_000_000_000) as u32;
        Timestamp { seconds: self.shown.saturating_add(passed), nanos }
    }
}

impl Clock for HurriedClock {
    fn now(&self) -> Timestamp {
        self.at(SystemClock.now())
    }

    fn shown_at(&self, system: Timestamp) -> Timestamp {
        self.at(system)
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn pause(&self, duration: Duration) {
        SystemClock.pause(duration);
    }

    fn until_passed(&self, on_the_wall: Duration) -> Duration {
        on_the_wall / self.rate
    }
}

/// A clock that moves only when told to, or when somebody sleeps on it.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    state: Arc<Mutex<ManualState>>,
}

#[derive(Debug, Default)]
struct ManualState {
    now: Timestamp,
    monotonic: Duration,
    waiting: Vec<Waker>,
}

impl ManualClock {
    /// A clock that shows `now` and stands still.
    pub fn at(now: Timestamp) -> Self {
        Self { state: Arc::new(Mutex::new(ManualState { now, ..ManualState::default() })) }
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        let nanos = u64::from(state.now.nanos) + u64::from(by.subsec_nanos());
        state.now.seconds += by.as_secs().cast_signed() + (nanos / 1_000_000_000).cast_signed();
        state.now.nanos = (nanos % 1_000_000_000) as u32;
        state.monotonic += by;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state().now
    }

    fn monotonic(&self) -> Duration {
        self.state().monotonic
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.advance(duration);
        Box::pin(tokio::task::yield_now())
    }

    fn pause(&self, duration: Duration) {
        self.advance(duration);
    }

    fn limit(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let end = self.monotonic().saturating_add(duration);
        Box::pin(std::future::poll_fn(move |context| {
            let mut state = self.state();
            if state.monotonic >= end {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|w| w.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hurried_clock_shows_what_it_was_told_and_goes_faster() {
        let clock: HurriedClock = "1000@500x100".parse().unwrap();
        let at = |seconds, nanos| {
            let shown = clock.at(Timestamp { seconds, nanos });
            (shown.seconds, shown.nanos)
        };
        assert_eq!((at(500, 0), at(501, 500_000_000), at(499, 0)), ((1000, 0), (1150, 0), (900, 0)));
        assert_eq!(at(500, 1_234_567), (1000, 123_456_700));
        assert_eq!(at(i64::MAX, 0).0, i64::MAX);
        assert_eq!(clock.until_passed(Duration::from_secs(100)), Duration::from_secs(1));
        for text in ["", "1@2", "1@2x0", "1@2x-1", "x", "1x2@3"] {
            assert!(text.parse::<HurriedClock>().is_err(), "{text}");
        }
    }
}
