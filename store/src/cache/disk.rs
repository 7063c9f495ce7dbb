//! Blocks as files: `XX/PACK-BLOCK` by the id of the pack and its first two digits, with a checksum behind the bytes.
//!
//! The checksum is of the bytes, the pack and the number: a block in the place of another is none. It is verified whenever a block is read, and what is wrong is dropped, so that a torn or damaged cache only costs a
//! fetch. What is here is asked of the file system, so processes that share a directory find what the others put. When a block was
//! used last says the time of its file, across restarts; what goes says [`Room`].

use std::fs::{self, DirEntry, File, Metadata};
use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lru::LruCache;

use super::errands::{Errand, Errands};
use super::room::{Found, Old, Room};
use super::waiting::{Held, Patience, Run, Waiting};
use super::{EXTRA, GRID, Key, PATIENCE};
use crate::clock::{Clock, within};
use crate::id::PackId;
use crate::staging::disk::open_regular;

const CHECKSUM_LEN: usize = EXTRA as usize;
/// What every file may be long.
const FILE_MAX: u64 = GRID + EXTRA;
/// Blocks that are remembered as wrong and still there.
const STUCK: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// A use is marked if the last mark is older than this: it costs a write of the file's inode.
const MARK_EVERY: Duration = Duration::from_secs(60);
/// How the name of a file ends that is being written.
const PART: &str = ".part";
/// One that is older was left by a process that ended early: writing takes a moment.
const PART_KEPT: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct DiskBlocks {
    dir: PathBuf,
    limit: u64,
    clock: Arc<dyn Clock>,
    serial: AtomicU64,
    pub(super) room: Room,
    errands: Errands,
    waiting: Waiting,
    /// Whoever surveys the directory.
    surveyor: Mutex<()>,
    /// Blocks that proved wrong and could not be deleted, in a directory that nobody may write to, say: not to be found again.
    stuck: Mutex<LruCache<Key, ()>>,
    /// Whether the last block could not be written.
    failing: AtomicBool,
    /// Whether the log was told so.
    told: AtomicBool,
    ended: AtomicBool,
    /// Whoever writes a block holds it.
    #[cfg(test)]
    pub(super) hanging: Mutex<()>,
}

impl DiskBlocks {
    pub(super) fn new(dir: &Path, limit: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            dir: dir.to_path_buf(),
            limit,
            waiting: Waiting::new(Arc::clone(&clock)),
            errands: Errands::new(run, Arc::clone(&clock)),
            clock,
            serial: AtomicU64::new(0),
            room: Room::new(limit),
            surveyor: Mutex::default(),
            stuck: Mutex::new(LruCache::new(STUCK)),
            failing: AtomicBool::new(false),
            told: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            #[cfg(test)]
            hanging: Mutex::default(),
        }
    }

    /// One `open` that fails, if it is not here.
    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        self.waiting.get(key).or_else(|| self.get_written(key))
    }

    fn get_written(&self, key: &Key) -> Option<Bytes> {
        if self.stuck().contains(key) {
            return None;
        }
        let read = match open_regular(&self.path(key)) {
            Ok(file) => self.read(key, file),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return None,
            Err(_) => None,
        };
        if read.is_none() {
            self.remove(key);
        }
        read
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.waiting.has(key) || self.is_stored(key)
    }

    pub(super) fn is_stored(&self, key: &Key) -> bool {
        !self.stuck().contains(key)
            && fs::symlink_metadata(self.path(key)).is_ok_and(|meta| may_be_block(&meta))
    }

    pub(super) fn touch(&self, key: &Key) -> bool {
        if !self.has(key) {
            return false;
        }
        // One that waits is used when it is written.
        let _ = open_regular(&self.path(key)).map(|file| self.errands.run(Errand::Mark(file, self.now())));
        true
    }

    /// Has a run of blocks written, soon, unless more than `most` bytes would wait for that.
    pub(super) fn put(self: &Arc<Self>, pack: &PackId, first: u32, bytes: &Bytes, most: u64, held: Held) {
        if self.waiting.is_to_tell() {
            let dir = self.dir.display();
            tracing::warn!(
                "the cache at {dir} does not take what it is given; what is fetched is not kept until it does"
            );
        }
        if self.waiting.put(pack, first, bytes, most, held) {
            let blocks = Arc::clone(self);
            let work = move || {
                while let Some(run) = blocks.waiting.next() {
                    blocks.keep(run);
                }
            };
            if std::thread::Builder::new().name("holdfast-keep".into()).spawn(work).is_err() {
                self.waiting.give_up();
            }
        }
    }

    fn keep(self: &Arc<Self>, run: Run) {
        for key in run.keys() {
            let Some(bytes) = self.waiting.begin(&run, &key) else { continue };
            #[cfg(test)]
            let _hanging = self.hanging.lock().unwrap_or_else(PoisonError::into_inner);
            self.keep_block(&key, &bytes);
            // Somebody may have found it wrong meanwhile.
            if !self.waiting.end(&run, &key) {
                remove(&self.path(&key));
            }
            self.make_room();
        }
        self.waiting.done(run);
    }

    fn keep_block(&self, key: &Key, bytes: &Bytes) {
        if bytes.len() as u64 <= self.limit
            && !self.is_stored(key)
            && let Some(len) = self.note(self.write(key, bytes))
        {
            self.stuck().pop(key);
            self.room.add(len);
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.bytes()
    }

    /// Waits until all that was put is written or failed, as long as patience lasts and nobody says stop; whether that is so.
    pub(super) fn settle(&self, patience: Patience, stopped: &dyn Fn() -> bool) -> bool {
        self.waiting.settle(patience, stopped)
    }

    pub(super) fn remove(&self, key: &Key) {
        self.waiting.remove(key);
        self.stuck().put(*key, ());
        if self.errands.run(Errand::Remove(self.path(key))) {
            self.stuck().pop(key);
        }
    }

    pub(super) fn is_written(&self) -> bool {
        !self.failing.load(Ordering::Relaxed) && !self.waiting.is_stalled()
    }

    /// Counts the bytes that are here, and lets go of what is too much; what is known, if that takes long.
    pub(super) fn count(self: &Arc<Self>) -> u64 {
        let blocks = Arc::clone(self);
        let _ = within(&*self.clock, PATIENCE, move || blocks.survey());
        self.room.held()
    }

    /// Whoever surveys or writes shall not go on.
    pub(super) fn end(&self) {
        self.waiting.stop();
        self.ended.store(true, Ordering::Relaxed);
    }

    fn stuck(&self) -> MutexGuard<'_, LruCache<Key, ()>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, (pack, block): &Key) -> PathBuf {
        let hex = pack.hex();
        self.dir.join(&hex[..2]).join(format!("{hex}-{block}"))
    }

    /// The bytes in a block's file, which is marked as used; nothing if they are not what was put.
    fn read(&self, key: &Key, file: File) -> Option<Bytes> {
        let meta = file.metadata().ok().filter(may_be_block)?;
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        (&file).take(FILE_MAX).read_to_end(&mut bytes).ok()?;
        let now = self.now();
        if nanos(now).saturating_sub(self.used(&meta)) >= nanos_of(MARK_EVERY) {
            self.errands.leave(Errand::Mark(file, now));
        }
        check(key, bytes)
    }

    fn write(&self, key: &Key, bytes: &Bytes) -> std::io::Result<u64> {
        let path = self.path(key);
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let temp = path.with_extension(format!("{}-{serial}{PART}", std::process::id()));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut whole = Vec::with_capacity(bytes.len() + CHECKSUM_LEN);
        whole.extend_from_slice(bytes);
        whole.extend_from_slice(&checksum(key, bytes));
        write_private(&temp, &whole, self.now())
            .and_then(|()| fs::rename(&temp, &path))
            .inspect_err(|_| drop(fs::remove_file(&temp)))?;
        Ok(whole.len() as u64)
    }

    /// What was written, noting whether it was.
    fn note(&self, written: std::io::Result<u64>) -> Option<u64> {
        self.failing.store(written.is_err(), Ordering::Relaxed);
        let told = |e: &_| {
            if !self.told.swap(true, Ordering::Relaxed) {
                tracing::warn!("cache: {e}; what is fetched from vaults is not kept until it can be written");
            }
        };
        written.inspect_err(told).ok()
    }

    fn now(&self) -> SystemTime {
        let now = self.clock.now();
        SystemTime::UNIX_EPOCH + Duration::new(now.seconds.try_into().unwrap_or(0), now.nanos)
    }

    /// When a block was used, in nanoseconds since 1970. What is said to be used later than now a wrong clock said: it goes first,
    /// unless it is used again.
    fn used(&self, meta: &Metadata) -> u64 {
        meta.modified().ok().filter(|used| *used <= self.now()).map_or(0, nanos)
    }

    /// Lets go of what is noted to go, as long as there is too much, and has the directory surveyed when that is due.
    fn make_room(self: &Arc<Self>) {
        self.let_go();
        if self.room.claim_survey() {
            let blocks = Arc::clone(self);
            let survey = move || blocks.survey();
            if std::thread::Builder::new().name("holdfast-cache".into()).spawn(survey).is_err() {
                // The next block asks again.
                self.room.end_survey(None);
            }
        }
    }

    /// Surveys the directory and lets go of what is too much; again, as long as that was more than could be noted.
    fn survey(&self) {
        let _alone = self.surveyor.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found = self.look_through(self.room.begin_survey());
            self.room.end_survey(found);
            if self.let_go() == 0 || !self.room.is_over() {
                return;
            }
        }
    }

    /// Adds all blocks that are here, one directory after the other; nothing if nobody wants to know any more.
    fn look_through(&self, mut found: Found) -> Option<Found> {
        for shard in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let Ok(entries) = fs::read_dir(shard.path()) else { continue };
            for entry in entries.flatten() {
                if self.ended.load(Ordering::Relaxed) {
                    return None;
                }
                self.look_at(&entry, &mut found);
            }
        }
        Some(found)
    }

    /// Adds a block, or removes what is none in the place of one. What lies elsewhere is nobody's, whatever its name: who took it for
    /// the block would let go of the block.
    fn look_at(&self, entry: &DirEntry, found: &mut Found) {
        let (name, Ok(meta)) = (entry.file_name(), entry.metadata()) else { return };
        let name = name.to_string_lossy();
        let Some(key) = name.split('.').next().and_then(parse_name) else { return };
        let (path, place) = (entry.path(), self.path(&key));
        let is_odd = match path == place {
            // Whatever it is, its length says nothing of the room that is left.
            true => !may_be_block(&meta),
            false if path.parent() != place.parent() => return,
            false => name.ends_with(PART) && self.is_left_over(&meta),
        };
        if is_odd {
            let _ = fs::remove_file(path);
        } else if path == place {
            let len = meta.len().try_into().unwrap_or(u32::MAX);
            found.add(Old { used: self.used(&meta), key, len });
        }
    }

    /// Whether nobody writes a file any more that is not finished.
    fn is_left_over(&self, meta: &Metadata) -> bool {
        let age = meta.modified().ok().and_then(|written| self.now().duration_since(written).ok());
        age.is_some_and(|age| age > PART_KEPT)
    }

    /// How many blocks went.
    pub(super) fn let_go(&self) -> u64 {
        let mut gone = 0;
        while !self.ended.load(Ordering::Relaxed)
            && let Some(old) = self.room.next_to_go()
        {
            let now = fs::metadata(self.path(&old.key));
            if now.is_ok_and(|meta| self.used(&meta) != old.used) {
                continue;
            }
            // What is gone already is not counted: a survey that finds no more to let go of ends.
            gone += u64::from(fs::remove_file(self.path(&old.key)).is_ok());
            // One that cannot be deleted is counted with the next survey, and let go of in vain once each time.
            self.room.sub(old.len);
        }
        gone
    }
}

/// Others may own a block that was used: then it goes by when they used it.
fn run(errand: Errand) -> bool {
    match errand {
        Errand::Mark(file, used) => file.set_modified(used).is_ok(),
        Errand::Remove(path) => remove(&path),
    }
}

/// Whether a block's file is gone.
fn remove(path: &Path) -> bool {
    fs::remove_file(path).map_or_else(|e| e.kind() == ErrorKind::NotFound, |()| true)
}

/// Nanoseconds since 1970, until the year 2554.
fn nanos(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, nanos_of)
}

fn nanos_of(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// A new file that nobody else may read: it is sealed, but shows when what was read.
fn write_private(path: &Path, bytes: &[u8], used: SystemTime) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_modified(used)
}

/// Whether a file can be that of a block: nothing else is opened, and no more is read.
fn may_be_block(meta: &Metadata) -> bool {
    meta.is_file() && (EXTRA..=FILE_MAX).contains(&meta.len())
}

fn checksum((pack, block): &Key, bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes).update(&pack.0).update(&block.to_le_bytes());
    let mut sum = [0; CHECKSUM_LEN];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

fn check(key: &Key, mut bytes: Vec<u8>) -> Option<Bytes> {
    let len = bytes.len().checked_sub(CHECKSUM_LEN)?;
    let right = checksum(key, &bytes[..len]) == bytes[len..];
    bytes.truncate(len);
    right.then(|| bytes.into())
}

fn parse_name(name: &str) -> Option<Key> {
    let (pack, block) = name.split_once('-')?;
    Some((PackId::from_hex(pack)?, block.parse().ok()?))
}
