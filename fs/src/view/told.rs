//! What the kernel was told, and what it may be asked to forget.

use holdfast_store::tree::NodeKind;

use super::{Claim, Entry, View};
use crate::inode::is_layout;
use crate::layout::Change;
use crate::lock::lock;
use crate::recovery::Patience;

impl View {
    /// Notes that the kernel was told this entry.
    pub fn accept(&self, entry: &Entry) {
        if let Claim::Found(found) = &entry.claim {
            lock(&self.table).remember(&found.0, &found.1);
        }
    }

    /// Takes back what [`accept`](Self::accept) noted `lookups` times.
    pub fn forget(&self, ino: u64, lookups: u64) {
        if !is_layout(ino) {
            lock(&self.table).forget(ino, lookups);
        }
    }

    /// Records of nodes inside points that the kernel holds.
    pub fn held(&self) -> usize {
        lock(&self.table).len()
    }

    /// What the kernel might forget first: a directory, and names in it of what is no directory. Where somebody stands is left to
    /// the kernel. None if there is nothing to name, or if what is next does not lie on this machine: it comes last then.
    pub fn oldest(&self) -> Option<Change> {
        let (key, place, most) = lock(&self.table).pop_oldest()?;
        let listed = self.recovery.list(&place.folder.tree, place.ordinal, most, Patience::Here);
        let nodes = listed.inspect_err(|_| lock(&self.table).put_back(key)).ok()?;
        let leaves = nodes.into_iter().filter(|node| node.kind != NodeKind::Directory);
        Some(Change { folder: place.folder.parent, names: leaves.map(|node| node.name).collect() })
    }
}
