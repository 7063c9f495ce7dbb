//! When a put is finished, and what "already there" means.
//!
//! A lost answer leaves a put in doubt, and its retry is told that the object exists. Names of packs and index
//! objects are the hash of their bytes, so an object of the right length that is found at the first try is what a
//! former run left; in doubt it is read back and hashed. Other names say nothing about the bytes, which are
//! compared. Reading back costs as much as the put, in a case that is rare.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Inner, Try};
use crate::clock::Deadline;
use crate::pace::Pacer;
use crate::vault::{ObjectName, PutNew, VaultError, Verb};

/// Proof that a vault holds an object. Only a confirmed put makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    name: ObjectName,
    len: u64,
    already: bool,
}

impl Receipt {
    /// The object.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// Its length in bytes, as the vault confirmed it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the object is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the object was found there; it may have been made by an earlier try of the same put.
    pub fn already(&self) -> bool {
        self.already
    }
}

pub(super) async fn put_new(
    inner: &Inner,
    name: &ObjectName,
    body: Bytes,
    deadline: Deadline,
) -> Result<Receipt, VaultError> {
    let len = body.len() as u64;
    let of = Try { verb: Verb::Put, bytes: len, deadline };
    let pacer = inner.pace.get().map(Pacer::new);
    let request = async || {
        inner.counters.bytes_up.fetch_add(len, Ordering::Relaxed);
        match &pacer {
            Some(pacer) => inner.vault.put_paced(name, body.clone(), pacer).await,
            None => inner.vault.put_new(name, body.clone()).await,
        }
    };
    let done = inner.retry_paced(of, pacer.as_deref(), request).await?;
    confirm_length(inner, name, len, deadline).await?;
    let already = done.answer == PutNew::AlreadyThere;
    if already {
        compare(inner, name, &body, done.tries > 1, deadline).await?;
    }
    Ok(Receipt { name: name.clone(), len, already })
}

async fn confirm_length(
    inner: &Inner,
    name: &ObjectName,
    len: u64,
    deadline: Deadline,
) -> Result<(), VaultError> {
    match inner.stat(name, deadline).await? {
        Some(there) if there == len => Ok(()),
        Some(there) => Err(conflict(name, format!("it has {there} bytes, ours has {len}"))),
        None => Err(VaultError::WrongAnswer { detail: format!("{name} was put and is not there") }),
    }
}

async fn compare(
    inner: &Inner,
    name: &ObjectName,
    body: &Bytes,
    in_doubt: bool,
    deadline: Deadline,
) -> Result<(), VaultError> {
    let named_by_content = is_named_by_content(name);
    if body.is_empty() || (named_by_content && !in_doubt) {
        return Ok(());
    }
    let there = inner.get_range(name, 0..body.len() as u64, deadline).await?;
    let equal = if named_by_content { blake3::hash(&there) == blake3::hash(body) } else { there == *body };
    if equal { Ok(()) } else { Err(conflict(name, "its length is right, its bytes are others".into())) }
}

/// Packs and index objects (`docs/format.md`, section 2).
fn is_named_by_content(name: &ObjectName) -> bool {
    matches!(name.as_str().split('/').next(), Some("pack" | "idx"))
}

fn conflict(name: &ObjectName, detail: String) -> VaultError {
    VaultError::Conflict { what: name.to_string(), detail }
}
