//! Does a vault keep its promises? Asked once, when it is created, because some services accept the condition of
//! a put-if-absent and ignore it, and a store on such a one would be overwritten by the first retry.

use bytes::Bytes;

use super::{Inner, Try};
use crate::clock::Deadline;
use crate::id;
use crate::vault::{ObjectInfo, ObjectName, PutNew, VaultError, Verb};

/// What a probe found besides the promises, all of which were kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Whether these credentials may delete. A machine that is backed up should not be able to.
    pub may_delete: bool,
}

const FIRST: &[u8] = b"holdfast probes this vault: first put";
const SECOND: &[u8] = b"holdfast probes this vault: second, which must change nothing";

pub(super) async fn probe(inner: &Inner) -> Result<Probed, VaultError> {
    let random = id::to_hex(&id::random_bytes::<16>());
    let name = ObjectName::new(format!("hb/probe-{random}")).ok_or_else(|| broken("names"))?;
    super::put::put_new(inner, &name, Bytes::from_static(FIRST), Deadline::NEVER).await?;
    let checked = check(inner, &name).await;
    // Also after a broken promise: the object is ours and of no use to anybody.
    let deleted = inner.delete(&name).await;
    checked?;
    match deleted {
        Ok(true) => Ok(Probed { may_delete: true }),
        Ok(false) => Err(broken("an object that is there is deleted when asked")),
        Err(VaultError::Denied { .. } | VaultError::Locked { .. }) => Ok(Probed { may_delete: false }),
        Err(e) => Err(e),
    }
}

async fn check(inner: &Inner, name: &ObjectName) -> Result<(), VaultError> {
    let of = Try { verb: Verb::Put, bytes: SECOND.len() as u64, deadline: Deadline::NEVER };
    let second = inner.retry(of, || inner.vault.put_new(name, Bytes::from_static(SECOND))).await?;
    let there = inner.get(name, SECOND.len() as u64, Deadline::NEVER).await?;
    if second.answer != PutNew::AlreadyThere || there != FIRST {
        return Err(broken("a put of an object that exists changes nothing"));
    }
    let some = inner.get_range(name, 9..15, Deadline::NEVER).await?;
    if some != FIRST[9..15] {
        return Err(broken("a range is exactly the bytes that were asked for"));
    }
    let is_first = |object: &ObjectInfo| object.name == *name && object.len == FIRST.len() as u64;
    let listed = inner.list_as("hb/", 1, Deadline::NEVER, |object| is_first(object).then_some(())).await?;
    if listed.is_empty() {
        return Err(broken("an object is listed once it was put"));
    }
    Ok(())
}

fn broken(promise: &str) -> VaultError {
    VaultError::invalid(format!("this vault cannot be used, it breaks a promise: {promise}"))
}
