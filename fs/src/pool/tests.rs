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
    work: impl Fn() -> Result<u32, FsError> + Send + 'static,
) -> mpsc::Receiver<Result<u32, FsError>> {
    ask_as(pool, reach, Caller { pid: 0, ino }, move |_| work())
}

fn ask_as(
    pool: &Pool,
    reach: Reach,
    caller: Caller,
    work: impl Fn(Patience) -> Result<u32, FsError> + Send + 'static,
) -> mpsc::Receiver<Result<u32, FsError>> {
    let (sender, receiver) = mpsc::channel();
    pool.submit(reach, caller, Probe(sender), work, |probe, value| probe.0.send(Ok(value)).unwrap());
    receiver
}

/// What is taken to lie on this machine, and does not: the vault is asked for it by `vault`.
fn lost(
    vault: impl Fn() -> Result<u32, FsError> + Send + 'static,
) -> impl Fn(Patience) -> Result<u32, FsError> + Send + 'static {
    move |patience| match patience {
        Patience::Until(_) => vault(),
        _ => Err(FsError::Later(Reach::Vault)),
    }
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
        let submit = |ino, work: Box<dyn Fn() -> Result<u32, FsError> + Send>| {
            let (sender, answer) = mpsc::channel();
            let caller = Caller { pid: 0, ino };
            let reply = move |probe: Probe, n| drop(probe.0.send(Ok(n)));
            (answer, move || pool.submit(Reach::Local, caller, Probe(sender), move |_| work(), reply))
        };
        let (late, stuck) = submit(
            2,
            Box::new(move || {
                begun.send(()).unwrap();
                let _ = hang.recv();
                Ok(1)
            }),
        );
        scope.spawn(stuck);
        begins.recv().unwrap();
        let (other, pass_on) = submit(3, Box::new(thread));
        pass_on();
        // The clock is nobody's but the watchman's, who may come first here too.
        assert!(matches!(other.recv().unwrap(), Ok(1) | Err(FsError::Late)), "not on the caller's thread");
        assert!(matches!(late.recv().unwrap(), Err(FsError::Late)), "while it is stuck");
        drop(release);
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
    assert!(!pool.shared.trouble.is_tripped(1, Reach::Local), "what lies on this machine is answered");
    drop(release);
    assert!(!pool.shared.trouble.is_tripped(2, Reach::Vault));
    clock.advance(TRIPPED_FOR);
    assert!(!pool.shared.trouble.is_tripped(1, Reach::Vault));
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

#[test]
fn what_is_not_here_after_all_moves_on_and_does_not_hold_up_what_is() {
    for in_place in [0, 1] {
        let options = PoolOptions { in_place, ..options(Duration::from_secs(3600)) };
        let pool = Pool::start(options, Arc::new(SystemClock)).unwrap();
        let (release, hang) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let work = lost(move || {
            begun.send(()).unwrap();
            let _ = hang.recv();
            Ok(u32::from(thread::current().name().is_some_and(|name| name.contains("vault"))))
        });
        let moved = ask_as(&pool, Reach::Local, Caller { pid: 0, ino: 1 }, work);
        assert_eq!(ask(&pool, Reach::Local, 2, || Ok(2)).recv().unwrap().unwrap(), 2);
        begins.recv().unwrap();
        let reaches =
            |pool: &Pool| lock(&pool.shared.watched).pending.values().map(|p| p.reach).collect::<Vec<_>>();
        assert_eq!(reaches(&pool), [Reach::Vault], "if it is late, then there");
        drop(release);
        assert_eq!(moved.recv().unwrap().unwrap(), 1, "answered by the other lane");
    }
}

#[test]
fn what_moves_on_is_refused_at_once_where_the_vault_was_late_a_moment_ago() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let caller = Caller { pid: 0, ino: 1 };
    let away = || Err(FsError::Store(StoreError::Timeout { what: "vault".into() }));
    let ask = || ask_as(&pool, Reach::Local, caller, lost(away)).recv().unwrap();
    assert!(matches!(ask(), Err(FsError::Store(_))));
    assert!(!pool.shared.trouble.is_tripped(1, Reach::Local));
    assert!(matches!(ask(), Err(FsError::Tripped)));
    assert_eq!(pool.pending(), 0);
}

/// Work that goes on as long as anybody waits for it.
fn as_long_as_wanted(patience: Patience) -> Result<u32, FsError> {
    let Patience::Until(deadline) = patience else { return Err(FsError::Bug) };
    while !deadline.is_given_up() {
        thread::yield_now();
    }
    Err(FsError::Store(StoreError::Cancelled))
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_reader_is_served_after_as_many_as_there_are_threads_were_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (years, clock) = (Duration::from_secs(1 << 32), Arc::new(ManualClock::default()));
    let options = PoolOptions { vault_threads: 16, ..options(years) };
    let pool = Pool::start_for(options, clock, Callers::sample(dir.path(), 5).unwrap()).unwrap();
    let killed: Vec<_> =
        (0..16).map(|ino| ask_as(&pool, Reach::Vault, Caller { pid: 5, ino }, as_long_as_wanted)).collect();
    for killed in killed {
        assert!(matches!(killed.recv_timeout(SOON).unwrap(), Err(FsError::Interrupted)));
    }
    for ino in [3, 99] {
        let next = ask_as(&pool, Reach::Vault, Caller { pid: 1, ino }, |_| Ok(7));
        assert_eq!(next.recv_timeout(SOON).unwrap().unwrap(), 7, "node {ino}, of which nothing was late");
    }
}

#[test]
fn work_for_whoever_was_refused_ends_with_the_pool() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let (ended, ends) = mpsc::channel();
    let refused = ask_as(&pool, Reach::Vault, Caller { pid: 0, ino: 1 }, move |patience| {
        ended.send(()).unwrap();
        let result = as_long_as_wanted(patience);
        ended.send(()).unwrap();
        result
    });
    ends.recv_timeout(SOON).unwrap();
    pool.end();
    assert!(matches!(refused.recv().unwrap(), Err(FsError::Ending)));
    ends.recv_timeout(SOON).unwrap();
}
