//! Recovery points in the catalog: kept sealed, as the objects they are.

use rusqlite::{OptionalExtension, params};

use super::{Catalog, VaultNo};
use crate::error::{ErrorClass, StoreError};
use crate::id::{RecoveryPointId, SourceTag};

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

const COLUMNS: &str = "SELECT id, tag, sequence, started, hash, object, staged FROM point";

fn point_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<PointRow> {
    Ok(PointRow {
        id: RecoveryPointId(row.get(0)?),
        tag: SourceTag(row.get(1)?),
        sequence: row.get::<_, i64>(2)?.cast_unsigned(),
        started: row.get(3)?,
        hash: row.get(4)?,
        object: row.get(5)?,
        staged: row.get(6)?,
        vaults: Vec::new(),
    })
}

impl Catalog {
    /// Adds a point, or marks a known one as staged or held by a vault.
    pub fn add_point(&self, point: &PointRow) -> Result<(), StoreError> {
        self.add_points(std::slice::from_ref(point))
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

    /// All points, ascending by start.
    pub fn points(&self) -> Result<Vec<PointRow>, StoreError> {
        self.read("list recovery points", |c| {
            let rows = c
                .prepare_cached(&format!("{COLUMNS} ORDER BY started, id"))?
                .query_map([], point_row)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            rows.into_iter().map(|row| with_places(c, row)).collect()
        })
    }

    /// Ids of all points with a stamp that changes when any of them changes place.
    pub fn point_ids(&self) -> Result<Vec<(RecoveryPointId, bool, u32)>, StoreError> {
        self.read("list recovery points", |c| {
            c.prepare_cached(
                "SELECT id, staged, (SELECT count(*) FROM point_place WHERE point = id) FROM point ORDER BY started, id",
            )?
            .query_map([], |row| Ok((RecoveryPointId(row.get(0)?), row.get(1)?, row.get(2)?)))?
            .collect()
        })
    }

    /// All points without their objects, in no order.
    pub fn point_lines(&self) -> Result<Vec<PointLine>, StoreError> {
        self.read("list recovery points", |c| {
            c.prepare_cached("SELECT id, tag, sequence, started FROM point")?
                .query_map([], |row| {
                    let sequence = row.get::<_, i64>(2)?.cast_unsigned();
                    let (id, tag) = (RecoveryPointId(row.get(0)?), SourceTag(row.get(1)?));
                    Ok(PointLine { id, tag, sequence, started: row.get(3)? })
                })?
                .collect()
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

    /// The newest point of a source by sequence number.
    pub fn newest_point(&self, tag: &SourceTag) -> Result<Option<PointRow>, StoreError> {
        self.read("find the newest recovery point", |c| {
            let row = c
                .prepare_cached(&format!(
                    "{COLUMNS} WHERE tag = ?1 ORDER BY sequence DESC, started DESC LIMIT 1"
                ))?
                .query_row([&tag.0[..]], point_row)
                .optional()?;
            row.map(|row| with_places(c, row)).transpose()
        })
    }

    /// The newest sequence number and hash of every source.
    pub fn heads(&self) -> Result<Vec<(SourceTag, u64, [u8; 32])>, StoreError> {
        self.read("list heads", |c| {
            c.prepare_cached("SELECT tag, max(sequence), hash FROM point GROUP BY tag ORDER BY tag")?
                .query_map([], |row| {
                    Ok((SourceTag(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned(), row.get(2)?))
                })?
                .collect()
        })
    }

    /// Forgets that a point is in staging or, with `vault`, in that vault; where it is nowhere, forgets it wholly.
    pub fn remove_point(&self, id: &RecoveryPointId, vault: Option<VaultNo>) -> Result<(), StoreError> {
        self.write("forget a recovery point", |t| {
            match vault {
                None => t.execute("UPDATE point SET staged = 0 WHERE id = ?1", [&id.0[..]])?,
                Some(v) => t.execute(
                    "DELETE FROM point_place WHERE point = ?1 AND vault = ?2",
                    params![&id.0[..], v.0],
                )?,
            };
            t.execute(
                "DELETE FROM point WHERE id = ?1 AND staged = 0
                 AND NOT EXISTS (SELECT 1 FROM point_place WHERE point = ?1)",
                [&id.0[..]],
            )?;
            touch(t)
        })
    }
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
    t.prepare_cached(
        "INSERT INTO point(id, tag, sequence, started, hash, object, staged) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT(id) DO UPDATE SET staged = max(staged, excluded.staged)",
    )?
    .execute(params![
        &point.id.0[..],
        &point.tag.0[..],
        point.sequence.cast_signed(),
        point.started,
        &point.hash[..],
        &point.object,
        point.staged,
    ])?;
    for vault in &point.vaults {
        t.prepare_cached("INSERT OR IGNORE INTO point_place(point, vault) VALUES (?1, ?2)")?
            .execute(params![&point.id.0[..], vault.0])?;
    }
    Ok(())
}

fn with_places(c: &rusqlite::Connection, mut row: PointRow) -> rusqlite::Result<PointRow> {
    row.vaults = c
        .prepare_cached("SELECT vault FROM point_place WHERE point = ?1 ORDER BY vault")?
        .query_map([&row.id.0[..]], |r| Ok(VaultNo(r.get(0)?)))?
        .collect::<Result<_, _>>()?;
    Ok(row)
}
