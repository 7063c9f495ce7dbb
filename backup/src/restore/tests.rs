//! Whole round trips, and what happens to things in the way, without rights, and when something fails.
#![allow(clippy::unwrap_used)]

mod again;
mod away;
mod plans;

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use holdfast_store::clock::Timestamp;
use holdfast_store::monitor::{Event, RecordingMonitor};
use holdfast_store::tree::{Content, NodeKind};

use super::*;
use crate::source::memory::{MemorySource, Segment};
use crate::source::{DirectorySource, WalkOptions};
use crate::testing::{MemoryPoint, Scratch, build_nasty, essence, is_root};

fn options() -> RestoreOptions {
    RestoreOptions { workers: 3, root_attributes: true, ..RestoreOptions::default() }
}

fn opened(target: impl AsRef<Path>) -> OwnedFd {
    open_target(target.as_ref(), true, &HashSet::new()).unwrap().unwrap()
}

fn restore(point: &MemoryPoint, target: &Path, options: &RestoreOptions) -> (RestoreSummary, Vec<Event>) {
    let monitor = RecordingMonitor::default();
    let target = opened(target);
    let summary = restore_tree(point, point.root(), &target, options, &monitor).unwrap();
    (summary, monitor.events())
}

fn verify(point: &MemoryPoint, target: &Path, options: &RestoreOptions) -> (VerifySummary, Vec<Event>) {
    let monitor = RecordingMonitor::default();
    let summary = verify_tree(point, point.root(), &opened(target), options, &monitor).unwrap();
    (summary, monitor.events())
}

fn problems(events: &[Event]) -> Vec<String> {
    let problem = |event: &Event| match event {
        Event::Problem { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    events.iter().filter_map(problem).collect()
}

fn walked(path: &Path) -> MemoryPoint {
    let (point, troubles) = MemoryPoint::of(&DirectorySource::new(path, WalkOptions::default()));
    assert!(troubles.is_empty() || !is_root(), "{troubles:?}");
    point
}

fn memory(paths: &[&str]) -> MemoryPoint {
    let mut source = MemorySource::new();
    paths.iter().for_each(|path| drop(source.file(path.as_bytes(), b"from the point").clone()));
    MemoryPoint::of(&source).0
}

fn patterns(list: &[&str]) -> Patterns {
    let mut patterns = Patterns::default();
    list.iter().for_each(|pattern| patterns.add(pattern.as_bytes(), false).unwrap());
    patterns
}

fn read(path: std::path::PathBuf) -> String {
    String::from_utf8(std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_nasty_tree_comes_back_identical() {
    let scratch = Scratch::new();
    build_nasty(&scratch.join("tree"));
    let point = walked(&scratch.join("tree"));
    let (summary, events) = restore(&point, &scratch.join("back"), &options());
    assert_eq!(problems(&events), Vec::<String>::new());
    let back = walked(&scratch.join("back"));
    for (expected, got) in essence(&point).iter().zip(&essence(&back)) {
        assert_eq!(expected, got);
    }
    assert_eq!(point.paths(), back.paths());
    assert!(std::fs::metadata(scratch.join("back/sparse")).unwrap().blocks() * 512 < 1 << 20);
    let links = if is_root() { 4 } else { 3 };
    assert!(summary.links >= links, "{summary:?}");
}

#[test]
fn attributes_inherited_from_the_target_do_not_stay() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    build_nasty(&scratch.join("tree"));
    let point = walked(&scratch.join("tree"));
    let target = opened(scratch.join("back"));
    let acl = point
        .get(b"/empty")
        .xattrs
        .iter()
        .find(|xattr| xattr.name == attributes::ACL_DEFAULT)
        .unwrap()
        .value
        .clone();
    rustix::fs::fsetxattr(&target, attributes::ACL_DEFAULT, &acl, rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::ioctl_setflags(&target, rustix::fs::IFlags::NOATIME).unwrap();
    restore(&point, &scratch.join("back"), &options());
    for (expected, got) in essence(&point).iter().zip(&essence(&walked(&scratch.join("back")))) {
        assert_eq!(expected, got);
    }
}

#[test]
fn what_is_in_the_way_is_treated_as_the_policy_says() {
    let point = memory(&["file", "new"]);
    let old = Timestamp::from_seconds(1_000_000_000);
    let newer = Timestamp::from_seconds(2_000_000_000);
    let table = [
        (Overwrite::Refuse, old, "in the way", 1, 0),
        (Overwrite::Never, old, "in the way", 0, 1),
        (Overwrite::Always, newer, "from the point", 0, 0),
        (Overwrite::IfNewer, old, "from the point", 0, 0),
        (Overwrite::IfNewer, newer, "in the way", 0, 1),
        (Overwrite::KeepBoth, old, "in the way", 0, 0),
    ];
    for (overwrite, time, expected, refused, skipped) in table {
        let scratch = Scratch::new();
        std::fs::write(scratch.join("file"), "in the way").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time.seconds.cast_unsigned());
        std::fs::File::options().write(true).open(scratch.join("file")).unwrap().set_modified(time).unwrap();
        let (summary, events) = restore(&point, scratch.path(), &RestoreOptions { overwrite, ..options() });
        assert_eq!((summary.problems, summary.skipped), (refused, skipped), "{overwrite:?} {events:?}");
        assert_eq!(read(scratch.join("file")), expected, "{overwrite:?}");
        assert_eq!(read(scratch.join("new")), "from the point");
        if overwrite == Overwrite::KeepBoth {
            assert_eq!(read(scratch.join("file.restored")), "from the point");
        }
    }
}

#[test]
fn a_link_in_the_way_of_a_directory_never_leads_outside() {
    let point = memory(&["d/file"]);
    for overwrite in [Overwrite::Refuse, Overwrite::Never, Overwrite::Always, Overwrite::KeepBoth] {
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.join("outside")).unwrap();
        std::fs::create_dir_all(scratch.join("target")).unwrap();
        symlink("../outside", scratch.join("target/d")).unwrap();
        restore(&point, &scratch.join("target"), &RestoreOptions { overwrite, ..options() });
        assert_eq!(std::fs::read_dir(scratch.join("outside")).unwrap().count(), 0, "{overwrite:?}");
        assert_eq!(scratch.join("target/d/file").exists(), overwrite == Overwrite::Always);
        assert_eq!(scratch.join("target/d.restored/file").exists(), overwrite == Overwrite::KeepBoth);
    }
}

#[test]
fn a_full_directory_in_the_way_of_a_file_is_never_removed() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.join("file")).unwrap();
    std::fs::write(scratch.join("file/precious"), "mine").unwrap();
    let overwrite = Overwrite::Always;
    let (summary, _) =
        restore(&memory(&["file"]), scratch.path(), &RestoreOptions { overwrite, ..options() });
    assert_eq!(summary.problems, 1);
    assert_eq!(read(scratch.join("file/precious")), "mine");
}

#[test]
fn a_link_is_replaced_and_not_written_through() {
    let scratch = Scratch::new();
    std::fs::write(scratch.join("victim"), "mine").unwrap();
    symlink("victim", scratch.join("file")).unwrap();
    let overwrite = Overwrite::Always;
    restore(&memory(&["file"]), scratch.path(), &RestoreOptions { overwrite, ..options() });
    assert_eq!(read(scratch.join("victim")), "mine");
    assert_eq!(read(scratch.join("file")), "from the point");
}

#[test]
fn only_chosen_paths_are_made_with_the_directories_that_lead_there() {
    let point = memory(&["a/b/c.rs", "a/b/d.txt", "a/e/f.txt", "g/h", "i.rs"]);
    let choices: [(&[&str], &[&str], &[&str]); 5] = [
        (&["*.rs"], &[], &["/a", "/a/b", "/a/b/c.rs", "/i.rs"]),
        (&["/a/b"], &[], &["/a", "/a/b", "/a/b/c.rs", "/a/b/d.txt"]),
        (&["/a/e", "h"], &[], &["/a", "/a/e", "/a/e/f.txt", "/g", "/g/h"]),
        (&[], &["b", "*.rs"], &["/a", "/a/e", "/a/e/f.txt", "/g", "/g/h"]),
        (&["/a"], &["*.txt"], &["/a", "/a/b", "/a/b/c.rs", "/a/e"]),
    ];
    for (include, exclude, expected) in choices {
        let scratch = Scratch::new();
        let options = RestoreOptions { include: patterns(include), exclude: patterns(exclude), ..options() };
        let dry = restore(&point, scratch.path(), &RestoreOptions { dry_run: true, ..options.clone() }).0;
        let (summary, _) = restore(&point, scratch.path(), &options);
        assert_eq!(walked(scratch.path()).paths(), expected);
        assert_eq!(dry, RestoreSummary { refused: 0, ..summary }, "a rehearsal counts what a run does");
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let scratch = Scratch::new();
    let before = std::fs::metadata(scratch.path()).unwrap();
    let dry_run = RestoreOptions { dry_run: true, ..options() };
    let (summary, _) = restore(&memory(&["a", "b/c"]), scratch.path(), &dry_run);
    assert_eq!((summary.files, summary.directories, summary.bytes), (2, 1, 28));
    let after = std::fs::metadata(scratch.path()).unwrap();
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    assert_eq!((before.ctime_nsec(), before.mode()), (after.ctime_nsec(), after.mode()));
}

#[test]
fn a_lost_chunk_is_named_and_the_rest_of_its_file_is_kept() {
    let mut source = MemorySource::new();
    let content: Vec<u8> = (0..3 << 20).map(|n: u32| (n / 251) as u8).collect();
    source.file(b"large", &content);
    source.file(b"other", b"whole");
    let (mut point, _) = MemoryPoint::of(&source);
    let Some(Content::Inline(extents)) = point.get(b"/large").content else { panic!() };
    let holdfast_store::tree::Extent::Data { id, .. } = extents[1] else { panic!() };
    point.chunks.remove(&id);
    let scratch = Scratch::new();
    let (summary, events) = restore(&point, scratch.path(), &options());
    assert_eq!(summary.problems, 1);
    assert!(problems(&events)[0].starts_with("bytes 1048576 to 2097152 are missing"), "{events:?}");
    let back = std::fs::read(scratch.join("large")).unwrap();
    assert!(back[..1 << 20] == content[..1 << 20] && back[2 << 20..] == content[2 << 20..]);
    assert!(back[1 << 20..2 << 20].iter().all(|&byte| byte == 0));
    assert_eq!(read(scratch.join("other")), "whole");
    let mtime = |path: &str| std::fs::metadata(scratch.join(path)).unwrap().mtime();
    assert_eq!(mtime("other"), point.get(b"/other").mtime.seconds);
    assert!(mtime("large") > point.get(b"/large").mtime.seconds, "it is not taken for genuine");
}

/// Restores two files of two chunks, of which `lost` are missing, over what is there; with a second name of the first.
fn restored_over(scratch: &Scratch, lost: &[usize]) -> (MemoryPoint, RestoreSummary, Vec<Event>) {
    let mut source = MemorySource::new();
    let content: Vec<u8> = (0..2 << 20).map(|n: u32| (n / 251) as u8).collect();
    for path in [&b"d/file"[..], b"e/second"] {
        let node = source.file(path, &content);
        (node.inode, node.links, node.mtime) = (99, 2, Timestamp::from_seconds(1_500_000_000));
    }
    let (mut point, _) = MemoryPoint::of(&source);
    let Some(Content::Inline(extents)) = point.get(b"/d/file").content else { panic!() };
    for &lost in lost {
        let holdfast_store::tree::Extent::Data { id, .. } = extents[lost] else { panic!() };
        point.chunks.remove(&id);
    }
    for path in ["d/file", "e/second"] {
        std::fs::create_dir_all(scratch.join(path).parent().unwrap()).unwrap();
        std::fs::write(scratch.join(path), "good").unwrap();
    }
    let options = RestoreOptions { overwrite: Overwrite::Always, ..options() };
    let (summary, events) = restore(&point, scratch.path(), &options);
    (point, summary, events)
}

fn names(path: std::path::PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_whose_content_is_whole_replaces_what_is_there_under_all_its_names() {
    let scratch = Scratch::new();
    let (point, summary, events) = restored_over(&scratch, &[]);
    assert_eq!((summary.problems, summary.files, summary.links), (0, 1, 1), "{events:?}");
    let meta = |path: &str| std::fs::metadata(scratch.join(path)).unwrap();
    assert_eq!((meta("d/file").len(), meta("d/file").mtime()), (2 << 20, 1_500_000_000));
    assert_eq!(meta("d/file").ino(), meta("e/second").ino());
    assert_eq!(
        (names(scratch.join("d")), names(scratch.join("e"))),
        (vec!["file".into()], vec!["second".into()])
    );
    for (path, at) in [(&b"/d"[..], "d"), (b"/e", "e")] {
        assert_eq!(meta(at).mtime(), point.get(path).mtime.seconds, "renaming left no mark on {at}");
    }
}

#[test]
fn a_file_whose_content_is_damaged_replaces_nothing_and_lies_beside_it() {
    let scratch = Scratch::new();
    let (_, _, events) = restored_over(&scratch, &[1]);
    assert_eq!(
        (read(scratch.join("d/file")), read(scratch.join("e/second"))),
        ("good".into(), "good".into())
    );
    assert_eq!(names(scratch.join("d")), ["file", "file.incomplete"]);
    assert_eq!(std::fs::metadata(scratch.join("d/file.incomplete")).unwrap().len(), 2 << 20);
    assert!(problems(&events).iter().any(|reason| reason.contains("file.incomplete")), "{events:?}");
}

#[test]
fn a_file_of_which_nothing_can_be_read_leaves_what_is_there_and_nothing_else() {
    let scratch = Scratch::new();
    let (_, _, events) = restored_over(&scratch, &[0, 1]);
    assert_eq!(
        (read(scratch.join("d/file")), read(scratch.join("e/second"))),
        ("good".into(), "good".into())
    );
    assert_eq!(names(scratch.join("d")), ["file"]);
    assert!(problems(&events).iter().any(|reason| reason.contains("what was there stays")), "{events:?}");
}

#[test]
fn a_chunk_of_another_length_is_not_written() {
    let mut point = memory(&["file"]);
    point.chunks.values_mut().for_each(|bytes| *bytes = Bytes::from_static(b"longer than it was before"));
    let scratch = Scratch::new();
    assert_eq!(restore(&point, scratch.path(), &options()).0.problems, 1);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing that looks whole and is not");
}

#[test]
fn a_lost_tree_page_is_named_and_other_directories_are_restored() {
    let mut point = memory(&["a/x", "b/y"]);
    let lost = point.get(b"/a").subtree.unwrap().tree;
    point.directories.remove(&lost);
    let scratch = Scratch::new();
    let (summary, events) = restore(&point, scratch.path(), &options());
    assert_eq!((summary.problems, summary.files, summary.directories), (1, 1, 2), "{events:?}");
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let scratch = Scratch::new();
    let mut point = memory(&["good"]);
    let tree = point.root().subtree.unwrap().tree;
    let good = point.directories[&tree][0].clone();
    for name in [&b""[..], b".", b"..", b"a/b", b"../../escape", b"a\0b", &[b'n'; 256]] {
        point.directories.get_mut(&tree).unwrap().push(Node { name: name.to_vec(), ..good.clone() });
    }
    let (summary, _) = restore(&point, &scratch.join("target"), &options());
    assert_eq!((summary.problems, summary.files), (7, 1));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn names_of_one_file_across_directories_become_one_file_again() {
    let mut source = MemorySource::new();
    for path in ["a/first", "b/second", "b/third", "c/other-system"] {
        let node = source.file(path.as_bytes(), b"shared");
        (node.inode, node.links, node.mtime) = (99, 4, Timestamp::from_seconds(1_500_000_000));
    }
    source.node_mut(b"c/other-system").unwrap().filesystem = 7;
    let scratch = Scratch::new();
    let (summary, _) = restore(&MemoryPoint::of(&source).0, scratch.path(), &options());
    assert_eq!((summary.files, summary.links), (2, 2));
    let inode = |path: &str| std::fs::metadata(scratch.join(path)).unwrap().ino();
    assert_eq!(inode("a/first"), inode("b/third"));
    assert_ne!(inode("a/first"), inode("c/other-system"));
    assert_eq!(std::fs::metadata(scratch.join("b/second")).unwrap().nlink(), 3);
}

#[test]
fn a_file_whose_names_were_all_made_is_forgotten() {
    let mut links = links::Links::default();
    let mut node = memory(&["f"]).get(b"/f");
    node.links = 3;
    assert!(links.first(&node).is_none());
    links.remember(
        &node,
        links::First::new(&crate::descent::Place::root(), links::Standing::Nowhere { lost: false }),
    );
    assert!(links.first(&node).is_some());
    assert_eq!(links.waiting(), 1);
    assert!(links.first(&node).is_some());
    assert_eq!(links.waiting(), 0);
}

#[test]
fn a_file_larger_than_one_job_is_written_by_all_writers() {
    let mut source = MemorySource::new();
    let part =
        |seed: u32| Segment::Data((0..1_000_000_u32).map(|n| (n.wrapping_mul(seed) >> 7) as u8).collect());
    source.segments(b"large", (1..30).flat_map(|seed| [part(seed), Segment::Hole(100_000)]).collect());
    let (point, _) = MemoryPoint::of(&source);
    let scratch = Scratch::new();
    restore(&point, scratch.path(), &options());
    let back = std::fs::read(scratch.join("large")).unwrap();
    assert_eq!(back.len() as u64, point.get(b"/large").size);
    for (index, seed) in (1..30).enumerate() {
        let Segment::Data(expected) = part(seed) else { panic!() };
        assert!(back[index * 1_100_000..][..1_000_000] == expected);
    }
    assert_eq!(std::fs::metadata(scratch.join("large")).unwrap().mtime(), point.get(b"/large").mtime.seconds);
}

#[test]
fn a_cancelled_restore_ends_early_and_says_so() {
    struct Cancelled;
    impl Monitor for Cancelled {
        fn event(&self, _: Event) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let scratch = Scratch::new();
    let point = memory(&["a", "b"]);
    let target = opened(scratch.path());
    let result = restore_tree(&point, point.root(), &target, &options(), &Cancelled);
    assert!(matches!(result, Err(RestoreError::Target(TargetError::Cancelled))));
}

#[test]
fn without_root_each_class_that_cannot_be_applied_is_told_once() {
    if is_root() {
        return;
    }
    let mut source = MemorySource::new();
    for path in ["a", "b"] {
        let node = source.file(path.as_bytes(), b"x");
        (node.uid, node.gid, node.mode) = (4_000_000, 4_000_000, 0o4755);
    }
    source.put(b"device", NodeKind::CharDevice).device = Some((1, 3));
    let scratch = Scratch::new();
    let (summary, events) = restore(&MemoryPoint::of(&source).0, scratch.path(), &options());
    let notes = events.iter().filter(|event| matches!(event, Event::Note(_))).count();
    assert_eq!((summary.problems, notes), (0, 2), "{events:?}");
    assert_eq!(std::fs::metadata(scratch.join("a")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_tree_deeper_than_directories_stay_open_is_walked_and_comes_back() {
    const DEPTH: usize = 3 * crate::descent::OPEN_DIRECTORIES_MAX;
    let mut source = MemorySource::new();
    for depth in (10..DEPTH).step_by(50) {
        source.file(&[&b"d/".repeat(depth)[..], b"z-after-the-directory"].concat(), b"x");
    }
    let (point, _) = MemoryPoint::of(&source);
    let scratch = Scratch::new();
    let (summary, events) = restore(&point, scratch.path(), &options());
    assert_eq!(problems(&events), Vec::<String>::new());
    let back = walked(scratch.path());
    assert_eq!((summary.files, back.paths()), (8, point.paths()));
    for (expected, got) in point.all().iter().zip(back.all()) {
        assert_eq!((&expected.0, expected.1.mtime), (&got.0, got.1.mtime));
    }
}

#[test]
fn a_file_that_fits_no_file_system_is_named_and_the_rest_is_restored() {
    let mut source = MemorySource::new();
    source.segments(b"enormous", vec![Segment::Hole(i64::MAX.cast_unsigned() - 1)]);
    source.file(b"other", b"whole");
    let scratch = Scratch::new();
    let (summary, events) = restore(&MemoryPoint::of(&source).0, scratch.path(), &options());
    // Memory-backed file systems may hold it.
    let refused = problems(&events).iter().any(|reason| reason.starts_with("cannot set length of enormous"));
    assert_eq!(summary.files, if refused { 1 } else { 2 }, "{events:?}");
    assert_eq!((summary.problems, read(scratch.join("other"))), (u64::from(refused), "whole".to_owned()));
}

/// A reader that does something to the target when a file's extents are asked for.
struct Meddling<'a>(&'a MemoryPoint, &'a (dyn Fn(&Node) + Sync));

impl TreeReader for Meddling<'_> {
    fn entries(&self, directory: &Node) -> Result<Nodes<'_>, StoreError> {
        self.0.entries(directory)
    }

    fn extents(&self, file: &Node) -> Result<Extents<'_>, StoreError> {
        (self.1)(file);
        self.0.extents(file)
    }

    fn data(&self, id: &ChunkId, len: u32) -> Result<Bytes, StoreError> {
        self.0.data(id, len)
    }

    fn is(&self, id: &ChunkId, bytes: &[u8]) -> bool {
        self.0.is(id, bytes)
    }
}

#[test]
fn a_directory_swapped_for_a_link_while_it_is_filled_leads_nothing_outside() {
    let mut source = MemorySource::new();
    for path in ["d/1", "d/2", "d/3/below", "e/another-name-of-1"] {
        source.file(path.as_bytes(), b"from the point");
    }
    for path in [&b"d/1"[..], b"e/another-name-of-1"] {
        let node = source.node_mut(path).unwrap();
        (node.inode, node.links, node.mtime) = (77, 2, Timestamp::from_seconds(1_500_000_000));
    }
    let (point, _) = MemoryPoint::of(&source);
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.join("outside")).unwrap();
    std::fs::write(scratch.join("outside/1"), "mine").unwrap();
    let target = scratch.join("target");
    let swap = |file: &Node| {
        if file.name == b"1" {
            std::fs::rename(target.join("d"), target.join("moved")).unwrap();
            symlink("../outside", target.join("d")).unwrap();
        }
    };
    let (monitor, open) = (RecordingMonitor::default(), opened(&target));
    let summary = restore_tree(&Meddling(&point, &swap), point.root(), &open, &options(), &monitor).unwrap();
    assert_eq!(std::fs::read_dir(scratch.join("outside")).unwrap().count(), 1);
    assert_eq!(read(scratch.join("outside/1")), "mine");
    assert_eq!(read(target.join("moved/3/below")), "from the point");
    // The first name is out of reach, so the second is a file of its own, and that is said.
    assert_eq!(read(target.join("e/another-name-of-1")), "from the point");
    assert_eq!(summary.problems, 1, "{:?}", monitor.events());
    assert_eq!(std::fs::metadata(scratch.join("outside/1")).unwrap().nlink(), 1);
}
