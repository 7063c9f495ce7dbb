//! `holdfast hold`: points that stay whatever happens, until they are released.

use std::collections::HashSet;
use std::ffi::OsString;

use clap::Args;
use holdfast_store::StoreError;
use holdfast_store::catalog::{PointRow, VaultNo};
use holdfast_store::clock::{Deadline, Timestamp};
use holdfast_store::copy::prove_ours;
use holdfast_store::error::ErrorClass;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::hold::Hold;
use holdfast_store::store::Store;
use holdfast_store::transfer::Transfer;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use super::scope::{Points, ScopeArgs, parse_spec};
use crate::args::values;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Failures, Outcome};
use crate::patience;
use crate::point_spec::PointSpec;
use crate::terminal::text;

/// Keep recovery points whatever happens
///
/// A point that is held is removed by nothing: not by rules, not by the configuration, not by name, in no tier, until `release` lets it
/// go. The hold lies in the store's directory and in each vault that has the point, so it outlives the catalog and this machine. A
/// vault that is away is told of it by the next `vault push` or `backup --online`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast hold latest --reason 'before the migration'
  holdfast hold 1f2e3d4c docs@2026-11-20
  holdfast snapshots --json | jq '.[] | select(.held)'")]
pub struct HoldArgs {
    /// Points to hold
    #[arg(value_name = "POINT", required = true)]
    points: Vec<OsString>,
    /// Why, for whoever comes to it later
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = values::reason)]
    reason: String,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// A point that is held now.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Always `hold`.
    message_type: &'static str,
    id: String,
    since: String,
    reason: &'a str,
}

/// Holds here first, then tells the vaults. What is said of a point is what is so when they know: another machine may have removed it.
pub fn run(context: &Context<'_>, args: &HoldArgs) -> Outcome {
    let specs = parse(&args.points)?;
    let store = open_store(context)?;
    let ids = find(&store, &specs, &args.scope)?;
    let holds = ids.iter().map(|id| store.place_hold(id, &args.reason)).collect::<Result<Vec<_>, _>>()?;
    let (mut gone, mut done) = (HashSet::new(), Done::Whole);
    for (no, address, transfer) in store.vaults() {
        let mut rows = Vec::new();
        for row in store.catalog().known_of(&ids)? {
            rows.extend(store.vaults_of(&row)?.contains(no).then_some(row));
        }
        if rows.is_empty() {
            continue;
        }
        match tell(&store, *no, transfer, &rows) {
            Ok(missing) => gone.extend(missing.into_iter().map(|id| (*no, id))),
            Err(e) if e.class() == ErrorClass::Cancelled => return Err(e.into()),
            Err(e) => {
                let later = "it does not know of the hold yet; the next `vault push` tells it";
                context.terminal.warn(&format!("vault {address}: {later}: {}", e.beside_vault()));
                done = Done::Partial;
            }
        }
    }
    for (no, address, _) in store.vaults() {
        for id in ids.iter().filter(|id| gone.contains(&(*no, **id))) {
            context.terminal.warn(&format!("vault {address}: {}", not_there(id)));
            done = Done::Partial;
        }
    }
    let mut failures = Failures::default();
    for hold in &holds {
        failures.note(conclude(context, &store, hold, &gone))?;
    }
    failures.or(done)
}

/// Those of the points that the vault has not any more. Looked for when it knows of the holds: who removes a point looks for them the other
/// way round.
fn tell(
    store: &Store,
    no: VaultNo,
    transfer: &Transfer,
    rows: &[PointRow],
) -> Result<Vec<RecoveryPointId>, StoreError> {
    // Another machine may have released what this one remembers.
    learn(store, no, transfer)?;
    store.bring_holds(no)?;
    let mut missing = Vec::new();
    for row in rows {
        if !store.is_still_in(no, row)? {
            missing.push(row.id);
        }
    }
    Ok(missing)
}

/// Makes this machine know what is held in a vault, if that answers soon.
pub(super) fn learn(store: &Store, no: VaultNo, transfer: &Transfer) -> Result<(), StoreError> {
    let soon = Deadline::after(store.clock().as_ref(), patience::SOON);
    prove_ours(store, transfer, soon)?;
    store.learn_holds(no, transfer, soon)
}

/// Says that a point is held, if any place has it.
fn conclude(
    context: &Context<'_>,
    store: &Store,
    hold: &Hold,
    gone: &HashSet<(VaultNo, RecoveryPointId)>,
) -> Result<(), Failure> {
    let id = hold.point;
    let is_in = |row: &PointRow| row.staged || row.vaults.iter().any(|no| !gone.contains(&(*no, id)));
    if store.catalog().point(&id)?.is_some_and(|row| is_in(&row)) {
        return show(context, hold);
    }
    for row in store.catalog().holds()?.iter().filter(|row| row.point == id && row.staged) {
        store.release_here(row)?;
    }
    Err(Failure::failed(not_there(&id)))
}

fn not_there(id: &RecoveryPointId) -> String {
    format!("recovery point {} is not there any more", id.short())
}

/// Names of whole points.
pub(super) fn parse(points: &[OsString]) -> Result<Vec<PointSpec>, Failure> {
    let whole = |point: &OsString| {
        let spec = parse_spec(point)?;
        match spec.path.is_empty() {
            true => Ok(spec),
            false => Err(Failure::usage("only whole recovery points can be held, without :PATH")),
        }
    };
    points.iter().map(whole).collect()
}

/// The points that are meant, each once.
pub(super) fn find(
    store: &Store,
    specs: &[PointSpec],
    scope: &ScopeArgs,
) -> Result<Vec<RecoveryPointId>, Failure> {
    let points = Points::of(store)?;
    let mut ids = Vec::new();
    for spec in specs {
        let id = points.find(&spec.point, &scope.scope())?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn show(context: &Context<'_>, hold: &Hold) -> Result<(), Failure> {
    if !context.terminal.json() {
        return context.terminal.say(&format!("recovery point {}", sentence(hold, &TimeZone::system())));
    }
    let since = text::rfc3339(Timestamp::from_seconds(hold.placed));
    let id = hold.point.hex();
    context.terminal.json_line(&Line { message_type: "hold", id, since, reason: &hold.reason })
}

/// Which point is held since when and why.
pub(super) fn sentence(hold: &Hold, zone: &TimeZone) -> String {
    let since = text::local_time(Timestamp::from_seconds(hold.placed), zone);
    let why = match hold.reason.is_empty() {
        true => String::new(),
        false => format!(": {}", text::printable_text(&hold.reason)),
    };
    format!("{} is held since {since}{why}", hold.point.short())
}
