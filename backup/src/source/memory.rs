//! A data source in memory, for tests of everything that reads sources.

use std::collections::BTreeMap;
use std::ops::ControlFlow::Continue;
use std::ops::Range;
use std::sync::Arc;

use holdfast_store::clock::Timestamp;
use holdfast_store::tree::testing::bare_node;
use holdfast_store::tree::{Node, NodeKind, Xattr};

use super::{DataSource, FileOpener, Flow, Found, OpenFile, Visitor, Walked};
use crate::descent::Place;
use crate::error::SourceError;

/// A stretch of a file in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Stored bytes.
    Data(Vec<u8>),
    /// A hole of this length.
    Hole(u64),
}

impl Segment {
    fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Hole(len) => *len,
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    node: Node,
    segments: Arc<Vec<Segment>>,
    children: BTreeMap<Vec<u8>, Entry>,
}

/// A tree in memory. Paths are relative, with `/`; directories on the way are made. Every entry gets an inode number of its own and
/// times that differ from all others'.
#[derive(Debug, Clone)]
pub struct MemorySource {
    root: Entry,
    made: u64,
}

impl Default for MemorySource {
    fn default() -> Self {
        Self::new()
    }
}

fn blank(name: &[u8], kind: NodeKind, number: u64) -> Node {
    let time = Timestamp { seconds: 1_600_000_000 + number.cast_signed(), nanos: 123_456_789 };
    let mode = if kind == NodeKind::Directory { 0o755 } else { 0o644 };
    Node { mode, mtime: time, ctime: time, inode: number, ..bare_node(name, kind) }
}

impl Entry {
    fn new(name: &[u8], kind: NodeKind, number: u64) -> Self {
        Self { node: blank(name, kind, number), segments: Arc::default(), children: BTreeMap::new() }
    }
}

impl MemorySource {
    /// An empty directory.
    pub fn new() -> Self {
        Self { root: Entry::new(b"", NodeKind::Directory, 1), made: 1 }
    }

    /// Makes or replaces an entry of the given kind and gives its attributes to be changed at will.
    pub fn put(&mut self, path: &[u8], kind: NodeKind) -> &mut Node {
        &mut self.slot(path, kind).node
    }

    /// Makes or replaces a file.
    pub fn file(&mut self, path: &[u8], content: &[u8]) -> &mut Node {
        self.segments(path, vec![Segment::Data(content.to_vec())])
    }

    /// Makes or replaces a file that may have holes.
    pub fn segments(&mut self, path: &[u8], segments: Vec<Segment>) -> &mut Node {
        let entry = self.slot(path, NodeKind::File);
        entry.node.size = segments.iter().map(Segment::len).sum();
        entry.segments = Arc::new(segments);
        &mut entry.node
    }

    /// Makes or replaces a symbolic link.
    pub fn symlink(&mut self, path: &[u8], target: &[u8]) -> &mut Node {
        let node = self.put(path, NodeKind::Symlink);
        node.size = target.len() as u64;
        node.target = Some(target.to_vec());
        node
    }

    /// Attributes of what is at `path`.
    pub fn node_mut(&mut self, path: &[u8]) -> Option<&mut Node> {
        let mut at = &mut self.root;
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            at = at.children.get_mut(name)?;
        }
        Some(&mut at.node)
    }

    /// Removes what is at `path`, with everything below.
    pub fn remove(&mut self, path: &[u8]) {
        let (above, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => path.split_at(slash + 1),
            None => (&b""[..], path),
        };
        let mut at = Some(&mut self.root);
        for name in above.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            at = at.and_then(|entry| entry.children.get_mut(name));
        }
        if let Some(entry) = at {
            entry.children.remove(name);
        }
    }

    fn slot(&mut self, path: &[u8], kind: NodeKind) -> &mut Entry {
        let mut at = &mut self.root;
        let mut names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let last = names.peek().is_none();
            self.made += 1;
            let made = self.made;
            let kind = if last { kind } else { NodeKind::Directory };
            let entry = at.children.entry(name.to_vec()).or_insert_with(|| Entry::new(name, kind, made));
            if last && kind != NodeKind::Directory {
                *entry = Entry::new(name, kind, made);
            }
            at = entry;
        }
        at
    }
}

impl DataSource for MemorySource {
    fn walk(&self, visitor: &mut dyn Visitor) -> Result<Walked, SourceError> {
        Ok(match tell(&self.root, &Place::root(), &Place::root(), visitor) {
            Continue(()) => Walked::Whole,
            std::ops::ControlFlow::Break(()) => Walked::Stopped,
        })
    }
}

fn tell(entry: &Entry, place: &Arc<Place>, own: &Arc<Place>, visitor: &mut dyn Visitor) -> Flow {
    let previous = visitor.previous(&entry.node.name);
    let mut node = entry.node.clone();
    let unchanged = previous.as_ref().is_some_and(|previous| same(previous, &node));
    if unchanged && let Some(previous) = &previous {
        node.content.clone_from(&previous.content);
        node.xattrs.clone_from(&previous.xattrs);
        node.extensions.clone_from(&previous.extensions);
        node.target.clone_from(&previous.target);
        node.flags = previous.flags;
    }
    let is_file = node.kind == NodeKind::File;
    if is_file && !unchanged {
        (node.xattrs, node.flags) = (Vec::new(), 0);
    }
    let opener = is_file.then(|| {
        Box::new(MemoryFile { node: entry.node.clone(), segments: Arc::clone(&entry.segments) })
            as Box<dyn FileOpener>
    });
    let is_directory = node.kind == NodeKind::Directory;
    let previous = previous.filter(|_| is_directory || !unchanged);
    let found = Found { node, unchanged, previous, opener, place: Arc::clone(place) };
    if !is_directory {
        return visitor.entry(found);
    }
    visitor.enter_directory(found)?;
    for child in entry.children.values() {
        tell(child, own, &Place::below(own, &child.node.name), visitor)?;
    }
    visitor.leave_directory()
}

fn same(previous: &Node, now: &Node) -> bool {
    let key = |node: &Node| (node.kind, node.size, node.mtime, node.ctime, node.inode, node.filesystem);
    key(previous) == key(now) && (now.kind != NodeKind::File || previous.content.is_some())
}

#[derive(Clone)]
struct MemoryFile {
    node: Node,
    segments: Arc<Vec<Segment>>,
}

impl FileOpener for MemoryFile {
    fn open(&self) -> Result<Box<dyn OpenFile>, SourceError> {
        Ok(Box::new(self.clone()))
    }
}

impl MemoryFile {
    /// Segments with where they begin.
    fn placed(&self) -> impl Iterator<Item = (u64, &Segment)> {
        self.segments.iter().scan(0, |start, segment| {
            let at = *start;
            *start += segment.len();
            Some((at, segment))
        })
    }
}

impl OpenFile for MemoryFile {
    fn write_out(&self) {}

    fn attributes(&self) -> Result<Node, SourceError> {
        Ok(Node { xattrs: Vec::new(), flags: 0, content: None, ..self.node.clone() })
    }

    fn xattrs(&self) -> Result<Vec<Xattr>, SourceError> {
        Ok(self.node.xattrs.clone())
    }

    fn flags(&self) -> Result<u32, SourceError> {
        Ok(self.node.flags)
    }

    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        let mut data = self.placed().filter(|(_, segment)| matches!(segment, Segment::Data(_)));
        Ok(data.find_map(|(start, segment)| {
            let end = start + segment.len();
            (end > offset).then(|| start.max(offset)..end)
        }))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let len =
            usize::try_from(self.node.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let end = offset + len as u64;
        buffer.iter_mut().take(len).for_each(|byte| *byte = 0);
        for (start, segment) in self.placed() {
            let Segment::Data(bytes) = segment else { continue };
            let (from, to) = (start.max(offset), (start + segment.len()).min(end));
            if from < to
                && let Some(source) = bytes.get((from - start) as usize..(to - start) as usize)
                && let Some(target) = buffer.get_mut((from - offset) as usize..(to - offset) as usize)
            {
                target.copy_from_slice(source);
            }
        }
        Ok(len)
    }
}
