//! How mounts begin and end.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use holdfast_fs::mount::unmount_path;
use holdfast_fs::testing::{MemoryRecovery, Part};
use holdfast_fs::{Mount, MountError, MountOptions, Unmounted};
use holdfast_store::clock::SystemClock;
use nix::errno::Errno;

use crate::{bed, can_mount, clock, eventually, is_mounted, options};

#[test]
fn an_open_file_does_not_keep_the_mount_in_sight() {
    let Some(mut bed) = bed(|r| vec![r.file("f", &[Part::Data(b"open".to_vec())])]) else { return };
    let mut file = File::open(bed.at("f")).unwrap();
    assert_eq!(bed.unmount(), Unmounted::Detached);
    assert!(!is_mounted(bed.dir.path()));
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "open");
}

#[test]
fn a_lingering_session_does_not_take_its_successor_away() {
    let Some(mut bed) = bed(|r| vec![r.file("f", &[Part::Data(b"1".to_vec())])]) else { return };
    let file = File::open(bed.at("f")).unwrap();
    let first = bed.mount.take().unwrap();
    assert_eq!(first.unmount().unwrap(), Unmounted::Detached);
    let second = Mount::spawn(bed.recovery.clone(), &options(bed.dir.path()), clock()).unwrap();
    drop(file);
    first.wait().unwrap();
    assert!(is_mounted(bed.dir.path()));
    assert_eq!(fs::read(bed.at("f")).unwrap(), b"1");
    assert_eq!(second.unmount().unwrap(), Unmounted::Cleanly);
    assert_eq!(first.unmount().unwrap(), Unmounted::AlreadyGone);
}

#[test]
fn what_must_not_be_mounted_over_is_refused() {
    let Some(bed) = bed(|_| vec![]) else { return };
    let spawn = |options: &MountOptions| {
        Mount::spawn(bed.recovery.clone(), options, clock()).map(|_| ()).unwrap_err()
    };
    assert!(matches!(spawn(&options(bed.dir.path())), MountError::AlreadyMounted { .. }));
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("store")).unwrap();
    assert!(matches!(spawn(&options(other.path())), MountError::NotEmpty { .. }));
    let keep_clear = vec![other.path().join("store")];
    for at in [other.path().to_path_buf(), other.path().join("store"), other.path().join("store/x")] {
        let error = spawn(&MountOptions { keep_clear: keep_clear.clone(), ..options(&at) });
        assert!(matches!(error, MountError::CoversStore { .. }), "{error}");
    }
    let file = other.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(spawn(&options(&file)), MountError::NotDirectory { .. }));
    assert!(matches!(spawn(&options(&other.path().join("none"))), MountError::Io { .. }));
}

#[test]
fn only_our_own_mounts_are_unmounted_by_path() {
    let Some(mut bed) = bed(|_| vec![]) else { return };
    assert!(matches!(unmount_path(Path::new("/proc"), &SystemClock), Err(MountError::NotOurs { .. })));
    let other = tempfile::tempdir().unwrap();
    assert!(matches!(unmount_path(other.path(), &SystemClock), Err(MountError::NotMounted { .. })));
    assert_eq!(unmount_path(bed.dir.path(), &SystemClock).unwrap(), Unmounted::Cleanly);
    let mount = bed.mount.take().unwrap();
    mount.wait().unwrap();
    assert_eq!(mount.unmount().unwrap(), Unmounted::AlreadyGone);
}

/// Not a test by itself: the process that [`a_dead_mount_is_replaced`] kills.
#[test]
fn child_that_mounts_and_waits() {
    let Some(dir) = std::env::var_os("HOLDFAST_TEST_MOUNT") else { return };
    let mount = Mount::spawn(MemoryRecovery::new(), &options(Path::new(&dir)), clock()).unwrap();
    mount.wait().unwrap();
}

#[test]
fn a_dead_mount_is_replaced() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ends::child_that_mounts_and_waits"])
        .env("HOLDFAST_TEST_MOUNT", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the child's mount", || fs::metadata(dir.path().join("by-id")).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap_err().raw_os_error(), Some(Errno::ENOTCONN as i32));
    let mount = Mount::spawn(MemoryRecovery::new(), &options(dir.path()), clock()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    assert_eq!(mount.unmount().unwrap(), Unmounted::Cleanly);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no mount may lie below");
}
