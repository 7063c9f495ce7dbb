//! `holdfast prune`: space given back.

use clap::Args;
use holdfast_store::store::Store;
use serde::Serialize;

use super::Context;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::{Terminal, text};

/// Free the space that no recovery point needs
///
/// Packs that no point needs are removed; packs that are mostly unneeded are written anew. Backups may go on meanwhile.
/// What was removed stays for a grace time before its space is free.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast prune --dry-run                  what would be freed
  holdfast prune")]
pub struct PruneArgs {
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// What a prune does or did.
#[derive(Debug, Default, Serialize)]
pub struct Pruned {
    /// Always `summary`.
    pub message_type: &'static str,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Packs that go whole.
    pub packs_removed: u64,
    /// Packs that are written anew.
    pub packs_rewritten: u64,
    /// Bytes that become free.
    pub bytes_freed: u64,
    /// Bytes that stay.
    pub bytes_kept: u64,
}

/// Prunes.
pub fn run(context: &Context<'_>, args: &PruneArgs) -> Outcome {
    let store = open_store(context)?;
    prune(context, &store, args.dry_run)
}

/// Prunes an open store; `forget --prune` ends with this.
pub fn prune(context: &Context<'_>, store: &Store, dry_run: bool) -> Outcome {
    show(context.terminal, &reclaim(store, dry_run)?)?;
    Ok(Done::Whole)
}

fn reclaim(_store: &Store, _dry_run: bool) -> Result<Pruned, Failure> {
    Err(Failure::not_built("prune"))
}

fn show(terminal: &Terminal, pruned: &Pruned) -> Result<(), Failure> {
    if terminal.json() { terminal.json_line(pruned) } else { terminal.say(&sentence(pruned)) }
}

fn sentence(pruned: &Pruned) -> String {
    let (remove, rewrite, free) = match pruned.dry_run {
        true => ("would remove", "rewrite", "free"),
        false => ("removed", "rewrote", "freed"),
    };
    format!(
        "{remove} {}, {rewrite} {}, {free} {}; {} stay",
        text::count(pruned.packs_removed, "pack"),
        pruned.packs_rewritten,
        text::size(pruned.bytes_freed),
        text::size(pruned.bytes_kept)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_would() {
        let pruned = Pruned { dry_run: true, packs_removed: 1, bytes_freed: 1024, ..Pruned::default() };
        assert_eq!(sentence(&pruned), "would remove 1 pack, rewrite 0, free 1.000 KiB; 0 B stay");
        let pruned = Pruned { dry_run: false, ..pruned };
        assert_eq!(sentence(&pruned), "removed 1 pack, rewrote 0, freed 1.000 KiB; 0 B stay");
    }
}
