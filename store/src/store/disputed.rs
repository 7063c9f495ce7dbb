//! Packs of which somebody says something else than the catalog knows. Whoever has the ring can put an index object that says of
//! another machine's pack what does not lie in it; and where that is read first, nothing of the pack would be found. So where two say
//! different things the pack's own directory is asked. That does not name the pack it is of: under the name of one pack the bytes of another may
//! lie, with a directory that opens. A pack's name is the hash of all its bytes, so what a directory says against what is known, or with the object
//! id of another pack, is believed when all bytes of this copy have the name. Else this copy is damaged. What it says is only believed then where
//! nobody else has the pack: parts of it can be read.

use std::collections::{BTreeSet, HashMap};

use super::learn::{PackError, problem, read_pack_entry};
use super::listing::Listed;
use super::{Store, of_vault};
use crate::catalog::{Mark, PackNo, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::format::FormatError;
use crate::id::{ObjectId, PackId};
use crate::monitor::Monitor;
use crate::names;
use crate::pack::{self, PACK_LIMIT, PackEntry, PackedChunk};
use crate::transfer::Transfer;
use crate::vault::VaultError;

/// Which pack is known by an object id, as [`crate::catalog::Catalog::object_ids`] says it.
pub(super) type Owners = HashMap<ObjectId, Option<PackId>>;

/// Whether chunks fill a pack from its beginning to its end, as those of its directory do.
pub(super) fn fills(entry: &PackEntry, chunks: &[PackedChunk]) -> bool {
    let len = chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
    len == entry.raw_len() && len < 1 << 32
}

/// Whether a directory is that of another pack than the one under whose name it was found.
fn is_anothers(entry: &PackEntry, owners: &Owners) -> bool {
    owners.get(&entry.object_id).is_some_and(|owner| *owner != Some(entry.id))
}

impl Store {
    /// Whether the catalog knows another directory of this pack. A row that is damaged knows none: it is put right elsewhere.
    pub(crate) fn is_disputed(&self, entry: &PackEntry, chunks: &[PackedChunk]) -> Result<bool, StoreError> {
        let look = || {
            let Some(row) = self.catalog().pack_by_id(&entry.id)? else { return Ok(false) };
            Ok::<_, StoreError>(row.entry != *entry || self.catalog().chunks_of(row.no)? != chunks)
        };
        match look() {
            Err(e) if e.is_of_changed_catalog() => Ok(false),
            known => known,
        }
    }

    /// Whether a directory that was found under a pack's name is that of another one which the catalog knows.
    pub(crate) fn is_of_another(&self, entry: &PackEntry) -> Result<bool, StoreError> {
        Ok(is_anothers(entry, &self.catalog().object_ids()?))
    }

    /// Asks these packs, which the vault lists, what lies in them. One whose directory does not open stays as it is known.
    pub(super) fn settle(
        &self,
        (no, transfer): (VaultNo, &Transfer),
        (disputed, listed): (&BTreeSet<PackId>, &Listed),
        deadline: Deadline,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        for id in disputed {
            let (Some(row), Some(len)) = (self.catalog().pack_by_id(id)?, listed.get(id)) else { continue };
            let name = names::pack(id);
            match read_pack_entry(self, transfer, id, *len, deadline) {
                Ok((entry, chunks)) if self.is_disputed(&entry, &chunks)? => {
                    let mut believed = self.whole_there(transfer, id, deadline)?;
                    self.catalog().set_mark(Mark::BadIn(no, *id), believed.is_none())?;
                    if believed.is_none() {
                        monitor.event(problem(transfer, &name, OTHER_BYTES));
                        let is_alone = !row.staged && row.vaults.iter().all(|vault| *vault == no);
                        if is_alone && !self.is_of_another(&entry)? {
                            believed = Some((entry, chunks));
                        }
                    }
                    if let Some((entry, chunks)) = believed {
                        monitor.event(problem(transfer, &name, LIED_ABOUT));
                        self.correct(&entry, &chunks, no)?;
                    }
                }
                Ok(_) => {}
                Err(PackError::Store(e)) => return Err(e),
                Err(PackError::Format(e)) => {
                    if !e.is_newer_key() {
                        self.catalog().set_mark(Mark::BadIn(no, *id), true)?;
                    }
                    monitor.event(problem(transfer, &name, &e.to_string()));
                }
            }
        }
        Ok(())
    }

    /// What a pack that the catalog does not know to be in a vault says there that it holds; `Format` too if that is not enough to believe
    /// that it is this pack, and its bytes are others.
    pub(super) fn read_as_named(
        &self,
        (no, transfer): (VaultNo, &Transfer),
        (id, len): (&PackId, u64),
        owners: &Owners,
        deadline: Deadline,
    ) -> Result<(PackEntry, Vec<PackedChunk>), PackError> {
        let (entry, chunks) = read_pack_entry(self, transfer, id, len, deadline)?;
        let needs_proof = || {
            let was_bad = self.catalog().has_mark(Mark::BadIn(no, *id))?;
            Ok::<_, StoreError>(was_bad || is_anothers(&entry, owners) || self.is_disputed(&entry, &chunks)?)
        };
        if !needs_proof().map_err(PackError::Store)? {
            return Ok((entry, chunks));
        }
        let whole = self.whole_there(transfer, id, deadline).map_err(PackError::Store)?;
        whole.ok_or_else(|| FormatError::damaged(OTHER_BYTES).into())
    }

    /// Looks again at a pack that was known by the object id of one that turned out to be whole: it was believed by that one's directory.
    /// `false` if it is none, and not known to be there any more.
    pub(super) fn proves_namesake(
        &self,
        (no, transfer): (VaultNo, &Transfer),
        (namesake, listed): (&PackId, &Listed),
        deadline: Deadline,
        monitor: &dyn Monitor,
    ) -> Result<bool, StoreError> {
        if !listed.contains_key(namesake) || self.whole_there(transfer, namesake, deadline)?.is_some() {
            return Ok(true);
        }
        self.catalog().set_mark(Mark::BadIn(no, *namesake), true)?;
        if let Some(row) = self.catalog().pack_by_id(namesake)? {
            self.catalog().miss_confirmed(row.no, no)?;
        }
        monitor.event(problem(transfer, &names::pack(namesake), OTHER_BYTES));
        Ok(false)
    }

    /// What lies in a vault's copy of a pack if all its bytes have the name. Twice if need be: the way from the vault may have flipped a bit.
    fn whole_there(
        &self,
        transfer: &Transfer,
        id: &PackId,
        deadline: Deadline,
    ) -> Result<Option<(PackEntry, Vec<PackedChunk>)>, StoreError> {
        let read = || match transfer.get_by(&names::pack(id), PACK_LIMIT, deadline) {
            Ok(bytes) => Ok(pack::verify(self.sealer(), *id, &bytes).ok()),
            Err(VaultError::TooShort { .. } | VaultError::Invalid { .. }) => Ok(None),
            Err(e) => Err(of_vault(transfer)(e)),
        };
        match read()? {
            None => read(),
            whole => Ok(whole),
        }
    }

    /// Has the catalog know a pack by this directory, in the places where it is, `vault` among them.
    pub(super) fn correct(
        &self,
        entry: &PackEntry,
        chunks: &[PackedChunk],
        vault: VaultNo,
    ) -> Result<(), StoreError> {
        let catalog = self.catalog();
        if let Some(known) = catalog.pack_by_id(&entry.id)? {
            self.put_right(known.no, entry, chunks)?;
        }
        catalog.add_packs(&[(entry, chunks)], false, Some(vault))
    }

    /// Has the catalog, and who reads by it, know what a pack was seen to hold. Whether they knew something else.
    pub(crate) fn put_right(
        &self,
        no: PackNo,
        entry: &PackEntry,
        chunks: &[PackedChunk],
    ) -> Result<bool, StoreError> {
        let is_other = self.catalog().set_contents(no, entry, chunks)?;
        if is_other {
            self.reader().forget_places();
        }
        Ok(is_other)
    }
}

/// Of a pack in a vault.
const OTHER_BYTES: &str = "what lies under its name is no copy of it: its bytes do not have its name";
/// Of a pack.
const LIED_ABOUT: &str = "an index object says that something else lies in it than its own directory does, which is believed; \
                          whoever put that object has the keys";
