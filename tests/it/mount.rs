//! The mount in the hands of people: points that come, ends of every kind, and what it refuses.
#![allow(clippy::unwrap_used)]

mod ends;
mod told;

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::testkit::{Machine, PASSPHRASE, Ran, can_mount, mounts, processes_with, wait_for};

/// A machine with a source and one point of it, which is `one`.
fn with_point() -> (Machine, PathBuf) {
    let machine = Machine::with_store();
    let source = machine.path("docs");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "one").unwrap();
    machine.back_up(&source, &["--as", "docs"]);
    (machine, source)
}

/// A mount in the foreground, whose process is a child of the test.
fn in_foreground(machine: &Machine, path: &Path) -> Child {
    in_foreground_with(machine, path, &[])
}

fn in_foreground_with(machine: &Machine, path: &Path, env: &[(&str, &OsStr)]) -> Child {
    std::fs::create_dir_all(path).unwrap();
    let mut command = machine.command(["mount"]);
    let child = command
        .arg(path)
        .envs(env.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its guard begins after it is there.
    wait_for("the mount", 10, || path.join("by-id").is_dir() && !ends::children(&child).is_empty());
    child
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn xattr(path: &Path, name: &str) -> Option<String> {
    let mut value = vec![0; 256];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(String::from_utf8(value).unwrap())
}

#[test]
fn a_new_point_appears_while_mounted_and_latest_moves_to_it() {
    if !can_mount("a_new_point_appears_while_mounted_and_latest_moves_to_it") {
        return;
    }
    let (machine, source) = with_point();
    let mount = machine.mount("recovery", &[]);
    let latest = mount.path().join("by-group/default/docs/latest");
    let first = latest.read_link().unwrap();
    assert_eq!(std::fs::read_to_string(latest.join("file")).unwrap(), "one");
    std::fs::write(source.join("file"), "two, and longer").unwrap();
    // Names of points have seconds; two points of one second get different names all the same.
    let second = machine.back_up(&source, &["--as", "docs"]);
    let id = second["snapshot_id"].as_str().unwrap();
    wait_for("the new point", 5, || mount.point(id).is_dir());
    wait_for("latest to move", 5, || latest.read_link().unwrap() != first);
    assert_eq!(std::fs::read_to_string(latest.join("file")).unwrap(), "two, and longer");
    assert_eq!(std::fs::read_to_string(mount.point(id).join("file")).unwrap(), "two, and longer");
    let old = mount.path().join("by-group/default/docs").join(first).join("file");
    assert_eq!(std::fs::read_to_string(old).unwrap(), "one");
    assert_eq!(mount.path().join("by-id").read_dir().unwrap().count(), 2);
}

#[test]
fn all_doors_lead_to_the_same_point() {
    if !can_mount("all_doors_lead_to_the_same_point") {
        return;
    }
    let (machine, _) = with_point();
    let mount = machine.mount("recovery", &[]);
    let list = machine.run(["snapshots", "--json"]).expect_code(0).json();
    let id = list[0]["id"].as_str().unwrap();
    let days: Vec<_> =
        mount.path().join("by-time").read_dir().unwrap().map(|day| day.unwrap().path()).collect();
    assert_eq!(days.len(), 1);
    let in_time: Vec<_> = days[0].read_dir().unwrap().map(|point| point.unwrap().path()).collect();
    assert_eq!(in_time.len(), 1);
    let name = in_time[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("docs@") && !name.contains(':'), "{name}");
    let doors = [
        mount.path().join("by-group/default/docs/latest"),
        mount.point(id),
        mount.path().join("by-id").join(&id[..8]),
        in_time[0].clone(),
    ];
    for door in doors {
        assert_eq!(std::fs::read_to_string(door.join("file")).unwrap(), "one", "{}", door.display());
        assert_eq!(xattr(&door.join("file"), "user.holdfast.point").as_deref(), Some(id));
    }
}

#[test]
fn attributes_of_ours_are_answered_and_never_listed() {
    if !can_mount("attributes_of_ours_are_answered_and_never_listed") {
        return;
    }
    let (machine, _) = with_point();
    let mount = machine.mount("recovery", &[]);
    let file = mount.path().join("by-group/default/docs/latest/file");
    assert_eq!(xattr(&file, "user.holdfast.tier").as_deref(), Some("staging"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
    assert_eq!(xattr(&file, "user.holdfast.tier").as_deref(), Some("memory"));
    assert_eq!(xattr(&file, "user.holdfast.verified"), None, "nobody looked yet");
    machine.run(["check", "--read-data"]).expect_code(0);
    let verified = xattr(&file, "user.holdfast.verified").unwrap();
    assert!(verified.starts_with("20") && verified.ends_with('Z') && verified.len() == 20, "{verified}");
    let mut names = vec![0; 1024];
    assert_eq!(rustix::fs::llistxattr(&file, &mut names[..]), Ok(0));
    assert_eq!(xattr(&file, "user.holdfast.nothing"), None);
    assert_eq!(xattr(&file, "user.holdfast.source").as_deref(), Some("docs"));
    assert_eq!(xattr(&file, "user.holdfast.content").map(|name| name.len()), Some(64));
    assert_eq!(xattr(&mount.path().join("by-id"), "user.holdfast.source"), None);
    // Tools that list see none of them, and a copy of everything has none.
    let tool = |name: &str, options: &[&str], last: &[&Path]| {
        let output = std::process::Command::new(name).args(options).args(last).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(tool("getfattr", &["-d", "-m-"], &[&file]), "");
    let by_name = tool("getfattr", &["--only-values", "-n", "user.holdfast.source"], &[&file]);
    assert_eq!(by_name, "docs");
    let copy = machine.path("copy");
    tool("cp", &["-a"], &[&file, &copy]);
    assert_eq!(tool("getfattr", &["-d", "-m-"], &[&copy]), "");
    assert_eq!(xattr(&copy, "user.holdfast.point"), None);
}

#[test]
fn a_mount_in_the_background_gets_the_passphrase_that_the_command_line_names() {
    if !can_mount("a_mount_in_the_background_gets_the_passphrase_that_the_command_line_names") {
        return;
    }
    let (machine, _) = with_point();
    machine.forget_keys();
    std::fs::write(machine.path("passphrase"), PASSPHRASE).unwrap();
    for way in [["--password-file", "passphrase"], ["--password-command", "cat passphrase"]] {
        let wrong = [("HOLDFAST_PASSWORD", "a wrong passphrase")];
        let mount = machine.mount_with("recovery", &way, &wrong);
        assert!(mount.path().join("by-id").is_dir(), "{way:?}");
        mount.umount();
    }
}

#[test]
fn nothing_can_be_written() {
    if !can_mount("nothing_can_be_written") {
        return;
    }
    let (machine, _) = with_point();
    let mount = machine.mount("recovery", &[]);
    let point = mount.path().join("by-group/default/docs/latest");
    let refused = [
        std::fs::write(point.join("new"), "n"),
        std::fs::write(point.join("file"), "n"),
        std::fs::remove_file(point.join("file")),
        std::fs::create_dir(mount.path().join("by-id/new")),
        std::fs::rename(point.join("file"), point.join("other")),
    ];
    for result in refused {
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
}

#[test]
fn sigterm_and_umount_leave_nothing_behind() {
    if !can_mount("sigterm_and_umount_leave_nothing_behind") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    for end in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = in_foreground(&machine, &path);
        signal(&child, end);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{end}");
        assert!(!mounts().contains(&path), "{end}");
        assert_eq!(path.read_dir().unwrap().count(), 0, "{end}");
    }
    let mut child = in_foreground(&machine, &path);
    machine.run([OsStr::new("umount"), path.as_os_str()]).expect_code(0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mount = machine.mount("recovery", &[]);
    mount.process();
    mount.umount();
    assert!(!mounts().contains(&path));
    assert!(processes_with(&path).is_empty());
    machine
        .run([OsStr::new("umount"), path.as_os_str()])
        .expect_code(1)
        .expect_err(&["nothing is mounted", path.to_str().unwrap()]);
}

#[test]
fn a_file_held_open_is_read_on_after_the_mount_went_out_of_sight() {
    if !can_mount("a_file_held_open_is_read_on_after_the_mount_went_out_of_sight") {
        return;
    }
    let (machine, _) = with_point();
    let mount = machine.mount("recovery", &[]);
    let path = mount.path().to_path_buf();
    let mut file = std::fs::File::open(path.join("by-group/default/docs/latest/file")).unwrap();
    let ran = machine.run([OsStr::new("umount"), path.as_os_str()]).expect_code(0);
    assert!((ran.out() + &ran.err()).contains("keep them until they close them"), "{}", ran.out());
    assert!(!mounts().contains(&path));
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one");
    // The place is free again at once, while the old process still serves its open file.
    let again = machine.mount("recovery", &[]);
    assert_eq!(again.processes().len(), 2);
    drop(file);
    wait_for("the end of the first mount", 10, || again.processes().len() == 1);
    assert!(again.path().join("by-id").is_dir());
}

#[test]
fn a_dead_mount_stays_in_the_way_of_others_and_is_replaced_by_mounting_again() {
    if !can_mount("a_dead_mount_stays_in_the_way_of_others_and_is_replaced_by_mounting_again") {
        return;
    }
    let (machine, _) = with_point();
    let path = machine.path("recovery");
    let mut child = in_foreground(&machine, &path);
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    // An empty directory in its place would make a mirror with deletion delete the mirror.
    assert!(mounts().contains(&path));
    assert_eq!(path.read_dir().unwrap_err().raw_os_error(), Some(nix::errno::Errno::ENOTCONN as i32));
    let mount = machine.mount("recovery", &[]);
    let file = mount.path().join("by-group/default/docs/latest/file");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "one");
    assert_eq!(mounts().iter().filter(|mounted| **mounted == path).count(), 1);
    mount.umount();
    let mut child = in_foreground(&machine, &path);
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    machine.run([OsStr::new("umount"), path.as_os_str()]).expect_code(0);
    assert!(!mounts().contains(&path));
}

#[test]
fn a_mount_covers_neither_the_store_nor_anything_else() {
    if !can_mount("a_mount_covers_neither_the_store_nor_anything_else") {
        return;
    }
    let (machine, source) = with_point();
    let inside = machine.store().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let busy = machine.mount("recovery", &[]);
    let table = [
        (machine.store(), "would cover the store"),
        (inside, "would cover the store"),
        (machine.path(""), "would cover the store"),
        (source.clone(), "is not empty"),
        (source.join("file"), "is not a directory"),
        (busy.path().to_path_buf(), "already mounted"),
        (machine.path("missing"), "No such file"),
    ];
    for (path, said) in table {
        for options in [&["mount"][..], &["mount", "--background"]] {
            let ran = Ran::of(machine.command(options).arg(&path)).expect_code(1);
            assert!(ran.err().contains(said), "{}: {}", path.display(), ran.err());
        }
    }
    assert_eq!(mounts().iter().filter(|path| path.starts_with(machine.root())).count(), 1);
}

#[test]
fn quickstart_does_everything_once_and_then_takes_another_point() {
    if !can_mount("quickstart_does_everything_once_and_then_takes_another_point") {
        return;
    }
    let machine = Machine::new();
    let source = machine.path("documents");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("letter"), "dear").unwrap();
    let quickstart = || Ran::of(machine.command(["quickstart"]).arg(&source)).expect_code(0).out();
    let home = machine.root().join("home/.local/share/holdfast");
    let said = quickstart();
    let mount = home.join("recovery");
    for place in [home.join("store"), home.join("vault"), mount.clone()] {
        assert!(said.contains(place.to_str().unwrap()), "{} is not in {said}", place.display());
    }
    assert!(said.contains("ls ") && said.contains("holdfast umount"), "{said}");
    let points = || mount.join("by-id").read_dir().unwrap().count();
    assert_eq!(points(), 1);
    std::fs::write(source.join("letter"), "dear all").unwrap();
    let again = quickstart();
    assert!(again.contains(" vaulted\n") && again.contains("mounted"), "{again}");
    assert!(!again.contains("abandon ") && again.lines().count() < said.lines().count() / 2, "{again}");
    wait_for("the second point", 5, || points() == 2);
    let sources: Vec<_> =
        mount.join("by-group/default").read_dir().unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(sources.len(), 1);
    wait_for("latest to move", 5, || {
        std::fs::read_to_string(sources[0].join("latest/letter")).unwrap() == "dear all"
    });
    // Killed or unmounted, the next one mounts again.
    machine.run([OsStr::new("umount"), mount.as_os_str()]).expect_code(0);
    quickstart();
    assert_eq!(points(), 3);
    machine.run([OsStr::new("umount"), mount.as_os_str()]).expect_code(0);
    wait_for("the end of the mount's process", 10, || processes_with(&mount).is_empty());
}

#[test]
fn quickstart_shows_the_words_however_little_it_is_to_say() {
    if !can_mount("quickstart_shows_the_words_however_little_it_is_to_say") {
        return;
    }
    for flag in ["-q", "--json"] {
        let machine = Machine::new();
        let source = machine.path("documents");
        std::fs::create_dir(&source).unwrap();
        let ran = Ran::of(machine.command(["quickstart", flag]).arg(&source)).expect_code(0);
        let home = machine.root().join("home/.local/share/holdfast");
        machine.run([OsStr::new("umount"), home.join("recovery").as_os_str()]).expect_code(0);
        let first = ran.out().lines().next().unwrap_or_default().to_owned();
        let words = match flag {
            "--json" => {
                let made: serde_json::Value = serde_json::from_str(&first).unwrap();
                made["recovery_key"].as_str().unwrap().to_owned()
            }
            _ => words_on(&ran.out()),
        };
        std::fs::remove_dir_all(machine.root().join("keys")).unwrap();
        let mut command = machine.command(["snapshots", "--store"]);
        Ran::of(command.arg(home.join("store")).env("HOLDFAST_RECOVERY_KEY", &words)).expect_code(0);
    }
}

/// The 24 numbered words of a printed sheet.
fn words_on(sheet: &str) -> String {
    let parts: Vec<&str> = sheet.split("THE 24 WORDS").nth(1).unwrap().split_whitespace().collect();
    let numbered = |n: usize| parts[parts.iter().position(|part| **part == n.to_string()).unwrap() + 1];
    (1..=24).map(numbered).collect::<Vec<_>>().join(" ")
}
