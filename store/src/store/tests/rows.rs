//! Tests of rows that are damaged in the catalog: the object of a recovery point says what is right in its row, and nobody takes
//! another point for it meanwhile; what a row of a chunk hides is not lost.

use super::hostile::reopened;
use super::losses::only_in_vault;
use super::*;
use crate::ErrorClass;
use crate::catalog::PointRow;
use crate::check::{self, Depth};
use crate::monitor::Event;
use crate::reclaim::{self, Place};

/// Sets columns of a point's row.
fn damage(store: &Store, set: &str, id: &RecoveryPointId) {
    let sql = format!("UPDATE point SET {set} WHERE id = ?1");
    let changed = store.catalog().write("flip", |t| t.execute(&sql, [&id.0[..]]));
    assert_eq!(changed.unwrap(), 1, "{set}");
}

const OBJECT: &str = "object = CAST(substr(object, 1, 200) || x'00' || substr(object, 202) AS BLOB)";

fn two_points(store: &Store) -> [StoredPoint; 2] {
    [1, 2].map(|version| take_point(store, &sample(version)).unwrap())
}

fn rp_of(home: &Home, point: &StoredPoint) -> PathBuf {
    home.path().join(names::point(&point.point.source_tag, &point.point.id).as_str())
}

fn told(monitor: &RecordingMonitor) -> String {
    let line = |event: &Event| match event {
        Event::Problem { path, reason } => format!("{}: {reason}\n", String::from_utf8_lossy(path)),
        event => format!("{event:?}\n"),
    };
    monitor.events().iter().map(line).collect()
}

fn open_telling(home: &Home, monitor: &RecordingMonitor) -> Store {
    Store::open(&home.path(), &home.ring, Home::options(Vec::new()), monitor).unwrap()
}

#[test]
fn a_damaged_row_is_put_right_from_the_object_in_staging() {
    let flips = [
        OBJECT.to_owned(),
        "tag = zeroblob(16)".to_owned(),
        "sequence = sequence | 64".to_owned(),
        "started = 'x'".to_owned(),
        "hash = zeroblob(32)".to_owned(),
        "id = zeroblob(16)".to_owned(),
        format!("sequence = 0, {OBJECT}"),
        format!("tag = zeroblob(16), {OBJECT}"),
    ];
    for flip in &flips {
        for which in 0..2 {
            let home = Home::new();
            let store = home.open();
            let both = two_points(&store);
            damage(&store, flip, &both[which].point.id);
            drop(store);
            let store = home.open();
            let (points, doubtful) = store.look_at_points().unwrap();
            assert!(doubtful.is_empty(), "{flip}: {doubtful:?}");
            assert_eq!(
                points.iter().map(|p| p.hash).collect::<Vec<_>>(),
                both.clone().map(|p| p.hash),
                "{flip}"
            );
            for (point, version) in points.iter().zip([1, 2]) {
                assert!(restore(&store, point).unwrap() == sample(version), "{flip}");
            }
            let next = take_point(&store, &sample(3)).unwrap();
            assert_eq!((next.point.sequence, next.point.previous), (3, both[1].hash), "{flip}");
            assert!(store.catalog().damaged_points(true).unwrap().is_empty(), "{flip}");
            assert_eq!(store.catalog().points().unwrap().len(), 3, "{flip}");
        }
    }
}

#[test]
fn a_row_that_is_damaged_while_the_store_is_open_is_put_right_by_who_comes_to_it() {
    let home = Home::new();
    let store = home.open();
    let both = two_points(&store);
    let id = both[1].point.id;
    for flip in [OBJECT, "sequence = 64", "tag = zeroblob(16)"] {
        damage(&store, flip, &id);
        assert_eq!(store.decode_point(&id).unwrap().sequence, 2, "{flip}");
        damage(&store, flip, &id);
        assert!(store.point_briefs().unwrap().iter().any(|b| b.id == id && b.sequence == 2), "{flip}");
        damage(&store, flip, &id);
        assert_eq!(store.points().unwrap().len(), 2, "{flip}");
        damage(&store, flip, &id);
        let tag = both[1].point.source_tag;
        assert_eq!(store.newest_point(&tag).unwrap().unwrap().point.id, id, "{flip}");
        damage(&store, flip, &id);
        let monitor = RecordingMonitor::default();
        check::check(&store, Depth::Structure, &monitor).unwrap();
        assert!(told(&monitor).contains("it is put right from the point itself"), "{}", told(&monitor));
    }
}

#[test]
fn a_row_that_says_something_else_than_the_object_is_put_right_though_its_sum_holds() {
    let home = Home::new();
    let store = home.open();
    let both = two_points(&store);
    let row = store.catalog().point(&both[0].point.id).unwrap().unwrap();
    store.catalog().mend_point(&PointRow { sequence: 64, ..row }).unwrap();
    drop(store);
    let store = home.open();
    assert_eq!(store.points().unwrap().len(), 2);
    assert_eq!(store.catalog().point(&both[0].point.id).unwrap().unwrap().sequence, 1);
}

#[test]
fn a_damaged_row_of_a_point_that_only_a_vault_has_waits_for_the_vault() {
    let (home, vault, dir, there) = only_in_vault();
    let two = take_point(&there, &sample(2)).unwrap();
    let one = there.points().unwrap().into_iter().find(|p| !p.local).unwrap();
    let (id, tag) = (one.point.id, one.point.source_tag);
    damage(&there, &format!("sequence = 64, {OBJECT}"), &id);
    drop(there);
    let dir = dir.path().join("new");
    let monitor = RecordingMonitor::default();
    let away = Store::open(&dir, &home.ring, Home::options(Vec::new()), &monitor).unwrap();
    assert!(told(&monitor).contains(&id.to_string()), "{}", told(&monitor));
    let (points, doubtful) = away.look_at_points().unwrap();
    assert_eq!(points.iter().map(|p| p.point.id).collect::<Vec<_>>(), [two.point.id]);
    assert_eq!(doubtful.iter().map(|d| (d.id, d.tag)).collect::<Vec<_>>(), [(id, Some(tag))]);
    assert_eq!(away.newest_point(&tag).unwrap_err().class(), ErrorClass::Corrupt);
    let other = away.sealer().source_tag("host", "group", "other");
    assert!(away.newest_point(&other).unwrap().is_none(), "it is of another source");
    assert!(reclaim::plan(&away, Place::Staging, &VoidMonitor).is_err());
    // Shown as what it may be: the newest. And nobody gets in.
    let newest = away.point_briefs().unwrap().into_iter().max_by_key(|b| b.sequence).unwrap();
    assert_eq!((newest.id, newest.source.source.as_str()), (id, "source"));
    assert_eq!(away.decode_point(&id).unwrap_err().class(), ErrorClass::Corrupt);
    let report = check::check(&away, Depth::Structure, &VoidMonitor).unwrap();
    assert!(report.findings.iter().any(|f| f.object.contains(&id.to_string())), "{:?}", report.findings);
    drop(away.begin(Compression::None, &VoidMonitor).unwrap());
    drop(away);
    let back = reopened(&home, &vault, &dir);
    assert!(back.look_at_points().unwrap().1.is_empty());
    assert!(restore(&back, &back.point(&id).unwrap()).unwrap() == sample(1));
    assert!(restore(&back, &two).unwrap() == sample(2));
    assert_eq!(back.catalog().point(&id).unwrap().unwrap().sequence, one.point.sequence);
}

#[test]
fn a_point_whose_row_is_damaged_and_that_is_nowhere_is_told_and_forgotten_by_who_has_the_lock() {
    let home = Home::new();
    let store = home.open();
    let both = two_points(&store);
    damage(&store, OBJECT, &both[0].point.id);
    std::fs::remove_file(rp_of(&home, &both[0])).unwrap();
    drop(store);
    let store = home.open();
    let (points, doubtful) = store.look_at_points().unwrap();
    assert_eq!((points.len(), doubtful[0].id), (1, both[0].point.id));
    assert!(reclaim::plan(&store, Place::Staging, &VoidMonitor).is_err(), "what it needs is unknown");
    let monitor = RecordingMonitor::default();
    drop(store.begin(Compression::None, &monitor).unwrap());
    assert!(told(&monitor).contains("in no place any more"), "{}", told(&monitor));
    assert_eq!(store.catalog().points().unwrap().len(), 1);
    let next = take_point(&store, &sample(3)).unwrap();
    assert_eq!((next.point.sequence, next.point.previous), (3, both[1].hash));
}

#[test]
fn a_point_that_is_damaged_in_its_row_and_in_staging_stays_and_is_told() {
    let home = Home::new();
    let store = home.open();
    let both = two_points(&store);
    let good = std::fs::read(rp_of(&home, &both[0])).unwrap();
    damage(&store, &format!("started = 0, {OBJECT}"), &both[0].point.id);
    std::fs::write(rp_of(&home, &both[0]), b"not a point").unwrap();
    drop(store);
    let monitor = RecordingMonitor::default();
    let store = open_telling(&home, &monitor);
    assert!(told(&monitor).contains("no whole copy"), "{}", told(&monitor));
    drop(store.begin(Compression::None, &VoidMonitor).unwrap());
    assert_eq!(store.look_at_points().unwrap().1.len(), 1);
    assert!(reclaim::plan(&store, Place::Staging, &VoidMonitor).is_err());
    drop(store);
    std::fs::write(rp_of(&home, &both[0]), good).unwrap();
    assert_eq!(home.open().points().unwrap().len(), 2);
}

/// Where these bytes stand in a file.
fn found_in(file: &[u8], bytes: &[u8]) -> Vec<usize> {
    file.windows(bytes.len()).enumerate().filter(|(_, at)| *at == bytes).map(|(at, _)| at).collect()
}

#[test]
fn a_bit_in_a_row_of_a_chunk_is_named_as_the_catalogs_and_nothing_is_called_lost() {
    let home = Home::new();
    let store = home.open();
    let point = take_point(&store, &sample(1)).unwrap();
    let data = store.catalog().packs().unwrap().into_iter().find(|row| row.entry.kind == PackKind::Data);
    let chunk = store.catalog().chunks_of(data.unwrap().no).unwrap().remove(1).id;
    let slots = check::check(&store, Depth::Structure, &VoidMonitor).unwrap().findings.len();
    drop(store);
    let path = home.path().join("catalog.db");
    let whole = std::fs::read(&path).unwrap();
    let places = found_in(&whole, &chunk.0);
    let mut found = 0;
    for at in &places {
        let mut bytes = whole.clone();
        bytes[at + 20] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        for depth in [Depth::Structure, Depth::ReadData] {
            let store = home.open();
            let report = check::check(&store, depth, &VoidMonitor).unwrap();
            let named = report.findings.iter().filter(|f| f.object == "catalog.db").count();
            // Where the file has a page twice, one of them is read by nobody.
            assert_eq!(report.findings.len(), slots + named, "{report:?}");
            found += named;
            assert_eq!(report.files, []);
        }
    }
    assert_eq!(found, 2 * 2, "in the table and in its index, at each depth: {places:?}");
    // The way out that is named.
    std::fs::remove_file(&path).unwrap();
    let store = home.open();
    assert!(restore(&store, &point).unwrap() == sample(1));
    assert_eq!(check::check(&store, Depth::Structure, &VoidMonitor).unwrap().findings.len(), slots);
}
