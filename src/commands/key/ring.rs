//! From a secret to the slot that it opens: unlike opening a store, managing keys has to know which one that was.

use holdfast_store::StoreError;
use holdfast_store::id::SlotId;
use holdfast_store::names;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::sheet::{WORDS, parse_words};
use holdfast_store::seal::slots::{KeySlot, Secret, SlotError};
use holdfast_store::store::StoreHead;

use crate::commands::Context;
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
    for (id, bytes) in &head.slots {
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

/// Opens the store by what opens it for every other verb: this machine's key, the words that are named, the passphrase.
pub fn open_as_ever(context: &Context<'_>, head: &StoreHead) -> Result<Opened, Failure> {
    let secrets = &context.settings.secrets;
    let file = secrets.machine_key_file(&head.vault);
    if file.exists() {
        match MachineKey::read(&file).map_err(Failure::from).and_then(|key| open(head, &key.secret())) {
            Ok(opened) => return Ok(opened),
            Err(failure) => {
                let text = format!("this machine's key {}: {}", file.display(), failure.message);
                context.terminal.warn(&text);
            }
        }
    }
    match secrets.recovery_key(context.terminal)? {
        Some(words) => open(head, &words_of(words.reveal())?),
        None => open(head, &words_or_else_passphrase(&secrets.passphrase(context.terminal)?)?),
    }
}

/// A secret that is to be proven: never that of the machine.
pub fn words_or_passphrase(context: &Context<'_>) -> Result<Secret, Failure> {
    let secrets = &context.settings.secrets;
    match secrets.recovery_key(context.terminal)? {
        Some(words) => words_of(words.reveal()),
        None => words_or_else_passphrase(&secrets.passphrase_or_words(context.terminal)?),
    }
}

/// What a person knows, as typed.
pub fn passphrase(text: &TypedSecret) -> Secret {
    Secret::Passphrase(text.reveal().to_owned().into())
}

fn words_of(text: &str) -> Result<Secret, Failure> {
    parse_words(text).map_err(|error| Failure::new(Kind::WrongKey, format!("the recovery key: {error}")))
}

/// About as many words as a recovery key has are meant as one, and a word that is mistyped in it should be named.
fn words_or_else_passphrase(text: &TypedSecret) -> Result<Secret, Failure> {
    let count = text.reveal().split_whitespace().count();
    match words_of(text.reveal()) {
        Ok(words) => Ok(words),
        Err(failure) if (WORDS - 2..=WORDS + 2).contains(&count) => Err(failure),
        Err(_) => Ok(passphrase(text)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_store::seal::slots::SlotKind;

    use super::*;

    fn kind(text: &str) -> Result<SlotKind, String> {
        let typed = TypedSecret::new(text.to_owned());
        words_or_else_passphrase(&typed).map(|secret| secret.kind()).map_err(|failure| failure.message)
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
}
