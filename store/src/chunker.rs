//! Cuts a stream into chunks at borders that its content chooses, so that an insertion moves no border but its neighbours'.
//!
//! FastCDC with normalized chunking (Xia et al., USENIX ATC 2016) over a gear table that is secret per store. A keyed
//! table raises the cost of learning borders from sizes but is not a proof (see "Breaking and Fixing Content-Defined
//! Chunking", CCS 2025); the kind is recorded in the store's config so that a sounder one can follow.

use crate::format::config::ChunkerParams;

/// Finds cut points. One per store; shared by all threads.
#[derive(Clone)]
pub struct Chunker {
    gear: Box<[u64; 256]>,
    min: usize,
    average: usize,
    max: usize,
    mask_before: u64,
    mask_after: u64,
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
    /// A chunker with these parameters (checked when the config was read) and gear table.
    pub fn new(params: &ChunkerParams, gear: [u64; 256]) -> Self {
        let bits = params.average.ilog2();
        let level = u32::from(params.normalization);
        Self {
            gear: Box::new(gear),
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
        let mut hash = 0_u64;
        for (range, mask) in
            [(self.min..middle, self.mask_before), (middle.max(self.min)..end, self.mask_after)]
        {
            let start = range.start;
            for (i, byte) in data[range].iter().enumerate() {
                hash = (hash << 1).wrapping_add(self.gear[usize::from(*byte)]);
                if hash & mask == 0 {
                    return start + i + 1;
                }
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    mod properties;

    fn gear() -> [u64; 256] {
        let mut table = [0; 256];
        let mut reader = blake3::Hasher::new_derive_key("test gear").finalize_xof();
        for entry in &mut table {
            let mut bytes = [0; 8];
            reader.fill(&mut bytes);
            *entry = u64::from_le_bytes(bytes);
        }
        table
    }

    fn noise(len: usize, seed: &str) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut out);
        out
    }

    fn chunker() -> Chunker {
        let params = ChunkerParams { normalization: 2, min: 4096, average: 16384, max: 65536 };
        Chunker::new(&params, gear())
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
        let c = chunker();
        let data = noise(3_000_000, "bounds");
        let lens = cuts(&c, &data);
        assert_eq!(lens.iter().sum::<usize>(), data.len());
        assert!(lens[..lens.len() - 1].iter().all(|n| (4096..=65536).contains(n)));
        let mean = data.len() / lens.len();
        assert!((10_000..26_000).contains(&mean), "mean {mean}");
        assert_eq!(cuts(&c, &vec![0; 200_000])[0], 65536, "a constant stream is cut at the maximum");
    }

    #[test]
    fn an_insertion_moves_only_the_borders_near_it() {
        let c = chunker();
        let data = noise(2_000_000, "insert");
        let mut edited = data.clone();
        edited.splice(900_000..900_000, *b"inserted");
        let borders = |d: &[u8]| {
            let mut at = d.len();
            cuts(&c, d)
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
        assert_eq!(cuts(&c, &data)[..20], cuts(&c, &edited)[..20]);
    }

    #[test]
    fn cut_points_are_pinned() {
        // A change here is a change of what every existing store deduplicates against.
        let lens = cuts(&chunker(), &noise(200_000, "pinned"));
        assert_eq!(lens.iter().sum::<usize>(), 200_000);
        assert_eq!(lens, PINNED);
    }

    const PINNED: &[usize] = &[7371, 18642, 18746, 19858, 18990, 20601, 20385, 32587, 18869, 16594, 7357];
}
