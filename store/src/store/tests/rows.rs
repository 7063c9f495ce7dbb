//! Tests of rows that are damaged in the catalog: the object of a recovery point says what is right in its row, and nobody takes
//! another point for it meanwhile; what a row of a chunk hides is not lost.

use super::hostile::{prepared, push, recovered, reopened};
use super::losses::{faulty, only_in_vault, open_on};
use super::*;
use crate::ErrorClass;
use crate::catalog::{Mark, PointRow};
use crate::check::{self, Depth};
use crate::clock::Waiting;
use crate::monitor::Event;
use crate::reclaim::{self, Place};
use crate::vault::Verb;
use crate::vault::testing::{Fault as VaultFault, FaultyVault};

/// Sets columns of a point's row, as damage does: what is said elsewhere of the point stays.
fn damage(store: &Store, set: &str, id: &RecoveryPointId) {
    let writer = store.catalog().writer();
    writer.pragma_update(None, "foreign_keys", "OFF").unwrap();
    let sql = format!("UPDATE point SET {set} WHERE id = ?1");
    assert_eq!(writer.execute(&sql, [&id.0[..]]).unwrap(), 1, "{set}");
    writer.pragma_update(None, "foreign_keys", "ON").unwrap();
}

/// Eight bytes, for one may be zero already.
const OBJECT: &str = "object = CAST(substr(object, 1, 200) || zeroblob(8) || substr(object, 209) AS BLOB)";

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
        "id = CAST(id AS TEXT)".to_owned(),
        "id = CAST(x'ff' || id AS TEXT)".to_owned(),
        format!("id = zeroblob(16), {OBJECT}"),
        format!("id = x'02', {OBJECT}"),
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
    for flip in [OBJECT, "sequence = 64", "tag = zeroblob(16)", "id = CAST(id AS TEXT)"] {
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

#[test]
fn a_point_of_a_vault_whose_row_lost_name_and_object_is_found_again_in_the_vault() {
    for id in ["id = zeroblob(16)", "id = x'02'", "id = CAST(x'ff' || id AS TEXT)"] {
        for away_first in [false, true] {
            let (home, vault, dir, there) = only_in_vault();
            let one = there.points().unwrap().remove(0);
            let two = take_point(&there, &sample(2)).unwrap();
            damage(&there, &format!("{id}, {OBJECT}"), &one.point.id);
            drop(there);
            let dir = dir.path().join("new");
            if away_first {
                drop(Store::open(&dir, &home.ring, Home::options(Vec::new()), &VoidMonitor).unwrap());
            }
            let back = reopened(&home, &vault, &dir);
            let points = back.points().unwrap();
            let ids: Vec<_> = points.iter().map(|p| p.point.id).collect();
            assert_eq!(ids, [one.point.id, two.point.id], "{id}, {away_first}");
            assert_eq!((points[0].local, &points[0].vaults), (false, &one.vaults), "{id}, {away_first}");
            assert_eq!(back.catalog().points().unwrap().len(), 2, "{id}, {away_first}");
            assert!(!back.catalog().has_mark(Mark::Reread(back.vaults()[0].0)).unwrap(), "it was read");
        }
    }
}

#[test]
fn a_row_with_another_points_object_is_put_right_and_the_other_point_gets_none_of_its_places() {
    let (home, vault, dir, there) = only_in_vault();
    let one = there.points().unwrap().remove(0);
    let two = take_point(&there, &sample(2)).unwrap();
    let of_two = format!("(SELECT object FROM point WHERE id = x'{}')", two.point.id);
    damage(&there, &format!("sequence = 64, object = {of_two}"), &one.point.id);
    drop(there);
    let back = reopened(&home, &vault, &dir.path().join("new"));
    let points = back.points().unwrap();
    assert_eq!(points.iter().map(|p| p.hash).collect::<Vec<_>>(), [one.hash, two.hash]);
    assert_eq!((&points[0].vaults, &points[1].vaults), (&one.vaults, &Vec::new()));
    assert!(points[1].local);
}

/// A store that has two points from a vault alone, with the rows of both damaged; and the vault, which can fail.
fn damaged_rows_of_a_vault() -> (Home, tempfile::TempDir, Arc<FaultyVault>) {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let both = two_points(&store);
    for point in &both {
        push(&store, point, &RecordingMonitor::default()).unwrap();
    }
    let (dir, there) = recovered(&home, &vault);
    both.iter().for_each(|p| damage(&there, &format!("sequence = 64, {OBJECT}"), &p.point.id));
    (home, dir, faulty(&vault))
}

#[test]
fn a_vault_lists_its_points_once_for_all_damaged_rows_and_one_that_fails_is_not_asked_again() {
    let (home, dir, vault) = damaged_rows_of_a_vault();
    vault.fail_any_from(1, VaultFault::Deny);
    let store = open_on(&home, &dir.path().join("new"), vault.clone());
    assert_eq!(vault.requests().len(), 1, "{:?}", vault.requests());
    assert_eq!(store.look_at_points().unwrap().1.len(), 2);
    assert_eq!(vault.requests().len(), 2, "{:?}", vault.requests());
    vault.heal();
    vault.forget();
    assert_eq!(store.points().unwrap().len(), 2);
    assert_eq!(vault.count(Verb::List), 1, "{:?}", vault.requests());
}

#[test]
fn nobody_is_kept_from_the_lock_while_a_vault_is_asked_for_a_damaged_row() {
    let (home, dir, vault) = damaged_rows_of_a_vault();
    let (path, free) = (dir.path().join("new"), Arc::new(Mutex::new(Vec::new())));
    let (of, seen) = (path.clone(), free.clone());
    vault.watch(move || seen.lock().unwrap().push(StoreLock::take(&of, "lock", true).is_ok()));
    let store = open_on(&home, &path, vault);
    assert!(store.catalog().damaged_points(true).unwrap().is_empty());
    let free = free.lock().unwrap();
    assert!(free.len() > 2 && free.iter().all(|free| *free), "{free:?}");
}

#[test]
fn no_vault_is_asked_for_a_point_when_nobody_waits_for_it_any_more() {
    let (home, dir, vault) = damaged_rows_of_a_vault();
    vault.fail_any_from(1, VaultFault::Deny);
    let store = open_on(&home, &dir.path().join("new"), vault.clone());
    let (id, _) = store.catalog().point_ids().unwrap()[0];
    vault.heal();
    vault.forget();
    let given_up = Deadline::NEVER.of(&Waiting::begin());
    assert!(store.decode_point_from_anywhere(&id, given_up).is_err());
    assert_eq!(vault.requests(), []);
    assert_eq!(store.decode_point_from_anywhere(&id, Deadline::NEVER).unwrap().id, id);
}

#[test]
fn a_row_that_says_something_else_than_the_object_is_put_right_by_who_decodes_the_point() {
    let home = Home::new();
    let store = home.open();
    let both = two_points(&store);
    let row = store.catalog().point(&both[0].point.id).unwrap().unwrap();
    store.catalog().mend_point(&PointRow { sequence: 64, ..row }).unwrap();
    assert_eq!(store.decode_point(&both[0].point.id).unwrap(), *both[0].point);
}

#[test]
fn a_row_without_a_name_may_be_the_newest_of_any_source() {
    let home = Home::new();
    let store = home.open();
    let both = two_points(&store);
    damage(&store, &format!("id = x'02', {OBJECT}"), &both[1].point.id);
    for tag in [both[1].point.source_tag, store.sealer().source_tag("host", "group", "other")] {
        assert_eq!(store.newest_point(&tag).unwrap_err().class(), ErrorClass::Corrupt);
    }
    assert_eq!(take_point(&store, &sample(3)).unwrap().point.sequence, 3, "who has the lock finds it again");
}

#[test]
fn staging_that_cannot_be_read_does_not_make_an_older_point_the_newest() {
    let home = Home::new();
    let store = home.open();
    let both = two_points(&store);
    damage(&store, &format!("sequence = 64, {OBJECT}"), &both[1].point.id);
    let (rp, aside) = (home.path().join("rp"), home.path().join("aside"));
    std::fs::rename(&rp, &aside).unwrap();
    std::fs::write(&rp, "in the way").unwrap();
    let error = store.newest_point(&both[1].point.source_tag).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    std::fs::remove_file(&rp).unwrap();
    std::fs::rename(&aside, &rp).unwrap();
    let newest = store.newest_point(&both[1].point.source_tag).unwrap().unwrap();
    assert_eq!(newest.point.id, both[1].point.id);
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
