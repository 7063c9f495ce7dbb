//! Chance as a service, as `clock` is time: so that a simulation can repeat a run byte for byte. The program only ever has the
//! system's.

use std::fmt::Debug;

use crate::id::random_bytes;

/// Where what nobody can foresee comes from. Keys, salts and ids of stores are not made of it: those are drawn from the system itself.
pub trait Chance: Send + Sync + Debug {
    /// The id of something new: an object, a recovery point.
    fn id(&self) -> [u8; 16];

    /// What makes the nonce of a block differ from those of all others. Blocks for which it is the same have other nonces all the same,
    /// unless they are the same block.
    fn hedge(&self) -> [u8; 32];

    /// A part of a time that is to be waited, from 0 to 1.
    fn part(&self) -> f64;
}

/// The system's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn id(&self) -> [u8; 16] {
        random_bytes()
    }

    fn hedge(&self) -> [u8; 32] {
        random_bytes()
    }

    fn part(&self) -> f64 {
        f64::from(u32::from_le_bytes(random_bytes())) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_gives_something_else_each_time_and_parts_within_one() {
        let chance = SystemChance;
        assert_ne!(chance.id(), chance.id());
        assert_ne!(chance.hedge(), chance.hedge());
        assert!((0..100).all(|_| (0.0..=1.0).contains(&chance.part())));
    }
}
