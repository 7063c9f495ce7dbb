//! Chunks in the catalog: in which packs each lies, and where.
//!
//! A row that is damaged takes away one place of its chunk and not the others. If it was the only one, the answer is `Corrupt`: for
//! "not known" somebody would take the chunk for lost, or a pack for one that nobody needs.

use std::collections::HashSet;
use std::sync::Once;

use rusqlite::{OptionalExtension, params};

use super::marks::NOT_BAD_THERE;
use super::packs::{pack_row, select_packs};
use super::places::SOMEWHERE;
use super::{Catalog, Location, PackNo, VaultNo, damaged, reads_otherwise};
use crate::error::StoreError;
use crate::id::{ChunkId, PackId};
use crate::pack::PackedChunk;

/// What may be relied on beside staging.
#[derive(Clone, Debug, Default)]
pub struct Relied {
    /// Vaults that listed their packs.
    pub vaults: Vec<VaultNo>,
    /// Packs in them that are condemned there.
    pub except: HashSet<(VaultNo, PackNo)>,
}

impl Catalog {
    /// Where a chunk lies: in a staged pack if there is one, else in one of a vault.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<Location>, StoreError> {
        self.read("locate a chunk", |c| {
            let mut statement = c.prepare_cached(&format!(
                "SELECT c.pack, c.start, c.len, c.sum, pack.id FROM chunk c JOIN pack ON no = c.pack
                 WHERE c.id = ?1 AND bad = 0 AND {SOMEWHERE} ORDER BY staged DESC",
            ))?;
            let mut damage = None;
            let rows = statement.query_map([&id.0[..]], |row| location(id, row))?;
            let found = sound(rows, &mut damage).next().transpose()?;
            damage.filter(|_| found.is_none()).map_or(Ok(found), Err)
        })
    }

    /// Whether a chunk lies in a good pack of staging or of a vault that may be relied on. One that only a damaged row knows, or a copy
    /// that was found damaged has, does not: it is stored once more, which heals.
    pub fn is_in(&self, id: &ChunkId, relied: &Relied) -> Result<bool, StoreError> {
        let vaults: Vec<String> = relied.vaults.iter().map(|no| no.0.to_string()).collect();
        let sql = format!(
            "SELECT c.pack, c.start, c.len, c.sum, p.id, iif(p.staged = 1, NULL, place.vault) FROM chunk c JOIN pack p ON p.no = c.pack
             LEFT JOIN place ON place.pack = p.no AND place.vault IN ({}) AND {NOT_BAD_THERE}
             WHERE c.id = ?1 AND p.bad = 0 AND (p.staged = 1 OR place.vault IS NOT NULL)",
            vaults.join(",")
        );
        self.read("look for a chunk", |c| {
            let mut statement = c.prepare_cached(&sql)?;
            let rows = statement.query_map([&id.0[..]], |row| {
                Ok((location(id, row)?, row.get::<_, Option<i64>>(5)?.map(VaultNo)))
            })?;
            for row in sound(rows, &mut None) {
                let (at, vault) = row?;
                if vault.is_none_or(|vault| !relied.except.contains(&(vault, at.pack))) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Vaults with packs of which staging lacks something, those among them to which there is no way any more. Packs in which a vault got
    /// what staging has in others do not make it one of these.
    pub fn vaults_that_alone_hold(&self) -> Result<Vec<VaultNo>, StoreError> {
        self.read("look for packs", |c| {
            let sql = "SELECT no FROM vault WHERE EXISTS (SELECT 1 FROM place held JOIN pack h ON h.no = held.pack
                 WHERE held.vault = vault.no AND h.staged = 0 AND EXISTS (SELECT 1 FROM chunk c WHERE c.pack = h.no
                   AND NOT EXISTS (SELECT 1 FROM chunk d JOIN pack p ON p.no = d.pack
                     WHERE d.id = c.id AND p.staged = 1 AND p.bad = 0)))";
            c.prepare_cached(sql)?.query_map([], |row| Ok(VaultNo(row.get(0)?)))?.collect()
        })
    }

    /// How many packs of a vault hold something that is whole in no other place, as far as is known.
    pub fn packs_alone_in(&self, vault: VaultNo) -> Result<u64, StoreError> {
        self.read("look for packs", |c| {
            let sql = format!(
                "SELECT count(*) FROM place held JOIN pack h ON h.no = held.pack
                 WHERE held.vault = ?1 AND NOT (h.staged = 1 AND h.bad = 0) AND EXISTS (SELECT 1 FROM chunk c WHERE c.pack = h.no
                   AND NOT EXISTS (SELECT 1 FROM chunk d JOIN pack p ON p.no = d.pack WHERE d.id = c.id AND (p.staged = 1 AND p.bad = 0
                     OR EXISTS (SELECT 1 FROM place WHERE pack = p.no AND vault <> ?1 AND {NOT_BAD_THERE}))))"
            );
            c.prepare_cached(&sql)?.query_row([vault.0], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
        })
    }

    /// All places of a chunk, bad packs last: for a reader whose first choice fails.
    pub fn locate_all(&self, id: &ChunkId) -> Result<Vec<Location>, StoreError> {
        self.read("locate a chunk", |c| {
            let mut statement = c.prepare_cached(&format!(
                "SELECT c.pack, c.start, c.len, c.sum, pack.id FROM chunk c JOIN pack ON no = c.pack
                 WHERE c.id = ?1 AND {SOMEWHERE} ORDER BY bad, staged DESC",
            ))?;
            let mut damage = None;
            let rows = statement.query_map([&id.0[..]], |row| location(id, row))?;
            let found: Vec<Location> = sound(rows, &mut damage).collect::<Result<_, _>>()?;
            damage.filter(|_| found.is_empty()).map_or(Ok(found), Err)
        })
    }

    /// The chunks of a pack in the order of its raw stream, one after the other; all of them, or `Corrupt`.
    pub fn chunks_of(&self, no: PackNo) -> Result<Vec<PackedChunk>, StoreError> {
        self.read("list chunks", |c| {
            let gap = || damaged(format!("the catalog's rows of pack number {}", no.0));
            let mut statement = c.prepare_cached(
                "SELECT c.pack, c.start, c.len, c.sum, p.id, c.id FROM chunk c JOIN pack p ON p.no = c.pack
                 WHERE c.pack = ?1 ORDER BY c.start",
            )?;
            let mut rows = statement.query([no.0])?;
            let (mut chunks, mut end) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let id = ChunkId(row.get(5)?);
                let at = location(&id, row)?;
                if at.start != end {
                    return Err(gap());
                }
                end = at.start.saturating_add(at.len);
                chunks.push(PackedChunk { id, len: at.len });
            }
            // For want of a row somebody would take the pack for one that nobody needs.
            let whole =
                c.prepare_cached(&select_packs("WHERE no = ?1"))?.query_row([no.0], pack_row).optional()?;
            if whole.is_some_and(|row| row.entry.raw_len() != u64::from(end)) {
                return Err(gap());
            }
            Ok(chunks)
        })
    }

    /// Where the chunks of a pack lie in it, as far as that can be told; nothing of one that is damaged.
    pub fn places_in(&self, no: PackNo) -> Result<Vec<(ChunkId, Location)>, StoreError> {
        self.read("list chunks", |c| {
            let mut statement = c.prepare_cached(
                "SELECT c.pack, c.start, c.len, c.sum, p.id, c.id FROM chunk c JOIN pack p ON p.no = c.pack
                 WHERE c.pack = ?1 AND p.bad = 0",
            )?;
            let rows = statement.query_map([no.0], |row| {
                let id = ChunkId(row.get(5)?);
                Ok((id, location(&id, row)?))
            })?;
            sound(rows, &mut None).collect()
        })
    }
}

/// Passes over rows that are damaged, and keeps what is wrong with the first.
fn sound<T>(
    rows: impl Iterator<Item = rusqlite::Result<T>>,
    damage: &mut Option<rusqlite::Error>,
) -> impl Iterator<Item = rusqlite::Result<T>> {
    rows.filter_map(|row| match row {
        Err(e) if reads_otherwise(&e) => {
            warn_once(&e);
            damage.get_or_insert(e);
            None
        }
        row => Some(row),
    })
}

/// There may be as many of them as chunks, and each is met with every read.
fn warn_once(e: &rusqlite::Error) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!("the catalog is damaged, other places are read instead ({e}); delete catalog.db when nothing else runs");
    });
}

/// A row of the chunk table that is what it was when it was written. A bit that flips in it would else have a reader take
/// other bytes of the right pack, which every seal vouches for.
fn location(id: &ChunkId, row: &rusqlite::Row<'_>) -> rusqlite::Result<Location> {
    let at = Location { pack: PackNo(row.get(0)?), start: row.get(1)?, len: row.get(2)?, sum: row.get(3)? };
    if at.is_of(id, &PackId(row.get(4)?)) {
        Ok(at)
    } else {
        Err(damaged(format!("the catalog's row of chunk {id}")))
    }
}

/// Records the chunks of a pack, which lie in it in this order.
pub(super) fn insert(
    t: &rusqlite::Transaction<'_>,
    (no, pack): (PackNo, &PackId),
    chunks: &[PackedChunk],
) -> rusqlite::Result<()> {
    let mut rows = Vec::with_capacity(chunks.len());
    let mut start = 0_u32;
    for chunk in chunks {
        rows.push((chunk.id, start, chunk.len));
        start += chunk.len;
    }
    // In key order the B-tree is touched page by page.
    rows.sort_unstable();
    let mut insert = t.prepare_cached(
        "INSERT OR IGNORE INTO chunk(id, pack, start, len, sum) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (id, start, len) in rows {
        insert.execute(params![&id.0[..], no.0, start, len, row_sum(&id, pack, start, len)])?;
    }
    Ok(())
}

pub(super) fn row_sum(id: &ChunkId, pack: &PackId, start: u32, len: u32) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&id.0), &pack.0);
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &start.to_le_bytes()), &len.to_le_bytes())
}
