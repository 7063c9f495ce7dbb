//! `holdfast config`: whether the configuration says what it was meant to say.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use holdfast_backup::config::{Config, ConfigError, Problem};
use serde::Serialize;

use super::Context;
use super::status::no_room_for_metrics;
use crate::hooks::unsafe_because;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::{Terminal, text};

/// Look at the configuration
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
}

/// A mistake, or the end.
#[derive(Debug, Serialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
enum Line<'a> {
    Problem { file: String, line: usize, message: &'a str },
    Summary { file: String, groups: usize, sources: usize, problems: usize },
}

/// Looks.
pub fn run(context: &Context<'_>, args: &ConfigArgs) -> Outcome {
    let ConfigVerb::Check { file } = &args.verb;
    let path = match file {
        Some(file) => file.clone(),
        None => context.settings.config_file()?.to_path_buf(),
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
