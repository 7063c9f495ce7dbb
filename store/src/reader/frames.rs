//! Decoded frames in memory: bounded in bytes, least recently used out first, each decoded by one thread while the
//! others that want it wait.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;

use crate::catalog::PackNo;
use crate::clock::{Clock, Deadline};
use crate::error::StoreError;

/// Pack and number of the frame in it.
pub(super) type FrameKey = (PackNo, u32);

/// Several locks, so that readers of different frames seldom meet.
const SHARDS: usize = 8;
/// A waiting reader looks at its deadline this often.
const LOOK: Duration = Duration::from_millis(200);

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

    /// The bytes in a buffer, which comes back when the last who has them lets go.
    pub(super) fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, spares: self.clone() })
    }

    /// Takes a buffer back that was not lent.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut spares = self.lock();
        if spares.len() < SPARES && buffer.capacity() <= SPARE_BYTES_MAX {
            spares.push(buffer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
}

#[derive(Debug)]
struct Shard {
    limit: usize,
    state: Mutex<State>,
    loaded: Condvar,
}

#[derive(Debug)]
struct State {
    frames: LruCache<FrameKey, Bytes>,
    bytes: usize,
    loading: HashMap<FrameKey, Arc<Mutex<Option<Bytes>>>>,
}

/// Ends a loading when dropped, also when the loader fails or panics.
struct Loading<'a> {
    shard: &'a Shard,
    key: FrameKey,
    result: Option<Bytes>,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut state = self.shard.lock();
        if let (Some(slot), Some(frame)) = (state.loading.remove(&self.key), self.result.take()) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(frame.clone());
            self.shard.admit(&mut state, self.key, frame);
        }
        self.shard.loaded.notify_all();
    }
}

impl Shard {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, state: &mut State, key: FrameKey, frame: Bytes) {
        state.bytes += frame.len();
        if let Some(old) = state.frames.put(key, frame) {
            state.bytes -= old.len();
        }
        while state.bytes > self.limit && state.frames.len() > 1 {
            if let Some((_, gone)) = state.frames.pop_lru() {
                state.bytes -= gone.len();
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
        Self { shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    fn shard(&self, key: &FrameKey) -> &Shard {
        // Neighbouring frames go to different shards.
        &self.shards[(key.0.0 as usize).wrapping_mul(31).wrapping_add(key.1 as usize) % SHARDS]
    }

    pub(super) fn has(&self, key: &FrameKey) -> bool {
        self.shard(key).lock().frames.contains(key)
    }

    /// The frame, decoded by `load` if nobody has or does so. Whoever waits for another's decoding gets its frame; if
    /// that fails, the next in line tries itself.
    pub(super) fn get_or_load(
        &self,
        key: FrameKey,
        deadline: Deadline,
        clock: &dyn Clock,
        load: impl FnOnce() -> Result<Bytes, StoreError>,
    ) -> Result<Bytes, StoreError> {
        let shard = self.shard(&key);
        let mut state = shard.lock();
        loop {
            if let Some(frame) = state.frames.get(&key) {
                return Ok(frame.clone());
            }
            let Some(slot) = state.loading.get(&key).cloned() else { break };
            while state.loading.get(&key).is_some_and(|s| Arc::ptr_eq(s, &slot)) {
                if deadline.passed(clock) {
                    return Err(StoreError::Timeout {
                        what: format!("frame {} of pack number {}", key.1, key.0.0),
                    });
                }
                state = shard.loaded.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
            if let Some(frame) = slot.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return Ok(frame);
            }
        }
        state.loading.insert(key, Arc::default());
        drop(state);
        let mut loading = Loading { shard, key, result: None };
        let frame = load()?;
        loading.result = Some(frame.clone());
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn key(n: u32) -> FrameKey {
        (PackNo(1), n)
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
                    let frame = cache.get_or_load(key(1), Deadline::NEVER, &SystemClock, || {
                        decoded.fetch_add(1, Ordering::SeqCst);
                        for _ in 0..1000 {
                            std::thread::yield_now();
                        }
                        Ok(Bytes::from_static(b"frame"))
                    });
                    assert_eq!(frame.unwrap(), "frame");
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
    fn memory_stays_within_the_bound() {
        let cache = FrameCache::new(SHARDS * 1000);
        for n in 0..1000 {
            cache.get_or_load(key(n), Deadline::NEVER, &SystemClock, || Ok(vec![0; 400].into())).unwrap();
        }
        let held: usize = cache.shards.iter().map(|s| s.lock().bytes).sum();
        assert!(held <= SHARDS * 1000, "{held}");
    }

    #[test]
    fn a_failed_decoding_is_not_kept_and_the_next_one_tries_again() {
        let cache = FrameCache::new(1000);
        let fails = || Err(StoreError::Cancelled);
        assert!(cache.get_or_load(key(5), Deadline::NEVER, &SystemClock, fails).is_err());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get_or_load(key(5), Deadline::NEVER, &SystemClock, || panic!("decoder"))
        }));
        assert!(panicked.is_err());
        let frame = cache.get_or_load(key(5), Deadline::NEVER, &SystemClock, || Ok(Bytes::from_static(b"x")));
        assert_eq!(frame.unwrap(), "x");
    }

    #[test]
    fn who_waits_for_a_hanging_decoding_gives_up_at_its_deadline() {
        let cache = FrameCache::new(1000);
        let clock = ManualClock::default();
        cache.shard(&key(2)).lock().loading.insert(key(2), Arc::default());
        let deadline = Deadline::after(&clock, Duration::ZERO);
        let result = cache.get_or_load(key(2), deadline, &clock, || Ok(Bytes::new()));
        assert!(matches!(result, Err(StoreError::Timeout { .. })));
    }
}
