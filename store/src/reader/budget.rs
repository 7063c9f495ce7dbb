//! Bytes on their way from vaults, bounded: who asks for more than there is room for waits until others have got theirs.
//!
//! No vault takes the room of another: each gets its first request, and a reserve in all, however much hangs in the others. A vault
//! that nothing is on its way from costs the others nothing. So what is on its way may be more than the limit: by a reserve for each
//! vault that begins when others have taken all, which is less than the limit once more for all of them. And of what one vault
//! gives, pages of directories come before contents, and both before what nobody waits for yet.
//!
//! What came and waits for the disk of the cache counts as on its way: it takes the same memory.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::LOOK;
use super::ahead::REQUEST_MAX;
use super::rate::Rate;
use crate::catalog::VaultNo;
use crate::clock::{Clock, Deadline};
use crate::error::{ErrorClass, StoreError};

/// A request is for no more than a vault gives within this time, as far as its rate is known; nor is all that is read ahead.
const IN_TIME: Duration = Duration::from_secs(4);

/// For whom a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Somebody waits for a page of a tree.
    Page,
    /// Somebody waits for it: a little is left free for pages.
    Now,
    /// Somebody may want it later: as much again is left free as somebody who waits may ask for.
    Ahead,
}

/// What may be on its way at once, in bytes; a little more, as told above, while one vault does not give back what others need.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    /// Vaults that share it.
    vaults: u64,
    clock: Arc<dyn Clock>,
    lines: Mutex<Lines>,
    freed: Condvar,
    #[cfg(test)]
    waiting: std::sync::atomic::AtomicUsize,
}

type Lines = HashMap<VaultNo, Line>;

/// The way to one vault.
#[derive(Debug, Default)]
struct Line {
    /// On its way from there.
    taken: u64,
    rate: Rate,
}

/// Room for a request, and for what it brought until that is on the disk: until dropped.
#[derive(Debug)]
pub(super) struct Room {
    budget: Arc<Budget>,
    vault: VaultNo,
    bytes: u64,
    is_under_way: bool,
}

impl Room {
    /// From where.
    pub(super) fn vault(&self) -> VaultNo {
        self.vault
    }

    /// Notes how the request ended, of which so many bytes came.
    pub(super) fn ended<T>(&mut self, result: &Result<T, StoreError>, bytes: impl Fn(&T) -> u64) {
        self.end(match result {
            Ok(came) => Some(bytes(came)),
            Err(e) if e.class() == ErrorClass::Unavailable => Some(0),
            Err(_) => None,
        });
    }

    fn end(&mut self, came: Option<u64>) {
        if std::mem::take(&mut self.is_under_way)
            && let Some(line) = self.budget.lock().get_mut(&self.vault)
        {
            line.rate.end(self.budget.clock.monotonic(), came);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.end(None);
        if let Some(line) = self.budget.lock().get_mut(&self.vault) {
            line.taken -= self.bytes;
        }
        self.budget.freed.notify_all();
    }
}

impl Budget {
    /// `limit` bytes, shared by so many vaults.
    pub(super) fn new(limit: u64, vaults: usize, clock: Arc<dyn Clock>) -> Arc<Self> {
        let vaults = vaults.max(1) as u64;
        Arc::new(Self {
            limit,
            vaults,
            clock,
            lines: Mutex::default(),
            freed: Condvar::new(),
            #[cfg(test)]
            waiting: Default::default(),
        })
    }

    /// What may be on its way at once.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Most bytes that a request should ask a vault for, but for what somebody needs in one piece: a few fit at once, and one of
    /// each vault.
    pub(super) fn request_max(&self, vault: VaultNo) -> u64 {
        self.reserve().min(self.in_time(vault))
    }

    /// What a vault gives in reasonable time; without bound as long as its rate is not known.
    pub(super) fn in_time(&self, vault: VaultNo) -> u64 {
        self.lock().get(&vault).and_then(|line| line.rate.within(IN_TIME)).unwrap_or(u64::MAX)
    }

    /// Waits for room for `bytes` of a vault; a request that is larger than there can be room for is the only one of its vault.
    /// `Timeout` at the deadline.
    pub(super) fn take(
        self: &Arc<Self>,
        vault: VaultNo,
        bytes: u64,
        need: Need,
        deadline: Deadline,
    ) -> Result<Room, StoreError> {
        let mut lines = self.lock();
        while !self.fits(&lines, vault, bytes, need) {
            if deadline.passed(&*self.clock) {
                return Err(StoreError::Timeout { what: "room for a request to a vault".into() });
            }
            #[cfg(test)]
            self.waiting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            lines = self.freed.wait_timeout(lines, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            #[cfg(test)]
            self.waiting.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        }
        let line = lines.entry(vault).or_default();
        line.taken += bytes;
        line.rate.begin(self.clock.monotonic());
        Ok(Room { budget: Arc::clone(self), vault, bytes, is_under_way: true })
    }

    /// How many wait for room.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn fits(&self, lines: &Lines, vault: VaultNo, bytes: u64, need: Need) -> bool {
        let Some(line) = lines.get(&vault).filter(|line| line.taken > 0) else { return true };
        let reserve = self.reserve();
        let others = lines.iter().filter(|(no, line)| **no != vault && line.taken > 0);
        let others = others.map(|(_, line)| line.taken.max(reserve)).sum();
        // What others took before this vault began is not taken from its reserve.
        let room = self.limit.saturating_sub(others).max(reserve);
        let pages = self.limit / 16;
        let (spare, most) = match need {
            Need::Page => (0, u64::MAX),
            Need::Now => (pages, u64::MAX),
            Need::Ahead => (pages + reserve, line.rate.within(IN_TIME).unwrap_or(u64::MAX)),
        };
        line.taken + bytes <= most && line.taken + bytes + spare <= room
    }

    /// What is left to each vault that anything is on its way from, whatever others have taken.
    fn reserve(&self) -> u64 {
        REQUEST_MAX.min(self.limit / self.vaults.max(4))
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    const V: VaultNo = VaultNo(1);
    const W: VaultNo = VaultNo(2);

    fn budget(mib: u64, vaults: usize) -> Arc<Budget> {
        Budget::new(mib << 20, vaults, Arc::new(SystemClock))
    }

    fn take(budget: &Arc<Budget>, vault: VaultNo, mib: u64, need: Need) -> Result<Room, StoreError> {
        budget.take(vault, mib << 20, need, Deadline::after(&SystemClock, Duration::ZERO))
    }

    #[test]
    fn what_does_not_fit_waits_and_what_is_needed_less_leaves_room_for_what_is_needed_more() {
        let budget = budget(16, 1);
        let take = |mib, need| take(&budget, V, mib, need);
        assert_eq!(budget.request_max(V), 4 << 20);
        let mut ahead: Vec<_> = (0..11).map(|_| take(1, Need::Ahead).unwrap()).collect();
        assert!(matches!(take(1, Need::Ahead), Err(StoreError::Timeout { .. })));
        let demanded = take(4, Need::Now).unwrap();
        assert!(take(1, Need::Now).is_err());
        let page = take(1, Need::Page).unwrap();
        assert!(take(1, Need::Page).is_err());
        drop((page, demanded));
        assert!(take(4, Need::Now).is_ok());
        assert!(take(40, Need::Now).is_err(), "larger than all, and not alone");
        ahead.clear();
        let alone = take(40, Need::Now).unwrap();
        assert!(take(1, Need::Page).is_err());
        drop(alone);
        assert_eq!(budget.lock()[&V].taken, 0);
    }

    #[test]
    fn a_vault_that_hangs_leaves_room_for_each_other() {
        for vaults in [2, 3, 6] {
            let budget = budget(16, vaults);
            let mut held = Vec::new();
            for n in 0..vaults as u64 {
                let before = held.len();
                held.extend(std::iter::from_fn(|| take(&budget, VaultNo(n as i64), 1, Need::Page).ok()));
                let got = (held.len() - before) as u64;
                assert!(
                    got << 20 >= budget.reserve().min(4 << 20) >> 20 << 20,
                    "{got} of vault {n} of {vaults}"
                );
            }
            let most = budget.limit + (vaults as u64 - 1) * budget.reserve();
            let all = (held.len() as u64) << 20;
            assert!(all <= most && most < 2 * budget.limit, "{all} of {vaults}");
        }
        let budget = budget(16, 2);
        let _hangs: Vec<_> = std::iter::from_fn(|| take(&budget, V, 1, Need::Now).ok()).collect();
        assert!(take(&budget, W, 4, Need::Now).is_ok(), "as if nobody were there");
    }

    #[test]
    fn a_vault_that_is_not_read_costs_the_others_nothing_whether_it_ever_was_or_not() {
        for vaults in 1..5 {
            let budget = budget(16, vaults);
            let all = |need| std::iter::from_fn(|| take(&budget, V, 1, need).ok()).collect::<Vec<_>>().len();
            let was_read = take(&budget, W, 4, Need::Now).unwrap();
            assert!(all(Need::Ahead) < 8 && all(Need::Page) == 12, "the other one keeps what it has");
            drop(was_read);
            assert_eq!((all(Need::Ahead), all(Need::Now), all(Need::Page)), (11, 15, 16), "{vaults}");
        }
    }

    #[test]
    fn no_more_is_read_ahead_than_comes_in_time() {
        let clock = ManualClock::default();
        let budget = Budget::new(64 << 20, 1, Arc::new(clock.clone()));
        let take = |kib: u64, need| budget.take(V, kib << 10, need, Deadline::after(&clock, Duration::ZERO));
        let ask = |seconds, result: Result<u64, StoreError>| {
            let mut room = take(512, Need::Now).unwrap();
            clock.advance(Duration::from_secs(seconds));
            room.ended(&result, |bytes| *bytes);
        };
        ask(2, Ok(512 << 10));
        assert_eq!((budget.in_time(V), budget.request_max(V)), (1 << 20, 1 << 20));
        let first = take(512, Need::Ahead).unwrap();
        let second = take(512, Need::Ahead).unwrap();
        assert!(take(256, Need::Ahead).is_err());
        assert!(take(4096, Need::Now).is_ok(), "who waits is not held back");
        drop((first, second));
        ask(60, Err(StoreError::Cancelled));
        assert_eq!(budget.in_time(V), 1 << 20, "that somebody left says nothing");
        ask(60, Err(StoreError::Timeout { what: "it".into() }));
        assert!(budget.in_time(V) < 100 << 10);
        assert_eq!(budget.in_time(W), u64::MAX);
    }

    #[test]
    fn who_waits_goes_on_when_another_one_has_got_his() {
        let budget = budget(4, 1);
        let take = || budget.take(V, 3 << 20, Need::Now, Deadline::NEVER);
        let first = take().unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| take().map(drop).is_ok());
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().unwrap());
        });
    }
}
