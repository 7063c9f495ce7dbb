//! Groups as text, and points made up for them.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::RecoveryPoint;
use holdfast_store::point::testing::bare_point;
use holdfast_store::tree::NodeKind;
use holdfast_store::tree::testing::bare_node;

use super::*;
use crate::config::Config;

const HOUR: i64 = 3600;
/// 2026-11-20T12:00:00Z.
const NOON: i64 = 1_795_176_000;
const A: &str = "/vault/a";
const B: &str = "/vault/b";

fn group(tiers: &str) -> Group {
    let text = format!("[group.web]\nsources = [\"/srv\"]\n{tiers}\n");
    Config::parse(&[(PathBuf::from("test.toml"), text)]).unwrap().groups.remove(0)
}

/// Number `n` of a source of this machine's group `web`, taken so many hours after noon.
fn point(source: &str, n: u8, hours: i64, vaults: &[&str]) -> StoredPoint {
    let root = bare_node(b"root", NodeKind::Directory);
    let point = RecoveryPoint {
        id: RecoveryPointId([n; 16]),
        sequence: n.into(),
        ..bare_point(["here", "web", source], NOON + hours * HOUR, root)
    };
    let vaults = vaults.iter().map(|vault| (*vault).to_owned()).collect();
    StoredPoint {
        point: Arc::new(point),
        hash: [n; 32],
        local: true,
        vaults,
        incomplete: Vec::new(),
        held: None,
    }
}

fn tiers(points: &[StoredPoint]) -> Tiers<'_> {
    let vaults = [A, B].map(|address| KnownVault { address, is_known: true }).to_vec();
    let now = Timestamp::from_seconds(NOON + 1000 * HOUR);
    let (zone, judged, absent) = (TimeZone::UTC, JudgedPoints::default(), HashSet::new());
    Tiers { points, vaults, host: "here", zone, now, judged, absent }
}

fn numbers(points: Vec<&StoredPoint>) -> Vec<u8> {
    points.iter().map(|stored| stored.point.id.0[0]).collect()
}

#[test]
fn each_vault_is_given_what_it_lacks_of_all_sources_oldest_first() {
    let group = group("online = { schedule = \"12:00\" }");
    let mut points = Vec::new();
    for day in 0..4 {
        let vaults: &[&str] = [&[A, B][..], &[A], &[], &[]][day];
        points.push(point("docs", day as u8, day as i64 * 24, vaults));
        points.push(point("mail", 10 + day as u8, day as i64 * 24 + 1, vaults));
    }
    assert_eq!(numbers(tiers(&points).pending(&group, A)), [2, 12, 3, 13]);
    assert_eq!(numbers(tiers(&points).pending(&group, B)), [1, 11, 2, 12, 3, 13]);
    assert_eq!(numbers(tiers(&points).pending(&group, "/vault/new")), [3, 13]);
}

#[test]
fn points_of_other_machines_and_groups_and_groups_without_an_online_tier_have_nothing_pending() {
    let points = [point("docs", 1, 0, &[])];
    let online = group("online = { schedule = \"12:00\" }");
    assert_eq!(numbers(tiers(&points).pending(&online, A)), [1]);
    assert!(Tiers { host: "there", ..tiers(&points) }.pending(&online, A).is_empty());
    assert!(tiers(&points).pending(&Group { name: "other".into(), ..online }, A).is_empty());
    assert!(tiers(&points).pending(&group("local = { schedule = \"12:00\" }"), A).is_empty());
}

#[test]
fn a_source_keeps_its_order_whatever_its_clock_said() {
    let group = group("online = { schedule = \"12:00\" }");
    let points = [
        point("docs", 1, 0, &[A]),
        point("docs", 2, 24_000, &[]),
        point("docs", 3, 48, &[]),
        point("mail", 11, 0, &[A]),
        point("mail", 12, 72, &[]),
    ];
    assert_eq!(numbers(tiers(&points).pending(&group, A)), [12, 2, 3]);
}

/// Numbers of what goes from a tier.
fn goes(tiers: &Tiers<'_>, group: &Group, name: TierName) -> Vec<u8> {
    tiers.plan(group, name).unwrap().remove.iter().map(|decision| decision.id.0[0]).collect()
}

fn why(tiers: &Tiers<'_>, group: &Group, name: TierName, n: u8) -> String {
    let plan = tiers.plan(group, name).unwrap();
    plan.keep.iter().chain(&plan.remove).find(|decision| decision.id.0[0] == n).unwrap().why()
}

/// A point each 12 hours; those at noon are in the vaults up to a day.
fn days(count: u8, in_a: u8, in_b: u8) -> Vec<StoredPoint> {
    let vaults =
        |day: u8| [(A, day < in_a), (B, day < in_b)].into_iter().filter_map(|(v, is)| is.then_some(v));
    (0..count)
        .flat_map(|day| {
            let noon = vaults(day).collect::<Vec<_>>();
            let hours = i64::from(day) * 24;
            [point("docs", day * 2, hours, &noon), point("docs", day * 2 + 1, hours + 12, &[])]
        })
        .collect()
}

const BOTH: &str = "local = { schedule = \"every 12 hours\", keep = { last = 4 } }
online = { schedule = \"12:00\", keep = { last = 5 } }";

#[test]
fn each_tier_lets_go_by_its_own_rules_of_what_it_has() {
    let points = days(8, 8, 8);
    let group = group(BOTH);
    assert_eq!(goes(&tiers(&points), &group, TierName::Local), (0..12).collect::<Vec<u8>>());
    assert_eq!(goes(&tiers(&points), &group, TierName::Online), [0, 2, 4]);
    let local_only = points.iter().filter(|stored| stored.vaults.is_empty()).cloned().collect::<Vec<_>>();
    assert_eq!(tiers(&local_only).plan(&group, TierName::Online).unwrap(), RetentionPlan::default());
}

#[test]
fn a_local_copy_waits_for_each_vault_that_is_to_have_it() {
    let group = group(BOTH);
    let points = days(8, 8, 3);
    let goes_now = goes(&tiers(&points), &group, TierName::Local);
    assert_eq!(goes_now, [0, 1, 2, 3, 4, 5, 7, 9, 11]);
    assert_eq!(why(&tiers(&points), &group, TierName::Local, 6), "waits for a vault");
    let only_a = Tiers { vaults: tiers(&points).vaults[..1].to_vec(), ..tiers(&points) };
    assert_eq!(goes(&only_a, &group, TierName::Local).len(), 12);
    let none = Tiers { vaults: Vec::new(), ..tiers(&points) };
    assert_eq!(goes(&none, &group, TierName::Local).len(), 12);
}

#[test]
fn nothing_local_goes_while_nobody_knows_what_a_vault_holds() {
    let points = days(8, 8, 8);
    let mut unknown = tiers(&points);
    unknown.vaults[1].is_known = false;
    assert_eq!(goes(&unknown, &group(BOTH), TierName::Local), [0; 0]);
    let local = group("local = { schedule = \"every 12 hours\", keep = { last = 4 } }");
    assert_eq!(goes(&unknown, &local, TierName::Local).len(), 12, "none of it is for a vault");
}

#[test]
fn nothing_local_goes_while_the_store_lacks_a_vault_that_the_tier_names() {
    let points = days(8, 8, 8);
    let naming = |vaults: &str| {
        group(&BOTH.replace("\"12:00\", keep", &format!("\"12:00\", vaults = [{vaults}], keep")))
    };
    let to_come = naming(&format!("\"{A}\", \"/vault/to-come\""));
    assert_eq!(goes(&tiers(&points), &to_come, TierName::Local), [0; 0]);
    assert_eq!(why(&tiers(&points), &to_come, TierName::Local, 0), "waits for a vault");
    assert_eq!(goes(&tiers(&points), &to_come, TierName::Online), [0, 2, 4], "local copies alone wait");
    assert_eq!(goes(&tiers(&points), &naming(&format!("\"{A}\"")), TierName::Local).len(), 12);
    let stopped = Group { stopped: Some(Stopped::UntilExpiry), ..to_come };
    assert!(!goes(&tiers(&points), &stopped, TierName::Local).is_empty(), "nothing is for it any more");
}

#[test]
fn a_vault_that_was_away_keeps_its_newest_points() {
    // The other vault has four days more; three of this one's are among its last three.
    let points = days(10, 10, 4);
    let group = group("online = { schedule = \"12:00\", keep = { last = 3 } }");
    assert_eq!(goes(&tiers(&points), &group, TierName::Online), [0, 8, 10, 12]);
    assert_eq!(why(&tiers(&points), &group, TierName::Online, 6), "newest complete, among the last three");
}

#[test]
fn a_vault_of_which_all_is_in_doubt_keeps_its_newest_points() {
    let mut points = days(10, 10, 4);
    for stored in &mut points {
        let doubted: Vec<_> = stored.vaults.extract_if(.., |vault| vault == B).collect();
        stored.incomplete.extend(doubted);
    }
    let group = group("online = { schedule = \"12:00\", keep = { last = 3 } }");
    assert!(!goes(&tiers(&points), &group, TierName::Online).contains(&6));
    assert_eq!(why(&tiers(&points), &group, TierName::Online, 6), "newest complete, among the last three");
}

#[test]
fn a_tier_without_rules_keeps_everything_and_one_that_is_not_there_has_no_plan() {
    let points = days(8, 8, 8);
    let group = group("online = { schedule = \"12:00\" }");
    assert!(tiers(&points).plan(&group, TierName::Local).is_none());
    assert_eq!(goes(&tiers(&points), &group, TierName::Online), [0; 0]);
    assert_eq!(why(&tiers(&points), &group, TierName::Online, 0), "everything is kept");
}

/// With an expiry of its own, so many hours after noon.
fn until(mut stored: StoredPoint, hours: i64) -> StoredPoint {
    Arc::make_mut(&mut stored.point).set_expires(NOON + hours * HOUR);
    stored
}

#[test]
fn a_point_with_an_expiry_of_its_own_takes_no_other_points_place_online() {
    let group = group(BOTH);
    // Taken in the span of number 4, before it, and sent.
    let mut points = days(8, 1, 0);
    points.insert(4, until(point("docs", 90, 48, &[A]), 2000));
    points.insert(9, until(point("docs", 91, 96, &[]), 2000));
    assert_eq!(numbers(tiers(&points).pending(&group, A)), [2, 4, 6, 8, 10, 12, 14]);
    for name in TierName::ALL {
        assert!(why(&tiers(&points), &group, name, 90).ends_with("kept until 2027-02-11 20:00:00 UTC"));
    }
}

#[test]
fn a_point_whose_own_expiry_is_reached_goes_from_both_tiers_and_waits_for_no_vault() {
    let no_rules = group("local = { schedule = \"12:00\" }\nonline = { schedule = \"12:00\" }");
    let mut points = days(8, 8, 8);
    points.insert(4, until(point("docs", 3, 40, &[A]), 999));
    points[4].point =
        Arc::new(RecoveryPoint { id: RecoveryPointId([90; 16]), ..points[4].point.as_ref().clone() });
    for group in [no_rules, group(BOTH)] {
        let mut tiers = tiers(&points);
        tiers.vaults[0].is_known = false;
        for name in TierName::ALL {
            assert!(goes(&tiers, &group, name).contains(&90));
            assert_eq!(why(&tiers, &group, name, 90), "was kept until 2027-01-01 03:00:00 UTC");
        }
    }
}

#[test]
fn a_group_that_is_stopped_sends_nothing_and_keeps_all_or_lets_go_as_time_goes_by() {
    let points = days(8, 4, 0);
    let rules = "keep = { daily = 4 }";
    let stopped = |how: &str| {
        let tiers = format!(
            "local = {{ schedule = \"daily\", {rules} }}\nonline = {{ schedule = \"12:00\", {rules} }}"
        );
        group(&format!("stopped = \"{how}\"\n{tiers}"))
    };
    let at = |hours: i64| Tiers { now: Timestamp::from_seconds(NOON + hours * HOUR), ..tiers(&points) };
    let keep = stopped("keep");
    for name in TierName::ALL {
        assert_eq!(goes(&at(10_000), &keep, name), [0; 0]);
        assert_eq!(why(&at(10_000), &keep, name, 0), "protection is stopped");
    }
    let until = stopped("until-expiry");
    assert!(at(180).pending(&until, A).is_empty() && at(180).pending(&keep, A).is_empty());
    let left = |hours: i64, name| at(hours).plan(&until, name).unwrap().keep.len();
    // The newest one is of the eighth day at midnight, which is the ninth.
    let local = [180, 204, 228, 252, 10_000].map(|hours| left(hours, TierName::Local));
    assert_eq!(local, [5, 4, 3, 3, 3]);
    assert_eq!([72, 96, 10_000].map(|hours| left(hours, TierName::Online)), [4, 3, 3]);
}

#[test]
fn points_of_other_machines_and_groups_are_in_no_plan() {
    let (points, online) = (days(8, 8, 8), group(BOTH));
    for (host, name) in [("there", "web"), ("here", "other")] {
        let (tiers, group) =
            (Tiers { host, ..tiers(&points) }, Group { name: name.into(), ..online.clone() });
        assert_eq!(tiers.plan(&group, TierName::Local).unwrap(), RetentionPlan::default());
    }
}

#[test]
fn points_that_are_not_by_whom_they_say_push_no_other_out_of_any_tier() {
    let group = group(BOTH);
    let honest = days(8, 8, 8);
    let mut points = honest.clone();
    let mut forged = JudgedPoints::default();
    for n in 0..16 {
        // Newer than all by their numbers, and of the same days.
        let made_up = StoredPoint { local: n % 4 == 0, ..point("docs", 100 + n, i64::from(n) * 24, &[A, B]) };
        forged.forged.insert(made_up.point.id);
        points.push(made_up);
    }
    let judged = Tiers { judged: forged, ..tiers(&points) };
    for name in TierName::ALL {
        assert_eq!(goes(&judged, &group, name), goes(&tiers(&honest), &group, name), "{name:?}");
        assert_ne!(goes(&tiers(&points), &group, name), goes(&judged, &group, name), "{name:?}");
    }
    assert_eq!(why(&judged, &group, TierName::Online, 103), "not by whom it says, goes by name only");
}

#[test]
fn nothing_of_a_source_of_which_somebody_else_takes_points_goes_by_rules() {
    let group = group(BOTH);
    let mut points = days(8, 8, 8);
    points.extend((0..8).map(|day| point("mail", 100 + day, i64::from(day) * 24, &[A])));
    let forked = HashSet::from([points[0].point.source.clone()]);
    let judged = JudgedPoints { forked, ..JudgedPoints::default() };
    let judged = Tiers { judged, ..tiers(&points) };
    assert_eq!(goes(&judged, &group, TierName::Online), [100, 101, 102]);
    assert!(why(&judged, &group, TierName::Online, 0).starts_with("chain-forked"));
    assert!(why(&judged, &group, TierName::Local, 1).starts_with("chain-forked"));
}

/// Of which the vault is said to lack something.
fn lacking(mut stored: StoredPoint, vault: &str) -> StoredPoint {
    stored.vaults.retain(|held| held != vault || !stored.local);
    stored.incomplete.push(vault.into());
    stored
}

#[test]
fn what_lacks_something_in_a_vault_is_pending_there_whatever_the_schedule_says() {
    let mut points = days(4, 4, 4);
    points[0] = lacking(points[0].clone(), A);
    points[4] = lacking(points[4].clone(), A);
    let alone = StoredPoint { local: false, ..point("docs", 2, 24, &[A]) };
    points[2] = lacking(alone, A);
    points.push(lacking(until(point("docs", 8, 96, &[A]), 500), A));
    let group = group(BOTH);
    assert_eq!(numbers(tiers(&points).pending(&group, A)), [0, 2, 4, 8]);
    assert_eq!(numbers(tiers(&points).pending(&group, B)), [0; 0], "that vault is as it should be");
    let only_b = self::group("online = { schedule = \"12:00\", vaults = [\"/vault/b\"] }");
    assert_eq!(numbers(tiers(&points).pending(&only_b, A)), [0; 0]);
    for n in [0, 4] {
        assert!(why(&tiers(&points), &group, TierName::Local, n).contains("waits for a vault"), "{n}");
    }
    let all = days(4, 4, 4);
    assert!(goes(&tiers(&all), &group, TierName::Local).contains(&0));
}

#[test]
fn what_lacks_something_in_every_vault_serves_no_rule_there_and_goes_by_all_of_them() {
    let group = group(BOTH);
    let points = days(8, 8, 8);
    assert_eq!(goes(&tiers(&points), &group, TierName::Online), [0, 2, 4]);
    // The newest two: of the whole ones the newest five stay, and with them those two.
    let doubted = |doubted: &[usize], vaults: &[&str]| {
        let mut points = points.clone();
        for day in doubted {
            let mut stored = points[day * 2].clone();
            for vault in vaults {
                stored = lacking(stored, vault);
            }
            points[day * 2] = stored;
        }
        goes(&tiers(&points), &group, TierName::Online)
    };
    assert_eq!(doubted(&[6, 7], &[A, B]), [0]);
    assert_eq!(doubted(&[6, 7], &[A]), [0, 2, 4], "the other vault has them whole");
    assert_eq!(doubted(&[0, 1], &[A, B]), [0, 2, 4], "they are older than what stays");
    assert_eq!(doubted(&[0, 1, 2, 3, 4, 5, 6, 7], &[A, B]), [0, 2, 4]);
}

#[test]
fn a_local_copy_of_what_no_vault_has_whole_stays_whoever_is_to_send_it() {
    let local = group("local = { schedule = \"every 12 hours\", keep = { last = 4 } }");
    let stopped = Group { stopped: Some(Stopped::UntilExpiry), ..group(BOTH) };
    let mut points = days(4, 4, 4);
    points[0] = lacking(points[0].clone(), A);
    for group in [&local, &stopped] {
        assert!(goes(&tiers(&points), group, TierName::Local).contains(&0), "the other vault has it");
    }
    points[0] = lacking(points[0].clone(), B);
    for group in [&local, &stopped] {
        let goes = goes(&tiers(&points), group, TierName::Local);
        assert!(!goes.contains(&0) && goes.contains(&1), "{goes:?}");
    }
}

#[test]
fn what_staging_lost_serves_no_local_rule_in_the_place_of_what_lies_there() {
    let group = group("local = { schedule = \"every 12 hours\", keep = { last = 4 } }");
    let points = days(6, 6, 6);
    assert_eq!(goes(&tiers(&points), &group, TierName::Local), [0, 1, 2, 3, 4, 5, 6, 7]);
    let absent = [points[2].point.id, points[9].point.id].into();
    let lost = Tiers { absent, ..tiers(&points) };
    assert_eq!(goes(&lost, &group, TierName::Local), [0, 1, 3, 4, 5, 6]);
}
