//! What the program says when something is wrong: the exit code, what happened, and the way out.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use crate::testkit::{Machine, PASSPHRASE, Ran, as_nobody, can_be_nobody};

/// The key slots of a machine's store, by their kind: 1 passphrase, 2 recovery key, 3 machine key (`docs/format.md`, section 6).
fn slot_of_kind(machine: &Machine, kind: u8) -> PathBuf {
    let slots = machine.store().join("keys").read_dir().unwrap().map(|entry| entry.unwrap().path());
    slots.into_iter().find(|slot| std::fs::read(slot).unwrap()[64] == kind).unwrap()
}

fn change_byte(path: &PathBuf, at: usize, change: impl FnOnce(u8) -> u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] = change(bytes[at]);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A store whose machine key is gone.
fn without_key() -> Machine {
    let machine = Machine::with_store();
    machine.forget_keys();
    machine
}

#[test]
fn a_wrong_passphrase_ends_with_12_and_names_the_ways_to_give_another() {
    let machine = without_key();
    let mut command = machine.command(["snapshots"]);
    Ran::of(command.env("HOLDFAST_PASSWORD", "not the passphrase")).expect_code(12).expect_err(&[
        "wrong passphrase",
        "HOLDFAST_PASSWORD",
        "HOLDFAST_RECOVERY_KEY",
    ]);
    Ran::of(machine.command(["snapshots"]).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
}

#[test]
fn no_passphrase_and_no_terminal_end_with_12_and_say_what_to_set() {
    without_key().run(["snapshots"]).expect_code(12).expect_err(&[
        "no terminal",
        "HOLDFAST_PASSWORD_FILE",
        "HOLDFAST_PASSWORD_COMMAND",
    ]);
}

#[test]
fn wrong_words_end_with_12_and_right_ones_open() {
    let machine = without_key();
    let words = Machine::words();
    let mut swapped: Vec<&str> = words.split(' ').collect();
    swapped.swap(0, 1);
    let not_of_this_store = "abandon ".repeat(23) + "art";
    for wrong in [swapped.join(" "), not_of_this_store, "zebra".to_owned()] {
        let mut command = machine.command(["snapshots"]);
        let ran = Ran::of(command.env("HOLDFAST_RECOVERY_KEY", &wrong)).expect_code(12);
        assert!(ran.err().contains("recovery key"), "{wrong}: {}", ran.err());
    }
    Ran::of(machine.command(["snapshots"]).env("HOLDFAST_RECOVERY_KEY", words)).expect_code(0);
}

#[test]
fn a_missing_store_ends_with_10_and_names_three_ways_out() {
    let machine = Machine::new();
    for verb in ["snapshots", "check"] {
        Ran::of(machine.command([verb, "--store"]).arg(machine.path("nowhere")))
            .expect_code(10)
            .expect_err(&["nowhere", "holdfast init", "--store", "holdfast recover"]);
    }
    // A mount in the background ends alike, and leaves no mount.
    std::fs::create_dir(machine.path("mnt")).unwrap();
    let mut command = machine.command(["mount", "--background", "--store"]);
    Ran::of(command.arg(machine.path("nowhere")).arg(machine.path("mnt"))).expect_code(10);
}

#[test]
fn a_store_in_use_ends_with_11_and_names_the_process() {
    let machine = Machine::with_store();
    std::fs::write(machine.path("file"), "f").unwrap();
    let lock = std::fs::File::create(machine.store().join("lock")).unwrap();
    lock.lock().unwrap();
    std::io::Write::write_all(&mut &lock, b"4711\n").unwrap();
    machine
        .run(["backup", "file"])
        .expect_code(11)
        .expect_err(&["in use by another process (4711)", "wait for process 4711"]);
    // Whoever only reads need not wait.
    machine.run(["snapshots"]).expect_code(0);
    drop(lock);
    machine.run(["backup", "file"]).expect_code(0);
}

#[test]
fn a_damaged_passphrase_slot_is_named_and_the_words_still_open() {
    let machine = without_key();
    change_byte(&slot_of_kind(&machine, 1), 120, |byte| byte ^ 1);
    let mut command = machine.command(["snapshots"]);
    Ran::of(command.env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(1).expect_err(&[
        "keys/",
        "damaged",
        "the data is not",
        "HOLDFAST_RECOVERY_KEY",
        "holdfast key add",
    ]);
    Ran::of(machine.command(["snapshots"]).env("HOLDFAST_RECOVERY_KEY", Machine::words())).expect_code(0);
}

#[test]
fn a_machine_key_that_is_junk_is_a_warning_and_the_passphrase_opens() {
    let machine = Machine::with_store();
    let key = machine.key_file();
    std::fs::write(&key, "junk\n").unwrap();
    Ran::of(machine.command(["snapshots"]).env("HOLDFAST_PASSWORD", PASSPHRASE))
        .expect_code(0)
        .expect_err(&["machine's key", key.to_str().unwrap()]);
}

#[test]
fn an_unknown_format_version_asks_for_a_newer_program() {
    let machine = Machine::with_store();
    // The version stands at offset 9 of the header, the checksum of the header at 60 (`docs/format.md`, section 3).
    let config = machine.store().join("config");
    change_byte(&config, 9, |_| 99);
    let checksum = crc32c::crc32c(&std::fs::read(&config).unwrap()[..60]).to_le_bytes();
    (0..4).for_each(|n| change_byte(&config, 60 + n, |_| checksum[n]));
    machine.run(["snapshots"]).expect_code(1).expect_err(&["config", "newer"]);
}

#[test]
fn a_damaged_config_says_so() {
    let machine = Machine::with_store();
    change_byte(&machine.store().join("config"), 110, |byte| byte ^ 4);
    machine.run(["snapshots"]).expect_code(1).expect_err(&["config is damaged"]);
}

#[test]
fn a_file_where_the_store_should_be_is_named() {
    let machine = Machine::new();
    let file = machine.path("file");
    std::fs::write(&file, "f").unwrap();
    for verb in ["snapshots", "init"] {
        let mut command = machine.command([verb, "--store"]);
        let ran = Ran::of(command.arg(&file).env("HOLDFAST_PASSWORD", PASSPHRASE));
        assert!(matches!(ran.code(), 1 | 10), "{verb}: {} {}", ran.code(), ran.err());
        ran.expect_err(&[file.to_str().unwrap(), "a file stands where a directory should be"]);
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"f");
}

#[test]
fn a_second_init_in_the_same_place_changes_nothing() {
    let machine = Machine::with_store();
    let before = std::fs::read(machine.store().join("config")).unwrap();
    Ran::of(machine.command(["init"]).env("HOLDFAST_PASSWORD", PASSPHRASE))
        .expect_code(1)
        .expect_err(&["already exists", "choose another place"]);
    assert_eq!(std::fs::read(machine.store().join("config")).unwrap(), before);
    machine.run(["snapshots"]).expect_code(0);
}

#[test]
fn a_vault_directory_without_rights_is_named_with_a_way_out() {
    if !can_be_nobody("a_vault_directory_without_rights_is_named_with_a_way_out") {
        return;
    }
    let machine = Machine::with_store();
    machine.give_to_nobody();
    let above = machine.path("above");
    std::fs::create_dir(&above).unwrap();
    let vault = above.join("vault");
    let mut command = machine.command(["vault", "add"]);
    let ran = Ran::of(as_nobody(command.arg(&vault))).expect_code(1);
    let ran = ran.expect_err(&[vault.to_str().unwrap(), "denied"]);
    assert!(!ran.err().contains("AZURE"), "a directory has no such credentials: {}", ran.err());
    assert!(ran.err().contains("owner"), "no way out: {}", ran.err());
    let list = Ran::of(as_nobody(&mut machine.command(["vault", "list"]))).expect_code(0).out();
    assert!(list.contains("no vaults"), "{list}");
}

#[test]
fn a_vault_of_another_store_is_refused_and_stays_as_it_is() {
    let other = Machine::new();
    let vault = other.path("vault");
    let mut command = other.command(["init", "--no-machine-key", "--vault"]);
    let command = command.arg(&vault).arg("--store").arg(other.path("other"));
    Ran::of(command.env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    let config = std::fs::read(vault.join("config")).unwrap();
    let machine = Machine::with_store();
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(1).expect_err(&[
        vault.to_str().unwrap(),
        "does not belong to this store",
        "check the address",
    ]);
    assert_eq!(std::fs::read(vault.join("config")).unwrap(), config);
    assert!(machine.run(["vault", "list"]).expect_code(0).out().contains("no vaults"));
}

#[test]
fn junk_in_a_password_file_is_an_error_of_its_own() {
    let machine = without_key();
    let file = machine.path("password");
    let table: [(&[u8], i32, &str); 4] = [
        (b"", 1, "empty first line"),
        (b"\n\nsecond line\n", 1, "empty first line"),
        (b"\xff\xfe\n", 1, "UTF-8"),
        (&[b'x'; 70_000], 1, "no secret"),
    ];
    for (content, code, said) in table {
        std::fs::write(&file, content).unwrap();
        let mut command = machine.command(["snapshots"]);
        let ran = Ran::of(command.env("HOLDFAST_PASSWORD_FILE", &file)).expect_code(code);
        ran.expect_err(&[said, file.to_str().unwrap()]);
    }
    let mut command = machine.command(["snapshots"]);
    Ran::of(command.env("HOLDFAST_PASSWORD_FILE", machine.path("missing")))
        .expect_code(1)
        .expect_err(&["missing", "No such file"]);
    // What follows the first line is a note of whoever keeps it.
    std::fs::write(&file, format!("{PASSPHRASE}\r\nsince 2026\n")).unwrap();
    Ran::of(machine.command(["snapshots"]).env("HOLDFAST_PASSWORD_FILE", &file)).expect_code(0);
}

#[test]
fn recover_wants_a_vault_and_an_empty_place() {
    let machine = Machine::new();
    let empty = machine.path("empty-vault");
    std::fs::create_dir(&empty).unwrap();
    let recover = |url: &std::path::Path, store: &str| {
        let mut command = machine.command(["recover"]);
        command.arg(url).arg("--store").arg(machine.path(store)).env("HOLDFAST_PASSWORD", PASSPHRASE);
        Ran::of(&mut command)
    };
    recover(&empty, "new").expect_code(10).expect_err(&["no store", "empty-vault", "recovery sheet"]);
    assert!(!machine.path("new").exists());
    std::fs::create_dir_all(machine.path("full/x")).unwrap();
    recover(&empty, "full").expect_code(1).expect_err(&["not empty", "--store"]);
}
