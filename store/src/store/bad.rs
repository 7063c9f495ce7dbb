//! Objects whose bytes are not those of their names. They are moved to `bad/` in the same place, where nobody takes them for
//! what they were; parts of them may still be of use to somebody. Nothing here removes the only bytes there are: what is
//! moved in staging keeps its bytes, and a vault's copy is replaced only by bytes that were just compared with the name.

use bytes::Bytes;

use super::{POINT_LIMIT, Store, of_vault};
use crate::catalog::{Mark, PackRow, PointRow, VaultNo};
use crate::error::StoreError;
use crate::fence::Revocation;
use crate::format::{Header, ObjectKind};
use crate::id::Attempt;
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::PACK_LIMIT;
use crate::point::object::open_point;
use crate::transfer::Transfer;
use crate::vault::{ObjectName, VaultError};

/// A vault that stores other bytes so often in a row is none.
const PROVEN_TRIES: usize = 3;

impl Store {
    /// All bytes of an object in staging whose name is their hash. One that is another is told and moved to `bad/`.
    pub(super) fn read_named_by_hash(
        &self,
        name: &ObjectName,
        hash: &[u8; 32],
        monitor: &dyn Monitor,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || match self.read_object(name, PACK_LIMIT, monitor) {
            // Longer than any pack or index object is.
            Err(StoreError::Corrupt { .. }) => Ok(Some(Vec::new())),
            read => read,
        };
        let right = |bytes: &[u8]| blake3::hash(bytes).as_bytes() == hash;
        let Some(mut bytes) = read()? else { return Ok(None) };
        if !right(&bytes) {
            // Once more: memory or the way from the disk may have flipped a bit.
            bytes = read()?.unwrap_or_default();
        }
        if right(&bytes) {
            return Ok(Some(bytes));
        }
        if self.read_only {
            let reason = "its bytes do not have its name".into();
            monitor.event(Event::Problem { path: name.as_str().into(), reason });
            return Ok(None);
        }
        let aside = names::bad(name, blake3::hash(&bytes).as_bytes());
        let reason = format!("its bytes do not have its name; it is moved to {aside}");
        monitor.event(Event::Problem { path: name.as_str().into(), reason });
        self.staging().move_to(name, &aside)?;
        Ok(None)
    }
}

/// Puts a pack where a vault has other bytes under its name. What was there is copied to `bad/` first, and the catalog
/// relies on nothing there until the right bytes are confirmed: wherever this is cut off, the next push sends the pack.
pub(crate) fn replace_in_vault(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    pack: &PackRow,
    good: Bytes,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let (name, failed) = (names::pack(&pack.entry.id), of_vault(transfer));
    store.catalog().miss_confirmed(pack.no, no)?;
    let there = match transfer.get(&name, PACK_LIMIT) {
        Err(VaultError::NotFound { .. }) => None,
        Err(VaultError::Invalid { detail }) => {
            let what = name.to_string();
            return Err(failed(VaultError::Conflict { what, detail }));
        }
        there => Some(there.map_err(&failed)?),
    };
    // Another process may have done it meanwhile.
    if let Some(bad) = there.filter(|bytes| *bytes != good) {
        move_aside(transfer, &name, bad, "its bytes do not have its name", monitor)?;
    }
    transfer.put_new(&name, good).map_err(&failed)?;
    store.catalog().set_mark(Mark::BadIn(no, pack.entry.id), false)?;
    store.catalog().set_confirmed(pack.no, no, true)
}

/// Puts a point where a vault has something under its name that is no point. `false` if that is one, or may be the word that the point is
/// revoked, damaged: whoever said it did not want the point there.
pub(crate) fn replace_point_in_vault(
    store: &Store,
    transfer: &Transfer,
    (row, attempt): (&PointRow, &Attempt),
    monitor: &dyn Monitor,
) -> Result<bool, StoreError> {
    let (name, failed) = (names::outcome(&row.tag, attempt), of_vault(transfer));
    let read = || transfer.get(&name, POINT_LIMIT).map_err(&failed);
    let bad = read()?;
    let is_half_a_point = Header::decode(&bad, ObjectKind::Point, Some(store.id())).is_ok();
    let may_be_a_word = !is_half_a_point
        && (bad.len() as u64 == Revocation::LEN || Revocation::is_meant_by(&bad, store.sealer()));
    // One that only another ring opens may be one as well.
    let opened = open_point(&bad, store.sealer(), &row.tag, &row.id);
    let is_a_point = opened.map_or_else(|e| e.is_newer_key(), |_| true);
    // The way from the vault may flip bits, though not the same ones twice.
    if may_be_a_word || is_a_point || read()? != bad {
        return Ok(false);
    }
    move_aside(transfer, &name, bad, "it is damaged", monitor)?;
    transfer.put_new(&name, row.object.clone().into()).map_err(&failed)?;
    Ok(true)
}

/// As what something reads that stands where an object is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// As a whole object of this name, whatever it says: it stays, though it came there between a put and the look at what was put.
    Whole,
    /// As a damaged object of ours.
    Damaged,
    /// As something of which nobody can tell: it is damaged if it was just put, or begins as what is put, and else it is somebody else's.
    Unclear,
    /// As what another store may have put, though it begins as what is put: it is damaged if it was just put.
    Foreign,
}

/// What a put came to of an object that stands alone under its name: nothing else tells what it says, or it says what nobody may miss.
pub(crate) enum Proven {
    /// It stands there, as it was read back.
    Ours,
    /// Something whole stands there that somebody else put.
    Theirs,
}

/// Puts a small object, and reads back what was put: it is read on a day on which there is no other copy. What is damaged there is copied to
/// `bad/` and replaced: what was just put and came out other, and what somebody else put if it `reads` as damaged. What is whole is never replaced.
///
/// # Errors
/// `Conflict` if the vault does not keep it, or what is damaged there may not be removed.
pub(crate) fn put_proven(
    transfer: &Transfer,
    name: &ObjectName,
    good: &Bytes,
    reads: &dyn Fn(&[u8]) -> Reads,
    monitor: &dyn Monitor,
) -> Result<Proven, StoreError> {
    let failed = of_vault(transfer);
    for _ in 0..PROVEN_TRIES {
        let is_new = match transfer.put_new(name, good.clone()) {
            // It was compared.
            Ok(receipt) if receipt.already() => return Ok(Proven::Ours),
            Ok(_) => true,
            Err(VaultError::Conflict { .. }) => false,
            Err(e) => return Err(failed(e)),
        };
        let there = match transfer.get(name, POINT_LIMIT) {
            // Somebody removed it.
            Err(VaultError::NotFound { .. }) => continue,
            there => there.map_err(&failed)?,
        };
        if there == *good {
            return Ok(Proven::Ours);
        }
        // Sealed anew it would begin with other bytes: it is what was just put, and was cut or got longer.
        let is_ours = is_new || good.starts_with(&there) || there.starts_with(good);
        match reads(&there) {
            Reads::Whole => return Ok(Proven::Theirs),
            Reads::Unclear if !is_ours => return Ok(Proven::Theirs),
            Reads::Foreign if !is_new => return Ok(Proven::Theirs),
            Reads::Damaged | Reads::Unclear | Reads::Foreign => {}
        }
        // The way from the vault may flip bits, though not the same ones twice.
        if transfer.get(name, POINT_LIMIT).is_ok_and(|again| again == there) {
            move_aside(transfer, name, there, "it is damaged", monitor)?;
        }
    }
    let detail = "what is there is damaged, and so is what is put in its place".to_owned();
    Err(failed(VaultError::Conflict { what: name.to_string(), detail }))
}

/// Copies what is damaged to `bad/`, and removes it if it is still there.
pub(crate) fn move_aside(
    transfer: &Transfer,
    name: &ObjectName,
    bad: Bytes,
    wrong: &str,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let (failed, aside) = (of_vault(transfer), names::bad(name, blake3::hash(&bad).as_bytes()));
    let reason = format!("vault {}: {wrong}; moved to {aside}, sent again", transfer.address());
    monitor.event(Event::Problem { path: name.as_str().into(), reason });
    if !bad.is_empty() {
        transfer.put_new(&aside, bad.clone()).map_err(&failed)?;
    }
    // Another machine may have put the right bytes there meanwhile.
    transfer.delete_exactly(name, &bad).map_err(|e| match e {
        VaultError::Denied { detail } => {
            let detail = format!("its bytes are damaged, and it may not be removed: {detail}");
            failed(VaultError::Conflict { what: name.to_string(), detail })
        }
        VaultError::Locked { lock, .. } => {
            let detail = format!("its bytes are damaged, and it may not be removed: it is {lock}");
            failed(VaultError::Conflict { what: name.to_string(), detail })
        }
        e => failed(e),
    })
}
