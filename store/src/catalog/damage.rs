//! Rows of chunks that are not what was written, found by looking at all of them. Each stands twice: in the table, ordered by chunk, and in
//! `chunk_by_pack`. In the table a bit that flips in an id has that chunk asked for in vain, and nobody meets the row; so it is looked for.

use std::collections::{BTreeSet, HashMap};

use super::{Catalog, Location, PackNo, reads_otherwise};
use crate::error::StoreError;
use crate::id::{ChunkId, PackId};

/// SQLite's name for the order of the table itself. `NOT INDEXED` would read `chunk_by_pack`, which has all of a row.
const TABLE: &str = "sqlite_autoindex_chunk_1";

/// What is damaged in the catalog's rows of chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DamagedChunks {
    /// How many rows, each counted wherever it stands.
    pub rows: u64,
    /// The packs that they name.
    pub packs: BTreeSet<PackNo>,
}

impl Catalog {
    /// Looks at every row of a chunk in both places, one after the other: less than two seconds for a million.
    pub fn damaged_chunks(&self) -> Result<DamagedChunks, StoreError> {
        self.read("look for damaged chunks", |c| {
            // One picture of the catalog: others write meanwhile.
            let t = c.unchecked_transaction()?;
            let mut select = t.prepare("SELECT no, id FROM pack")?;
            let packs = select.query_map([], |row| Ok((PackNo(row.get(0)?), PackId(row.get(1)?))))?;
            let packs = packs.filter(|row| !row.as_ref().is_err_and(reads_otherwise));
            let packs = packs.collect::<rusqlite::Result<HashMap<PackNo, PackId>>>()?;
            let mut damaged = DamagedChunks::default();
            for by in [TABLE, "chunk_by_pack"] {
                let sql = format!("SELECT id, pack, start, len, sum FROM chunk INDEXED BY {by}");
                let mut select = t.prepare(&sql)?;
                let mut rows = select.query([])?;
                while let Some(row) = rows.next()? {
                    if !is_sound(row, &packs) {
                        damaged.rows += 1;
                        damaged.packs.extend(row.get(1).map(PackNo));
                    }
                }
            }
            Ok(damaged)
        })
    }
}

fn is_sound(row: &rusqlite::Row<'_>, packs: &HashMap<PackNo, PackId>) -> bool {
    let read = || -> rusqlite::Result<bool> {
        let id = ChunkId(row.get(0)?);
        let at =
            Location { pack: PackNo(row.get(1)?), start: row.get(2)?, len: row.get(3)?, sum: row.get(4)? };
        Ok(packs.get(&at.pack).is_some_and(|pack| at.is_of(&id, pack)))
    };
    read().unwrap_or(false)
}
