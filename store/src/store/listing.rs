//! The catalog against what a vault lists now: a vault may lose what it confirmed, or show what nobody put there. What was missed once casts
//! doubt on all that relied on it.

use std::collections::{BTreeMap, HashSet};

use super::vaults::{of_vault, prove_ours};
use super::{Evidence, Fate, Outcomes, Store, learn, slots};
use crate::catalog::{Mark, PackNo, PackRow, PointRow, Relied, VaultNo};
use crate::clock::Deadline;
use crate::error::{ErrorClass, StoreError};
use crate::id::{PackId, RecoveryPointId};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::pack::PackedChunk;
use crate::transfer::Transfer;
use crate::vault::ObjectInfo;

/// Makes the catalog agree with listings of the vault: only packs that are there with the right length count, and only points that
/// are there. After a loss nothing in the vault is taken for whole until it was looked up pack by pack. Packs that are there
/// and that the catalog does not know are read. A vault that lost all its key slots gets them back, for without one nothing in
/// it can be recovered.
pub fn refresh_vault(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    store.mend_packs(monitor)?;
    match see_vault(store, no, transfer, Deadline::NEVER, monitor) {
        // It may be the config, which is here.
        Err(StoreError::Corrupt { .. }) if slots::config_is_put_right(store, transfer, monitor)? => {
            see_vault(store, no, transfer, Deadline::NEVER, monitor)?;
        }
        seen => seen?,
    }
    store.learn_holds(no, transfer, Deadline::NEVER)?;
    slots::look_at_slots(store, no, transfer, monitor)
}

/// The same for who puts nothing into the vault.
pub(crate) fn see_vault(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    deadline: Deadline,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let listed = compare_with_listing(store, no, transfer, deadline, monitor)?;
    learn::learn_packs(store, no, transfer, &listed, deadline, monitor).map(drop)
}

/// The comparison alone, unless the deadline passes before the vault has listed what it holds; the packs that are there.
pub(super) fn compare_with_listing(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    deadline: Deadline,
    monitor: &dyn Monitor,
) -> Result<Listed, StoreError> {
    prove_ours(store, transfer, deadline)?;
    let before = Confirmed::in_vault(store, no)?;
    let remembered = store.before(no)?;
    let listed = listed_packs(transfer, deadline)?;
    // After the packs: whoever removed one said so before.
    let followed = store.read_generations_or_tell(no, transfer, deadline, monitor);
    let points = names::list(transfer, names::POINTS, deadline).map_err(of_vault(transfer))?;
    if let Err(e) = followed {
        if e.class() == ErrorClass::Corrupt {
            doubt_what_is_not_shown(store, (no, transfer), &points, &before)?;
        }
        return Err(e);
    }
    let Seen { missed, damaged } = see_packs(store, no, transfer, &listed, &before, monitor)?;
    let catalog = store.catalog();
    let mut losses = catalog.losses(no)?;
    // Whoever missed something before may have been cut off.
    let lost = !missed.is_empty() || losses != catalog.losses_doubted(no)?;
    let incomplete = lost || lacks_what_can_be_sent(store, no, &damaged)?;
    if incomplete {
        catalog.forget_proven(no)?;
    }
    if incomplete || !damaged.is_empty() {
        catalog.set_mark(Mark::Doubtful, true)?;
    }
    // Before the points: one that comes there just now is among these, or whoever brings it sees that something was missed.
    if !missed.is_empty() {
        losses = catalog.miss_listed(&missed, no)?;
    }
    refresh_points(store, (no, transfer), &points, &before, incomplete, monitor)?;
    catalog.set_losses_doubted(no, losses)?;
    let evidence = Evidence { packs_missed: missed.len(), ..Evidence::default() };
    store.look_back(no, transfer, &remembered, &points, evidence, monitor)?;
    store.reader().forget_places();
    Ok(listed)
}

/// Of a vault that is not to be believed it is believed that it has not what it does not show: local copies wait for it.
fn doubt_what_is_not_shown(
    store: &Store,
    (no, transfer): (VaultNo, &Transfer),
    listed: &[ObjectInfo],
    before: &Confirmed,
) -> Result<(), StoreError> {
    let (listed, mut missing) = (Outcomes::of(listed), Vec::new());
    for row in store.catalog().known_of(&before.points)? {
        let is_missing = match store.fate_in(no, transfer, &row, &listed) {
            // What only a newer key opens stands in its place.
            Err(StoreError::NoKey { .. }) => false,
            fate => fate? == Fate::Missing && !store.end_removal(&row.id, Some((no, &row.tag)))?,
        };
        missing.extend(is_missing.then_some(row.id));
    }
    store.doubt_points(no, &missing)
}

/// What a listing says of the packs that are known.
#[derive(Default)]
struct Seen {
    /// Those that are missing, or have another length.
    missed: Vec<PackNo>,
    /// Those that are there and were found damaged.
    damaged: Vec<PackNo>,
}

/// Packs that are there from now on are known to be.
fn see_packs(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    listed: &Listed,
    before: &Confirmed,
    monitor: &dyn Monitor,
) -> Result<Seen, StoreError> {
    let (catalog, mut seen) = (store.catalog(), Seen::default());
    let (bad, rows) = (catalog.bad_in(no)?, catalog.packs_ever_seen()?);
    let (gone, mut is_doubted) = (gone_by_right(store, no, &rows, listed)?, false);
    for row in rows {
        let id = &row.entry.id;
        let found = listed.get(id);
        match (row.vaults.contains(&no), found == Some(&row.entry.len)) {
            (true, false) if !before.packs.contains(&row.no) => {}
            (true, false) if gone.contains(id) => {
                // A local point may have relied on it: its upload was revoked, say.
                if !std::mem::replace(&mut is_doubted, true) {
                    catalog.set_mark(Mark::Doubtful, true)?;
                }
                catalog.set_confirmed(row.no, no, false)?;
            }
            (true, false) => {
                let wrong = match found {
                    None => "is missing from".to_owned(),
                    Some(len) => format!("has {len} bytes instead of {} in", row.entry.len),
                };
                let reason = format!("the pack {wrong} vault {}", transfer.address());
                monitor.event(Event::Problem { path: names::pack(id).as_str().into(), reason });
                seen.missed.push(row.no);
            }
            (false, true) => catalog.set_confirmed(row.no, no, true)?,
            (true, true) if bad.contains(id) => seen.damaged.push(row.no),
            (true, true) | (false, false) => {}
        }
    }
    Ok(seen)
}

/// Packs that are missing from a vault because somebody freed their space there.
fn gone_by_right(
    store: &Store,
    no: VaultNo,
    rows: &[PackRow],
    listed: &Listed,
) -> Result<HashSet<PackId>, StoreError> {
    let missing = |row: &&PackRow| row.vaults.contains(&no) && !listed.contains_key(&row.entry.id);
    let missing: HashSet<PackId> = rows.iter().filter(missing).map(|row| row.entry.id).collect();
    store.catalog().let_go_of(no, &missing)
}

/// Whether a damaged pack holds something that no other pack of the vault has, and that another place has whole: a push sends it
/// again, be it in other packs.
fn lacks_what_can_be_sent(store: &Store, no: VaultNo, damaged: &[PackNo]) -> Result<bool, StoreError> {
    if damaged.is_empty() {
        return Ok(false);
    }
    let catalog = store.catalog();
    let others = catalog.vaults()?.into_iter().map(|vault| vault.0).filter(|vault| *vault != no);
    let others = Relied { vaults: others.collect(), ..Relied::default() };
    let mut sound = catalog.packs_in(no)?;
    // What is to go is no place to rely on, though it may be the last: what it has is sent again.
    let condemned = store.condemned_in(no)?;
    sound.retain(|pack| !damaged.contains(pack) && !condemned.contains(pack));
    // One that is to go counts as well: an upload that began before may have relied on it and arrived since.
    for pack in damaged {
        let chunks = match catalog.chunks_of(*pack) {
            // Nobody knows what it holds: each point looks.
            Err(e) if e.class() == ErrorClass::Corrupt => return Ok(true),
            chunks => chunks?,
        };
        for PackedChunk { id, .. } in chunks {
            let is_there = catalog.locate_all(&id)?.iter().any(|at| sound.contains(&at.pack));
            if !is_there && catalog.is_in(&id, &others)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What the catalog said to be in a vault before that was listed. Others push meanwhile: a listing takes away only what was
/// there before it began and still is when it has ended.
struct Confirmed {
    packs: HashSet<PackNo>,
    points: HashSet<RecoveryPointId>,
}

impl Confirmed {
    fn in_vault(store: &Store, no: VaultNo) -> Result<Self, StoreError> {
        Ok(Self { packs: store.catalog().packs_in(no)?, points: learn::known_points(store, no)? })
    }
}

/// A point that a vault no longer shows is no longer in it. After a loss of packs no point is taken for whole, not even one that
/// came there just now: each that staging or another vault holds is put again, which sends what it misses. One that is nowhere else stays known.
fn refresh_points(
    store: &Store,
    (no, transfer): (VaultNo, &Transfer),
    listed: &[ObjectInfo],
    before: &Confirmed,
    lost: bool,
    monitor: &dyn Monitor,
) -> Result<(), StoreError> {
    let (listed, mut incomplete) = (Outcomes::of(listed), Vec::new());
    let doubted = store.incomplete_in(no)?;
    // What is damaged keeps its places until it is put right.
    for row in store.catalog().sound_points()? {
        let is_there = row.vaults.contains(&no);
        if !is_there && !doubted.contains(&row.id) {
            continue;
        }
        let fate = match store.fate_in(no, transfer, &row, &listed) {
            // Something that only a newer key opens stands in its place: to this ring it is where it was.
            Err(StoreError::NoKey { generation, .. }) => {
                store.tell_newer_key(no, transfer, generation, monitor);
                continue;
            }
            fate => fate?,
        };
        let revoked = fate == Fate::Forgotten;
        let there = fate == Fate::There || !before.points.contains(&row.id);
        // Somebody may have taken it for dead before it was said that it was forgotten.
        if (revoked || !there) && store.end_removal(&row.id, Some((no, &row.tag)))? {
            continue;
        }
        if revoked {
            store.catalog().remove_point(&row.id, Some(no))?;
        }
        if !revoked && there && listed.shown(&row).is_some() {
            stays(store, no, &row)?;
        }
        if revoked || !is_there {
            continue;
        }
        let is_other = before.points.contains(&row.id)
            && listed.shown(&row).is_none()
            && !listed.at(&row.tag, &row.id).is_empty();
        let wrong = match (there, is_other) {
            (false, _) => Some("the recovery point is missing"),
            // What is damaged there is put again, too.
            (true, true) => Some("the recovery point has another length there"),
            (true, false) => None,
        };
        if let Some(wrong) = wrong {
            let reason = format!("vault {}: {wrong}", transfer.address());
            monitor.event(Event::Problem { path: names::point(&row.tag, &row.id).as_str().into(), reason });
        }
        if lost || wrong.is_some() {
            incomplete.push(row.id);
        }
    }
    store.doubt_points(no, &incomplete)
}

/// A point that is there though it was to go is not going any more, where its removal was cut off: nobody is at it.
fn stays(store: &Store, no: VaultNo, row: &PointRow) -> Result<(), StoreError> {
    if !store.catalog().has_mark(Mark::Going(Some(no), row.id))? {
        return Ok(());
    }
    match store.lock_vault_removals().and_then(|_lock| store.are_not_going(Some(no), [row.id])) {
        // Somebody is at it after all, or this one may not write there: it is left to the next look.
        Err(e)
            if matches!(
                e.class(),
                ErrorClass::Locked | ErrorClass::Denied | ErrorClass::Unavailable | ErrorClass::Full
            ) =>
        {
            tracing::debug!("recovery point {}: {e}; it still counts as going", row.id.short());
            Ok(())
        }
        stays => stays,
    }
}

/// Lengths of the packs that a listing shows.
pub(crate) type Listed = BTreeMap<PackId, u64>;

pub(crate) fn listed_packs(transfer: &Transfer, deadline: Deadline) -> Result<Listed, StoreError> {
    let pack = |object: &ObjectInfo| Some((names::pack_of(&object.name)?, object.len));
    let listed = transfer.list_as(names::PACKS, deadline, pack).map_err(of_vault(transfer))?;
    Ok(listed.into_iter().collect())
}
