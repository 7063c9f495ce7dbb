//! Tests of holds: a point that is held in any place stays in all of them, whatever is lost, and goes when it was released.

use std::sync::Mutex;

use super::hostile::{delete_catalog, prepared, push, recovered, reopened};
use super::losses::{faulty, open_on};
use super::*;
use crate::catalog::{HoldRow, Mark, PointRow};
use crate::check::{self, Depth};
use crate::id::Attempt;
use crate::monitor::Event;

fn row(store: &Store, point: &StoredPoint) -> PointRow {
    store.catalog().point(&point.point.id).unwrap().unwrap()
}

fn hold(store: &Store, point: &StoredPoint) -> Option<HoldRow> {
    store.catalog().holds().unwrap().into_iter().find(|hold| hold.point == point.point.id)
}

/// What a check finds, without the slots of these stores, which are not real ones.
fn found(store: &Store) -> Vec<String> {
    let findings = check::check(store, Depth::ReadData, &VoidMonitor).unwrap().findings;
    findings.into_iter().map(|finding| finding.object).filter(|object| !object.starts_with("keys/")).collect()
}

/// A store with a point in staging and in a vault, and another one in staging alone.
fn two_points(home: &Home) -> (Arc<MemoryVault>, Store, StoredPoint, StoredPoint) {
    let (vault, store) = prepared(home);
    let [one, two] = [1, 2].map(|n| take_point(&store, &sample(n)).unwrap());
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    (vault, store, one, two)
}

#[test]
fn a_held_point_is_removed_from_no_place_until_it_is_released() {
    let home = Home::new();
    let (_vault, store, one, two) = two_points(&home);
    let no = store.vaults()[0].0;
    for point in [&one, &two] {
        let hold = store.place_hold(&point.point.id, "the audit").unwrap();
        assert_eq!((hold.point, hold.placed, hold.reason.as_str()), (point.point.id, 1000, "the audit"));
    }
    assert_eq!(store.place_hold(&one.point.id, "another word").unwrap().reason, "the audit");
    // Of a point that it has not, a vault is not told.
    assert_eq!((store.bring_holds(no).unwrap(), store.bring_holds(no).unwrap()), (1, 0));
    let refused = store.remove_staged_point(&row(&store, &two)).unwrap_err();
    assert!(refused.to_string().contains("held"), "{refused}");
    store.remove_staged_point(&row(&store, &one)).unwrap_err();
    store.remove_point_from_vault(no, &row(&store, &one)).unwrap_err();
    for place in [None, Some(no)] {
        assert!(!store.catalog().has_mark(Mark::Going(place, one.point.id)).unwrap());
    }
    let points = store.points().unwrap();
    assert!(points.iter().all(|point| point.held.is_some()), "{points:?}");
    assert!(store.point(&one.point.id).unwrap().held.is_some());
    assert_eq!(found(&store), [] as [String; 0]);

    store.release_here(&hold(&store, &one).unwrap()).unwrap();
    store.remove_staged_point(&row(&store, &one)).expect_err("the vault has a hold");
    assert!(store.release_in_vault(no, &one.point.source_tag, &one.point.id).unwrap());
    store.remove_point_from_vault(no, &row(&store, &one)).unwrap();
    store.remove_staged_point(&row(&store, &one)).unwrap();
    assert_eq!(store.holds().unwrap().len(), 1);
}

#[test]
fn a_hold_outlives_the_catalog_and_the_machine() {
    let home = Home::new();
    let (vault, store, one, two) = two_points(&home);
    store.place_hold(&two.point.id, "").unwrap();
    // The point comes later, and brings it.
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    store.bring_holds(store.vaults()[0].0).unwrap();
    let (_dir, there) = recovered(&home, &vault);
    let holds = there.holds().unwrap();
    assert_eq!((holds.len(), holds.contains_key(&two.point.id)), (1, true));
    there.remove_point_from_vault(there.vaults()[0].0, &row(&there, &two)).unwrap_err();
    // What is held there is learnt here by who pushes, and what is released, too.
    there.place_hold(&one.point.id, "there").unwrap();
    there.bring_holds(there.vaults()[0].0).unwrap();
    let (no, _, way) = store.vaults()[0].clone();
    copy::refresh_vault(&store, no, &way, &VoidMonitor).unwrap();
    assert_eq!(store.holds().unwrap()[&one.point.id].reason, "there");
    assert!(there.release_in_vault(there.vaults()[0].0, &one.point.source_tag, &one.point.id).unwrap());
    copy::refresh_vault(&store, no, &way, &VoidMonitor).unwrap();
    assert!(hold(&store, &one).is_none());

    drop(store);
    delete_catalog(&home.path());
    let alone = home.open();
    assert_eq!(alone.holds().unwrap().len(), 1);
    alone.remove_staged_point(&row(&alone, &two)).unwrap_err();
}

#[test]
fn a_point_that_is_just_going_is_not_held() {
    let home = Home::new();
    let (_vault, store, one, _) = two_points(&home);
    for place in [None, Some(store.vaults()[0].0)] {
        store.catalog().set_mark(Mark::Going(place, one.point.id), true).unwrap();
        let refused = store.place_hold(&one.point.id, "").unwrap_err();
        assert!(refused.to_string().contains("just being removed"), "{refused}");
        store.catalog().set_mark(Mark::Going(place, one.point.id), false).unwrap();
        assert!(store.holds().unwrap().is_empty() && store.staging().list("hold").unwrap().is_empty());
    }
    assert!(store.place_hold(&RecoveryPointId([9; 16]), "").is_err());
    assert!(store.place_hold(&one.point.id, &"x".repeat(1001)).is_err());
    store.place_hold(&one.point.id, "").unwrap();
}

#[test]
fn a_damaged_hold_keeps_its_point_in_the_vault_that_has_it_and_one_in_staging_in_all() {
    let home = Home::new();
    let (vault, store, one, two) = two_points(&home);
    let name = |point: &StoredPoint| names::hold(&point.point.source_tag, &point.point.id);
    let (no, _, way) = store.vaults()[0].clone();
    store.place_hold(&two.point.id, "").unwrap();
    let of_two = hold(&store, &two).unwrap().object;
    for junk in [b"junk".to_vec(), of_two.clone(), vec![0; SMALL_OBJECT as usize + 1]] {
        vault.replace(&name(&one), junk.into());
        copy::refresh_vault(&store, no, &way, &VoidMonitor).unwrap();
        assert!(hold(&store, &one).is_none());
        assert_eq!(found(&store), [name(&one).as_str()]);
        // Another machine may have put it, and damage may be what became of it.
        let refused = store.remove_point_from_vault(no, &row(&store, &one)).unwrap_err();
        assert!(refused.to_string().contains(name(&one).as_str()), "{refused}");
        assert!(!store.catalog().has_mark(Mark::Going(Some(no), one.point.id)).unwrap());
    }
    let release = || store.release_in_vault(no, &one.point.source_tag, &one.point.id).unwrap();
    assert_eq!((release(), release()), (true, false));
    store.remove_point_from_vault(no, &row(&store, &one)).unwrap();
    drop(store);
    let mut damaged = of_two;
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(home.path().join(name(&two).as_str()), damaged).unwrap();
    delete_catalog(&home.path());
    let (monitor, options) = (RecordingMonitor::default(), Home::options(Vec::new()));
    let store = Store::open(&home.path(), &home.ring, options, &monitor).unwrap();
    let is_of_hold =
        |event: &Event| matches!(event, Event::Problem { path, .. } if path.starts_with(b"hold/"));
    assert!(monitor.events().iter().any(is_of_hold));
    assert!(store.holds().unwrap().contains_key(&two.point.id));
    store.remove_staged_point(&row(&store, &two)).unwrap_err();
    assert_eq!(found(&store), [name(&two).as_str()]);
}

#[test]
fn a_point_that_another_machine_removed_is_not_held_there() {
    let home = Home::new();
    let (vault, store, one, _) = two_points(&home);
    let names = |of: &str| vault.names().iter().filter(|name| name.as_str().starts_with(of)).count();
    let (_dir, there) = recovered(&home, &vault);
    let no = there.vaults()[0].0;
    store.remove_point_from_vault(store.vaults()[0].0, &row(&store, &one)).unwrap();
    there.place_hold(&one.point.id, "the audit").unwrap();
    let known = row(&there, &one);
    assert_eq!(there.bring_holds(no).unwrap(), 0);
    assert_eq!((names("hold/"), there.catalog().point(&one.point.id).unwrap()), (0, None));
    assert!(!there.is_still_in(no, &known).unwrap());

    // One that nobody removed stays known where it is nowhere else: a check goes on telling of it.
    let (_dir, there) = {
        let two = store.points().unwrap().pop().unwrap();
        push(&store, &two, &RecordingMonitor::default()).unwrap();
        let recovered = recovered(&home, &vault);
        vault_without(&store, &two);
        recovered
    };
    let two = there.points().unwrap().pop().unwrap();
    there.place_hold(&two.point.id, "").unwrap();
    assert_eq!((there.bring_holds(no).unwrap(), names("hold/")), (0, 0));
    assert!(!there.is_still_in(no, &row(&there, &two)).unwrap());
    assert!(found(&there).contains(&names::point(&two.point.source_tag, &two.point.id).to_string()));
}

fn vault_without(store: &Store, point: &StoredPoint) {
    store.vaults()[0].2.delete(&names::point(&point.point.source_tag, &point.point.id)).unwrap();
}

/// Does `beside` before the `nth` request of a vault, in a process of its own.
fn meddle(vault: &crate::vault::testing::FaultyVault, nth: usize, beside: impl FnOnce() + Send + 'static) {
    let todo = Mutex::new((0, Some(beside)));
    vault.watch(move || {
        let mut todo = todo.lock().unwrap();
        todo.0 += 1;
        if todo.0 == nth
            && let Some(beside) = todo.1.take()
        {
            std::thread::spawn(beside).join().unwrap();
        }
    });
}

/// Whether a machine is sure that a vault holds a point.
fn holds_it(store: &Store, point: &StoredPoint) -> bool {
    let no = store.vaults()[0].0;
    if store.place_hold(&point.point.id, "the audit").is_err() || store.bring_holds(no).is_err() {
        return false;
    }
    hold(store, point).is_some_and(|hold| hold.vaults.contains(&no))
}

#[test]
fn of_one_who_holds_and_one_who_removes_at_another_machine_one_sees_the_other() {
    let (mut held, mut removed) = (0, 0);
    for (nth, holder_is_met) in (1..=12).flat_map(|nth| [(nth, false), (nth, true)]) {
        let home = Home::new();
        let (vault, store, one, _) = two_points(&home);
        let (dir, there) = recovered(&home, &vault);
        drop((store, there));
        let (watched, there) = (faulty(&vault), dir.path().join("new"));
        let is_held = Arc::new(Mutex::new(None));
        let said = is_held.clone();
        if holder_is_met {
            let (store, there) = (home.open_with(&vault), open_on(&home, &there, watched.clone()));
            let at = one.clone();
            meddle(&watched, nth, move || {
                let _ = store.remove_point_from_vault(store.vaults()[0].0, &row(&store, &at));
            });
            *said.lock().unwrap() = Some(holds_it(&there, &one));
        } else {
            let (store, there) =
                (open_on(&home, &home.path(), watched.clone()), reopened(&home, &vault, &there));
            let at = one.clone();
            meddle(&watched, nth, move || *said.lock().unwrap() = Some(holds_it(&there, &at)));
            let _ = store.remove_point_from_vault(store.vaults()[0].0, &row(&store, &one));
        }
        // Fewer requests than that were made.
        let Some(is_held) = *is_held.lock().unwrap() else { continue };
        let object = vault.object(&names::point(&one.point.source_tag, &one.point.id));
        let is_there = object.is_some_and(|object| object.len() as u64 != crate::fence::Revocation::LEN);
        assert!(is_there || !is_held, "request {nth}, the holder is met: {holder_is_met}");
        // Nor does a word behind it say that it was to go.
        let outcome = |number| {
            let attempt = Attempt { point: one.point.id, number };
            vault.object(&names::outcome(&one.point.source_tag, &attempt))
        };
        assert!(!is_held || outcome(1).is_none() || outcome(2) == outcome(0), "request {nth}");
        held += u32::from(is_held);
        removed += u32::from(!is_there);
    }
    assert!(held > 2 && removed > 2, "{held} were held and {removed} removed");
}
