//! Tests of long work that others need not wait for: the lock is theirs between two turns, and what they do then counts.

use super::hostile::{data_packs, prepared, push};
use super::thin::forget_here;
use super::*;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::check::{self, Depth};
use crate::clock::{Clock, SystemClock};
use crate::error::ErrorClass;
use crate::monitor::{Event, Monitor};
use crate::reclaim::Verdict;
use crate::vault::Verb;
use crate::vault::testing::{Fault as VaultFault, FaultyVault};

/// Each piece of work takes longer than a turn; in each gap, and when marking begins, something is done.
pub(super) struct Gaps<F, G> {
    pub(super) clock: ManualClock,
    pub(super) dir: PathBuf,
    pub(super) in_gap: Mutex<F>,
    pub(super) at_mark: Mutex<G>,
}

impl<F: FnMut() + Send, G: FnMut() + Send> Monitor for Gaps<F, G> {
    fn event(&self, event: Event) {
        match event {
            Event::Done { .. } => self.clock.advance(Duration::from_secs(3)),
            Event::Stage { name: "mark", .. } => (self.at_mark.lock().unwrap())(),
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        let is_free = StoreLock::take(&self.dir, lock::STORE_LOCK, true).is_ok();
        if is_free {
            (self.in_gap.lock().unwrap())();
        }
        false
    }
}

/// A clock on a slow disk: between the first look at it in a turn and the next one staging is listed, and a turn would be over.
#[derive(Debug)]
struct SlowDisk {
    clock: ManualClock,
    lists: AtomicBool,
}

impl Clock for SlowDisk {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        let now = self.clock.monotonic();
        if self.lists.swap(false, Ordering::SeqCst) {
            self.clock.advance(Duration::from_secs(3));
        }
        now
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.clock.sleep(duration)
    }

    fn pause(&self, duration: Duration) {
        self.lists.store(true, Ordering::SeqCst);
        self.clock.pause(duration);
    }
}

#[test]
fn what_takes_long_to_see_leaves_its_turn_as_long_as_others() {
    let home = Home::new();
    let clock = ManualClock::at(Timestamp::from_seconds(1000));
    let options = StoreOptions::local(Arc::new(SlowDisk { clock, lists: AtomicBool::new(false) }));
    let store = Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap();
    let [one, two] = [1, 2].map(|version| take_point(&store, &sample(version)).unwrap());
    forget_here(&store, &one);
    let impatient = Impatient { gaps: 200, looked: Mutex::new(0) };
    let (plan, done) = reclaim::free_staging(&store, &impatient).unwrap();
    assert!(done.packs > 1 && plan.with(Verdict::Delete).count() > 0, "{done:?}");
    assert_eq!(*impatient.looked.lock().unwrap(), 1, "one turn was enough: {done:?}");
    assert!(restore(&home.open(), &two).unwrap() == sample(2));
}

/// Who gives up after so many gaps.
struct Impatient {
    gaps: u64,
    looked: Mutex<u64>,
}

impl Monitor for Impatient {
    fn event(&self, _: Event) {}

    fn cancelled(&self) -> bool {
        let mut looked = self.looked.lock().unwrap();
        *looked += 1;
        *looked > self.gaps
    }
}

fn open_at(home: &Home, clock: &ManualClock) -> Store {
    let options = StoreOptions::local(Arc::new(clock.clone()));
    Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap()
}

#[test]
fn a_backup_between_two_turns_keeps_what_it_relies_on_and_the_rest_goes() {
    let (home, clock) = (Home::new(), ManualClock::at(Timestamp::from_seconds(1000)));
    let (store, other) = (open_at(&home, &clock), open_at(&home, &clock));
    let [one, two, three] = [1, 2, 3].map(|version| take_point(&store, &sample(version)).unwrap());
    forget_here(&store, &one);
    forget_here(&store, &three);
    let (mut gaps, mut again) = (0, None);
    let in_gap = || {
        gaps += 1;
        again.get_or_insert_with(|| take_point(&other, &sample(1)).unwrap());
    };
    let (dir, in_gap) = (home.path(), Mutex::new(in_gap));
    let monitor = Gaps { clock, dir, in_gap, at_mark: Mutex::new(|| {}) };
    let (plan, done) = reclaim::free_staging(&store, &monitor).unwrap();
    drop(monitor);
    let again = again.unwrap();
    assert!(gaps > 2, "{gaps}");
    let (dead, gone) = (plan.with(Verdict::Delete).count() as u64, done.packs - done.packs_rewritten);
    assert!(gone > 0 && gone < dead, "{dead} {done:?}");
    assert_eq!(again.point.packs, [], "it relied on what was to go");
    for (point, version) in [(&two, 2), (&again, 1)] {
        assert!(restore(&home.open(), point).unwrap() == sample(version), "{version}");
    }
    // The next run has nothing to add.
    let next = reclaim::free_staging(&home.open(), &VoidMonitor).unwrap().1;
    assert_eq!(next, reclaim::Reclaimed::default());
}

#[test]
fn a_point_that_is_forgotten_while_points_are_marked_stops_nothing() {
    let (home, clock) = (Home::new(), ManualClock::at(Timestamp::from_seconds(1000)));
    let (store, other) = (open_at(&home, &clock), open_at(&home, &clock));
    let [one, two] = [1, 2].map(|version| take_point(&store, &sample(version)).unwrap());
    let mut going = Some(one);
    let at_mark = || {
        if let Some(point) = going.take() {
            forget_here(&other, &point);
        }
    };
    let (dir, at_mark) = (home.path(), Mutex::new(at_mark));
    let monitor = Gaps { clock, dir, in_gap: Mutex::new(|| {}), at_mark };
    assert!(reclaim::free_staging(&store, &monitor).unwrap().1.packs > 0);
    assert!(restore(&home.open(), &two).unwrap() == sample(2));
}

#[test]
fn who_has_the_store_by_turns_is_waited_for_and_nobody_else() {
    let (home, clock) = (Home::new(), ManualClock::at(Timestamp::from_seconds(1000)));
    let (store, other) = (open_at(&home, &clock), open_at(&home, &clock));
    let waits = |most: u64| {
        let before = clock.monotonic();
        assert_eq!(store.lock().unwrap_err().class(), ErrorClass::Locked);
        let waited = clock.monotonic() - before;
        assert!(waited < Duration::from_secs(most), "{waited:?}");
        waited
    };
    let plain = other.lock().unwrap();
    waits(1);
    assert_eq!(Turns::begin(&store).err().unwrap().class(), ErrorClass::Locked);
    drop(plain);
    let mut turns = Turns::begin(&other).unwrap();
    assert!(waits(62) > Duration::from_secs(59), "a turn that never ends is not waited for without end");
    let patient =
        Store::open(&home.path(), &home.ring, StoreOptions::local(Arc::new(SystemClock)), &VoidMonitor)
            .unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| patient.lock().unwrap());
        turns.end();
        // It is taken by whoever waited, and the next turn comes after that.
        let taken = waiting.join().unwrap();
        assert_eq!(store.lock().unwrap_err().class(), ErrorClass::Locked);
        drop(taken);
        turns.next(&VoidMonitor).unwrap();
        assert!(!turns.is_over());
    });
}

#[test]
fn what_a_vault_lost_since_the_plan_stays_in_staging() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    forget_here(&store, &one);
    let other = home.open_with(&vault);
    let staged = || store.catalog().packs().unwrap().iter().filter(|row| row.staged).count();
    let before = staged();
    // Between plan and turn; whoever looks there knows it then.
    let mut is_lost = false;
    let in_gap = || {
        if !std::mem::replace(&mut is_lost, true) {
            let names = vault.names().into_iter().filter(|name| name.as_str().starts_with("pack/"));
            names.for_each(|name| assert!(other.vaults()[0].2.delete(&name).unwrap()));
            copy::refresh_vault(&other, other.vaults()[0].0, &other.vaults()[0].2, &VoidMonitor).unwrap();
        }
    };
    let clock = ManualClock::default();
    let monitor = Gaps { clock, dir: home.path(), in_gap: Mutex::new(in_gap), at_mark: Mutex::new(|| {}) };
    let (plan, done) = reclaim::free_staging(&store, &monitor).unwrap();
    drop(monitor);
    assert!(is_lost && plan.with(Verdict::Delete).count() == before, "the vault had all of it");
    assert_eq!((done.packs, staged()), (0, before));
    assert!(restore(&store, &store.points().unwrap()[0]).unwrap() == sample(1));
}

#[test]
fn a_turn_waits_for_a_vault_for_some_seconds_only() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let damaged = home.path().join(names::pack(&data_packs(&store)[0].entry.id).as_str());
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    check::check(&store, Depth::ReadData, &VoidMonitor).unwrap();
    drop(store);
    let clock = Arc::new(ManualClock::default());
    let hanging = Arc::new(FaultyVault::new(vault, clock.clone()));
    let transfer = Transfer::new(hanging.clone(), clock.clone(), TransferPolicy::default()).unwrap();
    let options = StoreOptions { clock: clock.clone(), ..Home::options(vec![("memory:v".into(), transfer)]) };
    let store = Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap();
    hanging.forget();
    hanging.fail_from(Verb::Get, 1, VaultFault::Hang(Duration::from_secs(31)));
    let before = clock.monotonic();
    let done = reclaim::free_staging(&store, &VoidMonitor).unwrap().1;
    let took = clock.monotonic() - before;
    assert_eq!((done.packs_unreadable, hanging.count(Verb::Get) > 0), (1, true));
    assert!(took < Duration::from_secs(70), "{took:?}");
    assert!(damaged.exists());
}
