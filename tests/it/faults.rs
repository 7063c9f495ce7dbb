//! Disks that run full and vaults that misbehave: a run ends well or says what is wrong, and bytes are right or there are none.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod requests;

use std::path::Path;

use holdfast_store::tree::testing::TestRandom;

use crate::testkit::{Machine, Ran};
use crate::trouble::{
    Bounded, SmallStore, assert_restores, assert_same, command, points, run, sample, summary_id, write_tree,
};

/// A backup that must succeed; its point.
fn backup(machine: &Machine, store: &Path) -> String {
    let source = machine.path("source");
    let ran = run(machine, store, &["backup", "--json", source.to_str().unwrap()]).expect_code(0);
    summary_id(&ran.out()).unwrap()
}

fn assert_says_full(ran: &Ran) {
    let said = ran.err().to_lowercase();
    assert!(said.contains("full") || said.contains("no space"), "{said}");
}

#[test]
fn a_full_disk_fails_the_backup_says_so_and_costs_nothing() {
    let machine = Machine::new();
    let Some(disk) = Bounded::mount(machine.path("disk"), 24 << 10) else { return };
    let store = SmallStore::make(&machine, disk.path.join("store"));
    let (mut random, source) = (TestRandom::new(1), machine.path("source"));
    let first = sample(&mut random, 3 << 20);
    write_tree(&source, &first);
    let one = backup(&machine, &store.dir);
    let mut second = sample(&mut random, 20 << 20);
    second = second.into_iter().map(|(path, bytes)| (format!("more/{path}"), bytes)).collect();
    second.extend(first.clone());
    write_tree(&source, &second);
    let args = ["backup", source.to_str().unwrap()];
    assert_says_full(&run(&machine, &store.dir, &args).expect_code(1));
    assert_eq!(points(&machine, &store.dir), [one.as_str()]);
    assert_restores(&machine, &store.dir, &one, &first);
    // Filled to the last byte by somebody else: reading still works.
    let filler = disk.fill();
    assert_says_full(&run(&machine, &store.dir, &args).expect_code(1));
    assert_eq!(points(&machine, &store.dir), [one.as_str()]);
    assert_restores(&machine, &store.dir, &one, &first);
    std::fs::remove_file(filler).unwrap();
    disk.resize(96 << 10);
    let two = backup(&machine, &store.dir);
    assert_restores(&machine, &store.dir, &two, &second);
    run(&machine, &store.dir, &["check", "--read-data"]).expect_code(0);
}

#[test]
fn on_a_full_disk_points_are_forgotten_and_space_is_freed_with_the_reserve() {
    let machine = Machine::new();
    let Some(disk) = Bounded::mount(machine.path("disk"), 48 << 10) else { return };
    let store = SmallStore::make(&machine, disk.path.join("store"));
    let mut random = TestRandom::new(3);
    let mut take = || {
        write_tree(&machine.path("source"), &sample(&mut random, 3 << 20));
        backup(&machine, &store.dir)
    };
    let taken = [take(), take(), take()];
    let filler = disk.fill();
    run(&machine, &store.dir, &["forget", &taken[0], "--yes"]).expect_code(0);
    assert_eq!(points(&machine, &store.dir).len(), 2);
    std::fs::remove_file(&filler).unwrap();
    take();
    disk.fill();
    let pruned = run(&machine, &store.dir, &["prune"]).expect_code(0).out();
    assert!(!pruned.contains("removed 0 packs"), "{pruned}");
    std::fs::remove_file(&filler).unwrap();
    run(&machine, &store.dir, &["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_full_cache_directory_keeps_nobody_from_reading() {
    let machine = Machine::new();
    let store = SmallStore::make(&machine, machine.path("store"));
    let (mut random, source) = (TestRandom::new(2), machine.path("source"));
    let tree = sample(&mut random, 3 << 20);
    write_tree(&source, &tree);
    let vault = machine.path("vault").display().to_string();
    run(&machine, &store.dir, &["vault", "add", &vault]).expect_code(0);
    let id = backup(&machine, &store.dir);
    run(&machine, &store.dir, &["vault", "push"]).expect_code(0);
    let bare = Machine::new();
    let Some(disk) = Bounded::mount(bare.path("disk"), 512) else { return };
    disk.fill();
    let dir = bare.path("recovered");
    let with_cache = |args: &[&str]| {
        let mut command = command(&bare, &dir, args);
        Ran::of(
            command
                .env("HOLDFAST_CACHE_DIR", disk.path.join("cache"))
                .env("HOLDFAST_RECOVERY_KEY", &store.words),
        )
    };
    with_cache(&["recover", &vault]).expect_code(0);
    let target = bare.path("target");
    with_cache(&["restore", &id, "--target", target.to_str().unwrap()]).expect_code(0);
    assert_same(&crate::trouble::read_tree(&target), &tree);
}
