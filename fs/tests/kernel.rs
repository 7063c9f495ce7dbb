//! The file system as the kernel shows it: real mounts of points in memory.
//!
//! Needs root and `/dev/fuse`; without them each test says that it was skipped.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::{self, File};
use std::io::{Read, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use holdfast_fs::mount::unmount_path;
use holdfast_fs::recovery::Reach;
use holdfast_fs::testing::{Behaviour, MemoryRecovery, Part, link, node, point};
use holdfast_fs::{Mount, MountError, MountOptions, Unmounted};
use holdfast_store::clock::{Clock, SystemClock, Timestamp};
use holdfast_store::tree::{Node, NodeKind, Xattr};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, Whence, lseek};

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

fn can_mount() -> bool {
    let can = nix::unistd::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !can {
        println!("SKIPPED: needs root and /dev/fuse");
    }
    can
}

fn options(dir: &Path) -> MountOptions {
    MountOptions { read_timeout: TIMEOUT, ..MountOptions::new(dir, "test") }
}

/// A mount of one point with these entries, unless this machine cannot mount.
fn bed(make: impl FnOnce(&MemoryRecovery) -> Vec<Node>) -> Option<Bed> {
    if !can_mount() {
        return None;
    }
    let recovery = MemoryRecovery::new();
    let root = recovery.directory("root", make(&recovery));
    recovery.add(point("h", "g", "s", NOON, 1), root);
    let dir = tempfile::tempdir().unwrap();
    let mount = Some(Mount::spawn(recovery.clone(), &options(dir.path()), clock()).unwrap());
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

#[test]
fn files_directories_links_and_devices_are_those_of_the_source() {
    let Some(mut bed) = bed(|r| {
        let a = Node {
            links: 2,
            inode: 7,
            uid: 12,
            gid: 34,
            mode: 0o4750,
            ..r.file("a", &[Part::Data(b"hello".to_vec())])
        };
        let b = Node { name: b"b".to_vec(), ..a.clone() };
        let odd = Node { name: b"\xff\xfe\n".to_vec(), ..r.file("", &[]) };
        let time = Timestamp { seconds: -1_000_000, nanos: 5 };
        let old = Node { mtime: time, ctime: time, ..r.file("old", &[]) };
        let device = Node { device: Some((8, 300)), ..node("dev", NodeKind::BlockDevice) };
        vec![
            a,
            b,
            odd,
            old,
            device,
            node("fifo", NodeKind::Fifo),
            link("l", "a"),
            r.directory("d", vec![r.file("x", &[])]),
        ]
    }) else {
        return;
    };
    let (a, b) = (fs::metadata(bed.at("a")).unwrap(), fs::metadata(bed.at("b")).unwrap());
    assert_eq!((a.ino(), a.nlink(), a.uid(), a.gid(), a.len()), (b.ino(), 2, 12, 34, 5));
    assert_eq!((a.permissions().mode() & 0o7777, a.blocks()), (0o4750, 8));
    assert_eq!(fs::read(bed.at("b")).unwrap(), b"hello");
    assert_eq!(fs::read(bed.at("l")).unwrap(), b"hello");
    let old = fs::metadata(bed.at("old")).unwrap();
    assert_eq!((old.mtime(), old.mtime_nsec()), (-1_000_000, 5));
    let device = fs::symlink_metadata(bed.at("dev")).unwrap();
    assert!(device.file_type().is_block_device());
    assert_eq!((nix::sys::stat::major(device.rdev()), nix::sys::stat::minor(device.rdev())), (8, 300));
    let mut names: Vec<_> =
        fs::read_dir(bed.at("")).unwrap().map(|e| e.unwrap().file_name().as_bytes().to_vec()).collect();
    names.sort();
    assert_eq!(names, [&b"a"[..], b"b", b"d", b"dev", b"fifo", b"l", b"old", b"\xff\xfe\n"]);
    assert_eq!(fs::metadata(bed.at("none")).unwrap_err().raw_os_error(), Some(Errno::ENOENT as i32));
    assert_eq!(fs::write(bed.at("new"), b"").unwrap_err().raw_os_error(), Some(Errno::EROFS as i32));
    assert_eq!(bed.unmount(), Unmounted::Cleanly);
    assert!(!is_mounted(bed.dir.path()));
}

#[test]
fn sparse_files_are_sought_and_read_and_big_directories_listed_whole() {
    let Some(mut bed) = bed(|r| {
        let sparse = r.file("sparse", &[Part::Hole(1 << 20), Part::Data(vec![9; 4096]), Part::Hole(1 << 30)]);
        let many = (0..3000).map(|n| r.file(&format!("file-with-a-longer-name-{n}"), &[])).collect();
        vec![sparse, r.directory("many", many)]
    }) else {
        return;
    };
    let mut file = File::open(bed.at("sparse")).unwrap();
    assert_eq!(lseek(&file, 0, Whence::SeekData).unwrap(), 1 << 20);
    assert_eq!(lseek(&file, 1 << 20, Whence::SeekHole).unwrap(), (1 << 20) + 4096);
    assert_eq!(lseek(&file, 1 << 25, Whence::SeekData).unwrap_err(), Errno::ENXIO);
    file.seek(SeekFrom::Start((1 << 20) - 2)).unwrap();
    let mut bytes = [1; 6];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 9, 9, 9, 9]);
    assert_eq!(file.metadata().unwrap().blocks(), 8);
    drop(file);
    for _ in 0..2 {
        assert_eq!(fs::read_dir(bed.at("many")).unwrap().count(), 3000);
    }
    let (ok, out) = shell(
        "find . | wc -l; ls -lR | grep -c longer-name; du -s --apparent-size . | cut -f1",
        &bed.at("many"),
    );
    assert!(ok);
    assert_eq!(out.split_whitespace().take(2).collect::<Vec<_>>(), ["3001", "3000"]);
    assert_eq!(bed.unmount(), Unmounted::Cleanly);
}

#[test]
fn a_second_walk_asks_nothing() {
    let Some(bed) = bed(|r| {
        let files =
            |n: usize| (0..n).map(|n| r.file(&format!("f{n}"), &[Part::Data(vec![1; 5000])])).collect();
        vec![r.directory("a", files(300)), r.directory("b", vec![r.directory("c", files(50))])]
    }) else {
        return;
    };
    let script = "find . -type f | sort | xargs cat | wc -c; ls -lR | wc -l; stat none 2>&1; cat a/none 2>&1";
    let (_, first) = shell(script, &bed.at(""));
    assert!(first.starts_with("1750000"), "{first}");
    let asked = bed.recovery.asks();
    // One read of each file, some listings, and the attributes that `ls -l` asks for.
    assert!(asked < 350 * 4, "{asked}");
    let script =
        "find . -type f | sort | xargs cat | wc -c; find . -ls | wc -l; stat none 2>&1; cat a/none 2>&1";
    assert!(shell(script, &bed.at("")).1.starts_with("1750000"));
    assert_eq!(bed.recovery.asks(), asked);
}

/// Waits for what the kernel is given unasked, which no answer tells of.
fn given(bed: &Bed, contents: u64) {
    eventually("contents that nobody asked for", || bed.recovery.looked_ahead() == contents);
    SystemClock.pause(Duration::from_millis(100));
}

#[test]
fn who_reads_a_directory_in_order_is_given_what_comes_next() {
    let bytes = |n: usize| vec![n as u8; 1 + n * 977 % 9000];
    let name = |n: usize| format!("d/{n:03}");
    let Some(mut bed) = bed(|r| {
        let files = (0..40).map(|n| r.file(&format!("{n:03}"), &[Part::Data(bytes(n))]));
        vec![r.directory("d", files.collect())]
    }) else {
        return;
    };
    let read = |n: usize| assert_eq!(fs::read(bed.at(&name(n))).unwrap(), bytes(n), "{n}");
    fs::read_dir(bed.at("d")).unwrap().for_each(|entry| drop(entry.unwrap()));
    read(0);
    read(1);
    given(&bed, 7);
    assert_eq!(bed.recovery.attempts(), 2);
    (2..6).for_each(read);
    assert_eq!(bed.recovery.attempts(), 2, "the kernel has them");
    read(6);
    given(&bed, 7 + 15);
    (7..19).for_each(read);
    given(&bed, 7 + 15 + 14);
    (19..40).for_each(read);
    // Four, unless somebody empties this machine's caches meanwhile.
    let asked = bed.recovery.attempts();
    assert!(asked <= 10, "{asked} requests for 40 files");
    assert_eq!(bed.unmount(), Unmounted::Cleanly);
}

#[test]
fn who_jumps_about_in_a_file_is_given_what_was_decoded_for_him() {
    const CHUNK: usize = 70_001;
    let bytes: Vec<u8> = (0..40 * CHUNK).map(|n| (n / 7) as u8).collect();
    let Some(mut bed) = bed(|r| {
        let parts: Vec<_> = bytes.chunks(CHUNK).map(|part| Part::Data(part.to_vec())).collect();
        vec![r.file("image", &parts)]
    }) else {
        return;
    };
    let image = File::open(bed.at("image")).unwrap();
    nix::fcntl::posix_fadvise(&image, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
    let read = |at: usize, len: usize| {
        let mut found = vec![0; len];
        image.read_exact_at(&mut found, at as u64).unwrap();
        assert!(found == bytes[at..at + len], "{at}");
    };
    let chunk = |n: usize| (n * CHUNK).next_multiple_of(4096)..(n + 1) * CHUNK / 4096 * 4096;
    let before = bed.recovery.attempts();
    read(chunk(30).start + 8192, 100);
    eventually("the rest of the chunk", || bed.recovery.attempts() == before + 3);
    SystemClock.pause(Duration::from_millis(100));
    read(chunk(30).start, chunk(30).len());
    assert_eq!(bed.recovery.attempts(), before + 3, "nothing is asked for twice");
    read(39 * CHUNK, CHUNK);
    read(0, bytes.len());
    drop(image);
    assert_eq!(bed.unmount(), Unmounted::Cleanly);
}

#[test]
fn extended_attributes_are_read_by_name_and_ours_are_not_listed() {
    let Some(bed) = bed(|r| {
        let xattrs = vec![Xattr { name: b"user.colour".to_vec(), value: b"blue".to_vec() }];
        vec![Node { xattrs, ..r.file("f", &[Part::Data(vec![1])]) }]
    }) else {
        return;
    };
    let path = bed.at("f");
    let get = |name: &str| {
        let mut value = [0u8; 64];
        rustix::fs::getxattr(&path, name, &mut value[..]).map(|len| value[..len].to_vec())
    };
    assert_eq!(get("user.colour").unwrap(), b"blue");
    assert_eq!(get("user.holdfast.tier").unwrap(), b"memory");
    assert_eq!(get("user.holdfast.point").unwrap().len(), 32);
    assert_eq!(get("user.none").unwrap_err(), rustix::io::Errno::NODATA);
    assert_eq!(
        rustix::fs::getxattr(&path, "user.colour", &mut [0u8; 2][..]).unwrap_err(),
        rustix::io::Errno::RANGE
    );
    let mut names = [0u8; 64];
    let len = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
    assert_eq!(&names[..len], b"user.colour\0");
}

#[test]
fn points_appear_and_vanish_while_mounted() {
    let Some(bed) = bed(|r| vec![r.file("f", &[])]) else { return };
    let source = bed.dir.path().join("by-group/g/s");
    let list = || {
        let mut names: Vec<_> =
            fs::read_dir(&source).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let second = "2026-11-20T12.01.00Z";
    assert_eq!(list(), ["2026-11-20T12.00.00Z", "latest"]);
    assert!(fs::metadata(source.join(second)).is_err());
    let root = bed.recovery.directory("root", vec![bed.recovery.file("g", &[])]);
    bed.recovery.add(point("h", "g", "s", NOON + 60, 2), root);
    eventually("the new point", || list() == ["2026-11-20T12.00.00Z", second, "latest"]);
    eventually("the new point by name", || fs::metadata(source.join(second)).is_ok());
    eventually("the link to it", || fs::read_link(source.join("latest")).unwrap() == Path::new(second));
    assert!(fs::metadata(source.join("latest/g")).is_ok());
    assert!(fs::metadata(source.join("@GMT-2026.11.20-12.01.00/g")).is_ok());
    let first = point("h", "g", "s", NOON, 1).point.id;
    let short = first.hex()[..8].to_owned();
    assert!(fs::metadata(bed.dir.path().join("by-id").join(short).join("f")).is_ok());
    bed.recovery.remove(&first);
    eventually("the end of the old point", || list() == [second, "latest"]);
    eventually("the end of its name", || fs::metadata(bed.at("f")).is_err());
}

#[test]
fn one_directory_under_several_names_does_not_wander() {
    let Some(bed) = bed(|r| vec![r.directory("d", vec![r.file("f", &[])])]) else { return };
    let id = point("h", "g", "s", NOON, 1).point.id.hex();
    let by_id = bed.dir.path().join("by-id").join(&id).join("d");
    let gmt = bed.dir.path().join("by-group/g/s/@GMT-2026.11.20-12.00.00/d");
    let doors = [bed.at("d"), by_id, gmt];
    for here in &doors {
        for other in &doors {
            // The kernel would move the directory we stand in, if both were one to it.
            let (ok, out) = shell(&format!("ls '{}'; /bin/pwd -P", other.display()), here);
            assert!(ok);
            let path = fs::canonicalize(here).unwrap();
            assert_eq!(out.lines().collect::<Vec<_>>(), ["f", path.to_str().unwrap()]);
        }
    }
}

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
    bed.recovery.contents(Behaviour::Cold(Reach::Vault));
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
    let mut child =
        Command::new("cat").arg(bed.at("slow")).stdout(std::process::Stdio::null()).spawn().unwrap();
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
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&at).process_group(0);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the question", || recovery.asks() > asked);
        let group = Pid::from_raw(child.id().cast_signed());
        killpg(group, signal).unwrap();
        eventually(&format!("the end of {script:?} by {signal}"), || child.try_wait().unwrap().is_some());
        eventually("the end of all that it began", || killpg(group, None).is_err());
        recovery.contents(Behaviour::Cold(Reach::Vault));
        recovery.directories(Behaviour::Cold(Reach::Vault));
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
    eventually("all readers", || recovery.reads() >= 16);
    readers.iter_mut().for_each(|reader| reader.kill().unwrap());
    recovery.directories(Behaviour::Cold(Reach::Vault));
    let listing = at.join("d");
    let listing = std::thread::spawn(move || fs::read_dir(listing).unwrap().count());
    eventually("the listing", || listing.is_finished());
    assert_eq!(listing.join().unwrap(), 1);
    for mut reader in readers {
        reader.wait().unwrap();
    }
    assert_eq!(mount.unmount().unwrap(), Unmounted::Cleanly);
}

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

#[test]
fn a_point_is_the_lower_layer_of_an_overlay() {
    let Some(bed) = bed(|r| vec![r.directory("d", vec![r.file("f", &[Part::Data(b"old".to_vec())])])]) else {
        return;
    };
    let dirs = tempfile::tempdir().unwrap();
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| {
        fs::create_dir(dirs.path().join(name)).unwrap();
        dirs.path().join(name)
    });
    // The upper layer must not be an overlay itself, as the root of a container may be.
    let id = point("h", "g", "s", NOON, 1).point.id.hex();
    let lower = bed.dir.path().join("by-id").join(id);
    let data =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let none = nix::mount::MsFlags::empty();
    if let Err(errno) =
        nix::mount::mount(Some("overlay"), &merged, Some("overlay"), none, Some(data.as_str()))
    {
        println!("SKIPPED: no overlay here: {errno}");
        return;
    }
    let file = merged.join("d/f");
    assert_eq!(fs::read(&file).unwrap(), b"old");
    let changed = fs::write(&file, b"new").and_then(|()| fs::rename(&file, merged.join("d/g")));
    let seen = fs::read(merged.join("d/g"));
    nix::mount::umount(&merged).unwrap();
    changed.unwrap();
    assert_eq!(seen.unwrap(), b"new");
    assert_eq!(fs::read(bed.at("d/f")).unwrap(), b"old");
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
        .args(["--exact", "child_that_mounts_and_waits"])
        .env("HOLDFAST_TEST_MOUNT", dir.path())
        .stdout(std::process::Stdio::null())
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
