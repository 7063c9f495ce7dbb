//! A bound on bytes a second, for restores that must leave something of a disk or a line to others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_store::clock::Clock;
use holdfast_store::pace::Bucket;

/// Longest pause before looking whether the work was stopped.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// A token bucket that all writers share: each books its bytes at the end of a line and waits until they are due.
#[derive(Debug)]
pub struct Throttle {
    clock: Arc<dyn Clock>,
    bytes_per_second: u64,
    bucket: Mutex<Bucket>,
}

impl Throttle {
    /// At most `bytes_per_second`, at least one.
    pub fn new(clock: Arc<dyn Clock>, bytes_per_second: u64) -> Self {
        let bucket = Mutex::new(Bucket::new(clock.monotonic()));
        Self { clock, bytes_per_second: bytes_per_second.max(1), bucket }
    }

    /// Waits until `bytes` may pass, or until `stopped`.
    pub(super) fn take(&self, bytes: u64, stopped: impl Fn() -> bool) {
        let until = self.book(bytes);
        loop {
            let left = until.saturating_sub(self.clock.monotonic());
            if left.is_zero() || stopped() {
                return;
            }
            self.clock.pause(left.min(PAUSE_MAX));
        }
    }

    /// Books bytes; the moment at which they are due.
    fn book(&self, bytes: u64) -> Duration {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.book(self.clock.monotonic(), bytes, self.bytes_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_store::clock::{ManualClock, Timestamp};

    #[test]
    fn bytes_pass_no_faster_than_they_may() {
        let clock = ManualClock::at(Timestamp::default());
        let throttle = Throttle::new(Arc::new(clock.clone()), 1000);
        for _ in 0..10 {
            throttle.take(500, || false);
        }
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
        clock.advance(Duration::from_secs(100));
        throttle.take(1000, || false);
        let passed = clock.monotonic() - Duration::from_secs(105);
        assert_eq!(passed, Duration::from_millis(750), "a long pause is good for one burst and no more");
    }

    #[test]
    fn who_waits_hears_that_the_work_was_stopped() {
        let clock = ManualClock::at(Timestamp::default());
        Throttle::new(Arc::new(clock.clone()), 1)
            .take(1 << 40, || clock.monotonic() > Duration::from_secs(1));
        assert!(clock.monotonic() < Duration::from_secs(2));
    }
}
