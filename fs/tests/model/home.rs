//! A real folder and a store that the real engine backed it up into.

use std::sync::Arc;

use holdfast_backup::protect::{Request, protect};
use holdfast_backup::source::{DirectorySource, WalkOptions};
use holdfast_fs::recovery::StoreRecovery;
use holdfast_store::clock::SystemClock;
use holdfast_store::format::config::{ChunkerParams, StoreConfig};
use holdfast_store::id::{RecoveryPointId, SlotId, VaultId};
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::point::{Consistency, PointState, SourceName};
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::{Compression, Sealer};
use holdfast_store::store::{Store, StoreOptions};

use crate::chance::Chance;
use crate::real::Real;
use crate::tree;

pub struct Home {
    _dir: tempfile::TempDir,
    pub real: Real,
    pub store: Arc<Store>,
    pub point: RecoveryPointId,
    /// Of all points.
    pub totals: holdfast_fs::recovery::Totals,
}

impl Home {
    /// A tree by chance, backed up once, or again after something happened to it; what is real is as in the last point.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let dir = tempfile::tempdir().unwrap();
        let (source, ring) = (dir.path().join("source"), KeyRing::generate(0));
        std::fs::create_dir(&source).unwrap();
        tree::grow(&source, &mut chance);
        let open = store(dir.path(), &ring, chance.pick(&[1 << 20, 64 << 20]));
        let real = Real(source);
        let (mut point, mut totals) = (back_up(&open(), &real), real.totals());
        if chance.one_in(2) {
            tree::alter(&real.0, &mut chance);
            point = back_up(&open(), &real);
            let more = real.totals();
            totals.bytes += more.bytes;
            totals.entries += more.entries;
        }
        Self { store: Arc::new(open()), real, point, totals, _dir: dir }
    }

    /// Answers from the store with nothing parsed yet.
    pub fn recovery(&self) -> Arc<StoreRecovery> {
        Arc::new(StoreRecovery::new(self.store.clone(), 1 << 20))
    }
}

/// Makes a store of short chunks and small packs, and returns what opens it with nothing in memory.
fn store(dir: &std::path::Path, ring: &KeyRing, memory: usize) -> impl Fn() -> Store + use<> {
    let (dir, vault, ring) = (dir.join("store"), VaultId::random(), ring.clone());
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
    Store::create(&dir, &sealer, &config, &[(SlotId::random(), vec![1])]).unwrap();
    move || {
        let clock = Arc::new(SystemClock);
        let options = StoreOptions { memory, ..StoreOptions::local(clock) };
        Store::open(&dir, &ring, options, &VoidMonitor).unwrap()
    }
}

fn back_up(store: &Store, real: &Real) -> RecoveryPointId {
    let request = Request {
        source: SourceName { host: "h".into(), group: "g".into(), source: "s".into() },
        path: b"/s".to_vec(),
        tags: Vec::new(),
        read_all: false,
        consistency: Consistency::Fuzzy,
        expires: None,
        readers: 2,
        tool: "test".into(),
    };
    let session = store.begin(Compression::Zstd(1), &VoidMonitor).unwrap();
    let source = DirectorySource::new(&real.0, WalkOptions::default());
    let taken = protect(session, &source, &request, &VoidMonitor).unwrap().stored;
    assert_eq!(taken.point.state, PointState::Complete, "{:?}", taken.point.errors);
    taken.point.id
}
