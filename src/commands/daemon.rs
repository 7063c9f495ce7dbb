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
use holdfast_backup::config::{Config, Text, files_of};
use holdfast_backup::ledger::Ledger;
use holdfast_store::clock::Timestamp;
use jiff::tz::TimeZone;

use super::Context;
use super::config::unsafe_hooks;
use super::configured::zone_of;
use crate::accepted;
use crate::daemon::{self, Caller, Parts, Planned, Watching};
use crate::hooks::others_write;
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
    let dir = match (context.settings.config(), context.settings.mistakes()) {
        (Ok(config), _) => protects_something(config).and_then(|()| context.settings.store())?.to_path_buf(),
        // An earlier daemon may have accepted another.
        (Err(_), Some(_)) => context.settings.store_despite_mistakes()?,
        (Err(failure), None) => return Err(failure),
    };
    let context = &context.at_store(dir);
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
    let reader = Reader::new(context, &store, since)?;
    let (planned, trouble) = reader.begin(context)?;
    let parts = Parts {
        caller: caller(context, &store)?,
        read: Box::new(move || reader.read()),
        clock: Arc::clone(context.terminal.clock()),
        manager: Manager::named(env(notify::SOCKET)),
        watchdog,
        ledger,
        store,
    };
    daemon::run(parts, planned, trouble).map(|()| Done::Whole).map_err(Failure::failed)
}

fn protects_something(config: &Config) -> Result<(), Failure> {
    if config.groups.is_empty() {
        let failure = Failure::failed("the configuration protects nothing");
        return Err(failure.hint("`holdfast protect PATH --group NAME` adds something"));
    }
    Ok(())
}

/// Reads the configuration, and keeps what it says for the jobs.
struct Reader {
    path: PathBuf,
    store: PathBuf,
    host: String,
    since: Timestamp,
}

impl Reader {
    fn new(context: &Context<'_>, store: &Path, since: Timestamp) -> Result<Self, Failure> {
        let path = whole(context.settings.config_file()?)?;
        Ok(Self { path, store: store.to_path_buf(), host: context.settings.host.clone(), since })
    }

    /// What it says now. If it has mistakes: what an earlier daemon accepted, and what is wrong.
    fn begin(&self, context: &Context<'_>) -> Result<(Planned, Option<String>), Failure> {
        let Some(mistakes) = context.settings.mistakes() else {
            let planned = self.read().map_err(Failure::failed)?;
            return Ok((planned, None));
        };
        // Who removed it wants an end.
        let accepted = context.settings.accepted(&self.store).filter(|_| self.path.exists());
        let accepted = accepted.filter(|config| protects_something(config).is_ok());
        accepted.map(|config| (self.plan(config), Some(mistakes.message.clone()))).ok_or(mistakes)
    }

    fn read(&self) -> Result<Planned, String> {
        let files = files_of(&self.path).map_err(|error| error.to_string())?;
        let config = Config::parse(&files).map_err(|error| error.to_string())?;
        // A file that is just being written may be empty.
        protects_something(&config).map_err(|failure| failure.message)?;
        self.accept(&files, &config);
        Ok(self.plan(config))
    }

    /// What others may write must not outlive the mend, and hooks that would not be run are looked at again by each job, in the files themselves.
    fn accept(&self, files: &[Text], config: &Config) {
        if !unsafe_hooks(config).is_empty() || files.iter().any(|(file, _)| others_write(file)) {
            return accepted::drop_it(&self.store);
        }
        if let Err(error) = accepted::keep(&self.store, &self.path, files) {
            tracing::warn!(
                "the configuration cannot be kept for the jobs, which read it themselves: {error}"
            );
        }
    }

    fn plan(&self, config: Config) -> Planned {
        let agenda = Agenda::new(&config, &self.host, TimeZone::system(), self.since);
        let zone = zone_of(&config);
        let watching = Watching {
            every: config.alerts.every,
            ways: Way::all(&config.alerts),
            from: From { host: self.host.clone(), store: self.store.display().to_string(), zone },
            metrics_file: config.metrics_file,
        };
        Planned { agenda, nice: config.nice, watching }
    }
}

fn whole(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::io("find", path, &error))
}

/// The program as a job calls it: the same store and the same configuration, whatever the directory is by then.
fn caller(context: &Context<'_>, store: &Path) -> Result<Caller, Failure> {
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
