//! Tests that an annex is that of one directory of a store, also where copies of the store are on the same machine.

use super::*;
use crate::staging::{Holder, Owner, owner};

/// A store as it is recovered from a vault: of the same id, in another directory.
fn copy_of(home: &Home) -> Home {
    let copy = Home { dir: tempfile::tempdir().unwrap(), ring: home.ring.clone() };
    Store::adopt(&copy.path(), &Store::head(&home.path()).unwrap()).unwrap();
    copy
}

fn take_over(home: &Home, path: &Path) -> Result<crate::id::AnnexId, StoreError> {
    add_annex(&home.path(), &Store::head(&home.path())?.vault, path, true)
}

fn owner_of(home: &Home, path: &Path) -> Owner {
    let store = Store::head(&home.path()).unwrap().vault;
    let holder = Settings::load(&home.path()).unwrap().holder(store);
    owner(&DiskFiles::new(path), &holder).unwrap()
}

/// As a program wrote it that knew of no copies.
fn write_old_marker(home: &Home, path: &Path) {
    let Owner::Ours(id) = owner_of(home, path) else { panic!("another's") };
    let holder = Holder { store: Store::head(&home.path()).unwrap().vault, staging: None };
    crate::staging::Annex::new(id, holder, path, false, Arc::new(DiskFiles::new(path))).make().unwrap();
}

fn change(home: &Home, change: impl FnOnce(&mut Settings)) {
    Settings::change(&home.path(), |settings| {
        change(settings);
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_annex_of_a_store_is_not_one_of_a_copy_of_it() {
    let (home, _) = spread();
    let (copy, b) = (copy_of(&home), at(&home, "b"));
    let marker = || std::fs::read(b.join(MARKER)).unwrap();
    let before = marker();
    let error = add(&copy, &b).unwrap_err();
    assert!(matches!(&error, StoreError::OfCopy { annex } if *annex == b), "{error}");
    assert_eq!((marker(), Settings::load(&copy.path()).unwrap().staging), (before, Vec::new()));
    reclaim::free_staging(&copy.open(), &VoidMonitor).unwrap();
    assert_whole(&home.open(), &[1, 2]);
    let other = Settings::load(&copy.path()).unwrap().staging_id;
    assert_ne!(other, Settings::load(&home.path()).unwrap().staging_id, "each has its own");
}

#[test]
fn who_had_an_annex_that_was_taken_over_sees_so_at_once_and_takes_it_back() {
    let (home, _) = spread();
    let (copy, b, store) = (copy_of(&home), at(&home, "b"), home.open());
    let id = take_over(&copy, &b).unwrap();
    let away = store.staging().annexes()[0].presence().unwrap_err().to_string();
    assert!(away.contains("another copy of this store") && away.contains("--take-over"), "{away}");
    let before = packs_in(&b);
    let monitor = RecordingMonitor::default();
    take_point_by(store.begin(Compression::None, &monitor).unwrap(), &sample(3)).unwrap();
    let told = problems(&monitor);
    assert!(told.len() == 1 && told[0].1.contains(&away), "{told:?}");
    assert_eq!(packs_in(&b), before, "nothing of it is used");
    assert!(leave_by(&store, &VoidMonitor).is_err());
    take_point(&copy.open(), &sample(4)).unwrap();
    assert!(packs_in(&b).len() > before.len());
    // What the copy does not remove meanwhile is there again.
    assert!(matches!(add(&home, &b), Err(StoreError::OfCopy { .. })));
    assert_eq!(take_over(&home, &b).unwrap(), id);
    assert_whole(&home.open(), &[1, 2, 3]);
    assert!(copy.open().staging().annexes()[0].presence().is_err());
}

#[test]
fn taking_over_goes_on_when_it_was_cut_off_before_the_settings() {
    let (home, _) = spread();
    let (copy, b) = (copy_of(&home), at(&home, "b"));
    let id = take_over(&copy, &b).unwrap();
    change(&copy, |settings| settings.staging.clear());
    assert!(home.open().staging().annexes()[0].presence().is_err(), "who had it uses it no more");
    assert_eq!(add(&copy, &b).unwrap(), id);
    assert!(copy.open().staging().annexes()[0].presence().is_ok());
}

#[test]
fn a_marker_of_before_gets_an_owner_when_somebody_writes_who_knows_its_annex() {
    let begin = |store: &Store| drop(store.begin(Compression::None, &VoidMonitor).unwrap());
    marks_old(&begin);
    marks_old(&|store| drop(Turns::begin(store).unwrap()));
}

fn marks_old(begin: &dyn Fn(&Store)) {
    let (home, _) = spread();
    let (copy, b) = (copy_of(&home), at(&home, "b"));
    write_old_marker(&home, &b);
    change(&home, |settings| settings.staging_id = None);
    let store = home.open();
    assert_whole(&store, &[1, 2]);
    assert!(matches!(owner_of(&home, &b), Owner::Unsaid(_)), "who only reads writes nothing");
    assert!(matches!(add(&copy, &b), Err(StoreError::OfCopy { .. })));
    begin(&store);
    assert!(matches!(owner_of(&home, &b), Owner::Ours(_)));
    assert!(matches!(owner_of(&copy, &b), Owner::OfCopy(_)));
    assert_whole(&store, &[1, 2]);
}

#[test]
fn a_marker_of_before_that_nobody_knows_is_taken_only_without_packs() {
    let (home, _) = spread();
    let (copy, b, c) = (copy_of(&home), at(&home, "b"), at(&home, "c"));
    add(&home, &c).unwrap();
    write_old_marker(&home, &b);
    write_old_marker(&home, &c);
    assert!(matches!(add(&copy, &b), Err(StoreError::OfCopy { .. })));
    // What a pack leaves that is gone.
    std::fs::create_dir(c.join("pack/ab")).unwrap();
    add(&copy, &c).unwrap();
    assert!(matches!(owner_of(&copy, &c), Owner::Ours(_)));
    take_over(&copy, &b).unwrap();
    assert!(matches!(owner_of(&copy, &b), Owner::Ours(_)));
}
