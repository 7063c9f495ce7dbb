//! What machines do: the work of the program's verbs, on the engine as it is.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_backup::protect::{ProtectError, Request, protect};
use holdfast_backup::source::memory::MemorySource;
use holdfast_store::StoreError;
use holdfast_store::check::{Depth, check};
use holdfast_store::clock::{Clock, Deadline};
use holdfast_store::copy::{self, Sending};
use holdfast_store::error::ErrorClass;
use holdfast_store::fence::Why;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::point::{Consistency, SourceName};
use holdfast_store::reclaim::{self, Progress, Terms};
use holdfast_store::scrub::rotation::Wanted;
use holdfast_store::seal::Compression;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::store::{Store, StoreOptions};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::memory::MemoryVault;

use crate::doors::{Dice, Time, Way};
use crate::expiry::Expiry;
use crate::life::{Life, Process};
use crate::truth::{Tree, Truth, spare_ballast};

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Work {
    /// Make a machine from what the vault shows.
    Recover,
    /// Take a point, and bring it into the vault if it goes online.
    Backup {
        /// What of.
        source: Box<Protected>,
        /// Whether it goes into the vault at once.
        online: bool,
        /// Seconds after which it may go, if it has a time of its own.
        lasts: Option<i64>,
        /// Whether it is said not to be by whom it says.
        is_forged: bool,
    },
    /// Bring the points into the vault that it lacks: those of staging, or all that are known.
    Push {
        /// Also those of which it lost something, and that lie nowhere else.
        all: bool,
    },
    /// Remove a point from staging: the oldest but so many.
    ForgetHere(usize),
    /// Remove a point from the vault, of those that are known the n-th.
    ForgetInVault(u64),
    /// Remove from the vault once more what was to go and is still shown there: some removal was cut off.
    ForgetAgain,
    /// Remove points by rules.
    Expire(Box<Expiry>),
    /// Hold a point, of those that are known the n-th.
    Hold(u64),
    /// Let go of all that are held.
    Release,
    /// Read some of it again, and put right what is damaged.
    Scrub(Wanted),
    /// Free staging.
    Prune,
    /// Free the vault.
    Collect(Terms),
    /// Look at everything.
    Check,
    /// Learn what the vault has.
    Learn,
}

/// A tree that is protected.
#[derive(Clone, Debug)]
pub struct Protected {
    /// Its name.
    pub name: String,
    /// What the machine shows of it.
    pub shown: MemorySource,
    /// What is in it.
    pub tree: Tree,
}

/// Bytes of which files are made: so different files, and those of different machines, have much in common.
#[derive(Debug)]
pub struct Blocks(Vec<Vec<u8>>);

impl Blocks {
    /// Some.
    pub fn new(random: &mut TestRandom) -> Self {
        Self(
            (0..24)
                .map(|_| {
                    let len = 2000 + random.below(60_000) as usize;
                    random.bytes(len)
                })
                .collect(),
        )
    }

    fn file(&self, random: &mut TestRandom) -> Vec<u8> {
        let mut file = Vec::new();
        for _ in 0..random.below(4) {
            file.extend_from_slice(&self.0[random.below(self.0.len() as u64) as usize]);
        }
        if random.below(3) == 0 {
            let len = random.below(20_000) as usize;
            file.extend(random.bytes(len));
        }
        file
    }
}

impl Protected {
    /// An empty one.
    pub fn new(name: String) -> Self {
        Self { name, shown: MemorySource::new(), tree: Tree::new() }
    }

    /// Files come, change and go.
    pub fn change(&mut self, random: &mut TestRandom, blocks: &Blocks) {
        for _ in 0..1 + random.below(5) {
            let path = format!("/d{}/f{}", random.below(3), random.below(5));
            let in_source = path.trim_start_matches('/').as_bytes();
            if random.below(4) == 0 && self.tree.remove(&path).is_some() {
                self.shown.remove(in_source);
            } else {
                let bytes = blocks.file(random);
                self.shown.file(in_source, &bytes);
                self.tree.insert(path, Arc::new(bytes));
            }
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub enum Came {
    /// It was done, or there was nothing to do.
    Done,
    /// The vault was freed as far as it could be.
    Collected(Box<Progress>),
    /// A check found these.
    Checked(Vec<String>),
    /// It was not done.
    Failed(String),
}

/// A machine at work.
pub struct Worker {
    /// By which it works.
    pub process: Arc<Process>,
    /// Which machine it is.
    pub machine: usize,
    /// Its chance.
    pub dice: Arc<Dice>,
    /// The vault.
    pub vault: Arc<MemoryVault>,
    /// The key.
    pub ring: Arc<KeyRing>,
    /// What must be true.
    pub truth: Arc<Mutex<Truth>>,
}

/// The group of all points.
pub const GROUP: &str = "g";
/// Points that are brought at once.
pub const POINTS_AT_ONCE: usize = 16;

impl Worker {
    /// Does it.
    pub fn work(&self, work: Work) -> Came {
        let done = match &work {
            Work::Recover => self.recover(),
            _ => self.open().and_then(|store| self.on(&store, work)),
        };
        // The directory has another name each time.
        let told =
            |e: StoreError| e.to_string().replace(&self.life().dir().display().to_string(), "its directory");
        done.unwrap_or_else(|e| Came::Failed(told(e)))
    }

    pub(crate) fn life(&self) -> &Arc<Life> {
        self.process.life()
    }

    fn dir(&self) -> PathBuf {
        self.life().dir().join("store")
    }

    fn transfer(&self) -> Result<Arc<Transfer>, StoreError> {
        let way = Arc::new(Way { process: self.process.clone(), vault: self.vault.clone() });
        // Requests of a machine come one by one, so that there is one order of them.
        let policy = TransferPolicy { concurrency: 1, ..TransferPolicy::default() };
        let clock = Arc::new(Time(self.process.clone()));
        let transfer = Transfer::new(way, clock, policy).map_err(|e| StoreError::invalid(e.to_string()))?;
        transfer.draw_from(self.dice.clone());
        Ok(transfer)
    }

    /// The store.
    pub fn open(&self) -> Result<Store, StoreError> {
        let missing = |_| StoreError::NoStore { path: self.dir() };
        self.life().take_control_in().map_err(missing)?;
        let options = StoreOptions {
            vaults: vec![("memory".into(), self.transfer()?)],
            chance: self.dice.clone(),
            ..StoreOptions::local(Arc::new(Time(self.process.clone())))
        };
        Store::open_on(self.life().clone(), &self.dir(), &self.ring, options, &VoidMonitor)
    }

    pub(crate) fn truth<T>(&self, with: impl FnOnce(&mut Truth) -> T) -> T {
        with(&mut self.truth.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn recover(&self) -> Result<Came, StoreError> {
        let transfer = self.transfer()?;
        let head = copy::vault_head(&transfer)?;
        spare_ballast(&self.dir());
        Store::adopt(&self.dir(), &head)?;
        let store = self.open()?;
        copy::load_catalog(&store, store.vaults()[0].0, &transfer, &VoidMonitor)?;
        Ok(Came::Done)
    }

    fn on(&self, store: &Store, work: Work) -> Result<Came, StoreError> {
        let (no, _, transfer) = &store.vaults()[0];
        match work {
            Work::Recover => {}
            Work::Backup { source, online, lasts, is_forged } => {
                let id = self.backup(store, &source, online, lasts, is_forged)?;
                if online {
                    self.push(store, &[id])?;
                }
            }
            Work::Push { all } => {
                copy::refresh_vault(store, *no, transfer, &VoidMonitor)?;
                let mut lacking = Vec::new();
                for point in store.points()?.iter().filter(|point| all || point.local) {
                    let Some(row) = store.catalog().point(&point.point.id)? else { continue };
                    // One that was taken for dead comes at its next attempt.
                    let is_forgotten = store.catalog().why_revoked(*no, &row.id)? == Some(Why::Forgotten);
                    if store.is_lacking(*no, &row)? && !is_forgotten {
                        lacking.push(row.id);
                    }
                }
                lacking.chunks(POINTS_AT_ONCE).try_for_each(|some| self.push(store, some))?;
            }
            Work::ForgetHere(keep) => self.forget_here(store, keep)?,
            Work::ForgetInVault(n) => self.forget_in_vault(store, n)?,
            Work::ForgetAgain => self.forget_again(store)?,
            Work::Expire(expiry) => self.expire(store, &expiry)?,
            Work::Hold(n) => self.hold(store, n)?,
            Work::Scrub(wanted) => return self.scrub(store, wanted),
            Work::Release => self.release(store)?,
            Work::Prune => drop(reclaim::free_staging(store, &VoidMonitor)?),
            Work::Collect(terms) => {
                return Ok(Came::Collected(Box::new(reclaim::advance(
                    store,
                    *no,
                    &terms,
                    &HashSet::new(),
                    &VoidMonitor,
                )?)));
            }
            Work::Check => {
                let report = check(store, Depth::ReadData, &VoidMonitor)?;
                let found = report.findings.iter().filter(|finding| !finding.unseen);
                return Ok(Came::Checked(found.map(|f| format!("{}: {}", f.object, f.detail)).collect()));
            }
            Work::Learn => drop(copy::load_catalog(store, *no, transfer, &VoidMonitor)?),
        }
        Ok(Came::Done)
    }

    fn backup(
        &self,
        store: &Store,
        source: &Protected,
        online: bool,
        lasts: Option<i64>,
        is_forged: bool,
    ) -> Result<RecoveryPointId, StoreError> {
        let name = SourceName {
            host: format!("m{}", self.machine),
            group: GROUP.into(),
            source: source.name.clone(),
        };
        let expires = lasts.map(|lasts| Time(self.process.clone()).now().seconds + lasts);
        let tag = store.sealer().source_tag(&name.host, &name.group, &name.source);
        let (compression, monitor) = (Compression::Zstd(1), VoidMonitor);
        let session = match online {
            true => store.begin_online(&tag, &|_| true, compression, &monitor)?,
            false => store.begin(compression, &monitor)?,
        };
        let id = session.id();
        self.truth(|truth| truth.begins(id, Arc::new(source.tree.clone()), expires, is_forged));
        let request = Request {
            source: name,
            path: b"/data".to_vec(),
            tags: Vec::new(),
            read_all: false,
            consistency: Consistency::Fuzzy,
            expires,
            readers: 1,
            tool: "simulation".into(),
        };
        protect(session, &source.shown, &request, &monitor).map_err(|e| match e {
            ProtectError::Store(e) => e,
            e => StoreError::invalid(e.to_string()),
        })?;
        if !online {
            // One that goes online at once may rely on what the vault has, and is promised when it is there.
            self.truth(|truth| truth.is_local(self.machine, id));
        }
        self.life().world().tell(|| format!("{} has {}", self.machine, id.short()));
        Ok(id)
    }

    /// One that is damaged here keeps none of the others.
    pub(crate) fn push(&self, store: &Store, ids: &[RecoveryPointId]) -> Result<(), StoreError> {
        let (no, _, transfer) = &store.vaults()[0];
        let sending = Sending::begin(store, *no, transfer, ids, &HashSet::new(), &VoidMonitor)?;
        let mut done = Ok(());
        for id in ids.iter().filter(|id| sending.brings(id)) {
            match sending.push(id, &VoidMonitor) {
                Ok(_) => {
                    self.truth(|truth| truth.is_vaulted(*id));
                    self.life().world().tell(|| format!("{} is in the vault", id.short()));
                }
                Err(StoreError::Revoked { .. }) => {
                    self.life().world().tell(|| format!("{} was revoked", id.short()));
                }
                Err(e) if matches!(e.class(), ErrorClass::Corrupt | ErrorClass::NotFound) => {
                    self.life().world().tell(|| format!("{} does not come: {e}", id.short()));
                    // What is left of one that nobody was told of, or that was to go, need not be whole.
                    if self.truth(|truth| truth.is_owed(self.machine, id)) {
                        done = done.and(Err(e));
                    }
                }
                Err(e) => return Err(e),
            }
        }
        done
    }

    fn forget_here(&self, store: &Store, keep: usize) -> Result<(), StoreError> {
        let _lock = store.lock()?;
        let points = store.points()?;
        // What somebody holds stays.
        let here: Vec<_> = points.iter().filter(|point| point.local && point.held.is_none()).collect();
        for point in here.iter().take(here.len().saturating_sub(keep)) {
            let Some(row) = store.catalog().point(&point.point.id)? else { continue };
            // The last copy of what the vault lost itself is in no pack.
            if self.truth(|truth| truth.is_in_vault(&row.id)) && !self.in_vault().contains(&row.id) {
                continue;
            }
            self.truth(|truth| truth.goes_locally(self.machine, row.id));
            self.life().world().tell(|| format!("{} goes from {}", row.id.short(), self.machine));
            store.remove_staged_point(&row)?;
        }
        Ok(())
    }

    fn forget_in_vault(&self, store: &Store, n: u64) -> Result<(), StoreError> {
        let _lock = store.lock_vault_removals()?;
        let no = store.vaults()[0].0;
        let points = store.points()?;
        let there: Vec<_> = points.iter().filter(|point| !point.vaults.is_empty()).collect();
        let Some(point) = there.get((n % there.len().max(1) as u64) as usize) else { return Ok(()) };
        let Some(row) = store.catalog().point(&point.point.id)? else { return Ok(()) };
        self.truth(|truth| truth.goes(row.id));
        self.life().world().tell(|| format!("{} goes from the vault", row.id.short()));
        store.remove_point_from_vault(no, &row)
    }

    fn forget_again(&self, store: &Store) -> Result<(), StoreError> {
        let _lock = store.lock_vault_removals()?;
        let (no, _, transfer) = &store.vaults()[0];
        store.learn_holds(*no, transfer, Deadline::NEVER)?;
        let holds = store.holds()?;
        for id in self.in_vault().into_iter().filter(|id| !holds.contains_key(id)) {
            if self.truth(|truth| truth.is_going(&id))
                && let Some(row) = store.catalog().point(&id)?
            {
                self.life().world().tell(|| format!("{} goes from the vault", id.short()));
                store.remove_point_from_vault(*no, &row)?;
            }
        }
        Ok(())
    }
}

/// How long a collector is patient, in one of several ways.
pub fn terms(random: &mut TestRandom) -> Terms {
    let hours = |n: u64| Duration::from_secs(3600 * n);
    Terms {
        silence: hours(24),
        grace: if random.below(2) == 0 { Duration::ZERO } else { hours(48) },
        daily_percent: 100,
    }
}
