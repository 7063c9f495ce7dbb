//! A job: the verb that does a task, as a process of this program. What it does is what the verb does when a person types it; a job that
//! goes wrong takes nothing else with it, and its memory ends with it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_backup::agenda::{Task, Work};
use holdfast_backup::ledger::JobState;
use holdfast_store::clock::Clock;
use holdfast_store::id::RecoveryPointId;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{getpriority_process, setpriority_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::talk::LINE_MAX;
use crate::settings::Environment;

/// Bytes of what a job says of troubles that are kept until it ends.
const SAID_MAX: usize = 64 << 10;
/// Recovery points of one job that are kept.
const POINTS_MAX: usize = 1000;

/// How long a process is still heard after its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Set for the processes of jobs, so that they do not ask the daemon in turn.
pub const MARK: &str = "HOLDFAST_JOB";
/// How nice such a process is to be.
const NICE: &str = "HOLDFAST_JOB_NICE";

/// How the program is called for a job.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The program.
    pub program: PathBuf,
    /// What stands before the verb.
    pub common: Vec<OsString>,
    /// How nice jobs are to other programs.
    pub nice: u8,
}

impl Caller {
    /// The verb of a task, with its arguments; of a push also the points that somebody wants to be there in any case.
    fn words(&self, task: &Task, points: &[RecoveryPointId]) -> Vec<String> {
        let words: &[&str] = match task.work {
            Work::Take => &["backup"],
            Work::Push => &["vault", "push", "--pending"],
            Work::ExpireLocal => &["forget", "--tier", "local"],
            Work::ExpireOnline => &["forget", "--tier", "online"],
            Work::Reclaim => &["prune", "--local"],
            Work::ReclaimVaults => &["prune", "--vaults"],
            Work::Check => &["check"],
            Work::CheckData => &["check", "--read-data"],
            Work::Scrub => &["scrub"],
            Work::Drill => &["drill"],
        };
        let group = task.group.iter().flat_map(|group| ["--group".to_owned(), group.clone()]);
        words
            .iter()
            .map(|word| (*word).to_owned())
            .chain(group)
            .chain(points.iter().map(RecoveryPointId::hex))
            .collect()
    }

    /// Starts the process of a task; `points` are wanted in the vaults, if it is a push.
    pub fn start(&self, task: &Task, points: &[RecoveryPointId]) -> std::io::Result<Child> {
        self.spawn(self.words(task, points))
    }

    /// Starts a process of a verb with its arguments.
    pub fn spawn(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> std::io::Result<Child> {
        self.spawn_with(words, None)
    }

    /// The same with something more in its environment.
    pub fn spawn_with(
        &self,
        words: impl IntoIterator<Item = impl AsRef<OsStr>>,
        more: Option<(&str, String)>,
    ) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        // As a person would call it: the way to the program says nothing.
        command.arg0("holdfast");
        command.envs(more);
        command.args(&self.common).arg("--json").args(words).env(MARK, "1").env(NICE, self.nice.to_string());
        command.env_remove(crate::notify::SOCKET).env_remove(crate::notify::WATCHDOG);
        // A group of its own: what ends it ends all that it started, and a Ctrl-C that is meant for the daemon is not meant for it.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }
}

/// Has this process be as nice as the daemon wants it, if it is a job. To be called before it starts threads: in Linux each has a
/// niceness of its own, that of the thread which started it.
pub fn be_nice(env: &Environment) {
    let said = env(MARK).and_then(|_| env(NICE)?.to_str()?.parse::<i32>().ok());
    // Who is nicer already may not become less so, and need not.
    if let (Some(nice), Ok(now)) = (said, getpriority_process(None))
        && nice > now
    {
        // To be nicer is refused to nobody.
        let _ = setpriority_process(None, nice);
    }
}

/// What is heard of a job while it runs.
#[derive(Debug, Default)]
pub struct Heard {
    /// Its present stage.
    pub stage: String,
    /// How much of that is done, from 0 to 1.
    pub part_done: f64,
    /// What it said of troubles, line by line.
    pub said: String,
    /// The recovery points that it made, or brought into a vault.
    pub points: Vec<String>,
    /// Bytes that it put into vaults, of one that does that.
    pub sent: Option<u64>,
}

impl Heard {
    /// Takes a line of standard output.
    fn result(&mut self, line: &str) {
        let Ok(value) = serde_json::from_str::<Value>(line) else { return };
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        match text("message_type") {
            Some("status") => {
                self.stage = text("stage").unwrap_or_default().to_owned();
                self.part_done = value.get("percent_done").and_then(Value::as_f64).unwrap_or(0.0);
            }
            Some("summary") => self.sent = value.get("bytes_sent").and_then(Value::as_u64),
            _ => {}
        }
        if let (Some("summary" | "vaulted" | "drilled"), Some(point)) =
            (text("message_type"), text("snapshot_id"))
        {
            let room = POINTS_MAX.saturating_sub(self.points.len());
            self.points.extend(Some(point.to_owned()).into_iter().take(room));
        }
    }

    /// Takes a line of standard error; what it says, for people.
    fn trouble(&mut self, line: &str) -> String {
        let said = trouble_in(line);
        self.said.push_str(&said);
        self.said.push('\n');
        // The reason stands last.
        let mut from = self.said.len().saturating_sub(SAID_MAX);
        while !self.said.is_char_boundary(from) {
            from += 1;
        }
        self.said.drain(..from);
        said
    }
}

/// What a line of standard error says, for people.
pub fn trouble_in(line: &str) -> String {
    let said = serde_json::from_str::<Value>(line).ok().and_then(|value| trouble_of(&value));
    said.unwrap_or_else(|| line.trim_end().to_owned())
}

/// The sentence of an error that is told as JSON.
fn trouble_of(value: &Value) -> Option<String> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    match value.get("message_type")?.as_str()? {
        "error" => {
            let message = text(value.get("error")?.get("message"))?;
            Some(match text(value.get("item")).filter(|item| !item.is_empty()) {
                Some(item) => format!("{item}: {message}"),
                None => message,
            })
        }
        "warning" => text(value.get("message")),
        "exit_error" => {
            let causes = value.get("causes").and_then(Value::as_array).into_iter().flatten();
            let causes = causes.filter_map(|cause| Some(format!("; because: {}", cause.as_str()?)));
            let hint = text(value.get("hint")).map(|hint| format!(". Hint: {hint}"));
            Some(text(value.get("message"))? + &causes.chain(hint).collect::<String>())
        }
        _ => None,
    }
}

/// What was heard of a job by now, shared with whoever is asked about it.
pub type Hearing = Arc<Mutex<Heard>>;

/// Hears a process until it has ended.
pub async fn hear(
    mut child: Child,
    name: String,
    hearing: Hearing,
    clock: Arc<dyn Clock>,
) -> std::io::Result<ExitStatus> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let heard = || hearing.lock().unwrap_or_else(PoisonError::into_inner);
    let out = lines(out, |line| heard().result(line));
    let err = lines(err, |line| {
        let said = heard().trouble(line);
        tracing::warn!("{name}: {said}");
    });
    let all_said = async { tokio::join!(out, err) };
    tokio::pin!(all_said);
    tokio::select! {
        status = child.wait() => {
            // What it said last is still to be read; what it started may keep its outputs for longer than it lives.
            tokio::select! {
                _ = &mut all_said => {}
                () = clock.sleep(LAST_WORDS) => {}
            }
            status
        }
        _ = &mut all_said => child.wait().await,
    }
}

/// Takes lines, each up to a length, until there are no more.
async fn lines(from: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&str)) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut from).take(LINE_MAX).read_until(b'\n', &mut line).await {
        take(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

/// How a job ended, as its exit code says. One that could not take all of a group's sources took the others.
pub fn state_of(status: ExitStatus, was_asked: bool, made_points: bool) -> JobState {
    match status.code() {
        Some(0) => JobState::Done,
        Some(3) => JobState::Partial,
        Some(1) if made_points => JobState::Partial,
        Some(130) => JobState::Cancelled,
        None if was_asked => JobState::Cancelled,
        _ => JobState::Failed,
    }
}

/// Kills a job, and what it started in process groups of their own, such as hooks.
pub fn kill(process: u32) {
    let mut groups = vec![process];
    let mut at = 0;
    while let Some(parent) = groups.get(at).copied() {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        groups
            .extend(children.unwrap_or_default().split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        at += 1;
    }
    groups.into_iter().for_each(|process| signal(process, Signal::SIGKILL));
}

/// Sends a signal to a job and all that it started.
pub fn signal(process: u32, signal: Signal) {
    // Of no process, 0, the group would be the daemon's own.
    if let Ok(process @ 1..) = i32::try_from(process) {
        // One that has just ended needs none.
        let _ = killpg(Pid::from_raw(process), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_a_sentence_before_the_way_out() {
        let line = r#"{"message_type":"exit_error","code":1,"message":"no","causes":["a","b"],"hint":"try"}"#;
        assert_eq!(trouble_in(line), "no; because: a; because: b. Hint: try");
        assert_eq!(trouble_in("plain\n"), "plain");
    }
}
