//! The contract of field names, and names that are not UTF-8.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::commands::testing::{node, stored_point};

#[test]
fn a_point_has_the_fields_that_scripts_for_restic_read() {
    let value = serde_json::to_value(Snapshot::from(&stored_point(7, "docs", 1_795_219_200))).unwrap();
    let picked: Vec<&Value> =
        ["time", "hostname", "paths", "short_id", "tags"].iter().map(|name| &value[name]).collect();
    assert_eq!(
        picked,
        [
            &json!("2026-11-21T00:00:00.000000000Z"),
            &json!("host"),
            &json!(["/srv/docs"]),
            &json!("07070707"),
            &json!([])
        ]
    );
    assert_eq!(value["id"], json!("07".repeat(16)));
    assert_eq!(value["summary"]["total_bytes_processed"], json!(2048));
    assert_eq!(value["state"], json!("complete"));
    assert!(value.get("paths_b64").is_none() && value.get("expires").is_none());
    let mut stored = stored_point(7, "docs", 1_795_219_200);
    std::sync::Arc::make_mut(&mut stored.point).set_expires(1_795_219_200);
    let value = serde_json::to_value(Snapshot::from(&stored)).unwrap();
    assert_eq!(value["expires"], value["time"]);
}

#[test]
fn a_name_that_is_not_utf8_stands_in_base64_beside_its_lossy_form() {
    let line = NodeLine::of(b"dir/\xff", &node(b"\xff", NodeKind::File));
    let value = serde_json::to_value(line).unwrap();
    assert_eq!(value["path"], json!("dir/\u{fffd}"));
    assert_eq!(value["path_b64"], json!("ZGlyL/8="));
    assert_eq!(value["type"], json!("file"));
    assert!(value.get("linktarget").is_none());
    assert_eq!(PathText::of("gr\u{fc}n".as_bytes()).path_b64, None);
}

#[test]
fn permissions_read_as_ls_shows_them() {
    let table = [
        (NodeKind::File, 0o644, "-rw-r--r--"),
        (NodeKind::Directory, 0o1777, "drwxrwxrwt"),
        (NodeKind::File, 0o4755, "-rwsr-xr-x"),
        (NodeKind::File, 0o6600, "-rwS--S---"),
        (NodeKind::Symlink, 0o777, "lrwxrwxrwx"),
        (NodeKind::BlockDevice, 0o660, "brw-rw----"),
        (NodeKind::Directory, 0o1750, "drwxr-x--T"),
    ];
    for (kind, mode, text) in table {
        assert_eq!(permissions(kind, mode), text);
    }
}

#[test]
fn durations_may_cross_a_second() {
    let from = Timestamp { seconds: 10, nanos: 900_000_000 };
    let to = Timestamp { seconds: 12, nanos: 400_000_000 };
    assert!((seconds_between(from, to) - 1.5).abs() < 1e-9);
}
