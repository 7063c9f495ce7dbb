//! `key own`: gives the store an owner, whose key lies in slots that people open, and admits this machine as a writer.

use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::seal::slots::{KeySlot, Secret, SlotKind};
use holdfast_store::seal::writer::OwnerKey;
use holdfast_store::store::{Store, StoreHead};
use serde::Serialize;

use clap::Args;

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
    let head = Store::head(context.settings.store()?)?;
    let secrets: Vec<_> = typed(context)?.into_iter().map(|held| held.secret).collect();
    if secrets.is_empty() {
        let message = "the owner's key lies in slots that people open: it takes a passphrase or the words of the recovery sheet";
        return Err(Failure::new(Kind::WrongKey, message).hint(
            "type them at a terminal, or name them with HOLDFAST_PASSWORD_FILE and HOLDFAST_RECOVERY_KEY_FILE",
        ));
    }
    // What a person gave opens it, or, where that was changed elsewhere, whatever does so for every verb.
    let here = secrets.iter().find_map(|secret| ring::open(&head, secret).ok());
    let here = here.map_or_else(|| open_as_ever(context, &head, ring::open), Ok)?;
    let places = Places::open(context, &head, &here.ring)?;
    let lock = places.store().lock()?;
    let heads = places.heads_now()?;
    let opened = secrets.iter().map(|secret| counting(&heads, secret)).collect::<Result<Vec<_>, _>>()?;
    let before = writers::of(context, &head.vault);
    let known = opened.iter().find_map(|opened| opened.ring.owner());
    let owner = match known.filter(|_| !args.new) {
        Some(owner) => owner.clone(),
        None if before.is_some() && !args.new => return Err(not_in_these_slots()),
        None => OwnerKey::generate(),
    };
    let new_owner = known.is_none_or(|known| *known != owner);
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
        for old in opened_by(&places, secret)?.0.into_iter().filter(|old| old.slot != counts) {
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

/// The slot that counts of those that a secret opens: the last one made in vaults, where another machine may have made it anew; the store's own
/// if none there opens.
fn counting(heads: &[(String, StoreHead)], secret: &Secret) -> Result<ring::Opened, Failure> {
    let (ours, theirs) = heads.split_at(1);
    let mut slots: Vec<_> =
        theirs.iter().flat_map(|(_, head)| head.slots.iter().map(|slot| (head.vault, slot))).collect();
    let made = |vault: &VaultId, bytes: &[u8]| KeySlot::read(bytes, vault).map_or(0, |slot| slot.created);
    slots.sort_by_key(|(vault, (_, bytes))| std::cmp::Reverse(made(vault, bytes)));
    let open = |(vault, (slot, bytes)): (VaultId, &(SlotId, Vec<u8>))| {
        let (ring, label) = KeySlot::open(bytes, &vault, secret).ok()?;
        Some(ring::Opened { slot: *slot, ring, label })
    };
    match slots.into_iter().find_map(open) {
        Some(opened) => Ok(opened),
        None => ring::open(&ours[0].1, secret),
    }
}

fn not_in_these_slots() -> Failure {
    Failure::new(Kind::WrongKey, "this machine was admitted by an owner whose key is not in what this opens").hint(
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

/// Whether any slot says that it has the owner's key.
pub fn is_owned(head: &StoreHead) -> bool {
    let read =
        |(_, bytes): &(SlotId, Vec<u8>)| KeySlot::read(bytes, &head.vault).is_ok_and(|slot| slot.has_owner);
    head.slots.iter().any(read)
}

/// Refuses to remove the last slot with the owner's key while it has one.
pub fn refuse_last(slots: &[(SlotId, Vec<u8>)], going: &SlotId, vault: &VaultId) -> Result<(), Failure> {
    let has_owner =
        |(_, bytes): &&(SlotId, Vec<u8>)| KeySlot::read(bytes, vault).is_ok_and(|slot| slot.has_owner);
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
        true => terminal.say("every other machine that takes points: the same command there"),
        false => Ok(()),
    }
}
