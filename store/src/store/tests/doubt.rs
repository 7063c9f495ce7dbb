//! Tests of the doubt that a loss casts: it stands until a check that began later finds everything, and while it stands what is unchanged at the
//! source is looked up, and healed.

use super::hostile::data_packs;
use super::missed::When;
use super::*;
use crate::catalog::Mark;
use crate::check::{self, Depth, Report};
use crate::monitor::{Event, Monitor};
use crate::seal::slots::{KdfParams, KeySlot, Secret};

/// A store with a point, of which a check finds nothing wrong: it has the slot of a sheet.
fn whole() -> (Home, Store) {
    let home = Home::new();
    let store = home.open();
    for object in store.staging().list("keys").unwrap() {
        store.staging().remove(&object.name).unwrap();
    }
    let (secret, floor) = (Secret::new_recovery(), KdfParams::floor());
    let slot = KeySlot::create(store.id(), &home.ring, &secret, "", &floor, 0).unwrap();
    let id = KeySlot::read(&slot, store.id()).unwrap().id;
    store.staging().put(&names::slot(&id), &slot).unwrap();
    take_point(&store, &sample(1)).unwrap();
    (home, store)
}

fn look(store: &Store, monitor: &dyn Monitor) -> Report {
    check::check(store, Depth::Structure, monitor).unwrap()
}

fn is_suspicious(store: &Store) -> bool {
    store.begin(Compression::None, &VoidMonitor).unwrap().suspicious()
}

/// A pack goes, and another process compares the catalog with staging.
fn lose_a_pack(home: &Home, store: &Store) {
    let pack = names::pack(&data_packs(store).remove(0).entry.id);
    std::fs::remove_file(home.path().join(pack.as_str())).unwrap();
    drop(home.open().begin(Compression::None, &VoidMonitor).unwrap());
}

fn is_point_done(event: &Event) -> bool {
    matches!(event, Event::Done { bytes: 0, .. })
}

#[test]
fn a_check_that_finds_everything_ends_the_doubt_that_was_cast_before_it_and_no_later_one() {
    let (home, store) = whole();
    store.catalog().set_mark(Mark::Doubtful, true).unwrap();
    assert!(is_suspicious(&store));
    assert_eq!(look(&store, &VoidMonitor).findings, []);
    assert!(!is_suspicious(&store));
    store.catalog().set_mark(Mark::Doubtful, true).unwrap();
    let monitor = When::told(is_point_done, || lose_a_pack(&home, &store));
    assert_eq!(look(&store, &monitor).findings, [], "it had looked at the point before");
    assert!(monitor.work.lock().unwrap().is_none(), "no point was looked at");
    assert!(is_suspicious(&store), "what is unchanged would be taken over without the pack");
    take_point(&store, &sample(1)).unwrap();
    assert_eq!(look(&store, &VoidMonitor).findings, []);
    assert!(!is_suspicious(&store));
}

#[test]
fn a_check_that_misses_what_points_need_casts_doubt_of_its_own() {
    let (home, store) = whole();
    lose_a_pack(&home, &store);
    // The loss is noted once, and the doubt with it; that one is gone.
    store.catalog().set_mark(Mark::Doubtful, false).unwrap();
    assert!(!is_suspicious(&store));
    let report = look(&store, &VoidMonitor);
    assert!(report.findings.iter().any(|found| found.detail.contains("are lost")), "{report:?}");
    assert!(is_suspicious(&store));
    // Also beside one that stands, which another check may end that began before.
    let doubt = store.catalog().doubt().unwrap();
    look(&store, &VoidMonitor);
    store.catalog().end_doubt(doubt).unwrap();
    assert!(is_suspicious(&store));
    take_point(&store, &sample(1)).unwrap();
    assert!(store.points().unwrap().iter().all(|point| restore(&store, point).unwrap() == sample(1)));
}
