//! Holds in the catalog, sealed as the objects they are, and the places that have them. A point is held as long as any place has a hold
//! of it.

use rusqlite::params;

use super::{Catalog, VaultNo};
use crate::error::StoreError;
use crate::id::{RecoveryPointId, SourceTag};

/// A hold as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRow {
    /// The point.
    pub point: RecoveryPointId,
    /// Source of the point.
    pub tag: SourceTag,
    /// The sealed object.
    pub object: Vec<u8>,
    /// Whether staging has it.
    pub staged: bool,
    /// Vaults that have it.
    pub vaults: Vec<VaultNo>,
}

impl Catalog {
    /// Adds a hold, or marks a known one as being in more places.
    pub fn add_hold(&self, hold: &HoldRow) -> Result<(), StoreError> {
        self.write("add a hold", |t| {
            t.execute(
                "INSERT INTO hold(point, tag, object, staged) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT(point) DO UPDATE SET staged = max(staged, ?4)",
                params![&hold.point.0[..], &hold.tag.0[..], hold.object, hold.staged],
            )?;
            for vault in &hold.vaults {
                let sql = "INSERT OR IGNORE INTO hold_place(point, vault) VALUES (?1, ?2)";
                t.execute(sql, params![&hold.point.0[..], vault.0])?;
            }
            Ok(())
        })
    }

    /// Forgets that a hold is in staging or, with `vault`, in that vault; where it is nowhere, forgets it wholly.
    pub fn remove_hold(&self, point: &RecoveryPointId, vault: Option<VaultNo>) -> Result<(), StoreError> {
        self.write("forget a hold", |t| {
            match vault {
                None => t.execute("UPDATE hold SET staged = 0 WHERE point = ?1", [&point.0[..]])?,
                Some(v) => t.execute(
                    "DELETE FROM hold_place WHERE point = ?1 AND vault = ?2",
                    params![&point.0[..], v.0],
                )?,
            };
            forget_holds_that_are_nowhere(t)
        })
    }

    /// All holds, ascending by point.
    pub fn holds(&self) -> Result<Vec<HoldRow>, StoreError> {
        self.read("list holds", |c| {
            let mut select =
                c.prepare_cached("SELECT point, tag, object, staged FROM hold ORDER BY point")?;
            let rows = select.query_map([], |row| {
                let (point, tag) = (RecoveryPointId(row.get(0)?), SourceTag(row.get(1)?));
                let mut places =
                    c.prepare_cached("SELECT vault FROM hold_place WHERE point = ?1 ORDER BY vault")?;
                let vaults = places.query_map([&point.0[..]], |row| Ok(VaultNo(row.get(0)?)))?;
                let vaults = vaults.collect::<rusqlite::Result<_>>()?;
                Ok(HoldRow { point, tag, object: row.get(2)?, staged: row.get(3)?, vaults })
            })?;
            rows.collect()
        })
    }

    /// Whether a point is held.
    pub fn is_held(&self, point: &RecoveryPointId) -> Result<bool, StoreError> {
        self.read("look for a hold", |c| {
            let sql = "SELECT EXISTS (SELECT 1 FROM hold WHERE point = ?1)";
            c.prepare_cached(sql)?.query_row([&point.0[..]], |row| row.get(0))
        })
    }
}

/// Also where a vault is forgotten.
pub(super) fn forget_holds_that_are_nowhere(t: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    let nowhere = "staged = 0 AND NOT EXISTS (SELECT 1 FROM hold_place WHERE hold_place.point = hold.point)";
    t.execute(&format!("DELETE FROM hold WHERE {nowhere}"), []).map(drop)
}
