//! The only place that asks the system for the time or sleeps, so that tests own both.

mod deadline;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use deadline::{Deadline, Waiting};

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
