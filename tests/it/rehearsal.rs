//! Days of a real daemon in a minute, on a clock that goes faster: two tiers with schedules and retention of their own, a source that changes
//! all the time, a vault that is away for days.
//!
//! Six days with a point every two hours by default; a quarter with one every 15 minutes takes about an hour and a half:
//! `HOLDFAST_REHEARSAL_DAYS=91 HOLDFAST_REHEARSAL_MINUTES=15 HOLDFAST_REHEARSAL_RATE=1500`. The machine has to take a point in less time
//! than passes between two moments.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_store::tree::testing::TestRandom;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::compare::compare;
use crate::testkit::{Machine, PASSPHRASE, Ran, noise, number};

const DAY: i64 = 86_400;
/// When it begins: a Monday, at midnight.
const BEGIN: i64 = 1_767_571_200;
/// Bytes that may be sent in a second, of the system's clock.
const LIMIT: u64 = 512 << 10;

struct Rehearsal {
    machine: Machine,
    config: PathBuf,
    clock: String,
    /// When it began, in seconds since 1970, and how much faster its clock goes.
    when: i64,
    rate: i64,
    /// Days that the local tier keeps.
    local_days: i64,
}

impl Rehearsal {
    fn new(minutes: u64, rate: i64, local_days: i64) -> Self {
        let machine = Machine::with_store();
        std::fs::create_dir(machine.path("www")).unwrap();
        Ran::of(machine.command(["vault", "add"]).arg(machine.path("vault"))).expect_code(0);
        let config = machine.path("holdfast.toml");
        let text = format!(
            "[group.web]\nsources = [{:?}]\n\
             local = {{ schedule = \"every {minutes} minutes\", keep = {{ within = \"{local_days}d\" }} }}\n\
             online = {{ schedule = \"22:00\", keep = {{ daily = 7, weekly = 4, monthly = 12 }} }}\n\
             [check]\nschedule = \"never\"\n[bandwidth]\nupload = \"{}K\"\n",
            machine.path("www").to_str().unwrap(),
            LIMIT >> 10
        );
        std::fs::write(&config, text).unwrap();
        let when = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        Self { machine, config, clock: format!("{BEGIN}@{when}x{rate}"), when, rate, local_days }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.machine.command(args);
        command.env("HOLDFAST_CONFIG", &self.config).env("HOLDFAST_CLOCK", &self.clock);
        command
    }

    fn json_lines(&self, args: &[&str]) -> Vec<Value> {
        let out = Ran::of(&mut self.command(args)).expect_code(0).out();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until its clock shows noon after so many days, while files of the source change and another vault is given what is online.
    fn live_until(&self, day: i64, random: &mut TestRandom, alone: &mut Alone) {
        let end = UNIX_EPOCH
            + Duration::from_secs(u64::try_from(self.when + (day * DAY + DAY / 2) / self.rate).unwrap());
        while SystemTime::now() < end {
            let n = random.next_u64() % 40;
            let name = self.machine.path("www").join(format!("file-{n}"));
            std::fs::write(name, noise(random.next_u64(), 20_000 + 1000 * n as usize)).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            if n == 0 {
                alone.follow(self);
            }
        }
        alone.follow(self);
    }

    /// Points that are online, the oldest first.
    fn online(&self) -> Vec<Value> {
        let mut points = self.points();
        points.retain(|point| point["vaults"] != serde_json::json!([]));
        points.sort_by_key(began);
        points
    }

    fn points(&self) -> Vec<Value> {
        let listed = Ran::of(&mut self.command(&["snapshots", "--json"])).expect_code(0).json();
        listed.as_array().unwrap().clone()
    }
}

/// A store of another machine that has in its vault what was online, ever, and never had anything else.
struct Alone {
    machine: Machine,
    has: BTreeSet<String>,
}

impl Alone {
    fn new() -> Self {
        let machine = Machine::with_store();
        Ran::of(machine.command(["vault", "add"]).arg(machine.path("vault"))).expect_code(0);
        Self { machine, has: BTreeSet::new() }
    }

    /// Takes a point of each that came online since.
    fn follow(&mut self, site: &Rehearsal) {
        for point in site.online() {
            if self.has.insert(text(&point, "id").to_owned()) {
                let target = self.machine.path("www");
                let _ = std::fs::remove_dir_all(&target);
                Ran::of(site.command(&["restore", text(&point, "id"), "--target"]).arg(&target))
                    .expect_code(0);
                Ran::of(self.machine.command(["backup", "--online"]).arg(&target)).expect_code(0);
            }
        }
    }
}

/// Ends with the test.
struct Running(Child);

impl Running {
    fn end(mut self) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "rehearsal: {text}");
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

/// Seconds since 1970 of a point's time.
fn began(point: &Value) -> i64 {
    text(point, "time").parse::<jiff::Timestamp>().unwrap().as_second()
}

/// Bytes of all files below a directory.
fn size_of(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let meta = entry.metadata().unwrap();
        bytes += if meta.is_dir() { size_of(&entry.path()) } else { meta.len() };
    }
    bytes
}

#[test]
fn two_tiers_live_for_days_as_they_were_told_and_a_vault_that_is_away_costs_nothing_but_its_time() {
    let (days, minutes) = (number("HOLDFAST_REHEARSAL_DAYS", 6), number("HOLDFAST_REHEARSAL_MINUTES", 120));
    let days = i64::try_from(days).unwrap();
    // A quarter has a week of local points, and one without its vault.
    let (local_days, away) = if days > 30 { (7, 14..21) } else { (2, 2..4) };
    let rate = i64::try_from(number("HOLDFAST_REHEARSAL_RATE", 7200)).unwrap();
    let site = Rehearsal::new(minutes, rate, local_days);
    let seed = number("HOLDFAST_SEED", 7);
    say(&format!("HOLDFAST_SEED={seed}"));
    let mut random = TestRandom::new(seed);
    let log = std::fs::File::create(site.machine.path("daemon.log")).unwrap();
    let mut alone = Alone::new();
    let daemon = Running(site.command(&["daemon"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let (vault, hidden) = (site.machine.path("vault"), site.machine.path("away"));
    site.live_until(away.start, &mut random, &mut alone);
    // As a disk that is not mounted.
    std::fs::rename(&vault, &hidden).unwrap();
    site.live_until(away.end, &mut random, &mut alone);
    let taken_meanwhile =
        site.points().iter().filter(|point| began(point) > BEGIN + away.start * DAY + DAY / 2).count();
    std::fs::rename(&hidden, &vault).unwrap();
    site.live_until(days, &mut random, &mut alone);
    daemon.end();
    alone.follow(&site);
    let log = std::fs::read_to_string(site.machine.path("daemon.log")).unwrap();

    // Nothing kept local points from being taken: one or two may have been late, when the machine was busy.
    let moments = |days: i64| usize::try_from(days * DAY).unwrap() / (60 * usize::try_from(minutes).unwrap());
    let expected = moments(away.end - away.start);
    assert!(
        taken_meanwhile * 10 >= expected * 9,
        "{taken_meanwhile} of {expected} while the vault was away\n{log}"
    );
    let jobs = site.json_lines(&["jobs", "--json", "-n", "1000000"]);
    let taken = jobs.iter().filter(|job| job["work"] == "backup" && job["state"] == "done").count();
    assert!(taken * 10 >= moments(days) * 9, "{taken} of {}\n{log}", moments(days));

    // All that was put off went online as slowly as everything else. A second is what a burst may take, and two how exactly times are told.
    for job in jobs.iter().filter(|job| job["bytes_sent"].as_u64() > Some(0)) {
        let [begun, ended] = ["begun", "ended"].map(|key| text(job, key).parse::<jiff::Timestamp>().unwrap());
        let seconds = (ended - begun).get_seconds().unsigned_abs() / site.rate.unsigned_abs();
        assert!(job["bytes_sent"].as_u64() <= Some(LIMIT * (seconds + 3)), "{job}");
    }
    let most = jobs.iter().filter_map(|job| job["bytes_sent"].as_u64()).max().unwrap();

    // Each tier holds what it was told to hold, and by now nothing else.
    let rest = Ran::of(&mut site.command(&["forget"])).code();
    assert!([0, 1].contains(&rest), "{log}");
    let points = site.points();
    let online = site.online();
    let newest = points.iter().map(began).max().unwrap();
    let local = points.iter().filter(|point| point["local"] == true);
    let late: Vec<_> =
        local.map(|point| newest - began(point)).filter(|age| *age > site.local_days * DAY + 3600).collect();
    assert!(late.is_empty(), "local points are kept too long: {late:?}\n{log}");
    // A point of each day, those of the days without a vault among them.
    let of_days: BTreeSet<i64> =
        online.iter().map(|point| (began(point) - BEGIN + 7200).div_euclid(DAY)).collect();
    let expected: BTreeSet<i64> = (0..=days.min(7)).map(|back| days - back).filter(|day| *day > 0).collect();
    let missing: Vec<_> = expected.difference(&of_days).filter(|day| **day < days).collect();
    assert!(missing.is_empty(), "no online point of the days {missing:?} in {of_days:?}\n{log}");

    // A stranger finds just these in the vault, whole, and at most one that a job put there or was to remove when the daemon's end cut it off.
    let stranger = Machine::recovering();
    let mut recover = stranger.command(["recover", "--machine-key"]);
    Ran::of(recover.arg(&vault).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    let seen = stranger.run(["snapshots", "--json"]).expect_code(0).json();
    let ids = |points: &[Value]| points.iter().map(|p| text(p, "id").to_owned()).collect::<BTreeSet<_>>();
    let (seen, ours) = (ids(seen.as_array().unwrap()), ids(&online));
    assert!(ours.is_subset(&seen) && seen.len() <= ours.len() + 1, "{seen:?} instead of {ours:?}\n{log}");

    // What went online, points that have expired since among them, took no more bytes than where there never was anything else.
    let bytes_of = |job: &Value| job["bytes_sent"].as_u64().unwrap_or_default();
    // The daemon's end may have cut the last one off: what that sent nobody has yet.
    let last = jobs.iter().filter(|job| bytes_of(job) > 0).max_by_key(|job| text(job, "begun").to_owned());
    let cut_off = last.filter(|job| job["state"] != "done").map_or(0, bytes_of);
    let sent = jobs.iter().map(bytes_of).sum::<u64>() - cut_off;
    let needed = size_of(&alone.machine.path("vault"));
    say(&format!(
        "{} points came online: {sent} bytes were sent, {most} of them at once, {needed} are needed: {:.4}; the vault has {} bytes now",
        alone.has.len(),
        sent as f64 / needed as f64,
        size_of(&vault)
    ));
    assert!(sent as f64 <= needed as f64 * 1.03, "{sent} bytes sent, {needed} needed");
    let target = alone.machine.path("www");
    compare(&target, &stranger.restore(text(online.last().unwrap(), "id"), "last")).assert_none();
}
