//! Restoring: a recovery point's tree written below a directory, with everything that the point knows of it.
//!
//! One thread walks the tree, makes every entry in walk order and makes hard links; workers write the contents of files
//! through a bounded queue and give each file its attributes when its last byte is written. A directory is made with rights for its owner
//! alone and gets its own attributes when everything in it was made, so a read-only or immutable one can be
//! filled. For a file the order is: content, owner (it takes away set-id bits and capabilities), extended
//! attributes with ACLs and capabilities, mode, times, flags. Immutable and append-only files with several names get those two flags last of
//! all, because no link can be made to them then.
//!
//! Every step goes by directory descriptors and never through a symbolic link ([`crate::descent`]). Metadata of links and special files is
//! set through `/proc/self/fd`, so `/proc` must be mounted.
//!
//! Trouble with one entry is told to the monitor with its path and counted; only a full or read-only target, or the
//! caller's wish, ends the work early.

mod attributes;
mod late;
mod leaves;
mod links;
mod report;
mod run;
mod target;
#[cfg(test)]
mod tests;
mod writers;

use std::os::fd::OwnedFd;

use bytes::Bytes;
use holdfast_store::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::monitor::Monitor;
use holdfast_store::tree::{Extent, Node};

use crate::error::TargetError;
use crate::pattern::Patterns;

/// Nodes as they come from a directory.
pub type Nodes<'a> = Box<dyn Iterator<Item = Result<Node, StoreError>> + 'a>;

/// Extents as they come from a file.
pub type Extents<'a> = Box<dyn Iterator<Item = Result<Extent, StoreError>> + 'a>;

/// What a restore reads from: a recovery point in a store, or a tree in memory. `data` is called from many threads.
pub trait TreeReader: Sync {
    /// Entries of a directory, ascending by name.
    fn entries(&self, directory: &Node) -> Result<Nodes<'_>, StoreError>;

    /// Extents of a file in order, without gaps.
    fn extents(&self, file: &Node) -> Result<Extents<'_>, StoreError>;

    /// The bytes of a data extent, verified to be those that its id names.
    fn data(&self, id: &ChunkId, len: u32) -> Result<Bytes, StoreError>;
}

/// What happens to something other than a directory that is in the way. Directories are always merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays, and that is a problem.
    #[default]
    Refuse,
    /// It stays, and that is as wanted.
    Never,
    /// It is replaced.
    Always,
    /// It is replaced if it was changed before what is restored was.
    IfNewer,
    /// It stays, and what is restored gets the name with `.restored` at its end.
    KeepBoth,
}

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// What happens to what is in the way.
    pub overwrite: Overwrite,
    /// Only what these choose (paths begin with `/` at the point's root), with the directories that lead there; everything if empty.
    pub include: Patterns,
    /// Not what these choose.
    pub exclude: Patterns,
    /// Writes nothing and counts what would be written; what is in the way is not looked at.
    pub dry_run: bool,
    /// Threads that write files; 0 for as many as there are processors, at most 8.
    pub workers: usize,
    /// Gives the target directory the attributes of the point's root.
    pub root_attributes: bool,
    /// Waits at the end until all is on the disk, and learns of errors in writing back.
    pub sync: bool,
}

/// What was restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreSummary {
    /// Regular files made.
    pub files: u64,
    /// Directories made or merged, without the target itself.
    pub directories: u64,
    /// Symbolic links and special files made.
    pub others: u64,
    /// Further names of files made before.
    pub links: u64,
    /// Length of all files made.
    pub bytes: u64,
    /// Entries that stayed as they were in the target, as the overwrite policy says.
    pub skipped: u64,
    /// Problems told to the monitor.
    pub problems: u64,
    /// Attributes not applied because this process has no right to, or the target cannot hold them; told once per class.
    pub refused: u64,
}

/// Why a restore ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The target takes nothing more.
    #[error(transparent)]
    Target(TargetError),
    /// The point's root cannot be read, or the store gave up.
    #[error(transparent)]
    Store(StoreError),
}

/// Restores the tree below `root` into the open directory `target`.
pub fn restore_tree<R: TreeReader>(
    reader: &R,
    root: &Node,
    target: &OwnedFd,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreSummary, RestoreError> {
    run::run(reader, root, target, options, monitor)
}

/// Opens, and with `create` makes, the directory to restore into. A symbolic link in the path is followed: the user gave it.
pub fn open_target(path: &std::path::Path, create: bool) -> Result<OwnedFd, TargetError> {
    use rustix::fs::{CWD, Mode, OFlags};
    let shown = || path.as_os_str().as_encoded_bytes().to_vec();
    if create {
        std::fs::create_dir_all(path).map_err(TargetError::io("create", shown()))?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(TargetError::io("open", shown()))
}
