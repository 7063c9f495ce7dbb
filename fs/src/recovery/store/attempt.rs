//! One request on its way through the read engine: how far it may go, and where that was which was too far.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holdfast_store::catalog::VaultNo;
use holdfast_store::clock::Deadline;
use holdfast_store::error::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::reader::{Limits, Reader, Tier};
use holdfast_store::seal::ChunkType;
use holdfast_store::tree::{ChunkSource, Extent};

use crate::lock::lock;
use crate::recovery::{Line, Reach, Refusal};

/// One request's way to the read engine.
pub(super) struct Attempt {
    pub(super) reader: Arc<Reader>,
    pub(super) farthest: Tier,
    /// No other vault is to be asked first.
    pub(super) only: Option<VaultNo>,
    pub(super) deadline: Deadline,
    /// Where that is which was too far.
    pub(super) refused: Mutex<Option<Reach>>,
}

impl Attempt {
    /// Refuses what is farther away than there is patience for, and notes how far it is.
    fn allow(&self, id: &ChunkId, is_page: bool, range: Option<Range<u32>>) -> Result<(), StoreError> {
        if self.farthest == Tier::Vault && self.only.is_none() || self.reader.is_warm(id, range.clone()) {
            return Ok(());
        }
        // Where it is the catalog knows, which lies on a disk. If it fails, so does the read, which tells why.
        let vault = match self.farthest {
            Tier::Memory => None,
            _ => self.reader.tier_and_vault(id, range).ok().and_then(|(_, vault)| vault),
        };
        let near_enough = match vault {
            Some(_) => self.farthest == Tier::Vault && self.only == vault,
            None => self.farthest >= Tier::Cache,
        };
        if near_enough {
            return Ok(());
        }
        let reach = vault.map_or(Reach::Local, |_| Reach::Vault(Line { vault, is_page }));
        *lock(&self.refused) = Some(reach);
        Err(StoreError::not_in_memory())
    }

    pub(super) fn read(&self, extent: &Extent, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let too_long = |_| StoreError::corrupt("file", "a stretch is longer than a chunk can be");
        match extent {
            Extent::Hole { .. } => {
                Ok(Bytes::from(vec![0; usize::try_from(range.end - range.start).map_err(too_long)?]))
            }
            Extent::Data { id, .. } => {
                let start = u32::try_from(range.start).map_err(too_long)?;
                let range = start..u32::try_from(range.end).map_err(too_long)?;
                self.allow(id, false, Some(range.clone()))?;
                self.reader.chunk_range(id, range, self.limits(self.deadline))
            }
        }
    }

    /// It may have gone since it was found to be near enough.
    fn limits(&self, deadline: Deadline) -> Limits {
        Limits { farthest: self.farthest, deadline }
    }

    /// An attempt at what is near that failed for lack of time is to be repeated with patience.
    pub(super) fn end<T>(&self, result: Result<T, StoreError>) -> Result<T, Refusal> {
        let refused = *lock(&self.refused);
        match (result, refused) {
            (Ok(value), _) => Ok(value),
            (Err(_), Some(reach)) => Err(Refusal::Later(reach)),
            (Err(StoreError::Timeout { .. }), _) if self.farthest == Tier::Memory => {
                Err(Refusal::Later(Reach::Local))
            }
            (Err(StoreError::Timeout { .. }), _) if self.farthest < Tier::Vault => {
                Err(Refusal::Later(Reach::VAULT))
            }
            (Err(error), _) => Err(Refusal::Failed(error)),
        }
    }
}

impl ChunkSource for Attempt {
    fn chunk(&self, of: ChunkType, id: &ChunkId, deadline: Deadline) -> Result<Bytes, StoreError> {
        self.allow(id, of == ChunkType::Tree, None)?;
        self.reader.chunk_within(of, id, self.limits(deadline))
    }
}
