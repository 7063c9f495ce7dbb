//! Points that a person deleted and whose time to come back is not over ([soft delete](https://learn.microsoft.com/azure/backup/backup-azure-security-feature-cloud)):
//! they are all there, and go when it is. Which they are stands in a small file in the store's directory. That it is lost brings them back.

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
}

/// Those of a store, and from when on each goes.
#[derive(Debug, Default)]
pub struct Deleted(BTreeMap<RecoveryPointId, Timestamp>);

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
        Self(entries.deleted.into_iter().filter_map(read).collect())
    }

    /// From when on a point goes, if it was deleted.
    pub fn goes(&self, id: &RecoveryPointId) -> Option<Timestamp> {
        self.0.get(id).copied()
    }

    /// All of them.
    pub fn ids(&self) -> impl Iterator<Item = RecoveryPointId> {
        self.0.keys().copied()
    }

    /// Points without those that were deleted.
    pub fn leave_out(&self, mut points: Vec<StoredPoint>) -> Vec<StoredPoint> {
        points.retain(|stored| !self.0.contains_key(&stored.point.id));
        points
    }

    /// Those whose time is over.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = RecoveryPointId> {
        self.0.iter().filter(move |(_, until)| **until <= now).map(|(id, _)| *id)
    }
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
        assert_eq!(Deleted::load(dir.path()).due(at(i64::MAX)).count(), 0);
        let first = at(100 + 14 * 86400);
        assert_eq!(delete(dir.path(), [id(1)].iter(), 14, at(100)).unwrap(), [(first, vec![id(1)])].into());
        let again = delete(dir.path(), [id(1), id(2)].iter(), 1, at(500)).unwrap();
        assert_eq!(again, [(first, vec![id(1)]), (at(500 + 86400), vec![id(2)])].into());
        let deleted = Deleted::load(dir.path());
        assert_eq!(deleted.goes(&id(1)), Some(at(100 + 14 * 86400)));
        assert_eq!(deleted.goes(&id(3)), None);
        assert_eq!(deleted.due(at(500 + 86400 - 1)).count(), 0);
        assert_eq!(deleted.due(at(500 + 86400)).collect::<Vec<_>>(), [id(2)]);
        assert_eq!(take_back(dir.path(), &[id(2), id(3)]).unwrap(), [id(2)]);
        assert_eq!(Deleted::load(dir.path()).due(at(i64::MAX)).collect::<Vec<_>>(), [id(1)]);
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
        assert_eq!(Deleted::load(dir.path()).due(at(i64::MAX)).count(), 0);
        delete(dir.path(), many[1..].iter(), 14, at(0)).unwrap();
        let deleted = Deleted::load(dir.path());
        assert_eq!(deleted.due(at(i64::MAX)).count(), DELETED_MAX);
    }

    #[test]
    fn a_file_that_cannot_be_read_deletes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        delete(dir.path(), [id(1)].iter(), 14, at(0)).unwrap();
        std::fs::write(dir.path().join(FILE.name), "{\"deleted\": 7}").unwrap();
        assert_eq!(Deleted::load(dir.path()).due(at(i64::MAX)).count(), 0);
        let text = "{\"deleted\": [{\"id\": \"zz\", \"at\": 1, \"until\": 1}]}";
        std::fs::write(dir.path().join(FILE.name), text).unwrap();
        assert_eq!(Deleted::load(dir.path()).due(at(i64::MAX)).count(), 0);
    }
}
