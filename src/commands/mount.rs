//! `holdfast mount`: all recovery points as directories.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Context;
use crate::args::values;
use crate::open::open_store;
use crate::outcome::{Failure, Outcome};

/// Show all recovery points as directories
///
/// Below MNT stand by-group/GROUP/SOURCE/TIME, by-id/ID and by-time/DATE, read-only, with owners, permissions and times
/// of the source. Copy out of it with cp, rsync or a file manager. New points appear while it is mounted. It runs until
/// it is unmounted or interrupted.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast mount /mnt/recovery
  holdfast mount /mnt/recovery --background
  holdfast mount ~/recovery --cache-size 50G --read-timeout 2m")]
pub struct MountArgs {
    /// An empty directory
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,
    /// Return when it is mounted
    #[arg(long)]
    background: bool,
    /// Let other users in; each file's own permissions still hold
    #[arg(long)]
    allow_other: bool,
    /// How long a reader waits for the vault before it gets an error
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = values::seconds)]
    read_timeout: Duration,
    /// Most that the cache of vault data may take on disk
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = values::size)]
    cache_size: u64,
}

/// Mounts.
pub fn run(context: &Context<'_>, args: &MountArgs) -> Outcome {
    if !args.mountpoint.is_dir() {
        let failure = Failure::failed(format!("{} is no directory", args.mountpoint.display()));
        return Err(failure.hint("make one to mount at: mkdir -p MNT"));
    }
    let _store = open_store(context)?;
    Err(Failure::not_built("mount"))
}
