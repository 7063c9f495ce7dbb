//! What only reading shows: what sessions say of the vault that they are in, points of further attempts that nobody began, and objects that
//! are others than their names say.

use std::collections::HashMap;

use super::{Alarm, AlarmKind};
use crate::catalog::VaultNo;
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::fence::Revocation;
use crate::id::{Attempt, SourceTag};
use crate::names;
use crate::point::object::{open_point_as_named_inside, open_signed_session};
use crate::point::{Head, VaultSession};
use crate::seal::Sealer;
use crate::store::{Outcomes, SMALL_OBJECT, Store, of_vault};
use crate::transfer::Transfer;
use crate::vault::{ObjectInfo, VaultError};

/// Of each source the sessions of so many of its newest points are read, by who has no memory of a vault.
pub(crate) const SESSIONS_OF_NEWEST: usize = 3;
/// Sessions that are asked for at once.
const BATCH: usize = 64;

impl Store {
    /// What sessions in a vault say that their writers saw there, of the newest `of_each` points of each source, and which points
    /// of further attempts nobody began.
    pub(crate) fn read_sessions(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        shown: &[ObjectInfo],
        of_each: usize,
    ) -> Result<(Vec<Head>, Vec<Alarm>), StoreError> {
        let outcomes = Outcomes::of(shown);
        let mut by_source: HashMap<SourceTag, Vec<(u64, Attempt)>> = HashMap::new();
        for (line, _) in self.catalog().lines_in(no)? {
            let held = outcomes.at(&line.tag, &line.id).iter();
            let held = held.filter(|(_, len)| *len != Revocation::LEN);
            // The first one that holds it is the one that brought it.
            if let Some(attempt) = held.map(|(attempt, _)| *attempt).min() {
                by_source.entry(line.tag).or_default().push((line.sequence, attempt));
            }
        }
        let mut wanted = Vec::new();
        for points in by_source.values_mut() {
            points.sort_unstable_by_key(|(sequence, attempt)| (std::cmp::Reverse(*sequence), *attempt));
            let is_wanted =
                |(nth, (_, attempt)): &(usize, &(u64, Attempt))| *nth < of_each || attempt.number > 0;
            wanted.extend(points.iter().enumerate().filter(is_wanted).map(|(_, (_, attempt))| *attempt));
        }
        wanted.sort();
        self.open_those_sessions(transfer, &wanted)
    }

    pub(in crate::store) fn open_those_sessions(
        &self,
        transfer: &Transfer,
        attempts: &[Attempt],
    ) -> Result<(Vec<Head>, Vec<Alarm>), StoreError> {
        let (mut heads, mut alarms) = (Vec::new(), Vec::new());
        if attempts.is_empty() {
            return Ok((heads, alarms));
        }
        let listed = names::list(transfer, names::SESSIONS, Deadline::NEVER).map_err(of_vault(transfer))?;
        let lens: HashMap<_, u64> = listed.into_iter().map(|object| (object.name, object.len)).collect();
        let len_of =
            |attempt: &Attempt| lens.get(&names::session(attempt)).filter(|len| **len <= SMALL_OBJECT);
        let (there, absent): (Vec<Attempt>, Vec<Attempt>) =
            attempts.iter().partition(|attempt| len_of(attempt).is_some());
        alarms.extend(absent.iter().filter_map(|attempt| never_begun(attempt, None)));
        for some in there.chunks(BATCH) {
            let range = |attempt: &Attempt| 0..len_of(attempt).copied().unwrap_or_default();
            let wanted = some.iter().map(|attempt| (names::session(attempt), range(attempt))).collect();
            for (attempt, bytes) in some.iter().zip(transfer.get_many(wanted, Deadline::NEVER)) {
                let bytes = match bytes {
                    // It went since the listing, with its point.
                    Err(VaultError::NotFound { .. }) => continue,
                    bytes => bytes.map_err(of_vault(transfer))?,
                };
                // One that does not open tells nothing.
                let Ok((session, signature)) = open_signed_session(&bytes, self.sealer(), &attempt.point)
                else {
                    continue;
                };
                alarms.extend(never_begun(attempt, Some(&session)));
                // Nor does one that somebody made up; that it is of another attempt is so whoever says it.
                if let Some(alarm) = self.session_alarm(attempt, &signature) {
                    alarms.push(alarm);
                    continue;
                }
                heads.extend(session.sight.into_iter().flat_map(|sight| sight.heads));
            }
        }
        Ok((heads, alarms))
    }

    /// Whether the points before are what later ones call them, as far as they are known.
    pub(crate) fn broken_chains(&self, no: VaultNo) -> Result<Vec<Alarm>, StoreError> {
        let there = self.catalog().lines_in(no)?;
        let mut hashes: HashMap<(SourceTag, u64), Vec<[u8; 32]>> = HashMap::new();
        for (line, hash) in &there {
            hashes.entry((line.tag, line.sequence)).or_default().push(*hash);
        }
        let mut alarms = Vec::new();
        for (line, _) in &there {
            let Some(before) = hashes.get(&(line.tag, line.sequence.saturating_sub(1))) else { continue };
            // One that was forgotten meanwhile follows nothing.
            let Ok(stored) = self.point(&line.id) else { continue };
            if !before.contains(&stored.point.previous) {
                let (id, number) = (line.id.short(), line.sequence);
                let detail = format!(
                    "recovery point {id} is number {number} of its source and was made after another number {} than the one that is there",
                    number - 1
                );
                alarms.push(Alarm::read(AlarmKind::ChainBroken, line.id.hex(), detail));
            }
        }
        Ok(alarms)
    }
}

/// A further attempt begins with a session that bears its number. Programs of before wrote none: theirs are believed.
fn never_begun(attempt: &Attempt, session: Option<&VaultSession>) -> Option<Alarm> {
    let why = match session {
        _ if attempt.number == 0 => return None,
        None => "has no session",
        Some(VaultSession { sight: Some(sight), .. }) if sight.attempt != attempt.number => {
            "has the session of another attempt"
        }
        Some(_) => return None,
    };
    let detail = format!(
        "recovery point {} was removed there on purpose, and is there again under the name of attempt {}, which {why}",
        attempt.point.short(),
        attempt.number
    );
    Some(Alarm::read(AlarmKind::PointReplayed, attempt.to_string(), detail))
}

/// Of an object under the name of a point which does not open as that: whether it is another point of this store.
pub(crate) fn what_is_another(
    sealer: &Sealer,
    (tag, attempt): (&SourceTag, &Attempt),
    bytes: &[u8],
) -> Option<Alarm> {
    let other = open_point_as_named_inside(bytes, sealer).ok()?;
    if (other.id, other.source_tag) == (attempt.point, *tag) {
        return None;
    }
    let (id, other) = (attempt.point.short(), other.id.short());
    let detail = format!("under the name of recovery point {id} lies recovery point {other}");
    Some(Alarm::read(AlarmKind::PointSwapped, attempt.to_string(), detail))
}
