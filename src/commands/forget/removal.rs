//! Removing recovery points from every place that holds them, or from one tier: from staging, or from the vaults.
//!
//! Which vaults that are, the catalog alone does not know: after a loss it takes no point of a vault for whole, though the vault shows
//! them all, and a push that was cut off may have put one there. So each vault is asked for its list before anything goes from one.

use std::collections::{BTreeSet, HashSet};

use holdfast_store::catalog::{PointRow, VaultNo};
use holdfast_store::clock::{Deadline, Timestamp};
use holdfast_store::error::ErrorClass;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::store::{Store, StoreLock};
use holdfast_store::transfer::Transfer;
use holdfast_store::vault::VaultError;
use holdfast_store::vault::keeper::{DAY, Lock};
use holdfast_store::{StoreError, copy, names};

use super::is_held;
use crate::commands::Context;
use crate::deleted;
use crate::outcome::{Done, Failure, Failures, Outcome};
use crate::patience;

/// What the vaults list that answered.
type Shown = Vec<(VaultNo, HashSet<RecoveryPointId>)>;

/// What is known of vaults before anything goes from one.
pub(super) struct Asked {
    shown: Shown,
    done: Done,
}

/// Removes the points from every place, from the vaults first: what fails there leaves points that can be forgotten again. The store is
/// locked only when no vault is waited for any more. Those that turn out to be held stay, and are named when the others are gone.
pub(super) fn remove_everywhere(
    context: &Context<'_>,
    store: &Store,
    vaults: &StoreLock,
    ids: &BTreeSet<RecoveryPointId>,
) -> Outcome {
    let (mut ids, mut failures) = (ids.clone(), Failures::default());
    let asked = ask(context, store, vaults, &ids)?;
    let (done, locked) = remove_from_vaults(context, store, &asked, &mut ids, &mut failures)?;
    let lock = store.lock()?;
    remove_from_staging(context, store, &lock, &mut ids, &mut failures)?;
    drop(lock);
    failures.or(if remember(context, store, &locked)? { Done::Partial } else { done })
}

/// A point that a vault keeps locked, and what keeps it.
pub(super) type Locked = (RecoveryPointId, Lock);

/// Points that stay because they are locked in a vault are deleted, to go when they are not locked any more. Whether there are any.
fn remember(context: &Context<'_>, store: &Store, locked: &[Locked]) -> Result<bool, Failure> {
    let now = context.terminal.clock().now();
    for (id, lock) in locked {
        deleted::delete_until(store.dir(), std::iter::once(id), goes_at(*lock, now), now)?;
    }
    Ok(!locked.is_empty())
}

/// When a point is tried again. Of a lock that says nothing of its end, a day later.
pub(super) fn goes_at(lock: Lock, now: Timestamp) -> Timestamp {
    match lock {
        Lock::Until(at) => Timestamp::from_seconds(at),
        Lock::Held | Lock::Unknown => Timestamp::from_seconds(now.seconds.saturating_add(DAY)),
    }
}

/// Removes the points from staging that are not held.
pub(super) fn remove_from_staging(
    context: &Context<'_>,
    store: &Store,
    _lock: &StoreLock,
    ids: &mut BTreeSet<RecoveryPointId>,
    failures: &mut Failures,
) -> Result<(), Failure> {
    leave_held(store, ids, failures)?;
    for row in store.catalog().known_of(&*ids)?.iter().filter(|row| row.staged) {
        go_on(context)?;
        store.remove_staged_point(row).or_else(|e| if_held(store, row, e, ids, failures))?;
    }
    Ok(())
}

/// Asks the vaults what they hold of the points, and which of them are held there: another machine may hold what is not held here. The lock
/// is that of removals from vaults: a push would put them back.
pub(super) fn ask(
    context: &Context<'_>,
    store: &Store,
    _lock: &StoreLock,
    ids: &BTreeSet<RecoveryPointId>,
) -> Result<Asked, Failure> {
    let rows = store.catalog().known_of(ids)?;
    if rows.is_empty() {
        return Ok(Asked { shown: Vec::new(), done: Done::Whole });
    }
    let (shown, done) = ask_vaults(context, store, &rows)?;
    Ok(Asked { shown, done })
}

/// Removes the points that are not held from all vaults that were asked.
pub(super) fn remove_from_vaults(
    context: &Context<'_>,
    store: &Store,
    asked: &Asked,
    ids: &mut BTreeSet<RecoveryPointId>,
    failures: &mut Failures,
) -> Result<(Done, Vec<Locked>), Failure> {
    leave_held(store, ids, failures)?;
    let mut locked = Vec::new();
    for row in store.catalog().known_of(&*ids)? {
        go_on(context)?;
        // In one that lost it stands then that it was on purpose.
        let known = store.vaults_of(&row)?;
        let has = |(no, shown): &&(VaultNo, HashSet<RecoveryPointId>)| {
            known.contains(no) || shown.contains(&row.id)
        };
        let holders: Vec<VaultNo> = asked.shown.iter().filter(has).map(|(no, _)| *no).collect();
        let mut stays = |vault: &str, lock: Lock, ids: &mut BTreeSet<RecoveryPointId>| {
            ids.remove(&row.id);
            let told = format!("vault {vault}: recovery point {} stays: it is {lock}", row.id.short());
            context.terminal.warn(&format!("{told}, and goes with a later `prune` or `forget`"));
            locked.push((row.id, lock));
        };
        // Before it goes from the first: what one vault keeps stays in the others.
        if holders.len() > 1
            && let Some((no, lock)) = lock_in(store, &holders, &row)?
        {
            stays(&store.catalog().vault_address(no), lock, ids);
            continue;
        }
        for no in &holders {
            match store.remove_point_from_vault(*no, &row) {
                Err(StoreError::Vault { vault, source: VaultError::Locked { lock, .. } }) => {
                    stays(&vault, lock, ids);
                }
                removed => removed.or_else(|e| if_held(store, &row, e, ids, failures))?,
            }
            if !ids.contains(&row.id) {
                break;
            }
        }
    }
    Ok((asked.done, locked))
}

/// The first of the vaults that keeps a point locked.
fn lock_in(
    store: &Store,
    holders: &[VaultNo],
    row: &PointRow,
) -> Result<Option<(VaultNo, Lock)>, StoreError> {
    for no in holders {
        if let Some(lock) = store.lock_of_point(*no, row)? {
            return Ok(Some((*no, lock)));
        }
    }
    Ok(None)
}

/// Leaves out those that are held, and names them.
pub(super) fn leave_held(
    store: &Store,
    ids: &mut BTreeSet<RecoveryPointId>,
    failures: &mut Failures,
) -> Result<(), Failure> {
    for (id, hold) in store.holds()? {
        if ids.remove(&id) {
            failures.note(Err::<(), _>(is_held(&hold)))?;
        }
    }
    Ok(())
}

/// A point that could not be removed because somebody just holds it stays like those that were held before, and one whose hold does not open.
fn if_held(
    store: &Store,
    row: &PointRow,
    error: StoreError,
    ids: &mut BTreeSet<RecoveryPointId>,
    failures: &mut Failures,
) -> Result<(), Failure> {
    let hold = names::hold(&row.tag, &row.id);
    if matches!(&error, StoreError::Corrupt { object, .. } if object == hold.as_str()) {
        ids.remove(&row.id);
        return failures.note(Err::<(), _>(error.into())).map(drop);
    }
    if !store.catalog().is_held(&row.id)? {
        return Err(error.into());
    }
    leave_held(store, ids, failures)
}

fn go_on(context: &Context<'_>) -> Result<(), Failure> {
    if context.terminal.cancelled() { Err(Failure::interrupted()) } else { Ok(()) }
}

/// What each vault lists. All that are known to hold one of the points must answer before the first step; another one that does
/// not is told.
fn ask_vaults(context: &Context<'_>, store: &Store, rows: &[PointRow]) -> Result<(Shown, Done), Failure> {
    let mut holders = HashSet::new();
    for row in rows {
        holders.extend(store.vaults_of(row)?);
    }
    holders.iter().try_for_each(|no| store.vault(*no).map(drop))?;
    let (mut shown, mut done) = (Vec::new(), Done::Whole);
    for (no, address, transfer) in store.vaults() {
        let deadline = match holders.contains(no) {
            true => patience::FOR_A_VAULT,
            false => Deadline::after(store.clock().as_ref(), patience::SOON),
        };
        let shows = points_in(store, transfer, deadline);
        match shows.and_then(|points| store.learn_holds(*no, transfer, deadline).map(|()| points)) {
            Ok(points) => {
                store.are_not_going(Some(*no), points.iter().copied())?;
                shown.push((*no, points));
            }
            Err(e) if e.class() == ErrorClass::Cancelled || holders.contains(no) => return Err(e.into()),
            Err(e) => {
                let held = "what it holds of these recovery points stays there, and comes back with it";
                context.terminal.warn(&format!("vault {address}: {held}: {}", e.beside_vault()));
                done = Done::Partial;
            }
        }
    }
    Ok((shown, done))
}

/// An empty directory where a disk is not mounted lists nothing: it must be this store's vault.
fn points_in(
    store: &Store,
    transfer: &Transfer,
    deadline: Deadline,
) -> Result<HashSet<RecoveryPointId>, StoreError> {
    copy::prove_ours(store, transfer, deadline)?;
    let failed = |source| StoreError::Vault { vault: transfer.address(), source };
    let listed = names::list(transfer, names::POINTS, deadline).map_err(failed)?;
    Ok(listed.iter().filter_map(|object| Some(names::point_of(&object.name)?.1)).collect())
}
