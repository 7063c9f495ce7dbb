//! What people point at with a path: a place in a recovery point, by name or through a mount of ours.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use holdfast_fs::mount::place_of;

use super::scope::parse_spec;
use crate::outcome::Failure;
use crate::point_spec::{PointName, PointSpec};

/// `POINT`, `POINT:PATH`, or the path of something in a mount of ours. Who stands in a mount means what is there before
/// anything else; what begins with `/` or `.` is a path and nothing else.
pub fn parse_place(text: &OsStr) -> Result<PointSpec, Failure> {
    let path = Path::new(text);
    if let Some(found) = in_mount(path) {
        return Ok(found);
    }
    if looks_like_path(text) {
        return Err(Failure::usage(format!("{} is not in a mount of recovery points", path.display()))
            .hint("name a point and a path within it, as in latest:projects, or a path below a mount"));
    }
    parse_spec(text)
}

/// Whether this can only be a path.
pub fn looks_like_path(text: &OsStr) -> bool {
    matches!(text.as_bytes().first(), Some(b'/' | b'.'))
}

/// The place that a path in a mount of ours leads to; `None` if it leads elsewhere or nowhere.
pub fn in_mount(path: &Path) -> Option<PointSpec> {
    let (id, path) = place_of(path)?;
    Some(PointSpec { point: PointName::Id(id.hex()), path })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_a_point_and_what_begins_like_a_path_is_one() {
        let spec = parse_place(OsStr::new("latest:a/b")).unwrap();
        assert_eq!((spec.point, &spec.path[..]), (PointName::Latest { back: 0 }, &b"a/b"[..]));
        for path in ["/", "/etc/hostname", ".", "./latest", "/x/docs@2026-11-20"] {
            let failure = parse_place(OsStr::new(path)).unwrap_err();
            assert_eq!(failure.exit_code(), 2, "{path}");
            assert!(failure.message.contains("not in a mount"), "{}", failure.message);
        }
        assert!(parse_place(OsStr::new("no point")).unwrap_err().message.contains("no point"));
    }
}
