//! Tests of taking points, with sources in memory that do what real ones do at the worst time.
#![allow(clippy::unwrap_used)]

mod hot;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use holdfast_store::ErrorClass;
use holdfast_store::clock::{Clock, Deadline, ManualClock};
use holdfast_store::format::config::{ChunkerParams, StoreConfig};
use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::monitor::{RecordingMonitor, VoidMonitor};
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::{ChunkType, Compression, Sealer};
use holdfast_store::store::StoreOptions;
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::tree::content::ContentReader;
use holdfast_store::tree::walk::{Visit, visit};
use holdfast_store::tree::{ChunkSource, Extent, NodeKind, Xattr};
use holdfast_store::vault::memory::MemoryVault;

use super::*;
use crate::source::faulty::{Fault, FaultySource};
use crate::source::memory::{MemorySource, Segment};

struct Home {
    dir: tempfile::TempDir,
    ring: KeyRing,
    clock: ManualClock,
}

impl Home {
    fn new() -> Self {
        let (dir, ring) = (tempfile::tempdir().unwrap(), KeyRing::generate(0));
        let vault = VaultId::random();
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
        Store::create(&dir.path().join("store"), &sealer, &config, &[(SlotId::random(), vec![1])]).unwrap();
        Self { dir, ring, clock: ManualClock::at(Timestamp::from_seconds(2_000_000_000)) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn open(&self) -> Store {
        let clock = Arc::new(self.clock.clone());
        let options = StoreOptions::local(clock);
        Store::open(&self.path(), &self.ring, options, &VoidMonitor).unwrap()
    }

    /// Takes a point a minute after the last one.
    fn take(
        &self,
        store: &Store,
        source: &dyn DataSource,
        monitor: &dyn Monitor,
    ) -> Result<StoredPoint, ProtectError> {
        self.clock.advance(std::time::Duration::from_secs(60));
        let session = store.begin(Compression::Zstd(1), monitor).map_err(ProtectError::Store)?;
        protect(session, source, &request(), monitor).map(|protected| protected.stored)
    }
}

fn request() -> Request {
    Request {
        source: SourceName { host: "h".into(), group: "g".into(), source: "s".into() },
        path: b"/s".to_vec(),
        tags: vec!["t".into()],
        read_all: false,
        consistency: Consistency::Fuzzy,
        expires: None,
        readers: 3,
        tool: "test".into(),
    }
}

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut out);
    out
}

/// A tree of small files, one large, one with holes, and other things.
fn sample() -> MemorySource {
    let mut source = MemorySource::new();
    for d in 0..20 {
        for f in 0..30 {
            let name = format!("dir{d:02}/file{f:02}");
            source.file(name.as_bytes(), format!("content of {name}").repeat(f * 7).as_bytes());
        }
    }
    source.file(b"big", &noise("big", 3_000_000));
    source.segments(
        b"holes",
        vec![Segment::Hole(100_000), Segment::Data(vec![7; 5000]), Segment::Hole(1 << 40)],
    );
    source.symlink(b"dir00/link", b"../big");
    source.put(b"dir00/fifo", NodeKind::Fifo);
    source.put(b"empty", NodeKind::Directory);
    source
}

/// Entries by path: kind, size, and for files the bytes with their offsets.
type Restored = BTreeMap<Vec<u8>, (NodeKind, u64, Vec<(u64, Vec<u8>)>)>;

/// Every entry of a point.
fn restore(store: &Store, point: &StoredPoint) -> Restored {
    let mut found = BTreeMap::new();
    let tree = point.point.root.subtree.unwrap().tree;
    visit(store.pages(), &tree, u64::MAX, Deadline::NEVER, &mut |path, node| {
        let mut data = Vec::new();
        if let Some(content) = &node.content {
            let mut reader = ContentReader::new(content.clone());
            for extent in reader.extents(store.reader().as_ref(), 0, Deadline::NEVER) {
                let (at, extent) = extent?;
                if let Extent::Data { id, .. } = extent {
                    data.push((at, store.reader().chunk(ChunkType::Data, &id, Deadline::NEVER)?.to_vec()));
                }
            }
        }
        found.insert(path.to_vec(), (node.kind, node.size, data));
        Ok(Visit::Continue)
    })
    .unwrap();
    found
}

fn content(found: &Restored, path: &[u8]) -> Vec<u8> {
    let (_, size, data) = &found[path];
    let mut out = vec![0; *size as usize];
    for (at, bytes) in data {
        out[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
    }
    out
}

#[test]
fn a_point_holds_exactly_what_the_source_held() {
    let home = Home::new();
    let store = home.open();
    let point = home.take(&store, &sample(), &VoidMonitor).unwrap();
    assert_eq!(point.point.state, PointState::Complete);
    let counts = point.point.counts;
    assert_eq!((counts.files, counts.directories, counts.others), (602, 22, 2));
    let found = restore(&store, &point);
    assert_eq!(found.len(), 602 + 21 + 2);
    assert_eq!(content(&found, b"dir07/file13"), "content of dir07/file13".repeat(13 * 7).as_bytes());
    assert!(content(&found, b"big") == noise("big", 3_000_000));
    assert_eq!(found[&b"holes"[..]].1, 105_000 + (1 << 40));
    assert_eq!(found[&b"holes"[..]].2, [(100_000, vec![7; 5000])]);
    assert_eq!(point.point.summary.len(), 1, "the root's page is found without an index");
    assert_eq!(point.point.root.subtree.unwrap().entries, 625);
}

#[test]
fn a_second_run_reads_no_file_and_stores_nothing() {
    let home = Home::new();
    let store = home.open();
    home.take(&store, &sample(), &VoidMonitor).unwrap();
    let again = home.take(&store, &sample(), &VoidMonitor).unwrap();
    let counts = again.point.counts;
    assert_eq!((counts.files_read, counts.bytes_read, counts.bytes_new, counts.bytes_stored), (0, 0, 0, 0));
    assert_eq!(again.point.sequence, 2);
    let packs = store.staging().list("pack").unwrap().len();
    home.take(&store, &sample(), &VoidMonitor).unwrap();
    assert_eq!(store.staging().list("pack").unwrap().len(), packs);
}

#[test]
fn a_small_change_costs_about_its_size() {
    let home = Home::new();
    let store = home.open();
    home.take(&store, &sample(), &VoidMonitor).unwrap();
    let mut source = sample();
    let mut big = noise("big", 3_000_000);
    big.splice(1_500_000..1_500_000, noise("edit", 1000));
    source.file(b"big", &big);
    source.node_mut(b"big").unwrap().mtime.seconds += 1;
    let changed = home.take(&store, &source, &VoidMonitor).unwrap();
    assert_eq!(changed.point.counts.files_read, 1);
    assert!(changed.point.counts.bytes_new < 250_000, "{:?}", changed.point.counts);
    assert!(content(&restore(&store, &changed), b"big") == big);
}

#[test]
fn trouble_with_a_file_makes_the_point_partial_and_names_it() {
    let faults = [
        (Fault::Vanishes, false),
        (Fault::VanishesBeforeOpen, false),
        (Fault::Denied, false),
        (Fault::Unreadable(1_000_000), false),
        (Fault::ChangesWhileRead, true),
        (Fault::Shrinks(1_000_000), true),
    ];
    for (fault, kept) in faults {
        let home = Home::new();
        let store = home.open();
        let monitor = RecordingMonitor::default();
        let point = home.take(&store, &FaultySource::new(sample()).with(b"big", fault), &monitor).unwrap();
        assert_eq!(point.point.state, PointState::Partial, "{fault:?}");
        assert!(point.point.errors.iter().all(|e| e.path == b"big"), "{fault:?}: {:?}", point.point.errors);
        assert_eq!(point.point.errors_total, 1, "{fault:?}: {:?}", point.point.errors);
        assert!(format!("{:?}", monitor.events()).contains("Problem"), "{fault:?}");
        let found = restore(&store, &point);
        assert_eq!(found.contains_key(&b"big"[..]), kept, "{fault:?}");
        assert_eq!(content(&found, b"dir07/file13"), "content of dir07/file13".repeat(13 * 7).as_bytes());
        let next = home.take(&store, &sample(), &VoidMonitor).unwrap();
        assert_eq!(next.point.state, PointState::Complete);
        assert!(content(&restore(&store, &next), b"big") == noise("big", 3_000_000), "{fault:?}");
    }
}

#[test]
fn a_file_that_is_read_again_though_it_did_not_change_is_not_counted_as_new() {
    let home = Home::new();
    let store = home.open();
    home.take(&store, &sample(), &VoidMonitor).unwrap();
    home.clock.advance(std::time::Duration::from_secs(60));
    let session = store.begin(Compression::Zstd(1), &VoidMonitor).unwrap();
    let again = Request { read_all: true, ..request() };
    let taken = protect(session, &sample(), &again, &VoidMonitor).unwrap();
    let counts = &taken.stored.point.counts;
    assert!(counts.files_read > 0 && counts.files_read == counts.files, "{counts:?}");
    assert_eq!((taken.files_new, taken.files_changed), (0, counts.files));
}

/// A directory, a link and a fifo, each with an extended attribute.
fn attributed(value: &[u8]) -> MemorySource {
    let mut source = sample();
    for path in [&b"dir00"[..], b"dir00/link", b"dir00/fifo"] {
        let xattr = Xattr { name: b"user.a".to_vec(), value: value.to_vec() };
        source.node_mut(path).unwrap().xattrs = vec![xattr];
    }
    source
}

/// Values of all extended attributes of a point.
fn values(store: &Store, point: &StoredPoint) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let tree = point.point.root.subtree.unwrap().tree;
    visit(store.pages(), &tree, u64::MAX, Deadline::NEVER, &mut |_, node| {
        found.extend(node.xattrs.iter().map(|xattr| xattr.value.clone()));
        Ok(Visit::Continue)
    })
    .unwrap();
    found
}

#[test]
fn attributes_that_could_not_be_read_once_are_in_the_next_point() {
    for path in [&b"dir00"[..], b"dir00/link", b"dir00/fifo"] {
        let home = Home::new();
        let store = home.open();
        let faulty = FaultySource::new(attributed(b"v")).with(path, Fault::AttributesUnreadable);
        let first = home.take(&store, &faulty, &VoidMonitor).unwrap();
        assert_eq!((first.point.state, values(&store, &first).len()), (PointState::Partial, 2));
        let next = home.take(&store, &attributed(b"v"), &VoidMonitor).unwrap();
        assert_eq!((next.point.state, values(&store, &next).len()), (PointState::Complete, 3));
        assert_eq!(next.point.counts.files_read, 0, "what is in the directory was compared");
    }
}

#[test]
fn attributes_that_changed_shortly_before_a_point_are_read_again() {
    let home = Home::new();
    let store = home.open();
    let began = Timestamp { seconds: home.clock.now().seconds + 60, ..home.clock.now() };
    let fresh = |value: &[u8]| {
        let mut source = attributed(value);
        for path in [&b"dir00"[..], b"dir00/link", b"dir00/fifo"] {
            source.node_mut(path).unwrap().ctime = began;
        }
        source
    };
    home.take(&store, &fresh(b"one"), &VoidMonitor).unwrap();
    let next = home.take(&store, &fresh(b"two"), &VoidMonitor).unwrap();
    assert_eq!(values(&store, &next), [b"two", b"two", b"two"]);
    assert_eq!(next.point.counts.files_read, 0);
}

#[test]
fn a_lost_pack_makes_the_next_run_read_what_it_held() {
    let home = Home::new();
    let store = home.open();
    home.take(&store, &sample(), &VoidMonitor).unwrap();
    let packs = store.staging().list("pack").unwrap();
    std::fs::remove_file(home.path().join(packs[0].name.as_str())).unwrap();
    let next = home.take(&store, &sample(), &VoidMonitor).unwrap();
    assert!(next.point.counts.files_read > 0);
    assert!(content(&restore(&store, &next), b"big") == noise("big", 3_000_000));
    assert_eq!(restore(&store, &next).len(), 625);
}

struct Cancelling(AtomicBool);

impl Monitor for Cancelling {
    fn event(&self, event: Event) {
        if matches!(event, Event::Done { .. }) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Asks to stop at the n-th file that is done.
struct CancelAt(u64, AtomicU64);

impl Monitor for CancelAt {
    fn event(&self, event: Event) {
        if let Event::Done { files, .. } = event {
            self.1.fetch_add(files, Ordering::SeqCst);
        }
    }

    fn cancelled(&self) -> bool {
        self.1.load(Ordering::SeqCst) >= self.0
    }
}

#[test]
fn whenever_a_run_is_interrupted_there_is_either_no_point_or_a_whole_one() {
    let mut source = MemorySource::new();
    for n in 0..300 {
        source.file(format!("file{n:03}").as_bytes(), format!("content {n}").as_bytes());
    }
    for n in (0..=300).step_by(12).chain([255, 256, 257, 299, 300]) {
        let home = Home::new();
        let store = home.open();
        match home.take(&store, &source, &CancelAt(n, AtomicU64::new(0))) {
            Err(ProtectError::Cancelled) => assert!(store.points().unwrap().is_empty(), "at {n}"),
            Ok(point) => assert_eq!(restore(&store, &point).len(), 300, "at {n}"),
            Err(e) => panic!("at {n}: {e}"),
        }
    }
}

#[test]
fn an_interrupted_run_leaves_no_point_and_the_next_one_succeeds() {
    let home = Home::new();
    let store = home.open();
    let ended = home.take(&store, &sample(), &Cancelling(AtomicBool::new(false)));
    assert!(matches!(ended, Err(ProtectError::Cancelled)), "{ended:?}");
    assert!(store.points().unwrap().is_empty());
    let point = home.take(&store, &sample(), &VoidMonitor).unwrap();
    assert_eq!(restore(&store, &point).len(), 625);
}

#[test]
fn a_full_staging_disk_is_an_error_of_the_store_and_never_of_a_file() {
    use holdfast_store::staging::{DiskFiles, Fault, FaultyFiles};
    let home = Home::new();
    let files = Arc::new(FaultyFiles::new(Arc::new(DiskFiles::new(&home.path()))));
    let clock = Arc::new(home.clock.clone());
    let options = StoreOptions::local(clock);
    let store = Store::open_on(files.clone(), &home.path(), &home.ring, options, &VoidMonitor).unwrap();
    files.fail_at(0, Fault::ForEver(std::io::ErrorKind::StorageFull));
    match home.take(&store, &sample(), &VoidMonitor) {
        Err(ProtectError::Store(e)) => assert_eq!(e.class(), ErrorClass::Full, "{e}"),
        other => panic!("{other:?}"),
    }
    drop(store);
    assert!(home.open().points().unwrap().is_empty());
}

#[test]
fn troubles_are_all_counted_and_listed_as_far_as_a_point_has_room() {
    let mut many = Troubles::default();
    (0..ERRORS_LISTED + 5).for_each(|n| many.add(n.to_string().into_bytes(), "no"));
    assert_eq!((many.total, many.listed.len()), (ERRORS_LISTED as u64 + 5, ERRORS_LISTED));
    let mut long = Troubles::default();
    (0..100).for_each(|_| long.add(vec![b'x'; 1 << 20], &"y".repeat(5000)));
    assert_eq!((long.total, long.listed.len()), (100, 7));
    assert!(long.listed.iter().all(|error| error.reason.len() == 1000));
}

#[test]
fn a_store_whose_recovery_was_cut_off_takes_no_point_as_the_first_of_its_source() {
    let home = Home::new();
    let clock = Arc::new(home.clock.clone());
    // As if away: nobody made it ready, and so nothing there is read.
    let vault = Arc::new(MemoryVault::new());
    let transfer = Transfer::new(vault, clock.clone(), TransferPolicy::default()).unwrap();
    let options = StoreOptions { vaults: vec![("memory:v".into(), transfer)], ..StoreOptions::local(clock) };
    let path = home.dir.path().join("bare");
    Store::adopt(&path, &Store::head(&home.path()).unwrap()).unwrap();
    let store = Store::open(&path, &home.ring, options, &VoidMonitor).unwrap();
    let refused = home.take(&store, &MemorySource::new(), &VoidMonitor).unwrap_err().to_string();
    assert!(refused.contains("were never read to their end"), "{refused}");
    assert!(store.points().unwrap().is_empty());
}
