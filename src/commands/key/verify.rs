//! `key verify`: proves that what a person has opens the store, and each vault by the slot that lies there.

use std::path::Path;

use holdfast_store::StoreError;
use holdfast_store::copy;
use holdfast_store::id::SlotId;
use holdfast_store::seal::slots::Secret;
use holdfast_store::store::{Settings as StoreSettings, Store, StoreHead, unlock};
use serde::Serialize;

use super::places::Places;
use super::{KeyKind, ring};
use crate::commands::Context;
use crate::open::{connect, words_or_passphrase};
use crate::outcome::Failure;
use crate::proven;
use crate::terminal::text;

/// What is printed with `--json`.
#[derive(Serialize)]
struct VerifiedLine<'a> {
    message_type: &'static str,
    id: String,
    kind: &'static str,
    label: &'a str,
    /// Whether the store's own slot was tried.
    store: bool,
    /// Addresses of the vaults whose own copies of the slots were tried.
    vaults: Vec<String>,
}

/// What was proven of one slot.
struct Proven {
    slot: SlotId,
    kind: KeyKind,
    label: String,
    store: bool,
    vaults: Vec<String>,
}

/// Proves it of the store and all vaults, or of the vaults that are named.
pub fn run(context: &Context<'_>, vaults: &[String]) -> Result<(), Failure> {
    match vaults {
        [] => everywhere(context),
        _ => in_vaults(context, vaults),
    }
}

fn everywhere(context: &Context<'_>) -> Result<(), Failure> {
    let head = Store::head(context.settings.store()?)?;
    let secret = words_or_passphrase(context)?;
    let opened = ring::open(&head, &secret)?;
    ring::refuse_older("the store", &head, &opened.ring)?;
    let places = Places::open(context, &head, &opened.ring)?;
    places.verify(&head, &opened, &secret)?;
    let (slot, kind, label) = (opened.slot, KeyKind::from(secret.kind()), opened.label);
    tell(context, &[Proven { slot, kind, label, store: true, vaults: places.addresses() }])?;
    match opened.ring.owner() {
        Some(_) => Ok(()),
        None => context.terminal.say(
            "who recovers with it cannot tell which machines made the points: its slot does not have the owner's key; `holdfast key own` puts it there",
        ),
    }
}

/// Nothing of this machine counts here but what is typed: each vault's own config is opened by its own slot. So it can be done on a
/// machine that has no store, too.
fn in_vaults(context: &Context<'_>, vaults: &[String]) -> Result<(), Failure> {
    let addresses = addresses(context, vaults)?;
    let ours = context.settings.store().ok().and_then(|dir| Store::head(dir).ok());
    let secret = words_or_passphrase(context)?;
    let mut proven: Vec<Proven> = Vec::new();
    for url in &addresses {
        let (address, transfer) = connect(context, url)?;
        let head = copy::vault_head(&transfer)?;
        if let Some(ours) = ours.as_ref().filter(|ours| ours.vault != head.vault) {
            let detail = format!("the vault holds store {}, this is {}", head.vault, ours.vault);
            return Err(StoreError::NotOurs { object: address, detail }.into());
        }
        let opened = prove(&address, &head, &secret)?;
        ring::refuse_sealed(
            &format!("vault {address}"),
            copy::sealed_with(&transfer, &head.vault)?,
            &opened.ring,
        )?;
        if let Some(ours) = &ours {
            ring::refuse_older(&format!("the store, by what lies in vault {address}"), ours, &opened.ring)?;
        }
        match proven.iter_mut().find(|one| one.slot == opened.slot) {
            Some(one) => one.vaults.push(address),
            None => proven.push(Proven {
                slot: opened.slot,
                kind: secret.kind().into(),
                label: opened.label,
                store: false,
                vaults: vec![address],
            }),
        }
    }
    tell(context, &proven)
}

fn prove(address: &str, head: &StoreHead, secret: &Secret) -> Result<ring::Opened, Failure> {
    let named =
        |failure: Failure| Failure { message: format!("vault {address}: {}", failure.message), ..failure };
    let opened = ring::open(head, secret).map_err(named)?;
    ring::refuse_older(&format!("vault {address}"), head, &opened.ring)?;
    unlock(head, &opened.ring).map_err(Failure::from).map_err(named)?;
    Ok(opened)
}

/// `all`, or the addresses as they were given.
fn addresses(context: &Context<'_>, given: &[String]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for one in given {
        match one.as_str() {
            "all" => {
                let known = StoreSettings::load(context.settings.store()?)?.vaults;
                all.extend(known.into_iter().map(|vault| vault.url));
            }
            url => all.push(url.to_owned()),
        }
    }
    match all.is_empty() {
        true => Err(Failure::failed("the store has no vault").hint("`holdfast vault add URL` adds one")),
        false => Ok(all),
    }
}

fn tell(context: &Context<'_>, proven: &[Proven]) -> Result<(), Failure> {
    let terminal = context.terminal;
    for one in proven {
        if let Ok(dir) = context.settings.store() {
            note(context, dir, one);
        }
        if terminal.json() {
            terminal.json_line(&VerifiedLine {
                message_type: "verified",
                id: one.slot.hex(),
                kind: one.kind.word(),
                label: &one.label,
                store: one.store,
                vaults: one.vaults.clone(),
            })?;
            continue;
        }
        let what = match one.kind {
            KeyKind::Recovery => "the recovery key opens",
            _ => "the passphrase opens",
        };
        let slot = text::printable_text(&format!("slot {} ({})", one.slot, one.label));
        if one.store {
            terminal.line(&format!("{what} the store: {slot}"))?;
        }
        let of_slot = if one.store { String::new() } else { format!(": {slot}") };
        one.vaults.iter().try_for_each(|vault| terminal.line(&format!("{what} vault {vault}{of_slot}")))?;
    }
    Ok(())
}

/// Puts it down for `key list` and `status`. That this cannot be done does not make it untrue.
fn note(context: &Context<'_>, dir: &Path, one: &Proven) {
    if !dir.join("config").exists() {
        return;
    }
    let places: Vec<Option<String>> =
        one.store.then_some(None).into_iter().chain(one.vaults.iter().cloned().map(Some)).collect();
    if let Err(failure) = proven::note(dir, &one.slot, &places, context.terminal.clock().now()) {
        context.terminal.warn(&format!("that it was proven is not put down: {}", failure.message));
    }
}
