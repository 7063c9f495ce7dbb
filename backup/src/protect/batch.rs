//! Files that are read by one thread one after the other, so that what is new of them lies together.

use std::sync::{Condvar, Mutex, PoisonError};

use holdfast_store::tree::Node;

use crate::source::Found;

/// What came of a file.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was read.
    Read(Box<Node>),
    /// It was not, and trouble was told.
    Trouble,
    /// Nobody read it: its reader has ended.
    Abandoned,
}

/// Outcomes of a batch, for the thread that assembles directories.
#[derive(Debug, Default)]
pub(super) struct Batch {
    state: Mutex<Option<Vec<Outcome>>>,
    done: Condvar,
}

/// A batch on its way to a reader. Dropping it unread ends the waiting: its files are abandoned.
pub(super) struct BatchWork {
    pub(super) files: Vec<Found>,
    outcomes: Vec<Outcome>,
    batch: super::SharedBatch,
}

impl Batch {
    /// Waits for the outcome of the n-th file; each can be taken once.
    pub(super) fn take(&self, nth: usize) -> Outcome {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcomes) = state.as_mut() {
                let outcome = outcomes.get_mut(nth).map(|o| std::mem::replace(o, Outcome::Abandoned));
                return outcome.unwrap_or(Outcome::Abandoned);
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl BatchWork {
    pub(super) fn new(batch: super::SharedBatch) -> Self {
        Self { files: Vec::new(), outcomes: Vec::new(), batch }
    }

    pub(super) fn outcome(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }
}

impl Drop for BatchWork {
    fn drop(&mut self) {
        let mut state = self.batch.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = Some(std::mem::take(&mut self.outcomes));
        self.batch.done.notify_all();
    }
}
