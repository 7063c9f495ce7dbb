//! Tests of rows of packs that are damaged in the catalog: the pack is read again from where it lies, and nobody is blamed.

use super::hostile::{data_packs, prepared, push, reopened};
use super::losses::only_in_vault;
use super::*;
use crate::catalog::PackNo;
use crate::check::{self, Depth};
use crate::monitor::Event;
use crate::reclaim::{self, Place};

/// Sets columns of a pack's row.
pub(super) fn damage(store: &Store, set: &str, no: PackNo) {
    let sql = format!("UPDATE pack SET {set} WHERE no = ?1");
    let changed = store.catalog().write("flip", |t| t.execute(&sql, [no.0]));
    assert_eq!(changed.unwrap(), 1, "{set}");
}

const FLIPS: [&str; 7] = [
    "len = len + 1",
    "generation = generation + 1",
    "kind = 9",
    "frames = CAST(substr(frames, 1, 4) || x'10000200' || substr(frames, 9) AS BLOB)",
    "object_id = zeroblob(16)",
    "id = zeroblob(32)",
    "sum = 0, id = zeroblob(3)",
];

type Way = fn(&Store, &RecordingMonitor) -> Result<(), StoreError>;

/// What may come to a damaged row first.
const WAYS: [(&str, Way); 4] = [
    ("backup", |store, monitor| begin_online(store, monitor).map(drop)),
    ("check", |store, monitor| check::check(store, Depth::Structure, monitor).map(drop)),
    ("push", |store, monitor| {
        let (no, _, way) = store.vaults()[0].clone();
        copy::refresh_vault(store, no, &way, monitor)
    }),
    ("prune", |store, monitor| {
        let (no, _, way) = store.vaults()[0].clone();
        store.reconcile(monitor)?;
        copy::load_catalog(store, no, &way, monitor)?;
        reclaim::plan(store, Place::Vault(no), monitor).map(drop)
    }),
];

/// That one row was told and nothing else, and that the store is whole again, as it is for who comes next.
fn assert_healed(store: &Store, what: &str, monitor: &RecordingMonitor) {
    let told = monitor.events();
    // The slot of these stores is one in name only.
    let of_slots =
        |e: &Event| !matches!(e, Event::Problem { path, .. } if !path.starts_with(names::SLOTS.as_bytes()));
    assert!(told.iter().all(of_slots), "{what}: {told:?}");
    let notes =
        told.iter().filter(|e| matches!(e, Event::Note(note) if note.contains("catalog's row of pack")));
    assert_eq!(notes.count(), 1, "{what}: {told:?}");
    assert_eq!(store.catalog().damaged_packs().unwrap(), [], "{what}");
    assert!(restore(store, &store.points().unwrap()[0]).unwrap() == sample(1), "{what}");
    let again = RecordingMonitor::default();
    drop(begin_online(store, &again).unwrap());
    assert_eq!(again.events(), [], "{what}");
}

#[test]
fn a_pack_whose_row_is_damaged_is_read_again_from_staging() {
    for flip in FLIPS {
        for (name, way) in WAYS {
            let home = Home::new();
            let (vault, store) = prepared(&home);
            push(&store, &take_point(&store, &sample(1)).unwrap(), &RecordingMonitor::default()).unwrap();
            drop(store);
            let store = reopened(&home, &vault, &home.path());
            let packs = data_packs(&store);
            damage(&store, flip, packs[0].no);
            let monitor = RecordingMonitor::default();
            way(&store, &monitor).unwrap();
            assert_healed(&store, &format!("{name}: {flip}"), &monitor);
            assert_eq!(data_packs(&store).len(), packs.len(), "{name}: {flip}");
            assert!(data_packs(&store).iter().all(|row| row.staged), "{name}: {flip}");
            let next = take_point(&store, &sample(1)).unwrap();
            assert_eq!(next.point.counts.bytes_new, 0, "{name}: {flip}");
        }
    }
}

#[test]
fn a_pack_whose_row_is_damaged_is_read_again_from_the_only_vault_that_has_it() {
    for flip in FLIPS {
        for (name, way) in WAYS {
            let (_home, _vault, _dir, there) = only_in_vault();
            let packs = data_packs(&there);
            damage(&there, flip, packs[0].no);
            let monitor = RecordingMonitor::default();
            way(&there, &monitor).unwrap();
            assert_healed(&there, &format!("{name}: {flip}"), &monitor);
            assert_eq!(data_packs(&there).len(), packs.len(), "{name}: {flip}");
            let next = take_point_by(begin_online(&there, &VoidMonitor).unwrap(), &sample(1)).unwrap();
            assert_eq!(next.point.counts.bytes_new, 0, "{name}: {flip}");
        }
    }
}

#[test]
fn a_pack_whose_row_is_damaged_while_its_vault_is_away_is_looked_for_there_by_the_next_who_opens() {
    let (home, vault, dir, there) = only_in_vault();
    damage(&there, "len = len + 1", data_packs(&there)[0].no);
    drop(there);
    let path = dir.path().join("new");
    let away = Store::open(&path, &home.ring, Home::options(Vec::new()), &VoidMonitor).unwrap();
    let monitor = RecordingMonitor::default();
    assert!(away.begin(Compression::None, &monitor).unwrap().suspicious());
    assert!(format!("{:?}", monitor.events()).contains("the pack is read again"));
    drop(away);
    let back = reopened(&home, &vault, &path);
    assert!(restore(&back, &back.points().unwrap()[0]).unwrap() == sample(1));
}
