//! `holdfast release`: the end of a hold.

use std::collections::HashSet;
use std::ffi::OsString;

use clap::Args;
use holdfast_store::StoreError;
use holdfast_store::catalog::{HoldRow, VaultNo};
use holdfast_store::error::ErrorClass;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::store::Store;
use holdfast_store::transfer::Transfer;
use serde::Serialize;

use super::Context;
use super::hold::{find, learn, parse};
use super::key::owner::{self, Act};
use super::scope::ScopeArgs;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Failures, Outcome};

/// Let recovery points go that were held
///
/// From then on the points stay and go as others do. The hold is taken away from the vaults and from the store's directory. A vault that
/// has it and does not answer is named, and the point stays held until it is released there as well, with the same command. With
/// `[soft-delete]` in the configuration it asks for a passphrase or the words of the recovery sheet.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast release 1f2e3d4c
  holdfast release docs@2026-11-20 latest~3")]
pub struct ReleaseArgs {
    /// Points to release
    #[arg(value_name = "POINT", required = true)]
    points: Vec<OsString>,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// A point that is not held any more.
#[derive(Debug, Serialize)]
struct Line {
    /// Always `release`.
    message_type: &'static str,
    id: String,
}

/// Releases in the vaults first: what is held there, staging may still remember.
pub fn run(context: &Context<'_>, args: &ReleaseArgs) -> Outcome {
    let specs = parse(&args.points)?;
    let store = open_store(context)?;
    let ids = find(&store, &specs, &args.scope)?;
    owner::agrees(context, store.dir(), Act::Release)?;
    let (mut failures, mut done) = (Failures::default(), Done::Whole);
    let before = held(&store, &ids)?;
    let mut were_held: HashSet<_> = before.iter().map(|row| row.point).collect();
    for (no, address, transfer) in store.vaults() {
        match release_in(&store, *no, transfer, &ids) {
            Ok(released) => were_held.extend(released),
            Err(e) if e.class() == ErrorClass::Cancelled => return Err(e.into()),
            Err(e) if before.iter().any(|row| row.vaults.contains(no)) => {
                let failure = Failure::from(e).hint("it stays held until the same command finds the vault");
                failures.note(Err(failure)).map(|_: Option<()>| ())?;
            }
            Err(e) => {
                let back = "a hold that it has comes back with it";
                context.terminal.warn(&format!("vault {address}: {back}: {}", e.beside_vault()));
                done = Done::Partial;
            }
        }
    }
    for row in held(&store, &ids)?.iter().filter(|row| row.staged) {
        store.release_here(row)?;
    }
    let left = held(&store, &ids)?;
    for id in ids.iter().filter(|id| left.iter().all(|row| row.point != **id)) {
        show(context, id, were_held.contains(id))?;
    }
    failures.or(done)
}

/// Also what another machine held there, and what does not open. Which points were held there.
fn release_in(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    ids: &[RecoveryPointId],
) -> Result<Vec<RecoveryPointId>, StoreError> {
    learn(store, no, transfer)?;
    let mut released = Vec::new();
    for row in store.catalog().known_of(ids)? {
        if store.release_in_vault(no, &row.tag, &row.id)? {
            released.push(row.id);
        }
    }
    Ok(released)
}

fn held(store: &Store, ids: &[RecoveryPointId]) -> Result<Vec<HoldRow>, StoreError> {
    Ok(store.catalog().holds()?.into_iter().filter(|row| ids.contains(&row.point)).collect())
}

fn show(context: &Context<'_>, id: &RecoveryPointId, was_held: bool) -> Result<(), Failure> {
    if context.terminal.json() {
        return context.terminal.json_line(&Line { message_type: "release", id: id.hex() });
    }
    let what = if was_held { "is released" } else { "is not held" };
    context.terminal.say(&format!("recovery point {} {what}", id.short()))
}
