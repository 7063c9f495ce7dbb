//! The mount in rough hands: bytes that change under it, points and packs that go, being unmounted under whoever stands in it, few
//! descriptors, watches, and many mounts of one store.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use rustix::fs::inotify;

use crate::testkit::{Machine, Mounted, PASSPHRASE, Ran, can_mount, drop_pages, mounts, noise, wait_for};
use crate::trouble::{SmallStore, command, run};
use crate::vault::{flip, packs};

/// Files of a source, small enough that a mount gives the kernel those that come next.
const FILES: usize = 150;
const LEN: usize = 30_000;
/// What each file has at its end.
const MARK: &[u8] = b"\nthe end\n";

fn name(n: usize) -> String {
    format!("{n:03}")
}

fn content(n: usize) -> Vec<u8> {
    [&noise(format!("file {n}"), LEN - MARK.len()), MARK].concat()
}

fn write(dir: &Path, files: impl Iterator<Item = usize>) {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir(dir).unwrap();
    files.for_each(|n| fs::write(dir.join(name(n)), content(n)).unwrap());
}

/// Takes a point of these files as `source`; its id.
fn back_up(machine: &Machine, source: &str, files: impl Iterator<Item = usize>, options: &[&str]) -> String {
    let dir = machine.path("source");
    write(&dir, files);
    let summary = machine.back_up(&dir, &[&["--as", source], options].concat());
    summary["snapshot_id"].as_str().unwrap().to_owned()
}

/// Reads files in their order, as a walk does, past what the kernel keeps of them.
fn walk(point: &Path, files: &[usize]) -> std::io::Result<()> {
    point.read_dir()?.try_for_each(|entry| entry.map(drop))?;
    for n in files {
        drop_pages(&File::open(point.join(name(*n)))?)?;
    }
    for n in files {
        assert!(fs::read(point.join(name(*n)))? == content(*n), "other bytes in {n}");
    }
    Ok(())
}

/// What `cp -r` and `grep -r` get of a point: the length of what was copied of each file, none of it wrong, and the files in which
/// `grep` found the mark.
fn copy_and_search(machine: &Machine, point: &Path) -> (BTreeMap<usize, usize>, Vec<usize>, String) {
    let target = machine.path("copied");
    let copied = Ran::of(Command::new("cp").arg("-r").arg(point).arg(&target).env("LC_ALL", "C"));
    let mut lengths = BTreeMap::new();
    for n in 0..FILES {
        let (bytes, whole) = (fs::read(target.join(name(n))).unwrap_or_default(), content(n));
        assert!(bytes == whole[..bytes.len()], "other bytes in the copy of {n}");
        lengths.insert(n, bytes.len());
    }
    fs::remove_dir_all(&target).unwrap();
    let mut grep = Command::new("grep");
    let searched =
        Ran::of(grep.args(["-r", "-l", "-a", "-x", "the end", "."]).current_dir(point).env("LC_ALL", "C"));
    let found = searched.out().lines().map(|line| line.trim_start_matches("./").parse().unwrap()).collect();
    (lengths, found, copied.err() + &searched.err())
}

/// A mount of a point of which a part was read before bits of its packs were flipped.
fn flipped_under<'a>(machine: &'a Machine, point: &str) -> Mounted<'a> {
    let mount = machine.mount("recovery", &[]);
    walk(&mount.point(point), &[0, 1, 2]).unwrap();
    for (len, pack) in packs(&machine.store()).into_iter().filter(|(len, _)| *len > 1 << 20) {
        (len / 3..len - 4096).step_by(1_000_003).for_each(|at| flip(&pack, at));
    }
    mount
}

#[test]
fn of_packs_that_change_under_a_mount_bytes_are_right_or_an_error_with_its_cause() {
    if !can_mount("of_packs_that_change_under_a_mount_bytes_are_right_or_an_error_with_its_cause") {
        return;
    }
    let machine = Machine::with_store();
    let id = back_up(&machine, "source", 0..FILES, &[]);
    let mount = flipped_under(&machine, &id);
    let (lengths, found, errors) = copy_and_search(&machine, &mount.point(&id));
    let cut: Vec<usize> = lengths.iter().filter(|(_, len)| **len < LEN).map(|(n, _)| *n).collect();
    assert!(!cut.is_empty() && cut.len() < FILES / 2, "{cut:?} were cut");
    // Both were told of each, and nobody else of anything.
    assert_eq!(errors.matches("Input/output error").count(), 2 * cut.len(), "{errors}");
    assert_eq!(errors.lines().count(), 2 * cut.len(), "{errors}");
    assert_eq!(found.len(), FILES - cut.len());
    assert!(cut.iter().all(|n| !found.contains(n)));
    for n in cut {
        let error = fs::read(mount.point(&id).join(name(n))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32), "{n}");
    }
    let pack = packs(&machine.store())[0].1.file_name().unwrap().to_str().unwrap().to_owned();
    let said = |log: &str| log.contains("answered with an I/O error") && log.contains(&pack);
    wait_for("what the log says", 10, || said(&machine.log()));
    mount.umount();
}

#[test]
fn packs_that_change_under_a_mount_are_read_from_a_vault() {
    if !can_mount("packs_that_change_under_a_mount_are_read_from_a_vault") {
        return;
    }
    let machine = Machine::with_store();
    Ran::of(machine.command(["vault", "add"]).arg(machine.path("vault"))).expect_code(0);
    let id = back_up(&machine, "source", 0..FILES, &["--online"]);
    let mount = flipped_under(&machine, &id);
    let (lengths, found, errors) = copy_and_search(&machine, &mount.point(&id));
    assert!(lengths.values().all(|len| *len == LEN) && found.len() == FILES && errors.is_empty(), "{errors}");
    wait_for("what the log says", 10, || machine.log().contains("read from another tier"));
    mount.umount();
}

#[test]
fn a_walk_over_what_stays_notices_nothing_of_what_is_forgotten_and_freed() {
    if !can_mount("a_walk_over_what_stays_notices_nothing_of_what_is_forgotten_and_freed") {
        return;
    }
    let machine = Machine::with_store();
    let some: Vec<usize> = (0..FILES).step_by(5).collect();
    let gone = back_up(&machine, "gone", 0..FILES, &[]);
    let stays = back_up(&machine, "stays", some.iter().copied(), &[]);
    let mount = machine.mount("recovery", &[]);
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let walker = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                walk(&mount.point(&stays), &some).unwrap();
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        });
        let next = |what: &str| {
            let before = rounds.load(Ordering::SeqCst);
            wait_for(what, 20, || rounds.load(Ordering::SeqCst) > before + 1 || walker.is_finished());
        };
        next("the walk");
        machine.run(["forget", &gone, "--allow-newest", "--yes"]).expect_code(0);
        let pruned = machine.run(["prune", "--json"]).expect_code(0).json();
        stop.store(walker.is_finished(), Ordering::SeqCst);
        assert!(pruned["packs_rewritten"].as_u64() > Some(0), "{pruned}");
        next("the walk after it");
        stop.store(true, Ordering::SeqCst);
    });
    assert!(!machine.log().contains("I/O error"), "{}", machine.log());
    mount.umount();
}

#[test]
fn a_mount_that_is_taken_away_lazily_serves_who_stands_in_it_and_ends_with_him() {
    if !can_mount("a_mount_that_is_taken_away_lazily_serves_who_stands_in_it_and_ends_with_him") {
        return;
    }
    let machine = Machine::with_store();
    let id = back_up(&machine, "source", 0..FILES, &[]);
    let mount = machine.mount("recovery", &[]);
    let go = machine.path("go");
    // Half of the walk before, half after; it ends by itself.
    let script = "cat 0[0-6]* > \"$1.first\" && while [ ! -e \"$1\" ]; do sleep 0.02; done && cat 0[7-9]* 1*";
    let mut walk = Command::new("sh");
    walk.args(["-c", script, "sh"]).arg(&go).current_dir(mount.point(&id));
    let walk = walk.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let first = machine.path("go.first");
    wait_for("half of the walk", 20, || first.metadata().is_ok_and(|file| file.len() == 70 * LEN as u64));
    Ran::of(Command::new("umount").arg("-l").arg(mount.path())).expect_code(0);
    assert!(!mounts().iter().any(|path| path == mount.path()));
    assert_eq!(mount.path().read_dir().unwrap().count(), 0, "nobody finds it any more");
    assert_eq!(mount.processes().len(), 1, "it still serves");
    fs::write(&go, "").unwrap();
    let ended = walk.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert!(ended.stdout == (70..FILES).flat_map(content).collect::<Vec<u8>>(), "other bytes");
    mount.wait_for_the_end(10);
    let again = machine.mount("recovery", &[]);
    assert_eq!(fs::read(again.point(&id).join(name(9))).unwrap(), content(9));
    again.umount();
}

/// The same under a limit of the shell's.
fn limited(limit: &str, program: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit {limit} && exec \"$@\"")).arg("sh");
    limited.arg(program.get_program()).args(program.get_args());
    program.get_envs().for_each(|(name, value)| {
        value.map(|value| limited.env(name, value));
    });
    limited
}

#[test]
fn files_that_may_not_grow_end_a_backup_with_a_reason_and_no_mount() {
    if !can_mount("files_that_may_not_grow_end_a_backup_with_a_reason_and_no_mount") {
        return;
    }
    let (machine, stranger) = (Machine::with_store(), Machine::recovering());
    let (source, vault) = (machine.path("source"), machine.path("vault"));
    fs::create_dir(&source).unwrap();
    machine.run(["vault".as_ref(), "add".as_ref(), vault.as_os_str()]).expect_code(0);
    fs::write(source.join("file"), noise("grows", 3_000_000)).unwrap();
    // In units of 512 bytes.
    let refused = Ran::of(limited("-f 200", &machine.command(["backup"])).arg(&source));
    assert_eq!(refused.code(), 1, "{}", refused.err());
    assert!(refused.err().contains("ulimit -f"), "{}", refused.err());
    Ran::of(machine.online(["backup", "--online"]).arg(&source)).expect_code(0);
    machine.run(["check", "--read-data"]).expect_code(0);

    Ran::of(stranger.online(["recover", "--machine-key"]).arg(&vault).env("HOLDFAST_PASSWORD", PASSPHRASE))
        .expect_code(0);
    let path = stranger.path("recovery");
    fs::create_dir(&path).unwrap();
    // A block of the cache is larger.
    Ran::of(limited("-f 200", &stranger.online(["mount", "--background"])).arg(&path)).expect_code(0);
    let mount = Mounted::at(&stranger, path);
    let points = fs::read_dir(mount.path().join("by-id")).unwrap();
    let point = points.map(Result::unwrap).next().unwrap().path();
    let found = fs::read(point.join("file")).unwrap();
    assert!(found == noise("grows", 3_000_000), "other bytes\n{}", stranger.log());
    mount.umount();
}

#[test]
fn few_descriptors_serve_many_readers_of_many_packs() {
    if !can_mount("few_descriptors_serve_many_readers_of_many_packs") {
        return;
    }
    const READERS: usize = 200;
    let machine = Machine::new();
    let store = SmallStore::make(&machine, machine.path("store"));
    let source = machine.path("source");
    fs::create_dir(&source).unwrap();
    let content = |n: usize| noise(format!("big {n}"), 450_000);
    (0..READERS).for_each(|n| fs::write(source.join(name(n)), content(n)).unwrap());
    run(&machine, &store.dir, &["backup", "--as", "source", source.to_str().unwrap()]).expect_code(0);
    assert!(packs(&store.dir).len() > 80);
    let path = machine.path("recovery");
    fs::create_dir(&path).unwrap();
    let mut few = limited("-n 64", &command(&machine, &store.dir, &["mount", "--background"]));
    Ran::of(few.arg(&path)).expect_code(0);
    let mount = Mounted::at(&machine, path);
    let point = mount.path().join("by-group/default/source/latest");
    let together = Barrier::new(READERS);
    let [pid] = mount.processes()[..] else { panic!("more than one process, or none") };
    std::thread::scope(|scope| {
        for n in 0..READERS {
            let (point, together, machine) = (&point, &together, &machine);
            scope.spawn(move || {
                let file = File::open(point.join(name(n))).unwrap();
                together.wait();
                let mut bytes = vec![0; 450_000];
                file.read_exact_at(&mut bytes, 0)
                    .unwrap_or_else(|error| panic!("{n}: {error}\n{}", machine.log()));
                assert!(bytes == content(n), "other bytes in {n}");
            });
        }
    });
    assert!(crate::testkit::descriptors(pid) <= 64);
    assert!(!machine.log().contains("I/O error"), "{}", machine.log());
    mount.umount();
}

#[test]
fn a_watch_neither_keeps_a_mount_nor_is_in_its_way() {
    if !can_mount("a_watch_neither_keeps_a_mount_nor_is_in_its_way") {
        return;
    }
    let machine = Machine::with_store();
    let id = back_up(&machine, "source", 0..3, &[]);
    let mount = machine.mount("recovery", &[]);
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
    let watched =
        [mount.path().join("by-id"), mount.path().join("by-group/default/source"), mount.point(&id)];
    for path in watched.iter().chain([&mount.point(&id).join(name(1))]) {
        inotify::add_watch(&watch, path, inotify::WatchFlags::ALL_EVENTS).unwrap();
    }
    walk(&mount.point(&id), &[0, 1, 2]).unwrap();
    let second = back_up(&machine, "source", 0..4, &[]);
    wait_for("the new point", 5, || mount.point(&second).is_dir());
    walk(&mount.point(&second), &[0, 1, 2, 3]).unwrap();
    machine.run(["forget", &id, "--yes"]).expect_code(0);
    wait_for("the end of the old point", 5, || mount.point(&id).metadata().is_err());
    mount.umount();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let (mut events, mut opened, mut unmounted) = (inotify::Reader::new(&watch, &mut buffer), 0, 0);
    while let Ok(event) = events.next() {
        opened += u32::from(event.events().contains(inotify::ReadFlags::OPEN));
        unmounted += u32::from(event.events().contains(inotify::ReadFlags::UNMOUNT));
    }
    assert!(opened > 0, "it watched");
    assert!(unmounted >= 2, "who watches is told of the end");
}

#[test]
fn one_store_is_mounted_twenty_times_at_once() {
    if !can_mount("one_store_is_mounted_twenty_times_at_once") {
        return;
    }
    let machine = Machine::with_store();
    let id = back_up(&machine, "source", 0..20, &[]);
    let begin = Barrier::new(20);
    let mounted: Vec<Mounted<'_>> = std::thread::scope(|scope| {
        let (machine, begin) = (&machine, &begin);
        let one = |n: usize| {
            scope.spawn(move || {
                begin.wait();
                machine.mount(&format!("recovery-{n}"), &[])
            })
        };
        let all: Vec<_> = (0..20).map(one).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    std::thread::scope(|scope| {
        for mount in &mounted {
            let (point, all) = (mount.point(&id), (0..20).collect::<Vec<_>>());
            scope.spawn(move || walk(&point, &all).unwrap());
        }
    });
    let second = back_up(&machine, "source", 5..25, &[]);
    for mount in &mounted {
        wait_for("the new point", 5, || mount.point(&second).is_dir());
    }
    machine.run(["forget", &id, "--yes", "--prune"]).expect_code(0);
    for mount in &mounted {
        wait_for("the end of the old one", 5, || mount.point(&id).metadata().is_err());
        walk(&mount.point(&second), &(5..25).collect::<Vec<_>>()).unwrap();
    }
    for mount in &mounted {
        machine.run([OsStr::new("umount"), mount.path().as_os_str()]).expect_code(0);
    }
    mounted.iter().for_each(|mount| mount.wait_for_the_end(10));
}
