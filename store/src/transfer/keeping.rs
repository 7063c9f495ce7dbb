//! What a vault keeps of its own accord, through the same border as everything else. A vault that keeps nothing answers so without a request.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Transfer, Try, listing};
use crate::clock::Deadline;
use crate::vault::keeper::{Former, Keeper, Keeps, Lock, LockTerms, Locked, Page};
use crate::vault::{ObjectName, VaultError, Verb};

/// A question that no other verb asks counts as one for the length of something.
const ASK: Try = Try { verb: Verb::Stat, bytes: 0, deadline: Deadline::NEVER };
const LIST: Try = Try { verb: Verb::List, bytes: 0, deadline: Deadline::NEVER };

impl Transfer {
    fn keeper(&self) -> Option<&dyn Keeper> {
        self.inner.vault.keeper()
    }

    /// What the vault keeps; nothing where it is of a kind that keeps nothing.
    pub fn keeps(&self) -> Result<Option<Keeps>, VaultError> {
        self.keeps_by(Deadline::NEVER)
    }

    /// The same, or `Timeout` when the deadline has passed.
    pub fn keeps_by(&self, deadline: Deadline) -> Result<Option<Keeps>, VaultError> {
        let Some(keeper) = self.keeper() else { return Ok(None) };
        let of = Try { deadline, ..ASK };
        self.runtime.block_on(async { Ok(Some(self.inner.retry(of, || keeper.keeps()).await?.answer)) })
    }

    /// How what stays is locked when it is put, if it is.
    pub fn lock_terms(&self) -> Option<LockTerms> {
        self.keeper()?.terms()
    }

    /// What keeps an object from being removed, if something does.
    pub fn lock_of(&self, name: &ObjectName) -> Result<Option<Lock>, VaultError> {
        let Some(keeper) = self.keeper() else { return Ok(None) };
        self.runtime.block_on(async { Ok(self.inner.retry(ASK, || keeper.lock_of(name)).await?.answer) })
    }

    /// All objects below `prefix` that are locked, or were.
    ///
    /// # Errors
    /// `WrongAnswer` for a listing that does not end; else what the vault said last.
    pub fn locked(&self, prefix: &str) -> Result<BTreeMap<ObjectName, Locked>, VaultError> {
        let mut all = BTreeMap::new();
        let Some(keeper) = self.keeper() else { return Ok(all) };
        self.pages(
            prefix,
            async |from| self.inner.retry(LIST, || keeper.locked(prefix, from)).await,
            |page| {
                all.extend(page.into_iter().map(|locked: Locked| (locked.name.clone(), locked)));
                all.len()
            },
        )?;
        Ok(all)
    }

    /// Locks an object as [`Self::lock_terms`] say, from now on.
    pub fn lock(&self, name: &ObjectName, for_good: bool) -> Result<(), VaultError> {
        let Some(keeper) = self.keeper() else { return Ok(()) };
        let of = Try { verb: Verb::Put, ..ASK };
        self.runtime.block_on(async { self.inner.retry(of, || keeper.lock(name, for_good)).await.map(drop) })
    }

    /// Names below `prefix` of which the vault keeps something that was removed or replaced.
    ///
    /// # Errors
    /// `WrongAnswer` for a listing that does not end; else what the vault said last.
    pub fn kept(&self, prefix: &str) -> Result<BTreeSet<ObjectName>, VaultError> {
        let mut all = BTreeSet::new();
        let Some(keeper) = self.keeper() else { return Ok(all) };
        self.pages(
            prefix,
            async |from| self.inner.retry(LIST, || keeper.kept(prefix, from)).await,
            |page| {
                all.extend(page);
                all.len()
            },
        )?;
        Ok(all)
    }

    /// What was under a name before, newest first; what the vault can put back by itself is back.
    pub fn formers(&self, name: &ObjectName) -> Result<Vec<Former>, VaultError> {
        let Some(keeper) = self.keeper() else { return Ok(Vec::new()) };
        let of = Try { verb: Verb::Put, ..ASK };
        self.runtime.block_on(async { Ok(self.inner.retry(of, || keeper.formers(name)).await?.answer) })
    }

    /// All bytes of a former.
    pub fn get_former(&self, name: &ObjectName, former: &Former) -> Result<Bytes, VaultError> {
        let keeper = self.keeper().ok_or_else(|| VaultError::NotFound { what: name.to_string() })?;
        let of = Try { verb: Verb::Get, bytes: former.len, ..ASK };
        self.runtime
            .block_on(async { Ok(self.inner.retry(of, || keeper.get_former(name, former)).await?.answer) })
    }

    /// Takes all pages, each other than the one before, until so much is kept that nobody has so many objects.
    fn pages<T>(
        &self,
        prefix: &str,
        page: impl AsyncFn(Option<&str>) -> Result<super::retry::Done<Page<T>>, VaultError>,
        mut take: impl FnMut(Vec<T>) -> usize,
    ) -> Result<(), VaultError> {
        let wrong = |how| VaultError::WrongAnswer {
            detail: format!("the listing of what is kept of {prefix:?} {how}"),
        };
        self.runtime.block_on(async {
            let mut from: Option<String> = None;
            // Each page that says that there is another one may have as little as one object.
            for _ in 0..listing::NAMES_MAX {
                let got = page(from.as_deref()).await?.answer;
                if take(got.items) > listing::NAMES_MAX {
                    return Err(wrong("has too many objects"));
                }
                if got.next.is_none() {
                    return Ok(());
                }
                if got.next == from {
                    return Err(wrong("does not end"));
                }
                from = got.next;
            }
            Err(wrong("does not end"))
        })
    }
}
