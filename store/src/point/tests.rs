#![allow(clippy::unwrap_used)]
//! What a recovery point must survive and what must be refused.

use super::*;
use crate::error::StoreError;
use crate::format::FormatError;
use crate::tree::{NodeKind, Subtree};

fn root() -> Node {
    Node {
        name: b"root".to_vec(),
        kind: NodeKind::Directory,
        mode: 0o755,
        uid: 1,
        gid: 2,
        user: Some(b"u".to_vec()),
        group: None,
        mtime: Timestamp { seconds: -3, nanos: 5 },
        ctime: Timestamp::from_seconds(9),
        size: 0,
        inode: 2,
        filesystem: 0,
        links: 3,
        flags: 0,
        content: None,
        subtree: Some(Subtree { tree: ChunkId([7; 32]), entries: 10, bytes: 1000 }),
        target: None,
        device: None,
        xattrs: vec![],
        extensions: vec![(1, vec![1, 2])],
    }
}

fn place(n: u8) -> PagePlace {
    PagePlace {
        chunk: ChunkId([n; 32]),
        pack: PackId([n; 32]),
        object_id: ObjectId([n; 16]),
        generation: 1,
        offset: 64,
        block_len: 128,
        start: 3,
        len: 40,
    }
}

fn sample() -> RecoveryPoint {
    RecoveryPoint {
        id: RecoveryPointId([1; 16]),
        source_tag: SourceTag([2; 16]),
        source: SourceName { host: "höst".into(), group: "all".into(), source: "home".into() },
        path: b"/home/\xff".to_vec(),
        sequence: 3,
        previous: [4; 32],
        started: Timestamp { seconds: 100, nanos: 1 },
        ended: Timestamp { seconds: 200, nanos: 2 },
        state: PointState::Partial,
        consistency: Consistency::Snapshot,
        root: root(),
        counts: Counts {
            files: 1,
            directories: 2,
            others: 3,
            bytes: 4,
            files_read: 5,
            bytes_read: 6,
            bytes_new: 7,
            bytes_stored: 8,
        },
        summary: vec![place(7), place(9)],
        packs: vec![PackId([9; 32]), PackId([8; 32])],
        errors_total: 5,
        errors: vec![PointError { path: b"a/b".to_vec(), reason: "permission denied".into() }],
        witness: vec![Witness { source: SourceTag([5; 16]), sequence: 8, hash: [6; 32] }],
        tags: vec!["weekly".into(), String::new()],
        writer: b"w".to_vec(),
        tool: "holdfast 0.1.0".into(),
        extensions: vec![(3, vec![9]), (0x7fff, vec![])],
        signature: vec![1, 2, 3],
    }
}

fn session() -> Session {
    Session {
        id: RecoveryPointId([1; 16]),
        source_tag: SourceTag([2; 16]),
        started: -5,
        writer: vec![7],
        signature: vec![],
    }
}

#[test]
fn a_point_survives_a_round_trip() {
    let bytes = sample().encode().unwrap();
    assert_eq!(RecoveryPoint::decode(&bytes).unwrap(), sample());
    let unsigned = sample().encode_unsigned().unwrap();
    assert_eq!(bytes[..unsigned.len()], unsigned);
    assert_eq!(bytes[unsigned.len()..], [3, 0, 1, 2, 3]);
}

#[test]
fn a_point_lies_in_bytes_as_the_document_says() {
    let bytes = sample().encode().unwrap();
    assert_eq!(bytes[..2], [1, 0]);
    assert_eq!(bytes[2..34], [[1u8; 16], [2; 16]].concat());
    assert_eq!(bytes[34..41], [&[5, 0][..], "höst".as_bytes()].concat());
    let root_at = 34 + 7 + 5 + 6 + 4 + 7 + 8 + 32 + 12 + 12;
    assert_eq!(bytes[root_at..root_at + 4], [2, 2, 0, 0], "state, consistency, reserved");
    let owners = [1, 0, 0, 1, 0, 0, 0, 1, b'u'];
    assert_eq!(bytes[root_at + 4..root_at + 13], owners, "owner table before the item");
    let item = 69 + 3 + 48 + (2 + 2 + 4 + 2);
    assert_eq!(bytes[root_at + 13..root_at + 17], [item, 0, 0, 0], "length of the item");
}

#[test]
fn no_truncation_of_a_point_parses_and_no_flip_panics() {
    let bytes = sample().encode().unwrap();
    for len in 0..bytes.len() {
        assert!(RecoveryPoint::decode(&bytes[..len]).is_err(), "length {len}");
    }
    assert!(RecoveryPoint::decode(&[&bytes[..], &[0]].concat()).is_err());
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(point) = RecoveryPoint::decode(&bad) {
            point.encode().unwrap_or_else(|e| panic!("bit {bit}: read but not writable: {e}"));
        }
    }
}

#[test]
fn hostile_counts_are_refused() {
    let bytes = sample().encode().unwrap();
    for at in 0..bytes.len() - 4 {
        let mut bad = bytes.clone();
        bad[at..at + 4].fill(0xff);
        let _ = RecoveryPoint::decode(&bad);
    }
}

#[test]
fn a_newer_body_or_extension_is_told_apart_from_damage() {
    let mut bytes = sample().encode().unwrap();
    bytes[0] = 2;
    assert!(matches!(RecoveryPoint::decode(&bytes), Err(FormatError::TooNew(_))));
    let mut point = sample();
    point.extensions = vec![(0x7ffe, b"mark".to_vec())];
    let mut bytes = point.encode().unwrap();
    let at = bytes.windows(2).rposition(|w| w == [0xfe, 0x7f]).unwrap();
    bytes[at + 1] = 0xff;
    assert!(matches!(RecoveryPoint::decode(&bytes), Err(FormatError::TooNew(m)) if m.contains("0xfffe")));
    let mut bytes = session().encode().unwrap();
    bytes[0] = 9;
    assert!(matches!(Session::decode(&bytes), Err(FormatError::TooNew(_))));
}

#[test]
fn a_point_that_breaks_a_rule_is_not_written() {
    type Case = (&'static str, fn(&mut RecoveryPoint));
    let cases: [Case; 9] = [
        ("sequence", |p| p.sequence = 0),
        ("root", |p| p.root.name = b"toor".to_vec()),
        ("root", |p| p.root.subtree = None),
        ("places", |p| p.summary = vec![place(1); 65]),
        ("counted", |p| p.errors_total = 0),
        ("errors", |p| {
            p.errors = vec![p.errors[0].clone(); 10_001];
            p.errors_total = 10_001;
        }),
        ("65535", |p| p.source.host = "x".repeat(65_536)),
        ("extension", |p| p.extensions.push((0x8000, vec![]))),
        ("ascending", |p| p.extensions.reverse()),
    ];
    for (word, break_it) in cases {
        let mut point = sample();
        break_it(&mut point);
        let error = point.encode().unwrap_err();
        assert!(matches!(&error, StoreError::Invalid { detail } if detail.contains(word)), "{word}: {error}");
    }
}

#[test]
fn a_session_survives_a_round_trip_and_no_truncation_parses() {
    let bytes = session().encode().unwrap();
    assert_eq!(Session::decode(&bytes).unwrap(), session());
    for len in 0..bytes.len() {
        assert!(Session::decode(&bytes[..len]).is_err(), "length {len}");
    }
    assert!(Session::decode(&[&bytes[..], &[0]].concat()).is_err());
}
