//! Points that expire, and packs that are freed and written anew, under readers who compare every byte: what is left is read without
//! any error, and what is gone ends with one. Never other bytes, and never a number that meant something else.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use nix::errno::Errno;

use crate::testkit::{Machine, Ran, can_mount, drop_pages, noise, wait_for};

const FILES: usize = 24;
const LEN: usize = 200_000;

/// Takes a point of these files, each of its own content, as `name`.
fn back_up(machine: &Machine, name: &str, files: impl Iterator<Item = usize>, options: &[&str]) -> String {
    let dir = machine.path("source");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).unwrap();
    for n in files {
        std::fs::write(dir.join(format!("{n:02}")), noise(format!("file {n}"), LEN)).unwrap();
    }
    let point = machine.back_up(&dir, &[&["--as", name], options].concat());
    point["snapshot_id"].as_str().unwrap().to_owned()
}

/// Removes a point and frees what only it needed.
fn expire(machine: &Machine, id: &str) -> serde_json::Value {
    machine.run(["forget", id, "--allow-newest", "--yes"]).expect_code(0);
    machine.run(["prune", "--now", "--json"]).expect_code(0).json()
}

/// Fails unless a run freed something, and did this to packs.
#[track_caller]
fn assert_freed(pruned: &serde_json::Value, packs: &str) {
    for figure in ["bytes_freed", packs] {
        assert!(pruned[figure].as_u64().unwrap() > 0, "{figure} of {pruned}");
    }
}

/// Raises a flag when dropped: readers end also when what they read beside has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One read of a file, past what the kernel keeps of it: right bytes, or the error.
fn read(point: &Path, n: usize) -> std::io::Result<()> {
    let file = std::fs::File::open(point.join(format!("{n:02}")))?;
    read_open(&file, n)
}

fn read_open(file: &std::fs::File, n: usize) -> std::io::Result<()> {
    drop_pages(file)?;
    let (mut bytes, whole) = (vec![0; LEN], noise(format!("file {n}"), LEN));
    for at in (0..LEN).step_by(50_000) {
        file.read_exact_at(&mut bytes[at..at + 50_000], at as u64)?;
    }
    assert!(bytes == whole, "other bytes in file {n}");
    Ok(())
}

fn numbers(point: &Path) -> BTreeMap<u64, PathBuf> {
    let entries = point.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut numbers: BTreeMap<_, _> = entries.map(|path| (path.metadata().unwrap().ino(), path)).collect();
    numbers.insert(point.metadata().unwrap().ino(), point.to_path_buf());
    numbers
}

/// Reads `files` of a point over and over while `work` is done; how often each was read, or the first error.
fn meanwhile(point: &Path, files: &[usize], work: impl FnOnce()) -> Result<u64, std::io::Error> {
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let stopper = Stop(&stop);
        let reader = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                files.iter().try_for_each(|n| read(point, *n))?;
                rounds.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<_, std::io::Error>(())
        });
        wait_for("the reader", 20, || rounds.load(Ordering::SeqCst) > 0 || reader.is_finished());
        work();
        let so_far = rounds.load(Ordering::SeqCst);
        wait_for("the reader after it", 20, || {
            rounds.load(Ordering::SeqCst) > so_far + 1 || reader.is_finished()
        });
        drop(stopper);
        reader.join().unwrap()
    })?;
    Ok(rounds.into_inner())
}

/// The point `gone` expires while it is read, and `stays`, which has every fourth of its files, is read on. Both lie in one store
/// that `machine` mounts, and `packs` is what is done to its packs.
fn expire_under_readers(machine: &Machine, gone: &str, stays: &str, packs: &str) {
    let mount = machine.mount("recovery", &[]);
    let (gone_at, stays_at) = (mount.point(gone), mount.point(stays));
    let some: Vec<usize> = (0..FILES).step_by(4).collect();
    let before = numbers(&gone_at);
    let held = std::fs::File::open(gone_at.join("01")).unwrap();
    let shared = std::fs::File::open(gone_at.join("04")).unwrap();
    read_open(&held, 1).unwrap();
    let read_gone = |stop: &AtomicBool| {
        while !stop.load(Ordering::SeqCst) {
            for n in 0..FILES {
                if let Err(error) = read(&gone_at, n) {
                    return Some(error);
                }
            }
        }
        None
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopper = Stop(&stop);
        let victim = scope.spawn(|| read_gone(&stop));
        let rounds = meanwhile(&stays_at, &some, || {
            let pruned = expire(machine, gone);
            assert_freed(&pruned, packs);
            wait_for("the end of the point's name", 5, || gone_at.metadata().is_err());
        });
        assert!(rounds.unwrap() > 1, "the other point is read without any error");
        wait_for("the reader of what is gone", 10, || victim.is_finished());
        let error = victim.join().unwrap().unwrap();
        let errno = error.raw_os_error().map(Errno::from_raw);
        assert!(matches!(errno, Some(Errno::ENOENT | Errno::EIO | Errno::ESTALE)), "{error}");
        drop(stopper);
    });
    // No listing has it, neither by its id nor among its source's.
    let listed = |dir: PathBuf| dir.read_dir().unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(listed(mount.path().join("by-id")), [stays]);
    assert!(machine.run(["snapshots"]).expect_code(0).out().contains(&stays[..8]));
    // Who has it open reads what is right, or nothing.
    let _ = read_open(&held, 1);
    let _ = read_open(&shared, 4);
    // A number never comes to mean anything else.
    let again = back_up(machine, "gone", 0..FILES + 4, &[]);
    wait_for("the new point", 5, || mount.point(&again).is_dir());
    let after = numbers(&mount.point(&again));
    let (old, new): (Vec<_>, Vec<_>) = (before.keys().collect(), after.keys().collect());
    assert!(old.iter().all(|ino| !new.contains(ino)), "numbers of the old point are those of the new one");
    for n in 0..FILES + 4 {
        read(&mount.point(&again), n).unwrap();
    }
    let _ = read_open(&held, 1);
    drop((held, shared));
    mount.umount();
}

#[test]
fn a_local_point_expires_under_its_readers_and_its_packs_move_under_those_of_another() {
    if !can_mount("a_local_point_expires_under_its_readers") {
        return;
    }
    let machine = Machine::with_store();
    let gone = back_up(&machine, "gone", 0..FILES, &[]);
    let stays = back_up(&machine, "stays", (0..FILES).step_by(4), &[]);
    expire_under_readers(&machine, &gone, &stays, "packs_rewritten");
    machine.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_point_of_a_vault_expires_under_its_readers() {
    if !can_mount("a_point_of_a_vault_expires_under_its_readers") {
        return;
    }
    let machine = Machine::with_store();
    let vault = machine.path("vault");
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0);
    let gone = back_up(&machine, "gone", 0..FILES, &["--online"]);
    let stays = back_up(&machine, "stays", (0..FILES).step_by(4), &["--online"]);
    let stranger = Machine::recovered_from(&vault);
    expire_under_readers(&stranger, &gone, &stays, "packs_removed");
    stranger.run(["check", "--read-data"]).expect_code(0);
}

#[test]
fn packs_are_written_anew_many_times_under_a_reader_who_notices_nothing() {
    if !can_mount("packs_are_written_anew_many_times_under_a_reader_who_notices_nothing") {
        return;
    }
    let machine = Machine::with_store();
    // Each has a third of the one before: a pack of one of them is thin without that.
    let parts = |step: usize| (0..FILES).step_by(step);
    let [first, second, third, stays] =
        [1, 3, 9, 24].map(|step| back_up(&machine, &format!("every-{step}"), parts(step), &[]));
    let mount = machine.mount("recovery", &[]);
    let begin = Instant::now();
    let rounds = meanwhile(&mount.point(&stays), &[0], || {
        for gone in [first, second, third] {
            assert_freed(&expire(&machine, &gone), "packs_rewritten");
        }
    });
    assert!(rounds.unwrap() > 2, "in {:?}", begin.elapsed());
    mount.umount();
}
