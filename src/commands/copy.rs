//! `holdfast copy`: chosen recovery points into one vault, from wherever they are.

use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::Arc;

use clap::Args;
use holdfast_backup::bandwidth::Rate;
use holdfast_store::catalog::VaultNo;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::store::{Store, StoredPoint};
use holdfast_store::transfer::Transfer;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use super::scope::{ScopeArgs, find_points, newest, parse_spec};
use super::upload::{Pushed, Upload, end};
use crate::deleted::Deleted;
use crate::open::{connect, open_store};
use crate::outcome::{Done, Failure, Outcome};
use crate::point_spec::PointSpec;
use crate::terminal::text::{self, Table};

/// Copy recovery points to a vault, from the store or from another vault
///
/// What the vault lacks of the points is read in the store's directory, or else in any vault that has it, and sent. Points that
/// the vault has are left alone, so the same command again goes on where one ended that was cut off. The vault has to be one of
/// this store's (`vault add`). --dry-run goes by what is known here, and asks no vault.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast copy latest docs@2026-11-20 --to azure://ACCOUNT/NAME
  holdfast copy --group web --latest 3 --to /mnt/usb/vault --dry-run
  holdfast copy --all --to /mnt/usb/vault   everything, also what only another vault has")]
pub struct CopyArgs {
    /// Which; or say it with --all, --latest, --group, --source, --host
    #[arg(value_name = "POINT", conflicts_with_all = ["all", "latest"])]
    points: Vec<OsString>,
    /// Address of the vault that is to have them
    #[arg(long, value_name = "VAULT")]
    to: String,
    /// All points
    #[arg(long, conflicts_with = "latest")]
    all: bool,
    /// Only the newest N points of each data source
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Send at most so many bytes a second (K, M, G), or "unlimited", whatever the configuration says
    #[arg(long, value_name = "BYTES")]
    limit_upload: Option<Rate>,
}

/// What becomes of a point.
#[derive(Debug, Serialize)]
struct PointLine {
    /// Always `point`.
    message_type: &'static str,
    id: String,
    time: String,
    group: String,
    source: String,
    /// Who has it: `local`, and addresses of vaults.
    from: Vec<String>,
    /// `copy` or `there`.
    action: &'static str,
}

/// What was done, or in a dry run would be.
#[derive(Debug, Serialize)]
struct Summary {
    /// Always `summary`.
    message_type: &'static str,
    /// The vault.
    to: String,
    /// Points that came there.
    points: u64,
    /// Points that were there.
    points_there: u64,
    packs: u64,
    bytes: u64,
    dry_run: bool,
}

/// Copies them.
pub fn run(context: &Context<'_>, args: &CopyArgs) -> Outcome {
    let specs = args.points.iter().map(|point| parse_spec(point)).collect::<Result<Vec<_>, _>>()?;
    if specs.iter().any(|spec| !spec.path.is_empty()) {
        return Err(Failure::usage("only whole recovery points can be copied, without :PATH"));
    }
    if specs.is_empty() && !args.all && args.latest.is_none() && args.scope.is_empty() {
        let failure = Failure::usage("nothing says which recovery points are to be copied");
        return Err(failure.hint("name points, or give --all, --latest N, --group or --source"));
    }
    let store = open_store(context)?;
    store.follow_reclaim(&*context.terminal.monitor_of_opening())?;
    let (no, address, transfer) = vault_of(context, &store, &args.to)?;
    let chosen = choose(context, &store, &specs, args)?;
    let is_there = |stored: &&StoredPoint| is_whole_in(stored, address);
    let summary = Summary {
        message_type: "summary",
        to: address.clone(),
        points: chosen.iter().filter(|stored| !is_there(stored)).count() as u64,
        points_there: chosen.iter().filter(is_there).count() as u64,
        packs: 0,
        bytes: 0,
        dry_run: args.dry_run,
    };
    if args.dry_run {
        show_plan(context, &chosen, &summary)?;
        return Ok(Done::Whole);
    }
    send(context, &store, (*no, transfer), &chosen, summary, (args.limit_upload, specs.is_empty()))
}

/// The vault of the store that has this address.
fn vault_of<'a>(
    context: &Context<'_>,
    store: &'a Store,
    url: &str,
) -> Result<&'a (VaultNo, String, Arc<Transfer>), Failure> {
    // One that makes no sense may stand in the settings as it was typed.
    let address = connect(context, url).map_or_else(|_| url.to_owned(), |(address, _)| address);
    store.vaults().iter().find(|vault| vault.1 == address).ok_or_else(|| {
        Failure::failed(format!("{address} is no vault of this store")).hint(format!(
            "`holdfast vault add {address}` makes it one; `holdfast vault list` shows those there are"
        ))
    })
}

/// The points that are meant, each once, oldest first. What cannot be read and might be one of them is told.
fn choose(
    context: &Context<'_>,
    store: &Store,
    specs: &[PointSpec],
    args: &CopyArgs,
) -> Result<Vec<StoredPoint>, Failure> {
    let mut chosen = if specs.is_empty() {
        let (points, doubtful) = store.look_at_points()?;
        let points = Deleted::load(store.dir()).leave_out(points);
        let points = args.scope.select(points);
        let of_these = |tag| points.iter().any(|stored| stored.point.source_tag == tag);
        let monitor = context.terminal.monitor();
        for doubt in doubtful.iter().filter(|doubt| args.scope.is_empty() || doubt.tag.is_none_or(of_these)) {
            let path = format!("recovery point {}", doubt.id.short()).into_bytes();
            monitor.event(Event::Problem { path, reason: doubt.error.to_string() });
        }
        match args.latest {
            None => points,
            Some(latest) => {
                let newest = newest(&points, latest);
                points.into_iter().filter(|stored| newest.contains(&stored.point.id)).collect()
            }
        }
    } else {
        find_points(context, store, specs, &args.scope.scope())?
    };
    chosen.sort_by_key(|stored| (stored.point.started, stored.point.id));
    chosen.dedup_by_key(|stored| stored.point.id);
    Ok(chosen)
}

fn show_plan(context: &Context<'_>, chosen: &[StoredPoint], summary: &Summary) -> Result<(), Failure> {
    if context.terminal.json() {
        let lines = chosen.iter().map(|stored| PointLine::of(stored, &summary.to));
        lines.into_iter().try_for_each(|line| context.terminal.json_line(&line))?;
        return context.terminal.json_line(summary);
    }
    context.terminal.line(&render(chosen, summary, &TimeZone::system()))
}

impl PointLine {
    fn of(stored: &StoredPoint, to: &str) -> Self {
        let point = &stored.point;
        let local = stored.local.then(|| "local".to_owned());
        Self {
            message_type: "point",
            id: point.id.hex(),
            time: text::rfc3339(point.started),
            group: point.source.group.clone(),
            source: point.source.source.clone(),
            from: local.into_iter().chain(stored.vaults.iter().cloned()).collect(),
            action: if is_whole_in(stored, to) { "there" } else { "copy" },
        }
    }
}

fn render(chosen: &[StoredPoint], summary: &Summary, zone: &TimeZone) -> String {
    let mut table = Table::new(&["", "ID", "Time", "Group", "Source", "Kept in"]);
    for stored in chosen {
        let line = PointLine::of(stored, &summary.to);
        table.row([
            line.action.to_owned(),
            stored.point.id.short(),
            text::local_time(stored.point.started, zone),
            line.group,
            line.source,
            line.from.join(", "),
        ]);
    }
    let points = text::count(summary.points, "recovery point");
    let total = format!("{points} to copy to {}, {} there already", summary.to, summary.points_there);
    if chosen.is_empty() { total } else { format!("{}\n{total}", table.render()) }
}

fn send(
    context: &Context<'_>,
    store: &Store,
    (no, transfer): (VaultNo, &Transfer),
    chosen: &[StoredPoint],
    summary: Summary,
    (limit, all): (Option<Rate>, bool),
) -> Outcome {
    let monitor = context.terminal.monitor();
    let mut upload = Upload::new(context, store, &monitor);
    upload.pace(limit)?;
    let ids: Vec<RecoveryPointId> = chosen.iter().map(|stored| stored.point.id).collect();
    if !all {
        upload.named.extend(&ids);
    }
    upload.push_into(no, transfer, |_| Ok(ids.clone()))?;
    let (pushed, failures) = upload.told();
    drop(monitor);
    let there = in_vault(store, no)?;
    let there = ids.iter().filter(|id| there.contains(id)).count() as u64;
    let Pushed { points, packs, bytes, .. } = pushed;
    let summary = Summary { points, points_there: there.saturating_sub(points), packs, bytes, ..summary };
    if context.terminal.json() {
        context.terminal.json_line(&summary)?;
    } else {
        context.terminal.say(&sentence(&summary))?;
    }
    end(context, failures)
}

/// Whether a vault has all of a point, as far as is known.
fn is_whole_in(stored: &StoredPoint, address: &str) -> bool {
    let is_it = |vault: &String| vault == address;
    stored.vaults.iter().any(is_it) && !stored.incomplete.iter().any(is_it)
}

fn in_vault(store: &Store, no: VaultNo) -> Result<HashSet<RecoveryPointId>, Failure> {
    let rows = store.catalog().sound_points()?.into_iter();
    Ok(rows.filter(|row| row.vaults.contains(&no)).map(|row| row.id).collect())
}

fn sentence(summary: &Summary) -> String {
    format!(
        "{} copied to {}, {} there before, {} sent ({})",
        text::count(summary.points, "recovery point"),
        summary.to,
        summary.points_there,
        text::count(summary.packs, "pack"),
        text::size(summary.bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::stored_point;

    #[test]
    fn a_dry_run_says_of_each_point_where_it_is_and_what_becomes_of_it() {
        let mut points = [stored_point(1, "docs", 1_795_176_000), stored_point(2, "docs", 1_795_176_060)];
        points[0].vaults = vec!["/a".into(), "/b".into()];
        (points[1].local, points[1].vaults) = (false, vec!["/a".into()]);
        let summary = Summary {
            message_type: "summary",
            to: "/b".into(),
            points: 1,
            points_there: 1,
            packs: 2,
            bytes: 2048,
            dry_run: true,
        };
        assert_eq!(
            render(&points, &summary, &TimeZone::UTC),
            "       ID        Time                 Group  Source  Kept in\n\
             ------------------------------------------------------------------\n\
             there  01010101  2026-11-20 12:00:00  group  docs    local, /a, /b\n\
             copy   02020202  2026-11-20 12:01:00  group  docs    /a\n\
             1 recovery point to copy to /b, 1 there already"
        );
        assert_eq!(
            sentence(&summary),
            "1 recovery point copied to /b, 1 there before, 2 packs sent (2.000 KiB)"
        );
    }
}
