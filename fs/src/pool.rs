//! Slow answers, given by threads that may wait, each within its deadline.
//!
//! A request whose answer is not in memory moves here together with its reply. There are two lanes, so that a vault that
//! does not answer cannot hold up what lies on this machine; and that the first callers do themselves. The reply lies in a slot that two parties reach for: the
//! worker that found the answer, and the watchman, who answers for whoever is late with an error. Whoever comes first
//! takes the reply; so every request ends in time, even if the thread below it never comes back.
//!
//! The kernel repeats a failed read-ahead page by page. A node that was late is therefore refused at once
//! for a moment ([`TRIPPED_FOR`]), or each of its pages would wait for a deadline of its own.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use holdfast_store::clock::{Clock, Deadline};
use lru::LruCache;

use crate::error::FsError;
use crate::recovery::{Patience, Reach};

/// How long a node that was late is refused without asking.
pub const TRIPPED_FOR: Duration = Duration::from_secs(1);

/// How often the watchman looks, as long as there is anything to watch: late replies are late by at most this.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// Nodes that were late, at most.
const TRIPPED_NODES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// A reply that is given once, by whoever comes first.
pub trait Reply: Send + 'static {
    /// The answer is an error.
    fn refuse(self, error: FsError);
}

/// How many threads wait for what, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Callers that may do at once, on their own threads, what lies on this machine: passing it on costs as much as decoding a
    /// frame. The others of the callers must always stay free.
    pub in_place: usize,
    /// Threads for what lies on this machine, when that many callers are at it.
    pub local_threads: usize,
    /// Threads for what lies in a vault.
    pub vault_threads: usize,
    /// Longest time to an answer.
    pub timeout: Duration,
}

type Work = Box<dyn FnOnce() + Send>;
type Refuse = Box<dyn FnOnce(FsError) + Send>;

struct Pending {
    deadline: Deadline,
    ino: u64,
    refuse: Refuse,
}

#[derive(Default)]
struct Watched {
    pending: HashMap<u64, Pending>,
    next: u64,
    ending: bool,
}

struct Shared {
    clock: Arc<dyn Clock>,
    timeout: Duration,
    watched: Mutex<Watched>,
    wake: Condvar,
    tripped: Mutex<LruCache<u64, Duration>>,
    ended: AtomicBool,
}

/// The threads. When it is dropped they end as soon as their work lets them; nobody waits for them.
pub struct Pool {
    shared: Arc<Shared>,
    in_place: Permits,
    local: Sender<Work>,
    vault: Sender<Work>,
}

/// How many more callers may work in place.
struct Permits(AtomicUsize);

impl Permits {
    fn take(&self) -> Option<Permit<'_>> {
        let less = |free: usize| free.checked_sub(1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).ok().map(|_| Permit(self))
    }
}

struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts the threads.
    pub fn start(options: PoolOptions, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            clock,
            timeout: options.timeout,
            watched: Mutex::default(),
            wake: Condvar::new(),
            tripped: Mutex::new(LruCache::new(TRIPPED_NODES)),
            ended: AtomicBool::new(false),
        });
        let local = lane("holdfast-local", options.local_threads)?;
        let vault = lane("holdfast-vault", options.vault_threads)?;
        let watcher = shared.clone();
        thread::Builder::new().name("holdfast-watch".into()).spawn(move || watcher.watch())?;
        Ok(Self { shared, in_place: Permits(AtomicUsize::new(options.in_place)), local, vault })
    }

    /// Has `work` about the node `ino` done where `reach` asks for; `answer` gets its result unless the deadline came first.
    pub fn submit<R: Reply, T>(
        &self,
        reach: Reach,
        ino: u64,
        reply: R,
        work: impl FnOnce(Patience) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        if self.shared.is_tripped(ino) {
            return reply.refuse(FsError::Tripped);
        }
        let slot = Arc::new(Mutex::new(Some(reply)));
        let deadline = Deadline::after(&*self.shared.clock, self.shared.timeout);
        let Some(number) = self.shared.register(ino, deadline, &slot) else {
            return refuse(&slot, FsError::Ending);
        };
        let shared = self.shared.clone();
        let run = move || {
            // Whoever has been refused already is not worked for.
            if lock(&slot).is_some() {
                let result = guarded(|| work(Patience::Until(deadline)));
                shared.done(number);
                if let Err(error) = &result {
                    shared.note(ino, error);
                }
                match (take(&slot), result) {
                    (Some(reply), Ok(value)) => answer(reply, value),
                    (Some(reply), Err(error)) => reply.refuse(error),
                    (None, _) => {}
                }
            }
        };
        if reach == Reach::Local
            && let Some(_permit) = self.in_place.take()
        {
            return run();
        }
        let lane = if reach == Reach::Vault { &self.vault } else { &self.local };
        // A send fails only when every thread of the lane is gone; then the watchman answers.
        let _ = lane.send(Box::new(run));
    }

    /// Refuses everything that waits and everything that comes.
    pub fn end(&self) {
        self.shared.end();
    }

    /// Requests that wait for an answer.
    pub fn pending(&self) -> usize {
        lock(&self.shared.watched).pending.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// Runs `work`; a panic becomes an error, because the thread of the kernel's requests must outlive it.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, FsError>) -> Result<T, FsError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(panic = text, "a request failed for a fault of this program");
        Err(FsError::Bug)
    })
}

/// The kernel has room for a number only; the cause goes to the log. Repetitions are not told again.
pub fn log_trouble(ino: u64, error: &FsError) {
    match error {
        FsError::Tripped | FsError::Ending => tracing::debug!(ino, %error, "a request was refused"),
        _ if error.is_trouble() => tracing::warn!(ino, %error, "a request was answered with an I/O error"),
        _ => {}
    }
}

fn lane(name: &str, threads: usize) -> std::io::Result<Sender<Work>> {
    let (sender, receiver) = unbounded::<Work>();
    for n in 0..threads.max(1) {
        let receiver: Receiver<Work> = receiver.clone();
        let run = move || receiver.iter().for_each(|work| work());
        thread::Builder::new().name(format!("{name}-{n}")).spawn(run)?;
    }
    Ok(sender)
}

fn take<R>(slot: &Mutex<Option<R>>) -> Option<R> {
    lock(slot).take()
}

fn refuse<R: Reply>(slot: &Mutex<Option<R>>, error: FsError) {
    if let Some(reply) = take(slot) {
        reply.refuse(error);
    }
}

impl Shared {
    fn register<R: Reply>(&self, ino: u64, deadline: Deadline, slot: &Arc<Mutex<Option<R>>>) -> Option<u64> {
        let mut watched = lock(&self.watched);
        if watched.ending {
            return None;
        }
        let slot = slot.clone();
        let refuse: Refuse = Box::new(move |error| refuse(&slot, error));
        let number = watched.next;
        watched.next += 1;
        watched.pending.insert(number, Pending { deadline, ino, refuse });
        self.wake.notify_all();
        Some(number)
    }

    fn done(&self, number: u64) {
        lock(&self.watched).pending.remove(&number);
    }

    fn end(&self) {
        let pending = {
            let mut watched = lock(&self.watched);
            watched.ending = true;
            std::mem::take(&mut watched.pending)
        };
        self.ended.store(true, Ordering::SeqCst);
        self.wake.notify_all();
        pending.into_values().for_each(|late| (late.refuse)(FsError::Ending));
    }

    /// The watchman's round, without end: he sleeps as long as nothing is pending.
    fn watch(&self) {
        while !self.ended.load(Ordering::SeqCst) {
            let watched = lock(&self.watched);
            let idle = |watched: &mut Watched| watched.pending.is_empty() && !watched.ending;
            drop(self.wake.wait_while(watched, idle).unwrap_or_else(PoisonError::into_inner));
            self.clock.pause(WATCH_EVERY);
            self.refuse_late();
        }
    }

    fn refuse_late(&self) {
        let late: Vec<_> = {
            let mut watched = lock(&self.watched);
            watched.pending.extract_if(|_, pending| pending.deadline.passed(&*self.clock)).collect()
        };
        for (_, pending) in late {
            self.note(pending.ino, &FsError::Late);
            (pending.refuse)(FsError::Late);
        }
    }

    /// Tells the log, and remembers a node whose answer could not be had: the kernel will repeat the question.
    fn note(&self, ino: u64, error: &FsError) {
        log_trouble(ino, error);
        if error.is_unavailable() {
            let until = self.clock.monotonic().saturating_add(TRIPPED_FOR);
            lock(&self.tripped).put(ino, until);
        }
    }

    fn is_tripped(&self, ino: u64) -> bool {
        let now = self.clock.monotonic();
        lock(&self.tripped).peek(&ino).is_some_and(|until| now < *until)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
