//! The door to whatever is protected: a data source tells its tree as one ordered stream of events.
//!
//! The order is depth first, the names of a directory ascending as raw bytes, so that the stream can be merged with
//! the previous point's tree and written as tree pages without holding either in memory. Attributes come with the
//! event; what is inside a regular file (and its extended attributes and flags) is read later, by whichever
//! thread opens it. Trouble with one thing is an event as well and never ends the walk.

mod attributes;
mod files;
mod filesystems;
mod listing;
mod walk;

pub mod exclude;
pub mod faulty;
pub mod memory;
#[cfg(test)]
mod tests;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use holdfast_store::tree::{Node, Xattr};

use crate::descent::Place;
use crate::error::SourceError;

pub(crate) use filesystems::own_mounts;
pub use walk::{DirectorySource, WalkOptions};

/// Something that can be protected. Promises:
///
/// - `enter_directory` and `leave_directory` are properly nested; the root comes first, with an empty name, and is left last.
/// - The names of one directory come strictly ascending as raw bytes, files and directories mixed.
/// - Everything that is there and not excluded comes either as an event or as trouble.
/// - Memory is bounded by the names of the directories between the root and the current one.
pub trait DataSource: Send + Sync {
    /// Tells the whole tree to `visitor`. Only a root that cannot be opened at all is an error; that the visitor asked
    /// to stop is not.
    fn walk(&self, visitor: &mut dyn Visitor) -> Result<Walked, SourceError>;
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// Everything was told.
    Whole,
    /// The visitor asked to stop.
    Stopped,
}

/// What a visitor answers: go on, or stop the walk. Why it stops is its own to remember.
pub type Flow = ControlFlow<()>;

/// Hears a walk. All calls come from the thread that called [`DataSource::walk`].
pub trait Visitor {
    /// What the previous point holds under `name` in the directory that was entered last, or of the root for an empty
    /// name. Asked once for every entry that is about to be told, in ascending order, so a merge with a sorted list will do.
    fn previous(&mut self, name: &[u8]) -> Option<Node> {
        let _ = name;
        None
    }

    /// A directory; everything until the matching [`Self::leave_directory`] is in it.
    fn enter_directory(&mut self, directory: Found) -> Flow;

    /// Anything but a directory.
    fn entry(&mut self, entry: Found) -> Flow;

    /// The directory entered last is done.
    fn leave_directory(&mut self) -> Flow;

    /// Something could not be read. A directory that cannot be listed is entered and left around its trouble; an entry
    /// that vanished ([`SourceError::vanished`]) or could not be looked at comes as trouble alone.
    fn trouble(&mut self, trouble: SourceError) -> Flow;
}

/// One thing that a walk found.
pub struct Found {
    /// Its attributes, without content and subtree. Of a regular file that is not `unchanged` extended attributes and
    /// flags are missing too: [`OpenFile::describe`] has them.
    pub node: Node,
    /// Whether size, times, inode, file system and kind are those of what [`Visitor::previous`] answered. Then `node`
    /// has the previous node's extended attributes, flags, target, extensions and content: nothing of it need be read.
    pub unchanged: bool,
    /// What [`Visitor::previous`] answered when that was something else or a directory.
    pub previous: Option<Node>,
    /// Of a regular file, changed or not.
    pub opener: Option<Box<dyn FileOpener>>,
    /// The directory it lies in.
    pub place: Arc<Place>,
}

impl Found {
    /// Path relative to the source's root, raw bytes; empty for the root.
    pub fn path(&self) -> Vec<u8> {
        self.place.join(&self.node.name)
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found")
            .field("node", &self.node)
            .field("unchanged", &self.unchanged)
            .finish_non_exhaustive()
    }
}

/// Opens a regular file found by a walk, on any thread, during the walk or after it. Each may hold its directory open:
/// whoever queues openers bounds their number.
pub trait FileOpener: Send {
    /// Opens the file. [`SourceError::Changed`] if something else lies under its name now; never blocks on a fifo.
    fn open(&self) -> Result<Box<dyn OpenFile>, SourceError>;
}

/// A regular file being read.
pub trait OpenFile: Send {
    /// Has what was stored through mappings (`mmap`) and is not written out yet written out, so that each store from now on moves
    /// the file's ctime. May do so for the whole file system, once for each walk. Where the file system does not do it, nothing happens.
    fn write_out(&self);

    /// Attributes as they are now, without content, extended attributes and flags.
    fn attributes(&self) -> Result<Node, SourceError>;

    /// All extended attributes that this process may read, ascending by name.
    fn xattrs(&self) -> Result<Vec<Xattr>, SourceError>;

    /// File flags, masked to those that a point keeps.
    fn flags(&self) -> Result<u32, SourceError>;

    /// The next stretch of stored bytes at or after `offset`; `None` when only a hole or nothing is left. Where the file
    /// system cannot be trusted about holes everything is data. A range may reach beyond the file's end.
    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>, SourceError>;

    /// Fills `buffer` from `offset`; less than all of it only at the end of the file.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError>;

    /// Whether content or attributes may have changed since `before`, an answer of [`Self::attributes`].
    fn changed_since(&self, before: &Node) -> Result<bool, SourceError> {
        let now = self.attributes()?;
        Ok((now.size, now.mtime, now.ctime, now.inode)
            != (before.size, before.mtime, before.ctime, before.inode))
    }

    /// Attributes, extended attributes and flags: everything of a node but the content.
    fn describe(&self) -> Result<Node, SourceError> {
        let mut node = self.attributes()?;
        node.xattrs = self.xattrs()?;
        node.flags = self.flags()?;
        Ok(node)
    }
}
