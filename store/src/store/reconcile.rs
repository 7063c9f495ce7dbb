//! Compares the catalog with what staging really holds, and mends the catalog: it is the cache, the objects are the truth.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::listing::Listed;
use super::mend::row_of;
use super::{POINT_LIMIT, Store};
use crate::catalog::Mark;
use crate::chunk_store::{PACKS_PER_INDEX, write_index_to};
use crate::error::StoreError;
use crate::format::FormatError;
use crate::id::{IndexId, PackId, RecoveryPointId};
use crate::index::Index;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::{self, PackEntry, PackedChunk};
use crate::point;
use crate::vault::ObjectName;

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Packs that the catalog did not know.
    pub adopted: usize,
    /// Packs that the catalog believed to be there whole and that are not.
    pub lost: Vec<PackId>,
    /// Packs that the catalog does not know any more, because their rows were damaged. Those of staging are adopted again.
    pub forgotten: usize,
}

impl Store {
    /// Makes the catalog agree with staging. The caller holds the lock.
    pub fn reconcile(&self, monitor: &dyn Monitor) -> Result<Reconciled, StoreError> {
        let mut done = Reconciled { forgotten: self.forget_damaged_packs(monitor)?, ..Reconciled::default() };
        let staged = self.see_staging()?;
        let listed = &staged.packs;
        self.drop_away_packs(&staged, &mut done, monitor)?;
        self.drop_lost_packs(listed, &mut done, monitor)?;
        let came_back = self.take_back_packs(&staged, &mut done)?;
        self.adopt_indexes(listed, came_back, &mut done, monitor)?;
        self.adopt_packs(listed, &mut done, monitor)?;
        self.note_annexes(&staged)?;
        self.index_what_is_not()?;
        self.mend_rows(true, true, monitor)?;
        self.adopt_points(monitor)?;
        if done != Reconciled::default() {
            self.reader().forget_places();
        }
        Ok(done)
    }

    /// Tells an empty catalog what staging shows, and writes nothing there.
    pub(super) fn read_staging(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        let (staged, mut done) = (self.see_staging()?, Reconciled::default());
        self.tell_away(&staged, monitor)?;
        self.adopt_indexes(&staged.packs, false, &mut done, monitor)?;
        self.adopt_packs(&staged.packs, &mut done, monitor)?;
        self.adopt_marks(monitor)?;
        self.adopt_points(monitor)
    }

    /// An object of staging; nothing if there is none. A store that cannot be written lies on a disk that may be dying: what it
    /// does not give is told, and the rest is read.
    pub(super) fn read_object(
        &self,
        name: &ObjectName,
        limit: u64,
        monitor: &dyn Monitor,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self.staging().read_all(name, limit) {
            Err(e @ StoreError::Io { .. }) if self.read_only => {
                monitor.event(Event::Problem { path: name.as_str().into(), reason: e.to_string() });
                Ok(None)
            }
            read => read,
        }
    }

    /// What a listing of staging shows.
    pub(crate) fn staged_packs(&self) -> Result<Listed, StoreError> {
        Ok(self.see_staging()?.packs)
    }

    /// A row of a pack that is damaged is no knowledge of it: where the pack lies it is read again, as one that is new.
    fn forget_damaged_packs(&self, monitor: &dyn Monitor) -> Result<usize, StoreError> {
        let damaged = self.catalog().damaged_packs()?;
        for (no, name) in &damaged {
            let note = format!(
                "the catalog's row of pack {name} was damaged; the pack is read again from where it lies"
            );
            monitor.event(Event::Note(note));
            self.catalog().set_mark(Mark::Doubtful, true)?;
            self.catalog().forget_damaged_pack(*no)?;
        }
        Ok(damaged.len())
    }

    /// Puts damaged rows of packs right for who has no lock and asks for all packs: if another process has it, that one does so.
    pub(crate) fn mend_packs(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        if self.catalog().damaged_packs()?.is_empty() {
            return Ok(());
        }
        match self.lock() {
            Ok(_lock) => self.reconcile(monitor).map(drop)?,
            Err(_) => return Ok(()),
        }
        self.meet_vaults(monitor)
    }

    fn drop_lost_packs(
        &self,
        listed: &BTreeMap<PackId, u64>,
        done: &mut Reconciled,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        for (no, id, len, staged) in self.catalog().pack_list()? {
            if staged && listed.get(&id) != Some(&len) {
                let reason = match listed.get(&id) {
                    None => "the pack is missing from the staging directory".to_owned(),
                    Some(found) => format!("the pack has {found} bytes instead of {len}"),
                };
                monitor.event(Event::Problem { path: names::pack(&id).as_str().into(), reason });
                self.catalog().set_mark(Mark::Doubtful, true)?;
                self.catalog().miss_staged(no)?;
                done.lost.push(id);
            }
        }
        Ok(())
    }

    /// Index objects tell of many packs without reading them. Those that are known were read before packs `came_back`.
    fn adopt_indexes(
        &self,
        listed: &BTreeMap<PackId, u64>,
        came_back: bool,
        done: &mut Reconciled,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        let mut known: BTreeSet<IndexId> = self.catalog().index_objects(None)?.into_iter().collect();
        let lacking = came_back.then(|| self.not_staged(listed)).transpose()?;
        if lacking.as_ref().is_some_and(|packs| !packs.is_empty()) {
            known.clear();
        }
        for object in self.staging().list("idx")? {
            let Some(id) = names::index_of(&object.name).filter(|id| !known.contains(id)) else { continue };
            let Some(bytes) = self.read_named_by_hash(&object.name, &id.0, monitor)? else { continue };
            match Index::open(self.sealer(), id, &bytes) {
                Ok(index) => done.adopted += self.adopt_index(id, &index, listed, lacking.as_ref())?,
                Err(e) => monitor.event(problem(object.name.as_str(), &e)),
            }
        }
        Ok(())
    }

    fn adopt_index(
        &self,
        id: IndexId,
        index: &Index,
        listed: &BTreeMap<PackId, u64>,
        lacking: Option<&BTreeSet<PackId>>,
    ) -> Result<usize, StoreError> {
        let packs = index.packs_with_chunks();
        let here: Vec<(&PackEntry, &[PackedChunk])> = packs
            .iter()
            .filter(|(entry, _)| listed.get(&entry.id) == Some(&entry.len))
            .map(|(entry, chunks)| (*entry, chunks.as_slice()))
            .collect();
        let is_new = |entry: &PackEntry| lacking.is_none_or(|packs| packs.contains(&entry.id));
        let new: Vec<_> = here.iter().copied().filter(|(entry, _)| is_new(entry)).collect();
        self.catalog().add_packs(&new, true, None)?;
        let ids: Vec<PackId> = here.iter().map(|(entry, _)| entry.id).collect();
        self.catalog().add_index(&id, &ids, None)?;
        Ok(new.len())
    }

    /// Packs of a listing that the catalog does not believe to be in staging.
    fn not_staged(&self, listed: &BTreeMap<PackId, u64>) -> Result<BTreeSet<PackId>, StoreError> {
        let packs = self.catalog().pack_list()?;
        let staged: BTreeSet<PackId> = packs.into_iter().filter(|p| p.3).map(|(_, id, _, _)| id).collect();
        Ok(listed.keys().filter(|id| !staged.contains(id)).copied().collect())
    }

    /// What no index object tells of is read whole: after a crash a few packs.
    fn adopt_packs(
        &self,
        listed: &BTreeMap<PackId, u64>,
        done: &mut Reconciled,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        for id in &self.not_staged(listed)? {
            let name = names::pack(id);
            let Some(bytes) = self.read_named_by_hash(&name, &id.0, monitor)? else { continue };
            match pack::verify(self.sealer(), *id, &bytes) {
                Ok((entry, chunks)) => {
                    if let Err(e) = self.make_durable(&name) {
                        monitor.event(Event::Problem { path: name.as_str().into(), reason: e.to_string() });
                        continue;
                    }
                    self.catalog().add_packs(&[(&entry, &chunks)], true, None)?;
                    done.adopted += 1;
                }
                Err(e) => monitor.event(problem(name.as_str(), &e)),
            }
        }
        Ok(())
    }

    /// Whoever put it may have been cut off before it was durable, and from now on points rely on it.
    fn make_durable(&self, name: &ObjectName) -> Result<(), StoreError> {
        if self.read_only { Ok(()) } else { self.staging().make_durable(name) }
    }

    fn index_what_is_not(&self) -> Result<(), StoreError> {
        for packs in self.catalog().packs_without_index(None)?.chunks(PACKS_PER_INDEX) {
            let mut index = Index::default();
            for no in packs {
                if let Some(row) = self.catalog().pack(*no)?.filter(|row| row.staged) {
                    index.add(row.entry, &self.catalog().chunks_of(*no)?);
                }
            }
            if !index.packs.is_empty() {
                let put = |name: &ObjectName, bytes: Bytes| self.staging().put(name, &bytes);
                write_index_to(self.sealer(), self.catalog(), index, None, put)?;
            }
        }
        Ok(())
    }

    fn adopt_points(&self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        let mut known: BTreeSet<_> =
            self.catalog().point_ids()?.into_iter().filter(|p| p.1).map(|(id, _)| id).collect();
        for object in self.staging().list("rp")? {
            let Some((tag, attempt)) = names::outcome_of(&object.name) else { continue };
            let (id, own) = (attempt.point, names::point(&tag, &attempt.point));
            let is_known = known.remove(&id);
            self.are_not_going(None, [id])?;
            if is_known && object.name == own {
                continue;
            }
            let Some(bytes) = self.read_object(&object.name, POINT_LIMIT, monitor)? else { continue };
            let point = match point::object::open_point(&bytes, self.sealer(), &tag, &id) {
                Ok(point) => point,
                Err(e) => {
                    monitor.event(problem(object.name.as_str(), &e));
                    continue;
                }
            };
            // A store that was put together from copies of a vault's objects. Here a point has one name.
            if object.name != own && !self.read_only {
                self.staging().put(&own, &bytes)?;
                self.staging().remove(&object.name)?;
            }
            self.catalog().add_point(&row_of(&point, bytes, true, Vec::new()))?;
        }
        known.iter().try_for_each(|id| self.put_point_again(id, monitor))
    }

    /// A point whose object is missing is not lost, unless it was to go: the catalog keeps it sealed as it was.
    fn put_point_again(&self, id: &RecoveryPointId, monitor: &dyn Monitor) -> Result<(), StoreError> {
        if self.end_removal(id, None)? {
            return Ok(());
        }
        let row = match self.catalog().point(id) {
            // It could not be put right, and that was told.
            Err(e) if e.is_of_changed_catalog() => return Ok(()),
            row => row?,
        };
        let Some(row) = row else { return Ok(()) };
        let name = names::point(&row.tag, id);
        let whole = match point::object::open_point(&row.object, self.sealer(), &row.tag, id) {
            // Another process sealed it with a newer key: its bytes are all that this one can look at.
            Err(FormatError::NoKey(_)) => *blake3::hash(&row.object).as_bytes() == row.hash,
            opened => opened.is_ok(),
        };
        let reason = match whole {
            true => "the recovery point was missing from the staging directory; it is written again",
            false => "the recovery point is missing from the staging directory",
        };
        monitor.event(Event::Problem { path: name.as_str().into(), reason: reason.to_owned() });
        if whole { self.staging().put(&name, &row.object) } else { self.catalog().remove_point(id, None) }
    }
}

fn problem(name: &str, error: &FormatError) -> Event {
    Event::Problem { path: name.into(), reason: error.to_string() }
}
