//! Directories into which nothing is ever restored: the store's own, and mounts of its points.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use crate::descent::{DirectoryId, lies_in};
use crate::error::TargetError;
use crate::source::own_mounts;

pub(super) struct Forbidden<'a> {
    own: &'a HashSet<DirectoryId>,
    mounts: HashSet<u64>,
}

impl<'a> Forbidden<'a> {
    pub(super) fn new(own: &'a HashSet<DirectoryId>) -> Self {
        Self { own, mounts: own_mounts() }
    }

    /// Whether this directory is one of them.
    pub(super) fn holds(&self, id: DirectoryId) -> bool {
        self.own.contains(&id) || self.mounts.contains(&id.0)
    }

    /// An error if a directory is one of them, or lies in one.
    pub(super) fn refuse_within(&self, directory: &OwnedFd) -> Result<(), TargetError> {
        if !lies_in(directory, |id| self.holds(id)).map_err(TargetError::io("look above", *b""))? {
            return Ok(());
        }
        let detail = "the target belongs to the store, into which nothing is restored".into();
        Err(TargetError::Invalid { path: Vec::new(), detail })
    }
}
