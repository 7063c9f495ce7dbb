//! Each change of a file of staging over a life of a store without a vault × what can become of it: the power goes, with it names that were
//! not yet durable, in all ways; a disk that fails or is full, once or for ever. What was acknowledged is there, and the next run succeeds.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use holdfast_store::check::{self, Depth};
use holdfast_store::error::StoreError;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::reclaim;
use holdfast_store::staging::{Fault, FaultyFiles, FileEntry, Files, Identity, MemoryFiles, Room};
use holdfast_store::store::Store;
use holdfast_store::tree::testing::TestRandom;
use tempfile::TempDir;

use super::lab::{Lab, copied, files, lost, take};
use super::{Slice, each};

/// So many names at risk are lost in all ways, more of them in some.
const RISKS: usize = 6;
/// The version of the files that the last run finds.
const NEXT: u32 = 9;
/// Ways to lose more of them.
const SOME: u64 = 64;

/// A store whose objects lie in memory, and the rest of it in a directory.
struct Disk<'a> {
    lab: &'a Lab,
    _dir: TempDir,
    path: PathBuf,
    files: Arc<MemoryFiles>,
}

/// What was done before it ended.
#[derive(Default)]
struct Lived {
    taken: Vec<RecoveryPointId>,
    forgetting: bool,
    error: Option<StoreError>,
}

fn load(files: &MemoryFiles, dir: &Path, prefix: &str) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => load(files, &entry.path(), &format!("{name}/")),
            false if prefix.is_empty() && name != "config" && name != "ballast" => {}
            false => files.write_synced(&name, &std::fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}

/// All files but those that are `lost`.
fn copy_files(from: &MemoryFiles, dir: &str, lost: &BTreeSet<&str>, to: &MemoryFiles) {
    for entry in from.list(dir).unwrap() {
        let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
        match entry.len {
            None => copy_files(from, &path, lost, to),
            Some(_) if lost.contains(path.as_str()) => {}
            Some(_) => {
                let bytes = from.read_small(&path, usize::MAX).unwrap().unwrap();
                to.write_synced(&path, &bytes).unwrap();
            }
        }
    }
}

impl<'a> Disk<'a> {
    fn new(lab: &'a Lab) -> Self {
        let ((dir, path), files) = (lab.copy(), Arc::new(MemoryFiles::default()));
        load(&files, &path, "");
        Self { lab, _dir: dir, path, files }
    }

    /// The same after the power came back, without these names.
    fn without(&self, lost: &BTreeSet<&str>) -> Self {
        let ((dir, path), files) = (copied(&self.path), Arc::new(MemoryFiles::default()));
        copy_files(&self.files, "", lost, &files);
        Self { lab: self.lab, _dir: dir, path, files }
    }

    fn live(&self, files: Arc<dyn Files>) -> Lived {
        let mut lived = Lived::default();
        lived.error = self.live_on(files, &mut lived).err();
        lived
    }

    fn live_on(&self, on: Arc<dyn Files>, lived: &mut Lived) -> Result<(), StoreError> {
        let store = self.lab.open_on(on, &self.path)?;
        for version in [1, 2] {
            lived.taken.push(take(&store, &files(version), false)?.point.id);
        }
        store.place_hold(&lived.taken[1], "kept")?;
        lived.forgetting = true;
        {
            let _lock = store.lock()?;
            let row = store.catalog().point(&lived.taken[0])?;
            row.map_or(Ok(()), |row| store.remove_staged_point(&row))?;
        }
        reclaim::free_staging(&store, &VoidMonitor).map(drop)
    }

    /// What was acknowledged is there, and the next run succeeds and leaves all whole.
    fn examine(&self, lived: &Lived) -> Result<(), String> {
        let open = || self.lab.open_on(self.files.clone(), &self.path).map_err(|e| format!("open: {e}"));
        let store = open()?;
        let kept = lived.taken.iter().zip(1..).skip(usize::from(lived.forgetting));
        for (id, version) in kept.clone() {
            none_lost(&store, id, version)?;
        }
        let next = take(&store, &files(NEXT), false).map_err(|e| format!("the next run: {e}"))?;
        reclaim::free_staging(&store, &VoidMonitor).map_err(|e| format!("the next prune: {e}"))?;
        drop(store);
        let store = open()?;
        for (id, version) in kept.chain([(&next.point.id, NEXT)]) {
            none_lost(&store, id, version)?;
        }
        let report =
            check::check(&store, Depth::ReadData, &VoidMonitor).map_err(|e| format!("check: {e}"))?;
        let left = store.staging().list("tmp").map_err(|e| e.to_string())?;
        match report.findings.is_empty() && left.is_empty() {
            true => Ok(()),
            false => Err(format!("{:?}, left {left:?}", report.findings)),
        }
    }
}

fn none_lost(store: &Store, id: &RecoveryPointId, version: u32) -> Result<(), String> {
    match lost(store, id, &files(version))? {
        none if none.is_empty() => Ok(()),
        lost => Err(format!("point {version} lacks {lost:?}")),
    }
}

/// In which ways these names may be lost together.
fn ways(at_risk: &[String], seed: u64) -> Vec<BTreeSet<&str>> {
    let pick = |bits: u64| {
        let picked = at_risk.iter().enumerate().filter(|(n, _)| bits >> (n % 64) & 1 == 1);
        picked.map(|(_, name)| name.as_str()).collect()
    };
    if at_risk.len() <= RISKS {
        return (0..1 << at_risk.len()).map(pick).collect();
    }
    let mut random = TestRandom::new(seed);
    [0, u64::MAX].into_iter().chain((0..SOME).map(|_| random.next_u64())).map(pick).collect()
}

fn play(lab: &Lab, seed: u64, (n, fault): &(u64, Fault)) -> Result<(), String> {
    let disk = Disk::new(lab);
    let faulty = Arc::new(FaultyFiles::new(disk.files.clone()));
    faulty.fail_at(*n, *fault);
    let lived = disk.live(faulty);
    let what = |e: String| format!("{fault:?} at {n}: {e}, after {:?}", lived.error);
    let at_risk = if *fault == Fault::Crash { disk.files.at_risk() } else { Vec::new() };
    for lost in ways(&at_risk, seed) {
        disk.without(&lost).examine(&lived).map_err(|e| what(format!("{e}, without {lost:?}")))?;
    }
    Ok(())
}

/// Whether a life has so many changes; one in which nothing fails is as it should be.
fn strikes(lab: &Lab, n: u64) -> bool {
    let disk = Disk::new(lab);
    let faulty = Arc::new(FaultyFiles::new(disk.files.clone()));
    faulty.fail_at(n, Fault::Crash);
    let lived = disk.live(faulty.clone());
    let struck = faulty.struck();
    if !struck {
        assert!(lived.error.is_none(), "{:?}", lived.error);
        disk.examine(&lived).unwrap();
    }
    struck
}

/// Files of which syncs fail: what was to be synced then is not on the disk, and counts as written all the same, so that later syncs succeed.
#[derive(Debug)]
struct Unsynced {
    inner: Arc<MemoryFiles>,
    state: Mutex<SyncState>,
}

#[derive(Debug, Default)]
struct SyncState {
    fails: Range<u64>,
    done: u64,
    /// Files whose bytes are in memory alone.
    gone: BTreeSet<String>,
}

impl Unsynced {
    fn new(inner: &Arc<MemoryFiles>, fails: Range<u64>) -> Arc<Self> {
        let state = Mutex::new(SyncState { fails, ..SyncState::default() });
        Arc::new(Self { inner: inner.clone(), state })
    }

    fn state(&self) -> MutexGuard<'_, SyncState> {
        self.state.lock().unwrap()
    }

    /// Counts a sync; `unsynced` is what is lost with it if it fails.
    fn sync(&self, unsynced: Option<&str>) -> io::Result<()> {
        let mut state = self.state();
        state.done += 1;
        if !state.fails.contains(&(state.done - 1)) {
            return Ok(());
        }
        state.gone.extend(unsynced.map(str::to_owned));
        Err(io::Error::other("the disk did not take it"))
    }
}

impl Files for Unsynced {
    fn write_synced(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_synced(path, bytes)?;
        self.sync(Some(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)?;
        let mut state = self.state();
        state.gone.remove(to);
        if state.gone.remove(from) {
            state.gone.insert(to.to_owned());
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.sync(None)?;
        self.inner.sync_dir(dir)
    }

    fn sync_file(&self, path: &str) -> io::Result<()> {
        self.sync(Some(path))?;
        self.inner.sync_file(path)
    }

    fn make_dir(&self, dir: &str) -> io::Result<bool> {
        self.inner.make_dir(dir)
    }

    fn read_exact_at(&self, path: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact_at(path, offset, out)
    }

    fn read_small(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        self.inner.read_small(path, limit)
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        self.inner.len(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<FileEntry>> {
        self.inner.list(dir)
    }

    fn refuse_links(&self, dir: &str) -> io::Result<()> {
        self.inner.refuse_links(dir)
    }

    fn identity(&self, path: &str) -> io::Result<Option<Identity>> {
        self.inner.identity(path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.inner.remove(path)?;
        self.state().gone.remove(path);
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.inner.remove_dir(dir)
    }

    fn room(&self) -> io::Result<Room> {
        self.inner.room()
    }

    fn describe(&self, path: &str) -> PathBuf {
        self.inner.describe(path)
    }
}

/// Syncs fail, a run goes on before the power goes, and what no sync brought to the disk is gone then.
fn play_syncs(lab: &Lab, seed: u64, fails: &Range<u64>) -> Result<(), String> {
    let disk = Disk::new(lab);
    let unsynced = Unsynced::new(&disk.files, fails.clone());
    let mut lived = disk.live(unsynced.clone());
    unsynced.state().fails = 0..0;
    let what = |e: String| format!("syncs {fails:?} fail: {e}");
    if lived.taken.len() == 2 {
        let store = lab.open_on(unsynced.clone(), &disk.path).map_err(|e| what(e.to_string()))?;
        let next = take(&store, &files(3), false).map_err(|e| what(format!("the run after it: {e}")))?;
        lived.taken.push(next.point.id);
    }
    let at_risk = disk.files.at_risk();
    let gone = unsynced.state().gone.clone();
    for mut lost in ways(&at_risk, seed) {
        lost.extend(gone.iter().map(String::as_str));
        disk.without(&lost).examine(&lived).map_err(|e| what(format!("{e}, without {lost:?}")))?;
    }
    Ok(())
}

#[test]
fn a_sync_that_fails_costs_nothing_that_is_acknowledged_then_or_later_even_if_later_syncs_succeed() {
    let (lab, slice) = (Lab::new(), Slice::of("syncs"));
    let disk = Disk::new(&lab);
    let whole = Unsynced::new(&disk.files, 0..0);
    assert!(disk.live(whole.clone()).error.is_none());
    let syncs = whole.state().done;
    println!("{syncs} syncs");
    assert!(syncs > 20);
    let cells: Vec<_> = (0..syncs).flat_map(|n| [n..n + 1, n..u64::MAX]).collect();
    each(&cells, |fails| play_syncs(&lab, slice.seed, fails));
}

#[test]
fn a_fault_in_any_change_of_a_file_costs_nothing_that_was_acknowledged_and_the_next_run_succeeds() {
    let (lab, slice) = (Lab::new(), Slice::of("changes of files"));
    let changes = (0..).find(|n| !strikes(&lab, *n)).unwrap();
    println!("{changes} changes of files");
    assert!(changes > 30);
    let faults = [
        Fault::Crash,
        Fault::Once(ErrorKind::Other),
        Fault::ForEver(ErrorKind::Other),
        Fault::Once(ErrorKind::StorageFull),
        Fault::ForEver(ErrorKind::StorageFull),
    ];
    let cells: Vec<_> = (0..changes).flat_map(|n| faults.map(|fault| (n, fault))).collect();
    each(&cells, |cell| play(&lab, slice.seed, cell));
}
