//! Tests of scrubs: some packs of some places are read and proven, what is damaged is named as long as it is, and what was cut off leaves
//! less for the next one.

use std::sync::atomic::{AtomicU64, Ordering};

use super::fenced::files;
use super::hostile::{data_packs, forget_and_free, prepared, push};
use super::*;
use crate::catalog::{PackNo, VaultNo};
use crate::check::{self, Report, Turn, scrub};
use crate::monitor::{Event, Monitor};
use crate::scrub::ciphertext::Part;
use crate::scrub::rotation::{Terms, Wanted, choose};
use crate::vault::Verb;
use crate::vault::testing::{Fault as VaultFault, FaultyVault};

const DUE: Wanted = Wanted::Due(Terms { days: 30, bytes_a_day: None });

/// A store with a point that is in staging and in a vault.
fn vaulted() -> (Home, Arc<MemoryVault>, Store, StoredPoint) {
    let home = Home::new();
    let (vault, store) = prepared(&home);
    let one = take_point(&store, &sample(1)).unwrap();
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    (home, vault, store, one)
}

fn turn(store: &Store, place: Option<VaultNo>, wanted: Wanted) -> Turn {
    let copies = store.catalog().copies_in(place).unwrap();
    Turn { place, packs: choose(copies, wanted, store.clock().now()) }
}

/// Staging and the vault.
fn both(store: &Store, wanted: Wanted) -> [Turn; 2] {
    [turn(store, None, wanted), turn(store, Some(store.vaults()[0].0), wanted)]
}

fn scrubbed(store: &Store, turns: &[Turn]) -> Report {
    let mut report = scrub(store, turns, Part::WHOLE, &VoidMonitor).unwrap();
    // The slots of these stores are not real ones.
    report.findings.retain(|f| !f.object.starts_with("keys/"));
    report
}

fn flip(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

fn damage_staged(home: &Home, no: PackNo, store: &Store) -> String {
    let name = names::pack(&store.catalog().pack(no).unwrap().unwrap().entry.id);
    let path = home.path().join(name.as_str());
    std::fs::write(&path, flip(&std::fs::read(&path).unwrap())).unwrap();
    name.to_string()
}

#[test]
fn what_was_read_is_proven_in_its_place_and_not_due_again_that_day() {
    let (_home, _vault, store, _) = vaulted();
    let packs = store.catalog().packs().unwrap().len();
    let here = scrubbed(&store, &[turn(&store, None, DUE)]);
    assert_eq!((here.findings, here.packs), (Vec::new(), packs as u64));
    let vault = store.vaults()[0].0;
    let never = |place| store.catalog().proof_of(place).unwrap().packs_never;
    assert_eq!((never(None), never(Some(vault))), (0, packs as u64), "what is here proves nothing there");
    let there = scrubbed(&store, &both(&store, DUE));
    assert_eq!((there.packs, never(Some(vault))), (packs as u64, 0), "nothing is read twice");
    assert!(both(&store, DUE).iter().all(|turn| turn.packs.is_empty()));
    assert_eq!(both(&store, Wanted::All).iter().map(|turn| turn.packs.len()).sum::<usize>(), 2 * packs);
}

#[test]
fn damage_in_a_vault_is_named_each_time_until_a_push_healed_it() {
    let (_home, vault, store, one) = vaulted();
    let pack = data_packs(&store).remove(0);
    let name = names::pack(&pack.entry.id);
    scrubbed(&store, &both(&store, DUE));
    vault.replace(&name, flip(&vault.object(&name).unwrap()).into());
    assert_eq!(scrubbed(&store, &both(&store, DUE)).findings, [], "it was not its turn");
    let report = scrubbed(&store, &both(&store, Wanted::All));
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!((report.findings[0].object.as_str(), report.files.len()), (name.as_str(), 0));
    let no = store.vaults()[0].0;
    let nothing = [Turn { place: Some(no), packs: Vec::new() }];
    let known = scrubbed(&store, &nothing);
    assert!(known.findings[0].detail.contains("read before and is damaged"), "{known:?}");
    assert_eq!(scrubbed(&store, &[Turn { place: None, packs: Vec::new() }]).findings, []);
    assert_eq!(turn(&store, Some(no), DUE).packs, [pack.no], "it is the first to be looked at again");
    assert_eq!(push(&store, &one, &RecordingMonitor::default()).unwrap().packs, 1);
    assert_eq!(scrubbed(&store, &nothing).findings, []);
    assert_eq!(scrubbed(&store, &both(&store, Wanted::All)).findings, []);
}

#[test]
fn damage_here_costs_no_file_while_a_vault_has_the_pack_and_names_the_files_when_none_has() {
    let (home, vault, store, one) = vaulted();
    let pack = data_packs(&store).remove(0);
    let name = damage_staged(&home, pack.no, &store);
    let report = scrubbed(&store, &[turn(&store, None, DUE)]);
    let objects = |report: &Report| report.findings.iter().map(|f| f.object.clone()).collect::<Vec<_>>();
    let name = vec![name];
    assert_eq!(objects(&report), name, "{report:?}");
    assert_eq!(report.files, []);
    let known = scrubbed(&store, &[Turn { place: None, packs: Vec::new() }]);
    assert_eq!(objects(&known), name);
    // The vault's copy as well: what is in it is lost, and no other file is named.
    let there = names::pack(&pack.entry.id);
    vault.replace(&there, flip(&vault.object(&there).unwrap()).into());
    // The store that read it before has it in memory.
    drop(store);
    let store = home.open_with(&vault);
    let report = scrubbed(&store, &both(&store, DUE));
    assert!(
        report.findings.iter().any(|f| f.detail.contains("chunks that they need are lost")),
        "{report:?}"
    );
    assert!(!report.files.is_empty() && report.files.len() < sample(1).len(), "{report:?}");
    assert!(report.files.iter().all(|file| file.point == one.point.id));
}

#[test]
fn what_no_point_needs_of_a_damaged_pack_is_no_loss() {
    let home = Home::new();
    let store = home.open();
    let mut both = files("gone");
    both.extend(files("need").into_iter().take(1));
    let gone = take_point(&store, &both).unwrap();
    let kept = take_point(&store, &files("need").into_iter().take(1).collect()).unwrap();
    let pack = data_packs(&store).remove(0);
    store.remove_staged_point(&store.catalog().point(&gone.point.id).unwrap().unwrap()).unwrap();
    let name = damage_staged(&home, pack.no, &store);
    for _ in 0..2 {
        let report = scrubbed(&store, &[turn(&store, None, Wanted::All)]);
        assert_eq!(report.findings.iter().map(|f| &f.object).collect::<Vec<_>>(), [&name], "{report:?}");
        assert_eq!(report.files, []);
    }
    assert!(restore(&store, &kept).unwrap() == files("need").into_iter().take(1).collect());
}

#[test]
fn a_point_that_was_found_damaged_in_a_vault_is_told_by_each_scrub_until_it_is_put_right() {
    let (_home, vault, store, one) = vaulted();
    let name = names::point(&one.point.source_tag, &one.point.id);
    vault.replace(&name, flip(&vault.object(&name).unwrap()).into());
    let mut parts = [0, 1].map(|day| Part::of_day(day, 2));
    parts.sort_by_key(|part| part.has(name.as_str()));
    let [other, its] = parts;
    let told = |part: Part| {
        let report = scrub(
            &store,
            &[Turn { place: Some(store.vaults()[0].0), packs: Vec::new() }],
            part,
            &VoidMonitor,
        );
        report.unwrap().findings.iter().filter(|f| f.object == name.as_str()).count()
    };
    assert_eq!([other, its, other].map(told), [0, 1, 1]);
    push(&store, &one, &RecordingMonitor::default()).unwrap();
    assert_eq!([its, other].map(told), [0, 0]);
}

/// Forgets a point once it was listed.
struct Forgets<'a>(&'a Store, &'a StoredPoint);

impl Monitor for Forgets<'_> {
    fn event(&self, event: Event) {
        if let Event::Stage { name: "points", .. } = event {
            self.0.remove_staged_point(&self.0.catalog().point(&self.1.point.id).unwrap().unwrap()).unwrap();
        }
    }
}

#[test]
fn what_a_point_that_goes_meanwhile_has_in_common_with_another_is_looked_at_for_that_one() {
    let home = Home::new();
    let store = home.open();
    let [goes, stays] = [1, 2].map(|_| take_point(&store, &sample(1)).unwrap());
    let pack = data_packs(&store).remove(0);
    std::fs::remove_file(home.path().join(names::pack(&pack.entry.id).as_str())).unwrap();
    drop(store.begin(Compression::None, &VoidMonitor).unwrap());
    let first = store.points().unwrap().remove(0).point.id;
    let goes = if first == goes.point.id { goes } else { stays };
    let found = check::check(&store, check::Depth::Structure, &Forgets(&store, &goes)).unwrap().findings;
    assert!(found.iter().any(|f| f.detail.contains("chunks that they need are lost")), "{found:?}");
}

#[test]
fn a_pack_that_is_missing_or_cut_is_named_though_nobody_reads_it() {
    let (home, vault, store, _) = vaulted();
    let packs = data_packs(&store);
    scrubbed(&store, &both(&store, DUE));
    std::fs::remove_file(home.path().join(names::pack(&packs[0].entry.id).as_str())).unwrap();
    let there = names::pack(&packs[1].entry.id);
    vault.replace(&there, vault.object(&there).unwrap().slice(..1000));
    let report = scrubbed(&store, &both(&store, Wanted::Bytes(1)));
    let said: Vec<&str> = report.findings.iter().map(|f| f.detail.as_str()).collect();
    assert!(said.iter().any(|s| s.contains("staging: the pack is missing")), "{said:?}");
    assert!(said.iter().any(|s| s.contains("1000 bytes instead of")), "{said:?}");
    assert_eq!(report.files, []);
}

#[test]
fn what_is_lost_in_every_place_is_named_also_when_the_loss_was_learned_before() {
    let (home, vault, store, one) = vaulted();
    let pack = data_packs(&store).remove(0);
    let (name, (no, _, way)) = (names::pack(&pack.entry.id), store.vaults()[0].clone());
    vault.replace(&name, flip(&vault.object(&name).unwrap()).into());
    assert_eq!(scrubbed(&store, &[turn(&store, Some(no), Wanted::All)]).findings.len(), 1);
    std::fs::remove_file(home.path().join(name.as_str())).unwrap();
    vault.lose(&name);
    // A push and a backup write it off, which puts nothing right.
    copy::refresh_vault(&store, no, &way, &VoidMonitor).unwrap();
    drop(store.begin(Compression::None, &VoidMonitor).unwrap());
    assert!(store.catalog().packs().unwrap().iter().all(|row| row.no != pack.no));
    for place in [None, Some(no)] {
        assert!(!store.is_sound_in(place, &pack.entry.id).unwrap());
    }
    for _ in 0..2 {
        let report = scrubbed(&store, &both(&store, Wanted::All));
        assert!(report.findings.iter().any(|f| f.detail.contains("chunks that they need are lost")));
        assert!(!report.files.is_empty() && report.files.iter().all(|file| file.point == one.point.id));
    }
    take_point(&store, &sample(1)).unwrap();
    // The source still had it, and the vault gets it with a push.
    let found = scrubbed(&store, &both(&store, Wanted::All)).findings;
    assert!(found.iter().all(|f| f.detail.contains("memory:v: ")) && found.len() == 1, "{found:?}");
    copy::push_point(&store, no, &way, &one.point.id, &VoidMonitor).unwrap();
    assert_eq!(scrubbed(&store, &both(&store, Wanted::All)).findings, []);
}

/// Asks to stop after so many packs.
struct StopsAfter {
    packs: u64,
    seen: AtomicU64,
}

impl Monitor for StopsAfter {
    fn event(&self, event: Event) {
        if let Event::Done { bytes: 1.., .. } = event {
            self.seen.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn cancelled(&self) -> bool {
        self.seen.load(Ordering::SeqCst) >= self.packs
    }
}

#[test]
fn a_scrub_that_is_cut_off_leaves_the_rest_for_the_next_one() {
    let (_home, _vault, store, _) = vaulted();
    let all = turn(&store, None, DUE).packs.len();
    let monitor = StopsAfter { packs: 2, seen: AtomicU64::new(0) };
    let cut = scrub(&store, &[turn(&store, None, DUE)], Part::WHOLE, &monitor);
    assert!(matches!(cut, Err(StoreError::Cancelled)), "{cut:?}");
    assert_eq!(turn(&store, None, DUE).packs.len(), all - 2);
    assert_eq!(scrubbed(&store, &[turn(&store, None, DUE)]).packs, all as u64 - 2);
}

#[test]
fn a_vault_that_is_away_is_told_and_keeps_nobody_from_reading_what_is_here() {
    let (home, vault, store, _) = vaulted();
    drop(store);
    let faulty = Arc::new(FaultyVault::new(vault, Arc::new(ManualClock::default())));
    let way = Transfer::new(faulty.clone(), Arc::new(ManualClock::default()), TransferPolicy::default());
    let options = Home::options(vec![("memory:v".into(), way.unwrap())]);
    let store = Store::open(&home.path(), &home.ring, options, &VoidMonitor).unwrap();
    faulty.fail_any_from(1, VaultFault::FailBefore);
    let report = scrubbed(&store, &both(&store, DUE));
    assert!(!report.findings.is_empty() && report.findings.iter().all(|f| f.unseen), "{report:?}");
    assert_eq!(store.catalog().proof_of(None).unwrap().packs_never, 0);
    faulty.heal();
    faulty.forget();
    // Of one place the other is asked nothing but what reclaim did there.
    scrubbed(&store, &[turn(&store, None, Wanted::All)]);
    let packs = faulty.requests().into_iter().filter(|r| r.name.starts_with("pack") || r.verb == Verb::Put);
    assert_eq!(packs.count(), 0);
}

#[test]
fn chunks_of_a_pack_that_a_scrub_found_damaged_are_stored_again_from_a_source_that_still_has_them() {
    let home = Home::new();
    let store = home.open();
    let one = take_point(&store, &sample(1)).unwrap();
    let pack = data_packs(&store).remove(0);
    damage_staged(&home, pack.no, &store);
    let report = scrubbed(&store, &[turn(&store, None, DUE)]);
    assert!(!report.files.is_empty(), "{report:?}");
    let two = take_point(&store, &sample(1)).unwrap();
    let healed = scrubbed(&store, &[turn(&store, None, DUE)]);
    assert_eq!(healed.files, [], "{healed:?}");
    for point in [&one, &two] {
        assert!(restore(&store, point).unwrap() == sample(1));
    }
    // The damaged pack goes when space is freed, and nothing is told any more.
    reclaim::free_staging(&store, &VoidMonitor).unwrap();
    assert_eq!(scrubbed(&store, &[turn(&store, None, Wanted::All)]).findings, []);
    forget_and_free(&store, &one);
    assert!(restore(&store, &two).unwrap() == sample(1));
}

/// A store with a point that is in staging and in a vault, and a pack of staging that a scrub found damaged; its name.
fn damaged_here() -> (Home, Arc<MemoryVault>, Store, StoredPoint, ObjectName) {
    let (home, vault, store, one) = vaulted();
    let name = damage_staged(&home, data_packs(&store).remove(0).no, &store);
    assert!(!scrubbed(&store, &[turn(&store, None, DUE)]).findings.is_empty());
    (home, vault, store, one, ObjectName::new(name).unwrap())
}

#[test]
fn a_damaged_pack_here_is_healed_from_a_vault_and_its_old_bytes_are_kept_aside() {
    let (home, vault, store, one, name) = damaged_here();
    let at = |name: &ObjectName| home.path().join(name.as_str());
    let bad = std::fs::read(at(&name)).unwrap();
    let monitor = RecordingMonitor::default();
    let healed = store.heal_staging(&monitor).unwrap();
    assert_eq!(healed.len(), 1);
    assert_eq!((names::pack(&healed[0].pack), healed[0].from), (name.clone(), store.vaults()[0].0));
    assert!(format!("{:?}", monitor.events()).contains("those of memory:v took their place"));
    assert_eq!(std::fs::read(at(&name)).unwrap(), vault.object(&name).unwrap());
    assert_eq!(std::fs::read(at(&names::bad(&name, blake3::hash(&bad).as_bytes()))).unwrap(), bad);
    assert_eq!(scrubbed(&store, &both(&store, Wanted::All)).findings, []);
    assert_eq!(store.heal_staging(&VoidMonitor).unwrap(), []);
    assert!(restore(&home.open(), &one).unwrap() == sample(1), "without the vault");
}

#[test]
fn what_no_vault_has_whole_stays_as_it_is_and_a_passing_fault_costs_nothing() {
    let (home, vault, store, _, name) = damaged_here();
    let path = home.path().join(name.as_str());
    let (bad, good) = (std::fs::read(&path).unwrap(), vault.object(&name).unwrap());
    vault.replace(&name, flip(&good).into());
    assert_eq!(store.heal_staging(&VoidMonitor).unwrap(), []);
    assert_eq!(std::fs::read(&path).unwrap(), bad);
    vault.replace(&name, good.clone());
    // Another process writes.
    let lock = store.lock().unwrap();
    assert!(matches!(store.heal_staging(&VoidMonitor), Err(StoreError::Locked { .. })));
    drop(lock);
    // It reads right again.
    std::fs::write(&path, &good).unwrap();
    assert_eq!(store.heal_staging(&VoidMonitor).unwrap().len(), 1);
    assert_eq!(store.staging().list("bad").unwrap(), [], "neither bytes nor a mark");
    assert_eq!(scrubbed(&store, &both(&store, Wanted::All)).findings, []);
}

#[test]
fn a_catalog_that_is_made_anew_knows_which_packs_were_found_damaged_and_nothing_new_relies_on_them() {
    let (home, _, store, _, name) = damaged_here();
    let before = store.staging().list("pack").unwrap().len();
    drop(store);
    std::fs::write(home.path().join("catalog.db"), b"no database").unwrap();
    let monitor = RecordingMonitor::default();
    let store = Store::open(&home.path(), &home.ring, Home::options(Vec::new()), &monitor).unwrap();
    let (note, problem) = match &monitor.events()[..] {
        [Event::Note(note), Event::Problem { path, .. }] => (note.clone(), path.clone()),
        other => panic!("{other:?}"),
    };
    assert!(note.contains("kept as catalog.db.damaged") && problem == name.as_str().as_bytes(), "{note}");
    let two = take_point(&store, &sample(1)).unwrap();
    assert!(store.staging().list("pack").unwrap().len() > before, "what was in it is stored again");
    reclaim::free_staging(&store, &VoidMonitor).unwrap();
    assert!(!home.path().join(name.as_str()).exists());
    assert_eq!(store.staging().list("bad").unwrap(), [], "of what is gone nothing speaks");
    assert!(restore(&store, &two).unwrap() == sample(1));
}

#[test]
fn healing_may_be_cut_off_anywhere_and_loses_nothing() {
    for fault in [Fault::Once(ErrorKind::StorageFull), Fault::Crash] {
        for n in 0.. {
            let (home, vault, store, one, name) = damaged_here();
            drop(store);
            let files = Arc::new(FaultyFiles::new(Arc::new(DiskFiles::new(&home.path()))));
            let options = Home::options(vec![("memory:v".into(), transfer(&vault))]);
            let store =
                Store::open_on(files.clone(), &home.path(), &home.ring, options, &VoidMonitor).unwrap();
            files.fail_at(n, fault);
            let healed = store.heal_staging(&VoidMonitor);
            let struck = files.struck();
            assert!(struck || healed.is_ok_and(|healed| healed.len() == 1));
            drop(store);
            let store = home.open_with(&vault);
            assert!(restore(&store, &one).unwrap() == sample(1), "{fault:?} at {n}");
            let two = take_point(&store, &sample(2)).unwrap();
            assert!(restore(&store, &two).unwrap() == sample(2), "{fault:?} at {n}");
            store.heal_staging(&VoidMonitor).unwrap();
            assert_eq!(scrubbed(&store, &both(&store, Wanted::All)).findings, [], "{fault:?} at {n}");
            if !struck {
                assert!(n > 2, "{n} operations");
                assert_eq!(
                    std::fs::read(home.path().join(name.as_str())).unwrap(),
                    vault.object(&name).unwrap()
                );
                break;
            }
        }
    }
}

#[test]
fn a_pack_that_is_missing_or_cut_here_comes_back_from_a_vault_also_when_it_was_written_off() {
    for (is_cut, is_written_off) in [(false, false), (true, false), (false, true), (true, true)] {
        let (home, vault, store, one) = vaulted();
        let pack = data_packs(&store).remove(0);
        let (id, name) = (pack.entry.id, names::pack(&pack.entry.id));
        let path = home.path().join(name.as_str());
        match is_cut {
            true => std::fs::write(&path, &std::fs::read(&path).unwrap()[..100]).unwrap(),
            false => std::fs::remove_file(&path).unwrap(),
        }
        if is_written_off {
            reclaim::free_staging(&store, &VoidMonitor).unwrap();
            assert!(!store.catalog().pack(pack.no).unwrap().unwrap().staged);
        }
        let report = scrubbed(&store, &both(&store, Wanted::All));
        assert!(
            report.findings.iter().any(|f| f.object == name.as_str() && f.detail.starts_with("staging: "))
        );
        let healed = store.heal_staging(&VoidMonitor).unwrap();
        assert_eq!(healed, [Healed { pack: id, from: store.vaults()[0].0 }]);
        assert_eq!(std::fs::read(&path).unwrap(), vault.object(&name).unwrap());
        assert_eq!(scrubbed(&store, &both(&store, Wanted::All)).findings, []);
        drop(store);
        assert!(restore(&home.open(), &one).unwrap() == sample(1), "without the vault");
    }
}

#[test]
fn what_is_missing_here_and_no_point_needs_is_not_missed() {
    let (home, _, store, one) = vaulted();
    let name = names::pack(&data_packs(&store).remove(0).entry.id);
    std::fs::remove_file(home.path().join(name.as_str())).unwrap();
    drop(store.begin(Compression::None, &VoidMonitor).unwrap());
    assert_eq!(store.missed_here().unwrap().len(), 1);
    forget_and_free(&store, &one);
    assert_eq!(store.missed_here().unwrap(), []);
    assert_eq!(scrubbed(&store, &both(&store, Wanted::All)).findings, []);
    assert_eq!(store.heal_staging(&VoidMonitor).unwrap(), []);
}
