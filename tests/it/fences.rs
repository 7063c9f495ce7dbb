//! Many machines on one vault: some put points there and forget them, others free space, all of them are stopped and killed at random
//! moments, and days pass in seconds. Afterwards a stranger who has the vault alone reads every point byte for byte, and the vault is hardly
//! larger than one that never had anything else.
//!
//! Three writers and two collectors for 45 s by default. By hand: `HOLDFAST_FENCES_WRITERS=8 HOLDFAST_FENCES_SECONDS=3600
//! HOLDFAST_FENCES_RATE=1500`, with `HOLDFAST_FENCES_AZURE=1` on the emulator.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_store::tree::testing::TestRandom;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cloud::Cloud;
use crate::testkit::{Machine, PASSPHRASE, Ran, noise, number};

/// What its files hold, by name.
type Contents = BTreeMap<String, blake3::Hash>;

/// What the machines know of what they did.
#[derive(Default)]
struct Known {
    /// Contents of points, as far as their makers lived to hear of them.
    contents: BTreeMap<String, Contents>,
    /// Points that arrived and that nobody forgot since.
    arrived: BTreeSet<String>,
}

struct Bed {
    vault: String,
    clock: String,
    end: Instant,
    known: Mutex<Known>,
    killed: AtomicU64,
    revoked: AtomicU64,
    brought: AtomicU64,
    lost: AtomicU64,
    generations: AtomicU64,
    longest: AtomicU64,
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "fences: {text}");
}

impl Bed {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    fn command(&self, machine: &Machine, args: &[&str]) -> Command {
        let mut command = machine.online(args);
        command.env("HOLDFAST_CLOCK", &self.clock).env("HOLDFAST_PASSWORD", PASSPHRASE);
        command
    }

    /// A machine that has the store by way of the vault.
    fn machine(&self) -> Machine {
        let machine = Machine::recovering();
        Ran::of(self.command(&machine, &["recover", "--machine-key"]).arg(&self.vault)).expect_code(0);
        machine
    }

    /// Bytes of all packs that a vault lists.
    fn bytes_in(&self, vault: &str) -> u64 {
        let machine = Machine::recovering();
        Ran::of(self.command(&machine, &["recover", "--machine-key"]).arg(vault)).expect_code(0);
        let mut prune = self.command(&machine, &["prune", "--vaults", "--dry-run", "--json"]);
        let summary = lines(&prune.output().unwrap()).pop().unwrap();
        summary["bytes_kept"].as_u64().unwrap() + summary["bytes_freed"].as_u64().unwrap()
    }

    /// Runs it to its end, or not: what it said, if it was left alone or only stopped for a while.
    fn run_roughly(&self, mut command: Command, random: &mut TestRandom) -> Option<Output> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let moment = Duration::from_millis(random.next_u64() % 400);
        match random.next_u64() % 10 {
            0 => {
                std::thread::sleep(moment);
                child.kill().unwrap();
                child.wait().unwrap();
                self.killed.fetch_add(1, Ordering::Relaxed);
                None
            }
            1 | 2 => {
                std::thread::sleep(moment);
                kill(pid, Signal::SIGSTOP).unwrap();
                // Now and then for longer than anybody waits for a sign of life.
                std::thread::sleep(Duration::from_millis(if random.next_u64().is_multiple_of(4) {
                    16_000
                } else {
                    1_500
                }));
                kill(pid, Signal::SIGCONT).unwrap();
                Some(child.wait_with_output().unwrap())
            }
            _ => {
                let begun = Instant::now();
                let output = child.wait_with_output().unwrap();
                let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
                self.longest.fetch_max(took, Ordering::Relaxed);
                Some(output)
            }
        }
    }
}

/// Changes some files: of a few contents that all machines have, and of some that nobody else has.
fn change(source: &Path, random: &mut TestRandom) -> Contents {
    for _ in 0..=random.next_u64() % 4 {
        let file = source.join(format!("file-{}", random.next_u64() % 12));
        let content = match random.next_u64() % 3 {
            0 => noise(random.next_u64(), 90_000),
            _ => noise(format!("shared {}", random.next_u64() % 24), 120_000),
        };
        std::fs::write(file, content).unwrap();
    }
    contents(source)
}

fn contents(dir: &Path) -> Contents {
    let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let read = |path: PathBuf| blake3::hash(&std::fs::read(path).unwrap());
    files.map(|entry| (entry.file_name().into_string().unwrap(), read(entry.path()))).collect()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// One machine that takes points and forgets them.
fn write(bed: &Bed, n: u64, seed: u64) {
    let (machine, mut random) = (bed.machine(), TestRandom::new(seed));
    let source = machine.path("source");
    std::fs::create_dir(&source).unwrap();
    let host = format!("w{n}");
    while bed.goes_on() {
        let now = change(&source, &mut random);
        let mut backup = bed.command(&machine, &["backup", "--json", "--online", "--host", &host]);
        backup.arg(&source);
        if let Some(output) = bed.run_roughly(backup, &mut random) {
            note(bed, &output, &now);
        }
        if random.next_u64().is_multiple_of(3) {
            let ids = points_of(bed, &machine, &host, true);
            // The oldest but for a few: from then on nobody expects them.
            let old: Vec<String> = ids.iter().rev().skip(4).cloned().collect();
            bed.known().arrived.retain(|id| !old.contains(id));
            if !old.is_empty() {
                let mut forget = bed.command(&machine, &["forget", "--yes"]);
                forget.args(&old);
                bed.run_roughly(forget, &mut random);
            }
            bed.run_roughly(bed.command(&machine, &["prune", "--local"]), &mut random);
        }
    }
    bring_the_rest(bed, &machine, &host);
}

/// What was cut off, or taken for dead, comes after all, unless something went meanwhile that only the vault had.
fn bring_the_rest(bed: &Bed, machine: &Machine, host: &str) {
    let pushed = bed.command(machine, &["vault", "push", "--json"]).output().unwrap();
    let points = lines(&pushed).last().and_then(|summary| summary["points"].as_u64());
    bed.brought.fetch_add(points.unwrap_or_default(), Ordering::Relaxed);
    for id in points_of(bed, machine, host, false) {
        let named = Ran::of(&mut bed.command(machine, &["vault", "push", &id]));
        if named.code() != 0 {
            named.expect_err(&["is gone: `check` names what is lost"]);
            bed.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
    bed.known().arrived.extend(points_of(bed, machine, host, true));
}

/// Points of a machine that are in the vault, or that are not, oldest first.
fn points_of(bed: &Bed, machine: &Machine, host: &str, in_vault: bool) -> Vec<String> {
    let output = bed.command(machine, &["snapshots", "--json"]).output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let ours =
        |point: &&Value| point["hostname"] == host && (point["vaults"] != serde_json::json!([])) == in_vault;
    all.as_array().into_iter().flatten().filter(ours).map(|p| p["id"].as_str().unwrap().to_owned()).collect()
}

fn note(bed: &Bed, output: &Output, contents: &Contents) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What keeps a backup from its point must be nothing that frees space.
    assert!(!said.contains("in use by another process"), "{said}");
    // What is taken for dead meanwhile begins again.
    assert!(!said.contains("256 times") && !said.contains("it can begin again"), "{said}");
    let taken = lines(output).into_iter().find_map(|line| Some(line["snapshot_id"].as_str()?.to_owned()));
    let Some(id) = taken else { return };
    let mut known = bed.known();
    known.contents.insert(id.clone(), contents.clone());
    if output.status.code() == Some(0) {
        known.arrived.insert(id);
    }
}

/// One machine that frees space.
fn collect(bed: &Bed, seed: u64) {
    let (machine, mut random) = (bed.machine(), TestRandom::new(seed));
    let config = machine.path("holdfast.toml");
    std::fs::write(&config, "[reclaim]\ngrace = \"12 hours\"\ndaily-percent = 60\n").unwrap();
    while bed.goes_on() {
        let mut prune = bed.command(&machine, &["prune", "--vaults", "--json"]);
        prune.env("HOLDFAST_CONFIG", &config);
        let output = bed.run_roughly(prune, &mut random);
        for line in output.iter().flat_map(lines) {
            let vaults = line["vaults"].as_array().cloned().unwrap_or_default();
            let condemned = vaults.iter().filter(|vault| vault["packs_condemned"].as_u64() > Some(0)).count();
            bed.generations.fetch_add(condemned as u64, Ordering::Relaxed);
            let revoked = vaults.iter().filter_map(|vault| vault["revoked"].as_array()).map(Vec::len);
            bed.revoked.fetch_add(revoked.sum::<usize>() as u64, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(random.next_u64() % 500));
    }
}

/// All that is to be true at the end. `stale` looked at the vault before, and not meanwhile.
fn judge(bed: &Bed, stale: &Machine) {
    let stranger = bed.machine();
    // What was under way is given up for dead, and what nobody needs goes.
    std::thread::sleep(Duration::from_secs(14));
    for _ in 0..4 {
        Ran::of(&mut bed.command(&stranger, &["prune", "--vaults", "--now"])).expect_code(0);
    }
    let anew = bed.machine();
    Ran::of(&mut bed.command(&anew, &["check", "--read-data"])).expect_code(0);
    let seen = Ran::of(&mut bed.command(&anew, &["snapshots", "--json"])).expect_code(0).json();
    let ids: BTreeSet<String> =
        seen.as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap().to_owned()).collect();
    let known = bed.known();
    let missing: Vec<_> = known.arrived.difference(&ids).collect();
    assert!(missing.is_empty(), "points that had arrived are not there: {missing:?}");
    let mut compared = 0;
    for id in &ids {
        let target = anew.path("back");
        let _ = std::fs::remove_dir_all(&target);
        Ran::of(bed.command(&anew, &["restore", id, "--target"]).arg(&target)).expect_code(0);
        if let Some(expected) = known.contents.get(id) {
            assert_eq!(contents(&target), *expected, "{id}");
            compared += 1;
        }
    }
    assert!(compared > 0, "nothing was compared");
    // What another machine freed and wrote anew is no damage for who has not looked since.
    let shown = Ran::of(&mut bed.command(stale, &["check"]));
    assert_eq!(shown.code(), 0, "{}{}", shown.out(), shown.err());
    let fresh = anew.path("fresh");
    Ran::of(bed.command(&anew, &["vault", "add"]).arg(&fresh)).expect_code(0);
    Ran::of(bed.command(&anew, &["copy", "--all", "--to"]).arg(&fresh)).expect_code(0);
    let (there, needed) = (bed.bytes_in(&bed.vault), bed.bytes_in(fresh.to_str().unwrap()));
    let figures = [&bed.killed, &bed.revoked, &bed.brought, &bed.lost, &bed.generations, &bed.longest]
        .map(|n| n.load(Ordering::SeqCst));
    say(&format!(
        "{} points of {} that arrived, {compared} compared, {there} bytes where {needed} are needed: {:.4}; \
         (killed, revoked, brought at the end, lost, generations begun, longest run in ms) {figures:?}",
        ids.len(),
        known.contents.len(),
        there as f64 / needed as f64
    ));
    assert!(figures[4] > 0, "no generation passed");
    // A twentieth may be idle; and packs have whole lengths, of which many writers fill more in part than one copy does.
    assert!(there as f64 <= needed as f64 * 1.1, "{there} bytes where {needed} are needed");
}

fn live(vault: String) {
    let (writers, seconds) = (number("HOLDFAST_FENCES_WRITERS", 3), number("HOLDFAST_FENCES_SECONDS", 45));
    let (rate, seed) = (number("HOLDFAST_FENCES_RATE", 7200), number("HOLDFAST_SEED", 11));
    say(&format!("HOLDFAST_SEED={seed}"));
    let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let founder = Machine::with_store();
    let bed = Bed {
        clock: format!("{when}@{when}x{rate}"),
        end: Instant::now() + Duration::from_secs(seconds),
        known: Mutex::default(),
        killed: AtomicU64::new(0),
        revoked: AtomicU64::new(0),
        brought: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        generations: AtomicU64::new(0),
        longest: AtomicU64::new(0),
        vault,
    };
    Ran::of(bed.command(&founder, &["vault", "add"]).arg(&bed.vault)).expect_code(0);
    let stale = bed.machine();
    std::thread::scope(|scope| {
        for n in 0..writers {
            let bed = &bed;
            scope.spawn(move || write(bed, n, seed * 1000 + n));
        }
        for n in 0..2 {
            let bed = &bed;
            scope.spawn(move || collect(bed, seed * 1000 + 500 + n));
        }
    });
    judge(&bed, &stale);
}

#[test]
fn many_machines_write_to_a_vault_and_free_space_there_and_no_point_loses_a_byte() {
    match std::env::var_os("HOLDFAST_FENCES_AZURE") {
        None => {
            let place = tempfile::tempdir().unwrap();
            live(place.path().join("vault").to_str().unwrap().to_owned());
        }
        Some(_) => {
            let cloud = Cloud::start("fences").unwrap();
            live(cloud.url());
        }
    }
}
