//! Tests of points that go into a vault with what it lacks of them and no more, though most of what staging stores is of points
//! that never go there.

use super::hostile::{data_packs, prepared, push, recovered};
use super::losses::{faulty, open_on, open_once};
use super::*;
use crate::check::{self, Depth};
use crate::id::ChunkId;
use crate::monitor::Event;
use crate::pack::{FrameBuilder, PackBuilder};
use crate::reclaim::{self, Place, Reclaimed};
use crate::vault::Verb;
use crate::vault::testing::Fault as VaultFault;

/// Somebody works: some files are saved over and over, one is new each time and stays, one of the old ones changes.
pub(super) struct Work {
    pub(super) files: Tree,
    moment: u32,
}

impl Work {
    pub(super) fn begins() -> Self {
        let old = (0..40).map(|n| (format!("old{n:02}"), noise(&format!("old {n}"), 40_000 + 500 * n)));
        Self { files: old.collect(), moment: 0 }
    }

    pub(super) fn goes_on(&mut self) {
        self.moment += 1;
        let now = self.moment;
        for n in 0..6 {
            self.files.insert(format!("draft{n}"), noise(&format!("draft {n} {now}"), 60_000));
        }
        self.files.insert(format!("new{now:03}"), noise(&format!("new {now}"), 50_000));
        let old = self.files.get_mut(&format!("old{:02}", now % 40)).unwrap();
        old[20_000..20_010].copy_from_slice(&noise(&format!("change {now}"), 10));
    }

    /// Goes on and takes points of it; the last one, and what it must restore to.
    pub(super) fn taken(&mut self, store: &Store, points: usize) -> (StoredPoint, Tree) {
        let mut last = None;
        for _ in 0..points {
            self.goes_on();
            last = Some(take_point(store, &self.files).unwrap());
        }
        (last.unwrap(), self.files.clone())
    }
}

pub(super) fn forget_here(store: &Store, point: &StoredPoint) {
    let p = &point.point;
    store.staging().remove(&names::point(&p.source_tag, &p.id)).unwrap();
    store.catalog().remove_point(&p.id, None).unwrap();
}

fn forget_there(store: &Store, point: &StoredPoint) {
    let row = store.catalog().point(&point.point.id).unwrap().unwrap();
    store.remove_point_from_vault(store.vaults()[0].0, &row).unwrap();
}

pub(super) fn prune(store: &Store, place: Place) -> Reclaimed {
    if let Place::Vault(no) = place {
        return free_in_vault(store, no, &VoidMonitor);
    }
    reclaim::free_staging(store, &VoidMonitor).unwrap().1
}

/// Whoever has the vault alone reads all these points whole.
pub(super) fn assert_recovers(home: &Home, vault: &Arc<MemoryVault>, expected: &[(StoredPoint, Tree)]) {
    let (_dir, there) = recovered(home, vault);
    assert_eq!(there.points().unwrap().len(), expected.len());
    for (point, files) in expected {
        let point = there.point(&point.point.id).unwrap();
        assert!(restore(&there, &point).unwrap() == *files);
    }
    let report = check::check(&there, Depth::ReadData, &VoidMonitor).unwrap();
    // The slots of these stores are not real ones.
    assert!(report.findings.iter().all(|f| f.object.starts_with("keys/")), "{report:?}");
}

/// What lies more than once in the vault's packs.
fn twice(home: &Home, vault: &Arc<MemoryVault>) -> Vec<ChunkId> {
    let (_dir, there) = recovered(home, vault);
    let mut seen = std::collections::HashSet::new();
    let packs = there.catalog().packs().unwrap();
    let chunks = packs.iter().flat_map(|pack| there.catalog().chunks_of(pack.no).unwrap());
    chunks.map(|chunk| chunk.id).filter(|id| !seen.insert(*id)).collect()
}

/// Another machine of the same store, which takes online points only: what a vault gets from it.
struct OnlineOnly {
    _dir: tempfile::TempDir,
    vault: Arc<crate::vault::testing::FaultyVault>,
    store: Store,
}

impl OnlineOnly {
    fn new(home: &Home) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (path, head) = (dir.path().join("store"), Store::head(&home.path()).unwrap());
        Store::adopt(&path, &head).unwrap();
        let vault = faulty(&Arc::new(MemoryVault::new()));
        let store = open_on(home, &path, vault.clone());
        copy::prepare_vault(&store, &head.slots, &store.vaults()[0].2.clone()).unwrap();
        vault.forget();
        Self { _dir: dir, vault, store }
    }

    fn takes(&self, files: &Tree) {
        let point = take_point(&self.store, files).unwrap();
        push(&self.store, &point, &RecordingMonitor::default()).unwrap();
    }
}

#[test]
#[allow(clippy::print_stdout)]
fn a_vault_gets_what_its_points_need_and_hardly_more_and_all_of_them_are_whole_through_every_prune() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    drop(store);
    let counted = faulty(&vault);
    let store = open_on(&home, &home.path(), counted.clone());
    let only = OnlineOnly::new(&home);
    let (mut work, mut here, mut there) = (Work::begins(), Vec::new(), Vec::new());
    for _day in 0..10 {
        for _ in 0..8 {
            here.push(work.taken(&store, 1));
        }
        push(&store, &here.last().unwrap().0, &RecordingMonitor::default()).unwrap();
        there.push(here.last().unwrap().clone());
        only.takes(&work.files);
        // Two days stay here.
        let goes = here.len().saturating_sub(16);
        here.drain(..goes).for_each(|(point, _)| forget_here(&store, &point));
        prune(&store, Place::Staging);
    }
    let (sent, needed) = (counted.bytes(Verb::Put), only.vault.bytes(Verb::Put));
    println!(
        "put into the vault: {sent} bytes; from online points alone: {needed}; {:.4}",
        sent as f64 / needed as f64
    );
    assert!(sent * 100 <= needed * 103, "{sent} for {needed}");
    assert!(here.iter().all(|(point, files)| restore(&store, point).unwrap() == *files));
    let no = store.vaults()[0].0;
    assert_eq!(prune(&store, Place::Vault(no)), Reclaimed::default());
    assert_recovers(&home, &vault, &there);
    // Now points expire there, and here.
    for _ in 0..5 {
        let (gone, _) = there.remove(0);
        forget_there(&store, &gone);
    }
    here.drain(..8).for_each(|(point, _)| forget_here(&store, &point));
    assert!(prune(&store, Place::Staging).packs > 0);
    assert!(prune(&store, Place::Vault(no)).packs > 0);
    assert!(here.iter().all(|(point, files)| restore(&store, point).unwrap() == *files));
    assert_recovers(&home, &vault, &there);
}

#[test]
fn a_chunk_that_a_pack_has_twice_is_there_once_when_what_nobody_needs_of_the_pack_is_freed() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let files = sample(1);
    let point = take_point(&store, &files).unwrap();
    push(&store, &point, &RecordingMonitor::default()).unwrap();
    // As another writer might put it: all chunks in one pack, each twice, with as much again that no point needs.
    let (chunker, sealer) = (store.chunker(), store.sealer());
    let mut plains = Vec::new();
    for content in files.values() {
        let mut rest = &content[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunker.cut(rest));
            plains.push(chunk.to_vec());
            rest = after;
        }
    }
    let bytes: usize = plains.iter().map(Vec::len).sum();
    plains.extend(plains.clone());
    plains.push(noise("junk", 4 * bytes));
    let mut frames = FrameBuilder::new(16 << 10, Compression::None);
    let mut pack = PackBuilder::new(sealer, PackKind::Data, 0);
    for plain in &plains {
        frames.push(sealer.chunk_id(ChunkType::Data, plain), plain);
        pack.push(sealer, frames.take());
    }
    let pack = pack.finish(sealer);
    let others = data_packs(&store).into_iter().map(|pack| names::pack(&pack.entry.id));
    let indexes = vault.names().into_iter().filter(|name| name.as_str().starts_with(names::INDEXES));
    others.chain(indexes).for_each(|name| vault.lose(&name));
    let name = names::pack(&pack.entry.id);
    vault.replace(&name, pack.bytes);
    assert!(!twice(&home, &vault).is_empty());
    let expected = [(point, files)];
    assert_recovers(&home, &vault, &expected);

    let (_dir, there) = recovered(&home, &vault);
    free_in_vault(&there, there.vaults()[0].0, &VoidMonitor);
    assert_eq!(vault.object(&name), None, "most of it is needed by nobody");
    assert_recovers(&home, &vault, &expected);
    assert_eq!(twice(&home, &vault), []);
}

#[test]
fn a_push_cut_off_at_any_request_and_again_goes_on_and_sends_nothing_twice() {
    for fault in [VaultFault::Deny, VaultFault::FailAfter] {
        for n in 1.. {
            let home = Home::new();
            let (vault, store) = prepared(&home);
            let mut work = Work::begins();
            let first = work.taken(&store, 1);
            push(&store, &first.0, &RecordingMonitor::default()).unwrap();
            let last = work.taken(&store, 6);
            drop(store);
            let cut = faulty(&vault);
            let open = || open_once(&home, cut.clone());
            let mut struck = false;
            for _ in 0..3 {
                let store = open();
                cut.forget();
                cut.fail_any_from(n, fault);
                struck |= push(&store, &last.0, &RecordingMonitor::default()).is_err();
                cut.heal();
            }
            push(&open(), &last.0, &RecordingMonitor::default()).unwrap();
            assert_eq!(twice(&home, &vault), [], "{fault:?} at {n}");
            assert_recovers(&home, &vault, &[first, last]);
            if !struck {
                assert!(n > 15, "{n} requests are few");
                break;
            }
        }
    }
}

#[test]
fn what_the_vault_has_in_another_pack_is_not_sent_again() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let mut work = Work::begins();
    let first = work.taken(&store, 1);
    push(&store, &first.0, &RecordingMonitor::default()).unwrap();
    // All old files but one change: its pack is thin now, and written anew here.
    for n in 0..39 {
        work.files.insert(format!("old{n:02}"), noise(&format!("other {n}"), 40_000));
    }
    let last = take_point(&store, &work.files).unwrap();
    forget_here(&store, &first.0);
    assert!(prune(&store, Place::Staging).packs_rewritten > 0);
    let has = |catalog: &Catalog| {
        let (rows, no) = (catalog.packs().unwrap(), store.vaults()[0].0);
        rows.into_iter().filter(|row| row.vaults.contains(&no)).map(|row| row.entry.len).sum::<u64>()
    };
    let before = has(store.catalog());
    let pushed = push(&store, &last, &RecordingMonitor::default()).unwrap();
    assert!(pushed.packs_there > 0 && has(store.catalog()) - before == pushed.bytes, "{pushed:?}");
    assert_eq!(twice(&home, &vault), []);
    assert_recovers(&home, &vault, &[first, (last, work.files)]);
}

#[test]
fn packs_are_new_where_a_point_needs_a_part_and_of_one_kind_and_in_the_order_of_the_old_ones() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let (last, files) = Work::begins().taken(&store, 6);
    let staged: Vec<_> = store.catalog().packs().unwrap();
    let pushed = push(&store, &last, &RecordingMonitor::default()).unwrap();
    let no = store.vaults()[0].0;
    let there: Vec<_> =
        store.catalog().packs().unwrap().into_iter().filter(|row| row.vaults.contains(&no)).collect();
    let (as_they_were, new): (Vec<_>, Vec<_>) = there.into_iter().partition(|row| row.staged);
    assert_eq!(pushed.packs, (as_they_were.len() + new.len()) as u64);
    assert!(!as_they_were.is_empty());
    for kind in [PackKind::Data, PackKind::Tree] {
        let chunks = |row: &PackRow| store.catalog().chunks_of(row.no).unwrap().into_iter();
        let of_kind = |rows: &[PackRow]| -> Vec<ChunkId> {
            let rows = rows.iter().filter(|row| row.entry.kind == kind);
            rows.flat_map(|row| chunks(row).map(|chunk| chunk.id)).collect()
        };
        let (old, new) = (of_kind(&staged), of_kind(&new));
        let in_old_order: Vec<_> = old.into_iter().filter(|id| new.contains(id)).collect();
        assert!(kind == PackKind::Tree || !new.is_empty());
        assert_eq!(in_old_order, new, "{kind:?}");
    }
    // Judged by this point alone.
    let others = store.points().unwrap().into_iter().filter(|point| point.point.id != last.point.id);
    others.for_each(|point| forget_here(&store, &point));
    let plan = reclaim::plan(&store, Place::Vault(no), &VoidMonitor).unwrap();
    assert!(plan.packs.iter().all(|judged| judged.live * 100 >= judged.total * 98));
    assert_recovers(&home, &vault, &[(last, files)]);
}

#[test]
fn a_vault_whose_packs_hold_what_staging_has_in_others_is_not_the_only_one_to_have_it() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let (last, files) = Work::begins().taken(&store, 6);
    let pushed = push(&store, &last, &RecordingMonitor::default()).unwrap();
    let (catalog, no) = (store.catalog(), store.vaults()[0].0);
    let not_here = || catalog.packs().unwrap().into_iter().filter(|row| !row.staged).count() as u64;
    assert!((1..pushed.packs).contains(&not_here()));
    assert_eq!((catalog.vaults_that_alone_hold().unwrap(), catalog.packs_alone_in(no).unwrap()), (vec![], 0));
    store.points().unwrap().iter().for_each(|point| forget_here(&store, point));
    prune(&store, Place::Staging);
    assert_eq!(catalog.vaults_that_alone_hold().unwrap(), [no]);
    assert_eq!(catalog.packs_alone_in(no).unwrap(), not_here());
    let other = catalog.vault_no("memory:other").unwrap();
    let row = catalog.packs().unwrap().remove(0);
    catalog.set_confirmed(row.no, other, true).unwrap();
    assert_eq!(catalog.packs_alone_in(no).unwrap(), not_here() - 1);
    catalog.set_mark(crate::catalog::Mark::BadIn(other, row.entry.id), true).unwrap();
    assert_eq!(catalog.packs_alone_in(no).unwrap(), not_here());
    assert_recovers(&home, &vault, &[(last, files)]);
}

/// Files and bytes that a push announced before it sent any.
fn announced(monitor: &RecordingMonitor) -> (u64, u64) {
    let mut stages = monitor.events().into_iter().filter_map(|event| match event {
        Event::Stage { name: "upload", files_total, bytes_total } => Some((files_total, bytes_total)),
        _ => None,
    });
    stages.next().unwrap()
}

#[test]
fn what_a_push_announces_is_what_it_sends_and_of_new_packs_nearly() {
    let home = Home::new();
    let (_vault, store) = prepared(&home);
    let mut work = Work::begins();
    let pushed_and_announced = |point: &StoredPoint| {
        let monitor = RecordingMonitor::default();
        (push(&store, point, &monitor).unwrap(), announced(&monitor))
    };
    let (pushed, announced) = pushed_and_announced(&work.taken(&store, 1).0);
    assert_eq!(announced, (pushed.packs, pushed.bytes));
    // Of the moments between only a part goes, in new packs.
    let (pushed, (files, bytes)) = pushed_and_announced(&work.taken(&store, 6).0);
    assert!(files.abs_diff(pushed.packs) <= 1, "{files} {pushed:?}");
    assert!(bytes.abs_diff(pushed.bytes) * 10 < pushed.bytes, "{bytes} {pushed:?}");
}
