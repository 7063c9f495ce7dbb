//! Packs of a vault that do not open: nothing is known of what they held, so no verdict is passed on them. One may go if that is no loss,
//! whatever it held: its bytes are not those of its name, and all that any point needs is in packs that were read and proven, for what
//! it held may be all that is left of a chunk whose other copy rots unread. One that is whole in staging is sent again by a push if the
//! vault lacks anything of it, and goes if it does not.
//! Uploads that may be about to need it are waited for as for all that goes (`collect`).

use std::collections::HashSet;

use super::Place;
use super::beside::{Others, proven_among, seen_in, sound, tell};
use crate::catalog::{PackNo, PackRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{ChunkId, PackId};
use crate::monitor::Monitor;
use crate::names;
use crate::pack::PACK_LIMIT;
use crate::store::{Store, of_vault};
use crate::transfer::Transfer;
use crate::vault::VaultError;

/// A pack that does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unopened {
    /// Its name.
    pub id: PackId,
    /// Its length, as the vault lists it.
    pub len: u64,
}

/// Those that may go. Nothing is asked, of the vault or the catalog, if there are none.
pub(super) fn that_may_go(
    store: &Store,
    vault: VaultNo,
    live: &HashSet<ChunkId>,
    (rows, others): (&[PackRow], &Others),
    monitor: &dyn Monitor,
) -> Result<Vec<Unopened>, StoreError> {
    let (somewhere, nowhere) = damaged_for_certain(store, vault)?;
    let mut going = Vec::new();
    if !somewhere.is_empty() && is_all_in_vault(store, vault, live, rows)? {
        going.extend(somewhere);
    }
    if !nowhere.is_empty() {
        if is_all_elsewhere(store, vault, live, (rows, others), monitor)? {
            going.extend(nowhere);
        } else {
            let why = "something that recovery points need was read in no other pack; \
                       prune removes it once check --read-data or scrub has read them";
            nowhere.into_iter().for_each(|pack| it_stays(store, vault, pack, why, monitor));
        }
    }
    Ok(going)
}

fn it_stays(store: &Store, vault: VaultNo, pack: Unopened, why: &str, monitor: &dyn Monitor) {
    let address = store.catalog().vault_address(vault);
    tell(
        monitor,
        names::pack(&pack.id).as_str(),
        format!("vault {address}: it does not open, and stays: {why}"),
    );
}

/// Those whose bytes are wrong: such as staging has whole, and such as nobody has.
fn damaged_for_certain(store: &Store, vault: VaultNo) -> Result<(Vec<Unopened>, Vec<Unopened>), StoreError> {
    let transfer = store.vault(vault)?;
    let of_vault: Vec<_> = store.unopened().iter().map(|(key, len)| (*key, *len)).collect();
    let (mut somewhere, mut nowhere) = (Vec::new(), Vec::new());
    for ((_, id), len) in of_vault.into_iter().filter(|((no, _), _)| *no == vault) {
        let found = match store.catalog().pack_by_id(&id)? {
            Some(row) if row.staged && is_whole_here(store, &id)? => &mut somewhere,
            // The next push sends it again.
            Some(row) if row.staged || !row.vaults.is_empty() => continue,
            _ => &mut nowhere,
        };
        // The last: it reads the vault's copy, twice.
        if is_other_than_its_name(transfer, &id)? {
            found.push(Unopened { id, len });
        }
    }
    Ok((somewhere, nowhere))
}

/// Whether staging has the bytes of its name.
fn is_whole_here(store: &Store, id: &PackId) -> Result<bool, StoreError> {
    match store.staging().read_all(&names::pack(id), PACK_LIMIT) {
        Ok(bytes) => Ok(bytes.is_some_and(|bytes| *blake3::hash(&bytes).as_bytes() == id.0)),
        Err(e @ StoreError::Cancelled) => Err(e),
        // A disk that does not give it is no reason to plan nothing.
        Err(_) => Ok(false),
    }
}

/// Whether the bytes are the same wrong ones twice: the way from the vault may flip bits, though not the same ones each time.
fn is_other_than_its_name(transfer: &Transfer, id: &PackId) -> Result<bool, StoreError> {
    // It may be as long as a pack can be: one at a time is enough in memory.
    let read = || match transfer.get(&names::pack(id), PACK_LIMIT) {
        Ok(bytes) => Ok(Some(*blake3::hash(&bytes).as_bytes())),
        Err(VaultError::NotFound { .. } | VaultError::TooShort { .. } | VaultError::Invalid { .. }) => {
            Ok(None)
        }
        Err(e) => Err(of_vault(transfer)(e)),
    };
    let Some(first) = read()?.filter(|hash| *hash != id.0) else { return Ok(false) };
    Ok(read()? == Some(first))
}

/// Whether the vault has all that its points need without them.
fn is_all_in_vault(
    store: &Store,
    vault: VaultNo,
    live: &HashSet<ChunkId>,
    rows: &[PackRow],
) -> Result<bool, StoreError> {
    let seen = sound(store, Place::Vault(vault), rows)?;
    is_each_in(store, live, |pack| seen.contains(&pack))
}

/// Whether each chunk that a point needs lies in a pack that was seen for this plan where it was read and proven.
fn is_all_elsewhere(
    store: &Store,
    vault: VaultNo,
    live: &HashSet<ChunkId>,
    (rows, others): (&[PackRow], &Others),
    monitor: &dyn Monitor,
) -> Result<bool, StoreError> {
    let staged = seen_in(store, Place::Staging, Deadline::NEVER, monitor)?;
    let mut proven = HashSet::new();
    for (place, rows) in [(Place::Staging, staged.as_slice()), (Place::Vault(vault), rows)] {
        proven.extend(proven_among(store, place, &sound(store, place, rows)?)?);
    }
    let Some(needed) = others.needed() else { return Ok(false) };
    let needed = live.iter().chain(needed);
    is_each_in(store, needed, |pack| proven.contains(&pack) || others.has_proven(pack))
}

fn is_each_in<'a>(
    store: &Store,
    chunks: impl IntoIterator<Item = &'a ChunkId>,
    counts: impl Fn(PackNo) -> bool,
) -> Result<bool, StoreError> {
    for id in chunks {
        if !store.catalog().locate_all(id)?.iter().any(|at| counts(at.pack)) {
            return Ok(false);
        }
    }
    Ok(true)
}
