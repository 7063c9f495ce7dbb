//! Tables of the catalog and how its connections are set up.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::error;
use crate::error::{ErrorClass, StoreError};
use crate::id::random_bytes;

/// Another version is thrown away and made anew.
const VERSION: i64 = 6;
/// Oldest SQLite without the WAL-reset defect.
const SQLITE_MIN: i32 = 3_051_003;
/// Page cache of the writing connection.
const WRITER_CACHE_KIB: i64 = 8_000;
/// Page cache of each reading one; there are about as many as threads.
const READER_CACHE_KIB: i64 = 2_000;
/// How long one process waits for another's commit.
const BUSY: Duration = Duration::from_secs(20);

// Numbers of packs are never used again: other processes remember packs by them. `sum` guards the row of a pack,
// a chunk or a point, or the time of a proof, which no seal does. Points have no index: which of them is the newest is decided by rows
// that were looked at, and there are not so many of them. Their objects stand last: whoever reads the rest does not read them.
// `chunk_by_pack` has all of a row: who reads a pack in order learns its chunks from pages that lie together.
const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE pack(no INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, object_id BLOB NOT NULL, generation INTEGER NOT NULL,
    kind INTEGER NOT NULL, len INTEGER NOT NULL, frames BLOB NOT NULL, sum INTEGER NOT NULL, staged INTEGER NOT NULL,
    bad INTEGER NOT NULL);
CREATE TABLE chunk(id BLOB NOT NULL, pack INTEGER NOT NULL, start INTEGER NOT NULL, len INTEGER NOT NULL,
    sum INTEGER NOT NULL, PRIMARY KEY(id, pack, start)) WITHOUT ROWID;
CREATE INDEX chunk_by_pack ON chunk(pack, start, id, len, sum);
CREATE TABLE vault(no INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE);
CREATE TABLE place(pack INTEGER NOT NULL REFERENCES pack(no) ON DELETE CASCADE,
    vault INTEGER NOT NULL REFERENCES vault(no) ON DELETE CASCADE, PRIMARY KEY(pack, vault)) WITHOUT ROWID;
CREATE TABLE verified(pack INTEGER NOT NULL REFERENCES pack(no) ON DELETE CASCADE, place INTEGER NOT NULL, at INTEGER NOT NULL,
    sum INTEGER NOT NULL, PRIMARY KEY(pack, place)) WITHOUT ROWID;
CREATE TABLE index_object(no INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
CREATE TABLE index_pack(idx INTEGER NOT NULL REFERENCES index_object(no) ON DELETE CASCADE, pack INTEGER NOT NULL,
    PRIMARY KEY(idx, pack)) WITHOUT ROWID;
CREATE INDEX index_by_pack ON index_pack(pack);
CREATE TABLE index_place(idx INTEGER NOT NULL REFERENCES index_object(no) ON DELETE CASCADE,
    vault INTEGER NOT NULL REFERENCES vault(no) ON DELETE CASCADE, PRIMARY KEY(idx, vault)) WITHOUT ROWID;
CREATE TABLE point(id BLOB PRIMARY KEY, tag BLOB NOT NULL, sequence INTEGER NOT NULL, started INTEGER NOT NULL,
    hash BLOB NOT NULL, sum INTEGER NOT NULL, staged INTEGER NOT NULL, object BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE point_place(point BLOB NOT NULL REFERENCES point(id) ON DELETE CASCADE,
    vault INTEGER NOT NULL REFERENCES vault(no) ON DELETE CASCADE, PRIMARY KEY(point, vault)) WITHOUT ROWID;
CREATE TABLE generation(vault INTEGER NOT NULL REFERENCES vault(no) ON DELETE CASCADE, number INTEGER NOT NULL, final INTEGER NOT NULL,
    packs BLOB NOT NULL, sum INTEGER NOT NULL, len INTEGER NOT NULL, put_at INTEGER, PRIMARY KEY(vault, number));
CREATE TABLE hold(point BLOB PRIMARY KEY, tag BLOB NOT NULL, object BLOB NOT NULL, staged INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE hold_place(point BLOB NOT NULL REFERENCES hold(point) ON DELETE CASCADE,
    vault INTEGER NOT NULL REFERENCES vault(no) ON DELETE CASCADE, PRIMARY KEY(point, vault)) WITHOUT ROWID;
";

/// Sets the connection up and makes the tables in an empty database. `Corrupt` for one that is damaged, of
/// another store or of another version.
pub(super) fn prepare(c: &Connection, store: &[u8; 16]) -> Result<(), StoreError> {
    assert!(rusqlite::version_number() >= SQLITE_MIN, "SQLite {} may lose commits", rusqlite::version());
    c.busy_timeout(BUSY).map_err(error("open"))?;
    settings(c).map_err(error("open"))?;
    match identity(c)? {
        None => make_tables(c, store).map_err(error("make tables")),
        Some((VERSION, of)) if of == store => look_at_tables(c),
        Some(_) => Err(corrupt("it belongs to another store or version")),
    }
}

fn corrupt(detail: &str) -> StoreError {
    StoreError::Catalog { detail: detail.into(), class: ErrorClass::Corrupt }
}

/// SQLite believes whatever names and rules it reads, and a bit may flip there as well.
fn look_at_tables(c: &Connection) -> Result<(), StoreError> {
    let fresh = || {
        let fresh = Connection::open_in_memory()?;
        fresh.execute_batch(TABLES)?;
        tables(&fresh)
    };
    match tables(c).map_err(error("open"))? == fresh().map_err(error("open"))? {
        true => Ok(()),
        false => Err(corrupt("its tables are not those of this version")),
    }
}

/// Kind, name, table and text of all that is defined.
type Definition = (String, String, String, Option<String>);

fn tables(c: &Connection) -> rusqlite::Result<Vec<Definition>> {
    let mut select = c.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")?;
    select.query_map([], |row| row.try_into())?.collect()
}

fn make_tables(c: &Connection, store: &[u8; 16]) -> rusqlite::Result<()> {
    let t = rusqlite::Transaction::new_unchecked(c, rusqlite::TransactionBehavior::Immediate)?;
    t.execute_batch(TABLES)?;
    t.execute(
        "INSERT INTO meta VALUES ('version', ?1), ('store', ?2), ('instance', ?3)",
        (VERSION, &store[..], &random_bytes::<16>()[..]),
    )?;
    t.commit()
}

/// What tells this catalog from one that was made anew in its place.
pub(super) fn instance(c: &Connection) -> rusqlite::Result<Vec<u8>> {
    c.query_row("SELECT value FROM meta WHERE key = 'instance'", [], |row| row.get(0))
}

fn settings(c: &Connection) -> rusqlite::Result<()> {
    c.pragma_update(None, "journal_mode", "WAL")?;
    c.pragma_update(None, "synchronous", "FULL")?;
    c.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    common(c)
}

fn common(c: &Connection) -> rusqlite::Result<()> {
    c.pragma_update(None, "foreign_keys", "ON")?;
    c.pragma_update(None, "trusted_schema", "OFF")?;
    c.pragma_update(None, "cell_size_check", "ON")?;
    // One plan for each statement, whatever is bound: planning anew for each id took most of a look-up's time.
    c.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    c.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn identity(c: &Connection) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let read = || -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
        let tables: i64 = c.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 {
            return Ok(None);
        }
        let get = |key: &str| {
            c.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
        };
        let version: Option<i64> = get("version")?;
        let store =
            c.query_row("SELECT value FROM meta WHERE key = 'store'", [], |row| row.get(0)).optional()?;
        Ok(Some((version.unwrap_or(0), store.unwrap_or_default())))
    };
    read().map_err(|e| match error("open")(e) {
        StoreError::Catalog { detail, class: ErrorClass::Unavailable } => {
            StoreError::Catalog { detail, class: ErrorClass::Corrupt }
        }
        other => other,
    })
}

/// A connection that only reads. The catalog at `path` must still be the one that was opened first: in one made anew the
/// numbers of packs mean other packs.
pub(super) fn open_reader(path: &Path, of: &[u8]) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let c = Connection::open_with_flags(path, flags).map_err(error("open"))?;
    c.busy_timeout(BUSY).map_err(error("open"))?;
    let set_up = || {
        c.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        common(&c)?;
        c.pragma_update(None, "query_only", "ON")
    };
    set_up().map_err(error("open"))?;
    if instance(&c).map_err(error("open"))? != of {
        return Err(StoreError::Catalog {
            detail: "another process made it anew; start again".into(),
            class: ErrorClass::Unavailable,
        });
    }
    Ok(c)
}
