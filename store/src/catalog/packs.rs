//! Packs in the catalog: what a reader must know of each, and whether staging holds it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::places::SOMEWHERE;
use super::{
    Catalog, Mark, PackNo, PackRow, VaultNo, chunks, damaged, damaged_by, marks, reads_otherwise, verified,
};
use crate::error::StoreError;
use crate::format::{FormatError, Parser, Put};
use crate::id::{ObjectId, PackId};
use crate::pack::{Frame, PackEntry, PackKind, PackedChunk};

/// What a comparison with a listing needs of a pack; of a damaged row what it can tell.
type PackLine = Result<(PackNo, PackId, u64, bool), (PackNo, String)>;

impl Catalog {
    /// Adds packs with their chunks in one transaction; what is known already is only marked as staged or confirmed.
    pub fn add_packs(
        &self,
        packs: &[(&PackEntry, &[PackedChunk])],
        staged: bool,
        confirmed: Option<VaultNo>,
    ) -> Result<(), StoreError> {
        self.write("add packs", |t| {
            for (entry, chunks) in packs {
                add_pack(t, entry, chunks, staged, confirmed)?;
            }
            Ok(())
        })
    }

    /// A pack by number.
    pub fn pack(&self, no: PackNo) -> Result<Option<PackRow>, StoreError> {
        self.read("read a pack", |c| {
            let row =
                c.prepare_cached(&select_packs("WHERE no = ?1"))?.query_row([no.0], pack_row).optional()?;
            row.map(|row| with_vaults(c, row)).transpose()
        })
    }

    /// A pack by name.
    pub fn pack_by_id(&self, id: &PackId) -> Result<Option<PackRow>, StoreError> {
        self.read("read a pack", |c| {
            let row = c
                .prepare_cached(&select_packs("WHERE id = ?1"))?
                .query_row([&id.0[..]], pack_row)
                .optional()?;
            row.map(|row| with_vaults(c, row)).transpose()
        })
    }

    /// All packs that are in staging or in some vault, ascending by number.
    pub fn packs(&self) -> Result<Vec<PackRow>, StoreError> {
        self.read("list packs", |c| {
            let rows: Vec<PackRow> = c
                .prepare_cached(&select_packs(&format!("WHERE {SOMEWHERE} ORDER BY no")))?
                .query_map([], pack_row)?
                .collect::<Result<_, _>>()?;
            rows.into_iter().map(|row| with_vaults(c, row)).collect()
        })
    }

    /// Number, name, length and whether staged, of all packs: what a comparison with a listing needs.
    pub fn pack_list(&self) -> Result<Vec<(PackNo, PackId, u64, bool)>, StoreError> {
        Ok(self.pack_lines()?.into_iter().filter_map(Result::ok).collect())
    }

    /// Whose object id each is, of all packs of which anything is known; of one that several have, nobody's. Damaged rows have none.
    pub fn object_ids(&self) -> Result<HashMap<ObjectId, Option<PackId>>, StoreError> {
        self.read("list packs", |c| {
            let sql =
                "SELECT object_id, id FROM pack WHERE typeof(object_id) = 'blob' AND length(object_id) = 16
                       AND typeof(id) = 'blob' AND length(id) = 32";
            let mut statement = c.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut ids = HashMap::new();
            while let Some(row) = rows.next()? {
                let (object_id, id) = (ObjectId(row.get(0)?), PackId(row.get(1)?));
                ids.entry(object_id).and_modify(|known| *known = None).or_insert(Some(id));
            }
            Ok(ids)
        })
    }

    /// Packs whose rows are not what was written, each with its name as it reads now.
    pub fn damaged_packs(&self) -> Result<Vec<(PackNo, String)>, StoreError> {
        Ok(self.pack_lines()?.into_iter().filter_map(Result::err).collect())
    }

    fn pack_lines(&self) -> Result<Vec<PackLine>, StoreError> {
        self.read("list packs", |c| {
            let mut statement = c.prepare_cached(&select_packs("ORDER BY no"))?;
            let mut rows = statement.query([])?;
            let mut lines = Vec::new();
            while let Some(row) = rows.next()? {
                lines.push(match pack_row(row) {
                    Ok(pack) => Ok((pack.no, pack.entry.id, pack.entry.len, pack.staged)),
                    Err(e) if reads_otherwise(&e) => {
                        let name =
                            row.get(1).map_or_else(|_| "without a name".into(), |id| PackId(id).to_string());
                        Err((PackNo(row.get(0)?), name))
                    }
                    Err(e) => return Err(e),
                });
            }
            Ok(lines)
        })
    }

    /// Forgets a pack whose row is damaged, wherever it is said to be: as if it had never been read. The vaults that were said to have it are
    /// to be read again, so that it is found there.
    pub fn forget_damaged_pack(&self, no: PackNo) -> Result<(), StoreError> {
        self.write("forget a pack", |t| {
            let reread = "INSERT OR REPLACE INTO meta(key, value) SELECT 'reread ' || vault, 1 FROM place WHERE pack = ?1";
            t.execute(reread, [no.0])?;
            t.execute("DELETE FROM place WHERE pack = ?1", [no.0])?;
            t.execute("UPDATE pack SET staged = 0 WHERE no = ?1", [no.0])?;
            forget_if_nowhere(t, no)
        })
    }

    /// The pack of the same kind that was added next after this one.
    pub fn next_pack(&self, after: PackNo) -> Result<Option<PackNo>, StoreError> {
        self.read("find a pack", |c| {
            c.prepare_cached(
                "SELECT no FROM pack WHERE no > ?1 AND kind = (SELECT kind FROM pack WHERE no = ?1) ORDER BY no LIMIT 1",
            )?
            .query_row([after.0], |row| Ok(PackNo(row.get(0)?)))
            .optional()
        })
    }

    /// Says whether staging holds a pack, by who put or removed it. One that is nowhere any more is forgotten with its chunks.
    pub fn set_staged(&self, no: PackNo, staged: bool) -> Result<(), StoreError> {
        self.write("mark a pack", |t| {
            t.execute("UPDATE pack SET staged = ?2 WHERE no = ?1", params![no.0, staged])?;
            marks::not_missed(t, no)?;
            if !staged {
                verified::forget(t, no, None)?;
            }
            forget_if_nowhere(t, no)
        })
    }

    /// Says whether a vault holds a pack, by who put or removed it. One that is nowhere any more is forgotten with its chunks.
    pub fn set_confirmed(&self, no: PackNo, vault: VaultNo, confirmed: bool) -> Result<(), StoreError> {
        self.write("mark a pack", |t| {
            let sql = if confirmed {
                "INSERT OR IGNORE INTO place(pack, vault) VALUES (?1, ?2)"
            } else {
                "DELETE FROM place WHERE pack = ?1 AND vault = ?2"
            };
            t.execute(sql, params![no.0, vault.0])?;
            if !confirmed {
                verified::forget(t, no, Some(vault))?;
            }
            forget_if_nowhere(t, no)
        })
    }

    /// Puts down what a pack was seen to hold in place of what the catalog said, if that is anything else: an index object, from which most of it is,
    /// is no more than somebody's word. Whether it was.
    pub fn set_contents(
        &self,
        no: PackNo,
        entry: &PackEntry,
        chunks: &[PackedChunk],
    ) -> Result<bool, StoreError> {
        let known = self.pack(no).and_then(|row| Ok(row.zip(Some(self.chunks_of(no)?))));
        match known {
            Ok(None) => return Ok(false),
            Ok(Some((row, known))) if row.entry == *entry && known == chunks => return Ok(false),
            Ok(Some(_)) => {}
            // Damage of the catalog is told as that.
            Err(e) if e.is_of_changed_catalog() => return Ok(false),
            Err(e) => return Err(e),
        }
        self.write("put a pack right", |t| {
            t.execute("DELETE FROM chunk WHERE pack = ?1", [no.0])?;
            // What index objects say of it is not so: the next one that is written says it.
            t.execute("DELETE FROM index_pack WHERE pack = ?1", [no.0])?;
            let sql = "UPDATE pack SET object_id = ?2, generation = ?3, kind = ?4, len = ?5, frames = ?6, sum = ?7 WHERE id = ?1";
            let changed = put_row(t, sql, entry)?;
            if changed > 0 {
                chunks::insert(t, (no, &entry.id), chunks)?;
            }
            Ok(changed > 0)
        })
    }

    /// Marks a pack as damaged: nothing new relies on it, reading tries its other places first.
    pub fn set_bad(&self, no: PackNo, bad: bool) -> Result<(), StoreError> {
        self.write("mark a pack", |t| {
            t.execute("UPDATE pack SET bad = ?2 WHERE no = ?1", params![no.0, bad]).map(drop)
        })
    }

    /// Whether any pack is marked as damaged, or something that points need may be missing: each chunk must be looked up.
    pub fn has_bad_packs(&self) -> Result<bool, StoreError> {
        let bad = self.read("look for damaged packs", |c| {
            c.query_row("SELECT EXISTS (SELECT 1 FROM pack WHERE bad = 1)", [], |row| row.get(0))
        })?;
        Ok(bad || self.has_mark(Mark::Doubtful)?)
    }
}

fn add_pack(
    t: &rusqlite::Transaction<'_>,
    entry: &PackEntry,
    chunks: &[PackedChunk],
    staged: bool,
    confirmed: Option<VaultNo>,
) -> rusqlite::Result<()> {
    let known: Option<i64> = t
        .prepare_cached("SELECT no FROM pack WHERE id = ?1")?
        .query_row([&entry.id.0[..]], |row| row.get(0))
        .optional()?;
    let no = match known {
        Some(no) => no,
        None => insert_pack(t, entry, chunks)?,
    };
    if staged {
        t.prepare_cached("UPDATE pack SET staged = 1, bad = 0 WHERE no = ?1")?.execute([no])?;
        marks::not_missed(t, PackNo(no))?;
    }
    if let Some(vault) = confirmed {
        t.prepare_cached("INSERT OR IGNORE INTO place(pack, vault) VALUES (?1, ?2)")?
            .execute([no, vault.0])?;
    }
    Ok(())
}

fn insert_pack(
    t: &rusqlite::Transaction<'_>,
    entry: &PackEntry,
    chunks: &[PackedChunk],
) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO pack(id, object_id, generation, kind, len, frames, sum, staged, bad) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0)";
    put_row(t, sql, entry)?;
    let no = t.last_insert_rowid();
    chunks::insert(t, (PackNo(no), &entry.id), chunks)?;
    Ok(no)
}

/// Runs what puts down the row of a pack: its name is parameter 1, and then come the fields that its sum is of.
fn put_row(t: &rusqlite::Transaction<'_>, sql: &str, entry: &PackEntry) -> rusqlite::Result<usize> {
    t.prepare_cached(sql)?.execute(params![
        &entry.id.0[..],
        &entry.object_id.0[..],
        entry.generation,
        entry.kind as u32,
        entry.len.cast_signed(),
        encode_frames(&entry.frames),
        row_sum(entry),
    ])
}

pub(super) fn forget_if_nowhere(t: &rusqlite::Transaction<'_>, no: PackNo) -> rusqlite::Result<()> {
    let gone = t.execute(
        "DELETE FROM pack WHERE no = ?1 AND staged = 0 AND NOT EXISTS (SELECT 1 FROM place WHERE pack = ?1)",
        [no.0],
    )?;
    if gone > 0 {
        t.execute("DELETE FROM chunk WHERE pack = ?1", [no.0])?;
        t.execute("DELETE FROM index_pack WHERE pack = ?1", [no.0])?;
    }
    Ok(())
}

pub(super) fn select_packs(rest: &str) -> String {
    format!("SELECT no, id, object_id, generation, kind, len, frames, staged, sum FROM pack {rest}")
}

pub(super) fn pack_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<PackRow> {
    let kind: u32 = row.get(4)?;
    let frames: Vec<u8> = row.get(6)?;
    let entry = PackEntry {
        id: PackId(row.get(1)?),
        object_id: ObjectId(row.get(2)?),
        generation: row.get(3)?,
        kind: PackKind::from_number(kind).ok_or_else(|| damaged("a pack's kind in the catalog"))?,
        len: row.get::<_, i64>(5)?.cast_unsigned(),
        frames: decode_frames(&frames).map_err(damaged_by)?,
    };
    if row.get::<_, u32>(8)? != row_sum(&entry) {
        return Err(damaged(format!("the catalog's row of pack {}", entry.id)));
    }
    Ok(PackRow { no: PackNo(row.get(0)?), entry, staged: row.get(7)?, vaults: Vec::new() })
}

pub(super) fn with_vaults(c: &Connection, mut row: PackRow) -> rusqlite::Result<PackRow> {
    row.vaults = c
        .prepare_cached("SELECT vault FROM place WHERE pack = ?1 ORDER BY vault")?
        .query_map([row.no.0], |r| Ok(VaultNo(r.get(0)?)))?
        .collect::<Result<_, _>>()?;
    Ok(row)
}

/// Guards a row, as far as no seal does: with other frames a reader would take other bytes of the right pack.
fn row_sum(entry: &PackEntry) -> u32 {
    let numbers = [u64::from(entry.generation), entry.kind as u64, entry.len];
    let sum = crc32c::crc32c_append(crc32c::crc32c(&entry.id.0), &entry.object_id.0);
    let sum = numbers.iter().fold(sum, |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes()));
    crc32c::crc32c_append(sum, &encode_frames(&entry.frames))
}

fn encode_frames(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.len() * 8);
    for frame in frames {
        out.u32(frame.units);
        out.u32(frame.raw_len);
    }
    out
}

fn decode_frames(bytes: &[u8]) -> Result<Vec<Frame>, FormatError> {
    let mut p = Parser::new(bytes);
    let mut frames = Vec::with_capacity(bytes.len() / 8);
    while p.left() > 0 {
        frames.push(Frame { units: p.u32()?, raw_len: p.u32()? });
    }
    Ok(frames)
}
