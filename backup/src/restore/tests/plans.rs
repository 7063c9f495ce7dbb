//! Rehearsals, reading back, owners, bounds, and places into which nothing is restored.

use super::*;
use holdfast_store::clock::{Clock, ManualClock};

/// What was told of each entry.
fn told(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Entry { path, action, .. } => Some(format!("{action} {}", crate::error::shown(path))),
        _ => None,
    };
    events.iter().filter_map(line).collect()
}

fn set_time(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_rehearsal_says_of_each_entry_what_the_run_then_does() {
    let mut source = MemorySource::new();
    for path in ["a/new", "a/old", "a/young", "b/1", "is-there"] {
        source.file(path.as_bytes(), b"from the point").mtime = Timestamp::from_seconds(1_500_000_000);
    }
    for path in ["link-1", "link-2"] {
        let node = source.file(path.as_bytes(), b"shared");
        (node.inode, node.links, node.mtime) = (99, 2, Timestamp::from_seconds(1_500_000_000));
    }
    source.put(b"s", NodeKind::Symlink).target = Some(b"x".to_vec());
    let (point, _) = MemoryPoint::of(&source);
    let table: [(Overwrite, &[&str]); 4] = [
        (Overwrite::Always, &["create a/new", "replace a/old", "replace a/young", "replace b"]),
        (Overwrite::IfNewer, &["create a/new", "replace a/old", "keep a/young", "keep b"]),
        (Overwrite::Never, &["create a/new", "keep a/old", "keep a/young", "keep b"]),
        (Overwrite::KeepBoth, &["create a/new", "keep both a/old", "keep both a/young", "keep both b"]),
    ];
    for (overwrite, expected) in table {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.join("a")).unwrap();
        for (name, time) in [("a/old", 1_000_000_000), ("a/young", 2_000_000_000), ("b", 2_100_000_000)] {
            std::fs::write(scratch.join(name), "mine").unwrap();
            set_time(&scratch.join(name), time);
        }
        let only = RestoreOptions { include: patterns(&["/is-there"]), ..options() };
        restore(&point, scratch.path(), &only);
        let options = RestoreOptions { overwrite, tell: true, workers: 1, ..options() };
        let before = names(scratch.path().into());
        let (dry, plan) =
            restore(&point, scratch.path(), &RestoreOptions { dry_run: true, ..options.clone() });
        assert_eq!(names(scratch.path().into()), before, "{overwrite:?}");
        for line in expected.iter().chain(&["same is-there", "create link-1", "link link-2", "create s"]) {
            assert!(told(&plan).contains(&(*line).to_owned()), "{overwrite:?} {line}: {:?}", told(&plan));
        }
        let (summary, events) = restore(&point, scratch.path(), &options);
        assert_eq!(RestoreSummary { refused: 0, ..summary }, dry, "{overwrite:?}");
        // What is kept beside another is told under the name that it got.
        let plain = |events: &[Event]| {
            let mut lines: Vec<_> = told(events).iter().map(|line| line.replace(".restored", "")).collect();
            lines.sort();
            lines.iter().map(|line| line.replace("keep both b", "create b")).collect::<Vec<_>>()
        };
        let (mut done, mut planned) = (plain(&events), plain(&plan));
        done.sort();
        planned.sort();
        assert_eq!(done, planned, "{overwrite:?}");
    }
}

#[test]
fn a_rehearsal_needs_no_target() {
    let point = memory(&["a", "b/c"]);
    let monitor = RecordingMonitor::default();
    let options = RestoreOptions { tell: true, ..options() };
    let summary = rehearse_tree(&point, point.root(), &options, &monitor).unwrap();
    assert_eq!((summary.files, summary.directories, summary.bytes), (2, 1, 28));
    assert_eq!(told(&monitor.events()), ["create a", "create b", "create b/c"]);
}

#[test]
fn reading_back_names_every_kind_of_difference() {
    let scratch = Scratch::new();
    build_nasty(&scratch.join("tree"));
    let point = walked(&scratch.join("tree"));
    let target = scratch.join("back");
    restore(&point, &target, &options());
    let (found, events) = verify(&point, &target, &options());
    assert_eq!((found.differences, problems(&events)), (0, Vec::<String>::new()));

    let mut source = MemorySource::new();
    for path in ["content", "length", "mode", "gone", "kind", "time", "d/one"] {
        let node = source.file(path.as_bytes(), b"from the point");
        (node.mode, node.mtime) = (0o644, Timestamp::from_seconds(1_500_000_000));
    }
    for path in ["l1", "l2"] {
        let node = source.file(path.as_bytes(), b"shared");
        (node.inode, node.links, node.mtime) = (99, 2, Timestamp::from_seconds(1_500_000_000));
    }
    source.segments(b"hole", vec![Segment::Hole(1 << 20)]).mtime = Timestamp::from_seconds(1_500_000_000);
    source.put(b"s", NodeKind::Symlink).target = Some(b"x".to_vec());
    let (point, _) = MemoryPoint::of(&source);
    let target = scratch.join("other");
    restore(&point, &target, &options());
    assert_eq!(verify(&point, &target, &options()).0.differences, 0);
    let rewrite = |name: &str, content: &str| {
        std::fs::write(target.join(name), content).unwrap();
        set_time(&target.join(name), 1_500_000_000);
    };
    rewrite("content", "from the paint");
    rewrite("length", "short");
    let hole = std::fs::File::options().write(true).open(target.join("hole")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&hole, b"x", 70_000).unwrap();
    set_time(&target.join("hole"), 1_500_000_000);
    std::fs::set_permissions(target.join("mode"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    std::fs::remove_file(target.join("gone")).unwrap();
    std::fs::remove_file(target.join("kind")).unwrap();
    symlink("x", target.join("kind")).unwrap();
    set_time(&target.join("time"), 1_500_000_001);
    std::fs::remove_file(target.join("s")).unwrap();
    symlink("y", target.join("s")).unwrap();
    std::fs::remove_dir_all(target.join("d")).unwrap();
    std::fs::remove_file(target.join("l2")).unwrap();
    std::fs::copy(target.join("l1"), target.join("l2")).unwrap();
    std::fs::set_permissions(target.join("l2"), std::fs::metadata(target.join("l1")).unwrap().permissions())
        .unwrap();
    set_time(&target.join("l2"), 1_500_000_000);
    let same_owner = |name: &str| {
        let meta = std::fs::metadata(target.join("l1")).unwrap();
        std::os::unix::fs::chown(target.join(name), Some(meta.uid()), Some(meta.gid())).unwrap();
    };
    same_owner("l2");
    let options = RestoreOptions { root_attributes: false, ..options() };
    let (_, events) = verify(&point, &target, &options);
    let mut lines: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Problem { path, reason } => Some(format!("{}: {reason}", crate::error::shown(path))),
            _ => None,
        })
        .collect();
    lines.sort();
    let expected = [
        "content: its content is not that of the point: bytes 0 to 14 differ",
        "d: it is missing, or no directory",
        "gone: it is missing",
        "hole: its content is not that of the point: bytes ",
        "kind: its kind is not that of the point",
        "l2: it is a copy and not another name of the same file",
        "length: its length is not that of the point",
        "mode: its mode is not that of the point",
        "s: its content is not that of the point",
        "time: its modification time is not that of the point",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    lines.iter().zip(expected).for_each(|(line, start)| assert!(line.starts_with(start), "{line}"));
}

#[test]
fn reading_back_looks_beside_what_was_kept() {
    let scratch = Scratch::new();
    let point = memory(&["file", "d/file"]);
    std::fs::write(scratch.join("file"), "mine").unwrap();
    let both = RestoreOptions { overwrite: Overwrite::KeepBoth, ..options() };
    restore(&point, scratch.path(), &both);
    assert_eq!(verify(&point, scratch.path(), &both).0.differences, 0);
    assert!(verify(&point, scratch.path(), &options()).0.differences > 0);
}

#[test]
fn nothing_is_restored_into_the_stores_own_directories() {
    let scratch = Scratch::new();
    let point = memory(&["a/store/x", "b"]);
    std::fs::create_dir_all(scratch.join("a/store/packs")).unwrap();
    let meta = std::fs::metadata(scratch.join("a/store")).unwrap();
    let never_enter = HashSet::from([(meta.dev(), meta.ino())]);
    for dry_run in [true, false] {
        let options = RestoreOptions { never_enter: never_enter.clone(), dry_run, ..options() };
        let (summary, events) = restore(&point, scratch.path(), &options);
        assert_eq!((summary.files, summary.problems), (1, 1), "{events:?}");
        assert_eq!(names(scratch.join("a/store")), ["packs"]);
        for below in ["a/store", "a/store/packs"] {
            let open = opened(scratch.join(below));
            let result = restore_tree(&point, point.root(), &open, &options, &RecordingMonitor::default());
            assert!(matches!(result, Err(RestoreError::Target(TargetError::Invalid { .. }))), "{below}");
        }
    }
    assert!(open_target(&scratch.join("a/store/new/newer"), true, &never_enter).is_err());
    assert_eq!(names(scratch.join("a/store")), ["packs"]);
    // The place of the store is an empty directory in a point that was taken around it.
    let mut source = MemorySource::new();
    source.put(b"a/store", NodeKind::Directory);
    let (point, _) = MemoryPoint::of(&source);
    let (summary, events) = restore(&point, scratch.path(), &RestoreOptions { never_enter, ..options() });
    assert_eq!(summary.problems, 0, "{events:?}");
    assert_eq!(names(scratch.join("a/store")), ["packs"]);
}

#[test]
fn files_belong_to_whom_the_rules_say() {
    if !is_root() {
        return;
    }
    let mut source = MemorySource::new();
    for (path, uid) in [("a", 501), ("b", 502)] {
        let node = source.file(path.as_bytes(), b"x");
        (node.uid, node.gid, node.mode) = (uid, 7, 0o4755);
    }
    let (point, _) = MemoryPoint::of(&source);
    let mut owners = Owners::default();
    owners.add(OwnerKind::User, "501:4001").unwrap();
    owners.add(OwnerKind::Group, "*:4002").unwrap();
    let scratch = Scratch::new();
    let mapped = RestoreOptions { owners, ..options() };
    restore(&point, &scratch.join("mapped"), &mapped);
    let of = |path: &str| {
        let meta = std::fs::metadata(scratch.join(path)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!((of("mapped/a"), of("mapped/b")), ((4001, 4002, 0o4755), (502, 4002, 0o4755)));
    assert_eq!(
        restore(&point, &scratch.join("mapped"), &mapped).0.same,
        2,
        "the rules hold for what is there, too"
    );
    let mine = RestoreOptions { owners: Owners::new(OwnerDefault::Leave), ..options() };
    restore(&point, &scratch.join("mine"), &mine);
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw(), 0o755);
    assert_eq!((of("mine/a"), of("mine/b")), (me, me));
}

#[test]
fn a_bound_on_bytes_a_second_is_kept() {
    let mut source = MemorySource::new();
    source.file(b"large", &vec![7; 10 << 20]);
    source.file(b"small", &[8; 1000]);
    let (point, _) = MemoryPoint::of(&source);
    let clock = ManualClock::at(Timestamp::default());
    let throttle = Throttle::new(Arc::new(clock.clone()), 1 << 20);
    let scratch = Scratch::new();
    let options = RestoreOptions { throttle: Some(Arc::new(throttle)), ..options() };
    restore(&point, scratch.path(), &options);
    assert!(clock.monotonic() >= std::time::Duration::from_secs(10), "{:?}", clock.monotonic());
    assert_eq!(verify(&point, scratch.path(), &options).0.differences, 0);
}
