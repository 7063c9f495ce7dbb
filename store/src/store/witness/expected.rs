//! What a vault should have by what this machine knows, for who recovers from the vault alone and does not ask this machine.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::compare::{LookBack, State};
use super::{Before, Evidence, Known, accept};
use crate::catalog::VaultNo;
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SourceTag};
use crate::names;
use crate::store::{Outcomes, Store, of_vault};

/// Points that a vault had, as far as this machine knew at one moment.
#[derive(Debug)]
pub struct Expected {
    before: Before,
    points: BTreeMap<RecoveryPointId, Known>,
}

impl Store {
    /// What a vault should have: points that the catalog says to be there, the newest ones of each source that were seen there, and those that
    /// are missed. Nothing of which somebody accepted that it is lost.
    pub fn expected_in(&self, no: VaultNo) -> Result<Expected, StoreError> {
        let before = self.before(no)?;
        let memory = &before.memory;
        let known = memory.heads.values().chain(memory.missing.values()).chain(&before.there);
        let known = known.filter(|known| !accept::is_accepted(&memory.accepted, &known.id));
        let points = known.map(|known| (known.id, *known)).collect();
        Ok(Expected { before, points })
    }
}

impl Expected {
    /// Whether nothing is known to be there.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Expects no other points than those of some sources.
    pub fn only_of(&mut self, sources: &HashSet<SourceTag>) {
        self.points.retain(|_, known| sources.contains(&known.tag));
    }

    /// The points that are not among those `found` there since, and of which the vault has no word that somebody removed them. Asks the vault
    /// nothing if all were found.
    pub fn lost(
        &self,
        store: &Store,
        no: VaultNo,
        found: &HashSet<RecoveryPointId>,
    ) -> Result<Vec<RecoveryPointId>, StoreError> {
        let unfound: Vec<&Known> = self.points.values().filter(|known| !found.contains(&known.id)).collect();
        if unfound.is_empty() {
            return Ok(Vec::new());
        }
        let transfer = store.vault(no)?;
        let listed = names::list(transfer, names::POINTS, Deadline::NEVER).map_err(of_vault(transfer))?;
        let look = LookBack {
            store,
            no,
            transfer,
            before: &self.before,
            outcomes: Outcomes::of(&listed),
            attempts: HashMap::new(),
            evidence: Evidence::default(),
        };
        let mut lost = Vec::new();
        for known in unfound {
            match look.state(known, lost.len()) {
                // What stands there only a newer key opens: that is told by who met it.
                Ok(State::Removed) | Err(StoreError::NoKey { .. }) => {}
                // One that is listed did not open.
                Ok(State::There | State::Missing) => lost.push(known.id),
                Err(e) => return Err(e),
            }
        }
        Ok(lost)
    }
}
