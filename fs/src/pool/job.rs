//! One request: what a thread of a lane does with it.

use std::sync::{Arc, Mutex};

use holdfast_store::clock::Deadline;

use super::{Reply, Shared, guarded, lock, refuse, take};
use crate::error::FsError;
use crate::recovery::{Patience, Reach};

/// A request on its way to an answer.
pub(super) struct Job<R, W, A> {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
    pub(super) ino: u64,
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
            Reach::Vault => Patience::Until(self.deadline),
        };
        let result = guarded(|| (self.work)(patience));
        if reach == Reach::Local && matches!(result, Err(FsError::Later(_))) {
            return self.go_on();
        }
        self.shared.done(self.number);
        let Some(reply) = take(&self.slot) else { return };
        match result {
            Ok(value) => (self.answer)(reply, value),
            Err(error) => {
                self.shared.trouble.note(self.ino, reach, &error);
                reply.refuse(error);
            }
        }
    }

    /// What was taken to lie on this machine does not.
    fn go_on<T>(self)
    where
        W: Fn(Patience) -> Result<T, FsError> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        if self.shared.trouble.is_tripped(self.ino, Reach::Vault) {
            self.shared.done(self.number);
            refuse(&self.slot, FsError::Tripped);
        } else if self.shared.moved(self.number) {
            self.wait_for_vault();
        }
    }

    pub(super) fn wait_for_vault<T>(self)
    where
        W: Fn(Patience) -> Result<T, FsError> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        let lane = self.shared.vault.clone();
        let _ = lane.send(Box::new(move || self.run(Reach::Vault)));
    }
}
