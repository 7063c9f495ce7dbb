//! What differs between two trees, without reading what they share.

use std::cmp::Ordering;

use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::ChunkId;
use crate::tree::walk::cursor::{Cursor, Head};
use crate::tree::walk::visit::MAX_WALK_DEPTH;
use crate::tree::walk::{NodeRef, Pages};
use crate::tree::{Node, NodeKind};

/// One difference between two trees.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Relative to the roots, without a slash in front; raw bytes.
    pub path: Vec<u8>,
    /// What happened there.
    pub kind: ChangeKind,
}

/// What happened to an entry. One that became something of another kind was removed and added.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeKind {
    /// Only in the second tree; what is below a directory comes after it.
    Added(NodeRef),
    /// Only in the first tree; what is below a directory comes after it.
    Removed(NodeRef),
    /// In both, and different itself: a directory is not changed by what changed below it.
    Changed {
        /// In the first tree.
        old: NodeRef,
        /// In the second tree.
        new: NodeRef,
        /// In which respects.
        differs: Differences,
    },
}

/// In which respects two entries of one kind differ. Change time, inode number, file system and link count are the
/// source's affair and do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Bytes of a file, target of a link, number of a device.
    pub content: bool,
    /// Permission bits.
    pub mode: bool,
    /// Owner or group, by number or name.
    pub owner: bool,
    /// Time of last change of content.
    pub mtime: bool,
    /// Extended attributes (access control lists among them).
    pub xattrs: bool,
    /// File flags and extensions.
    pub other: bool,
}

impl Differences {
    /// Between two entries of one kind.
    pub fn between(old: &Node, new: &Node) -> Self {
        Self {
            content: old.content != new.content || old.target != new.target || old.device != new.device,
            mode: old.mode != new.mode,
            owner: (old.uid, old.gid, &old.user, &old.group) != (new.uid, new.gid, &new.user, &new.group),
            mtime: old.mtime != new.mtime,
            xattrs: old.xattrs != new.xattrs,
            other: old.flags != new.flags || old.extensions != new.extensions,
        }
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// The changes from tree `old` to tree `new`, in order of path components. Equal subtrees and equal pages are not read.
pub fn compare(
    old: (&Pages, &ChunkId),
    new: (&Pages, &ChunkId),
    deadline: Deadline,
) -> Result<Comparison, StoreError> {
    let (old_pages, new_pages) = (old.0.clone(), new.0.clone());
    let mut comparison = Comparison { old_pages, new_pages, path: Vec::new(), frames: Vec::new(), deadline };
    if old.1 != new.1 {
        comparison.enter(&[], Some(old.1), Some(new.1))?;
    }
    Ok(comparison)
}

/// Changes as they are found; see [`compare`]. Ends after the first error. Holds a leaf and the inner pages above it per
/// level of directories.
#[derive(Debug)]
pub struct Comparison {
    old_pages: Pages,
    new_pages: Pages,
    /// Of the directory in the last frame, with a slash at its end unless it is the root.
    path: Vec<u8>,
    frames: Vec<Frame>,
    deadline: Deadline,
}

/// One directory, in one or both trees.
#[derive(Debug)]
struct Frame {
    old: Option<Cursor>,
    new: Option<Cursor>,
    /// Length of the path outside it.
    outside: usize,
}

/// What to do about the two next things of a directory.
enum Step {
    Leave,
    SkipBoth,
    Expand { old: bool, new: bool },
    Removed(NodeRef),
    Added(NodeRef),
    Both(NodeRef, NodeRef),
}

impl Step {
    fn choose(old: Option<Head>, new: Option<Head>) -> Self {
        match (old, new) {
            (None, None) => Self::Leave,
            (Some(Head::Node(node)), None) => Self::Removed(node),
            (None, Some(Head::Node(node))) => Self::Added(node),
            (Some(Head::Page { .. }), None) => Self::Expand { old: true, new: false },
            (None, Some(Head::Page { .. })) => Self::Expand { old: false, new: true },
            (Some(Head::Node(a)), Some(Head::Page { first, .. })) if a.name < first => Self::Removed(a),
            (Some(Head::Node(_)), Some(Head::Page { .. })) => Self::Expand { old: false, new: true },
            (Some(Head::Page { first, .. }), Some(Head::Node(b))) if b.name < first => Self::Added(b),
            (Some(Head::Page { .. }), Some(Head::Node(_))) => Self::Expand { old: true, new: false },
            (Some(Head::Node(a)), Some(Head::Node(b))) => match a.name.cmp(&b.name) {
                Ordering::Less => Self::Removed(a),
                Ordering::Greater => Self::Added(b),
                Ordering::Equal if a.kind != b.kind => Self::Removed(a),
                Ordering::Equal => Self::Both(a, b),
            },
            (Some(Head::Page { level, id, first }), Some(Head::Page { level: l, id: i, first: f })) => {
                // The bigger page first, of equal ones the one that begins earlier: so equal pages meet.
                match level.cmp(&l).reverse().then(first.cmp(&f)) {
                    Ordering::Less => Self::Expand { old: true, new: false },
                    Ordering::Greater => Self::Expand { old: false, new: true },
                    Ordering::Equal if id == i => Self::SkipBoth,
                    Ordering::Equal => Self::Expand { old: true, new: true },
                }
            }
        }
    }
}

impl Frame {
    fn look(&mut self) -> Step {
        Step::choose(self.old.as_mut().and_then(Cursor::head), self.new.as_mut().and_then(Cursor::head))
    }

    fn skip(&mut self, old: bool, new: bool) {
        self.old.iter_mut().filter(|_| old).for_each(Cursor::skip);
        self.new.iter_mut().filter(|_| new).for_each(Cursor::skip);
    }

    fn expand(&mut self, old: bool, new: bool, deadline: Deadline) -> Result<(), StoreError> {
        self.old.iter_mut().filter(|_| old).try_for_each(|cursor| cursor.expand(deadline))?;
        self.new.iter_mut().filter(|_| new).try_for_each(|cursor| cursor.expand(deadline))
    }
}

impl Comparison {
    fn enter(&mut self, name: &[u8], old: Option<&ChunkId>, new: Option<&ChunkId>) -> Result<(), StoreError> {
        if self.frames.len() > MAX_WALK_DEPTH {
            let tree = old.or(new).map(ChunkId::hex).unwrap_or_default();
            return Err(StoreError::corrupt(
                format!("directory {tree}"),
                "it lies deeper than 4096 directories",
            ));
        }
        let open = |pages: &Pages, tree: Option<&ChunkId>| match tree {
            None => Ok(None),
            Some(tree) => pages.page(tree, self.deadline).map(|root| Some(Cursor::new(pages.clone(), root))),
        };
        let (old, new) = (open(&self.old_pages, old)?, open(&self.new_pages, new)?);
        self.frames.push(Frame { old, new, outside: self.path.len() });
        if !name.is_empty() {
            self.path.extend_from_slice(name);
            self.path.push(b'/');
        }
        Ok(())
    }

    /// Goes on until there is something to tell.
    fn advance(&mut self) -> Result<Option<Change>, StoreError> {
        while let Some(frame) = self.frames.last_mut() {
            let change = match frame.look() {
                Step::Leave => {
                    self.path.truncate(frame.outside);
                    self.frames.pop();
                    None
                }
                Step::SkipBoth => {
                    frame.skip(true, true);
                    None
                }
                Step::Expand { old, new } => {
                    frame.expand(old, new, self.deadline)?;
                    None
                }
                Step::Removed(node) => {
                    frame.skip(true, false);
                    Some(self.one_sided(node, true)?)
                }
                Step::Added(node) => {
                    frame.skip(false, true);
                    Some(self.one_sided(node, false)?)
                }
                Step::Both(old, new) => {
                    frame.skip(true, true);
                    self.both(old, new)?
                }
            };
            if change.is_some() {
                return Ok(change);
            }
        }
        Ok(None)
    }

    fn path_of(&self, node: &Node) -> Vec<u8> {
        [&self.path[..], &node.name].concat()
    }

    fn one_sided(&mut self, node: NodeRef, removed: bool) -> Result<Change, StoreError> {
        let path = self.path_of(&node);
        if let Some(subtree) = &node.subtree {
            let tree = Some(&subtree.tree);
            let (old, new) = if removed { (tree, None) } else { (None, tree) };
            self.enter(&node.name, old, new)?;
        }
        Ok(Change { path, kind: if removed { ChangeKind::Removed(node) } else { ChangeKind::Added(node) } })
    }

    fn both(&mut self, old: NodeRef, new: NodeRef) -> Result<Option<Change>, StoreError> {
        let path = self.path_of(&new);
        if new.kind == NodeKind::Directory
            && let (Some(a), Some(b)) = (&old.subtree, &new.subtree)
            && a.tree != b.tree
        {
            self.enter(&new.name, Some(&a.tree), Some(&b.tree))?;
        }
        let differs = Differences::between(&old, &new);
        Ok(differs.any().then_some(Change { path, kind: ChangeKind::Changed { old, new, differs } }))
    }
}

impl Iterator for Comparison {
    type Item = Result<Change, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.frames.clear();
        }
        next.transpose()
    }
}
