//! This machine as a writer of a store: its key to sign with, and that it gets one whenever a person gives a secret that has the owner's key.
//!
//! Nobody is asked for anything more. Who types the passphrase or the words to make a store, to recover one, to manage its keys or to take
//! a point, admits the machine at which he does (`docs/decisions/signed-writers.md`).

use std::sync::Arc;

use holdfast_store::StoreError;
use holdfast_store::id::VaultId;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::writer::{OwnerKey, PublicKey, WriterKey};
use holdfast_store::seal::writer_file;

use crate::commands::Context;
use crate::create::make_private_dir;
use crate::outcome::Failure;

/// This machine's key to sign with. One that cannot be read is told, and nothing is signed.
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
        "this machine could not be given a key to sign with: {}; its recovery points are not signed",
        failure.message
    ));
}

/// Admits this machine, for sources of `host`, if the ring came out of a slot with the owner's key and the machine was not admitted for them. Says
/// so in a line. That it cannot be done keeps nobody from anything.
pub fn admit(context: &Context<'_>, vault: &VaultId, ring: &KeyRing, host: &str) {
    let Some(owner) = ring.owner() else { return };
    let before = of(context, vault);
    if before.as_ref().is_some_and(|writer| writer.admission().owner != owner.public()) {
        context.terminal.warn(
            "the secret that was given has the key of another owner than the one who admitted this machine: if the owner was changed, \
             `holdfast key own` here believes the new one; if nobody did that, somebody made a slot for this secret",
        );
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
    let mut hosts = vec![host.to_owned()];
    hosts.extend(before.iter().flat_map(|admission| admission.hosts.iter().cloned()));
    let now = context.terminal.clock().now().seconds;
    let writer = owner.admit(vault, &context.settings.host, &hosts, now);
    let dir = context.settings.secrets.key_dir();
    make_private_dir(dir)?;
    writer_file::save_in(dir, &writer)?;
    Ok(Some(writer))
}

/// The owner as people compare him: the first eight bytes of his public key.
pub fn short_owner(owner: &PublicKey) -> String {
    owner.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
