//! Files in memory, and files that fail when told to: what crash and full-disk tests are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::area::parent_of;
use super::files::{FileEntry, Files, Identity, Room};

/// Files in memory; what is written is durable at once, names that are given when their directory was synced.
#[derive(Debug, Default)]
pub struct MemoryFiles {
    state: Mutex<MemoryState>,
    room: Mutex<Option<u64>>,
    refuses: Mutex<Option<ErrorKind>>,
    let_go: Mutex<Vec<(String, Range<u64>)>>,
    unsynced: Mutex<BTreeSet<String>>,
}

/// Files with their bytes, and the directories that were made.
type MemoryState = (BTreeMap<String, Vec<u8>>, BTreeSet<String>);

impl MemoryFiles {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Vec<u8>>, &mut BTreeSet<String>) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (files, dirs) = &mut *state;
        f(files, dirs)
    }

    /// Leaves room for so many bytes in all; as much as anybody wants, if nothing is said.
    pub fn limit(&self, bytes: u64) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    /// Refuses whatever is put there with such an error from now on, and says so.
    pub fn refuse(&self, kind: ErrorKind) {
        *self.refuses.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
    }

    /// What was let go of, so far.
    pub fn what_was_let_go(&self) -> Vec<(String, Range<u64>)> {
        self.let_go.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names that a power cut would take away.
    pub fn at_risk(&self) -> Vec<String> {
        self.unsynced().iter().cloned().collect()
    }

    fn unsynced(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the bytes of a file behind everybody's back, as a bad disk does.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.with(|files, _| files.get_mut(path).map(change));
    }
}

fn missing() -> io::Error {
    io::Error::from(ErrorKind::NotFound)
}

impl Files for MemoryFiles {
    fn write_synced(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let room = self.room()?;
        if let Some(kind) = room.refuses {
            return Err(kind.into());
        }
        if room.free < bytes.len() as u64 {
            return Err(ErrorKind::StorageFull.into());
        }
        self.with(|files, _| {
            if files.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            files.insert(path.to_owned(), bytes.to_vec());
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|files, _| {
            let bytes = files.remove(from).ok_or_else(missing)?;
            files.insert(to.to_owned(), bytes);
            io::Result::Ok(())
        })?;
        self.unsynced().remove(from);
        self.unsynced().insert(to.to_owned());
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.unsynced().retain(|path| parent_of(path) != dir);
        Ok(())
    }

    fn sync_file(&self, path: &str) -> io::Result<()> {
        self.len(path)?.map(drop).ok_or_else(missing)
    }

    fn make_dir(&self, dir: &str) -> io::Result<bool> {
        Ok(self.with(|_, dirs| dirs.insert(dir.to_owned())))
    }

    fn read_exact_at(&self, path: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|files, _| {
            let bytes = files.get(path).ok_or_else(missing)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let range = start..start.saturating_add(out.len());
            out.copy_from_slice(bytes.get(range).ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn read_small(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        Ok(self.with(|files, _| files.get(path).map(|bytes| bytes[..bytes.len().min(limit)].to_vec())))
    }

    fn let_go(&self, path: &str, bytes: Range<u64>) {
        self.let_go.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_owned(), bytes));
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        Ok(self.with(|files, _| files.get(path).map(|b| b.len() as u64)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<FileEntry>> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        Ok(self.with(|files, _| {
            let mut found = BTreeMap::new();
            for (path, bytes) in files.range(prefix.clone()..) {
                let Some(rest) = path.strip_prefix(&prefix) else { break };
                match rest.split_once('/') {
                    None => found.insert(rest.to_owned(), Some(bytes.len() as u64)),
                    Some((name, _)) => found.insert(name.to_owned(), None),
                };
            }
            found.into_iter().map(|(name, len)| FileEntry { name, len }).collect()
        }))
    }

    fn refuse_links(&self, _dir: &str) -> io::Result<()> {
        // There are none.
        Ok(())
    }

    fn identity(&self, _path: &str) -> io::Result<Option<Identity>> {
        Ok(None)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.unsynced().remove(path);
        self.with(|files, _| files.remove(path).map(drop).ok_or_else(missing))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        if !self.list(dir)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.with(|_, dirs| dirs.remove(dir)).then_some(()).ok_or_else(missing)
    }

    fn room(&self) -> io::Result<Room> {
        let total = self.room.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(u64::MAX);
        let used = self.with(|files, _| files.values().map(|bytes| bytes.len() as u64).sum());
        let disk = std::ptr::from_ref(self).addr() as u64;
        let refuses = *self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Room { free: total.saturating_sub(used), total, disk, refuses })
    }

    fn describe(&self, path: &str) -> PathBuf {
        PathBuf::from("memory:").join(path)
    }
}

/// What goes wrong at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails once with this kind, half done where that is possible.
    Once(ErrorKind),
    /// It and every later one fails with this kind: a full or dead disk.
    ForEver(ErrorKind),
    /// It is half done and nothing happens after it: the power is gone.
    Crash,
}

/// Wraps files and makes the n-th changing operation fail.
#[derive(Debug)]
pub struct FaultyFiles {
    inner: Arc<dyn Files>,
    state: Arc<Mutex<FaultState>>,
}

#[derive(Debug, Default)]
struct FaultState {
    plan: Option<(u64, Fault)>,
    done: u64,
}

impl FaultyFiles {
    /// Files that work until [`Self::fail_at`].
    pub fn new(inner: Arc<dyn Files>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Other files of the same machine: operations on both are counted together, and what strikes these strikes those.
    pub fn beside(&self, inner: Arc<dyn Files>) -> Self {
        Self { inner, state: self.state.clone() }
    }

    /// Lets the changing operation number `n` (from 0, counted from now) fail.
    pub fn fail_at(&self, n: u64, fault: Fault) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) =
            FaultState { plan: Some((n, fault)), done: 0 };
    }

    /// Whether the fault has struck.
    pub fn struck(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.plan.is_some_and(|(n, _)| state.done > n)
    }

    /// Whether this operation fails: the error, and whether it is the first to do so (and so half done).
    fn next(&self) -> Option<(io::Error, bool)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.done;
        state.done += 1;
        let (n, fault) = state.plan?;
        match fault {
            Fault::Once(kind) if number == n => Some((kind.into(), true)),
            Fault::ForEver(kind) if number >= n => Some((kind.into(), number == n)),
            Fault::Crash if number >= n => Some((io::Error::other("the power is gone"), number == n)),
            _ => None,
        }
    }

    fn change(&self, half: impl FnOnce(), whole: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.next() {
            None => whole(),
            Some((error, first)) => {
                if first {
                    half();
                }
                Err(error)
            }
        }
    }
}

impl Files for FaultyFiles {
    fn write_synced(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let torn = || drop(self.inner.write_synced(path, &bytes[..bytes.len() / 2]));
        self.change(torn, || self.inner.write_synced(path, bytes))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|| {}, || self.inner.rename(from, to))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.change(|| {}, || self.inner.sync_dir(dir))
    }

    fn sync_file(&self, path: &str) -> io::Result<()> {
        self.change(|| {}, || self.inner.sync_file(path))
    }

    fn make_dir(&self, dir: &str) -> io::Result<bool> {
        self.inner.make_dir(dir)
    }

    fn read_exact_at(&self, path: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact_at(path, offset, out)
    }

    fn read_small(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        self.inner.read_small(path, limit)
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        self.inner.len(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<FileEntry>> {
        self.inner.list(dir)
    }

    fn refuse_links(&self, dir: &str) -> io::Result<()> {
        self.inner.refuse_links(dir)
    }

    fn identity(&self, path: &str) -> io::Result<Option<Identity>> {
        self.inner.identity(path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change(|| {}, || self.inner.remove(path))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.change(|| {}, || self.inner.remove_dir(dir))
    }

    fn room(&self) -> io::Result<Room> {
        self.inner.room()
    }

    fn describe(&self, path: &str) -> PathBuf {
        self.inner.describe(path)
    }
}
