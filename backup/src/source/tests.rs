//! What a walk promises, over trees in memory and on disk.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use holdfast_store::clock::Timestamp;
use holdfast_store::tree::{Content, Extent, NodeKind};

use super::exclude::Exclude;
use super::faulty::{Fault, FaultySource};
use super::memory::{MemorySource, Segment};
use super::*;
use crate::testing::{Collector, MemoryPoint, Scratch, build_nasty, is_root};

fn put(scratch: &Scratch, path: &str, content: &[u8]) {
    let path = scratch.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn source(scratch: &Scratch, options: WalkOptions) -> DirectorySource {
    DirectorySource::new(scratch.path(), options)
}

fn with(rule: impl FnOnce(&mut Exclude)) -> WalkOptions {
    let mut options = WalkOptions::default();
    rule(&mut options.exclude);
    options
}

/// Paths that a walk tells; troubles fail the test.
fn paths(source: &dyn DataSource) -> Vec<String> {
    let (point, troubles) = MemoryPoint::of(source);
    assert!(troubles.is_empty(), "{troubles:?}");
    point.paths()
}

#[test]
fn names_come_in_ascending_order_with_each_directory_in_its_place() {
    let scratch = Scratch::new();
    ["b/1", "b.", "a", "b/0/x", "c"].iter().for_each(|path| put(&scratch, path, b"x"));
    let expected = ["/a", "/b", "/b/0", "/b/0/x", "/b/1", "/b.", "/c"];
    assert_eq!(paths(&source(&scratch, WalkOptions::default())), expected);
}

#[test]
fn a_nasty_tree_is_told_whole() {
    let scratch = Scratch::new();
    build_nasty(&scratch.join("tree"));
    let (point, troubles) =
        MemoryPoint::of(&DirectorySource::new(scratch.join("tree"), WalkOptions::default()));
    let expected = if is_root() { 0 } else { 2 };
    assert_eq!(troubles.len(), expected, "{troubles:?}");
    let paths = point.paths();
    let bottom = paths.iter().find(|path| path.ends_with("/bottom")).unwrap();
    assert!(bottom.len() > 4096);
    assert_eq!(point.get(b"/long-link").target.unwrap().len(), 4095);
    assert_eq!(point.get(b"/size-1").mtime, Timestamp { seconds: -446_665_499, nanos: 500_000_000 });
    assert_eq!(
        point.get(b"/size-1").xattrs.iter().map(|x| &x.name[..]).collect::<Vec<_>>(),
        [&b"user.empty"[..], b"user.\xff"]
    );
    assert_eq!(point.get(b"/small-hole").flags, 0x40);
    if is_root() {
        assert_eq!(point.get(b"/big").device, Some((511, 1_048_575)));
        assert_eq!(point.get(b"/link").xattrs[0].name, b"trusted.on-link");
        assert_eq!(point.get(b"/char").user.as_deref(), Some(&b"root"[..]));
    }
    let (first, other) = (point.get(b"/sparse"), point.get(b"/empty/third-name"));
    assert_eq!((first.inode, first.filesystem, first.links), (other.inode, 0, 3));
}

#[test]
fn holes_are_told_apart_from_stored_zeros() {
    let scratch = Scratch::new();
    build_nasty(&scratch.join("tree"));
    let (point, _) = MemoryPoint::of(&DirectorySource::new(scratch.join("tree"), WalkOptions::default()));
    let extents = |path: &[u8]| match point.get(path).content {
        Some(Content::Inline(extents)) => extents,
        other => panic!("{other:?}"),
    };
    assert_eq!(extents(b"/small-hole"), [Extent::Hole { len: 10_000 }]);
    assert!(matches!(extents(b"/zeros")[..], [Extent::Data { len: 100_000, .. }]));
    let sparse = extents(b"/sparse");
    assert!(matches!(
        sparse[..],
        [Extent::Data { .. }, Extent::Hole { .. }, Extent::Data { .. }, Extent::Hole { .. }]
    ));
    assert_eq!(sparse.iter().map(Extent::len).sum::<u64>(), 1 << 40);
}

#[test]
fn an_unchanged_entry_is_not_read_again_and_keeps_what_the_previous_point_had() {
    let scratch = Scratch::on_disk();
    ["a", "d/b", "d/c"].iter().for_each(|path| put(&scratch, path, b"content"));
    symlink("x", scratch.join("link")).unwrap();
    let source = source(&scratch, WalkOptions::default());
    let (mut before, _) = MemoryPoint::of(&source);
    // What only the previous point says must come from there.
    before.directories.values_mut().flatten().for_each(|node| node.flags = 0x80);
    put(&scratch, "d/c", b"changed!");
    let mut second = Collector::after(&before);
    source.walk(&mut second).unwrap();
    assert_eq!(second.opened, [b"d/c"]);
    assert_eq!(second.unchanged.len(), 5, "root, a, d, d/b, link: {:?}", second.unchanged);
    assert_eq!(second.point.get(b"/a"), before.get(b"/a"));
    assert_eq!(second.point.get(b"/link"), before.get(b"/link"));
    assert_eq!(second.point.get(b"/d/c").flags, 0);
}

#[test]
fn nothing_in_a_file_system_in_memory_counts_as_unchanged() {
    // Here all systems have one.
    let scratch = Scratch::within("/dev/shm");
    ["a", "d/b"].iter().for_each(|path| put(&scratch, path, b"content"));
    symlink("x", scratch.join("link")).unwrap();
    let source = source(&scratch, WalkOptions::default());
    let (before, _) = MemoryPoint::of(&source);
    let mut second = Collector::after(&before);
    source.walk(&mut second).unwrap();
    assert_eq!(second.opened, [&b"a"[..], b"d/b"]);
    assert!(second.unchanged.is_empty(), "{:?}", second.unchanged);
    assert_eq!(second.point.get(b"/link"), before.get(b"/link"));
}

#[test]
fn a_change_of_any_compared_attribute_makes_an_entry_changed() {
    let scratch = Scratch::on_disk();
    put(&scratch, "a", b"content");
    let source = source(&scratch, WalkOptions::default());
    let (before, _) = MemoryPoint::of(&source);
    let mut as_it_was = Collector::after(&before);
    source.walk(&mut as_it_was).unwrap();
    assert!(as_it_was.opened.is_empty());
    let changes: [fn(&mut Node); 7] = [
        |node| node.size += 1,
        |node| node.mtime.nanos ^= 1,
        |node| node.ctime.nanos ^= 1,
        |node| node.inode += 1,
        |node| node.filesystem += 1,
        |node| node.kind = NodeKind::Fifo,
        |node| node.content = None,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut visitor = Collector::after(&before);
        change(visitor.before.get_mut(&b"/a"[..]).unwrap());
        source.walk(&mut visitor).unwrap();
        assert_eq!(visitor.opened.len(), 1, "change {index}");
    }
}

#[test]
fn excluded_paths_are_left_out_and_the_rest_stays() {
    let scratch = Scratch::new();
    ["a.log", "b.txt", "d/c.log", "d/keep.log", "x/y/z", "x/w"]
        .iter()
        .for_each(|path| put(&scratch, path, b"x"));
    let options = with(|exclude| exclude.pattern_file(b"# logs\n*.log\n!keep.log\nx/y\n", false).unwrap());
    assert_eq!(paths(&source(&scratch, options)), ["/b.txt", "/d", "/d/keep.log", "/x", "/x/w"]);
    let absolute = scratch.join("d").into_os_string().into_encoded_bytes();
    let options = with(|exclude| exclude.pattern(&absolute).unwrap());
    assert_eq!(paths(&source(&scratch, options)), ["/a.log", "/b.txt", "/x", "/x/w", "/x/y", "/x/y/z"]);
    let options = with(|exclude| exclude.pattern_any_case(b"*.LOG").unwrap());
    assert_eq!(paths(&source(&scratch, options)), ["/b.txt", "/d", "/x", "/x/w", "/x/y", "/x/y/z"]);
}

#[test]
fn a_root_that_the_user_named_is_told_though_a_pattern_matches_it() {
    let scratch = Scratch::new();
    put(&scratch, "cache/a", b"x");
    let options = with(|exclude| exclude.pattern(b"cache").unwrap());
    assert_eq!(paths(&DirectorySource::new(scratch.join("cache"), options)), ["/a"]);
}

#[test]
fn a_marked_directory_keeps_its_mark_alone() {
    let scratch = Scratch::new();
    put(&scratch, "cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n# made by a test");
    put(&scratch, "cache/data", b"x");
    put(&scratch, "fake/CACHEDIR.TAG", b"Signature: no");
    put(&scratch, "fake/data", b"x");
    put(&scratch, "off/.nobackup", b"");
    put(&scratch, "off/below/data", b"x");
    let options = with(|exclude| {
        exclude.caches();
        exclude.if_present(b".nobackup").unwrap();
    });
    let expected = [
        "/cache",
        "/cache/CACHEDIR.TAG",
        "/fake",
        "/fake/CACHEDIR.TAG",
        "/fake/data",
        "/off",
        "/off/.nobackup",
    ];
    assert_eq!(paths(&source(&scratch, options)), expected);
}

#[test]
fn a_file_above_the_size_is_left_out() {
    let scratch = Scratch::new();
    put(&scratch, "large", &[0; 1025]);
    put(&scratch, "small", &[0; 1024]);
    assert_eq!(paths(&source(&scratch, with(|exclude| exclude.larger_than(1024)))), ["/small"]);
}

#[test]
fn a_directory_never_to_be_entered_stays_as_an_empty_one() {
    let scratch = Scratch::new();
    put(&scratch, "store/pack", b"x");
    let meta = std::fs::metadata(scratch.join("store")).unwrap();
    let never_enter = HashSet::from([(meta.dev(), meta.ino())]);
    assert_eq!(paths(&source(&scratch, WalkOptions { never_enter, ..Default::default() })), ["/store"]);
}

#[test]
fn a_root_in_a_directory_never_to_be_entered_is_refused_by_its_name() {
    let scratch = Scratch::new();
    put(&scratch, "store/pack", b"x");
    put(&scratch, "store/deep/er/file", b"x");
    put(&scratch, "beside/file", b"x");
    let meta = std::fs::metadata(scratch.join("store")).unwrap();
    let never_enter = HashSet::from([(meta.dev(), meta.ino())]);
    for path in ["store", "store/pack", "store/deep", "store/deep/er", "store/deep/er/file"] {
        let options = WalkOptions { never_enter: never_enter.clone(), ..Default::default() };
        let source = DirectorySource::new(scratch.join(path), options);
        let error = source.walk(&mut Collector::default()).unwrap_err().to_string();
        assert!(error.contains(scratch.join(path).to_str().unwrap()), "{error}");
    }
    let beside =
        DirectorySource::new(scratch.join("beside"), WalkOptions { never_enter, ..Default::default() });
    assert_eq!(paths(&beside), ["/file"]);
}

#[test]
fn a_single_file_is_a_source_too() {
    let scratch = Scratch::new();
    put(&scratch, "one", b"x");
    put(&scratch, "two", b"x");
    assert_eq!(paths(&DirectorySource::new(scratch.join("one"), WalkOptions::default())), ["/one"]);
}

#[test]
fn a_root_that_does_not_exist_is_an_error_and_no_empty_tree() {
    let scratch = Scratch::new();
    let source = DirectorySource::new(scratch.join("missing"), WalkOptions::default());
    assert!(source.walk(&mut Collector::default()).unwrap_err().vanished());
}

#[test]
fn a_directory_that_may_not_be_listed_is_told_empty_with_its_trouble() {
    if is_root() {
        return;
    }
    let scratch = Scratch::new();
    put(&scratch, "closed/a", b"x");
    std::fs::set_permissions(scratch.join("closed"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let (point, troubles) = MemoryPoint::of(&source(&scratch, WalkOptions::default()));
    assert_eq!(point.paths(), ["/closed"]);
    assert!(troubles[0].denied() && troubles[0].path() == b"closed");
}

#[test]
fn a_file_swapped_for_a_fifo_or_a_link_is_not_read_and_does_not_block() {
    /// Swaps what it is told before it opens it.
    struct Swap<'a>(&'a Scratch, fn(&std::path::Path), Vec<SourceError>);
    impl Visitor for Swap<'_> {
        fn enter_directory(&mut self, _: Found) -> Flow {
            Flow::Continue(())
        }
        fn entry(&mut self, entry: Found) -> Flow {
            let path = self.0.join("file");
            std::fs::remove_file(&path).unwrap();
            self.1(&path);
            self.2.extend(entry.opener.unwrap().open().err());
            Flow::Continue(())
        }
        fn leave_directory(&mut self) -> Flow {
            Flow::Continue(())
        }
        fn trouble(&mut self, trouble: SourceError) -> Flow {
            panic!("{trouble}")
        }
    }
    let swaps: [fn(&std::path::Path); 3] = [
        |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        |path| symlink("/etc/passwd", path).unwrap(),
        |_| {},
    ];
    for swap in swaps {
        let scratch = Scratch::new();
        put(&scratch, "file", b"x");
        let mut visitor = Swap(&scratch, swap, Vec::new());
        source(&scratch, WalkOptions::default()).walk(&mut visitor).unwrap();
        assert_eq!(visitor.2.len(), 1);
    }
}

#[test]
fn a_visitor_that_stops_ends_the_walk() {
    let mut memory = MemorySource::new();
    ["a", "b", "d/c"].iter().for_each(|path| drop(memory.file(path.as_bytes(), b"x").clone()));
    let scratch = Scratch::new();
    ["a", "b", "d/c"].iter().for_each(|path| put(&scratch, path, b"x"));
    let disk = source(&scratch, WalkOptions::default());
    for source in [&memory as &dyn DataSource, &disk] {
        for after in 0..3 {
            let mut visitor = Collector { stop_after: Some(after), ..Collector::default() };
            assert_eq!(source.walk(&mut visitor).unwrap(), Walked::Stopped);
            assert_eq!(visitor.opened.len(), after);
        }
        let mut visitor = Collector { stop_after: Some(3), ..Collector::default() };
        assert_eq!(source.walk(&mut visitor).unwrap(), Walked::Whole);
    }
}

#[test]
fn a_tree_in_memory_reads_as_one_on_disk_does() {
    let mut memory = MemorySource::new();
    memory.file(b"d/f", b"content").xattrs =
        vec![holdfast_store::tree::Xattr { name: b"user.a".to_vec(), value: b"1".to_vec() }];
    memory.segments(b"s", vec![Segment::Hole(10), Segment::Data(b"x".to_vec()), Segment::Hole(5)]);
    memory.symlink(b"l", b"target");
    let (point, troubles) = MemoryPoint::of(&memory);
    assert!(troubles.is_empty());
    assert_eq!(point.paths(), ["/d", "/d/f", "/l", "/s"]);
    assert_eq!(point.get(b"/d/f").xattrs.len(), 1);
    assert!(matches!(
        point.get(b"/s").content,
        Some(Content::Inline(extents)) if matches!(extents[..], [Extent::Hole { len: 10 }, Extent::Data { len: 1, .. }, Extent::Hole { len: 5 }])
    ));
    let mut second = Collector::after(&point);
    memory.node_mut(b"d/f").unwrap().ctime.seconds += 1;
    memory.walk(&mut second).unwrap();
    assert_eq!(second.opened, [b"d/f"]);
}

#[test]
fn faults_happen_where_they_were_planned() {
    let mut memory = MemorySource::new();
    for path in ["changes", "closed/in", "eio", "fine", "gone", "gone-later", "lost/in", "shrinks"] {
        memory.file(path.as_bytes(), b"0123456789");
    }
    let source = FaultySource::new(memory)
        .with(b"changes", Fault::ChangesWhileRead)
        .with(b"closed", Fault::Denied)
        .with(b"eio", Fault::Unreadable(5))
        .with(b"gone", Fault::Vanishes)
        .with(b"gone-later", Fault::VanishesBeforeOpen)
        .with(b"lost", Fault::Vanishes)
        .with(b"shrinks", Fault::Shrinks(3));
    let (point, troubles) = MemoryPoint::of(&source);
    assert_eq!(point.paths(), ["/closed", "/fine"]);
    let told: Vec<_> =
        troubles.iter().map(|error| String::from_utf8_lossy(error.path()).into_owned()).collect();
    assert_eq!(told, ["changes", "closed", "eio", "gone", "gone-later", "lost", "shrinks"]);
    assert!(troubles[1].denied() && troubles[3].vanished() && troubles[4].vanished());
}

#[test]
fn what_the_kernel_shows_of_itself_is_entered_only_by_its_name() {
    let options = with(|exclude| {
        exclude.patterns.add(b"/*", false).unwrap();
        exclude.patterns.add(b"!/proc", false).unwrap();
    });
    assert_eq!(paths(&DirectorySource::new("/", options)), ["/proc"]);
    let named = DirectorySource::new("/proc/sys/vm", WalkOptions::default());
    let (point, _) = MemoryPoint::of(&named);
    assert!(point.paths().contains(&"/overcommit_memory".to_owned()));
}
