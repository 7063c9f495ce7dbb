//! What reading many chunks would take, known before anything is read: which tier has each, and which requests bring the rest
//! into the cache.
//!
//! Requests are made pack by pack in the order in which the packs were filled, on the grid, joined where blocks touch. So what
//! lies together is fetched together, no block twice, however many chunks share it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ahead::REQUEST_MAX;
use super::budget::Need;
use super::fetch::{Brought, blocks_of};
use super::{PackMap, Reader, Tier};
use crate::cache::{EXTRA, GRID};
use crate::catalog::{PackNo, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{ChunkId, PackId};

/// A block of a pack, by number on the grid.
pub type BlockNo = (PackNo, u32);

/// Chunks that somebody will want to read. Holds a byte for each block and each frame of a pack that has one.
#[derive(Debug)]
pub struct Wanted<'a> {
    reader: &'a Reader,
    packs: BTreeMap<PackNo, PackWanted>,
}

/// Blocks of one pack.
#[derive(Debug)]
struct PackWanted {
    id: PackId,
    len: u64,
    blocks: Vec<Want>,
    /// Whether each frame is wanted.
    frames: Vec<bool>,
}

/// Frames of a pack in which chunks lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    pub(super) pack: PackNo,
    pub(super) frames: Vec<u32>,
}

impl Frames {
    /// The pack.
    pub fn pack(&self) -> PackNo {
        self.pack
    }
}

/// What is wanted of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    /// It is in the cache and shall stay there.
    Stay,
    /// It is to be fetched.
    Come,
}

/// Bytes of a pack that one request brings, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pack: PackNo,
    bytes: Range<u64>,
}

impl Request {
    /// The pack.
    pub fn pack(&self) -> PackNo {
        self.pack
    }

    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    /// How many bytes these take in the cache.
    pub fn cache_len(&self) -> u64 {
        self.len() + blocks_of(&self.bytes).len() as u64 * EXTRA
    }

    /// Whether it brings nothing; none that [`Wanted::requests`] makes does.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The block after its last one, in the order in which requests are made.
    pub fn end(&self) -> BlockNo {
        (self.pack, self.bytes.end.div_ceil(GRID) as u32)
    }
}

impl<'a> Wanted<'a> {
    fn new(reader: &'a Reader) -> Self {
        Self { reader, packs: BTreeMap::new() }
    }

    /// Adds a chunk: the best tier that has it whole, as [`Reader::tier`] says, and the last of the blocks that must come from
    /// a vault. `NotFound` if none has it.
    pub fn add(&mut self, id: &ChunkId) -> Result<(Tier, Option<BlockNo>), StoreError> {
        let tier = self.reader.tier(id)?;
        if matches!(tier, Tier::Memory | Tier::Staging) {
            return Ok((tier, None));
        }
        let (at, map) = self.reader.placed(id)?;
        if !self.packs.contains_key(&at.pack) {
            self.reader.learn_places(at.pack)?;
        }
        let pack = self.packs.entry(at.pack).or_insert_with(|| PackWanted::of(&map));
        let start = u64::from(at.start);
        let mut last = None;
        for n in map.frames_of(start, start + u64::from(at.len)) {
            pack.frames.get_mut(n).into_iter().for_each(|wanted| *wanted = true);
            for block in blocks_of(&map.block_with_fill(n)) {
                let Some(want) = pack.blocks.get_mut(block as usize) else { continue };
                if *want == Want::Nothing {
                    let is_here = self.reader.fetcher.cache().has(&pack.id, block);
                    *want = if is_here { Want::Stay } else { Want::Come };
                }
                if *want == Want::Come {
                    last = Some((at.pack, block));
                }
            }
        }
        Ok((tier, last))
    }

    /// Marks what is in the cache as used now, so that what is fetched pushes out something else; what went meanwhile is to be
    /// fetched as well.
    pub fn touch(&mut self) {
        for pack in self.packs.values_mut() {
            for (n, want) in pack.blocks.iter_mut().enumerate().filter(|(_, want)| **want == Want::Stay) {
                if !self.reader.fetcher.cache().touch(&pack.id, n as u32) {
                    *want = Want::Come;
                }
            }
        }
    }

    /// The requests that bring what only vaults have, in the order of the packs.
    pub fn requests(&self) -> Vec<Request> {
        self.stretches(|want| want == Want::Come)
    }

    /// All that is wanted and not in staging, in the cache or not, as if all of it were to be fetched.
    pub fn all(&self) -> Vec<Request> {
        self.stretches(|want| want != Want::Nothing)
    }

    /// The frames of all that is wanted and not in staging, by pack.
    pub fn frames(&self) -> Vec<Frames> {
        let of_pack = |(no, pack): (&PackNo, &PackWanted)| {
            let wanted = pack.frames.iter().enumerate().filter(|(_, wanted)| **wanted);
            Frames { pack: *no, frames: wanted.map(|(n, _)| n as u32).collect() }
        };
        self.packs.iter().map(of_pack).collect()
    }

    fn stretches(&self, is_wanted: impl Fn(Want) -> bool) -> Vec<Request> {
        let of_pack = |(no, pack): (&PackNo, &PackWanted)| {
            let (no, len) = (*no, pack.len);
            let runs = runs(pack.blocks.iter().map(|want| is_wanted(*want)));
            runs.into_iter().map(move |run| {
                let bytes = range_of(run.start, len).start..range_of(run.end - 1, len).end;
                Request { pack: no, bytes }
            })
        };
        self.packs.iter().flat_map(of_pack).collect()
    }
}

impl PackWanted {
    fn of(map: &PackMap) -> Self {
        let len = map.row.entry.len;
        Self {
            id: map.row.entry.id,
            len,
            blocks: vec![Want::Nothing; len.div_ceil(GRID) as usize],
            frames: vec![false; map.row.entry.frames.len()],
        }
    }
}

fn range_of(block: u32, len: u64) -> Range<u64> {
    let start = u64::from(block) * GRID;
    start..(start + GRID).min(len)
}

/// Stretches of blocks that are wanted, none longer than a request may be.
fn runs(wanted: impl Iterator<Item = bool>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for (n, _) in wanted.enumerate().filter(|(_, wanted)| *wanted) {
        let n = n as u32;
        match runs.last_mut() {
            Some(run) if run.end == n && u64::from(run.end - run.start) * GRID < REQUEST_MAX => run.end += 1,
            _ => runs.push(n..n + 1),
        }
    }
    runs
}

impl Reader {
    /// Begins a list of chunks that somebody will want to read.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted::new(self)
    }

    /// Carries out a request: its bytes come into the cache from the first vault that gives them, but for those that are there
    /// by now. What was brought is added up, whether or not all could be. If no vault gives them, the error is the most telling one.
    pub fn fetch(&self, request: &Request, brought: &mut Brought) -> Result<(), StoreError> {
        let map = self.pack_map(request.pack)?;
        let fetch = |vault| self.fetch_from(vault, &map, &request.bytes, brought);
        self.fetcher.of_any(&map.row.vaults, &map.name, fetch)
    }

    pub(super) fn fetch_from(
        &self,
        vault: VaultNo,
        map: &PackMap,
        bytes: &Range<u64>,
        brought: &mut Brought,
    ) -> Result<(), StoreError> {
        let mut fetch = || self.fetcher.bring(vault, map, bytes.clone(), Need::Now, Deadline::NEVER, brought);
        fetch()?;
        // What was on its way already may have failed.
        self.fetcher.settle(vault, &map.row.entry, bytes);
        fetch()?;
        // It is for whoever comes later; whether it is there then is asked with `is_fetched`.
        self.fetcher.cache().settle(&|| self.fetcher.is_cancelled());
        Ok(())
    }

    /// Whether all bytes of a request are in the cache, for other processes, too.
    pub fn is_fetched(&self, request: &Request) -> Result<bool, StoreError> {
        let map = self.pack_map(request.pack)?;
        Ok(self.fetcher.is_stored(&map.row.entry, &request.bytes))
    }

    /// Whether what is fetched is there for other processes, too: it may be in memory alone, where no directory can be had for it.
    pub fn is_cache_shared(&self) -> bool {
        self.fetcher.cache().is_shared()
    }

    /// Most bytes that the cache may hold.
    pub fn cache_limit(&self) -> u64 {
        self.fetcher.cache().limit()
    }

    /// How many bytes the cache holds. What is above the bound goes now.
    pub fn cache_bytes(&self) -> u64 {
        self.fetcher.cache().bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_touch_are_one_request_of_bounded_length() {
        let of = |wanted: &str| runs(wanted.bytes().map(|c| c == b'x'));
        assert_eq!(of(""), []);
        assert_eq!(of("...."), []);
        assert_eq!(of("xx.x"), [0..2, 3..4]);
        assert_eq!(of(&"x".repeat(40)), [0..16, 16..32, 32..40]);
        assert_eq!(range_of(1, GRID + 10), GRID..GRID + 10);
        assert_eq!(blocks_of(&(GRID - 1..GRID + 1)), 0..2);
    }
}
