//! The one border between the blocking engine and asynchronous vaults (see `docs/architecture.md`).
//!
//! Above it threads block; below it a vault does single requests and says honestly what came of them. What lies
//! between is here and nowhere else: how many requests run at once, how long one may take, when it is tried
//! again, and when a put is finished. A put is finished when the vault has confirmed the length of the object,
//! and an object that is "already there" is compared before it is taken for ours: after a lost answer it
//! usually is ours. Only then is there a `Receipt`, and a recovery point is built from receipts.
//!
//! Bytes that were read are exactly as many as were asked for, but whether they are right is for the seal of
//! the frame or the hash of the object to say: a bit that flips on the way is not seen here.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, watch};

use crate::chance::Chance;
use crate::clock::{Clock, Deadline};
use crate::pace::{Pace, Pacer};
use crate::vault::{IsObject, NoObject, ObjectInfo, ObjectName, Vault, VaultError, Verb};

mod beat;
mod gate;
mod keeping;
mod listing;
mod probe;
mod put;
mod retry;
#[cfg(test)]
mod tests;

pub use beat::Beating;
pub use probe::Probed;
pub use put::Receipt;
use retry::Try;

/// Threads that drive all waiting of a process; the work on them is copying and, for TLS, decryption.
const WORKERS: usize = 2;
/// Threads for file work of directory vaults: no more requests than this run at once anyway.
const BLOCKING_THREADS_MAX: usize = 2 * TransferPolicy::CONCURRENCY_MAX;

/// Between two looks at whether somebody asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How hard a transfer tries. Measured against Azurite behind a 60 ms round trip: reads scale to 16 at once,
/// saturate at 32 and get slower at 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferPolicy {
    /// Requests at once, 1 to `CONCURRENCY_MAX`. Puts take at most half of them, so that somebody who reads a mounted point
    /// does not wait behind uploads that take minutes each.
    pub concurrency: usize,
    /// What one request may take, apart from its bytes.
    pub request_limit: Duration,
    /// Slowest link on which a request must still finish: its bytes divided by this are added to its limit.
    pub bytes_per_second_min: u64,
    /// How long one call goes on after its first failure, apart from its bytes.
    pub retry_budget: Duration,
    /// Wait before the second try; doubles each time, with jitter.
    pub backoff_first: Duration,
    /// Longest wait between tries, unless the service asks for a longer one.
    pub backoff_max: Duration,
}

impl TransferPolicy {
    /// Most requests at once.
    pub const CONCURRENCY_MAX: usize = 32;

    fn at_once(&self) -> usize {
        self.concurrency.clamp(1, Self::CONCURRENCY_MAX)
    }
}

impl Default for TransferPolicy {
    fn default() -> Self {
        Self {
            concurrency: 16,
            request_limit: Duration::from_secs(60),
            bytes_per_second_min: 16 * 1024,
            retry_budget: Duration::from_secs(300),
            backoff_first: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
        }
    }
}

/// What a transfer did so far; requests count every try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferStats {
    /// Requests that put an object.
    pub puts: u64,
    /// Requests for bytes.
    pub gets: u64,
    /// Requests for the length of an object.
    pub stats: u64,
    /// Requests for a page of a listing.
    pub lists: u64,
    /// Requests to remove an object.
    pub deletes: u64,
    /// Requests to make a vault ready.
    pub prepares: u64,
    /// Bytes of bodies sent, each try counted.
    pub bytes_up: u64,
    /// Bytes of bodies received and handed out.
    pub bytes_down: u64,
    /// Requests that were a second or later try.
    pub retries: u64,
}

#[derive(Debug, Default)]
struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    stats: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    prepares: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    retries: AtomicU64,
}

impl Counters {
    fn of(&self, verb: Verb) -> &AtomicU64 {
        match verb {
            Verb::Put => &self.puts,
            Verb::Get => &self.gets,
            Verb::Stat => &self.stats,
            Verb::List => &self.lists,
            Verb::Delete => &self.deletes,
            Verb::Prepare => &self.prepares,
        }
    }
}

/// Blocking access to one vault, for many threads at once. Its calls must not be made on a thread that drives
/// asynchronous work (use `spawn_blocking` there).
#[derive(Clone, Debug)]
pub struct Transfer {
    inner: Arc<Inner>,
    runtime: Handle,
}

#[derive(Debug)]
struct Inner {
    vault: Arc<dyn Vault>,
    clock: Arc<dyn Clock>,
    policy: TransferPolicy,
    permits: Semaphore,
    put_permits: Semaphore,
    gate: gate::Gate,
    cancelled: watch::Sender<bool>,
    counters: Counters,
    teller: OnceLock<retry::Teller>,
    pace: OnceLock<Arc<Pace>>,
    chance: OnceLock<Arc<dyn Chance>>,
}

impl Transfer {
    /// Access to `vault` by `policy`. Starts the process's runtime if this is the first one, so a daemon forks before it.
    pub fn new(
        vault: Arc<dyn Vault>,
        clock: Arc<dyn Clock>,
        policy: TransferPolicy,
    ) -> Result<Arc<Self>, VaultError> {
        let at_once = policy.at_once();
        let (permits, put_permits) = (Semaphore::new(at_once), Semaphore::new(at_once.div_ceil(2)));
        let cancelled = watch::Sender::new(false);
        let (counters, gate) = (Counters::default(), gate::Gate::default());
        let (teller, pace, chance) = Default::default();
        let inner = Inner {
            vault,
            clock,
            policy,
            permits,
            put_permits,
            gate,
            cancelled,
            counters,
            teller,
            pace,
            chance,
        };
        Ok(Arc::new(Self { inner: Arc::new(inner), runtime: runtime()? }))
    }

    /// The vault's address, without secrets.
    pub fn address(&self) -> String {
        self.inner.vault.address()
    }

    /// Puts an object that must not change any more. When it returns, the object is durable and its length confirmed.
    ///
    /// # Errors
    /// `Conflict` if other bytes lie under the name; else what the vault said last.
    pub fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<Receipt, VaultError> {
        self.put_new_by(name, body, Deadline::NEVER)
    }

    /// The same, or `Timeout` when the deadline has passed: then it may be there, or come to be.
    pub fn put_new_by(
        &self,
        name: &ObjectName,
        body: Bytes,
        deadline: Deadline,
    ) -> Result<Receipt, VaultError> {
        self.runtime.block_on(put::put_new(&self.inner, name, body, deadline))
    }

    /// A whole object of at most `max_len` bytes: its length is asked for first.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if it is longer; else what the vault said last.
    pub fn get(&self, name: &ObjectName, max_len: u64) -> Result<Bytes, VaultError> {
        self.get_by(name, max_len, Deadline::NEVER)
    }

    /// The same, or `Timeout` when the deadline has passed.
    pub fn get_by(&self, name: &ObjectName, max_len: u64, deadline: Deadline) -> Result<Bytes, VaultError> {
        self.runtime.block_on(self.inner.get(name, max_len, deadline))
    }

    /// Exactly the bytes `range` of an object.
    ///
    /// # Errors
    /// `NotFound`; `TooShort` if the object ends before; `Timeout` when the deadline has passed; else what the vault said last.
    pub fn get_range(
        &self,
        name: &ObjectName,
        range: Range<u64>,
        deadline: Deadline,
    ) -> Result<Bytes, VaultError> {
        self.runtime.block_on(self.inner.get_range(name, range, deadline))
    }

    /// Many ranges at once, as far as there may be several; answers in the order of the requests, each as of `get_range`.
    pub fn get_many(
        &self,
        wanted: Vec<(ObjectName, Range<u64>)>,
        deadline: Deadline,
    ) -> Vec<Result<Bytes, VaultError>> {
        if self.at_once() == 1 {
            return wanted.into_iter().map(|(name, range)| self.get_range(&name, range, deadline)).collect();
        }
        let start = |(name, range)| {
            let inner = Arc::clone(&self.inner);
            self.runtime.spawn(async move { inner.get_range(&name, range, deadline).await })
        };
        let tasks: Vec<_> = wanted.into_iter().map(start).collect();
        let broke_off = |e| Err(VaultError::invalid(format!("a read broke off: {e}")));
        self.runtime.block_on(async {
            let mut answers = Vec::with_capacity(tasks.len());
            for task in tasks {
                answers.push(task.await.unwrap_or_else(broke_off));
            }
            answers
        })
    }

    /// Length of an object; `None` if there is none.
    pub fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
        self.stat_by(name, Deadline::NEVER)
    }

    /// The same, or `Timeout` when the deadline has passed.
    pub fn stat_by(&self, name: &ObjectName, deadline: Deadline) -> Result<Option<u64>, VaultError> {
        self.runtime.block_on(self.inner.stat(name, deadline))
    }

    /// All objects whose names begin with `prefix` (empty or ending at a `/`), ascending by name.
    pub fn list_all(&self, prefix: &str) -> Result<Vec<ObjectInfo>, VaultError> {
        let of = |object: &ObjectInfo| Some(object.clone());
        self.runtime.block_on(self.inner.list_as(prefix, listing::NAMES_MAX, Deadline::NEVER, of))
    }

    /// The objects that `is_kept` says of those whose names begin with `prefix`, ascending by name: several times as many as `list_all` bears
    /// of any, if the names that are kept are those of a store.
    ///
    /// # Errors
    /// `WrongAnswer` for a listing of too many, or that does not end; `Timeout` when the deadline has passed; else what the vault said last.
    pub fn list_some(
        &self,
        prefix: &str,
        deadline: Deadline,
        is_kept: impl Fn(&ObjectInfo) -> bool,
    ) -> Result<Vec<ObjectInfo>, VaultError> {
        let of = |object: &ObjectInfo| is_kept(object).then(|| object.clone());
        self.runtime.block_on(self.inner.list_as(prefix, listing::NAMED_MAX, deadline, of))
    }

    /// What `of` makes of the objects below `prefix`, in the order of their names, without keeping names: for many. What it makes
    /// nothing of is skipped.
    ///
    /// # Errors
    /// `WrongAnswer` for a listing that does not end; `Timeout` when the deadline has passed; else what the vault said last.
    pub fn list_as<T>(
        &self,
        prefix: &str,
        deadline: Deadline,
        of: impl Fn(&ObjectInfo) -> Option<T>,
    ) -> Result<Vec<T>, VaultError> {
        self.runtime.block_on(self.inner.list_as(prefix, listing::OBJECTS_MAX, deadline, of))
    }

    /// What lies below `prefix` under names of objects and is none ([`Vault::no_objects`]).
    ///
    /// # Errors
    /// What the vault said last.
    pub fn no_objects(&self, prefix: &str, is_object: IsObject) -> Result<Vec<NoObject>, VaultError> {
        let list = Try { verb: Verb::List, bytes: 0, deadline: Deadline::NEVER };
        let listed = self.inner.retry(list, || self.inner.vault.no_objects(prefix, is_object));
        self.runtime.block_on(async { Ok(listed.await?.answer) })
    }

    /// Removes an object; `false` if there was none.
    pub fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        self.runtime.block_on(self.inner.delete(name))
    }

    /// Removes an object if it is exactly `bytes`. What somebody put in its place meanwhile stays.
    pub fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<(), VaultError> {
        let len = bytes.len() as u64;
        let of = Try { verb: Verb::Delete, bytes: len, deadline: Deadline::NEVER };
        self.runtime.block_on(self.inner.retry(of, || self.inner.vault.delete_exactly(name, bytes))).map(drop)
    }

    /// Makes the vault's containers or directories. Call it when a vault is created, not when it is used: it would
    /// make a directory where a disk is not mounted.
    pub fn prepare(&self) -> Result<(), VaultError> {
        self.runtime.block_on(self.inner.prepare())
    }

    /// Proves with a small object that the vault keeps its promises, above all that a second put does not replace
    /// the first. To be called when a vault is created.
    ///
    /// # Errors
    /// `Invalid` names the promise that was not kept; else what the vault said.
    pub fn probe(&self) -> Result<Probed, VaultError> {
        self.runtime.block_on(probe::probe(&self.inner))
    }

    /// Ends all calls, now and later, with `Cancelled`. What was under way may still take effect in the vault.
    pub fn cancel(&self) {
        self.inner.cancelled.send_replace(true);
    }

    /// Whether that was asked for.
    pub fn is_cancelled(&self) -> bool {
        *self.inner.cancelled.borrow()
    }

    /// Cancels, within a tenth of a second, once `asked` is true: a flag is all that a signal can raise.
    pub fn cancel_when(&self, asked: Arc<AtomicBool>) {
        let (inner, clock) = (Arc::downgrade(&self.inner), Arc::clone(&self.inner.clock));
        self.runtime.spawn(async move {
            // Whoever gives the transfer up needs no watching any more.
            while let Some(inner) = inner.upgrade() {
                if asked.load(Ordering::SeqCst) {
                    inner.cancelled.send_replace(true);
                    return;
                }
                drop(inner);
                clock.sleep(LOOK_EVERY).await;
            }
        });
    }

    /// Has `tell` told why a request is tried once more, from the third retry on. It is called by the threads that drive
    /// requests and must not wait for any. Only the first that is given counts.
    pub fn tell_retries(&self, tell: impl Fn(&VaultError) + Send + Sync + 'static) {
        let _ = self.inner.teller.set(retry::Teller(Box::new(tell)));
    }

    /// Has all that is put from now on keep to a pace, which others may share. Only the first that is given counts.
    pub fn pace_uploads(&self, pace: Arc<Pace>) {
        let _ = self.inner.pace.set(pace);
    }

    /// Has it drawn by another chance than the system's how long to wait between tries. Only the first that is given counts.
    pub fn draw_from(&self, chance: Arc<dyn Chance>) {
        let _ = self.inner.chance.set(chance);
    }

    /// How many requests run at once.
    pub fn at_once(&self) -> usize {
        self.inner.policy.at_once()
    }

    /// Waits until `bytes` more may pass by a pace, for whoever reads no faster than somebody wants.
    ///
    /// # Errors
    /// `Cancelled`.
    pub fn keep_pace(&self, pacer: &Pacer, bytes: usize) -> Result<(), VaultError> {
        self.runtime.block_on(self.inner.unless_cancelled(Deadline::NEVER, pacer.take_all(bytes)))
    }

    /// What was done so far.
    pub fn stats(&self) -> TransferStats {
        let c = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TransferStats {
            puts: read(&c.puts),
            gets: read(&c.gets),
            stats: read(&c.stats),
            lists: read(&c.lists),
            deletes: read(&c.deletes),
            prepares: read(&c.prepares),
            bytes_up: read(&c.bytes_up),
            bytes_down: read(&c.bytes_down),
            retries: read(&c.retries),
        }
    }
}

impl Inner {
    async fn get(&self, name: &ObjectName, max_len: u64, deadline: Deadline) -> Result<Bytes, VaultError> {
        let of = Try { verb: Verb::Stat, bytes: 0, deadline };
        let len = self.retry(of, || self.vault.stat(name)).await?.answer;
        let len = len.ok_or_else(|| VaultError::NotFound { what: name.to_string() })?;
        if len > max_len {
            return Err(VaultError::invalid(format!(
                "{name} has {len} bytes, more than the {max_len} it may have"
            )));
        }
        if len == 0 {
            return Ok(Bytes::new());
        }
        self.get_range(name, 0..len, deadline).await
    }

    async fn get_range(
        &self,
        name: &ObjectName,
        range: Range<u64>,
        deadline: Deadline,
    ) -> Result<Bytes, VaultError> {
        let len = range.end.saturating_sub(range.start);
        let of = Try { verb: Verb::Get, bytes: len, deadline };
        let bytes = self
            .retry(of, || async {
                let bytes = self.vault.get_range(name, range.clone()).await?;
                if bytes.len() as u64 != len {
                    let detail = format!("{} bytes of {name} instead of {len}", bytes.len());
                    return Err(VaultError::WrongAnswer { detail });
                }
                Ok(bytes)
            })
            .await?
            .answer;
        self.counters.bytes_down.fetch_add(len, Ordering::Relaxed);
        Ok(bytes)
    }

    async fn stat(&self, name: &ObjectName, deadline: Deadline) -> Result<Option<u64>, VaultError> {
        let of = Try { verb: Verb::Stat, bytes: 0, deadline };
        Ok(self.retry(of, || self.vault.stat(name)).await?.answer)
    }

    async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        let of = Try { verb: Verb::Delete, bytes: 0, deadline: Deadline::NEVER };
        let done = self.retry(of, || self.vault.delete(name)).await?;
        // Of a second try, "there was none" usually means that the first one removed it.
        Ok(done.answer || done.tries > 1)
    }

    async fn prepare(&self) -> Result<(), VaultError> {
        let of = Try { verb: Verb::Prepare, bytes: 0, deadline: Deadline::NEVER };
        self.retry(of, || self.vault.prepare()).await.map(drop)
    }
}

/// The runtime that all transfers of the process share.
fn runtime() -> Result<Handle, VaultError> {
    static RUNTIME: std::sync::OnceLock<Result<Runtime, String>> = std::sync::OnceLock::new();
    let start = || {
        Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("transfer")
            .enable_all()
            .build()
            .map_err(|e| format!("cannot start the threads that talk to vaults: {e}"))
    };
    match RUNTIME.get_or_init(start) {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(detail) => Err(VaultError::unavailable(detail.clone())),
    }
}
