//! Slow answers, given by threads that may wait, each within its deadline.
//!
//! A request whose answer is not in memory moves here together with its reply. There are two lanes, so that a vault that
//! does not answer cannot hold up what lies on this machine; and that the first callers do themselves. The reply lies in a slot that two parties reach for: the
//! worker that found the answer, and the watchman, who answers for whoever is late with an error. Whoever comes first
//! takes the reply; so every request ends in time, even if the thread below it never comes back.
//!
//! The kernel repeats a failed read-ahead page by page. A node that was late is therefore refused at once
//! for a moment ([`TRIPPED_FOR`]), or each of its pages would wait for a deadline of its own. What lies on this machine is still
//! answered when it was a vault that was late.
//!
//! A caller that is killed while it waits cannot end before it has an answer (`leaving`): the watchman gives it one.

mod leaving;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use holdfast_store::clock::{Clock, Deadline};
use lru::LruCache;

use crate::error::FsError;
use crate::lock::lock;
use crate::recovery::{Patience, Reach};

/// How long a node that was late is refused without asking.
pub const TRIPPED_FOR: Duration = Duration::from_secs(1);

/// How often the watchman looks, as long as there is anything to watch: late replies are late by at most this.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// How often he looks whether a caller is to end.
const LEAVING_EVERY: Duration = Duration::from_millis(500);

/// Work gives up so much before the watchman does, or a tenth of its time: it knows the cause, and he does not.
const MARGIN_MAX: Duration = Duration::from_millis(500);

/// How long the same trouble with the same node is not told again.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// Nodes that were late, and troubles that were told, at most.
const NODES_KEPT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

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

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The thread that waits, as the kernel numbers it for this process; 0 if it is not known here.
    pub pid: u32,
    /// The node it asks about.
    pub ino: u64,
}

struct Pending {
    deadline: Deadline,
    caller: Caller,
    reach: Reach,
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
    /// What was late, the nearest place that was, and until when it is refused.
    tripped: Mutex<LruCache<u64, (Reach, Duration)>>,
    /// What the log was told of a node, and until when it is not told again.
    told: Mutex<LruCache<(u64, String), Duration>>,
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
            tripped: Mutex::new(LruCache::new(NODES_KEPT)),
            told: Mutex::new(LruCache::new(NODES_KEPT)),
            ended: AtomicBool::new(false),
        });
        let local = lane("holdfast-local", options.local_threads)?;
        let vault = lane("holdfast-vault", options.vault_threads)?;
        let watcher = shared.clone();
        thread::Builder::new().name("holdfast-watch".into()).spawn(move || watcher.watch())?;
        Ok(Self { shared, in_place: Permits(AtomicUsize::new(options.in_place)), local, vault })
    }

    /// Has `work` done where `reach` asks for; `answer` gets its result unless the deadline came first.
    pub fn submit<R: Reply, T>(
        &self,
        reach: Reach,
        caller: Caller,
        reply: R,
        work: impl FnOnce(Patience) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        if self.shared.is_tripped(caller.ino, reach) {
            return reply.refuse(FsError::Tripped);
        }
        let slot = Arc::new(Mutex::new(Some(reply)));
        let Some(number) = self.shared.register(caller, reach, &slot) else {
            return refuse(&slot, FsError::Ending);
        };
        let deadline = Deadline::after(&*self.shared.clock, self.shared.patience());
        let shared = self.shared.clone();
        let run = move || {
            // Whoever has been refused already is not worked for.
            if lock(&slot).is_some() {
                let result = guarded(|| work(Patience::Until(deadline)));
                shared.done(number);
                if let Err(error) = &result {
                    shared.note(caller.ino, reach, error);
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

    /// Tells the log of trouble with a node.
    pub fn tell(&self, ino: u64, error: &FsError) {
        self.shared.tell(ino, error);
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
    /// How long work may take.
    fn patience(&self) -> Duration {
        self.timeout - MARGIN_MAX.min(self.timeout / 10)
    }

    fn register<R: Reply>(&self, caller: Caller, reach: Reach, slot: &Arc<Mutex<Option<R>>>) -> Option<u64> {
        let deadline = Deadline::after(&*self.clock, self.timeout);
        let mut watched = lock(&self.watched);
        if watched.ending {
            return None;
        }
        let slot = slot.clone();
        let refuse: Refuse = Box::new(move |error| refuse(&slot, error));
        let number = watched.next;
        watched.next += 1;
        watched.pending.insert(number, Pending { deadline, caller, reach, refuse });
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
        let mut looked = Duration::ZERO;
        while !self.ended.load(Ordering::SeqCst) {
            let watched = lock(&self.watched);
            let idle = |watched: &mut Watched| watched.pending.is_empty() && !watched.ending;
            drop(self.wake.wait_while(watched, idle).unwrap_or_else(PoisonError::into_inner));
            self.clock.pause(WATCH_EVERY);
            self.refuse_late();
            if self.clock.monotonic().saturating_sub(looked) >= LEAVING_EVERY {
                self.refuse_leaving();
                looked = self.clock.monotonic();
            }
        }
    }

    fn refuse_late(&self) {
        let late: Vec<_> = {
            let mut watched = lock(&self.watched);
            watched.pending.extract_if(|_, pending| pending.deadline.passed(&*self.clock)).collect()
        };
        for (_, late) in late {
            self.note(late.caller.ino, late.reach, &FsError::Late);
            (late.refuse)(FsError::Late);
        }
    }

    /// Those that only just came are left alone: most are answered before anybody could look.
    fn refuse_leaving(&self) {
        let young = self.timeout.saturating_sub(LEAVING_EVERY);
        let waits = |pending: &Pending| pending.deadline.left(&*self.clock).is_some_and(|left| left < young);
        let waiting: Vec<_> = {
            let watched = lock(&self.watched);
            let waiting = watched.pending.iter().filter(|(_, pending)| waits(pending));
            waiting.map(|(number, pending)| (*number, pending.caller.pid)).collect()
        };
        // Without the lock, which every request takes: each look reads a file.
        for (number, _) in waiting.into_iter().filter(|(_, pid)| leaving::is_leaving(*pid)) {
            let gone = lock(&self.watched).pending.remove(&number);
            if let Some(gone) = gone {
                (gone.refuse)(FsError::Interrupted);
            }
        }
    }

    /// Tells the log, and remembers a node whose answer could not be had: the kernel will repeat the question.
    fn note(&self, ino: u64, reach: Reach, error: &FsError) {
        self.tell(ino, error);
        if error.is_unavailable() {
            let until = self.clock.monotonic().saturating_add(TRIPPED_FOR);
            lock(&self.tripped).put(ino, (reach, until));
        }
    }

    fn is_tripped(&self, ino: u64, reach: Reach) -> bool {
        let now = self.clock.monotonic();
        lock(&self.tripped).peek(&ino).is_some_and(|(late, until)| *late <= reach && now < *until)
    }

    /// The kernel has room for a number only, so the cause goes to the log: once, and not for each page that it asks for again.
    fn tell(&self, ino: u64, error: &FsError) {
        if !error.is_trouble() {
            return;
        }
        let repeats = matches!(error, FsError::Tripped | FsError::Ending) || !self.is_news(ino, error);
        if repeats {
            tracing::debug!(ino, %error, "a request was refused");
        } else {
            tracing::warn!(ino, %error, "a request was answered with an I/O error");
        }
    }

    /// Whether the log does not know this of a node. What could not be had has a cause, whatever words it has for each page.
    fn is_news(&self, ino: u64, error: &FsError) -> bool {
        let words = if error.is_unavailable() { String::new() } else { error.to_string() };
        let now = self.clock.monotonic();
        let mut told = lock(&self.told);
        let is_news = told.get(&(ino, words.clone())).is_none_or(|until| *until <= now);
        if is_news {
            told.put((ino, words), now.saturating_add(TOLD_FOR));
        }
        is_news
    }
}

#[cfg(test)]
mod tests;
