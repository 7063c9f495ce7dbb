//! The thread that walks the tree of a point and makes its entries in the target.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_store::monitor::Monitor;
use holdfast_store::tree::{Node, NodeKind};

use super::attributes::{Dressing, Handle, LOCKING_FLAGS, bequeaths, set_early_flags, set_flags};
use super::late::{Late, LateDirectory};
use super::links::Links;
use super::report::Report;
use super::target::{Made, TargetDir, is_valid_name, open_place};
use super::writers::{Job, work};
use super::{Nodes, Overwrite, RestoreError, RestoreOptions, RestoreSummary, TreeReader};
use crate::descent::{Descent, DirectoryId, OPEN_DIRECTORIES_MAX, Place, directory_id};
use crate::error::TargetError;
use crate::pattern::Verdict;

/// Most writers by default; more do not help one disk.
const WORKERS_MAX: usize = 8;
/// Jobs that wait per writer: enough that none starves over small files; each holds one file open.
const QUEUE_PER_WORKER: usize = 16;
/// See [`super::restore_tree`].
pub(super) fn run<R: TreeReader>(
    reader: &R,
    root: &Node,
    target: &OwnedFd,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreSummary, RestoreError> {
    let report = Report::new(monitor);
    let (files, bytes) = root.subtree.map_or((0, 0), |subtree| (subtree.entries, subtree.bytes));
    report.stage(files, bytes);
    let entries = reader.entries(root).map_err(RestoreError::Store)?;
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let workers = if options.workers == 0 { processors.min(WORKERS_MAX) } else { options.workers };
    let (jobs, waiting) = bounded(workers * QUEUE_PER_WORKER);
    let (summary, late) = std::thread::scope(|scope| {
        for _ in 0..workers {
            let waiting: Receiver<Job> = waiting.clone();
            let report = &report;
            scope.spawn(move || work(&waiting, reader, report));
        }
        drop(waiting);
        let mut restore =
            Restore::new(reader, target, options, &report, jobs).map_err(RestoreError::Target)?;
        restore.all(root, entries);
        // The sender goes with `restore`, and with it the writers, which the scope waits for.
        Ok((restore.summary, restore.late))
    })?;
    let links = late.finish(target, options.overwrite, &report);
    if options.sync && !options.dry_run {
        rustix::fs::syncfs(target)
            .map_err(|error| RestoreError::Target(TargetError::io("sync", *b"")(error)))?;
    }
    let (problems, refused) = report.finish()?;
    Ok(RestoreSummary { problems, refused, links: summary.links + links, ..summary })
}

/// A file with several names that is to be immutable or append-only when all are made.
pub(super) struct Locked {
    pub(super) place: Arc<Place>,
    pub(super) name: Vec<u8>,
    pub(super) id: DirectoryId,
    pub(super) flags: u32,
}

impl Locked {
    pub(super) fn lock(&self, target: &OwnedFd, report: &Report<'_>) {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let result = open_place(target, &self.place).and_then(|directory| {
            let file = rustix::fs::openat(&directory, self.name.as_slice(), flags, Mode::empty())?;
            // What stayed because this file is incomplete is not this file.
            if directory_id(&file)? != self.id {
                return Ok(());
            }
            Ok(set_flags(file, LOCKING_FLAGS, self.flags & LOCKING_FLAGS)?)
        });
        if let Err(error) = result {
            if !report.privileged {
                return report.refused("file flags", "this process is not root");
            }
            report.target(TargetError::io("set flags of", self.place.join(&self.name))(error));
        }
    }
}

/// How far a directory of the point is in the target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not made yet: nothing chosen was found in it.
    Pending,
    /// Open as the current one of the descent, with what its attributes need: whether all of them must be exact.
    Made { exact: bool },
    /// Could not be made or came out of reach, and nothing more below it can be made. Says whether the descent has it.
    Lost { entered: bool },
}

/// A directory between the root and where the walk is.
pub(super) struct Frame<'a> {
    pub(super) node: Node,
    pub(super) entries: Nodes<'a>,
    pub(super) place: Arc<Place>,
    pub(super) state: State,
    /// Whether new entries come with ACLs or flags of the directory's.
    pub(super) bequeaths: bool,
    /// Whether names in it, or below it, change after the walk has left it.
    pub(super) unsettled: bool,
    pub(super) included: Verdict,
    pub(super) excluded: Verdict,
}

pub(super) struct Restore<'a, R> {
    pub(super) reader: &'a R,
    pub(super) target: &'a OwnedFd,
    pub(super) options: &'a RestoreOptions,
    pub(super) report: &'a Report<'a>,
    pub(super) jobs: Sender<Job>,
    pub(super) descent: Descent,
    pub(super) frames: Vec<Frame<'a>>,
    /// Names from the point's root to the current directory, for patterns.
    pub(super) trail: Vec<Vec<u8>>,
    pub(super) links: Links,
    pub(super) late: Late,
    pub(super) summary: RestoreSummary,
}

impl<'a, R: TreeReader> Restore<'a, R> {
    fn new(
        reader: &'a R,
        target: &'a OwnedFd,
        options: &'a RestoreOptions,
        report: &'a Report<'a>,
        jobs: Sender<Job>,
    ) -> Result<Self, TargetError> {
        let root = target.try_clone().map_err(TargetError::io("open", *b""))?;
        let descent = Descent::new(root, OPEN_DIRECTORIES_MAX).map_err(TargetError::io("stat", *b""))?;
        Ok(Self {
            reader,
            target,
            options,
            report,
            jobs,
            descent,
            frames: Vec::new(),
            trail: Vec::new(),
            links: Links::default(),
            late: Late::default(),
            summary: RestoreSummary::default(),
        })
    }

    fn all(&mut self, root: &Node, entries: Nodes<'a>) {
        let (included, excluded) = (Verdict::default(), Verdict::default());
        let state = State::Made { exact: true };
        let bequeaths = bequeaths(self.target);
        let place = Place::root();
        self.frames.push(Frame {
            node: root.clone(),
            entries,
            place,
            state,
            bequeaths,
            unsettled: false,
            included,
            excluded,
        });
        while !self.report.stopped() {
            let Some(frame) = self.frames.last_mut() else { return };
            match frame.entries.next() {
                Some(Ok(node)) => self.entry(node),
                Some(Err(error)) => {
                    self.report.store(frame.place.path(), "the rest of this directory is missing", error);
                    self.leave();
                }
                None => self.leave(),
            }
        }
    }

    pub(super) fn path(&self, name: &[u8]) -> Vec<u8> {
        self.frames.last().map(|frame| frame.place.join(name)).unwrap_or_default()
    }

    fn entry(&mut self, node: Node) {
        let Some(frame) = self.frames.last() else { return };
        if !is_valid_name(&node.name) {
            let detail = "its name would lead elsewhere".into();
            return self.report.target(TargetError::Invalid { path: frame.place.join(&node.name), detail });
        }
        let excluded = self.options.exclude.judge(frame.excluded, &self.trail, &node.name);
        let included = self.options.include.judge(frame.included, &self.trail, &node.name);
        let chosen = self.options.include.is_empty() || included.chosen();
        if excluded.chosen() || matches!(frame.state, State::Lost { .. }) {
            return;
        }
        if node.kind == NodeKind::Directory {
            if chosen || self.options.include.may_lead(&self.trail, &node.name) {
                self.enter(node, chosen, included, excluded);
            }
        } else if chosen {
            self.leaf(node);
        }
    }

    /// Goes into a directory of the point, and makes it if it was chosen itself.
    fn enter(&mut self, node: Node, chosen: bool, included: Verdict, excluded: Verdict) {
        let Some(above) = self.frames.last() else { return };
        let place = Place::below(&above.place, &node.name);
        let entries = match self.reader.entries(&node) {
            Ok(entries) => entries,
            Err(error) => {
                self.report.store(place.path(), "what is in this directory is missing", error);
                Box::new(std::iter::empty())
            }
        };
        self.trail.push(node.name.clone());
        let state = State::Pending;
        self.frames.push(Frame {
            node,
            entries,
            place,
            state,
            bequeaths: false,
            unsettled: false,
            included,
            excluded,
        });
        if chosen {
            self.make_directories();
        }
    }

    /// Makes those directories on the way here that are not made yet. Returns whether one stands in the last.
    pub(super) fn make_directories(&mut self) -> bool {
        for depth in 0..self.frames.len() {
            match self.frames.get(depth).map(|frame| frame.state) {
                Some(State::Pending) if self.options.dry_run => {
                    self.summary.directories += 1;
                    self.settle(depth, State::Made { exact: false });
                }
                Some(State::Pending) => match self.make_directory(depth) {
                    Ok(Some(state)) => {
                        self.summary.directories += 1;
                        self.settle(depth, state);
                    }
                    Ok(None) => {
                        self.summary.skipped += 1;
                        self.lose_from(depth);
                        return false;
                    }
                    Err(error) => {
                        self.report.target(error);
                        self.lose_from(depth);
                        return false;
                    }
                },
                Some(State::Made { .. }) => {}
                Some(State::Lost { .. }) | None => return false,
            }
        }
        true
    }

    fn settle(&mut self, depth: usize, state: State) {
        if let Some(frame) = self.frames.get_mut(depth) {
            frame.state = state;
        }
    }

    fn lose_from(&mut self, depth: usize) {
        self.frames.iter_mut().skip(depth).for_each(|frame| frame.state = State::Lost { entered: false });
    }

    /// Makes the directory at `depth`, those above being made, and stands in it.
    fn make_directory(&mut self, depth: usize) -> Result<Option<State>, TargetError> {
        let Some((frame, above)) =
            self.frames.get(depth).zip(depth.checked_sub(1).and_then(|d| self.frames.get(d)))
        else {
            return Ok(None);
        };
        let Some(fd) = self.descent.current() else { return Ok(None) };
        let directory = TargetDir { fd, place: &above.place, overwrite: self.options.overwrite };
        let Some(Made { name, what: (open, new) }) = directory.directory(&frame.node)? else {
            return Ok(None);
        };
        if new {
            set_early_flags(&open, &frame.node);
        }
        let exact = !new || above.bequeaths;
        let place = if name == frame.node.name { None } else { Some(Place::below(&above.place, &name)) };
        let bequeaths = exact && bequeaths(&open);
        let id = directory_id(&open).map_err(TargetError::io("stat", frame.place.path()))?;
        self.descent.enter(open, id);
        if let Some(frame) = self.frames.get_mut(depth) {
            frame.bequeaths = bequeaths;
            if let Some(place) = place {
                frame.place = place;
            }
        }
        Ok(Some(State::Made { exact }))
    }

    /// Leaves the current directory: everything in it was made, so it gets its own attributes.
    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        self.trail.pop();
        let exact = match frame.state {
            _ if self.options.dry_run => return,
            State::Made { exact } => exact,
            State::Lost { entered: true } => return self.go_up(),
            State::Pending | State::Lost { entered: false } => return,
        };
        let is_root = self.frames.is_empty();
        let wanted =
            if is_root { self.options.root_attributes } else { self.options.overwrite != Overwrite::Never };
        if frame.unsettled
            && let Some(above) = self.frames.last_mut()
        {
            above.unsettled = true;
        }
        if let Some(fd) = self.descent.current().filter(|_| wanted) {
            if frame.unsettled
                && let Ok(id) = directory_id(fd)
            {
                self.late.directories.push(LateDirectory { place: frame.place, node: frame.node, exact, id });
                return self.go_up();
            }
            let (to, node, report) = (Handle::Open(fd.as_fd()), &frame.node, self.report);
            Dressing { to, node, exact, times: true, flags_later: 0, path: &|| frame.place.path(), report }
                .apply();
        }
        self.go_up();
    }

    /// Stands in the directory above. If somebody moved it elsewhere, the rest of it is lost, and said to be.
    fn go_up(&mut self) {
        if let (Err(error), Some(above)) = (self.descent.leave(), self.frames.last_mut()) {
            self.report.target(TargetError::io("return to", above.place.path())(error));
            above.state = State::Lost { entered: true };
        }
    }
}
