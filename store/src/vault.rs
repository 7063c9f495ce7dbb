//! A vault: somewhere far away that keeps objects which are written once and never changed.
//!
//! The trait is the door; behind it stand a directory, memory, Azure Blob and a fault-injecting
//! wrapper. What every implementation promises is written at the methods and proven by
//! `conformance`, which all of them pass. Retries, timeouts, concurrency and the wait for an answer
//! belong to `transfer`, not here: an implementation does one request and says honestly what came of it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::ErrorClass;
use crate::pace::Pacer;

pub mod address;
pub mod azure;
pub mod conformance;
pub mod directory;
pub mod keeper;
pub mod memory;
pub mod rights;
pub mod testing;
pub mod unaddressable;

/// Objects in one page of a listing of the vaults that are made here: what the large services give, too.
const PAGE_LEN: usize = 5000;

/// The name of an object in a vault: `/`-separated parts of `a-z 0-9 . _ -`, none empty, none `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 255;

    /// Checks and takes a name.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let part_is_right = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        };
        (name.len() <= Self::MAX_LEN && name.split('/').all(part_is_right)).then_some(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the object belongs to the control part (`docs/format.md`, section 2), where writers may only read.
    pub fn is_control(&self) -> bool {
        let first = self.0.split('/').next().unwrap_or_default();
        matches!(first, "config" | "keys" | "writers" | "gen" | "purge")
    }

    /// Whether the object stays until expiry or reclaim lets go of it: a pack, an index object or a point (or the word that there is none). Others
    /// go in the course of every day, and are never locked.
    pub fn is_lasting(&self) -> bool {
        matches!(self.0.split_once('/'), Some(("pack" | "idx" | "rp", _)))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The kinds of request a vault takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Making containers or directories.
    Prepare,
    /// `put_new`.
    Put,
    /// `get_range`.
    Get,
    /// `stat`.
    Stat,
    /// `list`, each page.
    List,
    /// `delete`.
    Delete,
}

/// What a put-if-absent came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutNew {
    /// The object was made by this request.
    Created,
    /// An object of this name was there; nothing was changed. After a lost answer it may be our own.
    AlreadyThere,
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub name: ObjectName,
    /// Its length in bytes.
    pub len: u64,
    /// When it was put, by the vault's clock, in seconds since 1970; nothing where the vault does not tell.
    pub put_at: Option<i64>,
}

/// Some of a listing.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects, in no promised order among themselves.
    pub objects: Vec<ObjectInfo>,
    /// Where the next page begins, if there is one; opaque.
    pub next: Option<String>,
}

/// More that are no objects are not told: they would fill memory.
pub const NO_OBJECTS_MAX: usize = 100_000;

/// Whether a name is one that an object of a store has.
pub type IsObject = fn(&ObjectName) -> bool;

/// Something that has a name as an object could have, and is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoObject {
    /// Its name.
    pub name: ObjectName,
    /// What it is, with an article.
    pub what: &'static str,
}

/// What one request to a vault can come to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// No such object or container.
    #[error("{what} not found")]
    NotFound {
        /// Object or container.
        what: String,
    },
    /// Credentials are missing, wrong or do not allow it.
    #[error("not allowed: {detail}")]
    Denied {
        /// What the service said.
        detail: String,
    },
    /// The service or the way to it is in trouble: try again.
    #[error("unavailable: {detail}")]
    Unavailable {
        /// What happened.
        detail: String,
        /// How long the service asks to be left alone.
        retry_after: Option<std::time::Duration>,
    },
    /// The answer is not what was asked for (too short, wrong range, wrong checksum): try again.
    #[error("wrong answer: {detail}")]
    WrongAnswer {
        /// How it is wrong.
        detail: String,
    },
    /// The service keeps the object, whoever asks to remove or replace it.
    #[error("{what} is {lock}")]
    Locked {
        /// Object.
        what: String,
        /// Until when.
        lock: keeper::Lock,
    },
    /// The object lies in an archive tier and must be rehydrated first.
    #[error("{what} is archived")]
    Archived {
        /// Object.
        what: String,
    },
    /// No room.
    #[error("full: {detail}")]
    Full {
        /// What the service said.
        detail: String,
    },
    /// The object ends before the range that was asked for.
    #[error("{what} is too short: {detail}")]
    TooShort {
        /// Object.
        what: String,
        /// Its length, if the service told it, and the range.
        detail: String,
    },
    /// Other bytes lie under a name that was to be written.
    #[error("{what} exists with other content: {detail}")]
    Conflict {
        /// Object.
        what: String,
        /// How it differs.
        detail: String,
    },
    /// The request can never work.
    #[error("{detail}")]
    Invalid {
        /// Why.
        detail: String,
    },
    /// Time is up.
    #[error("no answer in time")]
    Timeout,
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl VaultError {
    /// An answer that may be better next time.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable { detail: detail.into(), retry_after: None }
    }

    /// A request that can never work.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid { detail: detail.into() }
    }

    /// An object of `len` bytes was asked for `range`, which does not lie in it.
    pub fn too_short(name: &ObjectName, len: u64, range: &Range<u64>) -> Self {
        let detail = format!("it has {len} bytes, asked for {} to {}", range.start, range.end);
        Self::TooShort { what: name.to_string(), detail }
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::WrongAnswer { .. } | Self::Timeout)
    }

    /// What a caller can do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::Denied { .. } | Self::Locked { .. } => ErrorClass::Denied,
            // A wrong answer tells of the way to the vault, or of somebody else who answers there, and nothing of the object.
            Self::Unavailable { .. } | Self::WrongAnswer { .. } | Self::Timeout | Self::Archived { .. } => {
                ErrorClass::Unavailable
            }
            Self::TooShort { .. } => ErrorClass::Corrupt,
            Self::Conflict { .. } => ErrorClass::AlreadyThere,
            Self::Full { .. } => ErrorClass::Full,
            Self::Invalid { .. } => ErrorClass::Invalid,
            Self::Cancelled => ErrorClass::Cancelled,
        }
    }
}

/// A store of immutable objects.
#[async_trait]
pub trait Vault: Send + Sync + fmt::Debug {
    /// The address for people and logs; never with a secret in it.
    fn address(&self) -> String;

    /// Makes the containers or directories, if they are missing. Idempotent.
    async fn prepare(&self) -> Result<(), VaultError>;

    /// Writes an object if none of that name exists. When this returns `Created` the whole object is
    /// durable and readable; no reader ever sees a part of it. Never replaces anything. The service was
    /// asked to verify a checksum of the body where it can.
    async fn put_new(&self, name: &ObjectName, body: Bytes) -> Result<PutNew, VaultError>;

    /// The same, sending no faster than `pacer` lets it. Where bytes take no time on their way all of them are waited for before.
    async fn put_paced(
        &self,
        name: &ObjectName,
        body: Bytes,
        pacer: &Arc<Pacer>,
    ) -> Result<PutNew, VaultError> {
        pacer.take_all(body.len()).await;
        self.put_new(name, body).await
    }

    /// Exactly the bytes `range` of an object, or an error: never fewer, never others, never padding. A range that
    /// reaches beyond the end is `TooShort`; one that ends before it starts is `Invalid`; an empty one inside the
    /// object is no bytes.
    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, VaultError>;

    /// Length of an object; `None` if there is none. If the vault itself is missing that is `NotFound`, for
    /// otherwise a disk that is not mounted would look like a vault that lost everything.
    async fn stat(&self, name: &ObjectName) -> Result<Option<u64>, VaultError>;

    /// One page of the objects whose names begin with `prefix` (which ends at a `/` or is empty), those put before the
    /// first page was asked for all among them. `from`: `next` of the page before. Names ascend from page to page: whatever is
    /// on one orders after all that was on those before, unless `prefix` is empty. Azure says that it lists in alphabetical order
    /// (<https://learn.microsoft.com/rest/api/storageservices/enumerating-blob-resources>).
    async fn list(&self, prefix: &str, from: Option<&str>) -> Result<ListPage, VaultError>;

    /// What lies below `prefix` where an object could, and is none, with what it is: links, devices and the like, and directories under names
    /// that `is_object` says are an object's. [`NO_OBJECTS_MAX`] of them at most. It is neither opened nor followed. Services have nothing but objects.
    async fn no_objects(&self, _prefix: &str, _is_object: IsObject) -> Result<Vec<NoObject>, VaultError> {
        Ok(Vec::new())
    }

    /// Removes an object; `false` if there was none. `Locked` if the service keeps it, whoever asks.
    async fn delete(&self, name: &ObjectName) -> Result<bool, VaultError>;

    /// Removes an object if it is exactly `bytes`; `false` if there was none, or another: what somebody put in its place meanwhile stays.
    /// `Locked` if the service keeps it.
    async fn delete_exactly(&self, name: &ObjectName, bytes: &Bytes) -> Result<bool, VaultError>;

    /// What is kept here of its own accord, where something is.
    fn keeper(&self) -> Option<&dyn keeper::Keeper> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_cannot_leave_their_vault() {
        for good in ["config", "pack/ab/0123", "rp/00/ff", "a-b_c.d"] {
            assert!(ObjectName::new(good).is_some(), "{good}");
        }
        for bad in
            ["", "/", "/a", "a/", "a//b", "..", "a/../b", ".", "A", "a b", "a\0", "é", &"a".repeat(256)]
        {
            assert!(ObjectName::new(bad).is_none(), "{bad:?}");
        }
    }
}
