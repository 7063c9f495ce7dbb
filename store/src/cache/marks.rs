//! Marks of use, left by a thread of their own: a disk that takes no writes while it still gives what is on it must not hold up who reads.

use std::fs::File;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Files that wait for their mark, at most.
const WAITING_MAX: usize = 64;

/// How a file is marked as used at a time.
type Mark = fn(&File, SystemTime);

#[derive(Debug)]
pub(super) struct Marks {
    mark: Mark,
    /// To the thread, which begins with the first mark and ends with this.
    waiting: Mutex<Option<SyncSender<(File, SystemTime)>>>,
}

impl Marks {
    pub(super) fn new(mark: Mark) -> Self {
        Self { mark, waiting: Mutex::default() }
    }

    /// Has a file marked as used then, soon. Where too many wait it is not marked, and the next use tries again.
    pub(super) fn leave(&self, file: File, used: SystemTime) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = waiting.get_or_insert_with(|| begin(self.mark));
        if let Err(TrySendError::Disconnected(_)) = sender.try_send((file, used)) {
            *waiting = None;
        }
    }
}

fn begin(mark: Mark) -> SyncSender<(File, SystemTime)> {
    let (sender, files) = sync_channel::<(File, SystemTime)>(WAITING_MAX);
    let work = move || files.iter().for_each(|(file, used)| mark(&file, used));
    // Without a thread nobody listens, and the sender says so.
    let _ = std::thread::Builder::new().name("holdfast-marks".into()).spawn(work);
    sender
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static DISK: Mutex<()> = Mutex::new(());
    static MARKED: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn nobody_waits_for_a_disk_that_takes_no_marks() {
        let file = tempfile::tempfile().unwrap();
        let marks = Marks::new(|_, _| {
            let _held = DISK.lock().unwrap();
            MARKED.fetch_add(1, Ordering::SeqCst);
        });
        let held = DISK.lock().unwrap();
        for _ in 0..WAITING_MAX * 3 {
            marks.leave(file.try_clone().unwrap(), SystemTime::UNIX_EPOCH);
        }
        assert_eq!(MARKED.load(Ordering::SeqCst), 0);
        drop(held);
        while MARKED.load(Ordering::SeqCst) < WAITING_MAX {
            std::thread::yield_now();
        }
        drop(marks);
        // What waited, and perhaps one that the thread had in its hands.
        assert!(MARKED.load(Ordering::SeqCst) <= WAITING_MAX + 1);
    }
}
