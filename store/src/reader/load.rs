//! How a frame comes into memory: from the first tier that gives it whole, of those that there is patience for.

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::fetch::{Last, blocks_of};
use super::frames::Frame;
use super::pack_map::PackMap;
use super::{Reader, Tier};
use crate::cache::GRID;
use crate::catalog::VaultNo;
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};

/// How far a read may go, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// If this is nearer than [`Tier::Vault`], no vault is waited for: what only a vault has is refused with
    /// [`StoreError::Timeout`]. With [`Tier::Memory`] nothing is waited for that a disk could hold up: neither the catalog, nor
    /// whoever decodes.
    pub farthest: Tier,
    /// When the answer is no longer wanted.
    pub deadline: Deadline,
}

impl From<Deadline> for Limits {
    fn from(deadline: Deadline) -> Self {
        Self { farthest: Tier::Vault, deadline }
    }
}

impl Limits {
    /// Whether a vault may be waited for.
    pub(super) fn may_wait(&self) -> bool {
        self.farthest == Tier::Vault
    }
}

/// Of two failures the one that says what can be done. A vault that does not answer may have whole what another place lost.
pub(super) fn more_telling(first: Option<StoreError>, other: StoreError) -> StoreError {
    match first {
        Some(first) if first.is_vault_away() || !other.is_vault_away() => first,
        _ => other,
    }
}

impl Reader {
    /// The first of these frames; the others are wanted next, so that one request to a vault brings them, too. If it comes from the cache,
    /// `last` is the block that was read last there, and hands it on: frames that follow one another share one.
    pub(super) fn frame(
        &self,
        map: &PackMap,
        wanted: Range<usize>,
        limits: Limits,
        last: &mut Last,
    ) -> Result<Frame, StoreError> {
        let key = (map.row.entry.id, wanted.start as u32);
        if limits.farthest == Tier::Memory {
            return self.frames.get(&key).ok_or_else(StoreError::not_in_memory);
        }
        self.frames.get_or_load(key, limits, &*self.clock, || {
            let failed = match self.load_frame(map, &wanted, limits, last) {
                Err(e @ (StoreError::Timeout { .. } | StoreError::Cancelled)) if limits.may_wait() => {
                    return Err(e);
                }
                Err(e) => e,
                frame => return frame,
            };
            // It may have moved since it was looked up: another process puts packs into vaults and frees them in staging.
            match self.catalog.pack(map.row.no) {
                Ok(Some(row)) if row.entry == map.row.entry && row != map.row => {
                    self.packs.lock().unwrap_or_else(PoisonError::into_inner).pop(&map.row.no);
                    self.load_frame(&PackMap::new(row), &wanted, limits, last)
                }
                _ => Err(failed),
            }
        })
    }

    /// Decodes the first of these frames from the first tier that has it whole.
    fn load_frame(
        &self,
        map: &PackMap,
        wanted: &Range<usize>,
        limits: Limits,
        last: &mut Last,
    ) -> Result<Bytes, StoreError> {
        let n = wanted.start;
        let staged_error = match map.row.staged.then(|| self.load_staged(map, n)) {
            Some(Ok(frame)) => return Ok(frame),
            Some(Err(e)) => Some(e),
            None => None,
        };
        let elsewhere = match limits.may_wait() {
            true => self.load_from_vaults(map, wanted, limits.deadline),
            false => self.load_cached(map, n, last),
        };
        let frame = match elsewhere {
            Ok(frame) => frame,
            // It is not lost as long as a vault may have it.
            Err(e @ StoreError::Timeout { .. }) if !limits.may_wait() => return Err(e),
            Err(e) => return Err(more_telling(staged_error, e)),
        };
        if let Some(e) = staged_error {
            if !map.told.swap(true, Ordering::Relaxed) {
                tracing::warn!("{}: {e}; read from another tier instead", map.name);
            }
            self.counters.failovers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(frame)
    }

    /// From the first vault that gives it whole. While there is another the first answers soon or is left; only when all
    /// failed is it waited for. Who has a deadline waits for one that is away but once, and briefly.
    fn load_from_vaults(
        &self,
        map: &PackMap,
        wanted: &Range<usize>,
        deadline: Deadline,
    ) -> Result<Bytes, StoreError> {
        let (mut to_ask, mut left) = (map.row.vaults.len(), Vec::new());
        let soon = self.fetcher.of_any(&map.row.vaults, &map.name, |vault| {
            let share = self.fetcher.share(vault, to_ask, deadline);
            let is_hurried = deadline.left(&*self.clock).is_some() && self.fetcher.is_away(vault);
            to_ask -= 1;
            self.load_from_vault(map, wanted, vault, share).inspect_err(|e| {
                if e.class() == ErrorClass::Unavailable && to_ask > 0 && !is_hurried {
                    left.push(vault);
                }
            })
        });
        let later =
            || left.into_iter().find_map(|vault| self.load_from_vault(map, wanted, vault, deadline).ok());
        soon.or_else(|e| later().ok_or(e))
    }

    /// From what was fetched before, if it opens.
    fn load_cached(&self, map: &PackMap, n: usize, last: &mut Last) -> Result<Bytes, StoreError> {
        let sealed = self.fetcher.cached(&map.row.entry, &map.block_of(n), last);
        let opened = sealed.and_then(|mut sealed| self.open_frame(map, n, &mut sealed).ok());
        opened.ok_or_else(|| match map.row.vaults.is_empty() {
            true => StoreError::NotFound { what: format!("pack {}", map.row.entry.id) },
            false => StoreError::Timeout { what: format!("{}, which is not here", map.name) },
        })
    }

    pub(super) fn load_staged(&self, map: &PackMap, n: usize) -> Result<Bytes, StoreError> {
        let block = map.block_of(n);
        let mut sealed = self.spares.sealed.take();
        let opened = self
            .staging
            .read_into(&map.name, block.start, (block.end - block.start) as usize, &mut sealed)
            .and_then(|()| self.open_frame(map, n, &mut sealed));
        self.spares.sealed.give_back(sealed);
        opened
    }

    fn load_from_vault(
        &self,
        map: &PackMap,
        wanted: &Range<usize>,
        vault: VaultNo,
        deadline: Deadline,
    ) -> Result<Bytes, StoreError> {
        let n = wanted.start;
        let block = map.block_of(n);
        let entry = &map.row.entry;
        // A vault that has little time is asked for no more than is needed, and so is any if nothing more can be kept.
        let more = match self.fetcher.ahead_from(&[vault]) {
            Some((_, in_time)) if !deadline.half_passed(&*self.clock) => {
                let rest = blocks_of(&(block.start..map.blocks[wanted.end])).end - blocks_of(&block).end;
                self.ahead.request_len(map.row.no, in_time).max(u64::from(rest) * GRID)
            }
            _ => 0,
        };
        let fetched = self.fetcher.fetch(vault, &map.name, entry, block.clone(), more, deadline);
        let opened = fetched.and_then(|(mut sealed, waited)| {
            if waited {
                self.ahead.waited(map.row.no);
            }
            self.open_frame(map, n, &mut sealed)
        });
        match opened {
            Err(StoreError::Corrupt { .. }) => {
                // The cache or the way from the vault may have flipped a bit: once more, past the cache.
                self.fetcher.forget(entry, &block);
                let (mut sealed, _) =
                    self.fetcher.fetch(vault, &map.name, entry, block.clone(), 0, deadline)?;
                self.open_frame(map, n, &mut sealed)
                    .inspect_err(|_| self.fetcher.gave_wrong_bytes(vault, entry, &block))
            }
            other => other,
        }
    }

    /// The content of a sealed frame, which is decrypted where it stands.
    pub(super) fn open_frame(&self, map: &PackMap, n: usize, sealed: &mut [u8]) -> Result<Bytes, StoreError> {
        let entry = &map.row.entry;
        let expected = entry.frames[n].raw_len as usize;
        let mut content = self.spares.frames.take_for(expected);
        self.sealer
            .open_in_place(&entry.place(map.blocks[n]), sealed, expected, &mut content)
            .map_err(|e| e.of(format!("pack {}, frame {n}", entry.id)))?;
        if content.len() != expected {
            return Err(StoreError::corrupt(
                format!("pack {}, frame {n}", entry.id),
                "its content is too short",
            ));
        }
        self.counters.frames_decoded.fetch_add(1, Ordering::Relaxed);
        Ok(self.spares.frames.lend(content))
    }
}
