//! What becomes of the history while a daemon has it open: it may turn out to be damaged, and somebody may remove its file.

use holdfast_backup::ledger::{Ledger, LedgerError, Place};

use super::Daemon;

impl Daemon {
    /// Sees to it that what is put down can be seen by others, and by the next daemon.
    pub(super) fn see_to_ledger(&mut self) {
        match self.parts.ledger.place() {
            Place::Same => {}
            // It is not the file alone that went: the disk of the store did.
            Place::Empty if !self.parts.store.join("config").exists() => {}
            Place::Empty => {
                tracing::warn!("the file of the history (ledger.db) was removed: it is put back");
                if let Err(error) = self.parts.ledger.put_back() {
                    tracing::error!("{error}");
                    self.open_ledger();
                }
            }
            // Of jobs that run it knows nothing, and its numbers may be theirs.
            Place::Another if !self.active.is_empty() => {}
            Place::Another => {
                tracing::warn!(
                    "another file stands in the place of the history (ledger.db): it holds from now on"
                );
                self.open_ledger();
            }
        }
    }

    pub(super) fn ledger_failed(&mut self, error: &LedgerError) {
        tracing::error!("{error}");
        if error.is_damage() {
            self.open_ledger();
        }
    }

    fn open_ledger(&mut self) {
        match Ledger::open(&self.parts.store) {
            Ok((ledger, _)) => {
                self.parts.ledger = ledger;
                self.set_ways();
            }
            Err(error) => tracing::error!("{error}"),
        }
    }
}
