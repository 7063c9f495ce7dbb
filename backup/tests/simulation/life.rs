//! One life of a machine: from when it is switched on until it crashes, with the disk that it writes to.
//!
//! Objects of staging lie in memory, as on a disk that keeps what was synced and may lose what was not; the catalog and what else is small
//! lie in a directory. A crash is a copy of both at that moment. Whoever still runs finds all doors shut, and what he does no longer counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holdfast_store::id::{Attempt, RecoveryPointId};
use holdfast_store::names::{self, Named};
use holdfast_store::staging::{FileEntry, Files, Identity, Room};
use holdfast_store::vault::{ObjectName, Verb};

use crate::world::{Fate, World};

/// Processes of a machine.
pub const PROCESSES: usize = 2;

/// What a power cut leaves of a disk, and what one that just works shows.
pub type Image = BTreeMap<String, Arc<[u8]>>;

/// A change of names that is not synced yet.
#[derive(Clone, Debug)]
enum Change {
    Made(String),
    Renamed(String, String),
    Removed(String),
}

impl Change {
    /// The directory in which it must be synced.
    fn dir(&self) -> &str {
        match self {
            Self::Made(path) | Self::Removed(path) | Self::Renamed(_, path) => parent(path),
        }
    }

    /// Does it once more, with the bytes as they are now.
    fn again(&self, image: &mut Image, now: &Image) {
        match self {
            Self::Made(path) => drop(now.get(path).map(|bytes| image.insert(path.clone(), bytes.clone()))),
            Self::Removed(path) => drop(image.remove(path)),
            Self::Renamed(from, to) => {
                if let Some(bytes) = image.remove(from).or_else(|| now.get(to).cloned()) {
                    image.insert(to.clone(), bytes);
                }
            }
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

#[derive(Debug, Default)]
struct Disk {
    now: Image,
    synced: Image,
    changes: Vec<Change>,
    dirs: BTreeSet<String>,
}

impl Disk {
    fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    fn sync(&mut self, dir: &str) {
        let changes = std::mem::take(&mut self.changes);
        let (done, left): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.dir() == dir);
        done.iter().for_each(|change| change.again(&mut self.synced, &self.now));
        self.changes = left;
    }
}

/// What is left of a life.
#[derive(Debug)]
pub struct Wreck {
    /// What lay in staging.
    pub image: Image,
    /// Where the rest lies.
    pub dir: PathBuf,
}

/// One life of a machine.
pub struct Life {
    world: Arc<World>,
    machine: usize,
    skew: i64,
    dir: PathBuf,
    disk: Mutex<Disk>,
    over: AtomicBool,
    wreck: Mutex<Option<Wreck>>,
}

/// A process of a machine: what it asks and waits for, and the sessions for which it gives signs of life.
pub struct Process {
    life: Arc<Life>,
    party: usize,
    wasted: AtomicU64,
    sessions: Mutex<BTreeSet<Attempt>>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Process({} of {:?})", self.party, self.life)
    }
}

impl Process {
    /// One that begins.
    pub fn new(life: Arc<Life>, party: usize) -> Arc<Self> {
        Arc::new(Self { life, party, wasted: AtomicU64::new(0), sessions: Mutex::default() })
    }

    /// The life of the machine.
    pub fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// Time that was waited since it was over.
    pub fn wasted(&self) -> Duration {
        Duration::from_nanos(self.wasted.load(Ordering::SeqCst))
    }

    /// Asks something of the vault.
    pub fn ask(&self, verb: Verb, name: &str) -> Fate {
        if self.life.is_over() {
            return Fate::Over;
        }
        self.life.world.ask(self.party, verb, name)
    }

    /// Waits.
    pub fn sleep(&self, time: Duration) {
        if self.life.is_over() || self.life.world.sleep(self.party, time) == Fate::Over {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            self.wasted.fetch_add(nanos, Ordering::SeqCst);
        }
    }

    /// Takes note of sessions, which give signs of life as long as it lives.
    pub fn has_put(&self, name: &ObjectName) {
        if let Some(Named::Session(attempt) | Named::Heartbeat(attempt, _)) = Named::parse(name.as_str()) {
            self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt);
        }
    }

    /// Its sessions.
    pub fn sessions(&self) -> Vec<Attempt> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Life({} in {})", self.machine, self.dir.display())
    }
}

impl Life {
    /// A machine begins with what it finds.
    pub fn new(world: Arc<World>, machine: usize, skew: i64, dir: PathBuf, image: Image) -> Arc<Self> {
        let disk = Disk { synced: image.clone(), now: image, ..Disk::default() };
        Arc::new(Self {
            world,
            machine,
            skew,
            dir,
            disk: Mutex::new(disk),
            over: AtomicBool::new(false),
            wreck: Mutex::default(),
        })
    }

    /// The world.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Seconds by which its clock is another than the vault's.
    pub fn skew(&self) -> i64 {
        self.skew
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is left of it, if it crashed.
    pub fn wreck(&self) -> Option<Wreck> {
        self.wreck.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether it crashed.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What makes it a store lies in its directory and belongs to staging.
    pub fn take_control_in(&self) -> io::Result<()> {
        let store = self.dir.join("store");
        let mut found = vec![("config".to_owned(), std::fs::read(store.join("config"))?)];
        for entry in std::fs::read_dir(store.join("keys"))? {
            let entry = entry?;
            found.push((format!("keys/{}", entry.file_name().display()), std::fs::read(entry.path())?));
        }
        let mut disk = self.disk();
        for (path, bytes) in found {
            let bytes: Arc<[u8]> = bytes.into();
            disk.now.insert(path.clone(), bytes.clone());
            disk.synced.insert(path, bytes);
        }
        Ok(())
    }

    /// Points that lie in staging.
    pub fn points(&self) -> Vec<RecoveryPointId> {
        let disk = self.disk();
        let names = disk.now.keys().filter_map(ObjectName::new);
        names.filter_map(|name| Some(names::point_of(&name)?.1)).collect()
    }

    /// What lies in staging.
    pub fn objects(&self) -> Vec<(ObjectName, Bytes)> {
        let disk = self.disk();
        let object = |(path, bytes): (&String, &Arc<[u8]>)| {
            Some((ObjectName::new(path)?, Bytes::copy_from_slice(bytes)))
        };
        disk.now.iter().filter_map(object).collect()
    }

    /// An object that lies there.
    pub fn object(&self, path: &str) -> Option<Arc<[u8]>> {
        self.disk().now.get(path).cloned()
    }

    /// An object is another from now on, or gone, and nobody is told.
    pub fn rot(&self, path: &str, becomes: Option<&[u8]>) {
        let mut disk = self.disk();
        let Disk { now, synced, .. } = &mut *disk;
        for image in [now, synced] {
            if image.remove(path).is_some() {
                image.extend(becomes.map(|bytes| (path.to_owned(), bytes.into())));
            }
        }
    }

    /// The machine crashes.
    pub fn crash(&self) {
        self.crash_with(&self.disk());
    }

    fn crash_with(&self, disk: &Disk) {
        if self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        let is_cut = self.world.happens(self.world.swarm().power_cut);
        let mut image = if is_cut { disk.synced.clone() } else { disk.now.clone() };
        if is_cut {
            // What was not synced may be there or not, each for itself.
            for change in &disk.changes {
                if self.world.below(2) == 0 {
                    change.again(&mut image, &disk.now);
                }
            }
        }
        let lost = disk.now.keys().filter(|path| !image.contains_key(*path)).count();
        self.world.tell(|| format!("{} crashes, power cut {is_cut}, {lost} names lost", self.machine));
        let dir = self.dir.with_extension("wreck");
        copy(&self.dir, &dir).expect("a directory in memory can be copied");
        *self.wreck.lock().unwrap_or_else(PoisonError::into_inner) = Some(Wreck { image, dir });
        self.world.shut(self.machine * PROCESSES..(self.machine + 1) * PROCESSES);
    }

    /// Whether a change of a file goes well. The disk is locked meanwhile.
    fn begin_change(&self, disk: &Disk, what: &str, path: &str) -> io::Result<()> {
        let gone = || io::Error::other("the power is gone");
        if self.is_over() {
            return Err(gone());
        }
        let swarm = self.world.swarm();
        if self.world.happens(swarm.crash_at_file) {
            self.crash_with(disk);
            return Err(gone());
        }
        if self.world.happens(swarm.file_error) {
            let kind = if self.world.below(2) == 0 { ErrorKind::StorageFull } else { ErrorKind::Other };
            self.world.tell(|| format!("{} cannot {what} {}: {kind}", self.machine, known(path)));
            return Err(kind.into());
        }
        Ok(())
    }
}

/// The ballast is there, and takes no room.
const BALLAST: &str = "ballast";

impl Files for Life {
    fn write_synced(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let begun = self.begin_change(&disk, "write", path);
        if self.is_over() {
            return begun;
        }
        if disk.now.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let len = if begun.is_ok() { bytes.len() } else { bytes.len() / 2 };
        disk.now.insert(path.into(), bytes[..len].into());
        disk.change(Change::Made(path.into()));
        begun
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        self.begin_change(&disk, "rename", to)?;
        let bytes = disk.now.remove(from).ok_or(ErrorKind::NotFound)?;
        disk.now.insert(to.into(), bytes);
        disk.change(Change::Renamed(from.into(), to.into()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut disk = self.disk();
        self.begin_change(&disk, "sync", dir)?;
        disk.sync(dir);
        Ok(())
    }

    fn sync_file(&self, path: &str) -> io::Result<()> {
        let disk = self.disk();
        self.begin_change(&disk, "sync", path)?;
        disk.now.get(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn make_dir(&self, dir: &str) -> io::Result<bool> {
        Ok(self.disk().dirs.insert(dir.into()))
    }

    fn read_exact_at(&self, path: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk();
        let bytes = disk.now.get(path).ok_or(ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        out.copy_from_slice(
            bytes.get(start..start.saturating_add(out.len())).ok_or(ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    }

    fn read_small(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk().now.get(path).map(|bytes| bytes[..bytes.len().min(limit)].to_vec()))
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        if path == BALLAST {
            return Ok(Some(4 << 20));
        }
        Ok(self.disk().now.get(path).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<FileEntry>> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let disk = self.disk();
        let mut found = BTreeMap::new();
        for (path, bytes) in disk.now.range(prefix.clone()..) {
            let Some(rest) = path.strip_prefix(&prefix) else { break };
            match rest.split_once('/') {
                None => found.insert(rest.to_owned(), Some(bytes.len() as u64)),
                Some((name, _)) => found.insert(name.to_owned(), None),
            };
        }
        Ok(found.into_iter().map(|(name, len)| FileEntry { name, len }).collect())
    }

    fn refuse_links(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn identity(&self, _: &str) -> io::Result<Option<Identity>> {
        Ok(None)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut disk = self.disk();
        self.begin_change(&disk, "remove", path)?;
        disk.now.remove(path).ok_or(ErrorKind::NotFound)?;
        disk.change(Change::Removed(path.into()));
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        if !self.list(dir)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.disk().dirs.remove(dir).then_some(()).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn let_go(&self, _: &str, _: Range<u64>) {}

    fn room(&self) -> io::Result<Room> {
        Ok(Room { free: 1 << 40, total: 1 << 41, disk: 1, refuses: None })
    }

    fn describe(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("machine {}", self.machine)).join(known(path))
    }
}

/// Temporary names are made of the system's chance.
fn known(path: &str) -> &str {
    path.strip_prefix("tmp/").map_or(path, |_| "tmp")
}

/// Copies a directory of small files, without what only running processes share.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false if entry.file_name().as_encoded_bytes().ends_with(b"-shm") => {}
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
