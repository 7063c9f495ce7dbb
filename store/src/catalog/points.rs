//! Recovery points in the catalog: kept sealed, as the objects they are.
//!
//! A row says of its point what is needed to put points in order without opening them, and nothing that its object does not say. Its
//! `sum` guards that, with the id, and its `hash` guards the object; a row of which either is wrong is told as damage or passed over,
//! and never believed. Whether and where a point is kept is not guarded: listings of the places say that.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, params};

use super::{Catalog, VaultNo, damaged, marks, reads_otherwise};
use crate::error::{ErrorClass, StoreError};
use crate::id::{RecoveryPointId, SourceTag, to_hex};

/// A point as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointRow {
    /// Identity.
    pub id: RecoveryPointId,
    /// Source.
    pub tag: SourceTag,
    /// Sequence number within the source.
    pub sequence: u64,
    /// Seconds, source machine's clock.
    pub started: i64,
    /// BLAKE3 of `object`.
    pub hash: [u8; 32],
    /// The sealed object.
    pub object: Vec<u8>,
    /// Whether staging holds it.
    pub staged: bool,
    /// Vaults that hold it.
    pub vaults: Vec<VaultNo>,
}

/// Of a point what the catalog knows without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointLine {
    /// Identity.
    pub id: RecoveryPointId,
    /// Source.
    pub tag: SourceTag,
    /// Sequence number within the source.
    pub sequence: u64,
    /// Seconds, source machine's clock.
    pub started: i64,
}

/// A row that is not what was written: nothing in it is to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPoint {
    /// The bytes under which it stands in the catalog: the id's, unless these are what is damaged.
    pub key: Option<Vec<u8>>,
    /// The source that it names, if it names one.
    pub tag: Option<SourceTag>,
    /// Whether it says that staging holds the point.
    pub staged: bool,
    /// Vaults that are said to hold it.
    pub vaults: Vec<VaultNo>,
    /// What stands where the sealed object stood.
    pub object: Vec<u8>,
}

impl DamagedPoint {
    /// The id of the point, unless that is what is damaged.
    pub fn id(&self) -> Option<RecoveryPointId> {
        self.key.as_deref()?.try_into().ok().map(RecoveryPointId)
    }
}

const LINE: &str = "SELECT id, tag, sequence, started, hash, sum, CAST(id AS BLOB) FROM point";
const COLUMNS: &str =
    "SELECT id, tag, sequence, started, hash, sum, CAST(id AS BLOB), staged, object FROM point";
// One bit makes text of the key of a row, which no look for the id finds. All rows are read for it.
const WITH_KEY: &str = "CAST(id AS BLOB) IS ?1";

type Hash = [u8; 32];

/// The first columns of a row, if they are what was written.
fn point_line(row: &Row<'_>) -> rusqlite::Result<(PointLine, Hash)> {
    let read = || {
        let line = PointLine {
            id: RecoveryPointId(row.get(0)?),
            tag: SourceTag(row.get(1)?),
            sequence: row.get::<_, i64>(2)?.cast_unsigned(),
            started: row.get(3)?,
        };
        Ok((line, row.get(4)?, row.get::<_, u32>(5)?))
    };
    match read() {
        Ok((line, hash, sum)) if sum == row_sum(&line, &hash) => Ok((line, hash)),
        Err(e) if !reads_otherwise(&e) => Err(e),
        _ => Err(damaged_row(row)),
    }
}

fn point_row(row: &Row<'_>) -> rusqlite::Result<PointRow> {
    let (PointLine { id, tag, sequence, started }, hash) = point_line(row)?;
    let object = row.get_ref(8)?.as_blob().unwrap_or_default();
    if *blake3::hash(object).as_bytes() != hash {
        return Err(damaged_row(row));
    }
    let (staged, vaults) = (is_true(row, 7)?, Vec::new());
    Ok(PointRow { id, tag, sequence, started, hash, object: object.to_vec(), staged, vaults })
}

fn damaged_row(row: &Row<'_>) -> rusqlite::Error {
    let key = row.get_ref(6).ok().and_then(|key| key.as_bytes().ok()).map(to_hex).unwrap_or_default();
    damaged(format!("the catalog's row of recovery point {key}"))
}

/// Whether a row is what was written, or could not be read at all.
fn is_sound<T>(row: &rusqlite::Result<T>) -> bool {
    row.as_ref().err().is_none_or(|e| !reads_otherwise(e))
}

/// No row is lost for what is not guarded in it.
fn is_true(row: &Row<'_>, column: usize) -> rusqlite::Result<bool> {
    Ok(row.get_ref(column)?.as_i64().is_ok_and(|number| number != 0))
}

fn row_sum(line: &PointLine, hash: &Hash) -> u32 {
    let numbers = [line.sequence.to_le_bytes(), line.started.to_le_bytes()];
    let parts: [&[u8]; 5] = [&line.id.0, &line.tag.0, &numbers[0], &numbers[1], hash];
    parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part))
}

fn sum_of(point: &PointRow) -> u32 {
    let PointRow { id, tag, sequence, started, .. } = *point;
    row_sum(&PointLine { id, tag, sequence, started }, &point.hash)
}

impl Catalog {
    /// Adds a point, or marks a known one as staged or held by a vault.
    pub fn add_point(&self, point: &PointRow) -> Result<(), StoreError> {
        self.add_points(std::slice::from_ref(point))
    }

    /// Marks a point as held by a vault that has all it needs, unless packs were missed there since `losses` was read: `false`, and nothing
    /// is marked.
    pub fn add_pushed(&self, point: &PointRow, no: VaultNo, losses: i64) -> Result<bool, StoreError> {
        self.write("add a recovery point", |t| {
            if marks::losses(t, no)? != losses {
                return Ok(false);
            }
            add_point(t, &PointRow { staged: false, vaults: vec![no], ..point.clone() })?;
            marks::set_proven_point(t, no, &point.tag, &point.id)?;
            touch(t).map(|()| true)
        })
    }

    /// The same for many, all or none.
    pub fn add_points(&self, points: &[PointRow]) -> Result<(), StoreError> {
        self.write("add recovery points", |t| {
            points.iter().try_for_each(|point| add_point(t, point))?;
            touch(t)
        })
    }

    /// A number that moves whenever a point comes, goes or changes place: whoever follows the points reads this and no more.
    pub fn points_stamp(&self) -> Result<i64, StoreError> {
        if self.is_replaced() {
            return Err(StoreError::Catalog {
                detail: "another one stands in its place: what is mounted stays as it is, mount again to see what is new".into(),
                class: ErrorClass::Unavailable,
            });
        }
        self.read("look for recovery points", |c| {
            c.prepare_cached("SELECT value FROM meta WHERE key = 'points'")?
                .query_row([], |row| row.get(0))
                .optional()
                .map(Option::unwrap_or_default)
        })
    }

    /// All points, ascending by start. One whose row is damaged is an error: who must not miss any asks here.
    pub fn points(&self) -> Result<Vec<PointRow>, StoreError> {
        self.point_rows(|_| true)
    }

    /// The same without those whose rows are damaged.
    pub fn sound_points(&self) -> Result<Vec<PointRow>, StoreError> {
        self.point_rows(is_sound)
    }

    fn point_rows(
        &self,
        wanted: impl Fn(&rusqlite::Result<PointRow>) -> bool,
    ) -> Result<Vec<PointRow>, StoreError> {
        self.read("list recovery points", |c| {
            let mut select = c.prepare_cached(COLUMNS)?;
            let rows = select.query_map([], point_row)?.filter(wanted);
            let rows = rows.map(|row| with_places(c, row?));
            let mut rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            rows.sort_by_key(|row| (row.started, row.id));
            Ok(rows)
        })
    }

    /// Ids of all points, whatever else is in their rows, and whether staging holds them; in no order.
    pub fn point_ids(&self) -> Result<Vec<(RecoveryPointId, bool)>, StoreError> {
        self.read("list recovery points", |c| {
            let mut select = c.prepare_cached("SELECT CAST(id AS BLOB), staged FROM point")?;
            let mut rows = select.query([])?;
            let mut ids = Vec::new();
            while let Some(row) = rows.next()? {
                if let Ok(id) = row.get(0) {
                    ids.push((RecoveryPointId(id), is_true(row, 1)?));
                }
            }
            Ok(ids)
        })
    }

    /// All points without their objects, in no order, without those whose rows are damaged.
    pub fn point_lines(&self) -> Result<Vec<PointLine>, StoreError> {
        Ok(self.lines()?.into_iter().map(|(line, _)| line).collect())
    }

    /// Lines and hashes of the points that are said to be in a vault, in no order, without those whose rows are damaged.
    pub fn lines_in(&self, vault: VaultNo) -> Result<Vec<(PointLine, [u8; 32])>, StoreError> {
        self.read("list recovery points", |c| {
            let there =
                "EXISTS (SELECT 1 FROM point_place WHERE point_place.point = point.id AND vault = ?1)";
            let mut select = c.prepare_cached(&format!("{LINE} WHERE {there}"))?;
            let lines = select.query_map([vault.0], point_line)?;
            lines.filter(is_sound).collect()
        })
    }

    fn lines(&self) -> Result<Vec<(PointLine, Hash)>, StoreError> {
        self.read("list recovery points", |c| {
            let mut select = c.prepare_cached(LINE)?;
            let lines = select.query_map([], point_line)?;
            lines.filter(is_sound).collect()
        })
    }

    /// Rows that are not what was written. Unless `objects` are looked at, too, only what guards the rest of a row is.
    pub fn damaged_points(&self, objects: bool) -> Result<Vec<DamagedPoint>, StoreError> {
        self.read("look for damaged recovery points", |c| {
            let mut select = c.prepare_cached(if objects { COLUMNS } else { LINE })?;
            let mut rows = select.query([])?;
            let mut keys: Vec<Option<Vec<u8>>> = Vec::new();
            while let Some(row) = rows.next()? {
                let read = if objects { point_row(row).map(drop) } else { point_line(row).map(drop) };
                match read {
                    Err(e) if reads_otherwise(&e) => keys.push(row.get(6)?),
                    read => read?,
                }
            }
            let found = keys.iter().map(|key| damaged_point(c, key.as_deref()).optional());
            found.filter_map(Result::transpose).collect()
        })
    }

    /// The row of a point as it stands there, whatever is in it.
    pub fn damaged_point(&self, id: &RecoveryPointId) -> Result<Option<DamagedPoint>, StoreError> {
        self.read("read a recovery point", |c| damaged_point(c, Some(&id.0)).optional())
    }

    /// Whether a row is still there as it was looked at.
    pub fn stands(&self, point: &DamagedPoint) -> Result<bool, StoreError> {
        let now =
            self.read("read a recovery point", |c| damaged_point(c, point.key.as_deref()).optional())?;
        Ok(now.as_ref() == Some(point))
    }

    /// Puts right what a row says of its point, unless another process removed it meanwhile. Where the point is kept is not taken from who
    /// looked at the row a while ago: it may be known better by now.
    pub fn mend_point(&self, point: &PointRow) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE OR IGNORE point SET id = ?1, tag = ?2, sequence = ?3, started = ?4, hash = ?5, sum = ?6, object = ?7,
             staged = (SELECT max(staged) FROM point WHERE {WITH_KEY}) WHERE {WITH_KEY}"
        );
        let (id, tag, sequence) = (&point.id.0[..], &point.tag.0[..], point.sequence.cast_signed());
        let (hash, sum) = (&point.hash[..], sum_of(point));
        self.write("mend a recovery point", |t| {
            t.execute(&sql, params![id, tag, sequence, point.started, hash, sum, &point.object])?;
            // The point was added anew while one bit hid its row.
            t.execute(&format!("DELETE FROM point WHERE {WITH_KEY} AND id IS NOT ?1"), [id])?;
            touch(t)
        })
    }

    /// Forgets a row that is of no point, or of one that is nowhere, unless it was put right meanwhile. What it was before, nobody knows for
    /// sure: a point that only a vault has is found again in the vault.
    pub fn drop_damaged_point(&self, point: &DamagedPoint) -> Result<(), StoreError> {
        self.write("forget a recovery point", |t| {
            let same = format!("{WITH_KEY} AND coalesce(CAST(object AS BLOB), x'') = ?2");
            t.execute(&format!("DELETE FROM point WHERE {same}"), params![point.key, point.object])?;
            marks::forget_incomplete_without_point(t)?;
            marks::reread_all(t)?;
            touch(t)
        })
    }

    /// One point.
    pub fn point(&self, id: &RecoveryPointId) -> Result<Option<PointRow>, StoreError> {
        self.read("read a recovery point", |c| {
            let row = c
                .prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?
                .query_row([&id.0[..]], point_row)
                .optional()?;
            row.map(|row| with_places(c, row)).transpose()
        })
    }

    /// Those of these points that are known, in their order.
    pub fn known_of<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a RecoveryPointId>,
    ) -> Result<Vec<PointRow>, StoreError> {
        ids.into_iter().filter_map(|id| self.point(id).transpose()).collect()
    }

    /// The newest point of a source by sequence number, of those whose rows are not damaged.
    pub fn newest_id(&self, tag: &SourceTag) -> Result<Option<RecoveryPointId>, StoreError> {
        let of_source = self.point_lines()?.into_iter().filter(|line| line.tag == *tag);
        let newest = of_source.max_by_key(|line| (line.sequence, line.started, line.id));
        Ok(newest.map(|line| line.id))
    }

    /// The newest sequence number and hash of every source.
    pub fn heads(&self) -> Result<Vec<(SourceTag, u64, [u8; 32])>, StoreError> {
        let mut heads = BTreeMap::new();
        for (line, hash) in self.lines()? {
            let this = (line.sequence, line.started, line.id, hash);
            let head = heads.entry(line.tag).or_insert(this);
            *head = this.max(*head);
        }
        Ok(heads.into_iter().map(|(tag, (sequence, _, _, hash))| (tag, sequence, hash)).collect())
    }

    /// Notes that a known point lacks something in a vault that shows it, or that had it: it does not count as there while another place has it.
    pub fn doubt_point(&self, id: &RecoveryPointId, no: VaultNo) -> Result<(), StoreError> {
        self.write("doubt a recovery point", |t| doubt_point(t, id, no))
    }

    /// Adds a point of a vault that was said to lack something there, and does.
    pub fn add_doubted(&self, point: &PointRow, no: VaultNo) -> Result<(), StoreError> {
        self.write("add a recovery point", |t| {
            add_point(t, point)?;
            doubt_point(t, &point.id, no)
        })
    }

    /// Forgets that a point is in staging or, with `vault`, in that vault. One that is nowhere then counts as there again where it lacks
    /// something; if that is nowhere, either, it is forgotten wholly.
    pub fn remove_point(&self, id: &RecoveryPointId, vault: Option<VaultNo>) -> Result<(), StoreError> {
        self.write("forget a recovery point", |t| {
            match vault {
                None => t.execute("UPDATE point SET staged = 0 WHERE id = ?1", [&id.0[..]])?,
                Some(v) => t.execute(
                    "DELETE FROM point_place WHERE point = ?1 AND vault = ?2",
                    params![&id.0[..], v.0],
                )?,
            };
            marks::went_or_came(t, id, vault)?;
            forget_where_nowhere(t, Some(id))?;
            touch(t)
        })
    }
}

fn doubt_point(t: &rusqlite::Transaction<'_>, id: &RecoveryPointId, no: VaultNo) -> rusqlite::Result<()> {
    let is_known: bool = t
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM point WHERE id = ?1)")?
        .query_row([&id.0[..]], |row| row.get(0))?;
    if !is_known {
        return Ok(());
    }
    t.prepare_cached(
        "DELETE FROM point_place WHERE point = ?1 AND vault = ?2
         AND (EXISTS (SELECT 1 FROM point WHERE id = ?1 AND staged <> 0)
              OR EXISTS (SELECT 1 FROM point_place WHERE point = ?1 AND vault <> ?2))",
    )?
    .execute(params![&id.0[..], no.0])?;
    marks::note_incomplete(t, id, no)?;
    touch(t)
}

/// Forgets a point that is in no place, or all such. One that lacks something in a vault counts as there again.
pub(super) fn forget_where_nowhere(
    t: &rusqlite::Transaction<'_>,
    only: Option<&RecoveryPointId>,
) -> rusqlite::Result<()> {
    let which = only.map_or("", |_| "id = ?1 AND");
    let nowhere = format!("{which} staged = 0 AND NOT EXISTS (SELECT 1 FROM point_place WHERE point = id)");
    let is_incomplete =
        "EXISTS (SELECT 1 FROM meta WHERE key = 'incomplete ' || no || ' ' || lower(hex(id)))";
    let again = format!(
        "INSERT INTO point_place(point, vault) SELECT id, no FROM point, vault WHERE {nowhere} AND {is_incomplete}"
    );
    for sql in [again, format!("DELETE FROM point WHERE {nowhere}")] {
        t.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(only.map(|id| &id.0[..])))?;
    }
    Ok(())
}

/// Moves [`Catalog::points_stamp`].
pub(super) fn touch(t: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    t.prepare_cached(
        "INSERT INTO meta(key, value) VALUES ('points', 1) ON CONFLICT(key) DO UPDATE SET value = value + 1",
    )?
    .execute([])
    .map(drop)
}

fn add_point(t: &rusqlite::Transaction<'_>, point: &PointRow) -> rusqlite::Result<()> {
    let PointRow { id, tag, sequence, started, .. } = *point;
    // What a row said before may be damaged; what is added was opened.
    t.prepare_cached(
        "INSERT INTO point(id, tag, sequence, started, hash, sum, staged, object) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT(id) DO UPDATE SET tag = ?2, sequence = ?3, started = ?4, hash = ?5, sum = ?6, staged = max(staged, ?7), object = ?8",
    )?
    .execute(params![
        &id.0[..],
        &tag.0[..],
        sequence.cast_signed(),
        started,
        &point.hash[..],
        sum_of(point),
        point.staged,
        &point.object,
    ])?;
    for vault in &point.vaults {
        t.prepare_cached("INSERT OR IGNORE INTO point_place(point, vault) VALUES (?1, ?2)")?
            .execute(params![&point.id.0[..], vault.0])?;
        marks::went_or_came(t, &point.id, Some(*vault))?;
    }
    if point.staged { marks::went_or_came(t, &point.id, None) } else { Ok(()) }
}

fn with_places(c: &rusqlite::Connection, mut row: PointRow) -> rusqlite::Result<PointRow> {
    row.vaults = places_of(c, &row.id.0)?;
    Ok(row)
}

fn places_of(c: &rusqlite::Connection, point: &[u8]) -> rusqlite::Result<Vec<VaultNo>> {
    c.prepare_cached("SELECT vault FROM point_place WHERE point = ?1 ORDER BY vault")?
        .query_map([point], |r| Ok(VaultNo(r.get(0)?)))?
        .collect()
}

fn damaged_point(c: &rusqlite::Connection, key: Option<&[u8]>) -> rusqlite::Result<DamagedPoint> {
    let sql = format!("SELECT tag, staged, CAST(object AS BLOB) FROM point WHERE {WITH_KEY}");
    let mut found = c.prepare_cached(&sql)?.query_row([key], |row| {
        let (tag, staged) = (row.get(0).ok().map(SourceTag), is_true(row, 1)?);
        let object = row.get::<_, Option<_>>(2)?.unwrap_or_default();
        Ok(DamagedPoint { key: key.map(<[u8]>::to_vec), tag, staged, vaults: Vec::new(), object })
    })?;
    found.vaults = places_of(c, key.unwrap_or_default())?;
    Ok(found)
}
