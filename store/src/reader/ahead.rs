//! Reading ahead: what a reader will want next is decoded, and fetched from vaults, before it asks.
//!
//! Packs are filled in the order in which a source was walked. So whoever reads a file from its beginning, or copies a
//! directory, goes through the frames of a pack in order and on into the pack after it. That is what is watched here: a
//! *trail* for each pack that is being read. A reader that jumps about leaves no trail and causes no work.
//!
//! - Decoding is ahead by a few frames, twice as many with each step, up to [`DECODE_MAX`].
//! - Fetching from a vault is ahead by a *window* of bytes. It doubles each time a reader had to wait for a vault, and stays when nobody
//!   waits any more: at what bandwidth times delay asks for, where that is enough. Whoever reads faster than the line can give waits always,
//!   so no window is more than the vault gives within a few seconds, as far as its rate is known (`rate`, `IN_TIME` in `budget`); and all
//!   windows together are no more either. Where not even a block of the grid comes in that time, nothing is fetched ahead.
//!
//! Nothing here is waited for, and nothing that fails here is told: who needs the bytes will ask for them and hear why.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use lru::LruCache;

use super::fetch::Fetcher;
use super::{PackMap, Reader};
use crate::cache::GRID;
use crate::catalog::{PackNo, VaultNo};
use crate::clock::{Clock, Deadline};
use crate::error::ErrorClass;
use crate::pack::PackKind;

/// Packs whose readers are remembered.
const TRAILS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// Frames that may be left out without breaking a trail: an image that changed has some of its chunks elsewhere.
const GAP: u32 = 16;
/// Frames decoded ahead at most: 2 MiB.
const DECODE_MAX: u32 = 16;
/// Frames that a thread decodes in one go.
const DECODE_BATCH: u32 = 4;
/// Steps after which decoding ahead begins.
const DECODE_FROM: u32 = 2;
/// Bytes fetched ahead at first, and at most.
const WINDOW_MIN: u64 = 2 << 20;
const WINDOW_MAX: u64 = 32 << 20;
/// Bytes of one request.
const REQUEST_MIN: u64 = 1 << 20;
pub(super) const REQUEST_MAX: u64 = 4 << 20;
/// Requests to a vault at once: half of what its transfer makes, so that who waits for something finds a turn free.
pub(super) const FETCHING: usize = 8;
/// A vault that takes longer is not read ahead from: whoever needs the bytes shall not wait for a request that hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// How long a request ahead may take, from now on.
pub(super) fn patience(clock: &dyn Clock) -> Deadline {
    Deadline::after(clock, PATIENCE)
}

/// Jobs that may wait; what does not fit is not done.
const WAITING: usize = 256;

/// How somebody reads a pack.
#[derive(Clone, Copy, Debug)]
struct Trail {
    /// Frame after the last one read.
    next: u32,
    /// Steps forward without a jump.
    run: u32,
    /// Frames before this one are decoded or about to be.
    decoded: u32,
    /// Bytes before this one are fetched or about to be.
    fetched: u64,
    window: u64,
    /// Whether places of all its chunks were learned, or are about to be.
    learned: bool,
    /// Whether the pack after it was begun.
    passed_on: bool,
}

impl Trail {
    fn beginning_at(next: u32, window: u64) -> Self {
        Self { next, run: 0, decoded: next, fetched: 0, window, learned: false, passed_on: false }
    }

    /// Notes that these frames were read; says whether that was a step forward.
    fn step(&mut self, frames: &Range<u32>) -> bool {
        if frames.end <= self.next && frames.end + GAP >= self.next {
            return false;
        }
        if frames.start + 1 < self.next || frames.start > self.next.saturating_add(GAP) {
            let learned = self.learned;
            *self = Self { learned, ..Self::beginning_at(frames.end, self.window.min(WINDOW_MIN)) };
            return false;
        }
        self.next = frames.end;
        self.run = self.run.saturating_add(1);
        true
    }

    /// Frames to decode, and how many of the pack after it.
    fn decode(&mut self, all: u32) -> (Range<u32>, u32) {
        if self.run < DECODE_FROM {
            return (0..0, 0);
        }
        let want = 1_u32.checked_shl(self.run).unwrap_or(DECODE_MAX).min(DECODE_MAX);
        let (from, to) = (self.decoded.max(self.next), self.next + want);
        // Half of it at a time: waking a thread for each frame costs more than it gains.
        if (from - self.next) * 2 > want {
            return (0..0, 0);
        }
        self.decoded = to.min(all);
        (from.min(all)..self.decoded, to.saturating_sub(all))
    }

    /// Whether half of a window after `at` is neither fetched nor about to be.
    fn is_fetch_due(&self, at: u64, window: u64) -> bool {
        self.fetched.saturating_sub(at) * 2 <= window
    }

    /// Bytes to fetch, and how many of the pack after it.
    fn fetch(&mut self, at: u64, all: u64, window: u64) -> (Range<u64>, u64) {
        let (from, to) = (self.fetched.max(at), at + window);
        if !self.is_fetch_due(at, window) {
            return (0..0, 0);
        }
        self.fetched = to.min(all);
        (from.min(all)..self.fetched, to.saturating_sub(all))
    }
}

/// What a thread ahead does.
#[derive(Debug)]
pub(super) enum Job {
    Learn(PackNo),
    Decode(PackNo, Range<u32>),
    Fetch(VaultNo, PackNo, Range<u64>),
    /// Goes on with the pack after this one: so many frames, or bytes if it must be fetched.
    Next {
        after: PackNo,
        frames: u32,
        bytes: u64,
        window: u64,
    },
}

/// The trails, and threads that start with the first one.
#[derive(Debug)]
pub(super) struct Ahead {
    reader: Weak<Reader>,
    window_max: u64,
    trails: Mutex<LruCache<PackNo, Trail>>,
    /// Queues for what is fetched from each vault, and for all else.
    lanes: Mutex<HashMap<Option<VaultNo>, Sender<Job>>>,
}

impl Ahead {
    /// Reads ahead for `reader`, in vaults by no more than `window_max` bytes.
    pub(super) fn new(reader: Weak<Reader>, window_max: u64) -> Self {
        Self {
            reader,
            window_max: window_max.min(WINDOW_MAX),
            trails: Mutex::new(LruCache::new(TRAILS)),
            lanes: Mutex::default(),
        }
    }

    /// These frames of a pack are wanted now.
    pub(super) fn touched(&self, map: &PackMap, frames: &Range<usize>, fetcher: &Fetcher) {
        let frames = frames.start as u32..frames.end as u32;
        let mut trails = self.trails();
        let Some(trail) = trails.get_mut(&map.row.no) else {
            trails.put(map.row.no, Trail::beginning_at(frames.end, WINDOW_MIN.min(self.window_max)));
            return;
        };
        let mut jobs = Vec::new();
        // Who walks a tree jumps about in its packs, and yet comes to all of their pages.
        if map.row.entry.kind == PackKind::Tree && !std::mem::replace(&mut trail.learned, true) {
            jobs.push(Job::Learn(map.row.no));
        }
        if trail.step(&frames) {
            jobs.extend(self.jobs(map, trail, fetcher));
        }
        drop(trails);
        jobs.into_iter().for_each(|job| self.submit(job));
    }

    /// Bytes of one request for this pack, beside what somebody waits for, if `most` come in time: none if its reader jumps about.
    pub(super) fn request_len(&self, no: PackNo, most: u64) -> u64 {
        let mut trails = self.trails();
        let trail = trails.get(&no).filter(|trail| trail.run > 0 && most >= GRID);
        trail.map_or(0, |trail| request_len(trail.window.min(most)))
    }

    /// Somebody had to wait for bytes of this pack.
    pub(super) fn waited(&self, no: PackNo) {
        if let Some(trail) = self.trails().get_mut(&no).filter(|trail| trail.run > 0) {
            trail.window = (trail.window * 2).min(self.window_max);
        }
    }

    /// A vault did not give bytes of this pack in time that were to be had ahead.
    pub(super) fn was_late(&self, no: PackNo) {
        if let Some(trail) = self.trails().get_mut(&no) {
            trail.window = (trail.window / 2).max(GRID.min(self.window_max));
        }
    }

    fn trails(&self) -> MutexGuard<'_, LruCache<PackNo, Trail>> {
        self.trails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self, map: &PackMap, trail: &mut Trail, fetcher: &Fetcher) -> Vec<Job> {
        let no = map.row.no;
        let mut jobs = Vec::new();
        if !std::mem::replace(&mut trail.learned, true) {
            jobs.push(Job::Learn(no));
        }
        let all = map.frames() as u32;
        let mut bytes = 0;
        let at = map.block_of(trail.next.min(all).saturating_sub(1) as usize).end;
        // Which vault, and how much of the window it gives in time, is looked up only then.
        if trail.is_fetch_due(at, trail.window)
            && let Some((vault, window)) = window_from(map, fetcher, trail.window)
        {
            let (fetch, more) = trail.fetch(at, map.row.entry.len, window);
            jobs.extend(requests(fetch, window).map(|bytes| Job::Fetch(vault, no, bytes)));
            bytes = more;
        }
        let (decode, frames) = trail.decode(all);
        jobs.extend(batches(decode).map(|frames| Job::Decode(no, frames)));
        if (frames > 0 || bytes > 0) && !std::mem::replace(&mut trail.passed_on, true) {
            jobs.push(Job::Next { after: no, frames, bytes, window: trail.window });
        }
        jobs
    }

    pub(super) fn submit(&self, job: Job) {
        // One vault that hangs keeps nobody from reading ahead from another.
        let vault = if let Job::Fetch(vault, ..) = job { Some(vault) } else { None };
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = lanes.entry(vault).or_insert_with(|| self.start(vault)).try_send(job);
        drop(lanes);
        if let Err(TrySendError::Full(job)) = sent {
            self.was_refused(&job);
        }
    }

    /// There was no room for a job. What is to be done once for a pack is to be done yet.
    fn was_refused(&self, job: &Job) {
        if let Job::Learn(no) = job
            && let Some(trail) = self.trails().get_mut(no)
        {
            trail.learned = false;
        }
    }

    /// Threads that fetch from a vault, or that decode.
    fn start(&self, vault: Option<VaultNo>) -> Sender<Job> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4);
        let (name, threads) = vault.map_or(("holdfast-decode", cores), |_| ("holdfast-fetch", FETCHING));
        let (queue, jobs) = bounded(WAITING);
        for _ in 0..threads {
            let (jobs, reader) = (jobs.clone(), self.reader.clone());
            let work = move || {
                for job in &jobs {
                    let Some(reader) = reader.upgrade() else { return };
                    reader.ahead.carry_out(&reader, job);
                }
            };
            // Without a thread nothing is read ahead, and that is all.
            let _ = std::thread::Builder::new().name(name.into()).spawn(work);
        }
        queue
    }

    fn carry_out(&self, reader: &Reader, job: Job) {
        let done = match job {
            Job::Learn(no) => reader.learn_places(no),
            Job::Decode(no, frames) => reader.decode_ahead(no, frames.start as usize..frames.end as usize),
            Job::Fetch(vault, no, bytes) => reader.fetch_ahead(vault, no, bytes).inspect_err(|e| {
                if e.class() == ErrorClass::Unavailable {
                    self.was_late(no);
                }
            }),
            Job::Next { after, frames, bytes, window } => self.go_on(reader, after, frames, bytes, window),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "reading ahead");
        }
    }

    /// Begins the pack after `after`, as if it had been read up to its beginning.
    fn go_on(
        &self,
        reader: &Reader,
        after: PackNo,
        frames: u32,
        bytes: u64,
        window: u64,
    ) -> Result<(), crate::error::StoreError> {
        let Some(next) = reader.catalog.next_pack(after)? else { return Ok(()) };
        let map = reader.pack_map(next)?;
        let mut jobs = vec![Job::Learn(next)];
        let mut trail = Trail { run: DECODE_FROM, learned: true, ..Trail::beginning_at(0, window) };
        trail.decoded = frames.min(map.frames() as u32);
        if let Some((vault, window)) = window_from(&map, &reader.fetcher, window) {
            trail.fetched = bytes.min(map.row.entry.len);
            jobs.extend(requests(0..trail.fetched, window).map(|bytes| Job::Fetch(vault, next, bytes)));
        }
        jobs.extend(batches(0..trail.decoded).map(|frames| Job::Decode(next, frames)));
        if !map.row.staged && bytes > map.row.entry.len {
            trail.passed_on = true;
            jobs.push(Job::Next { after: next, frames: 0, bytes: bytes - map.row.entry.len, window });
        }
        let mut trails = self.trails();
        // Somebody is there already, and knows better.
        if trails.contains(&next) {
            return Ok(());
        }
        trails.put(next, trail);
        drop(trails);
        jobs.into_iter().for_each(|job| self.submit(job));
        Ok(())
    }
}

/// From where to fetch a pack ahead, and how much of a window: what comes in time.
fn window_from(map: &PackMap, fetcher: &Fetcher, window: u64) -> Option<(VaultNo, u64)> {
    let (vault, most) = if map.row.staged { None } else { fetcher.ahead_from(&map.row.vaults) }?;
    (window.min(most) >= GRID.min(window.max(1))).then(|| (vault, window.min(most)))
}

/// A window in requests: several at once, and few.
fn requests(bytes: Range<u64>, window: u64) -> impl Iterator<Item = Range<u64>> {
    let len = request_len(window);
    let starts = (bytes.start..bytes.end).step_by(len as usize);
    starts.map(move |start| start..(start + len).min(bytes.end))
}

fn request_len(window: u64) -> u64 {
    // A small window is that of a slow line: two requests keep it busy, and the first of them comes soon.
    let least = REQUEST_MIN.min((window / 2).next_multiple_of(GRID)).max(GRID);
    (window / 4).next_multiple_of(GRID).clamp(least, REQUEST_MAX)
}

fn batches(frames: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let starts = (frames.start..frames.end).step_by(DECODE_BATCH as usize);
    starts.map(move |start| start..(start + DECODE_BATCH).min(frames.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_grows_while_reading_goes_on_and_ends_with_a_jump() {
        let mut trail = Trail::beginning_at(10, WINDOW_MIN);
        assert!(trail.step(&(10..11)));
        assert_eq!(trail.decode(100), (0..0, 0), "one step is no trail");
        assert!(trail.step(&(10..12)), "a read that begins in the frame where the last one ended");
        assert_eq!(trail.decode(100), (12..16, 0));
        assert!(!trail.step(&(11..12)), "the same frame again");
        assert!(trail.step(&(12..13)) && trail.step(&(14..15)));
        assert_eq!(trail.decode(100), (16..31, 0));
        assert!(trail.step(&(15..16)));
        assert_eq!(trail.decode(100), (0..0, 0), "more than half of it is under way");
        assert!(!trail.step(&(80..81)));
        assert_eq!((trail.run, trail.decode(100)), (0, (0..0, 0)));
        assert!(!trail.step(&(40..41)), "backwards");
    }

    #[test]
    fn places_that_there_was_no_room_to_learn_are_learned_at_the_next_step() {
        let ahead = Ahead::new(Weak::new(), WINDOW_MIN);
        let (queue, jobs) = bounded(1);
        ahead.lanes.lock().unwrap_or_else(PoisonError::into_inner).insert(None, queue);
        let learned = || ahead.trails().get(&PackNo(7)).map(|trail| trail.learned);
        let learn = || {
            if let Some(trail) = ahead.trails().get_mut(&PackNo(7)) {
                trail.learned = true;
            }
            ahead.submit(Job::Learn(PackNo(7)));
        };
        ahead.trails().put(PackNo(7), Trail::beginning_at(0, WINDOW_MIN));
        learn();
        assert_eq!((learned(), jobs.len()), (Some(true), 1));
        learn();
        assert_eq!((learned(), jobs.len()), (Some(false), 1), "the queue is full");
    }

    #[test]
    fn no_vault_is_looked_for_before_half_of_the_largest_window_is_used() {
        let mut trail = Trail::beginning_at(0, 1000);
        assert!(trail.is_fetch_due(0, 1000));
        assert_eq!(trail.fetch(0, 9000, 1000), (0..1000, 0));
        assert!(!trail.is_fetch_due(499, 1000) && trail.is_fetch_due(500, 1000));
        assert!(trail.is_fetch_due(2000, 1000), "who jumped ahead of it");
    }

    #[test]
    fn a_trail_goes_on_into_the_next_pack() {
        let mut trail = Trail { run: 9, ..Trail::beginning_at(95, WINDOW_MIN) };
        assert!(trail.step(&(95..96)));
        assert_eq!(trail.decode(100), (96..100, 12));
        let mut trail = Trail::beginning_at(0, 1000);
        assert_eq!(trail.fetch(200, 900, 1000), (200..900, 300));
        assert_eq!(trail.fetch(300, 900, 1000), (0..0, 0), "more than half of it is under way");
        assert_eq!(trail.fetch(800, 900, 1000), (900..900, 900));
    }

    #[test]
    fn a_window_that_shrank_is_asked_for_in_two_requests_of_whole_blocks() {
        assert!(requests(0..GRID, GRID).eq(std::iter::once(0..GRID)));
        assert_eq!(request_len(REQUEST_MIN), REQUEST_MIN / 2);
        assert_eq!((request_len(3 * GRID), request_len(WINDOW_MIN)), (2 * GRID, REQUEST_MIN));
    }

    #[test]
    fn a_window_is_a_few_requests_on_the_grid() {
        let all: Vec<_> = requests(0..WINDOW_MIN, WINDOW_MIN).collect();
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|r| r.start % GRID == 0 && r.end - r.start == REQUEST_MIN));
        let long: Vec<_> = requests(0..WINDOW_MAX, WINDOW_MAX).collect();
        assert_eq!((long.len(), long[0].end), (8, REQUEST_MAX));
        assert_eq!(batches(3..10).collect::<Vec<_>>(), [3..7, 7..10]);
    }
}
