//! The walk over a real directory tree.
//!
//! One `statx` per entry, then only what changed is looked at closer: directories are opened and listed, links
//! and special files read through an `O_PATH` descriptor, and regular files are left to whoever opens them. Nothing here follows a
//! symbolic link but the root's own path, which the user gave.

use std::collections::HashSet;
use std::ops::ControlFlow::Continue;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_store::tree::{Node, NodeKind};
use rustix::fs::{CWD, Mode, OFlags, Statx};

use super::attributes::{self, Handle};
use super::exclude::Exclude;
use super::files::{DiskFile, Shared};
use super::filesystems::closed_mounts;
use super::listing::Names;
use super::{DataSource, FileOpener, Flow, Found, Visitor, Walked};
use crate::descent::{Descent, DirectoryId, OPEN_DIRECTORIES_MAX, Place, lies_in, open_directory};
use crate::error::{SourceError, shown};
use crate::pattern::Verdict;

/// How a tree is walked.
#[derive(Debug, Clone, Default)]
pub struct WalkOptions {
    /// What is left out.
    pub exclude: Exclude,
    /// Directories (device, inode) that are kept as empty ones and never entered: those of the store itself.
    pub never_enter: HashSet<DirectoryId>,
    /// Takes entries for unchanged even if their inode numbers differ, for file systems that make them up (some network and FUSE ones).
    pub ignore_inode: bool,
    /// Takes entries for unchanged even if their ctime differs, after a tree was moved or re-owned.
    pub ignore_ctime: bool,
}

/// A directory tree (or a single file) of this machine.
#[derive(Debug)]
pub struct DirectorySource {
    path: PathBuf,
    options: WalkOptions,
}

impl DirectorySource {
    /// The tree at `path`, absolute so that absolute patterns mean something. If that is not a directory, the source is a
    /// directory with just this entry, and attributes of the one it lies in. Nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>, options: WalkOptions) -> Self {
        Self { path: path.into(), options }
    }

    /// A root that is never to be entered, or lies in a directory that is not, would take the store into itself.
    fn refuse_own(&self, root: &OwnedFd) -> Result<(), SourceError> {
        let own = &self.options.never_enter;
        let is_own = !own.is_empty()
            && lies_in(root, |id| own.contains(&id)).map_err(SourceError::io("look above", *b""))?;
        if !is_own {
            return Ok(());
        }
        let given = shown(self.path.as_os_str().as_bytes());
        let detail = "it belongs to the store and cannot be protected in it".into();
        Err(SourceError::Rule { what: "data source", given, detail })
    }

    /// Opens the root and says which names of it are meant, if not all.
    fn open_root(&self) -> Result<(OwnedFd, Option<Vec<u8>>), SourceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &self.path, flags, Mode::empty()) {
            Ok(root) => Ok((root, None)),
            Err(rustix::io::Errno::NOTDIR) if self.path.file_name().is_some() => {
                let above = self.path.parent().filter(|above| !above.as_os_str().is_empty());
                let root = rustix::fs::openat(CWD, above.unwrap_or(Path::new(".")), flags, Mode::empty());
                let name = self.path.file_name().map(|name| name.as_bytes().to_vec());
                Ok((root.map_err(SourceError::io("open", self.path.as_os_str().as_bytes()))?, name))
            }
            Err(error) => Err(SourceError::io("open", self.path.as_os_str().as_bytes())(error)),
        }
    }
}

impl DataSource for DirectorySource {
    fn walk(&self, visitor: &mut dyn Visitor) -> Result<Walked, SourceError> {
        let (root, only) = self.open_root()?;
        self.refuse_own(&root)?;
        let above = if only.is_some() { self.path.parent() } else { Some(self.path.as_path()) };
        let mut walker = Walker::new(&self.options, visitor, &root, trail(above))?;
        Ok(match walker.run(root, only) {
            Continue(()) => Walked::Whole,
            std::ops::ControlFlow::Break(()) => Walked::Stopped,
        })
    }
}

/// Names of the root's own path, for absolute patterns.
fn trail(path: Option<&Path>) -> Vec<Vec<u8>> {
    use std::path::Component::Normal;
    let names = path.into_iter().flat_map(Path::components);
    names
        .filter_map(|name| if let Normal(name) = name { Some(name.as_bytes().to_vec()) } else { None })
        .collect()
}

/// A directory between the root and where the walk is.
struct Frame {
    names: Names,
    place: Arc<Place>,
    device: u64,
    mount: u64,
    verdict: Verdict,
}

struct Walker<'a> {
    options: &'a WalkOptions,
    visitor: &'a mut dyn Visitor,
    shared: Arc<Shared>,
    closed_mounts: HashSet<u64>,
    root_device: u64,
    descent: Descent,
    frames: Vec<Frame>,
    /// Names of all directories from `/` to the current one.
    trail: Vec<Vec<u8>>,
}

impl<'a> Walker<'a> {
    fn new(
        options: &'a WalkOptions,
        visitor: &'a mut dyn Visitor,
        root: &OwnedFd,
        trail: Vec<Vec<u8>>,
    ) -> Result<Self, SourceError> {
        let stat = attributes::stat_open(root).map_err(SourceError::io("stat", *b""))?;
        let copy = root.try_clone().map_err(SourceError::io("open", *b""))?;
        let descent = Descent::new(copy, OPEN_DIRECTORIES_MAX).map_err(SourceError::io("stat", *b""))?;
        let closed_mounts = closed_mounts();
        let root_device = attributes::device_of(&stat);
        Ok(Self {
            options,
            visitor,
            shared: Arc::default(),
            closed_mounts,
            root_device,
            descent,
            frames: Vec::new(),
            trail,
        })
    }

    fn run(&mut self, root: OwnedFd, only: Option<Vec<u8>>) -> Flow {
        let stat = match attributes::stat_open(&root) {
            Ok(stat) => stat,
            Err(error) => return self.visitor.trouble(SourceError::io("stat", *b"")(error)),
        };
        let mut names = self.list(&root, &Place::root());
        if let (Ok(names), Some(only)) = (&mut names, only) {
            *names = Names::only(&[&only]);
        }
        let verdict = (1..=self.trail.len()).fold(Verdict::default(), |verdict, end| {
            match self.trail.get(..end).and_then(<[_]>::split_last) {
                Some((name, above)) => self.options.exclude.patterns.judge(verdict, above, name),
                None => verdict,
            }
        });
        // A root that the user named is not excluded by a pattern that matches it, nor is what is in it.
        let verdict = if verdict.chosen() { Verdict::default() } else { verdict };
        self.tell_directory(&root, Vec::new(), &stat, Place::root(), names, verdict)?;
        while let Some(frame) = self.frames.last_mut() {
            match frame.names.next() {
                Some(name) => self.entry(name)?,
                None => self.leave()?,
            }
        }
        Continue(())
    }

    fn list(&self, directory: &OwnedFd, place: &Place) -> Result<Names, SourceError> {
        let names = Names::read(directory).map_err(SourceError::io("list", place.path()))?;
        Ok(match self.options.exclude.mark_in(directory, &names) {
            Some(mark) => Names::only(&[mark]),
            None => names,
        })
    }

    /// One name of the current directory.
    fn entry(&mut self, name: Vec<u8>) -> Flow {
        let Some(frame) = self.frames.last() else { return Continue(()) };
        let Some(directory) = self.descent.current().map(Arc::clone) else { return Continue(()) };
        let verdict = self.options.exclude.patterns.judge(frame.verdict, &self.trail, &name);
        if verdict.chosen() {
            return Continue(());
        }
        let stat = match attributes::stat_name(&directory, &name) {
            Ok(stat) => stat,
            Err(error) => {
                return self.visitor.trouble(SourceError::io("stat", frame.place.join(&name))(error));
            }
        };
        let Some(kind) = attributes::kind_of(&stat) else {
            let error = SourceError::Unsupported {
                path: frame.place.join(&name),
                detail: "unknown kind of file".into(),
            };
            return self.visitor.trouble(error);
        };
        match kind {
            NodeKind::Directory => self.directory(&directory, name, &stat, verdict),
            _ if self.left_out(&stat, kind) => Continue(()),
            _ => self.other(directory, name, &stat, kind),
        }
    }

    /// Whether something that is no directory is left out for its size or its file system.
    fn left_out(&self, stat: &Statx, kind: NodeKind) -> bool {
        let too_large = || self.options.exclude.size_max.is_some_and(|max| stat.stx_size > max);
        // Layered file systems show files with device numbers of their own; only a mount of its own makes one foreign.
        let foreign = || self.frames.last().is_some_and(|frame| frame.mount != stat.stx_mnt_id);
        (kind == NodeKind::File && too_large()) || (self.options.exclude.one_file_system && foreign())
    }

    fn filesystem(&self, stat: &Statx, path: impl FnOnce() -> Vec<u8>) -> u32 {
        self.shared.filesystems.number(attributes::device_of(stat), path)
    }

    fn other(&mut self, directory: Arc<OwnedFd>, name: Vec<u8>, stat: &Statx, kind: NodeKind) -> Flow {
        let Some(place) = self.frames.last().map(|frame| Arc::clone(&frame.place)) else {
            return Continue(());
        };
        let filesystem = self.filesystem(stat, || place.join(&name));
        let mut node = attributes::node(&name, kind, stat, filesystem, &self.shared.owners);
        let previous = self.visitor.previous(&name);
        let entry = || {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&directory, name.as_slice(), flags, Mode::empty())
        };
        let (unchanged, previous) = self.compare(&mut node, previous, attributes::device_of(stat), entry);
        if !unchanged
            && kind != NodeKind::File
            && let Err(error) = complete(&directory, &mut node, &place)
        {
            // What is gone is not told, nor a link without its target, which could not be restored.
            let lost = error.vanished() || (kind == NodeKind::Symlink && node.target.is_none());
            self.visitor.trouble(error)?;
            if lost {
                return Continue(());
            }
        }
        let opener = (kind == NodeKind::File).then(|| {
            let shared = Arc::clone(&self.shared);
            let file = DiskFile { directory, place: Arc::clone(&place), name, filesystem, shared };
            Box::new(file) as Box<dyn FileOpener>
        });
        self.visitor.entry(Found { node, unchanged, previous, opener, place })
    }

    fn directory(&mut self, above: &Arc<OwnedFd>, name: Vec<u8>, stat: &Statx, verdict: Verdict) -> Flow {
        let Some(frame) = self.frames.last() else { return Continue(()) };
        let place = Place::below(&frame.place, &name);
        let id = (attributes::device_of(stat), stat.stx_ino);
        if self.not_entered(frame, id) {
            return self.tell_closed(name, stat, &place, None);
        }
        let opened = open_directory(above, &name).and_then(|fd| Ok((attributes::stat_open(&fd)?, fd)));
        let (stat, opened) = match opened {
            Ok((now, opened)) if (attributes::device_of(&now), now.stx_ino) == id => (now, opened),
            Ok(_) => {
                let detail = "another directory has its name now".into();
                return self.visitor.trouble(SourceError::Changed { path: place.path(), detail });
            }
            Err(error) => {
                let error = SourceError::io("open", place.path())(error);
                return match error.denied() {
                    true => self.tell_closed(name, stat, &place, Some(error)),
                    false => self.visitor.trouble(error),
                };
            }
        };
        let names = self.list(&opened, &place);
        self.tell_directory(&opened, name.clone(), &stat, place, names, verdict)?;
        self.trail.push(name);
        self.descent.enter(opened, id);
        Continue(())
    }

    /// Whether a directory stays empty by rule.
    fn not_entered(&self, above: &Frame, (device, inode): DirectoryId) -> bool {
        self.options.never_enter.contains(&(device, inode))
            || (device != above.device && self.closed_mounts.contains(&device))
            || (self.options.exclude.one_file_system && device != self.root_device)
    }

    /// Tells a directory that is not opened: attributes alone, nothing in it.
    fn tell_closed(
        &mut self,
        name: Vec<u8>,
        stat: &Statx,
        place: &Arc<Place>,
        trouble: Option<SourceError>,
    ) -> Flow {
        let filesystem = self.filesystem(stat, || place.path());
        let mut node = attributes::node(&name, NodeKind::Directory, stat, filesystem, &self.shared.owners);
        let previous = self.visitor.previous(&name);
        let (unchanged, previous) = match previous {
            Some(previous) if self.same(&previous, &node) => inherit(&mut node, previous),
            other => (false, other),
        };
        let above = self.frames.last().map_or_else(Place::root, |frame| Arc::clone(&frame.place));
        self.visitor.enter_directory(Found { node, unchanged, previous, opener: None, place: above })?;
        if let Some(trouble) = trouble {
            self.visitor.trouble(trouble)?;
        }
        self.visitor.leave_directory()
    }

    /// Tells an open directory and makes it the current one.
    fn tell_directory(
        &mut self,
        directory: &OwnedFd,
        name: Vec<u8>,
        stat: &Statx,
        place: Arc<Place>,
        names: Result<Names, SourceError>,
        verdict: Verdict,
    ) -> Flow {
        let filesystem = self.filesystem(stat, || place.path());
        let mut node = attributes::node(&name, NodeKind::Directory, stat, filesystem, &self.shared.owners);
        let previous = self.visitor.previous(&name);
        let device = attributes::device_of(stat);
        let (unchanged, previous) =
            self.compare(&mut node, previous, device, || Ok::<_, rustix::io::Errno>(directory));
        let mut troubles = Vec::new();
        if !unchanged {
            let failed = |what| SourceError::io(what, place.path());
            let read =
                attributes::xattrs(&Handle::Open(directory)).map_err(failed("read extended attributes of"));
            node.xattrs = read.unwrap_or_else(|error| noted(&mut troubles, error));
            let read = attributes::flags(directory).map_err(failed("read flags of"));
            node.flags = read.unwrap_or_else(|error| noted(&mut troubles, error));
        }
        let names = names.unwrap_or_else(|error| noted(&mut troubles, error));
        let mount = stat.stx_mnt_id;
        let above = self.frames.last().map_or_else(Place::root, |frame| Arc::clone(&frame.place));
        self.visitor.enter_directory(Found { node, unchanged, previous, opener: None, place: above })?;
        self.frames.push(Frame { names, place, device, mount, verdict });
        troubles.into_iter().try_for_each(|trouble| self.visitor.trouble(trouble))
    }

    fn leave(&mut self) -> Flow {
        self.visitor.leave_directory()?;
        self.frames.pop();
        let Some(above) = self.frames.last_mut() else { return Continue(()) };
        self.trail.pop();
        if let Err(error) = self.descent.leave() {
            above.names = Names::default();
            let path = above.place.path();
            return self.visitor.trouble(SourceError::io("return to", path)(error));
        }
        Continue(())
    }

    /// Whether `node`, on `device`, is what the previous point has; then its costly attributes are taken from there. `entry` opens it.
    fn compare<F: AsFd, E>(
        &self,
        node: &mut Node,
        previous: Option<Node>,
        device: u64,
        entry: impl FnOnce() -> Result<F, E>,
    ) -> (bool, Option<Node>) {
        let filesystems = &self.shared.filesystems;
        match previous {
            Some(previous) if self.same(&previous, node) && filesystems.shows_changes(device, entry) => {
                inherit(node, previous)
            }
            other => (false, other),
        }
    }

    fn same(&self, previous: &Node, now: &Node) -> bool {
        let WalkOptions { ignore_inode, ignore_ctime, .. } = *self.options;
        previous.kind == now.kind
            && previous.size == now.size
            && previous.mtime == now.mtime
            && (ignore_ctime || previous.ctime == now.ctime)
            && (ignore_inode || (previous.inode, previous.filesystem) == (now.inode, now.filesystem))
            && (now.kind != NodeKind::File || previous.content.is_some())
    }
}

/// Takes from the previous node what costs more to read than a look; the answer is that of [`Walker::compare`].
fn inherit(node: &mut Node, previous: Node) -> (bool, Option<Node>) {
    node.flags = previous.flags;
    if node.kind == NodeKind::Directory {
        node.xattrs.clone_from(&previous.xattrs);
        node.extensions.clone_from(&previous.extensions);
        return (true, Some(previous));
    }
    node.xattrs = previous.xattrs;
    node.extensions = previous.extensions;
    node.target = previous.target;
    node.content = previous.content;
    (true, None)
}

/// Keeps an error for later and goes on with nothing.
fn noted<T: Default>(troubles: &mut Vec<SourceError>, error: SourceError) -> T {
    troubles.push(error);
    T::default()
}

/// Reads what `statx` does not tell of links and special files.
fn complete(directory: &OwnedFd, node: &mut Node, place: &Place) -> Result<(), SourceError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |action| SourceError::io(action, place.join(&node.name));
    let fd =
        rustix::fs::openat(directory, node.name.as_slice(), flags, Mode::empty()).map_err(failed("open"))?;
    if node.kind == NodeKind::Symlink {
        let target =
            rustix::fs::readlinkat(&fd, c"", Vec::with_capacity(256)).map_err(failed("read link"))?;
        let target = target.into_bytes();
        node.size = target.len() as u64;
        node.target = Some(target);
    }
    let failed = SourceError::io("read extended attributes of", place.join(&node.name));
    node.xattrs = attributes::xattrs(&Handle::Path(fd)).map_err(failed)?;
    Ok(())
}
