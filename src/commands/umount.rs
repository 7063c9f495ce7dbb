//! `holdfast umount`: the end of a mount.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::outcome::{Failure, Outcome};

/// End a mount
///
/// Waits for what is being read, then unmounts. With --force the mount goes at once and programs that still read from it
/// get errors.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast umount /mnt/recovery
  holdfast umount --force /mnt/recovery")]
pub struct UmountArgs {
    /// Where it is mounted
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,
    /// Do not wait for readers
    #[arg(short, long)]
    force: bool,
}

/// Unmounts.
pub fn run(_context: &Context<'_>, _args: &UmountArgs) -> Outcome {
    Err(Failure::not_built("umount"))
}
