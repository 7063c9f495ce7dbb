//! `holdfast jobs`: what the daemon does and did.

use std::collections::HashSet;

use clap::Args;
use holdfast_backup::ledger::{Job, JobState, Ledger};
use holdfast_store::store::Store;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use crate::daemon::talk::{Answer, Daemon, Present, Question};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text::{self, Table};

/// Show what the daemon does and did
///
/// The newest job first. A job that failed says why below its line; what failed is tried again by itself, sooner at first and each
/// hour in the end.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast jobs                             the last ten
  holdfast jobs -n 100 --failed
  holdfast jobs --json | jq -r 'select(.state == \"failed\") | .said'")]
pub struct JobsArgs {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    number: u32,
    /// Only those that were not done
    #[arg(long)]
    failed: bool,
}

/// A job as programs see it.
#[derive(Debug, Serialize)]
struct JobLine<'a> {
    /// Always `job`.
    message_type: &'static str,
    job: i64,
    work: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    /// Whether a person asked for it.
    person: bool,
    begun: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    state: String,
    /// From 0 to 1, of one that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    part_done: Option<f64>,
    /// Of one that puts points into vaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    said: &'a str,
    points: &'a [String],
}

/// Shows them.
pub fn run(context: &Context<'_>, args: &JobsArgs) -> Outcome {
    let dir = context.settings.store()?;
    // Whether there is a store at all.
    Store::head(dir)?;
    let ledger = Ledger::look(dir).map_err(|error| Failure::failed(error.to_string()))?;
    let read = |ledger: Ledger| {
        let all = ledger.jobs(if args.failed { u32::MAX } else { args.number });
        all.map_err(|error| Failure::failed(error.to_string()))
    };
    let mut jobs = ledger.map_or(Ok(Vec::new()), read)?;
    if args.failed {
        jobs.retain(|job| !matches!(job.state, JobState::Running | JobState::Done));
        jobs.truncate(usize::try_from(args.number).unwrap_or(usize::MAX));
    }
    let present = present(context)?;
    if context.terminal.json() {
        return jobs
            .iter()
            .try_for_each(|job| context.terminal.json_line(&as_json(job, present.as_ref())))
            .map(|()| Done::Whole);
    }
    context.terminal.line(&render(&jobs, present.as_ref(), &TimeZone::system()))?;
    Ok(Done::Whole)
}

/// What the daemon does, if one serves this store.
pub fn present(context: &Context<'_>) -> Result<Option<Present>, Failure> {
    let Some(daemon) = Daemon::of(context.settings.store()?) else { return Ok(None) };
    let mut present = None;
    let asked = daemon.ask(
        &Question::Status,
        || context.terminal.cancelled(),
        |answer| {
            if let Answer::Status(said) = answer {
                present = Some(said);
            }
            false
        },
    );
    // One that ends just now is none.
    Ok(asked.ok().and(present))
}

fn part_done(job: &Job, present: Option<&Present>) -> Option<f64> {
    let running = present?.running.iter().find(|running| running.job == job.no.0)?;
    Some(running.part_done)
}

fn as_json<'a>(job: &'a Job, present: Option<&Present>) -> JobLine<'a> {
    JobLine {
        message_type: "job",
        job: job.no.0,
        work: job.task.work.to_string(),
        group: job.task.group.as_deref(),
        person: job.person,
        begun: text::rfc3339(job.begun),
        ended: job.ended.map(text::rfc3339),
        state: job.state.to_string(),
        part_done: part_done(job, present),
        bytes_sent: job.sent,
        said: &job.said,
        points: &job.points,
    }
}

fn render(jobs: &[Job], present: Option<&Present>, zone: &TimeZone) -> String {
    if jobs.is_empty() {
        return "no jobs yet\n".to_owned();
    }
    let mut table = Table::new(&["Job", "Begun", "Took", "Sent", "Task", "State"]);
    for job in jobs {
        let took =
            job.ended.map(|ended| ended.seconds.saturating_sub(job.begun.seconds).max(0).unsigned_abs());
        let state = match part_done(job, present) {
            Some(part) if job.state == JobState::Running && part > 0.0 => {
                format!("{} {:.0} %", job.state, part * 100.0)
            }
            _ => job.state.to_string(),
        };
        table.row([
            job.no.to_string(),
            text::local_time(job.begun, zone),
            took.map_or_else(String::new, text::duration),
            job.sent.map_or_else(String::new, text::size),
            job.task.to_string(),
            state,
        ]);
    }
    // What is tried again and again fails for the same reason: it is told once.
    let mut told = HashSet::new();
    let said = jobs.iter().filter(|job| !job.said.is_empty() && told.insert((&job.task, &job.said)));
    let said: Vec<String> =
        said.map(|job| format!("job {}: {}", job.no, text::printable_text(job.said.trim_end()))).collect();
    format!("{}\n{}{}", table.render(), said.join("\n"), if said.is_empty() { "" } else { "\n" })
}

#[cfg(test)]
mod tests {
    use holdfast_backup::agenda::{Task, Work};
    use holdfast_backup::ledger::JobNo;
    use holdfast_store::clock::Timestamp;

    use super::*;
    use crate::daemon::talk::Running;

    fn job(no: i64, state: JobState, said: &str) -> Job {
        Job {
            no: JobNo(no),
            task: Task { work: Work::Take, group: Some("web".into()) },
            person: false,
            begun: Timestamp::from_seconds(1_795_176_000),
            ended: (state != JobState::Running).then(|| Timestamp::from_seconds(1_795_176_065)),
            state,
            said: said.into(),
            points: Vec::new(),
            sent: (no == 7).then_some(5 << 20),
        }
    }

    #[test]
    fn the_table_says_how_far_a_job_is_and_why_one_failed() {
        let running = Running { job: 8, part_done: 0.5, ..Running::default() };
        let present = Present { running: vec![running], ..Present::default() };
        let jobs = [job(8, JobState::Running, ""), job(7, JobState::Failed, "no \x1b[2J room\n")];
        assert_eq!(
            render(&jobs, Some(&present), &TimeZone::UTC),
            "Job  Begun                Took  Sent       Task        State\n\
             -------------------------------------------------------------------\n\
             8    2026-11-20 12:00:00                   backup web  running 50 %\n\
             7    2026-11-20 12:00:00  1:05  5.000 MiB  backup web  failed\n\
             job 7: no \\x1b[2J room\n"
        );
        assert_eq!(render(&[], None, &TimeZone::UTC), "no jobs yet\n");
    }
}
