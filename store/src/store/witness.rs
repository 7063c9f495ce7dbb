//! Whether a vault is still what it was: what it shows is held against what this machine remembers of it (`memory.rs`), and against what other
//! writers say in their sessions that they saw there. Why it is so: `docs/decisions/vault-memory.md`.
//!
//! It rests on one rule. A point that was once in a vault is there for ever, at the attempt at which it was seen or at a later one, or the word
//! that it was forgotten stands there. Whoever removes one on purpose puts that, and nobody removes a revocation. So what is missing without
//! that word was taken away by somebody else, however long this machine was away. That an attempt was silent is no such word: a collector says
//! so of any session without a point, also of one whose point was taken away.
//!
//! What contradicts this is told and remembered, and stops neither a restore nor a backup; a push goes on as well, for it puts back what
//! is missing. What a listing shows costs no request; each thing that seems wrong is asked for once more before it is told.

mod accept;
mod alarm;
mod compare;
mod expected;
mod memory;
mod reading;

pub use accept::{Accepted, Lost};
pub use alarm::{Alarm, AlarmKind};
pub use expected::Expected;
#[doc(hidden)]
pub use memory::recall_bytes;
pub(crate) use memory::{Known, Memory};
pub(super) use reading::SESSIONS_OF_NEWEST;
pub(crate) use reading::what_is_another;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::PoisonError;

use super::{Outcomes, Store, learn};
use crate::catalog::{PointLine, PointRow, VaultNo};
use crate::error::StoreError;
use crate::fence::Revocation;
use crate::id::{Attempt, ObjectHash, SlotId, SourceTag};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::point::codec::MAX_HEADS;
use crate::point::{Head, Sight};
use crate::transfer::Transfer;
use crate::vault::ObjectInfo;

/// Points of this machine's own sources that somebody else put there, which a look reads.
const STRANGERS_READ: usize = 64;
/// Of revocations that find no room in the memory.
const BEYOND: &str = "revocations are beyond what this machine remembers of it outside its catalog: keep catalog.db, for should it be lost, \
     nothing here tells if what they took away comes back";

/// What was known of a vault before it was listed: others push meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Before {
    memory: Memory,
    there: Vec<Known>,
    /// Attempts that are revoked, by the memory, which outlives a catalog, or by the catalog, which knows all that was read since it was made.
    revoked: HashSet<Attempt>,
}

impl Before {
    /// Whether this machine remembers nothing of the vault.
    pub(crate) fn is_fresh(&self) -> bool {
        self.memory.is_empty()
    }
}

/// What a look knows beside the listing.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// What sessions say that their writers saw.
    pub witnessed: Vec<Head>,
    /// What who read objects found.
    pub alarms: Vec<Alarm>,
    /// Whether all was read that is read to find such: what was found so before, and is not found now, is over.
    pub is_read: bool,
    /// Packs that were there and are not.
    pub packs_missed: usize,
}

impl Store {
    fn address_of(&self, no: VaultNo) -> String {
        self.catalog.vault_address(no)
    }

    /// What this machine remembers of a vault.
    pub(crate) fn recall(&self, no: VaultNo) -> Result<Memory, StoreError> {
        let copy = self.catalog.remembered(no)?.and_then(|blob| Memory::of_blob(&blob));
        Ok(memory::recall(&self.dir, *self.id(), &self.address_of(no), copy))
    }

    /// Changes that, in both places. A file that cannot be written is no reason to stop.
    fn remember(&self, no: VaultNo, change: impl FnOnce(&mut Memory)) -> Result<(), StoreError> {
        if self.read_only {
            return Ok(());
        }
        let blob = self.catalog.remembered(no)?;
        let copy = blob.as_deref().and_then(Memory::of_blob);
        let now = match memory::change(&self.dir, *self.id(), &self.address_of(no), copy, change) {
            Ok(now) => now,
            Err(e) => {
                tracing::warn!("{e}: what was seen of vault {} is not remembered", self.address_of(no));
                return Ok(());
            }
        };
        let now = now.to_blob();
        if blob.as_deref() != Some(&now) {
            self.catalog.set_remembered(no, &now)?;
        }
        Ok(())
    }

    /// Notes that this machine itself brought a point into a vault.
    pub(crate) fn remember_pushed(
        &self,
        no: VaultNo,
        line: &PointLine,
        hash: [u8; 32],
        attempt: &Attempt,
    ) -> Result<(), StoreError> {
        let known = Known { attempt: attempt.number, ..known_of(line, hash) };
        self.remember(no, |memory| {
            memory.own.insert(known.tag);
            memory.missing.remove(&known.id);
            memory.advance(known);
        })
    }

    /// Notes that a key slot was removed from a vault on purpose: should it be there again, that is told.
    pub fn remember_slot_removed(&self, no: VaultNo, slot: SlotId) -> Result<(), StoreError> {
        self.remember(no, |memory| memory.slots.extend([(slot, true)]))
    }

    /// Remembers the key slots that a vault shows, and tells of each that was removed there and that this machine does not have either.
    pub(crate) fn remember_slots(
        &self,
        no: VaultNo,
        shown: &BTreeSet<SlotId>,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Alarm>, StoreError> {
        let before = self.recall(no)?;
        let ours: HashSet<SlotId> = Self::head(&self.dir)?.slots.into_iter().map(|(id, _)| id).collect();
        let was_gone = |id: &&SlotId| before.slots.get(id).is_some_and(|gone| *gone);
        let back: Vec<&SlotId> = shown.iter().filter(was_gone).filter(|id| !ours.contains(id)).collect();
        let alarms = back.iter().map(|id| {
            let detail = format!("key slot {id} was removed there, and is there again");
            Alarm::new(AlarmKind::SlotReplayed, id.hex(), detail)
        });
        let alarms: Vec<Alarm> = alarms.collect();
        alarms.iter().try_for_each(|alarm| self.raise(no, alarm.clone(), monitor))?;
        let is_back = |id: &SlotId| back.contains(&id);
        let goes_on = |alarm: &Alarm| {
            alarm.kind != AlarmKind::SlotReplayed || back.iter().any(|id| id.hex() == alarm.subject)
        };
        let is_new = |id: &&SlotId| before.slots.get(id).is_none_or(|gone| *gone) && !is_back(id);
        let anew = shown.iter().any(|id| is_new(&id));
        let went = before.slots.iter().any(|(id, gone)| !gone && !shown.contains(id));
        if !anew && !went && before.alarms.iter().all(goes_on) {
            return Ok(alarms);
        }
        self.remember(no, |memory| {
            memory.alarms.retain(goes_on);
            for (id, gone) in &mut memory.slots {
                *gone |= !shown.contains(id);
            }
            for id in shown.iter().filter(|id| !is_back(id)) {
                memory.slots.insert(*id, false);
            }
        })?;
        Ok(alarms)
    }

    /// Forgets what was seen of a vault that is none of this store's any more, or is made anew.
    pub fn forget_memory_of(&self, address: &str) -> Result<(), StoreError> {
        let known = self.catalog.vaults()?.into_iter().find(|vault| vault.1 == address);
        known.map_or(Ok(()), |(no, _)| self.catalog.forget_remembered(no))?;
        memory::forget(&self.dir, *self.id(), address)
    }

    /// Notes that a point is taken here, before it is there. It may be forgotten while it is on its way into a vault, and come there all the
    /// same. What cannot be noted is no reason to stop.
    pub(super) fn remember_taken(&self, row: &PointRow) {
        let line = PointLine { id: row.id, tag: row.tag, sequence: row.sequence, started: row.started };
        memory::note_taken(&self.dir, *self.id(), known_of(&line, row.hash)).unwrap_or_else(|e| {
            tracing::warn!("{e}: that recovery point {} is taken is not remembered", row.id.short());
        });
    }

    /// Sequence number and hash of the newest point of a source that was ever taken here, or seen in a vault. What is numbered after it is
    /// never numbered twice, be the point forgotten, the catalog lost and the vault away.
    pub fn newest_remembered(&self, tag: &SourceTag) -> Option<(u64, [u8; 32])> {
        memory::newest_of(&self.dir, *self.id(), tag).map(|known| (known.sequence, known.hash.0))
    }

    /// Makes sure that what comes next of a source can be numbered. A recovery that was cut off leaves a store that knows no point and remembers
    /// none, and what it took would pass for the first of its source.
    ///
    /// # Errors
    /// `Invalid` in such a store, until the points of a vault were read.
    pub fn prove_numbered(&self, tag: &SourceTag) -> Result<(), StoreError> {
        if !self.is_adopted() || self.vaults.is_empty() || self.newest_remembered(tag).is_some() {
            return Ok(());
        }
        for (no, _, _) in &self.vaults {
            if self.catalog.knows_all_in(*no)? {
                return Ok(());
            }
        }
        let addresses: Vec<_> = self.vaults.iter().map(|vault| vault.1.as_str()).collect();
        Err(StoreError::invalid(format!(
            "this store was recovered from a vault, and the recovery points there were never read to their end: a new one would pass for the \
             first of its source. See that {} can be reached, then run this again",
            addresses.join(" or ")
        )))
    }

    /// What a session says of the vault that it goes into. Where nothing is to say it is as sessions always were.
    pub(crate) fn sight(
        &self,
        no: VaultNo,
        tag: &SourceTag,
        attempt: &Attempt,
    ) -> Result<Option<Sight>, StoreError> {
        let memory = self.recall(no)?;
        // Of too many, each source's sessions name others.
        let from_own = memory.heads.range(tag..).chain(memory.heads.range(..tag));
        let head = |known: &Known| Head {
            source: known.tag,
            point: known.id,
            sequence: known.sequence,
            hash: known.hash,
        };
        let heads: Vec<Head> = from_own.take(MAX_HEADS).map(|(_, known)| head(known)).collect();
        let says_nothing = heads.is_empty() && attempt.number == 0;
        Ok((!says_nothing).then_some(Sight { attempt: attempt.number, heads }))
    }

    /// What stands of a vault since the last look at it.
    pub fn alarms(&self, no: VaultNo) -> Result<Vec<Alarm>, StoreError> {
        Ok(self.recall(no)?.alarms)
    }

    /// Of the vaults that were met since the store was opened: what those that this machine never saw before could be held against, and what
    /// cannot be told, for people.
    pub fn first_looks(&self) -> Vec<String> {
        self.first_looks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known of a vault before it is listed.
    pub(crate) fn before(&self, no: VaultNo) -> Result<Before, StoreError> {
        let lines = self.catalog.lines_in(no)?;
        let known = |(line, hash): (PointLine, [u8; 32])| {
            let attempt = self.catalog.seen_at(no, &line.id)?;
            Ok(Known { attempt, ..known_of(&line, hash) })
        };
        let there = lines.into_iter().map(known).collect::<Result<_, StoreError>>()?;
        let (memory, mut revoked) = (self.recall(no)?, self.catalog.revoked_in(no)?);
        revoked.extend(memory.all_revoked().filter_map(|text| Attempt::from_text(text)));
        Ok(Before { memory, there, revoked })
    }

    /// Notes whether the config that a vault shows, of this store, is the one with which it was made. It never changes.
    pub(super) fn note_config(&self, transfer: &Transfer, config: &[u8]) {
        let mut strange = self.strange_configs.lock().unwrap_or_else(PoisonError::into_inner);
        if config == self.config_object {
            strange.remove(&transfer.address());
        } else {
            strange.insert(transfer.address());
        }
    }

    /// Whether it is another one.
    pub(super) fn is_strange(&self, transfer: &Transfer) -> bool {
        let strange = self.strange_configs.lock().unwrap_or_else(PoisonError::into_inner);
        strange.contains(&transfer.address())
    }

    /// Remembers what is wrong with a vault that was not looked at further.
    pub(crate) fn raise(&self, no: VaultNo, alarm: Alarm, monitor: &dyn Monitor) -> Result<(), StoreError> {
        if self.recall(no)?.accepted.contains(&alarm.key()) {
            return Ok(());
        }
        let alarm = Alarm { since: self.clock.now().seconds, ..alarm };
        self.tell_alarms(no, std::slice::from_ref(&alarm), monitor);
        self.remember(no, |memory| {
            if !memory.alarms.iter().any(|known| known.key() == alarm.key()) {
                memory.alarms.insert(0, alarm);
            }
        })
    }

    /// Remembers what somebody found who tells of nothing: the next look tells it.
    pub(super) fn note_alarms(&self, no: VaultNo, alarms: Vec<Alarm>) -> Result<(), StoreError> {
        if alarms.is_empty() {
            return Ok(());
        }
        let since = self.clock.now().seconds;
        self.remember(no, |memory| {
            for alarm in alarms.into_iter().map(|alarm| Alarm { since, ..alarm }) {
                let is_known = memory.alarms.iter().any(|known| known.key() == alarm.key());
                if !is_known && !memory.accepted.contains(&alarm.key()) {
                    memory.alarms.insert(0, alarm);
                }
            }
        })
    }

    /// Tells each alarm once, as long as the store is open.
    pub(crate) fn tell_alarms(&self, no: VaultNo, alarms: &[Alarm], monitor: &dyn Monitor) {
        let address = self.address_of(no);
        for alarm in alarms {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.insert((no, alarm.key())) {
                let path = format!("vault {address}").into_bytes();
                monitor.event(Event::Problem { path, reason: alarm.sentence(&address) });
            }
        }
    }

    /// Holds what a vault shows against what is remembered of it, and remembers what it shows. What is wrong is told.
    pub(crate) fn look_back(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        before: &Before,
        shown: &[ObjectInfo],
        mut evidence: Evidence,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Alarm>, StoreError> {
        let (outcomes, attempts) = (Outcomes::of(shown), attempts_in(shown));
        self.read_strangers(no, transfer, before, &attempts)?;
        if !evidence.is_read {
            let known: HashSet<_> = before.there.iter().map(|known| known.id).collect();
            evidence.alarms.extend(self.writer_alarms(no, |id| !known.contains(id))?);
        }
        let look = compare::LookBack { store: self, no, transfer, before, outcomes, attempts, evidence };
        let seen = look.see()?;
        // Whether a slot is still there, who lists slots tells.
        let of_points = |alarm: &&Alarm| alarm.kind != AlarmKind::SlotReplayed;
        let told: Vec<Alarm> = seen.alarms.iter().filter(of_points).cloned().collect();
        self.tell_alarms(no, &told, monitor);
        let alarms = seen.alarms.clone();
        let mut beyond = 0;
        self.remember(no, |memory| beyond = seen.keep_in(memory))?;
        self.doubt_what_is_missed(no)?;
        self.tell_of_bound(no, beyond);
        Ok(alarms)
    }

    /// A catalog that was made anew does not know which points a vault lost. Those that are here are sent again.
    fn doubt_what_is_missed(&self, no: VaultNo) -> Result<(), StoreError> {
        let noted = self.incomplete_in(no)?;
        let rows = self.catalog.known_of(self.recall(no)?.missing.keys())?.into_iter();
        let unknown = rows.filter(|row| !row.vaults.contains(&no) && !noted.contains(&row.id));
        self.doubt_points(no, &unknown.map(|row| row.id).collect::<Vec<_>>())
    }

    /// Tells, once as long as the store is open, that there are revocations which the catalog alone knows.
    fn tell_of_bound(&self, no: VaultNo, beyond: usize) {
        let key = (no, BEYOND.to_owned());
        if beyond == 0 || !self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
            return;
        }
        let told = format!("vault {}: {beyond} {BEYOND}", self.address_of(no));
        tracing::warn!("{told}");
        self.first_looks.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    /// Learns the points of sources of this machine that it did not bring there itself: on an ordinary day there are none.
    fn read_strangers(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        before: &Before,
        attempts: &HashMap<(SourceTag, Attempt), u64>,
    ) -> Result<(), StoreError> {
        let mut strangers = Vec::new();
        for ((tag, attempt), len) in attempts {
            let of_own = *len != Revocation::LEN && before.memory.own.contains(tag);
            if of_own && self.catalog.damaged_point(&attempt.point)?.is_none() {
                strangers.push((*tag, *attempt));
            }
        }
        strangers.sort();
        strangers.truncate(STRANGERS_READ);
        learn::learn_strangers(self, no, transfer, &strangers)
    }
}

/// Length of what lies where an attempt puts its point.
fn attempts_in(shown: &[ObjectInfo]) -> HashMap<(SourceTag, Attempt), u64> {
    shown.iter().filter_map(|object| Some((names::outcome_of(&object.name)?, object.len))).collect()
}

fn known_of(line: &PointLine, hash: [u8; 32]) -> Known {
    Known { id: line.id, tag: line.tag, sequence: line.sequence, hash: ObjectHash(hash), attempt: 0 }
}
