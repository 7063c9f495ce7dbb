//! A vault that asks to be left alone is, by all who share a transfer, for as long as it says; but no longer than is sensible,
//! and not so strictly that nobody notices when it is back.
//!
//! While the gate is shut, one request in two seconds is let through to see. Its success opens the gate to all. That of a
//! request from before it was shut does not: a vault that can do half of what it is asked answers some of them.
//! Whoever has a deadline or reads an object sees at any time: somebody waits for him. Others, uploads above all, wait first as
//! the vault asked them to.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Inner;
use super::retry::{Try, Turns};
use crate::clock::Deadline;
use crate::vault::VaultError;

/// Longest that a vault is left alone on its word. A service that throttles says seconds.
pub(super) const LEFT_ALONE_MAX: Duration = Duration::from_secs(120);
/// Between two looks at whether a vault that asked to be left alone is back. Readers of one that is away wait five seconds: each
/// of them shall see at least one.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// One for each vault. Moments are those of the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    /// Changes whenever a look has opened the gate.
    opened: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// How often the gate was shut.
    shuttings: u64,
    shut: Option<Shut>,
}

#[derive(Debug)]
struct Shut {
    until: Duration,
    next_look: Duration,
    /// What the vault said.
    why: String,
}

/// Leave to make one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    shuttings: u64,
}

/// The gate is shut.
#[derive(Debug, PartialEq, Eq)]
struct Wait {
    /// When the vault may be asked again by all.
    until: Duration,
    /// When there is a look to be had.
    next_look: Duration,
    why: String,
}

impl Gate {
    /// Leave for a request, which is a look if the gate is shut. Whoever is no looker has none then.
    fn pass(&self, now: Duration, is_looker: bool) -> Result<Leave, Wait> {
        let mut state = self.state();
        let shuttings = state.shuttings;
        match &mut state.shut {
            Some(shut) if now < shut.until => {
                if now < shut.next_look || !is_looker {
                    return Err(Wait { until: shut.until, next_look: shut.next_look, why: shut.why.clone() });
                }
                shut.next_look = now.saturating_add(LOOK_EVERY);
            }
            _ => {}
        }
        Ok(Leave { shuttings })
    }

    /// Takes note of what came of a request.
    pub(super) fn learn<T>(&self, leave: Leave, outcome: &Result<T, VaultError>, now: Duration) {
        match outcome {
            Err(VaultError::Unavailable { retry_after: Some(asked), detail }) if !asked.is_zero() => {
                self.shut(now, (*asked).min(LEFT_ALONE_MAX), detail);
            }
            // Nothing was heard of the vault.
            Err(VaultError::Unavailable { .. } | VaultError::Timeout | VaultError::Cancelled) => {}
            _ => self.open(leave),
        }
    }

    fn shut(&self, now: Duration, asked: Duration, why: &str) {
        let mut state = self.state();
        let until = now.saturating_add(asked);
        match &mut state.shut {
            Some(shut) if now < shut.until => shut.until = shut.until.max(until),
            _ => {
                let next_look = now.saturating_add(LOOK_EVERY);
                state.shut = Some(Shut { until, next_look, why: why.into() });
                state.shuttings += 1;
            }
        }
    }

    fn open(&self, leave: Leave) {
        let mut state = self.state();
        if state.shuttings == leave.shuttings && state.shut.take().is_some() {
            self.opened.send_replace(());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Leave for a request as soon as it is its turn and the gate lets it through, and its turns, which whoever waits at the
    /// gate gives up meanwhile.
    ///
    /// # Errors
    /// `Timeout` without a turn; `Unavailable` if the caller's time ends before the gate; `Cancelled`.
    pub(super) async fn leave(&self, of: Try) -> Result<(Leave, Turns<'_>), VaultError> {
        let mut opened = self.gate.opened.subscribe();
        let looks = of.looks(self.clock.as_ref());
        // What the vault asked for when this request came. Later words of it are others' concern.
        let mut looks_from = None;
        loop {
            let turns = self.turns(of).await?;
            let now = self.clock.monotonic();
            let is_looker = looks || looks_from.is_some_and(|from| from <= now);
            let wait = match self.gate.pass(now, is_looker) {
                Ok(leave) => return Ok((leave, turns)),
                Err(wait) => wait,
            };
            drop(turns);
            let from = *looks_from.get_or_insert(wait.until);
            let look = if looks { wait.next_look } else { wait.next_look.max(from) };
            self.wait_at_gate(of.deadline, look.min(wait.until).saturating_sub(now), &mut opened, &wait.why)
                .await?;
        }
    }

    async fn wait_at_gate(
        &self,
        deadline: Deadline,
        wait: Duration,
        opened: &mut watch::Receiver<()>,
        why: &str,
    ) -> Result<(), VaultError> {
        let left = deadline.left(self.clock.as_ref());
        let time = left.map_or(wait, |left| left.min(wait));
        let waiting = async {
            tokio::select! {
                biased;
                // The sender lives as long as `self`.
                _ = opened.changed() => true,
                () = self.clock.sleep(time) => false,
            }
        };
        let is_open = self.unless_cancelled(deadline, waiting).await?;
        if !is_open && left.is_some_and(|left| left <= wait) {
            return Err(VaultError::unavailable(format!("it asked to be left alone: {why}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn busy(seconds: u32) -> Result<(), VaultError> {
        Err(VaultError::Unavailable { detail: "busy".into(), retry_after: Some(SECOND * seconds) })
    }

    /// Whether a looker and another one get through at a second. A look is used up by it.
    fn pass_at(gate: &Gate, second: u32) -> (bool, bool) {
        let other = gate.pass(SECOND * second, false).is_ok();
        (gate.pass(SECOND * second, true).is_ok(), other)
    }

    #[test]
    fn a_shut_gate_lets_one_look_in_two_seconds_and_all_when_the_time_is_over() {
        let gate = Gate::default();
        let leave = gate.pass(Duration::ZERO, false).unwrap();
        gate.learn(leave, &busy(7), Duration::ZERO);
        let passed: Vec<_> = (0..8).map(|second| pass_at(&gate, second)).collect();
        let (no, look, all) = ((false, false), (true, false), (true, true));
        assert_eq!(passed, [no, no, look, no, look, no, look, all]);
    }

    #[test]
    fn a_vault_is_left_alone_no_longer_than_is_sensible_and_only_if_it_asks() {
        for (asked, until) in [(0, 0), (1, 1), (120, 120), (100_000, 120)] {
            let gate = Gate::default();
            let leave = gate.pass(Duration::ZERO, false).unwrap();
            gate.learn(leave, &busy(asked), Duration::ZERO);
            assert!(gate.pass(SECOND * until, false).is_ok(), "{asked}");
            assert!(until == 0 || gate.pass(SECOND * (until - 1), false).is_err(), "{asked}");
        }
        let gate = Gate::default();
        let leave = gate.pass(Duration::ZERO, false).unwrap();
        gate.learn::<()>(leave, &Err(VaultError::unavailable("gone")), Duration::ZERO);
        assert!(gate.pass(Duration::ZERO, false).is_ok());
    }

    #[test]
    fn the_success_of_a_look_opens_and_that_of_an_earlier_request_does_not() {
        let gate = Gate::default();
        let opened = gate.opened.subscribe();
        let early = gate.pass(Duration::ZERO, false).unwrap();
        gate.learn(early, &busy(60), Duration::ZERO);
        gate.learn(early, &Ok(()), SECOND);
        assert_eq!((pass_at(&gate, 1), opened.has_changed().unwrap()), ((false, false), false));
        let look = gate.pass(SECOND * 2, true).unwrap();
        // Another early one is refused only now, which leaves the look its worth.
        gate.learn(early, &busy(60), SECOND * 2);
        gate.learn::<()>(look, &Err(VaultError::Timeout), SECOND * 3);
        assert_eq!(pass_at(&gate, 3), (false, false), "nothing was heard");
        gate.learn(look, &Ok(()), SECOND * 3);
        assert_eq!((pass_at(&gate, 3), opened.has_changed().unwrap()), ((true, true), true));
    }
}
