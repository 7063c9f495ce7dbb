//! A hook as a process: in a group of its own, with a limit, and with its last lines kept.
//!
//! Whoever waits for it waits for the process and not for the end of what it writes: what it leaves running in the background may hold
//! its output open for ever. So the pipe is read without waiting, in turns with a look at the process.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_store::clock::Clock;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// Time between two looks; a backup of many groups with short hooks should not notice it.
const STEP: Duration = Duration::from_millis(10);
/// How long it has to end by itself when it was told to.
const GRACE: Duration = Duration::from_secs(10);
/// Lines that are kept.
const LINES_MAX: usize = 20;
/// Bytes that are kept of each.
const LINE_LEN_MAX: usize = 1000;
/// Reads between two looks, at most, so that who writes without end is stopped all the same.
const READS_MAX: usize = 64;

/// How it ended, and what it said last.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub how: End,
    /// Its last lines on standard output and standard error.
    pub lines: Vec<String>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With 0.
    Well,
    /// With something else.
    Badly(String),
    /// Its time was up.
    TooLate,
    /// Somebody asked us to stop.
    Interrupted,
    /// It never began.
    NotStarted(String),
}

/// Runs a command to its end, which comes soon after `limit`, or after `stop` says so.
pub fn run(command: Command, limit: Duration, clock: &dyn Clock, stop: &dyn Fn() -> bool) -> Ended {
    let mut tail = Tail::default();
    let how = run_to_end(command, limit, clock, stop, &mut tail);
    let how = how.unwrap_or_else(|error| End::NotStarted(error.to_string()));
    Ended { how, lines: tail.lines() }
}

fn run_to_end(
    mut command: Command,
    limit: Duration,
    clock: &dyn Clock,
    stop: &dyn Fn() -> bool,
    tail: &mut Tail,
) -> io::Result<End> {
    let (mut reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = command.spawn()?;
    // It holds our ends for writing.
    drop(command);
    let group = Pid::from_raw(child.id().cast_signed());
    let begun = clock.monotonic();
    let mut cut: Option<(End, Duration)> = None;
    while !has_ended(group) {
        tail.take(&mut reader);
        let now = clock.monotonic();
        match &cut {
            None if stop() => cut = Some((tell_to_end(group, End::Interrupted), now)),
            None if now.saturating_sub(begun) >= limit => cut = Some((tell_to_end(group, End::TooLate), now)),
            Some((_, since)) if now.saturating_sub(*since) >= GRACE => signal(group, Signal::SIGKILL),
            _ => {}
        }
        clock.pause(STEP);
    }
    if cut.is_some() {
        // What it left: its number is not anybody else's before `wait`.
        signal(group, Signal::SIGKILL);
    }
    let status = child.wait()?;
    tail.take(&mut reader);
    Ok(match cut {
        Some((why, _)) => why,
        None if status.success() => End::Well,
        None => End::Badly(status.to_string()),
    })
}

/// Whether the process ended, which keeps its number until somebody waits for it.
fn has_ended(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::EINTR))
}

fn tell_to_end(group: Pid, why: End) -> End {
    signal(group, Signal::SIGTERM);
    why
}

/// Whoever is gone already needs no signal.
fn signal(group: Pid, signal: Signal) {
    let _ = killpg(group, signal);
}

/// The last lines of what is read.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: Vec<u8>,
}

impl Tail {
    fn take(&mut self, reader: &mut PipeReader) {
        let mut bytes = [0; 8192];
        for _ in 0..READS_MAX {
            match reader.read(&mut bytes) {
                Ok(0) => return,
                Ok(read) => self.add(bytes.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.lines.push_back(std::mem::take(&mut self.open));
                self.lines.drain(..self.lines.len().saturating_sub(LINES_MAX));
            } else if self.open.len() < LINE_LEN_MAX {
                self.open.push(byte);
            }
        }
    }

    fn lines(self) -> Vec<String> {
        let open = (!self.open.is_empty()).then_some(self.open);
        let lines: Vec<Vec<u8>> = self.lines.into_iter().chain(open).collect();
        let last = lines.len().saturating_sub(LINES_MAX);
        lines.iter().skip(last).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_store::clock::{ManualClock, SystemClock, Timestamp};

    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(text);
        command
    }

    /// On a clock that stands still unless somebody pauses: each step of waiting is 10 ms.
    fn on_manual_clock(text: &str, seconds: u64) -> (Ended, Duration) {
        let clock = ManualClock::at(Timestamp::default());
        let ended = run(shell(text), Duration::from_secs(seconds), &clock, &|| false);
        (ended, clock.monotonic())
    }

    fn run_now(command: Command) -> Ended {
        run(command, Duration::from_secs(600), &SystemClock, &|| false)
    }

    #[test]
    fn its_end_is_told_and_its_last_lines_in_order() {
        let ended = run_now(shell("echo one; echo two >&2; printf three; exit 7"));
        assert_eq!(ended.how, End::Badly("exit status: 7".to_owned()));
        assert_eq!(ended.lines, ["one", "two", "three"]);
        let ended = run_now(shell(
            "for i in $(seq 5000); do echo line $i; done; head -c 5000 /dev/zero | tr '\\0' x",
        ));
        assert_eq!((ended.how, ended.lines.len(), ended.lines[18].as_str()), (End::Well, 20, "line 5000"));
        assert_eq!(ended.lines[19].len(), LINE_LEN_MAX);
        assert!(matches!(run_now(Command::new("/nowhere/hook")).how, End::NotStarted(_)));
    }

    #[test]
    fn it_reads_nothing_of_ours() {
        assert_eq!(run_now(shell("read line && echo $line; echo end")).lines, ["end"]);
    }

    #[test]
    fn what_it_leaves_running_with_its_output_is_not_waited_for() {
        let ended = run_now(shell("sleep 1000 & echo $!"));
        assert_eq!((ended.how, ended.lines.len()), (End::Well, 1));
        let left = Pid::from_raw(ended.lines[0].parse().unwrap());
        assert_eq!(nix::sys::signal::kill(left, Signal::SIGKILL), Ok(()));
    }

    #[test]
    fn when_its_time_is_up_it_is_told_to_end_with_all_that_it_began() {
        let (ended, took) = on_manual_clock("sleep 1000 & sleep 1000; echo never", 60);
        assert_eq!((ended.how, ended.lines.len()), (End::TooLate, 0));
        assert!(took >= Duration::from_secs(60), "{took:?}");
    }

    #[test]
    fn who_does_not_listen_is_killed_later() {
        // It is told to end as soon as it has said that it will not hear.
        let clock = ManualClock::at(Timestamp::default());
        let dir = tempfile::tempdir().unwrap();
        let deaf = dir.path().join("deaf");
        let text = format!("trap '' TERM; touch {}; while :; do sleep 1000; done", deaf.display());
        let ended = run(shell(&text), Duration::MAX, &clock, &|| deaf.exists());
        assert_eq!(ended.how, End::Interrupted);
        assert!(clock.monotonic() >= GRACE, "{:?}", clock.monotonic());
    }
}
