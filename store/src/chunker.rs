//! Cuts a stream into chunks at borders that its content chooses, so that an insertion moves no border but its neighbours'.
//!
//! FastCDC with normalized chunking (Xia et al., USENIX ATC 2016) over a gear table that is secret per store. A keyed table raises the cost of
//! learning borders from sizes but is not a proof (see "Breaking and Fixing Content-Defined Chunking", CCS 2025); kind 2, which is slower, has one
//! ([`rabin`]). A store has one kind for ever, in its config.

use crate::format::config::{ChunkerKind, ChunkerParams};
use crate::seal::Sealer;

mod rabin;

use rabin::Rabin;

/// Finds cut points. One per store; shared by all threads.
#[derive(Clone)]
pub struct Chunker {
    eye: Eye,
    min: usize,
    average: usize,
    max: usize,
    mask_before: u64,
    mask_after: u64,
}

/// What sees where a cut may be.
#[derive(Clone)]
enum Eye {
    Gear(Box<[u64; 256]>),
    Rabin(Box<Rabin>),
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunker({}..{}..{})", self.min, self.average, self.max)
    }
}

fn top_bits(n: u32) -> u64 {
    u64::MAX << (64 - n.clamp(1, 63))
}

impl Chunker {
    /// A chunker with these parameters (checked when the config was read) and the secrets of a store.
    pub fn new(params: &ChunkerParams, sealer: &Sealer) -> Self {
        let eye = match params.kind {
            ChunkerKind::FastCdc => Eye::Gear(Box::new(sealer.gear_table())),
            ChunkerKind::RabinAes => {
                Eye::Rabin(Box::new(Rabin::new(&mut sealer.chunker_secret("holdfast v1 rabin"))))
            }
        };
        Self::with(params, eye)
    }

    fn with(params: &ChunkerParams, eye: Eye) -> Self {
        let bits = params.average.ilog2();
        let level = u32::from(params.normalization);
        Self {
            eye,
            min: params.min as usize,
            average: params.average as usize,
            max: params.max as usize,
            mask_before: top_bits(bits + level),
            mask_after: top_bits(bits.saturating_sub(level)),
        }
    }

    /// The longest chunk; [`Self::cut`] wants to see this much unless the stream ends before.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Length of the first chunk of `data`, which is either at least [`Self::max`] long or all that is left.
    pub fn cut(&self, data: &[u8]) -> usize {
        if data.len() <= self.min {
            return data.len();
        }
        let end = data.len().min(self.max);
        let middle = end.min(self.average);
        let ranges = [(self.min..middle, self.mask_before), (middle.max(self.min)..end, self.mask_after)];
        let cut = match &self.eye {
            Eye::Gear(gear) => find_by_gear(gear, data, ranges),
            Eye::Rabin(rabin) => {
                ranges.into_iter().find_map(|(range, mask)| rabin.find(&data[..end], range, mask))
            }
        };
        cut.unwrap_or(end)
    }
}

/// The hash goes on from range to range.
fn find_by_gear(gear: &[u64; 256], data: &[u8], ranges: [(std::ops::Range<usize>, u64); 2]) -> Option<usize> {
    let mut hash = 0_u64;
    for (range, mask) in ranges {
        let start = range.start;
        for (i, byte) in data[range].iter().enumerate() {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
            if hash & mask == 0 {
                return Some(start + i + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    mod properties;

    fn eye(kind: ChunkerKind) -> Eye {
        let mut reader = blake3::Hasher::new_derive_key("test gear").finalize_xof();
        if kind == ChunkerKind::RabinAes {
            return Eye::Rabin(Box::new(Rabin::new(&mut reader)));
        }
        let mut table = [0; 256];
        for entry in &mut table {
            let mut bytes = [0; 8];
            reader.fill(&mut bytes);
            *entry = u64::from_le_bytes(bytes);
        }
        Eye::Gear(Box::new(table))
    }

    const KINDS: [ChunkerKind; 2] = [ChunkerKind::FastCdc, ChunkerKind::RabinAes];

    fn noise(len: usize, seed: &str) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut out);
        out
    }

    fn chunker(kind: ChunkerKind) -> Chunker {
        let params = ChunkerParams { kind, normalization: 2, min: 4096, average: 16384, max: 65536 };
        Chunker::with(&params, eye(kind))
    }

    fn cuts(c: &Chunker, mut data: &[u8]) -> Vec<usize> {
        let mut lens = Vec::new();
        while !data.is_empty() {
            let n = c.cut(data);
            lens.push(n);
            data = &data[n..];
        }
        lens
    }

    #[test]
    fn chunks_cover_the_stream_within_their_bounds() {
        KINDS.map(chunker).iter().for_each(covers);
    }

    fn covers(c: &Chunker) {
        let data = noise(3_000_000, "bounds");
        let lens = cuts(c, &data);
        assert_eq!(lens.iter().sum::<usize>(), data.len());
        assert!(lens[..lens.len() - 1].iter().all(|n| (4096..=65536).contains(n)));
        let mean = data.len() / lens.len();
        assert!((10_000..26_000).contains(&mean), "mean {mean}");
        assert_eq!(cuts(c, &vec![0; 200_000])[0], 65536, "a constant stream is cut at the maximum");
    }

    #[test]
    fn an_insertion_moves_only_the_borders_near_it() {
        KINDS.map(chunker).iter().for_each(bears_an_insertion);
    }

    fn bears_an_insertion(c: &Chunker) {
        let data = noise(2_000_000, "insert");
        let mut edited = data.clone();
        edited.splice(900_000..900_000, *b"inserted");
        let borders = |d: &[u8]| {
            let mut at = d.len();
            cuts(c, d)
                .into_iter()
                .map(|n| {
                    at -= n;
                    at
                })
                .collect::<std::collections::BTreeSet<_>>()
        };
        let (a, b) = (borders(&data), borders(&edited));
        let shared = a.intersection(&b).count();
        assert!(
            shared * 10 >= a.len() * 4,
            "borders after the insertion, from the end: {shared} of {}",
            a.len()
        );
        assert_eq!(cuts(c, &data)[..20], cuts(c, &edited)[..20]);
    }

    #[test]
    fn cut_points_are_pinned() {
        // A change here is a change of what every existing store deduplicates against.
        for (kind, pinned) in KINDS.into_iter().zip([PINNED, PINNED_RABIN]) {
            let lens = cuts(&chunker(kind), &noise(200_000, "pinned"));
            assert_eq!(lens.iter().sum::<usize>(), 200_000);
            assert_eq!(lens, pinned, "{kind:?}");
        }
    }

    const PINNED: &[usize] = &[7371, 18642, 18746, 19858, 18990, 20601, 20385, 32587, 18869, 16594, 7357];
    const PINNED_RABIN: &[usize] = &[38124, 17578, 6500, 7909, 15023, 21654, 18021, 16819, 41764, 16608];
}
