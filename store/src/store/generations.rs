//! Reclaim as those meet it who write to a vault: they tell that they are there, learn what is condemned, and rely on nothing of it.
//! In this order: the session, the generations, the listing of packs. Then whoever frees space either was seen by the session, or
//! sees it and waits for it (`docs/decisions/fenced-generations.md`).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{Alarm, AlarmKind, Store, of_vault, prove_ours};
use crate::catalog::{PackNo, Seen, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::fence::{Generation, Step};
use crate::format::FormatError;
use crate::id::{Attempt, PackId, SourceTag};
use crate::monitor::Monitor;
use crate::names::{self, Named};
use crate::point::{VaultSession, object};
use crate::seal::Sealer;
use crate::transfer::{Beating, Transfer};
use crate::vault::{ObjectInfo, ObjectName, VaultError};

/// A session gives a sign of life this often.
const BEAT_EVERY: Duration = Duration::from_secs(600);
/// Longest object of a generation.
const GENERATION_LIMIT: u64 = 64 << 20;

/// Sessions that are open in a vault, and give signs of life until this is dropped.
#[derive(Debug)]
pub struct OpenSessions {
    _beating: Beating,
    /// Those that were taken up again and gave no sign of life since.
    resumed: Mutex<Vec<Attempt>>,
}

impl Store {
    /// Tells a vault that these points are on their way into it, each by an attempt that nobody revoked, and learns what nothing new may rely on
    /// there. What is listed after that may be relied on, without what [`Store::condemned_for`] tells.
    ///
    /// # Errors
    /// `Corrupt` if what is condemned cannot be read.
    pub(crate) fn open_sessions(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        attempts: &[(SourceTag, Attempt)],
        deadline: Deadline,
    ) -> Result<OpenSessions, StoreError> {
        prove_ours(self, transfer, deadline)?;
        let mut resumed = Vec::new();
        for (tag, attempt) in attempts {
            if self.open_session(no, transfer, (tag, attempt), deadline)? {
                resumed.push(*attempt);
            }
        }
        let unseen =
            |attempt: &Attempt| Ok::<_, StoreError>(self.catalog.session_seen(no, attempt)?.is_none());
        let mut all_seen = true;
        for (_, attempt) in attempts {
            all_seen &= !unseen(attempt)?;
        }
        if !all_seen {
            self.read_generations(no, transfer, deadline)?;
            let seen = self.newest_generation(no)?;
            for (_, attempt) in attempts {
                if unseen(attempt)? {
                    self.catalog.set_session_seen(no, attempt, Some(seen))?;
                }
            }
        }
        let attempts: Vec<Attempt> = attempts.iter().map(|(_, attempt)| *attempt).collect();
        let sealer = self.sealer.clone();
        let beats = move || attempts.iter().map(|attempt| heartbeat(&sealer, attempt)).collect();
        let beating = transfer.beat(BEAT_EVERY, beats);
        Ok(OpenSessions { _beating: beating, resumed: Mutex::new(resumed) })
    }

    /// Gives a sign of life of sessions that were taken up again, of which nobody knows when they gave the last one. Not before something came of
    /// it: uploads that are tried again and again into a full vault would keep from it for ever what makes room there.
    pub(crate) fn show_progress(
        &self,
        sessions: &OpenSessions,
        transfer: &Transfer,
    ) -> Result<(), StoreError> {
        let resumed = std::mem::take(&mut *sessions.resumed.lock().unwrap_or_else(PoisonError::into_inner));
        for attempt in resumed {
            transfer.put_new(&heartbeat(&self.sealer, &attempt), Bytes::new()).map_err(of_vault(transfer))?;
        }
        Ok(())
    }

    /// Whether it was there: then it is ours, from a run that was cut off.
    fn open_session(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        (tag, attempt): (&SourceTag, &Attempt),
        deadline: Deadline,
    ) -> Result<bool, StoreError> {
        let (name, failed) = (names::session(attempt), of_vault(transfer));
        if transfer.stat_by(&name, deadline).map_err(&failed)?.is_some() {
            return Ok(true);
        }
        let mut session = VaultSession {
            id: attempt.point,
            source_tag: *tag,
            started: self.clock.now().seconds,
            writer: Vec::new(),
            sight: self.sight(no, tag, attempt)?,
            signature: Vec::new(),
        };
        session.sign(self.writer.as_deref())?;
        // What an earlier session of the same name saw is not what this one sees.
        self.catalog.set_session_seen(no, attempt, None)?;
        let sealed = object::seal_session(&session, &self.sealer)?;
        match transfer.put_new_by(&name, sealed.into(), deadline) {
            Ok(_) => Ok(false),
            // One that came there just now is ours, too, from another push of the same point: sealed anew it has other bytes.
            Err(VaultError::Conflict { .. }) => Ok(true),
            Err(e) => Err(failed(e)),
        }
    }

    /// Forgets what an ended session saw.
    pub(crate) fn end_session(&self, no: VaultNo, attempt: &Attempt) -> Result<(), StoreError> {
        self.catalog.set_session_seen(no, attempt, None)
    }

    /// Reads the generations of a vault that the catalog does not know; all of them as the vault lists them.
    ///
    /// # Errors
    /// `Corrupt` if one does not open: what it condemns is unknown.
    pub(crate) fn read_generations(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        deadline: Deadline,
    ) -> Result<Vec<ObjectInfo>, StoreError> {
        let listed = names::list(transfer, names::GENERATIONS, deadline).map_err(of_vault(transfer))?;
        let known = self.catalog.listed_generations(no)?;
        if self.read_only || listed.is_empty() && known.is_empty() {
            return Ok(listed);
        }
        refuse_older(transfer, known.keys(), &listed)?;
        let named = |object: &ObjectInfo| Named::parse(object.name.as_str());
        let is_end = |object: &ObjectInfo| match named(object)? {
            Named::Final(number) => Some(number),
            _ => None,
        };
        let ends: HashSet<u64> = listed.iter().filter_map(is_end).collect();
        for object in &listed {
            let (number, step) = match named(object) {
                Some(Named::Condemned(number)) if !ends.contains(&number) => (number, Step::Condemned),
                Some(Named::Final(number)) => (number, Step::Final),
                _ => continue,
            };
            let shown = (object.len, object.put_at);
            let before = known.get(&(number, step == Step::Final));
            if before == Some(&shown) {
                continue;
            }
            let generation = self.open_generation(transfer, (number, step), &object.name, deadline)?;
            // A vault that was copied shows other times. One that was put back may have had another of this number since.
            if before.is_some() && self.catalog.generation(no, number)?.is_some_and(|was| was != generation) {
                let detail = format!("it is another one than before; {OLDER}");
                return Err(StoreError::corrupt(
                    format!("{} in vault {}", object.name, transfer.address()),
                    detail,
                ));
            }
            self.catalog.add_generation(no, &generation, shown)?;
        }
        Ok(listed)
    }

    /// The same for who looks at all of a vault: one that shows fewer generations than it did is an older one, and that is remembered.
    pub(super) fn read_generations_or_tell(
        &self,
        no: VaultNo,
        transfer: &Transfer,
        deadline: Deadline,
        monitor: &dyn Monitor,
    ) -> Result<(), StoreError> {
        let read = self.read_generations(no, transfer, deadline);
        if let Err(StoreError::Corrupt { object, detail }) = &read
            && detail.ends_with(OLDER)
        {
            let detail = format!("{object}: {detail}");
            self.raise(no, Alarm::new(AlarmKind::VaultRolledBack, "", detail), monitor)?;
        }
        read.map(drop)
    }

    /// Twice if need be: the way from the vault may have flipped a bit.
    fn open_generation(
        &self,
        transfer: &Transfer,
        which: (u64, Step),
        name: &ObjectName,
        deadline: Deadline,
    ) -> Result<Generation, StoreError> {
        let open = || match transfer.get_by(name, GENERATION_LIMIT, deadline) {
            Ok(bytes) => Ok(Generation::open(&self.sealer, which, &bytes)),
            Err(e) => Err(of_vault(transfer)(e)),
        };
        let opened = match open()? {
            Err(_) => open()?,
            opened => opened,
        };
        let object = format!("{name} in vault {}", transfer.address());
        opened.map_err(|e| match e {
            // The vault is ours, and so is the name: it is damage, too.
            FormatError::NotOurs(detail) => StoreError::corrupt(object, detail),
            e => e.of(object),
        })
    }

    /// What is wrong with the generations of a vault: with any that does not open, and with those that are not what they were.
    pub(crate) fn prove_generations(
        &self,
        no: VaultNo,
        transfer: &Transfer,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let mut wrong = Vec::new();
        let mut tell = |e: StoreError| match e {
            StoreError::Corrupt { object, detail } => {
                wrong.push((object, detail));
                Ok(())
            }
            e => Err(e),
        };
        self.read_generations(no, transfer, Deadline::NEVER).map(drop).or_else(&mut tell)?;
        for object in
            names::list(transfer, names::GENERATIONS, Deadline::NEVER).map_err(of_vault(transfer))?
        {
            let which = match Named::parse(object.name.as_str()) {
                Some(Named::Condemned(number)) => (number, Step::Condemned),
                Some(Named::Final(number)) => (number, Step::Final),
                _ => continue,
            };
            self.open_generation(transfer, which, &object.name, Deadline::NEVER)
                .map(drop)
                .or_else(&mut tell)?;
        }
        wrong.sort();
        wrong.dedup();
        Ok(wrong)
    }

    fn newest_generation(&self, no: VaultNo) -> Result<Seen, StoreError> {
        let known = self.catalog.generations(no)?;
        let newest = known.last().map_or(0, |(number, _)| *number);
        Ok(Seen { newest, unfinished: known.iter().any(|(_, is_final)| !is_final) })
    }

    /// Packs of a vault that a session must not rely on, which saw this when it began.
    pub fn condemned_for(&self, no: VaultNo, seen: Seen) -> Result<HashSet<PackNo>, StoreError> {
        if seen.newest == 0 {
            return Ok(HashSet::new());
        }
        let there = self.catalog.pack_names_in(no)?;
        let names: HashSet<PackId> = there.keys().copied().collect();
        let condemned = self.catalog.condemned_of(no, seen.newest, &names)?;
        Ok(condemned.iter().filter_map(|id| there.get(id).copied()).collect())
    }

    /// All packs of a vault that a generation names.
    pub(crate) fn condemned_in(&self, no: VaultNo) -> Result<HashSet<PackNo>, StoreError> {
        self.condemned_for(no, self.newest_generation(no)?)
    }
}

/// What that means.
const OLDER: &str = "the vault is an older one, or somebody removed it: nothing new relies on the vault, and nothing goes there";

/// A vault that shows less than it did is not to be relied on: what it showed once is condemned for those who saw it, and for nobody else.
fn refuse_older<'a>(
    transfer: &Transfer,
    known: impl Iterator<Item = &'a (u64, bool)>,
    listed: &[ObjectInfo],
) -> Result<(), StoreError> {
    let names: HashSet<&ObjectName> = listed.iter().map(|object| &object.name).collect();
    let of = |(number, is_final): &(u64, bool)| match is_final {
        true => Named::Final(*number).name(),
        false => Named::Condemned(*number).name(),
    };
    match known.map(of).find(|name| !names.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let object = format!("{name} in vault {}", transfer.address());
            Err(StoreError::corrupt(object, format!("it is gone; {OLDER}")))
        }
    }
}

fn heartbeat(sealer: &Sealer, session: &Attempt) -> ObjectName {
    let number = u128::from_le_bytes(sealer.new_object().0) as u64;
    Named::Heartbeat(*session, number).name()
}
