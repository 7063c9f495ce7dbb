//! The threads that write what is in files.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use holdfast_store::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::tree::Node;
use rustix::io::Errno;

use super::TreeReader;
use super::attributes::{Dressing, Handle};
use super::report::Report;
use crate::descent::Place;
use crate::error::TargetError;

/// A file that is being written. Whoever drops the last share of it gives it its attributes.
pub(super) struct TargetFile {
    pub(super) fd: OwnedFd,
    pub(super) node: Node,
    pub(super) place: Arc<Place>,
    /// The name that it got.
    pub(super) name: Vec<u8>,
    pub(super) exact: bool,
    pub(super) flags_later: u32,
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
    Dressing {
        to: Handle::Open(file.fd.as_fd()),
        node: &file.node,
        exact: file.exact,
        flags_later: file.flags_later,
        path: &|| file.path(),
        report,
    }
    .apply();
    report.done(1, 0);
}

impl TargetFile {
    fn path(&self) -> Vec<u8> {
        self.place.join(&self.name)
    }

    /// Writes one piece. A piece that cannot be read stays a hole: the rest of a large file is worth having, and the
    /// path is named with what is missing.
    fn write<R: TreeReader>(&self, piece: &Piece, reader: &R, report: &Report<'_>) {
        let bytes = match reader.data(&piece.id, piece.len).and_then(|bytes| of_length(bytes, piece)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let end = piece.offset + u64::from(piece.len);
                return report.store(
                    self.path(),
                    &format!("bytes {} to {end} are missing", piece.offset),
                    error,
                );
            }
        };
        match write_all(&self.fd, &bytes, piece.offset) {
            Ok(()) => report.done(0, bytes.len() as u64),
            Err(error) => report.target(TargetError::io("write", self.path())(error)),
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
