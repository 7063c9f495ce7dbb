//! One writer at a time: locks of whole processes, which the kernel takes back however a process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::Store;
use crate::error::StoreError;
use crate::monitor::{Event, Monitor};

/// The file that whoever writes to a store locks.
pub(super) const STORE_LOCK: &str = "lock";
/// What whoever gives it back soon writes behind the number of his process.
const BY_TURNS: &str = "by turns";
/// So long a turn lasts, and what was begun in it.
const TURN: Duration = Duration::from_secs(2);
/// So long the lock is free between two turns.
const GAP: Duration = Duration::from_millis(250);
/// So often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// So long whoever wants the lock waits for one who takes turns.
const TURN_WAIT: Duration = Duration::from_secs(60);

/// Holds a store for writing until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct StoreLock {
    file: File,
}

impl Drop for StoreLock {
    /// Closing is not enough: a child that another thread is just starting has the file, too, until it becomes another program.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl StoreLock {
    /// Takes a lock that everybody holds for a moment only.
    pub(super) fn wait(dir: &Path, name: &str) -> Result<Self, StoreError> {
        let path = dir.join(name);
        let file = open(&path)?;
        file.lock().map_err(StoreError::io("lock", &path))?;
        Ok(Self { file })
    }

    /// Takes the lock of this name, alone or with others who do not want it alone; `Locked` if another process has it.
    pub(super) fn take(dir: &Path, name: &str, alone: bool) -> Result<Self, StoreError> {
        Self::take_saying(dir, name, alone, "")
    }

    fn take_saying(dir: &Path, name: &str, alone: bool, manner: &str) -> Result<Self, StoreError> {
        let path = dir.join(name);
        let file = open(&path)?;
        match if alone { file.try_lock() } else { file.try_lock_shared() } {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let said = std::fs::read_to_string(&path).ok();
                let holder = said.and_then(|said| said.split_whitespace().next()?.parse().ok());
                return Err(StoreError::Locked { path: dir.to_path_buf(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
        }
        // Who holds it is for people only; failing to say so is no reason to stop.
        let said = format!("{} {manner}", std::process::id());
        let _ =
            file.set_len(0).and_then(|()| (&file).write_all((said.trim_end().to_owned() + "\n").as_bytes()));
        Ok(Self { file })
    }
}

impl Store {
    /// Takes the store for writing; `Locked` if another process has it. One that has it by turns is waited for.
    pub fn lock(&self) -> Result<StoreLock, StoreError> {
        let end = self.clock.monotonic() + TURN_WAIT;
        loop {
            let taken = StoreLock::take(&self.dir, STORE_LOCK, true);
            let is_locked = matches!(taken, Err(StoreError::Locked { .. }));
            if !is_locked || self.clock.monotonic() >= end || !self.is_held_by_turns() {
                return taken;
            }
            self.clock.pause(LOOK);
        }
    }

    /// Looked at twice: who just took the lock says so a moment later.
    fn is_held_by_turns(&self) -> bool {
        let says = || {
            std::fs::read_to_string(self.dir.join(STORE_LOCK))
                .is_ok_and(|said| said.trim_end().ends_with(BY_TURNS))
        };
        says() || {
            self.clock.pause(LOOK);
            says()
        }
    }
}

/// The store's lock for long work that is done piece by piece: between the pieces others get it, and none of them waits for long.
pub struct Turns<'a> {
    store: &'a Store,
    lock: Option<StoreLock>,
    ends: Duration,
}

impl<'a> Turns<'a> {
    /// The first one; `Locked` if another process has the store.
    pub fn begin(store: &'a Store) -> Result<Self, StoreError> {
        let mut turns = Self { store, lock: None, ends: Duration::ZERO };
        turns.lock = Some(turns.take()?);
        store.mark_annexes();
        Ok(turns)
    }

    fn take(&mut self) -> Result<StoreLock, StoreError> {
        let lock = StoreLock::take_saying(&self.store.dir, STORE_LOCK, true, BY_TURNS)?;
        self.ends = self.store.clock.monotonic() + TURN;
        Ok(lock)
    }

    /// What had to be looked at first does not count: however long it took, as much is done after it.
    pub fn has_looked(&mut self) {
        self.ends = self.store.clock.monotonic() + TURN;
    }

    /// Whether others should have the lock now.
    pub fn is_over(&self) -> bool {
        self.store.clock.monotonic() >= self.ends
    }

    /// Gives the lock back.
    pub fn end(&mut self) {
        self.lock = None;
    }

    /// Takes the next turn, for as long as whoever came in between needs: all that was known of the store may have changed.
    pub fn next(&mut self, monitor: &dyn Monitor) -> Result<(), StoreError> {
        self.end();
        let mut told = false;
        loop {
            self.store.clock.pause(GAP);
            if monitor.cancelled() {
                return Err(StoreError::Cancelled);
            }
            match self.take() {
                Err(e @ StoreError::Locked { .. }) if !told => {
                    monitor.event(Event::Note(format!("{e}; this goes on when that has ended")));
                    told = true;
                }
                Err(StoreError::Locked { .. }) => {}
                taken => {
                    self.lock = Some(taken?);
                    return Ok(());
                }
            }
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    // A link in its place could lead anywhere, and the file is written to.
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    options.open(path).map_err(StoreError::io("open", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_dropped_although_a_child_still_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = StoreLock::take(dir.path(), "lock", true).unwrap();
        let inherited = lock.file.try_clone().unwrap();
        assert!(matches!(StoreLock::take(dir.path(), "lock", true), Err(StoreError::Locked { .. })));
        drop(lock);
        StoreLock::take(dir.path(), "lock", true).unwrap();
        drop(inherited);
    }
}
