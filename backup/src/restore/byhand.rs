//! A restore of a tree named by the environment, for a person to look at by hand.
#![allow(clippy::unwrap_used)]
use super::*;
#[test]
#[ignore]
fn by_hand() {
    let (point, troubles) = crate::testing::MemoryPoint::of(&crate::source::DirectorySource::new("/srv/t-source/nasty", Default::default()));
    assert!(troubles.is_empty(), "{troubles:?}");
    let monitor = holdfast_store::monitor::RecordingMonitor::default();
    let target = open_target(std::path::Path::new("/srv/t-source/back"), true).unwrap();
    let options = RestoreOptions { root_attributes: true, ..Default::default() };
    let summary = restore_tree(&point, point.root(), &target, &options, &monitor).unwrap();
    panic!("{summary:?} {:?}", monitor.events());
}
