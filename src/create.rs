//! Making a store with its keys and vaults, for `init` and `quickstart`.

use std::path::{Path, PathBuf};

use holdfast_store::format::config::StoreConfig;
use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::seal::Sealer;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::{RecoverySheet, words_of};
use holdfast_store::seal::slots::{KdfParams, KeySlot, Secret as SlotSecret};
use holdfast_store::store::{Settings as StoreSettings, Store, VaultSetting};
use holdfast_store::{StoreError, copy, names};
use serde::Serialize;

use crate::commands::Context;
use crate::open::{Bounds, connect, open_unlocked};
use crate::outcome::Failure;
use crate::secrets::Secret;
use crate::terminal::Terminal;

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
    /// Addresses of its vaults as they are kept.
    pub vaults: Vec<String>,
    /// Why not all vaults are ready, if so. Whoever made the store ends with it, after the sheet reached a person: there is
    /// no second chance to show that.
    pub vault_failure: Option<Failure>,
}

/// Makes the store, and its vaults ready. Vaults come last: what fails there can be done again with `vault add`, and is told
/// in what is returned.
pub fn make_store(context: &Context<'_>, new: &NewStore<'_>) -> Result<Made, Failure> {
    let addresses =
        new.vaults.iter().map(|url| Ok(connect(context, url)?.0)).collect::<Result<Vec<_>, Failure>>()?;
    let now = context.terminal.clock().now().seconds;
    let (id, ring) = (VaultId::random(), KeyRing::generate(now));
    let keys = Keys { context, id: &id, ring: &ring, now };
    let mut slots = Vec::new();
    let recovery = SlotSecret::new_recovery();
    let slot = keys.slot(&recovery, "recovery sheet", &mut slots)?;
    if let Some(passphrase) = new.passphrase {
        keys.slot(&SlotSecret::Passphrase(passphrase.reveal().to_owned().into()), "passphrase", &mut slots)?;
    }
    let machine_key = new.machine_key.then(|| keys.machine_key(&mut slots)).transpose()?;
    let config = StoreConfig::new(id, now);
    let sealer = Sealer::new(id, &ring, config.identity_generation).map_err(|e| e.of("the new key ring"))?;
    Store::create(new.dir, &sealer, &config, &slots).inspect_err(|_| {
        // A key to a store that was never made.
        machine_key.iter().for_each(|file| drop(std::fs::remove_file(file)));
    })?;
    let vault_failure = add_vaults(context, new.dir, &id, &ring, &addresses).err().map(store_exists);
    let SlotSecret::Recovery(key) = recovery else {
        return Err(Failure::failed("the recovery key is of another kind"));
    };
    let sheet = RecoverySheet { vault: id, addresses: addresses.clone(), key, created: now, slot };
    Ok(Made { id, sheet, machine_key, vaults: addresses, vault_failure })
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

/// Tells what was made. A recovery sheet that is in no file goes out in any case, also with `--json` and `-q`: nobody sees it
/// again.
pub fn hand_out(
    terminal: &Terminal,
    made: &Made,
    store: &Path,
    sheet_file: Option<&Path>,
) -> Result<(), Failure> {
    if terminal.json() {
        return terminal.json_line(&Initialized {
            message_type: "initialized",
            id: made.id.hex(),
            repository: store.display().to_string(),
            vaults: &made.vaults,
            machine_key: made.machine_key.as_ref().map(|file| file.display().to_string()),
            recovery_key: sheet_file.is_none().then(|| words_of(&made.sheet.key).join(" ")),
        });
    }
    match sheet_file {
        Some(file) => terminal
            .say(&format!("recovery sheet written to {}: print it, then delete it", file.display()))?,
        None => terminal.line(&made.sheet.render())?,
    }
    terminal.say(&format!("store {} made in {}", made.id, store.display()))?;
    match &made.machine_key {
        Some(file) => terminal.say(&format!("this machine's key is {}", file.display())),
        None => terminal.say("this machine has no key of its own: every command needs the passphrase"),
    }
}

/// A failure of a vault whose store was made all the same.
fn store_exists(failure: Failure) -> Failure {
    let finish = "the store exists and its recovery sheet is valid: `holdfast vault add URL` finishes it";
    let hint = match &failure.hint {
        Some(hint) => format!("{hint}; {finish}"),
        None => finish.to_owned(),
    };
    failure.hint(hint)
}

/// Makes vaults ready for a store and writes them into its settings.
pub fn add_vaults(
    context: &Context<'_>,
    dir: &Path,
    id: &VaultId,
    ring: &KeyRing,
    addresses: &[String],
) -> Result<(), Failure> {
    let mut settings = StoreSettings::load(dir)?;
    let store = open_unlocked(context, dir, id, ring, Bounds::default())?;
    let slots = Store::head(dir)?.slots;
    for url in addresses {
        let (address, transfer) = connect(context, url)?;
        copy::prepare_vault(&store, &slots, &transfer)?;
        if !settings.vaults.iter().any(|known| known.url == address) {
            settings.vaults.push(VaultSetting { url: address });
            settings.save(dir)?;
        }
    }
    Ok(())
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

/// Gives this machine a key of its own to an open store: a slot in staging, the key's file beside no store.
pub fn add_machine_key(context: &Context<'_>, store: &Store, ring: &KeyRing) -> Result<PathBuf, Failure> {
    let now = context.terminal.clock().now().seconds;
    let mut slots = Vec::new();
    let file = Keys { context, id: store.id(), ring, now }.machine_key(&mut slots)?;
    for (id, bytes) in slots {
        store.put_control(&names::slot(&id), &bytes)?;
    }
    Ok(file)
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
