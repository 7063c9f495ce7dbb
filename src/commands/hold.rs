//! `holdfast hold`: points that stay whatever happens, until they are released.

use std::ffi::OsString;

use clap::Args;
use holdfast_store::StoreError;
use holdfast_store::catalog::VaultNo;
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
use crate::outcome::{Done, Failure, Outcome};
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

/// Holds here first, then tells the vaults.
pub fn run(context: &Context<'_>, args: &HoldArgs) -> Outcome {
    let specs = parse(&args.points)?;
    let store = open_store(context)?;
    let ids = find(&store, &specs, &args.scope)?;
    for id in &ids {
        show(context, &store.place_hold(id, &args.reason)?)?;
    }
    let mut done = Done::Whole;
    for (no, address, transfer) in store.vaults() {
        let has =
            ids.iter().map(|id| Ok(store.catalog().point(id)?.is_some_and(|row| row.vaults.contains(no))));
        if !has.collect::<Result<Vec<bool>, StoreError>>()?.contains(&true) {
            continue;
        }
        match tell(&store, *no, transfer) {
            Ok(()) => {}
            Err(e) if e.class() == ErrorClass::Cancelled => return Err(e.into()),
            Err(e) => {
                let later = "it does not know of the hold yet; the next `vault push` tells it";
                context.terminal.warn(&format!("vault {address}: {later}: {}", e.beside_vault()));
                done = Done::Partial;
            }
        }
    }
    Ok(done)
}

fn tell(store: &Store, no: VaultNo, transfer: &Transfer) -> Result<(), StoreError> {
    prove_ours(store, transfer, Deadline::after(store.clock().as_ref(), patience::SOON))?;
    store.bring_holds(no).map(drop)
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
