//! What this machine knows to be in the vault that is drilled. It gives nothing to the recovery; it says which points should have come of it.

use std::collections::HashSet;

use holdfast_store::catalog::VaultNo;
use holdfast_store::id::{RecoveryPointId, SourceTag, VaultId};
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::store::{Expected, Store, StoredPoint};

use crate::commands::Context;
use crate::commands::scope::ScopeArgs;
use crate::open::{Bounds, open_unlocked};
use crate::outcome::Failure;

/// The store on this machine, and what it expected in the vault before anything was recovered from there.
pub struct Known {
    store: Store,
    no: VaultNo,
    expected: Expected,
}

impl Known {
    /// None if this machine has no store of that vault, or one that cannot be opened, which is told: a recovery needs neither.
    pub fn of(
        context: &Context<'_>,
        address: &str,
        vault: &VaultId,
        ring: &KeyRing,
    ) -> Result<Option<Self>, Failure> {
        let Ok(dir) = context.settings.store() else { return Ok(None) };
        if !Store::head(dir).is_ok_and(|head| head.vault == *vault) {
            return Ok(None);
        }
        match Self::opened(open_unlocked(context, dir, vault, ring, Bounds::default()), address) {
            Err(failure) if context.terminal.cancelled() => Err(failure),
            Err(failure) => {
                let told = format!(
                    "what comes from vault {address} is not held against what this machine knows: {}",
                    failure.message
                );
                context.terminal.warn(&told);
                Ok(None)
            }
            known => known,
        }
    }

    fn opened(store: Result<Store, Failure>, address: &str) -> Result<Option<Self>, Failure> {
        let store = store?;
        let Some(no) = store.vaults().iter().find(|vault| vault.1 == address).map(|vault| vault.0) else {
            return Ok(None);
        };
        let expected = store.expected_in(no)?;
        Ok(Some(Self { store, no, expected }))
    }

    /// Points in scope that should be in the vault, and that are not among those that came from there.
    pub fn lost(&mut self, scope: &ScopeArgs, came: &[StoredPoint]) -> Result<Vec<RecoveryPointId>, Failure> {
        if !scope.is_empty() {
            let in_scope = scope.select(self.store.points()?);
            let tags: HashSet<SourceTag> = in_scope.iter().map(|stored| stored.point.source_tag).collect();
            self.expected.only_of(&tags);
        }
        let found: HashSet<RecoveryPointId> = came.iter().map(|stored| stored.point.id).collect();
        Ok(self.expected.lost(&self.store, self.no, &found)?)
    }
}
