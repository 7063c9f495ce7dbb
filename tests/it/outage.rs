//! One mount, one vault that gets into every kind of trouble, and readers who never notice or are told in time: what is here reads
//! on, what is not fails within the bound, and reads again when the vault is back.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use holdfast_store::vault::testing::{HttpFault, Verb};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cloud::{Cloud, Way};
use crate::testkit::{
    Machine, Mounted, PASSPHRASE, Ran, can_mount, drop_pages, mounts, noise, stands_in, wait_for,
};

/// Longest time to an answer on these mounts.
const BOUND: u64 = 6;
/// Files of a point, so that each trouble has some that nobody has read.
const FILES: usize = 96;
const LEN: usize = 300_000;

/// Two tiers: a point that only the vault has, and one that only this machine has.
struct Tiers {
    machine: Machine,
    far: String,
    near: String,
}

fn back_up(machine: &Machine, name: &str, options: &[&str]) -> String {
    let dir = machine.path(name);
    std::fs::create_dir_all(&dir).unwrap();
    for n in 0..FILES {
        std::fs::write(dir.join(format!("{n:02}")), noise(format!("{name} {n}"), LEN)).unwrap();
    }
    let mut command = machine.online(["backup", "--json"]);
    let ran = Ran::of(command.args(options).arg(&dir)).expect_code(0);
    ran.json()["snapshot_id"].as_str().unwrap().to_owned()
}

/// Another machine, whose store knows what the vault has and has none of it.
fn recovered(vault: &str) -> Machine {
    let machine = Machine::recovering();
    let mut command = machine.online(["recover", "--machine-key", vault]);
    Ran::of(command.env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    machine
}

impl Tiers {
    fn make(vault: &str) -> Self {
        let first = Machine::with_store();
        Ran::of(&mut first.online(["vault", "add", vault])).expect_code(0);
        let far = back_up(&first, "far", &["--online"]);
        let machine = recovered(vault);
        let near = back_up(&machine, "near", &[]);
        Self { machine, far, near }
    }

    fn mount(&self, bound: u64) -> Mounted<'_> {
        // So small a cache that nobody reads far ahead, into what a later trouble is to find unread.
        let options = ["--read-timeout", &bound.to_string(), "--cache-size", "4M"];
        self.machine.mount_online("recovery", &options)
    }
}

/// A file of a point, past what the kernel keeps of it.
fn read(point: &Path, name: &str, n: usize) -> std::io::Result<()> {
    let path = point.join(format!("{n:02}"));
    let file = std::fs::File::open(&path)?;
    drop_pages(&file)?;
    let bytes = std::fs::read(&path)?;
    assert!(bytes == noise(format!("{name} {n}"), LEN), "other bytes in {name} {n}");
    Ok(())
}

fn is_eio(result: std::io::Result<()>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(Errno::EIO as i32))
}

/// What the log says of a failed read since it had that length. A thread of its own writes it, shortly after the read failed.
fn logged_since(tiers: &Tiers, len: usize) -> String {
    let log = || tiers.machine.log().split_off(len);
    wait_for("what the log says", 10, || log().contains("answered with an I/O error"));
    log()
}

/// What one trouble must not cost. Files `n` to `n + 2` of the far point are read by nobody else.
fn suffer(tiers: &Tiers, mount: &Mounted<'_>, n: usize, begin: &dyn Fn(), end: &dyn Fn()) {
    let (far, near) = (mount.point(&tiers.far), mount.point(&tiers.near));
    let logged = tiers.machine.log().len();
    begin();
    let asked = Instant::now();
    let waiting = {
        let far = far.clone();
        std::thread::spawn(move || (is_eio(read(&far, "far", n)), asked.elapsed()))
    };
    for round in 0..5 {
        read(&near, "near", round).unwrap();
        // What was fetched before is here.
        read(&far, "far", 0).unwrap();
        assert!(far.join("none").metadata().is_err() && near.join("05").metadata().is_ok());
    }
    assert!(!waiting.is_finished(), "what is here must not wait for what is not");
    let (failed, took) = waiting.join().unwrap();
    assert!(failed, "an error, and that of a read that failed");
    assert!(took < Duration::from_secs(BOUND * 2), "the kernel's repetitions must not add up: {took:?}");
    let log = logged_since(tiers, logged);
    assert_eq!(log.matches("answered with an I/O error").count(), 1, "{log}");
    assert!(log.contains("devstoreaccount1"), "which vault it was is not in {log}");
    end();
    wait_for("the same file, once the vault is back", 10, || read(&far, "far", n).is_ok());
    read(&far, "far", n + 1).unwrap();
}

#[test]
fn whatever_a_vault_does_readers_are_told_in_time_and_what_is_here_reads_on() {
    let test = "whatever_a_vault_does_readers_are_told_in_time_and_what_is_here_reads_on";
    let Some(cloud) = Cloud::start("whatever").filter(|_| can_mount(test)) else { return };
    let tiers = Tiers::make(&cloud.url());
    let mount = tiers.mount(BOUND);
    read(&mount.point(&tiers.far), "far", 0).unwrap();
    // Slow, and no trouble.
    cloud.gate.set(Way::Slow(Duration::from_millis(50)));
    read(&mount.point(&tiers.far), "far", 8).unwrap();
    cloud.gate.set(Way::Open);
    let open = || cloud.gate.set(Way::Open);
    suffer(&tiers, &mount, 24, &|| cloud.gate.set(Way::Silent), &open);
    suffer(&tiers, &mount, 48, &|| cloud.gate.set(Way::Shut), &open);
    let refuse = || cloud.proxy.spoil(Verb::Get, 40, HttpFault::Refuse(503, "ServerBusy", 0));
    suffer(&tiers, &mount, 72, &refuse, &|| cloud.proxy.forgive());
    mount.umount();
}

#[test]
fn a_directory_vault_that_is_not_mounted_is_missed_once_and_found_again() {
    if !can_mount("a_directory_vault_that_is_not_mounted_is_missed_once_and_found_again") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (vault, away) = (place.path().join("vault"), place.path().join("away"));
    let tiers = Tiers::make(vault.to_str().unwrap());
    let mount = tiers.mount(BOUND);
    let (far, near) = (mount.point(&tiers.far), mount.point(&tiers.near));
    read(&far, "far", 0).unwrap();
    for mountpoint_stays in [false, true] {
        let n = if mountpoint_stays { 72 } else { 36 };
        std::fs::rename(&vault, &away).unwrap();
        if mountpoint_stays {
            std::fs::create_dir(&vault).unwrap();
        }
        let logged = tiers.machine.log().len();
        assert!(is_eio(read(&far, "far", n)) && is_eio(read(&far, "far", n)));
        read(&near, "near", n).unwrap();
        read(&far, "far", 0).unwrap();
        let log = logged_since(&tiers, logged);
        assert_eq!(log.matches("answered with an I/O error").count(), 1, "{log}");
        assert!(log.contains("pack/") || log.contains("vault"), "{log}");
        let _ = std::fs::remove_dir(&vault);
        std::fs::rename(&away, &vault).unwrap();
        wait_for("the same file, once the vault is back", 5, || read(&far, "far", n).is_ok());
    }
    mount.umount();
}

fn quietly(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Who runs tests in the background of a shell has them inherit that Ctrl-C is ignored.
const HEARS_CTRL_C: &str = "--default-signal=INT";

fn cat(path: &Path) -> Child {
    quietly(Command::new("env").args([HEARS_CTRL_C, "cat"]).arg(path))
}

/// Reads without the kernel's read-ahead.
fn direct(path: &Path) -> Child {
    let script = "exec dd of=/dev/null iflag=direct < \"$1\"";
    quietly(Command::new("env").args([HEARS_CTRL_C, "sh", "-c", script, "sh"]).arg(path))
}

/// How a reader ended that is to end at once: the mount looks every half second whether somebody is to.
#[track_caller]
fn end_of(reader: &mut Child) -> ExitStatus {
    wait_for("the end of a reader", 3, || reader.try_wait().unwrap().is_some());
    reader.wait().unwrap()
}

/// Presses Ctrl-C while a run waits for the vault; its exit code, and what it said of trouble.
fn interrupted(cloud: &Cloud, command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a run to ask", 10, || cloud.gate.has(child.id()));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    wait_for("the end of a run", 5, || child.try_wait().unwrap().is_some());
    let ended = child.wait_with_output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[test]
fn nobody_is_held_by_a_vault_that_hangs() {
    let Some(cloud) = Cloud::start("held").filter(|_| can_mount("nobody_is_held_by_a_vault_that_hangs"))
    else {
        return;
    };
    let tiers = Tiers::make(&cloud.url());
    let mount = tiers.mount(300);
    let far = mount.point(&tiers.far);
    assert!(far.join("00").metadata().is_ok());
    cloud.gate.set(Way::Silent);
    // A reader, by Ctrl-C and by force, with the kernel's read-ahead and without.
    let file = |n: usize| far.join(format!("{n:02}"));
    for (n, signal) in
        [(9, Signal::SIGINT), (10, Signal::SIGKILL), (11, Signal::SIGINT), (12, Signal::SIGTERM)]
    {
        let mut reader = if n == 11 { direct(&file(n)) } else { cat(&file(n)) };
        wait_for("a reader in the kernel", 10, || stands_in(reader.id(), &file(n)));
        kill(Pid::from_raw(reader.id().cast_signed()), signal).unwrap();
        assert_eq!(end_of(&mut reader).signal(), Some(signal as i32));
    }
    // Somebody who brings files beforehand.
    let mut fetch = tiers.machine.online(["fetch", &tiers.far, "--cache-size", "1G"]);
    assert_eq!(interrupted(&cloud, &mut fetch).0, Some(130));
    // And the mount itself, in the midst of it, with a program that stands in it.
    let mut readers: Vec<Child> = (13..16).map(|n| cat(&file(n))).collect();
    let mut inside = Command::new("sleep").arg("600").current_dir(&far).spawn().unwrap();
    let path = mount.path().to_path_buf();
    let pid = mount.processes()[0];
    wait_for("the readers", 10, || (13..16).zip(&readers).all(|(n, child)| stands_in(child.id(), &file(n))));
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    mount.wait_for_the_end(10);
    assert!(!mounts().contains(&path));
    for reader in &mut readers {
        assert_eq!(end_of(reader).code(), Some(1), "`cat` is told of an error");
    }
    inside.kill().unwrap();
    inside.wait().unwrap();
}

#[test]
fn asked_to_stop_at_the_last_point_history_does_not_end_as_if_that_could_not_be_read() {
    let Some(cloud) = Cloud::start("stopped") else { return };
    let first = Machine::with_store();
    Ran::of(&mut first.online(["vault", "add", &cloud.url()])).expect_code(0);
    let [early, late] = [(); 2].map(|()| back_up(&first, "far", &["--online"]));
    let machine = recovered(&cloud.url());
    // The directory of the first is in the cache from then on, that of the second in the vault alone.
    Ran::of(&mut machine.online(["ls", &early])).expect_code(0);
    cloud.gate.set(Way::Silent);
    let mut history = machine.online(["history", &format!("{late}:00")]);
    let (code, said) = interrupted(&cloud, &mut history);
    assert!(code == Some(130) && !said.contains("cannot look"), "{code:?}: {said}");
}

#[test]
fn a_mount_that_is_killed_amid_reads_lets_its_readers_go_and_gives_way() {
    let test = "a_mount_that_is_killed_amid_reads_lets_its_readers_go_and_gives_way";
    let Some(cloud) = Cloud::start("killed").filter(|_| can_mount(test)) else { return };
    let tiers = Tiers::make(&cloud.url());
    let mount = tiers.mount(300);
    let (far, near) = (mount.point(&tiers.far), mount.point(&tiers.near));
    assert!(far.join("00").metadata().is_ok());
    let file = |n: usize| far.join(format!("{n:02}"));
    cloud.gate.set(Way::Silent);
    let mut waiting: Vec<Child> = (9..12).map(|n| cat(&file(n))).collect();
    let path: PathBuf = near.clone();
    let reading =
        std::thread::spawn(move || (0..).find_map(|n| read(&path, "near", n % FILES).err()).unwrap());
    wait_for("the readers", 10, || (9..12).zip(&waiting).all(|(n, child)| stands_in(child.id(), &file(n))));
    let pid = mount.processes()[0];
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    for reader in &mut waiting {
        assert_eq!(end_of(reader).code(), Some(1), "`cat` is told of an error");
    }
    wait_for("the end of the reader of what is here", 5, || reading.is_finished());
    let said = reading.join().unwrap().raw_os_error().map(Errno::from_raw);
    let expected = [Errno::ENOTCONN, Errno::ECONNABORTED, Errno::EIO];
    assert!(said.is_some_and(|errno| expected.contains(&errno)), "{said:?}");
    // Not `stat`, which the kernel may still answer for the dead from what it keeps.
    assert_eq!(mount.path().read_dir().unwrap_err().raw_os_error(), Some(Errno::ENOTCONN as i32));
    mount.wait_for_the_end(5);
    cloud.gate.set(Way::Open);
    let again = tiers.mount(BOUND);
    read(&again.point(&tiers.near), "near", 3).unwrap();
    read(&again.point(&tiers.far), "far", 9).unwrap();
    assert_eq!(mounts().iter().filter(|mounted| *mounted == again.path()).count(), 1);
    again.umount();
}

/// A machine that knows a point which only the vault `silent` has, and one which only the vault `well` has; and both.
fn of_two_vaults(silent: &str, well: &str) -> (Machine, String, String) {
    let first = Machine::with_store();
    Ran::of(&mut first.online(["vault", "add", well])).expect_code(0);
    let near = back_up(&first, "near", &["--online"]);
    Ran::of(&mut first.online(["vault", "remove", well])).expect_code(0);
    Ran::of(&mut first.online(["vault", "add", silent])).expect_code(0);
    let far = back_up(&first, "far", &["--online"]);
    let machine = Machine::recovering();
    let mut command = machine.online(["recover", "--machine-key", silent]);
    Ran::of(command.env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    Ran::of(&mut machine.online(["vault", "add", well])).expect_code(0);
    (machine, far, near)
}

/// More than there are threads for one vault, and requests that may be on their way from it.
const MANY: usize = 40;

#[test]
fn a_vault_that_hangs_holds_up_nobody_who_reads_from_another() {
    let test = "a_vault_that_hangs_holds_up_nobody_who_reads_from_another";
    let Some(cloud) = Cloud::start("two").filter(|_| can_mount(test)) else { return };
    let place = tempfile::tempdir().unwrap();
    let (machine, far, near) = of_two_vaults(&cloud.url(), place.path().join("well").to_str().unwrap());
    let mount = machine.mount_online("recovery", &["--read-timeout", "300"]);
    let (far, near) = (mount.point(&far), mount.point(&near));
    assert!(far.join("00").metadata().is_ok());
    cloud.gate.set(Way::Silent);
    let file = |n: usize| far.join(format!("{n:02}"));
    let mut readers: Vec<Child> = (0..MANY).map(|n| cat(&file(n))).collect();
    wait_for("the readers", 20, || (0..MANY).zip(&readers).all(|(n, child)| stands_in(child.id(), &file(n))));
    let begin = Instant::now();
    assert_eq!(near.read_dir().unwrap().count(), FILES);
    (0..FILES).for_each(|n| read(&near, "near", n).unwrap());
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(BOUND), "{took:?}");
    for reader in &mut readers {
        assert!(reader.try_wait().unwrap().is_none(), "they waited all the time");
        reader.kill().unwrap();
    }
    for reader in &mut readers {
        end_of(reader);
    }
    mount.umount();
}
