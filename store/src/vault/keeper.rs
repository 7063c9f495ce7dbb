//! What the service behind a vault keeps of its own accord, whoever asks to remove or replace it: objects that are locked until a moment, and what was
//! removed or replaced and can still be had. Some storage accounts have it; directories do not.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::{ObjectName, VaultError};

/// Seconds of a day.
pub const DAY: i64 = 24 * 60 * 60;

/// What a service keeps, as far as it tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeps {
    /// For how many days what is removed can be brought back; 0 if it cannot.
    pub removed_days: Option<u16>,
    /// Whether what is replaced or removed stays as a version.
    pub versions: Option<bool>,
    /// Whether single objects can be locked.
    pub locks: Option<bool>,
}

impl Keeps {
    /// Whether it is known that nothing is kept of what is removed.
    pub fn is_nothing(&self) -> bool {
        self.removed_days == Some(0) && self.versions == Some(false) && self.locks != Some(true)
    }
}

/// Why an object cannot be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// It is locked until this moment, in seconds since 1970.
    Until(i64),
    /// Until somebody takes a legal hold away.
    Held,
    /// The service does not say until when.
    Unknown,
}

impl Lock {
    /// Whether it still holds at a moment.
    pub fn holds_at(&self, now: i64) -> bool {
        !matches!(self, Self::Until(until) if *until <= now)
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until(at) => match jiff::Timestamp::from_second(*at) {
                Ok(at) => write!(f, "locked until {at}"),
                Err(_) => write!(f, "locked until @{at}"),
            },
            Self::Held => f.write_str("under a legal hold"),
            Self::Unknown => f.write_str("locked by a policy of the storage account"),
        }
    }
}

/// How objects are locked when they are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockTerms {
    /// For so many days.
    pub days: u16,
    /// Whether nobody can shorten that, the owner of the account neither.
    pub for_good: bool,
}

impl LockTerms {
    /// Most days.
    pub const DAYS_MAX: u16 = 3650;
}

/// An object with what keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Its name.
    pub name: ObjectName,
    /// The lock.
    pub lock: Lock,
    /// Whether nobody can shorten it.
    pub for_good: bool,
}

/// What was under a name before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// What the service calls it; opaque.
    pub mark: String,
    /// Its length in bytes.
    pub len: u64,
}

/// Some of a listing.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What is listed.
    pub items: Vec<T>,
    /// Where the next page begins, if there is one; opaque.
    pub next: Option<String>,
}

/// A service that keeps something. Requests may be refused for want of rights (`Denied`), as any other.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// What it keeps. What may not be asked for is not known, and no error.
    async fn keeps(&self) -> Result<Keeps, VaultError>;

    /// How the objects that stay are locked when they are put, if they are.
    fn terms(&self) -> Option<LockTerms>;

    /// What keeps an object from being removed or replaced, if something does.
    async fn lock_of(&self, name: &ObjectName) -> Result<Option<Lock>, VaultError>;

    /// One page of the objects below `prefix` that are locked, or were. Names ascend from page to page.
    async fn locked(&self, prefix: &str, from: Option<&str>) -> Result<Page<Locked>, VaultError>;

    /// Locks an object as [`Keeper::terms`] say, from now on; `for_good` if it is already locked so that nobody can shorten that. For who saw that the
    /// lock that there is ends sooner.
    async fn lock(&self, name: &ObjectName, for_good: bool) -> Result<(), VaultError>;

    /// One page of the names below `prefix` of which something is kept that was removed or replaced; a name may come more than once.
    async fn kept(&self, prefix: &str, from: Option<&str>) -> Result<Page<ObjectName>, VaultError>;

    /// What was under a name before, oldest first, each readable. If nothing is under the name now and the service can put back what was removed
    /// last, it does, and that is no former any more.
    async fn formers(&self, name: &ObjectName) -> Result<Vec<Former>, VaultError>;

    /// All bytes of a former.
    async fn get_former(&self, name: &ObjectName, former: &Former) -> Result<Bytes, VaultError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_says_until_when_it_holds_and_does_not_hold_after_that() {
        assert_eq!(Lock::Until(1_798_718_400).to_string(), "locked until 2026-12-31T12:00:00Z");
        assert!(Lock::Until(i64::MAX).to_string().starts_with("locked until @"));
        assert!(Lock::Until(100).holds_at(99) && !Lock::Until(100).holds_at(100));
        assert!(Lock::Held.holds_at(i64::MAX) && Lock::Unknown.holds_at(i64::MAX));
    }

    #[test]
    fn only_what_is_known_to_keep_nothing_keeps_nothing() {
        let keeps = |removed_days, versions, locks| Keeps { removed_days, versions, locks }.is_nothing();
        assert!(keeps(Some(0), Some(false), None) && keeps(Some(0), Some(false), Some(false)));
        assert!(!keeps(Some(0), None, None), "the object that was looked at may be older than versioning");
        assert!(!keeps(None, None, None) && !keeps(Some(7), None, None));
        assert!(!keeps(Some(0), Some(true), None) && !keeps(Some(0), None, Some(true)));
    }
}
