//! How much a vault gives in a second, as seen from requests that ended.
//!
//! Several are under way at once and share the line, so it is not one request that is measured but the line: what came, over the
//! time in which anything was under way. Of a line that would give more than it is asked for this tells less than it could give.

use std::time::Duration;

/// What was seen longer ago than this has half the weight.
const MEMORY: Duration = Duration::from_secs(4);

/// So much time must have been seen.
const LEAST: Duration = Duration::from_millis(20);

/// The rate of a line.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Requests under way.
    flying: usize,
    /// Since when what is under way has not been counted.
    since: Duration,
    /// What came, and in how many seconds: what is older with less weight.
    bytes: f64,
    seconds: f64,
}

impl Rate {
    /// A request begins.
    pub(super) fn begin(&mut self, now: Duration) {
        if self.flying == 0 {
            self.since = now;
        }
        self.flying += 1;
    }

    /// A request ends with so many bytes: none if the vault did not give them in time. `None` if its end says nothing of the vault.
    pub(super) fn end(&mut self, now: Duration, came: Option<u64>) {
        self.flying = self.flying.saturating_sub(1);
        if let Some(bytes) = came {
            self.add(bytes as f64, now.saturating_sub(self.since).as_secs_f64());
            self.since = now;
        }
    }

    fn add(&mut self, bytes: f64, seconds: f64) {
        let memory = MEMORY.as_secs_f64();
        let weight = memory / (memory + seconds);
        self.bytes = self.bytes * weight + bytes;
        self.seconds = self.seconds * weight + seconds;
        if self.seconds > memory {
            self.bytes *= memory / self.seconds;
            self.seconds = memory;
        }
    }

    /// Bytes that come within `time`; `None` as long as too little was seen.
    pub(super) fn within(&self, time: Duration) -> Option<u64> {
        let is_known = self.seconds >= LEAST.as_secs_f64();
        is_known.then(|| (self.bytes / self.seconds * time.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MIB: u64 = 1 << 20;

    fn about(rate: &Rate, expected: u64) {
        let seen = rate.within(SECOND).unwrap();
        assert!((expected * 3 / 4..=expected * 3 / 2).contains(&seen), "{seen}, not {expected}");
    }

    #[test]
    fn requests_that_share_a_line_are_measured_together() {
        let mut rate = Rate::default();
        assert_eq!(rate.within(SECOND), None);
        let mut now = SECOND;
        for _ in 0..10 {
            (0..4).for_each(|_| rate.begin(now));
            now += 4 * SECOND;
            (0..4).for_each(|_| rate.end(now, Some(MIB)));
            // Nobody asks for anything.
            now += 100 * SECOND;
        }
        about(&rate, MIB);
        assert!(rate.within(2 * SECOND).unwrap() > rate.within(SECOND).unwrap());
    }

    #[test]
    fn a_line_that_changes_is_known_by_its_new_rate_after_a_few_seconds() {
        let mut rate = Rate::default();
        let mut now = Duration::ZERO;
        let mut ask = |rate: &mut Rate, took, came| {
            rate.begin(now);
            now += took;
            rate.end(now, came);
        };
        (0..100).for_each(|_| ask(&mut rate, SECOND / 10, Some(MIB)));
        about(&rate, 10 * MIB);
        // Of what was given up nothing is learned; of what did not come in time, much.
        ask(&mut rate, 60 * SECOND, None);
        about(&rate, 10 * MIB);
        ask(&mut rate, 15 * SECOND, Some(0));
        assert!(rate.within(SECOND).unwrap() < MIB);
        (0..200).for_each(|_| ask(&mut rate, SECOND / 10, Some(MIB)));
        about(&rate, 10 * MIB);
    }

    #[test]
    fn what_takes_no_time_tells_nothing() {
        let mut rate = Rate::default();
        rate.begin(SECOND);
        rate.end(SECOND, Some(MIB));
        assert_eq!(rate.within(SECOND), None);
    }
}
