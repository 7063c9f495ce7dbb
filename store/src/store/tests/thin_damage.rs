//! Tests of damage where points go into a vault in new packs: what is damaged here stays here, and what is damaged there is sent
//! again in other packs.

use super::hostile::{data_packs, prepared, push, recovered};
use super::thin::{Work, assert_recovers, forget_here, prune};
use super::*;
use crate::catalog::{Location, Mark};
use crate::check::{self, Depth};
use crate::reclaim::Place;
use crate::tree::reach::reachable;

/// Where the first chunk of a pack lies that a point needs, or does not need.
pub(super) fn chunk_in(store: &Store, pack: &PackRow, point: &StoredPoint, needed: bool) -> Option<Location> {
    let mut live = std::collections::HashSet::new();
    let visit = &mut |_: ChunkType, id: &ChunkId| {
        live.insert(*id);
        Ok(())
    };
    reachable(store.reader().as_ref(), &point.point.root, &mut Default::default(), visit).unwrap();
    let places = store.catalog().places_in(pack.no).unwrap();
    places.into_iter().find(|(id, _)| live.contains(id) == needed).map(|(_, at)| at)
}

/// Flips a bit of the frame where a chunk begins in staging.
fn flip(home: &Home, pack: &PackRow, at: &Location) {
    let (mut raw, mut offset) = (0, 64);
    for frame in &pack.entry.frames {
        raw += frame.raw_len;
        if at.start < raw {
            break;
        }
        offset += frame.units as usize * 64;
    }
    let path = home.path().join(names::pack(&pack.entry.id).as_str());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset + 100] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A point that needs a part of what staging stored before it, and the pack of which it needs least.
fn thin() -> (Home, Arc<MemoryVault>, Store, Work, (StoredPoint, Tree), PackRow) {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let mut work = Work::begins();
    let last = work.taken(&store, 6);
    let is_thin = |row: &PackRow| {
        chunk_in(&store, row, &last.0, true).is_some() && chunk_in(&store, row, &last.0, false).is_some()
    };
    let thin = data_packs(&store).into_iter().find(is_thin).unwrap();
    (home, vault, store, work, last, thin)
}

#[test]
fn damage_in_what_a_point_does_not_need_keeps_it_from_no_vault() {
    let (home, vault, store, _, last, thin) = thin();
    let others = chunk_in(&store, &thin, &last.0, false).unwrap();
    flip(&home, &thin, &others);
    push(&store, &last.0, &RecordingMonitor::default()).unwrap();
    assert_recovers(&home, &vault, &[last]);
}

#[test]
fn damage_in_what_a_point_needs_is_named_and_a_backup_heals_it() {
    let (home, vault, store, work, last, thin) = thin();
    let needed = chunk_in(&store, &thin, &last.0, true).unwrap();
    flip(&home, &thin, &needed);
    let name = names::point(&last.0.point.source_tag, &last.0.point.id);
    let error = push(&store, &last.0, &RecordingMonitor::default()).unwrap_err();
    assert!(error.to_string().contains(&thin.entry.id.to_string()), "{error}");
    assert_eq!(vault.object(&name), None, "no point without what it needs");
    assert!(store.catalog().bad_packs().unwrap().contains(&thin.no));
    take_point(&store, &work.files).unwrap();
    push(&store, &last.0, &RecordingMonitor::default()).unwrap();
    assert_recovers(&home, &vault, &[last]);
}

#[test]
fn of_a_pack_that_is_known_to_be_damaged_here_goes_what_is_whole() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let mut files = sample(1);
    files.insert("a".into(), noise("a", 3000));
    take_point(&store, &files).unwrap();
    files.remove("a");
    let two = take_point(&store, &files).unwrap();
    let pack = data_packs(&store).remove(0);
    let lost = chunk_in(&store, &pack, &two, false).unwrap();
    assert_eq!(lost.len, 3000, "less than 2 % of it");
    flip(&home, &pack, &lost);
    check::check(&store, Depth::ReadData, &VoidMonitor).unwrap();
    assert!(store.catalog().bad_packs().unwrap().contains(&pack.no));
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    assert_recovers(&home, &vault, &[(two, files)]);
}

/// A vault with a point, and the largest pack there that staging never had.
fn pushed_thin() -> (Home, Arc<MemoryVault>, Store, (StoredPoint, Tree), PackRow) {
    let (home, vault, store, _, last, _) = thin();
    push(&store, &last.0, &RecordingMonitor::default()).unwrap();
    let new =
        data_packs(&store).into_iter().filter(|row| !row.staged).max_by_key(|row| row.entry.len).unwrap();
    (home, vault, store, last, new)
}

fn damage_there(store: &Store, vault: &MemoryVault, pack: &PackRow) {
    let name = names::pack(&pack.entry.id);
    let mut bytes = vault.object(&name).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    vault.replace(&name, bytes.into());
    check::check(store, Depth::ReadData, &VoidMonitor).unwrap();
    assert!(store.catalog().has_mark(Mark::BadIn(store.vaults()[0].0, pack.entry.id)).unwrap());
}

#[test]
fn what_a_damaged_pack_held_that_the_vault_alone_had_is_sent_again_from_others_once() {
    let (home, vault, store, last, new) = pushed_thin();
    damage_there(&store, &vault, &new);
    let mended = push(&store, &last.0, &RecordingMonitor::default()).unwrap();
    assert!(mended.packs > 0 && mended.bytes >= new.entry.len * 9 / 10, "{mended:?}");
    assert_eq!(push(&store, &last.0, &RecordingMonitor::default()).unwrap(), copy::Pushed::default());
    // The damaged pack goes, for others were read that have it all.
    assert_eq!(prune(&store, Place::Vault(store.vaults()[0].0)).packs, 1);
    assert_recovers(&home, &vault, &[last]);
}

#[test]
fn a_pack_that_the_vault_alone_had_and_lost_is_made_anew() {
    let (home, vault, store, last, new) = pushed_thin();
    assert!(transfer(&vault).delete(&names::pack(&new.entry.id)).unwrap());
    assert!(push(&store, &last.0, &RecordingMonitor::default()).unwrap().bytes > 0);
    assert_recovers(&home, &vault, &[last]);
}

#[test]
fn a_point_is_read_from_the_packs_that_the_vault_alone_has_when_staging_freed_its_own() {
    let (home, vault, store, last, new) = pushed_thin();
    let points = store.points().unwrap();
    points.iter().for_each(|point| forget_here(&store, point));
    assert!(prune(&store, Place::Staging).packs > 0);
    assert!(store.catalog().packs().unwrap().iter().all(|row| !row.staged));
    assert!(restore(&store, &last.0).unwrap() == last.1);
    // Without it, staging keeps the last copy.
    assert!(store.catalog().pack(new.no).unwrap().is_some());
    assert_recovers(&home, &vault, &[last]);
}

#[test]
fn staging_keeps_what_a_damaged_pack_there_alone_had() {
    let (home, vault, store, last, new) = pushed_thin();
    damage_there(&store, &vault, &new);
    let points = store.points().unwrap();
    points.iter().for_each(|point| forget_here(&store, point));
    prune(&store, Place::Staging);
    assert!(restore(&store, &last.0).unwrap() == last.1);
    assert!(home.path().join("pack").exists() && data_packs(&store).iter().any(|row| row.staged));
}

#[test]
fn a_point_arrives_though_nothing_can_be_read_any_more_of_the_one_before_it() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let [_, two] = [1, 2].map(|version| {
        let point = take_point(&store, &sample(version)).unwrap();
        push(&store, &point, &RecordingMonitor::default()).unwrap();
        point
    });
    forget_here(&store, &two);
    prune(&store, Place::Staging);
    let alone = store.catalog().packs().unwrap().into_iter().filter(|row| !row.staged);
    let pages: Vec<_> = alone.filter(|row| row.entry.kind == PackKind::Tree).collect();
    assert!(!pages.is_empty());
    for row in pages {
        let name = names::pack(&row.entry.id);
        let rotten = vec![0xa5; vault.object(&name).unwrap().len()];
        vault.replace(&name, rotten.into());
    }
    drop(store);
    let store = home.open_with(&vault);
    let three = take_point(&store, &sample(3)).unwrap();
    push(&store, &three, &RecordingMonitor::default()).unwrap();
    let (_dir, there) = recovered(&home, &vault);
    let there_three = there.points().unwrap().into_iter().find(|point| point.hash == three.hash).unwrap();
    assert!(restore(&there, &there_three).unwrap() == sample(3));
}
