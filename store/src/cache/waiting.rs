//! Blocks on their way to the disk: a disk that takes no writes must not hold up who has the bytes already. A thread of their own
//! writes them, in the order in which they came; what waits for it is found like what is written.
//!
//! All that one request brought waits and goes together, for each of its blocks would keep all of it in memory. So who puts it can say how
//! much may wait, and gives along what is to be dropped when it does not any more.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{GRID, Key};
use crate::clock::Clock;
use crate::id::PackId;

/// How often whoever waits until all is written looks at the clock.
const LOOK: Duration = Duration::from_millis(20);
/// A block that takes longer than this to write is held up, and so are those behind it.
const STALLED: Duration = Duration::from_secs(5);
/// The log is told of that once in so long.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// How long somebody waits until what he put is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// As long as no block takes longer than this.
    PerBlock(Duration),
    /// No longer than this, however many blocks there are.
    InAll(Duration),
}

/// What is dropped when bytes do not wait any more.
pub type Held = Arc<dyn Any + Send + Sync>;

/// Blocks that one request brought.
pub(super) struct Run {
    serial: u64,
    pack: PackId,
    blocks: Range<u32>,
    bytes: u64,
    _held: Held,
}

impl Run {
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        let pack = self.pack;
        self.blocks.clone().map(move |n| (pack, n))
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    runs: VecDeque<Run>,
    /// Each with the number of its run: one that is put again while it is being written is another.
    blocks: HashMap<Key, (u64, Bytes)>,
    bytes: u64,
    /// Runs that were put, and those that are done with.
    put: u64,
    done: u64,
    /// Since when a block is being written, or room made for it.
    since: Option<Duration>,
    told: Option<Duration>,
    has_thread: bool,
    ended: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("bytes", &self.bytes)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

impl Waiting {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a run of blocks from `first` on, unless more than `most` bytes would wait; whether a thread has to begin.
    pub(super) fn put(&self, pack: &PackId, first: u32, bytes: &Bytes, most: u64, held: Held) -> bool {
        let mut state = self.lock();
        let len = bytes.len() as u64;
        if state.ended || state.bytes + len > most {
            return false;
        }
        let blocks = first..first + len.div_ceil(GRID) as u32;
        let serial = state.put;
        for (n, at) in blocks.clone().zip((0..bytes.len()).step_by(GRID as usize)) {
            let block = bytes.slice(at..(at + GRID as usize).min(bytes.len()));
            state.blocks.insert((*pack, n), (serial, block));
        }
        state.put += 1;
        state.bytes += len;
        state.runs.push_back(Run { serial, pack: *pack, blocks, bytes: len, _held: held });
        self.changed.notify_all();
        !std::mem::replace(&mut state.has_thread, true)
    }

    /// There is no thread: nothing is kept.
    pub(super) fn give_up(&self) {
        let mut state = self.lock();
        let (put, ended) = (state.put, state.ended);
        *state = State { put, done: put, ended, ..State::default() };
        self.changed.notify_all();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.lock().blocks.contains_key(key)
    }

    /// A copy, which does not keep what came with it.
    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        let block = self.lock().blocks.get(key).map(|(_, block)| block.clone());
        block.map(|block| Bytes::copy_from_slice(&block))
    }

    pub(super) fn remove(&self, key: &Key) {
        self.lock().blocks.remove(key);
    }

    /// The next run to be written; nothing if that is over.
    pub(super) fn next(&self) -> Option<Run> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(run) = state.runs.pop_front() {
                return Some(run);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A block of a run that is to be written now, unless it was removed or put again.
    pub(super) fn begin(&self, run: &Run, key: &Key) -> Option<Bytes> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let block = state.blocks.get(key).filter(|(serial, _)| *serial == run.serial)?.1.clone();
        state.since = Some(now);
        Some(block)
    }

    /// A block was written, or could not be. Whether it is still wanted.
    pub(super) fn end(&self, run: &Run, key: &Key) -> bool {
        let mut state = self.lock();
        let is_wanted = state.blocks.get(key).is_some_and(|(serial, _)| *serial == run.serial);
        if is_wanted {
            state.blocks.remove(key);
        }
        is_wanted
    }

    pub(super) fn done(&self, run: Run) {
        let mut state = self.lock();
        state.since = None;
        state.done += 1;
        state.bytes -= run.bytes;
        drop((state, run));
        self.changed.notify_all();
    }

    /// Whether a block has been held up for long.
    pub(super) fn is_stalled(&self) -> bool {
        let now = self.clock.monotonic();
        self.lock().is_stalled(now)
    }

    /// Whether the log is to be told that blocks are held up.
    pub(super) fn is_to_tell(&self) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let is_due = state.told.is_none_or(|told| now.saturating_sub(told) >= TOLD_EVERY);
        let is_to_tell = is_due && state.is_stalled(now);
        if is_to_tell {
            state.told = Some(now);
        }
        is_to_tell
    }

    /// Waits until all is written that was put so far, as long as patience lasts and nobody says stop; whether that is so.
    pub(super) fn settle(&self, patience: Patience, stopped: &dyn Fn() -> bool) -> bool {
        let came = self.clock.monotonic();
        let put = self.lock().put;
        loop {
            let (now, is_stopped) = (self.clock.monotonic(), stopped());
            let state = self.lock();
            if state.done >= put {
                return true;
            }
            if state.ended || is_stopped || state.is_over(patience, came, now) {
                return false;
            }
            drop(self.changed.wait_timeout(state, LOOK));
        }
    }

    /// Nothing more is written.
    pub(super) fn stop(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

impl State {
    /// Whether who came then has waited long enough.
    fn is_over(&self, patience: Patience, came: Duration, now: Duration) -> bool {
        let passed = |since: Duration, most| now.saturating_sub(since) >= most;
        match patience {
            Patience::PerBlock(most) => self.since.is_some_and(|since| passed(since.max(came), most)),
            Patience::InAll(most) => passed(came, most),
        }
    }

    fn is_stalled(&self, now: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_sub(since) >= STALLED)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_log_is_told_once_in_a_minute_as_long_as_a_block_is_held_up() {
        let clock = ManualClock::default();
        let waiting = Waiting::new(Arc::new(clock.clone()));
        let pack = PackId([1; 32]);
        let block = Bytes::from_static(b"a block");
        assert!(waiting.put(&pack, 0, &block, 100, Arc::new(())), "a thread has to begin");
        assert!(!waiting.put(&pack, 1, &block, 100, Arc::new(())), "it has");
        let run = waiting.next().unwrap();
        assert_eq!(waiting.begin(&run, &(pack, 0)), Some(block));
        let told_after = |seconds| {
            clock.advance(Duration::from_secs(seconds));
            waiting.is_to_tell()
        };
        assert!(!told_after(4) && told_after(1) && !told_after(59) && told_after(1) && waiting.is_stalled());
        assert!(waiting.end(&run, &(pack, 0)));
        waiting.done(run);
        assert!(!told_after(60) && !waiting.is_stalled());
        waiting.give_up();
        assert!(
            waiting.bytes() == 0
                && !waiting.has(&(pack, 1))
                && waiting.settle(Patience::InAll(STALLED), &|| false)
        );
    }

    #[test]
    fn who_waits_in_all_does_not_wait_for_each_block_of_a_slow_disk_and_nobody_once_he_is_stopped() {
        let settled = |patience, looks_max| {
            let clock = ManualClock::default();
            let waiting = Waiting::new(Arc::new(clock.clone()));
            let pack = PackId([1; 32]);
            let put = |n| waiting.put(&pack, n, &Bytes::from_static(b"x"), 100, Arc::new(()));
            assert_eq!((0..50).filter(|n| put(*n)).count(), 1, "the first needs a thread");
            let looks = std::cell::Cell::new(0);
            // A block is written each second.
            let stopped = || {
                let run = waiting.next().unwrap();
                let keys: Vec<Key> = run.keys().collect();
                assert!(waiting.begin(&run, &keys[0]).is_some());
                clock.advance(Duration::from_secs(1));
                assert!(waiting.end(&run, &keys[0]));
                waiting.done(run);
                looks.set(looks.get() + 1);
                looks.get() > looks_max
            };
            (waiting.settle(patience, &stopped), looks.get())
        };
        let three = Duration::from_secs(3);
        assert_eq!(settled(Patience::PerBlock(three), 99), (true, 50));
        assert_eq!(settled(Patience::InAll(three), 99), (false, 4));
        assert_eq!(settled(Patience::InAll(three), 0), (false, 1));
        assert_eq!(settled(Patience::PerBlock(three), 0), (false, 1));
    }
}
