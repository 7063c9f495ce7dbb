//! Making a store with its keys and vaults, for `init` and `quickstart`.

use std::path::{Path, PathBuf};

use holdfast_store::format::config::{ChunkerKind, StoreConfig};
use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::seal::Sealer;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::{RecoverySheet, words_of};
use holdfast_store::seal::slots::{KdfParams, KeySlot, Secret as SlotSecret};
use holdfast_store::seal::writer::OwnerKey;
use holdfast_store::store::{Settings as StoreSettings, Store, VaultSetting};
use holdfast_store::{StoreError, copy, names};
use serde::Serialize;

use crate::commands::Context;
use crate::open::{Bounds, by_machine_key, connect, open_unlocked};
use crate::outcome::{Done, Failure, Outcome};
use crate::places::{is_same_directory, refuse_own};
use crate::secrets::Secret;
use crate::sheet::SheetFile;
use crate::terminal::Terminal;
use crate::writers;

/// What a new store is to have.
#[derive(Debug)]
pub struct NewStore<'a> {
    /// Its directory.
    pub dir: &'a Path,
    /// A passphrase slot; without one only machine key and recovery key open it.
    pub passphrase: Option<&'a Secret>,
    /// A key of this machine.
    pub machine_key: bool,
    /// Addresses of its vaults.
    pub vaults: &'a [String],
    /// How it cuts files, for ever.
    pub chunker: ChunkerKind,
}

/// A store that was made.
#[derive(Debug)]
pub struct Made {
    /// Identity of the store.
    pub id: VaultId,
    /// The page.
    pub sheet: RecoverySheet,
    /// Where this machine's key lies, if it has one.
    pub machine_key: Option<PathBuf>,
    /// Addresses of the vaults that it shall have.
    pub vaults: Vec<String>,
    ring: KeyRing,
}

impl Made {
    /// Makes its vaults ready, which is last: the sheet has reached a person, and what fails here can be done again.
    pub fn add_vaults(&self, context: &Context<'_>, dir: &Path) -> Result<(), Failure> {
        add_vaults(context, dir, &self.id, &self.ring, &self.vaults).map(drop).map_err(|failure| {
            also(
                failure,
                "the store exists and its recovery sheet is valid: `holdfast vault add URL` finishes it",
            )
        })
    }
}

/// Makes the store. Its vaults are only looked at as addresses: before the sheet is handed out nothing is waited for.
pub fn make_store(context: &Context<'_>, new: &NewStore<'_>) -> Result<Made, Failure> {
    let addresses =
        new.vaults.iter().map(|url| Ok(connect(context, url)?.0)).collect::<Result<Vec<_>, Failure>>()?;
    addresses.iter().try_for_each(|address| refuse_own(new.dir, address))?;
    let now = context.terminal.clock().now().seconds;
    let (id, ring) = (VaultId::random(), KeyRing::generate(now).owned_by(OwnerKey::generate()));
    let keys = Keys { context, id: &id, ring: &ring, now };
    let mut slots = Vec::new();
    let recovery = SlotSecret::new_recovery();
    let slot = keys.slot(&recovery, "recovery sheet", &mut slots)?;
    if let Some(passphrase) = new.passphrase {
        keys.slot(&SlotSecret::Passphrase(passphrase.reveal().to_owned().into()), "passphrase", &mut slots)?;
    }
    let machine_key = new.machine_key.then(|| keys.machine_key(&mut slots)).transpose()?;
    let mut config = StoreConfig::new(id, now);
    config.chunker.kind = new.chunker;
    let sealer = Sealer::new(id, &ring, config.identity_generation).map_err(|e| e.of("the new key ring"))?;
    Store::create(new.dir, &sealer, &config, &slots).inspect_err(|_| {
        // A key to a store that was never made.
        machine_key.iter().for_each(|file| drop(std::fs::remove_file(file)));
    })?;
    let SlotSecret::Recovery(key) = recovery else {
        return Err(Failure::failed("the recovery key is of another kind"));
    };
    writers::admit_first(context, &id, &ring);
    let sheet = RecoverySheet { vault: id, addresses: addresses.clone(), key, created: now, slot };
    Ok(Made { id, sheet, machine_key, vaults: addresses, ring })
}

/// What `--json` prints of a new store, with restic's names.
#[derive(Serialize)]
struct Initialized<'a> {
    message_type: &'static str,
    id: String,
    repository: String,
    vaults: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<String>,
}

/// Tells what was made, with its recovery sheet in a file if there is one. The inner failure is one of telling: the sheet is safe, and what
/// comes after it is wanted.
pub fn hand_out_in(
    terminal: &Terminal,
    made: &Made,
    store: &Path,
    file: Option<SheetFile<'_>>,
) -> Result<Result<(), Failure>, Failure> {
    let Some(file) = file else { return hand_out(terminal, made, store, None).map(Ok) };
    let path = file.path();
    match file.write(&made.sheet) {
        Ok(()) => Ok(hand_out(terminal, made, store, Some(path))),
        Err(failure) => {
            // The store is there and its sheet is in no file: the terminal is what is left.
            hand_out(terminal, made, store, None)?;
            Err(failure)
        }
    }
}

/// Tells what was made. A recovery sheet that is in no file goes out in any case, also with `--json` and `-q`: nobody sees it
/// again. If it cannot go out, that is the failure.
fn hand_out(
    terminal: &Terminal,
    made: &Made,
    store: &Path,
    sheet_file: Option<&Path>,
) -> Result<(), Failure> {
    let unseen = |failure| match sheet_file {
        None => nobody_saw_the_sheet(&failure, store),
        Some(_) => failure,
    };
    if terminal.json() {
        let line = Initialized {
            message_type: "initialized",
            id: made.id.hex(),
            repository: store.display().to_string(),
            vaults: &made.vaults,
            machine_key: made.machine_key.as_ref().map(|file| file.display().to_string()),
            recovery_key: sheet_file.is_none().then(|| words_of(&made.sheet.key).join(" ")),
        };
        return terminal.json_line(&line).map_err(unseen);
    }
    match sheet_file {
        Some(file) => terminal
            .say(&format!("recovery sheet written to {}: print it, then delete it", file.display()))?,
        None => terminal.line(&made.sheet.render()).map_err(unseen)?,
    }
    terminal.say(&format!("store {} made in {}", made.id, store.display()))?;
    match &made.machine_key {
        Some(file) => terminal.say(&format!("this machine's key is {}", file.display())),
        None => terminal.say("this machine has no key of its own: every command needs the passphrase"),
    }
}

/// A store that was made and whose sheet reached nobody. Also who reads no output, which is no failure else, must hear of it.
fn nobody_saw_the_sheet(failure: &Failure, store: &Path) -> Failure {
    let message = format!(
        "the store in {} was made, and nobody saw its recovery sheet: {}",
        store.display(),
        failure.message
    );
    Failure::failed(message).hint(
        "`holdfast key add --kind recovery` makes another sheet, and `holdfast vault add URL` the vaults ready",
    )
}

/// A failure with one more way out.
fn also(failure: Failure, hint: &str) -> Failure {
    let hint = match &failure.hint {
        Some(first) => format!("{first}; {hint}"),
        None => hint.to_owned(),
    };
    failure.hint(hint)
}

/// Makes vaults ready for a store and writes them into its settings. A directory that is a vault already is not another one
/// because its path is written in another way. `Partial` if one has a slot of a newer ring, which keeps those of this store out.
pub fn add_vaults(
    context: &Context<'_>,
    dir: &Path,
    id: &VaultId,
    ring: &KeyRing,
    addresses: &[String],
) -> Outcome {
    let store = open_unlocked(context, dir, id, ring, Bounds::default())?;
    let (slots, mut done) = (Store::head(dir)?.slots, Done::Whole);
    for url in addresses {
        let (given, _) = connect(context, url)?;
        refuse_own(dir, &given)?;
        let settings = StoreSettings::load(dir)?;
        let known = settings.vaults.iter().find(|vault| is_same_directory(&vault.url, &given));
        let (address, transfer) = connect(context, known.map_or(given.as_str(), |vault| &vault.url))?;
        let newer = copy::prepare_vault(&store, &slots, &transfer)?;
        remember_vault(dir, &address)?;
        if let Some(generation) = newer.filter(|generation| ring.key(*generation).is_none()) {
            context.terminal.warn(&format!(
                "vault {address} has a key slot of generation {generation}, which the keys here have not, and took none of the slots here: what opens \
                 this store does not open that vault. If the keys were rotated elsewhere, `holdfast key refresh` brings them here; if not, \
                 somebody put that slot there: remove it (`holdfast key list`, `holdfast key remove SLOT --lost`), and add the vault again"
            ));
            done = Done::Partial;
        }
    }
    Ok(done)
}

/// Writes a vault into the settings of a store, unless it stands there.
pub fn remember_vault(dir: &Path, address: &str) -> Result<(), StoreError> {
    StoreSettings::change(dir, |settings| {
        if !settings.vaults.iter().any(|known| known.url == address) {
            settings.vaults.push(VaultSetting::new(address));
        }
        Ok(())
    })
}

/// Makes slots of one ring.
struct Keys<'a> {
    context: &'a Context<'a>,
    id: &'a VaultId,
    ring: &'a KeyRing,
    now: i64,
}

impl Keys<'_> {
    fn slot(
        &self,
        secret: &SlotSecret,
        label: &str,
        slots: &mut Vec<(SlotId, Vec<u8>)>,
    ) -> Result<SlotId, Failure> {
        let (id, bytes) = new_slot(self.context, self.id, self.ring, secret, label, self.now)?;
        slots.push((id, bytes));
        Ok(id)
    }

    fn machine_key(&self, slots: &mut Vec<(SlotId, Vec<u8>)>) -> Result<PathBuf, Failure> {
        let secret = SlotSecret::new_machine();
        let SlotSecret::Machine(key) = &secret else {
            return Err(Failure::failed("the machine key is of another kind"));
        };
        let file = MachineKey { vault: *self.id, key: key.clone() };
        self.slot(&secret, &format!("machine {}", self.context.settings.host), slots)?;
        let dir = self.context.settings.secrets.key_dir();
        make_private_dir(dir)?;
        Ok(file.create_in(dir)?)
    }
}

/// Gives this machine a key of its own to an open store, unless it has one that opens it: a slot in staging, the key's file beside no store. A
/// key that opens nothing, as that of a staging that was lost, is put aside.
pub fn add_machine_key(context: &Context<'_>, store: &Store, ring: &KeyRing) -> Result<(), Failure> {
    if by_machine_key(context, &Store::head(store.dir())?).is_some() {
        return Ok(());
    }
    let now = context.terminal.clock().now().seconds;
    put_aside(context, &context.settings.secrets.machine_key_file(store.id()), now)?;
    let mut slots = Vec::new();
    Keys { context, id: store.id(), ring, now }.machine_key(&mut slots)?;
    for (id, bytes) in slots {
        store.put_control(&names::slot(&id), &bytes)?;
    }
    Ok(())
}

fn put_aside(context: &Context<'_>, file: &Path, now: i64) -> Result<(), Failure> {
    let mut aside = file.as_os_str().to_owned();
    aside.push(format!(".unused-{now}"));
    match std::fs::rename(file, &aside) {
        Ok(()) => context.terminal.warn(&format!("it is now {}", aside.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("rename", file)(error).into()),
    }
    Ok(())
}

/// A new slot, opened once before it counts.
pub fn new_slot(
    context: &Context<'_>,
    id: &VaultId,
    ring: &KeyRing,
    secret: &SlotSecret,
    label: &str,
    now: i64,
) -> Result<(SlotId, Vec<u8>), Failure> {
    let params = match secret {
        SlotSecret::Passphrase(_) => KdfParams::calibrated(&**context.terminal.clock(), memory_available()),
        _ => KdfParams::floor(),
    };
    let named = |e: holdfast_store::seal::slots::SlotError| Failure::from(e.of("the new key slot"));
    let bytes = KeySlot::create(id, ring, secret, label, &params, now).map_err(named)?;
    let slot = KeySlot::read(&bytes, id).map_err(named)?;
    KeySlot::open(&bytes, id, secret).map_err(named)?;
    Ok((slot.id, bytes))
}

/// Memory that the system would give; half a GiB where it does not say.
fn memory_available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kib.map_or(512 << 20, |kib| kib * 1024)
}

/// Makes a directory for this user alone, with its parents.
pub fn make_private_dir(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(StoreError::io("make directory", dir))
}
