//! The walk's visitor: decides what must be read, groups it, and passes everything on in order.

use std::ops::ControlFlow;
use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};
use holdfast_store::tree::{Node, NodeKind};

use super::batch::BatchWork;
use super::compare::PreviousTree;
use super::{SharedBatch, Work, add};
use crate::error::SourceError;
use crate::source::{Flow, Found, Visitor};

/// A batch is closed at this many bytes: content of a few frames, so that neighbours share them.
const BATCH_BYTES: u64 = 1 << 20;
/// And at this many files: each may hold its directory open.
const BATCH_FILES: usize = 256;
/// Steps passed on in one go: waking a thread costs more than a step.
pub(super) const STEPS: usize = 128;

/// One step of the walk for the assembly of directories.
pub(super) enum Step {
    /// A directory with its attributes.
    Enter(Node),
    /// Something complete.
    Entry(Node),
    /// A file that is being read: the n-th of a batch.
    File(SharedBatch, usize),
    /// The directory entered last is complete.
    Leave,
}

/// Hears the walk.
pub(super) struct Scanner<'a> {
    work: &'a Work<'a>,
    events: Sender<Vec<Step>>,
    steps: Vec<Step>,
    batches: Sender<BatchWork>,
    previous: PreviousTree<'a>,
    open: Option<(SharedBatch, BatchWork)>,
    open_bytes: u64,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(work: &'a Work<'a>, events: Sender<Vec<Step>>, batches: Sender<BatchWork>) -> Self {
        let previous = PreviousTree::new(work);
        Self { work, events, steps: Vec::with_capacity(STEPS), batches, previous, open: None, open_bytes: 0 }
    }

    /// Sends what is left and ends the other threads' queues.
    pub(super) fn finish(mut self) {
        let _ = self.flush();
        let _ = self.events.send(self.steps);
    }

    fn flush(&mut self) -> Flow {
        self.open_bytes = 0;
        match self.open.take() {
            Some((_, batch)) => proceed(self.batches.send(batch).is_ok()),
            None => ControlFlow::Continue(()),
        }
    }

    /// Passes a step on, with others. The assembly may be waiting for a file of the open batch: that goes out before this thread waits.
    fn step(&mut self, step: Step) -> Flow {
        self.steps.push(step);
        if self.steps.len() < STEPS {
            return ControlFlow::Continue(());
        }
        if self.work.stopping() {
            return ControlFlow::Break(());
        }
        match self.events.try_send(std::mem::replace(&mut self.steps, Vec::with_capacity(STEPS))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(TrySendError::Disconnected(_)) => ControlFlow::Break(()),
            Err(TrySendError::Full(steps)) => {
                self.flush()?;
                proceed(self.events.send(steps).is_ok())
            }
        }
    }

    fn read_later(&mut self, file: Found) -> Flow {
        let size = file.node.size;
        if self.open.is_some() && self.open_bytes + size > BATCH_BYTES {
            self.flush()?;
        }
        let (batch, work) = self.open.get_or_insert_with(|| {
            let batch = SharedBatch::default();
            (batch.clone(), BatchWork::new(batch))
        });
        let step = Step::File(Arc::clone(batch), work.files.len());
        work.files.push(file);
        self.open_bytes += size;
        let full = self.open_bytes >= BATCH_BYTES || work.files.len() >= BATCH_FILES;
        self.step(step)?;
        if full { self.flush() } else { ControlFlow::Continue(()) }
    }

    fn count(&self, node: &Node) {
        let tally = &self.work.tally;
        match node.kind {
            NodeKind::File => add(&tally.files, 1),
            NodeKind::Directory => add(&tally.directories, 1),
            _ => add(&tally.others, 1),
        }
    }
}

fn proceed(go_on: bool) -> Flow {
    if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

impl Visitor for Scanner<'_> {
    fn previous(&mut self, name: &[u8]) -> Option<Node> {
        self.previous.find(name)
    }

    fn enter_directory(&mut self, mut directory: Found) -> Flow {
        self.previous.enter(&directory.node.name, directory.previous.take());
        self.count(&directory.node);
        self.step(Step::Enter(directory.node))
    }

    fn entry(&mut self, mut entry: Found) -> Flow {
        self.count(&entry.node);
        let is_file = entry.node.kind == NodeKind::File;
        // A file that is read again in doubt is not a new one.
        entry.previous = entry.previous.or_else(|| self.previous.take_doubted());
        if is_file && !(entry.unchanged && self.previous.content_is_here(&entry.node)) {
            return self.read_later(entry);
        }
        if is_file {
            add(&self.work.tally.bytes, entry.node.size);
            self.work
                .monitor
                .event(holdfast_store::monitor::Event::Done { files: 1, bytes: entry.node.size });
        }
        self.step(Step::Entry(entry.node))
    }

    fn leave_directory(&mut self) -> Flow {
        self.previous.leave();
        self.step(Step::Leave)
    }

    fn trouble(&mut self, trouble: SourceError) -> Flow {
        self.work.trouble(trouble.path().to_vec(), trouble.to_string());
        proceed(!self.work.stopping())
    }
}
