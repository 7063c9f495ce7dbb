//! The log of mounts in the background. It lies beside the cache, on a disk that may take no writes: whoever makes a file there then waits
//! until it does, and neither a signal nor its own end helps a process of which a thread waits so. So a process of its own makes the log
//! where there is none, and puts a long one aside. To open one that is there no disk has to take anything.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use holdfast_store::clock::Clock;
use nix::fcntl::OFlag;

use crate::create::make_private_dir;

/// What stands before the path for the process that makes the log.
const WORD: &str = "make-log";
/// A log longer than this is put aside when the next mount begins.
const LOG_LEN: u64 = 1 << 20;
/// How long it may take to make one.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at whether it is made.
const LOOK: Duration = Duration::from_millis(10);

/// Makes a log if the command line says so: `make-log PATH`.
pub fn run(args: &[OsString]) -> Option<ExitCode> {
    let [_, word, path] = args else { return None };
    let is_made = (word.as_os_str() == OsStr::new(WORD)).then(|| make(Path::new(path)).is_ok())?;
    Some(if is_made { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The log that all mounts of a store write to, one after the other or at once; why there is none, if it would have to be made and its disk
/// takes no writes, say, or if somebody says stop.
pub fn open(path: &Path, clock: &dyn Clock, stopped: &dyn Fn() -> bool) -> io::Result<File> {
    if !is_ready(path) {
        let mut maker = Command::new("/proc/self/exe");
        maker.arg(WORD).arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !ends(&mut maker.spawn()?, clock, PATIENCE, stopped)? {
            return Err(io::Error::other("its disk takes no writes"));
        }
        if !is_ready(path) {
            // It says why that cannot be.
            return make(path);
        }
    }
    open_file(path, OpenOptions::new().append(true))
}

/// Whether nothing has to be made or put aside.
fn is_ready(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && !is_long(&meta))
}

fn is_long(meta: &Metadata) -> bool {
    meta.is_file() && meta.len() > LOG_LEN
}

/// Opens a file and nothing else: whoever opens a pipe waits until somebody reads it, and what is behind a link is not the log's.
fn open_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let file = options.custom_flags(flags.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file")),
    }
}

/// Waits until a process has ended, if that is so within `patience`. It is left alone if not.
pub(super) fn ends(
    child: &mut Child,
    clock: &dyn Clock,
    patience: Duration,
    stopped: &dyn Fn() -> bool,
) -> io::Result<bool> {
    let began = clock.monotonic();
    while child.try_wait()?.is_none() && !is_zombie(child) {
        if stopped() || clock.monotonic().saturating_sub(began) >= patience {
            return Ok(false);
        }
        clock.pause(LOOK);
    }
    Ok(true)
}

/// Whether all is over of a process but a thread that waits for a disk that takes no writes, so that it cannot be waited for either.
fn is_zombie(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // The name before it may have any characters.
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z'))
}

/// A long log is put aside, where mounts that have it open go on writing.
fn make(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        make_private_dir(dir).map_err(io::Error::other)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|meta| is_long(&meta)) {
        std::fs::rename(path, path.with_extension("log.old"))?;
    }
    open_file(path, OpenOptions::new().append(true).create(true).mode(0o600))
}

/// What a log has gained since it had `len` bytes; nothing where it cannot be read.
pub fn text_after(path: &Path, len: u64) -> String {
    let mut text = Vec::new();
    let read = open_file(path, OpenOptions::new().read(true)).and_then(|mut file| {
        file.seek(SeekFrom::Start(len))?;
        file.read_to_end(&mut text)
    });
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use holdfast_store::clock::{ManualClock, SystemClock, within};
    use nix::sys::wait::{Id, WaitPidFlag};

    use super::*;

    #[test]
    fn a_mount_adds_to_the_log_of_the_one_before_and_puts_a_long_one_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache/mount-01234567.log");
        make(&path).unwrap().write_all(b"first\n").unwrap();
        make(&path).unwrap().write_all(b"second\n").unwrap();
        assert_eq!(text_after(&path, 0), "first\nsecond\n");
        assert_eq!(text_after(&path, 6), "second\n");
        assert!(is_ready(&path));
        std::fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
        assert!(!is_ready(&path));
        assert_eq!(make(&path).unwrap().metadata().unwrap().len(), 0);
        assert_eq!(std::fs::metadata(path.with_extension("log.old")).unwrap().len(), 2 << 20);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn to_open_a_log_that_is_there_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let stopped = || panic!("nothing is waited for");
        std::fs::write(&path, "before\n").unwrap();
        let open = || open(&path, &ManualClock::default(), &stopped).unwrap();
        open().write_all(b"after\n").unwrap();
        assert_eq!(text_after(&path, 0), "before\nafter\n");
    }

    #[test]
    fn a_process_that_has_ended_and_is_waited_for_by_nobody_yet_counts_as_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(!is_zombie(&child));
        drop(child.stdin.take());
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::wait::waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(is_zombie(&child));
        child.wait().unwrap();
        assert!(!is_zombie(&child));
    }

    #[test]
    fn what_is_no_file_is_no_log_and_is_neither_waited_for_nor_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name| dir.path().join(name);
        nix::unistd::mkfifo(&place("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(place("directory")).unwrap();
        std::os::unix::fs::symlink(place("nowhere"), place("link")).unwrap();
        std::fs::write(place("file"), vec![b'x'; 2 << 20]).unwrap();
        std::os::unix::fs::symlink(place("file"), place("link to a file")).unwrap();
        for name in ["pipe", "directory", "link", "link to a file", "file/below"] {
            // Whoever opens a pipe to read or write waits for the other, in a thread of its own here.
            let path = place(name);
            let tries = move || (is_ready(&path), make(&path).is_ok(), text_after(&path, 0).is_empty());
            let tried = within(&SystemClock, Duration::from_secs(60), tries);
            assert_eq!(tried, Some((false, false, true)), "{name}");
            assert!(std::fs::symlink_metadata(place("nowhere")).is_err());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 5, "nothing was put aside");
    }

    #[test]
    fn who_waits_for_a_process_leaves_it_when_it_takes_long_or_he_is_stopped() {
        let clock = ManualClock::default();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let mut waits = |stopped: &dyn Fn() -> bool| ends(&mut child, &clock, PATIENCE, stopped).unwrap();
        assert!(!waits(&|| true) && clock.monotonic() == Duration::ZERO);
        let later = || (clock.advance(Duration::from_secs(1)), false).1;
        assert!(!waits(&later) && clock.monotonic() < 2 * PATIENCE);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ends(&mut child, &clock, Duration::ZERO, &|| true).unwrap());
    }
}
