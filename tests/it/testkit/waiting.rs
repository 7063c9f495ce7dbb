//! Waiting for what other threads and processes do, and what runs are told from outside.

use std::time::{Duration, Instant};

/// A look that comes this much later than it should have was late because the machine stood still, and tells nothing.
const STEP_MAX: Duration = Duration::from_millis(500);

/// Waits until `done`; fails after `seconds`, saying what never came.
#[track_caller]
pub fn wait_for(what: &str, seconds: u64, done: impl FnMut() -> bool) {
    assert!(came(seconds, done), "{what} did not come within {seconds} s");
}

/// Whether `done` came to be within `seconds`, not counting times in which this process did not run either.
pub fn came(seconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let mut left = Duration::from_secs(seconds);
    loop {
        let begin = Instant::now();
        if done() {
            return true;
        }
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
        left = left.saturating_sub(begin.elapsed().min(STEP_MAX));
    }
}

/// A number of the environment's, or the usual one.
pub fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Bytes that do not compress and are the same in every run.
pub fn noise(seed: impl std::fmt::Display, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key(&seed.to_string()).finalize_xof().fill(&mut bytes);
    bytes
}
