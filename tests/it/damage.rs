//! Every object of a store deleted, cut, flipped, replaced and swapped: what each costs is pinned in a table, and no bit that
//! flips anywhere goes unnoticed where it matters.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_store::check::{Depth, check};
use holdfast_store::clock::SystemClock;
use holdfast_store::format::HEADER_LEN;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::names;
use holdfast_store::pack::PackKind;
use holdfast_store::seal::sheet::parse_words;
use holdfast_store::seal::slots::{KeySlot, SlotKind};
use holdfast_store::store::{Store, StoreOptions};
use holdfast_store::tree::testing::TestRandom;

use crate::testkit::Machine;
use crate::trouble::{
    SmallStore, Tree, command, copy_dir, mutate, points, read_tree, restored, run, sample, summary_id,
    write_tree,
};

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Config,
    MachineSlot,
    RecoverySlot,
    DataPack,
    TreePack,
    Idx,
    Rp,
    Catalog,
    Wal,
    Settings,
}

const KINDS: [Kind; 10] = [
    Kind::Config,
    Kind::MachineSlot,
    Kind::RecoverySlot,
    Kind::DataPack,
    Kind::TreePack,
    Kind::Idx,
    Kind::Rp,
    Kind::Catalog,
    Kind::Wal,
    Kind::Settings,
];

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Delete,
    Truncate,
    Flip,
    Junk,
    Swap,
}

const ACTIONS: [Action; 5] = [Action::Delete, Action::Truncate, Action::Flip, Action::Junk, Action::Swap];

/// A store with two points, and what they restore to.
struct Whole {
    machine: Machine,
    store: SmallStore,
    points: Vec<(String, Tree)>,
    objects: Vec<(Kind, PathBuf, PathBuf)>,
}

fn whole(bytes: usize) -> Whole {
    let machine = Machine::new();
    let store = SmallStore::make(&machine, machine.path("whole"));
    let (mut random, source) = (TestRandom::new(6), machine.path("source"));
    let mut tree = sample(&mut random, bytes);
    // With a connection open all the time, what is committed stays in the log of the catalog.
    let opened = open(&store.dir, &store).unwrap();
    std::fs::write(store.dir.join("settings.json"), "{\"vaults\":[]}").unwrap();
    let mut points = Vec::new();
    for round in 0..2 {
        mutate(&mut random, &mut tree, round);
        write_tree(&source, &tree);
        let args = ["backup", "--json", source.to_str().unwrap()];
        let id = summary_id(&run(&machine, &store.dir, &args).expect_code(0).out()).unwrap();
        points.push((id, tree.clone()));
    }
    let copy = machine.path("store");
    copy_dir(&store.dir, &copy);
    let objects = objects(&opened, &store);
    drop(opened);
    let store = SmallStore { dir: copy, ..store };
    Whole { machine, store, points, objects }
}

fn open(dir: &Path, store: &SmallStore) -> Result<Store, holdfast_store::StoreError> {
    let clock = Arc::new(SystemClock);
    let options = StoreOptions::local(clock);
    Store::open(dir, &store.ring, options, &VoidMonitor)
}

/// One object of each kind with another to swap it with.
fn objects(opened: &Store, store: &SmallStore) -> Vec<(Kind, PathBuf, PathBuf)> {
    let path = |name: holdfast_store::vault::ObjectName| PathBuf::from(name.as_str());
    let packs = opened.catalog().packs().unwrap();
    let pack = |kind, nth: usize| {
        let of_kind: Vec<_> = packs.iter().filter(|pack| pack.entry.kind == kind).collect();
        path(names::pack(&of_kind[nth].entry.id))
    };
    let listed = |dir: &str, nth: usize| path(opened.staging().list(dir).unwrap()[nth].name.clone());
    let slot = |kind| {
        let head = Store::head(&store.dir).unwrap();
        let of = |bytes: &[u8]| KeySlot::read(bytes, &head.vault).unwrap().kind;
        let (id, _) = head.slots.iter().find(|(_, bytes)| of(bytes) == kind).unwrap();
        path(names::slot(id))
    };
    let (machine, recovery) = (slot(SlotKind::Machine), slot(SlotKind::Recovery));
    vec![
        (Kind::Config, "config".into(), recovery.clone()),
        (Kind::MachineSlot, machine.clone(), recovery.clone()),
        (Kind::RecoverySlot, recovery, machine),
        (Kind::DataPack, pack(PackKind::Data, 0), pack(PackKind::Data, 1)),
        (Kind::TreePack, pack(PackKind::Tree, 0), pack(PackKind::Tree, 1)),
        (Kind::Idx, listed("idx", 0), listed("idx", 1)),
        (Kind::Rp, listed("rp", 0), listed("rp", 1)),
        (Kind::Catalog, "catalog.db".into(), "config".into()),
        (Kind::Wal, "catalog.db-wal".into(), "catalog.db".into()),
        (Kind::Settings, "settings.json".into(), "config".into()),
    ]
}

impl Whole {
    /// A copy of the store with one object damaged.
    fn damaged(&self, kind: Kind, action: Action) -> PathBuf {
        let dir = self.machine.path("damaged");
        let _ = std::fs::remove_dir_all(&dir);
        copy_dir(&self.store.dir, &dir);
        let (_, object, other) = self.objects.iter().find(|(of, _, _)| *of == kind).unwrap();
        let (path, other) = (dir.join(object), dir.join(other));
        let mut bytes = std::fs::read(&path).unwrap();
        let is_pack = matches!(kind, Kind::DataPack | Kind::TreePack);
        match action {
            Action::Delete => return remove(&path, dir),
            // What of a pack is hurt is what it holds, not the fill after that.
            Action::Truncate if is_pack => bytes.truncate(HEADER_LEN + 64),
            Action::Truncate => bytes.truncate(bytes.len() / 2),
            Action::Flip => {
                let at = if is_pack { HEADER_LEN + 50 } else { bytes.len() * 2 / 3 };
                bytes[at] ^= 4;
            }
            Action::Junk => TestRandom::new(7).bytes(bytes.len()).clone_into(&mut bytes),
            Action::Swap => {
                std::fs::rename(&path, dir.join("swap")).unwrap();
                std::fs::rename(&other, &path).unwrap();
                std::fs::rename(dir.join("swap"), &other).unwrap();
                return dir;
            }
        }
        std::fs::write(&path, bytes).unwrap();
        dir
    }

    /// What the damage does, as one line of the table.
    fn outcome(&self, kind: Kind, action: Action) -> String {
        let dir = self.damaged(kind, action);
        let listing = run(&self.machine, &dir, &["snapshots", "--json"]).code();
        let (mut codes, mut broken) = (Vec::new(), BTreeSet::new());
        for (id, tree) in &self.points {
            let (code, back) = restored(&self.machine, &dir, id);
            let lost = differing(&back, tree, &format!("{kind:?} {action:?}"));
            assert!(
                code != 0 || lost.is_empty(),
                "{kind:?} {action:?}: restore is content, {lost:?} are not right"
            );
            broken.extend(lost.into_iter().filter(|_| code == 3).map(|path| (id.clone(), path)));
            codes.push(code);
        }
        let checked = run(&self.machine, &dir, &["check", "--read-data", "--json"]);
        self.assert_named(kind, &checked.out(), checked.code(), &broken);
        let again: Vec<i32> = self.points.iter().map(|(id, _)| restored(&self.machine, &dir, id).0).collect();
        assert_eq!(again, codes, "{kind:?} {action:?}: a check changes nothing");
        let source = self.machine.path("source");
        let ran = run(&self.machine, &dir, &["backup", "--json", source.to_str().unwrap()]);
        if [0, 3].contains(&ran.code()) {
            let (code, tree) = restored(&self.machine, &dir, &summary_id(&ran.out()).unwrap());
            assert!(
                code == 0 && tree == self.points[1].1,
                "{kind:?} {action:?}: the new point does not restore"
            );
        }
        if kind == Kind::DataPack {
            // Which points have files in the damaged part is chance.
            codes = vec![codes[0].max(codes[1]); 2];
        }
        format!(
            "list {listing}, restore {} {}, check {}, backup {}",
            codes[0],
            codes[1],
            checked.code(),
            ran.code()
        )
    }

    /// A damaged pack is named, and exactly the files are that a restore could not bring back.
    fn assert_named(&self, kind: Kind, out: &str, code: i32, broken: &BTreeSet<(String, String)>) {
        if code != 1 || kind != Kind::DataPack {
            return;
        }
        let (_, object, _) = self.objects.iter().find(|(of, _, _)| *of == kind).unwrap();
        let said: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        let packs: Vec<&str> =
            said["broken_packs"].as_array().unwrap().iter().map(|pack| pack.as_str().unwrap()).collect();
        assert!(packs.contains(&object.to_str().unwrap()), "{packs:?}");
        let files: BTreeSet<(String, String)> = said["broken_files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| {
                let text = |key: &str| file[key].as_str().unwrap().to_owned();
                (text("snapshot_id"), text("path"))
            })
            .collect();
        assert_eq!(files, *broken);
    }
}

fn remove(path: &Path, dir: PathBuf) -> PathBuf {
    std::fs::remove_file(path).unwrap();
    dir
}

/// Files that are not there as they were. One with the right length and other bytes than zeros in place of what is lost would be a
/// wrong file that looks right.
fn differing(back: &Tree, expected: &Tree, what: &str) -> BTreeSet<String> {
    for (path, bytes) in back {
        let Some(right) = expected.get(path) else { panic!("{what}: {path} was never there") };
        let wrong = bytes.iter().zip(right.iter()).any(|(got, right)| got != right && *got != 0);
        assert!(!wrong, "{what}: {path} has wrong bytes");
    }
    expected
        .iter()
        .filter(|(path, bytes)| back.get(*path) != Some(*bytes))
        .map(|(path, _)| path.clone())
        .collect()
}

#[test]
fn what_each_damage_costs_is_known() {
    let whole = whole(3 << 20);
    let mut found = String::new();
    for kind in KINDS {
        for action in ACTIONS {
            found += &format!("{kind:?} {action:?}: {}\n", whole.outcome(kind, action));
        }
    }
    // As lines, so that a difference is read at a glance.
    let pinned: Vec<&str> =
        include_str!("damage.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), pinned, "found:\n{found}");
}

#[test]
fn the_words_of_the_sheet_open_a_store_whose_machine_slot_is_gone() {
    let whole = whole(1 << 20);
    let dir = whole.damaged(Kind::MachineSlot, Action::Junk);
    let mut list = command(&whole.machine, &dir, &["snapshots"]);
    crate::testkit::Ran::of(list.env("HOLDFAST_RECOVERY_KEY", &whole.store.words)).expect_code(0);
}

/// Flips single bits all over a store: each is told by a check, or nothing is lost by it even if the catalog is.
#[test]
fn no_flipped_bit_that_matters_goes_unnoticed() {
    let whole = whole(1 << 18);
    let (dir, store) = (&whole.store.dir, &whole.store);
    let secret = parse_words(&store.words).unwrap();
    let (mut flips, mut only_by_secret) = (0, 0);
    for (path, bytes) in read_tree(dir) {
        let Some(first) =
            path.split('/').next().filter(|first| ["config", "keys", "pack", "idx", "rp"].contains(first))
        else {
            continue;
        };
        let step = if first == "pack" { bytes.len() / 40 + 1 } else { bytes.len() / 20 + 1 };
        for at in (0..bytes.len()).step_by(step) {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(dir.join(&path), flipped).unwrap();
            flips += 1;
            if !is_told(dir, store) {
                if first == "keys" {
                    // The sealed part of a slot only its secret proves: it must not open.
                    only_by_secret += 1;
                    let head = Store::head(dir).unwrap();
                    let opened =
                        head.slots.iter().filter(|(_, s)| KeySlot::open(s, &head.vault, &secret).is_ok());
                    assert!(opened.count() <= 1, "{path} at {at}");
                } else {
                    assert_restores_without_catalog(&whole, &format!("{path} at {at}"));
                }
            }
        }
        std::fs::write(dir.join(&path), &**bytes).unwrap();
    }
    assert!(flips > 200 && only_by_secret < 40, "{flips} flips, {only_by_secret} told only by a secret");
    run(&whole.machine, dir, &["check", "--read-data"]).expect_code(0);
}

/// A bit of a point's row in the catalog, each time another one: the object of the point, which is whole, says what is right.
#[test]
fn a_flipped_bit_in_the_catalogs_row_of_a_point_changes_no_order_and_costs_nothing() {
    let machine = Machine::with_store();
    let (source, db) = (machine.path("source"), machine.store().join("catalog.db"));
    std::fs::create_dir(&source).unwrap();
    let take = |version: usize| {
        std::fs::write(source.join("file"), format!("version {version}")).unwrap();
        machine.back_up(&source, &[])["snapshot_id"].as_str().unwrap().to_owned()
    };
    let mut ids = vec![take(1), take(2), take(3)];
    let flips = [
        "sequence = sequence | 64 where sequence = 1",
        "started = started - 1048576 where sequence = 2",
        "tag = zeroblob(16) where sequence = (select max(sequence) from point)",
        "object = cast(substr(object, 1, 200) || x'00' || substr(object, 202) as blob) where sequence = (select max(sequence) from point)",
        "id = zeroblob(16) where sequence = (select max(sequence) from point)",
    ];
    for flip in flips {
        let damage = || {
            let sql = format!("update point set {flip}; select changes()");
            let done = std::process::Command::new("sqlite3").arg(&db).arg(sql).output().unwrap();
            assert_eq!(String::from_utf8(done.stdout).unwrap(), "1\n", "{flip}");
        };
        damage();
        assert_eq!(points(&machine, &machine.store()), ids, "{flip}");
        damage();
        let version = |target: PathBuf| std::fs::read_to_string(target.join("file")).unwrap();
        let target = machine.restore("latest~1", &format!("before-{}", ids.len()));
        assert_eq!(version(target), format!("version {}", ids.len() - 1), "{flip}");
        damage();
        machine.run(["check", "--read-data"]).expect_code(0);
        damage();
        machine.run(["prune"]).expect_code(0);
        damage();
        ids.push(take(ids.len() + 1));
        let target = machine.restore("latest", &format!("newest-{}", ids.len()));
        assert_eq!(version(target), format!("version {}", ids.len()), "{flip}");
    }
    // What the objects say, without this catalog: 1, 2, 3 and so on, each after the one before.
    delete_catalog(&machine.store());
    assert_eq!(points(&machine, &machine.store()), ids);
    let out = machine.run(["snapshots", "--latest", "1", "--json"]).expect_code(0).out();
    assert!(out.contains(ids.last().unwrap()) && !out.contains(&ids[0]), "{out}");
    let numbers =
        std::process::Command::new("sqlite3").arg(&db).arg("select sequence from point order by 1").output();
    let numbers = String::from_utf8(numbers.unwrap().stdout).unwrap();
    assert_eq!(numbers.lines().collect::<Vec<_>>(), ["1", "2", "3", "4", "5", "6", "7", "8"]);
}

fn delete_catalog(dir: &Path) {
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
}

fn is_told(dir: &Path, store: &SmallStore) -> bool {
    delete_catalog(dir);
    let Ok(opened) = open(dir, store) else { return true };
    check(&opened, Depth::ReadData, &VoidMonitor).is_ok_and(|report| !report.findings.is_empty())
}

fn assert_restores_without_catalog(whole: &Whole, what: &str) {
    let dir = &whole.store.dir;
    delete_catalog(dir);
    assert_eq!(points(&whole.machine, dir).len(), whole.points.len(), "{what}");
    for (id, tree) in &whole.points {
        let (code, back) = restored(&whole.machine, dir, id);
        assert!(code == 0 && back == *tree, "{what}");
    }
}
