//! Which packs of a vault are needed: of several that have the same chunk one is its home, and only what is at home in a pack keeps it
//! there. Several machines that store the same at the same time leave the same chunk in several packs. One that was found damaged may be all there
//! is, and is no home that another pack could go for.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::beside::{Others, Proofs, seen_in};
use super::{Judged, Known, Place, ReclaimPlan, THIN_PERCENT, Verdict, damaged, know_points, mark, unopened};
use crate::catalog::{PackNo, PackRow, VaultNo};
use crate::clock::Deadline;
use crate::error::StoreError;
use crate::id::{ChunkId, PackId};
use crate::monitor::Monitor;
use crate::pack::PackedChunk;
use crate::store::Store;

/// So many of the bytes that stay in a vault may be of no use: what is in packs of which most is.
const IDLE_PERCENT: u64 = 5;

/// How fit a pack is to be the home of a chunk, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    Sound,
    Damaged,
    /// It is to go.
    Condemned,
    /// It may go at any time: whoever needs it was not seen when that was decided.
    LetGo,
}

/// On whose word a pack is not needed because another one has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The catalog's: enough to choose what is looked at again.
    Catalog,
    /// The home of each chunk was read for it, in a pack that stays as it is.
    WhatWasRead,
}

struct Candidate {
    row: PackRow,
    fitness: Fitness,
    /// Bytes of its raw stream that points need.
    needed: u64,
    /// Bytes of them that are at home in it.
    at_home: u64,
}

impl Candidate {
    /// Bytes of the pack that nothing in it keeps there.
    fn idle(&self) -> u64 {
        let total = u128::from(self.row.entry.raw_len().max(1));
        let idle = total.saturating_sub(u128::from(self.at_home)) * u128::from(self.row.entry.len) / total;
        u64::try_from(idle).unwrap_or(self.row.entry.len)
    }
}

/// Packs of which too little is at home: each of less than 60 %, and then the emptiest ones until idle bytes are at most a twentieth of all that
/// stay.
fn thin_among(candidates: &[Candidate]) -> HashSet<PackNo> {
    let lives = |c: &&Candidate| c.fitness == Fitness::Sound && c.at_home > 0;
    let mut living: Vec<&Candidate> = candidates.iter().filter(lives).collect();
    let part = |c: &Candidate| u128::from(c.at_home) * 1_000_000 / u128::from(c.row.entry.raw_len().max(1));
    living.sort_by_key(|c| (part(c), c.row.entry.id));
    let mut idle: u64 = living.iter().map(|c| c.idle()).sum();
    let mut all: u64 = living.iter().map(|c| c.row.entry.len).sum();
    let mut thin = HashSet::new();
    for candidate in living {
        let below = candidate.at_home * 100 < candidate.row.entry.raw_len() * THIN_PERCENT;
        if !below && idle * 100 <= all * IDLE_PERCENT {
            break;
        }
        thin.insert(candidate.row.no);
        (idle, all) = (idle - candidate.idle(), all - candidate.idle());
    }
    thin
}

/// Judges the packs of a vault, beside what points of other places need. What an unfinished generation condemned is the home of what nothing else
/// has, and of nothing more.
pub(super) fn judge(
    store: &Store,
    no: VaultNo,
    trust: Trust,
    monitor: &dyn Monitor,
) -> Result<(ReclaimPlan, Others), StoreError> {
    let place = Place::Vault(no);
    let rows = seen_in(store, place, Deadline::NEVER, monitor)?;
    let Known { points, outcomes } = know_points(store, place)?;
    let (mut live, mut pages) = (HashSet::new(), HashSet::new());
    mark(store, place, &points, (&mut live, &mut pages), &|| Deadline::NEVER, monitor)?;
    let others = Others::of(store, place, &points, pages, monitor)?;
    let unopened = unopened::that_may_go(store, no, &live, (&rows, &others), monitor)?;
    let mut candidates = candidates(store, no, rows, (&others, &mut live))?;
    // Of equals all machines take the same: else each has a home for what it has, and for what another one has, too.
    candidates.sort_by_key(|c| (c.fitness, Reverse(c.needed), c.row.entry.id));
    let mut housed = HashSet::new();
    for candidate in &mut candidates {
        let needed = needed_of(store, &candidate.row, &live)?;
        let at_home = needed.iter().filter(|chunk| match candidate.fitness {
            Fitness::Damaged => !housed.contains(&chunk.id),
            _ => housed.insert(chunk.id),
        });
        candidate.at_home = at_home.map(|chunk| u64::from(chunk.len)).sum();
    }
    drop(housed);
    let thin = thin_among(&candidates);
    let stays = |c: &&Candidate| c.fitness == Fitness::Sound && c.at_home > 0 && !thin.contains(&c.row.no);
    let stay = candidates.iter().filter(stays).map(|c| c.row.clone());
    let mut proofs = matches!(trust, Trust::WhatWasRead).then(|| Proofs::of(store, no, stay, monitor));
    let mut packs = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let verdict = match &mut proofs {
            _ if thin.contains(&candidate.row.no) => Verdict::Rewrite,
            // Nothing new relies on it: what it alone has moves to where it can stay.
            None if candidate.at_home > 0 && candidate.fitness == Fitness::LetGo => Verdict::Rewrite,
            _ if candidate.at_home > 0 => Verdict::Keep,
            // Of the others nothing is decided now.
            Some(_) if candidate.fitness != Fitness::Condemned => Verdict::Keep,
            Some(proofs) if candidate.needed > 0 => {
                let needed = needed_of(store, &candidate.row, &live)?;
                if proofs.have(&needed)? { Verdict::Delete } else { Verdict::Keep }
            }
            _ => Verdict::Delete,
        };
        let Candidate { row, fitness, at_home, .. } = candidate;
        let (total, bad) = (row.entry.raw_len(), fitness == Fitness::Damaged);
        let condemned = matches!(fitness, Fitness::Condemned | Fitness::LetGo);
        packs.push(Judged { pack: row, live: at_home, total, bad, condemned, verdict });
    }
    packs.sort_by_key(|judged| judged.pack.no);
    let points = points.into_iter().collect();
    Ok((ReclaimPlan { place, packs, unopened, live, points, outcomes }, others))
}

fn candidates(
    store: &Store,
    no: VaultNo,
    rows: Vec<PackRow>,
    (others, live): (&Others, &mut HashSet<ChunkId>),
) -> Result<Vec<Candidate>, StoreError> {
    let damaged = damaged(store, Place::Vault(no), &rows)?;
    let (condemned, let_go) = (store.condemned_in(no)?, names_let_go(store, no, &rows)?);
    let mut candidates = Vec::with_capacity(rows.len());
    for row in rows {
        others.hold(store, &store.catalog().chunks_of(row.no)?, live)?;
        let fitness = match row.no {
            _ if let_go.contains(&row.entry.id) => Fitness::LetGo,
            pack if condemned.contains(&pack) => Fitness::Condemned,
            pack if damaged.contains(&pack) => Fitness::Damaged,
            _ => Fitness::Sound,
        };
        candidates.push(Candidate { row, fitness, needed: 0, at_home: 0 });
    }
    for candidate in &mut candidates {
        let needed = needed_of(store, &candidate.row, live)?;
        candidate.needed = needed.iter().map(|chunk| u64::from(chunk.len)).sum();
    }
    Ok(candidates)
}

fn names_let_go(store: &Store, no: VaultNo, rows: &[PackRow]) -> Result<HashSet<PackId>, StoreError> {
    let names = rows.iter().map(|row| row.entry.id).collect();
    store.catalog().let_go_of(no, &names)
}

fn needed_of(store: &Store, row: &PackRow, live: &HashSet<ChunkId>) -> Result<Vec<PackedChunk>, StoreError> {
    let mut chunks = store.catalog().chunks_of(row.no)?;
    chunks.retain(|chunk| live.contains(&chunk.id));
    Ok(chunks)
}

/// What is at home in each of these packs, which are to be written anew, in the order of the packs.
pub(super) fn at_home_in(
    store: &Store,
    plan: &ReclaimPlan,
    thin: &HashSet<PackNo>,
) -> Result<Vec<(PackRow, Vec<ChunkId>)>, StoreError> {
    let mut stay = HashSet::new();
    let kept = |judged: &&Judged| judged.verdict == Verdict::Keep && judged.is_home();
    for judged in plan.packs.iter().filter(kept) {
        stay.extend(needed_of(store, &judged.pack, &plan.live)?.into_iter().map(|chunk| chunk.id));
    }
    let mut found = Vec::new();
    for judged in plan.packs.iter().filter(|judged| thin.contains(&judged.pack.no)) {
        let needed = needed_of(store, &judged.pack, &plan.live)?;
        let ids = needed.into_iter().map(|chunk| chunk.id).filter(|id| stay.insert(*id));
        found.push((judged.pack.clone(), ids.collect()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectId;
    use crate::pack::{Frame, PackEntry, PackKind};

    /// Of so many bytes of raw stream so many are at home, and it takes so many bytes in the vault.
    fn candidate(no: i64, (at_home, raw_len, len): (u64, u32, u64), fitness: Fitness) -> Candidate {
        let entry = PackEntry {
            id: PackId([no as u8; 32]),
            object_id: ObjectId([no as u8; 16]),
            generation: 1,
            kind: PackKind::Data,
            len,
            frames: vec![Frame { units: 1, raw_len }],
        };
        let row = PackRow { no: PackNo(no), entry, staged: false, vaults: Vec::new() };
        Candidate { row, fitness, needed: at_home, at_home }
    }

    /// Which of these are thin, beside so many packs that are full.
    fn thin(packs: &[(u64, u32, u64)], full: usize) -> Vec<i64> {
        let packs = packs.iter().copied().chain(std::iter::repeat_n((1000, 1000, 1000), full));
        let packs: Vec<_> = (1..).zip(packs).map(|(no, pack)| candidate(no, pack, Fitness::Sound)).collect();
        let mut thin: Vec<i64> = thin_among(&packs).into_iter().map(|no| no.0).collect();
        thin.sort_unstable();
        thin
    }

    #[test]
    fn a_pack_of_which_less_than_sixty_percent_are_at_home_is_thin_however_full_the_others_are() {
        assert_eq!(thin(&[], 5), [0; 0]);
        assert_eq!(thin(&[(599, 1000, 1000)], 1000), [1]);
        assert_eq!(thin(&[(600, 1000, 1000), (1, 1000, 1000)], 1000), [2]);
    }

    #[test]
    fn the_emptiest_go_until_a_twentieth_of_what_stays_is_idle() {
        // 400 bytes are a twentieth of 8000.
        assert_eq!(thin(&[(600, 1000, 1000)], 7), [0; 0]);
        assert_eq!(thin(&[(600, 1000, 1000)], 6), [1]);
        assert_eq!(thin(&[(900, 1000, 1000), (800, 1000, 1000), (700, 1000, 1000)], 7), [3]);
        // Of what lives in them nothing goes: the last is 100 idle bytes of 2500.
        assert_eq!(thin(&[(900, 1000, 1000), (800, 1000, 1000), (700, 1000, 1000)], 0), [2, 3]);
        assert_eq!(thin(&[(940, 1000, 1000), (800, 1000, 1000), (700, 1000, 1000)], 0), [2, 3]);
        assert_eq!(thin(&[(900, 1000, 1000), (900, 1000, 1000)], 0), [1, 2]);
    }

    #[test]
    fn what_goes_counts_no_more_neither_among_what_is_idle_nor_among_what_stays() {
        // With the first gone 300 of 6100 bytes are idle, and of 5100.
        assert_eq!(thin(&[(100, 1000, 1000), (700, 1000, 1000)], 5), [1]);
        assert_eq!(thin(&[(100, 1000, 1000), (700, 1000, 1000)], 4), [1, 2]);
    }

    #[test]
    fn how_empty_a_pack_is_its_raw_bytes_say_and_how_much_is_idle_its_bytes_in_the_vault() {
        // Ten times as many raw bytes, which are squeezed: 300 bytes in the vault are idle.
        assert_eq!(thin(&[(7000, 10_000, 1000)], 5), [0; 0]);
        assert_eq!(thin(&[(7000, 10_000, 1000)], 4), [1]);
        for packs in [[(7000, 10_000, 1000), (800, 1000, 1000)], [(700, 1000, 1000), (8000, 10_000, 1000)]] {
            assert_eq!(thin(&packs, 7), [1], "the emptier one goes first: {packs:?}");
        }
    }

    #[test]
    fn only_what_lives_in_sound_packs_is_written_anew_for_room() {
        let packs = [
            candidate(1, (10, 1000, 1000), Fitness::Damaged),
            candidate(2, (10, 1000, 1000), Fitness::Condemned),
            candidate(3, (10, 1000, 1000), Fitness::LetGo),
            candidate(4, (0, 1000, 1000), Fitness::Sound),
            candidate(5, (10, 1000, 1000), Fitness::Sound),
        ];
        assert_eq!(thin_among(&packs), HashSet::from([PackNo(5)]));
    }

    #[test]
    fn a_pack_in_which_nothing_is_at_home_or_that_may_not_stay_stands_for_no_other() {
        let judged = |live: u64, bad: bool, condemned: bool| {
            let Candidate { row: pack, .. } = candidate(1, (live, 1000, 1000), Fitness::Sound);
            Judged { pack, live, total: 1000, bad, condemned, verdict: Verdict::Keep }
        };
        assert!(judged(1, false, false).is_home());
        for (live, bad, condemned) in [(0, false, false), (1, true, false), (1, false, true)] {
            assert!(!judged(live, bad, condemned).is_home(), "{live} {bad} {condemned}");
        }
    }
}
