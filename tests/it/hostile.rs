//! What nobody means to happen, seen from outside: runs that are killed, outputs that take nothing, directories that are not what
//! they should be. What was promised is there, what failed is told, and the same command can be given again.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use crate::testkit::{Machine, PASSPHRASE, Ran, can_mount, wait_for};

/// Nobody listens there.
const AWAY: &str = "azure+http://127.0.0.1:1/account1/backups";
/// Some key; nobody asks for it.
const KEY: (&str, &str) = ("AZURE_STORAGE_KEY", "bm90aGluZw==");

fn init(machine: &Machine, args: &[&str]) -> std::process::Command {
    let mut command = machine.command(["init"]);
    command.args(args).env("HOLDFAST_PASSWORD", PASSPHRASE).env(KEY.0, KEY.1);
    command
}

/// Leaves of a store what a run that was killed while it made one leaves.
fn unmake(store: &Path) {
    for entry in store.read_dir().unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if !["keys", "tmp", "pack", "idx", "rp", "ballast", "lock"].contains(&name.to_str().unwrap()) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn an_init_that_is_killed_while_it_waits_for_a_vault_has_written_the_sheet() {
    let machine = Machine::recovering();
    let sheet = machine.path("sheet.txt");
    let mut command = init(&machine, &["--vault", AWAY, "--sheet", "sheet.txt", "-q"]);
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the sheet", 60, || sheet.metadata().is_ok_and(|meta| meta.len() > 0));
    child.kill().unwrap();
    child.wait().unwrap();
    let page = std::fs::read_to_string(&sheet).unwrap();
    assert!(page.contains(AWAY), "{page}");
    machine.run(["key", "list"]).expect_code(0);
}

#[test]
fn a_store_whose_sheet_nobody_saw_is_told_with_the_way_to_another() {
    for json in [false, true] {
        let machine = Machine::recovering();
        let mut command = init(&machine, if json { &["--json"] } else { &[] });
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let mut err = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut err).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{err}");
        for words in ["was made", "nobody saw its recovery sheet", "key add --kind recovery"] {
            assert!(err.contains(words), "{words:?} is not in {err}");
        }
        machine.run(["key", "add", "--kind", "recovery"]).expect_code(0);
    }
}

#[test]
fn a_run_that_was_cut_off_before_the_store_was_one_can_be_done_again() {
    let machine = Machine::recovering();
    Ran::of(&mut init(&machine, &["-q"])).expect_code(0);
    Ran::of(&mut init(&machine, &["-q"])).expect_code(1).expect_err(&["a store in"]);
    unmake(&machine.store());
    machine.run(["snapshots"]).expect_code(10);
    Ran::of(&mut init(&machine, &["-q"])).expect_code(0);
    machine.run(["key", "list"]).expect_code(0);

    let vault = machine.path("vault");
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0);
    let stranger = Machine::recovering();
    let recover = || Ran::of(stranger.command(["recover"]).arg(&vault).env("HOLDFAST_PASSWORD", PASSPHRASE));
    recover().expect_code(0);
    unmake(&stranger.store());
    recover().expect_code(0);
    std::fs::write(stranger.store().join("notes"), "mine").unwrap();
    unmake_config(&stranger.store());
    recover().expect_code(1).expect_err(&["is not empty"]);
}

fn unmake_config(store: &Path) {
    std::fs::remove_file(store.join("config")).unwrap();
}

#[test]
fn a_vault_is_neither_within_its_store_nor_two_for_being_spelt_in_two_ways() {
    let machine = Machine::with_store();
    let add = |path: &Path| Ran::of(machine.command(["vault", "add"]).arg(path));
    for inside in ["store", "store/vault", "store/pack", "other/../store"] {
        std::fs::create_dir_all(machine.path("other")).unwrap();
        add(&machine.path(inside)).expect_code(1).expect_err(&["the store's own directory"]);
    }
    let (vault, link) = (machine.path("vault"), machine.path("link"));
    add(&vault).expect_code(0);
    std::os::unix::fs::symlink(&vault, &link).unwrap();
    for spelling in [link, machine.path("vault/"), machine.path("./vault"), machine.path("other/../vault")] {
        add(&spelling).expect_code(0);
    }
    let list = machine.run(["vault", "list", "--json"]).expect_code(0).json();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list[0]["address"], vault.to_str().unwrap());
    let new = Machine::recovering();
    let inside = new.store().join("vault");
    let ran = Ran::of(&mut init(&new, &["--vault", inside.to_str().unwrap()])).expect_code(1);
    ran.expect_err(&["the store's own directory"]);
    assert!(!new.store().exists());
}

#[test]
fn what_the_command_line_says_wrongly_ends_with_2_also_where_it_needs_a_look() {
    let machine = Machine::with_store();
    let table: [&[&str]; 7] = [
        &["backup", ".", "--exclude", "["],
        &["backup", ".", "--exclude", ""],
        &["vault", "add", ""],
        &["vault", "add", "file://relative"],
        &["vault", "add", "s3://bucket"],
        &["vault", "add", "azure://account"],
        &["key", "remove", ""],
    ];
    for args in table {
        machine.run(args).expect_code(2);
    }
}

#[test]
fn settings_of_another_shape_are_an_error_and_not_a_store_without_vaults() {
    let machine = Machine::with_store();
    std::fs::write(machine.store().join("settings.json"), "[]").unwrap();
    machine.run(["vault", "list"]).expect_code(1).expect_err(&["settings.json", "vault add"]);
}

#[test]
fn why_a_read_in_a_mount_failed_is_in_its_log() {
    if !can_mount("why_a_read_in_a_mount_failed_is_in_its_log") {
        return;
    }
    let machine = Machine::with_store();
    let source = machine.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "x".repeat(100_000)).unwrap();
    let id = machine.back_up(&source, &[])["snapshot_id"].as_str().unwrap().to_owned();
    let mount = machine.mount("recovery", &[]);
    assert!(mount.point(&id).join("file").exists());
    std::fs::rename(machine.store().join("pack"), machine.path("away")).unwrap();
    assert!(std::fs::read(mount.point(&id).join("file")).is_err());
    // A thread of its own writes it.
    let said = "a request was answered with an I/O error";
    wait_for("what the log says", 10, || machine.log().contains(said));
    let text = machine.log();
    assert!(!text.contains('\x1b'), "colours in a file: {text:?}");
    assert!(text.contains("pack/"), "the cause is not there: {text:?}");
}

#[test]
fn a_vault_without_key_slots_is_not_taken_for_a_wrong_passphrase() {
    let machine = Machine::with_store();
    let vault = machine.path("vault");
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0);
    std::fs::remove_dir_all(vault.join("keys")).unwrap();
    let stranger = Machine::recovering();
    let recover = || Ran::of(stranger.command(["recover"]).arg(&vault).env("HOLDFAST_PASSWORD", PASSPHRASE));
    recover().expect_code(1).expect_err(&["no key slot", "vault add"]);
    assert!(!stranger.store().exists());
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0);
    recover().expect_code(0);
}

#[test]
fn who_waits_for_a_vault_that_is_away_is_told_why() {
    use std::io::{BufRead, BufReader};
    let machine = Machine::recovering();
    let mut command = machine.command(["recover", AWAY]);
    let mut child = command.env(KEY.0, KEY.1).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("warning: vault ") && line.contains("; trying again"), "{line:?}");
}

#[test]
fn a_push_looks_whether_its_vault_can_still_be_recovered_from() {
    let machine = Machine::with_store();
    let (source, vault) = (machine.path("source"), machine.path("vault"));
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "content").unwrap();
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0);
    machine.back_up(&source, &["--online"]);
    let recover = || {
        let stranger = Machine::recovering();
        Ran::of(stranger.command(["recover"]).arg(&vault).env("HOLDFAST_PASSWORD", PASSPHRASE))
    };
    let state = || machine.run(["vault", "list"]).expect_code(0).out();
    let add = || Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0);
    recover().expect_code(0);

    // All slots: a push puts them back and says so.
    for verb in ["push", "online"] {
        std::fs::remove_dir_all(vault.join("keys")).unwrap();
        machine.run(["check"]).expect_code(1).expect_err(&["the key slot is missing"]);
        assert!(state().contains("key slot"), "{}", state());
        let mut command = match verb {
            "push" => machine.command(["vault", "push"]),
            _ => machine.command(["backup", "--online", "source"]),
        };
        Ran::of(&mut command).expect_code(3).expect_err(&["was put there"]);
        recover().expect_code(0);
        machine.run(["check"]).expect_code(0);
    }
    // One of them may be gone on purpose.
    let slot = vault.join("keys").read_dir().unwrap().next().unwrap().unwrap();
    std::fs::remove_file(slot.path()).unwrap();
    machine.run(["vault", "push"]).expect_code(0);
    assert!(!slot.path().exists());
    machine.run(["check"]).expect_code(1).expect_err(&["the key slot is missing"]);
    add();
    machine.run(["check"]).expect_code(0);

    // The config: it may be another directory than was meant, so a person is asked.
    for gone in ["missing", "empty"] {
        match gone {
            "missing" => std::fs::remove_file(vault.join("config")).unwrap(),
            _ => drop(File::create(vault.join("config")).unwrap()),
        }
        machine.run(["vault", "push"]).expect_code(1).expect_err(&["config"]);
        Ran::of(&mut machine.command(["backup", "--online", "source"]))
            .expect_code(1)
            .expect_err(&["config"]);
        machine.run(["check"]).expect_code(1).expect_err(&["config"]);
        assert!(!state().contains("reachable"), "{}", state());
        if gone == "missing" {
            add();
        }
    }
}

#[test]
fn nothing_is_put_into_the_vault_of_another_store() {
    let (machine, other) = (Machine::with_store(), Machine::recovering());
    Ran::of(&mut init(&other, &["-q"])).expect_code(0);
    let (ours, theirs) = (machine.path("vault"), machine.path("theirs"));
    Ran::of(machine.command(["vault", "add"]).arg(&ours)).expect_code(0);
    Ran::of(other.command(["vault", "add"]).arg(&theirs)).expect_code(0);
    std::fs::rename(&ours, machine.path("away")).unwrap();
    std::fs::rename(&theirs, &ours).unwrap();
    std::fs::create_dir(machine.path("source")).unwrap();
    for args in [&["backup", "--online", "source"][..], &["vault", "push"]] {
        machine.run(args).expect_code(1).expect_err(&["does not belong to this store"]);
    }
    for prefix in ["rp", "pack", "sess"] {
        assert!(!ours.join(prefix).exists(), "{prefix}");
    }
}
