//! Compares two trees in everything that a backup must keep, written for itself: nothing of the program's own
//! code looks at the trees here.
//!
//! Compared are the set of names (raw bytes), kind, mode, owner, times of change in nanoseconds, device numbers, sizes, link
//! counts, targets of links, content, sparseness, every readable extended attribute with ACLs and capabilities as classes of
//! their own, file flags, and which names are one file. Times of access and of inode change are not. Directories are walked by
//! descriptors, since paths may be longer than the system takes.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, SeekFrom, Stat};

/// What can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Missing,
    Extra,
    Kind,
    Mode,
    Owner,
    Mtime,
    DirectoryMtime,
    Device,
    Size,
    LinkCount,
    Target,
    Content,
    Sparseness,
    Acl,
    Capability,
    Xattr,
    Flags,
    HardLinks,
    Unreadable,
}

/// One difference, at a path relative to the roots.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub class: Class,
    pub path: Vec<u8>,
    pub what: String,
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.escape_ascii().to_string();
        let short: String = path.chars().take(120).collect();
        write!(f, "{:?} {short}: {}", self.class, self.what)
    }
}

/// All differences of two trees.
#[derive(Clone, PartialEq, Eq)]
pub struct Differences {
    pub list: Vec<Difference>,
    pub entries: usize,
}

impl Differences {
    /// Leaves some classes out.
    pub fn without(mut self, classes: &[Class]) -> Self {
        self.list.retain(|difference| !classes.contains(&difference.class));
        self
    }

    /// Which classes there are.
    pub fn classes(&self) -> BTreeSet<Class> {
        self.list.iter().map(|difference| difference.class).collect()
    }

    /// Class and path of each: what stays the same when only numbers differ.
    pub fn places(&self) -> BTreeSet<(Class, Vec<u8>)> {
        self.list.iter().map(|difference| (difference.class, difference.path.clone())).collect()
    }

    /// Fails the test if there is any, and if hardly anything was compared.
    #[track_caller]
    pub fn assert_none(&self) {
        assert!(self.entries > 2, "only {} entries were compared", self.entries);
        assert!(self.list.is_empty(), "{} differences:\n{self:?}", self.list.len());
    }
}

impl fmt::Debug for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.iter().take(60).try_for_each(|difference| writeln!(f, "  {difference:?}"))
    }
}

/// A file's identity, and the names it has.
type Links = BTreeMap<(u64, u64), BTreeSet<Vec<u8>>>;

/// One side of the comparison at one entry.
struct Side<'a> {
    directory: &'a OwnedFd,
    name: &'a CString,
    stat: Stat,
}

#[derive(Default)]
struct Comparison {
    list: Vec<Difference>,
    entries: usize,
    links: [Links; 2],
}

/// Compares two directories with all that is below them.
pub fn compare(a: &Path, b: &Path) -> Differences {
    let mut comparison = Comparison::default();
    let (a, b) = (open_root(a), open_root(b));
    let dot = CString::from(c".");
    comparison.entry(b".", &a, &b, &dot);
    comparison.directory(b"", &a, &b);
    comparison.links();
    Differences { list: comparison.list, entries: comparison.entries }
}

fn open_root(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()))
}

fn names(directory: &OwnedFd) -> rustix::io::Result<BTreeSet<CString>> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.insert(name);
        }
    }
    Ok(names)
}

impl Comparison {
    fn differs(&mut self, class: Class, path: &[u8], what: impl Into<String>) {
        self.list.push(Difference { class, path: path.to_vec(), what: what.into() });
    }

    fn unequal<T: PartialEq + fmt::Debug>(&mut self, class: Class, path: &[u8], a: &T, b: &T) {
        if a != b {
            self.differs(class, path, format!("{a:?} != {b:?}"));
        }
    }

    fn directory(&mut self, path: &[u8], a: &OwnedFd, b: &OwnedFd) {
        let (in_a, in_b) = match (names(a), names(b)) {
            (Ok(in_a), Ok(in_b)) => (in_a, in_b),
            (in_a, in_b) => {
                return self.differs(Class::Unreadable, path, format!("{:?} {:?}", in_a.err(), in_b.err()));
            }
        };
        let below = |name: &CString| [path, b"/", name.as_bytes()].concat();
        for name in in_a.difference(&in_b) {
            self.differs(Class::Missing, &below(name), "only in the first");
        }
        for name in in_b.difference(&in_a) {
            self.differs(Class::Extra, &below(name), "only in the second");
        }
        for name in in_a.intersection(&in_b) {
            if self.entry(&below(name), a, b, name) {
                self.descend(&below(name), a, b, name);
            }
        }
    }

    fn descend(&mut self, path: &[u8], a: &OwnedFd, b: &OwnedFd, name: &CString) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let open = |directory: &OwnedFd| rustix::fs::openat(directory, name.as_c_str(), flags, Mode::empty());
        match (open(a), open(b)) {
            (Ok(a), Ok(b)) => self.directory(path, &a, &b),
            (a, b) => self.differs(Class::Unreadable, path, format!("{:?} {:?}", a.err(), b.err())),
        }
    }

    /// Compares one entry; true if it is a directory on both sides.
    fn entry(&mut self, path: &[u8], a: &OwnedFd, b: &OwnedFd, name: &CString) -> bool {
        self.entries += 1;
        let stat = |directory| rustix::fs::statat(directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
        let (a, b) = match (stat(a), stat(b)) {
            (Ok(of_a), Ok(of_b)) => {
                (Side { directory: a, name, stat: of_a }, Side { directory: b, name, stat: of_b })
            }
            (a, b) => {
                self.differs(Class::Unreadable, path, format!("{:?} {:?}", a.err(), b.err()));
                return false;
            }
        };
        if a.kind() != b.kind() {
            self.unequal(Class::Kind, path, &a.kind(), &b.kind());
            return false;
        }
        self.attributes(path, &a, &b);
        self.shape(path, &a, &b);
        self.extended(path, &a, &b);
        a.kind() == FileType::Directory
    }

    fn attributes(&mut self, path: &[u8], a: &Side<'_>, b: &Side<'_>) {
        if a.kind() != FileType::Symlink {
            self.unequal(Class::Mode, path, &(a.stat.st_mode & 0o7777), &(b.stat.st_mode & 0o7777));
        }
        self.unequal(Class::Owner, path, &(a.stat.st_uid, a.stat.st_gid), &(b.stat.st_uid, b.stat.st_gid));
        let class = if a.kind() == FileType::Directory { Class::DirectoryMtime } else { Class::Mtime };
        let time = |side: &Side<'_>| (side.stat.st_mtime, side.stat.st_mtime_nsec);
        self.unequal(class, path, &time(a), &time(b));
        self.unequal(Class::Flags, path, &a.flags(), &b.flags());
    }

    fn shape(&mut self, path: &[u8], a: &Side<'_>, b: &Side<'_>) {
        if matches!(a.kind(), FileType::CharacterDevice | FileType::BlockDevice) {
            self.unequal(Class::Device, path, &a.stat.st_rdev, &b.stat.st_rdev);
        }
        if a.kind() == FileType::Directory {
            return;
        }
        self.unequal(Class::Size, path, &a.stat.st_size, &b.stat.st_size);
        self.unequal(Class::LinkCount, path, &a.stat.st_nlink, &b.stat.st_nlink);
        for (n, side) in [a, b].into_iter().enumerate() {
            let identity = (side.stat.st_dev, side.stat.st_ino);
            self.links[n].entry(identity).or_default().insert(path.to_vec());
        }
        match a.kind() {
            FileType::Symlink => self.unequal(Class::Target, path, &a.target(), &b.target()),
            FileType::RegularFile => self.content(path, a, b),
            _ => {}
        }
    }

    fn content(&mut self, path: &[u8], a: &Side<'_>, b: &Side<'_>) {
        match (a.digest(), b.digest()) {
            (Ok(of_a), Ok(of_b)) => self.unequal(Class::Content, path, &of_a, &of_b),
            (a, b) => self.differs(Class::Unreadable, path, format!("{:?} {:?}", a.err(), b.err())),
        }
        let (size, in_a, in_b) = (a.stat.st_size, a.stat.st_blocks * 512, b.stat.st_blocks * 512);
        if in_a + 65_536 < size && in_b > 2 * in_a + (1 << 20) {
            self.differs(Class::Sparseness, path, format!("{in_a} bytes on disk became {in_b}"));
        }
    }

    fn extended(&mut self, path: &[u8], a: &Side<'_>, b: &Side<'_>) {
        let (of_a, of_b) = match (a.xattrs(), b.xattrs()) {
            (Ok(of_a), Ok(of_b)) => (of_a, of_b),
            (a, b) => {
                return self.differs(Class::Unreadable, path, format!("xattrs {:?} {:?}", a.err(), b.err()));
            }
        };
        let all: BTreeSet<_> = of_a.keys().chain(of_b.keys()).collect();
        for name in all {
            let class = match name.as_slice() {
                acl if acl.starts_with(b"system.posix_acl") => Class::Acl,
                b"security.capability" => Class::Capability,
                _ => Class::Xattr,
            };
            if of_a.get(name) != of_b.get(name) {
                let shown = |value: Option<&Vec<u8>>| value.map(|v| format!("{} bytes", v.len()));
                let (was, is) = (shown(of_a.get(name)), shown(of_b.get(name)));
                self.differs(class, path, format!("{}: {was:?} != {is:?}", name.escape_ascii()));
            }
        }
    }

    /// Names that are one file on one side must be one file on the other.
    fn links(&mut self) {
        let groups = |links: &Links| -> BTreeSet<BTreeSet<Vec<u8>>> {
            links.values().filter(|names| names.len() > 1).cloned().collect()
        };
        let (a, b) = (groups(&self.links[0]), groups(&self.links[1]));
        for group in a.symmetric_difference(&b) {
            let side = if a.contains(group) { "first" } else { "second" };
            let first = group.iter().next().cloned().unwrap_or_default();
            self.differs(
                Class::HardLinks,
                &first,
                format!("{} names are one only in the {side}", group.len()),
            );
        }
    }
}

impl Side<'_> {
    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        rustix::fs::openat(self.directory, self.name.as_c_str(), flags, Mode::empty())
    }

    fn target(&self) -> Vec<u8> {
        rustix::fs::readlinkat(self.directory, self.name.as_c_str(), Vec::new()).unwrap().into_bytes()
    }

    /// Flags that a person can set and that every file system means the same by.
    fn flags(&self) -> IFlags {
        if !matches!(self.kind(), FileType::RegularFile | FileType::Directory) {
            return IFlags::empty();
        }
        let flags = self.open().and_then(|file| rustix::fs::ioctl_getflags(&file));
        flags.unwrap_or(IFlags::empty()) & (IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NODUMP)
    }

    /// A way to this entry that is short however deep it lies.
    fn short_path(&self) -> Vec<u8> {
        let directory = format!("/proc/self/fd/{}/", self.directory.as_raw_fd());
        [directory.as_bytes(), self.name.as_bytes()].concat()
    }

    fn xattrs(&self) -> rustix::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let path = self.short_path();
        let mut names = vec![0; 65_536];
        let len = match rustix::fs::llistxattr(path.as_slice(), &mut names[..]) {
            Err(rustix::io::Errno::NOTSUP) => 0,
            other => other?,
        };
        let mut found = BTreeMap::new();
        for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 65_536];
            let len = rustix::fs::lgetxattr(path.as_slice(), name, &mut value[..])?;
            value.truncate(len);
            found.insert(name.to_vec(), value);
        }
        Ok(found)
    }

    /// Digest of all blocks that are not zero, with their places: holes and stored zeros count alike.
    fn digest(&self) -> rustix::io::Result<String> {
        const BLOCK: u64 = 4096;
        let file = self.open()?;
        let (size, mut at) = (self.stat.st_size as u64, 0);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        while at < size {
            let data = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Err(rustix::io::Errno::NXIO) => break,
                other => other? / BLOCK * BLOCK,
            };
            let end = rustix::fs::seek(&file, SeekFrom::Hole(data.max(at)))?.min(size);
            assert!(end - data < 1 << 36, "a file of {size} bytes shows no holes");
            at = data;
            while at < end {
                let want = (end - at).min(buffer.len() as u64) as usize;
                let got = read_full(&file, &mut buffer[..want], at)?;
                if got == 0 {
                    return Err(rustix::io::Errno::IO);
                }
                for (n, block) in buffer[..got].chunks(BLOCK as usize).enumerate() {
                    if block.iter().any(|byte| *byte != 0) {
                        hasher.update(&(at + n as u64 * BLOCK).to_le_bytes()).update(block);
                    }
                }
                at += got as u64;
            }
        }
        Ok(hasher.finalize().to_hex()[..16].to_owned())
    }
}

fn read_full(file: &OwnedFd, buffer: &mut [u8], at: u64) -> rustix::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], at + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

#[test]
fn every_class_of_difference_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let tree = |name: &str, twist: bool| {
        let root = dir.path().join(name);
        std::fs::create_dir(&root).unwrap();
        let file = |name: &str, content: &str| std::fs::write(root.join(name), content).unwrap();
        file("content", if twist { "a" } else { "b" });
        file("size", if twist { "a" } else { "aa" });
        file("mode", "");
        if twist {
            nix::sys::stat::fchmodat(
                nix::fcntl::AT_FDCWD,
                &root.join("mode"),
                nix::sys::stat::Mode::S_IRUSR,
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )
            .unwrap();
        }
        file(if twist { "extra" } else { "missing" }, "");
        std::os::unix::fs::symlink(if twist { "x" } else { "y" }, root.join("link")).unwrap();
        file("one", "1");
        if twist {
            file("two", "1")
        } else {
            std::fs::hard_link(root.join("one"), root.join("two")).unwrap()
        }
        if twist {
            rustix::fs::setxattr(root.join("one"), "user.x", b"y", rustix::fs::XattrFlags::empty()).unwrap();
            std::fs::create_dir(root.join("kind")).unwrap();
        } else {
            file("kind", "");
        }
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(7, u32::from(twist));
        std::fs::File::open(root.join("size")).unwrap().set_modified(time).unwrap();
        root
    };
    let (a, b) = (tree("a", false), tree("b", true));
    compare(&a, &a).assert_none();
    let classes = compare(&a, &b).classes();
    for class in [
        Class::Missing,
        Class::Extra,
        Class::Kind,
        Class::Mode,
        Class::Mtime,
        Class::Size,
        Class::LinkCount,
        Class::Target,
        Class::Content,
        Class::Xattr,
        Class::HardLinks,
    ] {
        assert!(classes.contains(&class), "{class:?} is not in {classes:?}");
    }
}
