//! `holdfast daemon`: does what the configuration says, when it is due.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use holdfast_backup::agenda::Agenda;
use holdfast_backup::config::Config;
use holdfast_backup::ledger::Ledger;
use holdfast_store::clock::Timestamp;
use jiff::tz::TimeZone;

use super::Context;
use super::configured::zone_of;
use crate::daemon::{self, Caller, Parts, Planned, Watching};
use crate::notify::{self, Manager};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Kind, Outcome};
use crate::settings::process_environment;
use crate::telling::{From, Way};

/// Take points, put them online and expire them as the configuration says
///
/// It runs until it is asked to stop (SIGTERM, Ctrl-C). For each group points are taken at the moments of both tiers, put into the
/// vaults at those of the online tier, and expired by the rules of each tier; once a day the space is freed that no point
/// needs. What was missed is done once, what failed is tried again. Each job is a process of this program, one that
/// you could have typed. SIGHUP reads the configuration again.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast daemon                           in the foreground, as a service manager wants it
  holdfast status                           what it does, from another terminal
  holdfast jobs -n 20")]
pub struct DaemonArgs {}

/// Serves.
pub fn run(context: &Context<'_>, _: &DaemonArgs) -> Outcome {
    let config = context.settings.config()?;
    if config.groups.is_empty() {
        let failure = Failure::failed("the configuration protects nothing");
        return Err(failure.hint("`holdfast protect PATH --group NAME` adds something"));
    }
    // What would keep each job from beginning is told at once, and to whoever starts this.
    let store = open_store(context)?.dir().to_path_buf();
    let _lock = lock(&store)?;
    let (ledger, aside) = Ledger::open(&store).map_err(|error| Failure::failed(error.to_string()))?;
    if let Some(aside) = aside {
        context
            .terminal
            .warn(&format!("the ledger was damaged and begins anew; the old one is {}", aside.display()));
    }
    let env = process_environment();
    // What has a time of day, and is in no hurry, was due since the first job, however often the daemon began anew.
    let first = ledger.first().map_err(|error| Failure::failed(error.to_string()))?;
    let since = first.unwrap_or_else(|| context.terminal.clock().now());
    let watchdog =
        env(notify::WATCHDOG).and_then(|text| text.to_str()?.parse().ok()).map(Duration::from_micros);
    let parts = Parts {
        caller: caller(context, &store)?,
        read: reader(context, &store, since)?,
        clock: Arc::clone(context.terminal.clock()),
        manager: Manager::named(env(notify::SOCKET)),
        watchdog,
        ledger,
        store,
    };
    daemon::run(parts).map(|()| Done::Whole).map_err(Failure::failed)
}

fn reader(
    context: &Context<'_>,
    store: &Path,
    since: Timestamp,
) -> Result<Box<dyn Fn() -> Result<Planned, String>>, Failure> {
    let path = context.settings.config_file()?.to_path_buf();
    let (host, store) = (context.settings.host.clone(), store.display().to_string());
    Ok(Box::new(move || {
        let config = Config::load(&path).map_err(|error| error.to_string())?;
        let agenda = Agenda::new(&config, &host, TimeZone::system(), since);
        let zone = zone_of(&config);
        let watching = Watching {
            every: config.alerts.every,
            ways: Way::all(&config.alerts),
            from: From { host: host.clone(), store: store.clone(), zone },
            metrics_file: config.metrics_file,
        };
        Ok(Planned { agenda, nice: config.nice, watching })
    }))
}

/// The program as a job calls it: the same store and the same configuration, whatever the directory is by then.
fn caller(context: &Context<'_>, store: &Path) -> Result<Caller, Failure> {
    let whole = |path: &Path| std::path::absolute(path).map_err(|error| Failure::io("find", path, &error));
    let common: Vec<OsString> = vec![
        "--store".into(),
        whole(store)?.into(),
        "--config".into(),
        whole(context.settings.config_file()?)?.into(),
    ];
    // Whatever an upgrade puts in its place, a daemon goes on with the program that it is itself.
    Ok(Caller { program: PathBuf::from("/proc/self/exe"), common, nice: 0 })
}

/// One daemon for each store. The lock is the kernel's and ends with its process.
fn lock(store: &Path) -> Result<File, Failure> {
    let path = store.join("daemon.lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(&path);
    let mut file = file.map_err(|error| Failure::io("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            let failure = Failure::new(Kind::Locked, format!("another daemon serves {}", store.display()));
            return Err(
                failure.hint(format!("it is process {}; `holdfast status` tells of it", holder.trim()))
            );
        }
        Err(TryLockError::Error(error)) => return Err(Failure::io("lock", &path, &error)),
    }
    // For people only.
    let _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    Ok(file)
}
