//! A point made up, for tests of everything that reads points. It is public, not `#[cfg(test)]`, because the tests of other crates use it.

use super::{Consistency, Counts, PointState, RecoveryPoint, SourceName};
use crate::clock::Timestamp;
use crate::id::{RecoveryPointId, SourceTag};
use crate::tree::Node;

/// The first point of `source` with this root, complete: it began at `started` (seconds since 1970) and took 2 s. Its id and its tag
/// are zeros.
pub fn bare_point(source: [&str; 3], started: i64, root: Node) -> RecoveryPoint {
    let [host, group, name] = source.map(str::to_owned);
    RecoveryPoint {
        id: RecoveryPointId([0; 16]),
        source_tag: SourceTag([0; 16]),
        path: format!("/srv/{name}").into_bytes(),
        source: SourceName { host, group, source: name },
        sequence: 1,
        previous: [0; 32],
        started: Timestamp::from_seconds(started),
        ended: Timestamp::from_seconds(started.saturating_add(2)),
        state: PointState::Complete,
        consistency: Consistency::Fuzzy,
        root,
        counts: Counts::default(),
        summary: Vec::new(),
        packs: Vec::new(),
        errors_total: 0,
        errors: Vec::new(),
        witness: Vec::new(),
        tags: Vec::new(),
        writer: Vec::new(),
        tool: "test".into(),
        extensions: Vec::new(),
        signature: Vec::new(),
    }
}
