//! Freeing what no recovery point needs. First a plan with a reason for each pack, which can be printed; then the work.
//!
//! For tiers that nobody writes to meanwhile: staging (its lock is held) and vaults of one quiet machine. The packs of
//! staging are judged by the points there, those of a vault by its points and those of staging: a backup does not store again what a
//! vault has, so a local point may need a pack that is nowhere else. If a single directory of a single point cannot be read there is no plan: what it needs is unknown.

use std::collections::HashSet;

use crate::catalog::{PackRow, VaultNo};
use crate::chunk_store::{IngestParts, rewrite_packs};
use crate::copy;
use crate::error::StoreError;
use crate::id::{ChunkId, PackId, RecoveryPointId};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::PackKind;
use crate::store::Store;
use crate::tree::reach::reachable;

/// Packs with less than this part of their bytes alive are written anew.
const THIN_PERCENT: u64 = 60;

/// Where space is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The staging directory.
    Staging,
    /// A vault.
    Vault(VaultNo),
}

/// What is to be done with a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Points need most of it.
    Keep,
    /// No point needs any of it.
    Delete,
    /// Points need less than 60 % of it: what they need moves into new packs.
    Rewrite,
}

/// A pack with its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The pack.
    pub pack: PackRow,
    /// Bytes of its raw stream that points need.
    pub live: u64,
    /// Bytes of its raw stream.
    pub total: u64,
    /// What is to be done.
    pub verdict: Verdict,
}

/// What is to be done in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReclaimPlan {
    /// Where.
    pub place: Place,
    /// All packs there.
    pub packs: Vec<Judged>,
    live: HashSet<ChunkId>,
    points: HashSet<RecoveryPointId>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Packs removed.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of packs written anew.
    pub bytes_rewritten: u64,
}

impl ReclaimPlan {
    /// Packs with a verdict.
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Judged> {
        self.packs.iter().filter(move |p| p.verdict == verdict)
    }

    /// Bytes of packs with a verdict.
    pub fn bytes(&self, verdict: Verdict) -> u64 {
        self.with(verdict).map(|p| p.pack.entry.len).sum()
    }
}

/// Marks what the points of a place need and judges its packs.
pub fn plan(store: &Store, place: Place, monitor: &dyn Monitor) -> Result<ReclaimPlan, StoreError> {
    store.refuse_unknown("reclaim", store.config().reclaim_features)?;
    know_points(store, place)?;
    let points = points_of(store, place)?;
    let live = live_chunks(store, &points, monitor)?;
    let here = |row: &PackRow| match place {
        Place::Staging => row.staged,
        Place::Vault(no) => row.vaults.contains(&no),
    };
    let mut packs = Vec::new();
    for pack in store.catalog().packs()?.into_iter().filter(here) {
        let chunks = store.catalog().chunks_of(pack.no)?;
        let alive = chunks.iter().filter(|c| live.contains(&c.id)).map(|c| u64::from(c.len)).sum();
        let total = pack.entry.raw_len();
        let verdict = match (alive, place) {
            (0, _) => Verdict::Delete,
            (_, Place::Staging) if alive * 100 < total * THIN_PERCENT => Verdict::Rewrite,
            _ => Verdict::Keep,
        };
        packs.push(Judged { pack, live: alive, total, verdict });
    }
    Ok(ReclaimPlan { place, packs, live, points: points.into_iter().collect() })
}

/// What a point needs that the catalog does not know would be taken for garbage: the place itself says which points it has.
fn know_points(store: &Store, place: Place) -> Result<(), StoreError> {
    match place {
        Place::Vault(no) => copy::learn_points(store, no, store.vault(no)?),
        Place::Staging if store.knows_staged_points()? => Ok(()),
        Place::Staging => Err(StoreError::corrupt(
            "rp",
            "a recovery point in staging is not in the catalog or does not open; what it needs is unknown",
        )),
    }
}

fn points_of(store: &Store, place: Place) -> Result<Vec<RecoveryPointId>, StoreError> {
    let in_place = store.catalog().points()?.into_iter().filter(|row| match place {
        Place::Staging => row.staged,
        Place::Vault(no) => row.staged || row.vaults.contains(&no),
    });
    Ok(in_place.map(|row| row.id).collect())
}

fn live_chunks(
    store: &Store,
    points: &[RecoveryPointId],
    monitor: &dyn Monitor,
) -> Result<HashSet<ChunkId>, StoreError> {
    monitor.event(Event::Stage { name: "mark", files_total: points.len() as u64, bytes_total: 0 });
    let (mut live, mut seen) = (HashSet::new(), HashSet::new());
    for id in points {
        let point = store.point(id)?.point;
        reachable(store.reader().as_ref(), &point.root, &mut seen, &mut |_, id| {
            live.insert(*id);
            Ok(())
        })?;
        monitor.event(Event::Done { files: 1, bytes: 0 });
    }
    Ok(live)
}

/// Carries a plan out. The caller has held the store's lock since before the plan was made.
pub fn execute(store: &Store, plan: &ReclaimPlan, monitor: &dyn Monitor) -> Result<Reclaimed, StoreError> {
    // An upload that began since the plan was made may rely on what the plan condemns.
    let _lock = match plan.place {
        Place::Staging => None,
        Place::Vault(_) => Some(store.lock_vault_removals()?),
    };
    if points_of(store, plan.place)?.iter().any(|id| !plan.points.contains(id)) {
        return Err(StoreError::invalid("recovery points came there since the plan was made; plan again"));
    }
    let mut done = Reclaimed { bytes_rewritten: rewrite(store, plan)?, ..Reclaimed::default() };
    let going: Vec<&Judged> = plan.packs.iter().filter(|p| p.verdict != Verdict::Keep).collect();
    monitor.event(Event::Stage { name: "delete", files_total: going.len() as u64, bytes_total: 0 });
    for judged in going {
        let (no, id) = (judged.pack.no, &judged.pack.entry.id);
        // The catalog forgets it first: from then on nothing relies on it. A crash in between leaves a file that is adopted again.
        match plan.place {
            Place::Staging => {
                store.catalog().set_staged(no, false)?;
                store.staging().remove(&names::pack(id))?;
            }
            Place::Vault(vault) => {
                store.catalog().set_confirmed(no, vault, false)?;
                delete_from_vault(store, vault, id)?;
            }
        }
        done.packs += 1;
        done.bytes += judged.pack.entry.len;
        monitor.event(Event::Done { files: 1, bytes: judged.pack.entry.len });
    }
    if plan.place == Place::Staging {
        drop_empty_indexes(store)?;
    }
    store.reader().forget_places();
    Ok(done)
}

fn rewrite(store: &Store, plan: &ReclaimPlan) -> Result<u64, StoreError> {
    let thin: Vec<&PackRow> = plan.with(Verdict::Rewrite).map(|p| &p.pack).collect();
    if thin.is_empty() {
        return Ok(0);
    }
    let parts: IngestParts = store.ingest_parts(crate::seal::Compression::Zstd(3));
    let mut written = 0;
    for kind in [PackKind::Data, PackKind::Tree] {
        let of_kind: Vec<_> = thin.iter().copied().filter(|row| row.entry.kind == kind).collect();
        written += rewrite_packs(&parts, store.reader(), kind, &of_kind, &plan.live)?;
    }
    Ok(written)
}

fn delete_from_vault(store: &Store, vault: VaultNo, id: &PackId) -> Result<(), StoreError> {
    let transfer = store.vault(vault)?;
    let gone = transfer.delete(&names::pack(id));
    gone.map(drop).map_err(|source| StoreError::Vault { vault: transfer.address(), source })
}

/// Index objects whose packs are all gone are of no use; others may name packs that are gone, which readers pass over.
fn drop_empty_indexes(store: &Store) -> Result<(), StoreError> {
    for id in store.catalog().empty_indexes()? {
        store.staging().remove(&names::index(&id))?;
        store.catalog().remove_index(&id)?;
    }
    Ok(())
}
