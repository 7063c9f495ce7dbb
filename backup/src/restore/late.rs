//! What is done when all files are written: names, flags and attributes that depend on how each file came out.
//!
//! Where files are replaced, a further name is given only to a whole one, so that damaged content takes the place of
//! nothing; and a directory whose names change that late gets its attributes, its times among them, last.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use holdfast_store::tree::Node;
use rustix::fs::AtFlags;

use super::Overwrite;
use super::attributes::{Dressing, Handle};
use super::links::First;
use super::report::Report;
use super::run::Locked;
use super::target::{TargetDir, identity, open_place};
use crate::descent::{DirectoryId, Place};
use crate::error::{TargetError, shown};

/// Everything that waits for the writers.
#[derive(Default)]
pub(super) struct Late {
    pub(super) links: Vec<LateLink>,
    pub(super) locked: Vec<Locked>,
    /// Those below before those above.
    pub(super) directories: Vec<LateDirectory>,
}

/// A further name of a file.
pub(super) struct LateLink {
    pub(super) place: Arc<Place>,
    pub(super) node: Node,
    pub(super) first: First,
}

/// A directory without its attributes.
pub(super) struct LateDirectory {
    pub(super) place: Arc<Place>,
    pub(super) node: Node,
    pub(super) exact: bool,
    pub(super) id: DirectoryId,
}

impl Late {
    /// Does it all; how many links were made.
    pub(super) fn finish(&self, target: &OwnedFd, overwrite: Overwrite, report: &Report<'_>) -> u64 {
        let mut made = 0;
        for link in self.links.iter().take_while(|_| !report.stopped()) {
            match link.make(target, overwrite, report) {
                Ok(new) => made += u64::from(new),
                Err(error) => report.target(error),
            }
        }
        self.locked.iter().for_each(|file| file.lock(target, report));
        self.directories.iter().for_each(|directory| directory.dress(target, report));
        made
    }
}

impl LateLink {
    fn make(&self, target: &OwnedFd, overwrite: Overwrite, report: &Report<'_>) -> Result<bool, TargetError> {
        let (path, first) = (self.place.join(&self.node.name), self.first.place.join(&self.first.name));
        let io = |action| TargetError::io(action, path.clone());
        let above = open_place(target, &self.first.place).map_err(io("link"))?;
        let from = TargetDir { fd: &above, place: &self.first.place, overwrite };
        let handle = from.handle(&self.first.name, None)?;
        let here = open_place(target, &self.place).map_err(io("link"))?;
        let to = TargetDir { fd: &here, place: &self.place, overwrite };
        let id = identity(&handle).map_err(io("stat"))?;
        let taken = rustix::fs::statat(&here, self.node.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if id != self.first.id || (taken && report.is_incomplete(id)) {
            let detail = format!("not linked to {}, which is not whole; what was there stays", shown(&first));
            report.problem(path, detail);
            return Ok(false);
        }
        Ok(to.link(&self.node, &handle)?.is_some())
    }
}

impl LateDirectory {
    fn dress(&self, target: &OwnedFd, report: &Report<'_>) {
        let path = || self.place.path();
        let open = match open_place(target, &self.place) {
            Ok(open) => open,
            Err(error) => return report.target(TargetError::io("open", path())(error)),
        };
        if identity(&open).ok() != Some(self.id) {
            let detail = "another directory has its name now".into();
            return report.target(TargetError::Changed { path: path(), detail });
        }
        let (to, node, exact) = (Handle::Open(open.as_fd()), &self.node, self.exact);
        Dressing { to, node, exact, times: true, flags_later: 0, path: &path, report }.apply();
    }
}
