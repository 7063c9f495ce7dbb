//! Writes the directories, in the order of the walk: one builder for each directory that is open.

use crossbeam_channel::Receiver;
use holdfast_store::StoreError;
use holdfast_store::chunk_store::TreeSink;
use holdfast_store::tree::Node;
use holdfast_store::tree::build::DirectoryBuilder;

use super::Work;
use super::batch::Outcome;
use super::scan::Step;

/// A directory whose entries are still coming.
struct OpenDirectory {
    node: Node,
    builder: DirectoryBuilder,
}

/// Takes steps until the root is complete; nothing if they end before.
pub(super) fn assemble(work: &Work<'_>, steps: &Receiver<Vec<Step>>) -> Result<Option<Node>, StoreError> {
    let mut sink = TreeSink::new(work.session.ingest());
    let mut open: Vec<OpenDirectory> = Vec::new();
    for step in steps.iter().flatten() {
        let entry = match step {
            Step::Enter(node) => {
                open.push(OpenDirectory { node, builder: DirectoryBuilder::new() });
                continue;
            }
            Step::Entry(node) => Some(node),
            Step::File(batch, nth) => match batch.take(nth) {
                Outcome::Read(node) => Some(*node),
                Outcome::Trouble => None,
                // Whoever abandoned it has the reason; without the file there is no point.
                Outcome::Abandoned => return Ok(None),
            },
            Step::Leave => match open.pop() {
                Some(mut done) => {
                    done.node.subtree = Some(done.builder.finish(&mut sink)?.subtree());
                    Some(done.node)
                }
                None => None,
            },
        };
        let Some(node) = entry else { continue };
        let Some(parent) = open.last_mut() else {
            sink.finish()?;
            return Ok(Some(Node { name: b"root".to_vec(), ..node }));
        };
        match parent.builder.push(&node, &mut sink) {
            // What the format cannot hold (more extended attributes than any file system gives, say) is the source's trouble.
            Err(StoreError::Invalid { detail }) => work.trouble(path_of(&open, &node), detail),
            other => other?,
        }
    }
    Ok(None)
}

fn path_of(open: &[OpenDirectory], node: &Node) -> Vec<u8> {
    let names = open.iter().skip(1).map(|d| &d.node.name[..]).chain([&node.name[..]]);
    names.collect::<Vec<_>>().join(&b'/')
}
