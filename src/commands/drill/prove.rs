//! One file: every byte of it is read from the vault, through the mount if there is one, and is what its chunks say and what its source has.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_backup::restore::TreeReader;
use holdfast_store::store::Store;
use holdfast_store::tree::{Extent, Node};

use super::is_of_file;
use crate::outcome::Failure;
use crate::stored_tree::StoredTree;

/// Bytes of a hole that are compared at once.
const PIECE: usize = 256 << 10;

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is right.
    Right {
        /// Also compared with its source.
        like_source: bool,
    },
    /// It is not, and how.
    Wrong(String),
}

/// The file at its source, which is here and has not been changed since, as far as its size and times tell.
#[derive(Debug)]
pub struct Against {
    file: File,
    path: PathBuf,
    was: (u64, i64, i64, i64, i64),
}

fn marks(meta: &Metadata) -> (u64, i64, i64, i64, i64) {
    (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
}

impl Against {
    /// Nothing where it is not there, is another one, or cannot be read.
    pub fn source(root: &[u8], path: &[u8], node: &Node) -> Option<Self> {
        let path = Path::new(OsStr::from_bytes(root)).join(OsStr::from_bytes(path));
        // A pipe would wait for a writer, and a link leads elsewhere.
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).ok()?;
        let meta = file.metadata().ok().filter(Metadata::is_file)?;
        let was = marks(&meta);
        let taken = (
            node.size,
            node.mtime.seconds,
            i64::from(node.mtime.nanos),
            node.ctime.seconds,
            i64::from(node.ctime.nanos),
        );
        (was == taken).then_some(Self { file, path, was })
    }

    /// Whether it has these bytes at a place; `None` if it is not what it was.
    fn has(&self, at: u64, bytes: &[u8]) -> Option<bool> {
        let mut there = vec![0; bytes.len()];
        match self.file.read_exact_at(&mut there, at) {
            Ok(()) if there == bytes => Some(true),
            Ok(()) if !self.has_changed() => Some(false),
            _ => None,
        }
    }

    fn has_changed(&self) -> bool {
        let now = std::fs::symlink_metadata(&self.path).map(|meta| marks(&meta));
        now.ok() != Some(self.was)
    }
}

/// A file as the mount shows it.
#[derive(Debug)]
pub struct Seen(File);

impl Seen {
    /// What is wrong if it is not there as the point has it.
    pub fn open(point: &Path, path: &[u8], node: &Node) -> Result<Self, String> {
        let told = |e: std::io::Error| format!("the mount does not give it: {e}");
        let file = File::open(point.join(OsStr::from_bytes(path))).map_err(told)?;
        let meta = file.metadata().map_err(told)?;
        let shown = (meta.len(), meta.mtime(), meta.mtime_nsec());
        if shown != (node.size, node.mtime.seconds, i64::from(node.mtime.nanos)) {
            let detail = format!("the mount shows another size or time than the point: {} bytes", meta.len());
            return Err(detail);
        }
        Ok(Self(file))
    }

    /// Whether it has these bytes at a place.
    fn has(&self, at: u64, bytes: &[u8]) -> Result<bool, String> {
        let mut shown = vec![0; bytes.len()];
        let read = self.0.read_exact_at(&mut shown, at);
        read.map_err(|e| format!("the mount does not give what the vault has at byte {at}: {e}"))?;
        Ok(shown == bytes)
    }
}

/// Reads a file of a point and compares it.
///
/// # Errors
/// What keeps all other files from being read as well.
pub fn prove(
    store: &Store,
    root: &Node,
    file: &Node,
    seen: Option<Seen>,
    against: Option<Against>,
) -> Result<Verdict, Failure> {
    let (tree, _) = StoredTree::at(store, root, b"")?;
    prove_in(&tree, file, seen, against)
}

fn prove_in<R: TreeReader>(
    tree: &R,
    file: &Node,
    seen: Option<Seen>,
    mut against: Option<Against>,
) -> Result<Verdict, Failure> {
    let mut at = 0_u64;
    let extents = match tree.extents(file) {
        Ok(extents) => extents,
        Err(e) if is_of_file(&e) => return Ok(Verdict::Wrong(e.to_string())),
        Err(e) => return Err(e.into()),
    };
    let (zeros, mut wrong) = (vec![0; PIECE], None);
    let mut compare = |at: u64, bytes: &[u8]| -> bool {
        match seen.as_ref().map_or(Ok(true), |seen| seen.has(at, bytes)) {
            Ok(true) => {}
            Ok(false) => wrong = Some(format!("at byte {at} the mount shows other bytes than the vault has")),
            Err(why) => wrong = Some(why),
        }
        match against.as_ref().map(|source| source.has(at, bytes)) {
            Some(Some(false)) => {
                wrong = Some("it is not what its source has, which looks unchanged".to_owned());
            }
            // It is being changed, and tells nothing any more.
            Some(None) => against = None,
            Some(Some(true)) | None => {}
        }
        wrong.is_none()
    };
    'file: for extent in extents {
        match extent {
            Ok(Extent::Data { id, len }) => match tree.data(&id, len) {
                Ok(bytes) if bytes.len() as u64 != u64::from(len) || !tree.is(&id, &bytes) => {
                    return Ok(Verdict::Wrong(format!("at byte {at} it has other bytes than its chunk")));
                }
                Ok(bytes) if compare(at, &bytes) => at += u64::from(len),
                Ok(_) => break 'file,
                Err(e) if is_of_file(&e) => return Ok(Verdict::Wrong(e.to_string())),
                Err(e) => return Err(e.into()),
            },
            Ok(Extent::Hole { len }) => {
                let end = at.saturating_add(len);
                while at < end {
                    let n = (end - at).min(PIECE as u64);
                    if !compare(at, &zeros[..n as usize]) {
                        break 'file;
                    }
                    at += n;
                }
            }
            Err(e) if is_of_file(&e) => return Ok(Verdict::Wrong(e.to_string())),
            Err(e) => return Err(e.into()),
        }
    }
    if let Some(wrong) = wrong {
        return Ok(Verdict::Wrong(wrong));
    }
    if at != file.size {
        return Ok(Verdict::Wrong(format!("it has {at} bytes instead of {}", file.size)));
    }
    let like_source = against.is_some_and(|source| !source.has_changed());
    Ok(Verdict::Right { like_source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use holdfast_backup::restore::{Extents, Nodes};
    use holdfast_store::StoreError;
    use holdfast_store::clock::Timestamp;
    use holdfast_store::id::ChunkId;
    use holdfast_store::tree::NodeKind;
    use holdfast_store::tree::testing::bare_node;

    use super::*;

    /// A file of two chunks and a hole between them.
    struct OneFile {
        chunks: [Vec<u8>; 2],
        hole: u64,
        fault: Option<StoreError>,
    }

    const IDS: [ChunkId; 2] = [ChunkId([1; 32]), ChunkId([2; 32])];

    impl TreeReader for OneFile {
        fn entries(&self, _: &Node) -> Result<Nodes<'_>, StoreError> {
            Ok(Box::new(std::iter::empty()))
        }

        fn extents(&self, _: &Node) -> Result<Extents<'_>, StoreError> {
            let data = |n: usize| Ok(Extent::Data { id: IDS[n], len: 4 });
            Ok(Box::new([data(0), Ok(Extent::Hole { len: self.hole }), data(1)].into_iter()))
        }

        fn data(&self, id: &ChunkId, _: u32) -> Result<Bytes, StoreError> {
            match &self.fault {
                Some(StoreError::NotFound { what }) => Err(StoreError::NotFound { what: what.clone() }),
                Some(_) => Err(StoreError::Cancelled),
                None => Ok(self.chunks[usize::from(id.0[0]) - 1].clone().into()),
            }
        }

        fn is(&self, id: &ChunkId, bytes: &[u8]) -> bool {
            let right: &[u8] = if *id == IDS[0] { b"abcd" } else { b"efgh" };
            bytes == right
        }
    }

    fn tree() -> OneFile {
        OneFile { chunks: [b"abcd".to_vec(), b"efgh".to_vec()], hole: 600_000, fault: None }
    }

    /// A file with these bytes, and a node that says just what its metadata says.
    fn source(dir: &Path, bytes: &[u8]) -> Node {
        std::fs::write(dir.join("f"), bytes).unwrap();
        let meta = std::fs::metadata(dir.join("f")).unwrap();
        let time = |seconds, nanos: i64| Timestamp { seconds, nanos: nanos.try_into().unwrap() };
        let mut node = bare_node(b"f", NodeKind::File);
        node.size = meta.len();
        node.mtime = time(meta.mtime(), meta.mtime_nsec());
        node.ctime = time(meta.ctime(), meta.ctime_nsec());
        node
    }

    fn content() -> Vec<u8> {
        [&b"abcd"[..], &vec![0; 600_000], b"efgh"].concat()
    }

    #[test]
    fn a_file_is_right_if_its_chunks_its_length_and_its_unchanged_source_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().as_os_str().as_bytes();
        let node = source(dir.path(), &content());
        let against = || Against::source(root, b"f", &node);
        let seen = || Some(Seen::open(dir.path(), b"f", &node).unwrap());
        assert!(against().is_some());
        assert_eq!(
            prove_in(&tree(), &node, seen(), against()).unwrap(),
            Verdict::Right { like_source: true }
        );
        assert_eq!(prove_in(&tree(), &node, None, None).unwrap(), Verdict::Right { like_source: false });
        let wrong = |tree: OneFile, against| match prove_in(&tree, &node, None, against).unwrap() {
            Verdict::Wrong(reason) => reason,
            right => panic!("{right:?}"),
        };
        let other = OneFile { chunks: [b"abcd".to_vec(), b"efgX".to_vec()], ..tree() };
        assert!(wrong(other, None).contains("other bytes than its chunk"));
        assert!(wrong(OneFile { hole: 5, ..tree() }, None).contains("instead of 600008"));
        let gone = Some(StoreError::NotFound { what: "chunk 1".into() });
        assert!(wrong(OneFile { fault: gone, ..tree() }, None).contains("chunk 1"));
        let cancelled = OneFile { fault: Some(StoreError::Cancelled), ..tree() };
        assert!(prove_in(&cancelled, &node, None, None).is_err(), "that says nothing of the file");
    }

    #[test]
    fn what_the_mount_shows_otherwise_than_the_vault_has_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let wrong = |bytes: &[u8]| {
            let node = source(dir.path(), bytes);
            let seen = Seen::open(dir.path(), b"f", &node).unwrap();
            match prove_in(&tree(), &node, Some(seen), None).unwrap() {
                Verdict::Wrong(reason) => reason,
                right => panic!("{right:?}"),
            }
        };
        for at in [0, 300_000, 600_007] {
            let mut bytes = content();
            bytes[at] ^= 1;
            assert!(wrong(&bytes).contains("the mount shows other bytes"), "{at}");
        }
        assert!(wrong(&content()[..600_005]).contains("the mount does not give"));
        let node = source(dir.path(), &content());
        assert!(Seen::open(dir.path(), b"g", &node).unwrap_err().contains("the mount does not give it"));
        let longer = Node { size: node.size + 1, ..node };
        assert!(Seen::open(dir.path(), b"f", &longer).unwrap_err().contains("another size"));
    }

    #[test]
    fn a_source_that_looks_unchanged_and_has_other_bytes_is_told_and_one_that_changes_is_left_aside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().as_os_str().as_bytes();
        for at in [0, 300_000, 600_007] {
            let mut bytes = content();
            bytes[at] ^= 1;
            let node = source(dir.path(), &bytes);
            let verdict = prove_in(&tree(), &node, None, Against::source(root, b"f", &node)).unwrap();
            assert!(matches!(verdict, Verdict::Wrong(reason) if reason.contains("looks unchanged")), "{at}");
            let against = Against::source(root, b"f", &node);
            std::fs::write(dir.path().join("f"), [&bytes[..], b"more"].concat()).unwrap();
            let verdict = prove_in(&tree(), &node, None, against).unwrap();
            assert_eq!(verdict, Verdict::Right { like_source: false }, "{at}");
            assert!(
                Against::source(root, b"f", &node).is_none() && Against::source(root, b"g", &node).is_none()
            );
        }
        let node = source(dir.path(), &content());
        std::os::unix::fs::symlink("f", dir.path().join("link")).unwrap();
        assert!(Against::source(root, b"link", &node).is_none());
    }
}
