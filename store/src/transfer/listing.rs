//! A whole listing, page by page, and that it ends whatever the vault says.
//!
//! Names ascend from page to page, which [`Vault::list`](crate::vault::Vault::list) promises; a page that does not go on where the
//! one before ended is a wrong answer, so no page comes twice. Pages without anything that is kept are bounded in number, and
//! so is what is kept. No time is set: while pages come there is progress, and who is told to stop stops at each of them.

use super::{Inner, Try};
use crate::clock::{Deadline, Timestamp};
use crate::vault::{ObjectInfo, ObjectName, VaultError, Verb};

/// Most objects of a listing of which ids and lengths are kept: packs of 16 MiB for 160 TB, in 40 bytes each.
pub(super) const OBJECTS_MAX: usize = 10_000_000;
/// Most objects that are kept by their names, whatever these are: some 350 bytes each at worst.
pub(super) const NAMES_MAX: usize = 1_000_000;
/// Most objects that are kept by their names where others are passed over: such a name is short, and takes some 130 bytes with the rest.
pub(super) const NAMED_MAX: usize = 4_000_000;
/// Pages in a row of which nothing was kept. Azure may give some that are empty and lead on to others.
const EMPTY_PAGES_MAX: usize = 1_000;

impl Inner {
    /// What `of` makes of the objects below `prefix`, `most` at most, in the order of their names. What it makes nothing of is skipped.
    pub(super) async fn list_as<T>(
        &self,
        prefix: &str,
        most: usize,
        deadline: Deadline,
        of: impl Fn(&ObjectInfo) -> Option<T>,
    ) -> Result<Vec<T>, VaultError> {
        let mut listing = Listing { prefix, most, kept: Vec::new(), last: None, empty_pages: 0 };
        let mut from: Option<String> = None;
        loop {
            let list = Try { verb: Verb::List, bytes: 0, deadline };
            let page = self.retry(list, || self.vault.list(prefix, from.as_deref())).await?.answer;
            let shown = |at| self.clock.shown_at(Timestamp::from_seconds(at)).seconds;
            let ours = page.objects.into_iter().filter(|object| object.name.as_str().starts_with(prefix));
            let ours = ours.map(|object| ObjectInfo { put_at: object.put_at.map(shown), ..object });
            listing.add(ours.filter_map(|object| Some((of(&object)?, object.name))).collect())?;
            if page.next.is_none() {
                return Ok(listing.kept);
            }
            if page.next == from {
                return Err(listing.wrong("does not end: a page leads to itself"));
            }
            from = page.next;
        }
    }
}

/// What was kept of the pages so far.
struct Listing<'a, T> {
    prefix: &'a str,
    most: usize,
    kept: Vec<T>,
    last: Option<ObjectName>,
    empty_pages: usize,
}

impl<T> Listing<'_, T> {
    fn add(&mut self, mut page: Vec<(T, ObjectName)>) -> Result<(), VaultError> {
        page.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        page.dedup_by(|a, b| a.1 == b.1);
        let [(_, first), ..] = &page[..] else { return self.add_empty() };
        // The empty prefix, which no store lists, is that of all containers, one after the other.
        if !self.prefix.is_empty() && self.last.as_ref().is_some_and(|last| first <= last) {
            return Err(self.wrong(&format!("does not go on where it was, but at {first}")));
        }
        let count = self.kept.len() + page.len();
        if count > self.most {
            let more = format!(
                "has {count} objects so far, and no more than {} are read: whoever may remove there has to remove what somebody put there that is not the store's",
                self.most
            );
            return Err(self.wrong(&more));
        }
        self.empty_pages = 0;
        self.last = page.last().map(|(_, name)| name.clone());
        self.kept.extend(page.into_iter().map(|(kept, _)| kept));
        Ok(())
    }

    fn add_empty(&mut self) -> Result<(), VaultError> {
        self.empty_pages += 1;
        match self.empty_pages > EMPTY_PAGES_MAX {
            true => Err(self.wrong(&format!(
                "does not end: {EMPTY_PAGES_MAX} pages in a row with nothing of a store in them"
            ))),
            false => Ok(()),
        }
    }

    fn wrong(&self, how: &str) -> VaultError {
        VaultError::WrongAnswer { detail: format!("the listing of {:?} {how}", self.prefix) }
    }
}
