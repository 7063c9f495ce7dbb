//! `holdfast cancel`: ends a job of the daemon.

use clap::Args;

use super::Context;
use crate::daemon::talk::{Answer, Daemon, Question};
use crate::outcome::{Done, Failure, Outcome};

/// End a job of the daemon
///
/// The job is asked to stop where it safely can, and killed if it does not within half a minute, with a hook that it still runs. What it
/// did so far stays and is used by the next one. It is done again when it is due again.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast jobs                             the numbers
  holdfast cancel 12")]
pub struct CancelArgs {
    /// Number of the job
    job: i64,
}

/// Asks the daemon.
pub fn run(context: &Context<'_>, args: &CancelArgs) -> Outcome {
    let daemon = Daemon::of(context.settings.store()?).ok_or_else(no_daemon)?;
    let mut answer = None;
    let asked = daemon.ask(
        &Question::Cancel { job: args.job },
        || context.terminal.cancelled(),
        |said| {
            answer = Some(said);
            false
        },
    );
    asked.map_err(|error| Failure::failed(format!("the daemon does not answer: {error}")))?;
    match answer {
        Some(Answer::Done) => {
            context.terminal.say(&format!("job {} was asked to stop", args.job))?;
            Ok(Done::Whole)
        }
        Some(Answer::Refused { reason }) => Err(Failure::failed(reason).hint("`holdfast jobs` shows them")),
        _ => Err(Failure::failed("the daemon said nothing that is known here")),
    }
}

/// Nobody is there to be asked.
pub fn no_daemon() -> Failure {
    Failure::failed("no daemon serves this store").hint("`holdfast daemon` is one; systemd starts it at boot")
}
