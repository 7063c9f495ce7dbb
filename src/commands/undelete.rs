//! `holdfast undelete`: points that were deleted and have not gone yet come back.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::Args;
use serde::Serialize;

use super::Context;
use super::hold::parse;
use super::scope::{Points, ScopeArgs};
use crate::deleted::{self, Deleted};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Failures, Outcome};

/// Bring back recovery points that were deleted
///
/// What `forget` or `protect stop --delete` deleted stays for the days of `[soft-delete]` in the configuration, if it has any, and `snapshots` says
/// until when. It is named by its id: names such as `latest` do not mean it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast snapshots                        what was deleted has `deleted, goes` and a time
  holdfast undelete 1f2e3d4c")]
pub struct UndeleteArgs {
    /// Points to bring back
    #[arg(value_name = "POINT", required = true)]
    points: Vec<OsString>,
}

/// A point that came back.
#[derive(Debug, Serialize)]
struct Line {
    /// Always `undelete`.
    message_type: &'static str,
    id: String,
}

/// Brings back.
pub fn run(context: &Context<'_>, args: &UndeleteArgs) -> Outcome {
    let specs = parse(&args.points)?;
    let store = open_store(context)?;
    // Nobody removes what is due meanwhile.
    let lock = store.lock_vault_removals()?;
    let deleted = Deleted::load(store.dir());
    // A point whose removal was cut off is in no list before it is put again. What nobody wants back of these goes with the next run.
    for id in store.catalog().going_here()?.iter().filter(|id| deleted.goes(id).is_some()) {
        store.keep_staged_point(id)?;
    }
    let points = Points::of(&store)?;
    let scope = ScopeArgs::default().scope();
    let ids = specs
        .iter()
        .map(|spec| points.find(&spec.point, &scope))
        .collect::<Result<BTreeSet<_>, Failure>>()?;
    let ids: Vec<_> = ids.into_iter().collect();
    let back = deleted::take_back(store.dir(), &ids)?;
    drop(lock);
    let mut failures = Failures::default();
    for id in ids {
        let told = match back.contains(&id) {
            true if context.terminal.json() => {
                context.terminal.json_line(&Line { message_type: "undelete", id: id.hex() })
            }
            true => context.terminal.say(&format!("recovery point {} is back", id.short())),
            false => Err(Failure::failed(format!("recovery point {} is not deleted", id.short()))),
        };
        failures.note(told)?;
    }
    failures.or(Done::Whole)
}
