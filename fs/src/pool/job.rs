//! One request: what a thread of a lane does with it.

use std::sync::{Arc, Mutex};

use holdfast_store::clock::Deadline;

use super::{Reply, Shared, guarded, lock, refuse, take};
use crate::error::FsError;
use crate::recovery::{Line, Patience, Reach};

/// After so many moves a request stays where it is, and waits there for any vault.
const MOVES_MAX: u8 = 16;

/// A request on its way to an answer.
pub(super) struct Job<R, W, A> {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
    pub(super) ino: u64,
    /// From one lane to another.
    pub(super) moves: u8,
    /// Passes when the work must give up, or when it need not go on.
    pub(super) deadline: Deadline,
    pub(super) slot: Arc<Mutex<Option<R>>>,
    pub(super) work: W,
    pub(super) answer: A,
}

impl<R: Reply, W, A> Job<R, W, A> {
    /// Answers, or moves on from the one lane to the other.
    pub(super) fn run<T>(self, reach: Reach)
    where
        W: Fn(Patience) -> Result<T, FsError> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        // Whoever has been refused already is not worked for.
        if lock(&self.slot).is_none() {
            return;
        }
        let patience = match reach {
            Reach::Local => Patience::Local(self.deadline),
            Reach::Vault(Line { vault: Some(vault), .. }) if self.moves < MOVES_MAX => {
                Patience::Of(vault, self.deadline)
            }
            Reach::Vault(_) => Patience::Until(self.deadline),
        };
        let result = guarded(|| (self.work)(patience));
        if let Err(FsError::Later(Reach::Vault(line))) = result {
            return self.go_on(line);
        }
        // Before it is done: after that nobody waits any more.
        let waited = reach.is_far() && self.deadline.half_passed(&*self.shared.clock);
        self.shared.done(self.number);
        let Some(reply) = take(&self.slot) else { return };
        match result {
            Ok(value) => (self.answer)(reply, value),
            Err(error) => {
                self.shared.trouble.note(self.ino, reach, &error, waited);
                reply.refuse(error);
            }
        }
    }

    /// What was taken to lie on this machine does not, or some of it lies in another vault.
    fn go_on<T>(mut self, line: Line)
    where
        W: Fn(Patience) -> Result<T, FsError> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        let reach = Reach::Vault(line);
        self.moves += 1;
        if self.shared.trouble.is_tripped(self.ino, reach) {
            self.shared.done(self.number);
            refuse(&self.slot, FsError::Tripped);
        } else if self.shared.moved(self.number, reach) {
            self.wait_for_vault(line);
        }
    }

    /// Queues for a thread. Time in the queue is not time that another one had who is asked now.
    pub(super) fn wait_for_vault<T>(mut self, line: Line)
    where
        W: Fn(Patience) -> Result<T, FsError> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        let (shared, slot, number, ino) = (self.shared.clone(), self.slot.clone(), self.number, self.ino);
        let begin = shared.clock.monotonic();
        let run = move || {
            self.deadline = self.deadline.not_counting(&*self.shared.clock, begin);
            self.run(Reach::Vault(line));
        };
        if let Err(error) = shared.vaults.send(line, Box::new(run)) {
            shared.done(number);
            shared.trouble.tell(ino, &error);
            refuse(&slot, error);
        }
    }
}
