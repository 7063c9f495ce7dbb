//! `key`: slots added, replaced, removed and proven, in the store and in its vault.

use serde_json::Value;

use super::{PASSPHRASE, Stored};
use crate::testkit::Ran;

const SECOND: &str = "another passphrase for tests";

fn slots(stored: &Stored) -> Vec<Value> {
    stored.json(&["key", "list"]).remove(0).as_array().unwrap().clone()
}

fn id_of(stored: &Stored, kind: &str) -> String {
    let slots = slots(stored);
    let of_kind: Vec<&Value> = slots.iter().filter(|slot| slot["kind"] == kind).collect();
    assert_eq!(of_kind.len(), 1, "{slots:#?}");
    of_kind[0]["id"].as_str().unwrap().to_owned()
}

fn in_vault(stored: &Stored) -> Vec<String> {
    let names = std::fs::read_dir(stored.path("vault/keys")).unwrap();
    let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn in_store(stored: &Stored) -> Vec<String> {
    let mut ids: Vec<String> =
        slots(stored).iter().map(|slot| slot["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// Runs with another secret than the machine's key: only `passphrase` counts.
fn with(stored: &Stored, passphrase: &str, args: &[&str]) -> Ran {
    let mut command = stored.command(args);
    Ran::of(command.env("HOLDFAST_PASSWORD", passphrase).env("HOLDFAST_NEW_PASSWORD", SECOND))
}

#[test]
fn keys_are_listed_proven_replaced_and_removed_in_all_places() {
    let stored = Stored::with_vault();
    listed_and_proven(&stored);
    replaced(&stored);
    words_made_anew(&stored);
    removed_but_for_the_last(&stored);
}

fn listed_and_proven(stored: &Stored) {
    let list = slots(stored);
    assert_eq!(list.len(), 3);
    let current: Vec<&Value> = list.iter().filter(|slot| slot["current"] == true).collect();
    assert_eq!((current.len(), &current[0]["kind"]), (1, &"machine".into()));
    assert!(list.iter().all(|slot| slot["damaged"] == false && slot["created"].is_string()), "{list:#?}");
    assert_eq!(in_vault(stored), in_store(stored));

    let proven = stored.json(&["key", "verify"]).remove(0);
    assert_eq!((&proven["kind"], &proven["label"]), (&"passphrase".into(), &"passphrase".into()));
    assert_eq!(proven["vaults"].as_array().unwrap().len(), 1);
    assert_eq!(proven["id"], id_of(stored, "passphrase").as_str());
    with(stored, "not the passphrase", &["key", "verify"]).expect_code(12);

    let sheet = std::fs::read_to_string(stored.path("sheet.txt")).unwrap();
    let rows = sheet.split("THE 24 WORDS").nth(1).unwrap().split("ON THE WORST DAY").next().unwrap();
    let words = rows.split_whitespace().filter(|word| word.parse::<u8>().is_err()).collect::<Vec<_>>();
    let verify = |words: &str| Ran::of(stored.command(["key", "verify"]).env("HOLDFAST_RECOVERY_KEY", words));
    let said = verify(&words.join(" ")).expect_code(0).out();
    assert!(said.contains("the recovery key opens the store") && said.contains("opens vault"), "{said}");
    let mut swapped = words.clone();
    swapped[3] = "qqqq";
    let refused = verify(&swapped.join(" ")).expect_code(12).err();
    assert!(refused.contains("word 4"), "{refused}");
}

fn replaced(stored: &Stored) {
    let old = id_of(stored, "passphrase");
    with(stored, "not the passphrase", &["key", "passwd"]).expect_code(12);
    // Without a new passphrase and without anybody to ask, nothing changes.
    stored.run(["key", "passwd"]).expect_code(12);
    assert_eq!(id_of(stored, "passphrase"), old);
    with(stored, PASSPHRASE, &["key", "passwd"]).expect_code(0);
    let new = id_of(stored, "passphrase");
    assert_ne!(new, old);
    assert_eq!(in_vault(stored), in_store(stored));
    with(stored, PASSPHRASE, &["key", "verify"]).expect_code(12);
    with(stored, SECOND, &["key", "verify"]).expect_code(0);
}

fn words_made_anew(stored: &Stored) {
    let old = id_of(stored, "recovery");
    let added = stored.json(&["key", "add", "--kind", "recovery"]).remove(0);
    let words = added["recovery_key"].as_str().unwrap();
    assert_eq!(words.split(' ').count(), 24);
    stored.run(["key", "remove", &old[..12]]).expect_code(0);
    assert_eq!(id_of(stored, "recovery"), added["id"].as_str().unwrap());
    assert_eq!(in_vault(stored), in_store(stored));
    Ran::of(stored.command(["key", "verify"]).env("HOLDFAST_RECOVERY_KEY", words)).expect_code(0);
}

fn removed_but_for_the_last(stored: &Stored) {
    let before = in_store(stored);
    let vault = stored.path("vault");
    let recovery = id_of(stored, "recovery");
    std::fs::rename(&vault, stored.path("away")).unwrap();
    stored.run(["key", "remove", &recovery]).expect_code(1);
    with(stored, SECOND, &["key", "add"]).expect_code(1);
    assert_eq!(in_store(stored), before);
    std::fs::rename(stored.path("away"), &vault).unwrap();

    stored.run(["key", "remove", "ffffffffffffffffffffffffffffffff"]).expect_code(1);
    stored.run(["key", "remove", &recovery]).expect_code(0);
    let last = id_of(stored, "passphrase");
    let refused = stored.run(["key", "remove", &last]).expect_code(1).err();
    assert!(refused.contains("last") && refused.contains("nothing was removed"), "{refused}");

    // A machine's key goes with its file, and can be made again.
    stored.run(["key", "add", "--kind", "machine"]).expect_code(1);
    let machine = id_of(stored, "machine");
    stored.run(["key", "remove", &machine]).expect_code(0);
    let ran = with(stored, SECOND, &["key", "list", "--json"]).expect_code(0);
    assert_eq!(ran.err(), "");
    with(stored, "not the passphrase", &["key", "list"]).expect_code(12);
    with(stored, SECOND, &["key", "add", "--kind", "machine", "--label", "laptop"]).expect_code(0);
    let list = slots(stored);
    assert!(list.iter().any(|slot| slot["current"] == true && slot["label"] == "laptop"), "{list:#?}");
    assert_eq!(in_vault(stored), in_store(stored));
}

#[test]
fn a_slot_under_the_name_of_another_costs_nobody_that_other_one() {
    let stored = Stored::with_vault();
    let [passphrase, recovery] = ["passphrase", "recovery"].map(|kind| id_of(&stored, kind));
    let at = |id: &str| stored.path("vault/keys").join(id);
    let whole = std::fs::read(at(&recovery)).unwrap();
    std::fs::copy(at(&passphrase), at(&recovery)).unwrap();
    let said = with(&stored, PASSPHRASE, &["key", "passwd"]).expect_code(0).err();
    assert!(said.contains(&recovery) && said.contains("still opens"), "{said}");
    assert_eq!(id_of(&stored, "recovery"), recovery, "only the passphrase was to go");
    assert!(at(&recovery).exists() && !at(&passphrase).exists());
    let words = super::sheet::words_in(&stored.path("sheet.txt"));
    Ran::of(stored.command(["key", "verify"]).env("HOLDFAST_RECOVERY_KEY", &words)).expect_code(12);
    std::fs::write(at(&recovery), whole).unwrap();
    Ran::of(stored.command(["key", "verify"]).env("HOLDFAST_RECOVERY_KEY", &words)).expect_code(0);
}

#[test]
fn a_new_passphrase_that_was_put_into_some_places_is_put_into_all_by_the_same_command_and_is_one_slot() {
    let stored = Stored::with_vault();
    let old = id_of(&stored, "passphrase");
    let before = std::fs::read(stored.path("vault/keys").join(&old)).unwrap();
    with(&stored, PASSPHRASE, &["key", "passwd"]).expect_code(0);
    let new = id_of(&stored, "passphrase");
    // As if it had been killed before the new slot was here, and before the old one went.
    std::fs::remove_file(stored.path("store/keys").join(&new)).unwrap();
    for place in ["store/keys", "vault/keys"] {
        std::fs::write(stored.path(place).join(&old), &before).unwrap();
    }
    with(&stored, PASSPHRASE, &["key", "passwd"]).expect_code(0);
    assert_eq!(id_of(&stored, "passphrase"), new);
    assert_eq!(in_vault(&stored), in_store(&stored));
    with(&stored, PASSPHRASE, &["key", "verify"]).expect_code(12);
    with(&stored, SECOND, &["key", "verify"]).expect_code(0);
}

#[test]
fn a_vault_where_people_have_no_slot_for_what_is_sealed_gets_theirs_with_the_next_push() {
    let stored = Stored::with_vault();
    stored.backup();
    let machine = id_of(&stored, "machine");
    // Only the machine's own is left, or one that was cut.
    for cut in [false, true] {
        for id in in_vault(&stored).into_iter().filter(|id| *id != machine) {
            let path = stored.path("vault/keys").join(id);
            let bytes = std::fs::read(&path).unwrap();
            if cut { std::fs::write(&path, &bytes[..100]) } else { std::fs::remove_file(&path) }.unwrap();
        }
        let said = stored.run(["vault", "push"]).expect_code(3).err();
        assert!(said.contains("no key slot with which people open"), "{said}");
        assert_eq!(in_vault(&stored), in_store(&stored));
        with(&stored, PASSPHRASE, &["key", "verify", "--vault", "all"]).expect_code(0);
        stored.run(["vault", "push"]).expect_code(0);
        stored.run(["check"]).expect_code(0);
    }
}
