//! When something that opens the store was last proven to open it, and each vault by what lies there: a small file in the store's directory,
//! which is replaced as a whole. It is for people; that it is lost costs another `key verify`.

use std::path::Path;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::SlotId;
use serde::{Deserialize, Serialize};

use crate::outcome::Failure;
use crate::small_file::SmallFile;

const FILE: SmallFile = SmallFile { name: "proven.json", lock: "lock.proven" };
/// Proofs that are kept: those of 32 slots in 16 places.
const KEPT: usize = 512;

/// That a slot was opened with what its owner has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The slot's id in hexadecimal.
    pub slot: String,
    /// Address of the vault whose own copy it was; nothing of the store's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<String>,
    /// When, in seconds since 1970.
    pub at: i64,
}

#[derive(Default, Serialize, Deserialize)]
struct Proofs {
    #[serde(default)]
    proven: Vec<Proof>,
}

/// The proofs of a store; none if they cannot be read.
pub fn load(store: &Path) -> Vec<Proof> {
    FILE.load(store).map(|proofs: Proofs| proofs.proven).unwrap_or_default()
}

/// The newest proof of a slot, in whatever place.
pub fn newest<'a>(proofs: &'a [Proof], slot: &SlotId) -> Option<&'a Proof> {
    let slot = slot.hex();
    proofs.iter().filter(|proof| proof.slot == slot).max_by_key(|proof| proof.at)
}

/// Puts down that a slot was proven in these places (none for the store itself), each instead of what was known of it there.
pub fn note(store: &Path, slot: &SlotId, places: &[Option<String>], now: Timestamp) -> Result<(), Failure> {
    let slot = slot.hex();
    FILE.change(store, |proofs: &mut Proofs| {
        let proven = &mut proofs.proven;
        proven.retain(|proof| proof.slot != slot || !places.contains(&proof.vault));
        let new =
            places.iter().map(|vault| Proof { slot: slot.clone(), vault: vault.clone(), at: now.seconds });
        proven.extend(new);
        proven.sort_by_key(|proof| proof.at);
        proven.drain(..proven.len().saturating_sub(KEPT));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::small_file::FILE_MAX;

    const ONE: SlotId = SlotId([1; 16]);
    const TWO: SlotId = SlotId([2; 16]);

    fn note_at(dir: &Path, slot: &SlotId, vault: Option<&str>, at: i64) {
        note(dir, slot, &[vault.map(str::to_owned)], Timestamp::from_seconds(at)).unwrap();
    }

    #[test]
    fn the_newest_proof_of_each_slot_and_place_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), []);
        note_at(dir.path(), &ONE, None, 10);
        note_at(dir.path(), &ONE, Some("/v"), 30);
        note_at(dir.path(), &ONE, None, 20);
        note_at(dir.path(), &TWO, Some("/v"), 40);
        let proofs = load(dir.path());
        assert_eq!(proofs.len(), 3);
        let of_one = newest(&proofs, &ONE).unwrap();
        assert_eq!((of_one.at, of_one.vault.as_deref()), (30, Some("/v")));
        assert_eq!(newest(&proofs, &TWO).unwrap().at, 40);
        assert!(newest(&proofs, &SlotId([3; 16])).is_none());
    }

    #[test]
    fn what_is_no_such_file_counts_for_nothing_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&b"nonsense"[..], b"[]", &[b' '; (FILE_MAX + 1) as usize]] {
            std::fs::write(dir.path().join(FILE.name), bytes).unwrap();
            assert_eq!(load(dir.path()), []);
        }
        note_at(dir.path(), &ONE, None, 10);
        assert_eq!(load(dir.path()).len(), 1);
        (0..600).for_each(|n| note_at(dir.path(), &TWO, Some(&format!("/{n}")), n));
        assert_eq!(load(dir.path()).len(), KEPT);
    }
}
