//! What can go wrong with source files and target files, each with the path, the action and the reason.
//!
//! Neither type converts to or from a store error: an unreadable file makes a point partial, a store that
//! cannot be written ends the work, and the two must never be taken for each other.

use std::fmt::Write as _;
use std::io;

/// A path made of raw bytes as people can read it: control characters and invalid UTF-8 are escaped.
pub fn shown(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for part in path.utf8_chunks() {
        for c in part.valid().chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in part.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    if out.is_empty() { ".".to_owned() } else { out }
}

/// Something of the source could not be read. Paths are raw bytes relative to the source's root, empty for the root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// Verb: `open`, `read`, `list`…
        action: &'static str,
        /// On what.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// It is not what it was when it was listed: another kind, moved away, another file under its name.
    #[error("{} changed while it was read: {detail}", shown(path))]
    Changed {
        /// What.
        path: Vec<u8>,
        /// How.
        detail: String,
    },
    /// It holds something that the format cannot keep.
    #[error("cannot keep {}: {detail}", shown(path))]
    Unsupported {
        /// What.
        path: Vec<u8>,
        /// Why.
        detail: String,
    },
    /// A rule of the caller's (pattern, size, header) makes no sense.
    #[error("invalid {what} {given:?}: {detail}")]
    Rule {
        /// What kind of rule.
        what: &'static str,
        /// As it was given.
        given: String,
        /// Why it cannot be used.
        detail: String,
    },
}

impl SourceError {
    /// For `map_err` on system calls: what was done to which path.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: impl Into<Vec<u8>>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }

    /// The path it is about, relative to the source's root; empty for the root and for rules.
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Io { path, .. } | Self::Changed { path, .. } | Self::Unsupported { path, .. } => path,
            Self::Rule { .. } => b"",
        }
    }

    /// Whether the thing no longer exists: it was deleted between listing and reading, as a live tree does all day.
    pub fn vanished(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether rights are missing.
    pub fn denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Something could not be written to a restore's target. Paths are raw bytes relative to the target directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// Verb: `create`, `write`, `set owner of`…
        action: &'static str,
        /// On what.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// Something is there and the caller did not allow to replace it.
    #[error("{} already exists", shown(path))]
    Exists {
        /// What.
        path: Vec<u8>,
    },
    /// What was to be restored makes no sense: a name with a slash, a link without target.
    #[error("cannot restore {}: {detail}", shown(path))]
    Invalid {
        /// What.
        path: Vec<u8>,
        /// Why.
        detail: String,
    },
    /// Another process changed the target while it was written.
    #[error("{} was changed by somebody else: {detail}", shown(path))]
    Changed {
        /// What.
        path: Vec<u8>,
        /// How that shows.
        detail: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl TargetError {
    /// For `map_err` on system calls: what was done to which path.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: impl Into<Vec<u8>>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }

    /// Whether nothing more can be written here, so that going on would only name every file that is left. An extended
    /// attribute that finds no room does not mean that: some file systems have one block for all of a file's.
    pub fn hopeless(&self) -> bool {
        use io::ErrorKind as K;
        match self {
            Self::Io { action: "create" | "write", source, .. } => {
                matches!(source.kind(), K::StorageFull | K::QuotaExceeded | K::ReadOnlyFilesystem)
            }
            Self::Cancelled => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_without_control_characters_and_without_loss() {
        assert_eq!(shown(b"a\n\x1b[31m\xff/\xc3\xa9"), "a\\n\\u{1b}[31m\\xff/é");
        assert_eq!(shown(b""), ".");
    }

    #[test]
    fn an_error_says_action_path_and_reason() {
        let error = SourceError::io("open", *b"a/b")(io::Error::from(io::ErrorKind::NotFound));
        assert!(error.to_string().starts_with("cannot open a/b: "), "{error}");
        assert!(error.vanished() && !error.denied());
        let error = TargetError::io("write", *b"x")(io::Error::from(io::ErrorKind::StorageFull));
        assert!(error.hopeless());
        let error = TargetError::io("set an extended attribute of", *b"x")(io::Error::from(
            io::ErrorKind::StorageFull,
        ));
        assert!(!error.hopeless());
        assert!(!TargetError::Exists { path: b"x".to_vec() }.hopeless());
    }
}
