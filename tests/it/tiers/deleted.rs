//! Points that a person deletes stay for a while, and come back or go.

use holdfast_store::catalog::Mark;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::names;

use super::*;

/// A group of three points that are in the vault, too, and days in which what is deleted can be brought back.
pub fn three_points() -> (Tiers, Vec<String>) {
    points(LOCAL, &[0, 24, 48])
}

/// The same of points of these hours, and of another local tier.
pub fn points(local: &str, hours: &[i64]) -> (Tiers, Vec<String>) {
    let (tiers, ids) = points_here(local, hours);
    tiers.run(&["vault", "push"]).expect_code(0);
    (tiers, ids)
}

fn points_here(local: &str, hours: &[i64]) -> (Tiers, Vec<String>) {
    let tiers = Tiers::new(local, ONLINE);
    let text = std::fs::read_to_string(&tiers.config).unwrap();
    std::fs::write(&tiers.config, format!("{text}\n[soft-delete]\ndays = 14\n")).unwrap();
    let ids = tiers.take(hours);
    (tiers, ids)
}

pub fn places(tiers: &Tiers) -> [BTreeSet<String>; 2] {
    [shown_in(&tiers.machine.store()), shown_in(&tiers.vault())]
}

/// When each point goes that was deleted, by `snapshots`.
pub fn deleted(tiers: &Tiers) -> BTreeSet<String> {
    let points = tiers.run(&["snapshots", "--json"]).expect_code(0).json();
    let points = points.as_array().unwrap().iter().filter(|point| point["deleted_until"].is_string());
    points.map(|point| point["id"].as_str().unwrap().to_owned()).collect()
}

/// As if the days were over.
fn let_time_pass(tiers: &Tiers) {
    let path = tiers.machine.store().join("deleted.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    file["deleted"].as_array_mut().unwrap().iter_mut().for_each(|entry| entry["until"] = 5.into());
    std::fs::write(&path, file.to_string()).unwrap();
}

/// As if the last run had been long ago.
fn let_a_day_pass(tiers: &Tiers) {
    let path = tiers.machine.store().join("deleted.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(!file["looks"].as_array().unwrap().is_empty(), "{file}");
    file["looks"] = serde_json::json!([6]);
    std::fs::write(&path, file.to_string()).unwrap();
}

#[test]
fn what_is_deleted_is_there_until_its_time_is_over_and_only_its_id_means_it() {
    let (tiers, ids) = three_points();
    let said = tiers.with_word(&["forget", &ids[2], "--allow-newest", "--prune"]).expect_code(0).out();
    assert!(said.contains("1 recovery point deleted, to go") && said.contains("undelete"), "{said}");
    assert_eq!(places(&tiers), [set(&ids), set(&ids)]);
    assert_eq!(deleted(&tiers), set([&ids[2]]));
    assert!(tiers.run(&["snapshots"]).expect_code(0).out().contains("deleted, goes 20"));
    let latest = tiers.run(&["ls", "latest", "--json"]).expect_code(0).out();
    assert!(latest.contains(&ids[1]) && !latest.contains(&ids[2]), "{latest}");
    let target = tiers.machine.path("back");
    tiers.run(&["restore", &ids[2], "--target", target.to_str().unwrap()]).expect_code(0);
    assert_eq!(std::fs::read(target.join("page")).unwrap(), noise("web 48", 50_000));
    // It goes nowhere, and rules count without it.
    let second = tiers.machine.path("second");
    tiers.run(&["vault", "add", second.to_str().unwrap()]).expect_code(0);
    tiers.run(&["copy", "--all", "--to", second.to_str().unwrap()]).expect_code(0);
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    assert_eq!(shown_in(&second), set(&ids[..2]));
    let plan = tiers.run(&["plan", "--json"]).expect_code(0).out();
    assert!(plan.contains(&ids[1]) && !plan.contains(&ids[2]), "{plan}");

    tiers.run(&["undelete", &ids[2][..8]]).expect_code(0);
    assert_eq!(deleted(&tiers), BTreeSet::new());
    tiers.run(&["undelete", &ids[2]]).expect_code(1).expect_err(&["is not deleted"]);
    let latest = tiers.run(&["ls", "latest", "--json"]).expect_code(0).out();
    assert!(latest.contains(&ids[2]), "{latest}");
}

#[test]
fn what_was_deleted_goes_from_everywhere_when_its_time_is_over_unless_it_is_held() {
    let (tiers, ids) = three_points();
    tiers.run(&["forget", &ids[0], &ids[1], "--yes"]).expect_code(0);
    tiers.run(&["hold", &ids[1]]).expect_code(0);
    for verb in [&["prune"][..], &["forget"]] {
        tiers.run(verb).expect_code(0);
        assert_eq!(places(&tiers), [set(&ids), set(&ids)], "{verb:?}");
    }
    let_time_pass(&tiers);
    // The clock may have jumped.
    for verb in [&["prune"][..], &["forget"]] {
        let said = tiers.run(verb).expect_code(0).out();
        assert!(said.contains("2 recovery points deleted before, whose time is over"), "{said}");
        assert_eq!(places(&tiers), [set(&ids), set(&ids)], "{verb:?}");
    }
    let_a_day_pass(&tiers);
    // A vault that is away keeps it from going anywhere, and the rest from nothing.
    std::fs::rename(tiers.vault(), tiers.away()).unwrap();
    assert_ne!(tiers.run(&["prune"]).code(), 0);
    std::fs::rename(tiers.away(), tiers.vault()).unwrap();
    assert_eq!(places(&tiers)[1], set(&ids));
    let said = tiers.run(&["prune"]).expect_code(0).out();
    assert!(said.contains("1 recovery point went that had been deleted"), "{said}");
    let left = set(&ids[1..]);
    assert_eq!(places(&tiers), [left.clone(), left]);
    assert_eq!(deleted(&tiers), set([&ids[1]]));
    tiers.with_word(&["release", &ids[1]]).expect_code(0);
    tiers.run(&["forget", "--group", "web"]).expect_code(0);
    assert_eq!(places(&tiers), [set([&ids[2]]), set([&ids[2]])]);
    assert_eq!(deleted(&tiers), BTreeSet::new());
    tiers.run(&["check"]).expect_code(0);
}

#[test]
fn at_once_it_goes_only_if_somebody_has_more_than_the_key_of_the_machine() {
    let (tiers, ids) = three_points();
    let now = |id: &str, password: Option<&str>| {
        let mut forget = tiers.machine.command(["forget", id, "--now", "--yes"]);
        password.map(|password| forget.env("HOLDFAST_PASSWORD", password));
        Ran::of(forget.env("HOLDFAST_CONFIG", &tiers.config))
    };
    let refused = now(&ids[0], None).expect_code(12);
    refused
        .expect_err(&["`holdfast forget --now` takes a passphrase or the words", "HOLDFAST_PASSWORD_FILE"]);
    now(&ids[0], Some("not the passphrase of it")).expect_code(12).expect_err(&["`holdfast forget --now`"]);
    // Who has the machine's key makes a slot for himself, and is not the owner by that.
    let mine = "a passphrase of my own";
    Ran::of(tiers.machine.command(["key", "add"]).env("HOLDFAST_NEW_PASSWORD", mine)).expect_code(0);
    now(&ids[0], Some(mine)).expect_code(12).expect_err(&["does not have the key of the store's owner"]);
    assert_eq!(places(&tiers), [set(&ids), set(&ids)]);
    // Also what is deleted already.
    tiers.run(&["forget", &ids[1]]).expect_code(0);
    for id in &ids[..2] {
        now(id, Some(PASSPHRASE)).expect_code(0);
    }
    assert_eq!(places(&tiers), [set([&ids[2]]), set([&ids[2]])]);
    assert_eq!(deleted(&tiers), BTreeSet::new());
}

#[test]
fn a_point_whose_removal_was_cut_off_comes_back_when_it_is_wanted() {
    let (tiers, ids) = points_here(LOCAL, &[0, 24, 48]);
    tiers.with_word(&["forget", &ids[0]]).expect_code(0);
    // As a removal leaves it that ends between the object and the row.
    let store = tiers.machine.store();
    let opened = open_store(&store, &tiers.machine.root().join("keys"), Arc::new(ManualClock::default()));
    let id = RecoveryPointId::from_hex(&ids[0]).unwrap();
    opened.catalog().set_mark(Mark::Going(None, id), true).unwrap();
    let row = opened.catalog().point(&id).unwrap().unwrap();
    std::fs::remove_file(store.join(names::point(&row.tag, &id).as_str())).unwrap();
    drop(opened);
    tiers.run(&["undelete", &ids[0]]).expect_code(0);
    assert_eq!(places(&tiers)[0], set(&ids));
    assert_eq!(deleted(&tiers), BTreeSet::new());
    tiers.run(&["check"]).expect_code(0);
}

#[test]
fn the_points_of_a_group_that_is_stopped_and_deleted_come_back_as_well() {
    let (tiers, ids) = three_points();
    tiers.run(&["protect", "stop", "web", "--delete", "--now", "--yes"]).expect_code(12);
    tiers.with_word(&["protect", "stop", "web", "--delete", "--yes"]).expect_code(0);
    assert_eq!((deleted(&tiers), places(&tiers)), (set(&ids), [set(&ids), set(&ids)]));
    tiers.run(&[&["undelete"], ids.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
    assert_eq!(deleted(&tiers), BTreeSet::new());
}
