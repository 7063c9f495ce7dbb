//! What somebody removed or replaced in a vault comes back from what the vault's service keeps: soft delete and versions
//! ([which service](../../docs/decisions/azure-locks.md)).
//!
//! No memory is needed to know what is to come back. Whoever removes something on purpose says so in the vault, and that word stays: packs go by a generation,
//! index objects with the last of their packs, a point leaves the word that it was removed, and generations never go. What is missing without that word, and
//! can still be had, is put back. Bytes count only when they are those of the name: packs and index objects are hashed, points and generations opened.
//! Key slots, holds and sessions are removed without a word, and do not come back.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;

use crate::catalog::{Mark, VaultNo};
use crate::clock::Deadline;
use crate::copy;
use crate::error::StoreError;
use crate::fence::{Generation, Revocation, Step};
use crate::id::{Attempt, PackId, SourceTag};
use crate::index::{INDEX_LIMIT, Index};
use crate::monitor::{Event, Monitor};
use crate::names::{self, Named};
use crate::pack::PACK_LIMIT;
use crate::point::object::open_point;
use crate::store::{POINT_LIMIT, Store, move_aside, of_vault};
use crate::transfer::Transfer;
use crate::vault::{ObjectName, VaultError};

/// Most formers of one name that are looked at, the oldest first: what a name stands for never changes, but for the word in a point's
/// place, so what was put first is right, however often somebody replaced it.
const FORMERS_MAX: usize = 100;

/// What is told of what stands under a name and is not right.
const WRONG: &str = "its bytes are not those of its name";

/// What came back, or could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regained {
    /// Packs.
    pub packs: u64,
    /// Index objects.
    pub indexes: u64,
    /// Recovery points.
    pub points: u64,
    /// Generations, with their ends.
    pub generations: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Objects of which nothing that is kept is what it was, or that could not be put back.
    pub lost: u64,
    /// Points that stay away because the vault says that they were removed.
    pub points_removed: u64,
    /// Packs that stay away because a generation let them go.
    pub packs_removed: u64,
}

/// Brings back what is missing from a vault, or is not what it was, without anybody's word. Generations first, which say what packs went on purpose.
///
/// # Errors
/// `Invalid` if the vault is of a kind that keeps nothing; `Denied` where the credential may not; `Locked` while points are removed or pushed.
pub fn regain(store: &Store, no: VaultNo, monitor: &dyn Monitor) -> Result<Regained, StoreError> {
    let transfer = store.vault(no)?;
    if transfer.keeps().map_err(of_vault(transfer))?.is_none() {
        return Err(StoreError::invalid(format!(
            "vault {} keeps nothing of what is removed",
            transfer.address()
        )));
    }
    let _lock = store.lock_vault_removals()?;
    copy::prove_ours(store, transfer, Deadline::NEVER)?;
    let mut run = Run { store, no, transfer, monitor, done: Regained::default() };
    run.generations()?;
    store.read_generations(no, transfer, Deadline::NEVER)?;
    run.packs()?;
    run.indexes()?;
    run.points()?;
    Ok(run.done)
}

struct Run<'a> {
    store: &'a Store,
    no: VaultNo,
    transfer: &'a Transfer,
    monitor: &'a dyn Monitor,
    done: Regained,
}

impl Run<'_> {
    fn there(&self, prefix: &str) -> Result<HashSet<ObjectName>, StoreError> {
        let listed = self.transfer.list_as(prefix, Deadline::NEVER, |object| Some(object.name.clone()));
        Ok(listed.map_err(of_vault(self.transfer))?.into_iter().collect())
    }

    /// Names of which something is kept and nothing is there.
    fn missing(&self, prefix: &str) -> Result<BTreeSet<ObjectName>, StoreError> {
        let mut kept = self.transfer.kept(prefix).map_err(of_vault(self.transfer))?;
        if !kept.is_empty() {
            let there = self.there(prefix)?;
            kept.retain(|name| !there.contains(name));
        }
        Ok(kept)
    }

    fn generations(&mut self) -> Result<(), StoreError> {
        for name in self.missing(names::GENERATIONS)? {
            let which = match Named::parse(name.as_str()) {
                Some(Named::Condemned(number)) => (number, Step::Condemned),
                Some(Named::Final(number)) => (number, Step::Final),
                _ => continue,
            };
            let sealer = self.store.sealer();
            let back =
                self.bring(&name, POINT_LIMIT, &|bytes| Generation::open(sealer, which, bytes).is_ok())?;
            self.done.generations += u64::from(back);
        }
        Ok(())
    }

    fn packs(&mut self) -> Result<(), StoreError> {
        let (missing, catalog) = (self.missing(names::PACKS)?, self.store.catalog());
        let ids: HashSet<PackId> = missing.iter().filter_map(names::pack_of).collect();
        let let_go = catalog.let_go_of(self.no, &ids)?;
        let bad = catalog.bad_in(self.no)?;
        self.done.packs_removed = let_go.len() as u64;
        // Those that were read and are not what they were, too.
        let wanted = ids.into_iter().filter(|id| !let_go.contains(id)).chain(bad.iter().copied());
        for id in wanted.collect::<BTreeSet<_>>() {
            if self.bring(&names::pack(&id), PACK_LIMIT, &|bytes| *blake3::hash(bytes).as_bytes() == id.0)? {
                catalog.set_mark(Mark::BadIn(self.no, id), false)?;
                self.done.packs += 1;
            }
        }
        Ok(())
    }

    fn indexes(&mut self) -> Result<(), StoreError> {
        let (store, no) = (self.store, self.no);
        for name in self.missing(names::INDEXES)? {
            let Some(id) = names::index_of(&name) else { continue };
            let needed = |bytes: &[u8]| {
                let Ok(index) = Index::open(store.sealer(), id, bytes) else { return false };
                let packs: HashSet<PackId> = index.packs.iter().map(|pack| pack.id).collect();
                // One whose packs all went may have gone on purpose.
                store.catalog().let_go_of(no, &packs).is_ok_and(|gone| gone.len() < packs.len())
            };
            let back = self.bring_if(&name, INDEX_LIMIT, &needed, false)?;
            self.done.indexes += u64::from(back);
        }
        Ok(())
    }

    fn points(&mut self) -> Result<(), StoreError> {
        let missing = self.missing(names::POINTS)?;
        if missing.is_empty() {
            return Ok(());
        }
        let listed =
            names::list(self.transfer, names::POINTS, Deadline::NEVER).map_err(of_vault(self.transfer))?;
        let words: HashSet<&ObjectName> =
            listed.iter().filter(|object| object.len == Revocation::LEN).map(|object| &object.name).collect();
        for name in &missing {
            let Some((tag, attempt)) = names::outcome_of(name) else { continue };
            // Who removes a point says so behind it first.
            if self.is_removed(&words, &tag, &attempt)? {
                self.done.points_removed += 1;
                continue;
            }
            let sealer = self.store.sealer();
            let is_point = |bytes: &[u8]| open_point(bytes, sealer, &tag, &attempt.point).is_ok();
            let is_word = |bytes: &[u8]| Revocation::open(sealer, (&tag, &attempt), bytes).is_ok();
            let back = self.bring(name, POINT_LIMIT, &|bytes| is_point(bytes) || is_word(bytes))?;
            self.done.points += u64::from(back);
        }
        Ok(())
    }

    /// Whether the word that a point was removed stands behind an attempt. What is only as long as one is none.
    fn is_removed(
        &self,
        words: &HashSet<&ObjectName>,
        tag: &SourceTag,
        attempt: &Attempt,
    ) -> Result<bool, StoreError> {
        let Some(next) = attempt.next().filter(|next| words.contains(&names::outcome(tag, next))) else {
            return Ok(false);
        };
        let why = self.store.look_for_revocation(self.no, self.transfer, (tag, &next))?;
        Ok(why.is_some_and(|why| why.removes(&next, attempt.number)))
    }

    fn bring(
        &mut self,
        name: &ObjectName,
        limit: u64,
        is_right: &dyn Fn(&[u8]) -> bool,
    ) -> Result<bool, StoreError> {
        self.bring_if(name, limit, is_right, true)
    }

    /// Puts the bytes under a name that are right. `false` if none are; `must`: that is told. What is wrong with one object keeps nothing from the others.
    fn bring_if(
        &mut self,
        name: &ObjectName,
        limit: u64,
        is_right: &dyn Fn(&[u8]) -> bool,
        must: bool,
    ) -> Result<bool, StoreError> {
        let lost = match self.find(name, limit, is_right, must) {
            Ok(Some(len)) => {
                self.done.bytes += len as u64;
                return Ok(true);
            }
            Ok(None) if !must => return Ok(false),
            Ok(None) => "nothing that is kept of it is what it was".to_owned(),
            Err(e) if is_of_one_object(&e) => e.beside_vault(),
            Err(e) => return Err(e),
        };
        let reason = format!("vault {}: {lost}", self.transfer.address());
        self.monitor.event(Event::Problem { path: name.as_str().into(), reason });
        self.done.lost += 1;
        Ok(false)
    }

    /// How many bytes stand under a name that are right, if there are such.
    fn find(
        &self,
        name: &ObjectName,
        limit: u64,
        is_right: &dyn Fn(&[u8]) -> bool,
        must: bool,
    ) -> Result<Option<usize>, StoreError> {
        let (transfer, failed) = (self.transfer, of_vault(self.transfer));
        let was_there = transfer.stat(name).map_err(&failed)?.is_some();
        let formers = transfer.formers(name).map_err(&failed)?;
        let there = match transfer.get(name, limit) {
            Err(VaultError::NotFound { .. }) => None,
            // It is longer than anything of that name.
            Err(VaultError::Invalid { .. }) => Some(Bytes::new()),
            there => Some(there.map_err(&failed)?),
        };
        if let Some(bytes) = there.as_ref().filter(|bytes| is_right(bytes)) {
            return Ok(Some(bytes.len()));
        }
        // A word that a point was removed took its place, and is the last that it says.
        let words = formers.iter().filter(|former| former.len == Revocation::LEN).take(FORMERS_MAX);
        let all = formers.iter().filter(|former| former.len <= limit).take(FORMERS_MAX);
        for former in words.chain(all) {
            let good = transfer.get_former(name, former).map_err(&failed)?;
            if !is_right(&good) {
                continue;
            }
            if let Some(bad) = there {
                move_aside(transfer, name, bad, WRONG, self.monitor)?;
            }
            let len = good.len();
            transfer.put_new(name, good).map_err(&failed)?;
            return Ok(Some(len));
        }
        match there.filter(|_| !was_there) {
            // What came back with this does not stay: nobody would send again what seems to be there.
            Some(bad) if must => move_aside(transfer, name, bad, WRONG, self.monitor)?,
            Some(_) => transfer.delete(name).map(drop).map_err(&failed)?,
            None => {}
        }
        Ok(None)
    }
}

/// Whether others may come back all the same: the vault answers, and nobody said to stop.
fn is_of_one_object(error: &StoreError) -> bool {
    use VaultError::{Archived, Conflict, Invalid, Locked, NotFound};
    match error {
        StoreError::Vault { source, .. } => matches!(
            source,
            Archived { .. } | Conflict { .. } | Invalid { .. } | Locked { .. } | NotFound { .. }
        ),
        _ => false,
    }
}
