//! Tests of points that are removed by a process that is killed on the way: whoever comes next ends it, and nobody is alarmed.

use std::cell::Cell;

use super::hostile::{prepared, push, recovered};
use super::losses::{faulty, open_on, open_once};
use super::*;
use crate::catalog::Mark;
use crate::check::{self, Depth};
use crate::monitor::Event;
use crate::vault::testing::Fault as VaultFault;

pub(super) fn row(store: &Store, point: &StoredPoint) -> crate::catalog::PointRow {
    store.catalog().point(&point.point.id).unwrap().unwrap()
}

fn problems(monitor: &RecordingMonitor) -> Vec<Event> {
    let is_problem = |event: &Event| matches!(event, Event::Problem { .. });
    monitor.events().into_iter().filter(is_problem).collect()
}

/// Looks at everything; what is found, without the slots of these stores, which are not real ones.
fn found(store: &Store) -> Vec<check::Finding> {
    let findings = check::check(store, Depth::ReadData, &VoidMonitor).unwrap().findings;
    findings.into_iter().filter(|finding| !finding.object.starts_with("keys/")).collect()
}

/// Whether a point is known, after whoever `look`s found it gone or not.
fn is_known_after(store: &Store, gone: &StoredPoint, look: impl FnOnce(&RecordingMonitor)) -> bool {
    let monitor = RecordingMonitor::default();
    look(&monitor);
    assert_eq!(problems(&monitor), []);
    assert_eq!(found(store), []);
    store.points().unwrap().iter().any(|point| point.point.id == gone.point.id)
}

#[test]
fn a_removal_from_staging_that_is_cut_off_anywhere_is_ended_by_who_looks() {
    for (n, who) in (0..3).flat_map(|n| ["begin", "check", "again"].map(|who| (n, who))) {
        let home = Home::new();
        let gone = take_point(&home.open(), &sample(1)).unwrap();
        take_point(&home.open(), &sample(2)).unwrap();
        let (store, files) = home.open_faulty();
        files.fail_at(n, Fault::Crash);
        let removed = store.remove_staged_point(&row(&store, &gone));
        assert_eq!(removed.is_ok(), n == 2, "step {n}");
        drop(store);
        let store = home.open();
        let is_shown = || store.points().unwrap().iter().any(|point| point.point.id == gone.point.id);
        let object = home.path().join(names::point(&gone.point.source_tag, &gone.point.id).as_str());
        assert_eq!(is_shown(), object.exists(), "whoever counts points, step {n}");
        let is_known = is_known_after(&store, &gone, |monitor| match who {
            "begin" => drop(store.begin(Compression::None, monitor).unwrap()),
            "again" if n < 2 => store.remove_staged_point(&row(&store, &gone)).unwrap(),
            _ => {}
        });
        assert_eq!(is_known, n == 0 && who != "again", "step {n}, {who}");
        assert_eq!(store.points().unwrap().len(), 1 + usize::from(is_known));
    }
}

#[test]
fn a_point_whose_removal_from_staging_was_cut_off_and_that_is_wanted_back_stays() {
    for n in 0..2 {
        let home = Home::new();
        let back = take_point(&home.open(), &sample(1)).unwrap();
        take_point(&home.open(), &sample(2)).unwrap();
        let (store, files) = home.open_faulty();
        files.fail_at(n, Fault::Crash);
        store.remove_staged_point(&row(&store, &back)).unwrap_err();
        drop(store);
        home.open().keep_staged_point(&back.point.id).unwrap();
        let store = home.open();
        drop(store.begin(Compression::None, &VoidMonitor).unwrap());
        reclaim::free_staging(&store, &VoidMonitor).unwrap();
        assert!(restore(&home.open(), &back).unwrap() == sample(1), "step {n}");
    }
}

/// Removes a point from the vault and is cut off at the n-th request. Whether the point is still there; nothing if the removal takes no
/// more requests.
fn removed_in_part(
    home: &Home,
    vault: &Arc<MemoryVault>,
    point: &StoredPoint,
    (n, fault): (u64, VaultFault),
) -> Option<bool> {
    let failing = faulty(vault);
    let store = open_once(home, failing.clone());
    failing.forget();
    failing.fail_any_from(n, fault);
    let row = row(&store, point);
    store.remove_point_from_vault(store.vaults()[0].0, &row).err()?;
    Some(vault.object(&names::point(&row.tag, &row.id)).is_some_and(|there| there == row.object))
}

/// Tries each request of a removal from a vault that two points are in. The removal that each is given says whether the
/// first one is still there, and nothing if it was not cut off.
fn cut_off_anywhere(
    mut each: impl FnMut(&Home, &Arc<MemoryVault>, &[StoredPoint; 2], &dyn Fn() -> Option<bool>, &str),
) {
    for (n, fault) in (1..).flat_map(|n| [(n, VaultFault::FailBefore), (n, VaultFault::FailAfter)]) {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let points = [1, 2].map(|n| take_point(&store, &sample(n)).unwrap());
        for point in &points {
            push(&store, point, &RecordingMonitor::default()).unwrap();
        }
        drop(store);
        let is_over = Cell::new(false);
        let remove = || {
            let left = removed_in_part(&home, &vault, &points[0], (n, fault));
            is_over.set(left.is_none());
            left
        };
        each(&home, &vault, &points, &remove, &format!("request {n}, {fault:?}"));
        if is_over.get() {
            assert!(
                n > 9,
                "what it looks at, the word behind the point, the point, and the word in its place"
            );
            return;
        }
    }
}

#[test]
fn a_removal_from_a_vault_that_is_cut_off_anywhere_is_ended_by_who_looks() {
    for who in ["push", "prune", "check"] {
        cut_off_anywhere(|home, vault, [gone, _], remove, at| {
            let store = home.open_with(vault);
            store.remove_staged_point(&row(&store, gone)).unwrap();
            drop(store);
            let Some(is_left) = remove() else { return };
            let store = home.open_with(vault);
            let (no, _, way) = store.vaults()[0].clone();
            let is_known = is_known_after(&store, gone, |monitor| match who {
                "push" => copy::refresh_vault(&store, no, &way, monitor).unwrap(),
                "prune" => drop(free_in_vault(&store, no, monitor)),
                _ => {}
            });
            assert_eq!(is_known, is_left, "{at}, {who}");
            let there = vault.object(&names::point(&gone.point.source_tag, &gone.point.id)).unwrap();
            assert_eq!(there.len() as u64 == crate::fence::Revocation::LEN, !is_left, "{at}, {who}");
        });
    }
}

#[test]
fn a_removal_that_is_cut_off_for_ever_is_no_loss_to_another_machine() {
    cut_off_anywhere(|home, vault, [gone, stays], remove, at| {
        let (_dir, there) = recovered(home, vault);
        let Some(is_left) = remove() else { return };
        let (no, _, way) = there.vaults()[0].clone();
        let look = |monitor: &RecordingMonitor| copy::refresh_vault(&there, no, &way, monitor).unwrap();
        assert_eq!(is_known_after(&there, gone, look), is_left, "{at}");
        assert!(is_known_after(&recovered(home, vault).1, stays, |_| {}), "{at}");
    });
}

#[test]
fn a_point_that_was_put_where_it_was_to_go_from_is_missed_there_again() {
    let home = Home::new();
    let (_vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    let no = store.vaults()[0].0;
    let mark = Mark::Going(Some(no), one.point.id);
    store.catalog().set_mark(mark, true).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    assert!(!store.catalog().has_mark(mark).unwrap());
    store.vaults()[0].2.delete(&names::point(&one.point.source_tag, &one.point.id)).unwrap();
    let monitor = RecordingMonitor::default();
    copy::refresh_vault(&store, no, &store.vaults()[0].2, &monitor).unwrap();
    let told = problems(&monitor);
    assert_eq!(told.len(), 2, "{told:?}");
    let is_alarm = |event: &Event| matches!(event, Event::Problem { reason, .. } if reason.starts_with("point-withheld: "));
    assert!(told.iter().any(is_alarm), "{told:?}");
}

#[test]
fn a_point_is_on_its_way_out_only_while_somebody_removes_it() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    drop(store);
    let failing = faulty(&vault);
    let store = open_on(&home, &home.path(), failing.clone());
    let no = store.vaults()[0].0;
    let is_going = |place| store.catalog().has_mark(Mark::Going(place, one.point.id)).unwrap();
    failing.forget();
    failing.fail_any_from(1, VaultFault::Deny);
    store.remove_point_from_vault(no, &row(&store, &one)).unwrap_err();
    assert!(!is_going(Some(no)), "nothing was removed");
    // An earlier one may have got further.
    store.catalog().set_mark(Mark::Going(Some(no), one.point.id), true).unwrap();
    store.remove_point_from_vault(no, &row(&store, &one)).unwrap_err();
    assert!(is_going(Some(no)));
    failing.heal();
    store.are_not_going(Some(no), [one.point.id]).unwrap();
    // Cut off before the object went.
    store.catalog().set_mark(Mark::Going(None, one.point.id), true).unwrap();
    store.place_hold(&one.point.id, "").unwrap_err();
    drop(store.begin(Compression::None, &VoidMonitor).unwrap());
    assert!(!is_going(None) && !is_going(Some(no)));
    store.place_hold(&one.point.id, "").unwrap();
}

#[test]
fn a_point_that_is_held_when_its_removal_is_cut_off_is_there_again() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (_dir, there) = recovered(&home, &vault);
    there.place_hold(&one.point.id, "").unwrap();
    drop(store);
    let failing = faulty(&vault);
    let store = open_once(&home, failing.clone());
    let name = names::point(&one.point.source_tag, &one.point.id);
    failing.fail_from(crate::vault::Verb::Delete, 1, VaultFault::FailAfter);
    store.remove_point_from_vault(store.vaults()[0].0, &row(&store, &one)).unwrap_err();
    assert!(vault.object(&name).is_none());
    // The other machine saw the point, and its hold comes now.
    let hold = there.catalog().holds().unwrap().remove(0);
    vault.replace(&names::hold(&hold.tag, &hold.point), hold.object.into());
    drop(store);
    let store = home.open_with(&vault);
    let (no, _, way) = store.vaults()[0].clone();
    assert!(is_known_after(&store, &one, |monitor| copy::refresh_vault(&store, no, &way, monitor).unwrap()));
    assert_eq!(vault.object(&name).map(|object| object.to_vec()), Some(row(&store, &one).object));
    assert!(!store.catalog().has_mark(Mark::Going(Some(no), one.point.id)).unwrap());
    let (_dir, there) = recovered(&home, &vault);
    assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
}
