//! The threads that write what is in files.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use holdfast_store::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::tree::Node;
use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::TreeReader;
use super::attributes::{Dressing, Handle, LOCKING_FLAGS, set_flags};
use super::report::Report;
use super::target::{identity, incomplete_name};
use crate::descent::Place;
use crate::error::{TargetError, shown};

/// A file that is being written. Whoever drops the last share of it gives it its attributes.
pub(super) struct TargetFile {
    pub(super) fd: OwnedFd,
    pub(super) node: Node,
    pub(super) place: Arc<Place>,
    /// The name that it got.
    pub(super) name: Vec<u8>,
    pub(super) exact: bool,
    pub(super) flags_later: u32,
    /// If something else has its name until it is whole: its directory, and the name that it has meanwhile.
    pub(super) replacing: Option<(Arc<OwnedFd>, Vec<u8>)>,
    pub(super) state: FileState,
}

/// What became of a file's content.
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// Something is missing.
    incomplete: AtomicBool,
    /// Something is there.
    some: AtomicBool,
}

/// Bytes that belong into a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) id: ChunkId,
    pub(super) len: u32,
}

/// Some pieces of one file; none if it has no bytes.
pub(super) struct Job {
    pub(super) file: Arc<TargetFile>,
    pub(super) pieces: Vec<Piece>,
}

/// Takes jobs until there are no more. Once the restore has stopped, files are only closed.
pub(super) fn work<R: TreeReader>(jobs: &Receiver<Job>, reader: &R, report: &Report<'_>) {
    for job in jobs {
        for piece in &job.pieces {
            if report.stopped() {
                job.file.lack();
                break;
            }
            job.file.write(piece, reader, report);
        }
        finish(job.file, report);
    }
}

/// Lets go of a file, and if nobody else holds it, gives it its attributes.
pub(super) fn finish(file: Arc<TargetFile>, report: &Report<'_>) {
    let Some(file) = Arc::into_inner(file) else { return };
    let whole = !file.state.incomplete.load(Relaxed);
    if !whole && let Ok(id) = identity(&file.fd) {
        report.incomplete(id);
    }
    // A file that cannot be changed any more could not be renamed either.
    let locking = if file.replacing.is_some() { LOCKING_FLAGS } else { 0 };
    Dressing {
        to: Handle::Open(file.fd.as_fd()),
        node: &file.node,
        exact: file.exact,
        times: whole,
        flags_later: file.flags_later | locking,
        path: &|| file.path(),
        report,
    }
    .apply();
    if let Some((directory, temporary)) = &file.replacing {
        file.settle(directory, temporary, whole, report);
    }
    report.done(1, 0);
}

impl TargetFile {
    fn path(&self) -> Vec<u8> {
        self.place.join(&self.name)
    }

    /// Notes that content is missing.
    pub(super) fn lack(&self) {
        self.state.incomplete.store(true, Relaxed);
    }

    /// Takes the place of what has its name, if it is whole; else what is there stays, with what could be read beside it.
    fn settle(&self, directory: &OwnedFd, temporary: &[u8], whole: bool, report: &Report<'_>) {
        let result = match whole {
            true => self.replace(directory, temporary, report),
            false => self.set_aside(directory, temporary, report),
        };
        if let Err(error) = result {
            let _ = rustix::fs::unlinkat(directory, temporary, AtFlags::empty());
            report.target(TargetError::io("replace", self.path())(error));
        }
    }

    fn replace(&self, directory: &OwnedFd, temporary: &[u8], report: &Report<'_>) -> rustix::io::Result<()> {
        rustix::fs::renameat(directory, temporary, directory, self.name.as_slice())?;
        match self.node.flags & LOCKING_FLAGS & !self.flags_later {
            0 => Ok(()),
            flags => match set_flags(&self.fd, LOCKING_FLAGS, flags) {
                Err(Errno::PERM | Errno::ACCESS | Errno::NOTTY | Errno::OPNOTSUPP) => {
                    report.refused("file flags", "they cannot be set here");
                    Ok(())
                }
                other => other,
            },
        }
    }

    fn set_aside(
        &self,
        directory: &OwnedFd,
        temporary: &[u8],
        report: &Report<'_>,
    ) -> rustix::io::Result<()> {
        if !self.state.some.load(Relaxed) || report.stopped() {
            rustix::fs::unlinkat(directory, temporary, AtFlags::empty())?;
            if !report.stopped() {
                report.problem(self.path(), "nothing of it could be read; what was there stays".into());
            }
            return Ok(());
        }
        let name = incomplete_name(&self.name);
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(directory, temporary, directory, name.as_slice(), flags)?;
        let beside = shown(&name);
        report.problem(self.path(), format!("what was there stays; what could be read is in {beside}"));
        Ok(())
    }

    /// Writes one piece. A piece that cannot be read stays a hole: the rest of a large file is worth having, and the
    /// path is named with what is missing.
    fn write<R: TreeReader>(&self, piece: &Piece, reader: &R, report: &Report<'_>) {
        let bytes = match reader.data(&piece.id, piece.len).and_then(|bytes| of_length(bytes, piece)) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.lack();
                let end = piece.offset + u64::from(piece.len);
                return report.store(
                    self.path(),
                    &format!("bytes {} to {end} are missing", piece.offset),
                    error,
                );
            }
        };
        match write_all(&self.fd, &bytes, piece.offset) {
            Ok(()) => {
                self.state.some.store(true, Relaxed);
                report.done(0, bytes.len() as u64);
            }
            Err(error) => {
                self.lack();
                report.target(TargetError::io("write", self.path())(error));
            }
        }
    }
}

fn of_length(bytes: Bytes, piece: &Piece) -> Result<Bytes, StoreError> {
    let detail = || format!("has {} bytes instead of {}", bytes.len(), piece.len);
    if bytes.len() as u64 == u64::from(piece.len) {
        Ok(bytes)
    } else {
        Err(StoreError::corrupt("chunk", detail()))
    }
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(len) => {
                bytes = bytes.get(len..).unwrap_or_default();
                offset += len as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
