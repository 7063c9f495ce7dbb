//! Where a chunker of kind 2 looks for cuts: a universal hash of the last 64 bytes, and a block cipher on its value.
//!
//! The hash is Rabin's fingerprint over a secret irreducible polynomial of degree 64 ("Fingerprinting by random polynomials", 1981): two windows
//! of other bytes meet for at most 8 of some 2^58 polynomials. Through AES-128 with a secret key its values become independent
//! bits, so that cuts say nothing of polynomial and key ("Breaking and Fixing Content-Defined Chunking", CCS 2025, proves it of this shape).

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};

/// Bytes that a cut depends on.
pub(super) const WINDOW: usize = 64;
/// Bytes of a stretch: four are hashed at a time, since each step of one waits for the step before.
const STRETCH: usize = 1024;
const STRETCHES: usize = 4;
/// Steps of all stretches whose values are encrypted together.
const STEPS: usize = 16;

/// A secret fingerprint and cipher.
#[derive(Clone)]
pub(super) struct Rabin {
    /// What the byte that is shifted out at the top comes to, by its value.
    over: Box<[u64; 256]>,
    /// What the byte that leaves the window has come to.
    left: Box<[u64; 256]>,
    cipher: Aes128,
}

impl Rabin {
    /// From the stream of a secret: a key, and then the first of its numbers that makes a polynomial irreducible.
    pub fn new(secret: &mut blake3::OutputReader) -> Self {
        let mut key = zeroize::Zeroizing::new([0; 16]);
        secret.fill(&mut *key);
        let polynomial = loop {
            let mut bytes = [0; 8];
            secret.fill(&mut bytes);
            let low = u64::from_le_bytes(bytes);
            if is_irreducible(low) {
                break low;
            }
        };
        let (mut over, mut left) = (Box::new([0; 256]), Box::new([0; 256]));
        for byte in 0..256_u64 {
            over[byte as usize] = times_x(byte, 64, polynomial);
            left[byte as usize] = times_x(byte, 8 * WINDOW as u32, polynomial);
        }
        Self { over, left, cipher: Aes128::new(&(*key).into()) }
    }

    fn add(&self, hash: u64, byte: u8) -> u64 {
        (hash << 8) ^ u64::from(byte) ^ self.over[(hash >> 56) as usize]
    }

    /// The fingerprint of the window that ends before `at`.
    fn before(&self, data: &[u8], at: usize) -> u64 {
        data[at.saturating_sub(WINDOW)..at].iter().fold(0, |hash, byte| self.add(hash, *byte))
    }

    /// The window moves on to the byte `at`.
    fn next(&self, hash: u64, data: &[u8], at: usize) -> u64 {
        let hash = self.add(hash, data[at]);
        match at.checked_sub(WINDOW) {
            Some(gone) => hash ^ self.left[usize::from(data[gone])],
            None => hash,
        }
    }

    /// The length up to the first byte of `range` after which the cipher gives a number of which no bit of `mask` is set.
    pub fn find(&self, data: &[u8], range: std::ops::Range<usize>, mask: u64) -> Option<usize> {
        let mut at = range.start;
        while at < range.end {
            let stretch = STRETCH.min((range.end - at).div_ceil(STRETCHES));
            let end = range.end.min(at + stretch * STRETCHES);
            if let Some(found) = self.find_in_stretches(data, at..end, stretch, mask) {
                return Some(found);
            }
            at = end;
        }
        None
    }

    fn find_in_stretches(
        &self,
        data: &[u8],
        range: std::ops::Range<usize>,
        stretch: usize,
        mask: u64,
    ) -> Option<usize> {
        let mut first: Option<usize> = None;
        let starts: [usize; STRETCHES] = std::array::from_fn(|n| (range.start + n * stretch).min(range.end));
        let mut hashes = starts.map(|start| self.before(data, start));
        let mut step = 0;
        while step < stretch {
            let steps = STEPS.min(stretch - step);
            let mut blocks = [Block::default(); STEPS * STRETCHES];
            for (n, of_step) in blocks.chunks_exact_mut(STRETCHES).take(steps).enumerate() {
                for ((hash, start), block) in hashes.iter_mut().zip(starts).zip(of_step) {
                    let at = start + step + n;
                    if at < range.end {
                        *hash = self.next(*hash, data, at);
                    }
                    block[..8].copy_from_slice(&hash.to_le_bytes());
                }
            }
            self.cipher.encrypt_blocks(&mut blocks[..steps * STRETCHES]);
            for (n, block) in blocks[..steps * STRETCHES].iter().enumerate() {
                if number(block) & mask == 0 {
                    let (start, ahead) = (starts[n % STRETCHES], step + n / STRETCHES);
                    let at = start + ahead;
                    if at < range.end && first.is_none_or(|first| at + 1 < first) {
                        first = Some(at + 1);
                    }
                }
            }
            step += steps;
        }
        first
    }
}

/// What a block says: its first eight bytes.
fn number(block: &Block) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = block.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// `number · x^n` modulo `x^64 + polynomial`.
fn times_x(number: u64, n: u32, polynomial: u64) -> u64 {
    (0..n).fold(number, |number, _| (number << 1) ^ if number >> 63 == 1 { polynomial } else { 0 })
}

/// `number²` modulo `x^64 + polynomial`.
fn square(number: u64, polynomial: u64) -> u64 {
    // Horner: from the top, twice shifted for each bit of the number.
    (0..64).rev().fold(0, |sum, bit| times_x(sum, 2, polynomial) ^ (number >> bit & 1))
}

/// Whether `x^64 + low` is irreducible over GF(2): it divides `x^(2^64) - x`, and shares no factor with `x^(2^32) - x` (Rabin's test; 2 is the one
/// prime factor of 64).
fn is_irreducible(low: u64) -> bool {
    let power = |n: u32| (0..n).fold(2, |power, _| square(power, low));
    low & 1 == 1 && power(64) == 2 && is_prime_to(power(32) ^ 2, low)
}

/// Whether `number` and `x^64 + low` have no common factor.
fn is_prime_to(number: u64, low: u64) -> bool {
    let (mut a, mut b) = (1_u128 << 64 | u128::from(low), u128::from(number));
    while b != 0 {
        while a.leading_zeros() <= b.leading_zeros() {
            a ^= b << (b.leading_zeros() - a.leading_zeros());
        }
        (a, b) = (b, a);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::testing::TestRandom;

    fn rabin() -> Rabin {
        Rabin::new(&mut blake3::Hasher::new_derive_key("test rabin").finalize_xof())
    }

    /// By the definition: the window as one long number, divided bit by bit; and one block of the cipher.
    fn by_hand(rabin: &Rabin, polynomial: u64, data: &[u8], at: usize) -> u64 {
        let window = &data[(at + 1).saturating_sub(WINDOW)..=at];
        let hash = window.iter().fold(0, |hash, byte| times_x(hash, 8, polynomial) ^ u64::from(*byte));
        let mut block = Block::default();
        block[..8].copy_from_slice(&hash.to_le_bytes());
        rabin.cipher.encrypt_block(&mut block);
        number(&block)
    }

    #[test]
    fn the_first_cut_is_the_first_by_definition_wherever_a_search_begins_and_ends() {
        let (rabin, mut random) = (rabin(), TestRandom::new(1));
        // x^64 modulo the polynomial is the rest of it.
        let polynomial = rabin.over[1];
        let data = random.bytes(9000);
        for (from, to, bits) in [
            (0, 9000, 9),
            (1, 9000, 12),
            (63, 5000, 6),
            (64, 5000, 8),
            (4096, 4097, 1),
            (100, 100, 1),
            (700, 733, 4),
        ] {
            let mask = u64::MAX << (64 - bits);
            let expected = (from..to).find(|at| by_hand(&rabin, polynomial, &data, *at) & mask == 0);
            assert_eq!(rabin.find(&data, from..to, mask), expected.map(|at| at + 1), "{from}..{to}, {bits}");
        }
    }

    #[test]
    fn polynomials_are_told_apart_as_a_slow_division_does() {
        // Known: x^64 + x^4 + x^3 + x + 1 is irreducible (Seroussi, HPL-98-135).
        assert!(is_irreducible(0b11011));
        // Products: (x + 1)·…, x^64 + 1 = (x + 1)^64, and one of two irreducible ones of degree 32.
        assert!(!is_irreducible(0b11) && !is_irreducible(1) && !is_irreducible(0b11010));
        // x^32 + x^7 + x^3 + x^2 + 1, squared.
        assert!(!is_irreducible(1 << 14 | 1 << 6 | 1 << 4 | 1));
        // About one in 32 of those without the factor x is irreducible.
        let mut random = TestRandom::new(2);
        let found = (0..3200).filter(|_| is_irreducible(random.below(u64::MAX) | 1)).count();
        assert!((60..150).contains(&found), "{found}");
    }
}
