//! Tests of copies in a vault that were read and are damaged, on which nothing relies any more.

use super::hostile::{data_packs, prepared, push, recovered, reopened};
use super::losses::only_in_vault;
use super::*;
use crate::catalog::Mark;
use crate::check::{self, Depth, Report};

fn rot(vault: &MemoryVault, name: &ObjectName) {
    let mut bytes = vault.object(name).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    vault.replace(name, bytes.into());
}

/// What a report says of packs and of vaults.
fn said(report: &Report) -> Vec<(&str, &str)> {
    let other = |object: &str| object.starts_with("keys/");
    let found = report.findings.iter().filter(|f| !other(&f.object));
    found.map(|f| (f.object.as_str(), f.detail.as_str())).collect()
}

#[test]
fn a_copy_that_is_known_to_be_damaged_is_no_copy_and_the_source_heals_it() {
    let (home, vault, dir, there) = only_in_vault();
    let packs: Vec<_> = data_packs(&there).iter().map(|row| names::pack(&row.entry.id)).collect();
    packs.iter().for_each(|name| rot(&vault, name));
    there.catalog().set_mark(Mark::Doubtful, false).unwrap();
    assert!(!there.begin(Compression::None, &VoidMonitor).unwrap().suspicious(), "nobody knows yet");
    check::check(&there, Depth::ReadData, &VoidMonitor).unwrap();
    // Who looks at names and lengths only tells it, too.
    let report = check::check(&there, Depth::Structure, &VoidMonitor).unwrap();
    for name in &packs {
        assert!(
            said(&report).iter().any(|f| f.0 == name.as_str() && f.1.contains("is damaged")),
            "{report:?}"
        );
    }
    there.catalog().set_mark(Mark::Doubtful, false).unwrap();
    assert!(there.begin(Compression::None, &VoidMonitor).unwrap().suspicious());
    let two = take_point(&there, &sample(1)).unwrap();
    push(&there, &two, &RecordingMonitor::default()).unwrap();
    drop((there, dir));
    let (_dir, anew) = recovered(&home, &vault);
    let points = anew.points().unwrap();
    assert_eq!(points.len(), 2);
    assert!(points.iter().all(|point| restore(&anew, point).unwrap() == sample(1)));
}

#[test]
fn what_is_known_of_a_copy_goes_with_it() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (no, name) = (store.vaults()[0].0, names::pack(&data_packs(&store).remove(0).entry.id));
    rot(&vault, &name);
    check::check(&store, Depth::ReadData, &VoidMonitor).unwrap();
    assert_eq!(store.catalog().bad_in(no).unwrap().len(), 1);
    assert!(transfer(&vault).delete(&name).unwrap());
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    assert_eq!(store.catalog().bad_in(no).unwrap().len(), 0);
}

#[test]
fn a_pack_that_is_gone_or_cut_since_it_was_listed_is_damage() {
    for cut in [false, true] {
        let (home, vault, dir, there) = only_in_vault();
        let (no, pack) = (there.vaults()[0].0, data_packs(&there).remove(0).entry.id);
        let (name, bytes) = (names::pack(&pack), vault.object(&names::pack(&pack)).unwrap());
        match cut {
            true => vault.replace(&name, bytes.slice(..1000)),
            false => assert!(transfer(&vault).delete(&name).unwrap()),
        }
        check::check(&there, Depth::ReadData, &VoidMonitor).unwrap();
        assert!(there.catalog().has_mark(Mark::BadIn(no, pack)).unwrap(), "cut: {cut}");
        // It is told as long as it is not put right, and not longer.
        vault.replace(&name, bytes);
        drop(there);
        let there = reopened(&home, &vault, &dir.path().join("new"));
        assert!(!said(&check::check(&there, Depth::Structure, &VoidMonitor).unwrap()).is_empty());
        assert_eq!(said(&check::check(&there, Depth::ReadData, &VoidMonitor).unwrap()), []);
        assert_eq!(said(&check::check(&there, Depth::Structure, &VoidMonitor).unwrap()), []);
    }
}
