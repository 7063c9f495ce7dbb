//! A mount that begins, is asked, and ends, as far as it takes what is not open to others.
#![allow(clippy::unwrap_used)]
use std::fs;

use holdfast_store::clock::{ManualClock, SystemClock, Timestamp};

use super::*;
use crate::testing::{Behaviour, MemoryRecovery, can_mount};

#[test]
fn a_mount_that_does_not_get_as_far_as_to_answer_leaves_nothing() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp { seconds: 0, nanos: 0 }));
    let begun = Mount::begun(MemoryRecovery::new(), &MountOptions::new(dir.path(), "begun"), clock);
    assert!(table::top(dir.path()).unwrap().is_some());
    drop(begun.unwrap());
    assert_eq!(table::top(dir.path()).unwrap(), None);
}

#[test]
fn dead_mounts_of_ours_are_taken_away_and_one_that_lives_is_not() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // One on the other, of processes that closed the kernel's end.
    for name in ["dead", "dead-too"] {
        drop(device::open(dir.path(), &MountOptions::new(dir.path(), name)).unwrap());
    }
    unmount_dead(dir.path(), &SystemClock).unwrap();
    assert_eq!(table::top(dir.path()).unwrap(), None);
    let options = MountOptions::new(dir.path(), "alive");
    let mount = Mount::spawn(MemoryRecovery::new(), &options, Arc::new(SystemClock)).unwrap();
    unmount_dead(dir.path(), &SystemClock).unwrap();
    assert!(table::top(dir.path()).unwrap().is_some());
    drop(mount);
}

#[test]
fn the_kernel_reads_ahead_as_far_as_it_is_told() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp { seconds: 0, nanos: 0 }));
    let begun = Mount::begun(MemoryRecovery::new(), &MountOptions::new(dir.path(), "ahead"), clock);
    let minor = table::top(dir.path()).unwrap().unwrap().minor;
    let file = format!("/sys/class/bdi/0:{minor}/read_ahead_kb");
    // In many containers nobody may.
    if rustix::fs::access(&file, rustix::fs::Access::WRITE_OK).is_ok() {
        let told = fs::read_to_string(&file).unwrap();
        assert!(told.trim().parse::<u32>().unwrap() >= 256, "{told}");
    }
    drop(begun.unwrap());
}

#[test]
fn a_mount_whose_threads_are_stuck_sees_that_it_is_cut_off() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp { seconds: 0, nanos: 0 }));
    let options = MountOptions::new(dir.path(), "stuck");
    // Its threads never begin.
    let (mount, session, _) = Mount::begun(MemoryRecovery::new(), &options, clock.clone()).unwrap();
    assert!(!mount.is_cut_off());
    assert_ne!(unmount_path(dir.path(), &*clock).unwrap(), Unmounted::AlreadyGone);
    assert!(mount.is_cut_off() && !mount.has_ended());
    drop(session);
}

#[test]
fn the_guard_of_a_mount_that_is_still_in_use_stays_when_the_mount_is_let_go() {
    if !can_mount() {
        return;
    }
    let program = ["sh", "-c", "exec tail -f /dev/null"].map(OsString::from);
    for in_use in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp { seconds: 0, nanos: 0 }));
        let options = MountOptions::new(dir.path(), "in use");
        let (mut mount, session, _) = Mount::begun(MemoryRecovery::new(), &options, clock).unwrap();
        let guard = Guard::start(&program, dir.path(), mount.id.unwrap(), Duration::ZERO).unwrap();
        let pid = nix::unistd::Pid::from_raw(guard.child.id().cast_signed());
        mount.guard = Some(guard);
        let path = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let held = in_use.then(|| rustix::fs::open(dir.path(), path, rustix::fs::Mode::empty()).unwrap());
        drop(mount);
        let ended = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        assert_eq!(ended.is_ok(), in_use);
        drop((held, session));
    }
}

#[test]
fn of_many_who_mount_at_one_place_at_once_one_does() {
    if !can_mount() {
        return;
    }
    for over_a_dead_one in [false, true] {
        one_of_four_mounts(over_a_dead_one);
    }
}

fn one_of_four_mounts(over_a_dead_one: bool) {
    let above = tempfile::tempdir().unwrap();
    let place = above.path().join("place");
    fs::create_dir(&place).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = MountOptions::new(&place, "many");
    if over_a_dead_one {
        drop(device::open(&place, &options).unwrap());
    }
    let begin = std::sync::Barrier::new(4);
    let mounted: Vec<_> = thread::scope(|scope| {
        let mounting = || {
            begin.wait();
            Mount::spawn(MemoryRecovery::new(), &options, clock.clone())
        };
        let begun: Vec<_> = (0..4).map(|_| scope.spawn(mounting)).collect();
        begun.into_iter().map(|mounting| mounting.join().unwrap()).collect()
    });
    let (one, others): (Vec<_>, Vec<_>) = mounted.into_iter().partition(Result::is_ok);
    assert_eq!(one.len(), 1, "{others:?}");
    assert!(others.iter().all(|other| matches!(other, Err(MountError::AlreadyMounted { .. }))), "{others:?}");
    assert!(one.iter().flatten().all(|mount| !mount.is_cut_off()), "nobody took it away");
    drop(one);
    assert_eq!(table::top(&place).unwrap(), None);
}

#[test]
fn a_mount_that_counts_its_points_is_alive() {
    if !can_mount() {
        return;
    }
    let (dir, recovery) = (tempfile::tempdir().unwrap(), MemoryRecovery::new());
    recovery.sums(Behaviour::Hanging);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mount =
        Mount::spawn(recovery.clone(), &MountOptions::new(dir.path(), "sums"), clock.clone()).unwrap();
    let counts: Vec<_> = (0..20)
        .map(|_| {
            let path = dir.path().to_path_buf();
            thread::spawn(move || rustix::fs::statfs(&path).is_ok())
        })
        .collect();
    assert_eq!(pulse::of(dir.path(), &*clock).unwrap(), Pulse::Alive);
    assert!(counts.iter().any(|count| !count.is_finished()));
    recovery.sums(Behaviour::Warm);
    assert!(counts.into_iter().all(|count| count.join().unwrap()));
    mount.unmount().unwrap();
}

#[test]
fn a_mount_that_does_not_answer_holds_nobody_up_and_is_ended_by_force() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, options) = (dir.path(), MountOptions::new(dir.path(), "silent"));
    // Nobody reads from it.
    let device = device::open(path, &options).unwrap();
    let (place, clock) = (path.to_path_buf(), ManualClock::at(Timestamp { seconds: 0, nanos: 0 }));
    let reader = thread::spawn(move || fs::metadata(place.join("file")));
    let refused = make_way(path, &options, &clock);
    assert!(matches!(refused, Err(MountError::Silent { .. })), "{refused:?}");
    assert!(!reader.is_finished());
    assert_ne!(unmount_path(path, &clock).unwrap(), Unmounted::AlreadyGone);
    assert!(reader.join().unwrap().is_err());
    assert_eq!(table::top(path).unwrap(), None);
    make_way(path, &options, &clock).unwrap();
    drop(device);
}
