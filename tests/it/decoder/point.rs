//! Recovery points, sessions and revocations (sections 10 to 12 of the format).

use super::fields::{Fields, Read, Time, must};
use super::pack::Id;
use super::seal::{Header, POINT, Place, REVOCATION, Ring, SESSION};
use super::tree::{DIRECTORY, Entry, read_extensions, read_owners};
use super::writer::Writer;

const ERRORS_LIMIT: usize = 10_000;
const PLACES_LIMIT: usize = 64;
const BODY_VERSION: u16 = 1;

/// Where a page of the summary lies.
pub struct PagePlace {
    pub chunk: Id,
    pub pack: Id,
    pub object_id: [u8; 16],
    pub generation: u32,
    pub offset: u64,
    pub block_len: u32,
    pub start: u32,
    pub len: u32,
}

/// A recovery point, decoded and checked on its own.
pub struct Point {
    pub id: [u8; 16],
    pub tag: [u8; 16],
    /// Host, group, source.
    pub source: [String; 3],
    pub path: Vec<u8>,
    pub sequence: u64,
    pub previous: Id,
    /// Hash of the object, which the next point names.
    pub hash: Id,
    pub started: Time,
    pub ended: Time,
    pub state: u8,
    pub consistency: u8,
    pub root: Entry,
    /// Files, directories, other entries, bytes of files, files read, bytes read, new, stored new.
    pub counts: [u64; 8],
    pub summary: Vec<PagePlace>,
    pub packs: Vec<Id>,
    pub errors_total: u64,
    pub errors: Vec<(Vec<u8>, String)>,
    pub tags: Vec<String>,
    pub tool: String,
    pub writer: Option<Writer>,
}

/// What a point knows of another source.
struct Witness;

impl Point {
    /// Reads the point that lies under `tag` and `id`; source tags are of the generation `identity`.
    pub fn read(tag: [u8; 16], id: [u8; 16], bytes: &[u8], ring: &Ring, identity: u32) -> Read<Self> {
        let header = Header::read(bytes, POINT, &ring.vault)?;
        must(header.object_id == id, "the object's id is that of its name")?;
        let content = ring.open(&header, Place { kind: 9, position: 64 }, &bytes[64..])?;
        let mut fields = Fields::new(&content);
        must(fields.u16()? == BODY_VERSION, "the body version is 1")?;
        must(fields.array()? == id, "the point's id is that of its header")?;
        must(fields.array()? == tag, "the source tag is that of the object's name")?;
        let source = [fields.text16()?, fields.text16()?, fields.text16()?];
        must(
            source_tag(&ring.subkey(identity, "names")?, &source) == tag,
            "the source tag is that of the source",
        )?;
        let point = Self::read_rest(&mut fields, tag, id, source, *blake3::hash(bytes).as_bytes())?;
        fields.end()?;
        Ok(point)
    }

    fn read_rest(
        f: &mut Fields<'_>,
        tag: [u8; 16],
        id: [u8; 16],
        source: [String; 3],
        hash: Id,
    ) -> Read<Self> {
        let path = f.bytes32()?.to_vec();
        let (sequence, previous) = (f.u64()?, f.array()?);
        must(sequence > 0, "a sequence begins at 1")?;
        let (started, ended) = (f.time()?, f.time()?);
        let (state, consistency) = (f.u8()?, f.u8()?);
        must((1..=2).contains(&state), "a point is complete or partial")?;
        must((1..=3).contains(&consistency), "a point's consistency is known")?;
        let _reserved = f.u16()?;
        let root = read_root(f)?;
        let mut counts = [0; 8];
        for count in &mut counts {
            *count = f.u64()?;
        }
        let summary = (0..f.count(116, PLACES_LIMIT)?).map(|_| read_place(f)).collect::<Read<_>>()?;
        let packs = (0..f.count(32, usize::MAX)?).map(|_| f.array()).collect::<Read<_>>()?;
        let errors_total = f.u64()?;
        let listed = f.count(6, ERRORS_LIMIT)?;
        must(listed as u64 <= errors_total, "no more errors are listed than there are")?;
        let errors = (0..listed).map(|_| Ok((f.bytes32()?.to_vec(), f.text16()?))).collect::<Read<_>>()?;
        for _ in 0..f.count(56, usize::MAX)? {
            Witness::read(f)?;
        }
        let tags = (0..f.u16()?).map(|_| f.text16()).collect::<Read<_>>()?;
        let admission = f.bytes16()?;
        let tool = f.text16()?;
        read_extensions(f)?;
        let writer = Writer::read(admission, f.bytes16()?)?;
        Ok(Self {
            id,
            tag,
            source,
            path,
            sequence,
            previous,
            hash,
            started,
            ended,
            state,
            consistency,
            root,
            counts,
            summary,
            packs,
            errors_total,
            errors,
            tags,
            tool,
            writer,
        })
    }
}

impl Witness {
    fn read(fields: &mut Fields<'_>) -> Read<Self> {
        let (_source, _sequence, _hash) = (fields.array::<16>()?, fields.u64()?, fields.array::<32>()?);
        Ok(Self)
    }
}

fn source_tag(key: &[u8; 32], source: &[String; 3]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for name in source {
        hasher.update(&(name.len() as u16).to_le_bytes()).update(name.as_bytes());
    }
    let mut tag = [0; 16];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    tag
}

fn read_root(fields: &mut Fields<'_>) -> Read<Entry> {
    let owners = read_owners(fields)?;
    let mut item = Fields::new(fields.bytes32()?);
    let root = Entry::read(&mut item, &owners)?;
    item.end()?;
    must(root.name == b"root" && root.kind == DIRECTORY, "the root is a directory called root")?;
    Ok(root)
}

fn read_place(fields: &mut Fields<'_>) -> Read<PagePlace> {
    Ok(PagePlace {
        chunk: fields.array()?,
        pack: fields.array()?,
        object_id: fields.array()?,
        generation: fields.u32()?,
        offset: fields.u64()?,
        block_len: fields.u32()?,
        start: fields.u32()?,
        len: fields.u32()?,
    })
}

/// Checks the session that lies under `id`.
pub fn check_session(id: [u8; 16], bytes: &[u8], ring: &Ring) -> Read<()> {
    let header = Header::read(bytes, SESSION, &ring.vault)?;
    must(header.object_id == id, "the object's id is that of its name")?;
    let content = ring.open(&header, Place { kind: 10, position: 64 }, &bytes[64..])?;
    let mut fields = Fields::new(&content);
    let version = fields.u16()?;
    must([1, 2].contains(&version), "the session's version is 1 or 2")?;
    must(fields.array()? == id, "the session's id is that of its header")?;
    let (_tag, _start) = (fields.array::<16>()?, fields.i64()?);
    let _writer = fields.bytes16()?;
    if version == 2 {
        let _attempt = fields.array::<1>()?;
        let heads = fields.u32()?;
        must(heads <= 512, "a session names 512 heads at most")?;
        for _ in 0..heads {
            let (_tag, _point) = (fields.array::<16>()?, fields.array::<16>()?);
            let (_sequence, _hash) = (fields.u64()?, fields.array::<32>()?);
        }
    }
    let _signature = fields.bytes16()?;
    fields.end()
}

/// Whether an object that lies where a recovery point does says by its kind that it is a revocation.
pub fn is_revocation(bytes: &[u8], ring: &Ring) -> bool {
    Header::read(bytes, REVOCATION, &ring.vault).is_ok()
}

/// Checks the revocation that lies under `tag`, `id` and the number of an attempt.
pub fn check_revocation(tag: [u8; 16], (id, number): ([u8; 16], u8), bytes: &[u8], ring: &Ring) -> Read<()> {
    let header = Header::read(bytes, REVOCATION, &ring.vault)?;
    must(header.object_id == id, "the object's id is that of its name")?;
    let content = ring.open(&header, Place { kind: 15, position: 64 }, &bytes[64..])?;
    let mut fields = Fields::new(&content);
    let version = fields.u16()?;
    must([1, 2].contains(&version), "the revocation's version is 1 or 2")?;
    must(fields.array()? == id, "the point is that of the name")?;
    must(fields.array()? == tag, "the source is that of the name")?;
    let [why] = fields.array()?;
    must([1, 2].contains(&why), "the reason is known")?;
    let _when = fields.i64()?;
    let [inside] = if version == 2 { fields.array()? } else { [0] };
    must(inside == number, "the attempt is that of the name")?;
    fields.end()
}
