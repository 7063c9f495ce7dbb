//! Short notes in the catalog: what was filled, what is in doubt, which point of a vault was proven whole.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use super::{Catalog, PackNo, PackRow, VaultNo};
use crate::error::StoreError;
use crate::id::{PackId, RecoveryPointId, SourceTag};

/// How often doubt was cast.
const DOUBTS: &str = "doubts";

/// A note that is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The catalog knows all that staging held when it was made. Without it the catalog tells of nothing.
    Filled,
    /// The catalog knows all that a vault held when it was first met.
    FilledFrom(VaultNo),
    /// A row was forgotten of which it is not sure whose it was: what the vault holds is to be read again.
    Reread(VaultNo),
    /// Something that points need may be missing: each chunk that a new point relies on must be looked up, until a check that began after
    /// the doubt was cast last finds everything ([`Catalog::end_doubt`]). Whoever learns of a loss casts it, with or without a lock.
    Doubtful,
    /// A vault's copy of a pack has its length and was read, and its bytes are others.
    BadIn(VaultNo, PackId),
    /// A check did not find a vault's copy of a pack with its length. Who frees another place does not count on it until one does.
    NotShown(VaultNo, PackId),
    /// A point is being removed from staging or a vault: if it is missing there, that was meant. It goes with the row.
    Going(Option<VaultNo>, RecoveryPointId),
    /// A point lacks something in a vault, be it the point itself. It counts as there only while no other place has it.
    Incomplete(VaultNo, RecoveryPointId),
    /// A pack was known to be damaged in an annex that went away.
    BadAway(PackId),
    /// A pack was in staging and is not there any more, though nobody removed it. It goes when the pack comes back, or goes by right.
    MissedHere(PackId),
}

/// Of a row of `place` for the pack `p`: no [`Mark::BadIn`] says that the copy there is damaged.
pub(super) const NOT_BAD_THERE: &str =
    "NOT EXISTS (SELECT 1 FROM meta WHERE key = 'bad ' || place.vault || ' ' || lower(hex(p.id)))";

impl Mark {
    fn key(self) -> String {
        match self {
            Self::Filled => "filled".into(),
            Self::FilledFrom(no) => format!("filled {}", no.0),
            Self::Reread(no) => format!("reread {}", no.0),
            Self::Doubtful => "doubtful".into(),
            Self::BadIn(no, id) => format!("bad {} {}", no.0, id.hex()),
            Self::NotShown(no, id) => format!("notshown {} {}", no.0, id.hex()),
            Self::Going(None, id) => format!("going {}", id.hex()),
            Self::Going(Some(no), id) => format!("going {} {}", no.0, id.hex()),
            Self::Incomplete(no, id) => format!("incomplete {} {}", no.0, id.hex()),
            Self::BadAway(id) => format!("badaway {}", id.hex()),
            Self::MissedHere(id) => format!("missed {}", id.hex()),
        }
    }
}

impl Catalog {
    /// Whether a note is there.
    pub fn has_mark(&self, mark: Mark) -> Result<bool, StoreError> {
        self.read("read a note", |c| {
            c.query_row("SELECT EXISTS (SELECT 1 FROM meta WHERE key = ?1)", [mark.key()], |row| row.get(0))
        })
    }

    /// Whether the catalog knows all that a vault held when it was last read whole.
    pub fn knows_all_in(&self, no: VaultNo) -> Result<bool, StoreError> {
        Ok(self.has_mark(Mark::FilledFrom(no))? && !self.has_mark(Mark::Reread(no))?)
    }

    /// Makes a note, or takes it away. Nothing is written to take away what is not there.
    pub fn set_mark(&self, mark: Mark, there: bool) -> Result<(), StoreError> {
        if !there && !self.has_mark(mark)? {
            return Ok(());
        }
        if there && mark == Mark::Doubtful {
            return self.cast_doubt();
        }
        let sql = match there {
            true => "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, 1)",
            false => "DELETE FROM meta WHERE key = ?1",
        };
        self.write("make a note", |t| t.execute(sql, [mark.key()]).map(drop))
    }

    /// The number of the doubt that was cast last, if it stands: who is about to look at everything reads it first.
    pub fn doubt(&self) -> Result<Option<i64>, StoreError> {
        self.read("read a note", |c| {
            let sql = "SELECT value FROM meta WHERE key = ?1";
            c.query_row(sql, [Mark::Doubtful.key()], |row| row.get(0)).optional()
        })
    }

    /// Everything was looked at since that was the doubt, and is there. One that was cast meanwhile stands.
    pub fn end_doubt(&self, doubt: Option<i64>) -> Result<(), StoreError> {
        if doubt.is_none() || self.doubt()? != doubt {
            return Ok(());
        }
        self.write("make a note", |t| {
            let sql = "DELETE FROM meta WHERE key = ?1 AND value = ?2";
            t.execute(sql, params![Mark::Doubtful.key(), doubt]).map(drop)
        })
    }

    /// The note has a number that no doubt had before, also in a catalog of before, where it was always 1.
    fn cast_doubt(&self) -> Result<(), StoreError> {
        self.write("make a note", |t| {
            let doubt = count_up(t, DOUBTS, 2)?;
            let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
            t.execute(sql, params![Mark::Doubtful.key(), doubt]).map(drop)
        })
    }

    /// Packs of which a vault's copy was read and is damaged.
    pub fn bad_in(&self, no: VaultNo) -> Result<HashSet<PackId>, StoreError> {
        let keys = self.keys_of(&format!("bad {}", no.0))?;
        Ok(keys.iter().filter_map(|key| PackId::from_hex(key.rsplit(' ').next()?)).collect())
    }

    /// Packs that were known to be damaged in annexes that went away.
    pub fn bad_away(&self) -> Result<Vec<PackId>, StoreError> {
        let keys = self.keys_of("badaway")?;
        Ok(keys.iter().filter_map(|key| PackId::from_hex(key.rsplit(' ').next()?)).collect())
    }

    /// Packs that are missed in staging and that a vault is said to have.
    pub fn missed_here(&self) -> Result<Vec<PackRow>, StoreError> {
        let mut missed = Vec::new();
        for id in self.keys_of("missed")?.iter().filter_map(|key| PackId::from_hex(key.rsplit(' ').next()?)) {
            missed.extend(self.pack_by_id(&id)?.filter(|row| !row.staged && !row.vaults.is_empty()));
        }
        Ok(missed)
    }

    /// Packs that a check did not find in a vault.
    pub fn not_shown_in(&self, no: VaultNo) -> Result<Vec<PackId>, StoreError> {
        let keys = self.keys_of(&format!("notshown {}", no.0))?;
        Ok(keys.iter().filter_map(|key| PackId::from_hex(key.rsplit(' ').next()?)).collect())
    }

    /// Whether staging lost any pack that was not made good.
    pub fn misses_any_here(&self) -> Result<bool, StoreError> {
        Ok(!self.keys_of("missed")?.is_empty())
    }

    /// Points that lack something in vaults, as far as is known.
    pub fn incomplete(&self) -> Result<Vec<(VaultNo, RecoveryPointId)>, StoreError> {
        let point = |key: &String| {
            let mut words = key.split(' ').skip(1);
            let no = VaultNo(words.next()?.parse().ok()?);
            Some((no, RecoveryPointId::from_hex(words.next()?)?))
        };
        Ok(self.keys_of("incomplete")?.iter().filter_map(point).collect())
    }

    /// Points that are being removed from staging, or were when that was cut off.
    pub fn going_here(&self) -> Result<Vec<RecoveryPointId>, StoreError> {
        let keys = self.keys_of("going")?;
        // Of a vault there would be another word.
        Ok(keys.iter().filter_map(|key| RecoveryPointId::from_hex(key.strip_prefix("going ")?)).collect())
    }

    /// Keys of all notes that begin with these words.
    pub(super) fn keys_of(&self, words: &str) -> Result<Vec<String>, StoreError> {
        // The character after the space: a pattern would go through all notes.
        let (from, below) = (format!("{words} "), format!("{words}!"));
        self.read("read notes", |c| {
            c.prepare_cached("SELECT key FROM meta WHERE key >= ?1 AND key < ?2")?
                .query_map([from, below], |row| row.get(0))?
                .collect()
        })
    }

    /// The point of a source all of whose packs were found in a vault one by one, if no pack was missed there since.
    pub fn proven_point(&self, no: VaultNo, tag: &SourceTag) -> Result<Option<RecoveryPointId>, StoreError> {
        self.read("read a note", |c| {
            c.query_row("SELECT value FROM meta WHERE key = ?1", [proven_key(no, tag)], |row| row.get(0))
                .optional()
        })
        .map(|id: Option<[u8; 16]>| id.map(RecoveryPointId))
    }

    /// A number that moves when packs are missed in a vault: who relied on what was there reads it before and after.
    pub fn losses(&self, no: VaultNo) -> Result<i64, StoreError> {
        self.read("read a note", |c| number(c, &losses_key(no)))
    }

    /// What that number was when all points of the vault were doubted last.
    pub fn losses_doubted(&self, no: VaultNo) -> Result<i64, StoreError> {
        self.read("read a note", |c| number(c, &doubted_key(no)))
    }

    /// All points of a vault were doubted since that number of losses.
    pub fn set_losses_doubted(&self, no: VaultNo, losses: i64) -> Result<(), StoreError> {
        if losses == self.losses_doubted(no)? {
            return Ok(());
        }
        self.write("make a note", |t| {
            let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
            t.execute(sql, params![doubted_key(no), losses]).map(drop)
        })
    }

    /// What is remembered of a vault, as it was noted; `store/witness.rs` knows what it means.
    pub fn remembered(&self, no: VaultNo) -> Result<Option<Vec<u8>>, StoreError> {
        self.read("read a note", |c| {
            let sql = "SELECT value FROM meta WHERE key = ?1";
            c.query_row(sql, [witness_key(no)], |row| Ok(row.get(0).ok())).optional().map(Option::flatten)
        })
    }

    /// Notes it.
    pub fn set_remembered(&self, no: VaultNo, memory: &[u8]) -> Result<(), StoreError> {
        self.write("make a note", |t| {
            let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
            t.execute(sql, params![witness_key(no), memory]).map(drop)
        })
    }

    /// Takes it away, and which attempts were revoked there: another vault is under that address.
    pub fn forget_remembered(&self, no: VaultNo) -> Result<(), StoreError> {
        self.write("forget notes", |t| {
            t.execute("DELETE FROM meta WHERE key GLOB ?1", [format!("revoked {} *", no.0)])?;
            t.execute("DELETE FROM meta WHERE key = ?1", [witness_key(no)]).map(drop)
        })
    }

    /// Takes back what was noted of a vault's points: a pack is missing there, and nobody knows whose.
    pub fn forget_proven(&self, no: VaultNo) -> Result<(), StoreError> {
        let keys = format!("proven {} *", no.0);
        self.write("make a note", |t| t.execute("DELETE FROM meta WHERE key GLOB ?1", [&keys]).map(drop))
    }
}

/// Notes that a point lacks something in a vault.
pub(super) fn note_incomplete(
    t: &rusqlite::Transaction<'_>,
    id: &RecoveryPointId,
    no: VaultNo,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, 1)";
    t.prepare_cached(sql)?.execute([Mark::Incomplete(no, *id).key()]).map(drop)
}

/// Of points that are not known nothing is lacking anywhere.
pub(super) fn forget_incomplete_without_point(t: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    let sql = "DELETE FROM meta WHERE key >= 'incomplete ' AND key < 'incomplete!'
               AND NOT EXISTS (SELECT 1 FROM point WHERE id = unhex(substr(key, -32)))";
    t.execute(sql, []).map(drop)
}

/// Takes away that a point was to go from a place, or lacks something there: it went, or was put there again.
pub(super) fn went_or_came(
    t: &rusqlite::Transaction<'_>,
    id: &RecoveryPointId,
    vault: Option<VaultNo>,
) -> rusqlite::Result<()> {
    let incomplete = vault.map(|no| Mark::Incomplete(no, *id));
    for mark in std::iter::once(Mark::Going(vault, *id)).chain(incomplete) {
        t.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([mark.key()])?;
    }
    Ok(())
}

pub(super) fn losses(c: &rusqlite::Connection, no: VaultNo) -> rusqlite::Result<i64> {
    number(c, &losses_key(no))
}

fn number(c: &rusqlite::Connection, key: &str) -> rusqlite::Result<i64> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    c.query_row(sql, [key], |row| row.get(0)).optional().map(Option::unwrap_or_default)
}

/// Moves [`Catalog::losses`]; what it is then.
pub(super) fn note_loss(t: &rusqlite::Transaction<'_>, no: VaultNo) -> rusqlite::Result<i64> {
    count_up(t, &losses_key(no), 1)
}

/// Moves a number on, or begins it; what it is then.
fn count_up(t: &rusqlite::Transaction<'_>, key: &str, first: i64) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO meta(key, value) VALUES (?1, ?2) ON CONFLICT(key) DO UPDATE SET value = value + 1";
    t.execute(sql, params![key, first])?;
    number(t, key)
}

/// Notes that all packs of a point are in a vault.
pub(super) fn set_proven_point(
    t: &rusqlite::Transaction<'_>,
    no: VaultNo,
    tag: &SourceTag,
    id: &RecoveryPointId,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
    t.execute(sql, params![proven_key(no, tag), &id.0[..]]).map(drop)
}

/// Takes away that a pack is missed in staging: it came back, or went by right.
pub(super) fn not_missed(t: &rusqlite::Transaction<'_>, no: PackNo) -> rusqlite::Result<()> {
    let sql = "DELETE FROM meta WHERE key = (SELECT 'missed ' || lower(hex(id)) FROM pack WHERE no = ?1)";
    t.prepare_cached(sql)?.execute([no.0]).map(drop)
}

/// Makes a note for each vault that it is to be read again.
pub(super) fn reread_all(t: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    t.execute("INSERT OR REPLACE INTO meta(key, value) SELECT 'reread ' || no, 1 FROM vault", []).map(drop)
}

fn losses_key(no: VaultNo) -> String {
    format!("losses {}", no.0)
}

fn doubted_key(no: VaultNo) -> String {
    format!("doubted {}", no.0)
}

fn witness_key(no: VaultNo) -> String {
    format!("witness {}", no.0)
}

fn proven_key(no: VaultNo, tag: &SourceTag) -> String {
    format!("proven {} {}", no.0, tag.hex())
}
