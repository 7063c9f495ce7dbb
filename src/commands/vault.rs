//! `holdfast vault`: the places far away that keep copies.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use holdfast_backup::bandwidth::Rate;
use holdfast_store::clock::Deadline;
use holdfast_store::error::ErrorClass;
use holdfast_store::store::Store;
use holdfast_store::transfer::Transfer;
use holdfast_store::vault::ObjectInfo;
use holdfast_store::{StoreError, copy, names};
use serde::Serialize;

use super::Context;
use super::configured;
use super::scope::{ScopeArgs, find_points, parse_spec};
use super::upload::{self, Pushed, Upload, Wanted};
use crate::create::add_vaults;
use crate::deleted::Deleted;
use crate::open::{connect, open_store, unlock};
use crate::outcome::{Done, Failure, Outcome};
use crate::patience;
use crate::places::on_same_disk;
use crate::point_spec::PointSpec;
use crate::terminal::Terminal;
use crate::terminal::text::{self, Table};

mod accept;
pub mod keeping;
mod remove;

/// Manage the vaults that keep copies far away
///
/// A vault is a container of an object store or a directory on another disk. It learns nothing: neither names nor sizes
/// of what it keeps. Addresses are azure://ACCOUNT/NAME, azure+http://HOST:PORT/ACCOUNT/NAME, file:///PATH or a
/// plain path. Credentials are those of the environment, by the names that the service's own tools use.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast vault add azure://ACCOUNT/NAME
  holdfast vault list
  holdfast vault push                       every point that a vault does not have yet
  holdfast vault push latest docs@2026-11-20
  holdfast vault push --pending --group web  what is to be there by the configuration, and is not
  holdfast vault accept azure://ACCOUNT/NAME  it was put back from an older copy, on purpose
  holdfast vault add azure://ACCOUNT/NAME --lock-days 30
  holdfast vault undelete azure://ACCOUNT/NAME
  holdfast vault remove azure://ACCOUNT/NAME")]
pub struct VaultArgs {
    #[command(subcommand)]
    action: VaultAction,
}

impl VaultArgs {
    /// Whether a vault is written to.
    pub fn writes(&self) -> bool {
        !matches!(self.action, VaultAction::List)
    }
}

/// What to do with vaults.
#[derive(Debug, Subcommand)]
enum VaultAction {
    /// Prepare a vault and keep copies in it from now on
    Add {
        /// Its address
        url: String,
        #[command(flatten)]
        lock: keeping::LockArgs,
    },
    /// Show the vaults and what each holds
    List,
    /// Take a vault as it is now, although it is not what it was
    ///
    /// For a vault of which `status`, `check` or `vault push` say that it was rolled back, or that something was removed or withheld there,
    /// after whoever keeps it said why. Names the recovery points that are lost there; those that are still elsewhere the next push sends again.
    /// With `[soft-delete]` in the configuration it asks for a passphrase or the words of the recovery sheet.
    Accept {
        /// Its address
        url: String,
    },
    /// Bring back what somebody removed or replaced in a vault, from what its storage account keeps
    ///
    /// Where the account has soft delete or versions. What was removed on purpose, by `forget`, by expiry or by `prune`, does not come back. Bytes are
    /// compared with their names before they count.
    Undelete {
        /// Its address
        url: String,
    },
    /// Keep no more copies in a vault, and forget what it holds
    ///
    /// The vault itself is left as it is: `vault add` brings back what it holds. Where it alone holds recovery points or
    /// data that others need, this is refused without --force. With `[soft-delete]` in the configuration it asks for a passphrase or the words
    /// of the recovery sheet.
    Remove {
        /// Its address
        url: String,
        /// Also if it alone holds something: those recovery points are then in this vault only, and not listed any more
        #[arg(long)]
        force: bool,
    },
    /// Put recovery points into the vaults and wait until they are there
    Push {
        /// Which; all that are missing if none is named
        #[arg(value_name = "POINT")]
        points: Vec<OsString>,
        /// What is pending of the groups of the configuration, by the schedules of their online tiers (--group: of one), and the points
        /// that are named
        #[arg(long, conflicts_with_all = ["host", "source"])]
        pending: bool,
        /// Send at most so many bytes a second to all vaults together (K, M, G), or "unlimited", whatever the configuration says
        #[arg(long, value_name = "BYTES")]
        limit_upload: Option<Rate>,
        #[command(flatten)]
        scope: ScopeArgs,
    },
}

/// A vault as the list shows it.
#[derive(Debug, Serialize)]
pub struct VaultLine {
    /// Address, without secrets.
    pub address: String,
    /// Points that it holds whole.
    pub points: u64,
    /// Points that the store has and the vault lacks.
    pub points_missing: u64,
    /// Bytes of its packs.
    pub bytes: u64,
    /// What its service keeps of its own accord, where it is of a kind that keeps something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keeps: Option<keeping::KeepsLine>,
    /// For how many days what is put there is locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_days: Option<u16>,
    /// Why it cannot be reached, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Does it.
pub fn run(context: &Context<'_>, args: &VaultArgs) -> Outcome {
    match &args.action {
        VaultAction::Add { url, lock } => add(context, url, lock),
        VaultAction::List => list(context),
        VaultAction::Accept { url } => accept::accept(context, url),
        VaultAction::Undelete { url } => keeping::undelete(context, url),
        VaultAction::Remove { url, force } => remove::remove(context, url, *force),
        VaultAction::Push { points, scope, limit_upload, pending } => {
            let specs = points.iter().map(|point| parse_spec(point)).collect::<Result<Vec<_>, _>>()?;
            if specs.iter().any(|spec| !spec.path.is_empty()) {
                return Err(Failure::usage("only whole recovery points can be pushed, without :PATH"));
            }
            match pending {
                true => push_pending(context, &specs, scope, *limit_upload),
                false => push(context, &specs, scope, *limit_upload),
            }
        }
    }
}

fn add(context: &Context<'_>, url: &str, lock: &keeping::LockArgs) -> Outcome {
    let dir = context.settings.store()?;
    let head = Store::head(dir)?;
    let ring = unlock(context, &head)?;
    let (address, _) = connect(context, url)?;
    let done = add_vaults(context, dir, &head.vault, &ring, &[url.to_owned()])?;
    on_same_disk(dir, &address).iter().for_each(|told| context.terminal.warn(told));
    keeping::settle(context, url, lock)?;
    if done == Done::Whole {
        context.terminal.say(&format!(
            "vault {address} is ready; `holdfast vault push` copies the recovery points there"
        ))?;
    }
    Ok(done)
}

fn list(context: &Context<'_>) -> Outcome {
    let vaults = vaults(context)?;
    if context.terminal.json() {
        context.terminal.json_line(&vaults)?;
    } else {
        context.terminal.line(&render(&vaults))?;
    }
    Ok(Done::Whole)
}

fn vaults(context: &Context<'_>) -> Result<Vec<VaultLine>, Failure> {
    let store = open_store(context)?;
    let points = store.catalog().sound_points()?;
    let mut lines = Vec::new();
    for (no, address, transfer) in store.vaults() {
        let there = points.iter().filter(|point| point.vaults.contains(no)).count() as u64;
        let local = points.iter().filter(|point| point.staged && !point.vaults.contains(no)).count() as u64;
        let (bytes, trouble) = match look_at(&store, transfer) {
            Ok(bytes) => (bytes, None),
            Err(error) if error.class() == ErrorClass::Cancelled => return Err(error.into()),
            // The address stands beside it.
            Err(StoreError::Vault { source, .. }) => (0, Some(source.to_string())),
            Err(error) => (0, Some(error.to_string())),
        };
        let keeps = if trouble.is_none() { keeping::of(transfer)? } else { None };
        lines.push(VaultLine {
            address: address.clone(),
            points: there,
            points_missing: local,
            bytes,
            keeps,
            lock_days: transfer.lock_terms().map(|terms| terms.days),
            trouble,
        });
    }
    Ok(lines)
}

/// Bytes of the packs in a vault that shows this store's config and a key slot.
fn look_at(store: &Store, transfer: &Transfer) -> Result<u64, StoreError> {
    copy::prove_ours(store, transfer, patience::FOR_A_VAULT)?;
    let failed = |source| StoreError::Vault { vault: transfer.address(), source };
    if names::list(transfer, names::SLOTS, Deadline::NEVER).map_err(failed)?.is_empty() {
        return Err(StoreError::NotFound { what: "any key slot".into() });
    }
    let len = |pack: &ObjectInfo| names::pack_of(&pack.name).map(|_| pack.len);
    Ok(transfer.list_as(names::PACKS, Deadline::NEVER, len).map_err(failed)?.iter().sum())
}

fn push(context: &Context<'_>, specs: &[PointSpec], scope: &ScopeArgs, limit: Option<Rate>) -> Outcome {
    let store = open_store(context)?;
    has_vaults(&store)?;
    let also = match specs {
        [] => scope.select(Deleted::load(store.dir()).leave_out(store.points()?)),
        _ => find_points(context, &store, specs, &scope.scope())?,
    };
    push_wanted(context, &store, &Wanted { also, all: specs.is_empty(), limit, ..Wanted::default() })
}

fn push_pending(
    context: &Context<'_>,
    specs: &[PointSpec],
    scope: &ScopeArgs,
    limit: Option<Rate>,
) -> Outcome {
    let pending = configured::groups(context, scope.group.as_deref(), "name recovery points")?;
    let store = open_store(context)?;
    has_vaults(&store)?;
    let also = find_points(context, &store, specs, &scope.scope())?;
    push_wanted(context, &store, &Wanted { pending, also, limit, ..Wanted::default() })
}

fn has_vaults(store: &Store) -> Result<(), Failure> {
    if store.vaults().is_empty() {
        return Err(Failure::failed("the store has no vault").hint("`holdfast vault add URL` adds one"));
    }
    Ok(())
}

fn push_wanted(context: &Context<'_>, store: &Store, wanted: &Wanted<'_>) -> Outcome {
    let monitor = context.terminal.monitor();
    let mut upload = Upload::new(context, store, &monitor);
    let done = upload.push(wanted);
    let (pushed, failures) = upload.told();
    drop(monitor);
    show_pushed(context.terminal, &pushed)?;
    done?;
    upload::end(context, failures)
}

fn show_pushed(terminal: &Terminal, pushed: &Pushed) -> Result<(), Failure> {
    if terminal.json() {
        // A line for each: there may be many.
        for id in &pushed.vaulted {
            let line = serde_json::json!({ "message_type": "vaulted", "snapshot_id": id.hex() });
            terminal.json_line(&line)?;
        }
        return terminal.json_line(pushed);
    }
    terminal.say(&format!(
        "{} vaulted, {} sent ({})",
        text::count(pushed.points, "recovery point"),
        text::count(pushed.packs, "pack"),
        text::size(pushed.bytes)
    ))
}

fn render(vaults: &[VaultLine]) -> String {
    if vaults.is_empty() {
        return "no vaults; `holdfast vault add URL` adds one".to_owned();
    }
    let mut table = Table::new(&["Address", ">Points", ">Missing", ">Size", "State"]);
    for vault in vaults {
        table.row([
            vault.address.clone(),
            vault.points.to_string(),
            vault.points_missing.to_string(),
            text::size(vault.bytes),
            vault.trouble.clone().unwrap_or_else(|| "reachable".to_owned()),
        ]);
    }
    let mut text = table.render();
    for vault in vaults {
        let locked = vault.lock_days.map(|days| format!("; what is put is locked for {days} days"));
        if let Some(keeps) = &vault.keeps {
            text += &format!("\n{}{}", keeping::sentence(&vault.address, keeps), locked.unwrap_or_default());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_that_does_not_answer_is_listed_with_the_reason() {
        let vault = |trouble| VaultLine {
            address: "azure://a/b".into(),
            points: 3,
            points_missing: 1,
            bytes: 1024,
            keeps: None,
            lock_days: None,
            trouble,
        };
        let text = render(&[vault(None), vault(Some("no answer in time".into()))]);
        assert!(text.contains("azure://a/b       3        1  1.000 KiB  reachable\n"), "{text}");
        assert!(text.ends_with("no answer in time"), "{text}");
        assert!(render(&[]).contains("vault add"));
    }
}
