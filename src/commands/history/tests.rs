//! Which path is meant, and which points hold the same.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::ChunkId;
use holdfast_store::tree::{Content, Extent};

use super::*;
use crate::commands::testing::{doubtful_point, node, stored_point};

fn file(content: u8, mode: u16) -> Node {
    let extent = Extent::Data { id: ChunkId([content; 32]), len: 5 };
    Node { content: Some(Content::Inline(vec![extent])), mode, ..node(b"f", NodeKind::File) }
}

fn history_of(nodes: &[Option<Node>]) -> History {
    let source = stored_point(1, "docs", 0).point.source.clone();
    let mut history =
        History { source, path: b"d/f".to_vec(), versions: Vec::new(), points: nodes.len(), unread: 0 };
    for (n, node) in nodes.iter().enumerate() {
        let point = stored_point(n as u8 + 1, "docs", n as i64);
        node.iter().for_each(|node| history.add(point.clone(), node.clone()));
    }
    history
}

#[test]
fn points_that_hold_the_same_are_one_version_also_when_another_was_between() {
    let nodes =
        [Some(file(1, 0o644)), Some(file(1, 0o644)), None, Some(file(2, 0o600)), Some(file(1, 0o644))];
    let history = history_of(&nodes);
    let text = render(&history, &TimeZone::UTC);
    assert_eq!(
        text,
        "d/f in docs (group, host)\n\
         Version  Size  Modified             Differs in     First     Last      Points\n\
         -----------------------------------------------------------------------------\n\
         \x20     1   5 B  2026-11-20 12:00:00                 01010101  05050505       3\n\
         \x20     2   5 B  2026-11-20 12:00:00  content, mode  04040404  04040404       1\n\
         2 versions in 4 points; 1 point without it"
    );
    let json = serde_json::to_value(as_json(&history)).unwrap();
    assert_eq!((&json["points_total"], &json["points_without"]), (&5.into(), &1.into()));
    assert_eq!(json["versions"][1]["differs"], serde_json::json!(["content", "mode"]));
    assert_eq!(json["versions"][0]["points"].as_array().unwrap().len(), 3);
    assert_ne!(json["versions"][0]["content"], json["versions"][1]["content"]);
}

#[test]
fn what_the_source_alone_knows_makes_no_version() {
    let other = Node { inode: 77, links: 3, ctime: Timestamp::from_seconds(1), ..file(1, 0o644) };
    assert_eq!(history_of(&[Some(file(1, 0o644)), Some(other)]).versions.len(), 1);
    let link = Node { kind: NodeKind::Symlink, ..file(1, 0o644) };
    assert_eq!(history_of(&[Some(file(1, 0o644)), Some(link)]).versions[1].differs, ["type"]);
}

#[test]
fn a_path_is_found_below_its_source_and_not_beside_it() {
    let table = [
        ("/srv/docs", "srv/docs/a/b", Some("a/b")),
        ("/srv/docs/", "srv/docs", Some("")),
        ("/", "srv/docs", Some("srv/docs")),
        ("/srv/docs", "srv/docs2/a", None),
        ("/srv/docs", "srv", None),
    ];
    for (source, path, expected) in table {
        let found = below(source.as_bytes(), path.as_bytes());
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path}");
    }
    assert_eq!(below(b"/srv/\xff", b"srv/\xff/x").as_deref(), Some(&b"x"[..]));
    assert_eq!(without_dots(b"//a/./b/../c/"), b"a/c");
    assert_eq!(without_dots(b"/../.."), b"");
}

#[test]
fn points_come_in_the_order_in_which_they_were_taken() {
    let mut late = stored_point(1, "docs", 1);
    Arc::make_mut(&mut late.point).sequence = 2;
    let points = [late, stored_point(2, "docs", 5), stored_point(3, "other", 3)];
    let all = Points { readable: points.to_vec(), ..Points::default() };
    let (places, _) = by_source(all, |point| Some((point, b"f".to_vec())));
    let ids: Vec<Vec<u8>> =
        places.iter().map(|p| p.points.iter().map(|(point, _)| point.point.id.0[0]).collect()).collect();
    assert_eq!(ids, [vec![2, 1], vec![3]]);
}

#[test]
fn a_point_in_doubt_counts_as_one_that_may_have_it() {
    let readable = vec![stored_point(1, "a", 1), stored_point(2, "b", 2)];
    let doubtful = vec![doubtful_point(7, Some("a")), doubtful_point(8, None), doubtful_point(9, Some("b"))];
    let all = Points { readable, doubtful, ..Points::default() };
    let only_a = |point: StoredPoint| (point.point.source.source == "a").then(|| (point, b"f".to_vec()));
    let (places, strays) = by_source(all, only_a);
    assert_eq!((places.len(), places[0].points.len(), places[0].in_doubt, strays), (1, 1, 1, 1));
}
