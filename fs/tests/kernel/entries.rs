//! Files, directories, links, devices and attributes, as the source had them.

use std::fs::{self, File};
use std::io::{Read, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use holdfast_fs::Unmounted;
use holdfast_fs::testing::{Part, link, node};
use holdfast_store::clock::Timestamp;
use holdfast_store::tree::{Node, NodeKind, Xattr};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::{bed, bed_for, is_mounted, shell};

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

/// What another user than the one who mounted reads of a file, or why he does not.
fn read_by_nobody(path: &Path) -> Result<Vec<u8>, String> {
    let output = Command::new("cat").arg(path).env("LC_ALL", "C").uid(65_534).gid(65_534).output().unwrap();
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

#[test]
fn another_user_reads_what_the_owner_of_the_mount_and_modes_let_him_and_no_device_opens_for_anybody() {
    for allow_other in [false, true] {
        let Some(mut bed) = bed_for(allow_other, |r| {
            let file =
                |name: &str, mode, uid| Node { mode, uid, ..r.file(name, &[Part::Data(b"text".to_vec())]) };
            // The kernel's null device, which everybody may open elsewhere.
            let device = Node { device: Some((1, 3)), mode: 0o666, ..node("null", NodeKind::CharDevice) };
            vec![file("his", 0o400, 65_534), file("open", 0o644, 0), file("private", 0o600, 0), device]
        }) else {
            return;
        };
        for name in ["his", "open", "private"] {
            assert_eq!(fs::read(bed.at(name)).unwrap(), b"text", "{name} by root");
            let may = allow_other && name != "private";
            match read_by_nobody(&bed.at(name)) {
                Ok(bytes) => assert!(may && bytes == b"text", "{name}, {allow_other}: {bytes:?}"),
                Err(why) => {
                    assert!(!may && why.contains("Permission denied"), "{name}, {allow_other}: {why}")
                }
            }
        }
        let by_root = File::open(bed.at("null")).unwrap_err();
        assert_eq!(by_root.raw_os_error(), Some(Errno::EACCES as i32), "{allow_other}");
        let by_nobody = read_by_nobody(&bed.at("null")).unwrap_err();
        assert!(by_nobody.contains("Permission denied"), "{allow_other}: {by_nobody}");
        assert_eq!(bed.unmount(), Unmounted::Cleanly);
    }
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
