//! `key own`: gives the store an owner, whose key lies in slots that people open, and admits this machine as a writer.

use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::seal::slots::{KeySlot, Secret, SlotKind};
use holdfast_store::seal::writer::{OwnerKey, PublicKey};
use holdfast_store::store::{Store, StoreHead};
use serde::Serialize;

use clap::Args;

use super::owner::{self, Act};
use super::places::{Needed, Places};
use super::rotate::typed;
use super::{KeyKind, opened_by, ring};
use crate::commands::Context;
use crate::create::new_slot;
use crate::open::open_as_ever;
use crate::outcome::{Failure, Kind};
use crate::writers::{self, short_owner};

/// How to own.
#[derive(Debug, Args)]
pub struct OwnArgs {
    /// Make another owner, whatever there was: every machine is to be admitted again, by the same command there
    #[arg(long)]
    new: bool,
    /// Believe this owner, as `key own` showed him where he was made, in the place of the one who admitted this machine
    #[arg(long, value_name = "OWNER", conflicts_with = "new")]
    believe: Option<String>,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct OwnedLine {
    message_type: &'static str,
    /// First eight bytes of the owner's public key.
    owner: String,
    /// Whether it was made just now.
    new_owner: bool,
    /// This machine as a writer.
    writer: String,
    /// Slots that were made anew, so that they have the owner's key.
    slots: Vec<String>,
    /// Slots of people that do not have it.
    without: Vec<String>,
}

/// Does it. What has the owner's key is in place, read back and opened everywhere before what has not goes.
pub fn run(context: &Context<'_>, args: &OwnArgs) -> Result<(), Failure> {
    let dir = context.settings.store()?;
    let head = Store::head(dir)?;
    let secrets: Vec<_> = typed(context)?.into_iter().map(|held| held.secret).collect();
    if secrets.is_empty() {
        let message = "the owner's key lies in slots that people open: it takes a passphrase or the words of the recovery sheet";
        return Err(Failure::new(Kind::WrongKey, message).hint(
            "type them at a terminal, or name them with HOLDFAST_PASSWORD_FILE and HOLDFAST_RECOVERY_KEY_FILE",
        ));
    }
    // Before anything is made: what is pinned must be known, and the key that is made must be for this host.
    let before = writers::pinned(context, &head.vault)?;
    writers::refuse_unnameable(&context.settings.host)?;
    if args.new || args.believe.is_some() {
        owner::agrees_by(context, dir, Act::ChangeOwner, &secrets)?;
    }
    // What a person gave opens it, or, where that was changed elsewhere, whatever does so for every verb.
    let here = secrets.iter().find_map(|secret| ring::open(&head, secret).ok());
    let here = here.map_or_else(|| open_as_ever(context, &head, ring::open), Ok)?;
    let places = Places::open(context, &head, &here.ring)?;
    let lock = places.store().lock()?;
    let heads = places.heads_now()?;
    let opened = secrets.iter().map(|secret| counting(&heads, secret)).collect::<Result<Vec<_>, _>>()?;
    let found: Vec<&OwnerKey> = opened.iter().filter_map(|opened| opened.ring.owner()).collect();
    let pinned = before.as_ref().map(|writer| writer.admission().owner);
    let is_owned = pinned.is_some() || heads.iter().any(|(_, head)| writers::is_owned(head));
    let owner = match args.new {
        true => OwnerKey::generate(),
        false => match choose(&found, pinned.as_ref(), args.believe.as_deref())? {
            Some(owner) => owner.clone(),
            None if is_owned => return Err(not_in_these_slots()),
            None => OwnerKey::generate(),
        },
    };
    let new_owner = !found.contains(&&owner);
    let now = context.terminal.clock().now().seconds;
    let mut slots = Vec::new();
    for (secret, opened) in secrets.iter().zip(&opened) {
        let mut counts = opened.slot;
        if opened.ring.owner() != Some(&owner) {
            places.refuse_older(&opened.ring)?;
            let ring = opened.ring.clone().owned_by(owner.clone());
            let (id, bytes) = new_slot(context, &head.vault, &ring, secret, &opened.label, now)?;
            places.add(&id, &bytes, secret)?;
            slots.push(id.hex());
            counts = id;
        } else if let Some((id, bytes)) = slots_of_vaults(&heads).find(|(id, _)| *id == counts) {
            places.put_here(id, bytes)?;
        }
        let all = opened_by(&places, secret)?.0;
        let is_there = |slot: &SlotId| slots_of_vaults(&heads).any(|(id, _)| id == slot);
        // A vault that was put back has the one before, which goes: what counts takes its place.
        if let Some((id, bytes)) = heads[0].1.slots.iter().find(|(id, _)| *id == counts)
            && !is_there(id)
            && all.iter().any(|one| is_there(&one.slot))
        {
            places.put(id, bytes)?;
        }
        for old in all.into_iter().filter(|old| old.slot != counts) {
            let whole: &[SlotId] = if opened.ring.has_all_of(&old.ring) { &[counts] } else { &[] };
            match slots_of_vaults(&heads).any(|(id, _)| *id == old.slot) {
                true => places.remove(&lock, &old.slot, Needed::By(whole))?,
                // It went from the vaults when another machine made it anew.
                false => places.remove_here(&lock, &old.slot, whole)?,
            }
        }
    }
    let host = &context.settings.host;
    let made = writers::admit_anew(context, &head.vault, &owner, before.as_deref(), host)?;
    let writer = made.as_ref().or(before.as_deref()).map(|writer| writer.admission().id().hex());
    let (line, without) = (writer.unwrap_or_default(), without_owner(&Store::head(places.store().dir())?));
    let line = OwnedLine {
        message_type: "owned",
        owner: short_owner(&owner.public()),
        new_owner,
        writer: line,
        slots,
        without: without.iter().map(|(id, _)| id.hex()).collect(),
    };
    if before.is_some_and(|before| before.admission().owner != owner.public()) {
        context.terminal.warn("this machine believed another owner until now");
    }
    tell(context, &line, &without)
}

fn slots_of_vaults(heads: &[(String, StoreHead)]) -> impl Iterator<Item = &(SlotId, Vec<u8>)> {
    heads.iter().skip(1).flat_map(|(_, head)| &head.slots)
}

/// The owner to go on with, of those whose keys the given secrets have; nobody if they have none. One whom this machine does not believe it takes
/// only if he is named: a slot that was put back, or one that somebody made for this secret, has an owner, too.
fn choose<'a>(
    found: &[&'a OwnerKey],
    pinned: Option<&PublicKey>,
    named: Option<&str>,
) -> Result<Option<&'a OwnerKey>, Failure> {
    if let Some(named) = named {
        let is_named = |owner: &&&OwnerKey| short_owner(&owner.public()).eq_ignore_ascii_case(named);
        let owner = found.iter().find(is_named).copied();
        let message = format!("what was given does not have the key of owner {named}; nothing was changed");
        return owner.map(Some).ok_or_else(|| Failure::new(Kind::WrongKey, message));
    }
    let believed = found.iter().copied().find(|owner| pinned.is_none_or(|pinned| owner.public() == *pinned));
    let Some(first) = found.first() else { return Ok(None) };
    match believed {
        Some(owner) if pinned.is_some() || found.iter().all(|other| *other == owner) => Ok(Some(owner)),
        _ => {
            let names: Vec<String> = found.iter().map(|owner| short_owner(&owner.public())).collect();
            let (message, name) = (
                match pinned {
                    Some(pinned) => format!(
                        "this machine believes owner {}, and what was given has the key of {}; nothing was changed",
                        short_owner(pinned),
                        names.join(" and of ")
                    ),
                    None => format!(
                        "what was given has the keys of different owners, {}; nothing was changed",
                        names.join(" and ")
                    ),
                },
                short_owner(&first.public()),
            );
            Err(Failure::new(Kind::WrongKey, message).hint(format!(
                "compare them with what `holdfast key own` shows on another machine: if the owner was changed, `holdfast key own --believe {name}`; if \
                 nobody did that, a vault was put back or somebody made a slot for this secret"
            )))
        }
    }
}

/// The slot that counts of those that a secret opens: the last one made in any place. Another machine may have made it anew in the vaults, and a
/// vault may have been put back. Of those made in the same second, one in a vault.
fn counting(heads: &[(String, StoreHead)], secret: &Secret) -> Result<ring::Opened, Failure> {
    let mut slots: Vec<_> =
        heads.iter().rev().flat_map(|(_, head)| head.slots.iter().map(|slot| (head.vault, slot))).collect();
    let made = |vault: &VaultId, bytes: &[u8]| KeySlot::read(bytes, vault).map_or(0, |slot| slot.created);
    slots.sort_by_key(|(vault, (_, bytes))| std::cmp::Reverse(made(vault, bytes)));
    let open = |(vault, (slot, bytes)): (VaultId, &(SlotId, Vec<u8>))| {
        let (ring, label) = KeySlot::open(bytes, &vault, secret).ok()?;
        Some(ring::Opened { slot: *slot, ring, label })
    };
    match slots.into_iter().find_map(open) {
        Some(opened) => Ok(opened),
        None => ring::open(&heads[0].1, secret),
    }
}

fn not_in_these_slots() -> Failure {
    Failure::new(Kind::WrongKey, "the store has an owner whose key is not in what this opens").hint(
        "give the passphrase or the words that have it (`holdfast key list` marks their slots), beside these if they are of another kind; if \
         nobody has it any more, `holdfast key own --new`",
    )
}

/// Slots of people that say that they do not have the owner's key.
pub fn without_owner(head: &StoreHead) -> Vec<(SlotId, KeyKind)> {
    let read = |(id, bytes): &(SlotId, Vec<u8>)| {
        let slot = KeySlot::read(bytes, &head.vault).ok()?;
        (slot.kind != SlotKind::Machine && !slot.has_owner).then(|| (*id, slot.kind.into()))
    };
    head.slots.iter().filter_map(read).collect()
}

/// Refuses to remove the last slot with the owner's key while it has one. `slots` are those of the store: what a vault shows counts for nothing.
pub fn refuse_last(slots: &[(SlotId, Vec<u8>)], going: &SlotId, vault: &VaultId) -> Result<(), Failure> {
    let has_owner = |(_, bytes): &&(SlotId, Vec<u8>)| {
        KeySlot::read(bytes, vault).is_ok_and(|slot| slot.kind != SlotKind::Machine && slot.has_owner)
    };
    let owned: Vec<&SlotId> = slots.iter().filter(has_owner).map(|(id, _)| id).collect();
    match owned.as_slice() {
        [last] if *last == going => {
            let message = format!(
                "slot {going} is the last that has the key of the store's owner; nothing was removed"
            );
            Err(Failure::failed(message).hint(
                "`holdfast key own`, with what opens it and what opens another, gives it to that; `holdfast key remove SLOT --lost` if nobody \
                 has what opens it",
            ))
        }
        _ => Ok(()),
    }
}

fn tell(context: &Context<'_>, line: &OwnedLine, without: &[(SlotId, KeyKind)]) -> Result<(), Failure> {
    let terminal = context.terminal;
    if terminal.json() {
        return terminal.json_line(line);
    }
    let owner = match line.new_owner {
        true => "the store has a new owner",
        false => "the store's owner is",
    };
    terminal.say(&format!("{owner} {}: this machine is writer {}", line.owner, &line.writer[..8]))?;
    for slot in &line.slots {
        terminal.say(&format!("slot {slot} has the owner's key"))?;
    }
    for (slot, kind) in without {
        terminal.say(&format!(
            "{} slot {slot} does not have it: `holdfast key own` with that {} beside one that has gives it to it",
            kind.word(),
            if *kind == KeyKind::Recovery { "sheet's words" } else { "passphrase" },
        ))?;
    }
    match line.new_owner {
        true => terminal.say(&format!(
            "every other machine that takes points: `holdfast key own --believe {}` there",
            line.owner
        )),
        false => Ok(()),
    }
}
