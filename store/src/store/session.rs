//! Adding a recovery point: one session at a time, which holds the store's lock.

use super::mend::row_of;
use super::vaults::Asked;
use super::{OpenSessions, Store, StoreLock, StoredPoint};
use crate::catalog::Relied;
use crate::chunk_store::{Ingest, IngestParts, Ingested};
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SourceTag};
use crate::monitor::Monitor;
use crate::names;
use crate::point::{self, RecoveryPoint};
use crate::seal::Compression;

/// A source whose point goes into vaults as soon as it is taken, and whether it goes into that of an address.
type Online<'a> = (&'a SourceTag, &'a dyn Fn(&str) -> bool);

impl Store {
    /// Begins to add a point that relies on nothing but what staging holds: takes the lock, clears what a crash left and compares the catalog
    /// with what staging really holds, so that nothing new relies on what is not there. No vault is asked, so none is waited for, and
    /// the point can be read without any. What vaults alone hold is stored again if it is needed.
    pub fn begin(&self, compression: Compression, monitor: &dyn Monitor) -> Result<Session<'_>, StoreError> {
        self.begin_with(None, compression, monitor)
    }

    /// The same for a point of a source that goes into vaults as soon as it is taken, chosen by their addresses: it relies on what they hold.
    /// They are told that it is on its way before they are asked for that, so that nobody frees it there.
    pub fn begin_online(
        &self,
        source: &SourceTag,
        goes_into: &dyn Fn(&str) -> bool,
        compression: Compression,
        monitor: &dyn Monitor,
    ) -> Result<Session<'_>, StoreError> {
        self.begin_with(Some((source, goes_into)), compression, monitor)
    }

    fn begin_with(
        &self,
        online: Option<Online<'_>>,
        compression: Compression,
        monitor: &dyn Monitor,
    ) -> Result<Session<'_>, StoreError> {
        let lock = self.lock()?;
        self.refuse_unknown("write", self.config.write_features)?;
        // Directories may be missing where a store was put together from copies of its objects.
        self.staging.prepare()?;
        self.staging.clear_temp()?;
        self.ease_main()?;
        self.mark_annexes();
        let forgotten = self.reconcile(monitor)?.forgotten > 0;
        let id = self.sealer.new_point();
        let Asked { relied, open, unsure } = match online {
            Some((source, goes_into)) => self.see_vaults(&(*source, id), goes_into, forgotten, monitor)?,
            None => Asked { unsure: !self.catalog.vaults_that_alone_hold()?.is_empty(), ..Asked::default() },
        };
        let suspicious = unsure || self.catalog.has_bad_packs()?;
        let parts = IngestParts { relied, ..self.ingest_parts(compression) };
        Ok(Session { store: self, id, ingest: Ingest::begin(parts), suspicious, _open: open, _lock: lock })
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
            relied: Relied::default(),
        }
    }
}

/// A point in the making.
#[derive(Debug)]
pub struct Session<'a> {
    store: &'a Store,
    id: RecoveryPointId,
    ingest: Ingest,
    suspicious: bool,
    /// Of the vaults that the point relies on.
    _open: Vec<OpenSessions>,
    _lock: StoreLock,
}

impl<'a> Session<'a> {
    /// Which point this makes.
    pub fn id(&self) -> RecoveryPointId {
        self.id
    }

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
        point.sign(self.store.writer.as_deref())?;
        let object = point::object::seal_point(&point, &self.store.sealer)?;
        let row = row_of(&point, object, true, Vec::new());
        self.store.remember_taken(&row);
        self.store.staging.put(&names::point(&point.source_tag, &point.id), &row.object)?;
        self.store.catalog.add_point(&row)?;
        self.store.stored(row)
    }
}
