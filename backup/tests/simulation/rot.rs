//! Rot: what lies in a vault or in a staging directory is changed, cut or gone one day, and nobody is told.
//!
//! It never comes to the last whole copy of a thing. That is all that can be counted on: while nobody has read what is damaged, a machine may
//! free its whole copy, or burn down, and what was whole nowhere then is lost, though every machine did what it should (`docs/operations.md`,
//! "Scrub": what is damaged in every place comes back from the source alone).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::id::RecoveryPointId;
use holdfast_store::names::{self, Named};
use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::ObjectName;
use holdfast_store::vault::memory::MemoryVault;

use crate::life::Life;

/// Where something rots: in the staging directory of a machine, or in the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Of this number.
    Machine(usize),
    /// The only one.
    Vault,
}

/// What rotted so far.
#[derive(Debug, Default)]
pub struct Rot {
    /// What was there before.
    was: BTreeMap<(Place, String), Bytes>,
    struck: bool,
    struck_points: bool,
}

/// The bytes of a thing: a name in a place stands for one, and a point has other names in the vault.
fn hash(bytes: &[u8]) -> blake3::Hash {
    blake3::hash(bytes)
}

impl Rot {
    /// Something rots, if there is something of which another copy is whole. What it was, and how.
    pub fn strike(
        &mut self,
        random: &mut TestRandom,
        vault: &MemoryVault,
        lives: &[Arc<Life>],
        is_going: impl Fn(&RecoveryPointId) -> bool,
    ) -> Option<(String, ObjectName)> {
        let place = match random.below(2) {
            0 => Place::Vault,
            _ => Place::Machine(random.below(lives.len() as u64) as usize),
        };
        let there = objects(place, vault, lives);
        let is_copied = |(name, bytes): &(ObjectName, Bytes)| {
            let rots = match Named::parse(name.as_str()) {
                Some(Named::Pack(_)) => true,
                // The packs say all that it says.
                Some(Named::Index(_)) => return true,
                // One of which a removal that was cut off left the rest has nobody who would send it again.
                Some(Named::Point(_, attempt)) => place == Place::Vault && !is_going(&attempt.point),
                _ => false,
            };
            rots && self.is_whole_elsewhere(place, name, bytes, vault, lives)
        };
        let mut copied: Vec<_> = there.into_iter().filter(is_copied).collect();
        copied.retain(|(name, _)| !self.was.contains_key(&(place, name.to_string())));
        if copied.is_empty() {
            return None;
        }
        let (name, bytes) = copied.swap_remove(random.below(copied.len() as u64) as usize);
        let mut spoilt = bytes.to_vec();
        let (spoilt, how) = match random.below(4) {
            0 => (None, "vanishes".to_owned()),
            1 => {
                spoilt.truncate(random.below(bytes.len() as u64) as usize);
                (Some(spoilt), "is cut".to_owned())
            }
            _ => {
                let at = random.below(bytes.len() as u64) as usize;
                spoilt[at] ^= 1 << random.below(8);
                (Some(spoilt), format!("has another bit at {at}"))
            }
        };
        match (place, spoilt) {
            (Place::Vault, None) => vault.lose(&name),
            (Place::Vault, Some(spoilt)) => vault.replace(&name, spoilt.into()),
            (Place::Machine(number), spoilt) => lives[number].rot(name.as_str(), spoilt.as_deref()),
        }
        let told = format!("{name} of {} bytes {how} in {place:?}", bytes.len());
        self.struck = true;
        self.struck_points |= name.as_str().starts_with(names::POINTS);
        self.was.insert((place, name.to_string()), bytes);
        Some((told, name))
    }

    fn is_whole_elsewhere(
        &self,
        place: Place,
        name: &ObjectName,
        bytes: &[u8],
        vault: &MemoryVault,
        lives: &[Arc<Life>],
    ) -> bool {
        let places = (0..lives.len()).map(Place::Machine).chain([Place::Vault]);
        let mut others = places.filter(|other| *other != place);
        others.any(|other| is_in(other, name, &hash(bytes), vault, lives))
    }

    /// Whether anything did so far, healed or not.
    pub fn has_struck(&self) -> bool {
        self.struck
    }

    /// What is whole again where it rotted is as if it never had.
    pub fn note_healed(&mut self, vault: &MemoryVault, lives: &[Arc<Life>]) {
        self.was.retain(|(place, name), bytes| {
            let there = match place {
                Place::Vault => ObjectName::new(name).and_then(|name| vault.object(&name)),
                Place::Machine(number) => {
                    lives[*number].object(name).map(|bytes| Bytes::copy_from_slice(&bytes))
                }
            };
            there.is_none_or(|there| there != *bytes)
        });
    }

    /// A machine is lost, with what rotted there.
    pub fn forget(&mut self, number: usize) {
        self.was.retain(|(place, _), _| *place != Place::Machine(number));
    }

    /// Whether anything rotted in the vault that is not whole there again.
    pub fn is_in_vault(&self, vault: &MemoryVault) -> bool {
        let of_vault = self.was.iter().filter(|((place, _), _)| *place == Place::Vault);
        let is_whole = |name: &str, bytes: &Bytes| {
            ObjectName::new(name).and_then(|name| vault.object(&name)).is_some_and(|there| there == *bytes)
        };
        of_vault.into_iter().any(|((_, name), bytes)| !is_whole(name, bytes))
    }

    /// Whether a point rotted in the vault: whoever looks is alarmed that it is gone.
    pub fn was_in_points(&self) -> bool {
        self.struck_points
    }

    /// What rotted and is whole nowhere: it may be lost.
    pub fn lost(&self, vault: &MemoryVault, lives: &[Arc<Life>]) -> Vec<String> {
        let mut lost = Vec::new();
        for ((_, name), bytes) in &self.was {
            let Some(named) = ObjectName::new(name) else { continue };
            let mut places = (0..lives.len()).map(Place::Machine).chain([Place::Vault]);
            if !name.starts_with(names::INDEXES)
                && !places.any(|place| is_in(place, &named, &hash(bytes), vault, lives))
            {
                lost.push(name.clone());
            }
        }
        lost
    }

    /// Packs whose names are not the hashes of their bytes. Index objects may be so for ever: packs say all that they do, and whoever reads one
    /// goes by the packs then.
    pub fn damaged(vault: &MemoryVault, lives: &[Arc<Life>]) -> Vec<String> {
        let places = (0..lives.len()).map(Place::Machine).chain([Place::Vault]);
        let all =
            places.flat_map(|place| objects(place, vault, lives).into_iter().map(move |it| (place, it)));
        let is_wrong = |name: &ObjectName, bytes: &[u8]| match Named::parse(name.as_str()) {
            Some(Named::Pack(id)) => *hash(bytes).as_bytes() != id.0,
            _ => false,
        };
        let wrong = all.filter(|(_, (name, bytes))| is_wrong(name, bytes));
        wrong.map(|(place, (name, _))| format!("{name} is still damaged in {place:?}")).collect()
    }
}

/// What lies in a place.
fn objects(place: Place, vault: &MemoryVault, lives: &[Arc<Life>]) -> Vec<(ObjectName, Bytes)> {
    match place {
        Place::Machine(number) => lives[number].objects(),
        Place::Vault => {
            vault.names().into_iter().filter_map(|name| Some((name.clone(), vault.object(&name)?))).collect()
        }
    }
}

/// Whether a place has the same thing: of a point, under whichever attempt.
fn is_in(
    place: Place,
    name: &ObjectName,
    of: &blake3::Hash,
    vault: &MemoryVault,
    lives: &[Arc<Life>],
) -> bool {
    let is_it = |there: &[u8]| hash(there) == *of;
    let Some((tag, id)) = names::point_of(name) else {
        return match place {
            Place::Vault => vault.object(name).is_some_and(|there| is_it(&there)),
            Place::Machine(number) => lives[number].object(name.as_str()).is_some_and(|there| is_it(&there)),
        };
    };
    let is_of_point = |other: &ObjectName| names::point_of(other) == Some((tag, id));
    objects(place, vault, lives).iter().any(|(other, bytes)| is_of_point(other) && is_it(bytes))
}
