//! One look at a vault: what became of each point that somebody saw there, and what that means.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Alarm, AlarmKind, Before, Evidence, Known, Memory, accept, known_of, memory};
use crate::catalog::{Mark, PointLine, VaultNo};
use crate::error::StoreError;
use crate::fence::Revocation;
use crate::id::{Attempt, RecoveryPointId, SourceTag};
use crate::store::{Outcomes, Store};
use crate::transfer::Transfer;

/// Missing points that are asked for once more by a look; of further ones the listing is believed.
const ASKED_AGAIN: usize = 64;
/// Points that the detail of an alarm names.
const NAMED: usize = 5;

/// What became of a point that was seen in a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    There,
    /// Somebody removed it on purpose.
    Removed,
    Missing,
}

/// One look.
pub(super) struct LookBack<'a> {
    pub(super) store: &'a Store,
    pub(super) no: VaultNo,
    pub(super) transfer: &'a Transfer,
    pub(super) before: &'a Before,
    pub(super) outcomes: Outcomes,
    pub(super) attempts: HashMap<(SourceTag, Attempt), u64>,
    pub(super) evidence: Evidence,
}

/// What it came to.
pub(super) struct SeenBack {
    pub(super) alarms: Vec<Alarm>,
    missing: BTreeMap<RecoveryPointId, Known>,
    there: Vec<Known>,
    removed: HashSet<RecoveryPointId>,
    /// Attempts that are known to be revoked, and whether they are of own sources, which come first.
    revoked: Vec<(String, bool)>,
    generation: u64,
}

impl SeenBack {
    /// How many revocations find no room there.
    pub(super) fn keep_in(self, memory: &mut Memory) -> usize {
        memory.heads.retain(|_, known| !self.removed.contains(&known.id));
        self.there.into_iter().for_each(|known| memory.advance(known));
        memory.missing = self.missing;
        memory.generation = memory.generation.max(self.generation);
        memory.alarms = self.alarms;
        let has_no_room = |(attempt, is_own)| !memory.note_revoked(attempt, is_own);
        self.revoked.into_iter().map(has_no_room).filter(|beyond| *beyond).count()
    }
}

impl LookBack<'_> {
    pub(super) fn see(self) -> Result<SeenBack, StoreError> {
        let catalog = self.store.catalog();
        let candidates = self.candidates();
        let (mut missing, mut removed) = (BTreeMap::new(), HashSet::new());
        let accepted = &self.before.memory.accepted;
        for known in candidates.values() {
            let state = match self.state(known, missing.len()) {
                // Something that only a newer key opens stands in its place, which is told by who met it: to this ring it is where it was.
                Err(StoreError::NoKey { .. }) => State::There,
                state => state?,
            };
            match state {
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
        let revoked = self.revoked_now()?;
        Ok(SeenBack { alarms, missing, there, removed, revoked, generation })
    }

    fn revoked_now(&self) -> Result<Vec<(String, bool)>, StoreError> {
        let own = self.attempts.keys().filter(|(tag, _)| self.before.memory.own.contains(tag));
        let own: HashSet<Attempt> = own.map(|(_, attempt)| *attempt).collect();
        let revoked = self.store.catalog().revoked_in(self.no)?;
        let mut revoked: Vec<(String, bool)> =
            revoked.iter().map(|attempt| (attempt.to_string(), own.contains(attempt))).collect();
        revoked.sort_unstable_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        Ok(revoked)
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
    pub(super) fn state(&self, known: &Known, asked: usize) -> Result<State, StoreError> {
        if self.is_there(&known.tag, &known.id) {
            return Ok(State::There);
        }
        let catalog = self.store.catalog();
        for (attempt, _) in self.outcomes.at(&known.tag, &known.id) {
            // By the catalog, or it is read.
            let why = match catalog.why_revoked_at(self.no, attempt)? {
                None => self.store.look_for_revocation(self.no, self.transfer, (&known.tag, attempt))?,
                why => why,
            };
            if why.is_some_and(|why| why.removes(attempt, known.attempt)) {
                return Ok(State::Removed);
            }
        }
        if catalog.has_mark(Mark::Going(Some(self.no), known.id))? {
            return Ok(State::Removed);
        }
        if asked >= ASKED_AGAIN {
            return Ok(State::Missing);
        }
        let next = self.store.next_attempt(self.no, self.transfer, (&known.tag, &known.id))?;
        Ok(match next.ended {
            true => State::There,
            false if catalog.was_removed(self.no, &known.id, known.attempt)? => State::Removed,
            false => State::Missing,
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
        // What was told in one way is not told in another by the next look of the same run.
        let stood = self.before.memory.alarms.iter().any(|alarm| alarm.kind == AlarmKind::VaultRolledBack);
        let is_older = marks > 0
            || stood && !alone.is_empty()
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
        let accepted = &self.before.memory.accepted;
        let gone = self.before.revoked.iter().filter(|attempt| !there.contains(attempt));
        gone.filter(|attempt| !accepted.contains(&accept::mark_key(&attempt.to_string()))).count()
    }

    /// Points that are there again in the place of a revocation.
    fn replayed(&self) -> Vec<Alarm> {
        let held = self.attempts.iter().filter(|(_, len)| **len != Revocation::LEN).map(|((_, at), _)| *at);
        let back = held.filter(|attempt| self.before.revoked.contains(attempt));
        let alarm = |attempt: Attempt| {
            let id = attempt.point.short();
            let detail = format!("recovery point {id}, which was removed there on purpose, is there again");
            Alarm::new(AlarmKind::PointReplayed, attempt.to_string(), detail)
        };
        back.map(alarm).collect()
    }

    fn of_config(&self) -> Option<Alarm> {
        self.store.is_strange(self.transfer).then(|| {
            let detail = "the config there opens, and is not the one with which the store was made: it was exchanged by somebody who has the key";
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
