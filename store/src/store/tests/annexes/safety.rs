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

#[test]
fn a_link_in_the_place_of_a_directory_of_an_annex_is_not_followed() {
    for name in ["tmp", "pack", "bad"] {
        let (home, _) = spread();
        let (place, victim) = (at(&home, "b").join(name), at(&home, "victim"));
        std::fs::create_dir(&victim).unwrap();
        let theirs = [victim.join("ab".repeat(16)), victim.join("letter")];
        theirs.iter().for_each(|path| std::fs::write(path, "mine").unwrap());
        let _ = std::fs::rename(&place, at(&home, "moved"));
        std::os::unix::fs::symlink(&victim, &place).unwrap();
        let (store, monitor) = (home.open(), RecordingMonitor::default());
        take_point_by(store.begin(Compression::None, &monitor).unwrap(), &sample(3)).unwrap();
        let told = problems(&monitor);
        assert!(told.len() == 1 && told[0].1.contains("it is a link"), "{told:?}");
        assert!(leave(&home, &VoidMonitor).is_err());
        assert!(add(&home, &at(&home, "b")).unwrap_err().to_string().contains("it is a link"));
        assert!(theirs.iter().all(|path| path.exists()) && victim.read_dir().unwrap().count() == 2, "{name}");
    }
}

#[test]
fn what_is_not_named_like_temporary_files_stays_and_keeps_no_annex_from_being_left() {
    let (home, _) = spread();
    for dir in [home.path(), at(&home, "b")] {
        std::fs::create_dir(dir.join("tmp/dir")).unwrap();
        std::fs::write(dir.join("tmp/dir/letter"), "mine").unwrap();
        std::fs::write(dir.join("tmp").join("ab".repeat(16)), "half").unwrap();
    }
    drop(home.open().begin(Compression::None, &VoidMonitor).unwrap());
    leave(&home, &VoidMonitor).unwrap();
    for dir in [home.path(), at(&home, "b")] {
        assert!(dir.join("tmp/dir/letter").exists());
        assert!(!dir.join("tmp").join("ab".repeat(16)).exists());
    }
    assert!(!at(&home, "b").join(MARKER).exists());
    assert_whole(&home.open(), &[1, 2]);
}

/// Adds the annex `b` again when all of its packs have moved, before it is forgotten.
struct AddsAgain<'a>(&'a Home);

impl Monitor for AddsAgain<'_> {
    fn event(&self, event: Event) {
        let b = at(self.0, "b");
        if matches!(event, Event::Done { .. }) && packs_in(&b).is_empty() {
            add(self.0, &b).unwrap();
        }
    }
}

#[test]
fn an_annex_that_is_added_in_the_last_moment_of_leaving_it_stays() {
    let (home, _) = spread();
    let error = leave(&home, &AddsAgain(&home)).unwrap_err().to_string();
    assert!(error.contains("stays"), "{error}");
    let set = Settings::load(&home.path()).unwrap().staging;
    assert!(set.len() == 1 && !set[0].leaving, "{set:?}");
    let store = home.open();
    let annex = &store.staging().annexes()[0];
    annex.presence().unwrap();
    // After the settings forgot it, before the marker goes.
    assert!(store.unmake_annex(annex).is_err());
    annex.presence().unwrap();
    assert_whole(&store, &[1, 2]);
}

#[test]
fn an_annex_whose_packs_are_those_of_another_directory_is_none() {
    let home = Home::new();
    take_point(&home.open(), &sample(1)).unwrap();
    // Packs that were moved to another disk by a link are packs of the main directory.
    let b = at(&home, "b");
    std::fs::create_dir(&b).unwrap();
    std::fs::rename(home.path().join("pack"), b.join("pack")).unwrap();
    std::os::unix::fs::symlink(b.join("pack"), home.path().join("pack")).unwrap();
    for _ in 0..2 {
        let error = add(&home, &b).unwrap_err().to_string();
        assert!(error.contains("its packs are those of"), "{error}");
        assert!(!b.join(MARKER).exists());
        // It does not matter what is in there.
        take_point(&home.open(), &sample(2)).unwrap();
    }
    assert_whole(&home.open(), &[1, 2, 2]);
    // It becomes so later.
    let c = at(&home, "c");
    add(&home, &c).unwrap();
    std::fs::remove_file(home.path().join("pack")).unwrap();
    std::fs::remove_dir(c.join("pack")).unwrap();
    std::fs::rename(b.join("pack"), c.join("pack")).unwrap();
    std::os::unix::fs::symlink(c.join("pack"), home.path().join("pack")).unwrap();
    let store = home.open();
    assert!(
        store.staging().annexes()[0].presence().unwrap_err().to_string().contains("its packs are those of")
    );
    assert!(leave_by(&store, &VoidMonitor).is_err());
    assert_whole(&home.open(), &[1, 2, 2]);
}

#[test]
fn it_is_known_of_a_pack_that_moved_from_one_annex_into_another_where_it_is_whenever_that_is_cut_off() {
    let (home, _) = spread();
    let c = add(&home, &at(&home, "c")).unwrap();
    leave(&home, &Stops(AtomicUsize::new(1))).unwrap_err();
    let moved = packs_in(&at(&home, "c"));
    assert_eq!(moved.len(), 1);
    let known = home.open().catalog().packs_in_annex(&c).unwrap();
    assert!(known.contains_key(&id_of(&moved[0])));
}
