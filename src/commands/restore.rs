//! `holdfast restore`: files brought back by the program itself, where `cp` from a mount is not at hand.

mod choice;
mod place;
mod telling;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use holdfast_backup::restore::{
    self, RestoreError, RestoreOptions, RestoreSummary as Restored, Throttle, VerifySummary, open_target,
    rehearse_tree, restore_tree, verify_tree,
};
use holdfast_store::store::Store;
use holdfast_store::tree::Node;

use super::Context;
use super::backup::own_directories;
use super::scope::{ScopeArgs, find_point, follow_reclaim, parse_spec};
use crate::args::values;
use crate::json::RestoreSummary;
use crate::open::{Bounds, open_store_with};
use crate::outcome::{Done, Failure, Kind, Outcome};
use crate::stored_tree::StoredTree;
use crate::terminal::{Terminal, text};
use choice::{ChoiceArgs, OwnerArgs};
use place::{Place, PlaceArgs};
use telling::Telling;

/// Bring files back from a recovery point
///
/// Writes a recovery point, or what is below a path of it, into a directory, with owners, permissions, times, extended
/// attributes, hard links and holes. What is already there is decided by --overwrite; what is there and not in the
/// point stays. The same as `cp -a` out of a mount, without a mount.
///
/// Everything is made under a temporary name and renamed when it is whole, so nothing that is there goes before its
/// replacement is complete. If a restore ends early, the same command goes on where it ended: what has the kind, size and
/// time of the point is not written again. Exit code 3 means that some things could not be restored, each of which is
/// named; 1 with --verify, that what is there is not what the point has. A vault that does not answer is waited for once, some
/// five minutes; then all is restored that can be had without it, and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast restore latest --target /tmp/back
  holdfast restore latest:projects/x --target /tmp/back
  holdfast restore docs@2026-11-20 --target /home/me/docs --overwrite if-newer --dry-run -v
  holdfast restore latest:etc --to-original --overwrite keep-both
  holdfast restore latest --target /srv/new --verify --limit-rate 50M
  holdfast restore latest --target /srv/new --verify --dry-run   compare only, write nothing
  holdfast restore latest --target /srv/new --user-map alice:1001 --group-map 100:users
  holdfast restore latest --target /tmp/back --include '*.odt' --exclude-file patterns")]
pub struct RestoreArgs {
    /// POINT or POINT:PATH
    #[arg(value_name = "POINT[:PATH]")]
    point: OsString,
    #[command(flatten)]
    place: PlaceArgs,
    /// What to do with a file that is already there and not identical
    #[arg(long, value_name = "WHEN", default_value = "always")]
    overwrite: choice::Overwrite,
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    owners: OwnerArgs,
    /// Say what would be done, and do nothing; with -v or --json, for each path
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Afterwards read everything back and compare it with the point; with --dry-run, only that
    #[arg(long)]
    verify: bool,
    /// Read what seems to be there already and compare contents, instead of trusting size and time
    #[arg(short, long)]
    checksum: bool,
    /// Wait at the end until everything is on the disk; --verify does that, too
    #[arg(long)]
    sync: bool,
    /// Write at most so many bytes a second (K, M, G); of a vault about a second's worth is read ahead, and at least 4 MiB
    #[arg(long, value_name = "BYTES", value_parser = values::some_size)]
    limit_rate: Option<u64>,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// What a bounded restore may at least have on its way: a few requests.
const AHEAD_MIN: u64 = 8 << 20;

/// What was done.
struct Report {
    to: PathBuf,
    seconds: u64,
    bytes_total: u64,
    restored: Restored,
    verified: Option<VerifySummary>,
}

/// Restores, and reads back.
pub fn run(context: &Context<'_>, args: &RestoreArgs) -> Outcome {
    let spec = parse_spec(&args.point)?;
    let mut options = options(args)?;
    let store = open_store_with(context, bounds(args))?;
    let point = find_point(context, &store, &spec, &args.scope.scope())?;
    follow_reclaim(context, &store, &point)?;
    let (tree, root) = StoredTree::at(&store, &point.point.root, &spec.path)?;
    let place = Place::choose(&args.place, &point.point, &spec.path, &context.settings.host, &tree)?;
    options.root_attributes = place.root_attributes;
    options.never_enter = own_directories(context, &store);
    if let Some(rate) = args.limit_rate {
        options.throttle = Some(Arc::new(Throttle::new(Arc::clone(store.clock()), rate)));
    }
    options.tell = context.terminal.verbose() || (context.terminal.json() && args.dry_run);
    let telling = Telling::new(context.terminal, args.dry_run);
    let began = store.clock().monotonic();
    let (restored, ended) = carry_out(&store, (&tree, &root), &place.path, args, &options, &telling)?;
    telling.finish()?;
    let (verified, failure) = match ended {
        Ok(verified) => (verified, None),
        Err(failure) => (None, Some(failure)),
    };
    let report = Report {
        to: place.path,
        seconds: store.clock().monotonic().saturating_sub(began).as_secs(),
        bytes_total: root.subtree.map_or(root.size, |below| below.bytes),
        restored,
        verified,
    };
    show(context.terminal, &report, args.dry_run)?;
    match (failure, report.verified) {
        (Some(failure), _) => Err(failure),
        (None, Some(verified)) if verified.differences > 0 => Err(Failure::failed(format!(
            "what is in {} is not what the point has: {}",
            report.to.display(),
            text::count(verified.differences, "difference")
        ))
        .hint(way_out(args.overwrite, args.checksum && !args.dry_run))),
        _ if report.restored.problems > 0 => Ok(Done::Partial),
        _ => Ok(Done::Whole),
    }
}

/// What helps where something is not what the point has, after a restore with `overwrite` or a comparison that took the place of one; or after one that
/// has compared contents already and put back what differed.
fn way_out(overwrite: choice::Overwrite, was_put_back: bool) -> &'static str {
    match overwrite {
        choice::Overwrite::Always if was_put_back => {
            "the lines above name them, and contents were compared and put back just now: somebody writes there, the disk fails, or \
             the target cannot hold what the point has"
        }
        choice::Overwrite::Always => {
            "the lines above name them; --checksum, without --dry-run, restores them again, and says what cannot be written"
        }
        choice::Overwrite::Never | choice::Overwrite::IfNewer | choice::Overwrite::KeepBoth => {
            "the lines above name them, and --overwrite keeps what is there; --overwrite always --checksum, without --dry-run, restores \
             them again, and says what cannot be written"
        }
    }
}

/// What was restored, and what reading back found; a failure in its place is one in spite of which all was restored that can be.
type Ended = (Restored, Result<Option<VerifySummary>, Failure>);

/// Restores, or rehearses that, and reads back.
fn carry_out(
    store: &Store,
    (tree, root): (&StoredTree<'_>, &Node),
    to: &Path,
    args: &RestoreArgs,
    options: &RestoreOptions,
    monitor: &Telling<'_>,
) -> Result<Ended, Failure> {
    let target = open_target(to, !args.dry_run, &options.never_enter)?;
    let only_verify = args.dry_run && args.verify;
    let restored = match &target {
        _ if only_verify => Ok(Restored::default()),
        Some(target) => restore_tree(tree, root, target, options, monitor),
        None => rehearse_tree(tree, root, options, monitor),
    };
    let stats = store.reader().stats();
    tracing::info!("{} frames decoded, {} bytes from vaults", stats.frames_decoded, stats.vault_bytes);
    let restored = match restored {
        Ok(restored) if args.verify => restored,
        Ok(restored) => return Ok((restored, Ok(None))),
        Err(RestoreError::Away(waiting)) => {
            return Ok((waiting.done, Err(RestoreError::Away(waiting).into())));
        }
        Err(error) => return Err(error.into()),
    };
    let target =
        target.ok_or_else(|| Failure::failed(format!("there is nothing to compare in {}", to.display())))?;
    compared(restored, only_verify, verify_tree(tree, root, &target, options, monitor))
}

/// What was restored is told whatever comes of reading it back; where nothing was to be restored there is nothing else to tell.
fn compared(
    restored: Restored,
    only_verify: bool,
    verified: Result<VerifySummary, RestoreError>,
) -> Result<Ended, Failure> {
    match verified {
        Err(error) if only_verify => Err(error.into()),
        verified => Ok((restored, verified.map(Some).map_err(not_compared))),
    }
}

fn not_compared(error: RestoreError) -> Failure {
    let failure = Failure::from(error);
    match failure.kind {
        Kind::Interrupted => failure,
        _ => Failure {
            message: format!("not all of it could be compared with the point: {}", failure.message),
            ..failure
        },
    }
}

/// What is read ahead of a vault, half of what may be on its way, comes before anybody bounds it: a bound on bytes a second is one
/// on that, too.
fn bounds(args: &RestoreArgs) -> Bounds {
    let usual = Bounds::default();
    let in_flight = args
        .limit_rate
        .map_or(usual.in_flight, |rate| rate.saturating_mul(2).clamp(AHEAD_MIN, usual.in_flight));
    Bounds { in_flight, ..usual }
}

fn options(args: &RestoreArgs) -> Result<RestoreOptions, Failure> {
    Ok(RestoreOptions {
        overwrite: restore::Overwrite::from(args.overwrite),
        include: args.choice.include()?,
        exclude: args.choice.exclude()?,
        dry_run: args.dry_run,
        checksum: args.checksum,
        owners: args.owners.owners()?,
        sync: args.sync || args.verify,
        ..RestoreOptions::default()
    })
}

fn show(terminal: &Terminal, report: &Report, dry_run: bool) -> Result<(), Failure> {
    if terminal.json() {
        return terminal.json_line(&as_json(report, dry_run));
    }
    let verified = report.verified.map(|verified| {
        format!(
            "compared {} in {} with the point: {}",
            text::count(verified.entries, "entry"),
            report.to.display(),
            if verified.differences == 0 {
                "no difference".to_owned()
            } else {
                text::count(verified.differences, "difference")
            }
        )
    });
    let done = (!(dry_run && verified.is_some())).then(|| sentence(report, dry_run));
    done.iter().chain(&verified).try_for_each(|line| terminal.say(line))
}

fn as_json(report: &Report, dry_run: bool) -> RestoreSummary {
    let done = &report.restored;
    RestoreSummary {
        message_type: "summary",
        seconds_elapsed: report.seconds,
        total_files: done.files
            + done.directories
            + done.others
            + done.links
            + done.same
            + done.mended
            + done.skipped
            + done.incomplete,
        files_restored: done.files + done.links,
        files_skipped: done.skipped + done.same + done.mended,
        files_identical: done.same,
        files_replaced: done.replaced,
        attributes_set: done.mended,
        files_incomplete: done.incomplete,
        total_bytes: report.bytes_total,
        bytes_restored: done.bytes,
        bytes_skipped: done.bytes_skipped,
        errors: done.problems,
        dry_run,
        entries_verified: report.verified.map(|verified| verified.entries),
        differences: report.verified.map(|verified| verified.differences),
    }
}

fn sentence(report: &Report, dry_run: bool) -> String {
    let done = &report.restored;
    let mut parts = vec![format!(
        "{} {} ({}) to {} in {}",
        if dry_run { "would restore" } else { "restored" },
        text::count(done.files + done.links, "file"),
        text::size(done.bytes),
        report.to.display(),
        text::duration(report.seconds)
    )];
    let mut part = |number: u64, text: String| {
        if number > 0 {
            parts.push(text);
        }
    };
    part(done.replaced, format!("{} of them in the place of others", done.replaced));
    part(done.same, format!("{} identical already", done.same));
    part(done.mended, format!("{} identical but for attributes, which are set", done.mended));
    part(done.skipped, format!("left {} as they are", done.skipped));
    part(done.incomplete, format!("{} incomplete", done.incomplete));
    part(done.problems, format!("{} could not be restored", done.problems));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use holdfast_backup::error::TargetError;
    use holdfast_backup::restore::Waiting;

    #[test]
    fn what_was_restored_is_told_also_where_it_could_not_be_read_back() {
        let away = || {
            let source = holdfast_store::StoreError::Timeout { what: "vault v".into() };
            RestoreError::Away(Box::new(Waiting { source, entries: 3, done: Restored::default() }))
        };
        let restored = Restored { files: 7, ..Restored::default() };
        let (told, failure) = compared(restored, false, Err(away())).unwrap();
        let failure = failure.unwrap_err();
        assert_eq!((told.files, failure.kind), (7, Kind::Failed));
        assert!(failure.message.starts_with("not all of it could be compared"), "{}", failure.message);
        let stopped = compared(restored, false, Err(RestoreError::Target(TargetError::Cancelled)));
        assert_eq!(stopped.unwrap().1.unwrap_err().kind, Kind::Interrupted);
        assert!(compared(Restored::default(), true, Err(away())).is_err(), "nothing was restored");
    }

    #[test]
    fn what_was_put_back_and_differs_all_the_same_is_not_to_be_put_back_once_more() {
        let told = |was_put_back| way_out(choice::Overwrite::Always, was_put_back);
        assert!(told(false).contains("--checksum"), "{}", told(false));
        assert!(!told(true).contains("--checksum"), "{}", told(true));
    }

    #[test]
    fn the_summary_names_what_was_left_and_what_failed() {
        let restored = Restored { files: 1, bytes: 1024, ..Restored::default() };
        let mut report = Report { to: "/t".into(), seconds: 65, bytes_total: 4096, restored, verified: None };
        assert_eq!(sentence(&report, false), "restored 1 file (1.000 KiB) to /t in 1:05");
        report.restored =
            Restored { skipped: 2, same: 3, problems: 1, incomplete: 1, bytes_skipped: 2048, ..restored };
        assert_eq!(
            sentence(&report, true),
            "would restore 1 file (1.000 KiB) to /t in 1:05, 3 identical already, left 2 as they are, \
             1 incomplete, 1 could not be restored"
        );
        let json = as_json(&report, true);
        assert_eq!(
            (json.total_files, json.files_skipped, json.bytes_skipped),
            (7, 5, 2048),
            "what failed was not skipped"
        );
    }

    #[test]
    fn a_bound_on_bytes_a_second_bounds_what_is_read_ahead() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: RestoreArgs,
        }
        let in_flight = |rate: &[&'static str]| {
            let words = ["restore", "latest", "--target", "/t"].iter().chain(rate);
            bounds(&Line::try_parse_from(words).unwrap().args).in_flight >> 20
        };
        let usual = Bounds::default().in_flight >> 20;
        assert_eq!(in_flight(&[]), usual);
        assert_eq!(in_flight(&["--limit-rate", "100K"]), 8);
        assert_eq!(in_flight(&["--limit-rate", "10M"]), 20);
        assert_eq!(in_flight(&["--limit-rate", "1G"]), usual);
    }
}
