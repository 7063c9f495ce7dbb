//! The files of the configuration as something to be changed: read as they are, and replaced whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use holdfast_backup::config::{ConfigError, Text, files_beside, files_of};

use crate::outcome::Failure;

/// The file at `path`, empty if there is none yet, and those beside it.
pub fn read(path: &Path) -> Result<Vec<Text>, Failure> {
    match files_of(path) {
        Err(ConfigError::Io { path: missing, source })
            if source.kind() == ErrorKind::NotFound && missing == path =>
        {
            let own = (path.to_path_buf(), String::new());
            Ok([own].into_iter().chain(files_beside(path)?).collect())
        }
        read => Ok(read?),
    }
}

/// Keeps others of this program from changing the configuration at `path` until it is dropped: between reading it and putting another text in
/// its place nobody else does the same. Where the directory is not there yet, or cannot be locked, what others put there is still noticed
/// as long as they are not there at the same moment.
pub fn lock(path: &Path) -> Option<File> {
    let path = std::path::absolute(path).ok()?;
    let dir = File::open(path.parent()?).ok()?;
    dir.lock().ok()?;
    Some(dir)
}

/// Puts a text in the place of the one that was read. A file that is there keeps its owner and its mode, and where a link leads to it
/// the link stays; a new one can be read by everybody.
pub fn replace(path: &Path, read: &str, text: &str) -> Result<(), Failure> {
    let known = fs::symlink_metadata(path);
    let target = match &known {
        Err(error) if error.kind() == ErrorKind::NotFound => made_room_for(path),
        _ => fs::canonicalize(path),
    };
    let target = target.map_err(|error| Failure::io("write", path, &error))?;
    let now = if known.is_ok() { fs::read_to_string(&target) } else { Ok(String::new()) };
    if now.map_err(|error| Failure::io("read", path, &error))? != read {
        let changed = Failure::failed(format!("{} was changed by somebody else meanwhile", path.display()));
        return Err(changed.hint("give the same command again"));
    }
    write(&target, text).map_err(|error| Failure::io("write", path, &error))
}

/// The same path, in a directory that is there.
fn made_room_for(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    }
    Ok(path)
}

fn write(target: &Path, text: &str) -> io::Result<()> {
    let (Some(dir), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(ErrorKind::IsADirectory.into());
    };
    // Its name does not end in .toml, so nobody takes it for a file of the configuration.
    let temp = dir.join(format!(".{}.{}.new", name.display(), std::process::id()));
    let _ = fs::remove_file(&temp);
    let written = write_new(&temp, text, fs::metadata(target).ok().as_ref());
    let replaced =
        written.and_then(|()| fs::rename(&temp, target)).and_then(|()| File::open(dir)?.sync_all());
    replaced.inspect_err(|_| drop(fs::remove_file(&temp)))
}

fn write_new(temp: &Path, text: &str, like: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temp)?;
    file.write_all(text.as_bytes())?;
    let mut mode = 0o644;
    if let Some(like) = like {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        mode = like.mode() & 0o7777;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_can_be_read_by_all_and_an_old_one_keeps_its_mode_and_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/holdfast.toml");
        assert_eq!(read(&file).unwrap(), [(file.clone(), String::new())]);
        replace(&file, "", "one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink("a/b/holdfast.toml", &link).unwrap();
        replace(&link, "one", "two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(names(file.parent().unwrap()), ["holdfast.toml"]);
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdfast.toml");
        fs::write(&file, "theirs").unwrap();
        assert!(replace(&file, "", "ours").unwrap_err().message.contains("somebody else"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
        assert_eq!(names(dir.path()), ["holdfast.toml"]);
    }
}
