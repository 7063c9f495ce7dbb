//! Each request of a push, and of a recovery with a read, in the emulator's protocol × what can become of a request on its way: what was
//! acknowledged restores from the vault alone, what is read is right or an error, and the next run succeeds.
//!
//! A part of them, chosen by `HOLDFAST_SEED`, or all with `HOLDFAST_MATRIX=all`. `store/tests/matrix/requests.rs` has the same of every
//! request of a whole life, without HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::StoreError;
use holdfast_store::clock::{Deadline, SystemClock};
use holdfast_store::copy;
use holdfast_store::error::ErrorClass;
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

use super::backup;
use crate::testkit::{Choice, Machine, Ran};
use crate::trouble::{
    SmallStore, Tree, assert_same, azurite, command, mutate, read_tree, run, sample, write_tree,
};

/// Cells of each matrix that are tried unless all are asked for.
const CELLS: usize = 48;

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

/// What comes of one request.
const FAULTS: [HttpFault; 16] = [
    HttpFault::Refuse(503, "ServerBusy", 1),
    HttpFault::Refuse(500, "InternalError", 0),
    HttpFault::Refuse(403, "AuthorizationFailure", 0),
    HttpFault::Refuse(403, "AuthorizationPermissionMismatch", 0),
    HttpFault::Reset,
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
    HttpFault::HangAfter,
];

/// What comes of a request and of all after it: rights that were taken away stay away, and a service that is behind stays behind.
const FOR_EVER: [HttpFault; 3] = [
    HttpFault::Refuse(403, "AuthorizationFailure", 0),
    HttpFault::Refuse(403, "AuthorizationPermissionMismatch", 0),
    HttpFault::Stale,
];

/// The request of this number comes to this.
#[derive(Clone, Copy, Debug)]
struct Cell {
    number: usize,
    fault: HttpFault,
    ever: bool,
}

impl Cell {
    /// Those of a run of so many requests.
    fn all(requests: usize) -> Vec<Self> {
        let once = FAULTS.map(|fault| (fault, false));
        let kinds = [&once[..], &FOR_EVER.map(|fault| (fault, true))].concat();
        let of = |number| kinds.iter().map(move |&(fault, ever)| Self { number, fault, ever });
        (0..requests).flat_map(of).collect()
    }

    fn spoil(&self, proxy: &HttpProxy) {
        let end = if self.ever { usize::MAX } else { self.number + 1 };
        proxy.spoil_numbered(self.number..end, self.fault);
    }

    /// Whether nobody may try again.
    fn is_refusal(&self) -> bool {
        matches!(self.fault, HttpFault::Refuse(403, ..))
    }
}

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
fn a_push_that_meets_any_fault_in_any_request_ends_in_a_point_that_restores_or_in_a_failure() {
    let Some(mut vaulted) = Vaulted::new(3) else { return };
    let mut choice = Choice::new("requests of a push");
    let id = vaulted.take_point();
    let proxy = HttpProxy::start(vaulted.azurite.port()).unwrap();
    vaulted.push_through(proxy.port(), &id).unwrap();
    let (mut pushed, mut well, mut refused) = (vec![id], 0, 0);
    // The first one makes what the others find.
    let id = vaulted.take_point();
    let before = proxy.requests();
    vaulted.push_through(proxy.port(), &id).unwrap();
    let requests = proxy.requests() - before;
    assert!(requests > 5, "{requests}");
    pushed.push(id);
    let cells = choice.of(Cell::all(requests), CELLS);
    for cell in &cells {
        let proxy = HttpProxy::start(vaulted.azurite.port()).unwrap();
        if cell.fault == HttpFault::Stale {
            // It has seen a vault in which the next one is not.
            vaulted.push_through(proxy.port(), &pushed[0]).unwrap();
            let id = vaulted.take_point();
            vaulted.push_through(vaulted.azurite.port(), &id).unwrap();
            pushed.push(id);
        }
        let id = vaulted.take_point();
        cell.spoil(&proxy);
        match vaulted.push_through(proxy.port(), &id) {
            Ok(()) => well += 1,
            Err(e) => {
                println!("{cell:?}: {e}");
                assert!(e.to_string().contains("vault"), "{cell:?}: {e}");
                assert!(!cell.is_refusal() || e.class() == ErrorClass::Denied, "{cell:?}: {e}");
                refused += usize::from(cell.is_refusal());
                vaulted.push_through(vaulted.azurite.port(), &id).unwrap();
            }
        }
        pushed.push(id);
    }
    println!("requests of a push: {} cells, {well} went well, {refused} were refused", cells.len());
    assert!(refused > 0 && (well + refused) * 10 >= cells.len() * 9, "one fault is seldom a reason to fail");
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
fn a_read_that_meets_any_fault_in_any_request_gives_right_bytes_or_an_error() {
    let Some(mut vaulted) = Vaulted::new(4) else { return };
    let mut choice = Choice::new("requests of a read");
    let id = vaulted.take_point();
    vaulted.push_through(vaulted.azurite.port(), &id).unwrap();
    let tree = vaulted.tree.clone();
    let read = |vaulted: &Vaulted, proxy: &HttpProxy, id: &RecoveryPointId| {
        let (_dir, store) = vaulted.recover(proxy.port())?;
        read_by_ranges(&store, &store.point(id)?)
    };
    let proxy = HttpProxy::start(vaulted.azurite.port()).unwrap();
    assert_same(&read(&vaulted, &proxy, &id).unwrap(), &tree);
    let cells = choice.of(Cell::all(proxy.requests()), CELLS);
    let (mut right, mut refused) = (0, 0);
    for cell in &cells {
        let proxy = HttpProxy::start(vaulted.azurite.port()).unwrap();
        let (mut id, mut tree) = (id, tree.clone());
        if cell.fault == HttpFault::Stale {
            // It has seen a vault in which what is asked for is not.
            read(&vaulted, &proxy, &id).unwrap();
            id = vaulted.take_point();
            tree = vaulted.tree.clone();
            vaulted.push_through(vaulted.azurite.port(), &id).unwrap();
        }
        cell.spoil(&proxy);
        match read(&vaulted, &proxy, &id) {
            Ok(read) => {
                assert_same(&read, &tree);
                right += 1;
            }
            Err(e) => {
                println!("{cell:?}: {e}");
                // A store opens without its vault, and then knows no point of it.
                let is_refused = matches!(e.class(), ErrorClass::Denied | ErrorClass::NotFound);
                assert!(!cell.is_refusal() || is_refused, "{cell:?}: {e}");
                refused += usize::from(cell.is_refusal() || cell.fault == HttpFault::Stale);
            }
        }
        proxy.forgive();
        assert_same(&read(&vaulted, &proxy, &id).unwrap(), &tree);
    }
    println!("requests of a read: {} cells, {right} were right, {refused} refused or not seen", cells.len());
    assert!(refused > 0 && (right + refused) * 10 >= cells.len() * 9, "one fault is seldom a reason to fail");
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
