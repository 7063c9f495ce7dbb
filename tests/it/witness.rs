//! A vault that hides, removes, rolls back, replays, swaps or forks is noticed by the next look at it, each by its word; and a long honest life
//! raises nothing. The tests have the vault in a directory and do to it what whoever keeps it could do.
#![allow(clippy::unwrap_used)]

mod honest;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::testkit::{Machine, PASSPHRASE, Ran, points_in};

/// All words.
const WORDS: [&str; 12] = [
    "vault-rolled-back",
    "point-withheld",
    "point-removed",
    "point-replayed",
    "point-swapped",
    "chain-forked",
    "chain-broken",
    "config-swapped",
    "slot-swapped",
    "slot-replayed",
    "writer-unknown",
    "writer-forged",
];

/// A machine with a vault in a directory.
struct Bed {
    machine: Machine,
    vault: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let machine = Machine::with_store();
        let vault = machine.path("vault");
        machine.run(["vault", "add", vault.to_str().unwrap()]).expect_code(0);
        Self { machine, vault }
    }

    /// One that has `points` points of the source `s` in its vault.
    fn with_points(points: usize) -> (Self, Vec<String>) {
        let bed = Self::new();
        let ids = (0..points).map(|n| bed.take("s", &n.to_string())).collect();
        bed.push(0);
        (bed, ids)
    }

    /// Takes a point with something new in it; its id.
    fn take(&self, source: &str, content: &str) -> String {
        take(&self.machine, source, content)
    }

    fn push(&self, code: i32) -> Ran {
        self.machine.run(["vault", "push"]).expect_code(code)
    }

    fn recovered(&self) -> Machine {
        Machine::recovered_from(&self.vault)
    }

    fn address(&self) -> &str {
        self.vault.to_str().unwrap()
    }

    /// Where the first attempt at a point puts it.
    fn object(&self, id: &str) -> PathBuf {
        let sources = std::fs::read_dir(self.vault.join("rp")).unwrap();
        let mut paths = sources.map(|source| source.unwrap().path().join(id));
        paths.find(|path| path.exists()).unwrap()
    }

    /// The vault as it is now, for later.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.machine.path(name);
        copy_all(&self.vault, &copy);
        copy
    }

    /// Puts the vault back as it was.
    fn put_back(&self, copy: &Path) {
        std::fs::remove_dir_all(&self.vault).unwrap();
        copy_all(copy, &self.vault);
    }
}

fn take(machine: &Machine, source: &str, content: &str) -> String {
    let path = machine.path(source);
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("file"), content).unwrap();
    machine.back_up(&path, &[])["snapshot_id"].as_str().unwrap().to_owned()
}

fn copy_all(from: &Path, to: &Path) {
    let ran = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(ran.success());
}

/// Names of the alerts of `status` that are about what a vault was.
fn alerts(machine: &Machine) -> BTreeSet<String> {
    let config = machine.path("nothing.toml");
    std::fs::write(&config, "").unwrap();
    let mut status = machine.command(["status", "--json"]);
    let page = Ran::of(status.env("HOLDFAST_CONFIG", config)).expect_code(0).json();
    let names = page["alerts"].as_array().unwrap().iter().map(|alert| alert["name"].as_str().unwrap());
    names.filter(|name| WORDS.contains(name)).map(str::to_owned).collect()
}

/// Words that a command said.
fn said(ran: &Ran) -> BTreeSet<String> {
    let words = WORDS.iter().filter(|word| ran.err().contains(&format!("{word}:")));
    words.map(|word| (*word).to_owned()).collect()
}

fn only(word: &str) -> BTreeSet<String> {
    BTreeSet::from([word.to_owned()])
}

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

#[test]
fn yesterdays_copy_of_a_vault_is_told_and_what_it_lacks_is_sent_again() {
    let (bed, _) = Bed::with_points(2);
    bed.take("t", "other");
    bed.push(0);
    let other = bed.recovered();
    let yesterday = bed.copy("yesterday");
    let lost = [bed.take("s", "new"), bed.take("t", "new, too")];
    bed.push(0);
    other.run(["prune"]).expect_code(0);
    bed.put_back(&yesterday);
    // Of who only reads nobody is kept.
    bed.machine.restore("latest", "back");
    assert_eq!(said(&other.run(["check"]).expect_code(1)), only("vault-rolled-back"));
    let ran = bed.push(3);
    assert_eq!(said(&ran), only("vault-rolled-back"), "{}", ran.err());
    assert!(lost.iter().all(|id| ran.err().contains(&id[..8])), "{}", ran.err());
    assert!(ran.err().contains("holdfast vault accept"), "{}", ran.err());
    assert_eq!(alerts(&bed.machine), only("vault-rolled-back"));
    assert_eq!(points_in(&bed.vault).len(), 5, "they are there again");
    bed.push(0);
    assert_eq!(alerts(&bed.machine), none());
    other.run(["check"]).expect_code(0);
    assert_eq!(alerts(&other), none());
}

#[test]
fn a_vault_put_back_with_its_generations_takes_nothing_until_it_is_accepted() {
    let (bed, ids) = Bed::with_points(1);
    let old = bed.copy("old");
    bed.take("s", "2");
    bed.push(0);
    bed.machine.run(["forget", &ids[0], "--yes", "--allow-newest"]).expect_code(0);
    bed.machine.run(["prune", "--now"]).expect_code(0);
    let has_generations = std::fs::read_dir(bed.vault.join("gen")).is_ok_and(|mut dir| dir.next().is_some());
    assert!(has_generations, "else there is nothing to miss");
    bed.put_back(&old);
    let ran = bed.push(1);
    assert_eq!(said(&ran), only("vault-rolled-back"), "{}", ran.err());
    assert_eq!(alerts(&bed.machine), only("vault-rolled-back"));
    let accepted = bed.machine.run(["vault", "accept", bed.address(), "--json"]).expect_code(0).json();
    assert_eq!(accepted["alarms"][0]["name"], "vault-rolled-back", "{accepted}");
    assert_eq!(accepted["lost"].as_array().unwrap().len(), 1, "{accepted}");
    assert_eq!(alerts(&bed.machine), none());
    bed.push(0);
    bed.machine.run(["check"]).expect_code(0);
    assert_eq!(points_in(&bed.vault).len(), 2);
}

#[test]
fn one_point_that_was_removed_without_a_word_is_told_by_every_machine() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(bed.take("s", &n.to_string()));
        bed.push(0);
    }
    let other = bed.recovered();
    std::fs::remove_file(bed.object(&ids[1])).unwrap();
    // This one has nothing but what sessions tell.
    let stranger = Machine::recovering();
    let mut recover = stranger.command(["recover", "--machine-key"]);
    let ran = Ran::of(recover.arg(&bed.vault).env("HOLDFAST_PASSWORD", PASSPHRASE));
    assert_eq!(said(&ran), only("point-removed"), "{}", ran.err());
    assert_eq!(alerts(&stranger), only("point-removed"));
    assert_eq!(said(&other.run(["check"]).expect_code(1)), only("point-removed"));
    let ran = bed.push(3);
    assert_eq!(said(&ran), only("point-removed"), "{}", ran.err());
    assert!(ran.err().contains(&ids[1][..8]), "{}", ran.err());
    bed.push(0);
    for machine in [&bed.machine, &other, &stranger] {
        machine.run(["check"]).expect_code(0);
        assert_eq!(alerts(machine), none());
    }
}

#[test]
fn the_newest_point_hidden_is_told_with_either_memory_and_by_who_has_none() {
    let (bed, _) = Bed::with_points(2);
    let hidden = bed.take("s", "newest");
    bed.push(0);
    bed.take("t", "a witness");
    bed.push(0);
    let away = bed.object(&hidden);
    let bytes = std::fs::read(&away).unwrap();
    std::fs::remove_file(&away).unwrap();
    let stranger = Machine::recovering();
    let mut recover = stranger.command(["recover", "--machine-key"]);
    let ran = Ran::of(recover.arg(&bed.vault).env("HOLDFAST_PASSWORD", PASSPHRASE));
    assert_eq!(said(&ran), only("point-withheld"), "{}", ran.err());
    assert!(ran.out().contains("never saw it before"), "{}", ran.out());
    // Whichever of the two is lost.
    let store = bed.machine.store();
    for lost in [&["witness.json"][..], &["catalog.db", "catalog.db-wal", "catalog.db-shm"]] {
        lost.iter().for_each(|name| drop(std::fs::remove_file(store.join(name))));
        // The local copy is no reason to be quiet.
        let ran = bed.machine.run(["check"]).expect_code(1);
        assert_eq!(said(&ran), only("point-withheld"), "{lost:?}: {}", ran.err());
        std::fs::write(&away, &bytes).unwrap();
        bed.machine.run(["check"]).expect_code(0);
        std::fs::remove_file(&away).unwrap();
    }
}

#[test]
fn two_machines_that_take_points_of_one_source_are_told_of_each_other_and_both_are_kept() {
    let (bed, _) = Bed::with_points(2);
    let clone = bed.machine.path("clone");
    copy_all(&bed.machine.store(), &clone);
    bed.take("s", "here");
    bed.push(0);
    let source = bed.machine.path("s");
    std::fs::write(source.join("file"), "there").unwrap();
    let store = clone.to_str().unwrap();
    let on_clone = |args: &[&str]| bed.machine.run([&["--store", store], args].concat());
    on_clone(&["backup", source.to_str().unwrap()]).expect_code(0);
    let ran = on_clone(&["vault", "push"]).expect_code(3);
    assert_eq!(said(&ran), only("chain-forked"), "{}", ran.err());
    let ran = bed.push(3);
    assert_eq!(said(&ran), only("chain-forked"), "{}", ran.err());
    assert_eq!(said(&on_clone(&["check"]).expect_code(1)), only("chain-forked"));
    assert_eq!(points_in(&bed.vault).len(), 4);
    // With a name of its own the clone is no clone any more.
    bed.machine.run(["vault", "accept", bed.address()]).expect_code(0);
    on_clone(&["vault", "accept", bed.address()]).expect_code(0);
    on_clone(&["backup", "--host", "clone", source.to_str().unwrap()]).expect_code(0);
    on_clone(&["vault", "push"]).expect_code(0);
    bed.take("s", "further");
    bed.push(0);
    assert_eq!(alerts(&bed.machine), none());
    on_clone(&["check"]).expect_code(0);
    let points = bed.machine.run(["snapshots", "--json"]).expect_code(0).json();
    assert!(points.as_array().unwrap().len() >= 5, "{points}");
}

#[test]
fn a_forgotten_point_that_comes_back_is_told_under_its_old_name_and_under_a_new_one() {
    let (bed, ids) = Bed::with_points(3);
    let object = bed.object(&ids[0]);
    let session = bed.vault.join("sess").join(&ids[0]);
    let (point, begun) = (std::fs::read(&object).unwrap(), std::fs::read(&session).unwrap());
    bed.machine.run(["forget", &ids[0], "--yes", "--allow-newest"]).expect_code(0);
    let revocation = std::fs::read(&object).unwrap();
    assert_ne!(revocation, point);
    bed.push(0);
    std::fs::write(&object, &point).unwrap();
    let ran = bed.machine.run(["vault", "push"]);
    assert_eq!(said(&ran), only("point-replayed"), "{}", ran.err());
    assert_eq!(alerts(&bed.machine), only("point-replayed"));
    std::fs::write(&object, &revocation).unwrap();
    bed.push(0);
    assert_eq!(alerts(&bed.machine), none());
    // Whoever forgot it said so for the first attempt alone.
    std::fs::write(object.with_extension("1"), &point).unwrap();
    for copied in [false, true] {
        if copied {
            std::fs::write(session.with_extension("1"), &begun).unwrap();
        }
        let stranger = Machine::recovering();
        let mut recover = stranger.command(["recover", "--machine-key"]);
        let ran = Ran::of(recover.arg(&bed.vault).env("HOLDFAST_PASSWORD", PASSPHRASE));
        // A session of the first point in a vault says nothing, as those of before: that is not told.
        assert_eq!(said(&ran), if copied { none() } else { only("point-replayed") }, "{}", ran.err());
    }
}

#[test]
fn a_point_under_the_name_of_another_is_told() {
    let (bed, ids) = Bed::with_points(3);
    let newest = bed.object(&ids[2]);
    std::fs::copy(bed.object(&ids[1]), &newest).unwrap();
    let ran = bed.machine.run(["check"]).expect_code(1);
    assert_eq!(said(&ran), only("point-swapped"), "{}", ran.err());
    assert_eq!(alerts(&bed.machine), only("point-swapped"));
    let stranger = Machine::recovering();
    let mut recover = stranger.command(["recover", "--machine-key"]);
    let ran = Ran::of(recover.arg(&bed.vault).env("HOLDFAST_PASSWORD", PASSPHRASE));
    assert!(said(&ran).contains("point-swapped"), "{}", ran.err());
    bed.machine.run(["vault", "accept", bed.address()]).expect_code(1);
    // One that is not the newest is read by who reads all.
    bed.machine.run(["vault", "push", &ids[2]]);
    std::fs::copy(bed.object(&ids[1]), bed.object(&ids[0])).unwrap();
    let ran = bed.machine.run(["check", "--read-data"]).expect_code(1);
    assert!(said(&ran).contains("point-swapped"), "{}", ran.err());
}

#[test]
fn a_key_slot_that_was_removed_and_is_back_and_one_that_is_another_are_told() {
    let (bed, _) = Bed::with_points(1);
    let slots = || -> BTreeSet<PathBuf> {
        std::fs::read_dir(bed.vault.join("keys")).unwrap().map(|slot| slot.unwrap().path()).collect()
    };
    let before = slots();
    let mut add = bed.machine.command(["key", "add", "--kind", "recovery"]);
    Ran::of(add.env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    let added = slots().difference(&before).next().unwrap().clone();
    let old = std::fs::read(&added).unwrap();
    bed.push(0);
    let id = added.file_name().unwrap().to_str().unwrap();
    let mut remove = bed.machine.command(["key", "remove", id]);
    Ran::of(remove.env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    assert!(!added.exists());
    bed.push(0);
    assert_eq!(alerts(&bed.machine), none());
    std::fs::write(&added, &old).unwrap();
    let ran = bed.machine.run(["check"]).expect_code(1);
    assert_eq!(said(&ran), only("slot-replayed"), "{}", ran.err());
    let ran = bed.push(3);
    assert_eq!(said(&ran), only("slot-replayed"), "{}", ran.err());
    assert_eq!(alerts(&bed.machine), only("slot-replayed"));
    std::fs::remove_file(&added).unwrap();
    bed.push(0);
    assert_eq!(alerts(&bed.machine), none());
    // Under the name of another.
    let mut names = before.iter();
    let (one, two) = (names.next().unwrap(), names.next().unwrap());
    std::fs::copy(one, two).unwrap();
    let ran = bed.machine.run(["check"]).expect_code(1);
    assert_eq!(said(&ran), only("slot-swapped"), "{}", ran.err());
    assert_eq!(alerts(&bed.machine), only("slot-swapped"));
}

#[test]
fn a_config_that_is_damaged_is_not_taken_for_another_and_a_push_puts_it_right() {
    let (bed, _) = Bed::with_points(1);
    let path = bed.vault.join("config");
    let ours = std::fs::read(&path).unwrap();
    let mut damaged = ours.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let checked = bed.machine.run(["check"]).expect_code(1).expect_err(&["config", "damaged"]);
    assert_eq!(said(&checked), none(), "{}", checked.err());
    let ran = bed.push(3).expect_err(&["config", "damaged", "sent again"]);
    assert_eq!(said(&ran), none(), "{}", ran.err());
    assert_eq!(std::fs::read(&path).unwrap(), ours);
    bed.push(0);
    assert_eq!(alerts(&bed.machine), none());
}

#[test]
fn what_is_accepted_is_named_and_told_no_more_and_what_comes_after_is() {
    let (bed, ids) = Bed::with_points(2);
    let honest = bed.copy("honest");
    let lost = [bed.take("s", "3"), bed.take("s", "4")];
    bed.push(0);
    // Here they are nowhere else.
    let other = bed.recovered();
    bed.put_back(&honest);
    let accept = |machine: &Machine| {
        let said = machine.run(["vault", "accept", bed.address(), "--json"]).expect_code(0).json();
        let lost: Vec<Value> = said["lost"].as_array().unwrap().clone();
        let line = |lost: &Value| (lost["id"].as_str().unwrap().to_owned(), lost["elsewhere"] == true);
        lost.iter().map(line).collect::<BTreeSet<_>>()
    };
    let all = |elsewhere: bool| lost.iter().map(|id| (id.clone(), elsewhere)).collect::<BTreeSet<_>>();
    assert_eq!(accept(&other), all(false));
    other.run(["vault", "push"]).expect_code(0);
    other.run(["check"]).expect_code(0);
    assert_eq!(alerts(&other), none());
    let again = other.run(["vault", "accept", bed.address()]).expect_code(0);
    assert!(again.out().contains("nothing to accept"), "{}", again.out());
    assert_eq!(accept(&bed.machine), all(true));
    bed.push(0);
    assert_eq!(points_in(&bed.vault).len(), 4);
    std::fs::remove_file(bed.object(&ids[0])).unwrap();
    assert_eq!(said(&bed.push(3)), only("point-removed"));
}
