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
//! Who reads is not told apart: one walk earns trust, and one that only lists spends it, whosever they are.
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

/// Reads that lie farther than this, in bytes, from where the last one ended are jumps. The kernel's own read-ahead may
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
    Next { directory: u64 },
    /// What was decoded with these bytes of a file.
    Beside { ino: u64, offset: u64, len: u64 },
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
    walks: LruCache<u64, Walk>,
    ends: LruCache<u64, u64>,
    trust: u32,
}

impl Readers {
    fn new() -> Self {
        Self { walks: LruCache::new(DIRECTORIES), ends: LruCache::new(FILES), trust: 0 }
    }

    /// A file was asked for from its beginning; whether an offer is to be made of what comes after it.
    fn began(&mut self, directory: u64, ordinal: u64) -> bool {
        let known = self.walks.get(&directory).copied();
        let Some(mut walk) = known.filter(|walk| walk.goes_on_at(ordinal)) else {
            return self.begin(directory, ordinal + 1);
        };
        walk.next = ordinal + 1;
        let (more, trust) = match walk.stage {
            Stage::New => (true, TRUST_BEGUN),
            Stage::Awaiting(awaited) if ordinal == awaited => (true, TRUST_MAX),
            Stage::Awaiting(awaited) => (ordinal > awaited, 0),
            Stage::Done(Some(awaited)) if ordinal == awaited => (false, TRUST_MAX),
            Stage::Making | Stage::Done(_) => (false, 0),
        };
        self.trust = self.trust.max(trust);
        if more {
            walk.stage = Stage::Making;
        }
        self.walks.put(directory, walk);
        more
    }

    /// A directory was listed to its end; whether an offer is to be made of what is in it.
    fn listed(&mut self, directory: u64) -> bool {
        self.trust >= TRUST_ENOUGH && self.begin(directory, 0)
    }

    fn begin(&mut self, directory: u64, next: u64) -> bool {
        let trusted = self.trust > 0;
        let files = if self.trust >= TRUST_ENOUGH { OFFER_FILES_MAX / 2 } else { OFFER_FILES_MIN };
        let stage = if trusted { Stage::Making } else { Stage::New };
        self.trust = self.trust.saturating_sub(1);
        self.walks.put(directory, Walk { next, front: next, files, stage });
        trusted
    }

    /// An offer was made; whether the next one is to be made at once.
    fn offered(&mut self, directory: u64, front: u64, stage: Stage) -> bool {
        let Some(walk) = self.walks.get_mut(&directory) else { return false };
        let more = matches!(stage, Stage::Awaiting(awaited) if awaited < walk.next && walk.next <= front);
        walk.front = front;
        walk.files = (walk.files * 2).min(OFFER_FILES_MAX);
        walk.stage = if more { Stage::Making } else { stage };
        more
    }

    /// Whether this read jumps about in its file.
    fn jumped(&mut self, ino: u64, offset: u64, len: u64) -> bool {
        let before = self.ends.put(ino, offset.saturating_add(len));
        offset > 0 && before.is_none_or(|end| offset.abs_diff(end) > NEAR)
    }
}

impl Walk {
    /// Whether a read of the file at this position may be the next one in order.
    fn goes_on_at(&self, ordinal: u64) -> bool {
        self.stage == Stage::Making || (ordinal >= self.next && ordinal <= self.front.saturating_add(GAP))
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
    pub fn asked(&self, view: &View, ino: u64, offset: u64) {
        if offset == 0
            && let Some((directory, ordinal)) = view.standing(ino)
            && lock(&self.readers).began(directory, ordinal)
        {
            self.submit(Offer::Next { directory });
        }
    }

    /// A listing was answered with its end.
    pub fn listed(&self, directory: u64) {
        if lock(&self.readers).listed(directory) {
            self.submit(Offer::Next { directory });
        }
    }

    /// A read was answered.
    pub fn answered(&self, ino: u64, offset: u64, len: u64) {
        if lock(&self.readers).jumped(ino, offset, len) {
            self.submit(Offer::Beside { ino, offset, len });
        }
    }

    fn submit(&self, offer: Offer) {
        if let (Err(_), Offer::Next { directory }) = (self.queue.try_send(offer), offer) {
            lock(&self.readers).walks.pop(&directory);
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
            Offer::Next { directory } => {
                while self.next(directory)? {}
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
            if let Offer::Next { directory } = offer {
                lock(&self.readers).walks.pop(&directory);
            }
        }
    }

    /// Gives the next files of a directory; whether the reader is already where he should be given more.
    fn next(&self, directory: u64) -> Result<bool, FsError> {
        let Some(walk) = self.walk(directory) else { return Ok(false) };
        let from = walk.front.max(walk.next);
        let chosen = self.choose(directory, from, walk.files)?;
        let left_out = chosen.left_out(lock(&self.readers).trust);
        let mut front = chosen.front;
        for file in &chosen.files {
            let passed = self.walk(directory).is_none_or(|walk| file.ordinal < walk.next);
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
        Ok(lock(&self.readers).offered(directory, front, stage))
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

    fn walk(&self, directory: u64) -> Option<Walk> {
        lock(&self.readers).walks.peek(&directory).copied()
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
