//! A point whose way into a vault was revoked, or which was forgotten there, comes with the next attempt: by itself if it was only slow, and
//! if somebody names it in any case.

use super::fenced::{HOUR, Two, advance, assert_recovers, at_once, count, files, forget, packs, push_all};
use super::hostile::{prepared, push, recovered, reopened};
use super::losses::{faulty, open_on, open_once};
use super::*;
use bytes::Bytes;

use crate::catalog::Mark;
use crate::check::{self, Depth};
use crate::copy::{Pushed, Sending};
use crate::fence::{Revocation, Why};
use crate::id::Attempt;
use crate::monitor::Event;
use crate::names::Named;
use crate::vault::testing::Fault as VaultFault;
use crate::vault::{Vault, Verb};

fn attempt(point: &StoredPoint, number: u8) -> Attempt {
    Attempt { point: point.point.id, number }
}

/// Where an attempt ends.
fn outcome(point: &StoredPoint, number: u8) -> ObjectName {
    names::outcome(&point.point.source_tag, &attempt(point, number))
}

/// Why the word that stands there says that an attempt is revoked; nothing if there is another thing or none.
fn why(store: &Store, vault: &MemoryVault, point: &StoredPoint, number: u8) -> Option<Why> {
    let bytes = vault.object(&outcome(point, number))?;
    let name = (&point.point.source_tag, &attempt(point, number));
    Revocation::open(store.sealer(), name, &bytes).ok().map(|revocation| revocation.why)
}

/// Numbers of the attempts at a point that ended in the vault with the point.
fn arrived(store: &Store, vault: &MemoryVault, point: &StoredPoint) -> Vec<u8> {
    let there = |number: &u8| vault.object(&outcome(point, *number)).is_some();
    (0..=9).filter(there).filter(|number| why(store, vault, point, *number).is_none()).collect()
}

/// Puts the word into the vault that an attempt is revoked.
fn revoke(store: &Store, vault: &MemoryVault, point: &StoredPoint, number: u8, why: Why) {
    let (tag, at) = (point.point.source_tag, 0);
    let revocation = Revocation { attempt: attempt(point, number), tag, why, at };
    vault.replace(&outcome(point, number), revocation.seal(store.sealer()).into());
}

/// A push for which nobody named the point: nothing if it does not go.
fn push_unasked(
    store: &Store,
    point: &StoredPoint,
    monitor: &RecordingMonitor,
) -> Result<Option<Pushed>, StoreError> {
    let (no, _, way) = &store.vaults()[0];
    copy::refresh_vault(store, *no, way, monitor)?;
    let id = point.point.id;
    let sending = Sending::begin(store, *no, way, &[id], &Default::default(), monitor)?;
    sending.brings(&id).then(|| sending.push(&id, monitor)).transpose()
}

fn goes_unasked(store: &Store, point: &StoredPoint) -> bool {
    push_unasked(store, point, &RecordingMonitor::default()).unwrap().is_some()
}

fn findings(store: &Store) -> Vec<String> {
    let report = check::check(store, Depth::ReadData, &VoidMonitor).unwrap();
    // The slots of these stores are not real ones.
    let of_objects = report.findings.into_iter().filter(|found| !found.object.starts_with("keys/"));
    of_objects.map(|found| format!("{}: {}", found.object, found.detail)).collect()
}

#[test]
fn a_point_that_was_silent_for_too_long_on_its_way_begins_again_by_itself() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let two = take_point(&there, &files("new")).unwrap();
    let (no, _, way) = &there.vaults()[0];
    let id = two.point.id;
    let sending = Sending::begin(&there, *no, way, &[id], &Default::default(), &VoidMonitor).unwrap();
    forget(&here, &gone);
    vault.set_now(24 * HOUR);
    assert_eq!(advance(&here, &at_once()).revoked, [id]);
    assert_eq!(why(&here, &vault, &two, 0), Some(Why::Silent));
    let e = sending.push(&id, &VoidMonitor).unwrap_err();
    assert!(matches!(e, StoreError::Revoked { .. }), "{e}");
    drop(sending);
    let monitor = RecordingMonitor::default();
    push_unasked(&there, &two, &monitor).unwrap().unwrap();
    let notes = monitor.events().into_iter().filter(|event| matches!(event, Event::Note(_)));
    assert_eq!(notes.count(), 1, "{:?}", monitor.events());
    assert_eq!(arrived(&there, &vault, &two), [1]);
    assert!(vault.object(&names::session(&attempt(&two, 1))).is_some());
    advance(&here, &at_once());
    assert_recovers(&home, &vault, &[(&two, &files("new"))]);
    assert_eq!(findings(&here), [""; 0]);
    // Who pushes it again finds it there.
    push_all(&there, &two);
    assert_eq!(arrived(&there, &vault, &two), [1]);
}

#[test]
fn what_a_revoked_attempt_sent_and_is_still_there_is_not_sent_again() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    let (no, _, way) = &store.vaults()[0];
    let id = one.point.id;
    let sending = Sending::begin(&store, *no, way, &[id], &Default::default(), &VoidMonitor).unwrap();
    revoke(&store, &vault, &one, 0, Why::Silent);
    sending.push(&id, &VoidMonitor).unwrap_err();
    drop(sending);
    let sent = packs(&vault);
    assert!(!sent.is_empty());
    let pushed = push_unasked(&store, &one, &RecordingMonitor::default()).unwrap().unwrap();
    assert_eq!((pushed.packs, packs(&vault)), (0, sent));
    assert_recovers(&home, &vault, &[(&one, &files("new"))]);
}

#[test]
fn a_commit_of_an_attempt_before_that_comes_late_is_refused() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    revoke(&store, &vault, &one, 0, Why::Silent);
    assert!(goes_unasked(&store, &one));
    let late = store.catalog().point(&one.point.id).unwrap().unwrap().object;
    let e = transfer(&vault).put_new(&outcome(&one, 0), late.into()).unwrap_err();
    assert!(e.to_string().contains("other content"), "{e}");
    assert_eq!(arrived(&store, &vault, &one), [1]);
    assert_recovers(&home, &vault, &[(&one, &files("new"))]);
}

#[test]
fn a_commit_that_comes_before_anybody_loses_patience_is_the_point_and_nothing_begins_again() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let two = take_point(&there, &files("new")).unwrap();
    push_all(&there, &two);
    // Its answer was lost, and so was the machine's word of it.
    let row = there.catalog().point(&two.point.id).unwrap().unwrap();
    there.catalog().remove_point(&row.id, Some(there.vaults()[0].0)).unwrap();
    forget(&here, &gone);
    vault.set_now(48 * HOUR);
    assert_eq!(advance(&here, &at_once()).revoked, []);
    assert!(goes_unasked(&there, &two));
    assert_eq!(arrived(&there, &vault, &two), [0]);
    assert_eq!(count(&vault, &format!("{}.1", names::session(&attempt(&two, 0)))), 0);
    assert_recovers(&home, &vault, &[(&two, &files("new"))]);
}

#[test]
fn a_forgotten_point_comes_again_if_it_is_named_and_not_by_itself() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("old")).unwrap();
    push_all(&store, &one);
    let (_dir, other) = recovered(&home, &vault);
    forget(&store, &one);
    assert_eq!(why(&store, &vault, &one, 0), Some(Why::Forgotten));
    assert!(!goes_unasked(&store, &one));
    assert_eq!(count(&vault, names::SESSIONS), 0, "nobody waits for what does not come");
    push_all(&store, &one);
    assert_eq!(arrived(&store, &vault, &one), [2]);
    // Who has not looked meanwhile misses nothing, and who has the vault alone finds it.
    let monitor = RecordingMonitor::default();
    copy::refresh_vault(&other, other.vaults()[0].0, &other.vaults()[0].2, &monitor).unwrap();
    assert!(!format!("{:?}", monitor.events()).contains("rp/"));
    assert!(restore(&other, &other.point(&one.point.id).unwrap()).unwrap() == files("old"));
    assert_recovers(&home, &vault, &[(&one, &files("old"))]);
    assert_eq!([&store, &other].map(findings), [[""; 0]; 2]);
    advance(&other, &at_once());
    assert_recovers(&home, &vault, &[(&one, &files("old"))]);
    // And it can be forgotten again.
    forget(&other, &one);
    let words = (0..=4).map(|n| why(&store, &vault, &one, n).is_some());
    assert_eq!(words.collect::<Vec<_>>(), [true, true, true, true, false]);
    assert!(!goes_unasked(&store, &one));
    assert_recovers(&home, &vault, &[]);
    assert!(advance(&other, &at_once()).removed.packs > 0);
    assert!(packs(&vault).is_empty());
}

#[test]
fn what_was_forgotten_while_this_machine_did_not_know_that_it_had_arrived_does_not_come_by_itself() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("old")).unwrap();
    push_all(&store, &one);
    let (_dir, other) = recovered(&home, &vault);
    store.catalog().remove_point(&one.point.id, Some(store.vaults()[0].0)).unwrap();
    forget(&other, &other.point(&one.point.id).unwrap());
    assert!(!goes_unasked(&store, &one));
    assert_eq!(
        store.catalog().why_revoked(store.vaults()[0].0, &one.point.id).unwrap(),
        Some(Why::Forgotten)
    );
}

#[test]
fn a_collector_waits_for_a_further_attempt_and_keeps_what_it_relies_on() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let two = take_point(&there, &files("old")).unwrap();
    revoke(&there, &vault, &two, 0, Why::Silent);
    let (no, _, way) = &there.vaults()[0];
    let id = two.point.id;
    let sending = Sending::begin(&there, *no, way, &[id], &Default::default(), &VoidMonitor).unwrap();
    forget(&here, &gone);
    let waiting = advance(&here, &at_once());
    assert_eq!(waiting.awaited.iter().map(|one| one.session).collect::<Vec<_>>(), [id]);
    assert_eq!(waiting.removed.packs, 0);
    let pushed = sending.push(&id, &VoidMonitor).unwrap();
    assert_eq!(pushed.packs, 0, "the vault had it");
    let done = advance(&here, &at_once());
    assert_eq!((done.awaited.len(), done.removed.packs), (0, 0));
    assert_eq!(arrived(&here, &vault, &two), [1]);
    assert_recovers(&home, &vault, &[(&two, &files("old"))]);
}

#[test]
fn a_further_attempt_that_is_silent_for_too_long_is_revoked_as_well_and_the_next_one_comes() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let two = take_point(&there, &files("new")).unwrap();
    revoke(&there, &vault, &two, 0, Why::Silent);
    let (no, _, way) = &there.vaults()[0];
    let id = two.point.id;
    drop(Sending::begin(&there, *no, way, &[id], &Default::default(), &VoidMonitor).unwrap());
    forget(&here, &gone);
    vault.set_now(20 * HOUR);
    vault.replace(&Named::Heartbeat(attempt(&two, 1), 7).name(), Bytes::new());
    vault.set_now(43 * HOUR);
    let silent_for = Some(Duration::from_secs(23 * 3600));
    assert_eq!(advance(&here, &at_once()).awaited, [reclaim::Awaited { session: id, silent_for }]);
    vault.set_now(44 * HOUR);
    assert_eq!(advance(&here, &at_once()).revoked, [id]);
    assert_eq!(count(&vault, names::HEARTBEATS), 1, "it has no outcome in the listing");
    assert!(goes_unasked(&there, &two));
    assert_eq!(arrived(&there, &vault, &two), [2]);
    advance(&here, &at_once());
    forget(&here, &here.point(&two.point.id).unwrap());
    advance(&here, &at_once());
    assert_eq!((count(&vault, names::HEARTBEATS), count(&vault, names::SESSIONS)), (0, 0));
    assert!(packs(&vault).is_empty());
    assert_recovers(&home, &vault, &[]);
}

#[test]
fn a_point_that_begins_again_may_be_cut_off_anywhere_and_comes_later() {
    for n in 1.. {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let one = take_point(&store, &files("new")).unwrap();
        drop(
            Sending::begin(
                &store,
                store.vaults()[0].0,
                &store.vaults()[0].2,
                &[one.point.id],
                &Default::default(),
                &VoidMonitor,
            )
            .unwrap(),
        );
        revoke(&store, &vault, &one, 0, Why::Silent);
        drop(store);
        let failing = faulty(&vault);
        let store = open_once(&home, failing.clone());
        failing.forget();
        let fault = [VaultFault::FailBefore, VaultFault::FailAfter][n as usize % 2];
        failing.fail_any_from(u64::div_ceil(n, 2), fault);
        let cut = push_unasked(&store, &one, &RecordingMonitor::default());
        drop(store);
        let store = reopened(&home, &vault, &home.path());
        copy::load_catalog(&store, store.vaults()[0].0, &store.vaults()[0].2, &VoidMonitor).unwrap();
        push_unasked(&store, &one, &RecordingMonitor::default()).unwrap();
        assert_eq!(arrived(&store, &vault, &one), [1], "request {n}");
        assert_recovers(&home, &vault, &[(&one, &files("new"))]);
        if cut.is_ok() {
            assert!(n > 20, "{n} requests are no push");
            break;
        }
    }
}

#[test]
fn a_session_that_cannot_be_put_after_a_revocation_is_put_by_the_next_run() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    revoke(&store, &vault, &one, 0, Why::Silent);
    drop(store);
    let failing = faulty(&vault);
    failing.fail(Verb::Put, 1, VaultFault::FailBefore);
    let store = open_on(&home, &home.path(), failing as Arc<dyn Vault>);
    assert!(goes_unasked(&store, &one), "what fails once is tried again");
    assert_eq!(arrived(&store, &vault, &one), [1]);
}

#[test]
fn a_point_at_two_attempts_is_one_point_and_goes_from_both() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    push_all(&store, &one);
    vault.replace(&outcome(&one, 3), vault.object(&outcome(&one, 0)).unwrap());
    let (_dir, other) = recovered(&home, &vault);
    assert_eq!(other.points().unwrap().len(), 1);
    assert_eq!([&store, &other].map(findings), [[""; 0]; 2]);
    // Either of them is enough.
    assert!(transfer(&vault).delete(&outcome(&one, 0)).unwrap());
    copy::refresh_vault(&store, store.vaults()[0].0, &store.vaults()[0].2, &VoidMonitor).unwrap();
    assert_eq!(store.point(&one.point.id).unwrap().vaults.len(), 1);
    vault.replace(&outcome(&one, 0), vault.object(&outcome(&one, 3)).unwrap());
    forget(&other, &other.point(&one.point.id).unwrap());
    assert_eq!([0, 3].map(|n| why(&store, &vault, &one, n)), [Some(Why::Forgotten); 2]);
    assert_recovers(&home, &vault, &[]);
}

#[test]
fn a_word_that_a_vault_copies_to_another_attempt_takes_no_point_away() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    revoke(&store, &vault, &one, 0, Why::Forgotten);
    let word = vault.object(&outcome(&one, 0)).unwrap();
    push_all(&store, &one);
    vault.replace(&outcome(&one, 2), word.clone());
    copy::refresh_vault(&store, store.vaults()[0].0, &store.vaults()[0].2, &VoidMonitor).unwrap();
    assert_eq!(store.point(&one.point.id).unwrap().vaults.len(), 1);
    vault.replace(&outcome(&one, 1), word);
    let found = findings(&store);
    assert!(found.iter().any(|line| line.starts_with(outcome(&one, 1).as_str())), "{found:?}");
}

#[test]
fn a_point_of_a_further_attempt_that_is_damaged_or_missing_is_found() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    revoke(&store, &vault, &one, 0, Why::Silent);
    push_all(&store, &one);
    let whole = vault.object(&outcome(&one, 1)).unwrap();
    let mut bad = whole.to_vec();
    bad[100] ^= 1;
    vault.replace(&outcome(&one, 1), bad.into());
    let found = findings(&store);
    assert!(found.iter().any(|line| line.starts_with(outcome(&one, 1).as_str())), "{found:?}");
    // The check took it for gone there; it is whole, after all.
    vault.replace(&outcome(&one, 1), whole);
    push_all(&store, &one);
    let (_dir, other) = recovered(&home, &vault);
    assert!(transfer(&vault).delete(&outcome(&one, 1)).unwrap());
    // The word that is left is of the attempt before, for who pushed it and for who learnt of it.
    for there in [&store, &store, &other] {
        let found = findings(there);
        assert!(found.iter().any(|line| line.contains("the recovery point is missing")), "{found:?}");
    }
    let monitor = RecordingMonitor::default();
    copy::refresh_vault(&other, other.vaults()[0].0, &other.vaults()[0].2, &monitor).unwrap();
    assert!(format!("{:?}", monitor.events()).contains("the recovery point is missing"));
    assert!(other.catalog().point(&one.point.id).unwrap().is_some(), "what is nowhere else stays known");
    // It is put again by who has it.
    assert!(goes_unasked(&store, &one));
    assert_eq!(arrived(&store, &vault, &one), [1]);
}

#[test]
fn a_word_that_is_damaged_before_an_attempt_that_is_whole_is_told_and_puts_no_point_in_doubt() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    revoke(&store, &vault, &one, 0, Why::Silent);
    push_all(&store, &one);
    let mut bad = vault.object(&outcome(&one, 0)).unwrap().to_vec();
    bad[100] ^= 1;
    vault.replace(&outcome(&one, 0), bad.into());
    for _ in 0..2 {
        let found = findings(&store);
        assert!(found.iter().any(|line| line.starts_with(outcome(&one, 0).as_str())), "{found:?}");
        assert!(store.incomplete_in(store.vaults()[0].0).unwrap().is_empty());
    }
}

#[test]
fn a_point_that_came_again_while_nobody_looked_and_then_went_without_a_word_is_missing() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    push_all(&store, &one);
    let (_dir, other) = recovered(&home, &vault);
    forget(&store, &one);
    push_all(&store, &one);
    let refresh = |monitor: &RecordingMonitor| {
        copy::refresh_vault(&other, other.vaults()[0].0, &other.vaults()[0].2, monitor).unwrap();
        format!("{:?}", monitor.events()).contains("the recovery point is missing")
    };
    assert!(!refresh(&RecordingMonitor::default()));
    assert!(transfer(&vault).delete(&outcome(&one, 2)).unwrap());
    assert!(refresh(&RecordingMonitor::default()));
}

#[test]
fn a_further_attempt_that_begins_after_a_generation_is_not_waited_for_by_it() {
    let Two { home, vault, here, gone, there, _dir, .. } = Two::new();
    let two = take_point(&there, &files("new")).unwrap();
    let (no, _, way) = &there.vaults()[0];
    let id = two.point.id;
    let begin = || Sending::begin(&there, *no, way, &[id], &Default::default(), &VoidMonitor).unwrap();
    let first = begin();
    forget(&here, &gone);
    assert_eq!(advance(&here, &at_once()).awaited.len(), 1);
    revoke(&there, &vault, &two, 0, Why::Silent);
    drop(first);
    let second = begin();
    let done = advance(&here, &at_once());
    assert!(done.awaited.is_empty() && done.removed.packs > 0, "{done:?}");
    second.push(&id, &VoidMonitor).unwrap();
    assert_eq!(arrived(&there, &vault, &two), [1]);
    assert_recovers(&home, &vault, &[(&two, &files("new"))]);
}

#[test]
fn a_damaged_row_is_put_right_from_a_further_attempt_in_a_vault() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    revoke(&store, &vault, &one, 0, Why::Silent);
    push_all(&store, &one);
    let (_dir, there) = recovered(&home, &vault);
    let sql = "UPDATE point SET object = zeroblob(length(object))";
    assert_eq!(there.catalog().writer().execute(sql, []).unwrap(), 1);
    assert!(restore(&there, &there.point(&one.point.id).unwrap()).unwrap() == files("new"));
}

#[test]
fn a_point_for_which_no_name_is_left_is_told() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    (0..=u8::MAX).for_each(|number| revoke(&store, &vault, &one, number, Why::Silent));
    let e = push(&store, &one, &RecordingMonitor::default()).unwrap_err();
    assert!(e.to_string().contains("256 times"), "{e}");
    assert!(!goes_unasked(&store, &one));
    assert!(transfer(&vault).delete(&outcome(&one, u8::MAX)).unwrap());
    assert!(goes_unasked(&store, &one));
    assert!(vault.object(&names::session(&attempt(&one, u8::MAX))).is_some());
}

#[test]
fn a_removal_that_was_cut_off_ends_with_the_word_that_it_was_on_purpose() {
    for (found, dead) in ["push", "check", "again"].into_iter().flat_map(|who| [(who, false), (who, true)]) {
        let home = Home::new();
        let (vault, store) = prepared(&home);
        let one = take_point(&store, &files("old")).unwrap();
        push_all(&store, &one);
        // The point went, and the machine stopped there.
        store.catalog().set_mark(Mark::Going(Some(store.vaults()[0].0), one.point.id), true).unwrap();
        assert!(transfer(&vault).delete(&outcome(&one, 0)).unwrap());
        if dead {
            // Another one takes the upload for dead, whose session has no outcome any more.
            revoke(&store, &vault, &one, 0, Why::Silent);
        }
        match found {
            "push" => assert!(!goes_unasked(&store, &one)),
            "check" => assert_eq!(findings(&store), [""; 0]),
            _ => forget(&store, &one),
        }
        let last = u8::from(dead);
        assert_eq!(why(&store, &vault, &one, last), Some(Why::Forgotten), "{found}, {dead}");
        assert!(!goes_unasked(&store, &one), "{found}, {dead}");
        assert_recovers(&home, &vault, &[]);
        push_all(&store, &one);
        assert_eq!(arrived(&store, &vault, &one), [last + 1]);
    }
}

#[test]
fn forgetting_leaves_words_that_stand_alone_and_ends_what_is_on_its_way() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("old")).unwrap();
    push_all(&store, &one);
    forget(&store, &one);
    let words = || [0, 1, 2].map(|n| vault.object(&outcome(&one, n)));
    let before = words();
    forget(&store, &one);
    assert_eq!(words(), before);
    assert_eq!(before.map(|word| word.is_some()), [true, true, false]);
    // It is named once more, and on its way.
    let (no, _, way) = &store.vaults()[0];
    let id = one.point.id;
    let sending = Sending::begin(&store, *no, way, &[id], &[id].into(), &VoidMonitor).unwrap();
    forget(&store, &one);
    assert_eq!(why(&store, &vault, &one, 2), Some(Why::Forgotten));
    let e = sending.push(&id, &VoidMonitor).unwrap_err();
    assert!(matches!(e, StoreError::Revoked { .. }), "{e}");
    assert_recovers(&home, &vault, &[]);
}

#[test]
fn a_store_that_is_put_together_from_copies_of_a_vault_has_one_name_for_each_point() {
    let home = Home::new();
    let store = home.open();
    let one = take_point(&store, &files("new")).unwrap();
    drop(store);
    let (first, later) =
        (home.path().join(outcome(&one, 0).as_str()), home.path().join(outcome(&one, 1).as_str()));
    std::fs::rename(&first, &later).unwrap();
    super::hostile::delete_catalog(&home.path());
    let store = home.open();
    assert_eq!((first.exists(), later.exists()), (true, false));
    assert!(restore(&store, &one).unwrap() == files("new"));
    let row = store.catalog().point(&one.point.id).unwrap().unwrap();
    store.remove_staged_point(&row).unwrap();
    drop(store);
    assert!(home.open().points().unwrap().is_empty());
}

#[test]
fn a_point_that_came_again_and_is_lost_then_comes_by_itself() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &files("new")).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    let no = store.vaults()[0].0;
    let row = store.catalog().point(&one.point.id).unwrap().unwrap();
    store.remove_point_from_vault(no, &row).unwrap();
    assert!(!goes_unasked(&store, &one));
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    assert_eq!(arrived(&store, &vault, &one), [2]);
    let why = || store.catalog().why_revoked(no, &one.point.id).unwrap();
    assert_eq!(why(), None, "it is there since");
    store.vaults()[0].2.delete(&outcome(&one, 2)).unwrap();
    assert!(goes_unasked(&store, &one));
    assert_eq!(arrived(&store, &vault, &one), [2]);
    assert_recovers(&home, &vault, &[(&one, &files("new"))]);
    // Forgotten once more it does not.
    let row = store.catalog().point(&one.point.id).unwrap().unwrap();
    store.remove_point_from_vault(no, &row).unwrap();
    assert!(why() == Some(Why::Forgotten) && !goes_unasked(&store, &one));
}

#[test]
fn who_tries_again_and_again_to_get_into_a_full_vault_is_silent_and_makes_room_by_that() {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let gone = take_point(&store, &sample(1)).unwrap();
    push(&store, &gone, &RecordingMonitor::default()).unwrap();
    let two = take_point(&store, &sample(2)).unwrap();
    forget(&store, &gone);
    let before = packs(&vault).len();
    // Small things still find room.
    let way = faulty(&vault);
    for row in store.catalog().packs().unwrap() {
        way.fail_object(&names::pack(&row.entry.id), VaultFault::Full);
    }
    let full = open_once(&home, way);
    for hour in [0, 10, 20, 30] {
        vault.set_now(hour * HOUR);
        let e = push(&full, &two, &RecordingMonitor::default()).unwrap_err();
        assert_eq!(e.class(), crate::error::ErrorClass::Full, "{e}");
        advance(&store, &at_once());
    }
    assert!(packs(&vault).len() < before);
    push(&store, &two, &RecordingMonitor::default()).unwrap();
    assert_recovers(&home, &vault, &[(&two, &sample(2))]);
}
