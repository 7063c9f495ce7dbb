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
    StoredPoint { point: Arc::new(point), hash: [n; 32], local: true, vaults }
}

fn tiers(points: &[StoredPoint]) -> Tiers<'_> {
    Tiers { points, host: "here", zone: TimeZone::UTC }
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
