//! `holdfast snapshots` (also `points`): the recovery points, and where each one's bytes are.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use clap::Args;
use holdfast_backup::ledger::Ledger;
use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::{PointState, SourceName};
use holdfast_store::store::{DoubtfulPoint, Judged, StoredPoint, Trust};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use super::scope::{Points, ScopeArgs, newest};
use crate::deleted::Deleted;
use crate::hooks::FAILED_TAG;
use crate::json::{DoubtfulSnapshot, Snapshot, Writer};
use crate::open::open_store;
use crate::outcome::{Done, Outcome};
use crate::terminal::text::{self, Table};

/// List the recovery points
///
/// Shows every recovery point with its time, source, size and where it is kept: `local` in the store's directory, or
/// how many vaults have it. A point marked `partial` misses files that could not be read when it was taken; one with `until`
/// is kept so long, and no longer, whatever the rules say, and one that is `held` stays until it is released. One
/// `in doubt` is damaged in the catalog, and no whole copy of it can be reached now; the exit code is then 3. `FORGED` and `WRITER
/// UNKNOWN` were not made by the machine that they say, or by none of the owner's: `check` says why.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast snapshots                        all of them, oldest first
  holdfast snapshots --source home-me       those of one data source
  holdfast snapshots --latest 1             the newest of each data source
  holdfast snapshots --json | jq -r '.[].id'")]
pub struct SnapshotsArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Only the newest N points of each data source
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
    /// Only points with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
}

/// Lists them.
pub fn run(context: &Context<'_>, args: &SnapshotsArgs) -> Outcome {
    let store = open_store(context)?;
    let mut known = Known::of(store.dir());
    let (points, doubtful) = select(Points::of(&store)?, args);
    let shown: HashSet<RecoveryPointId> = points.iter().map(|stored| stored.point.id).collect();
    known.judged = store.judge(|id| shown.contains(id))?;
    if context.terminal.json() {
        context.terminal.json_line(&as_json(&points, &doubtful, &known))?;
    } else {
        context.terminal.line(&render(&points, &doubtful, &known, &TimeZone::system()))?;
    }
    Ok(if doubtful.is_empty() { Done::Whole } else { Done::Partial })
}

/// What this machine knows of points besides.
#[derive(Default)]
struct Known {
    deleted: Deleted,
    drilled: HashMap<String, Timestamp>,
    /// Who made them.
    judged: HashMap<RecoveryPointId, Judged>,
}

impl Known {
    /// That a ledger cannot be read keeps nobody from the list.
    fn of(store: &Path) -> Self {
        let ledger = Ledger::look(store).ok().flatten();
        let drilled = ledger.and_then(|ledger| ledger.drilled().ok()).unwrap_or_default();
        Self { deleted: Deleted::load(store), drilled, judged: HashMap::new() }
    }
}

/// A point in doubt, and its source, if another point tells it.
type Doubt = (DoubtfulPoint, Option<SourceName>);

/// The points that are asked for, and those in doubt that may be among them.
fn select(all: Points, args: &SnapshotsArgs) -> (Vec<StoredPoint>, Vec<Doubt>) {
    let Points { readable, doubtful, deleted } = args.scope.select_points(all);
    let points = Points { readable, ..Points::default() };
    let with_source = |doubt: DoubtfulPoint| {
        let source = points.source_of(&doubt).cloned();
        (doubt, source)
    };
    let doubtful = doubtful.into_iter().map(with_source).collect();
    let mut selected = narrow(points.readable, args);
    // The newest are asked for of those that stay.
    if args.latest.is_none() {
        selected.extend(narrow(deleted, args));
        selected.sort_by_key(|stored| stored.point.started);
    }
    (selected, doubtful)
}

fn narrow(mut points: Vec<StoredPoint>, args: &SnapshotsArgs) -> Vec<StoredPoint> {
    points.retain(|stored| args.tag.as_ref().is_none_or(|tag| stored.point.tags.contains(tag)));
    if let Some(latest) = args.latest {
        let newest = newest(&points, latest);
        points.retain(|stored| newest.contains(&stored.point.id));
    }
    points
}

/// What the list of `snapshots --json` has.
#[derive(Serialize)]
#[serde(untagged)]
enum Row {
    Readable(Box<Snapshot>),
    InDoubt(DoubtfulSnapshot),
}

fn as_json(points: &[StoredPoint], doubtful: &[Doubt], known: &Known) -> Vec<Row> {
    let readable = points.iter().map(|stored| {
        let line = Snapshot::from(stored);
        let deleted_until = known.deleted.goes(&stored.point.id).map(text::rfc3339);
        let drilled = known.drilled.get(&line.id).map(|at| text::rfc3339(*at));
        let judged = known.judged.get(&stored.point.id);
        let writer = judged.and_then(|judged| judged.writer.as_ref());
        let writer = writer.map(|writer| Writer { id: writer.id().hex(), machine: writer.machine.clone() });
        let signature = judged.map(|judged| judged.trust.word());
        Row::Readable(Box::new(Snapshot { deleted_until, drilled, writer, signature, ..line }))
    });
    let in_doubt = doubtful.iter().map(|(doubt, source)| DoubtfulSnapshot::of(doubt, source.as_ref()));
    readable.chain(in_doubt.map(Row::InDoubt)).collect()
}

fn render(points: &[StoredPoint], doubtful: &[Doubt], known: &Known, zone: &TimeZone) -> String {
    if points.is_empty() && doubtful.is_empty() {
        return "no recovery points".to_owned();
    }
    let mut table =
        Table::new(&["ID", "Time", "Host", "Group", "Source", ">Files", ">Size", "Kept in", "State"]);
    for stored in points {
        let point = &stored.point;
        table.row([
            point.id.short(),
            text::local_time(point.started, zone),
            point.source.host.clone(),
            point.source.group.clone(),
            point.source.source.clone(),
            point.counts.files.to_string(),
            text::size(point.counts.bytes),
            kept_in(stored),
            state(stored, known, zone),
        ]);
    }
    for (doubt, source) in doubtful {
        let [host, group, source] =
            source.as_ref().map_or(["", "", ""], |name| [&name.host, &name.group, &name.source]);
        let id = doubt.id.short();
        table.row([&id, "", host, group, source, "", "", "", "in doubt"].map(str::to_owned));
    }
    let count = text::count((points.len() + doubtful.len()) as u64, "recovery point");
    let in_doubt = match doubtful.len() {
        0 => String::new(),
        n => format!("; {n} in doubt: damaged in the catalog, and no whole copy can be reached now"),
    };
    format!("{}\n{count}{in_doubt}", table.render())
}

fn kept_in(stored: &StoredPoint) -> String {
    let vaults = (!stored.vaults.is_empty()).then(|| text::count(stored.vaults.len() as u64, "vault"));
    let local = stored.local.then(|| "local".to_owned());
    let lacking = (!stored.incomplete.is_empty())
        .then(|| format!("lacking in {}", text::count(stored.incomplete.len() as u64, "vault")));
    let places: Vec<String> = local.into_iter().chain(vaults).chain(lacking).collect();
    places.join(", ")
}

fn state(stored: &StoredPoint, known: &Known, zone: &TimeZone) -> String {
    let (point, deleted) = (&stored.point, &known.deleted);
    let writer = match known.judged.get(&point.id).map(|judged| judged.trust) {
        Some(Trust::Forged) => Some("FORGED".to_owned()),
        Some(Trust::Unknown) => Some("WRITER UNKNOWN".to_owned()),
        _ => None,
    };
    let partial = (point.state == PointState::Partial)
        .then(|| format!("partial, {}", text::count(point.errors_total, "error")));
    let hook = point.tags.iter().any(|tag| tag == FAILED_TAG).then(|| "hook failed".to_owned());
    let until = point.expires().map(|seconds| {
        let end = Timestamp::from_seconds(seconds);
        format!("until {}", text::local_time(end, zone))
    });
    let held = stored.held.is_some().then(|| "held".to_owned());
    let goes = deleted.goes(&point.id).map(|goes| format!("deleted, goes {}", text::local_time(goes, zone)));
    let words: Vec<String> =
        writer.into_iter().chain(partial).chain(hook).chain(until).chain(held).chain(goes).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::commands::testing::{doubtful_point, stored_point};
    use holdfast_store::point::hold::Hold;

    fn args() -> SnapshotsArgs {
        SnapshotsArgs { scope: ScopeArgs::default(), latest: None, tag: None }
    }

    fn ids(points: &[StoredPoint]) -> Vec<u8> {
        points.iter().map(|stored| stored.point.id.0[0]).collect()
    }

    #[test]
    fn a_point_shows_where_it_is_kept_and_whether_it_is_whole() {
        let mut stored = stored_point(7, "docs", 1_795_176_000);
        stored.vaults = vec!["a".into(), "b".into()];
        let point = Arc::make_mut(&mut stored.point);
        point.state = PointState::Partial;
        point.errors_total = 1;
        assert_eq!(
            render(&[stored], &[], &Known::default(), &TimeZone::UTC),
            "ID        Time                 Host  Group  Source  Files       Size  Kept in          State\n\
             -------------------------------------------------------------------------------------------------------\n\
             07070707  2026-11-20 12:00:00  host  group  docs        2  2.000 KiB  local, 2 vaults  partial, 1 error\n\
             1 recovery point"
        );
        let lacking = |vaults: &[&str]| {
            let addresses = || vaults.iter().map(|vault| (*vault).to_owned()).collect();
            kept_in(&StoredPoint {
                vaults: addresses(),
                incomplete: vec!["a".into()],
                ..stored_point(7, "docs", 0)
            })
        };
        assert_eq!(lacking(&[]), "local, lacking in 1 vault");
        assert_eq!(lacking(&["a"]), "local, 1 vault, lacking in 1 vault");
        assert_eq!(render(&[], &[], &Known::default(), &TimeZone::UTC), "no recovery points");
        let mut stored = stored_point(7, "docs", 1_795_176_000);
        Arc::make_mut(&mut stored.point).set_expires(1_795_176_000);
        assert_eq!(state(&stored, &Known::default(), &TimeZone::UTC), "until 2026-11-20 12:00:00");
        // An expiry that is no time is shown as it is.
        Arc::make_mut(&mut stored.point).set_expires(i64::MAX);
        assert_eq!(state(&stored, &Known::default(), &TimeZone::UTC), format!("until @{}", i64::MAX));
        stored.held = Some(Hold { point: stored.point.id, placed: 0, reason: String::new() });
        assert!(state(&stored, &Known::default(), &TimeZone::UTC).ends_with(", held"));
    }

    #[test]
    fn the_newest_of_each_source_stay_in_order() {
        let points = || {
            vec![
                stored_point(1, "a", 1),
                stored_point(2, "b", 2),
                stored_point(3, "a", 3),
                stored_point(4, "a", 4),
            ]
        };
        assert_eq!(ids(&narrow(points(), &SnapshotsArgs { latest: Some(1), ..args() })), [2, 4]);
        assert_eq!(ids(&narrow(points(), &SnapshotsArgs { latest: Some(2), ..args() })), [2, 3, 4]);
        let scope = ScopeArgs { source: Some("a".into()), ..ScopeArgs::default() };
        let all = Points { readable: points(), ..Points::default() };
        assert_eq!(ids(&select(all, &SnapshotsArgs { scope, ..args() }).0), [1, 3, 4]);
        assert_eq!(ids(&narrow(points(), &SnapshotsArgs { tag: Some("x".into()), ..args() })), [0u8; 0]);
    }

    #[test]
    fn the_newest_is_the_last_in_sequence_also_where_the_clock_went_back() {
        let mut points = vec![stored_point(2, "a", 1), stored_point(1, "a", 9)];
        Arc::make_mut(&mut points[0].point).sequence = 2;
        assert_eq!(ids(&narrow(points, &SnapshotsArgs { latest: Some(1), ..args() })), [2]);
    }

    #[test]
    fn a_point_in_doubt_is_shown_unless_it_is_of_another_source() {
        let readable = || vec![stored_point(1, "a", 1), stored_point(2, "b", 2)];
        let doubtful = || vec![doubtful_point(8, None), doubtful_point(9, Some("b"))];
        let all = || Points { readable: readable(), doubtful: doubtful(), ..Points::default() };
        let (points, doubtful) = select(all(), &SnapshotsArgs { latest: Some(1), ..args() });
        let text = render(&points, &doubtful, &Known::default(), &TimeZone::UTC);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[4], ["08080808", "in", "doubt"], "{text}");
        assert_eq!(lines[5], ["09090909", "host", "group", "b", "in", "doubt"], "{text}");
        assert!(text.ends_with(
            "4 recovery points; 2 in doubt: damaged in the catalog, and no whole copy can be reached now"
        ));
        let json = serde_json::to_value(as_json(&points, &doubtful, &Known::default())).unwrap();
        assert_eq!((&json[3]["in_doubt"], &json[3]["source"]), (&true.into(), &"b".into()), "{json}");
        assert_eq!((json[2]["id"].as_str(), json[2].get("source")), (Some("08".repeat(16).as_str()), None));
        assert_eq!(json[1].get("in_doubt"), None);
        let scope = ScopeArgs { source: Some("a".into()), ..ScopeArgs::default() };
        let (points, doubtful) = select(all(), &SnapshotsArgs { scope, ..args() });
        assert_eq!((ids(&points), doubtful.len(), doubtful[0].0.id.0[0]), (vec![1], 1, 8));
        let only = render(&[], &doubtful, &Known::default(), &TimeZone::UTC);
        assert!(only.contains("08080808") && only.contains("1 recovery point; 1 in doubt"), "{only}");
    }
}
