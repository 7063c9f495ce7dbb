//! Packs on their way into a vault: some as they are, and new ones that hold what is needed of others.
//!
//! New packs are never in staging: they are made in memory, opened and proven, put into the vault, and recorded when the vault
//! confirmed them. Where that is cut off, the vault has a pack more, or not; the next listing of it tells which.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};

use super::lacking::{Lacking, Thin};
use super::{PACKS_AT_ONCE, Pushed};
use crate::catalog::{Mark, PackRow, VaultNo};
use crate::chunk_store::{GROUP_LEN, IngestParts, REWRITTEN};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::id::{ChunkId, PackId};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::{self, FinishedPack, FrameBuilder, PACK_LIMIT, PackFiller, PackKind};
use crate::seal::ChunkType;
use crate::store::{Store, of_vault, replace_in_vault};
use crate::transfer::Transfer;
use crate::vault::VaultError;

/// A pack that is to go.
enum Going<'a> {
    AsItIs(&'a PackRow),
    New(FinishedPack),
}

/// Takes what is to go, or says that sending has ended.
type Outlet<'a, 'b> = dyn Fn(Going<'b>) -> Result<(), StoreError> + 'a;

/// Sends what a vault lacks.
pub(super) fn send_packs(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    lacking: &Lacking,
    monitor: &dyn Monitor,
) -> Result<Pushed, StoreError> {
    let parts = store.ingest_parts(REWRITTEN);
    let (failure, done) = (Mutex::default(), Mutex::default());
    let upload = Upload { store, no, transfer, monitor, parts, failure, done };
    upload.announce(lacking);
    upload.run(|to_send| upload.hand_out(lacking, to_send));
    upload.ended()
}

/// What came of packs of a vault that were to be written anew.
#[derive(Debug, Default)]
pub struct Repacked {
    /// Those of which all that was wanted is in new packs of the vault, with their lengths.
    pub whole: Vec<(PackId, u64)>,
    /// Bytes of the new packs.
    pub bytes: u64,
}

/// Puts chunks of packs into new packs of the vault, which index objects cover when this returns. A pack of which a chunk cannot be read is
/// told, and is not among those that are whole.
pub fn repack(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    packs: &[(PackRow, Vec<ChunkId>)],
    monitor: &dyn Monitor,
) -> Result<Repacked, StoreError> {
    let parts = store.ingest_parts(REWRITTEN);
    let upload =
        Upload { store, no, transfer, monitor, parts, failure: Mutex::default(), done: Mutex::default() };
    let bytes_total = packs.iter().map(|(row, _)| row.entry.len).sum();
    monitor.event(Event::Stage { name: "rewrite", files_total: packs.len() as u64, bytes_total });
    let mut repacked = Repacked::default();
    upload.run(|to_send| {
        for kind in [PackKind::Data, PackKind::Tree] {
            let mut filling = Filling::new(&upload.parts, kind, to_send);
            for (row, ids) in packs.iter().filter(|(row, _)| row.entry.kind == kind) {
                if upload.add_chunks(&mut filling, row, ids)? {
                    repacked.whole.push((row.entry.id, row.entry.len));
                }
            }
            filling.finish()?;
        }
        Ok(())
    });
    repacked.bytes = upload.ended()?.bytes;
    super::index_vault(store, no, transfer)?;
    Ok(repacked)
}

struct Upload<'a> {
    store: &'a Store,
    no: VaultNo,
    transfer: &'a Transfer,
    monitor: &'a dyn Monitor,
    parts: IngestParts,
    failure: Mutex<Option<StoreError>>,
    done: Mutex<Pushed>,
}

impl Upload<'_> {
    fn announce(&self, lacking: &Lacking) {
        let new: u64 = lacking.thin.iter().map(Thin::len).sum();
        let files_total = lacking.whole.len() as u64 + new.div_ceil(self.parts.pack_len as u64);
        let bytes_total = lacking.whole.iter().map(|pack| pack.entry.len).sum::<u64>() + new;
        self.monitor.event(Event::Stage { name: "upload", files_total, bytes_total });
    }

    /// Sends what is handed out.
    fn run<'a>(&self, hand_out: impl FnOnce(&Outlet<'_, 'a>) -> Result<(), StoreError>) {
        let ended = || StoreError::Ended { detail: "the upload has ended".into() };
        let noting = |handed_out: Result<(), StoreError>| {
            if let Err(e) = handed_out {
                // Unless whoever failed said why.
                self.failure().get_or_insert(e);
            }
        };
        if self.transfer.at_once() == 1 {
            return noting(hand_out(&|going| self.work(going).then_some(()).ok_or_else(ended)));
        }
        // A rendezvous: one new pack at most is being filled while others are on their way.
        let (to_send, incoming) = bounded(0);
        std::thread::scope(|scope| {
            for _ in 0..PACKS_AT_ONCE {
                let incoming: Receiver<Going<'_>> = incoming.clone();
                scope.spawn(move || incoming.into_iter().all(|going| self.work(going)));
            }
            drop(incoming);
            noting(hand_out(&|going| to_send.send(going).map_err(|_| ended())));
            drop(to_send);
        });
    }

    fn ended(self) -> Result<Pushed, StoreError> {
        match self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(e) => Err(e),
            None => Ok(self.done.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Whether all of them could be read.
    fn add_chunks(
        &self,
        filling: &mut Filling<'_, '_>,
        row: &PackRow,
        ids: &[ChunkId],
    ) -> Result<bool, StoreError> {
        for id in ids {
            if self.monitor.cancelled() {
                return Err(StoreError::Cancelled);
            }
            match self.store.reader().whole_chunk(row.entry.kind, id, Deadline::NEVER) {
                Ok(plain) => filling.push(*id, &plain)?,
                Err(e @ (StoreError::Cancelled | StoreError::Catalog { .. })) => return Err(e),
                Err(e) => {
                    let reason =
                        format!("recovery points need something of it that cannot be read, so it stays: {e}");
                    let path = names::pack(&row.entry.id).as_str().into();
                    self.monitor.event(Event::Problem { path, reason });
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn failure(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_out<'a>(&self, lacking: &'a Lacking, to_send: &Outlet<'_, 'a>) -> Result<(), StoreError> {
        for pack in &lacking.whole {
            to_send(Going::AsItIs(pack))?;
        }
        for kind in [PackKind::Data, PackKind::Tree] {
            let mut of_kind = lacking.thin.iter().filter(|thin| thin.pack.entry.kind == kind).peekable();
            if of_kind.peek().is_none() {
                continue;
            }
            let mut filling = Filling::new(&self.parts, kind, to_send);
            for thin in of_kind {
                for (of, id) in thin.chunks(self.store.catalog())? {
                    filling.push(id, &self.read(thin, of, &id)?)?;
                }
            }
            filling.finish()?;
        }
        Ok(())
    }

    /// A chunk, from wherever it is whole.
    fn read(&self, thin: &Thin, of: ChunkType, id: &ChunkId) -> Result<Bytes, StoreError> {
        if self.monitor.cancelled() {
            return Err(StoreError::Cancelled);
        }
        let read = self.store.reader().chunk_within(of, id, Deadline::NEVER);
        read.inspect_err(|e| {
            if e.class() == ErrorClass::Corrupt {
                // If it is the pack's copy in staging that is damaged, it is noted, and a backup stores anew what it held.
                drop(right_bytes(self.store, self.no, &thin.pack));
            }
        })
    }

    /// Sends a pack, unless something failed: `false` then, and if this does.
    fn work(&self, going: Going<'_>) -> bool {
        if self.failure().is_some() {
            return false;
        }
        let sent = match going {
            _ if self.monitor.cancelled() => Err(StoreError::Cancelled),
            Going::AsItIs(pack) => self.send(pack).map(|sent| (sent, pack.entry.len)),
            Going::New(pack) => self.send_new(&pack).map(|()| (true, pack.entry.len)),
        };
        match sent {
            Ok((sent, len)) => self.count(sent, len),
            Err(e) => {
                self.failure().get_or_insert(e);
                return false;
            }
        }
        true
    }

    fn count(&self, sent: bool, len: u64) {
        if sent {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.packs += 1;
            done.bytes += len;
        }
        self.monitor.event(Event::Done { files: 1, bytes: len });
    }

    fn send_new(&self, pack: &FinishedPack) -> Result<(), StoreError> {
        self.transfer
            .put_new(&names::pack(&pack.entry.id), pack.bytes.clone())
            .map_err(of_vault(self.transfer))?;
        self.store.catalog().add_packs(&[(&pack.entry, &pack.chunks)], false, Some(self.no))
    }

    /// Sends a pack as the bytes it is, checked against its name first: what the local disk damaged must not go out. Other bytes
    /// under its name in the vault are replaced. `false` if the vault's copy is damaged and there is no better one.
    fn send(&self, pack: &PackRow) -> Result<bool, StoreError> {
        let (store, no, transfer) = (self.store, self.no, self.transfer);
        let name = names::pack(&pack.entry.id);
        // It was read and found damaged; a missing one is not confirmed.
        let damaged = pack.vaults.contains(&no);
        let bytes = match right_bytes(store, no, pack) {
            Err(StoreError::Corrupt { .. } | StoreError::NotFound { .. }) if damaged => {
                let reason =
                    format!("vault {}: it is damaged there, and nowhere else whole", transfer.address());
                self.monitor.event(Event::Problem { path: name.as_str().into(), reason });
                return Ok(false);
            }
            bytes => bytes?,
        };
        // One that was given up there may lie there still, with its length.
        let is_bad = damaged || store.catalog().has_mark(Mark::BadIn(no, pack.entry.id))?;
        let put = if is_bad { None } else { Some(transfer.put_new(&name, bytes.clone())) };
        match put {
            None | Some(Err(VaultError::Conflict { .. })) => {
                replace_in_vault(store, no, transfer, pack, bytes, self.monitor)?;
            }
            Some(put) => {
                put.map_err(of_vault(transfer))?;
                store.catalog().set_confirmed(pack.no, no, true)?;
            }
        }
        Ok(true)
    }
}

/// New packs of one kind, filled in the order in which chunks come.
struct Filling<'a, 'b> {
    parts: &'b IngestParts,
    to_send: &'b Outlet<'b, 'a>,
    frames: FrameBuilder,
    packs: PackFiller<'b>,
}

impl<'a, 'b> Filling<'a, 'b> {
    fn new(parts: &'b IngestParts, kind: PackKind, to_send: &'b Outlet<'b, 'a>) -> Self {
        let frames = FrameBuilder::new(parts.frame_len, parts.compression);
        Self { parts, to_send, frames, packs: PackFiller::new(&parts.sealer, kind, parts.pack_len) }
    }

    fn push(&mut self, id: ChunkId, plain: &[u8]) -> Result<(), StoreError> {
        self.frames.push(id, plain);
        if self.frames.raw_len() >= GROUP_LEN { self.add_frames() } else { Ok(()) }
    }

    fn add_frames(&mut self) -> Result<(), StoreError> {
        let (parts, to_send) = (self.parts, self.to_send);
        self.packs.push(self.frames.take(), &mut |pack| hand_over(parts, pack, to_send))
    }

    fn finish(mut self) -> Result<(), StoreError> {
        self.add_frames()?;
        let (parts, to_send) = (self.parts, self.to_send);
        self.packs.finish(&mut |pack| hand_over(parts, pack, to_send))
    }
}

/// Hands over a pack that is proven: memory and compressors fail here as they do in a backup.
fn hand_over<'a>(
    parts: &IngestParts,
    pack: FinishedPack,
    to_send: &Outlet<'_, 'a>,
) -> Result<(), StoreError> {
    let id = pack.entry.id;
    pack::verify(&parts.sealer, id, &pack.bytes).map_err(|e| e.of(format!("pack {id}, just made")))?;
    to_send(Going::New(pack))
}

/// The bytes of a pack that have its name, from staging or from another vault than `not_from`.
fn right_bytes(store: &Store, not_from: VaultNo, pack: &PackRow) -> Result<Bytes, StoreError> {
    let name = names::pack(&pack.entry.id);
    let right = |bytes: &Bytes| *blake3::hash(bytes).as_bytes() == pack.entry.id.0;
    let mut wrong = None;
    match store.staging().read_all(&name, PACK_LIMIT).map(|read| read.map(Bytes::from)) {
        Ok(Some(bytes)) if right(&bytes) => return Ok(bytes),
        Ok(Some(_)) => {
            store.mark_staged(pack, true)?;
            let detail = "its bytes in the staging directory do not have its name";
            wrong = Some(StoreError::corrupt(name.as_str(), detail));
        }
        Ok(None) => {}
        Err(e) => wrong = Some(e),
    }
    for vault in pack.vaults.iter().filter(|vault| **vault != not_from) {
        match store.fetch_pack(&PackRow { vaults: vec![*vault], ..pack.clone() }) {
            Ok(bytes) if right(&bytes) => return Ok(bytes),
            Ok(_) => {
                let detail = "its bytes in another vault do not have its name";
                wrong.get_or_insert(StoreError::corrupt(name.as_str(), detail));
            }
            Err(e) => drop(wrong.get_or_insert(e)),
        }
    }
    Err(wrong.unwrap_or_else(|| match store.staging().first_away() {
        Some(annex) => StoreError::AnnexAway { what: name.to_string(), annex },
        None => StoreError::NotFound { what: format!("a whole {name}") },
    }))
}
