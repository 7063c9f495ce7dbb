//! The configuration by which a daemon goes: the texts that it read and found right, kept in the store's directory. Its jobs go by them, and so
//! does the next daemon where the files themselves have mistakes; so nobody who is just changing a file stops what is protected.
//!
//! It is a copy that may be lost: jobs read the files themselves where there is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_backup::config::Text;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

/// Its name in the store's directory.
const NAME: &str = "configuration.json";
/// No more than this is read of it.
const LEN_MAX: u64 = 64 << 20;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Copy {
    /// The file of the configuration, to which those beside it belong.
    of: PathBuf,
    /// All files, by their names and contents.
    files: Vec<Text>,
}

/// Keeps the texts of the configuration `of` in the place of those that were kept before. If that fails there are none.
pub fn keep(store: &Path, of: &Path, files: &[Text]) -> io::Result<()> {
    let copy = Copy { of: of.to_path_buf(), files: files.to_vec() };
    if read_copy(store).is_some_and(|kept| kept == copy) {
        return Ok(());
    }
    put(store, &serde_json::to_vec(&copy)?).inspect_err(|_| drop_it(store))
}

/// Keeps none.
pub fn drop_it(store: &Path) {
    // One that is not there, or that cannot be removed, such as on a disk that takes no writes, is as good as none.
    let _ = fs::remove_file(store.join(NAME));
}

/// The texts of the configuration `of` that were kept last, if there are any.
pub fn read(store: &Path, of: &Path) -> Option<Vec<Text>> {
    read_copy(store).filter(|copy| copy.of == of).map(|copy| copy.files)
}

fn read_copy(store: &Path) -> Option<Copy> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(store.join(NAME)).ok()?;
    let meta = file.metadata().ok()?;
    // It says what we run as ourselves.
    let ours = meta.is_file() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o022 == 0;
    let mut bytes = Vec::new();
    file.take(LEN_MAX).read_to_end(&mut bytes).ok().filter(|_| ours)?;
    serde_json::from_slice(&bytes).ok()
}

/// There may be addresses in it that are secret.
fn put(store: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, new) = (store.join(NAME), store.join(format!("{NAME}.new")));
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| drop(fs::remove_file(&new)))?;
    fs::rename(&new, &path)?;
    File::open(store)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn texts(text: &str) -> Vec<Text> {
        vec![("/etc/a.toml".into(), text.to_owned()), ("/etc/a.toml.d/b.toml".into(), String::new())]
    }

    #[test]
    fn what_was_kept_last_is_read_for_the_same_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let (store, of) = (dir.path(), Path::new("/etc/a.toml"));
        assert_eq!(read(store, of), None);
        for text in ["one", "one", "two"] {
            keep(store, of, &texts(text)).unwrap();
            assert_eq!(read(store, of), Some(texts(text)));
        }
        assert_eq!(fs::metadata(store.join(NAME)).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(read(store, Path::new("/etc/other.toml")), None);
        drop_it(store);
        assert_eq!((read(store, of), fs::read_dir(store).unwrap().count()), (None, 0));
    }

    #[test]
    fn what_somebody_else_could_have_put_there_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (store, of) = (dir.path(), Path::new("/etc/a.toml"));
        keep(store, of, &texts("")).unwrap();
        fs::set_permissions(store.join(NAME), Permissions::from_mode(0o620)).unwrap();
        assert_eq!(read(store, of), None);
        fs::rename(store.join(NAME), store.join("real")).unwrap();
        fs::set_permissions(store.join("real"), Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("real", store.join(NAME)).unwrap();
        assert_eq!(read(store, of), None);
        fs::remove_file(store.join(NAME)).unwrap();
        fs::write(store.join(NAME), "{").unwrap();
        assert_eq!(read(store, of), None);
        // None of that is in the way.
        keep(store, of, &texts("")).unwrap();
        assert_eq!(read(store, of), Some(texts("")));
    }

    #[test]
    fn what_cannot_be_kept_leaves_nothing_older_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (store, of) = (dir.path(), Path::new("/etc/a.toml"));
        keep(store, of, &texts("old")).unwrap();
        fs::create_dir(store.join(format!("{NAME}.new"))).unwrap();
        keep(store, of, &texts("new")).unwrap_err();
        assert_eq!(read(store, of), None);
    }
}
