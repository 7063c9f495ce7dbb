//! What is to be done to files of blocks that are there: marks of use, and removals. A thread of their own does it: a disk that takes no writes
//! while it still gives what is on it must not hold up who reads.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::A_MOMENT;
use crate::clock::Clock;

/// What waits to be done, at most.
const WAITING_MAX: usize = 64;
/// How often whoever waits looks at the clock.
const LOOK: Duration = Duration::from_millis(20);

/// What is to be done to a block's file.
#[derive(Debug)]
pub(super) enum Errand {
    /// It was used then.
    Mark(File, SystemTime),
    /// It is not to be there any more.
    Remove(PathBuf),
}

/// How it is done; whether it was.
type Do = fn(Errand) -> bool;

/// With whom wants to know how it went.
type Sent = (Errand, Option<Sender<bool>>);

#[derive(Debug)]
pub(super) struct Errands {
    does: Do,
    clock: Arc<dyn Clock>,
    /// To the thread, which begins with the first errand and ends with this.
    waiting: Mutex<Option<SyncSender<Sent>>>,
    /// Whether somebody waited in vain, and nothing was done since.
    is_stuck: Arc<AtomicBool>,
}

impl Errands {
    pub(super) fn new(does: Do, clock: Arc<dyn Clock>) -> Self {
        Self { does, clock, waiting: Mutex::default(), is_stuck: Arc::default() }
    }

    /// Has it done, soon. Where too much waits it is not: the next use tries again to leave a mark.
    pub(super) fn leave(&self, errand: Errand) {
        self.send((errand, None));
    }

    /// Has it done, and waits for that a moment, once: not again before the disk takes something. Whether it was done.
    pub(super) fn run(&self, errand: Errand) -> bool {
        let (done, is_done) = channel();
        self.send((errand, Some(done)));
        !self.is_stuck.load(Ordering::Relaxed) && self.wait(&is_done)
    }

    fn wait(&self, is_done: &Receiver<bool>) -> bool {
        let began = self.clock.monotonic();
        loop {
            match is_done.recv_timeout(LOOK) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Timeout) if self.clock.monotonic().saturating_sub(began) < A_MOMENT => {
                }
                Err(error) => {
                    self.is_stuck.fetch_or(error == RecvTimeoutError::Timeout, Ordering::Relaxed);
                    return false;
                }
            }
        }
    }

    fn send(&self, errand: Sent) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = waiting.get_or_insert_with(|| begin(self.does, Arc::clone(&self.is_stuck)));
        if let Err(TrySendError::Disconnected(_)) = sender.try_send(errand) {
            *waiting = None;
        }
    }
}

fn begin(does: Do, is_stuck: Arc<AtomicBool>) -> SyncSender<Sent> {
    let (sender, errands) = sync_channel::<Sent>(WAITING_MAX);
    let work = move || {
        for (errand, wants_to_know) in errands {
            let done = does(errand);
            is_stuck.store(false, Ordering::Relaxed);
            // Who waited in vain does not listen.
            wants_to_know.map(|who| who.send(done));
        }
    };
    // Without a thread nobody listens, and the sender says so.
    let _ = std::thread::Builder::new().name("holdfast-marks".into()).spawn(work);
    sender
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::clock::ManualClock;

    static DISK: Mutex<()> = Mutex::new(());
    static DONE: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn nobody_waits_for_a_disk_that_takes_no_marks() {
        let file = tempfile::tempfile().unwrap();
        let clock = ManualClock::default();
        let does = |_| {
            let _held = DISK.lock().unwrap();
            DONE.fetch_add(1, Ordering::SeqCst) < usize::MAX
        };
        let errands = Arc::new(Errands::new(does, Arc::new(clock.clone())));
        let mark = || Errand::Mark(file.try_clone().unwrap(), SystemTime::UNIX_EPOCH);
        let held = DISK.lock().unwrap();
        let waits = Arc::clone(&errands);
        let waiting = std::thread::spawn(move || waits.run(Errand::Remove(PathBuf::new())));
        while !waiting.is_finished() {
            clock.advance(Duration::from_millis(100));
            std::thread::yield_now();
        }
        assert!(!waiting.join().unwrap() && clock.monotonic() >= A_MOMENT);
        // No time passes any more.
        assert!(!errands.run(mark()));
        for _ in 0..WAITING_MAX * 3 {
            errands.leave(mark());
        }
        assert_eq!(DONE.load(Ordering::SeqCst), 0);
        drop(held);
        while DONE.load(Ordering::SeqCst) < WAITING_MAX {
            std::thread::yield_now();
        }
        // What waited, and perhaps one that the thread had in its hands.
        assert!(DONE.load(Ordering::SeqCst) <= WAITING_MAX + 1);
        while errands.is_stuck.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        assert!(errands.run(mark()), "it is waited for again");
    }
}
