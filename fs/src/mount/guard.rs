//! A process beside a mount's, which ends the mount's connection when that process is killed.
//!
//! The kernel ends a connection by itself when its last descriptor is closed. A thread that stands in the kernel with bytes to give (`FUSE_NOTIFY_STORE`)
//! or a notice of change waits there for a page or a directory until a request about it is answered, by threads that have been killed, and cannot be killed
//! itself: its descriptor stays, and with it everybody who reads. Only an abort from outside frees them all.
//!
//! The guard has none of the mount's descriptors. It is told of the death of the thread that started it by a signal (`PR_SET_PDEATHSIG`), which must
//! therefore live as long as the mount. Then it writes to the connection's file `abort`, which belongs to the user who mounted, and which it has opened
//! before: so it does not matter where the mount is by then, nor whether it is anywhere (`umount -l`, a renamed directory above it, another
//! namespace), and no other connection can be meant that has got the same number since. The dead mount stays in its place.
//!
//! Without that file it forces the unmounting while it holds the mount busy itself, which does the same to a mount that is where it was.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

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
    pub(super) child: Child,
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

    /// Lets it stand on, to see to the readers when the thread that started it has died.
    pub fn stay(self) {
        std::mem::forget(self);
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
    // The way to the program says nothing to whoever sees it run.
    let mut command = Command::new(first);
    command.arg0("holdfast");
    command.args(rest).arg(mountpoint).arg(id.to_string()).arg(std::process::id().to_string());
    // It needs no secrets.
    command.env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Stands guard: returns after the thread that started this process has died.
pub fn stand(mountpoint: &Path, id: u64, parent: u32) -> io::Result<()> {
    // First of all: the mount may go out of sight at any time.
    let switch = switch_of(id, Path::new(CONNECTIONS));
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
    match switch {
        Ok(switch) => turn_off(&switch),
        Err(_) => force(mountpoint, id, |path| umount2(path, MntFlags::MNT_FORCE)),
    }
}

/// Ends the connection of a mount that is still there, and leaves the mount.
pub fn abort(mountpoint: &Path, id: u64) -> io::Result<()> {
    match switch_of(id, Path::new(CONNECTIONS)) {
        Ok(switch) => turn_off(&switch),
        Err(_) => force(mountpoint, id, |path| umount2(path, MntFlags::MNT_FORCE)),
    }
}

/// The file that ends the connection of a mount when something is written to it. It keeps neither of them, and once it is open it means this
/// connection and none that has its number later.
fn switch_of(id: u64, connections: &Path) -> io::Result<File> {
    let entry = table::numbered(id).map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
    let name = format!("{}/abort", entry.minor);
    let shown = File::options().write(true).open(connections.join(&name));
    shown.or_else(|_| open_unseen(&name))
}

/// The same where `fusectl` is mounted nowhere, for root: by a mount of it that has no place.
fn open_unseen(name: &str) -> io::Result<File> {
    let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(rustix::fs::openat(&root, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

fn turn_off(mut switch: &File) -> io::Result<()> {
    switch.write_all(b"1")
}

/// Ends the connection of a mount that is where it was, by `unmount` while it is busy.
fn force(mountpoint: &Path, id: u64, unmount: impl FnOnce(&Path) -> Result<(), Errno>) -> io::Result<()> {
    let top = table::top(mountpoint).map_err(io::Error::other)?;
    if top.is_none_or(|entry| entry.id != id) {
        return Ok(());
    }
    // No request is needed for this, and as long as it is held the mount is busy.
    let held =
        rustix::fs::open(mountpoint, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let forced = unmount(mountpoint);
    drop(held);
    match forced {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
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

    /// A mount whose requests nobody answers, and somebody who waits for one.
    struct Silent {
        dir: tempfile::TempDir,
        device: Option<std::os::fd::OwnedFd>,
        id: u64,
        /// Keeps it in use, whether the reader has come as far as to wait or not.
        held: Option<std::os::fd::OwnedFd>,
        reader: Option<std::thread::JoinHandle<io::Result<std::fs::Metadata>>>,
    }

    impl Silent {
        fn begin() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let device = device::open(dir.path(), &MountOptions::new(dir.path(), "silent")).unwrap();
            let id = table::top(dir.path()).unwrap().unwrap().id;
            let path = OFlags::PATH | OFlags::CLOEXEC;
            let held = rustix::fs::open(dir.path(), path, Mode::empty()).unwrap();
            let file = dir.path().join("file");
            let reader = std::thread::spawn(move || std::fs::metadata(file));
            Self { dir, device: Some(device), id, held: Some(held), reader: Some(reader) }
        }

        /// Whether the kernel has ended it.
        fn is_over(&self) -> bool {
            device::is_cut_off(self.device.as_ref().unwrap())
        }

        /// The reader, who is let go.
        fn refused(&mut self) {
            assert!(self.reader.take().unwrap().join().unwrap().is_err());
        }
    }

    impl Drop for Silent {
        fn drop(&mut self) {
            drop((self.device.take(), self.held.take()));
            let _ = device::unmount(self.dir.path(), true);
        }
    }

    #[test]
    fn a_connection_is_ended_wherever_its_mount_is_and_a_mount_that_is_there_stays() {
        if !can_mount() {
            return;
        }
        for goes in [false, true] {
            let mut silent = Silent::begin();
            let switch = switch_of(silent.id, Path::new(CONNECTIONS)).unwrap();
            if goes {
                umount2(silent.dir.path(), MntFlags::MNT_DETACH).unwrap();
                assert!(switch_of(silent.id, Path::new(CONNECTIONS)).is_err(), "nothing shows where it is");
            }
            assert!(!silent.is_over());
            turn_off(&switch).unwrap();
            assert!(silent.is_over());
            silent.refused();
            let there = table::top(silent.dir.path()).unwrap().is_some_and(|entry| entry.id == silent.id);
            assert_eq!(there, !goes);
        }
    }

    #[test]
    fn what_was_open_for_one_connection_does_not_end_another_of_the_same_number() {
        if !can_mount() {
            return;
        }
        let minor = |silent: &Silent| table::numbered(silent.id).unwrap().unwrap().minor;
        let mut first = Silent::begin();
        let (number, switch) = (minor(&first), switch_of(first.id, Path::new(CONNECTIONS)).unwrap());
        turn_off(&switch).unwrap();
        first.refused();
        drop(first);
        // Numbers are given again at once; a few mounts, for others on this machine mount as well.
        let mut others: Vec<Silent> = (0..8).map(|_| Silent::begin()).collect();
        if !others.iter().any(|other| minor(other) == number) {
            println!("SKIPPED: the number was given to somebody else");
        }
        turn_off(&switch).unwrap();
        assert!(others.iter().all(|other| !other.is_over()));
        for other in &mut others {
            abort(other.dir.path(), other.id).unwrap();
            other.refused();
        }
    }

    #[test]
    fn where_the_kernel_shows_no_connections_the_file_is_found_or_the_unmounting_forced() {
        if !can_mount() {
            return;
        }
        let mut silent = Silent::begin();
        assert!(switch_of(silent.id, Path::new("/no/such")).is_ok(), "root needs nothing that is mounted");
        let path = silent.dir.path().to_path_buf();
        assert!(force(&path, silent.id, |_| Err(Errno::EPERM)).is_err());
        force(&path, silent.id + 1, |_| panic!("it is another mount")).unwrap();
        assert!(!silent.is_over());
        force(&path, silent.id, |path| umount2(path, MntFlags::MNT_FORCE)).unwrap();
        assert!(silent.is_over() && table::top(&path).unwrap().is_some(), "a dead mount is left");
        silent.refused();
    }
}
