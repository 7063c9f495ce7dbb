//! Index objects that say of packs what does not lie in them, as who has the ring can put them.

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
