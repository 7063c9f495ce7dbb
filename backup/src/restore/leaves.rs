//! Making everything but directories: files, links, special files, and further names of what was made before.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use holdfast_store::StoreError;
use holdfast_store::tree::{Extent, Node, NodeKind};

use super::TreeReader;
use super::attributes::{Dressing, Handle, LOCKING_FLAGS, set_early_flags};
use super::late::LateLink;
use super::links::{First, has_names};
use super::run::{Locked, Restore};
use super::target::{Made, NewFile, TargetDir, identity};
use super::writers::{FileState, Job, Piece, TargetFile, finish};
use crate::descent::Place;
use crate::error::TargetError;

/// A job is handed over when it has so many pieces or bytes, so that all writers share a large file.
const JOB_PIECES: usize = 64;
const JOB_BYTES: u64 = 8 << 20;

impl<R: TreeReader> Restore<'_, R> {
    /// Anything but a directory.
    pub(super) fn leaf(&mut self, node: Node) {
        if !self.make_directories() {
            return;
        }
        if self.options.dry_run {
            return self.count(&node);
        }
        let Some(frame) = self.frames.last() else { return };
        let (place, exact) = (Arc::clone(&frame.place), frame.bequeaths);
        let Some(fd) = self.descent.current().map(Arc::clone) else { return };
        let directory = TargetDir { fd: &fd, place: &place, overwrite: self.options.overwrite };
        if self.linked(&directory, &place, &node) {
            return;
        }
        let made = match node.kind {
            NodeKind::File => self.file(&directory, &place, node, exact),
            _ => self.other(&directory, &place, &node, exact),
        };
        match made {
            Ok(true) => {}
            Ok(false) => self.summary.skipped += 1,
            Err(error) => self.refuse(error),
        }
    }

    /// Names what could not be made; devices that only root may make are named once.
    fn refuse(&mut self, error: TargetError) {
        match &error {
            TargetError::Io { action: "create", source, .. }
                if !self.report.privileged
                    && source.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) =>
            {
                self.report.refused("device nodes", "this process is not root");
            }
            _ => self.report.target(error),
        }
    }

    fn count(&mut self, node: &Node) {
        match node.kind {
            NodeKind::File => {
                self.summary.files += 1;
                self.summary.bytes += node.size;
            }
            NodeKind::Directory => self.summary.directories += 1,
            _ => self.summary.others += 1,
        }
    }

    /// Makes a further name of something made before. `false` if it must be made as a thing of its own.
    fn linked(&mut self, directory: &TargetDir<'_>, place: &Arc<Place>, node: &Node) -> bool {
        let Some(first) = self.links.first(node) else { return false };
        if directory.replaces() && node.kind == NodeKind::File {
            self.unsettle();
            let late = LateLink { place: Arc::clone(place), node: node.clone(), first };
            self.late.links.push(late);
            return true;
        }
        match self.link(directory, place, node, &first) {
            Ok(Some(_)) => self.summary.links += 1,
            Ok(None) => self.summary.skipped += 1,
            Err(error @ TargetError::Exists { .. }) => self.report.target(error),
            Err(error) => {
                let reason =
                    format!("made as a copy instead of a hard link to {}: {error}", shown_first(&first));
                self.report.problem(self.path(&node.name), reason);
                return false;
            }
        }
        true
    }

    fn link(
        &mut self,
        directory: &TargetDir<'_>,
        place: &Arc<Place>,
        node: &Node,
        first: &First,
    ) -> Result<Option<Made<()>>, TargetError> {
        let failed = |action| TargetError::io(action, first.place.join(&first.name));
        let opened;
        let above = if Arc::ptr_eq(place, &first.place) {
            directory.fd
        } else {
            opened = self.links.directory(self.target, first).map_err(failed("open"))?;
            &*opened
        };
        let above = TargetDir { fd: above, place: &first.place, overwrite: self.options.overwrite };
        let handle = above.handle(&first.name, None)?;
        if identity(&handle).map_err(failed("stat"))? != first.id {
            let detail = "another file has its name now".into();
            return Err(TargetError::Changed { path: first.place.join(&first.name), detail });
        }
        directory.link(node, &handle)
    }

    fn remember(&mut self, node: &Node, place: &Arc<Place>, name: &[u8], fd: &OwnedFd) {
        if has_names(node)
            && let Ok(id) = identity(fd)
        {
            self.links.remember(node, First { place: Arc::clone(place), name: name.to_vec(), id });
        }
    }

    fn other(
        &mut self,
        directory: &TargetDir<'_>,
        place: &Arc<Place>,
        node: &Node,
        exact: bool,
    ) -> Result<bool, TargetError> {
        let Some(Made { name, what: fd }) = directory.other(node)? else { return Ok(false) };
        let (to, report) = (Handle::Path(fd.as_fd()), self.report);
        Dressing { to, node, exact, times: true, flags_later: 0, path: &|| place.join(&name), report }
            .apply();
        self.remember(node, place, &name, &fd);
        self.count(node);
        Ok(true)
    }

    fn file(
        &mut self,
        directory: &TargetDir<'_>,
        place: &Arc<Place>,
        node: Node,
        exact: bool,
    ) -> Result<bool, TargetError> {
        let Some(Made { name, what: NewFile { fd, temporary } }) = directory.file(&node)? else {
            return Ok(false);
        };
        if temporary.is_some() {
            self.unsettle();
        }
        let current = self.descent.current().map(Arc::clone);
        let replacing = current.zip(temporary);
        set_early_flags(&fd, &node);
        self.remember(&node, place, &name, &fd);
        self.count(&node);
        let flags_later = if has_names(&node) { node.flags & LOCKING_FLAGS } else { 0 };
        if flags_later != 0
            && let Ok(id) = identity(&fd)
        {
            let (place, name) = (Arc::clone(place), name.clone());
            self.late.locked.push(Locked { place, name, id, flags: flags_later });
        }
        let file = TargetFile {
            fd,
            node,
            place: Arc::clone(place),
            name,
            exact,
            flags_later,
            replacing,
            state: FileState::default(),
        };
        // A length that the file system cannot hold leaves an empty file with its attributes, and its name.
        match rustix::fs::ftruncate(&file.fd, file.node.size) {
            Ok(()) => self.send_content(Arc::new(file)),
            Err(error) => {
                file.lack();
                self.report.target(TargetError::io("set length of", place.join(&file.name))(error));
                finish(Arc::new(file), self.report);
            }
        }
        Ok(true)
    }

    /// The current directory gets its attributes only when all files are written.
    fn unsettle(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.unsettled = true;
        }
    }

    /// Hands what is in a file to the writers, piece by piece.
    fn send_content(&self, file: Arc<TargetFile>) {
        let missing = |error| {
            file.lack();
            self.report.store(file.place.join(&file.name), "content is missing", error);
        };
        let extents = match self.reader.extents(&file.node) {
            Ok(extents) => extents,
            Err(error) => {
                missing(error);
                return finish(file, self.report);
            }
        };
        let (mut offset, mut pieces, mut bytes, mut whole) = (0_u64, Vec::new(), 0, true);
        for extent in extents {
            let extent = match extent {
                Ok(extent) if extent.len() <= file.node.size.saturating_sub(offset) => extent,
                Ok(_) => {
                    missing(StoreError::corrupt("content list", "it is longer than its file"));
                    whole = false;
                    break;
                }
                Err(error) => {
                    missing(error);
                    whole = false;
                    break;
                }
            };
            if let Extent::Data { id, len } = extent {
                pieces.push(Piece { offset, id, len });
                bytes += u64::from(len);
            }
            offset += extent.len();
            if pieces.len() >= JOB_PIECES || bytes >= JOB_BYTES {
                bytes = 0;
                self.send(Job { file: Arc::clone(&file), pieces: std::mem::take(&mut pieces) });
            }
        }
        if whole && offset < file.node.size {
            missing(StoreError::corrupt("content list", "it is shorter than its file"));
        }
        self.send(Job { file, pieces });
    }

    fn send(&self, job: Job) {
        // Writers end only when this sender does.
        if let Err(unsent) = self.jobs.send(job) {
            unsent.0.file.lack();
            finish(unsent.0.file, self.report);
        }
    }
}

fn shown_first(first: &First) -> String {
    crate::error::shown(&first.place.join(&first.name))
}
