//! Bytes on their way from vaults, bounded: who asks for more than there is room for waits until others have got theirs.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::LOOK;
use super::ahead::REQUEST_MAX;
use crate::clock::{Clock, Deadline};
use crate::error::StoreError;

/// For whom a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Somebody waits for it.
    Now,
    /// Somebody may want it later: as much is left free as somebody who waits may ask for.
    Ahead,
}

/// What may be on its way at once, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    taken: Mutex<u64>,
    freed: Condvar,
}

/// Room for a request, until dropped.
#[derive(Debug)]
pub(super) struct Room<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.budget.lock() -= self.bytes;
        self.budget.freed.notify_all();
    }
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, taken: Mutex::new(0), freed: Condvar::new() }
    }

    /// Most bytes that a request should ask for, but for what somebody needs in one piece: a few fit at once.
    pub(super) fn request_max(&self) -> u64 {
        REQUEST_MAX.min(self.limit / 4)
    }

    /// Waits for room for `bytes`; a request that is larger than all goes alone. `Timeout` at the deadline.
    pub(super) fn take(
        &self,
        bytes: u64,
        need: Need,
        deadline: Deadline,
        clock: &dyn Clock,
    ) -> Result<Room<'_>, StoreError> {
        let bytes = bytes.min(self.limit);
        let spare = if need == Need::Ahead { self.request_max() } else { 0 };
        let mut taken = self.lock();
        while *taken > 0 && *taken + bytes + spare > self.limit {
            if deadline.passed(clock) {
                return Err(StoreError::Timeout { what: "room for a request to a vault".into() });
            }
            taken = self.freed.wait_timeout(taken, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += bytes;
        Ok(Room { budget: self, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::clock::SystemClock;

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn what_does_not_fit_waits_and_reading_ahead_leaves_room_for_who_waits() {
        let budget = Budget::new(16 << 20);
        let take = |mib: u64, need| {
            budget.take(mib << 20, need, Deadline::after(&SystemClock, AT_ONCE), &SystemClock)
        };
        assert_eq!(budget.request_max(), 4 << 20);
        let ahead: Vec<_> = (0..3).map(|_| take(4, Need::Ahead).unwrap()).collect();
        assert!(matches!(take(1, Need::Ahead), Err(StoreError::Timeout { .. })));
        let demanded = take(4, Need::Now).unwrap();
        assert!(take(1, Need::Now).is_err());
        drop(demanded);
        assert!(take(4, Need::Now).is_ok());
        assert!(take(40, Need::Now).is_err(), "larger than all, and not alone");
        drop(ahead);
        let alone = take(40, Need::Now).unwrap();
        assert!(take(1, Need::Now).is_err());
        drop(alone);
        assert_eq!(*budget.lock(), 0);
    }

    #[test]
    fn who_waits_goes_on_when_another_one_has_got_his() {
        let budget = Budget::new(4 << 20);
        let take = || budget.take(3 << 20, Need::Now, Deadline::NEVER, &SystemClock);
        let first = take().unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| take().map(drop).is_ok());
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().unwrap());
        });
    }
}
