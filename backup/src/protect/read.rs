//! Readers: open, cut, name and compress files, and notice when one changes meanwhile.

use std::ops::Range;

use crossbeam_channel::Receiver;
use holdfast_store::StoreError;
use holdfast_store::chunk_store::{GROUP_LEN, TreeSink};
use holdfast_store::chunker::Chunker;
use holdfast_store::monitor::Event;
use holdfast_store::pack::{FrameBuilder, PackKind};
use holdfast_store::seal::ChunkType;
use holdfast_store::tree::content::ContentBuilder;
use holdfast_store::tree::{Extent, Node};

use super::batch::{BatchWork, Outcome};
use super::compare::is_settled;
use super::{Work, add};
use crate::error::SourceError;
use crate::source::{Found, OpenFile};

/// A file that changes while it is read is read this often.
const ATTEMPTS: usize = 3;
/// Bytes read at once, beyond what the chunker wants to see.
const READ_LEN: usize = 1 << 20;

/// Why a file has no content: its own trouble, or the store's, which ends the session.
enum ReadError {
    Source(SourceError),
    Store(StoreError),
}

/// Reads batches until there are no more.
pub(super) fn read_batches(work: &Work<'_>, batches: &Receiver<BatchWork>) -> Result<(), StoreError> {
    let mut reader = FileReader::new(work);
    for mut batch in batches {
        // Never pass over a batch: its files would be missing without trouble having been told.
        if work.stopping() {
            return Err(StoreError::Cancelled);
        }
        for file in std::mem::take(&mut batch.files) {
            let outcome = reader.outcome(&file)?;
            batch.outcome(outcome);
        }
        // Before the batch is answered for: what the assembly writes must not overtake what it refers to by much.
        reader.deliver()?;
    }
    reader.lists.finish()
}

struct FileReader<'a> {
    work: &'a Work<'a>,
    chunker: Chunker,
    frames: FrameBuilder,
    lists: TreeSink<'a>,
    buffer: Vec<u8>,
}

impl<'a> FileReader<'a> {
    fn new(work: &'a Work<'a>) -> Self {
        let ingest = work.session.ingest();
        let chunker = work.session.store().chunker();
        Self { work, chunker, frames: ingest.frames(), lists: TreeSink::new(ingest), buffer: Vec::new() }
    }

    fn deliver(&mut self) -> Result<(), StoreError> {
        self.work.session.ingest().deliver(PackKind::Data, self.frames.take())
    }

    /// The file's node with its content, or that its trouble was told.
    fn outcome(&mut self, file: &Found) -> Result<Outcome, StoreError> {
        let node = match self.read_stable(file) {
            Ok(node) => node,
            Err(ReadError::Store(e)) => return Err(e),
            Err(ReadError::Source(e)) => {
                self.work.trouble(file.path(), e.to_string());
                return Ok(Outcome::Trouble);
            }
        };
        let tally = &self.work.tally;
        add(&tally.files_read, 1);
        add(&tally.files_new, u64::from(file.previous.is_none() && !file.unchanged));
        add(&tally.bytes_read, node.size);
        add(&tally.bytes, node.size);
        self.work.monitor.event(Event::Done { files: 1, bytes: node.size });
        Ok(Outcome::Read(Box::new(node)))
    }

    /// Reads until the file holds still; the last reading counts, with trouble told, if it never does.
    fn read_stable(&mut self, file: &Found) -> Result<Node, ReadError> {
        let Some(opener) = &file.opener else {
            return Err(ReadError::Store(StoreError::invalid("a file without an opener")));
        };
        for attempt in 1.. {
            let mut open = opener.open().map_err(ReadError::Source)?;
            // What is younger is read again next time, whatever happens to it now.
            if is_settled(file.node.ctime, self.work.started) {
                open.write_out();
            }
            let mut node = open.describe().map_err(ReadError::Source)?;
            let as_described = node.clone();
            self.read_content(open.as_mut(), &mut node)?;
            if node.size == as_described.size
                && !open.changed_since(&as_described).map_err(ReadError::Source)?
            {
                return Ok(node);
            }
            if attempt == ATTEMPTS || self.work.stopping() {
                self.work.trouble(file.path(), "the file changed while it was read".into());
                return Ok(node);
            }
        }
        unreachable!("the loop ends by returning")
    }

    fn read_content(&mut self, open: &mut dyn OpenFile, node: &mut Node) -> Result<(), ReadError> {
        let mut content = ContentBuilder::new();
        let mut at = 0;
        while let Some(data) = open.next_data(at).map_err(ReadError::Source)? {
            let data = data.start.min(node.size)..data.end.min(node.size);
            self.push(&mut content, at..data.start, None)?;
            let read = self.read_data(open, data.clone(), &mut content)?;
            at = data.start + read;
            if at < data.end {
                // Truncated meanwhile: it has this length now.
                node.size = at;
            }
            if at >= node.size {
                break;
            }
        }
        self.push(&mut content, at..node.size, None)?;
        node.content = Some(content.finish(&mut self.lists).map_err(ReadError::Store)?);
        Ok(())
    }

    /// Adds a hole, or a chunk of the length of `range`.
    fn push(
        &mut self,
        content: &mut ContentBuilder,
        range: Range<u64>,
        chunk: Option<holdfast_store::id::ChunkId>,
    ) -> Result<(), ReadError> {
        if range.is_empty() {
            return Ok(());
        }
        let len = range.end - range.start;
        let extent = match chunk {
            Some(id) => Extent::Data { id, len: len as u32 },
            None => Extent::Hole { len },
        };
        content.push(extent, &mut self.lists).map_err(ReadError::Store)
    }

    /// Cuts and stores `data` of the file; how much of it there was.
    fn read_data(
        &mut self,
        open: &mut dyn OpenFile,
        data: Range<u64>,
        content: &mut ContentBuilder,
    ) -> Result<u64, ReadError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let (mut read, mut taken, mut ended) = (data.start, 0, false);
        let mut at = data.start;
        loop {
            while !ended && buffer.len() - taken < self.chunker.max() {
                buffer.drain(..taken);
                taken = 0;
                let filled = buffer.len();
                let want = (data.end - read).min((self.chunker.max() + READ_LEN - filled) as u64) as usize;
                buffer.resize(filled + want, 0);
                let got = open.read_at(read, &mut buffer[filled..]).map_err(ReadError::Source)?;
                buffer.truncate(filled + got);
                read += got as u64;
                ended = got < want || read == data.end;
            }
            if taken == buffer.len() {
                break;
            }
            let len = self.chunker.cut(&buffer[taken..]);
            let plain = &buffer[taken..taken + len];
            let ingest = self.work.session.ingest();
            let id = ingest.name(ChunkType::Data, plain);
            if ingest.claim(&id).map_err(ReadError::Store)? {
                self.frames.push(id, plain);
                if self.frames.raw_len() >= GROUP_LEN {
                    self.deliver().map_err(ReadError::Store)?;
                }
            }
            self.push(content, at..at + len as u64, Some(id))?;
            at += len as u64;
            taken += len;
            if self.work.stopping() {
                return Err(ReadError::Store(StoreError::Cancelled));
            }
        }
        self.buffer = buffer;
        Ok(at - data.start)
    }
}
