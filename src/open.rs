//! Opening a store from the program: which directory, which secret, which vaults.

mod bound;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::chance::SystemChance;
use holdfast_store::clock::{Clock, within};
use holdfast_store::error::ErrorClass;
use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::monitor::Monitor;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::sheet::{SheetCode, WORDS, parse_code, parse_words};
use holdfast_store::seal::slots::{KeySlot, Secret, SlotError, SlotKind};
use holdfast_store::store::{Settings as StoreSettings, Store, StoreHead, StoreOptions};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::vault::address::{self, VaultAddress};
use holdfast_store::vault::keeper::LockTerms;
use holdfast_store::vault::unaddressable::UnaddressableVault;
use holdfast_store::vault::{Vault, VaultError};
use holdfast_store::{StoreError, names};

use crate::commands::Context;
use crate::create::make_private_dir;
use crate::outcome::{Failure, Kind};
use crate::secrets::{Secret as TypedSecret, Secrets};
use crate::terminal::Terminal;
use crate::writers;

/// Bound of the cache of vault ranges until somebody says another.
const CACHE_LIMIT: u64 = 10 << 30;
/// Decoded frames that verbs keep in memory.
const FRAMES: usize = 24 << 20;
/// How long it may take to keep what is said of the cache.
const A_MOMENT: Duration = Duration::from_secs(3);
/// Bytes on their way from vaults, at most, where nobody says otherwise.
const IN_FLIGHT: u64 = 64 << 20;

/// How much a verb may keep.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the cache of vault ranges on disk, if somebody said so; else as was said last.
    pub cache: Option<u64>,
    /// Bytes of decoded frames in memory.
    pub memory: usize,
    /// Bytes on their way from vaults.
    pub in_flight: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { cache: None, memory: FRAMES, in_flight: IN_FLIGHT }
    }
}

/// Opens the store that the settings name: by this machine's key, else by the recovery key or passphrase.
pub fn open_store(context: &Context<'_>) -> Result<Store, Failure> {
    open_store_with(context, Bounds::default())
}

/// The same for who takes points of `host`: a person who gave the passphrase or the words admits this machine.
pub fn open_store_to_write(context: &Context<'_>, host: &str) -> Result<Store, Failure> {
    let dir = context.settings.store()?;
    let head = Store::head(dir)?;
    let ring = unlock(context, &head)?;
    writers::admit(context, &head.vault, &ring, host);
    let store = open_unlocked(context, dir, &head.vault, &ring, Bounds::default())?;
    writers::tell_if_unsigned(context, &head, store.writer(), host);
    Ok(store)
}

/// The same within other bounds.
pub fn open_store_with(context: &Context<'_>, bounds: Bounds) -> Result<Store, Failure> {
    let dir = context.settings.store()?;
    let head = Store::head(dir)?;
    let ring = unlock(context, &head)?;
    open_unlocked(context, dir, &head.vault, &ring, bounds)
}

/// Opens a store whose ring is known.
pub fn open_unlocked(
    context: &Context<'_>,
    dir: &Path,
    id: &VaultId,
    ring: &KeyRing,
    bounds: Bounds,
) -> Result<Store, Failure> {
    open_watched(context, dir, id, ring, bounds, &*context.terminal.monitor_of_opening())
}

/// The same, telling what opening finds to a monitor of the caller's.
pub fn open_watched(
    context: &Context<'_>,
    dir: &Path,
    id: &VaultId,
    ring: &KeyRing,
    bounds: Bounds,
    monitor: &dyn Monitor,
) -> Result<Store, Failure> {
    let vaults = vaults_of(context, dir)?;
    let cache_dir = (!vaults.is_empty()).then(|| cache_dir(context, id));
    let options = StoreOptions {
        cache_limit: cache_limit(&**context.terminal.clock(), cache_dir.as_deref(), bounds.cache),
        cache_dir,
        memory: bounds.memory,
        in_flight: bounds.in_flight,
        vaults,
        clock: Arc::clone(context.terminal.clock()),
        chance: Arc::new(SystemChance),
        writer: writers::of(context, id),
    };
    writers::tell_other_owner(context, options.writer.as_deref(), ring);
    Ok(Store::open(dir, ring, options, monitor)?)
}

/// Where a store's vault ranges are cached.
pub fn cache_dir(context: &Context<'_>, id: &VaultId) -> PathBuf {
    context.settings.cache_dir.join(id.hex())
}

/// The bound of the cache: what is said now, which is kept for whoever says nothing, or what was said last. Otherwise a look
/// at a list of files would let go of all that somebody fetched with a greater bound.
fn cache_limit(clock: &dyn Clock, dir: Option<&Path>, said: Option<u64>) -> u64 {
    let kept = dir.and_then(bound::read);
    if let (Some(dir), Some(limit)) = (dir, said.filter(|said| Some(*said) != kept)) {
        let dir = dir.to_path_buf();
        // If it cannot be written, the cache cannot be either; nobody waits for a disk that takes no writes.
        let write = move || drop((make_private_dir(&dir), bound::write(&dir, limit)));
        let _ = within(clock, A_MOMENT, write);
    }
    said.or(kept).unwrap_or(CACHE_LIMIT)
}

/// The vaults in a store's settings. One that cannot even be addressed is a warning and stays among them: local work goes on
/// without it, and whoever asks it for something fails.
fn vaults_of(context: &Context<'_>, dir: &Path) -> Result<Vec<(String, Arc<Transfer>)>, Failure> {
    let mut vaults = Vec::new();
    for vault in StoreSettings::load(dir)?.vaults {
        match connect_locking(context, &vault.url, vault.lock()) {
            Ok((address, transfer)) => vaults.push((address, transfer)),
            Err(failure) => {
                context.terminal.warn(&format!("vault {}: {}", vault.url, failure.message));
                let lost = UnaddressableVault::new(vault.url.clone(), failure.message);
                vaults.push((vault.url, transfer_to(context, Arc::new(lost))?));
            }
        }
    }
    Ok(vaults)
}

/// The way to a vault, and its address in the one form that is kept. It ends when the program is asked to stop.
pub fn connect(context: &Context<'_>, url: &str) -> Result<(String, Arc<Transfer>), Failure> {
    connect_locking(context, url, None)
}

/// The same for what must be done even when the program is asked to stop: taking back what would else be half done.
pub fn connect_to_the_end(context: &Context<'_>, url: &str) -> Result<(String, Arc<Transfer>), Failure> {
    to_the_end(context, url, None)
}

/// As [`connect`], locking what stays when it is put.
fn connect_locking(
    context: &Context<'_>,
    url: &str,
    lock: Option<LockTerms>,
) -> Result<(String, Arc<Transfer>), Failure> {
    let (address, transfer) = to_the_end(context, url, lock)?;
    transfer.cancel_when(Arc::clone(context.terminal.stop_flag()));
    Ok((address, transfer))
}

fn to_the_end(
    context: &Context<'_>,
    url: &str,
    lock: Option<LockTerms>,
) -> Result<(String, Arc<Transfer>), Failure> {
    let address = parse_address(url)?;
    let vault = address::open_locking(&address, &context.settings.credentials, lock)?;
    Ok((address.to_string(), transfer_to(context, vault)?))
}

/// A vault's address as a person types it: a plain path may be relative.
pub fn parse_address(url: &str) -> Result<VaultAddress, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::usage(format!("the vault {url:?}: {error}"));
    if url.contains("://") {
        return url.parse().map_err(|error: VaultError| usage(&error));
    }
    std::path::absolute(url).map(VaultAddress::Directory).map_err(|error| usage(&error))
}

fn transfer_to(context: &Context<'_>, vault: Arc<dyn Vault>) -> Result<Arc<Transfer>, Failure> {
    let address = vault.address();
    let transfer = Transfer::new(vault, Arc::clone(context.terminal.clock()), TransferPolicy::default())?;
    let warn = context.terminal.warner();
    transfer.tell_retries(move |error| warn(&format!("vault {address}: {error}; trying again")));
    Ok(transfer)
}

/// The key ring: by this machine's key if there is one, else by the words or the passphrase that are named or typed.
pub fn unlock(context: &Context<'_>, head: &StoreHead) -> Result<KeyRing, Failure> {
    open_as_ever(context, head, open_slots)
}

/// What `open` makes of the secret that opens the store for every verb: this machine's key, else the words that are named, else the
/// passphrase. A machine's key that does not is told and left aside.
pub fn open_as_ever<T>(
    context: &Context<'_>,
    head: &StoreHead,
    open: impl Fn(&StoreHead, &Secret) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if let Some(opened) = with_machine_key(context, head, &open) {
        return Ok(opened);
    }
    open(head, &named_or(context, Secrets::passphrase)?)
}

/// What a person knows, as it is named or typed: never the machine's key.
pub fn words_or_passphrase(context: &Context<'_>) -> Result<Secret, Failure> {
    named_or(context, Secrets::passphrase_or_words)
}

/// The same as text: the code of a sheet says more than the key.
pub fn typed_words_or_passphrase(context: &Context<'_>) -> Result<TypedSecret, Failure> {
    let secrets = &context.settings.secrets;
    match secrets.recovery_key(context.terminal)? {
        Some(words) => Ok(words),
        None => secrets.passphrase_or_words(context.terminal),
    }
}

/// The words of the recovery key if they are named, else what `ask` brings.
fn named_or(
    context: &Context<'_>,
    ask: impl Fn(&Secrets, &Terminal) -> Result<TypedSecret, Failure>,
) -> Result<Secret, Failure> {
    let secrets = &context.settings.secrets;
    match secrets.recovery_key(context.terminal)? {
        Some(words) => words_of(&words),
        None => secret_of(&ask(secrets, context.terminal)?),
    }
}

/// The key ring, if this machine has a key that opens it; a key that does not is told and left aside.
pub fn by_machine_key(context: &Context<'_>, head: &StoreHead) -> Option<KeyRing> {
    with_machine_key(context, head, &open_slots)
}

fn with_machine_key<T>(
    context: &Context<'_>,
    head: &StoreHead,
    open: &impl Fn(&StoreHead, &Secret) -> Result<T, Failure>,
) -> Option<T> {
    context.settings.secrets.machine_keys(&head.vault).into_iter().find_map(|found| {
        let told = |failure: &Failure| {
            let what = format!("this machine's key {}: {}", found.path.display(), failure.message);
            context.terminal.warn(&what);
        };
        let key = found.key.map_err(Failure::from);
        key.and_then(|key| open(head, &key.secret())).inspect_err(told).ok()
    })
}

/// What the code of a recovery sheet says, if the text is one.
pub fn code_of(text: &TypedSecret) -> Result<Option<SheetCode>, Failure> {
    let code = parse_code(text.reveal()).transpose();
    code.map_err(|error| Failure::new(Kind::WrongKey, error.to_string()))
}

/// 24 words are the recovery key, anything else is a passphrase. About as many words are meant as the key, and one that is mistyped
/// should be named.
pub fn secret_of(text: &TypedSecret) -> Result<Secret, Failure> {
    let count = text.reveal().split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).count();
    match words_of(text) {
        Ok(words) => Ok(words),
        Err(failure) if (WORDS - 2..=WORDS + 2).contains(&count) || parse_code(text.reveal()).is_some() => {
            Err(failure)
        }
        Err(_) => Ok(Secret::Passphrase(text.reveal().to_owned().into())),
    }
}

/// The words of the recovery key, in the first line or in all of them: what follows the words may be notes. What a camera reads from the sheet
/// is as good as the words.
pub fn words_of(text: &TypedSecret) -> Result<Secret, Failure> {
    if let Some(code) = code_of(text)? {
        return Ok(code.secret);
    }
    let first = text.reveal().lines().next().unwrap_or_default();
    let read = parse_words(first).or_else(|_| parse_words(text.reveal()));
    read.map_err(|error| Failure::new(Kind::WrongKey, format!("the recovery key: {error}")))
}

/// The slots, those with the newest key generation first, and of those the one that was made last: where the keys are being rotated, or another owner
/// was made, one secret may open two.
pub fn newest_first(head: &StoreHead) -> Vec<&(SlotId, Vec<u8>)> {
    let newest = |(_, bytes): &(SlotId, Vec<u8>)| {
        KeySlot::read(bytes, &head.vault).map_or((0, i64::MIN), |slot| (slot.newest(), slot.created))
    };
    let mut slots: Vec<_> = head.slots.iter().collect();
    slots.sort_by_key(|slot| std::cmp::Reverse(newest(slot)));
    slots
}

/// The ring from the first slot of the secret's kind that opens. Damaged slots are passed over, and named if none opens.
pub fn open_slots(head: &StoreHead, secret: &Secret) -> Result<KeyRing, Failure> {
    let (mut tried, mut damage) = (0, None);
    for (id, bytes) in newest_first(head) {
        match KeySlot::open(bytes, &head.vault, secret) {
            Ok((ring, _)) => return Ok(ring),
            Err(SlotError::WrongKind { .. }) => {}
            Err(SlotError::WrongKey(_)) => tried += 1,
            Err(error) => damage = Some(error.of(names::slot(id).as_str())),
        }
    }
    match damage {
        Some(error) if tried == 0 || error.class() == ErrorClass::Unsupported => Err(error.into()),
        _ => {
            let kind = match secret.kind() {
                SlotKind::Passphrase => "passphrase",
                SlotKind::Recovery => "recovery key",
                SlotKind::Machine => "machine key",
            };
            let detail = match tried {
                0 => format!("the store has no slot for a {kind}"),
                _ => format!("the {kind} opens none of the store's slots"),
            };
            Err(StoreError::WrongKey { detail }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_store::clock::SystemClock;

    use super::*;

    #[test]
    fn the_bound_of_the_cache_is_what_was_said_last() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache/store");
        assert_eq!(cache_limit(&SystemClock, Some(&cache), None), CACHE_LIMIT);
        assert_eq!(cache_limit(&SystemClock, Some(&cache), Some(5 << 30)), 5 << 30);
        assert_eq!(cache_limit(&SystemClock, Some(&cache), None), 5 << 30);
        std::fs::write(cache.join(bound::FILE), "much").unwrap();
        assert_eq!(cache_limit(&SystemClock, Some(&cache), None), CACHE_LIMIT);
        assert_eq!(cache_limit(&SystemClock, None, Some(7)), 7);
    }

    fn kind(text: &str) -> Result<SlotKind, String> {
        secret_of(&TypedSecret::new(text.to_owned()))
            .map(|secret| secret.kind())
            .map_err(|failure| failure.message)
    }

    #[test]
    fn words_are_taken_for_words_and_a_mistyped_one_is_named() {
        let words = "abandon ".repeat(23) + "art";
        assert_eq!(kind(&words), Ok(SlotKind::Recovery));
        assert_eq!(kind("correct horse battery staple"), Ok(SlotKind::Passphrase));
        let failure = kind(&words.replace("art", "arrt")).unwrap_err();
        assert!(failure.contains("word 24"), "{failure}");
        assert!(kind(&"abandon ".repeat(23)).unwrap_err().contains("24 words"));
    }

    #[test]
    fn words_may_stand_in_lines_with_numbers_and_notes_may_follow_a_line_that_has_them_all() {
        let row = |n: usize| format!(" {n} abandon {} ABANDON {} aban {} abandon\n", n + 1, n + 2, n + 3);
        let mut rows: String = (0..5).map(|n| row(n * 4 + 1)).collect();
        rows += "21 abandon 22 abandon 23 abandon 24 art\n";
        assert_eq!(kind(&rows), Ok(SlotKind::Recovery));
        assert!(kind(&rows.replace("art", "arrt")).unwrap_err().contains("word 24"));
        let noted = "abandon ".repeat(23) + "art\nin the safe of the office";
        assert_eq!(kind(&noted), Ok(SlotKind::Recovery));
    }
}
