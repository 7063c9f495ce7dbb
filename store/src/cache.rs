//! What was fetched from vaults, kept within a bound: sealed bytes of packs in blocks of 256 KiB, as files that processes share
//! (`disk`), or in memory where there is no disk for them (`memory`).
//!
//! Losing a block loses nothing: it is fetched again. So nothing is synced, and nothing that fails here is an error.

mod disk;
mod errands;
mod memory;
mod room;
mod waiting;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Clock, within};
use crate::id::PackId;
use disk::DiskBlocks;
use memory::MemoryBlocks;
pub use waiting::Held;
use waiting::Patience;

/// Vaults are read on this grid: requests do not show where frames and chunks begin.
pub const GRID: u64 = 256 << 10;

/// What a block takes on disk beside its bytes.
pub const EXTRA: u64 = 16;

/// Who must have what he put on the disk does not wait longer than this for a block to be written.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whoever closes a cache waits no longer than this for all of them, and nobody longer for anything else that is to be written.
const A_MOMENT: Duration = Duration::from_secs(3);

/// A pack, and the number of a block in it.
type Key = (PackId, u32);

/// Blocks of packs, by pack and number. Shared by all threads.
#[derive(Debug)]
pub struct BlockCache {
    limit: u64,
    blocks: Blocks,
}

#[derive(Debug)]
enum Blocks {
    InMemory(MemoryBlocks),
    OnDisk(Arc<DiskBlocks>),
}

impl BlockCache {
    /// At most `limit` bytes in memory.
    pub fn in_memory(limit: u64) -> Self {
        Self { limit, blocks: Blocks::InMemory(MemoryBlocks::new(limit)) }
    }

    /// About `limit` bytes of files below `dir`, which is made if missing. What an earlier run or another process left there is
    /// found when it is asked for; opening looks at none of it. A smaller bound than before holds when an eighth of it was put, or more was than it allows.
    ///
    /// Where the directory is there nothing is written: its disk may take no writes, which keeps nobody from reading.
    pub fn open(dir: &Path, limit: u64, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Self::open_with(dir, limit, clock, |dir| std::fs::create_dir_all(dir))
    }

    fn open_with(
        dir: &Path,
        limit: u64,
        clock: Arc<dyn Clock>,
        make: impl FnOnce(&Path) -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<Self> {
        if !dir.is_dir() {
            let path = dir.to_path_buf();
            let made = within(&*clock, A_MOMENT, move || make(&path));
            made.unwrap_or_else(|| Err(std::io::Error::other("its disk takes no writes")))?;
        }
        Ok(Self { limit, blocks: Blocks::OnDisk(Arc::new(DiskBlocks::new(dir, limit, clock))) })
    }

    /// The bytes of a block, if they are here and whole.
    pub fn get(&self, pack: &PackId, block: u32) -> Option<Bytes> {
        let key = (*pack, block);
        match &self.blocks {
            Blocks::InMemory(blocks) => blocks.get(&key),
            Blocks::OnDisk(blocks) => blocks.get(&key),
        }
    }

    /// Whether a block is here, without reading it. It may have to look at the disk.
    pub fn has(&self, pack: &PackId, block: u32) -> bool {
        let key = (*pack, block);
        match &self.blocks {
            Blocks::InMemory(blocks) => blocks.has(&key),
            Blocks::OnDisk(blocks) => blocks.has(&key),
        }
    }

    /// Marks a block as used now, without reading it; whether it is here.
    pub fn touch(&self, pack: &PackId, block: u32) -> bool {
        let key = (*pack, block);
        match &self.blocks {
            Blocks::InMemory(blocks) => blocks.get(&key).is_some(),
            Blocks::OnDisk(blocks) => blocks.touch(&key),
        }
    }

    /// Keeps the blocks of a stretch of a pack, `first` and those after it. On disk they are written by another thread, and are here at once; but not
    /// if more than `most` bytes would then wait for that. `held` is dropped when they do not wait any more. Failing to write them is no error: they are then simply not kept, and [`Self::is_kept`] says so.
    pub fn put(&self, pack: &PackId, first: u32, bytes: &Bytes, most: u64, held: Held) {
        match &self.blocks {
            Blocks::InMemory(blocks) => {
                let starts = (0..bytes.len()).step_by(GRID as usize);
                for (n, at) in (first..).zip(starts) {
                    blocks.put((*pack, n), &bytes[at..(at + GRID as usize).min(bytes.len())]);
                }
            }
            Blocks::OnDisk(blocks) => blocks.put(pack, first, bytes, most, held),
        }
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> u64 {
        match &self.blocks {
            Blocks::InMemory(_) => 0,
            Blocks::OnDisk(blocks) => blocks.waiting(),
        }
    }

    /// Waits until what was put is written or could not be, as long as the disk takes something from time to time and nobody says stop; whether
    /// that is so.
    pub fn settle(&self, stopped: &dyn Fn() -> bool) -> bool {
        self.wait(Patience::PerBlock(PATIENCE), stopped)
    }

    /// The same for whoever is done and goes: a moment, however much waits.
    pub(crate) fn close(&self, stopped: &dyn Fn() -> bool) -> bool {
        self.wait(Patience::InAll(A_MOMENT), stopped)
    }

    fn wait(&self, patience: Patience, stopped: &dyn Fn() -> bool) -> bool {
        match &self.blocks {
            Blocks::InMemory(_) => true,
            Blocks::OnDisk(blocks) => blocks.settle(patience, stopped),
        }
    }

    /// Whether a block is here for others, too, and does not only wait to be written.
    pub fn is_stored(&self, pack: &PackId, block: u32) -> bool {
        let key = (*pack, block);
        match &self.blocks {
            Blocks::InMemory(blocks) => blocks.has(&key),
            Blocks::OnDisk(blocks) => blocks.is_stored(&key),
        }
    }

    /// Keeps a block, and waits until it is written.
    #[cfg(test)]
    pub(crate) fn put_and_settle(&self, pack: &PackId, block: u32, bytes: &Bytes) {
        self.put(pack, block, bytes, u64::MAX, Arc::new(()));
        assert!(self.settle(&|| false));
    }

    /// Drops a block that proved wrong. It is gone from here even if its file cannot be deleted.
    pub fn remove(&self, pack: &PackId, block: u32) {
        let key = (*pack, block);
        match &self.blocks {
            Blocks::InMemory(blocks) => blocks.remove(&key),
            Blocks::OnDisk(blocks) => blocks.remove(&key),
        }
    }

    /// Whether what is put here stays, as far as is known: there is room for more than a block, and the last one could be
    /// written. Who fetches more than he needs asks this before. As each block is tried, it is noticed when that works again.
    pub fn is_kept(&self) -> bool {
        let written = match &self.blocks {
            Blocks::InMemory(_) => true,
            Blocks::OnDisk(blocks) => blocks.is_written(),
        };
        self.limit > GRID && written
    }

    /// Whether it outlives this process, and others find what is in it.
    pub fn is_shared(&self) -> bool {
        matches!(self.blocks, Blocks::OnDisk(_))
    }

    /// How often a block in memory was asked for.
    #[cfg(test)]
    pub(crate) fn gets(&self) -> u64 {
        if let Blocks::InMemory(blocks) = &self.blocks { blocks.gets() } else { 0 }
    }

    /// Whoever asks for a block in memory waits until what this gives is dropped, as if it lay on a disk that hangs.
    #[cfg(test)]
    pub(crate) fn hang(&self) -> impl Sized {
        if let Blocks::InMemory(blocks) = &self.blocks { Some(blocks.hang()) } else { None }
    }

    /// A disk takes no block until what this gives is dropped.
    #[cfg(test)]
    pub(crate) fn hang_writes(&self) -> impl Sized {
        let Blocks::OnDisk(blocks) = &self.blocks else { return None };
        Some(blocks.hanging.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Most bytes it may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes kept. On disk they are counted now, which takes seconds for hundreds of thousands, and what is above the bound goes; where that
    /// takes longer than half a minute it is what is known.
    pub fn bytes(&self) -> u64 {
        match &self.blocks {
            Blocks::InMemory(blocks) => blocks.bytes(),
            Blocks::OnDisk(blocks) => blocks.count(),
        }
    }
}

impl Drop for BlockCache {
    fn drop(&mut self) {
        if let Blocks::OnDisk(blocks) = &self.blocks {
            blocks.end();
        }
    }
}
