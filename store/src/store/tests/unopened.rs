//! Tests of packs in a vault that do not open: each is told once with its vault, and goes when that is no loss for certain.

use super::hostile::{data_packs, delete_catalog, prepared, push, recovered};
use super::*;
use crate::check::{self, Depth};
use crate::id::PackId;
use crate::monitor::Event;
use crate::reclaim::{self, Place};
use crate::vault::testing::{Fault as VaultFault, FaultyVault};
use crate::vault::{Vault, Verb};

/// A machine that has a point from a vault alone, where a pack lies that does not open.
struct Hurt {
    home: Home,
    vault: Arc<MemoryVault>,
    dir: tempfile::TempDir,
    hurt: ObjectName,
}

impl Hurt {
    /// Nobody needs the pack, and nobody knows it.
    fn useless() -> Self {
        let hurt = names::pack(&PackId([7; 32]));
        Self::new(|vault, _| {
            vault.replace(&hurt, vec![7; 5000].into());
            hurt
        })
    }

    /// The vault's copy, which is the only one, was cut.
    fn needed() -> Self {
        Self::new(|vault, writer| {
            let name = names::pack(&data_packs(writer).remove(0).entry.id);
            let bytes = vault.object(&name).unwrap();
            vault.replace(&name, bytes.slice(..bytes.len() / 2));
            name
        })
    }

    fn new(hurt: impl FnOnce(&MemoryVault, &Store) -> ObjectName) -> Self {
        let home = Home::new();
        let (vault, writer) = prepared(&home);
        let one = take_point(&writer, &sample(1)).unwrap();
        push(&writer, &one, &RecordingMonitor::default()).unwrap();
        let hurt = hurt(&vault, &writer);
        let (dir, _) = recovered(&home, &vault);
        Self { home, vault, dir, hurt }
    }

    fn open(&self, vault: Arc<dyn Vault>, monitor: &RecordingMonitor) -> Store {
        let transfer =
            Transfer::new(vault, Arc::new(ManualClock::default()), TransferPolicy::default()).unwrap();
        let options = Home::options(vec![("memory:v".into(), transfer)]);
        Store::open(&self.dir.path().join("new"), &self.home.ring, options, monitor).unwrap()
    }

    /// Prunes the vault; what was told of the pack, from the opening of the store on.
    fn prune(&self) -> (reclaim::Reclaimed, Vec<String>) {
        let monitor = RecordingMonitor::default();
        let store = self.open(self.vault.clone(), &monitor);
        let (no, _, way) = store.vaults()[0].clone();
        copy::load_catalog(&store, no, &way, &monitor).unwrap();
        let done = free_in_vault(&store, no, &monitor);
        (done, self.told(&monitor))
    }

    /// Reads and proves what the vault has.
    fn read_all(&self) {
        let store = self.open(self.vault.clone(), &RecordingMonitor::default());
        check::check(&store, Depth::ReadData, &VoidMonitor).unwrap();
    }

    fn told(&self, monitor: &RecordingMonitor) -> Vec<String> {
        let events = monitor.events().into_iter();
        let of_pack = events.filter_map(|event| match event {
            Event::Problem { path, reason } if path == self.hurt.as_str().as_bytes() => Some(reason),
            _ => None,
        });
        of_pack.collect()
    }

    fn is_there(&self) -> bool {
        self.vault.object(&self.hurt).is_some()
    }
}

#[test]
fn one_that_nobody_needs_is_told_once_with_its_vault_and_removed() {
    let hurt = Hurt::useless();
    hurt.read_all();
    let (done, told) = hurt.prune();
    assert_eq!((done.unopened, done.unopened_bytes, done.packs), (1, 5000, 0));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("vault memory: ") && told[0].contains("prune removes it"), "{told:?}");
    assert!(!hurt.is_there());
    assert_eq!(hurt.prune(), (reclaim::Reclaimed::default(), Vec::new()));
}

#[test]
fn one_stays_while_something_that_a_point_needs_is_nowhere_else() {
    let hurt = Hurt::needed();
    let (done, told) = hurt.prune();
    assert_eq!((done.unopened, told.len()), (0, 2), "{told:?}");
    assert!(told[1].contains("stays: something that recovery points need"), "{told:?}");
    assert!(hurt.is_there());
}

#[test]
fn one_stays_while_what_points_need_was_read_in_no_other_pack_and_while_one_of_them_is_damaged() {
    let hurt = Hurt::useless();
    let (done, told) = hurt.prune();
    assert_eq!((done.unopened, told.len()), (0, 2), "{told:?}");
    assert!(told[1].contains("once check --read-data or scrub has read them"), "{told:?}");
    // What it held may be all that is left of what is in this one.
    let store = hurt.open(hurt.vault.clone(), &RecordingMonitor::default());
    let name = names::pack(&data_packs(&store).remove(0).entry.id);
    drop(store);
    let whole = hurt.vault.object(&name).unwrap();
    let mut flipped = whole.to_vec();
    flipped[whole.len() / 3] ^= 1;
    hurt.vault.replace(&name, flipped.into());
    hurt.read_all();
    assert_eq!(hurt.prune().0.unopened, 0);
    assert!(hurt.is_there());
    hurt.vault.replace(&name, whole);
    hurt.read_all();
    assert_eq!(hurt.prune().0.unopened, 1);
    assert!(!hurt.is_there());
}

#[test]
fn one_whose_bytes_have_its_name_stays_whatever_arrived_when_it_was_opened() {
    let bytes = vec![7; 5000];
    let name = names::pack(&PackId(*blake3::hash(&bytes).as_bytes()));
    let hurt = Hurt::new(|vault, _| {
        vault.replace(&name, bytes.into());
        name
    });
    let (done, told) = hurt.prune();
    assert_eq!((done.unopened, told.len()), (0, 1), "{told:?}");
    assert!(hurt.is_there());
}

/// A vault that kept half of a pack of a point that never came there, though staging has the pack whole; and a point that needs a part of it.
fn half_of_what_staging_has() -> (Home, Arc<MemoryVault>, Store, StoredPoint, ObjectName) {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let before: Vec<_> = data_packs(&store).into_iter().map(|row| row.no).collect();
    let mut files = sample(2);
    take_point(&store, &files).unwrap();
    let cut = data_packs(&store).into_iter().find(|row| !before.contains(&row.no)).unwrap();
    let name = names::pack(&cut.entry.id);
    let bytes = std::fs::read(home.path().join(name.as_str())).unwrap();
    vault.replace(&name, bytes[..bytes.len() / 2].to_vec().into());
    let (no, _, way) = store.vaults()[0].clone();
    copy::load_catalog(&store, no, &way, &VoidMonitor).unwrap();
    files.retain(|name, _| !["own0", "own1", "own2"].contains(&name.as_str()));
    let part = take_point(&store, &files).unwrap();
    (home, vault, store, part, name)
}

#[test]
fn one_that_staging_has_whole_and_of_which_the_vault_lacks_nothing_is_removed() {
    let (_home, vault, store, _, name) = half_of_what_staging_has();
    let done = free_in_vault(&store, store.vaults()[0].0, &RecordingMonitor::default());
    assert_eq!(done.unopened, 1);
    assert!(vault.object(&name).is_none());
}

#[test]
fn one_that_staging_has_whole_is_sent_again_with_the_point_that_needs_a_part_of_it() {
    let (home, vault, store, part, name) = half_of_what_staging_has();
    push(&store, &part, &RecordingMonitor::default()).unwrap();
    let whole = std::fs::read(home.path().join(name.as_str())).unwrap();
    assert!(vault.object(&name).unwrap() == whole);
    let done = free_in_vault(&store, store.vaults()[0].0, &RecordingMonitor::default());
    assert_eq!(done.unopened, 0);
}

#[test]
fn one_that_arrives_with_other_bytes_each_time_stays() {
    let hurt = Hurt::useless();
    hurt.read_all();
    let way = Arc::new(FaultyVault::new(hurt.vault.clone(), Arc::new(ManualClock::default())));
    let store = hurt.open(way.clone(), &RecordingMonitor::default());
    let no = store.vaults()[0].0;
    let unopened = || reclaim::plan(&store, Place::Vault(no), &VoidMonitor).unwrap().unopened.len();
    assert_eq!(unopened(), 1);
    let before = way.count(Verb::Get);
    assert_eq!(unopened(), 1);
    let gets = way.count(Verb::Get) - before;
    // The last one asks for all of it, the second time.
    way.fail(Verb::Get, way.count(Verb::Get) + gets, VaultFault::Flip);
    assert_eq!(unopened(), 0);
    assert_eq!(unopened(), 1);
}

#[test]
fn one_that_staging_has_whole_stays_while_the_vault_lacks_something_of_it_that_its_points_need() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let name = names::pack(&data_packs(&store).remove(0).entry.id);
    let whole = vault.object(&name).unwrap();
    let half = whole.slice(..whole.len() / 2);
    vault.replace(&name, half.clone());
    drop(store);
    delete_catalog(&home.path());
    let store = home.open_with(&vault);
    let (no, _, way) = store.vaults()[0].clone();
    copy::load_catalog(&store, no, &way, &VoidMonitor).unwrap();
    assert_eq!(store.unopened().len(), 1);
    let done = free_in_vault(&store, no, &RecordingMonitor::default());
    assert_eq!(done, reclaim::Reclaimed::default());
    assert_eq!(vault.object(&name), Some(half));
}
