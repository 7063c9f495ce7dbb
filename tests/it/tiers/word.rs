//! What takes the owner's word in a store that keeps for a while what people delete: whoever has the machine's key alone, and its configuration,
//! does not get around the days.

use serde_json::Value;

use super::deleted::{places, three_points};
use super::*;
use crate::testkit::PASSPHRASE;

/// A run with the owner's word.
fn with_word(tiers: &Tiers, args: &[&str]) -> Ran {
    let mut command = tiers.machine.command(args);
    Ran::of(command.env("HOLDFAST_CONFIG", &tiers.config).env("HOLDFAST_PASSWORD", PASSPHRASE))
}

/// For how many days each of the points stays that were deleted.
fn days_of_deleted(tiers: &Tiers) -> Vec<i64> {
    let file = std::fs::read(tiers.machine.store().join("deleted.json")).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let seconds = |entry: &Value| entry["until"].as_i64().unwrap() - entry["at"].as_i64().unwrap();
    file["deleted"].as_array().unwrap().iter().map(|entry| seconds(entry) / 86_400).collect()
}

#[test]
fn what_is_deleted_stays_as_long_as_it_ever_did_until_the_owner_agrees_to_less() {
    let (tiers, ids) = three_points();
    tiers.run(&["prune"]).expect_code(0);
    let text = std::fs::read_to_string(&tiers.config).unwrap();
    for (said, told) in [("days = 1", "says 1 now"), ("days = 0", "says 0 now"), ("", "says 0 now")] {
        let text = text.replace("days = 14", said);
        std::fs::write(&tiers.config, text.replace("[soft-delete]\n\n", "")).unwrap();
        let ran = tiers.run(&["forget", &ids[0]]).expect_code(0);
        ran.expect_err(&["stays for 14 days", told, "`holdfast config accept`"]);
        assert_eq!((days_of_deleted(&tiers), places(&tiers)), (vec![14], [set(&ids), set(&ids)]), "{said:?}");
        tiers.run(&["undelete", &ids[0]]).expect_code(0);
    }
    // One who names no configuration at all is no better off.
    tiers.machine.run(["forget", &ids[0]]).expect_code(0).expect_err(&["stays for 14 days"]);
    assert_eq!((days_of_deleted(&tiers), places(&tiers)), (vec![14], [set(&ids), set(&ids)]));

    let kept = || std::fs::read(tiers.machine.store().join("soft-delete.json")).unwrap();
    let before = kept();
    let refused = tiers.run(&["config", "accept"]).expect_code(12);
    refused.expect_err(&["`holdfast config accept` takes", "HOLDFAST_PASSWORD_FILE", "the longer time holds"]);
    assert_eq!(kept(), before);
    with_word(&tiers, &["config", "accept"]).expect_code(0);
    let said = tiers.run(&["config", "accept"]).expect_code(0).out();
    assert!(said.contains("nothing to accept"), "{said}");
    // What was deleted goes when it was to go, and the next one at once.
    tiers.run(&["forget", &ids[1]]).expect_code(0);
    let left = set([&ids[0], &ids[2]]);
    assert_eq!((days_of_deleted(&tiers), places(&tiers)), (vec![14], [left.clone(), left]));
}
