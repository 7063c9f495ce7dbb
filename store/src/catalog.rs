//! The catalog: a local SQLite database that knows what staging and the vaults hold. It is a cache: everything in it
//! can be made again from the objects themselves, and it holds no file names in clear (points are kept sealed).
//!
//! One process writes at a time (the store's lock); readers of any process go on beside it (WAL). `synchronous=FULL`,
//! because staged packs may be evicted on the word of a commit.

mod marks;
mod places;
mod points;
mod schema;

#[cfg(test)]
mod tests;

pub use marks::Mark;
use places::SOMEWHERE;
pub use points::{PointLine, PointRow};

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use crate::error::{ErrorClass, StoreError};
use crate::format::{FormatError, Parser, Put};
use crate::id::{ChunkId, IndexId, ObjectId, PackId};
use crate::pack::{Frame, PackEntry, PackKind, PackedChunk};

/// Number of a pack in this catalog; of no meaning elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackNo(pub i64);

/// Number of a vault in this catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VaultNo(pub i64);

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackNo,
    /// Offset in its raw stream.
    pub start: u32,
    /// Length.
    pub len: u32,
}

/// A pack as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRow {
    /// Number.
    pub no: PackNo,
    /// What a reader must know.
    pub entry: PackEntry,
    /// Whether staging holds it.
    pub staged: bool,
    /// Vaults that confirmed it.
    pub vaults: Vec<VaultNo>,
}

/// The open catalog of a store.
#[derive(Debug)]
pub struct Catalog {
    /// Where further connections for reading are opened; nowhere if there can be only the one.
    path: Option<PathBuf>,
    instance: Vec<u8>,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

/// Connections for reading that are kept when idle.
const IDLE_READERS: usize = 8;

fn error(during: &str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    let during = during.to_owned();
    move |e| {
        let class = match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => ErrorClass::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorClass::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorClass::Corrupt,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => ErrorClass::Denied,
            // What no longer reads as what was written.
            None if matches!(e, rusqlite::Error::FromSqlConversionFailure(..)) => ErrorClass::Corrupt,
            _ => ErrorClass::Unavailable,
        };
        StoreError::Catalog { detail: format!("{during}: {e}"), class }
    }
}

impl Catalog {
    /// Opens or makes the catalog at `path`. One that is damaged, foreign or of another version is set aside as
    /// `catalog.db.damaged` and made anew, empty. Whether it was ever filled, [`Mark::Filled`] says.
    pub fn open(path: &Path, store: &[u8; 16]) -> Result<Self, StoreError> {
        let connection = match Self::open_file(path, store) {
            Err(e) if e.class() == ErrorClass::Corrupt => {
                set_aside(path)?;
                Self::open_file(path, store)?
            }
            Err(e) if matches!(e.class(), ErrorClass::Unavailable | ErrorClass::Full) => {
                return Self::open_alone(path, store).map_err(|_| e);
            }
            opened => opened?,
        };
        Self::of(connection, Some(path.to_path_buf()))
    }

    /// On a disk without room for the memory that processes share about a catalog (32 KiB): one process alone needs none, and
    /// reading must go on.
    fn open_alone(path: &Path, store: &[u8; 16]) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(error("open"))?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(error("open"))?;
        schema::prepare(&connection, store)?;
        Self::of(connection, None)
    }

    fn of(connection: Connection, path: Option<PathBuf>) -> Result<Self, StoreError> {
        let instance = schema::instance(&connection).map_err(error("open"))?;
        Ok(Self { path, instance, writer: Mutex::new(connection), readers: Mutex::default() })
    }

    /// An empty catalog in memory.
    pub fn in_memory(store: &[u8; 16]) -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory().map_err(error("open"))?;
        schema::prepare(&connection, store)?;
        Self::of(connection, None)
    }

    fn open_file(path: &Path, store: &[u8; 16]) -> Result<Connection, StoreError> {
        // SQLite gives its side files the rights of the database: made here, it is its owner's alone. If it cannot be made, SQLite says why.
        drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path));
        let connection = Connection::open(path).map_err(error("open"))?;
        schema::prepare(&connection, store)?;
        Ok(connection)
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` on a connection for reading; of a catalog in memory there is only the one.
    pub(crate) fn read<T>(
        &self,
        during: &str,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let Some(path) = &self.path else { return f(&self.writer()).map_err(error(during)) };
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(path, &self.instance)?,
        };
        let result = f(&connection).map_err(error(during));
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS {
            readers.push(connection);
        }
        result
    }

    pub(crate) fn write<T>(
        &self,
        during: &str,
        f: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.writer();
        // One that began by reading would fail at once, without waiting, if another process wrote before it does.
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error(during))?;
        let result = f(&transaction).map_err(error(during))?;
        transaction.commit().map_err(error(during))?;
        Ok(result)
    }

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

    /// Adds packs with their chunks in one transaction; what is known already is only marked as staged or confirmed.
    pub fn add_packs(
        &self,
        packs: &[(&PackEntry, &[PackedChunk])],
        staged: bool,
        confirmed: Option<VaultNo>,
    ) -> Result<(), StoreError> {
        self.write("add packs", |t| {
            for (entry, chunks) in packs {
                add_pack(t, entry, chunks, staged, confirmed)?;
            }
            Ok(())
        })
    }

    /// A pack by number.
    pub fn pack(&self, no: PackNo) -> Result<Option<PackRow>, StoreError> {
        self.read("read a pack", |c| {
            let row =
                c.prepare_cached(&select_packs("WHERE no = ?1"))?.query_row([no.0], pack_row).optional()?;
            row.map(|row| with_vaults(c, row)).transpose()
        })
    }

    /// A pack by name.
    pub fn pack_by_id(&self, id: &PackId) -> Result<Option<PackRow>, StoreError> {
        self.read("read a pack", |c| {
            let row = c
                .prepare_cached(&select_packs("WHERE id = ?1"))?
                .query_row([&id.0[..]], pack_row)
                .optional()?;
            row.map(|row| with_vaults(c, row)).transpose()
        })
    }

    /// All packs that are in staging or in some vault, ascending by number.
    pub fn packs(&self) -> Result<Vec<PackRow>, StoreError> {
        self.read("list packs", |c| {
            let rows: Vec<PackRow> = c
                .prepare_cached(&select_packs(&format!("WHERE {SOMEWHERE} ORDER BY no")))?
                .query_map([], pack_row)?
                .collect::<Result<_, _>>()?;
            rows.into_iter().map(|row| with_vaults(c, row)).collect()
        })
    }

    /// Number, name, length and whether staged, of all packs: what a comparison with a listing needs.
    pub fn pack_list(&self) -> Result<Vec<(PackNo, PackId, u64, bool)>, StoreError> {
        self.read("list packs", |c| {
            c.prepare_cached("SELECT no, id, len, staged FROM pack ORDER BY no")?
                .query_map([], |row| {
                    let len: i64 = row.get(2)?;
                    Ok((PackNo(row.get(0)?), PackId(row.get(1)?), len.cast_unsigned(), row.get(3)?))
                })?
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

    /// The pack of the same kind that was added next after this one.
    pub fn next_pack(&self, after: PackNo) -> Result<Option<PackNo>, StoreError> {
        self.read("find a pack", |c| {
            c.prepare_cached(
                "SELECT no FROM pack WHERE no > ?1 AND kind = (SELECT kind FROM pack WHERE no = ?1) ORDER BY no LIMIT 1",
            )?
            .query_row([after.0], |row| Ok(PackNo(row.get(0)?)))
            .optional()
        })
    }

    /// Says whether staging holds a pack, by who put or removed it. One that is nowhere any more is forgotten with its chunks.
    pub fn set_staged(&self, no: PackNo, staged: bool) -> Result<(), StoreError> {
        self.write("mark a pack", |t| {
            t.execute("UPDATE pack SET staged = ?2 WHERE no = ?1", params![no.0, staged])?;
            forget_if_nowhere(t, no)
        })
    }

    /// Says whether a vault holds a pack, by who put or removed it. One that is nowhere any more is forgotten with its chunks.
    pub fn set_confirmed(&self, no: PackNo, vault: VaultNo, confirmed: bool) -> Result<(), StoreError> {
        self.write("mark a pack", |t| {
            let sql = if confirmed {
                "INSERT OR IGNORE INTO place(pack, vault) VALUES (?1, ?2)"
            } else {
                "DELETE FROM place WHERE pack = ?1 AND vault = ?2"
            };
            t.execute(sql, params![no.0, vault.0])?;
            forget_if_nowhere(t, no)
        })
    }

    /// Marks a pack as damaged: nothing new relies on it, reading tries its other places first.
    pub fn set_bad(&self, no: PackNo, bad: bool) -> Result<(), StoreError> {
        self.write("mark a pack", |t| {
            t.execute("UPDATE pack SET bad = ?2 WHERE no = ?1", params![no.0, bad]).map(drop)
        })
    }

    /// Whether any pack is marked as damaged, or something that points need may be missing: each chunk must be looked up.
    pub fn has_bad_packs(&self) -> Result<bool, StoreError> {
        let bad = self.read("look for damaged packs", |c| {
            c.query_row("SELECT EXISTS (SELECT 1 FROM pack WHERE bad = 1)", [], |row| row.get(0))
        })?;
        Ok(bad || self.has_mark(Mark::Doubtful)?)
    }

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

fn set_aside(path: &Path) -> Result<(), StoreError> {
    let aside = path.with_extension("db.damaged");
    std::fs::rename(path, &aside).map_err(StoreError::io("set aside", path))?;
    for suffix in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // They belong to the file set aside; missing ones are fine.
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
    Ok(())
}

fn add_pack(
    t: &rusqlite::Transaction<'_>,
    entry: &PackEntry,
    chunks: &[PackedChunk],
    staged: bool,
    confirmed: Option<VaultNo>,
) -> rusqlite::Result<()> {
    let known: Option<i64> = t
        .prepare_cached("SELECT no FROM pack WHERE id = ?1")?
        .query_row([&entry.id.0[..]], |row| row.get(0))
        .optional()?;
    let no = match known {
        Some(no) => no,
        None => insert_pack(t, entry, chunks)?,
    };
    if staged {
        t.prepare_cached("UPDATE pack SET staged = 1, bad = 0 WHERE no = ?1")?.execute([no])?;
    }
    if let Some(vault) = confirmed {
        t.prepare_cached("INSERT OR IGNORE INTO place(pack, vault) VALUES (?1, ?2)")?
            .execute([no, vault.0])?;
    }
    Ok(())
}

fn insert_pack(
    t: &rusqlite::Transaction<'_>,
    entry: &PackEntry,
    chunks: &[PackedChunk],
) -> rusqlite::Result<i64> {
    t.prepare_cached(
        "INSERT INTO pack(id, object_id, generation, kind, len, frames, staged, bad) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0)",
    )?
    .execute(params![
        &entry.id.0[..],
        &entry.object_id.0[..],
        entry.generation,
        entry.kind as u32,
        entry.len.cast_signed(),
        encode_frames(&entry.frames),
    ])?;
    let no = t.last_insert_rowid();
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
        insert.execute(params![&id.0[..], no, start, len, row_sum(&id, no, start, len)])?;
    }
    Ok(no)
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

fn row_sum(id: &ChunkId, pack: i64, start: u32, len: u32) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&id.0), &pack.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &start.to_le_bytes()), &len.to_le_bytes())
}

fn forget_if_nowhere(t: &rusqlite::Transaction<'_>, no: PackNo) -> rusqlite::Result<()> {
    let gone = t.execute(
        "DELETE FROM pack WHERE no = ?1 AND staged = 0 AND NOT EXISTS (SELECT 1 FROM place WHERE pack = ?1)",
        [no.0],
    )?;
    if gone > 0 {
        t.execute("DELETE FROM chunk WHERE pack = ?1", [no.0])?;
        t.execute("DELETE FROM index_pack WHERE pack = ?1", [no.0])?;
    }
    Ok(())
}

fn select_packs(rest: &str) -> String {
    format!("SELECT no, id, object_id, generation, kind, len, frames, staged FROM pack {rest}")
}

fn pack_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<PackRow> {
    let bad = |column: usize, e: FormatError| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(e))
    };
    let kind: u32 = row.get(4)?;
    let frames: Vec<u8> = row.get(6)?;
    let entry = PackEntry {
        id: PackId(row.get(1)?),
        object_id: ObjectId(row.get(2)?),
        generation: row.get(3)?,
        kind: PackKind::from_number(kind).ok_or_else(|| bad(4, FormatError::damaged("pack kind")))?,
        len: row.get::<_, i64>(5)?.cast_unsigned(),
        frames: decode_frames(&frames).map_err(|e| bad(6, e))?,
    };
    Ok(PackRow { no: PackNo(row.get(0)?), entry, staged: row.get(7)?, vaults: Vec::new() })
}

fn with_vaults(c: &Connection, mut row: PackRow) -> rusqlite::Result<PackRow> {
    row.vaults = c
        .prepare_cached("SELECT vault FROM place WHERE pack = ?1 ORDER BY vault")?
        .query_map([row.no.0], |r| Ok(VaultNo(r.get(0)?)))?
        .collect::<Result<_, _>>()?;
    Ok(row)
}

fn encode_frames(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.len() * 8);
    for frame in frames {
        out.u32(frame.units);
        out.u32(frame.raw_len);
    }
    out
}

fn decode_frames(bytes: &[u8]) -> Result<Vec<Frame>, FormatError> {
    let mut p = Parser::new(bytes);
    let mut frames = Vec::with_capacity(bytes.len() / 8);
    while p.left() > 0 {
        frames.push(Frame { units: p.u32()?, raw_len: p.u32()? });
    }
    Ok(frames)
}
