//! `holdfast man`: the manual, one page for the program and one for each verb.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::args::Cli;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::Terminal;

/// Write manual pages into a directory
///
/// Writes holdfast.1 and a page for each verb (holdfast-backup.1 and so on), made from the same texts as `--help`.
/// Existing pages are replaced.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast man /usr/local/share/man/man1
  holdfast man .")]
pub struct ManArgs {
    /// Where to write; made if it is missing
    pub dir: PathBuf,
}

/// Writes the pages.
pub fn run(terminal: &Terminal, args: &ManArgs) -> Outcome {
    let failed = |error: std::io::Error| Failure::io("write manual pages into", &args.dir, &error);
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    terminal.say(&format!("manual pages written to {}", args.dir.display()))?;
    Ok(Done::Whole)
}
