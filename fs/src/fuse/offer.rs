//! Pages given to the kernel before it asks for them.
//!
//! A request is a round trip between two processors, which costs more than all the rest of reading a small file. So bytes that are
//! at hand and likely to be wanted go into the kernel's page cache unasked (`FUSE_NOTIFY_STORE`), where they are like any
//! others: it drops them when memory is short.
//!
//! - Who reads the files of a directory in order (`cp`, `tar`, `rsync`, `grep -r`) is given the next ones. One of them is
//!   left out: the request for it says that the reader came so far, and what it should be given next. Trust grows with each of these
//!   requests; with some of it the first read in a new directory is enough, and with more that it was listed.
//! - Who jumps about in a file (a database, a disk image) is given the rest of what had to be decoded for him anyway.
//!
//! Readers are told apart by the thread that the kernel names in each request, its read-ahead included: each earns and spends trust of its own. A walk
//! belongs to who began it, and whoever comes where it is takes it further: the threads of one program that share a directory, or
//! programs that are called for one file each. In a file, a read near the end of one of the last few streams goes on with that one.
//!
//! Only what lies on this machine is given, by a thread of its own: the kernel makes it wait while it asks for
//! the same page itself, and no answer may wait for that.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use fuser::{INodeNo, Notifier};
use lru::LruCache;

use crate::error::FsError;
use crate::lock::lock;
use crate::pool::guarded;
use crate::view::{Coming, View};

/// Offers that wait to be made; more are dropped.
const WAITING: usize = 64;

/// Directories that are being read through, and files that are being read, at once.
const DIRECTORIES: NonZeroUsize = NonZeroUsize::new(64).unwrap();
const FILES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Readers who are trusted, at once.
const READERS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Streams in one file that are told apart: two programs, or the threads of one.
const STREAMS: usize = 4;
/// Where a stream ended that never began.
const NOWHERE: u64 = u64::MAX;

/// Files of one offer: twice as many each time, and so many bytes of them.
const OFFER_FILES_MIN: usize = 8;
const OFFER_FILES_MAX: usize = 64;
const OFFER_BYTES: u64 = 2 << 20;

/// Entries looked at for one.
const OFFER_ENTRIES: u64 = 1024;

/// Larger files are not given: the kernel reads ahead in them by itself.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Entries that somebody who reads in order may pass over.
const GAP: u64 = 64;

/// New directories in which a reader who was found where he was expected is given files at once.
const TRUST_MAX: u32 = 16;
/// With less, also the last offer in a directory leaves a file out.
const TRUST_ENOUGH: u32 = 8;
/// After two reads in order.
const TRUST_BEGUN: u32 = 2;

/// Reads that lie farther than this, in bytes, from where each of the last streams ended are jumps. The kernel's own read-ahead may
/// ask for a few stretches out of order.
const NEAR: u64 = 1 << 20;

/// What the kernel is given unasked.
#[derive(Debug)]
pub struct Offers {
    readers: Arc<Mutex<Readers>>,
    queue: Sender<Offer>,
    jobs: Receiver<Offer>,
}

/// What to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// The files that come next in this directory.
    Next(Way),
    /// What was decoded with these bytes of a file.
    Beside { ino: u64, offset: u64, len: u64 },
}

/// A directory that is read, and the thread that began to: zero if the kernel does not know it here, as of a reader in another container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    directory: u64,
    reader: u32,
}

/// Somebody who reads the files of a directory in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Walk {
    /// Position after the file that was asked for last.
    next: u64,
    /// All before this position have been offered, or were passed over.
    front: u64,
    /// Files of the next offer.
    files: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was offered yet.
    New,
    /// An offer is being made.
    Making,
    /// The file at this position was left out: when it is asked for, the offers go on.
    Awaiting(u64),
    /// All of the directory was offered, but for the file at this position, if it says one.
    Done(Option<u64>),
}

/// Who reads what.
#[derive(Debug)]
struct Readers {
    walks: LruCache<Way, Walk>,
    trust: LruCache<u32, u32>,
    /// Where the last streams in a file ended, the newest first.
    ends: LruCache<u64, [u64; STREAMS]>,
}

impl Readers {
    fn new() -> Self {
        let (walks, trust) = (LruCache::new(DIRECTORIES), LruCache::new(READERS));
        Self { walks, trust, ends: LruCache::new(FILES) }
    }

    /// A file was asked for from its beginning; the walk of which an offer is to be made, if any.
    fn began(&mut self, by: Way, ordinal: u64) -> Option<Way> {
        let Some((way, mut walk)) = self.walk_at(by, ordinal) else {
            return self.begin(by, ordinal + 1).then_some(by);
        };
        walk.next = ordinal + 1;
        let (more, trust) = match walk.stage {
            Stage::New => (true, TRUST_BEGUN),
            Stage::Awaiting(awaited) if ordinal == awaited => (true, TRUST_MAX),
            Stage::Awaiting(awaited) => (ordinal > awaited, 0),
            Stage::Done(Some(awaited)) if ordinal == awaited => (false, TRUST_MAX),
            Stage::Making | Stage::Done(_) => (false, 0),
        };
        self.earn(by.reader, trust);
        if more {
            walk.stage = Stage::Making;
        }
        self.walks.put(way, walk);
        more.then_some(way)
    }

    /// The walk that a read of the file at this position goes on with: the reader's own, or else anybody's.
    fn walk_at(&self, by: Way, ordinal: u64) -> Option<(Way, Walk)> {
        let own = self.walks.peek(&by).filter(|walk| walk.stage == Stage::Making || walk.comes_to(ordinal));
        let shared = |(way, walk): &(&Way, &Walk)| way.directory == by.directory && walk.comes_to(ordinal);
        let found = own.map(|walk| (&by, walk)).or_else(|| self.walks.iter().find(shared));
        found.map(|(way, walk)| (*way, *walk))
    }

    /// A directory was listed to its end; whether an offer is to be made of what is in it.
    fn listed(&mut self, by: Way) -> bool {
        self.trust(by.reader) >= TRUST_ENOUGH && self.begin(by, 0)
    }

    fn begin(&mut self, by: Way, next: u64) -> bool {
        let trust = self.trust(by.reader);
        let files = if trust >= TRUST_ENOUGH { OFFER_FILES_MAX / 2 } else { OFFER_FILES_MIN };
        let stage = if trust > 0 { Stage::Making } else { Stage::New };
        if let Some(trust) = self.trust.get_mut(&by.reader) {
            *trust = trust.saturating_sub(1);
        }
        self.walks.put(by, Walk { next, front: next, files, stage });
        trust > 0
    }

    fn trust(&self, reader: u32) -> u32 {
        self.trust.peek(&reader).copied().unwrap_or(0)
    }

    fn earn(&mut self, reader: u32, trust: u32) {
        if trust > self.trust(reader) {
            self.trust.put(reader, trust);
        }
    }

    /// An offer was made; whether the next one is to be made at once.
    fn offered(&mut self, way: Way, front: u64, stage: Stage) -> bool {
        let Some(walk) = self.walks.get_mut(&way) else { return false };
        let more = matches!(stage, Stage::Awaiting(awaited) if awaited < walk.next && walk.next <= front);
        walk.front = front;
        walk.files = (walk.files * 2).min(OFFER_FILES_MAX);
        walk.stage = if more { Stage::Making } else { stage };
        more
    }

    /// Whether this read goes on with none of the streams in its file.
    fn jumped(&mut self, ino: u64, offset: u64, len: u64) -> bool {
        let ends = self.ends.get_or_insert_mut(ino, || [NOWHERE; STREAMS]);
        let stream = ends.iter().position(|end| offset.abs_diff(*end) <= NEAR);
        // The one that goes on, or else the oldest, becomes the newest.
        let (passed, _) = ends.split_at_mut(stream.map_or(STREAMS, |at| at + 1));
        passed.rotate_right(1);
        if let Some(newest) = passed.first_mut() {
            *newest = offset.saturating_add(len);
        }
        offset > 0 && stream.is_none()
    }
}

impl Walk {
    /// Whether a read of the file at this position may be the next one in order.
    fn comes_to(&self, ordinal: u64) -> bool {
        ordinal >= self.next && ordinal <= self.front.saturating_add(GAP)
    }
}

impl Default for Offers {
    /// None made yet: see [`serve`](Offers::serve).
    fn default() -> Self {
        let (queue, jobs) = bounded(WAITING);
        Self { readers: Arc::new(Mutex::new(Readers::new())), queue, jobs }
    }
}

impl Offers {
    /// Makes the offers by a thread of its own, which ends when these are dropped.
    pub fn serve(&self, view: Arc<View>, notifier: Notifier) -> std::io::Result<()> {
        let maker = Maker { view, notifier, readers: self.readers.clone() };
        let jobs = self.jobs.clone();
        let work = move || jobs.iter().for_each(|offer| maker.make(offer));
        thread::Builder::new().name("holdfast-offer".into()).spawn(work)?;
        Ok(())
    }

    /// A read is about to be answered.
    pub fn asked(&self, view: &View, reader: u32, ino: u64, offset: u64) {
        let standing = if offset == 0 { view.standing(ino) } else { None };
        let Some((directory, ordinal)) = standing else { return };
        // Not in the condition, which would keep the lock: an offer that finds no room takes it.
        let way = lock(&self.readers).began(Way { directory, reader }, ordinal);
        if let Some(way) = way {
            self.submit(Offer::Next(way));
        }
    }

    /// A listing was answered with its end.
    pub fn listed(&self, reader: u32, directory: u64) {
        let way = Way { directory, reader };
        if lock(&self.readers).listed(way) {
            self.submit(Offer::Next(way));
        }
    }

    /// A read was answered.
    pub fn answered(&self, ino: u64, offset: u64, len: u64) {
        if lock(&self.readers).jumped(ino, offset, len) {
            self.submit(Offer::Beside { ino, offset, len });
        }
    }

    fn submit(&self, offer: Offer) {
        if let (Err(_), Offer::Next(way)) = (self.queue.try_send(offer), offer) {
            lock(&self.readers).walks.pop(&way);
        }
    }
}

/// Makes offers.
struct Maker {
    view: Arc<View>,
    notifier: Notifier,
    readers: Arc<Mutex<Readers>>,
}

impl Maker {
    fn make(&self, offer: Offer) {
        let made = guarded(|| match offer {
            Offer::Next(way) => {
                while self.next(way)? {}
                Ok(())
            }
            Offer::Beside { ino, offset, len } => {
                let beside = self.view.decoded_beside(ino, offset, len)?;
                beside.iter().for_each(|(offset, bytes)| self.give(ino, *offset, bytes));
                Ok(())
            }
        });
        if let Err(error) = made {
            tracing::debug!(?offer, %error, "not offered");
            if let Offer::Next(way) = offer {
                lock(&self.readers).walks.pop(&way);
            }
        }
    }

    /// Gives the next files of a directory; whether the reader is already where he should be given more.
    fn next(&self, way: Way) -> Result<bool, FsError> {
        let Some(walk) = self.walk(way) else { return Ok(false) };
        let from = walk.front.max(walk.next);
        let chosen = self.choose(way.directory, from, walk.files)?;
        let left_out = chosen.left_out(lock(&self.readers).trust(way.reader));
        let mut front = chosen.front;
        for file in &chosen.files {
            let passed = self.walk(way).is_none_or(|walk| file.ordinal < walk.next);
            let (Some(ino), false) = (file.ino, passed || Some(file.ordinal) == left_out) else { continue };
            let Ok(bytes) = self.view.content_here(file) else {
                // The reader will ask for it himself.
                front = file.ordinal;
                break;
            };
            self.give(ino, 0, &bytes);
        }
        let stage = match (front == chosen.front && chosen.all, left_out) {
            (true, left_out) => Stage::Done(left_out),
            (false, Some(left_out)) => Stage::Awaiting(left_out.min(front)),
            (false, None) => Stage::Awaiting(front),
        };
        Ok(lock(&self.readers).offered(way, front, stage))
    }

    /// The files of the next offer.
    fn choose(&self, directory: u64, from: u64, files: usize) -> Result<Chosen, FsError> {
        let mut chosen = Chosen { files: Vec::new(), front: from, all: false };
        let mut bytes = 0;
        while chosen.files.len() < files && bytes < OFFER_BYTES && chosen.front - from < OFFER_ENTRIES {
            let listed = self.view.coming(directory, chosen.front, files)?;
            let Some(last) = listed.last() else {
                chosen.all = true;
                break;
            };
            chosen.front = last.ordinal + 1;
            for file in listed {
                if chosen.files.len() == files || bytes >= OFFER_BYTES {
                    chosen.front = file.ordinal;
                    break;
                }
                if (1..=FILE_BYTES_MAX).contains(&file.room()) {
                    bytes += file.room();
                    chosen.files.push(file);
                }
            }
        }
        Ok(chosen)
    }

    fn walk(&self, way: Way) -> Option<Walk> {
        lock(&self.readers).walks.peek(&way).copied()
    }

    fn give(&self, ino: u64, offset: u64, bytes: &[u8]) {
        if let Err(error) = self.notifier.store(INodeNo(ino), offset, bytes) {
            tracing::debug!(ino, %error, "the kernel did not take what it was offered");
        }
    }
}

/// Files to give.
#[derive(Debug)]
struct Chosen {
    files: Vec<Coming>,
    /// Position after all that were looked at.
    front: u64,
    /// Whether the directory ends there.
    all: bool,
}

impl Chosen {
    /// The file that is not given, so that the reader asks for it: half way, or else the last of the directory if it is not
    /// yet sure that he gets there.
    fn left_out(&self, trust: u32) -> Option<u64> {
        let file = match (self.all, trust < TRUST_ENOUGH) {
            (false, _) => self.files.get(self.files.len() / 2),
            (true, true) => self.files.last(),
            (true, false) => None,
        };
        file.map(|file| file.ordinal)
    }
}

#[cfg(test)]
mod tests;
