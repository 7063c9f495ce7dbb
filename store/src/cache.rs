//! What was fetched from vaults, kept on the local disk within a bound: sealed bytes of packs in blocks of 256 KiB.
//!
//! A block is a file of its own with a checksum behind it, verified when read and dropped when wrong, so that a torn or
//! damaged cache only costs a fetch. Nothing is synced: losing a block loses nothing. The least recently used go first,
//! across restarts by the files' times. Processes share a directory: what one fetched the others find when they miss it, and
//! what one let go the others fetch again. Each keeps its own bound over what it knows of.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use lru::LruCache;

use crate::id::PackId;

/// Vaults are read on this grid: requests do not show where frames and chunks begin.
pub const GRID: u64 = 256 << 10;
const CHECKSUM_LEN: usize = 16;
/// Blocks that are remembered as wrong and still there.
const STUCK: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

type Key = (PackId, u32);

/// Blocks of packs, by pack and number. Shared by all threads.
#[derive(Debug)]
pub struct BlockCache {
    dir: Option<PathBuf>,
    limit: u64,
    state: Mutex<State>,
    serial: AtomicU64,
    /// Whether the last block could not be written.
    failing: AtomicBool,
    /// Whether the log was told so.
    told: AtomicBool,
}

#[derive(Debug)]
struct State {
    blocks: LruCache<Key, Block>,
    bytes: u64,
    /// Blocks that proved wrong and could not be deleted, in a directory that nobody may write to, say: not to be found again.
    stuck: LruCache<Key, ()>,
}

#[derive(Debug)]
enum Block {
    OnDisk(u64),
    InMemory(Bytes),
}

impl Block {
    fn len(&self) -> u64 {
        match self {
            Self::OnDisk(len) => *len,
            Self::InMemory(bytes) => bytes.len() as u64,
        }
    }
}

impl BlockCache {
    /// At most `limit` bytes in memory.
    pub fn in_memory(limit: u64) -> Self {
        Self::with(None, limit)
    }

    /// At most `limit` bytes of files below `dir`, which is made if missing; takes over what an earlier run left there.
    pub fn open(dir: &Path, limit: u64) -> std::io::Result<Self> {
        fs::create_dir_all(dir)?;
        let cache = Self::with(Some(dir.to_path_buf()), limit);
        cache.take_over(dir)?;
        Ok(cache)
    }

    fn with(dir: Option<PathBuf>, limit: u64) -> Self {
        let state = State { blocks: LruCache::unbounded(), bytes: 0, stuck: LruCache::new(STUCK) };
        let (state, serial) = (Mutex::new(state), AtomicU64::new(0));
        Self { dir, limit, state, serial, failing: AtomicBool::new(false), told: AtomicBool::new(false) }
    }

    fn take_over(&self, dir: &Path) -> std::io::Result<()> {
        let mut found = BTreeMap::new();
        for shard in fs::read_dir(dir)?.flatten() {
            let Ok(entries) = fs::read_dir(shard.path()) else { continue };
            for entry in entries.flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                match entry.file_name().to_str().and_then(parse_name) {
                    Some(key) => drop(found.insert((meta.modified().ok(), key), meta.len())),
                    // A temporary file of a run that ended early.
                    None => drop(fs::remove_file(entry.path())),
                }
            }
        }
        for ((_, key), len) in found {
            self.admit(key, Block::OnDisk(len));
        }
        Ok(())
    }

    /// The bytes of a block, if they are here and whole.
    pub fn get(&self, pack: &PackId, block: u32) -> Option<Bytes> {
        let key = (*pack, block);
        if !self.has(pack, block) {
            return None;
        }
        let path = {
            let mut state = self.lock();
            match state.blocks.get(&key)? {
                Block::InMemory(bytes) => return Some(bytes.clone()),
                Block::OnDisk(_) => self.path(&key)?,
            }
        };
        let read = fs::read(&path).ok().and_then(check);
        if read.is_none() {
            self.remove(pack, block);
        }
        read
    }

    /// Whether a block is here, without reading it.
    pub fn has(&self, pack: &PackId, block: u32) -> bool {
        let key = (*pack, block);
        let known = self.lock().blocks.contains(&key);
        known || self.notice(key)
    }

    /// Takes over a block that another process put here. A miss leads to a vault, so that a look at the disk costs nothing.
    fn notice(&self, key: Key) -> bool {
        if self.lock().stuck.contains(&key) {
            return false;
        }
        let found = self.path(&key).and_then(|path| fs::metadata(path).ok());
        let Some(len) = found.map(|meta| meta.len()).filter(|len| *len <= self.limit) else { return false };
        self.admit(key, Block::OnDisk(len));
        true
    }

    /// Keeps a block. Failing to write it is no error: it is then simply not kept, and [`Self::is_kept`] says so.
    pub fn put(&self, pack: &PackId, block: u32, bytes: &Bytes) {
        let key = (*pack, block);
        if bytes.len() as u64 > self.limit || self.has(pack, block) {
            return;
        }
        let kept = match self.path(&key) {
            None => Some(Block::InMemory(bytes.clone())),
            Some(path) => self.note(self.write(&path, bytes)).map(Block::OnDisk),
        };
        if let Some(block) = kept {
            self.lock().stuck.pop(&key);
            self.admit(key, block);
        }
    }

    /// Whether what is put here stays, as far as is known: there is room for more than a block, and the last one could be
    /// written. Who fetches more than he needs asks this before. As each block is tried, it is noticed when that works again.
    pub fn is_kept(&self) -> bool {
        self.limit > GRID && !self.failing.load(Ordering::Relaxed)
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

    /// Drops a block that proved wrong. It is gone from here even if its file cannot be deleted.
    pub fn remove(&self, pack: &PackId, block: u32) {
        let key = (*pack, block);
        let mut state = self.lock();
        if let Some(gone) = state.blocks.pop(&key) {
            state.bytes -= gone.len();
        }
        if !self.unlink(&key) {
            state.stuck.put(key, ());
        }
    }

    /// Most bytes it may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes kept.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, key: Key, block: Block) {
        let mut state = self.lock();
        state.bytes += block.len();
        if let Some(old) = state.blocks.put(key, block) {
            state.bytes -= old.len();
        }
        while state.bytes > self.limit {
            let Some((key, gone)) = state.blocks.pop_lru() else { break };
            state.bytes -= gone.len();
            self.unlink(&key);
        }
    }

    fn path(&self, (pack, block): &Key) -> Option<PathBuf> {
        let hex = pack.hex();
        Some(self.dir.as_ref()?.join(&hex[..2]).join(format!("{hex}-{block}")))
    }

    /// Whether the block's file is gone.
    fn unlink(&self, key: &Key) -> bool {
        let Some(path) = self.path(key) else { return true };
        fs::remove_file(path).map_or_else(|e| e.kind() == ErrorKind::NotFound, |()| true)
    }

    fn write(&self, path: &Path, bytes: &Bytes) -> std::io::Result<u64> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let temp = path.with_extension(format!("{}-{serial}.part", std::process::id()));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut whole = Vec::with_capacity(bytes.len() + CHECKSUM_LEN);
        whole.extend_from_slice(bytes);
        whole.extend_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_LEN]);
        write_private(&temp, &whole)
            .and_then(|()| fs::rename(&temp, path))
            .inspect_err(|_| drop(fs::remove_file(&temp)))?;
        Ok(whole.len() as u64)
    }
}

/// A new file that nobody else may read: it is sealed, but shows when what was read.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

fn check(mut bytes: Vec<u8>) -> Option<Bytes> {
    let len = bytes.len().checked_sub(CHECKSUM_LEN)?;
    let right = blake3::hash(&bytes[..len]).as_bytes()[..CHECKSUM_LEN] == bytes[len..];
    bytes.truncate(len);
    right.then(|| bytes.into())
}

fn parse_name(name: &str) -> Option<Key> {
    let (pack, block) = name.split_once('-')?;
    Some((PackId::from_hex(pack)?, block.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn block(n: u8) -> Bytes {
        vec![n; 1000].into()
    }

    #[test]
    fn the_least_recently_used_block_goes_first_and_what_is_left_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let pack = PackId([3; 32]);
        let cache = BlockCache::open(dir.path(), 3100).unwrap();
        for n in 0..3 {
            cache.put(&pack, n, &block(n as u8));
        }
        assert_eq!(cache.get(&pack, 0), Some(block(0)));
        cache.put(&pack, 3, &block(3));
        assert_eq!(cache.get(&pack, 1), None);
        assert!(cache.bytes() <= 3100);
        drop(cache);
        let again = BlockCache::open(dir.path(), 3100).unwrap();
        assert_eq!(again.get(&pack, 3), Some(block(3)));
        assert_eq!(again.get(&pack, 0), Some(block(0)));
        let smaller = BlockCache::open(dir.path(), 1100).unwrap();
        assert!(smaller.bytes() <= 1100, "a smaller bound holds at once");
    }

    #[test]
    fn what_one_process_fetched_another_finds_and_what_it_let_go_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let pack = PackId([5; 32]);
        let [one, other] = [(); 2].map(|()| BlockCache::open(dir.path(), 3100).unwrap());
        one.put(&pack, 1, &block(1));
        assert!(other.has(&pack, 1) && !other.has(&pack, 2));
        assert_eq!(other.get(&pack, 1), Some(block(1)));
        assert_eq!(other.bytes(), one.bytes());
        (2..5).for_each(|n| one.put(&pack, n, &block(n as u8)));
        assert_eq!(other.get(&pack, 1), None, "the oldest of four went");
        assert_eq!(other.bytes(), 0);
        assert_eq!(other.get(&pack, 4), Some(block(4)));
    }

    #[test]
    fn a_damaged_block_is_dropped_and_never_returned() {
        let dir = tempfile::tempdir().unwrap();
        let pack = PackId([4; 32]);
        let cache = BlockCache::open(dir.path(), 1 << 20).unwrap();
        cache.put(&pack, 9, &block(9));
        let path = cache.path(&(pack, 9)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[500] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(cache.get(&pack, 9), None);
        assert!(!path.exists() && !cache.has(&pack, 9));
    }

    #[test]
    fn a_wrong_block_that_cannot_be_deleted_is_not_found_again_until_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let pack = PackId([4; 32]);
        let cache = BlockCache::open(dir.path(), 1 << 20).unwrap();
        let path = cache.path(&(pack, 9)).unwrap();
        // Neither read, deleted nor replaced, whoever runs this.
        fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(cache.has(&pack, 9));
        assert_eq!(cache.get(&pack, 9), None);
        assert!(!cache.has(&pack, 9) && cache.bytes() == 0);
        cache.put(&pack, 9, &block(9));
        assert!(!cache.has(&pack, 9));
        fs::remove_dir_all(&path).unwrap();
        cache.put(&pack, 9, &block(9));
        assert_eq!(cache.get(&pack, 9), Some(block(9)));
    }

    #[test]
    fn a_cache_that_cannot_be_written_says_so_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let cache = BlockCache::open(&dir.path().join("c"), 1 << 20).unwrap();
        fs::remove_dir(dir.path().join("c")).unwrap();
        fs::write(dir.path().join("c"), "in the way").unwrap();
        assert!(cache.is_kept(), "nothing is known yet");
        cache.put(&PackId([4; 32]), 0, &block(4));
        assert!(!cache.is_kept() && !cache.has(&PackId([4; 32]), 0));
        fs::remove_file(dir.path().join("c")).unwrap();
        cache.put(&PackId([4; 32]), 0, &block(4));
        assert!(cache.is_kept() && cache.has(&PackId([4; 32]), 0));
        assert!(!BlockCache::in_memory(GRID).is_kept(), "the next block would push it out");
    }

    #[test]
    fn a_cache_in_memory_keeps_its_bound_too() {
        let cache = BlockCache::in_memory(2500);
        for n in 0..5 {
            cache.put(&PackId([n; 32]), 0, &block(n));
        }
        assert_eq!(cache.bytes(), 2000);
        assert_eq!(cache.get(&PackId([4; 32]), 0), Some(block(4)));
    }
}
