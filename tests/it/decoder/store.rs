//! A whole store read from a directory: every object is decoded, and what they say of each other is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::content::Extent;
use super::fields::{Read, Refused, from_hex, hex, must};
use super::listing::{Bytes, KINDS, Line};
use super::pack::{Id, Index, Pack, Type};
use super::point::{Point, check_revocation, check_session, is_revocation};
use super::seal::Ring;
use super::slot::{Config, Secret, Slot};
use super::tree::{Entry, read_directory};

const DEPTH_LIMIT: usize = 4096;
/// Zeros are hashed in pieces of this length.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A decoded store.
pub struct Store {
    pub ring: Ring,
    pub config: Config,
    pub packs: BTreeMap<Id, Pack>,
    pub indexes: usize,
    pub points: Vec<Point>,
    chunks: BTreeMap<(Type, Id), (Id, usize)>,
}

impl Store {
    /// Reads all of the store in `dir`, which `secret` must open.
    pub fn read(dir: &Path, secret: &Secret) -> Read<Self> {
        let ring = open_ring(dir, secret)?;
        Self::read_with(dir, ring)
    }

    /// The same, with a key ring that was opened before.
    pub fn read_with(dir: &Path, ring: Ring) -> Read<Self> {
        let config = Config::read(&file(&dir.join("config"))?, &ring).map_err(|e| e.of("config"))?;
        ring.subkey(config.identity, "chunk id")?;
        let mut store = Self {
            ring,
            config,
            packs: BTreeMap::new(),
            indexes: 0,
            points: Vec::new(),
            chunks: BTreeMap::new(),
        };
        store.read_packs(&dir.join("pack"))?;
        store.read_indexes(&dir.join("idx"))?;
        for (id, number, bytes) in attempts(&dir.join("sess"))? {
            let said = format!("session {}.{number}", hex(&id));
            check_session(id, &bytes, &store.ring).map_err(|e| e.of(said))?;
        }
        store.read_points(&dir.join("rp"))?;
        Ok(store)
    }

    fn read_packs(&mut self, dir: &Path) -> Read<()> {
        for shard in names(dir)? {
            for (name, bytes) in objects::<32>(&dir.join(&shard))? {
                let said = format!("pack {}", hex(&name));
                must(shard == hex(&name[..1]), "a pack lies below its first two digits")?;
                let pack =
                    Pack::read(name, &bytes, &self.ring, self.config.identity).map_err(|e| e.of(said))?;
                for (at, (chunk, of)) in pack.chunks.iter().enumerate() {
                    self.chunks.insert((*of, chunk.id), (name, at));
                }
                self.packs.insert(name, pack);
            }
        }
        Ok(())
    }

    fn read_indexes(&mut self, dir: &Path) -> Read<()> {
        let mut indexes = BTreeMap::new();
        for (name, bytes) in objects::<32>(dir)? {
            let said = format!("index {}", hex(&name));
            indexes.insert(name, Index::read(name, &bytes, &self.ring).map_err(|e| e.of(said))?);
        }
        let superseded: BTreeSet<Id> = indexes.values().flat_map(|index| index.superseded.clone()).collect();
        let valid = indexes.iter().filter(|(name, _)| !superseded.contains(*name));
        for (name, indexed) in
            valid.flat_map(|(name, index)| index.packs.iter().map(move |pack| (name, pack)))
        {
            let agrees = self.packs.get(&indexed.name).is_some_and(|pack| indexed.agrees(pack));
            let said = format!("index {}, pack {}", hex(name), hex(&indexed.name));
            must(agrees, "an index says what the pack says").map_err(|e| e.of(said))?;
        }
        self.indexes = indexes.len();
        Ok(())
    }

    fn read_points(&mut self, dir: &Path) -> Read<()> {
        for tag in names(dir)? {
            for (id, number, bytes) in attempts(&dir.join(&tag))? {
                let said = format!("recovery point {}.{number}", hex(&id));
                let tag = array(&from_hex(&tag)?)?;
                if is_revocation(&bytes, &self.ring) {
                    check_revocation(tag, (id, number), &bytes, &self.ring).map_err(|e| e.of(said))?;
                    continue;
                }
                let point = Point::read(tag, id, &bytes, &self.ring, self.config.identity);
                let point = point.and_then(|point| self.check_point(point)).map_err(|e| e.of(said))?;
                self.points.push(point);
            }
        }
        self.points.sort_by_key(|point| (point.tag, point.sequence, point.id));
        // Two attempts that brought the same point brought one.
        self.points.dedup_by_key(|point| point.id);
        for pair in self.points.windows(2) {
            let next = (pair[0].tag, pair[0].sequence + 1) == (pair[1].tag, pair[1].sequence);
            must(
                !next || [pair[0].hash, [0; 32]].contains(&pair[1].previous),
                "a point names the point before it",
            )?;
        }
        Ok(())
    }

    /// Checks what a point says of packs and pages.
    fn check_point(&self, point: Point) -> Read<Point> {
        must(point.packs.iter().all(|name| self.packs.contains_key(name)), "the packs of a point are there")?;
        for place in &point.summary {
            let said = format!("place of page {}", hex(&place.chunk));
            let found =
                self.packs.get(&place.pack).and_then(|pack| Some((pack, pack.frame_at(place.offset)?)));
            let (pack, (begin, frame)) = found.ok_or_else(|| Refused::new(&said[..]))?;
            let start = begin + u64::from(place.start);
            let same = |(chunk, of): &(super::pack::Chunk, Type)| {
                (*of, chunk.id, u64::from(chunk.start), chunk.len)
                    == (Type::Page, place.chunk, start, place.len)
            };
            let within = u64::from(place.start) + u64::from(place.len) <= u64::from(frame.raw_len);
            let object = (place.object_id, place.generation, place.block_len)
                == (pack.header.object_id, pack.header.generation, frame.block_len);
            must(within && object && pack.chunks.iter().any(same), &said)?;
        }
        Ok(point)
    }

    /// The bytes of a chunk.
    pub fn chunk(&self, of: Type, id: &Id) -> Read<&[u8]> {
        let place = self.chunks.get(&(of, *id));
        let found = place.and_then(|(name, at)| {
            let pack = self.packs.get(name)?;
            Some(pack.bytes_of(&pack.chunks.get(*at)?.0))
        });
        found.ok_or_else(|| Refused::new(format!("no pack has the chunk {} ({of:?})", hex(id))))
    }

    /// Everything in a point, the root first, each directory before what is in it.
    pub fn listing(&self, point: Point) -> Read<Vec<Line>> {
        let mut lines = Vec::new();
        self.list(b"", point.root, 0, &mut lines)?;
        Ok(lines)
    }

    /// Lists an entry and all below it; returns the entries below it and their bytes of files.
    fn list(&self, above: &[u8], mut entry: Entry, depth: usize, lines: &mut Vec<Line>) -> Read<(u64, u64)> {
        must(depth <= DEPTH_LIMIT, "directories are at most 4,096 deep")?;
        let path = match (depth, above) {
            (0, _) => b".".to_vec(),
            (_, b".") => entry.name.clone(),
            _ => [above, b"/", &entry.name].concat(),
        };
        let subtree = entry.subtree.take();
        let line = self.line(path.clone(), entry).map_err(|e| e.of(path.escape_ascii()))?;
        let mut sums = (0, line.content.as_ref().map_or(0, |_| line.size));
        lines.push(line);
        if let Some(subtree) = subtree {
            let chunk = |of, id: &Id| self.chunk(of, id);
            for child in read_directory(&subtree.tree, &chunk).map_err(|e| e.of(path.escape_ascii()))? {
                let (entries, bytes) = self.list(&path, child, depth + 1, lines)?;
                sums = (sums.0 + entries + 1, sums.1 + bytes);
            }
            must(
                sums == (subtree.entries, subtree.bytes),
                "a directory's sums are those of what is below it",
            )
            .map_err(|e| e.of(path.escape_ascii()))?;
        }
        Ok(sums)
    }

    fn line(&self, path: Vec<u8>, entry: Entry) -> Read<Line> {
        let content = entry.content.map(|content| {
            let extents = content.extents(&|of, id| self.chunk(of, id))?;
            self.hash(&extents)
        });
        Ok(Line {
            path,
            kind: KINDS[usize::from(entry.kind) - 1],
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            user: entry.user,
            group: entry.group,
            mtime: entry.mtime,
            ctime: entry.ctime,
            size: entry.size,
            identity: (entry.inode, entry.file_system, entry.links),
            flags: entry.flags,
            xattrs: entry.xattrs,
            target: entry.target,
            device: entry.device,
            content: content.transpose()?,
        })
    }

    fn hash(&self, extents: &[Extent]) -> Read<Bytes> {
        let (mut hasher, mut holes, mut at) = (blake3::Hasher::new(), Vec::new(), 0);
        for extent in extents {
            match extent {
                Extent::Data { id, len } => {
                    let bytes = self.chunk(Type::Data, id)?;
                    must(bytes.len() == *len as usize, "an extent is a whole chunk")?;
                    hasher.update(bytes);
                }
                Extent::Hole { len } => {
                    holes.push((at, *len));
                    for begin in (0..*len).step_by(ZEROS.len()) {
                        hasher.update(&ZEROS[..(len - begin).min(ZEROS.len() as u64) as usize]);
                    }
                }
            }
            at += extent.len();
        }
        Ok(Bytes { hash: *hasher.finalize().as_bytes(), holes })
    }
}

/// Reads all key slots and opens the first that is for the secret.
pub fn open_ring(dir: &Path, secret: &Secret) -> Read<Ring> {
    let mut ring = None;
    for (id, bytes) in objects::<16>(&dir.join("keys"))? {
        let said = format!("key slot {}", hex(&id));
        let slot = Slot::read(&bytes).map_err(|e| e.of(&said))?;
        must(slot.header.object_id == id, "a slot's id is that of its name").map_err(|e| e.of(&said))?;
        if ring.is_none() {
            ring = slot.open(secret).map_err(|e| e.of(&said))?;
        }
    }
    ring.ok_or_else(|| Refused::new("the secret opens no key slot"))
}

fn file(path: &Path) -> Read<Vec<u8>> {
    fs::read(path).map_err(|e| Refused::new(e.to_string()).of(path.display()))
}

/// Names in a directory, ascending; none where there is no such directory.
fn names(dir: &Path) -> Read<Vec<String>> {
    let Ok(found) = fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in found {
        let entry = entry.map_err(|e| Refused::new(e.to_string()).of(dir.display()))?;
        names.push(
            entry.file_name().into_string().map_err(|_| Refused::new("an object's name is not UTF-8"))?,
        );
    }
    names.sort();
    Ok(names)
}

/// The objects in a directory whose names are `N` bytes in hexadecimal.
fn objects<const N: usize>(dir: &Path) -> Read<Vec<([u8; N], Vec<u8>)>> {
    let read = |name: String| Ok((array(&from_hex(&name)?)?, file(&dir.join(name))?));
    names(dir)?.into_iter().map(read).collect()
}

/// Id and number of an attempt, and the bytes of its object.
type Attempt = ([u8; 16], u8, Vec<u8>);

/// The objects in a directory whose names are an id and, unless it is the first one, the number of an attempt.
fn attempts(dir: &Path) -> Read<Vec<Attempt>> {
    let read = |name: String| {
        let (id, number) = match name.split_once('.') {
            None => (&name[..], 0),
            Some((id, number)) => {
                let right = number.parse().ok().filter(|n: &u8| *n > 0 && n.to_string() == number);
                (id, right.ok_or_else(|| Refused::new(format!("{name} is no attempt")))?)
            }
        };
        Ok((array(&from_hex(id)?)?, number, file(&dir.join(&name))?))
    };
    names(dir)?.into_iter().map(read).collect()
}

fn array<const N: usize>(bytes: &[u8]) -> Read<[u8; N]> {
    <[u8; N]>::try_from(bytes).map_err(|_| Refused::new(format!("an id of {} bytes, not {N}", bytes.len())))
}
