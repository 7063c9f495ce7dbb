//! The previous point as the memory of what files were: its tree, read along with the walk.

use std::collections::HashSet;

use holdfast_store::clock::{Deadline, Timestamp};
use holdfast_store::tree::reach::reachable;
use holdfast_store::tree::walk::{Directory, Entries, NodeRef};
use holdfast_store::tree::{Node, NodeKind};

use super::Work;

/// A file changed this shortly before its point began may have changed again within the same tick of the file system's
/// clock; it is read again next time.
const TICK_NANOS: i128 = 20_000_000;
/// The tick of file systems that keep whole seconds (FAT: two of them).
const COARSE_TICK_NANOS: i128 = 2_000_000_000;

/// The directories of the previous point that correspond to those being walked.
pub(super) struct PreviousTree<'a> {
    work: &'a Work<'a>,
    stack: Vec<Option<Cursor>>,
    /// What was found last, if it must be read again though nothing seems to have changed.
    doubted: Option<Node>,
    started: Timestamp,
    /// Whether some pack of earlier points is missing, so that each chunk must be looked up.
    suspicious: bool,
}

struct Cursor {
    entries: Entries,
    next: Option<NodeRef>,
}

impl Cursor {
    /// An unreadable previous tree only costs reading: its entries count as unknown.
    fn advance(&mut self) {
        self.next = self.entries.next().and_then(Result::ok);
    }
}

impl<'a> PreviousTree<'a> {
    pub(super) fn new(work: &'a Work<'a>) -> Self {
        let started = work.previous.map_or(Timestamp::default(), |p| p.point.started);
        let suspicious = work.session.suspicious();
        Self { work, stack: Vec::new(), doubted: None, started, suspicious }
    }

    /// What the previous point has under a name of the current directory; names come ascending. An empty name is the root.
    /// What is there and must be read again all the same is not given, but kept for [`Self::take_doubted`].
    pub(super) fn find(&mut self, name: &[u8]) -> Option<Node> {
        self.doubted = None;
        let node = self.find_any(name)?;
        if self.is_trustworthy(&node) {
            return Some(node);
        }
        self.doubted = Some(node);
        None
    }

    /// What the previous point has under the name that was looked for last, if [`Self::find`] kept it back.
    pub(super) fn take_doubted(&mut self) -> Option<Node> {
        self.doubted.take()
    }

    fn find_any(&mut self, name: &[u8]) -> Option<Node> {
        if name.is_empty() && self.stack.is_empty() {
            let mut root = self.work.previous?.point.root.clone();
            root.name.clear();
            Some(root)
        } else {
            let cursor = self.stack.last_mut()?.as_mut()?;
            while cursor.next.as_ref().is_some_and(|n| n.name.as_slice() < name) {
                cursor.advance();
            }
            cursor.next.as_ref().filter(|n| n.name == name).map(|n| Node::clone(n))
        }
    }

    fn is_trustworthy(&self, node: &Node) -> bool {
        let nanos = |t: Timestamp| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos);
        let tick = if node.ctime.nanos == 0 { COARSE_TICK_NANOS } else { TICK_NANOS };
        node.kind == NodeKind::Directory
            || !self.work.request.read_all && nanos(node.ctime) + tick < nanos(self.started)
    }

    pub(super) fn enter(&mut self, previous: Option<&Node>) {
        let pages = self.work.session.store().pages();
        let cursor = previous.and_then(|node| node.subtree).and_then(|subtree| {
            let directory = Directory::open(pages, &subtree.tree, Deadline::NEVER).ok()?;
            let mut cursor = Cursor { entries: directory.entries_at(0, Deadline::NEVER).ok()?, next: None };
            cursor.advance();
            Some(cursor)
        });
        self.stack.push(cursor);
    }

    pub(super) fn leave(&mut self) {
        self.stack.pop();
    }

    /// Whether everything an unchanged file consists of is still in the store.
    pub(super) fn content_is_here(&self, node: &Node) -> bool {
        if !self.suspicious {
            return true;
        }
        let store = self.work.session.store();
        let mut here = node.content.is_some() || node.size == 0;
        let walked = reachable(store.reader().as_ref(), node, &mut HashSet::new(), &mut |_, id| {
            here &= self.work.session.ingest().has(id)?;
            Ok(())
        });
        here && walked.is_ok()
    }
}
