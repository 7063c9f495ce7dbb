//! A check that is asked to stop ends as that, whenever it is, and tells of no damage.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::hostile::reopened;
use super::losses::only_in_vault;
use super::*;
use crate::ErrorClass;
use crate::check::{self, Depth};
use crate::monitor::Event;

/// Asks to stop when so many events were told.
struct StopsAt {
    left: AtomicUsize,
    way: Arc<Transfer>,
    told: RecordingMonitor,
}

impl Monitor for StopsAt {
    fn event(&self, event: Event) {
        self.told.event(event);
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.way.cancel();
        }
    }

    fn cancelled(&self) -> bool {
        self.way.is_cancelled()
    }
}

#[test]
fn a_check_that_is_asked_to_stop_tells_of_no_damage_at_any_moment() {
    let (home, vault, dir, there) = only_in_vault();
    drop(there);
    for depth in [Depth::Structure, Depth::ReadData] {
        for n in 1.. {
            let store = reopened(&home, &vault, &dir.path().join("new"));
            let way = Arc::clone(&store.vaults()[0].2);
            let monitor = StopsAt {
                left: AtomicUsize::new(n),
                way: Arc::clone(&way),
                told: RecordingMonitor::default(),
            };
            let checked = check::check(&store, depth, &monitor);
            for event in monitor.told.events() {
                // The slots of such a store are made up.
                let is_real = |path: &[u8]| !path.starts_with(b"keys/");
                let is_damage = matches!(&event, Event::Problem { path, .. } if is_real(path));
                assert!(!is_damage, "stopped at event {n}: {event:?}");
            }
            if !way.is_cancelled() {
                assert!(n > 3 && checked.is_ok(), "{n} events");
                break;
            }
            assert_eq!(checked.unwrap_err().class(), ErrorClass::Cancelled, "stopped at event {n}");
        }
    }
}
