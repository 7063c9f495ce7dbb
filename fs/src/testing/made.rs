//! Nodes and points with plain attributes.

use std::sync::Arc;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::{RecoveryPointId, SourceTag};
use holdfast_store::point::testing::bare_point;
use holdfast_store::point::{Consistency, Counts, RecoveryPoint};
use holdfast_store::store::{PointBrief, StoredPoint};
use holdfast_store::tree::testing::bare_node;
use holdfast_store::tree::{Content, Extent, Node, NodeKind};

use super::chunk_id;

/// A node with plain attributes.
pub fn node(name: &str, kind: NodeKind) -> Node {
    let time = Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 };
    Node { mtime: time, ctime: time, inode: 12, ..bare_node(name.as_bytes(), kind) }
}

/// A file of one extent whose chunk nobody stores.
pub fn file(name: &str, bytes: &[u8]) -> Node {
    let extent = Extent::Data { id: chunk_id(bytes), len: bytes.len() as u32 };
    let extents = if bytes.is_empty() { Vec::new() } else { vec![extent] };
    Node { size: bytes.len() as u64, content: Some(Content::Inline(extents)), ..node(name, NodeKind::File) }
}

/// A symbolic link.
pub fn link(name: &str, target: &str) -> Node {
    let size = target.len() as u64;
    Node { size, mode: 0o777, target: Some(target.as_bytes().to_vec()), ..node(name, NodeKind::Symlink) }
}

/// Of a point what a layout needs.
pub fn brief(stored: &StoredPoint) -> PointBrief {
    let point = &stored.point;
    PointBrief {
        id: point.id,
        source: Arc::new(point.source.clone()),
        tag: point.source_tag,
        sequence: point.sequence,
        started: point.started.seconds,
    }
}

/// A complete point that began at `started` (seconds since 1970), with an empty root. Its id follows from its name.
pub fn point(host: &str, group: &str, source: &str, started: i64, sequence: u64) -> StoredPoint {
    let name = blake3::hash(format!("{host}\0{group}\0{source}").as_bytes());
    let id = blake3::keyed_hash(name.as_bytes(), &sequence.to_le_bytes());
    let half = |bytes: &[u8; 32]| std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default());
    let root = Node { links: 2, mode: 0o755, ..node("root", NodeKind::Directory) };
    let point = RecoveryPoint {
        id: RecoveryPointId(half(id.as_bytes())),
        source_tag: SourceTag(half(name.as_bytes())),
        sequence,
        consistency: Consistency::Snapshot,
        counts: Counts { files: 3, directories: 1, bytes: 4096, ..Counts::default() },
        ..bare_point([host, group, source], started, root)
    };
    StoredPoint {
        point: Arc::new(point),
        hash: *id.as_bytes(),
        local: true,
        vaults: Vec::new(),
        incomplete: Vec::new(),
        held: None,
    }
}
