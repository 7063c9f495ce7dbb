//! The monitor of the program: counts what the engine tells, and shows it with one of the faces.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_store::clock::Clock;
use holdfast_store::monitor::{Event, Monitor};

use super::face::Face;
use super::progress::Progress;

/// Counts and shows one piece of work.
pub struct WorkMonitor {
    clock: Arc<dyn Clock>,
    cancelled: Arc<AtomicBool>,
    /// Troubles of all monitors together.
    told: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    progress: Progress,
    stage_began: Duration,
    shown: Option<Duration>,
    face: Box<dyn Face>,
}

impl WorkMonitor {
    /// A monitor that shows itself with `face`, tells the engine to stop once `cancelled` is true, and counts troubles in `told`.
    pub fn new(
        face: Box<dyn Face>,
        clock: Arc<dyn Clock>,
        cancelled: Arc<AtomicBool>,
        told: Arc<AtomicU64>,
    ) -> Self {
        let stage_began = clock.monotonic();
        let state = State { progress: Progress::default(), stage_began, shown: None, face };
        Self { clock, cancelled, told, state: Mutex::new(state) }
    }

    /// How many troubles were told so far.
    pub fn problems(&self) -> u64 {
        self.state().progress.problems
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, name: &'static str, files_total: u64, bytes_total: u64, now: Duration) {
        let problems = self.progress.problems;
        self.progress = Progress { stage: name, files_total, bytes_total, problems, ..Progress::default() };
        self.stage_began = now;
        // A stage that ends within the first interval needs no line of its own.
        self.shown = Some(now);
    }

    fn show_if_due(&mut self, now: Duration) {
        let due = self.shown.is_none_or(|shown| now.saturating_sub(shown) >= self.face.interval());
        if due && !self.progress.stage.is_empty() {
            self.progress.elapsed = now.saturating_sub(self.stage_began);
            self.face.progress(&self.progress);
            self.shown = Some(now);
        }
    }
}

impl Monitor for WorkMonitor {
    fn event(&self, event: Event) {
        let now = self.clock.monotonic();
        let mut guard = self.state();
        let state = &mut *guard;
        match event {
            Event::Stage { name, files_total, bytes_total } => {
                state.begin(name, files_total, bytes_total, now)
            }
            Event::Done { files, bytes } => {
                state.progress.files = state.progress.files.saturating_add(files);
                state.progress.bytes = state.progress.bytes.saturating_add(bytes);
                state.show_if_due(now);
            }
            Event::Problem { path, reason } => {
                state.progress.problems += 1;
                self.told.fetch_add(1, Ordering::SeqCst);
                state.face.problem(&state.progress, &path, &reason);
            }
            Event::Note(note) => state.face.note(&note),
            // Events of later engines that this program does not show.
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for WorkMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkMonitor").field("progress", &self.state().progress).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use holdfast_store::clock::{ManualClock, Timestamp};

    use super::super::face::{JsonFace, LineFace, QuietFace};
    use super::*;

    /// Bytes that were written, readable from outside.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
        }

        fn out(&self) -> Box<dyn Write + Send> {
            Box::new(self.clone())
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// One minute and more of a backup, with trouble in a file of an evil name.
    fn work(face: Box<dyn Face>) -> (WorkMonitor, Arc<AtomicBool>) {
        let clock = ManualClock::at(Timestamp::default());
        let cancelled = Arc::new(AtomicBool::new(false));
        let told = Arc::default();
        let monitor =
            WorkMonitor::new(face, Arc::new(clock.clone()), Arc::clone(&cancelled), Arc::clone(&told));
        monitor.event(Event::Stage { name: "backup", files_total: 4, bytes_total: 4096 });
        monitor.event(Event::Done { files: 1, bytes: 1024 });
        monitor.event(Event::Problem { path: b"a\x1b\xff".to_vec(), reason: "no".into() });
        monitor.event(Event::Note("a note".into()));
        clock.advance(Duration::from_secs(64));
        monitor.event(Event::Done { files: 1, bytes: 1024 });
        assert_eq!(told.load(Ordering::SeqCst), 1);
        (monitor, cancelled)
    }

    #[test]
    fn a_log_gets_a_line_a_minute_and_problems_at_once() {
        let page = Page::default();
        let (monitor, _) = work(Box::new(LineFace::new(page.out(), false)));
        assert_eq!(
            page.text(),
            "holdfast: a\\x1b\\xff: no\nbackup: 50 %, 2 of 4 files, 2.000 KiB of 4.000 KiB, 32 B/s, 1:04 left, 1 problem\n"
        );
        assert_eq!(monitor.problems(), 1);
    }

    #[test]
    fn verbose_logs_hold_notes_and_quiet_ones_only_problems() {
        let page = Page::default();
        work(Box::new(LineFace::new(page.out(), true)));
        assert!(page.text().contains("a note\n"));
        let page = Page::default();
        work(Box::new(QuietFace::new(page.out())));
        assert_eq!(page.text(), "holdfast: a\\x1b\\xff: no\n");
    }

    #[test]
    fn programs_get_status_and_errors_in_shapes_they_know() {
        let (out, err) = (Page::default(), Page::default());
        work(Box::new(JsonFace::new(out.out(), err.out(), true)));
        assert_eq!(
            out.text(),
            "{\"message_type\":\"status\",\"stage\":\"backup\",\"seconds_elapsed\":64,\"seconds_remaining\":64,\
             \"percent_done\":0.5,\"total_files\":4,\"files_done\":2,\"total_bytes\":4096,\"bytes_done\":2048,\
             \"error_count\":1}\n"
        );
        assert_eq!(
            err.text(),
            "{\"message_type\":\"error\",\"error\":{\"message\":\"no\"},\"during\":\"backup\",\
             \"item\":\"a\\u001b\u{fffd}\",\"item_b64\":\"YRv/\"}\n"
        );
    }

    #[test]
    fn the_engine_hears_of_a_signal() {
        let (monitor, cancelled) = work(Box::new(QuietFace::new(Page::default().out())));
        assert!(!monitor.cancelled());
        cancelled.store(true, Ordering::Relaxed);
        assert!(monitor.cancelled());
    }

    #[test]
    fn a_new_stage_counts_from_nothing_but_remembers_problems() {
        let (monitor, _) = work(Box::new(QuietFace::new(Page::default().out())));
        monitor.event(Event::Stage { name: "upload", files_total: 0, bytes_total: 0 });
        assert_eq!(monitor.problems(), 1);
        assert_eq!(monitor.state().progress.bytes, 0);
    }
}
