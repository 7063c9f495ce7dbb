//! Regular files of a directory tree, opened by the thread that reads them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use holdfast_store::tree::{Node, NodeKind, Xattr};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::attributes::{self, Handle, Owners};
use super::filesystems::Filesystems;
use super::{FileOpener, OpenFile};
use crate::descent::Place;
use crate::error::SourceError;

/// Magic numbers of file systems whose answers about holes are trusted: ext2 to ext4, XFS, btrfs, tmpfs. Others have
/// answered with holes where data was not yet written back; there everything is read.
const HOLES_TRUSTED: [u64; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994];

/// A file up to this length without missing blocks is data without asking.
const SMALL_MAX: u64 = 65_536;

/// What all files of one source share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) owners: Owners,
    pub(super) filesystems: Filesystems,
    holes: Mutex<HashMap<u64, bool>>,
    /// Devices that were written out.
    written_out: Mutex<HashSet<u64>>,
}

impl Shared {
    /// Has the file system of `file` write out what is dirty in it, once; whoever comes meanwhile waits.
    ///
    /// `fsync` of each file would do as well, but has the disk flush its cache each time, also for files that are clean: half a
    /// millisecond on a fast one, ten on one that turns. Where this fails, what is left is that the kernel writes out in time.
    fn write_out(&self, device: u64, file: &OwnedFd) {
        let mut known = self.written_out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.insert(device) {
            let _ = rustix::fs::syncfs(file);
        }
    }

    /// Whether the file system of `file` is trusted about holes; asked once for each.
    fn holes_trusted(&self, device: u64, file: &OwnedFd) -> bool {
        let mut known = self.holes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *known.entry(device).or_insert_with(|| {
            rustix::fs::fstatfs(file).is_ok_and(|stat| HOLES_TRUSTED.contains(&stat.f_type.cast_unsigned()))
        })
    }
}

/// Where a file was found.
#[derive(Debug, Clone)]
pub(super) struct DiskFile {
    pub(super) directory: Arc<OwnedFd>,
    pub(super) place: Arc<Place>,
    pub(super) name: Vec<u8>,
    pub(super) filesystem: u32,
    pub(super) shared: Arc<Shared>,
}

impl DiskFile {
    fn path(&self) -> Vec<u8> {
        self.place.join(&self.name)
    }

    fn failed<E: Into<io::Error>>(&self, action: &'static str) -> impl FnOnce(E) -> SourceError {
        SourceError::io(action, self.path())
    }
}

impl FileOpener for DiskFile {
    fn open(&self) -> Result<Box<dyn OpenFile>, SourceError> {
        let file = open_quietly(&self.directory, &self.name).map_err(self.failed("open"))?;
        let stat = attributes::stat_open(&file).map_err(self.failed("stat"))?;
        if attributes::kind_of(&stat) != Some(NodeKind::File) {
            return Err(SourceError::Changed {
                path: self.path(),
                detail: "it is no longer a regular file".into(),
            });
        }
        // Blocks are 512 bytes here, whatever the file system's are.
        let whole = stat.stx_size <= SMALL_MAX && stat.stx_blocks.saturating_mul(512) >= stat.stx_size;
        let device = attributes::device_of(&stat);
        let seek = !whole && self.shared.holes_trusted(device, &file);
        Ok(Box::new(OpenDiskFile { found: self.clone(), file, device, size: stat.stx_size, seek }))
    }
}

/// Opens a regular file without marking it as read where that is allowed, and without waiting if it is a fifo by now.
fn open_quietly(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(directory, name, flags, Mode::empty()),
        other => other,
    }
}

struct OpenDiskFile {
    found: DiskFile,
    file: OwnedFd,
    device: u64,
    size: u64,
    seek: bool,
}

impl OpenFile for OpenDiskFile {
    fn write_out(&self) {
        self.found.shared.write_out(self.device, &self.file);
    }

    fn attributes(&self) -> Result<Node, SourceError> {
        let stat = attributes::stat_open(&self.file).map_err(self.found.failed("stat"))?;
        let DiskFile { name, filesystem, shared, .. } = &self.found;
        Ok(attributes::node(name, NodeKind::File, &stat, *filesystem, &shared.owners))
    }

    fn xattrs(&self) -> Result<Vec<Xattr>, SourceError> {
        attributes::xattrs(&Handle::Open(&self.file))
            .map_err(self.found.failed("read extended attributes of"))
    }

    fn flags(&self) -> Result<u32, SourceError> {
        attributes::flags(&self.file).map_err(self.found.failed("read flags of"))
    }

    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        if !self.seek {
            return Ok((offset < self.size).then_some(offset..self.size));
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(error) => return Err(self.found.failed("seek in")(error)),
        };
        match rustix::fs::seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => Ok(Some(start..end.max(start + 1))),
            // Cut off since.
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(self.found.failed("seek in")(error)),
        }
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&self.file, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.found.failed("read")(error)),
            }
        }
        Ok(filled)
    }
}
