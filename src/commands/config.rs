//! `holdfast config`: whether the configuration says what it was meant to say, and that it may take protection away.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use holdfast_backup::config::{Config, ConfigError, Problem};
use holdfast_store::store::Store;
use serde::Serialize;

use super::Context;
use super::key::owner::{self, Act};
use super::status::no_room_for_metrics;
use crate::delay::{self, Delay};
use crate::hooks::unsafe_because;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::{Terminal, text};

/// Look at the configuration, or agree that it has what is deleted stay for a shorter time
///
/// The configuration says what is protected, when, and how long it is kept: /etc/holdfast/holdfast.toml, for users other than
/// root ~/.config/holdfast/holdfast.toml, or another file by --config. Files in the directory holdfast.toml.d beside it that end in
/// .toml are read as well, in the order of their names. `backup` without a PATH takes what it names, `plan` shows what it means.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_long_help = "\
Examples:
  holdfast config check
  holdfast config check ./holdfast.toml
  holdfast config accept                    what is deleted stays for a shorter time than before

A configuration:
  store = \"/srv/holdfast\"
  time-zone = \"Europe/Berlin\"                # that of this machine, if none is named

  [group.web]
  sources = [\"/srv/www\", { path = \"/var/lib/app\", name = \"app\", exclude = [\"*.sock\"] }]
  exclude = [\"node_modules\"]
  exclude-caches = true
  one-file-system = true

  [group.web.local]                         # points in the store's directory
  schedule = \"every 15 minutes\"
  keep = { within = \"7d\" }

  [group.web.online]                        # points in vaults
  schedule = \"22:00\"
  jitter = \"30 minutes\"
  keep = { daily = 14, weekly = 8, monthly = 24, yearly = \"all\" }

  [group.web.hooks]                         # run before and after the points are taken
  before = [\"/usr/local/bin/dump\", \"web\"]
  after = \"rm -f /srv/www/dump.sql\"

  [alerts]                                  # whom the daemon tells what is wrong; `holdfast alerts --test`
  mail = { to = [\"ops@example.org\"], from = \"holdfast@example.org\", server = \"smtp://localhost:25\" }
  webhook = \"https://hooks.example.org/holdfast\"

  [soft-delete]                             # for how long `holdfast undelete` brings back what was deleted
  days = 14

  [metrics]                                 # figures for the textfile collector of Prometheus
  file = \"/var/lib/prometheus/node-exporter/holdfast.prom\"

A schedule is `every N minutes` (hours, days, weeks), or an expression of systemd.time(7) down to minutes: `Mon..Fri 22:00`, \
`*-*-01 03:00 UTC`, `hourly`.")]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Say whether the configuration can be used; name the line of each mistake
    ///
    /// Reads the configuration and the files beside it (holdfast.toml.d/*.toml) and nothing else: neither the store nor
    /// the sources; only a directory of the file of metrics that is missing is told. Exit code 1 if there is a mistake.
    #[command(after_long_help = "\
Examples:
  holdfast config check
  holdfast config check ./holdfast.toml && sudo cp holdfast.toml /etc/holdfast/")]
    Check {
        /// Another file than the one that would be used
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Let what is deleted stay for no longer than the configuration says now
    ///
    /// What `[soft-delete]` once said holds in a store although the configuration says less by now, or nothing, and so does how long `[reclaim]`
    /// had what may go stay in vaults. This ends that. It asks for a passphrase or the words of the recovery sheet. A daemon has to have read the
    /// configuration before. What was deleted already goes when it was to go.
    #[command(after_long_help = "\
Examples:
  systemctl reload holdfast && holdfast config accept")]
    Accept,
}

/// A mistake, or the end.
#[derive(Debug, Serialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
enum Line<'a> {
    Problem { file: String, line: usize, message: &'a str },
    Summary { file: String, groups: usize, sources: usize, problems: usize },
    SoftDelete { days: u16, changed: bool },
}

/// Looks.
pub fn run(context: &Context<'_>, args: &ConfigArgs) -> Outcome {
    let path = match &args.verb {
        ConfigVerb::Accept => return accept(context),
        ConfigVerb::Check { file: Some(file) } => file.clone(),
        ConfigVerb::Check { file: None } => context.settings.config_file()?.to_path_buf(),
    };
    match Config::load(&path) {
        Ok(config) => match unsafe_hooks(&config) {
            none if none.is_empty() => {
                if let Some(alert) = no_room_for_metrics(&config) {
                    context.terminal.warn(&alert.what);
                }
                say_good(context.terminal, &path, &config)
            }
            problems => Err(say_wrong(context.terminal, &path, &problems)?),
        },
        Err(ConfigError::Wrong { problems }) => Err(say_wrong(context.terminal, &path, &problems)?),
        Err(error) => Err(Failure::from(error)),
    }
}

/// Has what the configuration says of how long things stay hold, if the owner agrees.
fn accept(context: &Context<'_>) -> Outcome {
    let (store, terminal) = (context.settings.store()?, context.terminal);
    // What is no store has nobody to ask.
    Store::head(store)?;
    let said = Delay::said(context.settings.config_if_any()?);
    let changed = delay::is_longer(store, said);
    if changed {
        owner::is_asked_for(context, store, Act::Shorten)?;
        delay::accept(store, said)?;
    }
    if terminal.json() {
        terminal.json_line(&Line::SoftDelete { days: said.days, changed })?;
        return Ok(Done::Whole);
    }
    terminal.say(&match (changed, said.days) {
        (false, _) => {
            "nothing holds for longer than the configuration says: there is nothing to accept".to_owned()
        }
        (true, 0) => "what is deleted from now on goes at once".to_owned(),
        (true, days) => format!("what is deleted from now on stays for {}", text::count(days.into(), "day")),
    })?;
    Ok(Done::Whole)
}

/// Hooks that would not be run.
pub fn unsafe_hooks(config: &Config) -> Vec<Problem> {
    let hooks = config.groups.iter().filter_map(|group| group.hooks.as_ref());
    let wrong = hooks.filter_map(|hooks| {
        let (file, line) = hooks.place.clone();
        Some(Problem { file, line, what: unsafe_because(hooks)? })
    });
    wrong.collect()
}

fn say_good(terminal: &Terminal, path: &std::path::Path, config: &Config) -> Outcome {
    if config.groups.is_empty() {
        // A daemon would refuse it.
        let failure = Failure::failed(format!("the configuration {} protects nothing", path.display()));
        return Err(failure.hint("`holdfast protect PATH` adds something"));
    }
    let sources = config.groups.iter().map(|group| group.sources.len()).sum();
    let (file, groups) = (path.display().to_string(), config.groups.len());
    if terminal.json() {
        terminal.json_line(&Line::Summary { file, groups, sources, problems: 0 })?;
    } else {
        let (groups, sources) = (text::count(groups as u64, "group"), text::count(sources as u64, "source"));
        terminal.say(&format!("{file}: no mistakes; {groups}, {sources}"))?;
    }
    Ok(Done::Whole)
}

/// Names all mistakes; the failure that they are.
pub fn say_wrong(
    terminal: &Terminal,
    path: &std::path::Path,
    problems: &[Problem],
) -> Result<Failure, Failure> {
    for Problem { file, line, what } in problems {
        if terminal.json() {
            terminal.json_line(&Line::Problem {
                file: file.display().to_string(),
                line: *line,
                message: what,
            })?;
        } else {
            terminal.line(&format!("{}:{line}: {what}", file.display()))?;
        }
    }
    let found = text::count(problems.len() as u64, "mistake");
    Ok(Failure::failed(format!("{found} in the configuration {}", path.display())))
}
