//! Adding a recovery point: one session at a time, which holds the store's lock.

use super::mend::row_of;
use super::{Store, StoreLock, StoredPoint};
use crate::chunk_store::{Ingest, IngestParts, Ingested};
use crate::error::StoreError;
use crate::monitor::Monitor;
use crate::names;
use crate::point::{self, RecoveryPoint};
use crate::seal::Compression;

impl Store {
    /// Begins to add a point: takes the lock, clears what a crash left and compares the catalog with what staging
    /// really holds, so that nothing new relies on what is not there.
    pub fn begin(&self, compression: Compression, monitor: &dyn Monitor) -> Result<Session<'_>, StoreError> {
        self.begin_with(compression, true, monitor)
    }

    /// The same for a point that relies on nothing but what staging holds: no vault is asked, so none is waited for, and the point can
    /// be read without any. What vaults alone hold is stored again if it is needed.
    pub fn begin_here(
        &self,
        compression: Compression,
        monitor: &dyn Monitor,
    ) -> Result<Session<'_>, StoreError> {
        self.begin_with(compression, false, monitor)
    }

    fn begin_with(
        &self,
        compression: Compression,
        ask_vaults: bool,
        monitor: &dyn Monitor,
    ) -> Result<Session<'_>, StoreError> {
        let lock = self.lock()?;
        self.refuse_unknown("write", self.config.write_features)?;
        // Directories may be missing where a store was put together from copies of its objects.
        self.staging.prepare()?;
        self.staging.clear_temp()?;
        let forgotten = self.reconcile(monitor)?.forgotten > 0;
        let (seen_vaults, unseen) = match ask_vaults {
            true => self.see_vaults(forgotten, monitor)?,
            false => (Vec::new(), !self.catalog.vaults_that_alone_hold()?.is_empty()),
        };
        let suspicious = unseen || self.catalog.has_bad_packs()?;
        let parts = IngestParts { seen_vaults, ..self.ingest_parts(compression) };
        Ok(Session { store: self, ingest: Ingest::begin(parts), suspicious, _lock: lock })
    }

    /// What adding chunks needs.
    pub fn ingest_parts(&self, compression: Compression) -> IngestParts {
        IngestParts {
            sealer: self.sealer.clone(),
            catalog: self.catalog.clone(),
            staging: self.staging.clone(),
            pack_len: self.config.pack_len as usize,
            frame_len: self.config.frame_len as usize,
            compression,
            seen_vaults: Vec::new(),
        }
    }
}

/// A point in the making.
#[derive(Debug)]
pub struct Session<'a> {
    store: &'a Store,
    ingest: Ingest,
    suspicious: bool,
    _lock: StoreLock,
}

impl<'a> Session<'a> {
    /// Where chunks go.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// The store.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Whether chunks of earlier points may be missing, so that each that a new point relies on must be looked up.
    pub fn suspicious(&self) -> bool {
        self.suspicious
    }

    /// Gives up. What was delivered is kept for the next session; the error that ended this one, if it was the store's.
    pub fn abandon(self) -> Option<StoreError> {
        self.ingest.finish().err()
    }

    /// Makes all chunks durable, lets `make` write the point with the knowledge of what became of them, and makes that
    /// durable. Only when this returns does the point exist.
    pub fn commit(self, make: impl FnOnce(&Ingested) -> RecoveryPoint) -> Result<StoredPoint, StoreError> {
        let done = self.ingest.finish()?;
        let mut point = make(&done);
        point.list_packs(&done.packs);
        let object = point::object::seal_point(&point, &self.store.sealer)?;
        self.store.staging.put(&names::point(&point.source_tag, &point.id), &object)?;
        let row = row_of(&point, object, true, Vec::new());
        self.store.catalog.add_point(&row)?;
        self.store.stored(row)
    }
}
