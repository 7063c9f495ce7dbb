//! The whole file system, with no kernel in sight: names, attributes, listings, bytes, holes, attributes by name.
//!
//! Every answer is found from a number alone: nothing is opened and nothing has to be closed. An answer that puts a number
//! into the kernel's hands comes as an [`Entry`]; once the kernel has it, [`View::accept`] counts that, and
//! [`View::forget`] takes it back.
//!
//! Positions in a listing: 1 is `.`, 2 is `..`, then each entry has its own, which stays the same; a listing
//! goes on *after* a position. Inside a point the n-th entry (from 0) has position n + 3.

mod attr;
mod coming;
mod list;
mod points;
mod told;
mod xattr;

use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use holdfast_store::error::StoreError;
use holdfast_store::id::{ChunkId, RecoveryPointId};
use holdfast_store::tree::{Node, NodeKind};

use crate::error::FsError;
use crate::inode::{Folder, Identity, Place, Table, is_layout};
use crate::kept::Kept;
use crate::layout::{Item, Layout, Root, Stands};
use crate::lock::lock;
use crate::recovery::{Patience, Recovery, Seek, Stored};

pub use attr::{Attr, BLOCK_SIZE};
pub use coming::Coming;
pub use list::{Detail, Listed};
pub use xattr::{XattrAnswer, sized};

use points::{Known, Shown};

/// Bytes of nodes kept by their places between the requests about them: some 5,000.
const NODES_KEPT: usize = 2 << 20;

/// Bytes of root directories of points kept: some 10,000. Each is a point to decode.
const ROOTS_KEPT: usize = 4 << 20;

/// Longest name of an entry, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// How long the kernel may believe an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// For ever: it is about the inside of a point.
    Forever,
    /// For a second: points come and go.
    Brief,
}

/// What has to be noted when the kernel has been told a number.
#[derive(Clone, Debug)]
enum Claim {
    /// Nothing: the layout knows it by heart.
    Layout,
    /// Where it was found.
    Found(Box<(Identity, Place)>),
}

/// A node, ready to be told to the kernel.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Number and attributes.
    pub attr: Attr,
    /// How long the name leads here.
    pub name_lifetime: Lifetime,
    /// How long the attributes hold.
    pub attr_lifetime: Lifetime,
    claim: Claim,
}

/// The file system.
pub struct View {
    recovery: Arc<dyn Recovery>,
    layout: RwLock<Arc<Layout>>,
    known: Mutex<Known>,
    shown: Mutex<Shown>,
    roots: Mutex<Kept<RecoveryPointId>>,
    table: Mutex<Table>,
    nodes: Mutex<Kept<(ChunkId, u64)>>,
    owner: (u32, u32),
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// A node inside a point and how it was reached.
struct Inside {
    root: Arc<Root>,
    parent: u64,
    node: Arc<Node>,
}

impl View {
    /// A view of everything in `recovery`; the directories above the points belong to `uid` and `gid`.
    pub fn new(recovery: Arc<dyn Recovery>, uid: u32, gid: u32) -> Result<Self, StoreError> {
        let view = Self {
            recovery,
            layout: RwLock::new(Arc::new(Layout::new(&[]))),
            known: Mutex::default(),
            shown: Mutex::default(),
            roots: Mutex::new(Kept::new(ROOTS_KEPT)),
            table: Mutex::default(),
            nodes: Mutex::new(Kept::new(NODES_KEPT)),
            owner: (uid, gid),
        };
        view.refresh()?;
        Ok(view)
    }

    /// How long an entry of this directory, or its absence, is to be believed.
    pub fn lifetime_below(&self, directory: u64) -> Lifetime {
        match self.layout().get(directory) {
            Some(Stands::Folder(_)) => Lifetime::Brief,
            _ => Lifetime::Forever,
        }
    }

    /// Attributes of a node and how long they hold.
    pub fn attr(&self, ino: u64, patience: Patience) -> Result<(Attr, Lifetime), FsError> {
        let entry = self.entry(ino, patience)?;
        Ok((entry.attr, entry.attr_lifetime))
    }

    /// The entry `name` of the directory `parent`; of any node, `.` is itself, and `..` is the directory it is in. `/` is itself as
    /// well: so the kernel calls what it found by a handle and has no name of, when it asks whether that still holds.
    pub fn lookup(&self, parent: u64, name: &[u8], patience: Patience) -> Result<Entry, FsError> {
        match name {
            b"." | b"/" => return self.entry(parent, patience),
            b".." => return self.entry(self.parent(parent)?, patience),
            _ if name.len() > NAME_BYTES_MAX => return Err(FsError::NameTooLong),
            _ => {}
        }
        let layout = self.layout();
        if let Some(Stands::Folder(_)) = layout.get(parent) {
            let item = layout.find(parent, name).ok_or(FsError::NotFound)?;
            return self.item_entry(&layout, item, patience);
        }
        let inside = self.inside(parent, patience)?;
        let Some(tree) = tree_of(&inside.node)? else { return Err(FsError::NotFound) };
        let (ordinal, node) = self.recovery.find(&tree, name, patience)?.ok_or(FsError::NotFound)?;
        let folder = Arc::new(Folder { root: inside.root, parent, tree });
        let entry = self.found(Place { folder, ordinal }, &node, (Detail::All, patience))?;
        lock(&self.nodes).put((tree, ordinal), Arc::new(node));
        Ok(entry)
    }

    /// Where a symbolic link leads.
    pub fn readlink(&self, ino: u64, patience: Patience) -> Result<Bytes, FsError> {
        if let Some(Stands::Link(link)) = self.layout().get(ino) {
            return Ok(Bytes::copy_from_slice(link.target.as_bytes()));
        }
        let node = self.node(ino, patience)?;
        match (&node.target, node.kind) {
            (Some(target), NodeKind::Symlink) => Ok(Bytes::copy_from_slice(target)),
            _ => Err(FsError::WrongKind),
        }
    }

    /// Flags of a file or directory inside a point, in the bits of `FS_IOC_GETFLAGS`, as far as a point keeps them.
    pub fn flags(&self, ino: u64, patience: Patience) -> Result<u32, FsError> {
        if self.is_folder(ino) {
            return Ok(0);
        }
        let node = self.node(ino, patience)?;
        match node.kind {
            NodeKind::File | NodeKind::Directory => Ok(node.flags),
            _ => Err(FsError::WrongKind),
        }
    }

    /// Up to `len` bytes of a file from `offset` on; fewer only at its end.
    pub fn read(&self, ino: u64, offset: u64, len: u32, patience: Patience) -> Result<Bytes, FsError> {
        let node = self.file(ino, patience)?;
        let end = offset.saturating_add(u64::from(len)).min(node.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let content = node.content.as_ref().ok_or(FsError::NotCaptured)?;
        let bytes = self.recovery.read(content, offset..end, patience)?;
        if bytes.len() as u64 == end - offset {
            return Ok(bytes);
        }
        Err(missing_content())
    }

    /// Where the next data or hole begins, from `offset` on.
    pub fn seek(&self, ino: u64, offset: u64, seek: Seek, patience: Patience) -> Result<u64, FsError> {
        let node = self.file(ino, patience)?;
        if offset >= node.size {
            return Err(FsError::NothingThere);
        }
        let Some(content) = &node.content else {
            return if seek == Seek::Data { Ok(offset) } else { Ok(node.size) };
        };
        match (self.recovery.seek(content, offset, seek, patience)?, seek) {
            (Some(found), _) => Ok(found.min(node.size)),
            (None, Seek::Hole) => Ok(node.size),
            (None, Seek::Data) => Err(FsError::NothingThere),
        }
    }

    fn file(&self, ino: u64, patience: Patience) -> Result<Arc<Node>, FsError> {
        if self.is_folder(ino) {
            return Err(FsError::IsDirectory);
        }
        let node = self.node(ino, patience)?;
        match node.kind {
            NodeKind::File => Ok(node),
            NodeKind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::WrongKind),
        }
    }

    fn is_folder(&self, ino: u64) -> bool {
        matches!(self.layout().get(ino), Some(Stands::Folder(_)))
    }

    fn parent(&self, ino: u64) -> Result<u64, FsError> {
        match self.layout().get(ino) {
            Some(Stands::Folder(folder)) => return Ok(folder.parent),
            Some(Stands::Root(root)) => return Ok(root.parent),
            Some(Stands::Link(_)) => return Err(FsError::NotDirectory),
            None => {}
        }
        lock(&self.table).place(ino).map(|place| place.folder.parent).ok_or(FsError::Stale)
    }

    fn node(&self, ino: u64, patience: Patience) -> Result<Arc<Node>, FsError> {
        Ok(self.inside(ino, patience)?.node)
    }

    /// A node inside a point, by its number.
    fn inside(&self, ino: u64, patience: Patience) -> Result<Inside, FsError> {
        match self.layout().get(ino) {
            Some(Stands::Root(root)) => {
                return Ok(Inside {
                    root: root.clone(),
                    parent: root.parent,
                    node: self.root(root, patience)?,
                });
            }
            Some(_) => return Err(FsError::WrongKind),
            None if is_layout(ino) => return Err(FsError::Stale),
            None => {}
        }
        let place = lock(&self.table).place(ino).ok_or(FsError::Stale)?;
        let node = self.node_at(&place, patience)?;
        Ok(Inside { root: place.folder.root.clone(), parent: place.folder.parent, node })
    }

    fn node_at(&self, place: &Place, patience: Patience) -> Result<Arc<Node>, FsError> {
        let at = (place.folder.tree, place.ordinal);
        let kept = lock(&self.nodes).get(&at);
        if let Some(node) = kept {
            return Ok(node);
        }
        let node = self.recovery.list(&place.folder.tree, place.ordinal, 1, patience)?.into_iter().next();
        // The number of an entry that the directory never had: nobody was told it.
        let node = Arc::new(node.ok_or(FsError::Stale)?);
        lock(&self.nodes).put(at, node.clone());
        Ok(node)
    }

    /// Any node by its number, as an answer that counts as one lookup.
    fn entry(&self, ino: u64, patience: Patience) -> Result<Entry, FsError> {
        let layout = self.layout();
        match layout.get(ino) {
            Some(stands) => return self.layout_entry(ino, &stands, patience),
            None if is_layout(ino) => return Err(FsError::Stale),
            None => {}
        }
        let place = lock(&self.table).place(ino).ok_or(FsError::Stale)?;
        let node = self.node_at(&place, patience)?;
        let identity = Identity::of_node(&place.folder.root, (place.folder.parent, place.ordinal), &node);
        if lock(&self.table).number(&identity) != ino {
            // It lies in a segment, but goes by the number that all its names have.
            return Err(FsError::Stale);
        }
        self.inside_entry(ino, &node, (Detail::All, patience), (identity, place))
    }

    fn item_entry(&self, layout: &Layout, item: &Item, patience: Patience) -> Result<Entry, FsError> {
        let stands = layout.get(item.ino).ok_or(FsError::Stale)?;
        self.layout_entry(item.ino, &stands, patience)
    }

    fn layout_entry(&self, ino: u64, stands: &Stands<'_>, patience: Patience) -> Result<Entry, FsError> {
        let (attr, attr_lifetime) = match stands {
            Stands::Folder(folder) => (Attr::of_folder(ino, folder, self.owner), Lifetime::Brief),
            Stands::Link(link) => (Attr::of_link(ino, link, self.owner), Lifetime::Forever),
            Stands::Root(root) => (Attr::of_node(ino, &*self.root(root, patience)?, 0), Lifetime::Forever),
        };
        Ok(Entry { attr, name_lifetime: Lifetime::Brief, attr_lifetime, claim: Claim::Layout })
    }

    /// The root directory of a point.
    fn root(&self, root: &Root, patience: Patience) -> Result<Arc<Node>, FsError> {
        let kept = lock(&self.roots).get(&root.point);
        if let Some(node) = kept {
            return Ok(node);
        }
        let node = self.recovery.root(&root.point, patience).map_err(|e| match FsError::from(e) {
            // It expired a moment ago.
            FsError::Store(StoreError::NotFound { .. }) => FsError::NotFound,
            e => e,
        })?;
        let node = Arc::new(node);
        lock(&self.roots).put(root.point, node.clone());
        Ok(node)
    }

    /// An entry just found at `place`.
    fn found(
        &self,
        place: Place,
        node: &Node,
        (detail, patience): (Detail, Patience),
    ) -> Result<Entry, FsError> {
        let identity = Identity::of_node(&place.folder.root, (place.folder.parent, place.ordinal), node);
        let ino = lock(&self.table).number(&identity);
        self.inside_entry(ino, node, (detail, patience), (identity, place))
    }

    /// A node inside a point. What room it takes may be told roughly at first: then the kernel asks again.
    fn inside_entry(
        &self,
        ino: u64,
        node: &Node,
        (detail, patience): (Detail, Patience),
        found: (Identity, Place),
    ) -> Result<Entry, FsError> {
        let stored = self.stored(node, detail, patience)?;
        let attr = Attr::of_node(ino, node, stored.bytes);
        let attr_lifetime = if stored.lasts { Lifetime::Forever } else { Lifetime::Brief };
        let claim = Claim::Found(Box::new(found));
        Ok(Entry { attr, name_lifetime: Lifetime::Forever, attr_lifetime, claim })
    }

    /// Bytes of a node that take room.
    fn stored(&self, node: &Node, detail: Detail, patience: Patience) -> Result<Stored, FsError> {
        let bytes = match (&node.content, detail) {
            (Some(content), Detail::All) => return Ok(self.recovery.stored(content, node.size, patience)?),
            (Some(_), Detail::Names) => node.size,
            (None, _) => 0,
        };
        Ok(Stored { bytes, lasts: true })
    }
}

/// The tree of a directory; none if the source could not list it.
fn tree_of(node: &Node) -> Result<Option<ChunkId>, FsError> {
    match node.kind {
        NodeKind::Directory => Ok(node.subtree.map(|subtree| subtree.tree)),
        _ => Err(FsError::NotDirectory),
    }
}

fn missing_content() -> FsError {
    FsError::Store(StoreError::corrupt("file", "its chunks do not add up to its size"))
}

#[cfg(test)]
mod tests;
