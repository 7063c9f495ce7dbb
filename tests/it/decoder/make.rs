//! Makes stores with the engine out of a plan that is kept in memory, and lists them with the engine. This is the
//! only file beside the tests that knows the engine; it knows nothing of the decoder but the listing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_store::StoreError;
use holdfast_store::chunk_store::TreeSink;
use holdfast_store::clock::{Deadline, ManualClock, Timestamp};
use holdfast_store::format::config::{ChunkerParams, StoreConfig};
use holdfast_store::id::{RecoveryPointId, SlotId, VaultId};
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::pack::{FrameBuilder, PackKind};
use holdfast_store::point::{Consistency, Counts, PointError, PointState, RecoveryPoint, SourceName};
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::words_of;
use holdfast_store::seal::slots::{KdfParams, KeySlot, Secret};
use holdfast_store::seal::writer::{OwnerKey, WriterKey};
use holdfast_store::seal::{ChunkType, Compression, Sealer};
use holdfast_store::store::{Session, Store, StoreOptions, StoredPoint};
use holdfast_store::tree::build::DirectoryBuilder;
use holdfast_store::tree::content::{ContentBuilder, ContentReader};
use holdfast_store::tree::testing::bare_node;
use holdfast_store::tree::walk::Directory;
use holdfast_store::tree::{ChunkSink, ChunkSource, Extent, Node, NodeKind};

use super::listing::{Bytes, KINDS, Line};

pub const PASSPHRASE: &str = "Größe 7 – a passphrase";

/// Part of a planned file.
pub enum Piece {
    Bytes(Vec<u8>),
    Hole(u64),
}

/// An entry that is to be stored.
pub struct Planned {
    pub node: Node,
    pub pieces: Vec<Piece>,
    /// Ascending by name.
    pub children: Vec<Planned>,
}

impl Planned {
    pub fn new(name: impl AsRef<[u8]>, kind: NodeKind) -> Self {
        let node = Node {
            mode: 0o640,
            uid: 1000,
            gid: 100,
            mtime: Timestamp { seconds: 1_700_000_000, nanos: 1 },
            ctime: Timestamp { seconds: 1_700_000_001, nanos: 999_999_999 },
            ..bare_node(name.as_ref(), kind)
        };
        Self { node, pieces: Vec::new(), children: Vec::new() }
    }

    pub fn file(name: impl AsRef<[u8]>, pieces: Vec<Piece>) -> Self {
        Self { pieces, ..Self::new(name, NodeKind::File) }
    }

    pub fn directory(name: impl AsRef<[u8]>, mut children: Vec<Planned>) -> Self {
        children.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        Self { children, ..Self::new(name, NodeKind::Directory) }
    }

    pub fn link(name: impl AsRef<[u8]>, target: &[u8]) -> Self {
        Self::new(name, NodeKind::Symlink)
            .with(|node| (node.target, node.size) = (Some(target.to_vec()), target.len() as u64))
    }

    /// With its attributes changed.
    pub fn with<T>(mut self, change: impl FnOnce(&mut Node) -> T) -> Self {
        change(&mut self.node);
        self
    }

    /// What a listing must say of this entry, which lies in `above`, and of all below it.
    pub fn lines(&self, above: &[u8], lines: &mut Vec<Line>) {
        let path = join(above, &self.node.name, lines.is_empty());
        let content = (self.node.kind == NodeKind::File).then(|| self.hash());
        let size = self.pieces.iter().map(Piece::len).sum::<u64>().max(self.node.size);
        lines.push(line(path.clone(), &Node { size, ..self.node.clone() }, content));
        self.children.iter().for_each(|child| child.lines(&path, lines));
    }

    fn hash(&self) -> Bytes {
        let (mut hasher, mut holes, mut at) = (blake3::Hasher::new(), Vec::new(), 0);
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => hasher.update(bytes),
                Piece::Hole(len) => {
                    holes.push((at, *len));
                    hasher.update(&vec![0; *len as usize])
                }
            };
            at += piece.len();
        }
        Bytes { hash: *hasher.finalize().as_bytes(), holes }
    }

    fn counts(&self, counts: &mut Counts) {
        match self.node.kind {
            NodeKind::File => counts.files += 1,
            NodeKind::Directory => counts.directories += 1,
            _ => counts.others += 1,
        }
        counts.bytes += self.pieces.iter().map(Piece::len).sum::<u64>();
        self.children.iter().for_each(|child| child.counts(counts));
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Hole(len) => *len,
        }
    }
}

fn join(above: &[u8], name: &[u8], is_root: bool) -> Vec<u8> {
    match above {
        _ if is_root => b".".to_vec(),
        b"." => name.to_vec(),
        _ => [above, b"/", name].concat(),
    }
}

fn line(path: Vec<u8>, node: &Node, content: Option<Bytes>) -> Line {
    let kind = match node.kind {
        NodeKind::File => 0,
        NodeKind::Directory => 1,
        NodeKind::Symlink => 2,
        NodeKind::Fifo => 3,
        NodeKind::Socket => 4,
        NodeKind::CharDevice => 5,
        NodeKind::BlockDevice => 6,
    };
    Line {
        path,
        kind: KINDS[kind],
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        user: node.user.clone(),
        group: node.group.clone(),
        mtime: (node.mtime.seconds, node.mtime.nanos),
        ctime: (node.ctime.seconds, node.ctime.nanos),
        size: node.size,
        identity: (node.inode, node.filesystem, node.links),
        flags: node.flags,
        xattrs: node.xattrs.iter().map(|x| (x.name.clone(), x.value.clone())).collect(),
        target: node.target.clone(),
        device: node.device,
        content,
    }
}

/// A store with a slot for each kind of secret.
pub struct Made {
    pub dir: PathBuf,
    ring: KeyRing,
    pub words: String,
    pub machine_key_file: String,
}

impl Made {
    /// Makes a store without points in `dir`. Its ring has two generations: chunks are named by the first, blocks are
    /// sealed with the second.
    pub fn create(dir: &Path) -> Self {
        let mut ring = KeyRing::generate(1).owned_by(OwnerKey::generate());
        ring.add_generation(2).unwrap();
        let vault = VaultId::random();
        let chunker = ChunkerParams {
            normalization: 2,
            min: 4 << 10,
            average: 8 << 10,
            max: 32 << 10,
            ..ChunkerParams::default()
        };
        let config =
            StoreConfig { chunker, frame_len: 64 << 10, pack_len: 1 << 20, ..StoreConfig::new(vault, 0) };
        let (recovery, machine) = (Secret::new_recovery(), Secret::new_machine());
        let (words, machine_key_file) = match (&recovery, &machine) {
            (Secret::Recovery(words), Secret::Machine(key)) => {
                (words_of(words).join(" "), MachineKey { vault, key: key.clone() }.encode().to_string())
            }
            _ => panic!("the secrets asked for"),
        };
        let passphrase = Secret::Passphrase(PASSPHRASE.to_string().into());
        let slots: Vec<(SlotId, Vec<u8>)> = [passphrase, recovery, machine]
            .iter()
            .map(|secret| KeySlot::create(&vault, &ring, secret, "a label", &KdfParams::floor(), 3).unwrap())
            .map(|slot| (KeySlot::read(&slot, &vault).unwrap().id, slot))
            .collect();
        Store::create(dir, &Sealer::new(vault, &ring, 1).unwrap(), &config, &slots).unwrap();
        Self { dir: dir.to_path_buf(), ring, words, machine_key_file }
    }

    pub fn open(&self) -> Store {
        open(&self.dir, &self.ring)
    }

    /// A copy of it in `dir`, by a machine that signs.
    pub fn open_signing(&self, dir: &Path, writer: WriterKey) -> Store {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1000)));
        let options = StoreOptions { writer: Some(Arc::new(writer)), ..StoreOptions::local(clock) };
        Store::open(dir, &self.ring, options, &VoidMonitor).unwrap()
    }
}

/// Opens the store in `dir`.
pub fn open(dir: &Path, ring: &KeyRing) -> Store {
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1000)));
    let options = StoreOptions::local(clock);
    Store::open(dir, ring, options, &VoidMonitor).unwrap()
}

/// Stores the plan as a point.
pub fn take_point(store: &Store, root: &Planned, compression: Compression) -> StoredPoint {
    let session = store.begin(compression, &VoidMonitor).unwrap();
    let mut frames = session.ingest().frames();
    let mut sink = TreeSink::new(session.ingest());
    let node = put(root, &session, &mut frames, &mut sink).unwrap();
    session.ingest().deliver(PackKind::Data, frames.take()).unwrap();
    sink.finish().unwrap();
    let mut counts = Counts::default();
    root.counts(&mut counts);
    session.commit(|_| describe(store, node, counts)).unwrap()
}

fn describe(store: &Store, root: Node, counts: Counts) -> RecoveryPoint {
    let source = SourceName { host: "höst".into(), group: "group".into(), source: "source".into() };
    let source_tag = store.sealer().source_tag(&source.host, &source.group, &source.source);
    let previous = store.newest_point(&source_tag).unwrap();
    let page = root.subtree.unwrap().tree;
    RecoveryPoint {
        id: RecoveryPointId::random(),
        source_tag,
        source,
        path: b"/source\xff".to_vec(),
        sequence: previous.as_ref().map_or(1, |p| p.point.sequence + 1),
        previous: previous.as_ref().map_or([0; 32], |p| p.hash),
        started: Timestamp::from_seconds(previous.map_or(1, |p| p.point.started.seconds + 1)),
        ended: Timestamp::from_seconds(2000),
        state: PointState::Partial,
        consistency: Consistency::Fuzzy,
        root,
        counts,
        summary: store.page_place(&page).unwrap().into_iter().collect(),
        packs: Vec::new(),
        errors_total: 2,
        errors: vec![PointError { path: b"un\xffreadable".to_vec(), reason: "permission denied".into() }],
        witness: Vec::new(),
        tags: vec!["tag".into()],
        writer: b"writer".to_vec(),
        tool: "test".into(),
        extensions: vec![(7, b"unknown".to_vec())],
        signature: Vec::new(),
    }
}

fn put(
    planned: &Planned,
    session: &Session<'_>,
    frames: &mut FrameBuilder,
    sink: &mut TreeSink<'_>,
) -> Result<Node, StoreError> {
    let mut node = planned.node.clone();
    match node.kind {
        NodeKind::File => {
            let mut content = ContentBuilder::new();
            for piece in &planned.pieces {
                put_piece(piece, session, frames, &mut |extent| content.push(extent, sink))?;
            }
            node.size = content.len();
            node.content = Some(content.finish(sink)?);
        }
        NodeKind::Directory => {
            let mut builder = DirectoryBuilder::new();
            for child in &planned.children {
                let child = put(child, session, frames, sink)?;
                builder.push(&child, sink)?;
            }
            node.subtree = Some(builder.finish(sink as &mut dyn ChunkSink)?.subtree());
        }
        _ => {}
    }
    Ok(node)
}

fn put_piece(
    piece: &Piece,
    session: &Session<'_>,
    frames: &mut FrameBuilder,
    push: &mut dyn FnMut(Extent) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut rest = match piece {
        Piece::Hole(len) => return push(Extent::Hole { len: *len }),
        Piece::Bytes(bytes) => &bytes[..],
    };
    let chunker = session.store().chunker();
    while !rest.is_empty() {
        let (plain, after) = rest.split_at(chunker.cut(rest));
        let id = session.ingest().name(ChunkType::Data, plain);
        if session.ingest().claim(&id)? {
            frames.push(id, plain);
        }
        push(Extent::Data { id, len: plain.len() as u32 })?;
        if frames.raw_len() > 256 << 10 {
            session.ingest().deliver(PackKind::Data, frames.take())?;
        }
        rest = after;
    }
    Ok(())
}

/// Lists a point with the engine.
pub fn engine_lines(store: &Store, point: &StoredPoint) -> Vec<Line> {
    let mut lines = Vec::new();
    list(store, b"", &point.point.root, &mut lines).unwrap();
    lines
}

fn list(store: &Store, above: &[u8], node: &Node, lines: &mut Vec<Line>) -> Result<(), StoreError> {
    let path = join(above, &node.name, lines.is_empty());
    let content = node.content.as_ref().map(|content| hash(store, ContentReader::new(content.clone())));
    lines.push(line(path.clone(), node, content.transpose()?));
    let Some(subtree) = node.subtree else { return Ok(()) };
    for child in
        Directory::open(store.pages(), &subtree.tree, Deadline::NEVER)?.entries_at(0, Deadline::NEVER)?
    {
        list(store, &path, &child?.to_node(), lines)?;
    }
    Ok(())
}

fn hash(store: &Store, mut content: ContentReader) -> Result<Bytes, StoreError> {
    let (mut hasher, mut holes) = (blake3::Hasher::new(), Vec::new());
    let reader: &dyn ChunkSource = &**store.reader();
    for extent in content.extents(reader, 0, Deadline::NEVER) {
        let (at, extent) = extent?;
        match extent {
            Extent::Data { id, .. } => hasher.update(&reader.chunk(ChunkType::Data, &id, Deadline::NEVER)?),
            Extent::Hole { len } => {
                holes.push((at, len));
                hasher.update(&vec![0; len as usize])
            }
        };
    }
    Ok(Bytes { hash: *hasher.finalize().as_bytes(), holes })
}
