//! What the matrices are played on: a small store of small files, the machine that has it, and one that has nothing but a vault and the
//! recovery key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_store::chunk_store::TreeSink;
use holdfast_store::clock::{Clock, Deadline, ManualClock, Timestamp};
use holdfast_store::copy;
use holdfast_store::error::StoreError;
use holdfast_store::format::config::{ChunkerParams, StoreConfig};
use holdfast_store::id::{RecoveryPointId, SlotId, VaultId};
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::pack::PackKind;
use holdfast_store::point::RecoveryPoint;
use holdfast_store::point::testing::bare_point;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::slots::{KdfParams, KeySlot, Secret};
use holdfast_store::seal::{ChunkType, Compression, Sealer};
use holdfast_store::staging::Files;
use holdfast_store::store::{Session, Store, StoreOptions, StoredPoint, unlock};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::tree::build::DirectoryBuilder;
use holdfast_store::tree::testing::sample_node;
use holdfast_store::tree::walk::Directory;
use holdfast_store::tree::{Content, Extent, Node, NodeKind};
use holdfast_store::vault::Vault;
use holdfast_store::vault::memory::MemoryVault;
use tempfile::TempDir;

/// Files of a point.
pub type Tree = BTreeMap<String, Vec<u8>>;
/// What a restore gave of each file.
pub type Restored = BTreeMap<String, Result<Vec<u8>, String>>;

/// The address of the vault.
pub const ADDRESS: &str = "memory:v";

/// A store that was just made, to be copied, and what opens it.
pub struct Lab {
    dir: TempDir,
    ring: KeyRing,
    secret: Secret,
}

/// A directory in memory, if there is such a thing.
pub fn scratch() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// As long as there is a ballast none is made, of megabytes that each copy would have.
fn no_ballast(store: &Path) {
    std::fs::write(store.join("ballast"), "").unwrap();
}

/// Files and directories.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Another vault that holds the same.
pub fn copy_vault(vault: &MemoryVault) -> Arc<MemoryVault> {
    let copy = MemoryVault::new();
    vault.names().iter().for_each(|name| copy.replace(name, vault.object(name).unwrap()));
    Arc::new(copy)
}

/// Some files that all versions have, one of each version alone, and an empty one.
pub fn files(version: u32) -> Tree {
    let noise = |seed: String, len: usize| {
        let mut out = vec![0; len];
        blake3::Hasher::new_derive_key(&seed).finalize_xof().fill(&mut out);
        out
    };
    let mut files = Tree::new();
    for n in 0..2 {
        files.insert(format!("shared{n}"), noise(format!("s{n}"), 200 + 100 * n));
    }
    files.insert("own".into(), noise(format!("v{version}"), 300));
    files.insert("empty".into(), Vec::new());
    files
}

/// A transfer with a clock that moves when somebody waits.
pub fn transfer(vault: Arc<dyn Vault>, clock: Arc<dyn Clock>, policy: TransferPolicy) -> Arc<Transfer> {
    Transfer::new(vault, clock, policy).unwrap()
}

/// The way to a vault that does not fail.
pub fn way(vault: &Arc<MemoryVault>) -> Arc<Transfer> {
    transfer(vault.clone(), Arc::new(ManualClock::default()), TransferPolicy::default())
}

impl Lab {
    pub fn new() -> Self {
        let (dir, ring, vault) = (scratch(), KeyRing::generate(0), VaultId::random());
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
        let secret = Secret::new_recovery();
        let slot = |secret: &Secret| {
            let bytes = KeySlot::create(&vault, &ring, secret, "lab", &KdfParams::floor(), 0).unwrap();
            (KeySlot::read(&bytes, &vault).unwrap().id, bytes)
        };
        let slots: Vec<(SlotId, Vec<u8>)> = vec![slot(&secret), slot(&Secret::new_machine())];
        let path = dir.path().join("new");
        Store::create(&path, &sealer, &config, &slots).unwrap();
        let lab = Self { dir, ring, secret };
        drop(lab.open(&path, None).unwrap());
        no_ballast(&path);
        lab
    }

    /// A copy of the store as it was made.
    pub fn copy(&self) -> (TempDir, PathBuf) {
        copied(&self.dir.path().join("new"))
    }

    /// Opens a store, with a vault if there is one.
    pub fn open(&self, path: &Path, vault: Option<Arc<Transfer>>) -> Result<Store, StoreError> {
        Store::open(path, &self.ring, options(vault), &VoidMonitor)
    }

    /// Opens a store whose objects lie in these files.
    pub fn open_on(&self, files: Arc<dyn Files>, path: &Path) -> Result<Store, StoreError> {
        Store::open_on(files, path, &self.ring, options(None), &VoidMonitor)
    }

    /// A store of a machine that had nothing but the recovery key, from the vault alone: what `recover` does.
    pub fn recover(&self, transfer: &Arc<Transfer>) -> Result<(TempDir, Store), StoreError> {
        let head = copy::vault_head(transfer)?;
        let mut opened = head.slots.iter().map(|(_, slot)| KeySlot::open(slot, &head.vault, &self.secret));
        let Some((ring, _)) = opened.find_map(Result::ok) else {
            return Err(StoreError::WrongKey { detail: "no slot opens".into() });
        };
        unlock(&head, &ring)?;
        let dir = scratch();
        let path = dir.path().join("recovered");
        std::fs::create_dir(&path).unwrap();
        no_ballast(&path);
        Store::adopt(&path, &head)?;
        let store = Store::open(&path, &ring, options(Some(transfer.clone())), &VoidMonitor)?;
        let (no, _, transfer) = &store.vaults()[0];
        if !store.catalog().knows_all_in(*no)? {
            copy::load_catalog(&store, *no, transfer, &VoidMonitor)?;
        }
        Ok((dir, store))
    }
}

/// A copy of a directory.
pub fn copied(from: &Path) -> (TempDir, PathBuf) {
    let dir = scratch();
    let path = dir.path().join("store");
    copy_dir(from, &path);
    (dir, path)
}

pub fn options(vault: Option<Arc<Transfer>>) -> StoreOptions {
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1000)));
    StoreOptions {
        vaults: vault.map(|way| (ADDRESS.into(), way)).into_iter().collect(),
        ..StoreOptions::local(clock)
    }
}

/// Takes a point of these files; `online` if it may rely on what vaults hold.
pub fn take(store: &Store, files: &Tree, online: bool) -> Result<StoredPoint, StoreError> {
    let tag = store.sealer().source_tag("host", "group", "source");
    let session = match online {
        true => store.begin_online(&tag, &|_| true, Compression::None, &VoidMonitor)?,
        false => store.begin(Compression::None, &VoidMonitor)?,
    };
    let (id, root) = (session.id(), ingest(&session, files)?);
    let previous = store.newest_point(&tag)?;
    let started = previous.as_ref().map_or(1, |p| p.point.started.seconds + 1);
    session.commit(|_| RecoveryPoint {
        id,
        source_tag: tag,
        sequence: previous.as_ref().map_or(1, |p| p.point.sequence + 1),
        previous: previous.as_ref().map_or([0; 32], |p| p.hash),
        ..bare_point(["host", "group", "source"], started, root)
    })
}

/// Each file is a chunk in a frame of its own.
fn ingest(session: &Session<'_>, files: &Tree) -> Result<Node, StoreError> {
    let mut frames = session.ingest().frames();
    let mut sink = TreeSink::new(session.ingest());
    let mut builder = DirectoryBuilder::new();
    for (name, bytes) in files {
        let id = session.ingest().name(ChunkType::Data, bytes);
        if !bytes.is_empty() && session.ingest().claim(&id)? {
            frames.push(id, bytes);
        }
        session.ingest().deliver(PackKind::Data, frames.take())?;
        let extents =
            if bytes.is_empty() { vec![] } else { vec![Extent::Data { id, len: bytes.len() as u32 }] };
        let node = sample_node(name.as_bytes(), NodeKind::File);
        let node = Node { size: bytes.len() as u64, content: Some(Content::Inline(extents)), ..node };
        builder.push(&node, &mut sink)?;
    }
    let built = builder.finish(&mut sink)?;
    sink.finish()?;
    Ok(Node { subtree: Some(built.subtree()), ..sample_node(b"root", NodeKind::Directory) })
}

/// All files of a point as a mount reads them; an error if its directory cannot be read.
pub fn restore(store: &Store, point: &StoredPoint) -> Result<Restored, StoreError> {
    let tree = point.point.root.subtree.unwrap().tree;
    let mut files = Restored::new();
    for node in Directory::open(store.pages(), &tree, Deadline::NEVER)?.entries_at(0, Deadline::NEVER)? {
        let node = node?;
        let Some(Content::Inline(extents)) = &node.content else { panic!("small files") };
        let mut bytes = Ok(Vec::new());
        for extent in extents {
            let Extent::Data { id, len } = extent else { panic!("no holes") };
            let read = store.reader().chunk_range(id, 0..*len, Deadline::NEVER).map_err(|e| e.to_string());
            bytes = bytes.and_then(|mut all: Vec<u8>| {
                all.extend_from_slice(&read?);
                Ok(all)
            });
        }
        files.insert(String::from_utf8(node.name.clone()).unwrap(), bytes);
    }
    Ok(files)
}

/// What of a point does not come back; an error for bytes that are not those that were put in.
pub fn lost(store: &Store, id: &RecoveryPointId, right: &Tree) -> Result<BTreeSet<String>, String> {
    let all = || right.keys().cloned().collect();
    let Ok(point) = store.point(id) else { return Ok(all()) };
    let Ok(back) = restore(store, &point) else { return Ok(all()) };
    if !back.keys().eq(right.keys()) {
        return Err(format!("{:?} instead of {:?}", back.keys(), right.keys()));
    }
    let mut lost = BTreeSet::new();
    for (name, bytes) in back {
        match bytes {
            Ok(bytes) if bytes == right[&name] => {}
            Ok(_) => return Err(format!("wrong bytes of {name}")),
            Err(_) => drop(lost.insert(name)),
        }
    }
    Ok(lost)
}

/// Ids of the points that a store shows.
pub fn shown(store: &Store) -> Result<Vec<RecoveryPointId>, StoreError> {
    Ok(store.points()?.iter().map(|stored| stored.point.id).collect())
}

/// Brings a point into the vault.
pub fn push(store: &Store, id: &RecoveryPointId) -> Result<copy::Pushed, StoreError> {
    let (no, _, transfer) = &store.vaults()[0];
    copy::refresh_vault(store, *no, transfer, &VoidMonitor)?;
    copy::push_point(store, *no, transfer, id, &VoidMonitor)
}

/// Removes a point from the vault, as `forget` does.
pub fn forget(store: &Store, id: &RecoveryPointId) -> Result<(), StoreError> {
    let _lock = store.lock_vault_removals()?;
    let row = store.catalog().point(id)?.ok_or_else(|| StoreError::NotFound { what: id.to_string() })?;
    store.remove_point_from_vault(store.vaults()[0].0, &row)
}

/// Puts config and slots into the vault, as `vault add` does.
pub fn prepare(store: &Store) -> Result<(), StoreError> {
    let slots = Store::head(store.dir())?.slots;
    copy::prepare_vault(store, &slots, &store.vaults()[0].2).map(drop)
}
