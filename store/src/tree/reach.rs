//! Everything that a directory tree consists of: which chunks must exist for it to be restorable.

use std::collections::HashSet;

use super::page::Page;
use super::walk::MAX_WALK_DEPTH;
use super::{ChunkSource, Content, Extent, Node};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::ChunkId;
use crate::seal::ChunkType;

/// Visits each chunk that `root` needs. Pages (of trees and of content lists) whose ids are in `seen` are skipped with all below
/// them, and every visited page is put there: a page names all below it, so it need be looked at once only, in however many places and
/// points it stands. Data chunks may be visited repeatedly. After an error `seen` is as it was: below a page that could not be read nobody looked.
pub fn reachable(
    source: &dyn ChunkSource,
    root: &Node,
    seen: &mut HashSet<ChunkId>,
    visit: &mut dyn FnMut(ChunkType, &ChunkId) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut walk = Walk { source, seen, visit, todo: Vec::new(), met: Vec::new() };
    let walked = walk.all(root);
    if walked.is_err() {
        for id in walk.met {
            walk.seen.remove(&id);
        }
    }
    walked
}

struct Walk<'a> {
    source: &'a dyn ChunkSource,
    seen: &'a mut HashSet<ChunkId>,
    visit: &'a mut dyn FnMut(ChunkType, &ChunkId) -> Result<(), StoreError>,
    todo: Vec<(ChunkType, ChunkId, usize)>,
    /// Pages that this walk put among those that were seen.
    met: Vec<ChunkId>,
}

impl Walk<'_> {
    fn all(&mut self, root: &Node) -> Result<(), StoreError> {
        self.node(root, 0)?;
        while let Some((of, id, depth)) = self.todo.pop() {
            self.page(of, id, depth)?;
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, depth: usize) -> Result<(), StoreError> {
        if let Some(below) = &node.subtree {
            self.later(ChunkType::Tree, below.tree, depth + 1);
        }
        node.content.as_ref().map_or(Ok(()), |content| self.content(content, depth))
    }

    fn content(&mut self, content: &Content, depth: usize) -> Result<(), StoreError> {
        match content {
            Content::Inline(extents) => {
                for extent in extents {
                    if let Extent::Data { id, .. } = extent {
                        (self.visit)(ChunkType::Data, id)?;
                    }
                }
            }
            Content::Paged { pages, .. } => {
                pages.iter().for_each(|(id, _)| self.later(ChunkType::List, *id, depth))
            }
        }
        Ok(())
    }

    fn later(&mut self, of: ChunkType, id: ChunkId, depth: usize) {
        if self.seen.insert(id) {
            self.met.push(id);
            self.todo.push((of, id, depth));
        }
    }

    fn page(&mut self, of: ChunkType, id: ChunkId, depth: usize) -> Result<(), StoreError> {
        if depth > MAX_WALK_DEPTH {
            return Err(StoreError::corrupt(format!("tree page {id}"), "directories are nested too deep"));
        }
        (self.visit)(of, &id)?;
        let bytes = self.source.chunk(of, &id, Deadline::NEVER)?;
        if of == ChunkType::List {
            let content = Content::parse(&bytes).map_err(|e| e.of(format!("list page {id}")))?;
            return self.content(&content, depth);
        }
        match Page::parse(&bytes).map_err(|e| e.of(format!("tree page {id}")))? {
            Page::Leaf(nodes) => nodes.iter().try_for_each(|node| self.node(node, depth)),
            Page::Inner { items, .. } => {
                items.iter().for_each(|item| self.later(ChunkType::Tree, item.page, depth));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tree::testing::{MemoryChunks, bare_node, build_directory};
    use crate::tree::{ChunkSink, NodeKind, Subtree};

    /// A directory with so many files, each of one chunk, and with these directories.
    fn directory(name: &str, files: u8, below: &[&Node], chunks: &mut MemoryChunks) -> Node {
        let file = |n: u8, chunks: &mut MemoryChunks| {
            let id = chunks.put(ChunkType::Data, format!("{name} {n}").as_bytes()).unwrap();
            let mut node = bare_node(format!("{n:03}").as_bytes(), NodeKind::File);
            (node.size, node.content) = (5, Some(Content::Inline(vec![Extent::Data { id, len: 5 }])));
            node
        };
        let files: Vec<Node> = (0..files).map(|n| file(n, chunks)).collect();
        let built = build_directory(files.iter().chain(below.iter().copied()), chunks).unwrap();
        let mut node = bare_node(format!("dir-{name}").as_bytes(), NodeKind::Directory);
        node.subtree = Some(Subtree { tree: built.tree, entries: 0, bytes: 0 });
        node
    }

    fn visited(
        source: &MemoryChunks,
        root: &Node,
        seen: &mut HashSet<ChunkId>,
    ) -> (Result<(), StoreError>, HashSet<ChunkId>) {
        let mut visited = HashSet::new();
        let walked = reachable(source, root, seen, &mut |_, id| {
            visited.insert(*id);
            Ok(())
        });
        (walked, visited)
    }

    #[test]
    fn what_was_below_a_page_that_could_not_be_read_is_looked_at_by_the_next_walk() {
        let mut chunks = MemoryChunks::new();
        let deep = directory("deep", 3, &[], &mut chunks);
        let shared = directory("shared", 3, &[&deep], &mut chunks);
        let page = shared.subtree.as_ref().unwrap().tree;
        let first = directory("a", 2, &[&shared], &mut chunks);
        let second = directory("b", 2, &[&shared], &mut chunks);
        let before = directory("c", 1, &[], &mut chunks);
        let mut seen = HashSet::new();
        visited(&chunks, &before, &mut seen).0.unwrap();
        let known = seen.clone();
        let whole = visited(&chunks, &second, &mut seen.clone()).1;
        let bytes = chunks.chunk(ChunkType::Tree, &page, Deadline::NEVER).unwrap();
        chunks.forget(ChunkType::Tree, &page);
        assert!(visited(&chunks, &first, &mut seen).0.is_err());
        assert_eq!(seen, known);
        chunks.replace(ChunkType::Tree, &page, &bytes);
        let (walked, found) = visited(&chunks, &second, &mut seen);
        walked.unwrap();
        assert_eq!(found, whole, "nothing was passed over");
        assert_eq!(visited(&chunks, &second, &mut seen).1, HashSet::new(), "each page is looked at once");
    }
}
