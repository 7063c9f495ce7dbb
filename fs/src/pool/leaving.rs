//! Whether a caller was killed, or asked to end, while it waits for an answer.
//!
//! The kernel lets nobody go whose request was sent: who was killed stays until the answer comes, and who handles Ctrl-C himself
//! hears of it then. The kernel asks for that answer by `FUSE_INTERRUPT`, which the `fuser` crate refuses without telling anybody.
//! So the watchman looks by himself. Other signals do not count: after them a program goes on, and may not expect that
//! a file answers with `EINTR`.
//!
//! The kernel numbers callers as the mount's process sees them, that is in its PID namespace. A `/proc` of another one tells
//! of others under these numbers, so it is not believed.
//!
//! Where `/proc` hides the processes of other users (`hidepid`, `ProtectProc=` of systemd), one that lives looks like one that has ended.
//! So nobody is taken for gone but by the kernel's own word, and who is hidden waits for his answer.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// The bit of `SIGKILL` in the kernel's masks. Every signal that ends a process becomes it on the way.
const KILL: u64 = 1 << 8;

/// The bits of `SIGHUP`, `SIGINT`, `SIGQUIT` and `SIGTERM`: requests to end that a program may handle.
const REQUESTS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14;

/// What can be known of callers.
#[derive(Debug)]
pub(super) struct Callers {
    proc: Option<PathBuf>,
    /// Whether there is a thread of that number, seen or hidden.
    exists: fn(u32) -> bool,
}

impl Callers {
    /// What `proc` tells of them, if it numbers this process as the kernel does for itself, `own`. Else nothing.
    pub(super) fn of(proc: &Path, own: u32) -> Self {
        let itself = std::fs::read_link(proc.join("self"));
        let is_ours = itself.is_ok_and(|itself| itself == Path::new(&own.to_string()));
        if !is_ours {
            let proc = proc.display();
            tracing::debug!(%proc, "not of this PID namespace: nobody looks whether callers were killed");
        }
        Self { proc: is_ours.then(|| proc.to_owned()), exists }
    }

    /// Whether there is any use in asking.
    pub(super) fn are_known(&self) -> bool {
        self.proc.is_some()
    }

    /// Whether the thread `pid` is to end as soon as it can, or has ended; of 0 nothing is known.
    pub(super) fn is_leaving(&self, pid: u32) -> bool {
        let Some(proc) = self.proc.as_ref().filter(|_| pid != 0) else { return false };
        match std::fs::read_to_string(proc.join(format!("{pid}/status"))) {
            Ok(status) => is_to_end(&status),
            // It has ended and left a read of the kernel's own behind, for whose page others may wait: they ask for it themselves then.
            Err(_) => !(self.exists)(pid),
        }
    }
}

/// Whether the kernel knows a thread of that number: one that may not be sent signals is there, too. No signal is sent.
fn exists(pid: u32) -> bool {
    // 0 and what is negative stand for groups.
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return true };
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

#[cfg(test)]
impl Callers {
    /// A `/proc` made up in `dir`, in which this process is 1 and lives, the thread `killed` is to end, and there is no other.
    pub(super) fn sample(dir: &Path, killed: u32) -> std::io::Result<Self> {
        std::os::unix::fs::symlink("1", dir.join("self"))?;
        for (pid, pending) in [(1, 0), (killed, KILL)] {
            std::fs::create_dir(dir.join(pid.to_string()))?;
            std::fs::write(dir.join(format!("{pid}/status")), format!("ShdPnd:\t{pending:016x}\n"))?;
        }
        Ok(Self { exists: |_| false, ..Self::of(dir, 1) })
    }
}

fn is_to_end(status: &str) -> bool {
    let mask = |name: &str| {
        let digits = status.lines().find_map(|line| line.strip_prefix(name));
        digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default()
    };
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    let heard = mask("SigCgt:") & !mask("SigBlk:");
    pending & KILL != 0 || pending & REQUESTS & heard != 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
    use super::*;

    #[test]
    fn only_a_kill_or_a_request_to_end_that_will_be_heard_counts() {
        let status = |pending: u64, shared: u64, blocked: u64, caught: u64| {
            let masks = [("SigPnd", pending), ("ShdPnd", shared), ("SigBlk", blocked), ("SigCgt", caught)];
            masks
                .iter()
                .fold("Name:\tcat\n".to_owned(), |text, (name, mask)| format!("{text}{name}:\t{mask:016x}\n"))
        };
        let (int, winch) = (1 << 1, 1 << 27);
        assert!(is_to_end(&status(KILL, int, 0, 0)) && is_to_end(&status(0, KILL, 0, 0)));
        assert!(is_to_end(&status(0, int, 0, int)));
        assert!(!is_to_end(&status(0, int, 0, 0)), "ignored");
        assert!(!is_to_end(&status(0, int, int, int)), "blocked");
        assert!(!is_to_end(&status(0, winch, 0, winch)) && !is_to_end(&status(0, 0, KILL, KILL)));
        assert!(!is_to_end("SigPnd:\tno number\n") && !is_to_end(""));
    }

    #[test]
    fn callers_are_looked_at_only_where_their_numbers_are_those_of_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let callers = Callers::sample(dir.path(), 5).unwrap();
        assert!(callers.are_known() && callers.is_leaving(5) && !callers.is_leaving(0));
        assert!(callers.is_leaving(6) && !callers.is_leaving(1), "one has ended, the other lives");
        for elsewhere in [Callers::of(dir.path(), 11), Callers::of(&dir.path().join("none"), 1)] {
            assert!(!elsewhere.are_known() && !elsewhere.is_leaving(5));
        }
        let own = std::process::id();
        let here = Callers::of(Path::new("/proc"), own);
        assert!(here.are_known() && !here.is_leaving(0) && !here.is_leaving(own));
    }

    #[test]
    fn who_cannot_be_seen_is_gone_only_if_the_kernel_knows_nobody_of_that_number() {
        let dir = tempfile::tempdir().unwrap();
        let callers =
            Callers { exists: |pid| matches!(pid, 8 | 9), ..Callers::sample(dir.path(), 5).unwrap() };
        for unreadable in ["7", "9"] {
            std::fs::create_dir_all(dir.path().join(unreadable).join("status")).unwrap();
        }
        for (pid, gone) in [(1, false), (5, true), (6, true), (7, true), (8, false), (9, false)] {
            assert_eq!(callers.is_leaving(pid), gone, "{pid}");
        }
    }

    #[test]
    fn the_kernel_knows_every_thread_that_lives_and_none_that_has_ended() {
        let own = nix::unistd::gettid().as_raw().unsigned_abs();
        assert!(
            exists(own) && exists(std::process::id()) && exists(1),
            "also who is not ours to send signals"
        );
        let mut child = std::process::Command::new("true").spawn().unwrap();
        assert!(exists(child.id()));
        child.wait().unwrap();
        assert!(!exists(child.id()) && exists(0) && exists(u32::MAX));
    }

    /// On a thread that becomes another user, as the rights of threads are their own.
    #[test]
    fn nobody_is_gone_because_proc_hides_him() {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        use rustix::process::{Gid, Uid};
        let dir = tempfile::tempdir().unwrap();
        let hide = Some("hidepid=2");
        let mounted = mount(Some("proc"), dir.path(), Some("proc"), MsFlags::empty(), hide);
        if !nix::unistd::geteuid().is_root() || mounted.is_err() {
            println!("SKIPPED: needs the right to mount /proc");
            return;
        }
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let look = || {
            let nobody = (Uid::from_raw(65534), Gid::from_raw(65534));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(nobody.1, nobody.1, nobody.1).unwrap();
            rustix::thread::set_thread_res_uid(nobody.0, nobody.0, nobody.0).unwrap();
            let callers = Callers::of(dir.path(), std::process::id());
            (
                callers.are_known(),
                dir.path().join("1").exists(),
                callers.is_leaving(1),
                callers.is_leaving(ended.id()),
            )
        };
        let seen = std::thread::scope(|scope| scope.spawn(look).join());
        umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
        assert_eq!(seen.unwrap(), (true, false, false, true));
    }
}
