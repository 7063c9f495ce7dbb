//! Where the frames of a pack lie: in its raw stream, which chunks are places in, and in the object.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use crate::catalog::PackRow;
use crate::format::HEADER_LEN;
use crate::pack::units_to_len;

/// A pack's frames by position in its raw stream and in the object.
#[derive(Debug)]
pub(super) struct PackMap {
    pub(super) row: PackRow,
    pub(super) name: crate::vault::ObjectName,
    /// Raw offset at which frame `i` begins; one more for the end.
    pub(super) raw: Vec<u64>,
    /// Byte offset of the block of frame `i`; one more for the end.
    pub(super) blocks: Vec<u64>,
    /// Whether the log knows that a tier cannot give it, or that a chunk is not there which should be.
    pub(super) told: AtomicBool,
}

impl PackMap {
    pub(super) fn new(row: PackRow) -> Self {
        let (mut raw, mut blocks) = (vec![0], vec![HEADER_LEN as u64]);
        let (mut r, mut b) = (0, HEADER_LEN as u64);
        for frame in &row.entry.frames {
            r += u64::from(frame.raw_len);
            b += units_to_len(frame.units);
            raw.push(r);
            blocks.push(b);
        }
        let name = crate::names::pack(&row.entry.id);
        Self { row, name, raw, blocks, told: AtomicBool::new(false) }
    }

    /// Frames that hold the raw bytes from `start` to before `end`.
    pub(super) fn frames_of(&self, start: u64, end: u64) -> Range<usize> {
        let first = self.raw.partition_point(|r| *r <= start).saturating_sub(1);
        let last = self.raw.partition_point(|r| *r < end);
        first..last.min(self.row.entry.frames.len())
    }

    /// What frame `n` has of the raw bytes `start..end`.
    pub(super) fn cut(&self, n: usize, frame: &Bytes, start: u64, end: u64) -> Bytes {
        let at = self.raw[n];
        let from = start.saturating_sub(at) as usize;
        let to = (end - at).min(frame.len() as u64) as usize;
        frame.slice(from.min(to)..to)
    }

    /// How many frames there are before those at the end that are fill.
    pub(super) fn frames(&self) -> usize {
        let end = self.raw.last().copied().unwrap_or_default();
        self.raw.partition_point(|r| *r < end)
    }

    /// The block of frame `n`, and after the last one the fill as well: who wants what is last does not show where it ends.
    pub(super) fn block_with_fill(&self, n: usize) -> Range<u64> {
        let block = self.block_of(n);
        let end = self.blocks.last().filter(|_| n + 1 == self.frames());
        block.start..end.copied().unwrap_or(block.end)
    }

    pub(super) fn block_of(&self, frame: usize) -> Range<u64> {
        self.blocks[frame]..self.blocks[frame + 1]
    }
}
