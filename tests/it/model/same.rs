//! States that nobody could tell apart are one: what nobody looks at any more is forgotten, and packs are numbered by what is
//! known of them.

use super::state::{Collecting, Collector, PACKS, Set, State, Writing, one};
use super::world::{Rules, World};

impl World {
    /// The one state that stands for all that are like this one.
    pub fn normalize(&self, state: &mut State) {
        self.forget_outcomes(state);
        self.forget_lost(state);
        if !self.is(Rules::BlindOffer) {
            // It would never be offered again.
            let dead = state.dead;
            for writer in state.writers.iter_mut().filter(|writer| writer.at == Writing::Away) {
                writer.sealed = writer.sealed.filter(|pack| dead & one(*pack) == 0);
            }
        }
        state.collectors[..self.collectors].sort_unstable();
        number(state);
    }

    /// A marker that stays decides: nobody asks then for the session or waits for its commit.
    fn forget_outcomes(&self, state: &mut State) {
        if self.tidies_markers() || self.is(Rules::CommitOverwrites) {
            return;
        }
        state.sessions &= !state.markers;
        state.late &= !state.markers;
        if self.is(Rules::OneNewPoint) {
            return;
        }
        for collector in state.collectors.iter_mut().filter(|one| one.at == Collecting::Awaiting) {
            collector.set &= !state.markers;
        }
    }

    /// A collector whose generation another one finished, or made, puts nothing any more.
    fn forget_lost(&self, state: &mut State) {
        for collector in &mut state.collectors {
            use Collecting::*;
            let newest = collector.generation + 1 == state.generation;
            let lost = match collector.at {
                Listing | Awaiting | Sparing | Finishing => !newest || state.condemned.is_none(),
                Condemning => collector.generation != state.generation && !self.is(Rules::NumberAfterMark),
                _ => false,
            };
            if lost {
                *collector = Collector::default();
            }
        }
    }
}

/// Whether what a collector has in mind are packs.
fn has_packs(collector: &Collector) -> bool {
    use Collecting::*;
    matches!(collector.at, Copied | Condemning | Finishing | Deleting)
}

/// All sets of packs in a state.
fn sets(state: &mut State, mut each: impl FnMut(&mut Set)) {
    for set in [&mut state.packs, &mut state.indexed, &mut state.copies, &mut state.dead] {
        each(set);
    }
    state.condemned.iter_mut().for_each(&mut each);
    for writer in &mut state.writers {
        each(&mut writer.known);
        each(&mut writer.listed);
    }
    for collector in &mut state.collectors {
        if has_packs(collector) {
            each(&mut collector.set);
        }
        each(&mut collector.indexed);
    }
}

/// All names of packs in a state.
fn names(state: &mut State, mut each: impl FnMut(&mut u8)) {
    state.writers.iter_mut().filter_map(|writer| writer.sealed.as_mut()).for_each(&mut each);
    state.collectors.iter_mut().filter_map(|collector| collector.copy.as_mut()).for_each(&mut each);
}

/// Numbers packs anew, by all that is known of each. One that is gone and that nobody could come to rely on has no number.
fn number(state: &mut State) {
    let mut marks = [0u64; PACKS];
    let mut bit = 0;
    let mut mark = |set: Set| {
        for (pack, marks) in marks.iter_mut().enumerate() {
            *marks |= u64::from(set >> pack & 1) << bit;
        }
        bit += 1;
    };
    sets(state, |set| mark(*set));
    names(state, |name| mark(one(*name)));
    let mut used = state.packs;
    names(state, |name| used |= one(*name));
    state.writers.iter().for_each(|writer| used |= writer.listed);
    state.collectors.iter().filter(|one| has_packs(one)).for_each(|one| used |= one.set);
    let mut order: Vec<u8> = (0..state.named).filter(|pack| used & one(*pack) != 0).collect();
    order.sort_by_key(|pack| (state.holds[usize::from(*pack)], marks[usize::from(*pack)]));
    if order.len() == usize::from(state.named) && order.is_sorted() {
        return;
    }
    let holds = state.holds;
    state.holds = [0; PACKS];
    let mut new = [0; PACKS];
    for (number, old) in (0..).zip(&order) {
        new[usize::from(*old)] = number;
        state.holds[usize::from(number)] = holds[usize::from(*old)];
    }
    state.named = order.len() as u8;
    sets(state, |set| {
        *set = order
            .iter()
            .filter(|old| *set & one(**old) != 0)
            .fold(0, |all, old| all | one(new[usize::from(*old)]));
    });
    names(state, |name| *name = new[usize::from(*name)]);
}
