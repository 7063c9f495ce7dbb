//! Files with several names: how the first stands, until the last is made.
//!
//! A further name of a file whose content is still being written waits at the file, and is made by the thread that finishes
//! it; of any other it is made at once. So what waits is bounded by the files in the writers' queue, a constant number, and
//! the names that each of them has; and a damaged file takes the place of nothing, under none of its names. What is known of first names is
//! one record for each file of which names are still to come.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_store::tree::{Node, NodeKind};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::attributes::{LOCKING_FLAGS, set_flags};
use super::directory::Filling;
use super::report::{Action, Report};
use super::target::{Plan, TargetDir, identity, open_place};
use super::{Overwrite, temporary};
use crate::descent::{DirectoryId, Place, proc_path};
use crate::error::{TargetError, shown};

/// What became of the first name of a file.
#[derive(Debug)]
pub(super) enum Standing {
    /// Its content is being written; these names wait for it.
    Writing(Vec<LateLink>),
    /// It has this name in its directory.
    Stands { name: Vec<u8>, id: DirectoryId, whole: bool },
    /// It was not made; `lost`: because nothing of it could be read.
    Nowhere { lost: bool },
}

/// A further name that waits.
#[derive(Debug)]
pub(super) struct LateLink {
    pub(super) directory: Arc<Filling>,
    pub(super) node: Node,
}

/// The first name of a file, shared by whoever makes it and whoever makes further ones.
#[derive(Debug, Clone)]
pub(super) struct First {
    pub(super) place: Arc<Place>,
    standing: Arc<Mutex<Standing>>,
}

impl First {
    pub(super) fn new(place: &Arc<Place>, standing: Standing) -> Self {
        Self { place: Arc::clone(place), standing: Arc::new(Mutex::new(standing)) }
    }

    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what became of it; the names that waited for that.
    pub(super) fn settle(&self, standing: Standing) -> Vec<LateLink> {
        let before = std::mem::replace(&mut *self.standing(), standing);
        match before {
            Standing::Writing(waiting) => waiting,
            _ => Vec::new(),
        }
    }

    /// Where it stands.
    pub(super) fn found(&self) -> Option<Found<'_>> {
        match &*self.standing() {
            Standing::Stands { name, id, whole } => {
                Some(Found { place: &self.place, name: name.clone(), id: *id, whole: *whole })
            }
            _ => None,
        }
    }
}

/// A file that further names are made of.
pub(super) struct Found<'a> {
    pub(super) place: &'a Place,
    pub(super) name: Vec<u8>,
    pub(super) id: DirectoryId,
    pub(super) whole: bool,
}

/// First names by the file behind them. Only files with several names are in it, and only as long as names may follow.
#[derive(Debug, Default)]
pub(super) struct Links {
    known: HashMap<[u8; 32], (First, u32)>,
    /// The directory of a first name that was opened last; names of one file tend to come together.
    last: Option<(Arc<Place>, Arc<OwnedFd>)>,
}

/// Whether a node has further names that a restore links together.
pub(super) fn has_names(node: &Node) -> bool {
    node.links > 1 && node.kind != NodeKind::Directory
}

impl Links {
    /// The first name of the file that `node` is another name of. Counts one name as made.
    pub(super) fn first(&mut self, node: &Node) -> Option<First> {
        let file = node.file_behind()?;
        let (first, left) = self.known.get_mut(&file)?;
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Some(first.clone());
        }
        self.known.remove(&file).map(|(first, _)| first)
    }

    /// Remembers a first name.
    pub(super) fn remember(&mut self, node: &Node, first: First) {
        if let Some(file) = node.file_behind() {
            self.known.insert(file, (first, node.links - 1));
        }
    }

    /// The open directory of a first name.
    pub(super) fn directory(&mut self, root: &OwnedFd, first: &First) -> std::io::Result<Arc<OwnedFd>> {
        if let Some((place, open)) = &self.last
            && Arc::ptr_eq(place, &first.place)
        {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(open_place(root, &first.place)?);
        self.last = Some((Arc::clone(&first.place), Arc::clone(&open)));
        Ok(open)
    }
}

/// Makes a further name of what stands in `above`.
pub(super) fn make(
    above: &TargetDir<'_>,
    found: &Found<'_>,
    to: &TargetDir<'_>,
    node: &Node,
    report: &Report<'_>,
) -> Result<(), TargetError> {
    let handle = above.handle(&found.name, None)?;
    if identity(&handle).map_err(above.failed("stat", &found.name))? != found.id {
        let detail = "another file has its name now".into();
        return Err(TargetError::Changed { path: found.place.join(&found.name), detail });
    }
    let path = || to.place.join(&node.name);
    if !found.whole {
        // What is damaged takes the place of nothing.
        let to = TargetDir { overwrite: Overwrite::Refuse, ..*to };
        let made = to.plan_link(node, Some(found.id)).and_then(|plan| place(&to, &plan, node, &handle));
        if let Err(TargetError::Exists { .. }) = made {
            let first = shown(&found.place.join(&found.name));
            report
                .problem(path(), format!("not linked to {first}, which is not whole; what was there stays"));
            return Ok(());
        }
        return made.map(|_| report.linked(Action::Link, path));
    }
    let plan = to.plan_link(node, Some(found.id))?;
    match place(to, &plan, node, &handle)? {
        Some(action) => report.linked(action, path),
        None if matches!(plan, Plan::Same(..)) => report.same(node, path),
        None => report.kept(node, path),
    }
    Ok(())
}

/// Carries out a plan with a further name; what was done, if anything.
fn place(
    to: &TargetDir<'_>,
    plan: &Plan,
    node: &Node,
    handle: &OwnedFd,
) -> Result<Option<Action>, TargetError> {
    let from = proc_path(handle);
    let link = |name: &[u8]| rustix::fs::linkat(rustix::fs::CWD, &from, to.fd, name, AtFlags::SYMLINK_FOLLOW);
    if matches!(plan, Plan::Same(..) | Plan::Keep) {
        return Ok(None);
    }
    if *plan == Plan::Create && link(&node.name).is_ok() {
        return Ok(Some(Action::Link));
    }
    let (made, ()) = temporary::make(link).map_err(to.failed("link", &node.name))?;
    let settled = to.settle(&made, &node.name)?;
    // To rename one name of a file to another name of the same file does nothing.
    to.remove(&made);
    Ok(settled.map(|_| Action::Link))
}

impl LateLink {
    /// Makes it, now that the first name stands.
    pub(super) fn make(
        &self,
        first: &First,
        target: &OwnedFd,
        overwrite: Overwrite,
        report: &Report<'_>,
    ) -> Result<(), NotLinked> {
        let place = &self.directory.place;
        let privileged = report.privileged;
        let Some(found) = first.found() else {
            let lost = matches!(*first.standing(), Standing::Nowhere { lost: true });
            return Err(if lost { NotLinked::Lost } else { NotLinked::Nowhere });
        };
        let failed = |place: &Place| TargetError::io("open", place.path());
        let above = open_place(target, &first.place).map_err(failed(&first.place))?;
        let here = open_place(target, place).map_err(failed(place))?;
        temporary::hold(&here);
        let above = TargetDir { fd: &above, place: &first.place, overwrite, privileged };
        let to = TargetDir { fd: &here, place, overwrite, privileged };
        Ok(make(&above, &found, &to, &self.node, report)?)
    }
}

/// Why a further name was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLinked {
    #[error("nothing of it could be read")]
    Lost,
    #[error("that was not made")]
    Nowhere,
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// A file with several names that is to be immutable or append-only when all are made.
pub(super) struct Locked {
    pub(super) first: First,
    pub(super) flags: u32,
}

impl Locked {
    pub(super) fn lock(&self, target: &OwnedFd, report: &Report<'_>) {
        let Some(found) = self.first.found() else { return };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let result = open_place(target, found.place).and_then(|directory| {
            let file = rustix::fs::openat(&directory, found.name.as_slice(), flags, Mode::empty())?;
            // Another file has its name by now.
            if identity(&file)? != found.id {
                return Ok(());
            }
            Ok(set_flags(file, LOCKING_FLAGS, self.flags & LOCKING_FLAGS)?)
        });
        if let Err(error) = result {
            if !report.privileged {
                return report.refused("file flags", "this process is not root");
            }
            report.target(TargetError::io("set flags of", found.place.join(&found.name))(error));
        }
    }
}

#[cfg(test)]
impl Links {
    pub(super) fn waiting(&self) -> usize {
        self.known.len()
    }
}
