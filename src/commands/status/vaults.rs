//! Whether the vaults answer: each is asked for the length of its config, all at the same time, and within seconds it has answered or is away.
//!
//! The daemon looks more often than it asks them, for a question may cost something: then it says what it was told before.

use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use holdfast_store::catalog::VaultNo;
use holdfast_store::clock::{Clock, Deadline};
use holdfast_store::names;
use holdfast_store::transfer::Transfer;
use holdfast_store::vault::VaultError;
use serde::{Deserialize, Serialize};

use crate::settings::known_vaults;

/// How long all of them together may take.
const WITHIN: Duration = Duration::from_secs(5);

/// What came of asking a vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Its address.
    pub place: String,
    /// Why it cannot be used, if it cannot.
    pub trouble: Option<String>,
}

type Vaults = [(VaultNo, String, Arc<Transfer>)];
type Answer = Result<Option<u64>, VaultError>;

/// What each vault says, or said to the daemon. Those of which this process does not know how to open them are left out if `is_served`: the
/// daemon may know, as only it may have the credentials.
pub fn answers(vaults: &Vaults, clock: &dyn Clock, is_served: bool) -> Vec<Answered> {
    if let Some(known) = known_vaults().and_then(|text| serde_json::from_str(&text).ok()) {
        return known;
    }
    let counts =
        |(_, answer): &(&String, Answer)| !(is_served && matches!(answer, Err(VaultError::Invalid { .. })));
    let answered =
        |(place, answer): (&String, Answer)| Answered { place: place.clone(), trouble: trouble(answer) };
    ask(vaults, clock).into_iter().filter(counts).map(answered).collect()
}

fn ask<'a>(vaults: &'a Vaults, clock: &dyn Clock) -> Vec<(&'a String, Answer)> {
    let deadline = Deadline::after(clock, WITHIN);
    let question = |transfer: &'a Transfer| move || transfer.stat_by(&names::config(), deadline);
    thread::scope(|scope| {
        let begin = |(_, address, transfer): &'a (VaultNo, String, Arc<Transfer>)| {
            // Without a thread it is as if nobody had answered.
            (address, thread::Builder::new().spawn_scoped(scope, question(transfer)).ok())
        };
        let asked: Vec<_> = vaults.iter().map(begin).collect();
        let end = |asked: ScopedJoinHandle<'_, Answer>| asked.join().ok();
        asked
            .into_iter()
            .map(|(address, asked)| (address, asked.and_then(end).unwrap_or(Err(VaultError::Timeout))))
            .collect()
    })
}

fn trouble(answer: Answer) -> Option<String> {
    match answer {
        Ok(Some(_)) => None,
        Ok(None) => Some(VaultError::NotFound { what: "the store's config".to_owned() }.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use holdfast_store::clock::ManualClock;
    use holdfast_store::transfer::TransferPolicy;
    use holdfast_store::vault::memory::MemoryVault;
    use holdfast_store::vault::testing::{Fault, FaultyVault};
    use holdfast_store::vault::unaddressable::UnaddressableVault;
    use holdfast_store::vault::{Vault, Verb};

    use super::*;

    type Entry = (VaultNo, String, Arc<Transfer>);

    fn entry(no: i64, clock: &ManualClock, vault: Arc<dyn Vault>) -> Entry {
        let transfer = Transfer::new(vault, Arc::new(clock.clone()), TransferPolicy::default()).unwrap();
        (VaultNo(no), format!("/{no}"), transfer)
    }

    /// One that has a config, and fails like that from now on; with a clock of its own, which who waits moves.
    fn faulty(no: i64, fault: Option<Fault>) -> (Arc<FaultyVault>, ManualClock, Entry) {
        let clock = ManualClock::default();
        let vault = Arc::new(FaultyVault::new(Arc::new(MemoryVault::new()), Arc::new(clock.clone())));
        let entry = entry(no, &clock, Arc::clone(&vault) as _);
        entry.2.put_new(&names::config(), Bytes::from_static(b"config")).unwrap();
        vault.forget();
        fault.into_iter().for_each(|fault| vault.fail_any_from(1, fault));
        (vault, clock, entry)
    }

    #[test]
    fn a_vault_that_answers_costs_one_request_and_one_that_does_not_is_asked_for_seconds() {
        let hour = Duration::from_secs(3600);
        let (good, _, first) = faulty(1, None);
        let (_, busy, second) = faulty(2, Some(Fault::FailBefore));
        let mut entries = vec![first, second];
        for (no, fault) in [(3, Fault::Hang(hour)), (4, Fault::Deny), (5, Fault::Busy(hour))] {
            entries.push(faulty(no, Some(fault)).2);
        }
        let clock = ManualClock::default();
        entries.push(entry(6, &clock, Arc::new(MemoryVault::new())));
        entries.push(entry(7, &clock, Arc::new(UnaddressableVault::new("x", "no key"))));
        let asked = answers(&entries, &clock, false);
        let away: Vec<_> = asked.iter().map(|answered| answered.trouble.is_some()).collect();
        assert_eq!(away, [false, true, true, true, true, true, true], "{asked:?}");
        assert_eq!(asked[5].trouble.as_deref(), Some("the store's config not found"));
        let all: Vec<_> = good.requests().into_iter().map(|request| request.verb).collect();
        assert_eq!(all, [Verb::Stat]);
        assert!(busy.monotonic() <= WITHIN, "{:?}", busy.monotonic());
        let beside_a_daemon = answers(&entries, &clock, true);
        assert_eq!(beside_a_daemon.len(), 6, "it may have the key: {beside_a_daemon:?}");
    }
}
