//! Being asked to stop: the first signal sets a flag that the work looks at, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// Exit code of a run that was interrupted.
const INTERRUPTED: i32 = 130;

/// Watches SIGINT, SIGTERM and SIGHUP. The flag becomes true at the first of them; any further one exits at once.
///
/// Should the system refuse a handler, the signal keeps its usual effect and ends the process: still safe, because the
/// store survives a kill at any time.
pub fn watch() -> Arc<AtomicBool> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the first signal finds the flag still down and raises it, the second finds it up and exits.
        let armed = flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&asked));
        if armed.is_ok() {
            let _ = flag::register(signal, Arc::clone(&asked));
        }
    }
    asked
}

/// Has a write beyond what a file may grow to (`LimitFSIZE=`, `ulimit -f`) fail with EFBIG, as on a full disk, instead of ending the
/// process without a word. What is started from here has the usual effect again: a handler does not outlive `exec`.
pub fn outlive_size_limits() {
    let _ = flag::register(SIGXFSZ, Arc::default());
}
