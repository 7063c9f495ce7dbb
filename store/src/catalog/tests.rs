//! Tests of the catalog.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::clock::Timestamp;
use crate::id::{ChunkId, IndexId, ObjectId, PackId, RecoveryPointId, SourceTag};
use crate::pack::{Frame, PackKind, PackedChunk};

const STORE: [u8; 16] = [5; 16];

fn pack(n: u8, chunks: u8) -> (PackEntry, Vec<PackedChunk>) {
    let chunks: Vec<_> =
        (0..chunks).map(|c| PackedChunk { id: chunk(n, c), len: 10 + u32::from(c) }).collect();
    let raw_len = chunks.iter().map(|c| c.len).sum();
    let entry = PackEntry {
        id: PackId([n; 32]),
        object_id: ObjectId([n; 16]),
        generation: 1,
        kind: PackKind::Data,
        len: 1000 + u64::from(n),
        frames: vec![Frame { units: 3, raw_len }],
    };
    (entry, chunks)
}

fn chunk(pack: u8, n: u8) -> ChunkId {
    ChunkId(*blake3::hash(&[pack, n]).as_bytes())
}

fn add(c: &Catalog, n: u8, staged: bool, vault: Option<VaultNo>) -> PackNo {
    let (entry, chunks) = pack(n, 3);
    c.add_packs(&[(&entry, &chunks)], staged, vault).unwrap();
    c.pack_by_id(&entry.id).unwrap().unwrap().no
}

#[test]
fn chunks_are_found_in_the_packs_that_hold_them() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let no = add(&c, 1, true, None);
    let found = c.locate(&chunk(1, 2)).unwrap().unwrap();
    assert_eq!((found.pack, found.start, found.len), (no, 21, 12));
    assert_eq!(c.locate(&chunk(1, 3)).unwrap(), None);
    assert_eq!(c.chunks_of(no).unwrap(), pack(1, 3).1);
    assert_eq!(c.pack(no).unwrap().unwrap().entry, pack(1, 3).0);
    assert_eq!(add(&c, 1, true, None), no, "a known pack is not added twice");
    assert_eq!(c.locate_all(&chunk(1, 0)).unwrap().len(), 1);
}

#[test]
fn a_pack_that_is_nowhere_any_more_is_forgotten_with_its_chunks() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let vault = c.vault_no("somewhere").unwrap();
    assert_eq!(c.vault_no("somewhere").unwrap(), vault);
    let no = add(&c, 1, true, Some(vault));
    c.set_staged(no, false).unwrap();
    assert!(c.locate(&chunk(1, 0)).unwrap().is_some(), "the vault still has it");
    c.set_confirmed(no, vault, false).unwrap();
    assert_eq!(c.locate(&chunk(1, 0)).unwrap(), None);
    assert_eq!(c.packs().unwrap(), []);
}

#[test]
fn nothing_new_relies_on_a_damaged_pack_but_a_reader_may_still_try_it() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let no = add(&c, 1, true, None);
    assert!(!c.has_bad_packs().unwrap());
    c.set_bad(no, true).unwrap();
    assert!(c.has_bad_packs().unwrap());
    assert_eq!(c.locate(&chunk(1, 0)).unwrap(), None);
    assert_eq!(c.locate_all(&chunk(1, 0)).unwrap().len(), 1);
}

#[test]
fn packs_without_an_index_object_are_known_for_each_place() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let vault = c.vault_no("v").unwrap();
    let (one, two) = (add(&c, 1, true, Some(vault)), add(&c, 2, true, None));
    assert_eq!(c.packs_without_index(None).unwrap(), [one, two]);
    assert_eq!(c.packs_without_index(Some(vault)).unwrap(), [one]);
    let (local, remote) = (IndexId([1; 32]), IndexId([2; 32]));
    c.add_index(&local, &[PackId([1; 32]), PackId([2; 32])], None).unwrap();
    assert_eq!(c.packs_without_index(None).unwrap(), []);
    assert_eq!(c.packs_without_index(Some(vault)).unwrap(), [one]);
    c.add_index(&remote, &[PackId([1; 32])], Some(vault)).unwrap();
    assert_eq!(c.packs_without_index(Some(vault)).unwrap(), []);
    assert_eq!(c.index_objects(Some(vault)).unwrap(), [remote]);
    c.set_staged(two, false).unwrap();
    c.remove_index(&remote).unwrap();
    assert_eq!(c.index_objects(None).unwrap(), [local]);
}

fn point(n: u8, sequence: u64) -> PointRow {
    PointRow {
        id: RecoveryPointId([n; 16]),
        tag: SourceTag([1; 16]),
        sequence,
        started: 1000 + i64::from(n),
        hash: *blake3::hash(&[n; 50]).as_bytes(),
        object: vec![n; 50],
        staged: true,
        vaults: Vec::new(),
    }
}

#[test]
fn points_are_listed_by_start_and_found_by_source() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let vault = c.vault_no("v").unwrap();
    c.add_point(&point(2, 2)).unwrap();
    c.add_point(&point(1, 1)).unwrap();
    assert_eq!(c.points().unwrap(), [point(1, 1), point(2, 2)]);
    assert_eq!(c.newest_id(&SourceTag([1; 16])).unwrap(), Some(point(2, 2).id));
    assert_eq!(c.newest_id(&SourceTag([2; 16])).unwrap(), None);
    assert_eq!(c.heads().unwrap(), [(SourceTag([1; 16]), 2, point(2, 2).hash)]);
    c.add_point(&PointRow { staged: false, vaults: vec![vault], ..point(1, 1) }).unwrap();
    let both = c.point(&point(1, 1).id).unwrap().unwrap();
    assert_eq!((both.staged, both.vaults), (true, vec![vault]));
    c.remove_point(&point(1, 1).id, None).unwrap();
    assert!(c.point(&point(1, 1).id).unwrap().is_some_and(|p| !p.staged));
    c.remove_point(&point(1, 1).id, Some(vault)).unwrap();
    assert_eq!(c.point(&point(1, 1).id).unwrap(), None);
}

#[test]
fn the_stamp_moves_with_every_point_that_comes_goes_or_changes_place_and_with_nothing_else() {
    let c = Catalog::in_memory(&[7; 16]).unwrap();
    let vault = c.vault_no("somewhere").unwrap();
    let mut seen = vec![c.points_stamp().unwrap()];
    let mut moved = |c: &Catalog| {
        seen.push(c.points_stamp().unwrap());
        seen[seen.len() - 1] != seen[seen.len() - 2]
    };
    c.add_points(&[point(1, 1), point(2, 2)]).unwrap();
    assert!(moved(&c));
    add(&c, 1, true, None);
    assert!(!moved(&c));
    c.add_point(&PointRow { staged: false, vaults: vec![vault], ..point(1, 1) }).unwrap();
    assert!(moved(&c));
    c.remove_point(&point(2, 2).id, None).unwrap();
    assert!(moved(&c));
    c.forget_vault(vault).unwrap();
    assert!(moved(&c));
    let mut lines = c.point_lines().unwrap();
    lines.sort_by_key(|line| line.sequence);
    let of = |p: PointRow| PointLine { id: p.id, tag: p.tag, sequence: p.sequence, started: p.started };
    assert_eq!(lines, [of(point(1, 1))]);
}

#[test]
fn what_changes_in_a_row_is_damage_and_never_another_place() {
    let flips = [
        "UPDATE pack SET frames = ?2 WHERE no = ?1",
        "UPDATE pack SET object_id = zeroblob(16) WHERE no = ?1",
        "UPDATE pack SET generation = 2 WHERE no = ?1",
        "UPDATE pack SET kind = 2 WHERE no = ?1",
        "UPDATE pack SET len = len + 1 WHERE no = ?1",
        "UPDATE pack SET id = zeroblob(32) WHERE no = ?1",
        "UPDATE pack SET no = no + 100 WHERE no = ?1",
        "UPDATE chunk SET pack = pack + 1 WHERE pack = ?1",
        "UPDATE chunk SET start = start + 1 WHERE pack = ?1",
        "UPDATE chunk SET len = len + 1 WHERE pack = ?1",
        "UPDATE chunk SET id = CAST(substr(id, 1, 31) || x'00' AS BLOB) WHERE pack = ?1",
        "DELETE FROM chunk WHERE pack = ?1 AND start = 21",
        "DELETE FROM chunk WHERE pack = ?1 AND start = 0",
    ];
    let frames = [3_u32.to_le_bytes(), 49_u32.to_le_bytes()].concat();
    for flip in flips {
        let c = Catalog::in_memory(&STORE).unwrap();
        let (no, other) = (add(&c, 1, true, None), add(&c, 2, true, None));
        c.write("flip", |t| {
            let mut statement = t.prepare(flip)?;
            let changed = if statement.parameter_count() == 2 {
                statement.execute(rusqlite::params![no.0, frames])?
            } else {
                statement.execute([no.0])?
            };
            assert!(changed > 0, "{flip}");
            Ok(())
        })
        .unwrap();
        let corrupt = |e: StoreError| assert_eq!(e.class(), ErrorClass::Corrupt, "{flip}: {e}");
        for n in 0..3 {
            let at = c.locate(&chunk(1, n)).map_err(corrupt).ok().flatten();
            let row = at.and_then(|at| c.pack(at.pack).map_err(corrupt).ok().flatten());
            assert!(row.is_none_or(|row| flip.starts_with("DELETE") && row.entry == pack(1, 3).0), "{flip}");
        }
        // Whoever asks what a pack holds must not hear too little.
        let told = [no, other].map(|no| c.chunks_of(no).map_err(corrupt));
        assert!(told != [Ok(pack(1, 3).1), Ok(pack(2, 3).1)], "{flip}");
        assert!(told.iter().flatten().all(|chunks| chunks.len() != 1 && chunks.len() != 2), "{flip}");
    }
}

/// Damage of the row of point 2, and whether the rest of a row tells it without the object.
const POINT_FLIPS: [(&str, bool); 19] = [
    ("sequence = sequence | 64", true),
    ("sequence = -1", true),
    ("sequence = 'x'", true),
    ("started = started - 1048576", true),
    ("started = 'x'", true),
    ("tag = zeroblob(16)", true),
    ("tag = x'01'", true),
    ("hash = zeroblob(32)", true),
    ("sum = sum + 1", true),
    ("sum = -1", true),
    ("sum = 'x'", true),
    ("id = zeroblob(16)", true),
    ("id = x'02'", true),
    ("id = CAST(id AS TEXT)", true),
    ("id = CAST(x'ff020202020202020202020202020202' AS TEXT)", true),
    ("id = NULL", true),
    ("object = zeroblob(50)", false),
    ("object = x''", false),
    ("object = 'x'", false),
];

#[test]
fn what_changes_in_a_points_row_is_damage_and_never_another_order() {
    for (flip, in_line) in POINT_FLIPS {
        let c = Catalog::in_memory(&STORE).unwrap();
        if flip.ends_with("NULL") {
            c.let_keys_be_null();
        }
        c.add_points(&[point(1, 1), point(2, 2), point(3, 3)]).unwrap();
        let sql = format!("UPDATE point SET {flip} WHERE sequence = 2");
        assert_eq!(c.write("flip", |t| t.execute(&sql, [])).unwrap(), 1, "{flip}");
        let corrupt = |e: StoreError| {
            assert!(!e.to_string().contains("onversion"), "{e}");
            e.class() == ErrorClass::Corrupt
        };
        assert!(c.points().is_err_and(corrupt), "{flip}");
        assert_eq!(c.sound_points().unwrap(), [point(1, 1), point(3, 3)], "{flip}");
        assert_eq!(c.damaged_points(false).unwrap().len(), usize::from(in_line), "{flip}");
        let damaged = c.damaged_points(true).unwrap();
        assert_eq!(damaged.len(), 1, "{flip}");
        let lines = c.point_lines().unwrap();
        assert!(lines.iter().all(|l| l.sequence == u64::from(l.id.0[0])), "{flip}: {lines:?}");
        assert_eq!(lines.len(), if in_line { 2 } else { 3 }, "{flip}");
        assert_eq!(c.newest_id(&SourceTag([1; 16])).unwrap(), Some(point(3, 3).id), "{flip}");
        assert_eq!(c.heads().unwrap(), [(SourceTag([1; 16]), 3, point(3, 3).hash)], "{flip}");
        match damaged[0].id() {
            Some(id) if id == point(2, 2).id => {
                // One whose key one bit made text is not found by its id.
                assert!(c.point(&id).map_or_else(corrupt, |found| found.is_none()), "{flip}");
                c.mend_point(&point(2, 2)).unwrap();
                assert_eq!(c.point(&id).unwrap(), Some(point(2, 2)), "{flip}");
            }
            _ => c.drop_damaged_point(&damaged[0]).unwrap(),
        }
        assert!(c.damaged_points(true).unwrap().is_empty() && c.points().is_ok(), "{flip}");
    }
}

#[test]
fn a_point_that_was_added_while_one_bit_hid_its_row_has_one_row_again() {
    let c = Catalog::in_memory(&STORE).unwrap();
    c.add_point(&point(1, 1)).unwrap();
    c.write("flip", |t| t.execute("UPDATE point SET id = CAST(id AS TEXT)", [])).unwrap();
    let vault = c.vault_no("v").unwrap();
    let there = PointRow { staged: false, vaults: vec![vault], ..point(1, 1) };
    c.add_point(&there).unwrap();
    c.mend_point(&there).unwrap();
    assert_eq!(c.points().unwrap(), [PointRow { staged: true, ..there }]);
}

#[test]
fn a_row_that_is_put_right_gets_back_no_place_that_was_lost_since_it_was_looked_at() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let vault = c.vault_no("v").unwrap();
    let looked_at = PointRow { vaults: vec![vault], ..point(1, 1) };
    for (lost, left) in [(Some(vault), point(1, 1)), (None, PointRow { staged: false, ..looked_at.clone() })]
    {
        c.add_point(&looked_at).unwrap();
        c.write("flip", |t| t.execute("UPDATE point SET sequence = 64", [])).unwrap();
        c.remove_point(&looked_at.id, lost).unwrap();
        c.mend_point(&looked_at).unwrap();
        assert_eq!(c.points().unwrap(), [left]);
    }
}

#[test]
fn a_row_that_went_is_not_put_right() {
    let c = Catalog::in_memory(&STORE).unwrap();
    c.mend_point(&point(1, 1)).unwrap();
    assert_eq!(c.points().unwrap(), []);
}

#[test]
fn a_time_of_proof_that_changed_was_never_noted() {
    let flips = [
        "UPDATE verified SET at = at | 1099511627776",
        "UPDATE verified SET at = 'x'",
        "UPDATE verified SET sum = sum + 1",
        "UPDATE verified SET sum = -1",
        "UPDATE verified SET pack = 2",
        "UPDATE verified SET place = 1",
    ];
    for flip in flips {
        let c = Catalog::in_memory(&STORE).unwrap();
        let vault = c.vault_no("v").unwrap();
        let (no, other) = (add(&c, 1, true, Some(vault)), add(&c, 2, true, None));
        c.set_verified(&[(no, None)], Timestamp::from_seconds(100)).unwrap();
        assert_eq!(c.write("flip", |t| t.execute(flip, [])).unwrap(), 1, "{flip}");
        assert_eq!((c.verified(no).unwrap(), c.verified(other).unwrap()), (None, None), "{flip}");
        c.set_verified(&[(no, None)], Timestamp::from_seconds(200)).unwrap();
        assert_eq!(c.verified(no).unwrap(), Some(Timestamp::from_seconds(200)), "{flip}");
    }
}

#[test]
fn each_place_tells_how_far_it_was_proven() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let vault = c.vault_no("v").unwrap();
    let packs = [add(&c, 1, true, Some(vault)), add(&c, 2, true, None), add(&c, 3, false, Some(vault))];
    let len = |no| c.pack(no).unwrap().unwrap().entry.len;
    let at = Timestamp::from_seconds;
    assert_eq!(c.proof_of(Some(VaultNo(9))).unwrap(), Proof::default());
    c.set_verified(&[(packs[0], None), (packs[2], Some(vault))], at(100)).unwrap();
    let half = |read, never| Proof {
        packs: 2,
        bytes: len(read) + len(never),
        packs_never: 1,
        bytes_never: len(never),
        oldest: Some(at(100)),
    };
    assert_eq!(c.proof_of(None).unwrap(), half(packs[0], packs[1]));
    assert_eq!(
        c.proof_of(Some(vault)).unwrap(),
        half(packs[2], packs[0]),
        "what staging has proves nothing there"
    );
    let mut copies = c.copies_in(Some(vault)).unwrap();
    copies.sort_unstable_by_key(|copy| copy.pack);
    let copy = |pack, proven| KnownCopy { pack, len: len(pack), proven, bad: false };
    assert_eq!(copies, [copy(packs[0], None), copy(packs[2], Some(at(100)))]);
    let bad = |place| -> Vec<PackNo> {
        let copies = c.copies_in(place).unwrap().into_iter();
        copies.filter(|copy| copy.bad).map(|copy| copy.pack).collect()
    };
    let mark = Mark::BadIn(vault, c.pack(packs[2]).unwrap().unwrap().entry.id);
    c.set_mark(mark, true).unwrap();
    assert_eq!((bad(None), bad(Some(vault))), (vec![], vec![packs[2]]), "each copy by itself");
    c.set_mark(mark, false).unwrap();
    c.set_bad(packs[0], true).unwrap();
    assert_eq!((bad(None), bad(Some(vault))), (vec![packs[0]], vec![]));
    c.set_bad(packs[0], false).unwrap();
    c.set_verified(&[(packs[1], None)], at(50)).unwrap();
    c.set_verified(&[(packs[0], None)], at(200)).unwrap();
    let bytes = len(packs[0]) + len(packs[1]);
    let all = Proof { packs: 2, bytes, packs_never: 0, bytes_never: 0, oldest: Some(at(50)) };
    assert_eq!(c.proof_of(None).unwrap(), all);
    c.write("flip", |t| t.execute("UPDATE verified SET at = 60 WHERE at = 50", [])).unwrap();
    assert_eq!(c.proof_of(None).unwrap().packs_never, 1);
    c.miss_staged(packs[1]).unwrap();
    c.set_verified(&[(packs[0], Some(vault))], at(300)).unwrap();
    let bytes = len(packs[0]);
    let left = Proof { packs: 1, bytes, oldest: Some(at(200)), ..Proof::default() };
    assert_eq!(c.proof_of(None).unwrap(), left);
}

/// A chunk in two staged packs; then the row of its place in the first one is damaged.
fn in_two_packs(damage: &str) -> (Catalog, ChunkId, [PackNo; 2]) {
    let c = Catalog::in_memory(&STORE).unwrap();
    let one = add(&c, 1, true, None);
    let (entry, _) = pack(2, 3);
    c.add_packs(&[(&entry, &pack(1, 3).1)], true, None).unwrap();
    let two = c.pack_by_id(&entry.id).unwrap().unwrap().no;
    let sql = format!("UPDATE chunk SET {damage} WHERE pack = ?1 AND start = 10");
    c.write("flip", |t| t.execute(&sql, [one.0])).unwrap();
    (c, chunk(1, 1), [one, two])
}

#[test]
fn a_damaged_row_of_a_chunk_takes_away_no_other_place() {
    for damage in ["len = len + 1", "sum = sum + 1", "len = 'x'", "len = -1", "start = 11"] {
        let (c, id, [one, two]) = in_two_packs(damage);
        let packs = |found: Vec<Location>| found.iter().map(|at| at.pack).collect::<Vec<_>>();
        assert_eq!(c.locate(&id).unwrap().unwrap().pack, two, "{damage}");
        assert_eq!(packs(c.locate_all(&id).unwrap()), [two], "{damage}");
        assert!(c.is_in(&id, &Relied::default()).unwrap(), "{damage}");
        assert_eq!((c.places_in(one).unwrap().len(), c.places_in(two).unwrap().len()), (2, 3), "{damage}");
        assert_eq!(c.chunks_of(one).unwrap_err().class(), ErrorClass::Corrupt, "{damage}");
    }
}

#[test]
fn a_chunk_of_which_only_damaged_rows_are_left_is_neither_unknown_nor_relied_on() {
    let (c, id, [one, two]) = in_two_packs("len = len + 1");
    c.set_bad(two, true).unwrap();
    let corrupt = |e: StoreError| e.class() == ErrorClass::Corrupt;
    assert!(c.locate(&id).is_err_and(corrupt), "the other pack is marked as damaged");
    assert_eq!(c.locate_all(&id).unwrap().len(), 1, "a reader may try it");
    c.set_staged(two, false).unwrap();
    assert!(c.locate(&id).is_err_and(corrupt) && c.locate_all(&id).is_err_and(corrupt));
    assert!(!c.is_in(&id, &Relied::default()).unwrap(), "it is stored once more");
    assert!(c.chunks_of(one).is_err_and(corrupt));
}

#[test]
fn a_pack_was_verified_when_it_last_was_in_a_place_that_still_has_it() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let vault = c.vault_no("v").unwrap();
    let (no, other) = (add(&c, 1, true, Some(vault)), add(&c, 2, true, None));
    let at = |seconds| Some(Timestamp::from_seconds(seconds));
    assert_eq!(c.verified(no).unwrap(), None);
    c.set_verified(&[(no, None), (other, None)], Timestamp::from_seconds(100)).unwrap();
    c.set_verified(&[(no, Some(vault))], Timestamp::from_seconds(200)).unwrap();
    assert_eq!((c.verified(no).unwrap(), c.verified(other).unwrap()), (at(200), at(100)));
    c.set_confirmed(no, vault, false).unwrap();
    assert_eq!(c.verified(no).unwrap(), at(100), "the vault has it no more");
    c.clear_verified(no, None).unwrap();
    assert_eq!(c.verified(no).unwrap(), None, "it is damaged there");
    c.set_verified(&[(PackNo(99), None)], Timestamp::from_seconds(300)).unwrap();
    assert_eq!(c.verified(PackNo(99)).unwrap(), None, "it was freed meanwhile");
}

#[test]
fn what_comes_back_to_a_place_was_never_verified_there() {
    type Step = fn(&Catalog, PackNo, VaultNo) -> Result<(), StoreError>;
    let staged: [(Step, Step); 2] = [
        (|c, no, _| c.miss_staged(no), |c, no, _| c.set_staged(no, true)),
        (|c, no, _| c.set_staged(no, false), |c, no, _| c.set_staged(no, true)),
    ];
    let vaulted: [(Step, Step); 3] = [
        (|c, no, vault| c.miss_confirmed(no, vault), |c, no, vault| c.set_confirmed(no, vault, true)),
        (|c, no, vault| c.set_confirmed(no, vault, false), |c, no, vault| c.set_confirmed(no, vault, true)),
        (|c, _, vault| c.forget_vault(vault), |c, no, vault| c.set_confirmed(no, vault, true)),
    ];
    let (early, late) = (Timestamp::from_seconds(100), Timestamp::from_seconds(200));
    for (n, (goes, comes)) in staged.into_iter().chain(vaulted).enumerate() {
        let c = Catalog::in_memory(&STORE).unwrap();
        let vault = c.vault_no("v").unwrap();
        let no = add(&c, 1, true, Some(vault));
        // The copy that goes was read last.
        let (goer, stayer) = if n < staged.len() { (None, Some(vault)) } else { (Some(vault), None) };
        c.set_verified(&[(no, stayer)], early).unwrap();
        c.set_verified(&[(no, goer)], late).unwrap();
        goes(&c, no, vault).unwrap();
        // Whoever read it before it went notes that late.
        c.set_verified(&[(no, goer)], late).unwrap();
        comes(&c, no, vault).unwrap();
        assert_eq!(c.verified(no).unwrap(), Some(early), "way {n}");
    }
}

#[test]
fn one_that_stands_in_the_place_of_another_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let c = Catalog::open(&path, &STORE).unwrap();
    c.points_stamp().unwrap();
    set_aside(&path).unwrap();
    assert!(c.points_stamp().unwrap_err().to_string().contains("mount again"));
    drop(Catalog::open(&path, &STORE).unwrap());
    assert!(c.points_stamp().unwrap_err().to_string().contains("mount again"));
    assert!(c.points().unwrap().is_empty(), "what it knew it still tells");
}

#[test]
fn a_damaged_foreign_or_torn_catalog_is_set_aside_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let c = Catalog::open(&path, &STORE).unwrap();
    add(&c, 1, true, None);
    drop(c);
    let c = Catalog::open(&path, &STORE).unwrap();
    assert!(c.locate(&chunk(1, 0)).unwrap().is_some(), "what was committed is there");
    drop(c);
    let other = Catalog::open(&path, &[6; 16]).unwrap();
    assert!(other.packs().unwrap().is_empty(), "another store's catalog");
    add(&other, 1, true, None);
    other.write("flip", |t| t.execute("UPDATE meta SET key = 'inst' WHERE key = 'instance'", [])).unwrap();
    drop(other);
    let other = Catalog::open(&path, &[6; 16]).unwrap();
    assert!(other.packs().unwrap().is_empty(), "one that does not know itself");
    drop(other);
    std::fs::write(&path, b"this is not a database, however long it may be, and never was one").unwrap();
    let c = Catalog::open(&path, &STORE).unwrap();
    assert!(c.packs().unwrap().is_empty());
    assert!(path.with_extension("db.damaged").exists());
}

#[test]
fn a_bit_that_flips_in_the_definition_of_a_table_has_the_catalog_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let c = Catalog::open(&path, &STORE).unwrap();
    let no = add(&c, 1, true, None);
    drop(c);
    let whole = std::fs::read(&path).unwrap();
    let verified = position(&whole, b"CREATE TABLE verified");
    let names = [position(&whole[verified..], b" sum ") + verified + 1, verified - b"verified".len()];
    let others = (100..2 * 4096).step_by(131);
    let mut anew = 0;
    for at in others.chain(names) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let c = Catalog::open(&path, &STORE).unwrap();
        let packs = c.packs().unwrap();
        anew += usize::from(packs.is_empty());
        assert!(packs.is_empty() || !names.contains(&at), "byte {at}");
        c.set_verified(&[(no, None)], Timestamp::from_seconds(5))
            .unwrap_or_else(|e| panic!("byte {at}: {e}"));
        assert_eq!(c.verified(no).unwrap().is_some(), !packs.is_empty(), "byte {at}");
    }
    assert!(anew > 25, "{anew}");
}

fn position(of: &[u8], what: &[u8]) -> usize {
    of.windows(what.len()).position(|bytes| bytes == what).unwrap()
}

#[test]
fn a_statement_that_the_tables_do_not_fit_is_damage() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let no = add(&c, 1, true, None);
    c.write("flip", |t| t.execute_batch("ALTER TABLE verified RENAME COLUMN sum TO suo")).unwrap();
    let written = c.set_verified(&[(no, None)], Timestamp::from_seconds(5));
    assert_eq!(written.unwrap_err().class(), ErrorClass::Corrupt);
}

#[test]
fn readers_see_what_the_writer_committed() {
    let dir = tempfile::tempdir().unwrap();
    let c = Catalog::open(&dir.path().join("catalog.db"), &STORE).unwrap();
    std::thread::scope(|s| {
        for n in 0..20 {
            add(&c, n, true, None);
            s.spawn({
                let c = &c;
                move || assert!(c.locate(&chunk(n, 1)).unwrap().is_some())
            });
        }
    });
}

#[test]
fn on_a_full_disk_the_reserve_is_given_up_and_what_failed_is_tried_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&dir.path().join("catalog.db"), &STORE).unwrap();
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, b"room").unwrap();
    let pages: i64 = catalog.writer().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    catalog.writer().pragma_update(None, "max_page_count", pages).unwrap();
    let tries = std::cell::Cell::new(0);
    // More than there is room for, unless the reserve was given up.
    let write = || {
        catalog.write("fill", |t| {
            tries.set(tries.get() + 1);
            let len = if tries.get() == 2 { 1 } else { 1 << 20 };
            t.execute("INSERT INTO meta VALUES (?1, zeroblob(?2))", (tries.get(), len)).map(drop)
        })
    };
    write().unwrap();
    assert!(tries.get() == 2 && !ballast.exists());
    assert_eq!(write().unwrap_err().class(), ErrorClass::Full);
    assert_eq!(tries.get(), 3, "there is nothing left to give up");
}

#[test]
fn notes_of_attempts_tell_vaults_points_and_attempts_apart() {
    use crate::fence::Why;
    let c = Catalog::in_memory(&STORE).unwrap();
    let (v1, v2) = (c.vault_no("dir:/a").unwrap(), c.vault_no("dir:/b").unwrap());
    let [one, two] = [1, 2].map(|n| RecoveryPointId([n; 16]));
    let at = |point, number| crate::id::Attempt { point, number };
    c.set_revoked(v1, &at(one, 9), Some(Why::Forgotten)).unwrap();
    c.set_revoked(v1, &at(one, 10), Some(Why::Silent)).unwrap();
    c.set_revoked(v2, &at(two, 0), Some(Why::Forgotten)).unwrap();
    let why = |v, point| c.why_revoked(v, &point).unwrap();
    assert_eq!((why(v1, one), why(v1, two)), (Some(Why::Silent), None));
    assert_eq!((why(v2, one), why(v2, two)), (None, Some(Why::Forgotten)));
    assert_eq!(c.revoked_in(v1).unwrap(), [at(one, 9), at(one, 10)].into());
    c.set_revoked(v1, &at(one, 10), None).unwrap();
    assert_eq!(why(v1, one), Some(Why::Forgotten));
    // What earlier versions noted did not say why, and is asked for again; so is what makes no sense.
    let note = |key: &str| {
        let sql = "INSERT INTO meta(key, value) VALUES (?1, 1)";
        c.write("note", |t| t.execute(sql, [key])).unwrap();
    };
    note(&format!("revoked {} {}", v1.0, two.hex()));
    note(&format!("revoked {} {} 256", v1.0, two.hex()));
    let senseless = "UPDATE meta SET value = 7 WHERE key GLOB 'revoked * 9'";
    assert_eq!(c.write("flip", |t| t.execute(senseless, [])).unwrap(), 1);
    assert_eq!((why(v1, one), why(v1, two)), (None, None));
    let seen = Seen { newest: 3, unfinished: true };
    c.set_session_seen(v1, &at(one, 1), Some(seen)).unwrap();
    let saw = |v, attempt| c.session_seen(v, &attempt).unwrap();
    assert_eq!((saw(v1, at(one, 1)), saw(v1, at(one, 0)), saw(v2, at(one, 1))), (Some(seen), None, None));
    c.set_seen_at(v2, &at(two, 3)).unwrap();
    c.set_seen_at(v2, &at(two, 2)).unwrap();
    assert_eq!([(v2, two), (v2, one), (v1, two)].map(|(v, p)| c.seen_at(v, &p).unwrap()), [3, 0, 0]);
    let open = [at(one, 0), at(one, 255), at(two, 0)].into();
    c.set_open_before(v2, 7, &open).unwrap();
    let before = |v, number| c.open_before(v, number).unwrap();
    assert_eq!((before(v2, 7), before(v2, 8), before(v1, 7)), (Some(open), None, None));
    let cut = "UPDATE meta SET value = substr(value, 1, length(value) - 17) WHERE key GLOB 'open before *'";
    assert_eq!(c.write("cut", |t| t.execute(cut, [])).unwrap(), 1);
    assert_eq!(before(v2, 7), None);
    c.set_open_before(v2, 7, &[].into()).unwrap();
    assert_eq!(before(v2, 7), Some([].into()));
    c.forget_vault(v2).unwrap();
    assert!(c.revoked_in(v2).unwrap().is_empty());
    assert_eq!((c.seen_at(v2, &two).unwrap(), before(v2, 7)), (0, None));
}

#[test]
fn doubt_ends_up_to_what_was_cast_when_somebody_began_to_look_also_in_a_catalog_of_before() {
    let c = Catalog::in_memory(&STORE).unwrap();
    let is_doubtful = || c.has_mark(Mark::Doubtful).unwrap() && c.has_bad_packs().unwrap();
    assert_eq!(c.doubt().unwrap(), None);
    c.end_doubt(None).unwrap();
    let before = "INSERT OR REPLACE INTO meta(key, value) VALUES ('doubtful', 1)";
    c.write("write", |t| t.execute(before, []).map(drop)).unwrap();
    let first = c.doubt().unwrap();
    assert!(is_doubtful() && first.is_some());
    c.set_mark(Mark::Doubtful, true).unwrap();
    c.end_doubt(first).unwrap();
    assert!(is_doubtful(), "a later one was cast");
    // A doubt that was ended and cast again meanwhile is another one.
    let second = c.doubt().unwrap();
    c.end_doubt(second).unwrap();
    assert!(!is_doubtful());
    c.set_mark(Mark::Doubtful, true).unwrap();
    c.end_doubt(second).unwrap();
    assert!(is_doubtful());
    c.end_doubt(None).unwrap();
    assert!(is_doubtful());
    c.end_doubt(c.doubt().unwrap()).unwrap();
    assert!(!is_doubtful());
}
