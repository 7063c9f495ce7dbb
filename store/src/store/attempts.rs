//! Which attempt brings a point into a vault, and the word that one is revoked, which stands where it would put its point.
//!
//! The first attempt without that word is the one that counts, so whoever brings a point in looks at them in order. Whoever asks whether a
//! point is in a vault takes any attempt that holds it, and a revoked one says nothing of the others. That a point which was there went on
//! purpose only the word says that it was forgotten, at the attempt at which it was seen or behind it ([`Why::removes`]): that an attempt was silent
//! says whoever finds a session without a point, and that may be one whose point somebody took away.

use std::collections::HashMap;

use super::{POINT_LIMIT, Proven, Reads, Store, of_vault, put_proven};
use crate::catalog::{PointRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::fence::{Revocation, Why};
use crate::format::FormatError;
use crate::id::{Attempt, RecoveryPointId, SourceTag};
use crate::monitor::VoidMonitor;
use crate::names;
use crate::point::object::open_point;
use crate::transfer::Transfer;
use crate::vault::{ObjectInfo, VaultError};

/// What a listing of a vault's points shows of each: the attempts that ended there, and the lengths of what they ended with.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(HashMap<(SourceTag, RecoveryPointId), Vec<(Attempt, u64)>>);

impl Outcomes {
    pub(crate) fn of(listed: &[ObjectInfo]) -> Self {
        let mut outcomes = Self::default();
        for object in listed {
            if let Some((tag, attempt)) = names::outcome_of(&object.name) {
                outcomes.0.entry((tag, attempt.point)).or_default().push((attempt, object.len));
            }
        }
        outcomes
    }

    /// Of one point, in no order.
    pub(crate) fn at(&self, tag: &SourceTag, id: &RecoveryPointId) -> &[(Attempt, u64)] {
        self.0.get(&(*tag, *id)).map_or(&[], Vec::as_slice)
    }

    /// The last attempt at which something is there that is as long as the point.
    pub(crate) fn shown(&self, row: &PointRow) -> Option<Attempt> {
        let there = self.at(&row.tag, &row.id).iter();
        there.filter(|(_, len)| *len == row.object.len() as u64).map(|(attempt, _)| *attempt).max()
    }
}

/// What became of a point that was in a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is there, or something else stands in its place.
    There,
    /// It was removed on purpose.
    Forgotten,
    /// It is not there, and nobody says why.
    Missing,
}

/// The first attempt at a point that is not revoked in a vault.
#[derive(Debug)]
pub(crate) struct Next {
    /// None is left if there is none.
    pub(crate) attempt: Option<Attempt>,
    /// Why the one before it was revoked.
    pub(crate) revoked: Option<Why>,
    /// Whether it has ended: the point is there.
    pub(crate) ended: bool,
}

impl Store {
    /// Looks which attempt at a point is the next one in a vault.
    pub(crate) fn next_attempt(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        (tag, id): (&SourceTag, &RecoveryPointId),
    ) -> Result<Next, StoreError> {
        let mut revoked = None;
        for attempt in Attempt::all(*id) {
            let there = transfer.stat(&names::outcome(tag, &attempt)).map_err(of_vault(transfer))?;
            let why = match there {
                None => None,
                Some(_) => self.look_for_revocation(no, transfer, (tag, &attempt))?,
            };
            if why.is_none() {
                return Ok(Next { attempt: Some(attempt), revoked, ended: there.is_some() });
            }
            revoked = why;
        }
        Ok(Next { attempt: None, revoked, ended: false })
    }

    /// Why an attempt is revoked, if the word stands in a vault that it is; then the catalog knows it.
    pub(crate) fn look_for_revocation(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        (tag, attempt): (&SourceTag, &Attempt),
    ) -> Result<Option<Why>, StoreError> {
        match transfer.get(&names::outcome(tag, attempt), POINT_LIMIT) {
            Err(VaultError::NotFound { .. }) => Ok(None),
            bytes => self.note_revocation(no, (tag, attempt), &bytes.map_err(of_vault(transfer))?),
        }
    }

    /// The same of an object that was read there; `NoKey` if it is one that this ring does not open.
    pub(crate) fn note_revocation(
        &self,
        no: VaultNo,
        name: (&SourceTag, &Attempt),
        bytes: &[u8],
    ) -> Result<Option<Why>, StoreError> {
        let why = match Revocation::open(&self.sealer, name, bytes) {
            Err(e @ FormatError::NoKey(_)) => return Err(e.of(names::outcome(name.0, name.1).as_str())),
            opened => opened.ok().map(|revocation| revocation.why),
        };
        if why.is_some() && !self.read_only {
            self.catalog.set_revoked(no, name.1, why)?;
        }
        Ok(why)
    }

    /// Puts the word into a vault that an attempt is revoked. What that says which stands there then; nothing if it is the point after all.
    pub(crate) fn revoke(
        &self,
        no: VaultNo,
        (tag, attempt): (&SourceTag, &Attempt),
        why: Why,
    ) -> Result<Option<Why>, StoreError> {
        let transfer = self.vault(no)?;
        let at = self.clock.now().seconds;
        let revocation = Revocation { attempt: *attempt, tag: *tag, why, at };
        let reads = |there: &[u8]| match Revocation::open(&self.sealer, (tag, attempt), there) {
            Ok(_) | Err(FormatError::NoKey(_)) => Reads::Whole,
            Err(e) if e.is_damage() && Revocation::is_meant_by(there, &self.sealer) => Reads::Damaged,
            Err(_) => match open_point(there, &self.sealer, tag, &attempt.point) {
                Ok(_) | Err(FormatError::NoKey(_)) => Reads::Whole,
                Err(_) => Reads::Unclear,
            },
        };
        let (name, sealed) = (names::outcome(tag, attempt), revocation.seal(&self.sealer).into());
        match put_proven(transfer, &name, &sealed, &reads, &VoidMonitor)? {
            Proven::Ours => self.catalog.set_revoked(no, attempt, Some(why)).map(|()| Some(why)),
            // Somebody else's word, perhaps, for a reason of his own.
            Proven::Theirs => self.look_for_revocation(no, transfer, (tag, attempt)),
        }
    }

    /// What became of a point that was in a vault, by a listing of that. That an earlier attempt than the one at which it was seen is revoked
    /// does not tell why it is missing.
    pub(crate) fn fate_in(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        row: &PointRow,
        listed: &Outcomes,
    ) -> Result<Fate, StoreError> {
        if let Some(attempt) = listed.shown(row) {
            if !self.read_only {
                self.catalog.set_seen_at(no, &attempt)?;
            }
            return Ok(Fate::There);
        }
        let (seen, mut is_forgotten) = (self.catalog.seen_at(no, &row.id)?, false);
        let later = || listed.at(&row.tag, &row.id).iter().filter(|(attempt, _)| attempt.number >= seen);
        if later().next().is_none() {
            return Ok(Fate::Missing);
        }
        for (attempt, _) in listed.at(&row.tag, &row.id) {
            match self.look_for_revocation(no, transfer, (&row.tag, attempt))? {
                None => return Ok(Fate::There),
                Some(why) => is_forgotten |= why.removes(attempt, seen),
            }
        }
        Ok(if is_forgotten { Fate::Forgotten } else { Fate::Missing })
    }

    /// Sees to it that a point which stays is not excused by the word behind it that it was to go: it is put behind that as well.
    pub(crate) fn put_behind_word(
        &self,
        no: VaultNo,
        row: &PointRow,
        at: &Attempt,
    ) -> Result<(), StoreError> {
        let (transfer, mut behind) = (self.vault(no)?, None);
        let mut next = at.next();
        while let Some(attempt) = next {
            if self.look_for_revocation(no, transfer, (&row.tag, &attempt))?.is_none() {
                break;
            }
            next = attempt.next();
            behind = next;
        }
        let Some(attempt) = behind else { return Ok(()) };
        // Nobody believes a point at a further attempt without a session.
        let _open = self.open_sessions(no, transfer, &[(row.tag, attempt)], Deadline::NEVER)?;
        let put = transfer.put_new(&names::outcome(&row.tag, &attempt), row.object.clone().into());
        put.map_err(|e| self.why_not_there(no, transfer, (&row.tag, &attempt), e))?;
        self.catalog.set_seen_at(no, &attempt)?;
        self.end_session(no, &attempt)
    }

    /// What a put of a point came to that found something else under its name.
    pub(crate) fn why_not_there(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        (tag, attempt): (&SourceTag, &Attempt),
        e: VaultError,
    ) -> StoreError {
        match self.look_for_revocation(no, transfer, (tag, attempt)) {
            Ok(Some(_)) => StoreError::Revoked { point: attempt.point.short(), vault: transfer.address() },
            Ok(None) => of_vault(transfer)(e),
            Err(e) => e,
        }
    }
}
