//! The same restore again, after one that ended early or that did it all; and what runs that died left.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use super::*;
use rustix::fs::FlockOperation;

/// What tells whether something was touched: inode and time of last change, by path.
fn touched(path: &Path) -> Vec<(Vec<u8>, u64, Timestamp)> {
    walked(path).all().into_iter().map(|(path, node)| (path, node.inode, node.ctime)).collect()
}

/// A reader that cannot give contents.
struct NoContent<'a>(&'a MemoryPoint);

impl TreeReader for NoContent<'_> {
    fn entries(&self, directory: &Node) -> Result<Nodes<'_>, StoreError> {
        self.0.entries(directory)
    }
    fn extents(&self, _: &Node) -> Result<Extents<'_>, StoreError> {
        panic!("content was asked for")
    }
    fn data(&self, _: &ChunkId, _: u32) -> Result<Bytes, StoreError> {
        panic!("content was asked for")
    }
    fn is(&self, _: &ChunkId, _: &[u8]) -> bool {
        panic!("content was compared")
    }
}

#[test]
fn a_second_run_touches_nothing_and_reads_no_content() {
    let scratch = Scratch::new();
    build_nasty(&scratch.join("tree"));
    let point = walked(&scratch.join("tree"));
    for overwrite in [Overwrite::Always, Overwrite::IfNewer, Overwrite::Never, Overwrite::KeepBoth] {
        let target = scratch.join(&format!("{overwrite:?}"));
        let options = RestoreOptions { overwrite, ..options() };
        let first = restore(&point, &target, &options).0;
        let before = touched(&target);
        let (monitor, open) = (RecordingMonitor::default(), opened(&target));
        let again = restore_tree(&NoContent(&point), point.root(), &open, &options, &monitor).unwrap();
        let made = first.files + first.others + first.links;
        assert_eq!((again.files, again.links, again.problems, again.skipped), (0, 0, 0, 0), "{overwrite:?}");
        if is_root() {
            assert_eq!((again.same + again.mended, touched(&target)), (made, before), "{overwrite:?}");
        }
        for (expected, got) in essence(&point).iter().zip(&essence(&walked(&target))) {
            assert_eq!(expected, got, "{overwrite:?}");
        }
    }
}

#[test]
fn attributes_alone_are_set_where_only_they_differ() {
    let scratch = Scratch::new();
    let mut source = MemorySource::new();
    source.file(b"file", b"content").mode = 0o640;
    let (point, _) = MemoryPoint::of(&source);
    restore(&point, scratch.path(), &options());
    let inode = std::fs::metadata(scratch.join("file")).unwrap().ino();
    std::fs::set_permissions(scratch.join("file"), PermissionsExt::from_mode(0o777)).unwrap();
    let options = RestoreOptions { overwrite: Overwrite::Always, ..options() };
    let (monitor, open) = (RecordingMonitor::default(), opened(scratch.path()));
    let summary = restore_tree(&NoContent(&point), point.root(), &open, &options, &monitor).unwrap();
    let meta = std::fs::metadata(scratch.join("file")).unwrap();
    assert_eq!((summary.mended, meta.mode() & 0o777, meta.ino()), (1, 0o640, inode));
}

#[test]
fn content_of_the_same_length_and_time_is_found_out_when_it_is_read() {
    let scratch = Scratch::new();
    let point = memory(&["file"]);
    let always = RestoreOptions { overwrite: Overwrite::Always, ..options() };
    restore(&point, scratch.path(), &always);
    let file = std::fs::File::options().write(true).open(scratch.join("file")).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"X", 0).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(restore(&point, scratch.path(), &always).0.same, 1);
    let found = verify(&point, scratch.path(), &always);
    assert_eq!(found.0.differences, 1, "{found:?}");
    let summary = restore(&point, scratch.path(), &RestoreOptions { checksum: true, ..always.clone() }).0;
    assert_eq!((summary.files, summary.replaced), (1, 1));
    assert_eq!(
        verify(&point, scratch.path(), &always).0,
        VerifySummary { entries: 1, files: 1, differences: 0 }
    );
    let again = restore(&point, scratch.path(), &RestoreOptions { checksum: true, ..always }).0;
    assert_eq!(again.same, 1);
}

#[test]
fn two_names_in_the_target_that_are_two_files_in_the_point_become_two_files() {
    let scratch = Scratch::new();
    let point = memory(&["a", "b"]);
    let always = RestoreOptions { overwrite: Overwrite::Always, ..options() };
    restore(&point, scratch.path(), &always);
    std::fs::remove_file(scratch.join("b")).unwrap();
    std::fs::hard_link(scratch.join("a"), scratch.join("b")).unwrap();
    restore(&point, scratch.path(), &always);
    let inode = |name| std::fs::metadata(scratch.join(name)).unwrap().ino();
    assert_ne!(inode("a"), inode("b"));
}

#[test]
fn a_copy_where_a_link_should_be_becomes_a_link() {
    let mut source = MemorySource::new();
    for path in ["a", "b"] {
        let node = source.file(path.as_bytes(), b"shared");
        (node.inode, node.links, node.mtime) = (99, 2, Timestamp::from_seconds(1_500_000_000));
    }
    let (point, _) = MemoryPoint::of(&source);
    for overwrite in [Overwrite::Always, Overwrite::IfNewer] {
        let scratch = Scratch::new();
        let options = RestoreOptions { overwrite, ..options() };
        restore(&point, scratch.path(), &options);
        let time = std::fs::metadata(scratch.join("b")).unwrap().modified().unwrap();
        std::fs::remove_file(scratch.join("b")).unwrap();
        std::fs::write(scratch.join("b"), "shared").unwrap();
        std::fs::File::options().write(true).open(scratch.join("b")).unwrap().set_modified(time).unwrap();
        let summary = restore(&point, scratch.path(), &options).0;
        let inode = |name| std::fs::metadata(scratch.join(name)).unwrap().ino();
        assert_eq!((summary.links, inode("a")), (1, inode("b")), "{overwrite:?} {summary:?}");
    }
}

#[test]
fn of_names_of_one_inode_those_that_are_not_alike_are_files_of_their_own() {
    let mut source = MemorySource::new();
    // While the tree was read the file was written to after its first name, and its mode changed after the third.
    for (path, content, mode) in
        [("a", "before", 0o600), ("b", "behind", 0o600), ("c", "behind", 0o600), ("d", "behind", 0o640)]
    {
        let node = source.file(path.as_bytes(), content.as_bytes());
        (node.inode, node.links, node.mode) = (99, 4, mode);
        node.mtime = Timestamp::from_seconds(1_500_000_000);
        // That a name was made meanwhile makes no difference.
        node.ctime = Timestamp::from_seconds(1_500_000_000 + i64::from(content.as_bytes()[0]));
    }
    let point = MemoryPoint::of(&source).0;
    let expected = [("a", "before"), ("b", "behind"), ("c", "behind"), ("d", "behind")];
    for were_linked in [false, true] {
        let scratch = Scratch::new();
        let options = RestoreOptions { overwrite: Overwrite::Always, checksum: true, ..options() };
        if were_linked {
            std::fs::write(scratch.join("a"), "before").unwrap();
            expected[1..].iter().for_each(|(name, _)| {
                std::fs::hard_link(scratch.join("a"), scratch.join(name)).unwrap();
            });
        }
        let (summary, events) = restore(&point, scratch.path(), &options);
        assert_eq!((problems(&events), summary.problems), (Vec::new(), 0));
        expected.iter().for_each(|(name, content)| assert_eq!(read(scratch.join(name)), *content, "{name}"));
        let inode = |name: &str| std::fs::metadata(scratch.join(name)).unwrap().ino();
        assert_eq!(inode("b"), inode("c"));
        assert!(inode("a") != inode("b") && inode("d") != inode("b") && inode("a") != inode("d"));
        let (verified, events) = verify(&point, scratch.path(), &options);
        assert_eq!((problems(&events), verified.differences), (Vec::new(), 0), "{verified:?}");
    }
}

#[test]
fn what_dead_runs_left_is_swept_and_nothing_else_is() {
    let scratch = Scratch::new();
    let point = memory(&["d/file"]);
    restore(&point, scratch.path(), &options());
    let swept = [".holdfast-restore-1-0", "d/.holdfast-restore-4194304-77", "d/.holdfast-restore-2-1"];
    let stays = [
        ".holdfast-restore-1",
        ".holdfast-restore-1-",
        ".holdfast-restore-1-x",
        "d/.holdfast-restore-1-2.txt",
    ];
    for name in swept.iter().chain(&stays).filter(|name| !name.ends_with("2-1")) {
        std::fs::write(scratch.join(name), "half").unwrap();
    }
    symlink("nowhere", scratch.join(swept[2])).unwrap();
    std::fs::create_dir(scratch.join(".holdfast-restore-3-3")).unwrap();
    let options = RestoreOptions { overwrite: Overwrite::Always, ..options() };
    let rehearsal = RestoreOptions { dry_run: true, ..options.clone() };
    restore(&point, scratch.path(), &rehearsal);
    assert!(scratch.join(swept[0]).exists(), "a rehearsal removes nothing");
    restore(&point, scratch.path(), &options);
    swept.iter().for_each(|name| assert!(std::fs::symlink_metadata(scratch.join(name)).is_err(), "{name}"));
    stays.iter().for_each(|name| assert!(scratch.join(name).exists(), "{name}"));
    assert!(scratch.join(".holdfast-restore-3-3").exists());
}

#[test]
fn what_a_live_run_makes_is_not_swept() {
    let scratch = Scratch::new();
    let point = memory(&["d/file"]);
    restore(&point, scratch.path(), &options());
    std::fs::write(scratch.join("d/.holdfast-restore-1-0"), "half").unwrap();
    let other = opened(scratch.join("d"));
    temporary::hold(&other);
    let options = RestoreOptions { overwrite: Overwrite::Always, ..options() };
    restore(&point, scratch.path(), &options);
    assert!(scratch.join("d/.holdfast-restore-1-0").exists());
    drop(other);
    restore(&point, scratch.path(), &options);
    assert!(!scratch.join("d/.holdfast-restore-1-0").exists());
}

#[test]
fn a_run_holds_each_directory_as_long_as_something_in_it_has_no_name() {
    let scratch = Scratch::new();
    let point = memory(&["d/1", "d/2"]);
    let target = scratch.join("target");
    let free = std::sync::Mutex::new(Vec::new());
    let look = |_: &Node| {
        let flock = |path| rustix::fs::flock(opened(path), FlockOperation::NonBlockingLockExclusive).is_ok();
        free.lock().unwrap().push((flock(target.clone()), flock(target.join("d"))));
    };
    restore_tree(
        &Meddling(&point, &look),
        point.root(),
        &opened(&target),
        &options(),
        &RecordingMonitor::default(),
    )
    .unwrap();
    assert_eq!(*free.lock().unwrap(), [(false, false); 2]);
    for path in [target.clone(), target.join("d")] {
        assert!(rustix::fs::flock(opened(path), FlockOperation::NonBlockingLockExclusive).is_ok());
    }
}

#[test]
fn what_is_in_the_way_is_there_until_what_replaces_it_is_whole() {
    let scratch = Scratch::new();
    let point = memory(&["file"]);
    std::fs::write(scratch.join("file"), "mine").unwrap();
    let seen = std::sync::Mutex::new(String::new());
    let look = |_: &Node| *seen.lock().unwrap() = read(scratch.join("file"));
    let always = RestoreOptions { overwrite: Overwrite::Always, ..options() };
    restore_tree(
        &Meddling(&point, &look),
        point.root(),
        &opened(scratch.path()),
        &always,
        &RecordingMonitor::default(),
    )
    .unwrap();
    assert_eq!(*seen.lock().unwrap(), "mine");
    assert_eq!(
        (read(scratch.join("file")), names(scratch.path().into())),
        ("from the point".into(), vec!["file".into()])
    );
}

#[test]
fn links_and_special_files_take_the_place_of_each_other_in_one_step() {
    let mut source = MemorySource::new();
    source.put(b"fifo", NodeKind::Fifo);
    source.put(b"link", NodeKind::Symlink).target = Some(b"there".to_vec());
    let (point, _) = MemoryPoint::of(&source);
    let scratch = Scratch::new();
    symlink("mine", scratch.join("fifo")).unwrap();
    symlink("mine", scratch.join("link")).unwrap();
    // An immutable directory is one in which nothing can be made, so nothing may be removed either.
    if is_root() {
        let locked = RestoreOptions { overwrite: Overwrite::Always, ..options() };
        let open = opened(scratch.path());
        rustix::fs::ioctl_setflags(&open, rustix::fs::IFlags::APPEND).unwrap();
        let (summary, _) =
            restore(&point, scratch.path(), &RestoreOptions { root_attributes: false, ..locked });
        rustix::fs::ioctl_setflags(&open, rustix::fs::IFlags::empty()).unwrap();
        assert_eq!(summary.problems, 2);
        assert!(scratch.join("link").is_symlink() && scratch.join("fifo").is_symlink());
    }
    let (summary, events) =
        restore(&point, scratch.path(), &RestoreOptions { overwrite: Overwrite::Always, ..options() });
    assert_eq!((summary.others, summary.replaced, summary.problems), (2, 2, 0), "{events:?}");
    assert!(std::fs::symlink_metadata(scratch.join("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(std::fs::read_link(scratch.join("link")).unwrap(), Path::new("there"));
    assert_eq!(names(scratch.path().into()), ["fifo", "link"]);
}

#[test]
fn what_could_be_read_of_a_damaged_file_replaces_no_incomplete_one_and_is_not_kept_twice() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.join("d")).unwrap();
    std::fs::write(scratch.join("d/file.incomplete"), "somebody's").unwrap();
    for run in 1..=3 {
        let (_, summary, events) = restored_over(&scratch, &[1]);
        assert_eq!(read(scratch.join("d/file.incomplete")), "somebody's");
        assert_eq!(names(scratch.join("d")), ["file", "file.incomplete", "file.incomplete-2"], "run {run}");
        assert_eq!((summary.files, summary.bytes, summary.incomplete), (0, 0, 1), "run {run} {events:?}");
    }
}

#[test]
fn a_further_name_of_an_incomplete_file_is_made_only_where_nothing_is() {
    let mut source = MemorySource::new();
    let content: Vec<u8> = (0..2 << 20).map(|n: u32| (n / 251) as u8).collect();
    for path in [&b"a"[..], b"b", b"c"] {
        let node = source.file(path, &content);
        (node.inode, node.links, node.mtime) = (99, 3, Timestamp::from_seconds(1_500_000_000));
    }
    let (mut point, _) = MemoryPoint::of(&source);
    let Some(Content::Inline(extents)) = point.get(b"/a").content else { panic!() };
    let holdfast_store::tree::Extent::Data { id, .. } = extents[0] else { panic!() };
    point.chunks.remove(&id);
    for overwrite in [Overwrite::Always, Overwrite::KeepBoth] {
        let scratch = Scratch::new();
        ["a", "b"].iter().for_each(|name| std::fs::write(scratch.join(name), "good").unwrap());
        let (summary, events) = restore(&point, scratch.path(), &RestoreOptions { overwrite, ..options() });
        assert_eq!((read(scratch.join("a")), read(scratch.join("b"))), ("good".into(), "good".into()));
        let inode = |name| std::fs::metadata(scratch.join(name)).unwrap().ino();
        assert_eq!(inode("c"), inode("a.incomplete"), "{events:?}");
        assert_eq!((summary.files, summary.incomplete, summary.links), (0, 1, 1), "{events:?}");
        assert!(
            problems(&events).iter().any(|reason| reason.contains("not linked to a.incomplete")),
            "{events:?}"
        );
    }
}

#[test]
fn a_directory_that_a_dead_run_left_half_done_is_finished_even_where_nothing_is_overwritten() {
    let scratch = Scratch::new();
    let mut source = MemorySource::new();
    source.file(b"d/1", b"x");
    source.file(b"d/2", b"x");
    source.node_mut(b"d").unwrap().mode = 0o751;
    let (point, _) = MemoryPoint::of(&source);
    let never = RestoreOptions { overwrite: Overwrite::Never, ..options() };
    std::fs::create_dir(scratch.join("d")).unwrap();
    std::fs::set_permissions(scratch.join("d"), PermissionsExt::from_mode(0o1700)).unwrap();
    std::fs::write(scratch.join("d/.holdfast-restore-1-1"), "").unwrap();
    restore(&point, scratch.path(), &never);
    assert_eq!(std::fs::metadata(scratch.join("d")).unwrap().mode() & 0o777, 0o751);
    assert_eq!(names(scratch.join("d")), ["1", "2"]);
    std::fs::set_permissions(scratch.join("d"), PermissionsExt::from_mode(0o700)).unwrap();
    restore(&point, scratch.path(), &never);
    assert_eq!(std::fs::metadata(scratch.join("d")).unwrap().mode() & 0o777, 0o700, "what is there stays");
}
