//! The thread that walks the tree of a point and makes its entries in the target.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_store::StoreError;
use holdfast_store::monitor::Monitor;
use holdfast_store::tree::{Extent, Node, NodeKind};

use super::attributes::{Dressing, Handle, LOCKING_FLAGS, bequeaths, set_early_flags, set_flags};
use super::links::{First, Links, has_names};
use super::report::Report;
use super::target::{Made, TargetDir, identity, is_valid_name, open_place};
use super::writers::{Job, Piece, TargetFile, finish, work};
use super::{Nodes, Overwrite, RestoreError, RestoreOptions, RestoreSummary, TreeReader};
use crate::descent::{Descent, OPEN_DIRECTORIES_MAX, Place, directory_id};
use crate::error::TargetError;
use crate::pattern::Verdict;

/// Most writers by default; more do not help one disk.
const WORKERS_MAX: usize = 8;
/// Jobs that wait per writer: enough that none starves over small files; each holds one file open.
const QUEUE_PER_WORKER: usize = 16;
/// A job is handed over when it has so many pieces or bytes, so that all writers share a large file.
const JOB_PIECES: usize = 64;
const JOB_BYTES: u64 = 8 << 20;

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
    let (summary, locked) = std::thread::scope(|scope| {
        for _ in 0..workers {
            let waiting: Receiver<Job> = waiting.clone();
            let report = &report;
            scope.spawn(move || work(&waiting, reader, report));
        }
        drop(waiting);
        let mut restore = Restore::new(reader, target, options, &report, jobs).map_err(RestoreError::Target)?;
        restore.all(root, entries);
        // The sender goes with `restore`, and with it the writers, which the scope waits for.
        Ok((restore.summary, restore.locked))
    })?;
    locked.iter().for_each(|file| file.lock(target, &report));
    if options.sync && !options.dry_run {
        rustix::fs::syncfs(target).map_err(|error| RestoreError::Target(TargetError::io("sync", *b"")(error)))?;
    }
    let (problems, refused) = report.finish()?;
    Ok(RestoreSummary { problems, refused, ..summary })
}

/// A file with several names that is to be immutable or append-only when all are made.
struct Locked {
    place: Arc<Place>,
    name: Vec<u8>,
    flags: u32,
}

impl Locked {
    fn lock(&self, target: &OwnedFd, report: &Report<'_>) {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let result = open_place(target, &self.place).and_then(|directory| {
            let file = rustix::fs::openat(&directory, self.name.as_slice(), flags, Mode::empty())?;
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
enum State {
    /// Not made yet: nothing chosen was found in it.
    Pending,
    /// Open as the current one of the descent, with what its attributes need: whether all of them must be exact.
    Made { exact: bool },
    /// Could not be made or came out of reach, and nothing more below it can be made. Says whether the descent has it.
    Lost { entered: bool },
}

/// A directory between the root and where the walk is.
struct Frame<'a> {
    node: Node,
    entries: Nodes<'a>,
    place: Arc<Place>,
    state: State,
    /// Whether new entries come with ACLs or flags of the directory's.
    bequeaths: bool,
    included: Verdict,
    excluded: Verdict,
}

struct Restore<'a, R> {
    reader: &'a R,
    target: &'a OwnedFd,
    options: &'a RestoreOptions,
    report: &'a Report<'a>,
    jobs: Sender<Job>,
    descent: Descent,
    frames: Vec<Frame<'a>>,
    /// Names from the point's root to the current directory, for patterns.
    trail: Vec<Vec<u8>>,
    links: Links,
    locked: Vec<Locked>,
    summary: RestoreSummary,
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
            locked: Vec::new(),
            summary: RestoreSummary::default(),
        })
    }

    fn all(&mut self, root: &Node, entries: Nodes<'a>) {
        let (included, excluded) = (Verdict::default(), Verdict::default());
        let state = State::Made { exact: true };
        let bequeaths = bequeaths(self.target);
        let place = Place::root();
        self.frames.push(Frame { node: root.clone(), entries, place, state, bequeaths, included, excluded });
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

    fn path(&self, name: &[u8]) -> Vec<u8> {
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
        self.frames.push(Frame { node, entries, place, state, bequeaths: false, included, excluded });
        if chosen {
            self.make_directories();
        }
    }

    /// Makes those directories on the way here that are not made yet. Returns whether one stands in the last.
    fn make_directories(&mut self) -> bool {
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
        let Some((frame, above)) = self.frames.get(depth).zip(depth.checked_sub(1).and_then(|d| self.frames.get(d)))
        else {
            return Ok(None);
        };
        let Some(fd) = self.descent.current() else { return Ok(None) };
        let directory = TargetDir { fd, place: &above.place, overwrite: self.options.overwrite };
        let Some(Made { name, what: (open, new) }) = directory.directory(&frame.node)? else { return Ok(None) };
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
        let wanted = if is_root { self.options.root_attributes } else { self.options.overwrite != Overwrite::Never };
        if let Some(fd) = self.descent.current().filter(|_| wanted) {
            let (to, node, report) = (Handle::Open(fd.as_fd()), &frame.node, self.report);
            Dressing { to, node, exact, flags_later: 0, path: &|| frame.place.path(), report }.apply();
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

    /// Anything but a directory.
    fn leaf(&mut self, node: Node) {
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
                if !self.report.privileged && source.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) =>
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
        match self.link(directory, place, node, &first) {
            Ok(Some(_)) => self.summary.links += 1,
            Ok(None) => self.summary.skipped += 1,
            Err(error @ TargetError::Exists { .. }) => self.report.target(error),
            Err(error) => {
                let reason = format!("made as a copy instead of a hard link to {}: {error}", shown_first(&first));
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
        Dressing { to, node, exact, flags_later: 0, path: &|| place.join(&name), report }.apply();
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
        let Some(Made { name, what: fd }) = directory.file(&node)? else { return Ok(false) };
        set_early_flags(&fd, &node);
        self.remember(&node, place, &name, &fd);
        self.count(&node);
        let flags_later = if has_names(&node) { node.flags & LOCKING_FLAGS } else { 0 };
        if flags_later != 0 {
            self.locked.push(Locked { place: Arc::clone(place), name: name.clone(), flags: flags_later });
        }
        let file = TargetFile { fd, node, place: Arc::clone(place), name, exact, flags_later };
        // A length that the file system cannot hold leaves an empty file with its attributes, and its name.
        match rustix::fs::ftruncate(&file.fd, file.node.size) {
            Ok(()) => self.send_content(Arc::new(file)),
            Err(error) => {
                self.report.target(TargetError::io("set length of", place.join(&file.name))(error));
                finish(Arc::new(file), self.report);
            }
        }
        Ok(true)
    }

    /// Hands what is in a file to the writers, piece by piece.
    fn send_content(&self, file: Arc<TargetFile>) {
        let missing = |error| self.report.store(file.place.join(&file.name), "content is missing", error);
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
            finish(unsent.0.file, self.report);
        }
    }
}

fn shown_first(first: &First) -> String {
    crate::error::shown(&first.place.join(&first.name))
}
