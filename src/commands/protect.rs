//! `holdfast protect`: what is protected, and how to have more of it, or less, without writing the configuration by hand.

mod stop;

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use holdfast_backup::config::edit::{self, EditError, Keep, Protection, SourceWish, TierWish};
use holdfast_backup::config::{Config, ConfigError, Group, Source, Stopped, Text, Tier};
use holdfast_backup::retention::Retention;
use holdfast_backup::schedule::Schedule;
use holdfast_backup::source_name::name_from_path;
use serde::Serialize;

use super::Context;
use super::backup::DEFAULT_GROUP;
use super::config::say_wrong;
use crate::args::values;
use crate::config_file;
use crate::daemon;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text::Table;

/// Protect directories by the configuration, or show what is protected
///
/// Writes into the configuration what is asked for, in place: comments and the order of lines stay as they are. Each PATH becomes a
/// source of the group (without --group: `default`), and a group that is not there is made. What is said already changes nothing,
/// and what is not said stays as it was. Without anything to change, it shows what is protected. Nothing is backed up by
/// it: `holdfast backup` takes a point of all that is protected.
///
/// A new group of which nobody says when it is to be taken is taken every hour, and keeps everything of 7 days, a point a day for 30
/// days and one a month for a year, in the store's directory alone; --online has points put into vaults.
///
/// `stop` ends the protection of a group and says what becomes of its points, `resume` has it go on. A directory of such a name is ./stop.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_long_help = "\
Examples:
  holdfast protect                          what is protected
  holdfast protect /home --exclude '*.tmp'
  holdfast protect /srv/www --group web --local hourly --keep-local within=7d
  holdfast protect --group web --online 22:00 --keep-online daily=14,weekly=8,monthly=24,yearly=all
  holdfast protect --group web --remove /srv/www
  holdfast protect stop web --until-expiry

Rules of --keep-local and --keep-online: last, hourly, daily, weekly, monthly, yearly (a number or `all`) and within (7d, 1y6m), as `forget` \
means them; `all` alone keeps everything.")]
pub struct ProtectArgs {
    #[command(subcommand)]
    verb: Option<stop::ProtectVerb>,
    /// Directories or files to protect
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The group; "default" if none is named
    #[arg(long, value_name = "GROUP", value_parser = values::name)]
    group: Option<String>,
    /// Name of the data source, for a single PATH
    #[arg(long = "as", value_name = "NAME", value_parser = values::name, requires = "paths")]
    name: Option<String>,
    /// Leave out of each PATH what matches this pattern; may be repeated, and takes the place of the patterns it had
    #[arg(short, long, value_name = "PATTERN", requires = "paths")]
    exclude: Vec<String>,
    /// When points are taken: `every 15 minutes`, `hourly`, `Mon..Fri 22:00`
    #[arg(long, value_name = "SCHEDULE", value_parser = schedule)]
    local: Option<String>,
    /// What is kept of them in the store's directory
    #[arg(long, value_name = "RULES", value_parser = Keep::from_str)]
    keep_local: Option<Keep>,
    /// When points go into vaults
    #[arg(long, value_name = "SCHEDULE", value_parser = schedule)]
    online: Option<String>,
    /// What is kept of them in vaults
    #[arg(long, value_name = "RULES", value_parser = Keep::from_str)]
    keep_online: Option<Keep>,
    /// Protect each PATH no longer; the group goes with its last source
    #[arg(long, requires = "paths", conflicts_with_all = ["name", "exclude", "local", "keep_local", "online", "keep_online", "allow_missing"])]
    remove: bool,
    /// Also a PATH that is not there now
    #[arg(long, requires = "paths")]
    allow_missing: bool,
}

/// What a new group does of which nobody said when: schedule and rules.
const USUAL: (&str, &str) = ("hourly", "within=7d,daily=30,monthly=12");

fn schedule(text: &str) -> Result<String, String> {
    Schedule::from_str(text).map(|_| text.to_owned()).map_err(|error| error.detail)
}

/// A group, or the end of a change.
#[derive(Debug, Serialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
enum Line<'a> {
    Group {
        group: &'a str,
        sources: Vec<SourceLine>,
        local: Option<TierLine>,
        online: Option<TierLine>,
        /// What becomes of its points, if it takes no more: `keep` or `until-expiry`.
        #[serde(skip_serializing_if = "Option::is_none")]
        stopped: Option<&'static str>,
    },
    Summary {
        file: String,
        group: &'a str,
        changed: bool,
    },
}

#[derive(Debug, Serialize)]
struct SourceLine {
    path: String,
    name: String,
}

#[derive(Debug, Serialize)]
struct TierLine {
    schedule: String,
    /// In words.
    keep: String,
}

/// Shows or changes.
pub fn run(context: &Context<'_>, args: &ProtectArgs) -> Outcome {
    if let Some(verb) = &args.verb {
        return stop::run(context, verb);
    }
    let path = context.settings.config_file()?;
    let _lock = if args.asks_for_nothing() { None } else { config_file::lock(path) };
    let files = config_file::read(path)?;
    let config = Config::parse(&files)?;
    if args.asks_for_nothing() {
        return show(context, &config, args.group.as_deref());
    }
    if args.name.is_some() && args.paths.len() > 1 {
        return Err(Failure::usage("--as names one data source, and there are several paths"));
    }
    let group = args.group.as_deref().unwrap_or(DEFAULT_GROUP);
    let at = files.iter().position(|(_, text)| edit::has_group(text, group)).unwrap_or(0);
    let edited = if args.remove {
        without(context, args, group, &files[at])?
    } else {
        let is_new = config.groups.iter().all(|known| known.name != group);
        with(context, args, &wish(args, group, is_new)?, &files[at])?
    };
    put(context, group, files, at, edited)
}

impl ProtectArgs {
    fn asks_for_nothing(&self) -> bool {
        let tiers = self.local.is_some() || self.online.is_some();
        self.paths.is_empty() && !tiers && self.keep_local.is_none() && self.keep_online.is_none()
    }
}

/// What the command line wishes, with what is usual for a group that is new.
fn wish(args: &ProtectArgs, group: &str, is_new: bool) -> Result<Protection, Failure> {
    let source = |path: &PathBuf| {
        let path = absolute(path)?;
        if !args.allow_missing && !Path::new(&path).exists() {
            let missing = Failure::failed(format!("there is no {path}"));
            return Err(missing.hint("--allow-missing protects it all the same, once it is there"));
        }
        let exclude = (!args.exclude.is_empty()).then(|| args.exclude.clone());
        Ok(SourceWish { path, name: args.name.clone(), exclude })
    };
    let mut local = TierWish { schedule: args.local.clone(), keep: args.keep_local.clone() };
    let online = TierWish { schedule: args.online.clone(), keep: args.keep_online.clone() };
    if is_new && local.schedule.is_none() && online.schedule.is_none() {
        local.schedule = Some(USUAL.0.to_owned());
        local.keep = local.keep.or_else(|| USUAL.1.parse().ok());
    }
    let sources = args.paths.iter().map(source).collect::<Result<_, _>>()?;
    Ok(Protection { group: group.to_owned(), sources, local, online })
}

/// The path from the root, as it was written. `..` is where the system says, which behind a link is not what it looks like.
fn absolute(path: &Path) -> Result<String, Failure> {
    let up = path.components().any(|part| part == Component::ParentDir);
    let absolute = if up { std::fs::canonicalize(path) } else { std::path::absolute(path) };
    let absolute = absolute.map_err(|error| Failure::io("find", path, &error))?;
    // Without a slash at the end, of which the path means the same.
    let absolute: PathBuf = absolute.components().collect();
    let text = absolute.into_os_string().into_string();
    text.map_err(|_| Failure::usage(format!("{} is not UTF-8, and a configuration is", path.display())))
}

fn with(
    context: &Context<'_>,
    args: &ProtectArgs,
    wish: &Protection,
    (path, text): &Text,
) -> Result<String, Failure> {
    // A machine whose store has been named once need not be told again.
    let begun = match context.settings.named_store() {
        Some(store) if text.is_empty() && !path.exists() => {
            let store = absolute(store)?;
            context.terminal.say(&format!("{} is new; its store is {store}", path.display()))?;
            edit::begin(&store)
        }
        None if text.is_empty() && !path.exists() => {
            let path = path.display();
            let store = "--store or HOLDFAST_STORE names it for each command, or `store = \"DIR\"` in this file for all; `holdfast init` \
                         makes one";
            context.terminal.say(&format!("{path} is new, and names no store: {store}"))?;
            text.clone()
        }
        _ => text.clone(),
    };
    let edited = edit::protect(&begun, wish).map_err(|error| refused(path, &error))?;
    if args.local.is_none() && wish.local.schedule.is_some() {
        let usual =
            format!("nobody said when {} is to be taken: {} it is (--local, --online)", wish.group, USUAL.0);
        context.terminal.say(&usual)?;
    }
    Ok(edited)
}

fn without(
    context: &Context<'_>,
    args: &ProtectArgs,
    group: &str,
    (path, text): &Text,
) -> Result<String, Failure> {
    let paths = args.paths.iter().map(|path| absolute(path)).collect::<Result<Vec<_>, _>>()?;
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let (edited, gone) = edit::unprotect(text, group, &paths).map_err(|error| refused(path, &error))?;
    if gone {
        context.terminal.say(&format!("the group {group} has no source any more and goes"))?;
    }
    let left = match gone {
        // Else an alert asks what is to become of them.
        true => format!(
            "its recovery points stay, and `status` tells of them until they are gone; `holdfast protect stop {group}` instead says what becomes of them"
        ),
        false => "recovery points that there are stay, until `holdfast forget` removes them".to_owned(),
    };
    context.terminal.say(&left)?;
    Ok(edited)
}

fn refused(path: &Path, error: &EditError) -> Failure {
    let failure = Failure::failed(format!("{}: {error}", path.display()));
    match error {
        EditError::NoSchedule { tier, .. } => failure.hint(format!("say when: --{tier} SCHEDULE")),
        EditError::NoGroup { .. } | EditError::NoSource { .. } => {
            failure.hint("`holdfast protect` without anything shows what is protected")
        }
        EditError::OtherLines => failure.hint("change it by hand, and see `holdfast config check`"),
        EditError::NotToml { .. } => failure,
    }
}

/// Of a daemon, when nothing is protected any more: for all it knows the file is just being written.
const GOES_ON: &str = "so it goes on taking points of what was protected: `systemctl disable --now holdfast` ends it. The end of a group that \
                       stays in the configuration is `holdfast protect stop GROUP --keep`, which it goes by at once";

/// Puts an edited text in its place, if the configuration has no mistakes with it, and says what the group says now.
fn put(context: &Context<'_>, group: &str, mut files: Vec<Text>, at: usize, edited: String) -> Outcome {
    let path = files[at].0.clone();
    let read = std::mem::replace(&mut files[at].1, edited);
    let config = match Config::parse(&files) {
        Ok(config) => config,
        Err(ConfigError::Wrong { problems }) => {
            let failure = say_wrong(context.terminal, &path, &problems)?;
            return Err(failure.hint("this is what it would be; nothing was changed"));
        }
        Err(error) => return Err(error.into()),
    };
    let changed = read != files[at].1;
    if changed {
        config_file::replace(&path, &read, &files[at].1)?;
        if !daemon::reload(context) && config.groups.is_empty() {
            context.terminal.warn(GOES_ON);
        }
    }
    let file = path.display().to_string();
    let is_there = config.groups.iter().any(|known| known.name == group);
    if context.terminal.json() {
        if is_there {
            show(context, &config, Some(group))?;
        }
        context.terminal.json_line(&Line::Summary { file, group, changed })?;
        return Ok(Done::Whole);
    }
    context.terminal.say(&match changed {
        true => format!("{file} is changed"),
        false => format!("{file} says so already"),
    })?;
    if is_there && !context.terminal.show().quiet {
        show(context, &config, Some(group))?;
    }
    Ok(Done::Whole)
}

fn show(context: &Context<'_>, config: &Config, group: Option<&str>) -> Outcome {
    let groups = config.groups.iter().filter(|known| group.is_none_or(|group| known.name == group));
    let groups: Vec<&Group> = groups.collect();
    if let (Some(group), true) = (group, groups.is_empty()) {
        return unknown(config, group);
    }
    if context.terminal.json() {
        for group in groups {
            context.terminal.json_line(&as_json(group))?;
        }
    } else if groups.is_empty() {
        context.terminal.say("nothing is protected; `holdfast protect PATH` begins")?;
    } else {
        context.terminal.line(&render(&groups))?;
    }
    Ok(Done::Whole)
}

fn unknown(config: &Config, group: &str) -> Outcome {
    let known: Vec<&str> = config.groups.iter().map(|group| group.name.as_str()).collect();
    let failure = Failure::usage(format!("the configuration has no group {group}"));
    Err(if known.is_empty() { failure } else { failure.hint(format!("it has {}", known.join(", "))) })
}

fn name_of(source: &Source) -> String {
    source.name.clone().unwrap_or_else(|| name_from_path(source.path.as_os_str().as_encoded_bytes()))
}

fn as_json(group: &Group) -> Line<'_> {
    let source =
        |source: &Source| SourceLine { path: source.path.display().to_string(), name: name_of(source) };
    let tier = |tier: &Tier| TierLine { schedule: tier.schedule.to_string(), keep: words(&tier.keep) };
    Line::Group {
        group: &group.name,
        sources: group.sources.iter().map(source).collect(),
        local: group.local.as_ref().map(tier),
        online: group.online.as_ref().map(tier),
        stopped: group.stopped.map(Stopped::as_str),
    }
}

fn render(groups: &[&Group]) -> String {
    let tier = |tier: &Option<Tier>, stopped| match (tier, stopped) {
        (Some(_), Some(Stopped::Keep)) => "stopped; keeps everything".to_owned(),
        (Some(tier), Some(Stopped::UntilExpiry)) => format!("stopped; kept {}", words(&tier.keep)),
        (Some(tier), None) => format!("{}; keeps {}", tier.schedule, words(&tier.keep)),
        (None, _) => "never".to_owned(),
    };
    let mut table = Table::new(&["Group", "Source", "Path", "Local", "Online"]);
    for group in groups {
        for (row, source) in group.sources.iter().enumerate() {
            // What is the group's is said once.
            let of_group = |cell: String| if row == 0 { cell } else { String::new() };
            table.row([
                of_group(group.name.clone()),
                name_of(source),
                source.path.display().to_string(),
                of_group(tier(&group.local, group.stopped)),
                of_group(tier(&group.online, group.stopped)),
            ]);
        }
    }
    table.render()
}

/// What is kept: `within 7d, daily 14, yearly all`.
fn words(keep: &Retention) -> String {
    let counts = [
        ("last", keep.last),
        ("hourly", keep.hourly),
        ("daily", keep.daily),
        ("weekly", keep.weekly),
        ("monthly", keep.monthly),
        ("yearly", keep.yearly),
    ];
    let count = |(name, count): (&str, u32)| match count {
        0 => None,
        u32::MAX => Some(format!("{name} all")),
        count => Some(format!("{name} {count}")),
    };
    let within = keep.within.map(|span| format!("within {span:#}"));
    let words: Vec<String> = within.into_iter().chain(counts.into_iter().filter_map(count)).collect();
    if words.is_empty() { "everything".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_kept_is_said_in_the_words_of_the_configuration() {
        assert_eq!(words(&Retention::default()), "everything");
        let keep = Retention {
            within: Some(jiff::Span::new().days(7)),
            daily: 14,
            yearly: u32::MAX,
            ..Retention::default()
        };
        assert_eq!(words(&keep), "within 7d, daily 14, yearly all");
    }

    #[test]
    fn what_is_usual_is_a_schedule_and_rules() {
        assert!(schedule(USUAL.0).is_ok() && USUAL.1.parse::<Keep>().is_ok());
    }

    #[test]
    fn a_path_is_written_from_the_root_and_links_in_it_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
        let of = |path: &str| absolute(&root.join(path)).unwrap();
        assert_eq!(of("link/./"), format!("{}/link", root.display()));
        assert_eq!(of("link/../b/.."), format!("{}/a", root.display()));
    }
}
