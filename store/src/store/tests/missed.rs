//! Tests of packs that one process misses in a vault while another one brings a point there that relies on them: the point is sent what it
//! lacks, or is doubted, whichever of the two comes first.

use std::collections::HashSet;
use std::sync::Mutex;

use super::hostile::{data_packs, prepared, push, recovered};
use super::*;
use crate::catalog::Mark;
use crate::copy::Sending;
use crate::monitor::Event;

/// Does something once, when something is told.
pub(super) struct When<F> {
    told: fn(&Event) -> bool,
    pub(super) work: Mutex<Option<F>>,
    heard: RecordingMonitor,
}

impl<F: FnOnce() + Send> When<F> {
    pub(super) fn told(told: fn(&Event) -> bool, work: F) -> Self {
        Self { told, work: Mutex::new(Some(work)), heard: RecordingMonitor::default() }
    }
}

impl<F: FnOnce() + Send> crate::monitor::Monitor for When<F> {
    fn event(&self, event: Event) {
        let work = (self.told)(&event).then(|| self.work.lock().unwrap().take()).flatten();
        self.heard.event(event);
        work.into_iter().for_each(|work| work());
    }
}

fn is_pack_done(event: &Event) -> bool {
    matches!(event, Event::Done { bytes, .. } if *bytes > 0)
}

fn is_problem_of_a_point(event: &Event) -> bool {
    matches!(event, Event::Problem { path, .. } if path.starts_with(names::POINTS.as_bytes()))
}

/// A store with two points of much the same, of which the first one is in a vault, and the packs there.
struct Two {
    home: Home,
    vault: Arc<MemoryVault>,
    store: Store,
    points: [StoredPoint; 2],
    packs: Vec<ObjectName>,
}

impl Two {
    fn new() -> Self {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let one = take_point(&store, &sample(1)).unwrap();
        push(&store, &one, &RecordingMonitor::default()).unwrap();
        let packs = data_packs(&store).iter().map(|row| names::pack(&row.entry.id)).collect();
        let two = take_point(&store, &sample(2)).unwrap();
        store.catalog().set_mark(Mark::Doubtful, false).unwrap();
        Self { home, vault, store, points: [one, two], packs }
    }

    fn begin(&self) -> Sending<'_> {
        let (no, _, way) = &self.store.vaults()[0];
        let ids = [self.points[1].point.id];
        Sending::begin(&self.store, *no, way, &ids, &HashSet::new(), &VoidMonitor).unwrap()
    }

    fn lose_packs(&self) {
        self.packs.iter().for_each(|name| self.vault.lose(name));
    }

    fn lose_first_point(&self) {
        let id = self.points[0].point.id;
        let is_it = |name: &&ObjectName| names::point_of(name).is_some_and(|(_, found)| found == id);
        let there = self.vault.names();
        self.vault.lose(there.iter().find(is_it).unwrap());
    }

    /// Another process looks at the vault.
    fn look(&self, monitor: &dyn crate::monitor::Monitor) {
        let other = self.home.open_with(&self.vault);
        let (no, _, way) = other.vaults()[0].clone();
        copy::refresh_vault(&other, no, &way, monitor).unwrap();
    }

    fn lacks(&self, point: usize) -> bool {
        let row = self.store.catalog().point(&self.points[point].point.id).unwrap().unwrap();
        self.store.is_lacking(self.store.vaults()[0].0, &row).unwrap()
    }

    fn assert_whole_in_vault(&self, point: usize) {
        let (_dir, there) = recovered(&self.home, &self.vault);
        let points = there.points().unwrap();
        let found = points.iter().find(|found| found.point.id == self.points[point].point.id).unwrap();
        assert!(restore(&there, found).unwrap() == sample(point as u32 + 1));
    }
}

#[test]
fn what_another_process_misses_while_a_point_is_on_its_way_is_sent_with_it() {
    let two = Two::new();
    let sending = two.begin();
    let loss = || {
        two.lose_packs();
        two.look(&VoidMonitor);
    };
    let monitor = When::told(is_pack_done, loss);
    sending.push(&two.points[1].point.id, &monitor).unwrap();
    assert!(monitor.work.lock().unwrap().is_none(), "no pack was sent");
    assert!(format!("{:?}", monitor.heard.events()).contains("so it is looked at again"));
    assert!(two.lacks(0) && !two.lacks(1));
    two.assert_whole_in_vault(1);
}

#[test]
fn a_point_that_comes_while_what_it_relies_on_is_noted_as_missed_is_sent_that() {
    let two = Two::new();
    let sending = two.begin();
    two.lose_packs();
    two.lose_first_point();
    let arrival = || {
        sending.push(&two.points[1].point.id, &VoidMonitor).unwrap();
    };
    let monitor = When::told(is_problem_of_a_point, arrival);
    two.look(&monitor);
    assert!(monitor.work.lock().unwrap().is_none(), "no point was missed");
    two.assert_whole_in_vault(1);
}

#[test]
fn a_look_that_is_cut_off_before_all_points_are_doubted_is_made_good_by_the_next() {
    let two = Two::new();
    two.begin().push(&two.points[1].point.id, &VoidMonitor).unwrap();
    two.lose_packs();
    two.lose_first_point();
    let monitor = When::told(is_problem_of_a_point, || panic!("cut off"));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| two.look(&monitor))).unwrap_err();
    assert!(!two.lacks(1), "it was cut off too late");
    two.look(&VoidMonitor);
    assert!(two.lacks(1));
    push(&two.store, &two.points[1], &RecordingMonitor::default()).unwrap();
    two.assert_whole_in_vault(1);
    two.look(&VoidMonitor);
    assert!(!two.lacks(1), "what was made good is doubted no more");
}
