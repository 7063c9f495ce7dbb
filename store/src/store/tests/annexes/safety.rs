//! Tests that no pack is taken for safe that is not, and that an annex is nobody else's.

use super::*;
use crate::staging::Fault;

#[test]
fn a_pack_that_is_found_counts_only_when_it_was_made_durable() {
    let home = Home::new();
    take_point(&home.open(), &sample(1)).unwrap();
    let pack = packs_in(&home.path()).remove(0);
    let aside = at(&home, "aside");
    std::fs::rename(&pack, &aside).unwrap();
    let (store, files) = home.open_faulty();
    let staged = || store.catalog().pack_by_id(&id_of(&pack)).unwrap().unwrap().staged;
    let _lock = store.lock().unwrap();
    store.reconcile(&VoidMonitor).unwrap();
    std::fs::rename(&aside, &pack).unwrap();
    for (fault, is_staged) in [(Fault::ForEver(std::io::ErrorKind::Other), false), (Fault::Crash, true)] {
        let monitor = RecordingMonitor::default();
        files.fail_at(if is_staged { u64::MAX } else { 0 }, fault);
        store.reconcile(&monitor).unwrap();
        assert_eq!((staged(), problems(&monitor).is_empty()), (is_staged, is_staged));
    }
}
