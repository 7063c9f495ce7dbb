//! Parts of an object of a vault by whole blocks of the grid, so that requests do not show where something begins or ends.

use std::ops::Range;

use bytes::Bytes;

use crate::cache::GRID;

/// An object of `len` bytes of which `fetch` brings ranges. What came is kept: head and end of a small pack are one block.
pub(super) struct OnGrid<F> {
    len: u64,
    fetch: F,
    came: Vec<(Range<u64>, Bytes)>,
}

impl<F> OnGrid<F> {
    pub(super) fn new(len: u64, fetch: F) -> Self {
        Self { len, fetch, came: Vec::new() }
    }

    /// The `n` bytes at `offset`, which are in the object.
    pub(super) fn read<E>(&mut self, offset: u64, n: usize) -> Result<Vec<u8>, E>
    where
        F: FnMut(Range<u64>) -> Result<Bytes, E>,
    {
        let end = offset + n as u64;
        let blocks = offset / GRID * GRID..end.next_multiple_of(GRID).min(self.len);
        let has = |(range, _): &&(Range<u64>, Bytes)| range.start <= offset && end <= range.end;
        let (start, bytes) = match self.came.iter().find(has) {
            Some((range, bytes)) => (range.start, bytes.clone()),
            None => {
                let bytes = (self.fetch)(blocks.clone())?;
                self.came.push((blocks.clone(), bytes.clone()));
                (blocks.start, bytes)
            }
        };
        let from = (offset - start) as usize;
        Ok(bytes.get(from..from + n).unwrap_or_default().to_vec())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_asked_for_and_none_twice() {
        let object: Vec<u8> = (0..GRID * 2 + 1000).map(|at| (at % 251) as u8).collect();
        let mut asked = Vec::new();
        let mut reads = OnGrid::new(object.len() as u64, |range: Range<u64>| {
            asked.push(range.clone());
            Ok::<_, ()>(Bytes::copy_from_slice(&object[range.start as usize..range.end as usize]))
        });
        for (offset, n) in [(0, 64), (GRID * 2 + 900, 100), (GRID + 5, 10), (GRID - 1, 2), (GRID * 2, 3)] {
            let at = offset as usize;
            assert_eq!(reads.read(offset, n).unwrap(), object[at..at + n], "{offset}");
        }
        let end = object.len() as u64;
        assert_eq!(asked, [0..GRID, GRID * 2..end, GRID..GRID * 2, 0..GRID * 2]);
    }
}
