//! A restore out of a vault that dies in the midst of it.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use holdfast_backup::protect::{Request, protect};
use holdfast_backup::restore::{RestoreError, RestoreOptions, open_target, restore_tree, verify_tree};
use holdfast_backup::source::{DirectorySource, WalkOptions};
use holdfast_store::clock::{Clock, ManualClock, Timestamp};
use holdfast_store::copy;
use holdfast_store::format::config::StoreConfig;
use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::point::{Consistency, SourceName};
use holdfast_store::seal::Compression;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::store::StoreOptions;
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::vault::Verb;
use holdfast_store::vault::memory::MemoryVault;
use holdfast_store::vault::testing::{Fault, FaultyVault};

use super::*;

const FILES: u64 = 100;

/// A machine that has nothing but the way to a vault, in which a point of a hundred files lies.
struct Recovered {
    dir: tempfile::TempDir,
    vault: Arc<FaultyVault>,
    clock: Arc<ManualClock>,
    ring: KeyRing,
}

impl Recovered {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(2_000_000_000)));
        let vault = Arc::new(FaultyVault::new(Arc::new(MemoryVault::new()), clock.clone()));
        let all = Self { dir: tempfile::tempdir().unwrap(), vault, clock, ring: KeyRing::generate(0) };
        all.back_up();
        Store::adopt(&all.path("store"), &copy::vault_head(&all.transfer()).unwrap()).unwrap();
        all
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn transfer(&self) -> Arc<Transfer> {
        Transfer::new(self.vault.clone(), self.clock.clone(), TransferPolicy::default()).unwrap()
    }

    fn open(&self, dir: &Path) -> Store {
        let vaults = vec![("memory:v".to_owned(), self.transfer())];
        let options = StoreOptions { vaults, ..StoreOptions::local(self.clock.clone()) };
        Store::open(dir, &self.ring, options, &VoidMonitor).unwrap()
    }

    fn back_up(&self) {
        for n in 0..FILES {
            let file = self.path(&format!("src/d{}/file{n}", n / 10));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            let mut content = vec![0; 100_000];
            blake3::Hasher::new_derive_key(&n.to_string()).finalize_xof().fill(&mut content);
            std::fs::write(file, content).unwrap();
        }
        let (dir, id) = (self.path("lost"), VaultId::random());
        let config = StoreConfig { frame_len: 16 << 10, pack_len: 1 << 20, ..StoreConfig::new(id, 0) };
        let slots = [(SlotId::random(), vec![1])];
        Store::create(&dir, &Sealer::new(id, &self.ring, 1).unwrap(), &config, &slots).unwrap();
        let store = self.open(&dir);
        let source = DirectorySource::new(self.path("src"), WalkOptions::default());
        let request = Request {
            source: SourceName { host: "h".into(), group: "g".into(), source: "s".into() },
            path: b"/s".to_vec(),
            tags: Vec::new(),
            read_all: false,
            consistency: Consistency::Fuzzy,
            expires: None,
            readers: 1,
            tool: "test".into(),
        };
        let session = store.begin(Compression::None, &VoidMonitor).unwrap();
        let point = protect(session, &source, &request, &VoidMonitor).unwrap().stored;
        let transfer = self.transfer();
        copy::prepare_vault(&store, &slots, &transfer).unwrap();
        let no = store.vaults()[0].0;
        copy::push_point(&store, no, &transfer, &point.point.id, &VoidMonitor).unwrap();
    }

    /// Restores all, and how long that took.
    fn restore(&self, store: &Store) -> (Result<(), RestoreError>, Duration) {
        let point = store.points().unwrap().remove(0);
        let (tree, root) = StoredTree::at(store, &point.point.root, b"").unwrap();
        let target = open_target(&self.path("back"), true, &HashSet::new()).unwrap().unwrap();
        let options = RestoreOptions { root_attributes: true, workers: 4, ..RestoreOptions::default() };
        let begin = self.clock.monotonic();
        let restored = restore_tree(&tree, &root, &target, &options, &VoidMonitor);
        let took = self.clock.monotonic() - begin;
        if restored.is_ok() {
            let verified = verify_tree(&tree, &root, &target, &options, &VoidMonitor).unwrap();
            assert_eq!((verified.files, verified.differences), (FILES, 0));
        }
        (restored.map(drop), took)
    }
}

#[test]
fn a_restore_from_a_vault_that_dies_ends_soon_and_the_next_one_brings_the_rest() {
    let recovered = Recovered::new();
    let store = recovered.open(&recovered.path("store"));
    let (no, _, transfer) = &store.vaults()[0];
    copy::load_catalog(&store, *no, transfer, &VoidMonitor).unwrap();
    let asked = recovered.vault.count(Verb::Get);
    recovered.vault.fail_from(Verb::Get, asked + 6, Fault::FailBefore);
    let (result, took) = recovered.restore(&store);
    let Err(RestoreError::Away(waiting)) = result else { panic!("{result:?}") };
    let there = waiting.done.files;
    assert!(0 < there && there + waiting.entries == FILES, "{waiting:?}");
    assert!(waiting.source.is_vault_away(), "{}", waiting.source);
    // All who ask when it dies wait together. One after the other, a hundred would wait for eight hours.
    assert!(took < Duration::from_secs(10 * 60), "{took:?}");

    // The same once more, in another process.
    drop(store);
    recovered.vault.heal();
    let store = recovered.open(&recovered.path("store"));
    assert!(recovered.restore(&store).0.is_ok());
    let again = restored_files(&recovered.path("back"));
    assert_eq!(again, restored_files(&recovered.path("src")));
}

/// Files below a directory, with what is in them.
fn restored_files(dir: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let directories = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files =
        directories.flat_map(|dir| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()));
    files
        .map(|file| (file.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(file).unwrap()))
        .collect()
}
