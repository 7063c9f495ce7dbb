//! Space in a vault is freed while others write to it, and nothing that a point needs goes: generations, sessions, revocations.

use std::collections::BTreeSet;

use super::hostile::{data_packs, prepared, push, recovered, reopened};
use super::listings::Slow;
use super::losses::{faulty, open_on, open_once};
use super::*;
use crate::check::{self, Depth};
use crate::fence::{Generation, Revocation, Step, Why};
use crate::id::{Attempt, PackId};
use crate::names::Named;
use crate::reclaim::{Place, Progress, Terms, Verdict};
use crate::vault::testing::Fault as VaultFault;
use crate::vault::{Vault, Verb};

pub(super) const HOUR: i64 = 3600;

pub(super) fn at_once() -> Terms {
    Terms::AT_ONCE
}

pub(super) fn advance(store: &Store, terms: &Terms) -> Progress {
    reclaim::advance(store, store.vaults()[0].0, terms, &HashSet::new(), &VoidMonitor).unwrap()
}

pub(super) fn push_all(store: &Store, point: &StoredPoint) {
    push(store, point, &RecordingMonitor::default()).unwrap();
}

/// Removes a point from the vault as `forget` does.
pub(super) fn forget(store: &Store, point: &StoredPoint) {
    let row = store.catalog().point(&point.point.id).unwrap().unwrap();
    store.remove_point_from_vault(store.vaults()[0].0, &row).unwrap();
}

pub(super) fn packs(vault: &MemoryVault) -> Vec<ObjectName> {
    vault.names().into_iter().filter(|name| name.as_str().starts_with(names::PACKS)).collect()
}

pub(super) fn count(vault: &MemoryVault, prefix: &str) -> usize {
    vault.names().iter().filter(|name| name.as_str().starts_with(prefix)).count()
}

/// Files that share nothing with others of another word.
pub(super) fn files(word: &str) -> Tree {
    (0..6).map(|n| (format!("{word} {n}"), noise(&format!("{word} {n}"), 40_000))).collect()
}

/// Whoever has the vault alone reads these points whole, and finds no others.
pub(super) fn assert_recovers(home: &Home, vault: &Arc<MemoryVault>, expected: &[(&StoredPoint, &Tree)]) {
    let (_dir, there) = recovered(home, vault);
    assert_eq!(there.points().unwrap().len(), expected.len());
    for (point, files) in expected {
        let point = there.point(&point.point.id).unwrap();
        assert!(restore(&there, &point).unwrap() == **files);
    }
}

/// A machine whose point was forgotten in the vault after it arrived there, and another machine.
pub(super) struct Two {
    pub(super) home: Home,
    pub(super) vault: Arc<MemoryVault>,
    pub(super) here: Store,
    pub(super) gone: StoredPoint,
    pub(super) _dir: tempfile::TempDir,
    pub(super) there: Store,
}

impl Two {
    pub(super) fn new() -> Self {
        let home = Home::new();
        let (vault, here) = prepared(&home);
        let gone = take_point(&here, &files("old")).unwrap();
        push_all(&here, &gone);
        let (dir, there) = recovered(&home, &vault);
        hostile::forget_and_free(&here, &gone);
        Self { home, vault, here, gone, _dir: dir, there }
    }
}

#[test]
fn what_no_point_needs_goes_when_it_was_final_for_long_enough_and_not_all_at_once() {
    let Two { home, vault, here, gone, _dir, .. } = Two::new();
    let kept = take_point(&here, &files("new")).unwrap();
    push_all(&here, &kept);
    forget(&here, &gone);
    let before = packs(&vault);
    vault.set_now(0);
    let begun = advance(&here, &Terms::default());
    assert!(begun.condemned.0 > 0 && begun.awaited.is_empty());
    assert_eq!((packs(&vault), count(&vault, "gen/")), (before.clone(), 2));
    vault.set_now(47 * HOUR);
    let early = advance(&here, &Terms::default());
    assert_eq!((early.removed.packs, early.to_go.0), (0, begun.condemned.0));
    assert_eq!(early.ripe_in, Some(Duration::from_secs(3600)));
    vault.set_now(48 * HOUR);
    let ripe = advance(&here, &Terms::default());
    assert_eq!((ripe.removed.packs, ripe.to_go), (begun.condemned.0, (0, 0)));
    assert_eq!(packs(&vault).len() as u64, before.len() as u64 - begun.condemned.0);
    assert_recovers(&home, &vault, &[(&kept, &files("new"))]);
    assert_eq!(advance(&here, &Terms::default()).condemned, (0, 0), "there is nothing left to do");
}

#[test]
fn what_may_go_stays_its_time_though_the_clock_of_the_vault_was_set_back_and_ahead_since() {
    let Two { home, vault, here, gone, _dir, .. } = Two::new();
    let kept = take_point(&here, &files("new")).unwrap();
    push_all(&here, &kept);
    forget(&here, &gone);
    vault.set_now(1000 * HOUR);
    let begun = advance(&here, &Terms::default());
    assert!(begun.condemned.0 > 0 && begun.awaited.is_empty());
    // What is left to wait for, run by run: of a jump a day counts.
    for (now, left) in [(10, 48), (9, 48), (900, 24), (899, 24), (905, 18)] {
        vault.set_now(now * HOUR);
        let early = advance(&here, &Terms::default());
        assert_eq!((early.removed.packs, early.to_go.0), (0, begun.condemned.0), "at {now}");
        assert_eq!(early.ripe_in, Some(Duration::from_secs(left * 3600)), "at {now}");
    }
    // The clock is right again, and what it showed in between is forgotten.
    for (now, left) in [(1001, 47), (10, 48), (100, 24)] {
        vault.set_now(now * HOUR);
        let early = advance(&here, &Terms::default());
        assert_eq!((early.removed.packs, early.ripe_in), (0, Some(Duration::from_secs(left * 3600))));
    }
    vault.set_now(124 * HOUR);
    assert_eq!(advance(&here, &Terms::default()).removed.packs, begun.condemned.0);
    assert_recovers(&home, &vault, &[(&kept, &files("new"))]);
}

#[test]
fn an_upload_that_relied_on_what_is_condemned_is_waited_for_and_keeps_it() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let session = begin_online(&there, &VoidMonitor).unwrap();
    forget(&here, &gone);
    let waiting = advance(&here, &at_once());
    assert!(waiting.condemned.0 > 0);
    assert_eq!(waiting.awaited.len(), 1);
    assert_eq!(advance(&here, &at_once()).awaited.len(), 1, "as long as it takes");
    let two = take_point_by(session, &files("old")).unwrap();
    assert_eq!(two.point.counts.bytes_new, 0, "it relies on what the vault has");
    push_all(&there, &two);
    let done = advance(&here, &at_once());
    assert_eq!((done.awaited.len(), done.removed.packs), (0, 0));
    assert_recovers(&home, &vault, &[(&two, &files("old"))]);
}

#[test]
fn an_upload_that_began_later_relies_on_nothing_that_is_condemned() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    // Something else is on its way, and takes its time.
    let (_other, slow) = recovered(&home, &vault);
    let held_up = begin_online(&slow, &VoidMonitor).unwrap();
    forget(&here, &gone);
    assert_eq!(advance(&here, &at_once()).awaited.len(), 1);
    let two = take_point_by(begin_online(&there, &VoidMonitor).unwrap(), &files("old")).unwrap();
    assert!(two.point.counts.bytes_new > 0, "nothing that is condemned counts");
    push_all(&there, &two);
    vault.set_now(25 * HOUR);
    let revoked = advance(&here, &at_once());
    assert_eq!(revoked.revoked, [held_up.id()]);
    assert!(revoked.removed.packs > 0);
    assert_recovers(&home, &vault, &[(&two, &files("old"))]);
}

#[test]
fn what_another_machine_freed_is_no_damage_for_a_check_that_could_not_ask_for_it_at_first() {
    let Two { home, vault, here, gone, there, _dir } = Two::new();
    drop(here);
    forget(&there, &gone);
    assert!(advance(&there, &at_once()).removed.packs > 0);
    let way = faulty(&vault);
    way.fail(Verb::List, 1, VaultFault::FailBefore);
    let here = open_once(&home, way.clone());
    let report = check::check(&here, Depth::ReadData, &VoidMonitor).unwrap();
    let damage: Vec<_> = report.findings.iter().filter(|f| !f.object.starts_with("keys/")).collect();
    assert!(damage.is_empty(), "{damage:?}");
    assert!(way.requests().iter().filter(|request| request.name == names::GENERATIONS).count() > 1);
}

#[test]
fn who_begins_after_a_generation_is_not_waited_for_by_it() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let first = begin_online(&there, &VoidMonitor).unwrap();
    forget(&here, &gone);
    assert_eq!(advance(&here, &at_once()).awaited.len(), 1);
    let (_other, third) = recovered(&home, &vault);
    let second = begin_online(&third, &VoidMonitor).unwrap();
    let one = take_point_by(first, &files("new")).unwrap();
    push_all(&there, &one);
    let done = advance(&here, &at_once());
    assert!(done.awaited.is_empty() && done.removed.packs > 0, "{done:?}");
    // And it relied on nothing that went.
    let two = take_point_by(second, &files("old")).unwrap();
    push_all(&third, &two);
    assert_recovers(&home, &vault, &[(&one, &files("new")), (&two, &files("old"))]);
}

#[test]
fn an_upload_that_was_silent_for_too_long_and_whose_chunks_went_cannot_arrive_any_more() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let session = begin_online(&there, &VoidMonitor).unwrap();
    let two = take_point_by(session, &files("old")).unwrap();
    forget(&here, &gone);
    vault.set_now(23 * HOUR);
    assert_eq!(advance(&here, &at_once()).awaited.len(), 1);
    vault.set_now(24 * HOUR);
    let revoked = advance(&here, &at_once());
    assert_eq!((revoked.revoked.len(), revoked.awaited.len()), (1, 0));
    assert!(packs(&vault).is_empty());
    let e = push(&there, &two, &RecordingMonitor::default()).unwrap_err();
    assert!(matches!(e, StoreError::CannotCome { .. }), "{e}");
    let next = names::session(&Attempt { point: two.point.id, number: 1 });
    assert!(vault.object(&next).is_none(), "nobody waits for it");
    assert_recovers(&home, &vault, &[]);
    // The next one of the same files arrives.
    let three = take_point_by(begin_online(&there, &VoidMonitor).unwrap(), &files("old")).unwrap();
    push_all(&there, &three);
    assert_recovers(&home, &vault, &[(&three, &files("old"))]);
}

#[test]
fn a_sign_of_life_keeps_an_upload_and_what_an_ended_one_left_is_tidied() {
    let Two { home: _home, vault, here, gone, there, _dir, .. } = Two::new();
    let session = begin_online(&there, &VoidMonitor).unwrap();
    forget(&here, &gone);
    vault.set_now(30 * HOUR);
    vault.replace(&Named::Heartbeat(Attempt::first(session.id()), 7).name(), bytes::Bytes::new());
    vault.set_now(53 * HOUR);
    let waiting = advance(&here, &at_once());
    let silent_for = Some(Duration::from_secs(23 * 3600));
    assert_eq!(waiting.awaited, [reclaim::Awaited { session: session.id(), silent_for }]);
    let two = take_point_by(session, &files("old")).unwrap();
    push_all(&there, &two);
    assert!(count(&vault, "hb/") > 0 && count(&vault, "sess/") > 0);
    advance(&here, &at_once());
    assert_eq!(count(&vault, "hb/"), 0);
    // Its session stays with the point: a put of the point that was held up may still come.
    assert!(vault.object(&names::session(&Attempt::first(two.point.id))).is_some());
    forget(&here, &here.point(&two.point.id).unwrap());
    assert!(vault.object(&names::session(&Attempt::first(two.point.id))).is_none());
}

#[test]
fn signs_of_life_of_a_session_that_came_since_are_left_alone_for_an_hour() {
    let Two { home: _home, vault, here, gone, _dir, .. } = Two::new();
    forget(&here, &gone);
    vault.set_now(30 * HOUR);
    vault.replace(&Named::Heartbeat(Attempt::first(RecoveryPointId([7; 16])), 0).name(), bytes::Bytes::new());
    for (at, left) in [(30 * HOUR, 1), (31 * HOUR, 0)] {
        vault.set_now(at);
        advance(&here, &at_once());
        assert_eq!(count(&vault, names::HEARTBEATS), left);
        // A generation to go on with.
        push_all(&here, &take_point(&here, &files("old")).unwrap());
        forget(&here, &here.points().unwrap()[0]);
    }
}

#[test]
fn a_forgotten_point_does_not_come_back_with_a_put_that_was_held_up() {
    let Two { vault, here, gone, there, home, _dir, .. } = Two::new();
    let name = names::point(&gone.point.source_tag, &gone.point.id);
    let object = vault.object(&name).unwrap();
    forget(&here, &gone);
    let late = transfer(&vault).put_new(&name, object).unwrap_err();
    assert!(late.to_string().contains("other content"), "{late}");
    // Another machine notices that it is gone on purpose.
    let monitor = RecordingMonitor::default();
    copy::refresh_vault(&there, there.vaults()[0].0, &there.vaults()[0].2, &monitor).unwrap();
    assert_eq!(monitor.events().iter().filter(|e| format!("{e:?}").contains("rp/")).count(), 0);
    assert!(there.points().unwrap().is_empty());
    assert_recovers(&home, &vault, &[]);
}

#[test]
fn a_pack_that_went_is_never_put_under_its_name_again() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("old")).unwrap();
    push_all(&store, &one);
    let old = packs(&vault);
    forget(&store, &one);
    assert!(advance(&store, &at_once()).removed.packs > 0);
    assert!(packs(&vault).is_empty());
    // The same packs are still in staging.
    let two = take_point(&store, &files("old")).unwrap();
    assert_eq!(two.point.counts.bytes_new, 0);
    push_all(&store, &two);
    assert!(!packs(&vault).is_empty() && packs(&vault).iter().all(|name| !old.contains(name)));
    assert_recovers(&home, &vault, &[(&two, &files("old"))]);
}

/// Two machines that stored the same at the same time.
struct Same {
    home: Home,
    vault: Arc<MemoryVault>,
    here: Store,
    _dir: tempfile::TempDir,
    there: Store,
    points: [StoredPoint; 2],
}

impl Same {
    fn new() -> Self {
        let home = Home::new();
        let (vault, here) = prepared(&home);
        let (dir, there) = recovered(&home, &vault);
        let points = [&here, &there].map(|store| take_point(store, &files("same")).unwrap());
        // Each looked at what is there before the other one put anything.
        let sending = [&here, &there].into_iter().zip(&points).map(|(store, point)| {
            let (no, _, way) = &store.vaults()[0];
            (
                copy::Sending::begin(store, *no, way, &[point.point.id], &Default::default(), &VoidMonitor)
                    .unwrap(),
                point,
            )
        });
        for (sending, point) in sending.collect::<Vec<_>>() {
            sending.push(&point.point.id, &VoidMonitor).unwrap();
        }
        Self { home, vault, here, _dir: dir, there, points }
    }
}

#[test]
fn of_what_two_machines_stored_at_the_same_time_one_copy_stays_and_it_was_read() {
    for rotten in [false, true] {
        let Same { home, vault, here, points, _dir, .. } = Same::new();
        let before = packs(&vault);
        if rotten {
            // Nobody knows yet.
            let name = names::pack(&data_packs(&here).remove(0).entry.id);
            let mut bytes = vault.object(&name).unwrap().to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            vault.replace(&name, bytes.into());
        }
        let (_other, collector) = recovered(&home, &vault);
        (0..3).for_each(|_| drop(advance(&collector, &at_once())));
        assert!(packs(&vault).len() < before.len(), "rotten: {rotten}");
        let (_new, anew) = recovered(&home, &vault);
        for point in &points {
            assert!(restore(&anew, &anew.point(&point.point.id).unwrap()).unwrap() == files("same"));
        }
    }
}

#[test]
fn of_packs_that_hold_the_same_all_machines_take_the_same_one_for_needed() {
    for _ in 0..8 {
        let Same { home, vault, here, there, _dir, .. } = Same::new();
        let (_other, anew) = recovered(&home, &vault);
        let garbage = |store: &Store| {
            let plan = reclaim::plan(store, Place::Vault(store.vaults()[0].0), &VoidMonitor).unwrap();
            plan.with(Verdict::Delete).map(|judged| judged.pack.entry.id).collect::<BTreeSet<_>>()
        };
        assert_eq!(garbage(&here).len(), 2, "directories and data");
        assert_eq!((garbage(&here), garbage(&there)), (garbage(&anew), garbage(&anew)));
    }
}

#[test]
fn what_lives_in_a_thin_pack_of_a_vault_moves_to_a_new_one() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let mut both = files("old");
    both.extend(files("lasting").into_iter().take(2));
    let one = take_point(&store, &both).unwrap();
    push_all(&store, &one);
    let lasting: Tree = files("lasting").into_iter().take(2).collect();
    let two = take_point(&store, &lasting).unwrap();
    push_all(&store, &two);
    let old = packs(&vault);
    forget(&store, &one);
    let len = |vault: &MemoryVault| {
        packs(vault).iter().map(|name| vault.object(name).unwrap().len()).sum::<usize>()
    };
    let before = len(&vault);
    let (_dir, collector) = recovered(&home, &vault);
    let done = advance(&collector, &at_once());
    assert!(done.bytes_rewritten > 0 && done.removed.packs > 0);
    assert_eq!((done.packs_rewritten, done.removed.packs_unreadable), (1, 0));
    assert!(len(&vault) * 2 < before && packs(&vault).iter().any(|name| !old.contains(name)));
    assert_recovers(&home, &vault, &[(&two, &lasting)]);
}

#[test]
fn reclaim_that_is_cut_off_anywhere_is_gone_on_with_by_another_machine_and_no_point_is_hurt() {
    let mut n = 1_u64;
    loop {
        let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
        let two = take_point_by(begin_online(&there, &VoidMonitor).unwrap(), &files("new")).unwrap();
        push_all(&there, &two);
        forget(&here, &gone);
        let failing = faulty(&vault);
        drop(here);
        let here = open_once(&home, failing.clone());
        failing.forget();
        let fault = [VaultFault::FailBefore, VaultFault::FailAfter][n as usize % 2];
        failing.fail_any_from(n.div_ceil(2), fault);
        let cut = reclaim::advance(&here, here.vaults()[0].0, &at_once(), &HashSet::new(), &VoidMonitor);
        assert_recovers(&home, &vault, &[(&two, &files("new"))]);
        vault.set_now(100 * HOUR);
        (0..2).for_each(|_| drop(advance(&there, &at_once())));
        assert_recovers(&home, &vault, &[(&two, &files("new"))]);
        let (_dir, anew) = recovered(&home, &vault);
        assert_eq!(packs(&vault).len(), anew.catalog().packs().unwrap().len(), "request {n}");
        let needed = reclaim::plan(&anew, reclaim::Place::Vault(anew.vaults()[0].0), &VoidMonitor).unwrap();
        assert_eq!(
            needed.with(reclaim::Verdict::Delete).count(),
            0,
            "request {n}: what nobody needs is left"
        );
        if cut.is_ok() {
            break;
        }
        n += 1;
    }
    assert!(n > 20, "{n} requests are no generation");
}

#[test]
fn who_is_second_with_a_generation_helps_the_first() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let kept = take_point(&here, &files("new")).unwrap();
    push_all(&here, &kept);
    forget(&here, &gone);
    // The other one condemns, and is held up.
    let no = there.vaults()[0].0;
    copy::load_catalog(&there, no, &there.vaults()[0].2, &VoidMonitor).unwrap();
    let condemned: Vec<(PackId, u64)> = {
        let plan = reclaim::plan(&there, reclaim::Place::Vault(no), &VoidMonitor).unwrap();
        plan.with(reclaim::Verdict::Delete)
            .map(|judged| (judged.pack.entry.id, judged.pack.entry.len))
            .collect()
    };
    let mut condemned = condemned;
    condemned.sort_unstable();
    let first = Generation { number: 1, step: Step::Condemned, packs: condemned[..1].to_vec() };
    vault.replace(&first.name().name(), first.seal(there.sealer()).into());
    let done = advance(&here, &at_once());
    assert_eq!(count(&vault, "gen/"), 4, "its generation, and one of the rest");
    assert_eq!(done.removed.packs, condemned.len() as u64);
    assert_recovers(&home, &vault, &[(&kept, &files("new"))]);
}

#[test]
fn a_generation_that_lets_go_what_a_point_needs_is_not_believed() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("old")).unwrap();
    push_all(&store, &one);
    let row = data_packs(&store).remove(0);
    for step in [Step::Condemned, Step::Final] {
        let forged = Generation { number: 1, step, packs: vec![(row.entry.id, row.entry.len)] };
        vault.replace(&forged.name().name(), forged.seal(store.sealer()).into());
    }
    let monitor = RecordingMonitor::default();
    let done = reclaim::advance(&store, store.vaults()[0].0, &at_once(), &HashSet::new(), &monitor).unwrap();
    assert_eq!(done.removed.packs, 0);
    assert!(format!("{:?}", monitor.events()).contains("a recovery point needs it: it stays"));
    assert_recovers(&home, &vault, &[(&one, &files("old"))]);
}

#[test]
fn while_a_generation_cannot_be_read_nothing_new_relies_on_the_vault_and_nothing_goes_there() {
    let Two { home: _home, vault, here, there, _dir, .. } = Two::new();
    vault.replace(&Named::Condemned(1).name(), bytes::Bytes::from_static(b"no generation"));
    let two = take_point_by(begin_online(&there, &VoidMonitor).unwrap(), &files("old")).unwrap();
    assert!(two.point.counts.bytes_new > 0);
    let e = push(&there, &two, &RecordingMonitor::default()).unwrap_err();
    assert!(e.to_string().contains("gen/0000000000000001"), "{e}");
    assert!(reclaim::advance(&here, here.vaults()[0].0, &at_once(), &HashSet::new(), &VoidMonitor).is_err());
    // What else is wrong there is told all the same.
    let no = here.vaults()[0].0;
    let lost = here.catalog().packs().unwrap().into_iter().find(|row| row.vaults.contains(&no)).unwrap();
    let lost = names::pack(&lost.entry.id);
    let bytes = vault.object(&lost).unwrap();
    assert!(transfer(&vault).delete(&lost).unwrap());
    let report = check::check(&here, Depth::Structure, &VoidMonitor).unwrap();
    let names: Vec<&str> = report.findings.iter().map(|finding| finding.object.as_str()).collect();
    assert!(names.contains(&lost.as_str()), "{names:?}");
    assert!(names.iter().any(|name| name.contains("gen/0000000000000001")), "{names:?}");
    transfer(&vault).put_new(&lost, bytes).unwrap();
    vault.replace(&Named::Condemned(1).name(), bytes::Bytes::new());
    assert!(transfer(&vault).delete(&Named::Condemned(1).name()).unwrap());
    push_all(&there, &two);
}

#[test]
fn a_session_that_nobody_can_read_holds_up_reclaim_and_is_named() {
    let Two { home: _home, vault, here, gone, _dir, .. } = Two::new();
    forget(&here, &gone);
    let name = names::session(&Attempt::first(RecoveryPointId([9; 16])));
    vault.replace(&name, bytes::Bytes::from_static(b"session"));
    vault.set_now(1000 * HOUR);
    let monitor = RecordingMonitor::default();
    let waiting = reclaim::advance(&here, here.vaults()[0].0, &at_once(), &HashSet::new(), &monitor).unwrap();
    assert_eq!((waiting.awaited.len(), waiting.removed.packs), (1, 0));
    assert!(format!("{:?}", monitor.events()).contains("remove it when no upload is under way"));
    assert!(transfer(&vault).delete(&name).unwrap());
    assert!(advance(&here, &at_once()).removed.packs > 0);
}

#[test]
fn a_generation_opens_that_was_to_name_a_pack_twice() {
    let home = Home::new();
    let store = home.open();
    // One that does not open, and of which the catalog knew before what it holds.
    let [one, two] = [1, 2].map(|n| PackId([n; 32]));
    let generation = Generation::of(3, Step::Condemned, vec![(two, 8), (one, 7), (two, 8), (one, 9)]);
    assert_eq!(generation.packs, [(one, 7), (two, 8)]);
    let bytes = generation.seal(store.sealer());
    assert_eq!(Generation::open(store.sealer(), (3, Step::Condemned), &bytes).unwrap(), generation);
}

#[test]
fn generations_and_revocations_open_only_as_what_they_are() {
    let home = Home::new();
    let store = home.open();
    let sealer = store.sealer();
    let packs = vec![(PackId([1; 32]), 7), (PackId([2; 32]), u64::MAX)];
    let generation = Generation { number: 3, step: Step::Condemned, packs };
    let bytes = generation.seal(sealer);
    assert_eq!(Generation::open(sealer, (3, Step::Condemned), &bytes).unwrap(), generation);
    for other in [(3, Step::Final), (4, Step::Condemned)] {
        assert!(Generation::open(sealer, other, &bytes).is_err());
    }
    let unsorted =
        Generation { packs: generation.packs.iter().rev().copied().collect(), ..generation.clone() };
    assert!(Generation::open(sealer, (3, Step::Condemned), &unsorted.seal(sealer)).is_err());
    let (tag, id) = (SourceTag([5; 16]), RecoveryPointId([6; 16]));
    let [first, second, last] = [0, 1, 255].map(|number| Attempt { point: id, number });
    for attempt in [first, second, last] {
        let revocation = Revocation { attempt, tag, why: Why::Silent, at: -1 };
        let revoked = revocation.seal(sealer);
        assert_eq!(revoked.len() as u64, Revocation::LEN);
        assert_eq!(Revocation::open(sealer, (&tag, &attempt), &revoked).unwrap(), revocation);
        assert!(Revocation::open(sealer, (&SourceTag([4; 16]), &attempt), &revoked).is_err());
        let of_another = Attempt { point: RecoveryPointId([4; 16]), ..attempt };
        assert!(Revocation::open(sealer, (&tag, &of_another), &revoked).is_err());
        for other in [first, second, last].into_iter().filter(|other| *other != attempt) {
            assert!(Revocation::open(sealer, (&tag, &other), &revoked).is_err(), "{attempt} as {other}");
        }
    }
    let revoked = Revocation { attempt: second, tag, why: Why::Forgotten, at: 1 }.seal(sealer);
    for (bytes, opens) in [
        (
            &bytes,
            &(|b: &[u8]| Generation::open(sealer, (3, Step::Condemned), b).is_ok()) as &dyn Fn(&[u8]) -> bool,
        ),
        (&revoked, &|b: &[u8]| Revocation::open(sealer, (&tag, &second), b).is_ok()),
    ] {
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(!opens(&bad), "byte {at}");
            assert!(!opens(&bytes[..at]), "length {at}");
        }
    }
}

#[test]
fn what_a_session_saw_counts_for_it_although_others_condemn_its_packs_later() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let one = take_point_by(begin_online(&there, &VoidMonitor).unwrap(), &files("new")).unwrap();
    // Cut off before the point arrives: its packs are there.
    let failing = faulty(&vault);
    // A sign of life, two packs, an index.
    failing.fail_from(Verb::Put, 5, VaultFault::FailBefore);
    let path = there.dir().to_path_buf();
    drop(there);
    let cut = open_on(&home, &path, failing as Arc<dyn Vault>);
    push(&cut, &one, &RecordingMonitor::default()).unwrap_err();
    drop(cut);
    forget(&here, &gone);
    let waiting = advance(&here, &at_once());
    assert_eq!(waiting.awaited.len(), 1);
    let there = reopened(&home, &vault, &path);
    let pushed = push(&there, &one, &RecordingMonitor::default()).unwrap();
    assert_eq!(pushed.packs, 0, "it goes on with what it sent");
    advance(&here, &at_once());
    assert_recovers(&home, &vault, &[(&one, &files("new"))]);
}

#[test]
fn a_vault_that_shows_fewer_generations_than_before_is_not_relied_on_until_the_catalog_is_made_anew() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("old")).unwrap();
    let two = take_point(&store, &files("new")).unwrap();
    [&one, &two].into_iter().for_each(|point| push_all(&store, point));
    forget(&store, &one);
    assert!(advance(&store, &at_once()).removed.packs > 0);
    assert!(transfer(&vault).delete(&Named::Final(1).name()).unwrap());
    let three = take_point(&store, &files("newer")).unwrap();
    let e = push(&store, &three, &RecordingMonitor::default()).unwrap_err();
    assert!(
        e.to_string().contains("gen/0000000000000001.final in vault memory is damaged: it is gone"),
        "{e}"
    );
    assert!(
        reclaim::advance(&store, store.vaults()[0].0, &at_once(), &HashSet::new(), &VoidMonitor).is_err()
    );
    drop(store);
    hostile::delete_catalog(&home.path());
    let store = home.open_with(&vault);
    push_all(&store, &store.point(&three.point.id).unwrap());
    assert_recovers(&home, &vault, &[(&two, &files("new")), (&three, &files("newer"))]);
}

#[test]
fn what_a_local_point_relied_on_and_lost_is_stored_again_by_the_next_one() {
    for online in [false, true] {
        let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
        let one = take_point_by(begin_online(&there, &VoidMonitor).unwrap(), &files("old")).unwrap();
        assert_eq!(one.point.counts.bytes_new, 0);
        // A check found all of it, so nothing is in doubt.
        there.catalog().set_mark(crate::catalog::Mark::Doubtful, false).unwrap();
        forget(&here, &gone);
        vault.set_now(24 * HOUR);
        assert_eq!(advance(&here, &at_once()).revoked.len(), 1);
        push(&there, &one, &RecordingMonitor::default()).unwrap_err();
        let next = match online {
            true => begin_online(&there, &VoidMonitor).unwrap(),
            false => there.begin(Compression::None, &VoidMonitor).unwrap(),
        };
        assert!(next.suspicious(), "what is the same is looked up: {online}");
        let two = take_point_by(next, &files("old")).unwrap();
        assert!(restore(&there, &two).unwrap() == files("old"));
        push_all(&there, &two);
        assert_recovers(&home, &vault, &[(&two, &files("old"))]);
    }
}

#[test]
fn a_generation_that_is_another_one_than_before_is_not_relied_on() {
    let Two { vault, here, gone, there, home: _home, _dir, .. } = Two::new();
    forget(&here, &gone);
    assert!(advance(&here, &at_once()).removed.packs > 0);
    let no = there.vaults()[0].0;
    copy::refresh_vault(&there, no, &there.vaults()[0].2, &VoidMonitor).unwrap();
    let second = take_point(&here, &files("new")).unwrap();
    push_all(&here, &second);
    let row = data_packs(&here).into_iter().find(|row| row.vaults == [no]).unwrap();
    // As after a vault was put back, and others went on with it.
    vault.set_now(7);
    let other = Generation { number: 1, step: Step::Final, packs: vec![(row.entry.id, row.entry.len)] };
    vault.replace(&other.name().name(), other.seal(here.sealer()).into());
    let e = copy::refresh_vault(&there, no, &there.vaults()[0].2, &VoidMonitor).unwrap_err();
    assert!(e.to_string().contains("it is another one than before"), "{e}");
    // The same at another time is the same: the vault was copied.
    let Two { vault, here, gone, home: _other, _dir: _beside, .. } = Two::new();
    forget(&here, &gone);
    advance(&here, &at_once());
    let name = Named::Final(1).name();
    let bytes = vault.object(&name).unwrap();
    vault.set_now(9);
    vault.replace(&name, bytes);
    copy::refresh_vault(&here, here.vaults()[0].0, &here.vaults()[0].2, &VoidMonitor).unwrap();
}

#[test]
fn a_point_that_is_in_a_vault_again_which_was_put_back_is_known_again_and_keeps_its_packs() {
    let Two { home, vault, here, gone, _dir, .. } = Two::new();
    let kept: Vec<_> = vault.names().into_iter().map(|name| (vault.object(&name).unwrap(), name)).collect();
    forget(&here, &gone);
    for name in vault.names() {
        assert!(transfer(&vault).delete(&name).unwrap());
    }
    kept.into_iter().for_each(|(bytes, name)| vault.replace(&name, bytes));
    assert_eq!(advance(&here, &at_once()).condemned, (0, 0));
    assert_recovers(&home, &vault, &[(&gone, &files("old"))]);
    assert_eq!(here.points().unwrap().len(), 1);
}

#[test]
fn an_upload_that_arrives_while_it_is_revoked_counts_as_one_that_has_arrived() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let two = take_point_by(begin_online(&there, &VoidMonitor).unwrap(), &files("old")).unwrap();
    forget(&here, &gone);
    vault.set_now(48 * HOUR);
    // The point arrives when points have just been listed.
    let row = there.catalog().point(&two.point.id).unwrap().unwrap();
    let (late, name) = (Arc::clone(&vault), names::point(&row.tag, &row.id));
    let arrives = move || late.replace(&name, row.object.clone().into());
    let path = here.dir().to_path_buf();
    drop(here);
    let here = open_on(&home, &path, Arc::new(Slow::doing(&vault, names::HEARTBEATS, arrives)));
    let done = advance(&here, &at_once());
    assert_eq!((done.revoked.len(), done.removed.packs), (0, 0));
    assert_recovers(&home, &vault, &[(&two, &files("old"))]);
}
