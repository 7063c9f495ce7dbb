//! The life of a mount: what must hold before it begins, dead predecessors, and an end that leaves nothing behind.
//!
//! Mounting is done here and not by the `fuser` crate, for three reasons found in its source. Its guard unmounts *the
//! path* when a session ends, whatever is mounted there by then: a process that lingers for an open file would take away
//! its successor's mount. Its unmounting forgets the mount after one `EBUSY`. And without `allow_other` it checks
//! callers a second time, by a rule that turns away root where the kernel would not.
//!
//! A mount whose process died answers `ENOTCONN` and stays. That is on purpose: an empty directory in its place
//! would make a mirror with deletion delete the mirror. [`Mount::spawn`] replaces such a mount, if it was ours.
//!
//! Who may enter: the user who mounted, and nobody else, not even root on a user's mount. With `allow_other` all
//! users, by the modes, owners and ACLs of the *source*, which the kernel enforces. That is asked for and never implied,
//! also for root: directories above a source guard it at its home and are not in the point, and the source's numbers may be other people here. There
//! is no `allow_root`: the kernel would let everybody in, and what it keeps for ever it would show to them unasked.

mod device;
mod error;
mod guard;
mod place;
mod pulse;
mod read_ahead;
mod table;
mod within;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fuser::{Config, Notifier, Session, SessionACL};
use holdfast_store::clock::Clock;

use crate::error::FsError;
use crate::fuse::offer::Offers;
use crate::fuse::{Fuse, invalidate, let_go, safely};
use crate::lock::lock;
use crate::pool::{Pool, PoolOptions, guarded};
use crate::recovery::Recovery;
use crate::view::View;

use guard::Guard;
use place::{claim, make_way, unmount_if};
use pulse::Pulse;

pub use error::MountError;
pub use guard::stand as stand_guard;
pub use within::place_of;

/// How every mount of ours begins its name in the table of mounts.
pub const NAME_PREFIX: &str = "holdfast:";

/// How long files that are still open are waited for before a mount is taken out of sight.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at something that changes soon.
const STEP: Duration = Duration::from_millis(50);

/// Between two looks at the list of points.
const POINTS_EVERY: Duration = Duration::from_secs(1);

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// An existing directory.
    pub mountpoint: PathBuf,
    /// What the table of mounts shows after `holdfast:`, such as the beginning of the store's id.
    pub name: String,
    /// Let all users in, as modes and ACLs of the source allow.
    pub allow_other: bool,
    /// Let nobody execute a program on it.
    pub no_exec: bool,
    /// Mount over a directory that is not empty.
    pub over_nonempty: bool,
    /// Directories that must not be covered: those of the store.
    pub keep_clear: Vec<PathBuf>,
    /// The beginning of a command line that ends in [`stand_guard`], called with its three arguments behind; none if empty, and then readers may be
    /// stuck for ever when this process is killed. The thread that mounts must live as long as the mount.
    pub guard: Vec<OsString>,
    /// Longest time to an answer; then `EIO`.
    pub read_timeout: Duration,
    /// Records of nodes that the kernel has in use, of some 200 bytes each, before it is asked to forget what it was told first.
    pub records_max: usize,
    /// Threads that talk to the kernel and answer what is in memory.
    pub session_threads: usize,
    /// Threads that read and decode what lies on this machine.
    pub local_threads: usize,
    /// Threads that wait for a vault, of each, and as many for what is asked of no certain one. They begin when they are first needed.
    pub vault_threads: usize,
}

impl MountOptions {
    /// The usual: nobody else let in, 60 s, a thread more than cores (2 to 8) and 16 for each vault.
    pub fn new(mountpoint: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        Self {
            mountpoint: mountpoint.into(),
            name: name.into(),
            allow_other: false,
            no_exec: false,
            over_nonempty: false,
            keep_clear: Vec::new(),
            guard: Vec::new(),
            read_timeout: Duration::from_secs(60),
            records_max: 120_000,
            session_threads: cores.clamp(2, 8) + 1,
            local_threads: cores.max(2),
            vault_threads: 16,
        }
    }
}

/// How a mount ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// Nothing is left.
    Cleanly,
    /// It is out of sight; programs that had files open keep them until they close them.
    Detached,
    /// It was gone already.
    AlreadyGone,
}

#[derive(Debug, Default)]
struct Ended {
    result: Mutex<Option<Result<(), String>>>,
    wake: Condvar,
}

/// A mounted file system. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    mountpoint: PathBuf,
    /// Number of the mount in the kernel's table: the path alone could be somebody else's by now.
    id: Option<u64>,
    /// The kernel's end of it, to see whether it is still there.
    device: OwnedFd,
    pool: Arc<Pool>,
    view: Arc<View>,
    ended: Arc<Ended>,
    clock: Arc<dyn Clock>,
    guard: Option<Guard>,
}

impl Mount {
    /// Mounts, and answers from threads of its own.
    pub fn spawn(
        recovery: Arc<dyn Recovery>,
        options: &MountOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MountError> {
        let (mut mount, session, offers) = Self::begun(recovery, options, clock)?;
        let notifier = session.notifier();
        offers.serve(mount.view.clone(), notifier.clone()).map_err(MountError::Threads)?;
        mount.run(session)?;
        mount.follow_points(notifier.clone())?;
        mount.keep_few_records(notifier, options.records_max)?;
        if let (Some(id), false) = (mount.id, options.guard.is_empty()) {
            let guard = Guard::start(&options.guard, &mount.mountpoint, id, mount.clock.monotonic());
            mount.guard = Some(guard.map_err(MountError::Guard)?);
        }
        Ok(mount)
    }

    /// Mounts; nobody answers yet. Whatever fails from here on, dropping it unmounts.
    fn begun(
        recovery: Arc<dyn Recovery>,
        options: &MountOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Session<Fuse>, Arc<Offers>), MountError> {
        let mountpoint = table::resolve(&options.mountpoint)?;
        let _claim = claim(&mountpoint, &*clock);
        make_way(&mountpoint, options, &*clock)?;
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let view = Arc::new(View::new(recovery, uid, gid).map_err(MountError::Store)?);
        let pool = Arc::new(Pool::start(pool_options(options), clock.clone()).map_err(MountError::Threads)?);
        let offers = Arc::new(Offers::default());
        let fuse = Fuse::new(view.clone(), pool.clone(), offers.clone());
        let (session, device, id) = begin(&mountpoint, fuse, options)?;
        let ended = Arc::new(Ended::default());
        Ok((Self { mountpoint, id, device, pool, view, ended, clock, guard: None }, session, offers))
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// What it shows.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Waits until it has ended, by [`unmount`](Self::unmount) or by somebody else's doing.
    pub fn wait(&self) -> Result<(), MountError> {
        let ended = self.ended.wake.wait_while(lock(&self.ended.result), |result| result.is_none());
        match &*ended.unwrap_or_else(PoisonError::into_inner) {
            Some(Err(detail)) => Err(MountError::Session(detail.clone())),
            _ => Ok(()),
        }
    }

    /// Ends it: what waits for slow answers gets `EIO`; files that stay open for 2 s more do not hold it up.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        self.pool.end();
        let ours = |entry: &table::Entry| Some(entry.id) == self.id;
        let how = unmount_if(&self.mountpoint, ours, &*self.clock)?;
        if how == Unmounted::Cleanly {
            self.wait_a_little();
        }
        Ok(how)
    }

    fn wait_a_little(&self) {
        for _ in 0..BUSY_PATIENCE.as_millis() / STEP.as_millis() {
            if self.has_ended() {
                return;
            }
            self.clock.pause(STEP);
        }
    }

    /// Whether it has ended, by whosever doing.
    pub fn has_ended(&self) -> bool {
        lock(&self.ended.result).is_some()
    }

    /// Starts another guard if the one that there was has ended. It must be called by the thread that mounted.
    pub fn keep_guard(&mut self) {
        let (Some(guard), Some(id)) = (&mut self.guard, self.id) else { return };
        if !guard.keep(&self.mountpoint, id, self.clock.monotonic()) {
            self.guard = None;
        }
    }

    /// Whether the kernel has ended it. The threads that serve it notice when they next ask for something to do; one that is stuck never does.
    pub fn is_cut_off(&self) -> bool {
        device::is_cut_off(&self.device)
    }

    fn run(&self, session: Session<Fuse>) -> Result<(), MountError> {
        let (ended, pool) = (self.ended.clone(), self.pool.clone());
        let serve = move || {
            let result = session.run().map_err(|e| e.to_string());
            if let Err(error) = &result {
                tracing::error!(error, "the session with the kernel ended");
            }
            pool.end();
            *lock(&ended.result) = Some(result);
            ended.wake.notify_all();
        };
        thread::Builder::new().name("holdfast-mount".into()).spawn(serve).map_err(MountError::Threads)?;
        Ok(())
    }

    /// Lets new points appear and vanished ones go.
    fn follow_points(&self, notifier: Notifier) -> Result<(), MountError> {
        let (view, mut told) = (self.view.clone(), String::new());
        self.each_second("holdfast-points", move || {
            match guarded(|| view.refresh().map_err(FsError::Store)) {
                Ok(changes) => {
                    invalidate(&notifier, &changes);
                    told.clear();
                }
                // Once, and not each second.
                Err(error) if told == error.to_string() => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot look for new recovery points");
                    told = error.to_string();
                }
            }
        })
    }

    /// Asks the kernel to forget what it was told first.
    fn keep_few_records(&self, notifier: Notifier, records_max: usize) -> Result<(), MountError> {
        let view = self.view.clone();
        let few = move || safely(|| view.let_go_above(records_max, |names| let_go(&notifier, names)));
        self.each_second("holdfast-forget", few)
    }

    /// Does this until the mount has ended, in a thread of its own: the kernel may make a notice of change wait for an answer, which must
    /// then come from another thread, and perhaps from a vault.
    fn each_second(&self, name: &str, mut work: impl FnMut() + Send + 'static) -> Result<(), MountError> {
        let (clock, ended) = (self.clock.clone(), self.ended.clone());
        let repeat = move || {
            while !pause_unless_ended(&*clock, &ended) {
                work();
            }
        };
        thread::Builder::new().name(name.into()).spawn(repeat).map_err(MountError::Threads)?;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.has_ended()
            && let Err(error) = self.unmount()
        {
            tracing::warn!(%error, "cannot unmount");
        }
        // It is out of sight and in use: whoever waits in it when this process ends must be let go as ever.
        if !self.is_cut_off()
            && let Some(guard) = self.guard.take()
        {
            guard.stay();
        }
    }
}

/// Takes away the mount at `path`, if it is one of ours, dead or alive. One that does not answer within 5 s is ended by force: all who wait for it
/// get an error.
pub fn unmount_path(path: &Path, clock: &dyn Clock) -> Result<Unmounted, MountError> {
    let path = table::resolve(path)?;
    match table::top(&path)? {
        Some(entry) if entry.is_ours() => {
            if pulse::of(&path, clock)? == Pulse::Silent {
                // Whoever waits for it would go on waiting after it went out of sight.
                if let Err(error) = guard::abort(&path, entry.id) {
                    tracing::warn!(%error, path = %path.display(), "cannot end its connection; whoever waits for it goes on waiting");
                }
            }
            unmount_if(&path, |other| other.id == entry.id, clock)
        }
        Some(entry) => Err(MountError::NotOurs { path, source_name: entry.source }),
        None => Err(MountError::NotMounted { path }),
    }
}

/// Takes mounts of ours away whose processes have died, so that their directory can be used again. What lives, or does not answer, stays.
///
/// # Errors
/// What the system said.
pub fn unmount_dead(path: &Path, clock: &dyn Clock) -> Result<(), MountError> {
    let path = table::resolve(path)?;
    while let Some(entry) = table::top(&path)?.filter(table::Entry::is_ours) {
        if pulse::of(&path, clock)? != Pulse::Dead {
            break;
        }
        unmount_if(&path, |other| other.id == entry.id, clock)?;
    }
    Ok(())
}

fn pool_options(options: &MountOptions) -> PoolOptions {
    PoolOptions {
        in_place: options.session_threads.saturating_sub(1),
        local_threads: options.local_threads,
        vault_threads: options.vault_threads,
        timeout: options.read_timeout,
    }
}

/// True when the mount has ended, false after a second.
fn pause_unless_ended(clock: &dyn Clock, ended: &Ended) -> bool {
    let steps = POINTS_EVERY.as_millis() / STEP.as_millis();
    (0..steps).any(|_| {
        clock.pause(STEP);
        lock(&ended.result).is_some()
    })
}

/// Mounts and shakes hands with the kernel; the device once more and the number of the mount, too.
fn begin(
    mountpoint: &Path,
    fuse: Fuse,
    options: &MountOptions,
) -> Result<(Session<Fuse>, OwnedFd, Option<u64>), MountError> {
    let device = device::open(mountpoint, options)?;
    let mut config = Config::default();
    config.n_threads = Some(options.session_threads.max(1));
    config.clone_fd = options.session_threads > 1;
    let shake_hands = || {
        let ours = device.try_clone()?;
        // The kernel alone decides who may enter; see the top.
        Ok((Session::from_fd(fuse, device, SessionACL::All, config)?, ours))
    };
    let begun = shake_hands().map_err(|error: io::Error| MountError::Session(error.to_string()));
    let begun = begun.and_then(|(session, ours)| {
        let entry = table::top(mountpoint)?;
        if let Some(error) = entry.as_ref().and_then(|entry| read_ahead::raise(entry.minor).err()) {
            tracing::debug!(%error, "the kernel reads ahead on this mount no further than it does by itself");
        }
        Ok((session, ours, entry.map(|entry| entry.id)))
    });
    begun.inspect_err(|_| _ = device::unmount(mountpoint, true))
}

#[cfg(test)]
mod tests;
