//! `forget` and `prune`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{PASSPHRASE, Stored};
use crate::testkit::{Ran, noise, points_in};

/// Four points, each with a big file of its own and one that all share.
fn four_points(stored: &Stored) -> Vec<String> {
    std::fs::write(stored.path("src/shared"), noise(0, 400_000)).unwrap();
    (1..=4)
        .map(|n| {
            std::fs::write(stored.path("src/own"), noise(n, 600_000)).unwrap();
            stored.backup()
        })
        .collect()
}

fn restores(stored: &Stored, point: &str, own: u8) {
    let target = stored.path(&format!("restored-{own}"));
    let args = ["restore", point, "--target"].map(OsStr::new);
    stored.run(args.into_iter().chain([target.as_os_str()])).expect_code(0);
    assert_eq!(std::fs::read(target.join("own")).unwrap(), noise(own, 600_000));
    assert_eq!(std::fs::read(target.join("shared")).unwrap(), noise(0, 400_000));
}

#[test]
fn what_is_forgotten_frees_its_space_in_store_and_vault_and_nothing_else() {
    let stored = Stored::with_vault();
    let points = four_points(&stored);
    stored.run(["vault", "push"]).expect_code(0);
    let before = (stored.pack_bytes("store"), stored.pack_bytes("vault"));

    // The last three of a source always stay, whatever the rules say.
    let plan = stored.json(&["forget", "--keep-last", "1", "--dry-run"]).remove(0);
    assert_eq!(plan[0]["remove"].as_array().unwrap().len(), 1);
    assert_eq!(plan[0]["remove"][0]["id"], points[0].as_str());
    assert_eq!(stored.points(), points);
    let refused = stored.run(["forget", &points[3]]).expect_code(1).err();
    assert!(refused.contains("newest complete"), "{refused}");
    stored.run(["forget"]).expect_code(2);
    stored.run(["forget", "latest:own"]).expect_code(2);

    stored.run(["forget", "--keep-last", "1"]).expect_code(0);
    assert_eq!(stored.points(), points[1..]);
    assert_eq!((stored.pack_bytes("store"), stored.pack_bytes("vault")), before);

    let plan = stored.json(&["prune", "--dry-run"]);
    let summary = plan.last().unwrap();
    assert_eq!((&summary["message_type"], &summary["dry_run"]), (&"summary".into(), &true.into()));
    let packs: Vec<_> = plan.iter().filter(|line| line["message_type"] == "pack").collect();
    assert!(packs.iter().any(|pack| pack["place"] == "staging"), "{plan:#?}");
    assert!(packs.iter().all(|pack| pack["reason"].is_string() && pack["bytes"].is_u64()), "{plan:#?}");
    assert_eq!((stored.pack_bytes("store"), stored.pack_bytes("vault")), before);

    stored.run(["forget", &points[1], "--prune"]).expect_code(0);
    assert!(stored.pack_bytes("vault") >= before.1, "what may go from a vault stays for a while");
    stored.run(["prune", "--now"]).expect_code(0);
    let after = (stored.pack_bytes("store"), stored.pack_bytes("vault"));
    assert!(before.0 - after.0 >= 1_000_000, "{before:?} {after:?}");
    assert!(before.1 - after.1 >= 500_000, "{before:?} {after:?}");
    restores(&stored, &points[2], 3);
    restores(&stored, &points[3], 4);
    stored.run(["check", "--read-data"]).expect_code(0);
    let again = stored.json(&["prune", "--now"]).pop().unwrap();
    assert_eq!((&again["packs_removed"], &again["packs_rewritten"]), (&0.into(), &0.into()));
}

#[test]
fn a_vault_keeps_what_only_a_local_point_needs() {
    let stored = Stored::with_vault();
    let old = four_points(&stored);
    stored.run(["vault", "push"]).expect_code(0);
    // A machine that had nothing: everything it knows is in the vault, and what it backs up again is not stored again.
    let vault = stored.path("vault");
    let args = ["recover".as_ref(), vault.as_os_str(), "--store".as_ref(), "second".as_ref()];
    let second = |args: &[&OsStr]| {
        let mut command = stored.machine.command(args);
        command.env("HOLDFAST_STORE", stored.path("second")).env("HOLDFAST_PASSWORD", PASSPHRASE);
        Ran::of(&mut command)
    };
    second(&args).expect_code(0);
    let words = |text: &'static [&'static str]| text.iter().map(OsStr::new).collect::<Vec<_>>();
    second(&words(&["backup", "src", "--as", "docs", "--force"])).expect_code(0);
    let ids: Vec<&OsStr> = old.iter().map(OsStr::new).collect();
    let forget: Vec<&OsStr> = words(&["forget", "--yes"]).into_iter().chain(ids).collect();
    second(&forget).expect_code(0);
    second(&words(&["prune", "--now"])).expect_code(0);
    second(&words(&["restore", "latest", "--target", "back"])).expect_code(0);
    assert_eq!(std::fs::read(stored.path("back/own")).unwrap(), noise(4, 600_000));
    assert_eq!(std::fs::read(stored.path("back/shared")).unwrap(), noise(0, 400_000));
}

#[test]
fn points_that_cannot_be_read_stop_a_prune() {
    let stored = Stored::new();
    let points = four_points(&stored);
    stored.run(["forget", &points[0]]).expect_code(0);
    let before = stored.pack_bytes("store");
    // What a newer version or a failing disk might leave: the catalog does not know it, so its needs are unknown.
    let dir = std::fs::read_dir(stored.path("store/rp")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(dir.join("0123456789abcdef0123456789abcdef"), "not a recovery point").unwrap();
    let refused = stored.run(["prune"]).expect_code(1).err();
    assert!(refused.contains("0123456789abcdef"), "{refused}");
    assert_eq!(stored.pack_bytes("store"), before);
}

/// The biggest pack below a directory.
fn a_pack(place: &Path) -> PathBuf {
    let packs = std::fs::read_dir(place.join("pack")).unwrap().map(|shard| shard.unwrap().path());
    let packs = packs.flat_map(|shard| std::fs::read_dir(shard).unwrap()).map(|pack| pack.unwrap().path());
    packs.max_by_key(|pack| std::fs::metadata(pack).unwrap().len()).unwrap()
}

#[test]
fn a_point_goes_from_a_vault_that_is_not_known_any_more_to_hold_it_whole() {
    let stored = Stored::with_vault();
    let (points, vault) = (four_points(&stored), stored.path("vault"));
    stored.run(["vault", "push"]).expect_code(0);
    std::fs::remove_file(a_pack(&vault)).unwrap();
    // Looks at the vault, and sends the new point alone: the others are believed to be local from then on.
    let args = ["backup", "src", "--as", "docs", "--online", "--force"];
    stored.run(args).expect_code(3).expect_err(&["the pack is missing"]);
    assert_eq!(stored.json(&["snapshots"])[0][0]["vaults"], serde_json::json!([]));
    assert!(points_in(&vault).contains(&points[0]));
    stored.run(["forget", &points[0], &points[1], "--yes"]).expect_code(0);
    assert!(!points_in(&vault).iter().any(|id| points[..2].contains(id)), "{:?}", points_in(&vault));
    stored.run(["vault", "push"]);
    stored.run(["prune", "--now"]).expect_code(0);
    assert_eq!(stored.points()[..2], points[2..]);
    stored.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_vault_that_may_hold_a_forgotten_point_and_cannot_be_asked_is_told() {
    let stored = Stored::with_vault();
    let points = four_points(&stored);
    std::fs::rename(stored.path("vault"), stored.path("away")).unwrap();
    // Where its disk is not mounted.
    std::fs::create_dir(stored.path("vault")).unwrap();
    let vault = stored.path("vault");
    let told = [vault.to_str().unwrap(), "comes back with it"];
    stored.run(["forget", &points[0]]).expect_code(3).expect_err(&told);
    assert_eq!(stored.points(), points[1..]);
    std::fs::remove_dir(&vault).unwrap();
    std::fs::rename(stored.path("away"), &vault).unwrap();
    stored.run(["vault", "push"]).expect_code(0);
    std::fs::rename(&vault, stored.path("away")).unwrap();
    std::fs::create_dir(&vault).unwrap();
    // It is known to hold this one.
    stored.run(["forget", &points[1]]).expect_code(1).expect_err(&[vault.to_str().unwrap(), "mounted"]);
    assert_eq!(stored.points(), points[1..]);
}
