//! `holdfast check`: whether everything that is stored can be read back.

use clap::Args;
use holdfast_backup::agenda::Work;
use holdfast_backup::ledger::{DAMAGED, Ended, JobState, Ledger};
use holdfast_store::check::{self, AffectedFile, Depth, Finding};
use holdfast_store::clock::Timestamp;
use holdfast_store::names;
use holdfast_store::store::Store;

use super::Context;
use crate::json::{BrokenFile, CheckSummary};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::settings::is_job;
use crate::terminal::{Terminal, WorkMonitor, text};

/// Prove that the store is whole
///
/// Follows every recovery point to its chunks and makes sure that each pack is there and has its length. With
/// --read-data every byte is read back, opened and hashed, which takes as long as reading the store does. Damage is
/// named by pack and by the points it touches, and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast check                            structure, existence and lengths
  holdfast check --read-data                and every byte")]
pub struct CheckArgs {
    /// Read back and prove every byte
    #[arg(long)]
    read_data: bool,
}

/// What a check found.
#[derive(Debug, Default)]
pub(super) struct Report {
    points: u64,
    pub(super) packs: u64,
    pub(super) bytes_read: u64,
    pub(super) broken_packs: Vec<String>,
    pub(super) files: Vec<AffectedFile>,
    /// A line for each finding.
    said: String,
    pub(super) problems: u64,
    /// Of the problems, those that something could not be looked at.
    unseen: u64,
}

impl Report {
    /// That of the engine.
    pub(super) fn of(found: check::Report) -> Self {
        let broken = found.findings.iter().filter(|finding| finding.object.starts_with(names::PACKS));
        let mut broken_packs: Vec<String> = broken.map(|finding| finding.object.clone()).collect();
        broken_packs.dedup();
        let line = |finding: &Finding| format!("{}: {}\n", finding.object, finding.detail);
        // Damage first: the alert names that.
        let (unseen, seen): (Vec<_>, Vec<_>) = found.findings.iter().partition(|finding| finding.unseen);
        Self {
            said: seen.into_iter().chain(unseen).map(line).collect(),
            points: found.points,
            packs: found.packs,
            bytes_read: found.bytes_read,
            broken_packs,
            files: found.files,
            problems: found.findings.len() as u64,
            unseen: found.findings.iter().filter(|finding| finding.unseen).count() as u64,
        }
    }

    pub(super) fn only_unseen(&self) -> bool {
        self.problems > 0 && self.problems == self.unseen
    }

    /// The last words.
    pub(super) fn verdict(&self) -> &'static str {
        verdict(self.problems, self.unseen)
    }
}

/// Checks.
pub fn run(context: &Context<'_>, args: &CheckArgs) -> Outcome {
    let store = open_store(context)?;
    let begun = context.terminal.clock().now();
    let monitor = context.terminal.monitor();
    let mut report = check(&store, args.read_data, &monitor)?;
    report.problems = report.problems.max(monitor.problems());
    drop(monitor);
    let work = if args.read_data { Work::CheckData } else { Work::Check };
    note(context, &store, work, begun, &report);
    show(context.terminal, &report)?;
    match report.problems {
        0 => Ok(Done::Whole),
        _ => Err(failure(&report)),
    }
}

/// Puts down what was found, so that `status` and the daemon know. Of its own jobs the daemon does it.
pub(super) fn note(context: &Context<'_>, store: &Store, work: Work, begun: Timestamp, report: &Report) {
    if is_job() {
        return;
    }
    let (state, said) = match report.problems {
        0 => (JobState::Done, String::new()),
        _ => (JobState::Failed, format!("{}{}\n", report.said, failure(report).message)),
    };
    let ended = Ended { at: context.terminal.clock().now(), state, said, points: Vec::new(), sent: None };
    if let Err(error) = Ledger::note_check(store.dir(), work, begun, &ended) {
        context.terminal.warn(&format!("what was found is not put down for `holdfast status`: {error}"));
    }
}

/// What was found, if anything was.
pub(super) fn failure(report: &Report) -> Failure {
    if report.only_unseen() {
        let message = format!("not all could be looked at: {}", text::count(report.unseen, "problem"));
        return Failure::failed(message)
            .hint("see to the vaults and annexes that the lines above name, then check again");
    }
    Failure::failed(format!("{DAMAGED}: {}", text::count(report.problems, "problem"))).hint(
        "the lines above name the damage; `holdfast vault push`, `holdfast backup` where the source is unchanged, or `holdfast prune` for a local pack that is whole in a vault may heal it",
    )
}

fn check(store: &Store, read_data: bool, monitor: &WorkMonitor) -> Result<Report, Failure> {
    let depth = if read_data { Depth::ReadData } else { Depth::Structure };
    Ok(Report::of(check::check(store, depth, monitor)?))
}

/// Which files cannot be restored whole, and from which points.
pub(super) fn name_files(terminal: &Terminal, report: &Report) -> Result<(), Failure> {
    for file in &report.files {
        let mut line = format!("damaged in point {}: ", file.point.short()).into_bytes();
        line.extend_from_slice(&terminal.name(&file.path));
        line.push(b'\n');
        terminal.bytes(&line)?;
    }
    Ok(())
}

fn show(terminal: &Terminal, report: &Report) -> Result<(), Failure> {
    if terminal.json() {
        return terminal.json_line(&CheckSummary {
            message_type: "summary",
            num_errors: report.problems,
            broken_packs: report.broken_packs.clone(),
            suggest_repair_index: false,
            suggest_prune: false,
            broken_files: report.files.iter().map(|file| BrokenFile::new(&file.point, &file.path)).collect(),
            points: report.points,
            bytes_read: report.bytes_read,
        });
    }
    name_files(terminal, report)?;
    terminal.say(&sentence(report))
}

fn sentence(report: &Report) -> String {
    let checked = format!(
        "checked {} and {}",
        text::count(report.points, "recovery point"),
        text::count(report.packs, "pack")
    );
    let read = match report.bytes_read {
        0 => "without reading their data".to_owned(),
        bytes => format!("read {}", text::size(bytes)),
    };
    format!("{checked}, {read}: {}", report.verdict())
}

/// The last words, of so many problems, of which so many are things that could not be looked at.
pub(super) fn verdict(problems: u64, unseen: u64) -> &'static str {
    match problems {
        0 => "no damage found",
        _ if problems == unseen => "NOT ALL COULD BE LOOKED AT",
        _ => "DAMAGE FOUND",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_says_how_much_it_proved() {
        let mut report = Report { points: 2, packs: 1, ..Report::default() };
        assert_eq!(
            sentence(&report),
            "checked 2 recovery points and 1 pack, without reading their data: no damage found"
        );
        report.bytes_read = 1 << 30;
        report.problems = 1;
        assert_eq!(sentence(&report), "checked 2 recovery points and 1 pack, read 1.000 GiB: DAMAGE FOUND");
    }

    #[test]
    fn what_could_not_be_looked_at_is_not_called_damage() {
        let unseen = Report { problems: 2, unseen: 2, ..Report::default() };
        assert!(sentence(&unseen).ends_with(": NOT ALL COULD BE LOOKED AT"), "{}", sentence(&unseen));
        assert_eq!(failure(&unseen).message, "not all could be looked at: 2 problems");
        assert_eq!(failure(&unseen).exit_code(), 1);
        let damaged = Report { problems: 3, ..unseen };
        assert!(sentence(&damaged).ends_with(": DAMAGE FOUND"), "{}", sentence(&damaged));
        assert_eq!(failure(&damaged).message, "the store is damaged: 3 problems");
    }
}
