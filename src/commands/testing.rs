//! Points and nodes made up for the tests of the program.

use std::sync::Arc;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::{ChunkId, RecoveryPointId, SourceTag};
use holdfast_store::point::{Consistency, Counts, PointState, RecoveryPoint, SourceName};
use holdfast_store::store::StoredPoint;
use holdfast_store::tree::{Node, NodeKind, Subtree};

/// A node without content.
pub fn node(name: &[u8], kind: NodeKind) -> Node {
    Node {
        name: name.to_vec(),
        kind,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        user: Some(b"me".to_vec()),
        group: None,
        mtime: Timestamp::from_seconds(1_795_176_000),
        ctime: Timestamp::from_seconds(1_795_176_000),
        size: 5,
        inode: 1,
        filesystem: 0,
        links: 1,
        flags: 0,
        content: None,
        subtree: None,
        target: None,
        device: None,
        xattrs: Vec::new(),
        extensions: Vec::new(),
    }
}

/// A complete point of `/srv/<source>` with an id of one repeated byte.
pub fn stored_point(id: u8, source: &str, started: i64) -> StoredPoint {
    let subtree = Subtree { tree: ChunkId([id; 32]), entries: 3, bytes: 2048 };
    let point = RecoveryPoint {
        id: RecoveryPointId([id; 16]),
        source_tag: SourceTag([1; 16]),
        source: SourceName { host: "host".into(), group: "group".into(), source: source.into() },
        path: format!("/srv/{source}").into_bytes(),
        sequence: 1,
        previous: [0; 32],
        started: Timestamp::from_seconds(started),
        ended: Timestamp::from_seconds(started + 2),
        state: PointState::Complete,
        consistency: Consistency::Fuzzy,
        root: Node { subtree: Some(subtree), ..node(b"root", NodeKind::Directory) },
        counts: Counts { files: 2, directories: 1, bytes: 2048, ..Counts::default() },
        summary: Vec::new(),
        packs: Vec::new(),
        errors_total: 0,
        errors: Vec::new(),
        witness: Vec::new(),
        tags: Vec::new(),
        writer: Vec::new(),
        tool: "holdfast 0.1.0".into(),
        extensions: Vec::new(),
        signature: Vec::new(),
    };
    StoredPoint { point: Arc::new(point), hash: [id; 32], local: true, vaults: Vec::new() }
}
