//! Tells of each entry where somebody asked for that: a rehearsal's plan is its result and goes to standard output, what a run
//! does goes where its progress goes.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_store::monitor::{Event, Monitor};

use crate::json::RestoreEntry;
use crate::outcome::Failure;
use crate::terminal::{Output, Terminal, WorkMonitor, text};

/// A monitor that turns entries into lines and passes on all else.
pub struct Telling<'a> {
    terminal: &'a Terminal,
    inner: Arc<WorkMonitor>,
    dry_run: bool,
    lines: Mutex<Lines>,
}

/// The plan for people is gathered. Lines of JSON go out one by one, whole, between those of the progress.
struct Lines {
    output: Output,
    /// Why nothing can be written any more.
    failed: Option<Failure>,
}

impl<'a> Telling<'a> {
    /// For one run.
    pub fn new(terminal: &'a Terminal, dry_run: bool) -> Self {
        let lines = Mutex::new(Lines { output: terminal.output(), failed: None });
        Self { terminal, inner: terminal.monitor(), dry_run, lines }
    }

    /// Writes what is gathered, and clears the progress.
    pub fn finish(self) -> Result<(), Failure> {
        let Lines { output, failed } = self.lines.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or_else(|| output.finish(), Err)
    }

    fn entry(&self, path: &[u8], action: &'static str, bytes: u64) {
        if !self.terminal.json() && !self.dry_run {
            let size = if bytes > 0 { format!(" ({})", text::size(bytes)) } else { String::new() };
            return self.inner.event(Event::Note(format!("{action}: {}{size}", text::printable(path))));
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.failed.is_none() {
            let written = match self.terminal.json() {
                true => self.terminal.json_line(&RestoreEntry::new(path, action, bytes)),
                false => plan_line(&mut lines.output, path, action),
            };
            lines.failed = written.err();
        }
    }
}

fn plan_line(out: &mut Output, path: &[u8], action: &'static str) -> Result<(), Failure> {
    out.bytes(format!("{action:<10}  ").as_bytes())?;
    out.name(path)?;
    out.bytes(b"\n")
}

impl Monitor for Telling<'_> {
    fn event(&self, event: Event) {
        match event {
            Event::Entry { path, action, bytes } => self.entry(&path, action, bytes),
            other => self.inner.event(other),
        }
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}
