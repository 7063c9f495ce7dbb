//! `holdfast snapshots` (also `points`): the recovery points, and where each one's bytes are.

use clap::Args;
use holdfast_store::clock::Timestamp;
use holdfast_store::point::PointState;
use holdfast_store::store::StoredPoint;
use jiff::tz::TimeZone;

use super::Context;
use super::scope::{ScopeArgs, newest};
use crate::hooks::FAILED_TAG;
use crate::json::Snapshot;
use crate::open::open_store;
use crate::outcome::{Done, Outcome};
use crate::terminal::text::{self, Table};

/// List the recovery points
///
/// Shows every recovery point with its time, source, size and where it is kept: `local` in the store's directory, or
/// how many vaults have it. A point marked `partial` misses files that could not be read when it was taken; one with `until`
/// is kept so long, and no longer, whatever the rules say, and one that is `held` stays until it is released.
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
    let points = select(open_store(context)?.points()?, args);
    if context.terminal.json() {
        let points: Vec<Snapshot> = points.iter().map(Snapshot::from).collect();
        context.terminal.json_line(&points)?;
    } else {
        context.terminal.line(&render(&points, &TimeZone::system()))?;
    }
    Ok(Done::Whole)
}

fn select(points: Vec<StoredPoint>, args: &SnapshotsArgs) -> Vec<StoredPoint> {
    let mut points = args.scope.select(points);
    points.retain(|stored| args.tag.as_ref().is_none_or(|tag| stored.point.tags.contains(tag)));
    if let Some(latest) = args.latest {
        let newest = newest(&points, latest);
        points.retain(|stored| newest.contains(&stored.point.id));
    }
    points
}

fn render(points: &[StoredPoint], zone: &TimeZone) -> String {
    if points.is_empty() {
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
            state(stored, zone),
        ]);
    }
    format!("{}\n{}", table.render(), text::count(points.len() as u64, "recovery point"))
}

fn kept_in(stored: &StoredPoint) -> String {
    let vaults = (!stored.vaults.is_empty()).then(|| text::count(stored.vaults.len() as u64, "vault"));
    let local = stored.local.then(|| "local".to_owned());
    let places: Vec<String> = local.into_iter().chain(vaults).collect();
    places.join(", ")
}

fn state(stored: &StoredPoint, zone: &TimeZone) -> String {
    let point = &stored.point;
    let partial = (point.state == PointState::Partial)
        .then(|| format!("partial, {}", text::count(point.errors_total, "error")));
    let hook = point.tags.iter().any(|tag| tag == FAILED_TAG).then(|| "hook failed".to_owned());
    let until = point.expires().map(|seconds| {
        let end = Timestamp::from_seconds(seconds);
        format!("until {}", text::local_time(end, zone))
    });
    let held = stored.held.is_some().then(|| "held".to_owned());
    let words: Vec<String> = partial.into_iter().chain(hook).chain(until).chain(held).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::commands::testing::stored_point;
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
            render(&[stored], &TimeZone::UTC),
            "ID        Time                 Host  Group  Source  Files       Size  Kept in          State\n\
             -------------------------------------------------------------------------------------------------------\n\
             07070707  2026-11-20 12:00:00  host  group  docs        2  2.000 KiB  local, 2 vaults  partial, 1 error\n\
             1 recovery point"
        );
        assert_eq!(render(&[], &TimeZone::UTC), "no recovery points");
        let mut stored = stored_point(7, "docs", 1_795_176_000);
        Arc::make_mut(&mut stored.point).set_expires(1_795_176_000);
        assert_eq!(state(&stored, &TimeZone::UTC), "until 2026-11-20 12:00:00");
        // An expiry that is no time is shown as it is.
        Arc::make_mut(&mut stored.point).set_expires(i64::MAX);
        assert_eq!(state(&stored, &TimeZone::UTC), format!("until @{}", i64::MAX));
        stored.held = Some(Hold { point: stored.point.id, placed: 0, reason: String::new() });
        assert!(state(&stored, &TimeZone::UTC).ends_with(", held"));
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
        assert_eq!(ids(&select(points(), &SnapshotsArgs { latest: Some(1), ..args() })), [2, 4]);
        assert_eq!(ids(&select(points(), &SnapshotsArgs { latest: Some(2), ..args() })), [2, 3, 4]);
        let scope = ScopeArgs { source: Some("a".into()), ..ScopeArgs::default() };
        assert_eq!(ids(&select(points(), &SnapshotsArgs { scope, ..args() })), [1, 3, 4]);
        assert_eq!(ids(&select(points(), &SnapshotsArgs { tag: Some("x".into()), ..args() })), [0u8; 0]);
    }

    #[test]
    fn the_newest_is_the_last_in_sequence_also_where_the_clock_went_back() {
        let mut points = vec![stored_point(2, "a", 1), stored_point(1, "a", 9)];
        Arc::make_mut(&mut points[0].point).sequence = 2;
        assert_eq!(ids(&select(points, &SnapshotsArgs { latest: Some(1), ..args() })), [2]);
    }
}
