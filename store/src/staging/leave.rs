//! How packs move from one directory of staging into others: all of them when an annex is left, a few when the main directory has no room for
//! what only it can take. Each is proven against its name on the way and durable there before it goes here, so that wherever this is cut off
//! nothing is lost, and the same again goes on.

use std::collections::{BTreeMap, HashSet};

use super::annex::Annex;
use super::area::Area;
use super::{Room, Staging, open_areas, spare};
use crate::error::StoreError;
use crate::id::{AnnexId, PackId};
use crate::names;
use crate::vault::{ObjectInfo, ObjectName};

/// What has to move, and what room there is for it.
#[derive(Debug)]
pub struct Needs {
    /// Packs, and what was found damaged before, that lie in this annex alone.
    pub objects: Vec<ObjectInfo>,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that the other directories can take.
    pub room: u64,
}

/// What became of an object of an annex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Went {
    /// It is in another directory now, whole: in this annex, or in the main directory.
    Over(Option<AnnexId>),
    /// Its bytes are not those of its name: it is in the main directory under this one.
    Aside(ObjectName),
}

impl Staging {
    /// What it takes to leave an annex that is there.
    pub fn needs_of_leaving(&self, annex: &Annex) -> Result<Needs, StoreError> {
        let survey = self.survey()?;
        let others = survey.annexes.iter().filter(|other| other.id != annex.id);
        let elsewhere =
            survey.main.iter().chain(others.filter_map(|other| other.packs.as_ref().ok()).flatten());
        let elsewhere: HashSet<_> = elsewhere.map(|object| (object.name.clone(), object.len)).collect();
        let mut objects = annex.area.list("pack")?;
        // What else lies there is not ours, and stays.
        objects.retain(|object| names::pack_of(&object.name).is_some());
        objects.extend(annex.area.list("bad")?);
        let alone = |object: &&ObjectInfo| !elsewhere.contains(&(object.name.clone(), object.len));
        let bytes = objects.iter().filter(alone).map(|object| object.len).sum();
        Ok(Needs { bytes, room: self.room_beside(annex), objects })
    }

    /// Bytes that directories other than this annex can take: each disk counts once, and the annex's own has room as packs leave it.
    fn room_beside(&self, annex: &Annex) -> u64 {
        let (annexes, own) = (self.annexes.now(), annex.area.room().disk);
        let others = open_areas(&annexes).filter(|other| other.1 != Some(annex.id));
        let areas = std::iter::once(&*self.main).chain(others.map(|other| other.2));
        let rooms: Vec<Room> = areas.map(Area::room).collect();
        if rooms.iter().any(|room| room.disk == own) {
            return u64::MAX;
        }
        let disks: BTreeMap<u64, u64> =
            rooms.iter().map(|room| (room.disk, room.free.saturating_sub(spare(*room)))).collect();
        disks.values().fold(0, |sum: u64, free| sum.saturating_add(*free))
    }

    /// Moves an object out of an annex that is leaving, so that it cannot come back into it; `goes` is told before it goes. The caller holds the
    /// store's lock.
    pub fn move_out(
        &self,
        annex: &Annex,
        name: &ObjectName,
        goes: impl FnOnce(&Went) -> Result<(), StoreError>,
    ) -> Result<Went, StoreError> {
        let (annexes, path) = (self.annexes.now(), annex.path.display());
        if !annexes.iter().any(|known| known.id == annex.id && known.leaving) {
            return Err(StoreError::invalid(format!("annex {path} is not to be left")));
        }
        annex.presence().map_err(|why| StoreError::NotFound { what: format!("annex {path} ({why})") })?;
        let went = match names::pack_of(name) {
            Some(pack) => self.move_pack(&annexes, annex, name, &pack)?,
            // What was put aside before goes as it is.
            None => self.move_aside(annex, name, name.clone())?,
        };
        self.refuse_same(&annexes, &annex.area, name, &went)?;
        goes(&went)?;
        self.annexes.remember(name.as_str(), None);
        annex.area.remove(name.as_str())?;
        Ok(went)
    }

    /// An error if an object that is to go from a directory is the very file that it went into: directories may be one in ways that nobody looks for.
    fn refuse_same(
        &self,
        annexes: &[Annex],
        from: &Area,
        name: &ObjectName,
        went: &Went,
    ) -> Result<(), StoreError> {
        let (to, there) = match went {
            Went::Over(to) => (*to, name),
            Went::Aside(aside) => (None, aside),
        };
        let annex = annexes.iter().find(|annex| Some(annex.id) == to);
        let to = annex.map_or(&*self.main, |annex| &annex.area);
        if from.is_same_file(name.as_str(), to, there.as_str())? {
            let [from, to] = [from, to].map(|area| area.files.describe("").display().to_string());
            return Err(StoreError::invalid(format!("{name} is the same file in {from} and in {to}")));
        }
        Ok(())
    }

    fn move_pack(
        &self,
        annexes: &[Annex],
        annex: &Annex,
        name: &ObjectName,
        pack: &PackId,
    ) -> Result<Went, StoreError> {
        if let Some(there) = self.whole_elsewhere(annexes, annex, name, pack)? {
            return Ok(Went::Over(there));
        }
        match read_right(&annex.area, name, pack)? {
            Ok(bytes) => self.put_where_room_is(annexes, name, &bytes).map(Went::Over),
            Err(hash) => self.move_aside(annex, name, names::bad(name, hash.as_bytes())),
        }
    }

    /// Moves packs out of the main directory until there is room for what else is written there, if annexes on other disks can take them; tells
    /// of each before it goes. The caller holds the store's lock.
    pub fn ease_main(
        &self,
        mut goes: impl FnMut(&ObjectInfo, &Went) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (annexes, main) = (self.annexes.now(), self.main.room());
        let lacking = spare(main).saturating_sub(main.free);
        let areas =
            || open_areas(&annexes).filter(|area| area.2.room().disk != main.disk).collect::<Vec<_>>();
        if lacking == 0 || areas().is_empty() {
            return Ok(());
        }
        let mut freed = 0;
        for object in self.main.list("pack")? {
            let Some(pack) = names::pack_of(&object.name).filter(|_| freed < lacking) else { continue };
            // A damaged one is somebody else's to see to.
            let Ok(bytes) = read_right(&self.main, &object.name, &pack)? else { continue };
            let went = Went::Over(self.put_into_first(areas(), &object.name, &bytes)?);
            self.refuse_same(&annexes, &self.main, &object.name, &went)?;
            goes(&object, &went)?;
            self.main.remove(object.name.as_str())?;
            freed += object.len;
        }
        Ok(())
    }

    /// The other directory that has the pack, by its bytes, and will have it after a crash. One whose bytes are others is put aside there.
    fn whole_elsewhere(
        &self,
        annexes: &[Annex],
        annex: &Annex,
        name: &ObjectName,
        pack: &PackId,
    ) -> Result<Option<Option<AnnexId>>, StoreError> {
        let others = annexes.iter().filter(|other| other.id != annex.id && !other.leaving);
        let others = others.filter(|other| other.presence().is_ok());
        let others = others.map(|other| (Some(other.id), &other.area));
        for (id, area) in std::iter::once((None, &*self.main)).chain(others) {
            if annex.area.is_same_file(name.as_str(), area, name.as_str())? {
                continue;
            }
            let Some(bytes) = area.read_all(name)? else { continue };
            let hash = blake3::hash(&bytes);
            if *hash.as_bytes() == pack.0 {
                area.make_durable(name)?;
                return Ok(Some(id));
            }
            area.move_to(name, &names::bad(name, hash.as_bytes()))?;
        }
        Ok(None)
    }

    fn move_aside(&self, annex: &Annex, name: &ObjectName, to: ObjectName) -> Result<Went, StoreError> {
        if let Some(bytes) = annex.area.read_all(name)? {
            self.main.put(to.as_str(), &bytes)?;
        }
        Ok(Went::Aside(to))
    }
}

/// The bytes of a pack, or the hash of what there is instead. Read twice if need be: memory or the way from the disk may have flipped a bit.
fn read_right(
    area: &Area,
    name: &ObjectName,
    pack: &PackId,
) -> Result<Result<Vec<u8>, blake3::Hash>, StoreError> {
    let read = || area.read_all(name).map(Option::unwrap_or_default);
    let right = |bytes: &[u8]| *blake3::hash(bytes).as_bytes() == pack.0;
    let mut bytes = read()?;
    if !right(&bytes) {
        bytes = read()?;
    }
    Ok(if right(&bytes) { Ok(bytes) } else { Err(blake3::hash(&bytes)) })
}
