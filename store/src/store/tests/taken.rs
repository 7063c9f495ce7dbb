//! Tests of points that somebody takes away from a vault: neither the word of a collector that their uploads were silent, nor that of a removal
//! that came to nothing, makes that a removal on purpose.

use super::forgotten::row;
use super::hostile::{prepared, push, recovered};
use super::losses::{faulty, only_in_vault, open_once};
use super::*;
use crate::check::{self, Depth};
use crate::error::ErrorClass;
use crate::fence::{Revocation, Why};
use crate::id::Attempt;
use crate::store::AlarmKind;
use crate::vault::Verb;
use crate::vault::testing::Fault as VaultFault;

fn first(point: &StoredPoint) -> ObjectName {
    names::point(&point.point.source_tag, &point.point.id)
}

fn at(point: &StoredPoint, number: u8) -> ObjectName {
    names::outcome(&point.point.source_tag, &Attempt { point: point.point.id, number })
}

/// Something in the vault that may go.
fn leave_garbage(store: &Store) {
    let garbage = take_point(store, &sample(9)).unwrap();
    push(store, &garbage, &RecordingMonitor::default()).unwrap();
    store.remove_point_from_vault(store.vaults()[0].0, &row(store, &garbage)).unwrap();
}

fn look(store: &Store) -> String {
    let ((no, _, way), monitor) = (store.vaults()[0].clone(), RecordingMonitor::default());
    copy::refresh_vault(store, no, &way, &monitor).unwrap();
    format!("{:?}", monitor.events())
}

fn is_told_as_gone(store: &Store) -> bool {
    let alarms = store.alarms(store.vaults()[0].0).unwrap();
    alarms.iter().any(|alarm| matches!(alarm.kind, AlarmKind::PointRemoved | AlarmKind::PointWithheld))
}

#[test]
fn a_point_that_somebody_took_away_is_put_back_by_a_collector_that_knows_it() {
    let (home, vault, _dir, there) = only_in_vault();
    let taken = there.points().unwrap().remove(0);
    leave_garbage(&there);
    vault.lose(&first(&taken));
    let monitor = RecordingMonitor::default();
    let freed = free_in_vault(&there, there.vaults()[0].0, &monitor);
    assert!(freed.packs > 0, "{freed:?}");
    let told = format!("{:?}", monitor.events());
    assert!(told.contains("somebody took the recovery point away"), "{told}");
    assert_eq!(vault.object(&first(&taken)).unwrap(), row(&there, &taken).object);
    assert!(restore(&there, &taken).unwrap() == sample(1));
    let (_dir, bare) = recovered(&home, &vault);
    assert!(restore(&bare, &bare.points().unwrap()[0]).unwrap() == sample(1));
}

#[test]
fn the_word_of_a_collector_that_does_not_know_a_point_is_no_excuse_for_who_took_it_away() {
    let (home, vault, _dir, there) = only_in_vault();
    let taken = there.points().unwrap().remove(0);
    vault.lose(&first(&taken));
    let (_dir, stranger) = recovered(&home, &vault);
    leave_garbage(&stranger);
    free_in_vault(&stranger, stranger.vaults()[0].0, &VoidMonitor);
    let word = vault.object(&first(&taken)).unwrap();
    let of = (&taken.point.source_tag, &Attempt::first(taken.point.id));
    assert_eq!(Revocation::open(stranger.sealer(), of, &word).unwrap().why, Why::Silent);
    for store in [&there, &home.open_with(&vault)] {
        assert!(look(store).contains("the recovery point is missing"));
        assert!(is_told_as_gone(store));
        look(store);
        assert!(is_told_as_gone(store), "as long as it is");
        assert!(store.points().unwrap().iter().any(|point| point.point.id == taken.point.id));
    }
    let found = check::check(&there, Depth::Structure, &VoidMonitor).unwrap().findings;
    assert!(found.iter().any(|f| f.detail.contains("the recovery point is missing")), "{found:?}");
    push(&home.open_with(&vault), &taken, &RecordingMonitor::default()).unwrap();
    look(&there);
    assert!(!is_told_as_gone(&there));
    assert!(restore(&there, &taken).unwrap() == sample(1));
}

#[test]
fn a_point_that_was_in_doubt_is_put_behind_the_word_of_a_removal_that_came_to_nothing_as_well() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let stays = take_point(&store, &sample(1)).unwrap();
    push(&store, &stays, &RecordingMonitor::default()).unwrap();
    store.doubt_points(store.vaults()[0].0, &[stays.point.id]).unwrap();
    drop(store);
    let failing = faulty(&vault);
    let store = open_once(&home, failing.clone());
    failing.fail_from(Verb::Delete, 1, VaultFault::Deny);
    store.remove_point_from_vault(store.vaults()[0].0, &row(&store, &stays)).unwrap_err();
    drop(store);
    look(&home.open_with(&vault));
    let [shown, word, behind] = [0, 1, 2].map(|number| vault.object(&at(&stays, number)));
    assert!(shown.is_some() && shown == behind && word != shown);
}

#[test]
fn a_removal_that_comes_to_nothing_is_no_excuse_for_who_takes_the_point_away_afterwards() {
    for fault in [VaultFault::Deny, VaultFault::FailBefore] {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let stays = take_point(&store, &sample(1)).unwrap();
        push(&store, &stays, &RecordingMonitor::default()).unwrap();
        store.remove_staged_point(&row(&store, &stays)).unwrap();
        drop(store);
        let failing = faulty(&vault);
        let store = open_once(&home, failing.clone());
        failing.fail_from(Verb::Delete, 1, fault);
        let no = store.vaults()[0].0;
        let e = store.remove_point_from_vault(no, &row(&store, &stays)).unwrap_err();
        assert!(matches!(e.class(), ErrorClass::Denied | ErrorClass::Unavailable), "{e}");
        drop(store);
        let store = home.open_with(&vault);
        look(&store);
        let [shown, word, behind] = [0, 1, 2].map(|number| vault.object(&at(&stays, number)));
        assert!(shown.is_some() && shown == behind && word != shown, "{fault:?}");
        store.place_hold(&stays.point.id, "it is not being removed").unwrap();
        vault.lose(&at(&stays, 0));
        look(&store);
        assert!(restore(&store, &stays).unwrap() == sample(1));
        assert!(!is_told_as_gone(&store), "it is there");
        vault.lose(&at(&stays, 2));
        for _ in 0..2 {
            assert!(look(&store).contains("the recovery point is missing"), "{fault:?}");
            assert!(is_told_as_gone(&store), "{fault:?}");
        }
    }
}
