//! `holdfast prune`: space given back.

use clap::Args;
use holdfast_store::monitor::Monitor;
use holdfast_store::reclaim::{self, Judged, Place, ReclaimPlan, Unopened, Verdict};
use holdfast_store::store::{Store, StoreLock};
use holdfast_store::{StoreError, copy};
use serde::Serialize;

use super::Context;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Kind, Outcome};
use crate::terminal::Terminal;
use crate::terminal::text::{self, Table};

/// Free the space that no recovery point needs
///
/// Packs that no point needs are removed; packs of the local store that are mostly unneeded are written anew. The store
/// is in use meanwhile: a backup that begins then waits for nobody and ends with exit code 11.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast prune --dry-run                  what would be freed
  holdfast prune
  holdfast prune --local                    vaults stay as they are")]
pub struct PruneArgs {
    /// Say what would be done, and remove nothing; what is found missing or damaged meanwhile is noted
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Free space in the local store only, and in no vault
    #[arg(long)]
    local: bool,
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
    /// Packs that were to be written anew and stay, because something in them that points need cannot be read.
    pub packs_unreadable: u64,
    /// Bytes that become free.
    pub bytes_freed: u64,
    /// Bytes that stay.
    pub bytes_kept: u64,
}

/// A pack that does not stay as it is.
#[derive(Debug, Serialize)]
struct PackLine<'a> {
    /// Always `pack`.
    message_type: &'static str,
    /// `staging` or a vault's address.
    place: &'a str,
    pack: String,
    /// `remove` or `rewrite`.
    action: &'static str,
    reason: String,
    /// Bytes of the pack.
    bytes: u64,
    /// Bytes that become free.
    bytes_freed: u64,
}

/// Prunes.
pub fn run(context: &Context<'_>, args: &PruneArgs) -> Outcome {
    let store = open_store(context)?;
    let lock = store.lock()?;
    prune(context, &store, &lock, args.dry_run, args.local)
}

/// Prunes an open store whose lock is held; `forget --prune` ends with this. A vault that fails does not keep the others from it.
pub fn prune(context: &Context<'_>, store: &Store, lock: &StoreLock, dry_run: bool, local: bool) -> Outcome {
    let mut sum = Pruned { message_type: "summary", dry_run, ..Pruned::default() };
    let mut plans = vec![prune_place(context, store, lock, (Place::Staging, "staging"), &mut sum)?];
    let mut failed = None;
    for (no, address, _) in store.vaults().iter().filter(|_| !local) {
        match prune_place(context, store, lock, (Place::Vault(*no), address), &mut sum) {
            Ok(plan) => plans.push(plan),
            Err(failure) if failure.kind != Kind::Failed => return Err(failure),
            // The last one is told when the program ends.
            Err(failure) => {
                failed.replace(failure).iter().for_each(|first| context.terminal.warn(&first.message))
            }
        }
    }
    // What every place was asked for has to be known.
    if !dry_run && !local && failed.is_none() {
        reclaim::forget_missed(store, &plans)?;
    }
    show(context.terminal, &sum)?;
    match failed {
        Some(failure) => Err(failure),
        None if sum.packs_unreadable > 0 => Ok(Done::Partial),
        None => Ok(Done::Whole),
    }
}

fn prune_place(
    context: &Context<'_>,
    store: &Store,
    lock: &StoreLock,
    (place, name): (Place, &str),
    sum: &mut Pruned,
) -> Result<ReclaimPlan, Failure> {
    let monitor = context.terminal.monitor();
    learn(store, place, lock, &*monitor)?;
    let plan = reclaim::plan(store, place, &*monitor)?;
    if sum.dry_run {
        drop(monitor);
        foresee(&plan, sum);
        show_plan(context.terminal, name, &plan)?;
    } else {
        carry_out(store, &plan, sum, &*monitor)?;
    }
    Ok(plan)
}

/// Makes the catalog know all that a place holds before anything there is judged: a point that it does not know of, because
/// the catalog was made anew or another machine put the point there, needs its packs as much as the others do.
fn learn(store: &Store, place: Place, _lock: &StoreLock, monitor: &dyn Monitor) -> Result<(), StoreError> {
    match place {
        Place::Staging => store.reconcile(monitor).map(drop),
        Place::Vault(no) => copy::load_catalog(store, no, store.vault(no)?, monitor),
    }
}

fn foresee(plan: &ReclaimPlan, sum: &mut Pruned) {
    sum.packs_removed += (plan.with(Verdict::Delete).count() + plan.unopened.len()) as u64;
    sum.packs_rewritten += plan.with(Verdict::Rewrite).count() as u64;
    let all: u64 = plan.packs.iter().map(|judged| judged.pack.entry.len).sum();
    let freed: u64 = plan.packs.iter().map(freed).sum();
    sum.bytes_freed += freed + plan.unopened.iter().map(|pack| pack.len).sum::<u64>();
    sum.bytes_kept += all - freed;
}

/// Bytes that become free of a pack, about: how far what stays of it compresses is known only afterwards.
fn freed(judged: &Judged) -> u64 {
    let len = judged.pack.entry.len;
    match judged.verdict {
        Verdict::Keep => 0,
        Verdict::Delete => len,
        Verdict::Rewrite => {
            let part = u128::from(len) * u128::from(judged.live) / u128::from(judged.total.max(1));
            len.saturating_sub(u64::try_from(part).unwrap_or(len))
        }
    }
}

fn carry_out(
    store: &Store,
    plan: &ReclaimPlan,
    sum: &mut Pruned,
    monitor: &dyn Monitor,
) -> Result<(), Failure> {
    let done = reclaim::execute(store, plan, monitor)?;
    sum.packs_removed += done.packs - done.packs_rewritten + done.unopened;
    sum.packs_rewritten += done.packs_rewritten;
    sum.packs_unreadable += done.packs_unreadable;
    sum.bytes_freed += done.bytes.saturating_sub(done.bytes_rewritten) + done.unopened_bytes;
    let all: u64 = plan.packs.iter().map(|judged| judged.pack.entry.len).sum();
    sum.bytes_kept += all - done.bytes + done.bytes_rewritten;
    Ok(())
}

fn show_plan(terminal: &Terminal, place: &str, plan: &ReclaimPlan) -> Result<(), Failure> {
    let judged = plan.packs.iter().filter_map(|judged| pack_line(place, judged));
    let going: Vec<PackLine<'_>> =
        judged.chain(plan.unopened.iter().map(|pack| unopened_line(place, pack))).collect();
    if terminal.json() {
        return going.iter().try_for_each(|line| terminal.json_line(line));
    }
    if going.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["", "Pack", "Where", ">Size", ">Freed", "Why"]);
    for line in going {
        table.row([
            line.action.to_owned(),
            line.pack.get(..8).unwrap_or_default().to_owned(),
            line.place.to_owned(),
            text::size(line.bytes),
            text::size(line.bytes_freed),
            line.reason,
        ]);
    }
    terminal.say(&table.render())
}

fn pack_line<'a>(place: &'a str, judged: &Judged) -> Option<PackLine<'a>> {
    let (action, reason) = match judged.verdict {
        Verdict::Keep => return None,
        Verdict::Delete if judged.bad && judged.live > 0 => {
            ("remove", "it is damaged, and other packs have what is needed".to_owned())
        }
        Verdict::Delete => ("remove", "no recovery point needs it".to_owned()),
        Verdict::Rewrite if judged.bad => ("rewrite", "it is damaged".to_owned()),
        Verdict::Rewrite => {
            let percent = u128::from(judged.live) * 100 / u128::from(judged.total.max(1));
            ("rewrite", format!("recovery points need {percent} % of it"))
        }
    };
    let (pack, bytes) = (judged.pack.entry.id.hex(), judged.pack.entry.len);
    Some(PackLine { message_type: "pack", place, pack, action, reason, bytes, bytes_freed: freed(judged) })
}

fn unopened_line<'a>(place: &'a str, pack: &Unopened) -> PackLine<'a> {
    PackLine {
        message_type: "pack",
        place,
        pack: pack.id.hex(),
        action: "remove",
        reason: "it does not open, and other packs have what is needed".to_owned(),
        bytes: pack.len,
        bytes_freed: pack.len,
    }
}

fn show(terminal: &Terminal, pruned: &Pruned) -> Result<(), Failure> {
    if terminal.json() { terminal.json_line(pruned) } else { terminal.say(&sentence(pruned)) }
}

fn sentence(pruned: &Pruned) -> String {
    let (remove, rewrite, free) = match pruned.dry_run {
        true => ("would remove", "rewrite", "free"),
        false => ("removed", "rewrote", "freed"),
    };
    let damaged = match pruned.packs_unreadable {
        0 => String::new(),
        n => format!(", with {} of which something that is needed cannot be read", text::count(n, "pack")),
    };
    format!(
        "{remove} {}, {rewrite} {}, {free} {}; {} stay{damaged}",
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
