//! The previous point as the memory of what files were: its tree, read along with the walk.

use std::collections::HashSet;

use holdfast_store::clock::{Deadline, Timestamp};
use holdfast_store::tree::Node;
use holdfast_store::tree::reach::reachable;
use holdfast_store::tree::walk::{Directory, Entries, NodeRef};

use super::Work;

/// How much older than the begin of a point a ctime must be for the next point to believe it: of what changed later, more may have
/// come after it was read, and not show. It is read again next time. A minute, for the kernel moves ctime (`file_update_time()`)
///
/// - when a call of `write` *begins*; its bytes come until it ends, which takes as long as the disk does.
/// - in steps of its clock: some milliseconds, two seconds on FAT. Two changes within one step have one ctime.
/// - at the *first* store through a mapping into a page that is clean (`page_mkwrite`, or `fault_dirty_shared_page()`). Further stores
///   move nothing, until the page was written out, which write-protects it again (`folio_mkclean()`). That is half a minute later
///   (`dirty_expire_centisecs`, 3000, and `dirty_writeback_centisecs`, 500), or whenever the disk comes to it. So as not to depend on that,
///   whoever reads has it written out before ([`OpenFile::write_out`](crate::source::OpenFile::write_out)).
const SETTLED_NANOS: i128 = 60_000_000_000;

/// Whether something last changed so long before its point began that each change since it was read shows in its ctime.
pub(super) fn is_settled(ctime: Timestamp, started: Timestamp) -> bool {
    let nanos = |t: Timestamp| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos);
    nanos(ctime) + SETTLED_NANOS < nanos(started)
}

/// The directories of the previous point that correspond to those being walked.
pub(super) struct PreviousTree<'a> {
    work: &'a Work<'a>,
    stack: Vec<Option<Cursor>>,
    /// The directory being walked, relative to the root, and how long the path of each above it is.
    path: Vec<u8>,
    above: Vec<usize>,
    /// What the previous point had trouble with: attributes that could not be read then are missing in its tree.
    troubled: HashSet<&'a [u8]>,
    /// Whether everything must be read again: it was asked for, or the previous point does not name all its trouble.
    read_all: bool,
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
        let point = work.previous.map(|p| &p.point);
        let troubled = point.into_iter().flat_map(|p| &p.errors).map(|e| e.path.as_slice()).collect();
        let unnamed = point.is_some_and(|p| p.errors_total > p.errors.len() as u64);
        let read_all = work.request.read_all || unnamed;
        let (stack, path, above) = (Vec::new(), Vec::new(), Vec::new());
        Self { work, stack, path, above, troubled, read_all, doubted: None, started, suspicious }
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
        !self.read_all
            && is_settled(node.ctime, self.started)
            && (self.troubled.is_empty() || !self.troubled.contains(&*self.path_of(&node.name)))
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let slash: &[u8] = if self.path.is_empty() || name.is_empty() { b"" } else { b"/" };
        [&self.path, slash, name].concat()
    }

    /// Goes into a directory that was just asked for. What is in one whose own attributes are in doubt can be compared all the same.
    pub(super) fn enter(&mut self, name: &[u8], previous: Option<Node>) {
        let previous = previous.or_else(|| self.take_doubted());
        let path = self.path_of(name);
        self.above.push(self.path.len());
        self.path = path;
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
        self.path.truncate(self.above.pop().unwrap_or(0));
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
