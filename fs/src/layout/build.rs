//! From a list of points to the directories above them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use holdfast_store::clock::Timestamp;
use holdfast_store::store::PointBrief;

use super::given::{GONE_MAX, Given, SourcePath};
use super::names::{clock_name, numbered};
use super::{Door, Folder, Item, ItemKind, Layout, Link, Root, day_name, gmt_name, time_name};
use crate::inode::{Identity, ROOT};

/// A point with the names it has below `by-group`.
struct Placed<'a> {
    point: &'a PointBrief,
    path: SourcePath,
    time: String,
    /// Which of the points of its second it is, from 1 on.
    number: u32,
}

/// The layout of these points, whatever their order, in which no name means anything else than it did `before`.
pub fn layout(points: &[PointBrief], before: &Layout) -> Layout {
    let mut builder = Builder::default();
    builder.layout.given = before.given.clone();
    let placed = place(points, &mut builder.layout.given);
    let [group, id, time] = ["by-group", "by-id", "by-time"].map(|name| builder.folder(ROOT, &[name]));
    builder.layout.by_id_folder = id;
    builder.add_groups(group, &placed);
    placed.iter().for_each(|p| builder.add_id(id, p.point));
    builder.add_times(time, &placed);
    builder.layout.given.let_go_above(GONE_MAX, points);
    builder.finish()
}

/// Points in order of time, with their names.
fn place<'a>(points: &'a [PointBrief], given: &mut Given) -> Vec<Placed<'a>> {
    given.add_sources(points);
    let mut sorted: Vec<_> = points.iter().collect();
    sorted.sort_by_key(|p| (p.started, p.source.clone(), p.sequence, p.id));
    sorted.dedup_by_key(|p| p.id);
    let placed = sorted.into_iter().filter_map(|point| {
        let path = given.path(&point.source)?.clone();
        let number = given.number(hash(&[&path.0, &path.1]), point);
        Some(Placed { point, path, time: numbered(&time_name(began(point)), number), number })
    });
    placed.collect()
}

/// Directories in which points have numbers: those of sources, and those by time for each name of a source.
fn hash(names: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[derive(Default)]
struct Builder {
    layout: Layout,
    taken: HashSet<u64>,
}

impl Builder {
    fn number(&mut self, path: &[&[u8]]) -> u64 {
        let identity = Identity::of_layout(path);
        let free = (0..).map(|n| identity.candidate(n)).find(|ino| self.taken.insert(*ino));
        free.unwrap_or_default()
    }

    /// Makes the directory `path`, the last of its parts inside `parent`, unless it is there.
    fn folder(&mut self, parent: u64, path: &[&str]) -> u64 {
        let name = path.last().copied().unwrap_or_default();
        if let Some(item) = self.entry(parent).get(name) {
            return item.ino;
        }
        let ino = self.number(&path.iter().map(|part| part.as_bytes()).collect::<Vec<_>>());
        self.list(parent, Item { name: name.to_owned(), ino, kind: ItemKind::Folder });
        self.layout.folders.insert(ino, Folder::empty(parent));
        ino
    }

    fn entry(&mut self, folder: u64) -> &mut Folder {
        self.layout.folders.entry(folder).or_insert_with(|| Folder::empty(ROOT))
    }

    fn list(&mut self, folder: u64, item: Item) {
        self.entry(folder).list(item);
    }

    /// A link's number depends on where it leads, because the kernel keeps what it once read of a link.
    fn link(&mut self, what: &[u8], name: String, target: String, changed: Timestamp) -> Item {
        let ino = self.number(&[b"->", what, name.as_bytes(), target.as_bytes()]);
        self.layout.links.insert(ino, Link { target, changed });
        Item { name, ino, kind: ItemKind::Link }
    }

    fn root(&mut self, parent: u64, name: String, door: Door, point: &PointBrief) -> Item {
        let ino = self.number(&[b"point", &[door as u8], &point.id.0]);
        let root = Root { ino, parent, door, point: point.id, source: point.source.clone() };
        self.layout.roots.insert(ino, Arc::new(root));
        Item { name, ino, kind: ItemKind::Point }
    }

    fn add_groups(&mut self, top: u64, placed: &[Placed<'_>]) {
        let mut newest: BTreeMap<u64, &Placed<'_>> = BTreeMap::new();
        for p in placed {
            let point = p.point;
            let group = self.folder(top, &["by-group", &p.path.0]);
            let source = self.folder(group, &["by-group", &p.path.0, &p.path.1]);
            let item = self.root(source, p.time.clone(), Door::Group, point);
            self.list(source, item);
            if p.number == 1 {
                self.hide_gmt(source, point);
            }
            [top, group, source].into_iter().for_each(|folder| self.touch(folder, point));
            let best = newest.entry(source).or_insert(p);
            if best.point.sequence <= point.sequence {
                *best = p;
            }
        }
        for (source, p) in newest {
            let what = source.to_le_bytes();
            let item = self.link(&what, "latest".to_owned(), p.time.clone(), began(p.point));
            self.list(source, item);
        }
    }

    /// Of the points of one second the first has the alias.
    fn hide_gmt(&mut self, source: u64, point: &PointBrief) {
        let name = gmt_name(began(point));
        let item = self.root(source, name.clone(), Door::Gmt, point);
        self.entry(source).hidden.insert(name, item);
    }

    fn add_id(&mut self, top: u64, point: &PointBrief) {
        let id = point.id.hex();
        let item = self.root(top, id.clone(), Door::Id, point);
        self.list(top, item);
        self.touch(top, point);
        let link = self.link(b"prefix", id.clone(), id.clone(), began(point));
        self.layout.by_id.insert(id, link);
    }

    fn add_times(&mut self, top: u64, placed: &[Placed<'_>]) {
        for p in placed {
            let (point, began) = (p.point, began(p.point));
            let folder = self.folder(top, &["by-time", &day_name(began)]);
            let number = self.layout.given.number(hash(&[&p.path.1]), point);
            let name = numbered(&format!("{}@{}", p.path.1, clock_name(began)), number);
            let target = format!("../../by-group/{}/{}/{}", p.path.0, p.path.1, p.time);
            let item = self.link(&folder.to_le_bytes(), name, target, began);
            self.list(folder, item);
            [top, folder].into_iter().for_each(|folder| self.touch(folder, point));
        }
    }

    fn touch(&mut self, folder: u64, point: &PointBrief) {
        for ino in BTreeSet::from([folder, ROOT]) {
            let folder = self.entry(ino);
            folder.changed.seconds = folder.changed.seconds.max(point.started);
        }
    }

    fn finish(mut self) -> Layout {
        for folder in self.layout.folders.values_mut() {
            folder.changed.nanos = listing_hash(folder);
        }
        self.layout
    }
}

/// A number of nanoseconds that differs when the listing does.
fn listing_hash(folder: &Folder) -> u32 {
    let mut hasher = blake3::Hasher::new();
    for (position, item) in &folder.listed {
        hasher.update(&position.to_le_bytes()).update(&item.ino.to_le_bytes());
    }
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    u32::from_le_bytes([a, b, c, d]) % 1_000_000_000
}

/// Where an entry of this name is listed, or after it, next to others that would lie there as well.
pub(super) fn first_position(name: &str) -> u64 {
    let [a, b, c, d, e, f, g, _, ..] = *blake3::hash(name.as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, 0]) + 3
}

fn began(point: &PointBrief) -> Timestamp {
    Timestamp::from_seconds(point.started)
}

impl Folder {
    fn empty(parent: u64) -> Self {
        Self { parent, listed: BTreeMap::new(), hidden: HashMap::new(), changed: Timestamp::default() }
    }

    fn list(&mut self, item: Item) {
        let mut position = first_position(&item.name);
        while self.listed.contains_key(&position) {
            position += 1;
        }
        self.listed.insert(position, item);
    }
}
