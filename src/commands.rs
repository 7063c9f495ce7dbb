//! The verbs, one file each, and the way to them.
//!
//! A verb has its arguments, a `run` that tells its story, and what it prints. Each prints the same facts as text for a
//! person and as JSON for a program, from one plain struct.

pub mod alerts;
pub mod backup;
pub mod cancel;
pub mod check;
pub mod completions;
pub mod config;
pub mod configured;
pub mod copy;
pub mod daemon;
pub mod diff;
pub mod drill;
pub mod dump;
pub mod estimate;
pub mod fetch;
pub mod find;
pub mod forget;
pub mod history;
pub mod hold;
pub mod init;
pub mod jobs;
mod judged;
pub mod key;
pub mod ls;
pub mod man;
pub mod mount;
pub mod place;
pub mod plan;
pub mod protect;
pub mod prune;
pub mod quickstart;
pub mod recover;
pub mod release;
pub mod restore;
pub mod scope;
pub mod scrub;
pub mod snapshots;
pub mod staging;
pub mod stats;
pub mod status;
pub mod umount;
pub mod undelete;
pub mod upload;
pub mod vault;

#[cfg(test)]
pub mod testing;

use std::path::PathBuf;

use crate::args::Verb;
use crate::outcome::{Done, Failure, Kind, Outcome};
use crate::settings::Settings;
use crate::terminal::Terminal;

/// What every verb works with.
#[derive(Debug)]
pub struct Context<'a> {
    /// Where and with which secrets.
    pub settings: Settings,
    /// Whom to tell.
    pub terminal: &'a Terminal,
}

impl Context<'_> {
    /// The same with another store.
    pub fn at_store(&self, store: PathBuf) -> Self {
        Self { settings: self.settings.at_store(store), terminal: self.terminal }
    }
}

/// Runs a verb that needs no settings, so that it works where no home and no place for anything is; `None` if it is another.
pub fn run_anywhere(terminal: &Terminal, verb: &Verb) -> Option<Outcome> {
    match verb {
        Verb::Completions(args) => Some(completions::run(terminal, args)),
        Verb::Man(args) => Some(man::run(terminal, args)),
        _ => None,
    }
}

/// Runs a verb. One that writes and was told of troubles with the source or the store is done in part only, however well it
/// ended; of one that reads, the exit code says whether what was asked for was given. One that failed because it was asked to
/// stop was interrupted, whatever its last error says.
pub fn run(context: &Context<'_>, verb: Verb) -> Outcome {
    let writes = writes(&verb);
    match run_verb(context, verb) {
        Ok(Done::Whole) if writes && context.terminal.problems() > 0 => Ok(Done::Partial),
        Err(failure) if failure.kind == Kind::Failed && context.terminal.cancelled() => {
            Err(Failure { kind: Kind::Interrupted, ..failure })
        }
        outcome => outcome,
    }
}

/// Whether a verb changes what a store or a vault holds.
fn writes(verb: &Verb) -> bool {
    match verb {
        Verb::Vault(args) => args.writes(),
        Verb::Staging(args) => args.writes(),
        Verb::Quickstart(_) | Verb::Backup(_) | Verb::Copy(_) | Verb::Recover(_) => true,
        Verb::Forget(_) | Verb::Prune(_) | Verb::Hold(_) | Verb::Release(_) | Verb::Undelete(_) => true,
        _ => false,
    }
}

/// Whether a verb goes on after it is done, answering other programs.
pub fn serves(verb: &Verb) -> bool {
    match verb {
        Verb::Mount(_) | Verb::Daemon(_) => true,
        Verb::Recover(args) => args.mounts(),
        _ => false,
    }
}

/// Whether a verb takes the signals by itself that ask others to stop.
pub fn takes_signals(verb: &Verb) -> bool {
    matches!(verb, Verb::Daemon(_))
}

fn run_verb(context: &Context<'_>, verb: Verb) -> Outcome {
    match verb {
        Verb::Quickstart(args) => quickstart::run(context, &args),
        Verb::Init(args) => init::run(context, &args),
        Verb::Backup(args) => backup::run(context, &args),
        Verb::Snapshots(args) => snapshots::run(context, &args),
        Verb::Ls(args) => ls::run(context, &args),
        Verb::Find(args) => find::run(context, &args),
        Verb::History(args) => history::run(context, &args),
        Verb::Diff(args) => diff::run(context, &args),
        Verb::Dump(args) => dump::run(context, &args),
        Verb::Restore(args) => restore::run(context, &args),
        Verb::Mount(args) => mount::run(context, &args),
        Verb::Estimate(args) => estimate::run(context, &args),
        Verb::Fetch(args) => fetch::run(context, &args),
        Verb::Umount(args) => umount::run(context, &args),
        Verb::Recover(args) => recover::run(context, &args),
        Verb::Check(args) => check::run(context, &args),
        Verb::Drill(args) => drill::run(context, &args),
        Verb::Scrub(args) => scrub::run(context, &args),
        Verb::Config(args) => config::run(context, &args),
        Verb::Stats(args) => stats::run(context, &args),
        Verb::Key(args) => key::run(context, &args),
        Verb::Vault(args) => vault::run(context, &args),
        Verb::Staging(args) => staging::run(context, &args),
        Verb::Copy(args) => copy::run(context, &args),
        Verb::Forget(args) => forget::run(context, &args),
        Verb::Undelete(args) => undelete::run(context, &args),
        Verb::Hold(args) => hold::run(context, &args),
        Verb::Release(args) => release::run(context, &args),
        Verb::Daemon(args) => daemon::run(context, &args),
        Verb::Status(args) => status::run(context, &args),
        Verb::Jobs(args) => jobs::run(context, &args),
        Verb::Alerts(args) => alerts::run(context, &args),
        Verb::Cancel(args) => cancel::run(context, &args),
        Verb::Plan(args) => plan::run(context, &args),
        Verb::Protect(args) => protect::run(context, &args),
        Verb::Prune(args) => prune::run(context, &args),
        Verb::Completions(args) => completions::run(context.terminal, &args),
        Verb::Man(args) => man::run(context.terminal, &args),
    }
}
