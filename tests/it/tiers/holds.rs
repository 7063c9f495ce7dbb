//! Points that are held, as a person does it.

use std::path::Path;

use super::expiry::{foreseen, of};
use super::*;

const KEEP_1: &str = "schedule = \"12:00\", keep = { last = 1 }";

/// Ids of the points of which a store or vault has a hold.
fn held_in(place: &Path) -> BTreeSet<String> {
    let Ok(sources) = std::fs::read_dir(place.join("hold")) else { return BTreeSet::new() };
    let holds = sources.flat_map(|source| std::fs::read_dir(source.unwrap().path()).unwrap());
    holds.map(|hold| hold.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_held_point_stays_in_every_tier_until_it_is_released() {
    let tiers = Tiers::new(KEEP_1, KEEP_1);
    let (store, vault) = (tiers.machine.store(), tiers.vault());
    let ids = tiers.take(&[0, 24, 48, 72, 96]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let said = tiers.run(&["hold", &ids[0][..8], &ids[0], "--reason", "the audit"]).expect_code(0).out();
    assert!(said.contains("is held since") && said.ends_with(": the audit\n"), "{said}");
    assert_eq!((held_in(&store), held_in(&vault)), (set([&ids[0]]), set([&ids[0]])));
    // The catalog is a cache.
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(store.join(name));
    }
    assert_eq!(foreseen(&tiers), &of("local", &[&ids[1]]) | &of("online", &[&ids[1]]));
    let refused = tiers.run(&["forget", &ids[0], "--yes"]).expect_code(1);
    refused.expect_err(&[": the audit", &format!("holdfast release {}", &ids[0][..8])]);
    tiers.run(&["forget"]).expect_code(0);
    assert_eq!((shown_in(&store), shown_in(&vault)), (shown_in(&vault), &set(&ids) - &set([&ids[1]])));
    let snapshots = tiers.run(&["snapshots", "--json"]).expect_code(0).json();
    assert_eq!(snapshots[0]["held"]["reason"], "the audit");
    assert!(snapshots[1].get("held").is_none(), "{snapshots}");
    tiers.run(&["check"]).expect_code(0);
    tiers.run(&["release", &ids[0]]).expect_code(0);
    assert_eq!((held_in(&store), held_in(&vault)), (BTreeSet::new(), BTreeSet::new()));
    let again = tiers.run(&["release", &ids[0]]).expect_code(0).out();
    assert!(again.contains("is not held"), "{again}");
    tiers.run(&["forget", &ids[0]]).expect_code(0);
    assert_eq!(shown_in(&store), set(&ids[2..]));
}

#[test]
fn a_vault_that_is_away_is_told_by_the_next_push_and_holds_until_it_is_released_there() {
    let tiers = Tiers::new(KEEP_1, KEEP_1);
    let (store, vault) = (tiers.machine.store(), tiers.vault());
    let ids = tiers.take(&[0, 24]);
    tiers.run(&["vault", "push"]).expect_code(0);
    std::fs::rename(&vault, tiers.away()).unwrap();
    let told = tiers.run(&["hold", &ids[0]]).expect_code(3);
    told.expect_err(&[vault.to_str().unwrap(), "vault push"]);
    std::fs::rename(tiers.away(), &vault).unwrap();
    assert_eq!((held_in(&store), held_in(&vault)), (set([&ids[0]]), BTreeSet::new()));
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    assert_eq!(held_in(&vault), set([&ids[0]]));

    std::fs::rename(&vault, tiers.away()).unwrap();
    tiers.run(&["release", &ids[0]]).expect_code(1).expect_err(&[vault.to_str().unwrap(), "stays held"]);
    std::fs::rename(tiers.away(), &vault).unwrap();
    tiers.run(&["forget", &ids[0]]).expect_code(1).expect_err(&["is held since"]);
    tiers.run(&["vault", "push"]).expect_code(0);
    assert_eq!((held_in(&store), held_in(&vault)), (BTreeSet::new(), set([&ids[0]])));
    tiers.run(&["release", &ids[0]]).expect_code(0);
    tiers.run(&["forget", &ids[0]]).expect_code(0);
    assert_eq!(shown_in(&vault), set([&ids[1]]));
}

#[test]
fn what_another_machine_holds_in_a_vault_is_seen_before_anything_goes_there() {
    let tiers = Tiers::new(KEEP_1, KEEP_1);
    let ids = tiers.take(&[0, 24, 48, 72, 96]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let stranger = Machine::recovered_from(tiers.vault());
    stranger.run(["hold", &ids[0], "--reason", "from afar"]).expect_code(0);
    let both = &of("local", &[&ids[0], &ids[1]]) | &of("online", &[&ids[0], &ids[1]]);
    assert_eq!(foreseen(&tiers), both, "nobody told this machine");
    // The others go, and it stays in both tiers.
    tiers.run(&["forget"]).expect_code(1).expect_err(&["from afar"]);
    let left = &set(&ids) - &set([&ids[1]]);
    assert_eq!((shown_in(&tiers.machine.store()), shown_in(&tiers.vault())), (left.clone(), left));
    tiers.run(&["forget"]).expect_code(0);
    stranger.run(["release", &ids[0]]).expect_code(0);
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    tiers.run(&["forget"]).expect_code(0);
    assert_eq!(shown_in(&tiers.vault()), set(&ids[2..]));
}

#[test]
fn a_hold_that_is_damaged_in_a_vault_keeps_its_point_and_no_other() {
    let tiers = Tiers::new(KEEP_1, KEEP_1);
    let ids = tiers.take(&[0, 24, 48, 72, 96, 120]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let stranger = Machine::recovered_from(tiers.vault());
    stranger.run(["hold", &ids[0]]).expect_code(0);
    let source = std::fs::read_dir(tiers.vault().join("hold")).unwrap().next().unwrap().unwrap().path();
    let hold = std::fs::read_dir(source).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&hold, vec![7; std::fs::metadata(&hold).unwrap().len() as usize]).unwrap();
    let named = format!("hold/{}", hold.strip_prefix(tiers.vault().join("hold")).unwrap().display());
    tiers.run(&["forget"]).expect_code(1).expect_err(&[&named, "release"]);
    // Nobody who does not see that vault knows of it.
    let there = &set(&ids) - &set([&ids[1], &ids[2]]);
    assert_eq!((shown_in(&tiers.machine.store()), shown_in(&tiers.vault())), (set(&ids[3..]), there));
    tiers.run(&["forget"]).expect_code(1).expect_err(&[&named]);
    let said = tiers.run(&["release", &ids[0]]).expect_code(0).out();
    assert!(said.contains("is released") && !hold.exists(), "{said}");
    tiers.run(&["forget"]).expect_code(0);
    assert_eq!(shown_in(&tiers.vault()), set(&ids[3..]));
}

#[test]
fn a_point_that_another_machine_removed_is_said_to_be_gone_and_not_held() {
    let tiers = Tiers::new("schedule = \"12:00\"", KEEP_1);
    let ids = tiers.take(&[0, 24, 48]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let vault = tiers.vault();
    let stranger = Machine::recovered_from(&vault);
    stranger.run(["forget", &ids[0]]).expect_code(0);
    let told = tiers.run(&["hold", &ids[0], "--reason", "the audit"]).expect_code(3);
    let told = told.expect_err(&[vault.to_str().unwrap(), "is not there any more"]);
    assert!(told.out().contains("is held since"), "its local copy is: {}", told.out());
    assert_eq!((held_in(&tiers.machine.store()), held_in(&vault)), (set([&ids[0]]), BTreeSet::new()));
    // Another one is nowhere any more.
    let other = Machine::recovered_from(&vault);
    stranger.run(["forget", &ids[2], "--allow-newest", "--yes"]).expect_code(0);
    let told = other.run(["hold", &ids[2]]).expect_code(1);
    let told = told.expect_err(&[&format!("recovery point {} is not there any more", &ids[2][..8])]);
    assert!(!told.out().contains("is held"), "{}", told.out());
    assert_eq!((held_in(&other.store()), held_in(&vault)), (BTreeSet::new(), BTreeSet::new()));
    let left = other.run(["snapshots", "--json"]).expect_code(0).json();
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
}

#[test]
fn a_point_that_is_named_and_that_another_machine_forgot_is_said_to_be_gone() {
    let tiers = Tiers::new("schedule = \"12:00\"", KEEP_1);
    let ids = tiers.take(&[0, 24, 48]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let vault = tiers.vault();
    let stranger = Machine::recovered_from(&vault);
    for (id, verb) in
        ids.iter().zip([["vault", "push"].as_slice(), &["copy", "--to", vault.to_str().unwrap()]])
    {
        tiers.run(&["forget", id]).expect_code(0);
        let told = stranger.run([verb, &[id]].concat()).expect_code(1);
        told.expect_err(&[&id[..8], "is not there any more"]);
    }
    stranger.run(["vault", "push"]).expect_code(0);
}
