//! A recovery point and a session as the content of their sealed blocks (`docs/format.md`, sections 10 and 11).

use crate::error::StoreError;
use crate::format::{FormatError, Parser, Put};
use crate::id::{ChunkId, ObjectHash, ObjectId, PackId, RecoveryPointId, SourceTag};
use crate::point::{
    Consistency, Counts, EXPIRES_TAG, Head, PagePlace, PointError, PointState, RecoveryPoint, Sight,
    SourceName, VaultSession, Witness,
};
use crate::tree::node::{
    OwnerTable, ParsedOwners, check_extensions, parse_extensions, parse_node, put_extensions, put_node,
    within,
};
use crate::tree::{Node, NodeKind};

const BODY_VERSION: u16 = 1;
const SESSION_VERSION: u16 = 1;
/// Of a session that says what its writer saw in the vault.
const WITH_SIGHT: u16 = 2;
/// Longest content of the block.
pub(super) const MAX_CONTENT: usize = 64 * 1024 * 1024;
/// Most places of pages.
pub const MAX_SUMMARY: usize = 64;
/// Most packs that a new point lists: those of 1 TiB. Nothing depends on the list, and no point may become too big by it.
pub const MAX_PACKS_LISTED: usize = 1 << 16;
/// Most errors that are listed; all are counted.
pub const MAX_ERRORS: usize = 10_000;
const PLACE_LEN: usize = 32 + 32 + 16 + 4 + 8 + 4 + 4 + 4;
const WITNESS_LEN: usize = 16 + 8 + 32;
/// Most heads that a session names: with them its object is below 64 KiB.
pub const MAX_HEADS: usize = 512;
const HEAD_LEN: usize = 16 + 16 + 8 + 32;
const ROOT_NAME: &[u8] = b"root";

type Parsed<T> = Result<T, FormatError>;

fn rule(holds: bool, broken: &str) -> Parsed<()> {
    if holds { Ok(()) } else { Err(FormatError::damaged(broken)) }
}

/// Every rule that does not show in how a point is written; shared by writing and reading.
fn check(point: &RecoveryPoint) -> Parsed<()> {
    rule(point.sequence > 0, "a point of sequence 0")?;
    rule(
        point.root.name == ROOT_NAME && point.root.kind == NodeKind::Directory,
        "the root is not a directory called root",
    )?;
    rule(point.summary.len() <= MAX_SUMMARY, "more than 64 places of pages")?;
    rule(point.errors.len() <= MAX_ERRORS, "more than 10000 errors listed")?;
    rule(point.errors_total >= point.errors.len() as u64, "fewer errors counted than listed")?;
    let expires = point.extensions.iter().find(|(tag, _)| *tag == EXPIRES_TAG);
    rule(expires.is_none_or(|(_, value)| value.len() == 8), "an expiry that is not of 8 bytes")?;
    check_extensions(&point.extensions)
}

/// Fields after a `u16` length must not be longer than it can say.
fn check_lengths(point: &RecoveryPoint) -> Parsed<()> {
    let source = &point.source;
    let mut fields = vec![source.host.len(), source.group.len(), source.source.len(), point.tool.len()];
    fields.extend([point.writer.len(), point.signature.len(), point.tags.len()]);
    fields.extend(point.tags.iter().map(String::len));
    fields.extend(point.errors.iter().map(|e| e.reason.len()));
    rule(fields.iter().all(|len| *len <= usize::from(u16::MAX)), "a text of more than 65535 bytes")
}

impl RecoveryPoint {
    /// Lists the packs that were made for the point, the first [`MAX_PACKS_LISTED`] of them.
    pub fn list_packs(&mut self, made: &[PackId]) {
        self.packs = made.iter().take(MAX_PACKS_LISTED).copied().collect();
    }

    /// The content of the point's block. `Invalid` if the point breaks a rule of the format or is above 64 MiB.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut out = self.encode_unsigned()?;
        out.bytes16(&self.signature);
        if out.len() > MAX_CONTENT {
            return Err(StoreError::invalid(format!(
                "a recovery point of {} bytes, above 64 MiB",
                out.len()
            )));
        }
        Ok(out)
    }

    /// What a writer signs: the content before the signature.
    pub fn encode_unsigned(&self) -> Result<Vec<u8>, StoreError> {
        let refused = |e: FormatError| StoreError::invalid(format!("recovery point: {e}"));
        check(self).and_then(|()| check_lengths(self)).map_err(refused)?;
        let mut out = Vec::with_capacity(4096 + self.packs.len() * PackId::LEN);
        put_identity(&mut out, self);
        put_root(&mut out, &self.root).map_err(refused)?;
        put_counts(&mut out, &self.counts);
        put_lists(&mut out, self);
        put_extensions(&mut out, &self.extensions);
        Ok(out)
    }

    /// Reads the content of a point's block and checks all of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        rule(bytes.len() <= MAX_CONTENT, "a recovery point above 64 MiB")?;
        let mut p = Parser::new(bytes);
        let point = take_point(&mut p)?;
        p.end()?;
        check(&point)?;
        Ok(point)
    }
}

fn put_identity(out: &mut Vec<u8>, point: &RecoveryPoint) {
    out.u16(BODY_VERSION);
    out.raw(&point.id.0);
    out.raw(&point.source_tag.0);
    out.bytes16(point.source.host.as_bytes());
    out.bytes16(point.source.group.as_bytes());
    out.bytes16(point.source.source.as_bytes());
    out.bytes32(&point.path);
    out.u64(point.sequence);
    out.raw(&point.previous);
    out.time(point.started);
    out.time(point.ended);
    out.u8(point.state as u8);
    out.u8(point.consistency as u8);
    out.u16(0);
}

fn put_root(out: &mut Vec<u8>, root: &Node) -> Parsed<()> {
    let (mut item, mut owners) = (Vec::new(), OwnerTable::default());
    put_node(&mut item, &mut owners, root)?;
    owners.put(out)?;
    out.bytes32(&item);
    Ok(())
}

fn put_counts(out: &mut Vec<u8>, counts: &Counts) {
    let Counts { files, directories, others, bytes, files_read, bytes_read, bytes_new, bytes_stored } =
        *counts;
    for count in [files, directories, others, bytes, files_read, bytes_read, bytes_new, bytes_stored] {
        out.u64(count);
    }
}

fn put_lists(out: &mut Vec<u8>, point: &RecoveryPoint) {
    out.u32(point.summary.len() as u32);
    point.summary.iter().for_each(|place| put_place(out, place));
    out.u32(point.packs.len() as u32);
    point.packs.iter().for_each(|pack| out.raw(&pack.0));
    out.u64(point.errors_total);
    out.u32(point.errors.len() as u32);
    for error in &point.errors {
        out.bytes32(&error.path);
        out.bytes16(error.reason.as_bytes());
    }
    out.u32(point.witness.len() as u32);
    for witness in &point.witness {
        out.raw(&witness.source.0);
        out.u64(witness.sequence);
        out.raw(&witness.hash);
    }
    out.u16(point.tags.len() as u16);
    point.tags.iter().for_each(|tag| out.bytes16(tag.as_bytes()));
    out.bytes16(&point.writer);
    out.bytes16(point.tool.as_bytes());
}

fn put_place(out: &mut Vec<u8>, place: &PagePlace) {
    out.raw(&place.chunk.0);
    out.raw(&place.pack.0);
    out.raw(&place.object_id.0);
    out.u32(place.generation);
    out.u64(place.offset);
    out.u32(place.block_len);
    out.u32(place.start);
    out.u32(place.len);
}

/// Struct fields are evaluated in the order written, which is the order of the bytes.
fn take_point(p: &mut Parser<'_>) -> Parsed<RecoveryPoint> {
    let version = p.u16()?;
    if version != BODY_VERSION {
        return Err(FormatError::TooNew(format!("recovery point body of version {version}")));
    }
    Ok(RecoveryPoint {
        id: RecoveryPointId(p.array()?),
        source_tag: SourceTag(p.array()?),
        source: SourceName { host: p.text16()?, group: p.text16()?, source: p.text16()? },
        path: p.bytes32()?.to_vec(),
        sequence: p.u64()?,
        previous: p.array()?,
        started: p.time()?,
        ended: p.time()?,
        state: take_state(p)?,
        consistency: take_consistency(p)?,
        root: take_root(p)?,
        counts: take_counts(p)?,
        summary: take_summary(p)?,
        packs: take_packs(p)?,
        errors_total: p.u64()?,
        errors: take_errors(p)?,
        witness: take_witness(p)?,
        tags: take_tags(p)?,
        writer: p.bytes16()?.to_vec(),
        tool: p.text16()?,
        extensions: take_extensions(p)?,
        signature: p.bytes16()?.to_vec(),
    })
}

fn take_state(p: &mut Parser<'_>) -> Parsed<PointState> {
    match p.u8()? {
        1 => Ok(PointState::Complete),
        2 => Ok(PointState::Partial),
        other => Err(FormatError::damaged(format!("no state of a point is {other}"))),
    }
}

/// Takes the reserved field after it too.
fn take_consistency(p: &mut Parser<'_>) -> Parsed<Consistency> {
    let consistency = match p.u8()? {
        1 => Consistency::Fuzzy,
        2 => Consistency::Snapshot,
        3 => Consistency::Application,
        other => return Err(FormatError::damaged(format!("no consistency is {other}"))),
    };
    p.u16()?;
    Ok(consistency)
}

fn take_root(p: &mut Parser<'_>) -> Parsed<Node> {
    let owners = ParsedOwners::take(p)?;
    let mut item = Parser::new(p.bytes32()?);
    let root = parse_node(&mut item, &owners)?;
    item.end().map_err(|e| within(e, "root"))?;
    Ok(root)
}

fn take_counts(p: &mut Parser<'_>) -> Parsed<Counts> {
    Ok(Counts {
        files: p.u64()?,
        directories: p.u64()?,
        others: p.u64()?,
        bytes: p.u64()?,
        files_read: p.u64()?,
        bytes_read: p.u64()?,
        bytes_new: p.u64()?,
        bytes_stored: p.u64()?,
    })
}

fn take_summary(p: &mut Parser<'_>) -> Parsed<Vec<PagePlace>> {
    let n = p.count("places of pages", PLACE_LEN, MAX_SUMMARY)?;
    (0..n).map(|_| take_place(p)).collect()
}

fn take_place(p: &mut Parser<'_>) -> Parsed<PagePlace> {
    Ok(PagePlace {
        chunk: ChunkId(p.array()?),
        pack: PackId(p.array()?),
        object_id: ObjectId(p.array()?),
        generation: p.u32()?,
        offset: p.u64()?,
        block_len: p.u32()?,
        start: p.u32()?,
        len: p.u32()?,
    })
}

fn take_packs(p: &mut Parser<'_>) -> Parsed<Vec<PackId>> {
    let n = p.count("packs", PackId::LEN, MAX_CONTENT)?;
    (0..n).map(|_| Ok(PackId(p.array()?))).collect()
}

fn take_errors(p: &mut Parser<'_>) -> Parsed<Vec<PointError>> {
    let n = p.count("errors", 4 + 2, MAX_ERRORS)?;
    (0..n).map(|_| Ok(PointError { path: p.bytes32()?.to_vec(), reason: p.text16()? })).collect()
}

fn take_witness(p: &mut Parser<'_>) -> Parsed<Vec<Witness>> {
    let n = p.count("witnesses", WITNESS_LEN, MAX_CONTENT)?;
    let one = |p: &mut Parser<'_>| {
        Ok(Witness { source: SourceTag(p.array()?), sequence: p.u64()?, hash: p.array()? })
    };
    (0..n).map(|_| one(p)).collect()
}

fn take_tags(p: &mut Parser<'_>) -> Parsed<Vec<String>> {
    let n = p.u16()?;
    rule(usize::from(n) * 2 <= p.left(), "more tags than there are bytes")?;
    (0..n).map(|_| p.text16()).collect()
}

fn take_extensions(p: &mut Parser<'_>) -> Parsed<Vec<(u16, Vec<u8>)>> {
    let n = p.u16()?;
    parse_extensions(p, usize::from(n))
}

impl VaultSession {
    /// The content of the session's block; `Invalid` if writer or signature are above 65,535 bytes, or there are too many heads.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        if self.writer.len().max(self.signature.len()) > usize::from(u16::MAX) {
            return Err(StoreError::invalid("session: writer or signature of more than 65535 bytes"));
        }
        let heads = self.sight.as_ref().map_or(&[][..], |sight| &sight.heads);
        if heads.len() > MAX_HEADS {
            return Err(StoreError::invalid(format!("session: {} heads", heads.len())));
        }
        let mut out =
            Vec::with_capacity(128 + self.writer.len() + self.signature.len() + heads.len() * HEAD_LEN);
        out.u16(if self.sight.is_some() { WITH_SIGHT } else { SESSION_VERSION });
        out.raw(&self.id.0);
        out.raw(&self.source_tag.0);
        out.i64(self.started);
        out.bytes16(&self.writer);
        if let Some(sight) = &self.sight {
            put_sight(&mut out, sight);
        }
        out.bytes16(&self.signature);
        Ok(out)
    }

    /// Reads the content of a session's block.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut p = Parser::new(bytes);
        let version = p.u16()?;
        if !(SESSION_VERSION..=WITH_SIGHT).contains(&version) {
            return Err(FormatError::TooNew(format!("session of version {version}")));
        }
        let session = Self {
            id: RecoveryPointId(p.array()?),
            source_tag: SourceTag(p.array()?),
            started: p.i64()?,
            writer: p.bytes16()?.to_vec(),
            sight: if version == WITH_SIGHT { Some(take_sight(&mut p)?) } else { None },
            signature: p.bytes16()?.to_vec(),
        };
        p.end()?;
        Ok(session)
    }
}

fn put_sight(out: &mut Vec<u8>, sight: &Sight) {
    out.raw(&[sight.attempt]);
    out.u32(sight.heads.len() as u32);
    for head in &sight.heads {
        out.raw(&head.source.0);
        out.raw(&head.point.0);
        out.u64(head.sequence);
        out.raw(&head.hash.0);
    }
}

fn take_sight(p: &mut Parser<'_>) -> Parsed<Sight> {
    let [attempt] = p.array()?;
    let n = p.count("heads", HEAD_LEN, MAX_HEADS)?;
    let one = |p: &mut Parser<'_>| {
        Ok(Head {
            source: SourceTag(p.array()?),
            point: RecoveryPointId(p.array()?),
            sequence: p.u64()?,
            hash: ObjectHash(p.array()?),
        })
    };
    Ok(Sight { attempt, heads: (0..n).map(|_| one(p)).collect::<Parsed<_>>()? })
}
