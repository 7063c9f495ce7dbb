//! The directories above the points: a pure function of the list of points.
//!
//! ```text
//! by-group/<group>/<source>/2026-11-20T12.00.00Z/     every point (UTC; no ':' so that Samba can export it)
//! by-group/<group>/<source>/latest                    -> the newest of them
//! by-group/<group>/<source>/@GMT-2026.11.20-12.00.00/ the same for shadow_copy2; found by name, not listed
//! by-id/<32 digits>/                                  the name that never changes; 8 digits or more find it, too
//! by-time/2026-11-20/<source>@12.00.00Z               -> ../../by-group/...
//! ```
//!
//! When two hosts have a source of the same name in a group, both have `@<host>` in their directories' names, or whoever came later while
//! somebody looks on.
//!
//! A point is a directory in three places, its *doors*. Each door has numbers of its own, because the kernel
//! gives a directory one name only: it would move the directory when it is met under another. Links, which may have
//! any number of names, serve everywhere else.
//!
//! Positions for listing come from the hash of a name, so that a listing that is interrupted by a new or vanished
//! point neither repeats nor leaves out any other. The time of change of a directory carries a hash of its
//! listing in its nanoseconds: the kernel, which keeps listings, sees by it that one has changed.

mod build;
mod given;
mod names;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::point::SourceName;
use holdfast_store::store::PointBrief;

use given::Given;

pub use names::{clean_name, day_name, gmt_name, rfc3339, time_name};

/// Shortest prefix of an id that is looked up, in digits.
pub const PREFIX_DIGITS_MIN: usize = 8;

/// Through which directory a point was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// `by-group/<group>/<source>/<time>`
    Group,
    /// `by-id/<id>`
    Id,
    /// `by-group/<group>/<source>/@GMT-...`
    Gmt,
}

/// A point, as entered through one of its doors.
#[derive(Clone, Debug)]
pub struct Root {
    /// Number of its root directory.
    pub ino: u64,
    /// Number of the directory of the layout that it is in.
    pub parent: u64,
    /// The door.
    pub door: Door,
    /// The point.
    pub point: RecoveryPointId,
    /// Its source.
    pub source: Arc<SourceName>,
}

/// What an entry of the layout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A directory of the layout.
    Folder,
    /// A symbolic link.
    Link,
    /// The root of a point.
    Point,
}

/// An entry of a directory of the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ino: u64,
    /// What it is.
    pub kind: ItemKind,
}

/// A directory of the layout.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Number of the directory above; its own for the root.
    pub parent: u64,
    /// Listed entries by position (3 and above).
    pub listed: BTreeMap<u64, Item>,
    /// Entries that are found by name only.
    pub hidden: HashMap<String, Item>,
    /// Time of the newest point below; the nanoseconds are a hash of the listing.
    pub changed: Timestamp,
}

impl Folder {
    /// The entry of that name, listed or not.
    pub fn get(&self, name: &str) -> Option<&Item> {
        let first = build::first_position(name);
        let mut there = (first..).map_while(|at| self.listed.get(&at));
        there.find(|item| item.name == name).or_else(|| self.hidden.get(name))
    }

    /// Link count: two and one for each directory in it.
    pub fn links(&self) -> u32 {
        let folders = self.listed.values().filter(|item| item.kind != ItemKind::Link).count();
        u32::try_from(folders).unwrap_or(u32::MAX - 2).saturating_add(2)
    }
}

/// A symbolic link of the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it leads, relative.
    pub target: String,
    /// When the point it leads to was begun.
    pub changed: Timestamp,
}

/// What a number of the layout stands for.
#[derive(Debug)]
pub enum Stands<'a> {
    /// A directory.
    Folder(&'a Folder),
    /// A link.
    Link(&'a Link),
    /// The root of a point.
    Root(&'a Arc<Root>),
}

/// A directory whose names no longer mean what they did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub folder: u64,
    /// Names that came, went, or stand for something else.
    pub names: Vec<Vec<u8>>,
}

/// All directories above the points.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    folders: HashMap<u64, Folder>,
    links: HashMap<u64, Link>,
    roots: HashMap<u64, Arc<Root>>,
    by_id: BTreeMap<String, Item>,
    by_id_folder: u64,
    given: Given,
}

impl Layout {
    /// The layout of these points, whatever their order.
    pub fn new(points: &[PointBrief]) -> Self {
        build::layout(points, &Self::default())
    }

    /// The layout of these points after this one: no name comes to mean anything else.
    pub fn next(&self, points: &[PointBrief]) -> Self {
        build::layout(points, self)
    }

    /// What the number stands for, if it is one of the layout's.
    pub fn get(&self, ino: u64) -> Option<Stands<'_>> {
        let folder = self.folders.get(&ino).map(Stands::Folder);
        let link = || self.links.get(&ino).map(Stands::Link);
        folder.or_else(link).or_else(|| self.roots.get(&ino).map(Stands::Root))
    }

    /// The entry `name` of the directory `folder`.
    pub fn find(&self, folder: u64, name: &[u8]) -> Option<&Item> {
        let name = std::str::from_utf8(name).ok()?;
        let found = self.folders.get(&folder)?.get(name);
        if folder == self.by_id_folder { found.or_else(|| self.find_prefix(name)) } else { found }
    }

    /// The only id that begins so, as a link to its directory.
    fn find_prefix(&self, prefix: &str) -> Option<&Item> {
        if prefix.len() < PREFIX_DIGITS_MIN {
            return None;
        }
        let mut matches = self.by_id.range(prefix.to_owned()..).take_while(|(id, _)| id.starts_with(prefix));
        let (_, link) = matches.next()?;
        matches.next().is_none().then_some(link)
    }

    /// All points through all their doors.
    pub fn roots(&self) -> impl Iterator<Item = &Arc<Root>> {
        self.roots.values()
    }

    /// What the kernel must be told when `self` gives way to `next`. Directories that are gone are told of
    /// by the directories above them.
    pub fn changes(&self, next: &Self) -> Vec<Change> {
        let mut changes: Vec<_> = self
            .folders
            .iter()
            .filter_map(|(ino, old)| {
                let names = changed_names(old, next.folders.get(ino)?);
                (!names.is_empty()).then_some(Change { folder: *ino, names })
            })
            .collect();
        changes.sort_by_key(|change| change.folder);
        changes
    }
}

fn changed_names(old: &Folder, new: &Folder) -> Vec<Vec<u8>> {
    let all =
        |folder: &Folder| folder.listed.values().chain(folder.hidden.values()).cloned().collect::<Vec<_>>();
    let mut names: Vec<_> = all(old)
        .into_iter()
        .filter(|item| new.get(&item.name) != Some(item))
        .chain(all(new).into_iter().filter(|item| old.get(&item.name).is_none()))
        .map(|item| item.name.into_bytes())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
