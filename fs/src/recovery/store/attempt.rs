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
    /// Reads what is near enough, and refuses what is farther away than there is patience for, noting how far it is. What staging should
    /// have and lost, or what went since it was looked up, shows only when it is read; then it is as far as the vault that has it.
    fn near_enough(
        &self,
        id: &ChunkId,
        is_page: bool,
        range: Option<Range<u32>>,
        read: impl FnOnce(Limits) -> Result<Bytes, StoreError>,
    ) -> Result<Bytes, StoreError> {
        let within = |farthest| Limits { farthest, deadline: self.deadline };
        if self.farthest == Tier::Vault && self.only.is_none() {
            return read(within(Tier::Vault));
        }
        let is_warm = self.reader.is_warm(id, range.clone());
        if self.farthest == Tier::Memory {
            return if is_warm { read(within(Tier::Memory)) } else { Err(self.refuse(Reach::Local)) };
        }
        // Where it is the catalog knows, which lies on a disk. If it fails, so does the read, which tells why.
        let look = || self.reader.tier_and_vault(id, range.clone()).unwrap_or((Tier::Cache, None));
        let far = |vault| self.refuse(Reach::Vault(Line { vault, is_page }));
        match if is_warm { (Tier::Memory, None) } else { look() } {
            (_, vault @ Some(_)) if self.only == vault => return read(within(Tier::Vault)),
            (Tier::Vault, vault @ Some(_)) => return Err(far(vault)),
            _ => {}
        }
        read(within(self.farthest.min(Tier::Cache))).map_err(|e| match e {
            StoreError::Timeout { .. } => far(look().1),
            e => e,
        })
    }

    fn refuse(&self, reach: Reach) -> StoreError {
        *lock(&self.refused) = Some(reach);
        StoreError::not_in_memory()
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
                self.near_enough(id, false, Some(range.clone()), |limits| {
                    self.reader.chunk_range(id, range, limits)
                })
            }
        }
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
        self.near_enough(id, of == ChunkType::Tree, None, |limits| {
            self.reader.chunk_within(of, id, Limits { deadline, ..limits })
        })
    }
}
