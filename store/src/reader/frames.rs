//! Decoded frames in memory: bounded in bytes, least recently used out first, each decoded by one thread while the
//! others that want it wait. Whoever may not wait for a vault does not wait for those who may, either.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;
use lru::LruCache;

use super::{LOOK, Limits};
use crate::clock::{Clock, Deadline};
use crate::error::StoreError;
use crate::id::PackId;

/// Pack and number of the frame in it. By its name, for a number could come to mean another pack.
pub(super) type FrameKey = (PackId, u32);

/// What a frame holds, decoded once.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    /// No other decoding has it, be it of the same frame.
    pub(super) number: u64,
}

/// Several locks, so that readers of different frames seldom meet.
const SHARDS: usize = 8;

/// Buffers that wait to be used again, at most, and the largest.
const SPARES: usize = 16;
const SPARE_BYTES_MAX: usize = 256 << 10;

/// Buffers of frames that nobody uses any more. An allocator that gets them back from many threads, in another order than it gave them,
/// ends up with twice the memory that frames take.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    /// A buffer, with anything in it.
    pub(super) fn take(&self) -> Vec<u8> {
        self.lock().pop().unwrap_or_default()
    }

    /// A buffer with room for `len` bytes and at most a quarter more, so that what is counted by its length takes that.
    pub(super) fn take_for(&self, len: usize) -> Vec<u8> {
        let mut spares = self.lock();
        match spares.iter().rposition(|spare| (len..=len + len / 4).contains(&spare.capacity())) {
            Some(i) => spares.swap_remove(i),
            None => Vec::with_capacity(len),
        }
    }

    /// The bytes in a buffer, which comes back when the last who has them lets go.
    pub(super) fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, spares: self.clone() })
    }

    /// Takes a buffer back that was not lent, in the place of one that found no use.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut spares = self.lock();
        if (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            if spares.len() == SPARES {
                spares.remove(0);
            }
            spares.push(buffer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buffers by what they are for: one that was made for something bigger would be more memory than its frame is counted with.
#[derive(Debug, Default)]
pub(super) struct AllSpares {
    pub(super) frames: Arc<Spares>,
    pub(super) sealed: Spares,
    /// Of content out of several frames.
    pub(super) joined: Arc<Spares>,
}

struct Lent {
    buffer: Vec<u8>,
    spares: Arc<Spares>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.spares.give_back(std::mem::take(&mut self.buffer));
    }
}

#[derive(Debug)]
pub(super) struct FrameCache {
    shards: Vec<Shard>,
    decoded: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    limit: usize,
    state: Mutex<State>,
    loaded: Condvar,
}

#[derive(Debug)]
struct State {
    frames: LruCache<FrameKey, Frame>,
    bytes: usize,
    loading: HashMap<LoadKey, Arc<Slot>>,
}

/// A frame, and whether who loads it may wait for a vault.
type LoadKey = (FrameKey, bool);

/// What comes of a loading.
#[derive(Debug)]
struct Slot {
    frame: Mutex<Option<Frame>>,
    /// Of whoever loads.
    deadline: Deadline,
}

impl State {
    /// A loading of this frame that is worth waiting for.
    fn loading(&self, key: FrameKey, may_wait: bool) -> Option<(LoadKey, Arc<Slot>)> {
        let keys = [(key, false), (key, true)].into_iter().take(1 + usize::from(may_wait));
        keys.filter_map(|key| Some((key, self.loading.get(&key)?.clone()))).next()
    }
}

/// Ends a loading when dropped, also when the loader fails or panics.
struct Loading<'a> {
    shard: &'a Shard,
    key: LoadKey,
    result: Option<Frame>,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut state = self.shard.lock();
        if let (Some(slot), Some(frame)) = (state.loading.remove(&self.key), self.result.take()) {
            *slot.frame.lock().unwrap_or_else(PoisonError::into_inner) = Some(frame.clone());
            self.shard.admit(&mut state, self.key.0, frame);
        }
        self.shard.loaded.notify_all();
    }
}

impl Shard {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, state: &mut State, key: FrameKey, frame: Frame) {
        state.bytes += frame.bytes.len();
        if let Some(old) = state.frames.put(key, frame) {
            state.bytes -= old.bytes.len();
        }
        while state.bytes > self.limit && state.frames.len() > 1 {
            if let Some((_, gone)) = state.frames.pop_lru() {
                state.bytes -= gone.bytes.len();
            }
        }
    }
}

impl FrameCache {
    /// At most `limit` bytes (one frame per shard may stand above it).
    pub(super) fn new(limit: usize) -> Self {
        let shard = || Shard {
            limit: limit / SHARDS,
            state: Mutex::new(State { frames: LruCache::unbounded(), bytes: 0, loading: HashMap::new() }),
            loaded: Condvar::new(),
        };
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), decoded: AtomicU64::new(0) }
    }

    fn shard(&self, key: &FrameKey) -> &Shard {
        // Neighbouring frames go to different shards.
        &self.shards[usize::from(key.0.0[0]).wrapping_add(key.1 as usize) % SHARDS]
    }

    /// Its bound, in bytes.
    #[cfg(test)]
    pub(super) fn limit(&self) -> usize {
        self.shards.iter().map(|shard| shard.limit).sum()
    }

    pub(super) fn has(&self, key: &FrameKey) -> bool {
        self.shard(key).lock().frames.contains(key)
    }

    /// The number of the frame that is here.
    pub(super) fn number(&self, key: &FrameKey) -> Option<u64> {
        self.shard(key).lock().frames.peek(key).map(|frame| frame.number)
    }

    /// The frame, if it is here.
    pub(super) fn get(&self, key: &FrameKey) -> Option<Frame> {
        self.shard(key).lock().frames.get(key).cloned()
    }

    /// The frame, decoded by `load` if nobody has or does so. Whoever waits for another's decoding gets its frame; if
    /// that fails, the next in line tries itself.
    pub(super) fn get_or_load(
        &self,
        key: FrameKey,
        limits: Limits,
        clock: &dyn Clock,
        load: impl FnOnce() -> Result<Bytes, StoreError>,
    ) -> Result<Frame, StoreError> {
        let shard = self.shard(&key);
        let mut state = shard.lock();
        loop {
            if let Some(frame) = state.frames.get(&key) {
                return Ok(frame.clone());
            }
            let Some((other, slot)) = state.loading(key, limits.may_wait()) else { break };
            let _joined = slot.deadline.join();
            while state.loading.get(&other).is_some_and(|s| Arc::ptr_eq(s, &slot)) {
                if limits.deadline.passed(clock) {
                    return Err(StoreError::Timeout { what: format!("frame {} of pack {}", key.1, key.0) });
                }
                state = shard.loaded.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
            let loaded = slot.frame.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(frame) = loaded {
                return Ok(frame);
            }
        }
        let key = (key, limits.may_wait());
        let slot = Slot { frame: Mutex::default(), deadline: limits.deadline };
        state.loading.insert(key, Arc::new(slot));
        drop(state);
        let mut loading = Loading { shard, key, result: None };
        let frame = Frame { bytes: load()?, number: self.decoded.fetch_add(1, Ordering::Relaxed) };
        loading.result = Some(frame.clone());
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Tier;
    use super::*;
    use crate::clock::{ManualClock, SystemClock, Waiting};
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    const NEVER: Limits = Limits { farthest: Tier::Vault, deadline: Deadline::NEVER };

    fn key(n: u32) -> FrameKey {
        (PackId([1; 32]), n)
    }

    #[test]
    fn many_who_want_a_frame_cause_one_decoding() {
        let cache = FrameCache::new(1 << 20);
        let decoded = AtomicUsize::new(0);
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    barrier.wait();
                    let frame = cache.get_or_load(key(1), NEVER, &SystemClock, || {
                        decoded.fetch_add(1, Ordering::SeqCst);
                        for _ in 0..1000 {
                            std::thread::yield_now();
                        }
                        Ok(Bytes::from_static(b"frame"))
                    });
                    assert_eq!(frame.unwrap().bytes, "frame");
                });
            }
        });
        assert_eq!(decoded.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_buffer_is_used_again_when_the_last_part_of_its_frame_is_dropped() {
        let spares = Arc::new(Spares::default());
        let buffer = Vec::with_capacity(1000);
        let at = buffer.as_ptr();
        let frame = spares.lend([&b"frame"[..]].into_iter().fold(buffer, |mut buffer, bytes| {
            buffer.extend_from_slice(bytes);
            buffer
        }));
        let part = frame.slice(2..4);
        drop(frame);
        assert_eq!((part.as_ref(), spares.take().capacity()), (&b"am"[..], 0), "somebody reads in it");
        drop(part);
        let again = spares.take();
        assert_eq!(again.as_ptr(), at);
        drop(spares.lend(Vec::with_capacity(SPARE_BYTES_MAX + 1)));
        assert_eq!(spares.take().capacity(), 0, "too big to be kept");
        (0..SPARES + 9).for_each(|_| spares.give_back(Vec::with_capacity(10)));
        assert_eq!(spares.lock().len(), SPARES);
    }

    #[test]
    fn a_buffer_is_not_used_for_something_much_smaller() {
        let spares = Spares::default();
        spares.give_back(Vec::with_capacity(1000));
        assert_eq!(spares.take_for(100).capacity(), 100);
        assert_eq!(spares.take_for(1001).capacity(), 1001);
        assert_eq!(spares.take_for(800).capacity(), 1000);
        assert_eq!(spares.take_for(800).capacity(), 800, "it is in use");
        (0..SPARES).for_each(|_| spares.give_back(Vec::with_capacity(10)));
        spares.give_back(Vec::with_capacity(1000));
        assert_eq!(spares.take_for(1000).capacity(), 1000, "the oldest made way");
    }

    #[test]
    fn memory_stays_within_the_bound() {
        let cache = FrameCache::new(SHARDS * 1000);
        for n in 0..1000 {
            cache.get_or_load(key(n), NEVER, &SystemClock, || Ok(vec![0; 400].into())).unwrap();
        }
        let held: usize = cache.shards.iter().map(|s| s.lock().bytes).sum();
        assert!(held <= SHARDS * 1000, "{held}");
    }

    #[test]
    fn a_failed_decoding_is_not_kept_and_the_next_one_tries_again() {
        let cache = FrameCache::new(1000);
        let fails = || Err(StoreError::Cancelled);
        assert!(cache.get_or_load(key(5), NEVER, &SystemClock, fails).is_err());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get_or_load(key(5), NEVER, &SystemClock, || panic!("decoder"))
        }));
        assert!(panicked.is_err());
        let frame = cache.get_or_load(key(5), NEVER, &SystemClock, || Ok(Bytes::from_static(b"x")));
        assert_eq!(frame.unwrap().bytes, "x");
    }

    fn begin_loading(cache: &FrameCache, n: u32, limits: Limits) -> Loading<'_> {
        let (shard, key) = (cache.shard(&key(n)), (key(n), limits.may_wait()));
        let slot = Slot { frame: Mutex::default(), deadline: limits.deadline };
        shard.lock().loading.insert(key, Arc::new(slot));
        Loading { shard, key, result: None }
    }

    #[test]
    fn who_waits_for_a_hanging_decoding_gives_up_at_its_deadline() {
        let cache = FrameCache::new(1000);
        let clock = ManualClock::default();
        let _hangs = begin_loading(&cache, 2, NEVER);
        let limits = Deadline::after(&clock, Duration::ZERO).into();
        let result = cache.get_or_load(key(2), limits, &clock, || Ok(Bytes::new()));
        assert!(matches!(result, Err(StoreError::Timeout { .. })));
    }

    #[test]
    fn who_may_not_wait_for_a_vault_loads_himself_and_who_may_waits_for_both() {
        let cache = FrameCache::new(1000);
        let clock = ManualClock::default();
        let at_once = |farthest| Limits { farthest, deadline: Deadline::after(&clock, Duration::ZERO) };
        let load = |farthest| cache.get_or_load(key(2), at_once(farthest), &clock, || Ok(Bytes::new()));
        let far = begin_loading(&cache, 2, NEVER);
        assert!(load(Tier::Vault).is_err() && load(Tier::Cache).is_ok());
        drop(far);
        let cache = FrameCache::new(1000);
        let load = |farthest| cache.get_or_load(key(2), at_once(farthest), &clock, || Ok(Bytes::new()));
        let _near = begin_loading(&cache, 2, Limits { farthest: Tier::Cache, ..NEVER });
        assert!(load(Tier::Vault).is_err() && load(Tier::Cache).is_err());
    }

    #[test]
    fn a_decoding_that_another_one_waits_for_goes_on_when_the_first_leaves() {
        let cache = FrameCache::new(1000);
        let first = Waiting::begin();
        let deadline = Deadline::NEVER.of(&first);
        let mut loading = begin_loading(&cache, 2, deadline.into());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let other = || Err(StoreError::Cancelled);
                cache.get_or_load(key(2), NEVER, &SystemClock, other)
            });
            while deadline.waiters() < 2 {
                std::thread::yield_now();
            }
            drop(first);
            assert!(!deadline.is_given_up());
            loading.result = Some(Frame { bytes: Bytes::from_static(b"frame"), number: 7 });
            drop(loading);
            assert_eq!(second.join().unwrap().unwrap().bytes, "frame");
        });
        assert!(deadline.is_given_up(), "everybody has it");
    }
}
