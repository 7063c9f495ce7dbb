//! A daemon without its loop and its socket, for tests.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_backup::agenda::Agenda;
use holdfast_backup::config::Config;
use holdfast_backup::ledger::Ledger;
use holdfast_store::clock::{ManualClock, Timestamp};
use jiff::tz::TimeZone;
use tokio::sync::mpsc::channel;

use super::watch::Watch;
use super::{Caller, Daemon, Parts, Watching};
use crate::notify::Manager;
use crate::telling::From;

/// When it begins.
pub const START: Timestamp = Timestamp { seconds: 1_000_000, nanos: 0 };

/// A daemon of a store in a directory that does what a configuration says, and for whom `false` takes the place of the program.
pub fn daemon(config: &str, store: &Path, clock: &ManualClock) -> Daemon {
    let config = Config::parse(&[("holdfast.toml".into(), config.to_owned())]).unwrap();
    let from = From { host: "box".into(), store: String::new(), zone: TimeZone::UTC };
    let every = Duration::from_secs(300);
    let plan = Watching { every, ways: Vec::new(), from, metrics_file: None };
    let parts = Parts {
        store: store.to_path_buf(),
        ledger: Ledger::open(store).unwrap().0,
        caller: Caller { program: "false".into(), common: Vec::new(), nice: 0 },
        read: Box::new(|| Err(String::new())),
        clock: Arc::new(clock.clone()),
        manager: Manager::named(None),
        watchdog: None,
    };
    Daemon {
        parts,
        agenda: Agenda::new(&config, "box", TimeZone::UTC, START),
        since: START,
        trouble: None,
        active: BTreeMap::new(),
        wanted: VecDeque::new(),
        watch: Watch::new(plan, START),
        to_loop: channel(9).0,
        stopping: false,
    }
}
