//! Tests of copies in a vault that were read and are damaged, on which nothing relies any more, and of those that could not be
//! read, of which that says nothing.

use super::hostile::{data_packs, prepared, push, recovered, reopened};
use super::losses::only_in_vault;
use super::*;
use crate::catalog::{Mark, VaultNo};
use crate::check::{self, Depth, Report};
use crate::vault::Verb;
use crate::vault::testing::{Fault as VaultFault, FaultyVault};

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
    assert!(!begin_online(&there, &VoidMonitor).unwrap().suspicious(), "nobody knows yet");
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
    assert!(begin_online(&there, &VoidMonitor).unwrap().suspicious());
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

/// A store that has all it knows from a vault that can be made to fail.
struct Far {
    _home: Home,
    _dir: tempfile::TempDir,
    vault: Arc<FaultyVault>,
    store: Store,
    no: VaultNo,
}

impl Far {
    fn new() -> Self {
        let (home, vault, dir, there) = only_in_vault();
        drop(there);
        let clock = Arc::new(ManualClock::default());
        let vault = Arc::new(FaultyVault::new(vault, clock.clone()));
        let way = Transfer::new(vault.clone(), clock.clone(), TransferPolicy::default()).unwrap();
        let options = StoreOptions { clock, ..Home::options(vec![("memory:v".into(), way)]) };
        let store = Store::open(&dir.path().join("new"), &home.ring, options, &VoidMonitor).unwrap();
        let no = store.vaults()[0].0;
        vault.forget();
        Self { _home: home, _dir: dir, vault, store, no }
    }

    fn read_data(&self) -> Report {
        check::check(&self.store, Depth::ReadData, &VoidMonitor).unwrap()
    }

    fn packs(&self) -> Vec<PackRow> {
        self.store.catalog().packs().unwrap()
    }
}

#[test]
fn a_vault_that_goes_away_while_it_is_read_is_told_once_and_nothing_there_is_taken_for_damaged() {
    for fault in [VaultFault::Deny, VaultFault::Gone, VaultFault::FailBefore] {
        let whole = Far::new();
        assert_eq!(said(&whole.read_data()), []);
        let gets = whole.vault.requests().into_iter().filter(|request| request.verb == Verb::Get);
        let packs =
            gets.enumerate().filter(|(_, get)| get.name.starts_with("pack/")).map(|(i, _)| i as u64 + 1);
        let packs: Vec<u64> = packs.collect();
        assert!(packs.len() > 3);
        for n in packs.into_iter().take(whole.packs().len()) {
            let far = Far::new();
            far.vault.fail_from(Verb::Get, n, fault);
            let report = far.read_data();
            let told = format!("{fault:?} from {n}: {report:?}");
            assert_eq!(far.store.catalog().bad_in(far.no).unwrap().len(), 0, "{told}");
            let of_vault = said(&report).iter().filter(|f| f.0 == "memory:v").count();
            assert_eq!(of_vault, 1, "{told}");
            assert!(
                !said(&report).iter().any(|f| f.0 == "recovery points" || f.0.starts_with("pack/")),
                "{told}"
            );
        }
    }
}

#[test]
fn a_pack_that_a_vault_does_not_give_is_told_and_the_others_are_read() {
    for fault in [VaultFault::Deny, VaultFault::FailBefore] {
        let far = Far::new();
        let all: u64 = far.packs().iter().map(|row| row.entry.len).sum();
        let pack = data_packs(&far.store).remove(0).entry;
        far.vault.fail_object(&names::pack(&pack.id), fault);
        let report = far.read_data();
        let found = said(&report);
        assert_eq!(found.len(), 1, "{fault:?}: {found:?}");
        assert_eq!(found[0].0, names::pack(&pack.id).as_str(), "{fault:?}");
        assert!(found[0].1.starts_with("memory:v: it cannot be read"), "{fault:?}: {found:?}");
        assert!(report.bytes_read >= all - pack.len, "{fault:?}: {} of {all}", report.bytes_read);
        assert_eq!(far.store.catalog().bad_in(far.no).unwrap().len(), 0, "{fault:?}");
    }
}

#[test]
fn a_vault_that_gives_no_pack_at_all_is_left_out_soon() {
    let far = Far::new();
    let packs = far.packs();
    assert!(packs.len() > 3);
    packs.iter().for_each(|row| far.vault.fail_object(&names::pack(&row.entry.id), VaultFault::Deny));
    let report = far.read_data();
    let found = said(&report);
    assert_eq!(found.iter().filter(|f| f.0 == "memory:v").count(), 1, "{found:?}");
    assert_eq!(found.iter().filter(|f| f.0.starts_with("pack/")).count(), 2, "{found:?}");
    assert_eq!(far.store.catalog().bad_in(far.no).unwrap().len(), 0);
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
