//! From arguments to a plan and its rendering; what a plan keeps is tested with `retention`.
#![allow(clippy::unwrap_used)]

use clap::Parser;

use super::*;
use crate::commands::testing::stored_point;

const DAY: i64 = 86_400;
/// The day after the last of [`points`].
const NOW: Timestamp = Timestamp { seconds: 1_795_176_000 + 13 * DAY, nanos: 0 };

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: ForgetArgs,
}

fn args(line: &[&str]) -> ForgetArgs {
    Line::try_parse_from(std::iter::once(&"forget").chain(line)).unwrap().args
}

fn points() -> Vec<StoredPoint> {
    (1u8..=12).map(|n| stored_point(n, "docs", 1_795_176_000 + i64::from(n) * DAY)).collect()
}

fn planned(line: &[&str]) -> Result<RetentionPlan, Failure> {
    let args = args(line);
    let specs: Vec<PointSpec> = args.points.iter().map(|point| parse_spec(point).unwrap()).collect();
    make_plan(
        &Points { readable: points(), ..Points::default() },
        &specs,
        &Retention::from(&args.policy),
        &args,
        NOW,
        &JudgedPoints::default(),
    )
}

#[test]
fn a_policy_and_names_exclude_each_other() {
    assert!(Line::try_parse_from(["forget", "latest", "--keep-last", "3"]).is_err());
    assert!(Line::try_parse_from(["forget", "--keep-last", "3", "--allow-newest"]).is_err());
}

#[test]
fn the_plan_is_shown_with_reasons() {
    let plan = planned(&["--keep-last", "11"]).unwrap();
    let text = render(&points(), &plan, &TimeZone::UTC);
    assert!(text.contains("remove  01010101  2026-11-21 12:00:00  docs    no rule keeps it"), "{text}");
    assert!(text.ends_with("keep 11, remove 1"), "{text}");
    let json = serde_json::to_value(as_json(&points(), &plan)).unwrap();
    assert_eq!(json[0]["remove"][0]["id"], "01".repeat(16));
    assert_eq!(json[0]["keep"].as_array().unwrap().len(), 11);
}

#[test]
fn much_at_once_needs_consent() {
    let plan = planned(&["--keep-last", "4"]).unwrap();
    assert_eq!(plan.remove.len(), 8);
    assert!(plan.removes_much() && consent(&plan, true, None, true).is_ok());
    let few = planned(&["--keep-last", "9"]).unwrap();
    assert!(!few.removes_much() && consent(&few, false, None, false).is_ok());
}

#[test]
fn a_named_point_goes_unless_it_is_the_newest_complete_one() {
    let plan = planned(&["latest~1", "01"]).unwrap();
    assert_eq!(plan.remove.len(), 2);
    let failure = planned(&["latest"]).unwrap_err();
    assert!(failure.hint.unwrap().contains("--allow-newest"));
    assert_eq!(planned(&["latest", "--allow-newest"]).unwrap().remove.len(), 1);
    assert_eq!(planned(&["latest~1:etc"]).unwrap_err().kind, Kind::Usage);
}

#[test]
fn a_held_point_is_not_removed_by_name_and_the_way_out_is_told() {
    let mut points = points();
    let hold = Hold { point: points[0].point.id, placed: 1_795_176_000, reason: "court".into() };
    points[0].held = Some(hold);
    let readable = Points { readable: points, ..Points::default() };
    let args = args(&["01", "02", "--allow-newest"]);
    let specs: Vec<PointSpec> = args.points.iter().map(|point| parse_spec(point).unwrap()).collect();
    let failure = make_plan(&readable, &specs, &Retention::default(), &args, NOW, &JudgedPoints::default())
        .unwrap_err();
    assert!(failure.message.contains("01010101 is held since") && failure.message.ends_with(": court"));
    assert_eq!(failure.hint.unwrap(), "`holdfast release 01010101` lets it go");
    let policy = Retention { last: 3, ..Retention::default() };
    let plan =
        make_plan(&readable, &[], &policy, &self::args(&["--keep-last", "3"]), NOW, &JudgedPoints::default())
            .unwrap();
    assert_eq!((plan.keep.len(), plan.keep[0].why()), (4, "held".to_owned()));
}

#[test]
fn a_plan_that_no_longer_holds_is_not_carried_out() {
    let (agreed, other) =
        (planned(&["--keep-last", "11"]).unwrap(), planned(&["--keep-last", "10"]).unwrap());
    assert!(still_so(&agreed, &agreed).is_ok());
    assert!(still_so(&agreed, &other).unwrap_err().message.contains("nothing was removed"));
}

#[test]
fn a_point_under_a_lock_without_an_end_is_tried_again_a_day_later_and_not_at_once() {
    use holdfast_store::vault::keeper::Lock;
    for lock in [Lock::Held, Lock::Unknown] {
        assert_eq!(removal::goes_at(lock, NOW), Timestamp { seconds: NOW.seconds + DAY, nanos: 0 });
    }
    assert_eq!(removal::goes_at(Lock::Until(7), NOW), Timestamp::from_seconds(7));
}
