//! A mount looks now and then what was freed in vaults: what another machine wrote anew there is found, and what it removed is not
//! looked for.

use std::sync::{Arc, Weak};
use std::time::Duration;

use holdfast_store::clock::Clock;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::store::Store;

/// Who begins to read is not to wait behind this.
const FIRST: Duration = Duration::from_secs(10);
/// What goes was condemned days before.
const EVERY: Duration = Duration::from_secs(600);

/// Looks soon and from time to time, in a thread of its own, as long as the store is used. Without a thread it is as before.
pub fn reclaim(store: &Arc<Store>) {
    if store.vaults().is_empty() {
        return;
    }
    let (weak, clock) = (Arc::downgrade(store), Arc::clone(store.clock()));
    let _ = std::thread::Builder::new().name("reclaim".into()).spawn(move || look(&weak, &*clock));
}

fn look(store: &Weak<Store>, clock: &dyn Clock) {
    clock.pause(FIRST);
    while let Some(store) = store.upgrade() {
        if let Err(e) = store.follow_reclaim(&VoidMonitor) {
            tracing::warn!("what was freed in vaults is not known: {e}");
        }
        drop(store);
        clock.pause(EVERY);
    }
}
