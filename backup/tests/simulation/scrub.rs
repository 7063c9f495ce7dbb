//! What `scrub` does: some packs are read again, and what is damaged is put right from where it is whole.

use holdfast_store::StoreError;
use holdfast_store::check::{self, Turn};
use holdfast_store::clock::Clock;
use holdfast_store::copy;
use holdfast_store::fence::Why;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::scrub::ciphertext::Part;
use holdfast_store::scrub::rotation::{Wanted, choose};
use holdfast_store::store::Store;

use crate::doors::Time;
use crate::machine::{Came, POINTS_AT_ONCE, Worker};

impl Worker {
    /// Reads again what is wanted of staging and of the vault, and puts right what is damaged there.
    pub(crate) fn scrub(&self, store: &Store, wanted: Wanted) -> Result<Came, StoreError> {
        let (no, now) = (store.vaults()[0].0, Time(self.process.clone()).now());
        let mut turns = Vec::new();
        for place in [None, Some(no)] {
            turns.push(Turn { place, packs: choose(store.catalog().copies_in(place)?, wanted, now) });
        }
        let report = check::scrub(store, &turns, Part::WHOLE, &VoidMonitor)?;
        let found: Vec<_> = report.findings.iter().filter(|finding| !finding.unseen).collect();
        let told: Vec<_> = found.iter().map(|f| format!("{}: {}", f.object, f.detail)).collect();
        if !told.is_empty() {
            self.life().world().tell(|| format!("{} finds {told:?}", self.machine));
        }
        if !told.is_empty() || !store.incomplete_in(no)?.is_empty() {
            // What one place keeps from being healed keeps nothing from the other.
            let here = store.heal_staging(&VoidMonitor).map(|healed| {
                for healed in healed {
                    self.life().world().tell(|| format!("{} has {} again", self.machine, healed.pack));
                }
            });
            self.heal_vault(store)?;
            here?;
        }
        Ok(Came::Checked(told))
    }

    /// A push of the points that the vault has.
    fn heal_vault(&self, store: &Store) -> Result<(), StoreError> {
        let (no, _, transfer) = &store.vaults()[0];
        let (mut rows, incomplete) = (store.catalog().sound_points()?, store.incomplete_in(*no)?);
        rows.retain(|row| row.vaults.contains(no) || incomplete.contains(&row.id));
        rows.sort_by_key(|row| (row.started, row.id));
        copy::refresh_vault(store, *no, transfer, &VoidMonitor)?;
        let mut lacking: Vec<RecoveryPointId> = Vec::new();
        for id in rows.iter().map(|row| row.id) {
            let Some(row) = store.catalog().point(&id)? else { continue };
            let is_forgotten = store.catalog().why_revoked(*no, &id)? == Some(Why::Forgotten);
            lacking.extend((store.is_lacking(*no, &row)? && !is_forgotten).then_some(id));
        }
        lacking.chunks(POINTS_AT_ONCE).try_for_each(|some| self.push(store, some))
    }
}
