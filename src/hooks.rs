//! What the configuration has run around the points of a group: `before` the first source is read, and `after` the last one.
//!
//! `before` may stop a database or dump it, so `after` runs whenever `before` began, whatever became of both it and the points, and is
//! not cut short by whoever asked the backup to stop. Whoever may write to the file that names them says what we run as ourselves; of
//! root only root may be that, as with cron and sudo.

mod process;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_backup::config::{Group, HookCommand, Hooks, OnFailure};
use holdfast_store::clock::Clock;
use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::point::{Consistency, PointState};
use holdfast_store::store::{Store, StoredPoint};

use crate::commands::Context;
use crate::credentials::PLAIN_CREDENTIALS;
use crate::outcome::{Failure, Failures};
use crate::secrets::PLAIN_SECRETS;
use crate::terminal::text;
use process::{End, Ended};

/// The tag of points that were taken although what had to run before failed.
pub const FAILED_TAG: &str = "hook-failed";

/// What points are by what ran before them.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How their files relate in time.
    pub consistency: Consistency,
    /// A word that they carry.
    pub tag: Option<&'static str>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { consistency: Consistency::Fuzzy, tag: None }
    }
}

/// What was taken so far, and what failed.
#[derive(Debug, Default)]
pub struct Taken {
    /// Points, in the order in which they were taken.
    pub points: Vec<StoredPoint>,
    /// What keeps nothing else from being done.
    pub failures: Failures,
}

/// Takes the points of a group by `take`, with its hooks around it.
pub fn around(
    context: &Context<'_>,
    store: &Store,
    group: &Group,
    taken: &mut Taken,
    take: impl FnOnce(Manner, &mut Taken) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(hooks) = &group.hooks else { return take(Manner::default(), taken) };
    if let Some(why) = unsafe_because(hooks) {
        let failure = Failure::failed(format!("the hooks of the group {} are not run: {why}", group.name));
        return taken.failures.note(Err(failure)).map(|_: Option<()>| ());
    }
    let runner = Runner { context, store, group, hooks };
    let (points, failures) = (taken.points.len(), taken.failures.count());
    let (manner, begun) = runner.before();
    let result = match manner {
        Ok(manner) => take(manner, taken),
        Err(failure) => taken.failures.note(Err(failure)).map(|_: Option<()>| ()),
    };
    if begun {
        let new = taken.points.get(points..).unwrap_or_default();
        runner.after(new, result.is_ok() && taken.failures.count() == failures);
    }
    result
}

struct Runner<'a> {
    context: &'a Context<'a>,
    store: &'a Store,
    group: &'a Group,
    hooks: &'a Hooks,
}

impl Runner<'_> {
    /// What the points are after `before`, or why there are to be none; whether it began.
    fn before(&self) -> (Result<Manner, Failure>, bool) {
        let well = Manner { consistency: self.hooks.consistency, tag: None };
        let Some(hook) = &self.hooks.before else { return (Ok(well), true) };
        let ended = self.run("before", self.command(hook), &|| self.context.terminal.cancelled());
        let begun = !matches!(ended.how, End::NotStarted(_));
        let what = format!("hook `before` of the group {}", self.group.name);
        let manner = match (trouble(&ended.how, self.hooks.limit), self.hooks.on_failure) {
            _ if ended.how == End::Interrupted => Err(Failure::interrupted()),
            (None, _) => Ok(well),
            (Some(why), OnFailure::Mark) => {
                self.tell(&what, format!("{why}; its points are marked {FAILED_TAG}"));
                Ok(Manner { tag: Some(FAILED_TAG), ..Manner::default() })
            }
            (Some(why), OnFailure::Fail) => Err(Failure::failed(format!("{what}: {why}; no point is taken"))),
        };
        (manner, begun)
    }

    fn after(&self, points: &[StoredPoint], all: bool) {
        let Some(hook) = &self.hooks.after else { return };
        let whole = |stored: &StoredPoint| {
            stored.point.state == PointState::Complete
                && !stored.point.tags.iter().any(|tag| tag == FAILED_TAG)
        };
        let result = match (points.is_empty(), all && points.iter().all(whole)) {
            (true, _) => "failed",
            (false, true) => "done",
            (false, false) => "partial",
        };
        let ids: Vec<String> = points.iter().map(|stored| stored.point.id.hex()).collect();
        let mut command = self.command(hook);
        command.env("HOLDFAST_RESULT", result).env("HOLDFAST_POINTS", ids.join(" "));
        let ended = self.run("after", command, &|| false);
        if let Some(why) = trouble(&ended.how, self.hooks.limit) {
            self.tell(&format!("hook `after` of the group {}", self.group.name), why);
        }
    }

    fn command(&self, hook: &HookCommand) -> Command {
        let mut command = match hook {
            HookCommand::Shell(text) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(text);
                shell
            }
            HookCommand::Words(words) => {
                let mut program = Command::new(words.first().map_or("", String::as_str));
                program.args(words.iter().skip(1));
                program
            }
        };
        for secret in PLAIN_SECRETS.iter().chain(&PLAIN_CREDENTIALS) {
            command.env_remove(secret);
        }
        // Who runs it by hand and who has it run shall see the same.
        command.current_dir("/");
        command.env("HOLDFAST_GROUP", &self.group.name).env("HOLDFAST_STORE", self.store.dir());
        command
    }

    /// Runs it and passes on what it said: always if it failed, and for whoever wants to see more.
    fn run(&self, name: &str, command: Command, stop: &dyn Fn() -> bool) -> Ended {
        let terminal = self.context.terminal;
        let clock: &dyn Clock = &**terminal.clock();
        let ended = process::run(command, self.hooks.limit, clock, stop);
        let monitor = terminal.monitor();
        for line in &ended.lines {
            let said = format!("{name} of {}: {line}", self.group.name);
            match ended.how {
                End::Well => monitor.event(Event::Note(said)),
                _ => terminal.warn(&said),
            }
        }
        ended
    }

    /// Tells of trouble that lets the points be.
    fn tell(&self, what: &str, why: String) {
        self.context.terminal.monitor().event(Event::Problem { path: what.as_bytes().to_vec(), reason: why });
    }
}

fn trouble(how: &End, limit: Duration) -> Option<String> {
    match how {
        End::Well => None,
        End::Badly(status) => Some(status.clone()),
        End::TooLate => Some(format!("it did not end within {}", text::duration(limit.as_secs()))),
        End::Interrupted => Some("it was interrupted".to_owned()),
        End::NotStarted(error) => Some(format!("it could not be started: {error}")),
    }
}

/// Why hooks are not to be run, if they are not: somebody else than root says what root shall run.
pub fn unsafe_because(hooks: &Hooks) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let file = &hooks.place.0;
    match std::fs::metadata(file) {
        Ok(meta) => who_else_writes(meta.uid(), meta.gid(), meta.mode())
            .map(|who| format!("{who} may write to {}, and root runs what stands there", file.display())),
        Err(error) => Some(format!("cannot look at {}: {error}", file.display())),
    }
}

/// Whether a file of the configuration may be written to by others than its reader and root, or cannot be looked at.
pub fn others_write(file: &Path) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    std::fs::metadata(file).map_or(true, |meta| match is_root {
        true => who_else_writes(meta.uid(), meta.gid(), meta.mode()).is_some(),
        false => meta.mode() & 0o002 != 0,
    })
}

fn who_else_writes(user: u32, group: u32, mode: u32) -> Option<String> {
    match (user, group) {
        (1.., _) => Some(format!("user {user}")),
        _ if mode & 0o002 != 0 => Some("everybody".to_owned()),
        (_, 1..) if mode & 0o020 != 0 => Some(format!("group {group}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_says_what_root_runs() {
        for (user, group, mode, who) in [
            (0, 0, 0o644, None),
            (0, 0, 0o664, None),
            (0, 50, 0o644, None),
            (0, 50, 0o664, Some("group 50")),
            (0, 0, 0o646, Some("everybody")),
            (1000, 0, 0o600, Some("user 1000")),
        ] {
            assert_eq!(who_else_writes(user, group, mode).as_deref(), who, "{user} {group} {mode:o}");
        }
    }
}
