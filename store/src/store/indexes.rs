//! Index objects that somebody reads again. A machine that knows what they say needs them no more, and one that has nothing goes by them: so whoever has
//! a key looks whether they are there and are what they were. Packs tell the same, so nothing is lost by one that is damaged: it covers nothing from then
//! on, the next push (in staging the next backup or `prune`) writes another one for its packs, and a `prune` removes it.

use std::collections::{BTreeMap, BTreeSet};

use super::listing::Listed;
use super::{Store, learn, of_vault};
use crate::catalog::VaultNo;
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::format::FormatError;
use crate::id::IndexId;
use crate::index::{INDEX_LIMIT, Index};
use crate::monitor::Monitor;
use crate::names;
use crate::transfer::Transfer;
use crate::vault::{ObjectInfo, ObjectName};

/// What was seen of the index objects of a place.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    /// Those that are damaged or missing, and in what way, while packs of the place are covered by no other.
    pub(crate) wrong: Vec<(ObjectName, String)>,
    /// Bytes that were read and are right.
    pub(crate) bytes_read: u64,
}

/// Of a vault.
const AGAIN_BY_PUSH: &str = "packs tell the same, and the next push writes another one, without which a machine that has nothing reads them all";
/// Of staging.
const AGAIN_BY_BACKUP: &str = "packs tell the same, and the next backup writes another one";

impl Store {
    /// Reads the index objects of a vault of which it is the turn, and those that nobody here knows: somebody else may have put
    /// another one in the place of what was damaged; while packs lack one, also those that covered nothing. All that are known must be listed. What is wrong
    /// covers nothing from now on.
    ///
    /// # Errors
    /// Those of the vault.
    pub(crate) fn prove_indexes(
        &self,
        no: VaultNo,
        is_turn: &dyn Fn(&ObjectName) -> bool,
        monitor: &dyn Monitor,
    ) -> Result<Indexes, StoreError> {
        let transfer = self.vault(no)?;
        // Before they are listed: others put some meanwhile.
        let known: BTreeSet<IndexId> = self.catalog().index_objects(Some(no))?.into_iter().collect();
        let mut covering = self.catalog().covering_indexes()?;
        covering.retain(|id| known.contains(id));
        let is_lacking = !self.catalog().packs_without_index(Some(no))?.is_empty();
        let listed =
            names::list(transfer, names::INDEXES, Deadline::NEVER).map_err(of_vault(transfer))?.into_iter();
        let listed: BTreeMap<IndexId, ObjectInfo> =
            listed.filter_map(|object| Some((names::index_of(&object.name)?, object))).collect();
        let is_read = |(id, object): &(&IndexId, &ObjectInfo)| {
            let is_new = !known.contains(*id) || is_lacking && !covering.contains(*id);
            is_new || is_turn(&object.name)
        };
        let read: Vec<(&IndexId, &ObjectInfo)> = listed.iter().filter(is_read).collect();
        let mut seen = self.read_indexes((no, transfer), &read, &covering, monitor)?;
        let missing: Vec<&IndexId> = known.iter().filter(|id| !listed.contains_key(*id)).collect();
        for id in &missing {
            self.catalog().uncover_index(id)?;
            seen.wrong.push((names::index(id), format!("it is missing; {AGAIN_BY_PUSH}")));
        }
        if self.catalog().packs_without_index(Some(no))?.is_empty() {
            // Nobody needs them.
            seen.wrong.clear();
            missing.iter().try_for_each(|id| self.catalog().remove_index_from(id, no))?;
        }
        Ok(seen)
    }

    /// What a vault does not list of its index objects covers nothing there: of one that lost packs they may be gone as well.
    pub(super) fn miss_indexes(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        deadline: Deadline,
    ) -> Result<(), StoreError> {
        // Before they are listed: others put some meanwhile.
        let known = self.catalog().index_objects(Some(no))?;
        let listed = names::list(transfer, names::INDEXES, deadline).map_err(of_vault(transfer))?;
        let listed: BTreeSet<IndexId> =
            listed.iter().filter_map(|object| names::index_of(&object.name)).collect();
        for id in known.iter().filter(|id| !listed.contains(id)) {
            self.catalog().uncover_index(id)?;
            self.catalog().remove_index_from(id, no)?;
        }
        Ok(())
    }

    /// Many at once, as a vault may be far away.
    fn read_indexes(
        &self,
        (no, transfer): (VaultNo, &Transfer),
        objects: &[(&IndexId, &ObjectInfo)],
        covering: &BTreeSet<IndexId>,
        monitor: &dyn Monitor,
    ) -> Result<Indexes, StoreError> {
        let (mut seen, mut disputed) = (Indexes::default(), BTreeSet::new());
        if objects.is_empty() {
            return Ok(seen);
        }
        let packs = self.listed_in(no)?;
        let (right, too_long): (Vec<_>, Vec<_>) =
            objects.iter().copied().partition(|(_, object)| object.len <= INDEX_LIMIT);
        for (id, object) in too_long {
            self.spoil_index(id, Some(no))?;
            let detail = format!("{} bytes are no index object's; {AGAIN_BY_PUSH}", object.len);
            seen.wrong.push((object.name.clone(), detail));
        }
        for some in learn::batches(&right, |(_, object)| object.len) {
            let wanted = some.iter().map(|(_, o)| (o.name.clone(), 0..o.len)).collect();
            for ((id, object), bytes) in some.iter().zip(transfer.get_many(wanted, Deadline::NEVER)) {
                let is_right = bytes.as_ref().is_ok_and(|bytes| *blake3::hash(bytes).as_bytes() == id.0);
                let opened = match bytes {
                    Ok(_) if is_right && covering.contains(*id) => {
                        seen.bytes_read += object.len;
                        continue;
                    }
                    Ok(bytes) if is_right => Index::open(self.sealer(), **id, &bytes),
                    _ => learn::open_index(self, transfer, &object.name, **id, Deadline::NEVER)?,
                };
                match opened {
                    Ok(index) => {
                        disputed.extend(learn::adopt_index(self, no, id, &index, &packs)?);
                        seen.bytes_read += object.len;
                    }
                    Err(FormatError::NoKey(generation)) => {
                        self.tell_newer_key(no, transfer, generation, monitor);
                    }
                    // Of a newer program: it is whole for that.
                    Err(e) if !e.is_damage() => {}
                    Err(e) => {
                        self.spoil_index(id, Some(no))?;
                        seen.wrong.push((object.name.clone(), format!("{e}; {AGAIN_BY_PUSH}")));
                    }
                }
            }
        }
        self.settle((no, transfer), (&disputed, &packs), Deadline::NEVER, monitor)?;
        Ok(seen)
    }

    /// The packs that are known to be in a vault.
    fn listed_in(&self, no: VaultNo) -> Result<Listed, StoreError> {
        let packs = self.catalog().packs()?.into_iter();
        Ok(packs.filter(|row| row.vaults.contains(&no)).map(|row| (row.entry.id, row.entry.len)).collect())
    }

    /// The same of staging, where nobody misses one that is not there: packs are nearer than whoever would need it.
    pub(crate) fn prove_staged_indexes(&self) -> Result<Indexes, StoreError> {
        let mut seen = Indexes::default();
        for object in self.staging().list("idx")? {
            let Some(id) = names::index_of(&object.name) else { continue };
            let detail = match self.staging().read_all(&object.name, INDEX_LIMIT) {
                Ok(Some(bytes)) if *blake3::hash(&bytes).as_bytes() == id.0 => {
                    seen.bytes_read += object.len;
                    continue;
                }
                // It went meanwhile.
                Ok(None) => continue,
                Ok(Some(_)) => "its bytes do not have its name".to_owned(),
                Err(e) => e.to_string(),
            };
            self.spoil_index(&id, None)?;
            seen.wrong.push((object.name, format!("{detail}; {AGAIN_BY_BACKUP}")));
        }
        let bare = self.catalog().packs_without_index(None)?;
        let mut is_needed = false;
        for pack in bare {
            is_needed |= self.catalog().pack(pack)?.is_some_and(|row| row.staged);
        }
        if !is_needed {
            seen.wrong.clear();
        }
        Ok(seen)
    }

    /// Notes of an index object, which lies in a vault if one is given, that it covers nothing: it does not open.
    pub(super) fn spoil_index(&self, id: &IndexId, vault: Option<VaultNo>) -> Result<(), StoreError> {
        self.catalog().uncover_index(id)?;
        self.catalog().add_index(id, &[], vault)
    }
}
