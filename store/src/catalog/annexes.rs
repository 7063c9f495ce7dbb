//! Which packs lie in which annex, as of the last look there: so that what is missing with an annex is told from what is lost.
//!
//! It is kept among the notes. `annex ID` says whether the annex was there at the last look, `annexed ID PACK` the length of a pack in it.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::{Catalog, PackNo, marks, verified};
use crate::error::StoreError;
use crate::id::{AnnexId, PackId};

fn key_of(annex: &AnnexId) -> String {
    format!("annex {annex}")
}

fn pack_key(annex: &AnnexId, pack: &PackId) -> String {
    format!("annexed {annex} {pack}")
}

impl Catalog {
    /// Whether an annex was there when staging was last looked at; nothing if it is new.
    pub fn annex_was_there(&self, annex: &AnnexId) -> Result<Option<bool>, StoreError> {
        self.read("read a note", |c| {
            c.query_row("SELECT value FROM meta WHERE key = ?1", [key_of(annex)], |row| row.get(0)).optional()
        })
    }

    /// Notes whether an annex is there. Nothing is written if that is noted already.
    pub fn note_annex(&self, annex: &AnnexId, there: bool) -> Result<(), StoreError> {
        if self.annex_was_there(annex)? == Some(there) {
            return Ok(());
        }
        let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
        self.write("make a note", |t| t.execute(sql, params![key_of(annex), there]).map(drop))
    }

    /// The packs that an annex had when it was last looked at, with their lengths.
    pub fn packs_in_annex(&self, annex: &AnnexId) -> Result<BTreeMap<PackId, u64>, StoreError> {
        let pattern = format!("annexed {annex} *");
        self.read("read notes", |c| {
            let mut statement = c.prepare_cached("SELECT key, value FROM meta WHERE key GLOB ?1")?;
            let rows = statement.query_map([pattern], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })?;
            let mut packs = BTreeMap::new();
            for row in rows {
                let (key, len) = row?;
                packs.extend(key.rsplit(' ').next().and_then(PackId::from_hex).map(|id| (id, len)));
            }
            Ok(packs)
        })
    }

    /// Notes the packs that an annex has now. Only what changed is written.
    pub fn set_packs_in_annex(
        &self,
        annex: &AnnexId,
        packs: &BTreeMap<PackId, u64>,
    ) -> Result<(), StoreError> {
        let before = self.packs_in_annex(annex)?;
        let gone: Vec<&PackId> = before.keys().filter(|id| !packs.contains_key(id)).collect();
        let new: Vec<_> = packs.iter().filter(|(id, len)| before.get(id) != Some(len)).collect();
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        self.write("make notes", |t| {
            for (pack, len) in &new {
                let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
                t.prepare_cached(sql)?.execute(params![pack_key(annex, pack), len.cast_signed()])?;
            }
            for pack in &gone {
                t.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([pack_key(annex, pack)])?;
            }
            Ok(())
        })
    }

    /// Notes a pack that was put into an annex.
    pub fn add_to_annex(&self, annex: &AnnexId, pack: &PackId, len: u64) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
        self.write("make a note", |t| {
            t.execute(sql, params![pack_key(annex, pack), len.cast_signed()]).map(drop)
        })
    }

    /// Forgets what was noted of annexes that are not among these.
    pub fn forget_other_annexes(&self, annexes: &[AnnexId]) -> Result<(), StoreError> {
        for key in self.keys_of("annex")? {
            let Some(id) = key.rsplit(' ').next().and_then(AnnexId::from_hex) else { continue };
            if !annexes.contains(&id) {
                self.write("forget notes", |t| {
                    t.execute("DELETE FROM meta WHERE key = ?1", [key_of(&id)])?;
                    t.execute("DELETE FROM meta WHERE key GLOB ?1", [format!("annexed {id} *")]).map(drop)
                })?;
            }
        }
        Ok(())
    }

    /// Packs are missing from staging with an annex, or are there again with it.
    pub fn set_staged_together(&self, packs: &[PackNo], staged: bool) -> Result<(), StoreError> {
        if packs.is_empty() {
            return Ok(());
        }
        self.write("mark packs", |t| {
            for no in packs {
                let sql = "UPDATE pack SET staged = ?2, bad = 0 WHERE no = ?1";
                t.prepare_cached(sql)?.execute(params![no.0, staged])?;
                verified::forget(t, *no, None)?;
                marks::not_missed(t, *no)?;
            }
            Ok(())
        })
    }
}
