//! Tests of what a vault says of key generations to whoever has no key.

use super::hostile::prepared;
use super::*;
use crate::copy::{prepare_vault, sealed_with};
use crate::fence::Revocation;
use crate::format::{Header, ObjectKind};
use crate::id::ObjectId;
use crate::seal::slots::{KdfParams, KeySlot, Secret};

fn slot(store: &Store, ring: &KeyRing) -> (SlotId, Vec<u8>) {
    let made = KeySlot::create(store.id(), ring, &Secret::new_machine(), "", &KdfParams::floor(), 0).unwrap();
    (KeySlot::read(&made, store.id()).unwrap().id, made)
}

#[test]
fn a_slot_that_is_older_than_one_in_the_vault_stays_out_of_it_and_others_come() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let way = &store.vaults()[0].2;
    let is_there = |slot: &(SlotId, Vec<u8>)| vault.object(&names::slot(&slot.0)).is_some();
    let mut ring = home.ring.clone();
    let [first, late] = [&ring, &ring].map(|ring| slot(&store, ring));
    // What is there already is no slot, and says nothing.
    assert_eq!(prepare_vault(&store, std::slice::from_ref(&first), way).unwrap(), None);
    let newest = ring.add_generation(1).unwrap();
    let [second, third] = [&ring, &ring].map(|ring| slot(&store, ring));
    assert_eq!(prepare_vault(&store, &[first.clone(), second.clone()], way).unwrap(), None);
    assert_eq!(prepare_vault(&store, &[third.clone(), late.clone()], way).unwrap(), Some(newest));
    assert_eq!([&first, &second, &third, &late].map(is_there), [true, true, true, false]);
    assert_eq!(
        prepare_vault(&store, &[third], way).unwrap(),
        None,
        "one of the newest generation is no older one"
    );
}

/// Puts an object where a point lies, longer than a revocation by so many bytes.
fn put(vault: &MemoryVault, n: u8, (kind, generation): (ObjectKind, u32), longer: usize) -> ObjectName {
    let name = names::point(&SourceTag([1; 16]), &RecoveryPointId([n; 16]));
    let header = Header { kind, object_id: ObjectId([n; 16]), generation };
    let mut bytes = header.encode(&VAULT).to_vec();
    bytes.resize(Revocation::LEN as usize + longer, 0);
    vault.replace(&name, bytes.into());
    name
}

const VAULT: VaultId = VaultId([3; 16]);

#[test]
fn headers_of_points_tell_the_newest_generation_that_a_vault_was_written_with() {
    let vault = Arc::new(MemoryVault::new());
    let told = || sealed_with(&transfer(&vault), &VAULT).unwrap();
    assert_eq!(told(), 0);
    for (n, generation) in [(1, 2), (2, 7), (3, 5)] {
        put(&vault, n, (ObjectKind::Point, generation), 64);
    }
    assert_eq!(told(), 7);
    assert_eq!(sealed_with(&transfer(&vault), &VaultId([4; 16])).unwrap(), 0, "they are of another store");
    // What is damaged says nothing.
    let spoilt = put(&vault, 4, (ObjectKind::Point, 9), 64);
    let mut bytes = vault.object(&spoilt).unwrap().to_vec();
    bytes[48] ^= 1;
    vault.replace(&spoilt, bytes.into());
    assert_eq!(told(), 7);
    // The shortest point is longer than a revocation; and no number of these, which are newer, hides a point.
    vault.set_now(10);
    put(&vault, 5, (ObjectKind::Point, 8), 1);
    vault.set_now(20);
    (100..120).for_each(|n| drop(put(&vault, n, (ObjectKind::Revocation, 11), 0)));
    assert_eq!(told(), 8);
}

#[test]
fn the_last_points_say_it_and_not_the_first_ones() {
    let vault = Arc::new(MemoryVault::new());
    // In the order of their names the newest comes last.
    for (n, generation) in (1..30).zip(1..) {
        vault.set_now(i64::from(generation));
        put(&vault, n, (ObjectKind::Point, generation), 64);
    }
    assert_eq!(sealed_with(&transfer(&vault), &VAULT).unwrap(), 29);
    vault.set_now(100);
    (200..230).for_each(|n| drop(put(&vault, n, (ObjectKind::Point, 3), 64)));
    assert_eq!(sealed_with(&transfer(&vault), &VAULT).unwrap(), 3);
}
