//! What counts as unchanged and what must not, with the real kernel: files that change without a sign, as programs and people make them.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::testkit::{Machine, Ran, is_root, skip};

/// A directory on a disk: those for temporary files often lie in memory, where nothing counts as unchanged.
pub fn on_disk() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs a command by a clock that is so many seconds ahead, by which what was just made is older.
#[track_caller]
pub fn run_later(command: &mut Command, seconds: u64) -> Ran {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Ran::of(command.env("HOLDFAST_CLOCK", format!("{}@{now}x1", now + seconds)))
}

/// Takes a point by such a clock; what `backup --json` says of it.
#[track_caller]
pub fn back_up_later(machine: &Machine, source: &Path, seconds: u64, options: &[&str]) -> Value {
    let mut command = machine.command(["backup", "--json"]);
    run_later(command.args(options).arg(source), seconds).expect_code(0).json()
}

/// The bytes of a file of the point of which `summary` tells.
#[track_caller]
fn bytes_of(machine: &Machine, summary: &Value, name: &str) -> Vec<u8> {
    let id = summary["snapshot_id"].as_str().unwrap();
    std::fs::read(machine.restore(id, &format!("out-{id}")).join(name)).unwrap()
}

#[test]
fn files_that_were_just_made_are_read_by_two_points_and_stored_once() {
    let (machine, dir) = (Machine::with_store(), on_disk());
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    (0..20_u8).for_each(|n| std::fs::write(source.join(n.to_string()), vec![n; 10_000]).unwrap());
    machine.back_up(&source, &[]);
    let second = machine.back_up(&source, &[]);
    assert_eq!((&second["files_new"], &second["files_changed"]), (&0.into(), &20.into()), "{second}");
    assert_eq!(second["data_added"], 0, "{second}");
    let third = back_up_later(&machine, &source, 120, &[]);
    assert_eq!((&third["files_changed"], &third["data_added"]), (&20.into(), &0.into()), "{third}");
    let fourth = back_up_later(&machine, &source, 180, &[]);
    assert_eq!(fourth["files_unmodified"], 20, "{fourth}");
}

/// A program that has a file mapped and stores each word that it is given at the file's begin.
struct Mapping {
    program: Child,
    said: BufReader<ChildStdout>,
}

impl Mapping {
    const SCRIPT: &str = "
import mmap, sys
file = open(sys.argv[1], 'r+b')
mapped = mmap.mmap(file.fileno(), 0)
for word in sys.stdin:
    mapped[0:5] = word.strip().encode()
    print('stored', flush=True)
";

    fn of(file: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", Self::SCRIPT]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = command.spawn().unwrap();
        let said = BufReader::new(program.stdout.take().unwrap());
        Self { program, said }
    }

    fn store(&mut self, word: &str) {
        writeln!(self.program.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line, "stored\n");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        drop(self.program.stdin.take());
        let _ = self.program.wait();
    }
}

#[test]
fn what_a_program_stores_through_a_mapping_after_a_point_is_in_the_next_one() {
    let test = "what_a_program_stores_through_a_mapping_after_a_point_is_in_the_next_one";
    if Command::new("python3").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip(test, "python3 is not here");
    }
    // By the first clock the file is hot when it is read, by the second one the kernel is merely late in writing it out.
    for ahead in [0, 120] {
        let (machine, dir) = (Machine::with_store(), on_disk());
        let file = dir.path().join("db");
        std::fs::write(&file, vec![b'0'; 200_000]).unwrap();
        let mut mapping = Mapping::of(&file);
        mapping.store("first");
        let first = back_up_later(&machine, dir.path(), ahead, &[]);
        mapping.store("later");
        let second = back_up_later(&machine, dir.path(), ahead + 60, &[]);
        assert_eq!(&bytes_of(&machine, &first, "db")[..5], b"first", "{ahead} s ahead");
        assert_eq!(&bytes_of(&machine, &second, "db")[..5], b"later", "{ahead} s ahead");
    }
}

/// Mounts the image at `at`, read-only; whether this machine can.
fn mount_image(image: &Path, at: &Path) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-o", "loop,ro"]).args([image, at]).stderr(Stdio::null());
    mount.status().is_ok_and(|status| status.success())
}

#[test]
fn the_next_image_at_a_mount_point_is_read_though_all_its_times_are_those_of_the_last() {
    let test = "the_next_image_at_a_mount_point_is_read_though_all_its_times_are_those_of_the_last";
    if !is_root() {
        return skip(test, "only root can mount an image");
    }
    let (machine, dir) = (Machine::with_store(), on_disk());
    let (tree, image, at) = (dir.path().join("tree"), dir.path().join("image"), machine.path("image"));
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::create_dir(&at).unwrap();
    std::fs::write(tree.join("version"), "release=1").unwrap();
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let mut make = Command::new("mkfs.ext4");
    Ran::of(make.args(["-q", "-F", "-d"]).args([&tree, &image])).expect_code(0);
    if !mount_image(&image, &at) {
        return skip(test, "no loop device can be had");
    }
    let unmount = || Ran::of(Command::new("umount").arg(&at)).expect_code(0);
    let first = back_up_later(&machine, &at, 120, &[]);
    unmount();
    // What the next build of the same image would be: other bytes, and nothing else.
    let mut bytes = std::fs::read(&image).unwrap();
    let found = bytes.windows(9).position(|w| w == b"release=1").unwrap();
    bytes[found + 8] = b'2';
    std::fs::write(&image, bytes).unwrap();
    assert!(mount_image(&image, &at));
    let second = back_up_later(&machine, &at, 180, &[]);
    unmount();
    assert_eq!(bytes_of(&machine, &first, "version"), b"release=1");
    assert_eq!(bytes_of(&machine, &second, "version"), b"release=2");
}
