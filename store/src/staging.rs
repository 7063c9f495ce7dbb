//! Staging: objects on the local disks that survive a crash at any point.
//!
//! They lie in the store's directory, the *main* one, and packs also in annexes: further directories, on other disks say, which come and go while
//! programs run. A pack is put where most room is, and where that fails, in the next; it is looked for in all of them. The same pack
//! in two of them is no trouble: its name is the hash of its bytes. An annex that is away has no packs until it is back.

mod annex;
mod area;
pub(crate) mod disk;
mod files;
mod leave;
mod testing;

pub use annex::{Absence, Annex, Holder, Look, MARKER, Owner, owner, store_of};
pub use area::TEMP_DIR;
pub(crate) use area::is_temp;
pub use disk::DiskFiles;
pub use files::{FileEntry, Files, Identity, Room};
pub use leave::{Needs, Went};
pub use testing::{Fault, FaultyFiles, MemoryFiles};

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{ErrorClass, StoreError};
use crate::id::{self, AnnexId};
use crate::names;
use crate::vault::{ObjectInfo, ObjectName};
use annex::Annexes;
use area::Area;

#[cfg(test)]
mod tests;

/// A file that is given up when the disk is full, so that the catalog can still record what happened. Of random bytes: a file
/// system that compresses would give back next to nothing for anything else.
const BALLAST: &str = "ballast";
const BALLAST_LEN: usize = 4 << 20;

/// Room that is left for what else is written to a disk.
const SPARE: u64 = 64 << 20;

/// Gives up the file in a store's directory that keeps room for what must be written on a full disk: the catalog, and what else lies there.
/// `false` if it was given up before. The next session makes it again when there is room.
pub fn give_up_reserve(store: &Path) -> bool {
    std::fs::remove_file(store.join(BALLAST)).is_ok()
}

/// Objects on the local disks.
#[derive(Clone, Debug)]
pub struct Staging {
    main: Arc<Area>,
    annexes: Arc<Annexes>,
}

/// What a look at all directories shows.
#[derive(Debug)]
pub struct Survey {
    /// Packs and what else lies there, in the main directory.
    pub main: Vec<ObjectInfo>,
    /// The annexes.
    pub annexes: Vec<Surveyed>,
}

/// What a look at an annex shows.
#[derive(Debug)]
pub struct Surveyed {
    /// Its id.
    pub id: AnnexId,
    /// Where it is.
    pub path: PathBuf,
    /// Whether packs move out of it.
    pub leaving: bool,
    /// What lies there, or why it is away.
    pub packs: Result<Vec<ObjectInfo>, Absence>,
}

impl Staging {
    /// Objects in `files` alone.
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self::with_annexes(files, Box::new(|| None))
    }

    /// Objects in `files`, and packs also in the annexes that `look` shows.
    pub fn with_annexes(files: Arc<dyn Files>, look: Look) -> Self {
        Self { main: Arc::new(Area::new(files)), annexes: Arc::new(Annexes::new(look)) }
    }

    /// The annexes that there are now.
    pub fn annexes(&self) -> Arc<[Annex]> {
        self.annexes.now()
    }

    /// Room in the main directory.
    pub fn room(&self) -> Room {
        self.main.room()
    }

    /// Room in an annex.
    pub fn room_in(annex: &Annex) -> Room {
        annex.area.room()
    }

    /// Makes the directories that a staging area needs.
    pub fn prepare(&self) -> Result<(), StoreError> {
        self.main.prepare(&[TEMP_DIR, "pack", "idx", "rp", "keys"])?;
        self.each_present(|annex| match annex.area.room().refuses {
            Some(kind) => Err(StoreError::io("write to", &annex.path)(kind.into())),
            None => annex.area.prepare(&[TEMP_DIR, "pack"]),
        });
        self.refill_ballast();
        Ok(())
    }

    /// Does something in each annex that is there. One that fails is left out: what is put next will tell.
    fn each_present(&self, what: impl Fn(&Annex) -> Result<(), StoreError>) {
        for annex in self.annexes.now().iter().filter(|annex| annex.presence().is_ok()) {
            if let Err(e) = what(annex) {
                tracing::warn!("annex {}: {e}", annex.path.display());
            }
        }
    }

    /// Writes an object durably. Its bytes replace nothing: an object that is already there has the same bytes (content-addressed)
    /// or is an error of the caller's.
    pub fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.put_somewhere(name, bytes).map(drop)
    }

    /// The same; the annex into which it came, if it is a pack and came into one.
    pub fn put_somewhere(&self, name: &ObjectName, bytes: &[u8]) -> Result<Option<AnnexId>, StoreError> {
        let annexes = if is_pack(name) { self.annexes.now() } else { Arc::default() };
        let put = self.put_where_room_is(&annexes, name, bytes);
        if put.as_ref().is_err_and(|e| e.class() == ErrorClass::Full) {
            // One that is gone already was given up before.
            let _ = self.main.files.remove(BALLAST);
        }
        put
    }

    /// Where most room is, the main directory first among equals. Where that fails the next is tried, so that a disk that is full, or dies, ends nothing.
    fn put_where_room_is(
        &self,
        annexes: &[Annex],
        name: &ObjectName,
        bytes: &[u8],
    ) -> Result<Option<AnnexId>, StoreError> {
        if annexes.is_empty() {
            return self.main.put(name.as_str(), bytes).map(|()| None);
        }
        let main = self.main.room();
        let mut areas = vec![(main.free.saturating_sub(spare(main)), None, &*self.main)];
        areas.extend(open_areas(annexes));
        self.put_into_first(areas, name, bytes)
    }

    /// Into the one that has most room and does not fail.
    fn put_into_first(
        &self,
        mut areas: Vec<(u64, Option<AnnexId>, &Area)>,
        name: &ObjectName,
        bytes: &[u8],
    ) -> Result<Option<AnnexId>, StoreError> {
        areas.sort_by_key(|area| std::cmp::Reverse(area.0));
        let mut failed: Option<StoreError> = None;
        for (_, annex, area) in areas {
            match area.put(name.as_str(), bytes) {
                Ok(()) => {
                    self.annexes.remember(name.as_str(), annex);
                    return Ok(annex);
                }
                // Staging is full when all of it is; what else is wrong with a disk somebody has to see to.
                Err(e) if failed.as_ref().is_none_or(|first| first.class() == ErrorClass::Full) => {
                    failed.replace(e).iter().for_each(|first| tracing::warn!("{first}"));
                }
                Err(e) => tracing::warn!("{e}"),
            }
        }
        Err(failed.unwrap_or_else(|| StoreError::NotFound { what: "an annex that is there".into() }))
    }

    /// `len` bytes of an object from `offset`; exactly that many.
    pub fn read(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::new();
        self.read_into(name, offset, len, &mut out)?;
        Ok(out)
    }

    /// As [`Self::read`], into a buffer that is used again.
    pub fn read_into(
        &self,
        name: &ObjectName,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        out.resize(len, 0);
        self.ask_any(name, |area| area.read_into(name, offset, out))
    }

    /// Asks one directory after the other for an object until one gives it.
    fn ask_any<T>(
        &self,
        name: &ObjectName,
        mut ask: impl FnMut(&Area) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !is_pack(name) {
            return ask(&self.main);
        }
        match self.ask_each(&self.annexes.known(), name, &mut ask) {
            Err(e) if e.class() == ErrorClass::NotFound => {}
            given => return given,
        }
        // Another process may have added an annex, or moved the pack from one directory into another that was asked before.
        self.ask_each(&self.annexes.now(), name, &mut ask).map_err(|e| match e {
            e if e.class() != ErrorClass::NotFound => e,
            e => match (self.first_away(), e) {
                (Some(annex), _) => StoreError::AnnexAway { what: name.to_string(), annex },
                // Others than this pack may be there.
                (None, StoreError::Io { path, .. }) => {
                    StoreError::NotFound { what: path.display().to_string() }
                }
                (None, e) => e,
            },
        })
    }

    /// An annex that is away, if any is.
    pub fn first_away(&self) -> Option<PathBuf> {
        let annexes = self.annexes.now();
        annexes.iter().find(|annex| annex.presence().is_err()).map(|annex| annex.path.clone())
    }

    /// The annex in which it was found last, then the main directory, then the others: who reads from one disk does not wait for another.
    fn ask_each<T>(
        &self,
        annexes: &[Annex],
        name: &ObjectName,
        ask: &mut impl FnMut(&Area) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if annexes.is_empty() {
            return ask(&self.main);
        }
        let last = self.annexes.last_seen(name.as_str());
        let first = annexes.iter().filter(|annex| Some(annex.id) == last);
        let others = annexes.iter().filter(|annex| Some(annex.id) != last);
        let areas = first.map(Some).chain([None]).chain(others.map(Some));
        let mut failed: Option<StoreError> = None;
        for annex in areas {
            match ask(annex.map_or(&*self.main, |annex| &annex.area)) {
                Ok(given) => {
                    let now = annex.map(|annex| annex.id);
                    if now != last {
                        self.annexes.remember(name.as_str(), now);
                    }
                    return Ok(given);
                }
                // That it is not in one of them says nothing; what is wrong with another does.
                Err(e) if failed.as_ref().is_none_or(|first| first.class() == ErrorClass::NotFound) => {
                    failed = Some(e);
                }
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or_else(|| StoreError::NotFound { what: name.to_string() }))
    }

    /// Makes an object durable wherever it is: who finds one that he did not put cannot know that.
    pub fn make_durable(&self, name: &ObjectName) -> Result<(), StoreError> {
        let durable = |area: &Area| match area.len(name)? {
            Some(_) => area.make_durable(name).map(|()| true),
            None => Ok(false),
        };
        self.everywhere(name, durable).map(drop)
    }

    /// Closes what is kept open of packs that another process removed, or put others in the place of.
    pub fn close_replaced(&self) {
        self.main.files.close_replaced();
        self.annexes.known().iter().for_each(|annex| annex.area.files.close_replaced());
    }

    /// Bytes of an object will not be read again soon.
    pub fn let_go(&self, name: &ObjectName, bytes: Range<u64>) {
        let annexes = self.annexes.known();
        let last = if annexes.is_empty() { None } else { self.annexes.last_seen(name.as_str()) };
        let annex = annexes.iter().find(|annex| Some(annex.id) == last);
        annex.map_or(&*self.main, |annex| &annex.area).files.let_go(name.as_str(), bytes);
    }

    /// A whole object of at most `limit` bytes; `None` if there is none.
    pub fn read_all(&self, name: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(len) = self.len(name)? else { return Ok(None) };
        if len > limit {
            return Err(StoreError::corrupt(name.as_str(), format!("{len} bytes, more than {limit}")));
        }
        self.read(name, 0, len as usize).map(Some)
    }

    /// Length of an object; `None` if there is none.
    pub fn len(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        let there =
            |area: &Area| area.len(name)?.ok_or_else(|| StoreError::NotFound { what: name.to_string() });
        match self.ask_any(name, there) {
            Ok(len) => Ok(Some(len)),
            Err(e) if e.class() == ErrorClass::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All objects whose names begin with the directory `prefix` (without a trailing `/`), ascending. Those of annexes that are away are
    /// not there.
    pub fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        if prefix != names::PACKS.trim_end_matches('/') {
            return self.main.list(prefix);
        }
        Ok(self.survey()?.merged())
    }

    /// What lies in each directory of packs. An annex is away also when it cannot be listed.
    pub fn survey(&self) -> Result<Survey, StoreError> {
        let prefix = names::PACKS.trim_end_matches('/');
        let look = |annex: &Annex| {
            annex.presence()?;
            let packs = annex.area.list(prefix).map_err(|e| Absence(e.to_string()))?;
            // It may have gone meanwhile.
            annex.presence().map(|()| packs)
        };
        let surveyed = |annex: &Annex| Surveyed {
            id: annex.id,
            path: annex.path.clone(),
            leaving: annex.leaving,
            packs: look(annex),
        };
        let annexes = self.annexes.now();
        // The main directory last: what moves there from an annex meanwhile is seen.
        let annexes = annexes.iter().map(surveyed).collect();
        Ok(Survey { annexes, main: self.main.list(prefix)? })
    }

    /// Gives an object another name wherever it is, durably. After a crash it has one of the two.
    pub fn move_to(&self, from: &ObjectName, to: &ObjectName) -> Result<(), StoreError> {
        match self.everywhere(from, |area| area.move_to(from, to))? {
            true => Ok(()),
            false => Err(StoreError::NotFound { what: from.to_string() }),
        }
    }

    /// Removes an object wherever it is, durably; `false` if there was none.
    pub fn remove(&self, name: &ObjectName) -> Result<bool, StoreError> {
        self.everywhere(name, |area| area.remove(name.as_str()))
    }

    /// Does something in all directories that are there and may have an object; whether any had it.
    fn everywhere(
        &self,
        name: &ObjectName,
        what: impl Fn(&Area) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let main = what(&self.main);
        if !is_pack(name) {
            return main;
        }
        self.annexes.remember(name.as_str(), None);
        let annexes = self.annexes.now();
        let there = annexes.iter().filter(|annex| annex.presence().is_ok());
        let all: Vec<_> = std::iter::once(main).chain(there.map(|annex| what(&annex.area))).collect();
        all.into_iter().try_fold(false, |any, had| Ok(any | had?))
    }

    /// Removes what a crashed writer left. Only the holder of the store's lock may call it.
    pub fn clear_temp(&self) -> Result<usize, StoreError> {
        let left = self.main.clear_temp()?;
        self.each_present(|annex| annex.area.clear_temp().map(drop));
        self.refill_ballast();
        Ok(left)
    }

    /// Room kept for the catalog is made again when there is room; lacking it is no error.
    fn refill_ballast(&self) {
        let files = &self.main.files;
        if matches!(files.len(BALLAST), Ok(None))
            && files.write_synced(BALLAST, &id::random_vec(BALLAST_LEN)).is_err()
        {
            let _ = files.remove(BALLAST);
        }
    }
}

impl Survey {
    /// All that was seen, ascending by name, each once.
    pub fn merged(&self) -> Vec<ObjectInfo> {
        let seen = self.annexes.iter().filter_map(|annex| annex.packs.as_ref().ok()).flatten();
        let mut all: Vec<ObjectInfo> = self.main.iter().chain(seen).cloned().collect();
        // Of two of one name the main directory's stands first, as it is read first.
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|second, first| first.name == second.name);
        all
    }
}

/// Annexes that are there and take packs, with the room in each.
fn open_areas(annexes: &[Annex]) -> impl Iterator<Item = (u64, Option<AnnexId>, &Area)> {
    let open = annexes.iter().filter(|annex| !annex.leaving && annex.presence().is_ok());
    let rooms = open.map(|annex| (annex.area.room(), annex));
    let takes = rooms.filter(|(room, _)| room.refuses.is_none());
    takes.map(|(room, annex)| (room.free, Some(annex.id), &annex.area))
}

/// Room that packs leave in the main directory, if annexes have some for them: all else has to go there.
fn spare(main: Room) -> u64 {
    SPARE.min(main.total / 16)
}

fn is_pack(name: &ObjectName) -> bool {
    name.as_str().starts_with(names::PACKS)
}
