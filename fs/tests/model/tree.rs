//! Real trees by chance: what a source can hold, and what can happen to it between two points.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use crate::chance::Chance;

/// Entries of a directory of several pages.
const LARGE: u64 = 900;

/// Makes a tree at `root`, which is an empty directory.
pub fn grow(root: &Path, chance: &mut Chance) {
    let mut files = Vec::new();
    branch(root, chance, 0, &mut files);
    if chance.one_in(4) {
        large(&root.join("large"), chance);
    }
    for _ in 0..chance.below(6) {
        link(root, chance, &files);
    }
}

/// Lets time pass: entries come, go and change.
pub fn alter(root: &Path, chance: &mut Chance) {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap()) {
        let kind = entry.file_type().unwrap();
        if kind.is_file() && chance.one_in(2) {
            change(&entry.path(), chance);
        } else if chance.one_in(6) {
            match kind.is_dir() {
                true => std::fs::remove_dir_all(entry.path()).unwrap(),
                false => std::fs::remove_file(entry.path()).unwrap(),
            }
        } else if kind.is_dir() && entry.file_name() != "large" {
            branch(&entry.path(), chance, 3, &mut files);
        }
    }
    branch(root, chance, 2, &mut files);
}

fn change(path: &Path, chance: &mut Chance) {
    let file = File::options().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    match chance.below(3) {
        0 => file.write_all_at(&chance.bytes(50), len.min(1 << 30)).unwrap(),
        1 => file.write_all_at(b"!", chance.below(len.clamp(1, 1 << 30))).unwrap(),
        _ => file.set_len(len / 2).unwrap(),
    }
}

fn branch(at: &Path, chance: &mut Chance, depth: u64, files: &mut Vec<PathBuf>) {
    for _ in 0..chance.below(9) {
        let path = at.join(OsStr::from_bytes(&name(chance)));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match chance.below(12) {
            0..3 if depth < 4 => {
                std::fs::create_dir(&path).unwrap();
                branch(&path, chance, depth + 1, files);
            }
            0..4 => special(&path, chance),
            4 => symlink(OsStr::from_bytes(&target(chance)), &path).unwrap(),
            5..7 => sparse(&path, chance),
            _ => std::fs::write(&path, content(chance)).unwrap(),
        }
        if path.symlink_metadata().unwrap().is_file() {
            files.push(path.clone());
        }
        dress(&path, chance);
    }
    dress(at, chance);
}

/// Anything but what ends a name.
fn name(chance: &mut Chance) -> Vec<u8> {
    let odd: [&[u8]; 9] =
        [b"-rf", b"...", b" ", b"new\nline", b"\xff\xfe", b"*", b"\\", b"e\xcc\x81", b"%s%n"];
    let long = if chance.one_in(4) { 255 } else { 12 };
    let len = 1 + chance.index(long);
    match chance.below(4) {
        0 => chance.pick(&odd).to_vec(),
        1 => chance
            .bytes(len)
            .into_iter()
            .map(|byte| if [0, b'/', b'.'].contains(&byte) { b'x' } else { byte })
            .collect(),
        _ => (0..len).map(|_| b'a' + chance.below(26) as u8).collect(),
    }
}

fn target(chance: &mut Chance) -> Vec<u8> {
    let longest = if chance.one_in(8) { 4095 } else { 40 };
    let len = 1 + chance.index(longest);
    chance.bytes(len).into_iter().map(|byte| byte.max(1)).collect()
}

fn content(chance: &mut Chance) -> Vec<u8> {
    let len = match chance.below(12) {
        0 => 0,
        1 => 100_000 + chance.index(300_000),
        2 => 4096 * chance.index(20),
        _ => chance.index(5000),
    };
    if chance.one_in(8) { vec![0; len] } else { chance.bytes(len) }
}

/// Stretches of data and holes, of which some files have more than one page of a list holds.
fn sparse(path: &Path, chance: &mut Chance) {
    let file = File::create(path).unwrap();
    let stretches = if chance.one_in(6) { 200 } else { chance.below(8) };
    let mut at = 0;
    for _ in 0..stretches {
        at += if chance.one_in(3) { 4096 * chance.below(6) } else { chance.below(40_000) };
        let len = chance.index(9000);
        file.write_all_at(&chance.bytes(len), at).unwrap();
        at += len as u64;
    }
    let tail = if chance.one_in(4) { chance.below(1 << 40) } else { chance.below(9000) };
    file.set_len(at + tail).unwrap();
}

fn special(path: &Path, chance: &mut Chance) {
    let root = rustix::process::geteuid().is_root();
    let kinds = [FileType::Fifo, FileType::Socket, FileType::CharacterDevice, FileType::BlockDevice];
    let kind = kinds[chance.index(if root { 4 } else { 2 })];
    let device = match kind {
        FileType::Fifo | FileType::Socket => 0,
        _ => rustix::fs::makedev(chance.below(4096) as u32, chance.below(1 << 20) as u32),
    };
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// One more name for a file.
fn link(root: &Path, chance: &mut Chance, files: &[PathBuf]) {
    if files.is_empty() {
        return;
    }
    let (from, beside) = (chance.index(files.len()), chance.index(files.len()));
    let to = match chance.one_in(2) {
        true => root.to_owned(),
        false => files[beside].parent().unwrap().to_owned(),
    };
    // The name may be taken, which is another kind of luck.
    let _ = std::fs::hard_link(&files[from], to.join(OsStr::from_bytes(&name(chance))));
}

fn large(at: &Path, chance: &mut Chance) {
    std::fs::create_dir(at).unwrap();
    for n in 0..LARGE + chance.below(LARGE) {
        let path = at.join(format!("{n:05} {:01$}", n * 7, (n % 120) as usize));
        match n % 50 {
            0 => std::fs::create_dir(path).unwrap(),
            1 => std::fs::write(path, n.to_string()).unwrap(),
            _ => drop(File::create(path).unwrap()),
        }
    }
}

/// Attributes: owner, mode, extended ones, and times at last.
fn dress(path: &Path, chance: &mut Chance) {
    let root = rustix::process::geteuid().is_root();
    let kind = path.symlink_metadata().unwrap().file_type();
    if root && chance.one_in(3) {
        let owner = (Uid::from_raw(chance.below(70_000) as u32), Gid::from_raw(chance.below(70_000) as u32));
        rustix::fs::chownat(CWD, path, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    if (kind.is_file() || kind.is_dir()) && chance.one_in(3) {
        attributes(path, root, chance);
    }
    if !kind.is_symlink() && chance.one_in(3) {
        let needed = if kind.is_dir() { 0o700 } else { 0o600 };
        let mode = chance.below(0o10000) as u32 | if root { 0 } else { needed };
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    if chance.one_in(2) {
        stamp(path, chance);
    }
}

fn attributes(path: &Path, root: bool, chance: &mut Chance) {
    for n in 0..chance.below(5) {
        let space = if root && chance.one_in(3) { "trusted" } else { "user" };
        let name = format!("{space}.{n}{:1$}", "", chance.index(20));
        let longest = if chance.one_in(6) { 3000 } else { 30 };
        let len = chance.index(longest);
        // Some file systems have none, and most have little room.
        let _ = rustix::fs::lsetxattr(path, &*name, &chance.bytes(len), XattrFlags::empty());
    }
}

/// Before 1970, after 2038, and between.
fn stamp(path: &Path, chance: &mut Chance) {
    let seconds =
        chance.pick(&[-2_000_000_000, -1, 0, 1, 981_173_106, 2_147_483_648, 4_294_967_296, 9_000_000_000]);
    let time = Timespec { tv_sec: seconds, tv_nsec: chance.below(1_000_000_000) as i64 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
