//! Which slots a rotation keeps, makes anew, and lets go: a pure function of what lies in the places and of what is at hand.

use std::collections::BTreeMap;

use holdfast_store::clock::Timestamp;
use holdfast_store::id::{SlotId, VaultId};
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::slots::{KeySlot, SlotKind};
use holdfast_store::seal::writer::{OwnerKey, PublicKey};
use holdfast_store::store::StoreHead;

use super::AtHand;
use crate::outcome::{Failure, Kind};

/// A slot that something at hand opens.
pub(super) struct Opened {
    /// Number of what opens it.
    pub by: usize,
    /// The ring in it.
    pub ring: KeyRing,
    /// The word that people gave it.
    pub label: String,
    /// Whether that is a key of this machine in a file: of those one is enough.
    in_file: bool,
}

impl Opened {
    /// Whether who has what opens the one has what opens the other.
    fn is_as(&self, other: &Self) -> bool {
        self.by == other.by || self.in_file && other.in_file
    }
}

/// A slot in one or more places.
pub(super) struct Found {
    pub id: SlotId,
    /// As they are in the first place that shows them whole.
    pub bytes: Vec<u8>,
    /// Nothing if it is damaged everywhere.
    pub kind: Option<SlotKind>,
    /// As it says; 0 if it is damaged.
    pub newest: u32,
    pub in_staging: bool,
    pub in_vaults: bool,
    pub opened: Option<Opened>,
    /// Whether it says to have the owner's key, and is one of people.
    pub has_owner: bool,
    created: i64,
}

impl Found {
    /// Whether a person opens it.
    pub fn is_of_people(&self) -> bool {
        matches!(self.kind, Some(SlotKind::Passphrase | SlotKind::Recovery))
    }

    /// Whether it belongs into all places: not those of other machines.
    pub fn is_wanted_everywhere(&self) -> bool {
        self.is_of_people() || self.opened.is_some()
    }

    /// When it was made.
    pub fn created(&self) -> Timestamp {
        Timestamp::from_seconds(self.created)
    }

    /// Whether it opens to all generations of a ring, as far as can be told.
    fn is_current(&self, ring: &KeyRing) -> bool {
        match &self.opened {
            Some(opened) => opened.ring.has_all_of(ring),
            None => self.newest == ring.newest(),
        }
    }
}

/// All slots of all places, and the generations that what is at hand opens.
pub(super) struct Survey {
    pub slots: Vec<Found>,
    pub ring: KeyRing,
    has_vaults: bool,
}

/// What is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A new generation, unless one is on its way.
    Rotate,
    /// The newest there is.
    Refresh,
}

/// What is to become of each slot, by number.
pub(super) struct Plan {
    /// The ring of all slots afterwards.
    pub ring: KeyRing,
    /// Whether its newest generation was made for this plan.
    pub is_new: bool,
    /// They have this ring.
    pub keep: Vec<usize>,
    /// Each is made anew for what opens it.
    pub remake: Vec<usize>,
    /// They go once those are made.
    pub replaced: Vec<usize>,
    /// They go only if somebody agrees: what opens them is not at hand.
    pub others: Vec<usize>,
    /// They lie here alone, because they were removed from the vaults.
    pub gone: Vec<usize>,
}

impl Survey {
    /// Tries what is at hand on all slots. `heads` are those of the store, which is first, and of its vaults.
    pub fn of(heads: &[(String, StoreHead)], vault: &VaultId, at_hand: &[AtHand]) -> Result<Self, Failure> {
        let mut by_id: BTreeMap<SlotId, Found> = BTreeMap::new();
        for (number, (_, head)) in heads.iter().enumerate() {
            for (id, bytes) in &head.slots {
                let read = KeySlot::read(bytes, vault).ok().filter(|slot| slot.id == *id);
                let found = by_id.entry(*id).or_insert_with(|| Found {
                    id: *id,
                    bytes: bytes.clone(),
                    kind: None,
                    newest: 0,
                    in_staging: false,
                    in_vaults: false,
                    opened: None,
                    has_owner: false,
                    created: 0,
                });
                found.in_staging |= number == 0;
                found.in_vaults |= number > 0;
                if let (None, Some(slot)) = (found.kind, read) {
                    found.bytes.clone_from(bytes);
                    (found.kind, found.newest, found.created) =
                        (Some(slot.kind), slot.newest(), slot.created);
                    found.has_owner = slot.kind != SlotKind::Machine && slot.has_owner;
                }
            }
        }
        let mut slots: Vec<Found> = by_id.into_values().collect();
        for slot in &mut slots {
            slot.opened = open(slot, vault, at_hand);
        }
        let mut rings = slots.iter().filter_map(|slot| slot.opened.as_ref()).map(|opened| &opened.ring);
        let Some(mut ring) = rings.next().cloned() else {
            return Err(Failure::new(Kind::WrongKey, "nothing that is at hand opens a slot"));
        };
        rings.try_for_each(|other| ring.merge(other)).map_err(|e| Failure::from(e.of("the key ring")))?;
        Ok(Self { slots, ring, has_vaults: heads.len() > 1 })
    }

    /// Which owner the new slots have where those that were opened have different ones: the one whom this machine believes.
    ///
    /// # Errors
    /// When he is not among them: the key of one of them would be lost with its slot.
    pub fn settle_owner(&mut self, pinned: Option<&PublicKey>) -> Result<(), Failure> {
        let opened = self.slots.iter().filter_map(|slot| slot.opened.as_ref());
        let owners: Vec<OwnerKey> = opened.filter_map(|opened| opened.ring.owner().cloned()).collect();
        if owners.iter().all(|owner| Some(owner) == owners.first()) {
            return Ok(());
        }
        match owners.into_iter().find(|owner| pinned == Some(&owner.public())) {
            Some(owner) => {
                self.ring = self.ring.clone().owned_by(owner);
                Ok(())
            }
            None => {
                let what = "what is at hand has the keys of different owners, and this machine believes none of them";
                Err(Failure::new(Kind::WrongKey, what).hint(
                    "nothing was changed; `holdfast key own` with the same settles which of them it is",
                ))
            }
        }
    }

    /// What to do, at `now` (seconds since 1970).
    ///
    /// # Errors
    /// When a slot has a generation that nothing at hand opens: what was sealed with it would be lost with that slot.
    pub fn plan(&self, target: Target, now: i64) -> Result<Plan, Failure> {
        if let Some(slot) =
            self.slots.iter().find(|slot| slot.newest > 0 && self.ring.key(slot.newest).is_none())
        {
            let what =
                format!("slot {} has key generation {}, which nothing at hand opens", slot.id, slot.newest);
            return Err(Failure::new(Kind::WrongKey, what).hint(
                "give its passphrase or words (HOLDFAST_PASSWORD_FILE, HOLDFAST_RECOVERY_KEY_FILE), which another machine rotated to; if nobody has it, `holdfast key remove SLOT --lost`",
            ));
        }
        let mut ring = self.ring.clone();
        let whole = |slot: &&Found| slot.kind.is_some();
        let is_gone = |slot: &Found| self.has_vaults && self.is_gone(slot);
        let is_whole = self.slots.iter().filter(whole).all(|slot| slot.is_current(&ring) || is_gone(slot));
        // Rings that grew apart are one only under a new number: by the newest of theirs nobody could tell it from either.
        let is_united =
            self.slots.iter().filter_map(|slot| slot.opened.as_ref()).any(|one| one.ring.has_all_of(&ring));
        let is_new = target == Target::Rotate && (is_whole || !is_united);
        if is_new {
            ring.add_generation(now).map_err(|e| Failure::from(e.of("the key ring")))?;
        }
        let mut plan = Plan {
            ring,
            is_new,
            keep: Vec::new(),
            remake: Vec::new(),
            replaced: Vec::new(),
            others: Vec::new(),
            gone: Vec::new(),
        };
        self.sort_slots(&mut plan);
        Ok(plan)
    }

    fn sort_slots(&self, plan: &mut Plan) {
        let current = |slot: &Found| slot.kind.is_some() && slot.is_current(&plan.ring);
        // What opens a current slot needs no other one.
        let mut served: Vec<&Opened> =
            self.slots.iter().filter(|s| current(s)).filter_map(|s| s.opened.as_ref()).collect();
        for (at, slot) in self.slots.iter().enumerate() {
            match &slot.opened {
                _ if current(slot) => plan.keep.push(at),
                Some(opened) => {
                    if !served.iter().any(|other| other.is_as(opened)) {
                        served.push(opened);
                        plan.remake.push(at);
                    }
                    plan.replaced.push(at);
                }
                None if self.is_gone(slot) => plan.gone.push(at),
                None => plan.others.push(at),
            }
        }
    }

    /// Whether it went from all vaults when another machine rotated. Those of machines need not be there.
    fn is_gone(&self, slot: &Found) -> bool {
        self.has_vaults
            && slot.is_of_people()
            && slot.opened.is_none()
            && !slot.in_vaults
            && slot.newest < self.ring.newest()
            && self
                .slots
                .iter()
                .any(|other| other.in_vaults && other.is_of_people() && other.is_current(&self.ring))
    }
}

fn open(slot: &Found, vault: &VaultId, at_hand: &[AtHand]) -> Option<Opened> {
    slot.kind?;
    at_hand.iter().enumerate().filter(|(_, held)| Some(held.secret.kind()) == slot.kind).find_map(
        |(by, held)| {
            let (ring, label) = KeySlot::open(&slot.bytes, vault, &held.secret).ok()?;
            Some(Opened { by, ring, label, in_file: held.in_file })
        },
    )
}

#[cfg(test)]
mod tests;
