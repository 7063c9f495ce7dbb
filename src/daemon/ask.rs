//! Having the daemon do what a person asks for, where one serves the store: so that the two never get into each other's way, and what was
//! asked for stands in the history of jobs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_backup::agenda::{Task, Work};
use holdfast_backup::ledger::JobState;
use holdfast_store::clock::Clock;

use super::talk::{Answer, Daemon, Question};
use crate::commands::Context;
use crate::commands::jobs::present;
use crate::outcome::{Done, Failure, Failures, Kind, Outcome};
use crate::settings::is_job;

/// After so long it is looked whether a daemon that says nothing is there.
const SILENT_FOR: Duration = Duration::from_secs(3);

/// Has the daemon do these tasks, one after the other, and waits; `None` if no daemon serves the store, or this process is a job itself.
/// What is taken of a group by one of them is sent by a later one that puts points of the group into vaults.
pub fn through_daemon(context: &Context<'_>, tasks: &[Task]) -> Result<Option<Done>, Failure> {
    let store = context.settings.store()?;
    if is_job() || Daemon::of(store).is_none() {
        return Ok(None);
    }
    let (mut failures, mut done) = (Failures::default(), Done::Whole);
    let mut taken = BTreeMap::<&Option<String>, Vec<String>>::new();
    for task in tasks {
        let of_group = taken.entry(&task.group).or_default();
        let outcome = match Daemon::of(store) {
            Some(daemon) => have_done(context, daemon, task, of_group),
            None => Err(Failure::failed(format!("{task}: the daemon has ended"))),
        };
        if failures.note(outcome)? == Some(Done::Partial) {
            done = Done::Partial;
        }
    }
    failures.or(done).map(Some)
}

/// `taken` are points of the group; those that are made are added.
fn have_done(context: &Context<'_>, daemon: Daemon, task: &Task, taken: &mut Vec<String>) -> Outcome {
    let wanted = if task.work == Work::Push { taken.clone() } else { Vec::new() };
    let question = Question::Run { work: task.work.to_string(), group: task.group.clone(), points: wanted };
    let (mut last, begun) = (None, Cell::new(None));
    let (mut silence, clock) = (Silence::default(), &**context.terminal.clock());
    let asked = daemon.ask(
        &question,
        || {
            if begun.get().is_none() && silence.lasts(clock) {
                tell_of_silence(context);
            }
            context.terminal.cancelled()
        },
        |answer| {
            if let Answer::Begun { job } = answer {
                begun.set(Some(job));
                return true;
            }
            last = Some(answer);
            false
        },
    );
    if let (true, None) = (context.terminal.cancelled(), &last) {
        let failure = Failure::interrupted();
        return Err(match begun.get() {
            Some(job) => failure.hint(format!("job {job} goes on; `holdfast cancel {job}` ends it")),
            None => failure,
        });
    }
    asked.map_err(|error| Failure::failed(format!("the daemon does not answer: {error}")))?;
    match last {
        Some(Answer::Ended { job, state, said, points, code }) => {
            tell(context, task, (job, &state), &points)?;
            taken.extend(points);
            outcome(&format!("job {job} ({task})"), &state, &said, code)
        }
        Some(Answer::Refused { reason }) => Err(Failure::failed(reason)),
        _ => Err(Failure::failed(format!("{task}: the daemon ended before it; the next one does it"))),
    }
}

/// How long nothing was heard of a job that is to begin.
#[derive(Default)]
struct Silence {
    since: Option<Duration>,
    told: bool,
}

impl Silence {
    /// Whether it is time to see if anybody is there; once.
    fn lasts(&mut self, clock: &dyn Clock) -> bool {
        let now = clock.monotonic();
        let long = now.saturating_sub(*self.since.get_or_insert(now)) >= SILENT_FOR;
        long && !std::mem::replace(&mut self.told, true)
    }
}

/// Another job may be in the way; a daemon that does not even say so is stuck, or somebody has stopped it.
fn tell_of_silence(context: &Context<'_>) {
    let store = context.settings.store();
    if let (Ok(store), Ok(None)) = (store, present(context)) {
        let process = std::fs::read_to_string(store.join("daemon.lock")).unwrap_or_default();
        let process = process.trim();
        context.terminal.warn(&format!(
            "the daemon (process {process}) does not answer; `ps -p {process}` shows whether it is stopped"
        ));
    }
}

fn tell(
    context: &Context<'_>,
    task: &Task,
    (job, state): (i64, &str),
    points: &[String],
) -> Result<(), Failure> {
    if context.terminal.json() {
        let line = serde_json::json!({
            "message_type": "job", "job": job, "work": task.work.to_string(), "group": task.group,
            "state": state, "points": points,
        });
        return context.terminal.json_line(&line);
    }
    let became = match task.work {
        Work::Take => "saved",
        // One that failed may have brought it into one of several vaults.
        Work::Push if state == JobState::Done.to_string() => "vaulted",
        _ => "",
    };
    for point in points.iter().filter(|_| !became.is_empty()) {
        let id: String = point.chars().take(8).collect();
        context.terminal.say(&format!("recovery point {id} {became}"))?;
    }
    context.terminal.say(&format!("job {job} ({task}): {state}"))
}

/// The job's own exit code is what it would have been without a daemon.
fn outcome(name: &str, state: &str, said: &str, code: Option<i32>) -> Outcome {
    let failure = |kind| Err(Failure::new(kind, format!("{name}: {state}: {}", said.trim_end())));
    match code {
        Some(0) => Ok(Done::Whole),
        Some(3) => Ok(Done::Partial),
        Some(11) => failure(Kind::Locked),
        Some(12) => failure(Kind::WrongKey),
        _ if state == "cancelled" => failure(Kind::Interrupted),
        _ => failure(Kind::Failed),
    }
}

/// Has the daemon of the store, if there is one, read its configuration again, and says if it does not.
pub fn reload(context: &Context<'_>) -> bool {
    let Some(daemon) = context.settings.store().ok().and_then(Daemon::of) else { return true };
    let mut refused = None;
    let asked = daemon.ask(
        &Question::Reload,
        || context.terminal.cancelled(),
        |answer| {
            if let Answer::Refused { reason } = answer {
                refused = Some(reason);
            }
            false
        },
    );
    let refused = refused.or_else(|| asked.err().map(|error| error.to_string()));
    if let Some(reason) = &refused {
        context.terminal.warn(&format!("the daemon goes on with the configuration that it had: {reason}"));
    }
    refused.is_none()
}
