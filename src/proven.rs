//! When something that opens the store was last proven to open it, and each vault by what lies there: a small file in the store's directory,
//! which is replaced as a whole. It is for people; that it is lost costs another `key verify`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::SlotId;
use serde::{Deserialize, Serialize};

use crate::outcome::Failure;

const FILE: &str = "proven.json";
const LOCK: &str = "lock.proven";
/// A file of more bytes is something else.
const FILE_MAX: u64 = 256 << 10;
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
    let read = || {
        let mut bytes = Vec::new();
        // A pipe in its place would wait for a writer.
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(store.join(FILE)).ok()?;
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= FILE_MAX).then(|| serde_json::from_slice::<Proofs>(&bytes).ok())?
    };
    read().map(|proofs| proofs.proven).unwrap_or_default()
}

/// The newest proof of a slot, in whatever place.
pub fn newest<'a>(proofs: &'a [Proof], slot: &SlotId) -> Option<&'a Proof> {
    let slot = slot.hex();
    proofs.iter().filter(|proof| proof.slot == slot).max_by_key(|proof| proof.at)
}

/// Puts down that a slot was proven in these places (none for the store itself), each instead of what was known of it there.
pub fn note(store: &Path, slot: &SlotId, places: &[Option<String>], now: Timestamp) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("write", &store.join(FILE), &error);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    // Whoever may write there could have it lead elsewhere, or wait for ever.
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let lock = options.custom_flags(flags.bits()).open(store.join(LOCK));
    let lock = lock.map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut proofs = load(store);
    let slot = slot.hex();
    proofs.retain(|proof| proof.slot != slot || !places.contains(&proof.vault));
    let new = places.iter().map(|vault| Proof { slot: slot.clone(), vault: vault.clone(), at: now.seconds });
    proofs.extend(new);
    proofs.sort_by_key(|proof| proof.at);
    let proven = proofs.split_off(proofs.len().saturating_sub(KEPT));
    let text = serde_json::to_vec_pretty(&Proofs { proven }).map_err(|e| Failure::failed(e.to_string()))?;
    replace(store, &text).map_err(failed)
}

fn replace(store: &Path, text: &[u8]) -> std::io::Result<()> {
    let (path, temp) = (store.join(FILE), store.join(format!("{FILE}.new")));
    // Whatever lies there is of a run that was cut off.
    match std::fs::remove_file(&temp) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&temp, &path)?;
    File::open(store)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
            std::fs::write(dir.path().join(FILE), bytes).unwrap();
            assert_eq!(load(dir.path()), []);
        }
        note_at(dir.path(), &ONE, None, 10);
        assert_eq!(load(dir.path()).len(), 1);
        (0..600).for_each(|n| note_at(dir.path(), &TWO, Some(&format!("/{n}")), n));
        assert_eq!(load(dir.path()).len(), KEPT);
    }
}
