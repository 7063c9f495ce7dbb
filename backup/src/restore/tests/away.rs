//! A vault that does not answer: what needs it is left out whole, the rest is restored, and the same restore again brings it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use holdfast_store::vault::VaultError;

/// A reader of a point of which some chunks and directories are in a vault that is away.
struct Away<'a> {
    point: &'a MemoryPoint,
    lost: HashSet<ChunkId>,
    asked: AtomicU64,
}

impl<'a> Away<'a> {
    /// Without the last byte-range of each of these files, and without what is in these directories.
    fn without(point: &'a MemoryPoint, paths: &[&str]) -> Self {
        let lost = |path: &&str| {
            let node = point.get(path.as_bytes());
            match (node.subtree, node.content) {
                (Some(below), _) => below.tree,
                (None, Some(Content::Inline(extents))) => match extents.last() {
                    Some(Extent::Data { id, .. }) => *id,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        };
        Self { point, lost: paths.iter().map(lost).collect(), asked: AtomicU64::new(0) }
    }

    fn had(&self, id: &ChunkId) -> Result<(), StoreError> {
        if !self.lost.contains(id) {
            return Ok(());
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        Err(StoreError::Vault { vault: "far".into(), source: VaultError::Timeout })
    }
}

impl TreeReader for Away<'_> {
    fn entries(&self, directory: &Node) -> Result<Nodes<'_>, StoreError> {
        self.had(&directory.subtree.unwrap().tree)?;
        self.point.entries(directory)
    }
    fn extents(&self, file: &Node) -> Result<Extents<'_>, StoreError> {
        self.point.extents(file)
    }
    fn data(&self, id: &ChunkId, len: u32) -> Result<Bytes, StoreError> {
        self.had(id)?;
        self.point.data(id, len)
    }
    fn is(&self, id: &ChunkId, bytes: &[u8]) -> bool {
        self.point.is(id, bytes)
    }
}

/// Files of other contents each, one of them of several chunks and one with two names.
fn point() -> MemoryPoint {
    let mut source = MemorySource::new();
    for path in ["a", "b", "d/1", "d/2", "gone/x", "gone/y"] {
        source.file(path.as_bytes(), format!("content of {path}").as_bytes());
    }
    for path in ["c/first", "e/second"] {
        let node = source.file(path.as_bytes(), b"of two names");
        (node.inode, node.links, node.mtime) = (99, 2, Timestamp::from_seconds(1_500_000_000));
    }
    let part = |byte: u8| Segment::Data(vec![byte; 1 << 20]);
    source.segments(b"large", (1..20).map(part).collect());
    MemoryPoint::of(&source).0
}

#[test]
fn what_needs_a_vault_that_is_away_is_left_out_and_the_same_restore_brings_it() {
    let point = point();
    for overwrite in [Overwrite::Always, Overwrite::Never, Overwrite::IfNewer, Overwrite::KeepBoth] {
        let scratch = Scratch::new();
        std::fs::write(scratch.join("b"), "in the way").unwrap();
        let always = RestoreOptions { overwrite: Overwrite::Always, ..options() };
        let reader = Away::without(&point, &["/b", "/large", "/c/first", "/gone"]);
        let monitor = RecordingMonitor::default();
        let target = opened(scratch.path());
        let result = restore_tree(&reader, point.root(), &target, &always, &monitor);
        let Err(RestoreError::Away(waiting)) = result else { panic!("{result:?}") };
        // The directory counts once, and both names of a file.
        assert_eq!((waiting.entries, waiting.done.files, waiting.done.incomplete), (5, 3, 0), "{waiting:?}");
        assert_eq!((waiting.done.problems, problems(&monitor.events()).len()), (0, 1), "told once");
        assert!(problems(&monitor.events())[0].contains("vault far"), "{:?}", monitor.events());
        assert!(reader.asked.load(Ordering::Relaxed) <= 5);
        assert_eq!(read(scratch.join("b")), "in the way", "what was there stays");
        assert!(!scratch.join("large").exists() && read(scratch.join("d/2")) == "content of d/2");
        let leftover =
            |name: &std::fs::DirEntry| temporary::is_temporary(name.file_name().as_encoded_bytes());
        assert!(!std::fs::read_dir(scratch.path()).unwrap().any(|entry| leftover(&entry.unwrap())));

        std::fs::remove_file(scratch.join("b")).unwrap();
        let again = restore(&point, scratch.path(), &RestoreOptions { overwrite, ..options() }).0;
        assert_eq!((again.files, again.links, again.same), (5, 1, 3), "{overwrite:?} {again:?}");
        for (expected, got) in essence(&point).iter().zip(&essence(&walked(scratch.path()))) {
            assert_eq!(expected.0, got.0, "{overwrite:?}");
        }
        assert_eq!(verify(&point, scratch.path(), &options()).0.files, 8);
    }
}

#[test]
fn being_asked_to_stop_while_a_vault_is_waited_for_is_no_trouble_with_a_file() {
    struct Stopped<'a>(&'a MemoryPoint);
    impl TreeReader for Stopped<'_> {
        fn entries(&self, directory: &Node) -> Result<Nodes<'_>, StoreError> {
            self.0.entries(directory)
        }
        fn extents(&self, file: &Node) -> Result<Extents<'_>, StoreError> {
            self.0.extents(file)
        }
        fn data(&self, _: &ChunkId, _: u32) -> Result<Bytes, StoreError> {
            Err(StoreError::Vault { vault: "far".into(), source: VaultError::Cancelled })
        }
        fn is(&self, id: &ChunkId, bytes: &[u8]) -> bool {
            self.0.is(id, bytes)
        }
    }
    let (point, scratch, monitor) = (point(), Scratch::new(), RecordingMonitor::default());
    let target = opened(scratch.path());
    let result = restore_tree(&Stopped(&point), point.root(), &target, &options(), &monitor);
    assert!(matches!(result, Err(RestoreError::Target(TargetError::Cancelled))), "{result:?}");
    assert_eq!(problems(&monitor.events()), Vec::<String>::new());
}
