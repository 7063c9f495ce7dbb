//! Tests of what may go because something else has it: only what this was seen to have just now, and what was read there.

use super::fenced::{advance, at_once, forget};
use super::hostile::{data_packs, delete_catalog, prepared, push, recovered, reopened};
use super::*;
use crate::catalog::Mark;
use crate::check::{self, Depth};
use crate::fence::{Revocation, Why};
use crate::id::Attempt;
use crate::names::Named;
use crate::reclaim::{self, Place};
use crate::vault::Verb;
use crate::vault::testing::{Fault as VaultFault, FaultyVault};

/// A machine that has two points from a vault alone. One pack there is known to be damaged, and `packs` hold all that it holds.
struct Twice {
    home: Home,
    vault: Arc<MemoryVault>,
    dir: tempfile::TempDir,
    store: Store,
    damaged: ObjectName,
    packs: Vec<ObjectName>,
}

impl Twice {
    fn new() -> Self {
        let home = Home::new();
        let (vault, writer) = prepared(&home);
        let one = take_point(&writer, &sample(1)).unwrap();
        push(&writer, &one, &RecordingMonitor::default()).unwrap();
        let damaged = names::pack(&data_packs(&writer).remove(0).entry.id);
        let path = home.path().join(damaged.as_str());
        let bad = flipped(&vault.object(&damaged).unwrap());
        std::fs::write(path, &bad).unwrap();
        vault.replace(&damaged, bad);
        check::check(&writer, Depth::ReadData, &VoidMonitor).unwrap();
        let before = vault.names();
        let two = take_point(&writer, &sample(1)).unwrap();
        push(&writer, &two, &RecordingMonitor::default()).unwrap();
        let (dir, store) = recovered(&home, &vault);
        check::check(&store, Depth::ReadData, &VoidMonitor).unwrap();
        let is_data =
            |name: &ObjectName| data_packs(&store).iter().any(|p| names::pack(&p.entry.id) == *name);
        let packs: Vec<_> =
            vault.names().into_iter().filter(|name| !before.contains(name) && is_data(name)).collect();
        assert!(!packs.is_empty());
        Self { home, vault, dir, store, damaged, packs }
    }

    fn prune(&self) -> reclaim::Reclaimed {
        free_in_vault(&self.store, self.store.vaults()[0].0, &VoidMonitor)
    }
}

fn flipped(bytes: &[u8]) -> bytes::Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.into()
}

#[test]
fn a_damaged_pack_goes_from_a_vault_when_another_was_read_there_that_has_it_all() {
    let twice = Twice::new();
    assert_eq!(twice.prune().packs, 1);
    assert_eq!(twice.vault.object(&twice.damaged), None);
    let anew = reopened(&twice.home, &twice.vault, &twice.dir.path().join("new"));
    let points = anew.points().unwrap();
    assert_eq!(points.len(), 2);
    assert!(points.iter().all(|point| restore(&anew, point).unwrap() == sample(1)));
}

#[test]
fn a_damaged_pack_stays_if_what_should_stand_for_it_is_gone_cut_or_damaged_as_well() {
    type Spoil = fn(&Twice, &ObjectName);
    let gone: Spoil = |twice, name| assert!(transfer(&twice.vault).delete(name).unwrap());
    let cut: Spoil = |twice, name| {
        let bytes = twice.vault.object(name).unwrap();
        twice.vault.replace(name, bytes.slice(..bytes.len() - 1));
    };
    let rotten: Spoil = |twice, name| twice.vault.replace(name, flipped(&twice.vault.object(name).unwrap()));
    for (how, spoil) in [("gone", gone), ("cut", cut), ("rotten", rotten)] {
        let twice = Twice::new();
        spoil(&twice, &twice.packs[0]);
        assert_eq!(twice.prune().packs, 0, "{how}");
        assert!(twice.vault.object(&twice.damaged).is_some(), "{how}");
        assert_eq!(twice.prune().packs, 0, "{how}, and it is noted");
    }
}

#[test]
fn what_is_known_to_be_damaged_after_a_look_for_a_replacement_is_told_and_noted() {
    let twice = Twice::new();
    let name = &twice.packs[0];
    twice.vault.replace(name, flipped(&twice.vault.object(name).unwrap()));
    let (monitor, no) = (RecordingMonitor::default(), twice.store.vaults()[0].0);
    free_in_vault(&twice.store, no, &monitor);
    assert!(format!("{:?}", monitor.events()).contains("memory:v: "));
    let id = names::pack_of(name).unwrap();
    assert!(twice.store.catalog().has_mark(Mark::BadIn(no, id)).unwrap());
}

/// Fails from the n-th request of a kind on, for every n until the space is free; names of what was asked for last.
fn free_while_it_goes_away(twice: &Twice, verb: Verb, fault: VaultFault) -> Vec<String> {
    let faulty = Arc::new(FaultyVault::new(twice.vault.clone(), Arc::new(ManualClock::default())));
    let mut asked = Vec::new();
    for n in 1.. {
        // Opened anew: nothing that was read before is in memory.
        let options = Home::options(vec![("memory:v".into(), transfer_of(faulty.clone()))]);
        let dir = twice.dir.path().join("new");
        let store = Store::open(&dir, &twice.home.ring, options, &VoidMonitor).unwrap();
        let no = store.vaults()[0].0;
        let known = store.catalog().bad_in(no).unwrap();
        faulty.forget();
        faulty.fail_from(verb, n, fault);
        let terms = reclaim::Terms { silence: Duration::ZERO, ..reclaim::Terms::AT_ONCE };
        let freed = reclaim::advance(&store, no, &terms, &HashSet::new(), &VoidMonitor);
        faulty.heal();
        let is_decided = twice.vault.object(&Named::Final(1).name()).is_some();
        if freed.is_ok() {
            break;
        }
        asked.extend(faulty.requests().pop().map(|request| request.name));
        if !is_decided {
            assert_eq!(store.catalog().bad_in(no).unwrap(), known, "{verb:?} {n} {fault:?}");
            assert!(twice.vault.object(&twice.damaged).is_some(), "{verb:?} {n} {fault:?}");
        }
    }
    assert!(twice.vault.object(&twice.damaged).is_none(), "{verb:?} {fault:?}");
    asked
}

#[test]
fn a_vault_that_does_not_answer_frees_nothing_there_wherever_it_goes_away() {
    for fault in [VaultFault::Deny, VaultFault::Gone] {
        assert!(!free_while_it_goes_away(&Twice::new(), Verb::List, fault).is_empty());
        free_while_it_goes_away(&Twice::new(), Verb::Get, fault);
    }
    // What was to stand for the damaged pack is among what was not given.
    let twice = Twice::new();
    let asked = free_while_it_goes_away(&twice, Verb::Get, VaultFault::Deny);
    assert!(asked.iter().any(|name| name.starts_with(names::PACKS)), "{asked:?}");
}

/// A store whose point staging does not show any more, but a vault does. Staging has its packs still.
fn left_to_the_vault() -> (Home, Arc<MemoryVault>, Store, StoredPoint) {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    store.staging().remove(&names::point(&one.point.source_tag, &one.point.id)).unwrap();
    store.catalog().remove_point(&one.point.id, None).unwrap();
    (home, vault, store, one)
}

fn prune_staging(store: &Store, monitor: &RecordingMonitor) -> reclaim::Reclaimed {
    reclaim::free_staging(store, monitor).unwrap().1
}

#[test]
fn the_last_copy_of_what_a_vaults_point_needs_stays_in_staging() {
    for how in ["gone", "cut", "known to be rotten"] {
        let (home, vault, store, one) = left_to_the_vault();
        let pack = data_packs(&store).remove(0).entry.id;
        let name = names::pack(&pack);
        let bytes = vault.object(&name).unwrap();
        match how {
            "gone" => assert!(transfer(&vault).delete(&name).unwrap()),
            "cut" => vault.replace(&name, bytes.slice(..1000)),
            _ => {
                vault.replace(&name, flipped(&bytes));
                check::check(&store, Depth::ReadData, &VoidMonitor).unwrap();
            }
        }
        assert!(
            prune_staging(&store, &RecordingMonitor::default()).packs > 0,
            "{how}: what the vault has goes"
        );
        assert!(home.path().join(name.as_str()).exists(), "{how}");
        assert!(restore(&store, &one).unwrap() == sample(1), "{how}");
        vault.replace(&name, bytes);
        store.catalog().set_mark(Mark::BadIn(store.vaults()[0].0, pack), false).unwrap();
        assert_eq!(prune_staging(&store, &RecordingMonitor::default()).packs, 1, "{how}");
        assert!(restore(&store, &one).unwrap() == sample(1), "{how}");
    }
}

#[test]
fn a_vault_that_is_away_is_not_counted_on_and_what_nobody_needs_goes_all_the_same() {
    let (home, vault, store, _one) = left_to_the_vault();
    drop(store);
    let faulty = Arc::new(FaultyVault::new(vault, Arc::new(ManualClock::default())));
    let options = Home::options(vec![("memory:v".into(), transfer_of(faulty.clone()))]);
    let store = Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap();
    let none_needs = take_point(&store, &sample(7)).unwrap();
    store.staging().remove(&names::point(&none_needs.point.source_tag, &none_needs.point.id)).unwrap();
    store.catalog().remove_point(&none_needs.point.id, None).unwrap();
    faulty.fail_any_from(1, VaultFault::Deny);
    let (monitor, before) = (RecordingMonitor::default(), data_packs(&store).len());
    assert!(prune_staging(&store, &monitor).packs > 0);
    assert!(format!("{:?}", monitor.events()).contains("it is not counted on"));
    let left = data_packs(&store);
    assert!(left.len() < before && left.iter().all(|row| row.staged && !row.vaults.is_empty()));
    // Nor may anything go when nobody can tell what the point needs.
    for tree in store.catalog().packs().unwrap().iter().filter(|row| row.entry.kind == PackKind::Tree) {
        std::fs::remove_file(home.path().join(names::pack(&tree.entry.id).as_str())).unwrap();
    }
    store.reader().forget_places();
    store.reconcile(&VoidMonitor).unwrap();
    drop(store);
    let options = Home::options(vec![("memory:v".into(), transfer_of(faulty.clone()))]);
    let store = Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap();
    assert_eq!(prune_staging(&store, &monitor).packs, 0);
    assert!(format!("{:?}", monitor.events()).contains("what it needs is unknown"));
    faulty.heal();
    assert_eq!(prune_staging(&store, &monitor).packs, left.len() as u64);
}

#[test]
fn what_staging_lost_unnoticed_stays_in_the_vault_while_a_local_point_needs_it() {
    let (home, vault, store, one, lost) = super::heal::vaulted();
    forget(&store, &one);
    std::fs::remove_file(home.path().join(lost.as_str())).unwrap();
    let freed: u64 = (0..3).map(|_| advance(&store, &at_once()).removed.packs).sum();
    assert!(freed > 0, "what staging has as well");
    assert!(vault.object(&lost).is_some());
    assert!(restore(&store, &one).unwrap() == sample(1));
}

fn transfer_of(vault: Arc<FaultyVault>) -> Arc<Transfer> {
    Transfer::new(vault, Arc::new(ManualClock::default()), TransferPolicy::default()).unwrap()
}

#[test]
fn what_a_prune_finds_missing_the_next_push_sends() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (no, _, way) = store.vaults()[0].clone();
    copy::load_catalog(&store, no, &way, &VoidMonitor).unwrap();
    let name = names::pack(&data_packs(&store).remove(0).entry.id);
    assert!(way.delete(&name).unwrap());
    reclaim::plan(&store, Place::Vault(no), &VoidMonitor).unwrap();
    copy::load_catalog(&store, no, &way, &VoidMonitor).unwrap();
    assert_eq!(push(&store, &one, &RecordingMonitor::default()).unwrap().packs, 1);
    assert!(vault.object(&name).is_some());
}

#[test]
fn what_a_vault_may_need_that_was_never_read_since_the_catalog_was_made_anew_stays_in_staging() {
    let (home, vault, store, one) = left_to_the_vault();
    let lost = names::pack(&data_packs(&store).remove(0).entry.id);
    assert!(transfer(&vault).delete(&lost).unwrap());
    drop(store);
    delete_catalog(&home.path());
    let faulty = Arc::new(FaultyVault::new(vault, Arc::new(ManualClock::default())));
    faulty.fail_any_from(1, VaultFault::Deny);
    let options = Home::options(vec![("memory:v".into(), transfer_of(faulty.clone()))]);
    let store = Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap();
    assert!(store.points().unwrap().is_empty());
    let monitor = RecordingMonitor::default();
    assert_eq!(prune_staging(&store, &monitor).packs, 0, "the vault is away still");
    assert!(format!("{:?}", monitor.events()).contains("what its recovery points need is unknown"));
    faulty.heal();
    assert!(prune_staging(&store, &RecordingMonitor::default()).packs > 0, "what the vault has goes");
    assert!(home.path().join(lost.as_str()).exists());
    assert!(restore(&store, &store.point(&one.point.id).unwrap()).unwrap() == sample(1));
}

#[test]
fn beside_a_point_that_reads_what_one_that_does_not_may_need_stays_in_staging() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let points = [1, 2].map(|version| take_point(&store, &sample(version)).unwrap());
    for point in &points {
        push(&store, point, &RecordingMonitor::default()).unwrap();
        store.staging().remove(&names::point(&point.point.source_tag, &point.point.id)).unwrap();
        store.catalog().remove_point(&point.point.id, None).unwrap();
    }
    // The first needs nothing of the last pack, and the vault has lost it.
    let lost = names::pack(&data_packs(&store).last().unwrap().entry.id);
    vault.lose(&lost);
    let second = names::point(&points[1].point.source_tag, &points[1].point.id);
    let whole = vault.object(&second).unwrap();
    vault.replace(&second, flipped(&whole));
    drop(store);
    delete_catalog(&home.path());
    let (store, monitor) = (home.open_with(&vault), RecordingMonitor::default());
    assert!(prune_staging(&store, &monitor).packs > 0, "what the vault has goes");
    assert!(format!("{:?}", monitor.events()).contains("not all of it can be read"));
    assert_eq!(store.points().unwrap().len(), 1);
    assert!(home.path().join(lost.as_str()).exists());
    vault.replace(&second, whole);
    drop(store);
    let store = home.open_with(&vault);
    let (no, _, way) = store.vaults()[0].clone();
    copy::load_catalog(&store, no, &way, &VoidMonitor).unwrap();
    for (point, version) in points.iter().zip([1, 2]) {
        let point = store.point(&point.point.id).unwrap();
        assert!(restore(&store, &point).unwrap() == sample(version));
    }
}

#[test]
fn nothing_goes_from_a_vault_while_what_lies_in_the_place_of_a_point_cannot_be_read() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    fenced::forget(&store, &one);
    let (tag, attempt) = (one.point.source_tag, Attempt::first(RecoveryPointId([7; 16])));
    let name = names::outcome(&tag, &attempt);
    let revoked = Revocation { attempt, tag, why: Why::Forgotten, at: 0 }.seal(store.sealer());
    let (no, before) = (store.vaults()[0].0, fenced::packs(&vault));
    let free = || reclaim::advance(&store, no, &fenced::at_once(), &HashSet::new(), &VoidMonitor);
    // As long as what stands for a point that is not to be there, and longer; then that itself, damaged.
    for (bytes, why) in [
        (vec![7; revoked.len()].into(), "it does not begin with HOLDFAST"),
        (vec![7; 1000].into(), "it does not begin with HOLDFAST"),
        (flipped(&revoked), "it is a revocation, and damaged"),
    ] {
        vault.replace(&name, bytes);
        let e = free().unwrap_err().to_string();
        assert!(e.contains(name.as_str()) && e.contains(why), "{e}");
        assert_eq!(fenced::packs(&vault), before, "{why}");
    }
    vault.replace(&name, revoked.into());
    assert!(free().unwrap().removed.packs > 0, "the point may not be there, and needs nothing");
}
