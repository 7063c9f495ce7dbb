//! What a daemon and whoever asks it say to each other: lines of JSON over a socket in the store's directory, which only the store's owner
//! may reach. One question, then answers until the daemon has no more.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Its name in the store's directory.
const NAME: &str = "daemon.sock";
/// Longest line that either side reads.
pub const LINE_MAX: u64 = 1 << 20;
/// How often whoever waits for an answer looks whether he still wants it.
const LOOK: Duration = Duration::from_millis(200);
/// How often he looks for an answer that needs no work.
const LOOKS: u32 = 50;
/// A daemon that does not take a question for so long is taken for one that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a daemon does that has nothing to do.
const IDLE: &str = "waits for what is due";

/// What a daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// What it does.
    Status,
    /// To do a task now, and to tell how it ended.
    Run {
        /// A word for the work.
        work: String,
        /// The group, if the work is for one.
        group: Option<String>,
        /// Of a push: recovery points that are to be in the vaults as well, as their ids.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        points: Vec<String>,
    },
    /// To read its configuration again.
    Reload,
    /// To end a job.
    Cancel {
        /// Its number.
        job: i64,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// What it does.
    Status(Present),
    /// A task begins, or has begun.
    Begun {
        /// The number of its job.
        job: i64,
    },
    /// A job has ended.
    Ended {
        /// Its number.
        job: i64,
        /// How: a word for the state of the job.
        state: String,
        /// What it said of troubles.
        said: String,
        /// The recovery points that it made.
        points: Vec<String>,
        /// The exit code of its process; none, if a signal ended it.
        code: Option<i32>,
    },
    /// It was done, and there is nothing to say of it.
    Done,
    /// It cannot be done.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What a daemon does at the moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Present {
    /// Number of its process.
    pub process: u32,
    /// When it began, in seconds since 1970.
    pub since: i64,
    /// Jobs that run.
    pub running: Vec<Running>,
    /// Tasks that wait for others to end.
    pub waiting: Vec<String>,
    /// Why the configuration that was last read is not the one by which it goes.
    pub trouble: Option<String>,
}

/// A job that runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Its number.
    pub job: i64,
    /// What it does.
    pub task: String,
    /// How much of its present stage is done, from 0 to 1; 0 if that is not known.
    pub part_done: f64,
    /// Its present stage.
    pub stage: String,
}

impl Present {
    /// The same as one line.
    pub fn sentence(&self) -> String {
        let running: Vec<String> = self.running.iter().map(Running::sentence).collect();
        let mut parts = vec![if running.is_empty() { IDLE.to_owned() } else { running.join(", ") }];
        if !self.waiting.is_empty() {
            parts.push(format!("then {}", self.waiting.join(", ")));
        }
        if self.trouble.is_some() {
            parts.push("goes by the configuration before, for the new one has mistakes".to_owned());
        }
        parts.join("; ")
    }
}

impl Running {
    fn sentence(&self) -> String {
        let done = if self.part_done > 0.0 {
            format!(": {:.0} %", (self.part_done * 100.0).floor())
        } else {
            String::new()
        };
        format!("job {} ({}){done}", self.job, self.task)
    }
}

/// The socket of the store in a directory. The path of a socket is short and a store's may be long, so it goes by way of an open directory,
/// which has to stay open as long as the path is used.
pub fn socket_in(store: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    let dir = std::fs::File::open(store)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()));
    Ok((dir, path))
}

/// The daemon of a store.
#[derive(Debug)]
pub struct Daemon {
    stream: UnixStream,
}

impl Daemon {
    /// The one that serves the store in a directory, if one does.
    pub fn of(store: &Path) -> Option<Self> {
        let (_dir, path) = socket_in(store).ok()?;
        let stream = UnixStream::connect(path).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(Self { stream })
    }

    /// Asks, and takes one answer after the other until `take` has heard enough, `enough` says so, or there are no more.
    pub fn ask(
        mut self,
        question: &Question,
        mut enough: impl FnMut() -> bool,
        mut take: impl FnMut(Answer) -> bool,
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        self.stream.set_read_timeout(Some(LOOK))?;
        let mut answers = BufReader::new(self.stream);
        line.clear();
        // The end of a job takes as long as it takes; all else is known at once.
        let mut looks = if matches!(question, Question::Run { .. }) { u32::MAX } else { LOOKS };
        loop {
            match (&mut answers).take(LINE_MAX).read_until(b'\n', &mut line) {
                Err(error) if is_a_look(&error) && enough() => return Ok(()),
                Err(error) if is_a_look(&error) && looks > 0 => looks = looks.saturating_sub(1),
                Err(error) => return Err(error),
                Ok(0) => return Ok(()),
                Ok(_) if !take(serde_json::from_slice(&line)?) => return Ok(()),
                Ok(_) => line.clear(),
            }
        }
    }
}

/// Whether it only is time to look whether the answer is still wanted.
fn is_a_look(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_does_is_said_in_a_line() {
        assert_eq!(Present::default().sentence(), IDLE);
        let job =
            |job, task: &str, part_done| Running { job, task: task.into(), part_done, ..Running::default() };
        let busy = Present {
            running: vec![job(18, "backup main", 0.459), job(19, "push main", 0.0)],
            waiting: vec!["check".into()],
            ..Present::default()
        };
        assert_eq!(busy.sentence(), "job 18 (backup main): 45 %, job 19 (push main); then check");
        let wrong = Present { trouble: Some("line 3".into()), ..Present::default() };
        assert!(wrong.sentence().starts_with("waits for what is due; goes by the configuration before"));
    }
}
