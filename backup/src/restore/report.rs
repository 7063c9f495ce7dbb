//! What goes wrong in a restore, gathered from all its threads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::tree::{Node, NodeKind};
use holdfast_store::{ErrorClass, StoreError};

use super::{RestoreError, RestoreSummary, Waiting};
use crate::error::TargetError;

/// Tells the monitor, counts, and remembers what ends the work.
pub(super) struct Report<'a> {
    monitor: &'a dyn Monitor,
    /// Whether this process may give files away and set every attribute.
    pub(super) privileged: bool,
    /// Whether each entry is told.
    tell: bool,
    counts: Counts,
    classes: Mutex<HashSet<String>>,
    end: Mutex<Option<RestoreError>>,
    /// What a vault said that was the first not to answer.
    away: Mutex<Option<StoreError>>,
}

/// What became of an entry; in a rehearsal, what would become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Replace,
    Beside,
    Link,
    Same,
    Attributes,
    Keep,
    Incomplete,
}

impl Action {
    /// The word for people and programs.
    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Beside => "keep both",
            Self::Link => "link",
            Self::Same => "same",
            Self::Attributes => "attributes",
            Self::Keep => "keep",
            Self::Incomplete => "incomplete",
        }
    }
}

/// The fields of [`RestoreSummary`], counted by many threads.
#[derive(Debug, Default)]
struct Counts {
    files: AtomicU64,
    directories: AtomicU64,
    others: AtomicU64,
    links: AtomicU64,
    bytes: AtomicU64,
    replaced: AtomicU64,
    same: AtomicU64,
    mended: AtomicU64,
    skipped: AtomicU64,
    bytes_skipped: AtomicU64,
    incomplete: AtomicU64,
    problems: AtomicU64,
    refused: AtomicU64,
    waiting: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Report<'a> {
    pub(super) fn new(monitor: &'a dyn Monitor, tell: bool) -> Self {
        Self {
            monitor,
            privileged: rustix::process::geteuid().is_root(),
            tell,
            counts: Counts::default(),
            classes: Mutex::default(),
            end: Mutex::default(),
            away: Mutex::default(),
        }
    }

    fn tell(&self, action: Action, path: impl FnOnce() -> Vec<u8>, bytes: u64) {
        if self.tell {
            self.monitor.event(Event::Entry { path: path(), action: action.word(), bytes });
        }
    }

    /// An entry was made, or would be.
    pub(super) fn made(&self, node: &Node, action: Action, path: impl FnOnce() -> Vec<u8>) {
        let counts = &self.counts;
        let size = if node.kind == NodeKind::File { node.size } else { 0 };
        match node.kind {
            NodeKind::File => counts.files.fetch_add(1, Relaxed),
            NodeKind::Directory => counts.directories.fetch_add(1, Relaxed),
            _ => counts.others.fetch_add(1, Relaxed),
        };
        counts.bytes.fetch_add(size, Relaxed);
        if action == Action::Replace {
            counts.replaced.fetch_add(1, Relaxed);
        }
        self.tell(action, path, size);
    }

    /// A directory of the target was entered that was there before.
    pub(super) fn merged(&self) {
        self.counts.directories.fetch_add(1, Relaxed);
    }

    /// A further name was made, or would be.
    pub(super) fn linked(&self, action: Action, path: impl FnOnce() -> Vec<u8>) {
        self.counts.links.fetch_add(1, Relaxed);
        self.tell(action, path, 0);
    }

    /// An entry was there already, as it should be.
    pub(super) fn same(&self, node: &Node, path: impl FnOnce() -> Vec<u8>) {
        self.counts.same.fetch_add(1, Relaxed);
        self.skip(Action::Same, node, path);
    }

    /// Of an entry only the attributes were set, or would be.
    pub(super) fn mended(&self, node: &Node, path: impl FnOnce() -> Vec<u8>) {
        self.counts.mended.fetch_add(1, Relaxed);
        self.skip(Action::Attributes, node, path);
    }

    /// What was in the way stays, as the policy says.
    pub(super) fn kept(&self, node: &Node, path: impl FnOnce() -> Vec<u8>) {
        self.counts.skipped.fetch_add(1, Relaxed);
        self.skip(Action::Keep, node, path);
    }

    /// Nothing of an entry is written.
    fn skip(&self, action: Action, node: &Node, path: impl FnOnce() -> Vec<u8>) {
        let bytes = if node.kind == NodeKind::File { node.size } else { 0 };
        self.counts.bytes_skipped.fetch_add(bytes, Relaxed);
        self.tell(action, path, bytes);
    }

    /// Of a file only a part could be read.
    pub(super) fn incomplete(&self, node: &Node, path: impl FnOnce() -> Vec<u8>) {
        self.counts.incomplete.fetch_add(1, Relaxed);
        self.tell(Action::Incomplete, path, node.size);
    }

    /// Trouble with one path.
    pub(super) fn problem(&self, path: Vec<u8>, reason: String) {
        self.counts.problems.fetch_add(1, Relaxed);
        self.monitor.event(Event::Problem { path, reason });
    }

    /// More about trouble that was told and counted.
    pub(super) fn explain(&self, path: Vec<u8>, reason: String) {
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

    /// The store could not give something of `path`. Returns whether a vault may give it later: of all such, the first alone is
    /// told, and the entry is to be counted with [`Report::waits`].
    pub(super) fn store(&self, path: Vec<u8>, what: &str, error: StoreError) -> bool {
        if error.class() == ErrorClass::Cancelled {
            lock(&self.end).get_or_insert(RestoreError::Target(TargetError::Cancelled));
            return false;
        }
        if !error.is_vault_away() {
            self.problem(path, format!("{what}: {error}"));
            return false;
        }
        let mut away = lock(&self.away);
        if away.is_none() {
            let reason = format!("{what}: {error}; what else needs that vault is left out and counted");
            self.monitor.event(Event::Problem { path, reason });
            *away = Some(error);
        }
        true
    }

    /// The same of an entry that is lost as a whole.
    pub(super) fn lacks(&self, path: Vec<u8>, what: &str, error: StoreError) {
        if self.store(path, what, error) {
            self.waits();
        }
    }

    /// An entry is left out because a vault does not answer.
    pub(super) fn waits(&self) {
        self.counts.waiting.fetch_add(1, Relaxed);
    }

    /// Attributes of a class could not be applied, for a reason that holds for all of the class: told once.
    pub(super) fn refused(&self, class: &str, reason: &str) {
        self.counts.refused.fetch_add(1, Relaxed);
        if lock(&self.classes).insert(class.to_owned()) {
            self.monitor.event(Event::Note(format!("{class} are not restored: {reason}")));
        }
    }

    pub(super) fn done(&self, files: u64, bytes: u64) {
        self.monitor.event(Event::Done { files, bytes });
    }

    pub(super) fn stage(&self, name: &'static str, files_total: u64, bytes_total: u64) {
        self.monitor.event(Event::Stage { name, files_total, bytes_total });
    }

    /// Whether nothing more should be begun.
    pub(super) fn stopped(&self) -> bool {
        if self.monitor.cancelled() {
            lock(&self.end).get_or_insert(RestoreError::Target(TargetError::Cancelled));
        }
        lock(&self.end).is_some()
    }

    /// Something a person may want to know.
    pub(super) fn note(&self, text: String) {
        self.monitor.event(Event::Note(text));
    }

    /// What was done, or why the work ended early.
    pub(super) fn finish(self) -> Result<RestoreSummary, RestoreError> {
        if let Some(error) = self.end.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let counts = self.counts;
        let done = RestoreSummary {
            files: counts.files.into_inner(),
            directories: counts.directories.into_inner(),
            others: counts.others.into_inner(),
            links: counts.links.into_inner(),
            bytes: counts.bytes.into_inner(),
            replaced: counts.replaced.into_inner(),
            same: counts.same.into_inner(),
            mended: counts.mended.into_inner(),
            skipped: counts.skipped.into_inner(),
            bytes_skipped: counts.bytes_skipped.into_inner(),
            incomplete: counts.incomplete.into_inner(),
            problems: counts.problems.into_inner(),
            refused: counts.refused.into_inner(),
        };
        match self.away.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(done),
            Some(source) => {
                let entries = counts.waiting.into_inner();
                Err(RestoreError::Away(Box::new(Waiting { source, entries, done })))
            }
        }
    }
}
