//! What can go wrong in the store, said so that a caller knows what to do about it.
//!
//! A store error is never a source error: no conversion leads from one to the other, because a full
//! disk taken for an unreadable file once gave another tool archives that could not be restored.

use std::path::{Path, PathBuf};

use crate::vault::VaultError;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The thing does not exist.
    NotFound,
    /// The thing exists and was to be made.
    AlreadyThere,
    /// Rights are missing.
    Denied,
    /// Wrong passphrase or key.
    WrongKey,
    /// Bytes are not what they must be.
    Corrupt,
    /// Written by a newer program, or not by Holdfast at all.
    Unsupported,
    /// Later it may work.
    Unavailable,
    /// No room.
    Full,
    /// Another process holds the store.
    Locked,
    /// The caller asked to stop.
    Cancelled,
    /// The request itself makes no sense.
    Invalid,
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No store at a path.
    #[error("no store at {}", path.display())]
    NoStore {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// A store or object is already there.
    #[error("{what} already exists")]
    AlreadyThere {
        /// What exists.
        what: String,
    },
    /// Another process works on the store.
    #[error("store {} is in use by another process{}", path.display(), holder.map(|p| format!(" ({p})")).unwrap_or_default())]
    Locked {
        /// The store.
        path: PathBuf,
        /// Its process id, if it left it.
        holder: Option<u32>,
    },
    /// Something named does not exist.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// No slot opens with the secret.
    #[error("wrong passphrase or key: {detail}")]
    WrongKey {
        /// Which slots were tried.
        detail: String,
    },
    /// Stored bytes are not what they must be.
    #[error("{object} is damaged: {detail}")]
    Corrupt {
        /// Which object.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Needs a newer program.
    #[error("{object} needs a newer version of holdfast: {detail}")]
    TooNew {
        /// Which object.
        object: String,
        /// Version or feature.
        detail: String,
    },
    /// Bytes of something else, or of another store.
    #[error("{object} does not belong to this store: {detail}")]
    NotOurs {
        /// Which object.
        object: String,
        /// How that shows.
        detail: String,
    },
    /// Sealed with a newer key than this store was opened with: another machine, or another process, rotated the keys.
    #[error(
        "{object} is sealed with key generation {generation}, which is not in the ring that opened this store"
    )]
    NoKey {
        /// Which object.
        object: String,
        /// The generation.
        generation: u32,
    },
    /// An annex is that of another directory of this store, or may be: the marker does not say, and the settings do not know it.
    #[error("{} is an annex of another copy of this store, as far as can be told", annex.display())]
    OfCopy {
        /// The annex.
        annex: PathBuf,
    },
    /// The local file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Verb: `write`, `open`, `sync`…
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something is in no directory of staging, and one that may have it is away.
    #[error("{what} is not in staging, and annex {}, which may have it, is away", annex.display())]
    AnnexAway {
        /// What was looked for.
        what: String,
        /// The annex.
        annex: PathBuf,
    },
    /// The catalog refused.
    #[error("catalog: {detail}")]
    Catalog {
        /// What SQLite said and during what.
        detail: String,
        /// Class, from SQLite's code.
        class: ErrorClass,
    },
    /// A vault refused or did not answer.
    #[error("vault {vault}: {source}")]
    Vault {
        /// The vault's address, without secrets.
        vault: String,
        /// Why.
        source: VaultError,
    },
    /// Something is needed that only a vault has which the settings do not name, or which cannot be addressed.
    #[error("there is no way to vault {address}")]
    NoWay {
        /// The vault's address, without secrets.
        address: String,
    },
    /// Time is up.
    #[error("no answer in time for {what}")]
    Timeout {
        /// What was waited for.
        what: String,
    },
    /// What was brought from a vault into the cache is not there.
    #[error("the cache does not keep what is fetched")]
    NotKept,
    /// A session that adds chunks has ended and takes no more; whoever ends it is told why.
    #[error("the session has ended: {detail}")]
    Ended {
        /// Why, as far as it is known.
        detail: String,
    },
    /// A point on its way into a vault was taken for dead, because it gave no sign of life for too long, or it was removed there on purpose.
    #[error(
        "recovery point {point} was removed from vault {vault}, or was too long on its way there; it can begin again"
    )]
    Revoked {
        /// The point.
        point: String,
        /// The vault's address, without secrets.
        vault: String,
    },
    /// A point whose way into a vault was revoked cannot begin again.
    #[error(
        "recovery point {point} cannot come into vault {vault} any more: {why}; the next one of its source can"
    )]
    CannotCome {
        /// The point.
        point: String,
        /// The vault's address, without secrets.
        vault: String,
        /// Why not.
        why: &'static str,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The request makes no sense.
    #[error("{detail}")]
    Invalid {
        /// Why.
        detail: String,
    },
}

impl StoreError {
    /// A damaged object.
    pub fn corrupt(object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt { object: object.into(), detail: detail.into() }
    }

    /// A request that makes no sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid { detail: detail.into() }
    }

    /// For `map_err` on file operations: what was done to which path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// What is wanted from memory alone is not there: it may be had by who waits for it.
    pub fn not_in_memory() -> Self {
        Self::Timeout { what: "memory".to_owned() }
    }

    /// Whether the catalog is not what it was when something in it was looked up, or damaged.
    pub(crate) fn is_of_changed_catalog(&self) -> bool {
        matches!(self, Self::Catalog { class: ErrorClass::Corrupt, .. })
    }

    /// Whether a vault did not answer, or not what it was asked, however often it was, that may have what was wanted, and may answer
    /// later.
    pub fn is_vault_away(&self) -> bool {
        matches!(self, Self::Vault { source, .. } if source.is_transient())
    }

    /// What happened, without the address of the vault: for who has named that already.
    pub fn beside_vault(&self) -> String {
        match self {
            Self::Vault { source, .. } => source.to_string(),
            e => e.to_string(),
        }
    }

    /// What a caller can do about it.
    pub fn class(&self) -> ErrorClass {
        use std::io::ErrorKind as K;
        match self {
            Self::NoStore { .. } | Self::NotFound { .. } | Self::AnnexAway { .. } => ErrorClass::NotFound,
            Self::AlreadyThere { .. } => ErrorClass::AlreadyThere,
            Self::Locked { .. } => ErrorClass::Locked,
            Self::WrongKey { .. } | Self::NoKey { .. } => ErrorClass::WrongKey,
            Self::Corrupt { .. } => ErrorClass::Corrupt,
            Self::TooNew { .. } | Self::NotOurs { .. } | Self::OfCopy { .. } => ErrorClass::Unsupported,
            Self::Io { source, .. } => match source.kind() {
                K::NotFound => ErrorClass::NotFound,
                K::AlreadyExists => ErrorClass::AlreadyThere,
                K::PermissionDenied | K::ReadOnlyFilesystem => ErrorClass::Denied,
                K::StorageFull | K::QuotaExceeded => ErrorClass::Full,
                _ => ErrorClass::Unavailable,
            },
            Self::Catalog { class, .. } => *class,
            Self::Vault { source, .. } => source.class(),
            Self::Timeout { .. } | Self::Ended { .. } | Self::NoWay { .. } | Self::NotKept => {
                ErrorClass::Unavailable
            }
            Self::Cancelled => ErrorClass::Cancelled,
            Self::Invalid { .. } | Self::Revoked { .. } | Self::CannotCome { .. } => ErrorClass::Invalid,
        }
    }
}
