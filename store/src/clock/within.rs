//! What may never come to an end, for who does not want to wait so long: a disk that takes no writes holds up whoever makes, changes or
//! removes something there, and no signal ends that.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::Clock;

/// How often whoever waits looks at the clock.
const LOOK: Duration = Duration::from_millis(20);

/// What a thread of its own gives for `work`, if that is within `limit`. It goes on after that, and nobody waits for it.
pub fn within<T: Send + 'static>(
    clock: &dyn Clock,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let began = clock.monotonic();
    let (done, is_done) = channel();
    let thread = move || drop(done.send(work()));
    std::thread::Builder::new().name("holdfast-within".into()).spawn(thread).ok()?;
    loop {
        match is_done.recv_timeout(LOOK) {
            Ok(given) => return Some(given),
            Err(RecvTimeoutError::Timeout) if clock.monotonic().saturating_sub(began) < limit => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn what_comes_is_given_and_what_does_not_is_left() {
        let clock = ManualClock::default();
        let second = Duration::from_secs(1);
        assert_eq!(within(&clock, second, || 7), Some(7));
        let (never, comes) = channel::<()>();
        let passes = clock.clone();
        let hangs = move || (passes.advance(second), comes.recv().is_ok()).1;
        assert_eq!(within(&clock, second, hangs), None);
        drop(never);
    }
}
