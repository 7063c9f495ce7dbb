//! Writes the pages of one directory while its entries appear (`docs/format.md`, section 9.2, page borders).
//!
//! Borders between pages depend on names and sizes near them, never on history or position: the same entries always
//! make the same tree, and one changed entry rewrites one page per level.

#[cfg(test)]
mod tests;

use crate::error::StoreError;
use crate::id::ChunkId;
use crate::seal::ChunkType;
use crate::tree::node;
use crate::tree::page::{InnerItem, LeafWriter, MAX_LEVELS, encode_inner, refused};
use crate::tree::{ChunkSink, Node, Subtree};

/// A leaf ends no earlier unless the directory does.
const LEAF_MIN_BYTES: usize = 8 * 1024;
/// A leaf ends with the item that reaches this.
const LEAF_MAX_BYTES: usize = 64 * 1024;
/// An inner page ends no earlier unless the level does.
const INNER_MIN_ITEMS: usize = 8;
/// An inner page ends with this item.
const INNER_MAX_ITEMS: usize = 1024;
/// A page ends after an item whose border hash begins with a number below this: 1 in 128.
const BORDER: u32 = 1 << 25;

/// Whether a page of `level` may end after the item called `name`.
fn is_border(level: u8, name: &[u8]) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"holdfast border").update(&[level]).update(name);
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    u32::from_le_bytes([a, b, c, d]) < BORDER
}

/// A finished directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltDirectory {
    /// Its root page.
    pub tree: ChunkId,
    /// Entries in the directory itself.
    pub entries_direct: u64,
    /// Entries in the whole subtree.
    pub entries: u64,
    /// Bytes of files in the whole subtree; a file with several names counts with each.
    pub bytes: u64,
}

impl BuiltDirectory {
    /// What the directory's own entry carries.
    pub fn subtree(&self) -> Subtree {
        Subtree { tree: self.tree, entries: self.entries, bytes: self.bytes }
    }
}

/// Turns entries, ascending by name, into pages. Pages are put as they fill; at most one page per level is in memory.
#[derive(Debug, Default)]
pub struct DirectoryBuilder {
    leaf: LeafWriter,
    leaf_at_border: bool,
    above: Vec<InnerLevel>,
    last: Vec<u8>,
    entries_direct: u64,
    entries: u64,
    bytes: u64,
}

/// The open page of a level. It is cut when the next item comes, not before: only then it is known that the level goes on.
#[derive(Debug, Default)]
struct InnerLevel {
    items: Vec<InnerItem>,
    at_border: bool,
    cut_before: bool,
}

impl DirectoryBuilder {
    /// A directory without entries so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries so far.
    pub fn len(&self) -> u64 {
        self.entries_direct
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.entries_direct == 0
    }

    /// Appends an entry. `Invalid`, and nothing changed, if it breaks a rule of the format or is not after the one
    /// before; other errors are the sink's, and the builder is of no use after them.
    pub fn push(&mut self, entry: &Node, sink: &mut dyn ChunkSink) -> Result<(), StoreError> {
        if !self.is_empty() && entry.name <= self.last {
            let (name, last) = (entry.name.escape_ascii(), self.last.escape_ascii());
            return Err(StoreError::invalid(format!("entry {name} does not come after {last}")));
        }
        node::check(entry).map_err(|e| refused(node::within(e, entry.name.escape_ascii())))?;
        if self.leaf_at_border {
            self.put_leaf(sink)?;
        }
        self.leaf.push(entry)?;
        self.count(entry);
        self.last.clone_from(&entry.name);
        let len = self.leaf.item_bytes();
        self.leaf_at_border = len >= LEAF_MAX_BYTES || (len >= LEAF_MIN_BYTES && is_border(0, &entry.name));
        Ok(())
    }

    /// Puts what is left and names the directory.
    pub fn finish(mut self, sink: &mut dyn ChunkSink) -> Result<BuiltDirectory, StoreError> {
        let mut root = None;
        if self.above.is_empty() {
            root = Some(sink.put(ChunkType::Tree, &self.leaf.take()?)?);
        } else {
            self.put_leaf(sink)?;
        }
        let mut level = 1;
        let tree = loop {
            if let Some(tree) = root {
                break tree;
            }
            let open = std::mem::take(&mut self.above[level - 1]);
            if open.cut_before {
                self.put_inner(level, &open.items, sink)?;
            } else {
                root = Some(sink.put(ChunkType::Tree, &encode_inner(level as u8, &open.items)?)?);
            }
            level += 1;
        };
        let Self { entries_direct, entries, bytes, .. } = self;
        Ok(BuiltDirectory { tree, entries_direct, entries, bytes })
    }

    fn count(&mut self, entry: &Node) {
        let below = entry.subtree.map_or((0, 0), |s| (s.entries, s.bytes));
        self.entries_direct += 1;
        self.entries = self.entries.saturating_add(1).saturating_add(below.0);
        let file = if entry.content.is_some() { entry.size } else { 0 };
        self.bytes = self.bytes.saturating_add(file).saturating_add(below.1);
    }

    fn put_leaf(&mut self, sink: &mut dyn ChunkSink) -> Result<(), StoreError> {
        let (first, entries) = (self.leaf.first().to_vec(), self.leaf.count() as u64);
        let page = sink.put(ChunkType::Tree, &self.leaf.take()?)?;
        self.enter(1, InnerItem { first, page, entries }, sink)
    }

    fn put_inner(
        &mut self,
        level: usize,
        items: &[InnerItem],
        sink: &mut dyn ChunkSink,
    ) -> Result<(), StoreError> {
        let page = sink.put(ChunkType::Tree, &encode_inner(level as u8, items)?)?;
        let first = items.first().map(|item| item.first.clone()).unwrap_or_default();
        let entries = items.iter().map(|item| item.entries).sum();
        self.enter(level + 1, InnerItem { first, page, entries }, sink)
    }

    /// Enters a finished page in the open page of `level`, which may be cut before, and so on upwards.
    fn enter(&mut self, level: usize, item: InnerItem, sink: &mut dyn ChunkSink) -> Result<(), StoreError> {
        if level >= usize::from(MAX_LEVELS) {
            return Err(StoreError::invalid("a directory of more than 8 levels of pages"));
        }
        if self.above.len() < level {
            self.above.push(InnerLevel::default());
        }
        let open = &mut self.above[level - 1];
        if open.at_border {
            let items = std::mem::take(&mut open.items);
            open.cut_before = true;
            self.put_inner(level, &items, sink)?;
        }
        let open = &mut self.above[level - 1];
        let n = open.items.len() + 1;
        open.at_border =
            n >= INNER_MAX_ITEMS || (n >= INNER_MIN_ITEMS && is_border(level as u8, &item.first));
        open.items.push(item);
        Ok(())
    }
}
