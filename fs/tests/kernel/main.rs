//! The file system as the kernel shows it: real mounts of points in memory.
//!
//! Needs root and `/dev/fuse`; without them each test says that it was skipped.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod ahead;
mod ends;
mod entries;
mod points;
mod trouble;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use holdfast_fs::testing::{MemoryRecovery, can_mount, point};
use holdfast_fs::{Mount, MountOptions, Unmounted};
use holdfast_store::clock::{Clock, SystemClock};
use holdfast_store::tree::Node;

/// 2026-11-20T12:00:00Z
const NOON: i64 = 1_795_176_000;

/// Of slow answers.
const TIMEOUT: Duration = Duration::from_secs(2);

struct Bed {
    recovery: Arc<MemoryRecovery>,
    dir: tempfile::TempDir,
    mount: Option<Mount>,
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn options(dir: &Path) -> MountOptions {
    MountOptions { read_timeout: TIMEOUT, ..MountOptions::new(dir, "test") }
}

/// A mount of one point with these entries, unless this machine cannot mount.
fn bed(make: impl FnOnce(&MemoryRecovery) -> Vec<Node>) -> Option<Bed> {
    bed_for(false, make)
}

/// The same for its owner alone, or for all users.
fn bed_for(allow_other: bool, make: impl FnOnce(&MemoryRecovery) -> Vec<Node>) -> Option<Bed> {
    if !can_mount() {
        return None;
    }
    let recovery = MemoryRecovery::new();
    let root = recovery.directory("root", make(&recovery));
    recovery.add(point("h", "g", "s", NOON, 1), root);
    let dir = tempfile::tempdir().unwrap();
    let options = MountOptions { allow_other, ..options(dir.path()) };
    let mount = Some(Mount::spawn(recovery.clone(), &options, clock()).unwrap());
    Some(Bed { recovery, dir, mount })
}

impl Bed {
    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("by-group/g/s/2026-11-20T12.00.00Z").join(path)
    }

    fn unmount(&mut self) -> Unmounted {
        self.mount.take().unwrap().unmount().unwrap()
    }
}

/// Waits for something that happens in another thread soon.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = SystemClock.monotonic();
    while !holds() {
        assert!(SystemClock.monotonic() - begin < Duration::from_secs(10), "waited in vain: {what}");
        SystemClock.pause(Duration::from_millis(20));
    }
}

fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
}

fn shell(script: &str, at: &Path) -> (bool, String) {
    let output = Command::new("sh").args(["-c", script]).current_dir(at).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}
