//! Tests of what a vault leads to that asks to be left alone: who waits how long, and what it is asked meanwhile.

use super::*;

/// As a service says that does not mean to come back.
const FOR_EVER: Fault = Fault::Busy(Duration::from_secs(100_000));

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Reads an object within so many seconds. How many it took, and whether there were bytes.
fn read_within(b: &Bench, allowance: u64) -> (Duration, Result<Bytes, VaultError>) {
    let (begin, deadline) = (b.clock.monotonic(), Deadline::after(b.clock.as_ref(), seconds(allowance)));
    let got = b.transfer.get_range(&name("a"), 0..22, deadline);
    (b.clock.monotonic() - begin, got)
}

fn bench_of_one() -> Bench {
    let b = bench_with(TransferPolicy { concurrency: 1, ..TransferPolicy::default() });
    b.memory.replace(&name("a"), body());
    b
}

#[test]
fn whoever_writes_or_lists_waits_as_asked_but_no_longer_than_two_minutes() {
    for (asked, waits) in [(100, 100), (1000, 120)] {
        let b = bench();
        b.faulty.fail(Verb::List, 1, Fault::Busy(seconds(asked)));
        b.transfer.list_all("pack/").unwrap();
        assert_eq!(b.clock.monotonic(), seconds(waits));
    }
    let b = bench();
    b.faulty.fail_any_from(1, FOR_EVER);
    assert!(b.transfer.put_new(&name("pack/ab/x"), body()).is_err());
    assert_eq!((b.clock.monotonic(), b.faulty.count(Verb::Put)), (seconds(240), 3), "within the budget");
}

#[test]
fn a_reader_has_his_bytes_when_the_vault_is_back_whatever_it_had_asked_for() {
    for (refusals, asked) in [(1, 20), (1, 100_000), (10, 20), (10, 100_000)] {
        let b = bench_of_one();
        (1..=refusals).for_each(|nth| b.faulty.fail(Verb::Get, nth, Fault::Busy(seconds(asked))));
        let (took, got) = read_within(&b, 60);
        assert_eq!(got.unwrap(), body());
        assert!(took <= seconds(refusals * 3), "{refusals} times {asked}: {took:?}");
    }
}

#[test]
fn who_reads_without_a_deadline_sees_every_two_seconds_too() {
    for read_whole in [false, true] {
        let b = bench_of_one();
        (1..=10).for_each(|nth| b.faulty.fail_any(nth, FOR_EVER));
        let got = match read_whole {
            true => b.transfer.get(&name("a"), 22),
            false => b.transfer.get_range(&name("a"), 0..22, Deadline::NEVER),
        };
        assert_eq!(got.unwrap(), body());
        let (asked, took) = (b.faulty.requests().len() as u64, b.clock.monotonic());
        assert!(took <= seconds(30) && asked <= 3 + took.as_secs() / 2, "{asked} in {took:?}");
    }
}

#[test]
fn every_reader_of_a_throttled_vault_waits_as_long_as_he_can_and_it_is_hardly_asked() {
    let b = bench_of_one();
    b.faulty.fail_any_from(1, FOR_EVER);
    for allowance in [60, 5, 5, 1, 5, 60] {
        let (took, got) = read_within(&b, allowance);
        assert!(got.unwrap_err().is_transient());
        assert!(took <= seconds(allowance) && took * 10 >= seconds(allowance * 6), "{allowance}: {took:?}");
    }
    let asked = b.faulty.count(Verb::Get);
    assert!(asked <= 2 + b.clock.monotonic().as_secs() / 2, "{asked} in {:?}", b.clock.monotonic());
    b.faulty.heal();
    let (took, got) = read_within(&b, 5);
    assert_eq!(got.unwrap(), body());
    assert!(took <= seconds(2), "{took:?}");
}

#[test]
fn many_who_wait_ask_no_more_than_one() {
    let b = bench_of_one();
    b.faulty.fail_any_from(1, FOR_EVER);
    let deadline = Deadline::after(b.clock.as_ref(), seconds(60));
    let answers = b.transfer.get_many(vec![(name("a"), 0..9); 40], deadline);
    assert!(answers.iter().all(Result::is_err));
    let (asked, took) = (b.faulty.count(Verb::Get), b.clock.monotonic());
    assert!(asked <= 2 + took.as_secs() / 2, "{asked} in {took:?}");
}

#[test]
fn a_look_that_succeeds_lets_all_through_who_wait() {
    let b = bench_of_one();
    b.faulty.fail(Verb::Get, 1, FOR_EVER);
    let deadline = Deadline::after(b.clock.as_ref(), seconds(60));
    let answers = b.transfer.get_many(vec![(name("a"), 0..9); 40], deadline);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    // An upload that comes now has nothing to wait for.
    let before = b.clock.monotonic();
    b.transfer.put_new(&name("pack/ab/x"), body()).unwrap();
    assert_eq!(b.clock.monotonic(), before);
}

#[test]
fn what_is_under_way_elsewhere_waits_as_well() {
    let b = bench_of_one();
    b.faulty.fail(Verb::Get, 1, Fault::Busy(seconds(30)));
    let (_, got) = read_within(&b, 1);
    assert!(got.is_err());
    let before = b.clock.monotonic();
    b.transfer.put_new(&name("pack/ab/x"), body()).unwrap();
    assert!(before + seconds(25) < b.clock.monotonic() && b.clock.monotonic() <= seconds(31));
    assert_eq!(b.transfer.stats().retries, 0, "it was not asked before");
}

#[test]
fn a_gate_is_left_at_once_by_whoever_is_told_to_stop() {
    let clock = Arc::new(crate::clock::SystemClock);
    let faulty = Arc::new(FaultyVault::new(Arc::new(MemoryVault::default()), clock.clone()));
    faulty.fail_from(Verb::Stat, 1, FOR_EVER);
    let transfer = Transfer::new(faulty.clone(), clock, TransferPolicy::default()).unwrap();
    std::thread::scope(|scope| {
        let waiting = [(); 2].map(|()| scope.spawn(|| transfer.stat(&name("a"))));
        while faulty.count(Verb::Stat) == 0 {
            std::thread::yield_now();
        }
        transfer.cancel();
        for waiting in waiting {
            assert!(matches!(waiting.join().unwrap(), Err(VaultError::Cancelled)));
        }
    });
}
