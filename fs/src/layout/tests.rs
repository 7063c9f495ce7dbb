//! The layout is a pure function: lists of points in, names out.
#![allow(clippy::unwrap_used)]

use holdfast_store::id::RecoveryPointId;

use super::*;
use crate::inode::ROOT;
use crate::testing::{brief, point as stored_point};

/// 2026-11-20T12:00:00Z
const NOON: i64 = 1_795_176_000;

fn point(host: &str, group: &str, source: &str, started: i64, sequence: u64) -> PointBrief {
    brief(&stored_point(host, group, source, started, sequence))
}

fn ino(layout: &Layout, path: &str) -> Option<u64> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .try_fold(ROOT, |at, name| Some(layout.find(at, name.as_bytes())?.ino))
}

fn names(layout: &Layout, path: &str) -> Vec<String> {
    let Some(Stands::Folder(folder)) = layout.get(ino(layout, path).unwrap()) else {
        panic!("{path} is no folder")
    };
    let mut names: Vec<_> = folder.listed.values().map(|item| item.name.clone()).collect();
    names.sort();
    names
}

fn target(layout: &Layout, path: &str) -> String {
    let Some(Stands::Link(link)) = layout.get(ino(layout, path).unwrap()) else {
        panic!("{path} is no link")
    };
    link.target.clone()
}

fn id_at(layout: &Layout, path: &str) -> RecoveryPointId {
    let Some(Stands::Root(root)) = layout.get(ino(layout, path).unwrap()) else {
        panic!("{path} is no point")
    };
    root.point
}

#[test]
fn a_store_without_points_has_three_empty_directories() {
    let layout = Layout::new(&[]);
    assert_eq!(names(&layout, ""), ["by-group", "by-id", "by-time"]);
    for folder in ["by-group", "by-id", "by-time"] {
        assert!(names(&layout, folder).is_empty());
    }
}

#[test]
fn a_point_is_found_by_group_by_id_and_by_time() {
    let p = point("web", "sites", "www", NOON, 1);
    let id = p.id;
    let layout = Layout::new(&[p]);
    assert_eq!(names(&layout, "by-group/sites/www"), ["2026-11-20T12.00.00Z", "latest"]);
    assert_eq!(names(&layout, "by-id"), [id.hex()]);
    assert_eq!(names(&layout, "by-time/2026-11-20"), ["www@12.00.00Z"]);
    assert_eq!(target(&layout, "by-group/sites/www/latest"), "2026-11-20T12.00.00Z");
    let link = target(&layout, "by-time/2026-11-20/www@12.00.00Z");
    assert_eq!(link, "../../by-group/sites/www/2026-11-20T12.00.00Z");
    assert_eq!(id_at(&layout, "by-group/sites/www/2026-11-20T12.00.00Z"), id);
    assert_eq!(id_at(&layout, "by-group/sites/www/@GMT-2026.11.20-12.00.00"), id);
    assert_eq!(id_at(&layout, &format!("by-id/{id}")), id);
}

#[test]
fn each_door_of_a_point_has_a_number_of_its_own() {
    let p = point("web", "sites", "www", NOON, 1);
    let layout = Layout::new(std::slice::from_ref(&p));
    let group = ino(&layout, "by-group/sites/www/2026-11-20T12.00.00Z").unwrap();
    let gmt = ino(&layout, "by-group/sites/www/@GMT-2026.11.20-12.00.00").unwrap();
    let id = ino(&layout, &format!("by-id/{}", p.id)).unwrap();
    assert!(group != gmt && gmt != id && id != group);
    for number in [group, gmt, id] {
        assert!(number < 1 << 62 && crate::inode::is_layout(number));
    }
}

#[test]
fn an_id_is_found_by_eight_digits_as_long_as_only_one_begins_so() {
    let mut a = point("h", "g", "s", NOON, 1);
    let mut b = point("h", "g", "s", NOON + 60, 2);
    for (p, last) in [(&mut a, 1), (&mut b, 2)] {
        let mut id = [0xab; 16];
        id[15] = last;
        p.id = RecoveryPointId(id);
    }
    let one = Layout::new(std::slice::from_ref(&a));
    assert_eq!(target(&one, "by-id/abababab"), a.id.hex());
    assert_eq!(ino(&one, "by-id/ababab"), None);
    assert_eq!(ino(&one, "by-id/ABABABAB"), None);
    let two = Layout::new(&[a, b]);
    assert_eq!(ino(&two, "by-id/abababab"), None);
    assert!(ino(&two, &format!("by-id/{}1", "ab".repeat(15) + "0")).is_some());
}

#[test]
fn points_of_one_second_are_numbered() {
    let points = [1, 2, 3].map(|n| point("h", "g", "s", NOON, n));
    let layout = Layout::new(&points);
    let times = ["2026-11-20T12.00.00Z", "2026-11-20T12.00.00Z.2", "2026-11-20T12.00.00Z.3", "latest"];
    assert_eq!(names(&layout, "by-group/g/s"), times);
    let mut ids: Vec<_> = times[..3].iter().map(|t| id_at(&layout, &format!("by-group/g/s/{t}"))).collect();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    let links = names(&layout, "by-time/2026-11-20");
    assert_eq!(links, ["s@12.00.00Z", "s@12.00.00Z.2", "s@12.00.00Z.3"]);
}

#[test]
fn a_point_keeps_its_name_when_another_of_the_same_second_comes() {
    for second in 0..20 {
        let (first, next) = (point("h", "g", "s", NOON + second, 1), point("h", "g", "s", NOON + second, 2));
        let alone = Layout::new(std::slice::from_ref(&first));
        let both = Layout::new(&[next, first.clone()]);
        let name = names(&alone, "by-group/g/s").into_iter().find(|name| name != "latest").unwrap();
        assert_eq!(id_at(&both, &format!("by-group/g/s/{name}")), first.id);
    }
}

#[test]
fn two_hosts_with_one_source_name_are_told_apart() {
    let layout = Layout::new(&[point("a", "g", "s", NOON, 1), point("b", "g", "s", NOON, 1)]);
    assert_eq!(names(&layout, "by-group/g"), ["s@a", "s@b"]);
    assert_eq!(names(&layout, "by-time/2026-11-20"), ["s@a@12.00.00Z", "s@b@12.00.00Z"]);
}

#[test]
fn sources_that_cannot_be_told_apart_by_name_carry_their_tags() {
    let layout = Layout::new(&[point("a", "g/x", "s", NOON, 1), point("a", "g-x", "s", NOON, 1)]);
    let found = names(&layout, "by-group/g-x");
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|name| name.starts_with("s@a~")), "{found:?}");
}

#[test]
fn latest_is_the_highest_sequence_even_if_the_clock_went_back() {
    let layout = Layout::new(&[point("h", "g", "s", NOON, 1), point("h", "g", "s", NOON - 3600, 2)]);
    assert_eq!(target(&layout, "by-group/g/s/latest"), "2026-11-20T11.00.00Z");
}

#[test]
fn names_are_safe_whatever_people_call_their_groups() {
    let table = [
        ("plain", "plain"),
        ("a/b", "a-b"),
        ("..", "-."),
        (".hidden", "-hidden"),
        ("@GMT-x", "-GMT-x"),
        ("", "-"),
        ("line\nbreak\0", "line-break-"),
        ("Größe", "Größe"),
    ];
    for (name, clean) in table {
        assert_eq!(clean_name(name), clean);
    }
    assert!(clean_name(&"ü".repeat(300)).len() <= 100);
}

#[test]
fn times_before_1970_and_beyond_the_calendar_have_names() {
    assert_eq!(time_name(Timestamp::from_seconds(-1)), "1969-12-31T23.59.59Z");
    assert_eq!(time_name(Timestamp::from_seconds(i64::MAX)), format!("second {}", i64::MAX));
}

#[test]
fn the_order_of_points_does_not_matter() {
    let mut points: Vec<_> = (1..6).map(|n| point("h", "g", "s", NOON + (n as i64 % 2) * 60, n)).collect();
    let one = Layout::new(&points);
    points.reverse();
    let two = Layout::new(&points);
    assert!(one.changes(&two).is_empty());
    assert_eq!(names(&one, "by-group/g/s"), names(&two, "by-group/g/s"));
}

#[test]
fn a_new_point_changes_its_directories_and_no_others() {
    let (a, b) = (point("h", "g", "s", NOON, 1), point("h", "g", "s", NOON + 1, 2));
    let other = point("h", "g", "t", NOON, 1);
    let old = Layout::new(&[a.clone(), other.clone()]);
    let new = Layout::new(&[a, b.clone(), other]);
    let changes = old.changes(&new);
    let folder = ino(&old, "by-group/g/s").unwrap();
    let change = changes.iter().find(|c| c.folder == folder).unwrap();
    assert_eq!(change.names, [&b"2026-11-20T12.00.01Z"[..], b"@GMT-2026.11.20-12.00.01", b"latest"]);
    let folders: Vec<_> =
        ["by-group/g/s", "by-id", "by-time/2026-11-20"].map(|p| ino(&old, p).unwrap()).into();
    assert_eq!(changes.len(), folders.len());
    assert!(changes.iter().all(|c| folders.contains(&c.folder)));
}

#[test]
fn a_changed_listing_shows_in_the_time_of_the_directory() {
    let (a, b) = (point("h", "g", "s", NOON, 1), point("h", "g", "s", NOON, 2));
    let changed = |points: &[&PointBrief]| {
        let points: Vec<_> = points.iter().map(|p| (*p).clone()).collect();
        let layout = Layout::new(&points);
        match layout.get(ino(&layout, "by-group/g/s").unwrap()) {
            Some(Stands::Folder(folder)) => folder.changed,
            _ => panic!("no folder"),
        }
    };
    assert_ne!(changed(&[&a]), changed(&[&a, &b]));
    assert_ne!(changed(&[&a]), changed(&[&b]));
    assert_eq!(changed(&[&a]), changed(&[&a]));
}

#[test]
fn positions_stay_when_other_points_come_and_go() {
    let points: Vec<_> = (1..50).map(|n| point("h", "g", "s", NOON + n as i64, n)).collect();
    let positions = |layout: &Layout| match layout.get(ino(layout, "by-group/g/s").unwrap()) {
        Some(Stands::Folder(folder)) => {
            folder.listed.iter().map(|(at, i)| (i.name.clone(), *at)).collect::<HashMap<_, _>>()
        }
        _ => panic!("no folder"),
    };
    let all = positions(&Layout::new(&points));
    let fewer = positions(&Layout::new(&points[10..]));
    assert!(fewer.iter().all(|(name, at)| all[name] == *at && *at >= 3));
}

#[test]
fn no_name_comes_to_mean_another_point_whatever_comes_and_goes() {
    let all: Vec<PointBrief> = (1..=6).map(|n| point("h", "g", "s", NOON, n)).collect();
    // What `all` has at these places, one layout after the other.
    let steps: [&[usize]; 7] = [&[1], &[0, 1], &[0, 1, 2, 3], &[1, 2, 3], &[2, 3, 4], &[], &[2, 5]];
    let (mut layout, mut meant) = (Layout::new(&[]), std::collections::BTreeMap::new());
    for step in steps {
        let points: Vec<_> = step.iter().map(|n| all[*n].clone()).collect();
        layout = layout.next(&points);
        let links = ["by-group/g/s", "by-time/2026-11-20"];
        let there = links.iter().filter(|folder| ino(&layout, folder).is_some());
        for path in
            there.flat_map(|folder| names(&layout, folder).into_iter().map(move |n| format!("{folder}/{n}")))
        {
            if path.ends_with("latest") {
                continue;
            }
            let id = match path.starts_with("by-time") {
                true => id_at(&layout, target(&layout, &path).trim_start_matches("../../")),
                false => id_at(&layout, &path),
            };
            assert_eq!(*meant.entry(path.clone()).or_insert(id), id, "{path} in {step:?}");
        }
        if let Some(first) = ino(&layout, "by-group/g/s/@GMT-2026.11.20-12.00.00") {
            assert!(first > 0 && id_at(&layout, "by-group/g/s/@GMT-2026.11.20-12.00.00") == all[1].id);
        }
    }
    assert_eq!(meant.len(), 2 * all.len(), "each point had one name in each place");
    // A new mount counts anew.
    assert_eq!(names(&Layout::new(&all[2..3]), "by-group/g/s"), ["2026-11-20T12.00.00Z", "latest"]);
}

#[test]
fn a_source_keeps_its_directory_when_another_machine_has_one_of_its_name_and_when_it_is_gone() {
    let (a, b) = (point("a", "g", "s", NOON, 1), point("b", "g", "s", NOON + 1, 1));
    let alone = Layout::new(std::slice::from_ref(&a));
    let both = alone.next(&[a.clone(), b.clone()]);
    assert_eq!(names(&both, "by-group/g"), ["s", "s@b"]);
    assert_eq!(id_at(&both, "by-group/g/s/2026-11-20T12.00.00Z"), a.id);
    assert_eq!(names(&both, "by-time/2026-11-20"), ["s@12.00.00Z", "s@b@12.00.01Z"]);
    let other = both.next(std::slice::from_ref(&b));
    assert_eq!(names(&other, "by-group/g"), ["s@b"]);
    assert_eq!(names(&other.next(&[a.clone(), b.clone()]), "by-group/g"), ["s", "s@b"]);
    assert_eq!(names(&Layout::new(&[a, b]), "by-group/g"), ["s@a", "s@b"]);
}

#[test]
fn a_name_that_was_given_to_what_is_gone_is_given_to_nothing_else() {
    // Of two groups, so that they meet by time.
    let (a, b) = (point("h", "g", "s", NOON, 1), point("h", "h", "s", NOON, 1));
    let next = Layout::new(std::slice::from_ref(&a)).next(&[]).next(std::slice::from_ref(&b));
    assert_eq!(names(&next, "by-time/2026-11-20"), ["s@12.00.00Z.2"]);
    assert_eq!(names(&next, "by-group/h/s"), ["2026-11-20T12.00.00Z", "latest"]);
}

#[test]
fn of_what_is_gone_no_more_is_remembered_than_so_much_and_no_name_comes_back_for_all_that() {
    let gone = given::GONE_MAX as u64;
    let points: Vec<_> = (1..=gone).map(|n| point("h", "g", "s", NOON + n as i64, n)).collect();
    let none = Layout::new(&points).next(&[]);
    // Of each half of the numbers that were given nothing is left, and the rest is.
    let [early, late] = [1, gone].map(|n| point("h", "g", "s", NOON + n as i64, gone + n));
    let again = points.last().cloned().unwrap();
    let layout = none.next(&[early.clone(), late.clone(), again.clone()]);
    let second = |n: u64| time_name(Timestamp::from_seconds(NOON + n as i64));
    let name = |n: u64, number: u32| format!("by-group/g/s/{}", names::numbered(&second(n), number));
    assert_eq!(id_at(&layout, &name(gone, 1)), again.id, "it came back");
    assert_eq!(id_at(&layout, &name(gone, 2)), late.id);
    assert_eq!(ino(&layout, &name(1, 1)), None, "nobody knows any more whose it was");
    assert_eq!(id_at(&layout, &name(1, 2)), early.id);
    // What is new has its name as ever.
    let new = point("h", "g", "s", NOON + 99, 99);
    assert_eq!(id_at(&layout.next(std::slice::from_ref(&new)), &name(99, 1)), new.id);
}
