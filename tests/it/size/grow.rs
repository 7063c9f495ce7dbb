//! Makes a store that looks old and big out of a small one, without the years: more points, and a catalog that knows many more
//! packs and chunks. Nothing refers to the packs, and they are nowhere but in the listing.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use holdfast_store::catalog::PointRow;
use holdfast_store::clock::SystemClock;
use holdfast_store::id::{ChunkId, ObjectId, PackId, RecoveryPointId};
use holdfast_store::pack::{Frame, PackEntry, PackKind, PackedChunk};
use holdfast_store::point::PointError;
use holdfast_store::point::object::{object_hash, seal_point};
use holdfast_store::store::Store;

use crate::testkit::open_store;

/// Length of the packs that are made up.
const PACK_LEN: u64 = 16 << 20;
/// Frames in each.
const FRAMES: usize = 128;
/// Seconds between two points.
const HOUR: i64 = 3600;

/// Opens the store in `dir` by the machine key in `keys`.
pub fn open(dir: &Path, keys: &Path) -> Store {
    open_store(dir, keys, Arc::new(SystemClock))
}

/// Adds `count` points like the newest one, an hour apart, each with a list of so many errors.
pub fn add_points(store: &Store, count: u64, errors: usize) {
    let model = store.points().unwrap().pop().unwrap();
    let (mut previous, mut rows) = (model.hash, Vec::new());
    for n in 1..=count {
        let mut point = (*model.point).clone();
        point.id = RecoveryPointId(blake3::hash(&n.to_le_bytes()).as_bytes()[..16].try_into().unwrap());
        point.errors = (0..errors).map(|m| error(n, m)).collect();
        point.errors_total = errors as u64;
        point.sequence += n;
        point.started.seconds += HOUR * n.cast_signed();
        point.ended.seconds += HOUR * n.cast_signed();
        point.previous = previous;
        let object = seal_point(&point, store.sealer()).unwrap();
        previous = object_hash(&object);
        let name = holdfast_store::names::point(&point.source_tag, &point.id);
        std::fs::write(store.dir().join(name.as_str()), &object).unwrap();
        rows.push(PointRow {
            id: point.id,
            tag: point.source_tag,
            sequence: point.sequence,
            started: point.started.seconds,
            hash: previous,
            object,
            staged: true,
            vaults: Vec::new(),
        });
    }
    store.catalog().add_points(&rows).unwrap();
}

fn error(n: u64, m: usize) -> PointError {
    let path = format!("some/directory of point {n}/with a file that could not be read {m}").into_bytes();
    PointError { path, reason: "permission denied, as it was the last time and the time before".into() }
}

/// Adds `packs` packs of `chunks` chunks each to catalog and listing.
pub fn add_packs(store: &Store, packs: u64, chunks: u32) {
    for n in 0..packs {
        let hash = |what: &str, m: u32| *blake3::hash(format!("{what} {n} {m}").as_bytes()).as_bytes();
        let frame = Frame { units: (PACK_LEN / 64) as u32 / FRAMES as u32, raw_len: 128 << 10 };
        let entry = PackEntry {
            id: PackId(hash("pack", 0)),
            object_id: ObjectId(hash("object", 0)[..16].try_into().unwrap()),
            generation: 1,
            kind: PackKind::Data,
            len: PACK_LEN,
            frames: vec![frame; FRAMES],
        };
        let of =
            |m| PackedChunk { id: ChunkId(hash("chunk", m)), len: (PACK_LEN / u64::from(chunks)) as u32 };
        let inside: Vec<_> = (0..chunks).map(of).collect();
        store.catalog().add_packs(&[(&entry, &inside)], true, None).unwrap();
        let path = store.dir().join(holdfast_store::names::pack(&entry.id).as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap().set_len(PACK_LEN).unwrap();
    }
}
