//! Every byte of every object of a small store × a flipped bit, and the object cut there; each object deleted, swapped with each other
//! one, and copied over it. Never are there wrong bytes. What a check claims to find it finds, and it names exactly the files that do
//! not come back; what it does not claim costs nothing.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_store::check::{self, Depth, Report};
use holdfast_store::error::{ErrorClass, StoreError};
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::names::Named;
use holdfast_store::reclaim::{self, Terms};
use holdfast_store::store::{Settings, Store, VaultSetting};
use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::ObjectName;
use holdfast_store::vault::memory::MemoryVault;
use tempfile::TempDir;

use super::lab::{
    self, Lab, Tree, copied, copy_dir, copy_vault, files, forget, lost, prepare, push, restore, take, way,
};
use super::{Slice, each};

/// What happens to an object.
#[derive(Clone, Debug)]
enum Damage {
    Flip {
        at: usize,
        bit: u8,
    },
    Cut {
        at: usize,
    },
    Gone,
    /// The bytes of another one are in its place, and its own in that one's.
    Swap(usize),
    /// The bytes of another one are in its place.
    Copy(usize),
}

type Cell = (usize, Damage);

fn is_near_an_end(at: usize, len: usize) -> bool {
    at < BEGINNING || at + END >= len
}

/// All that can happen to objects of these lengths.
fn damages(slice: &Slice, lens: &[usize]) -> Vec<Cell> {
    let mut random = TestRandom::new(slice.seed);
    let mut cells = Vec::new();
    for (object, len) in lens.iter().enumerate() {
        for at in 0..*len {
            let one = random.below(8) as u8;
            // Between the ends most is fill or ciphertext, in which one bit is like another.
            let bits = if slice.all && is_near_an_end(at, *len) { 0..8 } else { one..one + 1 };
            cells.extend(bits.map(|bit| (object, Damage::Flip { at, bit })));
            cells.push((object, Damage::Cut { at }));
        }
        cells.push((object, Damage::Gone));
        for other in (0..lens.len()).filter(|other| *other != object) {
            cells.push((object, Damage::Copy(other)));
            cells.extend((other > object).then_some((object, Damage::Swap(other))));
        }
    }
    cells
}

/// Of flips and cuts a part, and all of what happens to whole objects.
fn sliced(slice: &Slice, lens: &[usize]) -> Vec<Cell> {
    let is_of_a_byte = |cell: &Cell| matches!(cell.1, Damage::Flip { .. } | Damage::Cut { .. });
    let (bytes, mut cells): (Vec<_>, Vec<_>) = damages(slice, lens).into_iter().partition(is_of_a_byte);
    let is_at_end = |(object, damage): &Cell| match damage {
        Damage::Flip { at, .. } | Damage::Cut { at } => is_near_an_end(*at, lens[*object]),
        _ => true,
    };
    let (ends, between): (Vec<_>, Vec<_>) = bytes.into_iter().partition(is_at_end);
    cells.extend(slice.cells(ends, PART));
    cells.extend(slice.cells(between, PART_BETWEEN));
    cells
}

/// Objects with their bytes; `None` for what is gone.
fn damaged(objects: &[(String, Vec<u8>)], (object, damage): &Cell) -> Vec<(String, Option<Vec<u8>>)> {
    let (name, bytes) = &objects[*object];
    let mut own = bytes.clone();
    match damage {
        Damage::Flip { at, bit } => own[*at] ^= 1 << bit,
        Damage::Cut { at } => own.truncate(*at),
        Damage::Gone => return vec![(name.clone(), None)],
        Damage::Swap(other) | Damage::Copy(other) => {
            let (other_name, other) = &objects[*other];
            let mut changed = vec![(name.clone(), Some(other.clone()))];
            if matches!(damage, Damage::Swap(_)) {
                changed.push((other_name.clone(), Some(own)));
            }
            return changed;
        }
    }
    vec![(name.clone(), Some(own))]
}

/// Points with what is in them.
type Points = Vec<(RecoveryPointId, Tree)>;

/// A vault with an object of each kind, and a machine that has everything from there.
struct Whole {
    lab: Lab,
    _there: TempDir,
    there: PathBuf,
    vault: Arc<MemoryVault>,
    points: Points,
}

fn whole() -> Whole {
    let lab = Lab::new();
    let ((_dir, here), vault) = (lab.copy(), Arc::new(MemoryVault::new()));
    let store = lab.open(&here, Some(way(&vault))).unwrap();
    prepare(&store).unwrap();
    let mut points = Points::new();
    for version in [3, 1, 2] {
        let point = take(&store, &files(version), false).unwrap();
        push(&store, &point.point.id).unwrap();
        points.push((point.point.id, files(version)));
    }
    let no = store.vaults()[0].0;
    store.place_hold(&points[2].0, "kept").unwrap();
    store.bring_holds(no).unwrap();
    // So there are generations, and a revocation.
    let (gone, _) = points.remove(0);
    forget(&store, &gone).unwrap();
    reclaim::advance(&store, no, &Terms::AT_ONCE, &HashSet::new(), &VoidMonitor).unwrap();
    drop(store);
    let (there_dir, there_store) = lab.recover(&way(&vault)).unwrap();
    let there = there_store.dir().to_path_buf();
    drop(there_store);
    Whole { lab, _there: there_dir, there, vault, points }
}

/// What of these points does not come back.
fn all_lost(store: &Store, points: &Points) -> Result<BTreeSet<(RecoveryPointId, String)>, String> {
    let mut all = BTreeSet::new();
    for (id, right) in points {
        all.extend(lost(store, id, right)?.into_iter().map(|name| (*id, name)));
    }
    Ok(all)
}

/// Exactly the files that do not come back are named, or the point whose directory cannot be read.
fn names_exactly(
    store: &Store,
    report: &Report,
    lost: &BTreeSet<(RecoveryPointId, String)>,
) -> Result<(), String> {
    let unreadable =
        |id: &RecoveryPointId| store.point(id).map_or(true, |point| restore(store, &point).is_err());
    let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
    let named: BTreeSet<_> = report.files.iter().map(|file| (file.point, text(&file.path))).collect();
    for (id, name) in lost.difference(&named) {
        let told = report.findings.iter().any(|found| found.object.contains(&id.to_string()));
        if !(unreadable(id) && told) {
            return Err(format!("{id} {name} is lost and not named"));
        }
    }
    match named.difference(lost).next() {
        None => Ok(()),
        Some(other) => Err(format!("{other:?} is named and comes back")),
    }
}

fn told(report: &Report) -> String {
    report.findings.iter().map(|f| format!("{}: {}; ", f.object, f.detail)).collect()
}

/// Whether a check that reads all bytes says that it finds what is wrong with an object.
fn is_claimed(points: &Points, name: &str, damage: &Damage) -> bool {
    match Named::parse(name) {
        // One of a machine opens nothing elsewhere.
        Some(Named::Slot(_)) if matches!(damage, Damage::Gone) => false,
        // Nobody misses the word that a point was forgotten as long as the point stays away.
        Some(Named::Point(_, of)) if matches!(damage, Damage::Gone) => {
            points.iter().any(|(id, _)| *id == of.point)
        }
        // It may have been released by another machine.
        Some(Named::Hold(..)) if matches!(damage, Damage::Gone) => false,
        // The one that ended it says what may go.
        Some(Named::Condemned(_)) if matches!(damage, Damage::Gone) => false,
        // What they say is in the objects, or is no part of the store.
        None => false,
        // Packs say the same.
        Some(Named::Index(_)) => false,
        // It is of a point that is there.
        Some(Named::Session(_) | Named::Heartbeat(..)) => false,
        _ => true,
    }
}

/// The sealed part of a slot only its secret proves, or another copy.
fn only_by_secret(name: &str, damage: &Damage) -> bool {
    let at = match damage {
        Damage::Flip { at, .. } => *at,
        // A block of another length that is one.
        Damage::Cut { at } if (at - SEALED_AT.min(*at)).is_multiple_of(64) => *at,
        _ => return false,
    };
    name.starts_with("keys/") && at >= SEALED_AT
}

/// Where the sealed part of a slot begins.
const SEALED_AT: usize = 180;

impl Whole {
    /// Lengths alone tell of packs and points that are cut or gone.
    fn is_claimed_by_structure(&self, name: &str, damage: &Damage) -> bool {
        let by_length = match Named::parse(name) {
            Some(Named::Pack(_)) => true,
            Some(Named::Point(_, attempt)) => self.points.iter().any(|(id, _)| *id == attempt.point),
            _ => false,
        };
        by_length && matches!(damage, Damage::Cut { .. } | Damage::Gone)
    }

    fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let object = |name: ObjectName| (name.to_string(), self.vault.object(&name).unwrap().to_vec());
        self.vault.names().into_iter().map(object).collect()
    }

    /// A vault with this damage.
    fn damaged_vault(&self, objects: &[(String, Vec<u8>)], cell: &Cell) -> Arc<MemoryVault> {
        let vault = MemoryVault::new();
        let changed = damaged(objects, cell);
        for (name, bytes) in objects {
            let now =
                changed.iter().find(|(of, _)| of == name).map_or(Some(bytes.clone()), |(_, now)| now.clone());
            if let Some(bytes) = now {
                vault.replace(&ObjectName::new(name.as_str()).unwrap(), bytes.into());
            }
        }
        Arc::new(vault)
    }

    fn look_at_vault(&self, objects: &[(String, Vec<u8>)], cell: &Cell) -> Result<(), String> {
        let vault = self.damaged_vault(objects, cell);
        let lost_alone = match self.lab.recover(&way(&vault)) {
            Ok((_dir, alone)) => Some(all_lost(&alone, &self.points)?),
            Err(e) if e.to_string().contains("catalog") => return Err(format!("recover: {e}")),
            Err(_) => None,
        };
        let (_dir, path) = copied(&self.there);
        let open = || self.lab.open(&path, Some(way(&vault))).map_err(|e| format!("open: {e}"));
        let changed = damaged(objects, cell);
        let names: Vec<&str> = changed.iter().map(|(name, _)| name.as_str()).collect();
        let is_told = |report: &Report| names.iter().any(|name| is_told(report, name));
        let structure = checked(&open()?, Depth::Structure)?;
        if self.is_claimed_by_structure(names[0], &cell.1) && !is_told(&structure) {
            return Err(format!("a look at lengths does not find it: {}", told(&structure)));
        }
        let report = checked(&open()?, Depth::ReadData)?;
        let store = open()?;
        let lost = all_lost(&store, &self.points)?;
        // A vault whose config or generations are damaged is not looked at any further.
        let keeps_shut = |name: &&str| *name == "config" || name.starts_with("gen/");
        if !(names.iter().any(keeps_shut) && is_told(&report)) {
            names_exactly(&store, &report, &lost).map_err(|e| format!("{e}: {}", told(&report)))?;
        }
        let is_harmless = lost_alone.as_ref().is_some_and(BTreeSet::is_empty);
        if !is_told(&report)
            && (names.iter().any(|name| is_claimed(&self.points, name, &cell.1)) || !is_harmless)
        {
            return Err(format!("it is not found: {}; alone {lost_alone:?}", told(&report)));
        }
        Ok(())
    }
}

/// A machine that has everything here, and no vault.
struct Here {
    lab: Lab,
    _dir: TempDir,
    path: PathBuf,
    points: Points,
}

fn here() -> Here {
    let lab = Lab::new();
    let (dir, path) = lab.copy();
    let url = "file:///srv/vault".to_owned();
    Settings::change(&path, |settings| {
        settings.vaults.push(VaultSetting::new(url));
        Ok(())
    })
    .unwrap();
    let store = lab.open(&path, None).unwrap();
    let points: Points =
        [1, 2].map(|version| (take(&store, &files(version), false).unwrap().point.id, files(version))).into();
    store.place_hold(&points[1].0, "kept").unwrap();
    Here { lab, _dir: dir, path, points }
}

impl Here {
    /// The files of the store's directory.
    fn files_here(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        let kinds = ["config", "keys", "pack", "idx", "rp", "hold", "settings.json", "catalog.db"];
        collect(&self.path, "", &mut all);
        all.retain(|(name, _)| kinds.iter().any(|kind| name.split('/').next() == Some(kind)));
        all
    }

    fn look_here(&self, objects: &[(String, Vec<u8>)], cell: &Cell) -> Result<(), String> {
        let dir = lab::scratch();
        let path = dir.path().join("store");
        copy_dir(&self.path, &path);
        let changed = damaged(objects, cell);
        for (name, bytes) in &changed {
            let file = path.join(name);
            match bytes {
                Some(bytes) => std::fs::write(file, bytes).unwrap(),
                None => std::fs::remove_file(file).unwrap(),
            }
        }
        let names: Vec<&str> = changed.iter().map(|(name, _)| name.as_str()).collect();
        let is_told = |report: &Report| names.iter().any(|name| is_told(report, name));
        match self.lab.open(&path, None).and_then(|store| Ok((checked_here(&store)?, store))) {
            Ok((report, store)) => {
                let lost = all_lost(&store, &self.points)?;
                // A damaged row may hide a chunk until the catalog is made anew, as it is below.
                if !(names.contains(&"catalog.db") && is_told(&report)) {
                    names_exactly(&store, &report, &lost).map_err(|e| format!("{e}: {}", told(&report)))?;
                }
                let must = names
                    .iter()
                    .any(|name| is_claimed(&self.points, name, &cell.1) && !only_by_secret(name, &cell.1));
                if !is_told(&report) && (must || !lost.is_empty()) {
                    return Err(format!("it is not found, {lost:?} are lost: {}", told(&report)));
                }
            }
            Err(e) if names.iter().any(|name| is_named(&e, name)) => {}
            Err(e) => return Err(format!("open or check: {e}")),
        }
        // Without what the catalog knows.
        for file in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
            let _ = std::fs::remove_file(path.join(file));
        }
        let opened = self.lab.open(&path, None).and_then(|store| Ok((checked_here(&store)?, store)));
        match opened {
            Ok((report, store)) => {
                let lost = all_lost(&store, &self.points)?;
                let is_moved =
                    names.iter().any(|name| path.join("bad").is_dir() && !path.join(name).exists());
                // Of a point that is not there any more nobody knows then.
                let is_unknown =
                    |id: &RecoveryPointId| store.catalog().point(id).is_ok_and(|row| row.is_none());
                let is_gone = matches!(cell.1, Damage::Gone) && lost.iter().all(|(id, _)| is_unknown(id));
                if lost.is_empty() || is_told(&report) || is_moved || is_gone {
                    return Ok(());
                }
                // What was in a pack that went nobody knows then; what was in need of it is told.
                names_exactly(&store, &report, &lost)
                    .map_err(|e| format!("without the catalog {lost:?} are lost: {e}: {}", told(&report)))
            }
            Err(e) if names.iter().any(|name| is_named(&e, name)) => Ok(()),
            Err(e) => Err(format!("without the catalog: {e}")),
        }
    }
}

fn checked_here(store: &Store) -> Result<Report, StoreError> {
    check::check(store, Depth::ReadData, &VoidMonitor)
}

/// Whether an error says what is damaged.
fn is_named(e: &StoreError, name: &str) -> bool {
    match e {
        StoreError::Catalog { class, .. } => name == "catalog.db" && *class == ErrorClass::Corrupt,
        StoreError::NoStore { .. } => name == "config",
        e => e.to_string().contains(name),
    }
}

fn collect(dir: &Path, prefix: &str, all: &mut Vec<(String, Vec<u8>)>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => collect(&entry.path(), &format!("{name}/"), all),
            false => all.push((name, std::fs::read(entry.path()).unwrap())),
        }
    }
}

fn checked(store: &Store, depth: Depth) -> Result<Report, String> {
    check::check(store, depth, &VoidMonitor).map_err(|e| format!("check: {e}"))
}

/// Whether a report tells of an object; of the config it is the vault that is told.
fn is_told(report: &Report, name: &str) -> bool {
    let is_of = |found: &check::Finding| match name {
        // Where it is missing the vault may not be the one that was meant: that is no damage.
        "config" => found.object == lab::ADDRESS && found.unseen == found.detail.contains("config not found"),
        name => found.object.starts_with(name) || found.detail.contains(name),
    };
    report.findings.iter().any(is_of)
}

fn of(objects: &[(String, Vec<u8>)], cell: &Cell, e: String) -> String {
    let other = match cell.1 {
        Damage::Swap(other) | Damage::Copy(other) => objects[other].0.as_str(),
        _ => "",
    };
    format!("{} {:?} {other}: {e}", objects[cell.0].0, cell.1)
}

fn described(objects: &[(String, Vec<u8>)]) -> Vec<usize> {
    for (name, bytes) in objects {
        println!("{name}: {} bytes", bytes.len());
    }
    objects.iter().map(|(_, bytes)| bytes.len()).collect()
}

#[test]
fn no_damage_to_an_object_of_a_vault_goes_unnoticed_or_costs_a_file_that_is_not_named() {
    let (whole, slice) = (whole(), Slice::of("damage to a vault"));
    let objects = whole.objects();
    let kinds: BTreeSet<&str> = objects.iter().map(|(name, _)| name.split('/').next().unwrap()).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["config", "gen", "hold", "idx", "keys", "pack", "rp", "sess"]
    );
    let vault = copy_vault(&whole.vault);
    let there = whole.lab.open(&whole.there, Some(way(&vault))).unwrap();
    assert_eq!(told(&checked(&there, Depth::ReadData).unwrap()), "");
    drop(there);
    let cells = sliced(&slice, &described(&objects));
    each(&cells, |cell| whole.look_at_vault(&objects, cell).map_err(|e| of(&objects, cell, e)));
}

#[test]
fn no_damage_to_a_file_of_staging_goes_unnoticed_or_costs_a_file_that_is_not_named() {
    let (here, slice) = (here(), Slice::of("damage to staging"));
    let objects = here.files_here();
    let lens = described(&objects);
    let mut cells = sliced(&slice, &lens);
    // Of the catalog, which has more bytes than all the others, fewer.
    let catalog = objects.iter().position(|(name, _)| name == "catalog.db").unwrap();
    let mut random = TestRandom::new(!slice.seed);
    // With the catalog goes what it knows of others: it is never one of two that are damaged at once.
    let is_of_two = |(object, damage): &Cell| matches!(damage, Damage::Swap(other) if *other == catalog || *object == catalog);
    cells.retain(|cell| !is_of_two(cell) && (slice.all || cell.0 != catalog || random.below(64) == 0));
    each(&cells, |cell| here.look_here(&objects, cell).map_err(|e| of(&objects, cell, e)));
}

/// One byte in so many is looked at near the ends of objects, unless all are asked for …
const PART: u64 = 12;
/// … and one in so many between, most of which is fill.
const PART_BETWEEN: u64 = 512;
/// What is near the ends: headers, the first content, directories and footers.
const BEGINNING: usize = 512;
const END: usize = 256;
