//! Walks a whole tree, depth first, with limits that hold against trees made to exhaust: a directory that contains the
//! same subtree a thousand times, which contains another a thousand times, takes few bytes and has no end.

use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::ChunkId;
use crate::tree::walk::cursor::Cursor;
use crate::tree::walk::{Directory, NodeRef, Pages};

/// Deepest directory that is walked into; the root is at 0.
pub const MAX_WALK_DEPTH: usize = 4096;

/// How a walk goes on after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// To the next one; into it, if it is a directory.
    Continue,
    /// Not into it.
    SkipBelow,
    /// Not at all.
    Stop,
}

/// What is called with path and entry.
pub type Visitor<'a> = dyn FnMut(&[u8], &NodeRef) -> Result<Visit, StoreError> + 'a;

/// Calls `f` with path (relative, without a slash in front) and entry of everything below `tree`, a directory before
/// what is in it, and returns how many entries it was called with.
///
/// `Invalid` when there are more than `budget` entries (the entries that a point counts are a good budget), `Corrupt`
/// below 4,096 directories; other errors are those of pages and of `f`, and end the walk. Holds a leaf and the inner
/// pages above it per level of directories.
pub fn visit(
    pages: &Pages,
    tree: &ChunkId,
    budget: u64,
    deadline: Deadline,
    f: &mut Visitor<'_>,
) -> Result<u64, StoreError> {
    let mut path = Vec::new();
    let mut visited = 0;
    let mut open = vec![(Cursor::new(pages.clone(), pages.page(tree, deadline)?), 0)];
    while let Some((cursor, outside)) = open.last_mut() {
        let Some(node) = cursor.next_node(deadline)? else {
            path.truncate(*outside);
            open.pop();
            continue;
        };
        if visited == budget {
            return Err(StoreError::invalid(format!("more than {budget} entries below {tree}")));
        }
        visited += 1;
        let here = path.len();
        path.extend_from_slice(&node.name);
        let verdict = f(&path, &node)?;
        match (verdict, &node.subtree) {
            (Visit::Stop, _) => return Ok(visited),
            (Visit::Continue, Some(subtree)) => {
                if open.len() > MAX_WALK_DEPTH {
                    let directory = format!("directory {}", subtree.tree);
                    return Err(StoreError::corrupt(directory, "it lies deeper than 4096 directories"));
                }
                path.push(b'/');
                open.push((Cursor::new(pages.clone(), pages.page(&subtree.tree, deadline)?), here));
            }
            _ => path.truncate(here),
        }
    }
    Ok(visited)
}

/// The entry at a path below `tree`: names between single slashes; `None` if there is none, or if something on the
/// way is no directory. Links are not followed. The empty path names no entry.
pub fn lookup_path(
    pages: &Pages,
    tree: &ChunkId,
    path: &[u8],
    deadline: Deadline,
) -> Result<Option<NodeRef>, StoreError> {
    let mut tree = *tree;
    let mut names = path.split(|c| *c == b'/').peekable();
    while let Some(name) = names.next() {
        let Some(node) = Directory::open(pages, &tree, deadline)?.lookup(name, deadline)? else { break };
        match (names.peek(), &node.subtree) {
            (None, _) => return Ok(Some(node)),
            (Some(_), Some(subtree)) => tree = subtree.tree,
            (Some(_), None) => break,
        }
    }
    Ok(None)
}
