//! The command line: what is common to all verbs, and the list of verbs. Each verb's own arguments stand in its file
//! below `commands/`, beside the work they are for.

pub mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands as verbs;
use crate::terminal::Show;

const ABOUT: &str = "Backup and recovery whose recovery screen is the file system";

const LONG_ABOUT: &str = "\
Backup and recovery whose recovery screen is the file system.

holdfast takes recovery points of what it protects, keeps them deduplicated, compressed and encrypted in a local store \
and in vaults far away, and shows every recovery point as a directory. Restoring is cp.";

const AFTER: &str = "\
A first look:
  holdfast quickstart ~/Documents          a store, a vault, a recovery point and a mount of it

In earnest:
  export HOLDFAST_STORE=/srv/holdfast HOLDFAST_PASSWORD_FILE=/etc/holdfast/passphrase
  holdfast init --vault azure://ACCOUNT/NAME --sheet sheet.txt
  holdfast backup /home /etc --online
  holdfast mount /mnt/recovery --background
  ls /mnt/recovery/by-time

Points are named `latest`, `latest~2`, by an id or its beginning, or NAME@TIME as in docs@2026-11-20T12.00.00Z; \
`:PATH` behind the name means something within the point.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some source data could not be read, 10 no store, 11 store in \
use by another process, 12 wrong passphrase or key, 130 interrupted.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = AFTER)]
#[command(max_term_width = 100, disable_help_subcommand = false, arg_required_else_help = true)]
pub struct Cli {
    /// What is common to all verbs.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Arguments of all verbs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of all verbs")]
pub struct GlobalArgs {
    /// The store's directory [env: HOLDFAST_STORE]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// The configuration [env: HOLDFAST_CONFIG; else /etc/holdfast/holdfast.toml, or ~/.config/holdfast/holdfast.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A file whose first line is the passphrase [env: HOLDFAST_PASSWORD_FILE, or HOLDFAST_PASSWORD itself]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_command")]
    pub password_file: Option<PathBuf>,
    /// A command that prints the passphrase [env: HOLDFAST_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<String>,
    /// Print JSON for programs, in restic's shapes
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and troubles only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more; twice for the engine's log
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl GlobalArgs {
    /// How much to show.
    pub fn show(&self) -> Show {
        Show { json: self.json, quiet: self.quiet, verbose: self.verbose, job: crate::settings::is_job() }
    }
}

/// What to do, in the order of `--help`: from the first day to the worst, then upkeep. What each verb says of itself stands
/// at its arguments, because a comment here would hide it.
#[derive(Debug, Subcommand)]
pub enum Verb {
    Quickstart(verbs::quickstart::QuickstartArgs),
    Init(verbs::init::InitArgs),
    Protect(verbs::protect::ProtectArgs),
    Backup(verbs::backup::BackupArgs),
    #[command(visible_alias = "points")]
    Snapshots(verbs::snapshots::SnapshotsArgs),
    Ls(verbs::ls::LsArgs),
    Find(verbs::find::FindArgs),
    History(verbs::history::HistoryArgs),
    Diff(verbs::diff::DiffArgs),
    Dump(verbs::dump::DumpArgs),
    Restore(verbs::restore::RestoreArgs),
    Mount(verbs::mount::MountArgs),
    Estimate(verbs::estimate::EstimateArgs),
    Fetch(verbs::fetch::FetchArgs),
    Umount(verbs::umount::UmountArgs),
    Recover(verbs::recover::RecoverArgs),
    Check(verbs::check::CheckArgs),
    Scrub(verbs::scrub::ScrubArgs),
    Drill(verbs::drill::DrillArgs),
    Config(verbs::config::ConfigArgs),
    Stats(verbs::stats::StatsArgs),
    Key(verbs::key::KeyArgs),
    Vault(verbs::vault::VaultArgs),
    Staging(verbs::staging::StagingArgs),
    Copy(verbs::copy::CopyArgs),
    Forget(verbs::forget::ForgetArgs),
    Undelete(verbs::undelete::UndeleteArgs),
    Hold(verbs::hold::HoldArgs),
    Release(verbs::release::ReleaseArgs),
    Plan(verbs::plan::PlanArgs),
    Daemon(verbs::daemon::DaemonArgs),
    Status(verbs::status::StatusArgs),
    Jobs(verbs::jobs::JobsArgs),
    Alerts(verbs::alerts::AlertsArgs),
    Cancel(verbs::cancel::CancelArgs),
    Prune(verbs::prune::PruneArgs),
    Completions(verbs::completions::CompletionsArgs),
    Man(verbs::man::ManArgs),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_teaches_with_a_paragraph_and_an_example() {
        for verb in Cli::command().get_subcommands_mut() {
            let name = verb.get_name().to_owned();
            let short = verb.get_about().unwrap().to_string();
            let long = verb.get_long_about().map(ToString::to_string).unwrap_or_default();
            let examples = verb.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(long.len() > short.len() + 60, "{name}: {long:?}");
            assert!(examples.contains(&format!("  holdfast {name} ")), "{name}: {examples:?}");
        }
    }

    #[test]
    fn examples_in_help_texts_parse() {
        let mut examples: Vec<String> = Vec::new();
        for verb in Cli::command().get_subcommands() {
            let text = verb.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            examples.extend(text.lines().filter(|line| line.starts_with("  holdfast ")).map(str::to_owned));
        }
        assert!(examples.len() >= 20, "{}", examples.len());
        for example in examples {
            // What follows two blanks, a pipe or a redirection is for the reader or the shell.
            let command = example.trim().split("  ").next().unwrap().split(['|', '>']).next().unwrap().trim();
            let words = command.split_whitespace().map(|word| word.trim_matches('\''));
            assert!(Cli::try_parse_from(words).is_ok(), "{command}");
        }
    }

    #[test]
    fn options_of_all_verbs_may_stand_before_or_after_the_verb() {
        let before = Cli::try_parse_from(["holdfast", "--json", "--store", "/s", "snapshots"]).unwrap();
        let after = Cli::try_parse_from(["holdfast", "points", "--store", "/s", "--json"]).unwrap();
        for cli in [before, after] {
            assert!(cli.global.json);
            assert_eq!(cli.global.store, Some("/s".into()));
            assert!(matches!(cli.verb, Verb::Snapshots(_)));
        }
        assert!(Cli::try_parse_from(["holdfast", "-q", "-v", "snapshots"]).is_err());
    }
}
