//! Queues, and the threads that work them off.
//!
//! What waits for a vault has a lane for each vault, so that one that hangs holds up nothing from another. In it pages of directories go
//! before contents, and a quarter of the threads is for them alone: a listing does not stand behind bulk reads that hang. Another quarter
//! takes contents first, so that those who walk through directories, however many, do not keep the others from reading. It takes pages,
//! too, when nobody reads: then all threads but these are busy with pages that end, and none of them is to stand idle.
//!
//! A lane begins when it is first needed. Threads that cannot be started then, because the system has no more, are missing until something
//! comes again; where there is none at all, who asks is refused at once, and does not wait for nobody.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::thread;

use crossbeam_channel::{Receiver, Sender, select, unbounded};
use holdfast_store::catalog::VaultNo;

use super::Work;
use crate::error::FsError;
use crate::lock::lock;
use crate::recovery::Line;

/// Threads that do one thing after the other.
pub(super) fn lane(name: &str, threads: usize) -> io::Result<Sender<Work>> {
    let (sender, receiver) = unbounded::<Work>();
    for n in 0..threads.max(1) {
        let receiver: Receiver<Work> = receiver.clone();
        spawn(format!("{name}-{n}"), Box::new(move || receiver.iter().for_each(|work| work())))?;
    }
    Ok(sender)
}

/// Starts a thread of this name that does that.
type Spawn = Box<dyn Fn(String, Work) -> io::Result<()> + Send + Sync>;

fn spawn(name: String, run: Work) -> io::Result<()> {
    thread::Builder::new().name(name).spawn(run).map(drop)
}

/// The lanes of vaults.
pub(super) struct VaultLanes {
    threads: usize,
    spawn: Spawn,
    lanes: Mutex<HashMap<Option<VaultNo>, VaultLane>>,
}

impl VaultLanes {
    /// So many threads for each vault.
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), spawn: Box::new(spawn), lanes: Mutex::default() }
    }

    /// Has work done by a thread of its lane, if it has one.
    pub(super) fn send(&self, line: Line, work: Work) -> Result<(), FsError> {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.entry(line.vault).or_insert_with(VaultLane::new);
        if let Err(error) = lane.start_missing(self.threads, &self.spawn) {
            lanes.remove(&line.vault);
            return Err(FsError::NoThread(error));
        }
        let queue = if line.is_page { &lane.pages } else { &lane.contents };
        // It has a receiver: the lane itself.
        let _ = queue.0.send(work);
        Ok(())
    }
}

struct VaultLane {
    pages: (Sender<Work>, Receiver<Work>),
    contents: (Sender<Work>, Receiver<Work>),
    started: usize,
    /// Whether the log knows that threads are missing.
    is_short: bool,
}

impl VaultLane {
    fn new() -> Self {
        Self { pages: unbounded(), contents: unbounded(), started: 0, is_short: false }
    }

    /// Starts the threads that it should have and has not; an error if it has none then.
    fn start_missing(&mut self, threads: usize, spawn: &Spawn) -> io::Result<()> {
        while self.started < threads {
            let (pages, contents) = (self.pages.1.clone(), self.contents.1.clone());
            let run = takes(self.started, threads).run(pages, contents);
            match spawn(format!("holdfast-vault-{}", self.started), run) {
                Ok(()) => self.started += 1,
                Err(error) if self.started == 0 => return Err(error),
                Err(error) => {
                    self.note_short(&error);
                    break;
                }
            }
        }
        self.is_short &= self.started < threads;
        Ok(())
    }

    fn note_short(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_short, true) {
            tracing::warn!(%error, threads = self.started, "there are too few threads that wait for a vault");
        }
    }
}

/// What a thread of a vault's lane takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    PagesFirst,
    ContentsFirst,
    Pages,
}

/// What the `n`th of so many takes. The first ones take everything: however few there are, they do all there is to do.
fn takes(n: usize, threads: usize) -> Takes {
    let quarter = threads / 4;
    match threads - n {
        left if left <= quarter => Takes::Pages,
        left if left <= 2 * quarter => Takes::ContentsFirst,
        _ => Takes::PagesFirst,
    }
}

impl Takes {
    /// What a thread does with these queues until they end.
    fn run(self, pages: Receiver<Work>, contents: Receiver<Work>) -> Work {
        let one_first = |first: Receiver<Work>, then: Receiver<Work>| -> Work {
            Box::new(move || std::iter::from_fn(|| next(&first, &then)).for_each(|work| work()))
        };
        match self {
            Self::PagesFirst => one_first(pages, contents),
            Self::ContentsFirst => one_first(contents, pages),
            Self::Pages => Box::new(move || pages.iter().for_each(|work| work())),
        }
    }
}

/// What is to be done next; nothing after the end.
fn next(first: &Receiver<Work>, then: &Receiver<Work>) -> Option<Work> {
    first.try_recv().ok().or_else(|| {
        select! {
            recv(first) -> work => work.ok(),
            recv(then) -> work => work.ok(),
        }
    })
}

#[cfg(test)]
impl VaultLanes {
    /// As long as `left` has any, a thread is taken from there.
    pub(super) fn with_few(threads: usize, left: std::sync::Arc<std::sync::atomic::AtomicUsize>) -> Self {
        use std::sync::atomic::Ordering::SeqCst;
        let take = move |name, run| {
            let less = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            less.map_err(|_| io::Error::from_raw_os_error(nix::libc::EAGAIN))?;
            spawn(name, run)
        };
        Self { spawn: Box::new(take), ..Self::new(threads) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_quarter_takes_pages_alone_a_quarter_contents_first_and_the_first_of_all_anything() {
        for (threads, anything, contents, pages) in [(1, 1, 0, 0), (3, 3, 0, 0), (4, 2, 1, 1), (16, 8, 4, 4)]
        {
            let all: Vec<_> = (0..threads).map(|n| takes(n, threads)).collect();
            let count = |takes| all.iter().filter(|other| **other == takes).count();
            let counts = (count(Takes::PagesFirst), count(Takes::ContentsFirst), count(Takes::Pages));
            assert_eq!((counts, all[0]), ((anything, contents, pages), Takes::PagesFirst), "of {threads}");
        }
    }

    #[test]
    fn a_lane_gets_its_threads_when_there_are_some_and_however_few_do_everything() {
        let left = Arc::new(AtomicUsize::new(0));
        let lanes = VaultLanes::with_few(16, left.clone());
        let (done, does) = mpsc::channel();
        let send = |is_page| {
            let done = done.clone();
            let work = Box::new(move || done.send(is_page).unwrap());
            lanes.send(Line { vault: Some(VaultNo(1)), is_page }, work)
        };
        let started = || lock(&lanes.lanes).values().map(|lane| lane.started).collect::<Vec<_>>();
        for is_page in [true, false] {
            assert!(matches!(send(is_page), Err(FsError::NoThread(_))));
            assert!(started().is_empty(), "nothing is left to wait in");
        }
        for (more, now) in [(1, 1), (4, 5), (100, 16), (0, 16)] {
            left.fetch_add(more, Ordering::SeqCst);
            for is_page in [true, false] {
                send(is_page).unwrap();
                assert_eq!(does.recv_timeout(Duration::from_secs(20)).unwrap(), is_page);
            }
            assert_eq!(started(), [now]);
        }
        assert_eq!(left.load(Ordering::SeqCst), 105 - 16);
    }
}
