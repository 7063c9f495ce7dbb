//! Tests of what a listing may take away: the belief that something is there, and nothing else.

use super::hostile::{data_packs, delete_catalog, forget_and_free, prepared, push, recovered, reopened};
use super::*;
use crate::ErrorClass;
use crate::catalog::Mark;
use crate::check::{self, Depth};
use crate::reclaim::{self, Place};
use crate::vault::testing::{Fault as VaultFault, FaultyVault};
use crate::vault::{Vault, Verb};

/// A store with a point in a vault, and one on another machine that has it from there alone.
pub(super) fn only_in_vault() -> (Home, Arc<MemoryVault>, tempfile::TempDir, Store) {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (dir, there) = recovered(&home, &vault);
    (home, vault, dir, there)
}

pub(super) fn faulty(vault: &Arc<MemoryVault>) -> Arc<FaultyVault> {
    Arc::new(FaultyVault::new(vault.clone(), Arc::new(ManualClock::default())))
}

pub(super) fn open_on(home: &Home, path: &std::path::Path, vault: Arc<dyn Vault>) -> Store {
    let clock = Arc::new(ManualClock::default());
    let transfer = Transfer::new(vault, clock, TransferPolicy::default()).unwrap();
    let options = Home::options(vec![("memory:v".into(), transfer)]);
    Store::open(path, &home.ring, options, &VoidMonitor).unwrap()
}

/// The store of a home on a vault that is tried once for each request: what fails stays failed.
pub(super) fn open_once(home: &Home, vault: Arc<dyn Vault>) -> Store {
    let once = TransferPolicy { retry_budget: std::time::Duration::ZERO, ..TransferPolicy::default() };
    let way = Transfer::new(vault, Arc::new(ManualClock::default()), once).unwrap();
    let options = Home::options(vec![("memory:v".into(), way)]);
    Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap()
}

#[test]
fn an_empty_place_where_a_vault_should_be_takes_nothing_away() {
    let (home, vault, dir, there) = only_in_vault();
    let path = dir.path().join("new");
    drop(there);
    let empty = Arc::new(MemoryVault::new());
    let unmounted = reopened(&home, &empty, &path);
    let (no, _, way) = unmounted.vaults()[0].clone();
    take_point(&unmounted, &sample(2)).unwrap();
    for refused in [
        copy::refresh_vault(&unmounted, no, &way, &VoidMonitor),
        copy::load_catalog(&unmounted, no, &way, &VoidMonitor),
        copy::learn_points(&unmounted, no, &way).map(drop),
    ] {
        let e = refused.unwrap_err();
        assert_eq!(e.class(), ErrorClass::NotFound, "{e}");
        assert!(e.to_string().contains("the store's config"), "{e}");
    }
    assert!(reclaim::plan(&unmounted, Place::Vault(no), &VoidMonitor).is_err());
    let report = check::check(&unmounted, Depth::Structure, &VoidMonitor).unwrap();
    assert!(report.findings.iter().any(|f| f.detail.contains("cannot be looked at")), "{report:?}");
    assert!(!report.findings.iter().any(|f| f.object.starts_with("pack/")), "{report:?}");
    // The slots of these stores are not real ones.
    assert!(report.findings.iter().all(|f| f.unseen || f.object.starts_with("keys/")), "{report:?}");
    drop(unmounted);
    let there = reopened(&home, &vault, &path);
    for (point, version) in there.points().unwrap().iter().zip([1, 2]) {
        assert!(restore(&there, point).unwrap() == sample(version));
    }
}

#[test]
fn a_vault_of_another_store_takes_nothing_away() {
    let (home, _vault, dir, there) = only_in_vault();
    drop(there);
    let other = Home::new();
    let (foreign, _store) = prepared(&other);
    let there = reopened(&home, &foreign, &dir.path().join("new"));
    let (no, _, way) = there.vaults()[0].clone();
    let refused = copy::refresh_vault(&there, no, &way, &VoidMonitor).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Unsupported);
    assert!(there.catalog().packs().unwrap().iter().all(|row| row.vaults == [no]));
}

#[test]
fn a_config_that_arrives_damaged_once_is_asked_for_again_and_one_that_is_damaged_names_the_vault() {
    let (home, vault, dir, there) = only_in_vault();
    drop(there);
    let flips = faulty(&vault);
    flips.fail(Verb::Stat, 1, VaultFault::Short);
    let there = open_on(&home, &dir.path().join("new"), flips);
    let (no, _, way) = there.vaults()[0].clone();
    copy::refresh_vault(&there, no, &way, &VoidMonitor).unwrap();
    vault.replace(&names::config(), bytes::Bytes::from_static(b"no config"));
    let e = copy::refresh_vault(&there, no, &way, &VoidMonitor).unwrap_err();
    assert!(e.to_string().starts_with("the config in vault memory is damaged"), "{e}");
}

#[test]
fn a_catalog_is_not_taken_for_filled_from_a_vault_that_was_not_mounted() {
    let (home, vault, dir, there) = only_in_vault();
    let path = dir.path().join("new");
    drop(there);
    delete_catalog(&path);
    drop(reopened(&home, &Arc::new(MemoryVault::new()), &path));
    let there = reopened(&home, &vault, &path);
    assert_eq!(there.points().unwrap().len(), 1);
    assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
}

#[test]
fn packs_that_were_missed_and_come_back_are_read_again() {
    let (home, vault, dir, there) = only_in_vault();
    let packs: Vec<_> = vault.names().into_iter().filter(|name| name.as_str().starts_with("pack/")).collect();
    let kept: Vec<_> = packs.iter().map(|name| vault.object(name).unwrap()).collect();
    let way = transfer(&vault);
    packs.iter().for_each(|name| assert!(way.delete(name).unwrap()));
    take_point_by(begin_online(&there, &VoidMonitor).unwrap(), &sample(2)).unwrap();
    let one = there.points().unwrap().remove(0);
    assert!(restore(&there, &one).is_err());
    assert!(there.catalog().packs().unwrap().iter().all(|row| row.staged));
    packs.iter().zip(kept).for_each(|(name, bytes)| vault.replace(name, bytes));
    // The next backup looks whether what is missed came back.
    drop(there);
    let there = reopened(&home, &vault, &dir.path().join("new"));
    drop(begin_online(&there, &VoidMonitor).unwrap());
    assert!(restore(&there, &one).unwrap() == sample(1));
}

#[test]
fn packs_that_came_to_a_vault_in_other_ways_become_known_to_the_next_push() {
    let (home, vault, _dir, there) = only_in_vault();
    let store = home.open_with(&vault);
    let two = take_point(&store, &sample(2)).unwrap();
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    let before = data_packs(&there).len();
    let (no, _, way) = there.vaults()[0].clone();
    copy::refresh_vault(&there, no, &way, &VoidMonitor).unwrap();
    assert!(data_packs(&there).len() > before);
    assert_eq!(there.catalog().packs().unwrap().len(), store.catalog().packs().unwrap().len());
}

#[test]
fn a_run_that_is_cut_off_between_noticing_a_loss_and_telling_it_notices_it_again() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let monitor = RecordingMonitor::default();
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &monitor).unwrap();
    let pack = data_packs(&store).remove(0);
    assert!(transfer(&vault).delete(&names::pack(&pack.entry.id)).unwrap());
    // The points were taken back, the pack was not yet.
    let no = store.vaults()[0].0;
    store.catalog().remove_point(&one.point.id, Some(no)).unwrap();
    assert_eq!(push(&store, &one, &monitor).unwrap().packs, 1);
    assert!(vault.object(&names::pack(&pack.entry.id)).is_some());
}

#[test]
fn a_catalog_that_is_loaded_again_learns_what_is_new_and_casts_no_doubt() {
    let (home, vault, dir, there) = only_in_vault();
    drop(there);
    let counted = faulty(&vault);
    let there = open_on(&home, &dir.path().join("new"), counted.clone());
    there.catalog().set_mark(Mark::Doubtful, false).unwrap();
    let (no, _, way) = there.vaults()[0].clone();
    let before = counted.count(Verb::Get);
    copy::load_catalog(&there, no, &way, &VoidMonitor).unwrap();
    assert_eq!(counted.count(Verb::Get) - before, 1, "the config alone");
    assert!(!there.catalog().has_mark(Mark::Doubtful).unwrap());
    // Another machine's point is new here, and nobody looked whether it is whole.
    let store = home.open_with(&vault);
    let two = take_point(&store, &sample(2)).unwrap();
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    copy::load_catalog(&there, no, &way, &VoidMonitor).unwrap();
    assert_eq!(there.points().unwrap().len(), 2);
    assert!(there.catalog().has_mark(Mark::Doubtful).unwrap());
}

#[test]
fn index_objects_of_packs_that_are_gone_are_removed_from_a_vault() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let indexes = || vault.names().iter().filter(|name| name.as_str().starts_with(names::INDEXES)).count();
    let points: Vec<_> = (1..4)
        .map(|n| {
            let point = take_point(&store, &sample(n)).unwrap();
            push(&store, &point, &RecordingMonitor::default()).unwrap();
            point
        })
        .collect();
    assert_eq!(indexes(), 3);
    let (no, _, way) = store.vaults()[0].clone();
    // The second alone needs nothing that the third has not, but its own files and directories.
    for point in [&points[1], &points[2]] {
        assert!(way.delete(&names::point(&point.point.source_tag, &point.point.id)).unwrap());
        store.catalog().remove_point(&point.point.id, Some(no)).unwrap();
        forget_and_free(&store, point);
    }
    free_in_vault(&store, no, &VoidMonitor);
    assert_eq!(indexes(), 1);
    let (_dir, there) = recovered(&home, &vault);
    assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
}

#[test]
fn what_is_missed_is_forgotten_only_when_nobody_waits_for_it() {
    let (_home, vault, _dir, there) = only_in_vault();
    let (no, _, way) = there.vaults()[0].clone();
    let pack = data_packs(&there).remove(0);
    assert!(way.delete(&names::pack(&pack.entry.id)).unwrap());
    copy::refresh_vault(&there, no, &way, &VoidMonitor).unwrap();
    assert!(there.catalog().misses_packs().unwrap());
    // Its directories lie in other packs, so there is a plan.
    let plans = [Place::Staging, Place::Vault(no)].map(|p| reclaim::plan(&there, p, &VoidMonitor).unwrap());
    reclaim::forget_missed(&there, &plans).unwrap();
    assert!(there.catalog().misses_packs().unwrap(), "the point still waits for it");
    take_point(&there, &sample(1)).unwrap();
    let plans = [Place::Staging, Place::Vault(no)].map(|p| reclaim::plan(&there, p, &VoidMonitor).unwrap());
    reclaim::forget_missed(&there, &plans[..1]).unwrap();
    assert!(there.catalog().misses_packs().unwrap(), "a point of the vault was not asked");
    reclaim::forget_missed(&there, &plans).unwrap();
    assert!(!there.catalog().misses_packs().unwrap());
    drop(vault);
}

#[test]
fn a_vault_that_is_away_is_told_once_and_the_rest_is_checked() {
    for fault in [VaultFault::Deny, VaultFault::FailBefore] {
        for depth in [Depth::Structure, Depth::ReadData] {
            let home = Home::new();
            let (vault, store) = prepared(&home);
            let one = take_point(&store, &sample(1)).unwrap();
            push(&store, &one, &RecordingMonitor::default()).unwrap();
            drop(store);
            let away = faulty(&vault);
            away.fail_any_from(1, fault);
            let store = open_on(&home, &home.path(), away);
            let report = check::check(&store, depth, &VoidMonitor).unwrap();
            let of_vault: Vec<_> = report.findings.iter().filter(|f| f.object == "memory:v").collect();
            assert_eq!(of_vault.len(), 1, "{report:?}");
            assert!(of_vault[0].detail.contains("cannot be looked at"), "{report:?}");
            assert!(report.findings.iter().all(|f| f.object == "memory:v" || f.object.starts_with("keys/")));
            assert_eq!((report.points, report.packs > 0), (1, true));
        }
    }
}

#[test]
fn a_vault_that_goes_away_while_its_slots_are_read_is_left_out() {
    let (home, vault, dir, there) = only_in_vault();
    drop(there);
    let going = faulty(&vault);
    let store = open_on(&home, &dir.path().join("new"), going.clone());
    // The second time nothing of packs is asked for any more.
    for _ in 0..2 {
        going.forget();
        check::check(&store, Depth::Structure, &VoidMonitor).unwrap();
    }
    let asked = going.requests();
    let first = asked.iter().filter(|r| r.verb == Verb::Get).position(|r| r.name.starts_with("keys/"));
    going.forget();
    going.fail_from(Verb::Get, first.unwrap() as u64 + 1, VaultFault::FailBefore);
    let report = check::check(&store, Depth::Structure, &VoidMonitor).unwrap();
    let unseen: Vec<_> = report.findings.iter().filter(|f| f.unseen).map(|f| f.object.as_str()).collect();
    assert_eq!(unseen, ["memory:v"], "{report:?}");
    assert!(!report.findings.iter().any(|f| f.detail.contains("unavailable") && !f.unseen), "{report:?}");
}

#[test]
fn a_point_that_a_vault_lists_and_could_not_give_whole_is_named() {
    let home = Home::new();
    let (_vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (no, _, way) = store.vaults()[0].clone();
    let pack = data_packs(&store).remove(0);
    assert!(way.delete(&names::pack(&pack.entry.id)).unwrap());
    // The catalog knows of the loss: neither point nor pack count as vaulted any more, yet the vault shows the point.
    copy::refresh_vault(&store, no, &way, &VoidMonitor).unwrap();
    let report = check::check(&store, Depth::Structure, &VoidMonitor).unwrap();
    let name = names::point(&one.point.source_tag, &one.point.id);
    let named = report.findings.iter().find(|f| f.object == name.as_str());
    assert!(named.is_some_and(|f| f.detail.contains("not whole in this vault")), "{report:?}");
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let report = check::check(&store, Depth::Structure, &VoidMonitor).unwrap();
    assert!(report.findings.iter().all(|f| f.object.starts_with("keys/")), "{report:?}");
}

#[test]
fn a_pack_of_a_vault_to_which_there_is_no_way_is_had_from_the_next() {
    let (_home, _vault, _dir, there) = only_in_vault();
    let mut row = data_packs(&there).remove(0);
    let nowhere = there.catalog().vault_no("memory:gone").unwrap();
    row.vaults.insert(0, nowhere);
    assert!(there.fetch_pack(&row).is_ok());
    row.vaults = vec![nowhere];
    let e = there.fetch_pack(&row).unwrap_err();
    assert_eq!(e.to_string(), "there is no way to vault memory:gone");
    assert_eq!(there.vault(nowhere).unwrap_err().to_string(), e.to_string());
}

#[test]
fn a_vault_that_is_forgotten_leaves_what_others_hold_and_can_be_met_again() {
    let (_home, vault, _dir, there) = only_in_vault();
    let (no, _, way) = there.vaults()[0].clone();
    let mine = take_point(&there, &sample(5)).unwrap();
    there.catalog().forget_vault(no).unwrap();
    assert_eq!(there.points().unwrap().len(), 1);
    assert!(there.catalog().packs().unwrap().iter().all(|row| row.staged));
    assert!(vault.names().len() > 4, "nothing in the vault was touched");
    copy::load_catalog(&there, no, &way, &VoidMonitor).unwrap();
    let points = there.points().unwrap();
    assert_eq!(points.len(), 2);
    assert!(restore(&there, &points[0]).unwrap() == sample(1));
    assert!(restore(&there, &mine).unwrap() == sample(5));
}

#[test]
fn an_index_object_that_does_not_open_is_written_anew_and_goes_with_the_next_prune() {
    let (home, vault, _dir, there) = only_in_vault();
    let is_index = |name: &ObjectName| names::index_of(name).is_some();
    let indexes = || vault.names().into_iter().filter(is_index).collect::<Vec<_>>();
    for name in indexes() {
        let mut bytes = vault.object(&name).unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        vault.replace(&name, bytes.into());
    }
    let damaged = indexes();
    drop(there);
    let dir = tempfile::tempdir().unwrap();
    // And how many objects did not open.
    let recovered = |name: &str| {
        let (path, monitor) = (dir.path().join(name), RecordingMonitor::default());
        Store::adopt(&path, &copy::vault_head(&transfer(&vault)).unwrap()).unwrap();
        let options = Home::options(vec![("memory:v".into(), transfer(&vault))]);
        let there = Store::open(&path, &home.ring, options, &monitor).unwrap();
        let problems = monitor
            .events()
            .into_iter()
            .filter(|event| matches!(event, crate::monitor::Event::Problem { .. }));
        (there, problems.count())
    };
    let (first, problems) = recovered("first");
    assert_eq!(problems, damaged.len());
    let two = take_point(&first, &sample(2)).unwrap();
    push(&first, &two, &RecordingMonitor::default()).unwrap();
    assert!(restore(&first, &first.points().unwrap()[0]).unwrap() == sample(1));
    super::fenced::advance(&first, &super::fenced::at_once());
    let left = indexes();
    assert!(!left.is_empty() && damaged.iter().all(|name| !left.contains(name)), "{left:?}");
    let (second, problems) = recovered("second");
    assert_eq!(problems, 0);
    let (no, _, _) = second.vaults()[0].clone();
    assert!(second.catalog().knows_all_in(no).unwrap());
    assert_eq!(second.catalog().packs_without_index(Some(no)).unwrap(), []);
    for (point, version) in second.points().unwrap().iter().zip([1, 2]) {
        assert!(restore(&second, point).unwrap() == sample(version));
    }
}

#[test]
fn a_copy_that_was_read_and_given_up_is_put_right_though_it_has_its_length() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (pack, no) = (data_packs(&store).remove(0), store.vaults()[0].0);
    let name = names::pack(&pack.entry.id);
    let whole = vault.object(&name).unwrap();
    let mut bytes = whole.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    vault.replace(&name, bytes.into());
    store.catalog().set_mark(Mark::BadIn(no, pack.entry.id), true).unwrap();
    store.catalog().miss_confirmed(pack.no, no).unwrap();
    store.catalog().set_mark(Mark::Incomplete(no, one.point.id), true).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    assert!(vault.object(&name).unwrap() == whole);
    assert!(!store.catalog().has_mark(Mark::BadIn(no, pack.entry.id)).unwrap());
}

#[test]
fn a_pack_that_a_check_misses_in_a_vault_is_a_copy_for_nobody_until_one_finds_it() {
    let (_home, vault, store, _, name) = super::heal::vaulted();
    let no = store.vaults()[0].0;
    let bytes = vault.object(&name).unwrap();
    vault.lose(&name);
    let is_told = || {
        let found = check::check(&store, Depth::Structure, &VoidMonitor).unwrap().findings;
        found.iter().any(|found| found.object == name.as_str())
    };
    for _ in 0..2 {
        assert!(is_told(), "each time");
        let missed = store.catalog().not_shown_in(no).unwrap();
        assert!(missed.len() == 1 && names::pack(&missed[0]) == name);
    }
    vault.replace(&name, bytes);
    assert!(!is_told());
    assert_eq!(store.catalog().not_shown_in(no).unwrap(), []);
}
