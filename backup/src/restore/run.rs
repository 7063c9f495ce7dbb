//! The thread that walks the tree of a point and makes its entries in the target, or says what it would do.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_store::monitor::Monitor;
use holdfast_store::tree::{Node, NodeKind};

use super::attributes::{bequeaths, set_early_flags};
use super::choice::Choice;
use super::directory::{Filling, is_unfinished};
use super::forbidden::Forbidden;
use super::links::{Links, Locked};
use super::report::{Action, Report};
use super::target::{Plan, TargetDir, is_valid_name};
use super::writers::{Job, Writing};
use super::{Nodes, Overwrite, RestoreError, RestoreOptions, RestoreSummary, TreeReader, temporary};
use crate::descent::{Descent, OPEN_DIRECTORIES_MAX, Place, directory_id, open_directory};
use crate::error::TargetError;

/// Most writers by default; more do not help one disk.
const WORKERS_MAX: usize = 8;
/// Jobs that wait per writer: enough that none starves over small files; each holds one file open.
const QUEUE_PER_WORKER: usize = 16;

/// See [`super::restore_tree`]. Without a target, which only a rehearsal may lack, nothing is there yet.
pub(super) fn run<R: TreeReader>(
    reader: &R,
    root: &Node,
    target: Option<&OwnedFd>,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreSummary, RestoreError> {
    let report = Report::new(monitor, options.tell);
    let (files, bytes) = root.subtree.map_or((0, 0), |subtree| (subtree.entries, subtree.bytes));
    report.stage(if options.dry_run { "look" } else { "restore" }, files, bytes);
    let forbidden = Forbidden::new(&options.never_enter);
    if let Some(target) = target {
        forbidden.refuse_within(target).map_err(RestoreError::Target)?;
    }
    let mut root = root.clone();
    options.owners.apply(&mut root);
    let entries = reader.entries(&root).map_err(RestoreError::Store)?;
    let workers = workers(options);
    let (jobs, waiting) = bounded(workers * QUEUE_PER_WORKER);
    let locked = std::thread::scope(|scope| {
        for _ in 0..workers {
            let (Some(target), false) = (target, options.dry_run) else { break };
            let waiting: Receiver<Job> = waiting.clone();
            let throttle = options.throttle.as_deref();
            let writing = Writing { reader, target, overwrite: options.overwrite, throttle, report: &report };
            scope.spawn(move || writing.work(&waiting));
        }
        drop(waiting);
        let mut restore =
            Restore::new(reader, target, options, &report, &forbidden, jobs).map_err(RestoreError::Target)?;
        restore.all(root, entries);
        // The sender goes with `restore`, and with it the writers, which the scope waits for.
        Ok(restore.locked)
    })?;
    if let Some(target) = target.filter(|_| !options.dry_run) {
        locked.iter().for_each(|file| file.lock(target, &report));
        if options.sync {
            rustix::fs::syncfs(target)
                .map_err(|error| RestoreError::Target(TargetError::io("sync", *b"")(error)))?;
        }
    }
    report.finish()
}

/// Threads that write, or read back.
pub(super) fn workers(options: &RestoreOptions) -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    if options.workers == 0 { processors.min(WORKERS_MAX) } else { options.workers }
}

/// How far a directory of the point is in the target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not made yet: nothing chosen was found in it.
    Pending,
    /// Open as the current one of the descent.
    Made,
    /// In a rehearsal: it is not there, so nothing is in it.
    Imagined,
    /// Could not be made or came out of reach, and nothing more below it can be made. Says whether the descent has it.
    Lost { entered: bool },
}

/// A directory between the root and where the walk is.
pub(super) struct Frame<'a> {
    node: Node,
    entries: Nodes<'a>,
    pub(super) place: Arc<Place>,
    state: State,
    /// Its share of the directory, when that is made.
    pub(super) filling: Option<Arc<Filling>>,
    /// The descriptor by which temporary names in it are told to be in use.
    held: Weak<OwnedFd>,
    /// Whether new entries come with ACLs or flags of the directory's.
    pub(super) bequeaths: bool,
    choice: Choice,
}

impl<'a> Frame<'a> {
    fn new(node: Node, entries: Nodes<'a>, place: Arc<Place>, choice: Choice) -> Self {
        let (state, held) = (State::Pending, Weak::new());
        Self { node, entries, place, state, filling: None, held, bequeaths: false, choice }
    }
}

pub(super) struct Restore<'a, R> {
    pub(super) reader: &'a R,
    target: Option<&'a OwnedFd>,
    pub(super) options: &'a RestoreOptions,
    pub(super) report: &'a Report<'a>,
    forbidden: &'a Forbidden<'a>,
    pub(super) jobs: Sender<Job>,
    /// Where one stands in the target; `None` if there is none.
    pub(super) descent: Option<Descent>,
    pub(super) frames: Vec<Frame<'a>>,
    /// Names from the point's root to the current directory, for patterns.
    trail: Vec<Vec<u8>>,
    pub(super) links: Links,
    pub(super) locked: Vec<Locked>,
}

impl<'a, R: TreeReader> Restore<'a, R> {
    fn new(
        reader: &'a R,
        target: Option<&'a OwnedFd>,
        options: &'a RestoreOptions,
        report: &'a Report<'a>,
        forbidden: &'a Forbidden<'a>,
        jobs: Sender<Job>,
    ) -> Result<Self, TargetError> {
        let descent = match target {
            None => None,
            Some(target) => {
                let root = target.try_clone().map_err(TargetError::io("open", *b""))?;
                Some(Descent::new(root, OPEN_DIRECTORIES_MAX).map_err(TargetError::io("stat", *b""))?)
            }
        };
        let (frames, trail, links, locked) = (Vec::new(), Vec::new(), Links::default(), Vec::new());
        Ok(Self { reader, target, options, report, forbidden, jobs, descent, frames, trail, links, locked })
    }

    fn all(&mut self, root: Node, entries: Nodes<'a>) {
        let mut frame = Frame::new(root, entries, Place::root(), Choice::default());
        frame.state = if self.target.is_some() { State::Made } else { State::Imagined };
        if let Some(target) = self.target {
            frame.bequeaths = bequeaths(target);
        }
        self.frames.push(frame);
        self.begin_filling(self.options.root_attributes, false, true);
        while !self.report.stopped() {
            let Some(frame) = self.frames.last_mut() else { return };
            match frame.entries.next() {
                Some(Ok(node)) => self.entry(node),
                Some(Err(error)) => {
                    self.report.lacks(frame.place.path(), "the rest of this directory is missing", error);
                    self.leave();
                }
                None => self.leave(),
            }
        }
    }

    /// The target, open. Only a rehearsal has none, and does not ask.
    pub(super) fn target(&self) -> &'a OwnedFd {
        self.target.unwrap_or_else(|| unreachable!("a rehearsal makes no links"))
    }

    /// Whether the current directory is there.
    pub(super) fn stands(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.state == State::Made)
    }

    pub(super) fn path(&self, name: &[u8]) -> Vec<u8> {
        self.frames.last().map(|frame| frame.place.join(name)).unwrap_or_default()
    }

    pub(super) fn directory<'b>(&self, fd: &'b OwnedFd, place: &'b Place) -> TargetDir<'b> {
        TargetDir { fd, place, overwrite: self.options.overwrite, privileged: self.report.privileged }
    }

    fn entry(&mut self, mut node: Node) {
        let Some(frame) = self.frames.last() else { return };
        if !is_valid_name(&node.name) {
            let detail = "its name would lead elsewhere".into();
            return self.report.target(TargetError::Invalid { path: frame.place.join(&node.name), detail });
        }
        let choice = frame.choice.below(self.options, &self.trail, &node.name);
        if matches!(frame.state, State::Lost { .. }) {
            return;
        }
        self.options.owners.apply(&mut node);
        if node.kind == NodeKind::Directory {
            if choice.leads {
                self.enter(node, choice);
            }
        } else if choice.chosen {
            self.leaf(node);
        }
    }

    /// Goes into a directory of the point, and makes it if it was chosen itself.
    fn enter(&mut self, node: Node, choice: Choice) {
        let Some(above) = self.frames.last() else { return };
        let place = Place::below(&above.place, &node.name);
        let entries = match self.reader.entries(&node) {
            Ok(entries) => entries,
            Err(error) => {
                self.report.lacks(place.path(), "what is in this directory is missing", error);
                Box::new(std::iter::empty())
            }
        };
        self.trail.push(node.name.clone());
        self.frames.push(Frame::new(node, entries, place, choice));
        if choice.chosen {
            self.make_directories();
        }
    }

    /// Makes those directories on the way here that are not made yet. Returns whether one stands in the last.
    pub(super) fn make_directories(&mut self) -> bool {
        for depth in 0..self.frames.len() {
            let state = match self.frames.get(depth).map(|frame| frame.state) {
                Some(State::Pending) if self.options.dry_run => self.imagine_directory(depth),
                Some(State::Pending) => self.make_directory(depth),
                Some(State::Made | State::Imagined) => continue,
                Some(State::Lost { .. }) | None => return false,
            };
            match state {
                Ok(Some(state)) => self.settle(depth, state),
                Ok(None) => {
                    self.lose_from(depth);
                    return false;
                }
                Err(error) => {
                    self.report.target(error);
                    self.lose_from(depth);
                    return false;
                }
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

    /// Looks for the directory at `depth`, in one that is there or only thought of. `None` if what is in the way stays.
    fn imagine_directory(&mut self, depth: usize) -> Result<Option<State>, TargetError> {
        let above = depth.checked_sub(1).and_then(|depth| self.frames.get(depth));
        let Some((frame, above)) = self.frames.get(depth).zip(above) else { return Ok(None) };
        let path = || frame.place.path();
        let descent = self.descent.as_ref().filter(|_| above.state == State::Made);
        let Some(fd) = descent.and_then(|descent| descent.current()) else {
            self.report.made(&frame.node, Action::Create, path);
            return Ok(Some(State::Imagined));
        };
        if let Ok(open) = open_directory(fd, &frame.node.name) {
            let id = directory_id(&open).map_err(TargetError::io("stat", path()))?;
            if self.forbidden.holds(id) {
                return self.leave_alone(depth);
            }
            self.report.merged();
            if let Some(descent) = &mut self.descent {
                descent.enter(open, id);
            }
            return Ok(Some(State::Made));
        }
        match self.directory(fd, &above.place).plan(&frame.node, &|_| true)? {
            Plan::Keep | Plan::Same(..) | Plan::Mend => {
                self.report.kept(&frame.node, path);
                return Ok(None);
            }
            Plan::Create => self.report.made(&frame.node, Action::Create, path),
            Plan::Replace => self.report.made(&frame.node, Action::Replace, path),
            Plan::Beside => self.report.made(&frame.node, Action::Beside, path),
        }
        Ok(Some(State::Imagined))
    }

    /// Makes the directory at `depth`, those above being made, and stands in it. `None` if what is in the way stays.
    fn make_directory(&mut self, depth: usize) -> Result<Option<State>, TargetError> {
        let above = depth.checked_sub(1).and_then(|depth| self.frames.get(depth));
        let Some((frame, above)) = self.frames.get(depth).zip(above) else { return Ok(None) };
        let Some(fd) = self.descent.as_ref().and_then(|descent| descent.current()) else { return Ok(None) };
        let directory = self.directory(fd, &above.place);
        let (name, open, new) = match open_directory(fd, &frame.node.name) {
            Ok(there) => (frame.node.name.clone(), there, false),
            Err(_) => {
                let plan = directory.plan(&frame.node, &|_| true)?;
                let Some((name, open)) = directory.directory(&frame.node, &plan)? else {
                    self.report.kept(&frame.node, || frame.place.path());
                    return Ok(None);
                };
                let action = if plan == Plan::Replace { Action::Replace } else { Action::Create };
                self.report.made(&frame.node, action, || above.place.join(&name));
                (name, open, true)
            }
        };
        let id = directory_id(&open).map_err(TargetError::io("stat", frame.place.path()))?;
        if self.forbidden.holds(id) {
            return self.leave_alone(depth);
        }
        if new {
            set_early_flags(&open, &frame.node);
        } else {
            self.report.merged();
        }
        self.report.done(1, 0);
        let exact = !new || above.bequeaths;
        let wanted = new || self.options.overwrite != Overwrite::Never || is_unfinished(&open);
        let place = Place::below(&above.place, &name);
        let bequeaths = exact && bequeaths(&open);
        if let Some(descent) = &mut self.descent {
            descent.enter(open, id);
        }
        if let Some(frame) = self.frames.get_mut(depth) {
            frame.bequeaths = bequeaths;
            frame.state = State::Made;
            frame.place = place;
        }
        self.begin_filling(wanted, new, exact);
        Ok(Some(State::Made))
    }

    /// What belongs to the store is left alone. That it is empty in the point is as it should be; more is trouble.
    fn leave_alone(&mut self, depth: usize) -> Result<Option<State>, TargetError> {
        let Some(frame) = self.frames.get_mut(depth) else { return Ok(None) };
        let path = frame.place.path();
        if frame.entries.next().is_none() {
            self.report
                .note(format!("{} belongs to the store and is left alone", crate::error::shown(&path)));
            return Ok(None);
        }
        let detail = "it belongs to the store, into which nothing is restored".into();
        Err(TargetError::Invalid { path, detail })
    }

    /// Takes a share of the directory in which one stands; what a dead run left in it goes.
    fn begin_filling(&mut self, wanted: bool, new: bool, exact: bool) {
        let Some(fd) = self.descent.as_ref().and_then(|descent| descent.current()).map(Arc::clone) else {
            return;
        };
        let Some(frame) = self.frames.iter_mut().rfind(|frame| frame.state == State::Made) else { return };
        if self.options.dry_run {
            return;
        }
        if new {
            temporary::hold(&fd)
        } else {
            temporary::sweep(&fd)
        }
        frame.held = Arc::downgrade(&fd);
        let Ok(id) = directory_id(&fd) else { return };
        let (place, node) = (Arc::clone(&frame.place), frame.node.clone());
        frame.filling = Some(Arc::new(Filling { place, node, id, exact, wanted }));
    }

    /// Leaves the current directory: everything in it was made or is on its way.
    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        self.trail.pop();
        match frame.state {
            State::Pending | State::Imagined | State::Lost { entered: false } => return,
            State::Made | State::Lost { entered: true } => {}
        }
        if let (Some(filling), Some(descent)) = (frame.filling, &self.descent) {
            match descent.current() {
                Some(fd) => filling.release_open(fd, self.report),
                None => drop(filling),
            }
        }
        self.go_up();
    }

    /// Stands in the directory above. If somebody moved it elsewhere, the rest of it is lost, and said to be.
    fn go_up(&mut self) {
        let (Some(descent), Some(above)) = (&mut self.descent, self.frames.last_mut()) else { return };
        if let Err(error) = descent.leave() {
            self.report.target(TargetError::io("return to", above.place.path())(error));
            above.state = State::Lost { entered: true };
            return;
        }
        let Some(fd) = descent.current().filter(|_| !self.options.dry_run) else { return };
        if !std::ptr::eq(frame_fd(&above.held), Arc::as_ptr(fd)) {
            temporary::hold(fd);
            above.held = Arc::downgrade(fd);
        }
    }
}

/// The descriptor behind a weak reference, to compare; dangling if it was closed.
fn frame_fd(held: &Weak<OwnedFd>) -> *const OwnedFd {
    if held.strong_count() == 0 { std::ptr::null() } else { held.as_ptr() }
}
