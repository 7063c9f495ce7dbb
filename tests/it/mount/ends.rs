//! Mounts whose processes die, or hang, and what is left of them.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{in_foreground, signal, with_point};
use crate::testkit::{Ran, can_mount, mounts, wait_for};

/// Descriptors of the kernel's end of a mount, taken over from the process that serves it: as a thread of it would keep them that stands
/// in the kernel and cannot be killed.
fn kernel_ends(child: &Child) -> Vec<std::os::fd::OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().map(|entry| entry.unwrap());
    let ends = open.filter(|fd| fd.path().read_link().is_ok_and(|to| to == Path::new("/dev/fuse")));
    let numbers = ends.map(|fd| fd.file_name().to_str().unwrap().parse().unwrap());
    numbers.map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).unwrap()).collect()
}

/// Looks into a mount that must not hold up whoever does. Whoever asks just before its guard ends it hears the second word.
fn is_dead(path: &Path) {
    let list =
        std::process::Command::new("timeout").arg("10").arg("ls").arg(path.join("by-id")).output().unwrap();
    let said = String::from_utf8_lossy(&list.stderr);
    let dead = ["Transport endpoint is not connected", "Software caused connection abort"];
    assert!(dead.iter().any(|word| said.contains(word)), "{:?}: {said}", list.status);
}

#[test]
fn a_killed_mount_is_dead_at_once_even_if_something_keeps_its_descriptors() {
    if !can_mount("a_killed_mount_is_dead_at_once_even_if_something_keeps_its_descriptors") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    let mut child = in_foreground(&machine, &path);
    let kept = kernel_ends(&child);
    assert!(kept.len() > 1, "{} descriptors", kept.len());
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    is_dead(&path);
    assert!(mounts().contains(&path), "an empty directory in its place would be mirrored");
    let mount = machine.mount("recovery", &[]);
    assert!(mount.path().join("by-id").is_dir());
    mount.umount();
    drop(kept);
}

/// Processes that this one started.
pub(super) fn children(process: &Child) -> Vec<Pid> {
    let pid = process.id();
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    listed.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

#[test]
fn a_mount_that_was_killed_with_its_guard_is_ended_by_umount_and_its_readers_go() {
    if !can_mount("a_mount_that_was_killed_with_its_guard_is_ended_by_umount_and_its_readers_go") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    let mut child = in_foreground(&machine, &path);
    let (kept, guards) = (kernel_ends(&child), children(&child));
    assert_eq!(guards.len(), 1);
    kill(guards[0], Signal::SIGKILL).unwrap();
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    let mut reader = std::process::Command::new("ls");
    let reader = reader.arg(path.join("by-id")).stderr(Stdio::piped()).spawn().unwrap();
    let refused = Ran::of(machine.command(["mount", "--background"]).arg(&path)).expect_code(1);
    assert!(refused.err().contains("does not answer"), "{}", refused.err());
    machine.run([OsStr::new("umount"), path.as_os_str()]).expect_code(0);
    let said = reader.wait_with_output().unwrap();
    assert!(!said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let mount = machine.mount("recovery", &[]);
    assert!(mount.path().join("by-id").is_dir());
    mount.umount();
    drop(kept);
}

/// Waits until a process has begun to stand guard, under the name that keeps it apart from the mount. Before it is the program at all, whoever
/// starts it may have blocked its signals.
fn stands_guard(guard: Pid) {
    wait_for("its name and its mask of signals", 10, || {
        let status = std::fs::read_to_string(format!("/proc/{guard}/status")).unwrap();
        let waits = status.lines().any(|line| line.starts_with("SigBlk") && !line.ends_with("0000"));
        status.starts_with("Name:\tholdfast-guard\n") && waits
    });
}

#[test]
fn a_guard_stays_when_all_of_a_service_is_asked_to_end() {
    if !can_mount("a_guard_stays_when_all_of_a_service_is_asked_to_end") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    let mut child = in_foreground(&machine, &path);
    let (kept, guards) = (kernel_ends(&child), children(&child));
    stands_guard(guards[0]);
    for asked in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(guards[0], asked).unwrap();
    }
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    is_dead(&path);
    machine.run([OsStr::new("umount"), path.as_os_str()]).expect_code(0);
    drop(kept);
}

#[test]
fn whoever_stands_in_a_mount_that_is_out_of_sight_is_let_go_when_it_is_killed() {
    if !can_mount("whoever_stands_in_a_mount_that_is_out_of_sight_is_let_go_when_it_is_killed") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    let mut child = in_foreground(&machine, &path);
    let kept = kernel_ends(&child);
    stands_guard(children(&child)[0]);
    let mut inside = std::process::Command::new("sh");
    inside.args(["-c", "read asked; exec timeout 10 ls by-id"]).current_dir(&path);
    inside.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut inside = inside.spawn().unwrap();
    nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    inside.stdin.take().unwrap().write_all(b"now\n").unwrap();
    // With the last of its descriptors the connection ends in any case, and so does this test.
    wait_for("an answer", 10, || inside.try_wait().unwrap().is_some());
    let said = inside.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("Transport endpoint is not connected"), "{:?}: {text}", said.status);
    drop(kept);
}

/// How long a process has been there, within 20 ms.
fn age_ms(process: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The 22nd field, in hundredths of a second since the machine began; the second one ends with the last parenthesis.
    let began = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse::<u64>().unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let now = uptime.split_whitespace().next().unwrap().replace('.', "").parse::<u64>().unwrap();
    now.saturating_sub(began) * 10
}

/// Stops all threads of a process but the first, wherever they stand.
fn hold_threads(process: &Child) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let ids = tasks.map(|task| Pid::from_raw(task.unwrap().file_name().to_str().unwrap().parse().unwrap()));
    let held: Vec<Pid> = ids.filter(|id| id.as_raw().unsigned_abs() != process.id()).collect();
    for id in &held {
        ptrace::seize(*id, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(*id).unwrap();
        waitpid(*id, Some(WaitPidFlag::__WALL)).unwrap();
    }
    held
}

#[test]
fn a_mount_whose_threads_are_stuck_is_ended_by_umount_with_its_process_and_its_readers() {
    if !can_mount("a_mount_whose_threads_are_stuck_is_ended_by_umount_with_its_process_and_its_readers") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    let mut child = in_foreground(&machine, &path);
    let held = hold_threads(&child);
    assert!(held.len() > 5, "{} threads", held.len());
    let mut reader = std::process::Command::new("ls");
    let reader = reader.arg(path.join("by-id")).stderr(Stdio::piped()).spawn().unwrap();
    machine.run([OsStr::new("umount"), path.as_os_str()]).expect_code(0);
    assert!(!reader.wait_with_output().unwrap().status.success());
    // The threads go when the process does.
    for id in held {
        let look = Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG);
        wait_for("the end of a thread", 20, || waitpid(id, look).unwrap() != WaitStatus::StillAlive);
    }
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_guard_that_is_killed_has_a_successor() {
    if !can_mount("a_guard_that_is_killed_has_a_successor") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    let mut child = in_foreground(&machine, &path);
    let first = children(&child)[0];
    // One that ends at once is not started again.
    wait_for("a guard that has stood for a second", 20, || age_ms(first) > 1050);
    kill(first, Signal::SIGKILL).unwrap();
    wait_for("another guard", 10, || children(&child).iter().any(|guard| *guard != first));
    let guard = children(&child)[0];
    stands_guard(guard);
    let kept = kernel_ends(&child);
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    is_dead(&path);
    machine.run([OsStr::new("umount"), path.as_os_str()]).expect_code(0);
    drop(kept);
}

#[test]
fn a_mount_whose_log_and_output_nobody_takes_ends_all_the_same() {
    if !can_mount("a_mount_whose_log_and_output_nobody_takes_ends_all_the_same") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    std::fs::create_dir_all(&path).unwrap();
    let mut command = machine.command(["mount"]);
    command.arg(&path).env("HOLDFAST_LOG", "debug").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    wait_for("the mount", 10, || path.join("by-id").is_dir());
    // It says where it is mounted when it is; nobody takes anything after that.
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    // More lines than a pipe takes and wait to be written.
    for n in 0..20_000 {
        assert!(path.join(format!("by-id/{n}")).symlink_metadata().is_err());
    }
    signal(&child, Signal::SIGTERM);
    wait_for("the end of the mount", 20, || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
