//! `holdfast find`: in which recovery points a name exists.

use std::ffi::OsString;

use clap::Args;
use holdfast_store::store::{Store, StoredPoint};

use super::Context;
use super::ls::Entry;
use super::scope::ScopeArgs;
use crate::json::{FindLine, NodeLine};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::Terminal;

/// Search recovery points for names
///
/// Shows every file and directory whose name matches a pattern, in all recovery points or in those asked for. A pattern
/// without `/` is compared with the name alone; one with `/` with the whole path within the point.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast find report.txt                  in which points is there a report.txt?
  holdfast find -i '*.JPG' --source photos  in one data source, whatever the case
  holdfast find 'projects/*/Cargo.toml' --point latest")]
pub struct FindArgs {
    /// Shell patterns; one match is enough
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<OsString>,
    /// Only in these points
    #[arg(long = "point", value_name = "POINT")]
    points: Vec<OsString>,
    /// Upper and lower case are the same
    #[arg(short, long)]
    ignore_case: bool,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// What was found in one point.
#[derive(Debug)]
struct Found {
    point: StoredPoint,
    entries: Vec<Entry>,
}

/// Searches.
pub fn run(context: &Context<'_>, args: &FindArgs) -> Outcome {
    let store = open_store(context)?;
    let found = search(&store, args)?;
    show(context.terminal, &found)?;
    Ok(Done::Whole)
}

fn search(_store: &Store, _args: &FindArgs) -> Result<Vec<Found>, Failure> {
    Err(Failure::not_built("find"))
}

fn show(terminal: &Terminal, found: &[Found]) -> Result<(), Failure> {
    if terminal.json() {
        return terminal.json_line(&found.iter().map(as_json).collect::<Vec<FindLine>>());
    }
    for Found { point, entries } in found {
        for entry in entries {
            let mut line = format!("{}:", point.point.id.short()).into_bytes();
            line.extend(terminal.name(&entry.path));
            line.push(b'\n');
            terminal.bytes(&line)?;
        }
    }
    Ok(())
}

fn as_json(found: &Found) -> FindLine {
    FindLine {
        matches: found.entries.iter().map(|entry| NodeLine::of(&entry.path, &entry.node)).collect(),
        hits: found.entries.len() as u64,
        snapshot: found.point.point.id.hex(),
    }
}
