//! Tests of index objects that were read before and are damaged or gone since: they are told, other ones are written for their packs, and a machine
//! that has nothing finds what it goes by.

use super::fenced::{advance, at_once};
use super::hostile::{prepared, push, recovered};
use super::losses::only_in_vault;
use super::*;
use crate::check::{self, Depth, Turn};
use crate::scrub::ciphertext::Part;

/// What a check, or a scrub that reads no pack, says of index objects.
fn told(store: &Store, depth: Option<Depth>) -> Vec<String> {
    let places = [None, Some(store.vaults()[0].0)];
    let report = match depth {
        Some(depth) => check::check(store, depth, &VoidMonitor).unwrap(),
        None => {
            let turns = places.map(|place| Turn { place, packs: Vec::new() });
            check::scrub(store, &turns, Part::WHOLE, &VoidMonitor).unwrap()
        }
    };
    let found = report.findings.into_iter().map(|found| found.object);
    found.filter(|object| object.starts_with(names::INDEXES)).collect()
}

fn there(vault: &MemoryVault) -> Vec<ObjectName> {
    vault.names().into_iter().filter(|name| names::index_of(name).is_some()).collect()
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

/// The ways in which an object can be damaged; `None` if it is gone.
fn damages(bytes: &[u8]) -> Vec<Option<Vec<u8>>> {
    let cut = |len: usize| Some(bytes[..len].to_vec());
    let longer = Some([bytes, b"x"].concat());
    let all = [cut(0), cut(1), cut(50), cut(100), cut(bytes.len() / 2), cut(bytes.len() - 1)];
    all.into_iter().chain([longer, Some(flipped(bytes)), None]).collect()
}

#[test]
fn an_index_object_that_was_known_is_told_when_it_is_damaged_and_written_anew() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (no, _, way) = store.vaults()[0].clone();
    assert_eq!(told(&store, Some(Depth::ReadData)), [""; 0]);
    let bytes = vault.object(&there(&vault)[0]).unwrap().to_vec();
    for (round, damage) in damages(&bytes).into_iter().enumerate() {
        let name = there(&vault).remove(0);
        let whole = vault.object(&name).unwrap();
        match &damage {
            // Of the one that is there now: each round has another.
            Some(_) => vault.replace(&name, damages(&whole).swap_remove(round).unwrap().into()),
            None => vault.lose(&name),
        }
        let is_gone = damage.is_none();
        assert_eq!(told(&store, Some(Depth::Structure)).len(), usize::from(is_gone), "{round}");
        // By whoever reads it, each time until there is another one.
        let depth = if round % 2 == 0 { Some(Depth::ReadData) } else { None };
        for _ in 0..2 {
            assert_eq!(told(&store, depth), [name.as_str()], "{round}");
        }
        copy::cover_packs(&store, no, &way).unwrap();
        assert_eq!(there(&vault).len(), if is_gone { 1 } else { 2 }, "{round}");
        for depth in [None, Some(Depth::Structure), Some(Depth::ReadData)] {
            assert_eq!(told(&store, depth), [""; 0], "{round}");
        }
        advance(&store, &at_once());
        assert_eq!(
            there(&vault).iter().filter(|left| **left == name).count(),
            0,
            "{round}: a prune removes it"
        );
        copy::cover_packs(&store, no, &way).unwrap();
        assert_eq!(there(&vault).len(), 1, "{round}: what is covered is not covered once more");
    }
    let (_dir, machine) = recovered(&home, &vault);
    assert_eq!(machine.catalog().packs_without_index(Some(no)).unwrap(), []);
    assert!(restore(&machine, &machine.points().unwrap()[0]).unwrap() == sample(1));
}

#[test]
fn what_another_machine_put_right_is_no_damage_here() {
    let (home, vault, _dir, other) = only_in_vault();
    let mine = home.open_with(&vault);
    let (no, _, way) = mine.vaults()[0].clone();
    let name = there(&vault).remove(0);
    vault.replace(&name, flipped(&vault.object(&name).unwrap()).into());
    assert_eq!(told(&other, Some(Depth::ReadData)), [name.as_str()]);
    let (theirs, _, their_way) = other.vaults()[0].clone();
    copy::cover_packs(&other, theirs, &their_way).unwrap();
    vault.lose(&name);
    assert_eq!(told(&mine, Some(Depth::ReadData)), [""; 0]);
    assert_eq!(mine.catalog().packs_without_index(Some(no)).unwrap(), []);
    copy::cover_packs(&mine, no, &way).unwrap();
    assert_eq!(there(&vault).len(), 1, "the one that the other machine put is enough");
    assert!(!mine.catalog().index_objects(Some(no)).unwrap().contains(&names::index_of(&name).unwrap()));
}

#[test]
fn an_index_object_that_is_right_after_all_covers_its_packs_again() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let no = store.vaults()[0].0;
    let name = there(&vault).remove(0);
    let whole = vault.object(&name).unwrap();
    for damage in [Some(flipped(&whole)), None] {
        match damage {
            Some(bytes) => vault.replace(&name, bytes.into()),
            None => vault.lose(&name),
        }
        assert_eq!(told(&store, Some(Depth::ReadData)), [name.as_str()]);
        assert!(!store.catalog().packs_without_index(Some(no)).unwrap().is_empty());
        vault.replace(&name, whole.clone());
        assert_eq!(told(&store, Some(Depth::Structure)), [""; 0]);
        assert_eq!(store.catalog().packs_without_index(Some(no)).unwrap(), []);
    }
}

#[test]
fn a_damaged_index_object_of_staging_is_told_until_the_next_backup_and_goes_with_a_prune() {
    let home = Home::new();
    let (_vault, store) = prepared(&home);
    take_point(&store, &sample(1)).unwrap();
    let files = || -> Vec<std::path::PathBuf> {
        let listed = std::fs::read_dir(home.path().join("idx")).unwrap();
        listed.map(|file| file.unwrap().path()).collect()
    };
    assert_eq!(told(&store, Some(Depth::ReadData)), [""; 0]);
    let path = files().remove(0);
    let name = format!("idx/{}", path.file_name().unwrap().to_str().unwrap());
    std::fs::write(&path, flipped(&std::fs::read(&path).unwrap())).unwrap();
    for depth in [Some(Depth::ReadData), None] {
        assert_eq!(told(&store, depth), [name.as_str()]);
    }
    take_point(&store, &sample(2)).unwrap();
    assert_eq!(told(&store, Some(Depth::ReadData)), [""; 0]);
    crate::reclaim::free_staging(&store, &VoidMonitor).unwrap();
    assert!(!path.exists() && !files().is_empty());
}
