//! The two databases beside the store, damaged: each is made anew, or what is asked of it is refused; nothing of it is taken for another.
//!
//! The input does not hold a database, only what happens to a sound one: so it stays small, and most of a page stays what SQLite takes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use holdfast_backup::agenda::{Task, Work};
use holdfast_backup::ledger::Ledger;
use holdfast_store::catalog::Catalog;
use holdfast_store::clock::Timestamp;
use holdfast_store::id::{ChunkId, ObjectId, PackId};
use holdfast_store::pack::{Frame, PackEntry, PackKind, PackedChunk};
use tempfile::TempDir;

use super::forge::Input;
use super::local::temporary;

const STORE: [u8; 16] = [7; 16];

thread_local! {
    static DIR: RefCell<TempDir> = RefCell::new(temporary());
}

/// Changes bytes at places of the input's choice, or cuts: a place of three bytes, how many, what they become.
pub fn patch(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    while !input.is_empty() {
        let place = usize::from(input.u16()) | usize::from(input.u8()) << 16;
        let len = usize::from(input.u8());
        if len == 255 {
            bytes.truncate(place);
            continue;
        }
        let new = input.take(len % 32);
        let at = place % bytes.len().max(1);
        bytes.iter_mut().skip(at).zip(new).for_each(|(byte, new)| *byte = *new);
    }
}

fn entry(n: u8) -> PackEntry {
    PackEntry {
        id: PackId([n; 32]),
        object_id: ObjectId([n; 16]),
        generation: 1,
        kind: PackKind::Data,
        len: 64 + 64 + 128 + 128,
        frames: vec![Frame { units: 1, raw_len: 16 }],
    }
}

fn chunk(n: u8) -> PackedChunk {
    PackedChunk { id: ChunkId([n ^ 0x80; 32]), len: 16 }
}

static CATALOG: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = temporary();
    let path = dir.path().join("catalog.db");
    let catalog = Catalog::open(&path, &STORE).expect("an empty catalog");
    let chunks: Vec<_> = (1..9).map(|n| [chunk(n)]).collect();
    let packs: Vec<_> = (1..9).map(entry).collect();
    for (pack, chunks) in packs.iter().zip(&chunks) {
        catalog.add_packs(&[(pack, &chunks[..])], true, None).expect("a sound pack");
    }
    drop(catalog);
    fs::read(&path).expect("the catalog's file")
});

/// The catalog.
pub fn catalog(data: &[u8]) {
    let mut bytes = CATALOG.clone();
    patch(&mut bytes, &mut Input(data));
    DIR.with_borrow(|dir| {
        clear(dir.path());
        let path = dir.path().join("catalog.db");
        fs::write(&path, &bytes).expect("a small file");
        let Ok(catalog) = Catalog::open(&path, &STORE) else { return };
        for n in 1..9 {
            if let Ok(Some(row)) = catalog.pack_by_id(&PackId([n; 32])) {
                assert_eq!(row.entry.id, PackId([n; 32]));
                let _ = (catalog.chunks_of(row.no), catalog.places_in(row.no), catalog.next_pack(row.no));
            }
            let _ = (catalog.locate(&chunk(n).id), catalog.locate_all(&chunk(n).id));
        }
        let _ = (
            catalog.packs(),
            catalog.pack_list(),
            catalog.damaged_packs(),
            catalog.points(),
            catalog.point_lines(),
        );
        let _ = (
            catalog.damaged_points(true),
            catalog.heads(),
            catalog.holds(),
            catalog.vaults(),
            catalog.damaged_chunks(),
        );
        let _ = (
            catalog.vault_no("/vault"),
            catalog.points_stamp(),
            catalog.index_objects(None),
            catalog.misses_packs(),
        );
    });
}

static LEDGER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = temporary();
    let (ledger, aside) = Ledger::open(dir.path()).expect("an empty ledger");
    assert!(aside.is_none());
    for (n, work) in [Work::Take, Work::Check, Work::Reclaim].into_iter().enumerate() {
        let task = Task { work, group: (n == 0).then(|| "docs".to_owned()) };
        ledger
            .begin(&task, n == 1, Timestamp::from_seconds(1_700_000_000 + n as i64))
            .expect("a sound ledger");
    }
    drop(ledger);
    let listed = fs::read_dir(dir.path()).expect("the directory");
    let files: BTreeSet<_> = listed.map(|entry| entry.expect("an entry").path()).collect();
    fs::read(files.iter().find(|file| file.ends_with("ledger.db")).expect("the ledger's file"))
        .expect("its bytes")
});

/// The ledger.
pub fn ledger(data: &[u8]) {
    let mut bytes = LEDGER.clone();
    patch(&mut bytes, &mut Input(data));
    DIR.with_borrow(|dir| {
        clear(dir.path());
        fs::write(dir.path().join("ledger.db"), &bytes).expect("a small file");
        let _ = Ledger::look(dir.path()).map(|ledger| ledger.map(|ledger| ask(&ledger)));
        let Ok((ledger, _)) = Ledger::open(dir.path()) else { return };
        ask(&ledger);
    });
}

fn ask(ledger: &Ledger) {
    let task = Task { work: Work::Take, group: Some("docs".to_owned()) };
    let _ = (ledger.jobs(100), ledger.first(), ledger.running(), ledger.last(&task, &[]), ledger.past(&task));
    let _ = (
        ledger.last_ends(),
        ledger.groups(),
        ledger.open_alerts(),
        ledger.closed_alerts(10),
        ledger.untold("mail"),
    );
    let _ = (ledger.last_drill(), ledger.damage());
}

fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a temporary directory").flatten() {
        let _ = fs::remove_file(entry.path());
    }
}
