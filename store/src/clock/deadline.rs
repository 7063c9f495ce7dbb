//! When an answer is no longer wanted: at a moment, or as soon as nobody waits for it any more.
//!
//! A deadline is passed on as a value, to many at once. So it has but a number for who waits, and here it is known for
//! how many each number stands. Who was killed is no longer among them; who waits for what another one has under way
//! joins them, so that it goes on when the other one leaves.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::Clock;

/// How many wait for each answer.
static WAITING: LazyLock<watch::Sender<HashMap<u64, usize>>> = LazyLock::new(watch::Sender::default);

/// Somebody who waits for an answer, until dropped.
#[derive(Debug)]
pub struct Waiting(u64);

impl Waiting {
    /// The first who waits for an answer.
    pub fn begin() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::silently(|all| {
            all.insert(number, 1);
        });
        Self(number)
    }

    /// One more, unless nobody is left.
    fn beside(number: u64) -> Option<Self> {
        let mut joined = None;
        Self::silently(|all| {
            joined = all.get_mut(&number).map(|count| {
                *count += 1;
                Self(number)
            });
        });
        joined
    }

    /// Nobody is to hear that there are more.
    fn silently(change: impl FnOnce(&mut HashMap<u64, usize>)) {
        WAITING.send_if_modified(|all| {
            change(all);
            false
        });
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.send_if_modified(|all| match all.get_mut(&self.0) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => all.remove(&self.0).is_some(),
        });
    }
}

/// When an answer is no longer wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline {
    at: Option<Duration>,
    half: Option<Duration>,
    waiting: Option<u64>,
}

impl Deadline {
    /// Waits for ever.
    pub const NEVER: Self = Self { at: None, half: None, waiting: None };

    /// `allowance` from now.
    pub fn after(clock: &dyn Clock, allowance: Duration) -> Self {
        let now = clock.monotonic();
        let (half, at) = (now.saturating_add(allowance / 2), now.saturating_add(allowance));
        Self { at: Some(at), half: Some(half), waiting: None }
    }

    /// The same, and passed as soon as nobody waits any more: neither `waiting` nor whoever joined.
    #[must_use]
    pub fn of(self, waiting: &Waiting) -> Self {
        Self { waiting: Some(waiting.0), ..self }
    }

    /// The same, and `allowance` from now at the latest.
    #[must_use]
    pub fn within(self, clock: &dyn Clock, allowance: Duration) -> Self {
        let sooner = Self::after(clock, allowance);
        let first = |a: Option<Duration>, b: Option<Duration>| a.into_iter().chain(b).min();
        Self { at: first(self.at, sooner.at), half: first(self.half, sooner.half), ..self }
    }

    /// The same, as if no time had gone by since `begin`, on this clock, for half of it: nobody was waited for. But then half of what is left is soon enough.
    #[must_use]
    pub fn not_counting(self, clock: &dyn Clock, begin: Duration) -> Self {
        let now = clock.monotonic();
        let later = |half: Duration| half.saturating_add(now.saturating_sub(begin));
        let soon = self.at.map(|at| now.saturating_add(at.saturating_sub(now) / 2));
        let half = self.half.map(|half| later(half).min(soon.unwrap_or(Duration::MAX)));
        Self { half, ..self }
    }

    /// Waits for the same answer, until dropped: it is not given up before. `None` if it was already, or never is.
    pub fn join(&self) -> Option<Waiting> {
        self.waiting.and_then(Waiting::beside)
    }

    /// Time left; `None` if it never ends, zero if it has passed.
    pub fn left(&self, clock: &dyn Clock) -> Option<Duration> {
        if self.is_given_up() {
            return Some(Duration::ZERO);
        }
        self.at.map(|at| at.saturating_sub(clock.monotonic()))
    }

    /// Whether it has passed.
    pub fn passed(&self, clock: &dyn Clock) -> bool {
        self.left(clock).is_some_and(|left| left.is_zero())
    }

    /// Whether half of the time has passed that there was when the deadline was set.
    pub fn half_passed(&self, clock: &dyn Clock) -> bool {
        self.half.is_some_and(|half| half <= clock.monotonic()) || self.is_given_up()
    }

    /// Whether something that another one began at `begin`, on this clock, was waited for long enough: half of the time has passed, and
    /// since it began half of the rest. So those who lose patience with something together make one new attempt, not one each.
    pub fn is_overdue(&self, clock: &dyn Clock, begin: Duration) -> bool {
        let rest = self.at.zip(self.half).map_or(Duration::ZERO, |(at, half)| at.saturating_sub(half));
        self.half_passed(clock) && clock.monotonic().saturating_sub(begin) >= rest / 2
    }

    /// Whether nobody waits any more, whatever time is left.
    pub fn is_given_up(&self) -> bool {
        self.waiting.is_some_and(|number| !WAITING.borrow().contains_key(&number))
    }

    /// How many wait, as far as it is known.
    #[cfg(test)]
    pub(crate) fn waiters(&self) -> usize {
        self.waiting.and_then(|number| WAITING.borrow().get(&number).copied()).unwrap_or_default()
    }

    /// Completes when nobody waits any more; never, if that cannot be known.
    pub async fn given_up(&self) {
        if let Some(number) = self.waiting {
            // It lives as long as the process.
            let _ = WAITING.subscribe().wait_for(|all| !all.contains_key(&number)).await;
        } else {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn a_deadline_passes_when_its_clock_says_so() {
        let clock = ManualClock::at(Timestamp { seconds: 5, nanos: 999_999_999 });
        let deadline = Deadline::after(&clock, Duration::from_millis(10));
        clock.advance(Duration::from_millis(9));
        assert!(!deadline.passed(&clock) && deadline.half_passed(&clock));
        clock.advance(Duration::from_millis(1));
        assert!(deadline.passed(&clock));
        assert!(!Deadline::NEVER.passed(&clock) && !Deadline::NEVER.half_passed(&clock));
        assert_eq!(clock.now(), Timestamp { seconds: 6, nanos: 9_999_999 });
    }

    #[test]
    fn a_part_of_the_time_never_ends_after_the_whole_and_its_half_stays_where_it_was() {
        let clock = ManualClock::default();
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let whole = Deadline::after(&clock, minute);
        assert_eq!(whole.within(&clock, 2 * minute), whole);
        assert_eq!(whole.within(&clock, second), Deadline::after(&clock, second));
        clock.advance(minute / 2);
        let part = whole.within(&clock, 20 * second);
        assert!(part.half_passed(&clock), "of the whole");
        assert_eq!(part.left(&clock), Some(20 * second));
        assert_eq!(Deadline::NEVER.within(&clock, second), Deadline::after(&clock, second));
    }

    #[test]
    fn time_in_which_nobody_was_waited_for_does_not_count_for_the_half() {
        let clock = ManualClock::default();
        let second = Duration::from_secs(1);
        let deadline = Deadline::after(&clock, 60 * second);
        clock.advance(40 * second);
        let queued = deadline.not_counting(&clock, Duration::ZERO);
        assert!(deadline.half_passed(&clock) && !queued.half_passed(&clock));
        assert_eq!(queued.left(&clock), Some(20 * second), "the end stays where it was");
        clock.advance(10 * second);
        assert!(queued.half_passed(&clock), "half of what was left");
        let deadline = Deadline::after(&clock, 60 * second);
        let begin = clock.monotonic();
        clock.advance(5 * second);
        let waited = deadline.not_counting(&clock, begin);
        clock.advance(27 * second);
        assert!(deadline.half_passed(&clock) && !waited.half_passed(&clock));
        assert_eq!(Deadline::NEVER.not_counting(&clock, begin), Deadline::NEVER);
    }

    #[test]
    fn an_answer_is_given_up_when_the_last_who_waits_for_it_leaves() {
        let clock = ManualClock::default();
        let first = Waiting::begin();
        let deadline = Deadline::after(&clock, Duration::from_secs(60)).of(&first);
        let other = Deadline::NEVER.of(&Waiting::begin());
        assert!(other.is_given_up() && other.passed(&clock) && other.join().is_none());
        let second = deadline.within(&clock, Duration::from_secs(1)).join();
        drop(first);
        assert!(!deadline.passed(&clock), "somebody joined");
        drop(second);
        assert!(deadline.passed(&clock) && deadline.half_passed(&clock) && deadline.join().is_none());
        assert!(Deadline::NEVER.join().is_none() && !Deadline::NEVER.is_given_up());
    }

    #[tokio::test]
    async fn whoever_works_for_an_answer_hears_that_it_was_given_up() {
        let waiting = Waiting::begin();
        let deadline = Deadline::NEVER.of(&waiting);
        let hears = tokio::spawn(async move { deadline.given_up().await });
        tokio::task::yield_now().await;
        assert!(!hears.is_finished());
        drop(waiting);
        assert!(hears.await.is_ok());
    }
}
