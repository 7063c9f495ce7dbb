//! Which directories are the same, however their paths are written, and which a vault must not be in.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::outcome::Failure;

/// Refuses a vault in the store's own directory: a copy that is lost with its original is none.
pub fn refuse_own(store: &Path, address: &str) -> Result<(), Failure> {
    if !address.starts_with('/') || !lies_in(Path::new(address), store) {
        return Ok(());
    }
    let message = format!("{address} is in the store's own directory {}", store.display());
    Err(Failure::failed(message).hint("a vault is elsewhere: on another disk, on another machine"))
}

/// What is to be said of a vault in a directory on the disk of the store.
pub fn on_same_disk(store: &Path, address: &str) -> Option<String> {
    let same = address.starts_with('/') && share_disk(store, Path::new(address));
    same.then(|| {
        format!("the vault {address} is on the same disk as the store, and is lost with it: it guards against no disk that fails")
    })
}

/// Whether two directories that are there lie on one disk.
pub fn share_disk(one: &Path, other: &Path) -> bool {
    let disk = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
    disk(one).is_some() && disk(one) == disk(other)
}

/// Whether two addresses of vaults are one directory.
pub fn is_same_directory(one: &str, other: &str) -> bool {
    one == other
        || one.starts_with('/') && other.starts_with('/') && {
            let (one, other) = (Path::new(one), Path::new(other));
            resolved(one) == resolved(other) || identity(one).is_some_and(|id| identity(other) == Some(id))
        }
}

/// Whether `path` is `dir` or below it, also by a link or a second mount of the same file system.
pub fn lies_in(path: &Path, dir: &Path) -> bool {
    let (path, dir) = (resolved(path), resolved(dir));
    let inside = identity(&dir).is_some_and(|id| path.ancestors().any(|above| identity(above) == Some(id)));
    inside || path.starts_with(&dir)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    for above in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            return real.join(rest);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    #[test]
    fn a_directory_is_known_by_any_of_its_paths() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, link) = (dir.path().join("vault"), dir.path().join("link"));
        std::os::unix::fs::symlink(&vault, &link).unwrap();
        for made in [false, true] {
            if made {
                std::fs::create_dir(&vault).unwrap();
                assert!(is_same_directory(text(&vault), text(&link)));
            }
            for spelling in ["vault/", "./vault", "vault/."] {
                let other = format!("{}/{spelling}", dir.path().display());
                assert!(is_same_directory(text(&vault), &other), "{other}");
            }
            assert!(!is_same_directory(text(&vault), text(&dir.path().join("vault-2"))));
        }
        assert!(is_same_directory("azure://a/b", "azure://a/b"));
        assert!(!is_same_directory("azure://a/b", "azure://a/c"));
    }

    #[test]
    fn a_vault_on_the_disk_of_its_store_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (store, vault) = (dir.path().join("store"), dir.path().join("vault"));
        std::fs::create_dir(&store).unwrap();
        assert_eq!(on_same_disk(&store, text(&vault)), None, "it is not there");
        std::fs::create_dir(&vault).unwrap();
        assert!(on_same_disk(&store, text(&vault)).unwrap().contains("same disk"));
        assert_eq!(on_same_disk(&store, "/proc"), None);
        assert_eq!(on_same_disk(&store, "azure://account/name"), None);
    }

    #[test]
    fn a_vault_is_not_within_its_store() {
        let dir = tempfile::tempdir().unwrap();
        let (store, link) = (dir.path().join("store"), dir.path().join("link"));
        std::os::unix::fs::symlink(&store, &link).unwrap();
        for made in [false, true] {
            if made {
                std::fs::create_dir_all(store.join("pack")).unwrap();
                assert!(refuse_own(&store, text(&link.join("vault"))).is_err());
            }
            for inside in ["store", "store/vault", "store/pack/x/y", "store/../store"] {
                assert!(refuse_own(&store, text(&dir.path().join(inside))).is_err(), "{inside}");
            }
            for elsewhere in ["store-2", "vault", ""] {
                refuse_own(&store, text(&dir.path().join(elsewhere))).unwrap();
            }
        }
        refuse_own(&store, "azure://account/store").unwrap();
    }
}
