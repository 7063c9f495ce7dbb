//! Is everything there that the recovery points need, and is it whole? Names the damaged packs and the files they touch.
//!
//! It takes no lock, but to put right what is damaged in the catalog, and others work meanwhile: what the catalog says is read before the places are listed, and whatever seems
//! wrong then is looked up again before it is told. A vault that does not answer is told once and left out from then on.

mod catalog;
mod holds;
mod objects;
mod packs;
mod points;
mod scrub;
mod witness;

pub(crate) use packs::{OTHERWISE, prove_in_vault};
pub use scrub::{Turn, scrub};

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::catalog::{PackNo, PackRow, PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::id::{ChunkId, PackId, RecoveryPointId};
use crate::monitor::{Event, Monitor};
use crate::scrub::ciphertext::Part;
use crate::store::{Alarm, Before, LISTING_WAIT, NEWER_KEY, Store, prove_ours};
use crate::vault::ObjectInfo;

/// How thorough a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every pack is there with its length, every chunk of every point lies in one.
    Structure,
    /// Besides, every byte of every pack is read, opened and hashed.
    ReadData,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Pack, point or other object.
    pub object: String,
    /// What is wrong with it.
    pub detail: String,
    /// It could not be looked at: nothing is known to be damaged.
    pub unseen: bool,
}

/// A file that cannot be restored whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AffectedFile {
    /// The point.
    pub point: RecoveryPointId,
    /// Path below its root, raw bytes.
    pub path: Vec<u8>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Points looked at.
    pub points: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Bytes read and proven.
    pub bytes_read: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Files that some finding touches; at most [`FILES_LISTED`].
    pub files: Vec<AffectedFile>,
}

/// Files named in a report.
pub const FILES_LISTED: usize = 10_000;

/// Checks the whole store, all tiers that can be reached.
pub fn check(store: &Store, depth: Depth, monitor: &dyn Monitor) -> Result<Report, StoreError> {
    let catalog = store.catalog();
    store.mend_packs(monitor)?;
    store.mend_rows(true, false, monitor)?;
    store.follow_reclaim(monitor)?;
    // Before anything is looked at: what others miss from now on may have been looked at already.
    let doubt = catalog.doubt()?;
    let (points, packs) = (catalog.sound_points()?, catalog.packs()?);
    let mut check = Check::of(store, monitor)?;
    // Before anything is listed: others push meanwhile.
    for (no, _, _) in store.vaults() {
        check.remembered.insert(*no, store.before(*no)?);
    }
    check.catalog()?;
    check.ways()?;
    check.existence(&packs, depth)?;
    if depth == Depth::ReadData {
        check.read_data(&packs)?;
    }
    check.points()?;
    check.vaulted_points()?;
    check.point_objects(&points, depth)?;
    check.slots()?;
    check.generations()?;
    check.holds()?;
    check.witness(depth)?;
    check.newer_keys();
    check.goes_on()?;
    if check.report.findings.is_empty() {
        // Every chunk of every point was looked up since: nothing that was in doubt by then is missing.
        catalog.end_doubt(doubt)?;
    }
    Ok(check.report)
}

struct Check<'a> {
    store: &'a Store,
    monitor: &'a dyn Monitor,
    report: Report,
    /// Staging (`None`) and vaults that are looked at; all, if nothing is said.
    only: Option<HashSet<Option<VaultNo>>>,
    /// Which of the points of a vault are read, where all data is.
    part: Part,
    /// Packs that were found damaged in staging before.
    bad: HashSet<PackNo>,
    /// Chunks that no tier can give.
    bad_chunks: HashSet<ChunkId>,
    /// Whether an annex is away: what is nowhere else may be there.
    annexes_away: bool,
    /// Packs that are known to lie there.
    out_of_sight: BTreeSet<PackId>,
    /// Chunks of packs of which the catalog has a damaged row: one of them may not be found, and is not lost.
    hidden: HashSet<ChunkId>,
    /// Packs that were proven and are not yet noted as such.
    proven: Vec<(PackNo, Option<VaultNo>)>,
    /// Vaults that cannot be looked at: what they hold is not known to be lost.
    away: HashSet<VaultNo>,
    /// How many packs a vault did not give, one after the other.
    not_given: HashMap<VaultNo, u32>,
    /// What the vaults that answer show.
    listings: HashMap<VaultNo, Listing>,
    /// What was known of the vaults before they were listed.
    remembered: HashMap<VaultNo, Before>,
    /// What lies there under the name of another.
    swapped: HashMap<VaultNo, Vec<Alarm>>,
}

/// What a vault showed when it was listed, its points before its packs: all that these points need was there by then.
struct Listing {
    points: Vec<ObjectInfo>,
    /// Packs with the right length.
    packs: HashSet<PackNo>,
}

/// Where something is or should be.
#[derive(Clone, Copy)]
enum Place {
    Staging,
    Vault(VaultNo),
}

impl Place {
    fn vault(self) -> Option<VaultNo> {
        match self {
            Self::Staging => None,
            Self::Vault(no) => Some(no),
        }
    }
}

impl<'a> Check<'a> {
    fn of(store: &'a Store, monitor: &'a dyn Monitor) -> Result<Self, StoreError> {
        Ok(Self {
            store,
            monitor,
            report: Report::default(),
            only: None,
            part: Part::WHOLE,
            bad: store.catalog().bad_packs()?,
            bad_chunks: HashSet::new(),
            annexes_away: false,
            out_of_sight: BTreeSet::new(),
            hidden: HashSet::new(),
            proven: Vec::new(),
            away: HashSet::new(),
            not_given: HashMap::new(),
            listings: HashMap::new(),
            remembered: HashMap::new(),
            swapped: HashMap::new(),
        })
    }
}

impl Check<'_> {
    /// Whether a place is one of those that are looked at.
    fn looks_at(&self, vault: Option<VaultNo>) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&vault))
    }

    /// Whether there is no place that is not looked at.
    fn looks_at_all(&self) -> bool {
        self.looks_at(None) && self.store.vaults().iter().all(|vault| self.looks_at(Some(vault.0)))
    }

    fn find(&mut self, object: impl Into<String>, detail: impl Into<String>) {
        self.tell(Finding { object: object.into(), detail: detail.into(), unseen: false });
    }

    /// What could not be looked at is told, and is no damage.
    fn pass_over(&mut self, object: impl Into<String>, detail: impl Into<String>) {
        self.tell(Finding { object: object.into(), detail: detail.into(), unseen: true });
    }

    /// Whoever asked to stop is told of nothing any more: it may have failed because of that.
    fn goes_on(&self) -> Result<(), StoreError> {
        if self.monitor.cancelled() { Err(StoreError::Cancelled) } else { Ok(()) }
    }

    fn tell(&mut self, finding: Finding) {
        if self.goes_on().is_err() {
            return;
        }
        let (path, reason) = (finding.object.clone().into_bytes(), finding.detail.clone());
        self.monitor.event(Event::Problem { path, reason });
        self.report.findings.push(finding);
    }

    /// Vaults that alone hold something and that nobody can ask.
    fn ways(&mut self) -> Result<(), StoreError> {
        for no in self.store.catalog().vaults_that_alone_hold()? {
            if !self.store.vaults().iter().any(|vault| vault.0 == no) {
                self.pass_over(
                    self.store.catalog().vault_address(no),
                    "there is no way to it, and it holds what nobody else has",
                );
                self.away.insert(no);
            }
        }
        Ok(())
    }

    /// Of what only a newer key opens nothing is known. It was told when it was met.
    fn newer_keys(&mut self) {
        for (no, generation) in self.store.newer_keys().iter() {
            let detail = format!("it holds objects sealed with key generation {generation}; {NEWER_KEY}");
            let object = self.store.catalog().vault_address(*no);
            self.report.findings.push(Finding { object, detail, unseen: true });
        }
    }

    /// A vault that does not answer is told once, and is not asked again.
    fn leave_out(&mut self, no: VaultNo, e: &StoreError) {
        if self.away.insert(no) {
            let way_out = match e {
                StoreError::NoKey { .. } => format!("; {NEWER_KEY}"),
                _ => String::new(),
            };
            self.tell(Finding {
                object: self.store.catalog().vault_address(no),
                detail: format!("it cannot be looked at: {}{way_out}", e.beside_vault()),
                // A config that is damaged is no outage.
                unseen: e.class() != ErrorClass::Corrupt,
            });
        }
    }

    /// Whether a vault shows that it is there and ours, so that what went wrong there was of one object.
    fn answers(&self, no: VaultNo) -> bool {
        let soon = Deadline::after(self.store.clock().as_ref(), LISTING_WAIT);
        let shown = self.store.vault(no).and_then(|transfer| prove_ours(self.store, transfer, soon));
        if shown.is_ok() {
            // Else what else is in it would not be asked for.
            self.store.reader().vault_answers(no);
        }
        shown.is_ok()
    }

    /// Whether a pack is still said to be in a place: others may have removed it since the check began.
    fn pack_still_in(&self, row: &PackRow, place: Place) -> Result<bool, StoreError> {
        let now = self.store.catalog().pack(row.no)?;
        Ok(now.is_some_and(|now| match place {
            Place::Staging => now.staged,
            Place::Vault(no) => now.vaults.contains(&no),
        }))
    }

    /// The same of a point.
    fn point_still_in(&self, id: &RecoveryPointId, place: Place) -> Result<bool, StoreError> {
        let now: Option<PointRow> = self.store.catalog().point(id)?;
        Ok(now.is_some_and(|now| match place {
            Place::Staging => now.staged,
            Place::Vault(no) => now.vaults.contains(&no),
        }))
    }
}
