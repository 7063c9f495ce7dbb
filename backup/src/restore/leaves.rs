//! Making everything but directories: files, links, special files, and further names of what was made before.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use holdfast_store::tree::{Node, NodeKind};
use rustix::fs::{Mode, OFlags};

use super::TreeReader;
use super::attributes::{Dressing, Handle, LOCKING_FLAGS, set_early_flags, set_flags};
use super::directory::Filling;
use super::links::{self, First, LateLink, Locked, Standing, has_names};
use super::report::Action;
use super::run::Restore;
use super::target::{Plan, identity};
use super::verify::content_is;
use super::writers::{FileState, Job, TargetFile, pieces_of};
use crate::descent::DirectoryId;
use crate::error::TargetError;

/// A job is handed over when it has so many pieces or bytes, so that all writers share a large file.
const JOB_PIECES: usize = 64;
const JOB_BYTES: u64 = 8 << 20;

/// Where an entry is to be made: its directory, open and shared.
struct Here {
    fd: Arc<OwnedFd>,
    filling: Arc<Filling>,
    /// Whether new entries come with ACLs or flags of the directory's.
    bequeaths: bool,
}

impl<R: TreeReader> Restore<'_, R> {
    /// Anything but a directory.
    pub(super) fn leaf(&mut self, node: Node) {
        if !self.make_directories() {
            return;
        }
        if self.options.dry_run {
            return self.rehearse(&node);
        }
        let Some(here) = self.here() else { return };
        if let Some(first) = self.links.first(&node)
            && self.linked(&here, &node, &first)
        {
            return;
        }
        let directory = self.directory(&here.fd, &here.filling.place);
        let plan = directory.plan(&node, &self.prover(&here.fd, &node));
        if let Err(error) = plan.and_then(|plan| self.carry_out(plan, here, node)) {
            self.refuse(error);
        }
    }

    fn carry_out(&mut self, plan: Plan, here: Here, node: Node) -> Result<(), TargetError> {
        match plan {
            Plan::Keep => {
                self.report.kept(&node, || self.path(&node.name));
                self.settled(&node);
                Ok(())
            }
            Plan::Same(name, id) => {
                self.report.same(&node, || self.path(&name));
                self.remember(&node, name, id);
                self.settled(&node);
                Ok(())
            }
            Plan::Mend => self.mend(&here, node),
            Plan::Create => self.make(here, node, Action::Create),
            Plan::Replace => self.make(here, node, Action::Replace),
            Plan::Beside => self.make(here, node, Action::Beside),
        }
    }

    fn here(&self) -> Option<Here> {
        let (frame, fd) = self.frames.last().zip(self.descent.as_ref()?.current())?;
        let (fd, filling) = (Arc::clone(fd), Arc::clone(frame.filling.as_ref()?));
        Some(Here { fd, filling, bequeaths: frame.bequeaths })
    }

    /// Proves, if that was asked for, that what looks the same has the bytes of the point.
    fn prover<'b>(&'b self, fd: &'b OwnedFd, node: &'b Node) -> impl Fn(&[u8]) -> bool + 'b {
        move |name| {
            !self.options.checksum
                || node.kind != NodeKind::File
                || content_is(fd, name, node, self.reader).unwrap_or(false)
        }
    }

    /// An entry for which nothing is to be written is done.
    fn settled(&self, node: &Node) {
        self.report.done(1, if node.kind == NodeKind::File { node.size } else { 0 });
    }

    /// Names what could not be made; devices that only root may make are named once.
    pub(super) fn refuse(&mut self, error: TargetError) {
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

    /// Says what would be done.
    fn rehearse(&mut self, node: &Node) {
        let first = self.links.first(node);
        let here = self.descent.as_ref().and_then(|descent| descent.current()).filter(|_| self.stands());
        let plan = match (here, self.frames.last()) {
            (Some(fd), Some(frame)) => {
                let directory = self.directory(fd, &frame.place);
                match &first {
                    Some(first) => directory.plan_link(node, first.found().map(|found| found.id)),
                    None => directory.plan(node, &self.prover(fd, node)),
                }
            }
            _ => Ok(Plan::Create),
        };
        let path = || self.path(&node.name);
        match plan {
            Err(error) => return self.report.target(error),
            Ok(Plan::Keep) => return self.report.kept(node, path),
            Ok(Plan::Same(_, id)) => {
                self.report.same(node, path);
                return self.remember(node, node.name.clone(), id);
            }
            Ok(_) if first.is_some() => return self.report.linked(Action::Link, path),
            Ok(Plan::Mend) => self.report.mended(node, path),
            Ok(Plan::Create) => self.report.made(node, Action::Create, path),
            Ok(Plan::Replace) => self.report.made(node, Action::Replace, path),
            Ok(Plan::Beside) => self.report.made(node, Action::Beside, path),
        }
        if let Some(frame) = self.frames.last().filter(|_| has_names(node)) {
            self.links.remember(node, First::new(&frame.place, Standing::Nowhere { lost: false }));
        }
    }

    /// Makes a further name of something made before, or has it made. `false` if it must be made as a thing of its own.
    fn linked(&mut self, here: &Here, node: &Node, first: &First) -> bool {
        if let Standing::Writing(waiting) = &mut *first.standing() {
            waiting.push(LateLink { directory: Arc::clone(&here.filling), node: node.clone() });
            return true;
        }
        let Some(found) = first.found() else { return false };
        let result = self
            .links
            .directory(self.target(), first)
            .map_err(TargetError::io("open", first.place.path()))
            .and_then(|above| {
                let above = self.directory(&above, &first.place);
                let to = self.directory(&here.fd, &here.filling.place);
                links::make(&above, &found, &to, node, self.report)
            });
        match result {
            Ok(()) => self.report.done(1, 0),
            Err(error @ TargetError::Exists { .. }) => self.report.target(error),
            Err(error) => {
                let name = crate::error::shown(&first.place.join(&found.name));
                let reason = format!("made as a copy instead of a hard link to {name}: {error}");
                self.report.problem(self.path(&node.name), reason);
                return false;
            }
        }
        true
    }

    fn remember(&mut self, node: &Node, name: Vec<u8>, id: DirectoryId) {
        if let Some(frame) = self.frames.last().filter(|_| has_names(node)) {
            let standing = Standing::Stands { name, id, whole: true };
            self.links.remember(node, First::new(&frame.place, standing));
        }
    }

    /// Sets the attributes of something whose content is right.
    fn mend(&mut self, here: &Here, node: Node) -> Result<(), TargetError> {
        let directory = self.directory(&here.fd, &here.filling.place);
        let path = || here.filling.place.join(&node.name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = if node.kind == NodeKind::File {
            let fd = rustix::fs::openat(&here.fd, node.name.as_slice(), flags, Mode::empty());
            let fd = fd.map_err(directory.failed("open", &node.name))?;
            // Nothing else can be set while one of these is. Most files have none, and most file systems know them.
            let _ = set_flags(&fd, LOCKING_FLAGS, 0);
            fd
        } else {
            directory.handle(&node.name, None)?
        };
        let id = identity(&fd).map_err(directory.failed("stat", &node.name))?;
        let flags_later = self.flags_later(&node);
        let to = match node.kind {
            NodeKind::File => Handle::Open(fd.as_fd()),
            _ => Handle::Path(fd.as_fd()),
        };
        let report = self.report;
        Dressing { to, node: &node, exact: true, strip: true, times: true, flags_later, path: &path, report }
            .apply();
        report.mended(&node, path);
        self.remember(&node, node.name.clone(), id);
        if flags_later != 0 {
            let first = First::new(
                &here.filling.place,
                Standing::Stands { name: node.name.clone(), id, whole: true },
            );
            self.locked.push(Locked { first, flags: flags_later });
        }
        self.settled(&node);
        Ok(())
    }

    /// Flags of a file that must wait until all its names are made.
    fn flags_later(&self, node: &Node) -> u32 {
        if has_names(node) { node.flags & LOCKING_FLAGS } else { 0 }
    }

    fn make(&mut self, here: Here, node: Node, action: Action) -> Result<(), TargetError> {
        match node.kind {
            NodeKind::File => self.file(here, node, action),
            _ => self.other(&here, &node, action),
        }
    }

    fn other(&mut self, here: &Here, node: &Node, action: Action) -> Result<(), TargetError> {
        let directory = self.directory(&here.fd, &here.filling.place);
        let (temporary, fd) = directory.other(node)?;
        let path = || here.filling.place.join(&node.name);
        Dressing {
            to: Handle::Path(fd.as_fd()),
            node,
            exact: here.bequeaths,
            strip: false,
            times: true,
            flags_later: 0,
            path: &path,
            report: self.report,
        }
        .apply();
        let id = identity(&fd).map_err(directory.failed("stat", &node.name))?;
        match directory.settle(&temporary, &node.name)? {
            None => self.report.kept(node, path),
            Some(name) => {
                self.report.made(node, action, || here.filling.place.join(&name));
                self.remember(node, name, id);
            }
        }
        self.settled(node);
        Ok(())
    }

    fn file(&mut self, here: Here, node: Node, action: Action) -> Result<(), TargetError> {
        let directory = self.directory(&here.fd, &here.filling.place);
        let (temporary, fd) = directory.file(&node)?;
        set_early_flags(&fd, &node);
        let first = has_names(&node).then(|| First::new(&here.filling.place, Standing::Writing(Vec::new())));
        let flags_later = self.flags_later(&node);
        if let Some(first) = &first {
            self.links.remember(&node, first.clone());
            if flags_later != 0 {
                self.locked.push(Locked { first: first.clone(), flags: flags_later });
            }
        }
        let Here { fd: directory, filling, bequeaths } = here;
        let file = TargetFile {
            fd,
            node,
            directory,
            filling,
            temporary,
            action,
            exact: bequeaths,
            flags_later,
            first,
            state: FileState::default(),
        };
        match rustix::fs::ftruncate(&file.fd, file.node.size) {
            Ok(()) => self.send_content(Arc::new(file)),
            Err(error) => {
                file.lack();
                self.report.target(TargetError::io("set length of", file.path())(error));
                self.send(Job { file: Arc::new(file), pieces: Vec::new() });
            }
        }
        Ok(())
    }

    /// Hands what is in a file to the writers, piece by piece.
    fn send_content(&self, file: Arc<TargetFile>) {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        for piece in pieces_of(&file, self.reader, self.report) {
            bytes += u64::from(piece.len);
            pieces.push(piece);
            if pieces.len() >= JOB_PIECES || bytes >= JOB_BYTES {
                bytes = 0;
                self.send(Job { file: Arc::clone(&file), pieces: std::mem::take(&mut pieces) });
            }
        }
        self.send(Job { file, pieces });
    }

    /// Writers end only when this sender does, so there is always one to take it.
    fn send(&self, job: Job) {
        if let Err(unsent) = self.jobs.send(job) {
            unsent.0.file.lack();
        }
    }
}
