//! Where a restore goes: a directory that is named, or the place where the source was.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_backup::restore::TreeReader;
use holdfast_store::point::RecoveryPoint;
use holdfast_store::tree::{Node, NodeKind};

use crate::outcome::Failure;
use crate::stored_tree::StoredTree;

/// Where to.
#[derive(Debug, Default, Args)]
pub struct PlaceArgs {
    /// Where to; made if it is missing
    #[arg(short, long, value_name = "DIR", required_unless_present = "to_original")]
    target: Option<PathBuf>,
    /// To where it was: the path of the source (and PATH below it), on this machine
    #[arg(long, conflicts_with = "target")]
    to_original: bool,
    /// With --to-original, also if the point is of another machine
    #[arg(long, requires = "to_original")]
    allow_other_host: bool,
}

/// The directory to restore into.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Its path.
    pub path: PathBuf,
    /// Whether it gets the attributes of the directory that is restored: not where a file alone is put into it.
    pub root_attributes: bool,
}

impl Place {
    /// The place that the arguments mean for `path` of a point.
    pub fn choose(
        args: &PlaceArgs,
        point: &RecoveryPoint,
        path: &[u8],
        host: &str,
        tree: &StoredTree<'_>,
    ) -> Result<Self, Failure> {
        if let Some(target) = &args.target {
            return Ok(Self { path: target.clone(), root_attributes: !tree.is_single() });
        }
        if point.source.host != host && !args.allow_other_host {
            return Err(Failure::failed(format!(
                "the point is of the machine {}, and this is {host}",
                point.source.host
            ))
            .hint("name a directory with --target, or say --allow-other-host"));
        }
        let few: Vec<Node> = tree.entries(&point.root)?.take(2).collect::<Result<_, _>>()?;
        let only = few.first().filter(|_| few.len() == 1);
        Self::original(point, path, tree.is_single(), only)
    }

    /// `only`: what the point's root has, if that is one thing.
    fn original(
        point: &RecoveryPoint,
        path: &[u8],
        single: bool,
        only: Option<&Node>,
    ) -> Result<Self, Failure> {
        let source = Path::new(OsStr::from_bytes(&point.path));
        if !source.is_absolute() {
            let id = point.id.short();
            return Err(Failure::failed(format!("recovery point {id} does not say where its source was"))
                .hint("name a directory with --target"));
        }
        let of_file = only.is_some_and(|only| is_of_a_file(only, source));
        let root = if of_file { source.parent().unwrap_or(source) } else { source };
        let mut names: Vec<&[u8]> =
            path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        if single {
            // It goes into the directory in which it was.
            names.pop();
        }
        let whole = names.is_empty();
        let path = names.iter().fold(root.to_path_buf(), |path, name| path.join(OsStr::from_bytes(name)));
        Ok(Self { path, root_attributes: !(single || of_file && whole) })
    }
}

/// Whether the source was a single file. Its point has a directory with just that, which looks like that of a directory with
/// one file of its own name; as such it counts only if it is there.
fn is_of_a_file(only: &Node, source: &Path) -> bool {
    only.kind != NodeKind::Directory
        && source.file_name().is_some_and(|name| name.as_bytes() == only.name)
        && !std::fs::symlink_metadata(source).is_ok_and(|there| there.is_dir())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::commands::testing::{node, stored_point};
    use std::sync::Arc;

    fn original(source: &Path, path: &[u8], single: bool) -> (PathBuf, bool) {
        original_of(source, path, single, None)
    }

    fn original_of(source: &Path, path: &[u8], single: bool, only: Option<&Node>) -> (PathBuf, bool) {
        let mut stored = stored_point(1, "docs", 1);
        Arc::make_mut(&mut stored.point).path = source.as_os_str().as_bytes().to_vec();
        let place = Place::original(&stored.point, path, single, only).unwrap();
        (place.path, place.root_attributes)
    }

    #[test]
    fn the_original_place_is_the_sources_path_and_the_path_below_it() {
        let source = Path::new("/no such place/docs");
        assert_eq!(original(source, b"", false), (source.to_path_buf(), true));
        assert_eq!(original(source, b"/a/b/", false), (source.join("a/b"), true));
        assert_eq!(original(source, b"a/file", true), (source.join("a"), false));
        assert_eq!(original(source, b"file", true), (source.to_path_buf(), false));
    }

    #[test]
    fn a_source_that_was_a_file_goes_into_the_directory_in_which_it_was() {
        let file = node(b"hosts", NodeKind::File);
        let source = Path::new("/no such place/hosts");
        let above = Path::new("/no such place").to_path_buf();
        assert_eq!(original_of(source, b"", false, Some(&file)), (above.clone(), false));
        assert_eq!(original_of(source, b"hosts", true, Some(&file)), (above, false));
        let other = node(b"other", NodeKind::File);
        assert_eq!(original_of(source, b"", false, Some(&other)), (source.to_path_buf(), true));
        let dir = tempfile::tempdir().unwrap();
        let there = node(dir.path().file_name().unwrap().as_bytes(), NodeKind::File);
        assert_eq!(original_of(dir.path(), b"", false, Some(&there)), (dir.path().to_path_buf(), true));
    }

    #[test]
    fn a_point_that_does_not_say_where_its_source_was_has_no_original_place() {
        let mut stored = stored_point(1, "docs", 1);
        Arc::make_mut(&mut stored.point).path = b"relative".to_vec();
        assert!(Place::original(&stored.point, b"", false, None).is_err());
    }
}
