//! The bound of the cache that was said last, in a file beside its blocks. Whoever can write there must not have us wait for
//! somebody, read without end, or write elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// In the cache's directory.
pub(super) const FILE: &str = "limit";
/// Digits and a line's end.
const LEN_MAX: u64 = 64;

/// What was said last; nothing if that is no file, or no number.
pub(super) fn read(dir: &Path) -> Option<u64> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(dir.join(FILE)).ok()?;
    parse(file).ok()?
}

fn parse(file: File) -> io::Result<Option<u64>> {
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > LEN_MAX {
        return Ok(None);
    }
    let mut text = String::new();
    file.take(LEN_MAX).read_to_string(&mut text)?;
    Ok(text.trim().parse().ok())
}

/// Writes what is said now in place of whatever is there.
pub(super) fn write(dir: &Path, limit: u64) -> io::Result<()> {
    let temp = dir.join(format!("{FILE}.{}", std::process::id()));
    // Of a process that was cut off and had the same number, or a trap.
    let _ = fs::remove_file(&temp);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
    let written = file.write_all(limit.to_string().as_bytes());
    written.and_then(|()| fs::rename(&temp, dir.join(FILE))).inspect_err(|_| drop(fs::remove_file(&temp)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_small_file_is_not_read_and_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join(FILE), dir.path().join("other"));
        fs::write(&other, "7").unwrap();
        let fifo = || nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let link = || std::os::unix::fs::symlink(&other, &path).unwrap();
        let long = || fs::write(&path, format!("7{}", " ".repeat(LEN_MAX as usize))).unwrap();
        let odd: [&dyn Fn(); 3] = [&fifo, &link, &long];
        for make in odd {
            make();
            assert_eq!(read(dir.path()), None);
            write(dir.path(), 5).unwrap();
            assert_eq!(read(dir.path()), Some(5));
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(fs::read(&other).unwrap(), b"7");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn what_cannot_be_replaced_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();
        assert_eq!(read(dir.path()), None);
        assert!(write(dir.path(), 5).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
