//! Index objects that say of packs what does not lie in them, as who has the ring can put them; and packs under the names of others, as who has
//! the vault can put them.

use super::hostile::{data_packs, prepared, push, recovered};
use super::*;
use crate::id::IndexId;
use crate::index::Index;

/// An index object that has the chunks of each pack the other way round, and comes before all of `others` in a listing, or behind.
fn lie(store: &Store, others: &[IndexId], is_first: bool) -> (IndexId, Bytes) {
    loop {
        let mut index = Index::default();
        for row in store.catalog().packs().unwrap() {
            let mut chunks = store.catalog().chunks_of(row.no).unwrap();
            chunks.reverse();
            index.add(row.entry, &chunks);
        }
        let (id, bytes) = index.seal(store.sealer());
        if others.iter().all(|other| (id < *other) == is_first) {
            return (id, bytes);
        }
    }
}

#[test]
fn an_index_object_that_lies_about_packs_hides_nothing_whichever_is_read_first() {
    for is_first in [true, false] {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let point = take_point(&store, &sample(1)).unwrap();
        push(&store, &point, &RecordingMonitor::default()).unwrap();
        let honest: Vec<IndexId> = vault.names().iter().filter_map(names::index_of).collect();
        let right: Vec<_> = data_packs(&store)
            .iter()
            .map(|row| (row.entry.id, store.catalog().chunks_of(row.no).unwrap()))
            .collect();
        assert!(!honest.is_empty() && right.iter().any(|(_, chunks)| chunks.len() > 1));
        let (id, bytes) = lie(&store, &honest, is_first);
        vault.replace(&names::index(&id), bytes);
        // By who knows nothing, and by who knows better.
        let (_dir, there) = recovered(&home, &vault);
        let (no, _, way) = store.vaults()[0].clone();
        copy::load_catalog(&store, no, &way, &VoidMonitor).unwrap();
        for store in [&there, &store] {
            for (id, chunks) in &right {
                let row = store.catalog().pack_by_id(id).unwrap().unwrap();
                assert!(store.catalog().chunks_of(row.no).unwrap() == *chunks, "lies first: {is_first}");
                assert!(!row.vaults.is_empty());
            }
            assert!(restore(store, &store.points().unwrap()[0]).unwrap() == sample(1));
        }
        assert!(data_packs(&store).iter().all(|row| row.staged), "what is here as well stays here");
    }
}

#[test]
fn who_reads_an_index_object_that_lies_tells_of_it_and_takes_no_pack_for_covered_by_it() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let point = take_point(&store, &sample(1)).unwrap();
    push(&store, &point, &RecordingMonitor::default()).unwrap();
    let honest: Vec<IndexId> = vault.names().iter().filter_map(names::index_of).collect();
    let (id, bytes) = lie(&store, &honest, true);
    vault.replace(&names::index(&id), bytes);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    Store::adopt(&path, &copy::vault_head(&transfer(&vault)).unwrap()).unwrap();
    let monitor = RecordingMonitor::default();
    let options = Home::options(vec![("memory:v".into(), transfer(&vault))]);
    let there = Store::open(&path, &home.ring, options, &monitor).unwrap();
    let told = format!("{:?}", monitor.events());
    assert!(told.contains("an index object says that something else lies in it"), "{told}");
    let bare = there.catalog().packs_without_index(Some(there.vaults()[0].0)).unwrap();
    for row in data_packs(&store) {
        let chunks = store.catalog().chunks_of(row.no).unwrap();
        let no = there.catalog().pack_by_id(&row.entry.id).unwrap().unwrap().no;
        assert!(chunks.len() < 2 || bare.contains(&no), "the next push writes an index object for it");
    }
}

/// An index object that says of a pack what another one holds.
fn mistake(store: &Store, pack: &PackRow, other: &PackRow) -> (IndexId, Bytes) {
    let mut index = Index::default();
    let entry = crate::pack::PackEntry { id: pack.entry.id, ..other.entry.clone() };
    index.add(entry, &store.catalog().chunks_of(other.no).unwrap());
    index.seal(store.sealer())
}

#[test]
fn the_bytes_of_another_pack_are_no_copy_of_this_one_and_the_right_ones_are_sent_again() {
    for has_index in [false, true] {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let point = take_point(&store, &sample(1)).unwrap();
        push(&store, &point, &RecordingMonitor::default()).unwrap();
        let pack = data_packs(&store).remove(0);
        let packs = store.catalog().packs().unwrap();
        let other = packs.iter().find(|row| row.entry.len != pack.entry.len).unwrap();
        let chunks = store.catalog().chunks_of(pack.no).unwrap();
        let (name, right) =
            (names::pack(&pack.entry.id), vault.object(&names::pack(&pack.entry.id)).unwrap());
        vault.replace(&name, vault.object(&names::pack(&other.entry.id)).unwrap());
        if has_index {
            let (id, bytes) = mistake(&store, &pack, other);
            vault.replace(&names::index(&id), bytes);
        }
        let (no, _, way) = store.vaults()[0].clone();
        let known = || store.catalog().pack_by_id(&pack.entry.id).unwrap().unwrap();
        // The second time as the first: what was said once is not forgotten.
        for _ in 0..2 {
            let monitor = RecordingMonitor::default();
            copy::refresh_vault(&store, no, &way, &monitor).unwrap();
            assert!(store.catalog().bad_in(no).unwrap().contains(&pack.entry.id), "an index: {has_index}");
            assert_eq!(known().entry, pack.entry);
            assert!(store.catalog().chunks_of(pack.no).unwrap() == chunks);
        }
        push(&store, &point, &RecordingMonitor::default()).unwrap();
        assert!(vault.object(&name).unwrap() == right, "an index: {has_index}");
        assert!(known().vaults == [no] && store.catalog().bad_in(no).unwrap().is_empty());
        let (_dir, there) = recovered(&home, &vault);
        assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
    }
}

#[test]
fn of_two_packs_with_one_directory_the_one_whose_bytes_have_its_name_is_there() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let point = take_point(&store, &sample(1)).unwrap();
    push(&store, &point, &RecordingMonitor::default()).unwrap();
    let indexes: Vec<_> = vault.names().into_iter().filter(|name| names::index_of(name).is_some()).collect();
    indexes.iter().for_each(|name| vault.lose(name));
    let packs = data_packs(&store);
    // Whichever of them is read first.
    for (pack, other) in [(&packs[0], &packs[1]), (&packs[1], &packs[0])] {
        let (name, id) = (names::pack(&pack.entry.id), pack.entry.id);
        let right = vault.object(&name).unwrap();
        vault.replace(&name, vault.object(&names::pack(&other.entry.id)).unwrap());
        let (_dir, there) = recovered(&home, &vault);
        let (no, _, way) = there.vaults()[0].clone();
        let places = |id| there.catalog().pack_by_id(id).unwrap().map(|row| row.vaults);
        assert_eq!(there.catalog().bad_in(no).unwrap().into_iter().collect::<Vec<_>>(), [id]);
        assert_eq!(places(&other.entry.id), Some(vec![no]));
        assert!(places(&id).is_none_or(|vaults| vaults.is_empty()));
        vault.replace(&name, right);
        copy::load_catalog(&there, no, &way, &VoidMonitor).unwrap();
        assert!(there.catalog().bad_in(no).unwrap().is_empty());
        assert!(restore(&there, &there.points().unwrap()[0]).unwrap() == sample(1));
    }
}
