//! Builds a tree of everything that backup tools lose, with the system's own tools and calls.
//!
//! Root builds all of it, another user what such a one may make. What the file system below cannot hold is told, visibly, and
//! left out; the rest of the tree stands.
#![allow(clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Gid, IFlags, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

use crate::testkit::{is_root, skip};

/// Entries of the big directory.
pub const BIG: usize = 3000;
/// Length of the file that is nearly all hole.
const HUGE: u64 = 1 << 40;
/// Where that file is, for tools that read holes byte for byte.
pub const HUGE_PATH: &str = "sparse/huge";
/// Levels of 200 characters below `deep`: longer than the 4,096 bytes that a path may have.
const LEVELS: usize = 24;

/// Builds the tree at `root`, which must not exist.
pub fn build(root: &Path) {
    std::fs::create_dir(root).unwrap();
    let tree = Tree { root: root.to_path_buf() };
    tree.contents();
    tree.names();
    tree.deep();
    tree.links();
    tree.special_files();
    tree.modes_and_owners();
    tree.sparse();
    tree.xattrs();
    tree.acls_and_capabilities();
    tree.big_directory();
    tree.times();
    tree.flags();
}

struct Tree {
    root: PathBuf,
}

/// Tells what this file system or user cannot have.
fn attempt<E: std::fmt::Display>(what: &str, done: Result<(), E>) {
    if let Err(error) = done {
        skip(&format!("{what} in the nasty tree"), &error.to_string());
    }
}

fn run(what: &str, program: &str, args: &[&str], path: &Path) {
    let status = Command::new(program).args(args).arg(path).status();
    attempt(
        what,
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(error.to_string()),
        },
    );
}

impl Tree {
    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn dir(&self, name: &str) -> PathBuf {
        std::fs::create_dir(self.at(name)).unwrap();
        self.at(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.at(name), content).unwrap();
        self.at(name)
    }

    /// Lengths about the borders of blocks, frames and chunks; the same content twice, and shifted.
    fn contents(&self) {
        self.dir("sizes");
        for len in [0, 1, 511, 512, 4095, 4096, 4097, 65_535, 65_537, 131_073, 1_048_577] {
            self.file(&format!("sizes/{len}"), "nasty ".repeat(len / 6 + 1).get(..len).unwrap());
        }
        let mut noise = vec![0; 3_000_000];
        blake3::Hasher::new_derive_key("nasty noise").finalize_xof().fill(&mut noise);
        self.file("sizes/noise", &noise);
        self.file("sizes/noise-again", &noise);
        self.file("sizes/noise-shifted", [b"x".as_slice(), &noise].concat());
        self.dir("empty");
    }

    fn names(&self) {
        use std::os::unix::ffi::OsStrExt;
        let dir = self.dir("names");
        let long = vec![b'n'; 255];
        let names: [&[u8]; 36] = [
            b" leading",
            b"trailing ",
            b" ",
            b"-rf",
            b"--help",
            b"*?[glob]",
            b"back\\slash",
            b"quo\"te'",
            b"$HOME`id`",
            b"new\nline",
            b"tab\tname",
            b"cr\rname",
            b"esc\x1b[31mred",
            b"\x01\x7f",
            b"invalid-\xff\xfe\x80",
            b"latin1-\xe9",
            b"overlong-\xc0\xaf",
            b"surrogate-\xed\xa0\x80",
            b"nfc-\xc3\xa9",
            b"nfd-e\xcc\x81",
            b"bidi-\xe2\x80\xae",
            b"CASE",
            b"case",
            b"CON",
            b"aux.txt",
            b"colon:name",
            b"@GMT-2020.01.01-00.00.00",
            b"...",
            b"~",
            b".hidden",
            b"\xf0\x9f\x98\x80",
            b"a,b;c",
            b"%00",
            b"#hash#",
            b"=x",
            &long,
        ];
        for name in names {
            std::fs::write(dir.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
        }
        let odd = dir.join("dir\nnewline");
        std::fs::create_dir(&odd).unwrap();
        std::fs::write(odd.join(std::ffi::OsStr::from_bytes(b"f\xff")), "in").unwrap();
    }

    fn deep(&self) {
        self.dir("deep");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = |directory: &OwnedFd, name: &str| {
            rustix::fs::openat(directory, name, flags, Mode::empty()).unwrap()
        };
        let mut deep = rustix::fs::openat(CWD, self.at("deep"), flags, Mode::empty()).unwrap();
        for level in 0..LEVELS {
            let name = format!("{level:0200}");
            rustix::fs::mkdirat(&deep, &*name, Mode::from_raw_mode(0o755)).unwrap();
            deep = open(&deep, &name);
        }
        let create = OFlags::WRONLY | OFlags::CREATE;
        let bottom = rustix::fs::openat(&deep, c"bottom", create, Mode::from_raw_mode(0o600)).unwrap();
        rustix::io::write(&bottom, b"deep").unwrap();
    }

    fn links(&self) {
        self.dir("links");
        self.dir("links/sub");
        let a = self.file("links/a", "hard");
        std::fs::hard_link(&a, self.at("links/b")).unwrap();
        std::fs::hard_link(&a, self.at("links/sub/c")).unwrap();
        for (target, name) in [("a", "relative"), ("/nonexistent/abs", "dangling"), (".", "self")] {
            symlink(target, self.at("links").join(name)).unwrap();
        }
        rustix::fs::symlinkat(&b"tgt-\xff\n"[..], CWD, self.at("links/bad-utf8")).unwrap();
        rustix::fs::symlinkat(&[b't'; 4095][..], CWD, self.at("links/longest")).unwrap();
        std::fs::hard_link(self.at("links/dangling"), self.at("links/dangling-again")).unwrap();
        self.dir("links/many");
        let first = self.file("links/many/0", "m");
        for n in 1..200 {
            std::fs::hard_link(&first, self.at(&format!("links/many/{n}"))).unwrap();
        }
    }

    fn special_files(&self) {
        self.dir("special");
        let make = |name: &str, kind, mode, device| {
            let made = rustix::fs::mknodat(CWD, self.at("special").join(name), kind, mode, device);
            attempt(name, made);
        };
        let mode = Mode::from_raw_mode(0o640);
        make("fifo", FileType::Fifo, mode, 0);
        make("socket", FileType::Socket, mode, 0);
        std::fs::hard_link(self.at("special/fifo"), self.at("special/fifo-again")).unwrap();
        if is_root() {
            let device = rustix::fs::makedev;
            make("null", FileType::CharacterDevice, mode, device(1, 3));
            make("block", FileType::BlockDevice, mode, device(7, 4095));
            make("big", FileType::CharacterDevice, mode, device(511, 1_048_575));
            make("whiteout", FileType::CharacterDevice, mode, device(0, 0));
        }
    }

    fn modes_and_owners(&self) {
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        self.dir("modes");
        for mode in [0o0000, 0o0111, 0o0222, 0o0444, 0o0777, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777] {
            set(&self.file(&format!("modes/{mode:04o}"), format!("{mode:o}")), mode);
        }
        for mode in [0o0000, 0o0555, 0o1777, 0o2775, 0o3770] {
            set(&self.dir(&format!("modes/d{mode:04o}")), mode);
        }
        self.dir("modes/read-only");
        self.file("modes/read-only/inside", "in");
        set(&self.at("modes/read-only"), 0o500);
        if is_root() {
            let owners = [("big", 2_147_483_648, 3_000_000_000), ("most", u32::MAX - 1, u32::MAX - 1)];
            for (name, uid, gid) in owners {
                let file = self.file(&format!("modes/owner-{name}"), name);
                std::os::unix::fs::chown(file, Some(uid), Some(gid)).unwrap();
            }
            symlink("x", self.at("modes/owned-link")).unwrap();
            let (uid, gid) = (Some(Uid::from_raw(1234)), Some(Gid::from_raw(5678)));
            let link = self.at("modes/owned-link");
            rustix::fs::chownat(CWD, link, uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }

    fn sparse(&self) {
        self.dir("sparse");
        let file = |name: &str, len: u64, parts: &[(u64, &[u8])]| {
            let file = std::fs::File::create(self.at("sparse").join(name)).unwrap();
            parts.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
            file.set_len(len)
        };
        file("all-hole", 10 << 20, &[]).unwrap();
        file("mixed", 5 << 20, &[(0, b"head"), (2_500_000, b"middle"), ((5 << 20) - 4, b"tail")]).unwrap();
        file("zeros", 1 << 20, &[(0, &[0; 1 << 20])]).unwrap();
        let ends: [(u64, &[u8]); 3] = [(0, b"start"), (HUGE / 2, b"m"), (HUGE - 3, b"end")];
        attempt("a hole of a TiB", file("huge", HUGE, &ends));
    }

    fn xattrs(&self) {
        self.dir("xattr");
        self.dir("xattr/directory");
        ["user", "empty", "binary", "big", "many"]
            .iter()
            .for_each(|name| drop(self.file(&format!("xattr/{name}"), name)));
        symlink("user", self.at("xattr/link")).unwrap();
        let set = |name: &str, xattr: &[u8], value: &[u8]| {
            let path = self.at("xattr").join(name);
            let set = rustix::fs::lsetxattr(path, xattr, value, XattrFlags::empty());
            attempt(&format!("xattr {} of {name}", xattr.escape_ascii()), set);
        };
        set("user", b"user.comment", b"hello");
        set("empty", b"user.empty", b"");
        set("binary", b"user.n\xc3\xa9w\xff", b"\x00\xff\n\r\x00");
        set("big", b"user.big", &[b'v'; 3000]);
        (0..40).for_each(|n| set("many", format!("user.k{n:02}").as_bytes(), &[b'v', n]));
        set("directory", b"user.on-directory", b"d");
        if is_root() {
            set("user", b"trusted.secret", b"t");
            set("link", b"trusted.on-link", b"t");
            set("user", b"security.selinux", b"system_u:object_r:etc_t:s0");
            set("binary", b"security.ima", b"\x01\x01\x02\x03\x04");
        }
    }

    fn acls_and_capabilities(&self) {
        self.dir("acl");
        self.file("acl/file", "a");
        let default = self.dir("acl/default");
        run("an ACL", "setfacl", &["-m", "u:1234:rw,g:5678:r,u:3000000000:r,m::rw"], &self.at("acl/file"));
        run("a default ACL", "setfacl", &["-d", "-m", "u:1234:rwx,g:5678:rx"], &default);
        self.file("acl/default/inherits", "b");
        if is_root() {
            let capable = self.file("acl/capable", "c");
            run("a capability", "setcap", &["cap_net_raw,cap_net_bind_service+ep"], &capable);
        }
    }

    fn big_directory(&self) {
        let dir = self.dir("big");
        for n in 0..BIG {
            std::fs::write(dir.join(format!("entry-{n:08}")), n.to_string()).unwrap();
        }
    }

    /// Times are set when all else is done; those of directories last of all.
    fn times(&self) {
        self.dir("times");
        let stamp = |path: PathBuf, seconds, nanos| {
            let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        };
        for (name, seconds, nanos) in [
            ("1901", -2_147_483_647, 0),
            ("1955", -446_665_500, 500_000_000),
            ("before-epoch", -1, 999_999_999),
            ("epoch", 0, 0),
            ("nanoseconds", 1_614_834_367, 123_456_789),
            ("2038", 2_147_483_648, 1),
            ("2106", 4_294_967_296, 7),
            ("2446", 15_032_385_535, 999_999_999),
        ] {
            stamp(self.file(&format!("times/{name}"), name), seconds, nanos);
        }
        symlink("x", self.at("times/link")).unwrap();
        stamp(self.at("times/link"), 981_173_106, 700_000_001);
        stamp(self.at("special/fifo"), 1_012_615_322, 2);
        for (n, dir) in ["sizes", "links/sub", "modes/read-only", "acl/default", "big", "times", "empty", ""]
            .iter()
            .enumerate()
        {
            stamp(self.at(dir), 938_470_148 + n as i64, 250_000_001);
        }
    }

    /// Flags come last: they forbid all else.
    fn flags(&self) {
        self.dir("flags");
        let mut flags = vec![("nodump", IFlags::NODUMP)];
        if is_root() {
            flags.extend([("immutable", IFlags::IMMUTABLE), ("append-only", IFlags::APPEND)]);
        }
        for (name, flag) in flags {
            let file = std::fs::File::open(self.file(&format!("flags/{name}"), name)).unwrap();
            let set = rustix::fs::ioctl_getflags(&file)
                .and_then(|flags| rustix::fs::ioctl_setflags(&file, flags | flag));
            attempt(&format!("the flag {name}"), set);
        }
    }
}
