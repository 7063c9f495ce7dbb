//! Tests of what is remembered of a vault, and of what sessions say there. What comes of it is seen from outside (`tests/it/witness.rs`).

use super::hostile::{delete_catalog, prepared, push, recovered};
use super::losses::{faulty, open_on};
use super::*;
use crate::id::Attempt;
use crate::point::Head;
use crate::point::object::open_session;
use crate::vault::Verb;

fn heads_said(store: &Store, vault: &MemoryVault, point: &StoredPoint) -> Option<Vec<Head>> {
    let attempt = Attempt::first(point.point.id);
    let bytes = vault.object(&names::session(&attempt)).unwrap();
    let session = open_session(&bytes, store.sealer(), &attempt.point).unwrap();
    session.sight.map(|sight| sight.heads)
}

#[test]
fn a_session_says_what_its_writer_saw_in_the_vault_and_the_first_one_says_nothing() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let quiet = RecordingMonitor::default();
    let one = take_point(&store, &sample(1)).unwrap();
    let local = take_point(&store, &sample(2)).unwrap();
    push(&store, &one, &quiet).unwrap();
    assert_eq!(heads_said(&store, &vault, &one), None, "as sessions were before");
    push(&store, &local, &quiet).unwrap();
    let head = |point: &StoredPoint| Head {
        source: point.point.source_tag,
        point: point.point.id,
        sequence: point.point.sequence,
        hash: crate::id::ObjectHash(point.hash),
    };
    assert_eq!(heads_said(&store, &vault, &local), Some(vec![head(&one)]), "not what no vault has");
    let (_dir, other) = recovered(&home, &vault);
    let third = take_point(&other, &sample(3)).unwrap();
    push(&other, &third, &quiet).unwrap();
    assert_eq!(heads_said(&other, &vault, &third), Some(vec![head(&local)]));
}

#[test]
fn a_number_is_not_given_again_when_the_catalog_is_lost_and_the_vault_away() {
    let home = Home::new();
    let (_vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let seen = (one.point.sequence, one.hash);
    let tag = one.point.source_tag;
    store.staging().remove(&names::point(&tag, &one.point.id)).unwrap();
    drop(store);
    delete_catalog(&home.path());
    let alone = home.open();
    assert!(alone.newest_point(&tag).unwrap().is_none());
    assert_eq!(alone.newest_remembered(&tag), Some(seen));
}

#[test]
fn an_honest_vault_is_asked_for_no_point_and_no_session() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    for version in 1..4 {
        let point = take_point(&store, &sample(version)).unwrap();
        push(&store, &point, &RecordingMonitor::default()).unwrap();
    }
    drop(store);
    let watched = faulty(&vault);
    let store = open_on(&home, &home.path(), watched.clone());
    watched.forget();
    let (no, _, transfer) = store.vaults()[0].clone();
    let monitor = RecordingMonitor::default();
    copy::refresh_vault(&store, no, &transfer, &monitor).unwrap();
    let asked = watched.requests();
    let reads = |verb| asked.iter().filter(move |request| request.verb == verb);
    let names: Vec<&str> = reads(Verb::Get).map(|request| request.name.as_str()).collect();
    assert_eq!(names, ["config"]);
    assert_eq!(reads(Verb::Stat).count(), 0);
    let lists: Vec<&str> = reads(Verb::List).map(|request| request.name.as_str()).collect();
    assert!(!lists.contains(&names::SESSIONS), "{lists:?}");
    assert_eq!(store.alarms(no).unwrap(), []);
}

#[test]
fn a_catalog_that_was_put_back_does_not_take_back_what_was_seen() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let quiet = RecordingMonitor::default();
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &quiet).unwrap();
    let no = store.vaults()[0].0;
    let old = store.catalog().remembered(no).unwrap().unwrap();
    let two = take_point(&store, &sample(2)).unwrap();
    push(&store, &two, &quiet).unwrap();
    store.catalog().set_remembered(no, &old).unwrap();
    store.catalog().remove_point(&two.point.id, Some(no)).unwrap();
    assert!(transfer(&vault).delete(&names::point(&two.point.source_tag, &two.point.id)).unwrap());
    copy::refresh_vault(&store, no, &store.vaults()[0].2, &quiet).unwrap();
    let alarms = store.alarms(no).unwrap();
    let kinds: Vec<_> = alarms.iter().map(|alarm| (alarm.kind, alarm.subject.clone())).collect();
    assert_eq!(kinds, [(AlarmKind::PointWithheld, two.point.id.hex())]);
    // It is told as long as it lasts.
    copy::refresh_vault(&store, no, &store.vaults()[0].2, &quiet).unwrap();
    assert_eq!(store.alarms(no).unwrap(), alarms);
    copy::push_point(&store, no, &store.vaults()[0].2, &two.point.id, &quiet).unwrap();
    copy::refresh_vault(&store, no, &store.vaults()[0].2, &quiet).unwrap();
    assert_eq!(store.alarms(no).unwrap(), []);
}
