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
/// points it stands. Data chunks may be visited repeatedly.
pub fn reachable(
    source: &dyn ChunkSource,
    root: &Node,
    seen: &mut HashSet<ChunkId>,
    visit: &mut dyn FnMut(ChunkType, &ChunkId) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut walk = Walk { source, seen, visit, todo: Vec::new() };
    walk.node(root, 0)?;
    while let Some((of, id, depth)) = walk.todo.pop() {
        walk.page(of, id, depth)?;
    }
    Ok(())
}

struct Walk<'a> {
    source: &'a dyn ChunkSource,
    seen: &'a mut HashSet<ChunkId>,
    visit: &'a mut dyn FnMut(ChunkType, &ChunkId) -> Result<(), StoreError>,
    todo: Vec<(ChunkType, ChunkId, usize)>,
}

impl Walk<'_> {
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
