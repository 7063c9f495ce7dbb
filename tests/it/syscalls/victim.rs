//! The machine on which a verb is run whole, hurt, and run again, from the same state each time.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use holdfast_store::tree::testing::TestRandom;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::cell::{Cell, Fault, OF_FILES};
use super::verb::Verb;
use crate::testkit::{Machine, Ran};
use crate::trouble::{
    SmallStore, Tree, assert_restores, assert_same, command, mutate, points, restored, run, sample,
    summary_id, write_tree,
};

/// Bytes of the source.
pub const SOURCE: usize = 300 << 10;
/// What a run may change, below the machine's root.
const PLACES: [&str; 8] = [
    "files/store",
    "files/vault",
    "files/second",
    "files/annex",
    "files/target",
    "files/away",
    "keys",
    "cache",
];
/// How long somebody waits for a run.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often a verb may have to be run until all is well.
const AGAIN: usize = 4;

/// A machine with a point in its store and its vault, one in its store alone, and a source that has changed since.
pub struct Victim {
    pub machine: Machine,
    pub store: SmallStore,
    pub vault: PathBuf,
    /// The point that is in the vault.
    pub vaulted: String,
    /// What each point must restore to.
    pub expected: BTreeMap<String, Tree>,
    /// What is in the source.
    now: Tree,
    verb: &'static Verb,
}

/// Copies a directory with all that it keeps of its files.
pub fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

impl Victim {
    pub fn new(verb: &'static Verb, random: &mut TestRandom) -> Self {
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
        let vaulted = ids.swap_remove(0);
        let mut victim = Self { machine, store, vault, vaulted, expected, now, verb };
        (verb.prepare)(&mut victim);
        for place in PLACES {
            let place = victim.place(place);
            if place.exists() {
                copy(&place, &victim.whole(&place));
            }
        }
        victim
    }

    fn place(&self, name: &str) -> PathBuf {
        self.machine.root().join(name)
    }

    /// Where a place is kept as it is before each run.
    fn whole(&self, place: &Path) -> PathBuf {
        self.machine.root().join("whole").join(place.file_name().unwrap())
    }

    /// Everything is as it was.
    pub fn reset(&self) {
        for place in PLACES.map(|name| self.place(name)) {
            if self.whole(&place).exists() {
                copy(&self.whole(&place), &place);
            } else if place.exists() {
                std::fs::remove_dir_all(&place).unwrap();
            }
        }
    }

    /// A path for the test's own files, as an argument.
    pub fn at(&self, name: &str) -> String {
        self.machine.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[impl AsRef<str>]) -> Command {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let mut command = command(&self.machine, &self.store.dir, &args);
        let config = self.machine.path("holdfast.toml");
        if config.exists() {
            command.env("HOLDFAST_CONFIG", config);
        }
        if args[0] == "recover" {
            command.env("HOLDFAST_RECOVERY_KEY", &self.store.words);
        }
        command
    }

    pub fn run(&self, args: &[impl AsRef<str>]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    fn args(&self) -> Vec<String> {
        (self.verb.args)(self)
    }

    /// A backup here of what is in the source, which is one of those that must be there from then on.
    pub fn back_up(&mut self) {
        let ran = self.run(&["backup", "--json", &self.at("source")]).expect_code(0);
        self.expected.insert(summary_id(&ran.out()).unwrap(), self.now.clone());
    }

    /// All calls of a run that nobody disturbs × what may come of them.
    pub fn cells(&self) -> Vec<Cell> {
        self.reset();
        let (ran, calls) = traced(&self.command(&self.args()), &self.machine, &OF_FILES, None);
        ran.expect_code(self.verb.code);
        Cell::all(&calls)
    }

    /// A run that is hurt, and the calls that were.
    pub fn hurt(&self, cell: &Cell) -> (Ran, Vec<String>) {
        traced(&self.command(&self.args()), &self.machine, &OF_FILES, Some(cell))
    }

    /// What must hold after a run that was hurt, and after each further one.
    pub fn examine(&self, cell: &Cell, ran: &Ran) {
        let mut expected = self.expected.clone();
        if self.verb.removes {
            expected.remove(&self.vaulted);
        }
        if ran.ended() == Some(self.verb.code) {
            (self.verb.said)(self);
        }
        let id = summary_id(&ran.out());
        if ran.ended() == Some(0) {
            expected.extend(id.clone().map(|id| (id, self.now.clone())));
        }
        // Killed again where it goes on, and then left alone.
        if cell.fault == Fault::Kill {
            self.hurt(&Cell { nth: cell.nth.div_ceil(2), ..cell.clone() });
        }
        let again =
            (0..AGAIN).map(|_| self.run(&self.args())).find(|ran| self.verb.again.contains(&ran.code()));
        assert!(again.is_some(), "{cell:?}: does not go on: {}", self.run(&self.args()).err());
        (self.verb.said)(self);
        (self.verb.then)(self);
        // What a removal left half done the next look at all ends.
        self.run(&["prune"]).expect_code(0);
        self.run(&["check", "--read-data"]).expect_code(0);
        self.run(&["vault", "push"]).expect_code(0);
        // What could not be read is missing in one that a run took which did not end well.
        let shown = points(&self.machine, &self.store.dir);
        assert!(id.is_none_or(|id| shown.contains(&id)), "{shown:?}");
        self.all_restore(&self.machine, &self.store.dir, &expected);
        self.all_come_back(&self.vault, &expected);
    }

    /// On a machine that has nothing else than a vault.
    pub fn all_come_back(&self, vault: &Path, expected: &BTreeMap<String, Tree>) {
        let (bare, dir) = self.recovered(vault);
        self.all_restore(&bare, &dir, expected);
    }

    /// Such a machine, and its store.
    pub fn recovered(&self, vault: &Path) -> (Machine, PathBuf) {
        let bare = Machine::new();
        let dir = bare.path("recovered");
        let mut recover = command(&bare, &dir, &["recover", vault.to_str().unwrap(), "--machine-key"]);
        Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", &self.store.words)).expect_code(0);
        (bare, dir)
    }

    /// Those that must be there are, and each that is there is one of the source as it was or is.
    fn all_restore(&self, machine: &Machine, store: &Path, expected: &BTreeMap<String, Tree>) {
        let shown = points(machine, store);
        for id in expected.keys() {
            assert!(shown.contains(id), "{id} is not shown");
        }
        for id in shown {
            match expected.get(&id).or_else(|| self.expected.get(&id)) {
                Some(tree) => assert_restores(machine, store, &id, tree),
                None => self.assert_restores_as_far_as_it_was_read(machine, store, &id),
            }
        }
    }

    /// A point that a run took which did not say that it is whole.
    fn assert_restores_as_far_as_it_was_read(&self, machine: &Machine, store: &Path, id: &str) {
        let (code, tree) = restored(machine, store, id);
        assert_eq!(code, 0, "restore of {id}");
        let shown = run(machine, store, &["snapshots", "--json"]).expect_code(0).json();
        let shown = shown.as_array().unwrap().iter().find(|point| point["id"] == *id).unwrap().clone();
        let whole = if shown["state"] == "partial" {
            self.now.clone().into_iter().filter(|(path, _)| tree.contains_key(path)).collect()
        } else {
            self.now.clone()
        };
        assert_same(&tree, &whole);
    }
}

/// A command under `strace`, with a call hurt or none, and the calls that it tells of: those that were hurt, or all. Somebody waits for it,
/// but not as long as it would try a vault that fails.
pub fn traced(plain: &Command, machine: &Machine, calls: &[&str], cell: Option<&Cell>) -> (Ran, Vec<String>) {
    let log = machine.root().join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-yy", "-e", "signal=none", "-e", &format!("trace={}", calls.join(","))]);
    // Quicker, but then no signal comes to a call.
    strace.args((!cell.is_some_and(|cell| cell.fault == Fault::Kill)).then_some("--seccomp-bpf"));
    strace.args(cell.map(|cell| ["-e".to_owned(), cell.injection()]).into_iter().flatten());
    strace.arg("-o").arg(&log).arg(plain.get_program()).args(plain.get_args()).env_clear();
    strace.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    strace.current_dir(plain.get_current_dir().unwrap()).process_group(0);
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = strace.spawn().unwrap();
    let group = Pid::from_raw(child.id().try_into().unwrap());
    let (ended, has_ended) = mpsc::channel::<()>();
    // `strace` itself lets all signals pass by that can be blocked.
    let somebody = std::thread::spawn(move || {
        for (patience, signal) in [(PATIENCE, Signal::SIGINT), (10 * PATIENCE, Signal::SIGKILL)] {
            if has_ended.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                killpg(group, signal).unwrap();
            }
        }
    });
    let ran = Ran::from(child.wait_with_output().unwrap());
    drop(ended);
    somebody.join().unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    let lines = text.lines().filter(|line| cell.is_none() || line.contains("INJECTED"));
    (ran, lines.map(str::to_owned).collect())
}
