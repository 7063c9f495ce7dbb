//! Packs of which an index object says something else than the catalog knows. Whoever has the ring can put an index object that says of
//! another machine's pack what does not lie in it; and where that is read first, nothing of the pack would be found. So where two say
//! different things the pack's own directory is asked, and what it says is known from then on; of a pack that lies elsewhere as well, only
//! if all bytes of this copy have its name: other places are not given up for the word of one.

use std::collections::BTreeSet;

use super::Store;
use super::learn::{PackError, problem, read_pack_entry};
use crate::catalog::{PackRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::PackId;
use crate::monitor::Monitor;
use crate::names;
use crate::pack::{self, PackEntry, PackedChunk};
use crate::transfer::Transfer;

/// Whether chunks fill a pack from its beginning to its end, as those of its directory do.
pub(super) fn fills(entry: &PackEntry, chunks: &[PackedChunk]) -> bool {
    let len = chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
    len == entry.raw_len() && len < 1 << 32
}

impl Store {
    /// Whether the catalog knows another directory of this pack. A row that is damaged knows none: it is put right elsewhere.
    pub(super) fn is_disputed(&self, entry: &PackEntry, chunks: &[PackedChunk]) -> Result<bool, StoreError> {
        let look = || {
            let Some(row) = self.catalog().pack_by_id(&entry.id)? else { return Ok(false) };
            Ok::<_, StoreError>(row.entry != *entry || self.catalog().chunks_of(row.no)? != chunks)
        };
        match look() {
            Err(e) if e.is_of_changed_catalog() => Ok(false),
            known => known,
        }
    }

    /// Asks these packs, which the vault lists, what lies in them. One whose directory does not open stays as it is known: a check tells of it.
    pub(super) fn settle(
        &self,
        (no, transfer): (VaultNo, &Transfer),
        disputed: &BTreeSet<PackId>,
        deadline: Deadline,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        for id in disputed {
            let Some(row) = self.catalog().pack_by_id(id)? else { continue };
            let name = names::pack(id);
            match read_pack_entry(self, transfer, id, row.entry.len, deadline) {
                Ok((entry, chunks)) if self.is_disputed(&entry, &chunks)? => {
                    let is_alone = !row.staged && row.vaults.iter().all(|vault| *vault == no);
                    if !is_alone && !self.is_whole_there(row, no, &chunks) {
                        continue;
                    }
                    monitor.event(problem(transfer, &name, LIED_ABOUT));
                    self.correct(&entry, &chunks, no)?;
                }
                Ok(_) => {}
                Err(PackError::Store(e)) => return Err(e),
                Err(PackError::Format(e)) => monitor.event(problem(transfer, &name, &e.to_string())),
            }
        }
        Ok(())
    }

    /// Whether a vault's copy of a pack is that pack, with these chunks.
    fn is_whole_there(&self, row: PackRow, no: VaultNo, chunks: &[PackedChunk]) -> bool {
        let (id, here) = (row.entry.id, PackRow { vaults: vec![no], ..row });
        let Ok(bytes) = self.fetch_pack(&here) else { return false };
        pack::verify(self.sealer(), id, &bytes).is_ok_and(|(_, said)| said == chunks)
    }

    /// Has the catalog know a pack by this directory, in the places where it is, `vault` among them.
    fn correct(&self, entry: &PackEntry, chunks: &[PackedChunk], vault: VaultNo) -> Result<(), StoreError> {
        let catalog = self.catalog();
        if let Some(known) = catalog.pack_by_id(&entry.id)? {
            catalog.set_contents(known.no, entry, chunks)?;
        }
        catalog.add_packs(&[(entry, chunks)], false, Some(vault))?;
        self.reader().forget_places();
        Ok(())
    }
}

/// Of a pack.
const LIED_ABOUT: &str = "an index object says that something else lies in it than its own directory does, which is believed; \
                          whoever put that object has the keys";
