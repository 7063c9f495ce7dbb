//! What may be done in a vault with a credential, as far as that is to be told without doing it.
//!
//! Nobody is asked: whether something may be deleted only a deletion shows. So a credential that does not say what it may do counts
//! as unknown, never as harmless.

use super::address::{Credentials, VaultAddress};
use crate::clock::Timestamp;

/// What may be done, each with what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum May {
    /// Not to be told.
    Unknown,
    /// Reading.
    Read,
    /// Putting what was not there, which nobody can take back: backups, and no expiry.
    Write,
    /// Removing or replacing what is there: all that the verbs do, and all that an intruder could.
    Maintain,
}

impl May {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Read => "reader",
            Self::Write => "writer",
            Self::Maintain => "maintainer",
        }
    }
}

/// A credential without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Which it is.
    pub credential: &'static str,
    /// What it may do.
    pub may: May,
    /// When it ends, if it says so.
    pub until: Option<Timestamp>,
}

impl Rights {
    /// One that says nothing of its end.
    pub fn new(credential: &'static str, may: May) -> Self {
        Self { credential, may, until: None }
    }

    /// Those at the vault of this address.
    pub fn of(address: &VaultAddress, credentials: &Credentials) -> Self {
        match (address, &credentials.azure) {
            // Who may make files in a directory may delete them.
            (VaultAddress::Directory(_), _) => {
                Self::new("rights on files: to write is to delete", May::Maintain)
            }
            (VaultAddress::Azure(_), Some(credential)) => credential.rights(),
            (VaultAddress::Azure(_), None) => Self::new("none", May::Unknown),
        }
    }
}
