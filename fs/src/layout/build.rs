//! From a list of points to the directories above them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::{RecoveryPointId, to_hex};
use holdfast_store::point::SourceName;
use holdfast_store::store::PointBrief;

use super::names::clock_name;
use super::{
    Door, Folder, Item, ItemKind, Layout, Link, Name, Root, Shared, clean_name, day_name, gmt_name, time_name,
};
use crate::inode::{Identity, ROOT};

/// Directory of the group and directory of the source.
type SourcePath = (String, String);

/// A point with the names it has below `by-group`.
struct Placed<'a> {
    point: &'a PointBrief,
    path: SourcePath,
    time: String,
    /// Which of the points of its second it is, from 1 on.
    number: usize,
}

/// The layout of these points, whatever their order, in which no name means another point than it did `before`.
pub fn layout(points: &[PointBrief], before: &Layout) -> Layout {
    let mut builder = Builder::default();
    builder.layout.shared = before.shared.clone();
    let placed = place(points, before, &mut builder.layout.shared);
    let [group, id, time] = ["by-group", "by-id", "by-time"].map(|name| builder.folder(ROOT, &[name]));
    builder.layout.by_id_folder = id;
    builder.add_groups(group, &placed);
    placed.iter().for_each(|p| builder.add_id(id, p.point));
    builder.add_times(time, &placed, before);
    builder.finish()
}

/// Points in order of time, with their names.
fn place<'a>(points: &'a [PointBrief], before: &Layout, shared: &mut Shared) -> Vec<Placed<'a>> {
    let paths = source_paths(points);
    let mut sorted: Vec<_> = points.iter().collect();
    sorted.sort_by_key(|p| (p.started, p.source.clone(), p.sequence, p.id));
    sorted.dedup_by_key(|p| p.id);
    let named = sorted.into_iter().filter_map(|point| {
        let (group, source) = paths.get(&*point.source)?.clone();
        Some((point, [group, source, time_name(began(point))]))
    });
    let named: Vec<_> = named.collect();
    let numbers = numbers(named.iter().map(|(point, name)| (point.id, name)), before, shared);
    let placed = named.into_iter().map(|(point, [group, source, time])| {
        let number = number_of(&numbers, &point.id);
        Placed { point, path: (group, source), time: numbered(time, number), number }
    });
    placed.collect()
}

/// Which of the points that would have the same name each one is, from 2 on. Those that were there before keep their numbers, and what is gone
/// leaves its number to nobody: a path that meant one point must never come to mean another.
fn numbers<'a>(
    named: impl Iterator<Item = (RecoveryPointId, &'a Name)>,
    before: &Layout,
    shared: &mut Shared,
) -> HashMap<RecoveryPointId, usize> {
    let mut by_name: HashMap<&Name, Vec<RecoveryPointId>> = HashMap::new();
    named.for_each(|(id, name)| by_name.entry(name).or_default().push(id));
    by_name.retain(|name, ids| ids.len() > 1 || shared.contains_key(*name));
    let mut numbers = HashMap::new();
    for (name, ids) in by_name {
        let order = shared.entry(name.clone()).or_default();
        let known: HashSet<RecoveryPointId> = order.iter().copied().collect();
        let came = ids.into_iter().filter(|id| !known.contains(id));
        let (earlier, new): (Vec<_>, Vec<_>) = came.partition(|id| before.by_id.contains_key(&id.hex()));
        order.extend(earlier.into_iter().chain(new));
        numbers.extend(order.iter().zip(1..).skip(1).map(|(id, number)| (*id, number)));
    }
    numbers
}

fn number_of(numbers: &HashMap<RecoveryPointId, usize>, id: &RecoveryPointId) -> usize {
    numbers.get(id).copied().unwrap_or(1)
}

/// The second, third... of equal names has the suffix `.2`, `.3`...
fn numbered(name: String, number: usize) -> String {
    if number == 1 { name } else { format!("{name}.{number}") }
}

/// Directories of every source. When two hosts have a source of the same name, both get `@<host>`: a path that meant
/// one machine must never quietly come to mean another.
fn source_paths(points: &[PointBrief]) -> HashMap<SourceName, SourcePath> {
    let sources: BTreeMap<_, _> = points.iter().map(|p| (&*p.source, p.tag)).collect();
    let plain = |s: &SourceName| (clean_name(&s.group), clean_name(&s.source));
    let hosted =
        |s: &SourceName| (clean_name(&s.group), format!("{}@{}", clean_name(&s.source), clean_name(&s.host)));
    let plain_uses = count(sources.keys().copied().map(plain));
    let first = |s: &SourceName| if plain_uses.get(&plain(s)) == Some(&1) { plain(s) } else { hosted(s) };
    let first_uses = count(sources.keys().copied().map(first));
    let named = sources.iter().map(|(source, tag)| {
        let (group, mut name) = first(source);
        if first_uses.get(&(group.clone(), name.clone())) != Some(&1) {
            name = format!("{name}~{}", to_hex(&tag.0));
        }
        ((*source).clone(), (group, name))
    });
    named.collect()
}

fn count(paths: impl Iterator<Item = SourcePath>) -> HashMap<SourcePath, usize> {
    paths.fold(HashMap::new(), |mut uses, path| {
        *uses.entry(path).or_default() += 1;
        uses
    })
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

    fn add_times(&mut self, top: u64, placed: &[Placed<'_>], before: &Layout) {
        let name = |p: &Placed<'_>| {
            let began = began(p.point);
            [day_name(began), String::new(), format!("{}@{}", p.path.1, clock_name(began))]
        };
        let named: Vec<(&Placed<'_>, Name)> = placed.iter().map(|p| (p, name(p))).collect();
        let names = named.iter().map(|(p, name)| (p.point.id, name));
        let numbers = numbers(names, before, &mut self.layout.shared);
        for (p, [day, _, name]) in named {
            let point = p.point;
            let folder = self.folder(top, &["by-time", &day]);
            let name = numbered(name, number_of(&numbers, &point.id));
            let target = format!("../../by-group/{}/{}/{}", p.path.0, p.path.1, p.time);
            let item = self.link(&folder.to_le_bytes(), name, target, began(point));
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
