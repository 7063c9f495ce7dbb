//! Two tiers of a group: what goes online, also what a vault missed that was away, and what each tier lets go by its own rules. The
//! points are taken by the library with a clock of the test's, since the program's goes by the day.
#![allow(clippy::unwrap_used)]

mod alone;
mod copy;
mod deleted;
mod expiry;
mod holds;
mod own_expiry;
mod proof;
mod stopped;
mod vaults;
mod word;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_backup::protect::{Request, protect};
use holdfast_backup::source::{DirectorySource, WalkOptions};
use holdfast_store::clock::{ManualClock, Timestamp};
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::point::{Consistency, SourceName};
use holdfast_store::seal::Compression;

use crate::testkit::{Machine, PASSPHRASE, Ran, noise, open_store, points_in};

/// 2025-03-01T12:00:00Z.
const NOON: i64 = 1_740_830_400;
const HOUR: i64 = 3600;

/// A machine with a store, a vault, and a group `web` with these tiers.
struct Tiers {
    machine: Machine,
    config: PathBuf,
}

impl Tiers {
    fn new(local: &str, online: &str) -> Self {
        let machine = Machine::with_store();
        let (config, www) = (machine.path("holdfast.toml"), machine.path("www"));
        std::fs::create_dir(&www).unwrap();
        let text = format!(
            "time-zone = \"UTC\"\n[group.web]\nsources = [{www:?}]\nlocal = {{ {local} }}\nonline = {{ {online} }}\n"
        );
        std::fs::write(&config, text).unwrap();
        let tiers = Self { machine, config };
        tiers.run(&["vault", "add", tiers.vault().to_str().unwrap()]).expect_code(0);
        tiers
    }

    fn vault(&self) -> PathBuf {
        self.machine.path("vault")
    }

    /// Where the vault's disk lies while it is not mounted.
    fn away(&self) -> PathBuf {
        self.machine.path("away")
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.machine.command(args).env("HOLDFAST_CONFIG", &self.config))
    }

    /// The same with the owner's word.
    fn with_word(&self, args: &[&str]) -> Ran {
        let mut command = self.machine.command(args);
        Ran::of(command.env("HOLDFAST_CONFIG", &self.config).env("HOLDFAST_PASSWORD", PASSPHRASE))
    }

    /// Takes points of the source of `group`, so many hours after noon, each with content of its own; their ids.
    fn take_of(&self, group: &str, hours: &[i64]) -> Vec<String> {
        hours.iter().map(|hour| self.take_one(group, *hour, None)).collect()
    }

    fn take(&self, hours: &[i64]) -> Vec<String> {
        self.take_of("web", hours)
    }

    fn take_one(&self, group: &str, hour: i64, expires: Option<i64>) -> String {
        let dir = self.machine.path("www");
        std::fs::write(dir.join("page"), noise(format!("{group} {hour}"), 50_000)).unwrap();
        let clock = ManualClock::at(Timestamp::from_seconds(NOON + hour * HOUR));
        let store = open_store(&self.machine.store(), &self.machine.root().join("keys"), Arc::new(clock));
        let host = nix::sys::utsname::uname().unwrap().nodename().to_str().unwrap().to_owned();
        let request = Request {
            source: SourceName { host, group: group.into(), source: "www".into() },
            path: dir.to_str().unwrap().into(),
            tags: Vec::new(),
            read_all: true,
            consistency: Consistency::Fuzzy,
            expires,
            readers: 1,
            tool: "test".into(),
        };
        let session = store.begin(Compression::Zstd(1), &VoidMonitor).unwrap();
        let source = DirectorySource::new(&dir, WalkOptions::default());
        protect(session, &source, &request, &VoidMonitor).unwrap().stored.point.id.hex()
    }
}

/// Ids of the points in a store or vault, as its files show them.
fn shown_in(place: &Path) -> BTreeSet<String> {
    points_in(place).into_iter().collect()
}

fn set<'a>(ids: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    ids.into_iter().cloned().collect()
}

/// Names of packs in a store.
fn packs(store: &Path) -> BTreeSet<PathBuf> {
    let Ok(shards) = std::fs::read_dir(store.join("pack")) else { return BTreeSet::new() };
    let packs = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    packs.map(|pack| pack.unwrap().path()).collect()
}

const LOCAL: &str = "schedule = \"every hour\"";
const ONLINE: &str = "schedule = \"12:00\"";

#[test]
fn what_a_vault_is_to_have_is_pushed_and_nothing_else() {
    let tiers = Tiers::new(LOCAL, ONLINE);
    let other = tiers.take_of("other", &[0]);
    let ids = tiers.take(&[-48, 0, 24, 30, 48]);
    // A vault begins with what is newest.
    let ran = tiers.run(&["vault", "push", "--pending", "--json"]).expect_code(0).json();
    assert_eq!(ran["points"], 1, "{ran}");
    assert_eq!(shown_in(&tiers.vault()), set([&ids[4]]));
    let more = tiers.take(&[60, 72, 80, 96]);
    let ran = tiers.run(&["vault", "push", "--pending", "--group", "web", "--json"]).expect_code(0).json();
    assert_eq!(ran["points"], 2, "{ran}");
    assert_eq!(shown_in(&tiers.vault()), set([&ids[4], &more[1], &more[3]]));
    let ran = tiers.run(&["vault", "push", "--pending", "--json"]).expect_code(0).json();
    assert_eq!(ran["points"], 0, "{ran}");
    tiers.run(&["vault", "push", "--pending", "--group", "wbe"]).expect_code(2).expect_err(&["wbe", "web"]);
    tiers.run(&["vault", "push", "--pending", &ids[0]]).expect_code(0);
    assert_eq!(shown_in(&tiers.vault()), set([&ids[0], &ids[4], &more[1], &more[3]]), "and what is named");
    // All that is here.
    tiers.run(&["vault", "push"]).expect_code(0);
    assert_eq!(shown_in(&tiers.vault()), set(ids.iter().chain(&more).chain(&other)));
}

#[test]
fn a_backup_brings_what_a_vault_missed_that_was_away() {
    let tiers = Tiers::new(LOCAL, ONLINE);
    let ids = tiers.take(&[0, 24, 30, 48]);
    tiers.run(&["vault", "push", &ids[0]]).expect_code(0);
    std::fs::rename(tiers.vault(), tiers.away()).unwrap();
    let taken = |ran: Ran| ran.json()["snapshot_id"].as_str().unwrap().to_owned();
    let away = taken(tiers.run(&["backup", "--group", "web", "--online", "--json"]).expect_code(1));
    std::fs::rename(tiers.away(), tiers.vault()).unwrap();
    let said = tiers.run(&["backup", "--group", "web", "--online"]).expect_code(0).out();
    let vaulted: Vec<&str> = said.lines().filter_map(|line| line.strip_suffix(" vaulted")).collect();
    assert_eq!(vaulted.len(), 4, "{said}");
    for (line, id) in vaulted.iter().zip([&ids[1], &ids[3], &away]) {
        assert!(line.ends_with(&id[..8]), "oldest first: {said}");
    }
    let there = shown_in(&tiers.vault());
    assert!(there.is_superset(&set([&ids[0], &ids[1], &ids[3], &away])) && there.len() == 5, "{there:?}");
    // What cannot be taken keeps nothing from the vault.
    let next = tiers.take(&[24 * 365 * 90]);
    std::fs::remove_dir_all(tiers.machine.path("www")).unwrap();
    tiers.run(&["backup", "--group", "web", "--online"]).expect_code(1).expect_err(&["www"]);
    assert!(shown_in(&tiers.vault()).contains(&next[0]));
}

#[test]
fn a_point_that_cannot_be_sent_keeps_no_other_from_the_vault() {
    let tiers = Tiers::new(LOCAL, ONLINE);
    let ids = tiers.take(&[0]);
    tiers.run(&["vault", "push"]).expect_code(0);
    let before = packs(&tiers.machine.store());
    let damaged = tiers.take(&[24]);
    for pack in packs(&tiers.machine.store()).difference(&before) {
        std::fs::write(pack, "no pack").unwrap();
    }
    let sound = tiers.take(&[48]);
    tiers.run(&["backup", "--group", "web", "--online"]).expect_code(1).expect_err(&[&damaged[0][..8]]);
    let there = shown_in(&tiers.vault());
    assert!(there.is_superset(&set([&ids[0], &sound[0]])) && there.len() == 3, "{there:?}");
}
