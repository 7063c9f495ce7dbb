//! What the file system can answer instead of data, and the one bridge from there to the kernel's numbers.
//!
//! Whatever goes wrong in the store is `EIO`, never `ENOENT`: a tool that mirrors a mount with deletion
//! must not take damage for absence. The cause goes to the log, since the kernel has room for a number only.

use holdfast_store::error::{ErrorClass, StoreError};
use nix::errno::Errno;

use crate::recovery::{Reach, Refusal};

/// Why a request has no data for an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// No entry of that name.
    #[error("no such entry")]
    NotFound,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Something other than a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The request fits another kind of node only: reading the target of a file, the bytes of a link.
    #[error("not possible for this kind of node")]
    WrongKind,
    /// A number that this mount does not know any more.
    #[error("the node is not known any more")]
    Stale,
    /// No extended attribute of that name.
    #[error("no such attribute")]
    NoAttribute,
    /// The caller's buffer is too small.
    #[error("the buffer is too small")]
    Range,
    /// Seeking beyond the end, or for data where only a hole follows.
    #[error("nothing there to seek to")]
    NothingThere,
    /// A request that makes no sense.
    #[error("invalid argument")]
    Invalid,
    /// Recovery points are never written to.
    #[error("recovery points are read-only")]
    ReadOnly,
    /// A component longer than 255 bytes.
    #[error("name too long")]
    NameTooLong,
    /// The source could not read this file when the point was made.
    #[error("the content of this file was not captured: the source could not read it")]
    NotCaptured,
    /// The mount is ending.
    #[error("the mount is ending")]
    Ending,
    /// The caller is to end and does not wait any longer.
    #[error("the caller is to end")]
    Interrupted,
    /// The file failed to answer in time a moment ago.
    #[error("not asked again: it gave no answer a moment ago")]
    Tripped,
    /// No answer came in time.
    #[error("no answer in time")]
    Late,
    /// The system has no thread for it.
    #[error("no thread can be started that would wait for a vault: {0}")]
    NoThread(#[source] std::io::Error),
    /// A fault of this program.
    #[error("a fault of this program")]
    Bug,
    /// Not an error: the answer is not in memory, ask again with patience.
    #[error("the answer is not in memory")]
    Later(Reach),
    /// The store refused.
    #[error(transparent)]
    Store(StoreError),
}

impl From<Refusal> for FsError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Later(reach) => Self::Later(reach),
            Refusal::Failed(error) => Self::Store(error),
        }
    }
}

impl FsError {
    /// The number the kernel hands to the caller.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::ENOENT,
            Self::NotDirectory => Errno::ENOTDIR,
            Self::IsDirectory => Errno::EISDIR,
            Self::WrongKind | Self::Invalid => Errno::EINVAL,
            Self::Stale => Errno::ESTALE,
            Self::NoAttribute => Errno::ENODATA,
            Self::Range => Errno::ERANGE,
            Self::NothingThere => Errno::ENXIO,
            Self::ReadOnly => Errno::EROFS,
            Self::NameTooLong => Errno::ENAMETOOLONG,
            Self::Interrupted => Errno::EINTR,
            Self::NotCaptured | Self::Ending | Self::Tripped | Self::Late | Self::NoThread(_) => Errno::EIO,
            Self::Bug | Self::Later(_) | Self::Store(_) => Errno::EIO,
        }
    }

    /// Whether a later attempt may succeed: the answer could not be had, or not in time.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Late | Self::NoThread(_) => true,
            Self::Store(error) => error.class() == ErrorClass::Unavailable,
            _ => false,
        }
    }

    /// Whether it is trouble that belongs in the log, and not an ordinary answer.
    pub fn is_trouble(&self) -> bool {
        self.errno() == Errno::EIO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_number_that_programs_expect() {
        let table = [
            (FsError::NotFound, Errno::ENOENT),
            (FsError::NotDirectory, Errno::ENOTDIR),
            (FsError::IsDirectory, Errno::EISDIR),
            (FsError::WrongKind, Errno::EINVAL),
            (FsError::Invalid, Errno::EINVAL),
            (FsError::Stale, Errno::ESTALE),
            (FsError::NoAttribute, Errno::ENODATA),
            (FsError::Range, Errno::ERANGE),
            (FsError::NothingThere, Errno::ENXIO),
            (FsError::ReadOnly, Errno::EROFS),
            (FsError::NameTooLong, Errno::ENAMETOOLONG),
            (FsError::Interrupted, Errno::EINTR),
            (FsError::NotCaptured, Errno::EIO),
            (FsError::Ending, Errno::EIO),
            (FsError::Tripped, Errno::EIO),
            (FsError::Late, Errno::EIO),
            (FsError::NoThread(std::io::ErrorKind::WouldBlock.into()), Errno::EIO),
            (FsError::Bug, Errno::EIO),
        ];
        for (error, errno) in table {
            assert_eq!(error.errno(), errno, "{error}");
            assert_eq!(error.is_trouble(), errno == Errno::EIO, "{error}");
        }
    }

    #[test]
    fn nothing_the_store_says_looks_like_absence() {
        let errors = [
            StoreError::NotFound { what: "chunk".into() },
            StoreError::Cancelled,
            StoreError::Timeout { what: "vault".into() },
            StoreError::corrupt("pack", "seal"),
            StoreError::invalid("x"),
        ];
        for error in errors {
            assert_eq!(FsError::from(Refusal::Failed(error)).errno(), Errno::EIO);
        }
    }
}
