//! Recovery points out of an open store.
//!
//! One [`Attempt`] is made per request. It stands between the readers of directories and lists and the store's read engine, and
//! refuses what is not in memory when there is no patience for it: so the same code answers both kinds of request.
//! Pages of directories are parsed once and shared by all points; of long files the list page that was used last is kept.

mod attempt;
mod few;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_store::clock::{Deadline, Timestamp};
use holdfast_store::error::StoreError;
use holdfast_store::id::{ChunkId, RecoveryPointId};
use holdfast_store::reader::Tier;
use holdfast_store::store::{PointBrief, Store};
use holdfast_store::tree::content::ContentReader;
use holdfast_store::tree::walk::{Directory, PageCache, Pages};
use holdfast_store::tree::{ChunkSource, Content, Extent, Node};
use lru::LruCache;

use super::{Patience, Reach, Recovery, Refusal, Seek, Stored, Totals};
use crate::kept::memory;
use crate::lock::lock;
use attempt::Attempt;
use few::FewPages;

/// Long files whose last used list pages are kept: up to 200 KB each.
const LISTS_KEPT: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Long files whose bytes outside holes are known.
const SIZES_KEPT: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// The least that is missing from a file's size for it to be taken for one with holes.
const HOLE_SOMEWHERE: u64 = 4096;

/// What is in memory is there at once, unless it was let go of a moment ago.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What lies on this machine is there soon.
const SOON: Duration = Duration::from_secs(1);

/// Extents that are looked at to say where a file is: those of a terabyte. What comes after is taken to be no farther.
const LOOKED_AT_MAX: usize = 1 << 20;

/// Extents between two looks at the clock.
const LOOK_EVERY: usize = 1024;

/// Bytes of nodes after which a listing pauses: with long attributes a few thousand would be hundreds of megabytes.
const LISTED_MAX: usize = 1 << 20;

type ListKey = [u8; 32];

/// Answers from a store.
#[derive(Debug)]
pub struct StoreRecovery {
    store: Arc<Store>,
    counted: Mutex<HashMap<RecoveryPointId, Totals>>,
    pages: Arc<PageCache>,
    lists: Mutex<LruCache<ListKey, ContentReader>>,
    sizes: Mutex<LruCache<ListKey, u64>>,
}

impl StoreRecovery {
    /// Answers from this store.
    ///
    /// Parsed pages of directories are kept up to `pages` bytes: about 1,500 entries a megabyte.
    pub fn new(store: Arc<Store>, pages: usize) -> Self {
        Self {
            store,
            counted: Mutex::default(),
            pages: Arc::new(PageCache::new(pages)),
            lists: Mutex::new(LruCache::new(LISTS_KEPT)),
            sizes: Mutex::new(LruCache::new(SIZES_KEPT)),
        }
    }

    fn attempt(&self, patience: Patience) -> Arc<Attempt> {
        let within = |time| Deadline::after(&**self.store.clock(), time);
        let (farthest, only, deadline) = match patience {
            Patience::Now => (Tier::Memory, None, within(AT_ONCE)),
            Patience::Here => (Tier::Cache, None, within(SOON)),
            Patience::Local(deadline) => (Tier::Cache, None, deadline),
            Patience::Of(vault, deadline) => (Tier::Vault, Some(vault), deadline),
            Patience::Until(deadline) => (Tier::Vault, None, deadline),
        };
        let reader = self.store.reader().clone();
        Arc::new(Attempt { reader, farthest, only, deadline, refused: Mutex::default() })
    }

    /// What one point holds. Others do not wait for its decoding.
    fn counted(&self, point: &RecoveryPointId) -> Totals {
        if let Some(known) = { lock(&self.counted).get(point).copied() } {
            return known;
        }
        // What cannot be decoded counts nothing now.
        let Ok(decoded) = self.store.decode_point(point) else { return Totals::default() };
        let one = Totals::of(&decoded.counts);
        lock(&self.counted).insert(*point, one);
        one
    }

    fn directory<T>(
        &self,
        tree: &ChunkId,
        patience: Patience,
        ask: impl FnOnce(&Directory, Deadline) -> Result<T, StoreError>,
    ) -> Result<T, Refusal> {
        let attempt = self.attempt(patience);
        let pages = Pages::cached(attempt.clone(), self.pages.clone());
        let directory = Directory::open(&pages, tree, attempt.deadline);
        attempt.end(directory.and_then(|directory| ask(&directory, attempt.deadline)))
    }

    /// The reader of a list is taken out while it is used, so that nobody waits for one who waits for a vault.
    fn list_of<T>(&self, content: &Content, ask: impl FnOnce(&mut ContentReader) -> T) -> T {
        let Some(key) = list_key(content) else { return ask(&mut ContentReader::new(content.clone())) };
        let kept = lock(&self.lists).pop(&key);
        let mut list = kept.unwrap_or_else(|| ContentReader::new(content.clone()));
        let answer = ask(&mut list);
        lock(&self.lists).put(key, list);
        answer
    }

    /// Stretches of `range`: where each begins in its extent, and the extent.
    fn parts(
        &self,
        content: &Content,
        range: &Range<u64>,
        attempt: &Attempt,
    ) -> Result<Vec<(Extent, Range<u64>)>, StoreError> {
        self.list_of(content, |list| {
            let mut parts = Vec::new();
            for item in list.extents(attempt, range.start, attempt.deadline) {
                let (start, extent) = item?;
                if start >= range.end {
                    break;
                }
                let end = start.saturating_add(extent.len()).min(range.end);
                let from = range.start.max(start);
                parts.push((extent, from - start..end.saturating_sub(start)));
            }
            Ok(parts)
        })
    }

    fn sum_stored(
        &self,
        content: &Content,
        pages: &dyn ChunkSource,
        until: Deadline,
    ) -> Result<u64, StoreError> {
        self.list_of(content, |list| {
            let mut extents = list.extents(pages, 0, until);
            extents.try_fold(0u64, |sum, item| match item?.1 {
                Extent::Data { len, .. } => Ok(sum.saturating_add(u64::from(len))),
                Extent::Hole { .. } => Ok(sum),
            })
        })
    }

    fn farthest(&self, content: &Content, attempt: &Attempt) -> Result<Option<Tier>, StoreError> {
        let mut farthest = None;
        self.each_chunk(content, attempt, |id| {
            farthest = farthest.max(Some(attempt.reader.tier(id)?));
            Ok(farthest != Some(Tier::Vault))
        })?;
        Ok(farthest)
    }

    /// The time of the pack that waits longest for being proven; `None` if one never was.
    fn proven(&self, content: &Content, attempt: &Attempt) -> Result<Option<Timestamp>, StoreError> {
        let mut times = HashMap::new();
        self.each_chunk(content, attempt, |id| {
            let pack = attempt.reader.pack_of(id)?;
            if let Entry::Vacant(place) = times.entry(pack) {
                place.insert(self.store.catalog().verified(pack)?);
            }
            Ok(times[&pack].is_some())
        })?;
        Ok(times.into_values().min().flatten())
    }

    /// Shows the chunks of a file in their order, as long as `go_on` says true.
    fn each_chunk(
        &self,
        content: &Content,
        attempt: &Attempt,
        mut go_on: impl FnMut(&ChunkId) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.list_of(content, |list| {
            // A list whose pages repeat each other has more extents than anybody could look at.
            for (n, item) in list.extents(attempt, 0, attempt.deadline).take(LOOKED_AT_MAX).enumerate() {
                if n % LOOK_EVERY == 0 && attempt.deadline.passed(&**self.store.clock()) {
                    return Err(StoreError::Timeout { what: "a long list of chunks".to_owned() });
                }
                if let Extent::Data { id, .. } = item?.1
                    && !go_on(&id)?
                {
                    break;
                }
            }
            Ok(())
        })
    }
}

impl Recovery for StoreRecovery {
    fn stamp(&self) -> Result<i64, StoreError> {
        self.store.staging().close_replaced();
        self.store.catalog().points_stamp()
    }

    fn points(&self) -> Result<Vec<PointBrief>, StoreError> {
        self.store.point_briefs()
    }

    /// Never at once: a point may be a megabyte to decode.
    fn root(&self, point: &RecoveryPointId, patience: Patience) -> Result<Node, Refusal> {
        not_at_once(patience)?;
        let decoded = match patience {
            Patience::Of(_, deadline) | Patience::Until(deadline) => {
                self.store.decode_point_from_anywhere(point, deadline)
            }
            Patience::Now | Patience::Here | Patience::Local(_) => match self.store.decode_point(point) {
                // A vault may have what its row in the catalog lost.
                Err(StoreError::Corrupt { .. }) => return Err(Refusal::Later(Reach::VAULT)),
                decoded => decoded,
            },
        };
        Ok(decoded?.root)
    }

    /// Each point is decoded once, when somebody first asks for the sum of all.
    fn totals(&self, patience: Patience) -> Result<Totals, Refusal> {
        not_at_once(patience)?;
        let (clock, deadline) = (self.store.clock(), self.attempt(patience).deadline);
        let ids = self.store.catalog().point_ids()?;
        let mut sum = Totals::default();
        for (id, _) in &ids {
            if deadline.passed(&**clock) {
                return Err(StoreError::Timeout { what: "the sum of all points".to_owned() }.into());
            }
            sum = sum.and(self.counted(id));
        }
        let there: HashSet<_> = ids.into_iter().map(|(id, _)| id).collect();
        lock(&self.counted).retain(|id, _| there.contains(id));
        Ok(sum)
    }

    fn find(&self, tree: &ChunkId, name: &[u8], patience: Patience) -> Result<Option<(u64, Node)>, Refusal> {
        self.directory(tree, patience, |directory, deadline| {
            let mut entries = directory.entries_from(name, deadline)?;
            let ordinal = entries.position();
            let node = entries.next().transpose()?.filter(|node| node.name == name);
            Ok(node.map(|node| (ordinal, node.to_node())))
        })
    }

    fn list(&self, tree: &ChunkId, from: u64, most: usize, patience: Patience) -> Result<Vec<Node>, Refusal> {
        self.directory(tree, patience, |directory, deadline| {
            let (mut nodes, mut bytes) = (Vec::new(), 0);
            for node in directory.entries_at(from, deadline)?.take(most) {
                let node = node?.to_node();
                bytes += memory(&node);
                nodes.push(node);
                if bytes >= LISTED_MAX {
                    break;
                }
            }
            Ok(nodes)
        })
    }

    fn read(&self, content: &Content, range: Range<u64>, patience: Patience) -> Result<Bytes, Refusal> {
        let attempt = self.attempt(patience);
        let parts = self.parts(content, &range, &attempt);
        let read = parts.and_then(|parts| match parts.as_slice() {
            [(extent, range)] => attempt.read(extent, range),
            many => {
                let mut out = BytesMut::new();
                many.iter().try_for_each(|(extent, range)| {
                    out.extend_from_slice(&attempt.read(extent, range)?);
                    Ok::<_, StoreError>(())
                })?;
                Ok(out.freeze())
            }
        });
        attempt.end(read)
    }

    fn stretch(&self, content: &Content, at: u64, patience: Patience) -> Result<Range<u64>, Refusal> {
        not_at_once(patience)?;
        let attempt = self.attempt(patience);
        let parts = self.parts(content, &(at..at.saturating_add(1)), &attempt);
        let stretch = parts.and_then(|parts| match parts.first() {
            Some((Extent::Data { id, .. }, range)) => {
                let within = attempt.reader.decoded_with(id, range.start as u32)?;
                let begin = at - range.start;
                Ok(begin + u64::from(within.start)..begin + u64::from(within.end))
            }
            _ => Ok(at..at.saturating_add(1)),
        });
        attempt.end(stretch)
    }

    fn seek(
        &self,
        content: &Content,
        offset: u64,
        seek: Seek,
        patience: Patience,
    ) -> Result<Option<u64>, Refusal> {
        let attempt = self.attempt(patience);
        let found = self.list_of(content, |list| match seek {
            Seek::Data => list.seek_data(&*attempt, offset, attempt.deadline),
            Seek::Hole => list.seek_hole(&*attempt, offset, attempt.deadline),
        });
        attempt.end(found)
    }

    /// A list page may be damaged or in a vault that is away, while the directory's own page is here: listing that must not fail, or take seconds,
    /// for one number of one file.
    fn stored(&self, content: &Content, size: u64, patience: Patience) -> Result<Stored, Refusal> {
        if let Content::Inline(extents) = content {
            return Ok(Stored { bytes: stored_of(extents), lasts: true });
        }
        let key = list_key(content);
        if let Some(bytes) = key.and_then(|key| lock(&self.sizes).get(&key).copied()) {
            return Ok(Stored { bytes, lasts: true });
        }
        let rough = size.saturating_sub(HOLE_SOMEWHERE);
        let attempt = self.attempt(match patience {
            Patience::Of(_, deadline) | Patience::Until(deadline) => Patience::Local(deadline),
            near => near,
        });
        let pages = FewPages::new(&*attempt);
        let sum = self.sum_stored(content, &pages, attempt.deadline);
        let bytes = match attempt.end(sum) {
            Ok(sum) => sum,
            Err(_) if pages.gave_up() => rough,
            Err(Refusal::Later(Reach::Local)) => return Err(Refusal::Later(Reach::Local)),
            Err(_) => return Ok(Stored { bytes: rough, lasts: false }),
        };
        if let Some(key) = key {
            lock(&self.sizes).put(key, bytes);
        }
        Ok(Stored { bytes, lasts: true })
    }

    fn verified(&self, content: &Content, patience: Patience) -> Result<Option<Timestamp>, Refusal> {
        not_at_once(patience)?;
        let attempt = self.attempt(patience);
        attempt.end(self.proven(content, &attempt))
    }

    fn tier(&self, content: &Content, patience: Patience) -> Result<Option<Tier>, Refusal> {
        not_at_once(patience)?;
        let attempt = self.attempt(patience);
        attempt.end(self.farthest(content, &attempt))
    }
}

/// The catalog and the cache lie on disks, which may hang: nobody asks them on a thread that talks to the kernel.
fn not_at_once(patience: Patience) -> Result<(), Refusal> {
    if patience == Patience::Now { Err(Refusal::Later(Reach::Local)) } else { Ok(()) }
}

/// Bytes of these extents that are not holes.
fn stored_of(extents: &[Extent]) -> u64 {
    let data = extents.iter().filter(|extent| matches!(extent, Extent::Data { .. }));
    data.fold(0, |sum, extent| sum.saturating_add(extent.len()))
}

/// Names a long list by all of its pages: images of one disk in two points begin alike and are equally long.
fn list_key(content: &Content) -> Option<ListKey> {
    match content {
        Content::Inline(_) => None,
        Content::Paged { .. } => Some(content.fingerprint()),
    }
}
