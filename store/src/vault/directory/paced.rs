//! A put that keeps to a pace: the file grows piece by piece, and what was written goes to the disk or the server about once a second.
//! Otherwise the system would keep it all and send it at once when it is synced.
//!
//! Who waits for the next piece blocks no thread: those that do file work are for readers as well.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{DirectoryVault, Unfinished};
use crate::pace::Pacer;
use crate::vault::{ObjectName, PutNew, VaultError};

/// Between two times that what was written is synced.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A file that was begun, and the name that it is to have; or what is there already.
type Begun = Result<(Unfinished, PathBuf), PutNew>;

pub(super) async fn put(
    vault: &DirectoryVault,
    name: &ObjectName,
    body: Bytes,
    pacer: &Arc<Pacer>,
) -> Result<PutNew, VaultError> {
    let name = name.clone();
    let begun: Begun = vault.blocking(move |inner| inner.begin(&name)).await?;
    let (unfinished, path) = match begun {
        Ok(begun) => begun,
        Err(there) => return Ok(there),
    };
    let unfinished = write(vault, unfinished, body, pacer).await?;
    vault.blocking(move |_| unfinished.finish(&path)).await
}

async fn write(
    vault: &DirectoryVault,
    mut unfinished: Unfinished,
    mut body: Bytes,
    pacer: &Arc<Pacer>,
) -> Result<Unfinished, VaultError> {
    let mut synced = pacer.clock().monotonic();
    while !body.is_empty() {
        let piece = body.split_to(pacer.take(body.len()).await.min(body.len()));
        let now = pacer.clock().monotonic();
        let sync = now.saturating_sub(synced) >= SYNC_EVERY;
        if sync {
            synced = now;
        }
        unfinished = vault.blocking(move |_| unfinished.add(&piece, sync)).await?;
    }
    Ok(unfinished)
}
