//! The door to the local file system under staging: few operations, each a point where a crash or a fault may strike.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name; entries whose names are not UTF-8 are never shown, since none of ours are so.
    pub name: String,
    /// Length of a file; `None` for a directory.
    pub len: Option<u64>,
}

/// Room on the disk of some files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes free.
    pub free: u64,
    /// All bytes.
    pub total: u64,
    /// Which disk it is: what lies on the same one has the same room.
    pub disk: u64,
    /// Why nothing can be written there however much is free, if so.
    pub refuses: Option<io::ErrorKind>,
}

/// What tells one file or directory from all others: its disk, and its number there.
pub type Identity = (u64, u64);

/// Files below one root, by `/`-separated paths relative to it (`""` is the root).
pub trait Files: Send + Sync + Debug {
    /// Creates a file that must not exist, writes `bytes`, and returns when its data is on the disk. After an error the
    /// file may be there with any content.
    fn write_synced(&self, path: &str, bytes: &[u8]) -> io::Result<()>;

    /// Gives a file another name, atomically; durable only after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes the bytes of a file durable that somebody else may have written.
    fn sync_file(&self, path: &str) -> io::Result<()>;

    /// Makes a directory and its parents; `true` if it was not there.
    fn make_dir(&self, dir: &str) -> io::Result<bool>;

    /// Fills `out` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, path: &str, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// The beginning of a small file as it lies there now, `limit` bytes at most; `None` if there is none. Nothing is kept open of it.
    fn read_small(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>>;

    /// These bytes will not be read again soon: whoever keeps a copy of them in memory need not.
    fn let_go(&self, _path: &str, _bytes: Range<u64>) {}

    /// Closes what is kept open of files that others removed, so that their room is free, or put others in the place of.
    fn close_replaced(&self) {}

    /// Length of a file; `None` if there is none.
    fn len(&self, path: &str) -> io::Result<Option<u64>>;

    /// Entries of a directory in any order; empty if there is none.
    fn list(&self, dir: &str) -> io::Result<Vec<FileEntry>>;

    /// An error if the way to this directory, below the root, is not of directories alone: a link could lead anywhere. What is missing is no error.
    fn refuse_links(&self, dir: &str) -> io::Result<()>;

    /// Which file or directory it is, on all disks, wherever links lead; `None` if there is none, or that cannot be told.
    fn identity(&self, path: &str) -> io::Result<Option<Identity>>;

    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Removes a directory, if nothing is in it.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;

    /// Room on the disk.
    fn room(&self) -> io::Result<Room>;

    /// The path as people know it, for messages.
    fn describe(&self, path: &str) -> PathBuf;
}
