//! A process beside a mount's, which ends the mount's connection when that process is killed.
//!
//! The kernel ends a connection by itself when its last descriptor is closed. A thread that stands in the kernel with bytes to give (`FUSE_NOTIFY_STORE`)
//! or a notice of change waits there for a page or a directory until a request about it is answered, by threads that have been killed, and cannot be killed
//! itself: its descriptor stays, and with it everybody who reads. Only an abort from outside frees them all.
//!
//! The guard has none of the mount's descriptors. It is told of the death of the thread that started it by a signal (`PR_SET_PDEATHSIG`), which must
//! therefore live as long as the mount. It forces the unmounting while it holds the mount busy itself: that aborts the connection, and leaves the dead mount in its place.
//! Without the right to force, it writes to the connection's file below `/sys/fs/fuse/connections`, which belongs to the user who mounted.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Mode, OFlags};

use super::table;

/// Where the kernel shows connections by number, if `fusectl` is mounted.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// A guard that stood so long will stand.
const SETTLED: Duration = Duration::from_secs(1);

/// Between two attempts to start another, at first and at most: where a system has no more processes, each attempt costs it and the log more.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Tells the guard that its parent died.
const PARENT_DIED: Signal = Signal::SIGUSR1;

/// A guard that is to stand as long as the mount.
#[derive(Debug)]
pub struct Guard {
    program: Vec<OsString>,
    child: Child,
    started: Duration,
    /// Since it ended, and another one could not be started.
    missing: Option<Missing>,
}

/// When to try again to start one, and how long to wait after that.
#[derive(Clone, Copy, Debug)]
struct Missing {
    next: Duration,
    pause: Duration,
}

impl Guard {
    /// Starts one.
    pub fn start(program: &[OsString], mountpoint: &Path, id: u64, now: Duration) -> io::Result<Self> {
        let child = start(program, mountpoint, id)?;
        Ok(Self { program: program.to_vec(), child, started: now, missing: None })
    }

    /// Starts another if it has ended; false if that has no use, for it ended at once.
    pub fn keep(&mut self, mountpoint: &Path, id: u64, now: Duration) -> bool {
        self.keep_by(now, |program| start(program, mountpoint, id))
    }

    fn keep_by(&mut self, now: Duration, start: impl FnOnce(&[OsString]) -> io::Result<Child>) -> bool {
        let Ok(Some(status)) = self.child.try_wait() else { return true };
        match self.missing {
            Some(missing) if now < missing.next => return true,
            Some(_) => {}
            None if now.saturating_sub(self.started) < SETTLED => {
                tracing::error!(%status, "the guard of the mount does not stay: readers may be stuck for ever when this process is killed");
                return false;
            }
            None => tracing::warn!(%status, "the guard of the mount has ended; starting another"),
        }
        match start(&self.program) {
            Ok(child) => self.succeeded_by(child, now),
            Err(error) => self.put_off(now, &error),
        }
        true
    }

    fn succeeded_by(&mut self, child: Child, now: Duration) {
        if self.missing.take().is_some() {
            tracing::warn!("another guard of the mount stands now");
        }
        (self.child, self.started) = (child, now);
    }

    /// Told once: attempts go on until there is one.
    fn put_off(&mut self, now: Duration, error: &io::Error) {
        if self.missing.is_none() {
            tracing::warn!(%error, "cannot start it, and goes on trying: until then readers may be stuck for ever when this process is killed");
        }
        let pause = self.missing.map_or(RETRY_MIN, |missing| (missing.pause * 2).min(RETRY_MAX));
        self.missing = Some(Missing { next: now.saturating_add(pause), pause });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a guard for the mount with this number in the kernel's table: `program` is called with what [`stand`] takes.
fn start(program: &[OsString], mountpoint: &Path, id: u64) -> io::Result<Child> {
    let (first, rest) = program.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(first);
    command.args(rest).arg(mountpoint).arg(id.to_string()).arg(std::process::id().to_string());
    // It needs no secrets.
    command.env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Stands guard: returns after the thread that started this process has died.
pub fn stand(mountpoint: &Path, id: u64, parent: u32) -> io::Result<()> {
    let mut died = SigSet::empty();
    died.add(PARENT_DIED);
    let mut blocked = died;
    // Whoever ends all processes of a service means the mount, with which this one ends.
    blocked.extend([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    blocked.thread_block()?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::USR1))?;
    // An interrupt from a terminal is for its parent.
    let _ = nix::unistd::setsid();
    let is_there = nix::unistd::getppid().as_raw().unsigned_abs() == parent;
    if is_there {
        died.wait()?;
    }
    abort(mountpoint, id)
}

/// Ends the connection of a mount that is still there, and leaves the mount.
pub fn abort(mountpoint: &Path, id: u64) -> io::Result<()> {
    abort_by(mountpoint, id, Path::new(CONNECTIONS), |path| umount2(path, MntFlags::MNT_FORCE))
}

/// The same by `force`, or else by the file below `connections` that belongs to the user who mounted.
fn abort_by(
    mountpoint: &Path,
    id: u64,
    connections: &Path,
    force: impl FnOnce(&Path) -> Result<(), Errno>,
) -> io::Result<()> {
    let top = table::top(mountpoint).map_err(io::Error::other)?;
    let Some(entry) = top.filter(|entry| entry.id == id) else { return Ok(()) };
    // No request is needed for this, and as long as it is held the mount is busy.
    let held =
        rustix::fs::open(mountpoint, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let forced = force(mountpoint);
    drop(held);
    match forced {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(Errno::EPERM) => {
            let file = connections.join(entry.minor.to_string()).join("abort");
            File::options().write(true).open(file)?.write_all(b"1")
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
    use nix::mount::{MsFlags, mount};

    use super::*;
    use crate::mount::{MountOptions, device};
    use crate::testing::can_mount;

    /// A guard that stood for a minute and has ended.
    fn ended() -> Guard {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        Guard { program: vec!["true".into()], child, started: Duration::ZERO, missing: None }
    }

    #[test]
    fn a_guard_that_cannot_be_started_is_tried_again_ever_less_often_until_it_can() {
        let (mut guard, mut tried, minute) = (ended(), vec![], Duration::from_secs(60));
        // Every tenth of a second, as the program does.
        for now in (0..2300).map(|tenth| minute + Duration::from_millis(100) * tenth) {
            let refuse = |_: &[OsString]| {
                tried.push((now - minute).as_secs());
                Err(Errno::EAGAIN.into())
            };
            assert!(guard.keep_by(now, refuse), "it is not given up");
        }
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        let mut started = 0;
        for _ in 0..2 {
            assert!(guard.keep_by(minute * 6, |_| {
                started += 1;
                Command::new("cat").stdin(Stdio::piped()).spawn()
            }));
        }
        assert!(started == 1 && guard.missing.is_none());
    }

    #[test]
    fn a_guard_that_ends_at_once_is_given_up_and_one_that_stood_has_a_successor() {
        let never = |_: &[OsString]| -> io::Result<Child> { panic!("another was started") };
        assert!(!ended().keep_by(SETTLED - Duration::from_millis(1), never));
        let mut guard = ended();
        assert!(guard.keep_by(SETTLED, |program| Command::new(&program[0]).spawn()));
        guard.child.wait().unwrap();
        assert!(!guard.keep_by(SETTLED * 2 - Duration::from_millis(1), never), "nor does its successor stay");
    }

    #[test]
    fn who_may_not_force_it_writes_to_the_file_of_the_connection() {
        if !can_mount() {
            return;
        }
        let (dir, control) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let none = None::<&str>;
        if mount(Some("control"), control.path(), Some("fusectl"), MsFlags::empty(), none).is_err() {
            println!("SKIPPED: needs fusectl");
            return;
        }
        // Nobody reads from it.
        let device = device::open(dir.path(), &MountOptions::new(dir.path(), "refused")).unwrap();
        let id = table::top(dir.path()).unwrap().unwrap().id;
        let file = dir.path().join("file");
        let reader = std::thread::spawn(move || std::fs::metadata(file));
        let refused = |_: &Path| Err(Errno::EPERM);
        assert!(abort_by(dir.path(), id, Path::new("/no/such"), refused).is_err());
        assert!(!reader.is_finished());
        let done = abort_by(dir.path(), id, control.path(), refused);
        umount2(control.path(), MntFlags::MNT_DETACH).unwrap();
        done.unwrap();
        assert!(reader.join().unwrap().is_err());
        assert!(table::top(dir.path()).unwrap().is_some_and(|entry| entry.id == id), "a dead mount is left");
        device::unmount(dir.path(), true).unwrap();
        drop(device);
    }
}
