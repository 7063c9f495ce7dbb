//! `protect stop` and `protect resume`: the end of a protection, and that it goes on.

use std::collections::BTreeSet;

use clap::{ArgGroup, Args, Subcommand};
use holdfast_backup::config::edit::{self, EditError};
use holdfast_backup::config::{Config, Stopped, Text};
use holdfast_store::id::RecoveryPointId;

use super::{put, refused, unknown};
use crate::args::values;
use crate::commands::Context;
use crate::commands::forget::{self, has_typed};
use crate::commands::key::owner::Act;
use crate::config_file;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// What is done with a group as a whole.
#[derive(Debug, Subcommand)]
pub enum ProtectVerb {
    Stop(StopArgs),
    Resume(ResumeArgs),
}

/// Take no more points of a group
///
/// The configuration says so from then on (`stopped`), the daemon takes and sends nothing of the group any more, and misses nothing. Its
/// points stay (--keep); or expire by the rules of their tiers, which reach back from the day on which they are asked, until those alone
/// are left that always stay (--until-expiry); or are deleted, in the store's directory and in all vaults, the newest as well (--delete): at
/// once, or after the days of `[soft-delete]` in the configuration, in which `undelete` brings them back (--now: at once all the same). With `[soft-delete]` --delete asks for a passphrase or the words of the
/// recovery sheet. Points that are held stay, and so do those of other machines.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("points")))]
#[command(after_long_help = "\
Examples:
  holdfast protect stop web --keep
  holdfast protect stop web --until-expiry
  holdfast protect stop web --delete")]
pub struct StopArgs {
    /// The group
    #[arg(value_name = "GROUP", value_parser = values::name)]
    group: Option<String>,
    /// Keep its points for ever
    #[arg(long, group = "points")]
    keep: bool,
    /// Let them go when their time has come
    #[arg(long, group = "points")]
    until_expiry: bool,
    /// Delete them
    #[arg(long, group = "points")]
    delete: bool,
    /// Remove what is deleted at once
    #[arg(long, requires = "delete")]
    now: bool,
    /// Do not ask
    #[arg(long, requires = "delete")]
    yes: bool,
}

/// Take points of a group again
///
/// The configuration says nothing of its end any more: the next points are taken and sent when its schedules say, and all expire by its
/// rules as before.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast protect resume web")]
pub struct ResumeArgs {
    /// The group
    #[arg(value_name = "GROUP", value_parser = values::name)]
    group: String,
}

impl StopArgs {
    /// The group, if it was said which and what becomes of its points; else what there is to say.
    fn named(&self, context: &Context<'_>) -> Result<String, Failure> {
        let Some(group) = &self.group else {
            let config = Config::parse(&config_file::read(context.settings.config_file()?)?)?;
            let groups: Vec<&str> = config.groups.iter().map(|group| group.name.as_str()).collect();
            let there_are = match groups.is_empty() {
                true => "the configuration has none".to_owned(),
                false => format!("it is one of {}", groups.join(", ")),
            };
            return Err(Failure::usage("name the group").hint(there_are));
        };
        if !(self.keep || self.until_expiry || self.delete) {
            let failure = Failure::usage(format!("say what becomes of the points of {group}"));
            return Err(failure.hint(
                "--keep: they stay; --until-expiry: they go as time goes by; --delete: they are deleted",
            ));
        }
        Ok(group.clone())
    }
}

/// Changes the configuration, then deletes what is to be deleted: nothing new comes meanwhile.
pub fn run(context: &Context<'_>, verb: &ProtectVerb) -> Outcome {
    let args = match verb {
        ProtectVerb::Resume(args) => return say(context, &args.group, None),
        ProtectVerb::Stop(args) => args,
    };
    let group = &args.named(context)?;
    let stopped = if args.until_expiry { Stopped::UntilExpiry } else { Stopped::Keep };
    if !args.delete {
        return say(context, group, Some(stopped));
    }
    known(&Config::parse(&config_file::read(context.settings.config_file()?)?)?, group)?;
    let store = open_store(context)?;
    let mut points = store.points()?;
    points.retain(|stored| {
        let source = &stored.point.source;
        source.group == *group && source.host == context.settings.host
    });
    let all = points.len();
    points.retain(|stored| stored.held.is_none());
    consent(group, points.len(), args.yes)?;
    let act = if args.now { Act::DeleteGroupNow } else { Act::DeleteGroup };
    let days = forget::soft_delete_days(context, &store, Some(act), args.now)?;
    say(context, group, Some(stopped))?;
    let ids: BTreeSet<RecoveryPointId> = points.iter().map(|stored| stored.point.id).collect();
    let done = match days {
        0 => {
            let done = forget::remove_all(context, &store, &ids)?;
            context.terminal.say(&format!("{} deleted", text::count(ids.len() as u64, "recovery point")))?;
            done
        }
        days => forget::delete(context, &store, ids.iter(), days).map(|()| Done::Whole)?,
    };
    match all - points.len() {
        0 => Ok(done),
        held => context
            .terminal
            .say(&format!("held: {}", text::count(held as u64, "recovery point")))
            .map(|()| done),
    }
}

fn say(context: &Context<'_>, group: &str, stopped: Option<Stopped>) -> Result<Done, Failure> {
    let path = context.settings.config_file()?;
    let _lock = config_file::lock(path);
    let files = config_file::read(path)?;
    known(&Config::parse(&files)?, group)?;
    let at = files.iter().position(|(_, text)| edit::has_group(text, group)).unwrap_or(0);
    let (path, read): &Text = &files[at];
    let edited = edit::stop(read, group, stopped).map_err(|error: EditError| refused(path, &error))?;
    put(context, group, files, at, edited)
}

fn known(config: &Config, group: &str) -> Result<(), Failure> {
    if config.groups.iter().any(|known| known.name == group) {
        return Ok(());
    }
    unknown(config, group).map(drop)
}

/// What is deleted does not come back, so it is not enough to say yes.
fn consent(group: &str, points: usize, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let what = text::count(points as u64, "recovery point");
    let refuse = || {
        let failure = Failure::failed(format!("{what} of {group} would be deleted; nothing was changed"));
        failure.hint("look at them with `holdfast snapshots`, then say --yes")
    };
    has_typed(&format!("delete all {what} of {group}? Type the group's name: "), group, refuse)
}
