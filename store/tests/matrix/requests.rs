//! Each request of a whole life of a store with a vault × what can become of a request. Whatever happens, the life ends in success or in
//! errors that name what happened; what was acknowledged restores from the vault alone; and the next run, in which nothing fails, leaves
//! a sound vault.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::check::{self, Depth};
use holdfast_store::clock::ManualClock;
use holdfast_store::error::StoreError;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::reclaim::{self, Terms};
use holdfast_store::store::Store;
use holdfast_store::transfer::TransferPolicy;
use holdfast_store::vault::Verb;
use holdfast_store::vault::memory::MemoryVault;
use holdfast_store::vault::testing::{Fault, FaultyVault};
use tempfile::TempDir;

use super::lab::{Lab, files, forget, lost, prepare, push, shown, take, transfer, way};
use super::{Slice, each};

const VERBS: [Verb; 6] = [Verb::Prepare, Verb::Put, Verb::Get, Verb::Stat, Verb::List, Verb::Delete];
/// Longer than a request may take.
const LONG: Duration = Duration::from_secs(3600);
const HOUR: i64 = 3600;

/// How a request fails, and those after it.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Requests of this kind are counted; all if there is none.
    verb: Option<Verb>,
    nth: u64,
    fault: Fault,
    /// All from this one on fail, until the machine starts anew.
    for_ever: bool,
    /// Requests are not tried again.
    once: bool,
}

/// What can become of a request of a kind.
fn faults_of(verb: Verb) -> Vec<Fault> {
    let all = [
        Fault::FailBefore,
        Fault::FailAfter,
        Fault::Busy(Duration::from_secs(30)),
        Fault::Deny,
        Fault::Gone,
        Fault::Full,
        Fault::Hang(LONG),
    ];
    let own: &[Fault] = match verb {
        Verb::Prepare => &[],
        Verb::Put => {
            &[Fault::Short, Fault::Long, Fault::Flip, Fault::Lie, Fault::Ignore, Fault::Taken, Fault::Twice]
        }
        Verb::Get => &[Fault::Short, Fault::Long, Fault::Flip, Fault::Lie],
        Verb::Stat => &[Fault::Short, Fault::Long],
        Verb::List => &[
            Fault::Short,
            Fault::Long,
            Fault::Stale(1),
            Fault::Stale(2),
            Fault::Stale(usize::MAX),
            Fault::Endless,
        ],
        Verb::Delete => &[Fault::Ignore, Fault::Twice],
    };
    all.into_iter().chain(own.iter().copied()).collect()
}

fn is_transient(fault: Fault) -> bool {
    matches!(fault, Fault::FailBefore | Fault::FailAfter | Fault::Busy(_) | Fault::Hang(_))
}

/// A machine with its store and its vault.
struct World<'a> {
    lab: &'a Lab,
    _dir: TempDir,
    path: PathBuf,
    vault: Arc<MemoryVault>,
}

/// How far a life came.
#[derive(Default)]
struct Lived {
    taken: Vec<RecoveryPointId>,
    vaulted: Vec<RecoveryPointId>,
    /// Whether it was begun to remove the first point from the vault, and whether that was done.
    forgetting: bool,
    forgotten: bool,
    errors: Vec<String>,
}

impl Lived {
    fn note<T>(&mut self, step: &str, outcome: Result<T, StoreError>) -> Option<T> {
        outcome.map_err(|e| self.errors.push(format!("{step}: {e}"))).ok()
    }
}

impl<'a> World<'a> {
    fn new(lab: &'a Lab) -> Self {
        let (dir, path) = lab.copy();
        Self { lab, _dir: dir, path, vault: Arc::new(MemoryVault::new()) }
    }

    /// Each step is a command of its own: what fails keeps nobody from the next one.
    fn live(&self, faulty: Arc<FaultyVault>, clock: Arc<ManualClock>, policy: TransferPolicy) -> Lived {
        let (mut lived, transfer) = (Lived::default(), transfer(faulty, clock, policy));
        let Some(store) = lived.note("open", self.lab.open(&self.path, Some(transfer.clone()))) else {
            return lived;
        };
        let no = store.vaults()[0].0;
        lived.note("prepare", prepare(&store));
        for version in [1, 2] {
            let Some(point) = lived.note("take", take(&store, &files(version), version > 1)) else {
                continue;
            };
            let id = point.point.id;
            lived.taken.push(id);
            if lived.note("push", push(&store, &id)).is_some() {
                lived.vaulted.push(id);
            }
        }
        if let [one, two] = lived.taken[..] {
            let held = store.place_hold(&two, "kept").and_then(|_| store.bring_holds(no));
            lived.note("hold", held);
            lived.forgetting = lived.vaulted.contains(&one);
            if lived.forgetting {
                lived.forgotten = lived.note("forget", forget(&store, &one)).is_some();
            }
        }
        lived.note("reclaim", reclaim::advance(&store, no, &Terms::AT_ONCE, &HashSet::new(), &VoidMonitor));
        drop(store);
        let recovered = self.lab.recover(&transfer);
        if let Some((_dir, there)) = lived.note("recover", recovered) {
            for (id, version) in lived.taken.clone().iter().zip([1, 2]) {
                if let Err(wrong) = lost(&there, id, &files(version)) {
                    lived.errors.push(format!("WRONG: {wrong}"));
                }
            }
        }
        lived
    }

    /// What restores from the vault alone.
    fn examine(&self, lived: &Lived, expected: &[RecoveryPointId], all: bool) -> Result<(), String> {
        let recovered = self.lab.recover(&way(&self.vault));
        let (_dir, there) = match recovered {
            Ok(recovered) => recovered,
            Err(_) if !all || expected.is_empty() => return Ok(()),
            Err(e) => return Err(format!("the vault alone: {e}")),
        };
        let shown = shown(&there).map_err(|e| e.to_string())?;
        for (id, version) in lived.taken.iter().zip([1, 2]) {
            let is_expected = expected.contains(id);
            if !is_expected && !shown.contains(id) {
                continue;
            }
            let lost = lost(&there, id, &files(version)).map_err(|e| format!("point {version}: {e}"))?;
            if all && is_expected && !lost.is_empty() {
                return Err(format!("of point {version} the vault alone lacks {lost:?}"));
            }
        }
        Ok(())
    }

    /// The run after it: what was left is done, and everything is as it should be.
    fn go_on(&self, lived: &mut Lived) -> Result<(), String> {
        self.vault.set_now(48 * HOUR);
        let store = self.lab.open(&self.path, Some(way(&self.vault))).map_err(|e| format!("open: {e}"))?;
        let no = store.vaults()[0].0;
        let finish = |lived: &mut Lived| -> Result<(), StoreError> {
            prepare(&store)?;
            // What a vault confirmed and does not hold is found by who reads it, and put again by a push.
            check::check(&store, Depth::ReadData, &VoidMonitor)?;
            for version in lived.taken.len() as u32 + 1..3 {
                lived.taken.push(take(&store, &files(version), false)?.point.id);
            }
            let (one, two) = (lived.taken[0], lived.taken[1]);
            for id in [one, two].iter().skip(usize::from(lived.forgetting)) {
                push(&store, id)?;
            }
            store.place_hold(&two, "kept")?;
            store.bring_holds(no)?;
            if store.catalog().point(&one)?.is_some_and(|row| !row.vaults.is_empty()) {
                forget(&store, &one)?;
            }
            for round in 3..6 {
                self.vault.set_now(round * 24 * HOUR);
                reclaim::advance(&store, no, &Terms::AT_ONCE, &HashSet::new(), &VoidMonitor)?;
            }
            Ok(())
        };
        finish(lived).map_err(|e| format!("the next run: {e}"))?;
        assert_sound(&store, "the machine")?;
        let (_dir, there) = self.lab.recover(&way(&self.vault)).map_err(|e| format!("recover: {e}"))?;
        assert_sound(&there, "a machine that recovered")?;
        let (one, two) = (lived.taken[0], lived.taken[1]);
        let shown = shown(&there).map_err(|e| e.to_string())?;
        if shown != [two] {
            return Err(format!("{shown:?} instead of {two} alone, {one} was forgotten"));
        }
        match lost(&there, &two, &files(2))? {
            none if none.is_empty() => Ok(()),
            lost => Err(format!("the next run leaves a vault that lacks {lost:?}")),
        }
    }
}

fn assert_sound(store: &Store, who: &str) -> Result<(), String> {
    let report =
        check::check(store, Depth::ReadData, &VoidMonitor).map_err(|e| format!("{who}: check: {e}"))?;
    match report.findings.is_empty() && report.files.is_empty() {
        true => Ok(()),
        false => Err(format!("{who}: {:?} {:?}", report.findings, report.files)),
    }
}

fn clock_and_vault(world: &World<'_>) -> (Arc<ManualClock>, Arc<FaultyVault>) {
    let clock = Arc::new(ManualClock::default());
    (clock.clone(), Arc::new(FaultyVault::new(world.vault.clone(), clock)))
}

fn play(lab: &Lab, case: &Case) -> Result<(), String> {
    let world = World::new(lab);
    let (clock, faulty) = clock_and_vault(&world);
    match (case.verb, case.for_ever) {
        (Some(verb), false) => faulty.fail(verb, case.nth, case.fault),
        (Some(verb), true) => faulty.fail_from(verb, case.nth, case.fault),
        (None, false) => faulty.fail_any(case.nth, case.fault),
        (None, true) => faulty.fail_any_from(case.nth, case.fault),
    }
    let usual = TransferPolicy::default();
    let policy = if case.once { TransferPolicy { retry_budget: Duration::ZERO, ..usual } } else { usual };
    let mut lived = world.live(faulty.clone(), clock, policy);
    let struck = faulty.requests();
    let named = match case.verb {
        Some(verb) => struck.iter().filter(|r| r.verb == verb).nth(case.nth as usize - 1),
        None => struck.get(case.nth as usize - 1),
    };
    let what = format!("{case:?} {named:?}, errors {:?}", lived.errors);
    if lived.errors.iter().any(|e| e.starts_with("WRONG") || e.contains("catalog:")) {
        return Err(what);
    }
    // A vault that says that it took bytes and took others breaks its promise: that costs no wrong bytes, and is found and put right.
    let keeps = !(case.verb == Some(Verb::Put) && matches!(case.fault, Fault::Flip | Fault::Lie));
    let expected: Vec<_> =
        lived.vaulted.iter().copied().filter(|id| !(lived.forgetting && *id == lived.taken[0])).collect();
    world
        .examine(&lived, &expected, keeps)
        .and_then(|()| world.go_on(&mut lived))
        .map_err(|e| format!("{e}\n    after {what}"))
}

/// How many requests of each kind a life makes in which nothing fails.
fn counted(lab: &Lab) -> Vec<(Verb, u64)> {
    let world = World::new(lab);
    let (clock, faulty) = clock_and_vault(&world);
    let mut lived = world.live(faulty.clone(), clock, TransferPolicy::default());
    assert_eq!(lived.errors, [""; 0]);
    assert!(lived.forgotten && lived.vaulted.len() == 2);
    let counts = VERBS.map(|verb| (verb, faulty.count(verb))).to_vec();
    world.examine(&lived, &lived.vaulted[1..], true).unwrap();
    world.go_on(&mut lived).unwrap();
    counts
}

#[test]
fn a_fault_in_any_request_costs_no_point_that_was_acknowledged_and_the_next_run_leaves_a_sound_vault() {
    let (lab, slice) = (Lab::new(), Slice::of("requests of a vault"));
    let counts = counted(&lab);
    println!("requests of a life: {counts:?}");
    let mut cells = Vec::new();
    for (verb, count) in &counts {
        for (fault, nth) in
            faults_of(*verb).into_iter().flat_map(|fault| (1..=*count).map(move |nth| (fault, nth)))
        {
            let case = Case { verb: Some(*verb), nth, fault, for_ever: false, once: false };
            cells.push(case);
            cells.extend(is_transient(fault).then_some(Case { once: true, ..case }));
        }
    }
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    for nth in 1..=all {
        for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Deny, Fault::Gone] {
            cells.push(Case { verb: None, nth, fault, for_ever: true, once: true });
        }
    }
    println!("{} cells", cells.len());
    each(&slice.cells(cells, 4), |case| play(&lab, case));
}
