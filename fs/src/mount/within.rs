//! From a path in a mount back to the point and the path in it.
//!
//! A mount says which point a file belongs to by an extended attribute that is answered by name. So nothing needs a table of
//! mounts, and it works through links, from inside a mount, and in one that another process made.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use holdfast_store::id::RecoveryPointId;

const POINT: &str = "user.holdfast.point";

/// The point that a path in a mount of ours leads to, and the path within it, raw bytes without `/` at the ends; `None`
/// if it leads elsewhere or nowhere.
pub fn place_of(path: &Path) -> Option<(RecoveryPointId, Vec<u8>)> {
    // Only with the links followed is the way up the way to the point: `latest` is one.
    let path = std::fs::canonicalize(path).ok()?;
    let id = point_of(&path)?;
    let root = path.ancestors().take_while(|above| point_of(above) == Some(id)).last()?;
    Some((id, path.strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec()))
}

fn point_of(path: &Path) -> Option<RecoveryPointId> {
    let mut digits = [0; 2 * RecoveryPointId::LEN];
    let len = rustix::fs::getxattr(path, POINT, &mut digits[..]).ok()?;
    RecoveryPointId::from_hex(std::str::from_utf8(digits.get(..len)?).ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_in_no_mount_has_no_place() {
        let dir = tempfile::tempdir().unwrap();
        for path in [Path::new("/"), Path::new("/no/such/thing"), dir.path()] {
            assert_eq!(place_of(path), None, "{}", path.display());
        }
    }

    #[test]
    fn the_way_up_ends_where_the_point_does() {
        let dir = tempfile::tempdir().unwrap();
        let (point, other) = (RecoveryPointId([7; 16]), RecoveryPointId([8; 16]));
        let below = dir.path().join("by-id/point/a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::os::unix::fs::symlink("by-id/point", dir.path().join("latest")).unwrap();
        let mark = |path: &str, id: RecoveryPointId| {
            let path = dir.path().join(path);
            rustix::fs::setxattr(path, POINT, id.hex().as_bytes(), rustix::fs::XattrFlags::empty())
        };
        if mark("by-id/point/a/b", point).is_err() {
            // Not every file system on which tests run has attributes.
            return;
        }
        mark("by-id/point/a", point).unwrap();
        mark("by-id/point", point).unwrap();
        mark("by-id", other).unwrap();
        assert_eq!(place_of(&dir.path().join("latest/a/b")), Some((point, b"a/b".to_vec())));
        assert_eq!(place_of(&dir.path().join("latest/a/../a")), Some((point, b"a".to_vec())));
        assert_eq!(place_of(&dir.path().join("latest")), Some((point, Vec::new())));
    }
}
