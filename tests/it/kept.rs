//! A vault in a storage account that keeps what it has, by the program: what is said of it, points that are locked, and what comes back after somebody
//! with all rights deleted everything. The account is one of the tests (`StorageAccount`): a real one was not tried.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use holdfast_store::clock::{Clock, SystemClock};
use holdfast_store::fence::Revocation;
use holdfast_store::vault::testing::{Azurite, Features, StorageAccount};

use crate::testkit::{Machine, PASSPHRASE, Ran, noise};

const DATA: &str = "v-data";
const ALL: Features =
    Features { soft_delete_days: 14, versions: true, immutability: true, default_lock_days: 0 };

fn account(features: Features) -> (StorageAccount, String) {
    let account = StorageAccount::start(features, SystemClock.now().seconds).unwrap();
    let url = Azurite::address("v", account.port()).unwrap().to_string();
    (account, url)
}

fn online(machine: &Machine, args: &[&str]) -> Ran {
    Ran::of(&mut machine.online(args))
}

/// A machine with a source of which it took two points into the vault; their ids.
fn two_points(machine: &Machine) -> [String; 2] {
    let source = machine.path("source");
    std::fs::create_dir_all(&source).unwrap();
    [1, 2].map(|n| {
        std::fs::write(source.join("file"), noise(format!("file {n}"), 300_000)).unwrap();
        let ran = online(machine, &["backup", source.to_str().unwrap(), "--online", "--json"]).expect_code(0);
        let said = ran.out();
        let ids = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        ids.filter_map(|line| line["snapshot_id"].as_str().map(str::to_owned)).next_back().unwrap()
    })
}

fn names_below(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| match path.is_dir() {
        true => names_below(&path),
        false => vec![path.to_str().unwrap().to_owned()],
    };
    let mut names: Vec<_> = entries.flat_map(below).collect();
    names.sort();
    names
}

#[test]
fn a_vault_says_what_its_account_keeps_and_what_is_locked_there_goes_by_name_when_its_lock_ran_out() {
    let (account, url) = account(ALL);
    let machine = Machine::with_store();
    let added = online(&machine, &["vault", "add", &url, "--lock-days", "30"]).expect_code(0);
    assert!(
        added.out().contains("soft delete: 14 days; versions: yes; objects can be locked: yes"),
        "{}",
        added.out()
    );
    let [first, second] = two_points(&machine);
    let list = online(&machine, &["vault", "list", "--json"]).expect_code(0).json();
    assert_eq!(list[0]["lock_days"], 30, "{list}");
    assert_eq!(list[0]["keeps"]["removed_days"], 14, "{list}");
    let forgotten = online(&machine, &["forget", &first]).expect_code(3);
    assert!(forgotten.err().contains("stays: it is locked until"), "{}", forgotten.err());
    // It is deleted, to go then.
    let said = online(&machine, &["snapshots", "--json"]).expect_code(0).out();
    assert!(said.contains("deleted_until"), "{said}");
    assert!(account.names(DATA).iter().any(|name| name.contains(&first)));
    let pruned = online(&machine, &["prune", "--now", "--json"]).expect_code(0).out();
    assert!(pruned.contains("\"packs_locked\":0"), "{pruned}");
    // Nothing of this hurts who reads.
    online(&machine, &["check", "--read-data"]).expect_code(0);
    let recovering = Machine::recovering();
    let mut command = recovering.online(["recover", "--machine-key"]);
    Ran::of(command.arg(&url).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    assert!(online(&recovering, &["snapshots", "--json"]).expect_code(0).out().contains(&second));
    account.pass_days(31);
    online(&machine, &["forget", &first]).expect_code(0);
    // What is left of it are the words that it was removed.
    let left =
        account.names(DATA).into_iter().filter(|name| name.starts_with("rp/") && name.contains(&first));
    assert!(
        left.map(|name| account.blob(DATA, &name).unwrap().len() as u64).all(|len| len == Revocation::LEN)
    );
    let said = online(&machine, &["snapshots", "--json"]).expect_code(0).out();
    assert!(!said.contains(&first) && said.contains(&second), "{said}");
}

#[test]
fn a_point_that_one_vault_keeps_locked_stays_in_all_of_them() {
    let (_account, url) = account(ALL);
    let machine = Machine::with_store();
    let directory = machine.path("vault");
    online(&machine, &["vault", "add", directory.to_str().unwrap()]).expect_code(0);
    online(&machine, &["vault", "add", &url, "--lock-days", "30"]).expect_code(0);
    let [first, _] = two_points(&machine);
    let listed = || {
        names_below(&directory.join("rp"))
            .into_iter()
            .filter(|name| name.contains(&first))
            .collect::<Vec<_>>()
    };
    let before = listed();
    assert_eq!(before.len(), 1, "{before:?}");
    let forgotten = online(&machine, &["forget", &first]).expect_code(3);
    assert!(forgotten.err().contains("stays: it is locked until"), "{}", forgotten.err());
    assert_eq!(listed(), before);
}

#[test]
fn a_vault_that_somebody_emptied_comes_back_from_what_the_account_keeps() {
    let (account, url) = account(Features { immutability: false, ..ALL });
    let machine = Machine::with_store();
    online(&machine, &["vault", "add", &url]).expect_code(0);
    two_points(&machine);
    let emptied: Vec<String> = ["pack/", "idx/", "rp/"]
        .iter()
        .flat_map(|prefix| account.names(DATA).into_iter().filter(move |name| name.starts_with(prefix)))
        .collect();
    for name in &emptied {
        assert!(account.delete(DATA, name));
    }
    // A machine that has nothing but the words.
    let other = Machine::recovering();
    let mut command = other.online(["recover", "--machine-key"]);
    // Nothing here remembers that there was more: an empty vault is no error.
    Ran::of(command.arg(&url).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    let back = online(&other, &["vault", "undelete", &url, "--json"]).expect_code(0).json();
    assert_eq!(back["points"], 2, "{back}");
    assert_eq!(back["lost"], 0, "{back}");
    online(&other, &["check", "--read-data"]).expect_code(0);
    assert!(emptied.iter().all(|name| account.blob(DATA, name).is_some()));
    online(&other, &["vault", "undelete", "/nowhere"]).expect_code(1);
}

#[test]
fn a_vault_that_cannot_lock_is_added_without_and_who_keeps_nothing_is_told_what_to_switch_on() {
    let (_account, url) =
        account(Features { soft_delete_days: 0, versions: false, immutability: false, default_lock_days: 0 });
    let machine = Machine::with_store();
    let refused = online(&machine, &["vault", "add", &url, "--lock-days", "30"]).expect_code(1);
    assert!(refused.err().contains("no version-level immutability"), "{}", refused.err());
    assert!(refused.err().contains("--enable-delete-retention true"), "{}", refused.err());
    two_points(&machine);
    let directory = machine.path("vault");
    let refused =
        online(&machine, &["vault", "add", directory.to_str().unwrap(), "--lock-days", "1"]).expect_code(1);
    assert!(refused.err().contains("a vault of its kind cannot"), "{}", refused.err());
}

#[test]
fn fewer_days_of_locks_take_the_owners_word_where_deletions_are_soft() {
    let (_account, url) = account(ALL);
    let machine = Machine::with_store();
    let config = machine.path("holdfast.toml");
    std::fs::write(&config, "[soft-delete]\ndays = 14\n").unwrap();
    let lock = |days: &str, word: Option<&str>| {
        let mut command = machine.online(["vault", "add", &url, "--lock-days", days]);
        word.map(|word| command.env("HOLDFAST_PASSWORD", word));
        Ran::of(command.env("HOLDFAST_CONFIG", &config))
    };
    let days =
        || online(&machine, &["vault", "list", "--json"]).expect_code(0).json()[0]["lock_days"].clone();
    for longer in ["10", "30"] {
        lock(longer, None).expect_code(0);
    }
    for fewer in ["29", "0"] {
        let refused = lock(fewer, None).expect_code(12);
        refused.expect_err(&["`holdfast vault add --lock-days` takes", "HOLDFAST_PASSWORD_FILE"]);
        assert_eq!(days(), 30, "{fewer}");
    }
    lock("0", Some(PASSPHRASE)).expect_code(0);
    assert_eq!(days(), serde_json::Value::Null);
}
