//! The log, and all else that goes to standard error: with times and levels for people and files, and with priorities for the journal of
//! systemd, which has times itself and reads `<4>` at the beginning of a line as "warning" (sd-daemon(3)).

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

use holdfast_store::clock::{Clock, within};
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, registry};

use crate::settings;

/// Lines of the log that wait to be written, at most.
const LINES_WAITING: usize = 1000;

/// How long it may take to write them at the end. A second of that the guard waits by itself.
const LOG_ENDS: std::time::Duration = std::time::Duration::from_secs(2);

/// How much a line matters, in the numbers of syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Something could not be done.
    Error = 3,
    /// Somebody may have to see to it.
    Warning = 4,
    /// It is as it should be.
    Info = 6,
    /// For those who look for a fault of the program.
    Debug = 7,
}

impl From<&Level> for Priority {
    fn from(level: &Level) -> Self {
        match *level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warning,
            Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// What is to be written of a text on standard error: the text, and for the journal its priority before each line.
pub fn marked(priority: Priority, text: &str) -> Cow<'_, str> {
    if goes_to_journal() { Cow::Owned(mark(priority, text)) } else { Cow::Borrowed(text) }
}

fn mark(priority: Priority, text: &str) -> String {
    text.split_inclusive('\n').map(|line| format!("<{}>{line}", priority as u8)).collect()
}

/// Whether standard error is the journal. What it was when the process began does not change.
fn goes_to_journal() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| is_journal(settings::journal_stream().as_deref(), io::stderr()))
}

/// Whether a file is the stream to the journal that `JOURNAL_STREAM` names by its device and inode (systemd.exec(5)). The variable is
/// handed on to processes whose output goes elsewhere.
fn is_journal(named: Option<&OsStr>, file: impl AsFd) -> bool {
    let numbers = rustix::fs::fstat(file).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    numbers.is_ok_and(|numbers| named.is_some_and(|named| named == OsStr::new(&numbers)))
}

/// Writes the log's lines for the journal, each event with its priority.
struct Prioritized<W>(W);

struct Line<W> {
    out: W,
    priority: Priority,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Prioritized<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { out: self.0.make_writer(), priority: Priority::Info }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        Line { out: self.0.make_writer_for(event), priority: event.level().into() }
    }
}

impl<W: Write> Write for Line<W> {
    /// An event is one write, and has to stay one: other threads write as well.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.out.write_all(mark(self.priority, &String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The way to the thread that writes what a process that serves tells.
static LOG: OnceLock<NonBlocking> = OnceLock::new();

/// Standard error. What serves has a thread that writes it, as it does the log, and goes on itself: it may be a file on a disk that hangs.
pub fn stderr() -> Box<dyn Write + Send> {
    match LOG.get() {
        Some(log) => Box::new(io::LineWriter::new(log.clone())),
        None => Box::new(io::stderr()),
    }
}

/// Sends the engine's log to standard error. `filter` (from `HOLDFAST_LOG`) wins over the number of `-v`. What `serves` reads
/// of programs has no other way to say why one failed, so its warnings are shown, and what the daemon did.
///
/// A thread of its own writes what `serves`: nobody who answers a read may wait for the disk of a log. What is still to be written is written
/// when what is returned is dropped, within a second.
pub fn log_to_stderr(
    verbose: u8,
    serves: bool,
    filter: Option<String>,
    clock: Arc<dyn Clock>,
) -> Option<LogEnd> {
    let by_verbosity = match verbose {
        0 | 1 if serves => "holdfast=info,holdfast_store=warn,holdfast_backup=warn,holdfast_fs=warn,error",
        0 | 1 => "error",
        2 => "holdfast=info,holdfast_store=info,holdfast_backup=info,holdfast_fs=info,error",
        _ => "debug",
    };
    let filter = EnvFilter::new(filter.unwrap_or_else(|| by_verbosity.to_owned()));
    if !serves {
        begin(filter, io::stderr, goes_to_journal());
        return None;
    }
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_WAITING).finish(io::stderr());
    let _ = LOG.set(writer.clone());
    begin(filter, writer, goes_to_journal());
    Some(LogEnd { guard: Some(guard), clock })
}

/// Colours are for terminals, and not for the files of logs.
fn begin<W>(filter: EnvFilter, writer: W, journal: bool)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = layer().with_ansi(io::stderr().is_terminal());
    let lines = match journal {
        true => {
            lines.without_time().with_level(false).with_target(false).with_writer(Prioritized(writer)).boxed()
        }
        false => lines.with_writer(writer).boxed(),
    };
    // This fails only if a subscriber is set already, as in tests.
    let _ = registry().with(lines).with(filter).try_init();
}

/// The end of the log of what serves. Where nothing takes its lines the guard says that on standard output, and panics if nobody reads
/// that, which is told where nothing is taken: so a thread does it that nobody waits for in the end.
#[derive(Debug)]
pub struct LogEnd {
    guard: Option<WorkerGuard>,
    clock: Arc<dyn Clock>,
}

impl Drop for LogEnd {
    fn drop(&mut self) {
        let guard = self.guard.take();
        let _ = within(&*self.clock, LOG_ENDS, move || drop(guard));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn only_the_stream_that_the_environment_names_is_the_journal() {
        let (this, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let stat = rustix::fs::fstat(&this).unwrap();
        let named = format!("{}:{}", stat.st_dev, stat.st_ino);
        let named = Some(OsStr::new(&named));
        assert!(is_journal(named, &this));
        assert!(!is_journal(named, &other), "a process that inherited the variable writes elsewhere");
        assert!(!is_journal(None, &this) && !is_journal(Some(OsStr::new("1:2:3")), &this));
    }

    #[test]
    fn each_line_of_a_text_has_its_priority() {
        assert_eq!(mark(Priority::Error, "no\n  hint: try\n"), "<3>no\n<3>  hint: try\n");
        assert_eq!(mark(Priority::Warning, "x"), "<4>x");
    }

    #[test]
    fn an_event_goes_to_the_journal_in_one_write_with_its_level_and_without_a_time() {
        let writes: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&writes);
        let writer = move || Writes(Arc::clone(&seen));
        let lines = layer().without_time().with_level(false).with_target(false);
        let subscriber = registry().with(lines.with_ansi(false).with_writer(Prioritized(writer)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("worst\nof all");
            tracing::warn!(more = 2, "warned");
            tracing::info!("done");
            tracing::debug!("seen");
        });
        let expected = ["<3>worst\n<3>of all\n", "<4>warned more=2\n", "<6>done\n", "<7>seen\n"];
        assert_eq!(*writes.lock().unwrap(), expected);
    }

    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
