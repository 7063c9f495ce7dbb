//! What a vault's service keeps of its own accord: how it is told, how a vault is set to lock what is put, and `vault undelete`.

use clap::Args;
use holdfast_store::error::ErrorClass;
use holdfast_store::regain::{self, Regained};
use holdfast_store::store::{Settings as StoreSettings, VaultSetting};
use holdfast_store::transfer::Transfer;
use holdfast_store::vault::VaultError;
use holdfast_store::vault::keeper::{Keeps, LockTerms};
use serde::Serialize;

use crate::commands::Context;
use crate::commands::key::owner::{self, Act};
use crate::open::{connect, open_store};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::text;

/// How what is put into a vault is locked.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Lock packs, points and index objects for so many days when they are put, and anew as long as they are needed; 0: no more. For Azure, where the
    /// container has version-level immutability. Fewer than before, with `[soft-delete]` in the configuration, takes a passphrase or the words
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(0..=i64::from(LockTerms::DAYS_MAX)))]
    lock_days: Option<u16>,
    /// Lock so that nobody can shorten it, the owner of the account neither
    #[arg(long, requires = "lock_days")]
    lock_for_good: bool,
}

/// What a vault keeps, with `--json`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KeepsLine {
    /// For how many days what is removed can be brought back; nothing if it is not known.
    removed_days: Option<u16>,
    /// Whether versions are kept of what is replaced or removed; nothing if it is not known.
    versions: Option<bool>,
    /// Whether objects can be locked; nothing if it is not known.
    locks: Option<bool>,
}

impl From<Keeps> for KeepsLine {
    fn from(keeps: Keeps) -> Self {
        Self { removed_days: keeps.removed_days, versions: keeps.versions, locks: keeps.locks }
    }
}

/// What a vault keeps, in words.
pub fn sentence(address: &str, keeps: &KeepsLine) -> String {
    let word = |it: Option<bool>| match it {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    };
    let removed = match keeps.removed_days {
        Some(0) => "no".to_owned(),
        Some(days) => format!("{days} days"),
        None => "not known".to_owned(),
    };
    format!(
        "{address}: soft delete: {removed}; versions: {}; objects can be locked: {}",
        word(keeps.versions),
        word(keeps.locks)
    )
}

/// What to do where nothing is kept, as far as it is known.
pub fn advice(address: &str, keeps: &Keeps) -> Option<String> {
    let account =
        address.strip_prefix("azure://").and_then(|rest| rest.split('/').next()).unwrap_or("ACCOUNT");
    let what = match keeps {
        keeps if keeps.is_nothing() => "keeps nothing of what is removed there",
        // An object from before versions were switched on tells nothing of them.
        Keeps { removed_days: Some(0), versions: None, locks: Some(false) | None } => {
            "has no soft delete, and it is not known to keep versions"
        }
        _ => return None,
    };
    Some(format!(
        "{address} {what}: who may remove can destroy what is there for good, if so. `az storage account blob-service-properties update \
         --account-name {account} --enable-delete-retention true --delete-retention-days 14 --enable-versioning true` changes that"
    ))
}

/// What the vault that was just added keeps is told, and it is set to lock, if somebody said so.
pub fn settle(context: &Context<'_>, url: &str, args: &LockArgs) -> Result<(), Failure> {
    let (address, transfer) = connect(context, url)?;
    let keeps = match transfer.keeps() {
        Err(VaultError::Cancelled) => return Err(Failure::interrupted()),
        // The vault was added; what is not known is no error.
        keeps => keeps.unwrap_or_else(|_| Some(Keeps::default())),
    };
    if let Some(keeps) = keeps {
        context.terminal.say(&sentence(&address, &keeps.into()))?;
        advice(&address, &keeps).iter().for_each(|told| context.terminal.warn(told));
    }
    let Some(days) = args.lock_days else { return Ok(()) };
    if days > 0 {
        may_lock(context, &address, keeps)?;
    }
    let (dir, for_good) = (context.settings.store()?, days > 0 && args.lock_for_good);
    let shortens = |vault: &VaultSetting| {
        vault.url == address && (vault.lock_days > Some(days) || vault.lock_for_good && !for_good)
    };
    if StoreSettings::load(dir)?.vaults.iter().any(shortens) {
        owner::agrees(context, dir, Act::ShortenLocks)?;
    }
    StoreSettings::change(dir, |settings| {
        for vault in settings.vaults.iter_mut().filter(|vault| vault.url == address) {
            vault.lock_days = (days > 0).then_some(days);
            vault.lock_for_good = for_good;
        }
        Ok(())
    })?;
    Ok(())
}

fn may_lock(context: &Context<'_>, address: &str, keeps: Option<Keeps>) -> Result<(), Failure> {
    match keeps.map(|keeps| keeps.locks) {
        Some(Some(true)) => Ok(()),
        Some(None) => {
            context.terminal.warn(&format!(
                "{address}: it is not known whether objects can be locked there; if they cannot, nothing can be put: `--lock-days 0` ends that"
            ));
            Ok(())
        }
        Some(Some(false)) => Err(Failure::failed(format!(
            "{address} was added, and locks nothing: its data container has no version-level immutability"
        ))
        .hint("docs/operations.md, \"What the storage account keeps\", says how to switch it on")),
        None => Err(Failure::failed(format!(
            "{address} was added, and locks nothing: a vault of its kind cannot"
        ))),
    }
}

/// What a vault keeps, for a list of vaults. That it cannot be asked is no trouble here.
pub fn of(transfer: &Transfer) -> Result<Option<KeepsLine>, Failure> {
    match transfer.keeps() {
        Ok(keeps) => Ok(keeps.map(KeepsLine::from)),
        Err(VaultError::Cancelled) => Err(Failure::interrupted()),
        Err(_) => Ok(None),
    }
}

/// What `vault undelete --json` prints.
#[derive(Debug, Serialize)]
struct RegainedLine<'a> {
    /// Always `undeleted`.
    message_type: &'static str,
    vault: &'a str,
    packs: u64,
    indexes: u64,
    points: u64,
    generations: u64,
    bytes: u64,
    lost: u64,
    points_removed: u64,
    packs_removed: u64,
}

/// Brings back what was removed or replaced in a vault without anybody's word.
pub fn undelete(context: &Context<'_>, url: &str) -> Outcome {
    let store = open_store(context)?;
    let address = connect(context, url).map_or_else(|_| url.to_owned(), |(address, _)| address);
    let Some((no, address, transfer)) = store.vaults().iter().find(|vault| vault.1 == address) else {
        return Err(Failure::failed(format!("the store has no vault {address}"))
            .hint("`holdfast vault list` shows the vaults there are"));
    };
    let monitor = context.terminal.monitor();
    let regained = regain::regain(&store, *no, &*monitor).map_err(|e| match e.class() {
        ErrorClass::Denied => Failure::from(e).hint(
            "the credential must be allowed to read, list, create and write there, and to delete where something was replaced; that of a writer is not",
        ),
        _ => e.into(),
    })?;
    holdfast_store::copy::load_catalog(&store, *no, transfer, &*monitor)?;
    drop(monitor);
    show(context, address, &regained)?;
    Ok(if regained.lost > 0 { Done::Partial } else { Done::Whole })
}

fn show(context: &Context<'_>, address: &str, regained: &Regained) -> Result<(), Failure> {
    let Regained { packs, indexes, points, generations, bytes, lost, points_removed, packs_removed } =
        *regained;
    if context.terminal.json() {
        let message_type = "undeleted";
        return context.terminal.json_line(&RegainedLine {
            message_type,
            vault: address,
            packs,
            indexes,
            points,
            generations,
            bytes,
            lost,
            points_removed,
            packs_removed,
        });
    }
    let gone = match lost {
        0 => String::new(),
        lost => {
            format!(
                "; of {} nothing that is kept is what it was, or can be put back",
                text::count(lost, "object")
            )
        }
    };
    let removed = match points_removed + packs_removed {
        0 => String::new(),
        _ => format!(
            "; {} and {} stay away, because the vault says that they were removed",
            text::count(points_removed, "recovery point"),
            text::count(packs_removed, "pack")
        ),
    };
    context.terminal.say(&format!(
        "vault {address}: {}, {} and {} are back ({}){gone}{removed}; `holdfast check` says whether all is there",
        text::count(packs, "pack"),
        text::count(points, "recovery point"),
        text::count(indexes + generations, "other object"),
        text::size(bytes)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_known_is_said_to_be_not_known_and_advice_is_given_only_on_what_is() {
        let unknown = Keeps::default();
        assert_eq!(
            sentence("azure://a/b", &unknown.into()),
            "azure://a/b: soft delete: not known; versions: not known; objects can be locked: not known"
        );
        assert_eq!(advice("azure://a/b", &unknown), None);
        let none = Keeps { removed_days: Some(0), versions: Some(false), ..unknown };
        let not_known = advice("azure://acc/b", &Keeps { versions: None, ..none }).unwrap();
        assert!(
            !not_known.contains("keeps nothing") && not_known.contains("--enable-versioning"),
            "{not_known}"
        );
        assert!(advice("azure://acc/b", &none).unwrap().contains("--account-name acc "));
        let all = Keeps { removed_days: Some(14), versions: Some(true), locks: Some(false) };
        assert!(
            sentence("v", &all.into())
                .ends_with("soft delete: 14 days; versions: yes; objects can be locked: no")
        );
        assert_eq!(advice("v", &all), None);
    }
}
