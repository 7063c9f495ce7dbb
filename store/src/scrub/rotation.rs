//! Which packs of a place are read next: a pure function of when each was last proven.
//!
//! There is no list of what was read in which round: the oldest proof goes first, and what nobody ever read before that. So a run that is
//! cut off, one that was missed and one that is done twice are all the same thing.
//!
//! What is known to be damaged comes last, with at most a quarter of what a run may read. It is told without being read, and it has no proof until
//! it is healed: it would be read first by every run, and where there is much of it nothing else would be read any more.

use std::cmp::Reverse;

use crate::catalog::{KnownCopy, PackNo};
use crate::clock::Timestamp;

const DAY: i64 = 24 * 3600;
/// What was proven so short a time ago counts for the same day: a run may begin a little earlier than the day before.
const SAME_DAY: i64 = 23 * 3600;

/// Of what a run may read, one part in so many is for what is known to be damaged.
const BAD_PART: u64 = 4;

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
    /// In how many days all of so many bytes is read; `None` if never.
    pub fn days_for(&self, bytes: u64) -> Option<u64> {
        let days = u64::from(self.days.max(1));
        match self.bytes_a_day {
            None => Some(days),
            Some(0) => None,
            Some(most) => Some(days.max(bytes.div_ceil(most))),
        }
    }
}

/// The packs to read, in the order in which that is done: first what was never proven, then the oldest proof, and last what is known to be damaged.
pub fn choose(mut copies: Vec<KnownCopy>, wanted: Wanted, now: Timestamp) -> Vec<PackNo> {
    // What was proven later than now was proven by a clock that has been put right: when it was is not known.
    for copy in copies.iter_mut().filter(|copy| copy.proven.is_some_and(|at| at > now)) {
        copy.proven = None;
    }
    // Of what nobody read the newest first: it has no copy elsewhere yet, most likely.
    copies.sort_unstable_by_key(|copy| (copy.proven, Reverse(copy.pack)));
    let ago = |at: Timestamp| now.seconds.saturating_sub(at.seconds);
    let total: u64 = copies.iter().map(|copy| copy.len).sum();
    let today = copies.iter().filter(|copy| copy.proven.is_some_and(|at| ago(at) < SAME_DAY));
    let mut read = match wanted {
        Wanted::Due(_) => today.map(|copy| copy.len).sum(),
        Wanted::Bytes(_) | Wanted::All => 0_u64,
    };
    let most = wanted.most();
    let (bad, sound): (Vec<KnownCopy>, Vec<KnownCopy>) = copies.into_iter().partition(|copy| copy.bad);
    let kept_for_bad = bad.iter().map(|copy| copy.len).sum::<u64>().min(most / BAD_PART);
    let mut chosen = Vec::new();
    for (copies, most) in [(sound, most.saturating_sub(kept_for_bad)), (bad, most)] {
        for copy in copies {
            // One that is longer than all that may be read would never be read else.
            let may_be = most > 0 && (read == 0 || read.saturating_add(copy.len) <= most);
            let is_wanted = match wanted {
                Wanted::All | Wanted::Bytes(_) => true,
                Wanted::Due(terms) => is_due(&copy, &terms, (read, total), &ago),
            };
            if !(may_be && is_wanted) {
                break;
            }
            read = read.saturating_add(copy.len);
            chosen.push(copy.pack);
        }
    }
    chosen
}

/// Whether a copy is due after `read` bytes of the `total` were read today.
fn is_due(
    copy: &KnownCopy,
    terms: &Terms,
    (read, total): (u64, u64),
    ago: &dyn Fn(Timestamp) -> i64,
) -> bool {
    let days = terms.days.max(1);
    let is_late = copy.proven.is_none_or(|at| ago(at) >= i64::from(days) * DAY);
    let is_its_turn =
        read < total.div_ceil(u64::from(days)) && copy.proven.is_none_or(|at| ago(at) >= SAME_DAY);
    is_late || is_its_turn
}

#[cfg(test)]
mod tests {
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
        assert_eq!(chosen(&copies, due(60, None)), [62, 61, 1]);
        assert_eq!(chosen(&copies, due(31, None))[..3], [62, 61, 1]);
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
        assert_eq!(chosen(&copies, due(30, Some(40 * MIB))).len(), 2);
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
        assert_eq!(days(Some(MIB), 100 * MIB + 1), Some(101));
        assert_eq!(days(Some(0), 1), None);
    }
}
