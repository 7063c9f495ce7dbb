//! Writes the directories, in the order of the walk: one builder for each directory that is open.

use crossbeam_channel::Receiver;
use holdfast_store::StoreError;
use holdfast_store::chunk_store::TreeSink;
use holdfast_store::tree::build::DirectoryBuilder;
use holdfast_store::tree::{ChunkSink, Node, NodeKind, Subtree};

use super::Work;
use super::scan::Step;

/// A directory whose entries are still coming.
struct OpenDirectory {
    node: Node,
    builder: DirectoryBuilder,
    entries: u64,
    bytes: u64,
}

impl OpenDirectory {
    fn new(node: Node) -> Self {
        Self { node, builder: DirectoryBuilder::new(), entries: 0, bytes: 0 }
    }

    fn push(&mut self, node: Node, sink: &mut dyn ChunkSink) -> Result<(), StoreError> {
        self.entries += 1;
        match (&node.kind, node.subtree) {
            (NodeKind::File, _) => self.bytes += node.size,
            (_, Some(below)) => {
                self.entries += below.entries;
                self.bytes += below.bytes;
            }
            _ => {}
        }
        self.builder.push(node, sink)
    }

    fn finish(mut self, sink: &mut dyn ChunkSink) -> Result<Node, StoreError> {
        let tree = self.builder.finish(sink)?.tree;
        self.node.subtree = Some(Subtree { tree, entries: self.entries, bytes: self.bytes });
        Ok(self.node)
    }
}

/// Takes steps until the root is complete; nothing if they end before.
pub(super) fn assemble(work: &Work<'_>, steps: &Receiver<Step>) -> Result<Option<Node>, StoreError> {
    let mut sink = TreeSink::new(work.session.ingest());
    let mut open: Vec<OpenDirectory> = Vec::new();
    for step in steps {
        let entry = match step {
            Step::Enter(node) => {
                open.push(OpenDirectory::new(node));
                continue;
            }
            Step::Entry(node) => Some(node),
            Step::File(batch, nth) => batch.take(nth),
            Step::Leave => match open.pop() {
                Some(done) => Some(done.finish(&mut sink)?),
                None => None,
            },
        };
        let Some(node) = entry else { continue };
        match open.last_mut() {
            Some(parent) => parent.push(node, &mut sink)?,
            None => {
                sink.finish()?;
                return Ok(Some(Node { name: b"root".to_vec(), ..node }));
            }
        }
    }
    Ok(None)
}
