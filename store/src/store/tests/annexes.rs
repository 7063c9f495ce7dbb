//! Tests of a store whose packs lie in several directories that come and go.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::hostile::delete_catalog;
use super::thin::forget_here;
use super::turns::Gaps;
use super::*;
use crate::check::{self, Depth};
use crate::id::PackId;
use crate::monitor::Event;
use crate::staging::MARKER;

mod owner;
mod safety;

fn at(home: &Home, name: &str) -> PathBuf {
    home.dir.path().join(name)
}

fn add(home: &Home, path: &Path) -> Result<crate::id::AnnexId, StoreError> {
    add_annex(&home.path(), &Store::head(&home.path())?.vault, path, false)
}

/// Leaves an empty mount point.
fn unmount(home: &Home, name: &str) {
    std::fs::rename(at(home, name), at(home, "unmounted")).unwrap();
    std::fs::create_dir(at(home, name)).unwrap();
}

fn mount(home: &Home, name: &str) {
    std::fs::remove_dir(at(home, name)).unwrap();
    std::fs::rename(at(home, "unmounted"), at(home, name)).unwrap();
}

fn packs_in(dir: &Path) -> Vec<PathBuf> {
    let dirs = std::fs::read_dir(dir.join("pack")).into_iter().flatten();
    dirs.flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap())
        .map(|pack| pack.unwrap().path())
        .collect()
}

fn id_of(pack: &Path) -> PackId {
    PackId::from_hex(pack.file_name().unwrap().to_str().unwrap()).unwrap()
}

/// Problems that were told.
fn problems(monitor: &RecordingMonitor) -> Vec<(String, String)> {
    let events = monitor.events().into_iter();
    let told = events.filter_map(|event| match event {
        Event::Problem { path, reason } => Some((String::from_utf8(path).unwrap(), reason)),
        _ => None,
    });
    told.collect()
}

/// A store with a point in its own directory, and one that lies in the annex `b` in part.
fn spread() -> (Home, [StoredPoint; 2]) {
    let home = Home::new();
    let store = home.open();
    let one = take_point(&store, &sample(1)).unwrap();
    add(&home, &at(&home, "b")).unwrap();
    let two = take_point(&store, &sample(2)).unwrap();
    assert!(!packs_in(&at(&home, "b")).is_empty() && !packs_in(&home.path()).is_empty());
    (home, [one, two])
}

#[track_caller]
fn assert_whole(store: &Store, versions: &[u32]) {
    let points = store.points().unwrap();
    assert_eq!(points.len(), versions.len());
    for (point, version) in points.iter().zip(versions) {
        assert!(restore(store, point).unwrap() == sample(*version), "version {version}");
    }
}

#[test]
fn a_backup_goes_on_while_an_annex_is_away_which_is_told_once_and_taken_back() {
    let (home, _) = spread();
    unmount(&home, "b");
    let store = home.open();
    let monitor = RecordingMonitor::default();
    drop(store.begin(Compression::None, &monitor).unwrap());
    let told = problems(&monitor);
    assert_eq!(told.len(), 1, "once, and not for each pack: {told:?}");
    let packs = packs_in(&at(&home, "unmounted"));
    assert_eq!(Path::new(&told[0].0), at(&home, "b"));
    assert!(told[0].1.contains(&format!("{} packs", packs.len())), "{told:?}");
    let error = restore(&store, &store.points().unwrap()[1]).unwrap_err();
    assert!(error.to_string().contains("is away"), "{error}");
    take_point(&store, &sample(2)).unwrap();
    assert_whole(&store, &[1, 2, 2]);
    assert_eq!(
        std::fs::read_dir(at(&home, "b")).unwrap().count(),
        0,
        "nothing is written to the mount point"
    );
    mount(&home, "b");
    let back = home.open();
    for pack in &packs {
        assert!(back.catalog().pack_by_id(&id_of(pack)).unwrap().unwrap().staged);
    }
    let monitor = RecordingMonitor::default();
    drop(back.begin(Compression::None, &monitor).unwrap());
    assert_eq!(problems(&monitor), []);
    assert_whole(&back, &[1, 2, 2]);
}

#[test]
fn packs_that_come_back_are_known_without_reading_them() {
    for catalog_is_lost in [false, true] {
        let (home, _) = spread();
        unmount(&home, "b");
        if catalog_is_lost {
            delete_catalog(&home.path());
        }
        drop(home.open().begin(Compression::None, &VoidMonitor).unwrap());
        // Whoever read them would see that these are not their bytes.
        for pack in packs_in(&at(&home, "unmounted")) {
            let len = std::fs::metadata(&pack).unwrap().len();
            std::fs::write(&pack, vec![0; len as usize]).unwrap();
        }
        mount(&home, "b");
        let monitor = RecordingMonitor::default();
        let store = Store::open(&home.path(), &home.ring, Home::options(Vec::new()), &monitor).unwrap();
        assert_eq!(problems(&monitor), [], "catalog is lost: {catalog_is_lost}");
        for pack in packs_in(&at(&home, "b")) {
            let row = store.catalog().pack_by_id(&id_of(&pack)).unwrap();
            assert!(row.unwrap().staged, "catalog is lost: {catalog_is_lost}");
        }
        assert!(!at(&home, "b/bad").exists());
    }
}

#[test]
fn a_pack_that_was_known_to_be_damaged_is_so_when_its_annex_is_back() {
    let (home, _) = spread();
    let store = home.open();
    let id = id_of(&packs_in(&at(&home, "b"))[0]);
    let no = store.catalog().pack_by_id(&id).unwrap().unwrap().no;
    store.catalog().set_bad(no, true).unwrap();
    unmount(&home, "b");
    drop(store.begin(Compression::None, &VoidMonitor).unwrap());
    assert!(store.catalog().bad_packs().unwrap().is_empty());
    mount(&home, "b");
    let store = home.open();
    let no = store.catalog().pack_by_id(&id).unwrap().unwrap().no;
    assert!(store.catalog().bad_packs().unwrap().contains(&no));
}

#[test]
fn a_deleted_catalog_is_made_anew_from_all_directories() {
    let (home, _) = spread();
    delete_catalog(&home.path());
    assert_whole(&home.open(), &[1, 2]);
}

#[test]
fn who_has_the_store_open_reads_from_an_annex_that_was_added_since_and_from_one_that_is_left() {
    let home = Home::new();
    let reader = home.open();
    let writer = home.open();
    add(&home, &at(&home, "b")).unwrap();
    take_point(&writer, &sample(1)).unwrap();
    assert!(packs_in(&home.path()).is_empty(), "all is in the annex");
    assert_whole(&reader, &[1]);
    leave(&home, &VoidMonitor).unwrap();
    reader.reader().forget_places();
    reader.staging().close_replaced();
    assert_whole(&reader, &[1]);
}

#[test]
fn a_session_that_runs_uses_an_annex_that_is_added_meanwhile() {
    let home = Home::new();
    let store = home.open();
    let session = store.begin(Compression::Zstd(1), &VoidMonitor).unwrap();
    let id = add(&home, &at(&home, "b")).unwrap();
    take_point_by(session, &sample(1)).unwrap();
    let packs = packs_in(&at(&home, "b"));
    assert!(!packs.is_empty() && packs_in(&home.path()).is_empty());
    assert_eq!(
        store.catalog().packs_in_annex(&id).unwrap().len(),
        packs.len(),
        "and it is known what lies there"
    );
    assert_whole(&store, &[1]);
}

/// Leaves the annex `b`.
fn leave(home: &Home, monitor: &dyn Monitor) -> Result<(), StoreError> {
    leave_by(&home.open(), monitor)
}

fn leave_by(store: &Store, monitor: &dyn Monitor) -> Result<(), StoreError> {
    let mut turns = Turns::begin(store).unwrap();
    let annexes = store.staging().annexes();
    store.begin_leaving(annexes[0].id)?;
    store.leave_annex(&annexes[0], &mut turns, monitor)
}

#[test]
fn backups_and_prunes_between_two_turns_of_a_move_are_no_harm_to_it() {
    let (home, [one, two]) = spread();
    let clock = ManualClock::at(Timestamp::from_seconds(1000));
    let store =
        Store::open(&home.path(), &home.ring, StoreOptions::local(Arc::new(clock.clone())), &VoidMonitor)
            .unwrap();
    let other = home.open();
    let (mut gaps, mut three) = (0, None);
    let in_gap = || {
        gaps += 1;
        match gaps {
            1 => {
                forget_here(&other, &one);
                assert!(reclaim::free_staging(&other, &VoidMonitor).unwrap().1.packs > 0);
            }
            2 => three = Some(take_point(&other, &sample(3)).unwrap()),
            _ => {}
        }
    };
    let monitor = Gaps { clock, dir: home.path(), in_gap: Mutex::new(in_gap), at_mark: Mutex::new(|| {}) };
    leave_by(&store, &monitor).unwrap();
    drop(monitor);
    assert!(gaps > 1 && packs_in(&at(&home, "b")).is_empty(), "{gaps}");
    let store = home.open();
    assert!(store.staging().annexes().is_empty());
    for (point, version) in [(&two, 2), (&three.unwrap(), 3)] {
        assert!(restore(&store, point).unwrap() == sample(version));
    }
    assert_eq!(findings(&store, Depth::ReadData), []);
}

/// Asks to stop after so many packs.
struct Stops(AtomicUsize);

impl Monitor for Stops {
    fn event(&self, event: Event) {
        if matches!(event, Event::Done { .. }) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn an_annex_is_left_with_all_that_was_in_it_also_in_two_runs() {
    let (home, _) = spread();
    let before = packs_in(&at(&home, "b"));
    let damaged = &before[0];
    let len = std::fs::metadata(damaged).unwrap().len();
    std::fs::write(damaged, vec![0; len as usize]).unwrap();
    let error = leave(&home, &Stops(AtomicUsize::new(1))).unwrap_err();
    assert_eq!(error.class(), crate::ErrorClass::Cancelled);
    assert_eq!(packs_in(&at(&home, "b")).len(), before.len() - 1);
    // Nothing new goes there meanwhile.
    take_point(&home.open(), &sample(3)).unwrap();
    assert_eq!(packs_in(&at(&home, "b")).len(), before.len() - 1);
    let monitor = RecordingMonitor::default();
    leave(&home, &monitor).unwrap();
    assert_eq!(std::fs::read_dir(at(&home, "b")).unwrap().count(), 0, "it may be used for something else");
    assert_eq!(Settings::load(&home.path()).unwrap().staging, []);
    let store = home.open();
    assert!(store.catalog().pack_by_id(&id_of(damaged)).unwrap().is_none_or(|row| !row.staged));
    assert!(home.path().join("bad/pack").exists(), "its bytes are kept");
    let rows = store.catalog().packs().unwrap();
    assert!(before[1..].iter().all(|pack| rows.iter().any(|row| row.entry.id == id_of(pack) && row.staged)));
    // What the damaged one had is stored anew.
    take_point(&store, &sample(2)).unwrap();
    take_point(&store, &sample(1)).unwrap();
    delete_catalog(&home.path());
    assert_whole(&home.open(), &[1, 2, 3, 2, 1]);
}

#[test]
fn an_annex_that_is_given_up_is_done_without() {
    let (home, _) = spread();
    unmount(&home, "b");
    let store = home.open();
    let id = store.staging().annexes()[0].id;
    let lock = store.lock().unwrap();
    store.lose_annex(id, &VoidMonitor).unwrap();
    drop(lock);
    assert!(store.catalog().packs_in_annex(&id).unwrap().is_empty());
    let monitor = RecordingMonitor::default();
    drop(store.begin(Compression::None, &monitor).unwrap());
    assert_eq!(problems(&monitor), []);
    take_point(&store, &sample(2)).unwrap();
    assert_whole(&store, &[1, 2, 2]);
    // It turns up after all.
    mount(&home, "b");
    assert_eq!(add(&home, &at(&home, "b")).unwrap(), id);
    assert_whole(&home.open(), &[1, 2, 2]);
}

/// What a check finds but for the slots, which are not real ones in these stores.
fn findings(store: &Store, depth: Depth) -> Vec<check::Finding> {
    let report = check::check(store, depth, &VoidMonitor).unwrap();
    report.findings.into_iter().filter(|finding| !finding.object.starts_with("keys/")).collect()
}

#[test]
fn a_check_says_once_that_an_annex_is_away_and_calls_nothing_in_it_lost() {
    let (home, _) = spread();
    let main = packs_in(&home.path());
    unmount(&home, "b");
    for begun in [false, true] {
        let store = home.open();
        if begun {
            drop(store.begin(Compression::None, &VoidMonitor).unwrap());
        }
        for depth in [Depth::Structure, Depth::ReadData] {
            let found = findings(&store, depth);
            assert!(!found.is_empty() && found.iter().all(|finding| finding.unseen), "{depth:?} {found:?}");
            let b = at(&home, "b").display().to_string();
            assert_eq!(found.iter().filter(|finding| finding.object == b).count(), 1, "{found:?}");
            assert!(!found.iter().any(|finding| finding.object.starts_with("pack/")), "{found:?}");
        }
    }
    // What is gone from another directory is damage all the same.
    std::fs::remove_file(&main[0]).unwrap();
    let found = findings(&home.open(), Depth::Structure);
    let name = names::pack(&id_of(&main[0]));
    assert!(found.iter().any(|finding| !finding.unseen && finding.object == name.as_str()), "{found:?}");
}

#[test]
fn what_may_lie_in_an_annex_that_is_away_is_not_lost() {
    let (home, points) = spread();
    let ids = points.map(|stored| stored.point.id);
    unmount(&home, "b");
    for begun in [false, true] {
        let store = home.open();
        if begun {
            drop(store.begin(Compression::None, &VoidMonitor).unwrap());
        }
        assert_eq!(store.not_lost(&ids).unwrap(), ids.into());
    }
}

#[test]
fn a_check_finds_nothing_when_an_annex_is_back() {
    let (home, _) = spread();
    unmount(&home, "b");
    drop(home.open().begin(Compression::None, &VoidMonitor).unwrap());
    mount(&home, "b");
    assert_eq!(findings(&home.open(), Depth::ReadData), []);
}

#[test]
fn space_is_freed_in_all_directories_and_what_a_point_needs_of_an_annex_that_is_away_keeps_all() {
    let (home, [one, two]) = spread();
    let store = home.open();
    let free = |store: &Store| Ok::<_, StoreError>(reclaim::free_staging(store, &VoidMonitor)?.1);
    unmount(&home, "b");
    let (before, refused) = (packs_in(&home.path()), free(&store).unwrap_err());
    assert!(refused.to_string().contains("is away"), "{refused}");
    assert_eq!(packs_in(&home.path()), before);
    mount(&home, "b");
    let store = home.open();
    let row = store.catalog().point(&two.point.id).unwrap().unwrap();
    store.remove_staged_point(&row).unwrap();
    free(&store).unwrap();
    assert_eq!(packs_in(&at(&home, "b")), [] as [PathBuf; 0], "all of it was the other point's");
    assert_eq!(store.points().unwrap()[0].point.id, one.point.id);
    assert_whole(&store, &[1]);
}

#[test]
fn only_a_directory_of_its_own_becomes_an_annex() {
    use std::os::unix::fs::PermissionsExt;
    let (home, other) = (Home::new(), Home::new());
    let b = at(&home, "b");
    // A file system that is new, as `mkfs` leaves it.
    std::fs::create_dir_all(b.join("lost+found")).unwrap();
    let id = add(&home, &b).unwrap();
    assert_eq!(std::fs::metadata(&b).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(add(&home, &b).unwrap(), id, "the same again is no change");
    assert!(matches!(add(&other, &b), Err(StoreError::NotOurs { .. })));
    for name in ["full/file", "full/pack/x", "full/tmp/letter"] {
        let path = at(&home, name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "mine").unwrap();
        let error = add(&home, &at(&home, "full")).unwrap_err();
        assert!(matches!(error, StoreError::AlreadyThere { .. }), "{name}: {error}");
        std::fs::remove_dir_all(at(&home, "full")).unwrap();
    }
    assert!(add(&home, &at(&home, "no/parent")).is_err());
    // A run that was cut off before the marker.
    std::fs::create_dir_all(at(&home, "cut/pack")).unwrap();
    std::fs::create_dir_all(at(&home, "cut/tmp")).unwrap();
    add(&home, &at(&home, "cut")).unwrap();
    // Before the settings, but for whose it is.
    Settings::change(&home.path(), |settings| {
        settings.staging.clear();
        Ok(())
    })
    .unwrap();
    assert_eq!(add(&home, &b).unwrap(), id);
    // Its disk is mounted elsewhere now.
    std::fs::rename(&b, at(&home, "c")).unwrap();
    assert_eq!(add(&home, &at(&home, "c")).unwrap(), id);
    assert_eq!(Settings::load(&home.path()).unwrap().staging[0].path, at(&home, "c"));
    // A copy of it.
    std::fs::create_dir(&b).unwrap();
    std::fs::copy(at(&home, "c").join(MARKER), b.join(MARKER)).unwrap();
    assert!(matches!(add(&home, &b), Err(StoreError::AlreadyThere { .. })));
    // Another disk in its place.
    std::fs::remove_dir_all(at(&home, "c")).unwrap();
    let error = add(&home, &at(&home, "c")).unwrap_err();
    assert!(error.to_string().contains("is away"), "{error}");
    assert!(!at(&home, "c").exists(), "nothing is made that would be refused");
}

#[test]
fn a_store_has_so_many_annexes_and_no_more() {
    let home = Home::new();
    for n in 0..ANNEXES_MAX {
        add(&home, &at(&home, &format!("annex{n}"))).unwrap();
    }
    assert!(add(&home, &at(&home, "more")).is_err());
    let store = home.open();
    assert_eq!(store.staging_places().unwrap().len(), 1 + ANNEXES_MAX);
    take_point(&store, &sample(1)).unwrap();
    assert_whole(&store, &[1]);
}

#[test]
fn the_directories_say_what_is_in_them_and_of_one_that_is_away_what_was() {
    let (home, _) = spread();
    let count = packs_in(&at(&home, "b")).len() as u64;
    let show = |places: &[StagingPlace]| -> Vec<(bool, bool, u64)> {
        places.iter().map(|place| (place.annex, place.away.is_some(), place.packs)).collect()
    };
    let here = home.open().staging_places().unwrap();
    let main = packs_in(&home.path()).len() as u64;
    assert_eq!(show(&here), [(false, false, main), (true, false, count)]);
    assert!(here.iter().all(|place| place.bytes > 0 && place.room.is_some_and(|room| room.total > 0)));
    unmount(&home, "b");
    let away = home.open().staging_places().unwrap();
    assert_eq!(show(&away), [(false, false, main), (true, true, count)]);
    assert_eq!((away[1].bytes, away[1].room), (here[1].bytes, None));
    // A session that runs keeps others from looking at what came back.
    let writer = home.open();
    let session = writer.begin(Compression::None, &VoidMonitor).unwrap();
    mount(&home, "b");
    let back = home.open().staging_places().unwrap();
    assert!(back[1].away.as_ref().unwrap().to_string().contains("could not be looked at yet"));
    drop(session);
    assert_eq!(show(&home.open().staging_places().unwrap()), show(&here));
}

#[test]
fn settings_that_cannot_be_read_leave_the_annexes_as_they_were() {
    let (home, _) = spread();
    let store = home.open();
    let text = std::fs::read(home.path().join("settings.json")).unwrap();
    std::fs::write(home.path().join("settings.json"), "{").unwrap();
    assert_eq!(store.staging().annexes().len(), 1);
    assert_whole(&store, &[1, 2]);
    let opened = Store::open(&home.path(), &home.ring, Home::options(Vec::new()), &VoidMonitor);
    assert!(opened.is_err(), "who would open it anew knows of none");
    std::fs::write(home.path().join("settings.json"), text).unwrap();
    assert_eq!(store.staging().annexes().len(), 1);
}
