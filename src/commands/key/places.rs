//! The places where key slots lie: the local store and all its vaults. A slot that is added is added in all of them and read
//! back; one that is removed is removed in all of them. A vault that cannot be reached stops either before anything is
//! done: a passphrase that was thought to be gone and still opens a vault would be worse than a second attempt.

use std::sync::Arc;

use holdfast_store::StoreError;
use holdfast_store::id::SlotId;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::slots::{FIRST_GENERATION, KeySlot, Secret, SlotKind};
use holdfast_store::store::{SMALL_OBJECT, Store, StoreHead, StoreLock, unlock};
use holdfast_store::transfer::Transfer;
use holdfast_store::{copy, names};

use super::ring;
use crate::commands::Context;
use crate::open::{Bounds, connect_to_the_end, open_unlocked};
use crate::outcome::Failure;

/// The store, and what each vault showed when it was asked at the beginning.
#[derive(Debug)]
pub struct Places {
    store: Store,
    heads: Vec<StoreHead>,
    /// To each vault a way that being asked to stop does not close: a slot is in all places or in none.
    ways_back: Vec<Arc<Transfer>>,
}

impl Places {
    /// Asks every vault for its slots; all must answer, and with those of this store.
    pub fn open(context: &Context<'_>, head: &StoreHead, ring: &KeyRing) -> Result<Self, Failure> {
        let dir = context.settings.store()?;
        let store = open_unlocked(context, dir, &head.vault, ring, Bounds::default())?;
        let (mut heads, mut ways_back) = (Vec::new(), Vec::new());
        for (_, address, transfer) in store.vaults() {
            let theirs = copy::vault_head(transfer)?;
            ways_back.push(connect_to_the_end(context, address)?.1);
            if theirs.vault != head.vault {
                let detail = format!("the vault holds store {}, this is {}", theirs.vault, head.vault);
                return Err(StoreError::NotOurs { object: address.clone(), detail }.into());
            }
            heads.push(theirs);
        }
        Ok(Self { store, heads, ways_back })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Addresses of all vaults.
    pub fn addresses(&self) -> Vec<String> {
        self.store.vaults().iter().map(|(_, address, _)| address.clone()).collect()
    }

    /// Puts a slot everywhere, reads it back and opens it. If that fails anywhere it is taken back everywhere.
    pub fn add(&self, id: &SlotId, bytes: &[u8], secret: &Secret) -> Result<(), Failure> {
        self.add_to_stay(id, bytes, secret).inspect_err(|_| self.take_back(id))
    }

    /// The same of a slot with a key generation that others may seal with as soon as they see it: what is there stays, for it may be all that
    /// opens what they sealed, and another run puts it where it is missing.
    pub fn add_to_stay(&self, id: &SlotId, bytes: &[u8], secret: &Secret) -> Result<(), Failure> {
        // What is read back is what was written, to the byte.
        let opened = KeySlot::open(bytes, self.store.id(), secret);
        opened.map_err(|error| error.of(names::slot(id).as_str()))?;
        self.put(id, bytes)
    }

    /// Refuses a ring that is older than one which some place has: what were sealed into a slot now would open less than that does.
    pub fn refuse_older(&self, ring: &KeyRing) -> Result<(), Failure> {
        for (place, head) in self.heads_now()? {
            let newest = newest(&head);
            if newest > 0 && ring.key(newest).is_none() {
                return Err(StoreError::NoKey {
                    object: format!("a key slot in {place}"),
                    generation: newest,
                }
                .into());
            }
        }
        Ok(())
    }

    /// What the store and each vault show now.
    pub fn heads_now(&self) -> Result<Vec<(String, StoreHead)>, Failure> {
        let mut heads = vec![("the store".to_owned(), Store::head(self.store.dir())?)];
        for (_, address, transfer) in self.store.vaults() {
            heads.push((format!("vault {address}"), copy::vault_head(transfer)?));
        }
        Ok(heads)
    }

    /// Puts a slot that is somewhere into every place, and reads it back.
    pub fn put(&self, id: &SlotId, bytes: &[u8]) -> Result<(), Failure> {
        self.put_into_vaults(id, bytes)?;
        self.put_here(id, bytes)
    }

    fn put_into_vaults(&self, id: &SlotId, bytes: &[u8]) -> Result<(), Failure> {
        for (_, _, transfer) in self.store.vaults() {
            copy::put_slot(&self.store, transfer, (id, bytes.to_vec()), &VoidMonitor)?;
        }
        Ok(())
    }

    /// Puts a slot into this machine's store alone, and reads it back.
    pub fn put_here(&self, id: &SlotId, bytes: &[u8]) -> Result<(), Failure> {
        let name = names::slot(id);
        self.store.put_control(&name, bytes)?;
        let back = self.store.staging().read_all(&name, SMALL_OBJECT)?.unwrap_or_default();
        match back == bytes {
            true => Ok(()),
            false => {
                let detail = "it reads back as something else than was written";
                Err(StoreError::corrupt(name.as_str(), detail).into())
            }
        }
    }

    /// Removes a slot from this machine's store alone; `whole` as in [`Places::remove`].
    pub fn remove_here(&self, _lock: &StoreLock, id: &SlotId, whole: &[SlotId]) -> Result<(), Failure> {
        let head = Store::head(self.store.dir())?;
        refuse_last("the store", &head, id, Needed::By(whole))?;
        self.store.staging().remove(&names::slot(id))?;
        Ok(())
    }

    /// Removes a slot that was just added, as far as that can be done.
    pub fn take_back(&self, id: &SlotId) {
        let name = names::slot(id);
        let _ = self.store.staging().remove(&name);
        for transfer in &self.ways_back {
            let _ = transfer.delete(&name);
        }
    }

    /// Removes a slot: from the vaults first, so that what fails there leaves a slot that can be removed again.
    pub fn remove(&self, _lock: &StoreLock, id: &SlotId, needed: Needed<'_>) -> Result<(), Failure> {
        self.check_removal(id, needed)?;
        let name = names::slot(id);
        for (no, _, transfer) in self.store.vaults() {
            let failed = |source| StoreError::Vault { vault: transfer.address(), source };
            transfer.delete(&name).map_err(failed)?;
            self.store.remember_slot_removed(*no, *id)?;
        }
        self.store.staging().remove(&name)?;
        Ok(())
    }

    /// In every place something that a person has must still open it afterwards. Asked anew: who waited for the lock may have
    /// waited for another removal.
    fn check_removal(&self, id: &SlotId, needed: Needed<'_>) -> Result<(), Failure> {
        self.heads_now()?.iter().try_for_each(|(place, head)| refuse_last(place, head, id, needed))
    }

    /// Whether a secret that opens a slot of the local store opens every vault by what lies there, config and all, and to the same ring.
    pub fn verify(&self, local: &StoreHead, opened: &ring::Opened, secret: &Secret) -> Result<(), Failure> {
        let proven = local.slots.iter().find(|(id, _)| *id == opened.slot);
        for ((_, _, transfer), head) in self.store.vaults().iter().zip(&self.heads) {
            let of_vault = |failure| of_vault(transfer, failure);
            ring::refuse_older(&format!("vault {}", transfer.address()), head, &opened.ring)?;
            // The same bytes open again; deriving the key once more would only take time.
            if proven.is_some_and(|slot| head.slots.contains(slot)) {
                unlock(head, &opened.ring).map_err(Failure::from).map_err(of_vault)?;
                continue;
            }
            let there = ring::open(head, secret).map_err(of_vault)?;
            unlock(head, &there.ring).map_err(Failure::from).map_err(of_vault)?;
            ring::refuse_less(&format!("vault {}", transfer.address()), &there, &opened.ring)?;
        }
        Ok(())
    }
}

/// What has to be left when a slot is removed.
#[derive(Clone, Copy, Debug)]
pub enum Needed<'a> {
    /// Something that people have for each key generation that it names. Of these slots it is known that they have all that any other has.
    By(&'a [SlotId]),
    /// Nobody has what opens it, so that what only it opens is gone already.
    Lost,
}

fn of_vault(transfer: &Transfer, failure: Failure) -> Failure {
    Failure { message: format!("vault {}: {}", transfer.address(), failure.message), ..failure }
}

fn refuse_last(place: &str, head: &StoreHead, id: &SlotId, needed: Needed<'_>) -> Result<(), Failure> {
    let is_lost = matches!(needed, Needed::Lost);
    if !opens_without(head, id, is_lost) {
        let message = format!("slot {id} is the last of {place} that a passphrase or recovery key opens");
        let failure = Failure::failed(format!("{message}; nothing was removed"));
        return Err(failure.hint("add another with `holdfast key add` first"));
    }
    let Needed::By(whole) = needed else { return Ok(()) };
    match generation_without(head, id, whole) {
        None => Ok(()),
        Some(generation) => {
            let message = format!(
                "slot {id} may be the last of {place} that gives people key generation {generation}; nothing was removed"
            );
            Err(Failure::failed(message).hint(
                "`holdfast key rotate` makes slots that open everything, and removes it then; \
                 `holdfast key remove SLOT --lost` if nobody has what opens it",
            ))
        }
    }
}

/// The key generation of a slot of people that none of the others is known to have: two machines that rotated at once left slots that each lack
/// the other's. The first generation is in all.
fn generation_without(head: &StoreHead, id: &SlotId, whole: &[SlotId]) -> Option<u32> {
    let read = |(_, bytes): &(SlotId, Vec<u8>)| KeySlot::read(bytes, &head.vault).ok();
    let of_people = |slot: &KeySlot| slot.kind != SlotKind::Machine;
    let going = head.slots.iter().find(|(other, _)| other == id).and_then(read).filter(of_people)?;
    let mut left = head.slots.iter().filter(|(other, _)| other != id).filter_map(read).filter(of_people);
    let is_left = left.any(|slot| slot.newest() == going.newest() || whole.contains(&slot.id));
    (!is_left && going.newest() > FIRST_GENERATION).then(|| going.newest())
}

/// Whether anything but machine keys opens a place when the slot `id` is gone, and all that it holds. Damaged slots open nothing, and those of
/// an older ring not all. What a slot holds that is `lost` does not count.
fn opens_without(head: &StoreHead, id: &SlotId, lost: bool) -> bool {
    let others = StoreHead {
        slots: head.slots.iter().filter(|(other, _)| other != id).cloned().collect(),
        ..head.clone()
    };
    let needed = newest(if lost { &others } else { head });
    let mut read = others.slots.iter().filter_map(|(_, bytes)| KeySlot::read(bytes, &head.vault).ok());
    read.any(|slot| slot.kind != SlotKind::Machine && slot.newest() == needed)
}

/// The newest key generation that a slot of a place says to have; 0 if none can be read.
fn newest(head: &StoreHead) -> u32 {
    let read = head.slots.iter().filter_map(|(_, bytes)| KeySlot::read(bytes, &head.vault).ok());
    read.map(|slot| slot.newest()).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_store::id::VaultId;
    use holdfast_store::seal::slots::KdfParams;

    use super::*;

    const VAULT: VaultId = VaultId([7; 16]);

    fn slot(ring: &KeyRing, secret: &Secret) -> (SlotId, Vec<u8>) {
        let bytes = KeySlot::create(&VAULT, ring, secret, "label", &KdfParams::floor(), 5).unwrap();
        (KeySlot::read(&bytes, &VAULT).unwrap().id, bytes)
    }

    fn refused(slots: &[&(SlotId, Vec<u8>)], id: &SlotId, needed: Needed<'_>) -> Option<String> {
        let slots = slots.iter().map(|slot| (*slot).clone()).collect();
        let head = StoreHead { vault: VAULT, config: Vec::new(), slots };
        refuse_last("a place", &head, id, needed).err().map(|failure| failure.message)
    }

    #[test]
    fn no_slot_goes_that_may_be_the_last_of_a_key_generation() {
        let old = KeyRing::generate(1);
        let (mut one, mut two) = (old.clone(), old.clone());
        one.add_generation(2).unwrap();
        two.add_generation(3).unwrap();
        let mut both = one.clone();
        both.merge(&two).unwrap();
        both.add_generation(4).unwrap();
        let words = Secret::new_recovery;
        let (first, a, b, all) =
            (slot(&old, &words()), slot(&one, &words()), slot(&two, &words()), slot(&both, &words()));
        let machine = slot(&one, &Secret::new_machine());
        // Two that rotated at once: each has what the other one lacks, whichever has the higher number.
        for (going, left) in [(&a, &b), (&b, &a)] {
            assert!(refused(&[going, left], &going.0, Needed::By(&[])).is_some());
        }
        let lower = if one.newest() < two.newest() { (&a, &b) } else { (&b, &a) };
        assert_eq!(refused(&[lower.0, lower.1], &lower.0.0, Needed::Lost), None);
        // What has all is known by who made it.
        assert!(refused(&[&a, &b, &all], &a.0, Needed::By(&[])).unwrap().contains("key generation"));
        assert_eq!(refused(&[&a, &b, &all], &a.0, Needed::By(&[all.0])), None);
        // The first generation is in all, and what is in a machine's slot is in one of people.
        assert_eq!(refused(&[&first, &all], &first.0, Needed::By(&[])), None);
        assert_eq!(refused(&[&machine, &all], &machine.0, Needed::By(&[])), None);
        assert!(
            refused(&[&machine, &all], &all.0, Needed::By(&[])).unwrap().contains("is the last of a place")
        );
    }
}
