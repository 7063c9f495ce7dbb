//! What the kernel was told, and what it may be asked to forget.

use holdfast_store::tree::NodeKind;

use super::{Claim, Entry, View};
use crate::inode::{Place, is_layout};
use crate::layout::Change;
use crate::lock::lock;
use crate::recovery::Patience;

/// Names at one time, about: some tenths of a second.
const WORK_MAX: usize = 1 << 18;

/// What a listing costs, in names.
const LISTING: usize = 16;

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

    /// Names to `let_go` what the kernel was told first, as long as more than `most` records are held: a directory, and names in it of what is no
    /// directory. Where somebody stands is left to the kernel. Each segment that was told before has its turn at most once, and after many names
    /// the rest is left for another time. What does not lie on this machine comes last.
    pub fn let_go_above(&self, most: usize, mut let_go: impl FnMut(&Change)) {
        let end = lock(&self.table).next_turn();
        let mut work = 0;
        while work < WORK_MAX
            && let Some((key, place, entries)) = { lock(&self.table).take_turn(most, end) }
        {
            let (names, seen) = self.leaves(&place, entries as u64);
            work += LISTING + seen;
            let Some(names) = names else { continue };
            // Before they are named: what the kernel is told meanwhile has to be named again.
            lock(&self.table).had_turn(key);
            let_go(&Change { folder: place.folder.parent, names });
        }
    }

    /// Names of what is no directory among so many entries from a place on, none if they are not all on this machine; and how many entries were
    /// looked at.
    fn leaves(&self, from: &Place, entries: u64) -> (Option<Vec<Vec<u8>>>, usize) {
        let (mut names, mut at, end) = (Vec::new(), from.ordinal, from.ordinal + entries);
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX);
            let listed = self.recovery.list(&from.folder.tree, at, most, Patience::Here);
            let Ok(nodes) = listed else { return (None, (at - from.ordinal) as usize) };
            if nodes.is_empty() {
                break;
            }
            at += nodes.len() as u64;
            let leaves = nodes.into_iter().filter(|node| node.kind != NodeKind::Directory);
            names.extend(leaves.map(|node| node.name));
        }
        ((at > from.ordinal).then_some(names), (at - from.ordinal) as usize)
    }
}
