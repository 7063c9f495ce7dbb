//! A vault in memory: the model that every other vault is compared with, and the fast one for tests.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ListPage, ObjectInfo, ObjectName, PAGE_LEN, PutNew, Vault, VaultError};

/// Objects in a map. Lost when dropped.
#[derive(Debug)]
pub struct MemoryVault {
    objects: Mutex<BTreeMap<ObjectName, Kept>>,
    page_len: usize,
    /// What its clock shows, in seconds since 1970.
    now: AtomicI64,
}

/// An object, and when it was put.
#[derive(Debug)]
struct Kept {
    body: Bytes,
    put_at: i64,
}

impl Default for MemoryVault {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryVault {
    /// An empty vault.
    pub fn new() -> Self {
        Self::with_page_len(PAGE_LEN)
    }

    /// An empty vault that lists at most `page_len` objects at a time (at least one).
    pub fn with_page_len(page_len: usize) -> Self {
        Self { objects: Mutex::default(), page_len: page_len.max(1), now: AtomicI64::new(0) }
    }

    /// Sets its clock, which stands still by itself.
    pub fn set_now(&self, seconds: i64) {
        self.now.store(seconds, Ordering::SeqCst);
    }

    fn kept(&self, body: Bytes) -> Kept {
        Kept { body, put_at: self.now.load(Ordering::SeqCst) }
    }

    /// Names of all objects, in order.
    pub fn names(&self) -> Vec<ObjectName> {
        self.lock().keys().cloned().collect()
    }

    /// Bytes of an object.
    pub fn object(&self, name: &ObjectName) -> Option<Bytes> {
        self.lock().get(name).map(|kept| kept.body.clone())
    }

    /// Puts these bytes under `name` whatever is there: for tests that damage a vault.
    pub fn replace(&self, name: &ObjectName, body: Bytes) {
        let kept = self.kept(body);
        self.lock().insert(name.clone(), kept);
    }

    /// Loses an object: for tests that damage a vault.
    pub fn lose(&self, name: &ObjectName) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Kept>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Vault for MemoryVault {
    fn address(&self) -> String {
        "memory".into()
    }

    async fn prepare(&self) -> Result<(), VaultError> {
        Ok(())
    }

    async fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<PutNew, VaultError> {
        let mut objects = self.lock();
        if objects.contains_key(name) {
            return Ok(PutNew::AlreadyThere);
        }
        objects.insert(name.clone(), self.kept(body));
        Ok(PutNew::Created)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, VaultError> {
        let object = self.object(name).ok_or_else(|| VaultError::NotFound { what: name.to_string() })?;
        check_range(name, object.len() as u64, &range)?;
        // Inside the length of an object in memory, so both ends fit in a `usize`.
        Ok(object.slice(range.start as usize..range.end as usize))
    }

    async fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError> {
        Ok(self.lock().get(name).map(|kept| kept.body.len() as u64))
    }

    async fn list(&self, prefix: &str, from: Option<&str>) -> Result<ListPage, VaultError> {
        let after = from.map(parse_page_token).transpose()?;
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let objects = self.lock();
        let mut rest =
            objects.range((start, Bound::Unbounded)).filter(|(name, _)| name.as_str().starts_with(prefix));
        let page: Vec<_> = rest
            .by_ref()
            .take(self.page_len)
            .map(|(name, kept)| ObjectInfo {
                name: name.clone(),
                len: kept.body.len() as u64,
                put_at: Some(kept.put_at),
            })
            .collect();
        let next = rest.next().and_then(|_| page.last()).map(|last| last.name.to_string());
        Ok(ListPage { objects: page, next })
    }

    async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError> {
        Ok(self.lock().remove(name).is_some())
    }

    async fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<bool, VaultError> {
        let mut objects = self.lock();
        let is_it = objects.get(name).is_some_and(|there| there.body == *bytes);
        if is_it {
            objects.remove(name);
        }
        Ok(is_it)
    }
}

/// Refuses a range that ends before it starts or after an object of `len` bytes.
pub(super) fn check_range(name: &ObjectName, len: u64, range: &Range<u64>) -> Result<(), VaultError> {
    if range.start > range.end {
        return Err(VaultError::invalid(format!(
            "range {} to {} of {name} ends before it starts",
            range.start, range.end
        )));
    }
    if range.end > len {
        return Err(VaultError::too_short(name, len, range));
    }
    Ok(())
}

/// Takes the name of the last object of the page before, which is what `next` is in vaults that keep their names in order.
pub(super) fn parse_page_token(token: &str) -> Result<ObjectName, VaultError> {
    ObjectName::new(token).ok_or_else(|| VaultError::invalid("no such page of a listing"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::vault::conformance::conformance;

    #[tokio::test]
    async fn memory_keeps_every_promise() {
        conformance(Arc::new(MemoryVault::new())).await.unwrap();
        conformance(Arc::new(MemoryVault::with_page_len(1))).await.unwrap();
    }

    #[tokio::test]
    async fn a_page_that_does_not_exist_is_refused() {
        assert!(matches!(MemoryVault::new().list("", Some("?")).await, Err(VaultError::Invalid { .. })));
    }
}
