//! Listing a directory vault: files below a prefix in the order of their full names, a page at a time.
//!
//! Full names order as bytes, so a directory `a` stands where `a/` would: after a file `a-b`, before a file `a0`.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::super::memory::parse_page_token;
use super::{TMP, failed, is_no_object};
use crate::vault::{IsObject, ListPage, NO_OBJECTS_MAX, NoObject, ObjectInfo, ObjectName, VaultError};

/// At most `page_len` objects below `prefix` after the name `from`.
pub(super) fn page(
    root: &Path,
    page_len: usize,
    prefix: &str,
    from: Option<&str>,
) -> Result<ListPage, VaultError> {
    if !(prefix.is_empty() || prefix.ends_with('/') && ObjectName::new(&prefix[..prefix.len() - 1]).is_some())
    {
        return Err(VaultError::invalid(format!("{prefix:?} is no prefix of a listing")));
    }
    let after = from.map(parse_page_token).transpose()?;
    let mut walk = Walk {
        root,
        after: after.as_ref().map_or("", ObjectName::as_str),
        found: Vec::new(),
        most: page_len + 1,
    };
    walk.directory(prefix)?;
    let mut objects = walk.found;
    let more = objects.len() > page_len;
    objects.truncate(page_len);
    let next = objects.last().filter(|_| more).map(|last| last.name.to_string());
    Ok(ListPage { objects, next })
}

struct Walk<'a> {
    root: &'a Path,
    after: &'a str,
    found: Vec<ObjectInfo>,
    most: usize,
}

impl Walk<'_> {
    /// `prefix` is the directory's name with a `/` at its end, or empty for the root.
    fn directory(&mut self, prefix: &str) -> Result<(), VaultError> {
        for key in self.sorted_keys(prefix)? {
            if self.found.len() >= self.most {
                break;
            }
            // A directory holds something after `after` unless all that begins with its name orders before it.
            let all_seen = key.as_str() <= self.after && !self.after.starts_with(&key);
            match key.strip_suffix('/') {
                Some(_) if !all_seen => self.directory(&key)?,
                None if key.as_str() > self.after => self.file(key)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Full names of the objects in a directory, and of the directories in it with a `/` at the end, in order.
    fn sorted_keys(&self, prefix: &str) -> Result<Vec<String>, VaultError> {
        let dir = self.root.join(prefix);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            // Deleted meanwhile, or never there: nothing begins with this prefix. A missing root is a missing vault.
            Err(e) if is_no_object(&e) && !prefix.is_empty() && self.root.is_dir() => return Ok(Vec::new()),
            Err(e) => return Err(failed("list", &dir, e)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed("list", &dir, e))?;
            // Names that no object can have are somebody else's (`lost+found`): not looked into.
            let Some(key) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else {
                continue;
            };
            if key == TMP || ObjectName::new(key.as_str()).is_none() {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => keys.push(key + "/"),
                Ok(kind) if kind.is_file() => keys.push(key),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("list", &entry.path(), e)),
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    fn file(&mut self, key: String) -> Result<(), VaultError> {
        let path = self.root.join(&key);
        match fs::symlink_metadata(&path) {
            Ok(meta) => {
                let (len, put_at) = (meta.len(), Some(meta.mtime()));
                self.found.extend(ObjectName::new(key).map(|name| ObjectInfo { name, len, put_at }));
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed("list", &path, e)),
        }
    }
}

/// What lies below `prefix`, a directory's name with a `/` at its end, and is neither a file nor a directory of other names than an object's.
pub(super) fn no_objects(
    root: &Path,
    prefix: &str,
    is_object: IsObject,
) -> Result<Vec<NoObject>, VaultError> {
    let (mut found, mut dirs) = (Vec::new(), vec![prefix.to_owned()]);
    while let Some(prefix) = dirs.pop() {
        let dir = root.join(&prefix);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if is_no_object(&e) && root.is_dir() => continue,
            Err(e) => return Err(failed("list", &dir, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| failed("list", &dir, e))?;
            let name = entry.file_name().to_str().and_then(|name| ObjectName::new(format!("{prefix}{name}")));
            let Some(name) = name else { continue };
            // Of the entry itself, whatever a link leads to.
            match entry.file_type() {
                Ok(kind) if kind.is_file() => {}
                Ok(kind) if kind.is_dir() && !is_object(&name) => dirs.push(format!("{name}/")),
                Ok(kind) if found.len() < NO_OBJECTS_MAX => found.push(NoObject { name, what: what(kind) }),
                Ok(_) => return Ok(found),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("list", &entry.path(), e)),
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn what(kind: fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}
