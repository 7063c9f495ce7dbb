//! The last look at a pack before it is removed. What let it go may have been decided days ago, by another machine, and by what index objects
//! said: the pack itself says what it holds, and what points need of that was read in packs that stay and were not found damaged since.

use std::collections::HashSet;

use super::beside::{Others, Proofs, tell};
use super::{Judged, ReclaimPlan};
use crate::catalog::VaultNo;
use crate::check::OTHERWISE;
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::format::FormatError;
use crate::monitor::Monitor;
use crate::names;
use crate::pack::PackedChunk;
use crate::store::{PackError, Store, read_pack_entry};

/// Looks at packs of one vault, by a plan for it.
pub(super) struct LastLook<'a> {
    store: &'a Store,
    no: VaultNo,
    plan: &'a ReclaimPlan,
    others: &'a Others,
    proofs: Proofs<'a>,
    monitor: &'a dyn Monitor,
}

impl<'a> LastLook<'a> {
    pub(super) fn new(
        store: &'a Store,
        no: VaultNo,
        (plan, others): (&'a ReclaimPlan, &'a Others),
        monitor: &'a dyn Monitor,
    ) -> Result<Self, StoreError> {
        let homes = plan.packs.iter().filter(|judged| judged.is_home()).map(|judged| judged.pack.clone());
        let proofs = Proofs::of(store, no, homes, monitor).with_those_of_before()?;
        Ok(Self { store, no, plan, others, proofs, monitor })
    }

    /// Whether a pack may go; then the catalog misses it, so that nothing here relies on it any more. What it holds is known until it is gone:
    /// it may stay. Why it stays is told.
    pub(super) fn lets_go(&mut self, judged: &Judged) -> Result<bool, StoreError> {
        let Some(mut chunks) = self.contents(judged)? else { return Ok(false) };
        // What another place was to have for points that are there it may have lost since.
        let mut held = HashSet::new();
        self.others.hold(self.store, &chunks, &mut held)?;
        chunks.retain(|chunk| self.plan.needs(&chunk.id) || held.contains(&chunk.id));
        let goes = (chunks.is_empty() || self.proofs.have(&chunks)?) && self.is_missed_by_nobody(judged)?;
        if !goes {
            self.it_stays(judged, "recovery points need it, and it was read in no other pack that stays");
        }
        Ok(goes)
    }

    /// Whether other places still have what it holds once the catalog misses it. Who frees another place at the same time does likewise there, so
    /// one of the two sees that the other one's copy goes.
    fn is_missed_by_nobody(&mut self, judged: &Judged) -> Result<bool, StoreError> {
        let (catalog, no) = (self.store.catalog(), judged.pack.no);
        catalog.miss_confirmed(no, self.no)?;
        let (mut chunks, mut held) = (catalog.chunks_of(no)?, HashSet::new());
        self.others.hold(self.store, &chunks, &mut held)?;
        chunks.retain(|chunk| held.contains(&chunk.id));
        let missed_by_nobody = chunks.is_empty() || self.proofs.have(&chunks)?;
        if !missed_by_nobody {
            catalog.set_confirmed(no, self.no, true)?;
        }
        Ok(missed_by_nobody)
    }

    /// What it holds; nothing if that is not what it was judged by, and the next run judges it anew.
    fn contents(&self, judged: &Judged) -> Result<Option<Vec<PackedChunk>>, StoreError> {
        let (catalog, transfer) = (self.store.catalog(), self.store.vault(self.no)?);
        let (id, len) = (&judged.pack.entry.id, judged.pack.entry.len);
        match read_pack_entry(self.store, transfer, id, len, Deadline::NEVER) {
            // The bytes of another pack lie there: of this one they give nobody anything.
            Ok((entry, chunks))
                if self.store.is_disputed(&entry, &chunks)? && self.store.is_of_another(&entry)? =>
            {
                catalog.chunks_of(judged.pack.no).map(Some)
            }
            Ok((entry, chunks)) if self.store.put_right(judged.pack.no, &entry, &chunks)? => {
                self.it_stays(judged, OTHERWISE);
                Ok(None)
            }
            Ok((_, chunks)) => Ok(Some(chunks)),
            Err(PackError::Format(e @ FormatError::NoKey(_))) => Err(e.of(names::pack(id).as_str())),
            // It gives nobody what the catalog does not know of.
            Err(PackError::Format(_)) => catalog.chunks_of(judged.pack.no).map(Some),
            // Somebody else removed it.
            Err(PackError::Store(e)) if e.class() == ErrorClass::NotFound => Ok(Some(Vec::new())),
            Err(PackError::Store(e)) => Err(e),
        }
    }

    fn it_stays(&self, judged: &Judged, why: &str) {
        let reason = format!("a generation lets it go, and it stays: {why}");
        tell(self.monitor, names::pack(&judged.pack.entry.id).as_str(), reason);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::monitor::VoidMonitor;
    use crate::reclaim::homes::{Trust, judge};
    use crate::store::tests::heal::vaulted;

    #[test]
    fn what_staging_lets_go_at_the_same_moment_stays_in_the_vault() {
        let (_home, vault, store, one, name) = vaulted();
        let point = store.catalog().point(&one.point.id).unwrap().unwrap();
        let no = store.vaults()[0].0;
        store.remove_point_from_vault(no, &point).unwrap();
        let (plan, others) = judge(&store, no, Trust::Catalog, &VoidMonitor).unwrap();
        let judged = plan.packs.iter().find(|judged| names::pack(&judged.pack.entry.id) == name).unwrap();
        let mut look = LastLook::new(&store, no, (&plan, &others), &VoidMonitor).unwrap();
        // After it looked, who frees staging says that the pack goes there, and looks again: so does this one.
        store.catalog().set_staged(judged.pack.no, false).unwrap();
        assert!(!look.is_missed_by_nobody(judged).unwrap());
        let row = store.catalog().pack(judged.pack.no).unwrap().unwrap();
        assert_eq!(row.vaults, [no], "and it counts as there");
        store.catalog().set_staged(judged.pack.no, true).unwrap();
        assert!(look.lets_go(judged).unwrap());
        assert!(store.catalog().pack(judged.pack.no).unwrap().unwrap().vaults.is_empty());
        assert!(vault.object(&name).is_some(), "to look removes nothing");
    }
}
