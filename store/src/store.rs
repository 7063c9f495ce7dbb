//! A store as the floors above see it: opened by a secret, with its points, a reader and a writer.

use std::sync::Arc;

use crate::error::StoreError;
use crate::id::RecoveryPointId;
use crate::point::RecoveryPoint;
use crate::reader::Reader;

/// A recovery point as the store knows it.
#[derive(Clone, Debug)]
pub struct StoredPoint {
    /// The point.
    pub point: Arc<RecoveryPoint>,
    /// BLAKE3 of the object's bytes.
    pub hash: [u8; 32],
    /// Whether the staging directory holds it.
    pub local: bool,
    /// Addresses of the vaults that hold it.
    pub vaults: Vec<String>,
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    _private: (),
}

impl Store {
    /// All points, ascending by start time. Cheap enough to be called each second: answered from the catalog, decoded points are kept.
    pub fn points(&self) -> Result<Vec<StoredPoint>, StoreError> {
        todo!()
    }

    /// One point.
    pub fn point(&self, _id: &RecoveryPointId) -> Result<StoredPoint, StoreError> {
        todo!()
    }

    /// The shared read engine.
    pub fn reader(&self) -> &Arc<Reader> {
        todo!()
    }
}
