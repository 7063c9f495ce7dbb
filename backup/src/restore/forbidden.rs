//! Directories into which nothing is ever restored: the store's own, and mounts of its points.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::descent::{DirectoryId, directory_id};
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
        let io = || TargetError::io("look above", *b"");
        let mut at = directory.try_clone().map_err(io())?;
        let mut id = directory_id(&at).map_err(io())?;
        loop {
            if self.holds(id) {
                let detail = "the target belongs to the store, into which nothing is restored".into();
                return Err(TargetError::Invalid { path: Vec::new(), detail });
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            at = rustix::fs::openat(&at, c"..", flags, Mode::empty())
                .map_err(TargetError::io("look above", *b""))?;
            let above = directory_id(&at).map_err(io())?;
            if above == id {
                return Ok(());
            }
            id = above;
        }
    }
}
