//! What a walk leaves out: by pattern, by a file that marks a directory, by size, by file system.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::listing::Names;
use crate::error::SourceError;
use crate::pattern::{PatternError, Patterns};

/// First bytes of a `CACHEDIR.TAG` (bford.info/cachedir).
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The rules of one walk.
#[derive(Debug, Clone, Default)]
pub struct Exclude {
    pub(super) patterns: Patterns,
    marks: Vec<Mark>,
    pub(super) size_max: Option<u64>,
    pub(super) one_file_system: bool,
}

/// A file that makes the directory it lies in stay behind, but for itself.
#[derive(Debug, Clone)]
struct Mark {
    name: Vec<u8>,
    header: Vec<u8>,
}

fn rule(what: &'static str) -> impl FnOnce(PatternError) -> SourceError {
    move |error| SourceError::Rule { what, given: error.pattern, detail: error.detail.to_owned() }
}

impl Exclude {
    /// Leaves out what the pattern matches (syntax: [`crate::pattern`]); paths are absolute, that of the source's root included.
    pub fn pattern(&mut self, pattern: &[u8]) -> Result<(), SourceError> {
        self.patterns.add(pattern, false).map_err(rule("exclude pattern"))
    }

    /// The same, upper and lower case being equal.
    pub fn pattern_any_case(&mut self, pattern: &[u8]) -> Result<(), SourceError> {
        self.patterns.add(pattern, true).map_err(rule("exclude pattern"))
    }

    /// Leaves out what the patterns in a file's `text` match.
    pub fn pattern_file(&mut self, text: &[u8], any_case: bool) -> Result<(), SourceError> {
        self.patterns.add_lines(text, any_case).map_err(rule("exclude pattern"))
    }

    /// Leaves out what is in directories with a valid `CACHEDIR.TAG`; the directory and the tag stay.
    pub fn caches(&mut self) {
        self.marks.push(Mark { name: b"CACHEDIR.TAG".to_vec(), header: CACHE_SIGNATURE.to_vec() });
    }

    /// Leaves out what is in directories with a file called as given, `NAME` or `NAME:first bytes of it`; the
    /// directory and the file stay.
    pub fn if_present(&mut self, given: &[u8]) -> Result<(), SourceError> {
        let (name, header) = match given.iter().position(|&byte| byte == b':') {
            Some(at) => (given.get(..at).unwrap_or_default(), given.get(at + 1..).unwrap_or_default()),
            None => (given, &b""[..]),
        };
        if name.is_empty() || name.contains(&b'/') {
            let given = String::from_utf8_lossy(given).into_owned();
            return Err(SourceError::Rule {
                what: "file to look for",
                given,
                detail: "it needs the name of a file".into(),
            });
        }
        self.marks.push(Mark { name: name.to_vec(), header: header.to_vec() });
        Ok(())
    }

    /// Leaves out regular files of more bytes than this.
    pub fn larger_than(&mut self, bytes: u64) {
        self.size_max = Some(bytes);
    }

    /// Keeps to the file system of the root; mount points stay as empty directories.
    pub fn one_file_system(&mut self, yes: bool) {
        self.one_file_system = yes;
    }

    /// Name of the file that marks `directory`, if one of its `names` does.
    pub(super) fn mark_in(&self, directory: &OwnedFd, names: &Names) -> Option<&[u8]> {
        let marks = self.marks.iter().filter(|mark| names.contains(&mark.name));
        marks.into_iter().find(|mark| mark.is_valid(directory)).map(|mark| mark.name.as_slice())
    }
}

impl Mark {
    fn is_valid(&self, directory: &OwnedFd) -> bool {
        if self.header.is_empty() {
            return true;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(directory.as_fd(), self.name.as_slice(), flags, Mode::empty())
        else {
            return false;
        };
        let mut begin = Vec::new();
        let read = std::fs::File::from(file).take(self.header.len() as u64).read_to_end(&mut begin);
        read.is_ok() && begin == self.header
    }
}
