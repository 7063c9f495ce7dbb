//! Room for blocks on disk: what goes when there is too little.
//!
//! A list of all blocks would take memory by their number, and a look at each before the first answer. So there is none.
//! The directory is surveyed when that is due, by a thread of its own: the lengths add up to what is held, and of the blocks the
//! [`OLDEST`] that were used longest ago are noted. These go as more is put, unless they were used since. The directory is surveyed
//! again when none of them is left, and after a [step] was put in any case, because other processes put and
//! let go as well. That is a look at no more than some twelve files for each that is put. Of its first step a process is given a part, by
//! chance: if it had all of it, many short commands would put much and never survey, and if none, each would survey.
//!
//! So the order is that of their last use, as exactly as that is marked. The bound is exceeded by what is put while a survey goes on,
//! and by what other processes put until the next.

use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Key;
use crate::id;

/// Blocks noted to be let go of: 16 GiB of them, in 3 MiB of memory.
const OLDEST: usize = 65_536;
/// The least that is put between two surveys.
const STEP_MIN: u64 = 16 << 20;

/// A block as a survey found it. The one that was used longest ago is the least.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Old {
    /// Nanoseconds since 1970.
    pub(super) used: u64,
    pub(super) key: Key,
    pub(super) len: u32,
}

/// What a survey found.
#[derive(Debug)]
pub(super) struct Found {
    held: u64,
    oldest: BinaryHeap<Old>,
    most: usize,
}

impl Found {
    pub(super) fn add(&mut self, block: Old) {
        self.held += u64::from(block.len);
        self.oldest.push(block);
        if self.oldest.len() > self.most {
            self.oldest.pop();
        }
    }
}

/// How much is held, and what goes first.
#[derive(Debug)]
pub(super) struct Room {
    limit: u64,
    /// Blocks that are noted.
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes, as surveyed last, with what was put and let go since.
    held: u64,
    /// Bytes to be put until the next survey.
    left: u64,
    /// What goes next is last.
    oldest: Vec<Old>,
    surveying: bool,
}

/// Bytes to be put between two surveys of a cache that may hold `limit`.
fn step(limit: u64) -> u64 {
    (limit / 8).max(STEP_MIN)
}

impl Room {
    pub(super) fn new(limit: u64) -> Self {
        Self::noting(OLDEST, limit, u64::from_le_bytes(id::random_bytes()))
    }

    /// One that notes so many blocks, and whose first survey is due by this chance.
    pub(super) fn noting(most: usize, limit: u64, chance: u64) -> Self {
        let left = 1 + chance % step(limit);
        Self { limit, most, state: Mutex::new(State { left, ..State::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn held(&self) -> u64 {
        self.lock().held
    }

    pub(super) fn is_over(&self) -> bool {
        self.held() > self.limit
    }

    /// Notes that so many bytes were put.
    pub(super) fn add(&self, len: u64) {
        let mut state = self.lock();
        state.held += len;
        state.left = state.left.saturating_sub(len);
    }

    /// Whether a survey is due that nobody is at. If so, it is the caller's.
    pub(super) fn claim_survey(&self) -> bool {
        let mut state = self.lock();
        let due = state.left == 0 || (state.held > self.limit && state.oldest.is_empty());
        due && !std::mem::replace(&mut state.surveying, true)
    }

    /// A survey begins: until it ends nothing is let go of, for that would be counted or not.
    pub(super) fn begin_survey(&self) -> Found {
        self.lock().surveying = true;
        Found { held: 0, oldest: BinaryHeap::new(), most: self.most }
    }

    /// A survey ended, with nothing if it was cut off.
    pub(super) fn end_survey(&self, found: Option<Found>) {
        let mut state = self.lock();
        state.surveying = false;
        if let Some(found) = found {
            state.held = found.held;
            state.left = step(self.limit);
            state.oldest = found.oldest.into_sorted_vec();
            state.oldest.reverse();
        }
    }

    /// The block that is to go, while there is too much.
    pub(super) fn next_to_go(&self) -> Option<Old> {
        let mut state = self.lock();
        if state.surveying || state.held <= self.limit {
            return None;
        }
        state.oldest.pop()
    }

    /// Notes that a block is gone.
    pub(super) fn sub(&self, len: u32) {
        let mut state = self.lock();
        state.held = state.held.saturating_sub(len.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PackId;

    fn old(used: u64) -> Old {
        Old { used, key: (PackId([1; 32]), used as u32), len: 10 }
    }

    fn surveyed(limit: u64, ages: impl IntoIterator<Item = u64>, most: usize) -> Room {
        let room = Room::noting(most, limit, 0);
        room.add(1);
        assert!(room.claim_survey() && !room.claim_survey());
        let mut found = room.begin_survey();
        ages.into_iter().for_each(|age| found.add(old(age)));
        room.end_survey(Some(found));
        room
    }

    fn let_go(room: &Room) -> Vec<u32> {
        let going = std::iter::from_fn(|| room.next_to_go().inspect(|old| room.sub(old.len)));
        going.map(|old| old.key.1).collect()
    }

    #[test]
    fn all_are_counted_and_the_oldest_are_noted_and_go_until_there_is_room() {
        let room = surveyed(60, [5, 9, 1, 7, 3, 8, 2, 6, 4], 4);
        assert_eq!(room.held(), 90);
        assert_eq!(let_go(&room), [1, 2, 3]);
        assert!(!room.is_over() && !room.claim_survey());
        room.add(20);
        assert_eq!(let_go(&room), [4]);
        assert!(room.is_over() && room.claim_survey(), "what goes next must be found first");
    }

    #[test]
    fn nothing_goes_during_a_survey_and_one_that_was_cut_off_is_made_again() {
        let room = surveyed(50, 1..9, 9);
        drop(room.begin_survey());
        assert!(room.next_to_go().is_none() && !room.claim_survey());
        room.end_survey(None);
        assert_eq!(let_go(&room), [1, 2, 3]);
        let room = Room::noting(9, 50, 0);
        room.add(1);
        assert!(room.claim_survey());
        room.end_survey(None);
        assert!(room.claim_survey());
    }

    #[test]
    fn what_others_put_is_counted_after_a_step_at_the_latest() {
        let room = surveyed(800 << 20, [], 9);
        room.add(99 << 20);
        assert!(!room.claim_survey());
        room.add(1 << 20);
        assert!(room.claim_survey(), "an eighth of the bound");
        assert_eq!(step(5 << 20), STEP_MIN);
    }

    #[test]
    fn short_commands_survey_once_in_a_step_that_they_put_together() {
        let limit = 800 << 20;
        assert!(!Room::new(limit).claim_survey(), "nothing was put");
        // As many as there are parts in a step, each of which puts one, by every chance.
        let parts = 100;
        let surveys = (0..parts).filter(|n| {
            let room = Room::noting(9, limit, n * step(limit) / parts + 1);
            room.add(step(limit) / parts);
            room.claim_survey()
        });
        assert_eq!(surveys.count(), 1);
        let room = Room::new(limit);
        room.add(step(limit));
        assert!(room.claim_survey(), "by any chance");
        let small = Room::noting(9, 1 << 20, STEP_MIN - 1);
        small.add((1 << 20) + 1);
        assert!(small.claim_survey(), "it put too much by itself");
    }

    #[test]
    fn what_is_noted_takes_three_megabytes() {
        assert!(OLDEST * size_of::<Old>() <= 3 << 20);
    }
}
