//! The kernel's table of mounts, read without touching any of them: a dead or hanging mount must not hold us up.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{MountError, NAME_PREFIX};

const TABLE: &str = "/proc/self/mountinfo";

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the mount, unique as long as it exists.
    pub id: u64,
    /// Number of the device without its major part, which is 0 for what is no disk: so the kernel calls the connection of a FUSE mount.
    pub minor: u32,
    /// Where it is.
    pub mountpoint: PathBuf,
    /// What is mounted, as its maker called it.
    pub source: String,
}

impl Entry {
    /// Whether it is one of ours. The type would not tell: it depends on who mounted.
    pub fn is_ours(&self) -> bool {
        self.source.starts_with(NAME_PREFIX)
    }
}

/// The mount that is seen at exactly this path, if it is a mountpoint.
pub fn top(path: &Path) -> Result<Option<Entry>, MountError> {
    Ok(top_in(&text()?, path))
}

/// The mount of this number, wherever it is.
pub fn numbered(id: u64) -> Result<Option<Entry>, MountError> {
    Ok(text()?.split(|b| *b == b'\n').filter_map(parse).find(|entry| entry.id == id))
}

fn text() -> Result<Vec<u8>, MountError> {
    fs::read(TABLE).map_err(MountError::io("read", Path::new(TABLE)))
}

/// Of several mounts at one path, later ones lie on top of earlier ones.
fn top_in(text: &[u8], path: &Path) -> Option<Entry> {
    let mut lines = text.split(|b| *b == b'\n').filter_map(parse);
    lines.rfind(|entry| entry.mountpoint == path)
}

/// `36 35 98:0 /root /mountpoint options [optional...] - type source options`
fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|b| *b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = std::str::from_utf8(fields.nth(1)?).ok()?;
    let minor = device.split_once(':')?.1.parse().ok()?;
    let mountpoint = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let source = fields.skip_while(|field| *field != b"-").nth(2)?;
    Some(Entry { id, minor, mountpoint, source: String::from_utf8_lossy(&unescape(source)).into_owned() })
}

/// Blanks, tabs, line ends and backslashes stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match (first, octal(tail)) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..3)?;
    let value = digits.iter().try_fold(0u32, |sum, d| char::from(*d).to_digit(8).map(|d| sum * 8 + d))?;
    u8::try_from(value).ok()
}

/// The path as the table shows it: absolute, without links. The last part is not asked anything but whether it is a
/// link, which a dead mount can still say.
pub fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    let whole = |path: &Path| fs::canonicalize(path).map_err(MountError::io("find", path));
    let Some(name) = path.file_name() else { return whole(path) };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().as_bytes().is_empty() => parent,
        _ => Path::new("."),
    };
    let path = whole(parent)?.join(name);
    if fs::read_link(&path).is_ok() { whole(&path) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SAMPLE: &[u8] = b"22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n\
        40 22 0:40 / /mnt/a\\040b\\134c ro,nosuid - fuse.holdfast holdfast:1a2b ro,user_id=0\n\
        41 22 0:41 / /mnt/x rw shared:5 master:2 - tmpfs tmpfs rw\n\
        42 22 0:42 / /mnt/x ro - fuse holdfast:ff ro\n\
        nonsense\n";

    #[test]
    fn entries_are_found_by_path_and_the_topmost_counts() {
        let entry = top_in(SAMPLE, Path::new("/mnt/a b\\c")).unwrap();
        assert_eq!((entry.id, entry.minor, entry.source.as_str()), (40, 40, "holdfast:1a2b"));
        assert!(entry.is_ours());
        assert_eq!(top_in(SAMPLE, Path::new("/mnt/x")).unwrap().id, 42);
        assert_eq!(top_in(SAMPLE, Path::new("/mnt")), None);
        assert!(!top_in(SAMPLE, Path::new("/")).unwrap().is_ours());
    }

    #[test]
    fn odd_escapes_are_left_alone() {
        for (text, plain) in
            [(&b"a\\"[..], &b"a\\"[..]), (b"\\9zz", b"\\9zz"), (b"\\777", b"\\777"), (b"\\011", b"\t")]
        {
            assert_eq!(unescape(text), plain);
        }
    }

    #[test]
    fn paths_are_resolved_but_for_a_last_part_that_does_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(resolve(&real.join("link")).unwrap(), real);
        assert_eq!(resolve(&real.join("link/none")).unwrap(), real.join("none"));
        assert!(resolve(Path::new("/no/such/parent")).is_err());
    }
}
