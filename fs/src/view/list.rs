//! Listings, by position.

use std::sync::Arc;

use holdfast_store::tree::NodeKind;

use super::{Attr, Claim, Entry, Lifetime, View, tree_of};
use crate::error::FsError;
use crate::inode::{self, Place};
use crate::layout::{Folder, Layout, Stands};
use crate::recovery::Patience;

/// Position before the first entry of a directory: that of `..`.
const DOTS: u64 = 2;

/// How much a listing has to tell of each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Number, kind and name; other attributes are rough.
    Names,
    /// Everything.
    All,
}

/// An entry of a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: Vec<u8>,
    /// Its position: the listing goes on after it.
    pub position: u64,
    /// The node.
    pub entry: Entry,
}

impl Listed {
    /// Whether it is `.` or `..`, of which the kernel keeps no count.
    pub fn is_dots(&self) -> bool {
        self.position <= DOTS
    }
}

impl View {
    /// Entries of a directory after `position` (0 for the beginning), about `most` of them; none at its end.
    pub fn list(
        &self,
        ino: u64,
        position: u64,
        most: usize,
        detail: Detail,
        patience: Patience,
    ) -> Result<Vec<Listed>, FsError> {
        let layout = self.layout();
        if let Some(Stands::Folder(folder)) = layout.get(ino) {
            return self.list_folder(&layout, (ino, folder), (position, most), patience);
        }
        let inside = match self.inside(ino, patience) {
            Err(FsError::WrongKind) => return Err(FsError::NotDirectory),
            other => other?,
        };
        let tree = tree_of(&inside.node)?;
        let mut listed = dots(ino, inside.parent, position);
        let Some(tree) = tree else { return Ok(listed) };
        let from = position.max(DOTS) - DOTS;
        let nodes = self.recovery.list(&tree, from, most.max(1), patience)?;
        let folder = Arc::new(inode::Folder { root: inside.root, parent: ino, tree });
        for (ordinal, node) in (from..).zip(nodes) {
            let place = Place { folder: folder.clone(), ordinal };
            let entry = self.found(place, &node, (detail, patience))?;
            listed.push(Listed { name: node.name, position: ordinal + DOTS + 1, entry });
        }
        Ok(listed)
    }

    fn list_folder(
        &self,
        layout: &Layout,
        (ino, folder): (u64, &Folder),
        (position, most): (u64, usize),
        patience: Patience,
    ) -> Result<Vec<Listed>, FsError> {
        let mut listed = dots(ino, folder.parent, position);
        let room = listed.len() + most.max(1);
        for (at, item) in folder.listed.range(position.saturating_add(1)..) {
            if listed.len() == room {
                break;
            }
            let entry = match self.item_entry(layout, item, patience) {
                // One that went takes no place: an answer without entries would be the end of the directory.
                Err(FsError::NotFound) => continue,
                // A damaged point is refused when it is entered; the others are listed with it.
                Err(FsError::Store(_)) => dot(item.ino),
                entry => entry?,
            };
            listed.push(Listed { name: item.name.clone().into_bytes(), position: *at, entry });
        }
        Ok(listed)
    }
}

/// `.` and `..`, as far as they come after `position`.
fn dots(ino: u64, parent: u64, position: u64) -> Vec<Listed> {
    let all = [(b".".to_vec(), 1, ino), (b"..".to_vec(), DOTS, parent)];
    let wanted = all.into_iter().filter(|(_, at, _)| *at > position);
    wanted.map(|(name, position, ino)| Listed { name, position, entry: dot(ino) }).collect()
}

/// The kernel takes nothing but number and kind from these.
fn dot(ino: u64) -> Entry {
    let zero = Default::default();
    let kind = NodeKind::Directory;
    let (mode, links, uid, gid, device, size, blocks) = (0o555, 2, 0, 0, (0, 0), 0, 0);
    let attr = Attr { ino, kind, mode, links, uid, gid, device, size, blocks, mtime: zero, ctime: zero };
    Entry { attr, name_lifetime: Lifetime::Brief, attr_lifetime: Lifetime::Brief, claim: Claim::Layout }
}
