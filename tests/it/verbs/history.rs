//! `history`, by each way to name a file.

use std::os::unix::fs::PermissionsExt;

use super::Stored;
use crate::testkit::{can_mount, mounts, noise};
use crate::vault::packs;

/// Five points: a file is made, stays, is changed, is gone, and is as it was at first.
fn five_points(stored: &Stored) -> Vec<String> {
    let dir = stored.path("src/dir");
    let file = dir.join("report");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&file, noise(1, 300_000)).unwrap();
    let first = std::fs::metadata(&file).unwrap().modified().unwrap();
    let mut ids = vec![stored.backup()];
    std::fs::write(dir.join("other"), "other").unwrap();
    ids.push(stored.backup());
    std::fs::write(&file, noise(2, 100_000)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    ids.push(stored.backup());
    std::fs::remove_file(&file).unwrap();
    ids.push(stored.backup());
    std::fs::write(&file, noise(1, 300_000)).unwrap();
    std::fs::File::open(&file).unwrap().set_modified(first).unwrap();
    ids.push(stored.backup());
    ids
}

#[test]
fn a_file_has_its_versions_whichever_way_it_is_named() {
    let stored = Stored::new();
    let ids = five_points(&stored);
    let line = stored.json(&["history", "src/dir/report"]).remove(0);
    assert_eq!((&line["message_type"], &line["source"]), (&"history".into(), &"docs".into()));
    assert_eq!(
        (&line["path"], &line["points_total"], &line["points_without"]),
        (&"dir/report".into(), &5.into(), &1.into())
    );
    let versions = line["versions"].as_array().unwrap();
    let held = |n: usize| -> Vec<&str> {
        versions[n]["points"].as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap()).collect()
    };
    assert_eq!(versions.len(), 2, "{line:#}");
    assert_eq!((held(0), held(1)), (vec![&*ids[0], &*ids[1], &*ids[4]], vec![&*ids[2]]));
    assert_eq!(versions[1]["differs"], serde_json::json!(["content", "mtime", "mode"]));
    assert_eq!(
        (&versions[0]["node"]["size"], &versions[1]["node"]["size"]),
        (&300_000.into(), &100_000.into())
    );
    assert_ne!(versions[0]["content"], versions[1]["content"]);
    let absolute = stored.path("src/dir/report");
    for way in
        [absolute.to_str().unwrap(), "./src/../src/dir/report", "latest:dir/report", "latest~1:dir/report"]
    {
        assert_eq!(stored.json(&["history", way]).remove(0), line, "{way}");
    }
    assert_eq!(stored.json(&["history", "dir/report", "--source", "docs"]).remove(0), line);
    let text = stored.run(["history", "latest:dir/report"]).expect_code(0).out();
    assert!(text.starts_with("dir/report in docs (default, "), "{text}");
    assert!(text.ends_with("2 versions in 4 points; 1 point without it\n"), "{text}");
    let directory = stored.run(["history", "latest:dir"]).expect_code(0).out();
    assert!(directory.contains("\n5 versions in 5 points\n"), "{directory}");
    for nowhere in ["src/dir/nothing", "/nowhere", "latest:nothing"] {
        stored
            .run(["history", nowhere])
            .expect_code(1)
            .expect_err(&["no recovery point has", "holdfast find"]);
    }
    through_a_mount(&stored, &line);
}

fn through_a_mount(stored: &Stored, line: &serde_json::Value) {
    if !can_mount("the part of history that goes through a mount") {
        return;
    }
    let mount = stored.path("mnt");
    std::fs::create_dir(&mount).unwrap();
    stored.run(["mount", "mnt", "--background"]).expect_code(0);
    assert_eq!(&stored.json(&["history", "mnt/by-group/default/docs/latest/dir/report"]).remove(0), line);
    let mut inside = stored.command(["history", "report", "--json"]);
    let ran = crate::testkit::Ran::of(inside.current_dir(mount.join("by-group/default/docs/latest/dir")));
    assert_eq!(&ran.expect_code(0).json(), line);
    stored.run(["umount", "mnt"]).expect_code(0);
    assert!(!mounts().contains(&mount));
}

#[test]
fn a_point_that_cannot_be_read_is_told_of_and_the_others_are_shown() {
    let stored = Stored::new();
    std::fs::write(stored.path("src/report"), noise(1, 100_000)).unwrap();
    let damaged = stored.backup();
    let first = packs(&stored.path("store"));
    std::fs::write(stored.path("src/report"), noise(2, 200_000)).unwrap();
    let whole = stored.backup();
    for (len, pack) in first {
        std::fs::write(pack, vec![0; len as usize]).unwrap();
    }
    let ran = stored.run(["history", "src/report", "--json"]).expect_code(3);
    let ran = ran.expect_err(&[&damaged[..8], "cannot look for report"]);
    let line = ran.json();
    assert_eq!(
        (&line["points_total"], &line["points_without"], &line["points_unread"]),
        (&2.into(), &0.into(), &1.into())
    );
    assert_eq!(line["versions"][0]["points"][0]["id"], whole);
    let text = stored.run(["history", "src/report"]).expect_code(3).out();
    assert!(text.ends_with("1 version in 1 point; 1 point could not be read\n"), "{text}");
    stored.run(["history", "src/nothing"]).expect_code(1).expect_err(&["could be read", "1 point could not"]);
}
