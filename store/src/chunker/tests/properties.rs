//! What holds of any stream and any parameters.

use proptest::prelude::*;

use super::*;
use crate::tree::testing::TestRandom;

/// Stretches of noise, of one byte, and of what was there before.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let stretch = (any::<u64>(), 0..6000usize, 0..3u8);
    prop::collection::vec(stretch, 0..6).prop_map(|stretches| {
        let mut out: Vec<u8> = Vec::new();
        for (seed, len, kind) in stretches {
            match kind {
                0 => out.extend(TestRandom::new(seed).bytes(len)),
                1 => out.resize(out.len() + len, seed as u8),
                _ => out.extend_from_within(..len.min(out.len())),
            }
        }
        out
    })
}

/// Smaller than a config allows, so that a stream has many chunks; the rules of their order are the same.
fn params() -> impl Strategy<Value = ChunkerParams> {
    let kind = prop::sample::select(&KINDS[..]);
    (kind, 0..4u8, 1..200u32, 1..300u32, 1..2000u32).prop_map(|(kind, normalization, min, more, most)| {
        let (min, average) = (min, min + more);
        ChunkerParams { kind, normalization, min, average, max: average + most }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn chunks_follow_each_other_over_the_whole_stream_and_keep_to_their_bounds(data in stream(), params in params()) {
        let chunker = Chunker::with(&params, eye(params.kind));
        let lens = cuts(&chunker, &data);
        prop_assert_eq!(lens.iter().sum::<usize>(), data.len());
        let bounds = params.min as usize..=params.max as usize;
        let (last, others) = lens.split_last().map_or((0, &[][..]), |(last, others)| (*last, others));
        prop_assert!(last <= params.max as usize && others.iter().all(|len| bounds.contains(len)), "{:?}", lens);
    }

    #[test]
    fn a_cut_does_not_depend_on_what_comes_after_the_longest_chunk(data in stream(), params in params()) {
        let chunker = Chunker::with(&params, eye(params.kind));
        let seen = &data[..data.len().min(chunker.max())];
        prop_assert_eq!(chunker.cut(&data), chunker.cut(seen));
    }

    #[test]
    fn two_streams_that_end_alike_are_cut_alike_from_their_first_common_border_on(
        one in stream(), other in stream(), seed in any::<u64>(), kind in prop::sample::select(&KINDS[..])
    ) {
        let end = TestRandom::new(seed).bytes(40_000);
        let params = ChunkerParams { kind, normalization: 2, min: 64, average: 256, max: 1024 };
        let chunker = Chunker::with(&params, eye(params.kind));
        let borders = |begin: &[u8]| {
            let whole = [begin, &end].concat();
            let mut left = whole.len();
            let lefts = cuts(&chunker, &whole).into_iter().map(|len| { left -= len; left });
            lefts.filter(|left| *left < end.len()).collect::<Vec<_>>()
        };
        let (one, other) = (borders(&one), borders(&other));
        let meet = one.iter().find(|left| other.contains(left));
        prop_assert!(meet.is_some_and(|left| *left > 0), "they never meet");
        let after = |all: &[usize]| all.iter().copied().filter(|left| Some(left) <= meet).collect::<Vec<_>>();
        prop_assert_eq!(after(&one), after(&other));
    }
}
