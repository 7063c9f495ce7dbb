//! Freeing space in staging beside backups: what points need is marked while nobody has the store's lock, and packs go in turns, between
//! which whoever waits for the lock gets it. What came meanwhile is marked before anything goes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::beside::{Others, seen_in, tell};
use super::{Judged, Place, ReclaimPlan, Reclaimed, THIN_PERCENT, Verdict, damaged, know_points, mark};
use crate::catalog::{Mark, PackNo, PackRow};
use crate::chunk_store::{REWRITTEN, rewrite_packs};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{ChunkId, PackId, RecoveryPointId};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::PackKind;
use crate::store::{Store, Turns};

/// So many live bytes of thin packs are written anew before it is looked whether the turn is over.
const BATCH: u64 = 64 << 20;

/// Why a pack stays that was to go.
const ELSEWHERE_NO_MORE: &str =
    "recovery points need something of it that is just going from every other place, so it stays";

/// So long a vault is waited for in a turn that has something of what is damaged here, for each chunk: nobody takes points meanwhile.
const FAR_WAIT: Duration = Duration::from_secs(5);

/// What there was to free in staging, and what was freed.
///
/// # Errors
/// `Locked` if another process has the store when this begins; `Corrupt` where what points need cannot be told.
pub fn free_staging(store: &Store, monitor: &dyn Monitor) -> Result<(ReclaimPlan, Reclaimed), StoreError> {
    let mut turns = Turns::begin(store)?;
    let shown = Shown::of(store, monitor)?;
    turns.end();
    let mut work = Work::of(shown, store, monitor)?;
    work.take_turns(&mut turns)?;
    Ok((work.plan, work.done))
}

/// What there is to free, if nothing comes there meanwhile.
pub(super) fn plan(store: &Store, monitor: &dyn Monitor) -> Result<ReclaimPlan, StoreError> {
    let lock = store.lock()?;
    let shown = Shown::of(store, monitor)?;
    drop(lock);
    Ok(shown.judge(store, monitor)?.0)
}

/// What staging showed while nobody else wrote there.
struct Shown {
    rows: Vec<PackRow>,
    points: Vec<RecoveryPointId>,
}

impl Shown {
    /// The caller has the lock.
    fn of(store: &Store, monitor: &dyn Monitor) -> Result<Self, StoreError> {
        store.refuse_unknown("reclaim", store.config().reclaim_features)?;
        // A point that the catalog does not know of needs its packs as much as the others do.
        store.reconcile(monitor)?;
        let rows = seen_in(store, Place::Staging, Deadline::NEVER, monitor)?;
        Ok(Self { rows, points: know_points(store, Place::Staging)?.points })
    }

    /// The plan, the pages below which it was looked what is live, and what other points need of staging.
    fn judge(
        self,
        store: &Store,
        monitor: &dyn Monitor,
    ) -> Result<(ReclaimPlan, HashSet<ChunkId>, Others), StoreError> {
        let Self { rows, points } = self;
        let place = Place::Staging;
        let (mut live, mut pages) = (HashSet::new(), HashSet::new());
        let wanted = (&mut live, &mut pages);
        let points = mark(store, place, &points, wanted, &|| Deadline::NEVER, monitor)?;
        let others = Others::of(store, place, &points, pages.clone(), monitor)?;
        let damaged = damaged(store, place, &rows)?;
        let mut packs = Vec::new();
        for pack in rows {
            let mut needed = store.catalog().chunks_of(pack.no)?;
            others.hold(store, &needed, &mut live)?;
            needed.retain(|chunk| live.contains(&chunk.id));
            let alive = needed.iter().map(|chunk| u64::from(chunk.len)).sum();
            let total = pack.entry.raw_len();
            let bad = damaged.contains(&pack.no);
            let verdict = match alive {
                0 => Verdict::Delete,
                _ if bad || alive * 100 < total * THIN_PERCENT => Verdict::Rewrite,
                _ => Verdict::Keep,
            };
            packs.push(Judged { pack, live: alive, total, bad, condemned: false, verdict });
        }
        let points = points.into_iter().collect();
        let plan = ReclaimPlan { place, packs, unopened: Vec::new(), live, points, outcomes: HashSet::new() };
        Ok((plan, pages, others))
    }
}

struct Work<'a> {
    store: &'a Store,
    monitor: &'a dyn Monitor,
    plan: ReclaimPlan,
    pages: HashSet<ChunkId>,
    others: Others,
    /// The packs of staging as they are in this turn.
    rows: HashMap<PackId, PackRow>,
    done: Reclaimed,
}

impl<'a> Work<'a> {
    fn of(shown: Shown, store: &'a Store, monitor: &'a dyn Monitor) -> Result<Self, StoreError> {
        let (plan, pages, others) = shown.judge(store, monitor)?;
        let (rows, done) = (HashMap::new(), Reclaimed::default());
        Ok(Self { store, monitor, plan, pages, others, rows, done })
    }

    fn take_turns(&mut self, turns: &mut Turns<'_>) -> Result<(), StoreError> {
        let named = |verdict| self.plan.with(verdict).map(|judged| (judged.pack.entry.id, judged.live));
        // Nobody needs anything of these, so they wait for nothing; and what is written anew needs room.
        let mut dead: VecDeque<(PackId, u64)> = named(Verdict::Delete).collect();
        let mut thin: VecDeque<(PackId, u64)> = named(Verdict::Rewrite).collect();
        let files_total = (dead.len() + thin.len()) as u64;
        self.monitor.event(Event::Stage { name: "delete", files_total, bytes_total: 0 });
        loop {
            turns.next(self.monitor)?;
            self.see_what_came()?;
            turns.has_looked();
            while !turns.is_over() {
                if let Some((id, _)) = dead.pop_front() {
                    self.remove_if_dead(&id)?;
                } else if !thin.is_empty() {
                    self.write_anew(&batch(&mut thin))?;
                } else {
                    return self.tidy();
                }
            }
        }
    }

    /// Points that came since the plan need what they need, and their packs are where they are now.
    fn see_what_came(&mut self) -> Result<(), StoreError> {
        self.others.look_again(self.store, self.monitor)?;
        let Shown { rows, points } = Shown::of(self.store, self.monitor)?;
        self.rows = rows.into_iter().map(|row| (row.entry.id, row)).collect();
        let came: Vec<_> = points.into_iter().filter(|id| !self.plan.points.contains(id)).collect();
        if !came.is_empty() {
            let (store, live) = (self.store, (&mut self.plan.live, &mut self.pages));
            let came = mark(store, Place::Staging, &came, live, &|| soon(store), self.monitor)?;
            self.plan.points.extend(came);
        }
        Ok(())
    }

    /// What a vault showed for the plan it may have lost since.
    fn is_dead(&mut self, row: &PackRow) -> Result<bool, StoreError> {
        let chunks = self.store.catalog().chunks_of(row.no)?;
        self.others.hold(self.store, &chunks, &mut self.plan.live)?;
        Ok(!chunks.iter().any(|chunk| self.plan.live.contains(&chunk.id)))
    }

    fn remove_if_dead(&mut self, id: &PackId) -> Result<(), StoreError> {
        match self.rows.remove(id) {
            Some(row) if self.is_dead(&row)? => self.remove(&row).map(drop),
            // A backup found use for it, or somebody else removed it.
            _ => Ok(()),
        }
    }

    /// Removes a pack; `false` if somebody needs it at the last moment.
    fn remove(&mut self, row: &PackRow) -> Result<bool, StoreError> {
        let (catalog, live) = (self.store.catalog(), &self.plan.live);
        let mut others = catalog.chunks_of(row.no)?;
        others.retain(|chunk| !live.contains(&chunk.id));
        // From then on nothing relies on it. A crash in between leaves a file that is adopted again.
        catalog.leave_staging(row.no)?;
        // Who frees a vault at the same time does likewise there, so one of the two sees that the other one's copy goes.
        let mut needed = HashSet::new();
        let looked = self.others.hold(self.store, &others, &mut needed);
        if looked.is_err() || !needed.is_empty() {
            catalog.set_staged(row.no, true)?;
            looked?;
            tell(self.monitor, names::pack(&row.entry.id).as_str(), ELSEWHERE_NO_MORE.into());
            self.plan.live.extend(needed);
            return Ok(false);
        }
        self.store.staging().remove(&names::pack(&row.entry.id))?;
        catalog.set_staged(row.no, false)?;
        self.store.unmark_gone(row)?;
        self.done.packs += 1;
        self.done.bytes += row.entry.len;
        self.monitor.event(Event::Done { files: 1, bytes: row.entry.len });
        Ok(true)
    }

    /// Moves what points need of thin packs into new ones. Packs of which something cannot be read stay, and are told.
    fn write_anew(&mut self, thin: &[PackId]) -> Result<(), StoreError> {
        let thin: Vec<PackRow> = thin.iter().filter_map(|id| self.rows.remove(id)).collect();
        for row in &thin {
            self.others.hold(self.store, &self.store.catalog().chunks_of(row.no)?, &mut self.plan.live)?;
        }
        let mut kept = HashSet::<PackNo>::new();
        let parts = self.store.ingest_parts(REWRITTEN);
        for kind in [PackKind::Data, PackKind::Tree] {
            let of_kind: Vec<_> = thin.iter().filter(|row| row.entry.kind == kind).collect();
            if of_kind.is_empty() {
                continue;
            }
            let (store, live) = (self.store, &self.plan.live);
            let written = rewrite_packs(&parts, store.reader(), kind, &of_kind, live, &|| soon(store))?;
            self.done.bytes_rewritten += written.bytes;
            for (no, id, e) in written.unreadable {
                let reason =
                    format!("recovery points need something of it that cannot be read, so it stays: {e}");
                self.monitor.event(Event::Problem { path: names::pack(&id).as_str().into(), reason });
                kept.insert(no);
            }
        }
        for row in thin.iter().filter(|row| !kept.contains(&row.no)) {
            self.done.packs_rewritten += u64::from(self.remove(row)?);
        }
        self.done.packs_unreadable += kept.len() as u64;
        Ok(())
    }

    /// Index objects whose packs are all gone are of no use; others may name packs that are gone, which readers pass over.
    fn tidy(&self) -> Result<(), StoreError> {
        for id in self.store.catalog().empty_indexes()? {
            self.store.staging().remove(&names::index(&id))?;
            self.store.catalog().remove_index(&id)?;
        }
        // Of what is missing here and no point needs nothing is to be brought back.
        for row in self.store.missed_here()? {
            let chunks = self.store.catalog().chunks_of(row.no)?;
            if !chunks.iter().any(|chunk| self.plan.needs(&chunk.id)) {
                self.store.catalog().set_mark(Mark::MissedHere(row.entry.id), false)?;
            }
        }
        self.store.reader().forget_places();
        Ok(())
    }
}

/// Of each chunk that is read in a turn.
fn soon(store: &Store) -> Deadline {
    Deadline::after(store.clock().as_ref(), FAR_WAIT)
}

/// The next packs that are written anew together.
fn batch(thin: &mut VecDeque<(PackId, u64)>) -> Vec<PackId> {
    let (mut bytes, mut ids) = (0, Vec::new());
    while bytes < BATCH
        && let Some((id, live)) = thin.pop_front()
    {
        bytes += live;
        ids.push(id);
    }
    ids
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::beside::BELIEVED;
    use super::*;
    use crate::check::{Depth, check};
    use crate::monitor::VoidMonitor;
    use crate::store::StoredPoint;
    use crate::store::tests::heal::vaulted;
    use crate::vault::ObjectName;

    /// What there is to free once a point went from staging.
    fn work_without<'a>(store: &'a Store, gone: &StoredPoint) -> Work<'a> {
        let point = store.catalog().point(&gone.point.id).unwrap().unwrap();
        store.remove_staged_point(&point).unwrap();
        Work::of(Shown::of(store, &VoidMonitor).unwrap(), store, &VoidMonitor).unwrap()
    }

    fn row_of(store: &Store, name: &ObjectName) -> PackRow {
        let rows = store.catalog().packs().unwrap();
        rows.into_iter().find(|row| names::pack(&row.entry.id) == *name).unwrap()
    }

    #[test]
    fn what_a_vault_lets_go_at_the_same_moment_stays_here() {
        let (home, _vault, store, one, name) = vaulted();
        let (row, mut work) = (&row_of(&store, &name), work_without(&store, &one));
        let mut turns = Turns::begin(&store).unwrap();
        assert!(work.is_dead(row).unwrap());
        // After this look the vault's collector says that it lets it go, and looks again: so does this one.
        store.catalog().miss_confirmed(row.no, row.vaults[0]).unwrap();
        assert!(!work.remove(row).unwrap());
        assert!(home.path().join(name.as_str()).exists());
        assert!(store.catalog().pack(row.no).unwrap().unwrap().staged, "and is known to");
        work.take_turns(&mut turns).unwrap();
        assert!(home.path().join(name.as_str()).exists(), "it counts as needed from then on");
    }

    #[test]
    fn what_a_vault_lost_while_somebody_had_the_store_for_long_stays_here() {
        let (home, vault, store, one, name) = vaulted();
        let mut work = work_without(&store, &one);
        vault.lose(&name);
        // Nobody looks at the vault but this.
        store.clock().pause(BELIEVED);
        work.take_turns(&mut Turns::begin(&store).unwrap()).unwrap();
        assert!(work.done.packs > 0, "the others go");
        assert!(home.path().join(name.as_str()).exists());
    }

    #[test]
    fn what_a_check_misses_in_a_vault_meanwhile_stays_here() {
        let (_home, vault, store, one, name) = vaulted();
        let (row, mut work) = (&row_of(&store, &name), work_without(&store, &one));
        assert!(work.is_dead(row).unwrap());
        vault.lose(&name);
        check(&store, Depth::Structure, &VoidMonitor).unwrap();
        assert!(!work.is_dead(row).unwrap());
    }
}
