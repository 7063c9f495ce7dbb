//! What somebody may ask for next.

use bytes::Bytes;
use holdfast_store::tree::{Node, NodeKind};

use super::{View, missing_content, tree_of};
use crate::error::FsError;
use crate::inode::Identity;
use crate::lock::lock;
use crate::recovery::Patience;

/// Unit in which the kernel keeps bytes.
const PAGE: u64 = 4096;

/// An entry of a directory that somebody reads through.
#[derive(Debug)]
pub struct Coming {
    /// Its number, if the kernel knows it or one of its neighbours. It refuses what is offered of those it does not know.
    pub ino: Option<u64>,
    /// Position among the entries of its directory, from 0.
    pub ordinal: u64,
    node: Node,
}

impl Coming {
    /// Bytes that the kernel may be given of it: none of what is not a file, or what it cannot have heard of.
    pub fn room(&self) -> u64 {
        if self.node.kind == NodeKind::File && self.ino.is_some() { self.node.size } else { 0 }
    }
}

#[cfg(test)]
impl Coming {
    /// A file of so many bytes, for tests.
    pub fn sample(ordinal: u64, size: u64) -> Self {
        Self { ino: Some(ordinal), ordinal, node: Node { size, ..crate::testing::node("f", NodeKind::File) } }
    }
}

impl View {
    /// Where a node inside a point stands: its directory, and its position among the entries of that, from 0.
    pub fn standing(&self, ino: u64) -> Option<(u64, u64)> {
        lock(&self.table).place(ino).map(|place| (place.folder.parent, place.ordinal))
    }

    /// About `most` entries of a directory from the position `from` on, if they lie on this machine; none at its end.
    pub fn coming(&self, directory: u64, from: u64, most: usize) -> Result<Vec<Coming>, FsError> {
        let inside = self.inside(directory, Patience::Here)?;
        let Some(tree) = tree_of(&inside.node)? else { return Ok(Vec::new()) };
        let nodes = self.recovery.list(&tree, from, most, Patience::Here)?;
        let table = lock(&self.table);
        let numbered = (from..).zip(nodes).map(|(ordinal, node)| {
            let ino = table.known(&Identity::of_node(&inside.root, (directory, ordinal), &node));
            Coming { ino, ordinal, node }
        });
        Ok(numbered.collect())
    }

    /// All bytes of a file, if they lie on this machine.
    pub fn content_here(&self, file: &Coming) -> Result<Bytes, FsError> {
        let content = file.node.content.as_ref().ok_or(FsError::NotCaptured)?;
        let bytes = self.recovery.read(content, 0..file.node.size, Patience::Here)?;
        if bytes.len() as u64 == file.node.size { Ok(bytes) } else { Err(missing_content()) }
    }

    /// What was decoded for a read of `len` bytes at `offset` and lies before and after it in the file: whole
    /// pages, each stretch with its offset. Nothing that is no longer in memory.
    pub fn decoded_beside(&self, ino: u64, offset: u64, len: u64) -> Result<Vec<(u64, Bytes)>, FsError> {
        let node = self.file(ino, Patience::Here)?;
        let end = offset.saturating_add(len).min(node.size);
        let (Some(content), true) = (&node.content, offset < end) else { return Ok(Vec::new()) };
        let from = self.recovery.stretch(content, offset, Patience::Here)?.start.next_multiple_of(PAGE);
        let to = self.recovery.stretch(content, end - 1, Patience::Here)?.end.min(node.size);
        let to = if to == node.size { to } else { to - to % PAGE };
        let beside = [from..offset - offset % PAGE, end.next_multiple_of(PAGE)..to];
        let pieces = beside.into_iter().filter(|range| range.start < range.end);
        pieces.map(|range| Ok((range.start, self.recovery.read(content, range, Patience::Now)?))).collect()
    }
}
