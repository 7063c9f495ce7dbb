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
use crate::cache::GRID;
use crate::catalog::{PackNo, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::ChunkId;

/// A block of a pack, by number on the grid.
pub type BlockNo = (PackNo, u32);

/// Chunks that somebody will want to read. Holds a bit for each block of a pack that must be fetched.
#[derive(Debug)]
pub struct Wanted<'a> {
    reader: &'a Reader,
    packs: BTreeMap<PackNo, PackWanted>,
}

/// Blocks of one pack.
#[derive(Debug)]
struct PackWanted {
    len: u64,
    /// Whether each is to be fetched.
    blocks: Vec<bool>,
}

/// Bytes of a pack that one request brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pack: PackNo,
    bytes: Range<u64>,
}

impl Request {
    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
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
        if tier != Tier::Vault {
            return Ok((tier, None));
        }
        let at = self.reader.find(id)?;
        let map = self.reader.map_of(id, &at, Deadline::NEVER)?;
        if !self.packs.contains_key(&at.pack) {
            self.reader.learn_places(at.pack)?;
        }
        let pack = self.packs.entry(at.pack).or_insert_with(|| PackWanted::of(&map));
        let start = u64::from(at.start);
        let mut last = None;
        for n in map.frames_of(start, start + u64::from(at.len)) {
            for block in blocks_of(&map.block_of(n)) {
                if self.reader.fetcher.is_cached(&map.row.entry, &range_of(block, pack.len)) {
                    continue;
                }
                if let Some(wanted) = pack.blocks.get_mut(block as usize) {
                    *wanted = true;
                    last = Some((at.pack, block));
                }
            }
        }
        Ok((tier, last))
    }

    /// The requests that bring what only vaults have, in the order of the packs.
    pub fn requests(&self) -> Vec<Request> {
        let of_pack = |(no, pack): (&PackNo, &PackWanted)| {
            let (no, len) = (*no, pack.len);
            let runs = runs(&pack.blocks);
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
        Self { len, blocks: vec![false; len.div_ceil(GRID) as usize] }
    }
}

fn range_of(block: u32, len: u64) -> Range<u64> {
    let start = u64::from(block) * GRID;
    start..(start + GRID).min(len)
}

/// Stretches of blocks that are wanted, none longer than a request may be.
fn runs(blocks: &[bool]) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for (n, _) in blocks.iter().enumerate().filter(|(_, wanted)| **wanted) {
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
    /// by now. What was brought is added up, whether or not all could be. The error is that of the first vault.
    pub fn fetch(&self, request: &Request, brought: &mut Brought) -> Result<(), StoreError> {
        let map = self.pack_map(request.pack)?;
        let fetch = |vault| self.fetch_from(vault, &map, &request.bytes, brought);
        self.fetcher.of_any(&map.row.vaults, &map.name, fetch)
    }

    fn fetch_from(
        &self,
        vault: VaultNo,
        map: &PackMap,
        bytes: &Range<u64>,
        brought: &mut Brought,
    ) -> Result<(), StoreError> {
        let mut fetch =
            || self.fetcher.fetch_ahead(vault, map, bytes.clone(), Need::Now, Deadline::NEVER, brought);
        fetch()?;
        // What was on its way already may have failed.
        self.fetcher.settle(vault, &map.row.entry, bytes);
        fetch()
    }

    /// Whether all bytes of a request are in the cache.
    pub fn is_fetched(&self, request: &Request) -> Result<bool, StoreError> {
        let map = self.pack_map(request.pack)?;
        Ok(self.fetcher.is_cached(&map.row.entry, &request.bytes))
    }

    /// Most bytes that the cache may hold, and how many it does.
    pub fn cache_room(&self) -> (u64, u64) {
        self.fetcher.cache_room()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_touch_are_one_request_of_bounded_length() {
        let of = |wanted: &str| runs(&wanted.bytes().map(|c| c == b'x').collect::<Vec<_>>());
        assert_eq!(of(""), []);
        assert_eq!(of("...."), []);
        assert_eq!(of("xx.x"), [0..2, 3..4]);
        assert_eq!(of(&"x".repeat(40)), [0..16, 16..32, 32..40]);
        assert_eq!(range_of(1, GRID + 10), GRID..GRID + 10);
        assert_eq!(blocks_of(&(GRID - 1..GRID + 1)), 0..2);
    }
}
