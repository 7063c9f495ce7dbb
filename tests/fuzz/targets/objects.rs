//! The header, the sealed block, and objects of one block: points, sessions, holds, generations, revocations. The first byte of the input says in
//! which way the rest reaches the parser.

use holdfast_store::fence::{Generation, Revocation, Step, generation_id};
use holdfast_store::format::{HEADER_LEN, Header, ObjectKind, vault_tag};
use holdfast_store::id::{Attempt, ObjectId, RecoveryPointId, SourceTag};
use holdfast_store::point::hold::{Hold, REASON_LEN_MAX};
use holdfast_store::point::object::{
    open_hold, open_point, open_point_as_named_inside, open_session, seal_hold, seal_point, seal_session,
};
use holdfast_store::point::{RecoveryPoint, VaultSession};
use holdfast_store::seal::writer::{ADMISSION_MAX, Admission, HOSTS_MAX};
use holdfast_store::seal::{BlockKind, BlockPlace};

use super::forge::{GENERATION, Input, OBJECT, SEALER, VAULT, object, seal_inner, subkey};

const POINT: RecoveryPointId = RecoveryPointId(OBJECT.0);
const TAG: SourceTag = SourceTag([3; 16]);

const KINDS: [ObjectKind; 9] = [
    ObjectKind::Config,
    ObjectKind::KeySlot,
    ObjectKind::Pack,
    ObjectKind::Index,
    ObjectKind::Point,
    ObjectKind::Session,
    ObjectKind::Hold,
    ObjectKind::Generation,
    ObjectKind::Revocation,
];

/// Any bytes, and the same with magic, tag and checksum made right.
pub fn header(data: &[u8]) {
    let mut right = data.to_vec();
    if right.len() >= HEADER_LEN {
        right[..8].copy_from_slice(b"HOLDFAST");
        right[16..32].copy_from_slice(&vault_tag(&VAULT));
        let crc = crc32c::crc32c(&right[..60]).to_le_bytes();
        right[60..64].copy_from_slice(&crc);
    }
    for kind in KINDS {
        for bytes in [data, &right] {
            let (ours, any) = (Header::decode(bytes, kind, Some(&VAULT)), Header::decode(bytes, kind, None));
            let Ok(header) = ours else { continue };
            assert_eq!(any, Ok(header));
            assert_eq!(Header::decode(&header.encode(&VAULT), kind, Some(&VAULT)), Ok(header));
        }
    }
}

/// What is in a sealed block: encoding, lengths, payload, padding.
pub fn block(data: &[u8]) {
    let mut input = Input(data);
    let (way, limit) = (input.u8(), usize::from(input.u16()));
    let mut inner = input.0.to_vec();
    inner.resize(inner.len().max(12), 0);
    if way & 1 == 1 {
        // Lengths that are right, so that the payload decides.
        let len = (inner.len() - 12) as u32;
        inner[0] &= 1;
        inner[4..8].copy_from_slice(&len.to_le_bytes());
    }
    let sealed = seal_inner(&subkey("data"), OBJECT, BlockKind::DataFrame as u8, GENERATION, 64, &inner);
    let place =
        BlockPlace { kind: BlockKind::DataFrame, object_id: OBJECT, generation: GENERATION, position: 64 };
    if let Ok(content) = SEALER.open(&place, &sealed, limit) {
        assert!(content.len() <= limit, "{} bytes of content, above {limit}", content.len());
        let says = u32::from_le_bytes(inner[8..12].try_into().expect("a header was there"));
        assert_eq!(content.len(), says as usize);
    }
    assert!(SEALER.open(&BlockPlace { position: 128, ..place }, &sealed, limit).is_err());
    let _ = SEALER.open(&place, data, limit);
}

/// The body as it is, sealed, and the whole object as it is.
pub fn point(data: &[u8]) {
    let _ = open_point_as_named_inside(data, &SEALER);
    let sealed = object(ObjectKind::Point, BlockKind::Point, OBJECT, data);
    let inside = open_point_as_named_inside(&sealed, &SEALER);
    let Ok(point) = RecoveryPoint::decode(data) else { return assert!(inside.is_err()) };
    let _ = (point.expires(), point.root.content.as_ref().map(|content| content.len()));
    let bytes = point.encode().expect("what was read can be written");
    assert_eq!(RecoveryPoint::decode(&bytes).as_ref(), Ok(&point));
    // What is written is the one way to write it.
    let again = RecoveryPoint::decode(&bytes).expect("read before").encode().expect("written before");
    assert_eq!(again, bytes);
    let named = seal_point(&point, &SEALER).expect("what was read can be sealed");
    assert_eq!(open_point(&named, &SEALER, &point.source_tag, &point.id).as_ref(), Ok(&point));
    assert_eq!(inside.is_ok(), point.id == POINT);
}

/// The same of a session.
pub fn session(data: &[u8]) {
    let _ = open_session(data, &SEALER, &POINT);
    let sealed = object(ObjectKind::Session, BlockKind::Session, OBJECT, data);
    let inside = open_session(&sealed, &SEALER, &POINT);
    admission(data);
    let Ok(session) = VaultSession::decode(data) else { return assert!(inside.is_err()) };
    admission(&session.writer);
    assert_eq!(session.encode().expect("what was read can be written"), data);
    let named = seal_session(&session, &SEALER).expect("what was read can be sealed");
    assert_eq!(open_session(&named, &SEALER, &session.id).as_ref(), Ok(&session));
    assert_eq!(inside.is_ok(), session.id == POINT);
}

/// What a point or a session says of its writer: written as it was read, and by no owner who did not sign it.
fn admission(data: &[u8]) {
    let Ok(admission) = Admission::decode(data) else { return };
    assert!(data.len() <= ADMISSION_MAX && admission.hosts.len() <= HOSTS_MAX);
    assert_eq!(admission.encode(), data);
    assert!(!admission.is_by(&[7; 32], &VAULT));
}

/// The same of a hold.
pub fn hold(data: &[u8]) {
    let _ = open_hold(data, &SEALER, &POINT);
    let sealed = object(ObjectKind::Hold, BlockKind::Hold, OBJECT, data);
    let inside = open_hold(&sealed, &SEALER, &POINT);
    let Ok(hold) = Hold::decode(data) else { return assert!(inside.is_err()) };
    assert_eq!(inside.is_ok(), hold.point == POINT);
    if hold.reason.len() > REASON_LEN_MAX {
        return assert!(hold.encode().is_err(), "more is read than is written");
    }
    assert_eq!(hold.encode().expect("a short reason"), data);
    let named = seal_hold(&hold, &SEALER).expect("a short reason");
    assert_eq!(open_hold(&named, &SEALER, &hold.point), Ok(hold));
}

/// A generation; number and step of its name come first.
pub fn generation(data: &[u8]) {
    let mut input = Input(data);
    let step = if input.u8() & 1 == 0 { Step::Condemned } else { Step::Final };
    let number = input.u64();
    let id = generation_id(number, step);
    let _ = Generation::open(&SEALER, (number, step), input.0);
    let sealed = object(ObjectKind::Generation, BlockKind::Generation, id, input.0);
    let Ok(generation) = Generation::open(&SEALER, (number, step), &sealed) else { return };
    assert_eq!((generation.number, generation.step), (number, step));
    assert!(generation.packs.is_sorted_by(|a, b| a.0 < b.0));
    let again = Generation::open(&SEALER, (number, step), &generation.seal(&SEALER));
    assert_eq!(again.as_ref(), Ok(&generation));
    let other = if step == Step::Final { Step::Condemned } else { Step::Final };
    assert!(Generation::open(&SEALER, (number, other), &sealed).is_err(), "it opens under another name");
}

/// A revocation; the number of its attempt comes first.
pub fn revocation(data: &[u8]) {
    let mut input = Input(data);
    let attempt = Attempt { point: POINT, number: input.u8() };
    let _ = Revocation::open(&SEALER, (&TAG, &attempt), input.0);
    let sealed = object(ObjectKind::Revocation, BlockKind::Revocation, ObjectId(POINT.0), input.0);
    assert!(Revocation::is_meant_by(&sealed, &SEALER));
    assert!(open_point(&sealed, &SEALER, &TAG, &POINT).is_err(), "a revocation is no point");
    let Ok(revocation) = Revocation::open(&SEALER, (&TAG, &attempt), &sealed) else { return };
    assert_eq!((revocation.attempt, revocation.tag), (attempt, TAG));
    let bytes = revocation.seal(&SEALER);
    assert_eq!(bytes.len() as u64, Revocation::LEN);
    assert_eq!(Revocation::open(&SEALER, (&TAG, &attempt), &bytes), Ok(revocation));
}
