//! What each tier lets go.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_backup::agenda::{Task, Work};
use holdfast_backup::ledger::{Ended, JobState, Ledger};
use holdfast_store::clock::{ManualClock, Timestamp};
use holdfast_store::fence::{Revocation, Why};
use holdfast_store::id::Attempt;
use holdfast_store::names;
use serde_json::Value;

use super::{LOCAL, NOON, ONLINE, Tiers, packs, set, shown_in};
use crate::testkit::{Machine, Ran, open_store};

/// `(tier, id)` of what a list of groups removes.
fn removed(groups: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let groups = groups.as_array().unwrap().iter();
    groups
        .flat_map(|group| {
            let points = group["remove"].as_array().unwrap().iter();
            points.map(|point| (text(&group["tier"]), text(&point["id"])))
        })
        .collect()
}

/// The same as `plan` shows it, with the reasons of all points.
pub fn planned(tiers: &Tiers) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let (mut expire, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for line in tiers.run(&["plan", "--json"]).expect_code(0).out().lines() {
        let tier: Value = serde_json::from_str(line).unwrap();
        for point in tier["points"].as_array().unwrap() {
            let text = |name: &str| point[name].as_str().unwrap().to_owned();
            reasons.insert(format!("{} {} {}", tier["tier"], text("id"), text("reason")));
            if point["action"] == "expire" {
                expire.insert((tier["tier"].as_str().unwrap().to_owned(), text("id")));
            }
        }
    }
    (expire, reasons)
}

/// What a dry run says, which is what `plan` says.
pub fn foreseen(tiers: &Tiers) -> BTreeSet<(String, String)> {
    let groups = tiers.run(&["forget", "--dry-run", "--json"]).expect_code(0).json();
    let (expire, reasons) = planned(tiers);
    assert_eq!(removed(&groups), expire);
    let mut told = BTreeSet::new();
    for group in groups.as_array().unwrap() {
        for point in ["keep", "remove"].iter().flat_map(|list| group[*list].as_array().unwrap()) {
            let why: Vec<&str> =
                point["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap()).collect();
            told.insert(format!("{} {} {}", group["tier"], point["id"].as_str().unwrap(), why.join(", ")));
        }
    }
    assert_eq!(told, reasons);
    expire
}

pub fn of(tier: &str, ids: &[&String]) -> BTreeSet<(String, String)> {
    ids.iter().map(|id| (tier.to_owned(), (*id).clone())).collect()
}

const KEEP_4: &str = "schedule = \"every 12 hours\", keep = { last = 4 }";
const KEEP_3_DAYS: &str = "schedule = \"12:00\", keep = { daily = 3 }";

/// A point at noon and one at midnight of each of so many days.
fn days(count: i64) -> Vec<i64> {
    (0..count * 2).map(|half| half * 12).collect()
}

#[test]
fn each_tier_lets_go_by_its_own_rules_and_the_other_keeps() {
    let tiers = Tiers::new(KEEP_4, ONLINE);
    let (store, vault) = (tiers.machine.store(), tiers.vault());
    let other = tiers.take_of("other", &[0, 12, 24, 36, 48, 60]);
    let first = tiers.take(&[0]);
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    let ids = [first, tiers.take(&days(3)[1..])].concat();
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    assert_eq!(shown_in(&vault), set([&ids[0], &ids[2], &ids[4]]));

    let before = shown_in(&store);
    assert_eq!(foreseen(&tiers), of("local", &[&ids[0], &ids[1]]));
    assert_eq!(shown_in(&store), before);
    // What goes from staging alone needs no vault.
    std::fs::rename(&vault, tiers.away()).unwrap();
    tiers.run(&["forget", "--tier", "online"]).expect_code(0);
    tiers.run(&["forget", "--tier", "local"]).expect_code(0);
    std::fs::rename(tiers.away(), &vault).unwrap();
    assert_eq!(
        shown_in(&store),
        set(other.iter().chain(&ids[2..])),
        "a group that is not configured keeps all"
    );
    assert_eq!(shown_in(&vault), set([&ids[0], &ids[2], &ids[4]]));
    assert_eq!(foreseen(&tiers), BTreeSet::new());
    // The one that was in no vault is gone, the other one is there and can be read.
    let snapshots = tiers.run(&["snapshots"]).expect_code(0).out();
    assert!(snapshots.contains(&ids[0][..8]) && !snapshots.contains(&ids[1][..8]), "{snapshots}");
    tiers.run(&["prune"]).expect_code(0);
    tiers.machine.restore(&ids[0], "restored");
    tiers.run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn what_a_vault_lost_stays_here_until_it_has_it_again_and_goes_there_unasked() {
    let tiers = Tiers::new(KEEP_4, ONLINE);
    let (store, vault) = (tiers.machine.store(), tiers.vault());
    let first = tiers.take(&[0]);
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    let lost = packs(&vault).into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let ids = [first, tiers.take(&days(4)[1..])].concat();
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    assert_eq!(foreseen(&tiers), of("local", &[&ids[0], &ids[1], &ids[2], &ids[3]]));
    std::fs::remove_file(&lost).unwrap();
    tiers.run(&["check"]).expect_code(1);
    assert_eq!(foreseen(&tiers), of("local", &[&ids[1], &ids[2], &ids[3]]), "it waits for the vault");
    tiers.run(&["forget", "--prune"]).expect_code(3).expect_err(&["the pack is missing from vault"]);
    assert!(shown_in(&store).contains(&ids[0]));
    let pushed = tiers.run(&["vault", "push", "--pending", "--json"]).expect_code(0).json();
    assert_eq!((&pushed["packs"], lost.exists()), (&1.into(), true), "{pushed}");
    tiers.run(&["forget", "--prune"]).expect_code(0);
    assert!(!shown_in(&store).contains(&ids[0]));
    tiers.run(&["check", "--read-data"]).expect_code(0);
    tiers.machine.restore(&ids[0], "restored");
}

#[test]
fn what_a_vault_lost_of_a_point_that_is_forgotten_then_does_not_come_back() {
    let tiers = Tiers::new(LOCAL, ONLINE);
    let ids = tiers.take(&[0]);
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    tiers.take(&days(3)[1..]);
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    let source = std::fs::read_dir(tiers.vault().join("rp")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(source.join(&ids[0])).unwrap();
    tiers.run(&["prune"]).expect_code(3).expect_err(&["the recovery point is missing"]);
    tiers.run(&["forget", &ids[0]]).expect_code(0);
    tiers.run(&["vault", "push", "--pending"]);
    tiers.run(&["scrub"]);
    let snapshots = tiers.run(&["snapshots"]).out();
    assert!(!snapshots.contains(&ids[0][..8]) && !shown_in(&tiers.vault()).contains(&ids[0]), "{snapshots}");
}

#[test]
fn what_expires_online_stays_here() {
    let tiers = Tiers::new("schedule = \"every 12 hours\"", KEEP_3_DAYS);
    let (store, vault) = (tiers.machine.store(), tiers.vault());
    let first = tiers.take(&[0]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let ids = [first, tiers.take(&days(4)[1..])].concat();
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    assert_eq!(foreseen(&tiers), of("online", &[&ids[0]]));
    // What goes from a vault needs it, and nothing goes before it answers.
    std::fs::rename(&vault, tiers.away()).unwrap();
    tiers.run(&["forget"]).expect_code(1).expect_err(&[vault.to_str().unwrap()]);
    std::fs::rename(tiers.away(), &vault).unwrap();
    assert_eq!(shown_in(&vault).len(), 4);
    tiers.run(&["forget", "--group", "web", "--prune"]).expect_code(0);
    assert_eq!(shown_in(&vault), set([&ids[2], &ids[4], &ids[6]]));
    assert_eq!(shown_in(&store), set(&ids));
    tiers.machine.restore(&ids[0], "restored");
    // It is older than what the vault has, and does not come back.
    let to = vault.to_str().unwrap();
    let pending = ["vault", "push", "--pending", "--json"];
    for all in [&pending[..], &["vault", "push", "--json"], &["copy", "--all", "--to", to, "--json"]] {
        let before = shown_in(&vault);
        let pushed = tiers.run(all).expect_code(0).json();
        assert_eq!(pushed["points"] == 0, *all != ["vault", "push", "--json"], "{pushed}");
        assert!(!shown_in(&vault).contains(&ids[0]) && shown_in(&vault).is_superset(&before), "{pushed}");
    }
    tiers.run(&["check", "--read-data"]).expect_code(0);
    // Unless somebody names it, each time.
    for named in [&["vault", "push", &ids[0]][..], &["copy", &ids[0], "--to", to]] {
        tiers.run(named).expect_code(0);
        assert!(shown_in(&vault).contains(&ids[0]), "{named:?}");
        tiers.run(&["check", "--read-data"]).expect_code(0);
        tiers.run(&["forget", "--group", "web", "--tier", "online", "--yes"]).expect_code(0);
        assert!(!shown_in(&vault).contains(&ids[0]), "{named:?}");
    }
}

#[test]
fn a_point_that_another_machine_forgot_in_a_vault_comes_there_by_its_name_alone() {
    let tiers = Tiers::new("schedule = \"every 12 hours\"", ONLINE);
    let vault = tiers.vault();
    let ids = tiers.take(&[0, 24, 48]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let other = Machine::recovered_from(&vault);
    other.run(["forget", &ids[2], "--yes", "--allow-newest"]).expect_code(0);
    let pushed = tiers.run(&["vault", "push", "--pending", "--json"]).expect_code(0).json();
    assert_eq!(pushed["points"], 0, "{pushed}");
    assert_eq!(shown_in(&vault), set(&ids[..2]));
    tiers.run(&["vault", "push", &ids[2], "--verbose"]).expect_code(0).expect_err(&["comes again"]);
    assert_eq!(shown_in(&vault), set(&ids));
    other.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_point_that_was_too_long_on_its_way_comes_with_the_next_push() {
    let tiers = Tiers::new(LOCAL, ONLINE);
    let (id, vault) = (tiers.take(&[0]).remove(0), tiers.vault());
    let keys = tiers.machine.root().join("keys");
    let store = open_store(&tiers.machine.store(), &keys, Arc::new(ManualClock::default()));
    let point = store.points().unwrap().remove(0).point;
    let (attempt, tag) = (Attempt::first(point.id), point.source_tag);
    let word = Revocation { attempt, tag, why: Why::Silent, at: 0 }.seal(store.sealer());
    drop(store);
    let name = vault.join(names::outcome(&tag, &attempt).as_str());
    std::fs::create_dir_all(name.parent().unwrap()).unwrap();
    std::fs::write(name, word).unwrap();
    tiers.run(&["vault", "push", "--pending", "--verbose"]).expect_code(0).expect_err(&["begins again"]);
    assert_eq!(shown_in(&vault), set([&id]));
    tiers.run(&["check", "--read-data"]).expect_code(0);
    assert_eq!(tiers.run(&["vault", "push", "--pending", "--json"]).expect_code(0).json()["points"], 0);
}

#[test]
fn what_waits_for_a_vault_stays_until_it_is_there() {
    let tiers = Tiers::new(KEEP_4, ONLINE);
    let (store, vault) = (tiers.machine.store(), tiers.vault());
    let first = tiers.take(&[0]);
    tiers.run(&["vault", "push"]).expect_code(0);
    std::fs::rename(&vault, tiers.away()).unwrap();
    let ids = [first, tiers.take(&days(5)[1..])].concat();
    // At noon of three days the vault should have had them; the last four stay anyway.
    assert_eq!(foreseen(&tiers), of("local", &[&ids[0], &ids[1], &ids[3], &ids[5]]));
    tiers.run(&["forget"]).expect_code(0);
    assert_eq!(shown_in(&store), set([&ids[2], &ids[4]].into_iter().chain(&ids[6..])));
    assert!(planned(&tiers).1.contains(&format!("\"local\" {} waits for a vault", ids[2])));
    tiers.run(&["vault", "push", "--pending"]).expect_code(1);
    std::fs::rename(tiers.away(), &vault).unwrap();
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    assert_eq!(shown_in(&vault), set([&ids[0], &ids[2], &ids[4], &ids[6], &ids[8]]));
    tiers.run(&["forget"]).expect_code(0);
    assert_eq!(shown_in(&store), set(&ids[6..]));
    tiers.machine.restore(&ids[2], "restored");
}

#[test]
fn a_catalog_that_was_made_anew_lets_nothing_go_that_a_vault_may_want() {
    let tiers = Tiers::new(KEEP_4, ONLINE);
    let (store, vault) = (tiers.machine.store(), tiers.vault());
    let first = tiers.take(&[0]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let ids = [first, tiers.take(&days(3)[1..])].concat();
    std::fs::rename(&vault, tiers.away()).unwrap();
    for file in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(store.join(file));
    }
    tiers.run(&["forget"]);
    assert_eq!(shown_in(&store), set(&ids));
    std::fs::rename(tiers.away(), &vault).unwrap();
    tiers.run(&["forget", "--yes"]).expect_code(0);
    assert_eq!(shown_in(&store), set(&ids[2..]));
}

#[test]
fn the_brake_holds_in_each_tier_for_itself() {
    let tiers = Tiers::new(KEEP_4, KEEP_3_DAYS);
    let (store, vault) = (tiers.machine.store(), tiers.vault());
    let first = tiers.take(&[0]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let ids = [first, tiers.take(&days(5)[1..])].concat();
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    // Six of ten here, two of five there.
    let told = ["6 of 10", "web local", "--yes"];
    tiers.run(&["forget"]).expect_code(1).expect_err(&told);
    assert_eq!(shown_in(&store), set(&ids));
    assert_eq!(shown_in(&vault), set([&ids[4], &ids[6], &ids[8]]));
    tiers.run(&["forget", "--yes"]).expect_code(0);
    assert_eq!(shown_in(&store), set(&ids[6..]));
    // In no tier any more.
    assert!(!tiers.run(&["snapshots"]).out().contains(&ids[0][..8]));
}

/// Puts down a job of the group that is done, as a daemon does.
fn put_down(tiers: &Tiers, work: Work, points: &[String]) {
    let (ledger, _) = Ledger::open(&tiers.machine.store()).unwrap();
    let (task, at) = (Task { work, group: Some("web".into()) }, Timestamp::from_seconds(NOON));
    let no = ledger.begin(&task, false, at).unwrap();
    let (state, said, points) = (JobState::Done, String::new(), points.to_vec());
    ledger.end(no, &Ended { at, state, said, points, sent: None }).unwrap();
}

/// Noon of these days.
fn noons(days: std::ops::Range<i64>) -> Vec<i64> {
    days.map(|day| day * 24).collect()
}

#[test]
fn after_an_outage_nobody_is_asked_for_what_the_same_rules_had_let_go_of_meanwhile() {
    let keep_8 = "schedule = \"12:00\", keep = { last = 8 }";
    let tiers = Tiers::new("schedule = \"every hour\"", keep_8);
    let forget = ["forget", "--tier", "online"];
    tiers.take(&noons(0..8));
    tiers.run(&["vault", "push"]).expect_code(0);
    put_down(&tiers, Work::ExpireOnline, &[]);
    // The vault is away for eight days.
    let came = tiers.take(&noons(8..16));
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    assert_eq!(shown_in(&tiers.vault()).len(), 16);
    let command = "`holdfast forget --tier online --group web --dry-run`";
    tiers.run(&forget).expect_code(1).expect_err(&["8 of 16", "of web online", command]);
    put_down(&tiers, Work::Push, &came);
    tiers.run(&forget).expect_code(0);
    assert_eq!(shown_in(&tiers.vault()), set(&came));
    put_down(&tiers, Work::ExpireOnline, &[]);
    // Another rule is another matter, however regularly points come.
    let next = tiers.take(&noons(16..17));
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    put_down(&tiers, Work::Push, &next);
    let text = std::fs::read_to_string(&tiers.config).unwrap();
    std::fs::write(&tiers.config, text.replace("last = 8", "last = 3")).unwrap();
    tiers.run(&forget).expect_code(1).expect_err(&["6 of 9"]);
}

#[test]
fn after_an_outage_nobody_is_asked_for_local_copies_that_waited_for_the_vault() {
    let tiers = Tiers::new(KEEP_4, ONLINE);
    let forget = ["forget", "--tier", "local"];
    tiers.take(&[0]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let waited = tiers.take(&noons(1..12));
    tiers.run(&forget).expect_code(0);
    put_down(&tiers, Work::ExpireLocal, &[]);
    assert_eq!(shown_in(&tiers.machine.store()), set(&waited));
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    tiers.run(&forget).expect_code(1).expect_err(&["7 of 11", "--tier local --group web --yes"]);
    put_down(&tiers, Work::Push, &waited);
    tiers.run(&forget).expect_code(0);
    assert_eq!(shown_in(&tiers.machine.store()), set(&waited[7..]));
}

#[test]
fn what_does_not_go_with_the_configuration_is_refused() {
    let tiers = Tiers::new(KEEP_4, ONLINE);
    for args in [
        &["forget", "--host", "other"][..],
        &["forget", "--group-by", "host"],
        &["forget", "--tier", "both"],
        &["forget", "--tier", "local", "--keep-last", "3"],
        &["forget", "--keep-last", "0"],
        &["forget", "--allow-newest"],
    ] {
        tiers.run(args).expect_code(2);
    }
    tiers.run(&["forget", "--group", "wbe"]).expect_code(2).expect_err(&["wbe", "web"]);
    tiers.machine.run(["forget"]).expect_code(2).expect_err(&["--keep options"]);
}

#[test]
fn space_is_freed_in_no_vault_for_the_local_tier_and_where_the_configuration_says_so() {
    let tiers = Tiers::new("schedule = \"daily\", keep = { last = 3 }", ONLINE);
    let ids = tiers.take(&[0, 24, 48, 72]);
    tiers.run(&["vault", "push"]).expect_code(0);
    // In so many vaults.
    let freed_in = |args: &[&str]| {
        let ran = tiers.run(&[&["forget", "--prune", "--yes", "--json"], args].concat());
        ran.expect_code(0).json()["vaults"].as_array().unwrap().len()
    };
    let before = packs(&tiers.machine.store()).len();
    assert_eq!(freed_in(&["--tier", "local"]), 0);
    assert!(!shown_in(&tiers.machine.store()).contains(&ids[0]));
    assert!(packs(&tiers.machine.store()).len() < before);
    assert_eq!((freed_in(&[]), freed_in(&["--keep-last", "9"])), (1, 1));
    let config = std::fs::read_to_string(&tiers.config).unwrap();
    std::fs::write(&tiers.config, config + "[reclaim]\nvaults = false\n").unwrap();
    assert_eq!((freed_in(&[]), freed_in(&["--keep-last", "9"])), (0, 0));
}

#[test]
fn a_configuration_that_is_not_there_ends_a_prune_before_anything_is_removed() {
    let tiers = Tiers::new("schedule = \"12:00\"", "schedule = \"12:00\"");
    let store = tiers.machine.store();
    let ids = tiers.take(&[0, 24]);
    let missing = |args: &[&str]| {
        let mut command = tiers.machine.command(args);
        Ran::of(command.env("HOLDFAST_CONFIG", tiers.machine.path("missing.toml"))).expect_code(1);
    };
    let before = (packs(&store), shown_in(&store));
    missing(&["forget", &ids[0], "--prune"]);
    assert_eq!((packs(&store), shown_in(&store)), before);
    tiers.run(&["forget", &ids[0]]).expect_code(0);
    missing(&["prune"]);
    assert_eq!(packs(&store), before.0);
    tiers.run(&["prune"]).expect_code(0);
    assert!(packs(&store) != before.0, "there was something to remove");
}
