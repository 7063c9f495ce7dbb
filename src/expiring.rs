//! Points that expiry by the configuration let go of and that a vault keeps locked: they go when their locks have run out, so `prune` does not lock them
//! anew. Which they are stands in a small file in the store's directory. That it is lost locks them once more.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use holdfast_store::id::RecoveryPointId;
use serde::{Deserialize, Serialize};

use crate::outcome::Failure;
use crate::small_file::SmallFile;

const FILE: SmallFile = SmallFile { name: "expiring.json", lock: "lock.expiring" };
/// Most of them, as the file is bounded. Others are locked anew, and go after some of these.
const EXPIRING_MAX: usize = 5000;

#[derive(Default, Serialize, Deserialize)]
struct Entries {
    /// Their ids in hexadecimal.
    #[serde(default)]
    expiring: BTreeSet<String>,
}

/// Those of the store in a directory; none if they cannot be read.
pub fn load(store: &Path) -> HashSet<RecoveryPointId> {
    let entries: Entries = FILE.load(store).unwrap_or_default();
    entries.expiring.iter().filter_map(|id| RecoveryPointId::from_hex(id)).collect()
}

/// Of the points that expiry has just `judged`, these are `locked` and go later; the others stay, or went.
pub fn note(
    store: &Path,
    judged: &BTreeSet<RecoveryPointId>,
    locked: impl IntoIterator<Item = RecoveryPointId>,
) -> Result<(), Failure> {
    let locked: BTreeSet<_> = locked.into_iter().collect();
    let known = load(store);
    if locked.iter().all(|id| known.contains(id))
        && !known.iter().any(|id| judged.contains(id) && !locked.contains(id))
    {
        return Ok(());
    }
    FILE.change(store, |entries: &mut Entries| {
        let is_judged = |hex: &str| RecoveryPointId::from_hex(hex).is_none_or(|id| judged.contains(&id));
        entries.expiring.retain(|hex| !is_judged(hex));
        let room = EXPIRING_MAX.saturating_sub(entries.expiring.len());
        entries.expiring.extend(locked.iter().take(room).map(RecoveryPointId::hex));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ids(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<RecoveryPointId> {
        let id =
            |n: u32| RecoveryPointId([n.to_le_bytes(), [7; 4], [7; 4], [7; 4]].concat().try_into().unwrap());
        numbers.into_iter().map(id).collect()
    }

    fn noted(dir: &Path) -> BTreeSet<RecoveryPointId> {
        load(dir).into_iter().collect()
    }

    #[test]
    fn what_expiry_passes_over_is_noted_until_expiry_keeps_it_or_it_went() {
        let dir = tempfile::tempdir().unwrap();
        note(dir.path(), &ids(1..5), []).unwrap();
        assert!(!dir.path().join(FILE.name).exists(), "there is nothing to say");
        note(dir.path(), &ids(1..5), ids([1, 2])).unwrap();
        // Of another group nobody said anything.
        note(dir.path(), &ids(7..9), ids([7])).unwrap();
        assert_eq!(noted(dir.path()), ids([1, 2, 7]));
        note(dir.path(), &ids(1..5), ids([2, 3])).unwrap();
        assert_eq!(noted(dir.path()), ids([2, 3, 7]));
    }

    #[test]
    fn the_file_is_bounded_and_what_cannot_be_read_notes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        note(dir.path(), &BTreeSet::new(), ids(0..7000)).unwrap();
        assert_eq!(load(dir.path()).len(), EXPIRING_MAX, "and it can be read");
        std::fs::write(dir.path().join(FILE.name), "{\"expiring\": 7}").unwrap();
        assert_eq!(noted(dir.path()), ids([]));
        note(dir.path(), &ids([]), ids([1])).unwrap();
        assert_eq!(noted(dir.path()), ids([1]));
    }
}
