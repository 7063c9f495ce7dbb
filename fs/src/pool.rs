//! Slow answers, given by threads that may wait, each within its deadline.
//!
//! A request whose answer is not in memory moves here together with its reply. There is a lane for what lies on this machine, which the
//! first callers do themselves, and one for each vault (`lanes`), so that a vault that does not answer holds up nothing else. What turns out
//! to lie elsewhere moves on to the lane of that. The reply lies in a slot that two parties reach for: the
//! worker that found the answer, and the watchman, who answers for whoever is late with an error. Whoever comes first
//! takes the reply; so every request ends in time, even if the thread below it never comes back.
//!
//! The kernel repeats a failed read-ahead page by page. A node that was late is therefore refused at once
//! for a moment ([`TRIPPED_FOR`]), or each of its pages would wait for a deadline of its own. What lies on this machine is still
//! answered when it was a vault that was late.
//!
//! A caller that is killed while it waits cannot end before it has an answer (`leaving`): the watchman gives it one. Work for whoever
//! has an answer hears of it by its deadline, and does not keep a thread from the next.

mod job;
mod lanes;
mod leaving;
mod trouble;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use holdfast_store::clock::{Clock, Deadline, Waiting};

use crate::error::FsError;
use crate::lock::lock;
use crate::recovery::{Patience, Reach};
use job::Job;
use lanes::{VaultLanes, lane};
use leaving::Callers;
use trouble::Trouble;

/// How long a node that was late is refused without asking.
pub const TRIPPED_FOR: Duration = Duration::from_secs(1);

/// How often the watchman looks, as long as there is anything to watch: late replies are late by at most this.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// How often he looks whether a caller is to end.
const LEAVING_EVERY: Duration = Duration::from_millis(500);

/// Work gives up so much before the watchman does, or a tenth of its time: it knows the cause, and he does not.
const MARGIN_MAX: Duration = Duration::from_millis(500);

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
    /// Threads for what lies in a vault, of each; a quarter of them for pages of directories alone, another one for contents first.
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
    /// As long as it is here, somebody waits.
    _waiting: Waiting,
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
    trouble: Trouble,
    callers: Callers,
    vaults: VaultLanes,
    ended: AtomicBool,
}

/// The threads. When it is dropped they end as soon as their work lets them; nobody waits for them.
pub struct Pool {
    shared: Arc<Shared>,
    in_place: Permits,
    local: Sender<Work>,
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
        let callers = Callers::of(Path::new("/proc"), std::process::id());
        Self::start_for(options, clock, callers, VaultLanes::new(options.vault_threads))
    }

    fn start_for(
        options: PoolOptions,
        clock: Arc<dyn Clock>,
        callers: Callers,
        vaults: VaultLanes,
    ) -> std::io::Result<Self> {
        let local = lane("holdfast-local", options.local_threads)?;
        let shared = Arc::new(Shared {
            trouble: Trouble::new(clock.clone()),
            clock,
            timeout: options.timeout,
            watched: Mutex::default(),
            wake: Condvar::new(),
            callers,
            vaults,
            ended: AtomicBool::new(false),
        });
        let watcher = shared.clone();
        thread::Builder::new().name("holdfast-watch".into()).spawn(move || watcher.watch())?;
        Ok(Self { shared, in_place: Permits(AtomicUsize::new(options.in_place)), local })
    }

    /// Has `work` done where `reach` asks for, and again farther away if that was too near; `answer` gets its result unless the
    /// deadline came first.
    pub fn submit<R: Reply, T>(
        &self,
        reach: Reach,
        caller: Caller,
        reply: R,
        work: impl Fn(Patience) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        if self.shared.trouble.is_tripped(caller.ino, reach) {
            return reply.refuse(FsError::Tripped);
        }
        let slot = Arc::new(Mutex::new(Some(reply)));
        let Some((number, deadline)) = self.shared.register(caller, reach, &slot) else {
            return refuse(&slot, FsError::Ending);
        };
        let (shared, ino) = (self.shared.clone(), caller.ino);
        let job = Job { shared, number, ino, moves: 0, deadline, slot, work, answer };
        if let Reach::Vault(line) = reach {
            return job.wait_for_vault(line);
        }
        match self.in_place.take() {
            Some(_permit) => job.run(Reach::Local),
            // A send fails only when every thread of the lane is gone; then the watchman answers.
            None => drop(self.local.send(Box::new(move || job.run(Reach::Local)))),
        }
    }

    /// Tells the log of trouble with a node.
    pub fn tell(&self, ino: u64, error: &FsError) {
        self.shared.trouble.tell(ino, error);
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

    /// The number of a request, and when its work is to give up.
    fn register<R: Reply>(
        &self,
        caller: Caller,
        reach: Reach,
        slot: &Arc<Mutex<Option<R>>>,
    ) -> Option<(u64, Deadline)> {
        let waiting = Waiting::begin();
        let until = Deadline::after(&*self.clock, self.patience()).of(&waiting);
        let deadline = Deadline::after(&*self.clock, self.timeout);
        let mut watched = lock(&self.watched);
        if watched.ending {
            return None;
        }
        let slot = slot.clone();
        let refuse: Refuse = Box::new(move |error| refuse(&slot, error));
        let number = watched.next;
        watched.next += 1;
        watched.pending.insert(number, Pending { deadline, caller, reach, refuse, _waiting: waiting });
        self.wake.notify_all();
        Some((number, until))
    }

    fn done(&self, number: u64) {
        lock(&self.watched).pending.remove(&number);
    }

    /// Notes that a request waits for a vault from now on; `false` if it has its answer.
    fn moved(&self, number: u64, reach: Reach) -> bool {
        let mut watched = lock(&self.watched);
        watched.pending.get_mut(&number).map(|pending| pending.reach = reach).is_some()
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
            self.trouble.tell_rest();
            if self.callers.are_known() && self.clock.monotonic().saturating_sub(looked) >= LEAVING_EVERY {
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
            self.trouble.note(late.caller.ino, late.reach, &FsError::Late, true);
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
        for (number, _) in waiting.into_iter().filter(|(_, pid)| self.callers.is_leaving(*pid)) {
            let gone = lock(&self.watched).pending.remove(&number);
            if let Some(gone) = gone {
                (gone.refuse)(FsError::Interrupted);
            }
        }
    }
}

#[cfg(test)]
mod tests;
