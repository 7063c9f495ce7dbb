//! `holdfast key`: the passphrases and keys that open the store, each in a slot of its own.

mod credential;
mod list;
mod own;
pub mod owner;
mod places;
mod ring;
mod rotate;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::{RecoverySheet, words_of};
use holdfast_store::seal::slots::{KeySlot, Secret, SlotKind};
use holdfast_store::store::Store;
use serde::Serialize;
use zeroize::Zeroizing;

use super::Context;
use crate::create::{make_private_dir, new_slot};
use crate::open::open_as_ever;
use crate::outcome::{Done, Failure, Outcome};
use crate::sheet::SheetFile;
use crate::terminal::text;
use crate::writers;
use credential::CredentialArgs;
use own::OwnArgs;
use owner::Act;
use places::{Needed, Places};
use rotate::RotateArgs;

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
  holdfast key add --kind recovery --sheet sheet.pdf
  holdfast key verify                       prove that the recovery sheet's words open the store and each vault
  holdfast key verify --vault all           the same of the vaults alone, by what lies there
  holdfast key rotate                       a new master key for what comes from now on
  holdfast key refresh                      after another machine rotated
  holdfast key own                          sign this machine's recovery points
  holdfast key credential /etc/holdfast/holdfast.key.cred
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
        /// Write the recovery sheet to a new file instead of the terminal: a page with a QR code if its name ends with .pdf, else text
        #[arg(long, value_name = "FILE")]
        sheet: Option<PathBuf>,
    },
    /// Remove a slot
    ///
    /// With `[soft-delete]` in the configuration it asks for a passphrase or the words of the recovery sheet, which may be what goes.
    Remove {
        /// Its id or the beginning of it
        #[arg(value_name = "SLOT")]
        slot: String,
        /// Nobody has what opens it: it goes even if it alone has the newest key, and what was sealed with that is lost
        #[arg(long)]
        lost: bool,
    },
    /// Replace the passphrase: adds the new slot, opens it, then removes the old one
    Passwd,
    /// Prove that a passphrase or the recovery sheet's words open the store and its vaults
    ///
    /// Takes the words, or what a camera reads of the sheet's code. When and where it was proven stands in `key list` and `status`.
    Verify {
        /// Prove it of this vault alone, by the slot that lies there, or of `all` of them; may be repeated
        #[arg(long, value_name = "URL")]
        vault: Vec<String>,
    },
    /// Make a new master key, which seals what is stored from now on
    ///
    /// Nothing is sent again: what is stored stays readable, and is read with the old key by who has that. Each slot whose passphrase, words or
    /// machine key is at hand is made anew for the ring of both keys, this machine's with a new key in its file; without the words a new
    /// recovery sheet is made. Other slots are named, and go only with --drop-others. Change a passphrase that others know first (`key
    /// passwd`): who knows it opens its new slot, too. A run that was cut off goes on with the same command. With `[soft-delete]` in the configuration
    /// --drop-others takes a passphrase or the words.
    Rotate(RotateArgs),
    /// Bring the newest key ring here, after another machine made it
    ///
    /// Opens a slot in a vault with the passphrase or the words, and makes this machine's slot anew. The vaults are only read.
    Refresh,
    /// Give the store an owner, and admit this machine as a writer that signs its recovery points
    ///
    /// Takes the passphrase, the words, or both. The owner's key lies in the slots that they open, and in no machine's: who has only a machine's
    /// key makes no point that passes for another machine's. New stores have an owner; one of before gets it by this. Slots that are given and
    /// do not have the owner's key are made anew. Run it on each machine that takes points and was there before. With `[soft-delete]` in the
    /// configuration --new and --believe take a secret that has the key of the owner until now.
    Own(OwnArgs),
    /// Seal this machine's key for a unit of systemd
    Credential(CredentialArgs),
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

/// More slots are of nobody who is known: each passphrase is tried on all of its kind.
const SLOTS_MAX: usize = 32;

/// What `key remove` prints with `--json`.
#[derive(Serialize)]
struct RemovedLine {
    message_type: &'static str,
    id: String,
}

/// Does it.
pub fn run(context: &Context<'_>, args: &KeyArgs) -> Outcome {
    match &args.action {
        KeyAction::List => list::run(context)?,
        KeyAction::Add { kind, label, sheet } => add(context, *kind, label, sheet.as_deref())?,
        KeyAction::Remove { slot, lost } => remove(context, slot, *lost)?,
        KeyAction::Passwd => replace_passphrase(context)?,
        KeyAction::Verify { vault } => verify::run(context, vault)?,
        KeyAction::Rotate(args) => rotate::rotate(context, args)?,
        KeyAction::Refresh => rotate::refresh(context)?,
        KeyAction::Own(args) => own::run(context, args)?,
        KeyAction::Credential(args) => credential::run(context, args)?,
    }
    Ok(Done::Whole)
}

fn add(context: &Context<'_>, kind: KeyKind, label: &str, sheet: Option<&Path>) -> Result<(), Failure> {
    if sheet.is_some() && kind != KeyKind::Recovery {
        return Err(Failure::usage("--sheet is for --kind recovery"));
    }
    let dir = context.settings.store()?;
    let head = Store::head(dir)?;
    let ring = open_as_ever(context, &head, ring::open)?.ring;
    // Whatever is there may be what opens the store just now.
    let machine_key = context.settings.secrets.machine_key_file(&head.vault);
    if kind == KeyKind::Machine && machine_key.exists() {
        let failure = Failure::failed(format!("this machine has a key already: {}", machine_key.display()));
        return Err(match MachineKey::read(&machine_key) {
            Ok(_) => failure.hint("`holdfast key list` shows its slot; remove that first"),
            Err(error) => failure.hint(format!("it is no key: {error}; remove the file")),
        });
    }
    if head.slots.len() >= SLOTS_MAX {
        return Err(Failure::failed(format!(
            "the store has {} key slots, and no more are made",
            head.slots.len()
        ))
        .hint("`holdfast key list` shows them, `holdfast key remove SLOT` removes one"));
    }
    let secret = match kind {
        KeyKind::Passphrase => {
            ring::passphrase(&context.settings.secrets.added_passphrase(context.terminal)?)
        }
        KeyKind::Recovery => Secret::new_recovery(),
        KeyKind::Machine => Secret::new_machine(),
    };
    let label = if label.is_empty() { default_label(context, kind) } else { label.to_owned() };
    let file = sheet.map(SheetFile::create).transpose()?;
    let places = Places::open(context, &head, &ring)?;
    // Nobody rotates the keys meanwhile.
    let _lock = places.store().lock()?;
    places.refuse_older(&ring)?;
    let now = context.terminal.clock().now().seconds;
    let (id, bytes) = new_slot(context, &head.vault, &ring, &secret, &label, now)?;
    let made = New { id, kind, replaces: None, now };
    // The sheet before its slot: one whose words nobody saw might be the last some day.
    let is_handed_out = hand_out(context, &places, &made, &secret, file)?;
    if let Err(failure) = places.add(&id, &bytes, &secret) {
        if is_handed_out {
            context.terminal.warn("the recovery sheet that was just made opens nothing: destroy it");
        }
        return Err(failure);
    }
    let told = tell_added(context, &places, &made, &secret, is_handed_out);
    match kind {
        KeyKind::Machine => writers::admit(context, &head.vault, &ring, &context.settings.host),
        _ if ring.owner().is_none() && writers::is_owned(&head) => context.terminal.warn(
            "the new slot opens everything and admits no machine: this machine's key opened the store, and that does not have the owner's \
             key; `holdfast key own` with both what opens the new slot and what has it",
        ),
        _ => {}
    }
    // A slot whose secret nobody got to see opens nothing for anybody.
    if told.is_err() && kind != KeyKind::Passphrase && !is_handed_out {
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

/// Shows the words of a new sheet, in its file or on the terminal; with `--json` and no file they stand in the line that tells of the slot.
fn hand_out(
    context: &Context<'_>,
    places: &Places,
    new: &New,
    secret: &Secret,
    file: Option<SheetFile<'_>>,
) -> Result<bool, Failure> {
    let terminal = context.terminal;
    let Secret::Recovery(key) = secret else { return Ok(false) };
    let (vault, addresses, key) = (*places.store().id(), places.addresses(), key.clone());
    let sheet = RecoverySheet { vault, addresses, key, created: new.now, slot: new.id };
    match file {
        None if terminal.json() => return Ok(false),
        None => terminal.line(&sheet.render())?,
        Some(file) => {
            let path = file.path();
            file.write(&sheet)?;
            // It is there, whoever reads this.
            let _ = terminal
                .say(&format!("recovery sheet written to {}: print it, then delete it", path.display()));
        }
    }
    Ok(true)
}

fn tell_added(
    context: &Context<'_>,
    places: &Places,
    new: &New,
    secret: &Secret,
    is_handed_out: bool,
) -> Result<(), Failure> {
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
        Secret::Recovery(key) if !is_handed_out => {
            words = Zeroizing::new(words_of(key).join(" "));
            line.recovery_key = Some(&words);
        }
        Secret::Recovery(_) | Secret::Passphrase(_) => {}
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

fn remove(context: &Context<'_>, prefix: &str, lost: bool) -> Result<(), Failure> {
    if prefix.is_empty() {
        return Err(Failure::usage("a slot is named by its id or the beginning of it")
            .hint("`holdfast key list` shows the slots"));
    }
    let dir = context.settings.store()?;
    let head = Store::head(dir)?;
    owner::agrees(context, dir, Act::RemoveKey)?;
    let ring = open_as_ever(context, &head, ring::open)?.ring;
    let places = Places::open(context, &head, &ring)?;
    let lock = places.store().lock()?;
    // Also one that lies in a vault alone: a rotation that was cut off may have left it there.
    let all: BTreeMap<SlotId, Vec<u8>> =
        places.heads_now()?.into_iter().rev().flat_map(|(_, head)| head.slots).collect();
    let all: Vec<_> = all.into_iter().collect();
    let (id, bytes) = by_prefix(&all, prefix)?;
    if !lost {
        own::refuse_last(&Store::head(places.store().dir())?.slots, &id, &head.vault)?;
    }
    places.remove(&lock, &id, if lost { Needed::Lost } else { Needed::By(&[]) })?;
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
    let old_secret = ring::passphrase(&secrets.passphrase(context.terminal)?);
    let old = ring::open(&head, &old_secret)?;
    let secret = ring::passphrase(&secrets.added_passphrase(context.terminal)?);
    let places = Places::open(context, &head, &old.ring)?;
    let lock = places.store().lock()?;
    places.refuse_older(&old.ring)?;
    let now = context.terminal.clock().now().seconds;
    // A run that was cut off may have put one into some places that the same passphrase opens.
    let is_as_good = |left: &ring::Opened| {
        let owns_as_much = left.ring.owner() == old.ring.owner();
        left.slot != old.slot && left.ring.has_all_of(&old.ring) && owns_as_much
    };
    let left = opened_by(&places, &secret)?.0.into_iter().filter(is_as_good).map(|left| left.slot);
    let left: Vec<SlotId> = left.collect();
    let (id, bytes) = match whole_among(&places, &left)? {
        Some(left) => left,
        None => new_slot(context, &head.vault, &old.ring, &secret, &old.label, now)?,
    };
    places.add(&id, &bytes, &secret)?;
    let (slots, misplaced) = opened_by(&places, &old_secret)?;
    for slot in slots {
        // A rotation that was cut off left one with an older ring.
        let whole: &[SlotId] = if old.ring.has_all_of(&slot.ring) { &[id] } else { &[] };
        if slot.slot != id {
            places.remove(&lock, &slot.slot, Needed::By(whole))?;
        }
    }
    for (place, name) in misplaced {
        context.terminal.warn(&format!(
            "{place}: under the name of slot {name} lies another one, which the passphrase of before still opens: remove the object by hand"
        ));
    }
    writers::admit(context, &head.vault, &old.ring, &context.settings.host);
    let made = New { id, kind: KeyKind::Passphrase, replaces: Some(old.slot), now };
    tell_added(context, &places, &made, &secret, false)
}

/// The first slot of these that some place has whole.
fn whole_among(places: &Places, ids: &[SlotId]) -> Result<Option<(SlotId, Vec<u8>)>, Failure> {
    let is_named = |(id, bytes): &(SlotId, Vec<u8>)| {
        ids.contains(id) && KeySlot::read(bytes, places.store().id()).is_ok_and(|slot| slot.id == *id)
    };
    Ok(places.heads_now()?.into_iter().flat_map(|(_, head)| head.slots).find(is_named))
}

/// Places, and names of slots there.
type Misplaced = Vec<(String, SlotId)>;

/// All slots, of all places, that a secret opens; and what it opens under the names of others, which is no reason to remove those.
fn opened_by(places: &Places, secret: &Secret) -> Result<(Vec<ring::Opened>, Misplaced), Failure> {
    let mut all: BTreeMap<SlotId, ring::Opened> = BTreeMap::new();
    let mut misplaced = Vec::new();
    for (place, head) in places.heads_now()? {
        for (slot, bytes) in head.slots {
            let is_named = KeySlot::read(&bytes, &head.vault).is_ok_and(|read| read.id == slot);
            if is_named && all.contains_key(&slot) {
                continue;
            }
            let Ok((ring, label)) = KeySlot::open(&bytes, &head.vault, secret) else { continue };
            match is_named {
                true => drop(all.insert(slot, ring::Opened { slot, ring, label })),
                false => misplaced.push((place.clone(), slot)),
            }
        }
    }
    Ok((all.into_values().collect(), misplaced))
}
