//! For tests: a point in memory, the visitor that makes one of any source, and a real tree that is hard to keep.
#![allow(clippy::unwrap_used)]

mod nasty;

use std::collections::HashMap;
use std::ops::ControlFlow::{Break, Continue};
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use holdfast_store::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::tree::{Content, Extent, Node, NodeKind, Subtree};
use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags};

use crate::error::SourceError;
use crate::restore::{Extents, Nodes, TreeReader};
use crate::source::{DataSource, Flow, Found, OpenFile, Visitor};

pub(crate) use nasty::build_nasty;

const CHUNK_LEN: u64 = 1 << 20;

/// A whole point in memory. Chunks can be taken away or spoiled.
#[derive(Debug, Default, Clone)]
pub(crate) struct MemoryPoint {
    pub(crate) root: Option<Node>,
    pub(crate) directories: HashMap<ChunkId, Vec<Node>>,
    pub(crate) chunks: HashMap<ChunkId, Bytes>,
}

impl MemoryPoint {
    /// Reads all of a source; the second is what went wrong.
    pub(crate) fn of(source: &dyn DataSource) -> (Self, Vec<SourceError>) {
        let mut collector = Collector::default();
        source.walk(&mut collector).unwrap();
        (collector.point, collector.troubles)
    }

    pub(crate) fn root(&self) -> &Node {
        self.root.as_ref().unwrap()
    }

    /// Everything in it by path, in walk order.
    pub(crate) fn all(&self) -> Vec<(Vec<u8>, Node)> {
        let mut all = vec![(Vec::new(), self.root().clone())];
        self.below(self.root(), &[], &mut all);
        all
    }

    fn below(&self, directory: &Node, path: &[u8], all: &mut Vec<(Vec<u8>, Node)>) {
        for node in &self.directories[&directory.subtree.unwrap().tree] {
            let path = [path, b"/", &node.name].concat();
            all.push((path.clone(), node.clone()));
            if node.kind == NodeKind::Directory {
                self.below(node, &path, all);
            }
        }
    }

    pub(crate) fn get(&self, path: &[u8]) -> Node {
        self.all().into_iter().find(|(at, _)| at == path).unwrap().1
    }

    /// Paths of everything but the root.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.all().iter().skip(1).map(|(path, _)| crate::error::shown(path)).collect()
    }
}

impl TreeReader for MemoryPoint {
    fn entries(&self, directory: &Node) -> Result<Nodes<'_>, StoreError> {
        let tree = directory.subtree.ok_or_else(|| StoreError::corrupt("directory", "no subtree"))?.tree;
        let nodes = self.directories.get(&tree).ok_or_else(|| StoreError::corrupt("tree page", "is gone"))?;
        Ok(Box::new(nodes.iter().cloned().map(Ok)))
    }

    fn extents(&self, file: &Node) -> Result<Extents<'_>, StoreError> {
        match file.content.clone() {
            Some(Content::Inline(extents)) => Ok(Box::new(extents.into_iter().map(Ok))),
            _ => Err(StoreError::corrupt("content", "is gone")),
        }
    }

    fn data(&self, id: &ChunkId, _len: u32) -> Result<Bytes, StoreError> {
        self.chunks.get(id).cloned().ok_or_else(|| StoreError::corrupt("pack", "a chunk is gone"))
    }

    fn is(&self, id: &ChunkId, bytes: &[u8]) -> bool {
        id.0 == *blake3::hash(bytes).as_bytes()
    }
}

/// Makes a point of what it is told, as a backup does, and keeps troubles.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    pub(crate) point: MemoryPoint,
    pub(crate) troubles: Vec<SourceError>,
    /// What `previous` answers from.
    pub(crate) before: HashMap<Vec<u8>, Node>,
    /// Paths told as unchanged, or opened.
    pub(crate) unchanged: Vec<Vec<u8>>,
    pub(crate) opened: Vec<Vec<u8>>,
    /// Stops after so many entries, if set.
    pub(crate) stop_after: Option<usize>,
    pub(crate) stack: Vec<(Node, Vec<Node>)>,
    pub(crate) made: u64,
}

impl Collector {
    /// One that knows a previous point.
    pub(crate) fn after(before: &MemoryPoint) -> Self {
        Self { before: before.all().into_iter().collect(), ..Self::default() }
    }

    fn path(&self, name: &[u8]) -> Vec<u8> {
        let names = self.stack.iter().map(|(node, _)| node.name.as_slice()).chain([name]);
        names.collect::<Vec<_>>().join(&b'/')
    }

    fn read(&mut self, found: &Found) -> Result<Node, SourceError> {
        let mut file = found.opener.as_ref().unwrap().open()?;
        let mut node = file.describe()?;
        node.content = Some(Content::Inline(self.extents(&mut *file, node.size)?));
        match file.changed_since(&node)? {
            true => Err(SourceError::Changed { path: found.path(), detail: "content".into() }),
            false => Ok(node),
        }
    }

    fn extents(&mut self, file: &mut dyn OpenFile, size: u64) -> Result<Vec<Extent>, SourceError> {
        let (mut extents, mut at) = (Vec::new(), 0);
        while let Some(data) = file.next_data(at)? {
            if data.start > at {
                extents.push(Extent::Hole { len: data.start - at });
            }
            at = data.start;
            while at < data.end.min(size) {
                let mut buffer = vec![0; CHUNK_LEN.min(data.end.min(size) - at) as usize];
                let len = file.read_at(at, &mut buffer)?;
                buffer.truncate(len);
                let id = ChunkId(*blake3::hash(&buffer).as_bytes());
                self.point.chunks.insert(id, buffer.into());
                extents.push(Extent::Data { id, len: len as u32 });
                at += len as u64;
                if len == 0 {
                    return Ok(extents);
                }
            }
        }
        if size > at {
            extents.push(Extent::Hole { len: size - at });
        }
        Ok(extents)
    }
}

impl Visitor for Collector {
    fn previous(&mut self, name: &[u8]) -> Option<Node> {
        let path = if self.stack.is_empty() { Vec::new() } else { self.path(name) };
        self.before.get(&path).cloned()
    }

    fn enter_directory(&mut self, directory: Found) -> Flow {
        if directory.unchanged {
            self.unchanged.push(directory.path());
        }
        self.stack.push((directory.node, Vec::new()));
        Continue(())
    }

    fn entry(&mut self, entry: Found) -> Flow {
        if let Some(left) = &mut self.stop_after {
            if *left == 0 {
                return Break(());
            }
            *left -= 1;
        }
        let node = if entry.unchanged {
            self.unchanged.push(entry.path());
            Ok(entry.node)
        } else if entry.node.kind == NodeKind::File {
            self.opened.push(entry.path());
            self.read(&entry)
        } else {
            Ok(entry.node)
        };
        match node {
            Ok(node) => self.stack.last_mut().unwrap().1.push(node),
            Err(error) => self.troubles.push(error),
        }
        Continue(())
    }

    fn leave_directory(&mut self) -> Flow {
        let (mut node, children) = self.stack.pop().unwrap();
        assert!(children.is_sorted_by(|a, b| a.name < b.name), "names ascend");
        self.made += 1;
        let tree = ChunkId(*blake3::hash(&self.made.to_le_bytes()).as_bytes());
        node.subtree = Some(Subtree { tree, entries: children.len() as u64, bytes: 0 });
        self.point.directories.insert(tree, children);
        match self.stack.last_mut() {
            Some((_, siblings)) => siblings.push(node),
            None => self.point.root = Some(node),
        }
        Continue(())
    }

    fn trouble(&mut self, trouble: SourceError) -> Flow {
        self.troubles.push(trouble);
        Continue(())
    }
}

/// What must be equal of two trees: everything but what a copy cannot have (inode, ctime, where chunks lie), with hard links as the
/// path of the first name.
pub(crate) fn essence(point: &MemoryPoint) -> Vec<(String, Node)> {
    let mut firsts: HashMap<(u32, u64), u64> = HashMap::new();
    let comparable = |(index, (path, mut node)): (usize, (Vec<u8>, Node))| {
        let linked = node.links > 1 && node.kind != NodeKind::Directory;
        node.inode =
            if linked { *firsts.entry((node.filesystem, node.inode)).or_insert(index as u64) } else { 0 };
        if node.kind == NodeKind::Directory {
            // Some file systems count subdirectories here, some do not.
            node.links = 0;
        }
        (node.ctime, node.filesystem, node.subtree) = (Default::default(), 0, None);
        (crate::error::shown(&path), node)
    };
    point.all().into_iter().enumerate().map(comparable).collect()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A fresh directory whose immutable files do not survive it.
#[derive(Debug)]
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One on a disk, beside this program: directories for temporary files often lie in memory, where nothing counts as unchanged.
    pub(crate) fn on_disk() -> Self {
        Self::within(std::env::current_exe().unwrap().parent().unwrap())
    }

    /// One in a directory that there is.
    pub(crate) fn within(directory: impl AsRef<Path>) -> Self {
        Self(tempfile::tempdir_in(directory).unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let open = rustix::fs::openat(CWD, self.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        if let Ok(directory) = open {
            unlock(&directory);
        }
    }
}

/// Clears the flags and rights that keep a tree from being removed.
fn unlock(directory: &OwnedFd) {
    let _ = rustix::fs::ioctl_setflags(directory, IFlags::empty());
    let _ = rustix::fs::fchmod(directory, Mode::RWXU);
    let names: Vec<_> = rustix::fs::Dir::read_from(directory).into_iter().flatten().flatten().collect();
    for entry in names.iter().filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match entry.file_type() {
            FileType::Directory => {
                let _ = rustix::fs::chmodat(directory, entry.file_name(), Mode::RWXU, AtFlags::empty());
                if let Ok(below) =
                    rustix::fs::openat(directory, entry.file_name(), flags | OFlags::DIRECTORY, Mode::empty())
                {
                    unlock(&below);
                }
            }
            FileType::RegularFile => {
                if let Ok(file) = rustix::fs::openat(directory, entry.file_name(), flags, Mode::empty()) {
                    let _ = rustix::fs::ioctl_setflags(&file, IFlags::empty());
                }
            }
            _ => {}
        }
    }
}
