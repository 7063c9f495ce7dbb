//! The size of what is stored, against the cost of a look at it: memory and bytes read, not seconds.
//!
//! `HOLDFAST_SIZE` is the number of entries of the big directory (200,000 unless it says otherwise; a million takes minutes).
#![allow(clippy::unwrap_used)]

mod grow;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::testkit::{Machine, Mounted, can_mount, number};

/// Most that a mount may take, whatever was walked: what `--memory` promises.
const MOUNT_KIB_MAX: u64 = 128 << 10;

/// A number out of a file of `/proc` about the only process of a mount.
fn figure(mounted: &Mounted<'_>, file: &str, name: &str) -> u64 {
    crate::testkit::figure(mounted.process(), file, name)
}

/// Bytes that a new mount has read until its first listings are there.
fn bytes_to_first_listings(machine: &Machine, name: &str) -> u64 {
    let mounted = machine.mount(name, &[]);
    assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 3);
    assert_eq!(fs::read_dir(newest(&mounted)).unwrap().count(), 1);
    let bytes = figure(&mounted, "io", "rchar:");
    mounted.umount();
    bytes
}

fn newest(mounted: &Mounted<'_>) -> PathBuf {
    mounted.path().join("by-group/default/big/latest")
}

fn small_source(machine: &Machine) -> PathBuf {
    let source = machine.path("small");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    source
}

#[test]
fn a_big_directory_is_walked_in_bounded_memory_and_one_change_in_it_rewrites_one_page() {
    let (machine, entries) = (Machine::with_store(), number("HOLDFAST_SIZE", 200_000));
    let source = machine.path("big");
    fs::create_dir(&source).unwrap();
    for n in 0..entries {
        File::create(source.join(format!("entry-{n:07}"))).unwrap();
    }
    machine.back_up(&source, &["--as", "big"]);
    fs::write(source.join("entry-0001000"), "changed").unwrap();
    let added = machine.back_up(&source, &["--as", "big"])["data_added"].as_u64().unwrap();
    assert!(added < 1 << 20, "{added} bytes are new");
    if !can_mount("a big directory is walked in bounded memory") {
        return;
    }
    let mounted = machine.mount("mnt", &[]);
    let listed = fs::read_dir(newest(&mounted)).unwrap();
    let sum = listed.map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert_eq!(sum, "changed".len() as u64);
    let peak = figure(&mounted, "status", "VmHWM:");
    assert!(peak <= MOUNT_KIB_MAX, "{peak} KiB");
}

#[test]
fn what_points_list_of_packs_and_errors_is_not_kept_by_a_mount() {
    if !can_mount("what points list of packs and errors is not kept by a mount") {
        return;
    }
    let machine = Machine::with_store();
    machine.back_up(&small_source(&machine), &["--as", "big"]);
    let store = grow::open(&machine.store(), &machine.root().join("keys"));
    grow::add_points(&store, 100, 5000);
    let mounted = machine.mount("mnt", &[]);
    assert_eq!(fs::read_dir(mounted.path().join("by-id")).unwrap().count(), 101);
    for point in fs::read_dir(mounted.path().join("by-id")).unwrap() {
        assert_eq!(fs::read(point.unwrap().path().join("file")).unwrap(), b"content");
    }
    let peak = figure(&mounted, "status", "VmHWM:");
    assert!(peak <= MOUNT_KIB_MAX / 2, "{peak} KiB");
}

#[test]
fn the_first_listing_reads_as_much_of_a_big_catalog_as_of_a_small_one() {
    if !can_mount("the first listing reads as much of a big catalog as of a small one") {
        return;
    }
    let machine = Machine::with_store();
    machine.back_up(&small_source(&machine), &["--as", "big"]);
    let small = bytes_to_first_listings(&machine, "one");
    grow::add_packs(&grow::open(&machine.store(), &machine.root().join("keys")), 500, 64);
    let catalog = fs::metadata(machine.store().join("catalog.db")).unwrap().len();
    assert!(catalog > 4 << 20, "the catalog has {catalog} bytes");
    let big = bytes_to_first_listings(&machine, "two");
    assert!(big < small + (256 << 10), "{small} bytes read of the small one, {big} of the big one");
}

#[test]
fn a_mount_says_how_little_memory_is_too_little() {
    let machine = Machine::with_store();
    fs::create_dir(machine.path("mnt")).unwrap();
    let ran = machine.run(["mount", "--memory", "8M", machine.path("mnt").to_str().unwrap()]);
    ran.expect_err(&["--memory", "64 MiB"]);
}

/// Not a test: a tool for `tests/bench/size.py`, which names a store, its keys and how much to add.
#[test]
#[ignore = "makes the store that HOLDFAST_GROW names look old"]
fn grow_the_store_that_is_named() {
    let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap());
    let store = grow::open(Path::new(&path("HOLDFAST_GROW")), &path("HOLDFAST_KEY_DIR"));
    grow::add_points(&store, number("HOLDFAST_GROW_POINTS", 0), 0);
    grow::add_packs(&store, number("HOLDFAST_GROW_PACKS", 0), 16);
}
