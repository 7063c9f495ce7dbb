//! Points and nodes made up for the tests of the program.

use std::sync::Arc;

use holdfast_store::StoreError;
use holdfast_store::clock::Timestamp;
use holdfast_store::id::{ChunkId, RecoveryPointId, SourceTag};
use holdfast_store::point::testing::bare_point;
use holdfast_store::point::{Counts, RecoveryPoint};
use holdfast_store::store::{DoubtfulPoint, StoredPoint};
use holdfast_store::tree::testing::bare_node;
use holdfast_store::tree::{Node, NodeKind, Subtree};

/// A node without content.
pub fn node(name: &[u8], kind: NodeKind) -> Node {
    let time = Timestamp::from_seconds(1_795_176_000);
    let user = Some(b"me".to_vec());
    Node { uid: 1000, gid: 1000, user, mtime: time, ctime: time, size: 5, inode: 1, ..bare_node(name, kind) }
}

/// The tag of a source by its name: of each another.
fn tag_of(source: &str) -> SourceTag {
    let mut tag = [1; 16];
    tag.iter_mut().zip(source.bytes()).for_each(|(of_tag, byte)| *of_tag = byte);
    SourceTag(tag)
}

/// A point in doubt with an id of one repeated byte.
pub fn doubtful_point(id: u8, source: Option<&str>) -> DoubtfulPoint {
    let id = RecoveryPointId([id; 16]);
    let row = format!("the catalog's row of recovery point {id}");
    let error = StoreError::corrupt(row, "no whole copy of the point can be reached that would put it right");
    DoubtfulPoint { id, tag: source.map(tag_of), error }
}

/// A complete point of `/srv/<source>` with an id of one repeated byte.
pub fn stored_point(id: u8, source: &str, started: i64) -> StoredPoint {
    let subtree = Subtree { tree: ChunkId([id; 32]), entries: 3, bytes: 2048 };
    let root = Node { subtree: Some(subtree), ..node(b"root", NodeKind::Directory) };
    let point = RecoveryPoint {
        id: RecoveryPointId([id; 16]),
        source_tag: tag_of(source),
        counts: Counts { files: 2, directories: 1, bytes: 2048, ..Counts::default() },
        tool: "holdfast 0.1.0".into(),
        ..bare_point(["host", "group", source], started, root)
    };
    StoredPoint {
        point: Arc::new(point),
        hash: [id; 32],
        local: true,
        vaults: Vec::new(),
        incomplete: Vec::new(),
        held: None,
    }
}
