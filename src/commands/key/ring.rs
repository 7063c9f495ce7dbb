//! From a secret to the slot that it opens: unlike opening a store, managing keys has to know which one that was.

use holdfast_store::StoreError;
use holdfast_store::id::SlotId;
use holdfast_store::names;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::slots::{KeySlot, Secret, SlotError};
use holdfast_store::store::StoreHead;

use crate::open::newest_first;
use crate::outcome::Failure;
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
