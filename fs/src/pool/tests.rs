//! The pool on a clock of its own: nothing here waits for real time.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc;

use holdfast_store::catalog::VaultNo;
use holdfast_store::clock::{ManualClock, SystemClock, Timestamp};
use holdfast_store::error::StoreError;

use super::*;
use crate::recovery::Line;

struct Probe(mpsc::Sender<Result<u32, FsError>>);

impl Reply for Probe {
    fn refuse(self, error: FsError) {
        self.0.send(Err(error)).unwrap();
    }
}

const SOON: Duration = Duration::from_secs(20);

/// More than the watchman lets pass while a test lasts: he moves the clock as fast as he can.
const YEARS: Duration = Duration::from_secs(1 << 32);

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
        _ => Err(FsError::Later(Reach::VAULT)),
    }
}

#[test]
fn answers_and_errors_come_back() {
    let pool = Pool::start(options(Duration::from_secs(60)), Arc::new(SystemClock)).unwrap();
    assert_eq!(ask(&pool, Reach::Local, 1, || Ok(7)).recv().unwrap().unwrap(), 7);
    let error = ask(&pool, Reach::VAULT, 1, || Err(FsError::Stale)).recv().unwrap().unwrap_err();
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
    let pool = Pool::start(options(YEARS), Arc::new(clock.clone())).unwrap();
    let (first, release) = hang(&pool, Reach::VAULT, 1);
    let second = ask(&pool, Reach::VAULT, 2, || Ok(2));
    assert!(first.try_recv().is_err() && second.try_recv().is_err(), "not before it");
    clock.advance(YEARS);
    assert!(matches!(first.recv_timeout(SOON).unwrap(), Err(FsError::Late)));
    assert!(matches!(second.recv_timeout(SOON).unwrap(), Err(FsError::Late)));
    drop(release);
}

#[test]
fn a_hanging_vault_does_not_hold_up_what_is_local() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let (release, hang) = mpsc::channel::<()>();
    let slow = ask(&pool, Reach::VAULT, 1, move || {
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
    let options = PoolOptions { in_place: 1, ..options(YEARS) };
    let pool = Pool::start(options, Arc::new(clock.clone())).unwrap();
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
        assert_eq!(other.recv().unwrap().unwrap(), 1, "not on the caller's thread");
        clock.advance(YEARS);
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
    let late = ask(&pool, Reach::VAULT, 1, move || {
        let _ = hang.recv();
        Ok(1)
    });
    assert!(late.recv().unwrap().is_err());
    assert!(matches!(ask(&pool, Reach::VAULT, 1, || Ok(1)).recv().unwrap(), Err(FsError::Tripped)));
    assert!(!pool.shared.trouble.is_tripped(1, Reach::Local), "what lies on this machine is answered");
    drop(release);
    assert!(!pool.shared.trouble.is_tripped(2, Reach::VAULT));
    clock.advance(TRIPPED_FOR);
    assert!(!pool.shared.trouble.is_tripped(1, Reach::VAULT));
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
    assert!(matches!(ask(&pool, Reach::VAULT, 1, unavailable).recv().unwrap(), Err(FsError::Store(_))));
    assert!(matches!(ask(&pool, Reach::VAULT, 1, || Ok(1)).recv().unwrap(), Err(FsError::Tripped)));
    let damaged = || Err(FsError::Store(StoreError::corrupt("pack", "seal")));
    assert!(ask(&pool, Reach::VAULT, 2, damaged).recv().unwrap().is_err());
    assert_eq!(ask(&pool, Reach::VAULT, 2, || Ok(2)).recv().unwrap().unwrap(), 2);
}

#[test]
fn damage_that_a_vault_took_long_to_give_is_not_asked_for_again_at_once() {
    let clock = ManualClock::default();
    let pool = Pool::start(options(YEARS), Arc::new(clock.clone())).unwrap();
    for (ino, reach, takes, trips) in [
        (1, Reach::VAULT, YEARS / 4, false),
        (2, Reach::VAULT, YEARS / 3 * 2, true),
        (3, Reach::Local, YEARS / 3 * 2, false),
    ] {
        let clock = clock.clone();
        let damaged = ask(&pool, reach, ino, move || {
            clock.advance(takes);
            Err(FsError::Store(StoreError::corrupt("pack", "seal")))
        });
        assert!(matches!(damaged.recv_timeout(SOON).unwrap(), Err(FsError::Store(_))));
        assert_eq!(pool.shared.trouble.is_tripped(ino, Reach::VAULT), trips, "{ino}");
    }
}

#[test]
fn the_end_refuses_what_waits_and_what_comes() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let (release, hang) = mpsc::channel::<()>();
    let waiting = ask(&pool, Reach::VAULT, 1, move || {
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
        assert_eq!(reaches(&pool), [Reach::VAULT], "if it is late, then there");
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

#[test]
fn the_watchman_counts_for_the_log_what_a_minute_had_no_room_for() {
    let clock = ManualClock::at(Timestamp::from_seconds(0));
    let pool = Pool::start(options(Duration::from_secs(90)), Arc::new(clock)).unwrap();
    for n in 0..30 {
        pool.tell(n, &FsError::Store(StoreError::corrupt(format!("pack {n}"), "seal")));
    }
    assert_eq!(pool.shared.trouble.unsaid(), 10);
    let (release, hang) = mpsc::channel::<()>();
    let late = ask(&pool, Reach::VAULT, 99, move || {
        let _ = hang.recv();
        Ok(1)
    });
    assert!(matches!(late.recv().unwrap(), Err(FsError::Late)), "more than a minute later");
    assert_eq!(pool.shared.trouble.unsaid(), 0);
    drop(release);
}

/// Work that goes on as long as anybody waits for it.
fn as_long_as_wanted(patience: Patience) -> Result<u32, FsError> {
    let Patience::Until(deadline) = patience else { return Err(FsError::Bug) };
    while !deadline.is_given_up() {
        thread::yield_now();
    }
    Err(FsError::Store(StoreError::Cancelled))
}

#[test]
fn a_reader_is_served_after_as_many_as_there_are_threads_were_killed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let options = PoolOptions { vault_threads: 16, ..options(YEARS) };
    let callers = Callers::sample(dir.path(), 5).unwrap();
    let pool = Pool::start_for(options, clock, callers, VaultLanes::new(16)).unwrap();
    let killed: Vec<_> =
        (0..16).map(|ino| ask_as(&pool, Reach::VAULT, Caller { pid: 5, ino }, as_long_as_wanted)).collect();
    for killed in killed {
        assert!(matches!(killed.recv_timeout(SOON).unwrap(), Err(FsError::Interrupted)));
    }
    for ino in [3, 99] {
        let next = ask_as(&pool, Reach::VAULT, Caller { pid: 1, ino }, |_| Ok(7));
        assert_eq!(next.recv_timeout(SOON).unwrap().unwrap(), 7, "node {ino}, of which nothing was late");
    }
}

#[test]
fn work_for_whoever_was_refused_ends_with_the_pool() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let (ended, ends) = mpsc::channel();
    let refused = ask_as(&pool, Reach::VAULT, Caller { pid: 0, ino: 1 }, move |patience| {
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

fn line(vault: i64, is_page: bool) -> Reach {
    Reach::Vault(Line { vault: Some(VaultNo(vault)), is_page })
}

/// A request that stands in its lane until the sender is dropped, and has begun; and its answer.
fn hang(pool: &Pool, reach: Reach, ino: u64) -> (mpsc::Receiver<Result<u32, FsError>>, mpsc::Sender<()>) {
    let (release, hang) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let answer = ask(pool, reach, ino, move || {
        begun.send(()).unwrap();
        let _ = hang.recv();
        Ok(0)
    });
    begins.recv_timeout(SOON).unwrap();
    (answer, release)
}

#[test]
fn a_vault_that_hangs_holds_up_neither_another_nor_listings() {
    let options = PoolOptions { vault_threads: 8, ..options(Duration::from_secs(3600)) };
    let pool = Pool::start(options, Arc::new(SystemClock)).unwrap();
    let _held: Vec<_> = (0..6).map(|ino| hang(&pool, line(1, false), ino)).collect();
    let waits = ask(&pool, line(1, false), 50, || Ok(1));
    assert_eq!(ask(&pool, line(2, false), 51, || Ok(2)).recv_timeout(SOON).unwrap().unwrap(), 2);
    assert_eq!(ask(&pool, line(1, true), 52, || Ok(3)).recv_timeout(SOON).unwrap().unwrap(), 3);
    assert!(waits.try_recv().is_err(), "behind those that hang");
    drop(pool);
}

#[test]
fn pages_of_directories_go_before_contents_that_came_earlier() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let (_held, release) = hang(&pool, line(1, false), 1);
    let (order, ordered) = mpsc::channel();
    let asked = [(1, false), (2, false), (3, true)].map(|(n, is_page)| {
        let order = order.clone();
        ask(&pool, line(1, is_page), 1 + n, move || {
            order.send(n).unwrap();
            Ok(0)
        })
    });
    drop(release);
    let order: Vec<_> = (0..3).map(|_| ordered.recv_timeout(SOON).unwrap()).collect();
    assert_eq!(order, [3, 1, 2]);
    asked.iter().for_each(|answer| assert!(answer.recv_timeout(SOON).unwrap().is_ok()));
}

#[test]
fn however_many_walk_through_directories_who_reads_contents_comes_before_the_last_of_them() {
    let options = PoolOptions { vault_threads: 4, ..options(Duration::from_secs(3600)) };
    let pool = Pool::start(options, Arc::new(SystemClock)).unwrap();
    let (_first, released): (Vec<_>, Vec<_>) = (0..4).map(|ino| hang(&pool, line(1, true), ino)).unzip();
    let (release, hang) = crossbeam_channel::unbounded::<()>();
    let _walkers: Vec<_> = (10..30)
        .map(|ino| {
            let hang = hang.clone();
            ask(&pool, line(1, true), ino, move || Ok(u32::from(hang.recv().is_ok())))
        })
        .collect();
    let read = ask(&pool, line(1, false), 50, || Ok(1));
    drop(released);
    assert_eq!(read.recv_timeout(SOON).unwrap().unwrap(), 1, "while pages are in all other threads");
    drop(pool);
    drop(release);
}

#[test]
fn who_would_wait_for_a_thread_that_cannot_be_started_is_refused_at_once_but_not_for_ever() {
    let (dir, left) = (tempfile::tempdir().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (callers, lanes) = (Callers::sample(dir.path(), 5).unwrap(), VaultLanes::with_few(16, left.clone()));
    let options = options(Duration::from_secs(3600));
    let pool = Pool::start_for(options, Arc::new(SystemClock), callers, lanes).unwrap();
    let near = || ask_as(&pool, Reach::Local, Caller { pid: 0, ino: 1 }, lost(|| Ok(2)));
    for refused in [ask(&pool, line(1, false), 1, || Ok(1)), near()] {
        assert!(matches!(refused.recv_timeout(SOON).unwrap(), Err(FsError::NoThread(_))));
    }
    assert_eq!(pool.pending(), 0);
    left.store(1, Ordering::SeqCst);
    assert_eq!(ask(&pool, line(1, false), 1, || Ok(1)).recv_timeout(SOON).unwrap().unwrap(), 1);
    left.store(1, Ordering::SeqCst);
    assert_eq!(near().recv_timeout(SOON).unwrap().unwrap(), 2);
}

#[test]
fn what_lies_in_another_vault_too_moves_on_to_the_lane_of_that_but_not_for_ever() {
    let pool = Pool::start(options(Duration::from_secs(3600)), Arc::new(SystemClock)).unwrap();
    let _held = hang(&pool, line(1, false), 1);
    let caller = Caller { pid: 0, ino: 2 };
    let elsewhere = |patience| match patience {
        Patience::Of(VaultNo(3), _) => Ok(3),
        _ => Err(FsError::Later(line(3, false))),
    };
    assert_eq!(ask_as(&pool, line(2, false), caller, elsewhere).recv_timeout(SOON).unwrap().unwrap(), 3);
    let nowhere = |patience| match patience {
        Patience::Of(VaultNo(no), _) => Err(FsError::Later(line(5 - no, false))),
        _ => Ok(9),
    };
    assert_eq!(ask_as(&pool, line(2, false), caller, nowhere).recv_timeout(SOON).unwrap().unwrap(), 9);
    drop(pool);
}

#[test]
fn who_stood_in_the_queue_is_not_in_more_of_a_hurry_than_who_did_not() {
    let clock = Arc::new(ManualClock::default());
    let dir = tempfile::tempdir().unwrap();
    let callers = Callers::sample(dir.path(), 5).unwrap();
    let pool = Pool::start_for(options(YEARS), clock.clone(), callers, VaultLanes::new(1)).unwrap();
    let (_held, release) = hang(&pool, line(1, false), 1);
    let (own, caller) = (clock.clone(), Caller { pid: 0, ino: 2 });
    let queued = ask_as(&pool, line(1, false), caller, move |patience| match patience {
        Patience::Of(_, deadline) => Ok(u32::from(deadline.half_passed(&*own))),
        _ => Err(FsError::Bug),
    });
    clock.advance(YEARS * 2 / 3);
    drop(release);
    assert_eq!(queued.recv_timeout(SOON).unwrap().unwrap(), 0);
}
