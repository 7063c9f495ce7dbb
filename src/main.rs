//! The program: takes a command line, lets one verb do its work, and ends with an exit code that scripts can rely on.
//!
//! Everything that touches a person, the environment or the process lives here; the engine crates below know none of it.

mod accepted;
mod args;
mod commands;
mod config_file;
mod create;
mod credentials;
mod daemon;
mod delay;
mod deleted;
mod expiring;
mod hooks;
mod json;
mod mount_helper;
mod notify;
mod open;
mod outcome;
mod patience;
mod places;
mod point_spec;
mod proven;
mod secrets;
mod settings;
mod sheet;
mod small_file;
mod stored_tree;
mod telling;
mod terminal;
mod writers;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use nix::sys::resource::{Resource, setrlimit};

use args::Cli;
use commands::Context;
use outcome::{Done, Failure};
use settings::Settings;
use terminal::{Terminal, signals};

fn main() -> ExitCode {
    // A core file would hold keys. Where even this is refused nothing better can be done.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    signals::outlive_size_limits();
    settings::name_process(c"holdfast");
    daemon::be_nice(&settings::process_environment());
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = commands::mount::guard::run(&args).or_else(|| commands::mount::log::run(&args)) {
        return code;
    }
    if let Some(outcome) = mount_helper::run(&args) {
        return outcome.map_or_else(|failure| end(&failure), |()| ExitCode::SUCCESS);
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let takes_signals = commands::takes_signals(&cli.verb);
    let cancelled = if takes_signals { Arc::default() } else { signals::watch() };
    let clock = match settings::clock() {
        Ok(clock) => clock,
        Err(failure) => return end(&failure),
    };
    let terminal = Terminal::new(cli.global.show(), clock, cancelled);
    let (verbose, serves) = (cli.global.verbose, commands::serves(&cli.verb));
    // The failure goes where the log does.
    let _log = terminal::log_to_stderr(verbose, serves, settings::log_filter(), Arc::clone(terminal.clock()));
    match run(cli, &terminal) {
        Ok(done) => ExitCode::from(done.exit_code()),
        Err(failure) => {
            terminal.fail(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: Cli, terminal: &Terminal) -> Result<Done, Failure> {
    if let Some(outcome) = commands::run_anywhere(terminal, &cli.verb) {
        return outcome;
    }
    let settings = Settings::gather(&cli.global, &settings::process_environment())?;
    commands::run(&Context { settings, terminal }, cli.verb)
}

/// Tells a failure that comes before there is a terminal.
fn end(failure: &Failure) -> ExitCode {
    terminal::print_failure(failure, false);
    ExitCode::from(failure.exit_code())
}

/// Answers a command line that clap did not take. `--help` and `--version` come this way too and are no failures.
fn refuse(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|arg| arg == "--json");
    if error.use_stderr() && json {
        let failure = Failure::usage(error.to_string().trim_end());
        terminal::print_failure(&failure, true);
        return ExitCode::from(failure.exit_code());
    }
    // Nothing is left to tell if the terminal is gone.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
