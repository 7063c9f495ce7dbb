//! Locks of a vault's objects ([why](../../../docs/decisions/azure-locks.md)): what may go and is locked stays, and is counted, without a request for each in
//! each run; what stays is locked anew before its lock runs out.

use std::collections::{BTreeMap, HashSet};

use super::Verdict;
use super::collect::{Progress, Run};
use crate::error::{ErrorClass, StoreError};
use crate::id::PackId;
use crate::names;
use crate::store::of_vault;
use crate::transfer::Transfer;
use crate::vault::keeper::{DAY, Lock, LockTerms, Locked};
use crate::vault::{ObjectName, VaultError};

/// Most locks that one run sets: about as many packs as a terabyte has are done in three.
const LOCKS_MAX: usize = 20_000;

/// What may go from a vault, and is locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StillLocked {
    /// Packs.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What keeps the first of them that goes, as far as it is known.
    pub first: Option<Lock>,
}

impl StillLocked {
    pub(super) fn add(&mut self, bytes: u64, lock: Lock) {
        (self.packs, self.bytes) = (self.packs + 1, self.bytes + bytes);
        self.first = Some(match (self.first, lock) {
            (Some(Lock::Until(first)), Lock::Until(other)) => Lock::Until(first.min(other)),
            (Some(first @ Lock::Until(_)), _) => first,
            (_, lock) => lock,
        });
    }
}

/// The locks of a vault's packs: asked for when the first of them was in the way, and then known for all.
#[derive(Default)]
pub(super) struct Locks(Option<BTreeMap<ObjectName, Locked>>);

impl Locks {
    /// What keeps a pack, as far as that was asked for. By the vault's clock; without one nothing is known.
    pub(super) fn of(&self, name: &ObjectName, now: Option<i64>) -> Option<Lock> {
        let lock = self.0.as_ref()?.get(name)?.lock;
        lock.holds_at(now?).then_some(lock)
    }

    /// One was in the way.
    pub(super) fn ask(&mut self, transfer: &Transfer) {
        if self.0.is_none() {
            // Who may not list them asks for each.
            self.0 = Some(transfer.locked(names::PACKS).unwrap_or_default());
        }
    }
}

/// Whether a lock has to be set anew: it runs out before half of the days that it is set for are over.
fn is_short(lock: Option<&Locked>, terms: LockTerms, now: i64) -> bool {
    match lock.map(|locked| locked.lock) {
        None => true,
        Some(Lock::Until(until)) => until - now < i64::from(terms.days) * DAY / 2,
        Some(_) => false,
    }
}

impl Run<'_> {
    /// Locks anew what stays and would be without a lock before long: packs, points and index objects but those that go. That it cannot be done is told,
    /// and keeps nobody from anything.
    pub(super) fn keep_locked(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let Some(terms) = self.transfer.lock_terms() else { return Ok(()) };
        match self.lock_anew(terms, progress) {
            Err(e) if matches!(e.class(), ErrorClass::Denied | ErrorClass::Invalid) => {
                let reason = format!("locks run out and are not set anew: {}", e.beside_vault());
                super::beside::tell(self.monitor, &self.transfer.address(), reason);
                Ok(())
            }
            done => done,
        }
    }

    fn lock_anew(&self, terms: LockTerms, progress: &mut Progress) -> Result<(), StoreError> {
        let Some(now) = self.now()? else { return Ok(()) };
        let failed = of_vault(self.transfer);
        let mut short = Vec::new();
        let empty: HashSet<ObjectName> =
            self.store.catalog().empty_indexes_of(self.no)?.iter().map(names::index).collect();
        // Nothing that waits for its lock to run out would ever go.
        let goes = |name: &ObjectName| {
            let point = names::outcome_of(name).map(|(_, attempt)| attempt.point);
            empty.contains(name) || point.is_some_and(|id| self.leaving.contains(&id))
        };
        for prefix in [names::PACKS, names::INDEXES, names::POINTS] {
            let locked = self.transfer.locked(prefix).map_err(&failed)?;
            let names = match prefix {
                names::PACKS => self.packs_that_stay(progress)?,
                _ => self.list(prefix)?.into_iter().map(|object| object.name).collect(),
            };
            for name in names.into_iter().filter(|name| !goes(name)) {
                let lock = locked.get(&name);
                if is_short(lock, terms, now) {
                    let ends = match lock.map(|locked| locked.lock) {
                        Some(Lock::Until(until)) => until,
                        _ => i64::MIN,
                    };
                    short.push((ends, name, lock.is_some_and(|locked| locked.for_good)));
                }
            }
        }
        // What runs out first.
        short.sort_unstable();
        progress.locks_left = short.len().saturating_sub(LOCKS_MAX) as u64;
        for (_, name, for_good) in short.into_iter().take(LOCKS_MAX) {
            match self.transfer.lock(&name, for_good) {
                // It went meanwhile.
                Err(VaultError::NotFound { .. }) => {}
                set => set.map_err(&failed).map(|()| progress.locks_set += 1)?,
            }
        }
        Ok(())
    }

    /// Packs of the vault that no generation lets go of, and that are needed as far as this run knows.
    fn packs_that_stay(&self, progress: &Progress) -> Result<Vec<ObjectName>, StoreError> {
        let catalog = self.store.catalog();
        let condemned = self.store.condemned_in(self.no)?;
        let unneeded: HashSet<PackId> = match &progress.plan {
            Some(plan) => plan.with(Verdict::Delete).map(|judged| judged.pack.entry.id).collect(),
            None => HashSet::new(),
        };
        let stays = catalog.packs()?.into_iter().filter(|row| {
            row.vaults.contains(&self.no) && !condemned.contains(&row.no) && !unneeded.contains(&row.entry.id)
        });
        Ok(stays.map(|row| names::pack(&row.entry.id)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lock_is_set_anew_in_the_second_half_of_its_time_and_a_legal_hold_never() {
        let terms = LockTerms { days: 30, for_good: false };
        let locked = |lock| Locked { name: ObjectName::new("pack/a").unwrap(), lock, for_good: false };
        let short = |lock| is_short(Some(&locked(lock)), terms, 1000 * DAY);
        assert!(is_short(None, terms, 0));
        assert!(
            short(Lock::Until(0)) && short(Lock::Until(1015 * DAY - 1)) && !short(Lock::Until(1015 * DAY))
        );
        assert!(!short(Lock::Held));
    }

    #[test]
    fn the_first_that_goes_is_the_one_that_is_named() {
        let mut still = StillLocked::default();
        for lock in [Lock::Held, Lock::Until(9), Lock::Unknown, Lock::Until(5)] {
            still.add(10, lock);
        }
        assert_eq!(still, StillLocked { packs: 4, bytes: 40, first: Some(Lock::Until(5)) });
    }
}
