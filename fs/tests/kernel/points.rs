//! Points that come and go, the doors that lead to them, and what may be laid over one.

use std::fs;
use std::path::Path;

use holdfast_fs::testing::{Part, point};

use crate::{NOON, bed, eventually, shell};

#[test]
fn points_appear_and_vanish_while_mounted() {
    let Some(bed) = bed(|r| vec![r.file("f", &[])]) else { return };
    let source = bed.dir.path().join("by-group/g/s");
    let list = || {
        let mut names: Vec<_> =
            fs::read_dir(&source).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let second = "2026-11-20T12.01.00Z";
    assert_eq!(list(), ["2026-11-20T12.00.00Z", "latest"]);
    assert!(fs::metadata(source.join(second)).is_err());
    let root = bed.recovery.directory("root", vec![bed.recovery.file("g", &[])]);
    bed.recovery.add(point("h", "g", "s", NOON + 60, 2), root);
    eventually("the new point", || list() == ["2026-11-20T12.00.00Z", second, "latest"]);
    eventually("the new point by name", || fs::metadata(source.join(second)).is_ok());
    eventually("the link to it", || fs::read_link(source.join("latest")).unwrap() == Path::new(second));
    assert!(fs::metadata(source.join("latest/g")).is_ok());
    assert!(fs::metadata(source.join("@GMT-2026.11.20-12.01.00/g")).is_ok());
    let first = point("h", "g", "s", NOON, 1).point.id;
    let short = first.hex()[..8].to_owned();
    assert!(fs::metadata(bed.dir.path().join("by-id").join(short).join("f")).is_ok());
    bed.recovery.remove(&first);
    eventually("the end of the old point", || list() == [second, "latest"]);
    eventually("the end of its name", || fs::metadata(bed.at("f")).is_err());
}

#[test]
fn one_directory_under_several_names_does_not_wander() {
    let Some(bed) = bed(|r| vec![r.directory("d", vec![r.file("f", &[])])]) else { return };
    let id = point("h", "g", "s", NOON, 1).point.id.hex();
    let by_id = bed.dir.path().join("by-id").join(&id).join("d");
    let gmt = bed.dir.path().join("by-group/g/s/@GMT-2026.11.20-12.00.00/d");
    let doors = [bed.at("d"), by_id, gmt];
    for here in &doors {
        for other in &doors {
            // The kernel would move the directory we stand in, if both were one to it.
            let (ok, out) = shell(&format!("ls '{}'; /bin/pwd -P", other.display()), here);
            assert!(ok);
            let path = fs::canonicalize(here).unwrap();
            assert_eq!(out.lines().collect::<Vec<_>>(), ["f", path.to_str().unwrap()]);
        }
    }
}

#[test]
fn a_point_is_the_lower_layer_of_an_overlay() {
    let Some(bed) = bed(|r| vec![r.directory("d", vec![r.file("f", &[Part::Data(b"old".to_vec())])])]) else {
        return;
    };
    let dirs = tempfile::tempdir().unwrap();
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| {
        fs::create_dir(dirs.path().join(name)).unwrap();
        dirs.path().join(name)
    });
    // The upper layer must not be an overlay itself, as the root of a container may be.
    let id = point("h", "g", "s", NOON, 1).point.id.hex();
    let lower = bed.dir.path().join("by-id").join(id);
    let data =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let none = nix::mount::MsFlags::empty();
    if let Err(errno) =
        nix::mount::mount(Some("overlay"), &merged, Some("overlay"), none, Some(data.as_str()))
    {
        println!("SKIPPED: no overlay here: {errno}");
        return;
    }
    let file = merged.join("d/f");
    assert_eq!(fs::read(&file).unwrap(), b"old");
    let changed = fs::write(&file, b"new").and_then(|()| fs::rename(&file, merged.join("d/g")));
    let seen = fs::read(merged.join("d/g"));
    nix::mount::umount(&merged).unwrap();
    changed.unwrap();
    assert_eq!(seen.unwrap(), b"new");
    assert_eq!(fs::read(bed.at("d/f")).unwrap(), b"old");
}
