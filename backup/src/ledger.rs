//! The ledger: which jobs ran, when, and how they ended. A file of its own (`ledger.db`), for unlike the catalog it cannot be made again
//! from anything; and nothing but what people are told, and when things are done next, depends on it.
//!
//! One process writes (the daemon; beside it a check that a person typed puts down its end), any may read. A ledger that is damaged, or of another version, is put aside as
//! `ledger.db.damaged`, and a new one begins; one of an earlier version is brought up.

mod alerts;
mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_store::clock::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use crate::agenda::{Cut, Past, Task, Work};
pub use alerts::Untold;
pub use checks::DAMAGED;

/// Its name in the store's directory.
const NAME: &str = "ledger.db";
/// 2 has alerts, 3 what jobs sent.
const VERSION: i64 = 3;
/// How long one process waits for another's commit.
const BUSY: Duration = Duration::from_secs(20);
/// Jobs that are remembered, beside those that say when a task was last done: a year of one every quarter of an hour, for two groups.
const JOBS_MAX: i64 = 100_000;
/// Jobs that were done, of each work, whose points are news: a tier is expired after each of them but for those that come within minutes. Where
/// more have passed it was not expired, as one without rules is not.
const NEWS_JOBS_MAX: u32 = 3;
/// Bytes of what a job said that are kept.
const SAID_MAX: usize = 4096;

// `process` held the number of a job's process once; nobody needs it.
const TABLES: &str = "
CREATE TABLE job(no INTEGER PRIMARY KEY AUTOINCREMENT, work TEXT NOT NULL, grp TEXT, person INTEGER NOT NULL, begun INTEGER NOT NULL,
    ended INTEGER, state TEXT NOT NULL, process INTEGER NOT NULL, said TEXT NOT NULL, points TEXT NOT NULL);
CREATE INDEX job_by_task ON job(work, grp, no);
";

const SENT: &str = "ALTER TABLE job ADD COLUMN sent INTEGER";

/// Of each task the last job stays, and the last one that was done: what is rare is not due again because much else was done.
const FORGET: &str = "
DELETE FROM job WHERE no <= ?1
    AND EXISTS (SELECT 1 FROM job AS later WHERE later.work = job.work AND later.grp IS job.grp AND later.no > job.no)
    AND (state NOT IN ('done', 'partial') OR EXISTS (SELECT 1 FROM job AS later
        WHERE later.work = job.work AND later.grp IS job.grp AND later.no > job.no AND later.state IN ('done', 'partial')))";

const COLUMNS: &str = "no, work, grp, person, begun, ended, state, said, points, sent";
/// The same of a ledger that has not been brought up yet.
const OLD_COLUMNS: &str = "no, work, grp, person, begun, ended, state, said, points, NULL";

/// Number of a job; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobNo(pub i64);

impl fmt::Display for JobNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a job is, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It runs.
    Running,
    /// All of it was done.
    Done,
    /// Something of it could not be done.
    Partial,
    /// It was not done.
    Failed,
    /// It was asked to stop.
    Cancelled,
    /// Its end was not seen: the daemon or the machine ended before.
    Lost,
}

const STATES: [(JobState, &str); 6] = [
    (JobState::Running, "running"),
    (JobState::Done, "done"),
    (JobState::Partial, "partial"),
    (JobState::Failed, "failed"),
    (JobState::Cancelled, "cancelled"),
    (JobState::Lost, "lost"),
];

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STATES.iter().find(|(state, _)| state == self).map_or("", |(_, word)| word))
    }
}

impl JobState {
    fn cut(self) -> Option<Cut> {
        match self {
            Self::Cancelled => Some(Cut::Cancelled),
            Self::Lost => Some(Cut::Lost),
            _ => None,
        }
    }
}

impl FromStr for JobState {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = STATES.iter().find(|(_, known)| *known == word);
        found.map(|(state, _)| *state).ok_or_else(|| format!("{word:?} is no state of a job"))
    }
}

/// A job that ran, or runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub no: JobNo,
    /// What was to be done.
    pub task: Task,
    /// Whether a person asked for it; else it was its time.
    pub person: bool,
    /// When it began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub state: JobState,
    /// What it said of troubles.
    pub said: String,
    /// The recovery points that it made, or brought into a vault, as their ids.
    pub points: Vec<String>,
    /// Bytes that it put into vaults, if it told.
    pub sent: Option<u64>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// How.
    pub state: JobState,
    /// What it said of troubles.
    pub said: String,
    /// The recovery points that it made, as their ids.
    pub points: Vec<String>,
    /// Bytes that it put into vaults, if it told.
    pub sent: Option<u64>,
}

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the ledger {}: {source}", path.display())]
pub struct LedgerError {
    /// Verb: `open`, `read`, `write`.
    pub action: &'static str,
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: rusqlite::Error,
}

impl LedgerError {
    /// Whether there is no room for it.
    pub fn is_full(&self) -> bool {
        self.source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    }

    /// Whether the ledger is damaged, so that [`Ledger::open`] begins another.
    pub fn is_damage(&self) -> bool {
        is_damage(&self.source)
    }
}

/// The jobs of a store.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Device and number of its file.
    file: Option<(u64, u64)>,
    /// What is read of a job.
    columns: &'static str,
}

/// What lies where a ledger's file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file.
    Same,
    /// Nothing: it was removed.
    Empty,
    /// Another file.
    Another,
}

impl Ledger {
    /// Opens the ledger of the store in `dir` for the one process that writes to it, and begins it if there is none, or none that can be
    /// read. The second value is where the old one is then.
    pub fn open(dir: &Path) -> Result<(Self, Option<PathBuf>), LedgerError> {
        let path = dir.join(NAME);
        let failed = |source| LedgerError { action: "open", path: path.clone(), source };
        match prepare(&path) {
            Ok(connection) => Ok((Self::of(&path, connection), None)),
            Err(error) if is_damage(&error) => {
                let aside = put_aside(&path);
                Ok((Self::of(&path, prepare(&path).map_err(failed)?), aside))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The same for another process than that one, which leaves a damaged one as it is.
    fn join(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join(NAME);
        match prepare(&path) {
            Ok(connection) => Ok(Self::of(&path, connection)),
            Err(source) => Err(LedgerError { action: "open", path, source }),
        }
    }

    /// The same to read from only; `None` if there is none, or one that is just being made.
    pub fn look(dir: &Path) -> Result<Option<Self>, LedgerError> {
        let path = dir.join(NAME);
        if !path.exists() {
            return Ok(None);
        }
        let open = || {
            // One that its writer did not close has to be put in order first, which takes the right to write.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let c = Connection::open_with_flags(&path, flags)?;
            c.busy_timeout(BUSY)?;
            c.pragma_update(None, "query_only", "ON")?;
            if version(&c)? == 0 {
                return Ok(None);
            }
            // An earlier one lacks alerts, or what jobs sent, and no more.
            match version(&c)? {
                1 | 2 => Ok(Some((c, OLD_COLUMNS))),
                _ => expect_version(&c).map(|()| Some((c, COLUMNS))),
            }
        };
        match open() {
            Ok(opened) => Ok(opened.map(|(c, columns)| Self { columns, ..Self::of(&path, c) })),
            Err(source) => Err(LedgerError { action: "open", path, source }),
        }
    }

    fn of(path: &Path, connection: Connection) -> Self {
        let (path, connection) = (path.to_path_buf(), Mutex::new(connection));
        Self { file: file_at(&path), path, connection, columns: COLUMNS }
    }

    /// What lies now where its file was. What is put down into a file that was removed nobody else sees, and it is gone when it is closed.
    pub fn place(&self) -> Place {
        match file_at(&self.path) {
            None => Place::Empty,
            found if found == self.file => Place::Same,
            Some(_) => Place::Another,
        }
    }

    /// Puts back its file, which was removed, with all that it remembers. Whatever fails, [`Ledger::open`] begins another.
    pub fn put_back(&mut self) -> Result<(), LedgerError> {
        let new = beside(&self.path, ".new");
        let _ = std::fs::remove_file(&new);
        make_private(&new);
        self.tried("write", |c| c.execute("VACUUM INTO ?1", [new.to_string_lossy()]))?;
        // Who closes one removes by name what lies beside its file, so that comes first.
        let nothing = Connection::open_in_memory();
        let nothing = nothing.map_err(|source| self.failed("open", source))?;
        drop(std::mem::replace(self.connection.get_mut().unwrap_or_else(PoisonError::into_inner), nothing));
        remove_logs(&self.path);
        // If it cannot be moved, an empty one is begun.
        let _ = std::fs::rename(&new, &self.path);
        let connection = prepare(&self.path).map_err(|source| self.failed("open", source))?;
        *self = Self::of(&self.path, connection);
        Ok(())
    }

    /// Puts down that a job begins, before it is known whether it can.
    pub fn begin(&self, task: &Task, person: bool, at: Timestamp) -> Result<JobNo, LedgerError> {
        self.write(|c| {
            c.execute(
                "INSERT INTO job(work, grp, person, begun, state, process, said, points)
                 VALUES (?1, ?2, ?3, ?4, 'running', 0, '', '')",
                (task.work.to_string(), &task.group, person, at.seconds),
            )?;
            let no = c.last_insert_rowid();
            c.execute(FORGET, [no - JOBS_MAX])?;
            Ok(JobNo(no))
        })
    }

    /// Puts down how a job ended.
    pub fn end(&self, no: JobNo, ended: &Ended) -> Result<(), LedgerError> {
        let (said, points) = (shortened(&ended.said), ended.points.join(" "));
        let sent = ended.sent.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        self.write(|c| {
            c.execute(
                "UPDATE job SET ended = ?2, state = ?3, said = ?4, points = ?5, sent = ?6 WHERE no = ?1",
                (no.0, ended.at.seconds, ended.state.to_string(), said, points, sent),
            )
            .map(drop)
        })
    }

    /// The last jobs, the newest first.
    pub fn jobs(&self, most: u32) -> Result<Vec<Job>, LedgerError> {
        let sql = format!("SELECT {} FROM job ORDER BY no DESC LIMIT ?1", self.columns);
        self.read(|c| c.prepare_cached(&sql)?.query_map([most], job)?.collect())
    }

    /// When the first job began that is remembered.
    pub fn first(&self) -> Result<Option<Timestamp>, LedgerError> {
        let begun: Option<i64> =
            self.read(|c| c.query_row("SELECT min(begun) FROM job", [], |row| row.get(0)))?;
        Ok(begun.map(Timestamp::from_seconds))
    }

    /// Jobs whose end was not put down.
    pub fn running(&self) -> Result<Vec<Job>, LedgerError> {
        let sql = format!("SELECT {} FROM job WHERE state = 'running' ORDER BY no", self.columns);
        self.read(|c| c.prepare_cached(&sql)?.query_map([], job)?.collect())
    }

    /// The last job of a task that ended in one of these ways.
    pub fn last(&self, task: &Task, states: &[JobState]) -> Result<Option<Job>, LedgerError> {
        let states: Vec<String> = states.iter().map(|state| format!("'{state}'")).collect();
        let sql = format!(
            "SELECT {} FROM job WHERE work = ?1 AND grp IS ?2 AND state IN ({}) ORDER BY no DESC LIMIT 1",
            self.columns,
            states.join(",")
        );
        let work = task.work.to_string();
        self.read(|c| c.prepare_cached(&sql)?.query_row((work, &task.group), job).optional())
    }

    /// What is known of these tasks.
    pub fn pasts<'a>(
        &self,
        tasks: impl IntoIterator<Item = &'a Task>,
    ) -> Result<BTreeMap<Task, Past>, LedgerError> {
        tasks.into_iter().map(|task| Ok((task.clone(), self.past(task)?))).collect()
    }

    /// What is known of a task.
    pub fn past(&self, task: &Task) -> Result<Past, LedgerError> {
        let good = self.last(task, &[JobState::Done, JobState::Partial])?;
        let every: Vec<JobState> = STATES.iter().map(|(state, _)| *state).collect();
        let last = self.last(task, &every)?;
        let since = good.as_ref().map_or(0, |job| job.no.0);
        let failures = self.read(|c| {
            c.query_row(
                "SELECT count(*) FROM job WHERE work = ?1 AND grp IS ?2 AND no > ?3 AND state = 'failed'",
                (task.work.to_string(), &task.group, since),
                |row| row.get(0),
            )
        })?;
        Ok(Past {
            begun: last.as_ref().map(|job| job.begun),
            good: good.map(|job| job.begun),
            cut: last.as_ref().and_then(|job| job.state.cut()),
            ended: last.and_then(|job| job.ended),
            failures,
        })
    }

    /// The recovery points that came into a tier of a group since it was last expired by the task `expiry`, by jobs of these works: by the
    /// last few that were done, and what failed before each of them. None, if it never was: what it holds then nobody looked at before.
    pub fn news(&self, expiry: &Task, works: &[Work]) -> Result<BTreeSet<String>, LedgerError> {
        let Some(last) = self.last(expiry, &[JobState::Done, JobState::Partial])? else {
            return Ok(BTreeSet::new());
        };
        // One that ran when it began may be older by its number.
        let sql = format!(
            "SELECT {} FROM job WHERE work = ?1 AND grp IS ?2 AND (no > ?3 OR ended > ?4) ORDER BY no DESC",
            self.columns
        );
        let mut news = BTreeSet::new();
        for work in works {
            let key = (work.to_string(), &expiry.group, last.no.0, last.begun.seconds);
            let jobs: Vec<Job> = self.read(|c| c.prepare_cached(&sql)?.query_map(key, job)?.collect())?;
            let mut done = 0;
            for job in jobs {
                done += u32::from(matches!(job.state, JobState::Done | JobState::Partial));
                if done > NEWS_JOBS_MAX {
                    break;
                }
                news.extend(job.points);
            }
        }
        Ok(news)
    }

    /// When jobs of each task last ended, for each way in which they did.
    pub fn last_ends(&self) -> Result<Vec<(Task, JobState, Timestamp)>, LedgerError> {
        let sql =
            "SELECT work, grp, state, max(ended) FROM job WHERE ended IS NOT NULL GROUP BY work, grp, state";
        self.read(|c| {
            c.prepare_cached(sql)?
                .query_map([], |row| {
                    let task = Task { work: parsed(row, 0)?, group: row.get(1)? };
                    Ok((task, parsed(row, 2)?, Timestamp::from_seconds(row.get(3)?)))
                })?
                .collect()
        })
    }

    /// The groups of which a backup was ever a job: the configuration had them then.
    pub fn groups(&self) -> Result<BTreeSet<String>, LedgerError> {
        let sql = "SELECT DISTINCT grp FROM job WHERE work = ?1 AND grp IS NOT NULL";
        self.read(|c| c.prepare_cached(sql)?.query_map([Work::Take.to_string()], |row| row.get(0))?.collect())
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, get: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        self.tried("read", get)
    }

    fn write<T>(&self, put: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        self.tried("write", |c| {
            let t = rusqlite::Transaction::new_unchecked(c, rusqlite::TransactionBehavior::Immediate)?;
            let value = put(&t)?;
            t.commit().map(|()| value)
        })
    }

    fn tried<T>(
        &self,
        action: &'static str,
        with: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        with(&self.connection()).map_err(|source| self.failed(action, source))
    }

    fn failed(&self, action: &'static str, source: rusqlite::Error) -> LedgerError {
        LedgerError { action, path: self.path.clone(), source }
    }
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Names of files that could not be read are nobody else's business. If it cannot be made, opening it says why.
fn make_private(path: &Path) {
    let mut private = OpenOptions::new();
    drop(private.read(true).write(true).create(true).truncate(false).mode(0o600).open(path));
}

fn prepare(path: &Path) -> rusqlite::Result<Connection> {
    make_private(path);
    let c = Connection::open(path)?;
    c.busy_timeout(BUSY)?;
    c.pragma_update(None, "journal_mode", "WAL")?;
    c.pragma_update(None, "synchronous", "FULL")?;
    c.pragma_update(None, "trusted_schema", "OFF")?;
    let tables: i64 = c.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        let t = rusqlite::Transaction::new_unchecked(&c, rusqlite::TransactionBehavior::Immediate)?;
        t.execute_batch(TABLES)?;
        t.pragma_update(None, "user_version", 1)?;
        t.commit()?;
    }
    for (from, what) in [(1, alerts::TABLES), (2, SENT)] {
        if version(&c)? == from {
            let t = rusqlite::Transaction::new_unchecked(&c, rusqlite::TransactionBehavior::Immediate)?;
            t.execute_batch(what)?;
            t.pragma_update(None, "user_version", from + 1)?;
            t.commit()?;
        }
    }
    expect_version(&c)?;
    match c.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?.as_str() {
        "ok" => Ok(c),
        _ => Err(damage()),
    }
}

fn damage() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None)
}

fn version(c: &Connection) -> rusqlite::Result<i64> {
    c.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn expect_version(c: &Connection) -> rusqlite::Result<()> {
    match version(c)? {
        VERSION => Ok(()),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
    }
}

/// Whether a new ledger can help.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..) => true,
        error => matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)),
    }
}

fn put_aside(path: &Path) -> Option<PathBuf> {
    let aside = beside(path, ".damaged");
    let moved = std::fs::rename(path, &aside).is_ok();
    remove_logs(path);
    moved.then_some(aside)
}

/// What SQLite has beside a file would be taken for what belongs to the next one of its name.
fn remove_logs(path: &Path) {
    for of_old in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(path, of_old));
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// A word of a column.
fn parsed<T: FromStr<Err = String>>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let wrong = |what: String| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, what.into())
    };
    row.get::<_, String>(at)?.parse().map_err(wrong)
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let points: String = row.get(8)?;
    Ok(Job {
        no: JobNo(row.get(0)?),
        task: Task { work: parsed(row, 1)?, group: row.get(2)? },
        person: row.get(3)?,
        begun: Timestamp::from_seconds(row.get(4)?),
        ended: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_seconds),
        state: parsed(row, 6)?,
        said: row.get(7)?,
        points: points.split_whitespace().map(str::to_owned).collect(),
        sent: row.get::<_, Option<i64>>(9)?.map(i64::unsigned_abs),
    })
}

/// The end of what was said, for the reason stands there.
fn shortened(said: &str) -> &str {
    let mut from = said.len().saturating_sub(SAID_MAX);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    said.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
