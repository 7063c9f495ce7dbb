//! Tests of bytes that are not what their names say: they are moved aside, right ones take their place where there are some,
//! and nothing that was whole is lost wherever that is cut off.

use super::hostile::{data_packs, forget_and_free, prepared, push, recovered};
use super::losses::open_once;
use super::*;
use crate::ErrorClass;
use crate::check::{self, Depth, Report};
use crate::monitor::{Event, Monitor};
use crate::reclaim::{self, Place, Verdict};
use crate::store::move_aside;
use crate::vault::Verb;
use crate::vault::testing::{Fault as VaultFault, FaultyVault};

fn findings(store: &Store, depth: Depth) -> Report {
    let mut report = check::check(store, depth, &VoidMonitor).unwrap();
    // The slots of these stores are not real ones.
    report.findings.retain(|f| !f.object.starts_with("keys/"));
    report
}

/// A store with a point that is in staging and in a vault, and the name of one of its packs.
pub(crate) fn vaulted() -> (Home, Arc<MemoryVault>, Store, StoredPoint, ObjectName) {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let name = names::pack(&data_packs(&store).remove(0).entry.id);
    (home, vault, store, one, name)
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

fn told(monitor: &RecordingMonitor) -> String {
    format!("{:?}", monitor.events())
}

#[test]
fn a_pack_of_the_wrong_length_in_a_vault_is_set_aside_and_sent_again() {
    let (home, vault, store, one, name) = vaulted();
    let good = vault.object(&name).unwrap();
    let cut = good.slice(..1000);
    vault.replace(&name, cut.clone());
    let monitor = RecordingMonitor::default();
    assert_eq!(push(&store, &one, &monitor).unwrap().packs, 1);
    assert!(told(&monitor).contains("1000 bytes instead of"), "{}", told(&monitor));
    assert_eq!(vault.object(&name), Some(good));
    assert_eq!(vault.object(&names::bad(&name, blake3::hash(&cut).as_bytes())), Some(cut));
    assert_eq!(findings(&store, Depth::ReadData).findings, []);
    let (_dir, there) = recovered(&home, &vault);
    assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
}

#[test]
fn what_another_machine_put_right_meanwhile_is_not_removed_as_what_was_damaged() {
    let (_home, vault, store, _, name) = vaulted();
    let (good, no) = (vault.object(&name).unwrap(), store.vaults()[0].0);
    let bad = Bytes::from(flipped(&good));
    // Both have read what is damaged; the other one was faster.
    move_aside(store.vault(no).unwrap(), &name, bad.clone(), "it is damaged", &VoidMonitor).unwrap();
    assert_eq!(vault.object(&name), Some(good));
    assert_eq!(vault.object(&names::bad(&name, blake3::hash(&bad).as_bytes())), Some(bad));
}

#[test]
fn a_pack_with_a_flipped_bit_in_a_vault_is_sent_again_once_a_check_found_it() {
    let (home, vault, store, one, name) = vaulted();
    let good = vault.object(&name).unwrap();
    vault.replace(&name, flipped(&good).into());
    assert_eq!(push(&store, &one, &RecordingMonitor::default()).unwrap(), copy::Pushed::default());
    let report = findings(&store, Depth::ReadData);
    assert!(report.findings.iter().any(|f| f.object == name.as_str()), "{report:?}");
    assert_eq!(push(&store, &one, &RecordingMonitor::default()).unwrap().packs, 1);
    assert_eq!(vault.object(&name), Some(good));
    assert_eq!(findings(&store, Depth::ReadData).findings, []);
    assert_eq!(push(&store, &one, &RecordingMonitor::default()).unwrap(), copy::Pushed::default());
    let (_dir, there) = recovered(&home, &vault);
    assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
}

#[test]
fn a_damaged_pack_of_which_there_is_no_better_copy_stays_where_it_is() {
    let (home, vault, store, one, name) = vaulted();
    let bad = flipped(&vault.object(&name).unwrap());
    vault.replace(&name, bad.clone().into());
    forget_and_free(&store, &one);
    drop(store);
    let store = home.open_with(&vault);
    assert!(!findings(&store, Depth::ReadData).findings.is_empty());
    // A new point that would need it stores what it needs anew; nothing keeps it from the vault.
    let two = take_point(&store, &sample(2)).unwrap();
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    assert_eq!(vault.object(&name).unwrap(), bad);
    assert!(
        restore(&store, &two).is_ok_and(|files| files == sample(2))
            || store.catalog().has_bad_packs().unwrap()
    );
}

#[test]
fn a_vault_that_lets_nobody_remove_anything_says_so_and_loses_nothing() {
    let (home, vault, store, one, name) = vaulted();
    drop(store);
    vault.replace(&name, vault.object(&name).unwrap().slice(..1000));
    let strict = Arc::new(FaultyVault::new(vault.clone(), Arc::new(ManualClock::default())));
    strict.fail_from(Verb::Delete, 1, VaultFault::Deny);
    let way = Transfer::new(strict, Arc::new(ManualClock::default()), TransferPolicy::default()).unwrap();
    let options = Home::options(vec![("memory:v".into(), way)]);
    let store = Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap();
    let refused = push(&store, &one, &RecordingMonitor::default()).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::AlreadyThere, "{refused}");
    assert!(refused.to_string().contains("may not be removed"), "{refused}");
    assert_eq!(vault.object(&name).unwrap().len(), 1000);
    assert!(restore(&store, &one).unwrap() == sample(1));
}

#[test]
fn healing_a_vault_may_be_cut_off_anywhere_and_the_next_push_ends_it() {
    for fault in [VaultFault::Deny, VaultFault::FailAfter] {
        for n in 1.. {
            let (home, vault, store, one, name) = vaulted();
            drop(store);
            let good = vault.object(&name).unwrap();
            vault.replace(&name, good.slice(..1000));
            let faulty = Arc::new(FaultyVault::new(vault.clone(), Arc::new(ManualClock::default())));
            faulty.fail_any(n, fault);
            let store = open_once(&home, faulty.clone());
            let pushed = push(&store, &one, &RecordingMonitor::default());
            let struck = faulty.requests().len() as u64 >= n;
            assert!(restore(&store, &one).unwrap() == sample(1), "{fault:?} at {n}");
            faulty.heal();
            push(&store, &one, &RecordingMonitor::default()).unwrap();
            assert_eq!(vault.object(&name), Some(good), "{fault:?} at {n}");
            assert_eq!(findings(&store, Depth::ReadData).findings, [], "{fault:?} at {n}");
            let (_dir, there) = recovered(&home, &vault);
            assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1), "{fault:?} at {n}");
            if !struck {
                assert!(pushed.is_ok());
                break;
            }
        }
    }
}

#[test]
fn a_pack_in_staging_that_is_not_what_its_name_says_is_moved_aside_once() {
    for cut in [true, false] {
        let home = Home::new();
        let store = home.open();
        take_point(&store, &sample(1)).unwrap();
        let name = names::pack(&data_packs(&store).remove(0).entry.id);
        let path = home.path().join(name.as_str());
        let good = std::fs::read(&path).unwrap();
        let bad = if cut { good[..1000].to_vec() } else { flipped(&good) };
        std::fs::write(&path, &bad).unwrap();
        if !cut {
            // Unknown to the catalog, its bytes are looked at.
            drop(store);
            super::hostile::delete_catalog(&home.path());
            for index in std::fs::read_dir(home.path().join("idx")).unwrap() {
                std::fs::remove_file(index.unwrap().path()).unwrap();
            }
        } else {
            drop(store);
        }
        let store = home.open();
        let monitor = RecordingMonitor::default();
        drop(store.begin(Compression::None, &monitor).unwrap());
        assert!(!path.exists());
        let aside = home.path().join(names::bad(&name, blake3::hash(&bad).as_bytes()).as_str());
        assert_eq!(std::fs::read(aside).unwrap(), bad);
        let monitor = RecordingMonitor::default();
        drop(store.begin(Compression::None, &monitor).unwrap());
        assert!(!told(&monitor).contains("does not have its name"), "{}", told(&monitor));
        take_point(&store, &sample(1)).unwrap();
        assert!(restore(&store, &store.points().unwrap()[0]).unwrap() == sample(1));
        assert_eq!(findings(&store, Depth::ReadData).findings, []);
        // Put right again under its name, it is taken again.
        std::fs::write(&path, &good).unwrap();
        drop(store.begin(Compression::None, &VoidMonitor).unwrap());
        let id = names::pack_of(&name).unwrap();
        assert!(store.catalog().pack_by_id(&id).unwrap().is_some_and(|row| row.staged));
    }
}

#[test]
fn moving_aside_may_be_cut_off_anywhere() {
    for n in 0.. {
        let home = Home::new();
        let store = home.open();
        take_point(&store, &sample(1)).unwrap();
        let name = names::pack(&data_packs(&store).remove(0).entry.id);
        drop(store);
        let path = home.path().join(name.as_str());
        let bad = std::fs::read(&path).unwrap()[..1000].to_vec();
        std::fs::write(&path, &bad).unwrap();
        let (store, files) = home.open_faulty();
        files.fail_at(n, Fault::Crash);
        drop(store.begin(Compression::None, &VoidMonitor));
        let struck = files.struck();
        drop(store);
        let aside = home.path().join(names::bad(&name, blake3::hash(&bad).as_bytes()).as_str());
        let found = [&path, &aside].into_iter().filter(|path| path.exists());
        assert!(found.clone().count() == 1 && found.clone().all(|path| std::fs::read(path).unwrap() == bad));
        let store = home.open();
        take_point(&store, &sample(1)).unwrap();
        assert!(restore(&store, &store.points().unwrap()[0]).unwrap() == sample(1), "at {n}");
        if !struck {
            break;
        }
    }
}

#[test]
fn a_pack_that_was_damaged_and_is_whole_again_is_trusted_after_a_check() {
    let home = Home::new();
    let store = home.open();
    take_point(&store, &sample(1)).unwrap();
    let path = home.path().join(names::pack(&data_packs(&store).remove(0).entry.id).as_str());
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, flipped(&good)).unwrap();
    assert!(!findings(&store, Depth::ReadData).findings.is_empty());
    assert!(store.catalog().has_bad_packs().unwrap());
    std::fs::write(&path, &good).unwrap();
    assert_eq!(findings(&store, Depth::ReadData).findings, []);
    assert!(store.catalog().bad_packs().unwrap().is_empty());
}

#[test]
fn a_copy_that_a_check_missed_was_not_verified_when_it_is_back() {
    let (home, vault, store, _, name) = vaulted();
    assert_eq!(findings(&store, Depth::ReadData).findings, []);
    let no = data_packs(&store).remove(0).no;
    assert!(store.catalog().verified(no).unwrap().is_some());
    let (path, there) = (home.path().join(name.as_str()), vault.object(&name).unwrap());
    let here = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    vault.replace(&name, there.slice(..1000));
    assert!(!findings(&store, Depth::Structure).findings.is_empty());
    std::fs::write(&path, here).unwrap();
    vault.replace(&name, there);
    assert_eq!(store.catalog().verified(no).unwrap(), None, "nobody has read these");
    assert_eq!(findings(&store, Depth::ReadData).findings, []);
    assert!(store.catalog().verified(no).unwrap().is_some());
}

#[test]
fn what_is_damaged_everywhere_comes_back_from_the_source_and_the_remains_go() {
    let (home, vault, store, one, name) = vaulted();
    let path = home.path().join(name.as_str());
    let bad = flipped(&std::fs::read(&path).unwrap());
    std::fs::write(&path, &bad).unwrap();
    vault.replace(&name, bad.into());
    drop(store);
    let store = home.open_with(&vault);
    assert!(!findings(&store, Depth::ReadData).findings.is_empty());
    let (no, _, _) = store.vaults()[0].clone();
    let nothing = reclaim::plan(&store, Place::Vault(no), &VoidMonitor).unwrap();
    assert_eq!(nothing.with(Verdict::Delete).count(), 0, "what is whole of it may still be read");
    let two = take_point(&store, &sample(1)).unwrap();
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    assert_eq!(prune(&store).packs_unreadable, 0);
    assert_eq!(free_in_vault(&store, no, &VoidMonitor).packs, 1);
    assert!(!path.exists() && vault.object(&name).is_none());
    assert_eq!(findings(&store, Depth::ReadData).findings, []);
    let (_dir, there) = recovered(&home, &vault);
    for point in [one, two] {
        assert!(restore(&store, &point).unwrap() == sample(1));
        assert!(restore(&there, &point).unwrap() == sample(1));
    }
}

/// Two points of which the first is forgotten, with a pack that only the second's small part keeps alive.
fn thinned() -> (Home, Store, StoredPoint, PackRow) {
    let home = Home::new();
    let store = home.open();
    let one = take_point(&store, &sample(1)).unwrap();
    let few: Tree = sample(1).into_iter().filter(|(name, _)| name.ends_with('7')).collect();
    let two = take_point(&store, &few).unwrap();
    let p = &one.point;
    store.staging().remove(&names::point(&p.source_tag, &p.id)).unwrap();
    store.catalog().remove_point(&p.id, None).unwrap();
    let plan = reclaim::plan(&store, Place::Staging, &VoidMonitor).unwrap();
    let thin =
        plan.with(Verdict::Rewrite).find(|j| j.pack.entry.kind == PackKind::Data).unwrap().pack.clone();
    (home, store, two, thin)
}

fn prune(store: &Store) -> reclaim::Reclaimed {
    reclaim::free_staging(store, &VoidMonitor).unwrap().1
}

#[test]
fn damage_in_one_thin_pack_keeps_no_other_from_being_freed() {
    let (home, store, two, thin) = thinned();
    let path = home.path().join(names::pack(&thin.entry.id).as_str());
    let bad = vec![0; std::fs::metadata(&path).unwrap().len() as usize];
    std::fs::write(&path, &bad).unwrap();
    let done = prune(&store);
    assert_eq!(done.packs_unreadable, 1);
    assert!(done.packs > 0, "{done:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bad, "it stays as it is");
    assert!(restore(&store, &two).is_err());
    // The source still has all of it.
    store.catalog().set_bad(thin.no, true).unwrap();
    let few: Tree = sample(1).into_iter().filter(|(name, _)| name.ends_with('7')).collect();
    take_point(&store, &few).unwrap();
    let done = prune(&store);
    assert_eq!(
        (done.packs_unreadable, done.bytes_rewritten),
        (0, 0),
        "what another pack has is not written again"
    );
    assert!(!path.exists());
    assert!(!store.catalog().has_bad_packs().unwrap());
    for point in store.points().unwrap() {
        assert!(restore(&store, &point).unwrap() == few);
    }
}

#[test]
fn what_another_pack_is_said_to_have_is_written_anew_unless_it_can_be_read_there() {
    let (home, store, two, thin) = thinned();
    // The same chunks twice in staging: as after a loss that was none.
    store.catalog().set_bad(thin.no, true).unwrap();
    let few: Tree = sample(1).into_iter().filter(|(name, _)| name.ends_with('7')).collect();
    let three = take_point(&store, &few).unwrap();
    store.catalog().set_bad(thin.no, false).unwrap();
    let other = data_packs(&store).into_iter().max_by_key(|row| row.no).unwrap();
    let path = home.path().join(names::pack(&other.entry.id).as_str());
    let bad = flipped(&std::fs::read(&path).unwrap());
    std::fs::write(&path, bad).unwrap();
    let done = prune(&store);
    assert!(done.bytes_rewritten > 0, "{done:?}");
    drop(store);
    let store = home.open();
    for point in [two, three] {
        assert!(restore(&store, &point).unwrap() == few);
    }
}

/// Has something happen when the check begins to read packs.
struct Meanwhile<F>(F);

impl<F: Fn() + Send + Sync> Monitor for Meanwhile<F> {
    fn event(&self, event: Event) {
        if matches!(event, Event::Stage { name: "read packs", .. }) {
            (self.0)();
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn what_is_forgotten_and_freed_while_a_check_runs_is_no_damage() {
    let (home, vault, store, one, _) = vaulted();
    let checked = home.open_with(&vault);
    let monitor = Meanwhile(|| {
        let (no, _, way) = store.vaults()[0].clone();
        forget_and_free(&store, &one);
        assert!(way.delete(&names::point(&one.point.source_tag, &one.point.id)).unwrap());
        store.catalog().remove_point(&one.point.id, Some(no)).unwrap();
        assert!(free_in_vault(&store, no, &VoidMonitor).packs > 0);
    });
    let report = check::check(&checked, Depth::ReadData, &monitor).unwrap();
    assert!(report.findings.iter().all(|f| f.object.starts_with("keys/")), "{report:?}");
}

#[test]
fn after_the_catalog_was_made_anew_a_point_whose_pack_a_vault_has_damaged_is_not_whole_there() {
    let (home, vault, store, _, name) = vaulted();
    drop(store);
    let good = vault.object(&name).unwrap();
    vault.replace(&name, good.slice(..good.len() - 9));
    super::hostile::delete_catalog(&home.path());
    for _ in 0..2 {
        let store = home.open_with(&vault);
        let point = store.points().unwrap().remove(0);
        assert_eq!((point.local, &point.vaults), (true, &Vec::new()));
        findings(&store, Depth::Structure);
    }
    let store = home.open_with(&vault);
    let point = store.points().unwrap().remove(0);
    assert_eq!(push(&store, &point, &RecordingMonitor::default()).unwrap().packs, 1);
    assert_eq!(vault.object(&name), Some(good));
    let (_dir, there) = recovered(&home, &vault);
    assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
    assert_eq!(home.open_with(&vault).points().unwrap()[0].vaults.len(), 1);
}

#[test]
fn what_a_vault_lost_of_a_point_that_only_it_has_is_sent_again_while_anybody_still_has_it() {
    for what in ["pack", "point"] {
        let (home, vault, store, one, name) = vaulted();
        let no = store.vaults()[0].0;
        store.remove_staged_point(&store.catalog().point(&one.point.id).unwrap().unwrap()).unwrap();
        let point = names::point(&one.point.source_tag, &one.point.id);
        let lost = if what == "pack" { &name } else { &point };
        store.vaults()[0].2.delete(lost).unwrap();
        let is_lacking =
            || store.is_lacking(no, &store.catalog().point(&one.point.id).unwrap().unwrap()).unwrap();
        assert!(!is_lacking());
        if what == "pack" {
            findings(&store, Depth::Structure);
        } else {
            copy::refresh_vault(&store, no, &store.vaults()[0].2, &VoidMonitor).unwrap();
        }
        assert!(is_lacking(), "{what}");
        push(&store, &one, &RecordingMonitor::default()).unwrap();
        assert!(!is_lacking(), "{what}");
        let (_dir, there) = recovered(&home, &vault);
        assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
    }
}
