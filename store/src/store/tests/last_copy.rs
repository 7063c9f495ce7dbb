//! A pack that was let go is removed only if what points need of it is whole elsewhere at that moment, whatever was found out since, and whatever index
//! objects said of it.

use super::fenced::{HOUR, advance, assert_recovers, at_once, forget, packs, push_all};
use super::hostile::{data_packs, prepared, push, recovered};
use super::thin_damage::chunk_in;
use super::*;
use crate::check::{self, Depth};
use crate::id::ChunkId;
use crate::monitor::VoidMonitor;
use crate::pack::PackedChunk;
use crate::reclaim::Terms;

/// A vault in which thin packs were written anew and let go.
struct Moved {
    home: Home,
    vault: Arc<MemoryVault>,
    /// The machine that made what is there, and has it in staging.
    here: Store,
    /// A machine that has the vault alone, and freed there.
    there: Store,
    _dir: tempfile::TempDir,
    kept: (StoredPoint, Tree),
    /// Packs that were let go though the point that stays needs something of them.
    old: Vec<ObjectName>,
    /// Those that have what lived in them.
    new: Vec<ObjectName>,
}

fn moved() -> Moved {
    let home = Home::new();
    let (vault, here) = prepared(&home);
    let all: Tree = (0..24).map(|n| (format!("{n:02}"), noise(&format!("moved {n}"), 40_000))).collect();
    let part: Tree = all.clone().into_iter().step_by(3).collect();
    let gone = take_point(&here, &all).unwrap();
    push_all(&here, &gone);
    let kept = take_point(&here, &part).unwrap();
    push_all(&here, &kept);
    let (dir, there) = recovered(&home, &vault);
    let lives = |row: &PackRow| chunk_in(&there, row, &kept, true).is_some();
    let old = data_packs(&there).into_iter().filter(lives).map(|row| names::pack(&row.entry.id));
    let old: Vec<ObjectName> = old.collect();
    let before = packs(&vault);
    forget(&there, &gone);
    vault.set_now(0);
    let begun = advance(&there, &Terms::default());
    assert!(begun.packs_rewritten > 0 && begun.to_go.0 > 0, "{begun:?}");
    let all = data_packs(&there);
    let new =
        all.iter().map(|row| names::pack(&row.entry.id)).filter(|name| !before.contains(name)).collect();
    Moved { home, vault, here, there, _dir: dir, kept: (kept, part), old, new }
}

impl Moved {
    fn rots(&self) {
        assert!(!self.new.is_empty());
        for name in &self.new {
            let mut bytes = self.vault.object(name).unwrap().to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            self.vault.replace(name, bytes.into());
        }
    }

    fn all_there(&self, names: &[ObjectName]) -> bool {
        names.iter().all(|name| self.vault.object(name).is_some())
    }

    fn recovers(&self) {
        assert_recovers(&self.home, &self.vault, &[(&self.kept.0, &self.kept.1)]);
    }
}

#[test]
fn what_was_let_go_stays_when_what_took_its_place_was_found_damaged_and_moves_once_more() {
    let moved = moved();
    moved.rots();
    check::check(&moved.there, Depth::ReadData, &VoidMonitor).unwrap();
    moved.vault.set_now(48 * HOUR);
    advance(&moved.there, &Terms::default());
    assert!(moved.all_there(&moved.old));
    moved.recovers();
    // What lives there was written anew, so both that were before may go.
    for days in [3, 6, 9] {
        moved.vault.set_now(days * 24 * HOUR);
        advance(&moved.there, &Terms::default());
    }
    let left = packs(&moved.vault);
    assert!(moved.old.iter().chain(&moved.new).all(|name| !left.contains(name)));
    moved.recovers();
}

#[test]
fn what_took_the_place_of_a_pack_is_read_before_that_goes_by_who_has_not_read_it() {
    let moved = moved();
    moved.rots();
    moved.vault.set_now(48 * HOUR);
    let (_dir, third) = recovered(&moved.home, &moved.vault);
    advance(&third, &Terms::default());
    assert!(moved.all_there(&moved.old));
    moved.recovers();
}

#[test]
fn what_was_let_go_is_no_place_to_rely_on_where_what_took_its_place_is_damaged() {
    let moved = moved();
    moved.rots();
    check::check(&moved.here, Depth::ReadData, &VoidMonitor).unwrap();
    assert!(push(&moved.here, &moved.kept.0, &RecordingMonitor::default()).unwrap().bytes > 0);
    // Of the two that have the same it may let go the whole one first: the last look finds that out.
    let (_dir, third) = recovered(&moved.home, &moved.vault);
    for days in [2, 5, 8, 11] {
        moved.vault.set_now(days * 24 * HOUR);
        advance(&third, &Terms::default());
        moved.recovers();
    }
    assert!(!moved.all_there(&moved.old));
}

/// A machine of which the catalog says other things of all data packs than they hold, as a forged index object has it.
fn misled() -> (Home, Arc<MemoryVault>, tempfile::TempDir, Store, (StoredPoint, Tree)) {
    let home = Home::new();
    let (vault, here) = prepared(&home);
    let files = fenced::files("said");
    let point = take_point(&here, &files).unwrap();
    push_all(&here, &point);
    let (dir, there) = recovered(&home, &vault);
    for row in data_packs(&there) {
        let chunks = there.catalog().chunks_of(row.no).unwrap().into_iter();
        let other =
            |chunk: PackedChunk| PackedChunk { id: ChunkId(*blake3::hash(&chunk.id.0).as_bytes()), ..chunk };
        let other: Vec<PackedChunk> = chunks.map(other).collect();
        assert!(there.catalog().set_contents(row.no, &row.entry, &other).unwrap());
    }
    (home, vault, dir, there, (point, files))
}

#[test]
fn no_pack_goes_because_of_what_an_index_object_says_of_it() {
    let (home, vault, _dir, there, (point, files)) = misled();
    let before = packs(&vault);
    let told = RecordingMonitor::default();
    let no = there.vaults()[0].0;
    free_in_vault(&there, no, &told);
    assert_eq!(packs(&vault), before);
    let tells = |event: &Event| matches!(event, Event::Problem { reason, .. } if reason.contains("holds other things"));
    assert!(told.events().iter().any(tells), "{:?}", told.events());
    assert_recovers(&home, &vault, &[(&point, &files)]);
    // A generation lets them go, and they are needed: they move.
    for _ in 0..3 {
        advance(&there, &at_once());
    }
    assert!(restore(&there, &there.point(&point.point.id).unwrap()).unwrap() == files);
    assert_recovers(&home, &vault, &[(&point, &files)]);
}

#[test]
fn a_full_read_tells_what_was_said_wrongly_of_a_pack_and_puts_it_right() {
    let (_home, _vault, _dir, there, (point, files)) = misled();
    let packs = data_packs(&there);
    let findings = |there: &Store| {
        let report = check::check(there, Depth::ReadData, &VoidMonitor).unwrap();
        report
            .findings
            .into_iter()
            .filter(|f| f.object.starts_with("pack/"))
            .map(|f| f.detail)
            .collect::<Vec<_>>()
    };
    let told = findings(&there);
    assert_eq!(
        told.iter().filter(|detail| detail.contains("holds other things")).count(),
        packs.len(),
        "{told:?}"
    );
    assert!(restore(&there, &there.point(&point.point.id).unwrap()).unwrap() == files);
    assert_eq!(findings(&there), [""; 0]);
}
