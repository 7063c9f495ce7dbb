//! Index objects in the catalog: which packs each covers, and in which vaults it lies.

use rusqlite::params;

use super::{Catalog, PackNo, VaultNo};
use crate::error::StoreError;
use crate::id::{IndexId, PackId};

impl Catalog {
    /// Records an index object and the packs it covers.
    pub fn add_index(
        &self,
        id: &IndexId,
        packs: &[PackId],
        vault: Option<VaultNo>,
    ) -> Result<(), StoreError> {
        self.write("add an index object", |t| {
            t.execute("INSERT OR IGNORE INTO index_object(id) VALUES (?1)", [&id.0[..]])?;
            let no: i64 =
                t.query_row("SELECT no FROM index_object WHERE id = ?1", [&id.0[..]], |row| row.get(0))?;
            for pack in packs {
                t.execute(
                    "INSERT OR IGNORE INTO index_pack(idx, pack) SELECT ?1, no FROM pack WHERE id = ?2",
                    params![no, &pack.0[..]],
                )?;
            }
            if let Some(vault) = vault {
                t.execute(
                    "INSERT OR IGNORE INTO index_place(idx, vault) VALUES (?1, ?2)",
                    params![no, vault.0],
                )?;
            }
            Ok(())
        })
    }

    /// Index objects known, with those of `vault` only if one is given.
    pub fn index_objects(&self, vault: Option<VaultNo>) -> Result<Vec<IndexId>, StoreError> {
        self.read("list index objects", |c| {
            c.prepare_cached(
                "SELECT id FROM index_object WHERE ?1 IS NULL OR no IN (SELECT idx FROM index_place WHERE vault = ?1)",
            )?
            .query_map([vault.map(|v| v.0)], |row| Ok(IndexId(row.get(0)?)))?
            .collect()
        })
    }

    /// Index objects that cover no pack any more and lie in no vault.
    pub fn empty_indexes(&self) -> Result<Vec<IndexId>, StoreError> {
        self.read("list index objects", |c| {
            c.prepare_cached(
                "SELECT id FROM index_object WHERE no NOT IN (SELECT idx FROM index_pack)
                 AND no NOT IN (SELECT idx FROM index_place)",
            )?
            .query_map([], |row| Ok(IndexId(row.get(0)?)))?
            .collect()
        })
    }

    /// Forgets an index object.
    pub fn remove_index(&self, id: &IndexId) -> Result<(), StoreError> {
        self.write("forget an index object", |t| {
            t.execute("DELETE FROM index_object WHERE id = ?1", [&id.0[..]]).map(drop)
        })
    }

    /// Packs that no index object covers, in `vault` or at all.
    pub fn packs_without_index(&self, vault: Option<VaultNo>) -> Result<Vec<PackNo>, StoreError> {
        self.read("list packs without index", |c| {
            let sql = match vault {
                None => "SELECT no FROM pack WHERE no NOT IN (SELECT pack FROM index_pack) AND ?1 IS NULL",
                Some(_) => {
                    "SELECT p.pack FROM place p WHERE p.vault = ?1 AND p.pack NOT IN (SELECT ip.pack FROM index_pack ip
                     JOIN index_place pl ON pl.idx = ip.idx WHERE pl.vault = ?1)"
                }
            };
            c.prepare_cached(sql)?.query_map([vault.map(|v| v.0)], |row| Ok(PackNo(row.get(0)?)))?.collect()
        })
    }
}
