//! How the engine tells what it does: the terminal, the console, a log and the tests are monitors.

use std::sync::Mutex;

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A stage of the work begins (`scan`, `backup`, `upload`, `restore`, `check`…), with what there is to do, if known.
    Stage {
        /// Name of the stage.
        name: &'static str,
        /// Files to do, 0 if not known.
        files_total: u64,
        /// Bytes to do, 0 if not known.
        bytes_total: u64,
    },
    /// This much more of the current stage is done.
    Done {
        /// Files.
        files: u64,
        /// Bytes.
        bytes: u64,
    },
    /// What was done with one entry, or in a rehearsal would be; told only where somebody asked for each.
    Entry {
        /// Raw bytes of the path.
        path: Vec<u8>,
        /// What was done, in a word.
        action: &'static str,
        /// Length of the file, 0 for anything else.
        bytes: u64,
    },
    /// Trouble with one thing that does not end the work: an unreadable file, a damaged pack. The work ends as partial.
    Problem {
        /// Raw bytes of the path, or the name of the object.
        path: Vec<u8>,
        /// What is wrong, for people.
        reason: String,
    },
    /// Something a person may want to know that is not trouble.
    Note(String),
}

/// Receives events, from many threads at once, and must not block for long.
pub trait Monitor: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);

    /// Whether the work should stop as soon as it safely can.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Hears nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct VoidMonitor;

impl Monitor for VoidMonitor {
    fn event(&self, _: Event) {}
}

/// Keeps everything but `Done`, for tests.
#[derive(Debug, Default)]
pub struct RecordingMonitor {
    events: Mutex<Vec<Event>>,
}

impl RecordingMonitor {
    /// What was told so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Monitor for RecordingMonitor {
    fn event(&self, event: Event) {
        if !matches!(event, Event::Done { .. }) {
            self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
        }
    }
}
