//! What a reader knows of places, and what it does where that is out of date or nobody can tell.

use super::*;
use crate::error::ErrorClass;
use crate::id::PackId;
use crate::pack::PackEntry;
use crate::vault::VaultError;

/// Of another pack than the world's.
const OTHER: PackId = PackId([9; 32]);

impl World {
    /// The world's pack under another name.
    fn other_entry(&self) -> PackEntry {
        PackEntry { id: OTHER, ..self.row().entry }
    }

    /// As in a catalog that was put back from a copy: the same number, another pack.
    fn renumber(&self) {
        let row = self.row();
        let (entry, chunks) = (self.other_entry(), self.parts.catalog.chunks_of(row.no).unwrap());
        self.parts.catalog.forget_all_packs();
        self.parts.catalog.add_packs(&[(&entry, &chunks)], true, None).unwrap();
        assert_eq!(self.row().no, row.no);
    }
}

#[test]
fn a_number_that_came_to_mean_another_pack_leads_to_no_other_bytes() {
    let world = World::new();
    let reader = world.reader();
    world.assert_reads(&reader, 3);
    world.renumber();
    world.assert_reads(&reader, 3);
    // It looks the pack up again, as if there had been many others meanwhile.
    reader.packs.lock().unwrap().clear();
    let read = reader.chunk_range(&world.chunks[3].0, 0..9, Deadline::NEVER);
    assert_eq!(read.unwrap_err().class(), ErrorClass::Corrupt);
}

#[test]
fn a_place_in_a_pack_that_is_another_now_is_not_warm_whatever_is_in_memory() {
    let world = World::new();
    let reader = world.reader();
    world.assert_reads(&reader, 3);
    let (id, _) = &world.chunks[3];
    assert!(reader.is_warm(id, None));
    world.renumber();
    reader.packs.lock().unwrap().clear();
    let map = reader.pack_map(world.row().no).unwrap();
    for n in 0..map.row.entry.frames.len() as u32 {
        let frame = || Ok(Bytes::from_static(b"of the other pack"));
        reader.frames.get_or_load((OTHER, n), Deadline::NEVER.into(), &*world.clock, frame).unwrap();
    }
    assert!(!reader.is_warm(id, None) && !reader.is_warm(id, Some(0..10)));
}

#[test]
fn what_is_known_of_a_pack_that_is_another_now_is_looked_up_again_before_anything_fails() {
    let world = World::new();
    let reader = world.reader();
    world.assert_reads(&reader, 3);
    let (id, plain) = &world.chunks[3];
    let other = Arc::new(PackMap::new(PackRow { entry: world.other_entry(), ..world.row() }));
    let out_of_date = || {
        reader.packs.lock().unwrap().put(world.row().no, other.clone());
        &reader
    };
    assert_eq!(out_of_date().tier(id).unwrap(), Tier::Memory);
    assert_eq!(out_of_date().wanted().add(id).unwrap(), (Tier::Memory, None));
    assert!(out_of_date().decoded_with(id, 0).unwrap().contains(&0));
    assert!(out_of_date().page_place(id).unwrap().is_none(), "it lies in two frames");
    assert!(out_of_date().chunk_range(id, 5..9, Deadline::NEVER).unwrap() == plain[5..9]);
    assert!(out_of_date().chunk_within(ChunkType::Data, id, Deadline::NEVER).unwrap() == plain);
    let now = Limits { farthest: Tier::Memory, deadline: Deadline::NEVER };
    let read = out_of_date().chunk_range(id, 5..9, now);
    assert!(matches!(read, Err(StoreError::Timeout { .. })), "who may wait looks it up");
}

#[test]
fn a_catalog_that_fails_while_another_place_is_looked_for_does_not_hide_why_the_first_failed() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    world.assert_reads(&reader, 3);
    reader.learn_places(world.row().no).unwrap();
    world.parts.catalog.lose_tables();
    assert!(
        reader.catalog.locate_all(&world.chunks[60].0).is_err() && reader.catalog.pack(PackNo(1)).is_err()
    );
    world.vault.fail_any_from(1, Fault::FailBefore);
    let error = reader.chunk(ChunkType::Data, &world.chunks[60].0, Deadline::NEVER).unwrap_err();
    assert!(matches!(error, StoreError::Vault { source: VaultError::Unavailable { .. }, .. }), "{error}");
}
