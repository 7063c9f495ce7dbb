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

    /// Lets a pack go if nobody needs it: then the catalog misses it, so that nothing here relies on it any more. What it holds is known until
    /// it is gone: it may stay. Why it stays is told.
    pub(super) fn let_go(&mut self, judged: &Judged) -> Result<bool, StoreError> {
        let Some(chunks) = self.contents(judged)? else { return Ok(false) };
        let (catalog, no) = (self.store.catalog(), judged.pack.no);
        // Of one that is gone, or gives nobody anything, there is nothing to look for.
        if chunks.is_empty() {
            return catalog.miss_confirmed(no, self.no).map(|()| true);
        }
        let mut goes = self.nobody_needs(chunks.clone())?;
        if goes {
            catalog.miss_confirmed(no, self.no)?;
            // Who frees another place at the same time does likewise there, so one of the two sees that the other one's copy goes.
            let looked = self.nobody_needs(chunks);
            if !matches!(looked, Ok(true)) {
                catalog.set_confirmed(no, self.no, true)?;
            }
            goes = looked?;
        }
        if !goes {
            self.it_stays(judged, "recovery points need it, and it was read in no other pack that stays");
        }
        Ok(goes)
    }

    /// Whether what points need of these was read in packs of this vault that stay. What another place was to have for points that are there it
    /// may have lost since.
    fn nobody_needs(&mut self, mut chunks: Vec<PackedChunk>) -> Result<bool, StoreError> {
        let mut held = HashSet::new();
        self.others.hold(self.store, &chunks, &mut held)?;
        chunks.retain(|chunk| self.plan.needs(&chunk.id) || held.contains(&chunk.id));
        Ok(chunks.is_empty() || self.proofs.have(&chunks)?)
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
        let chunks = store.catalog().chunks_of(judged.pack.no).unwrap();
        assert!(look.nobody_needs(chunks.clone()).unwrap());
        // After this look who frees staging notes that the pack goes there, and looks again: so does this one.
        store.catalog().leave_staging(judged.pack.no).unwrap();
        assert!(!look.nobody_needs(chunks).unwrap() && !look.let_go(judged).unwrap());
        let row = store.catalog().pack(judged.pack.no).unwrap().unwrap();
        assert_eq!(row.vaults, [no], "and it counts as there");
        store.catalog().set_staged(judged.pack.no, true).unwrap();
        assert!(look.let_go(judged).unwrap());
        assert!(store.catalog().pack(judged.pack.no).unwrap().unwrap().vaults.is_empty());
        assert!(vault.object(&name).is_some(), "to look removes nothing");
        // Somebody else removes it: it does not come back into the catalog, whoever needs it.
        store.catalog().set_confirmed(judged.pack.no, no, true).unwrap();
        store.catalog().leave_staging(judged.pack.no).unwrap();
        vault.lose(&name);
        assert!(look.let_go(judged).unwrap());
        assert!(store.catalog().pack(judged.pack.no).unwrap().unwrap().vaults.is_empty());
    }
}
