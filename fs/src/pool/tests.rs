//! The pool on a clock of its own: nothing here waits for real time.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc;

use holdfast_store::clock::{ManualClock, SystemClock, Timestamp};
use holdfast_store::error::StoreError;

use super::*;

struct Probe(mpsc::Sender<Result<u32, FsError>>);

impl Reply for Probe {
    fn refuse(self, error: FsError) {
        self.0.send(Err(error)).unwrap();
    }
}

fn options(timeout: Duration) -> PoolOptions {
    PoolOptions { in_place: 0, local_threads: 1, vault_threads: 1, timeout }
}

fn ask(
    pool: &Pool,
    reach: Reach,
    ino: u64,
    work: impl FnOnce() -> Result<u32, FsError> + Send + 'static,
) -> mpsc::Receiver<Result<u32, FsError>> {
    let (sender, receiver) = mpsc::channel();
    pool.submit(
        reach,
        Caller { pid: 0, ino },
        Probe(sender),
        move |_| work(),
        |probe, value| probe.0.send(Ok(value)).unwrap(),
    );
    receiver
}

#[test]
fn answers_and_errors_come_back() {
    let pool = Pool::start(options(Duration::from_secs(60)), Arc::new(SystemClock)).unwrap();
    assert_eq!(ask(&pool, Reach::Local, 1, || Ok(7)).recv().unwrap().unwrap(), 7);
    let error = ask(&pool, Reach::Vault, 1, || Err(FsError::Stale)).recv().unwrap().unwrap_err();
    assert!(matches!(error, FsError::Stale));
    assert_eq!(pool.pending(), 0);
}

#[test]
fn a_panic_is_an_error_and_the_thread_lives_on() {
    let pool = Pool::start(options(Duration::from_secs(60)), Arc::new(SystemClock)).unwrap();
    let error =
        ask(&pool, Reach::Local, 1, || std::panic::panic_any("on purpose")).recv().unwrap().unwrap_err();
    assert!(matches!(error, FsError::Bug));
    assert_eq!(ask(&pool, Reach::Local, 1, || Ok(1)).recv().unwrap().unwrap(), 1);
}

#[test]
fn a_request_that_hangs_is_refused_at_its_deadline_and_so_is_what_queues_behind_it() {
    let clock = ManualClock::at(Timestamp::from_seconds(0));
    let pool = Pool::start(options(Duration::from_secs(30)), Arc::new(clock.clone())).unwrap();
    let (release, hang) = mpsc::channel::<()>();
    let first = ask(&pool, Reach::Vault, 1, move || {
        let _ = hang.recv();
        Ok(1)
    });
    let second = ask(&pool, Reach::Vault, 2, || Ok(2));
    assert!(matches!(first.recv().unwrap(), Err(FsError::Late)));
    assert!(matches!(second.recv().unwrap(), Err(FsError::Late)));
    assert!(clock.monotonic() >= Duration::from_secs(30));
    drop(release);
}

#[test]
fn a_hanging_vault_does_not_hold_up_what_is_local() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let (release, hang) = mpsc::channel::<()>();
    let slow = ask(&pool, Reach::Vault, 1, move || {
        let _ = hang.recv();
        Ok(1)
    });
    assert_eq!(ask(&pool, Reach::Local, 2, || Ok(2)).recv().unwrap().unwrap(), 2);
    drop(release);
    assert_eq!(slow.recv().unwrap().unwrap(), 1);
}

#[test]
fn a_caller_works_in_place_while_another_stays_free_and_is_answered_for_when_late() {
    let clock = ManualClock::at(Timestamp::from_seconds(0));
    let options = PoolOptions { in_place: 1, ..options(Duration::from_secs(30)) };
    let pool = Pool::start(options, Arc::new(clock)).unwrap();
    let thread =
        || Ok(u32::from(thread::current().name().is_some_and(|name| name.contains("holdfast-local"))));
    assert_eq!(ask(&pool, Reach::Local, 1, thread).recv().unwrap().unwrap(), 0, "on this thread");
    let (release, hang) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    thread::scope(|scope| {
        let pool = &pool;
        let stuck = scope.spawn(move || {
            let answer = ask(pool, Reach::Local, 2, move || {
                begun.send(()).unwrap();
                let _ = hang.recv();
                Ok(1)
            });
            answer.recv().unwrap()
        });
        begins.recv().unwrap();
        let (sender, other) = mpsc::channel();
        pool.submit(
            Reach::Local,
            Caller { pid: 0, ino: 3 },
            Probe(sender),
            move |_| thread(),
            |probe, n| {
                let _ = probe.0.send(Ok(n));
            },
        );
        // The clock is nobody's but the watchman's, who may come first here too.
        assert!(matches!(other.recv().unwrap(), Ok(1) | Err(FsError::Late)), "not on the caller's thread");
        while pool.pending() > 0 {
            thread::yield_now();
        }
        drop(release);
        assert!(matches!(stuck.join().unwrap(), Err(FsError::Late)));
    });
    assert!(pool.in_place.take().is_some(), "the permit came back");
}

#[test]
fn a_node_that_was_late_is_refused_at_once_for_a_moment() {
    let clock = ManualClock::at(Timestamp::from_seconds(0));
    let pool = Pool::start(options(Duration::from_secs(30)), Arc::new(clock.clone())).unwrap();
    let (release, hang) = mpsc::channel::<()>();
    let late = ask(&pool, Reach::Vault, 1, move || {
        let _ = hang.recv();
        Ok(1)
    });
    assert!(late.recv().unwrap().is_err());
    assert!(matches!(ask(&pool, Reach::Vault, 1, || Ok(1)).recv().unwrap(), Err(FsError::Tripped)));
    assert!(!pool.shared.is_tripped(1, Reach::Local), "what lies on this machine is answered");
    drop(release);
    assert!(!pool.shared.is_tripped(2, Reach::Vault));
    clock.advance(TRIPPED_FOR);
    assert!(!pool.shared.is_tripped(1, Reach::Vault));
}

#[test]
fn a_node_is_troubled_for_the_log_once_however_often_its_pages_are_asked_for() {
    let clock = ManualClock::at(Timestamp::from_seconds(0));
    let pool = Pool::start(options(Duration::from_secs(30)), Arc::new(clock.clone())).unwrap();
    let away = |n: u32| FsError::Store(StoreError::Timeout { what: format!("block {n}") });
    let damage = |n: u32| FsError::Store(StoreError::corrupt(format!("frame {n}"), "seal"));
    let news = |ino, error: &FsError| pool.shared.is_news(ino, error);
    assert!(news(1, &away(1)) && !news(1, &away(2)) && !news(1, &FsError::Late), "one outage");
    assert!(news(2, &away(1)), "of another node");
    assert!(news(1, &damage(1)) && news(1, &damage(2)) && !news(1, &damage(1)), "each damage");
    clock.advance(TOLD_FOR);
    assert!(news(1, &away(3)));
}

#[test]
fn work_gives_up_before_the_watchman_does() {
    let clock = ManualClock::at(Timestamp::from_seconds(0));
    for timeout in [Duration::from_secs(60), Duration::from_millis(100)] {
        let pool = Pool::start(options(timeout), Arc::new(clock.clone())).unwrap();
        assert!(pool.shared.patience() < timeout && pool.shared.patience() >= timeout * 9 / 10);
    }
}

#[test]
fn a_node_that_cannot_be_had_is_not_asked_again_for_a_moment_but_damage_is() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let unavailable = || Err(FsError::Store(StoreError::Timeout { what: "vault".into() }));
    assert!(matches!(ask(&pool, Reach::Vault, 1, unavailable).recv().unwrap(), Err(FsError::Store(_))));
    assert!(matches!(ask(&pool, Reach::Vault, 1, || Ok(1)).recv().unwrap(), Err(FsError::Tripped)));
    let damaged = || Err(FsError::Store(StoreError::corrupt("pack", "seal")));
    assert!(ask(&pool, Reach::Vault, 2, damaged).recv().unwrap().is_err());
    assert_eq!(ask(&pool, Reach::Vault, 2, || Ok(2)).recv().unwrap().unwrap(), 2);
}

#[test]
fn the_end_refuses_what_waits_and_what_comes() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let (release, hang) = mpsc::channel::<()>();
    let waiting = ask(&pool, Reach::Vault, 1, move || {
        let _ = hang.recv();
        Ok(1)
    });
    pool.end();
    assert!(matches!(waiting.recv().unwrap(), Err(FsError::Ending)));
    assert!(matches!(ask(&pool, Reach::Local, 2, || Ok(1)).recv().unwrap(), Err(FsError::Ending)));
    drop(release);
}
