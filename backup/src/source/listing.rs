//! Names of one directory, sorted, in one piece of memory: a million names of 20 bytes take 36 MB and two allocations.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::RawDir;
use rustix::io::Errno;

/// Bytes asked from the kernel at a time.
const BUFFER_LEN: usize = 65_536;

/// Names of a directory in ascending order of raw bytes.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    /// Offset and length of each name in `bytes`.
    sorted: Vec<(usize, usize)>,
    next: usize,
}

impl Names {
    /// Reads the names of an open directory.
    pub(super) fn read(directory: impl AsFd) -> io::Result<Self> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_LEN];
        let mut names = Self::default();
        let mut entries = RawDir::new(directory.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => names.push(entry.file_name().to_bytes()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        names.sort();
        Ok(names)
    }

    /// Just these.
    pub(super) fn only(names: &[&[u8]]) -> Self {
        let mut some = Self::default();
        names.iter().for_each(|name| some.push(name));
        some.sort();
        some
    }

    fn push(&mut self, name: &[u8]) {
        if !matches!(name, b"." | b"..") {
            self.sorted.push((self.bytes.len(), name.len()));
            self.bytes.extend_from_slice(name);
        }
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.sorted.sort_unstable_by(|&a, &b| slice(bytes, a).cmp(slice(bytes, b)));
        // A directory that changes while it is listed may show a name twice.
        self.sorted.dedup_by(|a, b| slice(bytes, *a) == slice(bytes, *b));
    }

    /// Whether `name` is among them.
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.sorted.binary_search_by(|&at| slice(&self.bytes, at).cmp(name)).is_ok()
    }

    /// The next name in order.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let at = *self.sorted.get(self.next)?;
        self.next += 1;
        Some(slice(&self.bytes, at).to_vec())
    }
}

fn slice(bytes: &[u8], (start, len): (usize, usize)) -> &[u8] {
    bytes.get(start..start + len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_come_sorted_as_raw_bytes_and_once() {
        let mut names = Names::only(&[b"b", b"\xff", b"a", b"B", b".", b"..", b"a", b"\xc3\xa9"]);
        assert!(names.contains(b"\xff") && !names.contains(b".."));
        let all: Vec<_> = std::iter::from_fn(|| names.next()).collect();
        assert_eq!(all, [&b"B"[..], b"a", b"b", b"\xc3\xa9", b"\xff"]);
    }

    #[test]
    fn a_directory_larger_than_the_buffer_is_listed_whole() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..3000 {
            std::fs::File::create(dir.path().join(format!("entry-with-a-longer-name-{n:05}"))).unwrap();
        }
        let mut names = Names::read(std::fs::File::open(dir.path()).unwrap()).unwrap();
        assert_eq!(names.next().unwrap(), b"entry-with-a-longer-name-00000");
        assert_eq!(std::iter::from_fn(|| names.next()).count(), 2999);
    }
}
