//! Files beside the store that are not part of the format: settings, the markers of annexes, what is remembered of vaults, what the program
//! accepted and proved.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use holdfast_store::staging::{Files, Holder, MARKER, MemoryFiles, owner, store_of};
use holdfast_store::store::{Settings, recall_bytes};
use tempfile::TempDir;

use super::forge::{Input, VAULT};
use super::program::source::{accepted, deleted, proven};

thread_local! {
    static DIR: RefCell<TempDir> = RefCell::new(temporary());
}

/// A directory in memory, where there is one: nothing here needs to be durable.
pub fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.expect("a temporary directory")
}

/// Settings of a store, and, of the same bytes, the marker of an annex, the accepted configuration, the proofs and what was deleted.
pub fn settings(data: &[u8]) {
    DIR.with_borrow(|dir| {
        let dir = dir.path();
        fs::write(dir.join("settings.json"), data).expect("a short file");
        if let Ok(settings) = Settings::load(dir) {
            assert!(settings.staging.iter().all(|annex| annex.path.is_absolute()));
            let again = serde_json::to_vec(&settings).expect("what was read can be written");
            fs::write(dir.join("settings.json"), again).expect("a short file");
            assert_eq!(Settings::load(dir).expect("settings that were written"), settings);
        }
        fs::write(dir.join("configuration.json"), data).expect("a short file");
        let _ = accepted::read(dir, Path::new("/etc/holdfast.toml"));
        fs::write(dir.join("proven.json"), data).expect("a short file");
        let _ = proven::load(dir);
        fs::write(dir.join("deleted.json"), data).expect("a short file");
        let _ = deleted::Deleted::load(dir);
    });
    let files = MemoryFiles::default();
    files.write_synced(MARKER, data).expect("memory takes it");
    let held = owner(&files, &Holder { store: VAULT, staging: None });
    assert!(held.is_err() || store_of(data).is_some());
}

/// What is remembered of vaults, in its file and in the copy that the catalog keeps. The first byte says whether the sum is made right.
pub fn witness(data: &[u8]) {
    let mut input = Input(data);
    let way = input.u8();
    let sum = |text: &[u8]| [blake3::hash(text).to_hex().as_bytes(), b"\n", text].concat();
    let bytes = if way & 1 == 0 { sum(input.0) } else { input.0.to_vec() };
    DIR.with_borrow(|dir| {
        let path = dir.path().join("witness.json");
        fs::write(&path, &bytes).expect("a short file");
        let remembered = recall_bytes(dir.path(), VAULT, "/vault", Some(&bytes));
        // What comes of it is kept, and read as what it was. Heads that stand under the tag of another source move to their own when they are merged
        // for the first time.
        let _ = fs::remove_file(&path);
        let again = |copy: &[u8]| recall_bytes(dir.path(), VAULT, "/vault", Some(copy));
        let settled = again(&remembered);
        assert_eq!(again(&settled), settled);
    });
}
