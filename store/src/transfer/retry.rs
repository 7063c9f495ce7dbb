//! One request, tried until it succeeds or trying makes no sense any more.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Inner;
use super::gate::LEFT_ALONE_MAX;
use crate::chance::{Chance, SystemChance};
use crate::clock::{Clock, Deadline};
use crate::pace::Pacer;
use crate::vault::{VaultError, Verb};

/// What fails so often is no hiccup any more: by then some two seconds were waited.
const TOLD_FROM: u32 = 4;

/// Longest wait between tries of a request whose caller has a deadline: somebody sits before a mount, and the vault may be back.
/// Also of other reads, where the gate keeps the time.
const WATCHED_MAX: Duration = Duration::from_secs(2);

/// Whom to tell why a request is tried again.
pub(super) struct Teller(pub(super) Box<dyn Fn(&VaultError) + Send + Sync>);

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Teller")
    }
}

/// What is tried.
#[derive(Clone, Copy)]
pub(super) struct Try {
    /// The kind of request.
    pub(super) verb: Verb,
    /// Bytes that go over the wire, in whichever direction.
    pub(super) bytes: u64,
    /// When its caller gives up.
    pub(super) deadline: Deadline,
}

impl Try {
    /// Whether it may see at any time if a vault that asked to be left alone is back: somebody waits for what is read.
    pub(super) fn looks(&self, clock: &dyn Clock) -> bool {
        matches!(self.verb, Verb::Get | Verb::Stat) || self.deadline.left(clock).is_some()
    }
}

/// What came of it.
pub(super) struct Done<T> {
    /// The vault's answer.
    pub(super) answer: T,
    /// Requests that were made, the successful one among them. More than one: an earlier one may have had effect.
    pub(super) tries: u32,
}

/// It is a request's turn until this is dropped.
pub(super) struct Turns<'a> {
    _put: Option<SemaphorePermit<'a>>,
    _any: SemaphorePermit<'a>,
}

impl Inner {
    /// Makes requests until one has an answer, within the retry budget and the deadline.
    pub(super) async fn retry<T, F>(&self, of: Try, request: impl FnMut() -> F) -> Result<Done<T>, VaultError>
    where
        F: Future<Output = Result<T, VaultError>>,
    {
        self.retry_paced(of, None, request).await
    }

    /// The same for requests that keep to a pace: the time in which they wait for that does not count.
    pub(super) async fn retry_paced<T, F>(
        &self,
        of: Try,
        pacer: Option<&Pacer>,
        mut request: impl FnMut() -> F,
    ) -> Result<Done<T>, VaultError>
    where
        F: Future<Output = Result<T, VaultError>>,
    {
        let budget = self.policy.retry_budget.saturating_add(self.time_for(of.bytes));
        let mut first_failure = None;
        let mut tries = 0;
        loop {
            let outcome = self.once(of, pacer, &mut tries, &mut request).await;
            let error = match outcome {
                Ok(answer) => return Ok(Done { answer, tries }),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => error,
            };
            // From the first failure on: a call may have waited long for its turn.
            let now = self.worked(pacer);
            let failing = now.saturating_sub(*first_failure.get_or_insert(now));
            let wait = self.backoff(tries, &error, of);
            let is_enough = of.deadline.left(self.clock.as_ref()).is_none_or(|left| left > wait);
            if budget.saturating_sub(failing) <= wait || !is_enough {
                return Err(error);
            }
            if tries >= TOLD_FROM
                && let Some(Teller(tell)) = self.teller.get()
            {
                tell(&error);
            }
            self.unless_cancelled(of.deadline, self.clock.sleep(wait)).await?;
        }
    }

    /// Waits until it is a request's turn.
    pub(super) async fn turns(&self, of: Try) -> Result<Turns<'_>, VaultError> {
        let put = match of.verb {
            Verb::Put => Some(self.turn(of, &self.put_permits).await?),
            _ => None,
        };
        Ok(Turns { _put: put, _any: self.turn(of, &self.permits).await? })
    }

    async fn turn<'a>(&self, of: Try, permits: &'a Semaphore) -> Result<SemaphorePermit<'a>, VaultError> {
        let left = of.deadline.left(self.clock.as_ref());
        self.within(of.deadline, left, None, permits.acquire()).await?.map_err(|_| VaultError::Cancelled)
    }

    async fn once<T, F>(
        &self,
        of: Try,
        pacer: Option<&Pacer>,
        tries: &mut u32,
        request: &mut impl FnMut() -> F,
    ) -> Result<T, VaultError>
    where
        F: Future<Output = Result<T, VaultError>>,
    {
        let (leave, _turns) = self.leave(of).await?;
        *tries += 1;
        self.counters.of(of.verb).fetch_add(1, Ordering::Relaxed);
        if *tries > 1 {
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        let limit = self.policy.request_limit.saturating_add(self.time_for(of.bytes));
        let left = of.deadline.left(self.clock.as_ref()).map_or(limit, |left| left.min(limit));
        let outcome = self.within(of.deadline, Some(left), pacer, request()).await.flatten();
        self.gate.learn(leave, &outcome, self.clock.monotonic());
        outcome
    }

    /// Time that `bytes` take on the slowest link that must do.
    fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_secs(bytes / self.policy.bytes_per_second_min.max(1))
    }

    /// Doubles with each try, of which the upper half is chance, so that many readers do not come back in step.
    fn backoff(&self, tries: u32, error: &VaultError, of: Try) -> Duration {
        let asked_for = match error {
            VaultError::Unavailable { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let is_kept = of.looks(self.clock.as_ref()) && !asked_for.is_zero();
        let is_watched = of.deadline.left(self.clock.as_ref()).is_some();
        let longest = match is_watched || is_kept {
            true => WATCHED_MAX.min(self.policy.backoff_max),
            false => self.policy.backoff_max,
        };
        let doubled = self.policy.backoff_first.saturating_mul(1 << tries.saturating_sub(1).min(20));
        let half = doubled.min(longest) / 2;
        let part = self.chance.get().map_or_else(|| SystemChance.part(), |chance| chance.part());
        // Whoever looks is kept by the gate, as far as need be.
        let asked_for = if is_kept { Duration::ZERO } else { asked_for };
        (half + half.mul_f64(part)).max(asked_for.min(LEFT_ALONE_MAX))
    }

    /// The outcome of `work`, unless before it is there `limit` passes, nobody waits for it any more or the transfer is
    /// cancelled.
    async fn within<T>(
        &self,
        deadline: Deadline,
        limit: Option<Duration>,
        pacer: Option<&Pacer>,
        work: impl Future<Output = T>,
    ) -> Result<T, VaultError> {
        let Some(limit) = limit else { return self.unless_cancelled(deadline, work).await };
        if limit.is_zero() {
            return Err(VaultError::Timeout);
        }
        let timed = async {
            tokio::select! {
                biased;
                outcome = work => Ok(outcome),
                () = self.time_up(limit, pacer) => Err(VaultError::Timeout),
            }
        };
        self.unless_cancelled(deadline, timed).await?
    }

    /// Completes when `limit` has passed since now.
    fn time_up(&self, limit: Duration, pacer: Option<&Pacer>) -> impl Future<Output = ()> {
        let end = self.worked(pacer).saturating_add(limit);
        async move {
            loop {
                match end.saturating_sub(self.worked(pacer)) {
                    Duration::ZERO => return,
                    left => self.clock.limit(left).await,
                }
            }
        }
    }

    /// The time as it goes by for who keeps to a pace: it stands still while he waits for that.
    fn worked(&self, pacer: Option<&Pacer>) -> Duration {
        self.clock.monotonic().saturating_sub(pacer.map_or(Duration::ZERO, Pacer::waited))
    }

    pub(super) async fn unless_cancelled<T>(
        &self,
        deadline: Deadline,
        work: impl Future<Output = T>,
    ) -> Result<T, VaultError> {
        let mut cancelled = self.cancelled.subscribe();
        tokio::select! {
            biased;
            // The sender lives as long as `self`, so the only answer is that the flag is set.
            _ = cancelled.wait_for(|flag| *flag) => Err(VaultError::Cancelled),
            () = deadline.given_up() => Err(VaultError::Cancelled),
            outcome = work => Ok(outcome),
        }
    }
}
