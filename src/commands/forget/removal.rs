//! Removing recovery points from every place that holds them, or from one tier: from staging, or from the vaults.
//!
//! Which vaults that are, the catalog alone does not know: after a loss it takes no point of a vault for whole, though the vault shows
//! them all, and a push that was cut off may have put one there. So each vault is asked for its list before anything goes from one.

use std::collections::{BTreeSet, HashSet};

use holdfast_store::catalog::{PointRow, VaultNo};
use holdfast_store::clock::Deadline;
use holdfast_store::error::ErrorClass;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::store::{Store, StoreLock};
use holdfast_store::transfer::Transfer;
use holdfast_store::{StoreError, copy, names};

use super::is_held;
use crate::commands::Context;
use crate::outcome::{Done, Failure, Outcome};
use crate::patience;

/// What the vaults list that answered.
type Shown = Vec<(VaultNo, HashSet<RecoveryPointId>)>;

/// Removes the points from every place, from the vaults first: what fails there leaves points that can be forgotten again. The store is
/// locked only when no vault is waited for any more.
pub(super) fn remove_everywhere(
    context: &Context<'_>,
    store: &Store,
    vaults: &StoreLock,
    ids: &BTreeSet<RecoveryPointId>,
) -> Outcome {
    let done = remove_from_vaults(context, store, vaults, ids)?;
    let lock = store.lock()?;
    remove_from_staging(context, store, &lock, ids)?;
    Ok(done)
}

/// Removes the points from staging.
pub(super) fn remove_from_staging(
    context: &Context<'_>,
    store: &Store,
    _lock: &StoreLock,
    ids: &BTreeSet<RecoveryPointId>,
) -> Result<(), Failure> {
    for row in rows_of(store, ids)?.iter().filter(|row| row.staged) {
        go_on(context)?;
        store.remove_staged_point(row)?;
    }
    Ok(())
}

/// Removes the points from all vaults. The lock is that of removals from vaults: a push would put them back.
pub(super) fn remove_from_vaults(
    context: &Context<'_>,
    store: &Store,
    _lock: &StoreLock,
    ids: &BTreeSet<RecoveryPointId>,
) -> Outcome {
    let rows = rows_of(store, ids)?;
    if rows.is_empty() {
        return Ok(Done::Whole);
    }
    let (shown, done) = ask_vaults(context, store, &rows)?;
    let holds = store.holds()?;
    // Another machine may hold what is not held here.
    rows.iter().filter_map(|row| holds.get(&row.id)).try_for_each(|hold| Err(is_held(hold)))?;
    for row in rows {
        go_on(context)?;
        for (no, _) in shown.iter().filter(|(no, shown)| row.vaults.contains(no) || shown.contains(&row.id)) {
            store.remove_point_from_vault(*no, &row)?;
        }
    }
    Ok(done)
}

fn rows_of(store: &Store, ids: &BTreeSet<RecoveryPointId>) -> Result<Vec<PointRow>, Failure> {
    let rows: Result<Vec<_>, StoreError> =
        ids.iter().filter_map(|id| store.catalog().point(id).transpose()).collect();
    Ok(rows?)
}

fn go_on(context: &Context<'_>) -> Result<(), Failure> {
    if context.terminal.cancelled() { Err(Failure::interrupted()) } else { Ok(()) }
}

/// What each vault lists. All that are known to hold one of the points must answer before the first step; another one that does
/// not is told.
fn ask_vaults(context: &Context<'_>, store: &Store, rows: &[PointRow]) -> Result<(Shown, Done), Failure> {
    let holders: HashSet<VaultNo> = rows.iter().flat_map(|row| row.vaults.iter().copied()).collect();
    holders.iter().try_for_each(|no| store.vault(*no).map(drop))?;
    let (mut shown, mut done) = (Vec::new(), Done::Whole);
    for (no, address, transfer) in store.vaults() {
        let deadline = match holders.contains(no) {
            true => patience::FOR_A_VAULT,
            false => Deadline::after(store.clock().as_ref(), patience::SOON),
        };
        let shows = points_in(store, transfer, deadline);
        match shows.and_then(|points| store.learn_holds(*no, transfer, deadline).map(|()| points)) {
            Ok(points) => shown.push((*no, points)),
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
    let listed = transfer.list_all_by(names::POINTS, deadline).map_err(failed)?;
    Ok(listed.iter().filter_map(|object| Some(names::point_of(&object.name)?.1)).collect())
}
