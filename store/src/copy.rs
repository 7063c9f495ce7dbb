//! Bringing recovery points into a vault, and what a vault shows to a machine that has nothing.
//!
//! A point goes with what the vault lacks of it and no more: packs of which it needs nearly all as they are, and of others what it needs,
//! in new packs (`docs/decisions/thin-packs.md`). The order is what makes a crash harmless: session, packs, index, and the recovery point last. A pack counts as sent when
//! the vault confirmed it, and that is recorded pack by pack: the next run goes on where this one ended.

mod lacking;
mod send;

use std::collections::HashSet;

use bytes::Bytes;

use crate::catalog::{PointLine, PointRow, Seen, VaultNo};
use crate::chunk_store::{PACKS_PER_INDEX, write_index_to};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::fence::{Revocation, Why};
use crate::format::{HEADER_LEN, Header, ObjectKind};
use crate::id::{Attempt, RecoveryPointId, SlotId, SourceTag, VaultId};
use crate::index::Index;
use crate::monitor::{Event, Monitor, VoidMonitor};
use crate::names;
use crate::seal::slots::KeySlot;
use crate::store::{
    OpenSessions, SMALL_OBJECT, Store, StoreHead, of_vault, put_config, replace_point_in_vault, see_vault,
};
use crate::transfer::Transfer;
use crate::vault::{ObjectName, VaultError};

pub use send::{Repacked, repack};

pub use crate::store::{learn_points, load_catalog, prove_ours, put_slot, refresh_vault};

/// Packs on their way at once: each is held in memory while it is sent.
const PACKS_AT_ONCE: usize = 4;

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Packs sent.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packs of the point that the vault had already.
    pub packs_there: u64,
}

/// Makes a vault ready for a store: containers, a proof of its promises, config and key slots. A vault that
/// belongs to another store is refused. A slot that is older than one there stays out; the key generation that the one there says to have, if
/// any stayed out.
pub fn prepare_vault(
    store: &Store,
    slots: &[(SlotId, Vec<u8>)],
    transfer: &Transfer,
) -> Result<Option<u32>, StoreError> {
    let failed = of_vault(transfer);
    transfer.prepare().map_err(&failed)?;
    if let Some(config) = read_small(transfer, &names::config())? {
        let theirs =
            crate::format::config::StoreConfig::peek_vault_id(&config).map_err(|e| e.of("config"))?;
        if theirs != *store.id() {
            let detail = format!("the vault holds store {theirs}, this is {}", store.id());
            return Err(StoreError::NotOurs { object: transfer.address(), detail });
        }
    } else {
        transfer.probe().map_err(&failed)?;
        // What was seen under this address was another vault, which somebody did away with.
        store.forget_memory_of(&transfer.address())?;
    }
    let newest = newest_of_slots(store, transfer)?;
    // It went there when another machine rotated the keys: whoever has what opens it is not to have the vault again.
    let is_older = |bytes: &[u8]| KeySlot::read(bytes, store.id()).is_ok_and(|slot| slot.newest() < newest);
    let (older, current): (Vec<_>, Vec<_>) = slots.iter().partition(|(_, bytes)| is_older(bytes));
    for (id, bytes) in current {
        put_slot(store, transfer, (id, bytes.clone()), &VoidMonitor)?;
    }
    // The last: a vault with a config is one.
    put_config(store, transfer, &VoidMonitor)?;
    Ok((!older.is_empty()).then_some(newest))
}

/// The newest key generation that slots in a vault say to have; 0 if there are none.
fn newest_of_slots(store: &Store, transfer: &Transfer) -> Result<u32, StoreError> {
    let mut newest = 0;
    for object in names::list(transfer, names::SLOTS, Deadline::NEVER).map_err(of_vault(transfer))? {
        let bytes = read_alike(transfer, &object.name)?.unwrap_or_default();
        newest = newest.max(KeySlot::read(&bytes, store.id()).map_or(0, |slot| slot.newest()));
    }
    Ok(newest)
}

fn read_small(transfer: &Transfer, name: &ObjectName) -> Result<Option<Vec<u8>>, StoreError> {
    match transfer.get(name, SMALL_OBJECT) {
        Ok(bytes) => Ok(Some(bytes.to_vec())),
        Err(VaultError::NotFound { .. }) => Ok(None),
        Err(e) => Err(of_vault(transfer)(e)),
    }
}

/// What a vault shows without a key: the beginning of a recovery on a machine that has nothing.
pub fn vault_head(transfer: &Transfer) -> Result<StoreHead, StoreError> {
    let (vault, config) = read_config(transfer)?;
    let mut slots = Vec::new();
    for object in names::list(transfer, names::SLOTS, Deadline::NEVER).map_err(of_vault(transfer))? {
        let Some(id) = names::slot_of(&object.name) else { continue };
        slots.extend(read_alike(transfer, &object.name)?.map(|bytes| (id, bytes)));
    }
    Ok(StoreHead { vault, config, slots })
}

/// Points of which the header is read.
const HEADERS: usize = 8;

/// The newest key generation that the headers of the last points of a vault name, which no key is needed to read; 0 if there is none. A header
/// that is damaged says nothing here.
pub fn sealed_with(transfer: &Transfer, vault: &VaultId) -> Result<u32, StoreError> {
    let mut points = names::list(transfer, names::POINTS, Deadline::NEVER).map_err(of_vault(transfer))?;
    points.sort_by_key(|object| std::cmp::Reverse(object.put_at));
    let mut newest = 0;
    let whole = points.iter().filter(|object| object.len > Revocation::LEN);
    for object in whole.take(HEADERS) {
        match transfer.get_range(&object.name, 0..HEADER_LEN as u64, Deadline::NEVER) {
            Ok(bytes) => {
                let header = Header::decode(&bytes, ObjectKind::Point, Some(vault));
                newest = newest.max(header.map_or(0, |header| header.generation));
            }
            Err(VaultError::NotFound { .. } | VaultError::TooShort { .. }) => {}
            Err(e) => return Err(of_vault(transfer)(e)),
        }
    }
    Ok(newest)
}

fn read_config(transfer: &Transfer) -> Result<(VaultId, Vec<u8>), StoreError> {
    let config = read_alike(transfer, &names::config())?
        .ok_or_else(|| StoreError::NotFound { what: format!("a store in vault {}", transfer.address()) })?;
    let vault = crate::format::config::StoreConfig::peek_vault_id(&config).map_err(|e| e.of("config"))?;
    Ok((vault, config))
}

/// A small object as two of at most three readings brought it: the way from the vault may have flipped a bit where only a key would find it, and
/// what is kept here would not be what the vault has. One that is too long is empty: damaged, and no reason to stop.
fn read_alike(transfer: &Transfer, name: &ObjectName) -> Result<Option<Vec<u8>>, StoreError> {
    let read = || match transfer.get(name, SMALL_OBJECT) {
        Err(VaultError::Invalid { .. }) => Ok(Some(Bytes::new())),
        Err(VaultError::NotFound { .. }) => Ok(None),
        got => got.map(Some).map_err(of_vault(transfer)),
    };
    let (first, second) = (read()?, read()?);
    let bytes = if first == second { first } else { read()? };
    Ok(bytes.map(|bytes| bytes.to_vec()))
}

/// Points on their way into a vault. Their sessions are open, and what the vault holds was listed after that: so nothing that they rely on
/// there is freed before they have arrived.
pub struct Sending<'a> {
    store: &'a Store,
    no: VaultNo,
    transfer: &'a Transfer,
    attempts: Vec<(SourceTag, Attempt)>,
    /// Points that cannot come there, and why.
    pub turned_away: Vec<(RecoveryPointId, StoreError)>,
    open: OpenSessions,
}

impl<'a> Sending<'a> {
    /// Begins, for each point with the first attempt that nobody revoked. One that was forgotten there comes only if it is one of those that
    /// were `named`: somebody wants it after all.
    pub fn begin(
        store: &'a Store,
        no: VaultNo,
        transfer: &'a Transfer,
        ids: &[RecoveryPointId],
        named: &HashSet<RecoveryPointId>,
        monitor: &dyn Monitor,
    ) -> Result<Self, StoreError> {
        let mut choice = Choice { store, no, transfer, monitor, has_looked: false };
        let (mut attempts, mut turned_away) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(row) = store.catalog().point(id)? else { continue };
            match choice.attempt_at(&row, named.contains(id))? {
                Ok(attempt) => attempts.extend(attempt.map(|attempt| (row.tag, attempt))),
                Err(why) => turned_away.push((*id, why)),
            }
        }
        let open = store.open_sessions(no, transfer, &attempts, Deadline::NEVER)?;
        see_vault(store, no, transfer, Deadline::NEVER, monitor)?;
        Ok(Self { store, no, transfer, attempts, turned_away, open })
    }

    /// Whether a point is among those that come.
    pub fn brings(&self, id: &RecoveryPointId) -> bool {
        self.attempt_at(id).is_some()
    }

    fn attempt_at(&self, id: &RecoveryPointId) -> Option<Attempt> {
        self.attempts.iter().map(|(_, attempt)| *attempt).find(|attempt| attempt.point == *id)
    }

    /// Puts one of them into the vault with everything it needs that is not there.
    ///
    /// # Errors
    /// `Revoked` if somebody took the point for dead meanwhile, or it was forgotten: it may begin again.
    pub fn push(&self, id: &RecoveryPointId, monitor: &dyn Monitor) -> Result<Pushed, StoreError> {
        let Self { store, no, transfer, .. } = *self;
        let attempt = self
            .attempt_at(id)
            .ok_or_else(|| StoreError::Revoked { point: id.short(), vault: transfer.address() })?;
        let _lock = store.lock_uploads()?;
        // Not before: a point that was forgotten until then does not come back.
        let row = store
            .catalog()
            .point(id)?
            .ok_or_else(|| StoreError::NotFound { what: format!("recovery point {id}") })?;
        if !store.is_lacking(no, &row)? {
            return Ok(Pushed::default());
        }
        let mut pushed = Pushed::default();
        while !self.push_once(&row, &attempt, &mut pushed, monitor)? {
            let (id, vault) = (id.short(), transfer.address());
            let again = "packs were missed there while it was on its way, so it is looked at again";
            monitor.event(Event::Note(format!("vault {vault}: recovery point {id}: {again}")));
        }
        store.end_session(no, &attempt)?;
        Ok(pushed)
    }

    /// `false` if meanwhile somebody missed packs there, on which it may rely.
    fn push_once(
        &self,
        row: &PointRow,
        attempt: &Attempt,
        pushed: &mut Pushed,
        monitor: &dyn Monitor,
    ) -> Result<bool, StoreError> {
        let Self { store, no, transfer, .. } = *self;
        let began = store.catalog().session_seen(no, attempt)?.unwrap_or_default();
        let losses = store.catalog().losses(no)?;
        let lacking = lacking::lacking(store, no, row, began)?;
        let sent = send::send_packs(store, no, transfer, &lacking, monitor)?;
        (pushed.packs, pushed.bytes) = (pushed.packs + sent.packs, pushed.bytes + sent.bytes);
        pushed.packs_there = lacking.packs_there;
        store.show_progress(&self.open, transfer)?;
        index_vault(store, no, transfer)?;
        // Before all can see it.
        if store.catalog().losses(no)? != losses {
            return Ok(false);
        }
        let put = transfer.put_new(&names::outcome(&row.tag, attempt), row.object.clone().into());
        match put {
            Ok(_) => {}
            Err(VaultError::Conflict { .. })
                if replace_point_in_vault(store, transfer, (row, attempt), monitor)? => {}
            Err(e @ VaultError::Conflict { .. }) => {
                return Err(store.why_not_there(no, transfer, (&row.tag, attempt), e));
            }
            Err(e) => return Err(of_vault(transfer)(e)),
        }
        store.catalog().set_seen_at(no, attempt)?;
        let line = PointLine { id: row.id, tag: row.tag, sequence: row.sequence, started: row.started };
        store.remember_pushed(no, &line, row.hash, attempt)?;
        store.catalog().add_pushed(row, no, losses)
    }
}

/// Who chooses the attempts by which points come into a vault.
struct Choice<'a> {
    store: &'a Store,
    no: VaultNo,
    transfer: &'a Transfer,
    monitor: &'a dyn Monitor,
    /// Whether the vault was asked what it holds.
    has_looked: bool,
}

impl Choice<'_> {
    /// The attempt by which a point comes, none if it was forgotten there and is not named; or why it cannot come.
    fn attempt_at(
        &mut self,
        row: &PointRow,
        is_named: bool,
    ) -> Result<Result<Option<Attempt>, StoreError>, StoreError> {
        let next = self.store.next_attempt(self.no, self.transfer, (&row.tag, &row.id))?;
        let Some(attempt) = next.attempt else { return Ok(Err(self.cannot_come(row, SPENT))) };
        let Some(why) = next.revoked.filter(|_| !next.ended) else { return Ok(Ok(Some(attempt))) };
        // Not of one that was there since: whoever missed it there told so.
        let came_since = attempt.number <= self.store.catalog().seen_at(self.no, &row.id)?;
        if why == Why::Forgotten && !is_named && !came_since {
            return Ok(Ok(None));
        }
        // Before its session is there, which others would wait for in vain.
        if !self.is_whole(row)? {
            return Ok(Err(self.cannot_come(row, LOST)));
        }
        if self.store.catalog().session_seen(self.no, &attempt)?.is_none() {
            let (id, vault) = (row.id.short(), self.transfer.address());
            let was = match why {
                Why::Silent => "was too long on its way there, and begins again",
                Why::Forgotten => "was forgotten there, and comes again",
            };
            self.monitor.event(Event::Note(format!("vault {vault}: recovery point {id} {was}")));
        }
        Ok(Ok(Some(attempt)))
    }

    /// Whether all that a point needs is somewhere. What it relied on in the vault may have gone with the attempt before.
    fn is_whole(&mut self, row: &PointRow) -> Result<bool, StoreError> {
        if !std::mem::replace(&mut self.has_looked, true) {
            see_vault(self.store, self.no, self.transfer, Deadline::NEVER, self.monitor)?;
        }
        match lacking::lacking(self.store, self.no, row, Seen::default()) {
            Err(e) if matches!(e.class(), ErrorClass::NotFound | ErrorClass::Corrupt) => Ok(false),
            lacking => lacking.map(|_| true),
        }
    }

    fn cannot_come(&self, row: &PointRow, why: &'static str) -> StoreError {
        StoreError::CannotCome { point: row.id.short(), vault: self.transfer.address(), why }
    }
}

/// Of a point for which no name is left.
const SPENT: &str = "256 times it was removed there, or was too long on its way";
/// Of a point that is not whole any more.
const LOST: &str = "it was removed there, or was too long on its way, and of what only that vault had something is gone: `check` names what is lost";

/// Puts a single point into a vault with everything it needs that is not there, also one that was forgotten there.
pub fn push_point(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    id: &RecoveryPointId,
    monitor: &dyn Monitor,
) -> Result<Pushed, StoreError> {
    let mut sending = Sending::begin(store, no, transfer, &[*id], &HashSet::from([*id]), monitor)?;
    match sending.turned_away.pop() {
        Some((_, why)) => Err(why),
        None => sending.push(id, monitor),
    }
}

/// Covers the vault's packs that no index object there covers by a new one.
fn index_vault(store: &Store, no: VaultNo, transfer: &Transfer) -> Result<(), StoreError> {
    for packs in store.catalog().packs_without_index(Some(no))?.chunks(PACKS_PER_INDEX) {
        let mut index = Index::default();
        for pack in packs {
            if let Some(row) = store.catalog().pack(*pack)? {
                index.add(row.entry, &store.catalog().chunks_of(*pack)?);
            }
        }
        write_index_to(store.sealer(), store.catalog(), index, Some(no), |name, bytes| {
            transfer.put_new(name, bytes).map_err(of_vault(transfer)).map(drop)
        })?;
    }
    Ok(())
}
