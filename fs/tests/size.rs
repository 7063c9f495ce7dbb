//! What a mount keeps of a big directory that the kernel has read: records, counted.
//!
//! Needs root and `/dev/fuse`; without them each test says that it was skipped.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_fs::testing::{MemoryRecovery, can_mount, node, point};
use holdfast_fs::{Mount, MountOptions};
use holdfast_store::clock::{Clock, SystemClock};
use holdfast_store::tree::{Node, NodeKind};

/// 2026-11-20T12:00:00Z
const NOON: i64 = 1_795_176_000;
/// Entries with one record between them.
const SEGMENT: usize = 4096;

/// A mount that keeps about `records_max` records, of a point with these entries; its root, too.
fn mounted(
    records_max: usize,
    make: impl FnOnce(&MemoryRecovery) -> Vec<Node>,
) -> Option<(Mount, PathBuf, tempfile::TempDir)> {
    if !can_mount() {
        return None;
    }
    let recovery = MemoryRecovery::new();
    let root = recovery.directory("root", make(&recovery));
    recovery.add(point("h", "g", "s", NOON, 1), root);
    let dir = tempfile::tempdir().unwrap();
    let options = MountOptions { records_max, ..MountOptions::new(dir.path(), "test") };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mount = Mount::spawn(recovery, &options, clock).unwrap();
    let root = dir.path().join("by-group/g/s/2026-11-20T12.00.00Z");
    Some((mount, root, dir))
}

fn files(count: usize) -> Vec<Node> {
    (0..count).map(|n| node(&format!("entry-{n:07}"), NodeKind::Fifo)).collect()
}

/// Waits until no more records than these are held.
fn let_go_above(mount: &Mount, records: usize) {
    let soon = std::time::Instant::now() + Duration::from_secs(30);
    while mount.view().held() > records {
        assert!(std::time::Instant::now() < soon, "{} records are held", mount.view().held());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Names of `count` files that each have another name elsewhere.
fn linked(prefix: &str, count: usize) -> Vec<Node> {
    let file = |n| Node { links: 2, inode: n, ..node(&format!("{prefix}{n:05}"), NodeKind::Fifo) };
    (1..=count as u64).map(file).collect()
}

#[test]
fn a_big_directory_takes_a_record_for_thousands_of_entries() {
    let Some((mount, root, _dir)) = mounted(1 << 20, |_| files(5 * SEGMENT)) else { return };
    assert_eq!(fs::read_dir(&root).unwrap().count(), 5 * SEGMENT);
    assert_eq!(mount.view().held(), 5);
}

#[test]
fn the_kernel_is_asked_to_forget_what_is_above_the_bound_and_finds_it_again() {
    let directories = |r: &MemoryRecovery| -> Vec<Node> {
        (0..200).map(|n| r.directory(&format!("d{n:03}"), files(20))).collect()
    };
    let Some((mount, root, _dir)) = mounted(10, directories) else { return };
    for n in 0..200 {
        assert_eq!(fs::read_dir(root.join(format!("d{n:03}"))).unwrap().count(), 20);
    }
    let_go_above(&mount, 10);
    let again = root.join("d000/entry-0000007");
    assert!(fs::symlink_metadata(&again).is_ok());
    assert_eq!(fs::read_dir(root.join("d007")).unwrap().count(), 20);
}

#[test]
fn files_are_forgotten_by_all_of_their_names() {
    let directories = |r: &MemoryRecovery| -> Vec<Node> {
        let twice = [linked("a", 500), linked("b", 500)].concat();
        vec![
            r.directory("here", linked("x", 500)),
            r.directory("there", linked("y", 500)),
            r.directory("twice", twice),
        ]
    };
    let Some((mount, root, _dir)) = mounted(10, directories) else { return };
    for _ in 0..3 {
        for (name, count) in [("here", 500), ("there", 500), ("twice", 1000)] {
            assert_eq!(fs::read_dir(root.join(name)).unwrap().count(), count);
        }
        let_go_above(&mount, 10);
    }
    let number = |path: &str| fs::symlink_metadata(root.join(path)).unwrap().ino();
    assert_eq!(
        [number("here/x00007"), number("twice/a00007")],
        [number("there/y00007"), number("twice/b00007")]
    );
}
