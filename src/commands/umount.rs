//! `holdfast umount`: the end of a mount.

use std::path::PathBuf;

use clap::Args;

use holdfast_fs::mount::{Unmounted, unmount_path};

use super::Context;
use crate::outcome::{Done, Outcome};

/// End a mount
///
/// Waits two seconds for programs that have files of it open; then it goes out of sight, and they keep what they have
/// open. A mount whose process has died is taken away too. One that does not answer within five seconds is ended by
/// force: whoever waits for it gets an error.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast umount /mnt/recovery")]
pub struct UmountArgs {
    /// Where it is mounted
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,
}

/// Unmounts.
pub fn run(context: &Context<'_>, args: &UmountArgs) -> Outcome {
    let how = unmount_path(&args.mountpoint, &**context.terminal.clock())?;
    context.terminal.say(match how {
        Unmounted::Cleanly => "unmounted",
        Unmounted::Detached => {
            "unmounted; programs that have files of it open keep them until they close them"
        }
        Unmounted::AlreadyGone => "it was not mounted any more",
    })?;
    Ok(Done::Whole)
}
