//! The threads that write what is in files, and what becomes of a file when its last byte is written, or is not to be had.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use holdfast_store::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::tree::{Extent, Node};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Dressing, Handle, LOCKING_FLAGS, set_flags};
use super::compare::same_bytes;
use super::directory::Filling;
use super::links::{First, LateLink, NotLinked, Standing};
use super::report::{Action, Report};
use super::target::{Plan, TargetDir, identity, names_incomplete, open_place};
use super::throttle::Throttle;
use super::{Overwrite, TreeReader, temporary};
use crate::error::{TargetError, shown};

/// What all writers share.
pub(super) struct Writing<'a, R> {
    pub(super) reader: &'a R,
    pub(super) target: &'a OwnedFd,
    pub(super) overwrite: Overwrite,
    pub(super) throttle: Option<&'a Throttle>,
    pub(super) report: &'a Report<'a>,
}

/// A file that is being written. Whoever drops the last share of it gives it its attributes and its name.
pub(super) struct TargetFile {
    pub(super) fd: OwnedFd,
    pub(super) node: Node,
    /// Where it lies, and the name that it has there until it is whole.
    pub(super) directory: Arc<OwnedFd>,
    pub(super) filling: Arc<Filling>,
    pub(super) temporary: Vec<u8>,
    /// Whether something is to go when it is whole, or is to stay beside it.
    pub(super) action: Action,
    pub(super) exact: bool,
    pub(super) flags_later: u32,
    /// Of a file with several names.
    pub(super) first: Option<First>,
    pub(super) state: FileState,
}

/// What became of a file's content.
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// Something is missing.
    incomplete: AtomicBool,
    /// Of that, a vault may give something later.
    waits: AtomicBool,
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

impl<R: TreeReader> Writing<'_, R> {
    /// Takes jobs until there are no more. Once the restore has stopped, files are only taken away.
    pub(super) fn work(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            for piece in &job.pieces {
                if self.report.stopped() {
                    job.file.lack();
                }
                if job.file.waits() || self.report.stopped() {
                    break;
                }
                self.write(&job.file, piece);
            }
            self.finish(job.file);
        }
    }

    /// Writes one piece. A piece that cannot be read stays a hole: the rest of a large file is worth having, and the
    /// path is named with what is missing.
    fn write(&self, file: &TargetFile, piece: &Piece) {
        let bytes = match self.reader.data(&piece.id, piece.len).and_then(|bytes| of_length(bytes, piece)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let end = piece.offset + u64::from(piece.len);
                let what = format!("bytes {} to {end} are missing", piece.offset);
                return file.lack_of(&what, error, self.report);
            }
        };
        if let Some(throttle) = self.throttle {
            throttle.take(bytes.len() as u64, || self.report.stopped());
        }
        match write_all(&file.fd, &bytes, piece.offset) {
            Ok(()) => {
                file.state.some.store(true, Relaxed);
                self.report.done(0, bytes.len() as u64);
            }
            Err(error) => {
                file.lack();
                self.report.target(TargetError::io("write", file.path())(error));
            }
        }
    }

    /// Lets go of a file, and if nobody else holds it, gives it attributes and name, and makes the names that wait for it.
    pub(super) fn finish(&self, file: Arc<TargetFile>) {
        let Some(file) = Arc::into_inner(file) else { return };
        let whole = !file.lacks();
        let standing = match whole {
            true => self.settle(&file),
            false => self.set_aside(&file),
        };
        let standing = standing.unwrap_or_else(|error| {
            self.report.target(error);
            Standing::Nowhere { lost: false }
        });
        if let Some(first) = &file.first {
            for link in first.settle(standing) {
                match file.waits() {
                    true => self.leave_out(link),
                    false => self.link(link, first),
                }
            }
        }
        self.report.done(1, 0);
        file.filling.release_open(&file.directory, self.report);
    }

    /// Makes a name that waited; if it cannot be a link, as a file of its own.
    fn link(&self, link: LateLink, first: &First) {
        let path = || link.directory.place.join(&link.node.name);
        match link.make(first, self.target, self.overwrite, self.report) {
            Ok(()) => {}
            Err(_) if self.report.stopped() => {}
            Err(error @ NotLinked::Lost) => self.report.problem(path(), format!("not made: {error}")),
            Err(NotLinked::Target(error @ TargetError::Exists { .. })) => self.report.target(error),
            Err(error) => {
                let name = shown(&first.place.join(&link.node.name));
                let reason = format!("made as a copy instead of a hard link to {name}: {error}");
                self.report.problem(path(), reason);
                return self.copy(link).unwrap_or_else(|error| self.report.target(error));
            }
        }
        link.directory.release(self.target, self.report);
    }

    /// Counts a name of a file that a vault may give later.
    fn leave_out(&self, link: LateLink) {
        self.report.waits();
        link.directory.release(self.target, self.report);
    }

    /// Makes a name that waited as a file of its own.
    fn copy(&self, LateLink { directory: filling, node }: LateLink) -> Result<(), TargetError> {
        let open =
            open_place(self.target, &filling.place).map_err(TargetError::io("open", filling.place.path()))?;
        temporary::hold(&open);
        let (overwrite, privileged) = (self.overwrite, self.report.privileged);
        let directory = TargetDir { fd: &open, place: &filling.place, overwrite, privileged };
        let action = match directory.plan(&node, &|_| false)? {
            Plan::Keep | Plan::Same(..) => return Ok(()),
            Plan::Create => Action::Create,
            Plan::Replace | Plan::Mend => Action::Replace,
            Plan::Beside => Action::Beside,
        };
        let (temporary, fd) = directory.file(&node)?;
        let (directory, state) = (Arc::new(open), FileState::default());
        let file = Arc::new(TargetFile {
            fd,
            node,
            directory,
            filling,
            temporary,
            action,
            exact: true,
            flags_later: 0,
            first: None,
            state,
        });
        if rustix::fs::ftruncate(&file.fd, file.node.size).is_err() {
            file.lack();
        }
        for piece in pieces_of(&file, self.reader, self.report) {
            self.write(&file, &piece);
        }
        self.finish(file);
        Ok(())
    }

    fn directory<'f>(&self, file: &'f TargetFile) -> TargetDir<'f> {
        TargetDir {
            fd: &file.directory,
            place: &file.filling.place,
            overwrite: self.overwrite,
            privileged: self.report.privileged,
        }
    }

    /// Attributes but for the flags after which a file cannot be renamed.
    fn dress(&self, file: &TargetFile, times: bool) {
        Dressing {
            to: Handle::Open(file.fd.as_fd()),
            node: &file.node,
            exact: file.exact,
            strip: false,
            times,
            flags_later: file.flags_later | LOCKING_FLAGS,
            path: &|| file.path(),
            report: self.report,
        }
        .apply();
    }

    /// Gives a whole file its name. What it takes the place of goes only when its own bytes are on the disk.
    fn settle(&self, file: &TargetFile) -> Result<Standing, TargetError> {
        let directory = self.directory(file);
        self.dress(file, true);
        if file.action == Action::Replace
            && let Err(error) = rustix::fs::fdatasync(&file.fd)
        {
            directory.remove(&file.temporary);
            return Err(TargetError::io("write", file.path())(error));
        }
        let id = identity(&file.fd).map_err(TargetError::io("stat", file.path()))?;
        let Some(name) = directory.settle(&file.temporary, &file.node.name)? else {
            self.report.kept(&file.node, || file.path());
            return Ok(Standing::Nowhere { lost: false });
        };
        self.report.made(&file.node, file.action, || directory.place.join(&name));
        self.lock(file).map_err(TargetError::io("set flags of", file.path()))?;
        Ok(Standing::Stands { name, id, whole: true })
    }

    /// Makes a file immutable or append-only, if that does not have to wait for its further names.
    fn lock(&self, file: &TargetFile) -> rustix::io::Result<()> {
        let flags = file.node.flags & LOCKING_FLAGS & !file.flags_later;
        if flags == 0 {
            return Ok(());
        }
        match set_flags(&file.fd, LOCKING_FLAGS, flags) {
            Err(Errno::PERM | Errno::ACCESS | Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => {
                self.report.refused("file flags", "they cannot be set here");
                Ok(())
            }
            other => other,
        }
    }

    /// Finds a place for a file that is not whole: its name if nothing has it, else one beside what stays. What has just
    /// the same bytes already, from an earlier run, is enough.
    fn set_aside(&self, file: &TargetFile) -> Result<Standing, TargetError> {
        let directory = self.directory(file);
        let report = self.report;
        if file.waits() && !report.stopped() {
            directory.remove(&file.temporary);
            report.waits();
            return Ok(Standing::Nowhere { lost: true });
        }
        if !file.state.some.load(Relaxed) || report.stopped() {
            directory.remove(&file.temporary);
            if !report.stopped() {
                report.incomplete(&file.node, || file.path());
                let detail = "nothing of it could be read; it was not made, and what was there stays";
                report.explain(file.path(), detail.into());
            }
            return Ok(Standing::Nowhere { lost: true });
        }
        self.dress(file, false);
        let id = identity(&file.fd).map_err(TargetError::io("stat", file.path()))?;
        report.incomplete(&file.node, || file.path());
        for name in std::iter::once(file.node.name.clone()).chain(names_incomplete(&file.node.name)) {
            let in_way = match directory.rename_fresh(&file.temporary, &name) {
                Ok(()) => {
                    if name != file.node.name {
                        let beside = shown(&name);
                        let detail = format!("what was there stays; what could be read is in {beside}");
                        report.explain(file.path(), detail);
                    }
                    return Ok(Standing::Stands { name, id, whole: false });
                }
                Err(Errno::EXIST) => open_file(&file.directory, &name),
                Err(error) => {
                    directory.remove(&file.temporary);
                    return Err(TargetError::io("create", directory.place.join(&name))(error));
                }
            };
            if let Some((there, id)) =
                in_way.filter(|(there, _)| same_bytes(&file.fd, there).unwrap_or(false))
            {
                drop(there);
                directory.remove(&file.temporary);
                let detail = format!("what could be read of it is in {} already", shown(&name));
                report.explain(file.path(), detail);
                return Ok(Standing::Stands { name, id, whole: false });
            }
        }
        directory.remove(&file.temporary);
        Err(TargetError::Exists { path: file.path() })
    }
}

/// A regular file, open, and which it is.
fn open_file(directory: &OwnedFd, name: &[u8]) -> Option<(OwnedFd, crate::descent::DirectoryId)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    let id = identity(&file).ok()?;
    regular.then_some((file, id))
}

impl TargetFile {
    pub(super) fn path(&self) -> Vec<u8> {
        self.filling.place.join(&self.node.name)
    }

    fn lacks(&self) -> bool {
        self.state.incomplete.load(Relaxed)
    }

    fn waits(&self) -> bool {
        self.state.waits.load(Relaxed)
    }

    /// Notes that content is missing.
    pub(super) fn lack(&self) {
        self.state.incomplete.store(true, Relaxed);
    }

    /// The same, and tells why the store could not give it.
    fn lack_of(&self, what: &str, error: StoreError, report: &Report<'_>) {
        self.lack();
        if report.store(self.path(), what, error) {
            self.state.waits.store(true, Relaxed);
        }
    }
}

/// The pieces of a file in order. What its list lacks is told, and the file is then incomplete.
pub(super) fn pieces_of<'a, R: TreeReader>(
    file: &'a TargetFile,
    reader: &'a R,
    report: &'a Report<'a>,
) -> impl Iterator<Item = Piece> + 'a {
    let missing = |error| file.lack_of("content is missing", error, report);
    let list = reader.extents(&file.node).map_err(missing).ok();
    let (mut extents, mut offset) = (list.into_iter().flatten(), 0);
    std::iter::from_fn(move || {
        loop {
            let left = file.node.size.saturating_sub(offset);
            let at = offset;
            match extents.next() {
                Some(Ok(extent)) if extent.len() > left => {
                    offset = file.node.size;
                    missing(StoreError::corrupt("content list", "it is longer than its file"));
                    return None;
                }
                Some(Ok(Extent::Data { id, len })) => {
                    offset += u64::from(len);
                    return Some(Piece { offset: at, id, len });
                }
                Some(Ok(Extent::Hole { len })) => {
                    offset += len;
                    report.done(0, len);
                }
                Some(Err(error)) => {
                    missing(error);
                    return None;
                }
                None if left > 0 && !file.lacks() => {
                    missing(StoreError::corrupt("content list", "it is shorter than its file"));
                    return None;
                }
                None => return None,
            }
        }
    })
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
