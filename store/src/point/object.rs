//! Recovery points, sessions and holds as whole objects: header and one sealed block (`docs/format.md`, sections 10 and 11).
//!
//! Opening checks that the object is the one its name promises: a point that somebody put under the name of another
//! source or point does not open.

use crate::error::StoreError;
use crate::format::{FormatError, HEADER_LEN, Header, ObjectKind};
use crate::id::{ObjectId, RecoveryPointId, SourceTag};
use crate::padding;
use crate::point::codec::MAX_CONTENT;
use crate::point::hold::Hold;
use crate::point::signing::before_signature;
use crate::point::{RecoveryPoint, VaultSession};
use crate::seal::writer::Signed;
use crate::seal::{BlockKind, BlockPlace, Compression, Sealer, prepare};

/// Compression of points: small, read often, written once.
const COMPRESSION: Compression = Compression::Zstd(3);

/// The bytes of a point's object, to be stored as [`crate::names::point`]. `Invalid` if the point breaks a rule.
pub fn seal_point(point: &RecoveryPoint, sealer: &Sealer) -> Result<Vec<u8>, StoreError> {
    Ok(seal(ObjectKind::Point, ObjectId(point.id.0), &point.encode()?, sealer))
}

/// Opens the object found under the name of point `id` of the source `tag`.
///
/// `Damaged` also if it is another point, or of another source, than its name says.
pub fn open_point(
    bytes: &[u8],
    sealer: &Sealer,
    tag: &SourceTag,
    id: &RecoveryPointId,
) -> Result<RecoveryPoint, FormatError> {
    named_right(RecoveryPoint::decode(&open(ObjectKind::Point, bytes, id, sealer)?)?, tag, id)
}

fn named_right(
    point: RecoveryPoint,
    tag: &SourceTag,
    id: &RecoveryPointId,
) -> Result<RecoveryPoint, FormatError> {
    match point.id == *id && point.source_tag == *tag {
        true => Ok(point),
        false => Err(FormatError::damaged(format!(
            "it is point {} of source {}, not what its name says",
            point.id, point.source_tag
        ))),
    }
}

/// Who says to have made an object, and over what: to be held against what the owner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What it is.
    pub what: Signed,
    /// What it calls its writer's admission; empty if it names nobody.
    pub writer: Vec<u8>,
    /// The content before the signature, as it stands in the object.
    pub content: Vec<u8>,
    /// The signature; empty if there is none.
    pub signature: Vec<u8>,
}

impl Signature {
    fn of(what: Signed, writer: &[u8], mut content: Vec<u8>, signature: &[u8]) -> Self {
        content.truncate(before_signature(&content, signature).len());
        Self { what, writer: writer.to_vec(), content, signature: signature.to_vec() }
    }
}

/// As [`open_point`], with the point's signature.
pub fn open_signed_point(
    bytes: &[u8],
    sealer: &Sealer,
    tag: &SourceTag,
    id: &RecoveryPointId,
) -> Result<(RecoveryPoint, Signature), FormatError> {
    let content = open(ObjectKind::Point, bytes, id, sealer)?;
    let point = named_right(RecoveryPoint::decode(&content)?, tag, id)?;
    let signature = Signature::of(Signed::Point, &point.writer, content, &point.signature);
    Ok((point, signature))
}

/// Opens the object of whatever point it is. The header names it, and the seal holds for no other.
pub fn open_point_as_named_inside(bytes: &[u8], sealer: &Sealer) -> Result<RecoveryPoint, FormatError> {
    let id = RecoveryPointId(Header::decode(bytes, ObjectKind::Point, Some(sealer.vault()))?.object_id.0);
    let point = RecoveryPoint::decode(&open(ObjectKind::Point, bytes, &id, sealer)?)?;
    if point.id == id { Ok(point) } else { Err(FormatError::damaged(format!("it is point {}", point.id))) }
}

/// The bytes of a session's object, to be stored as [`crate::names::session`].
pub fn seal_session(session: &VaultSession, sealer: &Sealer) -> Result<Vec<u8>, StoreError> {
    Ok(seal(ObjectKind::Session, ObjectId(session.id.0), &session.encode()?, sealer))
}

/// Opens the object found under the name of session `id`; `Damaged` also if it is another.
pub fn open_session(
    bytes: &[u8],
    sealer: &Sealer,
    id: &RecoveryPointId,
) -> Result<VaultSession, FormatError> {
    open_signed_session(bytes, sealer, id).map(|(session, _)| session)
}

/// The same with its signature.
pub fn open_signed_session(
    bytes: &[u8],
    sealer: &Sealer,
    id: &RecoveryPointId,
) -> Result<(VaultSession, Signature), FormatError> {
    let content = open(ObjectKind::Session, bytes, id, sealer)?;
    let session = VaultSession::decode(&content)?;
    if session.id != *id {
        return Err(FormatError::damaged(format!("it is session {}, not what its name says", session.id)));
    }
    let signature = Signature::of(Signed::Session, &session.writer, content, &session.signature);
    Ok((session, signature))
}

/// The bytes of a hold's object, to be stored as [`crate::names::hold`].
pub fn seal_hold(hold: &Hold, sealer: &Sealer) -> Result<Vec<u8>, StoreError> {
    Ok(seal(ObjectKind::Hold, ObjectId(hold.point.0), &hold.encode()?, sealer))
}

/// Opens the object found under the name of a hold of point `id`; `Damaged` also if it is another.
pub fn open_hold(bytes: &[u8], sealer: &Sealer, id: &RecoveryPointId) -> Result<Hold, FormatError> {
    let hold = Hold::decode(&open(ObjectKind::Hold, bytes, id, sealer)?)?;
    if hold.point != *id {
        return Err(FormatError::damaged(format!("it holds {}, not what its name says", hold.point)));
    }
    Ok(hold)
}

/// Hash of the bytes of an object: what `previous` and witnesses of later points carry.
pub fn object_hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

fn block_kind(kind: ObjectKind) -> BlockKind {
    match kind {
        ObjectKind::Session => BlockKind::Session,
        ObjectKind::Hold => BlockKind::Hold,
        _ => BlockKind::Point,
    }
}

fn seal(kind: ObjectKind, object_id: ObjectId, content: &[u8], sealer: &Sealer) -> Vec<u8> {
    let header = Header { kind, object_id, generation: sealer.generation() };
    let mut out = header.encode(sealer.vault()).to_vec();
    let block = prepare(content, COMPRESSION);
    let len = padding::object_len((HEADER_LEN + block.block_len()) as u64, MAX_CONTENT as u64) as usize;
    sealer.seal_prepared(&place(&header), &block.lengthened(len - HEADER_LEN), &mut out);
    out
}

fn open(
    kind: ObjectKind,
    bytes: &[u8],
    id: &RecoveryPointId,
    sealer: &Sealer,
) -> Result<Vec<u8>, FormatError> {
    let header = Header::decode(bytes, kind, Some(sealer.vault()))?;
    if header.object_id.0 != id.0 {
        return Err(FormatError::damaged(format!("its header says {}, its name {id}", header.object_id)));
    }
    let sealed = bytes.get(HEADER_LEN..).unwrap_or_default();
    sealer.open(&place(&header), sealed, MAX_CONTENT)
}

fn place(header: &Header) -> BlockPlace {
    BlockPlace {
        kind: block_kind(header.kind),
        object_id: header.object_id,
        generation: header.generation,
        position: HEADER_LEN as u64,
    }
}
