//! Why there is no mount, said so that a person can do something about it.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_store::error::StoreError;

/// Why mounting or unmounting failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// No FUSE in the kernel, or none given to this container.
    #[error(
        "/dev/fuse is missing: load the kernel module with `modprobe fuse`, or give /dev/fuse to this container"
    )]
    NoFuse,
    /// Only root mounts without a helper.
    #[error("fusermount3 is missing: install the package `fuse3` (Debian, Ubuntu), or mount as root")]
    NoHelper,
    /// The helper refused.
    #[error("fusermount3 refused: {0}")]
    Helper(String),
    /// Not a directory.
    #[error("{} is not a directory", path.display())]
    NotDirectory {
        /// The mountpoint.
        path: PathBuf,
    },
    /// What is in the directory would be hidden.
    #[error("{} is not empty: what is in it would be hidden", path.display())]
    NotEmpty {
        /// The mountpoint.
        path: PathBuf,
    },
    /// The store would be hidden, and with it everything the mount shows.
    #[error("{} would cover the store in {}", path.display(), store.display())]
    CoversStore {
        /// The mountpoint.
        path: PathBuf,
        /// The store's directory.
        store: PathBuf,
    },
    /// A mount of ours is there and lives.
    #[error("recovery points are already mounted on {}", path.display())]
    AlreadyMounted {
        /// The mountpoint.
        path: PathBuf,
    },
    /// Somebody else's mount is there and dead.
    #[error("{} holds a dead mount of `{source_name}`, which is not ours to remove", path.display())]
    DeadForeign {
        /// The mountpoint.
        path: PathBuf,
        /// What the table of mounts says.
        source_name: String,
    },
    /// A mount is there and nobody answers for it.
    #[error(
        "{} holds a mount of `{source_name}` that does not answer; `holdfast umount` ends one of ours by force",
        path.display()
    )]
    Silent {
        /// The mountpoint.
        path: PathBuf,
        /// What the table of mounts says.
        source_name: String,
    },
    /// Not a mount of ours.
    #[error("what is mounted on {} is `{source_name}` and not recovery points", path.display())]
    NotOurs {
        /// The mountpoint.
        path: PathBuf,
        /// What the table of mounts says.
        source_name: String,
    },
    /// Nothing is mounted there.
    #[error("nothing is mounted on {}", path.display())]
    NotMounted {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    /// No process beside this one.
    #[error("cannot start the process that guards the mount: {0}")]
    Guard(io::Error),
    /// The kernel and the program did not understand each other.
    #[error("the session with the kernel failed: {0}")]
    Session(String),
    /// The recovery points cannot be listed.
    #[error(transparent)]
    Store(StoreError),
}

impl MountError {
    /// For `map_err`: what was done to which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
