//! Reading back: what is in the target, compared with the point by the ids of its chunks.
//!
//! Nothing is read from the store but directories and lists: the bytes of the target are cut where the point's were and hashed, so
//! a comparison costs what reading the target costs. What the kernel holds in memory of a file is dropped first, as far as it
//! is written, so that the disk answers.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_store::StoreError;
use holdfast_store::monitor::Monitor;
use holdfast_store::tree::{Extent, Node, NodeKind};
use rustix::fs::{Advice, Mode, OFlags};

use super::choice::Choice;
use super::compare::{directory_difference, look_closely, next_data, read_exact};
use super::links::{First, Links, Standing, has_names};
use super::report::Report;
use super::run::workers;
use super::target::names_beside;
use super::{Nodes, Overwrite, RestoreError, RestoreOptions, TreeReader, VerifySummary};
use crate::descent::{Descent, OPEN_DIRECTORIES_MAX, Place, directory_id, open_directory};
use crate::error::TargetError;

/// Most bytes that are read at once of a hole that turns out to have some.
const LOOK_LEN: u64 = 1 << 20;

/// Why a content is not that of the point.
enum Wrong {
    Differs(String),
    Unreadable(std::io::Error),
    Store(StoreError),
}

impl From<rustix::io::Errno> for Wrong {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Unreadable(error.into())
    }
}

/// Whether a file in a directory has the bytes of the node.
pub(super) fn content_is<R: TreeReader>(
    directory: &OwnedFd,
    name: &[u8],
    node: &Node,
    reader: &R,
) -> std::io::Result<bool> {
    let file = open_file(directory, name)?;
    Ok(compare(&file, node, reader, &|| false).is_ok())
}

fn open_file(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

fn compare<R: TreeReader>(
    file: &OwnedFd,
    node: &Node,
    reader: &R,
    stopped: &dyn Fn() -> bool,
) -> Result<(), Wrong> {
    let mut buffer = Vec::new();
    let mut at = 0;
    for extent in reader.extents(node).map_err(Wrong::Store)? {
        let extent = extent.map_err(Wrong::Store)?;
        let end = at + extent.len();
        match extent {
            _ if stopped() => return Ok(()),
            Extent::Data { id, len } => {
                buffer.resize(len as usize, 0);
                read_exact(file, at, &mut buffer)?;
                if !reader.is(&id, &buffer) {
                    return Err(Wrong::Differs(format!("bytes {at} to {end} differ")));
                }
            }
            Extent::Hole { .. } => hole_is_zero(file, at, end, &mut buffer)?,
        }
        at = end;
    }
    Ok(())
}

fn hole_is_zero(file: &OwnedFd, mut at: u64, end: u64, buffer: &mut Vec<u8>) -> Result<(), Wrong> {
    while let Some(next) = next_data(file, at)?.filter(|next| *next < end) {
        let len = (end - next).min(LOOK_LEN);
        buffer.resize(len as usize, 0);
        read_exact(file, next, buffer)?;
        if buffer.iter().any(|&byte| byte != 0) {
            return Err(Wrong::Differs(format!("bytes {next} to {} are not zero", next + len)));
        }
        at = next + len;
    }
    Ok(())
}

/// A file to be read.
struct Job {
    file: OwnedFd,
    node: Node,
    path: Vec<u8>,
}

fn work<R: TreeReader>(jobs: &Receiver<Job>, reader: &R, report: &Report<'_>) {
    for Job { file, node, path } in jobs {
        // Without it the memory answers instead of the disk, which is no error.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        match compare(&file, &node, reader, &|| report.stopped()) {
            Ok(()) => {}
            Err(Wrong::Differs(how)) => {
                report.problem(path, format!("its content is not that of the point: {how}"))
            }
            Err(Wrong::Unreadable(error)) => report.problem(path, format!("cannot be read back: {error}")),
            Err(Wrong::Store(error)) => report.lacks(path, "what it should contain is not known", error),
        }
        report.same(&node, Vec::new);
        report.done(1, node.size);
    }
}

/// See [`super::verify_tree`].
pub(super) fn run<R: TreeReader>(
    reader: &R,
    root: &Node,
    target: &OwnedFd,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<VerifySummary, RestoreError> {
    let report = Report::new(monitor, false);
    let (files, bytes) = root.subtree.map_or((0, 0), |subtree| (subtree.entries, subtree.bytes));
    report.stage("verify", files, bytes);
    let mut root = root.clone();
    options.owners.apply(&mut root);
    let entries = reader.entries(&root).map_err(RestoreError::Store)?;
    let workers = workers(options);
    let (jobs, waiting) = bounded(workers * 2);
    let entries = std::thread::scope(|scope| {
        for _ in 0..workers {
            let (waiting, report) = (waiting.clone(), &report);
            scope.spawn(move || work(&waiting, reader, report));
        }
        drop(waiting);
        let opened = target
            .try_clone()
            .map_err(TargetError::io("open", *b""))
            .and_then(|root| Descent::new(root, OPEN_DIRECTORIES_MAX).map_err(TargetError::io("stat", *b"")));
        let descent = opened.map_err(RestoreError::Target)?;
        let mut verify = Verify {
            reader,
            options,
            report: &report,
            jobs,
            descent,
            levels: vec![Level { entries, place: Place::root(), choice: Choice::default() }],
            trail: Vec::new(),
            links: Links::default(),
            looked_at: 0,
        };
        if options.root_attributes
            && let Some(what) = directory_difference(target, &root, report.privileged)
        {
            report.problem(b".".to_vec(), format!("its {what} is not that of the point"));
        }
        verify.all();
        Ok(verify.looked_at)
    })?;
    let done = report.finish()?;
    Ok(VerifySummary { entries, files: done.same, differences: done.problems })
}

struct Level<'a> {
    entries: Nodes<'a>,
    place: Arc<Place>,
    choice: Choice,
}

struct Verify<'a, R> {
    reader: &'a R,
    options: &'a RestoreOptions,
    report: &'a Report<'a>,
    jobs: Sender<Job>,
    descent: Descent,
    levels: Vec<Level<'a>>,
    trail: Vec<Vec<u8>>,
    links: Links,
    looked_at: u64,
}

impl<R: TreeReader> Verify<'_, R> {
    fn all(&mut self) {
        while !self.report.stopped() {
            let Some(level) = self.levels.last_mut() else { return };
            match level.entries.next() {
                Some(Ok(node)) => self.entry(node),
                Some(Err(error)) => {
                    self.report.lacks(level.place.path(), "what should be in it is not known", error);
                    self.leave();
                }
                None => self.leave(),
            }
        }
    }

    fn leave(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        self.trail.pop();
        if let Err(error) = self.descent.leave() {
            self.report.target(TargetError::io("return from", level.place.path())(error));
        }
    }

    fn entry(&mut self, mut node: Node) {
        let Some(level) = self.levels.last() else { return };
        let choice = level.choice.below(self.options, &self.trail, &node.name);
        self.options.owners.apply(&mut node);
        if node.kind == NodeKind::Directory && choice.leads {
            self.enter(node, choice);
        } else if node.kind != NodeKind::Directory && choice.chosen {
            self.looked_at += 1;
            self.leaf(&node);
        }
    }

    fn path(&self, name: &[u8]) -> Vec<u8> {
        self.levels.last().map(|level| level.place.join(name)).unwrap_or_default()
    }

    fn problem(&self, name: &[u8], what: String) {
        self.report.problem(self.path(name), what);
    }

    fn enter(&mut self, node: Node, choice: Choice) {
        let Some((level, fd)) = self.levels.last().zip(self.descent.current()) else { return };
        let beside = names_beside(&node.name).take_while(|_| self.options.overwrite == Overwrite::KeepBoth);
        let names = std::iter::once(node.name.clone()).chain(beside.take(1));
        let opened = names.into_iter().find_map(|name| Some((open_directory(fd, &name).ok()?, name)));
        let Some((open, name)) = opened else {
            if choice.chosen {
                self.problem(&node.name, "it is missing, or no directory".into());
            }
            return;
        };
        if choice.chosen {
            self.looked_at += 1;
            if let Some(what) = directory_difference(&open, &node, self.report.privileged) {
                self.problem(&name, format!("its {what} is not that of the point"));
            }
        }
        let place = Place::below(&level.place, &name);
        match (self.reader.entries(&node), directory_id(&open)) {
            (Ok(entries), Ok(id)) => {
                self.trail.push(node.name);
                self.descent.enter(open, id);
                self.levels.push(Level { entries, place, choice });
            }
            (Err(error), _) => self.report.lacks(place.path(), "what should be in it is not known", error),
            (_, Err(error)) => self.report.target(TargetError::io("stat", place.path())(error)),
        }
    }

    fn leaf(&mut self, node: &Node) {
        let keeps_both = self.options.overwrite == Overwrite::KeepBoth;
        let mut found = self.difference(&node.name, node);
        if keeps_both && found.is_some() {
            // The one that was put beside what stayed is the one to look at, if there is one.
            let beside = names_beside(&node.name)
                .map_while(|name| match self.difference(&name, node) {
                    Some((_, missing)) if missing => None,
                    other => Some((name, other)),
                })
                .find(|(_, difference)| difference.is_none());
            if let Some((name, _)) = beside {
                return self.send(&name, node);
            }
        }
        if let Some((what, _)) = found.take() {
            return self.problem(&node.name, what);
        }
        self.send(&node.name, node);
    }

    /// What is wrong with a name, but for content; whether it is missing.
    fn difference(&self, name: &[u8], node: &Node) -> Option<(String, bool)> {
        let fd = self.descent.current()?;
        match look_closely(fd, name, node, self.report.privileged) {
            Ok(None) => Some(("it is missing".into(), true)),
            Ok(Some(what)) => what.map(|what| (format!("its {what} is not that of the point"), false)),
            Err(error) => Some((format!("it cannot be looked at: {error}"), false)),
        }
    }

    /// Checks that names of one file are names of one file, and has its content read, once.
    fn send(&mut self, name: &[u8], node: &Node) {
        let Some(fd) = self.descent.current().map(Arc::clone) else { return };
        if has_names(node) {
            let id = super::target::identity_at(&fd, name);
            if let Some(first) = self.links.first(node) {
                if first.found().is_some_and(|found| Some(found.id) != id.ok()) {
                    self.problem(name, "it is a copy and not another name of the same file".into());
                }
                return;
            }
            if let (Ok(id), Some(level)) = (id, self.levels.last()) {
                let standing = Standing::Stands { name: name.to_vec(), id, whole: true };
                self.links.remember(node, First::new(&level.place, standing));
            }
        }
        if node.kind != NodeKind::File {
            return self.report.done(1, 0);
        }
        match open_file(&fd, name) {
            Ok(file) => {
                let job = Job { file, node: node.clone(), path: self.path(name) };
                // Readers end only when this sender does.
                let _ = self.jobs.send(job);
            }
            Err(error) => self.problem(name, format!("cannot be read back: {error}")),
        }
    }
}
