//! A store that knows nothing but what a vault shows, in a directory that goes with it, and a mount of it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_fs::mount::{Mount, unmount_dead};
use holdfast_store::clock::{Clock, Deadline};
use holdfast_store::copy;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::Monitor;
use holdfast_store::names;
use holdfast_store::staging::{DiskFiles, Files};
use holdfast_store::store::{Store, StoreOptions, StoredPoint};
use holdfast_store::transfer::Transfer;

use super::known::Known;
use crate::commands::Context;
use crate::commands::mount::{MountArgs, mount_store};
use crate::commands::recover::{NO_POINTS, load, only_sessions, sessions_speak, whole};
use crate::commands::scope::ScopeArgs;
use crate::create::make_private_dir;
use crate::open::{connect, open_as_ever, open_slots};
use crate::outcome::{Failure, Kind};
use crate::writers;

/// Where it is made, below the cache.
const DIR: &str = "drill";
/// Where it is mounted.
const MOUNT: &str = "drill.mount";
/// Held by the process that drills.
const LOCK: &str = "drill.lock";
/// Bytes of decoded frames in memory.
const FRAMES: usize = 24 << 20;
/// A catalog takes about so many times the bytes of the index objects.
const CATALOG_PART: u64 = 4;

/// What was recovered.
pub struct Recovered {
    /// Dropped first, as what comes is used by what came before.
    mount: Option<Mount>,
    store: Arc<Store>,
    /// What this machine knows of the vault, if it has the store.
    known: Option<Known>,
    scratch: Scratch,
}

/// A directory that is removed again; one that a drill left which was killed is removed by the next one.
struct Scratch {
    dir: PathBuf,
    mount: PathBuf,
    _lock: File,
}

impl Recovered {
    /// As `recover` does it: config and slots from the vault, the ring by this machine's key or what else is named, then points and packs.
    pub fn from(context: &Context<'_>, address: &str, monitor: &dyn Monitor) -> Result<Self, Failure> {
        let (address, transfer) = connect(context, address)?;
        let head = copy::vault_head(&transfer)?;
        let ring = open_as_ever(context, &head, open_slots)?;
        // Before anything is listed: what goes meanwhile goes with a word, and what comes meanwhile is not expected.
        let known = Known::of(context, &address, &head.vault, &ring)?;
        let scratch = Scratch::make(&context.settings.cache_dir, &**context.terminal.clock())?;
        scratch.expect_room(&transfer)?;
        Store::adopt(&scratch.dir, &whole(&head))?;
        let options = StoreOptions {
            vaults: vec![(address, transfer)],
            memory: FRAMES,
            writer: writers::of(context, &head.vault),
            // What this machine has in its cache proves nothing of the vault.
            ..StoreOptions::local(Arc::clone(context.terminal.clock()))
        };
        let store = Store::open(&scratch.dir, &ring, options, monitor)?;
        load(&store, &[], monitor)?;
        Ok(Self { mount: None, store: Arc::new(store), known, scratch })
    }

    /// Mounts it, for this process alone to see.
    pub fn mount(&mut self, context: &Context<'_>) -> Result<(), Failure> {
        let place = &self.scratch.mount;
        make_private_dir(place)?;
        self.mount = Some(mount_store(context, Arc::clone(&self.store), &MountArgs::at(place.clone()))?);
        Ok(())
    }

    /// Where a point is seen through the mount, if there is one.
    pub fn seen(&self, point: &RecoveryPointId) -> Option<PathBuf> {
        self.mount.as_ref().map(|mount| mount.mountpoint().join("by-id").join(point.hex()))
    }

    /// Points in scope that this machine knows to be in the vault, and that are not among those that `came`; nothing if it knows nothing of the
    /// vault.
    pub fn lost(
        &mut self,
        scope: &ScopeArgs,
        came: &[StoredPoint],
    ) -> Result<Option<Vec<RecoveryPointId>>, Failure> {
        self.known.as_mut().map(|known| known.lost(scope, came)).transpose()
    }

    /// Of a vault without points, of which this machine does not know whether it had any.
    pub fn shows_no_point(&self) -> Failure {
        let sessions =
            self.store.vaults().iter().map(|(no, _, transfer)| only_sessions(&self.store, *no, transfer));
        let message = match sessions.filter_map(Result::ok).sum::<u64>() {
            0 => "it shows no recovery point".to_owned(),
            n => format!("it shows no recovery point, and {}", sessions_speak(n)),
        };
        Failure::failed(message).hint(NO_POINTS)
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

impl Drop for Recovered {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.mount.take().map(|mount| mount.unmount()) {
            tracing::warn!("{}: {error}", self.scratch.mount.display());
        }
    }
}

impl Scratch {
    fn make(cache: &Path, clock: &dyn Clock) -> Result<Self, Failure> {
        make_private_dir(cache)?;
        let (dir, path) = (cache.join(DIR), cache.join(LOCK));
        let lock = File::create(&path).map_err(|e| Failure::io("make", &path, &e))?;
        if lock.try_lock().is_err() {
            return Err(Failure::new(Kind::Locked, "another drill runs").hint("wait for its end"));
        }
        let scratch = Self { dir, mount: cache.join(MOUNT), _lock: lock };
        // Of a drill that was killed. What does not go is in the way, and told as that.
        if let Err(error) = unmount_dead(&scratch.mount, clock) {
            tracing::warn!("{}: {error}", scratch.mount.display());
        }
        scratch.clear();
        if scratch.dir.exists() {
            return Err(Failure::failed(format!("{} cannot be removed", scratch.dir.display())));
        }
        let place = std::fs::symlink_metadata(&scratch.mount);
        if !place.is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            let message = format!(
                "{} cannot be removed, and a drill mounts there what it recovered: something is in it or mounted on it",
                scratch.mount.display()
            );
            let hint = format!(
                "`holdfast umount {}` ends a mount; move away what else is there",
                scratch.mount.display()
            );
            return Err(Failure::failed(message).hint(hint));
        }
        Ok(scratch)
    }

    /// The catalog of a large vault is large.
    fn expect_room(&self, transfer: &Transfer) -> Result<(), Failure> {
        let lengths = transfer.list_as(names::INDEXES, Deadline::NEVER, |object| Some(object.len))?;
        let needs =
            lengths.iter().fold(0_u64, |sum, len| sum.saturating_add(*len)).saturating_mul(CATALOG_PART);
        let cache = self.dir.parent().unwrap_or(&self.dir);
        let room = DiskFiles::new(cache).room().map_err(|e| Failure::io("look for room in", cache, &e))?;
        let free = room.free;
        if needs <= free {
            return Ok(());
        }
        let message = format!(
            "the catalog of this vault may take {needs} bytes, and {} has {free} free",
            self.dir.display()
        );
        Err(Failure::failed(message).hint("make room, or name another place with HOLDFAST_CACHE_DIR"))
    }

    fn clear(&self) {
        // What cannot be removed the next drill finds, and tells.
        let _ = std::fs::remove_dir_all(&self.dir);
        // Never what is in it, be it that it is mounted still.
        let _ = std::fs::remove_dir(&self.mount);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_store::clock::SystemClock;

    use super::*;

    fn make(cache: &Path) -> Result<Scratch, Failure> {
        Scratch::make(cache, &SystemClock)
    }

    #[test]
    fn what_is_in_the_way_of_the_mount_is_told_and_stays() {
        let cache = tempfile::tempdir().unwrap();
        let place = cache.path().join(MOUNT);
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("kept"), "x").unwrap();
        let failure = make(cache.path()).err().unwrap();
        assert!(failure.message.contains("drill.mount cannot be removed"), "{}", failure.message);
        assert!(place.join("kept").exists());
        std::fs::remove_file(place.join("kept")).unwrap();
        make(cache.path()).unwrap();
    }

    #[test]
    fn what_a_drill_left_is_removed_and_two_never_run_at_once() {
        let cache = tempfile::tempdir().unwrap();
        let left = cache.path().join(DIR).join("catalog.db");
        std::fs::create_dir(cache.path().join(DIR)).unwrap();
        std::fs::write(&left, "x").unwrap();
        let scratch = make(cache.path()).unwrap();
        assert!(!left.exists());
        assert_eq!(make(cache.path()).err().map(|failure| failure.kind), Some(Kind::Locked));
        std::fs::create_dir(&scratch.dir).unwrap();
        drop(scratch);
        assert!(!cache.path().join(DIR).exists());
        make(cache.path()).unwrap();
    }
}
