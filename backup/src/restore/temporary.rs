//! Names that things have until they are whole, and how those that a dead run left are told from those of a live one.
//!
//! Everything is made as `.holdfast-restore-PID-NUMBER` in the directory where it will be, and renamed when it is whole. A
//! run holds a shared lock (`flock`) on each directory in which it makes such names, for as long as it may have one there; the kernel
//! takes the lock away when the process dies, however it dies. So whoever gets the exclusive lock of a directory knows that no name
//! of this form in it belongs to a live run, on this machine or in another container, and removes them. Where directories cannot be
//! locked (some network file systems), nothing is removed.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation};
use rustix::io::Errno;

/// How each such name begins.
const PREFIX: &[u8] = b".holdfast-restore-";
/// Names tried before giving up: more than a dead run with the same process id can have left.
const TRIES: u32 = 100_000;
/// How often a lock is asked for: another run holds the exclusive one only while it lists the directory.
const LOCK_TRIES: u32 = 1_000;

/// Makes something under a name that nothing has.
pub(super) fn make<T>(make: impl Fn(&[u8]) -> rustix::io::Result<T>) -> rustix::io::Result<(Vec<u8>, T)> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    for _ in 0..TRIES {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let name = [PREFIX, name.as_bytes()].concat();
        match make(&name) {
            Ok(made) => return Ok((name, made)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}

/// Whether a name is exactly of our form.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    let number = |digits: &[u8]| (1..=20).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let rest = name.strip_prefix(PREFIX).unwrap_or_default();
    let dash = rest.iter().position(|&byte| byte == b'-').unwrap_or(0);
    let (process, rest) = rest.split_at(dash);
    number(process) && rest.split_first().is_some_and(|(_, rest)| number(rest))
}

/// Tells other runs that temporary names in an open directory are in use, until its last descriptor is closed.
pub(super) fn hold(directory: &OwnedFd) {
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::yield_now(),
            _ => return,
        }
    }
}

/// Removes what dead runs left in a directory, then holds it.
pub(super) fn sweep(directory: &OwnedFd) {
    if rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
        // What cannot be listed or removed stays until somebody can.
        let _ = remove_all(directory);
    }
    hold(directory);
}

fn remove_all(directory: &OwnedFd) -> rustix::io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if is_temporary(name) && entry.file_type() != FileType::Directory {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
        }
    }
    Ok(())
}
