//! Whether a mount answers.
//!
//! Asking is a request to its process, which may be stopped, or dead in a way that the kernel has not noticed (see [`guard`](super::guard)). So it is
//! asked by a thread of its own, and not waited for longer than [`PATIENCE`]. That thread ends with an answer, with the connection, or with this process.

use std::path::Path;
use std::thread;
use std::time::Duration;

use holdfast_store::clock::Clock;
use holdfast_store::id::{ObjectId, to_hex};

use super::{MountError, STEP};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a mount did when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// It answered, whatever it was.
    Alive,
    /// The kernel answered for it: its process has died.
    Dead,
    /// Nobody answered in time.
    Silent,
}

/// Asks what is mounted at `mountpoint`.
pub fn of(mountpoint: &Path, clock: &dyn Clock) -> Result<Pulse, MountError> {
    // A name that nobody ever asked for: what the kernel keeps of others it may still answer for the dead. A mount of ours answers it from
    // memory, which it cannot do for sums, nor for what is inside a point.
    let path = mountpoint.join(format!(".holdfast-{}", to_hex(&ObjectId::random().0)));
    let ask = move || rustix::fs::lstat(&path).is_err_and(|errno| errno == rustix::io::Errno::NOTCONN);
    let asking =
        thread::Builder::new().name("holdfast-pulse".into()).spawn(ask).map_err(MountError::Threads)?;
    let until = clock.monotonic().saturating_add(PATIENCE);
    while !asking.is_finished() {
        if clock.monotonic() >= until {
            return Ok(Pulse::Silent);
        }
        clock.pause(STEP);
    }
    Ok(if asking.join().unwrap_or(false) { Pulse::Dead } else { Pulse::Alive })
}
