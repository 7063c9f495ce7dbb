//! A tree of a recovery point as a restore reads it.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_backup::restore::{Extents, Nodes, TreeReader};
use holdfast_store::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::reader::Reader;
use holdfast_store::seal::{ChunkType, Sealer};
use holdfast_store::store::Store;
use holdfast_store::tree::content::ContentReader;
use holdfast_store::tree::walk::{Directory, Pages, lookup_path};
use holdfast_store::tree::{ChunkSource, Node, NodeKind};

use crate::patience;

/// Reads from a store; of a single file, shows a directory with just that.
#[derive(Debug)]
pub struct StoredTree<'a> {
    pages: &'a Pages,
    reader: &'a Arc<Reader>,
    sealer: &'a Sealer,
    single: Option<Node>,
}

impl<'a> StoredTree<'a> {
    /// The tree at `path` below `root`, and the directory to restore: what is there, or one that holds it alone.
    pub fn at(store: &'a Store, root: &Node, path: &[u8]) -> Result<(Self, Node), StoreError> {
        let tree =
            Self { pages: store.pages(), reader: store.reader(), sealer: store.sealer(), single: None };
        let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let (false, Some(below)) = (path.is_empty(), root.subtree) else { return Ok((tree, root.clone())) };
        let path = path.join(&b'/');
        let found = lookup_path(tree.pages, &below.tree, &path, patience::FOR_A_VAULT)?;
        let missing =
            || StoreError::NotFound { what: format!("{} in the recovery point", path.escape_ascii()) };
        let node = found.ok_or_else(missing)?.to_node();
        if node.kind == NodeKind::Directory {
            return Ok((tree, node));
        }
        let holder = Node { subtree: None, size: node.size, ..root.clone() };
        Ok((Self { single: Some(node), ..tree }, holder))
    }
}

impl StoredTree<'_> {
    /// Whether a single file is shown, so that the directory around it is not part of what is restored.
    pub fn is_single(&self) -> bool {
        self.single.is_some()
    }
}

impl TreeReader for StoredTree<'_> {
    fn entries(&self, directory: &Node) -> Result<Nodes<'_>, StoreError> {
        match (directory.subtree, &self.single) {
            (Some(below), _) => {
                let directory = Directory::open(self.pages, &below.tree, patience::FOR_A_VAULT)?;
                let entries = directory.entries_at(0, patience::FOR_A_VAULT)?;
                Ok(Box::new(entries.map(|node| node.map(|node| node.to_node()))))
            }
            (None, Some(single)) => Ok(Box::new(std::iter::once(Ok(single.clone())))),
            (None, None) => Err(StoreError::corrupt("a directory", "it has no tree")),
        }
    }

    fn extents(&self, file: &Node) -> Result<Extents<'_>, StoreError> {
        let mut list = ContentReader::new(file.content.clone().unwrap_or_default());
        let (mut at, len, reader) = (0, list.len(), self.reader);
        Ok(Box::new(std::iter::from_fn(move || {
            if at >= len {
                return None;
            }
            match list.extent_at(reader.as_ref(), at, patience::FOR_A_VAULT) {
                Ok(Some((start, extent))) => {
                    at = start + extent.len();
                    Some(Ok(extent))
                }
                Ok(None) => None,
                Err(e) => {
                    at = len;
                    Some(Err(e))
                }
            }
        })))
    }

    fn data(&self, id: &ChunkId, _len: u32) -> Result<Bytes, StoreError> {
        self.reader.chunk(ChunkType::Data, id, patience::FOR_A_VAULT)
    }

    fn is(&self, id: &ChunkId, bytes: &[u8]) -> bool {
        self.sealer.chunk_id(ChunkType::Data, bytes) == *id
    }
}

#[cfg(test)]
mod tests;
