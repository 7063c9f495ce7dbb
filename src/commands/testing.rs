//! Points and nodes made up for the tests of the program.

use std::sync::Arc;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::{ChunkId, RecoveryPointId, SourceTag};
use holdfast_store::point::testing::bare_point;
use holdfast_store::point::{Counts, RecoveryPoint};
use holdfast_store::store::StoredPoint;
use holdfast_store::tree::testing::bare_node;
use holdfast_store::tree::{Node, NodeKind, Subtree};

/// A node without content.
pub fn node(name: &[u8], kind: NodeKind) -> Node {
    let time = Timestamp::from_seconds(1_795_176_000);
    let user = Some(b"me".to_vec());
    Node { uid: 1000, gid: 1000, user, mtime: time, ctime: time, size: 5, inode: 1, ..bare_node(name, kind) }
}

/// A complete point of `/srv/<source>` with an id of one repeated byte.
pub fn stored_point(id: u8, source: &str, started: i64) -> StoredPoint {
    let subtree = Subtree { tree: ChunkId([id; 32]), entries: 3, bytes: 2048 };
    let root = Node { subtree: Some(subtree), ..node(b"root", NodeKind::Directory) };
    let point = RecoveryPoint {
        id: RecoveryPointId([id; 16]),
        source_tag: SourceTag([1; 16]),
        counts: Counts { files: 2, directories: 1, bytes: 2048, ..Counts::default() },
        tool: "holdfast 0.1.0".into(),
        ..bare_point(["host", "group", source], started, root)
    };
    StoredPoint { point: Arc::new(point), hash: [id; 32], local: true, vaults: Vec::new(), held: None }
}
