//! `scrub` with the key of the store: what is due is read, damage is named with its files, and `status` says how old proofs are.

use std::path::PathBuf;

use super::ciphertext::vaulted;
use super::{empty_configuration, flip, name_of, objects};
use crate::testkit::Ran;
use crate::trouble::run;

#[test]
fn what_is_due_is_read_in_every_place_and_status_says_since_when_all_is_proven() {
    let (machine, store, vault) = vaulted();
    let run = |args: &[&str]| run(&machine, &store.dir, args);
    let first = run(&["scrub", "--json"]).expect_code(0).json();
    assert_eq!((&first["num_errors"], first["places"].as_array().unwrap().len()), (&0.into(), 2), "{first}");
    assert!(first["bytes_read"].as_u64().unwrap() > 10 << 20, "{first}");
    for place in first["places"].as_array().unwrap() {
        assert!(place["proven_since"].is_string() && place["packs_never_proven"] == 0, "{place}");
        assert_eq!(place["packs_chosen"], place["packs"]);
    }
    let again = run(&["scrub", "--json"]).expect_code(0).json();
    assert_eq!((&again["packs"], &again["places"][0]["packs_chosen"]), (&0.into(), &0.into()));
    let config = empty_configuration(&machine);
    let places = run(&["status", "--json", "--config", &config]).expect_code(0).json()["places"].clone();
    assert!(places.as_array().unwrap().iter().all(|place| place["proven_since"].is_string()), "{places}");
    let text = run(&["scrub", "local", "--full"]).expect_code(0).out();
    assert!(text.contains("local: ") && !text.contains(vault.to_str().unwrap()), "{text}");
    assert!(text.contains("no damage found") && text.contains("0 days ago"), "{text}");
    let some = run(&["scrub", vault.to_str().unwrap(), "--max-bytes", "1M", "--json"]).expect_code(0).json();
    assert!(some["packs"].as_u64().unwrap() >= 1 && some["bytes_read"].as_u64().unwrap() < 3 << 20, "{some}");
    run(&["scrub", "/nowhere"]).expect_code(2).expect_err(&["local", vault.to_str().unwrap()]);
}

#[test]
fn damage_is_found_named_told_by_status_and_healed_from_the_other_place() {
    let (machine, store, vault) = vaulted();
    let run = |args: &[&str]| run(&machine, &store.dir, args);
    let config = empty_configuration(&machine);
    let alerts =
        || run(&["status", "--json", "--config", &config]).expect_code(0).json()["alerts"].to_string();
    let (here, there) = (objects(&store.dir, "pack").remove(0), objects(&vault, "pack").pop().unwrap());
    flip(&here);
    flip(&there);
    let ran = run(&["scrub", "--no-heal", "--json"]).expect_code(1);
    let broken = ran.json()["broken_packs"].clone();
    for (place, object) in [(&store.dir, &here), (&vault, &there)] {
        assert!(broken.as_array().unwrap().contains(&name_of(place, object).into()), "{broken}");
    }
    assert_eq!(ran.json()["broken_files"].as_array().unwrap().len(), 0, "each is whole in the other place");
    assert!(alerts().contains("`holdfast scrub` found that the store is damaged"), "{}", alerts());
    let healed = |ran: &Ran| ran.json()["healed"].clone();
    assert_eq!(healed(&ran), serde_json::json!([]), "nobody wanted it");
    let ran = run(&["scrub", "--json"]).expect_code(1);
    let (vault, local) = (vault.to_str().unwrap(), "local");
    let line = |object: String, place: &str, from: &str| serde_json::json!({"object": object, "place": place, "from": from});
    assert_eq!(
        healed(&ran),
        serde_json::json!([
            line(name_of(&store.dir, &here), local, vault),
            line(name_of(vault.as_ref(), &there), vault, local)
        ])
    );
    run(&["scrub"]).expect_code(0);
    assert!(!alerts().contains("\"damage\""), "{}", alerts());
    run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_file_that_is_lost_everywhere_is_named_with_its_point() {
    let (machine, store, vault) = vaulted();
    // The largest pack that both have is one of data.
    let there = |object: &PathBuf| vault.join(name_of(&store.dir, object));
    let both = objects(&store.dir, "pack").into_iter().filter(|object| there(object).exists());
    let here = both.max_by_key(|object| object.metadata().unwrap().len()).unwrap();
    flip(&here);
    flip(&there(&here));
    let ran = run(&machine, &store.dir, &["scrub", "--json"]).expect_code(1);
    let files = ran.json()["broken_files"].clone();
    assert!(files.as_array().is_some_and(|files| !files.is_empty()), "{files}");
    // What the source still has is stored again, and the files are whole.
    let source = machine.path("source");
    run(&machine, &store.dir, &["backup", source.to_str().unwrap()]).expect_code(0);
    let healed = run(&machine, &store.dir, &["scrub", "--json"]).json();
    assert_eq!(healed["broken_files"].as_array().unwrap().len(), 0, "{healed}");
}

#[test]
fn what_was_written_off_in_a_vault_is_not_put_right_and_what_no_place_has_is_told_by_each_scrub() {
    let (machine, store, vault) = vaulted();
    let run = |args: &[&str]| run(&machine, &store.dir, args);
    // The largest pack that both have is one of data.
    let there = |object: &PathBuf| vault.join(name_of(&store.dir, object));
    let both = objects(&store.dir, "pack").into_iter().filter(|object| there(object).exists());
    let here = both.max_by_key(|object| object.metadata().unwrap().len()).unwrap();
    flip(&here);
    flip(&there(&here));
    run(&["scrub", "--no-heal"]).expect_code(1);
    std::fs::remove_file(there(&here)).unwrap();
    let ran = run(&["scrub", "--json"]).expect_code(1);
    assert_eq!(ran.json()["healed"], serde_json::json!([]));
    std::fs::remove_file(&here).unwrap();
    let other = machine.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("file"), "something else").unwrap();
    // It learns that the pack is gone here, too.
    run(&["backup", other.to_str().unwrap()]);
    for _ in 0..2 {
        let lost = run(&["scrub", "--json"]).expect_code(1).json();
        assert!(!lost["broken_files"].as_array().unwrap().is_empty(), "{lost}");
    }
}

#[test]
fn what_a_vault_lost_and_another_verb_learned_is_told_and_sent_by_the_next_scrub() {
    let (machine, store, vault) = vaulted();
    let run = |args: &[&str]| run(&machine, &store.dir, args);
    let lost = objects(&vault, "pack").pop().unwrap();
    std::fs::remove_file(&lost).unwrap();
    run(&["check"]).expect_code(1);
    let told = run(&["scrub", "--no-heal", "--json"]).expect_code(1).json();
    assert!(!lost.exists() && told["num_errors"].as_u64().unwrap() > 0, "{told}");
    run(&["scrub", "--json"]).expect_code(1);
    assert!(lost.exists());
    run(&["scrub", "--json"]).expect_code(0);
    run(&["check", "--read-data"]).expect_code(0);
}

#[test]
fn each_pack_of_each_place_is_listed_with_its_last_proof_and_what_is_wrong_with_it_first() {
    let (machine, store, vault) = vaulted();
    let run = |args: &[&str]| run(&machine, &store.dir, args);
    let list = |place: &str| -> Vec<serde_json::Value> {
        let out = run(&["scrub", "--list", place, "--json"]).expect_code(0).out();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let vault_name = vault.to_str().unwrap();
    for place in ["local", vault_name] {
        assert!(list(place).iter().all(|line| line["state"] == "unproven" && line.get("proven").is_none()));
    }
    run(&["scrub"]).expect_code(0);
    let (mut here, mut there) = (objects(&store.dir, "pack"), objects(&vault, "pack"));
    for (place, root, objects) in [("local", &store.dir, &mut here), (vault_name, &vault, &mut there)] {
        let lines = list(place);
        assert!(lines.iter().all(|line| line["state"] == "proven" && line["proven"].is_string()));
        assert!(lines.iter().all(|line| line["place"] == place), "{lines:?}");
        let mut listed: Vec<_> =
            lines.iter().map(|line| line["object"].as_str().unwrap().to_owned()).collect();
        let mut there: Vec<_> = objects.iter().map(|object| name_of(root, object)).collect();
        listed.sort();
        there.sort();
        assert_eq!(listed, there);
        let bytes: u64 = lines.iter().map(|line| line["bytes"].as_u64().unwrap()).sum();
        assert_eq!(bytes, objects.iter().map(|object| object.metadata().unwrap().len()).sum::<u64>());
    }
    // In the vault one is gone and one rotten, and of the store's directory one is gone.
    let of_vault: Vec<_> = there.iter().take(2).map(|object| name_of(&vault, object)).collect();
    std::fs::remove_file(&there[0]).unwrap();
    flip(&there[1]);
    std::fs::remove_file(&here[2]).unwrap();
    run(&["scrub", "--full", "--no-heal"]).expect_code(1);
    let lines = list(vault_name);
    assert_eq!((&lines[0]["state"], &lines[0]["object"]), (&"missing".into(), &of_vault[0].as_str().into()));
    assert_eq!((&lines[1]["state"], &lines[1]["object"]), (&"damaged".into(), &of_vault[1].as_str().into()));
    assert!(lines[2..].iter().all(|line| line["state"] == "proven"), "{lines:?}");
    let local = list("local");
    let missing = (&"missing".into(), &name_of(&store.dir, &here[2]).into());
    assert_eq!((&local[0]["state"], &local[0]["object"]), missing);
    assert!(local[1]["state"] == "proven" && local.len() == here.len(), "{local:?}");
    let text = run(&["scrub", "--list"]).expect_code(0).out();
    for said in [format!("missing {}", of_vault[0]), format!("damaged {}", of_vault[1])] {
        let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed.contains(&said), "{said}: {text}");
    }
    run(&["scrub"]).expect_code(1);
    run(&["scrub"]).expect_code(0);
    assert!(
        list(vault_name)
            .iter()
            .chain(&list("local"))
            .all(|line| line["state"] != "damaged" && line["state"] != "missing")
    );
    run(&["scrub", "--list", "/nowhere"]).expect_code(2).expect_err(&["local", vault_name]);
    run(&["scrub", "--list", "--full"]).expect_code(2);
}
