//! A collector's steps, C1 to C7.

use super::state::{CHUNKS, Collecting, Collector, Set, State, members, one};
use super::world::{Rules, World};

/// A set to condemn, and the thin pack in it that is to be written anew.
type Plan = (Set, Option<u8>);

impl World {
    /// How many ways there are to take the next step.
    pub fn ways(&self, state: &State, number: usize) -> usize {
        match state.collectors[number].at {
            // Deleting can be begun at any time, beside going on.
            Collecting::Away => 2,
            Collecting::Marking => self.plans(state).len(),
            Collecting::Deleting => state.collectors[number].set.count_ones().max(1) as usize,
            _ => 1,
        }
    }

    /// The next step of a collector.
    pub fn collect(&self, state: &mut State, number: usize, way: usize) -> Option<()> {
        let mut collector = state.collectors[number];
        match collector.at {
            Collecting::Away if way == 1 => collector = self.last_mark(state)?,
            Collecting::Away => collector = self.begin(state)?,
            Collecting::Marking => self.mark(state, &mut collector, way)?,
            Collecting::Copied => {
                state.indexed |= one(collector.copy.take()?);
                collector.at = Collecting::Condemning;
            }
            Collecting::Condemning => self.condemn(state, &mut collector),
            Collecting::Listing => self.list(state, &mut collector),
            Collecting::Awaiting => self.wait(state, &mut collector)?,
            Collecting::Sparing => self.spare(state, &mut collector),
            Collecting::Finishing => {
                state.condemned = None;
                state.dead |= collector.set;
                collector = Collector::default();
            }
            Collecting::Deleting => delete(state, &mut collector, way)?,
        }
        state.collectors[number] = collector;
        Some(())
    }

    /// A generation that is not finished is helped, whosever it is; else a new one is begun: its number is fixed before the mark.
    fn begin(&self, state: &State) -> Option<Collector> {
        let (at, generation) = match state.condemned {
            Some(_) => (Collecting::Listing, state.generation - 1),
            None => (Collecting::Marking, state.generation),
        };
        let indexed = if self.is(Rules::IndexOfFirstMark) { state.indexed } else { 0 };
        let begun = Collector { at, generation, indexed, ..Collector::default() };
        (generation < self.generations).then_some(begun)
    }

    /// C1.
    fn mark(&self, state: &mut State, collector: &mut Collector, way: usize) -> Option<()> {
        let (condemned, thin) = *self.plans(state).get(way)?;
        *collector = Collector { at: Collecting::Condemning, set: condemned, ..*collector };
        if let Some(thin) = thin {
            let copy = state.name(state.holds[usize::from(thin)] & state.live())?;
            state.packs |= one(copy);
            state.copies |= one(copy);
            *collector = Collector { at: Collecting::Copied, copy: Some(copy), ..*collector };
        }
        Some(())
    }

    /// Packs that count as copies.
    fn counted(&self, state: &State) -> Set {
        let dead = if self.is(Rules::DeadCounted) { 0 } else { state.dead };
        state.readable() & !dead
    }

    /// Every set that C1 may come to: whichever packs are homes, with surplus copies or without, with one thin pack or none.
    fn plans(&self, state: &State) -> Vec<Plan> {
        let (live, counted) = (state.live(), self.counted(state));
        let lives = |pack: u8| state.indexed & one(pack) != 0 && state.holds[usize::from(pack)] & live != 0;
        let there = state.packs & !state.dead;
        let dead = members(there).filter(|pack| !lives(*pack)).fold(0, |set, pack| set | one(pack));
        let mut plans = vec![(dead, None)];
        for homes in self.homes(state, live, counted) {
            let surplus = there & !dead & !homes;
            let thin = members(homes & there).filter(|pack| state.holds[usize::from(*pack)] & !live != 0);
            plans.push((dead | surplus, None));
            if state.copies.count_ones() < u32::from(self.copies) {
                plans.extend(
                    thin.flat_map(|pack| [dead, dead | surplus].map(|set| (set | one(pack), Some(pack)))),
                );
            }
        }
        if self.is(Rules::HomesCondemned) || self.is(Rules::CondemnedCounted) {
            let twice = |pack: &u8| {
                state.holds[usize::from(*pack)] & live & !state.chunks(counted & !one(*pack)) == 0
            };
            plans.push((members(there).filter(twice).fold(dead, |set, pack| set | one(pack)), None));
        }
        plans.retain(|(set, _)| *set != 0);
        plans.sort_unstable();
        plans.dedup();
        plans
    }

    /// Every choice of one pack for each live chunk.
    fn homes(&self, state: &State, live: Set, counted: Set) -> Vec<Set> {
        let mut choices = vec![0];
        for chunk in (0..CHUNKS).filter(|chunk| live & one(*chunk) != 0) {
            let have: Vec<u8> =
                members(counted).filter(|pack| state.holds[usize::from(*pack)] & one(chunk) != 0).collect();
            if !have.is_empty() {
                choices =
                    choices.iter().flat_map(|set| have.iter().map(move |pack| set | one(*pack))).collect();
            }
        }
        choices
    }

    /// C2. Who loses throws away what it condemned, and begins again: with helping, if there is something to help with.
    fn condemn(&self, state: &mut State, collector: &mut Collector) {
        if self.is(Rules::NumberAfterMark) && state.generation < self.generations {
            collector.generation = state.generation;
        }
        if collector.generation != state.generation || state.condemned.is_some() {
            *collector = Collector::default();
            return;
        }
        state.condemned = Some(collector.set);
        state.generation += 1;
        *collector = Collector { at: Collecting::Listing, set: 0, ..*collector };
    }

    /// C3. A marker is for ever, a point is not: it may be purged before the points are listed anew.
    fn list(&self, state: &State, collector: &mut Collector) {
        collector.at = Collecting::Awaiting;
        collector.set = match self.rules {
            Rules::NoWaiting => 0,
            Rules::OneNewPoint => state.points,
            Rules::OutcomeSeenOnce => state.sessions & !state.markers & !state.points,
            Rules::PurgedNotAwaited => state.sessions & !state.markers & !state.purged,
            _ => state.sessions & !state.markers,
        };
    }

    /// C4, and the listing of points of C5. Who revokes is not asked here: anybody may, at any time.
    fn wait(&self, state: &State, collector: &mut Collector) -> Option<()> {
        let open = collector.set & !state.markers & !state.points;
        if self.is(Rules::OutcomeSeenOnce) && collector.set != 0 {
            (open != collector.set).then_some(())?;
            collector.set = open;
            return Some(());
        }
        let over = match self.rules {
            Rules::OneNewPoint => state.points & !collector.set != 0,
            Rules::PurgedNotAwaited => open & !state.purged == 0,
            _ => open == 0,
        };
        over.then_some(())?;
        *collector = Collector { at: Collecting::Sparing, set: state.live(), ..*collector };
        Some(())
    }

    /// C5: what was condemned, without the packs that have a live chunk of which there is no other copy to rely on.
    fn spare(&self, state: &State, collector: &mut Collector) {
        let condemned = state.condemned.unwrap_or_default();
        let live = if self.is(Rules::NoSecondMark) { 0 } else { collector.set };
        let indexed = if self.is(Rules::IndexOfFirstMark) { collector.indexed } else { state.indexed };
        let counted = self.counted(state) & indexed;
        let needed = |pack: &u8| {
            let others = match self.rules {
                Rules::CondemnedCounted => counted & !one(*pack),
                _ => counted & !condemned,
            };
            let held = if indexed & one(*pack) != 0 { state.holds[usize::from(*pack)] } else { 0 };
            held & live & !state.chunks(others) != 0
        };
        let dead = members(condemned).filter(|pack| !needed(pack)).fold(0, |set, pack| set | one(pack));
        *collector = Collector { at: Collecting::Finishing, set: dead, indexed: 0, ..*collector };
    }

    /// C7: of what finished generations name, what is dead by a mark of now.
    fn last_mark(&self, state: &State) -> Option<Collector> {
        let (live, safe) = (state.live(), state.chunks(self.counted(state)));
        let dead = |pack: &u8| {
            let others = match self.rules {
                Rules::DeadCounted => state.chunks(state.readable() & !one(*pack)),
                _ => safe,
            };
            state.holds[usize::from(*pack)] & live & !others == 0 || self.is(Rules::NoLastMark)
        };
        let set = members(state.dead & state.packs).filter(dead).fold(0, |set, pack| set | one(pack));
        (set != 0).then_some(Collector { at: Collecting::Deleting, set, ..Collector::default() })
    }
}

/// One pack at a time; another collector may have been faster.
fn delete(state: &mut State, collector: &mut Collector, way: usize) -> Option<()> {
    if collector.set == 0 {
        *collector = Collector::default();
        return Some(());
    }
    let pack = one(members(collector.set).nth(way)?);
    state.packs &= !pack;
    state.indexed &= !pack;
    collector.set &= !pack;
    Some(())
}
