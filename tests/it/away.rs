//! What goes on when something is away: a vault, the way to it, the right to write to the store's own disk, the person who
//! started it all and now wants it to stop.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_store::vault::testing::Azurite;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::testkit::{Machine, Mounted, PASSPHRASE, Ran, can_mount, is_root, noise, skip, wait_for};

/// A directory with one file of its own name.
fn source(machine: &Machine, name: &str) -> PathBuf {
    let dir = machine.path(name);
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), name).unwrap();
    dir
}

fn add_vault(machine: &Machine, name: &str) -> PathBuf {
    let dir = machine.path(name);
    machine.run(["vault".as_ref(), "add".as_ref(), dir.as_os_str()]).expect_code(0);
    dir
}

/// Makes a store's only vault one at `url`, whether it is there or not.
fn set_vault(machine: &Machine, url: &str) {
    let text = format!(r#"{{"vaults":[{{"url":"{url}"}}]}}"#);
    std::fs::write(machine.store().join("settings.json"), text).unwrap();
}

fn snapshots(machine: &Machine) -> Vec<Value> {
    machine.run(["snapshots", "--json"]).json().as_array().unwrap().clone()
}

#[test]
fn a_vault_that_is_away_keeps_nothing_from_being_saved_and_nothing_from_the_other_vault() {
    let machine = Machine::with_store();
    let (first, second) = (add_vault(&machine, "first"), add_vault(&machine, "second"));
    let (a, b) = (source(&machine, "a"), source(&machine, "b"));
    std::fs::rename(&first, machine.path("elsewhere")).unwrap();
    let ran = Ran::of(machine.command(["backup", "--online"]).arg(&a).arg(&b)).expect_code(1);
    assert_eq!(ran.out().matches(" saved\n").count(), 2, "{}", ran.out());
    assert!(!ran.out().contains("vaulted"), "{}", ran.out());
    ran.expect_err(&[first.to_str().unwrap(), "not found"]);
    let points = snapshots(&machine);
    assert_eq!(points.len(), 2);
    for point in points {
        assert_eq!(point["vaults"], serde_json::json!([second.to_str().unwrap()]));
    }
    std::fs::rename(machine.path("elsewhere"), &first).unwrap();
    let ran = Ran::of(machine.command(["backup", "--online"]).arg(&a)).expect_code(0);
    assert!(ran.out().ends_with(" vaulted\n"), "{}", ran.out());
}

#[test]
fn every_vault_that_fails_is_named() {
    let machine = Machine::with_store();
    let (first, second) = (add_vault(&machine, "first"), add_vault(&machine, "second"));
    let a = source(&machine, "a");
    // So that both were looked at before they go.
    machine.run(["snapshots"]).expect_code(0);
    for vault in [&first, &second] {
        std::fs::remove_dir_all(vault).unwrap();
    }
    let ran = Ran::of(machine.command(["backup", "--json", "--online"]).arg(&a)).expect_code(1);
    assert_eq!(ran.json()["message_type"], "summary", "the result is the last line");
    ran.expect_err(&["2 things failed", first.to_str().unwrap(), second.to_str().unwrap()]);
}

#[test]
fn a_vault_that_cannot_be_addressed_is_missed_by_whoever_needs_it_and_by_nobody_else() {
    let machine = Machine::with_store();
    set_vault(&machine, "azure+http://127.0.0.1:1/devstoreaccount1/x");
    let a = source(&machine, "a");
    let run = |args: &[&str]| Ran::of(machine.command(args).env("AZURE_STORAGE_KEY", "no base64!"));
    let ran = run(&["backup", "--online", a.to_str().unwrap()]).expect_code(1);
    assert!(ran.out().ends_with(" saved\n"), "{}", ran.out());
    ran.expect_err(&["devstoreaccount1/x", "not base64"]);
    run(&["backup", a.to_str().unwrap()]).expect_code(0).expect_err(&["warning", "not base64"]);
    run(&["vault", "push"]).expect_code(1).expect_err(&["devstoreaccount1/x", "not base64"]);
    let listed = run(&["vault", "list", "--json"]).json();
    assert_eq!(listed[0]["address"], "azure+http://127.0.0.1:1/devstoreaccount1/x");
    assert!(listed[0]["trouble"].as_str().unwrap().contains("not base64"), "{listed}");
    let key = Ran::of(
        machine
            .command(["key", "add", "--kind", "recovery"])
            .env("AZURE_STORAGE_KEY", "no base64!")
            .env("HOLDFAST_PASSWORD", PASSPHRASE),
    );
    key.expect_code(1).expect_err(&["devstoreaccount1/x"]);
    assert!(
        run(&["restore", "latest", "--target", machine.path("back").to_str().unwrap()]).out().len() < 1000
    );
    assert_eq!(std::fs::read(machine.path("back/file")).unwrap(), b"a");
}

#[test]
fn what_the_store_has_lost_is_told_and_shows_in_the_exit_code() {
    let machine = Machine::with_store();
    let a = source(&machine, "a");
    machine.back_up(&a, &[]);
    for pack in walk(&machine.store().join("pack")) {
        std::fs::remove_file(pack).unwrap();
    }
    let ran = Ran::of(machine.command(["backup"]).arg(&a)).expect_code(3);
    ran.expect_err(&["the pack is missing from the staging directory"]);
    Ran::of(machine.command(["backup"]).arg(&a)).expect_code(0);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Makes the store's only vault one that takes connections and never says a word.
fn hanging_vault(machine: &Machine) -> TcpListener {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = hanging.local_addr().unwrap().port();
    set_vault(machine, &format!("azure+http://127.0.0.1:{port}/devstoreaccount1/x"));
    hanging
}

/// Presses Ctrl-C; the exit code of what ends then.
fn interrupted(mut child: Child) -> Option<i32> {
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    wait_for("the end of a run that was asked to stop", 5, || child.try_wait().unwrap().is_some());
    child.wait().unwrap().code()
}

#[test]
fn asked_to_stop_nobody_waits_for_a_vault_that_does_not_answer() {
    let machine = Machine::with_store();
    let hanging = hanging_vault(&machine);
    let mut command = machine.command(["vault", "list"]);
    let command =
        command.env("AZURE_STORAGE_KEY", Azurite::KEY).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let _asked = hanging.accept().unwrap();
    // Meanwhile nobody else is kept from writing.
    let lock = File::options().write(true).create(true).truncate(false).open(machine.store().join("lock"));
    lock.unwrap().try_lock().unwrap();
    assert_eq!(interrupted(child), Some(130));
}

#[test]
fn asked_to_stop_before_it_is_there_a_mount_in_the_background_does_not_come_up() {
    let machine = Machine::with_store();
    let hanging = hanging_vault(&machine);
    std::fs::create_dir(machine.path("mnt")).unwrap();
    let mut command = machine.command(["mount", "--background"]);
    let command = command.arg(machine.path("mnt")).env("AZURE_STORAGE_KEY", Azurite::KEY);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // By the one that is to mount, which left the terminal of the one that is interrupted.
    let (mut asked, _) = hanging.accept().unwrap();
    assert_eq!(interrupted(child), Some(130));
    asked.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(std::io::copy(&mut asked, &mut std::io::sink()).is_ok(), "it holds its connection");
}

#[test]
fn a_recovery_that_was_cut_off_goes_on_and_a_store_of_another_vault_is_left_alone() {
    let machine = Machine::with_store();
    let (vault, a) = (add_vault(&machine, "vault"), source(&machine, "a"));
    machine.back_up(&a, &["--online"]);
    let stranger = Machine::recovering();
    let recover = |machine: &Machine, store: &Path| {
        let mut command = machine.command(["recover"]);
        Ran::of(command.arg(&vault).arg("--store").arg(store).env("HOLDFAST_PASSWORD", PASSPHRASE))
    };
    recover(&stranger, &stranger.store()).expect_code(0);
    // As if it had ended as soon as the store was there.
    std::fs::remove_file(stranger.store().join("settings.json")).unwrap();
    std::fs::remove_file(stranger.store().join("catalog.db")).unwrap();
    let ran = recover(&stranger, &stranger.store()).expect_code(0);
    assert!(ran.out().contains("1 recovery point"), "{}", ran.out());
    let settings = std::fs::read_to_string(stranger.store().join("settings.json")).unwrap();
    assert_eq!(settings.matches(vault.to_str().unwrap()).count(), 1, "{settings}");
    recover(&stranger, &stranger.store()).expect_code(0);
    assert_eq!(std::fs::read_to_string(stranger.store().join("settings.json")).unwrap(), settings);
    let other = Machine::new();
    let init =
        other.command(["init", "--store"]).arg(other.path("o")).env("HOLDFAST_PASSWORD", PASSPHRASE).output();
    assert!(init.unwrap().status.success());
    recover(&other, &other.path("o")).expect_code(1).expect_err(&["another store", "--store"]);
}

/// A directory shown at a second place, where nothing can be written; taken away when dropped.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn show(dir: &Path, at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let mount =
            |args: &[&str]| Command::new("mount").args(args).output().is_ok_and(|o| o.status.success());
        let place = at.to_str().unwrap();
        let shown = is_root() && mount(&["--bind", dir.to_str().unwrap(), place]);
        let shown = shown.then_some(Self(at.clone()))?;
        mount(&["-o", "remount,ro,bind", place]).then_some(shown)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_store_on_a_disk_that_went_read_only_is_listed_checked_and_restored_and_refuses_to_be_written() {
    let machine = Machine::with_store();
    let (_, a) = (add_vault(&machine, "vault"), source(&machine, "a"));
    machine.back_up(&a, &["--online"]);
    machine.back_up(&a, &["--tag", "local"]);
    let Some(store) = ReadOnly::show(&machine.store(), machine.path("read-only")) else {
        return skip("a store on a disk that went read-only", "it needs root and the right to mount");
    };
    let run = |args: &[&str]| Ran::of(machine.command(args).env("HOLDFAST_STORE", &store.0));
    let points = run(&["snapshots", "--json"]).expect_code(0).json();
    assert_eq!(points.as_array().unwrap().len(), 2);
    assert_eq!((&points[0]["local"], points[0]["vaults"].as_array().unwrap().len()), (&Value::Bool(true), 1));
    assert!(run(&["ls", "latest"]).expect_code(0).out().contains("file"));
    run(&["find", "file"]).expect_code(0);
    run(&["check", "--read-data"]).expect_code(0);
    run(&["stats"]).expect_code(0);
    assert_eq!(run(&["dump", "latest:file"]).expect_code(0).out(), "a");
    run(&["restore", "latest", "--target", machine.path("back").to_str().unwrap()]).expect_code(0);
    assert_eq!(std::fs::read(machine.path("back/file")).unwrap(), b"a");
    for refused in [
        &["backup", a.to_str().unwrap()][..],
        &["prune"],
        &["vault", "push"],
        &["forget", "--keep-last", "1"],
    ] {
        run(refused).expect_code(1).expect_err(&["read-only", "hint: "]);
    }
    if can_mount("a mount of a store on a disk that went read-only") {
        let place = machine.path("recovery");
        std::fs::create_dir(&place).unwrap();
        run(&["mount", "--background", place.to_str().unwrap()]).expect_code(0);
        let mount = Mounted::at(&machine, place);
        let id = points[1]["id"].as_str().unwrap();
        assert_eq!(std::fs::read(mount.point(id).join("file")).unwrap(), b"a");
    }
}

/// A machine with a store, brought back from its vault, that alone has 1 MiB of a point of `a`.
fn with_a_point_in_a_vault() -> Machine {
    let machine = Machine::with_store();
    let (vault, a) = (add_vault(&machine, "vault"), source(&machine, "a"));
    std::fs::write(a.join("much"), noise("much", 1 << 20)).unwrap();
    machine.back_up(&a, &["--online"]);
    without_cache(&machine, &["recover", vault.to_str().unwrap()]).expect_code(0);
    machine
}

/// Runs a verb on that store, with a file where the directory of the cache should be.
fn without_cache(machine: &Machine, args: &[&str]) -> Ran {
    let mut command = machine.command(args);
    command.env("HOLDFAST_STORE", machine.path("there")).env("HOLDFAST_PASSWORD", PASSPHRASE);
    Ran::of(command.env("HOLDFAST_CACHE_DIR", machine.path("a/file")))
}

#[test]
fn where_there_can_be_no_cache_a_fetch_says_that_nothing_is_kept() {
    let machine = with_a_point_in_a_vault();
    for size in [&[][..], &["--cache-size", "1G"]] {
        let ran = without_cache(&machine, &[&["fetch", "latest"], size].concat()).expect_code(1);
        let ran = ran.expect_err(&["the cache does not keep what is fetched"]);
        assert!(!ran.err().contains("--cache-size"), "{}", ran.err());
    }
}

#[test]
fn a_mount_in_the_background_goes_without_a_log_that_cannot_be_opened() {
    if !can_mount("a_mount_in_the_background_goes_without_a_log_that_cannot_be_opened") {
        return;
    }
    let machine = with_a_point_in_a_vault();
    let path = machine.path("recovery");
    std::fs::create_dir(&path).unwrap();
    let ran = without_cache(&machine, &["mount", "--background", path.to_str().unwrap()]).expect_code(0);
    ran.expect_err(&["cannot open the log", "the mount goes without it"]);
    let mount = Mounted::at(&machine, path);
    let points = without_cache(&machine, &["snapshots", "--json"]).json();
    let much = mount.point(points[0]["id"].as_str().unwrap()).join("much");
    assert!(std::fs::read(much).unwrap() == noise("much", 1 << 20));
}
