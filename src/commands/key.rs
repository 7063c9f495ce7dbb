//! `holdfast key`: the passphrases and keys that open the store, each in a slot of its own.

mod places;
mod ring;

use clap::{Args, Subcommand, ValueEnum};
use holdfast_store::clock::Timestamp;
use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::{RecoverySheet, words_of};
use holdfast_store::seal::slots::{KeySlot, Secret, SlotKind};
use holdfast_store::store::Store;
use jiff::tz::TimeZone;
use serde::Serialize;
use zeroize::Zeroizing;

use super::Context;
use crate::create::{make_private_dir, new_slot};
use crate::open::{open_as_ever, words_or_passphrase};
use crate::outcome::{Done, Failure, Outcome};
use crate::terminal::Terminal;
use crate::terminal::text::{self, Table};
use places::Places;

/// Manage the passphrases and keys that open the store
///
/// A store has up to 32 slots, each of which opens it: passphrases, recovery keys, machine keys. Adding or removing one
/// never touches stored data. The last slot that a passphrase or a recovery key opens cannot be removed. A new passphrase
/// comes from HOLDFAST_NEW_PASSWORD (or its _FILE and _COMMAND forms) or is asked for.
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

impl From<SlotKind> for KeyKind {
    fn from(kind: SlotKind) -> Self {
        match kind {
            SlotKind::Passphrase => Self::Passphrase,
            SlotKind::Recovery => Self::Recovery,
            SlotKind::Machine => Self::Machine,
        }
    }
}

/// A slot as the list shows it.
#[derive(Debug)]
pub struct Slot {
    /// Id in hexadecimal.
    pub id: String,
    /// What opens it; `None` if its bytes are damaged.
    pub kind: Option<KeyKind>,
    /// A word for people, if it is known.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether the store was opened with it just now.
    pub current: bool,
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
}

/// What `key add` and `key passwd` print with `--json`.
#[derive(Serialize)]
struct AddedLine<'a> {
    message_type: &'static str,
    id: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<&'a str>,
}

/// What `key remove` prints with `--json`.
#[derive(Serialize)]
struct RemovedLine {
    message_type: &'static str,
    id: String,
}

/// What `key verify` prints with `--json`.
#[derive(Serialize)]
struct VerifiedLine<'a> {
    message_type: &'static str,
    id: String,
    kind: &'static str,
    label: &'a str,
    /// Addresses of the vaults whose own copies of the slots were tried.
    vaults: Vec<String>,
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

/// All slots. What a label says is sealed with the slot, so only that of the slot in use is known.
fn slots(context: &Context<'_>) -> Result<Vec<Slot>, Failure> {
    let head = Store::head(context.settings.store()?)?;
    let opened = open_as_ever(context, &head, ring::open)?;
    let slot = |(id, bytes): &(SlotId, Vec<u8>)| {
        let read = KeySlot::read(bytes, &head.vault).ok();
        let current = opened.slot == *id;
        Slot {
            id: id.hex(),
            kind: read.map(|slot| slot.kind.into()),
            label: if current { opened.label.clone() } else { String::new() },
            created: Timestamp::from_seconds(read.map_or(0, |slot| slot.created)),
            current,
        }
    };
    Ok(head.slots.iter().map(slot).collect())
}

fn add(context: &Context<'_>, kind: KeyKind, label: &str) -> Result<(), Failure> {
    let dir = context.settings.store()?;
    let head = Store::head(dir)?;
    let ring = open_as_ever(context, &head, ring::open)?.ring;
    // Whatever is there may be what opens the store just now.
    let machine_key = context.settings.secrets.machine_key_file(&head.vault);
    if kind == KeyKind::Machine && machine_key.exists() {
        let failure = Failure::failed(format!("this machine has a key already: {}", machine_key.display()));
        return Err(failure.hint("`holdfast key list` shows its slot; remove that first"));
    }
    let secret = match kind {
        KeyKind::Passphrase => {
            ring::passphrase(&context.settings.secrets.added_passphrase(context.terminal)?)
        }
        KeyKind::Recovery => Secret::new_recovery(),
        KeyKind::Machine => Secret::new_machine(),
    };
    let label = if label.is_empty() { default_label(context, kind) } else { label.to_owned() };
    let places = Places::open(context, &head, &ring)?;
    let now = context.terminal.clock().now().seconds;
    let (id, bytes) = new_slot(context, &head.vault, &ring, &secret, &label, now)?;
    places.add(&id, &bytes, &secret)?;
    let made = New { id, kind, replaces: None, now };
    let told = tell_added(context, &places, &made, &secret);
    // A slot whose secret nobody got to see opens nothing for anybody.
    if told.is_err() && kind != KeyKind::Passphrase {
        places.take_back(&id);
    }
    told
}

fn default_label(context: &Context<'_>, kind: KeyKind) -> String {
    match kind {
        KeyKind::Passphrase => "passphrase".to_owned(),
        KeyKind::Recovery => "recovery sheet".to_owned(),
        KeyKind::Machine => format!("machine {}", context.settings.host),
    }
}

/// A slot that was added.
struct New {
    id: SlotId,
    kind: KeyKind,
    replaces: Option<SlotId>,
    now: i64,
}

fn tell_added(context: &Context<'_>, places: &Places, new: &New, secret: &Secret) -> Result<(), Failure> {
    let terminal = context.terminal;
    let vault = *places.store().id();
    let mut line = AddedLine {
        message_type: "key_added",
        id: new.id.hex(),
        kind: new.kind.word(),
        replaces: new.replaces.map(|slot| slot.hex()),
        machine_key: None,
        recovery_key: None,
    };
    let words;
    match secret {
        Secret::Machine(key) => {
            let dir = context.settings.secrets.key_dir();
            make_private_dir(dir)?;
            let file = MachineKey { vault, key: key.clone() }.create_in(dir)?;
            line.machine_key = Some(file.display().to_string());
            terminal.say(&format!("this machine's key is {}", file.display()))?;
        }
        Secret::Recovery(key) if terminal.json() => {
            words = Zeroizing::new(words_of(key).join(" "));
            line.recovery_key = Some(&words);
        }
        Secret::Recovery(key) => {
            let (addresses, key) = (places.addresses(), key.clone());
            let sheet = RecoverySheet { vault, addresses, key, created: new.now, slot: new.id };
            terminal.line(&sheet.render())?;
        }
        Secret::Passphrase(_) => {}
    }
    if terminal.json() {
        return terminal.json_line(&line);
    }
    terminal.say(&format!("slot {} added{}", new.id, in_vaults(places)))
}

fn in_vaults(places: &Places) -> String {
    match places.addresses().len() {
        0 => String::new(),
        n => format!(", in {} too", text::count(n as u64, "vault")),
    }
}

fn remove(context: &Context<'_>, prefix: &str) -> Result<(), Failure> {
    if prefix.is_empty() {
        return Err(Failure::usage("a slot is named by its id or the beginning of it")
            .hint("`holdfast key list` shows the slots"));
    }
    let head = Store::head(context.settings.store()?)?;
    let (id, bytes) = by_prefix(&head.slots, prefix)?;
    let ring = open_as_ever(context, &head, ring::open)?.ring;
    let places = Places::open(context, &head, &ring)?;
    let lock = places.store().lock()?;
    places.remove(&lock, &id)?;
    forget_machine_key(context, &head.vault, &bytes)?;
    if context.terminal.json() {
        return context.terminal.json_line(&RemovedLine { message_type: "key_removed", id: id.hex() });
    }
    context.terminal.say(&format!("slot {id} removed{}", in_vaults(&places)))
}

fn by_prefix(slots: &[(SlotId, Vec<u8>)], prefix: &str) -> Result<(SlotId, Vec<u8>), Failure> {
    let prefix = prefix.to_ascii_lowercase();
    let found: Vec<_> = slots.iter().filter(|(id, _)| id.hex().starts_with(&prefix)).collect();
    match found.as_slice() {
        [(id, bytes)] => Ok((*id, bytes.clone())),
        [] => Err(Failure::failed(format!("no slot begins with {prefix}"))
            .hint("`holdfast key list` shows the slots")),
        several => Err(Failure::failed(format!("{} slots begin with {prefix}", several.len()))
            .hint("give more digits of the one that is meant")),
    }
}

/// The file of a slot that is gone would only be a warning at every command.
fn forget_machine_key(context: &Context<'_>, vault: &VaultId, slot: &[u8]) -> Result<(), Failure> {
    let file = context.settings.secrets.machine_key_file(vault);
    let Ok(key) = MachineKey::read(&file) else { return Ok(()) };
    if KeySlot::open(slot, vault, &key.secret()).is_err() {
        return Ok(());
    }
    std::fs::remove_file(&file).map_err(|error| Failure::io("remove", &file, &error))
}

/// The new slot is in place, read back and opened everywhere before the old one goes.
fn replace_passphrase(context: &Context<'_>) -> Result<(), Failure> {
    let head = Store::head(context.settings.store()?)?;
    let secrets = &context.settings.secrets;
    let old = ring::open(&head, &ring::passphrase(&secrets.passphrase(context.terminal)?))?;
    let secret = ring::passphrase(&secrets.added_passphrase(context.terminal)?);
    let places = Places::open(context, &head, &old.ring)?;
    let lock = places.store().lock()?;
    let now = context.terminal.clock().now().seconds;
    let (id, bytes) = new_slot(context, &head.vault, &old.ring, &secret, &old.label, now)?;
    places.add(&id, &bytes, &secret)?;
    places.remove(&lock, &old.slot)?;
    let made = New { id, kind: KeyKind::Passphrase, replaces: Some(old.slot), now };
    tell_added(context, &places, &made, &secret)
}

fn verify(context: &Context<'_>) -> Result<(), Failure> {
    let head = Store::head(context.settings.store()?)?;
    let secret = words_or_passphrase(context)?;
    let opened = ring::open(&head, &secret)?;
    let places = Places::open(context, &head, &opened.ring)?;
    places.verify(&head, &opened.slot, &secret)?;
    let (kind, vaults) = (KeyKind::from(secret.kind()), places.addresses());
    if context.terminal.json() {
        let id = opened.slot.hex();
        let (kind, label) = (kind.word(), opened.label.as_str());
        return context.terminal.json_line(&VerifiedLine {
            message_type: "verified",
            id,
            kind,
            label,
            vaults,
        });
    }
    let what = match kind {
        KeyKind::Recovery => "the recovery key opens",
        _ => "the passphrase opens",
    };
    let slot = format!("slot {} ({})", opened.slot, opened.label);
    context.terminal.line(&text::printable_text(&format!("{what} the store: {slot}")))?;
    vaults.iter().try_for_each(|vault| context.terminal.line(&format!("{what} vault {vault}")))
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
        kind: slot.kind.map(KeyKind::word),
        label: &slot.label,
        damaged: slot.kind.is_none(),
    }
}

fn render(slots: &[Slot], zone: &TimeZone) -> String {
    let mut table = Table::new(&["", "ID", "Kind", "Created", "Label"]);
    for slot in slots {
        table.row([
            if slot.current { "*" } else { "" }.to_owned(),
            slot.id.get(..8).unwrap_or(&slot.id).to_owned(),
            slot.kind.map_or("DAMAGED", KeyKind::word).to_owned(),
            slot.kind.map(|_| text::local_time(slot.created, zone)).unwrap_or_default(),
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
        let slot = |id: &str, kind, current| Slot {
            id: id.into(),
            kind,
            label: "l".into(),
            created: Timestamp::from_seconds(1_795_176_000),
            current,
        };
        let slots = [slot("0123456789", Some(KeyKind::Machine), true), slot("abcdef0123", None, false)];
        assert_eq!(
            render(&slots, &TimeZone::UTC),
            "   ID        Kind     Created              Label\n\
             ------------------------------------------------\n\
             *  01234567  machine  2026-11-20 12:00:00  l\n\
             \x20  abcdef01  DAMAGED                       l"
        );
    }
}
