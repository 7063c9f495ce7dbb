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

/// Pages in a row that bring nothing new: twice as many as all objects of a vault have, of which nothing is kept.
const IDLE_PAGES_MAX: usize = 2 * listing::OBJECTS_MAX / 5_000;

impl Transfer {
    fn keeper(&self) -> Option<&dyn Keeper> {
        self.inner.vault.keeper()
    }

    /// Whether the vault is of a kind that may keep something.
    pub fn is_kept(&self) -> bool {
        self.keeper().is_some()
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

    /// What was under a name before, oldest first; what the vault can put back by itself is back.
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

    /// Takes all pages until so much is kept that nobody has so many objects. `take` says how many names there are so far: pages in a row that bring no
    /// new ones are bounded in number.
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
            let (mut taken, mut idle) = (0, 0);
            while idle < IDLE_PAGES_MAX {
                let got = page(from.as_deref()).await?.answer;
                let now = take(got.items);
                idle = if now > taken { 0 } else { idle + 1 };
                taken = now;
                if taken > listing::NAMES_MAX {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;
    use std::sync::Arc;

    use super::super::retry::Done;
    use super::*;
    use crate::clock::SystemClock;
    use crate::transfer::TransferPolicy;
    use crate::vault::memory::MemoryVault;

    /// Takes pages that always lead on; of so many in a row the last brings something new.
    fn endless(new_after: usize, end_after: usize) -> (Result<(), VaultError>, usize) {
        let transfer =
            Transfer::new(Arc::new(MemoryVault::new()), Arc::new(SystemClock), TransferPolicy::default())
                .unwrap();
        let (asked, mut names) = (Cell::new(0), BTreeSet::new());
        let page = async |_: Option<&str>| {
            asked.set(asked.get() + 1);
            let next = (asked.get() < end_after).then(|| asked.get().to_string());
            Ok(Done { answer: Page { items: vec![asked.get() / new_after], next }, tries: 1 })
        };
        let done = transfer.pages("pack/", page, |items| {
            names.extend(items);
            names.len()
        });
        (done, asked.get())
    }

    #[test]
    fn pages_that_bring_nothing_new_end_and_others_may_be_many() {
        let (ended, asked) = endless(usize::MAX, usize::MAX);
        assert!(ended.unwrap_err().to_string().contains("does not end"));
        assert_eq!(asked, 1 + IDLE_PAGES_MAX);
        let (whole, asked) = endless(3, 3 * IDLE_PAGES_MAX);
        whole.unwrap();
        assert_eq!(asked, 3 * IDLE_PAGES_MAX);
    }
}
