//! Every call of the system that changes a file × what may come of it: the program is killed there, or the disk is full, or broken. The
//! program is the real one, with all that it links; `strace` hurts the call. Whatever was acknowledged before or in such a run is there
//! afterwards, byte for byte, and the next run succeeds.
//!
//! Without `HOLDFAST_MATRIX=all` a part of the calls is tried, chosen by `HOLDFAST_SEED`, and always the same one without it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast_store::tree::testing::TestRandom;

use crate::testkit::{Machine, Ran, skip};
use crate::trouble::{
    SmallStore, Tree, assert_restores, command, mutate, points, run, sample, summary_id, write_tree,
};

/// Bytes of the source.
const SOURCE: usize = 300 << 10;
/// Cells of each verb that are tried unless all are asked for.
const CELLS: usize = 16;
/// What changes files, or makes changes durable.
const CHANGES: &str = "write,pwrite64,fsync,fdatasync,ftruncate,fallocate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat";

/// What comes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Full,
    Broken,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Kill, Self::Full, Self::Broken];
}

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Backup,
    Push,
    Forget,
    Prune,
}

/// The n-th call of this name of each thread comes to this.
#[derive(Clone, Debug)]
struct Cell {
    call: String,
    nth: usize,
    fault: Fault,
}

impl Cell {
    fn injection(&self) -> String {
        let what = match self.fault {
            Fault::Kill => "signal=KILL",
            Fault::Full => "error=ENOSPC",
            Fault::Broken => "error=EIO",
        };
        format!("inject={}:{what}:when={}", self.call, self.nth)
    }
}

/// A machine with a point in its store and its vault, one in its store alone, and a source that has changed since.
struct Victim {
    machine: Machine,
    store: SmallStore,
    vault: PathBuf,
    source: PathBuf,
    /// Store and vault as they are before each run.
    whole: [PathBuf; 2],
    vaulted: String,
    /// What each point must restore to.
    expected: BTreeMap<String, Tree>,
    /// What is in the source.
    now: Tree,
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

impl Victim {
    fn new(random: &mut TestRandom) -> Self {
        let machine = Machine::new();
        let store = SmallStore::make(&machine, machine.path("store"));
        // As long as there is one, none of megabytes is made that each copy would have.
        std::fs::write(store.dir.join("ballast"), "").unwrap();
        let (source, vault) = (machine.path("source"), machine.path("vault"));
        let (mut now, mut expected) = (sample(random, SOURCE), BTreeMap::new());
        run(&machine, &store.dir, &["vault", "add", vault.to_str().unwrap()]).expect_code(0);
        let mut ids = Vec::new();
        for to in ["--online", "--quiet"] {
            write_tree(&source, &now);
            let args = ["backup", "--json", to, source.to_str().unwrap()];
            let id = summary_id(&run(&machine, &store.dir, &args).expect_code(0).out()).unwrap();
            expected.insert(id.clone(), now.clone());
            ids.push(id);
            mutate(random, &mut now, 1);
        }
        write_tree(&source, &now);
        let whole = [machine.path("whole-store"), machine.path("whole-vault")];
        copy(&store.dir, &whole[0]);
        copy(&vault, &whole[1]);
        Self { machine, store, vault, source, whole, vaulted: ids.swap_remove(0), expected, now }
    }

    fn args(&self, verb: Verb) -> Vec<&str> {
        match verb {
            Verb::Backup => vec!["backup", "--json", "--online", self.source.to_str().unwrap()],
            Verb::Push => vec!["vault", "push"],
            Verb::Forget => vec!["forget", &self.vaulted, "--yes"],
            Verb::Prune => vec!["prune", "--now"],
        }
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(&self.machine, &self.store.dir, args)
    }

    /// A run under `strace`, and the calls that it tells of.
    fn traced(&self, verb: Verb, also: &[&str]) -> (Ran, Vec<String>) {
        let log = self.machine.path("calls");
        let plain = command(&self.machine, &self.store.dir, &self.args(verb));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-y", "-e", "signal=none", "-e", &format!("trace={CHANGES}")]).args(also);
        strace.arg("-o").arg(&log).arg(plain.get_program()).args(plain.get_args()).env_clear();
        strace.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        strace.current_dir(plain.get_current_dir().unwrap()).stdin(Stdio::null());
        let ran = Ran::of(&mut strace);
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
        (ran, text.lines().map(str::to_owned).collect())
    }

    fn hurt(&self, verb: Verb, cell: &Cell) -> (Ran, Vec<String>) {
        let (ran, mut calls) = self.traced(verb, &["-e", &cell.injection()]);
        calls.retain(|line| line.contains("INJECTED"));
        (ran, calls)
    }

    /// All calls of a run that nobody disturbs × what may come of them.
    fn cells(&self, verb: Verb) -> Vec<Cell> {
        self.reset(verb);
        let (ran, calls) = self.traced(verb, &[]);
        ran.expect_code(0);
        // By thread and call.
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in &calls {
            let (thread, rest) = line.split_once(' ').unwrap();
            // The second half of a call that another thread came between.
            let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
            if call.chars().all(|c| c.is_ascii_alphanumeric()) {
                *counts.entry((thread, call)).or_default() += 1;
            }
        }
        let mut most: BTreeMap<&str, usize> = BTreeMap::new();
        for ((_, call), count) in counts {
            let most = most.entry(call).or_default();
            *most = count.max(*most);
        }
        let calls = most.into_iter().flat_map(|(call, count)| (1..=count).map(move |nth| (call, nth)));
        calls
            .flat_map(|(call, nth)| Fault::ALL.map(|fault| Cell { call: call.to_owned(), nth, fault }))
            .collect()
    }

    fn reset(&self, verb: Verb) {
        copy(&self.whole[0], &self.store.dir);
        copy(&self.whole[1], &self.vault);
        if verb == Verb::Prune {
            // So that there is something to free, here and there.
            self.run(&self.args(Verb::Forget)).expect_code(0);
        }
    }

    /// What must hold after a run that was hurt, whose output is this, and after each further one.
    fn examine(&self, verb: Verb, cell: &Cell, out: &str) {
        let mut expected = self.expected.clone();
        if matches!(verb, Verb::Forget | Verb::Prune) {
            expected.remove(&self.vaulted);
        }
        expected.extend(summary_id(out).map(|id| (id, self.now.clone())));
        // Killed again where it goes on, and then left alone.
        if cell.fault == Fault::Kill {
            self.hurt(verb, &Cell { nth: cell.nth.div_ceil(2), ..cell.clone() });
        }
        let is_gone = |id: &String| !points(&self.machine, &self.store.dir).contains(id);
        if verb != Verb::Forget || !is_gone(&self.vaulted) {
            self.run(&self.args(verb)).expect_code(0);
        }
        // What a removal left half done the next look at all ends.
        self.run(&["prune"]).expect_code(0);
        self.run(&["check", "--read-data"]).expect_code(0);
        self.run(&["vault", "push"]).expect_code(0);
        self.all_restore(&self.machine, &self.store.dir, &expected);
        let bare = Machine::new();
        let dir = bare.path("recovered");
        let mut recover = command(&bare, &dir, &["recover", self.vault.to_str().unwrap(), "--machine-key"]);
        Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", &self.store.words)).expect_code(0);
        self.all_restore(&bare, &dir, &expected);
    }

    /// Those that must be there are, and each that is there is one of the source as it was or is.
    fn all_restore(&self, machine: &Machine, store: &Path, expected: &BTreeMap<String, Tree>) {
        let shown = points(machine, store);
        for id in expected.keys() {
            assert!(shown.contains(id), "{id} is not shown");
        }
        for id in shown {
            let right = expected.get(&id).or_else(|| self.expected.get(&id)).unwrap_or(&self.now);
            assert_restores(machine, store, &id, right);
        }
    }
}

/// Whether a call was of a file: threads wake each other by calls that never fail.
fn is_of_a_file(call: &str) -> bool {
    !["anon_inode:", "pipe:", "socket:", "/dev/"].iter().any(|what| call.contains(what))
}

fn each_call(verb: Verb) {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        return skip("calls of the system", "there is no strace that may trace");
    }
    let told = std::env::var("HOLDFAST_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = told.unwrap_or(1);
    let all = std::env::var_os("HOLDFAST_MATRIX").is_some_and(|wish| wish == "all");
    println!("{verb:?}: HOLDFAST_SEED={seed}");
    let mut random = TestRandom::new(seed);
    let victim = Victim::new(&mut random);
    let mut cells = victim.cells(verb);
    assert!(cells.len() > 50, "{cells:?}");
    while !all && cells.len() > CELLS {
        cells.swap_remove(random.below(cells.len() as u64) as usize);
    }
    let mut hit = BTreeSet::new();
    for (n, cell) in cells.iter().enumerate() {
        victim.reset(verb);
        let (ran, calls) = victim.hurt(verb, cell);
        println!("{n}: {cell:?}: {}", calls.join("; "));
        if cell.fault == Fault::Kill {
            hit.extend(ran.was_killed().then_some(n));
        } else if calls.iter().all(|call| is_of_a_file(call)) {
            hit.extend((!calls.is_empty()).then_some(n));
            assert!(matches!(ran.code(), 0..=12), "{cell:?}: {calls:?}: {}", ran.err());
            let says_why = ["holdfast: ", "exit_error"].iter().any(|how| ran.err().contains(how));
            assert!(ran.code() == 0 || says_why, "{cell:?}: {}", ran.err());
        }
        victim.examine(verb, cell, &ran.out());
    }
    // Runs are not quite alike.
    assert!(hit.len() * 2 > cells.len(), "only {} of {} calls were there", hit.len(), cells.len());
}

#[test]
fn a_backup_hurt_in_any_call_that_changes_a_file_loses_nothing() {
    each_call(Verb::Backup);
}

#[test]
fn a_push_hurt_in_any_call_that_changes_a_file_loses_nothing() {
    each_call(Verb::Push);
}

#[test]
fn a_removal_hurt_in_any_call_that_changes_a_file_is_ended_and_costs_nothing_else() {
    each_call(Verb::Forget);
}

#[test]
fn freeing_hurt_in_any_call_that_changes_a_file_loses_nothing() {
    each_call(Verb::Prune);
}
