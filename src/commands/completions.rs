//! `holdfast completions`: what a shell needs to complete verbs and options.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::outcome::{Done, Outcome};
use crate::terminal::Terminal;

/// Print a completion script for a shell
///
/// The script goes to standard output. Where a shell looks for it is shown in the examples; a new shell is needed for it
/// to take effect.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast completions bash > /usr/share/bash-completion/completions/holdfast
  holdfast completions zsh > /usr/local/share/zsh/site-functions/_holdfast
  holdfast completions fish > ~/.config/fish/completions/holdfast.fish")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Prints the script.
pub fn run(terminal: &Terminal, args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "holdfast", &mut script);
    terminal.bytes(&script)?;
    Ok(Done::Whole)
}
