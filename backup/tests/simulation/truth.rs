//! What must be true whatever went wrong: every recovery point that was acknowledged restores byte for byte, from the vault alone if it was
//! acknowledged there, unless somebody asked for its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use holdfast_backup::config::TierName;
use holdfast_store::StoreError;
use holdfast_store::clock::{Deadline, ManualClock, Timestamp};
use holdfast_store::copy;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::seal::ChunkType;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::store::{Store, StoreOptions, StoredPoint};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::tree::content::ContentReader;
use holdfast_store::tree::walk::Directory;
use holdfast_store::tree::{ChunkSource, Extent, Node, NodeKind};
use holdfast_store::vault::memory::MemoryVault;

use crate::policy::Known;
use crate::world::{BEGINNING, World};

/// What is said of a point that gives other bytes than it was given.
pub const OTHER: &str = "has other contents";

/// Begins what is said of a point of the vault that was asked to go from there and did not.
pub const ON_ITS_WAY_OUT: &str = "on its way out: ";

/// Files of a tree by their paths.
pub type Tree = BTreeMap<String, Arc<Vec<u8>>>;

/// What is known of the points of all machines.
#[derive(Debug, Default)]
pub struct Truth {
    /// What each point holds, from when it was begun.
    trees: BTreeMap<RecoveryPointId, Arc<Tree>>,
    /// Points that a machine was told are in its staging, and nobody asked to go from there.
    local: BTreeSet<(usize, RecoveryPointId)>,
    /// Points that somebody was told are in the vault, and nobody asked to go from there.
    vaulted: BTreeSet<RecoveryPointId>,
    /// Points that somebody asked to go from the vault.
    asked_to_go: BTreeSet<RecoveryPointId>,
    /// In which order they were taken.
    order: BTreeMap<RecoveryPointId, usize>,
    /// When those that have a time of their own may go.
    expires: BTreeMap<RecoveryPointId, i64>,
    /// Points that are said not to be by whom they say.
    forged: BTreeSet<RecoveryPointId>,
    /// Points of which a machine was told that they are held there.
    held_here: BTreeSet<(usize, RecoveryPointId)>,
    /// Points of which somebody was told that they are held in the vault, before anybody asked them to go.
    held: BTreeSet<RecoveryPointId>,
    /// What machines did that they may not.
    wrong: Vec<String>,
}

impl Truth {
    /// A point is being taken.
    pub fn begins(&mut self, id: RecoveryPointId, tree: Arc<Tree>, expires: Option<i64>, is_forged: bool) {
        self.trees.insert(id, tree);
        self.order.insert(id, self.order.len());
        self.expires.extend(expires.map(|at| (id, at)));
        self.forged.extend(is_forged.then_some(id));
    }

    /// Points that are said not to be by whom they say.
    pub fn forged(&self) -> impl Iterator<Item = RecoveryPointId> {
        self.forged.iter().copied()
    }

    /// What is known of points of one source with their times, in the order in which they were taken.
    pub fn known(
        &self,
        machine: usize,
        mut points: Vec<(RecoveryPointId, i64)>,
        tier: TierName,
    ) -> Vec<Known> {
        points.sort_by_key(|(id, _)| self.order.get(id));
        let known = |(id, started): (RecoveryPointId, i64)| Known {
            id,
            started,
            expires: self.expires.get(&id).copied(),
            held: self.held_here.contains(&(machine, id))
                || tier == TierName::Online && self.held.contains(&id),
            forged: self.forged.contains(&id),
        };
        points.into_iter().map(known).collect()
    }

    /// A machine was told that it holds a point: from there it does not go any more.
    pub fn is_held_here(&mut self, machine: usize, id: RecoveryPointId) {
        self.held_here.insert((machine, id));
    }

    /// Somebody was told that a point is held in the vault.
    pub fn is_held(&mut self, id: RecoveryPointId) {
        if !self.asked_to_go.contains(&id) {
            self.held.insert(id);
        }
    }

    /// Nobody holds it any more.
    pub fn is_released(&mut self, id: RecoveryPointId) {
        self.held.remove(&id);
        self.held_here.retain(|(_, held)| *held != id);
    }

    /// A machine did what it may not.
    pub fn is_wrong(&mut self, why: String) {
        self.wrong.push(why);
    }

    /// What machines did that they may not, once.
    pub fn take_wrong(&mut self) -> Vec<String> {
        std::mem::take(&mut self.wrong)
    }

    /// A machine was told that it has a point.
    pub fn is_local(&mut self, machine: usize, id: RecoveryPointId) {
        self.local.insert((machine, id));
    }

    /// It is to go from there; one that is held does not.
    pub fn goes_locally(&mut self, machine: usize, id: RecoveryPointId) {
        if !self.held_here.contains(&(machine, id)) {
            self.local.remove(&(machine, id));
        }
    }

    /// A machine is lost.
    pub fn is_lost(&mut self, machine: usize) {
        self.local.retain(|(of, _)| *of != machine);
        self.held_here.retain(|(of, _)| *of != machine);
    }

    /// Somebody was told that the vault has a point.
    pub fn is_vaulted(&mut self, id: RecoveryPointId) {
        if !self.asked_to_go.contains(&id) {
            self.vaulted.insert(id);
        }
    }

    /// It is to go from there; one that is held does not.
    pub fn goes(&mut self, id: RecoveryPointId) {
        if !self.held.contains(&id) {
            self.asked_to_go.insert(id);
            self.vaulted.remove(&id);
        }
    }

    /// Whether a machine was told that it has a point.
    pub fn is_owed(&self, machine: usize, id: &RecoveryPointId) -> bool {
        self.local.contains(&(machine, *id))
    }

    /// Whether somebody was told that the vault has a point.
    pub fn is_in_vault(&self, id: &RecoveryPointId) -> bool {
        self.vaulted.contains(id)
    }

    /// Whether somebody asked a point to go from the vault.
    pub fn is_going(&self, id: &RecoveryPointId) -> bool {
        self.asked_to_go.contains(id)
    }

    /// How many points are to be there.
    pub fn counts(&self) -> (usize, usize) {
        (self.local.len(), self.vaulted.len())
    }

    /// What a machine was told that it has, and does not give.
    pub fn wrong_locally(&self, machine: usize, store: &Store) -> Vec<String> {
        let points = self.local.iter().filter(|(of, _)| *of == machine).map(|(_, id)| id);
        points.filter_map(|id| self.wrong(store, id).map(|why| format!("machine {machine}: {why}"))).collect()
    }

    /// What was said to be in the vault, and cannot be had by who has the vault and the key alone. Points that are there and that nobody
    /// knows, too.
    pub fn wrong_in_vault(
        &self,
        vault: &Arc<MemoryVault>,
        ring: &KeyRing,
        world: &World,
        room: &Path,
    ) -> Vec<String> {
        let recovered = tempfile::tempdir_in(room).expect("there is room");
        let store = match recover(vault, ring, world, recovered.path()) {
            Ok(store) => store,
            Err(e) => return vec![format!("the vault cannot be recovered: {e}")],
        };
        let mut wrong: Vec<_> = self.vaulted.iter().filter_map(|id| self.wrong(&store, id)).collect();
        match store.points() {
            Ok(points) => {
                for point in points.iter().filter(|point| !self.vaulted.contains(&point.point.id)) {
                    // It came, and whoever brought it was not told. Half of one never comes.
                    let way = if self.is_going(&point.point.id) { ON_ITS_WAY_OUT } else { "" };
                    wrong.extend(self.wrong(&store, &point.point.id).map(|why| format!("{way}{why}")));
                }
            }
            Err(e) => wrong.push(format!("the points of the vault cannot be listed: {e}")),
        }
        wrong
    }

    fn wrong(&self, store: &Store, id: &RecoveryPointId) -> Option<String> {
        let expected = self.trees.get(id)?;
        let restored = store.point(id).and_then(|point| restore(store, &point));
        match restored {
            Ok(tree) if tree == **expected => None,
            Ok(tree) => Some(format!("point {} {OTHER}: {}", id.short(), difference(expected, &tree))),
            Err(e) => Some(format!("point {}: {e}", id.short())),
        }
    }
}

fn difference(expected: &Tree, found: &Tree) -> String {
    let mut text = String::new();
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    for name in names.into_iter().filter(|name| expected.get(*name) != found.get(*name)).take(3) {
        let _ = write!(text, "{name} ");
    }
    text
}

/// A store made from the vault alone, as whoever lost everything else makes it.
pub fn recover(
    vault: &Arc<MemoryVault>,
    ring: &KeyRing,
    world: &World,
    dir: &Path,
) -> Result<Store, StoreError> {
    let now = BEGINNING + world.now().as_secs().cast_signed();
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(now)));
    let failed = |e| StoreError::invalid(format!("{e}"));
    let transfer = Transfer::new(vault.clone(), clock.clone(), TransferPolicy::default()).map_err(failed)?;
    let dir = dir.join("store");
    spare_ballast(&dir);
    Store::adopt(&dir, &copy::vault_head(&transfer)?)?;
    let options =
        StoreOptions { vaults: vec![("memory".into(), transfer.clone())], ..StoreOptions::local(clock) };
    let store = Store::open(&dir, ring, options, &VoidMonitor)?;
    copy::load_catalog(&store, store.vaults()[0].0, &transfer, &VoidMonitor)?;
    Ok(store)
}

/// All files of a point.
pub fn restore(store: &Store, point: &StoredPoint) -> Result<Tree, StoreError> {
    let mut tree = Tree::new();
    restore_below(store, &point.point.root, "", &mut tree)?;
    Ok(tree)
}

fn restore_below(store: &Store, directory: &Node, path: &str, tree: &mut Tree) -> Result<(), StoreError> {
    let Some(below) = directory.subtree else { return Ok(()) };
    for node in
        Directory::open(store.pages(), &below.tree, Deadline::NEVER)?.entries_at(0, Deadline::NEVER)?
    {
        let node = node?.to_node();
        let path = format!("{path}/{}", String::from_utf8_lossy(&node.name));
        match node.kind {
            NodeKind::Directory => restore_below(store, &node, &path, tree)?,
            _ => drop(tree.insert(path, Arc::new(bytes_of(store, &node)?))),
        }
    }
    Ok(())
}

fn bytes_of(store: &Store, file: &Node) -> Result<Vec<u8>, StoreError> {
    let mut list = ContentReader::new(file.content.clone().unwrap_or_default());
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < list.len() {
        let at = bytes.len() as u64;
        let reader: &dyn ChunkSource = store.reader().as_ref();
        let Some((_, extent)) = list.extent_at(reader, at, Deadline::NEVER)? else { break };
        match extent {
            Extent::Data { id, .. } => {
                bytes.extend_from_slice(&store.reader().chunk(ChunkType::Data, &id, Deadline::NEVER)?);
            }
            Extent::Hole { len } => bytes.resize(bytes.len() + len as usize, 0),
        }
    }
    Ok(bytes)
}

/// A store that is to be made here does not write its ballast, which would take longer than all else.
pub fn spare_ballast(dir: &Path) {
    std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(dir.join("ballast"), [0]))
        .expect("there is room");
}
