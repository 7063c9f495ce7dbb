//! A data source that fails where it is told to, around any other.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow::Continue;
use std::ops::Range;

use holdfast_store::tree::{Node, Xattr};

use super::{DataSource, FileOpener, Flow, Found, OpenFile, Visitor, Walked};
use crate::error::SourceError;

/// What goes wrong with one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A file or directory that was listed is gone when it is looked at.
    Vanishes,
    /// A file is gone when it is opened.
    VanishesBeforeOpen,
    /// Rights to open a file or to list a directory are missing.
    Denied,
    /// Reading a file from this offset on fails with an I/O error.
    Unreadable(u64),
    /// A file changes once something of it was read.
    ChangesWhileRead,
    /// Extended attributes and flags cannot be read.
    AttributesUnreadable,
    /// A file ends here when it is read, and has changed.
    Shrinks(u64),
}

/// The source around which things go wrong.
#[derive(Debug)]
pub struct FaultySource<S> {
    inner: S,
    faults: HashMap<Vec<u8>, Fault>,
}

impl<S: DataSource> FaultySource<S> {
    /// A source with no fault yet.
    pub fn new(inner: S) -> Self {
        Self { inner, faults: HashMap::new() }
    }

    /// Plans a fault for a path relative to the root.
    #[must_use]
    pub fn with(mut self, path: &[u8], fault: Fault) -> Self {
        self.faults.insert(path.to_vec(), fault);
        self
    }
}

impl<S: DataSource> DataSource for FaultySource<S> {
    fn walk(&self, visitor: &mut dyn Visitor) -> Result<Walked, SourceError> {
        self.inner.walk(&mut FaultyVisitor { visitor, faults: &self.faults, hidden: None })
    }
}

fn failed(action: &'static str, path: &[u8], kind: io::ErrorKind) -> SourceError {
    SourceError::io(action, path)(io::Error::from(kind))
}

/// An input/output error as a failing disk gives it.
fn disk_error() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

const READ_XATTRS: &str = "read extended attributes of";

fn forget_attributes(node: &mut Node) {
    (node.xattrs, node.flags) = (Vec::new(), 0);
}

struct FaultyVisitor<'a> {
    visitor: &'a mut dyn Visitor,
    faults: &'a HashMap<Vec<u8>, Fault>,
    /// Directories entered below (and with) one of which nothing is told, and whether that one itself was.
    hidden: Option<(usize, bool)>,
}

impl Visitor for FaultyVisitor<'_> {
    fn previous(&mut self, name: &[u8]) -> Option<Node> {
        if self.hidden.is_some() { None } else { self.visitor.previous(name) }
    }

    fn enter_directory(&mut self, mut directory: Found) -> Flow {
        if let Some((depth, _)) = &mut self.hidden {
            *depth += 1;
            return Continue(());
        }
        let path = directory.path();
        match self.faults.get(&path) {
            Some(Fault::Vanishes) => {
                self.hidden = Some((1, false));
                self.visitor.trouble(failed("stat", &path, io::ErrorKind::NotFound))
            }
            Some(Fault::Denied) => {
                self.hidden = Some((1, true));
                self.visitor.enter_directory(directory)?;
                self.visitor.trouble(failed("list", &path, io::ErrorKind::PermissionDenied))
            }
            Some(Fault::AttributesUnreadable) if !directory.unchanged => {
                forget_attributes(&mut directory.node);
                self.visitor.enter_directory(directory)?;
                self.visitor.trouble(SourceError::io(READ_XATTRS, path)(disk_error()))
            }
            _ => self.visitor.enter_directory(directory),
        }
    }

    fn entry(&mut self, mut entry: Found) -> Flow {
        if self.hidden.is_some() {
            return Continue(());
        }
        let path = entry.path();
        match self.faults.get(&path) {
            Some(Fault::Vanishes) => self.visitor.trouble(failed("stat", &path, io::ErrorKind::NotFound)),
            Some(Fault::AttributesUnreadable) if entry.opener.is_none() && !entry.unchanged => {
                forget_attributes(&mut entry.node);
                self.visitor.trouble(SourceError::io(READ_XATTRS, path)(disk_error()))?;
                self.visitor.entry(entry)
            }
            Some(&fault) => {
                entry.opener =
                    entry.opener.map(|inner| Box::new(FaultyOpener { inner, path, fault }) as Box<_>);
                self.visitor.entry(entry)
            }
            None => self.visitor.entry(entry),
        }
    }

    fn leave_directory(&mut self) -> Flow {
        match &mut self.hidden {
            Some((depth, _)) if *depth > 1 => {
                *depth -= 1;
                Continue(())
            }
            Some((_, told)) => {
                let told = *told;
                self.hidden = None;
                if told { self.visitor.leave_directory() } else { Continue(()) }
            }
            None => self.visitor.leave_directory(),
        }
    }

    fn trouble(&mut self, trouble: SourceError) -> Flow {
        if self.hidden.is_some() { Continue(()) } else { self.visitor.trouble(trouble) }
    }
}

struct FaultyOpener {
    inner: Box<dyn FileOpener>,
    path: Vec<u8>,
    fault: Fault,
}

impl FileOpener for FaultyOpener {
    fn open(&self) -> Result<Box<dyn OpenFile>, SourceError> {
        match self.fault {
            Fault::VanishesBeforeOpen => Err(failed("open", &self.path, io::ErrorKind::NotFound)),
            Fault::Denied => Err(failed("open", &self.path, io::ErrorKind::PermissionDenied)),
            fault => {
                let inner = self.inner.open()?;
                Ok(Box::new(FaultyFile { inner, path: self.path.clone(), fault, read: false }))
            }
        }
    }
}

struct FaultyFile {
    inner: Box<dyn OpenFile>,
    path: Vec<u8>,
    fault: Fault,
    read: bool,
}

impl OpenFile for FaultyFile {
    fn write_out(&self) {
        self.inner.write_out();
    }

    fn attributes(&self) -> Result<Node, SourceError> {
        let mut node = self.inner.attributes()?;
        if self.read && matches!(self.fault, Fault::ChangesWhileRead | Fault::Shrinks(_)) {
            node.mtime.seconds += 1;
            node.ctime.seconds += 1;
        }
        if let (true, Fault::Shrinks(to)) = (self.read, self.fault) {
            node.size = to;
        }
        Ok(node)
    }

    fn xattrs(&self) -> Result<Vec<Xattr>, SourceError> {
        match self.fault {
            Fault::AttributesUnreadable => Err(SourceError::io(READ_XATTRS, self.path.clone())(disk_error())),
            _ => self.inner.xattrs(),
        }
    }

    fn flags(&self) -> Result<u32, SourceError> {
        self.inner.flags()
    }

    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        self.inner.next_data(offset)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        self.read = true;
        let end = offset + buffer.len() as u64;
        match self.fault {
            Fault::Unreadable(from) if end > from => {
                Err(SourceError::io("read", self.path.clone())(disk_error()))
            }
            Fault::Shrinks(to) => {
                let len = usize::try_from(to.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
                self.inner.read_at(offset, buffer.get_mut(..len).unwrap_or_default())
            }
            _ => self.inner.read_at(offset, buffer),
        }
    }
}
