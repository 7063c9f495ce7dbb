//! What was read of the generations of reclaim in each vault: which packs nothing new may rely on. Each is read once, for it never
//! changes; a sum guards what no seal does.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::{Catalog, VaultNo, damaged};
use crate::error::StoreError;
use crate::fence::{Generation, Step};
use crate::format::{Parser, Put};
use crate::id::PackId;

/// Seconds of a day.
const DAY: i64 = 24 * 3600;

/// Length of an object and when it was put by the vault's clock, as a listing shows them.
pub type Listed = (u64, Option<i64>);

impl Catalog {
    /// Numbers of the generations of a vault that are known, ascending, and whether their ends are.
    pub fn generations(&self, vault: VaultNo) -> Result<Vec<(u64, bool)>, StoreError> {
        self.read("list generations", |c| {
            c.prepare_cached("SELECT number, final FROM generation WHERE vault = ?1 ORDER BY number")?
                .query_map([vault.0], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)))?
                .collect()
        })
    }

    /// Length of the object and when it was put, as a listing last showed it, of each generation of a vault that is known, by number and
    /// whether it is an end.
    pub fn listed_generations(&self, vault: VaultNo) -> Result<BTreeMap<(u64, bool), Listed>, StoreError> {
        self.read("list generations", |c| {
            c.prepare_cached("SELECT number, final, len, put_at FROM generation WHERE vault = ?1")?
                .query_map([vault.0], |row| {
                    let which = (row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?);
                    Ok((which, (row.get::<_, i64>(2)?.cast_unsigned(), row.get(3)?)))
                })?
                .collect()
        })
    }

    /// Records a generation as it was listed; its end takes the place of its beginning.
    pub fn add_generation(
        &self,
        vault: VaultNo,
        generation: &Generation,
        (len, put_at): Listed,
    ) -> Result<(), StoreError> {
        let packs = encode(&generation.packs);
        let (number, is_final) = (generation.number, generation.step == Step::Final);
        let sum = row_sum(vault, number, is_final, &packs);
        self.write("record a generation", |t| {
            let sql = "INSERT INTO generation(vault, number, final, packs, sum, len, put_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT(vault, number) DO UPDATE SET final = ?3, packs = ?4, sum = ?5, len = ?6, put_at = ?7 WHERE final <= ?3";
            let len = len.cast_signed();
            t.execute(sql, params![vault.0, number.cast_signed(), is_final, packs, sum, len, put_at]).map(drop)
        })
    }

    /// A generation of a vault; `Corrupt` if its row is damaged.
    pub fn generation(&self, vault: VaultNo, number: u64) -> Result<Option<Generation>, StoreError> {
        self.read("read a generation", |c| {
            let sql = "SELECT final, packs, sum FROM generation WHERE vault = ?1 AND number = ?2";
            c.prepare_cached(sql)?
                .query_row(params![vault.0, number.cast_signed()], |row| {
                    let (is_final, packs): (bool, Vec<u8>) = (row.get(0)?, row.get(1)?);
                    if row.get::<_, u32>(2)? != row_sum(vault, number, is_final, &packs) {
                        return Err(damaged(format!("the catalog's row of generation {number}")));
                    }
                    let step = if is_final { Step::Final } else { Step::Condemned };
                    Ok(Generation { number, step, packs: decode(&packs)? })
                })
                .optional()
        })
    }

    /// Those of these packs that a generation up to `newest` names: condemned by one that is not finished, or let go by one that is.
    pub fn condemned_of(
        &self,
        vault: VaultNo,
        newest: u64,
        packs: &HashSet<PackId>,
    ) -> Result<HashSet<PackId>, StoreError> {
        self.named_by(vault, packs, |(number, _)| *number <= newest)
    }

    /// Those of these packs that may be gone from a vault, because a generation let them go.
    pub fn let_go_of(&self, vault: VaultNo, packs: &HashSet<PackId>) -> Result<HashSet<PackId>, StoreError> {
        self.named_by(vault, packs, |number_and_end| number_and_end.1)
    }

    /// Forgets all generations of a vault, and what was noted by them: somebody accepts that it is an older one.
    pub fn forget_generations(&self, vault: VaultNo) -> Result<(), StoreError> {
        self.write("forget generations", |t| {
            t.execute("DELETE FROM generation WHERE vault = ?1", [vault.0])?;
            for keys in ["session ? *", "open before ?", "proven ? *", "ahead ? *"] {
                let keys = keys.replacen('?', &vault.0.to_string(), 1);
                t.execute("DELETE FROM meta WHERE key GLOB ?1", [keys])?;
            }
            Ok(())
        })
    }

    /// How many seconds passed since this machine first found the end of a generation put ahead of the vault's clock, which shows `now`; of what
    /// is between two calls a day at most, for who sets a clock back may set it ahead again. Nothing at first, or if the note is damaged.
    pub fn passed_ahead(&self, vault: VaultNo, number: u64, now: i64) -> Result<u64, StoreError> {
        let key = ahead_key(vault, number);
        let noted: Option<Vec<u8>> = self.read("read a note", |c| {
            let sql = "SELECT value FROM meta WHERE key = ?1";
            c.query_row(sql, [&key], |row| Ok(row.get(0).ok())).optional().map(Option::flatten)
        })?;
        let passed = noted.and_then(|value| {
            let mut p = Parser::new(&value);
            let (last, passed) = (p.u64().ok()?.cast_signed(), p.u64().ok()?);
            let since = now.saturating_sub(last).clamp(0, DAY).unsigned_abs();
            (value == ahead_value(&key, last, passed)).then(|| passed.saturating_add(since))
        });
        let passed = passed.unwrap_or_default();
        self.write("make a note", |t| {
            let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
            t.execute(sql, params![key, ahead_value(&key, now, passed)]).map(drop)
        })?;
        Ok(passed)
    }

    /// Forgets that, where it is not ahead any more.
    pub fn is_not_ahead(&self, vault: VaultNo, number: u64) -> Result<(), StoreError> {
        let key = ahead_key(vault, number);
        let is_noted = self.read("read a note", |c| {
            c.query_row("SELECT EXISTS (SELECT 1 FROM meta WHERE key = ?1)", [&key], |row| row.get(0))
        })?;
        if is_noted {
            self.write("make a note", |t| t.execute("DELETE FROM meta WHERE key = ?1", [&key]).map(drop))?;
        }
        Ok(())
    }

    fn named_by(
        &self,
        vault: VaultNo,
        packs: &HashSet<PackId>,
        which: impl Fn(&(u64, bool)) -> bool,
    ) -> Result<HashSet<PackId>, StoreError> {
        let mut found = HashSet::new();
        if packs.is_empty() {
            return Ok(found);
        }
        for (number, _) in self.generations(vault)?.into_iter().filter(which) {
            let Some(generation) = self.generation(vault, number)? else { continue };
            found.extend(generation.packs.iter().map(|(id, _)| *id).filter(|id| packs.contains(id)));
        }
        Ok(found)
    }
}

fn ahead_key(vault: VaultNo, number: u64) -> String {
    format!("ahead {} {number}", vault.0)
}

/// With a sum: what may go would go too early.
fn ahead_value(key: &str, last: i64, passed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(20);
    out.u64(last.cast_unsigned());
    out.u64(passed);
    out.u32(crc32c::crc32c_append(crc32c::crc32c(key.as_bytes()), &out));
    out
}

fn encode(packs: &[(PackId, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packs.len() * 40);
    for (id, len) in packs {
        out.raw(&id.0);
        out.u64(*len);
    }
    out
}

fn decode(bytes: &[u8]) -> rusqlite::Result<Vec<(PackId, u64)>> {
    let mut p = Parser::new(bytes);
    let mut packs = Vec::with_capacity(bytes.len() / 40);
    while p.left() > 0 {
        let pack = p.array().and_then(|id| Ok((PackId(id), p.u64()?)));
        packs.push(pack.map_err(super::damaged_by)?);
    }
    Ok(packs)
}

/// Guards a row: a pack that is no longer condemned in it would be relied on, and go.
fn row_sum(vault: VaultNo, number: u64, is_final: bool, packs: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&vault.0.to_le_bytes()), &number.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &[u8::from(is_final)]), packs)
}
