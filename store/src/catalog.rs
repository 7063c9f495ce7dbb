//! The catalog: a local SQLite database that knows what staging and the vaults hold. It is a cache: everything in it
//! can be made again from the objects themselves, and it holds no file names in clear (points are kept sealed).
//!
//! One process writes at a time (the store's lock); readers of any process go on beside it (WAL). `synchronous=FULL`,
//! because staged packs may be evicted on the word of a commit.

mod annexes;
mod attempts;
mod chunks;
mod damage;
mod generations;
mod holds;
mod indexes;
mod marks;
mod packs;
mod places;
mod points;
mod schema;
mod verified;

#[cfg(test)]
mod tests;

pub use attempts::Seen;
pub use chunks::Relied;
pub use damage::DamagedChunks;
pub use holds::HoldRow;
pub use marks::Mark;
pub use points::{DamagedPoint, PointLine, PointRow};
pub use verified::{KnownCopy, Proof};

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::ffi::SQLITE_ERROR;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::error::{ErrorClass, StoreError};
use crate::format::FormatError;
use crate::id::{ChunkId, PackId};
use crate::pack::PackEntry;
use crate::staging::give_up_reserve;

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
    /// Guards what is above, with the chunk's id and the pack's: see [`Location::is_of`].
    pub sum: u32,
}

impl Location {
    /// Whether it is of this chunk in this pack. The number of a pack alone may have come to mean another one, in a catalog that was damaged or
    /// put back from a copy.
    pub fn is_of(&self, chunk: &ChunkId, pack: &PackId) -> bool {
        self.sum == chunks::row_sum(chunk, pack, self.start, self.len)
    }
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
    /// The store's directory, where the reserve lies; nowhere if the catalog is in memory.
    dir: Option<PathBuf>,
    /// Device and number of the file there, when it was opened.
    file: Option<(u64, u64)>,
    instance: Vec<u8>,
    /// Why the one before it was set aside, if one was when this one was opened.
    aside: Option<String>,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

/// Connections for reading that are kept when idle.
const IDLE_READERS: usize = 8;

/// Whether something is not what was written: a value, a row that is always there, or the tables themselves, for what is asked of them is always
/// the same.
fn reads_otherwise(e: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    let values = matches!(
        e,
        E::FromSqlConversionFailure(..) | E::InvalidColumnType(..) | E::IntegralValueOutOfRange(..)
    );
    let refused = matches!(e, E::SqliteFailure(why, _) if why.extended_code == SQLITE_ERROR);
    values || refused || matches!(e, E::QueryReturnedNoRows | E::SqlInputError { .. })
}

/// A row that no longer reads as what was written.
fn damaged(what: impl Into<String>) -> rusqlite::Error {
    damaged_by(FormatError::damaged(what))
}

fn damaged_by(error: FormatError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
}

fn error(during: &str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    let during = during.to_owned();
    move |e| {
        let class = match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => ErrorClass::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorClass::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorClass::Corrupt,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => ErrorClass::Denied,
            // What no longer reads as what was written.
            _ if reads_otherwise(&e) => ErrorClass::Corrupt,
            _ => ErrorClass::Unavailable,
        };
        let detail = match &e {
            // Ours, in rusqlite's envelope.
            rusqlite::Error::FromSqlConversionFailure(_, _, why) => format!("{during}: {why}"),
            e => format!("{during}: {e}"),
        };
        StoreError::Catalog { detail, class }
    }
}

impl Catalog {
    /// Opens or makes the catalog at `path`. One that is damaged, foreign or of another version is set aside as
    /// `catalog.db.damaged` and made anew, empty. Whether it was ever filled, [`Mark::Filled`] says.
    pub fn open(path: &Path, store: &[u8; 16]) -> Result<Self, StoreError> {
        let mut aside = None;
        let connection = match Self::open_file(path, store) {
            Err(e) if e.class() == ErrorClass::Corrupt => {
                set_aside(path)?;
                aside = Some(e.to_string());
                Self::open_file(path, store)?
            }
            Err(e) if matches!(e.class(), ErrorClass::Unavailable | ErrorClass::Full) => {
                return Self::open_alone(path, store).map_err(|_| e);
            }
            opened => opened?,
        };
        Ok(Self { aside, ..Self::of(connection, Some(path.to_path_buf()))? })
    }

    /// Why the catalog before this one was set aside, if one was.
    pub(crate) fn replaces_another(&self) -> Option<&str> {
        self.aside.as_deref()
    }

    /// Another process may have set this catalog aside, or somebody deleted it: then it tells what was, and nothing new.
    fn is_replaced(&self) -> bool {
        let Some((path, file)) = self.path.as_deref().zip(self.file) else { return false };
        match file_of(path) {
            Ok(there) => there != file,
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// On a disk without room for the memory that processes share about a catalog (32 KiB): one process alone needs none, and
    /// reading must go on.
    fn open_alone(path: &Path, store: &[u8; 16]) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(error("open"))?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(error("open"))?;
        schema::prepare(&connection, store)?;
        tracing::warn!(path = %path.display(), "no room on the disk: until this program ends no other can use the store");
        Self::of(connection, None)
    }

    fn of(connection: Connection, path: Option<PathBuf>) -> Result<Self, StoreError> {
        let instance = schema::instance(&connection).map_err(error("open"))?;
        // Without it nobody looks whether it is still there.
        let file = path.as_deref().and_then(|path| file_of(path).ok());
        let dir = connection.path().and_then(|file| Path::new(file).parent()).map(Path::to_path_buf);
        let writer = Mutex::new(connection);
        Ok(Self { path, dir, file, instance, aside: None, writer, readers: Mutex::default() })
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
        schema::instance(&connection).map_err(error("open"))?;
        Ok(connection)
    }

    /// As if no pack had ever been known: numbers begin anew.
    #[cfg(test)]
    pub(crate) fn forget_all_packs(&self) {
        let sql = "DELETE FROM chunk; DELETE FROM pack; DELETE FROM sqlite_sequence";
        self.writer().execute_batch(sql).expect("a catalog in memory");
    }

    /// As if a bit had flipped in the row that tells where a chunk lies in a pack.
    #[cfg(test)]
    pub(crate) fn damage_place(&self, no: PackNo, id: &ChunkId) {
        let sql = "UPDATE chunk SET len = len + 1 WHERE pack = ?1 AND id = ?2";
        let changed = self.writer().execute(sql, rusqlite::params![no.0, &id.0[..]]);
        assert_eq!(changed.expect("a catalog in memory"), 1);
    }

    /// Looks for packs and chunks fail from now on.
    #[cfg(test)]
    pub(crate) fn lose_tables(&self) {
        let sql = "ALTER TABLE chunk RENAME TO lost_chunk; ALTER TABLE pack RENAME TO lost_pack";
        self.writer().execute_batch(sql).expect("a catalog in memory");
    }

    /// As a bit flip can: the table itself takes no point without a key.
    #[cfg(test)]
    pub(crate) fn let_keys_be_null(&self) {
        let sql = "PRAGMA foreign_keys = OFF; CREATE TABLE loose(id BLOB UNIQUE, tag, sequence, started, hash, sum, staged, object);
            DROP TABLE point; ALTER TABLE loose RENAME TO point; PRAGMA foreign_keys = ON";
        self.writer().execute_batch(sql).expect("a catalog in memory");
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

    /// Runs `f` in a transaction. Where the disk is full what is kept for that is given up, and it is tried once more.
    pub(crate) fn write<T>(
        &self,
        during: &str,
        f: impl Fn(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        match self.try_write(during, &f) {
            Err(e) if e.class() == ErrorClass::Full && self.gives_up_reserve() => self.try_write(during, &f),
            written => written,
        }
    }

    fn gives_up_reserve(&self) -> bool {
        self.dir.as_deref().is_some_and(give_up_reserve)
    }

    fn try_write<T>(
        &self,
        during: &str,
        f: impl Fn(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.writer();
        // One that began by reading would fail at once, without waiting, if another process wrote before it does.
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error(during))?;
        let result = f(&transaction).map_err(error(during))?;
        transaction.commit().map_err(error(during))?;
        Ok(result)
    }
}

fn file_of(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
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
