//! From a secret to the slot that it opens: unlike opening a store, managing keys has to know which one that was.

use holdfast_store::StoreError;
use holdfast_store::id::SlotId;
use holdfast_store::names;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::slots::{KeySlot, Secret, SlotError};
use holdfast_store::store::StoreHead;

use crate::open::newest_first;
use crate::outcome::{Failure, Kind};
use crate::secrets::Secret as TypedSecret;

/// A slot that was opened.
pub struct Opened {
    /// Which one.
    pub slot: SlotId,
    /// What was in it.
    pub ring: KeyRing,
    /// The word that people gave it.
    pub label: String,
}

/// Opens the first slot that the secret fits.
pub fn open(head: &StoreHead, secret: &Secret) -> Result<Opened, Failure> {
    let mut damage = None;
    for (id, bytes) in newest_first(head) {
        match KeySlot::open(bytes, &head.vault, secret) {
            Ok((ring, label)) => return Ok(Opened { slot: *id, ring, label }),
            Err(SlotError::WrongKind { .. } | SlotError::WrongKey(_)) => {}
            Err(error) => damage = Some(error.of(names::slot(id).as_str())),
        }
    }
    let detail = format!("the {} opens none of {} slots", secret.kind(), head.slots.len());
    let failure = Failure::from(StoreError::WrongKey { detail });
    Err(match damage {
        Some(error) => failure.caused_by_text(error.to_string()),
        None => failure,
    })
}

/// What a person knows, as typed.
pub fn passphrase(text: &TypedSecret) -> Secret {
    Secret::Passphrase(text.reveal().to_owned().into())
}

/// Refuses a ring that lacks a key generation which some slot of a place names: what that one seals it does not open.
pub fn refuse_older(place: &str, head: &StoreHead, ring: &KeyRing) -> Result<(), Failure> {
    let read = |(_, bytes): &(SlotId, Vec<u8>)| KeySlot::read(bytes, &head.vault).ok();
    let named = head.slots.iter().filter_map(read).map(|slot| slot.newest());
    match named.filter(|generation| *generation > 0).find(|generation| ring.key(*generation).is_none()) {
        None => Ok(()),
        Some(generation) => Err(lacks(place, &format!("key generation {generation}"))),
    }
}

/// Refuses a ring that lacks the generation with which something in a place is sealed; 0 is none.
pub fn refuse_sealed(place: &str, generation: u32, ring: &KeyRing) -> Result<(), Failure> {
    if generation == 0 || ring.key(generation).is_some() {
        return Ok(());
    }
    let failure = lacks(place, &format!("key generation {generation}, with which points there are sealed,"));
    Err(failure.hint(
        "use the passphrase or sheet of the last `holdfast key rotate`; if nobody rotated the keys, somebody put a point there that nobody made: \
         `holdfast check` names it",
    ))
}

/// Refuses a slot of a place that opens to less than another ring has.
pub fn refuse_less(place: &str, opened: &Opened, ring: &KeyRing) -> Result<(), Failure> {
    if opened.ring.has_all_of(ring) {
        return Ok(());
    }
    Err(lacks(place, &format!("all keys, by slot {},", opened.slot)))
}

fn lacks(place: &str, what: &str) -> Failure {
    let said =
        format!("{place}: {what} is not what this opens: some of what is stored it does not give back");
    Failure::new(Kind::WrongKey, said)
        .hint("use the passphrase or sheet of the last `holdfast key rotate`, or rotate again")
}
