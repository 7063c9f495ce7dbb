//! The key ring: master keys by generation, and the subkeys that are derived from them (`docs/format.md`, sections 4 and 6).

use std::fmt;

use zeroize::Zeroizing;

use super::writer::OwnerKey;
use crate::format::{FormatError, Parser, Put};
use crate::id::{VaultId, random_bytes};

/// A key of 32 bytes, wiped when dropped.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// Bytes of one key in an encoded ring.
const ENTRY_LEN: usize = 4 + 32 + 8;
/// Numbers of generations lie up to so far apart: two machines that rotate the keys of one store at the same time, each unaware of the other,
/// would else give two keys one number, and each would take what the other seals for damaged.
const STEP_MAX: u32 = 1 << 21;
/// More generations than any store needs: a ring of these still fits a key slot of 64 KiB.
const GENERATIONS_MAX: usize = 1024;

/// One generation of the master key.
#[derive(Clone)]
struct MasterKey {
    generation: u32,
    key: Key,
    created: i64,
}

/// Master keys by ascending generation, never empty, wiped when dropped. One that came out of a slot that a person opens has the owner's key with
/// it, and what is made of it for people gets it, too.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<MasterKey>,
    owner: Option<OwnerKey>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing(generations {:?})", self.generations().collect::<Vec<_>>())
    }
}

impl KeyRing {
    /// A ring with one new random key, of generation 1, made at `now` (seconds since 1970).
    pub fn generate(now: i64) -> Self {
        Self::of(MasterKey { generation: 1, key: Zeroizing::new(random_bytes()), created: now })
    }

    /// A ring whose first key is given, for tests that are to come out the same each time.
    pub fn fixed(key: [u8; 32]) -> Self {
        Self::of(MasterKey { generation: 1, key: Zeroizing::new(key), created: 0 })
    }

    fn of(key: MasterKey) -> Self {
        Self { keys: vec![key], owner: None }
    }

    /// The same with the owner's key.
    pub fn owned_by(self, owner: OwnerKey) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// The owner's key, if this ring came out of a slot that has it.
    pub fn owner(&self) -> Option<&OwnerKey> {
        self.owner.as_ref()
    }

    /// The generation that new objects are sealed with.
    pub fn newest(&self) -> u32 {
        self.keys.last().map_or(0, |k| k.generation)
    }

    /// All generations, ascending.
    pub fn generations(&self) -> impl Iterator<Item = u32> + '_ {
        self.keys.iter().map(|k| k.generation)
    }

    /// The master key of a generation.
    pub fn key(&self, generation: u32) -> Option<&[u8; 32]> {
        self.keys.iter().find(|k| k.generation == generation).map(|k| &*k.key)
    }

    /// When a generation was made, in seconds since 1970.
    pub fn created(&self, generation: u32) -> Option<i64> {
        self.keys.iter().find(|k| k.generation == generation).map(|k| k.created)
    }

    /// Adds a new random key and returns its generation, a random number somewhat above the newest.
    ///
    /// # Errors
    /// When the ring is full.
    pub fn add_generation(&mut self, now: i64) -> Result<u32, FormatError> {
        if self.keys.len() >= GENERATIONS_MAX {
            return Err(FormatError::damaged(format!(
                "a key ring has at most {GENERATIONS_MAX} generations"
            )));
        }
        let step = 1 + u32::from_le_bytes(random_bytes()) % STEP_MAX;
        let generation = self.newest().checked_add(step);
        let generation = generation.ok_or_else(|| FormatError::damaged("the key ring has no number left"))?;
        self.keys.push(MasterKey { generation, key: Zeroizing::new(random_bytes()), created: now });
        Ok(generation)
    }

    /// Takes over the generations of another ring of the same store, and the owner's key unless this one has one.
    ///
    /// # Errors
    /// When both have a generation of one number and not of one key, or there are too many together.
    pub fn merge(&mut self, other: &Self) -> Result<(), FormatError> {
        for theirs in &other.keys {
            match self.key(theirs.generation) {
                Some(ours) if ours == &*theirs.key => {}
                Some(_) => {
                    let detail = format!("two keys have the generation {}", theirs.generation);
                    return Err(FormatError::damaged(detail));
                }
                None => self.keys.push(theirs.clone()),
            }
        }
        self.keys.sort_by_key(|key| key.generation);
        if self.owner.is_none() {
            self.owner.clone_from(&other.owner);
        }
        if self.keys.len() > GENERATIONS_MAX {
            return Err(FormatError::damaged(format!("{} key generations", self.keys.len())));
        }
        Ok(())
    }

    /// Whether both have the same generations.
    pub fn has_all_of(&self, other: &Self) -> bool {
        other.generations().all(|generation| self.key(generation).is_some())
    }

    /// Length of the encoded ring in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        2 + self.keys.len() * ENTRY_LEN
    }

    /// Appends the ring. The caller reserves [`Self::encoded_len`] first, or moving `out` leaves keys behind in memory.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.u16(self.keys.len() as u16);
        for k in &self.keys {
            out.u32(k.generation);
            out.raw(&*k.key);
            out.i64(k.created);
        }
    }

    /// Reads a ring from the front of `p`: at least one key, generations ascending from 1.
    pub(super) fn decode(p: &mut Parser<'_>) -> Result<Self, FormatError> {
        let count = usize::from(p.u16()?);
        if count == 0 || count > GENERATIONS_MAX || count * ENTRY_LEN > p.left() {
            return Err(FormatError::damaged(format!("a key ring of {count} keys")));
        }
        let mut ring = Self { keys: Vec::with_capacity(count), owner: None };
        for _ in 0..count {
            let generation = p.u32()?;
            if generation <= ring.newest() {
                return Err(FormatError::damaged("generations of the key ring do not ascend"));
            }
            ring.keys.push(MasterKey { generation, key: Zeroizing::new(p.array()?), created: p.i64()? });
        }
        Ok(ring)
    }
}

/// The subkey of a master key for one purpose.
pub(super) fn subkey(vault: &VaultId, master: &[u8; 32], purpose: &str) -> Key {
    let mut material = Zeroizing::new([0; 48]);
    material[..32].copy_from_slice(master);
    material[32..].copy_from_slice(&vault.0);
    Zeroizing::new(blake3::derive_key(&format!("holdfast v1 {purpose}"), &*material))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn encoded(ring: &KeyRing) -> Vec<u8> {
        let mut out = Vec::new();
        ring.encode(&mut out);
        assert_eq!(out.len(), ring.encoded_len());
        out
    }

    #[test]
    fn a_ring_grows_and_survives_a_round_trip() {
        let mut ring = KeyRing::generate(1000);
        let second = ring.add_generation(2000).unwrap();
        assert!(second > 1 && second <= 1 + STEP_MAX);
        assert_ne!(ring.key(1), ring.key(second));
        let bytes = encoded(&ring);
        let mut p = Parser::new(&bytes);
        let back = KeyRing::decode(&mut p).unwrap();
        p.end().unwrap();
        assert_eq!((back.newest(), back.key(1), back.key(second)), (second, ring.key(1), ring.key(second)));
        assert_eq!((back.created(1), back.created(second), back.created(0)), (Some(1000), Some(2000), None));
        assert_eq!((back.key(0), back.key(3)), (None, None));
    }

    #[test]
    fn rings_that_grew_apart_come_together_and_one_number_for_two_keys_is_refused() {
        let first = KeyRing::generate(1);
        let (mut one, mut two) = (first.clone(), first.clone());
        let (a, b) = (one.add_generation(2).unwrap(), two.add_generation(3).unwrap());
        let mut both = one.clone();
        both.merge(&two).unwrap();
        both.merge(&two).unwrap();
        assert_eq!((both.key(a), both.key(b), both.newest()), (one.key(a), two.key(b), a.max(b)));
        assert!(both.has_all_of(&one) && both.has_all_of(&two) && !one.has_all_of(&two));
        assert!(encoded(&both).len() == 2 + 3 * ENTRY_LEN);
        let mut other = KeyRing::generate(1);
        assert!(matches!(other.merge(&first), Err(FormatError::Damaged(_))));
    }

    #[test]
    fn a_full_ring_takes_no_more_and_still_fits_a_slot() {
        let mut ring = KeyRing::generate(0);
        while ring.generations().count() < GENERATIONS_MAX {
            ring.add_generation(0).unwrap();
        }
        assert!(ring.add_generation(0).is_err());
        assert!(ring.encoded_len() < 60 << 10);
        assert!(KeyRing::decode(&mut Parser::new(&encoded(&ring))).is_ok());
    }

    #[test]
    fn two_rings_differ() {
        assert_ne!(KeyRing::generate(0).key(1), KeyRing::generate(0).key(1));
    }

    #[test]
    fn rings_against_the_rules_are_refused() {
        let entry = |generation: u32| [&generation.to_le_bytes()[..], &[7; 40]].concat();
        let refused = |count: u16, entries: &[u32]| {
            let mut bytes = count.to_le_bytes().to_vec();
            entries.iter().for_each(|&g| bytes.extend(entry(g)));
            KeyRing::decode(&mut Parser::new(&bytes)).is_err()
        };
        assert!(!refused(2, &[1, 2]));
        for (count, entries) in
            [(0, &[][..]), (2, &[1]), (1, &[0]), (2, &[1, 1]), (2, &[2, 1]), (u16::MAX, &[1])]
        {
            assert!(refused(count, entries), "{count} of {entries:?}");
        }
    }

    #[test]
    fn a_printed_ring_shows_no_key() {
        let text = format!("{:?}", KeyRing::fixed([0xab; 32]));
        assert_eq!(text, "KeyRing(generations [1])");
    }
}
