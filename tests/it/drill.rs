//! Drills from outside: a recovery from a vault alone is rehearsed, and what could not be had back is told.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::scrub::empty_configuration;
use crate::testkit::{Machine, Ran, can_mount, mounts, wait_for};
use crate::trouble::{SmallStore, command, files_below, points, run, two_points_in_a_vault};

fn vaulted() -> (Machine, SmallStore, PathBuf, PathBuf) {
    two_points_in_a_vault(21, 4 << 20)
}

fn alerts(machine: &Machine, store: &Path) -> String {
    let config = empty_configuration(machine);
    run(machine, store, &["status", "--json", "--config", &config]).expect_code(0).json()["alerts"]
        .to_string()
}

fn number(summary: &Value, key: &str) -> u64 {
    summary[key].as_u64().unwrap()
}

#[test]
fn files_come_back_from_the_vault_alone_and_are_like_their_source() {
    let (machine, store, source, vault) = vaulted();
    let drill = |args: &[&str]| {
        let args: Vec<&str> = ["drill", "--json"].iter().chain(args).copied().collect();
        run(&machine, &store.dir, &args)
    };
    let first = drill(&["--files", "30", "--seed", "4"]).expect_code(0).json();
    assert!(number(&first, "files") >= 20 && number(&first, "points") == 2, "{first}");
    assert!(number(&first, "files_like_source") >= 20 && number(&first, "bytes") > 1 << 20, "{first}");
    assert_eq!(number(&first, "files_mounted"), number(&first, "files"), "{first}");
    assert_eq!((number(&first, "seed"), &first["vaults"][0]), (4, &vault.to_str().unwrap().into()));
    let points = run(&machine, &store.dir, &["snapshots", "--json"]).expect_code(0).json();
    assert!(points.as_array().unwrap().iter().all(|point| point["drilled"].is_string()), "{points}");
    let again = drill(&["--files", "30", "--seed", "4"]).expect_code(0).json();
    assert_eq!(again, first, "the same seed reads the same files");
    let whole: u64 = (0..12)
        .map(|seed| {
            number(
                &drill(&["--files", "1", "--seed", &seed.to_string()]).expect_code(0).json(),
                "points_whole",
            )
        })
        .sum();
    assert!((1..12).contains(&whole), "{whole} of twelve");
    let all = drill(&["--files", "500", "--seed", "4"]).expect_code(0).json();
    assert!(number(&all, "files") <= 2 * files_below(&source).len() as u64, "none is read twice: {all}");
    let few = drill(&["--files", "200", "--max-bytes", "100K", "--seed", "1"]).expect_code(0).json();
    assert!(number(&few, "bytes") <= 100 << 10, "{few}");
    for left in ["drill", "drill.mount"] {
        assert!(!machine.root().join("cache").join(left).exists(), "nothing is left");
    }
    assert!(!alerts(&machine, &store.dir).contains("drill"), "{}", alerts(&machine, &store.dir));
}

#[test]
fn a_dead_mount_of_a_drill_that_was_killed_gives_way_to_that_of_the_next_one() {
    if !can_mount("a_dead_mount_of_a_drill_that_was_killed_gives_way_to_that_of_the_next_one") {
        return;
    }
    let (machine, store, _, _) = vaulted();
    let place = machine.root().join("cache").join("drill.mount");
    std::fs::create_dir_all(&place).unwrap();
    let mut mount = command(&machine, &store.dir, &["mount"]);
    let mut mount = mount.arg(&place).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the mount", 10, || place.join("by-id").is_dir());
    mount.kill().unwrap();
    mount.wait().unwrap();
    assert!(mounts().contains(&place));
    let drill = || run(&machine, &store.dir, &["drill", "--json", "--files", "20", "--seed", "4"]);
    let summary = drill().expect_code(0).json();
    assert!(number(&summary, "files") > 10, "{summary}");
    assert_eq!(number(&summary, "files_mounted"), number(&summary, "files"), "{summary}");
    assert!(!mounts().contains(&place) && !place.exists());
    // What is no mount of ours stays, and nobody takes the drill for a success.
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("kept"), "x").unwrap();
    drill().expect_code(1).expect_err(&["drill.mount cannot be removed"]);
    assert!(place.join("kept").exists());
}

#[test]
fn the_store_on_this_machine_gives_nothing_to_a_drill() {
    let (machine, store, _, vault) = vaulted();
    std::fs::rename(&store.dir, machine.path("elsewhere")).unwrap();
    let mut command = machine.command(["drill", "--json", "--files", "20", "--from-vault"]);
    let summary = Ran::of(command.arg(&vault)).expect_code(0).json();
    assert!(number(&summary, "files") > 10, "{summary}");
    // Without a key nothing can be had.
    machine.forget_keys();
    let mut command = machine.command(["drill", "--from-vault"]);
    Ran::of(command.arg(&vault).env("HOLDFAST_PASSWORD", "wrong")).expect_code(12);
}

#[test]
fn what_a_vault_lost_or_spoilt_fails_the_drill_though_the_store_is_whole() {
    let (machine, store, _, vault) = vaulted();
    let drill = || run(&machine, &store.dir, &["drill", "--json", "--files", "200", "--seed", "3"]);
    for pack in files_below(&vault.join("pack")) {
        let mut bytes = std::fs::read(&pack).unwrap();
        // Past the header and the first frames, before the directory.
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
    }
    let ran = drill();
    assert_eq!(ran.code(), 1, "{}", ran.err());
    assert!(ran.json()["num_errors"].as_u64().unwrap() > 0);
    assert!(alerts(&machine, &store.dir).contains("drill-fails"), "{}", alerts(&machine, &store.dir));
    std::fs::remove_dir_all(&vault).unwrap();
    drill().expect_code(1).expect_err(&["nothing can be recovered"]);
}

#[test]
fn a_file_that_was_changed_at_its_source_since_is_not_compared_with_it() {
    let (machine, store, source, _) = vaulted();
    let drill = || run(&machine, &store.dir, &["drill", "--json", "--files", "100", "--seed", "5"]);
    let like = number(&drill().expect_code(0).json(), "files_like_source");
    for file in files_below(&source) {
        let bytes: Vec<u8> = std::fs::read(&file).unwrap().iter().map(|byte| !byte).collect();
        std::fs::write(&file, bytes).unwrap();
    }
    let changed = drill().expect_code(0).json();
    assert!(like > 0 && number(&changed, "files_like_source") == 0, "{changed}");
}

#[test]
fn a_vault_whose_points_are_gone_fails_the_drill_and_each_is_told() {
    let (machine, store, _, vault) = vaulted();
    let ids = points(&machine, &store.dir);
    let drill =
        |args: &[&str]| run(&machine, &store.dir, &[&["drill", "--json", "--seed", "3"], args].concat());
    let missing = |summary: &Value| -> Vec<String> {
        let missing = summary["points_missing"].as_array().unwrap().iter();
        missing.map(|point| point["snapshot_id"].as_str().unwrap().to_owned()).collect()
    };
    // One of two: all that is read comes back right.
    let one =
        files_below(&vault.join("rp")).into_iter().find(|file| file.to_str().unwrap().contains(&ids[0]));
    let (one, bytes) = (one.clone().unwrap(), std::fs::read(one.unwrap()).unwrap());
    std::fs::remove_file(&one).unwrap();
    let ran = drill(&[]).expect_code(1).expect_err(&[&ids[0][..8], "did not come from"]);
    assert_eq!(missing(&ran.json()), [ids[0].clone()], "{}", ran.err());
    assert!(number(&ran.json(), "files") > 0, "{}", ran.out());
    assert!(alerts(&machine, &store.dir).contains("drill-fails"), "{}", alerts(&machine, &store.dir));
    std::fs::write(&one, bytes).unwrap();
    assert_eq!(missing(&drill(&[]).expect_code(0).json()), [""; 0]);
    assert!(!alerts(&machine, &store.dir).contains("drill"), "{}", alerts(&machine, &store.dir));
    // All of them, whatever is asked for.
    files_below(&vault.join("rp")).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let listed = run(&machine, &store.dir, &["snapshots", "--json"]).expect_code(0).json();
    let source = listed[0]["source"].as_str().unwrap();
    for args in [&[][..], &["--source", source]] {
        let ran =
            drill(args).expect_code(1).expect_err(&[&ids[0][..8], &ids[1][..8], vault.to_str().unwrap()]);
        let (mut told, mut all) = (missing(&ran.json()), ids.clone());
        told.sort();
        all.sort();
        assert_eq!(told, all, "{args:?}");
    }
    assert!(alerts(&machine, &store.dir).contains("drill-fails"), "{}", alerts(&machine, &store.dir));
    // Who knows nothing of the vault is told no success, and what sessions say; who recovers from it as well.
    std::fs::rename(&store.dir, machine.path("elsewhere")).unwrap();
    let told = ["shows no recovery point", "2 sessions", vault.to_str().unwrap()];
    Ran::of(machine.command(["drill", "--from-vault"]).arg(&vault)).expect_code(1).expect_err(&told);
    let mut recover = command(&machine, &store.dir, &["recover"]);
    Ran::of(recover.arg(&vault).env("HOLDFAST_RECOVERY_KEY", &store.words)).expect_code(0).expect_err(&told);
}

#[test]
fn what_somebody_else_forgot_in_a_vault_is_not_missed_by_a_drill() {
    let (machine, store, _, vault) = vaulted();
    let ids = points(&machine, &store.dir);
    let other = machine.path("other");
    let mut recover = command(&machine, &other, &["recover"]);
    Ran::of(recover.arg(&vault).env("HOLDFAST_RECOVERY_KEY", &store.words)).expect_code(0);
    run(&machine, &other, &["forget", &ids[0], "--yes"]).expect_code(0);
    let summary = run(&machine, &store.dir, &["drill", "--json"]).expect_code(0).json();
    assert_eq!(summary["points_missing"], Value::Array(Vec::new()), "{summary}");
}

#[test]
fn a_drill_that_has_nothing_to_read_is_no_success_and_no_alert_where_nothing_was_sent() {
    let (machine, store, _, vault) = vaulted();
    let mistyped = ["drill", "--json", "--source", "sorce"];
    let ran = run(&machine, &store.dir, &mistyped).expect_code(1);
    let ran = ran.expect_err(&["nothing was read", "sorce", vault.to_str().unwrap()]);
    assert_eq!((number(&ran.json(), "files"), number(&ran.json(), "num_errors")), (0, 0));
    // Another vault to which nothing was sent yet.
    let empty = machine.path("empty");
    run(&machine, &store.dir, &["vault", "add", empty.to_str().unwrap()]).expect_code(0);
    let both = run(&machine, &store.dir, &["drill", "--json"]).expect_code(0).json();
    assert_eq!(both["vaults_without_points"][0], empty.to_str().unwrap(), "{both}");
    let said = run(&machine, &store.dir, &["drill"]).expect_code(0).out();
    assert!(said.contains("NOTHING WAS READ from"), "{said}");
    run(&machine, &store.dir, &["vault", "remove", vault.to_str().unwrap()]).expect_code(0);
    let alone = run(&machine, &store.dir, &["drill"]).expect_code(1);
    alone.expect_err(&["nothing was read", empty.to_str().unwrap(), "holdfast vault push"]);
    let mut job = command(&machine, &store.dir, &["drill"]);
    Ran::of(job.env("HOLDFAST_JOB", "1")).expect_code(0).expect_err(&["nothing was read"]);
    assert!(!alerts(&machine, &store.dir).contains("drill-fails"), "{}", alerts(&machine, &store.dir));
}
