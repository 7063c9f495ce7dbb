//! `holdfast prune`: space given back.

use clap::Args;
use holdfast_store::catalog::VaultNo;
use holdfast_store::copy;
use holdfast_store::reclaim::{
    self, Judged, Place, Progress, ReclaimPlan, Reclaimed, Terms, Unopened, Verdict,
};
use holdfast_store::store::Store;
use serde::Serialize;

use super::Context;
use super::forget::remove_due;
use super::key::owner::{self, Act};
use crate::delay::{self, Delay};
use crate::deleted::Deleted;
use crate::expiring;
use crate::open::open_store;
use crate::outcome::{Done, Failure, Kind, Outcome};
use crate::terminal::Terminal;
use crate::terminal::text::{self, Table};

/// Free the space that no recovery point needs
///
/// Packs that no point needs are removed, and packs that are mostly unneeded are written anew. No backup waits for that: what points need is
/// looked up while others may write, and packs go in turns of seconds, between which a backup begins. To vaults any number of machines may put
/// points, and free space there, at the same time. What no point of a vault needs is condemned first. It goes when every upload that was under way then
/// has ended, and two days later; each run goes on where the last one ended, whichever machine that was on.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast prune --dry-run                  what would be freed
  holdfast prune
  holdfast prune --now                      what may go from vaults goes in this run
  holdfast prune --local                    vaults stay as they are")]
pub struct PruneArgs {
    /// Say what would be done, and remove nothing; what is found missing or damaged meanwhile is noted
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Free space in the local store only, and in no vault
    #[arg(long)]
    local: bool,
    /// Free space in vaults only
    #[arg(long, conflicts_with = "local")]
    vaults: bool,
    /// What may go from vaults goes now, however much that is; uploads that are under way are waited for all the same. With `[soft-delete]` in the
    /// configuration it asks for a passphrase or the words of the recovery sheet
    #[arg(long, conflicts_with = "local")]
    now: bool,
}

/// Where and how space is freed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Nothing is removed.
    pub dry_run: bool,
    /// In no vault.
    pub local: bool,
    /// In vaults only.
    pub vaults: bool,
    /// At once in vaults.
    pub now: bool,
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
    /// What is on its way in vaults.
    pub vaults: Vec<VaultPruned>,
}

/// How far a vault is.
#[derive(Debug, Serialize)]
pub struct VaultPruned {
    /// The vault.
    pub address: String,
    /// Packs that this run condemned.
    pub packs_condemned: u64,
    /// Bytes of them.
    pub bytes_condemned: u64,
    /// Packs that may go and are still there.
    pub packs_to_go: u64,
    /// Bytes of them.
    pub bytes_to_go: u64,
    /// How long the first of them stays.
    pub seconds_to_go: Option<u64>,
    /// Packs that may go and are locked there.
    pub packs_locked: u64,
    /// Bytes of them.
    pub bytes_locked: u64,
    /// What keeps the first of them that goes: a moment, or in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<String>,
    /// Locks that this run set anew.
    pub locks_set: u64,
    /// Locks that run out and that the next run sets anew.
    pub locks_left: u64,
    /// Uploads that have to end first.
    pub awaited: Vec<AwaitedUpload>,
    /// Points whose uploads were silent for too long, and have to begin again.
    pub revoked: Vec<String>,
}

/// An upload that has to end before anything more goes.
#[derive(Debug, Serialize)]
pub struct AwaitedUpload {
    /// The recovery point that it brings.
    pub point: String,
    /// For how long it gave no sign of life, if the vault tells.
    pub silent_seconds: Option<u64>,
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
    let PruneArgs { dry_run, local, vaults, now } = *args;
    if now && !dry_run {
        owner::agrees(context, store.dir(), Act::FreeNow)?;
    }
    prune(context, &store, Manner { dry_run, local, vaults, now })
}

/// Prunes an open store; `forget --prune` ends with this. A vault that fails does not keep the others from it.
pub fn prune(context: &Context<'_>, store: &Store, manner: Manner) -> Outcome {
    let mut sum = Pruned { message_type: "summary", dry_run: manner.dry_run, ..Pruned::default() };
    // A configuration that cannot be had ends this before anything is removed.
    let terms = terms(context, store, manner)?;
    let mut removed = Done::Whole;
    if !manner.dry_run {
        match remove_due(context, store, manner.local) {
            Err(failure) if failure.kind == Kind::Failed => {
                context.terminal.warn(&failure.message);
                removed = Done::Partial;
            }
            // The next run finds it due still.
            Err(failure) if failure.kind == Kind::Locked => {
                context
                    .terminal
                    .warn(&format!("what was deleted and is due stays for now: {}", failure.message));
            }
            due => removed = due?,
        }
    }
    let mut plans = Vec::new();
    if !manner.vaults {
        plans.push(prune_staging(context, store, &mut sum)?);
    }
    let mut failed = None;
    for (no, address, _) in store.vaults().iter().filter(|_| !manner.local) {
        match prune_vault(context, store, (*no, address), &terms, &mut sum) {
            Ok(plan) => plans.extend(plan),
            Err(failure) if failure.kind != Kind::Failed => return Err(failure),
            // The last one is told when the program ends.
            Err(failure) => {
                failed.replace(failure).iter().for_each(|first| context.terminal.warn(&first.message))
            }
        }
    }
    // What every place was asked for has to be known.
    if !manner.dry_run && failed.is_none() && plans.len() == 1 + store.vaults().len() {
        reclaim::forget_missed(store, &plans)?;
    }
    show(context.terminal, &sum)?;
    if manner.dry_run && !(manner.local || manner.now || store.vaults().is_empty() || context.terminal.json())
    {
        let grace = text::duration(terms.grace.as_secs());
        context
            .terminal
            .say(&format!("from vaults it goes {grace} after it was condemned, or with --now"))?;
    }
    match failed {
        Some(failure) => Err(failure),
        None if sum.packs_unreadable > 0 => Ok(Done::Partial),
        None if removed == Done::Partial => Ok(removed),
        None => Ok(Done::Whole),
    }
}

/// As the configuration has it, if there is one, but no less patient than before.
fn terms(context: &Context<'_>, store: &Store, manner: Manner) -> Result<Terms, Failure> {
    let config = context.settings.config_if_any()?;
    let usual = config.map(|config| config.reclaim_terms).unwrap_or_default();
    let terms = delay::holding(store.dir(), Delay::said(config))?.terms(usual);
    if manner.now {
        return Ok(Terms { silence: usual.silence, ..Terms::AT_ONCE });
    }
    if terms != usual && !manner.local {
        context.terminal.warn(
            "what may go from vaults goes no faster than it did before, though the configuration says so: `holdfast config accept`, with the \
             owner's word, agrees to that",
        );
    }
    Ok(terms)
}

/// The store's lock is held no longer than this takes: vaults may let wait.
fn prune_staging(context: &Context<'_>, store: &Store, sum: &mut Pruned) -> Result<ReclaimPlan, Failure> {
    let monitor = context.terminal.monitor();
    if sum.dry_run {
        let plan = reclaim::plan(store, Place::Staging, &*monitor)?;
        drop(monitor);
        foresee(&plan, sum);
        show_plan(context.terminal, "staging", &plan)?;
        return Ok(plan);
    }
    let (plan, done) = reclaim::free_staging(store, &*monitor)?;
    let before: u64 = plan.packs.iter().map(|judged| judged.pack.entry.len).sum();
    count(&done, done.bytes_rewritten, (before + done.bytes_rewritten).saturating_sub(done.bytes), sum);
    Ok(plan)
}

fn prune_vault(
    context: &Context<'_>,
    store: &Store,
    (no, address): (VaultNo, &str),
    terms: &Terms,
    sum: &mut Pruned,
) -> Result<Option<ReclaimPlan>, Failure> {
    let monitor = context.terminal.monitor();
    if sum.dry_run {
        copy::load_catalog(store, no, store.vault(no)?, &*monitor)?;
        let plan = reclaim::plan(store, Place::Vault(no), &*monitor)?;
        drop(monitor);
        foresee(&plan, sum);
        show_plan(context.terminal, address, &plan)?;
        return Ok(Some(plan));
    }
    // What waits for its lock to run out is not locked anew, unless somebody holds it.
    let held = store.holds()?;
    let mut leaving = expiring::load(store.dir());
    leaving.extend(Deleted::load(store.dir()).ids());
    leaving.retain(|id| !held.contains_key(id));
    let progress = reclaim::advance(store, no, terms, &leaving, &*monitor)?;
    drop(monitor);
    let there = store.catalog().packs()?.into_iter().filter(|row| row.vaults.contains(&no));
    let kept = there.map(|row| row.entry.len).sum();
    count(&progress.removed, 0, kept, sum);
    sum.packs_rewritten += progress.packs_rewritten;
    sum.vaults.push(vault_line(address, &progress));
    Ok(progress.plan)
}

fn vault_line(address: &str, progress: &Progress) -> VaultPruned {
    let awaited = progress.awaited.iter().map(|awaited| AwaitedUpload {
        point: awaited.session.hex(),
        silent_seconds: awaited.silent_for.map(|time| time.as_secs()),
    });
    VaultPruned {
        address: address.to_owned(),
        packs_condemned: progress.condemned.0,
        bytes_condemned: progress.condemned.1,
        packs_to_go: progress.to_go.0,
        bytes_to_go: progress.to_go.1,
        seconds_to_go: progress.ripe_in.map(|time| time.as_secs()),
        packs_locked: progress.still_locked.packs,
        bytes_locked: progress.still_locked.bytes,
        locked: progress.still_locked.first.map(|lock| lock.to_string()),
        locks_set: progress.locks_set,
        locks_left: progress.locks_left,
        awaited: awaited.collect(),
        revoked: progress.revoked.iter().map(holdfast_store::id::RecoveryPointId::hex).collect(),
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

fn count(done: &Reclaimed, bytes_rewritten: u64, bytes_kept: u64, sum: &mut Pruned) {
    sum.packs_removed += done.packs - done.packs_rewritten + done.unopened;
    sum.packs_rewritten += done.packs_rewritten;
    sum.packs_unreadable += done.packs_unreadable;
    sum.bytes_freed += done.bytes.saturating_sub(bytes_rewritten) + done.unopened_bytes;
    sum.bytes_kept += bytes_kept;
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
    if terminal.json() {
        return terminal.json_line(pruned);
    }
    pruned.vaults.iter().flat_map(sentences).try_for_each(|line| terminal.say(&line))?;
    terminal.say(&sentence(pruned))
}

/// What somebody has to know of a vault.
fn sentences(vault: &VaultPruned) -> Vec<String> {
    let (at, mut lines) = (&vault.address, Vec::new());
    for point in &vault.revoked {
        let short = point.get(..8).unwrap_or_default();
        lines.push(format!(
            "vault {at}: the upload of {short} was silent for too long and is given up for dead; the next push begins it again"
        ));
    }
    if vault.packs_condemned > 0 {
        let packs = text::count(vault.packs_condemned, "pack");
        lines.push(format!("vault {at}: {packs} ({}) condemned", text::size(vault.bytes_condemned)));
    }
    for upload in &vault.awaited {
        let short = upload.point.get(..8).unwrap_or_default();
        let silent = match upload.silent_seconds {
            Some(seconds) => format!(", which gave the last sign of life {} ago", text::duration(seconds)),
            None => String::new(),
        };
        lines.push(format!("vault {at}: the upload of {short} has to end first{silent}"));
    }
    if vault.packs_to_go > 0 {
        let (packs, size) = (text::count(vault.packs_to_go, "pack"), text::size(vault.bytes_to_go));
        let when = match vault.seconds_to_go {
            Some(0) | None => "some each day".to_owned(),
            Some(seconds) => format!("in {}", text::duration(seconds)),
        };
        lines
            .push(format!("vault {at}: {packs} ({size}) may go {when}; `holdfast prune --now` removes them"));
    }
    if let Some(locked) = &vault.locked {
        let (packs, size) = (text::count(vault.packs_locked, "pack"), text::size(vault.bytes_locked));
        lines.push(format!(
            "vault {at}: {packs} ({size}) may go and stay, {locked}; a later prune removes them"
        ));
    }
    if vault.locks_set + vault.locks_left > 0 {
        let left = match vault.locks_left {
            0 => String::new(),
            left => format!(", {left} left to the next prune"),
        };
        lines.push(format!("vault {at}: {} set anew{left}", text::count(vault.locks_set, "lock")));
    }
    lines
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
