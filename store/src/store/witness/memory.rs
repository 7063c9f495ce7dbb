//! What this machine saw of each vault, kept where the vault cannot reach it: in the file `witness.json` of the store's directory, and once
//! more in the catalog. Either may be lost or set back to an older state; what both say together only grows.
//!
//! The file is replaced as a whole: temporary name, sync, rename, sync of the directory, under a lock that everybody holds for a moment.
//! Its first line is the hash of the rest, so that a flipped bit raises no alarm. It names sources by their keyed tags, and no files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::alarm::Alarm;
use crate::error::StoreError;
use crate::id::{ObjectHash, RecoveryPointId, SlotId, SourceTag, VaultId};
use crate::staging::{DiskFiles, Files, give_up_reserve};
use crate::store::StoreLock;

/// Its name.
const FILE: &str = "witness.json";
/// What replaces it, until it does.
const NEW: &str = "witness.json.new";
/// Longest one that is read.
const LIMIT: u64 = 64 << 20;
/// Sources of which the newest point is remembered for a vault; of more than that, those that came first.
const HEADS_MAX: usize = 16_384;
/// Points that are missing in a vault.
const MISSING_MAX: usize = 4_096;
/// Attempts of which it was seen that they are revoked: so many of own sources, and so many more of any; of more than that, those that came
/// first. The catalog knows all of them.
const REVOKED_MAX: usize = 16_384;
/// Key slots.
const SLOTS_MAX: usize = 256;
/// Alarms that somebody accepted.
const ACCEPTED_MAX: usize = 16_384;
/// Alarms that stand.
pub(super) const ALARMS_MAX: usize = 256;

/// A point that was seen in a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// The point.
    pub id: RecoveryPointId,
    /// Its source.
    pub tag: SourceTag,
    /// Its sequence number.
    pub sequence: u64,
    /// Hash of its object.
    pub hash: ObjectHash,
    /// The last attempt at which it was seen.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// What was seen of one vault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    /// The newest point of each source.
    pub heads: BTreeMap<SourceTag, Known>,
    /// Sources of which this machine itself brought points there.
    pub own: BTreeSet<SourceTag>,
    /// Points that were there and are not, while nothing says that they were removed on purpose.
    pub missing: BTreeMap<RecoveryPointId, Known>,
    /// Attempts that were seen to be revoked, as their names say them.
    pub revoked: BTreeSet<String>,
    /// The same of own sources: what others revoke, however much, takes none of their room.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked_own: BTreeSet<String>,
    /// Key slots that were seen, and whether they were gone after that.
    pub slots: BTreeMap<SlotId, bool>,
    /// Number of the newest generation of reclaim.
    pub generation: u64,
    /// Keys of alarms that somebody accepted.
    pub accepted: BTreeSet<String>,
    /// What the last look found.
    pub alarms: Vec<Alarm>,
}

impl Memory {
    /// Whether nothing was seen of the vault.
    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.missing.is_empty()
    }

    /// Takes a point for the newest of its source, unless a newer one was seen.
    pub(crate) fn advance(&mut self, known: Known) {
        let is_full = self.heads.len() >= HEADS_MAX;
        match self.heads.get_mut(&known.tag) {
            Some(head) if (head.sequence, head.id) <= (known.sequence, known.id) => {
                let attempt =
                    if head.id == known.id { head.attempt.max(known.attempt) } else { known.attempt };
                *head = Known { attempt, ..known };
            }
            None if !is_full => drop(self.heads.insert(known.tag, known)),
            _ => {}
        }
    }

    /// All attempts that are remembered to be revoked.
    pub(super) fn all_revoked(&self) -> impl Iterator<Item = &String> {
        self.revoked.iter().chain(&self.revoked_own)
    }

    /// Remembers that an attempt is revoked; `false` if there is no room for it.
    pub(super) fn note_revoked(&mut self, attempt: String, is_own: bool) -> bool {
        if self.revoked.contains(&attempt) || self.revoked_own.contains(&attempt) {
            return true;
        }
        let of_own = is_own && self.revoked_own.len() < REVOKED_MAX;
        let among = if of_own { &mut self.revoked_own } else { &mut self.revoked };
        among.len() < REVOKED_MAX && among.insert(attempt)
    }

    /// Forgets of some attempts that they are revoked.
    pub(super) fn forget_revoked(&mut self, attempts: &BTreeSet<String>) {
        self.revoked.retain(|text| !attempts.contains(text));
        self.revoked_own.retain(|text| !attempts.contains(text));
    }

    /// What two copies say together.
    fn merge(&mut self, other: Self) {
        other.heads.into_values().for_each(|known| self.advance(known));
        self.own.extend(other.own);
        self.missing.extend(other.missing);
        for (revoked, is_own) in [(other.revoked_own, true), (other.revoked, false)] {
            for attempt in revoked {
                self.note_revoked(attempt, is_own);
            }
        }
        for (slot, gone) in other.slots {
            *self.slots.entry(slot).or_default() |= gone;
        }
        self.generation = self.generation.max(other.generation);
        self.accepted.extend(other.accepted);
        for alarm in other.alarms {
            if !self.alarms.iter().any(|known| known.key() == alarm.key()) {
                self.alarms.push(alarm);
            }
        }
        self.bound();
    }

    /// Lets go of what is beyond the bounds.
    fn bound(&mut self) {
        while self.own.len() > HEADS_MAX {
            self.own.pop_last();
        }
        while self.missing.len() > MISSING_MAX {
            self.missing.pop_last();
        }
        while self.slots.len() > SLOTS_MAX {
            self.slots.pop_last();
        }
        while self.accepted.len() > ACCEPTED_MAX {
            self.accepted.pop_last();
        }
        self.alarms.truncate(ALARMS_MAX);
    }

    /// As the catalog keeps it.
    pub(super) fn to_blob(&self) -> Vec<u8> {
        with_sum(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Nothing if it is damaged.
    pub(super) fn of_blob(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(without_sum(bytes)?).ok()
    }
}

/// What was seen of all vaults, by their addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    store: VaultId,
    vaults: BTreeMap<String, Memory>,
    /// Of each source the newest point that was taken here.
    #[serde(default)]
    taken: BTreeMap<SourceTag, Known>,
}

impl File {
    fn new(store: VaultId) -> Self {
        Self { store, vaults: BTreeMap::new(), taken: BTreeMap::new() }
    }
}

/// The file, as it was read.
enum Read {
    /// None, or one that is damaged: the catalog's copy has to do.
    Nothing,
    /// One that a newer program wrote, or of another store: it stays as it is.
    Foreign,
    Whole(File),
}

/// What is remembered of the vault of this address; `copy` is what the catalog keeps of it.
pub(super) fn recall(dir: &Path, store: VaultId, address: &str, copy: Option<Memory>) -> Memory {
    let mut memory = match read(dir, store) {
        Read::Whole(mut file) => file.vaults.remove(address).unwrap_or_default(),
        Read::Nothing | Read::Foreign => Memory::default(),
    };
    copy.into_iter().for_each(|copy| memory.merge(copy));
    memory
}

/// The same as bytes, with the catalog's copy as bytes, too: for whoever throws any bytes at it.
pub fn recall_bytes(dir: &Path, store: VaultId, address: &str, copy: Option<&[u8]>) -> Vec<u8> {
    recall(dir, store, address, copy.and_then(Memory::of_blob)).to_blob()
}

/// Notes that a point is taken here.
pub(super) fn note_taken(dir: &Path, store: VaultId, known: Known) -> Result<(), StoreError> {
    let _lock = StoreLock::wait(dir, "lock.witness")?;
    let mut file = match read(dir, store) {
        Read::Whole(file) => file,
        Read::Nothing => File::new(store),
        Read::Foreign => return Ok(()),
    };
    let newest = file.taken.get(&known.tag).map_or(0, |newest| newest.sequence);
    let has_room = newest > 0 || file.taken.len() < HEADS_MAX;
    if known.sequence <= newest || !has_room {
        return Ok(());
    }
    file.taken.insert(known.tag, known);
    save(dir, &file)
}

/// Of a source the newest point that was taken here, or seen in any vault.
pub(super) fn newest_of(dir: &Path, store: VaultId, tag: &SourceTag) -> Option<Known> {
    let Read::Whole(file) = read(dir, store) else { return None };
    let heads = file.vaults.values().filter_map(|memory| memory.heads.get(tag));
    heads.chain(file.taken.get(tag)).max_by_key(|known| (known.sequence, known.id)).copied()
}

/// Lets `change` change what is remembered of a vault, and keeps that durably. What is remembered now, which the catalog keeps as well: alone,
/// if the file cannot be written.
pub(super) fn change(
    dir: &Path,
    store: VaultId,
    address: &str,
    copy: Option<Memory>,
    change: impl FnOnce(&mut Memory),
) -> Result<Memory, StoreError> {
    let _lock = StoreLock::wait(dir, "lock.witness")?;
    let before = read(dir, store);
    let mut file = match &before {
        Read::Whole(file) => file.clone(),
        Read::Nothing | Read::Foreign => File::new(store),
    };
    let memory = file.vaults.entry(address.to_owned()).or_default();
    copy.into_iter().for_each(|copy| memory.merge(copy));
    change(memory);
    memory.bound();
    let now = memory.clone();
    let is_same = match &before {
        Read::Whole(before) => *before == file,
        // Another program's: the catalog alone remembers.
        Read::Foreign => true,
        Read::Nothing => now == Memory::default(),
    };
    if !is_same {
        save(dir, &file).unwrap_or_else(|e| {
            tracing::warn!("{e}: the catalog alone knows what was seen of vault {address}")
        });
    }
    Ok(now)
}

/// Forgets a vault that is none of the store's any more.
pub(super) fn forget(dir: &Path, store: VaultId, address: &str) -> Result<(), StoreError> {
    let _lock = StoreLock::wait(dir, "lock.witness")?;
    let Read::Whole(mut file) = read(dir, store) else { return Ok(()) };
    if file.vaults.remove(address).is_some() {
        save(dir, &file)?;
    }
    Ok(())
}

fn read(dir: &Path, store: VaultId) -> Read {
    let path = dir.join(FILE);
    let read = match std::fs::metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Read::Nothing,
        Ok(meta) if !meta.is_file() || meta.len() > LIMIT => Err(ErrorKind::InvalidData.into()),
        meta => meta.and_then(|_| std::fs::read(&path)),
    };
    let Some(text) = read.as_deref().ok().and_then(without_sum) else {
        tracing::warn!("{}: it is damaged, or cannot be read; the catalog's copy is used", path.display());
        return Read::Nothing;
    };
    match serde_json::from_slice::<File>(text) {
        Ok(file) if file.store == store => Read::Whole(file),
        // Copied along with a directory, say.
        Ok(_) => Read::Nothing,
        Err(e) => {
            tracing::warn!("{}: {e}; a newer program wrote it, and it stays as it is", path.display());
            Read::Foreign
        }
    }
}

fn with_sum(text: Vec<u8>) -> Vec<u8> {
    [blake3::hash(&text).to_hex().as_bytes(), b"\n", &text].concat()
}

fn without_sum(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = bytes.split_at_checked(64)?;
    let text = rest.strip_prefix(b"\n")?;
    (sum == blake3::hash(text).to_hex().as_bytes()).then_some(text)
}

fn save(dir: &Path, file: &File) -> Result<(), StoreError> {
    let text = with_sum(serde_json::to_vec(file).map_err(|e| StoreError::invalid(e.to_string()))?);
    let files = DiskFiles::new(dir);
    let is_full = |e: &std::io::Error| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    let written = replace(&files, &text);
    let again = written.as_ref().is_err_and(is_full) && give_up_reserve(dir);
    if again { replace(&files, &text) } else { written }.map_err(StoreError::io("write", &dir.join(FILE)))
}

fn replace(files: &dyn Files, text: &[u8]) -> std::io::Result<()> {
    // Of a run that was cut off, or a trap.
    match files.remove(NEW) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    files.write_synced(NEW, text)?;
    files.rename(NEW, FILE)?;
    files.sync_dir("")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::staging::{Fault, FaultyFiles};

    const STORE: VaultId = VaultId([7; 16]);

    fn known(tag: u8, sequence: u64) -> Known {
        let (tag, id) = (SourceTag([tag; 16]), RecoveryPointId([sequence as u8; 16]));
        Known { id, tag, sequence, hash: ObjectHash([sequence as u8; 32]), attempt: 0 }
    }

    fn see(dir: &Path, address: &str, seen: Known) -> Memory {
        change(dir, STORE, address, None, |memory| memory.advance(seen)).unwrap()
    }

    #[test]
    fn what_was_seen_is_remembered_by_vault_and_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recall(dir.path(), STORE, "/v", None), Memory::default());
        see(dir.path(), "/v", known(1, 5));
        see(dir.path(), "/v", known(2, 1));
        see(dir.path(), "/w", known(1, 2));
        see(dir.path(), "/v", known(1, 4));
        let head = |address| recall(dir.path(), STORE, address, None).heads[&SourceTag([1; 16])].sequence;
        assert_eq!((head("/v"), head("/w")), (5, 2));
        let newest = || newest_of(dir.path(), STORE, &SourceTag([1; 16]));
        assert_eq!(newest(), Some(known(1, 5)));
        for (taken, expected) in [(7, 7), (4, 7), (8, 8)] {
            note_taken(dir.path(), STORE, known(1, taken)).unwrap();
            assert_eq!(newest(), Some(known(1, expected)));
        }
        forget(dir.path(), STORE, "/v").unwrap();
        assert!(recall(dir.path(), STORE, "/v", None).is_empty());
        assert_eq!(head("/w"), 2);
    }

    #[test]
    fn either_copy_makes_up_for_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let older = see(dir.path(), "/v", known(1, 5));
        let newer = see(dir.path(), "/v", known(1, 6));
        let file = dir.path().join(FILE);
        let copy = || Memory::of_blob(&newer.to_blob());
        assert_eq!(copy().unwrap(), newer);
        for damage in [None, Some(0), Some(70)] {
            match damage {
                None => std::fs::remove_file(&file).unwrap(),
                Some(at) => {
                    see(dir.path(), "/v", known(1, 6));
                    let mut bytes = std::fs::read(&file).unwrap();
                    bytes[at] ^= 1;
                    std::fs::write(&file, bytes).unwrap();
                    assert!(recall(dir.path(), STORE, "/v", None).is_empty(), "{at}");
                }
            }
            assert_eq!(recall(dir.path(), STORE, "/v", copy()), newer);
        }
        // The catalog was put back from a copy.
        see(dir.path(), "/v", known(1, 6));
        assert_eq!(recall(dir.path(), STORE, "/v", Some(older)).heads, newer.heads);
        let mut blob = newer.to_blob();
        blob[80] ^= 1;
        assert_eq!(Memory::of_blob(&blob), None);
    }

    #[test]
    fn a_fault_at_any_change_of_the_file_leaves_the_old_one_or_the_new_one() {
        let heads = |dir: &Path| recall(dir, STORE, "/v", None).heads.len();
        for fault in [Fault::Once(ErrorKind::Other), Fault::ForEver(ErrorKind::StorageFull), Fault::Crash] {
            for n in 0.. {
                let dir = tempfile::tempdir().unwrap();
                see(dir.path(), "/v", known(1, 5));
                let Read::Whole(mut file) = read(dir.path(), STORE) else { panic!("it is there") };
                file.vaults.get_mut("/v").unwrap().advance(known(2, 6));
                let text = with_sum(serde_json::to_vec(&file).unwrap());
                let faulty = FaultyFiles::new(Arc::new(DiskFiles::new(dir.path())));
                faulty.fail_at(n, fault);
                let written = replace(&faulty, &text);
                let there = heads(dir.path());
                assert!(there == 2 || there == 1 && written.is_err(), "{fault:?} at {n}: {there}");
                see(dir.path(), "/v", known(3, 7));
                assert_eq!(heads(dir.path()), there + 1, "{fault:?} at {n}");
                assert!(!dir.path().join(NEW).exists(), "{fault:?} at {n}");
                if !faulty.struck() {
                    assert!(written.is_ok() && n > 2, "each change was one that failed");
                    break;
                }
            }
        }
    }

    #[test]
    fn what_a_newer_program_wrote_or_another_store_is_not_taken_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let newer = with_sum(b"{\"store\":1}".to_vec());
        std::fs::write(&file, &newer).unwrap();
        see(dir.path(), "/v", known(1, 1));
        assert_eq!(std::fs::read(&file).unwrap(), newer, "it stays");
        std::fs::remove_file(&file).unwrap();
        see(dir.path(), "/v", known(1, 1));
        assert!(recall(dir.path(), VaultId([8; 16]), "/v", None).is_empty());
    }

    #[test]
    fn nothing_is_lost_when_several_remember_at_once_and_nothing_grows_without_bound() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let dir = dir.path();
                scope.spawn(move || see(dir, "/v", known(n, 1)));
            }
        });
        assert_eq!(recall(dir.path(), STORE, "/v", None).heads.len(), 8);
        let mut memory = Memory::default();
        memory.accepted.extend((0..ACCEPTED_MAX + 9).map(|n| n.to_string()));
        memory.bound();
        assert_eq!(memory.accepted.len(), ACCEPTED_MAX);
    }

    #[test]
    fn what_others_revoke_however_much_takes_no_room_of_what_was_remembered_nor_of_own_sources() {
        let mut memory = Memory::default();
        let late = |n: usize| format!("f{n}");
        assert!(memory.note_revoked(late(0), false));
        let has_room = (0..REVOKED_MAX + 9).filter(|n| memory.note_revoked(format!("0{n}"), false)).count();
        assert_eq!(has_room, REVOKED_MAX - 1);
        assert!(memory.revoked.contains(&late(0)), "it came first");
        assert!(memory.note_revoked(late(0), false), "it is remembered");
        assert!((1..=REVOKED_MAX).all(|n| memory.note_revoked(late(n), true)));
        assert!(!memory.note_revoked(late(REVOKED_MAX + 1), true));
        assert_eq!(memory.all_revoked().count(), 2 * REVOKED_MAX);
        // A copy from before says the same, and another one no more than there is room for.
        let before = memory.clone();
        memory.merge(before.clone());
        assert_eq!(memory, before);
        let mut other = Memory::default();
        assert!((0..99).all(|n| other.note_revoked(format!("a{n}"), n % 2 == 0)));
        memory.merge(other);
        assert_eq!(memory, before);
        memory.forget_revoked(&[late(0), late(1)].into());
        assert_eq!((memory.revoked.len(), memory.revoked_own.len()), (REVOKED_MAX - 1, REVOKED_MAX - 1));
        assert_eq!(Memory::of_blob(&memory.to_blob()), Some(memory));
    }
}
