//! `holdfast key`: the passphrases and keys that open the store, each in a slot of its own.

use clap::{Args, Subcommand, ValueEnum};
use holdfast_store::clock::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Context;
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::Terminal;
use crate::terminal::text::{self, Table};

/// Manage the passphrases and keys that open the store
///
/// A store has up to 32 slots, each of which opens it: passphrases, recovery keys, machine keys. Adding or removing one
/// never touches stored data. The last recovery key cannot be removed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast key list
  holdfast key add                          another passphrase
  holdfast key add --kind recovery          new words and a new recovery sheet
  holdfast key passwd                       replace the passphrase
  holdfast key verify                       prove that the recovery sheet's words open the store
  holdfast key remove 1f2e3d4c")]
pub struct KeyArgs {
    #[command(subcommand)]
    action: KeyAction,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Show the slots
    List,
    /// Add a slot
    Add {
        /// What opens it
        #[arg(long, value_name = "KIND", default_value = "passphrase")]
        kind: KeyKind,
        /// A word for people
        #[arg(long, value_name = "TEXT", default_value = "")]
        label: String,
    },
    /// Remove a slot
    Remove {
        /// Its id or the beginning of it
        #[arg(value_name = "SLOT")]
        slot: String,
    },
    /// Replace the passphrase: adds the new slot, opens it, then removes the old one
    Passwd,
    /// Prove that a passphrase or the recovery sheet's words open the store
    Verify,
}

/// What opens a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyKind {
    /// Something a person knows
    Passphrase,
    /// The 24 words of a recovery sheet
    Recovery,
    /// A file on this machine
    Machine,
}

impl KeyKind {
    fn word(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Recovery => "recovery",
            Self::Machine => "machine",
        }
    }
}

/// A slot as the list shows it.
#[derive(Debug)]
pub struct Slot {
    /// Id in hexadecimal.
    pub id: String,
    /// What opens it.
    pub kind: KeyKind,
    /// A word for people.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether the store was opened with it just now.
    pub current: bool,
    /// Whether its bytes are whole.
    pub whole: bool,
}

/// A slot in `key list --json`, with restic's names where it has them.
#[derive(Serialize)]
struct SlotLine<'a> {
    current: bool,
    id: &'a str,
    created: String,
    kind: &'static str,
    label: &'a str,
    damaged: bool,
}

/// Does it.
pub fn run(context: &Context<'_>, args: &KeyArgs) -> Outcome {
    match &args.action {
        KeyAction::List => show(context.terminal, &slots(context)?)?,
        KeyAction::Add { kind, label } => add(context, *kind, label)?,
        KeyAction::Remove { slot } => remove(context, slot)?,
        KeyAction::Passwd => replace_passphrase(context)?,
        KeyAction::Verify => verify(context)?,
    }
    Ok(Done::Whole)
}

fn slots(_context: &Context<'_>) -> Result<Vec<Slot>, Failure> {
    Err(Failure::not_built("key list"))
}

fn add(_context: &Context<'_>, _kind: KeyKind, _label: &str) -> Result<(), Failure> {
    Err(Failure::not_built("key add"))
}

fn remove(_context: &Context<'_>, _slot: &str) -> Result<(), Failure> {
    Err(Failure::not_built("key remove"))
}

fn replace_passphrase(_context: &Context<'_>) -> Result<(), Failure> {
    Err(Failure::not_built("key passwd"))
}

fn verify(_context: &Context<'_>) -> Result<(), Failure> {
    Err(Failure::not_built("key verify"))
}

fn show(terminal: &Terminal, slots: &[Slot]) -> Result<(), Failure> {
    if terminal.json() {
        return terminal.json_line(&slots.iter().map(as_json).collect::<Vec<_>>());
    }
    terminal.line(&render(slots, &TimeZone::system()))
}

fn as_json(slot: &Slot) -> SlotLine<'_> {
    SlotLine {
        current: slot.current,
        id: &slot.id,
        created: text::rfc3339(slot.created),
        kind: slot.kind.word(),
        label: &slot.label,
        damaged: !slot.whole,
    }
}

fn render(slots: &[Slot], zone: &TimeZone) -> String {
    let mut table = Table::new(&["", "ID", "Kind", "Created", "Label"]);
    for slot in slots {
        table.row([
            if slot.current { "*" } else { "" }.to_owned(),
            slot.id.get(..8).unwrap_or(&slot.id).to_owned(),
            if slot.whole { slot.kind.word().to_owned() } else { format!("{} (DAMAGED)", slot.kind.word()) },
            text::local_time(slot.created, zone),
            slot.label.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_marks_the_slot_in_use_and_damaged_ones() {
        let slot = |id: &str, kind, current, whole| Slot {
            id: id.into(),
            kind,
            label: "l".into(),
            created: Timestamp::from_seconds(1_795_176_000),
            current,
            whole,
        };
        let slots = [
            slot("0123456789", KeyKind::Machine, true, true),
            slot("abcdef0123", KeyKind::Recovery, false, false),
        ];
        assert_eq!(
            render(&slots, &TimeZone::UTC),
            "   ID        Kind                Created              Label\n\
             -----------------------------------------------------------\n\
             *  01234567  machine             2026-11-20 12:00:00  l\n\
             \x20  abcdef01  recovery (DAMAGED)  2026-11-20 12:00:00  l"
        );
    }
}
