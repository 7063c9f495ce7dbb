//! Vaults that did not answer, and for how long each reader waits for one of them; and those that gave wrong bytes.
//!
//! Whoever has a deadline, a reader of a mount above all, asks such a vault after the others and waits for it briefly. Whoever has
//! none, as verbs have none, waits the first time for as long as a transfer tries
//! ([`retry_budget`](crate::transfer::TransferPolicy::retry_budget)): a line that is down for some minutes costs nobody the work
//! of hours. Then the vault is *given up*: for a minute no such reader asks it again, and after that each minute one
//! brief wait, until it answers. So a verb that needs a vault a hundred thousand times ends in about the time of one wait.
//!
//! A vault whose bytes did not open answers, and in time; yet for a minute it is asked after those that are not known for it. Only
//! the order changes: where it alone has something, or the others are away, it is asked as ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::catalog::VaultNo;
use crate::clock::{Clock, Deadline};
use crate::vault::VaultError;

/// A vault that did not answer is asked after the others for so long, and one that was given up not at all.
const AWAY_FOR: Duration = Duration::from_secs(60);
/// And so long is it waited for: one file that cannot be had shall not cost as much as the one before. A vault that came
/// back answers sooner.
const AWAY_PATIENCE: Duration = Duration::from_secs(5);
/// A vault that gave wrong bytes is asked after the others for so long.
const WRONG_FOR: Duration = Duration::from_secs(60);
/// A vault that had less time than this to answer is not taken for away.
const FAIR: Duration = Duration::from_secs(1);

/// A vault that did not answer, until it does.
#[derive(Clone, Copy, Debug)]
struct Silence {
    /// Until then it is away.
    until: Deadline,
    /// Whether somebody waited for it who had no deadline.
    given_up: bool,
}

/// Which vaults are away.
#[derive(Debug)]
pub(super) struct AwayVaults {
    clock: Arc<dyn Clock>,
    silent: Mutex<HashMap<VaultNo, Silence>>,
    /// Those that gave wrong bytes, and until when that counts.
    wrong: Mutex<HashMap<VaultNo, Deadline>>,
}

/// How long a vault is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) deadline: Deadline,
    /// Whether a vault that does not answer within it is away.
    tells: bool,
    /// Whether its reader has no deadline.
    endless: bool,
}

impl AwayVaults {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, silent: Mutex::default(), wrong: Mutex::default() }
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<VaultNo, Silence>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silence(&self, no: VaultNo) -> Option<Silence> {
        self.silent().get(&no).copied()
    }

    /// Whether a vault did not answer a short while ago.
    pub(super) fn is_away(&self, no: VaultNo) -> bool {
        self.silence(no).is_some_and(|silence| !silence.until.passed(&*self.clock))
    }

    /// Whether a vault was waited for in vain by somebody without a deadline, and has not answered since.
    pub(super) fn is_given_up(&self, no: VaultNo) -> bool {
        self.silence(no).is_some_and(|silence| silence.given_up)
    }

    /// How long somebody who has until `deadline` waits for a vault.
    ///
    /// # Errors
    /// Not at all: it was given up.
    pub(super) fn patience(&self, no: VaultNo, deadline: Deadline) -> Result<Patience, VaultError> {
        let left = deadline.left(&*self.clock);
        let (is_away, given_up) = (self.is_away(no), self.is_given_up(no));
        let brief = || deadline.within(&*self.clock, AWAY_PATIENCE);
        Ok(match left {
            None if given_up && is_away => {
                return Err(VaultError::unavailable(
                    "it has not answered for some time, and is not asked again yet",
                ));
            }
            None if given_up => Patience { deadline: brief(), tells: true, endless: true },
            None => Patience { deadline, tells: true, endless: true },
            // Who was in a hurry because it is away does not make it so for longer.
            Some(left) if is_away && left > AWAY_PATIENCE => {
                Patience { deadline: brief(), tells: false, endless: false }
            }
            Some(left) => Patience { deadline, tells: left >= FAIR, endless: false },
        })
    }

    /// Bytes of a vault did not open.
    pub(super) fn gave_wrong_bytes(&self, no: VaultNo) {
        self.wrong().insert(no, Deadline::after(&*self.clock, WRONG_FOR));
    }

    /// Whether bytes of a vault did not open a short while ago.
    pub(super) fn is_wrong(&self, no: VaultNo) -> bool {
        self.wrong().get(&no).is_some_and(|until| !until.passed(&*self.clock))
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<VaultNo, Deadline>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vault answered.
    pub(super) fn answered(&self, no: VaultNo) {
        self.silent().remove(&no);
    }

    /// A vault did not answer somebody who had this patience.
    pub(super) fn did_not_answer(&self, no: VaultNo, patience: Patience) {
        if !patience.tells {
            return;
        }
        let until = Deadline::after(&*self.clock, AWAY_FOR);
        let mut silent = self.silent();
        let given_up = patience.endless || silent.get(&no).is_some_and(|silence| silence.given_up);
        silent.insert(no, Silence { until, given_up });
    }
}
