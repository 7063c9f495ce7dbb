//! Files with several names: where the first was made, until the last was.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use holdfast_store::tree::{Node, NodeKind};

use crate::descent::{DirectoryId, Place};

use super::target::open_place;

/// The first name of a file.
#[derive(Debug, Clone)]
pub(super) struct First {
    pub(super) place: Arc<Place>,
    pub(super) name: Vec<u8>,
    pub(super) id: DirectoryId,
}

/// First names by file system and inode at the source. Only files with several names are in it, and only as long as names may follow.
#[derive(Debug, Default)]
pub(super) struct Links {
    known: HashMap<(u32, u64), (First, u32)>,
    /// The directory of a first name that was opened last; names of one file tend to come together.
    last: Option<(Arc<Place>, Arc<OwnedFd>)>,
}

/// Whether a node has further names that a restore links together.
pub(super) fn has_names(node: &Node) -> bool {
    node.links > 1 && node.kind != NodeKind::Directory
}

impl Links {
    /// The first name of the file that `node` is another name of. Counts one name as made.
    pub(super) fn first(&mut self, node: &Node) -> Option<First> {
        let key = (node.filesystem, node.inode);
        let (first, left) = self.known.get_mut(&key).filter(|_| has_names(node))?;
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Some(first.clone());
        }
        self.known.remove(&key).map(|(first, _)| first)
    }

    /// Remembers a first name.
    pub(super) fn remember(&mut self, node: &Node, first: First) {
        if has_names(node) {
            self.known.insert((node.filesystem, node.inode), (first, node.links - 1));
        }
    }

    /// The open directory of a first name.
    pub(super) fn directory(&mut self, root: &OwnedFd, first: &First) -> std::io::Result<Arc<OwnedFd>> {
        if let Some((place, open)) = &self.last
            && Arc::ptr_eq(place, &first.place)
        {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(open_place(root, &first.place)?);
        self.last = Some((Arc::clone(&first.place), Arc::clone(&open)));
        Ok(open)
    }
}

#[cfg(test)]
impl Links {
    pub(super) fn waiting(&self) -> usize {
        self.known.len()
    }
}
