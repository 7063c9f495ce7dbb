//! `holdfast restore`: files brought back by the program itself, where `cp` from a mount is not at hand.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use holdfast_backup::pattern::{PatternError, Patterns};
use holdfast_backup::restore::{self, RestoreOptions, open_target, restore_tree};
use holdfast_store::id::ChunkId;
use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::store::{Store, StoredPoint};
use holdfast_store::tree::Subtree;

use super::Context;
use super::scope::{ScopeArgs, find_point, parse_spec};
use crate::json::RestoreSummary;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::stored_tree::StoredTree;
use crate::terminal::{Terminal, WorkMonitor, text};

/// Bring files back from a recovery point
///
/// Writes a recovery point, or what is below a path of it, into a directory, with owners, permissions, times, extended
/// attributes, hard links and holes. What is already there is decided by --overwrite; what is there and not in the
/// point stays. The same as `cp -a` out of a mount, without a mount.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast restore latest --target /tmp/back
  holdfast restore latest:projects/x --target /tmp/back
  holdfast restore docs@2026-11-20 --target /home/me/docs --overwrite if-newer --dry-run")]
pub struct RestoreArgs {
    /// POINT or POINT:PATH
    #[arg(value_name = "POINT[:PATH]")]
    point: OsString,
    /// Where to; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,
    /// What to do with a file that is already there
    #[arg(long, value_name = "WHEN", default_value = "always")]
    overwrite: Overwrite,
    /// Only what matches this pattern; may be repeated
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<OsString>,
    /// Nothing that matches this pattern; may be repeated
    #[arg(short, long, value_name = "PATTERN", conflicts_with = "include")]
    exclude: Vec<OsString>,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// What to do with a file that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Overwrite {
    /// Replace it unless it is the same
    Always,
    /// Leave it
    Never,
    /// Replace it if the point's is younger
    IfNewer,
    /// Keep it and put the point's beside it under a name of its own
    KeepBoth,
}

/// Restores.
pub fn run(context: &Context<'_>, args: &RestoreArgs) -> Outcome {
    let spec = parse_spec(&args.point)?;
    let store = open_store(context)?;
    let point = find_point(&store, &spec, &args.scope.scope())?;
    let monitor = context.terminal.monitor();
    let summary = carry_out(&store, &point, &spec.path, args, &monitor)?;
    drop(monitor);
    show(context.terminal, &summary, args)?;
    Ok(if summary.errors > 0 { Done::Partial } else { Done::Whole })
}

fn carry_out(
    store: &Store,
    point: &StoredPoint,
    path: &[u8],
    args: &RestoreArgs,
    monitor: &WorkMonitor,
) -> Result<RestoreSummary, Failure> {
    let clock = store.clock();
    let began = clock.monotonic();
    let (tree, root) = StoredTree::at(store, &point.point.root, path)?;
    let below = root.subtree.unwrap_or(Subtree { tree: ChunkId([0; 32]), entries: 1, bytes: root.size });
    monitor.event(Event::Stage { name: "restore", files_total: below.entries, bytes_total: below.bytes });
    let target = open_target(&args.target, true)?;
    let done = restore_tree(&tree, &root, &target, &options(args)?, monitor)?;
    Ok(RestoreSummary {
        message_type: "summary",
        seconds_elapsed: clock.monotonic().saturating_sub(began).as_secs(),
        total_files: done.files + done.directories + done.others + done.links + done.skipped,
        files_restored: done.files + done.links,
        files_skipped: done.skipped,
        total_bytes: below.bytes,
        bytes_restored: done.bytes,
        bytes_skipped: below.bytes.saturating_sub(done.bytes),
        errors: done.problems,
    })
}

fn options(args: &RestoreArgs) -> Result<RestoreOptions, Failure> {
    Ok(RestoreOptions {
        overwrite: match args.overwrite {
            Overwrite::Always => restore::Overwrite::Always,
            Overwrite::Never => restore::Overwrite::Never,
            Overwrite::IfNewer => restore::Overwrite::IfNewer,
            Overwrite::KeepBoth => restore::Overwrite::KeepBoth,
        },
        include: patterns(&args.include)?,
        exclude: patterns(&args.exclude)?,
        dry_run: args.dry_run,
        workers: 0,
        root_attributes: true,
        sync: false,
    })
}

fn patterns(given: &[OsString]) -> Result<Patterns, Failure> {
    let mut patterns = Patterns::default();
    for pattern in given {
        let refused =
            |e: PatternError| Failure::usage(format!("pattern {}: {}", pattern.display(), e.detail));
        patterns.add(pattern.as_bytes(), false).map_err(refused)?;
    }
    Ok(patterns)
}

fn show(terminal: &Terminal, summary: &RestoreSummary, args: &RestoreArgs) -> Result<(), Failure> {
    if terminal.json() {
        return terminal.json_line(summary);
    }
    terminal.say(&sentence(summary, args.dry_run, &args.target.display().to_string()))
}

fn sentence(summary: &RestoreSummary, dry_run: bool, target: &str) -> String {
    let done = if dry_run { "would restore" } else { "restored" };
    let mut text = format!(
        "{done} {} ({}) to {target} in {}",
        text::count(summary.files_restored, "file"),
        text::size(summary.bytes_restored),
        text::duration(summary.seconds_elapsed)
    );
    if summary.files_skipped > 0 {
        text += &format!(", left {} as they are", summary.files_skipped);
    }
    if summary.errors > 0 {
        text += &format!(", {} could not be restored", summary.errors);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_was_left_and_what_failed() {
        let mut summary = RestoreSummary {
            message_type: "summary",
            seconds_elapsed: 65,
            total_files: 4,
            files_restored: 1,
            files_skipped: 0,
            total_bytes: 4096,
            bytes_restored: 1024,
            bytes_skipped: 0,
            errors: 0,
        };
        assert_eq!(sentence(&summary, false, "/t"), "restored 1 file (1.000 KiB) to /t in 1:05");
        summary.files_skipped = 2;
        summary.errors = 1;
        assert_eq!(
            sentence(&summary, true, "/t"),
            "would restore 1 file (1.000 KiB) to /t in 1:05, left 2 as they are, 1 could not be restored"
        );
    }
}
