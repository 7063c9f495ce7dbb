//! What a recovery point must survive and what must be refused.
#![allow(clippy::unwrap_used)]

use super::codec::MAX_HEADS;
use super::hold::Hold;
use super::object::{object_hash, open_hold, open_point, open_session, seal_hold, seal_point, seal_session};
use super::*;
use crate::error::StoreError;
use crate::format::FormatError;
use crate::id::{ChunkId, ObjectId};
use crate::id::{ObjectHash, VaultId};
use crate::seal::Sealer;
use crate::seal::keys::KeyRing;
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

fn session() -> VaultSession {
    VaultSession {
        id: RecoveryPointId([1; 16]),
        source_tag: SourceTag([2; 16]),
        started: -5,
        writer: vec![7],
        sight: None,
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
    assert!(matches!(VaultSession::decode(&bytes), Err(FormatError::TooNew(_))));
}

#[test]
fn a_point_that_breaks_a_rule_is_not_written() {
    type Case = (&'static str, fn(&mut RecoveryPoint));
    let cases: [Case; 11] = [
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
        ("expiry", |p| p.extensions = vec![(EXPIRES_TAG, vec![0; 7])]),
        ("expiry", |p| p.extensions = vec![(EXPIRES_TAG, vec![0; 9])]),
    ];
    for (word, break_it) in cases {
        let mut point = sample();
        break_it(&mut point);
        let error = point.encode().unwrap_err();
        assert!(matches!(&error, StoreError::Invalid { detail } if detail.contains(word)), "{word}: {error}");
    }
}

#[test]
fn a_point_says_from_when_on_it_may_expire() {
    let mut point = sample();
    assert_eq!(point.expires(), None);
    for seconds in [0, 1_795_176_000, -1, i64::MIN, i64::MAX] {
        point.set_expires(seconds);
        let read = RecoveryPoint::decode(&point.encode().unwrap()).unwrap();
        assert_eq!((read.expires(), &read), (Some(seconds), &point));
    }
    assert_eq!(point.extensions.len(), sample().extensions.len() + 1);
    let mut bytes = point.encode().unwrap();
    // The length of its value, behind the tag.
    let at = bytes.windows(6).rposition(|w| w == [0, 2, 8, 0, 0, 0]).unwrap() + 2;
    bytes.splice(at..at + 12, [1, 0, 0, 0, 7]);
    let refused = RecoveryPoint::decode(&bytes).unwrap_err();
    assert!(refused.to_string().contains("expiry"), "{refused}");
}

#[test]
fn a_session_survives_a_round_trip_and_no_truncation_parses() {
    let bytes = session().encode().unwrap();
    assert_eq!(VaultSession::decode(&bytes).unwrap(), session());
    for len in 0..bytes.len() {
        assert!(VaultSession::decode(&bytes[..len]).is_err(), "length {len}");
    }
    assert!(VaultSession::decode(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_session_that_tells_of_its_vault_is_of_version_2_and_one_that_does_not_is_as_ever() {
    let head = Head {
        source: SourceTag([3; 16]),
        point: RecoveryPointId([4; 16]),
        sequence: 5,
        hash: ObjectHash([6; 32]),
    };
    let told = VaultSession { sight: Some(Sight { attempt: 9, heads: vec![head; 2] }), ..session() };
    let (old, new) = (session().encode().unwrap(), told.encode().unwrap());
    assert_eq!((&old[..2], &new[..2], new.len() - old.len()), (&[1, 0][..], &[2, 0][..], 1 + 4 + 2 * 72));
    assert_eq!(new[45..50], [9, 2, 0, 0, 0], "behind the writer");
    assert_eq!(VaultSession::decode(&new).unwrap(), told);
    assert!((0..new.len()).all(|len| VaultSession::decode(&new[..len]).is_err()));
    let heads = |n| VaultSession { sight: Some(Sight { attempt: 0, heads: vec![head; n] }), ..session() };
    let most = seal_session(&heads(MAX_HEADS), &sealer(1)).unwrap();
    assert!(most.len() < 64 << 10, "{} bytes, and it is read as a small object", most.len());
    assert!(heads(MAX_HEADS + 1).encode().is_err());
    let mut many = new;
    many[46..50].fill(0xff);
    assert!(VaultSession::decode(&many).is_err());
}

fn sealer(vault: u8) -> Sealer {
    Sealer::new(VaultId([vault; 16]), &KeyRing::generate(0), 1).unwrap()
}

#[test]
fn a_sealed_point_opens_under_its_own_name_and_store_only() {
    let (ours, point) = (sealer(1), sample());
    let (tag, id) = (point.source_tag, point.id);
    let bytes = seal_point(&point, &ours).unwrap();
    assert_eq!(open_point(&bytes, &ours, &tag, &id).unwrap(), point);
    assert_eq!(object_hash(&bytes), *blake3::hash(&bytes).as_bytes());
    assert_eq!((bytes.len() - 64) % 64, 0);

    let open = |sealer: &Sealer, tag: u8, id: u8| {
        open_point(&bytes, sealer, &SourceTag([tag; 16]), &RecoveryPointId([id; 16]))
    };
    assert!(matches!(open(&ours, 2, 9), Err(FormatError::Damaged(m)) if m.contains("name")));
    assert!(matches!(open(&ours, 9, 1), Err(FormatError::Damaged(m)) if m.contains("name")));
    assert!(matches!(open(&sealer(2), 2, 1), Err(FormatError::NotOurs(_))));
    assert!(matches!(open(&sealer(1), 2, 1), Err(FormatError::Damaged(_))), "same store id, another key");
    assert!(open_session(&bytes, &ours, &id).is_err(), "a point is no session");
}

#[test]
fn a_sealed_session_opens_under_its_own_name_only() {
    let (ours, session) = (sealer(1), session());
    let bytes = seal_session(&session, &ours).unwrap();
    assert_eq!(open_session(&bytes, &ours, &session.id).unwrap(), session);
    assert!(open_session(&bytes, &ours, &RecoveryPointId([9; 16])).is_err());
    assert!(open_point(&bytes, &ours, &session.source_tag, &session.id).is_err(), "a session is no point");
}

#[test]
fn a_sealed_hold_opens_under_its_own_name_only_and_no_truncation_parses() {
    let hold = Hold { point: RecoveryPointId([1; 16]), placed: -5, reason: "für die Prüfung".into() };
    let ours = sealer(1);
    let bytes = seal_hold(&hold, &ours).unwrap();
    assert_eq!((bytes[8], open_hold(&bytes, &ours, &hold.point).unwrap()), (7, hold.clone()));
    assert!(open_hold(&bytes, &ours, &RecoveryPointId([9; 16])).is_err());
    assert!(open_session(&bytes, &ours, &hold.point).is_err(), "a hold is no session");
    assert!(matches!(open_hold(&bytes, &sealer(2), &hold.point), Err(FormatError::NotOurs(_))));
    let content = hold.encode().unwrap();
    assert_eq!(content[..26], [&[1, 0][..], &[1; 16], &(-5i64).to_le_bytes()].concat());
    assert!((0..content.len()).all(|len| Hold::decode(&content[..len]).is_err()));
    assert!(Hold::decode(&[&content[..], &[0]].concat()).is_err());
    let newer = [&[2][..], &content[1..]].concat();
    assert!(matches!(Hold::decode(&newer), Err(FormatError::TooNew(_))));
}

#[test]
fn no_truncation_and_no_flipped_bit_of_a_sealed_point_opens() {
    let (ours, point) = (sealer(1), sample());
    let bytes = seal_point(&point, &ours).unwrap();
    let opens = |bytes: &[u8]| open_point(bytes, &ours, &point.source_tag, &point.id).is_ok();
    assert!((0..bytes.len()).all(|len| !opens(&bytes[..len])));
    assert!(!opens(&[&bytes[..], &[0; 64]].concat()));
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(!opens(&bad), "byte {at}");
    }
}

#[test]
fn a_point_sealed_with_the_words_of_another_does_not_open() {
    // The block of one point behind the header of another: what somebody can do who can write but has no key.
    let ours = sealer(1);
    let (one, mut other) = (sample(), sample());
    other.id = RecoveryPointId([0xee; 16]);
    let (a, b) = (seal_point(&one, &ours).unwrap(), seal_point(&other, &ours).unwrap());
    let mixed = [&a[..64], &b[64..]].concat();
    assert!(open_point(&mixed, &ours, &one.source_tag, &one.id).is_err());
}

#[test]
fn a_point_of_any_size_has_room_for_its_packs() {
    let mut point = sample();
    point.list_packs(&vec![PackId([7; 32]); 3 << 20]);
    assert_eq!(point.packs.len(), super::codec::MAX_PACKS_LISTED);
    assert_eq!(RecoveryPoint::decode(&point.encode().unwrap()).unwrap(), point);
}
