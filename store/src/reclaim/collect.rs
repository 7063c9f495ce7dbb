//! Freeing space in a vault while others write to it: fenced generations (`docs/decisions/fenced-generations.md`).
//!
//! Nobody waits for anybody. A run goes as far as it can, says what it waits for, and the next one goes on, on whichever machine: all that is
//! decided stands in the vault. What a generation condemns goes only when every upload that was open then has ended or was
//! revoked, and what points need was looked up once more after that.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;

use super::homes::{Trust, at_home_in, judge};
use super::last_look::LastLook;
use super::locks::{Locks, StillLocked};
use super::{
    Judged, ReclaimPlan, Reclaimed, Verdict, beside, delete_from_vault, drop_empty_indexes_of, unopened,
};
use crate::catalog::{Mark, PackRow, PointRow, VaultNo};
use crate::clock::Deadline;
use crate::copy;
use crate::error::{ErrorClass, StoreError};
use crate::fence::{Generation, Revocation, Step, Why};
use crate::format::FormatError;
use crate::id::{Attempt, PackId, RecoveryPointId, SourceTag};
use crate::monitor::{Event, Monitor};
use crate::names::{self, Named};
use crate::point::object::open_session;
use crate::store::{Proven, Reads, SMALL_OBJECT, Store, of_vault, put_proven};
use crate::transfer::Transfer;
use crate::vault::keeper::Lock;
use crate::vault::{ObjectInfo, VaultError};

const HOUR: u64 = 3600;
/// By so many seconds the clocks of a vault's machines may differ.
const AHEAD: i64 = 3600;
/// Nobody lists anything for longer.
const JUST_NOW: Duration = Duration::from_secs(HOUR);
/// Longer than anybody is waited for.
const LONG: Duration = Duration::from_secs(365 * 24 * HOUR);

/// How patient reclaim is. No time in it decides what is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// An upload that gave no sign of life for so long is revoked. It gives one every ten minutes.
    pub silence: Duration,
    /// What may go stays for so long.
    pub grace: Duration,
    /// So much of a vault goes at most in a day because of one generation, in percent of its bytes.
    pub daily_percent: u64,
}

impl Terms {
    /// What may go goes at once.
    pub const AT_ONCE: Self =
        Self { silence: Duration::from_secs(24 * HOUR), grace: Duration::ZERO, daily_percent: 100 };
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(24 * HOUR),
            grace: Duration::from_secs(48 * HOUR),
            daily_percent: 5,
        }
    }
}

/// An upload that has to end first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The point that it brings.
    pub session: RecoveryPointId,
    /// For how long it has given no sign of life, if the vault tells.
    pub silent_for: Option<Duration>,
}

/// What became of a run.
#[derive(Debug, Default)]
pub struct Progress {
    /// Packs that it condemned, and their bytes.
    pub condemned: (u64, u64),
    /// Thin packs of which what lives in them was written anew.
    pub packs_rewritten: u64,
    /// Bytes that it wrote for them.
    pub bytes_rewritten: u64,
    /// Uploads that it revoked.
    pub revoked: Vec<RecoveryPointId>,
    /// Uploads without whose end nothing of a generation goes.
    pub awaited: Vec<Awaited>,
    /// Packs that may go and are still there, and their bytes.
    pub to_go: (u64, u64),
    /// How long the first of them stays, if the vault tells.
    pub ripe_in: Option<Duration>,
    /// What may go and is locked in the vault.
    pub still_locked: StillLocked,
    /// Locks that it set anew.
    pub locks_set: u64,
    /// Locks that run out and that it left to the next run, because it set many.
    pub locks_left: u64,
    /// What it removed.
    pub removed: Reclaimed,
    /// Number of the generation that it may begin.
    next: u64,
    /// What it saw last.
    pub plan: Option<ReclaimPlan>,
}

/// Goes as far as it can. `leaving`: points that are to go when their locks have run out, and are not locked anew.
///
/// # Errors
/// `Locked` while another process of this machine does the same; `Corrupt` where what points need cannot be told.
pub fn advance(
    store: &Store,
    no: VaultNo,
    terms: &Terms,
    leaving: &HashSet<RecoveryPointId>,
    monitor: &dyn Monitor,
) -> Result<Progress, StoreError> {
    store.refuse_unknown("reclaim", store.config().reclaim_features)?;
    let _lock = store.lock_reclaim()?;
    let transfer = store.vault(no)?;
    let run = Run { store, no, transfer, terms, leaving, monitor };
    let mut progress = Progress::default();
    copy::load_catalog(store, no, transfer, monitor)?;
    run.free(&mut progress)?;
    run.keep_locked(&mut progress)?;
    Ok(progress)
}

/// How an upload ended.
enum Ended {
    Revoked,
    /// A point came just now.
    WithPoint,
    /// Somebody else saw to it.
    Elsewhere,
    /// It cannot be told what it is of.
    Unknown,
}

pub(super) struct Run<'a> {
    pub(super) store: &'a Store,
    pub(super) no: VaultNo,
    pub(super) transfer: &'a Transfer,
    terms: &'a Terms,
    pub(super) leaving: &'a HashSet<RecoveryPointId>,
    pub(super) monitor: &'a dyn Monitor,
}

impl Run<'_> {
    fn free(&self, progress: &mut Progress) -> Result<(), StoreError> {
        if !self.finish(progress)? {
            return Ok(());
        }
        self.judge_and_remove(progress)?;
        if self.condemn(progress)? && self.finish(progress)? && self.terms.grace.is_zero() {
            self.judge_and_remove(progress)?;
        }
        Ok(())
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        names::list(self.transfer, prefix, Deadline::NEVER).map_err(of_vault(self.transfer))
    }

    /// Puts a generation, whose name others may take first. `false` if they did.
    fn put_first(&self, generation: &Generation, bytes: Vec<u8>) -> Result<bool, StoreError> {
        let which = (generation.number, generation.step);
        let reads = |there: &[u8]| match Generation::open(self.store.sealer(), which, there) {
            Ok(_) => Reads::Whole,
            // What somebody else put and does not open is told by who reads it.
            Err(_) => Reads::Unclear,
        };
        let name = generation.name().name();
        let put = put_proven(self.transfer, &name, &bytes.into(), &reads, self.monitor)?;
        Ok(matches!(put, Proven::Ours))
    }

    /// Brings a generation without an end to its end. `false` if uploads have to end first.
    fn finish(&self, progress: &mut Progress) -> Result<bool, StoreError> {
        self.store.read_generations(self.no, self.transfer, Deadline::NEVER)?;
        let open = self.store.catalog().generations(self.no)?.into_iter().find(|(_, is_final)| !is_final);
        let Some((number, _)) = open else { return Ok(true) };
        let with_point = self.force_outcomes(number, progress)?;
        if !progress.awaited.is_empty() {
            return Ok(false);
        }
        let Some(condemned) = self.store.catalog().generation(self.no, number)? else { return Ok(true) };
        // Once more, with all points that have come.
        copy::load_catalog(self.store, self.no, self.transfer, self.monitor)?;
        let (plan, _) = judge(self.store, self.no, Trust::WhatWasRead, self.monitor)?;
        if let Some(unseen) = with_point.into_iter().find(|attempt| !plan.outcomes.contains(attempt)) {
            progress.awaited.push(Awaited { session: unseen.point, silent_for: None });
            return Ok(false);
        }
        let may_go: HashSet<PackId> = names_going(&plan).collect();
        let packs = condemned.packs.into_iter().filter(|(id, _)| may_go.contains(id)).collect();
        let end = Generation { number, step: Step::Final, packs };
        let sealed = end.seal(self.store.sealer());
        let len = sealed.len() as u64;
        match self.put_first(&end, sealed)? {
            true => {
                self.store.catalog().add_generation(self.no, &end, (len, None))?;
                progress.to_go = (end.packs.len() as u64, end.packs.iter().map(|(_, len)| len).sum());
                progress.ripe_in = Some(self.terms.grace);
            }
            // What somebody else found counts.
            false => drop(self.store.read_generations(self.no, self.transfer, Deadline::NEVER)?),
        }
        progress.plan = Some(plan);
        Ok(true)
    }

    /// Sees to it that every upload that was open when the generation was first seen has an outcome: one that begins later knows it, and
    /// among many machines there would always be one to wait for. Or tells which ones have none yet. Those that have a point now: it may be
    /// forgotten before points are listed again, and a put of it that was held up may bring it back.
    fn force_outcomes(&self, number: u64, progress: &mut Progress) -> Result<HashSet<Attempt>, StoreError> {
        let sessions = self.list(names::SESSIONS)?;
        let before = self.open_before(number, &sessions)?;
        let points = self.list(names::POINTS)?;
        let outcomes: HashMap<Attempt, u64> =
            points.iter().filter_map(|o| Some((names::outcome_of(&o.name)?.1, o.len))).collect();
        let beats = self.list(names::HEARTBEATS)?;
        let (now, mut with_point) = (self.now()?, HashSet::new());
        let mut silences: HashMap<Attempt, Duration> = HashMap::new();
        for (attempt, object) in beats.iter().chain(&sessions).filter_map(|o| Some((session_of(o)?, o))) {
            if let Some(silent) = silence(now, object.put_at) {
                silences.entry(attempt).and_modify(|least| *least = silent.min(*least)).or_insert(silent);
            }
        }
        let revoked = self.store.catalog().revoked_in(self.no)?;
        for object in &sessions {
            let Some(attempt) = session_of(object) else { continue };
            let silent_for = silences.get(&attempt).copied();
            let awaited = Awaited { session: attempt.point, silent_for };
            match outcomes.get(&attempt) {
                // Its outcome never changes any more.
                Some(&Revocation::LEN) if revoked.contains(&attempt) => {
                    delete_from_vault(self.store, self.no, &object.name)?;
                }
                // It is nobody's business here.
                _ if !before.contains(&attempt) => {}
                Some(_) => drop(with_point.insert(attempt)),
                None if silent_for.is_none_or(|silent| silent < self.terms.silence) => {
                    progress.awaited.push(awaited);
                }
                None => match self.revoke(object, &attempt)? {
                    Ended::Revoked => progress.revoked.push(attempt.point),
                    Ended::WithPoint => drop(with_point.insert(attempt)),
                    Ended::Elsewhere => {}
                    Ended::Unknown => progress.awaited.push(awaited),
                },
            }
        }
        // Nobody asks for these: their sessions have an outcome, or are gone. One that just came is of a session that came after the
        // listing, or tells another machine the time.
        let open: HashSet<_> = sessions.iter().filter_map(session_of).collect();
        for object in &beats {
            let just_came = silence(now, object.put_at).is_some_and(|age| age < JUST_NOW);
            let is_over = |of: Attempt| outcomes.contains_key(&of) || !open.contains(&of) && !just_came;
            if session_of(object).is_some_and(is_over) {
                delete_from_vault(self.store, self.no, &object.name)?;
            }
        }
        Ok(with_point)
    }

    /// Which attempts were open at the first listing after the generation was seen; that is this one, if there was none.
    fn open_before(&self, number: u64, sessions: &[ObjectInfo]) -> Result<HashSet<Attempt>, StoreError> {
        let catalog = self.store.catalog();
        if let Some(before) = catalog.open_before(self.no, number)? {
            return Ok(before);
        }
        let before = sessions.iter().filter_map(session_of).collect();
        catalog.set_open_before(self.no, number, &before)?;
        Ok(before)
    }

    /// Fixes that an attempt does not end with a point, unless it just did.
    fn revoke(&self, session: &ObjectInfo, attempt: &Attempt) -> Result<Ended, StoreError> {
        let bytes = match self.transfer.get(&session.name, SMALL_OBJECT) {
            // Somebody saw that it is revoked, or forgot its point, and removed it.
            Err(VaultError::NotFound { .. }) => return Ok(Ended::Elsewhere),
            bytes => bytes.map_err(of_vault(self.transfer))?,
        };
        let session_of = match open_session(&bytes, self.store.sealer(), &attempt.point) {
            Ok(session) => session,
            Err(e @ FormatError::NoKey(_)) => return Err(e.of(session.name.as_str())),
            Err(e) => {
                let reason =
                    format!("{e}; while it is there nothing is freed: remove it when no upload is under way");
                beside::tell(self.monitor, session.name.as_str(), reason);
                return Ok(Ended::Unknown);
            }
        };
        if self.is_given_back(&session_of.source_tag, attempt)? {
            return Ok(Ended::WithPoint);
        }
        Ok(match self.store.revoke(self.no, (&session_of.source_tag, attempt), Why::Silent)? {
            Some(_) => Ended::Revoked,
            None => Ended::WithPoint,
        })
    }

    /// Whether a session without a point is one of which this machine knows that its point was there: somebody took it away, and it is there
    /// again. Unless the word behind it says that it was removed.
    fn is_given_back(&self, tag: &SourceTag, attempt: &Attempt) -> Result<bool, StoreError> {
        let catalog = self.store.catalog();
        let was_there = |row: &PointRow| row.vaults.contains(&self.no) && row.tag == *tag;
        let Some(row) = catalog.point(&attempt.point)?.filter(was_there) else { return Ok(false) };
        let is_going = catalog.has_mark(Mark::Going(Some(self.no), row.id))?;
        if is_going || catalog.seen_at(self.no, &row.id)? != attempt.number {
            return Ok(false);
        }
        if let Some(next) = attempt.next()
            && self.store.look_for_revocation(self.no, self.transfer, (tag, &next))?.is_some()
        {
            return Ok(false);
        }
        let name = names::outcome(tag, attempt);
        match self.transfer.put_new(&name, row.object.into()) {
            Err(VaultError::Conflict { .. }) => return Ok(false),
            put => put.map_err(of_vault(self.transfer))?,
        };
        let reason = "somebody took the recovery point away, without the word that it was removed: it is put there again";
        beside::tell(self.monitor, name.as_str(), reason.into());
        Ok(true)
    }

    /// What the vault's clock shows, by an object that is put for it.
    pub(super) fn now(&self) -> Result<Option<i64>, StoreError> {
        let session = Attempt::first(self.store.sealer().new_point());
        let name = Named::Heartbeat(session, 0).name();
        self.transfer.put_new(&name, Bytes::new()).map_err(of_vault(self.transfer))?;
        let listed = self.list(names::HEARTBEATS)?;
        delete_from_vault(self.store, self.no, &name)?;
        Ok(listed.iter().find(|object| object.name == name).and_then(|object| object.put_at))
    }

    /// Judges all packs, and removes of those that may go what is ripe.
    fn judge_and_remove(&self, progress: &mut Progress) -> Result<(), StoreError> {
        // Before anything is judged: what is judged by what was before a generation belongs to no later one.
        let newest = self.store.catalog().generations(self.no)?.last().map_or(0, |(number, _)| *number);
        progress.next = newest + 1;
        let (plan, others) = judge(self.store, self.no, Trust::Catalog, self.monitor)?;
        (progress.to_go, progress.ripe_in) = ((0, 0), None);
        progress.still_locked = StillLocked::default();
        let ends = self.store.read_generations(self.no, self.transfer, Deadline::NEVER)?;
        let (now, mut locks) = (self.now()?, Locks::default());
        let mut last_look = LastLook::new(self.store, self.no, (&plan, &others), self.monitor)?;
        let there: HashMap<PackId, &Judged> =
            plan.packs.iter().map(|judged| (judged.pack.entry.id, judged)).collect();
        let unopened: HashMap<PackId, u64> = plan.unopened.iter().map(|pack| (pack.id, pack.len)).collect();
        let vault_bytes: u64 = plan.packs.iter().map(|judged| judged.pack.entry.len).sum();
        for end in &ends {
            let Some(Named::Final(number)) = Named::parse(end.name.as_str()) else { continue };
            let Some(generation) = self.store.catalog().generation(self.no, number)? else { continue };
            let since = self.stood(number, now, end.put_at)?;
            let gone: u64 = generation
                .packs
                .iter()
                .filter(|(id, _)| !there.contains_key(id) && !unopened.contains_key(id))
                .map(|(_, len)| len)
                .sum();
            let mut room = self.terms.room(since, vault_bytes + gone, gone);
            for (id, len) in &generation.packs {
                let going = match (there.get(id), unopened.contains_key(id)) {
                    (Some(judged), _) if judged.verdict == Verdict::Delete => Some(*judged),
                    (Some(judged), _) => {
                        let reason = "a generation lets it go, and a recovery point needs it: it stays";
                        beside::tell(
                            self.monitor,
                            names::pack(&judged.pack.entry.id).as_str(),
                            reason.into(),
                        );
                        continue;
                    }
                    (None, true) => None,
                    (None, false) => continue,
                };
                if *len > room {
                    progress.to_go = (progress.to_go.0 + 1, progress.to_go.1 + len);
                    continue;
                }
                let name = names::pack(id);
                let kept = match locks.of(&name, now) {
                    Some(lock) => Some(lock),
                    None if going.map_or(Ok(true), |judged| last_look.let_go(judged))? => {
                        let row = going.map(|judged| &judged.pack);
                        self.remove((*id, *len), row, &mut progress.removed)?
                    }
                    None => continue,
                };
                match kept {
                    Some(lock) => {
                        locks.ask(self.transfer);
                        progress.still_locked.add(*len, lock);
                    }
                    None => room -= len,
                }
            }
            let left = since.map(|since| self.terms.grace.saturating_sub(since));
            progress.ripe_in =
                progress.ripe_in.into_iter().chain(left.filter(|_| progress.to_go.0 > 0)).min();
        }
        drop_empty_indexes_of(self.store, self.no)?;
        self.store.reader().forget_places();
        progress.plan = Some(plan);
        Ok(())
    }

    /// Removes a pack that the last look let go, or says what keeps it.
    fn remove(
        &self,
        (id, len): (PackId, u64),
        row: Option<&PackRow>,
        done: &mut Reclaimed,
    ) -> Result<Option<Lock>, StoreError> {
        let catalog = self.store.catalog();
        let kept = delete_from_vault(self.store, self.no, &names::pack(&id));
        if let Some(row) = row {
            // One that is locked is there as before; that nothing relies on it the generation says. If it shows up again after anything else, it is read anew.
            catalog.set_confirmed(row.no, self.no, matches!(kept, Ok(Some(_))))?;
        }
        if let Some(lock) = kept? {
            return Ok(Some(lock));
        }
        match row {
            Some(_) => (done.packs, done.bytes) = (done.packs + 1, done.bytes + len),
            None => {
                (done.unopened, done.unopened_bytes) = (done.unopened + 1, done.unopened_bytes + len);
                self.store.unopened().remove(&(self.no, id));
            }
        }
        catalog.set_mark(Mark::BadIn(self.no, id), false)?;
        self.monitor.event(Event::Done { files: 1, bytes: len });
        Ok(None)
    }

    /// Begins a generation with all that is not needed, unless another machine begins it first. `false` if there is nothing.
    fn condemn(&self, progress: &mut Progress) -> Result<bool, StoreError> {
        let Some(plan) = progress.plan.take() else { return Ok(false) };
        let catalog = self.store.catalog();
        let let_go: HashSet<PackId> = {
            let names = plan.packs.iter().map(|judged| judged.pack.entry.id);
            let names = names.chain(plan.unopened.iter().map(|pack| pack.id)).collect();
            catalog.let_go_of(self.no, &names)?
        };
        let mut packs: Vec<(PackId, u64)> = going(&plan).filter(|(id, _)| !let_go.contains(id)).collect();
        match self.rewrite(&plan, progress) {
            // What nobody needs makes room for it.
            Err(e) if e.class() == ErrorClass::Full && !packs.is_empty() => {
                let reason = format!("thin packs stay until there is room to write what lives in them: {e}");
                beside::tell(self.monitor, &self.transfer.address(), reason);
            }
            rewritten => packs.extend(rewritten?.into_iter().filter(|(id, _)| !let_go.contains(id))),
        }
        progress.plan = Some(plan);
        if packs.is_empty() {
            return Ok(false);
        }
        let begin = Generation::of(progress.next, Step::Condemned, packs);
        progress.condemned = (begin.packs.len() as u64, begin.packs.iter().map(|(_, len)| len).sum());
        let sealed = begin.seal(self.store.sealer());
        let len = sealed.len() as u64;
        if self.put_first(&begin, sealed)? {
            catalog.add_generation(self.no, &begin, (len, None))?;
        } else {
            progress.condemned = (0, 0);
        }
        Ok(true)
    }

    /// Puts what lives in thin packs into new ones; those of which all of it was.
    fn rewrite(&self, plan: &ReclaimPlan, progress: &mut Progress) -> Result<Vec<(PackId, u64)>, StoreError> {
        let thin: HashSet<_> = plan.with(Verdict::Rewrite).map(|judged| judged.pack.no).collect();
        if thin.is_empty() {
            return Ok(Vec::new());
        }
        let parts = at_home_in(self.store, plan, &thin)?;
        let moved = copy::repack(self.store, self.no, self.transfer, &parts, self.monitor)?;
        progress.packs_rewritten += moved.whole.len() as u64;
        progress.bytes_rewritten += moved.bytes;
        progress.removed.packs_unreadable += parts.len() as u64 - moved.whole.len() as u64;
        Ok(moved.whole)
    }
}

impl Terms {
    /// How many bytes of a generation may go now, of a vault of so many in which so many of it went.
    fn room(&self, since: Option<Duration>, of: u64, gone: u64) -> u64 {
        if self.grace.is_zero() && self.daily_percent >= 100 {
            return u64::MAX;
        }
        let Some(ripe_for) = since.and_then(|since| since.checked_sub(self.grace)) else { return 0 };
        let days = 1 + u128::from(ripe_for.as_secs() / (24 * HOUR));
        let allowed = u128::from(of) * u128::from(self.daily_percent) * days / 100;
        // One pack a day in any case, or a small vault would never get rid of anything.
        let least = u128::from(PACK_ROOM) * days;
        u64::try_from(allowed.max(least)).unwrap_or(u64::MAX).saturating_sub(gone)
    }
}

/// Longest pack that is written, about.
const PACK_ROOM: u64 = 32 << 20;

fn going(plan: &ReclaimPlan) -> impl Iterator<Item = (PackId, u64)> {
    let judged = plan.with(Verdict::Delete).map(|judged| (judged.pack.entry.id, judged.pack.entry.len));
    judged.chain(plan.unopened.iter().map(|pack: &unopened::Unopened| (pack.id, pack.len)))
}

fn names_going(plan: &ReclaimPlan) -> impl Iterator<Item = PackId> {
    going(plan).map(|(id, _)| id)
}

fn session_of(object: &ObjectInfo) -> Option<Attempt> {
    match Named::parse(object.name.as_str())? {
        Named::Session(attempt) | Named::Heartbeat(attempt, _) => Some(attempt),
        _ => None,
    }
}

impl Run<'_> {
    /// For how long the end of a generation has stood, by the vault's clock. One that is put well ahead of that was put when the clock was wrong,
    /// or it is wrong now: what this machine saw pass since it found it so counts, and not that nobody knows when it was.
    fn stood(
        &self,
        number: u64,
        now: Option<i64>,
        put_at: Option<i64>,
    ) -> Result<Option<Duration>, StoreError> {
        let catalog = self.store.catalog();
        match (now, put_at) {
            (Some(now), Some(at)) if is_ahead(now, at) => {
                catalog.passed_ahead(self.no, number, now).map(|seconds| Some(Duration::from_secs(seconds)))
            }
            _ => catalog.is_not_ahead(self.no, number).map(|()| silence(now, put_at)),
        }
    }
}

/// Whether a moment lies further ahead than clocks may differ.
fn is_ahead(now: i64, moment: i64) -> bool {
    now.saturating_sub(moment) < -AHEAD
}

/// For how long nothing was heard, between two moments of the vault's clock: how impatient to be, and nothing else. Of what that puts well ahead
/// of now nobody knows when it was: the clock was set back since, and what waits for such a moment might wait for years.
fn silence(now: Option<i64>, last: Option<i64>) -> Option<Duration> {
    let (now, last) = (now?, last?);
    if is_ahead(now, last) {
        return Some(LONG);
    }
    Some(Duration::from_secs(u64::try_from(now.saturating_sub(last)).unwrap_or(0)))
}

#[cfg(test)]
mod tests;
