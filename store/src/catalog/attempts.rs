//! What is known of attempts to bring points into vaults: what the session of one saw when it began, which ones were open there when a
//! generation was first seen, which ones were revoked, and which one holds the point.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use super::{Catalog, VaultNo};
use crate::error::StoreError;
use crate::fence::Why;
use crate::format::{Parser, Put};
use crate::id::{Attempt, RecoveryPointId};

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
    /// What a session saw when it began, if it began. A note that is damaged is none: the session looks anew.
    pub fn session_seen(&self, vault: VaultNo, attempt: &Attempt) -> Result<Option<Seen>, StoreError> {
        let key = session_key(vault, attempt);
        Ok(self.note(&key)?.and_then(|value| {
            let mut p = Parser::new(&value);
            let seen = Seen { newest: p.u64().ok()?, unfinished: p.array::<1>().ok()? != [0] };
            (value == seen_value(&key, seen)).then_some(seen)
        }))
    }

    /// Notes what a session sees when it begins; takes the note away when it has ended.
    pub fn set_session_seen(
        &self,
        vault: VaultNo,
        attempt: &Attempt,
        seen: Option<Seen>,
    ) -> Result<(), StoreError> {
        let key = session_key(vault, attempt);
        self.write("make a note", |t| match seen {
            None => t.execute("DELETE FROM meta WHERE key = ?1", [&key]).map(drop),
            Some(seen) => {
                let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
                t.execute(sql, params![key, seen_value(&key, seen)]).map(drop)
            }
        })
    }

    /// Of the attempts that were open in a vault when this generation was first seen there those that are noted; `None` if none are, or the
    /// note is damaged.
    pub fn open_before(&self, vault: VaultNo, number: u64) -> Result<Option<HashSet<Attempt>>, StoreError> {
        let key = before_key(vault);
        Ok(self.note(&key)?.and_then(|value| {
            let mut p = Parser::new(&value);
            let of = p.u64().ok()?;
            let count = p.left().checked_sub(4)? / 17;
            let open = (0..count).map(|_| read_attempt(&mut p)).collect::<Option<_>>()?;
            (of == number && value == before_value(&key, number, &open)).then_some(open)
        }))
    }

    /// Notes them. Those of an earlier generation need not be known any more.
    pub fn set_open_before(
        &self,
        vault: VaultNo,
        number: u64,
        open: &HashSet<Attempt>,
    ) -> Result<(), StoreError> {
        let key = before_key(vault);
        self.write("make a note", |t| {
            let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
            t.execute(sql, params![key, before_value(&key, number, open)]).map(drop)
        })
    }

    fn note(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read("read a note", |c| {
            c.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
        })
    }

    /// Number of the last attempt at which a point was seen in a vault; 0 also if it never was.
    pub fn seen_at(&self, vault: VaultNo, point: &RecoveryPointId) -> Result<u8, StoreError> {
        let key = seen_key(vault, point);
        let number: Option<Option<u8>> = self.read("read a note", |c| {
            let sql = "SELECT value FROM meta WHERE key = ?1";
            c.query_row(sql, [&key], |row| Ok(row.get(0).ok())).optional()
        })?;
        Ok(number.flatten().unwrap_or_default())
    }

    /// Notes at which attempt a point is in a vault.
    pub fn set_seen_at(&self, vault: VaultNo, attempt: &Attempt) -> Result<(), StoreError> {
        if attempt.number == 0 || attempt.number <= self.seen_at(vault, &attempt.point)? {
            return Ok(());
        }
        let key = seen_key(vault, &attempt.point);
        self.write("make a note", |t| {
            let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
            t.execute(sql, params![key, attempt.number]).map(drop)
        })
    }

    /// Notes that a vault has the word that an attempt is revoked, or that it has it not.
    pub fn set_revoked(&self, vault: VaultNo, attempt: &Attempt, why: Option<Why>) -> Result<(), StoreError> {
        let known = self.revocations(vault, &attempt.point)?.into_iter().find(|known| known.0 == *attempt);
        if known.map(|known| known.1) == why {
            return Ok(());
        }
        let key = revoked_key(vault, attempt);
        self.write("make a note", |t| match why {
            None => t.execute("DELETE FROM meta WHERE key = ?1", [&key]).map(drop),
            Some(why) => {
                let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
                t.execute(sql, params![key, why as u8]).map(drop)
            }
        })
    }

    /// Attempts that are known to be revoked in a vault.
    pub fn revoked_in(&self, vault: VaultNo) -> Result<HashSet<Attempt>, StoreError> {
        let known = self.revocations_below(&format!("revoked {}", vault.0))?;
        Ok(known.into_iter().map(|(attempt, _)| attempt).collect())
    }

    /// Why an attempt is revoked in a vault, if it is known to be.
    pub fn why_revoked_at(&self, vault: VaultNo, attempt: &Attempt) -> Result<Option<Why>, StoreError> {
        let known = self.revocations(vault, &attempt.point)?;
        Ok(known.into_iter().find(|(known, _)| known == attempt).map(|(_, why)| why))
    }

    /// Whether a point that was seen in a vault at an attempt is known to have been removed there on purpose.
    pub fn was_removed(&self, vault: VaultNo, point: &RecoveryPointId, seen: u8) -> Result<bool, StoreError> {
        Ok(self.revocations(vault, point)?.iter().any(|(attempt, why)| why.removes(attempt, seen)))
    }

    /// Why the last attempt that is known to be revoked was, of those to bring a point into a vault. If the point is not there, that is why;
    /// not of one that came there with a later attempt.
    pub fn why_revoked(&self, vault: VaultNo, point: &RecoveryPointId) -> Result<Option<Why>, StoreError> {
        let seen = self.seen_at(vault, point)?;
        let last = self.revocations(vault, point)?.into_iter().max_by_key(|(attempt, _)| attempt.number);
        let last = last.filter(|(attempt, _)| attempt.number >= seen);
        Ok(last.map(|(_, why)| why))
    }

    fn revocations(
        &self,
        vault: VaultNo,
        point: &RecoveryPointId,
    ) -> Result<Vec<(Attempt, Why)>, StoreError> {
        self.revocations_below(&format!("revoked {} {}", vault.0, point.hex()))
    }

    /// A note that makes no sense is none: the vault is asked again.
    fn revocations_below(&self, key: &str) -> Result<Vec<(Attempt, Why)>, StoreError> {
        let notes: Vec<(String, Option<u8>)> = self.read("read notes", |c| {
            // By the order of keys, in which `!` follows the space: there may be as many as points were ever forgotten.
            c.prepare_cached("SELECT key, value FROM meta WHERE key >= ?1 || ' ' AND key < ?1 || '!'")?
                .query_map([key], |row| Ok((row.get(0)?, row.get(1).ok())))?
                .collect()
        })?;
        let read = |(key, why): &(String, Option<u8>)| Some((attempt_of(key)?, Why::from_number((*why)?)?));
        Ok(notes.iter().filter_map(read).collect())
    }
}

fn revoked_key(vault: VaultNo, attempt: &Attempt) -> String {
    format!("revoked {} {} {}", vault.0, attempt.point.hex(), attempt.number)
}

fn attempt_of(key: &str) -> Option<Attempt> {
    let mut parts = key.split(' ').skip(2);
    let attempt =
        Attempt { point: RecoveryPointId::from_hex(parts.next()?)?, number: parts.next()?.parse().ok()? };
    parts.next().is_none().then_some(attempt)
}

fn seen_key(vault: VaultNo, point: &RecoveryPointId) -> String {
    format!("held {} {}", vault.0, point.hex())
}

fn before_key(vault: VaultNo) -> String {
    format!("open before {}", vault.0)
}

fn read_attempt(p: &mut Parser<'_>) -> Option<Attempt> {
    let point = RecoveryPointId(p.array().ok()?);
    let [number] = p.array().ok()?;
    Some(Attempt { point, number })
}

/// With a sum: an attempt that is missing would not be waited for.
fn before_value(key: &str, number: u64, open: &HashSet<Attempt>) -> Vec<u8> {
    let mut sorted: Vec<_> = open.iter().collect();
    sorted.sort();
    let mut out = Vec::with_capacity(12 + 17 * sorted.len());
    out.u64(number);
    for attempt in sorted {
        out.raw(&attempt.point.0);
        out.raw(&[attempt.number]);
    }
    out.u32(crc32c::crc32c_append(crc32c::crc32c(key.as_bytes()), &out));
    out
}

fn session_key(vault: VaultNo, attempt: &Attempt) -> String {
    format!("session {} {attempt}", vault.0)
}

/// With a sum: a session that takes itself for older than it is would rely on what is about to go.
fn seen_value(key: &str, seen: Seen) -> Vec<u8> {
    let mut out = Vec::with_capacity(13);
    out.u64(seen.newest);
    out.raw(&[u8::from(seen.unfinished)]);
    out.u32(crc32c::crc32c_append(crc32c::crc32c(key.as_bytes()), &out));
    out
}
