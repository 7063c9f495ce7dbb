//! When every byte of a pack was last read and proven, for each place that has it. It goes with the copy that was read: what comes
//! to the same place later is another one, that nobody has read.

use rusqlite::{Transaction, params};

use super::{Catalog, PackNo, VaultNo};
use crate::clock::Timestamp;
use crate::error::StoreError;

/// Stands for staging where others are numbers of vaults, which begin with 1.
const STAGING: i64 = 0;

impl Catalog {
    /// Notes that these packs were proven at `at` (whole seconds are kept), in staging (`None`) or a vault.
    pub fn set_verified(&self, packs: &[(PackNo, Option<VaultNo>)], at: Timestamp) -> Result<(), StoreError> {
        self.write("note what was verified", |t| {
            // A copy that went while others were read is not there to speak of.
            let sql =
                "INSERT OR REPLACE INTO verified(pack, place, at) SELECT no, ?2, ?3 FROM pack WHERE no = ?1
                 AND (?2 = 0 AND staged = 1 OR EXISTS (SELECT 1 FROM place WHERE pack = no AND vault = ?2))";
            let mut insert = t.prepare_cached(sql)?;
            packs.iter().try_for_each(|(no, vault)| {
                insert.execute(params![no.0, vault.map_or(STAGING, |vault| vault.0), at.seconds]).map(drop)
            })
        })
    }

    /// Forgets it of a pack in a place where it was found damaged.
    pub fn clear_verified(&self, no: PackNo, vault: Option<VaultNo>) -> Result<(), StoreError> {
        self.write("note what was verified", |t| forget(t, no, vault))
    }

    /// When a pack was last proven in any place that still has it; `None` if it never was.
    pub fn verified(&self, no: PackNo) -> Result<Option<Timestamp>, StoreError> {
        self.read("look when a pack was verified", |c| {
            let at: Option<i64> = c
                .prepare_cached(
                    "SELECT max(at) FROM verified v JOIN pack ON no = v.pack WHERE v.pack = ?1 AND (place = 0 AND staged = 1
                     OR EXISTS (SELECT 1 FROM place p WHERE p.pack = v.pack AND p.vault = v.place))",
                )?
                .query_row([no.0], |row| row.get(0))?;
            Ok(at.map(Timestamp::from_seconds))
        })
    }
}

/// The copy of a pack that is in staging or a vault is not there any more.
pub(super) fn forget(t: &Transaction<'_>, no: PackNo, vault: Option<VaultNo>) -> rusqlite::Result<()> {
    let place = vault.map_or(STAGING, |vault| vault.0);
    t.prepare_cached("DELETE FROM verified WHERE pack = ?1 AND place = ?2")?
        .execute(params![no.0, place])
        .map(drop)
}

/// The same of all copies in a vault.
pub(super) fn forget_all_in(t: &Transaction<'_>, vault: VaultNo) -> rusqlite::Result<()> {
    t.execute("DELETE FROM verified WHERE place = ?1", [vault.0]).map(drop)
}
