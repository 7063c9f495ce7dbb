//! What the tests that hurt stores share: a store of small packs that is made in no time, trees of files that are kept to
//! compare with, and places that run full.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use holdfast_store::format::config::{ChunkerParams, StoreConfig};
use holdfast_store::id::VaultId;
use holdfast_store::seal::Sealer;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::words_of;
use holdfast_store::seal::slots::{KdfParams, KeySlot, Secret};
use holdfast_store::store::Store;
use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::testing::Azurite;

use crate::testkit::{Machine, Ran};

/// Content of files by path below the root.
pub type Tree = BTreeMap<String, Arc<Vec<u8>>>;

/// A store in `dir` that this machine's key opens, with packs of 1 MiB, so that a backup of a few MiB has many moments in which
/// it can die.
pub struct SmallStore {
    /// Its directory.
    pub dir: PathBuf,
    /// Its keys.
    pub ring: KeyRing,
    /// The recovery sheet's words.
    pub words: String,
}

impl SmallStore {
    /// Makes one. No key is derived from a passphrase, which would take a second.
    pub fn make(machine: &Machine, dir: PathBuf) -> Self {
        let (vault, ring) = (VaultId::random(), KeyRing::generate(0));
        let (recovery, own) = (Secret::new_recovery(), Secret::new_machine());
        let slots: Vec<_> = [&recovery, &own]
            .map(|secret| {
                let bytes = KeySlot::create(&vault, &ring, secret, "test", &KdfParams::floor(), 0).unwrap();
                (KeySlot::read(&bytes, &vault).unwrap().id, bytes)
            })
            .into();
        let chunker = ChunkerParams {
            normalization: 2,
            min: 4096,
            average: 16 << 10,
            max: 64 << 10,
            ..ChunkerParams::default()
        };
        let config =
            StoreConfig { chunker, frame_len: 16 << 10, pack_len: 1 << 20, ..StoreConfig::new(vault, 0) };
        let sealer = Sealer::new(vault, &ring, 1).unwrap();
        Store::create(&dir, &sealer, &config, &slots).unwrap();
        let (Secret::Machine(key), Secret::Recovery(words)) = (own, recovery) else { unreachable!() };
        MachineKey { vault, key }.create_in(&key_dir(machine)).unwrap();
        Self { dir, ring, words: words_of(&words).join(" ") }
    }
}

fn key_dir(machine: &Machine) -> PathBuf {
    machine.path("x").parent().unwrap().parent().unwrap().join("keys")
}

/// Runs a verb on a store.
pub fn run(machine: &Machine, store: &Path, args: &[&str]) -> Ran {
    Ran::of(&mut command(machine, store, args))
}

/// A verb on a store, ready to run.
pub fn command(machine: &Machine, store: &Path, args: &[&str]) -> Command {
    let mut command = machine.command(["--store"]);
    command.arg(store).args(args).env("AZURE_STORAGE_KEY", Azurite::KEY);
    command
}

/// Ids of all points that a store shows, oldest first.
pub fn points(machine: &Machine, store: &Path) -> Vec<String> {
    let text = run(machine, store, &["snapshots", "--json"]).expect_code(0).out();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value.as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
}

/// The id in a backup's summary, if it got as far as printing it.
pub fn summary_id(out: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(out.lines().last()?).ok()?;
    Some(value["snapshot_id"].as_str()?.to_owned())
}

/// Restores a point into a directory that did not exist and reads it.
pub fn restored(machine: &Machine, store: &Path, id: &str) -> (i32, Tree) {
    let target = machine.path(&format!("restored-{}", VaultId::random().hex()));
    let ran = run(machine, store, &["restore", id, "--target", target.to_str().unwrap()]);
    let tree = if target.exists() { read_tree(&target) } else { Tree::new() };
    let _ = std::fs::remove_dir_all(&target);
    (ran.code(), tree)
}

/// Asserts that a point restores byte for byte.
#[track_caller]
pub fn assert_restores(machine: &Machine, store: &Path, id: &str, expected: &Tree) {
    let (code, tree) = restored(machine, store, id);
    assert_eq!(code, 0, "restore of {id}");
    assert_same(&tree, expected);
}

/// Asserts that two trees are the same, naming a file that is not.
#[track_caller]
pub fn assert_same(tree: &Tree, expected: &Tree) {
    assert_eq!(tree.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, bytes) in expected {
        assert!(tree[path] == *bytes, "{path} has other content");
    }
}

/// Paths of all files below a directory, in order.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// All files below a directory.
pub fn read_tree(root: &Path) -> Tree {
    let file = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        (name, Arc::new(std::fs::read(path).unwrap()))
    };
    files_below(root).into_iter().map(file).collect()
}

/// A machine whose small store has two points of a tree of so many `bytes` in a vault; the tree, and the vault.
pub fn two_points_in_a_vault(seed: u64, bytes: usize) -> (Machine, SmallStore, PathBuf, PathBuf) {
    let machine = Machine::new();
    let store = SmallStore::make(&machine, machine.path("store"));
    let (source, vault) = (machine.path("source"), machine.path("vault"));
    write_tree(&source, &sample(&mut TestRandom::new(seed), bytes));
    run(&machine, &store.dir, &["vault", "add", vault.to_str().unwrap()]).expect_code(0);
    for round in 0..2 {
        std::fs::write(source.join("new"), format!("{round}")).unwrap();
        run(&machine, &store.dir, &["backup", "--online", source.to_str().unwrap()]).expect_code(0);
    }
    (machine, store, source, vault)
}

/// A few dozen files of `bytes` altogether that no compression shrinks, in three directories.
pub fn sample(random: &mut TestRandom, bytes: usize) -> Tree {
    let mut tree = Tree::new();
    let (mut left, mut n) = (bytes, 0);
    while left > 0 {
        let len = left.min(1 + random.below(bytes as u64 / 12) as usize);
        tree.insert(format!("dir{}/file{n}", n % 3), Arc::new(random.bytes(len)));
        (left, n) = (left - len, n + 1);
    }
    tree.insert("dir0/empty".into(), Arc::default());
    tree
}

/// Changes some files, adds one and removes one.
pub fn mutate(random: &mut TestRandom, tree: &mut Tree, round: u64) {
    let paths: Vec<String> = tree.keys().cloned().collect();
    for _ in 0..3 {
        let path = &paths[random.below(paths.len() as u64) as usize];
        let len = 1 + random.below(400_000) as usize;
        tree.insert(path.clone(), Arc::new(random.bytes(len)));
    }
    tree.remove(&paths[random.below(paths.len() as u64) as usize]);
    tree.insert(format!("dir{}/new{round}", round % 3), Arc::new(random.bytes(300_000)));
}

/// Makes a directory hold exactly a tree; what is the same already is not touched.
pub fn write_tree(root: &Path, tree: &Tree) {
    std::fs::create_dir_all(root).unwrap();
    let there = read_tree(root);
    for path in there.keys().filter(|path| !tree.contains_key(*path)) {
        std::fs::remove_file(root.join(path)).unwrap();
    }
    for (path, bytes) in tree.iter().filter(|(path, bytes)| there.get(*path) != Some(*bytes)) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &***bytes).unwrap();
    }
}

/// Copies a directory with all that is in it.
pub fn copy_dir(from: &Path, to: &Path) {
    write_tree(to, &read_tree(from));
    for dir in ["tmp", "pack", "idx", "rp", "keys"] {
        std::fs::create_dir_all(to.join(dir)).unwrap();
    }
}

/// The emulator's program, or nothing and a line that says so.
pub fn azurite() -> Option<Arc<Azurite>> {
    match std::env::var_os("HOLDFAST_AZURITE") {
        Some(main_js) => Some(Azurite::shared(Path::new(&main_js)).unwrap()),
        None => {
            skip("HOLDFAST_AZURITE is not set");
            None
        }
    }
}

/// Says that nothing was tested; not by `println!`, which is swallowed when a test succeeds.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP: {why}, nothing was tested");
}

/// A file system in memory of a bounded size, unmounted when dropped.
pub struct Bounded {
    /// Where it is.
    pub path: PathBuf,
}

impl Bounded {
    /// Mounts one; nothing, and a line that says so, where that is not allowed.
    pub fn mount(path: PathBuf, kib: u64) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=700"), "none"])
            .arg(&path)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { path }),
            _ => {
                skip("a file system of bounded size needs the right to mount");
                None
            }
        }
    }

    /// Gives it another size.
    pub fn resize(&self, kib: u64) {
        let size = format!("remount,size={kib}k");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.path).status().unwrap().success());
    }

    /// Fills it to the last byte with a file, which it returns.
    pub fn fill(&self) -> PathBuf {
        let path = self.path.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for len in [65536, 4096, 1] {
            while file.write(&vec![1; len]).is_ok() {}
        }
        path
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
