//! `key list`: the slots, what opens each, and when that was last proven.

use holdfast_store::clock::Timestamp;
use holdfast_store::id::SlotId;
use holdfast_store::seal::slots::KeySlot;
use holdfast_store::store::Store;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{KeyKind, ring};
use crate::commands::Context;
use crate::open::open_as_ever;
use crate::outcome::Failure;
use crate::proven::{self, Proof};
use crate::terminal::text::{self, Table};

/// A slot as the list shows it.
#[derive(Debug)]
struct Slot {
    /// Id in hexadecimal.
    id: String,
    /// What opens it; `None` if its bytes are damaged.
    kind: Option<KeyKind>,
    /// A word for people, if it is known.
    label: String,
    /// When it was made.
    created: Timestamp,
    /// Whether the store was opened with it just now.
    current: bool,
    /// The newest key generation in it, as it says; 0 if it is damaged.
    generation: u32,
    /// Whether another slot has a newer one.
    older: bool,
    /// Whether it says that the key of the store's owner is in it.
    owner: bool,
    /// When somebody proved that he can open it, and where.
    proven: Option<Proof>,
}

/// A slot in `key list --json`, with restic's names where it has them.
#[derive(Serialize)]
struct SlotLine<'a> {
    current: bool,
    id: &'a str,
    created: String,
    kind: Option<&'static str>,
    label: &'a str,
    damaged: bool,
    generation: u32,
    /// Whether what is sealed now does not open with it.
    older: bool,
    /// Whether the key of the store's owner is in it.
    owner: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    proven: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proven_in: Option<&'a str>,
}

/// Shows them.
pub fn run(context: &Context<'_>) -> Result<(), Failure> {
    let slots = slots(context)?;
    let terminal = context.terminal;
    if terminal.json() {
        return terminal.json_line(&slots.iter().map(as_json).collect::<Vec<_>>());
    }
    terminal.line(&render(&slots, &TimeZone::system()))
}

/// All slots. What a label says is sealed with the slot, so only that of the slot in use is known.
fn slots(context: &Context<'_>) -> Result<Vec<Slot>, Failure> {
    let dir = context.settings.store()?;
    let head = Store::head(dir)?;
    let opened = open_as_ever(context, &head, ring::open)?;
    let proofs = proven::load(dir);
    let slot = |(id, bytes): &(SlotId, Vec<u8>)| {
        let read = KeySlot::read(bytes, &head.vault).ok();
        let current = opened.slot == *id;
        Slot {
            id: id.hex(),
            kind: read.map(|slot| slot.kind.into()),
            label: if current { opened.label.clone() } else { String::new() },
            created: Timestamp::from_seconds(read.map_or(0, |slot| slot.created)),
            current,
            generation: read.map_or(0, |slot| slot.newest()),
            older: false,
            owner: read.is_some_and(|slot| slot.has_owner),
            proven: proven::newest(&proofs, id).cloned(),
        }
    };
    let mut slots: Vec<Slot> = head.slots.iter().map(slot).collect();
    let newest = slots.iter().map(|slot| slot.generation).max().unwrap_or_default();
    slots.iter_mut().for_each(|slot| slot.older = slot.kind.is_some() && slot.generation < newest);
    Ok(slots)
}

fn as_json(slot: &Slot) -> SlotLine<'_> {
    let proof = slot.proven.as_ref();
    SlotLine {
        current: slot.current,
        id: &slot.id,
        created: text::rfc3339(slot.created),
        kind: slot.kind.map(KeyKind::word),
        label: &slot.label,
        damaged: slot.kind.is_none(),
        generation: slot.generation,
        older: slot.older,
        owner: slot.owner,
        proven: proof.map(|proof| text::rfc3339(Timestamp::from_seconds(proof.at))),
        proven_in: proof.map(|proof| proof.vault.as_deref().unwrap_or("the store")),
    }
}

fn render(slots: &[Slot], zone: &TimeZone) -> String {
    let mut table = Table::new(&["", "ID", "Kind", "Created", "Last proven", "Label"]);
    for slot in slots {
        let kind = slot.kind.map_or("DAMAGED", KeyKind::word);
        let at = slot.proven.as_ref().map(|proof| Timestamp::from_seconds(proof.at));
        table.row([
            if slot.current { "*" } else { "" }.to_owned(),
            slot.id.get(..8).unwrap_or(&slot.id).to_owned(),
            match (slot.older, slot.owner) {
                (true, _) => format!("{kind} (OLD RING)"),
                (false, true) => format!("{kind}, owner"),
                (false, false) => kind.to_owned(),
            },
            slot.kind.map(|_| text::local_time(slot.created, zone)).unwrap_or_default(),
            at.map_or_else(|| "never".to_owned(), |at| text::local_time(at, zone)),
            slot.label.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_marks_the_slot_in_use_damaged_and_old_ones_and_says_what_was_proven() {
        let slot = |id: &str, kind, current, older, proven: Option<i64>| Slot {
            id: id.into(),
            kind,
            label: "l".into(),
            created: Timestamp::from_seconds(1_795_176_000),
            current,
            generation: 1,
            older,
            owner: false,
            proven: proven.map(|at| Proof { slot: id.into(), vault: None, at }),
        };
        let slots = [
            slot("0123456789", Some(KeyKind::Machine), true, false, None),
            slot("23456789ab", Some(KeyKind::Recovery), false, true, Some(1_795_176_060)),
            slot("abcdef0123", None, false, false, None),
        ];
        assert_eq!(
            render(&slots, &TimeZone::UTC),
            "   ID        Kind                 Created              Last proven          Label\n\
             ---------------------------------------------------------------------------------\n\
             *  01234567  machine              2026-11-20 12:00:00  never                l\n\
             \x20  23456789  recovery (OLD RING)  2026-11-20 12:00:00  2026-11-20 12:01:00  l\n\
             \x20  abcdef01  DAMAGED                                   never                l"
        );
    }
}
