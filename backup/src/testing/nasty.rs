//! Builds a real tree that is hard to keep.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};

use super::is_root;

fn at(directory: &OwnedFd, name: impl rustix::path::Arg) -> OwnedFd {
    rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()).unwrap()
}

fn write(directory: &OwnedFd, name: impl rustix::path::Arg, content: &[u8]) -> OwnedFd {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)).unwrap();
    assert_eq!(rustix::io::write(&file, content).unwrap(), content.len());
    file
}

fn stamp(directory: &OwnedFd, name: impl rustix::path::Arg, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A POSIX ACL as the kernel shows it: version 2, then tag, rights and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Builds a tree with everything that is easily lost. As root all of it, else what a user may make.
pub(crate) fn build_nasty(path: &Path) {
    std::fs::create_dir(path).unwrap();
    let root = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    names_and_depths(&root);
    contents_and_links(&root);
    special_files(&root);
    modes_and_owners(&root);
    attributes(&root);
    stamp(&root, c".", -1, 999_999_999);
}

fn names_and_depths(root: &OwnedFd) {
    let long = vec![b'n'; 255];
    let names: [&[u8]; 9] =
        [b"\xff\xfe", b"new\nline", b" ", b"-rf", b"*", b"\\", b"\xc3\xa9", b"e\xcc\x81", &long];
    names.iter().for_each(|name| drop(write(root, *name, name)));
    let mut deep = at(root, c".");
    for level in 0..24 {
        let name = format!("{level:0200}");
        rustix::fs::mkdirat(&deep, &*name, Mode::from_raw_mode(0o755)).unwrap();
        deep = at(&deep, &*name);
    }
    write(&deep, c"bottom", b"deep");
    rustix::fs::mkdirat(root, c"empty", Mode::from_raw_mode(0o755)).unwrap();
}

fn contents_and_links(root: &OwnedFd) {
    for len in [0, 1, 4095, 4096, 4097, 65_537, 3_000_000_usize] {
        let content: Vec<u8> = (0..len).map(|n| (n * n / 251) as u8).collect();
        write(root, format!("size-{len}"), &content);
    }
    let sparse = write(root, c"sparse", b"head");
    rustix::io::pwrite(&sparse, b"middle", 5_000_000).unwrap();
    rustix::fs::ftruncate(&sparse, 1 << 40).unwrap();
    rustix::fs::ftruncate(write(root, c"small-hole", b""), 10_000).unwrap();
    write(root, c"zeros", &[0; 100_000]);
    rustix::fs::linkat(root, c"sparse", root, c"another-name", AtFlags::empty()).unwrap();
    rustix::fs::linkat(root, c"sparse", root, c"empty/third-name", AtFlags::empty()).unwrap();
    rustix::fs::symlinkat(&[b't'; 4095][..], root, c"long-link").unwrap();
    rustix::fs::symlinkat(&b"\xff\n"[..], root, c"link").unwrap();
    rustix::fs::linkat(root, c"link", root, c"link-again", AtFlags::empty()).unwrap();
    stamp(root, c"link", 981_173_106, 700_000_001);
    stamp(root, c"size-1", -446_665_499, 500_000_000);
    stamp(root, c"size-0", 4_294_967_296, 1);
}

fn special_files(root: &OwnedFd) {
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(root, c"fifo", FileType::Fifo, mode, 0).unwrap();
    rustix::fs::linkat(root, c"fifo", root, c"fifo-again", AtFlags::empty()).unwrap();
    rustix::fs::mknodat(root, c"socket", FileType::Socket, mode, 0).unwrap();
    if is_root() {
        for (name, kind, major, minor) in [
            (c"char", FileType::CharacterDevice, 1, 3),
            (c"block", FileType::BlockDevice, 7, 4095),
            (c"big", FileType::CharacterDevice, 511, 1_048_575),
            (c"whiteout", FileType::CharacterDevice, 0, 0),
        ] {
            rustix::fs::mknodat(root, name, kind, mode, rustix::fs::makedev(major, minor)).unwrap();
            stamp(root, name, 1_012_615_322, 2);
        }
    }
}

fn modes_and_owners(root: &OwnedFd) {
    for bits in [0o0000, 0o0111, 0o0444, 0o1644, 0o2755, 0o4755, 0o7777_u32] {
        let file = write(root, format!("mode-{bits:o}"), b"m");
        if is_root() {
            let ids = (rustix::fs::Uid::from_raw(3_000_000_000), rustix::fs::Gid::from_raw(bits));
            rustix::fs::fchown(&file, Some(ids.0), Some(ids.1)).unwrap();
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(bits)).unwrap();
    }
    if is_root() {
        let (uid, gid) = (rustix::fs::Uid::from_raw(12), rustix::fs::Gid::from_raw(34));
        rustix::fs::chownat(root, c"long-link", Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    rustix::fs::mkdirat(root, c"read-only", Mode::RWXU).unwrap();
    write(&at(root, c"read-only"), c"inside", b"in");
    rustix::fs::fchmod(at(root, c"read-only"), Mode::from_raw_mode(0o3555)).unwrap();
    stamp(root, c"read-only", 1_000_000_000, 1);
}

fn attributes(root: &OwnedFd) {
    let set = |name: &std::ffi::CStr, xattr: &[u8], value: &[u8]| {
        rustix::fs::fsetxattr(at(root, name), xattr, value, XattrFlags::empty()).unwrap();
    };
    set(c"size-1", b"user.empty", b"");
    set(c"size-1", b"user.\xff", b"\x00\xff");
    set(c"size-4097", b"user.large", &[b'v'; 3000]);
    set(c"empty", b"user.on-directory", b"d");
    let none = u32::MAX;
    set(
        c"size-4095",
        b"system.posix_acl_access",
        &acl(&[(1, 6, none), (2, 7, 1234), (4, 4, none), (16, 7, none), (32, 0, none)]),
    );
    set(
        c"empty",
        b"system.posix_acl_default",
        &acl(&[(1, 7, none), (2, 5, 77), (4, 5, none), (16, 5, none), (32, 0, none)]),
    );
    let flag = |name: &std::ffi::CStr, flags| {
        rustix::fs::ioctl_setflags(
            at(root, name),
            rustix::fs::ioctl_getflags(at(root, name)).unwrap() | flags,
        )
        .unwrap();
    };
    if is_root() {
        // Capability version 2 with cap_net_raw effective and permitted.
        set(c"size-4096", b"security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        set(c"size-4096", b"trusted.secret", b"t");
        let link = rustix::fs::openat(root, c"link", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
        let path = crate::descent::proc_path(&link);
        rustix::fs::setxattr(path, c"trusted.on-link", b"l", XattrFlags::empty()).unwrap();
        flag(c"another-name", IFlags::IMMUTABLE);
        flag(c"zeros", IFlags::APPEND);
        flag(c"read-only", IFlags::IMMUTABLE);
    }
    flag(c"small-hole", IFlags::NODUMP);
}
