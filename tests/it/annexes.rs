//! Staging over several disks, as a person has it: one is added when the first is full, goes away, comes back, and is given up, while recovery
//! points are mounted and taken.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_store::tree::testing::TestRandom;
use serde_json::{Value, json};

use crate::testkit::{Machine, Mounted, Ran, can_mount, wait_for};
use crate::trouble::{
    Bounded, SmallStore, Tree, assert_restores, assert_same, command, mutate, read_tree, run, sample,
    summary_id, write_tree,
};

/// Takes a point of `tree`, with this exit code; its id.
#[track_caller]
fn back_up(machine: &Machine, store: &Path, tree: &Tree, code: i32) -> (String, Ran) {
    let source = machine.path("source");
    write_tree(&source, tree);
    let ran = run(machine, store, &["backup", "--json", source.to_str().unwrap()]).expect_code(code);
    (summary_id(&ran.out()).unwrap(), ran)
}

/// A disk that can be taken out while programs have files of it open, and put in again.
struct Removable {
    disk: Bounded,
    at: PathBuf,
}

impl Removable {
    fn new(disk: Bounded, at: PathBuf) -> Self {
        std::fs::create_dir(&at).unwrap();
        let disk = Self { disk, at };
        disk.put_in();
        disk
    }

    fn put_in(&self) {
        let mut mount = Command::new("mount");
        assert!(mount.arg("--bind").arg(&self.disk.path).arg(&self.at).status().unwrap().success());
    }

    fn take_out(&self, how: &[&str]) -> bool {
        Ran::of(Command::new("umount").args(how).arg(&self.at)).code() == 0
    }
}

/// The figures of a directory in a list of `staging list --json` or of `status --json`.
fn line<'a>(list: &'a Value, dir: &Path) -> &'a Value {
    let lines = list.as_array().unwrap();
    lines.iter().find(|line| line["directory"] == dir.to_str().unwrap()).unwrap()
}

fn packs(dir: &Path) -> usize {
    if dir.join("pack").exists() { read_tree(&dir.join("pack")).len() } else { 0 }
}

#[test]
fn a_second_disk_is_added_to_a_full_store_under_a_mount_taken_out_put_back_and_given_up() {
    if !can_mount("a_second_disk_is_added_to_a_full_store_under_a_mount_taken_out_put_back_and_given_up") {
        return;
    }
    let machine = Machine::new();
    let Some(first) = Bounded::mount(machine.path("first"), 24 << 10) else { return };
    let Some(second) = Bounded::mount(machine.path("second"), 64 << 10) else { return };
    let second = Removable::new(second, machine.path("b"));
    let store = SmallStore::make(&machine, first.path.join("store")).dir;
    let (annex, mut random) = (second.at.join("holdfast"), TestRandom::new(7));
    let dir = annex.to_str().unwrap();
    let mut tree = sample(&mut random, 3 << 20);
    let mut taken = vec![(back_up(&machine, &store, &tree, 0).0, tree.clone())];
    let mnt = machine.path("recovery");
    std::fs::create_dir(&mnt).unwrap();
    run(&machine, &store, &["mount", "--background", mnt.to_str().unwrap()]).expect_code(0);
    let mounted = Mounted::at(&machine, mnt);
    // It does not fit, and somebody else takes what would be left.
    tree.extend(
        sample(&mut random, 20 << 20).into_iter().map(|(path, bytes)| (format!("more/{path}"), bytes)),
    );
    write_tree(&machine.path("source"), &tree);
    let (source, filler) = (machine.path("source"), first.fill());
    run(&machine, &store, &["backup", source.to_str().unwrap()])
        .expect_code(1)
        .expect_err(&["No space left"]);
    run(&machine, &store, &["staging", "add", dir]).expect_code(0);
    taken.push((back_up(&machine, &store, &tree, 0).0, tree.clone()));
    let all_are_whole = |taken: &[(String, Tree)]| {
        taken.iter().for_each(|(id, tree)| assert_restores(&machine, &store, id, tree));
    };
    all_are_whole(&taken);
    wait_for("the new point in the mount", 30, || mounted.point(&taken[1].0).exists());
    assert_same(&read_tree(&mounted.point(&taken[1].0)), &tree);
    let listed = run(&machine, &store, &["staging", "list", "--json"]).expect_code(0).json();
    assert_eq!(line(&listed, &annex)["packs"], json!(packs(&annex)));
    assert_eq!(line(&listed, &store)["packs"], json!(packs(&store)));
    assert!(packs(&annex) > 0 && packs(&store) > 0, "{listed}");

    // Taken out: its mount point is there, and empty.
    assert!(second.take_out(&["-l"]));
    let config = machine.path("holdfast.toml");
    std::fs::write(&config, format!("[group.g]\nsources = [{source:?}]\nlocal.schedule = \"hourly\""))
        .unwrap();
    let status = |form: &[&str]| {
        let args = [&["status", "--config", config.to_str().unwrap()], form].concat();
        run(&machine, &store, &args).expect_code(0)
    };
    let page = status(&[]).out();
    assert!(page.contains(&format!("{dir}: away")) && page.contains("ALERT annex-away"), "{page}");
    let status = status(&["--json"]).json();
    assert_eq!(line(&status["staging"], &annex)["state"], "away");
    let alerts = status["alerts"].as_array().unwrap();
    let alert = alerts.iter().find(|alert| alert["name"] == "annex-away").unwrap();
    assert_eq!(alert["subject"], dir);
    assert!(alert["next_step"].as_str().unwrap().contains(&format!("remove --lost {dir}`")), "{alert}");
    run(&machine, &store, &["check"]).expect_code(1).expect_err(&[dir, "not all could be looked at"]);
    let small = sample(&mut TestRandom::new(8), 1 << 20);
    let (id, ran) = back_up(&machine, &store, &small, 3);
    let ran = ran.expect_err(&[dir, "away"]);
    assert!(!ran.err().contains("pack/"), "it is said once, and not for each pack:\n{}", ran.err());
    taken.push((id, small));
    all_are_whole(&taken[2..]);
    assert_eq!(std::fs::read_dir(&second.at).unwrap().count(), 0, "nothing is written to the mount point");
    run(&machine, &store, &["staging", "remove", dir]).expect_code(1).expect_err(&["is away", "--lost"]);

    // Put back.
    second.put_in();
    run(&machine, &store, &["check", "--read-data"]).expect_code(0);
    run(&machine, &store, &["staging", "remove", "--lost", dir]).expect_code(1).expect_err(&["is there"]);
    mutate(&mut random, &mut tree, 1);
    taken.push((back_up(&machine, &store, &tree, 0).0, tree.clone()));
    all_are_whole(&taken);

    // What is in it does not fit into the first.
    std::fs::remove_file(filler).unwrap();
    let before = packs(&annex);
    let refused = run(&machine, &store, &["staging", "remove", dir]).expect_code(1);
    refused.expect_err(&["MiB have to move", "have room for", "nothing was moved"]);
    assert_eq!(packs(&annex), before);
    first.resize(96 << 10);
    let removed = run(&machine, &store, &["staging", "remove", "--json", dir]).expect_code(0).json();
    assert_eq!((&removed["packs"], &removed["lost"]), (&json!(before), &json!(false)));
    assert_eq!(std::fs::read_dir(&annex).unwrap().count(), 0);
    wait_for("the newest point in the mount", 30, || mounted.point(&taken[3].0).exists());
    assert_same(&read_tree(&mounted.point(&taken[3].0)), &tree);
    // The mount has nothing open there any more.
    wait_for("the second disk to be let go", 30, || second.take_out(&[]));
    all_are_whole(&taken);
    mounted.umount();
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(store.join(name));
    }
    all_are_whole(&taken);
    run(&machine, &store, &["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_store_that_cannot_be_written_is_read_from_all_its_directories() {
    let machine = Machine::new();
    let Some(first) = Bounded::mount(machine.path("first"), 48 << 10) else { return };
    let store = SmallStore::make(&machine, first.path.join("store")).dir;
    // Also one that is full is told of another disk, by its reserve.
    let filler = first.fill();
    run(&machine, &store, &["staging", "add", "b"]).expect_code(0);
    std::fs::remove_file(filler).unwrap();
    let tree = sample(&mut TestRandom::new(3), 3 << 20);
    let (id, _) = back_up(&machine, &store, &tree, 0);
    assert!(packs(&machine.path("b")) > 0, "a path is one of the directory in which it is typed");
    let remount = |how: &str| {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", how]).arg(&first.path).status().unwrap().success());
    };
    remount("remount,ro");
    assert_restores(&machine, &store, &id, &tree);
    let mut add = command(&machine, &store, &["staging", "add", "c"]);
    Ran::of(&mut add).expect_code(1).expect_err(&["Read-only file system"]);
    remount("remount,rw");
}

#[test]
fn what_cannot_be_an_annex_is_refused_with_what_to_do() {
    let machine = Machine::with_store();
    let at = |name: &str| machine.path(name).display().to_string();
    machine.run(["vault", "add", "vault"]).expect_code(0);
    std::fs::create_dir(machine.path("full")).unwrap();
    std::fs::write(machine.path("full/file"), "mine").unwrap();
    let cases: [(&str, &[&str]); 6] = [
        ("store/b", &["is within the store's own directory"]),
        (".", &["contains"]),
        ("vault", &["is the vault"]),
        ("vault/b", &["is within the vault"]),
        ("full", &["something else", "empty"]),
        ("no/parent", &["cannot make directory"]),
    ];
    for (name, words) in cases {
        machine.run(["staging", "add", &at(name)]).expect_code(1).expect_err(words);
    }
    assert_eq!(machine.run(["staging", "list", "--json"]).json().as_array().unwrap().len(), 1);
    let added = machine.run(["staging", "add", "--json", "b"]).expect_code(0);
    added.expect_err(&["same disk"]);
    let added = machine.run(["staging", "add", "--json", "./b/"]).expect_code(0).json();
    assert_eq!((&added["message_type"], &added["directory"]), (&json!("annex_added"), &json!(at("b"))));
    machine.run(["staging", "add", "b/c"]).expect_code(1).expect_err(&["is within the annex"]);
    machine.run(["staging", "remove", "c"]).expect_code(1).expect_err(&["no annex", "staging list"]);
    let listed = machine.run(["staging", "list"]).expect_code(0).out();
    assert!(listed.contains("present"), "{listed}");
    std::fs::remove_dir_all(machine.path("b")).unwrap();
    machine.run(["staging", "remove", "b"]).expect_code(1).expect_err(&["away", "--lost"]);
    let other = machine.run(["staging", "add", "b"]).expect_code(1);
    other.expect_err(&["is away", &format!("`holdfast staging remove --lost {}`", at("b"))]);
    let lost = machine.run(["staging", "remove", "--lost", "--json", "b"]).expect_code(0).json();
    assert_eq!(lost["lost"], json!(true));
    let listed = machine.run(["staging", "list", "--json"]).expect_code(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let settings = machine.store().join("settings.json");
    let text = std::fs::read_to_string(&settings).unwrap();
    assert!(text.contains("vault") && !text.contains("\"staging\":"), "{text}");
    // A run that was cut off when the directory was no annex any more.
    machine.run(["staging", "add", "d"]).expect_code(0);
    std::fs::write(&settings, &text).unwrap();
    std::fs::create_dir(machine.path("source")).unwrap();
    machine.run(["staging", "remove", "d"]).expect_code(0);
    assert_eq!(std::fs::read_dir(machine.path("d")).unwrap().count(), 0);
    machine.run(["staging", "remove", "d"]).expect_code(1).expect_err(&["no annex"]);
    // One that has packs is not taken away unseen.
    machine.run(["staging", "add", "d"]).expect_code(0);
    std::fs::write(machine.path("source/file"), "content").unwrap();
    machine.back_up(&machine.path("source"), &[]);
    assert!(packs(&machine.path("d")) > 0);
    std::fs::write(&settings, &text).unwrap();
    machine.run(["staging", "remove", "d"]).expect_code(1).expect_err(&["has packs", "staging add"]);
    machine.run(["staging", "add", "d"]).expect_code(0);
    machine.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn an_annex_that_cannot_be_written_is_named_with_what_to_do_and_read() {
    let machine = Machine::new();
    let Some(first) = Bounded::mount(machine.path("first"), 24 << 10) else { return };
    let Some(second) = Bounded::mount(machine.path("second"), 64 << 10) else { return };
    let store = SmallStore::make(&machine, first.path.join("store")).dir;
    let (annex, mut random) = (second.path.join("b"), TestRandom::new(11));
    run(&machine, &store, &["staging", "add", annex.to_str().unwrap()]).expect_code(0);
    let trees = [sample(&mut random, 2 << 20), sample(&mut random, 2 << 20)];
    let mut taken = vec![back_up(&machine, &store, &trees[0], 0).0];
    let before = packs(&annex);
    assert!(before > 0);
    let remount = |how: &str| {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", how]).arg(&second.path).status().unwrap().success());
    };
    remount("remount,ro");
    let state = || {
        let listed = run(&machine, &store, &["staging", "list", "--json"]).expect_code(0).json();
        let line = line(&listed, &annex);
        (line["state"].as_str().unwrap().to_owned(), line["reason"].as_str().map(str::to_owned))
    };
    let (present, reason) = state();
    assert!(present == "present" && reason.as_ref().unwrap().contains("cannot be written"), "{reason:?}");
    let config = machine.path("holdfast.toml");
    let text = format!("[group.g]\nsources = [{:?}]\nlocal.schedule = \"hourly\"", machine.path("source"));
    std::fs::write(&config, text).unwrap();
    let page = run(&machine, &store, &["status", "--config", config.to_str().unwrap()]).expect_code(0).out();
    assert!(page.contains(", cannot be written") && page.contains("ALERT annex-read-only"), "{page}");
    write_tree(&machine.path("source"), &trees[1]);
    let mut backup =
        command(&machine, &store, &["backup", "--json", machine.path("source").to_str().unwrap()]);
    let ran = Ran::of(backup.env("HOLDFAST_LOG", "warn")).expect_code(0);
    taken.push(summary_id(&ran.out()).unwrap());
    ran.expect_err(&[annex.to_str().unwrap(), "cannot write to"]);
    assert_eq!(packs(&annex), before);
    taken.iter().zip(&trees).for_each(|(id, tree)| assert_restores(&machine, &store, id, tree));
    remount("remount,rw");
    assert_eq!(state(), ("present".to_owned(), None));
}

#[test]
fn a_recovered_store_takes_no_annex_of_the_first_one_unless_it_is_told_to() {
    let machine = Machine::with_store();
    let (vault, source, b) = (machine.path("vault"), machine.path("source"), machine.path("b"));
    let (first, copy, dir) = (machine.store(), machine.path("copy"), b.to_str().unwrap());
    machine.run(["vault", "add", vault.to_str().unwrap()]).expect_code(0);
    machine.run(["staging", "add", dir]).expect_code(0);
    write_tree(&source, &sample(&mut TestRandom::new(12), 1 << 20));
    machine.back_up(&source, &["--online"]);
    let tree = sample(&mut TestRandom::new(13), 1 << 20);
    let (id, _) = back_up(&machine, &first, &tree, 0);
    let mut recover = command(&machine, &copy, &["recover", vault.to_str().unwrap()]);
    Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", Machine::words())).expect_code(0);
    let before = packs(&b);
    assert!(before > 0);
    let refused = run(&machine, &copy, &["staging", "add", dir]).expect_code(1);
    refused.expect_err(&["another copy of this store", &format!("`holdfast staging add --take-over {dir}`")]);
    run(&machine, &copy, &["prune"]).expect_code(0);
    assert_eq!(packs(&b), before);
    run(&machine, &first, &["check", "--read-data"]).expect_code(0);
    assert_restores(&machine, &first, &id, &tree);
    let take_over =
        |store: &Path| run(&machine, store, &["staging", "add", "--take-over", dir]).expect_code(0);
    take_over(&copy);
    let listed = run(&machine, &first, &["staging", "list"]).expect_code(0).out();
    assert!(listed.contains("away: another copy of this store took it over"), "{listed}");
    run(&machine, &first, &["check"]).expect_code(1).expect_err(&[dir, "not all could be looked at"]);
    take_over(&first);
    run(&machine, &first, &["check", "--read-data"]).expect_code(0);
    assert_restores(&machine, &first, &id, &tree);
}

#[test]
fn an_annex_within_what_is_backed_up_is_left_out_like_the_store() {
    let machine = Machine::new();
    let store = SmallStore::make(&machine, machine.path("store")).dir;
    let source = machine.path("source");
    write_tree(&source, &sample(&mut TestRandom::new(9), 1 << 20));
    let annex = source.join("disk2/holdfast");
    std::fs::create_dir_all(annex.parent().unwrap()).unwrap();
    run(&machine, &store, &["staging", "add", annex.to_str().unwrap()]).expect_code(0);
    for _ in 0..2 {
        run(&machine, &store, &["backup", source.to_str().unwrap()]).expect_code(0);
    }
    assert!(packs(&annex) > 0);
    let listed = run(&machine, &store, &["ls", "latest:disk2/holdfast"]).expect_code(0).out();
    assert_eq!(listed.trim(), "");
}
