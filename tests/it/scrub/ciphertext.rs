//! `scrub --ciphertext`: vaults and stores are proven where there is nothing but their bytes.

use std::path::{Path, PathBuf};

use holdfast_store::tree::testing::TestRandom;
use serde_json::Value;

use super::{name_of, objects};
use crate::testkit::{Machine, Ran};
use crate::trouble::{SmallStore, two_points_in_a_vault};

/// A machine whose store has two points in a vault, and the vault.
pub(super) fn vaulted() -> (Machine, SmallStore, PathBuf) {
    let (machine, store, _, vault) = two_points_in_a_vault(11, 6 << 20);
    (machine, store, vault)
}

/// Proves a place on a machine that has neither key nor store nor configuration.
fn scrub(place: &Path, args: &[&str]) -> Ran {
    let bare = Machine::new();
    let mut command = bare.command(["scrub", "--json", "--ciphertext"]);
    Ran::of(command.arg(place).args(args))
}

fn wrong(summary: &Value) -> Vec<String> {
    let listed = summary["objects_wrong"].as_array().unwrap();
    listed.iter().map(|wrong| wrong["object"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_machine_without_a_key_proves_every_pack_of_a_vault_and_of_a_store() {
    let (_machine, store, vault) = vaulted();
    for place in [&vault, &store.dir] {
        let summary = scrub(place, &[]).expect_code(0).json();
        let (packs, indexes) = (objects(place, "pack"), objects(place, "idx"));
        let all: Vec<_> = packs.iter().chain(&indexes).collect();
        let bytes: u64 = all.iter().map(|path| path.metadata().unwrap().len()).sum();
        assert_eq!(summary["objects_proven"], all.len() as u64, "{summary}");
        assert_eq!((&summary["bytes_proven"], &summary["complete"]), (&bytes.into(), &true.into()));
        assert!(packs.len() > 5 && summary["objects_formed"].as_u64().unwrap() >= 5, "{summary}");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_pack_or_an_index_is_named_by_its_object() {
    let (_machine, _store, vault) = vaulted();
    let mut random = TestRandom::new(12);
    for below in ["pack", "idx"] {
        for object in objects(&vault, below) {
            let good = std::fs::read(&object).unwrap();
            let (mut bytes, at) = (good.clone(), random.below(good.len() as u64) as usize);
            bytes[at] ^= 1;
            std::fs::write(&object, &bytes).unwrap();
            let ran = scrub(&vault, &[]).expect_code(1);
            assert_eq!(wrong(&ran.json()), [name_of(&vault, &object)], "byte {at}");
            std::fs::write(&object, good).unwrap();
        }
    }
    scrub(&vault, &[]).expect_code(0);
}

#[test]
fn parts_and_bounds_lead_through_all_of_it() {
    let (_machine, _store, vault) = vaulted();
    let whole = scrub(&vault, &[]).expect_code(0).json();
    let parts = (1..=5).map(|n| scrub(&vault, &["--part", &format!("{n}/5")]).expect_code(0).json());
    let proven: u64 = parts.map(|summary| summary["bytes_proven"].as_u64().unwrap()).sum();
    assert_eq!(proven, whole["bytes_proven"].as_u64().unwrap());
    let (mut proven, mut after) = (0, None::<String>);
    loop {
        let mut args = vec!["--max-bytes", "3M"];
        args.extend(after.iter().flat_map(|after| ["--after", after]));
        let summary = scrub(&vault, &args).expect_code(0).json();
        proven += summary["bytes_proven"].as_u64().unwrap();
        assert!(summary["bytes_read"].as_u64().unwrap() <= 3 << 20, "{summary}");
        if summary["complete"] == true {
            break;
        }
        after = Some(summary["goes_on_after"].as_str().unwrap().to_owned());
    }
    assert_eq!(proven, whole["bytes_proven"].as_u64().unwrap());
    scrub(&vault, &["--part", "6/5"]).expect_code(2);
}

#[test]
fn a_place_that_is_none_is_told() {
    let machine = Machine::new();
    let ran = scrub(&machine.path("nowhere"), &[]).expect_code(1);
    assert!(ran.err().contains("not found"), "{}", ran.err());
    std::fs::create_dir(machine.path("empty")).unwrap();
    let ran = scrub(&machine.path("empty"), &[]).expect_code(1);
    assert!(ran.err().contains("the config is missing"), "{}", ran.err());
}
