//! A store as the floors above see it: made, opened with a key ring, read, and added to by one session at a time.

mod annexes;
mod attempts;
mod bad;
mod brief;
mod disputed;
mod forget;
mod generations;
mod holds;
mod learn;
mod listing;
mod lock;
mod look;
mod marked;
mod mend;
mod on_grid;
mod place;
mod points;
mod reconcile;
mod session;
mod settings;
mod slots;
mod vaults;
mod whole;
mod witness;
mod writers;

#[cfg(test)]
pub(crate) mod tests;

pub use annexes::{ANNEXES_MAX, StagingPlace, add_annex};
pub(crate) use attempts::{Fate, Outcomes};
pub(crate) use bad::{Proven, Reads, move_aside, put_proven, replace_in_vault, replace_point_in_vault};
pub use generations::OpenSessions;
pub(crate) use learn::{NEWER_KEY, PackError, open_index, read_pack_entry};
pub use learn::{learn_points, load_catalog};
pub use listing::refresh_vault;
pub(crate) use listing::{listed_packs, see_vault};
pub use lock::{StoreLock, Turns};
pub use mend::DoubtfulPoint;
pub use reconcile::Reconciled;
pub use session::Session;
pub use settings::{AnnexSetting, Settings, VaultSetting};
pub(crate) use slots::put_config;
pub use slots::put_slot;
pub use vaults::prove_ours;
pub(crate) use vaults::{LISTING_WAIT, of_vault};
pub use whole::Healed;
#[doc(hidden)]
pub use witness::recall_bytes;
pub use witness::{Accepted, Alarm, AlarmKind, Expected, Lost};
pub(crate) use witness::{Before, Evidence, what_is_another};
pub use writers::{Judged, Trust};

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::cache::BlockCache;
use bytes::Bytes;

use crate::catalog::{Catalog, PackRow, VaultNo};
use crate::chance::{Chance, SystemChance};
use crate::chunker::Chunker;
use crate::clock::Clock;
use crate::error::StoreError;
use crate::format::FormatError;
use crate::format::config::StoreConfig;
use crate::id::{ChunkId, RecoveryPointId, SlotId, SourceTag, VaultId};
use crate::monitor::{Event, Monitor};
use crate::names;
use crate::point::hold::Hold;
use crate::point::{PagePlace, RecoveryPoint, SourceName};
use crate::reader::{Reader, ReaderParts};
use crate::seal::Sealer;
use crate::seal::keys::KeyRing;
use crate::seal::writer::{OwnerKey, PublicKey, WriterKey};
use crate::staging::{DiskFiles, Files, Staging};
use crate::transfer::Transfer;
use crate::tree::walk::{PageCache, Pages};
use crate::vault::ObjectName;

/// Limit of config and key slot objects.
pub const SMALL_OBJECT: u64 = 64 << 10;
/// Limit of a recovery point object.
pub(crate) const POINT_LIMIT: u64 = 64 << 20;

/// A recovery point as the store knows it.
#[derive(Clone, Debug)]
pub struct StoredPoint {
    /// The point.
    pub point: Arc<RecoveryPoint>,
    /// BLAKE3 of the object's bytes.
    pub hash: [u8; 32],
    /// Whether the staging directory holds it.
    pub local: bool,
    /// Addresses of the vaults that hold it.
    pub vaults: Vec<String>,
    /// Addresses of vaults where it is and lacks something, as far as is known. They are among those that hold it only while no other place does.
    pub incomplete: Vec<String>,
    /// Why it stays whatever happens, if somebody asked for that.
    pub held: Option<Hold>,
}

/// Of a recovery point what a listing needs, and nothing whose size depends on what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointBrief {
    /// Identity.
    pub id: RecoveryPointId,
    /// The source.
    pub source: Arc<SourceName>,
    /// Keyed name of the source.
    pub tag: SourceTag,
    /// Sequence number within the source.
    pub sequence: u64,
    /// Seconds, source machine's clock.
    pub started: i64,
}

impl PointBrief {
    /// Whether what tells of it is damaged and cannot be put right now: then its number is beyond all others, its time is not known, and its
    /// source may be one of its own.
    pub fn is_in_doubt(&self) -> bool {
        self.sequence == u64::MAX
    }
}

/// What a store shows without a key.
#[derive(Clone, Debug)]
pub struct StoreHead {
    /// Its id.
    pub vault: VaultId,
    /// Its config object.
    pub config: Vec<u8>,
    /// Its key slots. One that cannot be read, or is too long to be one, is empty: damaged, and no reason to stop.
    pub slots: Vec<(SlotId, Vec<u8>)>,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Directory for ranges fetched from vaults; `None` keeps a few in memory.
    pub cache_dir: Option<PathBuf>,
    /// Bound of that directory in bytes.
    pub cache_limit: u64,
    /// Bound of decoded frames in memory in bytes.
    pub memory: usize,
    /// Bound of what is on its way from vaults in bytes.
    pub in_flight: u64,
    /// Vaults that can be reached, with the addresses under which settings know them.
    pub vaults: Vec<(String, Arc<Transfer>)>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub chance: Arc<dyn Chance>,
    /// This machine's key to sign with, if the owner admitted it. The owner who did is the one that it believes.
    pub writer: Option<Arc<WriterKey>>,
}

impl StoreOptions {
    /// No vault, nothing kept on disk, 1 MiB of frames.
    pub fn local(clock: Arc<dyn Clock>) -> Self {
        Self {
            cache_dir: None,
            cache_limit: 0,
            memory: 1 << 20,
            in_flight: 64 << 20,
            vaults: Vec::new(),
            clock,
            chance: Arc::new(SystemChance),
            writer: None,
        }
    }
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    config: StoreConfig,
    config_object: Vec<u8>,
    sealer: Arc<Sealer>,
    staging: Staging,
    catalog: Arc<Catalog>,
    reader: Arc<Reader>,
    pages: Pages,
    vaults: Vec<(VaultNo, String, Arc<Transfer>)>,
    clock: Arc<dyn Clock>,
    decoded: Mutex<HashMap<RecoveryPointId, Arc<RecoveryPoint>>>,
    sources: Mutex<HashMap<SourceTag, Arc<SourceName>>>,
    unopened: Mutex<learn::Unopened>,
    /// Keys of alarms that were told since the store was opened: each is told once.
    told: Mutex<HashSet<(VaultNo, String)>>,
    /// Vaults that showed another config of this store than the one it was made with.
    strange_configs: Mutex<BTreeSet<String>>,
    /// What was said of vaults that this machine never saw before.
    first_looks: Mutex<Vec<String>>,
    newer_keys: Mutex<BTreeSet<(VaultNo, u32)>>,
    /// This machine's key to sign with.
    writer: Option<Arc<WriterKey>>,
    /// The owner whose word counts here: of the secret that a person gave, else the one who admitted this machine.
    owner: Option<PublicKey>,
    read_only: bool,
}

/// Bound of parsed pages in memory.
const PAGE_CACHE: usize = 16 << 20;
/// Beside the store's lock, which a backup holds, one between uploads and removals from vaults.
const UPLOADS_LOCK: &str = "lock.uploads";
/// Bound of fetched ranges in memory where there is no cache directory; and half of what there is for decoded frames is one, too.
const MEMORY_RANGES: u64 = 32 << 20;

impl Store {
    /// Makes a store in `dir` with at least one key slot. The directory must be missing or empty, or hold only what an earlier run
    /// left that was cut off before the store was one.
    pub fn create(
        dir: &Path,
        sealer: &Sealer,
        config: &StoreConfig,
        slots: &[(SlotId, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let config = config.encode(sealer).map_err(|e| e.of("config"))?;
        Self::place(dir, &config, slots, false)
    }

    /// Makes a store in `dir`, as [`Self::create`], from what a vault shows: a machine that had nothing.
    pub fn adopt(dir: &Path, head: &StoreHead) -> Result<(), StoreError> {
        Self::place(dir, &head.config, &head.slots, true)
    }

    /// What a directory shows without a key; `NoStore` if there is no store.
    pub fn head(dir: &Path) -> Result<StoreHead, StoreError> {
        let staging = Staging::new(Arc::new(DiskFiles::new(dir)));
        if dir.exists() && !dir.is_dir() {
            return Err(not_a_directory("open the store in", dir));
        }
        let config = staging.read_all(&names::config(), SMALL_OBJECT)?;
        let config = config.ok_or_else(|| StoreError::NoStore { path: dir.to_path_buf() })?;
        let vault = StoreConfig::peek_vault_id(&config).map_err(|e| e.of("config"))?;
        let mut slots = Vec::new();
        for object in staging.list("keys")? {
            let Some(id) = names::slot_of(&object.name) else { continue };
            match staging.read_all(&object.name, SMALL_OBJECT) {
                Ok(bytes) => slots.extend(bytes.map(|bytes| (id, bytes))),
                Err(e) => {
                    tracing::warn!("{e}");
                    slots.push((id, Vec::new()));
                }
            }
        }
        Ok(StoreHead { vault, config, slots })
    }

    /// Opens the store in `dir`. A missing or damaged catalog is made again from what staging holds. On a file system where
    /// nothing can be written the catalog is made in memory, for as long as the store is open: reading goes on, and all that
    /// writes ends with `Io` (read-only).
    pub fn open(
        dir: &Path,
        ring: &KeyRing,
        options: StoreOptions,
        monitor: &dyn Monitor,
    ) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(DiskFiles::new(dir)), dir, ring, options, monitor)
    }

    /// As [`Self::open`], with the objects of staging in `files`; catalog, lock and settings are in `dir` as ever.
    pub fn open_on(
        files: Arc<dyn Files>,
        dir: &Path,
        ring: &KeyRing,
        options: StoreOptions,
        monitor: &dyn Monitor,
    ) -> Result<Self, StoreError> {
        let head = Self::head(dir)?;
        let (config, sealer) = unlock(&head, ring)?;
        // Else what lies in annexes would be taken for lost.
        Settings::load(dir)?;
        let staging = Staging::with_annexes(files, annexes::follow(dir, head.vault));
        let read_only = is_read_only(dir);
        let catalog = match read_only {
            true => Catalog::in_memory(&head.vault.0)?,
            false => Catalog::open(&dir.join("catalog.db"), &head.vault.0)?,
        };
        if let Some(why) = catalog.replaces_another() {
            let note = format!("{why}; it is kept as catalog.db.damaged, and made anew from what is stored");
            monitor.event(Event::Note(note));
        }
        let sealer = Arc::new(sealer.with_chance(options.chance.clone()));
        let catalog = Arc::new(catalog);
        let mut store = Self::assemble(dir, head.config, config, sealer, staging, catalog, options)?;
        store.read_only = read_only;
        // What is typed later changes nothing: whom this machine believes says the file with its own key.
        store.owner = store.owner.or_else(|| ring.owner().map(OwnerKey::public));
        store.fill_catalog(monitor)?;
        Ok(store)
    }

    fn assemble(
        dir: &Path,
        config_object: Vec<u8>,
        config: StoreConfig,
        sealer: Arc<Sealer>,
        staging: Staging,
        catalog: Arc<Catalog>,
        mut options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let cache = match &options.cache_dir {
            None => BlockCache::in_memory(MEMORY_RANGES),
            // A cache that cannot be had, on a full disk say, must not keep anybody from reading.
            Some(dir) => {
                BlockCache::open(dir, options.cache_limit, options.clock.clone()).unwrap_or_else(|e| {
                    tracing::warn!("cache {}: {e}; ranges are kept in memory instead", dir.display());
                    let ranges = MEMORY_RANGES.min(options.memory as u64 / 2);
                    options.memory -= ranges as usize;
                    BlockCache::in_memory(ranges)
                })
            }
        };
        let mut vaults = Vec::new();
        for (address, transfer) in options.vaults {
            vaults.push((catalog.vault_no(&address)?, address, transfer));
        }
        let reader = Reader::new(ReaderParts {
            sealer: sealer.clone(),
            catalog: catalog.clone(),
            staging: staging.clone(),
            vaults: vaults.iter().map(|(no, _, transfer)| (*no, transfer.clone())).collect(),
            cache: Arc::new(cache),
            clock: options.clock.clone(),
            memory: options.memory,
            in_flight: options.in_flight,
        });
        let (dir, clock) = (dir.to_path_buf(), options.clock);
        let pages = Pages::cached(reader.clone(), Arc::new(PageCache::new(PAGE_CACHE)));
        let decoded = Mutex::default();
        Ok(Self {
            dir,
            config,
            config_object,
            sealer,
            staging,
            catalog,
            reader,
            pages,
            vaults,
            clock,
            decoded,
            sources: Mutex::default(),
            unopened: Mutex::default(),
            told: Mutex::default(),
            strange_configs: Mutex::default(),
            first_looks: Mutex::default(),
            newer_keys: Mutex::default(),
            owner: options.writer.as_ref().map(|writer| writer.admission().owner),
            writer: options.writer,
            read_only: false,
        })
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The store's id.
    pub fn id(&self) -> &VaultId {
        self.sealer.vault()
    }

    /// Parameters.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// The config object as it lies in staging and vaults.
    pub fn config_object(&self) -> &[u8] {
        &self.config_object
    }

    /// Keys.
    pub fn sealer(&self) -> &Arc<Sealer> {
        &self.sealer
    }

    /// The staging directory.
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// The catalog.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The shared read engine.
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Parsed pages of directories.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Vaults that can be reached: number, address, way there.
    pub fn vaults(&self) -> &[(VaultNo, String, Arc<Transfer>)] {
        &self.vaults
    }

    /// The chunker for data of this store.
    pub fn chunker(&self) -> Chunker {
        Chunker::new(&self.config.chunker, &self.sealer)
    }

    /// Keeps points and packs of vaults from being removed while a point is on its way that may rely on them; several may hold it.
    pub(crate) fn lock_uploads(&self) -> Result<StoreLock, StoreError> {
        StoreLock::take(&self.dir, UPLOADS_LOCK, false)
    }

    /// The same for who learns which points vaults hold: one that goes meanwhile would be known again when it is gone. Of a store that
    /// cannot be written nobody can have the lock, and nothing goes.
    fn lock_learning(&self) -> Result<Option<StoreLock>, StoreError> {
        (!self.read_only).then(|| self.lock_uploads()).transpose()
    }

    /// Keeps two processes from reading all that a vault holds at the same time.
    fn lock_meeting(&self) -> Result<StoreLock, StoreError> {
        StoreLock::take(&self.dir, "lock.meeting", true)
    }

    /// Keeps points from being put into vaults while points or packs are removed there. Whoever waits for a vault holds this, and not the
    /// store's lock: points are taken meanwhile.
    pub fn lock_vault_removals(&self) -> Result<StoreLock, StoreError> {
        StoreLock::take(&self.dir, UPLOADS_LOCK, true)
    }

    /// Keeps two processes of this machine from freeing space in vaults at the same time. That others do so elsewhere is no harm.
    pub(crate) fn lock_reclaim(&self) -> Result<StoreLock, StoreError> {
        StoreLock::take(&self.dir, "lock.reclaim", true)
    }

    /// Refuses an action that the store says needs more than this program knows.
    pub(crate) fn refuse_unknown(&self, action: &str, features: u32) -> Result<(), StoreError> {
        if features == 0 {
            return Ok(());
        }
        let detail = format!("to {action} needs feature bit {}", features.trailing_zeros());
        Err(StoreError::TooNew { object: "config".into(), detail })
    }

    /// A vault by number.
    pub fn vault(&self, no: VaultNo) -> Result<&Arc<Transfer>, StoreError> {
        let found = self.vaults.iter().find(|v| v.0 == no).map(|v| &v.2);
        found.ok_or_else(|| StoreError::NoWay { address: self.catalog.vault_address(no) })
    }

    /// All bytes of a pack from a vault, unverified.
    pub fn fetch_pack(&self, row: &PackRow) -> Result<Bytes, StoreError> {
        self.reader.fetch_pack(row)
    }

    /// Where a page of a tree lies, if it lies in one frame.
    pub fn page_place(&self, id: &ChunkId) -> Result<Option<PagePlace>, StoreError> {
        self.reader.page_place(id)
    }

    /// Writes an object of the control part (config, slots) to staging.
    pub fn put_control(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.staging.put(name, bytes)
    }
}

/// Parameters and keys of a store from its head and an opened key ring.
pub fn unlock(head: &StoreHead, ring: &KeyRing) -> Result<(StoreConfig, Sealer), StoreError> {
    let open = || {
        let plain = StoreConfig::peek(&head.config)?;
        let sealer = Sealer::new(plain.vault_id, ring, plain.identity_generation)?;
        Ok((StoreConfig::decode(&head.config, &sealer)?, sealer))
    };
    open().map_err(|e: FormatError| e.of("config"))
}

/// Whether the file system refuses every write, whoever asks.
fn is_read_only(dir: &Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    access(dir, AccessFlags::W_OK) == Err(nix::errno::Errno::EROFS)
}

fn not_a_directory(action: &'static str, dir: &Path) -> StoreError {
    StoreError::io(action, dir)(std::io::ErrorKind::NotADirectory.into())
}
