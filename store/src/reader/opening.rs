//! Whether what was fetched opens: each frame is decoded from the cache and thrown away.
//!
//! A file in the cache says that bytes came, not that they are the right ones. What does not open is fetched again, from each vault
//! that has the pack, until it does.

use super::fetch::Last;
use super::pack_map::PackMap;
use super::wanted::Frames;
use super::{Brought, Reader};
use crate::error::{ErrorClass, StoreError};

/// Frames of a pack that no vault gives whole.
#[derive(Debug)]
pub struct Damaged {
    /// What is wrong with the first of them.
    pub first: StoreError,
    /// How many there are.
    pub frames: u64,
}

impl Reader {
    /// Opens these frames, as far as they are in the cache, while `go_on` says so. What had to be fetched again is added to
    /// `brought`. The error is that of a vault which cannot be asked, or of a cache that does not keep what is brought.
    pub fn open_fetched(
        &self,
        frames: &Frames,
        brought: &mut Brought,
        go_on: impl Fn() -> bool,
    ) -> Result<Option<Damaged>, StoreError> {
        let map = self.pack_map(frames.pack)?;
        let (mut damaged, mut last): (Option<Damaged>, Last) = (None, None);
        for n in frames.frames.iter().map(|n| *n as usize).take_while(|_| go_on()) {
            match self.open_one(&map, n, &mut last, brought) {
                Ok(()) => {}
                Err(first) if matches!(first.class(), ErrorClass::Corrupt | ErrorClass::NotFound) => {
                    damaged.get_or_insert(Damaged { first, frames: 0 }).frames += 1;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(damaged)
    }

    fn open_one(
        &self,
        map: &PackMap,
        n: usize,
        last: &mut Last,
        brought: &mut Brought,
    ) -> Result<(), StoreError> {
        let (pack, block) = (&map.row.entry, map.block_of(n));
        // What did not come, or went, is told of elsewhere.
        if !self.fetcher.is_cached(pack, &block) || self.open_cached(map, n, last).is_ok() {
            return Ok(());
        }
        self.fetcher.of_any(&map.row.vaults, &map.name, |vault| {
            *last = None;
            self.fetcher.forget(pack, &block);
            self.fetch_from(vault, map, &block, brought)?;
            // That says nothing of the vault.
            if self.fetcher.cached(pack, &block, last).is_none() {
                return Err(StoreError::NotKept);
            }
            self.open_cached(map, n, last).inspect_err(|_| self.fetcher.gave_wrong_bytes(vault, pack, &block))
        })
    }

    fn open_cached(&self, map: &PackMap, n: usize, last: &mut Last) -> Result<(), StoreError> {
        let mut sealed = self.fetcher.cached(&map.row.entry, &map.block_of(n), last).ok_or_else(|| {
            StoreError::corrupt(
                format!("pack {}, frame {n}", map.row.entry.id),
                "it is shorter than it should be",
            )
        })?;
        self.open_frame(map, n, &mut sealed).map(drop)
    }
}
