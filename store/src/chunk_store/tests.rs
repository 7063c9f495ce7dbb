//! Tests of an ingest: what is claimed once, what is durable when it says so, and how errors end it.
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::id::VaultId;
use crate::seal::keys::KeyRing;
use crate::staging::{Fault, FaultyFiles, Files, MemoryFiles};

fn parts(files: Arc<dyn Files>) -> IngestParts {
    let vault = VaultId([3; 16]);
    let staging = Staging::new(files);
    staging.prepare().unwrap();
    IngestParts {
        sealer: Arc::new(Sealer::new(vault, &KeyRing::fixed([7; 32]), 1).unwrap()),
        catalog: Arc::new(Catalog::in_memory(&vault.0).unwrap()),
        staging,
        pack_len: 64 << 10,
        frame_len: 4096,
        compression: Compression::Zstd(1),
        relied: Relied::default(),
    }
}

fn noise(n: usize, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key(&format!("noise {n}")).finalize_xof().fill(&mut out);
    out
}

/// Delivers chunk `n` if it is new.
fn add(ingest: &Ingest, n: usize) -> Result<bool, StoreError> {
    let plain = noise(n, 1000 + n % 5000);
    let id = ingest.name(ChunkType::Data, &plain);
    if !ingest.claim(&id)? {
        return Ok(false);
    }
    let mut frames = ingest.frames();
    frames.push(id, &plain);
    ingest.deliver(PackKind::Data, frames.take())?;
    Ok(true)
}

#[test]
fn what_was_delivered_is_in_packs_that_the_catalog_and_an_index_object_know() {
    let parts = parts(Arc::new(MemoryFiles::default()));
    let ingest = Ingest::begin(parts.clone());
    for n in 0..200 {
        assert!(add(&ingest, n).unwrap());
        assert!(!add(&ingest, n).unwrap(), "a second time it is not new");
    }
    let done = ingest.finish().unwrap();
    assert!(done.packs.len() > 3, "{done:?}");
    assert_eq!(done.bytes_new, (0..200).map(|n| 1000 + n % 5000).sum::<u64>());
    for id in &done.packs {
        let bytes = parts.staging.read_all(&names::pack(id), 1 << 20).unwrap().unwrap();
        pack::verify(&parts.sealer, *id, &bytes).unwrap();
    }
    for n in 0..200 {
        let id = parts.sealer.chunk_id(ChunkType::Data, &noise(n, 1000 + n % 5000));
        assert!(parts.catalog.locate(&id).unwrap().is_some(), "chunk {n}");
    }
    assert_eq!(parts.catalog.packs_without_index(None).unwrap(), []);
    assert_eq!(parts.staging.list("idx").unwrap().len(), 1);
    let again = Ingest::begin(parts);
    assert!((0..200).all(|n| !add(&again, n).unwrap()), "a later session finds all of it");
    assert_eq!(again.finish().unwrap(), Ingested::default());
}

#[test]
fn of_many_threads_that_bring_the_same_chunk_one_stores_it() {
    let parts = parts(Arc::new(MemoryFiles::default()));
    let ingest = Ingest::begin(parts.clone());
    let stored = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..300 {
                    stored.fetch_add(usize::from(add(&ingest, n).unwrap()), Ordering::SeqCst);
                }
            });
        }
    });
    ingest.finish().unwrap();
    assert_eq!(stored.into_inner(), 300);
    let chunks: usize =
        parts.catalog.packs().unwrap().iter().map(|p| parts.catalog.chunks_of(p.no).unwrap().len()).sum();
    assert_eq!(chunks, 300);
    assert!(ingest_is_empty(&parts));
}

/// Claims are given up once the catalog knows the chunks: they do not grow with the store.
fn ingest_is_empty(parts: &IngestParts) -> bool {
    let ingest = Ingest::begin(parts.clone());
    let none = (0..300).all(|n| !add(&ingest, n).unwrap()) && ingest.lock_claimed().is_empty();
    ingest.finish().unwrap();
    none
}

#[test]
fn the_first_error_ends_the_session_and_is_told_by_finish_with_its_class() {
    let memory = Arc::new(MemoryFiles::default());
    let faulty = Arc::new(FaultyFiles::new(memory));
    let parts = parts(faulty.clone());
    faulty.fail_at(3, Fault::ForEver(ErrorKind::StorageFull));
    let ingest = Ingest::begin(parts);
    let refused = (0..10_000).find_map(|n| add(&ingest, n).err());
    let refused = refused.expect("a session that failed takes nothing more");
    // Not what a request that makes no sense gives: nobody may take it for a fault of what was delivered.
    assert!(matches!(refused, StoreError::Ended { .. }), "{refused}");
    assert!(refused.to_string().contains("no storage space"), "{refused}");
    assert_eq!(ingest.finish().unwrap_err().class(), crate::ErrorClass::Full);
}

#[test]
fn a_dropped_session_keeps_what_was_delivered() {
    let parts = parts(Arc::new(MemoryFiles::default()));
    let ingest = Ingest::begin(parts.clone());
    for n in 0..20 {
        add(&ingest, n).unwrap();
    }
    drop(ingest);
    let next = Ingest::begin(parts);
    assert!((0..20).all(|n| !add(&next, n).unwrap()));
    next.finish().unwrap();
}

#[test]
fn tree_pages_and_lists_go_into_packs_of_their_own() {
    let parts = parts(Arc::new(MemoryFiles::default()));
    let ingest = Ingest::begin(parts.clone());
    add(&ingest, 1).unwrap();
    let mut sink = TreeSink::new(&ingest);
    let page = sink.put(ChunkType::Tree, b"a page").unwrap();
    let list = sink.put(ChunkType::List, b"a page").unwrap();
    assert_ne!(page, list, "the type is part of the name");
    assert_eq!(sink.put(ChunkType::Tree, b"a page").unwrap(), page);
    sink.finish().unwrap();
    ingest.finish().unwrap();
    let kinds: Vec<_> = parts.catalog.packs().unwrap().iter().map(|p| p.entry.kind).collect();
    assert_eq!(kinds.len(), 2);
    assert!(kinds.contains(&PackKind::Data) && kinds.contains(&PackKind::Tree));
}
