//! Attributes, names and numbers: each is asked of the source and of the mount.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};

use super::{assert_same, evict_or_skip, probe, sh, shell, sorted};
use crate::roundtrip::nasty;
use crate::testkit::{Machine, can_mount};

/// What `find` prints of all entries, sorted; sizes are not those of directories, which the source's file system makes up.
fn found(root: &Path) -> Vec<String> {
    let format = "%p|%y|%m|%n|%U|%G|%T@|%C@|%l";
    let script = format!(
        "find . -type d -printf '{format}\\0' -o -printf '{format}|%s\\0'; find links -maxdepth 1 -type l ! -name longest -printf '%p %Y\\0'"
    );
    sorted(&sh(root, &script, &[]), b"\0")
}

#[test]
fn stat_says_what_the_source_said() {
    if !can_mount("stat_says_what_the_source_said") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-stat", &[]);
    let (source, mounted) = (found(&nasty.source), found(&mount.point(&nasty.point)));
    assert!(source.len() > 3000, "only {} entries", source.len());
    assert_same("find -printf", &source, &mounted);
}

#[test]
fn attributes_acls_and_flags_are_listed_as_at_the_source() {
    if !can_mount("attributes_acls_and_flags_are_listed_as_at_the_source") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-attributes", &[]);
    // Tools take no path of more than 4,096 bytes, which are below `deep`.
    let all = "ls -A | grep -v '^deep$'";
    for (script, separator) in [
        (format!("getfattr -R -h -d -m - -e hex $({all})"), &b"\n\n"[..]),
        (format!("getfacl -R -P -n $({all})"), b"\n\n"),
        // File systems have flags of their own, such as `e`, at places of their own.
        (
            "{ lsattr -d . flags; lsattr flags; }".to_owned() + " | sed -E 's/^[-e]*([iad]?)[-e]* /\\1 /'",
            b"\n",
        ),
    ] {
        let [source, mounted] = [nasty.source.clone(), mount.point(&nasty.point)]
            .map(|root| sorted(&sh(&root, &script, &[]), separator));
        assert!(source.len() > 4, "{script}: {source:?}");
        assert_same(&script, &source, &mounted);
    }
}

/// One entry of each kind in the nasty tree.
const KINDS: [&str; 6] =
    ["sizes/1", "empty", "links/relative", "special/fifo", "special/socket", "special/null"];

#[test]
fn an_attribute_that_is_missing_is_enodata_and_never_not_supported() {
    if !can_mount("an_attribute_that_is_missing_is_enodata_and_never_not_supported") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-missing", &[]);
    let ask = |path: &Path, name: &str| rustix::fs::lgetxattr(path, name, &mut [0u8; 64][..]).unwrap_err();
    let names = [
        "user.none",
        "user.holdfast.none",
        "trusted.none",
        "security.capability",
        "system.posix_acl_access",
        "system.posix_acl_default",
    ];
    for (kind, name) in KINDS.into_iter().flat_map(|kind| names.map(|name| (kind, name))) {
        let (source, mounted) = (nasty.source.join(kind), mount.point(&nasty.point).join(kind));
        assert_eq!(ask(&mounted, name), ask(&source, name), "{name} of {kind}");
    }
    let above = ["", "by-id", "by-group/default", "by-time"].map(|path| mount.path().join(path));
    let inside = ["sizes/1", "empty"].map(|path| mount.point(&nasty.point).join(path));
    for path in above.iter().chain(&inside) {
        for name in names {
            assert_eq!(ask(path, name), rustix::io::Errno::NODATA, "{name} of {}", path.display());
        }
        assert_eq!(rustix::fs::llistxattr(path, &mut [0u8; 64][..]), Ok(0), "{}", path.display());
    }
}

#[test]
fn ioctl_is_enotty_for_files_directories_and_the_layout() {
    if !can_mount("ioctl_is_enotty_for_files_directories_and_the_layout") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-ioctl", &[]);
    let point = mount.point(&nasty.point);
    for path in
        [mount.path().to_path_buf(), mount.path().join("by-id"), point.join("links"), point.join("sizes/1")]
    {
        assert_eq!(probe(&[&"ioctl", &path]), "Inappropriate ioctl for device", "{}", path.display());
    }
}

/// A listing as the kernel gives it: number and kind by name, with `.` and `..`, and the position after each.
fn listing(path: &Path) -> BTreeMap<CString, (u64, rustix::fs::FileType, i64)> {
    let dir = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let entries = Dir::read_from(dir).unwrap().map(Result::unwrap);
    entries.map(|e| (e.file_name().to_owned(), (e.ino(), e.file_type(), e.offset()))).collect()
}

/// Checks a directory and those below it; how many entries it saw.
fn check_listings(path: &Path, parent: u64) -> usize {
    let listing = listing(path);
    let own = path.symlink_metadata().unwrap();
    assert_eq!(listing[c"."].0, own.ino(), ". of {}", path.display());
    assert_eq!(listing[c".."].0, parent, ".. of {}", path.display());
    let mut seen = listing.len();
    for (name, (ino, kind, _)) in &listing {
        if name.as_c_str() == c"." || name.as_c_str() == c".." {
            continue;
        }
        let entry = path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let stat = rustix::fs::statat(CWD, &entry, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert_eq!(*ino, stat.st_ino, "{}", entry.display());
        assert_eq!(*kind, rustix::fs::FileType::from_raw_mode(stat.st_mode), "{}", entry.display());
        if kind.is_dir() {
            assert_eq!(entry.join("..").metadata().unwrap().ino(), own.ino(), "{}/..", entry.display());
            // A point lies in several directories of the layout, by different numbers; its `..` is the one it was listed in.
            seen += if name.as_bytes() == b"deep" { 0 } else { check_listings(&entry, own.ino()) };
        }
    }
    seen
}

#[test]
fn numbers_and_kinds_in_listings_are_those_of_stat_and_dots_lead_up() {
    if !can_mount("numbers_and_kinds_in_listings_are_those_of_stat_and_dots_lead_up") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-listings", &[]);
    let root = mount.path().metadata().unwrap().ino();
    assert!(check_listings(mount.path(), root) > 6000);
    let point = mount.point(&nasty.point);
    for name in ["links/a", "links/dangling", "special/fifo", "sizes/1"] {
        let of_number = |root: &Path| {
            let ino = root.join(name).symlink_metadata().unwrap().ino();
            sorted(&sh(root, &format!("find . -inum {ino}"), &[]), b"\n")
        };
        assert_eq!(of_number(&point), of_number(&nasty.source), "{name}");
    }
    // Directories of the layout count as POSIX has it: two, and one for each directory in them.
    for path in ["", "by-id", "by-group", "by-group/default"].map(|path| mount.path().join(path)) {
        let directories =
            path.read_dir().unwrap().filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(path.metadata().unwrap().nlink(), directories.count() as u64 + 2, "{}", path.display());
    }
}

#[test]
fn a_listing_goes_on_from_any_position_after_eviction() {
    if !can_mount("a_listing_goes_on_from_any_position_after_eviction") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-positions", &[]);
    let big = mount.point(&nasty.point).join("big");
    let mut by_position: Vec<_> = listing(&big).into_iter().map(|(name, (.., at))| (at, name)).collect();
    by_position.sort();
    assert_eq!(by_position.len(), crate::nasty::BIG + 2);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir = Dir::read_from(rustix::fs::openat(CWD, &big, flags, Mode::empty()).unwrap()).unwrap();
    for from in [0, 1, 2, 500, 2999, 3001] {
        evict_or_skip("a listing after eviction");
        dir.seek(by_position[from].0).unwrap();
        let rest: Vec<_> = dir.by_ref().map(|entry| entry.unwrap().file_name().to_owned()).collect();
        let expected: Vec<_> = by_position[from + 1..].iter().map(|(_, name)| name.clone()).collect();
        assert_eq!(rest, expected, "from {from}");
    }
}

#[test]
fn inode_numbers_survive_remounts_and_a_killed_mount() {
    if !can_mount("inode_numbers_survive_remounts_and_a_killed_mount") {
        return;
    }
    let nasty = nasty();
    let numbers = |mounted: &Path, script: &str| sorted(&sh(mounted, script, &[]), b"\0");
    let all = "find . -printf '%i %p\\0'";
    let mount = nasty.machine.mount("mount-numbers", &[]);
    let first = numbers(mount.path(), all);
    assert!(first.len() > 6000);
    for process in mount.processes() {
        kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
    }
    mount.wait_for_the_end(10);
    // Met one by one, last ones first, instead of by listing.
    let again = nasty.machine.mount("mount-numbers", &[]);
    let by_name: Vec<_> = first.iter().rev().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    for name in by_name.into_iter().filter(|name| !name.contains('\\') && !name.contains("/deep/")).step_by(7)
    {
        let ino = again.path().join(name).symlink_metadata().unwrap().ino();
        assert!(first.contains(&format!("{ino} {name}")), "{name} is {ino} now");
    }
    evict_or_skip("inode numbers after eviction");
    assert_same("numbers after a kill", &first, &numbers(again.path(), all));
    again.umount();
    drop(mount);
    let third = nasty.machine.mount("mount-numbers", &[]);
    assert_same("numbers after a remount", &first, &numbers(third.path(), all));
}

#[test]
fn statfs_says_what_the_points_hold() {
    if !can_mount("statfs_says_what_the_points_hold") {
        return;
    }
    let machine = Machine::with_store();
    let source = machine.path("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    for (name, len) in [("a", 10_000), ("b", 1), ("sub/c", 0), ("sub/d", 5000)] {
        std::fs::write(source.join(name), vec![b'x'; len]).unwrap();
    }
    machine.back_up(&source, &[]);
    machine.back_up(&source, &[]);
    let mount = machine.mount("recovery", &[]);
    let said = rustix::fs::statvfs(mount.path()).unwrap();
    assert_eq!((said.f_blocks * said.f_frsize, said.f_bfree, said.f_bavail), (32_768, 0, 0));
    // Two times root, `sub` and four files.
    assert_eq!((said.f_files, said.f_ffree, said.f_namemax), (12, 0, 255));
    let flags = rustix::fs::StatVfsMountFlags::RDONLY
        | rustix::fs::StatVfsMountFlags::NOSUID
        | rustix::fs::StatVfsMountFlags::NODEV;
    assert!(said.f_flag.contains(flags), "{:?}", said.f_flag);
    // A mount follows: another point, other numbers.
    machine.back_up(&source, &[]);
    crate::testkit::wait_for("the new point's numbers", 5, || {
        rustix::fs::statvfs(mount.path()).unwrap().f_files == 18
    });
}

/// A point of files that only some may read, on a mount for all.
fn guarded(machine: &Machine) -> PathBuf {
    let source = machine.path("guarded");
    let script = "mkdir -p closed && for name in mine granted group closed/open; do echo \"$name\" > $name; done
        chmod 600 mine granted closed/open && chmod 640 group && chgrp 4321 group && chmod 700 closed && chmod 644 closed/open
        setfacl -m u:1234:r granted && setfattr -n trusted.secret -v t mine granted && setfattr -n user.known -v u granted";
    std::fs::create_dir(&source).unwrap();
    sh(&source, script, &[]);
    source
}

#[test]
fn modes_and_acls_guard_files_for_others_who_see_no_trusted_attributes() {
    if !can_mount("modes_and_acls_guard_files_for_others_who_see_no_trusted_attributes") {
        return;
    }
    let machine = Machine::with_store();
    let source = guarded(&machine);
    let made = machine.back_up(&source, &[]);
    let mount = machine.mount("recovery", &["--allow-other"]);
    let point = mount.point(made["snapshot_id"].as_str().unwrap());
    // The shell goes there as root: directories above the mount are closed.
    let script = "as() { user=$1; shift; setpriv --reuid=$user --regid=$user --clear-groups -- \"$@\"; }
        for user in 1234 1235 4321; do for file in mine granted group closed/open; do
            as $user cat $file > /dev/null 2>&1 && echo $user reads $file; done; done
        for user in 0 1234; do echo $user: $(as $user getfattr -m - granted | grep '^[tu]'); done
        as 1234 getfattr -n trusted.secret granted 2>&1; true";
    for root in [&source, &point] {
        let said = String::from_utf8(shell(root, script, &[]).expect_code(0).stdout().to_vec()).unwrap();
        let expected = "1234 reads granted\n4321 reads group\n0: trusted.secret user.known\n1234: user.known\n\
                        granted: trusted.secret: No such attribute\n";
        assert_eq!(said, expected, "{}", root.display());
    }
}
