//! What the catalog believes of vaults: filled from what a vault holds when it is first met, compared with its listings later
//! (`listing.rs`).
//!
//! Only what was listed counts. A listing is believed only of a vault that shows this store's config, and it takes
//! away no more than the belief that something is there (`catalog/places.rs`).

use std::collections::HashSet;
use std::time::Duration;

use super::listing::{Listed, compare_with_listing, listed_packs};
use super::{Fate, OpenSessions, Outcomes, SMALL_OBJECT, Store, learn};
use crate::catalog::{Mark, PointRow, Relied, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::format::config::StoreConfig;
use crate::id::{Attempt, RecoveryPointId, SourceTag};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::transfer::Transfer;
use crate::vault::VaultError;

/// A vault that does not list its packs within this time is away, as far as a backup is concerned, and what relies on it.
pub(crate) const LISTING_WAIT: Duration = Duration::from_secs(30);
/// Who is about to read waits no longer for what was freed.
const FOLLOWING_WAIT: Duration = Duration::from_secs(5);
/// A vault that was never looked at answers within this time, or the next command asks it again.
pub(super) const MEETING_WAIT: Duration = Duration::from_secs(10);

impl Store {
    /// Fills a catalog that was made anew, from staging and from the vaults; also one whose filling was cut off. What it
    /// does not tell of is not there for anybody, so an error, and another process at work, are told.
    pub(super) fn fill_catalog(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        if self.read_only {
            self.read_staging(monitor)?;
        } else {
            // First: what is forgotten here is looked for again in all places.
            self.mend_damaged_rows(monitor)?;
            self.fill_from_staging(monitor)?;
        }
        self.adopt_holds(monitor)?;
        self.meet_vaults(monitor)
    }

    /// Learns what those vaults hold that were never looked at. One that does not answer is told, and asked again by the next command.
    pub(super) fn meet_vaults(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        for (no, address, transfer) in &self.vaults {
            if self.catalog.knows_all_in(*no)? {
                continue;
            }
            if let Err(e) = self.meet(*no, transfer, monitor) {
                if e.class() == ErrorClass::Cancelled {
                    return Err(e);
                }
                let reason = format!("what it holds is not known yet: {e}");
                monitor.event(Event::Problem { path: address.clone().into_bytes(), reason });
            }
        }
        Ok(())
    }

    fn mend_damaged_rows(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        let rows = self.look_for_rows(false, Deadline::NEVER)?;
        if rows.is_empty() {
            return Ok(());
        }
        // Not before: nobody is kept from the lock while vaults are asked.
        let lock = self.lock();
        self.put_rows_right(rows, lock.is_ok(), monitor)
    }

    fn fill_from_staging(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        let filled = self.catalog.has_mark(Mark::Filled)?;
        // Whoever holds the lock knows of the points it makes.
        let knows_all = filled && self.knows_staged_points()? && !self.annex_is_new()?;
        let lock = if knows_all { None } else { Some(self.lock()) };
        let lock = if filled { lock.and_then(Result::ok) } else { lock.transpose()? };
        if lock.is_some() {
            self.reconcile(monitor)?;
            if !filled {
                self.adopt_marks(monitor)?;
            }
            // What was lost before, this catalog cannot know.
            if !self.catalog.point_ids()?.is_empty() {
                self.catalog.set_mark(Mark::Doubtful, true)?;
            }
            self.catalog.set_mark(Mark::Filled, true)?;
        }
        Ok(())
    }

    /// Learns what a vault holds that was never looked at. It must answer soon: whoever opens the store does not wait for a vault that is
    /// away. That may be much, and others take points meanwhile.
    fn meet(&self, no: VaultNo, transfer: &Transfer, monitor: &dyn Monitor) -> Result<(), StoreError> {
        let soon = Deadline::after(self.clock.as_ref(), MEETING_WAIT);
        names::list(transfer, names::SLOTS, soon).map_err(of_vault(transfer))?;
        // Nobody can have a lock of a store that cannot be written.
        let meeting = if self.read_only { Ok(None) } else { self.lock_meeting().map(Some) };
        match meeting.and_then(|_lock| learn::load_catalog(self, no, transfer, monitor)) {
            // Somebody else is at it, or removes points there: the next command looks again.
            Err(StoreError::Locked { .. }) => Ok(()),
            met => met,
        }
    }

    /// Learns what reclaim did in the vaults since somebody looked there: packs that went, and those in which what lived in them is now. Asks
    /// each vault for the names of its generations, and for no more if nothing went since. For who reads; one that does not answer soon is left out.
    pub fn follow_reclaim(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        if self.read_only {
            return Ok(());
        }
        for (no, address, transfer) in &self.vaults {
            let soon = Deadline::after(self.clock.as_ref(), FOLLOWING_WAIT);
            match self.follow_reclaim_in(*no, transfer, soon, monitor) {
                Err(e) if !is_of_vault(&e) => return Err(e),
                Err(e) => tracing::debug!("vault {address}: {e}; what was freed there is not known"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// The same of one vault, for who waits for it until the deadline.
    pub(crate) fn follow_reclaim_in(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        deadline: Deadline,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        let before = self.catalog.generations(no)?;
        self.read_generations(no, transfer, deadline)?;
        let there = self.catalog.pack_names_in(no)?;
        let may_be_gone = self.catalog.let_go_of(no, &there.keys().copied().collect())?;
        if may_be_gone.is_empty() && self.catalog.generations(no)? == before {
            return Ok(());
        }
        let listed = listed_packs(transfer, deadline)?;
        learn::learn_packs(self, no, transfer, &listed, deadline, monitor)?;
        for gone in may_be_gone.iter().filter(|id| !listed.contains_key(id)) {
            self.catalog.set_mark(Mark::Doubtful, true)?;
            self.catalog.set_confirmed(there[gone], no, false)?;
        }
        self.follow_removals(no, transfer, deadline, monitor)?;
        self.reader.forget_places();
        Ok(())
    }

    /// Learns which of the points that are known to be in a vault were removed there on purpose.
    fn follow_removals(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        soon: Deadline,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        let points = names::list(transfer, names::POINTS, soon).map_err(of_vault(transfer))?;
        let listed = Outcomes::of(&points);
        let doubted = self.incomplete_in(no)?;
        let may_be_there = |row: &PointRow| row.vaults.contains(&no) || doubted.contains(&row.id);
        for row in self.catalog.sound_points()?.into_iter().filter(may_be_there) {
            match self.fate_in(no, transfer, &row, &listed) {
                Ok(Fate::Forgotten) => self.catalog.remove_point(&row.id, Some(no))?,
                Ok(Fate::There | Fate::Missing) => {}
                Err(StoreError::NoKey { generation, .. }) => {
                    self.tell_newer_key(no, transfer, generation, monitor);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether a vault still has a point that the catalog says to be there. What became of it the catalog knows then; one that is nowhere else
    /// and was not removed on purpose stays known.
    pub fn is_still_in(&self, no: VaultNo, row: &PointRow) -> Result<bool, StoreError> {
        let transfer = self.vault(no)?;
        let listed = names::list(transfer, &names::points_of(&row.tag), Deadline::NEVER)
            .map_err(of_vault(transfer))?;
        let listed = Outcomes::of(&listed);
        match self.fate_in(no, transfer, row, &listed)? {
            Fate::There => Ok(true),
            Fate::Forgotten => self.catalog.remove_point(&row.id, Some(no)).map(|()| false),
            Fate::Missing => self.doubt_points(no, std::slice::from_ref(&row.id)).map(|()| false),
        }
    }

    /// Points that are not whole in a vault are not there: the next push sends what they lack, if anybody still has it. Those that are nowhere
    /// else stay known there. No other point is whole because one of these was.
    pub(crate) fn doubt_points(&self, no: VaultNo, points: &[RecoveryPointId]) -> Result<(), StoreError> {
        if self.read_only || points.is_empty() {
            return Ok(());
        }
        self.catalog.forget_proven(no)?;
        for id in points {
            // One that is on its way out is nobody's to bring back.
            match self.catalog.has_mark(Mark::Going(Some(no), *id))? {
                true if self.catalog.point(id)?.is_some_and(|row| is_elsewhere(&row, no)) => {
                    self.catalog.remove_point(id, Some(no))?;
                }
                _ => self.catalog.doubt_point(id, no)?,
            }
        }
        Ok(())
    }

    /// Points of a vault that lack something there, as far as is known.
    pub fn incomplete_in(&self, no: VaultNo) -> Result<HashSet<RecoveryPointId>, StoreError> {
        let all = self.catalog.incomplete()?.into_iter();
        Ok(all.filter(|(vault, _)| *vault == no).map(|(_, id)| id).collect())
    }

    /// Whether any point lacks something in these places, as far as is known.
    pub fn lacks_something_in(&self, places: &[Option<VaultNo>]) -> Result<bool, StoreError> {
        Ok(self.catalog.incomplete()?.iter().any(|(no, _)| places.contains(&Some(*no))))
    }

    /// Vaults that have a point, or had it and lack something of it, be it all.
    pub fn vaults_of(&self, row: &PointRow) -> Result<Vec<VaultNo>, StoreError> {
        let mut found = self.lacking_in(&row.id)?;
        found.retain(|no| !row.vaults.contains(no));
        Ok([row.vaults.clone(), found].concat())
    }

    /// Vaults of which it is noted that a point lacks something there.
    pub(super) fn lacking_in(&self, id: &RecoveryPointId) -> Result<Vec<VaultNo>, StoreError> {
        let mut found = Vec::new();
        for (no, _) in self.catalog.vaults()? {
            found.extend(self.catalog.has_mark(Mark::Incomplete(no, *id))?.then_some(no));
        }
        Ok(found)
    }

    /// Whether a vault lacks a point, or something of it.
    pub fn is_lacking(&self, no: VaultNo, row: &PointRow) -> Result<bool, StoreError> {
        Ok(!row.vaults.contains(&no) || self.catalog.has_mark(Mark::Incomplete(no, row.id))?)
    }

    /// Learns the packs that a listing shows and the catalog does not know.
    pub(crate) fn learn_listed(
        &self,
        no: VaultNo,
        listed: &Listed,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        if self.read_only {
            return Ok(());
        }
        learn::learn_packs(self, no, self.vault(no)?, listed, Deadline::NEVER, monitor).map(drop)
    }

    /// Asks the vaults that alone hold something what they hold, for a point that goes there: it relies on nothing that was not seen, nor on what
    /// is about to be freed. One that does not answer soon is left out, for a backup goes on when a vault is away. All are asked after
    /// packs were `forgotten`.
    pub(super) fn see_vaults(
        &self,
        point: &(SourceTag, RecoveryPointId),
        goes_into: &dyn Fn(&str) -> bool,
        forgotten: bool,
        monitor: &dyn Monitor,
    ) -> Result<Asked, StoreError> {
        let alone = self.catalog.vaults_that_alone_hold()?;
        // What was missed somewhere may have come back.
        let misses = forgotten || self.catalog.misses_packs()?;
        let mut asked = Asked::default();
        for (no, address, _) in &self.vaults {
            if !goes_into(address) || !alone.contains(no) && !misses {
                continue;
            }
            match self.see_for(*no, point, &mut asked, monitor) {
                Err(e) if !is_of_vault(&e) => return Err(e),
                Err(e) => tracing::warn!("vault {address}: {e}; nothing new relies on what it holds"),
                Ok(()) => {}
            }
        }
        asked.unsure |= alone.iter().any(|no| !asked.relied.vaults.contains(no));
        Ok(asked)
    }

    fn see_for(
        &self,
        no: VaultNo,
        point: &(SourceTag, RecoveryPointId),
        asked: &mut Asked,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        let deadline = Deadline::after(self.clock.as_ref(), LISTING_WAIT);
        let transfer = self.vault(no)?;
        // A new point, so nobody revoked anything of it.
        let (tag, attempt) = (point.0, Attempt::first(point.1));
        let open = self.open_sessions(no, transfer, &[(tag, attempt)], deadline)?;
        let listed = compare_with_listing(self, no, transfer, deadline, monitor)?;
        match learn::learn_packs(self, no, transfer, &listed, deadline, monitor) {
            Err(e) if !is_of_vault(&e) => return Err(e),
            Err(e) => tracing::warn!("vault {}: {e}; not all that it holds is known", transfer.address()),
            Ok(_) => {}
        }
        let seen = self.catalog.session_seen(no, &attempt)?.unwrap_or_default();
        asked.relied.except.extend(self.condemned_for(no, seen)?.into_iter().map(|pack| (no, pack)));
        // What an earlier point has may be in it.
        asked.unsure |= seen.unfinished;
        asked.relied.vaults.push(no);
        asked.open.push(open);
        Ok(())
    }
}

/// What vaults said before a point is taken that relies on them.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) relied: Relied,
    pub(super) open: Vec<OpenSessions>,
    /// Whether something that earlier points have may not be relied on.
    pub(super) unsure: bool,
}

/// Whether who asked several vaults goes on with the next one: not when somebody asks to stop, nor when the catalog is to blame.
fn is_of_vault(e: &StoreError) -> bool {
    e.class() != ErrorClass::Cancelled && !matches!(e, StoreError::Catalog { .. })
}

/// An error of this vault, named.
pub(crate) fn of_vault(transfer: &Transfer) -> impl Fn(VaultError) -> StoreError {
    let vault = transfer.address();
    move |source| StoreError::Vault { vault: vault.clone(), source }
}

/// Refuses a vault that does not show this store's config: nothing that it lists, or does not list, counts. Where a disk is
/// not mounted an empty directory may lie in its place.
///
/// # Errors
/// `NotFound` of the vault if there is no config; `NotOurs` if it is another store's; `Corrupt` if it is nobody's.
pub fn prove_ours(store: &Store, transfer: &Transfer, deadline: Deadline) -> Result<(), StoreError> {
    store.note_config(transfer, store.config_object());
    let looked = look_at_config(store, transfer, deadline);
    if looked.is_ok() && store.is_strange(transfer) {
        return look_at_config(store, transfer, deadline);
    }
    match looked {
        // Once more: the way from the vault may have flipped a bit.
        Err(StoreError::Corrupt { .. } | StoreError::NotOurs { .. }) => {
            look_at_config(store, transfer, deadline)
        }
        proof => proof,
    }
}

fn look_at_config(store: &Store, transfer: &Transfer, deadline: Deadline) -> Result<(), StoreError> {
    let config = transfer.get_by(&names::config(), SMALL_OBJECT, deadline).map_err(|e| match e {
        VaultError::NotFound { what } if what == names::config().as_str() => {
            VaultError::NotFound { what: "the store's config".into() }
        }
        e => e,
    });
    let config = config.map_err(of_vault(transfer))?;
    let theirs = StoreConfig::peek_vault_id(&config).map_err(|e| {
        StoreError::corrupt(format!("the config in vault {}", transfer.address()), e.to_string())
    })?;
    if theirs == *store.id() {
        store.note_config(transfer, &config);
        // Nobody who has the vault alone could open it, whatever else is there.
        return match config == store.config_object() {
            true => Ok(()),
            false => StoreConfig::decode(&config, store.sealer())
                .map(drop)
                .map_err(|e| e.of(format!("the config in vault {}", transfer.address()))),
        };
    }
    let detail = format!("the vault holds store {theirs}, this is {}", store.id());
    Err(StoreError::NotOurs { object: transfer.address(), detail })
}

/// Whether a point is in another place than this vault.
pub(super) fn is_elsewhere(row: &PointRow, no: VaultNo) -> bool {
    row.staged || row.vaults.iter().any(|vault| *vault != no)
}
