//! What was read of the generations of reclaim in each vault: which packs nothing new may rely on. Each is read once, for it never
//! changes; a sum guards what no seal does.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::{Catalog, VaultNo, damaged};
use crate::error::StoreError;
use crate::fence::{Generation, Step};
use crate::format::{Parser, Put};
use crate::id::{PackId, RecoveryPointId};

/// Length of an object and when it was put by the vault's clock, as a listing shows them.
pub type Listed = (u64, Option<i64>);

/// What a session saw of generations when it began. It relies on nothing that these condemned; whoever condemns something later waits
/// for the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Number of the newest one, 0 if there was none.
    pub newest: u64,
    /// Whether one of them had no end.
    pub unfinished: bool,
}

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

    /// Those of these packs that a generation up to `newest` condemns, and did not let go.
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

    /// What a session saw when it began, if it began. A note that is damaged is none: the session looks anew.
    pub fn session_seen(&self, vault: VaultNo, id: &RecoveryPointId) -> Result<Option<Seen>, StoreError> {
        let key = session_key(vault, id);
        let value: Option<Vec<u8>> = self.read("read a note", |c| {
            c.query_row("SELECT value FROM meta WHERE key = ?1", [&key], |row| row.get(0)).optional()
        })?;
        Ok(value.and_then(|value| {
            let mut p = Parser::new(&value);
            let seen = Seen { newest: p.u64().ok()?, unfinished: p.array::<1>().ok()? != [0] };
            (value == seen_value(&key, seen)).then_some(seen)
        }))
    }

    /// Notes what a session sees when it begins; takes the note away when it has ended.
    pub fn set_session_seen(
        &self,
        vault: VaultNo,
        id: &RecoveryPointId,
        seen: Option<Seen>,
    ) -> Result<(), StoreError> {
        let key = session_key(vault, id);
        self.write("make a note", |t| match seen {
            None => t.execute("DELETE FROM meta WHERE key = ?1", [&key]).map(drop),
            Some(seen) => {
                let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
                t.execute(sql, params![key, seen_value(&key, seen)]).map(drop)
            }
        })
    }

    /// Of the sessions that were open in a vault when this generation was first seen there those that are noted; `None` if none are, or the
    /// note is damaged.
    pub fn sessions_before(
        &self,
        vault: VaultNo,
        number: u64,
    ) -> Result<Option<HashSet<RecoveryPointId>>, StoreError> {
        let key = before_key(vault);
        let value: Option<Vec<u8>> = self.read("read a note", |c| {
            c.query_row("SELECT value FROM meta WHERE key = ?1", [&key], |row| row.get(0)).optional()
        })?;
        Ok(value.and_then(|value| {
            let mut p = Parser::new(&value);
            let of = p.u64().ok()?;
            let count = p.left().checked_sub(4)? / 16;
            let ids = (0..count).map(|_| Some(RecoveryPointId(p.array().ok()?))).collect::<Option<_>>()?;
            (of == number && value == before_value(&key, number, &ids)).then_some(ids)
        }))
    }

    /// Notes them. Those of an earlier generation need not be known any more.
    pub fn set_sessions_before(
        &self,
        vault: VaultNo,
        number: u64,
        ids: &HashSet<RecoveryPointId>,
    ) -> Result<(), StoreError> {
        let key = before_key(vault);
        self.write("make a note", |t| {
            let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
            t.execute(sql, params![key, before_value(&key, number, ids)]).map(drop)
        })
    }
}

fn before_key(vault: VaultNo) -> String {
    format!("sessions before {}", vault.0)
}

/// With a sum: a session that is missing would not be waited for.
fn before_value(key: &str, number: u64, ids: &HashSet<RecoveryPointId>) -> Vec<u8> {
    let mut sorted: Vec<_> = ids.iter().collect();
    sorted.sort();
    let mut out = Vec::with_capacity(12 + 16 * sorted.len());
    out.u64(number);
    sorted.iter().for_each(|id| out.raw(&id.0));
    out.u32(crc32c::crc32c_append(crc32c::crc32c(key.as_bytes()), &out));
    out
}

fn session_key(vault: VaultNo, id: &RecoveryPointId) -> String {
    format!("session {} {}", vault.0, id.hex())
}

/// With a sum: a session that takes itself for older than it is would rely on what is about to go.
fn seen_value(key: &str, seen: Seen) -> Vec<u8> {
    let mut out = Vec::with_capacity(13);
    out.u64(seen.newest);
    out.raw(&[u8::from(seen.unfinished)]);
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
