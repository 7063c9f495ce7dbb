//! Whether a vault is still what it was: what it shows is held against what this machine remembers of it (`memory.rs`), and against what other
//! writers say in their sessions that they saw there. Why it is so: `docs/decisions/vault-memory.md`.
//!
//! It rests on one rule. A point that was once in a vault is there for ever, at the attempt at which it was seen or at a later one, or a
//! revocation stands there. Whoever removes one on purpose puts that, and nobody removes a revocation. So only what is missing without that
//! word was taken away by somebody else, however long this machine was away.
//!
//! What contradicts this is told and remembered, and stops neither a restore nor a backup; a push goes on as well, for it puts back what
//! is missing. What a listing shows costs no request; each thing that seems wrong is asked for once more before it is told.

mod accept;
mod alarm;
mod memory;
mod reading;

pub use accept::{Accepted, Lost};
pub use alarm::{Alarm, AlarmKind};
pub(crate) use memory::{Known, Memory};
pub(super) use reading::SESSIONS_OF_NEWEST;
pub(crate) use reading::what_is_another;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::PoisonError;

use super::{Outcomes, Store, learn};
use crate::catalog::{Mark, PointLine, VaultNo};
use crate::error::StoreError;
use crate::fence::Revocation;
use crate::id::{Attempt, ObjectHash, RecoveryPointId, SlotId, SourceTag};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::point::codec::MAX_HEADS;
use crate::point::{Head, Sight};
use crate::transfer::Transfer;
use crate::vault::ObjectInfo;

/// Missing points that are asked for once more by a look; of further ones the listing is believed.
const ASKED_AGAIN: usize = 64;
/// Points of this machine's own sources that somebody else put there, which a look reads.
const STRANGERS_READ: usize = 64;
/// Points that the detail of an alarm names.
const NAMED: usize = 5;

/// What was known of a vault before it was listed: others push meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Before {
    memory: Memory,
    there: Vec<Known>,
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

/// What became of a point that was seen in a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    There,
    /// Somebody removed it on purpose.
    Removed,
    Missing,
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

    /// Changes that, in both places. A disk that takes nothing is no reason to stop.
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
    pub(super) fn remember_slots(
        &self,
        no: VaultNo,
        shown: &BTreeSet<SlotId>,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        let before = self.recall(no)?;
        let ours: HashSet<SlotId> = Self::head(&self.dir)?.slots.into_iter().map(|(id, _)| id).collect();
        let was_gone = |id: &&SlotId| before.slots.get(id).is_some_and(|gone| *gone);
        let back: Vec<&SlotId> = shown.iter().filter(was_gone).filter(|id| !ours.contains(id)).collect();
        for id in &back {
            let detail = format!("key slot {id} was removed there, and is there again");
            self.raise(no, Alarm::new(AlarmKind::SlotReplayed, id.hex(), detail), monitor)?;
        }
        let is_back = |id: &SlotId| back.contains(&id);
        let goes_on = |alarm: &Alarm| {
            alarm.kind != AlarmKind::SlotReplayed || back.iter().any(|id| id.hex() == alarm.subject)
        };
        let is_new = |id: &&SlotId| before.slots.get(id).is_none_or(|gone| *gone) && !is_back(id);
        let anew = shown.iter().any(|id| is_new(&id));
        let went = before.slots.iter().any(|(id, gone)| !gone && !shown.contains(id));
        if !anew && !went && before.alarms.iter().all(goes_on) {
            return Ok(());
        }
        self.remember(no, |memory| {
            memory.alarms.retain(goes_on);
            for (id, gone) in &mut memory.slots {
                *gone |= !shown.contains(id);
            }
            for id in shown.iter().filter(|id| !is_back(id)) {
                memory.slots.insert(*id, false);
            }
        })
    }

    /// Forgets what was seen of a vault that is none of this store's any more, or is made anew.
    pub fn forget_memory_of(&self, address: &str) -> Result<(), StoreError> {
        let known = self.catalog.vaults()?.into_iter().find(|vault| vault.1 == address);
        known.map_or(Ok(()), |(no, _)| self.catalog.forget_remembered(no))?;
        memory::forget(&self.dir, *self.id(), address)
    }

    /// Sequence number and hash of the newest point of a source that was ever seen in a vault. What is numbered after it is never
    /// numbered twice, be the catalog lost and the vault away.
    pub fn newest_remembered(&self, tag: &SourceTag) -> Option<(u64, [u8; 32])> {
        memory::newest_of(&self.dir, *self.id(), tag).map(|known| (known.sequence, known.hash.0))
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

    /// What is known of a vault before it is listed.
    pub(crate) fn before(&self, no: VaultNo) -> Result<Before, StoreError> {
        let lines = self.catalog.lines_in(no)?;
        let known = |(line, hash): (PointLine, [u8; 32])| {
            let attempt = self.catalog.seen_at(no, &line.id)?;
            Ok(Known { attempt, ..known_of(&line, hash) })
        };
        let there = lines.into_iter().map(known).collect::<Result<_, StoreError>>()?;
        Ok(Before { memory: self.recall(no)?, there })
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
        evidence: Evidence,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Alarm>, StoreError> {
        let (outcomes, attempts) = (Outcomes::of(shown), attempts_in(shown));
        self.read_strangers(no, transfer, before, &attempts)?;
        let look = LookBack { store: self, no, transfer, before, outcomes, attempts, evidence };
        let seen = look.see()?;
        self.tell_alarms(no, &seen.alarms, monitor);
        let alarms = seen.alarms.clone();
        self.remember(no, |memory| seen.keep_in(memory))?;
        Ok(alarms)
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

/// One look.
struct LookBack<'a> {
    store: &'a Store,
    no: VaultNo,
    transfer: &'a Transfer,
    before: &'a Before,
    outcomes: Outcomes,
    attempts: HashMap<(SourceTag, Attempt), u64>,
    evidence: Evidence,
}

/// What it came to.
struct SeenBack {
    alarms: Vec<Alarm>,
    missing: BTreeMap<RecoveryPointId, Known>,
    there: Vec<Known>,
    removed: HashSet<RecoveryPointId>,
    revoked: BTreeSet<String>,
    generation: u64,
}

impl SeenBack {
    fn keep_in(self, memory: &mut Memory) {
        memory.heads.retain(|_, known| !self.removed.contains(&known.id));
        self.there.into_iter().for_each(|known| memory.advance(known));
        memory.missing = self.missing;
        memory.revoked.extend(self.revoked);
        memory.generation = memory.generation.max(self.generation);
        memory.alarms = self.alarms;
    }
}

impl LookBack<'_> {
    fn see(self) -> Result<SeenBack, StoreError> {
        let catalog = self.store.catalog();
        let candidates = self.candidates();
        let (mut missing, mut removed) = (BTreeMap::new(), HashSet::new());
        let accepted = &self.before.memory.accepted;
        for known in candidates.values() {
            match self.state(known, missing.len())? {
                State::There => {}
                State::Missing if !accept::is_accepted(accepted, &known.id) => {
                    missing.insert(known.id, *known);
                }
                State::Removed | State::Missing => drop(removed.insert(known.id)),
            }
        }
        let now = catalog.lines_in(self.no)?;
        let is_shown = |known: &Known| self.is_there(&known.tag, &known.id);
        let there = now.iter().map(|(line, hash)| known_of(line, *hash)).filter(is_shown);
        let there: Vec<Known> = there.map(|known| self.at_attempt(known)).collect();
        let generation = catalog.generations(self.no)?.last().map_or(0, |(number, _)| *number);
        let mut alarms = self.missing_alarms(&missing, &there);
        alarms.extend(self.replayed());
        alarms.extend(forks(&there, &catalog.point_lines()?));
        alarms.extend(self.of_config());
        alarms.extend(self.of_reading());
        alarms.retain(|alarm| !accepted.contains(&alarm.key()));
        alarms.sort_by(|a, b| (a.kind, &a.subject).cmp(&(b.kind, &b.subject)));
        alarms.dedup_by(|a, b| a.key() == b.key());
        alarms.truncate(memory::ALARMS_MAX);
        alarms.iter_mut().for_each(|alarm| alarm.since = self.since(alarm));
        let revoked = catalog.revoked_in(self.no)?.iter().map(ToString::to_string).collect();
        Ok(SeenBack { alarms, missing, there, removed, revoked, generation })
    }

    /// All points of which somebody says that they were there: this machine's memory, its catalog, and other writers.
    fn candidates(&self) -> BTreeMap<RecoveryPointId, Known> {
        let memory = &self.before.memory;
        let mut all = BTreeMap::new();
        let witnessed = self.evidence.witnessed.iter().map(|head| Known {
            id: head.point,
            tag: head.source,
            sequence: head.sequence,
            hash: head.hash,
            attempt: 0,
        });
        let remembered = memory.heads.values().chain(memory.missing.values()).chain(&self.before.there);
        for known in witnessed.chain(remembered.copied()) {
            let attempt = all.get(&known.id).map_or(0, |other: &Known| other.attempt);
            all.insert(known.id, Known { attempt: attempt.max(known.attempt), ..known });
        }
        all
    }

    fn is_there(&self, tag: &SourceTag, id: &RecoveryPointId) -> bool {
        self.outcomes.at(tag, id).iter().any(|(_, len)| *len != Revocation::LEN)
    }

    fn at_attempt(&self, known: Known) -> Known {
        let held = self.outcomes.at(&known.tag, &known.id).iter();
        let last = held.filter(|(_, len)| *len != Revocation::LEN).map(|(attempt, _)| attempt.number).max();
        Known { attempt: last.unwrap_or(known.attempt), ..known }
    }

    /// What became of a point. One that the listing does not account for is asked for once more, unless that was done for many.
    fn state(&self, known: &Known, asked: usize) -> Result<State, StoreError> {
        if self.is_there(&known.tag, &known.id) {
            return Ok(State::There);
        }
        for (attempt, _) in self.outcomes.at(&known.tag, &known.id) {
            let name = (&known.tag, attempt);
            // By the catalog, or it is read.
            let is_known = || Ok::<_, StoreError>(self.store.catalog().is_revoked(self.no, attempt)?);
            let is_new_enough = attempt.number >= known.attempt;
            if is_new_enough
                && (is_known()? || self.store.look_for_revocation(self.no, self.transfer, name)?.is_some())
            {
                return Ok(State::Removed);
            }
        }
        if self.store.catalog().has_mark(Mark::Going(Some(self.no), known.id))? {
            return Ok(State::Removed);
        }
        if asked >= ASKED_AGAIN {
            return Ok(State::Missing);
        }
        let next = self.store.next_attempt(self.no, self.transfer, (&known.tag, &known.id))?;
        Ok(match next.attempt {
            Some(_) if next.ended => State::There,
            Some(attempt) if attempt.number > known.attempt => State::Removed,
            None => State::Removed,
            Some(_) => State::Missing,
        })
    }

    /// Points that are gone, each by itself or, where it is an older state of all, together.
    fn missing_alarms(&self, missing: &BTreeMap<RecoveryPointId, Known>, there: &[Known]) -> Vec<Alarm> {
        let mut newest: HashMap<SourceTag, u64> = HashMap::new();
        for known in there {
            let newest = newest.entry(known.tag).or_default();
            *newest = known.sequence.max(*newest);
        }
        let is_withheld = |known: &Known| newest.get(&known.tag).is_none_or(|at| *at < known.sequence);
        let of = |known: &Known| {
            let (kind, what) = match is_withheld(known) {
                true => {
                    (AlarmKind::PointWithheld, "is not shown, and is newer than all of its source that are")
                }
                false => {
                    (AlarmKind::PointRemoved, "is gone, and nothing says that it was removed on purpose")
                }
            };
            let (id, number) = (known.id.short(), known.sequence);
            Alarm::new(
                kind,
                known.id.hex(),
                format!("recovery point {id} (number {number} of its source) {what}"),
            )
        };
        let alone: Vec<(Alarm, &Known)> = missing.values().map(|known| (of(known), known)).collect();
        let marks = self.marks_gone();
        let withheld = alone.iter().filter(|(alarm, _)| alarm.kind == AlarmKind::PointWithheld);
        let withheld: Vec<&Known> = withheld.map(|(_, known)| *known).collect();
        let sources: HashSet<SourceTag> = withheld.iter().map(|known| known.tag).collect();
        let is_older = marks > 0
            || withheld.len() > 1 && alone.len() > 1 && (sources.len() > 1 || withheld.len() == alone.len())
            || !withheld.is_empty() && self.evidence.packs_missed > 0;
        if !is_older {
            return alone.into_iter().map(|(alarm, _)| alarm).collect();
        }
        vec![self.rolled_back(&alone, marks)]
    }

    fn rolled_back(&self, alone: &[(Alarm, &Known)], marks: usize) -> Alarm {
        let mut gone = Vec::new();
        if !alone.is_empty() {
            let ids: Vec<String> = alone.iter().take(NAMED).map(|(_, known)| known.id.short()).collect();
            let more = alone.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            gone.push(format!("recovery points {}{more}", ids.join(", ")));
        }
        if self.evidence.packs_missed > 0 {
            gone.push(format!("{} packs", self.evidence.packs_missed));
        }
        if marks > 0 {
            gone.push(format!("{marks} of the objects that say that something was removed on purpose"));
        }
        let detail = format!("it does not show any more what it showed before: {}", gone.join(", "));
        Alarm::new(AlarmKind::VaultRolledBack, "", detail)
    }

    /// Revocations that were there and are not, though nothing removes them.
    fn marks_gone(&self) -> usize {
        let there: HashSet<Attempt> = self.attempts.keys().map(|(_, attempt)| *attempt).collect();
        let Memory { revoked, accepted, .. } = &self.before.memory;
        let known = revoked.iter().filter(|text| !accepted.contains(&accept::mark_key(text)));
        known.filter_map(|text| Attempt::from_text(text)).filter(|attempt| !there.contains(attempt)).count()
    }

    /// Points that are there again in the place of a revocation.
    fn replayed(&self) -> Vec<Alarm> {
        let held = self.attempts.iter().filter(|(_, len)| **len != Revocation::LEN).map(|((_, at), _)| *at);
        let back = held.filter(|attempt| self.before.memory.revoked.contains(&attempt.to_string()));
        let alarm = |attempt: Attempt| {
            let id = attempt.point.short();
            let detail = format!("recovery point {id}, which was removed there on purpose, is there again");
            Alarm::new(AlarmKind::PointReplayed, attempt.to_string(), detail)
        };
        back.map(alarm).collect()
    }

    fn of_config(&self) -> Option<Alarm> {
        self.store.is_strange(self.transfer).then(|| {
            let detail = "the config there is not the one with which the store was made: it is damaged, or was exchanged";
            Alarm::new(AlarmKind::ConfigSwapped, "", detail)
        })
    }

    /// What reading found now, or found before and nobody read since; and what slots showed.
    fn of_reading(&self) -> Vec<Alarm> {
        let mut alarms = self.evidence.alarms.clone();
        let stays = |alarm: &&Alarm| {
            let of_slot = alarm.kind == AlarmKind::SlotReplayed;
            of_slot || alarm.by_reading && !self.evidence.is_read
        };
        alarms.extend(self.before.memory.alarms.iter().filter(stays).cloned());
        alarms
    }

    fn since(&self, alarm: &Alarm) -> i64 {
        let known = self.before.memory.alarms.iter().find(|known| known.key() == alarm.key());
        known.map_or_else(|| self.store.clock.now().seconds, |known| known.since)
    }
}

/// Sources of which two points have the same number, one of them in the vault and the other there or anywhere else.
fn forks(there: &[Known], anywhere: &[PointLine]) -> Vec<Alarm> {
    let mut numbers: BTreeMap<(SourceTag, u64), BTreeSet<RecoveryPointId>> = BTreeMap::new();
    for known in there {
        numbers.entry((known.tag, known.sequence)).or_default().insert(known.id);
    }
    for line in anywhere {
        if let Some(ids) = numbers.get_mut(&(line.tag, line.sequence)) {
            ids.insert(line.id);
        }
    }
    let forked = numbers.into_iter().filter(|(_, ids)| ids.len() > 1);
    let alarm = |((tag, number), ids): ((SourceTag, u64), BTreeSet<RecoveryPointId>)| {
        let ids: Vec<String> = ids.iter().take(NAMED).map(RecoveryPointId::short).collect();
        let detail = format!(
            "recovery points {} are both number {number} of their source: two machines take points of it, or one was put back to an older state",
            ids.join(" and ")
        );
        Alarm::new(AlarmKind::ChainForked, format!("{tag} {number}"), detail)
    };
    forked.map(alarm).collect()
}
