//! Parts of chunks: no byte leaves before its whole chunk was compared with its id, for a seal vouches for who sealed and not for what.
//!
//! A part that is asked for first takes all frames of its chunk. What was compared is remembered, so that the parts after it take no more
//! than the frames in which they lie: as long as the frames in memory are those that were compared, and of a chunk whose frames leave
//! memory between two reads, by a sum of each of its pieces. These are made with the second comparison: who reads on in order needs none.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;

use super::frames::Frame;
use super::pack_map::PackMap;
use super::{Limits, Reader};
use crate::catalog::Location;
use crate::error::StoreError;
use crate::id::{ChunkId, PackId};
use crate::seal::ChunkType;

/// Bound of what is remembered, in pieces of some 40 bytes: 2.6 MB, or some 4,600 chunks of 1 MiB in frames of 128 KiB.
const KEPT: usize = 1 << 16;
/// What a chunk takes beside its pieces, in such pieces.
const CHUNK: usize = 4;

/// BLAKE3 of the piece of a chunk that lies in one frame.
type Sum = [u8; 32];

/// A chunk that was compared with its id, in one place.
#[derive(Debug)]
pub(super) struct Whole {
    pack: PackId,
    start: u32,
    len: u32,
    /// By piece, the number of the decoded frame that was compared last.
    frames: Box<[AtomicU64]>,
    /// By piece, once the chunk was compared a second time.
    sums: Option<Box<[Sum]>>,
}

impl Whole {
    fn is_at(&self, pack: &PackId, at: &Location) -> bool {
        (self.pack, self.start, self.len) == (*pack, at.start, at.len)
    }

    fn weight(&self) -> usize {
        CHUNK + self.frames.len()
    }

    fn has(&self, piece: usize, number: u64) -> bool {
        self.frames.get(piece).is_some_and(|known| known.load(Ordering::Relaxed) == number)
    }

    /// Whether these are the bytes that were compared; a frame that was decoded anew is known from then on.
    fn vouches_for(&self, piece: usize, number: u64, bytes: &[u8]) -> bool {
        if self.has(piece, number) {
            return true;
        }
        let sum = self.sums.as_ref().and_then(|sums| sums.get(piece));
        let is_same = sum.is_some_and(|sum| blake3::hash(bytes) == *sum);
        if is_same && let Some(known) = self.frames.get(piece) {
            known.store(number, Ordering::Relaxed);
        }
        is_same
    }
}

/// The chunks that were compared last.
#[derive(Debug)]
pub(super) struct Compared(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    chunks: LruCache<ChunkId, Arc<Whole>>,
    weight: usize,
}

impl Compared {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Kept { chunks: LruCache::unbounded(), weight: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &ChunkId, pack: &PackId, at: &Location) -> Option<Arc<Whole>> {
        self.lock().chunks.get(id).filter(|whole| whole.is_at(pack, at)).cloned()
    }

    fn put(&self, id: ChunkId, whole: Whole) {
        // A chunk of a forged pack may have a million pieces.
        if whole.weight() > KEPT {
            return;
        }
        let mut kept = self.lock();
        kept.weight += whole.weight();
        if let Some(old) = kept.chunks.put(id, Arc::new(whole)) {
            kept.weight -= old.weight();
        }
        while kept.weight > KEPT
            && let Some((_, old)) = kept.chunks.pop_lru()
        {
            kept.weight -= old.weight();
        }
    }
}

/// Where a part of a chunk lies in the raw stream of its pack.
struct Part {
    chunk: Range<u64>,
    bytes: Range<u64>,
    /// Of the chunk.
    all: Range<usize>,
    /// In which the part lies.
    touched: Range<usize>,
}

impl Part {
    fn of(at: &Location, map: &PackMap, range: &Range<u32>) -> Self {
        let start = u64::from(at.start);
        let chunk = start..start + u64::from(at.len);
        let bytes = start + u64::from(range.start)..start + u64::from(range.end);
        let all = map.frames_of(chunk.start, chunk.end);
        let touched = map.frames_of(bytes.start, bytes.end);
        Self { chunk, bytes, all, touched }
    }

    /// What frame `n` has of the chunk.
    fn piece(&self, map: &PackMap, n: usize, frame: &Frame) -> Bytes {
        map.cut(n, &frame.bytes, self.chunk.start, self.chunk.end)
    }

    /// What frame `n` has of the part.
    fn cut(&self, map: &PackMap, n: usize, frame: &Frame) -> Bytes {
        map.cut(n, &frame.bytes, self.bytes.start, self.bytes.end)
    }
}

impl Reader {
    /// Frames that must be at hand for a part of a chunk: those in which it lies if it is known that they are the chunk's, else all of it.
    pub(super) fn needed(
        &self,
        id: &ChunkId,
        at: &Location,
        map: &PackMap,
        range: Option<Range<u32>>,
    ) -> Range<usize> {
        let part = Part::of(at, map, &range.unwrap_or(0..at.len));
        if self.known_whole(id, at, map, &part).is_some() { part.touched } else { part.all }
    }

    /// Bytes `range`, which is not empty, of the data chunk at this place, once all of it was compared with its id.
    pub(super) fn read_part(
        &self,
        id: &ChunkId,
        at: &Location,
        map: &PackMap,
        range: &Range<u32>,
        limits: Limits,
    ) -> Result<Bytes, StoreError> {
        let part = Part::of(at, map, range);
        if self.reads_ahead {
            self.ahead.touched(map, &part.touched, &self.fetcher);
        }
        if let Some(whole) = self.known_whole(id, at, map, &part)
            && let Some(bytes) = self.read_known(&whole, map, &part, limits)?
        {
            return Ok(bytes);
        }
        self.compare(id, at, map, &part, limits)
    }

    /// What is known of a chunk, if that tells of the frames in which the part lies, as they are in memory or will be.
    fn known_whole(&self, id: &ChunkId, at: &Location, map: &PackMap, part: &Part) -> Option<Arc<Whole>> {
        let pack = map.row.entry.id;
        let whole = self.compared.get(id, &pack, at)?;
        let is_here = |n: usize| {
            let number = self.frames.number(&(pack, n as u32));
            number.is_some_and(|number| whole.has(n - part.all.start, number))
        };
        (whole.sums.is_some() || part.touched.clone().all(is_here)).then_some(whole)
    }

    /// The part, if its frames are those that were compared.
    fn read_known(
        &self,
        whole: &Whole,
        map: &PackMap,
        part: &Part,
        limits: Limits,
    ) -> Result<Option<Bytes>, StoreError> {
        let (mut last, mut cuts) = (None, Vec::with_capacity(part.touched.len()));
        for n in part.touched.clone() {
            let frame = self.frame(map, n..part.touched.end, limits, &mut last)?;
            if !whole.vouches_for(n - part.all.start, frame.number, &part.piece(map, n, &frame)) {
                return Ok(None);
            }
            cuts.push(part.cut(map, n, &frame));
        }
        Ok(Some(self.join(cuts)))
    }

    /// The part, after all of the chunk was compared.
    fn compare(
        &self,
        id: &ChunkId,
        at: &Location,
        map: &PackMap,
        part: &Part,
        limits: Limits,
    ) -> Result<Bytes, StoreError> {
        let pack = map.row.entry.id;
        let is_second = self.compared.get(id, &pack, at).is_some();
        let mut naming = self.sealer.name_chunk(ChunkType::Data);
        let (mut last, mut cuts) = (None, Vec::with_capacity(part.touched.len()));
        let (mut frames, mut sums) = (Vec::with_capacity(part.all.len()), Vec::new());
        for n in part.all.clone() {
            let frame = self.frame(map, n..part.all.end, limits, &mut last)?;
            let piece = part.piece(map, n, &frame);
            naming.update(&piece);
            frames.push(AtomicU64::new(frame.number));
            if is_second {
                sums.push(*blake3::hash(&piece).as_bytes());
            }
            if part.touched.contains(&n) {
                cuts.push(part.cut(map, n, &frame));
            }
        }
        if naming.finish() != *id {
            return Err(Self::other_content(id, map));
        }
        let sums = is_second.then(|| sums.into_boxed_slice());
        let whole = Whole { pack, start: at.start, len: at.len, frames: frames.into_boxed_slice(), sums };
        self.compared.put(*id, whole);
        Ok(self.join(cuts))
    }

    /// A chunk that is not what its id says in this pack. The log is told once.
    pub(super) fn other_content(id: &ChunkId, map: &PackMap) -> StoreError {
        if !map.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: chunk {id} has other content there; it is read from another place, if there is one",
                map.name
            );
        }
        StoreError::corrupt(format!("pack {}", map.row.entry.id), format!("chunk {id} has other content"))
    }

    fn join(&self, mut cuts: Vec<Bytes>) -> Bytes {
        if cuts.len() < 2 {
            return cuts.pop().unwrap_or_default();
        }
        let mut out = self.spares.joined.take();
        out.clear();
        out.reserve_exact(cuts.iter().map(Bytes::len).sum());
        cuts.iter().for_each(|cut| out.extend_from_slice(cut));
        self.spares.joined.lend(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalog::PackNo;

    const PACK: PackId = PackId([7; 32]);

    fn id(n: u32) -> ChunkId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        ChunkId(id)
    }

    fn whole(numbers: impl Iterator<Item = u64>, sums: Option<Box<[Sum]>>) -> Whole {
        Whole { pack: PACK, start: 0, len: 9, frames: numbers.map(AtomicU64::new).collect(), sums }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_place_is_known_only_as_it_was() {
        let compared = Compared::new();
        let at = Location { pack: PackNo(1), start: 0, len: 9, sum: 0 };
        let known = |n| compared.get(&id(n), &PACK, &at).is_some();
        for n in 0..20_000 {
            compared.put(id(n), whole(0..10, None));
        }
        for _ in 0..1000 {
            compared.put(id(20_000), whole(0..10, None));
        }
        let kept = compared.lock();
        let (weight, chunks) = (kept.weight, kept.chunks.len());
        drop(kept);
        assert!(weight <= KEPT && weight == chunks * (CHUNK + 10), "{weight}");
        assert!(known(20_000) && known(19_999) && !known(0));
        compared.put(id(20_001), whole(0..KEPT as u64, None));
        assert!(known(20_000) && !known(20_001), "one that would take all of it takes nothing");
        assert!(compared.get(&id(20_000), &PackId([8; 32]), &at).is_none());
        assert!(compared.get(&id(20_000), &PACK, &Location { start: 1, ..at }).is_none());
        assert!(compared.get(&id(20_000), &PACK, &Location { len: 8, ..at }).is_none());
    }

    #[test]
    fn only_the_frame_that_was_compared_is_known_or_one_of_the_same_bytes() {
        let by_number = whole([5, 6].into_iter(), None);
        assert!(by_number.vouches_for(0, 5, b"a") && by_number.vouches_for(1, 6, b"b"));
        assert!(!by_number.vouches_for(0, 6, b"a") && !by_number.vouches_for(2, 6, b"b"));
        let sums = [b"a", b"b"].map(|bytes| *blake3::hash(bytes).as_bytes());
        let by_sum = whole([5, 6].into_iter(), Some(sums.into()));
        assert!(!by_sum.vouches_for(0, 9, b"b") && !by_sum.has(0, 9));
        assert!(by_sum.vouches_for(0, 9, b"a") && by_sum.has(0, 9), "its number is known from now on");
        assert!(!by_sum.vouches_for(0, 5, b"b"), "and the one before is not");
    }
}
