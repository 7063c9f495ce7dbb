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

    /// Whether a pack may go. Why it stays is told.
    pub(super) fn lets_go(&mut self, judged: &Judged) -> Result<bool, StoreError> {
        let Some(mut chunks) = self.contents(judged)? else { return Ok(false) };
        // What another place was to have for points that are there it may have lost since.
        let mut held = HashSet::new();
        self.others.hold(self.store, &chunks, &mut held)?;
        chunks.retain(|chunk| self.plan.needs(&chunk.id) || held.contains(&chunk.id));
        let goes = chunks.is_empty() || self.proofs.have(&chunks)?;
        if !goes {
            self.it_stays(judged, "recovery points need it, and it was read in no other pack that stays");
        }
        Ok(goes)
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
