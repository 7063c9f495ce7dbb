//! Answers that do not come, or are errors, and readers who will not wait for them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_fs::recovery::Reach;
use holdfast_fs::testing::{Behaviour, MemoryRecovery, Part, point};
use holdfast_fs::{Mount, MountOptions, Unmounted};
use holdfast_store::clock::{Clock, SystemClock};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{NOON, TIMEOUT, bed, can_mount, clock, eventually, is_mounted, options};

#[test]
fn a_vault_that_hangs_costs_an_error_in_time_and_holds_up_nothing_else() {
    let Some(mut bed) = bed(|r| vec![r.file("slow", &[Part::Data(vec![1; 300_000])]), r.file("f", &[])])
    else {
        return;
    };
    bed.recovery.contents(Behaviour::Hanging);
    let (slow, begin) = (bed.at("slow"), SystemClock.monotonic());
    let reader = std::thread::spawn(move || (fs::read(slow).unwrap_err(), SystemClock.monotonic() - begin));
    eventually("the reader", || bed.recovery.reads() > 0);
    for _ in 0..20 {
        assert!(fs::metadata(bed.at("f")).is_ok() && fs::read_dir(bed.at("")).unwrap().count() == 2);
        assert!(fs::metadata(bed.at("none")).is_err());
    }
    assert!(!reader.is_finished(), "lookups must not have waited for the reader");
    let (error, took) = reader.join().unwrap();
    assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));
    assert!(took < TIMEOUT * 7 / 4, "the kernel's repetitions must not add up: {took:?}");
    bed.recovery.contents(Behaviour::Cold(Reach::VAULT));
    eventually("the vault's return", || fs::read(bed.at("slow")).is_ok_and(|bytes| bytes.len() == 300_000));
    assert_eq!(bed.unmount(), Unmounted::Cleanly);
}

#[test]
fn errors_of_the_store_are_io_errors_and_a_panic_is_one_too() {
    let Some(bed) = bed(|r| vec![r.file("f", &[Part::Data(vec![1; 10])]), r.directory("d", vec![])]) else {
        return;
    };
    for behaviour in [Behaviour::Failing, Behaviour::Panicking] {
        bed.recovery.directories(behaviour);
        let error = fs::read_dir(bed.at("d")).and_then(|dir| dir.collect::<Result<Vec<_>, _>>()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));
        bed.recovery.directories(Behaviour::Warm);
        bed.recovery.contents(behaviour);
        assert_eq!(fs::read(bed.at("f")).unwrap_err().raw_os_error(), Some(Errno::EIO as i32));
        bed.recovery.contents(Behaviour::Warm);
    }
    eventually("an end of errors", || fs::read(bed.at("f")).is_ok_and(|bytes| bytes == [1; 10]));
}

#[test]
fn a_reader_of_a_hanging_file_is_let_go_by_unmounting() {
    let Some(mut bed) = bed(|r| vec![r.file("slow", &[Part::Data(vec![1; 10_000])])]) else { return };
    bed.recovery.contents(Behaviour::Hanging);
    let file = File::open(bed.at("slow")).unwrap();
    let reader = std::thread::spawn(move || file.read_at(&mut [0; 10], 0).unwrap_err());
    eventually("the reader", || bed.recovery.reads() > 0);
    let how = bed.unmount();
    assert!(matches!(how, Unmounted::Cleanly | Unmounted::Detached));
    assert_eq!(reader.join().unwrap().raw_os_error(), Some(Errno::EIO as i32));
    assert!(!is_mounted(bed.dir.path()));
    bed.recovery.contents(Behaviour::Warm);
}

#[test]
fn a_killed_reader_is_gone_in_time() {
    let Some(bed) = bed(|r| vec![r.file("slow", &[Part::Data(vec![1; 10_000])])]) else { return };
    bed.recovery.contents(Behaviour::Hanging);
    let mut child = Command::new("cat").arg(bed.at("slow")).stdout(Stdio::null()).spawn().unwrap();
    eventually("the reader", || bed.recovery.reads() > 0);
    child.kill().unwrap();
    eventually("its end", || child.try_wait().unwrap().is_some());
    bed.recovery.contents(Behaviour::Warm);
}

/// Whoever waits in the kernel for an answer of ours, in whichever way, ends when it is told to, and not when the answer is due.
#[test]
fn a_killed_process_does_not_wait_for_an_answer() {
    if !can_mount() {
        return;
    }
    let recovery = MemoryRecovery::new();
    // What was answered once the kernel keeps: so each has a directory and a file of its own.
    let own = |n: u8| {
        let file = recovery.file("slow", &[Part::Data(vec![n; 300_000])]);
        recovery.directory(&n.to_string(), vec![file, recovery.directory("d", vec![recovery.file("f", &[])])])
    };
    let root = recovery.directory("root", (0..12).map(own).collect());
    recovery.add(point("h", "g", "s", NOON, 1), root);
    let dir = tempfile::tempdir().unwrap();
    let minutes = MountOptions { read_timeout: Duration::from_secs(600), ..options(dir.path()) };
    let mount = Mount::spawn(recovery.clone(), &minutes, clock()).unwrap();
    let at = dir.path().join("by-group/g/s/latest");
    let ways = [
        "exec cat slow",
        "exec cp slow /dev/null",
        "exec dd if=slow of=/dev/null iflag=direct bs=64k",
        "exec ls d",
        "exec stat none",
        "while true; do cat slow; done",
    ];
    let ends = ways.iter().flat_map(|way| [(way, Signal::SIGINT), (way, Signal::SIGKILL)]);
    for (n, (script, signal)) in ends.enumerate() {
        let at = at.join(n.to_string());
        fs::metadata(at.join("slow")).unwrap();
        fs::metadata(at.join("d")).unwrap();
        recovery.contents(Behaviour::Hanging);
        recovery.directories(Behaviour::Hanging);
        let asked = recovery.asks();
        // Who runs tests in the background of a shell has them inherit that Ctrl-C is ignored.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", "sh", "-c", script]).current_dir(&at).process_group(0);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the question", || recovery.asks() > asked);
        let group = Pid::from_raw(child.id().cast_signed());
        killpg(group, signal).unwrap();
        eventually(&format!("the end of {script:?} by {signal}"), || child.try_wait().unwrap().is_some());
        eventually("the end of all that it began", || killpg(group, None).is_err());
        recovery.contents(Behaviour::Cold(Reach::VAULT));
        recovery.directories(Behaviour::Cold(Reach::VAULT));
    }
    assert_eq!(mount.unmount().unwrap(), Unmounted::Cleanly);
}

#[test]
fn a_listing_does_not_wait_behind_as_many_killed_readers_as_there_are_threads() {
    if !can_mount() {
        return;
    }
    let recovery = MemoryRecovery::new();
    let files = (0..16).map(|n| recovery.file(&format!("slow{n}"), &[Part::Data(vec![n; 10_000])]));
    let mut entries: Vec<_> = files.collect();
    entries.push(recovery.directory("d", vec![recovery.file("f", &[])]));
    recovery.add(point("h", "g", "s", NOON, 1), recovery.directory("root", entries));
    let dir = tempfile::tempdir().unwrap();
    let minutes = MountOptions { read_timeout: Duration::from_secs(600), ..options(dir.path()) };
    assert_eq!(minutes.vault_threads, 16);
    let mount = Mount::spawn(recovery.clone(), &minutes, clock()).unwrap();
    let at = dir.path().join("by-group/g/s/latest");
    recovery.contents(Behaviour::Away);
    let read =
        |n| Command::new("cat").arg(at.join(format!("slow{n}"))).stdout(Stdio::null()).spawn().unwrap();
    let mut readers: Vec<_> = (0..16).map(read).collect();
    // The other quarter of the threads takes pages of directories alone.
    eventually("as many readers as there are threads for them", || recovery.reads() >= 12);
    readers.iter_mut().for_each(|reader| reader.kill().unwrap());
    recovery.directories(Behaviour::Cold(Reach::VAULT));
    let listing = at.join("d");
    let listing = std::thread::spawn(move || fs::read_dir(listing).unwrap().count());
    eventually("the listing", || listing.is_finished());
    assert_eq!(listing.join().unwrap(), 1);
    for mut reader in readers {
        reader.wait().unwrap();
    }
    assert_eq!(mount.unmount().unwrap(), Unmounted::Cleanly);
}
