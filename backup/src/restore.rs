//! Restoring: a recovery point's tree written below a directory, with everything that the point knows of it.
//!
//! One thread walks the tree, makes every entry in walk order and makes hard links; workers write the contents of files
//! through a bounded queue, in the order of the walk, which is that of the packs: files that share a frame are written while it is in
//! memory. Whatever is made lies under a temporary name until it is whole ([`temporary`]): content, owner (it takes away set-id bits
//! and capabilities), extended attributes with ACLs and capabilities, times, mode, the name, and then the flags that forbid changes.
//! So what is in the way goes only when what replaces it is complete, and a run that dies leaves nothing half under a name of the
//! point's. A directory is made with rights for its owner alone and gets its own attributes when everything in it has its
//! name ([`directory`]). Immutable and append-only files with several names get those two flags last of all, because no link can be
//! made to them then.
//!
//! The same restore again goes on where the last one ended: what has kind, size and time of the point is not written again
//! ([`compare`]), only attributes that are not right are set.
//!
//! Every step goes by directory descriptors and never through a symbolic link ([`crate::descent`]). Metadata of links and special files is
//! set through `/proc/self/fd`, so `/proc` must be mounted.
//!
//! Trouble with one entry is told to the monitor with its path and counted; only a full or read-only target, or the
//! caller's wish, ends the work early. What only a vault has that does not answer is left out, whole files and not
//! parts, and counted; all that can be had without that vault is restored, and the run ends as one that failed
//! ([`RestoreError::Away`]). This costs little as long as the reader does not wait for a vault each time, which the store's does not.

mod attributes;
mod choice;
mod compare;
mod directory;
mod forbidden;
mod leaves;
mod links;
mod owners;
mod report;
mod run;
mod target;
mod temporary;
#[cfg(test)]
mod tests;
mod throttle;
mod verify;
mod writers;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::StoreError;
use holdfast_store::id::ChunkId;
use holdfast_store::monitor::Monitor;
use holdfast_store::tree::{Extent, Node};

use crate::descent::DirectoryId;
use crate::error::TargetError;
use crate::pattern::Patterns;

pub use owners::{OwnerDefault, OwnerKind, OwnerRuleError, Owners};
pub use throttle::Throttle;

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

    /// Whether bytes are those that an id of a data extent names.
    fn is(&self, id: &ChunkId, bytes: &[u8]) -> bool;
}

/// What happens to something other than a directory that is in the way and is not the same. Directories are always merged.
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
    /// Writes nothing, looks at the target and counts what would be done.
    pub dry_run: bool,
    /// Reads what seems to be there already and compares it with the point, instead of trusting size and time.
    pub checksum: bool,
    /// Tells the monitor of each entry ([`Event::Entry`](holdfast_store::monitor::Event::Entry)).
    pub tell: bool,
    /// Who owns what is restored.
    pub owners: Owners,
    /// Bounds the bytes a second that are written.
    pub throttle: Option<Arc<Throttle>>,
    /// Directories into which nothing is restored: the store's own. Mounts of ours are known without being named.
    pub never_enter: HashSet<DirectoryId>,
    /// Threads that write files; 0 for as many as there are processors, at most 8.
    pub workers: usize,
    /// Gives the target directory the attributes of the point's root.
    pub root_attributes: bool,
    /// Waits at the end until all is on the disk, and learns of errors in writing back.
    pub sync: bool,
}

/// What was done; of a rehearsal, what would be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreSummary {
    /// Regular files made, all of their content there.
    pub files: u64,
    /// Directories made or merged, without the target itself.
    pub directories: u64,
    /// Symbolic links and special files made.
    pub others: u64,
    /// Further names of files made.
    pub links: u64,
    /// Length of all files made.
    pub bytes: u64,
    /// Of all that was made but links, what took the place of something.
    pub replaced: u64,
    /// Entries that were there already, as they should be.
    pub same: u64,
    /// Entries whose content was there already, and whose attributes were set.
    pub mended: u64,
    /// Entries that stayed as they were in the target, as the overwrite policy says.
    pub skipped: u64,
    /// Length of all files of the point that were not made because something is there already: the same, or something that stays.
    pub bytes_skipped: u64,
    /// Files of which content is missing. They are problems, too.
    pub incomplete: u64,
    /// Problems told to the monitor.
    pub problems: u64,
    /// Attributes not applied because this process has no right to, or the target cannot hold them; told once per class.
    pub refused: u64,
}

/// What reading back found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifySummary {
    /// Entries looked at.
    pub entries: u64,
    /// Files whose content was read.
    pub files: u64,
    /// Differences and other problems, each told to the monitor.
    pub differences: u64,
}

/// Why a restore ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The target takes nothing more.
    #[error(transparent)]
    Target(TargetError),
    /// The point's root cannot be read.
    #[error(transparent)]
    Store(StoreError),
    /// A vault did not answer. All else is restored.
    #[error("{}", .0.source)]
    Away(Box<Waiting>),
}

/// What a restore did that left out what only a vault has which does not answer. The same restore again brings the rest.
#[derive(Debug)]
pub struct Waiting {
    /// What the vault said that was the first not to answer.
    pub source: StoreError,
    /// Entries that were left out; below a directory among them more may be.
    pub entries: u64,
    /// What was done.
    pub done: RestoreSummary,
}

/// Restores the tree below `root` into the open directory `target`. A rehearsal (`dry_run`) needs rights to read alone.
pub fn restore_tree<R: TreeReader>(
    reader: &R,
    root: &Node,
    target: &OwnedFd,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreSummary, RestoreError> {
    run::run(reader, root, Some(target), options, monitor)
}

/// Says what a restore into a directory that does not exist yet would do.
pub fn rehearse_tree<R: TreeReader>(
    reader: &R,
    root: &Node,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreSummary, RestoreError> {
    let options = RestoreOptions { dry_run: true, ..options.clone() };
    run::run(reader, root, None, &options, monitor)
}

/// Compares what is in `target` with the tree below `root`: kinds, attributes, hard links, and contents by reading them. Each
/// difference is a problem told to the monitor. What is there and not in the point makes no difference.
pub fn verify_tree<R: TreeReader>(
    reader: &R,
    root: &Node,
    target: &OwnedFd,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<VerifySummary, RestoreError> {
    verify::run(reader, root, target, options, monitor)
}

/// Opens the directory to restore into; makes it with `create`. `None` if it does not exist. A symbolic link in the path is followed:
/// the user gave it. Nothing is made in a directory of `never_enter`.
pub fn open_target(
    path: &std::path::Path,
    create: bool,
    never_enter: &HashSet<DirectoryId>,
) -> Result<Option<OwnedFd>, TargetError> {
    let shown = || path.as_os_str().as_encoded_bytes().to_vec();
    match open_path(path) {
        Err(rustix::io::Errno::NOENT) => {}
        other => return Ok(Some(other.map_err(TargetError::io("open", shown()))?)),
    }
    let path = std::path::absolute(path).map_err(TargetError::io("find", shown()))?;
    let above = path.ancestors().skip(1).find_map(|above| open_path(above).ok());
    if let Some(above) = above {
        forbidden::Forbidden::new(never_enter).refuse_within(&above)?;
    }
    if !create {
        return Ok(None);
    }
    std::fs::create_dir_all(&path).map_err(TargetError::io("create", shown()))?;
    Ok(Some(open_path(&path).map_err(TargetError::io("open", shown()))?))
}

fn open_path(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{CWD, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}
