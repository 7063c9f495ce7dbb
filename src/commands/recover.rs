//! `holdfast recover`: the worst day, on a machine that has nothing.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::outcome::{Failure, Outcome};

/// Rebuild a store from a vault on a machine that has nothing
///
/// Needs the vault's address and a passphrase or the recovery sheet's 24 words. Makes a store that knows all recovery
/// points within seconds and fetches their data on first touch; with --mount the tree is there to copy from. Nothing in
/// the vault is changed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast recover azure://ACCOUNT/NAME --store /srv/holdfast
  holdfast recover file:///mnt/usb/vault --store /tmp/store --mount /mnt/recovery")]
pub struct RecoverArgs {
    /// The vault's address, as on the recovery sheet
    url: String,
    /// Mount the recovery points here afterwards
    #[arg(long, value_name = "MNT")]
    mount: Option<PathBuf>,
    /// Make a key for this machine, for later commands
    #[arg(long)]
    machine_key: bool,
}

/// Recovers.
pub fn run(context: &Context<'_>, _args: &RecoverArgs) -> Outcome {
    let store = context.settings.store()?;
    let occupied = std::fs::read_dir(store).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        let failure = Failure::failed(format!("{} is not empty", store.display()));
        return Err(failure.hint("name a new directory with --store"));
    }
    let _secret = context.settings.secrets.passphrase_or_words(context.terminal)?;
    Err(Failure::not_built("recover"))
}
