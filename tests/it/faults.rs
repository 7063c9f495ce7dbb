//! Disks that run full and vaults that misbehave: a run ends well or says what is wrong, and bytes are right or there are none.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::StoreError;
use holdfast_store::clock::{Deadline, SystemClock};
use holdfast_store::copy;
use holdfast_store::id::{RecoveryPointId, VaultId};
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::store::{Store, StoreOptions, StoredPoint};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::tree::content::ContentReader;
use holdfast_store::tree::testing::TestRandom;
use holdfast_store::tree::walk::{Visit, visit};
use holdfast_store::tree::{Extent, Node};
use holdfast_store::vault::address::{Credentials, open};
use holdfast_store::vault::testing::{Azurite, HttpFault, HttpProxy, Verb};

use crate::testkit::{Machine, Ran};
use crate::trouble::{
    Bounded, SmallStore, Tree, assert_restores, assert_same, azurite, command, mutate, points, read_tree,
    run, sample, summary_id, write_tree,
};

/// A backup that must succeed; its point.
fn backup(machine: &Machine, store: &Path) -> String {
    let source = machine.path("source");
    let ran = run(machine, store, &["backup", "--json", source.to_str().unwrap()]).expect_code(0);
    summary_id(&ran.out()).unwrap()
}

fn assert_says_full(ran: &Ran) {
    let said = ran.err().to_lowercase();
    assert!(said.contains("full") || said.contains("no space"), "{said}");
}

#[test]
fn a_full_disk_fails_the_backup_says_so_and_costs_nothing() {
    let machine = Machine::new();
    let Some(disk) = Bounded::mount(machine.path("disk"), 24 << 10) else { return };
    let store = SmallStore::make(&machine, disk.path.join("store"));
    let (mut random, source) = (TestRandom::new(1), machine.path("source"));
    let first = sample(&mut random, 3 << 20);
    write_tree(&source, &first);
    let one = backup(&machine, &store.dir);
    let mut second = sample(&mut random, 20 << 20);
    second = second.into_iter().map(|(path, bytes)| (format!("more/{path}"), bytes)).collect();
    second.extend(first.clone());
    write_tree(&source, &second);
    let args = ["backup", source.to_str().unwrap()];
    assert_says_full(&run(&machine, &store.dir, &args).expect_code(1));
    assert_eq!(points(&machine, &store.dir), [one.as_str()]);
    assert_restores(&machine, &store.dir, &one, &first);
    // Filled to the last byte by somebody else: reading still works.
    let filler = disk.fill();
    assert_says_full(&run(&machine, &store.dir, &args).expect_code(1));
    assert_eq!(points(&machine, &store.dir), [one.as_str()]);
    assert_restores(&machine, &store.dir, &one, &first);
    std::fs::remove_file(filler).unwrap();
    disk.resize(96 << 10);
    let two = backup(&machine, &store.dir);
    assert_restores(&machine, &store.dir, &two, &second);
    run(&machine, &store.dir, &["check", "--read-data"]).expect_code(0);
}

#[test]
fn on_a_full_disk_points_are_forgotten_and_space_is_freed_with_the_reserve() {
    let machine = Machine::new();
    let Some(disk) = Bounded::mount(machine.path("disk"), 48 << 10) else { return };
    let store = SmallStore::make(&machine, disk.path.join("store"));
    let mut random = TestRandom::new(3);
    let mut take = || {
        write_tree(&machine.path("source"), &sample(&mut random, 3 << 20));
        backup(&machine, &store.dir)
    };
    let taken = [take(), take(), take()];
    let filler = disk.fill();
    run(&machine, &store.dir, &["forget", &taken[0], "--yes"]).expect_code(0);
    assert_eq!(points(&machine, &store.dir).len(), 2);
    std::fs::remove_file(&filler).unwrap();
    take();
    disk.fill();
    let pruned = run(&machine, &store.dir, &["prune"]).expect_code(0).out();
    assert!(!pruned.contains("removed 0 packs"), "{pruned}");
    std::fs::remove_file(&filler).unwrap();
    run(&machine, &store.dir, &["check", "--read-data"]).expect_code(0);
}

#[test]
fn a_full_cache_directory_keeps_nobody_from_reading() {
    let machine = Machine::new();
    let store = SmallStore::make(&machine, machine.path("store"));
    let (mut random, source) = (TestRandom::new(2), machine.path("source"));
    let tree = sample(&mut random, 3 << 20);
    write_tree(&source, &tree);
    let vault = machine.path("vault").display().to_string();
    run(&machine, &store.dir, &["vault", "add", &vault]).expect_code(0);
    let id = backup(&machine, &store.dir);
    run(&machine, &store.dir, &["vault", "push"]).expect_code(0);
    let bare = Machine::new();
    let Some(disk) = Bounded::mount(bare.path("disk"), 512) else { return };
    disk.fill();
    let dir = bare.path("recovered");
    let with_cache = |args: &[&str]| {
        let mut command = command(&bare, &dir, args);
        Ran::of(
            command
                .env("HOLDFAST_CACHE_DIR", disk.path.join("cache"))
                .env("HOLDFAST_RECOVERY_KEY", &store.words),
        )
    };
    with_cache(&["recover", &vault]).expect_code(0);
    let target = bare.path("target");
    with_cache(&["restore", &id, "--target", target.to_str().unwrap()]).expect_code(0);
    assert_same(&crate::trouble::read_tree(&target), &tree);
}

/// Gives up soon, tries often.
fn quick() -> TransferPolicy {
    TransferPolicy {
        request_limit: Duration::from_secs(3),
        bytes_per_second_min: 1 << 20,
        retry_budget: Duration::from_secs(20),
        backoff_first: Duration::from_millis(2),
        backoff_max: Duration::from_millis(20),
        ..TransferPolicy::default()
    }
}

fn transfer(name: &str, port: u16) -> Arc<Transfer> {
    let credentials = Credentials { azure: Some(Azurite::credential()) };
    let vault = open(&Azurite::address(name, port).unwrap(), &credentials).unwrap();
    Transfer::new(vault, Arc::new(SystemClock), quick()).unwrap()
}

fn open_with(store: &SmallStore, dir: &Path, name: &str, port: u16) -> Result<Store, StoreError> {
    let vaults = vec![(format!("azure:{name}"), transfer(name, port))];
    let options = StoreOptions { memory: 1 << 16, vaults, ..StoreOptions::local(Arc::new(SystemClock)) };
    Store::open(dir, &store.ring, options, &VoidMonitor)
}

/// Reads a point as a mount does: by ranges of chunks.
fn read_by_ranges(store: &Store, point: &StoredPoint) -> Result<Tree, StoreError> {
    let mut files: Vec<(String, Node)> = Vec::new();
    let root = point.point.root.subtree.unwrap().tree;
    visit(store.pages(), &root, u64::MAX, Deadline::NEVER, &mut |path, node| {
        if node.subtree.is_none() {
            files.push((String::from_utf8(path.to_vec()).unwrap(), node.to_node()));
        }
        Ok(Visit::Continue)
    })?;
    let mut tree = Tree::new();
    for (path, node) in files {
        let mut list = ContentReader::new(node.content.clone().unwrap_or_default());
        let mut bytes = Vec::new();
        while let Some((_, Extent::Data { id, len })) =
            list.extent_at(store.reader().as_ref(), bytes.len() as u64, Deadline::NEVER)?
        {
            bytes.extend_from_slice(&store.reader().chunk_range(&id, 0..len, Deadline::NEVER)?);
        }
        tree.insert(path, Arc::new(bytes));
    }
    Ok(tree)
}

const FAULTS: [HttpFault; 12] = [
    HttpFault::Refuse(503, "ServerBusy", 1),
    HttpFault::Refuse(500, "InternalError", 0),
    HttpFault::CutRequest,
    HttpFault::LoseAnswer,
    HttpFault::CutAnswer,
    HttpFault::ShortHonest,
    HttpFault::ShortLying,
    HttpFault::OtherRange,
    HttpFault::NoRange,
    HttpFault::FlipRequest,
    HttpFault::FlipAnswer,
    HttpFault::Hang,
];

/// A store with a vault in the emulator, and what its points must restore to.
struct Vaulted {
    azurite: Arc<Azurite>,
    machine: Machine,
    store: SmallStore,
    name: String,
    random: TestRandom,
    tree: Tree,
    expected: Vec<(RecoveryPointId, Tree)>,
}

impl Vaulted {
    fn new(seed: u64) -> Option<Self> {
        let azurite = azurite()?;
        let machine = Machine::new();
        let store = SmallStore::make(&machine, machine.path("store"));
        let name = format!("faults{}", &VaultId::random().hex()[..16]);
        let slots = Store::head(&store.dir).unwrap().slots;
        let opened = open_with(&store, &store.dir, &name, azurite.port()).unwrap();
        copy::prepare_vault(&opened, &slots, &opened.vaults()[0].2.clone()).unwrap();
        let mut random = TestRandom::new(seed);
        let tree = sample(&mut random, 1 << 20);
        Some(Self { azurite, machine, store, name, random, tree, expected: Vec::new() })
    }

    fn take_point(&mut self) -> RecoveryPointId {
        mutate(&mut self.random, &mut self.tree, self.expected.len() as u64);
        write_tree(&self.machine.path("source"), &self.tree);
        let id = RecoveryPointId::from_hex(&backup(&self.machine, &self.store.dir)).unwrap();
        self.expected.push((id, self.tree.clone()));
        id
    }

    fn push_through(&self, port: u16, id: &RecoveryPointId) -> Result<(), StoreError> {
        let store = open_with(&self.store, &self.store.dir, &self.name, port)?;
        let (no, _, transfer) = store.vaults()[0].clone();
        copy::refresh_vault(&store, no, &transfer, &VoidMonitor)?;
        copy::push_point(&store, no, &transfer, id, &VoidMonitor).map(drop)
    }

    /// On a machine that has nothing, through `port`.
    fn recover(&self, port: u16) -> Result<(tempfile::TempDir, Store), StoreError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let there = transfer(&self.name, port);
        Store::adopt(&path, &copy::vault_head(&there)?)?;
        let store = open_with(&self.store, &path, &self.name, port)?;
        Ok((dir, store))
    }
}

#[test]
fn a_push_that_meets_any_fault_ends_in_a_point_that_restores_or_in_a_failure() {
    let Some(mut vaulted) = Vaulted::new(3) else { return };
    let mut pushed = Vec::new();
    for verb in [Verb::Put, Verb::Stat, Verb::List, Verb::Get] {
        for fault in FAULTS {
            let id = vaulted.take_point();
            let proxy = HttpProxy::start(vaulted.azurite.port()).unwrap();
            proxy.spoil(verb, 1, fault);
            match vaulted.push_through(proxy.port(), &id) {
                Ok(()) => pushed.push(id),
                Err(e) => assert!(e.to_string().contains("vault"), "{verb:?} {fault:?}: {e}"),
            }
        }
    }
    assert!(pushed.len() >= 44, "one fault is seldom a reason to fail: {}", pushed.len());
    let (_dir, there) = vaulted.recover(vaulted.azurite.port()).unwrap();
    let shown = there.points().unwrap();
    for id in &pushed {
        assert!(shown.iter().any(|point| point.point.id == *id), "{id} was called vaulted");
    }
    for point in &shown {
        let (_, tree) = vaulted.expected.iter().find(|(id, _)| *id == point.point.id).unwrap();
        assert_same(&read_by_ranges(&there, point).unwrap(), tree);
    }
}

#[test]
fn a_read_that_meets_any_fault_gives_right_bytes_or_an_error() {
    let Some(mut vaulted) = Vaulted::new(4) else { return };
    let id = vaulted.take_point();
    vaulted.push_through(vaulted.azurite.port(), &id).unwrap();
    let mut right = 0;
    for fault in FAULTS {
        for verb in [Verb::Get, Verb::Stat, Verb::List] {
            let proxy = HttpProxy::start(vaulted.azurite.port()).unwrap();
            proxy.spoil(verb, 2, fault);
            let read = vaulted.recover(proxy.port()).and_then(|(_dir, store)| {
                proxy.spoil(verb, 1, fault);
                let point = store.point(&id)?;
                read_by_ranges(&store, &point)
            });
            if let Ok(tree) = read {
                assert_same(&tree, &vaulted.tree);
                right += 1;
            }
        }
    }
    assert!(right >= 30, "a few faults are seldom a reason to fail: {right}");
}

#[test]
fn a_vault_that_always_flips_a_bit_gives_exit_code_3_and_no_wrong_byte() {
    let Some(mut vaulted) = Vaulted::new(5) else { return };
    let id = vaulted.take_point();
    vaulted.push_through(vaulted.azurite.port(), &id).unwrap();
    let proxy = HttpProxy::start(vaulted.azurite.port()).unwrap();
    let url = format!("azure+http://127.0.0.1:{}/{}/{}", proxy.port(), Azurite::ACCOUNT, vaulted.name);
    let bare = Machine::new();
    let dir = bare.path("recovered");
    let mut recover = command(&bare, &dir, &["recover", &url, "--machine-key"]);
    Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", &vaulted.store.words)).expect_code(0);
    // The directories are read once without trouble, so that a restore knows what it should find.
    run(&bare, &dir, &["ls", &id.hex(), "-R"]);
    proxy.spoil(Verb::Get, 100_000, HttpFault::FlipAnswer);
    let target = bare.path("restored");
    let ran = run(&bare, &dir, &["restore", &id.hex(), "--target", target.to_str().unwrap()]);
    assert!(ran.code() == 3 || ran.code() == 1, "{}", ran.code());
    for (path, bytes) in if target.exists() { read_tree(&target) } else { Tree::new() } {
        let whole = &vaulted.tree[&path];
        // The rest of a file is kept of which something could not be read: it is named, and has holes there.
        let is_rest = ran.err().contains(&path)
            && bytes.len() <= whole.len()
            && bytes.iter().zip(whole.iter()).all(|(got, byte)| got == byte || *got == 0);
        assert!(*whole == bytes || is_rest, "{path} has wrong bytes: {}", ran.err());
    }
}
