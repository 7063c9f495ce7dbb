//! Small objects that stand alone under their names: what a vault made of them is read back when they are put, and what is damaged
//! there is put right by who has it whole.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::fenced::{advance, at_once, count, files, forget, push_all};
use super::hostile::{prepared, push, recovered, reopened};
use super::losses::{faulty, open_on};
use super::*;
use crate::check::{self, Depth};
use crate::point::hold::Hold;
use crate::point::object::seal_hold;
use crate::vault::testing::Fault as VaultFault;
use crate::vault::{Vault, Verb};

const SPOILT: [VaultFault; 4] = [VaultFault::Short, VaultFault::Long, VaultFault::Flip, VaultFault::Lie];

/// What a check says, but for the slots, which are made up.
fn findings(store: &Store) -> Vec<String> {
    let report = check::check(store, Depth::ReadData, &VoidMonitor).unwrap();
    let of_objects = report.findings.into_iter().filter(|found| !found.object.starts_with("keys/"));
    of_objects.map(|found| format!("{}: {}", found.object, found.detail)).collect()
}

/// A flipped bit that leaves what can be read without a key.
fn rot(vault: &MemoryVault, name: &ObjectName) -> Bytes {
    let whole = vault.object(name).unwrap();
    let mut bytes = whole.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    vault.replace(name, bytes.into());
    whole
}

#[test]
fn config_and_slots_that_a_vault_makes_others_of_are_put_once_more() {
    for fault in SPOILT {
        // The probe, the slot, the config.
        for nth in [3, 4] {
            let home = Home::new();
            let vault = Arc::new(MemoryVault::new());
            let failing = faulty(&vault);
            failing.fail(Verb::Put, nth, fault);
            let store = open_on(&home, &home.path(), failing as Arc<dyn Vault>);
            let head = Store::head(&home.path()).unwrap();
            copy::prepare_vault(&store, &head.slots, &store.vaults()[0].2).unwrap();
            let there = copy::vault_head(&transfer(&vault)).unwrap();
            assert_eq!((there.config, there.slots), (head.config, head.slots), "{fault:?} {nth}");
            assert!(count(&vault, names::BAD) == 1, "{fault:?} {nth}");
        }
    }
}

#[test]
fn a_vault_that_never_keeps_what_it_is_given_is_refused() {
    let home = Home::new();
    let vault = Arc::new(MemoryVault::new());
    let failing = faulty(&vault);
    failing.fail_from(Verb::Put, 3, VaultFault::Flip);
    let store = open_on(&home, &home.path(), failing as Arc<dyn Vault>);
    let slots = Store::head(&home.path()).unwrap().slots;
    let e = copy::prepare_vault(&store, &slots, &store.vaults()[0].2).unwrap_err();
    assert_eq!(e.class(), crate::ErrorClass::AlreadyThere, "{e}");
}

#[test]
fn a_config_that_does_not_open_is_damage_and_the_next_push_puts_it_right() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("one")).unwrap();
    push_all(&store, &one);
    let whole = rot(&vault, &names::config());
    let (no, _, way) = store.vaults()[0].clone();
    let e = copy::prove_ours(&store, &way, Deadline::NEVER).unwrap_err();
    assert!(e.to_string().starts_with("the config in vault memory is damaged"), "{e}");
    let report = check::check(&store, Depth::Structure, &VoidMonitor).unwrap();
    let told = |f: &&check::Finding| f.object == "memory:v" && !f.unseen && f.detail.contains("config");
    assert_eq!(report.findings.iter().filter(told).count(), 1, "{report:?}");
    let two = take_point(&store, &files("two")).unwrap();
    // Who does not look first is refused: nobody could open the vault.
    copy::push_point(&store, no, &way, &two.point.id, &VoidMonitor).unwrap_err();
    let monitor = RecordingMonitor::default();
    push(&store, &two, &monitor).unwrap();
    assert_eq!(vault.object(&names::config()).unwrap(), whole);
    assert!(format!("{:?}", monitor.events()).contains("it is damaged; moved to bad/config"));
    assert_eq!(findings(&store), [""; 0]);
    // So does who adds the vault again.
    rot(&vault, &names::config());
    copy::prepare_vault(&store, &[], &way).unwrap();
    assert_eq!(vault.object(&names::config()).unwrap(), whole);
}

#[test]
fn a_config_of_which_nobody_knows_whose_it_is_stays_where_it_is() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let other = Bytes::from_static(b"of somebody else");
    vault.replace(&names::config(), other.clone());
    let (no, _, way) = store.vaults()[0].clone();
    copy::refresh_vault(&store, no, &way, &VoidMonitor).unwrap_err();
    copy::prepare_vault(&store, &[], &way).unwrap_err();
    assert_eq!(vault.object(&names::config()).unwrap(), other);
}

#[test]
fn a_hold_that_is_damaged_in_a_vault_is_brought_again_by_who_has_it() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("one")).unwrap();
    push_all(&store, &one);
    let (no, name) = (store.vaults()[0].0, names::hold(&one.point.source_tag, &one.point.id));
    store.place_hold(&one.point.id, "the audit").unwrap();
    for fault in SPOILT {
        let failing = faulty(&vault);
        failing.fail(Verb::Put, 1, fault);
        let there = open_on(&home, &home.path(), failing as Arc<dyn Vault>);
        assert_eq!(there.bring_holds(no).unwrap(), 1, "{fault:?}");
        assert_eq!(findings(&store), [""; 0], "{fault:?}");
        transfer(&vault).delete(&name).unwrap();
        store.catalog().remove_hold(&one.point.id, Some(no)).unwrap();
    }
    assert_eq!(store.bring_holds(no).unwrap(), 1);
    let whole = rot(&vault, &name);
    assert!(findings(&store)[0].starts_with(name.as_str()));
    assert_eq!((store.bring_holds(no).unwrap(), store.bring_holds(no).unwrap()), (1, 0));
    assert_eq!(vault.object(&name).unwrap(), whole);
}

#[test]
fn a_hold_that_is_placed_anew_between_a_put_and_the_look_at_it_stays() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("one")).unwrap();
    push_all(&store, &one);
    let (no, id) = (store.vaults()[0].0, one.point.id);
    store.place_hold(&id, "the audit").unwrap();
    let name = names::hold(&one.point.source_tag, &id);
    let newer = Hold { point: id, placed: 7, reason: "the next audit".into() };
    let newer = Bytes::from(seal_hold(&newer, store.sealer()).unwrap());
    let (failing, met) = (faulty(&vault), Arc::new(AtomicBool::new(false)));
    let (there, at, put, done) = (vault.clone(), name.clone(), newer.clone(), met.clone());
    failing.watch(move || {
        if there.object(&at).is_some() && !done.swap(true, Ordering::Relaxed) {
            there.replace(&at, put.clone());
        }
    });
    let bringing = open_on(&home, &home.path(), failing as Arc<dyn Vault>);
    assert_eq!(bringing.bring_holds(no).unwrap(), 1);
    assert!(met.load(Ordering::Relaxed));
    assert_eq!(vault.object(&name).unwrap(), newer);
    assert_eq!((count(&vault, names::BAD), findings(&store)), (0, Vec::new()));
}

#[test]
fn words_and_generations_that_a_vault_makes_others_of_are_put_once_more() {
    for fault in SPOILT {
        for nth in 1.. {
            let home = Home::new();
            let (vault, store) = prepared(&home);
            let one = take_point(&store, &files("one")).unwrap();
            push_all(&store, &one);
            drop(store);
            let failing = faulty(&vault);
            failing.fail(Verb::Put, nth, fault);
            let store = open_on(&home, &home.path(), failing.clone());
            forget(&store, &one);
            // Of a sign of life with a byte too many it is told that it is another.
            drop(reclaim::advance(&store, store.vaults()[0].0, &at_once(), &HashSet::new(), &VoidMonitor));
            let what = format!("{fault:?} {nth}: {:?}", failing.requests().last());
            let there = reopened(&home, &vault, &home.path());
            assert_eq!(findings(&there), [""; 0], "{what}");
            assert_eq!(advance(&there, &at_once()).awaited, [], "{what}");
            assert!(recovered(&home, &vault).1.points().unwrap().is_empty(), "{what}");
            if failing.count(Verb::Put) < nth {
                assert!(nth > 3);
                break;
            }
        }
    }
}

#[test]
fn half_a_point_that_is_as_long_as_a_word_is_put_once_more() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("one")).unwrap();
    push_all(&store, &one);
    let name = names::point(&one.point.source_tag, &one.point.id);
    let whole = vault.object(&name).unwrap();
    vault.replace(&name, whole.slice(..crate::fence::Revocation::LEN as usize));
    push_all(&store, &one);
    assert_eq!(vault.object(&name).unwrap(), whole);
}

#[test]
fn a_generation_that_does_not_even_begin_as_one_is_damage_that_a_check_tells() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("one")).unwrap();
    push_all(&store, &one);
    forget(&store, &one);
    advance(&store, &at_once());
    let (_dir, there) = recovered(&home, &vault);
    for name in vault.names().into_iter().filter(|name| name.as_str().starts_with(names::GENERATIONS)) {
        let whole = vault.object(&name).unwrap();
        vault.replace(&name, [b"X", &whole[1..]].concat().into());
        let found = findings(&there);
        assert!(found.iter().any(|line| line.starts_with(name.as_str())), "{found:?}");
        vault.replace(&name, whole);
    }
}
