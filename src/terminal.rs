//! Everything that reaches a person: results on standard output, progress and trouble on standard error.
//!
//! Names come from other people's disks. None of them reaches a terminal as it is: control bytes, invalid UTF-8 and
//! characters that reorder text are shown escaped. A pipe gets names as they are, because a program reads it.

mod face;
mod log;
mod monitor;
mod output;
mod progress;
pub mod signals;
pub mod text;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_store::clock::{Clock, Deadline};
use serde::Serialize;

use crate::outcome::{Failure, Kind};
use face::{BarFace, Face, JsonFace, LineFace, QuietFace};
pub use log::log_to_stderr;
use log::{Priority, marked, stderr};
pub use monitor::WorkMonitor;
pub use output::Output;

/// A warning is not repeated for so long.
const SAID_FOR: std::time::Duration = std::time::Duration::from_secs(60);

/// How much to show, and to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// JSON lines for programs.
    pub json: bool,
    /// Results only.
    pub quiet: bool,
    /// Notes too; above 1 the engine's log.
    pub verbose: u8,
    /// Whether it is a job of the daemon.
    pub job: bool,
}

/// The way to the person or program that started us.
#[derive(Debug)]
pub struct Terminal {
    show: Show,
    clock: Arc<dyn Clock>,
    cancelled: Arc<AtomicBool>,
    problems: Arc<AtomicU64>,
}

impl Terminal {
    /// A terminal that shows as told; work stops when `cancelled` becomes true.
    pub fn new(show: Show, clock: Arc<dyn Clock>, cancelled: Arc<AtomicBool>) -> Self {
        Self { show, clock, cancelled, problems: Arc::default() }
    }

    /// How much is shown.
    pub fn show(&self) -> Show {
        self.show
    }

    /// Whether results go out as JSON.
    pub fn json(&self) -> bool {
        self.show.json
    }

    /// Whether more is to be shown than results.
    pub fn verbose(&self) -> bool {
        self.show.verbose > 0
    }

    /// The clock that progress is measured with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Whether somebody asked to stop.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// The flag that says so, for work that has no monitor.
    pub fn stop_flag(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }

    /// How many troubles all monitors of work were told of so far.
    pub fn problems(&self) -> u64 {
        self.problems.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Writes a result and a line's end to standard output.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Writes a line that only a person wants: nothing with `--json` or `-q`.
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        if self.show.json || self.show.quiet { Ok(()) } else { self.line(text) }
    }

    /// Writes a value as one line of JSON to standard output.
    pub fn json_line(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::failed("cannot write the result as JSON").caused_by(&error))?;
        self.line(&text)
    }

    /// Writes raw bytes to standard output.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            // A job does what it is for, whether or not the daemon is still there to hear of it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.show.job => Ok(()),
            written => written.map_err(|error| output_failure(&error)),
        }
    }

    /// A name for standard output: escaped for a terminal, as it is for a pipe.
    pub fn name(&self, raw: &[u8]) -> Vec<u8> {
        if io::stdout().is_terminal() { text::printable(raw).into_bytes() } else { raw.to_vec() }
    }

    /// Standard output for results that come in great numbers.
    pub fn output(&self) -> Output {
        Output::new()
    }

    /// A warning on standard error, with `-q` too.
    pub fn warn(&self, text: &str) {
        warn(text, self.show.json);
    }

    /// The same for whoever outlives the terminal, and may have the same to say over and over: that is told once a minute.
    pub fn warner(&self) -> impl Fn(&str) + Send + Sync + 'static + use<> {
        let (json, clock) = (self.show.json, Arc::clone(&self.clock));
        let last: Mutex<Option<(String, Deadline)>> = Mutex::default();
        move |text| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let again = last.as_ref().is_some_and(|(said, until)| said == text && !until.passed(&*clock));
            if !again {
                warn(text, json);
                *last = Some((text.to_owned(), Deadline::after(&*clock, SAID_FOR)));
            }
        }
    }

    /// Tells why the work could not be done.
    pub fn fail(&self, failure: &Failure) {
        print_failure(failure, self.show.json);
    }

    /// A monitor for one piece of work; dropping the last reference clears its progress.
    pub fn monitor(&self) -> Arc<WorkMonitor> {
        self.monitor_of(self.show, &self.problems)
    }

    /// The same for opening a store, whose troubles are told and do not count: work that needs no vault is done without one.
    pub fn monitor_of_opening(&self) -> Arc<WorkMonitor> {
        self.monitor_of(self.show, &Arc::default())
    }

    /// The same for work that goes on after the result was told: it adds no JSON lines to standard output, of which a program
    /// takes the last for the result.
    pub fn monitor_after_result(&self) -> Arc<WorkMonitor> {
        self.monitor_of(Show { quiet: self.show.quiet || self.show.json, ..self.show }, &self.problems)
    }

    fn monitor_of(&self, show: Show, told: &Arc<AtomicU64>) -> Arc<WorkMonitor> {
        let (clock, cancelled) = (Arc::clone(&self.clock), Arc::clone(&self.cancelled));
        Arc::new(WorkMonitor::new(face(show), clock, cancelled, Arc::clone(told)))
    }
}

fn warn(text: &str, json: bool) {
    let text = text::printable_text(text);
    let line = if json {
        serde_json::json!({ "message_type": "warning", "message": text }).to_string()
    } else {
        format!("holdfast: warning: {text}")
    };
    // A person who closed standard error does not want it.
    let _ = writeln!(stderr(), "{}", marked(Priority::Warning, &line));
}

fn face(show: Show) -> Box<dyn Face> {
    let err = stderr;
    match show {
        Show { json: true, quiet, .. } => Box::new(JsonFace::new(Box::new(io::stdout()), err(), !quiet)),
        Show { quiet: true, .. } => Box::new(QuietFace::new(err())),
        Show { verbose, .. } if io::stderr().is_terminal() => Box::new(BarFace::new(verbose > 0)),
        Show { verbose, .. } => Box::new(LineFace::new(err(), verbose > 0)),
    }
}

fn output_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Kind::PipeClosed, "nobody reads the output");
    }
    Failure::failed(format!("cannot write to standard output: {error}"))
}

/// Tells why the work could not be done, before or without a [`Terminal`].
pub fn print_failure(failure: &Failure, json: bool) {
    if failure.kind == Kind::PipeClosed {
        return;
    }
    let text = if json { failure_as_json(failure) } else { failure_as_text(failure) };
    // Nothing is left to tell if standard error is gone.
    let _ = writeln!(stderr(), "{}", marked(Priority::Error, &text));
}

fn failure_as_text(failure: &Failure) -> String {
    let mut lines = vec![format!("holdfast: {}", text::printable_text(&failure.message))];
    lines.extend(failure.causes.iter().map(|cause| format!("  because: {}", text::printable_text(cause))));
    lines.extend(failure.hint.iter().map(|hint| format!("  hint: {}", text::printable_text(hint))));
    lines.join("\n")
}

fn failure_as_json(failure: &Failure) -> String {
    #[derive(Serialize)]
    struct ExitError<'a> {
        message_type: &'static str,
        code: u8,
        message: &'a str,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        causes: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'a str>,
    }
    let error = ExitError {
        message_type: "exit_error",
        code: failure.exit_code(),
        message: &failure.message,
        causes: &failure.causes,
        hint: failure.hint.as_deref(),
    };
    serde_json::to_string(&error).unwrap_or_else(|_| r#"{"message_type":"exit_error","code":1}"#.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_message_causes_and_hint_without_control_bytes() {
        let mut failure = Failure::failed("cannot read \x1b[2Jx").hint("try\nagain");
        failure.causes.push("because".into());
        assert_eq!(
            failure_as_text(&failure),
            "holdfast: cannot read \\x1b[2Jx\n  because: because\n  hint: try\nagain"
        );
    }

    #[test]
    fn a_failure_as_json_is_one_line_with_code_and_message() {
        let failure = Failure::new(Kind::WrongKey, "wrong\npassphrase").hint("h");
        assert_eq!(
            failure_as_json(&failure),
            r#"{"message_type":"exit_error","code":12,"message":"wrong\npassphrase","hint":"h"}"#
        );
    }
}
