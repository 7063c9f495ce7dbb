//! What turns a passphrase into a key: Argon2id (RFC 9106), how hard, and within which bounds.

use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::SlotError;
use crate::clock::Clock;
use crate::format::{FormatError, Parser, Put};
use crate::seal::keys::Key;

/// 64 MiB: the second choice of RFC 9106, section 4, and the least that is read or written.
const MEMORY_MIN_KIB: u32 = 64 << 10;
/// 4 GiB: more than any slot should ask of the machine that opens it.
const MEMORY_MAX_KIB: u32 = 4 << 20;
/// 1 GiB: the most that calibration asks for, so that another machine can open the slot too.
const MEMORY_CALIBRATED_KIB: u64 = 1 << 20;
const PASSES_MIN: u32 = 3;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 16;
/// Memory in KiB times passes: 32 GiB, some twenty seconds, and many times what calibration comes to. Whoever can write into a vault can forge a slot
/// that a person's secret is tried on.
const WORK_MAX_KIB: u64 = 32 << 20;
/// How long opening a slot should take on the machine that makes it.
const WANTED: Duration = Duration::from_secs(1);

/// How much work deriving a slot key from a passphrase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParams {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl KdfParams {
    /// The least that is allowed: 64 MiB, 3 passes, 4 lanes; a few tenths of a second.
    pub fn floor() -> Self {
        Self { memory_kib: MEMORY_MIN_KIB, passes: PASSES_MIN, lanes: 4 }
    }

    /// About one second on this machine, measured on `clock`, within a quarter of `memory_available` bytes and 1 GiB,
    /// and never below [`Self::floor`]. Takes a few tenths of a second itself.
    pub fn calibrated(clock: &dyn Clock, memory_available: u64) -> Self {
        let floor = Self::floor();
        let start = clock.monotonic();
        match floor.derive(b"calibration", &[0; 32]) {
            Ok(_) => floor.scaled(clock.monotonic().saturating_sub(start), memory_available),
            Err(_) => floor,
        }
    }

    /// From what these parameters took to what takes a second: more memory, which costs an attacker most, and more
    /// passes once memory may not grow further.
    fn scaled(self, took: Duration, memory_available: u64) -> Self {
        if took.is_zero() {
            return self;
        }
        let factor = WANTED.as_secs_f64() / took.as_secs_f64();
        let memory_max = (memory_available / 4 / 1024).min(MEMORY_CALIBRATED_KIB) as f64;
        let memory = (f64::from(self.memory_kib) * factor).min(memory_max).max(f64::from(self.memory_kib));
        let factor_left = factor * f64::from(self.memory_kib) / memory;
        let passes = f64::from(self.passes) * factor_left;
        let passes_max = f64::from(PASSES_MAX).min(WORK_MAX_KIB as f64 / memory);
        let passes = passes.clamp(f64::from(PASSES_MIN), passes_max.max(f64::from(PASSES_MIN)));
        Self { memory_kib: memory as u32 / 1024 * 1024, passes: passes as u32, lanes: self.lanes }
    }

    /// Memory in KiB, passes, lanes.
    pub fn costs(&self) -> (u32, u32, u32) {
        (self.memory_kib, self.passes, self.lanes)
    }

    /// The slot key of a passphrase.
    pub(super) fn derive(&self, secret: &[u8], salt: &[u8; 32]) -> Result<Key, SlotError> {
        let mut key = Zeroizing::new([0; 32]);
        Params::new(self.memory_kib, self.passes, self.lanes, Some(key.len()))
            .and_then(|p| {
                Argon2::new(Algorithm::Argon2id, Version::V0x13, p)
                    .hash_password_into(secret, salt, &mut *key)
            })
            .map_err(|error| SlotError::Derivation {
                memory_mib: self.memory_kib / 1024,
                detail: error.to_string(),
            })?;
        Ok(key)
    }

    /// Appends the three fields of a slot.
    pub(super) fn encode(this: Option<&Self>, out: &mut Vec<u8>) {
        let (memory, passes, lanes) = this.map_or((0, 0, 0), Self::costs);
        out.u32(memory);
        out.u32(passes);
        out.u32(lanes);
    }

    /// Reads the three fields of a slot and holds them to their bounds, so that a vault cannot exhaust its reader.
    pub(super) fn decode(p: &mut Parser<'_>, expected: bool) -> Result<Option<Self>, FormatError> {
        let (memory_kib, passes, lanes) = (p.u32()?, p.u32()?, p.u32()?);
        let fits = (MEMORY_MIN_KIB..=MEMORY_MAX_KIB).contains(&memory_kib)
            && (PASSES_MIN..=PASSES_MAX).contains(&passes)
            && u64::from(memory_kib) * u64::from(passes) <= WORK_MAX_KIB
            && (1..=LANES_MAX).contains(&lanes);
        match (expected, fits, (memory_kib, passes, lanes)) {
            (true, true, _) => Ok(Some(Self { memory_kib, passes, lanes })),
            (false, _, (0, 0, 0)) => Ok(None),
            _ => Err(FormatError::damaged(format!(
                "Argon2 with {memory_kib} KiB, {passes} passes and {lanes} lanes is out of bounds"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn calibration_aims_at_a_second_within_its_bounds() {
        const GIB: u64 = 1 << 30;
        let cases = [
            // took ms, memory available, (KiB, passes)
            (250, 64 * GIB, (256 << 10, 3)),
            (100, 64 * GIB, (640 << 10, 3)),
            (10, 64 * GIB, (1 << 20, 18)),
            (1, 64 * GIB, (1 << 20, 32)),
            (100, GIB, (256 << 10, 7)),
            (500, 0, (64 << 10, 6)),
            (1000, 64 * GIB, (64 << 10, 3)),
            (5000, 64 * GIB, (64 << 10, 3)),
            (0, 64 * GIB, (64 << 10, 3)),
        ];
        for (took, memory, (kib, passes)) in cases {
            let got = KdfParams::floor().scaled(Duration::from_millis(took), memory).costs();
            assert_eq!(got, (kib, passes, 4), "{took} ms, {memory} bytes");
        }
    }

    #[test]
    fn a_derivation_that_fails_says_how_much_memory_it_asked_for() {
        // Each lane needs 8 KiB.
        let greedy = KdfParams { memory_kib: 3 << 10, passes: 3, lanes: 1 << 10 };
        let error = greedy.derive(b"a passphrase", &[1; 32]).err().unwrap();
        assert!(error.to_string().contains("with 3 MiB of memory"), "{error}");
    }

    #[test]
    fn a_clock_that_stands_still_gives_the_floor() {
        let clock = ManualClock::at(Timestamp::default());
        assert_eq!(KdfParams::calibrated(&clock, u64::MAX), KdfParams::floor());
    }

    #[test]
    fn parameters_out_of_bounds_are_refused() {
        let decode = |fields: [u32; 3], expected| {
            let bytes: Vec<u8> = fields.iter().flat_map(|f| f.to_le_bytes()).collect();
            KdfParams::decode(&mut Parser::new(&bytes), expected)
        };
        for good in [[65_536, 3, 1], [4_194_304, 8, 16], [524_288, 64, 1]] {
            assert!(decode(good, true).unwrap().is_some(), "{good:?}");
            assert!(decode(good, false).is_err(), "{good:?} where none should be");
        }
        assert_eq!(decode([0, 0, 0], false), Ok(None));
        let bad = [
            [0, 0, 0],
            [65_535, 3, 1],
            [4_194_305, 3, 1],
            [65_536, 2, 1],
            [65_536, 65, 1],
            [4_194_304, 9, 1],
            [524_289, 64, 1],
            [65_536, 3, 0],
            [65_536, 3, 17],
            [u32::MAX, u32::MAX, u32::MAX],
        ];
        for fields in bad {
            assert!(decode(fields, true).is_err(), "{fields:?}");
        }
    }
}
