//! A mount looks now and then what was freed in vaults: what another machine wrote anew there is found, and what it removed is not
//! looked for.

use std::sync::{Arc, Weak};
use std::time::Duration;

use holdfast_store::monitor::VoidMonitor;
use holdfast_store::store::Store;

/// What goes was condemned days before.
const EVERY: Duration = Duration::from_secs(600);

/// Looks at once and from time to time, in a thread of its own, as long as the store is used. Without a thread it is as before.
pub fn reclaim(store: &Arc<Store>) {
    if store.vaults().is_empty() {
        return;
    }
    let weak = Arc::downgrade(store);
    let _ = std::thread::Builder::new().name("reclaim".into()).spawn(move || look(&weak));
}

fn look(store: &Weak<Store>) {
    while let Some(store) = store.upgrade() {
        if let Err(e) = store.follow_reclaim(&VoidMonitor) {
            tracing::warn!("what was freed in vaults is not known: {e}");
        }
        let clock = Arc::clone(store.clock());
        drop(store);
        clock.pause(EVERY);
    }
}
