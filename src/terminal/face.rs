//! The faces that progress has: a bar for a person who watches, lines for a log, JSON for a program, nothing.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::log::{Priority, marked};
use super::progress::Progress;
use super::text;
use crate::json::PathText;

/// What a monitor shows itself with. Methods are called by one thread at a time.
pub trait Face: Send {
    /// Least time between two calls of `progress`.
    fn interval(&self) -> Duration;

    /// Shows how far the work is.
    fn progress(&mut self, progress: &Progress);

    /// Shows trouble with one thing.
    fn problem(&mut self, progress: &Progress, path: &[u8], reason: &str);

    /// Shows something that is not trouble.
    fn note(&mut self, note: &str);
}

type Out = Box<dyn Write + Send>;

/// Writes a line; whoever closed the other end does not want it.
fn write_line(out: &mut Out, line: &str) {
    let _ = writeln!(out, "{line}");
}

/// Writes what is trouble to standard error.
fn write_trouble(err: &mut Out, line: &str) {
    write_line(err, &marked(Priority::Warning, line));
}

fn problem_line(path: &[u8], reason: &str) -> String {
    format!("holdfast: {}: {}", text::printable(path), text::printable_text(reason))
}

/// What is shown of a stage of which it is known how much there is to do, and of another.
const BAR: &str = "{wide_bar} {elapsed}\n{msg}";
const SPINNER: &str = "{spinner} {elapsed} {msg}";

/// A bar with rate and time left that is drawn over itself.
pub struct BarFace {
    bar: ProgressBar,
    /// Also while nothing comes.
    moves: bool,
    verbose: bool,
}

impl BarFace {
    /// Parts of the bar: fine enough to move each second of an hour.
    const STEPS: u64 = 10_000;

    /// A bar on standard error.
    pub fn new(verbose: bool) -> Self {
        Self::drawn_to(ProgressDrawTarget::stderr_with_hz(10), verbose)
    }

    fn drawn_to(target: ProgressDrawTarget, verbose: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(Self::STEPS), target);
        // What is told before there is progress is told without a bar.
        bar.set_style(Self::style("{msg}"));
        Self { bar, moves: false, verbose }
    }

    fn style(template: &str) -> ProgressStyle {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
    }
}

impl Face for BarFace {
    fn interval(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn progress(&mut self, progress: &Progress) {
        let fraction = progress.fraction();
        self.bar.set_style(Self::style(if fraction.is_some() { BAR } else { SPINNER }));
        self.bar.set_position((fraction.unwrap_or(0.0) * Self::STEPS as f64) as u64);
        self.bar.set_message(progress.line());
        // Before that there is nothing to show.
        if !std::mem::replace(&mut self.moves, true) {
            self.bar.enable_steady_tick(Duration::from_millis(250));
        }
    }

    fn problem(&mut self, _: &Progress, path: &[u8], reason: &str) {
        self.bar.println(problem_line(path, reason));
    }

    fn note(&mut self, note: &str) {
        if self.verbose {
            self.bar.println(text::printable_text(note));
        }
    }
}

impl Drop for BarFace {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// One line a minute, for a log that people read later.
pub struct LineFace {
    out: Out,
    verbose: bool,
}

impl LineFace {
    /// Lines to `out`; notes only when `verbose`.
    pub fn new(out: Out, verbose: bool) -> Self {
        Self { out, verbose }
    }
}

impl Face for LineFace {
    fn interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn progress(&mut self, progress: &Progress) {
        write_line(&mut self.out, &progress.line());
    }

    fn problem(&mut self, _: &Progress, path: &[u8], reason: &str) {
        write_trouble(&mut self.out, &problem_line(path, reason));
    }

    fn note(&mut self, note: &str) {
        if self.verbose {
            write_line(&mut self.out, &text::printable_text(note));
        }
    }
}

/// Troubles and nothing else.
pub struct QuietFace {
    out: Out,
}

impl QuietFace {
    /// Troubles to `out`.
    pub fn new(out: Out) -> Self {
        Self { out }
    }
}

impl Face for QuietFace {
    fn interval(&self) -> Duration {
        Duration::MAX
    }

    fn progress(&mut self, _: &Progress) {}

    fn problem(&mut self, _: &Progress, path: &[u8], reason: &str) {
        write_trouble(&mut self.out, &problem_line(path, reason));
    }

    fn note(&mut self, _: &str) {}
}

/// JSON lines in restic's shapes: status to standard output, errors to standard error.
pub struct JsonFace {
    out: Out,
    err: Out,
    status: bool,
}

impl JsonFace {
    /// Status lines to `out` unless `status` is false, errors to `err`.
    pub fn new(out: Out, err: Out, status: bool) -> Self {
        Self { out, err, status }
    }
}

#[derive(Serialize)]
struct Status<'a> {
    message_type: &'static str,
    stage: &'a str,
    seconds_elapsed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_remaining: Option<u64>,
    percent_done: f64,
    total_files: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_restored: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_done: Option<u64>,
    total_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_restored: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_done: Option<u64>,
    error_count: u64,
}

impl<'a> Status<'a> {
    /// restic calls the same figures `…_restored` in a restore and `…_done` elsewhere.
    fn of(progress: &'a Progress) -> Self {
        let restoring = progress.stage == "restore";
        Self {
            message_type: "status",
            stage: progress.stage,
            seconds_elapsed: progress.elapsed.as_secs(),
            seconds_remaining: progress.seconds_left(),
            percent_done: progress.fraction().unwrap_or(0.0),
            total_files: progress.files_total,
            files_restored: restoring.then_some(progress.files),
            files_done: (!restoring).then_some(progress.files),
            total_bytes: progress.bytes_total,
            bytes_restored: restoring.then_some(progress.bytes),
            bytes_done: (!restoring).then_some(progress.bytes),
            error_count: progress.problems,
        }
    }
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    message_type: &'static str,
    error: Message<'a>,
    during: &'a str,
    item: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_b64: Option<String>,
}

#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

impl Face for JsonFace {
    fn interval(&self) -> Duration {
        if self.status { Duration::from_secs(1) } else { Duration::MAX }
    }

    fn progress(&mut self, progress: &Progress) {
        if let Ok(line) = serde_json::to_string(&Status::of(progress)) {
            write_line(&mut self.out, &line);
        }
    }

    fn problem(&mut self, progress: &Progress, path: &[u8], reason: &str) {
        let PathText { path: item, path_b64: item_b64 } = PathText::of(path);
        let error = Message { message: reason };
        let line = ErrorLine { message_type: "error", error, during: progress.stage, item, item_b64 };
        if let Ok(line) = serde_json::to_string(&line) {
            write_trouble(&mut self.err, &line);
        }
    }

    fn note(&mut self, _: &str) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal that keeps what is written to it.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_is_drawn_when_there_is_something_to_show_and_not_before() {
        let screen = Screen::default();
        let bar = || BarFace::drawn_to(ProgressDrawTarget::term_like(Box::new(screen.clone())), false);
        let text = || screen.0.lock().unwrap().clone();
        drop(bar());
        let mut bar = bar();
        bar.note("a note");
        bar.problem(&Progress::default(), b"a", "no");
        assert_eq!(text().trim_end(), "holdfast: a: no");
        bar.progress(&Progress { stage: "scan", files: 3, ..Progress::default() });
        assert!(text().contains("scan: 3 files") && !text().contains("10000"), "{}", text());
    }
}
