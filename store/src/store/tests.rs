//! Tests of a whole store: what was acknowledged is there, whatever failed in between.
#![allow(clippy::unwrap_used)]

mod annexes;
mod attempts;
mod daily;
mod disputed;
mod doubt;
mod fenced;
mod forgotten;
mod freeing;
mod generations;
pub(crate) mod heal;
mod holds;
mod hostile;
mod incomplete;
mod interrupted;
mod kept;
mod last_copy;
mod lengths;
mod listings;
mod losses;
mod missed;
mod older;
mod outside;
mod pack_rows;
mod proven;
mod rot;
mod rows;
mod scrub;
mod taken;
mod thin;
mod thin_damage;
mod turns;
mod unopened;
mod ways;
mod witness;
mod writers;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use super::*;
use crate::chunk_store::TreeSink;
use crate::clock::{Deadline, ManualClock, Timestamp};
use crate::copy;
use crate::format::config::ChunkerParams;
use crate::monitor::{RecordingMonitor, VoidMonitor};
use crate::pack::PackKind;
use crate::point::Counts;
use crate::point::testing::bare_point;
use crate::reclaim;
use crate::seal::{ChunkType, Compression};
use crate::staging::{Fault, FaultyFiles};
use crate::transfer::TransferPolicy;
use crate::tree::build::DirectoryBuilder;
use crate::tree::reach::reachable;
use crate::tree::testing::sample_node;
use crate::tree::walk::Directory;
use crate::tree::{ChunkSource, Content, Extent, Node, NodeKind};
use crate::vault::memory::MemoryVault;

/// A store in a directory of its own, with its keys.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    ring: KeyRing,
}

impl Home {
    fn new() -> Self {
        let chunker = ChunkerParams {
            normalization: 2,
            min: 4096,
            average: 16 << 10,
            max: 64 << 10,
            ..ChunkerParams::default()
        };
        let config = StoreConfig::new(VaultId::random(), 0);
        let config = StoreConfig { chunker, frame_len: 16 << 10, pack_len: 1 << 20, ..config };
        Self::of(config, KeyRing::generate(0))
    }

    fn of(config: StoreConfig, ring: KeyRing) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::new(config.vault_id, &ring, 1).unwrap();
        Store::create(&dir.path().join("store"), &sealer, &config, &[(SlotId::random(), vec![1, 2, 3])])
            .unwrap();
        Self { dir, ring }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn options(vaults: Vec<(String, Arc<Transfer>)>) -> StoreOptions {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1000)));
        StoreOptions { vaults, ..StoreOptions::local(clock) }
    }

    fn open(&self) -> Store {
        Store::open(&self.path(), &self.ring, Self::options(Vec::new()), &VoidMonitor).unwrap()
    }

    fn open_faulty(&self) -> (Store, Arc<FaultyFiles>) {
        let files = Arc::new(FaultyFiles::new(Arc::new(DiskFiles::new(&self.path()))));
        let options = Self::options(Vec::new());
        (Store::open_on(files.clone(), &self.path(), &self.ring, options, &VoidMonitor).unwrap(), files)
    }

    fn open_with(&self, vault: &Arc<MemoryVault>) -> Store {
        let options = Self::options(vec![("memory:v".into(), transfer(vault))]);
        Store::open(&self.path(), &self.ring, options, &VoidMonitor).unwrap()
    }
}

fn transfer(vault: &Arc<MemoryVault>) -> Arc<Transfer> {
    Transfer::new(vault.clone(), Arc::new(ManualClock::default()), TransferPolicy::default()).unwrap()
}

type Tree = BTreeMap<String, Vec<u8>>;

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut out);
    out
}

/// Files that fill a few packs; those below `shared` are the same in every version.
fn sample(version: u32) -> Tree {
    let mut files = Tree::new();
    for n in 0..30 {
        files.insert(format!("shared{n}"), noise(&format!("s{n}"), 50_000 + n * 1000));
    }
    for n in 0..10 {
        files.insert(format!("own{n}"), noise(&format!("v{version} {n}"), 70_000 + n));
    }
    files.insert("empty".into(), Vec::new());
    files
}

fn ingest_file(
    session: &Session<'_>,
    frames: &mut crate::pack::FrameBuilder,
    name: &str,
    bytes: &[u8],
) -> Result<Node, StoreError> {
    let chunker = session.store().chunker();
    let (mut rest, mut extents) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (plain, after) = rest.split_at(chunker.cut(rest));
        let id = session.ingest().name(ChunkType::Data, plain);
        if session.ingest().claim(&id)? {
            frames.push(id, plain);
        }
        extents.push(Extent::Data { id, len: plain.len() as u32 });
        rest = after;
    }
    let mut node = sample_node(name.as_bytes(), NodeKind::File);
    node.size = bytes.len() as u64;
    node.content = Some(Content::Inline(extents));
    Ok(node)
}

fn tag_of(store: &Store) -> SourceTag {
    store.sealer().source_tag("host", "group", "source")
}

/// A point that goes into all vaults as soon as it is taken begins.
fn begin_online<'a>(store: &'a Store, monitor: &dyn Monitor) -> Result<Session<'a>, StoreError> {
    store.begin_online(&tag_of(store), &|_| true, Compression::Zstd(1), monitor)
}

fn take_point(store: &Store, files: &Tree) -> Result<StoredPoint, StoreError> {
    take_point_by(store.begin(Compression::Zstd(1), &VoidMonitor)?, files)
}

/// Frees a vault at once: what is condemned goes in the same run, and every upload counts as silent.
fn free_in_vault(store: &Store, no: VaultNo, monitor: &dyn Monitor) -> reclaim::Reclaimed {
    let terms = reclaim::Terms { silence: Duration::ZERO, ..reclaim::Terms::AT_ONCE };
    reclaim::advance(store, no, &terms, &HashSet::new(), monitor).unwrap().removed
}

fn take_point_by(session: Session<'_>, files: &Tree) -> Result<StoredPoint, StoreError> {
    take_point_of(["host", "group", "source"], session, files)
}

fn take_point_of(source: [&str; 3], session: Session<'_>, files: &Tree) -> Result<StoredPoint, StoreError> {
    let (store, id) = (session.store(), session.id());
    let root = ingest_tree(&session, files)?;
    let tag = store.sealer().source_tag(source[0], source[1], source[2]);
    let previous = store.newest_point(&tag)?;
    let started = previous.as_ref().map_or(1, |p| p.point.started.seconds + 1);
    session.commit(|done| RecoveryPoint {
        id,
        source_tag: tag,
        sequence: previous.as_ref().map_or(1, |p| p.point.sequence + 1),
        previous: previous.as_ref().map_or([0; 32], |p| p.hash),
        counts: Counts { bytes_new: done.bytes_new, bytes_stored: done.bytes_stored, ..Counts::default() },
        ..bare_point(source, started, root)
    })
}

fn ingest_tree(session: &Session<'_>, files: &Tree) -> Result<Node, StoreError> {
    let mut frames = session.ingest().frames();
    let mut sink = TreeSink::new(session.ingest());
    let mut builder = DirectoryBuilder::new();
    for (name, bytes) in files {
        builder.push(&ingest_file(session, &mut frames, name, bytes)?, &mut sink)?;
        session.ingest().deliver(PackKind::Data, frames.take())?;
    }
    let built = builder.finish(&mut sink)?;
    sink.finish()?;
    let mut root = sample_node(b"root", NodeKind::Directory);
    root.subtree = Some(built.subtree());
    Ok(root)
}

fn restore(store: &Store, point: &StoredPoint) -> Result<Tree, StoreError> {
    restore_by(store, point, |id, _| store.reader().chunk(ChunkType::Data, id, Deadline::NEVER))
}

/// All files of a point, their chunks read by `read`, from id and length.
fn restore_by(
    store: &Store,
    point: &StoredPoint,
    read: impl Fn(&ChunkId, u32) -> Result<Bytes, StoreError>,
) -> Result<Tree, StoreError> {
    let tree = point.point.root.subtree.unwrap().tree;
    let mut files = Tree::new();
    for node in Directory::open(store.pages(), &tree, Deadline::NEVER)?.entries_at(0, Deadline::NEVER)? {
        let node = node?;
        let Some(Content::Inline(extents)) = &node.content else { panic!("small files") };
        let mut bytes = Vec::new();
        for extent in extents {
            let Extent::Data { id, len } = extent else { panic!("no holes") };
            bytes.extend_from_slice(&read(id, *len)?);
        }
        files.insert(String::from_utf8(node.name.clone()).unwrap(), bytes);
    }
    Ok(files)
}

#[test]
fn a_point_is_read_back_by_a_later_opener_even_after_the_catalog_was_deleted() {
    let home = Home::new();
    let taken = take_point(&home.open(), &sample(1)).unwrap();
    let store = home.open();
    let points = store.points().unwrap();
    assert_eq!(points.len(), 1);
    assert_eq!(points[0].point, taken.point);
    assert!(restore(&store, &points[0]).unwrap() == sample(1));
    drop(store);
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(home.path().join(name));
    }
    let store = home.open();
    assert!(restore(&store, &store.points().unwrap()[0]).unwrap() == sample(1));
    assert_eq!(store.catalog().packs_without_index(None).unwrap(), []);
}

#[test]
fn a_store_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let store = home.open();
    take_point(&store, &sample(1)).unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(home.path()), 0o700);
    for name in ["catalog.db", "catalog.db-wal", "config", "lock", "ballast"] {
        assert_eq!(mode(home.path().join(name)) & 0o077, 0, "{name}");
    }
}

#[test]
fn what_two_points_share_is_stored_once() {
    let home = Home::new();
    let store = home.open();
    let first = take_point(&store, &sample(1)).unwrap();
    let second = take_point(&store, &sample(2)).unwrap();
    assert_eq!(second.point.previous, first.hash);
    let own: usize = sample(2).iter().filter(|(n, _)| n.starts_with("own")).map(|(_, b)| b.len()).sum();
    let added = second.point.counts.bytes_stored as usize;
    assert!((own..own + own / 10).contains(&added), "{added} for {own}");
    let third = take_point(&store, &sample(2)).unwrap();
    assert_eq!(third.point.counts.bytes_new, 0);
    assert_eq!(third.point.packs, []);
    for (point, version) in [(&first, 1), (&second, 2), (&third, 2)] {
        assert!(restore(&store, point).unwrap() == sample(version));
    }
}

#[test]
fn only_one_session_at_a_time_writes() {
    let home = Home::new();
    let (one, two) = (home.open(), home.open());
    let session = one.begin(Compression::None, &VoidMonitor).unwrap();
    let refused = two.begin(Compression::None, &VoidMonitor).unwrap_err();
    assert_eq!(refused.class(), crate::ErrorClass::Locked);
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    drop(session);
    two.begin(Compression::None, &VoidMonitor).unwrap();
}

#[test]
fn a_fault_at_any_write_loses_nothing_that_was_acknowledged_and_the_next_run_succeeds() {
    for fault in [Fault::Once(ErrorKind::Other), Fault::ForEver(ErrorKind::StorageFull), Fault::Crash] {
        for n in 0.. {
            let home = Home::new();
            take_point(&home.open(), &sample(1)).unwrap();
            let (store, files) = home.open_faulty();
            files.fail_at(n, fault);
            let taken = take_point(&store, &sample(2));
            let struck = files.struck();
            drop(store);
            let acknowledged = if taken.is_ok() { vec![1, 2] } else { vec![1] };
            let store = home.open();
            let points = store.points().unwrap();
            assert!(points.len() >= acknowledged.len(), "{fault:?} at {n}");
            for (point, version) in points.iter().zip([1, 2]) {
                assert!(restore(&store, point).unwrap() == sample(version), "{fault:?} at {n}");
            }
            let next = take_point(&store, &sample(3)).unwrap();
            assert!(restore(&store, &next).unwrap() == sample(3), "{fault:?} at {n}");
            assert!(store.staging().list("tmp").unwrap().is_empty());
            if !struck {
                assert!(taken.is_ok());
                break;
            }
        }
    }
}

#[test]
fn a_point_whose_object_staging_lost_is_told_apart_until_it_is_put_again() {
    let home = Home::new();
    let store = home.open();
    let points = [1, 2].map(|seed| take_point(&store, &sample(seed)).unwrap());
    assert!(store.points_that_staging_lacks().unwrap().is_empty());
    let lost = &points[0].point;
    std::fs::remove_file(home.path().join(names::point(&lost.source_tag, &lost.id).as_str())).unwrap();
    drop(store);
    let store = home.open();
    assert_eq!(store.points_that_staging_lacks().unwrap(), [lost.id].into());
    assert!(restore(&store, &points[0]).unwrap() == sample(1), "it is read as ever");
    drop(store.begin(Compression::None, &VoidMonitor).unwrap());
    assert!(store.points_that_staging_lacks().unwrap().is_empty());
}

#[test]
fn a_point_of_which_something_is_nowhere_is_none_of_those_that_staging_has() {
    let home = Home::new();
    let store = home.open();
    let points = [1, 2].map(|seed| take_point(&store, &sample(seed)).unwrap());
    let of_first = |row: &PackRow| {
        let chunks = store.catalog().chunks_of(row.no).unwrap();
        let needs = |point: &StoredPoint| {
            let mut found = false;
            let mut look = |_: ChunkType, id: &crate::id::ChunkId| {
                found |= chunks.iter().any(|chunk| chunk.id == *id);
                Ok(())
            };
            let root = &point.point.root;
            reachable(store.reader().as_ref(), root, &mut HashSet::new(), &mut look).unwrap();
            found
        };
        needs(&points[0]) && !needs(&points[1])
    };
    let lost = store.catalog().packs().unwrap().into_iter().find(of_first).unwrap();
    std::fs::remove_file(home.path().join(names::pack(&lost.entry.id).as_str())).unwrap();
    assert!(store.points_that_staging_lacks().unwrap().is_empty(), "nobody has looked");
    drop(store.begin(Compression::None, &VoidMonitor).unwrap());
    assert_eq!(store.points_that_staging_lacks().unwrap(), [points[0].point.id].into());
    take_point(&store, &sample(1)).unwrap();
    assert!(store.points_that_staging_lacks().unwrap().is_empty(), "the source had it still");
}

#[test]
fn a_lost_pack_is_noticed_named_and_made_again_from_the_source() {
    let home = Home::new();
    let store = home.open();
    take_point(&store, &sample(1)).unwrap();
    let pack = store.catalog().packs().unwrap().into_iter().find(|p| p.entry.kind == PackKind::Data).unwrap();
    std::fs::remove_file(home.path().join(names::pack(&pack.entry.id).as_str())).unwrap();
    drop(store);
    let store = home.open();
    let monitor = RecordingMonitor::default();
    drop(store.begin(Compression::None, &monitor).unwrap());
    let told = format!("{:?}", monitor.events());
    assert!(told.contains("missing from the staging directory"), "{told}");
    let again = take_point(&store, &sample(1)).unwrap();
    assert!(restore(&store, &again).unwrap() == sample(1));
    assert!(
        restore(&store, &store.points().unwrap()[0]).unwrap() == sample(1),
        "and so the old point is whole again"
    );
}

#[test]
fn every_point_in_a_vault_restores_from_the_vault_alone() {
    let home = Home::new();
    let vault = Arc::new(MemoryVault::new());
    let store = home.open_with(&vault);
    let (no, _, transfer) = store.vaults()[0].clone();
    let slots = Store::head(&home.path()).unwrap().slots;
    copy::prepare_vault(&store, &slots, &transfer).unwrap();
    let one = take_point(&store, &sample(1)).unwrap();
    let first = copy::push_point(&store, no, &transfer, &one.point.id, &VoidMonitor).unwrap();
    let two = take_point(&store, &sample(2)).unwrap();
    let second = copy::push_point(&store, no, &transfer, &two.point.id, &VoidMonitor).unwrap();
    assert!(second.bytes < first.bytes / 2, "only what the vault lacks: {first:?} {second:?}");
    let again = copy::push_point(&store, no, &transfer, &two.point.id, &VoidMonitor).unwrap();
    assert_eq!(again, copy::Pushed::default());

    let other = tempfile::tempdir().unwrap();
    let head = copy::vault_head(&transfer).unwrap();
    assert_eq!(head.vault, *store.id());
    let dir = other.path().join("new");
    Store::adopt(&dir, &head).unwrap();
    let options = Home::options(vec![("memory:v".into(), transfer.clone())]);
    let there = Store::open(&dir, &home.ring, options, &VoidMonitor).unwrap();
    copy::load_catalog(&there, there.vaults()[0].0, &transfer, &VoidMonitor).unwrap();
    let points = there.points().unwrap();
    assert_eq!(points.len(), 2);
    assert!(points.iter().all(|p| !p.local && p.vaults == ["memory:v"]));
    for (point, version) in points.iter().zip([1, 2]) {
        assert!(restore(&there, point).unwrap() == sample(version));
    }
}

#[test]
fn a_slot_that_is_too_long_to_be_one_closes_no_store() {
    let home = Home::new();
    let slot = home.path().join(names::slot(&SlotId([9; 16])).as_str());
    for len in [SMALL_OBJECT + 1, 3 << 40] {
        std::fs::File::create(&slot).unwrap().set_len(len).unwrap();
        let slots = Store::head(&home.path()).unwrap().slots;
        assert_eq!(slots.len(), 2);
        assert!(slots.contains(&(SlotId([9; 16]), Vec::new())), "{slots:?}");
    }
}

#[test]
fn ranges_that_a_directory_cannot_keep_have_half_of_the_memory_for_frames() {
    let home = Home::new();
    let file = home.path().join("a file");
    std::fs::write(&file, "in the way").unwrap();
    let options = StoreOptions { cache_dir: Some(file), memory: 10 << 20, ..Home::options(Vec::new()) };
    let store = Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap();
    assert_eq!(store.reader().cache_limit(), 5 << 20);
    assert_eq!(store.reader().memory(), 5 << 20);
}
