//! Tests of a vault that is put back from an older copy, or copied while it was written: nobody is told that a point is there of which
//! something is missing, and whoever has it sends it again.

use super::hostile::{data_packs, delete_catalog, prepared, push, recovered, reopened};
use super::thin::forget_here;
use super::*;
use crate::check::{self, Depth};
use crate::id::Attempt;
use crate::names::Named;

fn findings(store: &Store) -> Vec<String> {
    let report = check::check(store, Depth::Structure, &VoidMonitor).unwrap();
    let told = report.findings.into_iter().map(|finding| format!("{}: {}", finding.object, finding.detail));
    // The slots of these stores are none.
    told.filter(|told| !told.starts_with("keys/")).collect()
}

#[test]
fn a_point_that_an_older_vault_does_not_have_vouches_for_no_other() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let first = take_point(&store, &sample(1)).unwrap();
    push(&store, &first, &RecordingMonitor::default()).unwrap();
    let before = vault.names();
    let second = take_point(&store, &sample(1)).unwrap();
    push(&store, &second, &RecordingMonitor::default()).unwrap();
    let third = take_point(&store, &sample(1)).unwrap();
    forget_here(&store, &first);
    forget_here(&store, &second);
    // The vault is what it was, and another machine frees what nobody there needs.
    for name in vault.names().iter().filter(|name| !before.contains(name)) {
        assert!(transfer(&vault).delete(name).unwrap());
    }
    let (_dir, other) = recovered(&home, &vault);
    let (no, _, way) = other.vaults()[0].clone();
    let session = Named::Session(Attempt::first(first.point.id)).name();
    for name in [names::point(&first.point.source_tag, &first.point.id), session] {
        assert!(way.delete(&name).unwrap());
    }
    other.catalog().remove_point(&first.point.id, Some(no)).unwrap();
    assert!(free_in_vault(&other, no, &VoidMonitor).packs > 0);
    let sent = push(&store, &third, &RecordingMonitor::default()).unwrap();
    assert!(sent.packs > 0, "{sent:?}");
    let (_dir, there) = recovered(&home, &vault);
    assert!(restore(&there, &third).unwrap() == sample(1));
}

#[test]
fn what_a_vaulted_point_lacks_is_sent_again_after_a_check_though_nobody_saw_it_there() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let pack = names::pack(&data_packs(&store).remove(0).entry.id);
    drop(store);
    assert!(transfer(&vault).delete(&pack).unwrap());
    delete_catalog(&home.path());
    let store = reopened(&home, &vault, &home.path());
    assert!(!findings(&store).is_empty());
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    assert!(vault.object(&pack).is_some());
    assert_eq!(findings(&store), [""; 0]);
    let (_dir, there) = recovered(&home, &vault);
    assert!(restore(&there, &one).unwrap() == sample(1));
}

#[test]
fn a_check_knows_what_another_machine_brought_since() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (_dir, other) = recovered(&home, &vault);
    let two = take_point(&store, &sample(2)).unwrap();
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    assert_eq!(findings(&other), [""; 0]);
}

#[test]
fn a_point_that_is_damaged_in_a_vault_is_put_there_again_and_a_word_is_not_overwritten() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let name = names::point(&one.point.source_tag, &one.point.id);
    let whole = vault.object(&name).unwrap();
    let mut flipped = whole.to_vec();
    flipped[100] ^= 1;
    for bad in [whole.slice(..whole.len() - 7), flipped.into(), bytes::Bytes::new()] {
        vault.replace(&name, bad.clone());
        let report = check::check(&store, Depth::ReadData, &VoidMonitor).unwrap();
        assert!(report.findings.iter().any(|finding| finding.object == name.as_str()), "{} bytes", bad.len());
        push(&store, &one, &RecordingMonitor::default()).unwrap();
        assert_eq!(vault.object(&name).unwrap(), whole);
        assert_eq!(findings(&store), [""; 0]);
    }
    // Without a check, by the length that a listing shows.
    vault.replace(&name, whole.slice(..whole.len() - 7));
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    assert_eq!(vault.object(&name).unwrap(), whole);
    // This may be the word that it is not to be there.
    let word = bytes::Bytes::from(vec![0; crate::fence::Revocation::LEN as usize]);
    vault.replace(&name, word.clone());
    assert!(push(&store, &one, &RecordingMonitor::default()).is_err());
    assert_eq!(vault.object(&name).unwrap(), word);
}
