//! Freeing what no recovery point needs. First a plan with a reason for each pack, which can be printed; then the work.
//!
//! Of staging, between backups: [`free_staging`]. Of a vault, while others write to it: [`advance`]. The packs of
//! a place are judged by the points there, and by what points of other places need that was seen nowhere else (`beside`): one that goes online as soon
//! as it is taken does not store again what a vault has. If a single directory of a single point cannot be read there is no plan: what it needs is unknown.
//!
//! Nothing goes because something else has it unless that was seen for this plan (`beside`): places are listed anew, and
//! what a damaged pack holds is read in the packs that are to stand for it.

mod beside;
mod collect;
mod homes;
mod last_look;
mod locks;
mod staging;
mod unopened;

use std::collections::HashSet;

use self::beside::Within;
use crate::catalog::{PackNo, PackRow, VaultNo};
use crate::clock::Deadline;
use crate::copy;
use crate::error::StoreError;
use crate::fence::Revocation;
use crate::id::{Attempt, ChunkId, RecoveryPointId};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::reader::Tier;
use crate::store::{Store, open_index};
use crate::tree::reach::reachable;
use crate::vault::keeper::Lock;
use crate::vault::{ObjectName, VaultError};
pub use collect::{Awaited, Progress, Terms, advance};
pub use locks::StillLocked;
pub use staging::free_staging;
pub use unopened::Unopened;

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
    /// No point needs any of it; or it is damaged in a vault that has what points need of it in other packs.
    Delete,
    /// Points need less than 60 % of it, it is damaged, or it is to go and alone has it: what they need moves into new packs.
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
    /// Whether its bytes in this place were found damaged.
    pub bad: bool,
    /// Whether a generation of the vault names it: nothing new relies on it.
    pub condemned: bool,
    /// What is to be done.
    pub verdict: Verdict,
}

impl Judged {
    /// Whether another pack may go because this one has the same.
    fn is_home(&self) -> bool {
        self.live > 0 && !self.bad && !self.condemned
    }
}

/// What is to be done in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReclaimPlan {
    /// Where.
    pub place: Place,
    /// All packs there.
    pub packs: Vec<Judged>,
    /// Packs that do not open there and that may go.
    pub unopened: Vec<Unopened>,
    live: HashSet<ChunkId>,
    points: HashSet<RecoveryPointId>,
    /// Attempts whose outcome the listing showed that this was planned from.
    outcomes: HashSet<Attempt>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Packs removed.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Those among them of which something was written anew.
    pub packs_rewritten: u64,
    /// Bytes that were written anew.
    pub bytes_rewritten: u64,
    /// Packs that stay because something in them that points need cannot be read.
    pub packs_unreadable: u64,
    /// Packs removed that did not open.
    pub unopened: u64,
    /// Bytes of them.
    pub unopened_bytes: u64,
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

    /// Whether a point of this place needs a chunk.
    fn needs(&self, id: &ChunkId) -> bool {
        self.live.contains(id)
    }
}

/// Marks what the points of a place need and judges its packs.
pub fn plan(store: &Store, place: Place, monitor: &dyn Monitor) -> Result<ReclaimPlan, StoreError> {
    match place {
        Place::Staging => staging::plan(store, monitor),
        Place::Vault(no) => {
            store.refuse_unknown("reclaim", store.config().reclaim_features)?;
            Ok(homes::judge(store, no, homes::Trust::Catalog, monitor)?.0)
        }
    }
}

/// Packs whose bytes in a place were read and found damaged.
fn damaged(store: &Store, place: Place, rows: &[PackRow]) -> Result<HashSet<PackNo>, StoreError> {
    match place {
        Place::Staging => store.catalog().bad_packs(),
        Place::Vault(no) => {
            let bad = store.catalog().bad_in(no)?;
            Ok(rows.iter().filter(|row| bad.contains(&row.entry.id)).map(|row| row.no).collect())
        }
    }
}

/// The points of a place, and the attempts that ended there with or without one.
struct Known {
    points: Vec<RecoveryPointId>,
    outcomes: HashSet<Attempt>,
}

/// What a point needs that the catalog does not know would be taken for garbage: the place itself says which points it has.
fn know_points(store: &Store, place: Place) -> Result<Known, StoreError> {
    let listed = match place {
        Place::Vault(no) => copy::learn_points(store, no, store.vault(no)?)?,
        Place::Staging => store.staging().list(names::POINTS.trim_end_matches('/'))?,
    };
    let mut points = points_of(store, place)?;
    let revoked = match place {
        Place::Vault(no) => store.catalog().revoked_in(no)?,
        Place::Staging => HashSet::new(),
    };
    let counted: HashSet<RecoveryPointId> = points.iter().copied().collect();
    let mut outcomes = HashSet::new();
    for object in &listed {
        let attempt = names::outcome_of(&object.name).map(|(_, attempt)| attempt);
        outcomes.extend(attempt);
        match attempt {
            Some(Attempt { point, .. }) if counted.contains(&point) => {}
            Some(attempt) if object.len == Revocation::LEN && revoked.contains(&attempt) => {}
            // It is not whole there, as far as is known, and what it needs counts all the same.
            Some(Attempt { point, .. }) if store.catalog().point(&point)?.is_some() => points.push(point),
            _ => {
                let detail = "it cannot be read, so what it needs is unknown, and nothing is removed";
                return Err(StoreError::corrupt(object.name.as_str(), detail));
            }
        }
    }
    Ok(Known { points, outcomes })
}

fn points_of(store: &Store, place: Place) -> Result<Vec<RecoveryPointId>, StoreError> {
    let in_place = store.catalog().points()?.into_iter().filter(|row| match place {
        Place::Staging => row.staged,
        Place::Vault(no) => row.vaults.contains(&no),
    });
    Ok(in_place.map(|row| row.id).collect())
}

/// Adds what these points of a place need to `live`, and the pages below which that was looked at to `pages`. Which of them were there.
fn mark(
    store: &Store,
    place: Place,
    points: &[RecoveryPointId],
    (live, pages): (&mut HashSet<ChunkId>, &mut HashSet<ChunkId>),
    by: &(dyn Fn() -> Deadline + Sync),
    monitor: &dyn Monitor,
) -> Result<Vec<RecoveryPointId>, StoreError> {
    let source = Within { reader: store.reader(), farthest: Tier::Vault, by };
    monitor.event(Event::Stage { name: "mark", files_total: points.len() as u64, bytes_total: 0 });
    let mut there = Vec::new();
    for id in points {
        let point = match store.point(id) {
            // Nobody is kept from forgetting it meanwhile.
            Err(_) if place == Place::Staging && store.catalog().point(id)?.is_none() => continue,
            stored => stored?.point,
        };
        let looked = reachable(&source, &point.root, pages, &mut |_, id| {
            live.insert(*id);
            Ok(())
        });
        looked.map_err(|e| match e {
            StoreError::NotFound { what } => {
                let detail = format!("{what} is nowhere; nothing is removed as long as the point is there");
                StoreError::corrupt(format!("recovery point {}", id.short()), detail)
            }
            e => e,
        })?;
        there.push(*id);
        monitor.event(Event::Done { files: 1, bytes: 0 });
    }
    Ok(there)
}

/// Forgets packs that listings missed and that nobody waits for: all that the points of these plans need of them lies in another
/// pack. Nothing is forgotten while points are in a vault for which there is no plan.
pub fn forget_missed(store: &Store, plans: &[ReclaimPlan]) -> Result<(), StoreError> {
    let planned: HashSet<RecoveryPointId> =
        plans.iter().flat_map(|plan| plan.points.iter().copied()).collect();
    if store.catalog().points()?.iter().any(|row| !planned.contains(&row.id)) {
        return Ok(());
    }
    for row in store.catalog().packs_ever_seen()?.iter().filter(|row| !row.staged && row.vaults.is_empty()) {
        let mut awaited = false;
        for chunk in store.catalog().chunks_of(row.no)? {
            let needed = plans.iter().any(|plan| plan.needs(&chunk.id));
            awaited |= needed && store.catalog().locate(&chunk.id)?.is_none();
        }
        if !awaited {
            store.catalog().forget_missed(row.no)?;
        }
    }
    Ok(())
}

/// Removes an object, or says what keeps it: that is no error, it goes with a later run.
fn delete_from_vault(store: &Store, vault: VaultNo, name: &ObjectName) -> Result<Option<Lock>, StoreError> {
    let transfer = store.vault(vault)?;
    match transfer.delete(name) {
        Ok(_) => Ok(None),
        Err(VaultError::Locked { lock, .. }) => Ok(Some(lock)),
        Err(source) => Err(StoreError::Vault { vault: transfer.address(), source }),
    }
}

/// Index objects whose packs are all gone are of no use, and whoever recovers a store reads all of them. One of which it is not sure that a generation let all of its packs go
/// stays: somebody may just have put it, and its packs.
fn drop_empty_indexes_of(store: &Store, vault: VaultNo) -> Result<(), StoreError> {
    let transfer = store.vault(vault)?;
    for id in store.catalog().empty_indexes_of(vault)? {
        let name = names::index(&id);
        let opened = open_index(store, transfer, &name, id, Deadline::NEVER)?;
        let covered = opened.map(|index| index.packs.iter().map(|pack| pack.id).collect::<HashSet<_>>());
        let may_go = match &covered {
            Ok(packs) => store.catalog().let_go_of(vault, packs)?.len() == packs.len(),
            // It covers nothing for anybody.
            Err(e) => e.is_damage(),
        };
        if may_go && delete_from_vault(store, vault, &name)?.is_none() {
            store.catalog().remove_index_from(&id, vault)?;
        }
    }
    Ok(())
}
