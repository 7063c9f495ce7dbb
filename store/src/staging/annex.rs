//! Annexes: further directories, on other disks say, in which staging keeps packs, and packs alone.
//!
//! Each has a small file that says whose it is. Where that file is not, the disk is not mounted, or it is another one: the annex is
//! *away*, nothing is written there and nothing removed, and what lies in it is missing from staging until it is back. Which annexes
//! there are is somebody else's to know; who asks for it looks only whether that changed, so that whoever runs for long learns of new ones.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use lru::LruCache;
use serde::{Deserialize, Serialize};

use super::area::{Area, TEMP_DIR};
use super::files::Files;
use crate::error::StoreError;
use crate::id::{AnnexId, StagingId, VaultId};

/// The file that says whose annex a directory is.
pub const MARKER: &str = "holdfast-annex.json";
/// Longest marker in bytes.
const MARKER_LIMIT: usize = 4096;
const PACKS: &str = "pack";
/// Its directories; the temporary one last, since whoever goes on needs it.
const DIRS: [&str; 3] = [PACKS, "bad", TEMP_DIR];
/// Packs of which it is remembered in which annex they lie: some 200 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// What the marker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    store: VaultId,
    annex: AnnexId,
    /// Missing in those of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    staging: Option<StagingId>,
}

/// Whose annexes are meant. Of one store there may be several directories, as one that was recovered from a vault, and what one of them removes from
/// an annex another would lack: so an annex is that of one store in one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The store.
    pub store: VaultId,
    /// Its directory; nothing as long as that has no id, and so no marker that names it.
    pub staging: Option<StagingId>,
}

/// Whose annex a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody's: there is no marker.
    Nobody,
    /// This holder's annex of this id.
    Ours(AnnexId),
    /// This store's; the marker is one of before, and does not say of which directory.
    Unsaid(AnnexId),
    /// This store's in another directory: a copy of the store, or one of which this is a copy.
    OfCopy(AnnexId),
    /// Another store's.
    Other,
}

/// Reads the marker in a directory.
pub fn owner(files: &dyn Files, holder: &Holder) -> Result<Owner, StoreError> {
    let path = files.describe(MARKER);
    let Some(bytes) = files.read_small(MARKER, MARKER_LIMIT).map_err(StoreError::io("read", &path))? else {
        return Ok(Owner::Nobody);
    };
    let marker: Marker = serde_json::from_slice(&bytes)
        .map_err(|e| StoreError::corrupt(path.display().to_string(), e.to_string()))?;
    Ok(match marker.staging {
        _ if marker.store != holder.store => Owner::Other,
        None => Owner::Unsaid(marker.annex),
        ours if ours == holder.staging => Owner::Ours(marker.annex),
        Some(_) => Owner::OfCopy(marker.annex),
    })
}

/// The store whose annex a directory is, by the bytes of its marker.
pub fn store_of(marker: &[u8]) -> Option<VaultId> {
    let marker = marker.get(..MARKER_LIMIT.min(marker.len()))?;
    serde_json::from_slice::<Marker>(marker).ok().map(|marker| marker.store)
}

/// Why an annex is away, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence(pub String);

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of them.
#[derive(Debug)]
pub struct Annex {
    /// Its id.
    pub id: AnnexId,
    /// Where it is.
    pub path: PathBuf,
    /// Whether packs move out of it: none is put there any more.
    pub leaving: bool,
    holder: Holder,
    pub(super) area: Area,
    others: Vec<Arc<dyn Files>>,
}

impl Annex {
    /// The annex `id` of `holder` at `path`, whose files are `files`.
    pub fn new(id: AnnexId, holder: Holder, path: &Path, leaving: bool, files: Arc<dyn Files>) -> Self {
        let area = Area::without_links(files);
        Self { id, path: path.to_path_buf(), leaving, holder, area, others: Vec::new() }
    }

    /// The same; these are the other directories of staging, with none of which it may share its packs: what one removes the other would lack.
    pub fn beside(self, others: Vec<Arc<dyn Files>>) -> Self {
        Self { others, ..self }
    }

    /// Why what lies below its path is not its own, if so.
    pub fn own_directories(&self) -> Result<(), Absence> {
        let absence = |e: &dyn fmt::Display| Absence(e.to_string());
        for dir in DIRS {
            self.area.look_at(dir).map_err(|e| absence(&e))?;
        }
        let Some(packs) = self.area.files.identity(PACKS).map_err(|e| absence(&e))? else { return Ok(()) };
        // Another one that cannot be looked at is another one.
        let mut others = self.others.iter();
        match others.find(|other| matches!(other.identity(PACKS), Ok(Some(theirs)) if theirs == packs)) {
            Some(other) => Err(Absence(format!("its packs are those of {}", other.describe("").display()))),
            None => Ok(()),
        }
    }

    /// Makes its directories and, last, the marker, durably; in the place of one that is there.
    pub fn make(&self) -> Result<(), StoreError> {
        self.area.prepare(&[TEMP_DIR, PACKS])?;
        let Holder { store, staging } = self.holder;
        let marker = Marker { store, annex: self.id, staging };
        let text = serde_json::to_vec(&marker).map_err(|e| StoreError::invalid(e.to_string()))?;
        self.area.put(MARKER, &text)
    }

    /// Whether it is there, by its marker, and its directories are its own.
    pub fn presence(&self) -> Result<(), Absence> {
        self.by_marker()?;
        self.own_directories()
    }

    /// Whose the directory is by its marker.
    pub fn owner(&self) -> Result<Owner, StoreError> {
        owner(&*self.area.files, &self.holder)
    }

    fn by_marker(&self) -> Result<(), Absence> {
        match self.owner() {
            Ok(Owner::Ours(id) | Owner::Unsaid(id)) if id == self.id => Ok(()),
            Ok(Owner::Ours(_) | Owner::Unsaid(_)) => {
                Err(Absence("another annex of this store is in its place".into()))
            }
            Ok(Owner::OfCopy(_)) => Err(Absence(
                "another copy of this store took it over; `holdfast staging add --take-over` takes it back"
                    .into(),
            )),
            Ok(Owner::Other) => Err(Absence("an annex of another store is in its place".into())),
            Ok(Owner::Nobody) => Err(Absence(format!("{MARKER} is not in it; is its disk mounted?"))),
            Err(e) => Err(Absence(e.to_string())),
        }
    }

    /// Takes away what [`Self::make`] made, the marker last; what is not ours stays.
    pub fn unmake(&self) -> Result<(), StoreError> {
        DIRS.iter().try_for_each(|dir| self.area.look_at(dir))?;
        self.area.clear_temp()?;
        for dir in DIRS {
            self.area.remove_empty_dirs(dir);
        }
        self.area.remove(MARKER).map(drop)
    }
}

/// Says which annexes there are now; nothing if that is as it was when it was last asked.
pub type Look = Box<dyn FnMut() -> Option<Vec<Annex>> + Send>;

/// The annexes that are known, and where packs were found in them.
pub(super) struct Annexes {
    look: Mutex<Look>,
    known: RwLock<Arc<[Annex]>>,
    found: Mutex<LruCache<String, AnnexId>>,
}

impl fmt::Debug for Annexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Annexes").field("known", &self.known()).finish_non_exhaustive()
    }
}

impl Annexes {
    pub fn new(mut look: Look) -> Self {
        let known = look().unwrap_or_default().into();
        let found = Mutex::new(LruCache::new(REMEMBERED));
        Self { look: Mutex::new(look), known: RwLock::new(known), found }
    }

    /// As they were when somebody last looked.
    pub fn known(&self) -> Arc<[Annex]> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As they are now.
    pub fn now(&self) -> Arc<[Annex]> {
        // Whoever looks first is told of a change: the others wait until it is known. A disk that hangs meanwhile holds up no reader.
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = look() {
            *self.known.write().unwrap_or_else(PoisonError::into_inner) = now.into();
        }
        self.known()
    }

    fn found(&self) -> MutexGuard<'_, LruCache<String, AnnexId>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The annex in which a pack was last found.
    pub fn last_seen(&self, pack: &str) -> Option<AnnexId> {
        self.found().get(pack).copied()
    }

    pub fn remember(&self, pack: &str, annex: Option<AnnexId>) {
        match annex {
            Some(annex) => drop(self.found().put(pack.to_owned(), annex)),
            None => drop(self.found().pop(pack)),
        }
    }
}
