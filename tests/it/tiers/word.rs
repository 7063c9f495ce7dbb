//! What takes the owner's word in a store that keeps for a while what people delete: whoever has the machine's key alone, and its configuration,
//! does not get around the days.

use std::collections::BTreeMap;

use serde_json::Value;

use super::deleted::{deleted, places, points, three_points};
use super::*;
use crate::trouble::read_tree;

/// What a store and its vault hold, and what is said of them: all but what is made again, and what is noted of a look.
fn state(tiers: &Tiers) -> BTreeMap<String, Arc<Vec<u8>>> {
    let cache = ["catalog.db", "ledger.db", "lock", "witness.json", "ballast", "tmp/"];
    let mut files = BTreeMap::new();
    for (place, dir) in [("store", tiers.machine.store()), ("vault", tiers.vault())] {
        let kept =
            read_tree(&dir).into_iter().filter(|(name, _)| !cache.iter().any(|no| name.starts_with(no)));
        files.extend(kept.map(|(name, bytes)| (format!("{place}/{name}"), bytes)));
    }
    files.insert("config".into(), Arc::new(std::fs::read(&tiers.config).unwrap()));
    files
}

/// The id of the slot of a kind.
fn slot_of(tiers: &Tiers, kind: &str) -> String {
    let slots = tiers.run(&["key", "list", "--json"]).expect_code(0).json();
    let slot = slots.as_array().unwrap().iter().find(|slot| slot["kind"] == kind).unwrap();
    slot["id"].as_str().unwrap().to_owned()
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
    refused.expect_err(&[
        "`holdfast config accept` takes",
        "HOLDFAST_PASSWORD_FILE",
        "the longer time holds",
    ]);
    assert_eq!(kept(), before);
    tiers.with_word(&["config", "accept"]).expect_code(0);
    let said = tiers.run(&["config", "accept"]).expect_code(0).out();
    assert!(said.contains("nothing to accept"), "{said}");
    // What was deleted goes when it was to go, and the next one at once.
    tiers.run(&["forget", &ids[1]]).expect_code(0);
    let left = set([&ids[0], &ids[2]]);
    assert_eq!((days_of_deleted(&tiers), places(&tiers)), (vec![14], [left.clone(), left]));
}

#[test]
fn what_takes_protection_away_for_good_takes_the_owners_word() {
    let keep_one = "schedule = \"every hour\", keep = { last = 1 }";
    let (tiers, ids) = points(keep_one, &[0, 24, 48, 72, 96, 120, 144, 168, 192]);
    let vault = tiers.vault().to_str().unwrap().to_owned();
    tiers.run(&["hold", &ids[0]]).expect_code(0);
    tiers.run(&["prune"]).expect_code(0);
    let sheet = slot_of(&tiers, "recovery");
    // Who has the machine's key makes a slot for himself.
    let mine = "a passphrase of my own";
    Ran::of(tiers.machine.command(["key", "add"]).env("HOLDFAST_NEW_PASSWORD", mine)).expect_code(0);

    let release: &[&str] = &["release", &ids[0]];
    let accept: &[&str] = &["vault", "accept", &vault];
    let many: &[&str] = &["forget", "--tier", "local", "--yes"];
    let newest: &[&str] = &["forget", &ids[8], "--allow-newest"];
    let now: &[&str] = &["forget", &ids[6], "--now"];
    let free: &[&str] = &["prune", "--now"];
    let remove_key: &[&str] = &["key", "remove", &sheet];
    let drop_keys: &[&str] = &["key", "rotate", "--drop-others", "--sheet", "new.txt"];
    let own: &[&str] = &["key", "own", "--new"];
    let stop: &[&str] = &["protect", "stop", "web", "--delete", "--yes"];
    let take: &[&str] = &["staging", "add", "b", "--take-over"];
    let lose: &[&str] = &["staging", "remove", "--lost", "b"];
    let leave: &[&str] = &["vault", "remove", "--force", &vault];
    let before = state(&tiers);
    let refused = |ran: Ran, args: &[&str], command: &str| {
        let takes = format!("`holdfast {command}` takes a passphrase or the words");
        ran.expect_code(12).expect_err(&[&takes, "nothing was changed", "HOLDFAST_PASSWORD_FILE"]);
        let after = state(&tiers);
        let names = |files: &BTreeMap<String, _>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(&before), "{args:?}");
        assert!(after == before, "{args:?} changed a file");
    };
    for (args, command) in [
        (release, "release"),
        (accept, "vault accept"),
        (many, "forget --yes"),
        (newest, "forget --allow-newest"),
        (now, "forget --now"),
        (free, "prune --now"),
        (remove_key, "key remove"),
        (drop_keys, "key rotate --drop-others"),
        (stop, "protect stop --delete"),
        (take, "staging add --take-over"),
        (lose, "staging remove --lost"),
        (leave, "vault remove"),
    ] {
        refused(tiers.run(args), args, command);
    }
    let mut thief = tiers.machine.command(own);
    thief.env("HOLDFAST_CONFIG", &tiers.config).env("HOLDFAST_PASSWORD", mine);
    refused(Ran::of(&mut thief), own, "key own");

    let done = |args: &[&str]| tiers.with_word(args).expect_code(0).out();
    assert!(done(release).contains("is released"));
    done(accept);
    done(many);
    assert_eq!(places(&tiers), [set(&ids[6..]), set(&ids)]);
    done(newest);
    assert_eq!((deleted(&tiers), places(&tiers)), (set([&ids[8]]), [set(&ids[6..]), set(&ids)]));
    done(now);
    assert_eq!(places(&tiers), [set(&ids[7..]), &set(&ids) - &set([&ids[6]])]);
    done(free);
    done(remove_key);
    done(drop_keys);
    let slots = tiers.run(&["key", "list", "--json"]).expect_code(0).json();
    assert_eq!(slots.as_array().unwrap().len(), 3, "the machine's, the passphrase, a new sheet: {slots}");
    assert!(slots.as_array().unwrap().iter().all(|slot| slot["id"] != sheet.as_str()), "{slots}");
    done(stop);
    assert_eq!(deleted(&tiers), &set(&ids) - &set([&ids[6]]));
    assert!(done(own).contains("the store has a new owner"));
    done(take);
    std::fs::remove_dir_all(tiers.machine.path("b")).unwrap();
    done(lose);
    assert!(done(leave).contains("no longer one of this store's"));
}
