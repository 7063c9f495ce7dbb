//! What goes wrong in a restore, gathered from all its threads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::{ErrorClass, StoreError};

use super::RestoreError;
use crate::descent::DirectoryId;
use crate::error::TargetError;

/// Tells the monitor, counts, and remembers what ends the work.
pub(super) struct Report<'a> {
    monitor: &'a dyn Monitor,
    /// Whether this process may give files away and set every attribute.
    pub(super) privileged: bool,
    problems: AtomicU64,
    refused: AtomicU64,
    classes: Mutex<HashSet<String>>,
    incomplete: Mutex<HashSet<DirectoryId>>,
    end: Mutex<Option<RestoreError>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Report<'a> {
    pub(super) fn new(monitor: &'a dyn Monitor) -> Self {
        Self {
            monitor,
            privileged: rustix::process::geteuid().is_root(),
            problems: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            classes: Mutex::default(),
            incomplete: Mutex::default(),
            end: Mutex::default(),
        }
    }

    /// Remembers a file (device, inode) whose content is not whole.
    pub(super) fn incomplete(&self, id: DirectoryId) {
        lock(&self.incomplete).insert(id);
    }

    pub(super) fn is_incomplete(&self, id: DirectoryId) -> bool {
        lock(&self.incomplete).contains(&id)
    }

    /// Trouble with one path.
    pub(super) fn problem(&self, path: Vec<u8>, reason: String) {
        self.problems.fetch_add(1, Relaxed);
        self.monitor.event(Event::Problem { path, reason });
    }

    /// The target refused something.
    pub(super) fn target(&self, error: TargetError) {
        let path = match &error {
            TargetError::Io { path, .. } | TargetError::Exists { path } => path.clone(),
            TargetError::Invalid { path, .. } | TargetError::Changed { path, .. } => path.clone(),
            TargetError::Cancelled => Vec::new(),
        };
        self.problem(path, error.to_string());
        if error.hopeless() {
            lock(&self.end).get_or_insert(RestoreError::Target(error));
        }
    }

    /// The store could not give something of `path`.
    pub(super) fn store(&self, path: Vec<u8>, what: &str, error: StoreError) {
        self.problem(path, format!("{what}: {error}"));
        if error.class() == ErrorClass::Cancelled {
            lock(&self.end).get_or_insert(RestoreError::Store(error));
        }
    }

    /// Attributes of a class could not be applied, for a reason that holds for all of the class: told once.
    pub(super) fn refused(&self, class: &str, reason: &str) {
        self.refused.fetch_add(1, Relaxed);
        if lock(&self.classes).insert(class.to_owned()) {
            self.monitor.event(Event::Note(format!("{class} are not restored: {reason}")));
        }
    }

    pub(super) fn done(&self, files: u64, bytes: u64) {
        self.monitor.event(Event::Done { files, bytes });
    }

    pub(super) fn stage(&self, files_total: u64, bytes_total: u64) {
        self.monitor.event(Event::Stage { name: "restore", files_total, bytes_total });
    }

    /// Whether nothing more should be begun.
    pub(super) fn stopped(&self) -> bool {
        if self.monitor.cancelled() {
            lock(&self.end).get_or_insert(RestoreError::Target(TargetError::Cancelled));
        }
        lock(&self.end).is_some()
    }

    /// Counts of problems and of refused attributes, or why the work ended early.
    pub(super) fn finish(self) -> Result<(u64, u64), RestoreError> {
        match self.end.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok((self.problems.into_inner(), self.refused.into_inner())),
        }
    }
}
