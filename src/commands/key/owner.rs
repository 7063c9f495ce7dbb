//! That a person agrees who has a passphrase or the words of the recovery sheet: what cannot be undone is not for whoever finds a machine's key.

use holdfast_store::seal::slots::Secret;
use holdfast_store::store::{Store, StoreHead};

use super::ring;
use crate::commands::Context;
use crate::open::{secret_of, words_of};
use crate::outcome::{Failure, Kind};

/// Asks for a passphrase or the words, and whether they open the store.
///
/// # Errors
/// `WrongKey` if there is none, or it opens nothing; `what` is what it was asked for.
pub fn consents(context: &Context<'_>, store: &Store, what: &str) -> Result<(), Failure> {
    let (secrets, head) = (&context.settings.secrets, Store::head(store.dir())?);
    if let Some(text) = secrets.passphrase_at_hand(context.terminal)? {
        return opens(&head, &secret_of(&text)?);
    }
    if let Some(words) = secrets.words_at_hand(context.terminal)? {
        return opens(&head, &words_of(&words)?);
    }
    let message = format!(
        "{what} takes a passphrase or the words of the recovery sheet, whatever else opens the store"
    );
    Err(Failure::new(Kind::WrongKey, message)
        .hint("type it at a terminal, or name it with HOLDFAST_PASSWORD_FILE or HOLDFAST_RECOVERY_KEY_FILE"))
}

fn opens(head: &StoreHead, secret: &Secret) -> Result<(), Failure> {
    ring::open(head, secret).map(drop)
}
