//! This machine as a writer of a store: its key to sign with, and that it gets one whenever a person gives a secret that has the owner's key.
//!
//! Nobody is asked for anything more. Who types the passphrase or the words to make a store, to recover one, to manage its keys or to take
//! a point, admits the machine at which he does (`docs/decisions/signed-writers.md`).

use std::sync::Arc;

use holdfast_store::StoreError;
use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::slots::{KeySlot, SlotKind};
use holdfast_store::seal::writer::{Admission, HOSTS_MAX, OwnerKey, PublicKey, WriterKey};
use holdfast_store::seal::writer_file;
use holdfast_store::store::StoreHead;

use crate::commands::Context;
use crate::create::make_private_dir;
use crate::outcome::Failure;

/// This machine's key to sign with, for who changes it or what hangs on it: a file that cannot be read is not one that is not there, for it says
/// which owner this machine believes.
pub fn pinned(context: &Context<'_>, vault: &VaultId) -> Result<Option<Arc<WriterKey>>, Failure> {
    let dir = context.settings.secrets.key_dir();
    let failed = |e: StoreError| {
        Failure::from(e).hint(format!(
            "{} says which owner this machine believes, and nothing was changed: put it right; if it is lost, move it away, and \
             `holdfast key own` admits this machine anew",
            writer_file::path_in(dir, vault).display()
        ))
    };
    Ok(writer_file::read_in(dir, vault).map_err(failed)?.map(Arc::new))
}

/// The same for who signs: one that cannot be read is told, and nothing is signed.
pub fn of(context: &Context<'_>, vault: &VaultId) -> Option<Arc<WriterKey>> {
    let read = writer_file::read_in(context.settings.secrets.key_dir(), vault);
    let told = |e: &StoreError| context.terminal.warn(&format!("{e}: what this machine makes is not signed"));
    read.inspect_err(told).ok().flatten().map(Arc::new)
}

/// Admits the machine that made a store: nothing is said of what is as it should be.
pub fn admit_first(context: &Context<'_>, vault: &VaultId, ring: &KeyRing) {
    let host = &context.settings.host;
    let made = ring.owner().map(|owner| admit_anew(context, vault, owner, None, host));
    if let Some(Err(failure)) = made {
        tell_unsigned(context, &failure);
    }
}

fn tell_unsigned(context: &Context<'_>, failure: &Failure) {
    context.terminal.warn(&format!(
        "this machine could not be given a key to sign with: {}; its recovery points are not signed{}",
        failure.message,
        failure.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default()
    ));
}

/// Admits this machine, for sources of `host`, if the ring came out of a slot with the owner's key and the machine was not admitted for them. Says
/// so in a line. That it cannot be done keeps nobody from anything.
pub fn admit(context: &Context<'_>, vault: &VaultId, ring: &KeyRing, host: &str) {
    let Some(owner) = ring.owner() else { return };
    let before = match pinned(context, vault) {
        Ok(before) => before,
        Err(failure) => return tell_unsigned(context, &failure),
    };
    // Who opens the store tells that.
    if before.as_ref().is_some_and(|writer| writer.admission().owner != owner.public()) {
        return;
    }
    match admit_anew(context, vault, owner, before.as_deref(), host) {
        Ok(Some(writer)) => {
            let id = writer.admission().id().short();
            let _ = context
                .terminal
                .say(&format!("this machine signs its recovery points from now on, as writer {id}"));
        }
        Ok(None) => {}
        Err(failure) => tell_unsigned(context, &failure),
    }
}

/// Tells that a secret has another owner's key than the one who admitted this machine, who is the one that it believes.
pub fn tell_other_owner(context: &Context<'_>, writer: Option<&WriterKey>, ring: &KeyRing) {
    let (Some(writer), Some(owner)) = (writer, ring.owner()) else { return };
    if writer.admission().owner != owner.public() {
        context.terminal.warn(&format!(
            "the secret that was given has the key of another owner than the one who admitted this machine, whom it still believes: if the \
             owner was changed, `holdfast key own --believe {}` here believes the new one; if nobody did that, somebody made a slot for this \
             secret",
            short_owner(&owner.public())
        ));
    }
}

/// Tells that points of `host` made here are not signed, in a store whose owner says who may write: on other machines they are alarms.
pub fn tell_if_unsigned(context: &Context<'_>, head: &StoreHead, writer: Option<&WriterKey>, host: &str) {
    let is_signed = writer.is_some_and(|writer| writer.admission().may_write(host));
    if is_signed || writer.is_none() && !is_owned(head) {
        return;
    }
    let why = match writer {
        Some(_) => format!("the store's owner did not admit this machine for host {host:?}"),
        None => "the store's owner did not admit this machine".to_owned(),
    };
    context.terminal.warn(&format!(
        "{why}: the recovery point is not signed, and other machines may take it for forged; `holdfast key own` here, with the passphrase or \
         the words, admits it, and so does `holdfast backup` with them for another host"
    ));
}

/// Whether any slot that people open says that it has the owner's key.
pub fn is_owned(head: &StoreHead) -> bool {
    let read = |(_, bytes): &(SlotId, Vec<u8>)| KeySlot::read(bytes, &head.vault).ok();
    head.slots.iter().filter_map(read).any(|slot| slot.kind != SlotKind::Machine && slot.has_owner)
}

/// The same, whoever admitted it before: the new key, or nothing if the one that is there will do.
pub fn admit_anew(
    context: &Context<'_>,
    vault: &VaultId,
    owner: &OwnerKey,
    before: Option<&WriterKey>,
    host: &str,
) -> Result<Option<WriterKey>, Failure> {
    let before = before.map(WriterKey::admission).filter(|admission| admission.owner == owner.public());
    if before.is_some_and(|admission| admission.may_write(host)) {
        return Ok(None);
    }
    refuse_unnameable(host)?;
    if before.is_some_and(|admission| admission.hosts.len() >= HOSTS_MAX) {
        let file = writer_file::path_in(context.settings.secrets.key_dir(), vault);
        let message =
            format!("it signs for {HOSTS_MAX} hosts already, and host {host:?} would be one too many");
        return Err(Failure::failed(message).hint(format!(
            "if it does not need them all any more, move {} away: `holdfast key own` begins anew",
            file.display()
        )));
    }
    let mut hosts = vec![host.to_owned()];
    hosts.extend(before.iter().flat_map(|admission| admission.hosts.iter().cloned()));
    let now = context.terminal.clock().now().seconds;
    let writer = owner.admit(vault, &context.settings.host, &hosts, now);
    let dir = context.settings.secrets.key_dir();
    make_private_dir(dir)?;
    writer_file::save_in(dir, &writer)?;
    Ok(Some(writer))
}

/// Refuses the name of a host that cannot stand in an admission: a key that was made for it would not be for it.
pub fn refuse_unnameable(host: &str) -> Result<(), Failure> {
    match Admission::can_name(host) {
        true => Ok(()),
        false => {
            let message =
                format!("points of host {host:?} cannot be signed: its name is too long, or no plain text");
            Err(Failure::usage(message).hint("give another with --host, or in the settings"))
        }
    }
}

/// The owner as people compare him: the first eight bytes of his public key.
pub fn short_owner(owner: &PublicKey) -> String {
    owner.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
