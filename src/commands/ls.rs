//! `holdfast ls`: what a recovery point holds, without a mount.

use std::ffi::OsString;

use clap::Args;
use holdfast_store::tree::walk::Visit;
use holdfast_store::tree::{Node, NodeKind};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use super::scope::{ScopeArgs, find_node, find_point, join, parse_spec, walk};
use crate::json::{NodeLine, Snapshot, permissions};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::{Output, text};

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

/// Lists it, each entry when it is found.
pub fn run(context: &Context<'_>, args: &LsArgs) -> Outcome {
    let spec = parse_spec(&args.point)?;
    let store = open_store(context)?;
    let point = find_point(context, &store, &spec, &args.scope.scope())?;
    let node = find_node(&store, &point, &spec.path)?;
    let mut lines = Lines {
        output: context.terminal.output(),
        json: context.terminal.json(),
        long: args.long,
        zone: TimeZone::system(),
    };
    if lines.json {
        lines.output.json_line(&Header { message_type: "snapshot", snapshot: Snapshot::from(&point) })?;
    }
    if node.kind == NodeKind::Directory {
        let verdict = if args.flat { Visit::SkipBelow } else { Visit::Continue };
        walk(context.terminal, &store, &node, &mut |path, node| {
            lines.entry(&join(&spec.path, path), node).map(|()| verdict)
        })?;
    } else {
        let path = if spec.path.is_empty() { &node.name } else { &spec.path };
        lines.entry(path, &node)?;
    }
    lines.output.finish()?;
    Ok(Done::Whole)
}

/// First line of `ls --json`.
#[derive(Serialize)]
struct Header {
    message_type: &'static str,
    #[serde(flatten)]
    snapshot: Snapshot,
}

/// Where entries go, and in which shape.
struct Lines {
    output: Output,
    json: bool,
    long: bool,
    zone: TimeZone,
}

impl Lines {
    fn entry(&mut self, path: &[u8], node: &Node) -> Result<(), Failure> {
        if self.json {
            return self.output.json_line(&NodeLine::of(path, node));
        }
        if self.long {
            self.output.bytes(long_line(node, &self.zone).as_bytes())?;
        }
        self.output.name(path)?;
        if let Some(target) = node.target.as_ref().filter(|_| self.long) {
            self.output.bytes(b" -> ")?;
            self.output.name(target)?;
        }
        self.output.bytes(b"\n")
    }
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
