//! Lengths that say little: objects whose contents would show in their lengths are filled up to one of a few lengths.
//!
//! Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", PoPETs 2019) lets
//! a length have no more significant bits than it takes to write its exponent: what leaks of a length L are log log L
//! bits, and what is added is at most 12 %, from 64 KiB on 3.1 %. The fill is always inside of what is sealed.

/// No object that is padded is shorter, in bytes. What is usual fits: nearly all points, sessions and holds have this length.
pub const OBJECT_FLOOR: u64 = 4 << 10;
/// No pack is shorter, in bytes. An hourly session of a few small changes puts two packs: at most 1.5 MiB a day.
pub const PACK_FLOOR: u64 = 32 << 10;

/// The Padmé length of `len` bytes: the smallest that is not shorter.
pub fn padded(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let significant = exponent.ilog2() + 1;
    let mask = (1_u64 << exponent.saturating_sub(significant)) - 1;
    len.saturating_add(mask) & !mask
}

/// The length of an object that would have `len` bytes and may have `limit`, a multiple of 64.
pub fn object_len(len: u64, limit: u64) -> u64 {
    match padded(len.max(OBJECT_FLOOR)) {
        padded if padded <= limit => padded,
        _ => len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_are_those_of_the_paper() {
        let table = [(0, 0), (1, 1), (2, 2), (3, 3), (9, 10), (100, 104), (1000, 1024), (4097, 4352)];
        for (len, want) in table {
            assert_eq!(padded(len), want, "{len}");
        }
        assert_eq!(padded((16 << 20) + 1), (16 << 20) + (512 << 10));
    }

    #[test]
    fn a_padded_length_is_at_most_an_eighth_longer_and_there_are_few_of_them() {
        let mut seen = std::collections::BTreeSet::new();
        for len in (2..200_000).chain((0..60_000).map(|i| (1 << 20) + i * 977)) {
            let to = padded(len);
            assert!(to >= len && (to - len) * 100 <= len * 12, "{len} to {to}");
            assert_eq!(padded(to), to, "a padded length stays");
            if len >= 64 << 10 {
                assert!((to - len) * 32 <= len, "{len} to {to}");
            }
            seen.insert(to);
        }
        let doublings = 26;
        assert!(seen.len() <= doublings * 32, "{}", seen.len());
    }

    #[test]
    fn objects_have_the_floor_and_keep_to_their_steps_and_their_limit() {
        assert_eq!(object_len(64, 1 << 20), OBJECT_FLOOR);
        for len in (64..1 << 20).step_by(64) {
            assert_eq!(object_len(len, 2 << 20) % 64, 0, "{len}");
        }
        assert_eq!(object_len((1 << 20) + 64, (1 << 20) + 64), (1 << 20) + 64, "no fill beyond the limit");
    }
}
