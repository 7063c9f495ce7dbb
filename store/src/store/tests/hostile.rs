//! Tests of what nobody means to happen: catalogs that vanish under readers, vaults that lose what they confirmed, packs that
//! move while they are read. Whatever happens, bytes are right or there is an error, and what is called vaulted is in the vault.

use std::path::Path;

use super::*;
use crate::catalog::Mark;
use crate::reclaim::{self, Place};
use crate::vault::Verb;
use crate::vault::testing::{Fault as VaultFault, FaultyVault};

/// As a mount reads: ranges of chunks.
fn restore_by_ranges(store: &Store, point: &StoredPoint) -> Result<Tree, StoreError> {
    restore_by(store, point, |id, len| store.reader().chunk_range(id, 0..len, Deadline::NEVER))
}

pub(super) fn delete_catalog(dir: &Path) {
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
}

/// Forgets a point in staging and frees its packs there.
pub(super) fn forget_and_free(store: &Store, point: &StoredPoint) {
    let p = &point.point;
    store.staging().remove(&names::point(&p.source_tag, &p.id)).unwrap();
    store.catalog().remove_point(&p.id, None).unwrap();
    reclaim::free_staging(store, &VoidMonitor).unwrap();
}

pub(super) fn push(
    store: &Store,
    point: &StoredPoint,
    monitor: &RecordingMonitor,
) -> Result<copy::Pushed, StoreError> {
    let (no, _, transfer) = store.vaults()[0].clone();
    copy::refresh_vault(store, no, &transfer, monitor)?;
    copy::push_point(store, no, &transfer, &point.point.id, monitor)
}

pub(super) fn prepared(home: &Home) -> (Arc<MemoryVault>, Store) {
    let vault = Arc::new(MemoryVault::new());
    let store = home.open_with(&vault);
    let slots = Store::head(&home.path()).unwrap().slots;
    copy::prepare_vault(&store, &slots, &store.vaults()[0].2.clone()).unwrap();
    (vault, store)
}

/// A store on a machine that had nothing, from the vault alone.
pub(super) fn recovered(home: &Home, vault: &Arc<MemoryVault>) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    Store::adopt(&path, &copy::vault_head(&transfer(vault)).unwrap()).unwrap();
    (dir, reopened(home, vault, &path))
}

pub(super) fn reopened(home: &Home, vault: &Arc<MemoryVault>, path: &Path) -> Store {
    let options = Home::options(vec![("memory:v".into(), transfer(vault))]);
    Store::open(path, &home.ring, options, &VoidMonitor).unwrap()
}

pub(super) fn data_packs(store: &Store) -> Vec<PackRow> {
    let packs = store.catalog().packs().unwrap();
    packs.into_iter().filter(|pack| pack.entry.kind == PackKind::Data).collect()
}

#[test]
fn a_reader_of_another_process_gets_right_bytes_after_packs_were_freed_and_others_made() {
    let home = Home::new();
    let (writer, reader) = (home.open(), home.open());
    let first = take_point(&writer, &sample(1)).unwrap();
    assert!(restore_by_ranges(&reader, &first).unwrap() == sample(1));
    forget_and_free(&writer, &first);
    assert_eq!(writer.catalog().packs().unwrap(), []);
    let second = take_point(&writer, &sample(2)).unwrap();
    assert!(restore_by_ranges(&reader, &second).unwrap() == sample(2));
}

#[test]
fn a_reader_whose_catalog_was_deleted_and_made_anew_gets_right_bytes_or_an_error() {
    let home = Home::new();
    let reader = home.open();
    let points: Vec<_> = (1..4).map(|n| take_point(&reader, &sample(n)).unwrap()).collect();
    drop(home.open());
    delete_catalog(&home.path());
    drop(home.open());
    let right = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|s| {
        for thread in 0..16 {
            let (points, reader, right) = (&points, &reader, &right);
            s.spawn(move || {
                let n = thread % 3;
                if let Ok(files) = restore_by_ranges(reader, &points[n]) {
                    assert!(files == sample(n as u32 + 1));
                    right.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    // The connection that was open already goes on with what it knows, once nobody who reads ahead has it.
    let again = || restore_by_ranges(&reader, &points[0]).is_ok_and(|files| files == sample(1));
    let done = (0..2000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        again()
    });
    assert!(done);
}

#[test]
fn a_flipped_bit_in_the_catalog_is_never_other_bytes() {
    let home = Home::new();
    let point = take_point(&home.open(), &sample(1)).unwrap();
    // Of file data: pages of directories are compared with their ids.
    let (chunk, pack) = ("chunk WHERE pack IN (SELECT no FROM pack WHERE kind = 1)", "pack WHERE kind = 1");
    for (table, change) in [
        (chunk, "start = start + 64"),
        (chunk, "len = len - 1"),
        (chunk, "pack = CASE pack WHEN 1 THEN 2 ELSE 1 END"),
        (pack, "frames = CAST(substr(frames, 1, 4) || x'10000200' || substr(frames, 9) AS BLOB)"),
        (pack, "no = no + 100"),
    ] {
        let store = home.open();
        let db = rusqlite::Connection::open(home.path().join("catalog.db")).unwrap();
        let (name, rows) = table.split_once(' ').unwrap();
        db.execute_batch(&format!("PRAGMA foreign_keys = OFF; UPDATE OR IGNORE {name} SET {change} {rows}"))
            .unwrap();
        assert!(restore_by_ranges(&store, &point).is_err(), "{change}");
        drop((db, store));
        delete_catalog(&home.path());
        assert!(restore_by_ranges(&home.open(), &point).unwrap() == sample(1), "{change}");
    }
}

#[test]
fn a_catalog_that_is_empty_or_was_never_filled_is_filled() {
    let home = Home::new();
    take_point(&home.open(), &sample(1)).unwrap();
    delete_catalog(&home.path());
    std::fs::write(home.path().join("catalog.db"), b"").unwrap();
    assert_eq!(home.open().points().unwrap().len(), 1);
    // A former opener was killed before it had filled it.
    delete_catalog(&home.path());
    let id = Store::head(&home.path()).unwrap().vault.0;
    drop(Catalog::open(&home.path().join("catalog.db"), &id).unwrap());
    let store = home.open();
    assert_eq!(store.points().unwrap().len(), 1);
    assert!(restore(&store, &store.points().unwrap()[0]).unwrap() == sample(1));
}

#[test]
fn after_its_catalog_was_made_anew_a_store_trusts_no_earlier_point_unseen() {
    let home = Home::new();
    let store = home.open();
    take_point(&store, &sample(1)).unwrap();
    let pack = data_packs(&store).remove(0);
    drop(store);
    delete_catalog(&home.path());
    std::fs::remove_file(home.path().join(names::pack(&pack.entry.id).as_str())).unwrap();
    let store = home.open();
    assert!(store.begin(Compression::None, &VoidMonitor).unwrap().suspicious());
    take_point(&store, &sample(1)).unwrap();
    assert!(restore(&store, &store.points().unwrap()[0]).unwrap() == sample(1));
    // A check that finds everything ends the doubt.
    let report = crate::check::check(&store, crate::check::Depth::Structure, &VoidMonitor).unwrap();
    assert!(report.findings.iter().all(|finding| finding.object.starts_with("keys/")), "{report:?}");
    store.catalog().set_mark(Mark::Doubtful, false).unwrap();
    assert!(!store.begin(Compression::None, &VoidMonitor).unwrap().suspicious());
}

#[test]
fn what_a_vault_lost_is_sent_again_with_the_next_point_that_needs_it() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let monitor = RecordingMonitor::default();
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &monitor).unwrap();
    let pack = data_packs(&store).remove(0);
    assert!(store.vaults()[0].2.delete(&names::pack(&pack.entry.id)).unwrap());
    let two = take_point(&store, &sample(1)).unwrap();
    push(&store, &two, &monitor).unwrap();
    assert!(format!("{:?}", monitor.events()).contains("missing from vault"));
    let (_dir, there) = recovered(&home, &vault);
    for point in there.points().unwrap() {
        assert!(restore(&there, &point).unwrap() == sample(1));
    }
}

#[test]
fn a_point_that_a_vault_lost_is_named_and_put_again() {
    for is_checked in [false, true] {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let monitor = RecordingMonitor::default();
        let one = take_point(&store, &sample(1)).unwrap();
        push(&store, &one, &monitor).unwrap();
        let name = names::point(&one.point.source_tag, &one.point.id);
        assert!(store.vaults()[0].2.delete(&name).unwrap());
        if is_checked {
            let report = crate::check::check(&store, crate::check::Depth::Structure, &VoidMonitor).unwrap();
            assert!(report.findings.iter().any(|finding| finding.object == name.as_str()), "{report:?}");
        }
        push(&store, &one, &monitor).unwrap();
        let is_told = format!("{:?}", monitor.events()).contains("recovery point is missing");
        assert_eq!(is_told, !is_checked, "by who misses it first");
        assert!(vault.object(&name).is_some());
    }
}

#[test]
fn nothing_new_relies_on_what_a_vault_alone_held_and_lost_or_cannot_show() {
    for away in [false, true] {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let one = take_point(&store, &sample(1)).unwrap();
        push(&store, &one, &RecordingMonitor::default()).unwrap();
        let (dir, there) = recovered(&home, &vault);
        let there = if away {
            drop(there);
            // No way to the vault any more: the catalog still knows what it held.
            let path = dir.path().join("new");
            Store::open(&path, &home.ring, Home::options(Vec::new()), &VoidMonitor).unwrap()
        } else {
            let pack = data_packs(&there).remove(0);
            assert!(there.vaults()[0].2.delete(&names::pack(&pack.entry.id)).unwrap());
            there
        };
        let two = take_point(&there, &sample(1)).unwrap();
        assert!(restore(&there, &two).unwrap() == sample(1), "away: {away}");
    }
}

#[test]
fn a_vault_whose_listings_do_not_end_keeps_nothing_from_the_next_one() {
    let (home, clock) = (Home::new(), Arc::new(ManualClock::default()));
    let liar = Arc::new(FaultyVault::new(Arc::new(MemoryVault::new()), clock.clone()));
    let good = Arc::new(MemoryVault::new());
    let to_liar = Transfer::new(liar.clone(), clock, TransferPolicy::default()).unwrap();
    let ways = vec![("memory:liar".into(), to_liar), ("memory:good".into(), transfer(&good))];
    let open = || Store::open(&home.path(), &home.ring, Home::options(ways.clone()), &VoidMonitor).unwrap();
    let push = |store: &Store, point: &StoredPoint, nth: usize| {
        let (no, _, way) = &store.vaults()[nth];
        copy::refresh_vault(store, *no, way, &VoidMonitor)?;
        copy::push_point(store, *no, way, &point.point.id, &VoidMonitor).map(drop)
    };
    let store = open();
    let slots = Store::head(&home.path()).unwrap().slots;
    for (_, _, way) in store.vaults() {
        assert_eq!(copy::prepare_vault(&store, &slots, way).unwrap(), None);
    }
    let first = take_point(&store, &sample(1)).unwrap();
    (0..2).for_each(|nth| push(&store, &first, nth).unwrap());
    liar.fail_from(Verb::List, 1, VaultFault::Endless);
    drop(store);
    delete_catalog(&home.path());
    let store = open();
    let second = take_point(&store, &sample(2)).unwrap();
    let error = push(&store, &second, 0).unwrap_err();
    assert!(error.to_string().contains("does not go on where it was"), "{error}");
    push(&store, &second, 1).unwrap();
    let p = &second.point;
    assert!(good.object(&names::point(&p.source_tag, &p.id)).is_some());
}

#[test]
fn points_that_only_a_vault_holds_outlive_the_catalog() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    forget_and_free(&store, &one);
    drop(store);
    delete_catalog(&home.path());
    let store = home.open_with(&vault);
    let points = store.points().unwrap();
    assert_eq!(points.len(), 1);
    assert!(restore(&store, &points[0]).unwrap() == sample(1));
}

#[test]
fn a_pack_that_moves_to_the_vault_while_it_is_read_is_followed() {
    let home = Home::new();
    let (vault, writer) = prepared(&home);
    let reader = home.open_with(&vault);
    let one = take_point(&writer, &sample(1)).unwrap();
    // It looks up where everything lies; files that it has open would stay readable.
    for pack in reader.catalog().packs().unwrap() {
        for chunk in reader.catalog().chunks_of(pack.no).unwrap() {
            assert_eq!(reader.reader().tier(&chunk.id).unwrap(), crate::reader::Tier::Staging);
        }
    }
    push(&writer, &one, &RecordingMonitor::default()).unwrap();
    forget_and_free(&writer, &one);
    assert!(restore_by_ranges(&reader, &one).unwrap() == sample(1));
}

#[test]
fn nothing_is_freed_in_a_vault_that_a_point_needs_which_only_the_vault_knows() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let (no, _, transfer) = store.vaults()[0].clone();
    // As after a catalog was lost: the packs are known by their listing, the point is not.
    store.catalog().remove_point(&one.point.id, Some(no)).unwrap();
    let plan = reclaim::plan(&store, Place::Vault(no), &VoidMonitor).unwrap();
    assert_eq!(plan.with(reclaim::Verdict::Delete).count(), 0);
    // Nor where it cannot be opened.
    let name = names::point(&one.point.source_tag, &one.point.id);
    store.catalog().remove_point(&one.point.id, Some(no)).unwrap();
    vault.replace(&name, bytes::Bytes::from_static(b"not a point"));
    assert!(reclaim::plan(&store, Place::Vault(no), &VoidMonitor).is_err());
    assert!(transfer.stat(&name).unwrap().is_some());
}

#[test]
fn nobody_puts_a_point_into_a_vault_or_learns_of_one_there_while_points_go() {
    let home = Home::new();
    let (_vault, store) = prepared(&home);
    let (no, _, way) = store.vaults()[0].clone();
    let one = take_point(&store, &sample(1)).unwrap();
    let going = store.lock_vault_removals().unwrap();
    let pushed = copy::push_point(&store, no, &way, &one.point.id, &VoidMonitor).map(drop);
    let learnt = copy::learn_points(&store, no, &way).map(drop);
    for done in [pushed, learnt, copy::load_catalog(&store, no, &way, &VoidMonitor)] {
        assert_eq!(done.unwrap_err().class(), crate::ErrorClass::Locked);
    }
    // Who takes a point is kept by none of it.
    take_point(&store, &sample(2)).unwrap();
    drop(going);
    copy::push_point(&store, no, &way, &one.point.id, &VoidMonitor).unwrap();
    copy::load_catalog(&store, no, &way, &VoidMonitor).unwrap();
}

#[test]
fn a_point_whose_object_was_deleted_is_written_again() {
    let home = Home::new();
    let store = home.open();
    let one = take_point(&store, &sample(1)).unwrap();
    let name = names::point(&one.point.source_tag, &one.point.id);
    std::fs::remove_file(home.path().join(name.as_str())).unwrap();
    take_point(&store, &sample(2)).unwrap();
    drop(store);
    delete_catalog(&home.path());
    let store = home.open();
    let points = store.points().unwrap();
    assert_eq!(points.len(), 2);
    assert!(restore(&store, &points[0]).unwrap() == sample(1));
}

#[test]
fn what_is_not_damaged_of_a_damaged_pack_can_still_be_read() {
    let home = Home::new();
    let store = home.open();
    let one = take_point(&store, &sample(1)).unwrap();
    let pack = data_packs(&store).remove(0);
    store.catalog().set_bad(pack.no, true).unwrap();
    assert!(restore(&store, &one).unwrap() == sample(1));
}

#[test]
fn a_catalog_that_lost_its_last_commits_is_mended_when_it_is_opened() {
    let home = Home::new();
    let store = home.open();
    take_point(&store, &sample(1)).unwrap();
    drop(store);
    let db = rusqlite::Connection::open(home.path().join("catalog.db")).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(db);
    std::fs::copy(home.path().join("catalog.db"), home.dir.path().join("old")).unwrap();
    take_point(&home.open(), &sample(2)).unwrap();
    delete_catalog(&home.path());
    std::fs::copy(home.dir.path().join("old"), home.path().join("catalog.db")).unwrap();
    let store = home.open();
    let points = store.points().unwrap();
    assert_eq!(points.len(), 2);
    assert!(restore(&store, &points[1]).unwrap() == sample(2));
}
