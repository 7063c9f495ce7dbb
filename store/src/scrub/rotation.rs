//! Which packs of a place are read next: a pure function of when each was last proven.
//!
//! There is no list of what was read in which round: what waits longest and what came last take turns. So a run that is
//! cut off, one that was missed and one that is done twice are all the same thing.
//!
//! What came last has no copy elsewhere yet, most likely. But where as much comes in a day as may be read, nothing else would be read any more: no
//! old proof would be renewed, and what was not read on its first day never would be. So half is for what waits longest, be it for its first proof or
//! for another one.
//!
//! What is known to be damaged comes last, with at most a quarter of what a run may read. It is told without being read, and it has no proof until
//! it is healed: it would be read first by every run, and where there is much of it nothing else would be read any more.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::iter::Peekable;

use crate::catalog::{KnownCopy, PackNo};
use crate::clock::Timestamp;

const DAY: i64 = 24 * 3600;
/// What was proven so short a time ago counts for the same day: a run may begin a little earlier than the day before.
const SAME_DAY: i64 = 23 * 3600;

/// Of what a run may read, one part in so many is for what is known to be damaged …
const BAD_PART: u64 = 4;
/// … and of the rest one in so many, at least, for what waits longest: the other one for what came last.
const OLD_PART: u64 = 2;

/// How much of a place is to be read in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// All of it in so many days; at least one.
    pub days: u32,
    /// But no more than so many bytes in a day, where reading costs something. Elsewhere whatever is new is read at once.
    pub bytes_a_day: Option<u64>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What is due by now.
    Due(Terms),
    /// So many bytes, whatever is due; one pack in any case.
    Bytes(u64),
    /// Everything.
    All,
}

impl Wanted {
    /// Bytes that may be read in all.
    fn most(self) -> u64 {
        match self {
            Self::Due(terms) => terms.bytes_a_day.unwrap_or(u64::MAX),
            // One pack in any case.
            Self::Bytes(most) => most.max(1),
            Self::All => u64::MAX,
        }
    }
}

impl Terms {
    /// In how many days all of so many bytes is read at the latest, however much comes meanwhile; `None` if never.
    pub fn days_for(&self, bytes: u64) -> Option<u64> {
        let days = u64::from(self.days.max(1));
        match self.bytes_a_day {
            None => Some(days),
            Some(0) => None,
            Some(most) => Some(days.max(bytes.div_ceil((most / OLD_PART).max(1)))),
        }
    }
}

/// The packs to read, in the order in which that is done: in turn what waits longest and the newest that was never proven, and last what is known to
/// be damaged.
pub fn choose(mut copies: Vec<KnownCopy>, wanted: Wanted, now: Timestamp) -> Vec<PackNo> {
    // What was proven later than now was proven by a clock that has been put right: when it was is not known.
    for copy in copies.iter_mut().filter(|copy| copy.proven.is_some_and(|at| at > now)) {
        copy.proven = None;
    }
    copies.sort_unstable_by_key(|copy| Reverse(copy.pack));
    let day = Day::of(&copies, wanted, now);
    let most = wanted.most();
    let (bad, sound): (Vec<KnownCopy>, Vec<KnownCopy>) = copies.into_iter().partition(|copy| copy.bad);
    let kept_for_bad = bad.iter().map(|copy| copy.len).sum::<u64>().min(most / BAD_PART);
    let mut run = Run { day, most: most.saturating_sub(kept_for_bad), read: day.read, chosen: Vec::new() };
    run.in_turn(sound);
    run.most = most;
    for copy in &bad {
        if !(day.is_due(copy, run.read) && run.take(copy)) {
            break;
        }
    }
    run.chosen
}

/// What is due is judged by.
#[derive(Clone, Copy)]
struct Day {
    wanted: Wanted,
    now: Timestamp,
    /// Bytes of all copies.
    total: u64,
    /// Bytes that were read today, where that counts.
    read: u64,
}

impl Day {
    fn of(copies: &[KnownCopy], wanted: Wanted, now: Timestamp) -> Self {
        let total = copies.iter().map(|copy| copy.len).sum();
        let day = Self { wanted, now, total, read: 0 };
        let today = copies.iter().filter(|copy| copy.proven.is_some_and(|at| day.ago(at) < SAME_DAY));
        match wanted {
            Wanted::Due(_) => Self { read: today.map(|copy| copy.len).sum(), ..day },
            Wanted::Bytes(_) | Wanted::All => day,
        }
    }

    fn ago(&self, at: Timestamp) -> i64 {
        self.now.seconds.saturating_sub(at.seconds)
    }

    /// Whether a copy is due after `read` bytes were read today in turn.
    fn is_due(&self, copy: &KnownCopy, read: u64) -> bool {
        let Wanted::Due(terms) = self.wanted else { return true };
        let days = terms.days.max(1);
        let is_late = copy.proven.is_none_or(|at| self.ago(at) >= i64::from(days) * DAY);
        let is_its_turn = read < self.total.div_ceil(u64::from(days))
            && copy.proven.is_none_or(|at| self.ago(at) >= SAME_DAY);
        is_late || is_its_turn
    }
}

/// What one run reads.
struct Run {
    day: Day,
    /// Bytes that may be read, and that were.
    most: u64,
    read: u64,
    chosen: Vec<PackNo>,
}

impl Run {
    /// Whether there was room for it.
    fn take(&mut self, copy: &KnownCopy) -> bool {
        // One that is longer than all that may be read would never be read else.
        let may_be = self.most > 0 && (self.read == 0 || self.read.saturating_add(copy.len) <= self.most);
        if may_be {
            self.read = self.read.saturating_add(copy.len);
            self.chosen.push(copy.pack);
        }
        may_be
    }

    /// Takes what waits longest and what came last, as many bytes of each as far as there are; `copies` are sorted, the newest first.
    fn in_turn(&mut self, copies: Vec<KnownCopy>) {
        let begins_old = new_had_its_turn(&copies);
        let never = copies.clone().into_iter().filter(|copy| copy.proven.is_none());
        let (mut newest, mut oldest) =
            (never.peekable(), by_waiting(copies, self.day.now).into_iter().peekable());
        let mut taken = HashSet::new();
        let (mut of_old, mut of_new) = (0_u64, 0_u64);
        loop {
            let in_turn = self.day.read.saturating_add(of_old);
            let old = head(&mut oldest, &taken).filter(|copy| self.day.is_due(copy, in_turn));
            let new = head(&mut newest, &taken);
            let is_old = of_old < of_new || of_old == of_new && begins_old;
            let (copy, of) = match (old, new) {
                (Some(old), new) if is_old || new.is_none() => (old, &mut of_old),
                (_, Some(new)) => (new, &mut of_new),
                _ => return,
            };
            if !self.take(&copy) {
                return;
            }
            *of = of.saturating_add(copy.len);
            taken.insert(copy.pack);
        }
    }
}

/// Whether what was read last is the newest of what was ever read: so where a run has room for one pack alone, or is cut off, the next one begins
/// with the other kind.
fn new_had_its_turn(copies: &[KnownCopy]) -> bool {
    let last = copies.iter().filter_map(|copy| copy.proven).max();
    copies.iter().find_map(|copy| copy.proven).is_some_and(|newest| Some(newest) == last)
}

/// The first one that was not taken yet.
fn head(
    copies: &mut Peekable<impl Iterator<Item = KnownCopy>>,
    taken: &HashSet<PackNo>,
) -> Option<KnownCopy> {
    while copies.next_if(|copy| taken.contains(&copy.pack)).is_some() {}
    copies.peek().copied()
}

/// The one that waits longest first. Nobody notes when a pack came, but numbers ascend: one that nobody read was there when a later one was proven.
fn by_waiting(copies: Vec<KnownCopy>, now: Timestamp) -> Vec<KnownCopy> {
    let mut there = now;
    let since = copies.into_iter().map(|copy| {
        let since = copy.proven.unwrap_or(there);
        there = there.min(since);
        (since, copy)
    });
    let mut since: Vec<(Timestamp, KnownCopy)> = since.collect();
    since.sort_unstable_by_key(|(since, copy)| (*since, copy.proven, copy.pack));
    since.into_iter().map(|(_, copy)| copy).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const NOW: i64 = 1_795_176_000;
    const MIB: u64 = 1 << 20;

    /// A pack of 16 MiB that was proven so many hours ago.
    fn copy(no: i64, hours: Option<i64>) -> KnownCopy {
        let proven = hours.map(|hours| Timestamp::from_seconds(NOW - hours * 3600));
        KnownCopy { pack: PackNo(no), len: 16 * MIB, proven, bad: false }
    }

    fn chosen(copies: &[KnownCopy], wanted: Wanted) -> Vec<i64> {
        let packs = choose(copies.to_vec(), wanted, Timestamp::from_seconds(NOW));
        packs.into_iter().map(|pack| pack.0).collect()
    }

    fn due(days: u32, bytes_a_day: Option<u64>) -> Wanted {
        Wanted::Due(Terms { days, bytes_a_day })
    }

    #[test]
    fn what_is_new_is_read_the_same_day_and_of_the_rest_the_oldest_proofs() {
        let mut copies: Vec<KnownCopy> = (1..=60).map(|no| copy(no, Some(24 * (61 - no)))).collect();
        // Sixty days old is late in thirty: those that are go at once.
        assert_eq!(chosen(&copies, due(30, None)), (1..=31).collect::<Vec<_>>());
        assert_eq!(chosen(&copies, due(60, None)), [1]);
        assert_eq!(chosen(&copies, due(120, None)), [1], "one of sixty is more than enough for a day");
        copies.push(copy(61, None));
        copies.push(copy(62, None));
        assert_eq!(chosen(&copies, due(60, None)), [1, 62, 2, 61]);
        assert_eq!(chosen(&copies, due(31, None))[..4], [1, 62, 2, 61]);
    }

    #[test]
    fn what_was_read_today_counts_and_nothing_is_read_twice_a_day() {
        let copies = [copy(1, Some(1)), copy(2, Some(22)), copy(3, Some(24)), copy(4, Some(50))];
        assert_eq!(chosen(&copies, due(1, None)), [4, 3], "a day has all of it");
        assert_eq!(chosen(&copies, due(2, None)), [4], "the half of it was read, and one is late");
        assert_eq!(chosen(&copies, due(4, None)), [0; 0]);
        assert_eq!(chosen(&copies[..2], due(1, None)), [0; 0]);
    }

    #[test]
    fn where_reading_costs_no_more_is_read_than_that_but_one_pack_in_any_case() {
        let mut copies: Vec<KnownCopy> = (1..=100).map(|no| copy(no, None)).collect();
        assert_eq!(chosen(&copies, due(30, Some(40 * MIB))), [100, 1]);
        assert_eq!(chosen(&copies, due(30, Some(MIB))), [100]);
        assert_eq!(chosen(&copies, due(30, Some(0))), [0; 0]);
        copies[0].proven = Some(Timestamp::from_seconds(NOW - 60));
        assert_eq!(chosen(&copies, due(30, Some(40 * MIB))), [100], "some was read today");
        assert_eq!(chosen(&copies, due(30, Some(MIB))), [0; 0]);
    }

    #[test]
    fn all_of_a_place_is_read_in_its_days_whatever_is_missed() {
        for missed in [0, 1, 5] {
            let mut copies: Vec<KnownCopy> = (0..90).map(|no| copy(no, None)).collect();
            let mut reads = 0;
            for day in 0..120 {
                let now = Timestamp::from_seconds(NOW + day * DAY);
                if day % 7 >= missed {
                    let packs = choose(copies.clone(), due(30, None), now);
                    reads += packs.len();
                    for copy in copies.iter_mut().filter(|copy| packs.contains(&copy.pack)) {
                        copy.proven = Some(now);
                    }
                }
                let oldest = copies.iter().filter_map(|copy| copy.proven).min();
                let late = oldest.map_or(0, |at| (now.seconds - at.seconds) / DAY);
                assert!(late <= 30 + missed, "{late} days, with {missed} missed of seven");
            }
            assert!((270..=460).contains(&reads), "{reads} packs in 120 days");
        }
    }

    #[test]
    fn each_pack_is_read_in_its_days_however_much_comes_and_what_came_last_the_same_day() {
        // Of 16 MiB each: read in a day, and coming in a day.
        for (most, coming) in [(8, 0), (8, 3), (8, 8), (8, 20), (2, 2), (1, 1), (1, 3)] {
            let terms = Terms { days: 30, bytes_a_day: Some(most * 16 * MIB) };
            let told = format!("{coming} of {most}");
            // Half of what is there at first was read the day before.
            let mut copies: Vec<KnownCopy> =
                (0..100).map(|no| copy(no, (no % 2 == 0).then_some(24))).collect();
            let deadline = |day: u64, total: usize| day + terms.days_for(total as u64 * 16 * MIB).unwrap();
            let mut until = vec![deadline(0, copies.len()); copies.len()];
            for day in 0..400 {
                let now = Timestamp::from_seconds(NOW + day as i64 * DAY);
                let there = copies.len() as i64;
                copies.extend((there..there + coming).map(|no| copy(no, None)));
                until.resize(copies.len(), deadline(day, copies.len()));
                let packs = choose(copies.clone(), Wanted::Due(terms), now);
                assert!(packs.len() as u64 <= most, "{told}, day {day}");
                for no in &packs {
                    copies[no.0 as usize].proven = Some(now);
                    until[no.0 as usize] = deadline(day, copies.len());
                }
                let newest = copies.last().unwrap().pack;
                assert!(coming == 0 || most == 1 || packs.contains(&newest), "{told}, day {day}");
                let late = until.iter().position(|until| *until < day);
                assert_eq!(late, None, "{told}, day {day}");
            }
        }
    }

    #[test]
    fn a_proof_of_the_future_is_none_and_bytes_and_everything_go_by_the_oldest() {
        let copies = [copy(1, Some(-5)), copy(2, Some(9)), copy(3, Some(10))];
        assert_eq!(chosen(&copies, due(30, None)), [1]);
        assert_eq!(chosen(&copies, Wanted::All), [1, 3, 2]);
        assert_eq!(chosen(&copies, Wanted::Bytes(33 * MIB)), [1, 3]);
        assert_eq!(chosen(&copies, Wanted::Bytes(1)), [1]);
        assert_eq!(chosen(&[], Wanted::All), [0; 0]);
    }

    #[test]
    fn what_is_known_to_be_damaged_keeps_nothing_else_from_being_read() {
        let bad = |no| KnownCopy { bad: true, ..copy(no, None) };
        let mut copies: Vec<KnownCopy> = (1..=20).map(|no| copy(no, Some(24 * (50 - no)))).collect();
        copies.extend((21..=40).map(bad));
        // More damage than may be read in a day: three quarters are for the others.
        assert_eq!(chosen(&copies, due(30, Some(64 * MIB))), [1, 2, 3, 40]);
        assert_eq!(chosen(&copies, Wanted::Bytes(128 * MIB)), [1, 2, 3, 4, 5, 6, 40, 39]);
        assert_eq!(chosen(&copies, due(30, Some(MIB))), [1], "one in any case, and it is none of them");
        assert_eq!(chosen(&copies, Wanted::Bytes(0)), [1]);
        // Where nothing bounds it all of them are looked at, after what is due of the others.
        let all = chosen(&copies, due(30, None));
        assert_eq!((&all[..20], &all[20..22]), (&(1..=20_i64).collect::<Vec<_>>()[..], &[40, 39][..]));
        assert_eq!(all.len(), 40);
        // Of others that are not due nothing is read, and damage may be healed by now.
        let mut fresh: Vec<KnownCopy> = (1..=20).map(|no| copy(no, Some(1))).collect();
        fresh.push(bad(21));
        assert_eq!(chosen(&fresh, due(30, None)), [21]);
        assert_eq!(chosen(&[bad(1)], due(30, Some(MIB))), [1]);
        assert_eq!(chosen(&[bad(1)], due(30, Some(0))), [0; 0]);
        assert_eq!(chosen(&copies, Wanted::All).len(), 40);
    }

    #[test]
    fn how_long_all_of_it_takes_follows_from_what_may_be_read() {
        let days = |bytes_a_day, bytes| Terms { days: 30, bytes_a_day }.days_for(bytes);
        assert_eq!(days(None, u64::MAX), Some(30));
        assert_eq!(days(Some(MIB), 10 * MIB), Some(30));
        assert_eq!(days(Some(MIB), 15 * MIB + 1), Some(31), "half may be for what comes meanwhile");
        assert_eq!(days(Some(MIB), 100 * MIB), Some(200));
        assert_eq!(days(Some(1), 100), Some(100));
        assert_eq!(days(Some(0), 1), None);
    }
}
