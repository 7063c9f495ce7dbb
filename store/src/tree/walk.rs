//! Reads directories: a lookup loads a page per level, a listing holds one leaf, and can begin anywhere.
//!
//! [`Pages`] is where parsed pages come from, with or without a [`PageCache`]. [`Directory`] asks one directory,
//! [`compare`] two trees, [`visit`] walks a whole one. What a page says of a page below it is checked whenever the step
//! from one to the other is made, so a tree put together wrongly shows as damage and not as a strange listing.

mod compare;
mod cursor;
mod pages;
#[cfg(test)]
mod tests;
mod visit;

pub use compare::{Change, ChangeKind, Comparison, Differences, compare};
pub use cursor::NodeRef;
pub use pages::{PageCache, Pages};
pub use visit::{MAX_WALK_DEPTH, Visit, Visitor, lookup_path, visit};

use std::sync::Arc;

use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::ChunkId;
use crate::tree::page::Page;
use cursor::{Cursor, Goal};

/// One directory, opened: its root page is in memory. Cheap to clone and to share.
#[derive(Clone, Debug)]
pub struct Directory {
    pages: Pages,
    tree: ChunkId,
    root: Arc<Page>,
}

impl Directory {
    /// Loads the root page. Errors here and in all methods are those of [`Pages::page`].
    pub fn open(pages: &Pages, tree: &ChunkId, deadline: Deadline) -> Result<Self, StoreError> {
        Ok(Self { pages: pages.clone(), tree: *tree, root: pages.page(tree, deadline)? })
    }

    /// The tree id it was opened by.
    pub fn tree(&self) -> &ChunkId {
        &self.tree
    }

    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.root.entries()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of that name.
    pub fn lookup(&self, name: &[u8], deadline: Deadline) -> Result<Option<NodeRef>, StoreError> {
        let found = self.cursor(Goal::Name(name), deadline)?.0.node();
        Ok(found.filter(|node| node.name == name))
    }

    /// The entry with `ordinal` entries before it.
    pub fn at(&self, ordinal: u64, deadline: Deadline) -> Result<Option<NodeRef>, StoreError> {
        Ok(self.cursor(Goal::Ordinal(ordinal), deadline)?.0.node())
    }

    /// How many entries come before `name`, whether or not it exists.
    pub fn position(&self, name: &[u8], deadline: Deadline) -> Result<u64, StoreError> {
        Ok(self.cursor(Goal::Name(name), deadline)?.1)
    }

    /// The entries from `ordinal` on, ascending by name.
    pub fn entries_at(&self, ordinal: u64, deadline: Deadline) -> Result<Entries, StoreError> {
        self.entries(Goal::Ordinal(ordinal), deadline)
    }

    /// The entries from `name` on (or from where it would be), ascending.
    pub fn entries_from(&self, name: &[u8], deadline: Deadline) -> Result<Entries, StoreError> {
        self.entries(Goal::Name(name), deadline)
    }

    fn entries(&self, goal: Goal<'_>, deadline: Deadline) -> Result<Entries, StoreError> {
        let (cursor, position) = self.cursor(goal, deadline)?;
        Ok(Entries { cursor: Some(cursor), position, deadline })
    }

    fn cursor(&self, goal: Goal<'_>, deadline: Deadline) -> Result<(Cursor, u64), StoreError> {
        let mut cursor = Cursor::new(self.pages.clone(), self.root.clone());
        let before = cursor.seek(goal, deadline)?;
        Ok((cursor, before))
    }
}

/// Entries in order; holds one leaf and the inner pages above it. Ends after the first error.
#[derive(Debug)]
pub struct Entries {
    cursor: Option<Cursor>,
    position: u64,
    deadline: Deadline,
}

impl Entries {
    /// Number of entries of the directory before the one that comes next.
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl Iterator for Entries {
    type Item = Result<NodeRef, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.cursor.as_mut()?.next_node(self.deadline) {
            Ok(Some(node)) => {
                self.position += 1;
                Some(Ok(node))
            }
            Ok(None) => None,
            Err(error) => {
                self.cursor = None;
                Some(Err(error))
            }
        }
    }
}
