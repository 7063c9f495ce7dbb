//! Tests of the border: what each outcome of a request leads to, with a manual clock, so that hours of waiting take no time.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::clock::{ManualClock, Timestamp, Waiting};
use crate::vault::PutNew;
use crate::vault::directory::DirectoryVault;
use crate::vault::memory::MemoryVault;
use crate::vault::testing::{Fault, FaultyVault, Verb};

mod listing;
mod paced;
mod throttled;

struct Bench {
    memory: Arc<MemoryVault>,
    faulty: Arc<FaultyVault>,
    clock: Arc<ManualClock>,
    transfer: Arc<Transfer>,
}

fn bench() -> Bench {
    bench_with(TransferPolicy::default())
}

fn bench_with(policy: TransferPolicy) -> Bench {
    let memory = Arc::new(MemoryVault::with_page_len(3));
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let faulty = Arc::new(FaultyVault::new(memory.clone(), clock.clone()));
    let transfer = Transfer::new(faulty.clone(), clock.clone(), policy).unwrap();
    Bench { memory, faulty, clock, transfer }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn body() -> Bytes {
    Bytes::from_static(b"the bytes of an object")
}

#[test]
fn a_clean_put_costs_one_put_and_one_stat() {
    let b = bench();
    let receipt = b.transfer.put_new(&name("pack/ab/x"), body()).unwrap();
    assert_eq!((receipt.name(), receipt.len(), receipt.already()), (&name("pack/ab/x"), 22, false));
    let stats = TransferStats { puts: 1, stats: 1, bytes_up: 22, ..TransferStats::default() };
    assert_eq!(b.transfer.stats(), stats);
}

#[test]
fn a_pack_that_is_there_already_is_believed_by_its_length() {
    let b = bench();
    b.transfer.put_new(&name("pack/ab/x"), body()).unwrap();
    b.faulty.forget();
    assert!(b.transfer.put_new(&name("pack/ab/x"), body()).unwrap().already());
    assert_eq!((b.faulty.count(Verb::Put), b.faulty.count(Verb::Stat), b.faulty.count(Verb::Get)), (1, 1, 0));
}

#[test]
fn a_pack_of_another_length_is_a_conflict() {
    let b = bench();
    b.memory.replace(&name("pack/ab/x"), Bytes::from_static(b"short"));
    let error = b.transfer.put_new(&name("pack/ab/x"), body()).unwrap_err();
    assert!(matches!(&error, VaultError::Conflict { what, .. } if what == "pack/ab/x"), "{error}");
}

#[test]
fn a_pack_put_in_doubt_is_read_back() {
    let b = bench();
    b.faulty.fail(Verb::Put, 1, Fault::FailAfter);
    assert!(b.transfer.put_new(&name("idx/x"), body()).unwrap().already());
    assert_eq!(b.faulty.count(Verb::Get), 1);
    // The same with a bit flipped on its way to a vault that keeps no checksums.
    b.faulty.heal();
    b.faulty.forget();
    b.faulty.fail(Verb::Put, 1, Fault::Flip);
    b.faulty.fail(Verb::Put, 2, Fault::FailBefore);
    b.transfer.put_new(&name("idx/y"), body()).unwrap();
    let error = b.transfer.put_new(&name("idx/y"), body()).unwrap_err();
    assert!(matches!(error, VaultError::Conflict { .. }), "{error}");
}

#[test]
fn other_names_are_compared_whole() {
    let b = bench();
    b.transfer.put_new(&name("rp/a/b"), body()).unwrap();
    assert!(b.transfer.put_new(&name("rp/a/b"), body()).unwrap().already());
    assert_eq!(b.faulty.count(Verb::Get), 1);
    let other = Bytes::from_static(b"THE BYTES OF AN OBJECT");
    assert!(matches!(b.transfer.put_new(&name("rp/a/b"), other), Err(VaultError::Conflict { .. })));
    b.transfer.put_new(&name("rp/a/empty"), Bytes::new()).unwrap();
    assert!(b.transfer.put_new(&name("rp/a/empty"), Bytes::new()).unwrap().already());
}

#[test]
fn no_receipt_is_given_for_an_object_of_the_wrong_length() {
    let b = bench();
    b.faulty.fail(Verb::Put, 1, Fault::Short);
    assert!(matches!(b.transfer.put_new(&name("pack/ab/x"), body()), Err(VaultError::Conflict { .. })));
}

#[test]
fn whatever_request_fails_once_the_work_gets_through() {
    type Work = fn(&Bench);
    let all: [(&str, Work); 6] = [
        ("put", |b| assert_eq!(b.transfer.put_new(&name("rp/a/new"), body()).unwrap().len(), 22)),
        ("get", |b| assert_eq!(b.transfer.get(&name("old/1"), 22).unwrap(), body())),
        ("list", |b| assert_eq!(b.transfer.list_all("old/").unwrap().len(), 7)),
        ("delete", |b| assert!(b.transfer.delete(&name("old/1")).unwrap())),
        ("prepare", |b| b.transfer.prepare().unwrap()),
        ("probe", |b| assert!(b.transfer.probe().unwrap().may_delete)),
    ];
    for (what, work) in all {
        for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Hang(Duration::from_secs(70))] {
            let mut nth = 1;
            loop {
                let b = bench();
                (0..7).for_each(|i| b.memory.replace(&name(&format!("old/{i}")), body()));
                b.faulty.fail_any(nth, fault);
                work(&b);
                if b.transfer.stats().retries == 0 {
                    break;
                }
                assert_eq!(b.transfer.stats().retries, 1, "{what} {nth} {fault:?}");
                nth += 1;
            }
            assert!(nth > 1, "{what}: no request was made");
        }
    }
}

#[test]
fn what_can_never_work_is_not_tried_again() {
    for fault in [Fault::Deny, Fault::Full] {
        let b = bench();
        b.faulty.fail_from(Verb::Put, 1, fault);
        assert!(b.transfer.put_new(&name("a"), body()).is_err());
        assert_eq!(b.transfer.stats().retries, 0, "{fault:?}");
    }
    let b = bench();
    assert!(matches!(b.transfer.get(&name("a"), 10), Err(VaultError::NotFound { .. })));
    b.transfer.put_new(&name("a"), body()).unwrap();
    assert!(matches!(
        b.transfer.get_range(&name("a"), 20..23, Deadline::NEVER),
        Err(VaultError::TooShort { .. })
    ));
    assert!(matches!(b.transfer.get(&name("a"), 21), Err(VaultError::Invalid { .. })));
    assert_eq!(b.transfer.stats().retries, 0);
}

#[test]
fn a_vault_that_stays_away_is_given_up_after_the_budget() {
    let b = bench();
    b.faulty.fail_any_from(1, Fault::FailBefore);
    assert!(matches!(b.transfer.stat(&name("a")), Err(VaultError::Unavailable { .. })));
    let waited = b.clock.monotonic();
    assert!((200..=300).contains(&waited.as_secs()), "{waited:?}");
    let tries = b.transfer.stats().stats;
    assert!((10..40).contains(&tries), "{tries} tries");
}

#[test]
fn whoever_has_a_deadline_is_not_kept_waiting_when_the_vault_is_back() {
    let b = bench();
    b.faulty.fail_any_from(1, Fault::FailBefore);
    let (begin, minute) = (b.clock.monotonic(), Duration::from_secs(60));
    let deadline = Deadline::after(b.clock.as_ref(), minute);
    assert!(b.transfer.get_range(&name("a"), 0..1, deadline).is_err());
    let (took, tries) = (b.clock.monotonic() - begin, b.transfer.stats().gets);
    assert!(took > minute - Duration::from_secs(3), "given up after {took:?}");
    assert!((30..80).contains(&tries), "{tries} tries in {took:?}");
}

#[test]
fn a_deadline_ends_a_read_that_would_be_tried_again() {
    let b = bench();
    b.transfer.put_new(&name("a"), body()).unwrap();
    b.faulty.fail_from(Verb::Get, 1, Fault::FailBefore);
    let deadline = Deadline::after(b.clock.as_ref(), Duration::from_secs(5));
    assert!(matches!(b.transfer.get_range(&name("a"), 0..1, deadline), Err(VaultError::Unavailable { .. })));
    assert!(b.clock.monotonic().as_secs() < 5);
    b.clock.advance(Duration::from_secs(5));
    let tries = b.transfer.stats().gets;
    assert!(matches!(b.transfer.get_range(&name("a"), 0..1, deadline), Err(VaultError::Timeout)));
    assert_eq!(b.transfer.stats().gets, tries, "nothing is asked after the deadline");
}

#[test]
fn a_limit_grows_with_the_bytes_so_that_slow_lines_finish() {
    let half_an_hour = Duration::from_secs(1800);
    let large = Bytes::from(vec![0; 32 << 20]);
    let b = bench();
    b.faulty.fail(Verb::Put, 1, Fault::Hang(half_an_hour));
    // 32 MiB at 16 KiB/s are 2048 s: the first try has not used its time, and nobody ends it but the caller.
    std::thread::scope(|scope| {
        let put = scope.spawn(|| b.transfer.put_new(&name("pack/ab/x"), large));
        while b.clock.monotonic() < half_an_hour {
            std::thread::yield_now();
        }
        assert_eq!(b.transfer.stats().retries, 0);
        b.clock.advance(Duration::from_secs(400));
        assert!(!put.join().unwrap().unwrap().already());
    });
    assert_eq!(b.transfer.stats().retries, 1);
}

#[test]
fn short_answers_are_wrong_answers_and_asked_again() {
    let b = bench();
    b.transfer.put_new(&name("a"), body()).unwrap();
    b.faulty.fail(Verb::Get, 1, Fault::Short);
    assert_eq!(b.transfer.get_range(&name("a"), 4..9, Deadline::NEVER).unwrap(), "bytes");
    assert_eq!((b.transfer.stats().gets, b.transfer.stats().bytes_down), (2, 5));
}

#[test]
fn a_range_that_ends_before_it_starts_is_an_error_not_a_panic() {
    let b = bench();
    b.transfer.put_new(&name("a"), body()).unwrap();
    let (start, end) = (5, 2);
    assert!(matches!(
        b.transfer.get_range(&name("a"), start..end, Deadline::NEVER),
        Err(VaultError::Invalid { .. })
    ));
}

#[test]
fn many_ranges_come_back_in_order_each_with_its_own_outcome() {
    let b = bench();
    b.transfer.put_new(&name("a"), body()).unwrap();
    b.faulty.fail(Verb::Get, 3, Fault::FailBefore);
    let mut wanted: Vec<_> = (0..22).map(|i| (name("a"), i..i + 1)).collect();
    wanted.push((name("none"), 0..1));
    let answers = b.transfer.get_many(wanted, Deadline::NEVER);
    for (at, answer) in answers.iter().take(22).enumerate() {
        assert_eq!(answer.as_ref().unwrap()[..], body()[at..=at]);
    }
    assert!(matches!(answers[22], Err(VaultError::NotFound { .. })));
    assert!(b.transfer.get_many(Vec::new(), Deadline::NEVER).is_empty());
}

#[test]
fn cancelling_ends_what_is_under_way_and_what_comes_later() {
    let b = bench();
    b.faulty.fail(Verb::Put, 1, Fault::Hang(Duration::ZERO));
    std::thread::scope(|scope| {
        let put = scope.spawn(|| b.transfer.put_new(&name("a"), body()));
        while b.faulty.count(Verb::Put) == 0 {
            std::thread::yield_now();
        }
        b.transfer.cancel();
        assert!(matches!(put.join().unwrap(), Err(VaultError::Cancelled)));
    });
    assert!(matches!(b.transfer.stat(&name("a")), Err(VaultError::Cancelled)));
    assert_eq!(b.faulty.count(Verb::Stat), 0);
}

#[test]
fn a_read_that_nobody_waits_for_any_more_ends_and_so_does_its_turn() {
    let b = bench_with(TransferPolicy { concurrency: 1, ..TransferPolicy::default() });
    b.memory.replace(&name("a"), body());
    b.faulty.fail(Verb::Get, 1, Fault::Hang(Duration::ZERO));
    let (asks, queues) = (Waiting::begin(), Waiting::begin());
    std::thread::scope(|scope| {
        let read = |waiting: &Waiting| {
            let (transfer, deadline) = (b.transfer.clone(), Deadline::NEVER.of(waiting));
            scope.spawn(move || transfer.get_range(&name("a"), 0..9, deadline))
        };
        let hanging = read(&asks);
        while b.faulty.count(Verb::Get) == 0 {
            std::thread::yield_now();
        }
        let queued = read(&queues);
        drop(queues);
        assert!(matches!(queued.join().unwrap(), Err(VaultError::Cancelled | VaultError::Timeout)));
        drop(asks);
        assert!(matches!(hanging.join().unwrap(), Err(VaultError::Cancelled)));
    });
    assert_eq!(b.faulty.count(Verb::Get), 1);
    assert!(b.transfer.get_range(&name("a"), 0..9, Deadline::NEVER).is_ok(), "the only turn is free");
}

#[test]
fn no_more_requests_run_at_once_than_the_policy_says() {
    let century = Duration::from_secs(100 * 365 * 86_400);
    let b = bench_with(TransferPolicy { concurrency: 2, retry_budget: century, ..TransferPolicy::default() });
    b.memory.replace(&name("a"), body());
    for nth in 1..=5 {
        b.faulty.fail(Verb::Get, nth, Fault::Hang(Duration::ZERO));
    }
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| b.transfer.get_many(vec![(name("a"), 0..1); 5], Deadline::NEVER));
        // While the clock stands still they hang, as many as may.
        while b.faulty.count(Verb::Get) < 2 {
            std::thread::yield_now();
        }
        while !reads.is_finished() {
            b.clock.advance(Duration::from_secs(1));
            std::thread::yield_now();
        }
        assert!(reads.join().unwrap().iter().all(Result::is_ok));
    });
    assert_eq!(b.faulty.most_at_once(), 2);
}

#[test]
fn a_read_does_not_wait_behind_uploads() {
    let century = Duration::from_secs(100 * 365 * 86_400);
    let b =
        &bench_with(TransferPolicy { concurrency: 2, request_limit: century, ..TransferPolicy::default() });
    b.memory.replace(&name("a"), body());
    b.faulty.fail_from(Verb::Put, 1, Fault::Hang(Duration::ZERO));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| b.transfer.put_new(&name("pack/x"), body()).unwrap_err());
        }
        while b.faulty.count(Verb::Put) == 0 {
            std::thread::yield_now();
        }
        let deadline = Deadline::after(b.clock.as_ref(), Duration::from_secs(1000));
        let read = scope.spawn(move || {
            (0..3).map(|_| b.transfer.get_range(&name("a"), 0..1, deadline).is_ok()).collect()
        });
        while !read.is_finished() {
            b.clock.advance(Duration::from_millis(1));
            std::thread::yield_now();
        }
        let read: Vec<bool> = read.join().unwrap();
        b.transfer.cancel();
        assert_eq!((read, b.faulty.count(Verb::Put)), (vec![true; 3], 1));
    });
}

#[test]
fn a_probe_names_the_promise_that_a_vault_breaks() {
    #[derive(Debug)]
    struct Replacing(MemoryVault, PutNew);

    #[async_trait::async_trait]
    impl Vault for Replacing {
        fn address(&self) -> String {
            "replacing".into()
        }
        async fn prepare(&self) -> Result<(), VaultError> {
            Ok(())
        }
        async fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<PutNew, VaultError> {
            self.0.replace(name, body);
            Ok(self.1)
        }
        async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, VaultError> {
            self.0.get_range(name, range).await
        }
        async fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
            self.0.stat(name).await
        }
        async fn list(&self, prefix: &str, from: Option<&str>) -> Result<crate::vault::ListPage, VaultError> {
            self.0.list(prefix, from).await
        }
        async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
            self.0.delete(name).await
        }
        async fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<bool, VaultError> {
            self.0.delete_exactly(name, bytes).await
        }
    }

    let changes = "a put of an object that exists changes nothing";
    // It is told though it is said to have been there.
    for says in [PutNew::Created, PutNew::AlreadyThere] {
        let vault = Arc::new(Replacing(MemoryVault::new(), says));
        let clock = Arc::new(ManualClock::at(Timestamp::default()));
        let transfer = Transfer::new(vault.clone(), clock, TransferPolicy::default()).unwrap();
        let error = transfer.probe().unwrap_err();
        assert!(error.to_string().contains(changes), "{error}");
        assert!(vault.0.names().is_empty(), "the probe cleans up also then");
    }
    // And so is a put that is said to be done, and was not.
    let b = bench();
    b.faulty.fail(Verb::Put, 2, Fault::Ignore);
    assert!(b.transfer.probe().unwrap_err().to_string().contains(changes));

    let b = bench();
    // As long as what is put, and not it.
    b.memory.replace(&name("hb/another"), Bytes::from_static(b"holdfast probes this vault: other put"));
    b.faulty.fail(Verb::List, 1, Fault::Short);
    assert!(b.transfer.probe().unwrap_err().to_string().contains("is listed once it was put"));
    b.faulty.fail_from(Verb::Delete, 1, Fault::Deny);
    assert_eq!(b.transfer.probe().unwrap(), Probed { may_delete: false });
}

#[test]
fn a_directory_is_used_as_any_vault() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let vault = Arc::new(DirectoryVault::with_page_len(dir.path().join("v"), 2));
    let transfer = Transfer::new(vault, clock, TransferPolicy::default()).unwrap();
    assert!(matches!(transfer.put_new(&name("a"), body()), Err(VaultError::NotFound { .. })));
    transfer.prepare().unwrap();
    transfer.probe().unwrap();
    for i in 0..5 {
        transfer.put_new(&name(&format!("pack/{i}")), body()).unwrap();
    }
    assert_eq!(transfer.list_all("").unwrap().len(), 5);
    assert_eq!(transfer.stats().retries, 0);
}

#[test]
fn a_flag_that_is_raised_cancels_what_waits_for_a_vault() {
    let clock = Arc::new(crate::clock::SystemClock);
    let faulty = Arc::new(FaultyVault::new(Arc::new(MemoryVault::default()), clock.clone()));
    faulty.fail_from(Verb::Stat, 1, Fault::Hang(Duration::from_secs(1000)));
    let transfer = Transfer::new(faulty, clock, TransferPolicy::default()).unwrap();
    let asked = Arc::new(AtomicBool::new(false));
    transfer.cancel_when(asked.clone());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| transfer.stat(&name("a")));
        asked.store(true, Ordering::SeqCst);
        assert!(matches!(waiting.join().unwrap(), Err(VaultError::Cancelled)));
    });
    assert!(matches!(transfer.list_all(""), Err(VaultError::Cancelled)), "and what comes later");
}

#[test]
fn whoever_waits_is_told_why_once_it_is_no_hiccup_any_more() {
    for (failures, lines) in [(3, 0), (6, 3)] {
        let b = bench();
        b.transfer.put_new(&name("config"), body()).unwrap();
        b.faulty.forget();
        (1..=failures).for_each(|nth| b.faulty.fail(Verb::Get, nth, Fault::FailBefore));
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let teller = told.clone();
        b.transfer.tell_retries(move |error| teller.lock().unwrap().push(error.to_string()));
        assert_eq!(b.transfer.get(&name("config"), 100).unwrap(), body());
        assert_eq!(told.lock().unwrap().len(), lines, "{told:?}");
    }
}
