//! The real folder, asked by system calls for what a view is asked for.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use holdfast_fs::recovery::Seek;
use holdfast_fs::recovery::Totals;
use holdfast_fs::view::Attr;
use holdfast_store::clock::Timestamp;
use holdfast_store::tree::NodeKind;
use rustix::fs::{AtFlags, CWD, FileType, SeekFrom};
use rustix::io::Errno;

/// Files up to this length are not asked for holes if they take enough blocks, as those of extended attributes count, too.
const SMALL_MAX: u64 = 64 << 10;

/// A path below the folder, raw; empty for itself.
pub type Below = Vec<u8>;

/// What is the same under all names of a thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sameness {
    /// One name, or a directory.
    Name(Below),
    /// Device and number of what has more names.
    Links(u64, u64),
}

pub struct Real(pub PathBuf);

impl Real {
    fn path(&self, below: &[u8]) -> PathBuf {
        if below.is_empty() { self.0.clone() } else { self.0.join(OsStr::from_bytes(below)) }
    }

    pub fn kind(&self, below: &[u8]) -> NodeKind {
        self.attr(below, 0).unwrap().kind
    }

    /// Names of a directory in the order of their bytes.
    pub fn names(&self, below: &[u8]) -> Vec<Vec<u8>> {
        let entries = std::fs::read_dir(self.path(below)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
        names.sort();
        names
    }

    /// As a view would show it under `ino`.
    pub fn attr(&self, below: &[u8], ino: u64) -> Result<Attr, Errno> {
        let stat = rustix::fs::statat(CWD, self.path(below), AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = kind(FileType::from_raw_mode(stat.st_mode));
        let special = matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice);
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let stored = if kind == NodeKind::File { self.stored(below) } else { 0 };
        let time = |seconds: i64, nanos: u64| Timestamp { seconds, nanos: nanos as u32 };
        Ok(Attr {
            ino,
            kind,
            mode: (stat.st_mode & 0o7777) as u16,
            links: stat.st_nlink as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            device: if special { device } else { (0, 0) },
            size: if kind == NodeKind::Directory { 0 } else { stat.st_size as u64 },
            blocks: stored.div_ceil(4096) * 8,
            mtime: time(stat.st_mtime, stat.st_mtime_nsec as u64),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec as u64),
        })
    }

    pub fn sameness(&self, below: &[u8]) -> Sameness {
        let stat = self.path(below).symlink_metadata().unwrap();
        match stat.nlink() > 1 && !stat.is_dir() {
            true => Sameness::Links(stat.dev(), stat.ino()),
            false => Sameness::Name(below.to_vec()),
        }
    }

    /// Bytes outside of holes.
    fn stored(&self, below: &[u8]) -> u64 {
        let size = self.path(below).symlink_metadata().unwrap().len();
        let (mut sum, mut at) = (0, 0);
        while let Ok(data) = self.seek(below, at, Seek::Data) {
            at = self.seek(below, data, Seek::Hole).unwrap().min(size);
            sum += at - data;
        }
        sum
    }

    pub fn read(&self, below: &[u8], offset: u64, len: usize) -> Vec<u8> {
        let (file, mut out) = (File::open(self.path(below)).unwrap(), vec![0; len]);
        let mut filled = 0;
        // What no file can reach has nothing to read; the system call refuses it.
        while i64::try_from(offset + filled as u64 + len as u64).is_ok() {
            match file.read_at(&mut out[filled..], offset + filled as u64).unwrap() {
                0 => break,
                more => filled += more,
            }
        }
        out.truncate(filled);
        out
    }

    /// As the system call; but a short file that takes as many blocks as its size needs has no holes, as a backup sees it.
    pub fn seek(&self, below: &[u8], offset: u64, seek: Seek) -> Result<u64, Errno> {
        let stat = self.path(below).symlink_metadata().unwrap();
        if offset >= stat.len() {
            return Err(Errno::NXIO);
        }
        if stat.len() <= SMALL_MAX && stat.blocks() * 512 >= stat.len() {
            return Ok(if seek == Seek::Data { offset } else { stat.len() });
        }
        let file = File::open(self.path(below)).unwrap();
        rustix::fs::seek(
            &file,
            match seek {
                Seek::Data => SeekFrom::Data(offset),
                Seek::Hole => SeekFrom::Hole(offset),
            },
        )
    }

    pub fn readlink(&self, below: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlink(self.path(below), Vec::new())?.into_bytes())
    }

    /// Value of an attribute in a buffer of `size`; its length alone for one of 0.
    pub fn xattr(&self, below: &[u8], name: &[u8], size: usize) -> Result<(usize, Vec<u8>), Errno> {
        let (path, name) = (self.path(below), OsStr::from_bytes(name));
        if size == 0 {
            return Ok((rustix::fs::lgetxattr_query(path, name)?, Vec::new()));
        }
        filled(size, |buffer| rustix::fs::lgetxattr(path, name, buffer))
    }

    /// Names of attributes, each ended by NUL, the same way.
    pub fn xattr_names(&self, below: &[u8], size: usize) -> Result<(usize, Vec<u8>), Errno> {
        let path = self.path(below);
        if size == 0 {
            return Ok((rustix::fs::llistxattr_query(path)?, Vec::new()));
        }
        filled(size, |buffer| rustix::fs::llistxattr(path, buffer))
    }

    /// What `statfs` of a mount with this folder alone sums up.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { bytes: 0, entries: 1 };
        self.sum(&self.0, &mut totals);
        totals
    }

    fn sum(&self, at: &Path, totals: &mut Totals) {
        for entry in std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap()) {
            let stat = entry.metadata().unwrap();
            totals.entries += 1;
            if stat.is_file() {
                totals.bytes += stat.len();
            }
            if stat.is_dir() {
                self.sum(&entry.path(), totals);
            }
        }
    }
}

fn filled(
    size: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) -> Result<(usize, Vec<u8>), Errno> {
    let mut buffer = vec![0; size];
    let len = fill(&mut buffer)?;
    buffer.truncate(len);
    Ok((len, buffer))
}

fn kind(of: FileType) -> NodeKind {
    match of {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::CharacterDevice => NodeKind::CharDevice,
        _ => NodeKind::BlockDevice,
    }
}
