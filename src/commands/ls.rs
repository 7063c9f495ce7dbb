//! `holdfast ls`: what a recovery point holds, without a mount.

use std::ffi::OsString;

use clap::Args;
use holdfast_store::store::StoredPoint;
use holdfast_store::tree::{Node, NodeKind};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use super::scope::{ScopeArgs, find_point, parse_spec};
use crate::json::{NodeLine, Snapshot, permissions};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::{Terminal, text};

/// List what a recovery point holds
///
/// Lists everything below a path of a recovery point, one line each. Paths are relative to the data source, so a file
/// /home/me/notes of the source /home/me is `latest:notes`. With --long it shows what `ls -l` shows.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast ls latest                        everything in the newest point
  holdfast ls latest:projects --long        below one directory, with owners and sizes
  holdfast ls docs@2026-11-20 --flat        the top of a point that was taken that day or before")]
pub struct LsArgs {
    /// POINT or POINT:PATH
    #[arg(value_name = "POINT[:PATH]")]
    point: OsString,
    /// Show type, permissions, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Only the directory itself, not what is below its directories
    #[arg(long)]
    flat: bool,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// A node at its path within the point.
#[derive(Debug)]
pub struct Entry {
    /// Raw bytes, without `/` at the beginning.
    pub path: Vec<u8>,
    /// What stands there.
    pub node: Node,
}

/// Lists it.
pub fn run(context: &Context<'_>, args: &LsArgs) -> Outcome {
    let spec = parse_spec(&args.point)?;
    let store = open_store(context)?;
    let point = find_point(&store, &spec, &args.scope.scope())?;
    let terminal = context.terminal;
    if terminal.json() {
        terminal.json_line(&Header { message_type: "snapshot", snapshot: Snapshot::from(&point) })?;
    }
    for entry in entries(&point, &spec.path, args.flat)? {
        show(terminal, &entry, args.long)?;
    }
    Ok(Done::Whole)
}

fn entries(_point: &StoredPoint, _path: &[u8], _flat: bool) -> Result<Vec<Entry>, Failure> {
    Err(Failure::not_built("ls"))
}

/// First line of `ls --json`.
#[derive(Serialize)]
struct Header {
    message_type: &'static str,
    #[serde(flatten)]
    snapshot: Snapshot,
}

fn show(terminal: &Terminal, entry: &Entry, long: bool) -> Result<(), Failure> {
    if terminal.json() {
        return terminal.json_line(&NodeLine::of(&entry.path, &entry.node));
    }
    let mut line = if long { long_line(&entry.node, &TimeZone::system()).into_bytes() } else { Vec::new() };
    line.extend(terminal.name(&entry.path));
    if long && let Some(target) = &entry.node.target {
        line.extend(b" -> ");
        line.extend(terminal.name(target));
    }
    line.push(b'\n');
    terminal.bytes(&line)
}

/// Everything before the name in a long line.
fn long_line(node: &Node, zone: &TimeZone) -> String {
    let owner =
        |name: &Option<Vec<u8>>, id: u32| name.as_deref().map_or_else(|| id.to_string(), text::printable);
    let size = match (node.kind, node.device) {
        (NodeKind::CharDevice | NodeKind::BlockDevice, Some((major, minor))) => format!("{major}, {minor}"),
        _ => node.size.to_string(),
    };
    format!(
        "{} {:<8} {:<8} {size:>12} {} ",
        permissions(node.kind, node.mode),
        owner(&node.user, node.uid),
        owner(&node.group, node.gid),
        text::local_time(node.mtime, zone)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::node;

    #[test]
    fn a_long_line_reads_like_ls() {
        let file = node(b"a", NodeKind::File);
        assert_eq!(
            long_line(&file, &TimeZone::UTC),
            "-rw-r--r-- me       1000                5 2026-11-20 12:00:00 "
        );
        let device = Node { device: Some((8, 1)), mode: 0o660, ..node(b"sda1", NodeKind::BlockDevice) };
        assert!(long_line(&device, &TimeZone::UTC).starts_with("brw-rw---- me       1000             8, 1 "));
    }
}
