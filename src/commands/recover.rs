//! `holdfast recover`: the worst day, on a machine that has nothing.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use holdfast_store::catalog::VaultNo;
use holdfast_store::clock::Deadline;
use holdfast_store::error::ErrorClass;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::{Event, Monitor};
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::slots::{KeySlot, Secret};
use holdfast_store::store::{Store, StoreHead, unlock};
use holdfast_store::transfer::Transfer;
use holdfast_store::{StoreError, copy, names};
use serde::Serialize;

use super::Context;
use super::mount::{MountArgs, mount_store, serve};
use crate::create::{add_machine_key, remember_vault};
use crate::open::{
    Bounds, code_of, connect, open_slots, open_watched, typed_words_or_passphrase, words_or_passphrase,
};
use crate::outcome::{Done, Failure, Kind, Outcome};
use crate::places::refuse_own;
use crate::terminal::text;
use crate::writers;

/// Rebuild a store from a vault on a machine that has nothing
///
/// Needs the vault's address and a passphrase or the recovery sheet's 24 words, or what a camera reads of the sheet's code. Makes a store that knows all recovery
/// points within seconds and fetches their data on first touch; with --mount the tree is there to copy from. Nothing in
/// the vault is changed. A run that was cut off is finished by the same command.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast recover azure://ACCOUNT/NAME --store /srv/holdfast
  holdfast recover file:///mnt/usb/vault --store /tmp/store --mount /mnt/recovery
  HOLDFAST_RECOVERY_KEY_COMMAND='zbarimg -q --raw sheet.png' holdfast recover --store /srv/holdfast")]
pub struct RecoverArgs {
    /// The vault's address, as on the recovery sheet; without it the code of the sheet says where the vaults are
    url: Option<String>,
    /// Mount the recovery points here afterwards
    #[arg(long, value_name = "MNT")]
    mount: Option<PathBuf>,
    /// Make a key for this machine, for later commands
    #[arg(long)]
    machine_key: bool,
}

impl RecoverArgs {
    /// Whether it goes on as a mount.
    pub fn mounts(&self) -> bool {
        self.mount.is_some()
    }
}

/// What `recover --json` prints.
#[derive(Serialize)]
struct Recovered {
    message_type: &'static str,
    id: String,
    repository: String,
    points: u64,
}

/// Recovers.
pub fn run(context: &Context<'_>, args: &RecoverArgs) -> Outcome {
    let mount = args.mount.clone().map(MountArgs::at);
    let bounds = mount.as_ref().map_or(Ok(Bounds::default()), MountArgs::prepare)?;
    let dir = context.settings.store()?;
    let begun = begun_in(dir)?;
    let Opened { addresses, head, ring } = opened_vaults(context, args.url.as_deref(), dir)?;
    let was_there = begun.is_some();
    match begun {
        None => Store::adopt(dir, &whole(&head))?,
        Some(begun) if begun.vault == head.vault => {}
        Some(_) => return Err(occupied(dir, "holds another store than the vault")),
    }
    addresses.iter().try_for_each(|address| remember_vault(dir, address))?;
    let monitor = context.terminal.monitor();
    let store = open_watched(context, dir, &head.vault, &ring, bounds, &*monitor)?;
    load(&store, if was_there { &addresses } else { &[] }, &*monitor)?;
    drop(monitor);
    if args.machine_key {
        add_machine_key(context, &store, &ring)?;
        writers::admit(context, store.id(), &ring, &context.settings.host);
    }
    show(context, &store, &addresses)?;
    warn_of_sessions(context, &store)?;
    store.first_looks().iter().try_for_each(|told| context.terminal.say(told))?;
    match (&mount, &args.mount) {
        (Some(mount), Some(place)) => mount_here(context, store, mount, place),
        _ => context.terminal.say(&next_commands(dir)).map(|()| Done::Whole),
    }
}

/// What a person gave opens.
struct Opened {
    /// Addresses of vaults that hold the store, at least one.
    addresses: Vec<String>,
    head: StoreHead,
    ring: KeyRing,
}

/// The vaults, what they show, and the keys. A code that was read from the sheet names the vaults, too, and the store: the first that opens gives
/// the keys, and all that hold the store are its vaults, for one alone may lack points.
fn opened_vaults(context: &Context<'_>, url: Option<&str>, dir: &Path) -> Result<Opened, Failure> {
    if let Some(url) = url {
        // Before anybody types anything.
        let (address, head) = head_of(context, url, dir)?;
        let ring = keys_of(&head, &words_or_passphrase(context)?)?;
        return Ok(Opened { addresses: vec![address], head, ring });
    }
    let text = typed_words_or_passphrase(context)?;
    let Some(code) = code_of(&text)? else {
        return Err(Failure::usage("no vault was named, and only the code of a recovery sheet names one")
            .hint("give the vault's address: it stands on the recovery sheet"));
    };
    let (mut why, mut first) = (Failure::failed("the sheet names no vault"), None);
    let mut addresses = Vec::new();
    for url in &code.addresses {
        let shown = head_of(context, url, dir).and_then(|(address, head)| {
            if head.vault != code.vault {
                return Err(Failure::failed("it holds another store than that of the sheet"));
            }
            if first.is_none() {
                let ring = keys_of(&head, &code.secret)?;
                first = Some((head, ring));
            }
            Ok(address)
        });
        match shown {
            Ok(address) => addresses.push(address),
            Err(failure) if failure.kind == Kind::Interrupted => return Err(failure),
            Err(failure) => {
                context.terminal.warn(&format!("vault {url}: {}", failure.message));
                why = failure;
            }
        }
    }
    let Some((head, ring)) = first else {
        return Err(why.hint("give the address where the vault is now: `holdfast recover URL --store DIR`"));
    };
    Ok(Opened { addresses, head, ring })
}

/// A wrong key or a damaged config ends it before anything is made.
fn keys_of(head: &StoreHead, secret: &Secret) -> Result<KeyRing, Failure> {
    let ring = open_slots(head, secret)?;
    unlock(head, &ring)?;
    Ok(ring)
}

fn head_of(context: &Context<'_>, url: &str, dir: &Path) -> Result<(String, StoreHead), Failure> {
    let (address, transfer) = connect(context, url)?;
    refuse_own(dir, &address)?;
    let head = copy::vault_head(&transfer).map_err(|error| no_store_there(error, &address))?;
    match head.slots.is_empty() {
        true => Err(no_slots(&address)),
        false => Ok((address, head)),
    }
}

/// What the recovery sheet says that is shown.
fn next_commands(store: &Path) -> String {
    let ours = format!("holdfast --store {}", store.display());
    format!(
        "list them:                `{ours} snapshots`\n\
         show them as directories: `{ours} mount MNT`\n\
         copy files out:           `{ours} restore ID --target DIR`"
    )
}

/// Makes sure that the catalog knows what the vaults hold. Opening has done it, unless something went wrong, which here is a failure if it did
/// so with all of them. Vaults that were met before are looked at `again`: a listing may have been short, and nobody else would read
/// what came back.
pub(super) fn load(store: &Store, again: &[String], monitor: &dyn Monitor) -> Result<(), Failure> {
    let _lock = (!again.is_empty()).then(|| store.lock()).transpose()?;
    let (mut known, mut failed) = (0, None);
    for (no, address, transfer) in store.vaults() {
        if store.catalog().knows_all_in(*no)? && !again.contains(address) {
            known += 1;
            continue;
        }
        match copy::load_catalog(store, *no, transfer, monitor) {
            Err(e) if e.class() == ErrorClass::Cancelled => return Err(e.into()),
            Err(e) => {
                let reason = format!("what it holds is not known yet: {e}");
                monitor.event(Event::Problem { path: address.clone().into_bytes(), reason });
                failed = Some(e);
            }
            Ok(()) => known += 1,
        }
    }
    match failed {
        Some(e) if known == 0 => Err(e.into()),
        _ => Ok(()),
    }
}

/// Tells of vaults that have sessions and no points.
fn warn_of_sessions(context: &Context<'_>, store: &Store) -> Result<(), Failure> {
    for (no, address, transfer) in store.vaults() {
        // Of one that could not be asked that was told.
        if !store.catalog().knows_all_in(*no)? {
            continue;
        }
        match only_sessions(store, *no, transfer) {
            Ok(0) => {}
            Ok(n) => {
                let speak = sessions_speak(n);
                context
                    .terminal
                    .warn(&format!("vault {address} shows no recovery point, and {speak}; {NO_POINTS}"));
            }
            Err(failure) => context.terminal.warn(&format!("vault {address}: {}", failure.message)),
        }
    }
    Ok(())
}

/// What is to be done about a vault without points.
pub(super) const NO_POINTS: &str = "see that it is the vault that was meant, recover from another one, and ask who keeps it: what the storage \
                                    account keeps `holdfast vault undelete` brings back";

/// What sessions without points say.
pub(super) fn sessions_speak(n: u64) -> String {
    let sessions = text::count(n, "session");
    format!("{sessions} there speak of uploads: the points are gone, or no upload ever ended")
}

/// How many points sessions of a vault speak of, where it shows no point; of those that it does not say to have been removed, or given up.
pub(super) fn only_sessions(store: &Store, no: VaultNo, transfer: &Transfer) -> Result<u64, Failure> {
    if !store.catalog().lines_in(no)?.is_empty() {
        return Ok(0);
    }
    let ended = transfer.list_as(names::POINTS, Deadline::NEVER, |object| {
        names::outcome_of(&object.name).map(|(_, attempt)| attempt.point)
    })?;
    let ended: HashSet<RecoveryPointId> = ended.into_iter().collect();
    let spoken_of =
        transfer.list_as(names::SESSIONS, Deadline::NEVER, |object| {
            match names::Named::parse(object.name.as_str())? {
                names::Named::Session(attempt) => Some(attempt.point),
                _ => None,
            }
        })?;
    let without: HashSet<RecoveryPointId> =
        spoken_of.into_iter().filter(|point| !ended.contains(point)).collect();
    Ok(without.len() as u64)
}

/// The store that an earlier run which was cut off made, if there is one; a failure if something else is there. What a run left
/// that was cut off while it made the store is nothing.
fn begun_in(dir: &Path) -> Result<Option<StoreHead>, Failure> {
    match Store::head(dir) {
        Ok(head) => Ok(Some(head)),
        Err(StoreError::NoStore { .. }) if Store::may_be_made_in(dir).is_ok() => Ok(None),
        Err(_) if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) => {
            Err(occupied(dir, "is not empty"))
        }
        Err(StoreError::NoStore { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn occupied(dir: &Path, how: &str) -> Failure {
    Failure::failed(format!("{} {how}", dir.display())).hint("name a new directory with --store")
}

/// A vault that answers and holds no store is most likely another one than was meant.
fn no_store_there(error: StoreError, address: &str) -> Failure {
    match error {
        StoreError::NotFound { .. } => {
            Failure::new(Kind::NoStore, format!("no store in the vault {address}"))
                .hint("check the address: it stands on the recovery sheet")
        }
        other => other.into(),
    }
}

/// The same without slots that came damaged: where they are whole they can be had again, and here they would open nothing.
pub(super) fn whole(head: &StoreHead) -> StoreHead {
    let mut head = head.clone();
    head.slots.retain(|(_, bytes)| KeySlot::read(bytes, &head.vault).is_ok());
    head
}

/// No passphrase is to blame: there is nothing that it could open.
fn no_slots(address: &str) -> Failure {
    Failure::failed(format!("the vault {address} shows the config of a store and no key slot")).hint(
        "its directory or container of keys was emptied, or something on the way answers in its place; \
         where the store still is, `holdfast vault add URL` puts the slots back",
    )
}

fn show(context: &Context<'_>, store: &Store, addresses: &[String]) -> Result<(), Failure> {
    // Not `points`: they would stay in memory for the life of a mount.
    let points = store.catalog().point_ids()?.len() as u64;
    if context.terminal.json() {
        let dir = store.dir().display().to_string();
        let recovered =
            Recovered { message_type: "recovered", id: store.id().hex(), repository: dir, points };
        return context.terminal.json_line(&recovered);
    }
    context.terminal.say(&format!(
        "{} of {} {} known to the store in {}",
        text::count(points, "recovery point"),
        addresses.join(" and "),
        if points == 1 { "is" } else { "are" },
        store.dir().display()
    ))
}

fn mount_here(context: &Context<'_>, store: Store, args: &MountArgs, place: &Path) -> Outcome {
    if !place.exists() {
        std::fs::create_dir_all(place).map_err(|error| Failure::io("make", place, &error))?;
    }
    let mut mount = mount_store(context, Arc::new(store), args)?;
    context.terminal.say(&format!("mounted at {}; Ctrl-C unmounts", mount.mountpoint().display()))?;
    serve(context, &mut mount)
}
