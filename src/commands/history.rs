//! `holdfast history`: the versions of one file over all recovery points.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::Args;
use holdfast_store::id::to_hex;
use holdfast_store::point::SourceName;
use holdfast_store::store::{Store, StoredPoint};
use holdfast_store::tree::walk::{Differences, lookup_path};
use holdfast_store::tree::{Node, NodeKind};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use super::place::{in_mount, looks_like_path};
use super::scope::{Points, ScopeArgs};
use crate::json::{NodeLine, PathText};
use crate::open::open_store;
use crate::outcome::{Done, Failure, Kind, Outcome};
use crate::patience;
use crate::point_spec::PointSpec;
use crate::terminal::text::{self, Table, rfc3339};

/// List the versions of a file
///
/// Shows each version of a file or directory that recovery points hold: size, time of last change, what differs from the
/// version before, and the points in which it is. Contents are compared by their lists of chunks: no data is read. PATH is
/// a path as it is on the source, POINT:PATH, or a path in a mount; with --source, a path within that source.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast history ~/docs/report.txt        the file as it was protected
  holdfast history latest:report.txt        the same by way of a point
  holdfast history report.txt --source docs
  holdfast history /mnt/recovery/by-group/default/docs/latest/report.txt")]
pub struct HistoryArgs {
    /// The file: PATH on the source, POINT:PATH, or a path in a mount
    #[arg(value_name = "PATH")]
    path: OsString,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Looks for the file in all points of each source that may have it.
pub fn run(context: &Context<'_>, args: &HistoryArgs) -> Outcome {
    let store = open_store(context)?;
    let (places, strays) = places(Points::of(&store)?, args)?;
    let mut histories = Vec::new();
    for place in places {
        histories.push(history(context, &store, place)?);
    }
    let unread = strays + histories.iter().map(|history| history.unread).sum::<usize>();
    if histories.iter().all(|history| history.versions.is_empty()) {
        let path = text::printable(args.path.as_bytes());
        if unread > 0 {
            let points = text::count(unread as u64, "point");
            return Err(Failure::failed(format!(
                "{path}: in no recovery point that could be read; {points} could not"
            )));
        }
        return Err(Failure::failed(format!("no recovery point has {path}"))
            .hint("`holdfast find NAME` looks for a name in all points; `holdfast snapshots` lists them"));
    }
    histories.retain(|history| !history.versions.is_empty());
    let zone = TimeZone::system();
    for (n, history) in histories.iter().enumerate() {
        if context.terminal.json() {
            context.terminal.json_line(&as_json(history))?;
        } else {
            let gap = if n > 0 { "\n" } else { "" };
            context.terminal.line(&format!("{gap}{}", render(history, &zone)))?;
        }
    }
    Ok(if unread > 0 { Done::Partial } else { Done::Whole })
}

/// A path in the points of one source.
#[derive(Debug)]
struct Place {
    source: SourceName,
    /// Its points in the order in which they were taken, with the path in each: sources can move.
    points: Vec<(StoredPoint, Vec<u8>)>,
    /// How many of its points are in doubt.
    in_doubt: usize,
}

/// Where the file may be: the way that the path was given decides. And how many points in doubt may be of any of these sources.
fn places(all: Points, args: &HistoryArgs) -> Result<(Vec<Place>, usize), Failure> {
    if let Some(spec) = spec_of(args) {
        let id = all.find(&spec.point, &args.scope.scope())?;
        let source =
            all.readable.iter().find(|point| point.point.id == id).map(|point| point.point.source.clone());
        let of_source = |point: StoredPoint| {
            (Some(&point.point.source) == source.as_ref()).then(|| (point, spec.path.clone()))
        };
        return Ok(by_source(all, of_source));
    }
    let all = args.scope.select_points(all);
    let path = Path::new(&args.path);
    if args.scope.source.is_some() && path.is_relative() {
        let path = without_dots(args.path.as_bytes());
        return Ok(by_source(all, |point| Some((point, path.clone()))));
    }
    let path = std::path::absolute(path).map_err(|error| Failure::io("find", path, &error))?;
    let path = without_dots(path.as_os_str().as_bytes());
    Ok(by_source(all, |point| below(&point.point.path, &path).map(|path| (point, path))))
}

/// What the path says of a point, if it does.
fn spec_of(args: &HistoryArgs) -> Option<PointSpec> {
    if let Some(found) = in_mount(Path::new(&args.path)) {
        return Some(found);
    }
    if looks_like_path(&args.path) || args.scope.source.is_some() {
        return None;
    }
    // A point without a path is the name of a file, such as `cafe` or `latest`.
    PointSpec::parse(&args.path, &TimeZone::system()).ok().filter(|spec| !spec.path.is_empty())
}

/// Names between single slashes, with `.` left out and `..` gone up.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            _ => names.push(name),
        }
    }
    names.join(&b'/')
}

/// The path below a source, if it is there; empty for the source itself.
fn below(source: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let source = without_dots(source);
    if source.is_empty() {
        return Some(path.to_vec());
    }
    let rest = path.strip_prefix(source.as_slice())?;
    (rest.is_empty() || rest.starts_with(b"/")).then(|| without_dots(rest))
}

/// Points by their source, as far as `within` says that they may have the path, and where; and how many are in doubt of which the source
/// is not known.
fn by_source(
    all: Points,
    within: impl Fn(StoredPoint) -> Option<(StoredPoint, Vec<u8>)>,
) -> (Vec<Place>, usize) {
    let sources: Vec<Option<SourceName>> =
        all.doubtful.iter().map(|doubt| all.source_of(doubt).cloned()).collect();
    let mut places: Vec<Place> = Vec::new();
    for (point, path) in all.readable.into_iter().filter_map(within) {
        let source = &point.point.source;
        match places.iter_mut().find(|place| place.source == *source) {
            Some(place) => place.points.push((point, path)),
            None => {
                let in_doubt = sources.iter().filter(|of| of.as_ref() == Some(source)).count();
                places.push(Place { source: source.clone(), points: vec![(point, path)], in_doubt });
            }
        }
    }
    for place in &mut places {
        place.points.sort_by_key(|(point, _)| (point.point.sequence, point.point.started));
    }
    (places, sources.iter().filter(|of| of.is_none()).count())
}

/// What there was of a file, in the order in which it was first seen.
#[derive(Debug)]
struct History {
    source: SourceName,
    path: Vec<u8>,
    versions: Vec<Version>,
    /// Points of the source.
    points: usize,
    /// Those that may have it or not: they are in doubt, or a directory on the way could not be read.
    unread: usize,
}

/// Points that hold the same.
#[derive(Debug)]
struct Version {
    node: Node,
    /// From the version that was first seen before this one.
    differs: Vec<&'static str>,
    points: Vec<StoredPoint>,
}

fn history(context: &Context<'_>, store: &Store, place: Place) -> Result<History, Failure> {
    let path = place.points.last().map(|(_, path)| path.clone()).unwrap_or_default();
    let (unread, points) = (place.in_doubt, place.points.len() + place.in_doubt);
    let mut history = History { source: place.source, path, versions: Vec::new(), points, unread };
    for (point, path) in place.points {
        if context.terminal.cancelled() {
            return Err(Failure::interrupted());
        }
        match node_at(store, &point, &path) {
            Ok(Some(node)) => history.add(point, node),
            Ok(None) => {}
            Err(failure) if failure.kind == Kind::Interrupted => return Err(failure),
            Err(failure) => {
                let (id, path) = (point.point.id.short(), text::printable(&path));
                context.terminal.warn(&format!("point {id}: cannot look for {path}: {}", failure.message));
                history.unread += 1;
            }
        }
    }
    Ok(history)
}

fn node_at(store: &Store, point: &StoredPoint, path: &[u8]) -> Result<Option<Node>, Failure> {
    let root = &point.point.root;
    if path.is_empty() {
        return Ok(Some(root.clone()));
    }
    let Some(below) = &root.subtree else { return Ok(None) };
    let found = lookup_path(store.pages(), &below.tree, path, patience::FOR_A_VAULT)?;
    Ok(found.map(|node| node.to_node()))
}

impl History {
    fn add(&mut self, point: StoredPoint, node: Node) {
        match self.versions.iter_mut().rfind(|known| differences(&known.node, &node).is_empty()) {
            Some(known) => known.points.push(point),
            None => {
                let before = self.versions.last();
                let differs = before.map(|before| differences(&before.node, &node)).unwrap_or_default();
                self.versions.push(Version { node, differs, points: vec![point] });
            }
        }
    }

    fn points_with(&self) -> usize {
        self.versions.iter().map(|version| version.points.len()).sum()
    }

    fn points_without(&self) -> usize {
        self.points - self.points_with() - self.unread
    }
}

/// In which respects, in words; of a directory what is below it counts as content.
fn differences(old: &Node, new: &Node) -> Vec<&'static str> {
    if old.kind != new.kind {
        return vec!["type"];
    }
    let differs = Differences::between(old, new);
    let content = differs.content || old.subtree.map(|s| s.tree) != new.subtree.map(|s| s.tree);
    let words = [
        (content, "content"),
        (differs.mtime, "mtime"),
        (differs.mode, "mode"),
        (differs.owner, "owner"),
        (differs.xattrs, "xattrs"),
        (differs.other, "flags"),
    ];
    words.into_iter().filter(|(differs, _)| *differs).map(|(_, word)| word).collect()
}

fn render(history: &History, zone: &TimeZone) -> String {
    let SourceName { host, group, source } = &history.source;
    let mut table = Table::new(&[">Version", ">Size", "Modified", "Differs in", "First", "Last", ">Points"]);
    for (n, version) in history.versions.iter().enumerate() {
        let id = |point: Option<&StoredPoint>| point.map(|point| point.point.id.short()).unwrap_or_default();
        table.row([
            (n + 1).to_string(),
            text::size(size(&version.node)),
            text::local_time(version.node.mtime, zone),
            version.differs.join(", "),
            id(version.points.first()),
            id(version.points.last()),
            version.points.len().to_string(),
        ]);
    }
    let path = text::printable(&history.path);
    let (with, versions) = (history.points_with(), text::count(history.versions.len() as u64, "version"));
    let more = |n: usize, what| match n {
        0 => String::new(),
        n => format!("; {} {what}", text::count(n as u64, "point")),
    };
    let without = more(history.points_without(), "without it");
    let unread = more(history.unread, "could not be read");
    let points = text::count(with as u64, "point");
    format!(
        "{path} in {source} ({group}, {host})\n{}\n{versions} in {points}{without}{unread}",
        table.render()
    )
}

fn size(node: &Node) -> u64 {
    match &node.subtree {
        Some(below) => below.bytes,
        None => node.size,
    }
}

/// The line of `history --json`, one for each source.
#[derive(Serialize)]
struct HistoryLine {
    /// Always `history`.
    message_type: &'static str,
    host: String,
    group: String,
    source: String,
    #[serde(flatten)]
    path: PathText,
    /// Points of the source.
    points_total: usize,
    /// Of these, without it.
    points_without: usize,
    /// Those that may have it or not: they are in doubt, or a directory on the way could not be read.
    points_unread: usize,
    versions: Vec<VersionLine>,
}

#[derive(Serialize)]
struct VersionLine {
    /// From 1, in the order in which they were first seen.
    version: usize,
    /// What differs from the version before: `type`, `content`, `mtime`, `mode`, `owner`, `xattrs`, `flags`.
    differs: Vec<&'static str>,
    /// A name of a file's content: equal where bytes and holes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    node: NodeLine,
    points: Vec<PointLine>,
}

#[derive(Serialize)]
struct PointLine {
    id: String,
    time: String,
}

fn as_json(history: &History) -> HistoryLine {
    let source = history.source.clone();
    let version = |(n, version): (usize, &Version)| VersionLine {
        version: n + 1,
        differs: version.differs.clone(),
        content: fingerprint(&version.node),
        node: NodeLine::of(&history.path, &version.node),
        points: version.points.iter().map(PointLine::from).collect(),
    };
    HistoryLine {
        message_type: "history",
        host: source.host,
        group: source.group,
        source: source.source,
        path: PathText::of(&history.path),
        points_total: history.points,
        points_without: history.points_without(),
        points_unread: history.unread,
        versions: history.versions.iter().enumerate().map(version).collect(),
    }
}

impl From<&StoredPoint> for PointLine {
    fn from(stored: &StoredPoint) -> Self {
        Self { id: stored.point.id.hex(), time: rfc3339(stored.point.started) }
    }
}

fn fingerprint(node: &Node) -> Option<String> {
    let content = node.content.as_ref().filter(|_| node.kind == NodeKind::File)?;
    Some(to_hex(&content.fingerprint()))
}

#[cfg(test)]
mod tests;
