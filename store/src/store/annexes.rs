//! Annexes of a store: what is known of those that are away, and leaving them; `add` makes them, and `staging.rs` says what they are.
//!
//! Which there are stands in the settings, and an annex is told from what merely lies in its place by its marker. Both are durable before anybody
//! relies on them: the marker is made first and goes last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reconcile::Reconciled;
use super::settings::{AnnexSetting, FILE};
use super::{Settings, Store, Turns};
use crate::catalog::{Mark, PackNo};
use crate::error::StoreError;
use crate::id::{AnnexId, PackId, VaultId};
use crate::monitor::{Event, Monitor, VoidMonitor};
use crate::names;
use crate::staging::{Absence, Annex, DiskFiles, Files, Look, Needs, Owner, Room, Staging, Surveyed, Went};
use crate::vault::ObjectInfo;

pub use add::add_annex;

mod add;

/// Annexes of a store, at most: each is asked for a pack that is in none.
pub const ANNEXES_MAX: usize = 16;

/// A directory of staging, for people.
#[derive(Clone, Debug)]
pub struct StagingPlace {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is an annex, and not the store's own directory.
    pub annex: bool,
    /// Whether packs move out of it.
    pub leaving: bool,
    /// Why it is away, if it is.
    pub away: Option<Absence>,
    /// Packs in it; of one that is away, as far as is known.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Room on its disk, and whether that can be used, if it is there.
    pub room: Option<Room>,
}

/// What the directories of staging show, packs by name with their lengths.
#[derive(Debug)]
pub(crate) struct Staged {
    /// All of them.
    pub packs: BTreeMap<PackId, u64>,
    annexes: Vec<Surveyed>,
}

/// Follows the settings of a store: which annexes there are. Looks at the file's number, time and length, and reads it when they changed.
pub(super) fn follow(dir: &Path, store: VaultId) -> Look {
    let (dir, mut seen) = (dir.to_path_buf(), None);
    Box::new(move || {
        let meta = std::fs::metadata(dir.join(FILE)).ok();
        let stamp = meta.map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()));
        if seen == Some(stamp) {
            return None;
        }
        match Settings::load(&dir) {
            Ok(settings) => {
                seen = Some(stamp);
                Some(annexes_of(&dir, &settings, store))
            }
            Err(e) => {
                tracing::warn!("{e}; the annexes are those that were known before");
                None
            }
        }
    })
}

/// Of two that have the same packs the first is there, and the other away.
fn annexes_of(dir: &Path, settings: &Settings, store: VaultId) -> Vec<Annex> {
    let (count, holder) = (settings.staging.len(), settings.holder(store));
    let mut before: Vec<Arc<dyn Files>> = vec![Arc::new(DiskFiles::one_of(dir, count))];
    let annex = |set: &AnnexSetting| {
        let files = Arc::new(DiskFiles::one_of(&set.path, count));
        let annex = Annex::new(set.id, holder, &set.path, set.leaving, files.clone()).beside(before.clone());
        before.push(files);
        annex
    };
    settings.staging.iter().map(annex).collect()
}

impl Store {
    /// Markers of before do not say of which copy of the store they are; those of annexes that the settings of this one know do so from now on.
    /// One that cannot be written does when it can. The caller holds the store's lock.
    pub(super) fn mark_annexes(&self) {
        if let Err(e) = self.mark_old_annexes() {
            tracing::warn!("annexes could not be marked: {e}");
        }
    }

    fn mark_old_annexes(&self) -> Result<(), StoreError> {
        let old = |settings: &Settings| {
            let annexes = annexes_of(&self.dir, settings, *self.id()).into_iter();
            let is_old = |annex: &Annex| matches!(annex.owner(), Ok(Owner::Unsaid(id)) if id == annex.id);
            annexes.filter(|annex| is_old(annex) && annex.own_directories().is_ok()).collect::<Vec<_>>()
        };
        if old(&Settings::load(&self.dir)?).is_empty() {
            return Ok(());
        }
        Settings::identify(&self.dir)?;
        Settings::change(&self.dir, |settings| {
            for annex in old(settings) {
                if let Err(e) = annex.make() {
                    tracing::warn!("annex {} could not be marked: {e}", annex.path.display());
                }
            }
            Ok(())
        })
    }

    /// The directories of staging, the store's own first, with the packs that the catalog knows there: nothing is listed, which can take long.
    pub fn staging_places(&self) -> Result<Vec<StagingPlace>, StoreError> {
        let rows = self.catalog.pack_list()?;
        let mut staged: BTreeMap<PackId, u64> =
            rows.into_iter().filter(|row| row.3).map(|row| (row.1, row.2)).collect();
        let mut annexes = Vec::new();
        for annex in self.staging.annexes().iter() {
            let (away, mut packs) = (self.absence(annex)?, self.catalog.packs_in_annex(&annex.id)?);
            // What was removed since it was last listed is not there any more.
            packs.retain(|id, _| staged.remove(id).is_some() || away.is_some());
            annexes.push(StagingPlace {
                path: annex.path.clone(),
                annex: true,
                leaving: annex.leaving,
                room: away.is_none().then(|| Staging::room_in(annex)),
                away,
                packs: packs.len() as u64,
                bytes: packs.values().sum(),
            });
        }
        let main = StagingPlace {
            path: self.dir.clone(),
            annex: false,
            leaving: false,
            away: None,
            packs: staged.len() as u64,
            bytes: staged.values().sum(),
            room: Some(self.staging.room()),
        };
        Ok(std::iter::once(main).chain(annexes).collect())
    }

    /// Why an annex is away; nothing if it is there. One that shows its marker and could not be listed is not there either.
    fn absence(&self, annex: &Annex) -> Result<Option<Absence>, StoreError> {
        match annex.presence() {
            Ok(()) if self.catalog.annex_was_there(&annex.id)? == Some(false) => {
                Ok(Some(Absence("what is in it could not be looked at yet".to_owned())))
            }
            presence => Ok(presence.err()),
        }
    }

    /// Whether an annex is there that was not when staging was last looked at.
    pub(super) fn annex_is_new(&self) -> Result<bool, StoreError> {
        for annex in self.staging.annexes().iter().filter(|annex| annex.presence().is_ok()) {
            if self.catalog.annex_was_there(&annex.id)? != Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn see_staging(&self) -> Result<Staged, StoreError> {
        let survey = self.staging.survey()?;
        let packs = survey.merged();
        let packs = packs.iter().filter_map(|o| Some((names::pack_of(&o.name)?, o.len))).collect();
        Ok(Staged { packs, annexes: survey.annexes })
    }

    /// Packs that lie in annexes that are away, as far as is known, and in no directory that is there.
    pub(crate) fn out_of_sight(&self, staged: &Staged) -> Result<BTreeSet<PackId>, StoreError> {
        let mut away = BTreeSet::new();
        for annex in staged.away() {
            away.extend(self.catalog.packs_in_annex(&annex.id)?.into_keys());
        }
        away.retain(|id| !staged.packs.contains_key(id));
        Ok(away)
    }

    /// Tells of each annex that is away.
    pub(super) fn tell_away(&self, staged: &Staged, monitor: &dyn Monitor) -> Result<(), StoreError> {
        for annex in staged.away() {
            let (path, reason) = self.away(annex)?;
            monitor.event(Event::Problem { path, reason });
        }
        Ok(())
    }

    /// Of an annex that is away its path, and what there is to say.
    pub(crate) fn away(&self, annex: &Surveyed) -> Result<(Vec<u8>, String), StoreError> {
        use std::os::unix::ffi::OsStrExt;
        let why = annex.packs.as_ref().err().map_or_else(String::new, ToString::to_string);
        let known = self.catalog.packs_in_annex(&annex.id)?;
        let bytes: u64 = known.values().sum();
        let holds = match known.len() {
            0 => String::new(),
            packs => format!("; the {packs} packs in it ({bytes} bytes) are missing until it is back"),
        };
        let reason = format!("the annex is away: {why}{holds}");
        Ok((annex.path.as_os_str().as_bytes().to_vec(), reason))
    }

    /// What lies in annexes that are away is missing, which says nothing of what is there.
    pub(super) fn drop_away_packs(
        &self,
        staged: &Staged,
        done: &mut Reconciled,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        self.tell_away(staged, monitor)?;
        let (away, bad) = (self.out_of_sight(staged)?, self.catalog.bad_packs()?);
        let rows = self.catalog.pack_list()?;
        let going: Vec<(PackNo, PackId)> =
            rows.into_iter().filter(|row| row.3 && away.contains(&row.1)).map(|row| (row.0, row.1)).collect();
        if going.is_empty() {
            return Ok(());
        }
        for (_, id) in going.iter().filter(|(no, _)| bad.contains(no)) {
            self.catalog.set_mark(Mark::BadAway(*id), true)?;
        }
        self.catalog.set_mark(Mark::Doubtful, true)?;
        self.catalog.set_staged_together(&going.iter().map(|(no, _)| *no).collect::<Vec<_>>(), false)?;
        done.lost.extend(going.into_iter().map(|(_, id)| id));
        Ok(())
    }

    /// What is known of packs holds again when the annex is back in which they lay. Whether an annex came back, or is new.
    pub(super) fn take_back_packs(&self, staged: &Staged, done: &mut Reconciled) -> Result<bool, StoreError> {
        let mut back = BTreeMap::new();
        let mut any = false;
        for annex in &staged.annexes {
            let Ok(packs) = &annex.packs else { continue };
            if self.catalog.annex_was_there(&annex.id)? == Some(true) {
                continue;
            }
            any = true;
            back.extend(packs.iter().filter_map(|o| Some((names::pack_of(&o.name)?, o.len))));
        }
        let rows = self.catalog.pack_list()?;
        let known = rows.into_iter().filter(|row| !row.3 && back.get(&row.1) == Some(&row.2));
        let known: Vec<PackNo> = known.map(|row| row.0).collect();
        self.catalog.set_staged_together(&known, true)?;
        done.adopted += known.len();
        Ok(any)
    }

    /// Notes where packs were seen, and that those are damaged in an annex that came back which were so before.
    pub(super) fn note_annexes(&self, staged: &Staged) -> Result<(), StoreError> {
        for id in self.catalog.bad_away()? {
            let row = self.catalog.pack_by_id(&id)?;
            if let Some(row) = row.filter(|row| row.staged) {
                self.catalog.set_bad(row.no, true)?;
                self.catalog.set_mark(Mark::BadAway(id), false)?;
            }
        }
        for annex in &staged.annexes {
            if let Ok(packs) = &annex.packs {
                let packs = packs.iter().filter_map(|o| Some((names::pack_of(&o.name)?, o.len))).collect();
                self.catalog.set_packs_in_annex(&annex.id, &packs)?;
            }
            self.catalog.note_annex(&annex.id, annex.packs.is_ok())?;
        }
        let ids: Vec<AnnexId> = staged.annexes.iter().map(|annex| annex.id).collect();
        self.catalog.forget_other_annexes(&ids)
    }

    /// Makes room in the main directory for what only it can take, where annexes have some. That it cannot be had is no error here: whoever finds
    /// no room then says so.
    pub(super) fn ease_main(&self) -> Result<(), StoreError> {
        let goes = |object: &ObjectInfo, went: &Went| self.moves(object, went, &VoidMonitor);
        self.staging.ease_main(goes).or_else(|e| match e {
            StoreError::Catalog { .. } => Err(e),
            e => {
                tracing::warn!("no room can be made in {}: {e}", self.dir.display());
                Ok(())
            }
        })
    }

    /// What it takes to leave an annex. The caller holds the store's lock.
    pub fn needs_of_leaving(&self, annex: &Annex) -> Result<Needs, StoreError> {
        self.staging.needs_of_leaving(annex)
    }

    /// Marks an annex as one that packs move out of: nothing is put there any more.
    pub fn begin_leaving(&self, id: AnnexId) -> Result<(), StoreError> {
        Settings::change(&self.dir, |settings| {
            settings.staging.iter_mut().filter(|set| set.id == id).for_each(|set| set.leaving = true);
            Ok(())
        })
    }

    /// Moves all packs of an annex into the other directories, in turns with others who want the lock, then takes away that it is one. The
    /// annex is leaving. Wherever it is cut off, the same again goes on.
    pub fn leave_annex(
        &self,
        annex: &Annex,
        turns: &mut Turns<'_>,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        let needs = self.needs_of_leaving(annex)?;
        let files_total = needs.objects.len() as u64;
        let bytes_total = needs.objects.iter().map(|object| object.len).sum();
        monitor.event(Event::Stage { name: "move", files_total, bytes_total });
        let mut left = VecDeque::from(needs.objects);
        while let Some(object) = left.pop_front() {
            if monitor.cancelled() {
                return Err(StoreError::Cancelled);
            }
            self.staging.move_out(annex, &object.name, |went| self.moves(&object, went, monitor))?;
            monitor.event(Event::Done { files: 1, bytes: object.len });
            if turns.is_over() {
                turns.next(monitor)?;
                // Some of them may be gone.
                left = self.needs_of_leaving(annex)?.objects.into();
            }
        }
        self.forget_annex(annex.id, Some(&annex.path))?;
        self.note_annexes(&self.see_staging()?)?;
        self.unmake_annex(annex)
    }

    /// Takes away the directories and the marker of an annex that is none any more, unless somebody made it one again meanwhile.
    pub fn unmake_annex(&self, annex: &Annex) -> Result<(), StoreError> {
        Settings::change(&self.dir, |settings| match settings.staging.iter().any(|set| set.id == annex.id) {
            true => Err(stays(&annex.path)),
            // What another copy took over since is its own.
            false if matches!(annex.owner(), Ok(Owner::OfCopy(_) | Owner::Other)) => Ok(()),
            false => annex.unmake(),
        })
    }

    /// Gives up an annex that is away and will not come back. The caller holds the store's lock.
    pub fn lose_annex(&self, id: AnnexId, monitor: &dyn Monitor) -> Result<(), StoreError> {
        // What lies in it is told from what is lost as long as it is known.
        self.reconcile(monitor)?;
        self.forget_annex(id, None)?;
        self.note_annexes(&self.see_staging()?)
    }

    /// The copy that was proven goes; of one that was damaged there is none then. Noted before it goes, so that at each moment it is known where
    /// the other one lies.
    fn moves(&self, object: &ObjectInfo, went: &Went, monitor: &dyn Monitor) -> Result<(), StoreError> {
        let (name, pack) = (&object.name, names::pack_of(&object.name));
        if let (Some(pack), Went::Over(Some(annex))) = (&pack, went) {
            self.catalog.add_to_annex(annex, pack, object.len)?;
        }
        let Some(row) = pack.map(|id| self.catalog.pack_by_id(&id)).transpose()?.flatten() else {
            return Ok(());
        };
        match went {
            Went::Over(_) => self.catalog.clear_verified(row.no, None),
            Went::Aside(aside) => {
                let reason = format!("its bytes do not have its name; it is moved to {aside}");
                monitor.event(Event::Problem { path: name.as_str().into(), reason });
                self.catalog.set_mark(Mark::Doubtful, true)?;
                self.catalog.miss_staged(row.no)
            }
        }
    }

    /// Takes an annex from the settings; what lies in it is none of staging's any more. One that was left, at `left`, only if nobody wants it again.
    fn forget_annex(&self, id: AnnexId, left: Option<&Path>) -> Result<(), StoreError> {
        Settings::change(&self.dir, |settings| {
            let stays_here = settings.staging.iter().any(|set| set.id == id && !set.leaving);
            if let Some(path) = left.filter(|_| stays_here) {
                return Err(stays(path));
            }
            settings.staging.retain(|set| set.id != id);
            Ok(())
        })
    }
}

fn stays(annex: &Path) -> StoreError {
    StoreError::invalid(format!("annex {} was added again meanwhile, and stays", annex.display()))
}

impl Staged {
    /// Annexes that are away.
    pub fn away(&self) -> impl Iterator<Item = &Surveyed> {
        self.annexes.iter().filter(|annex| annex.packs.is_err())
    }
}
