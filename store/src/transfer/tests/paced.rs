//! Tests of uploads that keep to a pace: what they take, what they cost others, and that no time limit counts it.

use super::*;
use crate::pace::Limit;

const MIB: u64 = 1 << 20;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A bench whose uploads share a limit.
fn paced(bytes_per_second: u64, policy: TransferPolicy) -> Bench {
    let b = bench_with(policy);
    let limit = Limit { bytes_per_second: Some(bytes_per_second), until: None };
    b.transfer.pace_uploads(Pace::new(b.clock.clone(), move |_| limit));
    b
}

fn bytes(len: u64) -> Bytes {
    vec![7; len as usize].into()
}

/// Waits for what another thread does.
fn until(what: &str, done: impl Fn() -> bool) {
    let clock = crate::clock::SystemClock;
    let end = clock.monotonic() + seconds(20);
    while !done() {
        assert!(clock.monotonic() < end, "{what}");
        std::thread::yield_now();
    }
}

fn about(took: Duration, seconds: f64) {
    let part = took.as_secs_f64() / seconds;
    assert!((0.95..=1.05).contains(&part), "{took:?} and not {seconds} s");
}

#[test]
fn an_upload_takes_as_long_as_its_bytes_at_the_limit_and_a_second_try_as_long_again() {
    let b = paced(MIB, TransferPolicy::default());
    b.transfer.put_new(&name("pack/ab/a"), bytes(20 * MIB)).unwrap();
    about(b.clock.monotonic(), 20.0);
    let before = b.clock.monotonic();
    b.faulty.forget();
    b.faulty.fail(Verb::Put, 1, Fault::FailAfter);
    b.transfer.put_new(&name("pack/ab/b"), bytes(20 * MIB)).unwrap();
    about(b.clock.monotonic() - before, 40.0);
    assert_eq!((b.faulty.count(Verb::Put), b.transfer.stats().bytes_up), (2, 60 * MIB));
}

#[test]
fn reading_asking_and_listing_wait_for_no_upload() {
    let b = paced(1, TransferPolicy::default());
    b.memory.replace(&name("a"), body());
    b.transfer.get(&name("a"), 100).unwrap();
    b.transfer.list_all("").unwrap();
    b.transfer.delete(&name("a")).unwrap();
    assert_eq!(b.clock.monotonic(), Duration::ZERO);
}

#[test]
fn no_time_limit_counts_what_the_pace_makes_an_upload_wait() {
    // Half an hour for an object that must be there after 60 s and the time that a slow line takes.
    let policy = TransferPolicy { bytes_per_second_min: MIB, ..TransferPolicy::default() };
    let b = paced(16 << 10, policy);
    b.faulty.fail(Verb::Put, 1, Fault::FailAfter);
    b.faulty.fail(Verb::Put, 2, Fault::FailBefore);
    b.transfer.put_new(&name("pack/ab/x"), bytes(30 * MIB)).unwrap();
    // The first try had all of it sent, so did the third.
    about(b.clock.monotonic(), 2.0 * 1920.0);
    assert_eq!(b.transfer.stats().puts, 3, "the budget for tries counts it neither");
}

#[test]
fn a_vault_that_hangs_is_given_up_as_soon_as_ever() {
    let time = |pace: bool| {
        let b = match pace {
            true => paced(MIB, TransferPolicy::default()),
            false => bench(),
        };
        b.faulty.fail_from(Verb::Put, 1, Fault::Hang(seconds(61)));
        assert!(matches!(b.transfer.put_new(&name("pack/ab/x"), body()), Err(VaultError::Timeout)));
        b.clock.monotonic()
    };
    let (with, without) = (time(true), time(false));
    assert!(with <= without + seconds(62), "{with:?}, and without a pace {without:?}");
}

#[test]
fn an_upload_that_waits_is_cancelled_at_once() {
    let clock = Arc::new(crate::clock::SystemClock);
    let memory = Arc::new(MemoryVault::new());
    let transfer = Transfer::new(memory.clone(), clock.clone(), TransferPolicy::default()).unwrap();
    transfer.pace_uploads(Pace::new(clock.clone(), |_| Limit { bytes_per_second: Some(1), until: None }));
    std::thread::scope(|scope| {
        let waiting = [(); 3].map(|()| scope.spawn(|| transfer.put_new(&name("pack/ab/x"), bytes(MIB))));
        let begin = clock.monotonic();
        transfer.cancel();
        for waiting in waiting {
            assert!(matches!(waiting.join().unwrap(), Err(VaultError::Cancelled)));
        }
        assert!(clock.monotonic() - begin < seconds(5));
    });
    assert!(memory.names().is_empty());
}

#[test]
fn a_directory_is_written_at_the_limit_and_what_was_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let transfer = |clock: Arc<dyn Clock>, rate| {
        let vault = Arc::new(DirectoryVault::new(dir.path()));
        let transfer = Transfer::new(vault, clock.clone(), TransferPolicy::default()).unwrap();
        transfer.pace_uploads(Pace::new(clock, move |_| Limit { bytes_per_second: Some(rate), until: None }));
        transfer
    };
    let there = transfer(clock.clone(), MIB);
    there.prepare().unwrap();
    let noise: Bytes = (0..3 * MIB).map(|n| (n / 7) as u8).collect();
    assert!(!there.put_new(&name("pack/ab/x"), noise.clone()).unwrap().already());
    about(clock.monotonic(), 3.0);
    assert_eq!(there.get(&name("pack/ab/x"), 4 * MIB).unwrap(), noise);
    assert!(there.put_new(&name("pack/ab/x"), noise.clone()).unwrap().already());
    about(clock.monotonic(), 3.0);

    let unfinished = || dir.path().join(".tmp").read_dir().unwrap().count();
    assert_eq!(unfinished(), 0);
    let slow = transfer(Arc::new(crate::clock::SystemClock), 1000);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| slow.put_new(&name("pack/ab/y"), noise.clone()));
        until("it begins", || unfinished() > 0);
        slow.cancel();
        assert!(matches!(waiting.join().unwrap(), Err(VaultError::Cancelled)));
        // A piece that is being written is written to its end.
        until("nothing is left", || unfinished() == 0);
    });
    assert_eq!(there.stat(&name("pack/ab/y")).unwrap(), None);
}
