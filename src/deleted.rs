//! Points that a person deleted and whose time to come back is not over ([soft delete](https://learn.microsoft.com/azure/backup/backup-azure-security-feature-cloud)):
//! they are all there, and go when it is. Which they are stands in a small file in the store's directory. That it is lost brings them back.
//!
//! A clock may be wrong, and what went does not come back: a point goes when its time was over already for a run that was most of a day before. So
//! a jump ahead takes nothing unless it lasts, and a clock that is right lets go at most a day later.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::store::StoredPoint;
use serde::{Deserialize, Serialize};

use crate::outcome::Failure;
use crate::small_file::SmallFile;

const FILE: SmallFile = SmallFile { name: "deleted.json", lock: "lock.deleted" };
/// Most points that can be deleted and not gone: what the file may be long.
const DELETED_MAX: usize = 2000;
/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;
/// So many seconds before it goes a run found the time of a point over: less than a day, or who runs once a day would wait for two.
const FOUND_BEFORE: i64 = 20 * 60 * 60;
/// Of runs that are fewer seconds apart than this one is noted.
const LOOKS_APART: i64 = 60 * 60;

/// A point that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Its id in hexadecimal.
    id: String,
    /// When it was deleted, in seconds since 1970.
    at: i64,
    /// From when on it goes.
    until: i64,
}

#[derive(Default, Serialize, Deserialize)]
struct Entries {
    #[serde(default)]
    deleted: Vec<Entry>,
    /// When runs looked what is due, in seconds since 1970, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    looks: Vec<i64>,
}

/// Those of a store, and from when on each goes.
#[derive(Debug, Default)]
pub struct Deleted {
    goes: BTreeMap<RecoveryPointId, Timestamp>,
    looks: Vec<i64>,
}

impl Deleted {
    /// Those of the store in a directory; none if they cannot be read, which is told.
    pub fn load(store: &Path) -> Self {
        let entries: Option<Entries> = FILE.load(store);
        if entries.is_none() && store.join(FILE.name).exists() {
            tracing::warn!("{} cannot be read: what was deleted softly counts as not deleted", FILE.name);
        }
        let entries = entries.unwrap_or_default();
        let read = |entry: Entry| {
            Some((RecoveryPointId::from_hex(&entry.id)?, Timestamp::from_seconds(entry.until)))
        };
        Self { goes: entries.deleted.into_iter().filter_map(read).collect(), looks: entries.looks }
    }

    /// From when on a point goes, if it was deleted.
    pub fn goes(&self, id: &RecoveryPointId) -> Option<Timestamp> {
        self.goes.get(id).copied()
    }

    /// All of them.
    pub fn ids(&self) -> impl Iterator<Item = RecoveryPointId> {
        self.goes.keys().copied()
    }

    /// Points without those that were deleted.
    pub fn leave_out(&self, mut points: Vec<StoredPoint>) -> Vec<StoredPoint> {
        points.retain(|stored| !self.goes.contains_key(&stored.point.id));
        points
    }

    /// Those whose time is over, and was for a run before.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = RecoveryPointId> {
        let before = now.seconds.saturating_sub(FOUND_BEFORE);
        let found = self.looks.iter().copied().filter(|at| *at <= before).max();
        self.over(found)
    }

    /// How many there are whose time is over, due or not.
    pub fn count_over(&self, now: Timestamp) -> usize {
        self.over(Some(now.seconds)).count()
    }

    fn over(&self, by: Option<i64>) -> impl Iterator<Item = RecoveryPointId> {
        let is_over = move |until: &Timestamp| by.is_some_and(|by| until.seconds <= by);
        self.goes.iter().filter(move |(_, until)| is_over(until)).map(|(id, _)| *id)
    }
}

/// Notes that a run looks what is due.
pub fn look(store: &Path, now: Timestamp) -> Result<(), Failure> {
    let known = Deleted::load(store);
    if known.goes.is_empty() || looks_with(&known.looks, now.seconds) == known.looks {
        return Ok(());
    }
    FILE.change(store, |entries: &mut Entries| {
        entries.looks = looks_with(&entries.looks, now.seconds);
        Ok(())
    })
}

/// Those that lie ahead are of a clock that was wrong; of those that are long ago the last one says all.
fn looks_with(looks: &[i64], now: i64) -> Vec<i64> {
    let mut kept: Vec<i64> = looks.iter().copied().filter(|at| *at <= now).collect();
    kept.sort_unstable();
    if kept.last().is_none_or(|last| now.saturating_sub(*last) >= LOOKS_APART) {
        kept.push(now);
    }
    let before = now.saturating_sub(FOUND_BEFORE);
    let long_ago = kept.iter().filter(|at| **at <= before).count();
    kept.split_off(long_ago.saturating_sub(1))
}

/// Deletes points, which go after so many days; one that was deleted goes when it was to go. Which of them go from when on.
pub fn delete<'a>(
    store: &Path,
    ids: impl Iterator<Item = &'a RecoveryPointId>,
    days: u16,
    now: Timestamp,
) -> Result<BTreeMap<Timestamp, Vec<RecoveryPointId>>, Failure> {
    let until = now.seconds.saturating_add(i64::from(days) * DAY);
    change(store, ids, (until, now.seconds), |entry| entry)
}

/// Deletes points that cannot go before a moment; one that was deleted and was to go earlier goes then.
pub fn delete_until<'a>(
    store: &Path,
    ids: impl Iterator<Item = &'a RecoveryPointId>,
    until: Timestamp,
    now: Timestamp,
) -> Result<BTreeMap<Timestamp, Vec<RecoveryPointId>>, Failure> {
    change(store, ids, (until.seconds, now.seconds), |entry| entry.max(until.seconds))
}

/// `again`: when one goes that was deleted before and was to go at a moment.
fn change<'a>(
    store: &Path,
    ids: impl Iterator<Item = &'a RecoveryPointId>,
    (until, now): (i64, i64),
    again: impl Fn(i64) -> i64,
) -> Result<BTreeMap<Timestamp, Vec<RecoveryPointId>>, Failure> {
    let mut going: BTreeMap<_, Vec<_>> = BTreeMap::new();
    FILE.change(store, |entries: &mut Entries| {
        for id in ids {
            let hex = id.hex();
            let until = match entries.deleted.iter_mut().find(|entry| entry.id == hex) {
                Some(entry) => {
                    entry.until = again(entry.until);
                    entry.until
                }
                None => {
                    entries.deleted.push(Entry { id: hex, at: now, until });
                    until
                }
            };
            going.entry(Timestamp::from_seconds(until)).or_default().push(*id);
        }
        match entries.deleted.len() > DELETED_MAX {
            true => {
                Err(Failure::failed(format!("more than {DELETED_MAX} points are deleted and not gone yet"))
                    .hint("--now removes points at once; `holdfast prune` removes those whose time is over"))
            }
            false => Ok(()),
        }
    })?;
    Ok(going)
}

/// Brings points back, or forgets those that are gone; which of them were deleted.
pub fn take_back(store: &Path, ids: &[RecoveryPointId]) -> Result<Vec<RecoveryPointId>, Failure> {
    let mut back = Vec::new();
    FILE.change(store, |entries: &mut Entries| {
        entries.deleted.retain(|entry| {
            let found = ids.iter().find(|id| id.hex() == entry.id);
            back.extend(found);
            found.is_none()
        });
        Ok(())
    })?;
    Ok(back)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(n: u8) -> RecoveryPointId {
        RecoveryPointId([n; 16])
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn a_point_goes_days_after_it_was_deleted_and_that_does_not_change_when_it_is_deleted_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Deleted::load(dir.path()).ids().count(), 0);
        let first = at(100 + 14 * 86400);
        assert_eq!(delete(dir.path(), [id(1)].iter(), 14, at(100)).unwrap(), [(first, vec![id(1)])].into());
        let again = delete(dir.path(), [id(1), id(2)].iter(), 1, at(500)).unwrap();
        assert_eq!(again, [(first, vec![id(1)]), (at(500 + 86400), vec![id(2)])].into());
        let deleted = Deleted::load(dir.path());
        assert_eq!(deleted.goes(&id(1)), Some(at(100 + 14 * 86400)));
        assert_eq!(deleted.goes(&id(3)), None);
        assert_eq!([500 + 86400 - 1, 500 + 86400].map(|now| deleted.count_over(at(now))), [0, 1]);
        assert_eq!(take_back(dir.path(), &[id(2), id(3)]).unwrap(), [id(2)]);
        assert_eq!(Deleted::load(dir.path()).ids().collect::<Vec<_>>(), [id(1)]);
    }

    #[test]
    fn one_jump_of_the_clock_takes_nothing_and_a_right_one_lets_go_a_day_later_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let goes = |now: i64| {
            look(dir.path(), at(now)).unwrap();
            Deleted::load(dir.path()).due(at(now)).collect::<Vec<_>>()
        };
        assert_eq!(goes(7 * DAY), []);
        assert!(!dir.path().join(FILE.name).exists(), "there is nothing to look for");
        let (begun, hour) = (10 * DAY, DAY / 24);
        delete(dir.path(), [id(1)].iter(), 14, at(begun)).unwrap();
        let until = begun + 14 * DAY;
        // A year ahead, for some hours, and back; and ahead once more.
        for now in [begun + hour, begun + 365 * DAY, begun + 365 * DAY + 19 * hour, begun + DAY] {
            assert_eq!(goes(now), [], "{now}");
        }
        for now in [begun + 366 * DAY, begun + 2 * DAY, 0, until - 1] {
            assert_eq!(goes(now), [], "{now}");
        }
        // From now on it is right, and runs are as often as they like.
        assert_eq!((Deleted::load(dir.path()).count_over(at(until)), goes(until + 1)), (1, vec![]));
        for minutes in (10..20 * 60).step_by(10) {
            assert_eq!(goes(until + 60 * minutes), [], "{minutes}");
        }
        assert_eq!(goes(until + 22 * hour), [id(1)]);
        assert!(Deleted::load(dir.path()).looks.len() < 30);
    }

    #[test]
    fn who_runs_once_a_day_and_not_to_the_minute_waits_for_one_day_more() {
        let dir = tempfile::tempdir().unwrap();
        delete(dir.path(), [id(1)].iter(), 1, at(100)).unwrap();
        for (now, expected) in [(DAY, vec![]), (2 * DAY + 300, vec![]), (3 * DAY, vec![id(1)])] {
            look(dir.path(), at(now)).unwrap();
            assert_eq!(Deleted::load(dir.path()).due(at(now)).collect::<Vec<_>>(), expected, "{now}");
        }
    }

    #[test]
    fn a_point_that_turns_out_to_be_locked_for_longer_goes_later_and_never_sooner() {
        let dir = tempfile::tempdir().unwrap();
        delete(dir.path(), [id(1)].iter(), 1, at(0)).unwrap();
        for (locked, goes) in [(5 * DAY, 5 * DAY), (2 * DAY, 5 * DAY)] {
            delete_until(dir.path(), [id(1)].iter(), at(locked), at(DAY)).unwrap();
            assert_eq!(Deleted::load(dir.path()).goes(&id(1)), Some(at(goes)));
        }
    }

    #[test]
    fn more_than_the_file_may_hold_are_not_deleted_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let many: Vec<_> = (0..=DELETED_MAX as u32)
            .map(|n| RecoveryPointId([n.to_le_bytes(), [7; 4], [7; 4], [7; 4]].concat().try_into().unwrap()))
            .collect();
        delete(dir.path(), many.iter(), 14, at(0)).unwrap_err();
        assert_eq!(Deleted::load(dir.path()).ids().count(), 0);
        delete(dir.path(), many[1..].iter(), 14, at(0)).unwrap();
        let deleted = Deleted::load(dir.path());
        assert_eq!(deleted.ids().count(), DELETED_MAX);
    }

    #[test]
    fn a_file_that_cannot_be_read_deletes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        delete(dir.path(), [id(1)].iter(), 14, at(0)).unwrap();
        std::fs::write(dir.path().join(FILE.name), "{\"deleted\": 7}").unwrap();
        assert_eq!(Deleted::load(dir.path()).ids().count(), 0);
        let text = "{\"deleted\": [{\"id\": \"zz\", \"at\": 1, \"until\": 1}]}";
        std::fs::write(dir.path().join(FILE.name), text).unwrap();
        assert_eq!(Deleted::load(dir.path()).ids().count(), 0);
    }
}
