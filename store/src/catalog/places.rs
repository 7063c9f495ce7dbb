//! Where packs and index objects lie: what a listing may take away from the catalog, and what is known of each vault.
//!
//! A listing only takes away the belief that a pack is in that place. What the pack holds stays known, though nothing
//! relies on it and nobody reads from it, until it shows up again: a disk that was not mounted comes back. Only who
//! removes a pack on purpose has it forgotten.

use std::collections::{HashMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::packs::{forget_if_nowhere, pack_row, select_packs, with_vaults};
use super::{Catalog, PackNo, PackRow, VaultNo, holds, marks, points, verified};
use crate::error::StoreError;
use crate::id::{IndexId, PackId};

/// Of a row of `pack`: it is in staging or in some vault.
pub(super) const SOMEWHERE: &str =
    "(pack.staged = 1 OR EXISTS (SELECT 1 FROM place WHERE place.pack = pack.no))";

fn miss_confirmed(t: &rusqlite::Transaction<'_>, no: PackNo, vault: VaultNo) -> rusqlite::Result<()> {
    t.prepare_cached("DELETE FROM place WHERE pack = ?1 AND vault = ?2")?.execute(params![no.0, vault.0])?;
    verified::forget(t, no, Some(vault))
}

impl Catalog {
    /// Number of a vault by its address; made if it is new. A known one is not written: a full disk must not keep anybody from reading.
    pub fn vault_no(&self, address: &str) -> Result<VaultNo, StoreError> {
        const FIND: &str = "SELECT no FROM vault WHERE address = ?1";
        let no = |row: &rusqlite::Row<'_>| Ok(VaultNo(row.get(0)?));
        let known = self.read("find a vault", |c| c.query_row(FIND, [address], no).optional())?;
        if let Some(known) = known {
            return Ok(known);
        }
        self.write("register a vault", |t| {
            t.execute("INSERT OR IGNORE INTO vault(address) VALUES (?1)", [address])?;
            t.query_row(FIND, [address], no)
        })
    }

    /// A listing of staging does not show a pack, or not with its length.
    pub fn miss_staged(&self, no: PackNo) -> Result<(), StoreError> {
        self.write("mark a pack", |t| {
            t.execute("UPDATE pack SET staged = 0, bad = 0 WHERE no = ?1", [no.0])?;
            let missed = "INSERT OR REPLACE INTO meta(key, value) SELECT 'missed ' || lower(hex(id)), 1 FROM pack WHERE no = ?1";
            t.execute(missed, [no.0])?;
            verified::forget(t, no, None)
        })
    }

    /// Nothing here relies on a pack of staging any more: it goes. What it holds is known until it is gone.
    pub fn leave_staging(&self, no: PackNo) -> Result<(), StoreError> {
        self.write("mark a pack", |t| t.execute("UPDATE pack SET staged = 0 WHERE no = ?1", [no.0]).map(drop))
    }

    /// A listing of a vault does not show these packs, or not with their lengths. All or none; the number of losses by then.
    pub fn miss_listed(&self, packs: &[PackNo], vault: VaultNo) -> Result<i64, StoreError> {
        self.write("mark packs", |t| {
            packs.iter().try_for_each(|no| miss_confirmed(t, *no, vault))?;
            marks::note_loss(t, vault)
        })
    }

    /// Nothing here relies on a pack in a vault any more: it is put anew, or goes.
    pub fn miss_confirmed(&self, no: PackNo, vault: VaultNo) -> Result<(), StoreError> {
        self.write("mark a pack", |t| miss_confirmed(t, no, vault))
    }

    /// The packs that a vault is said to hold.
    pub fn packs_in(&self, vault: VaultNo) -> Result<HashSet<PackNo>, StoreError> {
        self.read("list packs", |c| {
            let sql = "SELECT pack FROM place WHERE vault = ?1";
            c.prepare_cached(sql)?.query_map([vault.0], |row| Ok(PackNo(row.get(0)?)))?.collect()
        })
    }

    /// The same by name.
    pub fn pack_names_in(&self, vault: VaultNo) -> Result<HashMap<PackId, PackNo>, StoreError> {
        self.read("list packs", |c| {
            let sql = "SELECT p.id, p.no FROM place JOIN pack p ON p.no = place.pack WHERE place.vault = ?1";
            let named = |row: &rusqlite::Row<'_>| Ok((PackId(row.get(0)?), PackNo(row.get(1)?)));
            c.prepare_cached(sql)?.query_map([vault.0], named)?.collect()
        })
    }

    /// All packs of which anything is known, also those that are nowhere now, ascending by number.
    pub fn packs_ever_seen(&self) -> Result<Vec<PackRow>, StoreError> {
        self.read("list packs", |c| {
            let rows: Vec<PackRow> = c
                .prepare_cached(&select_packs("ORDER BY no"))?
                .query_map([], pack_row)?
                .collect::<Result<_, _>>()?;
            rows.into_iter().map(|row| with_vaults(c, row)).collect()
        })
    }

    /// Whether a pack is known that is nowhere now.
    pub fn misses_packs(&self) -> Result<bool, StoreError> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM pack WHERE NOT {SOMEWHERE})");
        self.read("look for packs", |c| c.prepare_cached(&sql)?.query_row([], |row| row.get(0)))
    }

    /// Forgets a pack that is nowhere now, with its chunks. If it shows up again it is read anew.
    pub fn forget_missed(&self, no: PackNo) -> Result<(), StoreError> {
        self.write("forget a pack", |t| forget_if_nowhere(t, no))
    }

    /// Packs that are marked as damaged.
    pub fn bad_packs(&self) -> Result<HashSet<PackNo>, StoreError> {
        self.read("look for damaged packs", |c| {
            let sql = "SELECT no FROM pack WHERE bad = 1";
            c.prepare_cached(sql)?.query_map([], |row| Ok(PackNo(row.get(0)?)))?.collect()
        })
    }

    /// Addresses of all vaults that hold something, or that there was a way to; ascending by number.
    pub fn vaults(&self) -> Result<Vec<(VaultNo, String)>, StoreError> {
        self.read("list vaults", |c| {
            let sql = "SELECT no, address FROM vault ORDER BY no";
            c.prepare_cached(sql)?.query_map([], |row| Ok((VaultNo(row.get(0)?), row.get(1)?)))?.collect()
        })
    }

    /// Address of a vault; its number where even that is unknown.
    pub fn vault_address(&self, no: VaultNo) -> String {
        let known = self.vaults().unwrap_or_default();
        let found = known.into_iter().find(|vault| vault.0 == no).map(|vault| vault.1);
        found.unwrap_or_else(|| format!("number {}", no.0))
    }

    /// Forgets what a vault holds. Points and packs that are nowhere else are not known any more; the vault keeps them.
    pub fn forget_vault(&self, vault: VaultNo) -> Result<(), StoreError> {
        self.write("forget a vault", |t| {
            for table in ["place", "index_place", "point_place", "generation", "hold_place"] {
                t.execute(&format!("DELETE FROM {table} WHERE vault = ?1"), [vault.0])?;
            }
            verified::forget_all_in(t, vault)?;
            for keys in [
                "filled ?",
                "reread ?",
                "proven ? *",
                "bad ? *",
                "notshown ? *",
                "revoked ? *",
                "session ? *",
                "open before ?",
                "ahead ? *",
                "held ? *",
                "going ? *",
                "incomplete ? *",
                "witness ?",
            ] {
                let keys = keys.replacen('?', &vault.0.to_string(), 1);
                t.execute("DELETE FROM meta WHERE key GLOB ?1", [keys])?;
            }
            points::forget_where_nowhere(t, None)?;
            holds::forget_holds_that_are_nowhere(t)?;
            points::touch(t)
        })
    }

    /// Index objects of a vault of whose packs it has none any more, nor may have again what is only missed.
    pub fn empty_indexes_of(&self, vault: VaultNo) -> Result<Vec<IndexId>, StoreError> {
        self.read("list index objects", |c| {
            c.prepare_cached(&format!(
                "SELECT i.id FROM index_object i JOIN index_place ip ON ip.idx = i.no WHERE ip.vault = ?1
                 AND NOT EXISTS (SELECT 1 FROM index_pack x JOIN pack ON pack.no = x.pack WHERE x.idx = i.no
                   AND (EXISTS (SELECT 1 FROM place WHERE place.pack = x.pack AND vault = ?1) OR NOT {SOMEWHERE}))",
            ))?
            .query_map([vault.0], |row| Ok(IndexId(row.get(0)?)))?
            .collect()
        })
    }

    /// An index object is not in a vault any more.
    pub fn remove_index_from(&self, id: &IndexId, vault: VaultNo) -> Result<(), StoreError> {
        self.write("forget an index object", |t| {
            let sql = "DELETE FROM index_place WHERE vault = ?2 AND idx = (SELECT no FROM index_object WHERE id = ?1)";
            t.execute(sql, params![&id.0[..], vault.0])?;
            // One that is also in staging covers packs there.
            t.execute(
                "DELETE FROM index_object WHERE id = ?1 AND no NOT IN (SELECT idx FROM index_place)
                 AND no NOT IN (SELECT idx FROM index_pack)",
                [&id.0[..]],
            )
            .map(drop)
        })
    }
}
