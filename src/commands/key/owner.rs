//! That the store's owner agrees, who has a passphrase or the words of the recovery sheet: what cannot be undone is not for whoever finds a machine's
//! key. The one place that says what that is, and how he is asked.

use std::path::Path;

use holdfast_store::seal::slots::Secret;
use holdfast_store::store::{Store, StoreHead};

use super::ring;
use crate::commands::Context;
use crate::delay::{self, Delay};
use crate::open::{secret_of, words_of};
use crate::outcome::{Failure, Kind};
use crate::writers;

/// What he is asked for, where deletions are soft: what their days do not bring back, and what takes a guard away. What else a person removes stays
/// for these days, and what the rules of the configuration let go was foreseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Points go at once.
    RemoveNow,
    /// The newest complete point of a source goes.
    RemoveNewest,
    /// By rules that suddenly let many go, which are not deleted softly.
    RemoveMany,
    /// All points of a group go.
    DeleteGroup,
    /// They go at once.
    DeleteGroupNow,
    /// What may go from vaults goes at once.
    FreeNow,
    /// A point is held no longer.
    Release,
    /// Something that opens the store does so no more.
    RemoveKey,
    /// The same of all that is not at hand.
    DropKeys,
    /// Another owner is believed.
    ChangeOwner,
    /// A vault that is not what it was is taken for right.
    AcceptVault,
    /// A vault gets no more copies, and what was known of it is forgotten.
    RemoveVault,
    /// What comes is locked there for a shorter time, or not for good.
    ShortenLocks,
    /// A disk is given up with what it holds.
    LoseAnnex,
    /// What another copy of the store relies on may go.
    TakeAnnex,
    /// What is deleted stays for a shorter time than before, and is guarded less.
    Shorten,
}

impl Act {
    /// The command, and what there is to do without his word.
    fn said(self) -> (&'static str, &'static str) {
        match self {
            Self::RemoveNow => ("forget --now", "without --now the points go when their days are over"),
            Self::RemoveNewest => (
                "forget --allow-newest",
                "a point goes without it as soon as its source has a newer complete one",
            ),
            Self::RemoveMany => {
                ("forget --yes", "points that are named, or let go by --keep options, are deleted softly")
            }
            Self::DeleteGroup => {
                ("protect stop --delete", "--keep ends the protection as well, and the points stay")
            }
            Self::DeleteGroupNow => {
                ("protect stop --delete --now", "--keep ends the protection as well, and the points stay")
            }
            Self::FreeNow => ("prune --now", "without --now what may go does so after its days of grace"),
            Self::Release => ("release", "until then the points stay held"),
            Self::RemoveKey => ("key remove", "until then the slot stays"),
            Self::DropKeys => {
                ("key rotate --drop-others", "slots of which the secret is given as well are made anew")
            }
            Self::ChangeOwner => (
                "key own",
                "it has to be that of the owner until now; docs/operations.md, \"Who made a point\", says what to do if nobody has it any more",
            ),
            Self::AcceptVault => {
                ("vault accept", "until then the vault is told as what it is, and nothing is lost by that")
            }
            Self::RemoveVault => ("vault remove", "until then the vault gets copies as before"),
            Self::ShortenLocks => {
                ("vault add --lock-days", "until then what comes is locked for as long as before")
            }
            Self::LoseAnnex => ("staging remove --lost", "when its disk is back, it leaves without"),
            Self::TakeAnnex => ("staging add --take-over", "another directory takes packs as well"),
            Self::Shorten => ("config accept", "until then the longer time holds"),
        }
    }
}

/// Asks for the owner's word, in a store that keeps for a while what people delete, or did. Others are as they are without one.
///
/// # Errors
/// `WrongKey` if there is no passphrase and no words, or what there is is not his; nothing may have been changed by then.
pub fn agrees(context: &Context<'_>, store: &Path, act: Act) -> Result<(), Failure> {
    match is_asked(context, store)? {
        true => is_asked_for(context, store, act),
        false => Ok(()),
    }
}

/// The same where he may have said it already, by the secrets that were given to do it.
pub fn agrees_by<'a>(
    context: &Context<'_>,
    store: &Path,
    act: Act,
    given: impl IntoIterator<Item = &'a Secret>,
) -> Result<(), Failure> {
    match is_asked(context, store)? {
        true => is_said(context, store, act, given),
        false => Ok(()),
    }
}

/// A configuration with mistakes takes nothing away from what held before.
fn is_asked(context: &Context<'_>, store: &Path) -> Result<bool, Failure> {
    let said = Delay::said(context.settings.config_if_any().ok().flatten());
    Ok(delay::holding(store, said)?.days > 0)
}

/// Asks for it in any store.
pub fn is_asked_for(context: &Context<'_>, store: &Path, act: Act) -> Result<(), Failure> {
    let (secrets, terminal) = (&context.settings.secrets, context.terminal);
    let mut given = Vec::new();
    given.extend(secrets.passphrase_at_hand(terminal)?.map(|text| secret_of(&text)).transpose()?);
    // Nobody is asked for both; words that are named count beside a passphrase.
    let words =
        if given.is_empty() { secrets.words_at_hand(terminal)? } else { secrets.recovery_key(terminal)? };
    given.extend(words.map(|words| words_of(&words)).transpose()?);
    is_said(context, store, act, &given)
}

/// Whether any of these secrets is the owner's.
fn is_said<'a>(
    context: &Context<'_>,
    store: &Path,
    act: Act,
    given: impl IntoIterator<Item = &'a Secret>,
) -> Result<(), Failure> {
    let (head, mut why) = (Store::head(store)?, "none was given".to_owned());
    for secret in given {
        match is_his(context, &head, secret) {
            Err(failure) if failure.kind == Kind::WrongKey => why = failure.message,
            answer => return answer,
        }
    }
    let (command, instead) = act.said();
    let message = format!(
        "`holdfast {command}` takes a passphrase or the words of the recovery sheet, whatever else opens the store: {why}; nothing was changed"
    );
    Err(Failure::new(Kind::WrongKey, message).hint(format!(
        "type it at a terminal, or name it with HOLDFAST_PASSWORD_FILE or HOLDFAST_RECOVERY_KEY_FILE; {instead}"
    )))
}

/// A slot that somebody made who had a machine's key alone does not have the owner's. In a store without an owner any person's will do.
fn is_his(context: &Context<'_>, head: &StoreHead, secret: &Secret) -> Result<(), Failure> {
    let opened = ring::open(head, secret)?;
    if !writers::is_owned(head) {
        return Ok(());
    }
    let pinned = writers::pinned(context, &head.vault)?.map(|writer| writer.admission().owner);
    match opened.ring.owner() {
        Some(owner) if pinned.is_none_or(|pinned| pinned == owner.public()) => Ok(()),
        Some(_) => Err(refused(
            "what was given has the key of another owner than the one whom this machine believes",
        )),
        None => Err(refused(
            "what was given does not have the key of the store's owner (`holdfast key list` marks what has)",
        )),
    }
}

fn refused(why: &str) -> Failure {
    Failure::new(Kind::WrongKey, why)
}
