//! Chunks in the catalog: in which packs each lies, and where.

use rusqlite::{OptionalExtension, params};

use super::places::SOMEWHERE;
use super::{Catalog, Location, PackNo, VaultNo};
use crate::error::StoreError;
use crate::format::FormatError;
use crate::id::ChunkId;
use crate::pack::PackedChunk;

impl Catalog {
    /// Where a chunk lies: in a staged pack if there is one, else in one of a vault.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<Location>, StoreError> {
        self.read("locate a chunk", |c| {
            c.prepare_cached(&format!(
                "SELECT c.pack, c.start, c.len, c.sum FROM chunk c JOIN pack ON no = c.pack
                 WHERE c.id = ?1 AND bad = 0 AND {SOMEWHERE} ORDER BY staged DESC LIMIT 1",
            ))?
            .query_row([&id.0[..]], |row| location(id, row))
            .optional()
        })
    }

    /// Whether a chunk lies in a good pack of staging or of one of these vaults.
    pub fn is_in(&self, id: &ChunkId, vaults: &[VaultNo]) -> Result<bool, StoreError> {
        let vaults: Vec<String> = vaults.iter().map(|no| no.0.to_string()).collect();
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM chunk c JOIN pack p ON p.no = c.pack WHERE c.id = ?1 AND p.bad = 0
             AND (p.staged = 1 OR EXISTS (SELECT 1 FROM place WHERE pack = p.no AND vault IN ({}))))",
            vaults.join(",")
        );
        self.read("look for a chunk", |c| c.prepare_cached(&sql)?.query_row([&id.0[..]], |row| row.get(0)))
    }

    /// Vaults with packs that staging lacks, those among them to which there is no way any more.
    pub fn vaults_that_alone_hold(&self) -> Result<Vec<VaultNo>, StoreError> {
        self.read("look for packs", |c| {
            let sql = "SELECT DISTINCT vault FROM place JOIN pack ON no = pack WHERE staged = 0";
            c.prepare_cached(sql)?.query_map([], |row| Ok(VaultNo(row.get(0)?)))?.collect()
        })
    }

    /// All places of a chunk, bad packs last: for a reader whose first choice fails.
    pub fn locate_all(&self, id: &ChunkId) -> Result<Vec<Location>, StoreError> {
        self.read("locate a chunk", |c| {
            c.prepare_cached(&format!(
                "SELECT c.pack, c.start, c.len, c.sum FROM chunk c JOIN pack ON no = c.pack
                 WHERE c.id = ?1 AND {SOMEWHERE} ORDER BY bad, staged DESC",
            ))?
            .query_map([&id.0[..]], |row| location(id, row))?
            .collect()
        })
    }

    /// The chunks of a pack in the order of its raw stream.
    pub fn chunks_of(&self, no: PackNo) -> Result<Vec<PackedChunk>, StoreError> {
        self.read("list chunks", |c| {
            c.prepare_cached("SELECT id, len FROM chunk WHERE pack = ?1 ORDER BY start")?
                .query_map([no.0], |row| Ok(PackedChunk { id: ChunkId(row.get(0)?), len: row.get(1)? }))?
                .collect()
        })
    }

    /// Where the chunks of a pack lie in it; nothing of one that is damaged.
    pub fn places_in(&self, no: PackNo) -> Result<Vec<(ChunkId, Location)>, StoreError> {
        self.read("list chunks", |c| {
            c.prepare_cached(
                "SELECT c.pack, c.start, c.len, c.sum, c.id FROM chunk c JOIN pack p ON p.no = c.pack
                 WHERE c.pack = ?1 AND p.bad = 0",
            )?
            .query_map([no.0], |row| {
                let id = ChunkId(row.get(4)?);
                Ok((id, location(&id, row)?))
            })?
            .collect()
        })
    }
}

/// A row of the chunk table that is what it was when it was written. A bit that flips in it would else have a reader take
/// other bytes of the right pack, which every seal vouches for.
fn location(id: &ChunkId, row: &rusqlite::Row<'_>) -> rusqlite::Result<Location> {
    let (pack, start, len): (i64, u32, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
    if row_sum(id, pack, start, len) != row.get::<_, u32>(3)? {
        let e = FormatError::damaged(format!("the catalog's row of chunk {id}"));
        return Err(rusqlite::Error::FromSqlConversionFailure(
            3,
            rusqlite::types::Type::Integer,
            Box::new(e),
        ));
    }
    Ok(Location { pack: PackNo(pack), start, len })
}

/// Records the chunks of a pack, which lie in it in this order.
pub(super) fn insert(
    t: &rusqlite::Transaction<'_>,
    pack: PackNo,
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
        insert.execute(params![&id.0[..], pack.0, start, len, row_sum(&id, pack.0, start, len)])?;
    }
    Ok(())
}

fn row_sum(id: &ChunkId, pack: i64, start: u32, len: u32) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&id.0), &pack.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &start.to_le_bytes()), &len.to_le_bytes())
}
