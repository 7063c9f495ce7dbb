//! A directory of the target while it is filled. Whoever lets go of it last gives it its attributes, its times among them.
//!
//! The walk holds a share of it until it leaves it, and so does each file and each further name that gets its own name in it
//! later. So only directories in which something is still to be renamed are kept, and each is done as soon as it can be.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use holdfast_store::tree::Node;
use rustix::fs::Mode;

use super::attributes::{Dressing, Handle};
use super::compare::directory_difference;
use super::report::Report;
use super::target::{identity, open_place};
use crate::descent::{DirectoryId, Place};
use crate::error::TargetError;

/// The mode of a directory while it is filled: for its owner alone, with a bit that nobody sets beside that. It gets its own as
/// the last thing but flags. So where attributes of what is there are not touched (`never`), one that a dead run left half done is
/// known.
pub(super) const UNFINISHED: Mode = Mode::RWXU.union(Mode::SVTX);

/// Whether a directory is one that a run has not finished.
pub(super) fn is_unfinished(directory: &OwnedFd) -> bool {
    rustix::fs::fstat(directory).is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode) == UNFINISHED)
}

/// A directory that is not done.
#[derive(Debug)]
pub(super) struct Filling {
    pub(super) place: Arc<Place>,
    pub(super) node: Node,
    pub(super) id: DirectoryId,
    /// Whether ACLs and flags that the node does not have must go.
    pub(super) exact: bool,
    /// Whether it gets the attributes of the node.
    pub(super) wanted: bool,
}

impl Filling {
    /// Lets go of a share; the last to do so opens the directory once more and dresses it.
    pub(super) fn release(self: Arc<Self>, target: &OwnedFd, report: &Report<'_>) {
        let Some(last) = Arc::into_inner(self).filter(|last| last.wanted) else {
            return;
        };
        match open_place(target, &last.place) {
            Ok(open) => last.dress(&open, report),
            Err(error) => report.target(TargetError::io("open", last.place.path())(error)),
        }
    }

    /// The same with the directory open.
    pub(super) fn release_open(self: Arc<Self>, open: &OwnedFd, report: &Report<'_>) {
        if let Some(last) = Arc::into_inner(self).filter(|last| last.wanted) {
            last.dress(open, report);
        }
    }

    fn dress(&self, open: &OwnedFd, report: &Report<'_>) {
        if identity(open).ok() != Some(self.id) {
            let detail = "another directory has its name now".into();
            return report.target(TargetError::Changed { path: self.place.path(), detail });
        }
        if directory_difference(open, &self.node, report.privileged).is_none() {
            return;
        }
        Dressing {
            to: Handle::Open(open.as_fd()),
            node: &self.node,
            exact: self.exact,
            strip: false,
            times: true,
            flags_later: 0,
            path: &|| self.place.path(),
            report,
        }
        .apply();
    }
}
