//! A mountpoint before a mount and after it: what must be out of the way, and taking away what is meant and nothing else.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use holdfast_store::clock::Clock;
use nix::errno::Errno;

use super::pulse::{self, Pulse};
use super::{BUSY_PATIENCE, MountError, MountOptions, STEP, Unmounted, device, table};

/// Mounting takes a moment.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// Whatever has to be out of the way, or else must not be mounted over.
pub fn make_way(mountpoint: &Path, options: &MountOptions, clock: &dyn Clock) -> Result<(), MountError> {
    for dir in &options.keep_clear {
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
        if dir.starts_with(mountpoint) || mountpoint.starts_with(&dir) {
            return Err(MountError::CoversStore { path: mountpoint.to_path_buf(), store: dir });
        }
    }
    if let Some(entry) = table::top(mountpoint)? {
        replace_dead(mountpoint, &entry, clock)?;
    }
    let metadata = fs::metadata(mountpoint).map_err(MountError::io("look at", mountpoint))?;
    if !metadata.is_dir() {
        return Err(MountError::NotDirectory { path: mountpoint.to_path_buf() });
    }
    let mut entries = fs::read_dir(mountpoint).map_err(MountError::io("list", mountpoint))?;
    if entries.next().is_some() && !options.over_nonempty {
        return Err(MountError::NotEmpty { path: mountpoint.to_path_buf() });
    }
    Ok(())
}

/// Keeps others who do the same from mounting in this directory's parent, until it is dropped; those who come meanwhile wait. It is the parent
/// because a dead mount cannot be opened. Whoever waits in vain, or may not look at the parent, goes on: the worst that comes of it are two mounts.
pub fn claim(mountpoint: &Path, clock: &dyn Clock) -> Option<File> {
    let claim = File::open(mountpoint.parent()?).ok()?;
    let until = clock.monotonic().saturating_add(CLAIM_PATIENCE);
    while claim.try_lock().is_err() && clock.monotonic() < until {
        clock.pause(STEP);
    }
    Some(claim)
}

/// A mount of ours whose process is gone gives way; one that lives, or may live, does not.
fn replace_dead(mountpoint: &Path, entry: &table::Entry, clock: &dyn Clock) -> Result<(), MountError> {
    let path = mountpoint.to_path_buf();
    match (pulse::of(mountpoint, clock)?, entry.is_ours()) {
        (Pulse::Dead, true) => {
            tracing::info!(path = %path.display(), "replacing a mount whose process has died");
            device::unmount(mountpoint, true).map_err(|e| MountError::io("unmount", &path)(e.into()))
        }
        (Pulse::Dead, false) => Err(MountError::DeadForeign { path, source_name: entry.source.clone() }),
        (Pulse::Silent, _) => Err(MountError::Silent { path, source_name: entry.source.clone() }),
        (Pulse::Alive, true) => Err(MountError::AlreadyMounted { path }),
        (Pulse::Alive, false) => Ok(()),
    }
}

/// Unmounts what is on top at `path` as long as it is the one that is meant.
pub fn unmount_if(
    path: &Path,
    meant: impl Fn(&table::Entry) -> bool,
    clock: &dyn Clock,
) -> Result<Unmounted, MountError> {
    let until = clock.monotonic().saturating_add(BUSY_PATIENCE);
    loop {
        if !table::top(path)?.is_some_and(|entry| meant(&entry)) {
            return Ok(Unmounted::AlreadyGone);
        }
        match device::unmount(path, false) {
            Ok(()) => return Ok(Unmounted::Cleanly),
            Err(Errno::EBUSY) if clock.monotonic() < until => clock.pause(STEP),
            Err(Errno::EBUSY) => break,
            Err(errno) => return Err(MountError::io("unmount", path)(errno.into())),
        }
    }
    device::unmount(path, true).map_err(|e| MountError::io("unmount", path)(e.into()))?;
    Ok(Unmounted::Detached)
}
