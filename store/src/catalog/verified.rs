//! When every byte of a pack was last read and proven, for each place that has it. It goes with the copy that was read: what comes
//! to the same place later is another one, that nobody has read.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Catalog, PackNo, VaultNo};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::PackId;

/// Stands for staging where others are numbers of vaults, which begin with 1.
const STAGING: i64 = 0;

/// How far the bytes of a place were read and proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Packs there.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that nobody has read since they came there, or of which that is not known.
    pub packs_never: u64,
    /// Bytes of these.
    pub bytes_never: u64,
    /// When the pack was proven whose proof is the oldest, of those that were.
    pub oldest: Option<Timestamp>,
}

/// A copy of a pack in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownCopy {
    /// The pack.
    pub pack: PackNo,
    /// Its length in bytes.
    pub len: u64,
    /// When it was last proven; `None` if it never was, or if that is not known.
    pub proven: Option<Timestamp>,
    /// Whether it was read there and found damaged, and nothing was put in its place since.
    pub bad: bool,
}

impl Catalog {
    /// Notes that these packs were proven at `at` (whole seconds are kept), in staging (`None`) or a vault.
    pub fn set_verified(&self, packs: &[(PackNo, Option<VaultNo>)], at: Timestamp) -> Result<(), StoreError> {
        self.write("note what was verified", |t| {
            // A copy that went while others were read is not there to speak of.
            let there = "SELECT id FROM pack WHERE no = ?1
                 AND (?2 = 0 AND staged = 1 OR EXISTS (SELECT 1 FROM place WHERE pack = no AND vault = ?2))";
            let mut find = t.prepare_cached(there)?;
            let mut insert = t.prepare_cached(
                "INSERT OR REPLACE INTO verified(pack, place, at, sum) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for (no, vault) in packs {
                let place = vault.map_or(STAGING, |vault| vault.0);
                if let Some(id) = find.query_row(params![no.0, place], |row| row.get(0)).optional()? {
                    let sum = row_sum(&PackId(id), place, at.seconds);
                    insert.execute(params![no.0, place, at.seconds, sum])?;
                }
            }
            Ok(())
        })
    }

    /// Forgets it of a pack in a place where it was found damaged.
    pub fn clear_verified(&self, no: PackNo, vault: Option<VaultNo>) -> Result<(), StoreError> {
        self.write("note what was verified", |t| forget(t, no, vault))
    }

    /// When a pack was last proven in any place that still has it; `None` if it never was.
    pub fn verified(&self, no: PackNo) -> Result<Option<Timestamp>, StoreError> {
        self.read("look when a pack was verified", |c| {
            let mut select = c.prepare_cached(
                "SELECT id, place, at, v.sum FROM verified v JOIN pack ON no = v.pack WHERE v.pack = ?1 AND (place = 0 AND staged = 1
                 OR EXISTS (SELECT 1 FROM place p WHERE p.pack = v.pack AND p.vault = v.place))",
            )?;
            let mut rows = select.query([no.0])?;
            let mut last = None;
            while let Some(row) = rows.next()? {
                // What does not read as what was written says nothing: better read once more than believed.
                last = last.max(proven_at(row).unwrap_or_default());
            }
            Ok(last.map(Timestamp::from_seconds))
        })
    }

    /// How far all that is in staging (`None`) or in a vault was proven.
    pub fn proof_of(&self, vault: Option<VaultNo>) -> Result<Proof, StoreError> {
        let mut proof = Proof::default();
        for copy in self.copies_in(vault)? {
            proof.packs += 1;
            proof.bytes += copy.len;
            match copy.proven {
                Some(at) => proof.oldest = Some(proof.oldest.map_or(at, |oldest| oldest.min(at))),
                None => {
                    proof.packs_never += 1;
                    proof.bytes_never += copy.len;
                }
            }
        }
        Ok(proof)
    }

    /// All that is in staging (`None`) or in a vault, in no order.
    pub fn copies_in(&self, vault: Option<VaultNo>) -> Result<Vec<KnownCopy>, StoreError> {
        let (there, bad) = match vault {
            None => ("pack.staged = 1", "pack.bad"),
            Some(_) => (
                "EXISTS (SELECT 1 FROM place p WHERE p.pack = pack.no AND p.vault = ?1)",
                "EXISTS (SELECT 1 FROM meta WHERE key = 'bad ' || ?1 || ' ' || lower(hex(pack.id)))",
            ),
        };
        let sql = format!(
            "SELECT id, ?1, at, v.sum, len, no, {bad} FROM pack LEFT JOIN verified v ON v.pack = no AND v.place = ?1 WHERE {there}"
        );
        self.read("look when packs were verified", |c| {
            let mut select = c.prepare_cached(&sql)?;
            let copies = select.query_map([vault.map_or(STAGING, |vault| vault.0)], |row| {
                Ok(KnownCopy {
                    pack: PackNo(row.get(5)?),
                    len: row.get::<_, i64>(4)?.max(0).cast_unsigned(),
                    // What does not read as what was written says nothing.
                    proven: proven_at(row).unwrap_or_default().map(Timestamp::from_seconds),
                    bad: row.get(6)?,
                })
            })?;
            copies.collect()
        })
    }
}

/// What a row says, if it is what was written of this pack and place.
fn proven_at(row: &Row<'_>) -> rusqlite::Result<Option<i64>> {
    let (id, place, at, sum): ([u8; 32], i64, i64, u32) =
        (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    Ok((sum == row_sum(&PackId(id), place, at)).then_some(at))
}

fn row_sum(pack: &PackId, place: i64, at: i64) -> u32 {
    [place, at].iter().fold(crc32c::crc32c(&pack.0), |sum, n| crc32c::crc32c_append(sum, &n.to_le_bytes()))
}

/// The copy of a pack that is in staging or a vault is not there any more.
pub(super) fn forget(t: &Transaction<'_>, no: PackNo, vault: Option<VaultNo>) -> rusqlite::Result<()> {
    let place = vault.map_or(STAGING, |vault| vault.0);
    t.prepare_cached("DELETE FROM verified WHERE pack = ?1 AND place = ?2")?
        .execute(params![no.0, place])
        .map(drop)
}

/// The same of all copies in a vault.
pub(super) fn forget_all_in(t: &Transaction<'_>, vault: VaultNo) -> rusqlite::Result<()> {
    t.execute("DELETE FROM verified WHERE place = ?1", [vault.0]).map(drop)
}
